"""What an outside observer keeps of a log of events that is killed and started again, and what it holds against it. No I/O.

Rules: as in observer.py: everything the log ever said counts for ever. A sender may send what it likes as often as it likes:
each event is there once, at the index that was told, as it was sent; a stream's numbers have no hole; of two contents under one
id the later says so; what a sender numbered is there under its numbers, with its roots. The code that numbers is not used.
"""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple

from faults.observer import TreeObserver, Violation
from translog.core.policy import Policy
from translog.storage.store import StreamName

LOG = "log"
"""The member whose events the log makes itself."""


class Record(NamedTuple):
    """An event that the log numbers, as it is sent."""

    stream: StreamName
    uid: str
    raw: str


class SealedRecord(NamedTuple):
    """An event that its sender has sealed and numbered: with its texts, with a record for its readers, or with neither."""

    stream: StreamName
    seq: int
    root: bytes
    texts: tuple[bytes, ...]
    record: bytes | None


Item = Record | SealedRecord


class Kept(NamedTuple):
    """What a stopped log has of an event beside its entry: `event` where it can be opened, else the record as it is, if any."""

    event: Mapping[str, Any] | None
    texts: tuple[bytes, ...]
    record: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the log answered of one event. `seq` is not told of a duplicate by id."""

    index: int
    seq: int | None
    duplicate: bool
    conflicts_with: int | None


class EventObserver(TreeObserver):
    """Sends events, keeps what comes back."""

    def __init__(self, policies: Sequence[Policy], *, origin: str) -> None:
        super().__init__(policies, origin=origin)
        self._sent: set[Item] = set()
        self._sealed: dict[tuple[StreamName, int], SealedRecord] = {}
        self._at: dict[int, Item] = {}
        self._index: dict[Item, int] = {}
        self._new: set[Item] = set()
        self._told: list[Told] = []
        self._receipts: list[tuple[int, bytes]] = []
        self._entries: list[bytes] = []
        self._found: dict[Item, int] = {}
        self.acknowledgements = self.duplicates = self.conflicts = 0

    def recent(self, count: int) -> list[int]:
        return list(islice(reversed(self._at), count))

    # --- what is seen while the log runs --------------------------------------------------------------------------------

    def send(self, item: Item) -> None:
        """The event is on its way."""
        self._sent.add(item)
        if isinstance(item, SealedRecord) and self._sealed.setdefault((item.stream, item.seq), item) != item:
            raise ValueError("two events under one number")

    def acknowledge(self, item: Item, told: Told) -> None:
        """The log said that it has the event, durably."""
        index = told.index
        if self._at.setdefault(index, item) != item:
            raise Violation(f"index {index} was acknowledged for two events: {self._at[index]}, {item}")
        if self._index.setdefault(item, index) != index:
            raise Violation(f"one event was acknowledged at {self._index[item]} and at {index}: {item}")
        if not told.duplicate:
            if item in self._new:
                raise Violation(f"one event was logged anew twice: {item}")
            self._new.add(item)
        if isinstance(item, SealedRecord) and told.seq != item.seq:
            raise Violation(f"number {item.seq} of {item.stream} was acknowledged as {told.seq}")
        if index < self.size and self._found.get(item) != index:
            raise Violation(f"what was acknowledged at index {index} is not there: {item}")
        self._told.append(told)
        self.acknowledgements += 1
        self.duplicates += told.duplicate
        self.conflicts += told.conflicts_with is not None

    def published(self, size: int) -> None:
        """The log said that a checkpoint covers `size` entries."""
        self.floor = max(self.floor, size)

    def see_receipt(self, data: bytes, *, index: int) -> None:
        """A receipt. It is verified when the entry is known, so what is of a newer one waits."""
        if index < self.size:
            self._verify_receipt(data, index=index, leaf_hash=self._tree.leaves[index])
        else:
            self._receipts.append((index, data))

    def see_event(self, index: int, event: Mapping[str, Any] | None) -> None:
        """What the log gives as the event at an index that was acknowledged."""
        item = self._at[index]
        if isinstance(item, Record):
            if event is None or (event["raw_data"], event["metadata"].get("uid")) != (item.raw, item.uid):
                raise Violation(f"event {index} is given as {event}, and was sent as {item}")
        elif event != (_event_of(item.texts) if item.texts else None):
            raise Violation(f"event {index} is given as {event}, and was sealed as {item}")

    # --- what the stopped log must have ---------------------------------------------------------------------------------

    def _settle_entries(self, new_entries: Sequence[bytes], start: int) -> None:
        self._entries += new_entries
        for index, data in self._receipts:
            if index >= self.size:
                raise Violation(f"there is a receipt of entry {index}, the log has {self.size} entries")
            self._verify_receipt(data, index=index, leaf_hash=sha256(b"\x00" + self._entries[index]).digest())
        self._receipts.clear()

    def settle_events(self, kept: Sequence[Kept]) -> None:
        """Holds all events of the stopped log, which is settled, against what was sent and said."""
        if len(kept) != self.size:
            raise ValueError("these are not all events")
        audit = _Audit(self._sent, self._sealed)
        for index, (entry, one) in enumerate(zip(self._entries, kept, strict=True)):
            audit.take(index, json.loads(entry), one)
        for item, index in self._index.items():
            if audit.found.get(item) != index:
                raise Violation(f"what was acknowledged at index {index} is not there, but at {audit.found.get(item)}: {item}")
        for told in self._told:
            if told.seq is not None and told.seq != audit.seqs[told.index]:
                raise Violation(f"event {told.index} was acknowledged as number {told.seq}, and is {audit.seqs[told.index]}")
            marked = audit.conflicts.get(told.index)
            if told.conflicts_with != marked and not (told.duplicate and told.conflicts_with is None):
                raise Violation(f"event {told.index} was acknowledged as in conflict with {told.conflicts_with}")
        self._told.clear()
        self._found = audit.found

    def require_complete(self) -> None:
        """Everything that was ever sent was acknowledged in the end."""
        if missing := self._sent - self._index.keys():
            raise Violation(f"{len(missing)} events were never acknowledged: {next(iter(missing))}")


class _Audit:
    """One way through the log, from its first event on."""

    def __init__(self, sent: set[Item], sealed: Mapping[tuple[StreamName, int], SealedRecord]) -> None:
        self._sent = sent
        self._sealed = sealed
        self._next: dict[StreamName, tuple[str, int]] = {}
        self._first: dict[tuple[StreamName, str], int] = {}
        self._received_at = 0
        self.found: dict[Item, int] = {}
        self.seqs: list[int] = []
        self.conflicts: dict[int, int] = {}

    def take(self, index: int, entry: Mapping[str, Any], kept: Kept) -> None:
        stream = StreamName(entry["member"], entry["stream"])
        numbered, expected = self._next.get(stream, (entry["numbered"], 0))
        if (entry["numbered"], entry["seq"]) != (numbered, expected):
            raise Violation(f"entry {index} is number {entry['seq']} of {stream} by {entry['numbered']}, {expected} is next")
        self._next[stream] = numbered, expected + 1
        self.seqs.append(expected)
        if entry["received_at"] < self._received_at:
            raise Violation(f"entry {index} was received at {entry['received_at']}, after one at {self._received_at}")
        self._received_at = entry["received_at"]
        if stream.member == LOG:
            return
        item = self._sealed_item(index, stream, entry, kept) if numbered == "sender" else self._item(index, stream, kept)
        if item not in self._sent:
            raise Violation(f"event {index} is none that was sent: {item}")
        if item in self.found:
            raise Violation(f"an event is there twice, at {self.found[item]} and {index}: {item}")
        self.found[item] = index

    def _sealed_item(self, index: int, stream: StreamName, entry: Mapping[str, Any], kept: Kept) -> SealedRecord:
        item = self._sealed.get((stream, entry["seq"]))
        if item is None or item.root != b64decode(entry["root"]):
            raise Violation(f"number {entry['seq']} of {stream} is another event than its sender's: {entry}")
        if (kept.texts, kept.record) != (item.texts, item.record):
            raise Violation(f"the payload of event {index} is not what was sent: {kept}")
        return item

    def _item(self, index: int, stream: StreamName, kept: Kept) -> Record:
        event = kept.event
        if event is None:
            raise Violation(f"event {index} cannot be opened")
        item = Record(stream, event["metadata"]["uid"], event["raw_data"])
        first = self._first.setdefault((stream, item.uid), index)
        marked = event["fed"].get("conflicts_with")
        if marked != (None if first == index else first):
            raise Violation(f"event {index} has the id of event {first}, and says that it is in conflict with {marked}")
        if marked is not None:
            self.conflicts[index] = marked
        return item


def _event_of(texts: Sequence[bytes]) -> dict[str, Any]:
    return dict(json.loads(text) for text in texts[1:])
