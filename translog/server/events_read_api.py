"""Giving audit events back: `GET /v1/events/<index>`, its evidence, and `GET /v1/streams`.

Rules: to those entitled only, and a refusal does not say whose an event is, as entries may not be public; published events
only, each checked against its entry before anything of it leaves; an event's fields are given as they were sealed, byte for
byte. Nothing here is cached by others.
"""

import asyncio
from datetime import UTC, datetime

from aiohttp import web
from pydantic import BaseModel, Field

from translog.core.checkpoint import parse_checkpoint
from translog.core.note import parse_note
from translog.core.proof import parse_receipt
from translog.core.wire import encode_base64, parse_decimal
from translog.errors import (
    AuthenticationError,
    CorruptionError,
    MalformedError,
    NotFoundError,
    PermissionDeniedError,
    TooLargeError,
)
from translog.events.disclosure import EVIDENCE_BYTES_MAX, Evidence, LinkedCheckpoint, format_evidence, make_evidence
from translog.events.entry import EVENT, EventEntry, entry_kind, parse_entry
from translog.events.jsontext import compact
from translog.events.seal import Field as SealedField
from translog.events.seal import find_blobs
from translog.events.texts import end_of_name
from translog.identity.principal import Permission, Principal, may_read_events
from translog.log.events import PAYLOAD_MISMATCH, OpenedEvent
from translog.log.reader import NOT_PUBLISHED_RETRY_MS, Reader
from translog.server.api import (
    DECIMAL_SCHEMA,
    JSON,
    NO_STORE,
    PRINCIPAL,
    Api,
    Route,
    json_response,
    parse_query,
    require_events,
)
from translog.storage.store import StreamName

FIELDS_CHARS_MAX = 4_096
_DISCLOSURE_BYTES = 120
"""What a disclosure takes in an evidence file beside its text and its proof; quotes in the text take more."""
_HASH_CHARS = 47


class EntryAnswer(BaseModel):
    """What an entry says, which is public."""

    member: str
    stream: str
    seq: int
    numbered: str = Field(description='Who numbered it: "sender", or "log", whose numbers say nothing of what never arrived.')
    received_at: int = Field(description="The log's clock, ms since 1970.")
    root: str = Field(description="The event root, base64.")


class EventAnswer(BaseModel):
    """One event."""

    index: int
    received_at: str = Field(description="RFC 3339.")
    entry: EntryAnswer
    content: str = Field(description='"open"; or "never given", or "opaque record", and then `event` is null.')
    event: dict[str, object] | None = Field(description="Its fields as they were sealed, in order.")


class EvidenceQuery(BaseModel):
    """`?fields=`."""

    fields: str | None = Field(
        None,
        max_length=FIELDS_CHARS_MAX,
        description="The fields to show, by name, with commas between; all of them by default, none if empty.",
    )


class StreamsQuery(BaseModel):
    """`?cursor=`."""

    cursor: str = Field("", max_length=200, description="The `next` of the answer before.")


class StreamAnswer(BaseModel):
    """One stream."""

    member: str
    stream: str
    numbered: str = Field(
        description='Who numbers it: "sender", whose omissions show; or "log", and then nothing tells of what never arrived.'
    )
    count: int = Field(description="Events in it, numbered 0 to count - 1.")
    last_index: int = Field(description="The entry of the newest.")
    last_received_at: str = Field(description="When that was received, RFC 3339.")
    silent_ms: int = Field(description="How long ago that was, by the log's clock.")


class StreamsAnswer(BaseModel):
    """Streams, by member and name."""

    streams: list[StreamAnswer]
    next: str | None = Field(description="The cursor of what follows; null at the end.")


async def get_event(api: Api, request: web.Request) -> web.Response:
    opened = await _opened(api, request, parse_decimal(request.match_info["index"]))
    entry = opened.entry
    document = EventAnswer(
        index=opened.index,
        received_at=rfc3339(entry.received_at_ms),
        entry=_entry(entry),
        content=opened.content.value,
        event=None,
    )
    body = document.model_dump_json().encode()
    if opened.event is not None:
        body = body.removesuffix(b"null}") + await asyncio.to_thread(_event_json, opened) + b"}"
    return web.Response(body=body, content_type=JSON, headers={"Cache-Control": NO_STORE})


async def get_evidence(api: Api, request: web.Request) -> web.Response:
    query = parse_query(EvidenceQuery, request)
    index = parse_decimal(request.match_info["index"])
    opened = await _opened(api, request, index)
    payload = opened.payload
    if payload is None:
        raise NotFoundError(
            f"the log does not have the fields of event {index}: {opened.content.value}",
            hint="whoever has them can make evidence of their own from the receipt",
            code="no-payload",
        )
    names = None if query.fields is None else [name for name in query.fields.split(",") if name]

    def read(reader: Reader) -> bytes:
        receipt = reader.receipt(index=index)
        size = parse_checkpoint(parse_note(parse_receipt(receipt).checkpoint).text).size
        before = reader.before(index=index, size=size)
        linked = None if before is None else LinkedCheckpoint(checkpoint=before.note, proof=before.proof)
        evidence = make_evidence(payload, names=names, entry=opened.entry_bytes, receipt=receipt, not_before=linked)
        _require_evidence_size(evidence)
        return format_evidence(evidence)

    body = await api.service.read(read)
    return web.Response(body=body, content_type=JSON, headers={"Cache-Control": NO_STORE})


