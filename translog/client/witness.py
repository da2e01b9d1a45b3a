"""One witness over HTTP: asks it to cosign, and says exactly why it did not.

Rules: an answer is bounded, also after decompression, and parsed strictly, but its lines are not verified: who asks does that;
a 409 is an OldSizeError only with the media type and the body of the specification, all else is a RemoteError whose code says
whose turn it is; nothing is tried again here, but for a connection that the witness had closed while it was idle; redirects
are not followed; what a witness says is escaped before it gets into an error. https://c2sp.org/tlog-witness
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from translog.client.transport import RETRY_AFTER_MS_MAX, parse_retry_after, said
from translog.core.note import NOTE_BYTES_MAX, Signature
from translog.core.wire import clip
from translog.errors import MalformedError, OldSizeError, RemoteError
from translog.witness.protocol import (
    ANSWER_BYTES_MAX,
    SIZE_MEDIA,
    AddCheckpoint,
    format_add_checkpoint,
    monitoring_path,
    parse_cosignatures,
    parse_size,
)

_CONNECTIONS_MAX = 8
_KEEP_ALIVE_S = 60.0
_ERROR_BYTES_MAX = 16 * 1024
"""Read of an answer that only says why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    """What a status means: a code, words for what the witness does, and what to do."""

    code: str
    says: str
    hint: str = ""


