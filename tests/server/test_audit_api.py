"""`POST /v1/audit`: the draft audit signal, all or nothing, with a receipt that proves inclusion for each record."""

import asyncio
import json
import threading
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from translog.errors import StorageError
from translog.events.sources.otlp import PROTOBUF
from translog.server.intake import Intake
from translog.storage.leveldb import LevelDBStore
from translog.storage.store import Profile, StreamName

from .conftest import Serve
from .event_log import JSON, by, dumps, entries, entry_bytes, event, member, record, send
from .harness import ORIGIN, Answer, Running, publication_blocked

AUDIT = "/v1/audit"
TIME = "1763750000123000000"


def audit_record(uid: str, **changes: Any) -> dict[str, Any]:
    """A record in OTLP's normal form; a change to None leaves an attribute out."""
    attributes = {
        "audit.record.id": uid,
        "audit.actor.id": "alice",
        "audit.actor.type": "user",
        "audit.action": "door.create",
        "audit.outcome": "success",
    } | {name.replace("_", "."): value for name, value in changes.items()}
    return {
        "timeUnixNano": TIME,
        "observedTimeUnixNano": TIME,
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items() if value is not None],
        "eventName": "door.create",
    }


def request_of(records: Sequence[dict[str, Any]]) -> bytes:
    return dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": list(records)}]}]})


async def post(log: Running, *records: dict[str, Any], **headers: str) -> Answer:
    return await log.post(AUDIT, request_of(records), JSON, **headers)


@pytest.fixture
async def log(serve: Serve) -> Running:
    return await serve(profile=Profile.EVENTS, intake={"audit_signal": True})


def statuses(answer: Answer) -> dict[str, str]:
    return {name: item["status"] for name, item in json.loads(answer.body)["record_status_map"].items()}


async def test_it_is_behind_a_setting(event_log: Running) -> None:
    (await post(event_log, audit_record("a"))).problem(404, "not-taken")
    assert await entries(event_log) == []


async def test_every_record_gets_a_receipt_that_proves_it(log: Running) -> None:
    sent = [audit_record("a"), audit_record("b", audit_outcome="failure")]
    answer = (await post(log, *sent)).require_ok().json
    assert (answer["status"], answer["sink_status_aggregate"]) == ("delivered_all_sinks", "success")
    assert set(answer["record_status_map"]) == {"a", "b"}
    logged = await entry_bytes(log)
    for index, (uid, said) in enumerate(zip("ab", sent, strict=True), start=1):
        receipt = answer["record_status_map"][uid]["receipt"]
        entry = (await entries(log))[index - 1]
        assert receipt["RecordId"] == uid
        assert receipt["IntegrityHash"] == sha256(rfc8785.dumps(said)).hexdigest()
        assert receipt["SinkTimestamp"] == f"{entry.received_at_ms}000000"
        assert receipt["translog"]["index"] == index
        assert await log.verify(receipt["translog"]["receipt"].encode(), logged[index]) == index
        assert answer["record_status_map"][uid]["sink_status_map"] == {
            ORIGIN: {"sink_type": "translog", "delivery_status": "success"}
        }
        found = await event(log, index)
        assert found["metadata"]["uid"] == uid
        assert found["api"]["operation"] == "door.create"


async def test_protobuf_has_the_hash_of_the_same_record_in_json(log: Running) -> None:
    request = ExportLogsServiceRequest()
    record = (
        request.resource_logs.add()
        .scope_logs.add()
        .log_records.add(time_unix_nano=int(TIME), observed_time_unix_nano=int(TIME), event_name="door.create")
    )
    for pair in audit_record("a")["attributes"]:
        attribute = record.attributes.add()
        attribute.key, attribute.value.string_value = pair["key"], pair["value"]["stringValue"]
    answer = (await log.post(AUDIT, request.SerializeToString(), PROTOBUF)).require_ok().json
    hashed = answer["record_status_map"]["a"]["integrity_hash"]
    assert hashed == sha256(rfc8785.dumps(audit_record("a"))).hexdigest()


async def test_the_same_again_is_the_same_success(log: Running) -> None:
    first = (await post(log, audit_record("a"), audit_record("b"))).require_ok().json
    again = (await post(log, audit_record("b"), audit_record("c"), audit_record("a"))).require_ok().json
    for uid in "ab":
        for name in ("integrity_hash", "sink_timestamp", "status"):
            assert again["record_status_map"][uid][name] == first["record_status_map"][uid][name]
        assert (
            again["record_status_map"][uid]["receipt"]["translog"]["index"]
            == first["record_status_map"][uid]["receipt"]["translog"]["index"]
        )
    assert len(await entries(log)) == 3


async def test_a_record_twice_in_a_batch_is_one(log: Running) -> None:
    answer = (await post(log, audit_record("a"), audit_record("a"))).require_ok().json
    assert list(answer["record_status_map"]) == ["a"]
    assert len(await entries(log)) == 1


