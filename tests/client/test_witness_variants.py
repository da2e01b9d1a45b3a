"""What deployed witnesses answer, byte for byte as their programs write it, and what RemoteWitness makes of it.

Read from the programs' sources of 2025 and 2026: litewitness and litebastion (torchwood), sunlight, omniwitness
(transparency-dev/witness), sigsum-go, azul's witness_worker; and what stands in front of them. `older` is before mid-2025.
"""

from collections import deque
from dataclasses import dataclass

import pytest
from core.merkle_oracle import Oracle

from client import simulator
from client.simulator import entries_of, sign_head
from client.witness_stub import ED25519, MLDSA44, WitnessStub, format_lines, raw
from translog.client.witness import RemoteWitness
from translog.core.note import format_note, parse_note
from translog.errors import OldSizeError, RemoteError

ORACLE = Oracle(entries_of(9))
NOTE = sign_head(9, ORACLE.mth(0, 9))
OLD = 4
WITNESS = WitnessStub(skeys=(ED25519, MLDSA44))
SIGNED = WITNESS.sign(NOTE, time_s=1_790_000_000)
LINES = format_lines(SIGNED)
DATE = "Date: Tue, 22 Sep 2026 10:00:00 GMT"
PLAIN = "Content-Type: text/plain; charset=utf-8"
SIZE = "Content-Type: text/x.tlog.size"


