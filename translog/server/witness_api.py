"""The HTTP side of C2SP tlog-witness: `POST /add-checkpoint` and `GET /<sha256 of the origin>/checkpoint`.

Rules: statuses and bodies as the specification has them: 409 is `<size>\\n` of type text/x.tlog.size and nothing else, 403 is
for signatures; the rest is problem+json. The witness blocks (on its store and its disk), so it runs on threads of its own; more
requests waiting than a limit are 503. Nobody needs credentials: a log's signature is what counts. https://c2sp.org/tlog-witness
"""

import asyncio
import ipaddress
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from translog.core.keys import KeyType, VKey
from translog.errors import (
    NotFoundError,
    OldSizeError,
    PermissionDeniedError,
    PushbackError,
    SignatureError,
    StorageError,
    TranslogError,
)
from translog.server.api import NO_STORE, OCTETS, PLAIN_TEXT, Route
from translog.server.auth import is_loopback
from translog.server.body import read_body
from translog.server.problem import problem
from translog.server.settings import ServerSettings
from translog.witness.protocol import REQUEST_BYTES_MAX, SIZE_MEDIA, format_size
from translog.witness.service import Witness

_logger = structlog.get_logger()

_THREADS = 4
_WAITING_MAX = 64
"""Requests of one kind (cosign, look) that are under way or wait for a thread; one more is 503."""
_BUSY_RETRY_MS = 1_000
_ORIGINS_MAX = 256
"""Labels of the metric; the origins are those the operator added, but lists of logs can be long."""
_OTHER = "other"
_IPV6_PREFIX_BITS = 64

T = TypeVar("T")


class _Threads:
    """Threads for blocking calls, with so many calls at most. Belongs to the event loop's thread."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=name)
        self._waiting = 0

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises. Raises PushbackError if too many wait."""
        if self._waiting >= _WAITING_MAX:
            raise PushbackError(
                "the witness has all the requests it can hold", code="witness-busy", retry_after_ms=_BUSY_RETRY_MS
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """Lets what is under way finish."""
        await asyncio.to_thread(self._pool.shutdown)


class WitnessDesk:
    """Where requests to a witness are taken, and wait for it."""

    def __init__(self, witness: Witness, settings: ServerSettings, *, registry: CollectorRegistry) -> None:
        self.witness = witness
        self.settings = settings.model_copy(
            update={"body_bytes_max": REQUEST_BYTES_MAX, "decoded_bytes_max": REQUEST_BYTES_MAX}
        )
        self.failed = False
        """Whether the last request that came as far as the store failed there."""
        self._cosigning = _Threads("witness")
        self._looking = _Threads("witness-look")
        self._cosigned = Counter(
            "translog_witness_cosigned", "Checkpoints cosigned since the start.", ["origin"], registry=registry
        )
        self._labels: set[str] = set()

    async def add_checkpoint(self, body: bytes, *, peer: str) -> bytes:
        """See Witness.add_checkpoint."""
        try:
            answer = await self._cosigning.run(partial(self.witness.add_checkpoint, body, peer=peer))
        except StorageError:
            self.failed = True
            raise
        self.failed = False
        self._count(_origin(body))
        return answer

    async def latest(self, origin_hash: str) -> bytes:
        """See Witness.latest."""
        return await self._looking.run(partial(self.witness.latest, origin_hash))

    async def ready(self) -> bool:
        """Whether the store can be read, and took what it was last given."""
        try:
            await self.latest("0" * 64)
        except NotFoundError:
            return not self.failed
        except TranslogError as error:
            _logger.error("the witness's state cannot be read", detail=str(error))
            return False
        return not self.failed

    async def close(self) -> None:
        """Lets what is under way finish."""
        await self._cosigning.close()
        await self._looking.close()

    def _count(self, origin: str) -> None:
        if len(self._labels) < _ORIGINS_MAX:
            self._labels.add(origin)
        self._cosigned.labels(origin if origin in self._labels else _OTHER).inc()


DESK = web.AppKey("witness desk", WitnessDesk)


def open_desk(app: web.Application, witness: Witness, settings: ServerSettings, *, registry: CollectorRegistry) -> None:
    """Has an application's witness routes served by a witness, until the application ends."""
    desk = app[DESK] = WitnessDesk(witness, settings, registry=registry)

    async def close(app: web.Application) -> None:
        await desk.close()

    app.on_cleanup.append(close)


def desk_of(request: web.Request) -> WitnessDesk:
    """The desk of the application that a request came to. Raises NotFoundError for a log that witnesses no others."""
    desk = request.app.get(DESK)
    if desk is None:
        raise NotFoundError("this log is no witness", hint="server.witness makes it one", code="no-witness")
    return desk


async def post_add_checkpoint(served: object, request: web.Request) -> web.Response:
    desk = desk_of(request)
    body = await read_body(request, desk.settings)
    answer = await desk.add_checkpoint(body, peer=_peer(request, desk.settings))
    return web.Response(body=answer, headers={"Content-Type": PLAIN_TEXT, "Cache-Control": NO_STORE})


async def get_latest(served: object, request: web.Request) -> web.Response:
    note = await desk_of(request).latest(request.match_info["hash"])
    return web.Response(body=note, headers={"Content-Type": PLAIN_TEXT, "Cache-Control": NO_STORE})


def _refuse(request: web.Request, error: TranslogError) -> web.Response:
    """The answer for an error of `add-checkpoint`."""
    if isinstance(error, OldSizeError):
        return web.Response(
            status=409, body=format_size(error.size), headers={"Content-Type": SIZE_MEDIA, "Cache-Control": NO_STORE}
        )
    if isinstance(error, SignatureError):
        return problem(PermissionDeniedError(error.detail, hint=error.hint, code=error.code))
    return problem(error)


def _peer(request: web.Request, settings: ServerSettings) -> str:
    """Whom bad signatures are counted against: an address, or the network that an IPv6 host can choose its own from. Empty for
    what came through a proxy: nobody shall be refused for what others behind it sent."""
    peer = request.remote or ""
    if settings.behind_proxy or is_loopback(peer):
        return ""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address) or address.ipv4_mapped is not None:
        return str(getattr(address, "ipv4_mapped", None) or address)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX_BITS), strict=False))


