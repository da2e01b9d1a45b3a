"""What the log says of itself and proves, checked with translog.core and with the recursive oracle."""

import asyncio
import threading
from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest
from core.merkle_oracle import Oracle

from translog.core.keys import parse_vkey
from translog.core.merkle import verify_consistency, verify_inclusion
from translog.core.policy import verify_checkpoint
from translog.index.lookup import LeafLookup
from translog.server import log_api

from .conftest import Serve
from .harness import (
    AS_ACME,
    MEMBERS,
    ORIGIN,
    PATIENCE_S,
    Running,
    hashes,
    numbered,
    publication_blocked,
    require_checkpoint,
)

EMPTY_ROOT = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
IMMUTABLE = "public, max-age=604800, immutable"
NOT_DECIMAL = [
    "",
    "-1",
    "+1",
    "01",
    "1.0",
    "0x1",
    "1_0",
    "%D9%A1",
    "9223372036854775808",
    "9" * 400,
    "1%0A",
    "1%00",
    "one",
    "1,2",
]


# --- size 0 -------------------------------------------------------------------------------------------------------------


async def test_a_log_has_a_signed_checkpoint_of_size_0_from_the_first_second(log_server: Running) -> None:
    checkpoint = await log_server.get("/checkpoint")
    assert checkpoint.body.startswith(f"{ORIGIN}\n0\n{EMPTY_ROOT}\n\n".encode())
    verified = verify_checkpoint(checkpoint.body, await log_server.policy())
    assert verified.checkpoint.size == 0
    assert (await log_server.get("/v1/checkpoint?size=0")).body == checkpoint.body


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/proofs/inclusion?index=0", 404, "not-published"),
        ("/v1/proofs/inclusion?index=0&size=0", 404, "not-published"),
        ("/v1/proofs/consistency?old=1&new=1", 404, "not-published"),
        ("/v1/proofs/consistency?old=0&new=0", 400, "malformed"),
        ("/v1/entries?start=0&end=1", 404, "not-published"),
        ("/v1/receipts/0", 404, "not-published"),
        ("/v1/receipts/0?size=0", 404, ""),
        ("/tile/0/000.p/1", 404, "not-published"),
        ("/tile/entries/000", 404, "not-published"),
    ],
)
async def test_an_empty_log_proves_nothing(log_server: Running, path: str, status: int, code: str) -> None:
    (await log_server.get(path)).problem(status, code)


# --- /v1/log ------------------------------------------------------------------------------------------------------------


