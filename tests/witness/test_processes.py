"""Several processes with several threads each on one state file, left alone or killed at any moment.

Whatever happens: no old size was left twice, sizes and times only grow, and what was answered is stored. TRANSLOG_KILL_ROUNDS
and TRANSLOG_SEED are as in tests/faults.
"""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from faults.killing import drawn, environment, rounds

from translog.core.checkpoint import parse_checkpoint
from translog.core.cosignature import KeyVerifier
from translog.core.note import open_note
from translog.witness.store import WitnessStore
from witness.made_log import WITNESS_VKEYS, MadeLog, make_witness
from witness.racer import ORIGIN, raced_log

SIZE = 150


class Racer:
    """One process, and what it was answered."""

    def __init__(self, state: Path, *, seed: int, size: int, threads: int = 3) -> None:
        self.out = state.with_name(f"racer-{seed}")
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "witness.racer", str(state), str(size), str(threads), str(seed)],
                stdout=out,
                stderr=subprocess.PIPE,
                env=environment(),
            )

    def end(self) -> int:
        _, said = self.process.communicate(timeout=120)
        assert said == b"", said.decode()
        return self.process.returncode

    def answers(self) -> list[tuple[int, int, int]]:
        """Old size, new size and time of each answer; a line that the kill cut off counts as none."""
        lines = self.out.read_text().split("\n")[:-1]
        return [(int(old), int(new), int(time_s)) for old, new, time_s in (line.split(" ") for line in lines)]


def new_state(path: Path, log: MadeLog) -> Path:
    make_witness(path, log).store.close()
    return path


def require_no_way_back(answers: Iterable[tuple[int, int, int]]) -> None:
    left = Counter(old for old, new, _ in answers if new > old)
    assert [old for old, count in left.items() if count > 1] == []


def require_stored(state: Path, log: MadeLog, answers: list[tuple[int, int, int]]) -> int:
    """Stored is the largest that was answered or what was on its way; its note verifies. Returns the size."""
    with closing(WitnessStore.open(state)) as store:
        stored = store.find_cosigned(ORIGIN)
    if stored is None:
        assert answers == []
        return 0
    assert stored.size >= max((new for _, new, _ in answers), default=0)
    assert stored.time_s >= max((time_s for _, _, time_s in answers), default=0)
    opened = open_note(stored.note, [KeyVerifier(vkey) for vkey in (*WITNESS_VKEYS, *log.vkeys)])
    assert len(opened.verified) == len(WITNESS_VKEYS) + len(log.vkeys)
    checkpoint = parse_checkpoint(opened.text)
    assert (checkpoint.size, checkpoint.root) == (stored.size, stored.root) == (stored.size, log.tree.mth(0, stored.size))
    return stored.size


def test_processes_and_threads_that_race_never_take_anything_back(tmp_path: Path) -> None:
    log = raced_log(SIZE)
    state = new_state(tmp_path / "state.sqlite", log)
    racers = [Racer(state, seed=100 * number, size=SIZE) for number in range(4)]
    seen = [0]
    with closing(WitnessStore.open(state)) as store:
        while any(racer.process.poll() is None for racer in racers):
            stored = store.find_cosigned(ORIGIN)
            seen.append(stored.size if stored else 0)
            time.sleep(0.002)
    assert [racer.end() for racer in racers] == [0] * 4
    assert seen == sorted(seen)
    answers = [answer for racer in racers for answer in racer.answers()]
    require_no_way_back(answers)
    assert require_stored(state, log, answers) == SIZE
    assert sum(bool(racer.answers()) for racer in racers) > 1


def test_processes_that_are_killed_at_any_moment_have_stored_what_they_answered(tmp_path: Path) -> None:
    chance = drawn()
    size = 2_000
    log = raced_log(size)
    state = new_state(tmp_path / "state.sqlite", log)
    answers: list[tuple[int, int, int]] = []
    grown = [0]
    for number in range(rounds(6)):
        racers = [Racer(state, seed=1_000 * number + 100 * place, size=size, threads=2) for place in range(2)]
        deadline = time.monotonic() + 60
        while not all(racer.out.stat().st_size for racer in racers) and time.monotonic() < deadline:
            time.sleep(0.01)
        for racer in racers:
            time.sleep(chance.uniform(0, 0.3))
            racer.process.kill()
        for racer in racers:
            racer.end()
        answers += [answer for racer in racers for answer in racer.answers()]
        require_no_way_back(answers)
        grown.append(require_stored(state, log, answers))
    assert grown == sorted(grown)
    assert grown[-1] > 0


@pytest.mark.parametrize("part", ["state.sqlite-wal", "state.sqlite-shm"])
def test_what_a_killed_process_left_beside_the_state_is_used_by_the_next(tmp_path: Path, part: str) -> None:
    log = raced_log(SIZE)
    state = new_state(tmp_path / "state.sqlite", log)
    racer = Racer(state, seed=7, size=SIZE, threads=1)
    while len(racer.out.read_bytes()) < 100 and racer.process.poll() is None:
        time.sleep(0.01)
    racer.process.kill()
    racer.end()
    assert (tmp_path / part).exists()
    require_stored(state, log, racer.answers())
