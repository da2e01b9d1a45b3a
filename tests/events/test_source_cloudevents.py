"""CloudEvents over HTTP: three modes, and what their attributes become."""

import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from events.mutants import JSON_VALUES, RECORDS_MAX, TEXTS, mutated, take
from translog.errors import MalformedError
from translog.events.sources.cloudevents import CLOUDEVENTS, activity_of_type

STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "A-1",
    "source": "/billing/eu",
    "type": "com.example.invoice.deleted.v2",
    "subject": "invoice/17",
    "time": "2026-01-02T03:04:05.678Z",
    "recordedtime": "2026-01-02T03:04:06Z",
    "authtype": "service_account",
    "authid": "svc-1",
    "authclaims": '{"scope":"x"}',
    "correlationid": "c-1",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "a=b",
    "sequence": "0012",
    "severitynumber": 13,
    "severitytext": "warn",
    "dataref": "https://example.org/17",
    "datacontenttype": "application/json",
    "data": {"amount": 12, "class_uid": 6003},
}


def event_of(record: Any, headers: dict[str, str] = STRUCTURED) -> dict[str, Any]:
    (normalized,) = take(CLOUDEVENTS, json.dumps(record).encode(), headers)
    return normalized.event


def test_every_attribute_has_its_place() -> None:
    event = event_of(EVENT)
    assert event["metadata"] == {
        "uid": "/billing/eu A-1",
        "original_event_uid": "A-1",
        "source": "/billing/eu",
        "event_code": "com.example.invoice.deleted.v2",
        "original_time": "2026-01-02T03:04:05.678Z",
        "logged_time": 1767323046000,
        "correlation_uid": "c-1",
        "sequence": 12,
        "profiles": ["trace"],
        "version": "1.8.0",
    }
    assert (event["class_uid"], event["activity_id"], event["severity_id"], event["time"]) == (6003, 4, 3, 1767323045678)
    assert event["api"] == {"operation": "com.example.invoice.deleted.v2"}
    assert event["actor"] == {"user": {"uid": "svc-1", "type": "service_account", "type_id": 4}}
    assert event["resources"] == [{"name": "invoice/17"}]
    assert event["trace"]["uid"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert event["trace"]["span"]["uid"] == "00f067aa0ba902b7"
    assert event["fed"]["source_seq"] == 12
    assert event["unmapped"] == {
        name: EVENT[name] for name in ("authclaims", "tracestate", "severitytext", "dataref", "datacontenttype", "data")
    }


def headers_of(event: dict[str, Any]) -> dict[str, str]:
    """Binary mode, as the specification spells values."""

    def spell(value: Any) -> str:
        return "".join(chr(b) if 0x21 <= b <= 0x7E and b not in b'"%' else f"%{b:02X}" for b in str(value).encode())

    headers = {f"ce-{name}": spell(value) for name, value in event.items() if name not in ("data", "datacontenttype")}
    return headers | {"content-type": event["datacontenttype"], "authorization": "Bearer secret"}


def test_binary_mode_says_the_same() -> None:
    event = EVENT | {"subject": "Euro € 😀"}
    body = json.dumps(event["data"]).encode()
    (normalized,) = take(CLOUDEVENTS, body, headers_of(event))
    binary, structured = normalized.event, event_of(event)
    assert binary["raw_data"].encode() == body
    assert binary["fed"]["raw_context"]["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert "authorization" not in binary["fed"]["raw_context"]
    for made in (binary, structured):
        for name in ("raw_data", "raw_data_size"):
            del made[name]
    binary["fed"].pop("raw_context")
    assert binary == structured


@pytest.mark.parametrize(
    ("content_type", "body", "unmapped"),
    [
        ("application/json", b'{"a":1}', {"data": {"a": 1}}),
        ("text/json; charset=utf-8", b"[1]", {"data": [1]}),
        ("application/vnd.acme+json", b"null", {"data": None}),
        ("application/json", b"{broken", {"data": "{broken"}),
        ("application/json", b'{"a":1,"a":2}', {"data": '{"a":1,"a":2}'}),
        ("text/plain", b'{"a":1}', {"data": '{"a":1}'}),
        ("application/octet-stream", b"\xff\x00", {"data_base64": "/wA="}),
        ("application/json", b"", {}),
    ],
)
def test_binary_mode_takes_data_of_any_type(content_type: str, body: bytes, unmapped: dict[str, Any]) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", "content-type": content_type}
    (normalized,) = take(CLOUDEVENTS, body, headers)
    assert normalized.uid == "s 1"
    assert normalized.event["unmapped"] == {"datacontenttype": content_type, **unmapped}


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ("plain", "plain"),
        ("a%20b", "a b"),
        ("%e2%82%ac", "€"),
        ("%2525", "%25"),
        ('"quoted \\"text\\""', 'quoted "text"'),
        ('"%20"', " "),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("€", "€"),
        ("\udcff", "\\xed\\xb3\\xbf"),
    ],
)
def test_header_values_are_unquoted_and_decoded_once(spelled: str, meant: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-subject": spelled}
    (normalized,) = take(CLOUDEVENTS, b"", headers)
    assert normalized.event["resources"] == [{"name": meant}]


@pytest.mark.parametrize("spelled", ["%C0%A0", "%ff", "%ED%A0%80", "%E2%82"])
def test_an_escape_that_is_not_utf8_is_rejected(spelled: str) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t", "ce-subject": spelled}
    (normalized,) = take(CLOUDEVENTS, b"x", headers)
    assert "ce-subject" in normalized.error
    assert normalized.event["raw_data"] == "x"


def test_what_the_sdk_sends_is_read() -> None:
    attributes = {"id": "7", "source": "urn:a b", "type": "x.created", "subject": "ä b%", "specversion": "1.0"}
    sent = CloudEvent(attributes=attributes | {"datacontenttype": "application/json"}, data={"n": 1})
    for message in (to_binary(sent, JSONFormat()), to_structured(sent, JSONFormat())):
        headers = {name.lower(): value for name, value in message.headers.items()}
        (normalized,) = take(CLOUDEVENTS, message.body, headers)
        event = normalized.event
        assert (event["resources"], event["activity_id"]) == ([{"name": "ä b%"}], 1)
        assert event["unmapped"]["data"] == {"n": 1}


def test_a_batch_may_be_empty_and_a_structured_body_may_not() -> None:
    assert CLOUDEVENTS.split(b"[]", BATCH, RECORDS_MAX) == []
    body = json.dumps([EVENT, EVENT | {"id": "A-2"}, 7]).encode()
    assert [normalized.uid for normalized in take(CLOUDEVENTS, body, BATCH)] == ["/billing/eu A-1", "/billing/eu A-2", None]
    for empty, headers in ((b"", STRUCTURED), (b"[]", STRUCTURED), (b"{", STRUCTURED), (b"{", BATCH)):
        with pytest.raises(MalformedError):
            CLOUDEVENTS.split(empty, headers, RECORDS_MAX)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json"},
        {"content-type": "application/cloudevents+avro"},
        {"content-type": "application/cloudevents-batch+xml"},
    ],
)
def test_what_is_no_cloudevent_is_malformed(headers: dict[str, str]) -> None:
    with pytest.raises(MalformedError):
        CLOUDEVENTS.split(json.dumps(EVENT).encode(), headers, RECORDS_MAX)


