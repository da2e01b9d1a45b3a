"""The LogStore port: what a log asks of its storage, at the level of a log and not of keys and values.

Rules: one writer; `commit` is the commit point of the whole system, atomic and durable when it returns; everything else may
be rebuilt or signed again. Every adapter passes tests/storage/test_contract.py. Methods block: callers keep them off the
event loop. Adapters wrap every foreign exception in StorageError (the outcome of a write is then unknown) or CorruptionError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from translog.core.tile import Tile
from translog.errors import CorruptionError, FenceError


class Profile(StrEnum):
    """What a log's entries are, for life."""

    OPAQUE = "opaque"
    EVENTS = "events"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMeta:
    """What a log is. Written once, at creation; the authority that settings must agree with."""

    format_version: int
    origin: str
    profile: Profile
    minimum_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeState:
    """The committed tree: its size and root, and the log's time of the newest entry (ms, never decreasing)."""

    size: int
    root: bytes
    received_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One commit: entries [old_size, state.size), the tiles that grew, and the state after it."""

    old_size: int
    state: TreeState
    entries: Sequence[bytes]
    tiles: Mapping[Tile, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """A published checkpoint: the tree size it states, and the note's bytes."""

    size: int
    note: bytes


class LogStore(Protocol):
    """Promises every adapter keeps. "Durable" means: it survives power loss from the moment the call returns."""

    @property
    def meta(self) -> LogMeta:
        """What log this is."""

    def read_state(self) -> TreeState:
        """The committed tree. Size 0 with the empty root for a log just created."""

    def commit(self, update: Update) -> None:
        """Applies the update: all of it or nothing, durable when it returns.

        Raises FenceError, and changes nothing, if `update.old_size` is not the stored size or the update contradicts itself.
        Raises StorageError if the write failed: it may have been applied, and no further write is taken until the store is
        opened anew.
        """

    def publish(self, checkpoint: StoredCheckpoint, *, keep: bool) -> None:
        """Makes this the latest checkpoint, and one to `keep` if so. Not durable before the next commit.

        Raises FenceError if it goes backwards, or is ahead of the committed tree. Raises StorageError as `commit` does.
        """

    def read_checkpoint(self) -> StoredCheckpoint | None:
        """The latest checkpoint, None before the first."""

    def find_checkpoint(self, *, size_min: int) -> StoredCheckpoint | None:
        """The smallest kept checkpoint of at least that size, else the latest if it is large enough, else None."""

    def find_checkpoint_below(self, *, size_max: int) -> StoredCheckpoint | None:
        """The largest kept checkpoint of at most that size, None if there is none."""

    def read_checkpoints(self, *, size_min: int, count_max: int) -> list[StoredCheckpoint]:
        """Kept checkpoints of at least that size, smallest first, at most so many."""

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        """The bytes of each tile, in order, cut to its width.

        Always succeeds for tiles of the committed tree, or raises CorruptionError. Raises NotFoundError beyond it.
        """

    def read_entries(self, *, start: int, end: int) -> list[bytes]:
        """Entries [start, end), in order.

        Always succeeds below the committed size, or raises CorruptionError. Raises NotFoundError beyond it.
        """

    def close(self) -> None:
        """Waits for reads under way and closes. Later calls raise StorageError. May be called again."""


def require_successor(update: Update, stored: TreeState) -> None:
    """Raises FenceError unless `update` continues `stored` and adds up. Every adapter calls it inside its commit."""
    new = update.state
    if update.old_size != stored.size:
        raise FenceError(f"the update builds on size {update.old_size}, the store is at {stored.size}")
    if new.size != update.old_size + len(update.entries) or not update.entries:
        raise FenceError(f"the update from {update.old_size} to {new.size} brings {len(update.entries)} entries")
    if new.received_at_ms < stored.received_at_ms:
        raise FenceError(f"time would go back from {stored.received_at_ms} to {new.received_at_ms} ms")


def require_publishable(checkpoint: StoredCheckpoint, *, latest: StoredCheckpoint | None, committed: int) -> None:
    """Raises FenceError unless `checkpoint` may follow `latest`. Every adapter calls it inside its publish."""
    if latest is not None and checkpoint.size < latest.size:
        raise FenceError(f"the checkpoint of size {checkpoint.size} is older than the published one of {latest.size}")
    if checkpoint.size > committed:
        raise FenceError(f"the checkpoint of size {checkpoint.size} is ahead of the {committed} committed entries")


def missing(what: str) -> CorruptionError:
    """The error for something below the committed size that is not there."""
    return CorruptionError(
        f"{what} is missing from the store or cut short",
        hint="stop the log and restore it from a backup or a mirror; nothing was changed",
    )
