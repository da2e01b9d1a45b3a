"""Gives what waits its numbers: in an events log each stream's next, unless the event is known already.

Rules: pure over what is read from the store; runs on the writer's thread; reads what is committed, and counts what came before
in the same commit as known. What a sender chose (an id, a number) never suppresses another event: the same id with other
content is told as a Conflict, and committed once its maker has marked it. A submission that ends in a ConflictError leaves
nothing behind. How many streams there may be is in streamlimit.py.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from translog.errors import ConflictError, CorruptionError, MalformedError, WrongNumberError
from translog.events.entry import EventEntry, Numbered, format_entry, parse_entry
from translog.log.drafts import Conflict, Draft, Note, Outcome, Placed
from translog.log.streamlimit import StreamCount
from translog.storage.keyspace import decode_first_id, decode_index, encode_first_id, encode_index
from translog.storage.store import NO_ROWS, EventRows, PayloadRow, StreamHead, StreamName

_WHO = {Numbered.LOG: "the log", Numbered.SENDER: "its sender"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """What a commit writes, and what it is to each submission in it: `counts` says how many of the entries are its own, and
    `results` what became of its items, in order (nothing in an opaque log), or why it was refused whole. `known` counts the
    items of all that were not written for being known."""

    entries: Sequence[bytes]
    rows: EventRows
    counts: Sequence[int]
    results: Sequence[tuple[Outcome, ...] | ConflictError]
    known: int = 0


class OpaqueAssembler:
    """The entries are the bytes that were appended."""

    def assemble(self, batch: Sequence[Sequence[bytes]], *, size: int, received_at_ms: int) -> Assembled:
        """See Assembler in sequencer.py."""
        return Assembled(
            entries=[entry for items in batch for entry in items],
            rows=NO_ROWS,
            counts=[len(items) for items in batch],
            results=[()] * len(batch),
        )


class NumberingStore(Protocol):
    """What numbering reads: the part of LogStore."""

    def read_streams(self) -> dict[StreamName, StreamHead]:
        """See LogStore."""

    def find_ids(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See LogStore."""

    def find_number(self, stream: StreamName, seq: int) -> int | None:
        """See LogStore."""

    def read_entries(self, *, start: int, end: int) -> list[bytes]:
        """See LogStore."""


class EventAssembler:
    """Numbers sealed events. Holds every stream's head: it is of one opening of the store, and must be its only writer."""

    def __init__(self, store: NumberingStore, *, streams_max: int) -> None:
        """Reads all streams. Blocks. Raises StorageError, CorruptionError."""
        self._store = store
        self._heads = store.read_streams()
        self._count = StreamCount(self._heads, streams_max=streams_max)
        self._noted: dict[StreamName, _Noted] = {}

    def assemble(self, batch: Sequence[Sequence[Draft | Note]], *, size: int, received_at_ms: int) -> Assembled:
        """See Assembler in sequencer.py. About 4 µs an event, and one look into the store for each id."""
        commit = _Commit(
            self._store,
            heads=self._heads,
            count=self._count,
            noted=self._noted,
            known=self._known(batch),
            size=size,
            received_at_ms=received_at_ms,
        )
        counts: list[int] = []
        results: list[tuple[Outcome, ...] | ConflictError] = []
        known = 0
        for items in batch:
            before = len(commit.entries)
            try:
                results.append(commit.place_all(items))
            except ConflictError as error:
                results.append(error)
                counts.append(0)
            else:
                counts.append(len(commit.entries) - before)
                known += len(items) - counts[-1]
        rows = commit.rows()
        self._heads.update(rows.streams)
        return Assembled(entries=commit.entries, rows=rows, counts=counts, results=results, known=known)

    def _known(self, batch: Sequence[Sequence[Draft | Note]]) -> dict[bytes, bytes]:
        """What the store has under the ids of a batch, and under the contents of those that it has with another one."""
        identified = [
            (item.uid_key, item.mac)
            for items in batch
            for item in items
            if isinstance(item, Draft) and item.uid_key is not None
        ]
        known = self._find({uid_key for uid_key, _ in identified})
        if known:
            others = {key + mac for key, mac in identified if key in known and decode_first_id(known[key])[1] != mac}
            known |= self._find(others)
        return known

    def _find(self, wanted: Collection[bytes]) -> dict[bytes, bytes]:
        keys = list(wanted)
        found = zip(keys, self._store.find_ids(keys), strict=True)
        return {key: value for key, value in found if value is not None}