@pytest.mark.parametrize(("name", "value"), [("specversion", "0.3"), ("id", ""), ("source", None), ("type", 7)])
def test_an_event_without_what_it_must_have_is_a_base_event(name: str, value: Any) -> None:
    event = event_of(EVENT | {name: value})
    assert event["class_uid"] == 0
    assert name in event["fed"]["error"]


def test_source_and_id_are_joined_so_that_no_other_pair_has_the_same_id() -> None:
    assert event_of(EVENT | {"source": "a", "id": "b c"})["metadata"]["uid"] == "a b c"
    spaced = event_of(EVENT | {"source": "a b", "id": "c"})
    assert "uid" not in spaced["metadata"]
    assert (spaced["metadata"]["source"], spaced["metadata"]["original_event_uid"]) == ("a b", "c")


@pytest.mark.parametrize(
    "traceparent",
    [
        *("", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", 7),
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
    ],
)
def test_a_traceparent_that_is_none_stays(traceparent: Any) -> None:
    event = event_of(EVENT | {"traceparent": traceparent})
    assert "trace" not in event
    assert event["unmapped"]["traceparent"] == traceparent


def test_a_later_version_of_traceparent_may_say_more() -> None:
    event = event_of(EVENT | {"traceparent": "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"})
    assert event["trace"]["uid"] == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_the_verb_of_a_type_may_be_in_the_past() -> None:
    kinds = {"a.user.created": 1, "a.update.v2": 3, "a.items.added": 1, "x.removed": 4, "x.read": 2, "pull.opened": 99}
    assert {kind: activity_of_type(kind) for kind in kinds} == kinds


@given(mutated(EVENT))
def test_an_event_with_anything_in_it_is_logged(record: dict[str, Any]) -> None:
    take(CLOUDEVENTS, json.dumps([record]).encode(), BATCH)


@given(st.dictionaries(st.sampled_from(sorted(EVENT)), JSON_VALUES))
def test_attributes_may_hold_anything(record: dict[str, Any]) -> None:
    take(CLOUDEVENTS, json.dumps([EVENT | record]).encode(), BATCH)


@given(st.dictionaries(st.sampled_from([f"ce-{name}" for name in [*EVENT, "x.y", ""]]), TEXTS), st.binary(max_size=8))
def test_headers_and_bodies_may_hold_anything(headers: dict[str, str], body: bytes) -> None:
    named = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": "t"} | headers
    take(CLOUDEVENTS, body, named | {"content-type": "application/json"})
