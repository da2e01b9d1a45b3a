"""Tests of translog.server: a whole log, served on a real socket."""
