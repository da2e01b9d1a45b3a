"""A store's files, looked at without changing them: the TreeSource of a log that does not run.

Rules: LevelDB changes what it opens (it replays the write-ahead log, compacts, deletes), so nobody opens the store itself
here. `freeze` makes a second directory with links to its tables and copies of the few other files; LevelDB gets that. The
links are named .sst, which LevelDB reads and never writes: a damaged MANIFEST makes it number new tables as old ones, and it
would write those through the links. Where it finds damage, it repairs the second directory, and what is lost shows as
missing. Everything is read through iterators: after a repair a plain `get` may find an older version of a value. The checks
of checksums are LevelDB's, all of them switched on.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

from translog.core.tile import TILE_WIDTH, Bundle, Tile, format_tile_path, tile_within
from translog.core.wire import SIZE_MAX
from translog.errors import CorruptionError, StorageError, TranslogError
from translog.storage import keyspace
from translog.storage.leveldb import Scan, open_db, repair_db, require_store, wrapped
from translog.storage.source import MISSING, BundleRead, Contents, Damage, EventRead
from translog.storage.store import Profile, StoredCheckpoint

_UNREADABLE = "cannot be read: a block of the store is damaged"
_STRAY = "is there, and should not be"
_GONE = "No such file"
"""What LevelDB says of a file that another one names and that is not there."""
_ROOM_HINT = "is there room in the directory for temporary files? TMPDIR names another one"
_TABLES = (".ldb", ".sst")
_DERIVED = (b"i", b"n", b"q")
"""First bytes of the keys that follow from entries and payload rows: fsck compares them all."""
_LAST = b"\xff" * 1_024

T = TypeVar("T")


def freeze(store: Path, target: Path) -> list[Damage]:
    """Makes `target` a directory that LevelDB may open in place of `store` (DIR/log, which nobody may have open).

    Returns what LevelDB found damaged about the files as a whole. Raises SettingsError if there is no store, StorageError if
    its files cannot be read, or there is no room for what is copied: what TMPDIR lacks is no damage.
    """
    damages = []
    try:
        require_store(store)
    except CorruptionError as error:
        damages.append(Damage(resource=f"{store.name}/*.log", problem=error.detail))
    for attempt in (_reopen, _repair):
        _copy(store, target)
        try:
            attempt(target)
        except (CorruptionError, StorageError) as error:
            if isinstance(error, StorageError) and _GONE not in error.detail:
                raise StorageError(error.detail, hint=_ROOM_HINT) from error
            damages.append(Damage(resource="the store's files", problem=error.detail.replace(str(target), str(store))))
        else:
            break
    return damages


def _copy(store: Path, target: Path) -> None:
    with wrapped(f"cannot copy the files of {store}"):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in sorted(store.iterdir()):  # of two tables of one number LevelDB reads the .ldb
            if file.suffix in _TABLES:
                link = target / file.with_suffix(".sst").name
                if not link.is_symlink():
                    link.symlink_to(file.resolve())
            elif file.is_file() and file.name not in ("LOCK", "LOG", "LOG.old"):
                shutil.copyfile(file, target / file.name)


def _reopen(target: Path) -> None:
    """Replays the write-ahead log, once for all who will read."""
    open_db(target, create=False).close()


def _repair(target: Path) -> None:
    repair_db(target)
    _reopen(target)


class FrozenStore:
    """See TreeSource. Reads a directory that `freeze` made; every process makes one of its own from that, beside it."""

    def __init__(self, frozen: Path) -> None:
        with wrapped(f"cannot make a directory in {frozen.parent}"):
            self._own = Path(tempfile.mkdtemp(prefix="view-", dir=frozen.parent))
        _copy(frozen, self._own)
        self._db: Any = open_db(self._own, create=False)

    @property
    def resource_of_entries(self) -> str:
        return "entry"

    def contents(self) -> Contents:
        """Raises SettingsError for a store of another format version."""
        damages: list[Damage] = []
        meta = self._decoded(keyspace.META, keyspace.decode_meta, damages)
        state = self._decoded(keyspace.STATE, keyspace.decode_state, damages)
        latest = None
        if self._holds(keyspace.LATEST) or state is None or state.size:
            latest = self._decoded(keyspace.LATEST, keyspace.decode_latest, damages)
        return Contents(meta=meta, state=state, latest=latest, damages=damages)

    def checkpoints(self, *, size_min: int = 0) -> Iterator[StoredCheckpoint | Damage]:
        start = keyspace.kept_checkpoint_key(size_min) if size_min else keyspace.KEPT_CHECKPOINT_START
        rows = Scan(self._db, start, keyspace.KEPT_CHECKPOINT_END)
        for key, value in rows:
            if len(key) == len(keyspace.kept_checkpoint_key(0)):
                yield keyspace.decode_kept_checkpoint(key, value)
            else:
                yield Damage(resource=_name(key), problem=_STRAY)
        if rows.damaged:
            yield Damage(resource="kept checkpoints", problem=f"some {_UNREADABLE}")

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        with _Rows(self._db) as rows:
            for bundle in bundles:
                start = bundle.index * TILE_WIDTH
                keys = keyspace.entry_key(start), keyspace.entry_key(start + bundle.width)
                read = rows.take(keys[0], bundle.width)
                if len(read) == bundle.width and read[-1][0] == keyspace.entry_key(start + bundle.width - 1):
                    yield BundleRead([value for _, value in read])
                else:
                    yield self._read_past_damage(bundle, *keys)

    def _read_past_damage(self, bundle: Bundle, start: bytes, end: bytes) -> BundleRead:
        first = bundle.index * TILE_WIDTH
        rows = Scan(self._db, keyspace.entry_key(first - 1) + b"\x00" if first else start, end)
        found = dict(rows)
        entries = [found.get(keyspace.entry_key(index)) for index in range(first, first + bundle.width)]
        if None in entries:
            return BundleRead(entries, _UNREADABLE if rows.damaged else MISSING)
        return BundleRead(entries, "has something beside its entries" if len(found) > len(entries) else "")

    def tiles(self, tiles: Sequence[Tile]) -> Iterator[bytes | Damage]:
        with _Rows(self._db) as rows:
            for tile in tiles:
                key = keyspace.tile_key(tile.level, tile.index)
                read = rows.take(key, 1)
                if read and read[0][0] == key:
                    yield read[0][1]
                    continue
                value, damaged = self._value(key)
                problem = _UNREADABLE if damaged else MISSING
                yield value if value is not None else Damage(resource=format_tile_path(tile), problem=problem)

    # --- an events log --------------------------------------------------------------------------------------------------

    def payloads_end(self) -> int | None:
        state = self._decoded(keyspace.STATE, keyspace.decode_state, [])
        if not self._is_of_events():
            return None
        return SIZE_MAX if state is None else state.size

    def _is_of_events(self) -> bool:
        """Where the store has lost what it says of itself, that it has streams says it."""
        meta = self._decoded(keyspace.META, keyspace.decode_meta, [])
        if meta is not None:
            return meta.profile is Profile.EVENTS
        return any(True for _ in Scan(self._db, keyspace.STREAM_START, keyspace.STREAM_END))

    def events(self, bundles: Sequence[Bundle]) -> Iterator[EventRead]:
        for bundle in bundles:
            first = bundle.index * TILE_WIDTH
            end = first + bundle.width
            rows = Scan(self._db, keyspace.payload_key(first), keyspace.payload_key(end))
            records = Scan(self._db, _blobs_key(first), _blobs_key(end))
            row_groups, record_groups = _Groups(rows), _Groups(records)
            for index in range(first, end):
                row, strays = None, []
                for key, value in row_groups.take(keyspace.payload_key(index + 1)):
                    if key == keyspace.payload_key(index):
                        row = value
                    else:
                        strays.append(_name(key))
                blobs = {}
                for key, value in record_groups.take(_blobs_key(index + 1)):
                    place = _decode_blob_key(key)
                    if place is not None:
                        blobs[place[1]] = value
                    else:
                        strays.append(_name(key))
                yield EventRead(row, blobs, _UNREADABLE if rows.damaged or records.damaged else MISSING, tuple(strays))

    def find_rows(self, keys: Sequence[bytes]) -> list[bytes | Damage]:
        """By `get`, which takes half the time: rows that are written once have no older version to be found."""
        try:
            with wrapped("reading"):
                read = [self._db.get(key, verify_checksums=True) for key in keys]
        except TranslogError:
            read = [None] * len(keys)
        return [value if value is not None else self._found(key) for key, value in zip(keys, read, strict=True)]

    def _found(self, key: bytes) -> bytes | Damage:
        value, damaged = self._value(key)
        return value if value is not None else Damage(resource=_name(key), problem=_UNREADABLE if damaged else MISSING)

    def scan_rows(self, prefix: bytes) -> Iterator[tuple[bytes, bytes] | Damage]:
        rows = Scan(self._db, prefix, _after(prefix))
        yield from rows
        if rows.damaged:
            yield Damage(resource=f"rows {prefix.decode()!r}", problem=f"some {_UNREADABLE}")

    # --- what should not be there ---------------------------------------------------------------------------------------

    def strays(self, *, size: int) -> Iterator[Damage]:
        known = {keyspace.META, keyspace.STATE, keyspace.LATEST}
        checked = [  # by whoever reads these; sorted
            (keyspace.KEPT_CHECKPOINT_START, keyspace.KEPT_CHECKPOINT_END),
            (keyspace.entry_key(0), keyspace.entry_key(size - 1) + b"\x00" if size else keyspace.entry_key(0)),
            (keyspace.tile_key(0, 0), keyspace.TILE_END),
        ]
        if self._is_of_events():
            checked += [
                (_blobs_key(0), _blobs_key(size)),
                (keyspace.payload_key(0), keyspace.payload_key(size)),
                *((prefix, _after(prefix)) for prefix in _DERIVED),
            ]
        checked.sort()
        for (_, start), (end, _) in pairwise([(b"", b""), *checked, (_LAST, _LAST)]):
            for key, _ in Scan(self._db, start, end):
                if key not in known:
                    yield Damage(resource=_name(key), problem=_STRAY)
        for key, _ in Scan(self._db, keyspace.tile_key(0, 0), keyspace.TILE_END):
            place = keyspace.decode_tile_key(key)
            if place is None or not tile_within(Tile(level=place[0], index=place[1], width=1), size=size):
                yield Damage(resource=_name(key), problem=_STRAY)

    def close(self) -> None:
        self._db.close()
        shutil.rmtree(self._own, ignore_errors=True)

    def _value(self, key: bytes) -> tuple[bytes | None, bool]:
        """The newest value that can be read, and whether a newer one may be where nothing can be read."""
        rows = Scan(self._db, key, key + b"\x00")
        for _, value in rows:
            return value, rows.damaged  # at once: the next block is of no interest, and may be damaged too
        return None, rows.damaged

    def _holds(self, key: bytes) -> bool:
        value, damaged = self._value(key)
        return value is not None or damaged

    def _decoded(self, key: bytes, decode: Callable[[bytes], T], damages: list[Damage]) -> T | None:
        value, damaged = self._value(key)
        try:
            if value is not None and not damaged:
                return decode(value)
            problem = _UNREADABLE if damaged else MISSING
        except CorruptionError:
            problem = "is not what this program writes there"
        damages.append(Damage(resource=f"key {key.decode()!r}", problem=problem))
        return None


class _Rows:
    """Rows that follow each other, read in one go: finding the first of a range costs as much as reading hundreds."""

    def __init__(self, db: Any) -> None:
        self._db = db
        self._rows: Any = None
        self._next = b""

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._rows is not None:
            self._rows.close()

    def take(self, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """The next `count` rows from `start` on, fewer where the rows end or cannot be read."""
        read: list[tuple[bytes, bytes]] = []
        with suppress(TranslogError), wrapped("reading"):
            if self._rows is None or start != self._next:
                if self._rows is not None:
                    self._rows.close()
                self._rows = self._db.iterator(start=start, verify_checksums=True, fill_cache=False)
            read = list(islice(self._rows, count))
        self._next = _successor(read[-1][0]) if len(read) == count else b""
        return read


class _Groups:
    """Rows in key order, cut at keys that go up."""

    def __init__(self, rows: Scan) -> None:
        self._rows = iter(rows)
        self._next = next(self._rows, None)

    def take(self, end: bytes) -> list[tuple[bytes, bytes]]:
        """The rows below `end` that were not taken yet."""
        taken = []
        while self._next is not None and self._next[0] < end:
            taken.append(self._next)
            self._next = next(self._rows, None)
        return taken


def _blobs_key(index: int) -> bytes:
    """Not greater than any key of the entry's blobs, and greater than those of the entry before."""
    return keyspace.blob_key(index, 0)[:-2]


