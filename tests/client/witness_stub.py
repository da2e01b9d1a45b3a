"""The other party of witnessing: a witness that cosigns, or that answers with any bytes at all when it is told to.

Rules: HTTP is spoken by hand, so that nothing mends what is sent; `plan` holds what happens to the next requests, in order,
`always` what happens to those after them. The honest one keeps sizes and roots, checks proofs and cosigns as tlog-witness says,
with translog.core alone; whose signature is on a checkpoint it does not ask. Every request is recorded.
"""

import asyncio
import gzip
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http import HTTPStatus

from translog.core.checkpoint import parse_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey, VKey
from translog.core.merkle import EMPTY_ROOT, verify_consistency
from translog.core.note import Signature, format_note, format_signature, parse_note
from translog.core.wire import decode_base64
from translog.errors import VerificationError

NAME = "witness.example/w1"
ED25519 = SKey(name=NAME, type=KeyType.COSIGNATURE_ED25519, seed=bytes(range(64, 96)))
MLDSA44 = SKey(name=NAME, type=KeyType.COSIGNATURE_MLDSA44, seed=bytes(range(96, 128)))
SIZE_HEADER = ("Content-Type", "text/x.tlog.size")

_HEAD_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request. `headers` by lower-case names; `connection` counts from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


Act = Callable[["WitnessStub", Asked, asyncio.StreamWriter], Awaitable[None]]
"""What is done about a request. The connection stays open afterwards unless it was closed."""


@dataclass(kw_only=True)
class WitnessStub:
    """One witness. Change anything public at any time."""

    skeys: tuple[SKey, ...] = (ED25519,)
    plan: deque[Act] = field(default_factory=deque)
    always: Act | None = None
    origins: set[str] | None = None
    """The logs it knows; every log where None."""
    reads_bodies: bool = True
    now_s: Callable[[], int] = lambda: int(time.time())

    def __post_init__(self) -> None:
        self.cosigned: dict[str, tuple[int, bytes, bytes]] = {}
        """Size, root and note, by origin."""
        self.requests: list[Asked] = []
        self.connections = 0
        self.bytes_sent = 0
        self.stopping = asyncio.Event()

    @property
    def vkeys(self) -> list[VKey]:
        return [skey.vkey for skey in self.skeys]

    def policy_lines(self, url: str) -> str:
        """Its entries for a policy; it counts once under the name `w1`."""
        entries = [f"witness w1-{number} {vkey} {url}\n" for number, vkey in enumerate(self.vkeys)]
        return "".join(entries) + f"group w1 any {' '.join(f'w1-{number}' for number in range(len(self.vkeys)))}\n"

    def sign(self, note: bytes, *, time_s: int | None = None) -> tuple[Signature, ...]:
        """Its lines for the text of a note."""
        text = parse_note(note).text
        at = self.now_s() if time_s is None else time_s
        signers = [KeySigner(skey) for skey in self.skeys]
        return tuple(Signature(name=s.name, key_id=s.key_id, payload=s.sign(text, time_s=at)) for s in signers)

    async def send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.bytes_sent += len(data)
        writer.write(data)
        await writer.drain()

    # --- an honest witness ----------------------------------------------------------------------------------------------

    async def honest(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        """Answers as the specification says."""
        act = self._decide(asked)
        await act(self, asked, writer)

    def _decide(self, asked: Asked) -> Act:
        path = asked.target
        if asked.method == "GET" and path.endswith("/checkpoint"):
            notes = {sha256(origin.encode()).hexdigest(): note for origin, (_, _, note) in self.cosigned.items()}
            note = notes.get(path.split("/")[-2])
            return answer(404) if note is None else answer(200, note, ("Content-Type", "text/plain; charset=utf-8"))
        if asked.method != "POST" or not path.endswith("/add-checkpoint"):
            return answer(404, b"404 page not found\n")
        head, _, note = asked.body.partition(b"\n\n")
        first, *hashes = head.decode().split("\n")
        proof, old = [decode_base64(line) for line in hashes], int(first.removeprefix("old "))
        checkpoint = parse_checkpoint(parse_note(note).text)
        if self.origins is not None and checkpoint.origin not in self.origins:
            return answer(404, b"unknown log\n")
        size, root, _ = self.cosigned.get(checkpoint.origin, (0, EMPTY_ROOT, b""))
        if old > checkpoint.size:
            return answer(400, b"the old size is too large\n")
        if old != size:
            return answer(409, b"%d\n" % size, SIZE_HEADER)
        if proof and old in (0, checkpoint.size):
            return answer(422, b"no proof is possible\n")
        if old > 0:
            try:
                verify_consistency(old=old, new=checkpoint.size, proof=proof, old_root=root, new_root=checkpoint.root)
            except VerificationError:
                return answer(422, b"bad consistency proof\n")
        lines = self.sign(note)
        parsed = parse_note(note)
        self.cosigned[checkpoint.origin] = (
            checkpoint.size,
            checkpoint.root,
            format_note(parsed.text, parsed.signatures + lines),
        )
        return answer(200, format_lines(lines))

    # --- serving --------------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        try:
            while not writer.is_closing() and (asked := await self._receive(reader, writer, number)) is not None:
                self.requests.append(asked)
                act = self.plan.popleft() if self.plan else self.always
                await (self.honest(asked, writer) if act is None else act(self, asked, writer))
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> Asked | None:
        try:
            begin = await reader.readexactly(1)
            if not begin.isalpha():
                await self.send(writer, b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                return None
            head = begin + await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0"))) if self.reads_bodies else b""
        method, target, _ = first.split(" ")
        return Asked(method=method, target=target, headers=headers, body=body, connection=connection)

    @asynccontextmanager
    async def serving(self, *, context: ssl.SSLContext | None = None, prefix: str = "") -> AsyncIterator[str]:
        """Serves on a free port; gives the URL. `context`: speaks TLS."""
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            with suppress(asyncio.CancelledError):
                await self._serve(reader, writer)
            tasks.discard(task)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=_HEAD_BYTES_MAX)
        try:
            scheme = "http" if context is None else "https"
            yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}{prefix}"
        finally:
            self.stopping.set()
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()


