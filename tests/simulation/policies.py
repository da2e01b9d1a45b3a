"""Policies over five witnesses, and what they are worth by trying everything.

Rules: witness N is `wN.example` and has an Ed25519 key, listed as `wN`; the last has an ML-DSA-44 key too, listed as
`w5q`. A set of witnesses is a frozenset of numbers. What is here knows nothing of core/quorum.py: the two are compared.
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from random import Random

from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.policy import NO_QUORUM, Policy, parse_policy

WITNESSES = range(1, 6)
EVERYBODY = frozenset(WITNESSES)
SUBSETS = [frozenset(chosen) for count in range(len(EVERYBODY) + 1) for chosen in combinations(WITNESSES, count)]
"""All 32, smallest first."""
QUANTUM_SAFE = "w5q"

Side = frozenset[int]


def witness_name(number: int) -> str:
    return f"w{number}.example"


@cache
def witness_keys(number: int) -> dict[str, SKey]:
    """Its private keys by the policies' names for them."""
    seed = bytes([number]) * 32
    keys = {f"w{number}": SKey(name=witness_name(number), type=KeyType.COSIGNATURE_ED25519, seed=seed)}
    if number == max(WITNESSES):
        keys[QUANTUM_SAFE] = SKey(name=witness_name(number), type=KeyType.COSIGNATURE_MLDSA44, seed=seed)
    return keys


def witness_signers(number: int) -> list[KeySigner]:
    return [KeySigner(skey) for skey in witness_keys(number).values()]


ENTRIES = {name: number for number in WITNESSES for name in witness_keys(number)}
"""The number of the witness that each entry of a policy is of."""


@cache
def _witness_lines() -> str:
    keys = {name: skey for number in WITNESSES for name, skey in witness_keys(number).items()}
    return "".join(f"witness {name} {skey.vkey} https://{skey.name}\n" for name, skey in keys.items())


def make_policy(groups: str, quorum: str, *, logs: tuple[SKey, ...] = ()) -> Policy:
    """The policy with all witnesses, these group lines and this quorum."""
    lines = "".join(f"log {skey.vkey}\n" for skey in logs)
    return parse_policy(f"{lines}{_witness_lines()}{groups}quorum {quorum}\n".encode())


_PLAIN = " ".join(f"w{number}" for number in WITNESSES)

SHAPES: dict[str, tuple[str, str]] = {
    "none": ("", NO_QUORUM),
    "one": ("", "w3"),
    "quantum-safe": ("", QUANTUM_SAFE),
    **{f"{k} of 5": (f"group g {k} {_PLAIN}\n", "g") for k in WITNESSES},
    "any": (f"group g any {_PLAIN}\n", "g"),
    "all": (f"group g all {_PLAIN}\n", "g"),
    "2 of 3": ("group g 2 w1 w2 w3\n", "g"),
    "3 of 4": ("group g 3 w1 w2 w3 w4\n", "g"),
    "either key of 5": (f"group five any w5 {QUANTUM_SAFE}\ngroup g 3 w1 w2 w3 w4 five\n", "g"),
    "both keys of 5": (f"group five all w5 {QUANTUM_SAFE}\ngroup g 4 w1 w2 w3 w4 five\n", "g"),
    "keys of 5 apart": (f"group a 2 w1 w2 w5\ngroup b 2 w3 w4 {QUANTUM_SAFE}\ngroup g all a b\n", "g"),
    "keys of 5 apart, either side": (f"group a all w1 w5\ngroup b all w3 {QUANTUM_SAFE}\ngroup g any a b\n", "g"),
    "keys of 5 counted twice": (f"group g 4 {_PLAIN} {QUANTUM_SAFE}\n", "g"),
    "w1 weighs most": ("group rest all w2 w3 w4 w5\ngroup g any w1 rest\n", "g"),
    "w1 and any other": ("group rest any w2 w3 w4 w5\ngroup g all w1 rest\n", "g"),
    "majority of groups": ("group a any w1 w2\ngroup b all w3 w4\ngroup g 2 a b w5\n", "g"),
    "two operators": ("group a all w1 w2\ngroup b all w3 w4\ngroup g any a b\n", "g"),
    "grid": ("group a any w1 w2\ngroup b any w3 w4\ngroup g all a b w5\n", "g"),
    "three deep": ("group a any w1 w2\ngroup b 2 a w3 w4\ngroup g all b w5\n", "g"),
    "groups of one": ("group a all w1\ngroup b any a\ngroup c 1 b\ngroup d all w2\ngroup g all c d\n", "g"),
    "quorum inside": ("group a 2 w1 w2 w3\ngroup g all a w4 w5\n", "a"),
}
"""Group lines and quorum."""


def random_shape(random: Random) -> tuple[str, str]:
    """A forest of groups over some of the entries, with any node of it as the quorum, mostly a root."""
    nodes = random.sample(list(ENTRIES), random.randint(1, len(ENTRIES)))
    lines, inner = "", list(nodes)
    for number in range(random.randint(1, 5)):
        chosen = random.sample(nodes, random.randint(1, len(nodes)))
        threshold = random.randint(1, len(chosen))
        word = {1: "any", len(chosen): "all"}.get(threshold, str(threshold)) if random.random() < 0.5 else str(threshold)
        name = f"g{number}"
        lines += f"group {name} {word} {' '.join(chosen)}\n"
        nodes = [node for node in nodes if node not in chosen] + [name]
        inner.append(name)
    return lines, random.choice(nodes if random.random() < 0.7 else inner) if random.random() < 0.9 else name


def accepts(policy: Policy, cosigned: frozenset[str]) -> bool:
    """Whether these entries satisfy the quorum, by its definition."""

    def satisfied(name: str) -> bool:
        group = policy.groups.get(name)
        return name in cosigned if group is None else sum(map(satisfied, group.members)) >= group.threshold

    return policy.quorum == NO_QUORUM or satisfied(policy.quorum)


def entries_of(side: Side, *, forged: frozenset[str] = frozenset()) -> frozenset[str]:
    """What these witnesses sign with all their keys, and what can be forged."""
    return frozenset(name for name, number in ENTRIES.items() if number in side) | forged


ED25519 = frozenset(ENTRIES) - {QUANTUM_SAFE}


def divisions(honest: Side) -> Iterator[tuple[Side, Side]]:
    """Every way to divide honest witnesses between two branches. Which branch is which does not matter."""
    members = sorted(honest)
    for bits in range(1 << max(0, len(members) - 1)):
        first = frozenset(member for at, member in enumerate(members) if bits >> at & 1)
        yield first, honest - first


def can_split(policy: Policy, dishonest: Side, *, forged: frozenset[str] = frozenset()) -> bool:
    """Whether two branches can both get a quorum, where the dishonest sign both and each honest witness signs one."""
    return any(
        accepts(policy, entries_of(first | dishonest, forged=forged))
        and accepts(policy, entries_of(second | dishonest, forged=forged))
        for first, second in divisions(EVERYBODY - dishonest)
    )


def share_an_honest_witness(policy: Policy, dishonest: Side) -> bool:
    """Whether any two quorums do: the same in the words of the claim."""
    quorums = [side for side in SUBSETS if accepts(policy, entries_of(side))]
    return all((one & other) - dishonest for one in quorums for other in quorums)
