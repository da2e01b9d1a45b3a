"""A witness's state: what is written once is there after anything, and never goes back."""

import multiprocessing
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from translog.core.keys import KeyType
from translog.errors import (
    ConsistencyError,
    CorruptionError,
    MalformedError,
    NotFoundError,
    OldSizeError,
    PushbackError,
    SettingsError,
    StorageError,
    TooLargeError,
)
from translog.witness import store as store_module
from translog.witness.loglist import KEYS_MAX, KnownLog
from translog.witness.protocol import Cosigned, origin_hash
from translog.witness.store import WitnessStore
from witness.made_log import WITNESS_NAME, WITNESS_VKEYS, MadeLog, make_key

ORIGIN = "log.example/made"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WitnessStore]:
    made = WitnessStore.create(tmp_path / "state.sqlite", name=WITNESS_NAME, vkeys=WITNESS_VKEYS)
    yield made
    made.close()


def cosigned(size: int, *, root: int = 0, time_s: int = 100) -> Cosigned:
    return Cosigned(size=size, root=bytes([root]) * 32, time_s=time_s, note=b"note %d" % size)


def test_what_was_written_is_there_for_the_next_one(store: WitnessStore, tmp_path: Path) -> None:
    store.update(ORIGIN, old=0, new=cosigned(5))
    store.add_log(MadeLog().known)
    with closing(WitnessStore.open(tmp_path / "state.sqlite")) as other:
        assert (other.name, other.vkeys) == (WITNESS_NAME, WITNESS_VKEYS)
        assert other.find_cosigned(ORIGIN) == cosigned(5)
        assert other.find_by_hash(origin_hash(ORIGIN)) == cosigned(5)
        assert other.logs() == [MadeLog().known]
        other.update(ORIGIN, old=5, new=cosigned(7))
    assert store.find_cosigned(ORIGIN) == cosigned(7)
    assert store.find_cosigned("log.example/other") is None
    assert store.find_by_hash(origin_hash("log.example/other")) is None


def test_the_old_size_must_be_the_one_that_is_stored(store: WitnessStore) -> None:
    for old, stored in ((1, 0), (5, 0)):
        with pytest.raises(OldSizeError) as raised:
            store.update(ORIGIN, old=old, new=cosigned(9))
        assert raised.value.size == stored
    store.update(ORIGIN, old=0, new=cosigned(5))
    for old in (0, 4, 6):
        with pytest.raises(OldSizeError) as raised:
            store.update(ORIGIN, old=old, new=cosigned(9))
        assert raised.value.size == 5
    assert store.find_cosigned(ORIGIN) == cosigned(5)


def test_a_size_never_gets_smaller_a_root_never_changes_and_a_time_never_goes_back(store: WitnessStore) -> None:
    store.update(ORIGIN, old=0, new=cosigned(5))
    for new in (cosigned(4), cosigned(0), cosigned(5, root=1)):
        with pytest.raises(ConsistencyError):
            store.update(ORIGIN, old=5, new=new)
    with pytest.raises(OldSizeError) as raised:
        store.update(ORIGIN, old=5, new=cosigned(6, time_s=99))
    assert raised.value.size == 5
    assert store.find_cosigned(ORIGIN) == cosigned(5)
    store.update(ORIGIN, old=5, new=cosigned(5, time_s=101))
    store.update(ORIGIN, old=5, new=cosigned(2**63 - 1, root=2, time_s=101))
    for bad in (cosigned(2**63), cosigned(-1), cosigned(7, time_s=0), Cosigned(size=1, root=b"", time_s=1, note=b"")):
        with pytest.raises(ConsistencyError):
            store.update("other", old=0, new=bad)


def test_a_log_becomes_known_and_gets_more_keys(store: WitnessStore) -> None:
    log = MadeLog()
    one, two = log.vkeys
    assert store.find_log(ORIGIN) is None
    first = KnownLog(origin=ORIGIN, vkeys=(one,), queries_per_day=5, contact="me", poll_url="https://log.example")
    assert store.add_log(first)
    assert not store.add_log(first)
    assert store.find_log(ORIGIN) == first
    assert store.add_log(KnownLog(origin=ORIGIN, vkeys=(two,), queries_per_day=6))
    assert store.find_log(ORIGIN) == KnownLog(
        origin=ORIGIN, vkeys=(one, two), queries_per_day=6, contact="me", poll_url="https://log.example"
    )
    store.add_log(KnownLog(origin="else", vkeys=(two,)))
    assert [known.origin for known in store.logs()] == ["else", ORIGIN]
    assert [known.vkeys for known in store.logs()] == [(two,), (one, two)]
    assert store.logs(polled=True) == [store.find_log(ORIGIN)]


