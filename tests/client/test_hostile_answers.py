"""Answers that are made to harm: what they say is escaped, what they weigh is bounded, what they withhold is told."""

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from client.simulator import POLICY, Answer, respond
from client.test_submit import ADD, NEW, Translog, submitting
from translog.client.submit import _RESULT_BYTES_MAX, Submitter
from translog.core.note import NOTE_BYTES_MAX
from translog.core.proof import PROOF_HASHES_MAX
from translog.core.wire import SIZE_MAX, encode_base64
from translog.errors import RemoteError

EVIL = "\x1b]0;title\x07\x1b[2J\r\ngone \x9b31m \u202egnp\u2028\x7f \ud800end"
LATER = "v1/receipts/"


def require_harmless(error: RemoteError) -> None:
    assert "end" in error.detail
    for text in (error.detail, error.hint, error.code):
        assert text.isprintable()
        text.encode()


# What is said


@pytest.mark.parametrize("status", [403, 500])
async def test_what_a_refusal_says_is_escaped(status: int) -> None:
    log = Translog()
    body = json.dumps({"code": EVIL, "detail": EVIL, "hint": EVIL}).encode()
    log.answers = {ADD: respond(status, body), "v1/log": respond(status, body)}
    async with submitting(log) as submitter:
        with pytest.raises(RemoteError) as caught:
            await submitter.append(NEW, POLICY)
        require_harmless(caught.value)
        with pytest.raises(RemoteError) as caught:
            await submitter.info()
        require_harmless(caught.value)


async def test_plain_words_of_a_refusal_stay_as_they_are() -> None:
    log = Translog()
    log.answers["v1/log"] = respond(403, json.dumps({"detail": "it's “Zürich”, 日本", "hint": 'say "please"'}).encode())
    async with submitting(log) as submitter:
        with pytest.raises(RemoteError) as caught:
            await submitter.info()
    assert caught.value.detail.endswith("answers 403: it's “Zürich”, 日本")
    assert caught.value.hint == 'say "please"'


async def _speaks_raw(answer: bytes) -> RemoteError:
    """What comes of an answer that is no HTTP library's."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server, Submitter(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as submitter:
        with pytest.raises(RemoteError) as caught:
            await submitter.info()
    return caught.value


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: http://x/\x1b[2J\xc2\x9b31m\xe2\x80\xae end\r\n\r\n",
        b"HTTP/1.1 \x1b[2J\xc2\x9b31m end\r\n\r\n",
        b"\x1b[2J end\nof it\r\n\r\n",
    ],
)
async def test_what_is_wrong_with_http_is_told_escaped(answer: bytes) -> None:
    error = await _speaks_raw(answer)
    assert error.detail.isprintable()
    assert error.hint.isprintable()


# What it weighs


async def test_an_answer_may_weigh_what_its_batch_can_need() -> None:
    log = Translog()
    limit = len(NEW) * _RESULT_BYTES_MAX + NOTE_BYTES_MAX
    log.answers[ADD] = respond(200, b" " * (limit + 1))
    async with submitting(log) as submitter:
        with pytest.raises(RemoteError, match=f"more than {limit} bytes") as caught:
            await submitter.append(NEW, POLICY)
    assert caught.value.code == "outcome-unknown"


def test_the_longest_honest_result_fits() -> None:
    proof = [encode_base64(bytes(32))] * PROOF_HASHES_MAX
    result = json.dumps({"index": SIZE_MAX, "receipt": None, "proof": proof}, separators=(",", ":"))
    assert len(result + ",") <= _RESULT_BYTES_MAX


# What it withholds


def accepted(log: Translog, receipts: Callable[[int], Answer]) -> None:
    """The log answers 202, and for each receipt what `receipts` gives."""
    document: dict[str, Any] = {"first": 10, "count": 3, "results": [], "checkpoint": None}
    log.answers[ADD] = respond(202, json.dumps(document).encode())
    for index in range(10, 13):
        log.answers[f"{LATER}{index}"] = receipts(index)


NOT_YET = respond(404, b'{"code":"not-published"}')


@pytest.mark.parametrize(("status", "code"), [(500, ""), (403, "x"), (404, "not-found"), (410, "")])
async def test_receipts_refused_for_any_other_reason_are_an_error_that_names_the_entries(status: int, code: str) -> None:
    log = Translog()
    accepted(log, lambda index: respond(status, json.dumps({"code": code, "hint": "ask"}).encode()))
    async with submitting(log) as submitter:
        with pytest.raises(RemoteError) as caught:
            await submitter.append(NEW, POLICY)
    assert caught.value.status == status
    assert caught.value.hint.startswith("ask; the entries 10 to 12 are in the log")


async def test_the_last_receipt_is_waited_for_and_the_others_are_fetched_once() -> None:
    log = Translog()
    accepted(log, lambda index: respond(200, log.receipt(index)))
    log.answers[f"{LATER}12"] = respond(404, b'{"code":"not-published"}', times=3, then=respond(200, log.receipt(12)))
    async with submitting(log) as submitter:
        appended = await submitter.append(NEW, POLICY)
    asked = [request.path.rpartition("/")[2] for request in log.requests[1:]]
    assert asked == ["12", "12", "12", "12", "10", "11"]
    assert [(one.index, one.receipt) for one in appended] == [(index, log.receipt(index)) for index in range(10, 13)]


async def test_a_batch_is_waited_for_as_long_as_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += 10

    fake = SimpleNamespace(get_running_loop=lambda: SimpleNamespace(time=lambda: clock[0]), sleep=sleep)
    monkeypatch.setattr("translog.client.submit.asyncio", fake)
    log = Translog()
    accepted(log, lambda index: NOT_YET)
    async with submitting(log) as submitter:
        appended = await submitter.append(NEW, POLICY)
    assert [(one.index, one.receipt) for one in appended] == [(10, None), (11, None), (12, None)]
    assert [log.count(f"{LATER}{index}") for index in range(10, 13)] == [1, 1, 7]
    assert clock == [60.0]
