"""Any value becomes JSON that the log's own parser takes."""

import json
from typing import Any

import pytest

from translog.client.pending import prepare
from translog.client.plain import TEXT_CHARS_MAX, clip, plain


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


VALUES = [
    ("\udcff", "\\udcff"),
    ({"\ud800": 1, 2: "two", None: True}, {"\\ud800": 1, "2": "two", "None": True}),
    ([float("nan"), float("-inf"), 1.5], ["nan", "-inf", 1.5]),
    ((1, b"\xff"), [1, "b'\\xff'"]),
    (2**53, 2**53),
    (1 << 20_000, hex(1 << 20_000)),
    ("x" * (TEXT_CHARS_MAX + 3), "x" * TEXT_CHARS_MAX + "… (3 more)"),
]


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=range(len(VALUES)))
def test_odd_values(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert json.loads(prepare({"action": "x", "actor": plain(value)}).data)["action"] == "x"


@pytest.mark.parametrize("depth", [0, 15, 16, 17, 100, 900, 100_000])
def test_any_depth(depth: int) -> None:
    made = plain(nested(depth))
    prepare({"action": "x", "actor": made})
    assert (made == nested(depth)) == (depth < 16)


def test_clip_counts_what_is_cut_off() -> None:
    assert (clip("abc", 3), clip("abcd", 3), clip("\ud800")) == ("abc", "abc… (1 more)", "\\ud800")
