"""Reads any tlog-tiles log, believing nothing that does not verify.

Rules: a checkpoint is used only if the policy accepts it and if it continues the last one seen here; hashes come only from
tiles authenticated against it; entries only after they hash to their leaves. A partial tile that is gone is cut from the
full one. https://c2sp.org/tlog-tiles
"""

from collections.abc import Sequence
from types import TracebackType

from translog.client.transport import TIMEOUT_MS, Transport
from translog.client.tree import fetch_tile
from translog.core.checkpoint import Checkpoint
from translog.core.merkle import (
    EMPTY_ROOT,
    Node,
    consistency_nodes,
    hash_leaf,
    inclusion_nodes,
    prove_consistency,
    prove_inclusion,
    range_nodes,
    root_hash,
)
from translog.core.note import NOTE_BYTES_MAX
from translog.core.policy import Policy, VerifiedCheckpoint, verify_checkpoint
from translog.core.proof import Receipt
from translog.core.tile import (
    TILE_WIDTH,
    AuthenticatedTiles,
    TileCache,
    TilePlan,
    bundles_of,
    decode_bundle,
)
from translog.core.wire import HASH_BYTES
from translog.errors import ConsistencyError, InclusionError, MalformedError, RemoteError

_CACHE_TILES = 512


class RemoteLog:
    """One log under one policy. Use as an async context manager."""

    def __init__(self, url: str, policy: Policy, *, token: str | None = None, timeout_ms: int = TIMEOUT_MS) -> None:
        self._transport = Transport(url, token=token, timeout_ms=timeout_ms)
        self._policy = policy
        self._cache = TileCache(tiles_max=_CACHE_TILES)
        self._note = b""
        self._latest: VerifiedCheckpoint | None = None

    async def __aenter__(self) -> "RemoteLog":
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(exc_type, exc, traceback)

    async def refresh(self) -> VerifiedCheckpoint:
        """Fetches the checkpoint, and keeps it if it is newer than the one held.

        Raises RemoteError, MalformedError, SignatureError, QuorumError; ConsistencyError if it is not a continuation of what
        was seen before: then keep both notes, they are evidence.
        """
        note = await self._transport.get("checkpoint", bytes_max=NOTE_BYTES_MAX)
        verified = verify_checkpoint(note, self._policy)
        if self._latest is not None:
            await self._require_continuation(self._latest.checkpoint, verified.checkpoint)
        if self._latest is None or verified.checkpoint.size >= self._latest.checkpoint.size:
            self._note, self._latest = note, verified
        return verified

    async def _require_continuation(self, seen: Checkpoint, new: Checkpoint) -> None:
        older, newer = sorted((seen, new), key=lambda checkpoint: checkpoint.size)
        if older.origin != newer.origin:
            raise ConsistencyError(f"the log was {seen.origin!r} and now says it is {new.origin!r}")
        if older.size == newer.size:
            root = newer.root
        elif older.size == 0:
            root = EMPTY_ROOT
        else:
            # What is not known to continue the tree seen so far must not get into the cache of its tiles.
            cache = self._cache if newer is seen else None
            root = root_hash(older.size, await self._load(newer, range_nodes(0, older.size), cache=cache))
        if root != older.root:
            raise ConsistencyError(
                f"the log showed two histories: its trees of size {older.size} and {newer.size} contradict each other",
                hint="keep both checkpoints: together they prove it",
            )

    @property
    def latest(self) -> VerifiedCheckpoint:
        """The newest checkpoint seen. Raises RemoteError before the first `refresh`."""
        if self._latest is None:
            raise RemoteError("no checkpoint was fetched yet")
        return self._latest

    @property
    def latest_note(self) -> bytes:
        """The note of `latest`."""
        return self._note

    async def entries(self, *, start: int, end: int) -> list[bytes]:
        """Entries [start, end) of the latest checkpoint, each verified.

        Reads whole bundles: ask for ranges of some hundreds. Raises InclusionError for entries that are not what the
        checkpoint says, and what fetching raises.
        """
        head = self.latest.checkpoint
        if not 0 <= start <= end <= head.size:
            raise InclusionError(f"[{start}, {end}) is not a range of a tree of size {head.size}")
        leaves = [Node(0, index) for index in range(start, end)]
        if not leaves:
            return []
        hashes = (await self._load(head, leaves, cache=self._cache)).read_hashes(leaves)
        found: list[bytes] = []
        whole_end = min(head.size, -(-end // TILE_WIDTH) * TILE_WIDTH)  # only bundles that the checkpoint implies
        for bundle in bundles_of(start=start, end=whole_end):
            data = await fetch_tile(self._transport, bundle)
            found += decode_bundle(data, count_max=TILE_WIDTH)[: bundle.width]
        skipped = start % TILE_WIDTH
        entries = found[skipped : skipped + len(leaves)]
        if len(entries) != len(leaves):
            raise MalformedError(f"the bundles for [{start}, {end}) hold too few entries")
        for index, (entry, leaf_hash) in enumerate(zip(entries, hashes, strict=True), start=start):
            if hash_leaf(entry) != leaf_hash:
                raise InclusionError(f"entry {index} is not the one in the log's tree")
        return entries

    async def prove_inclusion(self, *, index: int, size: int | None = None) -> list[bytes]:
        """The inclusion proof of an entry in the tree of `size`, by default of the latest checkpoint."""
        head = self.latest.checkpoint
        size = head.size if size is None else size
        if not 0 <= index < size <= head.size:
            raise InclusionError(f"there is no entry {index} in a tree of size {size} of this log")
        tiles = await self._load(head, inclusion_nodes(index=index, size=size), cache=self._cache)
        return prove_inclusion(index=index, size=size, reader=tiles)

    async def prove_consistency(self, *, old: int, new: int) -> list[bytes]:
        """The consistency proof between two sizes, 0 < old <= new <= the latest."""
        head = self.latest.checkpoint
        if not 0 < old <= new <= head.size:
            raise ConsistencyError(f"no proof leads from size {old} to {new} in a log of {head.size} entries")
        nodes = consistency_nodes(old=old, new=new) if old < new else []
        tiles = await self._load(head, nodes, cache=self._cache)
        return prove_consistency(old=old, new=new, reader=tiles)

    async def root(self, size: int) -> bytes:
        """The root of the first `size` entries."""
        head = self.latest.checkpoint
        if not 0 <= size <= head.size:
            raise ConsistencyError(f"there is no tree of size {size} in a log of {head.size} entries")
        return root_hash(size, await self._load(head, range_nodes(0, size), cache=self._cache))

    async def receipt(self, index: int) -> Receipt:
        """A receipt at the latest checkpoint, made from tiles: works with any tlog-tiles log."""
        proof = await self.prove_inclusion(index=index)
        return Receipt(index=index, proof=tuple(proof), checkpoint=self._note)

    async def _load(self, head: Checkpoint, nodes: Sequence[Node], *, cache: TileCache | None) -> AuthenticatedTiles:
        plan = TilePlan(nodes, size=head.size, cache=cache)
        data = [await fetch_tile(self._transport, tile) for tile in plan.tiles]
        cut = [tile_data[: tile.width * HASH_BYTES] for tile, tile_data in zip(plan.tiles, data, strict=True)]
        return plan.authenticate(cut, root=head.root)
