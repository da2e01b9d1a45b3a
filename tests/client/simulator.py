"""The other party: a tlog-tiles log made with translog.core alone and served from memory, that lies or fails when told to.

Rules: `files` is what an honest log would serve; `answers` maps a path to a function that answers instead; every request is
recorded. Keys and entries are fixed, so a log of given entries is the same in every run.
"""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache

from aiohttp import web
from core.merkle_oracle import Oracle

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.integrate import EMPTY_EDGE, integrate
from translog.core.keys import KeyType, SKey
from translog.core.note import sign_note
from translog.core.policy import Policy, parse_policy
from translog.core.tile import bundles_of, encode_bundle, format_tile_path, tiles_of

ORIGIN = "log.example/foreign"
TIME_S = 1_700_000_000
ED25519 = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(range(32)))
MLDSA44 = SKey(name=ORIGIN, type=KeyType.COSIGNATURE_MLDSA44, seed=bytes(range(32, 64)))
STRANGER = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(32))
"""A key of the same name that no policy lists."""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def policy_of(*skeys: SKey) -> Policy:
    """Trusts those keys and asks for no witnesses."""
    return parse_policy(("".join(f"log {skey.vkey}\n" for skey in skeys) + "quorum none\n").encode())


POLICY = policy_of(ED25519)


def entry_at(index: int) -> bytes:
    """Short entries, but for an empty one and one of the greatest length."""
    return {3: b"", 5: b"\xff" * 65_535}.get(index, b"entry %d" % index)


def entries_of(size: int) -> list[bytes]:
    """The first `size` entries of the honest log."""
    return [entry_at(index) for index in range(size)]


def sign_head(size: int, root: bytes, *skeys: SKey, origin: str = ORIGIN) -> bytes:
    """A checkpoint of any tree head, by default signed with Ed25519 only."""
    text = format_checkpoint(Checkpoint(origin=origin, size=size, root=root))
    return sign_note(text, [KeySigner(skey) for skey in skeys or (ED25519,)], time_s=TIME_S)


@lru_cache(maxsize=32)
def _files(entries: tuple[bytes, ...]) -> dict[str, bytes]:
    step = integrate(EMPTY_EDGE, entries)
    files = {format_tile_path(tile): step.tiles[tile] for tile in tiles_of(len(entries))}
    for bundle in bundles_of(start=0, end=len(entries)):
        first = bundle.index * 256
        files[format_tile_path(bundle)] = encode_bundle(entries[first : first + bundle.width])
    return files


class Simulator:
    """One log. Change `files` and `answers` at any time."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[web.Request] = []
        self.gzip = False
        self.stopping = asyncio.Event()
        self.show(entries)

    def show(self, entries: Sequence[bytes]) -> None:
        """From now on this is the log's content: a longer one, or another one."""
        self.oracle = Oracle(entries)
        self.files = dict(_files(tuple(entries)))
        self.show_head(len(entries))

    def show_head(self, size: int, *skeys: SKey) -> None:
        """From now on this is the checkpoint: of the first `size` entries."""
        self.files["checkpoint"] = sign_head(size, self.root(size), *skeys)

    def root(self, size: int) -> bytes:
        return self.oracle.mth(0, size)

    def count(self, path: str) -> int:
        """How often that path was asked for."""
        return sum(request.path == f"/{path}" for request in self.requests)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        path = request.path.removeprefix("/")
        if path in self.answers:
            return await self.answers[path](request)
        if path not in self.files:
            return web.Response(status=404, text="no such file")
        data = self.files[path]
        if self.gzip:
            return web.Response(body=gzip.compress(data), headers={"Content-Encoding": "gzip"})
        return web.Response(body=data)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serves the log; gives its URL."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            self.stopping.set()
            await runner.cleanup()

    # --- ways to answer -------------------------------------------------------------------------------------------------

    async def hang(self, request: web.Request) -> web.StreamResponse:
        """Never answers."""
        await self.stopping.wait()
        return web.Response(status=503)

    async def close_early(self, request: web.Request) -> web.StreamResponse:
        """Promises more than it sends, and hangs up."""
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        if request.transport is not None:
            request.transport.abort()
        return response

    async def endless(self, request: web.Request) -> web.StreamResponse:
        """Sends for as long as somebody reads."""
        response = web.StreamResponse()
        await response.prepare(request)
        while not self.stopping.is_set():
            try:
                await response.write(b"x" * 65_536)
            except ConnectionError:
                break
        return response


def respond(
    status: int = 200, body: bytes = b"", *, headers: dict[str, str] | None = None, then: Answer | None = None, times: int = -1
) -> Answer:
    """Answers with this, `times` times (always by default), and `then` with that."""
    left = [times]

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        if left[0] == 0 and then is not None:
            return await then(request)
        left[0] -= 1
        return web.Response(status=status, body=body, headers=headers)

    return answer


def flip(data: bytes, at: int) -> bytes:
    """`data` with the lowest bit of one byte changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)