async def test_an_id_with_other_content_is_409_and_nothing_of_the_batch_is_taken(log: Running) -> None:
    (await post(log, audit_record("a"))).require_ok()
    answer = await post(log, audit_record("b"), audit_record("a", audit_actor_id="mallory"), audit_record("c"))
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (409, JSON)
    assert statuses(answer) == {"b": "failed_internal", "a": "rejected_conflict", "c": "failed_internal"}
    assert len(await entries(log)) == 1
    (await post(log, audit_record("b"), audit_record("c"))).require_ok()


async def test_an_id_is_of_its_stream(log: Running) -> None:
    (await post(log, audit_record("a"))).require_ok()
    (await post(log, audit_record("a", audit_actor_id="bob"), Translog_Stream="second")).require_ok()
    assert [(entry.stream, entry.seq) for entry in await entries(log)] == [("default", 0), ("second", 0)]


async def test_a_conflict_with_what_came_through_another_door_counts(log: Running) -> None:
    await send(log, record("a"))
    assert statuses(await post(log, audit_record("a"))) == {"a": "rejected_conflict"}


async def test_a_record_that_was_kept_as_conflicting_is_the_same_success(log: Running) -> None:
    """The source's other door keeps both."""
    for actor in ("alice", "mallory"):
        body = request_of([audit_record("a", audit_actor_id=actor)])
        (await log.post("/v1/sources/otel-audit/default", body, JSON)).require_ok()
    answer = (await post(log, audit_record("a", audit_actor_id="mallory"))).require_ok().json
    assert answer["record_status_map"]["a"]["receipt"]["translog"]["index"] == 2
    assert len(await entries(log)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"audit_record_id": None},
        {"audit_record_id": ""},
        {"audit_actor_id": None},
        {"audit_actor_type": "robot"},
        {"audit_outcome": "Success"},
        {"audit_action": ""},
    ],
)
async def test_a_record_that_is_none_of_the_signal_is_400_and_nothing_is_taken(log: Running, changes: dict[str, Any]) -> None:
    answer = await post(log, audit_record("a"), audit_record("b", **changes))
    assert answer.status == 400
    assert sorted(statuses(answer).values()) == ["failed_internal", "rejected_schema_invalid"]
    assert await entries(log) == []


@pytest.mark.parametrize("name", ["timeUnixNano", "observedTimeUnixNano", "eventName"])
async def test_a_record_without_its_times_and_name_is_400(log: Running, name: str) -> None:
    bad = {key: value for key, value in audit_record("a").items() if key != name}
    answer = await post(log, bad)
    assert (answer.status, statuses(answer)) == (400, {"a": "rejected_schema_invalid"})
    assert await entries(log) == []


async def test_two_records_of_one_id_that_differ_are_400(log: Running) -> None:
    answer = await post(log, audit_record("a"), audit_record("a", audit_actor_id="bob"), audit_record("b"))
    assert (answer.status, statuses(answer)) == (400, {"a": "rejected_schema_invalid", "b": "failed_internal"})
    assert await entries(log) == []


async def test_no_records_are_a_success(log: Running) -> None:
    assert (await log.post(AUDIT, b"{}", JSON)).require_ok().json["record_status_map"] == {}
    assert await entries(log) == []


@pytest.mark.parametrize(
    ("content_type", "body"), [(JSON, b""), (JSON, b"[]"), (PROTOBUF, b"\xff"), (JSON, b'{"resourceLogs":1}')]
)
async def test_what_is_no_request_is_400(log: Running, content_type: str, body: bytes) -> None:
    (await log.post(AUDIT, body, content_type)).problem(400)


async def test_another_content_type_is_415(log: Running) -> None:
    (await log.post(AUDIT, request_of([audit_record("a")]), "text/plain")).problem(415, "unsupported-type")


