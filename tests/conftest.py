"""Fixtures for every test."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of external test data beside the repository. Skips where it is absent."""
    if not _SHARED.is_dir():
        pytest.skip(f"no test data at {_SHARED}")
    return _SHARED
