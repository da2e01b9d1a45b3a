"""Listening sockets: connections bounded in number and in idle time, HTTP errors in our own shape.

Rules: a connection above the limit is answered 503 and closed at once, or just closed where the answer would take a TLS
handshake; one that has no request in hand for too long, be it idle or dripping a head byte by byte, is closed.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from translog.errors import PushbackError, SettingsError
from translog.server.budget import Budget, Share
from translog.server.problem import (
    BAD_HTTP,
    COMMON_HEADERS,
    CONTENT_TYPE,
    NO_STORE,
    TOO_MANY_CONNECTIONS,
    problem,
    problem_body,
)
from translog.server.settings import ServerSettings

_logger = structlog.get_logger()

_SWEEP_S = 1.0
_SMALL_BYTES = 16 * 1024
"""An answer up to this size is not worth counting: connections are bounded in number."""
_SLICE_BYTES = 64 * 1024
_SLOW_S = 10.0
"""Who takes longer over a large answer loses it when others wait for room."""
_LINGER_S = 1.0
_LINGERING_MAX = 32
"""Refused connections that are kept for a moment, at most; they need file descriptors too (bootstrap.py leaves room)."""
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%a-z]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})", re.ASCII)


class _Connection(web.RequestHandler):
    """aiohttp's connection, with its own errors (what it cannot parse as HTTP) as problem+json."""

    __slots__ = ("answer", "body", "on_lost", "wanted", "wire")

    on_lost: Callable[["_Connection"], None]
    body: Share
    answer: Share
    wanted: bool
    wire: asyncio.Transport | None
    """The transport, which aiohttp forgets as soon as it has asked it to close."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection that is made when the listener stops is not begun: nobody would tell it to end."""
        if isinstance(transport, asyncio.Transport):
            self.wire = transport
        if self.wanted:
            super().connection_made(transport)
        else:
            self.end()

    def end(self) -> None:
        """Lets go of the connection at once."""
        if self.wire is not None:
            self.wire.abort()

    def data_received(self, data: bytes) -> None:
        """aiohttp reads nothing more once a connection is to end; but the request in hand may wait for the rest of its body."""
        in_hand = self.transport is not None and (self._waiter is None or self._waiter.done())
        if not in_hand or not (self._close or self._force_close):
            super().data_received(data)
            return
        ending = self._close, self._force_close
        self._close = self._force_close = False
        try:
            super().data_received(data)
        finally:
            self._close, self._force_close = ending

    def connection_lost(self, exc: BaseException | None) -> None:
        self.body.give_back()
        self.answer.give_back()
        self.on_lost(self)
        self.wire = None
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends the answer, and gives back what it takes as soon as almost all of it is in the kernel's hands."""
        self.body.give_back()
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self.answer.give_back()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500 and not isinstance(exc, ConnectionError):
            _logger.error("a request failed outside of every handler", exc_info=exc)
        detail = "this is no HTTP request that can be taken" if status < 500 else "an internal error; it was logged"
        hint = "it does not parse, or its first line, a header or their number is over a limit" if status < 500 else ""
        response = web.Response(
            status=status,
            body=problem_body(status, BAD_HTTP, detail, hint),
            headers={**COMMON_HEADERS, "Content-Type": CONTENT_TYPE, "Cache-Control": NO_STORE},
        )
        response.force_close()
        return response


class _Sliced(Payload):
    """A body that is written bit by bit: asyncio's TLS takes one large write whole, and says that nothing of it waits."""

    _value: bytes

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """As text, for aiohttp."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Waits after each slice until the connection takes more."""
        for at in range(0, len(self._value), _SLICE_BYTES):
            await writer.write(self._value[at : at + _SLICE_BYTES])

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """The same; the length is always that of the whole."""
        await self.write(writer)


class _Refusal(asyncio.Protocol):
    """What a connection above the limit gets. What it sends is read for a moment and thrown away: closing a socket with unread
    bytes resets it, and the reset can overtake the answer that nothing was written."""

    def __init__(self, lingering: set["_Refusal"]) -> None:
        self._lingering = lingering
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = problem_body(503, TOO_MANY_CONNECTIONS, "this log has all the connections it takes", "try again later")
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
            "Retry-After: 5\r\nCache-Control: no-store\r\nConnection: close\r\n"
        )
        head += "".join(f"{name}: {value}\r\n" for name, value in COMMON_HEADERS.items()) + "\r\n"
        if not isinstance(transport, asyncio.Transport):
            transport.close()
            return
        transport.write(head.encode() + body)
        if len(self._lingering) >= _LINGERING_MAX or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self._transport = transport
        self._lingering.add(self)
        asyncio.get_running_loop().call_later(_LINGER_S, transport.abort)

    def end(self) -> None:
        """Lets go of the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lingering.discard(self)


class _RefusedHandshake(ssl.SSLObject):
    """A TLS connection that fails before anything was read: asyncio then closes the socket at once."""

    def __init__(self) -> None:
        """Without the base class's: it can only be made by a context, for a handshake."""

    def do_handshake(self) -> None:
        raise ssl.SSLError("all connections are taken")


class _BoundedContext(ssl.SSLContext):
    """The context asyncio gets. It asks for a connection's TLS right after its protocol was made, so what the listener said of
    that one is still so."""

    inner: ssl.SSLContext
    is_full: Callable[[], bool]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return _RefusedHandshake() if self.is_full() else self.inner.wrap_bio(*args, **kwargs)


