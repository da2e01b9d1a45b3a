"""RemoteWitness: an answer becomes lines, a size, or an error that says whose turn it is; nothing a witness does harms."""

import asyncio
import gzip
import json
import socket
import ssl
import time
import tracemalloc
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from core.merkle_oracle import Oracle
from server.certificates import Authority
from server.harness import until

from client import simulator
from client.simulator import entries_of, sign_head
from client.test_hostile_answers import EVIL, require_harmless
from client.witness_stub import (
    ED25519,
    MLDSA44,
    NAME,
    SIZE_HEADER,
    Act,
    WitnessStub,
    answer,
    drop,
    endless,
    format_lines,
    hang,
    late,
    raw,
    signed_at,
    zipped,
)
from translog.client.witness import RemoteWitness
from translog.core.cosignature import KeyVerifier, signature_time
from translog.core.keys import VKey
from translog.core.note import NOTE_BYTES_MAX, Signature, format_note, parse_note
from translog.core.wire import SIZE_MAX, encode_base64
from translog.errors import MalformedError, OldSizeError, RemoteError, SignatureError
from translog.witness.protocol import ANSWER_BYTES_MAX, AddCheckpoint, format_add_checkpoint, parse_add_checkpoint

ORACLE = Oracle(entries_of(20))
PATIENCE_MS = 10_000
"""For what must not take long."""
SHORT_MS = 200
"""For what must end by the timeout."""


def note_of(size: int, *, origin: str = simulator.ORIGIN) -> bytes:
    return sign_head(size, ORACLE.mth(0, size), origin=origin)


NOTE = note_of(7)


@asynccontextmanager
async def asking(stub: WitnessStub, *, timeout_ms: int = PATIENCE_MS, prefix: str = "") -> AsyncIterator[RemoteWitness]:
    async with stub.serving(prefix=prefix) as url, RemoteWitness(url, timeout_ms=timeout_ms) as remote:
        yield remote


async def ask(remote: RemoteWitness, *, old: int = 0, size: int = 7) -> tuple[Signature, ...]:
    proof = ORACLE.proof(old, 0, size) if 0 < old < size else []
    return await remote.add_checkpoint(old=old, proof=proof, note=note_of(size))


async def failure(act: Act, *, timeout_ms: int = PATIENCE_MS) -> RemoteError:
    """What comes of one request that is answered so. Nothing is tried again."""
    stub = WitnessStub(always=act)
    async with asking(stub, timeout_ms=timeout_ms) as remote:
        with pytest.raises(RemoteError) as caught:
            await ask(remote)
    assert len(stub.requests) == 1
    assert caught.value.detail.startswith(f"the witness at {remote.url} ")
    return caught.value


def require_signed(note: bytes, signatures: tuple[Signature, ...], vkeys: list[VKey]) -> None:
    assert [(s.name, s.key_id) for s in signatures] == [(vkey.name, vkey.key_id) for vkey in vkeys]
    for vkey, signature in zip(vkeys, signatures, strict=True):
        KeyVerifier(vkey).verify(parse_note(note).text, signature.payload)


# What is asked and answered


async def test_lines_of_every_key_of_the_witness_come_back_as_they_were_signed() -> None:
    stub = WitnessStub(skeys=(ED25519, MLDSA44))
    async with asking(stub) as remote:
        require_signed(NOTE, await ask(remote), stub.vkeys)
        require_signed(note_of(11), await ask(remote, old=7, size=11), stub.vkeys)
        require_signed(note_of(11), await ask(remote, old=11, size=11), stub.vkeys)


@pytest.mark.parametrize("prefix", ["", "/", "/w/1", "/w/1/"])
async def test_a_request_is_the_bytes_of_the_specification_below_the_prefix(prefix: str) -> None:
    stub = WitnessStub()
    stub.cosigned[simulator.ORIGIN] = (5, ORACLE.mth(0, 5), b"")
    async with asking(stub, prefix=prefix) as remote:
        await ask(remote, old=5, size=7)
    (asked,) = stub.requests
    proof = tuple(ORACLE.proof(5, 0, 7))
    lines = ["old 5", *map(encode_base64, proof), "", ""]
    assert asked.body == "\n".join(lines).encode() + NOTE
    assert parse_add_checkpoint(asked.body) == AddCheckpoint(old=5, proof=proof, note=NOTE)
    assert (asked.method, asked.target) == ("POST", f"{prefix.rstrip('/')}/add-checkpoint")
    assert asked.headers["accept-encoding"] == "gzip, identity"
    assert not {"authorization", "cookie", "transfer-encoding", "expect"} & set(asked.headers)


