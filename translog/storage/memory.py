"""The LogStore in memory, and the faults it can act out: for tests and simulations.

Rules: a MemoryDisk is what survives; a MemoryStore is a process's view of it. A fault is planned for the next call of an
operation and is refused (nothing applied), lost (applied, but failure reported) or a crash (applied or not as planned, and
every later call fails until the disk is opened anew). A crash loses what was published since the last commit. Writes that
no correct log makes (a tile that is not a continuation of itself, an id or a number given twice, a stream that goes back)
raise CorruptionError.
"""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from translog.core.merkle import EMPTY_ROOT
from translog.core.tile import TILE_WIDTH, Tile, format_tile_path
from translog.core.wire import HASH_BYTES
from translog.errors import CorruptionError, NotFoundError, StorageError
from translog.storage.store import (
    EventRows,
    LogMeta,
    PayloadRow,
    StoredCheckpoint,
    StreamHead,
    StreamName,
    TreeState,
    Update,
    missing,
    require_publishable,
    require_successor,
)


class Fault(Enum):
    """What goes wrong with one write."""

    REFUSED = "refused"
    APPLIED_BUT_FAILED = "applied but reported failed"
    CRASH_BEFORE = "crash before it was applied"
    CRASH_AFTER = "crash after it was applied"


@dataclass(slots=True)
class MemoryDisk:
    """What a power cut leaves. `faults` are taken one by one by the operations they name."""

    meta: LogMeta
    state: TreeState = field(default_factory=lambda: TreeState(size=0, root=EMPTY_ROOT, received_at_ms=0))
    entries: list[bytes] = field(default_factory=list)
    tiles: dict[tuple[int, int], bytes] = field(default_factory=dict)
    payloads: dict[int, PayloadRow] = field(default_factory=dict)
    blobs: dict[tuple[int, int], bytes] = field(default_factory=dict)
    ids: dict[bytes, bytes] = field(default_factory=dict)
    streams: dict[StreamName, StreamHead] = field(default_factory=dict)
    numbers: dict[tuple[StreamName, int], int] = field(default_factory=dict)
    latest: StoredCheckpoint | None = None
    kept: dict[int, StoredCheckpoint] = field(default_factory=dict)
    faults: list[tuple[Literal["commit", "publish"], Fault]] = field(default_factory=list)


