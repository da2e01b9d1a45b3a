"""`POST /v1/logs`: OTLP over HTTP, in protobuf and JSON, and the answers that its senders understand."""

import json
from typing import Any

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from translog.errors import StorageError
from translog.events.sources.otlp import PROTOBUF
from translog.storage.leveldb import LevelDBStore
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import JSON, PACK, by, dumps, entries, event, member
from .harness import Answer, Running, publication_blocked

LOGS = "/v1/logs"
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
TIME_NS = 1_544_712_660_300_000_000


def request_of(*uids: str, resource: str = "shop") -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    attribute = logs.resource.attributes.add()
    attribute.key, attribute.value.string_value = "service.name", resource
    scope = logs.scope_logs.add()
    scope.scope.name = "checkout"
    for uid in uids:
        record = scope.log_records.add(
            time_unix_nano=TIME_NS,
            event_name="order.create",
            trace_id=bytes.fromhex(TRACE),
            span_id=bytes.fromhex(SPAN),
            severity_number=9,
        )
        record.body.string_value = "ordered"
        for key, value in (("log.record.uid", uid), ("user.name", "alice"), ("client.address", "192.0.2.1")):
            pair = record.attributes.add()
            pair.key, pair.value.string_value = key, value
    return request


def as_json(*uids: str, **changes: Any) -> bytes:
    """The same in JSON."""

    def attributes(**named: str) -> list[dict[str, Any]]:
        return [{"key": key.replace("_", "."), "value": {"stringValue": value}} for key, value in named.items()]

    records = [
        {
            "timeUnixNano": str(TIME_NS),
            "severityNumber": 9,
            "eventName": "order.create",
            "body": {"stringValue": "ordered"},
            "attributes": attributes(log_record_uid=uid, user_name="alice", client_address="192.0.2.1"),
            "traceId": TRACE,
            "spanId": SPAN,
            **changes,
        }
        for uid in uids
    ]
    scope = {"scope": {"name": "checkout"}, "logRecords": records}
    return dumps({"resourceLogs": [{"resource": {"attributes": attributes(service_name="shop")}, "scopeLogs": [scope]}]})


def body_in(content_type: str, *uids: str) -> bytes:
    return as_json(*uids) if content_type == JSON else request_of(*uids).SerializeToString()


def require_accepted(answer: Answer, content_type: str) -> None:
    """All of it: a response without partial_success, in the content type of the request."""
    assert answer.status == 200
    assert answer.headers["Content-Type"] == content_type
    if content_type == JSON:
        assert answer.body == b"{}"
    else:
        assert not ExportLogsServiceResponse.FromString(answer.body).HasField("partial_success")
        assert answer.body == b""


def require_status(answer: Answer, status: int, content_type: str, code: int) -> str:
    """The message of a google.rpc.Status in the content type of the request."""
    assert (answer.status, answer.headers["Content-Type"]) == (status, content_type), answer
    assert answer.headers["Cache-Control"] == "no-store"
    assert int(answer.headers.get("Retry-After", 2)) in (1, 2)
    assert (status == 503) <= ("Retry-After" in answer.headers)
    assert (status == 401) == ("WWW-Authenticate" in answer.headers)
    if content_type == JSON:
        said = json.loads(answer.body)
        assert set(said) == {"code", "message"}
    else:
        parsed = Status.FromString(answer.body)
        said = {"code": parsed.code, "message": parsed.message}
    assert said["code"] == code
    assert said["message"]
    message: str = said["message"]
    return message


BOTH = pytest.mark.parametrize("content_type", [PROTOBUF, JSON])


@BOTH
@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "zstd"])
async def test_records_are_taken_and_all_of_them_accepted(event_log: Running, content_type: str, encoding: str) -> None:
    body = body_in(content_type, "a", "b")
    packed = PACK[encoding](body) if encoding in PACK else body
    headers = {"Content-Encoding": encoding} if encoding else {}
    require_accepted(await event_log.post(LOGS, packed, content_type, **headers), content_type)
    assert [entry.seq for entry in await entries(event_log)] == [0, 1]
    found = await event(event_log, 1)
    assert found["metadata"]["uid"] == "a"
    assert found["trace"]["uid"] == TRACE
    assert found["trace"]["span"]["uid"] == SPAN
    assert found["time"] == TIME_NS // 1_000_000
    assert found["actor"]["user"]["name"] == "alice"
    assert found["api"]["operation"] == "order.create"


async def test_both_encodings_are_one_event(event_log: Running) -> None:
    """Apart from what was received."""
    for content_type in (PROTOBUF, JSON):
        require_accepted(await event_log.post(f"{LOGS}", body_in(content_type, content_type), content_type), content_type)
    one, two = [await event(event_log, index) for index in (1, 2)]
    for found in (one, two):
        for name in ("raw_data", "raw_data_size", "fed"):
            del found[name]
        del found["metadata"]["uid"]
    assert one == two


