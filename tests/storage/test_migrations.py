"""A store of an older format version: refused with the command that migrates it, migrated by that, from any point of a
migration that was interrupted. Migrations here are made up: there is one format version so far."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from cli.harness import require_plain, run

from storage.backends import PLYVEL, Proxy
from storage.growth import META, Growth, checkpoint_of
from translog.bootstrap import create_log
from translog.errors import CorruptionError, SettingsError, StorageError, TranslogError
from translog.storage import keyspace, migrations
from translog.storage.leveldb import LevelDBStore, open_db
from translog.storage.lock import DirectoryLock
from translog.storage.migrations import MIGRATIONS, Changes, Migration, Rows, upgrade_store
from translog.storage.store import Profile

ENTRIES = 2_500
HINT = "keep a copy of DIR, then run `translog upgrade DIR`"


def _rename_entries(rows: Rows) -> Changes:
    """Entries get another prefix and one byte more; kept checkpoints go; there is a row for each entry more."""
    for key, value in rows:
        if key[:1] == b"e" and len(key) == 9:
            yield b"E" + key[1:], b"2" + value
            yield b"n" + key[1:], bytes([len(value)])
            yield key, None
        elif key[:1] == b"c":
            yield key, None


def _shorten_entries(rows: Rows) -> Changes:
    for key, value in rows:
        if key[:1] == b"E":
            yield key, value[:2]
    yield b"z", b"three"


STEPS: Mapping[int, Migration] = {
    1: Migration(summary="entries have another prefix", changes=_rename_entries),
    2: Migration(summary="entries are short", changes=_shorten_entries),
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A log's directory, its store full."""
    path = tmp_path / "log"
    create_log(path, origin="log.example/old", profile=Profile.OPAQUE)
    with DirectoryLock(path) as lock:
        store = LevelDBStore.open(lock)
        Growth().commit(store, ENTRIES)
        for size in (0, 700, ENTRIES):
            store.publish(checkpoint_of(size), keep=True)
        store.close()
    return path


def rows_of(directory: Path) -> dict[bytes, bytes]:
    with PLYVEL.DB(str(directory / "log")) as db:
        return dict(db.iterator())


def write_meta(directory: Path, meta: bytes | None) -> None:
    with PLYVEL.DB(str(directory / "log")) as db:
        if meta is None:
            db.delete(keyspace.META)
        else:
            db.put(keyspace.META, meta)


def upgrade(directory: Path, *, steps: Mapping[int, Migration] = STEPS, version: int = 2) -> list[str]:
    with DirectoryLock(directory) as lock:
        return upgrade_store(lock, migrations=steps, version=version)


def expected_rows(before: Mapping[bytes, bytes], version: int) -> dict[bytes, bytes]:
    """What the rows become, written down the other way round."""
    meta = before[b"meta"].replace(b'"format":1', b'"format":%d' % version)
    expected = {key: value for key, value in before.items() if key[:1] not in (b"e", b"c")} | {b"meta": meta}
    for key, value in before.items():
        if key[:1] == b"e":
            expected[b"E" + key[1:]] = (b"2" + value)[: 2 if version == 3 else None]
            expected[b"n" + key[1:]] = bytes([len(value)])
    return expected | ({b"z": b"three"} if version == 3 else {})


@pytest.mark.parametrize(("version", "taken"), [(1, 0), (2, 1), (3, 2)])
def test_a_store_is_migrated_step_by_step(directory: Path, version: int, taken: int) -> None:
    before = rows_of(directory)
    assert upgrade(directory, version=version) == [step.summary for step in STEPS.values()][:taken]
    assert rows_of(directory) == (expected_rows(before, version) if taken else before)
    assert upgrade(directory, version=version) == []
    if version == 2:
        assert upgrade(directory, version=3) == ["entries are short"]
        assert rows_of(directory) == expected_rows(before, 3)


def test_there_are_more_rows_than_fit_one_batch(directory: Path) -> None:
    assert len(rows_of(directory)) > 2 * migrations._BATCH_ROWS


