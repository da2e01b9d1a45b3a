"""One served log and its policy for tests that only need any log."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.harness import Served, run, serving

ORIGIN = "log.example/shared"


@dataclass(frozen=True, slots=True)
class SharedLog:
    """A served log that every test may append to, so no test knows its size."""

    url: str
    directory: Path
    policy: Path
    classic: Path


@pytest.fixture(scope="session")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    directory = tmp_path_factory.mktemp("shared") / "log"
    assert run("init", directory, "--origin", ORIGIN, "--profile", "opaque").code == 0
    with serving(directory) as served:
        yield served, directory


@pytest.fixture(scope="session")
def shared_log(_served: tuple[Served, Path], tmp_path_factory: pytest.TempPathFactory) -> SharedLog:
    served, directory = _served
    made = tmp_path_factory.mktemp("policy")
    assert run("policy", "--log", served.url, "-o", made / "policy").code == 0
    assert run("policy", "--log", served.url, "-o", made / "classic", "--classic").code == 0
    return SharedLog(served.url, directory, made / "policy", made / "classic")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs that are not there are given up at once."""
    monkeypatch.setattr("translog.client.transport._WAIT_MS_FIRST", 1)
