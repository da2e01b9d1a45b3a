"""Fixtures and options of the fault suites."""

import os
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skips the test; with TRANSLOG_REQUIRE_INTEROP=1 fails it."""
    if os.environ.get("TRANSLOG_REQUIRE_INTEROP") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
