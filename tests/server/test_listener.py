"""Connections: how many, how long, how they end."""

import asyncio
import socket
import ssl
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from translog.errors import SettingsError
from translog.server.listener import Listener, parse_address
from translog.server.settings import ServerSettings

from .certificates import Authority
from .conftest import Serve
from .harness import PATIENCE_S, Running, connection, parse_answer, publication_blocked, request_bytes, until

KEEP_ALIVE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def fast_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.server.listener._SWEEP_S", 0.01)


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request on a connection that goes on."""
    writer.write(KEEP_ALIVE)
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side ends the connection, one way or the other."""
    with suppress(ConnectionError):
        return await reader.read()
    return b""


# --- how many -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eager", [b"", KEEP_ALIVE])
async def test_one_connection_too_many_is_told_so_and_closed(serve: Serve, eager: bytes) -> None:
    log = await serve(connections_max=2)
    async with log.connection() as first, log.connection() as second:
        await answered(*first)
        await answered(*second)
        for _ in range(3):
            async with log.connection() as (reader, writer):
                writer.write(eager)
                parse_answer(await reader.readuntil(b"}")).problem(503, "too-many-connections")
                assert await closed(reader) == b""
        await answered(*first)
        await answered(*second)


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> list[Listener]:
    """Those that are made, the public one first."""
    made: list[Listener] = []
    init = Listener.__init__

    def recording(listener: Listener, *args: Any, **options: Any) -> None:
        init(listener, *args, **options)
        made.append(listener)

    monkeypatch.setattr(Listener, "__init__", recording)
    return made


async def refused(log: Running, stack: AsyncExitStack) -> socket.socket:
    """A connection above the limit."""
    host, _, port = log.server.address.rpartition(":")
    client = stack.enter_context(socket.socket())
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
    return client


async def received(client: socket.socket) -> bytes:
    """What comes until the other side ends its half."""
    data = b""
    async with asyncio.timeout(PATIENCE_S):
        while part := await asyncio.get_running_loop().sock_recv(client, 65_536):
            data += part
    return data


async def send_for_ever(client: socket.socket) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await asyncio.get_running_loop().sock_sendall(client, bytes(65_536))


