"""Growing one log and starting it again, in processes of their own so that memory and start-up are theirs alone.

Run as a program: `grow DIR BEGIN END ENTRY-BYTES` appends up to END entries through the log service, timed from BEGIN on, and
prints one JSON document; `open DIR` prints the seconds that opening the store and the log takes.
"""

import asyncio
import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.stores import ORIGIN, Entries, open_service, quiet_logging
from translog.core.cosignature import KeySigner
from translog.log.head import HeadFile
from translog.log.keyfiles import LOG_KEY_FILES, read_log_keys
from translog.log.opening import open_log
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock

BATCH_ENTRIES = 1_000
IN_FLIGHT = 4
PARTS = 3


async def _grow(directory: Path, begin: int, end: int, entry_bytes: int) -> dict[str, Any]:
    """Appends batches up to `end`, a few in flight at a time. The way from `begin` on is timed in three parts, entries/s each,
    the making of entries included."""
    entries = Entries("text", entry_bytes)
    marks = [begin + n * (end - begin) // PARTS for n in range(PARTS)]
    times: list[tuple[int, float]] = []
    resident_mb = 0.0
    async with open_service(directory) as service:
        waiting: list[asyncio.Task[Any]] = []
        for start in range(service.integrated.size, end, BATCH_ENTRIES):
            while len(waiting) >= IN_FLIGHT:
                await waiting.pop(0)
            size = service.integrated.size
            if len(times) < PARTS and size >= marks[len(times)] and (not times or size > times[-1][0]):
                times.append((size, time.perf_counter()))
                resident_mb = resident_mb or _resident_mb()
            batch = entries.take(start, min(BATCH_ENTRIES, end - start))
            waiting.append(asyncio.create_task(service.append(batch)))
        await asyncio.gather(*waiting)
        times.append((service.integrated.size, time.perf_counter()))
        rates = [(after[0] - before[0]) / (after[1] - before[1]) for before, after in pairwise(times)]
        return {"size": times[-1][0], "rates": rates, "begin_mb": resident_mb, "end_mb": _resident_mb()}


def _resident_mb() -> float:
    """Memory that is this process's own: table files that LevelDB maps are the page cache's, and not counted."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _open_s(directory: Path) -> float:
    with DirectoryLock(directory) as lock:
        skeys = read_log_keys(directory / "keys", origin=ORIGIN, types=set(LOG_KEY_FILES))
        begin = time.perf_counter()
        opening = open_log(
            lambda: LevelDBStore.open(lock),
            lambda: HeadFile.open(directory / "head", origin=ORIGIN),
            signers=[KeySigner(skey) for skey in skeys],
            shown=None,
        )
        taken = time.perf_counter() - begin
        opening.head.close()
        opening.store.close()
        return taken


if __name__ == "__main__":
    quiet_logging()
    if sys.argv[1] == "grow":
        print(json.dumps(asyncio.run(_grow(Path(sys.argv[2]), *map(int, sys.argv[3:6])))))
    else:
        print(_open_s(Path(sys.argv[2])))
