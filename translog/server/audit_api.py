"""`POST /v1/audit`: the draft OpenTelemetry audit signal, behind the setting `server.intake.audit_signal`.

Rules: a batch is taken whole or not at all, and never in part; every record gets the draft's AuditReceipt, which here carries
the inclusion receipt too. The same record again is the same success; an id that the log has with other content is 409, and is
not to be tried again. Trouble of ours is 503. events/sources/audit.py has the documents.
"""

import json
from typing import Any

from aiohttp import web

from translog.errors import ConflictError, NotFoundError, UnsupportedMediaError
from translog.events.entry import parse_entry
from translog.events.jsontext import JSONObject
from translog.events.sources.audit import (
    AUDIT,
    Stored,
    build_conflict,
    build_invalid,
    build_success,
    integrity_hash,
    record_id,
)
from translog.events.sources.otlp import PROTOBUF
from translog.identity.principal import Permission, require
from translog.log.reader import Reader
from translog.server.ack import Ack, is_published, receipt_url
from translog.server.api import JSON, NO_STORE, PRINCIPAL, Api, Route, require_events
from translog.server.body import read_body
from translog.server.events_api import headers_of, stream_of
from translog.server.intake import Taken
from translog.server.push import push
from translog.storage.store import LogStore


@push
async def post_audit(api: Api, request: web.Request) -> web.Response:
    events = require_events(api)
    if not api.settings.intake.audit_signal:
        raise NotFoundError(
            "this log does not take the audit signal", hint="its operator can set server.intake.audit_signal", code="not-taken"
        )
    principal = require(request[PRINCIPAL], Permission.APPEND)
    media = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media not in (JSON, PROTOBUF):
        raise UnsupportedMediaError("this content type is not OTLP", hint=f"send {PROTOBUF} or {JSON}", code="unsupported-type")
    stream = stream_of(principal, request)
    body = await read_body(request, api.settings)
    records = await events.intake.split(AUDIT, body, headers_of(request), api.settings.entries_per_request_max)
    invalid = await events.intake.in_thread(lambda: build_invalid(records))
    if invalid is not None:
        return _answer(400, invalid)
    names = [record_id(record) or "" for record in records]
    if not records:
        return _answer(200, build_success([], sink=api.service.meta.origin))
    try:
        intaken = await events.intake.take(stream, AUDIT, records, whole=True)
    except ConflictError as error:
        if error.code != "id-conflict":
            raise
        conflicts = await events.intake.find_conflicts(stream, AUDIT, records)
        return _answer(409, build_conflict(names, [names[place] for place in conflicts]))
    published = await is_published(api, intaken.size, Ack.PUBLISHED)
    received = await api.service.read_store(lambda store: _received_at_ms(store, intaken.results))
    receipts = await _receipts(api, intaken.results, published=published)

    def build() -> dict[str, Any]:
        stored = [
            Stored(record_id=name, integrity_hash=integrity_hash(record), received_at_ms=time_ms, receipt=receipt)
            for name, record, time_ms, receipt in zip(names, records, received, receipts, strict=True)
        ]
        return build_success(stored, sink=api.service.meta.origin)

    return _answer(200 if published else 202, await events.intake.in_thread(build))


def _received_at_ms(store: LogStore, results: list[Taken]) -> list[int]:
    """When the log received each, from its entry."""
    return [parse_entry(store.read_entries(start=taken.index, end=taken.index + 1)[0]).received_at_ms for taken in results]


async def _receipts(api: Api, results: list[Taken], *, published: bool) -> list[JSONObject]:
    """For each the tlog-proof file, or where it will be."""
    pending = [{"index": taken.index, "receipt_url": receipt_url(api, taken.index)} for taken in results]
    if not published:
        return pending

    def read(reader: Reader) -> list[JSONObject]:
        return [{"index": taken.index, "receipt": reader.receipt(index=taken.index).decode()} for taken in results]

    try:
        return await api.service.read(read)
    except NotFoundError:  # a checkpoint without its quorum has taken the place of the one that was waited for
        return pending


def _answer(status: int, document: dict[str, Any]) -> web.Response:
    body = json.dumps(document, ensure_ascii=False).encode()
    return web.Response(status=status, body=body, content_type=JSON, headers={"Cache-Control": NO_STORE})


ROUTES = (
    Route(
        method="POST",
        path="/v1/audit",
        handler=post_audit,
        summary="Log records of the draft OpenTelemetry audit signal, all or nothing",
        bodies=(PROTOBUF, JSON),
        answers={
            200: ("All of them are logged; each with its receipt.", JSON, None),
            202: ("All of them are logged; the receipts follow.", JSON, None),
        },
        errors=(400, 401, 403, 404, 409, 413, 415, 503),
        own_media=(JSON,),
    ),
)
