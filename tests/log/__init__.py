"""Tests of translog.log."""