async def test_the_log_describes_itself(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve(
        public_url="https://log.example/test",
        entries_per_read_max=7,
        body_bytes_max=1_000,
        decoded_bytes_max=2_000,
        members=MEMBERS,
    )
    await log.grow(numbered(0, 3), **AS_ACME)
    with publication_blocked(monkeypatch):
        await log.append([b"x"], "?ack=durable", **AS_ACME)
        answer = await log.get("/v1/log")
    said = answer.json
    assert answer.headers["Cache-Control"] == "no-store"
    assert (said["origin"], said["profile"], said["public_read"]) == (ORIGIN, "opaque", "everyone")
    assert (said["published_size"], said["integrated_size"]) == (3, 4)
    assert [parse_vkey(vkey).name for vkey in said["vkeys"]] == [ORIGIN, ORIGIN]
    assert "https://log.example/test" in said["policy"]
    assert said["limits"] == {
        "entry_bytes_max": 65_535,
        "body_bytes_max": 1_000,
        "decoded_bytes_max": 2_000,
        "entries_per_request_max": 10_000,
        "entries_per_read_max": 7,
    }


# --- checkpoints --------------------------------------------------------------------------------------------------------


async def test_kept_checkpoints_are_served_by_size(serve: Serve) -> None:
    log = await serve(log={"keep_checkpoint_interval_ms": 0})
    oracle = Oracle(numbered(0, 9))
    for size in (3, 9):
        await log.grow(oracle.entries[await log.size() : size])
    for size in (0, 3, 9):
        answer = (await log.get(f"/v1/checkpoint?size={size}")).require_ok()
        assert require_checkpoint(answer.body, oracle) == size
        verify_checkpoint(answer.body, await log.policy())
    assert (await log.get("/v1/checkpoint")).body == (await log.get("/checkpoint")).body


@pytest.mark.parametrize(("size", "nearest"), [(1, "0, 3"), (8, "3, 9"), (10, "9"), (2**63 - 1, "9")])
async def test_a_size_that_was_not_kept_names_the_nearest(serve: Serve, size: int, nearest: str) -> None:
    log = await serve(log={"keep_checkpoint_interval_ms": 0})
    await log.grow(numbered(0, 3))
    await log.grow(numbered(3, 9))
    problem = (await log.get(f"/v1/checkpoint?size={size}")).problem(404, "not-kept")
    assert problem["detail"].endswith(f"of size {nearest}")


async def test_one_checkpoint_an_interval_is_kept_and_the_latest_is_always_there(log_server: Running) -> None:
    for size in (1, 2, 3):
        await log_server.grow([b"%d" % size])
    (await log_server.get("/v1/checkpoint?size=2")).problem(404, "not-kept")
    assert (await log_server.get("/v1/checkpoint?size=3")).size == 3


# --- proofs -------------------------------------------------------------------------------------------------------------


async def test_inclusion_proofs_are_the_oracles(log_server: Running) -> None:
    oracle = Oracle(numbered(0, 300))
    await log_server.grow(oracle.entries)
    for size in (1, 2, 3, 7, 8, 255, 256, 257, 299, 300):
        for index in {0, 1, size // 2, size - 1, 255, 256} & set(range(size)):
            said = (await log_server.get(f"/v1/proofs/inclusion?index={index}&size={size}")).json
            proof = hashes(said["proof"])
            assert proof == oracle.path(index, 0, size)
            leaf_hash, root = hashes([said["leaf_hash"], said["root"]])
            assert (leaf_hash, root) == (sha256(b"\0" + oracle.entries[index]).digest(), oracle.mth(0, size))
            verify_inclusion(leaf_hash=leaf_hash, index=said["index"], size=said["size"], proof=proof, root=root)


async def test_an_inclusion_proof_is_in_the_published_tree_by_default(log_server: Running) -> None:
    await log_server.grow(numbered(0, 11))
    answer = await log_server.get("/v1/proofs/inclusion?index=4")
    assert answer.json["size"] == 11
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await log_server.get("/v1/proofs/inclusion?index=4&size=11")).headers["Cache-Control"] == IMMUTABLE


async def test_consistency_proofs_are_the_oracles(log_server: Running) -> None:
    oracle = Oracle(numbered(0, 300))
    await log_server.grow(oracle.entries)
    for new in (1, 2, 3, 8, 256, 257, 300):
        for old in {1, 2, 3, new // 2, new - 1, new, 255, 256} & set(range(1, new + 1)):
            answer = await log_server.get(f"/v1/proofs/consistency?old={old}&new={new}")
            said, proof = answer.json, hashes(answer.json["proof"])
            assert (said["old"], said["new"]) == (old, new)
            assert proof == oracle.proof(old, 0, new)
            verify_consistency(old=old, new=new, old_root=oracle.mth(0, old), new_root=oracle.mth(0, new), proof=proof)
            assert answer.headers["Cache-Control"] == IMMUTABLE


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("inclusion", 400, "malformed"),
        ("inclusion?size=3", 400, "malformed"),
        ("inclusion?index=1&leaf_hash=" + "00" * 32, 400, "malformed"),
        ("inclusion?index=5", 404, "not-published"),
        ("inclusion?index=9223372036854775807", 404, "not-published"),
        ("inclusion?index=0&size=6", 404, "not-published"),
        ("inclusion?index=3&size=3", 404, "not-found"),
        ("inclusion?index=0&size=0", 404, "not-found"),
        ("consistency", 400, "malformed"),
        ("consistency?old=1", 400, "malformed"),
        ("consistency?old=0&new=3", 400, "malformed"),
        ("consistency?old=3&new=2", 400, "malformed"),
        ("consistency?old=1&new=6", 404, "not-published"),
        ("consistency?old=9223372036854775807&new=9223372036854775807", 404, "not-published"),
    ],
)
async def test_proofs_that_cannot_be(log_server: Running, query: str, status: int, code: str) -> None:
    await log_server.grow(numbered(0, 5))
    answer = await log_server.get(f"/v1/proofs/{query}")
    answer.problem(status, code)
    assert ("Retry-After" in answer.headers) == (code == "not-published")


