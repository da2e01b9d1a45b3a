"""One shape for every error, whoever raises it: us, aiohttp's router, or its HTTP parser."""

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from aiohttp import web

from translog import errors
from translog.client.delivery import UndeliveredError
from translog.errors import (
    CorruptionError,
    HeldError,
    NotFoundError,
    OldSizeError,
    PushbackError,
    RateLimitedError,
    RemoteError,
    SettingsError,
    StorageError,
    TranslogError,
)
from translog.log.reader import Reader
from translog.server.problem import STATUSES, http_problem, problem, problem_body, status_of

from .conftest import Serve
from .harness import Answer, Running, request_bytes

EXPECTED = {
    "MalformedError": 400,
    "VerificationError": 422,
    "SignatureError": 422,
    "InclusionError": 422,
    "ConsistencyError": 422,
    "QuorumError": 422,
    "DisclosureError": 422,
    "ConflictError": 409,
    "WrongNumberError": 409,
    "OldSizeError": 409,
    "RateLimitedError": 429,
    "RefusedError": 403,
    "AuthenticationError": 401,
    "PermissionDeniedError": 403,
    "TooLargeError": 413,
    "UnsupportedMediaError": 415,
    "NotFoundError": 404,
    "PushbackError": 503,
    "StorageError": 503,
    "FenceError": 503,
    "HeldError": 503,
    "SettingsError": 500,
    "RemoteError": 502,
    "CorruptionError": 500,
}


OF_CLIENTS = {UndeliveredError.__name__: 502}
"""Declared beside what they carry, in translog.client."""
INNER = (StorageError, CorruptionError, SettingsError)
"""What is wrong within the log: clients are told the kind only."""


def subclasses(kind: type[TranslogError] = TranslogError) -> Iterator[type[TranslogError]]:
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def make(kind: type[TranslogError]) -> TranslogError:
    if issubclass(kind, PushbackError | RateLimitedError):
        return kind("what is wrong", hint="what to do", retry_after_ms=1_500)
    if issubclass(kind, OldSizeError):
        return kind("what is wrong", hint="what to do", size=7)
    return kind("what is wrong", hint="what to do")


def sent(response: web.Response) -> Answer:
    assert isinstance(response.body, bytes)
    return Answer(status=response.status, headers=response.headers, body=response.body)


def test_the_walk_finds_every_error_there_is() -> None:
    found = {kind.__name__ for kind in subclasses() if kind.__module__ == errors.__name__}
    assert found == set(EXPECTED)
    assert set(STATUSES) <= set(subclasses())


@pytest.mark.parametrize("kind", [kind for kind in subclasses() if kind.__module__.startswith("translog.")])
def test_every_error_has_its_status_and_the_one_shape(kind: type[TranslogError]) -> None:
    error = make(kind)
    expected = (EXPECTED | OF_CLIENTS)[kind.__name__]
    assert status_of(error) == expected
    document = sent(problem(error)).problem(expected, kind.default_code)
    told = (document["detail"], document["hint"])
    assert (told == ("what is wrong", "what to do")) != issubclass(kind, INNER)


@pytest.mark.parametrize("kind", [*INNER, errors.HeldError, errors.FenceError])
def test_what_is_wrong_inside_is_logged_and_not_told(kind: type[TranslogError]) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = sent(problem(kind("/data/log is gone", hint="look into /data", code="some-code")))
    document = answer.problem(EXPECTED[kind.__name__], "some-code")
    assert document["hint"]
    assert b"/data" not in answer.body
    assert [(line["code"], line["detail"]) for line in logs] == [("some-code", "/data/log is gone (look into /data)")]


def test_a_store_that_is_being_opened_anew_is_not_logged_by_each_reader() -> None:
    with structlog.testing.capture_logs() as logs:
        sent(problem(StorageError("the store is closed", code="store-closed"))).problem(503, "store-closed")
    assert not logs


def test_an_unknown_outcome_keeps_its_words() -> None:
    document = sent(problem(StorageError("not known whether", hint="look", code="outcome-unknown"))).problem(503)
    assert (document["detail"], document["hint"]) == ("not known whether", "look")


def test_a_held_log_is_not_asked_again_soon() -> None:
    assert problem(HeldError("held")).headers["Retry-After"] == "300"
    assert problem(StorageError("failed")).headers["Retry-After"] == "5"


@pytest.mark.parametrize(("ms", "seconds"), [(1, "1"), (999, "1"), (1_000, "1"), (1_001, "2"), (60_000, "60"), (0, "1")])
def test_retry_after_is_whole_seconds_rounded_up(ms: int, seconds: str) -> None:
    for error in (
        PushbackError("later", retry_after_ms=ms),
        NotFoundError("later", retry_after_ms=ms),
        RemoteError("x", retry_after_ms=ms),
    ):
        assert problem(error).headers["Retry-After"] == seconds


def test_without_a_hint_there_is_no_hint_member() -> None:
    assert "hint" not in sent(problem(NotFoundError("gone"))).problem(404)
    assert "Retry-After" not in problem(NotFoundError("gone")).headers


@pytest.mark.parametrize("detail", ["\udcff", 'a\nb\0c"\\', "\u2028ä", "x" * 100_000])
def test_any_detail_makes_valid_json(detail: str) -> None:
    assert json.loads(problem_body(400, "x", detail))["detail"] == detail


