"""`POST /v1/streams/<stream>`: events that their sender has sealed and numbered.

    {"first_seq":17}
    {"root":"<b64>","seed":"<b64>","texts":["[\\"translog\\",{...}]","[\\"metadata\\",{...}]",...]}   the log encrypts it
    {"root":"<b64>","record":"<b64>"}                          encrypted for the member's readers: opaque to the log
    {"root":"<b64>"}                                           the log proves it and never sees it
    {"checkpoint":"<note>"}                                    optional, last: the stream's own signed checkpoint

Rules: the whole body or nothing of it; the log recomputes what it can see (root from seed and texts, header against member and
stream) and refuses what does not add up; numbers follow on without a hole: a number that is taken by another event is 409
`stream-forked`, one that is too high 409 `wrong-number`. Sent again, a batch is answered with what was logged before. A
checkpoint must be signed by a key that is known for the stream, and be of exactly the events up to the last one here: it is
checked every time, and logged if it is larger than those of the stream that were logged since the log was opened. So one that
comes late for known events is logged, and one that is sent again once more at most, after a restart.
"""

from typing import Any

from aiohttp import web

from translog.core.checkpoint import parse_checkpoint
from translog.core.cosignature import KeyVerifier
from translog.core.note import parse_note, verify_note
from translog.core.wire import HASH_BYTES, decode_base64
from translog.errors import (
    ConflictError,
    MalformedError,
    PermissionDeniedError,
    TooLargeError,
    VerificationError,
    WrongNumberError,
)
from translog.events.cipher import RECORD_VERSION
from translog.events.entry import Numbered, StreamCheckpoint, format_stream_checkpoint, stream_origin
from translog.events.jsontext import INTEGER_MAX, Slice, split_lines
from translog.events.seal import SEED_BYTES
from translog.identity.principal import Permission, require, require_stream
from translog.log.drafts import Draft, Note, Placed
from translog.server.ack import AppendQuery
from translog.server.api import NDJSON, PRINCIPAL, Api, EventLog, Route, parse_query, require_events
from translog.server.body import read_body
from translog.server.events_api import ANSWERS, answer
from translog.server.intake import Intaken, Taken
from translog.storage.store import LogStore, StreamName

_RECORD_BYTES_MAX = 16 * 1024 * 1024
_LINES_BESIDE = 2
_WHOLE = {"root", "seed", "texts"}
_OPAQUE = {"root", "record"}
_BARE = {"root"}


async def post_stream(api: Api, request: web.Request) -> web.Response:
    events = require_events(api)
    principal = require(request[PRINCIPAL], Permission.APPEND)
    stream = StreamName(*require_stream(principal, request.match_info["stream"]))
    query = parse_query(AppendQuery, request)
    body = await read_body(request, api.settings)
    drafts, note = await events.intake.in_thread(lambda: _parse(api, events, stream, body))
    items: list[Draft | Note] = [*drafts]
    if note is not None:
        items.append(await _checkpoint(api, stream, drafts, note))
    sequenced = await events.intake.take_sealed(items)
    results = [
        Taken(index=outcome.index, seq=outcome.seq, duplicate=outcome.duplicate)
        for outcome in sequenced.outcomes[: len(drafts)]
        if isinstance(outcome, Placed)
    ]
    return await answer(api, Intaken(results=results, size=sequenced.size), query)


async def _checkpoint(api: Api, stream: StreamName, drafts: list[Draft], note: str) -> Note:
    """The stream's checkpoint as an entry, checked also where the log has all of its events.

    Raises PermissionDeniedError where no key of the stream is known, MalformedError, VerificationError for a note that none of
    them signed or that is not of these events, and ConflictError where these do not follow on what is committed.
    """
    origin = stream_origin(api.service.meta.origin, member=stream.member, stream=stream.stream)
    vkeys = [vkey for vkey in api.members.stream_vkeys(stream.member) if vkey.name == origin]
    if not vkeys:
        raise PermissionDeniedError(
            f"no key is known for checkpoints of stream {stream.stream}",
            hint=f"the log's operator lists one called {origin} under the member's `stream_vkeys`",
            code="no-stream-key",
        )
    parsed = parse_note(note.encode())
    verify_note(parsed, [KeyVerifier(vkey) for vkey in vkeys])
    checkpoint = parse_checkpoint(parsed.text)
    first_seq = drafts[0].seq or 0
    if checkpoint.origin != origin or checkpoint.extensions or checkpoint.size != first_seq + len(drafts):
        raise VerificationError("the checkpoint is not of this stream, or not of the size that it has with these events")

    trees = require_events(api).trees

    def root(store: LogStore) -> bytes:
        if first_seq and store.find_number(stream, first_seq - 1) is None:
            raise _does_not_follow(store, stream, first_seq)
        stored = _stored(store, stream, first_seq, checkpoint.size)
        return trees.root(store, stream, stored=stored, first_seq=first_seq, roots=[draft.root for draft in drafts])

    async with trees.turn(stream):
        found = await api.service.read_store(root)
    if found != checkpoint.root:
        raise VerificationError("the checkpoint's root is not that of the stream's events", code="stream-mismatch")
    entry = format_stream_checkpoint(StreamCheckpoint(member=stream.member, stream=stream.stream, note=note.encode()))
    return Note(entry=entry, stream=stream, size=checkpoint.size)