class Listener:
    """One listening socket serving one application."""

    def __init__(self, app: web.Application, settings: ServerSettings, *, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._full = False
        self._tls = None if tls is None else self._bounded(tls)
        self._handshake_s = None if tls is None else settings.tls.handshake_timeout_ms / 1000
        self._open: set[_Connection] = set()
        self._lingering: set[_Refusal] = set()
        self._left = asyncio.Event()
        self._bodies = Budget(settings.bodies_bytes_max)
        self._answers = Budget(settings.answers_bytes_max)
        self._idle_since: dict[asyncio.Protocol, float] = {}
        app.middlewares.insert(0, self._watch)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=settings.drain_timeout_ms / 1000
        )
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, address: str) -> str:
        """Listens on `host:port`; returns the address with the port that was taken. Raises SettingsError."""
        host, port = parse_address(address)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._factory(), host, port, ssl=self._tls, ssl_handshake_timeout=self._handshake_s, backlog=1024
            )
        except OSError as error:
            await self._runner.cleanup()
            raise SettingsError(
                f"cannot listen on {address}: {error.strerror or error}",
                hint="another program may have the port: choose one with --listen",
                code="cannot-listen",
            ) from None
        self._sweeper = asyncio.create_task(self._sweep(), name="connection sweeper")
        port = self._server.sockets[0].getsockname()[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close_socket(self) -> None:
        """Takes no more connections; those that are there go on."""
        if self._server is None:
            return
        for sock in self._server.sockets:
            asyncio.get_running_loop().remove_reader(sock)
        await asyncio.sleep(0)  # what was accepted gets its transport, which asyncio refuses once its server is closed
        self._server.close()

    async def stop(self) -> None:
        """Lets requests under way finish, for a while, and closes everything."""
        await self.close_socket()
        for connection in self._open:
            connection.wanted = False
        await self._runner.cleanup()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):  # for the last bytes of an answer, and for a TLS peer to say goodbye
                while any(connection.wire is not None for connection in self._open):
                    self._left.clear()
                    await self._left.wait()
        for connection in list(self._open):
            connection.end()
        for refusal in list(self._lingering):
            refusal.end()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper

    def _bounded(self, tls: ssl.SSLContext) -> ssl.SSLContext:
        context = _BoundedContext(ssl.PROTOCOL_TLS_SERVER)
        context.inner = tls
        context.is_full = lambda: self._full
        return context

    def _factory(self) -> Callable[[], asyncio.Protocol]:
        server = self._runner.server
        if server is None:
            raise SettingsError("the listener is not set up")
        loop = asyncio.get_running_loop()
        settings = self._settings
        options: dict[str, Any] = {
            "loop": loop,
            "keepalive_timeout": settings.idle_timeout_ms / 1000,
            "max_line_size": settings.request_line_bytes_max,
            "max_field_size": settings.header_bytes_max,
            "max_headers": settings.headers_max,
            "lingering_time": 2.0,
            "auto_decompress": False,
            "access_log": None,
        }

        def factory() -> asyncio.Protocol:
            self._full = len(self._open) >= settings.connections_max
            if self._full:
                return _Refusal(self._lingering)
            connection = _Connection(server, **options)
            connection.on_lost = self._lost
            connection.wanted = True
            connection.wire = None
            connection.body = Share(self._bodies)
            connection.answer = Share(self._answers)
            self._open.add(connection)
            self._idle_since[connection] = loop.time()
            return connection

        return factory

    def _lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        self._left.set()
        self._idle_since.pop(connection, None)

    @web.middleware
    async def _watch(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        self._idle_since.pop(request.protocol, None)
        try:
            response: web.StreamResponse = await handler(request)
            return self._affordable(request, response)
        finally:
            if request.protocol in self._open:
                self._idle_since[request.protocol] = asyncio.get_running_loop().time()

    def _affordable(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """The answer; or, if it is large and others hold all that may be held, 503, and an end to those who take long."""
        body = response.body if isinstance(response, web.Response) else None
        if not isinstance(body, bytes) or len(body) <= _SMALL_BYTES or not isinstance(request.protocol, _Connection):
            return response
        now = asyncio.get_running_loop().time()
        try:
            request.protocol.answer.take(len(body), now=now)
        except PushbackError as error:
            for connection in list(self._open):
                if connection.answer.held_s(now) > _SLOW_S:
                    self._drop(connection)
            return problem(error)
        if isinstance(response, web.Response):
            response.body = _Sliced(body)
        return response

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = asyncio.get_running_loop().time()
            for connection in list(self._open):
                since = self._idle_since.get(connection)
                if since is not None and now - since > self._patience_s(connection):
                    self._drop(connection)

    def _patience_s(self, connection: _Connection) -> float:
        """How long a connection may have no request in hand."""
        if connection.wire is None:  # a TLS handshake, which asyncio ends by itself and tells nobody
            return (self._handshake_s or 0) + _SWEEP_S
        sending = connection.wire.get_write_buffer_size() > 0
        return (self._settings.send_timeout_ms if sending else self._settings.idle_timeout_ms) / 1000

    def _drop(self, connection: _Connection) -> None:
        if connection.wire is None:
            self._lost(connection)
        else:
            connection.end()


def hold_body(request: web.BaseRequest, count: int) -> None:
    """Counts bytes of a body that are held until it is answered. Raises PushbackError if they are too many for all together."""
    if isinstance(request.protocol, _Connection):
        request.protocol.body.take(count)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`. Raises SettingsError."""
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match["port"]) > 65_535:
        raise SettingsError(f"{address!r} is not an address", hint="write host:port, as in 127.0.0.1:6962 or [::1]:6962")
    return match["v6"] or match["host"], int(match["port"])
