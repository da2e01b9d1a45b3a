"""A program that runs a log's service in its own process, appends, and says as JSON lines what came of it.

    python -m faults.driver DIR [PREFIX BATCHES ENTRY_BYTES WRITE_BUFFER_BYTES]      appends, then stops
    python -m faults.driver serve WRITE_BUFFER_BYTES DIR OPTIONS...                  `translog serve`, with a smaller buffer

Rules: nothing is caught that is no TranslogError; a line is written at once, before anything else is done. Exit codes: 0 ran to
its end, 4 ended by a TranslogError, else something is wrong. With a write buffer of 64 kB, the least LevelDB has, tables are
written and merged while the log runs, which otherwise takes 32 MB of entries. See `Line` for what is said.
"""

import asyncio
import json
import sys
from base64 import b64encode
from collections.abc import Callable
from hashlib import shake_256
from pathlib import Path
from typing import Literal, TypedDict

import structlog

from translog.core.cosignature import KeySigner
from translog.errors import HeldError, PushbackError, StorageError, TranslogError
from translog.log.clock import SystemClock
from translog.log.head import HeadFile
from translog.log.keyfiles import read_log_keys
from translog.log.lifecycle import LogService
from translog.log.metrics import LogMetrics
from translog.log.settings import LogSettings
from translog.storage import leveldb
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock

SETTINGS = LogSettings(reopen_wait_ms=1, keep_checkpoint_interval_ms=0)
BATCH_ENTRIES = 3
TRIES = 8
"""How often a batch is sent that is refused, before the driver gives up; the log's waits double between its attempts."""


class Line(TypedDict, total=False):
    """One thing that happened. `what` says which of the others are there."""

    what: Literal["open", "sent", "acknowledged", "refused", "unknown", "checkpoint", "held", "failed", "end"]
    batch: int
    first: int
    note: str
    code: str


Say = Callable[[Line], None]


def make_batch(prefix: str, number: int, *, entry_bytes: int) -> tuple[bytes, ...]:
    """The entries of a batch: distinct, and such that compression does not make them smaller."""
    names = [f"{prefix}-{number}-{n} ".encode() for n in range(BATCH_ENTRIES)]
    return tuple(name + b64encode(shake_256(name).digest(entry_bytes)) for name in names)


async def drive(directory: Path, say: Say, *, prefix: str, batches: int, entry_bytes: int) -> None:
    """Opens the log, appends, waits for each batch to be published, and stops. Raises TranslogError where it cannot."""
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        meta = store.meta
        store.close()
        skeys = read_log_keys(directory / "keys", origin=meta.origin, types={key.type for key in SETTINGS.sign_with})
        service = LogService(
            meta=meta,
            open_store=lambda: LevelDBStore.open(lock),
            open_head=lambda: HeadFile.open(directory / "head", origin=meta.origin),
            signers=[KeySigner(skey) for skey in skeys],
            clock=SystemClock(),
            settings=SETTINGS,
            metrics=LogMetrics(),
        )
        await service.start()
        try:
            say({"what": "open"})
            _say_published(service, say)
            for number in range(batches):
                await _append(service, number, make_batch(prefix, number, entry_bytes=entry_bytes), say)
        finally:
            await service.stop(drain_ms=200)
        if service.held is not None:
            say({"what": "held", "code": service.held.code})
    say({"what": "end"})


async def _append(service: LogService, number: int, batch: tuple[bytes, ...], say: Say) -> None:
    """Appends until the outcome is anything but "not written"."""
    for attempt in range(TRIES):
        say({"what": "sent", "batch": number})
        try:
            done = await service.append(batch)
        except PushbackError as error:
            say({"what": "refused", "batch": number, "code": error.code})
            await asyncio.sleep(0.002 * 2**attempt)
        except HeldError as error:
            say({"what": "refused", "batch": number, "code": error.code})
            return
        except StorageError as error:
            say({"what": "unknown", "batch": number, "code": error.code})
            return
        else:
            say({"what": "acknowledged", "batch": number, "first": done.first})
            await service.wait_published(done.size, timeout_ms=1_000)
            _say_published(service, say)
            return


def _say_published(service: LogService, say: Say) -> None:
    if service.published is not None:
        say({"what": "checkpoint", "note": service.published.note.decode()})


def _say(line: Line) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    """The program."""
    if sys.argv[1] == "serve":
        from translog.cli.main import main as translog

        leveldb.WRITE_BUFFER_BYTES = int(sys.argv.pop(2))
        translog()
        return 0
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    directory, prefix, batches, entry_bytes, write_buffer_bytes = sys.argv[1:]
    leveldb.WRITE_BUFFER_BYTES = int(write_buffer_bytes)
    try:
        asyncio.run(
            drive(Path(directory), _say, prefix=prefix, batches=int(batches), entry_bytes=int(entry_bytes)),
        )
    except TranslogError as error:
        _say({"what": "failed", "code": error.code})
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
