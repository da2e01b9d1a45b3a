"""One request of events to a log: what it answers of each event, and when the request may be made again.

    {"results":[{"index":17,"duplicate":false,"error":null},…],"checkpoint":"<note>"|null}

Rules: events that carry an id may be sent again whatever became of the first try, since the log finds duplicates; others only
where the log has surely not written them. What a log refuses for good (400, 401, 403, 409, 413, 415, …) is never repeated.
Pauses grow, have full jitter, and are never shorter than the Retry-After of the answer.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from translog.client.transport import Transport, has_not_written, outcome_unknown
from translog.core.note import NOTE_BYTES_MAX
from translog.core.proof import PROOF_HASHES_MAX, Receipt, format_receipt
from translog.core.wire import HASH_BYTES, SIZE_MAX, decode_base64, printable
from translog.errors import MalformedError, RemoteError

NDJSON = "application/x-ndjson"
JSON = "application/json"
EVENTS_PATH = "v1/events"
PAUSE_MS_FIRST = 200
PAUSE_MS_MAX = 30_000
RETRY_AFTER_MS_MAX = 300_000
"""A Retry-After is believed up to this: what a log that waits for a person says."""
_RESULT_BYTES_MAX = PROOF_HASHES_MAX * 48 + 4_096
"""An event's share of an answer: its proof, and what the log has to say about it."""
_ANSWER_BYTES_MAX = 64 * 1024 * 1024
_SAID_CHARS_MAX = 500
_TRANSIENT = frozenset({408, 425, 429})
_ODD = (AttributeError, KeyError, MalformedError, OverflowError, TypeError, ValueError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventResult:
    """What the log says of one event. Nothing of it is verified.

    `index` is None for an event that is not in the log; then `error` says why. With an index, `error` is what the log did not
    understand of the record, which it keeps all the same, as a Base Event. `duplicate`: it was there before, at this index.
    `conflicts_with`: the index of an event with the same id and other content. `receipt_url`: where its receipt is, or will be.
    `proof` and `checkpoint`: with receipts=full, once published.
    """

    index: int | None
    duplicate: bool = False
    conflicts_with: int | None = None
    error: str = ""
    receipt_url: str | None = None
    proof: tuple[bytes, ...] | None = None
    checkpoint: bytes | None = None

    @property
    def tlog_proof(self) -> bytes | None:
        """The receipt as a tlog-proof file, None before the log has published the event. It proves the log's entry for the
        event, which the log makes: `translog evidence` fetches it, `translog verify` checks both."""
        if self.index is None or self.proof is None or self.checkpoint is None:
            return None
        return format_receipt(Receipt(index=self.index, proof=self.proof, checkpoint=self.checkpoint))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """An event that is not known to be in the log. It may be submitted again as it is: it has its id."""

    event: Mapping[str, Any]
    error: RemoteError
    may_be_logged: bool


class UndeliveredError(RemoteError):
    """The log did not take these events in time, or refused them: `unsent` has every one of them."""

    default_code: ClassVar[str] = "undelivered"

    def __init__(self, detail: str, *, unsent: Sequence[Unsent] = (), hint: str = "", code: str = "") -> None:
        cause = unsent[0].error if unsent else None
        super().__init__(detail, status=cause.status if cause else None, hint=hint, code=code)
        self.unsent = tuple(unsent)


class Backoff:
    """The pauses between tries: uniform in [0, 200 ms · 2^n], at most 30 s, after any Retry-After."""

    def __init__(self) -> None:
        self._ceiling_ms = PAUSE_MS_FIRST

    def next_ms(self, retry_after_ms: int | None) -> float:
        """The pause before the next try."""
        jitter_ms = random.uniform(0, self._ceiling_ms)  # noqa: S311  # jitter
        self._ceiling_ms = min(2 * self._ceiling_ms, PAUSE_MS_MAX)
        return min(retry_after_ms or 0, RETRY_AFTER_MS_MAX) + jitter_ms

    def reset(self) -> None:
        """The log has answered: the next failure is the first again."""
        self._ceiling_ms = PAUSE_MS_FIRST


def may_repeat(error: RemoteError) -> bool:
    """Whether events with ids may be sent again after this."""
    if error.status is None or error.code == "outcome-unknown":
        return True
    return error.status in _TRANSIENT or error.status >= 500


def may_repeat_without_ids(error: RemoteError) -> bool:
    """Whether events that the log cannot tell from duplicates may be sent again after this: surely none was written."""
    return error.code != "outcome-unknown" and (error.status is None or has_not_written(error))


async def persist(
    attempt: Callable[[], Awaitable[T]], *, backoff: Backoff, deadline: float, repeatable: Callable[[RemoteError], bool]
) -> T:
    """What `attempt` returns, made again after each failure that is `repeatable`; the failure that is not, or after which
    the next try would be past `deadline` (the loop's clock, seconds), is raised."""
    while True:
        try:
            return await attempt()
        except RemoteError as error:
            if not repeatable(error):
                raise
            pause_s = backoff.next_ms(error.retry_after_ms) / 1000
            if asyncio.get_running_loop().time() + pause_s >= deadline:
                raise
        await asyncio.sleep(pause_s)


async def post_events(
    transport: Transport, path: str, body: bytes, *, headers: Mapping[str, str], count: int | None
) -> list[EventResult]:
    """Sends one request, once. `count` is how many results there must be, None where only the log knows.

    Raises RemoteError; code `outcome-unknown` where the events may have been logged all the same, which is so for an answer
    that cannot be read, too.
    """
    bytes_max = NOTE_BYTES_MAX + (_ANSWER_BYTES_MAX if count is None else count * _RESULT_BYTES_MAX)
    answer = await transport.post_once(path, body, headers=headers, bytes_max=bytes_max)
    try:
        return _parse_results(answer.body, count)
    except (RecursionError, *_ODD):
        raise outcome_unknown(f"{transport.url} does not answer as a translog does", status=answer.status) from None


def _parse_results(body: bytes, count: int | None) -> list[EventResult]:
    """Raises RecursionError or one of _ODD."""
    document = json.loads(body)
    note = document.get("checkpoint")
    checkpoint = None if note is None else note.encode()
    results = [_parse_result(result, checkpoint) for result in document["results"]]
    if count is not None and len(results) != count:
        raise ValueError
    return results


def _parse_result(result: Mapping[str, Any], checkpoint: bytes | None) -> EventResult:
    proof = result.get("proof")
    parsed = EventResult(
        index=_index(result["index"]),
        duplicate=result.get("duplicate") is True,
        conflicts_with=_index(result.get("conflicts_with")),
        error=_said(result.get("error")),
        receipt_url=url if isinstance(url := result.get("receipt"), str) else None,
        proof=None if proof is None else tuple(decode_base64(value, size=HASH_BYTES) for value in proof),
        checkpoint=checkpoint,
    )
    if parsed.index is None and not parsed.error:
        raise ValueError
    return parsed


def _index(value: object) -> int | None:
    if value is None or (type(value) is int and 0 <= value < SIZE_MAX):
        return value
    raise ValueError


def _said(error: object) -> str:
    """A result's error: a sentence, or an object with a code and a detail."""
    if isinstance(error, Mapping):
        error = ": ".join(str(error[name]) for name in ("code", "detail") if error.get(name))
    return printable(str(error)[:_SAID_CHARS_MAX]) if error else ""
