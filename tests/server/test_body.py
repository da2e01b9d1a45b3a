"""Request bodies: compressed, bombed, cut short, too large, too slow. Whatever is refused has logged nothing."""

import asyncio
import gzip
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import BaseModel

from translog.errors import MalformedError, TooLargeError
from translog.server import body as body_module
from translog.server.api import parse_query
from translog.server.app import PUBLIC_ROUTES
from translog.server.body import decompress
from translog.server.ops_api import ADMIN_ROUTES

from .conftest import Serve
from .harness import Running, bundle, numbered, parse_answer, request_bytes, until

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
BOTH = pytest.mark.parametrize("encoding", COMPRESS)
TEXT = b"an entry; " * 400
SKIPPABLE = b"\x50\x2a\x4d\x18\x03\0\0\0abc"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """A body without a declared length."""
    for part in parts:
        yield part


async def entries_of(log: Running) -> int:
    return log.server.service.integrated.size


# --- decompression ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("size_of", ["empty", "small", "exact"])
def test_bodies_decompress_up_to_the_limit(encoding: str, size_of: str) -> None:
    data = {"empty": b"", "small": TEXT, "exact": bytes(10_000)}[size_of]
    assert decompress(COMPRESS[encoding](data), encoding, size_max=10_000) == data


@BOTH
def test_members_are_joined(encoding: str) -> None:
    compress = COMPRESS[encoding]
    data = compress(TEXT) + compress(b"") + compress(b"x")
    assert decompress(data, encoding, size_max=10_000) == TEXT + b"x"


def test_skippable_zstd_frames_are_skipped() -> None:
    assert decompress(zstd.compress(b"x") + SKIPPABLE, "zstd", size_max=10) == b"x"


@BOTH
def test_every_proper_prefix_is_malformed(encoding: str) -> None:
    data = COMPRESS[encoding](TEXT)
    for end in range(len(data)):
        with pytest.raises(MalformedError):
            decompress(data[:end], encoding, size_max=10_000)


@BOTH
@pytest.mark.parametrize("garbage", [b"\0", b"garbage", b"\x1f", b"\x1f\x8b", b"\x28\xb5\x2f"])
def test_what_follows_the_end_is_malformed(encoding: str, garbage: bytes) -> None:
    with pytest.raises(MalformedError):
        decompress(COMPRESS[encoding](TEXT) + garbage, encoding, size_max=10_000)


@pytest.mark.parametrize("place", range(10))
def test_a_damaged_gzip_head_or_another_format_is_malformed_or_the_same(place: int) -> None:
    good = gzip.compress(TEXT)
    bad = good[:place] + bytes([good[place] ^ 0xE0]) + good[place + 1 :]
    with suppress(MalformedError):
        assert decompress(bad, "gzip", size_max=10_000) == TEXT
    for other in (zlib.compress(TEXT), TEXT, zstd.compress(TEXT)):
        with pytest.raises(MalformedError):
            decompress(other, "gzip", size_max=10_000)


@BOTH
def test_one_byte_over_the_limit_is_too_large(encoding: str) -> None:
    compress = COMPRESS[encoding]
    for data in (compress(bytes(10_001)), compress(bytes(6_000)) + compress(bytes(4_001)), compress(bytes(5_000_000))):
        with pytest.raises(TooLargeError):
            decompress(data, encoding, size_max=10_000)


@BOTH
def test_a_bomb_takes_no_memory(encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(64 * 1024 * 1024))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            decompress(bomb, encoding, size_max=100_000)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


@BOTH
def test_many_empty_members_cost_no_more_than_their_length(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fed = 0
    make: Any = zlib.decompressobj if encoding == "gzip" else zstd.ZstdDecompressor

    class Counting:
        def __init__(self, **options: int) -> None:
            self._real = make(**options)

        def decompress(self, data: bytes, max_length: int) -> Any:
            nonlocal fed
            fed += len(data)
            return self._real.decompress(data, max_length)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    data = COMPRESS[encoding](b"") * 5_000
    target: Any = zlib if encoding == "gzip" else zstd
    monkeypatch.setattr(target, "decompressobj" if encoding == "gzip" else "ZstdDecompressor", Counting)
    with suppress(MalformedError, TooLargeError):  # a limit on the number of members would do as well
        decompress(data, encoding, size_max=10_000)
    assert fed < 100 * len(data)


def zstd_frame(window_log: int, data: bytes) -> bytes:
    """A frame that does not say its length, as from a stream, and so the size of its window."""
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): window_log})
    return compressor.compress(data, mode=zstd.ZstdCompressor.FLUSH_BLOCK) + compressor.flush()


