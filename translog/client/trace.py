"""W3C trace context: reads and writes `traceparent` and `tracestate`. Pure, but for the random ids of new spans.

    traceparent  00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
                 version - trace id - parent id - flags, lower-case hex
    tracestate   rojo=00f067aa0ba902b7,congo=t61rcWkgMzE

Rules: what is not valid is not passed on, and a new trace begins; a version above 00 is read by its first four fields and
written as 00; a tracestate of more than 32 members, or with a bad or repeated key, is dropped whole, the trace is kept.
https://www.w3.org/TR/trace-context/
"""

import os
import re
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace

MEMBERS_MAX = 32
STATE_CHARS_MAX = 8_192
"""Longest tracestate read; vendors must propagate 512, and a header is not much longer."""
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_KEY = re.compile(r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}", re.ASCII)
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]", re.ASCII)
_SAMPLED = 0x01


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceContext:
    """A span within a trace. `trace_id` is 32, `span_id` 16 hex digits, neither all zero; `parent_id` is the span that called,
    None at a trace's beginning. `state` holds tracestate's members as they came."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    sampled: bool = True
    state: tuple[tuple[str, str], ...] = ()

    @property
    def traceparent(self) -> str:
        """The header that names this span as the parent. The random-id flag is not set: who began the trace may not."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED if self.sampled else 0:02x}"

    @property
    def tracestate(self) -> str:
        """The header, empty for no members."""
        return ",".join(f"{key}={value}" for key, value in self.state)

    @property
    def headers(self) -> dict[str, str]:
        """What a call made within this span sends."""
        return {"traceparent": self.traceparent} | ({"tracestate": self.tracestate} if self.state else {})


current: ContextVar[TraceContext | None] = ContextVar("translog_trace", default=None)
"""The span that is being worked on in this task or thread."""


def parse_traceparent(text: str) -> TraceContext | None:
    """The caller's span, None for what the specification says to ignore."""
    match = _PARENT.fullmatch(text)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id=trace_id, span_id=span_id, sampled=bool(int(flags, 16) & _SAMPLED))


def parse_tracestate(values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The members of a request's tracestate headers, in order; empty for what is not valid."""
    text = ",".join(values)
    if len(text) > STATE_CHARS_MAX:
        return ()
    members: dict[str, str] = {}
    for part in text.split(","):
        member = part.strip(" \t")
        if not member:
            continue  # empty members are allowed
        key, _, value = member.partition("=")
        if key in members or _KEY.fullmatch(key) is None or _VALUE.fullmatch(value) is None:
            return ()
        members[key] = value
    return tuple(members.items()) if len(members) <= MEMBERS_MAX else ()


def continue_trace(traceparents: Sequence[str], tracestates: Sequence[str]) -> TraceContext:
    """A new span: below the caller's, or of a new trace where the headers name none, more than one, or a bad one."""
    caller = parse_traceparent(traceparents[0].strip(" \t")) if len(traceparents) == 1 else None
    if caller is None:
        return TraceContext(trace_id=_random_id(16), span_id=_random_id(8))
    return replace(caller, span_id=_random_id(8), parent_id=caller.span_id, state=parse_tracestate(tracestates))


def outgoing_headers() -> dict[str, str]:
    """The headers for a call made now; none outside of a span."""
    context = current.get()
    return {} if context is None else context.headers


def _random_id(size: int) -> str:
    while not any(data := os.urandom(size)):
        pass
    return data.hex()
