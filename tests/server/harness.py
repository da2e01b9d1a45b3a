"""A real log behind a real socket, and what tests need to talk to it down to the bytes.

Rules: `Answer` holds what came over the wire, nothing decompressed. What we recompute (tiles, proofs) comes from the recursive
oracle of tests/core. Waiting is waiting for a condition; PATIENCE_S only ends tests that have failed.
"""

import asyncio
import json
import threading
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from core.merkle_oracle import Oracle
from multidict import CIMultiDict
from yarl import URL

from translog.bootstrap import LogServer
from translog.core.checkpoint import parse_checkpoint
from translog.core.note import parse_note, sign_note
from translog.core.policy import Policy, parse_policy
from translog.core.proof import parse_receipt, verify_receipt
from translog.log.clock import SystemClock
from translog.storage.leveldb import LevelDBStore
from translog.storage.store import Update

ORIGIN = "log.example/test"
OCTETS = "application/octet-stream"
NDJSON = "application/x-ndjson"
PROBLEM = "application/problem+json"
ENTRIES = "/v1/entries"
PATIENCE_S = 10

ACME, READER, WRITER = "acme-token", "reader-token", "writer-token"
AS_ACME = {"Authorization": f"Bearer {ACME}"}
MEMBERS = (
    {"name": "acme", "token_sha256": sha256(ACME.encode()).hexdigest(), "may_read": True},
    {"name": "reader", "token_sha256": sha256(READER.encode()).hexdigest(), "may_append": False, "may_read": True},
    {"name": "writer", "token_sha256": sha256(WRITER.encode()).hexdigest()},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer as it was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json"), self
        return json.loads(self.body)

    @property
    def root(self) -> str:
        """The root that a checkpoint states."""
        return self.body.split(b"\n")[2].decode()

    @property
    def size(self) -> int:
        """The size that a checkpoint states."""
        return int(self.body.split(b"\n")[1])

    def require_ok(self) -> "Answer":
        assert self.status == 200, self
        return self

    def problem(self, status: int, code: str = "") -> Any:
        """The problem document, after checking the one shape that all errors have."""
        assert self.status == status, self
        assert self.headers["Content-Type"] == PROBLEM
        assert self.headers["Cache-Control"] == "no-store"
        assert "Content-Encoding" not in self.headers
        document = json.loads(self.body)
        assert set(document) - {"hint"} == {"type", "title", "status", "code", "detail"}
        assert document["status"] == status
        assert document["type"] == "about:blank"
        assert document["detail"]
        assert document.get("hint") != ""
        if code:
            assert document["code"] == code, document
        assert (status == 503) <= ("Retry-After" in self.headers)
        assert (status == 401) == ("WWW-Authenticate" in self.headers)
        return document


@dataclass(kw_only=True)
class Running:
    """A log that is being served."""

    server: LogServer
    http: aiohttp.ClientSession
    directory: Path

    @property
    def url(self) -> str:
        return f"http://{self.server.address}"

    async def request(self, method: str, path: str, *, body: Any = None, **headers: str) -> Answer:
        """Sends one request, path and headers as given; `_` in a header's name stands for `-`."""
        return await self._request(self.server.address, method, path, body=body, headers=headers)

    async def admin(self, method: str, path: str, **headers: str) -> Answer:
        """The same to the admin listener."""
        return await self._request(self.server.admin_address, method, path, body=None, headers=headers)

    async def _request(self, address: str, method: str, path: str, *, body: Any, headers: dict[str, str]) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, URL(f"http://{address}{path}", encoded=True), data=body, headers=sent) as answer:
            return Answer(status=answer.status, headers=answer.headers, body=await answer.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, **headers)

    async def post(self, path: str, body: Any = b"", content_type: str = OCTETS, **headers: str) -> Answer:
        return await self.request("POST", path, body=body, Content_Type=content_type, **headers)

    async def append(self, entries: Sequence[bytes], query: str = "", **headers: str) -> Answer:
        """Appends a batch in the bundle encoding."""
        return await self.post(ENTRIES + query, bundle(entries), **headers)

    async def grow(self, entries: Sequence[bytes], **headers: str) -> None:
        """Appends until published."""
        if entries:
            (await self.append(entries, "?receipts=none", **headers)).require_ok()

    async def size(self) -> int:
        """The published size."""
        return (await self.get("/checkpoint")).size

    async def policy(self) -> Policy:
        return parse_policy((await self.get("/v1/log")).json["policy"].encode())

    async def verify(self, receipt: bytes, entry: bytes) -> int:
        """Verifies a receipt offline; the index it proves."""
        leaf_hash = sha256(b"\0" + entry).digest()
        return verify_receipt(parse_receipt(receipt), leaf_hash=leaf_hash, policy=await self.policy()).index

    async def raw(self, data: bytes) -> Answer:
        """Sends bytes, and reads one answer until the other side closes."""
        return await raw(self.server.address, data)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A plain connection."""
        async with connection(self.server.address) as streams:
            yield streams


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A plain connection to `host:port`."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def raw(address: str, data: bytes) -> Answer:
    """Sends `data` as it is and reads one answer until the other side closes."""
    async with connection(address) as (reader, writer):
        writer.write(data)
        return parse_answer(await reader.read())


def parse_answer(data: bytes) -> Answer:
    """An answer of known length from its bytes."""
    head, separator, body = data.partition(b"\r\n\r\n")
    assert separator, data
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, _, value = line.partition(": ")
        headers.add(name, value)
    return Answer(status=int(status_line.split(" ")[1]), headers=headers, body=body)


def request_bytes(method: str, path: str, *lines: str, body: bytes = b"") -> bytes:
    """A request that asks for its connection to be closed."""
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def bundle(entries: Sequence[bytes]) -> bytes:
    """The entry-bundle encoding."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def numbered(begin: int, end: int) -> list[bytes]:
    """Entries that tell their index, of different lengths, one in five empty."""
    return [b"" if n % 5 == 0 else b"%d;" % n * (n % 7 + 1) for n in range(begin, end)]


