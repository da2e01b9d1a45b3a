"""Records with something wrong in them, and what must hold of every event all the same."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from translog.events.jsontext import compact
from translog.events.mapping import Source
from translog.events.normalize import Normalized, normalize, raw_record
from translog.events.remap import remap
from translog.events.schema import AuditEvent
from translog.events.seal import seal
from translog.events.strict import find_problems

RECORDS_MAX = 100
TEXTS = st.text('abZ09 .:-/@=\u00e9\u20ac\U0001f600"\\\n\x00', max_size=8)
_NAMES = st.sampled_from(["id", "time", "type", "name", "uid", "actor", "x", "a.b", ""])

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)


def paths_of(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something could be changed."""
    found = [above] if above else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        found += paths_of(below, (*above, name))
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


@st.composite
def mutated(draw: st.DrawFn, record: dict[str, Any]) -> dict[str, Any]:
    """The record with one to four things dropped, replaced, wrapped, swapped or added."""
    record = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 4))):
        paths = paths_of(record)
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        place, name = _at(record, path[:-1]), path[-1]
        match draw(st.sampled_from(["drop", "replace", "wrap", "swap", "add"])):
            case "drop":
                del place[name]
            case "replace":
                place[name] = draw(JSON_VALUES)
            case "wrap":
                place[name] = draw(st.sampled_from([[place[name]], {"value": place[name]}, str(place[name])]))
            case "swap":
                place[name] = copy.deepcopy(_at(record, draw(st.sampled_from(paths))))
            case _ if isinstance(place, dict):
                place[draw(TEXTS)] = draw(JSON_VALUES)
    return record


def take(source: Source, body: bytes, headers: Mapping[str, str] = {}) -> list[Normalized]:
    """The events of a body; each of them is checked."""
    slices = source.split(body, headers, RECORDS_MAX)
    events = [normalize(source, record) for record in slices]
    for record, normalized in zip(slices, events, strict=True):
        assert raw_record(normalized.event) == (record.raw, record.context)
        require_sound(source, normalized)
    return events


def require_sound(source: Source, normalized: Normalized) -> None:
    """What holds of every event that a mapping makes: it is kept, and OCSF but for what it names as missing."""
    require_kept(source, normalized)
    event = normalized.event
    AuditEvent.model_validate(event)
    missing = set(event["fed"].get("missing", []))
    problems = find_problems(event)
    assert [p for p in problems if not p.missing or re.sub(r"\[\d+\]", "[]", p.path) not in missing] == []


def require_kept(source: Source, normalized: Normalized) -> None:
    """What holds of every event, whatever a sender calls OCSF: it can be sealed, and follows from its original."""
    event = normalized.event
    compact(event)
    seal(event, origin="log.example/x", member="m", stream="s", seed=bytes(32))
    assert normalized.uid == event["metadata"].get("uid")
    again = remap(event, {source.name: source})
    assert (again.differing, again.skipped) == ((), "")
