"""OpenTelemetry logs: both encodings, cut out byte for byte, and one event from either."""

import json
import math
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToJson, ParseDict
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from events.mutants import JSON_VALUES, RECORDS_MAX, TEXTS, mutated, take
from translog.errors import MalformedError, TooLargeError
from translog.events.jsontext import AROUND_MAX, Slice
from translog.events.sources import otlp_protobuf
from translog.events.sources.otlp import (
    JSON,
    OTLP,
    PROTOBUF,
    encode_status,
    severity,
    split_logs,
)
from translog.events.sources.otlp_json import VALUE_DEPTH_MAX, split_json
from translog.events.sources.otlp_protobuf import parse_protobuf, split_protobuf

EXAMPLE = Path(__file__).parents[3] / "shared" / "data" / "otlp" / "logs.json"
AS_JSON = {"content-type": "application/json; charset=utf-8"}
AS_PROTOBUF = {"content-type": "Application/X-Protobuf"}


def attribute(key: str, value: Any) -> dict[str, Any]:
    kinds: dict[type, str] = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    return {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}


AUDITED: dict[str, Any] = {
    "timeUnixNano": "1714041600123456789",
    "observedTimeUnixNano": "1714041600200000000",
    "severityNumber": 17,
    "severityText": "ERROR",
    "eventName": "user.login",
    "body": {"stringValue": "Login refused"},
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "flags": 1,
    "attributes": [
        attribute("audit.record.id", "r-1"),
        attribute("audit.actor.id", "u8472"),
        attribute("audit.actor.type", "service"),
        attribute("audit.action", "UPDATE"),
        attribute("audit.outcome", "failure"),
        attribute("audit.target.id", "production/app-secrets"),
        attribute("audit.target.type", "k8s.configmap"),
        attribute("audit.source.id", "203.0.113.42"),
        attribute("audit.schema.version", "1.0.0"),
        attribute("audit.sequence.number", 12),
        attribute("audit.sequence.previous_hash", "00"),
        attribute("session.id", "sess-1"),
        attribute("user.email", "alice@corp.example"),
        attribute("client.port", 4711),
        attribute("server.address", "db.internal"),
        attribute("http.request.method", "POST"),
        attribute("http.response.status_code", 403),
        attribute("url.full", "https://example.org/login"),
        attribute("user_agent.original", "curl/8"),
        attribute("error.type", "denied"),
    ],
}
RESOURCE = {
    "attributes": [
        attribute("service.name", "auth"),
        attribute("service.version", "2.3.1"),
        attribute("cloud.provider", "aws"),
        attribute("host.name", "h1"),
    ]
}
REQUEST = {
    "resourceLogs": [
        {
            "resource": RESOURCE,
            "scopeLogs": [
                {
                    "scope": {"name": "lib", "version": "1"},
                    "logRecords": [AUDITED, {"body": {"intValue": 7}}],
                    "schemaUrl": "https://s/1",
                },
                {"logRecords": []},
            ],
        },
        {"scopeLogs": [{"logRecords": [{"eventName": "last"}]}], "schemaUrl": "https://r/1"},
    ]
}


def to_protobuf(document: dict[str, Any]) -> ExportLogsServiceRequest:
    """The same request for the library, whose JSON has base64 where OTLP has hex."""
    document = json.loads(json.dumps(document))
    for resource_logs in document["resourceLogs"]:
        for scope_logs in resource_logs["scopeLogs"]:
            for record in scope_logs["logRecords"]:
                for name in ("traceId", "spanId"):
                    if name in record:
                        record[name] = b64encode(bytes.fromhex(record[name])).decode()
    return ParseDict(document, ExportLogsServiceRequest())


def records_of(request: ExportLogsServiceRequest) -> Iterator[LogRecord]:
    for resource_logs in request.resource_logs:
        for scope_logs in resource_logs.scope_logs:
            yield from scope_logs.log_records


