"""What a policy's quorum is worth, and when it was reached.

Rules: a witness is whoever has the name in a vkey, however many keys are listed for it, and cosigns with all of them. An honest
one cosigns one history; a split view is two histories that each have a quorum, so it takes as many dishonest witnesses as two
quorums must have in common. Groups form a forest, so that is counted from the leaves up, exactly: a group of n members needs k
of them on either side, hence 2k - n of them on both, and takes the cheapest. Of a witness whose keys are in several places each
case is tried; where that would be too many, such witnesses count as dishonest and absent already, which never overstates.
https://c2sp.org/tlog-policy
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from math import comb

from translog.core.keys import KeyType
from translog.core.policy import NO_QUORUM, Policy, VerifiedCheckpoint, require_quorum
from translog.core.policy import restrict_policy as restrict_policy
from translog.errors import QuorumError

_WORK_MAX = 300_000
"""Most members of groups looked at for witnesses whose keys are in several places: under a second."""
_A, _B, _BOTH = 1, 2, 3
"""Which of the two histories are cosigned."""
_NEVER = 1 << 40
"""What cannot be: more than any number of witnesses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWorth:
    """What a policy is worth. Witnesses are named as in their vkeys, in the policy's order; `post_quantum`, `classic` and
    `unused` are the policy's own names for their keys. With `quorum none` nobody is counted: the operator alone can split.

    `split` is a smallest set that must be dishonest for a split view; () if two quorums have nobody in common, None for `quorum
    none`. `split_quantum` is the same against one who can forge Ed25519, to whom such keys cost nothing; `stop` a smallest set
    whose absence stops publication. `views` are two quorums that have just `split` in common. `post_quantum` and `classic` are
    the keys that the quorum counts, `unused` those that it does not. `repeated` are witnesses whose keys are in several places
    of the quorum. `uncounted` are those of them that were too many to try: they are taken for dishonest and absent beforehand.
    """

    witnesses: tuple[str, ...]
    split: tuple[str, ...] | None
    split_quantum: tuple[str, ...] | None
    stop: tuple[str, ...] | None
    views: tuple[tuple[str, ...], tuple[str, ...]] | None
    post_quantum: tuple[str, ...]
    classic: tuple[str, ...]
    unused: tuple[str, ...]
    repeated: tuple[str, ...]
    uncounted: tuple[str, ...]


def weigh_policy(policy: Policy) -> PolicyWorth:
    """What the policy is worth."""
    counted = _counted(policy)
    entries = [witness for witness in policy.witnesses.values() if witness.name in counted]
    classic = [witness.name for witness in entries if witness.vkey.type is not KeyType.COSIGNATURE_MLDSA44]
    split = quantum = stop = views = None
    repeated: Collection[str] = ()
    uncounted: set[str] = set()
    if policy.quorum != NO_QUORUM:
        tree, forgeable = _Tree.grow(policy, free=()), _Tree.grow(policy, free=classic)
        repeated = tree.repeated
        uncounted = {*tree.uncounted, *forgeable.uncounted}
        signed = _split(tree)
        views = _ordered(policy, signed, _A), _ordered(policy, signed, _B)
        split = _ordered(policy, _dishonest(tree, signed), _BOTH)
        quantum = _ordered(policy, _dishonest(forgeable, _split(forgeable)), _BOTH)
        stop = _ordered(policy, dict.fromkeys(_stop(tree), _BOTH), _BOTH)
    return PolicyWorth(
        witnesses=tuple(dict.fromkeys(witness.vkey.name for witness in entries)),
        split=split,
        split_quantum=quantum,
        stop=stop,
        views=views,
        post_quantum=tuple(witness.name for witness in entries if witness.name not in set(classic)),
        classic=tuple(classic),
        unused=tuple(name for name in policy.witnesses if name not in counted),
        repeated=_ordered(policy, dict.fromkeys(repeated, _BOTH), _BOTH),
        uncounted=_ordered(policy, dict.fromkeys(uncounted, _BOTH), _BOTH),
    )


def _counted(policy: Policy) -> set[str]:
    """The names of witnesses and groups that the quorum consists of, with its own."""
    counted = {policy.quorum}
    for group in reversed(list(policy.groups.values())):  # members are defined above
        if group.name in counted:
            counted.update(group.members)
    return counted


def _ordered(policy: Policy, signed: Mapping[str, int], mask: int) -> tuple[str, ...]:
    """The witnesses that signed at least that, in the policy's order."""
    names = dict.fromkeys(witness.vkey.name for witness in policy.witnesses.values())
    return tuple(name for name in names if signed.get(name, 0) & mask == mask)


