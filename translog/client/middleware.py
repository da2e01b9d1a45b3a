"""An audit event for each request to an aiohttp or ASGI application, and the trace context carried through it.

    app = web.Application(middlewares=[audit_middleware(log, who=lambda request: request.get("user"))])
    app = AuditASGI(app, log, who=lambda scope: scope.get("user"))

Rules: the path is logged without its query, which may hold secrets; the actor is who `who` says, or missing; an event that
cannot be sent whole is sent reduced, and says so; a failing log never fails a request (give the submitter an `on_unsent`),
unless `required`: then the response waits for the log to have the whole event, and is 503 where it does not. The request was
carried out by then all the same: `required` shows nothing unlogged, it does not undo it. Addresses are those of the
connection: forwarding headers are not believed.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from translog.client.events import EventSubmitter
from translog.client.plain import clip, plain
from translog.client.trace import TraceContext, continue_trace, current, outgoing_headers
from translog.errors import MalformedError, TooLargeError, TranslogError

Event = dict[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUIRED_TIMEOUT_MS = 10_000
_TEXT_CHARS_MAX = 4_096
"""Of what the client sends and an event carries: path, user agent."""
_REDUCED = (
    *("action", "outcome", "reason", "decision", "http", "duration_ms", "src_ip", "src_port"),
    *("trace_id", "span_id", "parent_span_id"),
)
"""What is sent of an event that could not be sent whole: all but what the application or the client of the request chose the
form or the length of."""
_UNLOGGED = b"the request could not be logged\n"
_logger = logging.getLogger(__name__)


class _Auditor:
    """What the two middlewares share: where events go, and what happens when they do not get there."""

    def __init__(self, log: EventSubmitter, required: bool, timeout_ms: int) -> None:
        self._log = log
        self.required = required
        self._timeout_ms = timeout_ms

    async def emit(self, event: Event, error: BaseException | None) -> bool:
        """Whether the response may be sent: always, unless the event is required and not logged. `error`: what ended the
        request; where that is its cancellation, nobody waits for a response, nor is the event waited for."""
        try:
            if self.required and not isinstance(error, asyncio.CancelledError):
                await self._log.submit(event, timeout_ms=self._timeout_ms)
            else:
                self._log.post_nowait(event)
        except (MalformedError, TooLargeError) as failure:  # refused before it was sent
            self._emit_reduced(event, failure)
            return not self.required
        except TranslogError as failure:
            lost = "the response is withheld" if self.required else "the event is lost"
            _logger.error("a request was not logged, %s: %s", lost, failure)
            return not self.required
        return True

    def _emit_reduced(self, event: Event, refusal: TranslogError) -> None:
        """A request must not hide itself by what it makes the application say of it: what is certain is sent all the same."""
        reduced = {name: event[name] for name in _REDUCED if name in event}
        reduced["message"] = f"the event of this request was reduced, since it could not be sent whole: {refusal}"
        try:
            self._log.post_nowait(reduced)
            _logger.error("the event of a request was reduced, since it could not be sent whole: %s", refusal)
        except TranslogError as failure:
            _logger.error("a request was not logged, the event is lost: %s; nor could it be reduced: %s", refusal, failure)


def _event(trace: TraceContext, method: str, route: str | None, path: str, begun: float) -> Event:
    event: Event = {
        "action": _short(f"{method} {route}" if route else method),
        "resource": _short(path),
        "http": {"method": _short(method), "url": _short(path)},
        "trace_id": trace.trace_id,
        "span_id": trace.span_id,
        "duration_ms": round(1000 * (time.monotonic() - begun)),
    }
    if trace.parent_id is not None:
        event["parent_span_id"] = trace.parent_id
    return event


def _add(event: Event, **more: Any) -> None:
    event |= {name: plain(value) for name, value in more.items() if value is not None and value != ""}


def _add_outcome(event: Event, status: int | None, error: BaseException | None) -> None:
    """`failure` for an exception and any status from 400; `unknown` where the client went before there was one."""
    if status is not None:
        event["http"]["status"] = status
    if isinstance(error, asyncio.CancelledError) and status is None:
        event["outcome"], event["reason"] = "unknown", "the client disconnected, or the server stopped"
    elif error is not None and not isinstance(error, web.HTTPException):
        event["outcome"], event["reason"] = "failure", type(error).__name__  # its text may hold secrets
    else:
        event["outcome"] = "unknown" if status is None else "failure" if status >= 400 else "success"
    if status in (401, 403):
        event["decision"] = "denied"


def _short(text: str) -> str:
    return clip(text, _TEXT_CHARS_MAX)


def _call(who: Callable[[Any], Any] | None, request: Any) -> Any:
    """The actor, as JSON; None where the application's own function or object fails, which fails no request."""
    try:
        return None if who is None else plain(who(request))
    except Exception:
        _logger.exception("the function that finds a request's actor failed")
        return None


