"""Bodies, and large answers, of all connections together are bounded; what was refused is not in the log; and every byte that
was counted is given back, however a request ends."""

import asyncio
import gzip
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from translog.errors import PushbackError
from translog.server.budget import Budget, Share
from translog.server.listener import _SMALL_BYTES

from .certificates import Authority
from .conftest import Serve
from .harness import (
    AS_ACME,
    MEMBERS,
    OCTETS,
    PATIENCE_S,
    Answer,
    Running,
    bundle,
    commits_blocked,
    parse_answer,
    request_bytes,
    until,
)

LARGE = [n.to_bytes(2, "big") * 32_767 + b"x" for n in range(256)]
LARGE_BYTES = 256 * 65_537
FULL = "/tile/entries/000"
NEVER_SLOW = 3_600.0
"""Nobody waits so long: what is patched to this does not happen."""


class Watched(Budget):
    """A budget that remembers the least and the most that was left of it."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = self.least = self.most = bytes_max
        super().__init__(bytes_max)

    def __setattr__(self, name: str, value: int) -> None:
        super().__setattr__(name, value)
        if name == "left":
            self.least, self.most = min(self.least, value), max(self.most, value)

    @property
    def is_full(self) -> bool:
        """Whether nobody holds anything."""
        return self.left == self.bytes_max

    def require_sound(self) -> None:
        """Never below nothing, never more than there was."""
        assert 0 <= self.least <= self.left <= self.most == self.bytes_max


class Budgets:
    """The public listener's."""

    def __init__(self) -> None:
        self.made: list[Watched] = []

    def make(self, bytes_max: int) -> Watched:
        self.made.append(Watched(bytes_max))
        return self.made[-1]

    @property
    def bodies(self) -> Watched:
        return self.made[0]

    @property
    def answers(self) -> Watched:
        return self.made[1]

    async def all_given_back(self) -> None:
        """Returns when both are as they were at first."""
        await until(lambda: self.bodies.is_full and self.answers.is_full)
        self.bodies.require_sound()
        self.answers.require_sound()


@pytest.fixture(autouse=True)
def budgets(monkeypatch: pytest.MonkeyPatch) -> Budgets:
    made = Budgets()
    monkeypatch.setattr("translog.server.listener.Budget", made.make)
    return made


