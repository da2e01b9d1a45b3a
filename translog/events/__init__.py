"""Audit events, pure: canonical events, their seal, their encrypted payloads, entries, disclosures."""
