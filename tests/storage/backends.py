"""The adapters under one roof: create, open, crash, and the damage and faults that the contract speaks of."""

import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from translog.core.tile import Tile
from translog.storage import keyspace, leveldb
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.memory import Fault, MemoryDisk, MemoryStore
from translog.storage.store import LogMeta, LogStore

PLYVEL: Any = vars(leveldb)["plyvel"]
"""The module under the name it has here: plyvel or plyvel_next."""


class Backend(ABC):
    """One place a store can be in. At most one store is open at a time."""

    @abstractmethod
    def create(self, meta: LogMeta) -> LogStore:
        """A new store, open."""

    @abstractmethod
    def open(self) -> LogStore:
        """The store, opened anew."""

    @abstractmethod
    def crash(self, store: LogStore) -> None:
        """The process dies with the store open."""

    @abstractmethod
    def fail_next_write(self, store: LogStore, what: Literal["commit", "publish"], *, applied: bool) -> None:
        """The next write reports failure, applied or not."""

    @abstractmethod
    def lose_entry(self, index: int) -> None:
        """Takes an entry out of a closed store; in memory every later one too."""

    @abstractmethod
    def put_tile(self, tile: Tile, data: bytes | None) -> None:
        """Replaces a tile of a closed store, or takes it out."""

    @abstractmethod
    @contextmanager
    def paused_reads(self, store: LogStore) -> Iterator[tuple[threading.Event, threading.Event]]:
        """`read_entries` of one entry sets the first event and waits for the second."""

    @abstractmethod
    def tear_down(self) -> None:
        """Closes what is open."""


class MemoryBackend(Backend):
    def __init__(self) -> None:
        self.disk: MemoryDisk

    def create(self, meta: LogMeta) -> MemoryStore:
        self.disk = MemoryDisk(meta=meta)
        return MemoryStore(self.disk)

    def open(self) -> MemoryStore:
        return MemoryStore(self.disk)

    def crash(self, store: LogStore) -> None:
        assert isinstance(store, MemoryStore)
        store.crash()

    def fail_next_write(self, store: LogStore, what: Literal["commit", "publish"], *, applied: bool) -> None:
        self.disk.faults = [(what, Fault.APPLIED_BUT_FAILED if applied else Fault.REFUSED)]

    def lose_entry(self, index: int) -> None:
        del self.disk.entries[index:]

    def put_tile(self, tile: Tile, data: bytes | None) -> None:
        if data is None:
            del self.disk.tiles[tile.level, tile.index]
        else:
            self.disk.tiles[tile.level, tile.index] = data

    @contextmanager
    def paused_reads(self, store: LogStore) -> Iterator[tuple[threading.Event, threading.Event]]:
        entered, release = threading.Event(), threading.Event()

        class Paused(list[bytes]):
            def __getitem__(self, at: Any) -> Any:
                pause(entered, release)
                return super().__getitem__(at)

        self.disk.entries = Paused(self.disk.entries)
        try:
            yield entered, release
        finally:
            release.set()

    def tear_down(self) -> None:
        """Nothing is open."""


class LevelDBBackend(Backend):
    def __init__(self, path: Path) -> None:
        self._home = path
        self._generation = 0
        self.directory = path / "0"
        self.directory.mkdir()
        self.lock = DirectoryLock(self.directory)
        self._stores: list[LevelDBStore] = []

    def create(self, meta: LogMeta) -> LevelDBStore:
        return self._remember(LevelDBStore.create(self.lock, meta))

    def open(self) -> LevelDBStore:
        return self._remember(LevelDBStore.open(self.lock))

    def _remember(self, store: LevelDBStore) -> LevelDBStore:
        self._stores.append(store)
        return store

    def crash(self, store: LogStore) -> None:
        """What is on the disk while the store is open, in a new directory: closing it would write more."""
        assert isinstance(store, LevelDBStore)
        self._generation += 1
        copy = self._home / str(self._generation)
        shutil.copytree(self.directory, copy)
        store.close()
        self.lock.release()
        self.directory, self.lock = copy, DirectoryLock(copy)

    def fail_next_write(self, store: LogStore, what: Literal["commit", "publish"], *, applied: bool) -> None:
        assert isinstance(store, LevelDBStore)
        store._db = FailingWrites(store._db, applied=applied)

    @contextmanager
    def raw(self) -> Iterator[Any]:
        """The database of a closed store, without any of our care."""
        db = PLYVEL.DB(str(self.directory / "log"))
        try:
            yield db
        finally:
            db.close()

    def lose_entry(self, index: int) -> None:
        with self.raw() as db:
            db.delete(keyspace.entry_key(index))

    def put_tile(self, tile: Tile, data: bytes | None) -> None:
        key = keyspace.tile_key(tile.level, tile.index)
        with self.raw() as db:
            if data is None:
                db.delete(key)
            else:
                db.put(key, data)

    @contextmanager
    def paused_reads(self, store: LogStore) -> Iterator[tuple[threading.Event, threading.Event]]:
        assert isinstance(store, LevelDBStore)
        entered, release = threading.Event(), threading.Event()
        store._db = PausedReads(store._db, lambda: pause(entered, release))
        try:
            yield entered, release
        finally:
            release.set()

    def tear_down(self) -> None:
        for store in self._stores:
            store.close()
        self.lock.release()


def pause(entered: threading.Event, release: threading.Event) -> None:
    entered.set()
    assert release.wait(10), "nobody let the read go on"


class Proxy:
    """A database with some methods replaced."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class PausedReads(Proxy):
    def __init__(self, db: Any, pause: Callable[[], None]) -> None:
        super().__init__(db)
        self._pause = pause

    def iterator(self, **options: Any) -> Any:
        self._pause()
        return self._db.iterator(**options)


class FailingWrites(Proxy):
    """The next batch raises at its end, as LevelDB does when the disk fails."""

    def __init__(self, db: Any, *, applied: bool) -> None:
        super().__init__(db)
        self._applied = applied

    @contextmanager
    def write_batch(self, **options: Any) -> Iterator[Any]:
        batch = self._db.write_batch(**options)
        yield batch
        if self._applied:
            batch.write()
        raise PLYVEL.IOError(b"IO error: the disk went away")
