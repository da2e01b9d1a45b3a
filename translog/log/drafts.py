"""What is appended to a log of events, and what becomes of it: sealed events, and entries that are made already.

Rules: an item is checked before it is queued (`require_items`), since what the sequencer cannot place would stop the log. What
decides whether an event is known goes with it (Draft); numbering.py decides.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from translog.core.tile import ENTRY_BYTES_MAX
from translog.core.wire import HASH_BYTES, clip
from translog.errors import MalformedError, TooLargeError
from translog.events.entry import EVENT, entry_kind
from translog.events.jsontext import INTEGER_MAX
from translog.identity.principal import NAME_PATTERN
from translog.storage.keyspace import BLOBS_MAX, SHORT_HASH_BYTES
from translog.storage.store import StreamName

_NAME = re.compile(NAME_PATTERN)
_ROW_BYTES = 320
"""What an event takes in the store beside its record and blobs: entry, ids, keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A sealed event without what only the sequencer knows.

    `root` is its event root, `record` its encrypted payload (None: the log never gets it), `blobs` are the encrypted blobs in
    order. Numbered by the log: `seq` is None; `uid_key` (16 bytes, None without an id) and the content's `mac` (16 bytes)
    decide whether it is known, and `conflicts_with` is the index that a Conflict told, once the event carries it. Numbered by
    its sender: `seq` is the number, which alone decides, and `uid_key` and `conflicts_with` are None. With `whole` a Conflict
    of this event is the ConflictError `id-conflict` of its whole submission, of which nothing is then committed.
    """

    stream: StreamName
    root: bytes
    record: bytes | None
    blobs: tuple[bytes, ...] = ()
    uid_key: bytes | None = None
    mac: bytes = b""
    seq: int | None = None
    conflicts_with: int | None = None
    whole: bool = False

    def __len__(self) -> int:
        """Bytes it takes in the store, near enough for the pool's and a commit's limits."""
        record = 0 if self.record is None else len(self.record)
        return _ROW_BYTES + record + sum(map(len, self.blobs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An entry that is no event and is committed as it is: a stream's checkpoint.

    With `stream` it is committed only if its `size` is above that of every such Note of the stream that was committed since the
    store was opened; else it is a duplicate of the last one.
    """

    entry: bytes
    stream: StreamName | None = None
    size: int = 0

    def __len__(self) -> int:
        return len(self.entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """The event is entry `index`: newly, or as a `duplicate` of what was there. `seq` is its number in its stream; None for a
    Note, and for a duplicate by id, whose entry tells."""

    index: int
    seq: int | None
    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Not committed: entry `index` has the same id and other content. Mark the event, seal it again, append it again."""

    index: int


Outcome = Placed | Conflict


def require_items(items: Sequence[Draft | Note]) -> None:
    """Raises MalformedError for no items and for one that cannot be kept as it is, TooLargeError for a Note that fits no
    bundle. About 0.5 µs an item."""
    if not items:
        raise MalformedError("there is no event to append", code="no-entries")
    for item in items:
        if isinstance(item, Note):
            _require_note(item)
        elif not _is_sound(item):
            raise MalformedError("an event's root, id, content MAC, number or blobs are not of the form that a log keeps")
    for stream in {item.stream for item in items if isinstance(item, Draft)}:
        for name in stream:
            if not _NAME.fullmatch(name):
                raise MalformedError(
                    f"{clip(name)} cannot be the name of a member or stream",
                    hint="lower-case letters, digits, dots and hyphens, at most 63, a letter or digit first and last",
                    code="bad-name",
                )


def _is_sound(draft: Draft) -> bool:
    if len(draft.root) != HASH_BYTES or len(draft.blobs) > BLOBS_MAX:
        return False
    if draft.seq is not None:
        return 0 <= draft.seq <= INTEGER_MAX and draft.uid_key is None and draft.conflicts_with is None
    if draft.record is None:  # the log has sealed what it numbers
        return False
    if draft.uid_key is None:
        return draft.conflicts_with is None
    return len(draft.uid_key) == SHORT_HASH_BYTES and len(draft.mac) == SHORT_HASH_BYTES


def _require_note(note: Note) -> None:
    if len(note.entry) > ENTRY_BYTES_MAX:
        raise TooLargeError(
            f"an entry has {len(note.entry)} bytes, at most {ENTRY_BYTES_MAX} are possible; nothing was logged",
            code="entry-too-large",
        )
    if entry_kind(note.entry) == EVENT:
        raise MalformedError("an event is numbered by the log, and never appended as an entry that is made already")
