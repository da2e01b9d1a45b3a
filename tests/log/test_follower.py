"""A sink gets every committed entry once and in order, and its failures are its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from log.harness import PATIENCE_S, World, until
from translog.errors import StorageError
from translog.log import follower as follower_module
from translog.log.follower import Follower
from translog.log.lifecycle import LogService


class ListSink:
    """Keeps what it gets; fails as often as told."""

    name = "list"

    def __init__(self, *, failures: int = 0) -> None:
        self.entries: list[bytes] = []
        self.failures = failures
        self.steps: list[int] = []
        self.threads: set[int] = set()

    def cursor(self) -> int:
        return len(self.entries)

    def apply(self, start: int, entries: Sequence[bytes]) -> None:
        assert start == len(self.entries)
        self.threads.add(threading.get_ident())
        if self.failures:
            self.failures -= 1
            raise StorageError("the sink is not there")
        self.entries += entries
        self.steps.append(len(entries))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@asynccontextmanager
async def following(service: LogService, sink: ListSink) -> AsyncIterator[None]:
    task = asyncio.create_task(Follower(service, sink).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_gets_what_is_there_and_what_comes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "STEP_ENTRIES", 10)
    world.fill([b"%d" % n for n in range(25)])
    sink = ListSink()
    async with world.running() as service, following(service, sink):
        await until(lambda: len(sink.entries) == 25)
        assert sink.steps == [10, 10, 5]
        for n in range(25, 30):
            await service.append([b"%d" % n])
        await until(lambda: len(sink.entries) == 30)
        lag = service.metrics.registry.get_sample_value
        await until(lambda: lag("translog_follower_lag_entries", {"follower": "list"}) == 0)
    assert sink.entries == [b"%d" % n for n in range(30)]
    assert len(sink.threads) == 1
    assert threading.get_ident() not in sink.threads


async def test_does_not_wait_for_publication(world: World) -> None:
    sink = ListSink()
    async with world.running() as service, following(service, sink):
        gate = world.gate("sign")
        await service.append([b"a"])
        await gate.reached()
        await until(lambda: sink.entries == [b"a"])
        gate.open()


async def test_goes_on_from_its_own_cursor(world: World) -> None:
    world.fill([b"%d" % n for n in range(5)])
    sink = ListSink()
    sink.entries = [b"0", b"1"]
    async with world.running() as service, following(service, sink):
        await until(lambda: len(sink.entries) == 5)
    assert sink.steps == [3]


async def test_a_sink_that_fails_is_tried_again_and_disturbs_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "_RETRY_S", 0.001)
    sink = ListSink(failures=3)
    async with world.running() as service, following(service, sink):
        await service.append([b"a"])
        await until(lambda: sink.entries == [b"a"])
        assert (await service.append([b"b"])).first == 1
        await until(lambda: sink.entries == [b"a", b"b"])


async def test_idle_it_waits_and_looks_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "_WAIT_MS", 1)
    sink = ListSink()
    async with world.running() as service, following(service, sink):
        for n in range(3):
            async with asyncio.timeout(PATIENCE_S):
                assert not await service.wait_integrated(n + 1, timeout_ms=5)
            await service.append([b"%d" % n])
            await until(lambda n=n: len(sink.entries) == n + 1)  # type: ignore[misc]
    assert sink.entries == [b"0", b"1", b"2"]
