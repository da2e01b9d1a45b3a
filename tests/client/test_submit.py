"""Submitter: every receipt verified before it is handed out, nothing sent twice that may have been logged."""

import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from client.serving import make_log, policy_for, served, url_of
from client.simulator import ED25519, MLDSA44, ORIGIN, POLICY, STRANGER, Answer, Simulator, entries_of, policy_of, respond
from translog.client import transport
from translog.client.submit import Appended, LogInfo, Submitter
from translog.core.keys import KeyType, SKey
from translog.core.merkle import hash_leaf
from translog.core.policy import parse_policy
from translog.core.proof import Receipt, format_receipt, parse_receipt, verify_receipt
from translog.core.tile import decode_bundle
from translog.core.wire import encode_base64
from translog.errors import InclusionError, MalformedError, RemoteError, SignatureError, TooLargeError

ADD = "v1/entries"
WITNESS = SKey(name="w.example", type=KeyType.COSIGNATURE_MLDSA44, seed=bytes(32))
NEW = [b"new 0", b"", b"new 2"]


class Translog(Simulator):
    """The simulator with the write side of a translog: three entries after ten."""

    def __init__(self) -> None:
        super().__init__([*entries_of(10), *NEW])
        self.bodies: list[bytes] = []
        self.answers[ADD] = self.publish

    def document(self) -> dict[str, Any]:
        """The honest answer."""
        results = [
            {"index": index, "receipt": None, "proof": [encode_base64(value) for value in self.oracle.path(index, 0, 13)]}
            for index in range(10, 13)
        ]
        return {"first": 10, "count": 3, "results": results, "checkpoint": self.files["checkpoint"].decode()}

    async def publish(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        return web.json_response(self.document())

    def receipt(self, index: int) -> bytes:
        proof = tuple(self.oracle.path(index, 0, 13))
        return format_receipt(Receipt(index=index, proof=proof, checkpoint=self.files["checkpoint"]))


@asynccontextmanager
async def submitting(log: Simulator, *, token: str | None = None) -> AsyncIterator[Submitter]:
    async with log.serving() as url, Submitter(url, token=token) as submitter:
        yield submitter


@pytest.fixture(autouse=True)
def _no_polling_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.client.submit._PUBLISH_POLL_S", 0)


def changed(change: Callable[[dict[str, Any]], object]) -> tuple[Translog, dict[str, Any]]:
    """A log whose answer is the honest one after `change`."""
    log = Translog()
    document = log.document()
    change(document)
    log.answers[ADD] = respond(200, json.dumps(document).encode())
    return log, document


def received(appended: Appended) -> Receipt:
    """The receipt, which must be there."""
    assert appended.receipt is not None
    return parse_receipt(appended.receipt)


async def unknown_outcome(submitter: Submitter) -> RemoteError:
    """Appends NEW, and must be told that it may have been logged."""
    with pytest.raises(RemoteError, match="; whether the entries were logged is not known") as caught:
        await submitter.append(NEW, POLICY)
    assert caught.value.code == "outcome-unknown"
    assert caught.value.hint == "when it answers again, look for them before sending them once more"
    return caught.value


# What is logged


async def test_receipts_verify_for_their_entries_only() -> None:
    log = Translog()
    async with submitting(log) as submitter:
        appended = await submitter.append(NEW, POLICY)
    assert [item.index for item in appended] == [10, 11, 12]
    assert [decode_bundle(body) for body in log.bodies] == [NEW]
    for entry, item in zip(NEW, appended, strict=True):
        receipt = received(item)
        assert verify_receipt(receipt, leaf_hash=hash_leaf(entry), policy=POLICY).index == item.index
        with pytest.raises(InclusionError):
            verify_receipt(receipt, leaf_hash=hash_leaf(entry + b"!"), policy=POLICY)


async def test_a_real_log_gives_receipts_that_hold(tmp_path: Path) -> None:
    vkeys = make_log(tmp_path / "log")
    entries = [b"", b"x" * 65_535, b"two\nlines", b"same", b"same"]
    async with served(tmp_path / "log") as server, Submitter(url_of(server)) as submitter:
        for policy in (policy_for(vkeys), policy_for(vkeys, classic=True)):
            appended = await submitter.append(entries, policy)
            for entry, item in zip(entries, appended, strict=True):
                verify_receipt(received(item), leaf_hash=hash_leaf(entry), policy=policy)
        assert (await submitter.info()).published_size == 10
        assert [item.index for item in appended] == [5, 6, 7, 8, 9]


async def test_a_real_log_past_its_publication_deadline_is_waited_for(tmp_path: Path) -> None:
    policy = policy_for(make_log(tmp_path / "log"))
    async with served(tmp_path / "log", publish_deadline_ms=1) as server, Submitter(url_of(server)) as submitter:
        for number in range(10):
            entry = b"%d" % number
            (appended,) = await submitter.append([entry], policy)
            assert appended.index == number
            verify_receipt(received(appended), leaf_hash=hash_leaf(entry), policy=policy)


async def test_large_batches_cause_no_warning(tmp_path: Path) -> None:
    policy = policy_for(make_log(tmp_path / "log"))
    async with served(tmp_path / "log") as server, Submitter(url_of(server)) as submitter:
        assert len(await submitter.append([bytes(65_535)] * 20, policy)) == 20


async def test_entries_above_the_limit_are_not_sent() -> None:
    log = Translog()
    async with submitting(log) as submitter:
        with pytest.raises(TooLargeError):
            await submitter.append([b"fits", b"x" * 65_536], POLICY)
    assert not log.requests


async def test_token_is_sent_as_bearer_with_the_content_type_of_bundles() -> None:
    log = Translog()
    async with submitting(log, token="secret") as submitter:
        await submitter.append(NEW, POLICY)
    (request,) = log.requests
    assert (request.headers["Authorization"], request.content_type) == ("Bearer secret", "application/octet-stream")
    assert request.query_string == "receipts=full"


# Receipts that do not hold


def _flip_proof(document: dict[str, Any]) -> None:
    document["results"][1]["proof"][0] = encode_base64(bytes(32))


def _swap_proofs(document: dict[str, Any]) -> None:
    document["results"].reverse()


def _shift_index(document: dict[str, Any]) -> None:
    document["first"] = 9


def _drop_proof_hash(document: dict[str, Any]) -> None:
    document["results"][2]["proof"].pop()


@pytest.mark.parametrize("change", [_flip_proof, _swap_proofs, _shift_index, _drop_proof_hash])
async def test_proofs_that_do_not_lead_from_entry_to_root_are_refused(change: Callable[[dict[str, Any]], None]) -> None:
    log, _ = changed(change)
    async with submitting(log) as submitter:
        with pytest.raises(InclusionError):
            await submitter.append(NEW, POLICY)
    assert log.count(ADD) == 1


async def test_receipts_for_other_entries_are_refused() -> None:
    log = Translog()
    async with submitting(log) as submitter:
        with pytest.raises(InclusionError):
            await submitter.append([b"new 0", b"", b"other"], POLICY)


async def test_receipts_under_a_checkpoint_of_an_unknown_key_are_refused() -> None:
    log = Translog()
    log.show_head(13, STRANGER)
    async with submitting(log) as submitter:
        with pytest.raises(SignatureError):
            await submitter.append(NEW, POLICY)


async def test_receipts_of_another_log_are_refused() -> None:
    log = Translog()
    async with submitting(log) as submitter:
        with pytest.raises(SignatureError):
            await submitter.append(NEW, policy_of(STRANGER))


ODD_ANSWERS: list[object] = [
    [],
    None,
    {},
    {"first": 10},
    {"first": 10, "count": 2, "results": [], "checkpoint": None},
    {"first": "ten", "count": 3, "results": [], "checkpoint": ""},
    {"first": 10, "count": 3, "results": None, "checkpoint": "x"},
    {"first": 10, "count": 3, "results": [{}, {}, {}], "checkpoint": "x"},
    {"first": 10, "count": 3, "results": [{"proof": None}] * 3, "checkpoint": "x"},
    {"first": 10, "count": 3, "results": "abc", "checkpoint": "x"},
    {"first": 10, "count": 3, "results": [], "checkpoint": "\ud800"},
]


@pytest.mark.parametrize("document", ODD_ANSWERS)
async def test_answers_that_no_translog_gives_are_refused(document: object) -> None:
    log = Translog()
    log.answers[ADD] = respond(200, json.dumps(document).encode())
    async with submitting(log) as submitter:
        await unknown_outcome(submitter)
    assert log.count(ADD) == 1


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b"<html>", b'"text"', b'{"first": 1' + b"0" * 5_000 + b"}"]
)
async def test_answers_that_are_no_json_are_refused(body: bytes) -> None:
    log = Translog()
    log.answers[ADD] = respond(200, body)
    async with submitting(log) as submitter:
        await unknown_outcome(submitter)


