"""Audit events over HTTP: taking them, numbering them, and knowing them again."""

import asyncio
import json
from hashlib import sha256
from pathlib import Path

import pytest
from core.merkle_oracle import Oracle

from translog.core.checkpoint import parse_checkpoint
from translog.core.note import parse_note
from translog.core.proof import Receipt, format_receipt
from translog.errors import SettingsError
from translog.events.entry import Numbered
from translog.events.sources.table import SOURCES
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import (
    ADMIN,
    AUDITOR,
    EVENTS,
    JSON,
    NDJSON,
    OCSF,
    STREAM,
    by,
    dumps,
    entries,
    entry_bytes,
    event,
    index_of,
    member,
    raw_data,
    record,
    require_dense,
    send,
    serve_members,
    take,
)
from .harness import ORIGIN, Running, hashes, publication_blocked, require_checkpoint, until

# --- the first event ----------------------------------------------------------------------------------------------------


async def test_the_first_entry_says_who_made_the_log_after_a_checkpoint_of_nothing(serve: Serve) -> None:
    log = await serve_members(serve, AUDITOR)
    assert len(await entry_bytes(log)) == 1
    answer = (await log.get(ADMIN, **by("auditor"))).require_ok().json
    assert (answer["entry"]["member"], answer["entry"]["stream"], answer["entry"]["seq"]) == ("log", "admin", 0)
    made = answer["event"]
    assert made["api"]["operation"] == "log.create"
    assert made["actor"]["user"]["uid"].isdecimal()
    assert made["resources"] == [{"uid": ORIGIN, "type": "transparency log"}]
    assert abs(made["time"] - answer["entry"]["received_at"]) < 60_000
    evidence = (await log.get(f"{ADMIN}/evidence", **by("auditor"))).require_ok().json
    before = parse_checkpoint(parse_note(evidence["not_before"]["checkpoint"].encode()).text)
    assert before.size == 0


async def test_it_is_logged_once_however_often_the_log_starts(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS)
    for _ in range(3):
        await log.server.stop()
        log = await serve(directory=log.directory)
        assert len(await entry_bytes(log)) == 1


async def test_an_opaque_log_begins_empty(log_server: Running) -> None:
    assert await entry_bytes(log_server) == []


# --- POST /v1/events ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body", "raws"),
    [
        (JSON, dumps(record("a")), [dumps(record("a"))]),
        (JSON, b" [ " + dumps(record("a")) + b" ,\n{ } ] ", [dumps(record("a")), b"{ }"]),
        (JSON, b'{"actor":"a"}{"actor":"b"}\n{"actor":"c"}', [b'{"actor":"a"}', b'{"actor":"b"}', b'{"actor":"c"}']),
        (JSON, dumps([OCSF, record()]), [dumps(OCSF), dumps(record())]),
        (NDJSON, b'{"actor":"a"}\n\n  {"actor":"b"}\r\n[1]', [b'{"actor":"a"}', b'{"actor":"b"}', b"[1]"]),
        ("application/x-ndjson; charset=utf-8", b'{"actor":"a"}\nnot json\n', [b'{"actor":"a"}', b"not json"]),
        ("", dumps(record("a")), [dumps(record("a"))]),
        ("text/plain", dumps([record("a")]), [dumps(record("a"))]),
    ],
)
async def test_a_body_is_one_record_an_array_or_lines(
    event_log: Running, content_type: str, body: bytes, raws: list[bytes]
) -> None:
    answer = (await event_log.post(EVENTS, body, content_type)).require_ok().json
    assert answer["count"] == len(raws)
    assert [result["index"] for result in answer["results"]] == list(range(1, len(raws) + 1))
    assert [result["seq"] for result in answer["results"]] == list(range(len(raws)))
    assert await raw_data(event_log) == [raw.decode() for raw in raws]


