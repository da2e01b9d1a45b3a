"""Follower: every committed entry once, in order, across restarts and failures, and never in the way of the log."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from log.harness import World, until
from translog.core.merkle import hash_leaf
from translog.errors import StorageError
from translog.index.lookup import LeafLookup
from translog.log import follower as follower_module
from translog.log.follower import Follower
from translog.log.lifecycle import LogService


class RecordingSink:
    """Keeps what it is given, as a durable sink would; `failures` calls fail before or after they are applied."""

    name = "recording"

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.steps: list[tuple[int, int]] = []
        self.failures: list[str] = []

    def cursor(self) -> int:
        return len(self.entries)

    def apply(self, start: int, entries: Sequence[bytes]) -> None:
        fault = self.failures.pop(0) if self.failures else ""
        if fault == "refused":
            raise StorageError("the sink failed")
        assert start == len(self.entries), "a gap or a repetition"
        self.entries += entries
        self.steps.append((start, len(entries)))
        if fault == "applied":
            raise StorageError("the sink took it, and failed")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "_RETRY_S", 0)


@asynccontextmanager
async def following(service: LogService, sink: follower_module.Sink) -> AsyncIterator[None]:
    task = asyncio.create_task(Follower(service, sink).run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def entries_of(count: int) -> list[bytes]:
    return [b"entry %d" % index for index in range(count)]


async def test_what_is_there_and_what_comes_is_handed_over_in_order(tmp_path: Path) -> None:
    world, sink = World(tmp_path), RecordingSink()
    world.fill(entries_of(5))
    async with world.running() as service, following(service, sink):
        await until(lambda: len(sink.entries) == 5)
        await service.append([b"entry 5", b"entry 6"])
        await until(lambda: len(sink.entries) == 7)
    assert sink.entries == entries_of(7)


async def test_steps_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "STEP_ENTRIES", 4)
    world, sink = World(tmp_path), RecordingSink()
    world.fill(entries_of(10))
    async with world.running() as service, following(service, sink):
        await until(lambda: len(sink.entries) == 10)
    assert sink.steps == [(0, 4), (4, 4), (8, 2)]


async def test_it_goes_on_where_its_sink_was_after_a_restart(tmp_path: Path) -> None:
    world, sink = World(tmp_path), RecordingSink()
    for number in range(3):
        async with world.running() as service:
            async with following(service, sink):
                await service.append([b"entry %d" % (2 * number)])
                await until(lambda: len(sink.entries) == 2 * number + 1)  # noqa: B023  # awaited in the same turn
            await service.append([b"entry %d" % (2 * number + 1)])  # while nobody follows
    async with world.running() as service, following(service, sink):
        await until(lambda: len(sink.entries) == 6)
    assert sink.entries == entries_of(6)


@pytest.mark.parametrize("fault", ["refused", "applied"])
async def test_a_sink_that_fails_is_asked_where_it_is_and_fed_again(tmp_path: Path, fault: str) -> None:
    world, sink = World(tmp_path), RecordingSink()
    world.fill(entries_of(3))
    sink.failures = [fault, fault, ""]
    async with world.running() as service, following(service, sink):
        await until(lambda: len(sink.entries) == 3)
        await service.append([b"entry 3"])
        await until(lambda: len(sink.entries) == 4)
    assert sink.entries == entries_of(4)


async def test_a_sink_that_always_fails_does_not_disturb_the_log(tmp_path: Path) -> None:
    world, sink = World(tmp_path), RecordingSink()
    sink.failures = ["refused"] * 1_000_000
    async with world.running() as service, following(service, sink):
        for number in range(3):
            assert (await service.append([b"entry %d" % number])).first == number
    assert world.check() == entries_of(3)


async def test_it_survives_the_log_being_opened_anew(tmp_path: Path) -> None:
    from translog.storage.memory import Fault

    world, sink = World(tmp_path), RecordingSink()
    async with world.running() as service, following(service, sink):
        await service.append([b"entry 0"])
        world.disk.faults.append(("commit", Fault.APPLIED_BUT_FAILED))
        with pytest.raises(StorageError):
            await service.append([b"entry 1"])
        await until(lambda: service.integrated.size == 2)
        await until(lambda: len(sink.entries) == 2)
    assert sink.entries == entries_of(2)


async def test_committed_entries_are_handed_over_before_they_are_published(tmp_path: Path) -> None:
    world, sink = World(tmp_path), RecordingSink()
    async with world.running() as service, following(service, sink):
        gate = world.gate("publish")
        await service.append([b"entry 0"])
        await gate.reached()
        await until(lambda: len(sink.entries) == 1)
        assert service.published is not None
        assert service.published.size == 0
        gate.open()


async def test_the_lag_is_measured(tmp_path: Path) -> None:
    world, sink = World(tmp_path), RecordingSink()
    world.fill(entries_of(3))
    async with world.running() as service, following(service, sink):
        await until(lambda: len(sink.entries) == 3)
        lag = service.metrics.follower_lag.labels("recording")
        await until(lambda: lag._value.get() == 0)


async def test_the_leaf_lookup_follows_and_is_rebuilt_when_deleted(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = tmp_path / "index" / "leaves.sqlite"
    world.fill([b"a", b"b", b"a"])
    for _ in range(2):
        async with world.running() as service:
            lookup = LeafLookup(path, origin=service.meta.origin, size=service.integrated.size)
            async with following(service, lookup):
                await until(lambda: lookup.cursor() == 3)  # noqa: B023
            assert (lookup.find(hash_leaf(b"a")), lookup.find(hash_leaf(b"b"))) == (0, 1)
            lookup.close()
        path.unlink()


async def test_its_thread_ends_with_it(tmp_path: Path) -> None:
    import threading

    world = World(tmp_path)
    async with world.running() as service:
        async with following(service, RecordingSink()):
            await service.append([b"x"])
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("follower-recording")]
