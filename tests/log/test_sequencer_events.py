"""Events through the whole log service: numbered, deduplicated and answered at the commit point, whatever fails."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from log.harness import EVENTS_META, World, derive_rows, until, until_open, until_published
from translog.errors import (
    ConflictError,
    CorruptionError,
    HeldError,
    MalformedError,
    PushbackError,
    StorageError,
    TooLargeError,
    TranslogError,
)
from translog.events.entry import parse_entry
from translog.log.drafts import Conflict, Draft, Note, Placed
from translog.log.lifecycle import LogService, Mode
from translog.log.pool import Sequenced
from translog.storage import keyspace
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.memory import Fault, MemoryStore
from translog.storage.store import LogStore, PayloadRow, StreamName

ACME = StreamName("acme", "k8s-prod")
AGENT = StreamName("acme", "agent")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, meta=EVENTS_META)


def event(uid: str, content: str = "content", *, conflicts_with: int | None = None) -> Draft:
    return Draft(
        stream=ACME,
        root=sha256(f"{uid} {content} {conflicts_with}".encode()).digest(),
        record=b"\x01" + content.encode(),
        uid_key=keyspace.uid_key(ACME, uid),
        mac=sha256(content.encode()).digest()[:16],
        conflicts_with=conflicts_with,
    )


def sealed(seq: int, content: str = "content") -> Draft:
    return Draft(stream=AGENT, root=sha256(f"{seq} {content}".encode()).digest(), record=None, seq=seq)


def start(service: LogService, *items: Draft | Note) -> asyncio.Task[Sequenced]:
    return asyncio.create_task(service.append_events(items))


def placed(index: int, seq: int) -> Placed:
    return Placed(index=index, seq=seq)


def again(index: int) -> Placed:
    return Placed(index=index, seq=None, duplicate=True)


async def require_error(task: Awaitable[object], error: type[TranslogError], code: str) -> None:
    with pytest.raises(error) as caught:
        await task
    assert caught.value.code == code


def sample(service: LogService, name: str) -> float | None:
    return service.metrics.registry.get_sample_value(name)


def check(world: World) -> list[tuple[str, int, bytes]]:
    """The whole log holds, and what follows from its entries is what is stored. Returns stream, number and root of each."""
    entries = world.check()
    rows = derive_rows(world.disk)
    assert (world.disk.ids, world.disk.streams, world.disk.numbers) == (rows.ids, rows.streams, rows.numbers)
    assert list(world.disk.payloads) == list(range(len(entries)))
    events = [parse_entry(entry) for entry in entries]
    return [(parsed.stream, parsed.seq, parsed.root) for parsed in events]


class TestAppending:
    async def test_tells_where_and_when_and_what_became_of_each(self, world: World) -> None:
        async with world.running() as service:
            now = world.clock.wall
            assert await service.append_events([event("1"), sealed(0)]) == Sequenced(
                first=0, count=2, size=2, received_at_ms=now, outcomes=(placed(0, 0), placed(1, 0))
            )
            world.clock.advance(5)
            result = await service.append_events([event("1"), event("2"), event("1", "else"), sealed(0)])
            assert result == Sequenced(
                first=2,
                count=1,
                size=3,
                received_at_ms=now + 5,
                outcomes=(again(0), placed(2, 1), Conflict(index=0), Placed(index=1, seq=0, duplicate=True)),
            )
            assert list(result.indexes) == [2]
            await until_published(service, 3)
            assert [parse_entry(entry).received_at_ms for entry in world.disk.entries] == [now, now, now + 5]
            assert sample(service, "translog_appended_entries_total") == 3
            assert sample(service, "translog_appended_bytes_total") == sum(map(len, world.disk.entries))
            assert sample(service, "translog_known_events_total") == 3
        assert [stream for stream, _, _ in check(world)] == ["k8s-prod", "agent", "k8s-prod"]

    async def test_numbers_go_on_after_a_restart(self, world: World) -> None:
        for step in range(3):
            async with world.running() as service:
                result = await service.append_events([event(str(step)), sealed(step), event("0")])
                assert result.outcomes == (placed(2 * step, step), placed(2 * step + 1, step), again(0))
        check(world)

    async def test_what_waits_during_a_commit_forms_one_commit(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")
            first = start(service, event("first"))
            await gate.reached()
            rest = [start(service, event(str(n % 25)), sealed(n)) for n in range(50)]
            await until(lambda: service._pool.entries == 100)
            gate.open()
            results = [await first, *[await task for task in rest]]
            assert world.sizes("commit") == [1, 76]
        assert [result.count for result in results] == [1] + [2] * 25 + [1] * 25
        assert [result.first for result in results] == [0, *range(1, 51, 2), *range(51, 76)]
        assert sum(1 for _, seq, _ in check(world) if seq == 25) == 2

    async def test_an_opaque_log_takes_no_events_and_a_log_of_events_nothing_else(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "opaque").mkdir()
        opaque = World(tmp_path / "opaque")
        async with world.running() as service, opaque.running() as other:
            await require_error(service.append([b"a"]), MalformedError, "wrong-profile")
            await require_error(other.append_events([event("1")]), MalformedError, "wrong-profile")
            assert await other.read_streams() == {}
            assert service.integrated.size == other.integrated.size == 0
            refused = service.metrics.registry.get_sample_value("translog_pushbacks_total", {"code": "wrong-profile"})
            assert refused == 1
            assert (await service.append_events([event("1")])).count == (await other.append([b"a"])).count == 1

    async def test_what_cannot_be_kept_is_refused_before_it_is_queued(self, world: World) -> None:
        async with world.running() as service:
            for items in ([], [event("1"), Draft(stream=ACME, root=b"", record=b"\x01")]):
                with pytest.raises(MalformedError):
                    await service.append_events(items)
            assert service.integrated.size == 0
            assert (await service.append_events([event("1")])).first == 0

    async def test_the_pool_counts_records_and_blobs(self, world: World) -> None:
        world.settings = world.settings.model_copy(update={"pool_bytes_max": 100_000})
        async with world.running() as service:
            large = Draft(stream=ACME, root=bytes(32), record=bytes(40_000), blobs=(bytes(50_000),))
            with pytest.raises(TooLargeError):
                await service.append_events([large, large])
            gate = world.gate("commit")
            first = start(service, event("1"))
            await gate.reached()
            second = start(service, large)
            await until(lambda: service._pool.entries == 1)
            await require_error(service.append_events([large]), PushbackError, "pool-full")
            gate.open()
            assert (await first, (await second).first)[1] == 1


class TestNothingNew:
    async def test_duplicates_are_answered_without_a_commit(self, world: World) -> None:
        async with world.running() as service:
            await service.append_events([event("1"), event("2")])
            await until_published(service, 2)
            before = (world.sizes("commit"), world.sizes("head"), sample(service, "translog_batch_entries_count"))
            state = service.integrated
            world.clock.advance(7)
            result = await service.append_events([event("2"), event("1"), event("1", "else")])
            assert result == Sequenced(
                first=2,
                count=0,
                size=2,
                received_at_ms=world.clock.wall - 7,
                outcomes=(again(1), again(0), Conflict(index=0)),
            )
            with pytest.raises(ConflictError):
                await service.append_events([event("3"), sealed(1)])
            assert (world.sizes("commit"), world.sizes("head"), sample(service, "translog_batch_entries_count")) == before
            assert service.integrated is state, "something was told to be published"
            assert await service.wait_published(result.size, timeout_ms=0)
        check(world)

    @pytest.mark.parametrize("point", ["commit", "committed"])
    async def test_a_duplicate_of_what_is_not_committed_waits_for_it(self, world: World, point: str) -> None:
        async with world.running() as service:
            gate = world.gate(point)
            first = start(service, event("1"))
            await gate.reached()
            duplicate, conflict = start(service, event("1")), start(service, event("1", "else"))
            await until(lambda: service._pool.entries == 2)
            await asyncio.sleep(0.01)  # time enough to go wrong; the gate decides, not the clock
            assert not duplicate.done()
            assert not conflict.done()
            gate.open()
            assert (await first).outcomes == (placed(0, 0),)
            assert (await duplicate).outcomes == (again(0),)
            assert (await conflict).outcomes == (Conflict(index=0),)
            assert world.sizes("commit") == [1]

    @pytest.mark.parametrize("fault", list(Fault))
    async def test_nobody_hears_of_a_duplicate_whose_commit_failed(self, world: World, fault: Fault) -> None:
        async with world.running() as service:
            await service.append_events([event("0")])
            gate = world.gate("commit")
            blocking = start(service, event("blocking"))
            await gate.reached()
            tasks = [
                start(service, event("1")),
                start(service, event("1")),
                start(service, event("1", "else")),
                start(service, sealed(5)),
            ]
            await until(lambda: service._pool.entries == 4)
            second = world.gate("commit")
            gate.open()
            await blocking
            await second.reached()
            world.disk.faults = [("commit", fault)]
            second.open()
            for task in tasks:
                await require_error(task, StorageError, "outcome-unknown")
            await until(lambda: len(world.opened) == 2)
            await until_open(service)
            applied = fault in (Fault.APPLIED_BUT_FAILED, Fault.CRASH_AFTER)
            result = await service.append_events([event("1"), event("1", "else")])
            assert result.outcomes == (again(2) if applied else placed(2, 2), Conflict(index=2))
            marked = await service.append_events([event("1", "else", conflicts_with=2)])
            assert marked.outcomes == (placed(3, 3),)
            await until_published(service, marked.size)
        check(world)


class TestConflicts:
    async def test_a_refused_submission_leaves_the_others_of_its_commit(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")
            blocking = start(service, sealed(0))
            await gate.reached()
            fork = start(service, event("1"), sealed(0, "forged"))
            high = start(service, event("1"), sealed(2))
            good = start(service, event("1"), sealed(1))
            wrong = start(service, Draft(stream=AGENT, root=bytes(32), record=b"\x01"))
            await until(lambda: service._pool.entries == 7)
            gate.open()
            await blocking
            await require_error(fork, ConflictError, "stream-forked")
            await require_error(high, ConflictError, "wrong-number")
            await require_error(wrong, ConflictError, "numbered-otherwise")
            assert (await good).outcomes == (placed(1, 0), placed(2, 1))
            await until_published(service, 3)
            assert service.mode is Mode.OPEN
        check(world)

    async def test_who_went_away_does_not_disturb_the_rest(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")
            tasks = [start(service, event("0"))]
            await gate.reached()
            tasks += [start(service, event("1")), start(service, sealed(7)), start(service, event("1"))]
            await until(lambda: service._pool.entries == 3)
            for task in tasks[:3]:
                task.cancel()
            gate.open()
            assert (await tasks[3]).outcomes == (again(1),)


class TestReading:
    async def test_streams_and_rows_are_read_as_committed(self, world: World) -> None:
        async with world.running() as service:
            assert await service.read_streams() == {}
            await service.append_events([event("1"), event("2"), sealed(0)])
            streams = await service.read_streams()
            assert {name: head.next_seq for name, head in streams.items()} == {ACME: 2, AGENT: 1}
            assert streams == world.disk.streams
            rows = await service.read_store(lambda store: store.read_payloads([2, 0]))
            assert rows == [PayloadRow(record=None), world.disk.payloads[0]]

    async def test_corruption_holds_the_log_and_other_errors_do_not(self, world: World) -> None:
        def fail(error: TranslogError) -> Callable[[LogStore], None]:
            def read(_: LogStore) -> None:
                raise error

            return read

        async with world.running() as service:
            with pytest.raises(StorageError):
                await service.read_store(fail(StorageError("gone")))
            assert service.mode is Mode.OPEN
            with pytest.raises(CorruptionError):
                await service.read_store(fail(CorruptionError("damaged")))
            with pytest.raises(HeldError):
                await service.append_events([event("1")])

    async def test_before_and_after_its_life_there_is_no_store(self, world: World) -> None:
        service = world.service()
        await require_error(service.read_streams(), StorageError, "store-closed")
        await service.start()
        await service.stop(drain_ms=0)
        await require_error(service.read_streams(), StorageError, "store-closed")


class TestDamagedStreams:
    @pytest.fixture
    def damage(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        def read_streams(_: object) -> dict[Any, Any]:
            raise CorruptionError("a row of a stream is damaged")

        return lambda: monkeypatch.setattr(MemoryStore, "read_streams", read_streams)

    async def test_keep_the_log_from_starting_everything_closed(self, world: World, damage: Callable[[], None]) -> None:
        damage()
        service = world.service()
        with pytest.raises(CorruptionError):
            await service.start()
        assert service.mode is Mode.STOPPING
        with pytest.raises(StorageError):
            world.opened[-1].read_state()
        assert world.signed == []

    async def test_hold_a_log_that_is_opened_anew(self, world: World, damage: Callable[[], None]) -> None:
        async with world.running() as service:
            await service.append_events([event("1")])
            await until_published(service, 1)
            world.disk.faults = [("commit", Fault.REFUSED)]
            damage()
            await require_error(service.append_events([event("2")]), StorageError, "outcome-unknown")
            await until(lambda: service.mode is Mode.HELD)
            with pytest.raises(HeldError):
                await service.append_events([event("2")])

    async def test_do_not_matter_to_an_opaque_log(self, tmp_path: Path, damage: Callable[[], None]) -> None:
        damage()
        world = World(tmp_path)
        async with world.running() as service:
            assert (await service.append([b"a"])).first == 0


# --- exactly once -------------------------------------------------------------------------------------------------------


@dataclass
class Senders:
    """Senders that send everything again until it is answered, to a log that fails at random."""

    world: World
    random: Random
    service: LogService
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    agent: list[Draft] = field(default_factory=list)

    async def send(self, items: Sequence[Draft]) -> Sequenced:
        while True:
            await until(lambda: self.service.mode is Mode.OPEN)
            try:
                return await self.service.append_events(items)
            except (PushbackError, StorageError):
                continue

    async def member(self, name: int) -> None:
        """Log-numbered, with ids; now and then one comes twice, or with other content."""
        for number in range(self.random.randrange(1, 6)):
            items = [event(f"{name}/{number}/{n}") for n in range(self.random.choice([1, 1, 3, 40]))]
            items += self.random.sample(items, self.random.randrange(2))
            result = await self.send(items)
            for item, outcome in zip(items, result.outcomes, strict=True):
                assert isinstance(outcome, Placed)
                assert item.uid_key is not None
                assert self.acknowledged.setdefault(item.uid_key, outcome.index) == outcome.index
            other = event(f"{name}/{number}/0", "else")
            (conflict,) = (await self.send([other])).outcomes
            assert conflict == Conflict(index=self.acknowledged[event(f"{name}/{number}/0").uid_key or b""])
            marked = event(f"{name}/{number}/0", "else", conflicts_with=conflict.index)
            (kept,) = (await self.send([marked])).outcomes
            assert isinstance(kept, Placed)
            assert marked.uid_key is not None
            assert self.acknowledged.setdefault(marked.uid_key + marked.mac, kept.index) == kept.index

    async def sender(self) -> None:
        """Sender-numbered."""
        while len(self.agent) < 40:
            items = [sealed(len(self.agent) + n) for n in range(self.random.randrange(1, 8))]
            result = await self.send(items)
            assert [outcome.seq for outcome in result.outcomes if isinstance(outcome, Placed)] == [item.seq for item in items]
            self.agent += items

    async def trouble(self) -> None:
        """Faults, until cancelled."""
        while True:
            await asyncio.sleep(0.002)
            if self.random.random() < 0.5 and not self.world.disk.faults:
                self.world.disk.faults = [("commit", self.random.choice(list(Fault)))]


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_sent_until_it_is_answered_is_there_once_whatever_fails(world: World, seed: int) -> None:
    async with world.running() as service:
        senders = Senders(world, Random(seed), service)
        trouble = asyncio.create_task(senders.trouble())
        await asyncio.gather(*(senders.member(name) for name in range(6)), senders.sender())
        trouble.cancel()
        world.disk.faults = []
        await until_open(service)
        await service.append_events([event("last")])
        await until_published(service, service.integrated.size)
    events = check(world)
    assert [(seq, root) for stream, seq, root in events if stream == "agent"] == [
        (item.seq, item.root) for item in senders.agent
    ]
    told = {key: int.from_bytes(value[:8], "big") for key, value in world.disk.ids.items()}
    assert told == senders.acknowledged | {event("last").uid_key: len(events) - 1}
    assert len(set(told.values())) == len(told) == sum(stream == "k8s-prod" for stream, _, _ in events)


async def test_the_same_on_files(world: World, tmp_path: Path) -> None:
    """The adapters pass the same contract; this once, the whole way over the real one."""
    with DirectoryLock(tmp_path) as lock:
        LevelDBStore.create(lock, EVENTS_META).close()
        world.open_store = lambda: LevelDBStore.open(lock)  # type: ignore[assignment,return-value,method-assign]
        for step in range(3):
            async with world.running() as service:
                fresh = [event(f"{step}/{n}") for n in range(300)]
                result = await service.append_events([*fresh, event("0/0"), event("0/0", f"else {step}"), sealed(step)])
                known: list[Placed | Conflict] = [again(0), Conflict(index=0)]
                assert list(result.outcomes[300:302]) == known
                marked = event("0/0", f"else {step}", conflicts_with=0)
                assert (await service.append_events([marked])).count == 1
                again_marked = await service.append_events([marked, *fresh, sealed(step)])
                assert (again_marked.count, again_marked.size) == (0, 302 * (step + 1))
                assert [outcome.index for outcome in again_marked.outcomes[1:301]] == list(range(302 * step, 302 * step + 300))
                streams = await service.read_streams()
                assert {name: head.next_seq for name, head in streams.items()} == {ACME: 301 * (step + 1), AGENT: step + 1}
                await until_published(service, service.integrated.size)
