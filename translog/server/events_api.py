"""Taking audit events: `POST /v1/events` and `POST /v1/sources/<source>/<stream>`.

Rules: deny by default; a record inside a sound body is never refused, whatever it says; results are per record, in order. A
source's own sender drops a batch on 409 and 500, so its endpoint answers 503 where others would answer these (push.py), and
answers as soon as the events are durable. `/v1/events` waits for the checkpoint, unless told otherwise.
"""

import asyncio
import hmac
from collections.abc import Mapping
from enum import StrEnum
from hashlib import sha256

from aiohttp import web
from pydantic import BaseModel, Field

from translog.errors import AuthenticationError, MalformedError, NotFoundError, TranslogError
from translog.events.sources.github import GITHUB
from translog.events.sources.short import EVENTS
from translog.identity.principal import Permission, Principal, require, require_stream
from translog.log.reader import Reader
from translog.server.ack import Ack, AppendQuery, Receipts, checkpoint_of, is_published, prove, receipt_url
from translog.server.api import JSON, NDJSON, NO_STORE, PRINCIPAL, Api, EventLog, Route, parse_query, require_events
from translog.server.body import read_body
from translog.server.intake import Intaken, Taken
from translog.server.problem import CONTENT_TYPE, problem_body
from translog.server.push import push
from translog.storage.store import StreamName

STREAM_HEADER = "Translog-Stream"
SIGNATURE_HEADER = "X-Hub-Signature-256"


class OnConflict(StrEnum):
    """What to do with an event whose id is taken by other content."""

    KEEP = "keep"
    REJECT = "reject"


class EventsQuery(AppendQuery):
    """`?ack=&receipts=&on_conflict=`."""

    on_conflict: OnConflict = Field(
        OnConflict.KEEP, description="keep: log it, marked as in conflict with the first; reject: do not log it, answer 409."
    )


class EventResult(BaseModel):
    """What became of one record."""

    index: int | None = Field(description="The entry's index; null if it was rejected.")
    seq: int | None = Field(None, description="Its number in its stream; null for a duplicate.")
    duplicate: bool = Field(False, description="It was logged before, at this index.")
    conflicts_with: int | None = Field(None, description="The entry that has the same id and other content.")
    error: str | None = Field(
        None, description="Why the record could not be mapped. It is logged all the same, unless rejected."
    )
    receipt: str | None = Field(None, description="Where the receipt will be; in answers of status 202.")
    proof: list[str] | None = Field(None, description="Inclusion proof under `checkpoint`, base64, with receipts=full.")


class EventsAnswer(BaseModel):
    """What became of a batch. `proof` members and `checkpoint` together are the receipts."""

    count: int = Field(description="Records in the batch.")
    results: list[EventResult]
    checkpoint: str | None = Field(None, description="A note whose tree has all of these entries; null before that.")


class PushQuery(AppendQuery):
    """`?ack=&receipts=`; unknown parameters are ignored, as some senders add theirs."""

    ack: Ack = Field(Ack.DURABLE, description="Answer when committed, or when in a checkpoint.")


async def post_events(api: Api, request: web.Request) -> web.Response:
    events = require_events(api)
    principal = require(request[PRINCIPAL], Permission.APPEND)
    query = parse_query(EventsQuery, request)
    stream = stream_of(principal, request)
    body = await read_body(request, api.settings)
    reject = query.on_conflict is OnConflict.REJECT
    intaken = await take(api, events, request, body, source=EVENTS.name, stream=stream, reject_conflicts=reject, push=False)
    return await answer(api, intaken, query)


@push
async def post_source(api: Api, request: web.Request) -> web.Response:
    events = require_events(api)
    source, stream = request.match_info["source"], request.match_info["stream"]
    principal = request[PRINCIPAL]
    signed = source == GITHUB.name and Permission.APPEND not in principal.permissions and SIGNATURE_HEADER in request.headers
    if not signed:
        require(principal, Permission.APPEND)
    if source not in events.sources:
        raise NotFoundError(
            f"there is no source {source[:80]!r}", hint=f"there are {', '.join(sorted(events.sources))}", code="no-such-source"
        )
    query = parse_query(PushQuery, request)
    body = await read_body(request, api.settings)
    if signed:
        given = request.headers[SIGNATURE_HEADER]
        principal = await asyncio.to_thread(_signer, api, events, given, body)  # every secret over the whole body
    name = StreamName(*require_stream(principal, stream))
    return await answer(api, await take(api, events, request, body, source=source, stream=name), query)


def stream_of(principal: Principal, request: web.Request) -> StreamName:
    """The stream that the header names, or the principal's default. Raises MalformedError, PermissionDeniedError."""
    named = request.headers.getall(STREAM_HEADER, [])
    if len(named) > 1:
        raise MalformedError(f"the header {STREAM_HEADER} is given more than once", code="bad-stream")
    return StreamName(*require_stream(principal, named[0] if named else None))