def _decode_blob_key(key: bytes) -> tuple[int, int] | None:
    """Index and number in the key of a blob, None for any other key."""
    if len(key) != len(keyspace.blob_key(0, 0)) or key[:1] != b"b":
        return None
    return int.from_bytes(key[1:-2], "big"), int.from_bytes(key[-2:], "big")


def _after(prefix: bytes) -> bytes:
    """Greater than every key with that byte first."""
    return bytes([prefix[0] + 1])


def _successor(key: bytes) -> bytes:
    """The key of the row that should follow: they end in a number that counts up."""
    return (int.from_bytes(key, "big") + 1).to_bytes(len(key), "big")


def _name(key: bytes) -> str:
    """What a row is, for people."""
    place = keyspace.decode_tile_key(key)
    if place is not None:
        return format_tile_path(Tile(level=place[0], index=place[1]))
    if key[:1] == b"e" and len(key) == len(keyspace.entry_key(0)):
        return f"entry {keyspace.entry_index(key)}"
    if key[:1] == b"p" and len(key) == len(keyspace.payload_key(0)):
        return f"payload {keyspace.entry_index(key)}"
    blob = _decode_blob_key(key)
    if blob is not None:
        return f"blob {blob[1]} of payload {blob[0]}"
    return f"key {key.hex()}"
