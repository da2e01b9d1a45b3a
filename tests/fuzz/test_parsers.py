"""Hostile bytes into every parser: success or MalformedError, nothing else (TooLargeError where bodies are cut into records);
and what was taken formats back to itself. Hostile records into every source: each becomes an event that can be sealed.

For a long run by hand: TRANSLOG_FUZZ_EXAMPLES=100000 python -m pytest tests/fuzz
"""

import copy
import json
import os
from contextlib import suppress
from functools import reduce
from operator import getitem

import pytest
from events.mutants import mutated as with_something_wrong
from events.mutants import paths_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.event_targets import EVENT_PARSERS, take
from fuzz.source_bodies import BODIES
from fuzz.targets import PARSERS as CORE_PARSERS
from translog.errors import MalformedError, TooLargeError
from translog.events.jsontext import compact

PARSERS = CORE_PARSERS | EVENT_PARSERS
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
    b"null",
    b"{}",
    b"[",
    b"]",
    b'"',
    b'":',
    b",",
    b"\\u",
    b"\\ud800",
    b"\\udc00",
    b"NaN",
    b"1e400",
    b"1e-400",
    b"90071992547409931",
    b"-0",
    b"\xef\xbb\xbf",
    b"\x00\x01",
    b"\x80\x80\x80\x80\x10",
    b'{"$blob":{}}',
    b"[" * 101,
]
FUZZING = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FUZZING_RECORDS = settings(FUZZING, max_examples=max(1, EXAMPLES // 4))  # each is sealed, and takes five times as long


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
    except PARSERS[name].refuses:
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


def is_json(body: bytes) -> bool:
    """Whether a body is one document."""
    with suppress(ValueError):
        json.loads(body)
        return True
    return False


JSON_BODIES = {
    f"{name} {number}": (source, headers, json.loads(body))
    for name, (source, headers, bodies) in BODIES.items()
    for number, body in enumerate(bodies)
    if is_json(body)
}


ODD = {
    "half of a pair": rb'"\ud800"',
    "half of a pair in a name": rb'{"\udc00":1}',
    "a pair": rb'"\ud83d\ude00"',
    "control characters": rb'"\u0000\u001f\u2028\n"',
    "a large integer": b"90071992547409931",
    "a larger integer": b"-" + b"9" * 400,
    "a number too large": b"1e400",
    "a number too small": b"-1e-400",
    "minus nought": b"[-0,-0.0,0e5]",
    "not a number": b"NaN",
    "infinite": b"-Infinity",
    "a name twice": b'{"a":1,"a":2}',
    "what looks like a blob": b'{"$blob":{"salt":"","sha256":"","size":1}}',
    "not UTF-8": b'"\xff"',
    "deep": b'[{"":' * 40 + b"1" + b"}]" * 40,
    "too deep": b"[" * 101 + b"]" * 101,
    "as deep as it may be, and a little more": b"[" * 97 + b'[[{"":[]}]]' + b"]" * 97,
    "deeper": b"[" * 117 + b"]" * 117,
    "deeper still": b"[" * 500 + b"]" * 500,
    "far too deep": b"[" * 30_000 + b"]" * 30_000,
    "null": b"null",
    "nothing": b'""',
    "empty": b"[{},[]]",
    "a long text": b'"' + b"x" * 2_000 + b'"',
}
PLACEHOLDER = "what is odd"


@pytest.mark.parametrize("place", JSON_BODIES)
def test_each_value_may_be_replaced_by_anything_odd(place: str) -> None:
    source, headers, document = JSON_BODIES[place]
    for at in paths_of(document):
        changed = copy.deepcopy(document)
        reduce(getitem, at[:-1], changed)[at[-1]] = PLACEHOLDER
        before, after = compact(changed).encode().split(compact(PLACEHOLDER).encode())
        for odd in ODD.values():
            with suppress(MalformedError, TooLargeError):
                take(source, headers, before + odd + after)


@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_is_a_record_too(odd: str) -> None:
    for source, headers, _ in BODIES.values():
        for body in (ODD[odd], b"[%s]" % ODD[odd], b'{"a":%s}' % ODD[odd]):
            with suppress(MalformedError, TooLargeError):
                take(source, headers, body)


@pytest.mark.parametrize("place", JSON_BODIES)
@FUZZING_RECORDS
@given(data=st.data())
def test_records_with_anything_in_them_are_sealed_and_read_back(place: str, data: st.DataObject) -> None:
    source, headers, document = JSON_BODIES[place]
    wrong = data.draw(with_something_wrong({"body": document})).get("body")
    body = json.dumps(wrong, ensure_ascii=data.draw(st.booleans())).encode()
    with suppress(MalformedError, TooLargeError):
        take(source, headers, body)
