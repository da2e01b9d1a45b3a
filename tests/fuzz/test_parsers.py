"""Hostile bytes into every parser: success or MalformedError, nothing else; and what was taken formats back to itself.

For a long run by hand: TRANSLOG_FUZZ_EXAMPLES=100000 python -m pytest tests/fuzz
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import PARSERS
from translog.errors import MalformedError

EXAMPLES = int(os.environ.get("TRANSLOG_FUZZ_EXAMPLES", "200"))
TELLING = [
    b"\n",
    b"\n\n",
    b"\r\n",
    b" ",
    b"\0",
    b"+",
    b"=",
    b"-",
    b"0",
    b"x000/",
    b".p/",
    b"\xe2\x80\x94 ",
    b"\xe2\x80\xa8",
    b"\xc2\xa0",
    b"\xff",
    b"none",
]
FUZZING = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A good value after a few truncations, splices, flips and insertions."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        begin, end = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
        how = draw(st.sampled_from(["truncate", "cut", "repeat", "splice", "flip", "insert"]))
        if how == "truncate":
            data = data[:begin]
        elif how == "cut":
            data = data[:begin] + data[end:]
        elif how == "repeat":
            data = data[:end] + data[begin:]
        elif how == "splice":
            data = data[:begin] + draw(st.sampled_from(seeds))[end:]
        elif how == "flip" and begin < len(data):
            data = data[:begin] + bytes([data[begin] ^ 1 << draw(st.integers(0, 7))]) + data[begin + 1 :]
        else:
            data = data[:begin] + draw(st.sampled_from(TELLING) | st.binary(max_size=4)) + data[begin:]
    return data


def check(name: str, data: bytes) -> bool:
    """Whether the parser took `data`."""
    try:
        formatted = PARSERS[name].run(data)
    except MalformedError:
        return False
    assert formatted == data
    return True


@pytest.mark.parametrize("name", PARSERS)
def test_good_values_are_taken(name: str) -> None:
    assert all(check(name, seed) for seed in PARSERS[name].seeds)


@pytest.mark.parametrize("name", PARSERS)
@FUZZING
@given(data=st.data())
def test_mutated_values_are_taken_exactly_or_malformed(name: str, data: st.DataObject) -> None:
    check(name, data.draw(mutated(PARSERS[name].seeds)))


@pytest.mark.parametrize("name", PARSERS)
@FUZZING
@given(data=st.binary(max_size=200))
def test_random_bytes_are_taken_exactly_or_malformed(name: str, data: bytes) -> None:
    check(name, data)