async def test_a_refused_client_reads_its_answer_whatever_it_sent_and_nothing_of_that_is_kept(
    serve: Serve, listeners: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("translog.server.listener._LINGER_S", PATIENCE_S)
    log = await serve(connections_max=1)
    sent = request_bytes("POST", "/add", "Content-Length: 3000000", body=bytes(3_000_000))
    async with log.connection() as only, AsyncExitStack() as stack:
        await answered(*only)
        client = await refused(log, stack)
        tracemalloc.start()
        try:
            for _ in range(5):
                await asyncio.get_running_loop().sock_sendall(client, sent)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()
        parse_answer(await received(client)).problem(503, "too-many-connections")
        assert len(listeners[0]._lingering) == 1
        client.close()
        await until(lambda: not listeners[0]._lingering)
    assert log.server.service.integrated.size == 0


async def test_only_so_many_refused_connections_linger(
    serve: Serve, listeners: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("translog.server.listener._LINGER_S", PATIENCE_S)
    monkeypatch.setattr("translog.server.listener._LINGERING_MAX", 2)
    log = await serve(connections_max=1)
    async with log.connection() as only, AsyncExitStack() as stack:
        await answered(*only)
        clients = [await refused(log, stack) for _ in range(6)]
        for client in clients:
            parse_answer(await received(client)).problem(503, "too-many-connections")
        assert len(listeners[0]._lingering) == 2
        await answered(*only)
        for client in clients:
            client.close()
        await until(lambda: not listeners[0]._lingering)


async def test_a_refused_connection_that_does_not_close_is_closed(
    serve: Serve, listeners: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("translog.server.listener._LINGER_S", 0.02)
    log = await serve(connections_max=1)
    async with log.connection() as only, AsyncExitStack() as stack:
        await answered(*only)
        client = await refused(log, stack)
        parse_answer(await received(client)).problem(503, "too-many-connections")
        await until(lambda: not listeners[0]._lingering)
        with pytest.raises(ConnectionError):
            await send_for_ever(client)


async def test_a_connection_that_ends_makes_room(serve: Serve) -> None:
    log = await serve(connections_max=1)
    async with log.connection() as only:
        await answered(*only)
    async with asyncio.timeout(PATIENCE_S):
        while (await log.raw(request_bytes("GET", "/healthz"))).status != 200:
            pass
    async with log.connection() as (reader, writer):
        await answered(reader, writer)
        writer.transport.abort()
    async with asyncio.timeout(PATIENCE_S):
        while (await log.raw(request_bytes("GET", "/healthz"))).status != 200:
            pass


async def test_the_admin_listener_has_a_limit_of_its_own(serve: Serve) -> None:
    log = await serve(connections_max=1)
    async with log.connection() as public:
        await answered(*public)
        async with connection(log.server.admin_address) as admin:
            await answered(*admin)


# --- how long -----------------------------------------------------------------------------------------------------------


async def test_a_connection_without_a_request_is_closed(serve: Serve) -> None:
    log = await serve(idle_timeout_ms=30)
    async with log.connection() as (reader, _):
        assert await closed(reader) == b""


async def test_a_connection_that_is_idle_after_a_request_is_closed(serve: Serve) -> None:
    log = await serve(idle_timeout_ms=30)
    async with log.connection() as (reader, writer):
        await answered(reader, writer)
        assert await closed(reader) == b""


@pytest.mark.parametrize("before", [0, 1])
async def test_a_head_that_drips_is_closed(serve: Serve, before: int) -> None:
    log = await serve(idle_timeout_ms=30)
    async with log.connection() as (reader, writer):
        for _ in range(before):
            await answered(reader, writer)
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        end = asyncio.create_task(closed(reader))
        number = 0
        while not end.done():
            writer.write(b"X-%d: 1\r\n" % number if number < 30 else b"")
            number += 1
            await asyncio.wait([end], timeout=0.005)
        assert b"200 OK" not in end.result()


async def test_a_request_in_hand_is_not_idle(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve(idle_timeout_ms=30, publish_deadline_ms=60_000)
    with publication_blocked(monkeypatch) as publish:
        append = asyncio.create_task(log.append([b"x"]))
        await until(lambda: log.server.service.integrated.size == 1)
        for _ in range(3):  # connections that came later have been idle for too long
            async with log.connection() as (reader, _):
                await closed(reader)
        publish()
        (await append).require_ok()


async def test_a_slow_reader_is_not_idle_while_its_answer_is_sent(serve: Serve) -> None:
    log = await serve(idle_timeout_ms=30, read_bytes_max=64_000_000)
    for _ in range(16):
        await log.grow([b"x" * 65_535] * 15)
    host, _, port = log.server.address.rpartition(":")
    with socket.create_connection((host, int(port))) as client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, request_bytes("GET", "/tile/entries/000.p/240"))
        received = len(await loop.sock_recv(client, 1_000))
        for _ in range(3):
            async with log.connection() as (reader, _):
                await closed(reader)
        with suppress(ConnectionError):
            while part := await loop.sock_recv(client, 1 << 20):
                received += len(part)
    assert received > 240 * 65_535


async def test_a_reader_that_takes_too_long_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[object] = []
    drop = Listener._drop

    def recording(listener: Listener, connection: Any) -> None:
        dropped.append(connection)
        drop(listener, connection)

    monkeypatch.setattr(Listener, "_drop", recording)
    log = await serve(send_timeout_ms=1, read_bytes_max=64_000_000)
    for _ in range(16):
        await log.grow([b"x" * 65_535] * 15)
    host, _, port = log.server.address.rpartition(":")
    with socket.create_connection((host, int(port))) as client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, request_bytes("GET", "/tile/entries/000.p/240"))
        received = len(await loop.sock_recv(client, 1_000))
        await until(lambda: bool(dropped))
        with suppress(ConnectionError):
            while part := await loop.sock_recv(client, 1 << 20):
                received += len(part)
    assert received < 240 * 65_535


# --- addresses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65_535)),
        ("[::1]:80", ("::1", 80)),
        ("log.example:6962", ("log.example", 6_962)),
    ],
)
def test_addresses(address: str, parsed: tuple[str, int]) -> None:
    assert parse_address(address) == parsed


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", "127.0.0.1:", "a:65536", "a:-1", "a:+1", "a: 1", "a:1 ", "a:\u0661", "a:1_0", "a:x"]
)
def test_what_is_not_an_address(address: str) -> None:
    with pytest.raises(SettingsError):
        parse_address(address)


@pytest.mark.parametrize("address", ["::1:80", "[::1:80", "::1]:80", "[]:80"])
def test_an_ipv6_address_has_its_brackets(address: str) -> None:
    with pytest.raises(SettingsError):
        parse_address(address)


async def test_a_port_that_is_taken_is_said_so_and_everything_is_closed_again(log_server: Running, serve: Serve) -> None:
    taken = log_server.server.address
    await log_server.server.stop()
    host, _, port = taken.rpartition(":")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, int(port)))
        other.listen()
        for settings in ({"listen": taken}, {"admin_listen": taken}):
            with pytest.raises(SettingsError) as caught:
                await serve(directory=log_server.directory, **settings)  # type: ignore[arg-type]
            assert caught.value.code == "cannot-listen"
    (await (await serve(directory=log_server.directory)).get("/checkpoint")).require_ok()


