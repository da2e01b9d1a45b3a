"""Appending opaque entries: `POST /add` and `POST /v1/entries`.

Rules: deny by default; an entry is 0 to 65,535 bytes; a batch is all or nothing, checked whole before anything of it is
queued; the answer says `published` (200, in a checkpoint) or, past the deadline, `durable` (202, committed, with where the
receipt will be). A write of unknown outcome says so (503 outcome-unknown) and is never retried here.
"""

from collections.abc import Sequence

from aiohttp import web
from pydantic import BaseModel, Field

from translog.core.tile import decode_bundle
from translog.errors import MalformedError, NotFoundError, TooLargeError, TranslogError, UnsupportedMediaError
from translog.identity.principal import Permission, require
from translog.log.pool import Sequenced
from translog.log.reader import Reader
from translog.server.ack import AckQuery, AppendQuery, Receipts, checkpoint_of, is_published, prove, receipt_url
from translog.server.api import JSON, NDJSON, NO_STORE, OCTETS, PLAIN_TEXT, PRINCIPAL, Api, Route, parse_query
from translog.server.body import read_body
from translog.storage.store import Profile


class Result(BaseModel):
    """What became of one entry."""

    index: int
    receipt: str | None = Field(None, description="Where the receipt will be; in answers of status 202.")
    proof: list[str] | None = Field(None, description="Inclusion proof under `checkpoint`, base64, with receipts=full.")


class AppendAnswer(BaseModel):
    """What became of a batch. `proof` members and `checkpoint` together are the receipts."""

    first: int
    count: int
    results: list[Result]
    checkpoint: str | None = Field(None, description="A note whose tree has all of these entries; null before that.")


async def post_add(api: Api, request: web.Request) -> web.Response:
    _require_appender(api, request)
    query = parse_query(AckQuery, request)
    entry = await read_body(request, api.settings)
    await _require_no_key_change(api, [entry])
    sequenced = await api.service.append([entry], timeout_ms=api.settings.commit_deadline_ms)
    published = await is_published(api, sequenced.first + sequenced.count, query.ack)
    location = receipt_url(api, sequenced.first)
    headers = {"Content-Type": PLAIN_TEXT, "Cache-Control": NO_STORE, "Location": location}
    return web.Response(status=200 if published else 202, body=b"%d" % sequenced.first, headers=headers)


async def post_entries(api: Api, request: web.Request) -> web.Response:
    _require_appender(api, request)
    query = parse_query(AppendQuery, request)
    content_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    split = _SPLITTERS.get(content_type)
    if split is None:
        raise UnsupportedMediaError(
            "this content type is not an entry batch", hint=f"send {' or '.join(_SPLITTERS)}", code="unsupported-type"
        )
    entries = split(await read_body(request, api.settings), api.settings.entries_per_request_max)
    await _require_no_key_change(api, entries)
    sequenced = await api.service.append(entries, timeout_ms=api.settings.commit_deadline_ms)
    published = await is_published(api, sequenced.first + sequenced.count, query.ack)
    body = b""
    if published:
        # On a reader's thread: a large answer takes long to prove and to write. If it fails, the entries are logged all the
        # same, and the answer says where their receipts will be.
        try:
            body = await api.service.read(lambda reader: _published_answer(reader, sequenced, query.receipts))
        except TranslogError:
            published = False
    return web.Response(
        status=200 if published else 202,
        body=body if published else _durable_answer(api, sequenced, query.receipts),
        content_type=JSON,
        headers={"Cache-Control": NO_STORE},
    )


def _require_appender(api: Api, request: web.Request) -> None:
    require(request[PRINCIPAL], Permission.APPEND)
    if api.service.meta.profile is not Profile.OPAQUE:
        raise NotFoundError("this log takes audit events, not opaque entries", hint="POST /v1/events", code="not-opaque")


async def _require_no_key_change(api: Api, entries: Sequence[bytes]) -> None:
    if api.keys is not None:
        await api.keys.require_none(entries)


def split_lines(body: bytes, entries_max: int) -> list[bytes]:
    """Each line without its newline is an entry; the last one may lack it. Raises MalformedError, TooLargeError."""
    lines = body.split(b"\n", entries_max + 1)
    if not lines[-1]:
        lines.pop()
    return _bounded(lines, entries_max)


def split_bundle(body: bytes, entries_max: int) -> list[bytes]:
    """The entry-bundle encoding, of any number of entries. Raises MalformedError, TooLargeError."""
    try:
        return _bounded(decode_bundle(body, count_max=entries_max), entries_max)
    except MalformedError as error:
        raise (_too_many(entries_max) if error.code == "too-many-entries" else error) from None


def _bounded(entries: list[bytes], entries_max: int) -> list[bytes]:
    if not entries:
        raise MalformedError("there is no entry in the body", hint="an empty entry is sent as an empty line", code="no-entries")
    if len(entries) > entries_max:
        raise _too_many(entries_max)
    return entries


def _too_many(entries_max: int) -> TooLargeError:
    return TooLargeError(
        f"more than {entries_max} entries in one request", hint="send smaller batches", code="too-many-entries"
    )


_SPLITTERS = {NDJSON: split_lines, OCTETS: split_bundle}


def _published_answer(reader: Reader, sequenced: Sequenced, receipts: Receipts) -> bytes:
    results = []
    if receipts is not Receipts.NONE:
        full = receipts is Receipts.FULL
        results = [Result(index=n, proof=prove(reader, n) if full else None) for n in sequenced.indexes]
    checkpoint = checkpoint_of(reader)
    return _answer(sequenced, results, checkpoint if results else None)


def _durable_answer(api: Api, sequenced: Sequenced, receipts: Receipts) -> bytes:
    results = []
    if receipts is not Receipts.NONE:
        results = [Result(index=n, receipt=receipt_url(api, n)) for n in sequenced.indexes]
    return _answer(sequenced, results, None)


def _answer(sequenced: Sequenced, results: list[Result], checkpoint: str | None) -> bytes:
    answer = AppendAnswer(first=sequenced.first, count=sequenced.count, results=results, checkpoint=checkpoint)
    return answer.model_dump_json().encode()


_ERRORS = (400, 404, 413, 415, 500, 503)

ROUTES = (
    Route(
        method="POST",
        path="/add",
        handler=post_add,
        summary="Append the body as one entry",
        query=AckQuery,
        bodies=(OCTETS,),
        answers={
            200: ("The index, decimal: committed and in a checkpoint.", PLAIN_TEXT, None),
            202: ("The index, decimal: committed; the receipt follows at Location.", PLAIN_TEXT, None),
        },
        errors=_ERRORS,
    ),
    Route(
        method="POST",
        path="/v1/entries",
        handler=post_entries,
        summary="Append a batch of entries, all or nothing, in order",
        query=AppendQuery,
        bodies=(NDJSON, OCTETS),
        answers={
            200: ("Committed and in a checkpoint.", JSON, AppendAnswer),
            202: ("Committed; the receipts follow.", JSON, AppendAnswer),
        },
        errors=_ERRORS,
    ),
)
