"""The LogStore on LevelDB, in DIR/log. The only module that imports plyvel.

Rules, each with a test in tests/storage/test_leveldb.py: nobody gets here without the directory's lock (lock.py); every
write is one batch with transaction=True (a batch is otherwise written even when its block raised); every read verifies
checksums (LevelDB returns rotten bytes without a word); paranoid_checks refuses a damaged write-ahead log, which would
otherwise open as an older store; a failed write closes the door to further ones; close waits for reads under way.
"""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from translog.core.merkle import EMPTY_ROOT
from translog.core.tile import LEVEL_MAX, Tile, format_tile_path
from translog.core.wire import HASH_BYTES
from translog.errors import CorruptionError, NotFoundError, SettingsError, StorageError, TranslogError
from translog.storage import keyspace
from translog.storage.lock import DirectoryLock
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

try:
    import plyvel
except ImportError:  # the same module under another name, for Pythons that plyvel has no wheel for
    import plyvel_next as plyvel

WRITE_BUFFER_BYTES = 32 * 1024 * 1024
"""LevelDB's 4 MB make every tenth commit wait for a compaction; start-up reads back at most this much."""
BLOOM_FILTER_BITS = 10
"""About 1 % of look-ups of absent keys read a block."""
OPEN_FILES_MAX = 500
"""Table files LevelDB keeps open, 2 MB each: bootstrap.py leaves room for them beside the connections."""

T = TypeVar("T")


