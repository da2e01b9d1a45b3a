"""`POST /v1/streams/<stream>`: events that their sender has sealed and numbered.

    {"first_seq":17}
    {"root":"<b64>","seed":"<b64>","texts":["[\\"translog\\",{...}]","[\\"metadata\\",{...}]",...]}   the log encrypts it
    {"root":"<b64>","record":"<b64>"}                          encrypted for the member's readers: opaque to the log
    {"root":"<b64>"}                                           the log proves it and never sees it
    {"checkpoint":"<note>"}                                    optional, last: the stream's own signed checkpoint

Rules: the whole body or nothing of it; the log recomputes what it can see (root from seed and texts, header against member and
stream) and refuses what does not add up; numbers follow on without a hole: a number that is taken by another event is 409
`stream-forked`, one that is too high 409 `wrong-number`. Sent again, a batch is answered with what was logged before.
"""

from typing import Any

from aiohttp import web

from translog.core.wire import HASH_BYTES, decode_base64
from translog.errors import MalformedError, TooLargeError
from translog.events.cipher import RECORD_VERSION
from translog.events.jsontext import INTEGER_MAX, Slice, split_lines
from translog.events.seal import SEED_BYTES
from translog.identity.principal import Permission, require, require_stream
from translog.log.numbering import Draft, Placed
from translog.server.ack import AppendQuery
from translog.server.api import NDJSON, PRINCIPAL, Api, EventLog, Route, parse_query, require_events
from translog.server.body import read_body
from translog.server.events_api import ANSWERS, answer
from translog.server.intake import Intaken, Taken
from translog.storage.store import StreamName

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
    drafts = await events.intake.in_thread(lambda: _drafts(api, events, stream, body))
    sequenced = await events.intake.take_sealed(drafts)
    results = [
        Taken(index=outcome.index, seq=outcome.seq, duplicate=outcome.duplicate)
        for outcome in sequenced.outcomes
        if isinstance(outcome, Placed)
    ]
    return await answer(api, Intaken(results=results, size=sequenced.size), query)


def _drafts(api: Api, events: EventLog, stream: StreamName, body: bytes) -> list[Draft]:
    """Raises MalformedError naming the line that is wrong, TooLargeError."""
    lines = split_lines(body, records_max=api.settings.entries_per_request_max + _LINES_BESIDE)
    if not lines:
        raise MalformedError("the body is empty", hint='its first line is {"first_seq":n}', code="not-sealed")
    first, *rest = [_members(number, line) for number, line in enumerate(lines, start=1)]
    if first.keys() != {"first_seq"} or not _is_seq(first["first_seq"]):
        raise _malformed(1, 'expected {"first_seq":n} and nothing else')
    if not rest:
        raise MalformedError("there is no event in the body", code="no-entries")
    if len(rest) > api.settings.entries_per_request_max:
        raise TooLargeError("too many events in one request", hint="send smaller batches", code="too-many-entries")
    return [_draft(events, stream, first["first_seq"] + place, line, number=place + 2) for place, line in enumerate(rest)]


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
        errors=(400, 401, 403, 404, 409, 413, 415, 500, 503),
    ),
)
