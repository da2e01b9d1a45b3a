"""Start-up, "never signing two histories", recovery from failed writes, hold, drain and stop; then the whole log verified."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from log.check_log import check_log
from log.harness import META, ORIGIN, POLICY, HeadFault, World, until, until_open, until_published
from translog.core.merkle import EMPTY_ROOT, hash_leaf
from translog.core.proof import parse_receipt, verify_receipt
from translog.errors import CorruptionError, FenceError, HeldError, NotFoundError, PushbackError, StorageError
from translog.log import lifecycle
from translog.log.clock import SystemClock
from translog.log.head import HeadFile
from translog.log.lifecycle import LogService, Mode
from translog.log.metrics import LogMetrics
from translog.log.reader import Published
from translog.log.settings import LogSettings
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.memory import Fault, MemoryStore
from translog.storage.store import StoredCheckpoint


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def grow(service: LogService, count: int) -> None:
    """Appends entries, one publication each."""
    for _ in range(count):
        result = await service.append([b"entry %d" % service.integrated.size])
        await until_published(service, result.size)


async def run_to(world: World, size: int) -> None:
    """A log that grew to `size` and was stopped in peace."""
    async with world.running() as service:
        await grow(service, size)


class TestStart:
    async def test_comes_up_where_it_was(self, world: World) -> None:
        for size in (3, 6):
            async with world.running() as service:
                assert service.mode is Mode.OPEN
                assert service.integrated.size == size - 3
                await grow(service, 3)
        assert world.check() == [b"entry %d" % n for n in range(6)]

    async def test_publishes_what_is_integrated_without_waiting_for_an_append(self, world: World) -> None:
        world.fill([b"a", b"b"])
        async with world.running() as service:
            assert service.published is not None
            assert service.published.size == 2
        assert world.read_head().size == 2
        world.check()

    @pytest.mark.parametrize("behind", [0, 1])
    @pytest.mark.parametrize("size", [10, 10_000, 70_000])
    async def test_reads_a_bounded_number_of_tiles(self, world: World, size: int, behind: int) -> None:
        entries = [b"%d" % n for n in range(size)]
        world.fill(entries)
        known = World(world.head_path.parent)  # the root one entry earlier, by another log
        known.fill(entries[: size - behind])
        HeadFile.create(world.head_path, origin=ORIGIN, size=size - behind, root=known.disk.state.root)
        async with world.running() as service:
            assert service.mode is Mode.OPEN
            assert service.integrated.size == size
            assert 1 <= world.tiles_read <= 12
            assert world.entries_read == 0
            assert (await service.append([b"next"])).first == size

    async def test_before_it_nothing_is_taken_or_shown(self, world: World) -> None:
        service = world.service()
        assert service.mode is Mode.STARTING
        assert service.published is None
        for call in (lambda: service.append([b"a"]), lambda: service.read(lambda reader: reader.checkpoint())):
            with pytest.raises(PushbackError) as caught:
                await call()
            assert caught.value.code == "not-open"
        with pytest.raises(StorageError):
            await service.read_integrated(start=0, end=0)
        await service.stop(drain_ms=0)

    @pytest.mark.parametrize("arrange", ["store", "publish", "head"])
    async def test_that_fails_closes_everything_and_may_be_tried_again(self, world: World, arrange: str) -> None:
        world.fill([b"a"])
        world.open_failures = int(arrange == "store")
        world.disk.faults = [("publish", Fault.REFUSED)] if arrange == "publish" else []
        world.head_faults = ["refused"] if arrange == "head" else []
        service = world.service()
        with pytest.raises(StorageError):
            await service.start()
        assert service.mode is Mode.STOPPING
        self.require_all_closed(world)
        async with world.running() as service:
            await grow(service, 1)
        world.check()

    @pytest.mark.parametrize(
        "damage",
        [
            lambda disk: disk.tiles.update({(0, 0): bytes(32) + disk.tiles[0, 0][32:]}),
            lambda disk: disk.tiles.pop((0, 0)),
            lambda disk: setattr(disk, "latest", StoredCheckpoint(size=3, note=b"no note")),
            lambda disk: setattr(disk, "latest", StoredCheckpoint(size=2, note=disk.latest.note)),
        ],
        ids=["a wrong tile", "a lost tile", "a wrong checkpoint", "a checkpoint of another size"],
    )
    async def test_on_a_damaged_store_is_refused(self, world: World, damage: Callable[[object], None]) -> None:
        await run_to(world, 3)
        damage(world.disk)
        world.signed.clear()
        with pytest.raises(CorruptionError):
            await world.service().start()
        self.require_all_closed(world)
        assert not world.signed

    async def test_while_the_clock_jumps_is_put_off(self, world: World) -> None:
        service = world.service()
        world.clock.wall += 60_000
        with pytest.raises(PushbackError):
            await service.start()
        self.require_all_closed(world)

    def require_all_closed(self, world: World) -> None:
        for store in world.opened:
            with pytest.raises(StorageError):
                store.read_state()
        heads_opened = len([event for event in world.events if event[0] == "close head"])
        assert heads_opened == len(world.opened)


def make_store_behind(world: World) -> None:
    HeadFile.create(world.head_path, origin=ORIGIN, size=6, root=world.disk.state.root)


def make_root_differ(world: World) -> None:
    HeadFile.create(world.head_path, origin=ORIGIN, size=5, root=bytes(32))


def make_older_root_differ(world: World) -> None:
    HeadFile.create(world.head_path, origin=ORIGIN, size=4, root=world.disk.state.root)


def make_empty_root_differ(world: World) -> None:
    HeadFile.create(world.head_path, origin=ORIGIN, size=0, root=bytes(32))


def make_head_damaged(world: World) -> None:
    world.head_path.write_bytes(bytes(8_192))


def make_head_missing(world: World) -> None:
    world.head_path.unlink()


def make_head_older(world: World) -> None:
    HeadFile.create(world.head_path, origin=ORIGIN, size=0, root=EMPTY_ROOT)


def make_hold(world: World) -> None:
    HeadFile.create(world.head_path, origin=ORIGIN, size=5, root=world.disk.state.root, hold=True)


def make_head_of_another_log(world: World) -> None:
    HeadFile.create(world.head_path, origin="log.example/other", size=5, root=world.disk.state.root)


HELD: dict[Callable[[World], None], str] = {
    make_store_behind: "store-behind-head",
    make_root_differ: "head-mismatch",
    make_older_root_differ: "head-mismatch",
    make_empty_root_differ: "head-mismatch",
    make_head_damaged: "head-lost",
    make_head_missing: "head-lost",
    make_head_older: "head-behind",
    make_hold: "on-hold",
    make_head_of_another_log: "head-of-another-log",
}


class TestNeverSigningTwoHistories:
    @pytest.mark.parametrize(("arrange", "code"), HELD.items(), ids=lambda item: getattr(item, "__name__", item))
    async def test_what_does_not_fit_together_is_held(self, world: World, arrange: Callable[[World], None], code: str) -> None:
        await run_to(world, 5)
        arrange(world)
        world.signed.clear()
        writes = [event for event in world.events if event[0] in ("commit", "publish", "head")]
        for _ in range(2):  # and stays so
            async with world.running() as service:
                assert service.mode is Mode.HELD
                assert service.held is not None
                assert service.held.code == code
                assert service.held.hint
                await self.check_serves_and_takes_nothing(service)
        assert not world.signed
        assert [event for event in world.events if event[0] in ("commit", "publish", "head")] == writes

    async def check_serves_and_takes_nothing(self, service: LogService) -> None:
        receipt = await service.read(lambda reader: reader.receipt(index=3))
        verify_receipt(parse_receipt(receipt), leaf_hash=hash_leaf(b"entry 3"), policy=POLICY)
        assert await service.read(lambda reader: reader.entries(start=0, end=9, entry_bytes_max=1_000)) == [
            b"entry %d" % n for n in range(5)
        ]
        assert await service.wait_published(5, timeout_ms=0)
        with pytest.raises(HeldError) as caught:
            await service.append([b"x"])
        assert service.held is not None
        assert service.held.detail in caught.value.detail
        assert caught.value.hint == service.held.hint
        assert service.metrics.registry.get_sample_value("translog_accepting") == 0

    async def test_a_held_log_without_a_checkpoint_shows_nothing(self, world: World) -> None:
        make_head_missing(world)
        async with world.running() as service:
            assert service.mode is Mode.HELD
            assert service.published is None
            with pytest.raises(PushbackError):
                await service.read(lambda reader: reader.checkpoint())

    @pytest.mark.parametrize("size", [0, 1, 4, 5])
    async def test_a_head_at_or_behind_the_store_of_the_same_history_may_sign(self, world: World, size: int) -> None:
        """A crash between the commit and the head: the store is ahead of both."""
        roots = {0: EMPTY_ROOT}
        async with world.running() as service:
            while service.integrated.size < 5:
                await grow(service, 1)
                roots[service.integrated.size] = service.integrated.root
        world.disk.latest = None if size == 0 else MemoryStore(world.disk).find_checkpoint_below(size_max=size)
        HeadFile.create(world.head_path, origin=ORIGIN, size=size, root=roots[size])
        async with world.running() as service:
            assert service.mode is Mode.OPEN
            assert service.published is not None
            assert service.published.size == 5
        assert world.read_head().size == 5
        world.check()

    async def test_a_slot_torn_by_a_crash_is_no_reason_to_hold(self, world: World) -> None:
        await run_to(world, 5)
        data = bytearray(world.head_path.read_bytes())
        torn = world.read_head().counter % 2 * 4_096
        data[torn : torn + 50] = bytes(50)
        world.head_path.write_bytes(data)
        # the crash came before the signature, so before the checkpoint
        world.disk.latest = MemoryStore(world.disk).find_checkpoint_below(size_max=4)
        async with world.running() as service:
            assert service.mode is Mode.OPEN
            await grow(service, 1)
        world.check()

    async def test_a_head_put_back_lets_the_log_go_on(self, world: World) -> None:
        await run_to(world, 5)
        aside = world.head_path.rename(world.head_path.with_name("aside"))
        async with world.running() as service:
            assert service.mode is Mode.HELD
        aside.rename(world.head_path)
        async with world.running() as service:
            await grow(service, 1)
        world.check()


class TestRequireNotNewer:
    """What `translog resume` and `restore` ask before they replace the head."""

    def ask(self, world: World, *, size: int = 5) -> None:
        file = HeadFile.open(world.head_path, origin=ORIGIN)
        try:
            file.require_not_newer(size=size, root_at=lambda size: bytes([size]) * 32)
        finally:
            file.close()

    @pytest.mark.parametrize("size", [0, 4, 5])
    def test_an_older_head_of_this_history_is_fine(self, world: World, size: int) -> None:
        HeadFile.create(world.head_path, origin=ORIGIN, size=size, root=bytes([size]) * 32)
        self.ask(world)

    @pytest.mark.parametrize(("size", "root"), [(6, bytes([6]) * 32), (5, bytes(32)), (0, EMPTY_ROOT)])
    def test_a_newer_head_or_one_of_another_history_is_not(self, world: World, size: int, root: bytes) -> None:
        HeadFile.create(world.head_path, origin=ORIGIN, size=size, root=root)
        with pytest.raises(HeldError) as caught:
            self.ask(world)
        assert caught.value.code == "head-contradicts"

    def test_a_head_of_another_log_is_not(self, world: World) -> None:
        make_head_of_another_log(world)
        with pytest.raises(HeldError) as caught:
            self.ask(world)
        assert caught.value.code == "head-of-another-log"

    @pytest.mark.parametrize("arrange", [make_head_damaged, make_head_missing])
    def test_without_a_head_nothing_speaks_against_it(self, world: World, arrange: Callable[[World], None]) -> None:
        arrange(world)
        self.ask(world)


FAILURES: list[tuple[str, Fault | HeadFault, int]] = [
    *((kind, fault, times) for kind in ("commit", "publish") for fault in Fault for times in (1, 3)),
    ("head", "refused", 1),
    ("head", "refused", 3),
    ("head", "torn", 1),
    ("head", "torn", 3),
    ("head", "applied", 1),
]
"""What fails, how, and how often in a row."""


class TestFailedWrite:
    @pytest.mark.parametrize(("kind", "fault", "times"), FAILURES, ids=str)
    async def test_opens_the_log_anew_and_goes_on(
        self, world: World, kind: str, fault: Fault | HeadFault, times: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = world.service()
        shown: list[int] = []
        real = service._show

        def show(published: Published) -> None:
            shown.append(published.size)
            real(published)

        monkeypatch.setattr(service, "_show", show)
        await service.start()
        await grow(service, 3)
        if isinstance(fault, Fault):
            world.disk.faults = [("commit", fault) if kind == "commit" else ("publish", fault)]
            world.disk.faults += [("publish", fault)] * (times - 1)  # the reopening fails as well
        else:
            world.head_faults = [fault] * times
        expected = [b"entry 0", b"entry 1", b"entry 2"]
        if kind == "commit":
            with pytest.raises(StorageError) as caught:
                await service.append([b"a", b"b"])
            assert caught.value.code == "outcome-unknown"
            if fault in (Fault.APPLIED_BUT_FAILED, Fault.CRASH_AFTER):
                expected += [b"a", b"b"]
        else:
            await service.append([b"a", b"b"])
            expected += [b"a", b"b"]
        await until(lambda: len(world.opened) == 1 + times)
        await until_published(service, len(expected))
        await until_open(service)
        result = await service.append([b"after"])
        assert result.first == len(expected)
        await until_published(service, result.size)
        assert service.metrics.registry.get_sample_value("translog_failed_writes_total") == 1
        await service.stop(drain_ms=0)
        assert world.check() == [*expected, b"after"]
        assert not world.disk.faults
        assert not world.head_faults
        assert shown == sorted(shown), "the published state went backwards"

    async def test_what_was_shown_stays_shown_though_the_publication_was_lost(self, world: World) -> None:
        async with world.running() as service:
            await grow(service, 3)
            lost = service.published
            world.disk.faults = [("commit", Fault.CRASH_BEFORE)]
            gate = world.gate("sign")  # of the reopening
            with pytest.raises(StorageError):
                await service.append([b"x"])
            await gate.reached()
            forgotten = world.opened[-1].read_checkpoint()
            assert forgotten is None or forgotten.size < 3
            assert service.published == lost
            assert lost is not None
            assert await service.read(lambda reader: reader.checkpoint()) == lost.note
            gate.open()
            await until_open(service)
        world.check()

    async def test_while_reopening_entries_are_pushed_back(self, world: World) -> None:
        async with world.running() as service:
            await grow(service, 1)
            world.disk.faults = [("publish", Fault.REFUSED)]
            gate = world.gate("close store")
            await service.append([b"x"])
            await gate.reached()
            assert service.mode is Mode.REOPENING
            assert service.metrics.registry.get_sample_value("translog_accepting") == 0
            with pytest.raises(PushbackError) as caught:
                await service.append([b"y"])
            assert caught.value.code == "not-open"
            assert caught.value.retry_after_ms > 0
            gate.open()
            await until_open(service)
            await until_published(service, 2)
        assert world.check() == [b"entry 0", b"x"]

    async def test_reopening_is_tried_until_it_works(self, world: World) -> None:
        async with world.running() as service:
            await grow(service, 1)
            world.open_failures = 4
            world.disk.faults = [("publish", Fault.REFUSED)]
            with capture_logs() as logs:
                await service.append([b"x"])
                await until_published(service, 2)
                await until_open(service)
        waits = [log["wait_ms"] for log in logs if log["event"].startswith("a write failed")]
        assert waits == [1, 2, 4, 8, 16]
        world.check()

    async def test_reopening_a_store_that_is_damaged_holds_the_log(self, world: World) -> None:
        async with world.running() as service:
            await grow(service, 1)
            world.disk.tiles[0, 0] = bytes(64)
            world.disk.faults = [("commit", Fault.APPLIED_BUT_FAILED)]
            signed = len(world.signed)
            with pytest.raises((StorageError, CorruptionError)):
                await service.append([b"x"])
            await until(lambda: service.mode is Mode.HELD)
            with pytest.raises(HeldError):
                await service.append([b"y"])
            assert len(world.signed) == signed

    @pytest.mark.parametrize(
        "arrange", [make_head_missing, make_store_behind, make_root_differ], ids=lambda made: made.__name__
    )
    async def test_reopening_obeys_the_rules_of_starting(self, world: World, arrange: Callable[[World], None]) -> None:
        async with world.running() as service:
            await grow(service, 5)
            world.disk.faults = [("commit", Fault.REFUSED)]
            arrange(world)
            signed = len(world.signed)
            with pytest.raises(StorageError):
                await service.append([b"x"])
            await until(lambda: service.mode is Mode.HELD)
            assert service.held is not None
            assert service.held.code == HELD[arrange]
            assert len(world.signed) == signed
            assert await service.read(lambda reader: reader.entries(start=4, end=5, entry_bytes_max=1_000)) == [b"entry 4"]

    async def test_another_writer_holds_the_log(self, world: World) -> None:
        """The fence: the store is not where this writer left it."""
        async with world.running() as service:
            await grow(service, 1)
            intruder = World(world.head_path.parent)
            intruder.fill([b"entry 0", b"of somebody else"])
            world.disk.state = intruder.disk.state
            with pytest.raises(StorageError):
                await service.append([b"x"])
            await until(lambda: service.mode is Mode.HELD)
            assert isinstance(service.held, FenceError)
            with pytest.raises(HeldError):
                await service.append([b"y"])

    async def test_a_signer_that_breaks_holds_the_log(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        async with world.running() as service:
            await grow(service, 1)

            def sign(*_: object, **__: object) -> bytes:
                raise RuntimeError("the device is gone")

            monkeypatch.setattr(type(world.signer), "sign", sign)
            await service.append([b"x"])  # durable
            await until(lambda: service.mode is Mode.HELD)
            assert "the device is gone" in str(service.held)
        monkeypatch.undo()
        async with world.running() as service:
            assert service.published is not None
            assert service.published.size == 2
        world.check()


class TestHold:
    async def test_corruption_in_a_read_holds_the_log(self, world: World) -> None:
        world.fill([b"%d" % n for n in range(600)])
        async with world.running() as service:
            world.disk.tiles[0, 1] = bytes(256 * 32)
            signed = len(world.signed)
            with pytest.raises(CorruptionError):
                await service.read(lambda reader: reader.inclusion(index=300))
            assert service.mode is Mode.HELD
            with pytest.raises(HeldError):
                await service.append([b"x"])
            # what is whole is still served
            assert await service.read(lambda reader: reader.inclusion(index=3))
            assert await service.read(lambda reader: reader.checkpoint())
            with pytest.raises(CorruptionError):
                await service.read(lambda reader: reader.inclusion(index=301))
            assert len(world.signed) == signed
            assert world.sizes("commit") == []

    async def test_those_who_wait_are_told(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")
            in_flight = asyncio.create_task(service.append([b"a"]))
            await gate.reached()
            waiting = asyncio.create_task(service.append([b"b"]))
            await until(lambda: service._pool.entries == 1)

            def corrupt(_: object) -> None:
                raise CorruptionError("rotten")

            with pytest.raises(CorruptionError):
                await service.read(corrupt)
            with pytest.raises(HeldError):
                await waiting
            gate.open()
            assert (await in_flight).first == 0  # it was committed, so it says so
            assert service.mode is Mode.HELD
        assert world.disk.entries == [b"a"]

    async def test_an_error_of_the_reader_alone_does_not(self, world: World) -> None:
        async with world.running() as service:
            with pytest.raises(NotFoundError):
                await service.read(lambda reader: reader.receipt(index=0))
            await grow(service, 1)
            assert service.mode is Mode.OPEN


class TestClockWatch:
    async def test_tells_of_a_jump_once_and_of_its_end(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lifecycle, "_CLOCK_WATCH_S", 0.001)
        with capture_logs() as logs:
            async with world.running() as service:

                def jump() -> float | None:
                    return service.metrics.registry.get_sample_value("translog_clock_jump_seconds")

                world.clock.wall += 60_000
                await until(lambda: jump() == 60)
                world.clock.wall -= 60_000
                await until(lambda: jump() == 0)
                world.clock.wall -= 60_000
                await until(lambda: jump() == -60)
        told = [(log["log_level"], log["event"]) for log in logs if "clock" in log["event"]]
        assert [level for level, _ in told] == ["critical", "info", "critical"]


class TestStop:
    async def test_drains_what_waits_and_refuses_what_comes(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")
            tasks = [asyncio.create_task(service.append([b"%d" % n])) for n in range(3)]
            await gate.reached()
            stopping = asyncio.create_task(service.stop(drain_ms=10_000))
            await until(lambda: service.mode is Mode.STOPPING)
            with pytest.raises(PushbackError) as caught:
                await service.append([b"late"])
            assert caught.value.code == "not-open"
            assert not stopping.done()
            gate.open()
            assert sorted([(await task).first for task in tasks]) == [0, 1, 2]
            await stopping
        assert sorted(world.check()) == [b"0", b"1", b"2"]

    async def test_publishes_for_those_who_wait_for_that(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")

            async def append_and_wait() -> bool:
                result = await service.append([b"a"])
                return await service.wait_published(result.size, timeout_ms=500)

            task = asyncio.create_task(append_and_wait())
            await gate.reached()
            stopping = asyncio.create_task(service.stop(drain_ms=10_000))
            gate.open()
            assert await task
            await stopping
        assert MemoryStore(world.disk).read_checkpoint() == world.opened[-1]._latest
        assert world.sizes("published")[-1] == 1
        world.check()

    async def test_publishes_what_it_committed(self, world: World) -> None:
        for _ in range(5):  # a race of two threads, so more than once
            async with world.running() as service:
                gate = world.gate("commit")
                task = asyncio.create_task(service.append([b"a"]))
                await gate.reached()
                stopping = asyncio.create_task(service.stop(drain_ms=10_000))
                gate.open()
                result = await task
                await stopping
            assert world.sizes("published")[-1] == result.size

    async def test_without_time_to_drain_tells_everyone(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")
            in_flight = asyncio.create_task(service.append([b"a"]))
            await gate.reached()
            waiting = asyncio.create_task(service.append([b"b"]))
            await until(lambda: service._pool.entries == 1)
            stopping = asyncio.create_task(service.stop(drain_ms=0))
            await until(lambda: service._task is not None and service._task.cancelling() > 0)
            gate.open()
            with pytest.raises(PushbackError):
                await waiting
            assert (await in_flight).first == 0
            await stopping
        assert world.disk.entries == [b"a"]

    async def test_waits_for_a_publication_under_way(self, world: World) -> None:
        closed_under_it = threading.Event()
        async with world.running() as service:
            gate = world.gate("head")
            await service.append([b"a"])
            await gate.reached()

            def note(what: str, size: int, real: Callable[[str, int], None] = world.note) -> None:
                if what == "close head":
                    closed_under_it.set()
                    gate.open()
                real(what, size)

            world.note = note  # type: ignore[method-assign]
            stopping = asyncio.create_task(service.stop(drain_ms=0))
            await asyncio.to_thread(closed_under_it.wait, 0.3)
            too_early = closed_under_it.is_set()
            gate.open()
            await stopping
        assert not too_early, "the head file was closed while a thread was about to write to it"

    async def test_stays_stopping_through_a_failed_write(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")
            world.disk.faults = [("commit", Fault.REFUSED)]
            lost = asyncio.create_task(service.append([b"a"]))
            holds_the_drain = asyncio.create_task(service.wait_published(1, timeout_ms=500))
            await gate.reached()
            stopping = asyncio.create_task(service.stop(drain_ms=10_000))
            await until(lambda: service.mode is Mode.STOPPING)
            gate.open()
            with pytest.raises(StorageError):
                await lost
            modes = set()
            while not stopping.done():
                modes.add(service.mode)
                await asyncio.sleep(0.001)
            await holds_the_drain
            assert modes == {Mode.STOPPING}

    async def test_during_a_reopening_leaves_nothing_open(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        service = world.service()
        await service.start()
        started, release = threading.Event(), threading.Event()
        real = world.open_head

        def open_head() -> HeadFile:
            started.set()
            release.wait(10)
            return real()

        monkeypatch.setattr(service, "_open_head", open_head)
        world.disk.faults = [("commit", Fault.REFUSED)]
        with pytest.raises(StorageError):
            await service.append([b"a"])
        assert await asyncio.to_thread(started.wait, 10)
        threading.Timer(0.05, release.set).start()  # not from the event loop, which stop may block
        await service.stop(drain_ms=0)
        with pytest.raises(StorageError):
            world.opened[-1].read_state()

    async def test_of_a_held_log_is_quiet(self, world: World) -> None:
        make_head_missing(world)
        service = world.service()
        await service.start()
        await service.stop(drain_ms=10)
        assert service.mode is Mode.STOPPING
        with pytest.raises(StorageError):
            world.opened[-1].read_state()


class TestFollowers:
    async def test_see_what_is_committed_before_it_is_published(self, world: World) -> None:
        async with world.running() as service:
            assert not await service.wait_integrated(1, timeout_ms=1)
            gate = world.gate("sign")
            waiter = asyncio.create_task(service.wait_integrated(2, timeout_ms=10_000))
            await service.append([b"a", b"b"])
            assert await waiter
            assert await service.read_integrated(start=0, end=2) == [b"a", b"b"]
            with pytest.raises(NotFoundError):
                await service.read_integrated(start=0, end=3)
            assert service.published is not None
            assert service.published.size == 0
            gate.open()


class TestOnLevelDB:
    """The same life on the real store."""

    async def test_appends_stops_and_comes_up_again(self, tmp_path: Path) -> None:
        with DirectoryLock(tmp_path) as lock:
            LevelDBStore.create(lock, META).close()
            world = World(tmp_path)

            def service() -> LogService:
                return LogService(
                    meta=META,
                    open_store=lambda: LevelDBStore.open(lock),
                    open_head=world.open_head,
                    signers=[world.signer],
                    clock=SystemClock(),
                    settings=LogSettings(),
                    metrics=LogMetrics(),
                )

            for run in range(3):
                running = service()
                await running.start()
                assert running.integrated.size == 303 * run
                await asyncio.gather(*(running.append([b"%d.%d" % (run, n)]) for n in range(3)))
                result = await running.append([b"batch %d" % n for n in range(300)])
                await until_published(running, result.size)
                receipt = await running.read(lambda reader: reader.receipt(index=0))
                assert verify_receipt(parse_receipt(receipt), leaf_hash=hash_leaf(b"0.0"), policy=POLICY)
                await running.stop(drain_ms=1_000)
            store = LevelDBStore.open(lock)
            assert len(check_log(store, POLICY, signed=world.signed)) == 909
            store.close()

    async def test_an_older_copy_of_the_store_is_held(self, tmp_path: Path) -> None:
        with DirectoryLock(tmp_path) as lock:
            LevelDBStore.create(lock, META).close()
            world = World(tmp_path)
            HeadFile.create(world.head_path, origin=ORIGIN, size=1, root=hash_leaf(b"a"))
            service = LogService(
                meta=META,
                open_store=lambda: LevelDBStore.open(lock),
                open_head=world.open_head,
                signers=[world.signer],
                clock=SystemClock(),
                settings=LogSettings(),
                metrics=LogMetrics(),
            )
            await service.start()
            assert service.held is not None
            assert service.held.code == "store-behind-head"
            await service.stop(drain_ms=0)
            assert not world.signed
