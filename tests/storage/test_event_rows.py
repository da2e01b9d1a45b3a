"""What an events log keeps beside its entries: the promises of storage/store.py, kept by every adapter."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storage.backends import Backend, LevelDBBackend, MemoryBackend
from storage.growth import META, Growth
from translog.errors import CorruptionError, FenceError, StorageError
from translog.events.entry import Numbered
from translog.storage import keyspace
from translog.storage.memory import Fault
from translog.storage.store import EventRows, LogStore, PayloadRow, Profile, StreamHead, StreamName, Update

EVENTS_META = replace(META, profile=Profile.EVENTS)
ACME = StreamName("acme", "k8s-prod")
AGENT = StreamName("acme", "agent")
KEY, MAC = b"k" * 16, b"m" * 16


@pytest.fixture(params=["memory", "leveldb"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made: Backend = MemoryBackend() if request.param == "memory" else LevelDBBackend(tmp_path)
    yield made
    made.tear_down()


@pytest.fixture
def store(backend: Backend) -> LogStore:
    return backend.create(EVENTS_META)


def reopen(backend: Backend, store: LogStore) -> LogStore:
    store.close()
    return backend.open()


def head_of(numbered: Numbered, next_seq: int, last_index: int) -> StreamHead:
    return StreamHead(numbered=numbered, next_seq=next_seq, last_index=last_index, last_received_at_ms=1_000 + last_index)


def rows_at(first: int) -> EventRows:
    """Of three entries from `first` on: an event with an id and two blobs, a sender's, and an entry that is no event."""
    return EventRows(
        payloads={
            first: PayloadRow(record=b"record of %d" % first, uid_key=KEY[:8] + first.to_bytes(8, "big"), mac=MAC, blobs=2),
            first + 1: PayloadRow(record=None),
        },
        blobs={(first, 0): b"blob 0 of %d" % first, (first, 1): b"blob 1 of %d" % first},
        ids={
            KEY[:8] + first.to_bytes(8, "big"): keyspace.encode_first_id(first, MAC),
            KEY[:8] + first.to_bytes(8, "big") + MAC: keyspace.encode_index(first),
        },
        streams={
            ACME: head_of(Numbered.LOG, first // 3 + 1, first),
            AGENT: head_of(Numbered.SENDER, first // 3 + 1, first + 1),
        },
        numbers={(AGENT, first // 3): first + 1},
    )


def commit_rows(store: LogStore, growth: Growth) -> Update:
    """Three entries with their rows."""
    update = replace(growth.next(3), rows=rows_at(growth.edge.size))
    store.commit(update)
    growth.accept(update)
    return update


def check_rows(store: LogStore, size: int) -> None:
    """The store holds the rows of `size` entries, by threes, and none of any other."""
    growth = range(0, size, 3)
    for first in growth:
        rows = rows_at(first)
        assert store.read_payloads([first, first + 1, first + 2]) == [rows.payloads[first], rows.payloads[first + 1], None]
        assert store.read_blobs(first) == [b"blob 0 of %d" % first, b"blob 1 of %d" % first]
        assert store.read_blobs(first + 1) == store.read_blobs(first + 2) == []
        assert store.find_ids(list(rows.ids)) == list(rows.ids.values())
        assert store.find_number(AGENT, first // 3) == first + 1
        assert store.find_number(ACME, first // 3) is None
    assert store.read_streams() == (dict(rows_at(size - 3).streams) if size else {})
    following = rows_at(size)
    assert store.read_payloads([size, size + 1]) == [None, None]
    assert store.read_blobs(size) == []
    assert store.find_ids(list(following.ids)) == [None, None]
    assert store.find_number(AGENT, size // 3) is None


class TestCommit:
    def test_a_new_store_has_none(self, store: LogStore) -> None:
        check_rows(store, 0)
        assert store.read_payloads([]) == []
        assert store.find_ids([]) == []

    def test_what_was_committed_is_there(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        for size in (3, 6, 9):
            commit_rows(store, growth)
            check_rows(store, size)
        growth.check(store)
        check_rows(reopen(backend, store), 9)

    def test_is_durable_when_it_returns(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        for size in (3, 6):
            commit_rows(store, growth)
            backend.crash(store)
            store = backend.open()
            check_rows(store, size)
            growth.check(store)

    @pytest.mark.parametrize("applied", [False, True])
    def test_that_fails_writes_rows_and_entries_or_neither(self, backend: Backend, store: LogStore, applied: bool) -> None:
        growth = Growth()
        commit_rows(store, growth)
        backend.fail_next_write(store, "commit", applied=applied)
        update = replace(growth.next(3), rows=rows_at(3))
        with pytest.raises(StorageError):
            store.commit(update)
        if applied:
            growth.accept(update)
        store = reopen(backend, store)
        growth.check(store)
        check_rows(store, 6 if applied else 3)
        commit_rows(store, growth)
        check_rows(store, 9 if applied else 6)

    @pytest.mark.parametrize(
        "rows",
        [
            EventRows(payloads={2: PayloadRow(record=b"")}),
            EventRows(payloads={6: PayloadRow(record=b"")}),
            EventRows(payloads={3: PayloadRow(record=b""), 6: PayloadRow(record=b"")}),
            EventRows(blobs={(2, 0): b""}),
            EventRows(blobs={(5, 0): b"", (6, 0): b""}),
            EventRows(streams={ACME: head_of(Numbered.LOG, 9, 2)}),
            EventRows(streams={ACME: head_of(Numbered.LOG, 9, 6)}),
            EventRows(numbers={(AGENT, 9): 2}),
            EventRows(numbers={(AGENT, 9): 6}),
        ],
        ids=str,
    )
    def test_with_rows_of_other_entries_is_refused_and_changes_nothing(self, store: LogStore, rows: EventRows) -> None:
        growth = Growth()
        commit_rows(store, growth)
        with pytest.raises(FenceError):
            store.commit(replace(growth.next(3), rows=rows))
        check_rows(store, 3)
        commit_rows(store, growth)
        check_rows(store, 6)


class TestPayloads:
    ROWS = (
        PayloadRow(record=b"record", uid_key=KEY, mac=MAC, blobs=65_535),
        PayloadRow(record=b"\x00" * 100_000),
        PayloadRow(record=b""),
        PayloadRow(record=None),
        PayloadRow(record=None, uid_key=b"\x00" * 16, mac=b"\xff" * 16),
    )

    def test_come_back_as_they_were_in_the_order_asked_for(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        store.commit(replace(growth.next(5), rows=EventRows(payloads=dict(enumerate(self.ROWS)))))
        for _ in range(2):
            assert store.read_payloads(range(5)) == list(self.ROWS)
            assert store.read_payloads([4, 0, 4, 2**63 - 1]) == [self.ROWS[4], self.ROWS[0], self.ROWS[4], None]
            store = reopen(backend, store)


class TestBlobs:
    def test_come_by_number_each_event_its_own(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        blobs = {(index, number): b"%d/%d" % (index, number) for index, count in ((0, 300), (1, 1), (255, 2), (256, 3))
                 for number in range(count)}  # fmt: skip
        store.commit(replace(growth.next(300), rows=EventRows(blobs=dict(reversed(blobs.items())))))
        for _ in range(2):
            for index, count in ((0, 300), (1, 1), (2, 0), (254, 0), (255, 2), (256, 3), (257, 0)):
                assert store.read_blobs(index) == [b"%d/%d" % (index, number) for number in range(count)]
            store = reopen(backend, store)

    @pytest.mark.parametrize(("there", "read"), [((1, 2), 0), ((0, 2), 1), ((0, 1, 3, 65_535), 2)])
    def test_end_before_the_first_that_is_missing(self, store: LogStore, there: tuple[int, ...], read: int) -> None:
        rows = EventRows(blobs={(0, number): b"%d" % number for number in there})
        store.commit(replace(Growth().next(1), rows=rows))
        assert store.read_blobs(0) == [b"0", b"1"][:read]


class TestIds:
    def test_are_found_in_the_order_asked_for_and_of_their_own_length_only(self, backend: Backend, store: LogStore) -> None:
        ids = {
            KEY: keyspace.encode_first_id(0, MAC),
            KEY + MAC: keyspace.encode_index(1),
            MAC: keyspace.encode_first_id(2, KEY),
        }
        store.commit(replace(Growth().next(3), rows=EventRows(ids=ids)))
        for _ in range(2):
            unknown = [KEY[:15], KEY + MAC[:15], MAC + KEY, b"\x00" * 16, b""]
            assert store.find_ids([*unknown, MAC, KEY + MAC, KEY, MAC]) == [None] * 5 + [
                ids[MAC],
                ids[KEY + MAC],
                ids[KEY],
                ids[MAC],
            ]
            store = reopen(backend, store)


HEADS = {
    StreamName("a", "b"): StreamHead(numbered=Numbered.LOG, next_seq=1, last_index=0, last_received_at_ms=0),
    StreamName("a", "b-c"): head_of(Numbered.SENDER, 2**53 - 1, 1),
    StreamName("a-b", "c"): head_of(Numbered.LOG, 3, 2),
    StreamName("a" * 63, "0" * 63): StreamHead(
        numbered=Numbered.SENDER, next_seq=1, last_index=0, last_received_at_ms=2**53 - 1
    ),
}


class TestStreams:
    def test_come_back_all(self, backend: Backend, store: LogStore) -> None:
        store.commit(replace(Growth().next(3), rows=EventRows(streams=HEADS)))
        for _ in range(2):
            assert store.read_streams() == HEADS
            store = reopen(backend, store)

    def test_the_newest_head_counts_and_the_others_stay(self, backend: Backend, store: LogStore) -> None:
        growth = Growth()
        update = replace(growth.next(3), rows=EventRows(streams=HEADS))
        store.commit(update)
        growth.accept(update)
        moved = {StreamName("a", "b"): head_of(Numbered.LOG, 2, 3)}
        store.commit(replace(growth.next(1), rows=EventRows(streams=moved)))
        assert store.read_streams() == reopen(backend, store).read_streams() == HEADS | moved


class TestNumbers:
    def test_are_of_one_stream_each(self, backend: Backend, store: LogStore) -> None:
        numbers = {
            (AGENT, 0): 0,
            (ACME, 0): 1,
            (AGENT, 2**53 - 1): 2,
            (StreamName("a", "b-c"), 7): 3,
            (StreamName("a-b", "c"), 7): 4,
        }
        store.commit(replace(Growth().next(5), rows=EventRows(numbers=numbers)))
        for _ in range(2):
            assert {name: store.find_number(*name) for name in numbers} == numbers
            assert store.find_number(AGENT, 1) is store.find_number(StreamName("agent", "acme"), 0) is None
            store = reopen(backend, store)


def test_a_closed_store_gives_nothing(store: LogStore) -> None:
    commit_rows(store, Growth())
    store.close()
    for call in (
        lambda: store.read_payloads([0]),
        lambda: store.read_blobs(0),
        lambda: store.find_ids([KEY]),
        store.read_streams,
        lambda: store.find_number(AGENT, 0),
    ):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.code == "store-closed"


class TestLevelDB:
    """What only files can do."""

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[LevelDBBackend]:
        backend = LevelDBBackend(tmp_path)
        yield backend
        backend.tear_down()

    def test_an_opaque_log_has_none_of_these_keys(self, backend: LevelDBBackend) -> None:
        store = backend.create(META)
        Growth().commit(store, 300)
        store.close()
        with backend.raw() as db:
            assert not [key for key, _ in db if key.startswith(keyspace.EVENT_PREFIXES)]

    def test_the_keys_are_those_of_the_table_and_no_others(self, backend: LevelDBBackend) -> None:
        store = backend.create(EVENTS_META)
        commit_rows(store, Growth())
        store.close()
        with backend.raw() as db:
            found = [key for key, _ in db if key.startswith(keyspace.EVENT_PREFIXES)]
        rows = rows_at(0)
        assert found == sorted(
            [
                *map(keyspace.payload_key, rows.payloads),
                *(keyspace.blob_key(*place) for place in rows.blobs),
                *map(keyspace.id_row_key, rows.ids),
                *map(keyspace.stream_row_key, rows.streams),
                *(keyspace.number_key(*name) for name in rows.numbers),
            ]
        )

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            (keyspace.payload_key(0), b""),
            (keyspace.payload_key(0), b"\x04\x00\x00"),
            (keyspace.stream_row_key(ACME), b""),
            (keyspace.stream_row_key(ACME), b"\x02" + bytes(24)),
            (b"nacme", bytes(25)),
            (keyspace.number_key(AGENT, 0), bytes(9)),
        ],
        ids=repr,
    )
    def test_a_row_that_nobody_writes_is_corruption(self, backend: LevelDBBackend, key: bytes, value: bytes) -> None:
        store = backend.create(EVENTS_META)
        commit_rows(store, Growth())
        store.close()
        with backend.raw() as db:
            db.put(key, value)
        store = backend.open()
        reads: dict[bytes, Callable[[], object]] = {
            b"p": lambda: store.read_payloads([1, 0]),
            b"n": store.read_streams,
            b"q": lambda: store.find_number(AGENT, 0),
        }
        with pytest.raises(CorruptionError):
            reads[key[:1]]()
        assert store.read_blobs(0) == [b"blob 0 of 0", b"blob 1 of 0"]


class TestMemory:
    """What only the memory adapter can do."""

    @pytest.mark.parametrize("fault", list(Fault))
    def test_a_fault_of_a_commit_takes_rows_and_entries_alike(self, fault: Fault) -> None:
        backend, growth = MemoryBackend(), Growth()
        store = backend.create(EVENTS_META)
        commit_rows(store, growth)
        backend.disk.faults = [("commit", fault)]
        with pytest.raises(StorageError):
            commit_rows(store, growth)
        applied = fault in (Fault.APPLIED_BUT_FAILED, Fault.CRASH_AFTER)
        store = backend.open()
        assert store.read_state().size == (6 if applied else 3)
        check_rows(store, 6 if applied else 3)

    @pytest.mark.parametrize(
        "rows",
        [
            EventRows(ids={KEY[:8] + bytes(8): keyspace.encode_first_id(3, MAC)}),
            EventRows(ids={KEY: keyspace.encode_first_id(3, MAC), KEY[:8] + bytes(8) + MAC: keyspace.encode_index(3)}),
            EventRows(numbers={(AGENT, 0): 3}),
            EventRows(streams={ACME: head_of(Numbered.LOG, 1, 3)}),
            EventRows(streams={ACME: head_of(Numbered.SENDER, 2, 3)}),
        ],
        ids=["an id again", "an id and content again", "a number again", "a stream that stands still", "numbered otherwise"],
    )
    def test_what_no_correct_log_writes_is_flagged(self, rows: EventRows) -> None:
        backend, growth = MemoryBackend(), Growth()
        store = backend.create(EVENTS_META)
        commit_rows(store, growth)
        with pytest.raises(CorruptionError):
            store.commit(replace(growth.next(3), rows=rows))
        check_rows(store, 3)