def test_a_list_changes_nothing_that_is_known(store: WitnessStore) -> None:
    log = MadeLog()
    known = KnownLog(origin=ORIGIN, vkeys=log.vkeys[:1], queries_per_day=5)
    store.add_log(known)
    assert not store.add_log(KnownLog(origin=ORIGIN, vkeys=log.vkeys[1:], queries_per_day=9, contact="new", source="list"))
    assert store.find_log(ORIGIN) == known
    for vkey in known.vkeys:
        store.remove_key(ORIGIN, vkey)
    assert not store.add_log(KnownLog(origin=ORIGIN, vkeys=log.vkeys, source="list"))
    found = store.find_log(ORIGIN)
    assert found is not None
    assert found.vkeys == ()
    assert store.add_logs([KnownLog(origin=f"new {n}", vkeys=log.vkeys, source="list") for n in range(3)]) == 3


def test_a_key_removed_by_hand_comes_back_by_hand_only(store: WitnessStore) -> None:
    log = MadeLog()
    settings = KnownLog(origin=ORIGIN, vkeys=log.vkeys, source="settings")
    store.add_log(settings)
    store.remove_key(ORIGIN, log.vkeys[0])
    assert not store.add_log(settings)
    found = store.find_log(ORIGIN)
    assert found is not None
    assert found.vkeys == log.vkeys[1:]
    with pytest.raises(NotFoundError):
        store.remove_key(ORIGIN, log.vkeys[0])
    with pytest.raises(NotFoundError):
        store.remove_key("other", log.vkeys[1])
    assert store.add_log(KnownLog(origin=ORIGIN, vkeys=log.vkeys, source="command"))
    found = store.find_log(ORIGIN)
    assert found is not None
    assert set(found.vkeys) == set(log.vkeys)


def test_logs_and_keys_are_bounded_and_too_many_change_nothing(store: WitnessStore, monkeypatch: pytest.MonkeyPatch) -> None:
    vkeys = tuple(make_key(ORIGIN, KeyType.ED25519, number).vkey for number in range(KEYS_MAX + 1))
    store.add_log(KnownLog(origin=ORIGIN, vkeys=vkeys[:-1]))
    before = store.logs()
    with pytest.raises(TooLargeError):
        store.add_log(KnownLog(origin=ORIGIN, vkeys=vkeys[-1:]))
    monkeypatch.setattr(store_module, "LOGS_MAX", 3)
    with pytest.raises(TooLargeError):
        store.add_logs([KnownLog(origin=f"log {n}", vkeys=vkeys[:1], source="list") for n in range(3)])
    with pytest.raises(MalformedError):
        store.add_logs([KnownLog(origin="fine", vkeys=vkeys[:1]), KnownLog(origin="", vkeys=vkeys[:1])])
    assert store.logs() == before
    store.add_logs([KnownLog(origin=f"log {n}", vkeys=vkeys[:1]) for n in range(2)])
    store.remove_key(ORIGIN, vkeys[0])
    store.add_log(KnownLog(origin=ORIGIN, vkeys=vkeys[-1:]))


def test_a_commit_is_synced_before_it_is_said_to_be_done(store: WitnessStore) -> None:
    connection = store._connection()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_nothing_is_created_over_something(store: WitnessStore, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        WitnessStore.create(tmp_path / "state.sqlite", name="other")
    assert store.name == WITNESS_NAME
    with pytest.raises(StorageError):
        WitnessStore.create(tmp_path / "missing" / "state.sqlite", name="other")
    assert (tmp_path / "state.sqlite").stat().st_mode & 0o077 == 0


def test_a_state_that_could_not_be_made_whole_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "sync_directory", fails)
    with pytest.raises(StorageError):
        WitnessStore.create(tmp_path / "state", name=WITNESS_NAME)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["missing", "empty", "another database"])
