"""A log that lives through whatever a seed deals it, verified whole in the end.

Every step is drawn from one printed seed (the threads are not, so a seed may take two turns): appends, batches, crowds, faults
of the store and of DIR/head, crashes of the machine, stops, clocks that drift and jump. Kept at the end: every acknowledged
entry is at its index; what was pushed back is nowhere; what has an unknown outcome is there once and whole, or not at all;
nothing else is there; no two histories were signed.
"""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from log.harness import World, until
from translog.errors import PushbackError, StorageError
from translog.log.lifecycle import LogService, Mode
from translog.storage.memory import Fault

STEPS = 60
SEEDS = [int(os.environ["TRANSLOG_SEED"])] if "TRANSLOG_SEED" in os.environ else list(range(1, 21))


@dataclass
class Simulation:
    """One run."""

    world: World
    random: Random
    service: LogService
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    unknown: list[list[bytes]] = field(default_factory=list)
    refused: set[bytes] = field(default_factory=set)
    published: int = 0
    sent: int = 0

    async def step(self) -> None:
        steps = [self.append] * 6 + [self.crowd] * 3 + [self.fault] * 3 + [self.drift, self.jump, self.crash, self.restart]
        await self.random.choice(steps)()
        self.look()

    def look(self) -> None:
        """What the world sees never goes backwards while a service lives, nor ahead of what is committed."""
        shown = self.service.published
        assert shown is not None
        assert self.published <= shown.size <= self.world.disk.state.size
        self.published = shown.size

    def batch(self) -> list[bytes]:
        self.sent += 1
        return [b"%d/%d" % (self.sent, n) for n in range(self.random.choice([1, 1, 1, 2, 7, 300]))]

    async def append(self, *, patient: bool = True) -> None:
        if patient:
            await until(lambda: self.service.mode is Mode.OPEN)
        batch = self.batch()
        try:
            result = await self.service.append(batch)
        except PushbackError:
            self.refused.update(batch)
        except StorageError as error:
            assert error.code == "outcome-unknown"  # noqa: PT017  one of three outcomes
            self.unknown.append(batch)
        else:
            assert result.count == len(batch)
            assert not self.acknowledged.keys() & range(result.first, result.first + result.count)
            self.acknowledged.update(enumerate(batch, start=result.first))
            if self.random.random() < 0.5 and not self.world.disk.faults and not self.world.head_faults:
                await self.service.wait_published(result.size, timeout_ms=100)

    async def crowd(self) -> None:
        await asyncio.gather(*(self.append(patient=False) for _ in range(self.random.randrange(2, 12))))

    async def fault(self) -> None:
        if self.random.random() < 0.3:
            self.world.head_faults = [self.random.choice(["refused", "torn", "applied"])]
        else:
            operation = self.random.choice(["commit", "publish"])
            self.world.disk.faults.append((operation, self.random.choice(list(Fault))))  # type: ignore[arg-type]

    async def drift(self) -> None:
        self.world.clock.advance(self.random.randrange(100_000))
        self.world.clock.wall += self.random.randrange(-5_000, 5_000)

    async def jump(self) -> None:
        self.world.clock.wall += self.random.choice([-1, 1]) * 60_000
        await self.append(patient=False)
        self.service.accept_clock("the simulation")

    async def crash(self) -> None:
        """The machine goes down, with or without something under way, and comes up again."""
        waiting = [asyncio.create_task(self.append(patient=False)) for _ in range(self.random.randrange(4))]
        for _ in range(self.random.randrange(20)):
            await asyncio.sleep(0)
        self.world.opened[-1].crash()
        await asyncio.gather(*waiting)
        await self.restart()

    async def restart(self) -> None:
        await self.service.stop(drain_ms=self.random.choice([0, 50]))
        self.world.disk.faults.clear()
        self.world.head_faults.clear()
        self.published = 0
        self.service = self.world.service()
        await self.service.start()
        assert self.service.mode is Mode.OPEN, self.service.held

    def check(self) -> None:
        entries = self.world.check()
        assert all(entries[index] == entry for index, entry in self.acknowledged.items())
        others = [entry for index, entry in enumerate(entries) if index not in self.acknowledged]
        assert not self.refused & set(entries)
        for batch in self.unknown:
            if batch[0] in others:
                at = entries.index(batch[0])
                assert entries[at : at + len(batch)] == batch, "half a batch was logged"
                others = [entry for entry in others if entry not in batch]
        assert not others, "entries that nobody sent"
        assert len(set(entries)) == len(entries), "an entry was logged twice"


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_log_survives_anything_with_one_history(tmp_path: Path, seed: int) -> None:
    print(f"TRANSLOG_SEED={seed}")  # noqa: T201
    world = World(tmp_path)
    simulation = Simulation(world, Random(seed), world.service())
    await simulation.service.start()
    for _ in range(STEPS):
        await simulation.step()
    await simulation.restart()
    await simulation.append()
    await simulation.service.stop(drain_ms=1_000)
    simulation.check()
    assert len(simulation.acknowledged) > 10
