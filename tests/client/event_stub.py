"""The other party of event submission: takes events as formats.md says, deduplicates them by id, and fails as planned.

Rules: `plan` holds a fault for each request, in order; when it is used up the stub is honest. What was stored is in `stored`,
the bytes of each record with its id, so that a test counts what is in the log and not what was said about it.
"""

import asyncio
import gzip
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from threading import Thread
from typing import Any

from aiohttp import web
from core.merkle_oracle import Oracle

from client.simulator import ED25519, ORIGIN, sign_head
from translog.core.proof import Receipt, format_receipt
from translog.core.wire import encode_base64


class Fault(StrEnum):
    """What happens to a request. Names say whether the events are stored."""

    NONE = "none"
    RESET_BEFORE = "reset before commit"
    RESET_AFTER = "reset after commit"
    CUT_AFTER = "answer cut, after commit"
    GARBAGE_AFTER = "answer is no JSON, after commit"
    SHORT_AFTER = "answer lacks a result, after commit"
    SLOW_BEFORE = "no answer in time, before commit"
    SLOW_AFTER = "no answer in time, after commit"
    ERROR_BEFORE = "500 before commit"
    ERROR_AFTER = "500 after commit"
    BUSY = "503 with Retry-After"
    UNKNOWN_BEFORE = "503 outcome-unknown before commit"
    UNKNOWN_AFTER = "503 outcome-unknown after commit"
    TOO_MANY = "429"
    GATEWAY_AFTER = "504 of a proxy, after commit"
    DURABLE = "202"


COMMITS = {fault for fault in Fault if fault.value.endswith("after commit")} | {Fault.NONE, Fault.DURABLE}


def uid_of(record: Any) -> str | None:
    """The id of a record in the short form, OCSF, or one of a few sources."""
    if not isinstance(record, dict):
        return None
    uid = record["metadata"].get("uid") if isinstance(record.get("metadata"), dict) else record.get("id")
    return uid or record.get("eventID") or record.get("auditID") or record.get("_document_id")