async def test_ocsf_and_the_short_form_are_mapped(event_log: Running) -> None:
    first, second = await take(event_log, [OCSF, record("7")])
    ocsf = await event(event_log, first["index"])
    assert (ocsf["class_uid"], ocsf["type_uid"], ocsf["actor"]) == (6003, 600301, {"user": {"name": "bob"}})
    short = await event(event_log, second["index"])
    assert short["metadata"]["uid"] == "7"
    assert short["actor"] == {"user": {"name": "alice"}}
    assert short["time"] == 1767323045000
    assert short["fed"]["mapping"] == {"name": "events", "version": "1"}


async def test_what_is_published_says_so_and_its_checkpoint_verifies(event_log: Running) -> None:
    answer = (await send(event_log, [record("a"), record("b")])).require_ok().json
    assert require_checkpoint(answer["checkpoint"].encode(), Oracle(await entry_bytes(event_log))) == 3
    assert [(result["receipt"], result["proof"]) for result in answer["results"]] == [(None, None)] * 2


async def test_full_receipts_verify_offline_also_those_of_duplicates(event_log: Running) -> None:
    await take(event_log, [record(str(n)) for n in range(300)])
    answer = (await send(event_log, [record("5"), record("new")], "?receipts=full")).require_ok().json
    logged = await entry_bytes(event_log)
    assert [result["duplicate"] for result in answer["results"]] == [True, False]
    assert [result["index"] for result in answer["results"]] == [6, 301]
    for result in answer["results"]:
        receipt = Receipt(index=result["index"], proof=tuple(hashes(result["proof"])), checkpoint=answer["checkpoint"].encode())
        assert await event_log.verify(format_receipt(receipt), logged[result["index"]]) == result["index"]


@pytest.mark.parametrize("receipts", ["none", "index", "full"])
async def test_past_the_deadline_it_is_202_with_receipt_urls(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, receipts: str
) -> None:
    log = await serve(profile=Profile.EVENTS, publish_deadline_ms=1)
    with publication_blocked(monkeypatch):
        answer = await send(log, [record("a"), record("b")], f"?receipts={receipts}")
    assert answer.status == 202
    assert (answer.json["count"], answer.json["checkpoint"]) == (2, None)
    urls = [result["receipt"] for result in answer.json["results"]]
    assert urls == ([] if receipts == "none" else ["/v1/receipts/1", "/v1/receipts/2"])
    logged = await entry_bytes(log)
    for url in urls:
        assert await log.verify((await log.get(url)).body, logged[int(url.rpartition("/")[2])]) in (1, 2)