def hashes(values: Sequence[str]) -> list[bytes]:
    return [b64decode(value) for value in values]


def tile_bytes(oracle: Oracle, level: int, index: int, width: int) -> bytes:
    """The tile by the words of the specification: MTH(D[(n*256+i)*256^l : (n*256+i+1)*256^l]) for i below its width."""
    span = 256**level
    first = index * 256
    return b"".join(oracle.mth(n * span, (n + 1) * span) for n in range(first, first + width))


def tiles_at(size: int) -> Iterator[tuple[int, int, int]]:
    """Level, index and width of every tile of a tree of `size`, by the words of the specification."""
    level = 0
    while hashes_at_level := size // 256**level:
        for index in range(hashes_at_level // 256):
            yield level, index, 256
        if hashes_at_level % 256:
            yield level, hashes_at_level // 256, hashes_at_level % 256
        level += 1


def tile_path(level: int | str, index: int, width: int) -> str:
    """The path of a tile below index 1,000."""
    return f"/tile/{level}/{index:03d}" + ("" if width == 256 else f".p/{width}")


def require_checkpoint(note: bytes, oracle: Oracle) -> int:
    """Checks a checkpoint's root against the oracle; its size."""
    checkpoint = parse_checkpoint(parse_note(note).text)
    assert checkpoint.root == oracle.mth(0, checkpoint.size)
    return checkpoint.size


@contextmanager
def publication_blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Nothing is signed until the yielded function is called, or the block ends."""
    go = threading.Event()

    def wait_and_sign(*args: Any, **kwargs: Any) -> bytes:
        assert go.wait(PATIENCE_S)
        return sign_note(*args, **kwargs)

    monkeypatch.setattr("translog.log.publisher.sign_note", wait_and_sign)
    try:
        yield go.set
    finally:
        go.set()


@contextmanager
def commits_blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Nothing is committed until the yielded function is called, or the block ends."""
    go = threading.Event()
    commit = LevelDBStore.commit

    def wait_and_commit(store: LevelDBStore, update: Update) -> None:
        assert go.wait(PATIENCE_S)
        commit(store, update)

    monkeypatch.setattr(LevelDBStore, "commit", wait_and_commit)
    try:
        yield go.set
    finally:
        go.set()


class SettableClock(SystemClock):
    """The machine's clock, set by hand."""

    offset_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.offset_ms


async def until(condition: Callable[[], bool]) -> None:
    """Returns when `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # nobody signals what tests wait for
            await asyncio.sleep(0.002)
