"""Reads what is published: tiles, bundles, entries, proofs, receipts, checkpoints. Proofs and published state only.

Rules: nothing beyond the published size is shown; hashes come only through core.tile's authentication against the published
root; a receipt is verified before it is handed out. Methods block and are safe to call from many threads.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.merkle import (
    Node,
    prove_consistency,
    prove_inclusion,
    root_hash,
    verify_inclusion,
)
from translog.core.note import parse_note
from translog.core.proof import Receipt, format_receipt
from translog.core.tile import (
    TILE_WIDTH,
    Bundle,
    Tile,
    TileCache,
    TileReader,
    encode_bundle,
    format_tile_path,
    tile_within,
)
from translog.errors import CorruptionError, MalformedError, NotFoundError, VerificationError
from translog.storage.store import LogStore, StoredCheckpoint

NOT_PUBLISHED_RETRY_MS = 1_000
"""What a reader that came too early is told to wait."""
_ENTRIES_STEP = 64
"""Entries read at a time: at most 4 MB of them."""


_CHECKPOINTS_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The tree head the world sees, and the note that says so. `witnessed` tells whether it has the quorum that the publication
    policy asks for, if there is one: without it there are no receipts."""

    size: int
    root: bytes
    note: bytes
    witnessed: bool = True


def nobody_is_asked(note: bytes) -> bool:
    """Whether a checkpoint has its quorum where no policy asks for one."""
    return True


def read_published(stored: StoredCheckpoint, *, is_witnessed: Callable[[bytes], bool] = nobody_is_asked) -> Published:
    """The tree head of a checkpoint that this log stored. Raises CorruptionError for anything but its own note."""
    checkpoint = _parse_stored(stored)
    witnessed = is_witnessed(stored.note)
    return Published(size=checkpoint.size, root=checkpoint.root, note=stored.note, witnessed=witnessed)


def _parse_stored(stored: StoredCheckpoint) -> Checkpoint:
    with _own_data():
        checkpoint = parse_checkpoint(parse_note(stored.note).text)
        if checkpoint.size != stored.size:
            raise MalformedError(f"the checkpoint stored for size {stored.size} says {checkpoint.size}")
        return checkpoint


@contextmanager
def _own_data() -> Iterator[None]:
    """What does not parse or verify here was written by ourselves: the store is damaged."""
    try:
        yield
    except (MalformedError, VerificationError) as error:
        raise CorruptionError(
            f"the store is damaged: {error.detail}", hint="restore the log from a backup or a mirror"
        ) from error


