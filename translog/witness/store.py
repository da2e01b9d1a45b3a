"""A witness's state: the logs it knows, and the checkpoint of each that it cosigned last, in one SQLite file.

Rules: what `update` wrote is on disk when it returns, and is one atomic step with the check that nobody else wrote meanwhile,
between threads as between processes; a size never gets smaller, a time never earlier; logs and keys are only added but by hand,
and a key removed by hand comes back by hand only. Each row of a checkpoint has a digest: a flipped bit must not become a
smaller size. Never put an older copy in the place of this file: the witness would cosign what contradicts what it cosigned.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from translog.core.keys import VKey, parse_vkey
from translog.core.wire import HASH_BYTES, SIZE_MAX, clip
from translog.errors import (
    ConsistencyError,
    CorruptionError,
    NotFoundError,
    OldSizeError,
    PushbackError,
    SettingsError,
    StorageError,
    TooLargeError,
)
from translog.storage.files import sync_directory
from translog.witness.loglist import KEYS_MAX, LOGS_MAX, require_log
from translog.witness.loglist import KnownLog as KnownLog  # whoever has a store asks it for these
from translog.witness.protocol import Cosigned, origin_hash

FORMAT_VERSION = 1
BUSY_MS = 10_000
"""How long a writer waits for those before it; a commit takes a few milliseconds."""
_RETRY_MS = 1_000

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE logs (
    origin TEXT PRIMARY KEY, queries_per_day INTEGER NOT NULL, contact TEXT NOT NULL, source TEXT NOT NULL,
    poll_url TEXT NOT NULL
);
CREATE TABLE keys (
    origin TEXT NOT NULL, vkey TEXT NOT NULL, removed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (origin, vkey)
);
CREATE TABLE cosigned (
    origin TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, root BLOB NOT NULL, time_s INTEGER NOT NULL,
    note BLOB NOT NULL, digest BLOB NOT NULL
);
"""
_COSIGNED = "SELECT origin, size, root, time_s, note, digest FROM cosigned WHERE"
_ADD_KEY = "INSERT INTO keys (origin, vkey) VALUES (?, ?) ON CONFLICT DO NOTHING"
_ADD_KEY_BY_HAND = (
    "INSERT INTO keys (origin, vkey) VALUES (?, ?) ON CONFLICT (origin, vkey) DO UPDATE SET removed = 0 WHERE removed"
)
_KEYS_OF_LOGS = (
    "SELECT origin, vkey FROM logs JOIN keys USING (origin) WHERE NOT removed AND (poll_url != '' OR NOT ?) ORDER BY keys.rowid"
)
_LOST_HINT = (
    "this witness must sign nothing more under these keys, since it no longer knows what it cosigned; create a new one, with "
    "new keys and another name, and tell those whose policies list this one"
)