def format_lines(signatures: tuple[Signature, ...]) -> bytes:
    return "".join(map(format_signature, signatures)).encode()


# What else can happen to a request


def answer(status: int, body: bytes = b"", *headers: tuple[str, str]) -> Act:
    """This, as a whole."""
    reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Odd"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    return raw("\r\n".join([*lines, "", ""]).encode() + body)


def raw(*parts: bytes, every_s: float = 0.0, end: str = "keep") -> Act:
    """Those bytes, a pause before each part but the first. Then the connection stays as it is ("keep"), is closed ("close"), or
    reset ("reset")."""

    async def act(stub: WitnessStub, asked: Asked, writer: asyncio.StreamWriter) -> None:
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(every_s)
            await stub.send(writer, part)
        if end == "close":
            writer.close()
        elif end == "reset":
            linger = struct.pack("ii", 1, 0)  # closed with a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    return act


def endless(*head: bytes, part: bytes = b"x" * 65_536, every_s: float = 0.0) -> Act:
    """The head, and then the same part for as long as somebody takes it."""

    async def act(stub: WitnessStub, asked: Asked, writer: asyncio.StreamWriter) -> None:
        await stub.send(writer, b"".join(head))
        while not stub.stopping.is_set():
            await stub.send(writer, part)
            await asyncio.sleep(every_s)

    return act


async def hang(stub: WitnessStub, asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Nothing, for ever."""
    await stub.stopping.wait()


async def drop(stub: WitnessStub, asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Closed without an answer."""
    writer.close()


def late(seconds: float, then: Act | None = None) -> Act:
    """The same later, by default what is honest."""

    async def act(stub: WitnessStub, asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await (stub.honest(asked, writer) if then is None else then(stub, asked, writer))

    return act


def signed_at(time_s: int) -> Act:
    """Cosigned at another time, whatever was cosigned before."""

    async def act(stub: WitnessStub, asked: Asked, writer: asyncio.StreamWriter) -> None:
        note = asked.body.partition(b"\n\n")[2]
        await answer(200, format_lines(stub.sign(note, time_s=time_s)))(stub, asked, writer)

    return act


def zipped(size: int, fill: bytes = b"\0") -> Act:
    """A small body that unpacks to `size` bytes."""
    return answer(200, gzip.compress(fill * (size // len(fill))), ("Content-Encoding", "gzip"))
