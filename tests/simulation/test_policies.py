"""What core/quorum.py says a policy is worth is what trying everything finds."""

from collections.abc import Iterable
from random import Random

import pytest

from simulation.policies import (
    ED25519,
    ENTRIES,
    EVERYBODY,
    SHAPES,
    SUBSETS,
    Side,
    accepts,
    can_split,
    entries_of,
    make_policy,
    random_shape,
    share_an_honest_witness,
    witness_name,
)
from translog.core.policy import NO_QUORUM, Policy
from translog.core.quorum import has_quorum, weigh_policy

RANDOM_POLICIES = 400


def numbers_of(names: Iterable[str]) -> Side:
    wanted = set(names)
    assert wanted <= {witness_name(number) for number in EVERYBODY}
    return frozenset(number for number in EVERYBODY if witness_name(number) in wanted)


def compare(policy: Policy) -> None:
    worth = weigh_policy(policy)
    for side in SUBSETS:
        assert has_quorum(policy, entries_of(side)) == accepts(policy, entries_of(side))
        assert can_split(policy, side) != share_an_honest_witness(policy, side)
    if policy.quorum == NO_QUORUM:
        assert (worth.split, worth.split_quantum, worth.stop) == (None, None, None)
        return
    assert worth.split is not None
    assert worth.split_quantum is not None
    assert worth.stop is not None
    split, quantum, stop = map(numbers_of, (worth.split, worth.split_quantum, worth.stop))
    assert can_split(policy, split)
    assert not any(can_split(policy, side) for side in SUBSETS if len(side) < len(split))
    assert can_split(policy, quantum, forged=ED25519)
    assert not any(can_split(policy, side, forged=ED25519) for side in SUBSETS if len(side) < len(quantum))
    assert not accepts(policy, entries_of(EVERYBODY - stop))
    assert all(accepts(policy, entries_of(EVERYBODY - side)) for side in SUBSETS if len(side) < len(stop))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_policy_is_worth_what_trying_everything_finds(shape: str) -> None:
    compare(make_policy(*SHAPES[shape]))


def test_any_policy_is_worth_what_trying_everything_finds() -> None:
    for seed in range(RANDOM_POLICIES):
        shape = random_shape(Random(seed))
        try:
            compare(make_policy(*shape))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {shape}") from error


def test_the_policies_are_of_all_kinds() -> None:
    """Else the simulation would show little: from those that split without a liar to those that only all can split."""
    policies = [make_policy(*random_shape(Random(seed))) for seed in range(RANDOM_POLICIES)]
    for wanted in range(len(EVERYBODY) + 1):
        assert any(len(weigh_policy(policy).split or ()) == wanted for policy in policies)
    assert len(ENTRIES) == 6