def _hash_is_a_number(document: dict[str, Any]) -> None:
    document["results"][0]["proof"] = [1]


def _too_few_results(document: dict[str, Any]) -> None:
    document["results"].pop()


def _infinite_first(document: dict[str, Any]) -> None:
    document["first"] = float("inf")


def _not_base64(document: dict[str, Any]) -> None:
    document["results"][0]["proof"] = ["!"]


def _negative_first(document: dict[str, Any]) -> None:
    document["first"] = -1


def _no_text(document: dict[str, Any]) -> None:
    document["checkpoint"] = "\ud800"


def _checkpoint_is_a_number(document: dict[str, Any]) -> None:
    document["checkpoint"] = 5


def _short_hash(document: dict[str, Any]) -> None:
    document["results"][0]["proof"][0] = encode_base64(bytes(31))


ODD_TYPES = [
    _hash_is_a_number,
    _too_few_results,
    _infinite_first,
    _not_base64,
    _negative_first,
    _no_text,
    _checkpoint_is_a_number,
    _short_hash,
]


@pytest.mark.parametrize("change", ODD_TYPES)
async def test_answers_of_odd_types_are_refused_too(change: Callable[[dict[str, Any]], None]) -> None:
    log, _ = changed(change)
    async with submitting(log) as submitter:
        await unknown_outcome(submitter)
    assert log.count(ADD) == 1


