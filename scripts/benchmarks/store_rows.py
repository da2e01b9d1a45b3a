"""Rows 8, 9 and 10: what size does to a log, what a log takes on the disk, and how fast it is checked."""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks import event_rows, floors
from benchmarks.figures import Figure, Target, not_available, repeat
from benchmarks.growth import BATCH_ENTRIES, IN_FLIGHT
from benchmarks.processes import START_S_MAX, environment, free_port, run_module, run_program, running
from benchmarks.stores import Entries, folder_bytes, open_service
from benchmarks.workshop import Workshop
from translog.cli.main import COMMANDS

GROWTH_ENTRY_BYTES = 300
DISK_ENTRY_BYTES = 1_000
FSCK_ENTRY_BYTES = (100, 1_000)
_POLL_S = 0.002


def growth(shop: Workshop) -> list[Figure]:
    """Row 8: append rate, memory and start-up at every mark, each against the first mark's."""
    plan = shop.plan
    first, *later = plan.growth_marks
    base: list[float] = []
    memory: list[float] = []
    for _ in range(plan.readings):
        directory, _ = shop.new_log("growth")
        found = _grow(directory, first, first + plan.growth_sample)
        base.append(median(found["rates"]))
        memory.append(found["begin_mb"])
        shop.forget(directory)
    directory, _ = shop.new_log("growth")
    _grow(directory, first, first)
    starts = {first: _starts(shop, directory)}
    figures = []
    for mark in later:
        found = _grow(directory, mark // 2, mark)
        shop.say(f"grown to {mark:,} entries")
        starts[mark] = _starts(shop, directory)
        figures += _growth_figures(shop, mark, found, base, memory)
    for mark, found_starts in starts.items():
        figures += _start_figures(mark, found_starts)
    shop.forget(directory)
    return figures


def _grow(directory: Path, begin: int, end: int) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(run_module("growth", "grow", directory, begin, end, GROWTH_ENTRY_BYTES))
    if document["size"] != end:
        raise RuntimeError(f"the log has {document['size']} entries, not {end}")
    return document


def _growth_figures(shop: Workshop, mark: int, found: dict[str, Any], base: list[float], memory: list[float]) -> list[Figure]:
    first = shop.plan.growth_marks[0]
    method = (
        f"in process, through the log service on LevelDB, batches of {BATCH_ENTRIES:,} x {GROWTH_ENTRY_BYTES} B, {IN_FLIGHT} "
        "in flight, each committed with an fdatasync, signed and published as they come; median of three thirds of the second "
        f"half of the way (compactions included), at {first:,} of the next {shop.plan.growth_sample:,} entries, in fresh logs. "
        "Memory: anonymous resident memory of that process at that size"
    )
    return [
        Figure(
            row=8,
            what=f"append rate at {mark:,}",
            unit="/s",
            ours=found["rates"],
            floor=base,
            floor_name=f"/s: at {first:,}",
            target=Target(limit=0.9, of_ratio=True),
            method=method,
        ),
        Figure(
            row=8,
            what=f"memory at {mark:,}",
            unit="MB",
            ours=[found["end_mb"]],
            floor=memory,
            floor_name=f"MB: at {first:,}",
            method=method,
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Starts:
    """Seconds to open the log; until the server says it is ready; and of processor time it took until then."""

    opened: list[float]
    ready: list[float]
    cpu: list[float]


def _starts(shop: Workshop, directory: Path) -> _Starts:
    readings = max(3, shop.plan.cold_starts)
    ready = [_ready_s(shop, directory) for _ in range(readings)]
    opened = [float(run_module("growth", "open", directory)) for _ in range(readings)]
    return _Starts(opened=opened, ready=[wall for wall, _ in ready], cpu=[cpu for _, cpu in ready])


def _ready_s(shop: Workshop, directory: Path) -> tuple[float, float]:
    """From the start of the process to the first 200 of /readyz: wall clock, and the process's own time."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "translog", "serve", str(directory), "--listen", url.removeprefix("http://")]
    begin = time.perf_counter()
    with running([*command, "--admin-listen", ""], log=shop.new_path("serve.log"), url=url) as server:
        while time.perf_counter() - begin < START_S_MAX:
            try:
                with urlopen(f"{url}/readyz", timeout=5):  # noqa: S310
                    return time.perf_counter() - begin, server.cpu_s()
            except URLError:
                time.sleep(_POLL_S)
    raise RuntimeError("the server does not become ready")


def _start_figures(mark: int, starts: _Starts) -> list[Figure]:
    method = (
        "after an orderly stop, files in the page cache, every reading in a new process. Opening is LevelDBStore.open and "
        "open_log; start-up is from the process's start to the first 200 of /readyz, the signed checkpoint included. Floor: a "
        "bare interpreter's start"
    )
    floor = [floors.bare_start_s() for _ in range(len(starts.ready))]
    target = Target(limit=1.0, lower=True, unit="s")
    return [
        Figure(row=8, what=f"opening at {mark:,}", unit="s", ours=starts.opened, method=method),
        Figure(
            row=8,
            what=f"start-up at {mark:,}, slowest {max(starts.ready):.2f} s",
            unit="s",
            ours=starts.ready,
            floor=floor,
            floor_name="s: bare start",
            target=target,
            method=method,
        ),
        Figure(row=8, what=f"start-up at {mark:,}: server CPU", unit="s", ours=starts.cpu, method=method),
    ]


def disk(shop: Workshop) -> list[Figure]:
    """Row 9: what DIR/log takes for the entries in it."""
    count = shop.plan.disk_entries
    figures = []
    for kind, name in (("binary", "incompressible"), ("json", "JSON")):
        directory, _ = shop.new_log(f"disk-{kind}")
        shares = [asyncio.run(_disk_share(directory, kind, part * count)) for part in (1, 2, 3)]
        shop.forget(directory)
        figures.append(
            Figure(
                row=9,
                what=f"disk per entry byte, {name} entries of {DISK_ENTRY_BYTES} B",
                unit="x",
                ours=shares,
                floor=[1.0],
                floor_name="x: the entries alone",
                target=Target(limit=1.15, lower=True, unit="x"),
                method=f"blocks of all files in DIR/log (tiles, checkpoints and the write-ahead log included) at {count:,}, "
                f"{2 * count:,} and {3 * count:,} entries, each after an orderly stop and with no compaction but LevelDB's own",
            )
        )
    return figures + event_rows.disk(shop)


async def _disk_share(directory: Path, kind: str, size: int) -> float:
    entries = Entries(kind, DISK_ENTRY_BYTES)
    async with open_service(directory) as service:
        for start in range(service.integrated.size, size, BATCH_ENTRIES):
            await service.append(entries.take(start, min(BATCH_ENTRIES, size - start)))
        size = service.integrated.size
    return folder_bytes(directory / "log") / (size * DISK_ENTRY_BYTES)


def fsck(shop: Workshop) -> list[Figure]:
    """Row 10: checking a whole log, offline."""
    count = shop.plan.fsck_entries
    if "fsck" not in COMMANDS:
        return [not_available(10, f"fsck of {count:,} entries", "this version has no `translog fsck`")]
    return [_fsck(shop, count, entry_bytes) for entry_bytes in FSCK_ENTRY_BYTES]


def _fsck(shop: Workshop, count: int, entry_bytes: int) -> Figure:
    directory, _ = shop.filled_log(count=count, entry_bytes=entry_bytes)
    # A first start signs and publishes, as in a log that was served.
    with running(
        [sys.executable, "-m", "translog", "serve", str(directory), "--listen", "127.0.0.1:0", "--admin-listen", ""],
        log=shop.new_path("serve.log"),
    ):
        pass
    command: list[str | Path] = [sys.executable, "-m", "translog", "fsck", directory, "--json"]

    def check() -> float:
        begin = time.perf_counter()
        run_program(command, env=environment())
        return count / (time.perf_counter() - begin)

    ours, floor = repeat(
        shop.plan.readings, check, lambda: floors.hashes_on_all_cores_per_s(entry_bytes=entry_bytes, count=count // 4)
    )
    return Figure(
        row=10,
        what=f"fsck of {count:,} entries of {entry_bytes} B: entries/s",
        unit="/s",
        ours=ours,
        floor=floor,
        floor_name="/s: hashes on all cores",
        target=Target(limit=900_000, unit="/s"),
        method="`translog fsck DIR --json` on a log at rest, wall clock of the whole process, files in the page cache. Floor: "
        "SHA-256 of an entry and of one tree node each, with hashlib, one process a core",
    )