@pytest.mark.parametrize("trace", [TRACE.upper(), TRACE])
async def test_trace_ids_in_json_are_hex_of_either_case(event_log: Running, trace: str) -> None:
    require_accepted(await event_log.post(LOGS, as_json("a", traceId=trace), JSON), JSON)
    assert (await event(event_log, 1))["trace"]["uid"] == TRACE


@pytest.mark.parametrize(
    "changes",
    [
        {"traceId": "W47/95gDgQPSabYzgT/GDA=="},
        {"traceId": TRACE[:-1]},
        {"traceId": 7},
        {"severityNumber": "SEVERITY_NUMBER_INFO"},
        {"timeUnixNano": "never"},
        {"timeUnixNano": -1},
        {"attributes": {}},
        {"body": {"stringValue": 7}},
        {"body": "text"},
        {"body": {"stringValue": "a", "intValue": "1"}},
    ],
)
async def test_a_record_that_does_not_decode_is_logged_and_accepted(event_log: Running, changes: dict[str, Any]) -> None:
    """It must not be sent again, and must not take the others with it."""
    body = as_json("a", "b", **changes)
    require_accepted(await event_log.post(LOGS, body, JSON), JSON)
    every = await entries(event_log)
    assert len(every) == 2
    found = await event(event_log, 1)
    assert (found["class_uid"], bool(found["fed"]["error"])) == (0, True)
    assert found["raw_data"].encode() in body


async def test_a_record_in_protobuf_that_does_not_decode_is_logged_and_accepted(event_log: Running) -> None:
    request = request_of("a", "b").SerializeToString()
    bad = b"\x0a\xff"  # a field that is cut short, as the only log record
    scope = b"\x12" + bytes([len(bad)]) + bad
    logs = b"\x12" + bytes([len(scope)]) + scope
    require_accepted(await event_log.post(LOGS, request + b"\x0a" + bytes([len(logs)]) + logs, PROTOBUF), PROTOBUF)
    assert len(await entries(event_log)) == 3
    found = await event(event_log, 3)
    assert found["fed"]["error"]
    assert (found["raw_data"], found["fed"]["raw_encoding"]) == ("Cv8=", "base64")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (PROTOBUF, b""),
        (JSON, b"{}"),
        (JSON, b' {"resourceLogs": []} '),
        (JSON, b'{"resourceLogs":null}'),
        (JSON, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[]}]}]}'),
        (JSON, b'{"unknown":{"a":[1]},"resourceLogs":[{}]}'),
        (PROTOBUF, b"\x0a\x00"),
        (PROTOBUF, b"\x52\x01x"),
        (JSON, b"\xef\xbb\xbf{}"),
    ],
)
async def test_a_request_without_records_is_a_success(event_log: Running, content_type: str, body: bytes) -> None:
    require_accepted(await event_log.post(LOGS, body, content_type), content_type)
    assert await entries(event_log) == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (PROTOBUF, b"\x0a"),
        (PROTOBUF, b"\x0a\x05x"),
        (PROTOBUF, b"\xff" * 20),
        (PROTOBUF, b"{}"),
        (PROTOBUF, b"\x00"),
        (JSON, b""),
        (JSON, b"[]"),
        (JSON, b"null"),
        (JSON, b'{"resourceLogs":7}'),
        (JSON, b'{"resourceLogs":[7]}'),
        (JSON, b'{"resourceLogs":[],"resourceLogs":[]}'),
        (JSON, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{]}]}]}'),
        (JSON, b'{"resourceLogs":[]'),
        (JSON, b"{} x"),
        (JSON, '{"resourceLogs":[]}'.encode("utf-16")),
    ],
)
async def test_what_is_no_request_is_400_with_a_status(event_log: Running, content_type: str, body: bytes) -> None:
    require_status(await event_log.post(LOGS, body, content_type), 400, content_type, 3)
    assert await entries(event_log) == []


@pytest.mark.parametrize("content_type", [f"{JSON}; charset=utf-8", "Application/JSON", f"{JSON} ;x=y"])
async def test_parameters_of_the_content_type_do_not_matter(event_log: Running, content_type: str) -> None:
    require_accepted(await event_log.post(LOGS, as_json("a"), content_type), JSON)
    assert len(await entries(event_log)) == 1


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/grpc", "application/protobuf", "application/x-ndjson"])
async def test_another_content_type_is_415(event_log: Running, content_type: str) -> None:
    (await event_log.post(LOGS, as_json("a"), content_type)).problem(415, "unsupported-type")
    assert await entries(event_log) == []


@BOTH
async def test_sent_again_it_is_accepted_and_nothing_new(event_log: Running, content_type: str) -> None:
    for _ in range(3):
        require_accepted(await event_log.post(LOGS, body_in(content_type, "a", "b"), content_type), content_type)
    assert len(await entries(event_log)) == 2


