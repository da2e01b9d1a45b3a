"""Appending over HTTP: order, acknowledgement, receipts, what a batch is, and what is refused with nothing logged."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest
from core.merkle_oracle import Oracle

from translog.core.policy import verify_checkpoint
from translog.core.proof import Receipt, format_receipt
from translog.errors import CorruptionError, MalformedError, StorageError, TooLargeError, TranslogError
from translog.log.reader import Reader
from translog.server.entries_api import split_bundle
from translog.storage.leveldb import LevelDBStore

from .conftest import Serve
from .harness import (
    AS_ACME,
    ENTRIES,
    MEMBERS,
    NDJSON,
    OCTETS,
    Running,
    bundle,
    commits_blocked,
    hashes,
    numbered,
    publication_blocked,
    request_bytes,
    require_checkpoint,
    until,
)


async def logged(log: Running) -> list[bytes]:
    """All entries of the log, once it has published what it committed."""
    size = log.server.service.integrated.size
    assert await log.server.service.wait_published(size, timeout_ms=10_000)
    return hashes((await log.get(f"/v1/entries?start=0&end={size}")).json["entries"]) if size else []


# --- POST /add ----------------------------------------------------------------------------------------------------------


async def test_add_answers_the_index_when_published(log_server: Running) -> None:
    for index, entry in enumerate([b"first", b"", b"\0\xff\r\n", b"x" * 65_535]):
        answer = (await log_server.post("/add", entry)).require_ok()
        assert answer.body == b"%d" % index
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        receipt = await log_server.get(answer.headers["Location"])
        assert await log_server.verify(receipt.body, entry) == index


async def test_add_takes_any_content_type(log_server: Running) -> None:
    for content_type in ("text/plain", "application/json", "application/x-www-form-urlencoded", "multipart/form-data"):
        (await log_server.post("/add", b"a=b", content_type)).require_ok()
    (await log_server.request("POST", "/add", body=b"a=b")).require_ok()
    assert await logged(log_server) == [b"a=b"] * 5


async def test_add_past_the_deadline_answers_202_with_where_the_receipt_will_be(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await serve(publish_deadline_ms=1)
    with publication_blocked(monkeypatch):
        answer = await log.post("/add", b"late")
        assert (answer.status, answer.body) == (202, b"0")
        (await log.get(answer.headers["Location"])).problem(404, "not-published")
    assert await logged(log) == [b"late"]
    assert await log.verify((await log.get(answer.headers["Location"])).body, b"late") == 0


async def test_durable_does_not_wait_for_publication(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with publication_blocked(monkeypatch):
        assert (await log_server.post("/add?ack=durable", b"x")).status == 202
        answer = await log_server.append([b"y", b"z"], "?ack=durable")
        assert answer.status == 202
        assert answer.json["checkpoint"] is None
        assert await log_server.size() == 0
    assert await logged(log_server) == [b"x", b"y", b"z"]


@pytest.mark.parametrize("slash", ["", "/"])
async def test_under_a_public_url_receipts_are_there_too(serve: Serve, slash: str) -> None:
    log = await serve(public_url=f"https://log.example/audit{slash}", publish_deadline_ms=1, members=MEMBERS)
    answer = await log.post("/add?ack=durable", b"x", **AS_ACME)
    assert answer.headers["Location"] == "https://log.example/audit/v1/receipts/0"
    assert await logged(log) == [b"x"]


async def test_under_a_public_url_results_name_it(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve(public_url="https://log.example/audit", members=MEMBERS)
    with publication_blocked(monkeypatch):
        said = (await log.append([b"x"], "?ack=durable", **AS_ACME)).json
    assert said["results"][0]["receipt"] == "https://log.example/audit/v1/receipts/0"


# --- POST /v1/entries ---------------------------------------------------------------------------------------------------


async def test_indexes_are_in_the_order_of_the_batch(log_server: Running) -> None:
    await log_server.grow([b"before"])
    said = (await log_server.append(numbered(0, 300))).require_ok().json
    assert (said["first"], said["count"]) == (1, 300)
    assert [result["index"] for result in said["results"]] == list(range(1, 301))
    assert await logged(log_server) == [b"before", *numbered(0, 300)]


async def test_batches_that_come_together_stay_whole(log_server: Running) -> None:
    batches = [[b"%d.%d" % (number, n) for n in range(number % 7 + 1)] for number in range(40)]
    answers = await asyncio.gather(*(log_server.append(batch) for batch in batches))
    entries = await logged(log_server)
    assert len(entries) == sum(map(len, batches))
    for answer, batch in zip(answers, batches, strict=True):
        first = answer.require_ok().json["first"]
        assert entries[first : first + len(batch)] == batch


async def test_receipts_index_is_the_default(log_server: Running) -> None:
    said = (await log_server.append([b"a", b"b"])).require_ok().json
    assert said["results"] == [{"index": n, "receipt": None, "proof": None} for n in (0, 1)]
    assert verify_checkpoint(said["checkpoint"].encode(), await log_server.policy()).checkpoint.size == 2


async def test_receipts_none_is_first_and_count(log_server: Running) -> None:
    said = (await log_server.append([b"a", b"b"], "?receipts=none")).require_ok().json
    assert said == {"first": 0, "count": 2, "results": [], "checkpoint": None}


async def test_full_receipts_verify_offline(log_server: Running) -> None:
    await log_server.grow(numbered(0, 250))
    oracle = Oracle(numbered(0, 270))
    said = (await log_server.append(oracle.entries[250:], "?receipts=full")).require_ok().json
    assert require_checkpoint(said["checkpoint"].encode(), oracle) == 270
    for result in said["results"]:
        index, proof = result["index"], hashes(result["proof"])
        assert proof == oracle.path(index, 0, 270)
        receipt = format_receipt(Receipt(index=index, proof=tuple(proof), checkpoint=said["checkpoint"].encode()))
        assert await log_server.verify(receipt, oracle.entries[index]) == index


@pytest.mark.parametrize("receipts", ["none", "index", "full"])
async def test_past_the_deadline_a_batch_is_202_with_receipt_urls(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, receipts: str
) -> None:
    log = await serve(publish_deadline_ms=1)
    with publication_blocked(monkeypatch):
        answer = await log.append([b"a", b"b"], f"?receipts={receipts}")
    assert answer.status == 202
    said = answer.json
    assert (said["first"], said["count"], said["checkpoint"]) == (0, 2, None)
    assert [result["receipt"] for result in said["results"]] == (
        [] if receipts == "none" else ["/v1/receipts/0", "/v1/receipts/1"]
    )
    assert await logged(log) == [b"a", b"b"]
    for result, entry in zip(said["results"], (b"a", b"b"), strict=False):
        assert await log.verify((await log.get(result["receipt"])).body, entry) == result["index"]


@pytest.mark.parametrize("query", ["ack=never", "receipts=all", "ack=", "ack=durable&ack=published", "receipts=FULL"])
async def test_a_bad_query_logs_nothing(log_server: Running, query: str) -> None:
    (await log_server.append([b"x"], f"?{query}")).problem(400, "malformed")
    assert await logged(log_server) == []


async def test_unknown_query_parameters_are_ignored(log_server: Running) -> None:
    (await log_server.append([b"x"], "?trace=1&trace=2")).require_ok()
    (await log_server.post("/add?trace=1", b"x")).require_ok()


# --- what a batch is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "entries"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\n\nb\n", [b"a", b"", b"b"]),
        (b"\n", [b""]),
        (b"\n\n", [b"", b""]),
        (b"a\r\nb\r", [b"a\r", b"b\r"]),
        (" a \u2028b\u0085c\x0bd\x0ce\x1cf\n".encode(), [" a \u2028b\u0085c\x0bd\x0ce\x1cf".encode()]),
        (b"\0\n\0\0", [b"\0", b"\0\0"]),
        (b"\xef\xbb\xbf{}\n", [b"\xef\xbb\xbf{}"]),
        (b"\xff\xfe not text \xc3\n", [b"\xff\xfe not text \xc3"]),
        (b"not json {\n", [b"not json {"]),
        (b"x" * 65_535 + b"\n" + b"y" * 65_535, [b"x" * 65_535, b"y" * 65_535]),
    ],
)
async def test_ndjson_is_lines_taken_literally(log_server: Running, body: bytes, entries: Sequence[bytes]) -> None:
    (await log_server.post(ENTRIES, body, NDJSON)).require_ok()
    assert await logged(log_server) == entries


@pytest.mark.parametrize("entries", [[b""], [b"", b"", b"a"], [b"\n", b"\0\1"], [b"x" * 65_535] * 3])
async def test_octets_are_a_bundle_of_any_length(log_server: Running, entries: list[bytes]) -> None:
    (await log_server.append(entries)).require_ok()
    assert await logged(log_server) == entries


@pytest.mark.parametrize("content_type", [NDJSON, OCTETS])
async def test_an_empty_body_has_no_entry(log_server: Running, content_type: str) -> None:
    (await log_server.post(ENTRIES, b"", content_type)).problem(400, "no-entries")
    assert await logged(log_server) == []


@pytest.mark.parametrize("body", [b"\0", b"\0\1", b"\0\2a", b"\0\1a\0", b"\0\1a\xff\xffx" + b"x" * 60_000])
async def test_a_bundle_that_is_cut_short_logs_nothing(log_server: Running, body: bytes) -> None:
    (await log_server.post(ENTRIES, body)).problem(400, "malformed")
    assert await logged(log_server) == []


async def test_one_entry_too_large_and_nothing_of_the_batch_is_logged(log_server: Running) -> None:
    answer = await log_server.post(ENTRIES, b"good\n" + b"x" * 65_536 + b"\ngood\n", NDJSON)
    assert "entry 1 " in answer.problem(413, "entry-too-large")["detail"]
    (await log_server.post("/add", b"x" * 65_536)).problem(413, "entry-too-large")
    assert await logged(log_server) == []


@pytest.mark.parametrize("content_type", [NDJSON, OCTETS])
async def test_entries_per_request_are_bounded(serve: Serve, content_type: str) -> None:
    log = await serve(entries_per_request_max=3)
    for count, ok in ((3, True), (4, False), (5, False), (100, False)):
        body = b"ab\n" * count if content_type == NDJSON else bundle([b"ab"] * count)
        answer = await log.post(ENTRIES, body, content_type)
        assert answer.status == (200 if ok else 413)
        if not ok:
            answer.problem(413, "too-many-entries")
    assert await logged(log) == [b"ab"] * 3
    assert (await log.post(ENTRIES, b"a\nb\nc", NDJSON)).status == 200


def test_a_bundle_is_not_split_further_than_the_limit() -> None:
    assert split_bundle(bundle([b"x"] * 10), 10) == [b"x"] * 10
    with pytest.raises(TooLargeError):
        split_bundle(bundle([b"x"] * 11) + b"cut short", 10)
    with pytest.raises(MalformedError):
        split_bundle(bundle([b"x"] * 9) + b"cut short", 10)


async def test_a_batch_that_the_pool_could_never_hold_is_refused(serve: Serve) -> None:
    log = await serve(log={"pool_entries_max": 5})
    (await log.append([b"x"] * 6)).problem(413)
    assert await logged(log) == []


async def test_a_full_pool_pushes_back_with_a_time_to_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve(log={"pool_entries_max": 2, "retry_after_ms": 6_001})
    with commits_blocked(monkeypatch):
        first = asyncio.create_task(log.append([b"a"]))
        pool = log.server.service._pool
        await until(lambda: log.server.service._in_flight == 1 and pool.entries == 0)
        second = asyncio.create_task(log.append([b"b", b"c"]))
        await until(lambda: pool.entries == 2)
        answer = await log.append([b"d"])
        answer.problem(503, "pool-full")
        assert answer.headers["Retry-After"] == "7"
    (await first).require_ok()
    (await second).require_ok()
    assert await logged(log) == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json", "application/ndjson", "application/x-ndjson2", "a/b"]
)
async def test_a_batch_of_another_content_type_is_415(log_server: Running, content_type: str) -> None:
    (await log_server.post(ENTRIES, b"\0\1a", content_type)).problem(415, "unsupported-type")
    assert await logged(log_server) == []


@pytest.mark.parametrize("content_type", [f"{NDJSON}; charset=utf-8", "APPLICATION/X-NDJSON"])
async def test_parameters_and_case_of_a_content_type_do_not_matter(log_server: Running, content_type: str) -> None:
    (await log_server.post(ENTRIES, b"\0\1a", content_type)).require_ok()
    assert await logged(log_server) == [b"\0\1a"]


@pytest.mark.parametrize(
    "content_type",
    [
        [],
        ["Content-Type: /"],
        ["Content-Type: garbage"],
        ["Content-Type:"],
        ["Content-Type: ;"],
    ],
)
async def test_a_batch_without_a_sound_content_type_is_415_and_nothing_is_guessed(
    log_server: Running, content_type: list[str]
) -> None:
    answer = await log_server.raw(request_bytes("POST", ENTRIES, "Content-Length: 3", *content_type, body=b"\0\1a"))
    answer.problem(415, "unsupported-type")


# --- outcomes -----------------------------------------------------------------------------------------------------------


async def test_not_committed_in_time_is_an_unknown_outcome(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve(commit_deadline_ms=1)
    with commits_blocked(monkeypatch):
        answer = await log.append([b"x"])
        answer.problem(503, "outcome-unknown")
    await until(lambda: log.server.service.integrated.size == 1)
    assert await logged(log) == [b"x"]


async def test_a_failed_write_is_an_unknown_outcome_and_the_log_goes_on(
    log_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("the disk is full: /secret/path")

    with monkeypatch.context() as patch:
        patch.setattr(LevelDBStore, "commit", fail)
        answer = await log_server.append([b"x"])
    answer.problem(503, "outcome-unknown")
    assert b"secret" not in answer.body
    while (answer := await log_server.append([b"y"])).status != 200:
        answer.problem(503)
    assert await logged(log_server) == [b"y"]


@pytest.mark.parametrize("error", [StorageError("the store is closed", code="store-closed"), CorruptionError("damaged")])
async def test_a_failure_after_the_commit_does_not_invite_to_send_again(
    log_server: Running, monkeypatch: pytest.MonkeyPatch, error: TranslogError
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(Reader, "inclusion", fail)
    answer = await log_server.append([b"x"], "?receipts=full")
    assert log_server.server.service.integrated.size == 1
    assert answer.status == 202
    assert answer.json["results"] == [{"index": 0, "receipt": "/v1/receipts/0", "proof": None}]


async def test_received_bytes_are_the_leaf_to_the_bit(log_server: Running) -> None:
    entry = bytes(range(256)) * 255
    answer = await log_server.append([entry], "?receipts=full")
    proof = await log_server.get("/v1/proofs/inclusion?index=0")
    assert hashes([proof.json["leaf_hash"]]) == [sha256(b"\0" + entry).digest()]
    assert answer.json["results"][0]["proof"] == []