def test_a_zstd_window_of_8_mib_is_enough_and_more_is_refused() -> None:
    assert decompress(zstd_frame(23, TEXT), "zstd", size_max=10_000) == TEXT
    for window_log in (24, 27):
        with pytest.raises(MalformedError) as caught:
            decompress(zstd_frame(window_log, TEXT), "zstd", size_max=10_000)
        assert caught.value.code == "bad-compression"
        assert "8 MiB" in caught.value.hint


@pytest.mark.parametrize("level", [1, 19])
def test_a_zstd_body_of_any_size_at_a_usual_level_is_taken(level: int) -> None:
    data = bytes(range(256)) * 40_000
    assert decompress(zstd.compress(data, level), "zstd", size_max=len(data)) == data


# --- over HTTP ----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("spelling", [str.lower, str.upper])
async def test_compressed_batches_are_logged(log_server: Running, encoding: str, spelling: Any) -> None:
    entries = numbered(0, 50)
    data = COMPRESS[encoding](bundle(entries))
    (await log_server.post("/v1/entries", data, Content_Encoding=spelling(encoding))).require_ok()
    assert (await log_server.get("/tile/entries/000.p/50")).body == bundle(entries)


@BOTH
async def test_compressed_add_logs_what_was_compressed(log_server: Running, encoding: str) -> None:
    (await log_server.post("/add", COMPRESS[encoding](TEXT), Content_Encoding=encoding)).require_ok()
    assert (await log_server.get("/tile/entries/000.p/1")).body == bundle([TEXT])


@BOTH
@pytest.mark.parametrize(
    ("change", "code"),
    [("cut", "bad-compression"), ("trail", "bad-compression"), ("plain", "bad-compression"), ("empty", "bad-compression")],
)
async def test_a_bad_compressed_body_is_400(log_server: Running, encoding: str, change: str, code: str) -> None:
    good = COMPRESS[encoding](TEXT)
    body = {"cut": good[:-1], "trail": good + b"\0", "plain": TEXT, "empty": b""}[change]
    (await log_server.post("/add", body, Content_Encoding=encoding)).problem(400, code)
    assert await entries_of(log_server) == 0


@BOTH
async def test_a_bomb_is_413(serve: Serve, encoding: str) -> None:
    log = await serve(decoded_bytes_max=1_000_000)
    bomb = COMPRESS[encoding](bytes(32 * 1024 * 1024))
    (await log.post("/v1/entries", bomb, Content_Encoding=encoding)).problem(413, "body-too-large")
    assert await entries_of(log) == 0


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "x-gzip", "gzip;q=1", "", "none", "\xff"])
async def test_an_unknown_content_encoding_is_415(log_server: Running, encoding: str) -> None:
    answer = await log_server.raw(
        request_bytes("POST", "/add", f"Content-Encoding: {encoding}", "Content-Length: 1", body=b"x")
    )
    answer.problem(415, "unsupported-encoding")
    assert await entries_of(log_server) == 0


async def test_two_content_encodings_are_not_taken_for_the_first(log_server: Running) -> None:
    lines = ("Content-Encoding: identity", "Content-Encoding: gzip", "Content-Length: 1")
    (await log_server.raw(request_bytes("POST", "/add", *lines, body=b"x"))).problem(415, "unsupported-encoding")


async def test_identity_is_none(log_server: Running) -> None:
    (await log_server.post("/add", b"x", Content_Encoding="identity")).require_ok()