async def test_past_the_deadline_it_is_202_with_where_the_receipts_will_be(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await serve(profile=Profile.EVENTS, intake={"audit_signal": True}, publish_deadline_ms=1)
    with publication_blocked(monkeypatch):
        answer = await post(log, audit_record("a"))
    assert answer.status == 202
    receipt = json.loads(answer.body)["record_status_map"]["a"]["receipt"]["translog"]
    assert receipt == {"index": 1, "receipt_url": "/v1/receipts/1"}
    logged = await entry_bytes(log)
    assert await log.verify((await log.get(receipt["receipt_url"])).body, logged[1]) == 1


async def test_rights_and_streams(serve: Serve) -> None:
    members = (member("acme", streams=("own",)), member("mute", may_append=False))
    log = await serve(profile=Profile.EVENTS, intake={"audit_signal": True}, members=members)
    (await post(log, audit_record("a"))).problem(401)
    (await post(log, audit_record("a"), **by("mute"))).problem(403, "permission-denied")
    (await post(log, audit_record("a"), Translog_Stream="x", **by("acme"))).problem(403, "stream-not-allowed")
    (await post(log, audit_record("a"), **by("acme"))).require_ok()
    assert [(entry.member, entry.stream) for entry in await entries(log)] == [("acme", "own")]


async def test_at_once_the_same_is_one_and_of_two_contents_one_is_refused(log: Running) -> None:
    answers = await asyncio.gather(*(post(log, audit_record("a")) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(await entries(log)) == 1
    actors = ["bob", "carol"] * 5
    answers = await asyncio.gather(*(post(log, audit_record("b", audit_actor_id=actor)) for actor in actors))
    taken = [answer.status for answer in answers]
    assert sorted(taken) == [200] * 5 + [409] * 5
    assert len(set(taken[::2])) == len(set(taken[1::2])) == 1
    assert len(await entries(log)) == 2


async def test_of_two_batches_at_once_that_share_an_id_one_is_logged_and_the_other_not_at_all(log: Running) -> None:
    for n in range(10):
        answers = await asyncio.gather(
            post(log, audit_record(f"a{n}"), audit_record(f"both{n}")),
            post(log, audit_record(f"b{n}"), audit_record(f"both{n}", audit_actor_id="bob")),
        )
        assert sorted(answer.status for answer in answers) == [200, 409]
        (refused,) = [answer for answer in answers if answer.status == 409]
        assert sorted(statuses(refused).values()) == ["failed_internal", "rejected_conflict"]
        assert statuses(refused)[f"both{n}"] == "rejected_conflict"
        assert len(await entries(log)) == 2 * (n + 1)


async def test_how_a_record_is_written_does_not_make_it_another(log: Running) -> None:
    one = audit_record("a")
    spaced, turned = json.dumps(one, indent=1), json.dumps(dict(reversed(one.items())), separators=(",", ":"))
    numbers = json.dumps(one | {"timeUnixNano": int(TIME), "severityNumber": 0})
    body = '{"resourceLogs":[{"scopeLogs":[{"logRecords":[%s]}]}]}'
    first = (await log.post(AUDIT, (body % f"{spaced},{turned}").encode(), JSON)).require_ok().json
    for text in (spaced, turned, numbers):
        again = (await log.post(AUDIT, (body % text).encode(), JSON)).require_ok().json
        assert again["record_status_map"] == first["record_status_map"]
    request = ExportLogsServiceRequest()
    Parse(numbers, request.resource_logs.add().scope_logs.add().log_records.add())
    again = (await log.post(AUDIT, request.SerializeToString(), PROTOBUF)).require_ok().json
    assert again["record_status_map"] == first["record_status_map"]
    assert len(await entries(log)) == 1


async def test_of_another_resource_a_record_is_another(log: Running) -> None:
    def of(*resources: str) -> bytes:
        return dumps(
            {
                "resourceLogs": [
                    {
                        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": name}}]},
                        "scopeLogs": [{"logRecords": [audit_record("a")]}],
                    }
                    for name in resources
                ]
            }
        )

    assert (await log.post(AUDIT, of("one", "two"), JSON)).status == 400
    assert await entries(log) == []
    for _ in range(2):
        (await log.post(AUDIT, of("one", "one"), JSON)).require_ok()
    assert statuses(await log.post(AUDIT, of("two"), JSON)) == {"a": "rejected_conflict"}
    assert len(await entries(log)) == 1


async def test_store_trouble_is_503(log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("no space left on /secret/path")

    for method in ("find_ids", "commit"):
        with monkeypatch.context() as patch:
            patch.setattr(LevelDBStore, method, fail)
            answer = await post(log, audit_record("a"))
            answer.problem(503)
            assert b"secret" not in answer.body
    while (answer := await post(log, audit_record("a"))).status != 200:
        answer.problem(503)
    assert len(await entries(log)) == 1


async def test_a_defect_of_ours_is_503_as_the_sender_drops_what_is_answered_500(
    log: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*_: Any) -> None:
        raise KeyError("/secret/path")

    with monkeypatch.context() as patch:
        patch.setattr("translog.events.normalize.find_missing", break_down)
        answer = await post(log, audit_record("a"))
    answer.problem(503)
    assert b"secret" not in answer.body


async def test_a_large_batch_stops_nobody(log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is done on a thread, not where others are answered."""
    threads: list[int] = []
    identify = Intake._identify

    def tell(self: Intake, stream: StreamName, *args: Any) -> Any:

        threads.append(threading.get_ident())
        return identify(self, stream, *args)

    monkeypatch.setattr(Intake, "_identify", tell)
    (await post(log, audit_record("199"))).require_ok()
    answer = await post(log, *(audit_record(str(n), audit_actor_id="bob") for n in range(200)))
    assert (answer.status, statuses(answer)["199"]) == (409, "rejected_conflict")
    assert len(threads) == 200
    assert threading.get_ident() not in threads