class EventStub:
    """A log of events over HTTP. Change anything public at any time.

    `status`: every append is refused with it. `result` changes what is said of a record.
    """

    def __init__(self, plan: Iterable[Fault] = ()) -> None:
        self.plan = deque(plan)
        self.stored: list[tuple[str | None, bytes]] = []
        self.streams: list[str] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.faults: list[Fault] = []
        self.body_bytes_max = 16 * 1024 * 1024
        self.status: int | None = None
        self.retry_after = "1"
        self.result: Callable[[dict[str, Any], Any], dict[str, Any]] = lambda result, record: result
        self.routes: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {}
        self.unpublished = 0
        """How many requests for receipts, entries and events are answered with not-published."""
        self.entries_status = 200
        self.stopping = asyncio.Event()

    @property
    def uids(self) -> list[str | None]:
        return [uid for uid, _ in self.stored]

    def _split(self, request: web.Request, body: bytes) -> list[bytes]:
        if request.content_type in ("application/x-ndjson", "text/plain"):
            return [line for line in body.split(b"\n") if line]
        document = json.loads(body)
        for name in ("Records", "items"):
            if isinstance(document, dict) and name in document:
                document = document[name]
        return [json.dumps(one).encode() for one in (document if isinstance(document, list) else [document])]

    def _commit(self, records: list[bytes], stream: str) -> list[dict[str, Any]]:
        results = []
        for data in records:
            try:
                record = json.loads(data)
            except ValueError:
                record = None
            uid = uid_of(record)
            known = [index for index, (there, _) in enumerate(self.stored) if there == uid and uid is not None]
            same = [index for index in known if self.stored[index][1] == data]
            if not same:
                self.stored.append((uid, data))
                self.streams.append(stream)
            result: dict[str, Any] = {
                "index": same[0] if same else len(self.stored) - 1,
                "duplicate": bool(same),
                "error": None,
            }
            if known and not same:
                result["conflicts_with"] = known[0]
            if record is None:
                result["error"] = "not-json"
            results.append(self.result(result, record))
        return results

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(request)
        self.bodies.append(body)
        if self.status is not None:
            return _problem(self.status, "refused-by-plan")
        if len(body) > self.body_bytes_max:
            return _problem(413, "body-too-large")
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        fault = self.plan.popleft() if self.plan else Fault.NONE
        self.faults.append(fault)
        stream: str = request.match_info.get("stream", request.headers.get("Translog-Stream", "default"))
        results = self._commit(self._split(request, body), stream) if fault in COMMITS else []
        if request.query.get("receipts") == "full" and fault is not Fault.DURABLE:
            for result in results:
                result["proof"] = self.proof(result["index"])
        return await self._answer(request, fault, results)

    async def _answer(self, request: web.Request, fault: Fault, results: list[dict[str, Any]]) -> web.StreamResponse:
        match fault:
            case Fault.RESET_BEFORE | Fault.RESET_AFTER:
                _abort(request)
            case Fault.CUT_AFTER:
                response = web.StreamResponse(headers={"Content-Length": "1000"})
                await response.prepare(request)
                await response.write(b'{"results":[{"ind')
                _abort(request)
                return response
            case Fault.GARBAGE_AFTER:
                return web.Response(text="<html>")
            case Fault.SHORT_AFTER:
                results.pop()
            case Fault.SLOW_BEFORE | Fault.SLOW_AFTER:
                await self.stopping.wait()
            case Fault.ERROR_BEFORE | Fault.ERROR_AFTER:
                return _problem(500, "internal")
            case Fault.BUSY:
                return _problem(503, "too-busy", {"Retry-After": self.retry_after})
            case Fault.UNKNOWN_BEFORE | Fault.UNKNOWN_AFTER:
                return _problem(503, "outcome-unknown")
            case Fault.TOO_MANY:
                return _problem(429, "too-many", {"Retry-After": self.retry_after})
            case Fault.GATEWAY_AFTER:
                return web.Response(status=504, text="gateway timeout")
        durable = fault is Fault.DURABLE
        note = self.note().decode() if request.query.get("receipts") == "full" and not durable else None
        document = {"results": results, "checkpoint": note}
        return web.json_response(document, status=202 if durable else 200)

    # --- the read side --------------------------------------------------------------------------------------------------

    def entry(self, index: int) -> bytes:
        """What the log made of a record."""
        root = encode_base64(hashlib.sha256(self.stored[index][1]).digest())
        names = f'"member":"acme","stream":"{self.streams[index]}","seq":{index},"numbered":"log"'
        return f'{{"translog":"event/1",{names},"received_at":1763750000000,"root":"{root}"}}'.encode()

    def oracle(self) -> Oracle:
        return Oracle([self.entry(index) for index in range(len(self.stored))])

    def note(self) -> bytes:
        """The checkpoint of everything stored."""
        return sign_head(len(self.stored), self.oracle().mth(0, len(self.stored)))

    def proof(self, index: int) -> list[str]:
        return [encode_base64(value) for value in self.oracle().path(index, 0, len(self.stored))]

    async def _log(self, request: web.Request) -> web.StreamResponse:
        size = len(self.stored)
        limits = {"entries_per_request_max": 10_000, "body_bytes_max": self.body_bytes_max}
        document = {"origin": ORIGIN, "vkeys": [str(ED25519.vkey)], "published_size": size, "integrated_size": size}
        return web.json_response({**document, "profile": "events", "limits": limits})

    async def _receipt(self, request: web.Request) -> web.StreamResponse:
        if self.unpublished > 0:
            self.unpublished -= 1
            return _problem(404, "not-published")
        index = int(request.match_info["index"])
        proof = tuple(self.oracle().path(index, 0, len(self.stored)))
        return web.Response(body=format_receipt(Receipt(index=index, proof=proof, checkpoint=self.note())))

    async def _entries(self, request: web.Request) -> web.StreamResponse:
        if self.entries_status != 200:
            return _problem(self.entries_status, "entries-refused")
        if self.unpublished > 0:
            self.unpublished -= 1
            return _problem(404, "not-published")
        start, end = int(request.query["start"]), min(int(request.query["end"]), len(self.stored))
        entries = [encode_base64(self.entry(index)) for index in range(start, end)]
        return web.json_response({"start": start, "end": end, "entries": entries})

    async def _event(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.stored[int(request.match_info["index"])][1], content_type="application/json")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serves; gives the URL."""
        app = web.Application(client_max_size=1 << 30)
        honest = {
            ("POST", "/v1/events"): self.handle,
            ("POST", "/v1/sources/{source}/{stream}"): self.handle,
            ("GET", "/v1/log"): self._log,
            ("GET", "/v1/receipts/{index}"): self._receipt,
            ("GET", "/v1/entries"): self._entries,
            ("GET", "/v1/events/{index}"): self._event,
        }
        for path, handler in self.routes.items():
            app.router.add_route("*", path, handler)
        for (method, path), handler in honest.items():
            if path not in self.routes:
                app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, auto_decompress=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            self.stopping.set()
            await runner.cleanup()

    @contextmanager
    def serving_aside(self) -> Iterator[str]:
        """`serving` on a thread of its own, for what runs a loop itself or blocks."""
        loop = asyncio.new_event_loop()
        thread = Thread(target=loop.run_forever)
        thread.start()
        served = self.serving()
        try:
            yield asyncio.run_coroutine_threadsafe(served.__aenter__(), loop).result()
        finally:
            asyncio.run_coroutine_threadsafe(served.__aexit__(None, None, None), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _problem(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps({"status": status, "code": code, "detail": f"planned {code}"}).encode()
    return web.Response(status=status, body=body, content_type="application/problem+json", headers=headers)