async def test_a_declared_length_over_the_limit_is_refused_before_the_body(serve: Serve) -> None:
    log = await serve(body_bytes_max=1_000)
    (await log.post("/v1/entries", bundle([b"x" * 998]))).require_ok()
    (await log.post("/v1/entries", bundle([b"x" * 999]))).problem(413, "body-too-large")
    async with log.connection() as (reader, writer):
        writer.write(b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n")
        answer = parse_answer(await reader.readuntil(b"}"))
    answer.problem(413, "body-too-large")
    assert await entries_of(log) == 1


@pytest.mark.parametrize("length", ["99999999999999999999999", "9223372036854775807"])
async def test_an_absurd_declared_length_is_refused(log_server: Running, length: str) -> None:
    async with log_server.connection() as (reader, writer):
        writer.write(b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: %s\r\n\r\n" % length.encode())
        answer = parse_answer(await reader.readuntil(b"}"))
    assert answer.status in (400, 413)
    answer.problem(answer.status)


async def test_a_chunked_body_is_counted_as_it_comes(serve: Serve) -> None:
    log = await serve(body_bytes_max=1_000)
    (await log.post("/add", chunks(b"a" * 500, b"b" * 500))).require_ok()
    (await log.post("/add", chunks(b"a" * 500, b"b" * 501))).problem(413, "body-too-large")
    assert await entries_of(log) == 1


async def test_a_compressed_body_is_counted_as_sent_too(serve: Serve) -> None:
    log = await serve(body_bytes_max=1_000)
    data = zstd.compress(bytes(range(256)) * 2) * 20
    assert len(data) > 1_000
    (await log.post("/add", data, Content_Encoding="zstd")).problem(413, "body-too-large")


@pytest.mark.parametrize("head", ["Content-Length: 10", "Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_in_time_is_refused(serve: Serve, head: str) -> None:
    log = await serve(body_timeout_ms=30)
    async with log.connection() as (reader, writer):
        writer.write(
            f"POST /add HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode() + b"5\r\n"[: 3 if "chunked" in head else 0]
        )
        answer = parse_answer(await reader.readuntil(b"}"))
        answer.problem(503, "body-timeout")
    assert await entries_of(log) == 0


@pytest.mark.parametrize("head", ["Content-Length: 10", "Transfer-Encoding: chunked"])
async def test_a_body_cut_short_by_the_client_logs_nothing(
    log_server: Running, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with log_server.connection() as (_, writer):
        writer.write(
            f"POST /add HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode()
            + (b"5\r\nabcde\r\n" if "chunked" in head else b"abcde")
        )
        await writer.drain()
    (await log_server.post("/add", b"next")).require_ok()
    assert log_server.server.service.integrated.size == 1
    assert not [record for record in caplog.records if record.exc_info]


async def test_half_closing_before_the_body_ends_logs_nothing(log_server: Running) -> None:
    async with log_server.connection() as (reader, writer):
        writer.write(b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        writer.write_eof()
        assert b"200" not in await reader.read()
    assert await entries_of(log_server) == 0


async def test_100_continue_is_answered_before_the_body(log_server: Running) -> None:
    async with log_server.connection() as (reader, writer):
        writer.write(
            b"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"x")
        parse_answer(await reader.read()).require_ok()
    await until(lambda: log_server.server.service.integrated.size == 1)


async def test_decompression_does_not_hold_up_others(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def watch(*args: Any, **kwargs: Any) -> bytes:
        try:
            asyncio.get_running_loop()
            threads.append(False)
        except RuntimeError:
            threads.append(True)
        return decompress(*args, **kwargs)

    monkeypatch.setattr(body_module, "decompress", watch)
    (await log_server.post("/add", gzip.compress(TEXT), Content_Encoding="gzip")).require_ok()
    assert threads == [True]


@pytest.mark.parametrize("rest", [b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabcd"])
async def test_a_body_that_goes_wrong_on_the_way_is_a_problem_and_logs_nothing(serve: Serve, rest: bytes) -> None:
    log = await serve(body_timeout_ms=30)  # aiohttp's parser stops there and tells nobody: only time ends the body
    async with log.connection() as (reader, writer):
        writer.write(b"POST /add HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"5\r\nabcde\r\n" + rest)
        parse_answer(await reader.readuntil(b"}")).problem(503, "body-timeout")
    assert await entries_of(log) == 0


# --- with the head, or later --------------------------------------------------------------------------------------------


async def at_once(writer: asyncio.StreamWriter, head: bytes, body: bytes, _: asyncio.Event) -> None:
    writer.write(head + body)


async def in_two(writer: asyncio.StreamWriter, head: bytes, body: bytes, receiving: asyncio.Event) -> None:
    writer.write(head + body[: len(body) // 2])
    await receiving.wait()
    writer.write(body[len(body) // 2 :])


async def byte_by_byte(writer: asyncio.StreamWriter, head: bytes, body: bytes, receiving: asyncio.Event) -> None:
    writer.write(head)
    await receiving.wait()
    for at in range(len(body)):
        writer.write(body[at : at + 1])
        await asyncio.sleep(0)


def framed(body: bytes, framing: str) -> tuple[str, bytes]:
    """The header that frames a body, and the body in that frame."""
    if framing == "length":
        return f"Content-Length: {len(body)}", body
    parts = [body[at : at + 7] for at in range(0, len(body), 7)] + [b""]
    return "Transfer-Encoding: chunked", b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)


@pytest.fixture
def receiving(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set as soon as a body is waited for."""
    event = asyncio.Event()
    receive = body_module._receive

    async def watched(*args: Any) -> bytes:
        event.set()
        return await receive(*args)

    monkeypatch.setattr(body_module, "_receive", watched)
    return event


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101])
async def test_a_body_is_the_same_however_it_is_delivered(
    serve: Serve, receiving: asyncio.Event, size: int, encoding: str, framing: str
) -> None:
    """At most 100 bytes are taken, as they are sent and decompressed."""
    log = await serve(body_bytes_max=100, decoded_bytes_max=100)
    plain = bytes(range(size))
    if encoding == "gzip" and size >= 99:
        plain = bytes(size)  # or it would be longer compressed
    sent = gzip.compress(plain, mtime=0) if encoding == "gzip" else plain
    line, body = framed(sent, framing)
    head = request_bytes("POST", "/add", f"Content-Encoding: {encoding}", line)
    count = 0
    for deliver in (at_once, in_two, byte_by_byte):
        receiving.clear()
        declared_too_large = size > 100 and framing == "length" and encoding == "identity"
        waits = deliver is not at_once and body and not declared_too_large
        if not waits:
            receiving.set()
        async with log.connection() as (reader, writer):
            await deliver(writer, head, body, receiving)
            answer = parse_answer(await reader.read())
        if size > 100:
            answer.problem(413, "body-too-large")
        else:
            assert answer.require_ok().body == b"%d" % count
            count += 1
    service = log.server.service
    assert service.integrated.size == count
    assert await service.read_integrated(start=0, end=count) == [plain] * count


async def test_a_body_that_came_with_its_head_is_not_waited_for(log_server: Running, receiving: asyncio.Event) -> None:
    for framing in ("length", "chunked"):
        for size in (0, 1, 30_000):
            line, body = framed(bytes(size), framing)
            (await log_server.raw(request_bytes("POST", "/add", line, body=body))).require_ok()
            if size < 2:
                assert not receiving.is_set()


@pytest.mark.parametrize(
    ("one", "other"),
    [(b"x" * 100, b"y"), (b"", b""), (b"a", b"b" * 5_000)],
)
async def test_a_body_ends_where_it_ends_when_the_next_request_is_there_already(
    log_server: Running, one: bytes, other: bytes
) -> None:
    first = f"POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(one)}\r\n\r\n".encode() + one
    async with log_server.connection() as (reader, writer):
        writer.write(first + request_bytes("POST", "/add", f"Content-Length: {len(other)}", body=other))
        assert (await reader.read()).count(b"HTTP/1.1 200") == 2
    assert await log_server.server.service.read_integrated(start=0, end=2) == [one, other]


# --- queries ------------------------------------------------------------------------------------------------------------


QUERIES = sorted({route.query for route in (*PUBLIC_ROUTES, *ADMIN_ROUTES) if route.query}, key=lambda model: model.__name__)


def parsed(model: type[BaseModel], path: str) -> BaseModel | str:
    """The query, or what is wrong with it."""
    try:
        return parse_query(model, make_mocked_request("GET", path))
    except MalformedError as error:
        return error.detail


@pytest.mark.parametrize("model", QUERIES)
def test_no_query_an_empty_one_and_one_of_others_give_the_same_defaults_and_share_nothing(model: type[BaseModel]) -> None:
    paths = ("/x", "/x?", "/x?other=1", "/x?&")
    first = [parsed(model, path) for path in paths]
    assert all(query == first[0] for query in first)
    before = repr(first[0])
    for query in first:
        if isinstance(query, BaseModel):
            for name in model.model_fields:
                setattr(query, name, "changed")
    assert [repr(parsed(model, path)) for path in paths] == [before] * len(paths)


async def test_an_append_with_an_empty_query_is_one_without(log_server: Running) -> None:
    plain = (await log_server.post("/v1/entries", bundle([b"x"]))).require_ok().json
    empty = (await log_server.post("/v1/entries?", bundle([b"x"]))).require_ok().json
    assert plain["results"] == [{"index": 0, "receipt": None, "proof": None}]
    assert empty["results"] == [{"index": 1, "receipt": None, "proof": None}]
    assert set(plain) == set(empty)
