"""The HTTP event collector."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.mutants import JSON_VALUES, mutated, take
from translog.errors import MalformedError, TooLargeError
from translog.events.sources.collector import COLLECTOR, COLLECTOR_RAW, raw_headers

ENVELOPE: dict[str, Any] = {
    "time": 1700000000.123,
    "host": "web-1",
    "source": "/var/log/app",
    "sourcetype": "_json",
    "index": "main",
    "fields": {"region": "eu"},
    "event": "alice logged in",
}
SHORT = {"id": "7", "actor": "alice", "action": "door.open", "time": "2026-01-02T03:04:05Z", "context": {"a": 1}}


def events_of(*records: Any, between: str = "") -> list[dict[str, Any]]:
    return [normalized.event for normalized in take(COLLECTOR, between.join(map(json.dumps, records)).encode())]


def test_a_text_is_the_message_of_a_base_event() -> None:
    (event,) = events_of(ENVELOPE)
    assert (event["class_uid"], event["message"], event["time"]) == (0, "alice logged in", 1700000000123)
    assert event["metadata"] == {
        "reporter": {"hostname": "web-1"},
        "source": "/var/log/app",
        "log_format": "_json",
        "log_name": "main",
        "version": "1.8.0",
    }
    assert event["unmapped"] == {"fields": {"region": "eu"}}
    assert "error" not in event["fed"]


def test_an_object_says_what_its_mapping_says() -> None:
    short, ocsf, other, looks_like = events_of(
        ENVELOPE | {"event": SHORT},
        ENVELOPE
        | {"event": {"class_uid": 6003, "activity_id": 1, "metadata": {"log_name": "mine"}, "unmapped": {"fields": 1}}},
        ENVELOPE | {"event": {"message": "hello", "user": "alice"}},
        ENVELOPE | {"event": {"class_uid": "six"}},
    )
    assert (short["class_uid"], short["api"], short["time"]) == (6003, {"operation": "door.open"}, 1767323045000)
    assert short["metadata"]["uid"] == "7"
    assert short["unmapped"] == {"context": {"a": 1}, "fields": {"region": "eu"}}
    assert (ocsf["class_uid"], ocsf["time"], ocsf["metadata"]["log_name"]) == (6003, 1700000000123, "mine")
    assert ocsf["unmapped"] == {"fields": 1, "collector": {"fields": {"region": "eu"}}}
    assert (other["class_uid"], other["message"]) == (0, "hello")
    assert other["unmapped"] == {"event": {"message": "hello", "user": "alice"}, "fields": {"region": "eu"}}
    assert looks_like["unmapped"]["event"] == {"class_uid": "six"}


@pytest.mark.parametrize(("content", "message"), [(7, "7"), (False, "false"), ([1, "a"], '[1,"a"]'), (0.5, "0.5")])
def test_any_other_value_is_its_text(content: Any, message: str) -> None:
    (event,) = events_of({"event": content})
    assert event["message"] == message


@pytest.mark.parametrize("between", ["", "\n", "\r\n  ", " "])
def test_objects_stand_one_behind_the_other(between: str) -> None:
    assert [event["message"] for event in events_of(ENVELOPE, {"event": "b"}, between=between)] == ["alice logged in", "b"]


@pytest.mark.parametrize("record", [{}, {"event": ""}, {"event": None, "host": "h"}, 7])
def test_an_object_without_an_event_is_kept_all_the_same(record: Any) -> None:
    (event,) = events_of(record)
    assert event["fed"]["error"]
    assert json.loads(event["raw_data"]) == record


def test_what_is_not_understood_of_the_envelope_is_kept() -> None:
    (event,) = events_of(ENVELOPE | {"time": "now", "host": 7, "index": ["a"], "colour": "red"})
    assert event["unmapped"] == {"time": "now", "host": 7, "index": ["a"], "colour": "red", "fields": {"region": "eu"}}
    assert "time" in event["fed"]["missing"]


@pytest.mark.parametrize("seconds", [1700000000.123, "1700000000.123"])
def test_times_are_seconds(seconds: Any) -> None:
    (event,) = events_of({"event": "x", "time": seconds})
    assert event["time"] == 1700000000123


def test_lines_of_text_are_events_of_their_request() -> None:
    headers = raw_headers(
        {"host": "h", "sourcetype": "syslog", "time": "1700000000", "other": "x"}, {"x-splunk-request-channel": "C-1"}
    )
    body = b"first\r\n\n  \n second \n" + json.dumps(SHORT).encode() + b"\n{broken\n\xff\xfe"
    first, second, short, broken, binary = (normalized.event for normalized in take(COLLECTOR_RAW, body, headers))
    assert (first["message"], second["message"], broken["message"]) == ("first", " second ", "{broken")
    assert first["metadata"] == {
        "reporter": {"hostname": "h"},
        "log_format": "syslog",
        "log_source": "C-1",
        "version": "1.8.0",
    }
    assert first["time"] == 1700000000000
    assert first["fed"]["raw_context"] == {"host": "h", "sourcetype": "syslog", "time": "1700000000", "channel": "C-1"}
    assert short["api"] == {"operation": "door.open"}
    assert "not UTF-8" in binary["fed"]["error"]


def test_the_channel_may_be_in_the_query() -> None:
    (normalized,) = take(COLLECTOR_RAW, b"x", raw_headers({"channel": "C-2"}, {}))
    assert normalized.event["metadata"]["log_source"] == "C-2"
    (normalized,) = take(COLLECTOR_RAW, b"x", raw_headers({}, {}))
    assert "raw_context" not in normalized.event["fed"]


def test_bodies_are_bounded_and_well_formed() -> None:
    assert COLLECTOR.split(b" \n", {}, 1) == []
    assert COLLECTOR_RAW.split(b" \n", {}, 1) == []
    with pytest.raises(MalformedError):
        COLLECTOR.split(b'{"event":', {}, 1)
    with pytest.raises(TooLargeError):
        COLLECTOR.split(b'{"event":1}{"event":1}', {}, 1)
    with pytest.raises(TooLargeError):
        COLLECTOR_RAW.split(b"a\nb", {}, 1)


@given(mutated(ENVELOPE | {"event": SHORT}))
def test_a_record_with_anything_in_it_is_logged(record: dict[str, Any]) -> None:
    event = record.get("event")
    if not isinstance(event, dict) or "class_uid" not in event:  # what a sender calls OCSF is as good as the sender makes it
        take(COLLECTOR, json.dumps([record]).encode())


@given(st.dictionaries(st.sampled_from(sorted(ENVELOPE)), JSON_VALUES))
def test_names_of_the_envelope_may_hold_anything(record: dict[str, Any]) -> None:
    take(COLLECTOR, json.dumps([record]).encode())


@given(st.binary(max_size=40))
def test_any_bytes_are_lines(body: bytes) -> None:
    take(COLLECTOR_RAW, body, raw_headers({"host": "h"}, {}))