@dataclass(frozen=True, slots=True)
class _Tree:
    """The quorum, without the keys that cost nothing. A leaf is a place where one witness counts: a key, or a group of nothing
    but that witness's keys. Empty if what costs nothing is a quorum.

    `leaves` has the witness by the leaf's name, `groups` threshold and members, each below its members. `alike` are the
    witnesses with several leaves, together where they are interchangeable.
    """

    root: str
    leaves: Mapping[str, str]
    groups: Mapping[str, tuple[int, tuple[str, ...]]]
    alike: tuple[tuple[str, ...], ...]
    repeated: tuple[str, ...]
    uncounted: tuple[str, ...]

    @classmethod
    def grow(cls, policy: Policy, *, free: Iterable[str]) -> "_Tree":
        """The tree of a policy that has a quorum."""
        satisfied = set(free)
        leaves = {name: witness.vkey.name for name, witness in policy.witnesses.items() if name not in satisfied}
        groups = {}
        for group in policy.groups.values():
            members = tuple(member for member in group.members if member not in satisfied)
            threshold = group.threshold - (len(group.members) - len(members))
            owners = {leaves.get(member) for member in members}
            if threshold <= 0:
                satisfied.add(group.name)
            elif len(owners) == 1 and (owner := owners.pop()) is not None:
                leaves[group.name] = owner
            else:
                groups[group.name] = threshold, members
        if policy.quorum in satisfied:
            return cls("", {}, {}, (), (), ())
        reached = {policy.quorum}
        for name, (_, members) in reversed(groups.items()):
            if name in reached:
                reached.update(members)
        leaves = {name: owner for name, owner in leaves.items() if name in reached}
        groups = {name: group for name, group in groups.items() if name in reached}
        return cls(policy.quorum, leaves, groups, *_several(leaves, groups))


