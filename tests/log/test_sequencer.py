"""Dense order, group commit, all or nothing, and no answer before the commit point."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from log.harness import World, until, until_published
from translog.errors import PushbackError, StorageError, TooLargeError, TranslogError
from translog.log.lifecycle import LogService, Mode
from translog.log.pool import Sequenced
from translog.storage.memory import Fault


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def start_append(service: LogService, *entries: bytes) -> asyncio.Task[Sequenced]:
    return asyncio.create_task(service.append(entries))


async def settle(tasks: list[asyncio.Task[Sequenced]]) -> list[Sequenced | BaseException]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def require_error(task: Awaitable[object], error: type[TranslogError], code: str) -> None:
    with pytest.raises(error) as caught:
        await task
    assert caught.value.code == code


async def test_an_append_tells_where_and_when(world: World) -> None:
    async with world.running() as service:
        assert await service.append([b"a"]) == Sequenced(first=0, count=1, size=1, received_at_ms=world.clock.wall)
        world.clock.advance(5)
        assert await service.append([b"b", b"c"]) == Sequenced(first=1, count=2, size=3, received_at_ms=world.clock.wall)
        assert service.integrated.size == 3
    assert world.disk.entries == [b"a", b"b", b"c"]


async def test_concurrent_appends_get_dense_indexes_and_their_own_entries(world: World) -> None:
    world.settings = world.settings.model_copy(update={"batch_entries_max": 16})
    async with world.running() as service:
        batches = [[b"%d/%d" % (n, k) for k in range(1 + n % 5)] for n in range(200)]
        results = await asyncio.gather(*(service.append(batch) for batch in batches))
        await until_published(service, sum(map(len, batches)))
    entries = world.check()
    taken = [index for result in results for index in range(result.first, result.first + result.count)]
    assert sorted(taken) == list(range(len(entries)))
    for batch, result in zip(batches, results, strict=True):
        assert entries[result.first : result.first + result.count] == batch
        assert result.first + result.count <= result.size <= len(entries)
    assert [result.first for result in results] == sorted(result.first for result in results)


async def test_a_lone_append_commits_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer runs but those of idle signing and the clock watch, of seconds and minutes."""
    async with world.running() as service:
        loop = asyncio.get_running_loop()
        real, waits = loop.call_at, []

        def call_at(when, *args, **options):  # type: ignore[no-untyped-def]
            waits.append(when - loop.time())
            return real(when, *args, **options)

        with monkeypatch.context() as patched:
            patched.setattr(loop, "call_at", call_at)
            await service.append([b"a"])
            await until_published(service, 1)
        assert all(wait > 1 for wait in waits)
    assert world.sizes("commit") == [1]


async def test_what_waits_during_a_commit_forms_one_commit(world: World) -> None:
    async with world.running() as service:
        gate = world.gate("commit")
        first = start_append(service, b"first")
        await gate.reached()
        rest = [start_append(service, b"%d" % n) for n in range(50)]
        await until(lambda: service._pool.entries == 50)
        gate.open()
        results = [await first, *[await task for task in rest]]
    assert world.sizes("commit") == [1, 51]
    assert [result.first for result in results] == list(range(51))
    assert {result.size for result in results} == {1, 51}


async def test_commits_stay_within_the_batch_limits_and_batches_whole(world: World) -> None:
    world.settings = world.settings.model_copy(update={"batch_entries_max": 10})
    async with world.running() as service:
        gate = world.gate("commit")
        tasks = [start_append(service, b"first")]
        await gate.reached()
        tasks += [start_append(service, *[b"%d" % n] * n) for n in (4, 6, 3, 25, 2)]
        await until(lambda: service._pool.entries == 40)
        gate.open()
        results = [await task for task in tasks]
    assert world.sizes("commit") == [1, 11, 14, 39, 41]
    assert [result.first for result in results] == [0, 1, 5, 11, 14, 39]
    assert world.disk.entries[14:39] == [b"25"] * 25


async def test_nothing_is_answered_before_the_commit_returns(world: World) -> None:
    async with world.running() as service:
        for point in ("commit", "committed"):
            gate = world.gate(point)
            size = service.integrated.size
            task = start_append(service, b"a")
            await gate.reached()
            await asyncio.sleep(0.01)  # time enough to go wrong; the gate decides, not the clock
            assert not task.done()
            assert service.integrated.size == size
            assert size + 1 not in world.sizes("head") + world.sizes("sign")
            gate.open()
            assert (await task).first == size


async def test_received_at_never_decreases_though_the_clock_does(world: World) -> None:
    async with world.running() as service:
        times = []
        for step in (0, 5_000, -9_000, 4_000, -9_000, -9_000, 20_000, 10_000):
            world.clock.wall += step
            world.clock.boot += max(0, step - 9_000)
            times.append((await service.append([b"x"])).received_at_ms)
        assert times == sorted(times)
        assert len(set(times)) < len(times)
        assert world.disk.state.received_at_ms == times[-1]
    world.clock.wall -= 3_600_000
    async with world.running() as service:  # set back while the log was down
        assert (await service.append([b"x"])).received_at_ms == times[-1]