async def test_durable_does_not_wait_for_a_slow_signer(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with publication_blocked(monkeypatch):
        answer = (await send(event_log, record("a"), "?ack=durable")).require_ok().json
        assert answer["checkpoint"] is None
        assert answer["results"][0]["receipt"] == "/v1/receipts/1"
        (await event_log.get(f"{EVENTS}/1")).problem(404, "not-published")
        (await event_log.get(f"{EVENTS}/1/evidence")).problem(404, "not-published")
    assert len(await entries(event_log)) == 1


async def test_durable_of_what_is_published_has_the_checkpoint(event_log: Running) -> None:
    await take(event_log, record("a"))
    answer = (await send(event_log, record("a"), "?ack=durable")).require_ok().json
    assert answer["results"][0]["duplicate"]
    assert parse_checkpoint(parse_note(answer["checkpoint"].encode()).text).size == 2


async def test_without_receipts_there_is_a_count_and_no_result(event_log: Running) -> None:
    answer = (await send(event_log, [record("a"), record("b")], "?receipts=none")).require_ok().json
    assert answer == {"count": 2, "results": [], "checkpoint": None}
    assert len(await entries(event_log)) == 2


@pytest.mark.parametrize("query", ["ack=never", "receipts=all", "on_conflict=drop", "ack=durable&ack=durable", "on_conflict="])
async def test_a_bad_query_logs_nothing(event_log: Running, query: str) -> None:
    (await send(event_log, record(), f"?{query}")).problem(400, "malformed")
    assert await entries(event_log) == []


async def test_unknown_query_parameters_are_ignored(event_log: Running) -> None:
    await take(event_log, record(), "?trace=1&trace=2")
    (await event_log.post("/v1/sources/ocsf/s?on_conflict=reject&trace=1", dumps(OCSF), JSON)).require_ok()
    assert len(await entries(event_log)) == 2


async def test_a_record_that_cannot_be_mapped_is_logged_with_the_reason(event_log: Running) -> None:
    results = await take(event_log, [record("a"), {"who": "knows"}, 7, record("b")])
    assert [bool(result["error"]) for result in results] == [False, True, True, False]
    assert [result["index"] for result in results] == [1, 2, 3, 4]
    for result in results[1:3]:
        base = await event(event_log, result["index"])
        assert base["class_uid"] == 0
        assert base["fed"]["error"] == result["error"]
    assert await raw_data(event_log) == [dumps(item).decode() for item in (record("a"), {"who": "knows"}, 7, record("b"))]


async def test_a_large_batch_is_in_order_and_others_come_between(event_log: Running) -> None:
    batches = [[record(f"{number}.{n}") for n in range(300)] for number in range(4)]
    answers = await asyncio.gather(*(take(event_log, batch) for batch in batches))
    for batch, results in zip(batches, answers, strict=True):
        indexes = [result["index"] for result in results]
        assert indexes == list(range(indexes[0], indexes[0] + 300))
        assert (await event(event_log, indexes[7]))["metadata"]["uid"] == batch[7]["id"]
    require_dense(await entries(event_log))


async def test_records_per_request_are_bounded_and_a_batch_too_large_is_refused_whole(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, entries_per_request_max=3)
    await take(log, [record()] * 3)
    for path, content_type, body in (
        (EVENTS, JSON, dumps([record()] * 4)),
        (EVENTS, NDJSON, (dumps(record()) + b"\n") * 4),
        ("/v1/sources/cloudtrail/s", JSON, dumps({"Records": [{"eventVersion": "1"}] * 4})),
        ("/v1/sources/kubernetes/s", JSON, dumps({"kind": "EventList", "items": [{}] * 4})),
    ):
        (await log.post(path, body, content_type)).problem(413, "too-many-entries")
    assert len(await entries(log)) == 3


async def test_a_batch_that_the_pool_could_never_hold_is_refused_whole(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, log={"pool_entries_max": 5})
    (await send(log, [record()] * 6)).problem(413, "too-large")
    assert await entries(log) == []


async def test_nothing_in_a_body_is_nothing_logged(event_log: Running) -> None:
    for body in (b"", b"[]", b" \n ", b"[ ]"):
        answer = (await event_log.post(EVENTS, body, JSON)).require_ok().json
        assert (answer["count"], answer["results"]) == (0, [])
    assert await entries(event_log) == []


# --- streams ------------------------------------------------------------------------------------------------------------


async def test_the_header_names_the_stream_and_without_it_there_is_a_default(serve: Serve) -> None:
    log = await serve_members(serve, member("acme", streams=("first", "second")))
    await take(log, record(), **by("acme"))
    await take(log, record(), Translog_Stream="second", **by("acme"))
    assert [(entry.member, entry.stream) for entry in await entries(log)] == [("acme", "first"), ("acme", "second")]


async def test_a_stream_never_comes_from_the_query(serve: Serve) -> None:
    log = await serve_members(serve, member("acme", streams=("first", "second")))
    await take(log, record(), "?stream=second&Translog-Stream=second", **by("acme"))
    assert [entry.stream for entry in await entries(log)] == ["first"]


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", ".a", "A", "a_b", "a/b", "a b", "a" * 64, "ä", "a\x00".replace("\x00", "%00"), "*", "..", "a\tb"]
)
async def test_what_cannot_be_a_stream_is_400_and_nothing_is_logged(event_log: Running, name: str) -> None:
    (await send(event_log, record(), **{STREAM: name})).problem(400, "bad-stream")
    assert await entries(event_log) == []