def batch(name: int, *, size: int) -> bytes:
    """A bundle of `size` bytes, entries of 998 bytes that tell `name`; whole thousands only."""
    return bundle([b"%08d" % name + bytes(990)] * (size // 1_000))


def head(length: int | None, *lines: str, path: str = "/v1/entries?receipts=none") -> bytes:
    """The head of an append whose body has `length` bytes, or comes in chunks."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return request_bytes("POST", path, f"Content-Type: {OCTETS}", framing, *lines)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Sender:
    """One connection with an append on it, sent bit by bit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Also if the other side has closed: it may have answered."""
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> Answer:
        return parse_answer(await self.reader.read())


@asynccontextmanager
async def senders(log: Running, count: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[list[Sender]]:
    """Connections, all of them closed in the end."""
    host, _, port = log.server.address.rpartition(":")
    made = []
    async with asyncio.timeout(PATIENCE_S), AsyncExitStack() as stack:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=tls)
            stack.callback(writer.transport.abort)
            made.append(Sender(reader, writer))
        yield made


def require_too_busy(answer: Answer) -> None:
    answer.problem(503, "too-busy")
    assert int(answer.headers["Retry-After"]) >= 1


def logged(log: Running) -> int:
    return log.server.service.integrated.size


# --- the sum ------------------------------------------------------------------------------------------------------------


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 60)), max_size=60))
def test_shares_never_hold_more_than_there_is_and_give_all_of_it_back(steps: list[tuple[int, int]]) -> None:
    budget = Budget(100)
    shares = [Share(budget) for _ in range(4)]
    held = [0] * 4
    for which, count in steps:
        if count < 0:
            shares[which].give_back()
            held[which] = 0
        else:
            fits = sum(held) + count <= 100
            try:
                shares[which].take(count)
            except PushbackError as error:
                assert not fits
                assert (error.code, error.retry_after_ms) == ("too-busy", 1_000)  # noqa: PT017  one of two outcomes
            else:
                assert fits
                held[which] += count
        assert budget.left == 100 - sum(held)
    for share in shares:
        share.give_back()
        share.give_back()
    assert budget.left == 100


def test_how_long_something_is_held_counts_from_the_last_that_was_taken() -> None:
    share = Share(Budget(10))
    assert share.held_s(50.0) == 0
    share.take(4, now=20.0)
    assert share.held_s(50.0) == 30
    share.take(6, now=45.0)
    assert share.held_s(50.0) == 5
    share.give_back()
    assert share.held_s(50.0) == 0


# --- bodies -------------------------------------------------------------------------------------------------------------


async def fill_and_refuse(log: Running, budgets: Budgets, tls: ssl.SSLContext | None = None, *lines: str) -> None:
    """Four senders of which each gives most of its body; a fifth finds no room, the four are logged all the same, the fifth
    is too when it comes again."""
    bodies = [batch(n, size=240_000) for n in range(5)]
    before = logged(log)
    async with senders(log, 6, tls) as made:
        for sender, body in zip(made[:4], bodies, strict=False):
            await sender.send(head(len(body), *lines) + body[:200_000])
        await until(lambda: budgets.bodies.left == 200_000)
        await made[4].send(head(len(bodies[4]), *lines) + bodies[4])
        require_too_busy(await made[4].answer())
        await until(lambda: budgets.bodies.left == 200_000)
        assert logged(log) == before
        for sender, body in zip(made[:4], bodies, strict=False):
            await sender.send(body[200_000:])
            (await sender.answer()).require_ok()
        await budgets.all_given_back()
        await made[5].send(head(len(bodies[4]), *lines) + bodies[4])
        (await made[5].answer()).require_ok()
    assert sorted((await entries(log))[before:]) == [b"%08d" % n + bytes(990) for n in range(5) for _ in range(240)]
    await budgets.all_given_back()


async def test_slow_senders_hold_no_more_than_the_budget_and_the_refused_log_nothing(serve: Serve, budgets: Budgets) -> None:
    log = await serve(bodies_bytes_max=1_000_000)
    await fill_and_refuse(log, budgets)


async def test_bodies_over_tls_are_counted_too(serve: Serve, budgets: Budgets, tmp_path: Path) -> None:
    authority = Authority("test authority")
    cert, key = authority.issue().write(tmp_path, "server")
    log = await serve(bodies_bytes_max=1_000_000, members=MEMBERS, tls={"cert": cert, "key": key})
    await fill_and_refuse(log, budgets, authority.client(), *(f"{name}: {value}" for name, value in AS_ACME.items()))


async def test_a_storm_of_slow_senders_stays_below_the_budget(serve: Serve, budgets: Budgets) -> None:
    log = await serve(bodies_bytes_max=1_000_000)
    bodies = [batch(n, size=300_000) for n in range(12)]
    async with senders(log, 12) as made:

        async def send(sender: Sender, body: bytes) -> Answer:
            await sender.send(head(len(body)))
            for at in range(0, len(body), 50_000):
                await sender.send(body[at : at + 50_000])
            return await sender.answer()

        answers = await asyncio.gather(*(send(sender, body) for sender, body in zip(made, bodies, strict=True)))
    for answer in answers:
        if answer.status != 200:
            require_too_busy(answer)
    taken = by_index(answers)
    assert await entries(log) == [b"%08d" % n + bytes(990) for n in taken for _ in range(300)]
    assert len(taken) < 12
    await budgets.all_given_back()


def by_index(answers: Sequence[Answer]) -> list[int]:
    """The numbers of those that were taken, in the order in which they are in the log."""
    return sorted((n for n, answer in enumerate(answers) if answer.status == 200), key=lambda n: int(answers[n].json["first"]))


async def entries(log: Running) -> list[bytes]:
    """All that were logged."""
    service = log.server.service
    return await service.read_integrated(start=0, end=service.integrated.size)


async def test_a_chunked_body_is_counted_as_it_arrives(serve: Serve, budgets: Budgets) -> None:
    log = await serve(bodies_bytes_max=250_000)
    body = batch(1, size=200_000)
    async with senders(log, 2) as (first, second):
        await first.send(head(None))
        for at in range(0, 200_000, 40_000):
            await first.send(chunk(body[at : at + 40_000]))
            await until(lambda at=at: budgets.bodies.left == 250_000 - at - 40_000)  # type: ignore[misc]
        await second.send(head(None) + chunk(batch(2, size=51_000)))
        require_too_busy(parse_answer(await second.reader.readuntil(b"}")))
        await first.send(chunk(b""))
        (await first.answer()).require_ok()
    assert logged(log) == 200
    await budgets.all_given_back()


async def test_a_body_is_held_until_it_is_answered_and_no_longer(
    serve: Serve, budgets: Budgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await serve(bodies_bytes_max=100_000)
    with commits_blocked(monkeypatch) as commit:
        waiting = asyncio.create_task(log.post("/v1/entries", batch(1, size=60_000)))
        await until(lambda: budgets.bodies.left == 40_000)
        require_too_busy(await log.post("/v1/entries", batch(2, size=60_000)))
        assert budgets.bodies.left == 40_000
        commit()
        (await waiting).require_ok()
    await budgets.all_given_back()
    (await log.post("/v1/entries", batch(2, size=60_000))).require_ok()
    assert logged(log) == 120


async def test_the_same_connection_may_append_on_and_on(serve: Serve, budgets: Budgets) -> None:
    log = await serve(bodies_bytes_max=100_000)
    for n in range(5):  # the client keeps its connection
        (await log.post("/v1/entries", batch(n, size=90_000))).require_ok()
    assert logged(log) == 5 * 90
    assert budgets.bodies.least == 10_000
    await budgets.all_given_back()


async def test_what_is_decompressed_counts_beside_what_was_sent(serve: Serve, budgets: Budgets) -> None:
    log = await serve(bodies_bytes_max=100_000)
    sent = gzip.compress(batch(1, size=90_000), mtime=0)
    (await log.post("/v1/entries", sent, Content_Encoding="gzip")).require_ok()
    assert budgets.bodies.least == 10_000 - len(sent)
    require_too_busy(await log.post("/v1/entries", gzip.compress(batch(1, size=101_000)), Content_Encoding="gzip"))
    assert logged(log) == 90
    await budgets.all_given_back()


async def lose_the_connection(log: Running, budgets: Budgets) -> None:
    async with senders(log, 1) as (sender,):
        await sender.send(head(200_000) + bytes(100_000))
        await until(lambda: budgets.bodies.left <= 900_000)


async def test_a_connection_that_is_lost_in_a_body_is_no_error_of_the_log(log_server: Running, budgets: Budgets) -> None:
    with structlog.testing.capture_logs() as lines:
        async with senders(log_server, 1) as (sender,):
            await sender.send(head(200_000) + bytes(100_000))
            await until(lambda: not budgets.bodies.is_full)
        await until(lambda: budgets.bodies.is_full)
        await log_server.get("/checkpoint")
    assert [line for line in lines if line["log_level"] == "error"] == []


async def be_too_slow(log: Running, _: Budgets) -> None:
    async with senders(log, 1) as (sender,):
        await sender.send(head(200_000) + bytes(100_000))
        parse_answer(await sender.reader.readuntil(b"}")).problem(503, "body-timeout")


async def send_no_gzip(log: Running, _: Budgets) -> None:
    for body in (bytes(100_000), gzip.compress(random.randbytes(100_000))[:-1]):
        (await log.post("/v1/entries", body, Content_Encoding="gzip")).problem(400, "bad-compression")


async def send_a_bomb(log: Running, _: Budgets) -> None:
    (await log.post("/v1/entries", gzip.compress(bytes(600_000)), Content_Encoding="gzip")).problem(413, "body-too-large")


async def send_too_many_chunks(log: Running, _: Budgets) -> None:
    async with senders(log, 1) as (sender,):
        await sender.send(head(None) + chunk(bytes(200_000)) + chunk(bytes(200_001)) + chunk(b""))
        (await sender.answer()).problem(413, "body-too-large")


async def send_no_batch(log: Running, _: Budgets) -> None:
    (await log.post("/v1/entries", b"\xff" * 100_000)).problem(400)


async def go_away_meanwhile(log: Running, budgets: Budgets) -> None:
    """The connection is lost while its body is being decompressed, which counts after it was given back."""
    begun, go = asyncio.Event(), asyncio.Event()
    to_thread = asyncio.to_thread

    async def held(*args: Any, **options: Any) -> Any:
        begun.set()
        await go.wait()
        return await to_thread(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("translog.server.body.asyncio.to_thread", held)
        async with senders(log, 1) as (sender,):
            body = gzip.compress(b"\xff" * 100_000)
            await sender.send(head(len(body), "Content-Encoding: gzip") + body)
            await begun.wait()
        await until(lambda: budgets.bodies.is_full)
        go.set()
        await until(lambda: budgets.bodies.least <= 900_000)


@pytest.mark.parametrize(
    "fail",
    [
        lose_the_connection,
        be_too_slow,
        send_no_gzip,
        send_a_bomb,
        send_too_many_chunks,
        send_no_batch,
        go_away_meanwhile,
    ],
)
async def test_a_body_that_comes_to_nothing_is_given_back(
    serve: Serve, budgets: Budgets, fail: Callable[[Running, Budgets], Awaitable[None]]
) -> None:
    slow = fail is be_too_slow
    log = await serve(
        bodies_bytes_max=1_000_000,
        body_bytes_max=400_000,
        decoded_bytes_max=500_000,
        body_timeout_ms=300 if slow else 30_000,
    )
    for _ in range(1 if slow else 3):
        await fail(log, budgets)
    await budgets.all_given_back()
    assert budgets.bodies.least < 1_000_000
    assert logged(log) == 0


async def test_what_is_refused_before_its_body_takes_nothing(serve: Serve, budgets: Budgets) -> None:
    log = await serve(bodies_bytes_max=1_000_000, body_bytes_max=400_000, members=MEMBERS)
    body = batch(1, size=100_000)
    for path in ("/add", "/v1/entries"):
        (await log.post(path, body)).problem(401)
        (await log.post(path, body, Authorization="Bearer nobody")).problem(401)
        (await log.post(path, body, Authorization="Bearer reader-token")).problem(403)
        (await log.post(path, bytes(400_001), **AS_ACME)).problem(413, "body-too-large")
        (await log.post(path, body, Content_Encoding="br", **AS_ACME)).problem(415)
    assert budgets.bodies.least == 1_000_000
    assert logged(log) == 0


# --- answers ------------------------------------------------------------------------------------------------------------


async def with_a_large_bundle(serve: Serve, **settings: Any) -> Running:
    log = await serve(**settings)
    for begin in range(0, 256, 15):
        await log.grow(LARGE[begin : begin + 15])
    return log


class SlowReader:
    """Asks for something large, and reads the beginning of it."""

    def __init__(self, log: Running) -> None:
        host, _, port = log.server.address.rpartition(":")
        self._address = host, int(port)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        self._socket.setblocking(False)

    async def ask(self, path: str = FULL) -> bytes:
        """The beginning of the answer."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, self._address)
        await loop.sock_sendall(self._socket, request_bytes("GET", path))
        return await loop.sock_recv(self._socket, 1_000)

    async def rest(self) -> int:
        """How many bytes still come until the other side ends the connection, one way or the other."""
        loop = asyncio.get_running_loop()
        received = 0
        with suppress(ConnectionError):
            while part := await loop.sock_recv(self._socket, 1 << 20):
                received += len(part)
        return received

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def slow_readers(log: Running, count: int) -> AsyncIterator[list[SlowReader]]:
    async with asyncio.timeout(PATIENCE_S), AsyncExitStack() as stack:
        made = [SlowReader(log) for _ in range(count)]
        for reader in made:
            stack.callback(reader.close)
        yield made


@pytest.fixture
def nobody_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.server.listener._SLOW_S", NEVER_SLOW)


@pytest.mark.usefixtures("nobody_is_slow")
async def test_slow_readers_hold_no_more_than_the_budget_and_stop_nobody_from_appending(serve: Serve, budgets: Budgets) -> None:
    log = await with_a_large_bundle(serve, answers_bytes_max=2 * LARGE_BYTES + 1_000)
    async with slow_readers(log, 2) as readers:
        begun = [await reader.ask() for reader in readers]
        assert budgets.answers.left == 1_000
        for _ in range(3):
            require_too_busy(await log.get(FULL))
            (await log.append([b"meanwhile"])).require_ok()
        (await log.get("/checkpoint")).require_ok()
        (await log.get("/tile/0/000")).require_ok()
        assert budgets.answers.left == 1_000
        assert budgets.bodies.is_full
        for reader, beginning in zip(readers, begun, strict=True):
            head_bytes = beginning.index(b"\r\n\r\n") + 4
            assert len(beginning) + await reader.rest() == head_bytes + LARGE_BYTES
    await budgets.all_given_back()
    assert (await log.get(FULL)).require_ok().body == bundle(LARGE)
    assert logged(log) == 256 + 3


async def test_who_takes_long_loses_the_connection_when_others_need_room(
    serve: Serve, budgets: Budgets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("translog.server.listener._SLOW_S", 0.0)
    log = await with_a_large_bundle(serve, answers_bytes_max=2 * LARGE_BYTES)
    async with slow_readers(log, 2) as readers:
        for reader in readers:  # there is room for both: the second costs the first nothing
            assert (await reader.ask()).startswith(b"HTTP/1.1 200")
        assert budgets.answers.left == 0
        require_too_busy(await log.get(FULL))
        await budgets.all_given_back()
        assert [await reader.rest() < LARGE_BYTES for reader in readers] == [True, True]
    assert (await log.get(FULL)).require_ok().body == bundle(LARGE)
    await budgets.all_given_back()


@pytest.mark.usefixtures("nobody_is_slow")
async def test_a_reader_that_goes_away_makes_room(serve: Serve, budgets: Budgets) -> None:
    log = await with_a_large_bundle(serve, answers_bytes_max=LARGE_BYTES)
    for _ in range(3):
        async with slow_readers(log, 1) as (reader,):
            await reader.ask()
            assert budgets.answers.left == 0
        await budgets.all_given_back()
    (await log.get(FULL)).require_ok()


@pytest.mark.usefixtures("nobody_is_slow")
async def test_readers_over_tls_are_counted_too(serve: Serve, budgets: Budgets, tmp_path: Path) -> None:
    authority = Authority("test authority")
    cert, key = authority.issue().write(tmp_path, "server")
    log = await serve(answers_bytes_max=LARGE_BYTES, tls={"cert": cert, "key": key})
    await log.server.service.append(LARGE)
    assert await log.server.service.wait_published(256, timeout_ms=1_000 * PATIENCE_S)
    async with senders(log, 2, authority.client()) as (first, second):
        await first.send(request_bytes("GET", FULL))
        await first.reader.readexactly(1_000)
        assert budgets.answers.left == 0
        await second.send(request_bytes("GET", FULL))
        require_too_busy(await second.answer())
        await first.reader.read()
    await budgets.all_given_back()


@pytest.mark.usefixtures("nobody_is_slow")
async def test_small_answers_are_never_refused_or_counted(serve: Serve, budgets: Budgets) -> None:
    log = await serve(answers_bytes_max=1)
    await log.grow([bytes(_SMALL_BYTES - 2), b""])
    assert len((await log.get("/tile/entries/000.p/1")).require_ok().body) == _SMALL_BYTES
    assert budgets.answers.least == 1
    for method in ("GET", "HEAD"):
        answer = await log.request(method, "/tile/entries/000.p/2")
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    for path in ("/checkpoint", "/tile/0/000.p/2", "/v1/log", "/nothing"):
        assert (await log.get(path)).status in (200, 404)
    (await log.append([b"x"])).require_ok()
    await budgets.all_given_back()


async def test_an_answer_that_is_only_a_head_is_given_back(serve: Serve, budgets: Budgets) -> None:
    log = await with_a_large_bundle(serve, answers_bytes_max=LARGE_BYTES)
    for _ in range(3):
        (await log.request("HEAD", FULL)).require_ok()
        await budgets.all_given_back()
    assert budgets.answers.least == 0


# --- everything at once -------------------------------------------------------------------------------------------------


class Storm:
    """Requests of every kind and end, and what of them must be in the log."""

    def __init__(self, log: Running, seed: int) -> None:
        self.log = log
        self.taken: list[int] = []
        self._random = random.Random(seed)
        self._number = 0

    async def one(self) -> None:
        """A random one."""
        await self._random.choice(
            [self._append, self._compressed, self._chunked, self._cut, self._wrong, self._read, self._leave]
        )()

    def _body(self) -> tuple[int, bytes]:
        self._number += 1
        return self._number, batch(self._number, size=1_000 * self._random.randint(1, 250))

    def _settle(self, answer: Answer, name: int, body: bytes) -> None:
        if answer.status == 200:
            self.taken += [name] * (len(body) // 1_000)
        else:
            require_too_busy(answer)

    async def _append(self) -> None:
        name, body = self._body()
        self._settle(await self.log.post("/v1/entries", body, **AS_ACME), name, body)

    async def _compressed(self) -> None:
        name, body = self._body()
        self._settle(await self.log.post("/v1/entries", gzip.compress(body), Content_Encoding="gzip", **AS_ACME), name, body)

    async def _chunked(self) -> None:
        name, body = self._body()
        async with senders(self.log, 1) as (sender,):
            await sender.send(head(None, f"Authorization: {AS_ACME['Authorization']}"))
            for at in range(0, len(body), 30_000):
                await sender.send(chunk(body[at : at + 30_000]))
            await sender.send(chunk(b""))
            self._settle(await sender.answer(), name, body)

    async def _cut(self) -> None:
        _, body = self._body()
        async with senders(self.log, 1) as (sender,):
            await sender.send(
                head(len(body), f"Authorization: {AS_ACME['Authorization']}") + body[: -self._random.randint(1, 999)]
            )

    async def _wrong(self) -> None:
        _, body = self._body()
        kind = self._random.randrange(4)
        if kind == 0:
            (await self.log.post("/v1/entries", body)).problem(401)
        elif kind == 1:
            (await self.log.post("/v1/entries", bytes(300_001), **AS_ACME)).problem(413)
        else:
            answer = await self.log.post("/v1/entries", body + b"\xff", Content_Encoding=["", "gzip"][kind - 2], **AS_ACME)
            assert answer.status in (400, 415, 503), answer

    async def _read(self) -> None:
        answer = await self.log.request(self._random.choice(["GET", "HEAD"]), "/tile/entries/000")
        assert answer.status in (200, 503), answer

    async def _leave(self) -> None:
        async with slow_readers(self.log, 1) as (reader,):
            assert (await reader.ask(self._random.choice([FULL, "/tile/entries/000.p/255"]))).startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize("seed", range(3))
async def test_after_a_storm_everything_is_given_back_and_the_log_has_what_was_taken(
    serve: Serve, budgets: Budgets, seed: int
) -> None:
    log = await serve(
        bodies_bytes_max=600_000, answers_bytes_max=600_000, body_bytes_max=300_000, members=MEMBERS, public_read="everyone"
    )
    await log.grow([b"first" + bytes(995)] * 256, **AS_ACME)
    storm = Storm(log, seed)
    with structlog.testing.capture_logs():  # printing what was cut off takes longer than everything else here
        for _ in range(4):
            await asyncio.gather(*(storm.one() for _ in range(12)))
    await budgets.all_given_back()
    assert budgets.bodies.least < 600_000 - 100_000
    assert budgets.answers.least < 600_000 - 250_000
    found = [int(entry[:8]) for entry in (await entries(log))[256:]]
    assert sorted(found) == sorted(storm.taken)
