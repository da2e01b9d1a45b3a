"""Listening sockets: connections bounded in number and in idle time, HTTP errors in our own shape.

Rules: a connection above the limit is answered 503 and closed at once; one that has no request in hand for too long, be it
idle or dripping a head byte by byte, is closed.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from aiohttp import web

from translog.errors import SettingsError
from translog.server.problem import BAD_HTTP, CONTENT_TYPE, TOO_MANY_CONNECTIONS, problem_body
from translog.server.settings import ServerSettings

_SWEEP_S = 1.0


class _Connection(web.RequestHandler):
    """aiohttp's connection, with its own errors (what it cannot parse as HTTP) as problem+json."""

    __slots__ = ("on_lost",)

    on_lost: Callable[["_Connection"], None]

    def connection_lost(self, exc: BaseException | None) -> None:
        self.on_lost(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        detail = (message or HTTPStatus(status).phrase).splitlines()[0][:200] if status < 500 else "an internal error"
        response = web.Response(
            status=status,
            body=problem_body(status, BAD_HTTP, detail),
            headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"},
        )
        response.force_close()
        return response


class _Refusal(asyncio.Protocol):
    """What a connection above the limit gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        body = problem_body(503, TOO_MANY_CONNECTIONS, "this log has all the connections it takes", "try again later")
        head = (
            f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
            "Retry-After: 5\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        if isinstance(transport, asyncio.Transport):
            transport.write(head.encode() + body)
        transport.close()


class Listener:
    """One listening socket serving one application."""

    def __init__(self, app: web.Application, settings: ServerSettings, *, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._tls = tls
        self._open: set[_Connection] = set()
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
            self._server = await loop.create_server(self._factory(), host, port, ssl=self._tls, backlog=1024)
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
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """Lets requests under way finish, for a while, and closes everything."""
        await self.close_socket()
        await self._runner.cleanup()
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper

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
            if len(self._open) >= settings.connections_max:
                return _Refusal()
            connection = _Connection(server, **options)
            connection.on_lost = self._lost
            self._open.add(connection)
            self._idle_since[connection] = loop.time()
            return connection

        return factory

    def _lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        self._idle_since.pop(connection, None)

    @web.middleware
    async def _watch(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        self._idle_since.pop(request.protocol, None)
        try:
            response: web.StreamResponse = await handler(request)
            return response
        finally:
            if request.protocol in self._open:
                self._idle_since[request.protocol] = asyncio.get_running_loop().time()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = asyncio.get_running_loop().time()
            oldest = now - self._settings.idle_timeout_ms / 1000
            for connection in [connection for connection in self._open if self._idle_since.get(connection, now) < oldest]:
                if connection.transport is not None:
                    connection.transport.abort()
                else:  # a TLS handshake that failed: asyncio tells nobody
                    self._lost(connection)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`. Raises SettingsError."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise SettingsError(f"{address!r} is not an address", hint="write host:port, as in 127.0.0.1:6962")
    return host.removeprefix("[").removesuffix("]"), int(port)
