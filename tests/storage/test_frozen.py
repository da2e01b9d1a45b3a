"""FrozenStore: a store read past its damage, and never written to."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.made_store import META, Made, digests, entries_of, entry_at, make_store, root_of

from storage.backends import PLYVEL
from storage.test_lock import first_line, read_only, start_other
from translog.core.tile import Bundle, Tile
from translog.errors import SettingsError, StorageError, TranslogError
from translog.log.fsck import Report
from translog.maintenance import check_log
from translog.storage import frozen, keyspace
from translog.storage.frozen import FrozenStore, freeze
from translog.storage.lock import DirectoryLock
from translog.storage.source import Damage
from translog.storage.store import StoredCheckpoint

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where work files go."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@contextmanager
def opened(made: Made, work: Path, *, damages: int = 0) -> Iterator[FrozenStore]:
    """The store as fsck reads it."""
    target = work / "frozen" / "log"
    assert len(freeze(made.store, target)) == damages
    store = FrozenStore(target)
    try:
        yield store
    finally:
        store.close()
        shutil.rmtree(target.parent)


@contextmanager
def raw(made: Made) -> Iterator[object]:
    """The database, without any of our care."""
    db = PLYVEL.DB(str(made.store))
    try:
        yield db
    finally:
        db.close()


def put(made: Made, key: bytes, value: bytes | None) -> None:
    with raw(made) as db:
        if value is None:
            db.delete(key)  # type: ignore[attr-defined]
        else:
            db.put(key, value)  # type: ignore[attr-defined]


def fsck(made: Made) -> Report:
    return check_log(str(made.directory), policy=None, token=None, processes=1, progress=lambda done, total: None)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("form", ["wal", "tables", "mixed"])
def test_it_reads_what_the_log_wrote(form: str, tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [200, 100, 3], form=form)
    with opened(made, work) as store:
        contents = store.contents()
        assert contents.damages == []
        assert contents.meta == META
        assert contents.state is not None
        assert (contents.state.size, contents.state.root) == (303, root_of(entries_of(303)))
        kept = list(store.checkpoints())
        assert [item.size for item in kept if isinstance(item, StoredCheckpoint)] == [0, 200, 300, 303]
        assert contents.latest == kept[-1]
        assert list(store.checkpoints(size_min=201)) == kept[2:]
        assert list(store.checkpoints(size_min=304)) == []
        reads = list(store.bundles([Bundle(index=0), Bundle(index=1, width=47)]))
        assert [(list(read.entries), read.problem) for read in reads] == [
            (entries_of(256), ""),
            (entries_of(303)[256:], ""),
        ]
        tiles = [Tile(level=0, index=0), Tile(level=0, index=1, width=47), Tile(level=1, index=0, width=1)]
        assert [len(data) for data in store.tiles(tiles) if isinstance(data, bytes)] == [8_192, 47 * 32, 32]
        assert list(store.strays(size=303)) == []
        assert store.resource_of_entries == "entry"


def test_bundles_and_tiles_may_be_asked_for_in_any_order_and_again(tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [1_000])
    asked = [Bundle(index=3, width=232), Bundle(index=0), Bundle(index=1), Bundle(index=0), Bundle(index=2)]
    with opened(made, work) as store:
        for bundle, read in zip(asked, store.bundles(asked), strict=True):
            first = bundle.index * 256
            assert list(read.entries) == entries_of(1_000)[first : first + bundle.width]
        tiles = [Tile(level=0, index=n) for n in (2, 0, 1, 2)]
        data = list(store.tiles(tiles))
        assert data[0] == data[3] != data[1]


def test_a_tile_that_is_missing_is_not_confused_with_the_next(tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [1_000])
    put(made, keyspace.tile_key(0, 1), None)
    with opened(made, work) as store:
        data = list(store.tiles([Tile(level=0, index=n) for n in range(3)]))
    assert [isinstance(item, bytes) for item in data] == [True, False, True]
    assert data[1] == Damage(resource="tile/0/001", problem="is missing")
    assert [damage.resource for damage in fsck(made).damages] == ["tile/0/001"]


class TestDamagedBlocks:
    """A damaged block hides its rows, and no other."""

    @pytest.fixture
    def made(self, tmp_path: Path) -> Made:
        return make_store(tmp_path / "log", [900, 100], entry=lambda index: entry_at(index) + os.urandom(50))

    def test_what_is_in_the_block_cannot_be_read_and_all_around_it_can(self, made: Made, work: Path) -> None:
        flip(made.table(), made.table().stat().st_size // 3)
        with opened(made, work) as store:
            reads = list(store.bundles([Bundle(index=0), Bundle(index=1), Bundle(index=2), Bundle(index=3, width=232)]))
            lost = [n for n, entry in enumerate(entry for read in reads for entry in read.entries) if entry is None]
            assert 10 < len(lost) < 200
            assert lost == list(range(lost[0], lost[-1] + 1))
            for read in reads:
                assert read.problem == ("cannot be read: a block of the store is damaged" if None in read.entries else "")
            assert store.contents().damages == []
            assert list(store.strays(size=1_000)) == []

    def test_what_is_missing_is_told_from_what_cannot_be_read(self, made: Made, work: Path) -> None:
        put(made, keyspace.entry_key(999), None)
        put(made, keyspace.tile_key(1, 0), None)
        put(made, keyspace.LATEST, None)
        with opened(made, work) as store:
            (read,) = store.bundles([Bundle(index=3, width=232)])
            assert (read.entries.index(None), read.problem) == (231, "is missing")
            assert list(store.tiles([Tile(level=1, index=0, width=3)])) == [
                Damage(resource="tile/1/000.p/3", problem="is missing")
            ]
            contents = store.contents()
            assert (contents.latest, list(contents.damages)) == (
                None,
                [Damage(resource="key 'latest'", problem="is missing")],
            )

    def test_a_damaged_index_of_a_table_hides_all_of_it(self, made: Made, work: Path) -> None:
        flip(made.table(), made.table().stat().st_size - 60)
        with opened(made, work) as store:
            contents = store.contents()
            assert (contents.meta, contents.state, contents.latest) == (None, None, None)
            assert [damage.resource for damage in contents.damages] == ["key 'meta'", "key 'state'", "key 'latest'"]
            (read,) = store.bundles([Bundle(index=0)])
            assert set(read.entries) == {None}
            assert [damage.problem for damage in store.checkpoints() if isinstance(damage, Damage)] == [
                "some cannot be read: a block of the store is damaged"
            ]

    def test_an_older_value_is_not_taken_for_the_newest(self, tmp_path: Path, work: Path) -> None:
        """The newest `latest` and `state` are in a damaged block, older ones in another table."""
        made = make_store(tmp_path / "other", [3, 2, 1], form="mixed")
        with opened(made, work) as store:
            assert store.contents().state is not None
        newest = made.table_paths()[-1]
        made.wal().write_bytes(b"")
        flip(newest, 0)
        with opened(made, work) as store:
            contents = store.contents()
            assert (contents.state, contents.latest) == (None, None)
            assert {damage.resource for damage in contents.damages} >= {"key 'state'", "key 'latest'"}


STRAYS = {
    "before everything": (b"\x00", "key 00"),
    "no prefix of ours": (b"a thing", "key " + b"a thing".hex()),
    "a payload in an opaque log": (b"p" + bytes(8), "payload 0"),
    "a short checkpoint": (b"c12", "key 633132"),
    "a long checkpoint": (keyspace.kept_checkpoint_key(5) + b"x", "key " + (keyspace.kept_checkpoint_key(5) + b"x").hex()),
    "a checkpoint after all": (b"d", "key 64"),
    "a bare e": (b"e", "key 65"),
    "the next entry": (keyspace.entry_key(300), "entry 300"),
    "the last entry": (keyspace.entry_key((1 << 64) - 1), f"entry {(1 << 64) - 1}"),
    "beside the last entry": (keyspace.entry_key(299) + b"x", "key " + (keyspace.entry_key(299) + b"x").hex()),
    "a word": (b"latest!", "key " + b"latest!".hex()),
    "another word": (b"metal", "key " + b"metal".hex()),
    "a bare t": (b"t", "key 74"),
    "a short tile": (b"t\x00\x00", "key 740000"),
    "the next tile": (keyspace.tile_key(0, 2), "tile/0/002"),
    "the next upper tile": (keyspace.tile_key(1, 1), "tile/1/001"),
    "a tile of a level above": (keyspace.tile_key(2, 0), "tile/2/000"),
    "a tile of no level": (b"t\x3f" + bytes(8), "key " + (b"t\x3f" + bytes(8)).hex()),
    "behind the tiles": (b"u", "key 75"),
    "behind everything": (b"\xff" * 40, "key " + "ff" * 40),
    "beside an entry": (keyspace.entry_key(7) + b"x", "tile/entries/000"),
    "beside the last entry of a bundle": (keyspace.entry_key(255) + b"x", "tile/entries/001.p/44"),
}


@pytest.mark.parametrize(("key", "name"), STRAYS.values(), ids=STRAYS)
def test_what_should_not_be_there_is_named_and_nothing_else(key: bytes, name: str, tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [300])
    assert fsck(made).whole
    put(made, key, b"value")
    report = fsck(made)
    assert [damage.resource for damage in report.damages] == [name]


def test_what_is_beyond_a_smaller_tree_is_a_stray(tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [300])
    with opened(made, work) as store:
        strays = [damage.resource for damage in store.strays(size=255)]
        assert strays == [*(f"entry {n}" for n in range(255, 300)), "tile/0/001", "tile/1/000"]
        assert len(list(store.strays(size=0))) == 303


@pytest.mark.parametrize(
    ("key", "value", "resource"),
    [
        (keyspace.META, b"{}", "key 'meta'"),
        (keyspace.META, b"\xff", "key 'meta'"),
        (keyspace.STATE, b"short", "key 'state'"),
        (keyspace.LATEST, b"short", "key 'latest'"),
        (keyspace.STATE, None, "key 'state'"),
        (keyspace.META, None, "key 'meta'"),
    ],
)
def test_a_key_with_another_value_is_named(key: bytes, value: bytes | None, resource: str, tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [3])
    put(made, key, value)
    assert [damage.resource for damage in fsck(made).damages] == [resource]


def test_a_store_of_another_version_is_refused(tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [3])
    put(made, keyspace.META, b'{"format":99,"origin":"x","profile":"opaque","minimum_index":0}')
    with pytest.raises(SettingsError) as caught:
        fsck(made)
    assert caught.value.code == "store-version"
    assert not list(work.iterdir())


def test_an_empty_log_is_whole(tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [])
    report = fsck(made)
    assert (report.whole, report.size, report.good) == (
        True,
        0,
        {"signatures": 1, "entries": 0, "tiles": 0, "checkpoints": 1, "tree heads": 3},
    )


class TestTheOriginal:
    """Nothing is written to it, and nothing is left behind."""

    @pytest.mark.parametrize("form", ["wal", "tables", "mixed"])
    def test_stays_as_it_is(self, form: str, tmp_path: Path, work: Path) -> None:
        made = make_store(tmp_path / "log", [300, 2], form=form)
        before = digests(made.directory)
        for _ in range(2):
            with opened(made, work) as store:
                list(store.bundles([Bundle(index=0)]))
        assert digests(made.directory) == before
        assert not list(work.iterdir())

    def test_a_table_is_never_written_through_its_link(self, tmp_path: Path, work: Path) -> None:
        """LevelDB gives a new table the number of an old one where the MANIFEST forgot that one."""
        made = make_store(tmp_path / "log", [3, 2, 1], form="mixed")
        (manifest,) = made.store.glob("MANIFEST-*")
        data = bytearray(manifest.read_bytes())
        length = 7 + int.from_bytes(data[4:6], "little")
        data[length + 5] = 0xFF  # the second record now leads beyond the end, and is taken for one that a crash cut short
        manifest.write_bytes(data)
        before = digests(made.directory)
        assert not fsck(made).whole
        assert digests(made.directory) == before

    def test_tables_are_links_and_not_copies(self, tmp_path: Path, work: Path) -> None:
        made = make_store(tmp_path / "log", [300])
        assert freeze(made.store, work / "frozen") == []
        links = [path for path in (work / "frozen").iterdir() if path.is_symlink()]
        assert [link.resolve() for link in links] == [made.table()]

    def test_a_view_that_cannot_be_opened_leaves_nothing_behind(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = make_store(tmp_path / "log", [3])

        def fail(path: Path, *, create: bool) -> None:
            raise StorageError("the disk is full")

        monkeypatch.setattr(frozen, "open_db", fail)
        with pytest.raises(StorageError):
            fsck(made)
        assert not list(work.iterdir())
        DirectoryLock(made.directory).release()

    def test_no_room_for_the_copies_is_a_storage_error(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = make_store(tmp_path / "log", [3], form="wal")

        def fail(source: object, target: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(shutil, "copyfile", fail)
        with pytest.raises(StorageError, match="No space left"):
            fsck(made)
        assert not list(work.iterdir())

    def test_closing_twice_is_fine(self, tmp_path: Path, work: Path) -> None:
        made = make_store(tmp_path / "log", [3])
        freeze(made.store, work / "frozen")
        store = FrozenStore(work / "frozen")
        store.close()
        store.close()
        assert {path.name for path in work.iterdir()} == {"frozen"}

    def test_two_views_at_once_do_not_disturb_each_other(self, tmp_path: Path, work: Path) -> None:
        made = make_store(tmp_path / "log", [300])
        freeze(made.store, work / "frozen")
        one, other = FrozenStore(work / "frozen"), FrozenStore(work / "frozen")
        one.close()
        assert len(next(iter(other.bundles([Bundle(index=0)]))).entries) == 256
        other.close()


@pytest.mark.parametrize("name", ["x.ldb", "000099.sst", "lost", "notes.txt"])
def test_files_that_leveldb_does_not_know_do_no_harm(name: str, tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [3])
    (made.store / name).write_bytes(b"whatever")
    (made.store / "directory").mkdir()
    assert fsck(made).whole


def test_of_two_tables_of_one_number_the_right_one_is_read(tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [3])
    made.table().with_suffix(".sst").write_bytes(b"an impostor")
    assert fsck(made).whole
    old = make_store(tmp_path / "old", [3])
    old.table().rename(old.table().with_suffix(".sst"))
    assert fsck(old).whole


class TestInUse:
    def test_a_log_that_runs_here_or_elsewhere_is_not_looked_at(self, tmp_path: Path, work: Path) -> None:
        made = make_store(tmp_path / "log", [3])
        with DirectoryLock(made.directory), pytest.raises(SettingsError) as caught:
            fsck(made)
        assert caught.value.code == "directory-in-use"
        with start_other(made.directory) as process:
            assert first_line(process) == "held"
            with pytest.raises(SettingsError) as caught:
                fsck(made)
            process.communicate("")
        assert caught.value.code == "directory-in-use"
        assert not list(work.iterdir())
        assert fsck(made).whole

    def test_nobody_can_start_the_log_while_it_is_looked_at(
        self, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = make_store(tmp_path / "log", [3])
        refused: list[str] = []
        contents = FrozenStore.contents

        def look(self: FrozenStore) -> object:
            try:
                DirectoryLock(made.directory)
            except TranslogError as error:
                refused.append(error.code)
            return contents(self)

        monkeypatch.setattr(FrozenStore, "contents", look)
        fsck(made)
        assert refused == ["directory-in-use"]


@pytest.mark.skipif(not AS_ROOT, reason="needs root, to mount")
def test_a_log_on_a_read_only_mount_is_checked(tmp_path: Path, work: Path) -> None:
    made = make_store(tmp_path / "log", [300])
    DirectoryLock(made.directory).release()
    with read_only(made.directory):
        assert fsck(made).whole


def test_want_of_room_is_no_damage(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the write-ahead log would be dropped by the repair, and a whole log pass for an older one."""
    made = make_store(tmp_path / "log", [3])

    def no_room(path: Path, *, create: bool) -> None:
        raise StorageError(f"cannot open the store {path}: IO error: No space left on device")

    monkeypatch.setattr(frozen, "open_db", no_room)
    with pytest.raises(StorageError) as caught:
        freeze(made.store, work / "frozen" / "log")
    assert "TMPDIR" in caught.value.hint
