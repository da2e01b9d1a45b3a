"""What a quorum is worth, against an oracle that tries every set of witnesses."""

import itertools
import time
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.known import LOG_VKEY
from translog.core.keys import KeyType, VKey
from translog.core.policy import Policy, PolicyGroup, PolicyWitness, format_policy, parse_policy
from translog.core.quorum import PolicyWorth, accepted_by, accepted_since, has_quorum, restrict_policy, weigh_policy

ED, ML = KeyType.COSIGNATURE_ED25519, KeyType.COSIGNATURE_MLDSA44
SIZES = {ED: 32, ML: 1312}


def entry(witness: str, kind: KeyType = ED, number: int = 0) -> PolicyWitness:
    """A key of a witness; nothing is verified with it. The policy calls it by witness, algorithm and number."""
    name = f"{witness}-{'ed' if kind is ED else 'ml'}{number or ''}"
    raw = f"{name} ".encode().ljust(SIZES[kind], b".")
    return PolicyWitness(name=name, vkey=VKey(name=witness, type=kind, public_key=raw))


def policy_of(entries: list[PolicyWitness], groups: list[PolicyGroup], quorum: str) -> Policy:
    made = Policy(
        logs=(), witnesses={each.name: each for each in entries}, groups={each.name: each for each in groups}, quorum=quorum
    )
    parsed = parse_policy(format_policy(made).encode())
    assert parsed == made
    return parsed


def group(name: str, threshold: int, *members: str) -> PolicyGroup:
    return PolicyGroup(name=name, threshold=threshold, members=members)


def flat(threshold: int, count: int, kind: KeyType = ED) -> Policy:
    """k of n witnesses `a`, `b`, ... with one key each."""
    entries = [entry(chr(ord("a") + n), kind) for n in range(count)]
    return policy_of(entries, [group("g", threshold, *(each.name for each in entries))], "g")


# The oracle


def satisfied(policy: Policy, name: str, cosigned: set[str]) -> bool:
    if name in policy.witnesses:
        return name in cosigned
    members = policy.groups[name].members
    return sum(satisfied(policy, member, cosigned) for member in members) >= policy.groups[name].threshold


class Oracle:
    """Every set of witnesses that is a quorum, where a witness cosigns with all keys or none, and `free` keys always cosign."""

    def __init__(self, policy: Policy, free: set[str]) -> None:
        self.policy, self.free = policy, free
        self.names = sorted({each.vkey.name for each in policy.witnesses.values()})
        self.sets = [frozenset(chosen) for n in range(len(self.names) + 1) for chosen in itertools.combinations(self.names, n)]
        self.quorums = {chosen for chosen in self.sets if self.is_quorum(chosen)}

    def is_quorum(self, witnesses: frozenset[str]) -> bool:
        cosigned = {each.name for each in self.policy.witnesses.values() if each.vkey.name in witnesses}
        return satisfied(self.policy, self.policy.quorum, cosigned | self.free)

    def splits(self, dishonest: frozenset[str]) -> bool:
        """Whether two quorums have no honest witness in common."""
        honest = {quorum - dishonest for quorum in self.quorums}
        return any(a.isdisjoint(b) for a in honest for b in honest)

    def stops(self, absent: frozenset[str]) -> bool:
        return not any(quorum.isdisjoint(absent) for quorum in self.quorums)

    def least(self, does: Callable[[frozenset[str]], bool]) -> int:
        return next(len(chosen) for chosen in self.sets if does(chosen))