async def test_what_no_request_can_hold_is_not_sent() -> None:
    stub = WitnessStub()
    async with asking(stub) as remote:
        for proof, note in ((64 * [bytes(32)], NOTE), ([bytes(31)], NOTE), ([], bytes(128 * 1024)), ([], b"")):
            with pytest.raises(MalformedError):
                await remote.add_checkpoint(old=1, proof=proof, note=note)
    assert stub.requests == []


@pytest.mark.parametrize("size", [1, 8, SIZE_MAX])
@pytest.mark.parametrize(
    "media", ["text/x.tlog.size", "text/x.tlog.size; charset=utf-8", "text/x.tlog.size;x", "Text/X.TLog.Size "]
)
async def test_a_conflict_with_its_media_type_says_which_size_the_witness_has(size: int, media: str) -> None:
    async with asking(WitnessStub(always=answer(409, b"%d\n" % size, ("Content-Type", media)))) as remote:
        with pytest.raises(OldSizeError) as caught:
            await ask(remote)
    assert (caught.value.size, caught.value.code) == (size, "old-size")
    assert f"cosigned size {size} last, not 0" in caught.value.detail


async def test_a_witness_that_never_cosigned_says_zero() -> None:
    async with asking(WitnessStub()) as remote:
        with pytest.raises(OldSizeError) as caught:
            await ask(remote, old=3)
        assert caught.value.size == 0
        assert len(await ask(remote, old=caught.value.size)) == 1


async def test_lines_of_others_and_times_to_come_are_passed_on_unverified() -> None:
    far = int(time.time()) + 10**9
    stub = WitnessStub(plan=deque([signed_at(far), signed_at(SIZE_MAX)]))
    async with asking(stub) as remote:
        for time_s in (far, SIZE_MAX):
            (signature,) = await ask(remote)
            assert signature_time(stub.vkeys[0], signature.payload) == time_s
        foreign = Signature(name="another.example", key_id=b"abcd", payload=b"\0" * 8 + b"no signature")
        forged = Signature(name=NAME, key_id=ED25519.vkey.key_id, payload=bytes(72))
        stub.always = answer(200, format_lines((foreign, forged)))
        assert await ask(remote) == (foreign, forged)
        with pytest.raises(SignatureError):
            KeyVerifier(ED25519.vkey).verify(parse_note(NOTE).text, forged.payload)


@pytest.mark.parametrize(
    "headers", [(), ("text/html",), ("application/json",), ("text/x.tlog.size",), ("text/plain", "text/html")]
)
async def test_the_type_of_an_answer_with_lines_does_not_matter(headers: tuple[str, ...]) -> None:
    stub = WitnessStub()
    stub.always = answer(200, format_lines(stub.sign(NOTE)), *(("Content-Type", value) for value in headers))
    async with asking(stub) as remote:
        require_signed(NOTE, await ask(remote), stub.vkeys)


async def test_compressed_answers_are_read() -> None:
    stub = WitnessStub()
    stub.always = answer(200, gzip.compress(format_lines(stub.sign(NOTE))), ("Content-Encoding", "gzip"))
    async with asking(stub) as remote:
        require_signed(NOTE, await ask(remote), stub.vkeys)


async def test_chunked_answers_are_read_and_what_comes_before_the_answer_is_skipped() -> None:
    stub = WitnessStub()
    lines = format_lines(stub.sign(NOTE))
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (9, lines[:9])
    stub.always = raw(early, head, b"%x\r\n%s\r\n0\r\n\r\n" % (len(lines) - 9, lines[9:]), every_s=0.01)
    async with asking(stub) as remote:
        require_signed(NOTE, await ask(remote), stub.vkeys)
        await ask(remote)
    assert stub.connections == 1