async def test_a_first_index_that_no_log_has_is_refused() -> None:
    log = Translog()
    log.answers[ADD] = respond(202, b'{"first": ' + b"9" * 4_300 + b', "count": 3, "checkpoint": null}')
    async with submitting(log) as submitter:
        await unknown_outcome(submitter)


# Not published yet


def _accepted(log: Translog, *, early: int) -> None:
    """Answers 202, and the receipts `early` times 404 before they are there."""
    results = [{"index": index, "receipt": f"/v1/receipts/{index}", "proof": None} for index in range(10, 13)]
    document = {"first": 10, "count": 3, "results": results, "checkpoint": None}
    log.answers[ADD] = respond(202, json.dumps(document).encode())
    for index in range(10, 13):
        there = respond(200, log.receipt(index))
        log.answers[f"v1/receipts/{index}"] = respond(404, b'{"code":"not-published"}', times=early, then=there)


async def test_entries_that_are_only_durable_are_waited_for() -> None:
    log = Translog()
    _accepted(log, early=3)
    async with submitting(log) as submitter:
        appended = await submitter.append(NEW, POLICY)
    assert [item.receipt for item in appended] == [log.receipt(index) for index in range(10, 13)]
    assert [log.count(f"v1/receipts/{index}") for index in range(10, 13)] == [4, 4, 4]
    assert log.count(ADD) == 1


async def test_receipts_waited_for_are_verified() -> None:
    log = Translog()
    _accepted(log, early=0)
    async with submitting(log) as submitter:
        with pytest.raises(InclusionError):
            await submitter.append([b"new 0", b"", b"other"], POLICY)


async def test_receipts_waited_for_are_those_asked_for() -> None:
    log = Translog()
    _accepted(log, early=0)
    log.answers["v1/receipts/11"] = respond(200, log.receipt(12))
    async with submitting(log) as submitter:
        with pytest.raises(InclusionError, match="asked for the receipt of entry 11, got that of 12"):
            await submitter.append(NEW, POLICY)


async def test_receipts_waited_for_that_are_none_are_refused() -> None:
    log = Translog()
    _accepted(log, early=0)
    log.answers["v1/receipts/10"] = respond(200, b"<html>")
    async with submitting(log) as submitter:
        with pytest.raises(MalformedError):
            await submitter.append(NEW, POLICY)


async def test_waiting_ends_and_what_is_logged_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.client.submit._PUBLISH_WAIT_S", 0)
    log = Translog()
    _accepted(log, early=1_000_000)
    async with submitting(log) as submitter:
        appended = await submitter.append(NEW, POLICY)
    assert appended == [Appended(index=index, receipt=None) for index in range(10, 13)]
    assert log.count(ADD) == 1