@pytest.mark.parametrize("path", ["A", "a%2Fb", "%C3%A4", "%ff", "a%00", "a%20b", "-", "a" * 64])
async def test_what_cannot_be_a_stream_is_400_in_a_path_too(event_log: Running, path: str) -> None:
    (await event_log.post(f"/v1/sources/ocsf/{path}", dumps(OCSF), JSON)).problem(400, "bad-stream")
    (await event_log.post(f"/v1/streams/{path}", b"{}", NDJSON)).problem(400, "bad-stream")
    assert await entries(event_log) == []


@pytest.mark.parametrize("name", ["a", "a" * 63, "0", "a.b-c", "a--b"])
async def test_names_up_to_the_limits(event_log: Running, name: str) -> None:
    await take(event_log, record(), **{STREAM: name})
    assert [entry.stream for entry in await entries(event_log)] == [name]


@pytest.mark.parametrize("name", ["third", "log", "secon", "second2"])
async def test_a_stream_that_is_not_ones_own_is_403(serve: Serve, name: str) -> None:
    log = await serve_members(serve, member("acme", streams=("first", "second")), member("other", streams=("third",)))
    for answer in (
        await send(log, record(), Translog_Stream=name, **by("acme")),
        await log.post(f"/v1/sources/ocsf/{name}", dumps(OCSF), JSON, **by("acme")),
        await log.post(f"/v1/streams/{name}", b'{"first_seq":0}\n{"root":""}', NDJSON, **by("acme")),
    ):
        answer.problem(403, "stream-not-allowed")
    assert await entries(log) == []


async def test_two_members_streams_of_one_name_are_two(serve: Serve) -> None:
    log = await serve_members(serve, member("acme"), member("other"))
    for name in ("acme", "other", "acme"):
        await take(log, record("same"), Translog_Stream="s", **by(name))
    assert [(entry.member, entry.seq) for entry in await entries(log)] == [("acme", 0), ("other", 0)]


async def test_streams_are_bounded_in_number_and_those_that_are_there_go_on(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, log={"streams_max": 3})
    for name in ("one", "two"):
        await take(log, record(), **{STREAM: name})
    (await send(log, record(), **{STREAM: "three"})).problem(409, "too-many-streams")
    (await log.post("/v1/sources/ocsf/three", dumps(OCSF), JSON)).problem(403, "too-many-streams")
    for name in ("one", "two"):
        await take(log, record(), **{STREAM: name})
    assert [entry.stream for entry in await entries(log)] == ["one", "two"] * 2


async def test_numbers_are_dense_whatever_comes_in(event_log: Running) -> None:
    async def write(number: int) -> None:
        for turn in range(6):
            batch = [record(f"{(number * turn + n) % 9}", reason=f"{n % 2}") for n in range(number + 1)]
            await take(event_log, [*batch, {"not": "mapped"}], **{STREAM: f"s{number % 3}"})

    await asyncio.gather(*(write(number) for number in range(8)))
    every = await entries(event_log)
    require_dense(every)
    assert {entry.stream for entry in every} == {"s0", "s1", "s2"}
    assert {entry.numbered for entry in every} == {Numbered.LOG}


# --- knowing events again -----------------------------------------------------------------------------------------------


async def test_the_same_again_is_a_duplicate_of_the_first_also_after_a_restart(event_log: Running, serve: Serve) -> None:
    first = await index_of(event_log, record("a"))
    await take(event_log, record("b"))
    (again,) = await take(event_log, record("a"))
    assert (again["index"], again["duplicate"], again["seq"], again["conflicts_with"]) == (first, True, None, None)
    await event_log.server.stop()
    log = await serve(directory=event_log.directory)
    (again,) = await take(log, record("a"))
    assert (again["index"], again["duplicate"]) == (first, True)
    assert len(await entries(log)) == 2