# What no witness answers


GOOD = format_lines(WitnessStub().sign(NOTE, time_s=1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"ok\n",
        b"<!doctype html>\n<p>It works!</p>\n",
        GOOD[:-1],
        GOOD[:-1] + b"\r\n",
        GOOD + b"\n",
        b"\n" + GOOD,
        GOOD + b"trailing",
        GOOD * 17,
        b"\xff\xfe\n",
        GOOD.replace(b"\xe2\x80\x94", b"-"),
        GOOD.replace(b"=", b""),
        format_note(parse_note(NOTE).text, WitnessStub().sign(NOTE, time_s=1)),
        b"12\n",
    ],
)
async def test_what_are_no_signature_lines_is_an_odd_answer(body: bytes) -> None:
    error = await failure(answer(200, body))
    assert (error.code, error.status) == ("witness-answer", 200)
    assert "no signature lines" in error.detail
    assert "/add-checkpoint at its end" in error.hint


@pytest.mark.parametrize(
    ("media", "body"),
    [
        (None, b"12\n"),
        ("text/plain", b"12\n"),
        ("text/x.tlog.size.evil", b"12\n"),
        ("xtext/x.tlog.size", b"12\n"),
        ("text/x.tlog.size, text/plain", b"12\n"),
        ("text/x.tlog.mirror-info", b"12\n"),
        ("text/x.tlog.size", b""),
        ("text/x.tlog.size", b"12"),
        ("text/x.tlog.size", b"12\r\n"),
        ("text/x.tlog.size", b"012\n"),
        ("text/x.tlog.size", b"+12\n"),
        ("text/x.tlog.size", b"-1\n"),
        ("text/x.tlog.size", b" 12\n"),
        ("text/x.tlog.size", b"1_2\n"),
        ("text/x.tlog.size", "١٢\n".encode()),
        ("text/x.tlog.size", b"12\n12\n"),
        ("text/x.tlog.size", b"12\n\n"),
        ("text/x.tlog.size", b"9223372036854775808\n"),
        ("text/x.tlog.size", b"9" * 5_000 + b"\n"),
        ("text/x.tlog.size", b"12\n" + b"x" * 5_000),
    ],
)
async def test_a_conflict_of_any_other_form_is_no_size(media: str | None, body: bytes) -> None:
    error = await failure(answer(409, body, *([] if media is None else [("Content-Type", media)])))
    assert (error.code, error.status) == ("witness-answer", 409)
    assert error.hint


async def test_a_conflict_with_two_content_types_is_no_size() -> None:
    error = await failure(answer(409, b"12\n", SIZE_HEADER, ("Content-Type", "text/plain")))
    assert (error.code, error.status) == ("witness-answer", 409)


async def test_a_conflict_with_the_size_that_was_asked_for_leads_nobody_into_a_loop() -> None:
    async with asking(WitnessStub(always=answer(409, b"5\n", SIZE_HEADER))) as remote:
        with pytest.raises(RemoteError) as caught:
            await ask(remote, old=5)
        with pytest.raises(OldSizeError):
            await ask(remote, old=4)
    assert (caught.value.code, caught.value.status) == ("witness-refused", 409)
    assert "another root" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (400, "witness-refused", "malformed"),
        (401, "witness-refused", "refuses"),
        (403, "witness-refused", "signature"),
        (404, "witness-unknown-log", "does not know this log"),
        (405, "witness-refused", "refuses"),
        (410, "witness-refused", "refuses"),
        (413, "witness-refused", "too large"),
        (422, "witness-refused", "does not continue"),
        (429, "witness-pushback", "no time"),
        (500, "witness-failed", "failed"),
        (501, "witness-failed", "failed"),
        (502, "witness-failed", "failed"),
        (503, "witness-pushback", "no time"),
        (504, "witness-failed", "failed"),
        (599, "witness-failed", "failed"),
        (202, "witness-answer", "no witness"),
        (206, "witness-answer", "no witness"),
        (600, "witness-failed", "failed"),
    ],
)
async def test_every_refusal_has_a_code_and_tells_status_and_reason(status: int, code: str, word: str) -> None:
    error = await failure(answer(status, b"because of that\n"))
    assert (error.code, error.status, error.retry_after_ms) == (code, status, None)
    assert f"({status}: because of that)" in error.detail
    assert word in error.detail