@pytest.mark.parametrize("value", NOT_DECIMAL)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/checkpoint?size={}",
        "/v1/proofs/inclusion?index={}",
        "/v1/proofs/inclusion?index=0&size={}",
        "/v1/proofs/consistency?old={}&new=3",
        "/v1/entries?start=0&end={}",
        "/v1/receipts/0?size={}",
        "/v1/receipts/{}",
    ],
)
async def test_numbers_are_plain_decimal(log_server: Running, path: str, value: str) -> None:
    (await log_server.get(path.format(value))).problem(404 if path.format(value).endswith("/") else 400)


async def test_a_parameter_given_twice_is_refused_and_an_unknown_one_ignored(log_server: Running) -> None:
    (await log_server.get("/v1/checkpoint?size=0&size=0")).problem(400, "malformed")
    (await log_server.get("/v1/checkpoint?size=0&utm_source=x&utm_source=y")).require_ok()


# --- entries ------------------------------------------------------------------------------------------------------------


def _decoded(said: Any) -> list[bytes]:
    return hashes(said["entries"])


async def test_entries_of_a_range_end_exclusive(log_server: Running) -> None:
    entries = numbered(0, 300)
    await log_server.grow(entries)
    for start, end in ((0, 1), (0, 300), (255, 257), (299, 300), (100, 100_000)):
        answer = await log_server.get(f"/v1/entries?start={start}&end={end}")
        assert _decoded(answer.json) == entries[start:end]
        assert (answer.json["start"], answer.json["end"]) == (start, min(end, 300))
        assert answer.headers["Cache-Control"] == "no-store"


async def test_entries_are_bounded_by_count(serve: Serve) -> None:
    log = await serve(entries_per_read_max=10)
    await log.grow(numbered(0, 30))
    said = (await log.get("/v1/entries?start=5&end=9223372036854775807")).json
    assert (said["end"], _decoded(said)) == (15, numbered(0, 30)[5:15])


async def test_entries_are_bounded_by_bytes_and_there_is_always_one(serve: Serve) -> None:
    log = await serve(read_bytes_max=1_000)
    entries = [bytes([n]) * 300 for n in range(200)] + [b"L" * 60_000, b"", b"x"]
    await log.grow(entries)
    for start, end in ((0, 4), (70, 74), (200, 201), (201, 203)):
        said = (await log.get(f"/v1/entries?start={start}&end=203")).json
        assert (said["start"], said["end"], _decoded(said)) == (start, end, entries[start:end])