def _http(status_line: str, body: bytes, *headers: str, version: str = "HTTP/1.1") -> bytes:
    lines = [f"{version} {status_line}", *headers, DATE, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def go_error(status_line: str, text: str) -> bytes:
    """What http.Error of Go's net/http writes."""
    return _http(status_line, f"{text}\n".encode(), PLAIN, "X-Content-Type-Options: nosniff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """`expected`: the number of lines, the size of an OldSizeError, or a code and a word of the hint."""

    program: str
    situation: str
    answer: bytes
    lines: int = 0
    size: int | None = None
    code: str = ""
    hint: str = ""


VARIANTS = [
    # Cosigned
    Variant(program="litewitness 0.9", situation="cosigned", answer=_http("200 OK", LINES, PLAIN), lines=2),
    Variant(
        program="sunlight",
        situation="cosigned",
        answer=_http("200 OK", LINES, "Access-Control-Allow-Origin: *", PLAIN),
        lines=2,
    ),
    Variant(program="omniwitness 2026-07", situation="cosigned, type guessed", answer=_http("200 OK", LINES, PLAIN), lines=2),
    Variant(
        program="sigsum witness",
        situation="cosigned, body in chunks without a type",
        answer=f"HTTP/1.1 200 OK\r\n{DATE}\r\nTransfer-Encoding: chunked\r\n\r\n{len(LINES):x}\r\n".encode()
        + LINES
        + b"\r\n0\r\n\r\n",
        lines=2,
    ),
    Variant(
        program="azul",
        situation="cosigned, headers in lower case",
        answer=_http("200 OK", LINES, PLAIN.lower(), "cf-ray: 1"),
        lines=2,
    ),
    Variant(program="a proxy", situation="cosigned, HTTP/1.0", answer=_http("200 OK", LINES, version="HTTP/1.0"), lines=2),
    # Another size
    Variant(program="litewitness 0.9", situation="another size", answer=_http("409 Conflict", b"7\n", SIZE), size=7),
    Variant(program="sunlight", situation="never cosigned", answer=_http("409 Conflict", b"0\n", SIZE), size=0),
    Variant(program="azul", situation="another size", answer=_http("409 Conflict", b"7\n", SIZE.lower()), size=7),
    Variant(
        program="a framework",
        situation="another size, charset appended",
        answer=_http("409 Conflict", b"7\n", f"{SIZE}; charset=utf-8"),
        size=7,
    ),
    Variant(
        program="omniwitness 2026-07",
        situation="larger than the checkpoint",
        answer=_http("409 Conflict", b"12\n", SIZE),
        size=12,
    ),
    # Another root at this size
    Variant(
        program="litewitness 0.9",
        situation="another root at this size",
        answer=go_error("422 Unprocessable Entity", "bad consistency proof"),
        code="witness-refused",
        hint="two histories",
    ),
    Variant(
        program="omniwitness before 2026-07",
        situation="another root at this size",
        answer=_http("409 Conflict", b""),
        code="witness-answer",
        hint="another root",
    ),
    Variant(
        program="azul",
        situation="another root at this size",
        answer=_http("409 Conflict", b"%d\n" % OLD, SIZE),
        code="witness-refused",
        hint="another root",
    ),
    Variant(
        program="sigsum witness",
        situation="a conflict as any other error",
        answer=go_error("409 Conflict", "(409) Conflict"),
        code="witness-answer",
        hint="another root",
    ),
    # A log it does not know
    Variant(
        program="litewitness 0.9",
        situation="unknown log",
        answer=go_error("404 Not Found", "unknown log"),
        code="witness-unknown-log",
        hint="add the log",
    ),
    Variant(
        program="omniwitness",
        situation="unknown log",
        answer=_http("404 Not Found", b""),
        code="witness-unknown-log",
        hint="add the log",
    ),
    Variant(
        program="litewitness and sunlight, older",
        situation="unknown log",
        answer=go_error("403 Forbidden", "unknown log"),
        code="witness-refused",
        hint="a log that they do not know",
    ),
    Variant(
        program="omniwitness, older",
        situation="its older protocol only",
        answer=go_error("404 Not Found", "404 page not found"),
        code="witness-unknown-log",
        hint="/add-checkpoint",
    ),
    # A signature it does not accept
    Variant(
        program="litewitness 0.9",
        situation="no valid signature",
        answer=go_error("403 Forbidden", "invalid signature"),
        code="witness-refused",
        hint="current keys",
    ),
    Variant(
        program="omniwitness before 2026-09",
        situation="no valid signature, or a checkpoint that does not parse",
        answer=_http("500 Internal Server Error", b""),
        code="witness-failed",
        hint="signature that they do not accept",
    ),
    Variant(
        program="litewitness 0.9",
        situation="reached through a bastion that the log does not use",
        answer=go_error("403 Forbidden", "rejected request, bad/missing bastion"),
        code="witness-refused",
    ),
    # A request it does not take
    Variant(
        program="sunlight",
        situation="extension lines",
        answer=go_error("400 Bad Request", "invalid checkpoint: extension lines are not supported"),
        code="witness-refused",
    ),
    Variant(
        program="omniwitness",
        situation="over 16 KiB",
        answer=_http("400 Bad Request", b""),
        code="witness-refused",
        hint="10 KiB",
    ),
    Variant(
        program="litewitness 0.9",
        situation="over 10 KiB",
        answer=go_error("500 Internal Server Error", "http: request body too large"),
        code="witness-failed",
        hint="10 KiB",
    ),
    # Not now
    Variant(
        program="omniwitness",
        situation="rate limit",
        answer=go_error("429 Too Many Requests", "Too Many Requests"),
        code="witness-pushback",
    ),
    Variant(program="omniwitness", situation="pushback", answer=_http("429 Too Many Requests", b""), code="witness-pushback"),
    # In front of a witness
    Variant(
        program="litebastion", situation="the witness is away", answer=_http("502 Bad Gateway", b""), code="witness-failed"
    ),
    Variant(
        program="litebastion",
        situation="no key hash in the URL",
        answer=go_error("404 Not Found", "request must start with /KEY_HASH/"),
        code="witness-unknown-log",
        hint="/add-checkpoint",
    ),
    Variant(
        program="a CDN",
        situation="a challenge for browsers",
        answer=_http("403 Forbidden", b"<!DOCTYPE html><title>Just a moment...</title>", "Content-Type: text/html"),
        code="witness-refused",
    ),
    Variant(program="a CDN", situation="its own status", answer=_http("522 ", b"error code: 522"), code="witness-failed"),
    Variant(
        program="a web server",
        situation="to https",
        answer=_http("301 Moved Permanently", b"", "Location: https://witness.example/add-checkpoint"),
        code="witness-answer",
        hint="https://witness.example/add-checkpoint",
    ),
    Variant(program="a web site", situation="any page", answer=_http("200 OK", b"<!doctype html>\n"), code="witness-answer"),
    # Not seen, but near
    Variant(
        program="nobody",
        situation="the whole note",
        answer=_http("200 OK", format_note(parse_note(NOTE).text, SIGNED), PLAIN),
        code="witness-answer",
    ),
    Variant(program="nobody", situation="accepted for later", answer=_http("202 Accepted", b"", PLAIN), code="witness-answer"),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: f"{variant.program}: {variant.situation}")
async def test_what_is_made_of_an_answer(variant: Variant) -> None:
    stub = WitnessStub(plan=deque([raw(variant.answer)]))
    refusal = None
    async with stub.serving() as url, RemoteWitness(url, timeout_ms=5_000) as remote:
        try:
            signatures = await remote.add_checkpoint(old=OLD, proof=ORACLE.proof(OLD, 0, 9), note=NOTE)
            made: tuple[object, ...] = (signatures, None, "")
        except OldSizeError as error:
            made = ((), error.size, "")
        except RemoteError as error:
            made, refusal = ((), None, error.code), error
    assert made == (SIGNED[: variant.lines], variant.size, variant.code)
    assert (refusal is not None) == bool(variant.code)
    if refusal is not None:
        assert variant.hint in refusal.hint
        assert refusal.status == int(variant.answer.split(b" ")[1])
    assert len(stub.requests) == 1


async def test_a_log_recovers_from_another_size_with_one_more_request() -> None:
    stub = WitnessStub(skeys=(ED25519, MLDSA44))
    stub.cosigned[simulator.ORIGIN] = (7, ORACLE.mth(0, 7), b"")
    async with stub.serving() as url, RemoteWitness(url, timeout_ms=5_000) as remote:
        with pytest.raises(OldSizeError) as caught:
            await remote.add_checkpoint(old=0, proof=[], note=NOTE)
        size = caught.value.size
        assert len(await remote.add_checkpoint(old=size, proof=ORACLE.proof(size, 0, 9), note=NOTE)) == 2
    assert [asked.body.split(b"\n")[0] for asked in stub.requests] == [b"old 0", b"old 7"]
