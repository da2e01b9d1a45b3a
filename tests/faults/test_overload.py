"""More than the log can take: many senders, slow ones, silent ones. Memory stays bounded and everybody gets an honest answer.

The server is a real process with small limits; its load comes from another process, and the clients whose answers are looked at
are in this one. TRANSLOG_OVERLOAD_S is for how many seconds the flood lasts (default 4, minutes by hand); with it set, the
figures are printed (pytest -s). No figure but memory is a condition, and that one follows from the settings.
"""

import asyncio
import http.client
import json
import multiprocessing
import os
import resource
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from faults.machine import NOTHING_WRITTEN, PATIENCE_S, Log, Server, create, serving, unavailable, verify_log, wait_for
from translog.storage.leveldb import WRITE_BUFFER_BYTES

FLOOD_S = float(os.environ.get("TRANSLOG_OVERLOAD_S", "4"))
MIB = 1024 * 1024
LEVELDB_BYTES = 2 * WRITE_BUFFER_BYTES + 8 * MIB
"""Two write buffers and the block cache. Tables are mapped, and so the page cache's, which the kernel takes back at need."""
CONNECTION_BYTES = 256 * 1024
"""What a connection may take beside its body: aiohttp's and asyncio's buffers of 64 KiB each, its objects."""
SLACK_BYTES = 32 * MIB
"""Threads, caches of the allocator, metrics."""


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return create(tmp_path / "log")


# --- too many appends ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A flood: `senders` that each send one batch after the other, as fast as they are answered."""

    senders: int
    entries: int
    entry_bytes: int
    seconds: float

    def batch(self, sender: int, number: int) -> list[bytes]:
        """The entries of a batch, like no others."""
        return [b"%d.%d.%d." % (sender, number, n) + b"." * self.entry_bytes for n in range(self.entries)]