async def test_the_same_id_with_other_content_is_accepted_and_marked(event_log: Running) -> None:
    require_accepted(await event_log.post(LOGS, as_json("a"), JSON), JSON)
    require_accepted(await event_log.post(LOGS, as_json("a", eventName="order.delete"), JSON), JSON)
    assert (await event(event_log, 2))["fed"]["conflicts_with"] == 1


async def test_what_is_shared_is_part_of_the_content(event_log: Running) -> None:
    for resource in ("shop", "forged", "shop"):
        body = request_of("a", resource=resource).SerializeToString()
        require_accepted(await event_log.post(LOGS, body, PROTOBUF), PROTOBUF)
    assert len(await entries(event_log)) == 2
    assert (await event(event_log, 2))["fed"]["conflicts_with"] == 1


@BOTH
async def test_it_is_answered_when_durable(event_log: Running, monkeypatch: pytest.MonkeyPatch, content_type: str) -> None:
    with publication_blocked(monkeypatch):
        require_accepted(await event_log.post(LOGS, body_in(content_type, "a"), content_type), content_type)
        assert event_log.server.service.integrated.size == 2


# --- refusals -----------------------------------------------------------------------------------------------------------


@BOTH
async def test_refusals_are_a_status_in_the_same_content_type(serve: Serve, content_type: str) -> None:
    members = (member("acme", streams=("own",)), member("mute", may_append=False))
    log = await serve(profile=Profile.EVENTS, members=members, entries_per_request_max=2, decoded_bytes_max=100_000)
    body = body_in(content_type, "a")

    async def post(body: bytes, **headers: str) -> Answer:
        return await log.post(LOGS, body, content_type, **headers)

    require_status(await post(body), 401, content_type, 16)
    require_status(await post(body, **by("mute")), 403, content_type, 7)
    require_status(await post(body, Translog_Stream="another", **by("acme")), 403, content_type, 7)
    require_status(await post(body, Translog_Stream="not a name", **by("acme")), 400, content_type, 3)
    require_status(await post(body_in(content_type, "a", "b", "c"), **by("acme")), 413, content_type, 8)
    require_status(await post(PACK["gzip"](bytes(10**6)), Content_Encoding="gzip", **by("acme")), 413, content_type, 8)
    require_status(await post(PACK["zstd"](bytes(10**6)), Content_Encoding="zstd", **by("acme")), 413, content_type, 8)
    require_status(await post(body, Content_Encoding="gzip", **by("acme")), 400, content_type, 3)
    require_status(await post(body, Content_Encoding="br", **by("acme")), 415, content_type, 3)
    require_status(await post(body, **by("nobody")), 401, content_type, 16)
    assert await entries(log) == []
    require_accepted(await post(body, **by("acme")), content_type)
    assert [(entry.member, entry.stream) for entry in await entries(log)] == [("acme", "own")]


@BOTH
async def test_an_opaque_log_answers_with_a_status(log_server: Running, content_type: str) -> None:
    answer = await log_server.post(LOGS, body_in(content_type, "a"), content_type)
    assert "not-events" in require_status(answer, 404, content_type, 5)


@BOTH
async def test_trouble_of_ours_is_503_and_tells_nothing(
    event_log: Running, monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("no space left on /secret/path")

    def break_down(*_: Any) -> None:
        raise KeyError("/secret/path")

    with monkeypatch.context() as patch:
        patch.setattr("translog.events.normalize.find_missing", break_down)
        answer = await event_log.post(LOGS, body_in(content_type, "a"), content_type)
        assert "secret" not in require_status(answer, 503, content_type, 14)
    with monkeypatch.context() as patch:
        patch.setattr(LevelDBStore, "commit", fail)
        answer = await event_log.post(LOGS, body_in(content_type, "a"), content_type)
        assert "secret" not in require_status(answer, 503, content_type, 14)
    while (answer := await event_log.post(LOGS, body_in(content_type, "a"), content_type)).status != 200:
        require_status(answer, 503, content_type, 14)
    assert len(await entries(event_log)) == 1


@BOTH
async def test_the_message_is_text_whatever_was_sent(event_log: Running, content_type: str) -> None:
    answer = await event_log.post(LOGS, b"x", content_type, **{"Translog-Stream": "\udcff\udcfe ä"})
    assert "ä" in require_status(answer, 400, content_type, 3)


@BOTH
async def test_what_records_share_does_not_make_a_small_body_large(event_log: Running, content_type: str) -> None:
    """It is kept with each of them: 8 kB with 10,000 records are 80 MB."""
    shared = "x" * 8_000
    if content_type == JSON:
        resource = {"attributes": [{"key": "a", "value": {"stringValue": shared}}]}
        body = dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [{}] * 10_000}]}]})
    else:
        request = request_of(resource=shared)
        for _ in range(10_000):
            request.resource_logs[0].scope_logs[0].log_records.add()
        body = request.SerializeToString()
    message = require_status(await event_log.post(LOGS, body, content_type), 413, content_type, 8)
    assert "too-much-shared" in message
    assert await entries(event_log) == []