class _OwnTiles(TileReader):
    """A TileReader over the log's own store: a tile that does not verify is damage."""

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        with _own_data():
            return super().read_hashes(nodes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """An inclusion proof and what it is about."""

    index: int
    size: int
    root: bytes
    leaf_hash: bytes
    proof: list[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A checkpoint from before an entry, and the consistency proof from it to a later tree: none from size 0."""

    size: int
    note: bytes
    proof: tuple[bytes, ...]


class _Leaf:
    """A HashReader that reads, along with the hashes it is asked for, that of one leaf."""

    def __init__(self, tiles: TileReader, index: int) -> None:
        self._tiles = tiles
        self._node = Node(0, index)
        self.hash = b""

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        self.hash, *hashes = self._tiles.read_hashes([self._node, *nodes])
        return hashes


class Reader:
    """The log as of one published checkpoint."""

    def __init__(
        self,
        *,
        store: LogStore,
        published: Published,
        cache: TileCache,
        is_witnessed: Callable[[bytes], bool] = nobody_is_asked,
    ) -> None:
        """`is_witnessed` tells of a kept checkpoint whether it has the quorum that is asked for today."""
        self.published = published
        self._is_witnessed = is_witnessed
        self._store = store
        self._tiles = _OwnTiles(store, size=published.size, root=published.root, cache=cache)

    def tile(self, tile: Tile) -> bytes:
        """The tile's bytes, as stored. Raises NotFoundError unless the published tree has all of it."""
        self._require_within(tile)
        return self._store.read_tiles([tile])[0]

    def bundle(self, bundle: Bundle) -> bytes:
        """The entry bundle's bytes. Raises NotFoundError unless the published tree has all of it."""
        self._require_within(bundle)
        start = bundle.index * TILE_WIDTH
        return encode_bundle(self._store.read_entries(start=start, end=start + bundle.width))

    def entries(self, *, start: int, end: int, entry_bytes_max: int) -> list[bytes]:
        """Entries [start, end) as far as published, ending early once they exceed `entry_bytes_max` bytes (always at least
        one). Raises NotFoundError if none is published."""
        end = min(end, self.published.size)
        if start >= end:
            raise self._beyond(f"entry {start}")
        entries: list[bytes] = []
        left = entry_bytes_max
        while start < end and left > 0:
            step = self._store.read_entries(start=start, end=min(end, start + _ENTRIES_STEP))
            for entry in step:
                left -= len(entry)
                entries.append(entry)
                if left <= 0:
                    break
            start += len(step)
        return entries

    def inclusion(self, *, index: int, size: int | None = None) -> Inclusion:
        """The proof that entry `index` is in the tree of `size`, by default the published one. Raises NotFoundError."""
        size = self.published.size if size is None else size
        self._require_size(size)
        if index >= size:
            raise (
                self._beyond(f"entry {index}")
                if index >= self.published.size
                else NotFoundError(f"there is no entry {index} in a tree of size {size}")
            )
        root = self.published.root if size == self.published.size else root_hash(size, self._tiles)
        leaf = _Leaf(self._tiles, index)
        proof = prove_inclusion(index=index, size=size, reader=leaf)
        with _own_data():
            verify_inclusion(leaf_hash=leaf.hash, index=index, size=size, proof=proof, root=root)
        return Inclusion(index=index, size=size, root=root, leaf_hash=leaf.hash, proof=proof)

    def consistency(self, *, old: int, new: int) -> list[bytes]:
        """The proof between two sizes, 0 < old <= new <= published. Raises NotFoundError, ConsistencyError."""
        self._require_size(new)
        return prove_consistency(old=old, new=new, reader=self._tiles)

    def checkpoint(self, *, size: int | None = None) -> bytes:
        """The latest checkpoint, or the kept one of exactly `size`. Raises NotFoundError naming the nearest kept ones."""
        if size is None or size == self.published.size:
            return self.published.note
        return self._kept(size).note

    def _kept(self, size: int) -> StoredCheckpoint:
        above = self._store.find_checkpoint(size_min=size)
        if above is not None and above.size == size:
            return above
        below = self._store.find_checkpoint_below(size_max=size)
        nearest = ", ".join(str(found.size) for found in (below, above) if found is not None) or "none"
        raise NotFoundError(f"no checkpoint of size {size} was kept; the nearest are of size {nearest}", code="not-kept")

    def kept_checkpoints(self, *, start: int, note_bytes_max: int) -> list[StoredCheckpoint]:
        """Kept checkpoints of at least `start`, smallest first, ending early once their notes exceed `note_bytes_max` bytes;
        none where there is none. A receipt is at one of these, or at the latest."""
        kept: list[StoredCheckpoint] = []
        while note_bytes_max > 0:
            step = self._store.read_checkpoints(size_min=start, count_max=_CHECKPOINTS_STEP)
            for checkpoint in step:
                if checkpoint.size > self.published.size or note_bytes_max <= 0:
                    return kept
                kept.append(checkpoint)
                note_bytes_max -= len(checkpoint.note)
            if len(step) < _CHECKPOINTS_STEP:
                break
            start = step[-1].size + 1
        return kept

    def receipt(self, *, index: int, size: int | None = None) -> bytes:
        """A tlog-proof file for entry `index`, at the kept checkpoint of `size`, or else at the first that covers it, or at the
        latest where that one lacks the quorum of today.

        Raises NotFoundError, with a time to wait and code `not-published` where no checkpoint covers the entry yet,
        `not-witnessed` where the one that does lacks its quorum.
        """
        if size is None and index >= self.published.size:
            raise self._beyond(f"entry {index}")
        if size is not None:
            kept = self._store.read_checkpoints(size_min=size, count_max=1)
            if kept and kept[0].size == size:
                return self._receipt_at(index, kept[0])
            return self._receipt_at(index, self._latest() if size == self.published.size else self._kept(size))
        kept = self._store.read_checkpoints(size_min=index + 1, count_max=1)
        # One from before there were witnesses, or from before there were these, is given only to who asks for its size.
        if kept and kept[0].size <= self.published.size and self._is_witnessed(kept[0].note):
            return self._receipt_at(index, kept[0])
        return self._receipt_at(index, self._latest())

    def before(self, *, index: int, size: int) -> Before | None:
        """The newest kept checkpoint from before entry `index`, and how the tree of `size` follows from it; None if none was
        kept."""
        stored = self._store.find_checkpoint_below(size_max=index)
        if stored is None or not self._is_witnessed(stored.note):
            return None
        proof = self.consistency(old=stored.size, new=size) if stored.size else []
        return Before(size=stored.size, note=stored.note, proof=tuple(proof))

    def receipts(self, *, first: int, count: int) -> list[bytes]:
        """Receipts for `count` entries from `first`, all at the published checkpoint. Raises NotFoundError."""
        stored = self._latest()
        return [self._receipt_at(index, stored) for index in range(first, first + count)]

    def _latest(self) -> StoredCheckpoint:
        published = self.require_witnessed()
        return StoredCheckpoint(size=published.size, note=published.note)

    def require_witnessed(self) -> Published:
        """The published checkpoint. Raises NotFoundError if it lacks the quorum without which there are no receipts."""
        if not self.published.witnessed:
            raise NotFoundError(
                f"the checkpoint of size {self.published.size} has too few cosignatures for a receipt",
                hint="receipts come as soon as enough of the log's witnesses have cosigned",
                code="not-witnessed",
                retry_after_ms=NOT_PUBLISHED_RETRY_MS,
            )
        return self.published

    def _receipt_at(self, index: int, stored: StoredCheckpoint) -> bytes:
        proven = self.inclusion(index=index, size=stored.size)
        if proven.root != _parse_stored(stored).root:
            raise CorruptionError(f"the store is damaged: its checkpoint of size {stored.size} is not of its tree")
        return format_receipt(Receipt(index=index, proof=tuple(proven.proof), checkpoint=stored.note))

    def _require_size(self, size: int) -> None:
        if size > self.published.size:
            raise self._beyond(f"tree of size {size}")

    def _require_within(self, tile: Tile | Bundle) -> None:
        if not tile_within(tile, size=self.published.size):
            raise self._beyond(format_tile_path(tile))

    def _beyond(self, what: str) -> NotFoundError:
        return NotFoundError(
            f"there is no {what} in the published log, which has {self.published.size} entries",
            code="not-published",
            retry_after_ms=NOT_PUBLISHED_RETRY_MS,
        )