@dataclass(slots=True)
class Flooded:
    """What a flood was answered. Batches are (sender, number)."""

    acknowledged: list[tuple[int, int, int]] = field(default_factory=list)
    unknown: list[tuple[int, int]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    dishonest: list[str] = field(default_factory=list)
    seconds: float = 0

    def file(self, load: Load, sender: int, number: int, head: bytes, body: bytes) -> None:
        """Writes an answer down."""
        status = int(head.split(b" ", 2)[1])
        if status in (200, 202):
            self.acknowledged.append((json.loads(body)["first"], sender, number))
            return
        code = json.loads(body).get("code", "") if status == 503 else ""
        self.refused[code] = self.refused.get(code, 0) + 1
        if code not in NOTHING_WRITTEN or b"\r\nRetry-After: " not in head:
            self.dishonest.append(f"{head!r} {body!r}")
            self.unknown.append((sender, number))


def flood(url: str, load: Load) -> Flooded:
    """In a process of its own. Ends when every sender has the answer to its last batch."""
    return asyncio.run(_flood(url, load))


async def _flood(url: str, load: Load) -> Flooded:
    flooded, begin = Flooded(), time.monotonic()
    await asyncio.gather(*(_send(url, load, sender, flooded, begin + load.seconds) for sender in range(load.senders)))
    flooded.seconds = time.monotonic() - begin
    return flooded


async def _send(url: str, load: Load, sender: int, flooded: Flooded, end: float) -> None:
    host, _, port = urlsplit(url).netloc.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    ack = ("durable", "published")[sender % 2]
    for number in count():
        if time.monotonic() > end:
            break
        body = b"\n".join(load.batch(sender, number))
        writer.write(
            b"POST /v1/entries?receipts=none&ack=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\n"
            b"Content-Length: %d\r\n\r\n" % (ack.encode(), len(body)) + body
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                flooded.file(load, sender, number, head, await reader.readexactly(length))
        except (OSError, EOFError, TimeoutError) as error:
            flooded.unknown.append((sender, number))
            flooded.dishonest.append(repr(error))
            break
    writer.close()


GENTLE_READS = {
    "checkpoint": "/checkpoint",
    "tile": "/tile/0/000",
    "proof": "/v1/proofs/inclusion?index=7&size=300",
    "entries": "/v1/entries?start=0&end=20",
}


@dataclass(slots=True)
class Gentle:
    """Clients that ask for one thing at a time while others flood: how long each answer took, in seconds."""

    server: Server
    took: dict[str, list[float]] = field(default_factory=dict)
    appends: int = 0
    tries: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Checkpoint, tile and proof, again and again."""
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=PATIENCE_S)
        try:
            while not self.stop.is_set():
                for name, path in GENTLE_READS.items():
                    begin = time.monotonic()
                    connection.request("GET", path)
                    response = connection.getresponse()
                    assert len(response.read()) > 0
                    assert response.status == 200, (path, response.status)
                    self.took.setdefault(name, []).append(time.monotonic() - begin)
                self.stop.wait(0.02)
        finally:
            connection.close()

    def append(self) -> None:
        """Lone appends, sent again where they are refused with the promise that nothing was written."""
        while not self.stop.is_set():
            whole = time.monotonic()
            for attempt in count():
                entry = b"gentle %d %d" % (self.appends, attempt)  # the record wants every attempt to be told from others
                begin = time.monotonic()
                code = self.server.append(entry)
                self.took.setdefault("append, one try", []).append(time.monotonic() - begin)
                self.tries += 1
                assert code in NOTHING_WRITTEN | {""}
                if not code or self.stop.wait(0.02):
                    break
            if not code:
                self.appends += 1
                self.took.setdefault("append, until taken", []).append(time.monotonic() - whole)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Until the end of the block."""
        failed: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=guarded, args=(work,)) for work in (self.read, self.append)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()
        assert not failed, failed


def test_a_flood_is_pushed_back_in_bounded_memory_and_is_over_when_it_ends(log: Log) -> None:
    """Many times what it can take: a commit takes ten batches and the pool holds twenty, of senders that do not wait."""
    load = Load(senders=64, entries=40, entry_bytes=200, seconds=FLOOD_S)
    body_bytes = load.entries * (load.entry_bytes + 20)
    limits = {"log__pool_entries_max": 800, "log__pool_bytes_max": 262_144, "log__batch_entries_max": 400}
    limits |= {"log__tile_cache_tiles": 64, "log__batch_bytes_max": 131_072}
    with serving(log, **limits) as server:
        assert server.append(*(b"before %d" % n for n in range(300))) == ""
        before = server.memory()
        bound = before + LEVELDB_BYTES + SLACK_BYTES + 64 * 17_000
        bound += 4 * (limits["log__pool_bytes_max"] + limits["log__batch_bytes_max"])  # as sent, as split, in a batch, in tiles
        bound += (load.senders + 8) * (CONNECTION_BYTES + 4 * body_bytes)
        memory: list[tuple[float, int, int]] = []
        gentle = Gentle(server)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool, gentle.asking():
            running = pool.submit(flood, server.url, load)
            begin = time.monotonic()
            while not running.done():
                memory.append((time.monotonic() - begin, server.memory(), server.memory("VmRSS")))
                threading.Event().wait(0.1)
            flooded = running.result()
        begin = time.monotonic()
        assert server.append(b"the first after it") == ""
        recovered_s = time.monotonic() - begin
        wait_for(lambda: server.metric("translog_pool_entries") == 0, "an empty pool")
        report(load, flooded, gentle, memory, recovered_s)
        assert not flooded.dishonest, flooded.dishonest[:3]
        assert flooded.refused.keys() == {"pool-full"}
        assert sum(flooded.refused.values()) > len(flooded.acknowledged), "this was no flood"
        assert server.metric("translog_pushbacks_total") >= sum(flooded.refused.values())
        assert all(len(gentle.took.get(name, [])) > 3 for name in GENTLE_READS)
        assert gentle.tries > 3
        assert max(most for _, most, _ in memory) < bound, f"{max(memory)} over {bound}"
        server.checkpoint()
        assert server.end() == 0
    for first, sender, number in flooded.acknowledged:
        for index, entry in enumerate(load.batch(sender, number), start=first):
            assert index not in log.record.acknowledged, "two entries at one index"
            log.record.acknowledged[index] = entry
    verify_log(log)  # what is in the log and was not acknowledged was sent by nobody: none of the refused is there


def report(load: Load, flooded: Flooded, gentle: Gentle, memory: list[tuple[float, int, int]], recovered_s: float) -> None:
    """The figures, for those who asked for them."""
    if "TRANSLOG_OVERLOAD_S" not in os.environ:
        return
    taken = len(flooded.acknowledged)
    offered = taken + sum(flooded.refused.values())
    lines = [
        f"{load} for {flooded.seconds:.1f} s",
        f"{offered / flooded.seconds:.0f} batches/s offered, {taken / flooded.seconds:.0f} taken; refused {flooded.refused}",
        f"first append after it {1e3 * recovered_s:.1f} ms; gentle appends: {gentle.appends} taken in {gentle.tries} tries",
    ]
    for name, took in gentle.took.items():
        cut = statistics.quantiles([*took, took[-1]], n=100)
        lines.append(
            f"{name}: {len(took)}, p50 {1e3 * cut[49]:.1f} ms, p99 {1e3 * cut[98]:.1f} ms, most {1e3 * max(took):.1f} ms"
        )
    chosen = memory[:: max(1, len(memory) // 12)]
    lines.append(
        "RssAnon/VmRSS, MB: " + ", ".join(f"{anon / 1e6:.0f}/{rss / 1e6:.0f} at {at:.0f} s" for at, anon, rss in chosen)
    )
    sys.stdout.write("\n" + "\n".join(lines) + "\n")


# --- slow and silent clients --------------------------------------------------------------------------------------------


def connect(server: Server, *, receive_bytes: int = 0) -> socket.socket:
    """A connection that does not wait for anything."""
    host, _, port = urlsplit(server.url).netloc.rpartition(":")
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(PATIENCE_S)
    client.connect((host, int(port)))
    return client


def files_of(server: Server) -> int:
    """How many sockets the server has open."""
    found = 0
    for path in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(OSError):
            found += os.readlink(path).startswith("socket:")
    return found


def receive_all(client: socket.socket) -> bytes:
    """Everything until the other side ends the connection."""
    parts = []
    with suppress(ConnectionError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_readers_of_a_byte_a_second_are_cut_off_in_bounded_memory(log: Log) -> None:
    """Large answers: what fits into the kernel's buffers is as good as sent."""
    number, answer_bytes = 8, 240 * 65_537
    with serving(log, server__send_timeout_ms=2_000, log__tile_cache_tiles=64) as server:
        for batch in range(8):
            assert server.append(*(b"%d %d" % (batch, n) + bytes(65_530 - len(b"%d %d" % (batch, n))) for n in range(30))) == ""
        before = server.memory()
        sockets = files_of(server)
        bound = before + LEVELDB_BYTES + SLACK_BYTES + number * (CONNECTION_BYTES + 2 * answer_bytes)  # as entries, as sent
        most = before
        with ExitStack() as stack:
            clients = [stack.enter_context(connect(server, receive_bytes=4_096)) for _ in range(number)]
            for client in clients:
                client.sendall(b"GET /tile/entries/000.p/240 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            for client in clients:
                assert client.recv(12) == b"HTTP/1.1 200"
            end = time.monotonic() + PATIENCE_S
            while files_of(server) > sockets:
                assert time.monotonic() < end, "slow readers are kept for ever"
                most = max(most, server.memory())
                for client in clients:
                    with suppress(OSError):
                        client.recv(1)
                assert server.get("/v1/entries?start=0&end=1").status == 200
                threading.Event().wait(0.2)
            assert all(len(receive_all(client)) < answer_bytes for client in clients)
        assert most < bound, f"{most} over {bound}"
        assert server.append(b"after them") == ""
        assert server.end() == 0
    verify_log(log)


def test_writers_of_a_byte_a_second_get_a_body_timeout_and_nothing_is_written(log: Log) -> None:
    number = 50
    with serving(log, server__body_timeout_ms=1_000) as server, ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(number)]
        head = b"POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n"
        for client in clients:
            client.sendall(head)
        waiting = dict(enumerate(clients))
        answers: dict[int, bytes] = {}
        end = time.monotonic() + PATIENCE_S
        while waiting:
            assert time.monotonic() < end, "slow writers are kept for ever"
            for n, client in list(waiting.items()):
                client.settimeout(0.001)
                with suppress(TimeoutError):
                    answers[n] = client.recv(1 << 16)
                    del waiting[n]
                    continue
                with suppress(OSError):
                    client.send(b"x")
            assert server.get("/checkpoint").status == 200
        for answer in answers.values():
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: " in answer
            assert b'"code": "body-timeout"' in answer
        assert server.append(b"after them") == ""
        assert server.size() == 1
        assert server.end() == 0
    assert verify_log(log) == [b"after them"]


@contextmanager
def many_files(number: int) -> Iterator[None]:
    """This process may open as many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        if hard != resource.RLIM_INFINITY and hard < number:
            unavailable(f"this process may open {hard} files, and {number} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_idle_connections_leave_the_others_alone_up_to_the_limit(log: Log) -> None:
    number, room = 3_000, 8
    with many_files(number + 1_000), serving(log, server__connections_max=number + room) as server, ExitStack() as stack:
        assert not any("fewer connections" in line for line in server.said)
        before = server.memory()
        idle = [stack.enter_context(connect(server)) for _ in range(number)]
        wait_for(lambda: files_of(server) >= number, "all of them")
        assert server.memory() < before + SLACK_BYTES + number * CONNECTION_BYTES
        for n in range(20):
            assert server.append(b"beside them %d" % n) == ""
            assert server.get("/v1/receipts/0").status == 200
        for client in idle[:: number // 10]:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")  # they are only silent
        last = [stack.enter_context(connect(server)) for _ in range(room)]
        for client in last:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        for _ in range(20):
            with connect(server) as client:
                told = receive_all(client)
            assert told.startswith(b"HTTP/1.1 503 ")
            assert b'"code": "too-many-connections"' in told
            assert b"\r\nRetry-After: " in told
        assert server.get("/metrics", admin=True).status == 200  # its operator is not shut out
        for client in last:
            client.close()
        wait_for(lambda: server.append(b"there is room again") == "", "an append that is taken")
        for client in idle:
            client.close()
        server.checkpoint()
        assert server.end() == 0
    verify_log(log)


def test_a_sender_above_the_limit_is_told_that_nothing_was_written(log: Log) -> None:
    """Otherwise it has to take the outcome for unknown, and may not send again."""
    with serving(log, server__connections_max=1) as server, connect(server) as only:
        only.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert only.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        with connect(server) as client:
            client.sendall(b"POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n")
            told = client.recv(1 << 16, socket.MSG_PEEK)  # there, but a sender looks for it when its body is sent
            assert b'"code": "too-many-connections"' in told
            for _ in range(60):
                client.sendall(bytes(1_000))
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