def _several(
    leaves: Mapping[str, str], groups: Mapping[str, tuple[int, tuple[str, ...]]]
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...], tuple[str, ...]]:
    """Of the witnesses with several leaves: those to be tried, the interchangeable ones together; all; and those too many."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, (_, members) in groups.items():
        for member in members:
            if member in leaves:
                places[leaves[member]].append(name)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for witness, where in places.items():
        if len(where) > 1:
            alike[tuple(where)].append(witness)
    work = 1 + sum(len(members) for _, members in groups.values())
    tried: list[tuple[str, ...]] = []
    uncounted: list[str] = []
    for witnesses in sorted(alike.values(), key=len):
        cases = comb(len(witnesses) + 2, 2)
        if work * cases > _WORK_MAX:
            uncounted += witnesses
        else:
            work *= cases
            tried.append(tuple(witnesses))
    return tuple(tried), tuple(witness for witnesses in alike.values() for witness in witnesses), tuple(uncounted)


def _cases(tree: _Tree, choices: Sequence[int], uncounted: int) -> Iterator[dict[str, int]]:
    """Each way for the witnesses with several leaves to choose."""
    fixed = dict.fromkeys(tree.uncounted, uncounted)
    for chosen in product(*(combinations_with_replacement(choices, len(witnesses)) for witnesses in tree.alike)):
        case = dict(fixed)
        for witnesses, each in zip(tree.alike, chosen, strict=True):
            case.update(zip(witnesses, each, strict=True))
        yield case


# --- a split view: two quorums with as few witnesses in common as can be ----------------------------------------------------


def _split(tree: _Tree) -> dict[str, int]:
    """Who cosigns which history in the cheapest split view."""
    if not tree.root:
        return {}
    best: dict[str, int] = {}
    least = _NEVER
    for case in _cases(tree, (_A, _B, _BOTH), _BOTH):
        able, costs = _measure(tree, case)
        cost = costs[tree.root] + len(_dishonest(tree, case))
        if able[tree.root] == _BOTH and cost < least:
            best, least = _assign(tree, able, costs), cost
        if not least:
            break
    return best


def _dishonest(tree: _Tree, signed: Mapping[str, int]) -> dict[str, int]:
    """The witnesses that sign both, but for those that nobody counts."""
    return {name: mask for name, mask in signed.items() if mask == _BOTH and name not in tree.uncounted}


def _measure(tree: _Tree, case: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """For each leaf and group the histories that it can be satisfied for, and how many dishonest witnesses both take. One alone
    takes none."""
    able = {name: case.get(witness, _BOTH) for name, witness in tree.leaves.items()}
    costs = {name: int(witness not in case) for name, witness in tree.leaves.items()}
    for name, (threshold, members) in tree.groups.items():
        both = sorted(costs[member] for member in members if able[member] == _BOTH)
        for_a, for_b = _needed(able, threshold, members)
        able[name] = (_A if for_a <= len(both) else 0) | (_B if for_b <= len(both) else 0)
        costs[name] = sum(both[: max(0, for_a + for_b - len(both))])
    return able, costs


def _needed(able: Mapping[str, int], threshold: int, members: Sequence[str]) -> tuple[int, int]:
    """How many members that can do both a group needs for either history, beside those that can do but one."""
    masks = [able[member] for member in members]
    return max(0, threshold - masks.count(_A)), max(0, threshold - masks.count(_B))


def _assign(tree: _Tree, able: Mapping[str, int], costs: Mapping[str, int]) -> dict[str, int]:
    """Who cosigns what, with no more than is needed."""
    signed: dict[str, int] = defaultdict(int)
    todo = [(tree.root, _BOTH)]
    while todo:
        name, mask = todo.pop()
        if name in tree.leaves:
            signed[tree.leaves[name]] |= mask
            continue
        threshold, members = tree.groups[name]
        if mask != _BOTH:
            todo += [(member, mask) for member in members if able[member] & mask][:threshold]
            continue
        both = sorted((member for member in members if able[member] == _BOTH), key=costs.__getitem__)
        for_a, for_b = _needed(able, threshold, members)
        shared = max(0, for_a + for_b - len(both))
        masks = [_BOTH] * shared + [_A] * (for_a - shared) + [_B] * (for_b - shared)
        todo += zip(both, masks, strict=False)
        for side in (_A, _B):
            todo += [(member, side) for member in members if able[member] == side][:threshold]
    return signed


# --- absence ----------------------------------------------------------------------------------------------------------------


def _stop(tree: _Tree) -> set[str]:
    """A smallest set of witnesses without whom there is no quorum."""
    best: set[str] = set()
    least = _NEVER
    for case in _cases(tree, (0, 1), 1):
        costs = {name: (1 - case[who]) * _NEVER if who in case else 1 for name, who in tree.leaves.items()}
        lacking = {}
        for name, (threshold, members) in tree.groups.items():
            lacking[name] = sorted(members, key=costs.__getitem__)[: len(members) - threshold + 1]
            costs[name] = min(_NEVER, sum(costs[member] for member in lacking[name]))
        cost = costs[tree.root] + sum(case.values())
        if cost < least:
            best, least = _absent(tree, lacking), cost
    return best


def _absent(tree: _Tree, lacking: Mapping[str, Sequence[str]]) -> set[str]:
    absent = set()
    todo = [tree.root]
    while todo:
        name = todo.pop()
        if name in tree.leaves:
            absent.add(tree.leaves[name])
        else:
            todo += lacking[name]
    return absent.difference(tree.uncounted)


# --- which cosignatures are enough, and since when ----------------------------------------------------------------------------


def has_quorum(policy: Policy, names: Iterable[str]) -> bool:
    """Whether the witnesses, by the policy's names for their keys, satisfy its quorum."""
    try:
        require_quorum(policy, names)
    except QuorumError:
        return False
    return True


def stated_times(verified: VerifiedCheckpoint, policy: Policy) -> list[tuple[int, str]]:
    """The times (POSIX seconds) that count, with whose they are: witnesses' where the policy asks for them, else the log's."""
    counted = verified.signed if policy.quorum == NO_QUORUM else verified.cosigned
    return [(item.time_s, item.name) for item in counted if item.time_s is not None]


def accepted_since(timed: Sequence[tuple[int, str]], policy: Policy) -> int | None:
    """The latest time such that the signatures of that time and later are enough for the policy; None if all are not."""
    for since_s in sorted({time_s for time_s, _ in timed}, reverse=True):
        if has_quorum(policy, [name for time_s, name in timed if time_s >= since_s]):
            return since_s
    return None


def accepted_by(timed: Sequence[tuple[int, str]], policy: Policy) -> int | None:
    """The earliest time such that the signatures up to that time are enough for the policy; None if all are not."""
    for by_s in sorted({time_s for time_s, _ in timed}):
        if has_quorum(policy, [name for time_s, name in timed if time_s <= by_s]):
            return by_s
    return None