class WitnessStore:
    """One open state file. Safe for several threads, each of which gets a connection, and beside other processes."""

    def __init__(self, path: Path) -> None:
        """Use `create` or `open`."""
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        """Writers of this process take turns here: SQLite's own waiting is by naps."""
        self._connections: list[sqlite3.Connection] = []
        self._closed = False
        meta = self._read_meta()
        self.name = meta["name"]
        self.vkeys: tuple[VKey, ...] = tuple(map(_vkey, filter(None, meta["vkeys"].split("\n"))))
        """The witness's own, as they were when the state was created; empty where that was not said."""

    @classmethod
    def create(cls, path: Path, *, name: str, vkeys: Sequence[VKey] = ()) -> "WitnessStore":
        """A new, empty state, durable when it returns. Raises SettingsError if there is something at `path`, StorageError."""
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise SettingsError(f"there is something at {path} already", hint="state is never overwritten") from None
        except OSError as error:
            raise StorageError(f"cannot create {path}: {error.strerror}") from error
        rows = [("format", str(FORMAT_VERSION)), ("name", name), ("vkeys", "\n".join(map(str, vkeys)))]
        try:
            with closing(_connect(path)) as connection:
                connection.executescript(f"BEGIN; {_SCHEMA}")
                connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
                connection.execute("COMMIT")
            sync_directory(path.parent)
        except (sqlite3.Error, OSError, StorageError) as error:
            path.unlink(missing_ok=True)
            raise StorageError(f"cannot create {path}: {error}", hint="is the disk full?") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "WitnessStore":
        """The state at `path`. Raises SettingsError, code `witness-state-lost` if there is none; CorruptionError,
        StorageError."""
        try:
            lost = path.stat().st_size == 0  # SQLite takes an empty file for a new database
        except FileNotFoundError:
            lost = True
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        if lost:
            raise SettingsError(f"the state of this witness is lost: {path}", hint=_LOST_HINT, code="witness-state-lost")
        return cls(path)

    def close(self) -> None:
        """Closes all connections; nobody may be using one."""
        with self._lock:
            self._closed = True
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def find_log(self, origin: str) -> KnownLog | None:
        """A log by its origin, with the keys that count; it may have none left."""
        rows = self._read("SELECT origin, queries_per_day, contact, source, poll_url FROM logs WHERE origin = ?", origin)
        keys = self._read("SELECT vkey FROM keys WHERE origin = ? AND NOT removed ORDER BY rowid", origin)
        return _log_of(rows[0], [row[0] for row in keys]) if rows else None

    def logs(self, *, polled: bool = False) -> list[KnownLog]:
        """All logs, by origin; or those with a `poll_url`."""
        keys: dict[str, list[str]] = {}
        for origin, vkey in self._read(_KEYS_OF_LOGS, polled):
            keys.setdefault(origin, []).append(vkey)
        rows = self._read(
            "SELECT origin, queries_per_day, contact, source, poll_url FROM logs WHERE poll_url != '' OR NOT ? ORDER BY origin",
            polled,
        )
        return [_log_of(row, keys.get(row[0], [])) for row in rows]

    def add_log(self, log: KnownLog) -> bool:
        """Makes a log known, or adds keys to one that is; durable when it returns. Returns whether anything changed.

        From a list, only logs that are not known; a key that was removed by hand comes back from source "command" only.
        Raises MalformedError for what can be no log, TooLargeError for too many logs or keys, StorageError.
        """
        return self.add_logs([log]) == 1

    def add_logs(self, logs: Sequence[KnownLog]) -> int:
        """`add_log` for many at once, all or none. Returns how many changed anything."""
        for log in logs:
            require_log(log)
        with self._writing() as connection:
            changed = sum([_add(connection, log) for log in logs])
            (count,) = connection.execute("SELECT count(*) FROM logs").fetchone()
            if count > LOGS_MAX:
                raise TooLargeError(f"a witness knows {LOGS_MAX} logs at most, these would be {count}")
            return changed

    def remove_key(self, origin: str, vkey: VKey) -> None:
        """From now on the key counts no more. Raises NotFoundError if it is not a key of that log, StorageError."""
        with self._writing() as connection:
            done = connection.execute(
                "UPDATE keys SET removed = 1 WHERE origin = ? AND vkey = ? AND NOT removed", (origin, str(vkey))
            )
            if done.rowcount == 0:
                raise NotFoundError(f"the log {clip(origin)} has no such key", hint="`translog witness logs` lists them")

    def find_cosigned(self, origin: str) -> Cosigned | None:
        """The checkpoint of a log that was cosigned last. Raises CorruptionError, StorageError."""
        rows = self._read(f"{_COSIGNED} origin = ?", origin)
        return _cosigned_of(rows[0], wanted=origin) if rows else None

    def find_by_hash(self, hex_hash: str) -> Cosigned | None:
        """The same, by what the log is called in URLs (protocol.origin_hash)."""
        rows = self._read(f"{_COSIGNED} hash = ?", hex_hash)
        if not rows or origin_hash(rows[0][0]) != hex_hash:
            return None
        return _cosigned_of(rows[0], wanted=rows[0][0])

    def update(self, origin: str, *, old: int, new: Cosigned) -> None:
        """Puts `new` in the place of the checkpoint of size `old` (0 if there is none), durable when it returns.

        Raises OldSizeError if another size is stored by now, or a later time; ConsistencyError if `new` is smaller, or has
        another root at the same size; StorageError: then it may have been written or not, and must not be answered;
        PushbackError if there was no time to.
        """
        if len(new.root) != HASH_BYTES or not 0 <= new.size <= SIZE_MAX or not 0 < new.time_s <= SIZE_MAX:
            raise ConsistencyError("no such checkpoint can be: a root, size or time out of range")
        with self._writing() as connection:
            rows = connection.execute(f"{_COSIGNED} origin = ?", (origin,)).fetchall()
            stored = _cosigned_of(rows[0], wanted=origin) if rows else None
            known = stored.size if stored else 0
            if old != known or (stored is not None and new.time_s < stored.time_s):
                raise OldSizeError(f"the last checkpoint cosigned is of size {known} by now", size=known)
            if new.size < known or (stored is not None and new.size == known and new.root != stored.root):
                raise ConsistencyError(f"the checkpoint cosigned at size {known} is not to be taken back")
            connection.execute(
                "INSERT OR REPLACE INTO cosigned VALUES (?, ?, ?, ?, ?, ?, ?)",
                (origin, origin_hash(origin), new.size, new.root, new.time_s, new.note, _digest(origin, new)),
            )

    def _read_meta(self) -> dict[str, str]:
        try:
            meta: dict[str, str] = dict(self._read("SELECT key, value FROM meta"))
        except StorageError as error:
            if "no such table" in error.detail:
                raise SettingsError(
                    f"{self._path} holds no state of a witness", hint=_LOST_HINT, code="witness-state-lost"
                ) from None
            raise
        if meta.get("format") != str(FORMAT_VERSION) or not {"name", "vkeys"} <= meta.keys():
            raise SettingsError(f"{self._path} is of a format that this version does not know", hint="use a newer translog")
        return meta

    def _read(self, statement: str, *values: str | bool) -> list[Any]:
        with _errors(self._path):
            return self._connection().execute(statement, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed and on disk when the context ends well, undone when it does not."""
        with self._turn, _errors(self._path):
            connection = self._connection()
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                    raise PushbackError("the witness's state is in use", retry_after_ms=_RETRY_MS) from None
                raise
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # some errors have undone it already
                    connection.execute("ROLLBACK")
                raise

    def _connection(self) -> sqlite3.Connection:
        """This thread's; never one from before a fork."""
        process = os.getpid()
        if self._closed:
            raise StorageError("the witness's state is closed")
        if getattr(self._local, "process", None) != process:
            connection = _connect(self._path)
            with self._lock:
                self._connections.append(connection)
            self._local.connection, self._local.process = connection, process
        return self._local.connection  # type: ignore[no-any-return]


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_MS / 1000, check_same_thread=False
    )
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StorageError(f"{path} cannot be written safely here", hint="keep it on a local disk, not on one of a network")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # the latter where it was closed meanwhile
        raise StorageError(f"the witness's state {path}: {error}", hint="is the disk full, or the file gone?") from error
    except sqlite3.DatabaseError as error:
        raise CorruptionError(f"the witness's state {path} is damaged: {error}", hint=_LOST_HINT) from error


