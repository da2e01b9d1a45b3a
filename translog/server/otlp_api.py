"""`POST /v1/logs`: OTLP/HTTP logs, protobuf and JSON.

Rules: the answer has the content type of the request, errors are a google.rpc.Status; what is accepted is committed before the
answer; nothing is ever rejected in part, because the sender must not send it again: a record that cannot be mapped is logged
with the reason. Its stream is the header Translog-Stream, or the credential's default.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import json

from aiohttp import web

from translog.errors import TranslogError, UnsupportedMediaError
from translog.events.sources.otlp import OTLP, PROTOBUF, encode_status
from translog.identity.principal import Permission, require
from translog.server.api import JSON, NO_STORE, PRINCIPAL, Api, Route, require_events
from translog.server.body import read_body
from translog.server.events_api import stream_of, take
from translog.server.problem import problem
from translog.server.push import push

_EMPTY = {JSON: b"{}", PROTOBUF: b""}
"""ExportLogsServiceResponse without partial_success: everything was accepted."""
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 413: 8, 415: 3, 429: 8, 503: 14}
"""google.rpc.Code of each status: INVALID_ARGUMENT, UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND, RESOURCE_EXHAUSTED,
UNAVAILABLE."""
_UNKNOWN = 2
_RETRY_S_MAX = 2
"""The SDKs' exporters wait 10 s in all, and drop what they have at once if told to wait longer than what is left of that."""


@push
async def post_logs(api: Api, request: web.Request) -> web.Response:
    events = require_events(api)
    principal = require(request[PRINCIPAL], Permission.APPEND)
    media = _media(request)
    if media not in _EMPTY:
        raise UnsupportedMediaError("this content type is not OTLP", hint=f"send {PROTOBUF} or {JSON}", code="unsupported-type")
    stream = stream_of(principal, request)
    await take(api, events, request, await read_body(request, api.settings), source=OTLP.name, stream=stream)
    return web.Response(body=_EMPTY[media], headers={"Content-Type": media, "Cache-Control": NO_STORE})


def _media(request: web.Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def refuse(request: web.Request, error: TranslogError) -> web.Response:
    """The error as a google.rpc.Status, in the request's content type if that is one of OTLP's."""
    response = problem(error)
    media = _media(request)
    if media not in _EMPTY:
        return response
    told = json.loads(response.body) if isinstance(response.body, bytes) else {}
    message = f"{told.get('code', '')}: {told.get('detail', '')}"
    headers = {name: response.headers[name] for name in ("Retry-After", "WWW-Authenticate") if name in response.headers}
    if "Retry-After" in headers:
        headers["Retry-After"] = str(min(int(headers["Retry-After"]), _RETRY_S_MAX))
    return web.Response(
        status=response.status,
        body=encode_status(_CODES.get(response.status, _UNKNOWN), message, media),
        headers={**headers, "Content-Type": media, "Cache-Control": NO_STORE},
    )


ROUTES = (
    Route(
        method="POST",
        path="/v1/logs",
        handler=post_logs,
        summary="Log OTLP log records",
        bodies=(PROTOBUF, JSON),
        answers={200: ("All of them are committed.", JSON, None)},
        errors=(400, 401, 403, 404, 413, 415, 503),
        refuse=refuse,
        own_media=(PROTOBUF, JSON),
    ),
)
