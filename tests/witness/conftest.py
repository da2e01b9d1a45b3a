"""Fixtures of the witness."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from translog.witness.service import Witness
from witness.made_log import MadeLog, Time, make_witness


@pytest.fixture
def log() -> MadeLog:
    return MadeLog()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def witness(tmp_path: Path, log: MadeLog, time: Time) -> Iterator[Witness]:
    """One that knows `log`."""
    made = make_witness(tmp_path / "state.sqlite", log, now_ms=time)
    yield made
    made.store.close()
