"""golog against a log that runs: our own program, served by `translog serve` and filled over HTTP."""

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from translog.bootstrap import create_log
from translog.client.submit import Appended, Submitter
from translog.core.keys import KeyType
from translog.core.policy import Policy, format_log_policy, parse_policy
from translog.storage import keyspace
from translog.storage.store import Profile

from .conftest import RunGolog

try:
    import plyvel
except ImportError:
    import plyvel_next as plyvel

ENTRIES = [f"entry {n} ".encode() * (n % 40) for n in range(700)]


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The URL of the log in `directory`, served by a process of its own until the end of the block."""
    command = [sys.executable, "-m", "translog", "serve", str(directory), "--listen", "127.0.0.1:0", "--admin-listen", ""]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"serving \S+ on (http://\S+)", line):
                yield found[1]
                break
        else:
            pytest.fail("the log did not start")
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


class LiveLog:
    """A log of 700 entries, the checkpoint it had at 300, and the receipts of all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "log"
        vkeys = create_log(self.directory, origin="log.example/live", profile=Profile.OPAQUE)
        self.vkey = next(str(vkey) for vkey in vkeys if vkey.type is KeyType.ED25519)
        self.old = directory / "old"
        with served(self.directory) as url:
            self.appended = asyncio.run(self._fill(url, parse_policy(format_log_policy(vkeys).encode())))

    async def _fill(self, url: str, policy: Policy) -> list[Appended]:
        async with Submitter(url) as submitter:
            appended = await submitter.append(ENTRIES[:300], policy)
            self.old.write_bytes(await submitter.checkpoint())
            return appended + await submitter.append(ENTRIES[300:], policy)


@pytest.fixture(scope="module")
def live_log(tmp_path_factory: pytest.TempPathFactory) -> LiveLog:
    return LiveLog(tmp_path_factory.mktemp("live"))


def test_golog_accepts_our_log_its_proofs_and_its_past(live_log: LiveLog, run_golog: RunGolog) -> None:
    with served(live_log.directory) as url:
        result = run_golog(url, live_log.vkey, old=live_log.old)
    assert result.returncode == 0, result.stderr
    assert "\nok: size 700 root " in result.stdout
    assert "\nanswers: " in result.stdout
    assert "\nanswers: 0 " not in result.stdout


@pytest.mark.parametrize("index", [0, 299, 300, 699])
def test_golog_accepts_our_receipts(index: int, live_log: LiveLog, run_golog: RunGolog, tmp_path: Path) -> None:
    (tmp_path / "receipt").write_bytes(live_log.appended[index].receipt or b"")
    (tmp_path / "entry").write_bytes(ENTRIES[index])
    (tmp_path / "other").write_bytes(ENTRIES[index] + b"!")
    with served(live_log.directory) as url:
        good = run_golog(url, live_log.vkey, receipt=tmp_path / "receipt", entry=tmp_path / "entry", proofs=False)
        bad = run_golog(url, live_log.vkey, receipt=tmp_path / "receipt", entry=tmp_path / "other", proofs=False)
    assert good.returncode == 0, good.stderr
    assert bad.returncode == 1


def test_golog_names_the_bundle_of_a_changed_entry(live_log: LiveLog, run_golog: RunGolog, tmp_path: Path) -> None:
    directory = tmp_path / "log"
    shutil.copytree(live_log.directory, directory)
    db = plyvel.DB(str(directory / "log"))
    entry = db.get(keyspace.entry_key(401))
    db.put(keyspace.entry_key(401), bytes([entry[0] ^ 1]) + entry[1:])
    db.close()
    with served(directory) as url:
        result = run_golog(url, live_log.vkey, proofs=False)
    assert result.returncode == 1
    assert "tile/entries/001" in result.stderr


def test_golog_refuses_our_log_under_another_key(live_log: LiveLog, run_golog: RunGolog, tmp_path: Path) -> None:
    other = create_log(tmp_path / "other", origin="log.example/live", profile=Profile.OPAQUE)
    vkey = next(str(vkey) for vkey in other if vkey.type is KeyType.ED25519)
    with served(live_log.directory) as url:
        result = run_golog(url, vkey)
    assert result.returncode == 1
