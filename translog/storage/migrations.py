"""How a store of an older format version becomes one of this version.

Rules: there is one Migration for each version that was ever released, to the next; a store is migrated by command only, never
in passing; a migration may be interrupted anywhere and is run again from its start, so its changes must be the same then;
the version in `meta` is written last. Version 1 is the first, so the table is empty; tests/storage/test_migrations.py runs
the mechanism on one that is made up.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from translog.errors import CorruptionError, SettingsError
from translog.storage import keyspace
from translog.storage.leveldb import open_db, require_store, wrapped
from translog.storage.lock import DirectoryLock

_BATCH_ROWS = 1_000

Rows = Iterator[tuple[bytes, bytes]]
"""All rows, in key order."""
Changes = Iterable[tuple[bytes, bytes | None]]
"""Keys with their new values; None deletes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """From one format version to the next: what it is for, and the changes it makes, given all rows."""

    summary: str
    changes: Callable[[Rows], Changes]


MIGRATIONS: Mapping[int, Migration] = {}
"""By the version they start from."""


def upgrade_store(
    lock: DirectoryLock, *, migrations: Mapping[int, Migration] = MIGRATIONS, version: int = keyspace.FORMAT_VERSION
) -> list[str]:
    """Migrates the store in the locked directory to `version`, step by step. Returns the summaries of the steps taken.

    Raises SettingsError if there is no store, no way from its version, or if it is newer; CorruptionError, StorageError.
    """
    path = lock.directory / "log"
    require_store(path)
    lock.enter()
    try:
        db = open_db(path, create=False)
        try:
            with wrapped(f"cannot migrate {path}"):
                return _migrate(db, migrations, version)
        finally:
            db.close()
    finally:
        lock.leave()


def _migrate(db: Any, migrations: Mapping[int, Migration], wanted: int) -> list[str]:
    taken: list[str] = []
    while True:
        meta = db.get(keyspace.META, verify_checksums=True)
        if meta is None:
            raise CorruptionError("the store holds no log: its key `meta` is missing", hint="restore it from a backup")
        version = keyspace.meta_version(meta)
        if version == wanted:
            return taken
        migration = migrations.get(version)
        if migration is None or version > wanted:
            raise SettingsError(
                f"the store has format version {version}, and this program knows no way from there to {wanted}",
                hint="use the version of translog that wrote it, or a newer one",
                code="store-version",
            )
        with db.snapshot() as snapshot, snapshot.iterator(verify_checksums=True, fill_cache=False) as rows:
            changes = iter(migration.changes(rows))
            while batch := list(islice(changes, _BATCH_ROWS)):
                _write(db, batch)
        _write(db, [(keyspace.META, keyspace.with_meta_version(meta, version + 1))])
        taken.append(migration.summary)


def _write(db: Any, changes: Changes) -> None:
    with db.write_batch(transaction=True, sync=True) as batch:
        for key, value in changes:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
