"""Tests of translog.identity."""
