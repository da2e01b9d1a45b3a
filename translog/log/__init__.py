"""The log service: from entries waiting in a pool to published checkpoints, proofs and receipts."""
