"""A log that must not go on: what holds it, and that from that moment nothing is taken, signed or taken back."""

import asyncio
from pathlib import Path

import pytest

from log.harness import ORIGIN, RecordingSigner, World, until, until_published
from translog.core.keys import KeyType, SKey
from translog.errors import CorruptionError, HeldError, SettingsError, StorageError
from translog.log.head import SLOT_BYTES
from translog.log.lifecycle import LogService, Mode
from translog.storage.memory import Fault
from translog.storage.store import LogMeta


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


class BreakingSigner(RecordingSigner):
    """Breaks in a way nobody foresaw."""

    __slots__ = ()

    def sign(self, text: str, *, time_s: int) -> bytes:
        raise RuntimeError("the device is gone")


def broken_signer(world: World) -> BreakingSigner:
    signer = BreakingSigner(world.signer.skey)
    object.__setattr__(signer, "world", world)
    return signer


async def append(service: LogService, entry: bytes) -> int:
    sequenced = await service.append([entry])
    await until_published(service, sequenced.size)
    return sequenced.size


def wreck_head(world: World) -> None:
    world.head_path.write_bytes(bytes(2 * SLOT_BYTES))


async def test_a_start_that_breaks_leaves_nothing_open(world: World) -> None:
    world.signer = broken_signer(world)
    with pytest.raises(RuntimeError):
        await world.service().start()
    for store in world.opened:
        with pytest.raises(StorageError):
            store.read_state()


async def test_a_start_that_is_cancelled_leaves_nothing_open(world: World) -> None:
    gate = world.gate("head")
    start = asyncio.create_task(world.service().start())
    await gate.reached()
    start.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await start
    for store in world.opened:
        with pytest.raises(StorageError):
            store.read_state()


async def test_what_breaks_a_recovery_unforeseen_holds_the_log_and_is_said(world: World) -> None:
    async with world.running() as service:
        await append(service, b"a")
        world.disk.faults.append(("commit", Fault.REFUSED))
        service.signers = [broken_signer(world)]
        with pytest.raises(StorageError):
            await service.append([b"b"])
        await until(lambda: service.mode is Mode.HELD)
        assert "RuntimeError" in str(service.held)
        with pytest.raises(HeldError):
            await service.append([b"c"])
        assert service.published is not None
        assert service.published.size == 1


@pytest.mark.parametrize("point", ["head", "head written"])
async def test_a_log_held_in_the_middle_of_a_publication_does_not_sign(world: World, point: str) -> None:
    async with world.running() as service:
        await append(service, b"a")
        signed = list(world.signed)
        gate = world.gate(point)
        await service.append([b"b"])
        await gate.reached()
        world.disk.tiles[0, 0] = bytes(64)
        with pytest.raises(CorruptionError):
            await service.read(lambda reader: reader.inclusion(index=0))
        assert service.mode is Mode.HELD
        gate.open()
        await until(lambda: service._task is not None and service._task.done())
        assert world.signed == signed


async def test_a_fenced_log_takes_nothing_while_a_publication_ends(world: World) -> None:
    async with world.running() as service:
        gate = world.gate("sign")
        await service.append([b"a"])
        await gate.reached()
        world.disk.state = world.disk.state.__class__(size=9, root=bytes(32), received_at_ms=2**50)  # somebody else wrote
        with pytest.raises(StorageError):
            await service.append([b"b"])
        await until(lambda: service.mode is not Mode.OPEN)
        gate.open()
        await until(lambda: service.mode is Mode.HELD)


async def test_what_was_shown_stays_shown_when_a_reopening_is_held(world: World) -> None:
    async with world.running() as service:
        await append(service, b"a")
        assert await append(service, b"b") == 2
        world.disk.faults.append(("commit", Fault.CRASH_BEFORE))  # loses the publication of size 2, which was not synced
        wreck_head(world)
        with pytest.raises(StorageError):
            await service.append([b"c"])
        await until(lambda: service.mode is Mode.HELD)
        assert service.held is not None
        assert service.held.code == "head-lost"
        assert service.published is not None
        assert service.published.size == 2
        assert (await service.read(lambda reader: reader.inclusion(index=1))).size == 2


async def test_other_keys_than_the_ones_that_signed_hold_the_log(world: World) -> None:
    async with world.running() as service:
        await append(service, b"a")
    signed = list(world.signed)
    own = world.signer
    world.signer = RecordingSigner(SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes([7]) * 32))
    object.__setattr__(world.signer, "world", world)
    async with world.running() as service:
        assert service.mode is Mode.HELD
        assert service.held is not None
        assert service.held.code == "other-keys"
        assert world.signed == signed
    world.signer = own
    async with world.running() as service:
        assert service.mode is Mode.OPEN


async def test_a_store_that_was_pruned_is_refused(world: World) -> None:
    world.disk.meta = LogMeta(format_version=1, origin=ORIGIN, profile=world.disk.meta.profile, minimum_index=256)
    with pytest.raises(SettingsError, match="pruned"):
        await world.service().start()


async def test_a_clock_in_doubt_during_a_reopening_stops_appends_only(world: World) -> None:
    async with world.running() as service:
        await append(service, b"a")
        world.disk.faults.append(("commit", Fault.REFUSED))
        gate = world.gate("commit")
        pending = asyncio.create_task(service.append([b"b"]))
        await gate.reached()
        world.clock.wall += 60_000
        gate.open()
        with pytest.raises(StorageError):
            await pending
        await until(lambda: len(world.opened) == 2 and service.mode is Mode.OPEN)
        assert (await service.read(lambda reader: reader.inclusion(index=0))).size == 1
        opened = len(world.opened)
        service.accept_clock("a test")
        assert await append(service, b"c") == 2
        assert len(world.opened) == opened