def _require_evidence_size(evidence: Evidence) -> None:
    """Raises TooLargeError for more than a verifier reads."""
    size = sum(len(item.text) + _DISCLOSURE_BYTES + _HASH_CHARS * len(item.proof) for item in evidence.disclosures)
    if size > EVIDENCE_BYTES_MAX:
        raise TooLargeError(
            f"evidence of all these fields has about {size} bytes, and at most {EVIDENCE_BYTES_MAX} are read",
            hint="name fewer fields: ?fields=a,b",
            code="evidence-too-large",
        )


async def get_streams(api: Api, request: web.Request) -> web.Response:
    require_events(api)
    query = parse_query(StreamsQuery, request)
    principal: Principal = request[PRINCIPAL]
    if not _is_known(principal):
        raise AuthenticationError("you need credentials to see streams", hint="send a token as `Authorization: Bearer <token>`")
    streams = await api.service.read_streams()
    after = _after(query.cursor)
    entitled = {member for member, _ in streams if may_read_events(principal, member)}
    names = sorted(name for name in streams if name.member in entitled and name > after)
    limit = api.settings.intake.streams_per_read_max
    now_ms = api.service.guard.wall_ms
    answers = [
        StreamAnswer(
            member=name.member,
            stream=name.stream,
            numbered=streams[name].numbered.value,
            count=streams[name].next_seq,
            last_index=streams[name].last_index,
            last_received_at=rfc3339(streams[name].last_received_at_ms),
            silent_ms=max(0, now_ms - streams[name].last_received_at_ms),
        )
        for name in names[:limit]
    ]
    following = "/".join(names[limit - 1]) if len(names) > limit else None
    return json_response(StreamsAnswer(streams=answers, next=following))


async def _opened(api: Api, request: web.Request, index: int) -> OpenedEvent:
    """The event, if the principal may read it. Raises NotFoundError, AuthenticationError, PermissionDeniedError."""
    events = require_events(api)
    principal = request[PRINCIPAL]
    if not _is_known(principal):
        raise AuthenticationError(
            f"you need credentials to {Permission.READ_OWN_EVENTS.value}",
            hint="send a member's token as `Authorization: Bearer <token>`",
        )
    published = api.service.published
    if published is None or index >= published.size:
        raise NotFoundError(
            f"there is no event {index} in the published log, which has {published.size if published else 0} entries",
            code="not-published",
            retry_after_ms=NOT_PUBLISHED_RETRY_MS,
        )
    (entry_bytes,) = await api.service.read_store(lambda store: store.read_entries(start=index, end=index + 1))
    if entry_kind(entry_bytes) != EVENT:
        raise NotFoundError(f"entry {index} is not an event", code="not-an-event")
    try:
        entry = parse_entry(entry_bytes)
    except MalformedError as error:
        raise CorruptionError(f"entry {index} is damaged: {error.detail}", code=PAYLOAD_MISMATCH) from error
    if not may_read_events(principal, entry.member):
        raise PermissionDeniedError(
            f"you may not read event {index}",
            hint="the log's operator sets `reads` for a member: own, or all",
            code="not-your-event",
        )
    return await events.store.read_event(index)


def _is_known(principal: Principal) -> bool:
    return principal.member is not None or bool(principal.permissions)


def _entry(entry: EventEntry) -> EntryAnswer:
    return EntryAnswer(
        member=entry.member,
        stream=entry.stream,
        seq=entry.seq,
        numbered=entry.numbered.value,
        received_at=entry.received_at_ms,
        root=encode_base64(entry.root),
    )


def _event_json(opened: OpenedEvent) -> bytes:
    """The event as one object, of the texts as they were sealed; where there are blobs, of their values."""
    payload, event = opened.payload, opened.event
    if payload is None or event is None:
        return b"null"
    if find_blobs(payload.event()):
        return compact(event).encode()
    texts = [field.text for field in payload.fields[1:] if isinstance(field, SealedField)]
    return b"{" + b",".join(_member_json(text) for text in texts) + b"}"


def _member_json(text: bytes) -> bytes:
    """`"name":value` of a text `["name",value]`. The name is a JSON string, so the comma after its closing quote parts them."""
    end = end_of_name(text)
    return text[1:end] + b":" + text[end + 1 : -1]


def _after(cursor: str) -> StreamName:
    """Where to go on. Raises MalformedError."""
    if not cursor:
        return StreamName("", "")
    member, separator, stream = cursor.partition("/")
    if not separator or not member or not stream:
        raise MalformedError("this is no cursor of ours", hint="send the `next` of the answer before, unchanged")
    return StreamName(member, stream)


def rfc3339(time_ms: int) -> str:
    """The time as RFC 3339 text in UTC, with milliseconds."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_INDEX = {"index": DECIMAL_SCHEMA}

ROUTES = (
    Route(
        method="GET",
        path="/v1/events/{index}",
        handler=get_event,
        summary="An audit event, for those entitled",
        parameters=_INDEX,
        answers={200: ("The event, checked against its entry.", JSON, EventAnswer)},
        errors=(400, 401, 403, 404, 500, 503),
    ),
    Route(
        method="GET",
        path="/v1/events/{index}/evidence",
        handler=get_evidence,
        summary="An evidence file: proves the event, or some fields of it, offline",
        query=EvidenceQuery,
        parameters=_INDEX,
        answers={200: ("The evidence file.", JSON, None)},
        errors=(400, 401, 403, 404, 413, 500, 503),
    ),
    Route(
        method="GET",
        path="/v1/streams",
        handler=get_streams,
        summary="What each stream holds, who numbers it, and since when it is silent",
        query=StreamsQuery,
        answers={200: ("The streams of those whose events one may read.", JSON, StreamsAnswer)},
        errors=(400, 401, 403, 404, 503),
    ),
)
