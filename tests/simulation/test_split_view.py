"""No two clients are ever shown inconsistent checkpoints, unless two quorums share no honest witness: then they are.

Every step is drawn from a printed seed: the policy, who lies, the network's weather, when witnesses crash and how their clocks
run. By hand: `TRANSLOG_SEEDS=1000 pytest tests/simulation/test_split_view.py`, or `TRANSLOG_SEED=7` for one. As many seeds as
there are shapes of policies times sets of liars meet each pair once.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random

import pytest

from simulation.network import Weather
from simulation.operators import NAME, Fork, Operator
from simulation.policies import (
    EVERYBODY,
    SHAPES,
    SUBSETS,
    WITNESSES,
    Side,
    can_split,
    divisions,
    make_policy,
    random_shape,
    share_an_honest_witness,
)
from simulation.seeds import SEEDS
from simulation.trees import inconsistent
from simulation.virtual import NodeClock, run_virtual
from simulation.witnesses import HonestWitness, Liar, Web
from translog.core.checkpoint import Checkpoint
from translog.core.policy import Policy, verify_checkpoint
from translog.errors import QuorumError

STORM_S = 20.0
"""How long the weather is bad."""
FREE_FOR_ALL = 2
"""Forks of which everybody is offered everything."""


@dataclass
class Attack:
    """One run: five witnesses, some of them liars, and an operator with a fork for each division of the others."""

    random: Random
    dishonest: Side
    forks: list[Fork] = field(default_factory=list)
    honest: list[HonestWitness] = field(default_factory=list)
    requests: int = 0

    async def run(self) -> None:
        loop, random = asyncio.get_running_loop(), self.random
        web = Web(random)
        good = EVERYBODY - self.dishonest
        plans = [*divisions(good), *([None] * FREE_FOR_ALL if good else [])]
        self.forks = [Fork(number, division) for number, division in enumerate(plans)]
        known = [fork.known for fork in self.forks]
        liars = {}
        for number in WITNESSES:
            clock = NodeClock(loop, skew_ms=random.randrange(-100_000, 100_000), drift=random.uniform(-0.01, 0.01))
            if number in self.dishonest:
                liars[number] = Liar(number, web=web, random=random, clock=clock)
            else:
                self.honest.append(HonestWitness(number, web=web, random=random, clock=clock, logs=known))
        storm = asyncio.create_task(self._storm(web))
        await Operator(self.forks, honest=good, liars=liars, web=web, random=random).run()
        await storm
        self.requests = web.delivered

    async def _storm(self, web: Web) -> None:
        """Bad weather, cuts and crashes, and a calm after them."""
        random = self.random
        web.weather = Weather(loss=random.uniform(0, 0.2), doubling=random.uniform(0, 0.3), lateness=random.uniform(0, 0.2))
        for witness in self.honest:
            witness.held_back = random.uniform(0, 0.5)
        while (now_s := asyncio.get_running_loop().time()) < STORM_S:
            if self.honest and random.random() < 0.7:
                witness = random.choice(self.honest)
                witness.clock.skew_ms += random.randrange(-50_000, 50_000)
                if random.random() < 0.3:
                    ends = [NAME, witness.name]
                    random.shuffle(ends)
                    web.cut(*ends)
                elif not witness.up:
                    witness.restart()
                elif random.random() < 0.2:
                    witness.crash()
                else:
                    witness.crash_next = random.choice(["before", "after", "answered"])
            await asyncio.sleep(min(random.uniform(0.1, 4), STORM_S - now_s + 0.001))
        web.heal()
        for witness in self.honest:
            witness.restart()
            witness.crash_next, witness.held_back = "", 0.0


def accepted(policy: Policy, fork: Fork) -> list[Checkpoint]:
    """What verifying clients accept of what the operator can show: with all lines it has, since more never harm."""
    found = []
    for note in fork.notes():
        try:
            found.append(verify_checkpoint(note, policy).checkpoint)
        except QuorumError:
            continue
    return found


def finds_split(policy_of: tuple[str, str], forks: list[Fork]) -> bool:
    return any(inconsistent(accepted(make_policy(*policy_of, logs=(fork.skey,)), fork), fork.branches) for fork in forks)


def require_one_history(witness: HonestWitness, forks: list[Fork]) -> None:
    """All that an honest witness ever cosigned of a log is of one tree."""
    trees = {fork.origin: fork.branches for fork in forks}
    for origin in trees:
        cosigned = [Checkpoint(origin=origin, size=size, root=root) for at, size, root in witness.released if at == origin]
        assert not inconsistent(cosigned, trees[origin]), f"{witness.name} cosigned both branches of {origin}"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_split_view_takes_a_liar_in_common_of_two_quorums(seed: int) -> None:
    print(f"TRANSLOG_SEED={seed}")  # noqa: T201
    random = Random(seed)
    dishonest = SUBSETS[seed % len(SUBSETS)]
    shapes = [list(SHAPES.values())[seed % len(SHAPES)], random_shape(random)]
    attack = Attack(random, dishonest)
    run_virtual(attack.run, random=random)
    for witness in attack.honest:
        require_one_history(witness, attack.forks)
    for shape in shapes:
        policy = make_policy(*shape)
        assert finds_split(shape, attack.forks) == can_split(policy, dishonest), (shape, sorted(dishonest))
        assert can_split(policy, dishonest) != share_an_honest_witness(policy, dishonest)


def test_every_policy_meets_every_set_of_liars() -> None:
    pairs = {(seed % len(SUBSETS), seed % len(SHAPES)) for seed in range(len(SUBSETS) * len(SHAPES))}
    assert len(pairs) == len(SUBSETS) * len(SHAPES)