_Noted = tuple[int, int]
"""The size of the last Note of a stream, and its index."""


@dataclass(slots=True)
class _Place:
    """Where a stream is in a commit that fills."""

    numbered: Numbered
    next_seq: int
    last_index: int


class _Commit:
    """What a commit is going to write, as it fills; one submission after the other, each whole or not at all."""

    def __init__(
        self,
        store: NumberingStore,
        *,
        heads: Mapping[StreamName, StreamHead],
        count: StreamCount,
        noted: dict[StreamName, _Noted],
        known: Mapping[bytes, bytes],
        size: int,
        received_at_ms: int,
    ) -> None:
        self._store = store
        self._heads = heads
        self._count = count
        self.noted = noted
        self._noting: dict[StreamName, _Noted] = {}
        self._known = known
        self._size = size
        self._received_at_ms = received_at_ms
        self._moved: dict[StreamName, _Place] = {}
        self._moving: dict[StreamName, _Place] = {}
        self.entries: list[bytes] = []
        self._payloads: dict[int, PayloadRow] = {}
        self._blobs: dict[tuple[int, int], bytes] = {}
        self._ids: dict[bytes, bytes] = {}
        self._numbers: dict[tuple[StreamName, int], int] = {}

    def place_all(self, items: Sequence[Draft | Note]) -> tuple[Outcome, ...]:
        """Takes a submission. Raises ConflictError, and has then taken nothing of it."""
        added: tuple[dict[Any, Any], ...] = (self._payloads, self._blobs, self._ids, self._numbers)
        before = [len(rows) for rows in added]
        size = len(self.entries)
        self._moving, self._noting = {}, {}
        try:
            outcomes = tuple(map(self._place, items))
        except ConflictError:
            del self.entries[size:]
            for rows, count in zip(added, before, strict=True):
                while len(rows) > count:
                    rows.popitem()  # the last one that was added: none is ever replaced
            for stream in self._moving:
                if stream not in self._moved and stream not in self._heads:
                    self._count.forget(stream)
            raise
        self._moved |= self._moving
        self.noted.update(self._noting)
        return outcomes

    def rows(self) -> EventRows:
        """All that was placed."""
        streams = {
            name: StreamHead(
                numbered=place.numbered,
                next_seq=place.next_seq,
                last_index=place.last_index,
                last_received_at_ms=self._received_at_ms,
            )
            for name, place in self._moved.items()
        }
        return EventRows(payloads=self._payloads, blobs=self._blobs, ids=self._ids, streams=streams, numbers=self._numbers)

    def _place(self, item: Draft | Note) -> Outcome:
        if isinstance(item, Note):
            return self._place_note(item)
        place = self._moving.get(item.stream) or self._moved.get(item.stream) or self._heads.get(item.stream)
        numbered = Numbered.LOG if item.seq is None else Numbered.SENDER
        if place is not None and place.numbered is not numbered:
            raise ConflictError(
                f"the stream {item.stream.stream!r} is numbered by {_WHO[place.numbered]}, and stays so",
                hint="send this to another stream",
                code="numbered-otherwise",
            )
        known = self._find_id(item) if item.seq is None else self._find_number(item, 0 if place is None else place.next_seq)
        if isinstance(known, Conflict) and item.whole:
            raise ConflictError(f"an id is that of entry {known.index}, which has other content", code="id-conflict")
        return known or self._append(item, place, numbered)

    def _place_note(self, note: Note) -> Placed:
        index = self._size + len(self.entries)
        if note.stream is not None:
            known = self._noting.get(note.stream) or self.noted.get(note.stream)
            if known is not None and known[0] >= note.size:
                return Placed(index=known[1], seq=None, duplicate=True)
            self._noting[note.stream] = (note.size, index)
        self.entries.append(note.entry)
        return Placed(index=index, seq=None)

    def _find_id(self, draft: Draft) -> Outcome | None:
        """What is known of a draft by its id; None if it is to be committed."""
        if draft.uid_key is None:
            return None
        first = self._id_row(draft.uid_key)
        if first is None:
            return None
        index, mac = decode_first_id(first)
        if mac == draft.mac:
            return Placed(index=index, seq=None, duplicate=True)
        later = self._id_row(draft.uid_key + draft.mac)
        if later is not None:
            return Placed(index=decode_index(later), seq=None, duplicate=True)
        return None if draft.conflicts_with == index else Conflict(index=index)

    def _id_row(self, key: bytes) -> bytes | None:
        return self._ids.get(key) or self._known.get(key)

    def _find_number(self, draft: Draft, expected: int) -> Placed | None:
        """The event that has the draft's number already; None if it is the stream's next. Raises ConflictError."""
        seq = draft.seq
        if seq is None or seq == expected:
            return None
        if seq > expected:
            raise WrongNumberError(
                f"the stream {draft.stream.stream!r} expects number {expected}, not {seq}",
                hint="send the events from that number on; a lost one is declared by an event, never skipped",
                expected=expected,
            )
        index = self._numbers.get((draft.stream, seq))
        if index is None:
            index = self._store.find_number(draft.stream, seq)
        if index is None:
            raise CorruptionError(f"number {seq} of the stream {draft.stream} is missing from the store")
        if self._root(index, draft.stream, seq) != draft.root:
            raise ConflictError(
                f"number {seq} of the stream {draft.stream.stream!r} is another event in this log",
                hint="stop sending: two histories were made of this stream, as by a sender that was restored from a backup",
                code="stream-forked",
            )
        return Placed(index=index, seq=seq, duplicate=True)

    def _root(self, index: int, stream: StreamName, seq: int) -> bytes:
        """The event root in entry `index`, which is number `seq` of that stream."""
        if index >= self._size:
            entry = self.entries[index - self._size]
        else:
            (entry,) = self._store.read_entries(start=index, end=index + 1)
        try:
            event = parse_entry(entry)
        except MalformedError:
            event = None
        if event is None or (event.member, event.stream, event.seq) != (*stream, seq):
            raise CorruptionError(f"the store says that entry {index} is number {seq} of the stream {stream}, and it is not")
        return event.root

    def _append(self, draft: Draft, place: _Place | StreamHead | None, numbered: Numbered) -> Placed:
        stream = draft.stream
        if place is None:
            self._count.begin(stream)
        index = self._size + len(self.entries)
        seq = 0 if place is None else place.next_seq
        entry = EventEntry(
            member=stream.member,
            stream=stream.stream,
            seq=seq,
            numbered=numbered,
            received_at_ms=self._received_at_ms,
            root=draft.root,
        )
        self.entries.append(format_entry(entry))
        uid_key = draft.uid_key
        mac = None
        if uid_key is not None:
            mac = draft.mac
            if self._id_row(uid_key) is None:
                self._ids[uid_key] = encode_first_id(index, mac)
            else:
                self._ids[uid_key + mac] = encode_index(index)
        self._payloads[index] = PayloadRow(record=draft.record, uid_key=uid_key, mac=mac, blobs=len(draft.blobs))
        for number, blob in enumerate(draft.blobs):
            self._blobs[index, number] = blob
        if numbered is Numbered.SENDER:
            self._numbers[stream, seq] = index
        mine = self._moving.get(stream)
        if mine is None:
            self._moving[stream] = _Place(numbered, seq + 1, index)
        else:
            mine.next_seq = seq + 1
            mine.last_index = index
        return Placed(index=index, seq=seq)