def require_as_the_oracle_says(policy: Policy) -> PolicyWorth:
    worth = weigh_policy(policy)
    assert worth.uncounted == ()
    oracle = Oracle(policy, set())
    quantum = Oracle(policy, {each.name for each in policy.witnesses.values() if each.vkey.type is ED})
    answers = ((worth.split, oracle.splits), (worth.split_quantum, quantum.splits), (worth.stop, oracle.stops))
    for found, does in answers:
        assert found is not None
        assert len(set(found)) == len(found) == oracle.least(does)
        assert does(frozenset(found))
        assert not any(does(frozenset(found) - {one}) for one in found)
    assert worth.views is not None
    one, other = map(frozenset, worth.views)
    assert {one, other} <= oracle.quorums
    assert one & other == set(worth.split or ())
    if not worth.repeated:  # nobody is named in vain
        assert not any(view - {name} in oracle.quorums for view in (one, other) for name in view)
    assert set(worth.witnesses) == {
        each.vkey.name for each in policy.witnesses.values() if each.name in (*worth.post_quantum, *worth.classic)
    }
    assert sorted((*worth.post_quantum, *worth.classic, *worth.unused)) == sorted(policy.witnesses)
    return worth


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Nested groups over up to seven witnesses, some with several keys: in one `any` group, in one other, or anywhere."""
    entries: list[PolicyWitness] = []
    groups: list[PolicyGroup] = []
    loose: list[str] = []
    for n in range(draw(st.integers(1, 7))):
        witness = chr(ord("a") + n)
        shape = draw(st.sampled_from(["ed", "ml", "wrapped", "apart", "many"]))
        kinds = {"ed": [ED], "ml": [ML], "many": [ED, ML, ED, ML]}.get(shape, [ED, ML])
        made = [entry(witness, kind, number) for number, kind in enumerate(kinds)]
        entries += made
        names = [each.name for each in made]
        if shape == "wrapped":
            groups.append(group(f"w{n}", draw(st.sampled_from([1, 1, 2])), *names))
            names = [f"w{n}"]
        loose += names
    for n in range(draw(st.integers(0, 4))):
        loose = draw(st.permutations(loose))
        size = draw(st.integers(1, len(loose)))
        groups.append(group(f"g{n}", draw(st.integers(1, size)), *loose[:size]))
        loose = [*loose[size:], f"g{n}"]
    if draw(st.integers(0, 9)) == 9:  # the quorum may be anything, and leave most of it out
        return policy_of(entries, groups, draw(st.sampled_from([*loose, *(each.name for each in entries)])))
    threshold = draw(st.integers(1, len(loose)))
    return policy_of(entries, [*groups, group("all", threshold, *loose)], "all")


@settings(max_examples=800, deadline=None)
@given(policies())
def test_every_answer_is_the_least_that_trying_all_sets_finds(policy: Policy) -> None:
    require_as_the_oracle_says(policy)


def test_every_k_of_n_is_as_the_oracle_says() -> None:
    for count in range(1, 8):
        for threshold in range(1, count + 1):
            worth = require_as_the_oracle_says(flat(threshold, count))
            assert len(worth.split or ()) == max(0, 2 * threshold - count)
            assert len(worth.stop or ()) == count - threshold + 1


# Known policies


def test_2_of_5_is_split_by_nobody_and_two_quorums_are_named() -> None:
    worth = weigh_policy(flat(2, 5))
    assert worth.split == ()
    assert worth.views == (("a", "b"), ("c", "d"))
    assert worth.stop == ("a", "b", "c", "d")


def test_3_of_5_takes_one_and_names_who() -> None:
    worth = weigh_policy(flat(3, 5, ML))
    assert worth.split == worth.split_quantum == ("a",)
    assert worth.views == (("a", "b", "c"), ("a", "d", "e"))
    assert worth.stop == ("a", "b", "c")
    assert worth.witnesses == ("a", "b", "c", "d", "e")
    assert (worth.post_quantum, worth.classic) == (("a-ml", "b-ml", "c-ml", "d-ml", "e-ml"), ())


def test_ed25519_keys_cost_a_forger_nothing() -> None:
    assert weigh_policy(flat(3, 3)).split_quantum == ()
    entries = [entry("a", ED), entry("b", ML), entry("c", ML)]
    worth = weigh_policy(policy_of(entries, [group("g", 3, "a-ed", "b-ml", "c-ml")], "g"))
    assert (worth.split, worth.split_quantum) == (("a", "b", "c"), ("b", "c"))


def test_a_witness_with_two_keys_is_one_and_is_as_weak_as_the_weaker_one_that_is_enough() -> None:
    pairs = [(entry(name, ED), entry(name, ML)) for name in "abc"]
    entries = [each for pair in pairs for each in pair]
    names = [[each.name for each in pair] for pair in pairs]
    for threshold, quantum in ((1, ()), (2, ("a", "b", "c"))):
        wrapped = [group(f"w{n}", threshold, *each) for n, each in enumerate(names)]
        policy = policy_of(entries, [*wrapped, group("g", 3, "w0", "w1", "w2")], "g")
        worth = require_as_the_oracle_says(policy)
        assert (worth.split, worth.split_quantum, worth.repeated) == (("a", "b", "c"), quantum, ())


def test_keys_of_a_witness_in_different_groups_are_told() -> None:
    entries = [entry("a", ED), entry("a", ML), entry("b", ED), entry("c", ED)]
    policy = policy_of(entries, [group("g", 2, "a-ed", "b-ed", "a-ml", "c-ed")], "g")
    worth = require_as_the_oracle_says(policy)
    assert (worth.repeated, worth.split, worth.views) == (("a",), (), (("a",), ("b", "c")))


def test_ten_witnesses_with_a_key_in_each_of_two_groups_are_counted_exactly() -> None:
    pairs = [(entry(chr(ord("a") + n), ED), entry(chr(ord("a") + n), ML)) for n in range(10)]
    old, new = ([each.name for each in half] for half in zip(*pairs, strict=True))
    policy = policy_of([*itertools.chain(*pairs)], [group("ed", 7, *old), group("ml", 6, *new), group("g", 1, "ed", "ml")], "g")
    worth = weigh_policy(policy)
    assert [len(found or ()) for found in (worth.split, worth.split_quantum, worth.stop)] == [2, 0, 5]
    assert (len(worth.repeated), worth.uncounted) == (10, ())


def test_what_is_too_much_to_try_is_never_overstated() -> None:
    """Thirty witnesses, each with keys in two groups of its own: such are taken for dishonest and absent."""
    entries = [entry(f"w{n}", kind) for n in range(30) for kind in (ED, ML)]
    groups = [
        group(f"{n}{kind}", 1, f"w{n}-{kind}", f"w{(n + 1) % 30}-{other}") for n in range(30) for kind, other in [("ed", "ml")]
    ]
    policy = policy_of(entries, [*groups, group("g", 30, *(each.name for each in groups))], "g")
    begun = time.monotonic()
    worth = weigh_policy(policy)
    assert time.monotonic() - begun < 10
    assert worth.uncounted
    assert len(worth.repeated) == 30
    assert set(worth.split or ()).isdisjoint(worth.uncounted)
    assert set(worth.stop or ()).isdisjoint(worth.uncounted)


@settings(max_examples=200, deadline=None)
@given(policies())
def test_witnesses_that_are_not_tried_only_lower_the_answers(policy: Policy) -> None:
    with mock.patch("translog.core.quorum._WORK_MAX", 0):
        worth = weigh_policy(policy)
    assert set(worth.repeated) <= set(worth.uncounted)
    beforehand = frozenset(worth.uncounted)
    oracle = Oracle(policy, set())
    for found, does in ((worth.split, oracle.splits), (worth.stop, oracle.stops)):
        assert found is not None
        assert beforehand.isdisjoint(found)
        assert len(found) <= oracle.least(does)
        assert does(beforehand | set(found))


def test_quorum_none_counts_nobody() -> None:
    worth = weigh_policy(policy_of([entry("a")], [group("g", 1, "a-ed")], "none"))
    assert (worth.split, worth.split_quantum, worth.stop, worth.views) == (None, None, None, None)
    assert (worth.witnesses, worth.classic, worth.unused) == ((), (), ("a-ed",))


def test_witnesses_that_the_quorum_does_not_name_are_told() -> None:
    entries = [entry("a"), entry("b"), entry("c", ML)]
    worth = weigh_policy(policy_of(entries, [group("g", 1, "a-ed"), group("h", 1, "b-ed")], "g"))
    assert (worth.split, worth.stop, worth.unused) == (("a",), ("a",), ("b-ed", "c-ml"))


def test_thousands_of_witnesses_and_groups_in_groups_are_weighed_at_once() -> None:
    entries = [entry(f"w{n}") for n in range(4_000)]
    names = [each.name for each in entries]
    deep = [group("g0", 1, names[0]), *(group(f"g{n}", 2, f"g{n - 1}", names[n]) for n in range(1, 2_000))]
    policy = policy_of(entries, [*deep, group("g", 1_500, "g1999", *names[2_000:])], "g")
    begun = time.monotonic()
    worth = weigh_policy(policy)
    assert time.monotonic() - begun < 5
    assert (len(worth.split or ()), len(worth.stop or ())) == (999, 502)


# has_quorum, accepted_by, accepted_since


@given(policies(), st.data())
def test_a_quorum_is_what_the_oracle_says(policy: Policy, data: st.DataObject) -> None:
    cosigned = data.draw(st.sets(st.sampled_from(sorted(policy.witnesses))))
    assert has_quorum(policy, cosigned) == satisfied(policy, policy.quorum, cosigned)


@given(policies(), st.data())
def test_times_are_the_earliest_and_latest_with_a_quorum(policy: Policy, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(policy.witnesses))
    timed = data.draw(st.lists(st.tuples(st.integers(1, 9), names), max_size=12))

    def enough(first: int, last: int) -> bool:
        return satisfied(policy, policy.quorum, {name for time_s, name in timed if first <= time_s <= last})

    assert accepted_by(timed, policy) == next((time_s for time_s in range(1, 10) if enough(1, time_s)), None)
    assert accepted_since(timed, policy) == next((time_s for time_s in range(9, 0, -1) if enough(time_s, 9)), None)


# Restricting to one algorithm


def subsets(names: list[str]) -> Iterator[set[str]]:
    return (set(chosen) for n in range(len(names) + 1) for chosen in itertools.combinations(names, n))


@settings(max_examples=150, deadline=None)
@given(policies(), st.booleans())
def test_a_restricted_policy_asks_for_no_less(policy: Policy, classic: bool) -> None:
    restricted = restrict_policy(policy, classic=classic)
    assert parse_policy(format_policy(restricted).encode()) == restricted
    dropped = [each for each in policy.witnesses.values() if each.name not in restricted.witnesses]
    assert all((each.vkey.type is ML) == classic for each in dropped)
    assert {each.vkey.name for each in restricted.witnesses.values()} == {each.vkey.name for each in policy.witnesses.values()}
    if len(policy.witnesses) <= 10:
        for cosigned in subsets(sorted(restricted.witnesses)):
            assert satisfied(policy, policy.quorum, cosigned) == satisfied(restricted, restricted.quorum, cosigned)
    before, after = weigh_policy(policy), weigh_policy(restricted)
    assert len(after.split_quantum or ()) >= len(before.split_quantum or ()) or classic


@pytest.mark.parametrize(
    ("threshold", "quorum", "kept", "classic_kept"),
    [
        (1, "g", ["a-ml"], ["a-ed"]),
        (2, "g", ["a-ed", "a-ml"], ["a-ed", "a-ml"]),
        (1, "a-ed", ["a-ed", "a-ml"], ["a-ed"]),
        (1, "a-ml", ["a-ml"], ["a-ed", "a-ml"]),
    ],
)
def test_only_one_of_two_keys_in_an_any_group_is_kept(
    threshold: int, quorum: str, kept: list[str], classic_kept: list[str]
) -> None:
    policy = policy_of([entry("a", ED), entry("a", ML)], [group("g", threshold, "a-ed", "a-ml")], quorum)
    assert list(restrict_policy(policy, classic=False).witnesses) == kept
    assert list(restrict_policy(policy, classic=True).witnesses) == classic_kept


def test_keys_of_different_witnesses_stay_beside_each_other() -> None:
    policy = policy_of([entry("a", ED), entry("b", ML), entry("b", ED)], [group("g", 1, "a-ed", "b-ml", "b-ed")], "g")
    assert restrict_policy(policy, classic=False).groups["g"].members == ("a-ed", "b-ml")
    assert restrict_policy(policy, classic=True).groups["g"].members == ("a-ed", "b-ed")


def test_logs_are_kept() -> None:
    policy = parse_policy(f"log {LOG_VKEY} https://log.example/\nquorum none\n".encode())
    assert restrict_policy(policy, classic=False) == policy