def test_what_aiohttp_refuses_keeps_allow_and_loses_its_page() -> None:
    answer = sent(http_problem(web.HTTPMethodNotAllowed("PUT", ["GET", "HEAD"])))
    answer.problem(405)
    assert answer.headers["Allow"] == "GET,HEAD"
    sent(http_problem(web.HTTPRequestEntityTooLarge(1, 2))).problem(413, "body-too-large")
    sent(http_problem(web.HTTPUnprocessableEntity())).problem(422, "http")


# --- from a running log -------------------------------------------------------------------------------------------------

PATHS = [
    "/",
    "/nothing",
    "/v1",
    "/v1/",
    "/metrics",
    "/clock/accept",
    "/%00",
    "/v1/entries/",
    "/v1/receipts/1/2",
    "*",
    "/\xff",
    "/?a=%ff",
]


@pytest.mark.parametrize("path", PATHS)
async def test_no_such_path(log_server: Running, path: str) -> None:
    answer = await log_server.raw(request_bytes("OPTIONS" if path == "*" else "GET", path))
    answer.problem(400 if path == "/\xff" else 404)


NOT_HTTP = {
    "not http": b"nonsense\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40) + b"\r\n\r\n",
    "version 9": b"GET /checkpoint HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "no host": b"GET /checkpoint HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /checkpoint HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n",
    "bad target": b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "space in name": b"GET /checkpoint HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer sekret\r\n\r\n",
    "control in value": b"GET /checkpoint HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sek\x01ret\r\n\r\n",
    "length and chunked": b"POST /add HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "negative length": b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "plus length": b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\na",
    "bad chunk": b"POST /add HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "folded": b"GET /checkpoint HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n",
    "long path": b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long query": b"GET /checkpoint?" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long name": b"GET /checkpoint HTTP/1.1\r\nHost: localhost\r\n" + b"a" * 9_000 + b": b\r\n\r\n",
    "long value": b"GET /checkpoint HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 9_000 + b"\r\n\r\n",
    "long method": b"G" * 9_000 + b" /checkpoint HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many headers": b"GET /checkpoint HTTP/1.1\r\nHost: localhost\r\n"
    + b"".join(b"X-%d: 1\r\n" % n for n in range(65))
    + b"\r\n",
}


@pytest.mark.parametrize("name", NOT_HTTP)
async def test_what_is_not_http_is_a_problem_and_the_end_of_the_connection(log_server: Running, name: str) -> None:
    answer = await log_server.raw(NOT_HTTP[name])
    answer.problem(400, "bad-http")
    assert b"sekret" not in answer.body
    assert b"Traceback" not in answer.body
    assert log_server.server.service.integrated.size == 0


async def test_as_many_headers_and_as_long_a_line_as_settings_say_are_fine(log_server: Running) -> None:
    lines = [f"X-{n}: 1" for n in range(60)]
    (await log_server.raw(request_bytes("GET", "/checkpoint?" + "a" * 8_000, *lines))).require_ok()
    (await log_server.raw(request_bytes("GET", "/checkpoint", "X: " + "a" * 8_000))).require_ok()


async def test_a_token_that_is_too_long_for_a_header_is_not_repeated(log_server: Running) -> None:
    answer = await log_server.raw(request_bytes("GET", "/checkpoint", "Authorization: Bearer sekret" + "a" * 9_000))
    answer.problem(400, "bad-http")
    assert b"sekret" not in answer.body


async def test_an_unknown_expectation_is_a_problem_too(log_server: Running) -> None:
    (await log_server.raw(request_bytes("GET", "/checkpoint", "Expect: magic"))).problem(417)


async def test_no_answer_tells_the_versions_of_what_runs(log_server: Running) -> None:
    for request in (request_bytes("GET", "/checkpoint"), request_bytes("GET", "/nothing"), NOT_HTTP["not http"]):
        assert (await log_server.raw(request)).headers["Server"] == "translog"


async def test_a_defect_is_a_500_without_details_and_is_logged(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError("a secret: /etc/shadow")

    monkeypatch.setattr(Reader, "checkpoint", fail)
    with structlog.testing.capture_logs() as logs:
        answer = await log_server.get("/v1/checkpoint", Accept="text/html")
    answer.problem(500, "internal")
    assert b"secret" not in answer.body
    assert b"Runtime" not in answer.body
    assert [line for line in logs if line["log_level"] == "error" and line.get("exc_info")]
    (await log_server.get("/checkpoint")).require_ok()


async def test_debug_mode_of_the_event_loop_shows_no_traceback_either(
    log_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader, "checkpoint", lambda *_, **__: 1 / 0)
    asyncio.get_running_loop().set_debug(True)
    (await log_server.get("/v1/checkpoint")).problem(500, "internal")


async def test_damage_is_a_500_that_holds_the_log_and_reads_go_on(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise CorruptionError("a tile is damaged")

    await log_server.grow([b"x"])
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "tile", fail)
        (await log_server.get("/tile/0/000.p/1")).problem(500, "corrupt")
    (await log_server.get("/tile/0/000.p/1")).require_ok()
    (await log_server.append([b"y"])).problem(503, "read-only")
    assert (await log_server.get("/readyz")).json["code"] == "corrupt"
    assert "a tile is damaged" in (await log_server.admin("GET", "/readyz")).json["reason"]


async def test_the_access_log_has_every_request_and_no_token(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = await serve(access_log=True)
    with structlog.testing.capture_logs() as logs:
        await log.get("/checkpoint", Authorization="Bearer sekret")
        await log.get("/checkpoint?q=1")
    assert [(line["path"], line["status"]) for line in logs] == [("/checkpoint", 401), ("/checkpoint", 200)]
    assert "sekret" not in str(logs)
    assert "sekret" not in caplog.text