async def test_a_host_that_does_not_exist_cannot_be_listened_on(serve: Serve) -> None:
    with pytest.raises(SettingsError) as caught:
        await serve(listen="no-such-host.invalid:0")
    assert caught.value.code == "cannot-listen"


async def test_ipv6_is_served(serve: Serve) -> None:
    try:
        log = await serve(listen="[::1]:0")
    except SettingsError:
        pytest.skip("this machine has no IPv6 loopback")
    assert log.server.address.startswith("[::1]:")
    (await log.append([b"x"])).require_ok()


# --- the end ------------------------------------------------------------------------------------------------------------


async def test_stopping_finishes_what_is_under_way_and_takes_nothing_new(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve(publish_deadline_ms=60_000)
    host, _, port = log.server.address.rpartition(":")
    with publication_blocked(monkeypatch) as publish:
        append = asyncio.create_task(log.append([b"x"], "?receipts=full"))
        await until(lambda: log.server.service.integrated.size == 1)
        async with log.connection() as (idle, idle_writer):
            await answered(idle, idle_writer)
            stop = asyncio.create_task(log.server.stop())
            assert await closed(idle) == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))
        assert not stop.done()
        publish()
        answer = (await append).require_ok()
        await stop
    assert answer.json["results"] == [{"index": 0, "receipt": None, "proof": []}]
    again = await serve(directory=log.directory)
    assert await again.size() == 1


async def test_a_request_that_does_not_end_is_cut_off_after_a_while(serve: Serve) -> None:
    log = await serve(drain_timeout_ms=30)
    async with log.connection() as (reader, writer):
        writer.write(b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await log.server.stop()
        assert b"200 OK" not in await closed(reader)
    assert await (await serve(directory=log.directory)).size() == 0


async def test_stopping_lets_the_body_of_a_request_under_way_arrive(serve: Serve) -> None:
    log = await serve(drain_timeout_ms=1_000 * PATIENCE_S)
    async with log.connection() as (reader, writer):
        writer.write(b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        async with log.connection() as (idle, idle_writer):
            await answered(idle, idle_writer)
            stop = asyncio.create_task(log.server.stop())
            assert await closed(idle) == b""
        for _ in range(2):
            assert not stop.done()
            writer.write(b"xxxxx")
            await writer.drain()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE_S / 2):
            parse_answer(await closed(reader)).require_ok()
            await stop
    assert await (await serve(directory=log.directory)).size() == 1


@pytest.mark.parametrize("turns", range(8))
async def test_a_connection_that_comes_with_the_end_is_closed_too(turns: int) -> None:
    """Its socket is accepted, its transport, its protocol and its task are made one turn of the event loop after the other."""
    listener = Listener(web.Application(), ServerSettings(drain_timeout_ms=1_000 * PATIENCE_S))
    host, _, port = (await listener.start("127.0.0.1:0")).rpartition(":")
    with socket.socket() as client:
        client.connect((host, int(port)))  # what the kernel does; the event loop knows nothing of it yet
        client.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S / 2):
            await listener.stop()
            with suppress(ConnectionError):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
    assert not listener._open


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a listener and of its clients."""
    Authority("test authority").issue().write(tmp_path, "server")
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE  # test_tls.py is about certificates
    return server, client


@contextmanager
def connected(address: str, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A blocking connection that has yet to shake hands."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE_S) as plain,
        context.wrap_socket(plain, do_handshake_on_connect=False) as client,
    ):
        yield client


async def test_a_client_that_ends_its_handshake_after_the_end_is_not_served(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    listener = Listener(web.Application(), ServerSettings(), tls=tls[0])
    with connected(await listener.start("127.0.0.1:0"), tls[1]) as client:
        await until(lambda: bool(listener._open))
        await listener.stop()
        with suppress(ConnectionError):
            await asyncio.to_thread(client.do_handshake)
            assert await asyncio.to_thread(client.recv, 1) == b""
        await until(lambda: not listener._open)


async def test_a_client_that_does_not_say_goodbye_is_left(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("translog.server.listener._LINGER_S", 0.02)
    listener = Listener(web.Application(), ServerSettings(), tls=tls[0])
    with connected(await listener.start("127.0.0.1:0"), tls[1]) as client:
        await asyncio.to_thread(client.do_handshake)
        await listener.stop()
        await until(lambda: not listener._open)
        assert await asyncio.to_thread(client.recv, 1) == b""


async def test_stopping_twice_is_stopping_once(log_server: Running) -> None:
    await log_server.server.stop()
    await log_server.server.stop()