class LevelDBStore:
    """See LogStore. Safe to read from many threads; written by one."""

    def __init__(self, db: Any, meta: LogMeta, lock: DirectoryLock) -> None:
        """Use `create` or `open`."""
        self._db = db
        self._lock = lock
        self._meta = meta
        self._gate = _Gate()
        self._broken = ""

    @classmethod
    def create(cls, lock: DirectoryLock, meta: LogMeta) -> "LevelDBStore":
        """A new, empty store, durable when this returns. Raises SettingsError if there is one."""
        path = lock.directory / "log"
        if path.exists():
            raise SettingsError(f"there is a store in {path} already", hint="a log is created once", code="log-exists")
        with ExitStack() as undo:
            lock.enter()
            undo.callback(lock.leave)
            undo.callback(shutil.rmtree, path, ignore_errors=True)  # nothing half-made stays
            db = open_db(path, create=True)
            undo.callback(db.close)
            with wrapped(f"cannot write the new store {path}"), db.write_batch(transaction=True, sync=True) as batch:
                batch.put(keyspace.META, keyspace.encode_meta(meta))
                batch.put(keyspace.STATE, keyspace.encode_state(TreeState(size=0, root=EMPTY_ROOT, received_at_ms=0)))
            undo.pop_all()
        return cls(db, meta, lock)

    @classmethod
    def open(cls, lock: DirectoryLock) -> "LevelDBStore":
        """The store in the locked directory.

        Raises SettingsError if there is none or it is of another format version, CorruptionError if it is damaged,
        StorageError if it cannot be read or written.
        """
        path = lock.directory / "log"
        require_store(path)
        with ExitStack() as undo:
            lock.enter()
            undo.callback(lock.leave)
            db = open_db(path, create=False)
            undo.callback(db.close)
            with wrapped(f"cannot read the store {path}"):
                value = _get(db, keyspace.META)
            if value is None:
                raise CorruptionError(f"{path} holds no log: its key `meta` is missing", hint="restore it from a backup")
            meta = keyspace.decode_meta(value)
            undo.pop_all()
        return cls(db, meta, lock)

    @property
    def meta(self) -> LogMeta:
        return self._meta

    def read_state(self) -> TreeState:
        value = self._read(lambda: _get(self._db, keyspace.STATE))
        if value is None:
            raise missing("the tree state")
        return keyspace.decode_state(value)

    def commit(self, update: Update) -> None:
        require_successor(update, self.read_state())

        def fill(batch: Any) -> None:
            for index, entry in enumerate(update.entries, start=update.old_size):
                batch.put(keyspace.entry_key(index), entry)
            for tile, hashes in update.tiles.items():
                batch.put(keyspace.tile_key(tile.level, tile.index), hashes)
            _put_rows(batch, update.rows)
            batch.put(keyspace.STATE, keyspace.encode_state(update.state))

        self._write(fill, sync=True)

    def publish(self, checkpoint: StoredCheckpoint, *, keep: bool, durable: bool = False) -> None:
        require_publishable(checkpoint, latest=self.read_checkpoint(), committed=self.read_state().size)

        def fill(batch: Any) -> None:
            batch.put(keyspace.LATEST, keyspace.encode_latest(checkpoint))
            if keep:
                batch.put(keyspace.kept_checkpoint_key(checkpoint.size), checkpoint.note)

        self._write(fill, sync=durable)

    def read_checkpoint(self) -> StoredCheckpoint | None:
        value = self._read(lambda: _get(self._db, keyspace.LATEST))
        return None if value is None else keyspace.decode_latest(value)

    def find_checkpoint(self, *, size_min: int) -> StoredCheckpoint | None:
        kept = self.read_checkpoints(size_min=size_min, count_max=1)
        latest = self.read_checkpoint()
        if not kept and latest is not None and latest.size >= size_min:
            return latest
        return kept[0] if kept else None

    def find_checkpoint_below(self, *, size_max: int) -> StoredCheckpoint | None:
        def read() -> StoredCheckpoint | None:
            # Not plyvel's reverse iterator: it takes a rotten block for the end, and misses a key that equals its `start`.
            with self._db.raw_iterator(verify_checksums=True) as rows:
                rows.seek(keyspace.kept_checkpoint_key(size_max + 1))  # `latest` and `meta` sort behind, so there is a row
                rows.prev()
                if rows.valid() and rows.key() >= keyspace.KEPT_CHECKPOINT_START:
                    return keyspace.decode_kept_checkpoint(rows.key(), rows.value())
            return None

        return self._read(read)

    def read_checkpoints(self, *, size_min: int, count_max: int) -> list[StoredCheckpoint]:
        def read() -> list[StoredCheckpoint]:
            start, stop = keyspace.kept_checkpoint_key(size_min), keyspace.KEPT_CHECKPOINT_END
            with self._db.iterator(start=start, stop=stop, verify_checksums=True) as rows:
                return [keyspace.decode_kept_checkpoint(key, value) for key, value in islice(rows, count_max)]

        return self._read(read)

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        def read() -> list[bytes | None]:
            return [
                _get(self._db, keyspace.tile_key(tile.level, tile.index)) if tile.level <= LEVEL_MAX else None for tile in tiles
            ]

        values = self._read(read)
        found = []
        for tile, value in zip(tiles, values, strict=True):
            if value is None or len(value) < tile.width * HASH_BYTES:
                self._require_committed((tile.index * 256 + tile.width) << (8 * tile.level), format_tile_path(tile))
                raise missing(format_tile_path(tile))
            found.append(value[: tile.width * HASH_BYTES])
        return found

    def read_entries(self, *, start: int, end: int) -> list[bytes]:
        def read() -> list[bytes]:
            entries: list[bytes] = []
            first, stop = keyspace.entry_key(start), keyspace.entry_key(end)
            with self._db.iterator(start=first, stop=stop, verify_checksums=True) as rows:
                for key, value in rows:
                    if keyspace.entry_index(key) != start + len(entries):
                        break
                    entries.append(value)
            return entries

        entries = self._read(read)
        if len(entries) != max(0, end - start):
            self._require_committed(end, f"entry {end - 1}")
            raise missing(f"entry {start + len(entries)}")
        return entries

    def read_payloads(self, indexes: Sequence[int]) -> list[PayloadRow | None]:
        values = self._read(lambda: [_get(self._db, keyspace.payload_key(index)) for index in indexes])
        return [None if value is None else keyspace.decode_payload_row(value) for value in values]

    def read_blobs(self, index: int) -> list[bytes]:
        def read() -> list[bytes]:
            records: list[bytes] = []
            start, stop = keyspace.blob_key(index, 0), keyspace.blob_key(index, keyspace.BLOBS_MAX) + b"\x00"
            with self._db.iterator(start=start, stop=stop, verify_checksums=True) as rows:
                for key, value in rows:
                    if key != keyspace.blob_key(index, len(records)):
                        break
                    records.append(value)
            return records

        return self._read(read)

    def find_ids(self, keys: Sequence[bytes]) -> list[bytes | None]:
        def read() -> list[bytes | None]:
            return [_get(self._db, keyspace.id_row_key(key)) for key in keys]

        return self._read(read)

    def read_streams(self) -> dict[StreamName, StreamHead]:
        def read() -> dict[StreamName, StreamHead]:
            start, stop = keyspace.STREAM_START, keyspace.STREAM_END
            with self._db.iterator(start=start, stop=stop, verify_checksums=True) as rows:
                return dict(keyspace.decode_stream_row(key, value) for key, value in rows)

        return self._read(read)

    def find_number(self, stream: StreamName, seq: int) -> int | None:
        value = self._read(lambda: _get(self._db, keyspace.number_key(stream, seq)))
        return None if value is None else keyspace.decode_index(value)

    def _require_committed(self, size: int, what: str) -> None:
        committed = self.read_state().size
        if size > committed:
            raise NotFoundError(f"there is no {what} in a log of {committed} entries")

    def close(self) -> None:
        self._gate.close(self._close)

    def _close(self) -> None:
        self._db.close()
        self._lock.leave()

    def _read(self, read: Callable[[], T]) -> T:
        with self._gate.entered(), wrapped("cannot read the store"):
            return read()

    def _write(self, fill: Callable[[Any], None], *, sync: bool) -> None:
        if self._broken:
            raise StorageError(f"the store takes no writes since one failed: {self._broken}")
        with self._gate.entered():
            try:
                with (
                    wrapped("a write to the store failed, whether it was applied is not known"),
                    self._db.write_batch(transaction=True, sync=sync) as batch,
                ):
                    fill(batch)
            except TranslogError as error:
                self._broken = error.detail
                raise