async def test_a_record_without_an_id_is_never_a_duplicate(event_log: Running) -> None:
    results = await take(event_log, [record(), record(), record()])
    assert [(result["index"], result["duplicate"]) for result in results] == [(1, False), (2, False), (3, False)]
    assert len(await entries(event_log)) == 3


async def test_same_content_is_the_bytes_as_received(event_log: Running) -> None:
    first = await index_of(event_log, record("a"))
    spaced = json.dumps(record("a"), indent=1).encode()
    (other,) = (await event_log.post(EVENTS, spaced, JSON)).require_ok().json["results"]
    assert other["conflicts_with"] == first
    between = b"[ " + dumps(record("a")) + b" ]"
    (same,) = (await event_log.post(EVENTS, between, JSON)).require_ok().json["results"]
    assert (same["index"], same["duplicate"]) == (first, True)


async def test_the_same_bytes_of_another_source_are_other_content(event_log: Running) -> None:
    body = dumps({**OCSF, "metadata": {"uid": "a"}})
    first = await index_of(event_log, json.loads(body))
    (result,) = (await event_log.post("/v1/sources/ocsf/default", body, JSON)).require_ok().json["results"]
    assert (result["conflicts_with"], result["duplicate"]) == (first, False)


async def test_an_id_is_of_its_stream_and_member(serve: Serve) -> None:
    log = await serve_members(serve, member("acme"), member("other"))
    for name, stream in (("acme", "s"), ("acme", "t"), ("other", "s")):
        (result,) = await take(log, record("a", reason=f"{name}{stream}"), Translog_Stream=stream, **by(name))
        assert (result["duplicate"], result["conflicts_with"], result["seq"]) == (False, None, 0)


@pytest.mark.parametrize(("one", "two"), [(("s", "t\0u"), ("s", "u")), (("s", "a"), ("s", "a\0")), (("s", "1"), ("s", "01"))])
async def test_ids_that_look_alike_are_not(event_log: Running, one: tuple[str, str], two: tuple[str, str]) -> None:
    for stream, uid in (one, two):
        (result,) = await take(event_log, record(uid), **{STREAM: stream})
        assert not result["duplicate"]


async def test_the_same_id_with_other_content_is_logged_and_marked(event_log: Running) -> None:
    first = await index_of(event_log, record("a"))
    (other,) = await take(event_log, record("a", reason="an attacker came first"))
    assert (other["conflicts_with"], other["duplicate"], other["index"], other["seq"]) == (first, False, first + 1, 1)
    marked = await event(event_log, other["index"])
    assert marked["fed"]["conflicts_with"] == first
    assert marked["fed"]["why"] == {"reason": "an attacker came first"}
    assert list(marked)[-1] == "fed"
    assert "conflicts_with" not in (await event(event_log, first))["fed"]


async def test_a_conflicting_record_sent_again_is_a_duplicate_of_its_own_index(event_log: Running, serve: Serve) -> None:
    first = await index_of(event_log, record("a"))
    marked = [await index_of(event_log, record("a", reason=reason)) for reason in ("x", "y", "z")]
    assert marked == [first + 1, first + 2, first + 3]
    for index in marked:
        assert (await event(event_log, index))["fed"]["conflicts_with"] == first
    for turn in range(2):
        for index, reason in zip(marked, ("x", "y", "z"), strict=True):
            (again,) = await take(event_log, record("a", reason=reason))
            assert (again["index"], again["duplicate"], again["conflicts_with"]) == (index, True, None)
        if not turn:
            await event_log.server.stop()
            event_log = await serve(directory=event_log.directory)
    assert len(await entries(event_log)) == 4