async def test_an_answer_without_a_body_has_no_reason() -> None:
    assert "(404: no reason given)" in (await failure(answer(404))).detail
    assert "(204: no reason given)" in (await failure(raw(b"HTTP/1.1 204 No Content\r\n\r\n"))).detail


async def test_refusals_say_what_to_do_where_it_is_not_plain() -> None:
    assert "add the log's origin and keys" in (await failure(answer(404))).hint
    assert "a log that they do not know" in (await failure(answer(403))).hint
    assert "two histories" in (await failure(answer(422))).hint


async def test_the_sentences_of_a_problem_document_are_the_reason() -> None:
    problem = {"code": "unknown-log", "detail": "no such log", "hint": "ask for it", "status": 404}
    assert "(404: no such log ask for it)" in (await failure(answer(404, json.dumps(problem).encode()))).detail
    for odd in (b'{"detail": 5}', b'{"detail"', b"[1]", b'{"x":' * 15_000):
        assert f"(404: {odd[:9].decode()}" in (await failure(answer(404, odd))).detail


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_told_and_not_followed(status: int) -> None:
    other = WitnessStub()
    async with other.serving() as target:
        error = await failure(answer(status, b"", ("Location", f"{target}/add-checkpoint")))
    assert (error.code, error.status) == ("witness-answer", status)
    assert f"'{target}/add-checkpoint'" in error.hint
    assert other.connections == 0


@pytest.mark.parametrize("status", [429, 503, 500])
@pytest.mark.parametrize(
    ("value", "ms"),
    [("7", 7_000), ("0", 0), ("86401", 86_400_000), ("99999999999999", 86_400_000), ("soon", None), ("-1", None)],
)
async def test_retry_after_is_passed_on_up_to_a_day(status: int, value: str, ms: int | None) -> None:
    assert (await failure(answer(status, b"", ("retry-after", value)))).retry_after_ms == ms


async def test_retry_after_may_be_a_date() -> None:
    async def wait_ms(seconds: int) -> int | None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        return (await failure(answer(429, b"", ("Retry-After", date)))).retry_after_ms

    assert 50_000 < (await wait_ms(60) or 0) <= 60_000
    assert await wait_ms(10**7) == 86_400_000
    assert await wait_ms(-60) is None


# What is said


@pytest.mark.parametrize("status", [202, 400, 403, 404, 409, 422, 429, 500])
@pytest.mark.parametrize("form", ["text", "problem"])
async def test_what_a_witness_says_is_escaped(status: int, form: str) -> None:
    body = EVIL.encode("utf-8", "surrogatepass") if form == "text" else json.dumps({"detail": EVIL}).encode()
    require_harmless(await failure(answer(status, body)))


async def test_evil_in_every_other_place_is_escaped() -> None:
    said = EVIL.encode("utf-8", "surrogatepass")
    for act in (
        answer(200, said + b"\n"),
        answer(200, b"\xe2\x80\x94 \xe2\x80\xaename AAAAAAAA!\n"),
        answer(409, said + b"\n", SIZE_HEADER),
        raw(b"HTTP/1.1 302 Found\r\nLocation: http://x/\x1b[2J\r\nContent-Length: 0\r\n\r\n"),
        raw(b"HTTP/1.1 400 \x1b[2J\xff\r\nContent-Length: 0\r\n\r\n"),
        raw(said + b"\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: \xe2\x80\xae\r\nContent-Length: 1\r\n\r\nx"),
    ):
        error = await failure(act)
        for text in (error.detail, error.hint, error.code):
            assert text.isprintable()
            text.encode()
        assert len(error.detail) < 4_000


# What never ends, weighs too much, or breaks off


