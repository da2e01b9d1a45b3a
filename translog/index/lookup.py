"""From leaf hash to index: a derived table in SQLite, behind the setting `log.leaf_lookup`.

Rules: the first index of a hash wins; deleting the file only costs the time to rebuild it; a file that belongs to another or
longer log is rebuilt. What it says is only where to look: the proof that follows is made from the tree.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from translog.core.merkle import hash_leaf
from translog.errors import StorageError

_VERSION = 1
_SCHEMA = f"""
PRAGMA user_version = {_VERSION};
CREATE TABLE IF NOT EXISTS leaf (hash BLOB PRIMARY KEY, idx INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS follower (origin TEXT NOT NULL, next_index INTEGER NOT NULL);
"""


class LeafLookup:
    """A follower's Sink, and the look-up it makes possible. Safe to use from many threads."""

    name = "leaf-lookup"

    def __init__(self, path: Path, *, origin: str, size: int) -> None:
        """Opens or creates the table for the log `origin`, which has `size` entries. Raises StorageError."""
        self._lock = threading.Lock()
        with _wrapped(path):
            path.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                self._open(path, origin, size)
            except sqlite3.Error as error:
                self._db.close()
                if isinstance(error, sqlite3.OperationalError):
                    raise
                _delete(path)  # damaged, or of another kind: it is derived, so it is made anew
                self._open(path, origin, size)
        self._path = path

    def _open(self, path: Path, origin: str, size: int) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"table version {version}")
        self._db.executescript(_SCHEMA)
        known = self._db.execute("SELECT origin, next_index FROM follower").fetchall()
        if len(known) != 1 or known[0][0] != origin or known[0][1] > size:
            with self._transaction():
                self._db.execute("DELETE FROM leaf")
                self._db.execute("DELETE FROM follower")
                self._db.execute("INSERT INTO follower VALUES (?, 0)", (origin,))

    def cursor(self) -> int:
        with self._lock, _wrapped(self._path):
            return int(self._db.execute("SELECT next_index FROM follower").fetchone()[0])

    def apply(self, start: int, entries: Sequence[bytes]) -> None:
        rows = [(hash_leaf(entry), index) for index, entry in enumerate(entries, start=start)]
        with self._lock, _wrapped(self._path), self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO leaf VALUES (?, ?)", rows)
            self._db.execute("UPDATE follower SET next_index = ?", (start + len(entries),))

    def find(self, leaf_hash: bytes) -> int | None:
        """The first index of an entry with this leaf hash, as far as followed. Raises StorageError."""
        with self._lock, _wrapped(self._path):
            row = self._db.execute("SELECT idx FROM leaf WHERE hash = ?", (leaf_hash,)).fetchone()
        return None if row is None else int(row[0])

    def close(self) -> None:
        """Closes the table."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _delete(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


@contextmanager
def _wrapped(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageError(f"the leaf look-up {path} failed: {error}", hint="it can be deleted: it is rebuilt") from error