class FailingBatches(Proxy):
    """A database whose k-th batch fails: not written, or written."""

    def __init__(self, db: object, left: list[int], *, applied: bool) -> None:
        super().__init__(db)
        self._left = left
        self._applied = applied

    @contextmanager
    def write_batch(self, **options: object) -> Iterator[object]:
        assert options == {"transaction": True, "sync": True}
        self._left[0] -= 1
        if self._left[0] >= 0:
            with self._db.write_batch(**options) as batch:
                yield batch
            return
        batch = self._db.write_batch(**options)
        yield batch
        if self._applied:
            batch.write()
        raise PLYVEL.IOError(b"IO error: the disk went away")


@pytest.mark.parametrize("applied", [False, True])
def test_a_migration_interrupted_at_any_batch_is_run_again_from_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch, applied: bool
) -> None:
    before = rows_of(directory)
    reached = []
    for batches in count():
        copy = directory.with_name(f"copy-{batches}")
        shutil.copytree(directory, copy)
        left = [batches]
        with monkeypatch.context() as patched:
            patched.setattr(migrations, "open_db", partial(_open_failing, left, applied))
            failed = _fails(copy)
        reached.append(keyspace.meta_version(rows_of(copy)[b"meta"]))
        assert upgrade(copy, version=3) == [STEPS[version].summary for version in range(reached[-1], 3)]
        assert rows_of(copy) == expected_rows(before, 3)
        if not failed:
            break
    batches_of_rows = [-(-(3 * ENTRIES + 3) // 1_000), -(-(ENTRIES + 1) // 1_000)]
    assert len(reached) == sum(batches_of_rows) + 2 + 1
    assert set(reached) == {1, 2, 3}


def _open_failing(left: list[int], applied: bool, path: Path, *, create: bool) -> FailingBatches:
    return FailingBatches(open_db(path, create=create), left, applied=applied)


def _fails(directory: Path) -> bool:
    try:
        upgrade(directory, version=3)
    except StorageError as error:
        return "cannot migrate" in error.detail
    return False


def test_a_migration_that_raises_leaves_the_version_and_lets_go(directory: Path) -> None:
    def changes(rows: Rows) -> Changes:
        for number, (key, value) in enumerate(rows):
            if number == 1_500:
                raise CorruptionError("row 1500 is odd")
            yield key, value

    before = rows_of(directory)
    with pytest.raises(CorruptionError, match="row 1500"):
        upgrade(directory, steps={1: Migration(summary="", changes=changes)})
    assert rows_of(directory) == before
    assert upgrade(directory) == ["entries have another prefix"]


def test_a_migration_sees_the_store_as_it_was(directory: Path) -> None:
    """Rows that it writes do not come round again."""

    def changes(rows: Rows) -> Changes:
        for key, value in rows:
            if key[:1] == b"e":
                yield b"e" + key + b"more", value

    before = rows_of(directory)
    upgrade(directory, steps={1: Migration(summary="", changes=changes)})
    assert len(rows_of(directory)) == len(before) + ENTRIES


# --- no way ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 3, 999])
def test_without_a_way_nothing_is_written(directory: Path, version: int) -> None:
    before = rows_of(directory)
    with pytest.raises(SettingsError) as caught:
        upgrade(directory, steps={}, version=version)
    assert caught.value.code == "store-version"
    assert f"has format version 1, and this program knows no way from there to {version}" in caught.value.detail
    assert "the version of translog that wrote it" in caught.value.hint
    assert rows_of(directory) == before


def test_a_newer_store_is_refused_even_where_a_migration_starts_from_it(directory: Path) -> None:
    write_meta(directory, rows_of(directory)[b"meta"].replace(b'"format":1', b'"format":2'))
    before = rows_of(directory)
    with pytest.raises(SettingsError) as caught:
        upgrade(directory, version=1)
    assert caught.value.code == "store-version"
    assert rows_of(directory) == before


def test_a_way_that_ends_halfway_stops_there_and_can_be_gone_on_with(directory: Path) -> None:
    before = rows_of(directory)
    with pytest.raises(SettingsError, match="format version 2, and this program knows no way from there to 3"):
        upgrade(directory, steps={1: STEPS[1]}, version=3)
    assert rows_of(directory) == expected_rows(before, 2)
    assert upgrade(directory, version=3) == ["entries are short"]


@pytest.mark.parametrize(
    "meta",
    [
        None,
        b"",
        b"noise",
        b"{}",
        b"[1]",
        b"5",
        b'{"format":0}',
        b'{"format":-1}',
        b'{"format":"1"}',
        b'{"format":true}',
        b'{"format":1.0}',
        b'{"format":null}',
        b'{"format":1,"format":1}',
        b'{"format": 1}',
        b'{"format":1}\n',
        b"[" * 10_000,
        b"\xff",
    ],
    ids=range(17),
)
def test_a_description_that_is_damaged_is_not_migrated(directory: Path, meta: bytes | None) -> None:
    write_meta(directory, meta)
    before = rows_of(directory)
    with pytest.raises(CorruptionError):
        upgrade(directory)
    assert rows_of(directory) == before


def test_the_version_is_all_that_changes_of_the_description() -> None:
    meta = b'{"format":1,"origin":"log.example/t\xc3\xa4st \\"q\\"","later":[{"x":null}],"profile":"opaque"}'
    changed = keyspace.with_meta_version(meta, 12)
    assert changed == meta.replace(b'"format":1', b'"format":12')
    assert (keyspace.meta_version(meta), keyspace.meta_version(changed)) == (1, 12)
    assert keyspace.meta_version(keyspace.encode_meta(META)) == META.format_version


@pytest.mark.parametrize("what", ["empty", "nowhere", "file"])
def test_what_is_no_log_is_refused_and_left_as_it_is(tmp_path: Path, what: str) -> None:
    path = tmp_path / "what"
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_text("mine")
    result = run("upgrade", path)
    assert require_plain(result, 4)
    assert not path.is_dir() or not any(path.iterdir())


def test_a_log_that_runs_is_not_migrated(directory: Path) -> None:
    with DirectoryLock(directory), pytest.raises(SettingsError) as caught:
        upgrade(directory)
    assert caught.value.code == "directory-in-use"


def test_the_table_has_one_step_for_every_version_before_this_one() -> None:
    assert sorted(MIGRATIONS) == list(range(1, keyspace.FORMAT_VERSION))


# --- what the rest of the program says of an older store ------------------------------------------------------------------


@pytest.fixture
def newer_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """This program is the next version, and can migrate."""
    monkeypatch.setattr(keyspace, "FORMAT_VERSION", 2)
    monkeypatch.setattr("translog.maintenance.upgrade_store", lambda lock: upgrade_store(lock, migrations=STEPS, version=2))


def test_an_older_store_is_refused_with_the_command_that_migrates_it(
    directory: Path, tmp_path: Path, newer_program: None
) -> None:
    before = rows_of(directory)
    with DirectoryLock(directory) as lock, pytest.raises(TranslogError) as caught:
        LevelDBStore.open(lock)
    assert (caught.value.code, caught.value.hint) == ("store-version", HINT)
    for command in (
        ["serve", directory, "--listen", "127.0.0.1:0", "--admin-listen", ""],
        ["fsck", directory],
        ["backup", directory, tmp_path / "out"],
        ["restore", directory, tmp_path / "new"],
        ["resume", directory, "--nothing-newer-was-signed"],
    ):
        lines = require_plain(run(*command), 4)
        assert lines == ["translog: the store has format version 1, this program knows 2", f"  {HINT}"], command
    assert rows_of(directory) == before
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "out").exists()
    assert run("upgrade", directory).out == f"done: entries have another prefix\n{directory} is of this version's format\n"
    assert rows_of(directory) == expected_rows(before, 2)
    assert run("upgrade", directory, "--json").out == '{"ok": true, "steps": []}\n'


def test_a_store_of_this_version_is_left_alone(directory: Path) -> None:
    before = {path.name: path.read_bytes() for path in (directory / "log").iterdir() if path.suffix == ".ldb"}
    rows = rows_of(directory)
    assert run("upgrade", directory).out == f"{directory} is of this version's format already\n"
    assert run("upgrade", directory, "--json").out == '{"ok": true, "steps": []}\n'
    assert rows_of(directory) == rows
    assert {name: (directory / "log" / name).read_bytes() for name in before} == before


def test_a_newer_store_is_refused_by_the_command(directory: Path) -> None:
    write_meta(directory, rows_of(directory)[b"meta"].replace(b'"format":1', b'"format":2'))
    lines = require_plain(run("upgrade", directory), 4)
    assert "has format version 2" in lines[0]
    assert "use the version of translog that wrote it, or a newer one" in lines[1]
