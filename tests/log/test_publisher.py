"""DIR/head before the signature, the signature before the store, the store before the world; and idle signing."""

import asyncio
import os
from itertools import pairwise
from pathlib import Path

import pytest

from log.check_log import kept_checkpoints
from log.harness import POLICY, HeadFault, World, until, until_open, until_published
from translog.core.policy import verify_checkpoint
from translog.log.waiters import SizeWaiters
from translog.storage.memory import MemoryStore


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_every_step_waits_for_the_one_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        real(descriptor)
        world.note("synced", 0)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    async with world.running() as service:
        world.events.clear()
        await service.append([b"a"])
        await until_published(service, 1)
        assert world.events == [
            ("commit", 1),
            ("committed", 1),
            ("head", 1),
            ("synced", 0),
            ("head written", 1),
            ("sign", 1),
            ("publish", 1),
            ("published", 1),
        ]
    world.check()


@pytest.mark.parametrize("point", ["head", "sign", "publish"])
async def test_nothing_is_shown_before_it_is_stored(world: World, point: str) -> None:
    async with world.running() as service:
        gate = world.gate(point)
        await service.append([b"a"])
        await gate.reached()
        assert service.published is not None
        assert service.published.size == 0
        assert not await service.wait_published(1, timeout_ms=1)
        gate.open()
        await until_published(service, 1)
        assert service.published.size == 1


async def test_a_log_has_a_checkpoint_from_the_first_second(world: World) -> None:
    async with world.running() as service:
        assert service.published is not None
        head = verify_checkpoint(service.published.note, POLICY).checkpoint
        assert (head.size, head.root) == (service.published.size, service.published.root)
        assert head.size == 0
    world.check()


async def test_publications_of_many_commits_are_one(world: World) -> None:
    async with world.running() as service:
        gate = world.gate("sign")
        await service.append([b"a"])
        await gate.reached()
        world.events.clear()
        # The publisher is at work, and the commits go on beside it.
        await asyncio.gather(*(service.append([b"%d" % n]) for n in range(5)))
        await service.append([b"z"])
        gate.open()
        await until_published(service, 7)
        assert world.sizes("published") == [1, 7]
    world.check()


@pytest.mark.parametrize(
    ("faults", "outages"), [(["refused"], 1), (["torn"], 1), (["applied"], 1), (["refused", "torn"] * 2, 4)]
)
async def test_nothing_is_signed_while_the_head_cannot_be_written(world: World, faults: list[HeadFault], outages: int) -> None:
    async with world.running() as service:
        world.head_faults = list(faults)
        world.events.clear()
        await service.append([b"a"])
        await until_published(service, 1)
        await until_open(service)
        assert service.metrics.registry.get_sample_value("translog_failed_writes_total") >= 1  # type: ignore[operator]
        await service.append([b"b"])
        await until_published(service, 2)
    assert len(world.opened) == 1 + outages
    heads = [event for event in world.events if event[0] in ("head", "sign")]
    assert heads.count(("sign", 1)) == 1
    assert heads.index(("sign", 1)) >= outages
    world.check()


async def test_a_head_that_was_not_synced_is_not_taken_for_durable(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = os.fdatasync, [OSError(5, "Input/output error")]

    def fdatasync(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        real(descriptor)
        world.note("synced", 0)

    async with world.running() as service:
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        world.events.clear()
        await service.append([b"a"])
        await until_published(service, 1)
        names = [name for name, _ in world.events]
        assert "synced" in names[: names.index("sign")]


async def test_an_idle_log_signs_anew_at_the_same_size(world: World) -> None:
    world.settings = world.settings.model_copy(update={"idle_sign_interval_ms": 1})
    async with world.running() as service:
        await service.append([b"a"])
        await until(lambda: world.sizes("published").count(1) >= 3)
        assert service.published is not None
        assert service.published.size == 1
    assert world.sizes("head").count(1) == 1  # the head says so already
    world.check()


async def test_one_checkpoint_an_interval_is_kept(world: World) -> None:
    world.settings = world.settings.model_copy(update={"keep_checkpoint_interval_ms": 60_000})
    async with world.running() as service:
        for step_ms in (0, 59_999, 1, 59_999, 1, 200_000, -5_000, 59_999):
            world.clock.wall += step_ms
            world.clock.boot += max(0, step_ms)
            await service.append([b"x"])
            await until_published(service, service.integrated.size)
    kept = [checkpoint.size for checkpoint in kept_checkpoints(MemoryStore(world.disk))]
    # at 0 ms: the start's; at 60,000 and 120,000; after a long pause; after the clock went back; not 59,999 later
    assert kept == [7, 6, 5, 3, 0]
    world.check()


async def test_with_no_interval_every_checkpoint_is_kept(world: World) -> None:
    async with world.running() as service:
        for size in range(1, 6):
            await service.append([b"x"])
            await until_published(service, size)
    assert [checkpoint.size for checkpoint in kept_checkpoints(MemoryStore(world.disk))] == [5, 4, 3, 2, 1, 0]


async def test_while_the_clock_is_in_doubt_nothing_is_signed_with_it(world: World) -> None:
    async with world.running() as service:
        gate = world.gate("committed")
        task = asyncio.create_task(service.append([b"a"]))
        await gate.reached()
        world.clock.wall += 60_000
        gate.open()
        await task  # durable, and not published
        assert not await service.wait_published(1, timeout_ms=10)
        assert 1 not in world.sizes("head") + world.sizes("sign")
        service.accept_clock("operator")
        await until_published(service, 1)
    world.check()


async def test_sizes_published_never_go_down(world: World) -> None:
    async with world.running() as service:
        for _ in range(20):
            await service.append([b"x"])
        await until_published(service, 20)
    assert all(low <= high for low, high in pairwise(world.sizes("published")))


class TestSizeWaiters:
    async def test_wakes_those_it_reaches_and_no_others(self) -> None:
        waiters = SizeWaiters()
        tasks = {size: asyncio.create_task(waiters.wait(size, timeout_ms=10_000)) for size in (5, 1, 3, 0)}
        await asyncio.sleep(0)
        waiters.reached(3)
        assert [await tasks[size] for size in (0, 1, 3)] == [True] * 3
        assert not tasks[5].done()
        waiters.reached(5)
        assert await tasks[5]

    async def test_what_is_reached_already_does_not_wait(self) -> None:
        waiters = SizeWaiters()
        waiters.reached(3)
        assert await waiters.wait(3, timeout_ms=0)
        assert not await waiters.wait(4, timeout_ms=0)

    async def test_one_who_gave_up_is_passed_over(self) -> None:
        waiters = SizeWaiters()
        gone = asyncio.create_task(waiters.wait(1, timeout_ms=10_000))
        assert not await waiters.wait(2, timeout_ms=1)
        there = asyncio.create_task(waiters.wait(2, timeout_ms=10_000))
        await asyncio.sleep(0)
        gone.cancel()
        waiters.reached(2)
        assert await there
