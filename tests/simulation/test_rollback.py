"""A log that is an older copy of itself, and witnesses that say so, truly or not."""

import asyncio
from collections.abc import Callable, Coroutine
from copy import deepcopy
from random import Random
from typing import Any

import pytest

from simulation.logs import NAME, SKEY, LogNode, Machine
from simulation.policies import EVERYBODY, WITNESSES, Side, make_policy, witness_name
from simulation.virtual import NodeClock, run_virtual
from simulation.witnesses import HonestWitness, Liar, Lie, Web
from translog.log.lifecycle import Mode
from translog.log.settings import LogSettings, WithoutQuorum, WitnessingSettings
from translog.witness.store import KnownLog

POLICY = make_policy("group g 3 w1 w2 w3 w4 w5\n", "g", logs=(SKEY,))
NOTHING: Side = frozenset()


class Scene:
    """A log and its witnesses in a calm network."""

    def __init__(self, *, lies: tuple[Lie, ...] = (), liars: Side = NOTHING, without_quorum: str = "hold") -> None:
        loop, random = asyncio.get_running_loop(), Random(1)
        self.web = Web(random)
        settings = LogSettings(
            reader_threads=1, witnessing=WitnessingSettings(without_quorum=WithoutQuorum(without_quorum), backoff_ms_max=2_000)
        )
        self.node = LogNode(policy=POLICY, web=self.web, clock=NodeClock(loop), settings=settings)
        known = [KnownLog(origin=SKEY.name, vkeys=(SKEY.vkey,))]
        self.honest = [
            HonestWitness(number, web=self.web, random=random, clock=NodeClock(loop), logs=known)
            for number in sorted(EVERYBODY - liars)
        ]
        self.liars = [Liar(number, web=self.web, random=random, clock=NodeClock(loop)) for number in sorted(liars)]
        for liar in self.liars:
            liar.lies = list(lies)

    def cut_off(self) -> None:
        for number in WITNESSES:
            self.web.cut(NAME, witness_name(number))

    async def grow(self, text: bytes, count: int) -> None:
        """Adds entries one by one, a second apart."""
        for number in range(count):
            await self.node.append([b"%s %d" % (text, number)])
            await asyncio.sleep(1)

    async def until(self, condition: Callable[[], bool], *, within_s: float) -> bool:
        for _ in range(int(within_s * 10)):
            if condition():
                return True
            await asyncio.sleep(0.1)
        return condition()

    async def roll_back(self, image: Machine) -> None:
        """The machine goes down and comes up with an older disk and head."""
        await self.node.crash()
        self.node.machine = image
        self.node.start()

    @property
    def held(self) -> str:
        service = self.node.service
        return service.held.code if service is not None and service.held is not None else ""


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(scene, random=Random(1))


def test_an_older_copy_is_held_at_the_start() -> None:
    async def run() -> None:
        scene = Scene()
        scene.node.start()
        await scene.until(lambda: scene.node.is_open, within_s=10)
        await scene.grow(b"early", 3)
        image = deepcopy(scene.node.machine)
        await scene.grow(b"late", 3)
        published = len(scene.node.published)
        await scene.roll_back(image)
        assert await scene.until(lambda: scene.held != "", within_s=10)
        assert scene.held == "witness-ahead"
        assert len(scene.node.published) == published
        await scene.node.stop(drain_ms=0)

    play(run)


@pytest.mark.parametrize("without_quorum", ["hold", "publish"])
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(1, id="smaller than what was cosigned"),
        pytest.param(20, id="larger"),
    ],
)
def test_an_older_copy_that_was_cut_off_is_held_once_it_reaches_a_witness(count: int, without_quorum: str) -> None:
    """It has started without them and shown another history by then, if only to those who ask for no quorum."""

    async def run() -> None:
        scene = Scene(without_quorum=without_quorum)
        scene.node.start()
        await scene.until(lambda: scene.node.is_open, within_s=10)
        await scene.grow(b"early", 3)
        image = deepcopy(scene.node.machine)
        await scene.grow(b"late", 5)
        before = scene.node.tree
        scene.cut_off()
        await scene.roll_back(image)
        assert await scene.until(lambda: scene.node.is_open, within_s=20)
        await scene.grow(b"other", count)
        scene.web.heal()
        assert await scene.until(lambda: scene.held != "", within_s=30)
        assert all(before.root(size) == root for witness in scene.honest for _, size, root in witness.released)
        await scene.node.stop(drain_ms=0)

    play(run)


@pytest.mark.parametrize("lie", ["huge size", "near size"])
def test_liars_that_state_larger_sizes_do_not_stop_a_running_log(lie: Lie) -> None:
    async def run() -> None:
        scene = Scene(liars=frozenset({1, 4}), lies=(lie,))
        for liar in scene.liars:
            liar.may_state_sizes = lambda: scene.node.is_open
        scene.node.start()
        await scene.until(lambda: scene.node.is_open, within_s=10)
        for _ in range(10):
            await scene.grow(b"entry %d" % scene.node.integrated, 1)
            assert await scene.until(lambda: scene.node.served == scene.node.integrated, within_s=5)
        assert all(lie in liar.told for liar in scene.liars)
        assert scene.held == ""
        await scene.node.stop(drain_ms=0)

    play(run)


def test_a_log_that_comes_up_believes_whoever_states_a_larger_size() -> None:
    """It cannot know better: it may be the older copy."""

    async def run() -> None:
        scene = Scene(liars=frozenset({1}), lies=("huge size",))
        scene.node.start()
        assert await scene.until(lambda: scene.held == "witness-ahead", within_s=10)
        assert scene.node.service is not None
        assert scene.node.service.mode is Mode.HELD
        assert scene.node.published == []
        await scene.node.stop(drain_ms=0)

    play(run)


def test_a_power_cut_takes_nothing_back_that_was_shown() -> None:
    async def run() -> None:
        scene = Scene()
        scene.node.start()
        await scene.until(lambda: scene.node.is_open, within_s=10)
        await scene.grow(b"entry", 3)
        shown = scene.node.served
        assert shown == 3
        scene.cut_off()
        await scene.node.crash()
        scene.node.start()
        assert await scene.until(lambda: scene.node.is_open, within_s=20)
        assert scene.node.served == shown
        await scene.node.stop(drain_ms=0)

    play(run)
