"""The short form, and `POST /v1/events`."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.mutants import JSON_VALUES, mutated, take
from translog.errors import MalformedError, TooLargeError
from translog.events.sources.short import EVENTS, split_events

FULL: dict[str, Any] = {
    "id": "42",
    "time": "2026-01-02T03:04:05.678Z",
    "actor": {
        "uid": "u-1",
        "name": "alice",
        "email_addr": "alice@corp.example",
        "type": "admin",
        "groups": ["ops", {"uid": "7"}],
    },
    "action": "deployment.create",
    "resource": [{"uid": "web", "name": "prod/web", "type": "deployment", "namespace": "prod", "color": "red"}, "prod/db"],
    "outcome": "failure",
    "reason": "CHG-1234",
    "message": "rolled out",
    "severity": "warning",
    "trace_id": "4BF92F3577B34DA6A3CE929D0E0E4736",
    "span_id": "00f067aa0ba902b7",
    "parent_span_id": "10f067aa0ba902b7",
    "src_ip": "2001:db8::1",
    "src_port": 4711,
    "user_agent": "curl/8",
    "duration_ms": 12,
    "http": {"method": "post", "url": "https://example.org/deploy?x=1", "status": 403},
    "decision": "deny",
    "policy": {"name": "no friday", "version": "3"},
    "on_behalf_of": ["bob", {"uid": "u-2", "type": "robot"}],
    "session": {"uid": "s-1", "issuer": "idp", "is_mfa": True},
    "correlation_id": "c-1",
    "product": "deployer",
    "context": {"pipeline": 17},
}


def event_of(record: Any) -> dict[str, Any]:
    (normalized,) = take(EVENTS, json.dumps(record).encode())
    return normalized.event


def test_every_name_of_the_form_has_its_place() -> None:
    event = event_of(FULL)
    assert event["metadata"] == {
        "uid": "42",
        "correlation_uid": "c-1",
        "product": {"name": "deployer"},
        "profiles": ["trace"],
        "version": "1.8.0",
    }
    assert (event["class_uid"], event["activity_id"], event["type_uid"]) == (6003, 1, 600301)
    assert (event["time"], event["severity_id"], event["status_id"], event["duration"]) == (1767323045678, 3, 2, 12)
    authorization = {"decision": "denied", "policy": {"name": "no friday", "version": "3"}}
    assert event["actor"] == {
        "user": {
            "uid": "u-1",
            "name": "alice",
            "email_addr": "alice@corp.example",
            "type": "admin",
            "type_id": 2,
            "groups": [{"name": "ops"}, {"uid": "7"}],
        },
        "session": {"uid": "s-1", "issuer": "idp", "is_mfa": True},
        "authorizations": [authorization],
    }
    assert event["api"] == {"operation": "deployment.create"}
    assert event["resources"] == [
        {"uid": "web", "name": "prod/web", "type": "deployment", "namespace": "prod", "data": {"color": "red"}},
        {"name": "prod/db"},
    ]
    assert event["src_endpoint"] == {"ip": "2001:db8::1", "port": 4711}
    url = {"url_string": "https://example.org/deploy?x=1"}
    assert event["http_request"] == {"user_agent": "curl/8", "http_method": "POST", "url": url}
    assert event["http_response"] == {"code": 403}
    assert event["trace"] == {
        "uid": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span": {
            "uid": "00f067aa0ba902b7",
            "parent_uid": "10f067aa0ba902b7",
            "start_time": 1767323045678,
            "end_time": 1767323045678,
        },
    }
    assert event["unmapped"] == {"context": {"pipeline": 17}}
    assert event["fed"]["why"] == {"reason": "CHG-1234", "ticket": "CHG-1234", **authorization}
    assert event["fed"]["on_behalf_of"] == [{"name": "bob"}, {"uid": "u-2", "type": "robot", "type_id": 99}]
    assert "missing" not in event["fed"]


def test_strings_are_names_and_what_is_not_there_is_named() -> None:
    event = event_of(
        {
            "actor": "alice@corp.example",
            "action": "door.open",
            "resource": "gate",
            "session": "s",
            "policy": "p",
            "reason": "why",
        }
    )
    assert event["actor"]["user"] == {"name": "alice@corp.example", "email_addr": "alice@corp.example"}
    assert event["actor"]["session"] == {"uid": "s"}
    assert event["resources"] == [{"name": "gate"}]
    assert event["activity_id"] == 99
    assert event["fed"]["why"] == {"reason": "why", "policy": {"name": "p"}}
    assert sorted(event["fed"]["missing"]) == ["metadata.product", "src_endpoint", "time"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("time", "yesterday"),
        ("time", 2**60),
        ("outcome", "perhaps"),
        ("severity", 7),
        ("trace_id", "0" * 32),
        ("span_id", "xyz"),
        ("src_ip", "10.0.0.1:80"),
        ("src_port", 70_000),
        ("duration_ms", "long"),
        ("decision", "later"),
        ("resource", ["a", []]),
        ("resource", []),
        ("on_behalf_of", [{"color": "red"}]),
        ("session", [1]),
        ("policy", True),
        ("http", "GET /"),
        ("reason", {"text": "x"}),
        ("colour", None),
    ],
)
def test_what_is_not_understood_is_kept(name: str, value: Any) -> None:
    event = event_of({"actor": "a", "action": "x", name: value})
    assert event["unmapped"] == {name: value if not isinstance(value, int) or abs(value) < 2**53 else str(value)}


def test_a_path_is_no_url_and_a_time_may_be_milliseconds() -> None:
    event = event_of({"action": "x", "time": 1_700_000_000_123, "http": {"url": "/a?b"}})
    assert event["time"] == 1_700_000_000_123
    assert event["http_request"]["url"] == {"path": "/a?b"}


@pytest.mark.parametrize("record", [{}, {"message": "hello"}, {"actor": None, "action": None}, [], 7, "text"])
def test_what_is_neither_form_becomes_a_base_event(record: Any) -> None:
    for normalized in take(EVENTS, json.dumps([record] if isinstance(record, list) else record).encode()):
        assert normalized.event["class_uid"] == 0
        assert normalized.error


def test_bodies_are_objects_arrays_streams_or_lines() -> None:
    one = json.dumps(FULL).encode()
    json_type = {"content-type": "application/json"}
    assert [len(split_events(body, json_type, 9)) for body in (one, b"[" + one + b"," + one + b"]", one + b" \n" + one)] == [
        1,
        2,
        2,
    ]
    lines = split_events(one + b"\n{not JSON}\n\n" + one, {"content-type": "Application/X-NDJSON; charset=utf-8"}, 9)
    assert [record.error[:8] for record in lines] == ["", "not JSON", ""]
    with pytest.raises(MalformedError):
        split_events(b'{"a":', json_type, 9)
    with pytest.raises(TooLargeError):
        split_events(one * 3, json_type, 2)


def test_a_record_with_a_class_is_ocsf() -> None:
    event = event_of(
        {"class_uid": 3002, "activity_id": 1, "time": 1, "user": {"name": "x"}, "message": "m", "actor": {"app_name": "a"}}
    )
    assert (event["class_uid"], event["category_uid"], event["type_uid"]) == (3002, 3, 300201)
    assert event["actor"] == {"app_name": "a"}


@given(mutated(FULL))
def test_a_record_with_anything_in_it_is_an_event(record: dict[str, Any]) -> None:
    record.pop("class_uid", None)
    take(EVENTS, json.dumps([record]).encode())


@given(st.dictionaries(st.sampled_from(sorted(FULL)), JSON_VALUES))
def test_names_of_the_form_may_hold_anything(record: dict[str, Any]) -> None:
    take(EVENTS, json.dumps([record]).encode())
