"""Errors as HTTP answers: one shape (RFC 9457 problem+json) for the whole API, and the one table from types to statuses.

    {"type":"about:blank","title":"Not Found","status":404,"code":"not-published","detail":"...","hint":"..."}

Rules: `code` is stable, `detail` says what is wrong, `hint` what to do; no answer carries a stack trace, a path or a secret:
what is wrong inside of the log is a general sentence here and the whole one in the log lines; no error is cached.
https://www.rfc-editor.org/rfc/rfc9457
"""

import json
import math
from http import HTTPStatus

import structlog
from aiohttp import web

from translog.errors import (
    AuthenticationError,
    ConflictError,
    CorruptionError,
    HeldError,
    MalformedError,
    NotFoundError,
    PermissionDeniedError,
    PushbackError,
    RateLimitedError,
    RefusedError,
    RemoteError,
    SettingsError,
    StorageError,
    TooLargeError,
    TranslogError,
    UnsupportedMediaError,
    VerificationError,
)
from translog.log.events import PAYLOAD_MISMATCH

_logger = structlog.get_logger()

CONTENT_TYPE = "application/problem+json"
NO_STORE = "no-store"
COMMON_HEADERS = {"Server": "translog", "X-Content-Type-Options": "nosniff"}
"""In every answer: which versions run here is nobody's business, and no browser guesses at content."""
_STORAGE_RETRY_MS = 5_000
HELD_RETRY_S = 300
"""A held log waits for a person."""
OUTCOME_UNKNOWN = "outcome-unknown"
_OWN_WORDS = frozenset({OUTCOME_UNKNOWN, PAYLOAD_MISMATCH})
"""Codes of inner failures whose own words are for the client. They are logged where they happen."""
_INNER: dict[type[TranslogError], tuple[str, str]] = {
    HeldError: ("the log is read-only", "it serves what it has; its operator knows when it will take entries again"),
    StorageError: ("the store failed", "try again later; tell the log's operator if it stays so"),
    CorruptionError: ("the store is damaged", "the log takes nothing new until its operator has seen to it"),
    SettingsError: ("the log is not set up as it should be", "tell the log's operator"),
}
"""What clients are told of what is wrong inside. The first that fits: HeldError is a StorageError."""

_STORE_CLOSED = "store-closed"
"""The log is being opened anew, which its own lines tell once: anybody's reads must not fill the log file meanwhile."""

STATUSES: dict[type[TranslogError], int] = {
    MalformedError: 400,
    VerificationError: 422,
    AuthenticationError: 401,
    PermissionDeniedError: 403,
    TooLargeError: 413,
    UnsupportedMediaError: 415,
    RefusedError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    RateLimitedError: 429,
    PushbackError: 503,
    StorageError: 503,
    CorruptionError: 500,
    RemoteError: 502,
    SettingsError: 500,
}
"""By type; a subclass that is not listed answers as the nearest class above it that is."""


HTTP_PROBLEMS = {
    404: ("no-such-path", "there is nothing at this path", "GET /openapi.json lists what there is"),
    405: ("method-not-allowed", "this path does not take this method", "the Allow header lists those it takes"),
    413: ("body-too-large", "the body is too large", "send smaller batches"),
    417: ("unknown-expect", "this Expect header is not understood", "send Expect: 100-continue, or none"),
    500: ("internal", "an internal error; it was logged", "tell the log's operator the time it happened"),
}
"""Code, detail and hint of what is no TranslogError."""
BAD_HTTP = "bad-http"
"""Code of what does not parse as HTTP. The answer quotes nothing of it: it may hold a token."""
TOO_MANY_CONNECTIONS = "too-many-connections"
"""Code of a connection above the limit."""


def status_of(error: TranslogError) -> int:
    """The HTTP status for an error."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def problem(error: TranslogError) -> web.Response:
    """The answer for an error. What it does not tell is logged."""
    status = status_of(error)
    detail, hint = error.detail, error.hint
    inner = next((told for kind, told in _INNER.items() if isinstance(error, kind)), None)
    if inner is not None and error.code not in _OWN_WORDS:
        detail, hint = inner
        if error.code != _STORE_CLOSED:
            _logger.error("a request failed within the log", code=error.code, detail=str(error))
    headers = {}
    retry_after_ms = getattr(error, "retry_after_ms", None)
    if retry_after_ms is None and isinstance(error, StorageError):
        retry_after_ms = 1_000 * HELD_RETRY_S if isinstance(error, HeldError) else _STORAGE_RETRY_MS
    if retry_after_ms is not None:
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_ms / 1000)))
    if isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = 'Bearer realm="translog"'
    return _answer(status, error.code, detail, hint, headers)


def http_problem(error: web.HTTPException) -> web.Response:
    """The answer for what aiohttp itself refuses: no such route, a method that is not allowed, a body too large."""
    headers = {name: value for name, value in error.headers.items() if name in ("Allow", "Location")}
    code, detail, hint = HTTP_PROBLEMS.get(error.status, ("http", error.reason, ""))
    return _answer(error.status, code, detail, hint, headers)


def plain_problem(status: int) -> web.Response:
    """The answer for a status of HTTP_PROBLEMS."""
    return _answer(status, *HTTP_PROBLEMS[status], {})


def internal_problem() -> web.Response:
    """The answer for a defect of ours."""
    return plain_problem(500)


def problem_body(status: int, code: str, detail: str, hint: str = "") -> bytes:
    """The JSON document."""
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
    }
    if hint:
        document["hint"] = hint
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _answer(status: int, code: str, detail: str, hint: str, headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=status,
        body=problem_body(status, code, detail, hint),
        headers={**headers, **COMMON_HEADERS, "Content-Type": CONTENT_TYPE, "Cache-Control": NO_STORE},
    )