@pytest.mark.parametrize("answer", [respond(500), respond(404, b'{"code":"gone"}'), respond(200, b"x" * 2_000_000)])
async def test_a_receipt_that_cannot_be_had_is_an_error_that_names_the_entries(answer: Answer) -> None:
    log = Translog()
    _accepted(log, early=0)
    log.answers["v1/receipts/11"] = answer
    async with submitting(log) as submitter:
        with pytest.raises(RemoteError) as caught:
            await submitter.append(NEW, POLICY)
    assert "the entries 10 to 12 are in the log" in caught.value.hint


# Failures


async def test_an_append_whose_outcome_is_unknown_is_not_repeated() -> None:
    log = Translog()
    log.answers[ADD] = log.close_early
    async with submitting(log) as submitter:
        await unknown_outcome(submitter)
    assert log.count(ADD) == 1


async def test_an_append_that_is_not_answered_is_not_repeated() -> None:
    log = Translog()

    async def hang_up(request: web.Request) -> web.StreamResponse:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    log.answers[ADD] = hang_up
    async with submitting(log) as submitter:
        for tries in (1, 2):
            await unknown_outcome(submitter)
            assert log.count(ADD) == tries


async def test_an_append_that_hangs_is_not_repeated() -> None:
    log = Translog()
    log.answers[ADD] = log.hang
    async with log.serving() as url, Submitter(url, timeout_ms=50) as submitter:
        await unknown_outcome(submitter)
    assert log.count(ADD) == 1


@pytest.mark.parametrize("code", ["pool-full", "not-open", "clock-jumped", "too-many-connections"])
@pytest.mark.parametrize("status", [429, 503])
async def test_an_append_that_was_pushed_back_is_sent_again(code: str, status: int, waits: list[float]) -> None:
    log = Translog()
    body = json.dumps({"code": code}).encode()
    log.answers[ADD] = respond(status, body, headers={"Retry-After": "3"}, times=2, then=log.publish)
    async with submitting(log) as submitter:
        assert len(await submitter.append(NEW, POLICY)) == 3
    assert log.count(ADD) == 3
    assert len(log.bodies) == 1
    assert waits == [3.0, 3.0]


async def test_pushing_back_for_ever_is_given_up() -> None:
    log = Translog()
    log.answers[ADD] = respond(503, b'{"code":"pool-full","detail":"too many"}')
    async with submitting(log) as submitter:
        with pytest.raises(RemoteError) as caught:
            await submitter.append(NEW, POLICY)
    assert caught.value.code == "pool-full"
    assert log.count(ADD) == transport.TRIES_MAX


@pytest.mark.parametrize(
    ("status", "code"), [(503, "read-only"), (400, "x"), (401, "x"), (413, "x"), (429, "x"), (429, "storage")]
)
async def test_refusals_of_an_append_are_not_repeated(status: int, code: str) -> None:
    log = Translog()
    log.answers[ADD] = respond(status, json.dumps({"code": code}).encode())
    async with submitting(log) as submitter:
        with pytest.raises(RemoteError) as caught:
            await submitter.append(NEW, POLICY)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert log.count(ADD) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"code":"storage"}', b'{"code":"outcome-unknown"}', b'{"code":["pool-full"]}']
)
async def test_appends_that_may_have_been_logged_say_so_and_are_not_repeated(status: int, body: bytes) -> None:
    log = Translog()
    log.answers[ADD] = respond(status, body, headers={"Retry-After": "1"})
    async with submitting(log) as submitter:
        assert (await unknown_outcome(submitter)).status == status
    assert log.count(ADD) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_an_append_does_not_follow_redirects(status: int) -> None:
    elsewhere, log = Translog(), Translog()
    async with elsewhere.serving() as url, log.serving() as here, Submitter(here, token="secret") as submitter:
        log.answers[ADD] = respond(status, headers={"Location": f"{url}/{ADD}"})
        with pytest.raises(RemoteError) as caught:
            await submitter.append(NEW, POLICY)
    assert caught.value.status == status
    assert not elsewhere.requests


async def test_nobody_there_is_not_an_unknown_outcome() -> None:
    async with Submitter("http://127.0.0.1:1") as submitter:
        with pytest.raises(RemoteError, match="cannot reach") as caught:
            await submitter.append(NEW, POLICY)
    assert caught.value.code == "remote"


