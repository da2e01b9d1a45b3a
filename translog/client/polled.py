"""A log as a witness polls it: the checkpoint it shows, and a proof that leads to it. Of any tlog-tiles log.

Rules: what `fetch` gives is not verified, for the keys of a log and the name in them are the poller's matter; hashes come only
from tiles authenticated against the root of the checkpoint fetched last, so a log cannot make a proof of hashes that are not in
its tree; a partial tile that is gone is cut from the full one. https://c2sp.org/tlog-tiles
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType

from translog.client.transport import TIMEOUT_MS, Transport
from translog.client.tree import fetch_tile
from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.merkle import consistency_nodes, prove_consistency
from translog.core.note import NOTE_BYTES_MAX, parse_note
from translog.core.tile import TilePlan
from translog.core.wire import HASH_BYTES
from translog.errors import ConsistencyError, RemoteError


class PolledRemoteLog:
    """See translog.witness.poller.PolledLog. Use as an async context manager, by one task."""

    def __init__(self, url: str, *, timeout_ms: int = TIMEOUT_MS) -> None:
        """`timeout_ms`: for all of `fetch`, and for all of `prove`, with what is asked again. Raises MalformedError for what is
        no URL."""
        # Its own timeout is for one request, and must not end at the moment at which ours does: aiohttp would take both for its
        # own, and the request would be repeated.
        self._transport = Transport(url, timeout_ms=2 * timeout_ms)
        self._timeout_ms = timeout_ms
        self._head: Checkpoint | None = None

    async def __aenter__(self) -> "PolledRemoteLog":
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(exc_type, exc, traceback)

    async def fetch(self) -> bytes:
        """The checkpoint as a note, nothing of it verified. Raises RemoteError, and MalformedError for what is none."""
        async with self._in_time():
            note = await self._transport.get("checkpoint", bytes_max=NOTE_BYTES_MAX)
        self._head = parse_checkpoint(parse_note(note).text)
        return note

    async def prove(self, *, old: int, new: int) -> list[bytes]:
        """The consistency proof between two sizes, 0 <= old <= new <= that of the checkpoint fetched last; empty where there is
        nothing to prove. Raises ConsistencyError for other sizes, VerificationError for tiles that are not of that
        checkpoint's tree, RemoteError."""
        head = self._head
        if head is None or not 0 <= old <= new <= head.size:
            raise ConsistencyError(f"no proof leads from size {old} to {new} in the checkpoint fetched last")
        if old in (0, new):
            return []
        plan = TilePlan(consistency_nodes(old=old, new=new), size=head.size)
        async with self._in_time():
            data = [await fetch_tile(self._transport, tile) for tile in plan.tiles]
        cut = [tile_data[: tile.width * HASH_BYTES] for tile, tile_data in zip(plan.tiles, data, strict=True)]
        return prove_consistency(old=old, new=new, reader=plan.authenticate(cut, root=head.root))

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                yield
        except TimeoutError:
            raise RemoteError(f"the log at {self._transport.url} took longer than {self._timeout_ms} ms") from None
