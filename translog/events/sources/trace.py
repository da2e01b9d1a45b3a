"""Trace ids in an event: OCSF's trace profile, and the W3C trace context that carries them.

Rules: OCSF wants a start and an end of every span; where a source has only ids, both are the event's own time, and a span of an
event without a time lacks them. https://schema.ocsf.io/1.8.0/profiles/trace, https://www.w3.org/TR/trace-context/
"""

import re
from typing import Any

from translog.events.jsontext import JSONObject
from translog.events.mapping import hex_id, put

TRACE_ID = hex_id(32)
SPAN_ID = hex_id(16)
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


def complete_trace(event: JSONObject) -> None:
    """Names the profile of an event with a trace, and gives its span the event's time."""
    trace = event.get("trace")
    if trace is None:
        return
    add_profile(event, "trace")
    span = trace.get("span")
    time = event.get("time")
    if span is not None and time is not None:
        span.setdefault("start_time", time)
        span.setdefault("end_time", time)


def add_profile(event: JSONObject, name: str) -> None:
    """Names one more profile in metadata.profiles."""
    profiles = event.setdefault("metadata", {}).setdefault("profiles", [])
    if name not in profiles:
        profiles.append(name)


def put_traceparent(event: JSONObject, value: Any) -> bool:
    """Takes trace and span from a `traceparent` header; says whether it understood it."""
    match = _TRACEPARENT.fullmatch(value) if type(value) is str and len(value) <= 512 else None
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return False
    trace_id, span_id = TRACE_ID(match[2]), SPAN_ID(match[3])
    if trace_id is None or span_id is None:
        return False
    put(event, "trace.uid", trace_id)
    put(event, "trace.span.uid", span_id)
    return True
