"""Audit events given back: as they were sealed, or an error that names the one that is damaged; and what streams there are."""

import json
from datetime import datetime

import pytest
from structlog.testing import capture_logs

from translog.events.entry import parse_entry
from translog.log.lifecycle import Mode
from translog.storage import keyspace
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import (
    AUDITOR,
    EVENTS,
    STREAM,
    by,
    dumps,
    entries,
    entry_bytes,
    event,
    index_of,
    member,
    read_row,
    record,
    serve_members,
    take,
    write_rows,
)
from .harness import Running

# --- GET /v1/streams ----------------------------------------------------------------------------------------------------


async def test_streams_say_what_they_hold_and_who_numbers_them(serve: Serve) -> None:
    log = await serve_members(serve, member("acme"), member("other"), AUDITOR)
    await take(log, [record()] * 3, Translog_Stream="k8s", **by("acme"))
    await take(log, [record()], Translog_Stream="db", **by("acme"))
    await take(log, [record()] * 2, **by("other"))
    every = [parse_entry(data) for data in await entry_bytes(log)]
    said = (await log.get("/v1/streams", **by("auditor"))).require_ok().json
    assert said["next"] is None
    assert [(item["member"], item["stream"], item["count"], item["last_index"]) for item in said["streams"]] == [
        ("acme", "db", 1, 4),
        ("acme", "k8s", 3, 3),
        ("log", "admin", 1, 0),
        ("other", "default", 2, 6),
    ]
    for item in said["streams"]:
        last = every[item["last_index"]]
        assert item["numbered"] == "log"
        assert datetime.fromisoformat(item["last_received_at"]).timestamp() * 1000 == pytest.approx(last.received_at_ms)
        assert item["last_received_at"].endswith("Z")
        assert 0 <= item["silent_ms"] < 60_000
    own = (await log.get("/v1/streams", **by("acme"))).require_ok().json
    assert own["streams"] == [
        item | {"silent_ms": own["streams"][n]["silent_ms"]} for n, item in enumerate(said["streams"][:2])
    ]


async def test_silence_is_told_by_the_logs_clock(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await take(event_log, record())
    guard = event_log.server.service.guard
    monkeypatch.setattr(type(guard), "wall_ms", property(lambda self: 10**15))
    (stream,) = (await event_log.get("/v1/streams")).require_ok().json["streams"]
    (entry,) = await entries(event_log)
    assert stream["silent_ms"] == 10**15 - entry.received_at_ms


async def test_streams_come_a_page_at_a_time(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, intake={"streams_per_read_max": 2})
    names = ["a", "a-1", "a.b", "a0", "b"]
    for name in names:
        await take(log, record(), **{STREAM: name})
    seen: list[str] = []
    sizes = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await log.get(f"/v1/streams?cursor={cursor}")).require_ok().json
        seen += [item["stream"] for item in page["streams"]]
        sizes.append(len(page["streams"]))
        cursor = page["next"]
    assert seen == sorted(names)
    assert sizes == [2, 2, 1]


async def test_a_page_that_is_just_full_is_the_last(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, intake={"streams_per_read_max": 2})
    for name in ("a", "b"):
        await take(log, record(), **{STREAM: name})
    page = (await log.get("/v1/streams")).json
    assert (len(page["streams"]), page["next"]) == (2, None)
    assert (await log.get("/v1/streams?cursor=local/b")).require_ok().json == {"streams": [], "next": None}


@pytest.mark.parametrize("cursor", ["a", "/", "a/", "/a", "%ff", "x" * 201, "a/b&cursor=a/b"])
async def test_a_cursor_that_is_none_of_ours(event_log: Running, cursor: str) -> None:
    (await event_log.get(f"/v1/streams?cursor={cursor}")).problem(400, "malformed")


# --- reading back -------------------------------------------------------------------------------------------------------


async def test_an_event_is_given_as_it_was_sealed_and_proven(event_log: Running) -> None:
    index = await index_of(event_log, record("a", context={"größe": [1.5, -0.0, 1e22, True, None, "\u2028\U0001f332\x7f"]}))
    logged = await entry_bytes(event_log)
    answer = (await event_log.get(f"{EVENTS}/{index}")).require_ok()
    assert answer.headers["Cache-Control"] == "no-store"
    entry = parse_entry(logged[index])
    assert answer.json["entry"] == {
        "member": "local",
        "stream": "default",
        "seq": 0,
        "numbered": "log",
        "received_at": entry.received_at_ms,
        "root": json.loads(logged[index])["root"],
    }
    assert datetime.fromisoformat(answer.json["received_at"]).timestamp() * 1000 == pytest.approx(entry.received_at_ms)
    evidence = (await event_log.get(f"{EVENTS}/{index}/evidence")).require_ok().json
    texts = [disclosure["text"] for disclosure in evidence["disclosures"][1:]]
    sealed = "{" + ",".join(json.dumps(json.loads(text)[0]) + ":" + text[text.index(",") + 1 : -1] for text in texts) + "}"
    assert answer.body.endswith(b',"event":' + sealed.encode() + b"}")