async def test_a_conflict_within_one_batch(event_log: Running) -> None:
    batch = [record("a"), record("b"), record("a", reason="x"), record("a"), record("a", reason="x"), record("a", reason="y")]
    results = await take(event_log, batch)
    placed = [(result["index"], result["duplicate"], result["conflicts_with"]) for result in results]
    assert placed[:2] == [(1, False, None), (2, False, None)]
    assert placed[3] == (1, True, None)
    assert [item[2] for item in (placed[2], placed[5])] == [1, 1]
    assert {placed[2][0], placed[5][0]} == {3, 4}
    assert placed[4][:2] == (placed[2][0], True)
    every = await entries(event_log)
    assert len(every) == 4
    require_dense(every)
    again = await take(event_log, batch)
    assert [result["index"] for result in again] == [item[0] for item in placed]
    assert all(result["duplicate"] for result in again)


async def test_fifty_at_once_of_the_same_event_are_one(event_log: Running) -> None:
    results = [result for (result,) in await asyncio.gather(*(take(event_log, record("a")) for _ in range(50)))]
    assert {result["index"] for result in results} == {1}
    assert sorted(result["duplicate"] for result in results) == [False] + [True] * 49
    assert len(await entries(event_log)) == 1


@pytest.mark.parametrize("records", [1, 40])
async def test_of_two_contents_at_once_one_is_marked(event_log: Running, records: int) -> None:
    """Also when a thread prepares them."""
    batches = [[record(str(n), reason=reason) for n in range(records)] for reason in ("x", "y")]
    one, two = await asyncio.gather(*(take(event_log, batch) for batch in batches))
    for first, second in zip(one, two, strict=True):
        marks = {first["index"]: first["conflicts_with"], second["index"]: second["conflicts_with"]}
        assert len(marks) == 2
        low, high = sorted(marks)
        assert (marks[low], marks[high]) == (None, low)
        assert (await event(event_log, high))["fed"]["conflicts_with"] == low
    assert len(await entries(event_log)) == 2 * records


async def test_many_at_once_of_many_contents_under_one_id(event_log: Running) -> None:
    reasons = [str(number % 7) for number in range(42)]
    results = await asyncio.gather(*(take(event_log, record("a", reason=reason)) for reason in reasons))
    found: dict[str, set[int]] = {}
    for reason, (result,) in zip(reasons, results, strict=True):
        found.setdefault(reason, set()).add(result["index"])
    assert all(len(indexes) == 1 for indexes in found.values())
    every = await entries(event_log)
    assert len(every) == 7
    marks = [(await event(event_log, index))["fed"].get("conflicts_with") for index in range(1, 8)]
    assert marks == [None] + [1] * 6


async def test_who_asks_for_it_gets_409_and_the_others_of_the_batch_are_logged(event_log: Running) -> None:
    first = await index_of(event_log, record("a"))
    answer = await send(event_log, [record("b"), record("a", reason="x"), record("a"), record("c")], "?on_conflict=reject")
    document = json.loads(answer.body)
    assert answer.status == 409
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert document["code"] == "id-conflict"
    assert document["count"] == 4
    assert [(item["index"], item["conflicts_with"], item["duplicate"]) for item in document["results"]] == [
        (2, None, False),
        (None, first, False),
        (first, None, True),
        (3, None, False),
    ]
    assert await raw_data(event_log) == [dumps(item).decode() for item in (record("a"), record("b"), record("c"))]


async def test_rejecting_what_is_no_conflict_changes_nothing(event_log: Running) -> None:
    (first,) = await take(event_log, record("a"), "?on_conflict=reject")
    (again,) = await take(event_log, record("a"), "?on_conflict=reject")
    assert (again["index"], again["duplicate"]) == (first["index"], True)
    kept = await index_of(event_log, record("a", reason="x"))
    (again,) = await take(event_log, record("a", reason="x"), "?on_conflict=reject")
    assert (again["index"], again["duplicate"]) == (kept, True)


async def test_sources_never_answer_409(event_log: Running) -> None:
    body = {**OCSF, "metadata": {"uid": "a"}}
    path = "/v1/sources/ocsf/s?on_conflict=reject"
    (await event_log.post(path, dumps(body), JSON)).require_ok()
    (result,) = (await event_log.post(path, dumps({**body, "time": 2}), JSON)).require_ok().json["results"]
    assert result["conflicts_with"] == 1


