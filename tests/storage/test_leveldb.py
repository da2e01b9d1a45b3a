"""Each LevelDB trap has a test here: two holders, batches, bit rot, a damaged log, half a directory, no rights, no space.

Damage is done to copies of files that LevelDB itself wrote. Whatever happens, what comes out is right, or an error of ours.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from storage.backends import PLYVEL, LevelDBBackend, Proxy
from storage.growth import META, Growth, checkpoint_of, entry_of
from storage.test_lock import ask_other, require_busy
from translog.core.tile import Tile
from translog.errors import CorruptionError, NotFoundError, SettingsError, StorageError, TranslogError
from translog.storage import keyspace, leveldb
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import LogStore

AS_ROOT = os.geteuid() == 0
NOBODY = 65_534

READS: dict[str, Callable[[LogStore], object]] = {
    "state": lambda store: store.read_state(),
    "latest": lambda store: store.read_checkpoint(),
    "kept": lambda store: store.find_checkpoint(size_min=1),
    "kept below": lambda store: store.find_checkpoint_below(size_max=9),
    "tile": lambda store: store.read_tiles([Tile(level=0, index=0, width=9)]),
    "entries": lambda store: store.read_entries(start=0, end=9),
    "entry": lambda store: store.read_entries(start=4, end=5),
}


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LevelDBBackend]:
    made = LevelDBBackend(tmp_path)
    yield made
    made.tear_down()


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[LevelDBStore]:
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        try:
            yield store
        finally:
            store.close()


def only_file(directory: Path, pattern: str) -> Path:
    (path,) = [path for path in (directory / "log").glob(pattern) if path.stat().st_size]
    return path


def flip(path: Path, position: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)


class TestOneHolder:
    """Trap 1: a failed second open in one process drops LevelDB's own lock, and then acknowledged data can go."""

    def test_a_second_open_here_or_elsewhere_does_not_reach_leveldb(
        self, backend: LevelDBBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, growth = backend.create(META), Growth()
        growth.commit(store, 5)
        with monkeypatch.context() as patched:
            patched.setattr(PLYVEL, "DB", _unreachable)
            require_busy(backend.directory)
            (backend.directory / "lock").unlink()
            require_busy(backend.directory)
        growth.commit(store, 5)
        growth.check(store)
        store.close()
        growth.check(backend.open())

    def test_another_process_is_refused_and_nothing_is_lost(self, backend: LevelDBBackend) -> None:
        store, growth = backend.create(META), Growth()
        growth.commit(store, 5)
        require_busy(backend.directory)  # what used to drop the lock
        assert ask_other(backend.directory) == "directory-in-use"
        growth.commit(store, 300)
        backend.crash(store)
        growth.check(backend.open())

    def test_leveldb_itself_refusing_is_an_error_of_ours(self, backend: LevelDBBackend) -> None:
        backend.create(META)
        with pytest.raises(StorageError, match="cannot open"):
            LevelDBStore.open(backend.lock)


def _unreachable(*args: object, **options: object) -> None:
    raise AssertionError("LevelDB was reached")


class TestBatches:
    """Trap 2: without transaction=True a batch is written although its block raised."""

    def test_a_batch_that_raises_half_way_writes_nothing(self, backend: LevelDBBackend) -> None:
        store, growth = backend.create(META), Growth()
        growth.commit(store, 5)
        real = store._db
        store._db = _PutsFail(real, after=3)
        with pytest.raises(StorageError):
            store.commit(growth.next(5))
        store._db = real
        assert real.get(keyspace.entry_key(5)) is None
        store.close()
        growth.check(backend.open())

    def test_commits_are_synced_and_atomic(self, backend: LevelDBBackend) -> None:
        store, growth = backend.create(META), Growth()
        asked: list[dict[str, object]] = []
        store._db = _RecordsBatches(store._db, asked)
        growth.commit(store, 300)
        store.publish(checkpoint_of(300), keep=True)
        store.publish(checkpoint_of(300), keep=True, durable=True)
        assert asked == [{"transaction": True, "sync": synced} for synced in (True, False, True)]


class _PutsFail(Proxy):
    def __init__(self, db: Any, *, after: int) -> None:
        super().__init__(db)
        self._after = after

    @contextlib.contextmanager
    def write_batch(self, **options: Any) -> Iterator[Any]:
        with self._db.write_batch(**options) as batch:
            yield _FailingBatch(batch, self._after)


class _FailingBatch:
    def __init__(self, batch: Any, left: int) -> None:
        self._batch, self._left = batch, left

    def put(self, key: bytes, value: bytes) -> None:
        if not self._left:
            raise PLYVEL.IOError(b"IO error: half way")
        self._left -= 1
        self._batch.put(key, value)


class _RecordsBatches(Proxy):
    def __init__(self, db: Any, asked: list[dict[str, object]]) -> None:
        super().__init__(db)
        self._asked = asked

    def write_batch(self, **options: Any) -> Any:
        self._asked.append(options)
        return self._db.write_batch(**options)


class TestBitRot:
    """Trap 3: LevelDB hands out rotten bytes unless every read asks for checksums."""

    @pytest.fixture
    def table(self, backend: LevelDBBackend) -> Path:
        """A closed store of 9 entries, all of it in one table file."""
        store = backend.create(META)
        Growth().commit(store, 9)
        store.publish(checkpoint_of(9), keep=True)
        store._db.compact_range()
        store.close()
        backend.lock.release()
        return only_file(backend.directory, "*.ldb")

    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("position", [0, 7, 100, 300])
    def test_every_kind_of_read_finds_a_flipped_bit(
        self, backend: LevelDBBackend, table: Path, read: str, position: int
    ) -> None:
        flip(table, position)
        db = leveldb.open_db(backend.directory / "log", create=False)  # as LevelDBStore.open, which reads `meta` and sees it
        lock = DirectoryLock(backend.directory)
        lock.enter()
        store = LevelDBStore(db, META, lock)
        with pytest.raises(CorruptionError) as caught:
            READS[read](store)
        assert "LevelDB" in caught.value.detail
        assert caught.value.hint
        store.close()
        lock.release()

    def test_opening_reads_and_so_finds_it_too(self, backend: LevelDBBackend, table: Path) -> None:
        flip(table, 100)
        for _ in range(2):
            with pytest.raises(CorruptionError), opened(backend.directory):
                pass

    def test_a_flip_anywhere_in_the_file_gives_the_right_answer_or_an_error(self, backend: LevelDBBackend, table: Path) -> None:
        pristine = backend.directory.parent / "pristine"
        shutil.copytree(backend.directory, pristine)
        with opened(backend.directory) as store:
            right = {read: READS[read](store) for read in READS}
        refused, positions = 0, range(0, table.stat().st_size, 7)
        for position in positions:
            copy = backend.directory.parent / "flipped"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(pristine, copy)
            flip(copy / "log" / table.name, position, position % 8)
            refused += self._reads_rightly_or_refuses(copy, right)
        assert refused > len(positions) / 2

    def _reads_rightly_or_refuses(self, directory: Path, right: dict[str, object]) -> bool:
        """Whether anything was refused."""
        try:
            with opened(directory) as store:
                found = {read: _result(partial(READS[read], store)) for read in READS}
        except CorruptionError:
            return True
        assert all(result in (right[read], CorruptionError) for read, result in found.items())
        return CorruptionError in found.values()


def _result(call: Callable[[], object]) -> object:
    """What it returns, or the type of our error."""
    try:
        return call()
    except TranslogError as error:
        return type(error)


class TestDamagedLog:
    """Trap 4: a damaged write-ahead log opens as an older store, without a word."""

    SIZES = (0, 1, 3, 6, 10, 15)

    @pytest.fixture
    def crashed(self, backend: LevelDBBackend) -> Path:
        """The directory of a store that crashed after commits to each of SIZES: all of it is in the write-ahead log."""
        store, growth = backend.create(META), Growth()
        for count in range(1, 6):
            growth.commit(store, count)
        backend.crash(store)
        backend.lock.release()
        return backend.directory

    def variants(self, crashed: Path, change: Callable[[Path, int], None], positions: range) -> Iterator[tuple[int, Path]]:
        for position in positions:
            copy = crashed.parent / "variant"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(crashed, copy)
            change(only_file(copy, "*.log"), position)
            yield position, copy

    def test_one_flipped_bit_is_refused(self, crashed: Path) -> None:
        length = only_file(crashed, "*.log").stat().st_size
        for position, copy in self.variants(crashed, flip, range(0, length, 29)):
            with pytest.raises(CorruptionError) as caught, opened(copy):
                pytest.fail(f"opened with a flipped bit at {position} of {length}")
            assert caught.value.hint

    def test_a_cut_tail_opens_as_an_older_store_that_is_whole(self, crashed: Path) -> None:
        length = only_file(crashed, "*.log").stat().st_size
        seen = set()
        for _, copy in self.variants(crashed, os.truncate, range(length, 0, -31)):
            try:
                with opened(copy) as store:
                    size = store.read_state().size
                    seen.add(size)
                    growth = Growth()
                    for count in range(1, 6):
                        if growth.edge.size < size:
                            growth.accept(growth.next(count))
                    growth.check(store)
            except CorruptionError as error:  # cut inside the very first batch: no `meta`
                assert "holds no log" in error.detail  # noqa: PT017  the other outcome
        assert seen == set(self.SIZES)

    @pytest.mark.parametrize("tail", [b"\x01" * 40, b"\xff" * 40, bytes(40), bytes(6) + b"\x01" + b"x" * 40])
    def test_a_garbage_tail_is_refused_or_loses_nothing(self, crashed: Path, tail: bytes) -> None:
        path = only_file(crashed, "*.log")
        path.write_bytes(path.read_bytes() + tail)
        assert _result(lambda: self._size(crashed)) in (CorruptionError, self.SIZES[-1])

    def _size(self, directory: Path) -> int:
        with opened(directory) as store:
            return store.read_state().size


class TestCreateAndOpen:
    def test_create_refuses_to_run_twice_and_leaves_the_first_alone(self, backend: LevelDBBackend) -> None:
        store, growth = backend.create(META), Growth()
        growth.commit(store, 5)
        for _ in range(2):
            with pytest.raises(SettingsError) as caught:
                LevelDBStore.create(backend.lock, META)
            assert caught.value.code == "log-exists"
            store.close()
        growth.check(backend.open())

    @pytest.mark.parametrize("there", ["file", "empty directory"])
    def test_create_refuses_whatever_is_there(self, backend: LevelDBBackend, there: str) -> None:
        path = backend.directory / "log"
        path.write_bytes(b"") if there == "file" else path.mkdir()
        with pytest.raises(SettingsError):
            backend.create(META)

    def test_a_new_store_is_durable(self, backend: LevelDBBackend) -> None:
        backend.crash(backend.create(META))
        store = backend.open()
        assert store.meta == META
        Growth().check(store)

    def test_create_that_fails_leaves_nothing_behind(self, backend: LevelDBBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        real = PLYVEL.DB
        with monkeypatch.context() as patched:
            patched.setattr(PLYVEL, "DB", lambda *args, **options: _PutsFail(real(*args, **options), after=1))
            with pytest.raises(StorageError):
                backend.create(META)
        Growth().check(backend.create(META))

    def test_of_another_format_version_says_so(self, backend: LevelDBBackend) -> None:
        backend.create(META).close()
        with backend.raw() as db:
            db.put(keyspace.META, db.get(keyspace.META).replace(b'"format":1', b'"format":2'))
        for _ in range(2):
            with pytest.raises(SettingsError) as caught:
                backend.open()
            assert caught.value.code == "store-version"

    @pytest.mark.parametrize("value", [None, b"", b"{}"])
    def test_without_its_description_is_damaged(self, backend: LevelDBBackend, value: bytes | None) -> None:
        backend.create(META).close()
        with backend.raw() as db:
            db.delete(keyspace.META) if value is None else db.put(keyspace.META, value)
        with pytest.raises(CorruptionError, match="meta"):
            backend.open()

    @pytest.mark.parametrize("value", [None, b"", bytes(47)])
    def test_without_its_tree_state_is_damaged(self, backend: LevelDBBackend, value: bytes | None) -> None:
        backend.create(META).close()
        with backend.raw() as db:
            db.delete(keyspace.STATE) if value is None else db.put(keyspace.STATE, value)
        store = backend.open()
        for call in (store.read_state, lambda: store.read_entries(start=0, end=1)):
            with pytest.raises(CorruptionError, match="state"):
                call()

    def test_with_a_damaged_latest_checkpoint_is_damaged(self, backend: LevelDBBackend) -> None:
        backend.create(META).close()
        with backend.raw() as db:
            db.put(keyspace.LATEST, b"short")
        with pytest.raises(CorruptionError, match="latest"):
            backend.open().read_checkpoint()

    @pytest.mark.parametrize("there", ["nothing", "empty directory", "file"])
    def test_where_there_is_no_store_says_so(self, backend: LevelDBBackend, there: str) -> None:
        path = backend.directory / "log"
        if there != "nothing":
            path.write_bytes(b"") if there == "file" else path.mkdir()
        with pytest.raises(SettingsError) as caught:
            backend.open()
        assert caught.value.code == "no-store"
        assert caught.value.hint

    @pytest.mark.parametrize(
        ("pattern", "error"),
        [("CURRENT", SettingsError), ("MANIFEST-*", TranslogError), ("*.ldb", CorruptionError)],
    )
    def test_half_deleted_is_an_error_of_ours(self, backend: LevelDBBackend, pattern: str, error: type[TranslogError]) -> None:
        store = backend.create(META)
        Growth().commit(store, 5)
        store._db.compact_range()
        store.close()
        path = only_file(backend.directory, pattern)
        before = {file.name for file in path.parent.iterdir()} - {path.name}
        path.unlink()
        with pytest.raises(error) as caught:
            backend.open()
        assert caught.value.hint
        assert before - {"LOG", "LOG.old"} <= {file.name for file in path.parent.iterdir()}, "it made things worse"

    @pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*", "*.ldb"])
    @pytest.mark.parametrize("content", [b"", b"\n", b"nothing that LevelDB wrote\n", b"MANIFEST-999999\n", b"\xff" * 5_000])
    def test_overwritten_files_are_an_error_of_ours(self, backend: LevelDBBackend, pattern: str, content: bytes) -> None:
        store = backend.create(META)
        Growth().commit(store, 5)
        store._db.compact_range()
        store.close()
        only_file(backend.directory, pattern).write_bytes(content)
        with pytest.raises((StorageError, CorruptionError)):
            backend.open()

    def test_errors_of_leveldb_without_a_message_are_told_all_the_same(self) -> None:
        with pytest.raises(StorageError, match="cannot"), leveldb.wrapped("cannot"):
            raise PLYVEL.Error
        with pytest.raises(StorageError, match="quota"), leveldb.wrapped("cannot"):
            raise OSError("quota")


class TestGate:
    def test_readers_that_come_while_closing_are_refused(self, backend: LevelDBBackend) -> None:
        gate = leveldb._Gate()
        with gate.entered():
            gate._closed = True  # as `close` sets it before it waits
            with pytest.raises(StorageError), gate.entered():
                pass
        assert gate._inside == 0


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """As root nothing is forbidden, so be nobody for a while."""
    if AS_ROOT:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if AS_ROOT:
            os.seteuid(0)


class TestNoRights:
    @pytest.fixture
    def home(self) -> Iterator[Path]:
        """A directory that others can reach. It holds a store of 5 entries."""
        with tempfile.TemporaryDirectory(prefix="translog-test-") as name:
            home = Path(name)
            home.chmod(0o755)
            with DirectoryLock(home) as lock:
                store = LevelDBStore.create(lock, META)
                Growth().commit(store, 5)
                store.close()
            yield home
            home.chmod(0o755)
            (home / "log").chmod(0o755)

    def check_unharmed(self, home: Path) -> None:
        growth = Growth()
        growth.accept(growth.next(5))
        with opened(home) as store:
            growth.check(store)

    def test_a_directory_that_is_read_only_is_a_storage_error(self, home: Path) -> None:
        home.chmod(0o555)
        (home / "lock").chmod(0o444)
        with without_rights(), pytest.raises(StorageError) as caught:
            DirectoryLock(home)
        assert caught.value.hint
        (home / "lock").chmod(0o600)
        self.check_unharmed(home)

    @pytest.mark.parametrize("mode", [0o555, 0o000, 0o444])
    def test_a_store_that_is_read_only_or_shut_is_a_storage_error(self, home: Path, mode: int) -> None:
        (home / "lock").chmod(0o666)
        for path in (home / "log").iterdir():
            path.chmod(0o444)
        (home / "log").chmod(mode)
        with without_rights(), pytest.raises(StorageError) as caught, opened(home):
            pass
        assert caught.value.hint
        (home / "log").chmod(0o755)
        for path in (home / "log").iterdir():
            path.chmod(0o644)
        self.check_unharmed(home)

    def test_no_store_can_be_created_in_a_read_only_directory(self, home: Path) -> None:
        shutil.rmtree(home / "log")
        (home / "lock").chmod(0o666)
        home.chmod(0o555)
        with without_rights(), pytest.raises(StorageError), DirectoryLock(home) as lock:
            LevelDBStore.create(lock, META)
        home.chmod(0o755)
        with DirectoryLock(home) as lock:
            LevelDBStore.create(lock, META).close()
        (home / "log").chmod(0o755)


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 2 MB."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = shutil.which("mount")
        command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
        if mount is None or not AS_ROOT or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small tmpfs takes root and a file system namespace that allows it")
        try:
            yield disk
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def fill(self, disk: Path, *, leave: int) -> Path:
        """A file that takes all space but `leave` bytes."""
        ballast = disk / "ballast"
        free = os.statvfs(disk)
        with contextlib.suppress(OSError):
            ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - leave))
        return ballast

    def test_a_commit_that_does_not_fit_fails_whole_and_space_mends_it(self, small_disk: Path) -> None:
        growth = Growth()
        with DirectoryLock(small_disk) as lock:
            store = LevelDBStore.create(lock, META)
            ballast = self.fill(small_disk, leave=400_000)
            with pytest.raises(StorageError) as caught:
                self.commit_until_it_fails(store, growth)
            assert "full" in caught.value.hint
            assert growth.edge.size >= 4
            with pytest.raises(StorageError, match="since one failed"):
                store.commit(growth.next(1))
            growth.check(store)
            store.close()
            with pytest.raises(StorageError):  # coming up, LevelDB writes what its log holds into a table
                self.use(LevelDBStore.open(lock))
            ballast.unlink()
            store = LevelDBStore.open(lock)
            growth.check(store)
            growth.commit(store, 10)
            growth.check(store)
            store.close()

    def commit_until_it_fails(self, store: LevelDBStore, growth: Growth) -> None:
        for _ in range(100):
            growth.commit(store, 1, entries=[os.urandom(50_000)])

    def use(self, store: LevelDBStore) -> None:
        """Where it opened after all, writing fails."""
        try:
            Growth().check(store)
            store.commit(Growth().next(1, entries=[os.urandom(60_000)] * 20))
        finally:
            store.close()

    def test_create_fails_whole_and_space_mends_it(self, small_disk: Path) -> None:
        with DirectoryLock(small_disk) as lock:
            ballast = self.fill(small_disk, leave=0)
            with pytest.raises(StorageError) as caught:
                LevelDBStore.create(lock, META)
            assert caught.value.hint
            ballast.unlink()
            store = LevelDBStore.create(lock, META)
            Growth().check(store)
            store.close()


KILLED = """
import sys
from pathlib import Path
from storage.growth import META, Growth
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock

store, growth = LevelDBStore.create(DirectoryLock(Path(sys.argv[1])), META), Growth()
while True:
    growth.commit(store, 1 + growth.edge.size % 7)
    print(growth.edge.size, flush=True)
"""


@pytest.mark.parametrize("commits", [1, 20, 100])
def test_every_acknowledged_commit_survives_sigkill(tmp_path: Path, commits: int) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for _ in range(commits):
            process.stdout.readline()
        process.kill()
        rest = [line for line in process.stdout if line.endswith("\n")]
    with opened(tmp_path) as store:
        size = store.read_state().size
        growth = Growth()
        acknowledged = 0
        while growth.edge.size < size:
            growth.accept(growth.next(1 + growth.edge.size % 7))
            acknowledged += 1
        growth.check(store)
        assert acknowledged >= commits + len(rest)
        assert store.read_entries(start=size - 1, end=size) == [entry_of(size - 1)]
        with pytest.raises(NotFoundError):
            store.read_entries(start=size, end=size + 1)
