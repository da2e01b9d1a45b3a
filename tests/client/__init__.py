"""Tests of translog.client."""
