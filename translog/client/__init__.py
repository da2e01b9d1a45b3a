"""Talking to logs: reading any tlog-tiles log with verification, and submitting to a translog."""