async def test_an_admin_event_is_not_shadowed_by_a_member(serve: Serve) -> None:
    """Its id is known, and a member's stream of the same name is another one."""
    log = await serve_members(serve, member("acme"), AUDITOR)
    (result,) = await take(log, record("log.create"), Translog_Stream="admin", **by("acme"))
    assert (result["index"], result["duplicate"], result["conflicts_with"]) == (1, False, None)
    assert (await log.get(ADMIN, **by("auditor"))).json["event"]["api"]["operation"] == "log.create"


# --- POST /v1/sources ---------------------------------------------------------------------------------------------------


async def test_every_source_takes_something_under_its_name(event_log: Running) -> None:
    for name in SOURCES:
        content_type = "application/cloudevents+json" if name == "cloudevents" else JSON
        body = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}' if name.startswith("ot") else b'{"a":1}'
        answer = (await event_log.post(f"/v1/sources/{name}/s-{name}", body, content_type)).require_ok().json
        assert answer["count"] == 1, name
    every = await entries(event_log)
    assert [entry.stream for entry in every] == [f"s-{name}" for name in SOURCES]
    for index, name in enumerate(SOURCES, start=1):
        assert (await event(event_log, index))["fed"]["mapping"]["name"] == name


@pytest.mark.parametrize("name", ["nothing", "Kubernetes", "%ff", "..", "kubernetes%00", "x" * 500])
async def test_a_source_that_is_not_there_is_404_and_named(event_log: Running, name: str) -> None:
    problem = (await event_log.post(f"/v1/sources/{name}/s", b"{}", JSON)).problem(404)
    assert problem["code"] in ("no-such-source", "no-such-path")
    assert len(problem["detail"]) < 600
    assert await entries(event_log) == []


async def test_a_custom_source_is_taken_under_its_name(serve: Serve, tmp_path: Path) -> None:
    mapping = b'name = "payroll"\nversion = "1"\nsplit = "lines"\nid = "id"\nrows = [["who", "actor.user.name"]]\n'
    log = await serve(profile=Profile.EVENTS, secrets={"payroll.toml": mapping}, intake={"custom_sources": ["payroll.toml"]})
    answer = (await log.post("/v1/sources/payroll/s", b'{"id":"1","who":"carol"}\n', NDJSON)).require_ok().json
    found = await event(log, answer["results"][0]["index"])
    assert found["actor"] == {"user": {"name": "carol"}}
    assert found["fed"]["mapping"] == {"name": "payroll", "version": "1", "sha256": sha256(mapping).hexdigest()}


GOOD_MAPPING = b'name = "payroll"\nversion = "1"\nsplit = "lines"\nrows = [["who", "actor.user.name"]]\n'


@pytest.mark.parametrize(
    "files",
    [
        {"own.toml": GOOD_MAPPING.replace(b"payroll", b"kubernetes")},
        {"one.toml": GOOD_MAPPING, "own.toml": GOOD_MAPPING},
        {"own.toml": b"not TOML"},
        {"own.toml": b"\xff"},
        {"own.toml": GOOD_MAPPING + b"#" * 300_000},
        {},
    ],
    ids=["a name that is taken", "a name twice", "not TOML", "not UTF-8", "too large", "not there"],
)
async def test_a_log_does_not_start_with_a_custom_source_that_is_none(serve: Serve, files: dict[str, bytes]) -> None:
    sources = [*files] or ["own.toml"]
    with pytest.raises(SettingsError, match=r"own\.toml") as caught:
        await serve(profile=Profile.EVENTS, secrets=files, intake={"custom_sources": sources})
    assert caught.value.code == "bad-source"