def _add(connection: sqlite3.Connection, log: KnownLog) -> bool:
    before = connection.execute("SELECT queries_per_day, contact, source, poll_url FROM logs WHERE origin = ?", (log.origin,))
    known = before.fetchone()
    if known is not None and log.source == "list":
        return False
    _, contact, _, poll_url = known or (0, "", "", "")
    said = (log.queries_per_day, log.contact or contact, log.source, log.poll_url or poll_url)
    changes = [] if known == said else [1]
    connection.execute(
        "INSERT INTO logs VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET queries_per_day = excluded.queries_per_day,"
        " contact = excluded.contact, source = excluded.source, poll_url = excluded.poll_url",
        (log.origin, *said),
    )
    add_key = _ADD_KEY_BY_HAND if log.source == "command" else _ADD_KEY
    changes += [connection.execute(add_key, (log.origin, str(vkey))).rowcount for vkey in log.vkeys]
    (keys,) = connection.execute("SELECT count(*) FROM keys WHERE origin = ? AND NOT removed", (log.origin,)).fetchone()
    if keys > KEYS_MAX:
        raise TooLargeError(
            f"the log {clip(log.origin)} would have more than {KEYS_MAX} keys", hint="remove those that it uses no more"
        )
    return any(changes)


def _log_of(row: Sequence[Any], vkeys: Sequence[str]) -> KnownLog:
    origin, queries_per_day, contact, source, poll_url = row
    return KnownLog(
        origin=origin,
        vkeys=tuple(map(_vkey, vkeys)),
        queries_per_day=queries_per_day,
        contact=contact,
        source=source,
        poll_url=poll_url,
    )


_vkey: Callable[[str], VKey] = lru_cache(maxsize=4_096)(parse_vkey)


def _cosigned_of(row: Sequence[Any], *, wanted: str) -> Cosigned:
    origin, size, root, time_s, note, digest = row
    cosigned = Cosigned(size=size, root=root, time_s=time_s, note=note)
    if origin != wanted or digest != _digest(origin, cosigned):
        raise CorruptionError(f"the checkpoint stored of {clip(wanted)} is damaged", hint=_LOST_HINT)
    return cosigned


def _digest(origin: str, cosigned: Cosigned) -> bytes:
    head = f"{origin}\n{cosigned.size}\n{cosigned.time_s}\n".encode()
    return sha256(head + cosigned.root + cosigned.note).digest()