@pytest.mark.parametrize("name", ['a"b', "a\\", 'a\\"', "ä,b", ",", '","', "\\u0041", "\n", ""])
async def test_names_of_any_kind_come_back(event_log: Running, name: str) -> None:
    """Within `unmapped`, where a sender's own names are."""
    found = await event(
        event_log, await index_of(event_log, record("a", **{name: {name: name}}) if name else record("a", **{"": 1}))
    )
    assert name in found["unmapped"]


async def test_large_fields_come_back_whole(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, intake={"blob_bytes_min": 1_024})
    context = {"text": "ä" * 5_000, "list": list(range(2_000)), "quote": '"\\' * 600}
    sent = record("a", context=context)
    index = await index_of(log, sent)
    found = await event(log, index)
    assert found["unmapped"] == {"context": context}
    assert found["raw_data"] == dumps(sent).decode()
    evidence = (await log.get(f"{EVENTS}/{index}/evidence?fields=raw_data")).require_ok().json
    assert list(json.loads(evidence["disclosures"][1]["text"])[1]) == ["$blob"]
    assert len(evidence["disclosures"]) == 2
    await log.server.stop()
    assert keyspace.decode_payload_row(read_row(log.directory, keyspace.payload_key(index))).blobs == 2


@pytest.mark.parametrize("path", ["1", "2", "99", "9223372036854775807"])
async def test_beyond_the_log_it_is_not_published(event_log: Running, path: str) -> None:
    for answer in (await event_log.get(f"{EVENTS}/{path}"), await event_log.get(f"{EVENTS}/{path}/evidence")):
        answer.problem(404, "not-published")
        assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("path", ["-1", "01", "x", "1.0", "%31x", "99999999999999999999", "0x1", "+1", "1%20"])
async def test_what_is_no_index_is_400(event_log: Running, path: str) -> None:
    (await event_log.get(f"{EVENTS}/{path}")).problem(400)
    (await event_log.get(f"{EVENTS}/{path}/evidence")).problem(400)


# --- damage -------------------------------------------------------------------------------------------------------------


async def test_payloads_that_were_swapped_are_errors_that_name_the_event_and_hold_nothing(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS)
    await take(log, [record("a", reason="SECRET-A"), record("b", reason="SECRET-B"), record("c")])
    await log.server.stop()
    one, two = keyspace.payload_key(1), keyspace.payload_key(2)
    write_rows(log.directory, {one: read_row(log.directory, two), two: read_row(log.directory, one)})
    log = await serve(directory=log.directory)
    for index in (1, 2):
        for path in (f"{EVENTS}/{index}", f"{EVENTS}/{index}/evidence"):
            answer = await log.get(path)
            problem = answer.problem(500, "payload-mismatch")
            assert f"event {index} " in problem["detail"]
            assert b"SECRET" not in answer.body
            assert str(log.directory) not in problem["detail"]
    assert log.server.service.mode is Mode.OPEN
    assert (await event(log, 3))["metadata"]["uid"] == "c"
    await take(log, record("d"))


async def test_damage_is_logged_once_for_each_event_without_its_content(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS)
    await take(log, [record("a", reason="SECRET-A"), record("b", reason="SECRET-B")])
    await log.server.stop()
    write_rows(log.directory, {keyspace.payload_key(1): read_row(log.directory, keyspace.payload_key(2))})
    log = await serve(directory=log.directory)
    with capture_logs() as lines:
        for _ in range(3):
            (await log.get(f"{EVENTS}/1")).problem(500, "payload-mismatch")
    assert [line["index"] for line in lines if line["log_level"] == "critical"] == [1]
    assert "SECRET" not in str(lines)


@pytest.mark.parametrize("byte", [0, -1])
async def test_a_payload_that_was_changed_is_never_data(serve: Serve, byte: int) -> None:
    log = await serve(profile=Profile.EVENTS)
    index = await index_of(log, record("a"))
    await log.server.stop()
    key = keyspace.payload_key(index)
    row = keyspace.decode_payload_row(read_row(log.directory, key))
    assert row.record is not None
    record_bytes = bytearray(row.record)
    record_bytes[byte] ^= 1
    changed = type(row)(record=bytes(record_bytes), uid_key=row.uid_key, mac=row.mac, blobs=row.blobs)
    write_rows(log.directory, {key: keyspace.encode_payload_row(changed)})
    log = await serve(directory=log.directory)
    assert "event 1 " in (await log.get(f"{EVENTS}/1")).problem(500, "payload-mismatch")["detail"]


async def test_an_entry_that_was_changed_is_damage_and_no_bad_request(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS)
    index = await index_of(log, record("a"))
    await take(log, record("b"))
    await log.server.stop()
    key = keyspace.entry_key(index)
    write_rows(log.directory, {key: read_row(log.directory, key).replace(b'"seq":0', b'"seq":00')})
    log = await serve(directory=log.directory)
    assert "entry 1 " in (await log.get(f"{EVENTS}/1")).problem(500, "payload-mismatch")["detail"]
    assert (await event(log, 2))["metadata"]["uid"] == "b"