async def test_a_sender_that_went_away_does_not_disturb_the_rest(world: World) -> None:
    async with world.running() as service:
        gate = world.gate("commit")
        gone = start_append(service, b"gone")
        await gate.reached()
        also_gone, there = start_append(service, b"also gone"), start_append(service, b"there")
        await until(lambda: service._pool.entries == 2)
        gone.cancel()
        also_gone.cancel()
        await settle([gone, also_gone])
        gate.open()
        assert (await there).first == 2
    assert world.disk.entries == [b"gone", b"also gone", b"there"]


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_failed_commit_leaves_those_in_flight_with_an_unknown_outcome(world: World, fault: Fault) -> None:
    async with world.running() as service:
        world.disk.faults = [("commit", fault)]
        gate = world.gate("commit")
        in_flight = start_append(service, b"a", b"b")
        await gate.reached()
        waiting = start_append(service, b"c")
        await until(lambda: service._pool.entries == 1)
        gate.open()
        await require_error(in_flight, StorageError, "outcome-unknown")
        await require_error(waiting, PushbackError, "not-open")
    applied = fault in (Fault.APPLIED_BUT_FAILED, Fault.CRASH_AFTER)
    assert world.disk.entries == ([b"a", b"b"] if applied else [])


async def test_a_store_that_breaks_in_an_unforeseen_way_leaves_nobody_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(_: object) -> None:
        raise MemoryError

    async with world.running() as service:
        monkeypatch.setattr(world.opened[-1], "commit", commit)
        async with asyncio.timeout(1):
            with pytest.raises(StorageError) as caught:
                await service.append([b"a"])
        assert caught.value.code == "outcome-unknown"
        await until(lambda: service.mode is Mode.HELD)


async def test_a_full_pool_pushes_back_and_loses_nothing(world: World) -> None:
    world.settings = world.settings.model_copy(update={"pool_entries_max": 3, "retry_after_ms": 70})
    async with world.running() as service:
        gate = world.gate("commit")
        tasks = [start_append(service, b"in flight")]
        await gate.reached()
        tasks += [start_append(service, b"a", b"b")]
        await until(lambda: service._pool.entries == 2)
        with pytest.raises(PushbackError) as caught:
            await service.append([b"c", b"d"])
        assert (caught.value.code, caught.value.retry_after_ms) == ("pool-full", 70)
        with pytest.raises(TooLargeError):
            await service.append([b"e"] * 4)
        tasks += [start_append(service, b"f")]
        gate.open()
        assert [(await task).first for task in tasks] == [0, 1, 3]
        pushbacks = service.metrics.registry.get_sample_value("translog_pushbacks_total", {"code": "pool-full"})
        assert pushbacks == 1
    assert world.disk.entries == [b"in flight", b"a", b"b", b"f"]


class TestClock:
    async def test_a_jump_pauses_and_agreeing_again_resumes(self, world: World) -> None:
        async with world.running() as service:
            await service.append([b"a"])
            world.clock.wall += 60_000
            await require_error(service.append([b"b"]), PushbackError, "clock-jumped")
            world.clock.wall -= 60_000
            await service.append([b"c"])
            assert service.mode is Mode.OPEN
        assert world.disk.entries == [b"a", b"c"]

    async def test_a_jump_is_over_when_accepted(self, world: World) -> None:
        async with world.running() as service:
            first = await service.append([b"a"])
            world.clock.wall -= 60_000
            await require_error(service.append([b"b"]), PushbackError, "clock-jumped")
            assert service.accept_clock("operator") == -60_000
            assert (await service.append([b"c"])).received_at_ms == first.received_at_ms
        assert world.disk.entries == [b"a", b"c"]

    async def test_a_jump_also_pauses_what_waits_already(self, world: World) -> None:
        async with world.running() as service:
            gate = world.gate("commit")
            in_flight = start_append(service, b"a")
            await gate.reached()
            waiting = start_append(service, b"b")
            await until(lambda: service._pool.entries == 1)
            world.clock.wall += 60_000
            gate.open()
            assert (await in_flight).first == 0
            await require_error(waiting, PushbackError, "clock-jumped")
            world.clock.wall -= 60_000
            assert (await service.append([b"c"])).first == 1
        assert world.disk.entries == [b"a", b"c"]


class TestWhatNoLogCanHold:
    async def test_no_entries_at_all_are_refused_and_the_log_stays_open(self, world: World) -> None:
        async with world.running() as service:
            with pytest.raises(TranslogError):
                await asyncio.wait_for(service.append([]), 5)
            assert (await service.append([b"a"])).first == 0
            assert service.mode is Mode.OPEN

    async def test_an_entry_that_fits_no_bundle_is_refused(self, world: World) -> None:
        async with world.running() as service:
            assert (await service.append([b"\x00" * 65_535])).first == 0
            with pytest.raises(TooLargeError) as caught:
                await service.append([b"good", b"\x00" * 65_536])
            assert caught.value.code == "entry-too-large"
        assert len(world.disk.entries) == 1
