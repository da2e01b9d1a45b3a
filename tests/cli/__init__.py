"""Tests of translog.cli."""
