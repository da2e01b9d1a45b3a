"""LeafLookup: first index wins, derived and disposable."""

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from translog.core.merkle import hash_leaf
from translog.errors import StorageError
from translog.index.lookup import LeafLookup

ORIGIN = "log.example"
Open = Callable[..., LeafLookup]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index" / "leaves.sqlite"


@pytest.fixture
def reopen(path: Path) -> Iterator[Open]:
    """Opens the table, closing the one opened before."""
    opened: list[LeafLookup] = []

    def open_lookup(*, origin: str = ORIGIN, size: int = 1_000) -> LeafLookup:
        if opened:
            opened.pop().close()
        opened.append(LeafLookup(path, origin=origin, size=size))
        return opened[-1]

    yield open_lookup
    for lookup in opened:
        lookup.close()


def test_a_new_table_knows_nothing(reopen: Open) -> None:
    lookup = reopen()
    assert lookup.cursor() == 0
    assert lookup.find(hash_leaf(b"a")) is None


def test_entries_are_found_by_leaf_hash(reopen: Open) -> None:
    lookup = reopen()
    lookup.apply(0, [b"a", b"", b"c"])
    lookup.apply(3, [b"d"])
    assert [lookup.find(hash_leaf(entry)) for entry in (b"a", b"", b"c", b"d", b"e")] == [0, 1, 2, 3, None]
    assert lookup.cursor() == 4


def test_the_first_index_wins_within_and_between_steps(reopen: Open) -> None:
    lookup = reopen()
    lookup.apply(0, [b"a", b"b", b"a"])
    lookup.apply(3, [b"b", b"a"])
    assert (lookup.find(hash_leaf(b"a")), lookup.find(hash_leaf(b"b"))) == (0, 1)


def test_it_goes_on_where_it_was(reopen: Open) -> None:
    reopen().apply(0, [b"a", b"b"])
    lookup = reopen(size=2)
    assert lookup.cursor() == 2
    assert lookup.find(hash_leaf(b"b")) == 1


@pytest.mark.parametrize("other", [{"origin": "log.example/other"}, {"size": 1}, {"size": 0}])
def test_a_table_of_another_or_longer_log_is_rebuilt(reopen: Open, other: dict[str, object]) -> None:
    reopen().apply(0, [b"a", b"b"])
    lookup = reopen(**other)
    assert lookup.cursor() == 0
    assert lookup.find(hash_leaf(b"a")) is None
    assert reopen(**other).cursor() == 0


def test_a_deleted_file_is_made_anew(reopen: Open, path: Path) -> None:
    reopen().apply(0, [b"a"])
    reopen().close()
    for file in path.parent.iterdir():
        file.unlink()
    assert reopen().cursor() == 0


def test_a_step_is_taken_whole_or_not_at_all(reopen: Open) -> None:
    lookup = reopen()
    lookup.apply(0, [b"a"])
    lookup._db.execute("CREATE TRIGGER full BEFORE UPDATE ON follower BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(StorageError, match="disk full"):
        lookup.apply(1, [b"b"])
    assert lookup.cursor() == 1
    assert lookup.find(hash_leaf(b"b")) is None
    lookup._db.execute("DROP TRIGGER full")
    lookup.apply(1, [b"b"])
    assert lookup.find(hash_leaf(b"b")) == 1


@pytest.mark.parametrize("damage", [slice(0, 16), slice(0, 4_096), slice(4_096, 12_288)])
def test_a_damaged_file_is_rebuilt(reopen: Open, path: Path, damage: slice) -> None:
    reopen().apply(0, [b"a", b"b"])
    reopen().close()
    content = bytearray(path.read_bytes())
    assert len(content) >= damage.stop
    content[damage] = b"\xa5" * (damage.stop - damage.start)
    path.write_bytes(content)
    lookup = reopen()
    assert lookup.cursor() == 0
    assert lookup.find(hash_leaf(b"a")) is None
    lookup.apply(0, [b"a"])
    assert reopen().find(hash_leaf(b"a")) == 0


def test_a_file_that_is_no_table_is_rebuilt(reopen: Open, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"noise" * 1_000)
    path.with_name("another").write_bytes(b"stays")
    lookup = reopen()
    lookup.apply(0, [b"a"])
    assert (lookup.cursor(), lookup.find(hash_leaf(b"a"))) == (1, 0)
    assert path.with_name("another").read_bytes() == b"stays"


def test_a_table_that_somebody_else_uses_is_not_taken_for_damaged(
    reopen: Open, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopen().apply(0, [b"a"])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
        with pytest.raises(StorageError, match="locked"):
            LeafLookup(path, origin="log.example/other", size=0)
    other.execute("ROLLBACK")
    other.close()
    assert reopen().find(hash_leaf(b"a")) == 0


def test_a_place_that_cannot_be_used_is_a_storage_error(path: Path, reopen: Open) -> None:
    path.parent.write_text("a file")
    with pytest.raises(StorageError, match=r"leaves\.sqlite") as caught:
        reopen()
    assert "can be deleted" in caught.value.hint


def test_a_closed_table_is_a_storage_error(reopen: Open) -> None:
    lookup = reopen()
    lookup.close()
    lookup.close()
    with pytest.raises(StorageError):
        lookup.cursor()
    with pytest.raises(StorageError):
        lookup.find(bytes(32))
    with pytest.raises(StorageError):
        lookup.apply(0, [b"a"])


def test_a_locked_table_leaves_the_cursor_and_works_again(reopen: Open, path: Path) -> None:
    lookup = reopen()
    lookup._db.execute("PRAGMA busy_timeout=1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError):
        lookup.apply(0, [b"a"])
    other.execute("ROLLBACK")
    other.close()
    lookup.apply(0, [b"a"])
    assert lookup.cursor() == 1
