"""What a policy costs grows with its length, not with the square of it."""

import sys
from types import FrameType

import pytest

from translog.core.keys import KeyType, SKey
from translog.core.policy import parse_policy


def _calls(data: bytes) -> int:
    """Calls of Python functions, and steps of generators, while a policy is parsed."""
    calls = [0]

    def count(frame: FrameType, event: str, argument: object) -> None:
        calls[0] += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        parse_policy(data)
    finally:
        sys.setprofile(before)
    return calls[0]


@pytest.mark.parametrize("kind", ["witness", "log"])
def test_twice_the_keys_cost_twice_as_much(kind: str) -> None:
    key_type = KeyType.COSIGNATURE_ED25519 if kind == "witness" else KeyType.ED25519
    vkeys = [SKey(name="k", type=key_type, seed=number.to_bytes(32, "big")).vkey for number in range(1_000)]
    lines = [f"{kind} w{number} {vkey}\n" if kind == "witness" else f"log {vkey}\n" for number, vkey in enumerate(vkeys)]
    half, whole = ("".join([*some, "quorum none\n"]).encode() for some in (lines[:500], lines))
    assert _calls(whole) < 2.5 * _calls(half)