def _stored(store: LogStore, stream: StreamName, begin: int, end: int) -> int:
    """How many events of a stream that its sender numbers the log has, `end` at most, where it has `begin`: by bisection, since
    numbers are without a hole."""
    while begin < end:
        middle = (begin + end) // 2
        if store.find_number(stream, middle) is None:
            end = middle
        else:
            begin = middle + 1
    return begin


def _does_not_follow(store: LogStore, stream: StreamName, first_seq: int) -> ConflictError:
    """Why events from `first_seq` on cannot come next. Reads all streams."""
    head = store.read_streams().get(stream)
    if head is not None and head.numbered is not Numbered.SENDER:
        return ConflictError(
            f"the stream {stream.stream!r} is numbered by the log, and stays so",
            hint="send this to another stream",
            code="numbered-otherwise",
        )
    stored = 0 if head is None else head.next_seq
    return WrongNumberError(
        f"the stream {stream.stream!r} has {stored} events, and a checkpoint is checked with all before {first_seq}",
        hint="send the ones before first, and wait for their answer",
        expected=stored,
    )


def _parse(api: Api, events: EventLog, stream: StreamName, body: bytes) -> tuple[list[Draft], str | None]:
    """The events, and the note if there is one. Raises MalformedError naming the line that is wrong, TooLargeError."""
    lines = split_lines(body, records_max=api.settings.entries_per_request_max + _LINES_BESIDE)
    if not lines:
        raise MalformedError("the body is empty", hint='its first line is {"first_seq":n}', code="not-sealed")
    first, *rest = [_members(number, line) for number, line in enumerate(lines, start=1)]
    if first.keys() != {"first_seq"} or not _is_seq(first["first_seq"]):
        raise _malformed(1, 'expected {"first_seq":n} and nothing else')
    note = None
    if rest and rest[-1].keys() == {"checkpoint"}:
        note = rest.pop()["checkpoint"]
        if type(note) is not str:
            raise _malformed(len(lines), "checkpoint is not a string")
    if not rest:
        raise MalformedError("there is no event in the body", code="no-entries")
    if len(rest) > api.settings.entries_per_request_max:
        raise TooLargeError("too many events in one request", hint="send smaller batches", code="too-many-entries")
    drafts = [_draft(events, stream, first["first_seq"] + place, line, number=place + 2) for place, line in enumerate(rest)]
    return drafts, note


def _draft(events: EventLog, stream: StreamName, seq: int, line: dict[str, Any], *, number: int) -> Draft:
    try:
        if not _is_seq(seq):
            raise MalformedError("its number is beyond 2^53-1")
        root = decode_base64(_text(line, "root"), size=HASH_BYTES)
        if line.keys() == _BARE:
            return Draft(stream=stream, root=root, record=None, seq=seq)
        if line.keys() == _OPAQUE:
            record = decode_base64(_text(line, "record"))
            if not record or len(record) > _RECORD_BYTES_MAX or record[0] == RECORD_VERSION:
                raise MalformedError("a record that only its readers open begins with a version other than 1")
            return Draft(stream=stream, root=root, record=record, seq=seq)
        if line.keys() != _WHOLE:
            raise MalformedError("it has neither root, seed and texts, nor root and record, nor root alone")
        texts = line["texts"]
        if type(texts) is not list or not all(type(text) is str for text in texts):
            raise MalformedError("texts is not a list of strings")
        seed = decode_base64(_text(line, "seed"), size=SEED_BYTES)
        return events.intake.draft_sealed(stream, seq, [text.encode() for text in texts], seed=seed, root=root)
    except MalformedError as error:
        raise _malformed(number, error.detail) from None
    except UnicodeEncodeError:
        raise _malformed(number, "it has half of a surrogate pair") from None


def _members(number: int, line: Slice) -> dict[str, Any]:
    if line.error or type(line.value) is not dict:
        raise _malformed(number, line.error or "it is not an object")
    value: dict[str, Any] = line.value
    return value


def _text(line: dict[str, Any], name: str) -> str:
    value = line.get(name)
    if type(value) is not str:
        raise MalformedError(f"{name} is not a string")
    return value


def _is_seq(value: object) -> bool:
    return type(value) is int and 0 <= value <= INTEGER_MAX


def _malformed(number: int, detail: str) -> MalformedError:
    return MalformedError(f"line {number}: {detail}", hint="nothing was logged", code="not-sealed")


ROUTES = (
    Route(
        method="POST",
        path="/v1/streams/{stream}",
        handler=post_stream,
        summary="Log events that their sender sealed and numbered, all or nothing",
        query=AppendQuery,
        bodies=(NDJSON,),
        answers=ANSWERS,
        errors=(400, 401, 403, 404, 409, 413, 415, 422, 500, 503),
    ),
)