_PUSHBACK = _Meaning(code="witness-pushback", says="has no time for this now")
_REFUSED = _Meaning(code="witness-refused", says="refuses the request")
_FAILED = _Meaning(code="witness-failed", says="failed")
_REDIRECTS = "redirects, which is not followed"
_MEANINGS: Mapping[int, _Meaning] = {
    400: _Meaning(
        code="witness-refused",
        says="takes the request for malformed",
        hint="some witnesses take no checkpoint with extension lines, and no request over 10 KiB",
    ),
    403: _Meaning(
        code="witness-refused",
        says="does not accept the log's signature",
        hint="has its operator the log's current keys? Some witnesses answer this for a log that they do not know",
    ),
    404: _Meaning(
        code="witness-unknown-log",
        says="does not know this log",
        hint="its operator has to add the log's origin and keys; or the URL is not the one below which it has /add-checkpoint",
    ),
    413: _Meaning(code="witness-refused", says="takes the request for too large"),
    422: _Meaning(
        code="witness-refused",
        says="says that this tree does not continue the one it cosigned last",
        hint="compare its last checkpoint with the log's: if they contradict each other, the log showed two histories",
    ),
    500: _Meaning(
        code="witness-failed",
        says="failed",
        hint="some witnesses fail so over a signature that they do not accept, or a request over 10 KiB",
    ),
}
"""Of the statuses of add-checkpoint."""
_OTHER_ROOT = "did it cosign another root at this size? Compare its last checkpoint with the log's"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """`body` may be cut where the status is neither 200 nor 409."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class RemoteWitness:
    """A witness by its URL: the prefix that a policy states. Use as an async context manager; for any number of tasks."""

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        """`timeout_ms`: for a request and its whole answer. Raises MalformedError for what is no witness's URL."""
        _require_prefix(url)
        self.url = url.rstrip("/")
        self._timeout_ms = timeout_ms
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "RemoteWitness":
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX, keepalive_timeout=_KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "gzip, identity", "User-Agent": "translog"},
            timeout=aiohttp.ClientTimeout(total=None),  # `_exchange` has one that nothing escapes
            trace_configs=[trace],
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def add_checkpoint(self, *, old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        """The lines of the answer, well-formed, none of them verified.

        Raises MalformedError for what no request can hold; OldSizeError where the witness has another size than `old`, be it
        larger than the checkpoint's; RemoteError for everything else, with the code `witness-unreachable` (no connection),
        `witness-no-answer` (none that was complete in time), `witness-pushback` (not now), `witness-unknown-log`,
        `witness-refused` (it will not cosign this), `witness-failed` (trouble of its own) or `witness-answer` (what no witness
        answers).
        """
        body = format_add_checkpoint(AddCheckpoint(old=old, proof=tuple(proof), note=note))
        answer = await self._exchange("POST", "add-checkpoint", body, bytes_max=ANSWER_BYTES_MAX)
        if answer.status == 200:
            try:
                return parse_cosignatures(answer.body)
            except MalformedError as error:
                raise self._odd(answer, f"answers what are no signature lines: {error.detail}") from None
        if answer.status == 409:
            raise self._conflict(answer, old)
        raise self._refusal(answer, _MEANINGS)

    async def latest(self, origin: str) -> bytes | None:
        """The checkpoint of that log that the witness cosigned last, as a note, nothing of it verified; None where it serves
        none. Raises RemoteError."""
        answer = await self._exchange("GET", monitoring_path(origin), None, bytes_max=NOTE_BYTES_MAX)
        if answer.status == 200:
            return answer.body
        if answer.status == 404:
            return None
        raise self._refusal(answer, {})

    # --- one request ----------------------------------------------------------------------------------------------------

    async def _exchange(self, method: str, path: str, body: bytes | None, *, bytes_max: int) -> _Answer:
        if self._session is None:
            raise RemoteError("the connection is not open")
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                response = await _request(self._session, method, f"{self.url}/{path}", body)
                try:
                    return await self._read(response, bytes_max)
                finally:
                    response.close()  # of a connection that is still in use, so of one with more to come
        except aiohttp.ClientSSLError as error:
            hint = "is it an https port, and is its certificate one that this machine trusts?"
            raise self._error(f"cannot be reached: {said(error)}", hint=hint, code="witness-unreachable") from None
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            hint = "is it running, and is the URL in the policy right?"
            raise self._error(f"cannot be reached: {said(error)}", hint=hint, code="witness-unreachable") from None
        except TimeoutError:
            raise self._error(f"gave no complete answer within {self._timeout_ms} ms", code="witness-no-answer") from None
        except aiohttp.ClientResponseError as error:
            hint = "is it another service, or one that speaks HTTP/2 only?"
            raise self._error(f"answers what is no HTTP/1.1: {said(error.message)}", hint=hint, code="witness-answer") from None
        except aiohttp.ClientPayloadError as error:
            detail = f"gave an answer that cannot be read to its end: {said(error)}"
            raise self._error(detail, code="witness-no-answer") from None
        except (aiohttp.ClientError, OSError) as error:
            detail = f"ended the connection before its answer was complete: {said(error) or type(error).__name__}"
            raise self._error(detail, code="witness-no-answer") from None

    async def _read(self, response: aiohttp.ClientResponse, bytes_max: int) -> _Answer:
        is_needed_whole = response.status in (200, 409)
        limit = bytes_max if is_needed_whole else _ERROR_BYTES_MAX
        received = bytearray()
        async for chunk in response.content.iter_any():
            received += chunk
            if len(received) > limit:
                break
        answer = _Answer(status=response.status, headers=response.headers, body=bytes(received[:limit]))
        if is_needed_whole and len(received) > limit:
            raise self._odd(answer, f"answers with more than {limit} bytes")
        return answer

    # --- errors ---------------------------------------------------------------------------------------------------------

    def _error(
        self, detail: str, *, code: str, hint: str = "", status: int | None = None, retry_after_ms: int | None = None
    ) -> RemoteError:
        detail = f"the witness at {self.url} {detail}"
        return RemoteError(detail, status=status, hint=hint, code=code, retry_after_ms=retry_after_ms)

    def _odd(self, answer: _Answer, detail: str) -> RemoteError:
        hint = "does the URL in the policy name a witness, and without /add-checkpoint at its end?"
        return self._error(detail, hint=hint, code="witness-answer", status=answer.status)

    def _conflict(self, answer: _Answer, old: int) -> OldSizeError | RemoteError:
        if _media_type(answer) != SIZE_MEDIA:
            detail = f"answers a conflict without its size {_reason(answer)}"
            return self._error(detail, hint=_OTHER_ROOT, code="witness-answer", status=409)
        try:
            size = parse_size(answer.body)
        except MalformedError as error:
            return self._odd(answer, f"answers a conflict with what is no size: {error.detail}")
        if size == old:
            detail = f"answers a conflict with the very size that it was told {_reason(answer)}"
            return self._error(detail, hint=_OTHER_ROOT, code="witness-refused", status=409)
        return OldSizeError(f"the witness at {self.url} cosigned size {size} last, not {old}", size=size)

    def _refusal(self, answer: _Answer, meanings: Mapping[int, _Meaning]) -> RemoteError:
        """The error for any other answer without what was asked for, by its status."""
        status = answer.status
        if status < 300:
            return self._odd(answer, f"answers what no witness does {_reason(answer)}")
        if status < 400:
            target = said(answer.headers.get("Location", ""))
            by_class = _Meaning(code="witness-answer", says=_REDIRECTS, hint=f"use the URL it names: '{target}'")
        else:
            by_class = _PUSHBACK if status in (429, 503) else _REFUSED if status < 500 else _FAILED
        meaning = meanings.get(status, by_class)
        wait_ms = parse_retry_after(answer.headers.get("Retry-After", ""))
        return self._error(
            f"{meaning.says} {_reason(answer)}",
            hint=meaning.hint,
            code=meaning.code,
            status=status,
            retry_after_ms=None if wait_ms is None else min(wait_ms, RETRY_AFTER_MS_MAX),
        )


def _require_prefix(url: str) -> None:
    hint = "http or https, host and path: what add-checkpoint is appended to"
    try:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise MalformedError("the URL of a witness has a user name or password in it", hint="witnesses take neither")
        is_prefix = parts.scheme in ("http", "https") and parts.hostname and URL(url).host and not set(url) & set("?#\\ ")
    except ValueError:
        is_prefix = False
    if not is_prefix or not url.isprintable():
        raise MalformedError(f"not the URL of a witness: {clip(url)}", hint=hint)


async def _note_reuse(session: aiohttp.ClientSession, context: SimpleNamespace, params: object) -> None:
    context.trace_request_ctx["reused"] = True


async def _request(session: aiohttp.ClientSession, method: str, url: str, body: bytes | None) -> aiohttp.ClientResponse:
    """Sent once more where a connection of an earlier request was used and nothing came back: servers close idle connections
    at the moment in which somebody wants to use them. A witness takes the same request twice."""
    connection = {"reused": False}
    try:
        return await session.request(method, url, data=body, allow_redirects=False, trace_request_ctx=connection)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        if not connection["reused"]:
            raise
    return await session.request(method, url, data=body, allow_redirects=False)


def _media_type(answer: _Answer) -> str:
    """In lower case, without parameters; empty where the answer does not state one, or states several."""
    stated = answer.headers.getall("Content-Type", [])
    return stated[0].partition(";")[0].strip(" \t").lower() if len(stated) == 1 else ""


def _reason(answer: _Answer) -> str:
    """The status, and what the witness says: the sentences of a problem+json, else some of the text."""
    text = answer.body.decode("utf-8", "replace").strip()
    if text.startswith("{"):
        try:
            document = json.loads(text)
            text = " ".join(v for name in ("detail", "hint") if isinstance(v := document.get(name), str)) or text
        except (ValueError, AttributeError, RecursionError):
            pass
    return f"({answer.status}: {said(text) or 'no reason given'})"