class _Gate:
    """Lets any number of threads use the database, and closes it when none does."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._condition:
            if self._closed:
                raise StorageError("the store is closed", code="store-closed")
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    def close(self, close: Callable[[], None]) -> None:
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.wait_for(lambda: not self._inside)
        close()


def require_store(path: Path) -> None:
    """Raises SettingsError if there is no store in `path`, CorruptionError if its write-ahead log is gone: LevelDB would open
    an older store, and delete the file when somebody brings it back."""
    with wrapped(f"cannot open the store {path}"):
        found = (path / "CURRENT").exists()
        logged = any(path.glob("*.log"))
    if not found:
        raise SettingsError(
            f"there is no store in {path}, or it is half deleted",
            hint="`translog init` creates a log; to bring one back, restore its backup",
            code="no-store",
        )
    if not logged:
        raise CorruptionError(
            f"{path} has lost its write-ahead log (*.log)",
            hint="nothing was changed; bring the file back, or restore a backup",
        )


def open_db(path: Path, *, create: bool) -> Any:
    """The database in a directory, with the options that are right here. Raises CorruptionError, StorageError."""
    with wrapped(f"cannot open the store {path}"):
        return plyvel.DB(
            str(path),
            create_if_missing=create,
            error_if_exists=create,
            paranoid_checks=True,
            write_buffer_size=WRITE_BUFFER_BYTES,
            bloom_filter_bits=BLOOM_FILTER_BITS,
            max_open_files=OPEN_FILES_MAX,
        )


def _get(db: Any, key: bytes) -> bytes | None:
    value: bytes | None = db.get(key, verify_checksums=True)
    return value


def _put_rows(batch: Any, rows: EventRows) -> None:
    put = batch.put
    for index, row in rows.payloads.items():
        put(keyspace.payload_key(index), keyspace.encode_payload_row(row))
    for (index, number), record in rows.blobs.items():
        put(keyspace.blob_key(index, number), record)
    for key, value in rows.ids.items():
        put(keyspace.id_row_key(key), value)
    for stream, head in rows.streams.items():
        put(keyspace.stream_row_key(stream), keyspace.encode_stream_head(head))
    for (stream, seq), index in rows.numbers.items():
        put(keyspace.number_key(stream, seq), keyspace.encode_index(index))


def repair_db(path: Path) -> None:
    """Makes a damaged database open again, without what is damaged of it. Raises StorageError. Only for copies."""
    with wrapped(f"cannot repair {path}"):
        plyvel.repair_db(str(path), paranoid_checks=False, write_buffer_size=WRITE_BUFFER_BYTES)


class Scan:
    """Rows [start, end) of a database in key order, past the blocks that cannot be read: `damaged` says, at the end, whether
    there were any. About 3 µs a row."""

    def __init__(self, db: Any, start: bytes, end: bytes) -> None:
        self._db = db
        self._start = start
        self._end = end
        self.damaged = False

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        with self._db.raw_iterator(verify_checksums=True, fill_cache=False) as rows:
            self._moved(lambda: rows.seek(self._start))
            while rows.valid() and rows.key() < self._end:
                yield rows.item()
                self._moved(rows.next)

    def _moved(self, move: Callable[[], None]) -> None:
        """An iterator that met a damaged block complains at every step from then on, and goes on behind it all the same."""
        try:
            move()
        except plyvel.Error:
            self.damaged = True


@contextmanager
def wrapped(what: str) -> Iterator[None]:
    """Turns plyvel's exceptions, and the system's, into ours."""
    try:
        yield
    except plyvel.CorruptionError as error:
        raise CorruptionError(
            f"{what}: LevelDB finds it damaged: {_message(error)}",
            hint="nothing was changed; restore a backup, or bring the files back, and start again",
        ) from error
    except (plyvel.Error, OSError) as error:
        message = _message(error)
        hint = "check the disk: is it full, or read-only?"
        if "/LOCK" in message:
            hint = "another process has the store open; was DIR/lock deleted? find that process before anything else"
        raise StorageError(f"{what}: {message}", hint=hint) from error


def _message(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(error)