async def take(
    api: Api,
    events: EventLog,
    request: web.Request,
    body: bytes,
    *,
    source: str,
    stream: StreamName,
    reject_conflicts: bool = False,
    push: bool = True,
    more: Mapping[str, str] | None = None,
) -> Intaken:
    """Splits a body and logs its records; `push` is for senders that do not wait long, `more` is what counts as headers beside
    those of the request. Raises MalformedError for a body of another shape, TooLargeError."""
    headers = headers_of(request) | dict(more or {})
    known = events.sources[source]
    records = await events.intake.split(known, body, headers, api.settings.entries_per_request_max)
    if not records:
        return Intaken(results=[], size=0)
    timeout_ms = api.settings.intake.push_deadline_ms if push else None
    return await events.intake.take(stream, known, records, reject_conflicts=reject_conflicts, timeout_ms=timeout_ms)


def headers_of(request: web.Request) -> dict[str, str]:
    """The request's headers, names in lower case; of one given twice, the last. Bytes that are not UTF-8 are escaped (`\\xff`):
    headers are kept with the records that came with them."""
    return {name.lower(): _utf8(value) for name, value in request.headers.items()}


def _utf8(value: str) -> str:
    if value.isascii():
        return value
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


async def answer(api: Api, intaken: Intaken, query: AppendQuery) -> web.Response:
    """The answer for what was taken, when it is what the query waits for."""
    conflicts = sum(taken.conflict for taken in intaken.results)
    receipts = Receipts.INDEX if conflicts and query.receipts is Receipts.NONE else query.receipts  # they say which
    published = await is_published(api, intaken.size, query.ack)
    body = b""
    if published:
        # On a reader's thread: a large answer takes long to prove and to write.
        try:
            body = await api.service.read(lambda reader: _published_body(reader, intaken, receipts))
        except TranslogError:  # they are logged all the same, and the answer says where their receipts will be
            published = False
    if not published:
        results = [] if receipts is Receipts.NONE else [_pending(api, taken) for taken in intaken.results]
        body = _body(intaken, results, None)
    status = 200 if published else 202
    if query.ack is Ack.DURABLE:
        status = 200
    if conflicts:
        return _rejected(body, conflicts)
    return web.Response(status=status, body=body, content_type=JSON, headers={"Cache-Control": NO_STORE})


def _signer(api: Api, events: EventLog, header: str, body: bytes) -> Principal:
    """The member whose secret signed the body. Raises AuthenticationError.

    Every secret is tried, each in constant time: deliveries do not say who they are from.
    """
    given = header.encode("utf-8", "replace")
    found = None
    for member, secret in events.webhook_secrets.items():
        wanted = b"sha256=" + hmac.new(secret, body, sha256).hexdigest().encode()
        if hmac.compare_digest(given, wanted) and found is None:
            found = api.members.named(member)
    if found is None:
        raise AuthenticationError(
            f"{SIGNATURE_HEADER} is not a signature of this body by any member's secret",
            hint="the secret in the webhook's settings and the member's `webhook_secret_file` file must be the same",
            code="bad-webhook-signature",
        )
    return require(found, Permission.APPEND)


def _result(taken: Taken) -> EventResult:
    return EventResult(
        index=None if taken.conflict else taken.index,
        seq=taken.seq,
        duplicate=taken.duplicate,
        conflicts_with=taken.index if taken.conflict else taken.conflicts_with,
        error=taken.error or None,
    )


def _pending(api: Api, taken: Taken) -> EventResult:
    result = _result(taken)
    if result.index is not None:
        result.receipt = receipt_url(api, result.index)
    return result


def _published_body(reader: Reader, intaken: Intaken, receipts: Receipts) -> bytes:
    results = []
    if receipts is not Receipts.NONE:
        results = [_result(taken) for taken in intaken.results]
        for result in results if receipts is Receipts.FULL else ():
            if result.index is not None:
                result.proof = prove(reader, result.index)
    checkpoint = checkpoint_of(reader)
    return _body(intaken, results, checkpoint if results else None)


def _body(intaken: Intaken, results: list[EventResult], checkpoint: str | None) -> bytes:
    return EventsAnswer(count=len(intaken.results), results=results, checkpoint=checkpoint).model_dump_json().encode()


def _rejected(body: bytes, conflicts: int) -> web.Response:
    """409 that says what became of every record: the others are logged."""
    fields = problem_body(
        409,
        "id-conflict",
        f"{conflicts} of the records have an id that is taken by other content, and were not logged",
        "results say which; the others are logged. Without on_conflict=reject they are logged, marked as conflicting",
    )
    return web.Response(
        status=409, body=fields[:-1] + b"," + body[1:], headers={"Content-Type": CONTENT_TYPE, "Cache-Control": NO_STORE}
    )


ANSWERS: dict[int, tuple[str, str, type[BaseModel] | None]] = {
    200: ("Committed, and in a checkpoint if that was waited for.", JSON, EventsAnswer),
    202: ("Committed; the receipts follow.", JSON, EventsAnswer),
}

ROUTES = (
    Route(
        method="POST",
        path="/v1/events",
        handler=post_events,
        summary="Log audit events: OCSF or the short form, one object, an array, or NDJSON",
        query=EventsQuery,
        bodies=(JSON, NDJSON),
        answers=ANSWERS,
        errors=(400, 401, 403, 404, 409, 413, 415, 500, 503),
    ),
    Route(
        method="POST",
        path="/v1/sources/{source}/{stream}",
        handler=post_source,
        summary="Log audit events in a source's own format",
        query=PushQuery,
        bodies=(JSON, NDJSON),
        answers=ANSWERS,
        errors=(400, 401, 403, 404, 413, 415, 503),
    ),
)