async def test_an_endless_answer_to_an_append_is_cut_off() -> None:
    log = Translog()
    log.answers[ADD] = log.endless
    async with submitting(log) as submitter:
        assert f"more than {3 * (63 * 48 + 64) + 1_000_000} bytes" in (await unknown_outcome(submitter)).detail
    assert log.count(ADD) == 1


# What a log says of itself


def _info(**changes: object) -> bytes:
    document: dict[str, object] = {
        "origin": ORIGIN,
        "vkeys": [str(ED25519.vkey), str(MLDSA44.vkey)],
        "published_size": 1,
        "integrated_size": 2,
        "limits": {"entries_per_request_max": 3, "body_bytes_max": 4},
    }
    return json.dumps({**document, **changes}).encode()


async def _ask(body: bytes) -> object:
    log = Translog()
    log.answers["v1/log"] = respond(200, body)
    async with submitting(log) as submitter:
        return await submitter.info()


async def test_info_is_what_the_log_says() -> None:
    log = Translog()
    log.answers["v1/log"] = respond(200, gzip.compress(_info()), headers={"Content-Encoding": "gzip"})
    async with submitting(log) as submitter:
        info = await submitter.info()
    assert (info.origin, info.vkeys) == (ORIGIN, (ED25519.vkey, MLDSA44.vkey))
    sizes = (info.published_size, info.integrated_size, info.entries_per_request_max, info.body_bytes_max)
    assert sizes == (1, 2, 3, 4)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", _info(limits=None), _info(vkeys=None), _info(published_size="many")])
async def test_info_of_something_else_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteError):
        await _ask(body)


@pytest.mark.parametrize("body", [_info(vkeys=["x"]), _info(vkeys="text"), _info(published_size=float("inf"))])
async def test_info_of_odd_types_is_refused_too(body: bytes) -> None:
    with pytest.raises(RemoteError):
        await _ask(body)


async def test_an_origin_that_is_no_name_is_refused() -> None:
    with pytest.raises(RemoteError):
        await _ask(_info(origin=f"x\nlog {STRANGER.vkey}\n#"))


async def test_keys_of_another_name_than_the_origin_are_refused() -> None:
    with pytest.raises(RemoteError):
        await _ask(_info(origin="log.example/innocent"))


async def test_the_policy_that_a_log_states_is_parsed() -> None:
    text = f"log {MLDSA44.vkey}\nwitness w {WITNESS.vkey} https://w.example/\nquorum w\n"
    info = await _ask(_info(policy=text))
    assert isinstance(info, LogInfo)
    assert info.policy == parse_policy(text.encode())
    info = await _ask(_info())
    assert isinstance(info, LogInfo)
    assert info.policy is None


@pytest.mark.parametrize(
    "policy",
    [
        None,
        7,
        ["quorum none"],
        "",
        "nonsense",
        "quorum none\n\ud800",
        f"log {STRANGER.vkey}\nquorum none\n",
        f"log {ED25519.vkey}\nwitness w {SKey(name='w', type=MLDSA44.type, seed=MLDSA44.seed).vkey}\nquorum w\n",
        f"witness w {SKey(name=ORIGIN, type=MLDSA44.type, seed=bytes(32)).vkey}\nquorum w\n",
    ],
)
async def test_a_stated_policy_that_is_none_or_trusts_another_is_refused(policy: object) -> None:
    with pytest.raises(RemoteError):
        await _ask(_info(policy=policy))
    if policy is not None:  # null is a log that asks nobody to cosign
        with pytest.raises(RemoteError):
            await _ask(_info(policy="quorum none\n", publication_policy=policy))


async def test_checkpoints_and_receipts_are_fetched_by_size_and_index() -> None:
    log = Translog()
    log.answers["checkpoint"] = log.answers["v1/checkpoint"] = respond(200, b"note")
    log.answers["v1/receipts/5"] = respond(200, b"receipt")
    async with submitting(log) as submitter:
        assert await submitter.checkpoint() == b"note"
        assert await submitter.checkpoint(size=7) == b"note"
        assert await submitter.receipt(5) == b"receipt"
    assert [request.path_qs for request in log.requests] == ["/checkpoint", "/v1/checkpoint?size=7", "/v1/receipts/5"]