def _origin(body: bytes) -> str:
    """The origin in a request that was good."""
    return body.partition(b"\n\n")[2].partition(b"\n")[0].decode("utf-8", "replace")


def witness_routes(prefix: str) -> tuple[Route, ...]:
    """The routes under a prefix: empty, or a path without a slash at its end."""
    return (
        Route(
            method="POST",
            path=f"{prefix}/add-checkpoint",
            handler=post_add_checkpoint,
            summary="Cosign a checkpoint that is shown to extend the one cosigned last",
            bodies=(OCTETS,),
            answers={200: ("Cosignature lines.", PLAIN_TEXT, None)},
            errors=(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
            refuse=_refuse,
            own_media=(PLAIN_TEXT, SIZE_MEDIA),
        ),
        Route(
            method="GET",
            path=f"{prefix}/{{hash}}/checkpoint",
            handler=get_latest,
            summary="The checkpoint of a log that was cosigned last, by the SHA-256 of the log's origin in hex",
            parameters={"hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
            answers={200: ("The note, with the log's signatures and the witness's.", PLAIN_TEXT, None)},
            errors=(404, 500, 503),
        ),
    )


def policy_lines(vkeys: tuple[VKey, ...], *, url: str = "") -> str:
    """The lines that make these keys of one witness count once in a policy: a witness line each, and a group if there are two.
    The group's name, or that of the only line, is the witness's."""
    name = vkeys[0].name
    if len(vkeys) == 1:
        return f"witness {name} {vkeys[0]} {url}".rstrip() + "\n"
    names = [f"{name}-{_SUFFIXES[vkey.type]}" for vkey in vkeys]
    lines = [f"witness {entry} {vkey} {url}".rstrip() for entry, vkey in zip(names, vkeys, strict=True)]
    return "\n".join([_TWO_KEYS, *lines, f"group {name} any {' '.join(names)}", ""])


_TWO_KEYS = (
    "# The keys of one witness, which counts once. Where ML-DSA-44 can be verified, the line of that key alone is stronger."
)
_SUFFIXES = {
    KeyType.COSIGNATURE_MLDSA44: "mldsa44",
    KeyType.COSIGNATURE_ED25519: "ed25519",
    KeyType.ED25519: "ed25519-note",
}