def audit_middleware(
    log: EventSubmitter,
    *,
    who: Callable[[web.Request], Any] | None = None,
    required: bool = False,
    timeout_ms: int = REQUIRED_TIMEOUT_MS,
) -> Middleware:
    """An aiohttp middleware. `who` is called when the response is there and gives the actor: a name, an object with uid, name
    and the like, or None. With `required`, a response is sent when the log has its event, else 503; one that the handler has
    begun to send already (a stream, a WebSocket) cannot be held back."""
    auditor = _Auditor(log, required, timeout_ms)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun = time.monotonic()
        trace = continue_trace(request.headers.getall("traceparent", []), request.headers.getall("tracestate", []))
        token = current.set(trace)
        response: web.StreamResponse | None = None
        error: BaseException | None = None
        try:
            response = await handler(request)
        except BaseException as raised:
            error = raised
            raise
        finally:
            current.reset(token)
            status = response.status if response is not None else _status_of(error)
            sent = response is not None and response.prepared
            event = _aiohttp_event(request, trace, begun, status, error, _call(who, request))
            may_answer = await auditor.emit(event, error)
            # What the application did not catch is an empty 500 and its operator's business: it is not replaced.
            if not may_answer and not sent and (error is None or isinstance(error, web.HTTPException)):
                raise web.HTTPServiceUnavailable(text=_UNLOGGED.decode()) from error
        return response

    return middleware


def _status_of(error: BaseException | None) -> int | None:
    if isinstance(error, web.HTTPException):
        return error.status
    return 500 if isinstance(error, Exception) else None


def _aiohttp_event(
    request: web.Request, trace: TraceContext, begun: float, status: int | None, error: BaseException | None, actor: Any
) -> Event:
    resource = request.match_info.route.resource
    event = _event(trace, request.method, resource.canonical if resource else None, request.path, begun)
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    src_ip, src_port = peer[:2] if isinstance(peer, tuple) and len(peer) >= 2 else (request.remote, None)
    _add(event, actor=actor, src_ip=src_ip, src_port=src_port, user_agent=_short(request.headers.get("User-Agent", "")))
    _add_outcome(event, status, error)
    return event


class AuditASGI:
    """An ASGI 3 application around another. Arguments are those of `audit_middleware`; `who` is given the scope. WebSockets and
    the lifespan pass through, unlogged.

    With `required`, the first message of the response is held back until the log has the event: so its status is known then,
    and its duration is that up to its first byte.
    """

    def __init__(
        self,
        app: Application,
        log: EventSubmitter,
        *,
        who: Callable[[Scope], Any] | None = None,
        required: bool = False,
        timeout_ms: int = REQUIRED_TIMEOUT_MS,
    ) -> None:
        self._app = app
        self._who = who
        self._auditor = _Auditor(log, required, timeout_ms)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope.get("headers", [])
        trace = continue_trace(_values(headers, b"traceparent"), _values(headers, b"tracestate"))
        exchange = _Exchange(self._auditor, self._who, scope, trace, send)
        token = current.set(trace)
        try:
            await self._app(scope, receive, exchange.send)
        except BaseException as error:
            await exchange.end(error)
            raise
        else:
            await exchange.end(None)
        finally:
            current.reset(token)


class _Exchange:
    """One request, from the application's side."""

    def __init__(
        self, auditor: _Auditor, who: Callable[[Scope], Any] | None, scope: Scope, trace: TraceContext, send: Send
    ) -> None:
        self._auditor = auditor
        self._who = who
        self._scope = scope
        self._trace = trace
        self._send = send
        self._begun = time.monotonic()
        self._status: int | None = None
        self._emitted = False
        self._withheld = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Passes on what the application says, unless it is withheld."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._auditor.required and not await self._emit(None):
                await self._refuse()
        if not self._withheld:
            await self._send(message)

    async def end(self, error: BaseException | None) -> None:
        """The application has returned or raised."""
        if not self._emitted and not await self._emit(error):  # nothing was sent: what starts a response emits first
            await self._refuse()

    async def _emit(self, error: BaseException | None) -> bool:
        self._emitted = True
        status = 500 if self._status is None and isinstance(error, Exception) else self._status
        scope = self._scope
        event = _event(self._trace, scope["method"], _route_of(scope), scope["path"], self._begun)
        client = scope.get("client") or (None, None)
        agent = ", ".join(_values(scope.get("headers", []), b"user-agent"))
        _add(event, actor=_call(self._who, scope), src_ip=client[0], src_port=client[1], user_agent=_short(agent))
        _add_outcome(event, status, error)
        return await self._auditor.emit(event, error)

    async def _refuse(self) -> None:
        self._withheld = True
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_UNLOGGED))]
        await self._send({"type": "http.response.start", "status": 503, "headers": headers})
        await self._send({"type": "http.response.body", "body": _UNLOGGED})


def _route_of(scope: Scope) -> str | None:
    """The template of the route, where the framework leaves one in the scope when it has found it."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None


def _values(headers: Any, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def trace_config() -> aiohttp.TraceConfig:
    """For `aiohttp.ClientSession(trace_configs=[...])`: requests made within a span carry traceparent and tracestate, and
    what the caller had set of these is replaced."""

    async def inject(session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
        headers: Mapping[str, str] = outgoing_headers()
        if headers:
            params.headers.popall("tracestate", None)
            params.headers.update(headers)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(inject)
    return config