def test_a_lost_state_is_said_to_be_lost_and_not_made_anew(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state.sqlite"
    if what == "empty":
        path.touch()
    if what == "another database":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE other (x)")
    with pytest.raises(SettingsError) as raised:
        WitnessStore.open(path)
    assert raised.value.code == "witness-state-lost"
    assert "sign nothing more" in raised.value.hint
    assert path.exists() == (what != "missing")


def test_a_state_of_a_later_version_is_left_alone(store: WitnessStore, tmp_path: Path) -> None:
    store.close()
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection, connection:
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
    with pytest.raises(SettingsError):
        WitnessStore.open(tmp_path / "state.sqlite")


@pytest.mark.parametrize("column", ["size", "root", "time_s", "note", "digest", "origin"])
def test_a_changed_value_is_damage_and_never_a_smaller_size(store: WitnessStore, tmp_path: Path, column: str) -> None:
    store.update(ORIGIN, old=0, new=cosigned(5))
    values = {"size": "4", "root": "zeroblob(32)", "time_s": "99", "note": "X'00'", "digest": "zeroblob(32)", "origin": "'a'"}
    if column == "root":
        store.update(ORIGIN, old=5, new=cosigned(6, root=7))
    with closing(sqlite3.connect(tmp_path / "state.sqlite")) as connection, connection:
        connection.execute(f"UPDATE cosigned SET {column} = {values[column]}")
    name = "a" if column == "origin" else ORIGIN
    with pytest.raises(CorruptionError):
        store.find_cosigned(name)
    with pytest.raises(CorruptionError):
        store.update(name, old=4, new=cosigned(9))


def test_a_file_that_is_no_database_any_more_is_damage(store: WitnessStore, tmp_path: Path) -> None:
    store.update(ORIGIN, old=0, new=cosigned(5))
    store.close()
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(CorruptionError):
        WitnessStore.open(path)


def test_a_closed_state_answers_nothing(store: WitnessStore) -> None:
    store.close()
    with pytest.raises(StorageError):
        store.find_cosigned(ORIGIN)
    with pytest.raises(StorageError):
        store.update(ORIGIN, old=0, new=cosigned(1))


def test_a_writer_that_has_no_turn_is_pushed_back_and_has_written_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_MS", 50)
    with (
        closing(WitnessStore.create(tmp_path / "state", name="w")) as store,
        closing(sqlite3.connect(tmp_path / "state", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(PushbackError):
            store.update(ORIGIN, old=0, new=cosigned(1))
        other.execute("ROLLBACK")
        assert store.find_cosigned(ORIGIN) is None
        store.update(ORIGIN, old=0, new=cosigned(1))


def test_of_many_threads_one_wins_each_size(store: WitnessStore) -> None:
    won: list[tuple[int, int]] = []
    barrier = threading.Barrier(6)

    def race(number: int) -> None:
        barrier.wait()
        for size in range(1, 40):
            with suppress(OldSizeError):
                store.update(ORIGIN, old=size - 1, new=cosigned(size, root=number))
                won.append((size, number))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sizes = [size for size, _ in won]
    assert len(sizes) == len(set(sizes))
    last = store.find_cosigned(ORIGIN)
    assert last is not None
    assert (last.size, last.root[0]) == max(won)


def _write_in_a_child(store: WitnessStore) -> None:
    before = store._connections[0]
    store.update(ORIGIN, old=1, new=cosigned(2))
    assert store._connection() is not before


def test_a_process_that_was_forked_has_connections_of_its_own(store: WitnessStore) -> None:
    store.update(ORIGIN, old=0, new=cosigned(1))
    child = multiprocessing.get_context("fork").Process(target=_write_in_a_child, args=(store,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert store.find_cosigned(ORIGIN) == cosigned(2)
    store.update(ORIGIN, old=2, new=cosigned(3))


def test_a_copy_of_the_file_after_it_was_closed_is_all_there_is(store: WitnessStore, tmp_path: Path) -> None:
    store.update(ORIGIN, old=0, new=cosigned(5))
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.sqlite"]
    shutil.copy(tmp_path / "state.sqlite", tmp_path / "copy")
    with closing(WitnessStore.open(tmp_path / "copy")) as copy:
        assert copy.find_cosigned(ORIGIN) == cosigned(5)
