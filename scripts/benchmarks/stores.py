"""Logs to measure on: made anew in the work folder, filled in process, entry by entry unlike.

Rules: entries repeat within no 4 kB, so that LevelDB's block compression finds nothing; filling goes through the same
integration and commit as the server's, synced, in batches.
"""

import json
import logging
import os
import random
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog

from translog.bootstrap import create_log
from translog.core.cosignature import KeySigner
from translog.core.integrate import EMPTY_EDGE, integrate
from translog.core.policy import format_log_policy
from translog.log.clock import SystemClock
from translog.log.head import HeadFile
from translog.log.keyfiles import DEDUP_KEY_FILE, KEK_FILE, LOG_KEY_FILES, read_log_keys, read_secret
from translog.log.lifecycle import LogService
from translog.log.metrics import LogMetrics
from translog.log.settings import LogSettings
from translog.log.vault import FileKeyWrapper, Vault
from translog.server.intake import Intake
from translog.server.settings import IntakeSettings, ServerSettings
from translog.storage.leveldb import BLOOM_FILTER_BITS, LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import Profile, TreeState, Update

try:
    import plyvel
except ImportError:  # as in translog/storage/leveldb.py
    import plyvel_next as plyvel

ORIGIN = "bench.example/log"
BATCH_BYTES = 8 * 1024 * 1024
_POOL_BYTES = 4 * 1024 * 1024
_CHANGE_BYTES_MAX = 70
_RECEIVED_AT_MS = 1_700_000_000_000


class Entries:
    """Entries by index: `text` is random base64 without line breaks, `binary` random bytes, `json` what an application's
    audit event looks like, filled up to the size."""

    def __init__(self, kind: str, entry_bytes: int, *, seed: int = 7) -> None:
        self.entry_bytes = entry_bytes
        self._kind = kind
        self._random = random.Random(seed)  # noqa: S311
        data = self._random.randbytes(_POOL_BYTES)
        self._pool = urlsafe_b64encode(data) if kind == "text" else data

    def take(self, start: int, count: int) -> list[bytes]:
        """Entries [start, start + count)."""
        if self._kind == "json":
            return [self._event(index) for index in range(start, start + count)]
        size, pool, room = self.entry_bytes, self._pool, len(self._pool) - self.entry_bytes
        # Strides of a prime number of bytes: the same slice comes again only after megabytes.
        offsets = (index * (size + 7_919) % room for index in range(start, start + count))
        return [
            b"%012d" % index + pool[at : at + size - 12] for index, at in zip(range(start, start + count), offsets, strict=True)
        ]

    def _event(self, index: int) -> bytes:
        pick = self._random
        event: dict[str, Any] = {
            "id": f"{pick.getrandbits(128):032x}",
            "time": f"2026-11-{1 + index % 28:02d}T{index % 24:02d}:{index % 60:02d}:{pick.randrange(60):02d}Z",
            "action": pick.choice(("document.read", "document.update", "user.login", "key.rotate", "policy.change")),
            "actor": {
                "type": "user",
                "id": f"user-{pick.randrange(50_000)}",
                "ip": f"10.{index % 256}.{pick.randrange(256)}.9",
            },
            "target": {
                "type": "document",
                "id": f"{pick.getrandbits(64):016x}",
                "name": f"Quarterly report {pick.randrange(9_999)}",
            },
            "result": pick.choice(("success", "success", "success", "denied")),
            "request": f"{pick.getrandbits(128):032x}",
            "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
            "changes": [],
        }
        for _ in range((self.entry_bytes - len(json.dumps(event))) // _CHANGE_BYTES_MAX):
            change = {"field": pick.choice(("owner", "title", "acl", "label")), "old": f"{pick.getrandbits(48):012x}"}
            event["changes"].append(change | {"new": f"{pick.getrandbits(48):012x}"})
        return json.dumps(event).encode().ljust(self.entry_bytes)

    def batches(self, start: int, end: int) -> Iterator[list[bytes]]:
        """Entries [start, end) in lists of at most 10,000 entries and 8 MiB."""
        step = max(1, min(10_000, BATCH_BYTES // max(1, self.entry_bytes)))
        for first in range(start, end, step):
            yield self.take(first, min(step, end - first))


def quiet_logging() -> None:
    """Warnings and worse only, on standard error: what a measurement prints is its figures."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def new_log(directory: Path, *, profile: Profile = Profile.OPAQUE) -> str:
    """Creates an empty log; its policy."""
    return format_log_policy(create_log(directory, origin=ORIGIN, profile=profile))


def fill_log(directory: Path, entries: Entries, *, count: int) -> None:
    """Fills a log just created with `count` entries, past the service: nothing is signed, the first start does that."""
    edge = EMPTY_EDGE
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        try:
            for batch in entries.batches(0, count):
                done = integrate(edge, batch)
                state = TreeState(size=done.edge.size, root=done.edge.root, received_at_ms=_RECEIVED_AT_MS)
                store.commit(Update(old_size=edge.size, state=state, entries=batch, tiles=done.tiles))
                edge = done.edge
        finally:
            store.close()


@asynccontextmanager
async def open_service(directory: Path) -> AsyncIterator[LogService]:
    """The log in `directory`, running in this process as the server runs it, without HTTP."""
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        meta = store.meta
        store.close()
        skeys = read_log_keys(directory / "keys", origin=meta.origin, types=set(LOG_KEY_FILES))
        service = LogService(
            meta=meta,
            open_store=lambda: LevelDBStore.open(lock),
            open_head=lambda: HeadFile.open(directory / "head", origin=meta.origin),
            signers=[KeySigner(skey) for skey in skeys],
            clock=SystemClock(),
            settings=LogSettings(),
            metrics=LogMetrics(),
        )
        await service.start()
        try:
            yield service
        finally:
            await service.stop(drain_ms=10_000)


@contextmanager
def open_intake(directory: Path, service: LogService) -> Iterator[Intake]:
    """What takes audit events for the running log of `directory`, as in the server, without HTTP."""
    keys = directory / "keys"
    wrapper = FileKeyWrapper(read_secret(keys / KEK_FILE), origin=service.meta.origin, random_bytes=os.urandom)
    vault = Vault.open(directory / "vault", wrapper=wrapper, random_bytes=os.urandom, now_ms=SystemClock().wall_ms)
    intake = Intake(
        service=service,
        vault=vault,
        dedup_key=read_secret(keys / DEDUP_KEY_FILE),
        blob_bytes_min=IntakeSettings().blob_bytes_min,
        random_bytes=os.urandom,
        commit_deadline_ms=ServerSettings().commit_deadline_ms,
        host="bench",
    )
    try:
        yield intake
    finally:
        intake.close()


def compact(directory: Path) -> None:
    """Lets LevelDB finish, in a log at rest, what it would do later."""
    with DirectoryLock(directory):
        db = plyvel.DB(str(directory / "log"), bloom_filter_bits=BLOOM_FILTER_BITS)
        db.compact_range()
        db.close()


def folder_bytes(directory: Path) -> int:
    """What the files below `directory` take on the disk: blocks, not lengths."""
    return sum(os.stat(path).st_blocks * 512 for path in directory.rglob("*") if path.is_file())
