"""Tests of translog.storage."""
