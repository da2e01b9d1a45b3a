"""Trace context: what the specification calls valid is passed on, nothing else is."""

import contextvars
import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translog.client import trace
from translog.client.trace import (
    MEMBERS_MAX,
    TraceContext,
    continue_trace,
    current,
    outgoing_headers,
    parse_traceparent,
    parse_tracestate,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"

HEX = "0123456789abcdef"
trace_ids = st.text(HEX, min_size=32, max_size=32).filter(lambda text: set(text) != {"0"})
span_ids = st.text(HEX, min_size=16, max_size=16).filter(lambda text: set(text) != {"0"})
KEY_CHARS = string.ascii_lowercase + string.digits + "_-*/"
keys = st.builds(str.__add__, st.sampled_from(string.ascii_lowercase), st.text(KEY_CHARS, max_size=20)) | st.builds(
    lambda tenant, system: f"1{tenant}@v{system}", st.text(KEY_CHARS, max_size=20), st.text(KEY_CHARS, max_size=13)
)
VALUE_CHARS = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
values = st.text(VALUE_CHARS, min_size=1, max_size=30).filter(lambda text: not text.endswith(" ") and text.strip() == text)


def test_the_specifications_own_examples() -> None:
    assert parse_traceparent(PARENT) == TraceContext(trace_id=TRACE, span_id=SPAN, sampled=True)
    off = parse_traceparent(PARENT[:-2] + "00")
    assert off is not None
    assert not off.sampled
    members = (("rojo", "00f067aa0ba902b7"), ("congo", "t61rcWkgMzE"))
    assert parse_tracestate(["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]) == members


@given(trace_ids, span_ids, st.integers(0, 255))
def test_every_valid_traceparent_is_read_and_only_its_sampled_flag_is_written(trace_id: str, span_id: str, flags: int) -> None:
    context = parse_traceparent(f"00-{trace_id}-{span_id}-{flags:02x}")
    assert context == TraceContext(trace_id=trace_id, span_id=span_id, sampled=flags % 2 == 1)
    assert context.traceparent == f"00-{trace_id}-{span_id}-{flags % 2:02x}"


BAD = [
    "",
    PARENT[:-1],
    PARENT + "0",
    PARENT + "-",
    PARENT + "-extra",
    " " + PARENT,
    PARENT + "\n",
    PARENT.upper(),
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{SPAN}-01",
    f"ff-{TRACE}-{SPAN}-01-more",
    f"0-{TRACE}-{SPAN}-01",
    f"000-{TRACE}-{SPAN}-01",
    f"00-{TRACE[:-1]}-{SPAN}-01",
    f"00-{TRACE}0-{SPAN}-01",
    f"00-{TRACE}-{SPAN[:-1]}-01",
    f"00-{TRACE}-{SPAN}0-01",
    f"00-{TRACE}-{SPAN}-1",
    f"00_{TRACE}_{SPAN}_01",
    f"0g-{TRACE}-{SPAN}-01",
    f"01-{TRACE}-{SPAN}-01x",
    f"01-{TRACE}-{SPAN}-0",
    f"٠٠-{TRACE}-{SPAN}-01",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_valid_is_ignored_and_a_new_trace_begins(text: str) -> None:
    assert parse_traceparent(text) is None
    if text.strip(" \t") == text:
        new = continue_trace([text], ["a=b"])
        assert (new.trace_id == TRACE, new.parent_id, new.state) == (False, None, ())


@pytest.mark.parametrize("version", ["01", "0a", "cc", "fe"])
@pytest.mark.parametrize("more", ["", "-", "-what-the-future-will-bring", "-\xe9"])
def test_a_higher_version_is_read_by_its_first_fields_and_written_as_00(version: str, more: str) -> None:
    context = parse_traceparent(f"{version}-{TRACE}-{SPAN}-03{more}")
    assert context is not None
    assert context.traceparent == PARENT


@given(st.integers(0, len(PARENT) - 1), st.characters(codec="utf-8"))
def test_one_character_changed_is_another_valid_one_or_none(at: int, char: str) -> None:
    text = PARENT[:at] + char + PARENT[at + 1 :]
    context = parse_traceparent(text)
    is_hex = char in HEX and PARENT[at] != "-"
    assert (context is not None) is (text == PARENT or (is_hex and text[:2] != "ff"))


@given(st.text(max_size=80))
def test_nothing_makes_a_parser_fail(text: str) -> None:
    context = parse_traceparent(text)
    assert context is None or parse_traceparent(context.traceparent) == context
    members = parse_tracestate([text])
    assert parse_tracestate([",".join(f"{key}={value}" for key, value in members)]) == members


@given(st.dictionaries(keys, values, max_size=MEMBERS_MAX), st.data())
def test_valid_states_keep_order_and_bytes_however_they_are_divided(state: dict[str, str], data: st.DataObject) -> None:
    members = [f"{key}={value}" for key, value in state.items()]
    padded = [data.draw(st.sampled_from(["{}", " {}\t", ",{}", "{} , "])).format(member) for member in members]
    split = data.draw(st.integers(0, len(padded)))
    headers = [",".join(part) for part in (padded[:split], padded[split:])]
    assert parse_tracestate(headers) == tuple(state.items())
    context = TraceContext(trace_id=TRACE, span_id=SPAN, state=tuple(state.items()))
    assert parse_tracestate([context.tracestate]) == context.state
    assert ("tracestate" in context.headers) is bool(state)


def test_a_state_of_more_than_32_members_is_dropped_and_the_trace_is_kept() -> None:
    members = [f"k{number}=v" for number in range(33)]
    assert len(parse_tracestate([",".join(members[:32])])) == 32
    assert parse_tracestate([",".join(members)]) == ()
    assert parse_tracestate(members) == ()
    context = continue_trace([PARENT], members)
    assert (context.trace_id, context.state) == (TRACE, ())


SHORT = "a|a=|=b|A=b|a=b,a=c|a=b=c|a b=c|1a=b|a@=b|@a=b|a@1b=c|a@b@c=d|a=b\x00|a=é|a=b;c,=d"
LONG = [f"{'k' * 257}=v", f"k={'v' * 257}", f"{'k' * 242}@v=x", f"a@{'v' * 15}=x", "a=" + "b" * 9_000]


@pytest.mark.parametrize("text", [*SHORT.split("|"), *LONG])
def test_states_that_are_not_valid_are_dropped_whole(text: str) -> None:
    assert parse_tracestate([f"good=1,{text}"]) == ()


def test_limits_of_keys_and_values_are_inclusive() -> None:
    for key, value in (("k" * 256, "v" * 256), (f"{'1' * 241}@{'v' * 14}", "a b"), ("a", "~!")):
        assert parse_tracestate([f"{key}={value}"]) == ((key, value),)


def test_a_span_below_the_callers_has_an_id_of_its_own() -> None:
    child = continue_trace([f" {PARENT}\t"], ["a=b", "c=d"])
    assert (child.trace_id, child.parent_id, child.sampled) == (TRACE, SPAN, True)
    assert child.span_id != SPAN
    assert child.headers == {"traceparent": f"00-{TRACE}-{child.span_id}-01", "tracestate": "a=b,c=d"}
    assert continue_trace([PARENT], []).span_id != child.span_id


def test_two_parents_or_none_begin_a_trace() -> None:
    for headers in ([], [PARENT, PARENT]):
        context = continue_trace(headers, ["a=b"])
        assert parse_traceparent(context.traceparent) == TraceContext(trace_id=context.trace_id, span_id=context.span_id)
        assert (context.parent_id, context.state) == (None, ())
        assert context.trace_id != TRACE


def test_ids_are_never_all_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [bytes(16), bytes(15) + b"\x01", bytes(8), b"\x02" + bytes(7)]
    monkeypatch.setattr(os, "urandom", lambda size: drawn.pop(0))
    context = continue_trace([], [])
    assert (context.trace_id, context.span_id) == ("0" * 31 + "1", "02" + "0" * 14)


def test_outgoing_headers_are_those_of_the_current_span() -> None:
    def within() -> dict[str, str]:
        current.set(TraceContext(trace_id=TRACE, span_id=SPAN, state=(("a", "b"),)))
        return outgoing_headers()

    assert contextvars.copy_context().run(within) == {"traceparent": PARENT, "tracestate": "a=b"}
    assert outgoing_headers() == {}
    assert trace.current.get() is None
