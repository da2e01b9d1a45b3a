"""Publication goes on whatever a minority of witnesses does, resumes soon after every partition, and never without its quorum.

Every step is drawn from a printed seed. The log is honest, some witnesses lie; machines crash and restart, the network loses,
doubles and delays, clocks differ; then all heals, but for the liars. By hand: `TRANSLOG_SEEDS=1000 pytest
tests/simulation/test_publication.py`, or `TRANSLOG_SEED=7` for one.

Where the honest witnesses make a quorum, that is published at any moment from then on which was integrated `bound` earlier, and
after another `bound` what was integrated `steady` earlier:

    resume   = max(2 * (request_timeout + 500 ms), backoff_max, min_interval)
    round    = max(min_interval, 4 * trip) + 4 * trip + work
    steady   = 2 * round + publish_interval
    bound    = start + resume + steady

A witness may just have been asked in vain, twice (the second time from the size it named), or wait for its next turn: `resume`.
Then it gets the newest checkpoint. Of two rounds the first may still be of an older one; in each a witness may have to finish
another answer, and is then asked, names its size and is asked again, with `trip` each way. A round must fit into
quorum_timeout, and into request_timeout where publication goes on without a quorum. `start` is for a log that comes up
meanwhile: RESTART_S, 30 * reopen_wait, and min(request_timeout, quorum_timeout) for the witnesses that never answer.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest

from simulation.logs import NAME, RESTART_S, SKEY, LogNode, append_now_and_then
from simulation.network import DELAY_S_MAX, Weather
from simulation.policies import (
    EVERYBODY,
    SHAPES,
    SUBSETS,
    WITNESSES,
    Side,
    accepts,
    entries_of,
    make_policy,
    random_shape,
    witness_name,
)
from simulation.seeds import SEEDS
from simulation.virtual import NodeClock, run_virtual
from simulation.witnesses import HonestWitness, Liar, Web
from translog.core.checkpoint import parse_checkpoint
from translog.core.note import parse_note
from translog.core.policy import Policy, verify_checkpoint
from translog.errors import QuorumError
from translog.log.settings import LogSettings, WithoutQuorum, WitnessingSettings
from translog.storage.memory import Fault
from translog.witness.store import KnownLog

REMEMBERED = (650, 784)
"""Seeds that found something: a log that waited for liars to be free, or for one that was asked again and again."""
STORM_S = 20.0
"""How long the weather is bad, each time."""
STORMS = 2
SILENCE_S_MAX = 100.0
"""How long no witness can be reached at all after some of the storms."""
SKEW_S_MAX = 100
"""How far clocks are off, at the start of a run."""
WORK_MS = 100
"""What signing, storing and verifying take at most in a run."""


def steady_s(settings: LogSettings) -> float:
    """See above."""
    asked = settings.witnessing
    trips_ms = 4 * 1_000 * DELAY_S_MAX
    round_ms = max(asked.min_interval_ms, trips_ms) + trips_ms + WORK_MS
    return (2 * round_ms + settings.publish_interval_ms) / 1_000


def bound_s(settings: LogSettings) -> float:
    """See above."""
    asked = settings.witnessing
    resume_ms = max(2 * (asked.request_timeout_ms + 500), asked.backoff_ms_max, asked.min_interval_ms)
    start_ms = 1_000 * RESTART_S + 30 * settings.reopen_wait_ms + min(asked.request_timeout_ms, asked.quorum_timeout_ms)
    return (start_ms + resume_ms) / 1_000 + steady_s(settings)


def random_settings(random: Random, without_quorum: WithoutQuorum) -> LogSettings:
    """What operators may set, but for rounds that do not fit into their time."""
    witnessing = WitnessingSettings(
        without_quorum=without_quorum,
        request_timeout_ms=random.choice([2_000, 5_000, 5_000]),
        quorum_timeout_ms=random.choice([2_500, 10_000, 10_000]),
        min_interval_ms=random.choice([0, 100, 1_000, 1_000]),
        backoff_ms_max=random.choice([250, 1_000, 10_000, 10_000]),
    )
    return LogSettings(
        reader_threads=1,
        reopen_wait_ms=100,
        retry_after_ms=100,
        publish_interval_ms=random.choice([0, 0, 500, 2_000]),
        idle_sign_interval_ms=random.choice([5_000, 600_000]),
        witnessing=witnessing,
    )


@dataclass
class Publication:
    """One run: a log, five witnesses of which some lie, two clients."""

    random: Random
    dishonest: Side
    policy: Policy
    without_quorum: WithoutQuorum
    honest: list[HonestWitness] = field(default_factory=list)
    liars: list[Liar] = field(default_factory=list)
    accepted: dict[bytes, int] = field(default_factory=dict)
    """Notes that a client accepted, and their sizes."""
    slowness: list[float] = field(default_factory=list)
    """What part of the bounds was taken."""
    quiet: bool = False
    healed_s: float = 0.0

    async def run(self) -> None:
        loop, random = asyncio.get_running_loop(), self.random
        self.web = web = Web(random)
        self.settings = random_settings(random, self.without_quorum)
        self.node = LogNode(policy=self.policy, web=web, clock=self._clock(), settings=self.settings)
        for number in WITNESSES:
            clock = self._clock()
            if number in self.dishonest:
                liar = Liar(number, web=web, random=random, clock=clock)
                liar.may_state_sizes = lambda: self.node.is_open  # at the start a log believes whoever says so
                self.liars.append(liar)
            else:
                known = [KnownLog(origin=SKEY.name, vkeys=(SKEY.vkey,))]
                self.honest.append(HonestWitness(number, web=web, random=random, clock=clock, logs=known))
        self.node.start()
        load = append_now_and_then(self.node, random, quiet=lambda: self.quiet)
        tasks = [loop.create_task(work) for work in (load, self._read("a"), self._read("b"))]
        for _ in range(STORMS):
            await self._storm()
            await self._require_publication(within_s=bound_s(self.settings))
        await asyncio.sleep(max(0.0, self.healed_s + bound_s(self.settings) - loop.time()))
        self.quiet = False
        for _ in range(3):
            await asyncio.sleep(random.uniform(0, 2))
            await self._require_publication(within_s=steady_s(self.settings))
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome
        await self.node.stop(drain_ms=0)

    def _clock(self) -> NodeClock:
        skew_ms = 1_000 * self.random.randrange(-SKEW_S_MAX, SKEW_S_MAX)
        return NodeClock(asyncio.get_running_loop(), skew_ms=skew_ms, drift=self.random.uniform(-0.01, 0.01))

    async def _read(self, name: str) -> None:
        """A verifying client: looks at what the log shows, and never sees it go back."""
        newest = -1
        while True:
            answer = await self.web.ask(name, NAME, b"checkpoint", timeout_ms=2_000)
            if answer is not None and answer.status == 200:
                if answer.body not in self.accepted:
                    try:
                        size = verify_checkpoint(answer.body, self.policy).checkpoint.size
                    except QuorumError:
                        assert self.without_quorum is WithoutQuorum.PUBLISH
                        size = parse_checkpoint(parse_note(answer.body).text).size
                    self.accepted[answer.body] = size
                size = self.accepted[answer.body]
                assert size >= newest, f"the log showed size {newest}, then {size}"
                newest = size
            await asyncio.sleep(self.random.uniform(0.2, 2))

    async def _storm(self) -> None:
        loop, random, web = asyncio.get_running_loop(), self.random, self.web
        ends_s = loop.time() + STORM_S
        web.weather = Weather(loss=random.uniform(0, 0.3), doubling=random.uniform(0, 0.3), lateness=random.uniform(0, 0.3))
        self.quiet = False
        for witness in self.honest:
            witness.held_back = random.uniform(0, 0.3)
        happenings = [self._cut_off, self._break_witness, self._break_log, self._set_clocks]
        while (left_s := ends_s - loop.time()) > 0:
            await random.choices(happenings, weights=(3, 3, 2, 1))[0]()
            await asyncio.sleep(min(random.uniform(0.1, 3), left_s))
        if random.random() < 0.3:
            for number in WITNESSES:
                web.cut(NAME, witness_name(number))
            await asyncio.sleep(random.uniform(0, SILENCE_S_MAX))
        self.quiet = random.random() < 0.5
        self.healed_s = loop.time()
        web.heal()
        for witness in self.honest:
            witness.restart()
            witness.crash_next, witness.held_back = "", 0.0
        self.node.machine.disk.faults.clear()
        self.node.machine.head_faults.clear()
        if not self.node.is_started:
            self.node.start()

    async def _cut_off(self) -> None:
        cut = self.random.sample(sorted(EVERYBODY), self.random.randint(0, len(EVERYBODY)))
        if self.random.random() < 0.3:
            self.web.mend()
        for number in cut:
            ends = [NAME, witness_name(number)]
            self.random.shuffle(ends)
            self.web.cut(*ends)

    async def _break_witness(self) -> None:
        if self.honest:
            witness = self.random.choice(self.honest)
            if not witness.up:
                witness.restart()
            elif self.random.random() < 0.3:
                witness.crash()
            else:
                witness.crash_next = self.random.choice(["before", "after", "answered"])

    async def _break_log(self) -> None:
        random, node = self.random, self.node
        if not node.is_started:
            node.start()
        elif random.random() < 0.3:
            await node.crash()
        elif random.random() < 0.3:
            await node.stop(drain_ms=random.choice([0, 500]))
        elif random.random() < 0.5:
            node.machine.head_faults.append(random.choice(["refused", "applied"]))
        else:
            node.machine.disk.faults.append((random.choice(["commit", "publish"]), random.choice(list(Fault))))

    async def _set_clocks(self) -> None:
        self.node.clock.skew_ms += self.random.randrange(-2_000, 2_000)
        for witness in self.honest:
            witness.clock.skew_ms += self.random.randrange(-20_000, 20_000)

    async def _require_publication(self, *, within_s: float) -> None:
        """All is well but for the liars: what is integrated now is published in time, if the honest can make a quorum."""
        loop, node = asyncio.get_running_loop(), self.node
        began_s, wanted = loop.time(), node.integrated
        enough = accepts(self.policy, entries_of(EVERYBODY - self.dishonest))
        while node.served < wanted and loop.time() - began_s < (within_s + 1 if enough else 3):
            assert node.service is None or node.service.held is None
            await asyncio.sleep(0.05)
        if enough:
            took_s = loop.time() - began_s
            self.slowness.append(took_s / within_s)
            assert took_s <= within_s, f"size {wanted} was not published in {within_s:.1f} s"

    def check(self) -> None:
        """What holds of the whole run."""
        tree = self.node.tree
        stored = self.node.published
        sizes = [(item.process, item.size) for item in stored]
        assert sizes == sorted(sizes), "what is published went back"
        for item in {item.note: item for item in reversed(stored)}.values():
            assert tree.holds(parse_checkpoint(parse_note(item.note).text))
            try:
                verified = verify_checkpoint(item.note, self.policy)
            except QuorumError:
                assert self.without_quorum is WithoutQuorum.PUBLISH
            else:
                limit_s = item.time_s + self.settings.witnessing.future_s_max + SKEW_S_MAX
                assert all(line.time_s is not None and line.time_s < limit_s for line in verified.cosigned)
        for witness in self.honest:
            assert all(tree.root(size) == root for _, size, root in witness.released)


def simulate(seed: int) -> Publication:
    """One run, checked."""
    random = Random(seed)
    shape = list(SHAPES.values())[seed % len(SHAPES)] if random.random() < 0.5 else random_shape(random)
    policy = make_policy(*shape, logs=(SKEY,))
    without_quorum = random.choice([WithoutQuorum.HOLD, WithoutQuorum.HOLD, WithoutQuorum.PUBLISH])
    dishonest = SUBSETS[seed % len(SUBSETS)]
    if random.random() < 0.5 and not accepts(policy, entries_of(EVERYBODY - dishonest)):
        dishonest = frozenset()
    run = Publication(random, dishonest, policy, without_quorum)
    run_virtual(run.run, random=random)
    run.check()
    return run


@pytest.mark.parametrize("seed", sorted({*SEEDS, *REMEMBERED}))
def test_an_honest_log_goes_on_whatever_a_minority_does(seed: int) -> None:
    print(f"TRANSLOG_SEED={seed}")  # noqa: T201
    simulate(seed)


def test_a_seed_tells_the_whole_run() -> None:
    one, other = simulate(3), simulate(3)
    assert [(item.process, item.size, item.time_s) for item in one.node.published] == [
        (item.process, item.size, item.time_s) for item in other.node.published
    ]
    assert (one.web.delivered, one.slowness) == (other.web.delivered, other.slowness)
    assert one.web.delivered > 100
