"""Events follow from their originals."""

import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given

from events.mutants import mutated, take
from events.test_source_cloudevents import EVENT as CLOUDEVENT
from events.test_source_cloudevents import headers_of
from events.test_source_otlp import AS_PROTOBUF, REQUEST, to_protobuf
from events.test_source_short import FULL
from translog.events.normalize import normalize
from translog.events.remap import remap
from translog.events.sources.cloudevents import CLOUDEVENTS
from translog.events.sources.otlp import OTLP
from translog.events.sources.short import EVENTS
from translog.events.sources.table import SOURCES

(NORMALIZED,) = take(EVENTS, json.dumps(FULL).encode())


def event() -> dict[str, Any]:
    """An event as it comes back from a log: JSON, read anew."""
    made: dict[str, Any] = json.loads(json.dumps(NORMALIZED.event))
    return made


def test_an_event_follows_from_its_original() -> None:
    found = remap(event(), SOURCES)
    assert (found.mapping, found.recorded, found.current, found.differing, found.skipped) == ("events", "1", "1", (), "")
    assert found.is_same_version


def test_events_of_bytes_and_of_headers_follow_too() -> None:
    body = json.dumps(CLOUDEVENT["data"]).encode()
    events = [
        *take(OTLP, to_protobuf(REQUEST).SerializeToString(), AS_PROTOBUF),
        *take(CLOUDEVENTS, body, headers_of(CLOUDEVENT)),
    ]
    assert len(events) == 4
    for normalized in events:
        found = remap(json.loads(json.dumps(normalized.event)), SOURCES)
        assert (found.differing, found.skipped) == ((), "")


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (lambda made: made["actor"]["user"].update(name="mallory"), ("actor.user.name",)),
        (lambda made: made.pop("api"), ("api",)),
        (lambda made: made.update(action="more"), ("action",)),
        (lambda made: made["fed"].update(missing=["time"]), ("fed.missing",)),
        (lambda made: made["metadata"].update(uid="43"), ("metadata.uid",)),
        (lambda made: made.update(status_id=2.0), ("status_id",)),
        (lambda made: made["fed"].update(conflicts_with=7, identity={"sub": "x"}), ()),
        (lambda made: made["fed"]["mapping"].update(version="0"), ()),
    ],
)
def test_what_differs_is_named(change: Any, differing: tuple[str, ...]) -> None:
    changed = event()
    change(changed)
    assert remap(changed, SOURCES).differing == differing


def test_another_version_of_the_mapping_is_named() -> None:
    changed = event()
    changed["fed"]["mapping"]["version"] = "0"
    found = remap(changed, SOURCES)
    assert (found.recorded, found.current, found.is_same_version) == ("0", "1", False)


def test_a_mapping_that_changed_shows_where() -> None:
    def map_otherwise(record: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
        return EVENTS.map(record, context) | {"severity_id": 6}

    later = dataclasses.replace(EVENTS, version="2", map=map_otherwise)
    found = remap(event(), {"events": later})
    assert (found.differing, found.recorded, found.current) == (("severity_id",), "1", "2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda made: made.pop("fed"), "no mapping made it"),
        (lambda made: made["fed"].pop("mapping"), "no mapping made it"),
        (lambda made: made["fed"].update(mapping="events"), "no mapping made it"),
        (lambda made: made["fed"]["mapping"].update(name="other"), "not known here"),
        (lambda made: made["fed"]["mapping"].update(name=["events"]), "not known here"),
        (lambda made: made["fed"]["mapping"].update(sha256="00"), "another file"),
        (lambda made: made.pop("raw_data"), "original is not there"),
        (lambda made: made.update(raw_data=None), "original is not there"),
        (lambda made: made.update(raw_data={"$blob": {}}), "original is not there"),
        (lambda made: (made["fed"].update(raw_encoding="base64"), made.update(raw_data="é")), "original is not there"),
    ],
)
def test_what_cannot_be_compared_is_named(change: Any, reason: str) -> None:
    changed = event()
    change(changed)
    found = remap(changed, SOURCES)
    assert reason in found.skipped
    assert found.differing == ()


@pytest.mark.parametrize("name", sorted(SOURCES))
@pytest.mark.parametrize("context", [{"ce-id": 7}, {"resource": 7}, {"resource": {"attributes": [1]}, "scope": []}, [], "x"])
@pytest.mark.parametrize("raw", ['{"actor":"a","event":"x","specversion":"1.0"}', "", "{"])
def test_a_context_of_anything_does_not_break_it(name: str, context: Any, raw: str) -> None:
    made = {"raw_data": raw, "fed": {"mapping": {"name": name, "version": "1"}, "raw_context": context}}
    found = remap(made, SOURCES)
    assert found.differing or found.skipped


@pytest.mark.parametrize("value", [None, 7, [], "text", {}, {"fed": []}])
def test_what_is_no_event_is_named(value: Any) -> None:
    assert remap(value, SOURCES).skipped == "no mapping made it"


@given(mutated(copy.deepcopy(NORMALIZED.event)))
def test_of_any_event_there_is_a_result(changed: dict[str, Any]) -> None:
    found = remap(changed, SOURCES)
    assert not (found.skipped and found.differing)


def test_the_table_names_its_sources() -> None:
    assert all(source.name == name for name, source in SOURCES.items())
    assert {"events", "ocsf", "otlp", "otel-audit", "cloudevents", "collector", "collector-raw"} <= SOURCES.keys()
    for source in SOURCES.values():
        assert normalize(source, source.parse(b"{", {})).event["class_uid"] == 0 or source.name == "collector-raw"
