"""`/services/collector`: the HTTP event collector that Splunk-style senders speak.

Rules: the token comes as `Authorization: Splunk <token>`, or as any other credential here; an answer is the collector's own
{"text","code"}, after the events are committed; a record is never refused for what it says. Its stream is the header
Translog-Stream, or the credential's default: the sender's `index` and `source` are fields of the event and grant nothing.
"""

import json
from collections.abc import Mapping

from aiohttp import web
from pydantic import BaseModel

from translog.errors import (
    AuthenticationError,
    MalformedError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    TranslogError,
)
from translog.events.mapping import Source
from translog.events.sources.collector import COLLECTOR, COLLECTOR_RAW, raw_headers
from translog.identity.principal import Permission, require
from translog.log.lifecycle import Mode
from translog.server.api import JSON, NO_STORE, PLAIN_TEXT, PRINCIPAL, Api, Route, require_events
from translog.server.body import read_body
from translog.server.events_api import headers_of, stream_of, take
from translog.server.problem import problem
from translog.server.push import push

_SUCCESS = (0, "Success")
_HEALTHY = (17, "HEC is healthy")
_NO_DATA = (5, "No data")
_INVALID = (6, "Invalid data format")
_INCORRECT_INDEX = (7, "Incorrect index")
_BUSY = (9, "Server is busy")
_OF_THE_STREAM = frozenset({"stream-not-allowed", "numbered-otherwise", "too-many-streams"})
"""Codes of errors that no other token would mend."""
_CODES: tuple[tuple[type[TranslogError], tuple[int, str]], ...] = (
    (AuthenticationError, (2, "Token is required")),
    (PermissionDeniedError, (4, "Invalid token")),
    (MalformedError, _INVALID),
    (RefusedError, _INVALID),
    (NotFoundError, _INVALID),
)
"""The collector's own codes. The first that fits; busy for any other."""


@push
async def post_event(api: Api, request: web.Request) -> web.Response:
    return await _post(api, request, COLLECTOR, {})


@push
async def post_raw(api: Api, request: web.Request) -> web.Response:
    return await _post(api, request, COLLECTOR_RAW, raw_headers(request.query, headers_of(request)))


async def get_health(api: Api, request: web.Request) -> web.Response:
    require_events(api)
    ready = api.service.mode is Mode.OPEN
    return _told(200, *_HEALTHY) if ready else _told(503, *_BUSY)


async def _post(api: Api, request: web.Request, source: Source, more: Mapping[str, str]) -> web.Response:
    events = require_events(api)
    stream = stream_of(require(request[PRINCIPAL], Permission.APPEND), request)
    body = await read_body(request, api.settings)
    intaken = await take(api, events, request, body, source=source.name, stream=stream, more=more)
    return _told(200, *_SUCCESS) if intaken.results else _told(400, *_NO_DATA)


def _refuse(request: web.Request, error: TranslogError) -> web.Response:
    """The error as the collector tells it."""
    response = problem(error)
    code, text = next((told for kind, told in _CODES if isinstance(error, kind)), _BUSY)
    if error.code in _OF_THE_STREAM:
        code, text = _INCORRECT_INDEX
    detail = json.loads(response.body).get("detail", "") if isinstance(response.body, bytes) else ""
    answer = _told(response.status, code, f"{text}: {detail}")
    for name in ("Retry-After", "WWW-Authenticate"):
        if name in response.headers:
            answer.headers[name] = response.headers[name]
    return answer


def _told(status: int, code: int, text: str) -> web.Response:
    body = json.dumps({"text": text, "code": code}).encode()
    return web.Response(status=status, body=body, content_type=JSON, headers={"Cache-Control": NO_STORE})


_ANSWERS: dict[int, tuple[str, str, type[BaseModel] | None]] = {200: ('Committed: `{"text":"Success","code":0}`.', JSON, None)}
_ERRORS = (400, 401, 403, 404, 413, 415, 503)

ROUTES = (
    *(
        Route(
            method="POST",
            path=path,
            handler=post_event,
            summary="Log events as the HTTP event collector's senders send them",
            bodies=(JSON,),
            answers=_ANSWERS,
            errors=_ERRORS,
            refuse=_refuse,
            own_media=(JSON,),
        )
        for path in ("/services/collector", "/services/collector/event", "/services/collector/event/1.0")
    ),
    *(
        Route(
            method="POST",
            path=path,
            handler=post_raw,
            summary="Log lines of text, an event each",
            bodies=(PLAIN_TEXT,),
            answers=_ANSWERS,
            errors=_ERRORS,
            refuse=_refuse,
            own_media=(JSON,),
        )
        for path in ("/services/collector/raw", "/services/collector/raw/1.0")
    ),
    *(
        Route(
            method="GET",
            path=path,
            handler=get_health,
            summary="Whether the collector takes events",
            answers={200: ("It does.", JSON, None)},
            errors=(404, 503),
            own_media=(JSON,),
        )
        for path in ("/services/collector/health", "/services/collector/health/1.0")
    ),
)
