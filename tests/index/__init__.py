"""Tests of translog.index."""
