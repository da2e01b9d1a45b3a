"""The LogStore port: what a log asks of its storage, at the level of a log and not of keys and values.

Rules: one writer; `commit` is the commit point of the whole system, atomic and durable when it returns; everything else may
be rebuilt or signed again. Every adapter passes tests/storage/test_contract.py. Methods block: callers keep them off the
event loop. Adapters wrap every foreign exception in StorageError (the outcome of a write is then unknown) or CorruptionError.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from translog.core.tile import Tile
from translog.errors import CorruptionError, FenceError
from translog.events.entry import Numbered


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


class StreamName(NamedTuple):
    """One numbered source of a member, by their public names."""

    member: str
    stream: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHead:
    """Where a stream is: who numbers it, for life; its next number; its newest event's index and time of receipt."""

    numbered: Numbered
    next_seq: int
    last_index: int
    last_received_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadRow:
    """What is kept of an event beside its entry. `uid_key` and `mac` (16 bytes each) are both there or both None; `record` is
    None if the log never got it; `blobs` counts the records beside it."""

    record: bytes | None
    uid_key: bytes | None = None
    mac: bytes | None = None
    blobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRows:
    """What a commit of an events log writes beside entries and tiles. Empty in an opaque log.

    `payloads` by index, one for every event; `blobs` by index and number, from 0 without holes; `ids` as keyspace.py encodes
    them, never one that is there already; `streams` every head that moved; `numbers` of sender-numbered streams, to the index.
    """

    payloads: Mapping[int, PayloadRow] = field(default_factory=dict)
    blobs: Mapping[tuple[int, int], bytes] = field(default_factory=dict)
    ids: Mapping[bytes, bytes] = field(default_factory=dict)
    streams: Mapping[StreamName, StreamHead] = field(default_factory=dict)
    numbers: Mapping[tuple[StreamName, int], int] = field(default_factory=dict)


NO_ROWS = EventRows()


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One commit: entries [old_size, state.size), the tiles that grew, the state after it, and what belongs to its events."""

    old_size: int
    state: TreeState
    entries: Sequence[bytes]
    tiles: Mapping[Tile, bytes]
    rows: EventRows = NO_ROWS


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

    def publish(self, checkpoint: StoredCheckpoint, *, keep: bool, durable: bool = False) -> None:
        """Makes this the latest checkpoint, and one to `keep` if so. Durable with the next commit, or with `durable` when it
        returns.

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

    def read_payloads(self, indexes: Sequence[int]) -> list[PayloadRow | None]:
        """The payload row of each entry, in order; None where there is none, as of every entry that is no event.

        Raises CorruptionError for a row that this program does not write. A committed event without a row is damage, which
        the caller tells from the entry.
        """

    def read_blobs(self, index: int) -> list[bytes]:
        """The blob records beside the payload of entry `index`, by number, up to the first that is missing."""

    def find_ids(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """What is stored under each key of an event id (keyspace.py), in order; None for an id that is not known. Sees every
        committed update as soon as `commit` has returned."""

    def read_streams(self) -> dict[StreamName, StreamHead]:
        """Every stream that has an event, and where it is. Raises CorruptionError."""

    def find_number(self, stream: StreamName, seq: int) -> int | None:
        """The index of number `seq` of a sender-numbered stream, None if there is no such number. Raises CorruptionError."""

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
    _require_rows_within(update)


def _require_rows_within(update: Update) -> None:
    """Raises FenceError for rows that belong to none of the update's entries."""
    rows = update.rows
    indexes = [
        *rows.payloads,
        *(index for index, _ in rows.blobs),
        *rows.numbers.values(),
        *(head.last_index for head in rows.streams.values()),
    ]
    if indexes and not update.old_size <= min(indexes) <= max(indexes) < update.state.size:
        raise FenceError(f"the update from {update.old_size} to {update.state.size} brings rows of other entries")


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