async def test_a_source_is_answered_at_durable(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with publication_blocked(monkeypatch):
        answer = (await event_log.post("/v1/sources/ocsf/s", dumps(OCSF), JSON)).require_ok().json
        assert answer["checkpoint"] is None
        assert answer["results"][0]["receipt"] == "/v1/receipts/1"
    answer = (await event_log.post("/v1/sources/ocsf/s?ack=published", dumps(OCSF), JSON)).require_ok().json
    assert parse_checkpoint(parse_note(answer["checkpoint"].encode()).text).size == 3


def kubernetes(count: int, *, name: str = "x") -> bytes:
    item = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/default/pods/web",
        "verb": "get",
        "user": {"username": "system:serviceaccount:default:web", "groups": ["system:serviceaccounts", "system:authenticated"]},
        "sourceIPs": ["192.0.2.7"],
        "userAgent": "kubectl/v1.31.0",
        "objectRef": {"resource": "pods", "namespace": "default", "name": "web", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": "2026-01-02T03:04:05.000001Z",
        "stageTimestamp": "2026-01-02T03:04:05.010001Z",
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "RBAC: allowed"},
    }
    items = [item | {"auditID": f"{name}-{n}"} for n in range(count)]
    return dumps({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items})


async def test_an_event_list_is_an_event_each_and_again_nothing_new(event_log: Running) -> None:
    path = "/v1/sources/kubernetes/prod"
    first = (await event_log.post(path, kubernetes(120), JSON)).require_ok().json
    assert first["count"] == 120
    assert [result["error"] for result in first["results"]] == [None] * 120
    again = (await event_log.post(path, kubernetes(120), JSON)).require_ok().json
    assert [result["index"] for result in again["results"]] == [result["index"] for result in first["results"]]
    assert all(result["duplicate"] for result in again["results"])
    found = await event(event_log, first["results"][7]["index"])
    assert found["metadata"]["uid"] == "x-7/ResponseComplete"
    empty = (await event_log.post(path, kubernetes(0), JSON)).require_ok().json
    assert (empty["count"], empty["results"]) == (0, [])
    require_dense(await entries(event_log))


def cloudtrail(count: int, *, name: str) -> bytes:
    item = {
        "eventVersion": "1.08",
        "userIdentity": {"type": "AssumedRole", "principalId": "AROA:web", "arn": "arn:aws:sts::1:assumed-role/web/web"},
        "eventTime": "2026-01-02T03:04:05Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": "eu-central-1",
        "sourceIPAddress": "192.0.2.8",
        "userAgent": "aws-cli/2.15",
        "requestParameters": {"bucketName": "prod-data", "key": "2026/01/02/03/04/05.json", "padding": "x" * 600},
        "responseElements": None,
        "eventType": "AwsApiCall",
        "recipientAccountId": "123456789012",
    }
    return dumps({"Records": [item | {"eventID": f"{name}-{n}", "requestID": f"{n}"} for n in range(count)]})


LOADED_S_MAX = 5.0
"""An order of magnitude above what is wanted: a machine that is busy with something else must not fail this."""


async def test_an_event_list_is_answered_while_others_send_large_batches(event_log: Running) -> None:
    stop = asyncio.Event()
    written = [0]

    async def write(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            answer = await event_log.post(f"/v1/sources/cloudtrail/s{number}", cloudtrail(300, name=f"{turn}"), JSON)
            assert answer.require_ok().json["count"] == 300
            written[0] += 300

    writers = [asyncio.create_task(write(number)) for number in range(3)]
    try:
        await until(lambda: written[0] > 0)
        times = []
        for turn in range(5):
            begin = asyncio.get_running_loop().time()
            answer = await event_log.post("/v1/sources/kubernetes/prod", kubernetes(100, name=str(turn)), JSON)
            times.append(asyncio.get_running_loop().time() - begin)
            assert answer.require_ok().json["count"] == 100
        assert max(times) < LOADED_S_MAX, times
    finally:
        stop.set()
        await asyncio.gather(*writers)
    every = await entries(event_log)
    require_dense(every)
    assert len(every) == written[0] + 500