def both(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a request, the same from both encodings but for what says which one it was."""
    found = []
    for body, headers in (
        (json.dumps(document).encode(), AS_JSON),
        (to_protobuf(document).SerializeToString(), AS_PROTOBUF),
    ):
        events = [normalized.event for normalized in take(OTLP, body, headers)]
        found.append([{name: event[name] for name in event if not name.startswith("raw_")} for event in events])
        for event in found[-1]:
            context = event["fed"].pop("raw_context", {})
            context.pop("encoding", None)
            event["fed"].pop("raw_encoding", None)
            event["context"] = context
    assert found[0] == found[1]
    return found[0]


def one(record: dict[str, Any], resource: dict[str, Any] | None = None) -> dict[str, Any]:
    (event,) = both({"resourceLogs": [{"resource": resource or {}, "scopeLogs": [{"logRecords": [record]}]}]})
    return event


def test_an_audit_record_has_its_place_in_the_event() -> None:
    event, second, third = both(REQUEST)
    assert event["metadata"] == {
        "uid": "r-1",
        "original_time": "1714041600123456789",
        "logged_time": 1714041600200,
        "event_code": "user.login",
        "log_name": "lib",
        "log_version": "1.0.0",
        "sequence": 12,
        "product": {"name": "auth", "version": "2.3.1"},
        "profiles": ["trace", "cloud"],
        "version": "1.8.0",
    }
    assert (event["class_uid"], event["activity_id"], event["severity_id"], event["status_id"]) == (6003, 3, 4, 2)
    assert (event["time"], event["message"], event["status_code"]) == (1714041600123, "Login refused", "denied")
    assert event["actor"] == {
        "user": {"uid": "u8472", "type_id": 4, "email_addr": "alice@corp.example"},
        "session": {"uid": "sess-1"},
    }
    assert event["api"] == {"operation": "UPDATE", "service": {"name": "auth"}}
    assert event["resources"] == [{"uid": "production/app-secrets", "type": "k8s.configmap"}]
    assert event["src_endpoint"] == {"ip": "203.0.113.42", "port": 4711}
    assert event["dst_endpoint"] == {"hostname": "db.internal"}
    assert event["http_request"] == {
        "user_agent": "curl/8",
        "http_method": "POST",
        "url": {"url_string": "https://example.org/login"},
    }
    assert event["http_response"] == {"code": 403}
    assert event["trace"]["uid"] == "5b8efff798038103d269b633813fc60c"
    assert event["trace"]["span"] == {"uid": "eee19b7ec3c1b174", "start_time": 1714041600123, "end_time": 1714041600123}
    assert event["fed"]["source_seq"] == 12
    assert event["unmapped"] == {
        "severityText": "ERROR",
        "flags": 1,
        "attributes": {"audit.sequence.previous_hash": "00"},
        "resource": {"host.name": "h1"},
        "scope": {"version": "1"},
        "schemaUrl": "https://s/1",
    }
    assert event["context"] == {"resource": RESOURCE, "scope": {"name": "lib", "version": "1"}, "schemaUrl": "https://s/1"}
    assert second["unmapped"]["body"] == 7
    assert third["api"] == {"operation": "last"}
    assert third["context"] == {"schemaUrl": "https://r/1"}


@pytest.mark.skipif(not EXAMPLE.exists(), reason="the published example is not here")
def test_the_published_example() -> None:
    (event,) = both(json.loads(EXAMPLE.read_bytes()))
    assert event["trace"]["uid"] == "5b8efff798038103d269b633813fc60c"
    assert event["message"] == "Example log record"
    assert event["time"] == 1544712660300
    assert event["unmapped"]["attributes"]["map.attribute"] == {"some.map.key": "some value"}
    assert event["unmapped"]["attributes"]["array.attribute"] == ["many", "values"]


def test_slices_are_the_records_byte_for_byte() -> None:
    body = json.dumps(REQUEST, indent=3).encode()
    slices = split_logs(body, AS_JSON, RECORDS_MAX)
    assert [body.count(record.raw) >= 1 for record in slices] == [True] * 3
    assert json.loads(slices[0].raw) == AUDITED
    request = to_protobuf(REQUEST)
    in_protobuf = split_logs(request.SerializeToString(), AS_PROTOBUF, RECORDS_MAX)
    assert [LogRecord.FromString(record.raw) for record in in_protobuf] == list(records_of(request))
    assert [record.value for record in slices] == [record.value for record in in_protobuf]


def test_without_a_time_the_observed_time_stands_in() -> None:
    event = one({"observedTimeUnixNano": "1714041600200000000"})
    assert event["time"] == event["metadata"]["logged_time"] == 1714041600200
    assert "original_time" not in event["metadata"]
    assert "time" in one({"eventName": "x"})["fed"]["missing"]


def test_of_two_attributes_of_one_name_the_last_counts() -> None:
    event = one({"attributes": [attribute("user.id", "a"), attribute("user.id", "b"), attribute("x", 1), attribute("x", 1)]})
    assert event["actor"]["user"] == {"uid": "b"}
    assert event["unmapped"]["repeated_attributes"] == [{"key": "user.id", "value": "a"}, {"key": "x", "value": 1}]


def test_values_that_json_has_no_number_for() -> None:
    values = [float("nan"), math.inf, -math.inf, 1e300, -0.0, 2.0]
    record = LogRecord(attributes=[KeyValue(key=str(at), value=AnyValue(double_value=v)) for at, v in enumerate(values)])
    record.attributes.append(KeyValue(key="big", value=AnyValue(int_value=2**63 - 1)))
    record.attributes.append(KeyValue(key="bytes", value=AnyValue(bytes_value=b"\xff\xfe")))
    body = request_of(record)
    (normalized,) = take(OTLP, body, AS_PROTOBUF)
    found = normalized.event["unmapped"]["attributes"]
    assert found == {
        "0": "NaN",
        "1": "Infinity",
        "2": "-Infinity",
        "3": 1e300,
        "4": 0.0,
        "5": 2.0,
        "big": "9223372036854775807",
        "bytes": "//4=",
    }


def request_of(*records: LogRecord) -> bytes:
    scope_logs = ScopeLogs(log_records=records)
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[scope_logs])]).SerializeToString()


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(depth - 1):
        value = {"kvlistValue": {"values": [{"key": "k", "value": value}]}}
    return value


def test_values_may_be_nested_as_deep_in_one_encoding_as_in_the_other() -> None:
    for depth, fits in ((1, True), (VALUE_DEPTH_MAX, True), (VALUE_DEPTH_MAX + 1, False)):
        document = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"attributes": [{"key": "a", "value": nested(depth)}]}]}]}]}
        for body, headers in (
            (json.dumps(document).encode(), AS_JSON),
            (to_protobuf(document).SerializeToString(), AS_PROTOBUF),
        ):
            (normalized,) = take(OTLP, body, headers)
            assert (normalized.error == "") is fits, (depth, normalized.error)
            assert (normalized.event["class_uid"] == 0) is not fits


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"timeUnixNano": "yesterday"}, "timeUnixNano"),
        ({"timeUnixNano": -1}, "timeUnixNano"),
        ({"timeUnixNano": str(2**64)}, "timeUnixNano"),
        ({"severityNumber": "SEVERITY_NUMBER_INFO"}, "severityNumber"),
        ({"severityNumber": "9"}, "severityNumber"),
        ({"traceId": "W47/95gDgQPSabYzgT/GDA=="}, "traceId"),
        ({"spanId": "abc"}, "spanId"),
        ({"eventName": 7}, "eventName"),
        ({"body": "text"}, "body"),
        ({"body": {"stringValue": "a", "intValue": 1}}, "two types"),
        ({"body": {"intValue": "1.5"}}, "body"),
        ({"body": {"doubleValue": "nan"}}, "body"),
        ({"body": {"bytesValue": "A"}}, "body"),
        ({"body": {"bytesValue": "a*b="}}, "body"),
        ({"body": {"bytesValue": 7}}, "body"),
        ({"body": {"doubleValue": "1e999"}}, "body"),
        ({"body": {"boolValue": "true"}}, "body"),
        ({"body": {"arrayValue": []}}, "body"),
        ({"attributes": {"a": 1}}, "attributes"),
        ({"attributes": [1]}, "attributes"),
        ({"attributes": [{"key": 1}]}, "attributes"),
        ([], "another type"),
        (None, "another type"),
        ("text", "another type"),
    ],
)
def test_a_record_that_does_not_decode_is_a_base_event_that_says_why(record: Any, said: str) -> None:
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record, {"eventName": "good"}]}]}]}).encode()
    bad, good = take(OTLP, body, AS_JSON)
    assert said in bad.error
    assert bad.event["class_uid"] == 0
    assert good.event["api"] == {"operation": "good"}


def test_what_json_may_spell_in_several_ways_has_one_normal_form() -> None:
    spellings: list[dict[str, Any]] = [
        {"timeUnixNano": 5, "traceId": "ABCD" * 8, "body": {"intValue": 7.0}, "flags": "1"},
        {"timeUnixNano": "5", "traceId": "abcd" * 8, "body": {"intValue": "7"}, "flags": 1, "unknown": {"a": [1]}},
        {"timeUnixNano": 5.0, "traceId": "aBcD" * 8, "body": {"intValue": 7, "stringValue": None}, "flags": 1, "spanId": ""},
    ]
    values = [split_json(wrapped(spelling), 9)[0].value for spelling in spellings]
    assert values == [{"timeUnixNano": "5", "body": {"intValue": "7"}, "flags": 1, "traceId": "abcd" * 8}] * 3
    encoded = [split_json(wrapped({"body": {"bytesValue": text}}), 9)[0].value for text in ("-_8=", "+/8", "+/8=")]
    assert encoded == [{"body": {"bytesValue": "+/8="}}] * 3
    numbers = [split_json(wrapped({"body": {"doubleValue": number}}), 9)[0].value for number in (5, 5.0, "5", "0.5e1", "NaN")]
    assert [value["body"]["doubleValue"] for value in numbers] == [5.0, 5.0, 5.0, 5.0, "NaN"]


def wrapped(record: Any) -> bytes:
    return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()


def test_a_resource_that_does_not_decode_takes_no_record_with_it() -> None:
    for shared in ({"attributes": 7}, "text", {"attributes": [{"key": "a", "value": nested(30)}]}):
        body = json.dumps({"resourceLogs": [{"resource": shared, "scopeLogs": [{"logRecords": [AUDITED]}]}]}).encode()
        (normalized,) = take(OTLP, body, AS_JSON)
        assert normalized.uid == "r-1"
        assert normalized.event["unmapped"]["resource"].keys() == {"error", "bytes"}
    logs = ResourceLogs(scope_logs=[ScopeLogs(log_records=[LogRecord(event_name="x")])]).SerializeToString()
    broken = b"\x0a\x03\x0a\x01\xff" + logs
    body = b"\x0a" + bytes([len(broken)]) + broken
    with pytest.raises(DecodeError):
        ExportLogsServiceRequest.FromString(body)
    (normalized,) = take(OTLP, body, AS_PROTOBUF)
    assert normalized.event["api"] == {"operation": "x"}
    assert normalized.event["unmapped"]["resource"] == {"error": "not protobuf", "bytes": "CgH/"}


def test_a_record_that_the_library_refuses_takes_no_other_with_it() -> None:
    body = field(1, field(2, field(2, field(12, b"\xff")) + field(2, RECORD)))
    with pytest.raises(DecodeError):
        ExportLogsServiceRequest.FromString(body)
    bad, good = take(OTLP, body, AS_PROTOBUF)
    assert (bad.error, good.error) == ("not a LogRecord of OTLP in protobuf", "")
    assert good.event["api"] == {"operation": "x"}


def test_a_resource_that_is_null_is_none() -> None:
    body = b'{"resourceLogs":[{"resource":null,"scopeLogs":[{"scope":null,"schemaUrl":null,"logRecords":[{}]}]}]}'
    (found,) = split_json(body, 9)
    assert found == Slice(b"{}", {}, "", {})


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", AS_JSON),
        (b"[]", AS_JSON),
        (b'{"resourceLogs":{}}', AS_JSON),
        (b'{"resourceLogs":[1]}', AS_JSON),
        (b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{]}]}]}', AS_JSON),
        (b'{"resourceLogs":[]} {}', AS_JSON),
        (b'{"resourceLogs":[],"resourceLogs":[]}', AS_JSON),
        (b"\x0a", AS_PROTOBUF),
        (b"\x0a\x05ab", AS_PROTOBUF),
        (b"\xff" * 11, AS_PROTOBUF),
        (b"\x00", AS_PROTOBUF),
        (b"\x0b", AS_PROTOBUF),
        (b"\x0c", AS_PROTOBUF),
        (b"\x0f", AS_PROTOBUF),
        (b"{}", {"content-type": "text/plain"}),
        (b"{}", {}),
    ],
)
def test_a_body_that_is_no_request_is_malformed(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(MalformedError):
        split_logs(body, headers, RECORDS_MAX)


def test_empty_requests_are_good_ones_and_full_ones_are_not() -> None:
    for body in (b"{}", b'{"resourceLogs":null}', b'{"resourceLogs":[{},{"scopeLogs":[{}]}],"partial":1}'):
        assert split_logs(body, AS_JSON, RECORDS_MAX) == []
    assert split_logs(b"", AS_PROTOBUF, RECORDS_MAX) == []
    for body, headers in ((json.dumps(REQUEST).encode(), AS_JSON), (to_protobuf(REQUEST).SerializeToString(), AS_PROTOBUF)):
        with pytest.raises(TooLargeError):
            split_logs(body, headers, 2)


@pytest.mark.parametrize(
    ("around", "headers"),
    [
        (lambda count: b"\x0a\x00" * count, AS_PROTOBUF),
        (lambda count: b"\x18\x00" * count, AS_PROTOBUF),
        (lambda count: field(1, b"\x12\x00" * (count - 1)), AS_PROTOBUF),
        (lambda count: field(1, b"\x0a\x00" * (count - 1)), AS_PROTOBUF),
        (lambda count: b'{"resourceLogs":[' + b",".join([b"{}"] * (count - 2)) + b"]}", AS_JSON),
        (lambda count: b'{"resourceLogs":[{"scopeLogs":[' + b",".join([b"{}"] * (count - 4)) + b"]}]}", AS_JSON),
        (lambda count: b"{" + b",".join(b'"%d":1' % n for n in range(count - 1)) + b"}", AS_JSON),
    ],
)
def test_what_is_around_records_is_bounded(around: Callable[[int], bytes], headers: dict[str, str]) -> None:
    """Empty messages cost a byte or two each, and less when compressed."""
    assert split_logs(around(AROUND_MAX + 10 * RECORDS_MAX), headers, RECORDS_MAX) == []
    with pytest.raises(TooLargeError) as caught:
        split_logs(around(AROUND_MAX + 10 * RECORDS_MAX + 1), headers, RECORDS_MAX)
    assert caught.value.code == "too-many-entries"


def test_a_resource_in_many_pieces_takes_time_in_proportion() -> None:
    """Copied with each piece, the long one would be copied 50,000 times."""
    attributes = Resource(attributes=[KeyValue(key="long", value=AnyValue(string_value="x" * 1_000_000))])
    pieces = field(1, b"\x10\x07") * 50_000 + field(2, field(2, LogRecord(flags=1).SerializeToString()))
    times = []
    for first in (b"", field(1, attributes.SerializeToString())):
        begin = time.process_time()
        (record,) = split_protobuf(field(1, first + pieces), 1)
        times.append(time.process_time() - begin)
    assert record.context["resource"]["droppedAttributesCount"] == 7
    assert len(record.context["resource"]["attributes"][0]["value"]["stringValue"]) == 1_000_000
    assert times[1] < 5 * max(times[0], 0.05)


def test_severity_numbers() -> None:
    assert [severity(number) for number in (0, 1, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, None)] == [
        *(None, 1, 1, 1, 1, 3, 3, 4, 4, 6, 6, None, None)
    ]


def test_errors_are_what_the_library_reads() -> None:
    for code, message in ((0, ""), (3, "bad request"), (16, "é" * 200)):
        status = Status.FromString(encode_status(code, message, PROTOBUF))
        assert (status.code, status.message, len(status.details)) == (code, message, 0)
        assert json.loads(encode_status(code, message, JSON)) == {"code": code, "message": message}


# --- against the library ----------------------------------------------------------------------------------------------------


def array_of(values: list[AnyValue]) -> AnyValue:
    value = AnyValue()
    value.array_value.values.extend(values)
    value.array_value.SetInParent()
    return value


def map_of(pairs: list[tuple[str, AnyValue]]) -> AnyValue:
    value = AnyValue()
    value.kvlist_value.values.extend(KeyValue(key=key, value=item) for key, item in pairs)
    value.kvlist_value.SetInParent()
    return value


_ANY = st.recursive(
    st.builds(AnyValue)
    | st.builds(AnyValue, string_value=TEXTS)
    | st.builds(AnyValue, bool_value=st.booleans())
    | st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1))
    | st.builds(AnyValue, double_value=st.floats())
    | st.builds(AnyValue, bytes_value=st.binary(max_size=4)),
    lambda inner: st.lists(inner, max_size=3).map(array_of) | st.lists(st.tuples(TEXTS, inner), max_size=3).map(map_of),
    max_leaves=5,
)


_NAMES = TEXTS | st.sampled_from([pair["key"] for pair in AUDITED["attributes"]])
_RECORDS = st.builds(
    LogRecord,
    time_unix_nano=st.integers(0, 2**64 - 1),
    observed_time_unix_nano=st.integers(0, 2**64 - 1),
    severity_number=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 25),
    severity_text=TEXTS,
    body=_ANY,
    attributes=st.lists(st.builds(KeyValue, key=_NAMES, value=_ANY), max_size=4),
    dropped_attributes_count=st.integers(0, 2**32 - 1),
    flags=st.integers(0, 2**32 - 1),
    trace_id=st.binary(max_size=17) | st.binary(min_size=16, max_size=16),
    span_id=st.binary(max_size=9) | st.binary(min_size=8, max_size=8),
    event_name=TEXTS,
)


@given(_RECORDS)
def test_the_normal_form_of_a_record_is_the_librarys_json(record: LogRecord) -> None:
    (found,) = split_protobuf(request_of(record), RECORDS_MAX)
    assert found.raw == record.SerializeToString()
    assert found.error == ""
    in_json = json.loads(MessageToJson(record, use_integers_for_enums=True))
    for name, raw in (("traceId", record.trace_id), ("spanId", record.span_id)):
        if raw:
            in_json[name] = raw.hex()
    (again,) = split_json(wrapped(in_json), RECORDS_MAX)
    assert again.error == ""
    assert json.dumps(again.value) == json.dumps(found.value)


@given(st.lists(st.lists(st.lists(_RECORDS, max_size=2), max_size=2), max_size=2))
def test_the_walk_finds_the_records_that_the_library_finds(tree: list[list[list[LogRecord]]]) -> None:
    request = ExportLogsServiceRequest()
    for scopes in tree:
        resource_logs = request.resource_logs.add()
        for records in scopes:
            resource_logs.scope_logs.add().log_records.extend(records)
    body = request.SerializeToString()
    assert [record.raw for record in split_protobuf(body, RECORDS_MAX)] == [r.SerializeToString() for r in records_of(request)]
    take(OTLP, body, AS_PROTOBUF)


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, content: bytes) -> bytes:
    """A field that has a length."""
    return varint(number << 3 | 2) + varint(len(content)) + content


RECORD = field(12, b"x")
IN_SCOPE = field(1, field(2, field(2, RECORD)))


def test_two_resources_of_one_message_are_one() -> None:
    parts = [Resource(attributes=[KeyValue(key=key, value=AnyValue(string_value=key))]).SerializeToString() for key in "ab"]
    body = field(1, field(1, parts[0]) + field(2, field(2, RECORD)) + field(1, parts[1]))
    (found,) = split_protobuf(body, RECORDS_MAX)
    assert found.context == {"encoding": "protobuf", "resource": {"attributes": [attribute("a", "a"), attribute("b", "b")]}}


@pytest.mark.parametrize(
    "body",
    [
        b"\x7b" + IN_SCOPE + b"\x7c",  # a group: what is within it is unknown
        b"\x7b\x7b\x7c\x7c" + IN_SCOPE,
        b"\x7b\x73\x7c\x74",  # groups that end in each other's place
        b"\x7b" * 90 + b"\x7c" * 90,
        b"\x7b" + IN_SCOPE,
        IN_SCOPE + b"\x7c",
        IN_SCOPE + b"\x20\x01\x31" + b"\x00" * 8 + b"\x3d" + b"\x00" * 4,
        IN_SCOPE + b"\x31" + b"\x00" * 7,
        IN_SCOPE + b"\x3d\x00",
        IN_SCOPE + b"\x20" + b"\x80" * 9 + b"\x01",
        IN_SCOPE + b"\x20" + b"\x80" * 10 + b"\x01",
        b"\x8a\x80\x00" + IN_SCOPE[1:],  # a tag in more bytes than it needs
        b"\x8a\x80\x80\x80\x00" + IN_SCOPE[1:],
        b"\x8a\x80\x80\x80\x80\x00" + IN_SCOPE[1:],
        b"\x0a" + varint(len(IN_SCOPE)) + IN_SCOPE,
        b"\x0a\xff\xff\xff\xff\x7f",
        b"\x0e\x00",
        b"\x02\x00",
        varint(2**29 - 1 << 3) + b"\x00",
        varint(2**29 << 3) + b"\x00",
        b"\x08\x01" + IN_SCOPE,  # a known number with another type is unknown
        field(1, field(2, b"\x10\x01" + field(2, RECORD)) + b"\x18\x01"),
    ],
)
def test_the_walk_takes_what_the_library_takes(body: bytes) -> None:
    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError:
        with pytest.raises(MalformedError):
            split_protobuf(body, RECORDS_MAX)
    else:
        assert [record.raw for record in split_protobuf(body, RECORDS_MAX)] == [RECORD] * len(list(records_of(request)))


_UNKNOWN = st.sampled_from(
    [b"\x20\x01", b"\x31" + bytes(8), b"\x3d" + bytes(4), field(9, b"\x0a"), b"\x7b" + IN_SCOPE + b"\x7c"]
)


def _message(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(parts | _UNKNOWN, max_size=3).map(b"".join)


_SHARED = st.sampled_from([field(1, b""), field(1, field(1, field(1, b"k"))), field(3, b"https://s"), b"\x08\x01"])
_SCOPES = _message(_SHARED | _RECORDS.map(lambda record: field(2, record.SerializeToString())))
_BODIES = _message(_message(_SHARED | _SCOPES.map(lambda content: field(2, content))).map(lambda content: field(1, content)))


@given(_BODIES)
def test_fields_in_any_order_and_unknown_ones_change_nothing(body: bytes) -> None:
    request = ExportLogsServiceRequest.FromString(body)
    slices = split_protobuf(body, RECORDS_MAX)
    assert [LogRecord.FromString(record.raw) for record in slices] == list(records_of(request))
    shared = [
        (logs.resource.attributes, scope.scope.name, scope.schema_url or logs.schema_url)
        for logs in request.resource_logs
        for scope in logs.scope_logs
        for _ in scope.log_records
    ]
    for record, (attributes, name, url) in zip(slices, shared, strict=True):
        assert len(record.context.get("resource", {}).get("attributes", [])) == len(attributes)
        assert (record.context.get("scope", {}).get("name", ""), record.context.get("schemaUrl", "")) == (name, url)


_WIRE = st.recursive(
    st.binary(max_size=6),
    lambda inner: st.lists(st.tuples(st.integers(0, 40), st.integers(0, 7), inner), max_size=4).map(
        lambda fields: b"".join(
            bytes([number << 3 & 0xF8 | kind]) + bytes([len(part) & 0x7F]) + part for number, kind, part in fields
        )
    ),
    max_leaves=8,
)


@given(_WIRE | st.binary(max_size=40))
def test_on_any_bytes_the_walk_agrees_with_the_library(body: bytes) -> None:
    try:
        request = ExportLogsServiceRequest.FromString(body)
    except DecodeError:
        request = None
    try:
        slices: list[Slice] | None = split_protobuf(body, RECORDS_MAX)
    except MalformedError:
        slices = None
    if request is not None:
        assert slices is not None
        assert [record.error for record in slices] == [""] * len(slices)
        assert [LogRecord.FromString(record.raw) for record in slices] == list(records_of(request))
    take_if_possible(body, AS_PROTOBUF)


def take_if_possible(body: bytes, headers: dict[str, str]) -> None:
    try:
        take(OTLP, body, headers)
    except MalformedError:
        return


@given(mutated(REQUEST))
def test_a_request_with_anything_in_it_is_logged_or_malformed(document: dict[str, Any]) -> None:
    take_if_possible(json.dumps(document).encode(), AS_JSON)


@given(mutated(AUDITED))
def test_a_record_with_anything_in_it_is_logged(record: dict[str, Any]) -> None:
    take(OTLP, wrapped(record), AS_JSON)


@given(
    st.dictionaries(st.sampled_from(sorted(AUDITED)), JSON_VALUES),
    st.sampled_from([pair["key"] for pair in AUDITED["attributes"]]),
    st.sampled_from(["stringValue", "intValue", "boolValue", "kvlistValue"]),
    JSON_VALUES,
)
def test_fields_and_attributes_may_hold_anything(record: dict[str, Any], key: str, kind: str, value: Any) -> None:
    take(OTLP, wrapped(record), AS_JSON)
    take(OTLP, wrapped({"attributes": [{"key": key, "value": {kind: value}}]}), AS_JSON)


@given(st.binary(max_size=30))
def test_any_bytes_as_json_are_malformed_or_logged(body: bytes) -> None:
    take_if_possible(body, AS_JSON)
    take_if_possible(b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + body + b"]}]}]}", AS_JSON)


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf with a length."""
    length = len(content)
    varint = b""
    while length > 0x7F:
        varint += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + varint + bytes([length]) + content


NOTHINGS = {
    "attributes": _field(6, b"") * 200_000,
    "an array": _field(5, _field(5, _field(1, b"") * 200_000)),
    "a list within an array": _field(5, _field(5, _field(1, _field(6, _field(1, b"") * 200_000)))),
    "an attribute's array": _field(6, _field(2, _field(5, _field(1, b"") * 200_000))),
}


@pytest.mark.parametrize("name", NOTHINGS)
def test_a_record_of_very_many_items_in_protobuf_is_kept_and_not_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes can be an object of a hundred: the library must not see them."""
    raw = NOTHINGS[name]
    monkeypatch.setattr(otlp_protobuf, "LogRecord", None)
    record = parse_protobuf(raw, {})
    assert (record.raw, record.value, record.error) == (raw, None, "more than 100000 items")


def test_a_resource_of_very_many_items_in_protobuf_loses_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_protobuf, "Resource", None)
    body = _field(1, _field(1, _field(1, b"") * 200_000) + _field(2, _field(2, b"\x1a\x01x")))
    (record,) = split_protobuf(body, 10)
    assert not record.error
    assert record.context["resource"]["error"] == "more than 100000 items"


def test_a_large_record_of_few_items_is_decoded() -> None:
    raw = _field(5, _field(1, b"x" * 1_000_000))
    assert parse_protobuf(raw, {}).value["body"] == {"stringValue": "x" * 1_000_000}
