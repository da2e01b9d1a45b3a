"""The disk is full, or fails, while a witness writes: no answer, and what was answered before is still there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

import pytest
from faults.killing import environment
from faults.machine import mounted, unavailable

from translog.errors import PushbackError, StorageError
from translog.witness.opening import create_witness
from translog.witness.service import Witness
from witness.made_log import MadeLog, make_witness, require_cosigned
from witness.racer import ORIGIN, raced_log


def fill(path: Path) -> None:
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs"):
        yield tmp_path / "disk"


def stored_size(witness: Witness, log: MadeLog) -> int:
    cosigned = witness.store.find_cosigned(log.origin)
    return cosigned.size if cosigned else 0


def test_on_a_full_disk_nothing_is_answered_and_nothing_lost(disk: Path, log: MadeLog) -> None:
    witness = make_witness(disk / "state", log)
    witness.add_checkpoint(log.request(0, 1))
    fill(disk / "ballast")
    answered = 1
    with pytest.raises(StorageError) as raised:  # noqa: PT012  # there is room in what was written before
        for new in range(2, 40):
            witness.add_checkpoint(log.request(answered, new))
            answered = new
    assert "full" in raised.value.detail
    assert stored_size(witness, log) == answered
    with pytest.raises(StorageError):
        witness.add_checkpoint(log.request(answered, 50))
    (disk / "ballast").unlink()
    require_cosigned(log.note(50), witness.add_checkpoint(log.request(answered, 50)))
    witness.store.close()
    again = make_witness(disk / "state")
    assert stored_size(again, log) == 50
    again.store.close()


def test_no_witness_is_made_on_a_full_disk(disk: Path) -> None:
    fill(disk / "ballast")
    with pytest.raises(StorageError):
        create_witness(disk / "witness", name="witness.example", random_bytes=os.urandom)
    assert [path.name for path in disk.iterdir()] == ["ballast"]
    (disk / "ballast").unlink()
    create_witness(disk / "witness", name="witness.example", random_bytes=os.urandom)


FAULTS = ["error=EIO", "error=ENOSPC", "signal=KILL"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["fdatasync,fsync", "pwrite64"])
def test_any_write_may_fail_and_what_was_answered_is_there(tmp_path: Path, call: str, fault: str) -> None:
    """Under strace, one call after another fails, once."""
    log = raced_log(30)
    failed = 0
    for when in (1, 2, 4, 9, 20):
        state = tmp_path / f"state-{when}"
        make_witness(state, log).store.close()
        command = [_strace(), "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}"]
        done = subprocess.run(
            [*command, sys.executable, "-m", "witness.racer", str(state), "30", "1", str(when)],
            capture_output=True,
            env=environment(),
            timeout=120,
            check=False,
        )
        told = done.stderr.decode()  # a thread that ends by an error says so there
        failed += "StorageError" in told or done.returncode == -SIGKILL
        assert "StorageError" in told or not told, told
        answers = [int(line.split()[1]) for line in done.stdout.decode().split("\n")[:-1]]
        witness = make_witness(state)
        stored = witness.store.find_cosigned(ORIGIN)
        assert (stored.size if stored else 0) >= max(answers, default=0)
        with suppress(PushbackError):
            old = stored.size if stored else 0
            witness.add_checkpoint(log.request(old, 30))
        assert stored_size(witness, log) == 30
        witness.store.close()
    assert failed


def test_an_answer_leaves_after_what_was_written_is_on_disk(tmp_path: Path) -> None:
    state, calls = tmp_path / "state", tmp_path / "calls"
    make_witness(state, raced_log(20)).store.close()
    racer = [sys.executable, "-m", "witness.racer", str(state), "20", "1", "1"]
    traced = [_strace(), "-f", "-o", str(calls), "-e", "trace=fdatasync,fsync,pwrite64,write", *racer]
    subprocess.run(traced, env=environment(), check=True, timeout=120, stdout=subprocess.DEVNULL)
    written = synced = answers = 0
    for line in calls.read_text().split("\n"):
        written += " pwrite64(" in line
        if "sync(" in line:
            synced = written
        if " write(1, " in line:
            answers += 1
            assert written == synced
            assert written > 0
    assert answers > 5


def _strace() -> str:
    strace = shutil.which("strace")
    if strace is None:
        unavailable("strace is not here")
    return strace
