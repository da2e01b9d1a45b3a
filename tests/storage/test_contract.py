"""Every promise of storage/store.py, kept by every adapter."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from storage.backends import Backend, LevelDBBackend, MemoryBackend
from storage.growth import META, Growth, checkpoint_of, entry_of
from translog.core.merkle import EMPTY_ROOT
from translog.core.tile import Tile
from translog.errors import CorruptionError, FenceError, NotFoundError, StorageError
from translog.storage.memory import Fault, MemoryStore
from translog.storage.store import LogMeta, LogStore, Profile, StoredCheckpoint, TreeState, Update


@pytest.fixture(params=["memory", "leveldb"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made: Backend = MemoryBackend() if request.param == "memory" else LevelDBBackend(tmp_path)
    yield made
    made.tear_down()


@pytest.fixture
def store(backend: Backend) -> LogStore:
    return backend.create(META)


def reopen(backend: Backend, store: LogStore) -> LogStore:
    store.close()
    return backend.open()


def sizes(found: StoredCheckpoint | None) -> int | None:
    return None if found is None else found.size


class TestMeta:
    @pytest.mark.parametrize(
        "meta",
        [
            META,
            LogMeta(format_version=1, origin="a", profile=Profile.EVENTS, minimum_index=2**62),
            LogMeta(format_version=1, origin='"\\\u2028', profile=Profile.EVENTS),
        ],
    )
    def test_comes_back_as_it_was_created(self, backend: Backend, meta: LogMeta) -> None:
        store = backend.create(meta)
        assert store.meta == meta
        assert reopen(backend, store).meta == meta

    def test_may_be_asked_of_a_closed_store(self, store: LogStore) -> None:
        store.close()
        assert store.meta == META


class TestCommit:
    def test_a_new_store_is_the_empty_tree(self, store: LogStore) -> None:
        assert store.read_state() == TreeState(size=0, root=EMPTY_ROOT, received_at_ms=0)
        assert store.read_checkpoint() is None
        assert store.read_entries(start=0, end=0) == []
        assert store.read_tiles([]) == []

    def test_what_was_committed_is_there(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        for count in (1, 254, 1, 1, 255, 300):
            growth.commit(store, count)
            growth.check(store)
        growth.check(reopen(backend, store))

    def test_is_durable_when_it_returns(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        for count in (3, 300):
            growth.commit(store, count)
            backend.crash(store)
            store = backend.open()
            growth.check(store)

    @pytest.mark.parametrize("entries", [[b""], [b"\x00" * 65_535], [b"", b"x", b""]])
    def test_takes_entries_of_every_length(self, backend: Backend, store: LogStore, entries: list[bytes]) -> None:
        growth = Growth()
        growth.commit(store, len(entries), entries=entries)
        growth.check(reopen(backend, store))

    @pytest.mark.parametrize(
        "change",
        [
            lambda update: replace(update, old_size=4),
            lambda update: replace(update, old_size=6, state=replace(update.state, size=9)),
            lambda update: replace(update, entries=update.entries[:-1]),
            lambda update: replace(update, entries=[*update.entries, b"one more"]),
            lambda update: replace(update, entries=[], state=replace(update.state, size=5)),
            lambda update: replace(update, state=replace(update.state, size=4)),
            lambda update: replace(update, state=replace(update.state, received_at_ms=999)),
        ],
        ids=["older size", "newer size", "entry short", "entry over", "no entry", "shrinks", "time goes back"],
    )
    def test_refuses_what_does_not_continue_the_tree_and_changes_nothing(self, store: LogStore, change: object) -> None:
        growth = Growth()
        growth.commit(store, 5)
        assert callable(change)
        update: Update = change(growth.next(3))
        with pytest.raises(FenceError):
            store.commit(update)
        growth.check(store)
        growth.commit(store, 3)
        growth.check(store)

    def test_the_same_update_twice_is_refused(self, store: LogStore) -> None:
        growth = Growth()
        update = growth.commit(store, 5)
        with pytest.raises(FenceError):
            store.commit(update)
        growth.check(store)

    def test_time_may_stand_still(self, store: LogStore) -> None:
        growth = Growth()
        growth.commit(store, 1)
        growth.commit(store, 1)
        growth.check(store)


class TestFailedWrite:
    @pytest.mark.parametrize("applied", [False, True])
    def test_of_a_commit_is_all_or_nothing(self, backend: Backend, store: LogStore, applied: bool) -> None:
        growth = Growth()
        growth.commit(store, 5)
        update = growth.next(300)
        backend.fail_next_write(store, "commit", applied=applied)
        with pytest.raises(StorageError) as caught:
            store.commit(update)
        assert not isinstance(caught.value, FenceError)
        if applied:
            growth.accept(update)
        growth.check(reopen(backend, store))

    @pytest.mark.parametrize("applied", [False, True])
    def test_of_a_publication_is_all_or_nothing(self, backend: Backend, store: LogStore, applied: bool) -> None:
        growth = Growth()
        growth.commit(store, 5)
        store.publish(checkpoint_of(2), keep=True)
        backend.fail_next_write(store, "publish", applied=applied)
        with pytest.raises(StorageError):
            store.publish(checkpoint_of(5), keep=True)
        store = reopen(backend, store)
        assert sizes(store.read_checkpoint()) == (5 if applied else 2)
        assert sizes(store.find_checkpoint_below(size_max=9)) == (5 if applied else 2)

    @pytest.mark.parametrize("what", ["commit", "publish"])
    def test_closes_the_door_until_the_store_is_opened_anew(
        self, backend: Backend, store: LogStore, what: Literal["commit", "publish"]
    ) -> None:
        growth = Growth()
        growth.commit(store, 5)
        backend.fail_next_write(store, what, applied=False)

        def commit() -> None:
            store.commit(growth.next(1))

        def publish() -> None:
            store.publish(checkpoint_of(5), keep=False)

        with pytest.raises(StorageError):
            commit() if what == "commit" else publish()
        for _ in range(2):
            with pytest.raises(StorageError, match="since one failed"):
                commit()
            with pytest.raises(StorageError, match="since one failed"):
                publish()
        growth.check(store)  # reading goes on
        store = reopen(backend, store)
        growth.commit(store, 1)
        growth.check(store)


class TestPublish:
    def test_is_read_back(self, backend: Backend, store: LogStore) -> None:
        Growth().commit(store, 5)
        for size in (0, 3, 5):
            store.publish(checkpoint_of(size), keep=False)
            assert store.read_checkpoint() == checkpoint_of(size)
        assert reopen(backend, store).read_checkpoint() == checkpoint_of(5)

    def test_of_the_same_size_replaces(self, store: LogStore) -> None:
        Growth().commit(store, 5)
        for text in (b"first", b"second"):
            store.publish(checkpoint_of(5, text), keep=True)
            assert store.read_checkpoint() == checkpoint_of(5, text)
            assert store.find_checkpoint(size_min=5) == checkpoint_of(5, text)

    @pytest.mark.parametrize("size", [0, 4, 11, 2**63 - 1])
    def test_never_goes_backwards_or_ahead(self, backend: Backend, store: LogStore, size: int) -> None:
        Growth().commit(store, 10)
        store.publish(checkpoint_of(5), keep=False)
        with pytest.raises(FenceError):
            store.publish(checkpoint_of(size), keep=True)
        assert store.read_checkpoint() == checkpoint_of(5)
        assert store.find_checkpoint_below(size_max=2**63 - 1) is None
        store.publish(checkpoint_of(10), keep=True)
        assert reopen(backend, store).read_checkpoint() == checkpoint_of(10)

    def test_is_durable_at_once_where_it_is_asked_for(self, backend: Backend, store: LogStore) -> None:
        Growth().commit(store, 5)
        store.publish(checkpoint_of(3), keep=True, durable=True)
        backend.crash(store)
        store = backend.open()
        assert store.read_checkpoint() == store.find_checkpoint_below(size_max=5) == checkpoint_of(3)

    def test_is_durable_with_the_next_commit(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        growth.commit(store, 5)
        store.publish(checkpoint_of(4), keep=True)
        growth.commit(store, 1)
        store.publish(checkpoint_of(6), keep=True)
        backend.crash(store)
        store = backend.open()
        growth.check(store)
        latest, kept = store.read_checkpoint(), store.find_checkpoint_below(size_max=6)
        assert sizes(latest) in (4, 6)
        assert kept == latest, "half a publication"
        assert store.find_checkpoint(size_min=1) == checkpoint_of(4)


class TestFindCheckpoint:
    @pytest.fixture
    def store(self, backend: Backend) -> LogStore:
        """Kept: 0, 3, 256, 300. Latest: 400."""
        store = backend.create(META)
        Growth().commit(store, 500)
        for size, keep in ((0, True), (3, True), (4, False), (256, True), (300, True), (400, False)):
            store.publish(checkpoint_of(size), keep=keep)
        return store

    @pytest.mark.parametrize(
        ("size_min", "found"),
        [(0, 0), (1, 3), (3, 3), (4, 256), (256, 256), (257, 300), (300, 300), (301, 400), (400, 400), (401, None)],
    )
    def test_the_smallest_kept_one_that_covers_else_the_latest(
        self, backend: Backend, store: LogStore, size_min: int, found: int | None
    ) -> None:
        for _ in range(2):
            assert store.find_checkpoint(size_min=size_min) == (None if found is None else checkpoint_of(found))
            store = reopen(backend, store)

    def test_is_none_beyond_what_any_log_can_hold(self, store: LogStore) -> None:
        assert store.find_checkpoint(size_min=2**63) is None

    @pytest.mark.parametrize(("size_max", "found"), [(0, 0), (2, 0), (3, 3), (255, 3), (256, 256), (299, 256), (2**63, 300)])
    def test_the_largest_kept_one_below(self, backend: Backend, store: LogStore, size_max: int, found: int) -> None:
        for _ in range(2):
            assert store.find_checkpoint_below(size_max=size_max) == checkpoint_of(found)
            store = reopen(backend, store)

    def test_finds_none_where_none_was_kept(self, backend: Backend) -> None:
        store = backend.create(META)
        Growth().commit(store, 5)
        assert store.find_checkpoint(size_min=0) is None
        assert store.find_checkpoint_below(size_max=9) is None
        store.publish(checkpoint_of(5), keep=False)
        assert store.find_checkpoint(size_min=0) == checkpoint_of(5)
        assert store.find_checkpoint_below(size_max=9) is None


class TestReadCheckpoints:
    @pytest.fixture
    def store(self, backend: Backend) -> LogStore:
        """Kept: 0, 3, 256, 300. Latest: 400."""
        store = backend.create(META)
        Growth().commit(store, 500)
        for size, keep in ((0, True), (3, True), (4, False), (256, True), (300, True), (400, False)):
            store.publish(checkpoint_of(size), keep=keep)
        return store

    @pytest.mark.parametrize(
        ("size_min", "count_max", "found"),
        [
            (0, 9, [0, 3, 256, 300]),
            (0, 4, [0, 3, 256, 300]),
            (0, 3, [0, 3, 256]),
            (0, 1, [0]),
            (0, 0, []),
            (1, 2, [3, 256]),
            (3, 1, [3]),
            (4, 9, [256, 300]),
            (256, 9, [256, 300]),
            (257, 1, [300]),
            (300, 9, [300]),
            (301, 9, []),
            (2**63, 9, []),
        ],
    )
    def test_gives_kept_ones_smallest_first_and_not_the_latest(
        self, backend: Backend, store: LogStore, size_min: int, count_max: int, found: list[int]
    ) -> None:
        for _ in range(2):
            assert store.read_checkpoints(size_min=size_min, count_max=count_max) == [checkpoint_of(size) for size in found]
            store = reopen(backend, store)

    def test_a_kept_one_that_is_replaced_comes_once(self, store: LogStore) -> None:
        for text in (b"first", b"second"):
            store.publish(checkpoint_of(400, text), keep=True)
        assert store.read_checkpoints(size_min=300, count_max=9) == [checkpoint_of(300), checkpoint_of(400, b"second")]

    def test_is_empty_where_none_was_kept(self, backend: Backend) -> None:
        store = backend.create(META)
        Growth().commit(store, 5)
        store.publish(checkpoint_of(5), keep=False)
        assert store.read_checkpoints(size_min=0, count_max=9) == []

    def test_pages_of_any_length_give_all_of_them(self, backend: Backend) -> None:
        store = backend.create(META)
        Growth().commit(store, 700)
        for size in range(0, 700, 7):
            store.publish(checkpoint_of(size), keep=True)
        for count in (1, 3, 100, 101):
            found: list[StoredCheckpoint] = []
            while page := store.read_checkpoints(size_min=found[-1].size + 1 if found else 0, count_max=count):
                assert len(page) <= count
                found += page
            assert found == [checkpoint_of(size) for size in range(0, 700, 7)]

    def test_a_closed_store_gives_none(self, store: LogStore) -> None:
        store.close()
        with pytest.raises(StorageError, match="closed"):
            store.read_checkpoints(size_min=0, count_max=1)


class TestRead:
    @pytest.fixture
    def growth(self, store: LogStore) -> Growth:
        """700 entries: two full tiles of level 0, a partial one of 188, and one of 2 hashes at level 1."""
        growth = Growth()
        growth.commit(store, 100)
        growth.commit(store, 600)
        return growth

    def test_tiles_come_in_order_and_cut_to_width(self, store: LogStore, growth: Growth) -> None:
        wide, partial = store.read_tiles([Tile(level=0, index=0), Tile(level=0, index=2, width=188)])
        assert (len(wide), len(partial)) == (256 * 32, 188 * 32)
        for width in (1, 44, 187, 188):
            narrow = [Tile(level=0, index=2, width=width), Tile(level=1, index=0, width=1), Tile(level=0, index=0, width=width)]
            third, above, first = store.read_tiles(narrow)
            assert third == partial[: width * 32]
            assert first == wide[: width * 32]
            assert len(above) == 32

    @pytest.mark.parametrize(
        "tile",
        [
            Tile(level=0, index=2, width=189),
            Tile(level=0, index=2),
            Tile(level=0, index=3, width=1),
            Tile(level=0, index=2**54),
            Tile(level=1, index=0, width=3),
            Tile(level=1, index=1, width=1),
            Tile(level=2, index=0, width=1),
            Tile(level=7, index=0, width=1),
            Tile(level=8, index=0, width=1),
            Tile(level=63, index=2**54, width=255),
        ],
        ids=str,
    )
    def test_a_tile_beyond_the_tree_is_not_found(self, store: LogStore, growth: Growth, tile: Tile) -> None:
        with pytest.raises(NotFoundError):
            store.read_tiles([Tile(level=0, index=0), tile])

    @pytest.mark.parametrize(("start", "end"), [(0, 700), (0, 1), (99, 101), (255, 257), (699, 700), (0, 0), (700, 700)])
    def test_entries_come_in_order(self, store: LogStore, growth: Growth, start: int, end: int) -> None:
        assert store.read_entries(start=start, end=end) == [entry_of(n) for n in range(start, end)]

    @pytest.mark.parametrize(("start", "end"), [(0, 701), (700, 701), (699, 702), (2**63 - 2, 2**63 - 1)])
    def test_entries_beyond_the_tree_are_not_found(self, store: LogStore, growth: Growth, start: int, end: int) -> None:
        with pytest.raises(NotFoundError):
            store.read_entries(start=start, end=end)

    @pytest.mark.parametrize("index", [0, 255, 500, 699])
    def test_a_missing_entry_is_corruption(self, backend: Backend, store: LogStore, growth: Growth, index: int) -> None:
        store.close()
        backend.lose_entry(index)
        store = backend.open()
        assert store.read_entries(start=0, end=index) == growth.entries[:index]
        for start, end in ((index, index + 1), (0, index + 1), (0, 700)):
            with pytest.raises(CorruptionError):
                store.read_entries(start=start, end=end)

    @pytest.mark.parametrize(
        "tile", [Tile(level=0, index=0), Tile(level=0, index=2, width=188), Tile(level=1, index=0, width=2)]
    )
    @pytest.mark.parametrize("how", ["missing", "a hash short", "a byte short", "empty"])
    def test_a_missing_tile_is_corruption(
        self, backend: Backend, store: LogStore, growth: Growth, tile: Tile, how: str
    ) -> None:
        (whole,) = store.read_tiles([tile])
        store.close()
        backend.put_tile(tile, {"missing": None, "a hash short": whole[:-32], "a byte short": whole[:-1], "empty": b""}[how])
        with pytest.raises(CorruptionError):
            backend.open().read_tiles([tile])


class TestClose:
    def test_later_calls_raise(self, store: LogStore) -> None:
        growth = Growth()
        growth.commit(store, 5)
        store.close()
        store.close()
        for call in (
            store.read_state,
            store.read_checkpoint,
            lambda: store.find_checkpoint(size_min=0),
            lambda: store.find_checkpoint_below(size_max=0),
            lambda: store.read_tiles([Tile(level=0, index=0, width=1)]),
            lambda: store.read_entries(start=0, end=1),
            lambda: store.commit(growth.next(1)),
            lambda: store.publish(checkpoint_of(5), keep=False),
        ):
            with pytest.raises(StorageError) as caught:
                call()
            assert caught.value.code == "store-closed"

    def test_waits_for_reads_under_way(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        growth.commit(store, 5)
        read: list[list[bytes]] = []
        reader = threading.Thread(target=lambda: read.append(store.read_entries(start=0, end=5)))
        closer = threading.Thread(target=store.close)
        with backend.paused_reads(store) as (entered, release):
            reader.start()
            assert entered.wait(10)
            closer.start()
            closer.join(0.05)
            assert closer.is_alive(), "closed under a reader"
            release.set()
            reader.join(10)
            closer.join(10)
        assert read == [growth.entries]
        with pytest.raises(StorageError):
            store.read_state()

    def test_readers_on_many_threads_read_the_same(self, store: LogStore) -> None:
        growth = Growth()
        growth.commit(store, 300)
        right, wrong = growth.entries[:300], [False]

        def read() -> None:
            for _ in range(20):
                wrong[0] |= store.read_entries(start=0, end=300) != right or store.read_state().size < 300

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            growth.commit(store, 1)
        for thread in threads:
            thread.join(10)
        assert not wrong[0]
        growth.check(store)


class TestMemoryFaults:
    """What only the memory adapter can do."""

    @pytest.mark.parametrize("fault", list(Fault))
    def test_of_a_commit(self, fault: Fault) -> None:
        backend, growth = MemoryBackend(), Growth()
        store = backend.create(META)
        growth.commit(store, 5)
        update = growth.next(3)
        backend.disk.faults = [("commit", fault)]
        with pytest.raises(StorageError, match=fault.value):
            store.commit(update)
        if fault in (Fault.APPLIED_BUT_FAILED, Fault.CRASH_AFTER):
            growth.accept(update)
        self._check_dead(store, crashed=fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER))
        store.close()
        store = backend.open()
        growth.check(store)
        growth.commit(store, 1)
        growth.check(store)

    @pytest.mark.parametrize("fault", list(Fault))
    def test_of_a_publication(self, fault: Fault) -> None:
        backend = MemoryBackend()
        store = backend.create(META)
        Growth().commit(store, 5)
        store.publish(checkpoint_of(1), keep=True)
        backend.disk.faults = [("publish", fault)]
        with pytest.raises(StorageError, match=fault.value):
            store.publish(checkpoint_of(5), keep=True)
        self._check_dead(store, crashed=fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER))
        store.close()
        # a crash loses what no commit made durable, the first publication too
        expected = {Fault.REFUSED: 1, Fault.APPLIED_BUT_FAILED: 5}.get(fault)
        assert sizes(backend.open().read_checkpoint()) == expected
        assert sizes(backend.open().find_checkpoint_below(size_max=9)) == expected

    def _check_dead(self, store: MemoryStore, *, crashed: bool) -> None:
        with pytest.raises(StorageError):
            store.publish(checkpoint_of(5), keep=True)
        if crashed:
            with pytest.raises(StorageError, match="crashed"):
                store.read_state()
        else:
            assert store.read_state().size >= 5

    def test_waits_for_the_operation_it_names(self) -> None:
        backend, growth = MemoryBackend(), Growth()
        store = backend.create(META)
        backend.disk.faults = [("publish", Fault.REFUSED), ("commit", Fault.REFUSED)]
        growth.commit(store, 5)
        with pytest.raises(StorageError):
            store.publish(checkpoint_of(5), keep=False)
        store.close()
        store = backend.open()
        with pytest.raises(StorageError):
            store.commit(growth.next(1))
        assert backend.disk.faults == []

    @pytest.mark.parametrize("fault", [None, *Fault])
    def test_a_crash_loses_no_more_than_what_was_published_since_the_commit(self, fault: Fault | None) -> None:
        backend, growth = MemoryBackend(), Growth()
        store = backend.create(META)
        growth.commit(store, 5)
        store.publish(checkpoint_of(4), keep=True)
        growth.commit(store, 1)
        store.publish(checkpoint_of(6), keep=True)
        if fault:
            backend.disk.faults = [("commit", fault)]
            with pytest.raises(StorageError):
                store.commit(growth.next(1))
        store.crash()
        store.close()
        durable = 6 if fault in (Fault.APPLIED_BUT_FAILED, Fault.CRASH_AFTER) else 4
        assert backend.open().read_checkpoint() == checkpoint_of(durable)
        assert backend.open().find_checkpoint_below(size_max=9) == checkpoint_of(durable)

    @pytest.mark.parametrize("how", ["rewritten", "cut", "unchanged", "of another width"])
    def test_a_tile_that_does_not_continue_itself_is_flagged(self, how: str) -> None:
        growth = Growth()
        store = MemoryBackend().create(META)
        growth.commit(store, 5)
        update = growth.next(2)
        tile, data = Tile(level=0, index=0, width=7), update.tiles[Tile(level=0, index=0, width=7)]
        bad: dict[Tile, bytes] = {
            "rewritten": {tile: bytes([data[0] ^ 1]) + data[1:]},
            "cut": {replace(tile, width=4): data[: 4 * 32]},
            "unchanged": {replace(tile, width=5): data[: 5 * 32]},
            "of another width": {tile: data[:-32]},
        }[how]
        with pytest.raises(CorruptionError):
            store.commit(replace(update, tiles=bad))
        growth.check(store)
