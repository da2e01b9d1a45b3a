"""What every row gets: how much to do, where to do it, and logs that several rows share."""

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stores import Entries, fill_log, new_log
from translog.storage.store import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything: `seconds` is how long a load lasts, the rest are numbers of entries, readings and the like."""

    readings: int = 5
    seconds: int = 4
    syncs: int = 300
    lone_appends: int = 500
    proof_entries: int = 1_000_000
    receipts: int = 2_000
    cold_starts: int = 7
    growth_marks: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    growth_sample: int = 50_000
    disk_entries: int = 100_000
    fsck_entries: int = 1_000_000
    events: int = 1_000_000
    peer_seconds: int = 8
    witnesses: tuple[int, ...] = (0, 3, 7, 15)
    witness_requests: int = 500
    receipt_sizes: tuple[int, ...] = (1_000, 1_000_000)


QUICK = Plan(
    readings=3,
    seconds=1,
    syncs=100,
    lone_appends=100,
    proof_entries=100_000,
    receipts=1_000,
    cold_starts=3,
    growth_marks=(10_000, 100_000),
    growth_sample=30_000,
    disk_entries=20_000,
    fsck_entries=200_000,
    events=20_000,
    peer_seconds=3,
    witness_requests=200,
)


class Workshop:
    """One run of the benchmark. Everything it makes lies in `work`, which the caller removes."""

    def __init__(self, plan: Plan, work: Path, *, programs: Path, with_peers: bool = False) -> None:
        """`programs` is where peers are installed; `with_peers` allows the large ones."""
        self.plan = plan
        self.work = work
        self.programs = programs
        self.with_peers = with_peers
        self._filled: dict[tuple[int, int], tuple[Path, str]] = {}
        self._made = 0

    def say(self, text: str) -> None:
        """Progress, on standard error."""
        print(f"  {text}", file=sys.stderr, flush=True)

    def new_path(self, name: str) -> Path:
        """A path in the work folder that nothing has used."""
        self._made += 1
        return self.work / f"{self._made:03d}-{name}"

    def new_log(self, name: str, *, profile: Profile = Profile.OPAQUE) -> tuple[Path, str]:
        """An empty log and its policy."""
        directory = self.new_path(name)
        return directory, new_log(directory, profile=profile)

    def filled_log(self, *, count: int, entry_bytes: int) -> tuple[Path, str]:
        """A log of `count` entries, made once in a run and shared: rows must not append to it. And its policy."""
        key = (count, entry_bytes)
        if key not in self._filled:
            begin = time.monotonic()
            directory, policy = self.new_log(f"filled-{count}x{entry_bytes}")
            fill_log(directory, Entries("text", entry_bytes), count=count)
            self._filled[key] = directory, policy
            self.say(f"filled a log with {count:,} entries of {entry_bytes} bytes in {time.monotonic() - begin:.1f} s")
        return self._filled[key]

    def forget(self, directory: Path) -> None:
        """Removes what a row no longer needs: the disk is not endless."""
        shutil.rmtree(directory, ignore_errors=True)