async def test_a_long_answer_is_written_off_the_event_loop(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def watch(data: bytes) -> str:
        names.append(threading.current_thread().name)
        return b64encode(data).decode()

    await log_server.grow([b"x"])
    monkeypatch.setattr(log_api, "encode_base64", watch)
    (await log_server.get("/v1/entries?start=0&end=1")).require_ok()
    assert [name.startswith("reader") for name in names] == [True]


@pytest.mark.parametrize(
    ("query", "status"), [("start=3&end=3", 400), ("start=4&end=3", 400), ("start=5&end=6", 404), ("start=0", 400)]
)
async def test_ranges_without_entries(log_server: Running, query: str, status: int) -> None:
    await log_server.grow(numbered(0, 5))
    (await log_server.get(f"/v1/entries?{query}")).problem(status)


# --- receipts -----------------------------------------------------------------------------------------------------------


async def test_a_receipt_is_at_the_first_kept_checkpoint_that_covers_the_entry(serve: Serve) -> None:
    log = await serve(log={"keep_checkpoint_interval_ms": 0})
    oracle = Oracle(numbered(0, 9))
    await log.grow(oracle.entries[:3])
    await log.grow(oracle.entries[3:])
    for index, entry in enumerate(oracle.entries):
        answer = (await log.get(f"/v1/receipts/{index}")).require_ok()
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert await log.verify(answer.body, entry) == index
        note = answer.body.split(b"\n\n", 1)[1]
        assert note == (await log.get(f"/v1/checkpoint?size={3 if index < 3 else 9}")).body


async def test_a_receipt_can_be_asked_for_at_any_kept_size(serve: Serve) -> None:
    log = await serve(log={"keep_checkpoint_interval_ms": 0})
    entries = numbered(0, 9)
    await log.grow(entries[:3])
    await log.grow(entries[3:])
    receipt = (await log.get("/v1/receipts/1?size=9")).require_ok().body
    assert receipt.split(b"\n\n", 1)[1] == (await log.get("/checkpoint")).body
    assert await log.verify(receipt, entries[1]) == 1
    (await log.get("/v1/receipts/1?size=5")).problem(404, "not-kept")
    (await log.get("/v1/receipts/5?size=3")).problem(404, "not-found")
    (await log.get("/v1/receipts/1?size=10")).problem(404, "not-kept")


@pytest.mark.parametrize("index", [5, 6, 2**63 - 1])
async def test_a_receipt_that_is_not_there_yet_says_when_to_ask_again(log_server: Running, index: int) -> None:
    await log_server.grow(numbered(0, 5))
    answer = await log_server.get(f"/v1/receipts/{index}")
    answer.problem(404, "not-published")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_committed_entry_has_no_receipt_before_it_is_published(
    log_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with publication_blocked(monkeypatch) as publish:
        answer = await log_server.append([b"x"], "?ack=durable")
        url = answer.json["results"][0]["receipt"]
        (await log_server.get(url)).problem(404, "not-published")
        publish()
        assert await log_server.server.service.wait_published(1, timeout_ms=10_000)
        assert await log_server.verify((await log_server.get(url)).body, b"x") == 0


# --- leaf_hash ----------------------------------------------------------------------------------------------------------


async def test_without_the_setting_there_is_no_lookup_by_leaf_hash(log_server: Running) -> None:
    await log_server.grow([b"x"])
    leaf_hash = sha256(b"\0x").hexdigest()
    (await log_server.get(f"/v1/proofs/inclusion?leaf_hash={leaf_hash}")).problem(404, "no-leaf-lookup")


async def test_a_leaf_hash_leads_to_the_first_entry_that_has_it(serve: Serve) -> None:
    log = await serve(log={"leaf_lookup": True})
    entries = [b"%d" % (n % 70) for n in range(100)]
    assert any("+" in b64encode(sha256(b"\0" + entry).digest()).decode() for entry in entries)
    await log.grow(entries)
    last = sha256(b"\0" + entries[69]).hexdigest()
    async with asyncio.timeout(PATIENCE_S):
        while (await log.get(f"/v1/proofs/inclusion?leaf_hash={last}")).status == 404:
            pass
    for index in range(70):
        leaf_hash = sha256(b"\0" + entries[index]).digest()
        text = b64encode(leaf_hash).decode()
        for spelling in (leaf_hash.hex(), leaf_hash.hex().upper(), quote(text, safe=""), text):  # the last with its + as it is
            answer = await log.get(f"/v1/proofs/inclusion?leaf_hash={spelling}")
            assert answer.json["index"] == index
            assert hashes([answer.json["leaf_hash"]]) == [leaf_hash]
            assert answer.headers["Cache-Control"] == "no-store"
    unknown = await log.get("/v1/proofs/inclusion?leaf_hash=" + "00" * 32)
    unknown.problem(404, "unknown-leaf")
    assert "Retry-After" in unknown.headers


async def test_a_table_that_points_to_another_entry_is_not_believed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve(log={"leaf_lookup": True})
    await log.grow([b"a", b"b"])
    monkeypatch.setattr(LeafLookup, "find", lambda *_: 1)
    for entry, found in ((b"a", False), (b"b", True)):
        answer = await log.get(f"/v1/proofs/inclusion?leaf_hash={sha256(bytes(1) + entry).hexdigest()}")
        if found:
            assert answer.require_ok().json["index"] == 1
        else:
            answer.problem(404, "unknown-leaf")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00" * 31,
        "00" * 33,
        "zz" * 32,
        "AA==",
        "0" * 63,
        b64encode(bytes(31)).decode(),
        b64encode(bytes(32)).decode()[:-1],
    ],
)
async def test_a_leaf_hash_is_32_bytes(serve: Serve, value: str) -> None:
    log = await serve(log={"leaf_lookup": True})
    (await log.get(f"/v1/proofs/inclusion?leaf_hash={value}")).problem(400, "malformed")
