"""A whole log over HTTP, to check it or to copy it: the TreeSource of any tlog-tiles log.

Rules: several requests are under way at once, results come in the order asked for; what the log refuses, or answers wrongly,
is damage; a log that cannot be reached, or has no time, ends the work. Kept checkpoints and profile are read where the log is
a translog. Nothing is verified here: who reads does that. https://c2sp.org/tlog-tiles
"""

import asyncio
import json
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from translog.client.transport import TIMEOUT_MS, Transport
from translog.core.checkpoint import parse_checkpoint
from translog.core.note import NOTE_BYTES_MAX, parse_note
from translog.core.tile import BUNDLE_BYTES_MAX, TILE_WIDTH, Bundle, Tile, format_tile_path
from translog.core.wire import HASH_BYTES, SIZE_MAX
from translog.errors import MalformedError, RemoteError
from translog.storage.keyspace import FORMAT_VERSION
from translog.storage.source import BundleRead, Contents, Damage, cut_tile, decode_kept, read_bundle
from translog.storage.store import LogMeta, Profile, StoredCheckpoint, TreeState

_TILE_BYTES_MAX = TILE_WIDTH * HASH_BYTES
_LOG_BYTES_MAX = 1024 * 1024
_KEPT_BYTES_MAX = 64 * 1024 * 1024
_AT_ONCE = 8
"""Requests under way: at most 134 MB of bundles."""
_PAGES_MAX = 65_536
"""Of kept checkpoints: a log that shows hundreds a page ends long before, one that goes on for ever does not."""

T = TypeVar("T")


async def fetch_tile(transport: Transport, tile: Tile | Bundle) -> bytes:
    """The bytes of a tile or bundle; where a partial one is gone, the same part of the full one. Raises RemoteError."""
    bytes_max = BUNDLE_BYTES_MAX if isinstance(tile, Bundle) else _TILE_BYTES_MAX
    try:
        return await transport.get(format_tile_path(tile), bytes_max=bytes_max)
    except RemoteError as error:
        if error.status not in (404, 410) or tile.width == TILE_WIDTH:
            raise
        full = Bundle(index=tile.index) if isinstance(tile, Bundle) else Tile(level=tile.level, index=tile.index)
        data = await transport.get(format_tile_path(full), bytes_max=bytes_max)
        return cut_tile(tile, data)


class RemoteTree:
    """See TreeSource. Runs an event loop of its own: not for use inside another one."""

    def __init__(self, url: str, *, token: str | None = None, timeout_ms: int = TIMEOUT_MS) -> None:
        """Raises MalformedError for what is no URL."""
        self._transport = Transport(url, token=token, timeout_ms=timeout_ms)
        self._size = SIZE_MAX
        self._under_way: set[asyncio.Task[bytes | Damage]] = set()
        self._closed = False
        self._runner = asyncio.Runner()
        self._runner.run(self._transport.__aenter__())

    @property
    def resource_of_entries(self) -> str:
        return "bundle"

    def contents(self) -> Contents:
        """Raises RemoteError, and MalformedError if what is served as the checkpoint is none."""
        note = self._run(self._transport.get("checkpoint", bytes_max=NOTE_BYTES_MAX))
        head = parse_checkpoint(parse_note(note).text)
        self._size = head.size
        meta = LogMeta(format_version=FORMAT_VERSION, origin=head.origin, profile=self._profile())
        state = TreeState(size=head.size, root=head.root, received_at_ms=0)
        return Contents(meta=meta, state=state, latest=StoredCheckpoint(size=head.size, note=note))

    def _profile(self) -> Profile:
        """What a translog says its entries are; opaque for every other log."""
        try:
            answer = json.loads(self._run(self._transport.get("v1/log", bytes_max=_LOG_BYTES_MAX)))
            return Profile(answer["profile"])
        except (RemoteError, ValueError, KeyError, TypeError, RecursionError):
            return Profile.OPAQUE

    def checkpoints(self, *, size_min: int = 0) -> Iterator[StoredCheckpoint | Damage]:
        """Those of the tree that `contents` stated: a log that is being written keeps larger ones meanwhile."""
        for _ in range(_PAGES_MAX):
            start = size_min
            path = f"v1/checkpoints?start={size_min}"
            try:
                page = self._run(self._transport.get(path, bytes_max=_KEPT_BYTES_MAX))
            except RemoteError as error:
                if error.status is None:
                    raise
                if error.status not in (404, 410):  # another program's log keeps none, or none that can be listed
                    yield Damage(resource="kept checkpoints", problem=error.detail)
                return
            for line in page.splitlines(keepends=True):
                try:
                    kept = decode_kept(line)
                except MalformedError as error:
                    yield Damage(resource=path, problem=f"a line {error.detail}")
                    return
                if kept.size > self._size:
                    return
                if kept.size < size_min:
                    yield Damage(resource=path, problem="does not list the kept checkpoints in order")
                    return
                size_min = kept.size + 1
                yield kept
            if size_min == start:
                return
        yield Damage(resource="kept checkpoints", problem=f"do not end within {_PAGES_MAX} pages")

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        for bundle, data in zip(bundles, self._fetch_all(bundles), strict=True):
            yield read_bundle(bundle, data)

    def tiles(self, tiles: Sequence[Tile]) -> Iterator[bytes | Damage]:
        return self._fetch_all(tiles)

    def strays(self, *, size: int) -> Iterator[Damage]:
        """None: what nobody asks for cannot be seen from outside."""
        yield from ()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._run(self._end())
            self._runner.close()

    async def _end(self) -> None:
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        await self._transport.__aexit__(None, None, None)

    def _fetch_all(self, tiles: Sequence[Tile | Bundle]) -> Iterator[bytes | Damage]:
        waiting: deque[asyncio.Task[bytes | Damage]] = deque()
        loop = self._runner.get_loop()
        for tile in tiles:
            waiting.append(loop.create_task(self._fetch(tile)))
            self._under_way.add(waiting[-1])
            if len(waiting) == _AT_ONCE:
                yield self._result(waiting.popleft())
        while waiting:
            yield self._result(waiting.popleft())

    def _result(self, task: "asyncio.Task[bytes | Damage]") -> bytes | Damage:
        self._under_way.discard(task)
        return self._run(_awaited(task))

    async def _fetch(self, tile: Tile | Bundle) -> bytes | Damage:
        try:
            return await fetch_tile(self._transport, tile)
        except RemoteError as error:
            if error.status in (None, 429, 502, 503, 504):
                raise
            problem = "is missing" if error.status in (404, 410) else error.detail
            return Damage(resource=format_tile_path(tile), problem=problem)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)


async def _awaited(task: "asyncio.Task[T]") -> T:
    return await task