class MemoryStore:
    """See LogStore."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self._lock = threading.RLock()
        self._latest = disk.latest
        self._kept = dict(disk.kept)
        self._dead = ""
        self._broken = False

    @property
    def meta(self) -> LogMeta:
        return self._disk.meta

    def read_state(self) -> TreeState:
        with self._lock:
            self._require_open()
            return self._disk.state

    def commit(self, update: Update) -> None:
        with self._lock:
            self._require_writable()
            require_successor(update, self._disk.state)
            for tile, hashes in update.tiles.items():
                _require_continuation(tile, self._disk.tiles.get((tile.level, tile.index), b""), hashes)
            _require_new(update.rows, self._disk)
            fault = self._take_fault("commit")
            if fault in (Fault.REFUSED, Fault.CRASH_BEFORE):
                self._fail(fault)
            self._disk.entries.extend(update.entries)
            for tile, hashes in update.tiles.items():
                self._disk.tiles[tile.level, tile.index] = hashes
            self._disk.payloads.update(update.rows.payloads)
            self._disk.blobs.update(update.rows.blobs)
            self._disk.ids.update(update.rows.ids)
            self._disk.streams.update(update.rows.streams)
            self._disk.numbers.update(update.rows.numbers)
            self._disk.state = update.state
            self._disk.latest = self._latest
            self._disk.kept = dict(self._kept)
            if fault is not None:
                self._fail(fault)

    def publish(self, checkpoint: StoredCheckpoint, *, keep: bool, durable: bool = False) -> None:
        with self._lock:
            self._require_writable()
            require_publishable(checkpoint, latest=self._latest, committed=self._disk.state.size)
            fault = self._take_fault("publish")
            if fault in (Fault.REFUSED, Fault.CRASH_BEFORE):
                self._fail(fault)
            self._latest = checkpoint
            if keep:
                self._kept[checkpoint.size] = checkpoint
            if durable:
                self._disk.latest = self._latest
                self._disk.kept = dict(self._kept)
            if fault is not None:
                self._fail(fault)

    def read_checkpoint(self) -> StoredCheckpoint | None:
        with self._lock:
            self._require_open()
            return self._latest

    def find_checkpoint(self, *, size_min: int) -> StoredCheckpoint | None:
        with self._lock:
            self._require_open()
            sizes = sorted(self._kept)
            at = bisect_left(sizes, size_min)
            if at < len(sizes):
                return self._kept[sizes[at]]
            return self._latest if self._latest is not None and self._latest.size >= size_min else None

    def find_checkpoint_below(self, *, size_max: int) -> StoredCheckpoint | None:
        with self._lock:
            self._require_open()
            sizes = sorted(self._kept)
            at = bisect_right(sizes, size_max)
            return self._kept[sizes[at - 1]] if at else None

    def read_checkpoints(self, *, size_min: int, count_max: int) -> list[StoredCheckpoint]:
        with self._lock:
            self._require_open()
            return [self._kept[size] for size in sorted(self._kept) if size >= size_min][:count_max]

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        with self._lock:
            self._require_open()
            found = []
            for tile in tiles:
                hashes = self._disk.tiles.get((tile.level, tile.index), b"")
                if len(hashes) < tile.width * HASH_BYTES:
                    if (tile.index * TILE_WIDTH + tile.width) << (8 * tile.level) > self._disk.state.size:
                        raise NotFoundError(f"there is no {format_tile_path(tile)}")
                    raise missing(format_tile_path(tile))
                found.append(hashes[: tile.width * HASH_BYTES])
            return found

    def read_entries(self, *, start: int, end: int) -> list[bytes]:
        with self._lock:
            self._require_open()
            if end > self._disk.state.size:
                raise NotFoundError(f"there is no entry {end - 1} in a log of {self._disk.state.size} entries")
            entries = self._disk.entries[start:end]
            if len(entries) != max(0, end - start):
                raise missing(f"entry {start + len(entries)}")
            return entries

    def read_payloads(self, indexes: Sequence[int]) -> list[PayloadRow | None]:
        with self._lock:
            self._require_open()
            return [self._disk.payloads.get(index) for index in indexes]

    def read_blobs(self, index: int) -> list[bytes]:
        with self._lock:
            self._require_open()
            records: list[bytes] = []
            while (record := self._disk.blobs.get((index, len(records)))) is not None:
                records.append(record)
            return records

    def find_ids(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._lock:
            self._require_open()
            return [self._disk.ids.get(key) for key in keys]

    def read_streams(self) -> dict[StreamName, StreamHead]:
        with self._lock:
            self._require_open()
            return dict(self._disk.streams)

    def find_number(self, stream: StreamName, seq: int) -> int | None:
        with self._lock:
            self._require_open()
            return self._disk.numbers.get((stream, seq))

    def close(self) -> None:
        with self._lock:
            if not self._dead:
                self._disk.latest, self._disk.kept = self._latest, dict(self._kept)
                self._dead = "the store is closed"

    def crash(self) -> None:
        """Every later call fails; what was not durable is gone when the disk is opened anew."""
        with self._lock:
            self._dead = "the store crashed"

    def _take_fault(self, operation: Literal["commit", "publish"]) -> Fault | None:
        if self._disk.faults and self._disk.faults[0][0] == operation:
            return self._disk.faults.pop(0)[1]
        return None

    def _fail(self, fault: Fault) -> None:
        if fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER):
            self.crash()
        self._broken = True
        raise StorageError(f"a write to the store failed: {fault.value}")

    def _require_open(self) -> None:
        if self._dead:
            raise StorageError(self._dead, code="store-closed")

    def _require_writable(self) -> None:
        self._require_open()
        if self._broken:
            raise StorageError("the store takes no writes since one failed")


def _require_continuation(tile: Tile, old: bytes, new: bytes) -> None:
    if len(new) != tile.width * HASH_BYTES or len(new) <= len(old) or not new.startswith(old):
        raise CorruptionError(f"{format_tile_path(tile)} would be rewritten instead of continued")


def _require_new(rows: EventRows, disk: MemoryDisk) -> None:
    if rows.ids.keys() & disk.ids.keys() or rows.numbers.keys() & disk.numbers.keys():
        raise CorruptionError("an event's id or number would be given a second time")
    for stream, head in rows.streams.items():
        old = disk.streams.get(stream)
        if old is not None and (head.numbered is not old.numbered or head.next_seq <= old.next_seq):
            raise CorruptionError(f"the stream {stream} would go back, or be numbered otherwise")
