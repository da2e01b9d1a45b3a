"""HTTP requests to a log: bounded, retried where that is safe, every failure a RemoteError.

Rules: an answer is read up to a limit, also after decompression; a GET is tried again on 429, 502, 503, 504 and lost
connections, honouring Retry-After; a POST only where the log says that nothing was written; redirects are not followed,
which keeps a token from travelling to another host; what an answer says is escaped before it gets into an error.
client/delivery.py repeats POSTs of events by rules of its own, with `post_once`.
"""

import asyncio
import io
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType

import aiohttp

from translog.core.wire import parse_decimal, printable
from translog.errors import MalformedError, RemoteError

TIMEOUT_MS = 30_000
"""For one request and its whole answer."""
TRIES_MAX = 5
WAIT_MS_MAX = 30_000
_WAIT_MS_FIRST = 200
RETRY_AFTER_MS_MAX = 86_400_000
_SAID_CHARS_MAX = 500
_RETRY_STATUSES = frozenset({429, 502, 503, 504})
_RETRY_CODES = frozenset({"pool-full", "not-open", "clock-jumped", "too-many-connections", "too-busy", "body-timeout"})
"""Problem codes of a translog that say that an append was not written, and may be later."""
_UNWRITTEN_CODES = _RETRY_CODES | {"read-only"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class Transport:
    """Requests below one URL prefix. Use as an async context manager."""

    def __init__(self, url: str, *, token: str | None = None, timeout_ms: int = TIMEOUT_MS) -> None:
        """Raises MalformedError unless `url` is http or https."""
        if not url.startswith(("http://", "https://")):
            raise MalformedError(f"not a log's URL: {url[:80]!r}", hint="it starts with http:// or https://")
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Transport":
        headers = {"Accept-Encoding": "gzip, identity", "User-Agent": "translog"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        self._session = aiohttp.ClientSession(headers=headers, timeout=self._timeout)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, *, bytes_max: int) -> bytes:
        """The body of a 200 answer. Raises RemoteError, with the status where there was an answer."""
        answer = await self._with_retries("GET", path, None, {}, bytes_max)
        return answer.body

    async def post(self, path: str, body: bytes, *, content_type: str, bytes_max: int) -> Answer:
        """A 200 or 202 answer. Raises RemoteError, code `outcome-unknown` where it may have been written all the same."""
        return await self._with_retries("POST", path, body, {"Content-Type": content_type}, bytes_max)

    async def post_once(self, path: str, body: bytes, *, headers: Mapping[str, str], bytes_max: int) -> Answer:
        """`post`, never repeated here, with any headers."""
        return await self._once("POST", path, body, headers, bytes_max)

    async def _with_retries(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], bytes_max: int
    ) -> Answer:
        wait_ms = _WAIT_MS_FIRST
        for attempt in range(1, TRIES_MAX + 1):
            try:
                return await self._once(method, path, body, headers, bytes_max)
            except RemoteError as error:
                if attempt == TRIES_MAX or not _may_retry(method, error):
                    raise
                pause_ms = error.retry_after_ms or wait_ms
                await asyncio.sleep(min(pause_ms, WAIT_MS_MAX) * random.uniform(1, 1.25) / 1000)  # noqa: S311  # jitter
                wait_ms *= 2
        raise RemoteError("unreachable")

    async def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], bytes_max: int) -> Answer:
        if self._session is None:
            raise RemoteError("the connection is not open")
        url = f"{self.url}/{path.lstrip('/')}"
        try:
            data = None if body is None else io.BytesIO(body)
            async with self._session.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
                received = bytearray()
                async for chunk in response.content.iter_any():
                    received += chunk
                    if len(received) > bytes_max:
                        raise _failed(method, f"{url} answers with more than {bytes_max} bytes", status=response.status)
                answer = Answer(status=response.status, body=bytes(received), headers=dict(response.headers))
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            detail = f"cannot reach {self.url}: {said(error)}"
            raise RemoteError(detail, hint="is the log running, and the URL right?") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failed(method, f"the connection to {self.url} was lost: {said(error) or type(error).__name__}") from None
        if answer.status not in (200, 202):
            raise _refused(method, url, answer)
        return answer


def outcome_unknown(detail: str, *, status: int | None = None) -> RemoteError:
    """The error for an append that may have been logged all the same."""
    return RemoteError(
        f"{detail}; whether the entries were logged is not known",
        status=status,
        hint="when it answers again, look for them before sending them once more",
        code="outcome-unknown",
    )


def said(text: object) -> str:
    """What the other side, or a library quoting it, says: some of it, fit for a terminal."""
    return printable(str(text)[:_SAID_CHARS_MAX])


def parse_retry_after(value: str) -> int | None:
    """The milliseconds that a Retry-After asks to wait, however many: from seconds, or from the HTTP-date that proxies write
    (RFC 9110 section 10.2.3); None for anything else."""
    try:
        return 1000 * parse_decimal(value)
    except MalformedError:
        pass
    try:
        left_s = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
        return None
    return round(1000 * left_s) if left_s >= 0 else None


def has_not_written(error: RemoteError) -> bool:
    """Whether an answer to an append says that nothing was written, and may be later."""
    return error.status in (429, 503) and error.code in _RETRY_CODES


def _failed(method: str, detail: str, *, status: int | None = None) -> RemoteError:
    return RemoteError(detail, status=status) if method == "GET" else outcome_unknown(detail, status=status)


def _may_retry(method: str, error: RemoteError) -> bool:
    if method == "GET":
        return error.status is None or error.status in _RETRY_STATUSES
    return has_not_written(error)


def _refused(method: str, url: str, answer: Answer) -> RemoteError:
    """The error an answer states, if it is problem+json, else its status."""
    code, detail, hint = "", "", ""
    try:
        document = json.loads(answer.body)
        code, detail, hint = (said(v) if isinstance(v := document.get(n), str) else "" for n in ("code", "detail", "hint"))
    except (ValueError, AttributeError, RecursionError):
        pass
    retry_after_ms = _retry_after_ms(answer.headers.get("Retry-After", ""))
    if method == "POST" and answer.status >= 500 and code not in _UNWRITTEN_CODES:
        unknown = outcome_unknown(f"{url} answers {answer.status}: {detail or 'no reason given'}", status=answer.status)
        unknown.retry_after_ms = retry_after_ms
        return unknown
    if 300 <= answer.status < 400:
        detail = f"redirects are not followed; use the URL it names: '{said(answer.headers.get('Location', ''))}'"
    return RemoteError(
        f"{url} answers {answer.status}: {detail or 'no reason given'}",
        status=answer.status,
        hint=hint,
        code=code[:64],
        retry_after_ms=retry_after_ms,
    )


def _retry_after_ms(value: str) -> int | None:
    """None also for more than a day."""
    wait_ms = parse_retry_after(value)
    return wait_ms if wait_ms is not None and wait_ms <= RETRY_AFTER_MS_MAX else None
