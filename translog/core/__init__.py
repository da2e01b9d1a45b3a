"""The protocol, pure: no I/O, no clock, no randomness. Knows nothing of audit events: an entry is opaque bytes.

The names for offline verification are re-exported here; everything else is imported from its module.
"""

from translog.core.merkle import hash_leaf
from translog.core.policy import Policy, VerifiedCheckpoint, parse_policy, verify_checkpoint
from translog.core.proof import Receipt, VerifiedReceipt, parse_receipt, verify_receipt

__all__ = [
    "Policy",
    "Receipt",
    "VerifiedCheckpoint",
    "VerifiedReceipt",
    "hash_leaf",
    "parse_policy",
    "parse_receipt",
    "verify_checkpoint",
    "verify_receipt",
]