@pytest.mark.parametrize(
    "act",
    [
        hang,
        raw(b"HTTP/1.1 200 OK\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\xe2\x80\x94"),
        raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nno"),
        endless(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", part=b"x", every_s=0.02),
        endless(b"HTTP/1.1 200 OK\r\nX-Slow: ", part=b"x", every_s=0.02),
        endless(part=b"HTTP/1.1 100 Continue\r\n\r\n", every_s=0.001),
        late(5.0),
    ],
)
async def test_an_answer_that_is_not_complete_in_time_is_none(act: Act) -> None:
    begin = time.monotonic()
    error = await failure(act, timeout_ms=SHORT_MS)
    assert SHORT_MS / 1000 <= time.monotonic() - begin < 2.0
    assert (error.code, error.status) == ("witness-no-answer", None)
    assert f"within {SHORT_MS} ms" in error.detail


async def test_a_witness_that_does_not_read_is_given_up_in_time() -> None:
    """Its buffers are small, so that most of the request cannot be sent while its answer has begun."""
    big = format_note(parse_note(NOTE).text, [Signature(name="x.example", key_id=b"abcd", payload=bytes(90_000))])
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        async with RemoteWitness(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_ms=SHORT_MS) as remote:
            begin = time.monotonic()
            asked = asyncio.create_task(remote.add_checkpoint(old=0, proof=[], note=big))
            taken, _ = await asyncio.get_running_loop().sock_accept(listener)
            with taken:
                await asyncio.get_running_loop().sock_sendall(taken, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
                with pytest.raises(RemoteError) as caught:
                    await asked
    assert time.monotonic() - begin < 2.0
    assert caught.value.code == "witness-no-answer"


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "act",
    [
        endless(HEAD + b"Connection: close\r\n\r\n"),
        endless(HEAD + b"Content-Length: 9000000000000000000\r\n\r\n"),
        endless(CHUNKED, part=b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
        answer(200, b"x" * (ANSWER_BYTES_MAX + 1)),
        answer(409, b"1" * (ANSWER_BYTES_MAX + 1), SIZE_HEADER),
        zipped(100_000_000),
        zipped(ANSWER_BYTES_MAX + 1),
    ],
)
async def test_a_body_without_end_is_not_read_for_long(act: Act) -> None:
    stub = WitnessStub(always=act)
    async with asking(stub) as remote:
        tracemalloc.start()
        begin = time.monotonic()
        with pytest.raises(RemoteError) as caught:
            await ask(remote)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert caught.value.code == "witness-answer"
    assert f"more than {ANSWER_BYTES_MAX} bytes" in caught.value.detail
    assert time.monotonic() - begin < 2.0
    assert peak < 8_000_000
    assert stub.bytes_sent < 32_000_000


async def test_an_answer_of_the_greatest_length_is_read() -> None:
    long = Signature(name="x.example", key_id=b"abcd", payload=bytes(3_000))
    lines = format_lines((long,) * 16)
    last = Signature(
        name="y" * (ANSWER_BYTES_MAX - len(lines) - len(format_lines((long,))) + 9 + len(lines) // 16),
        key_id=b"abcd",
        payload=bytes(3_000),
    )
    body = format_lines((long,) * 15 + (last,))
    assert len(body) == ANSWER_BYTES_MAX
    async with asking(WitnessStub(always=answer(200, body))) as remote:
        assert len(await ask(remote)) == 16


@pytest.mark.parametrize(
    "act",
    [
        answer(404, b"<p>" * 400_000),
        endless(b"HTTP/1.1 404 Not Found\r\n\r\n", part=b"<p>" * 9_000),
        raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 90000\r\n\r\n" + b"x" * 17_000),
    ],
)
async def test_a_refusal_with_a_long_page_is_still_that_refusal(act: Act) -> None:
    error = await failure(act)
    assert (error.code, error.status) == ("witness-unknown-log", 404)
    assert len(error.detail) < 1_000


@pytest.mark.parametrize(
    "act",
    [
        endless(HEAD, part=b"X-Header: and another one\r\n"),
        endless(HEAD + b"X-Long: "),
        raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
        raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x10\x00\x00\x00\x06\x00\x00\x40\x00"),
        raw(HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345"),
        raw(HEAD + b"Content-Length: -5\r\n\r\n12345"),
        raw(HEAD + b"no header\r\n\r\n"),
        raw(CHUNKED + b"zz\r\n"),
        raw(b"HTTP/9.9 abc\r\n\r\n"),
    ],
)
async def test_what_is_no_http_is_told_as_such(act: Act) -> None:
    error = await failure(act)
    assert (error.code, error.status) == ("witness-answer", None)
    assert "no HTTP/1.1" in error.detail
    assert "HTTP/2 only" in error.hint


@pytest.mark.parametrize("act", [drop, raw(end="reset"), raw(HEAD, end="close"), raw(HEAD, end="reset")])
async def test_a_connection_that_ends_before_the_answer_is_no_answer(act: Act) -> None:
    error = await failure(act)
    assert (error.code, error.status) == ("witness-no-answer", None)
    assert "ended the connection" in error.detail
    assert error.detail.isprintable()


@pytest.mark.parametrize(
    "act",
    [
        raw(HEAD + b"Content-Length: 100\r\n\r\nhalf", end="close"),
        raw(HEAD + b"Content-Length: 100\r\n\r\n", b"half", end="reset", every_s=0.02),
        raw(CHUNKED + b"5\r\nhel", end="close"),
        answer(200, b"not gzip", ("Content-Encoding", "gzip")),
    ],
)
async def test_a_body_that_breaks_off_is_no_answer(act: Act) -> None:
    error = await failure(act)
    assert (error.code, error.status) == ("witness-no-answer", None)
    assert error.detail.isprintable()


async def test_a_body_that_cannot_be_read_is_told_from_a_connection_that_ended() -> None:
    for act in (raw(HEAD + b"Content-Length: 9\r\n\r\nx", end="close"), answer(200, b"not gzip", ("Content-Encoding", "gzip"))):
        assert "cannot be read to its end" in (await failure(act)).detail


# Who is not there


async def _unreachable(url: str) -> RemoteError:
    async with RemoteWitness(url, timeout_ms=PATIENCE_MS) as remote:
        with pytest.raises(RemoteError) as caught:
            await ask(remote)
    assert (caught.value.code, caught.value.status) == ("witness-unreachable", None)
    return caught.value


async def test_a_closed_port_and_an_unknown_host_are_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = await _unreachable(f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "is it running" in error.hint
    for host in ("witness.invalid", "a" * 64 + ".invalid", "a..b", "%00"):
        assert "is the URL in the policy right" in (await _unreachable(f"http://{host}")).hint


def _context(folder: Path, authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue().write(folder, "witness"))
    return context


async def test_a_certificate_that_is_not_trusted_is_no_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, stub = Authority("test authority"), WitnessStub()
    async with stub.serving(context=_context(tmp_path, authority)) as url:
        assert "certificate" in (await _unreachable(url)).hint
        assert stub.requests == []
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", authority.client())
        async with RemoteWitness(url, timeout_ms=PATIENCE_MS) as remote:
            require_signed(NOTE, await ask(remote), stub.vkeys)
        assert "certificate" in (await _unreachable(url.replace("127.0.0.1", "localhost"))).hint


async def test_http_and_https_the_wrong_way_round_are_told(tmp_path: Path) -> None:
    async with WitnessStub().serving() as url:
        assert "https port" in (await _unreachable(url.replace("http:", "https:"))).hint
    async with (
        WitnessStub().serving(context=_context(tmp_path, Authority("a"))) as url,
        RemoteWitness(url.replace("https:", "http:"), timeout_ms=PATIENCE_MS) as remote,
    ):
        with pytest.raises(RemoteError) as caught:
            await ask(remote)
    assert caught.value.code in ("witness-answer", "witness-no-answer")


async def test_before_it_is_opened_it_says_so() -> None:
    with pytest.raises(RemoteError, match="not open"):
        await ask(RemoteWitness("http://127.0.0.1:1", timeout_ms=PATIENCE_MS))


# Connections


async def test_one_connection_is_kept_for_call_after_call() -> None:
    stub = WitnessStub(plan=deque([answer(429), answer(404, b"x" * 9_000), answer(409, b"3\n", SIZE_HEADER), answer(302)]))
    async with asking(stub) as remote:
        for _ in range(4):
            with pytest.raises((RemoteError, OldSizeError)):
                await ask(remote)
        await ask(remote)
        for _ in range(20):
            await ask(remote, old=7)
            assert await remote.latest(simulator.ORIGIN) is not None
    assert {asked.connection for asked in stub.requests} == {1}
    assert (stub.connections, len(stub.requests)) == (1, 45)


async def test_a_connection_closed_while_it_was_idle_costs_no_call() -> None:
    stub = WitnessStub()
    async with asking(stub) as remote:
        await ask(remote)
        for act in (drop, raw(end="reset")):
            stub.plan.append(act)
            require_signed(NOTE, await ask(remote, old=7), stub.vkeys)
    assert [asked.connection for asked in stub.requests] == [1, 1, 2, 2, 3]
    assert stub.requests[1].body == stub.requests[2].body


async def test_what_is_closed_twice_is_not_tried_a_third_time() -> None:
    stub = WitnessStub()
    async with asking(stub) as remote:
        await ask(remote)
        stub.plan.extend([drop, drop])
        with pytest.raises(RemoteError) as caught:
            await ask(remote, old=7)
    assert caught.value.code == "witness-no-answer"
    assert len(stub.requests) == 3


async def test_an_answer_that_broke_off_on_a_kept_connection_is_not_asked_for_again() -> None:
    stub = WitnessStub()
    async with asking(stub) as remote:
        await ask(remote)
        stub.plan.append(raw(HEAD + b"Content-Length: 100\r\n\r\nhalf", end="close"))
        with pytest.raises(RemoteError):
            await ask(remote, old=7)
    assert len(stub.requests) == 2


async def test_repeating_takes_no_longer_than_the_timeout() -> None:
    stub = WitnessStub()
    async with asking(stub, timeout_ms=SHORT_MS) as remote:
        await ask(remote)
        stub.plan.extend([late(0.15, drop), hang])
        begin = time.monotonic()
        with pytest.raises(RemoteError) as caught:
            await ask(remote, old=7)
    assert time.monotonic() - begin < 0.15 + SHORT_MS / 1000
    assert caught.value.code == "witness-no-answer"
    assert len(stub.requests) == 3


@pytest.mark.parametrize(
    "act", [hang, answer(200, b"x" * 2_000_000), endless(HEAD + b"\r\n"), raw(HEAD + b"Content-Length: 9\r\n\r\n")]
)
async def test_after_a_bad_answer_the_next_call_gets_its_own(act: Act) -> None:
    stub = WitnessStub(plan=deque([act]))
    async with asking(stub, timeout_ms=SHORT_MS) as remote:
        with pytest.raises(RemoteError):
            await ask(remote)
        require_signed(NOTE, await ask(remote), stub.vkeys)
    assert stub.connections == 2


async def test_bytes_after_an_answer_do_not_become_the_next_one() -> None:
    stub = WitnessStub()
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
    good = format_lines(stub.sign(NOTE))
    stub.plan.append(raw(HEAD + b"Content-Length: %d\r\n\r\n%s%s" % (len(good), good, forged)))
    async with asking(stub) as remote:
        require_signed(NOTE, await ask(remote), stub.vkeys)
        await asyncio.sleep(0.02)
        require_signed(NOTE, await ask(remote), stub.vkeys)


async def test_a_cancelled_call_leaves_nothing_behind() -> None:
    stub = WitnessStub(plan=deque([hang]))
    async with asking(stub) as remote:
        asked = asyncio.create_task(ask(remote))
        await until(lambda: bool(stub.requests))
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        require_signed(NOTE, await ask(remote), stub.vkeys)
    assert stub.connections == 2


async def test_a_hundred_calls_at_once_each_get_their_own_answer_over_few_connections() -> None:
    stub = WitnessStub(always=late(0.005))
    notes = [note_of(7, origin=f"log.example/{number}") for number in range(100)]
    async with asking(stub) as remote:
        found = await asyncio.gather(*(remote.add_checkpoint(old=0, proof=[], note=note) for note in notes))
    for note, signatures in zip(notes, found, strict=True):
        require_signed(note, signatures, stub.vkeys)
    assert len(stub.requests) == 100
    assert 1 < stub.connections <= 8


async def test_cookies_are_not_kept() -> None:
    stub = WitnessStub(plan=deque([answer(404, b"", ("Set-Cookie", "a=b; Path=/"))]))
    async with asking(stub) as remote:
        with pytest.raises(RemoteError):
            await ask(remote)
        await ask(remote)
    assert "cookie" not in stub.requests[1].headers


# What it cosigned last


async def test_the_last_checkpoint_is_found_by_the_hash_of_the_origin() -> None:
    stub = WitnessStub()
    async with asking(stub, prefix="/w") as remote:
        assert await remote.latest(simulator.ORIGIN) is None
        signatures = await ask(remote)
        parsed = parse_note(NOTE)
        assert await remote.latest(simulator.ORIGIN) == format_note(parsed.text, parsed.signatures + signatures)
        assert await remote.latest("log.example/other") is None
    assert stub.requests[0].target == f"/w/{sha256(simulator.ORIGIN.encode()).hexdigest()}/checkpoint"
    assert stub.requests[0].method == "GET"


async def test_what_is_served_as_the_last_checkpoint_is_passed_on_and_bounded() -> None:
    stub = WitnessStub(plan=deque([answer(200, b"x" * NOTE_BYTES_MAX), answer(200, b"x" * (NOTE_BYTES_MAX + 1))]))
    async with asking(stub) as remote:
        assert await remote.latest(simulator.ORIGIN) == b"x" * NOTE_BYTES_MAX
        with pytest.raises(RemoteError) as caught:
            await remote.latest(simulator.ORIGIN)
    assert caught.value.code == "witness-answer"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "witness-refused"),
        (409, "witness-refused"),
        (429, "witness-pushback"),
        (500, "witness-failed"),
        (301, "witness-answer"),
    ],
)
async def test_a_witness_that_does_not_show_its_checkpoints_says_so_once(status: int, code: str) -> None:
    stub = WitnessStub(always=answer(status, b"no", ("Retry-After", "3")))
    async with asking(stub) as remote:
        with pytest.raises(RemoteError) as caught:
            await remote.latest(simulator.ORIGIN)
    assert (caught.value.code, caught.value.status, caught.value.retry_after_ms) == (code, status, 3_000)
    assert "signature" not in caught.value.detail
    assert len(stub.requests) == 1


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "",
        "witness.example",
        "ftp://witness.example",
        "file:///etc/passwd",
        "http://",
        "http:///add-checkpoint",
        "https://witness.example?x=1",
        "https://witness.example/#part",
        "https://witness.example:70000",
        "https://witness.example:port",
        "https://[::1",
        "https://witness .example",
        "https://witness.example/\n",
        "https://witness.example/\x1b[2J",
        "https:\\\\witness.example",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_url_of_a_witness_is_refused(url: str) -> None:
    with pytest.raises(MalformedError) as caught:
        RemoteWitness(url, timeout_ms=1)
    assert caught.value.detail.isprintable()
    assert "http or https" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["http://alice:secret@witness.example", "https://secret@witness.example/w", "https://:@w.example"]
)
def test_a_url_with_a_user_in_it_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(MalformedError) as caught:
        RemoteWitness(url, timeout_ms=1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://w.example", "HTTPS://w.example:8443/a/b//", "http://[::1]:80/", "https://ü.example", "http://w.example/~x@y"],
)
def test_other_urls_are_taken_without_their_last_slashes(url: str) -> None:
    assert RemoteWitness(url, timeout_ms=1).url == url.rstrip("/")


def test_requests_are_formatted_by_the_protocol() -> None:
    assert format_add_checkpoint(AddCheckpoint(old=0, proof=(), note=NOTE)).startswith(b"old 0\n\n")
