"""What belongs to the entries of a span in a log of events: their numbers, payloads, and the rows that follow from them.

Rules: as in recompute.py, whose processes run this: the code that numbers events is not used, only formats. Everything is named
by the event's index. An entry that may be the wrong one is held against nothing else. What only shows between spans is for
eventcheck.py. specs/formats.md, "Checking".
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from translog.core.tile import TILE_WIDTH, Bundle
from translog.errors import CorruptionError, MalformedError, VerificationError
from translog.events.entry import EVENT, EventEntry, Numbered, entry_kind, parse_entry
from translog.log.findings import STRAY, EventsFound, StreamPart, numbering_problem, received_before
from translog.log.payloads import FindKey, PayloadCheck
from translog.storage import keyspace
from translog.storage.source import MISSING, Damage, DerivedSource, EventRead, EventSource, TreeSource
from translog.storage.store import StreamName


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTask:
    """What to check of a log of events beside its tree: entries, the payload rows of those below `payloads_end`, and, where
    `derived`, the rows that follow from both."""

    origin: str
    payloads_end: int
    derived: bool


class EventSpan:
    """The check of one span, bundle by bundle in order."""

    def __init__(self, source: TreeSource, bundles: Sequence[Bundle], task: EventTask, find_key: FindKey | None) -> None:
        self.found = EventsFound()
        self._task = task
        self._payloads = PayloadCheck(self.found, origin=task.origin, find_key=find_key)
        self._derived = source if task.derived and isinstance(source, DerivedSource) else None
        self._reads: Iterator[EventRead] = iter(())
        if isinstance(source, EventSource):
            self._reads = source.events([bundle for bundle in map(self._here, bundles) if bundle is not None])
        self._identified: list[tuple[int, bytes, bytes]] = []
        self._numbered: list[tuple[int, StreamName, int]] = []

    def _here(self, bundle: Bundle) -> Bundle | None:
        """The part of a bundle whose payload rows are here."""
        width = min(bundle.width, self._task.payloads_end - bundle.index * TILE_WIDTH)
        return Bundle(index=bundle.index, width=width) if width > 0 else None

    def take(self, bundle: Bundle, entries: Sequence[bytes | None], doubtful: Collection[int]) -> None:
        """Checks what belongs to the entries of a bundle. Those at `doubtful` positions may be the wrong ones."""
        for position, entry in enumerate(entries):
            index = bundle.index * TILE_WIDTH + position
            event = self._parse(index, entry)
            if entry is None or position in doubtful:
                self.found.doubtful.add(index)
            elif event is not None:
                self._follow(index, event)
            if index < self._task.payloads_end:
                read = next(self._reads)
                for name in read.strays:
                    self.found.bad("strays", f"{name}, beside entry", index, STRAY)
                if entry is not None:
                    self._check(index, entry, event, read)
        self._check_ids()
        self._check_numbers()

    # --- entries --------------------------------------------------------------------------------------------------------

    def _parse(self, index: int, entry: bytes | None) -> EventEntry | None:
        if entry is None or entry_kind(entry) != EVENT:
            return None
        try:
            return parse_entry(entry)
        except MalformedError as error:
            self.found.bad("events", "entry", index, f"claims to be an event and is none: {error.detail}")
            return None

    def _follow(self, index: int, event: EventEntry) -> None:
        """Numbers without holes, and time that does not go back."""
        found = self.found
        doubts = len(found.doubtful)
        problem = ""
        if found.last_received is None:
            found.first_received = (index, event.received_at_ms)
        elif event.received_at_ms < found.last_received[1]:
            problem = received_before(event.received_at_ms, *found.last_received)
        found.last_received = (index, event.received_at_ms)
        stream = StreamName(event.member, event.stream)
        part = found.streams.get(stream)
        if part is None:
            found.streams[stream] = StreamPart(
                first_numbered=event.numbered,
                numbered=event.numbered,
                first_seq=event.seq,
                first_index=index,
                doubts_before=doubts,
                next_seq=event.seq + 1,
                last_index=index,
                last_received_at_ms=event.received_at_ms,
                doubts_at_last=doubts,
            )
        else:
            missing = doubts - part.doubts_at_last
            problem = problem or numbering_problem(stream, event.seq, event.numbered, part.next_seq, part.numbered, missing)
            part.numbered = event.numbered
            part.next_seq = event.seq + 1
            part.last_index = index
            part.last_received_at_ms = event.received_at_ms
            part.doubts_at_last = doubts
        if problem:
            self.found.bad("events", "entry", index, problem)
        else:
            found.good["events"] += 1
        if event.numbered is Numbered.SENDER:
            self._numbered.append((index, stream, event.seq))

    # --- payloads -------------------------------------------------------------------------------------------------------

    def _check(self, index: int, entry: bytes, event: EventEntry | None, read: EventRead) -> None:
        """Whether what is beside an entry belongs to it. An entry that is no event has nothing."""
        if event is None:
            if entry_kind(entry) == EVENT:
                return
            if read.row is not None:
                self.found.bad("payloads", "payload", index, "is there, and the entry is no event")
            elif self._derived is None and read.lost != MISSING:  # a backup's frame, which says of every entry what it has
                self.found.bad("payloads", "payload", index, read.lost)
            self._name_left_over(index, sorted(read.blobs))
            return
        try:
            if read.row is None:
                raise MalformedError(read.lost)
            row = keyspace.decode_payload_row(read.row)
        except CorruptionError:
            self.found.bad("payloads", "payload", index, "is not what this program writes there")
            return
        except MalformedError as error:
            self.found.bad("payloads", "payload", index, error.detail)
            return
        if row.uid_key is not None and row.mac is not None:
            self._identified.append((index, row.uid_key, row.mac))
        blobs = row.blobs
        try:
            blobs = self._payloads.check(index, event, row, read)
        except (MalformedError, VerificationError) as error:
            self.found.bad("payloads", "payload", index, error.detail)
        for number in range(blobs):
            if number not in read.blobs:
                self.found.bad("blobs", f"blob {number} of payload", index, read.lost)
        self._name_left_over(index, [number for number in sorted(read.blobs) if number >= blobs])

    def _name_left_over(self, index: int, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.found.bad("blobs", f"blob {number} of payload", index, STRAY)

    # --- what follows ---------------------------------------------------------------------------------------------------

    def _check_ids(self) -> None:
        """The row of each id: under the id alone of its first event, under id and content of a later one."""
        identified, self._identified = self._identified, []
        if self._derived is None:
            return
        self.found.ids += len(identified)
        first_rows = self._derived.find_rows([keyspace.id_row_key(uid_key) for _, uid_key, _ in identified])
        for (index, uid_key, mac), value in zip(identified, first_rows, strict=True):
            problem = self._id_problem(self._derived, index, uid_key, mac, value)
            if problem:
                self.found.bad("ids", "id of event", index, problem)
            else:
                self.found.good["ids"] += 1

    def _id_problem(self, derived: DerivedSource, index: int, uid_key: bytes, mac: bytes, value: bytes | Damage) -> str:
        try:
            if isinstance(value, Damage):  # of an earlier event's row, if this one has its own under its content
                (later,) = derived.find_rows([keyspace.id_row_key(uid_key + mac)])
                return "" if later == keyspace.encode_index(index) else _row_problem(value)
            first, first_mac = keyspace.decode_first_id(value)
            if first == index:
                return "" if first_mac == mac else "has a row of other content"
            if first > index or not _is_of(derived, first, uid_key, first_mac):
                return f"has a row that names event {first}, which is not the first of this id"
            if first_mac == mac:
                return f"is that of event {first}, whose content is the same: it should not have been logged twice"
            (later,) = derived.find_rows([keyspace.id_row_key(uid_key + mac)])
            if isinstance(later, Damage):
                return _row_problem(later)
            if keyspace.decode_index(later) != index:
                return f"has a row of its content that names event {keyspace.decode_index(later)}"
        except CorruptionError:
            return "has a row that is damaged"
        return ""

    def _check_numbers(self) -> None:
        """The row of each number that a sender gave."""
        numbered, self._numbered = self._numbered, []
        if self._derived is None:
            return
        self.found.numbers += len(numbered)
        rows = self._derived.find_rows([keyspace.number_key(stream, seq) for _, stream, seq in numbered])
        for (index, _, _), value in zip(numbered, rows, strict=True):
            if isinstance(value, Damage):
                self.found.bad("numbers", "number of event", index, _row_problem(value))
            elif value != keyspace.encode_index(index):
                self.found.bad("numbers", "number of event", index, "has a row that names another event")
            else:
                self.found.good["numbers"] += 1


def _row_problem(damage: Damage) -> str:
    return "has no row" if damage.problem == MISSING else f"has a row that {damage.problem}"


def _is_of(derived: DerivedSource, index: int, uid_key: bytes, mac: bytes) -> bool:
    """Whether the payload row of an event has that id and content; what cannot be read is named as such elsewhere."""
    (value,) = derived.find_rows([keyspace.payload_key(index)])
    if isinstance(value, Damage):
        return True
    try:
        row = keyspace.decode_payload_row(value)
    except CorruptionError:
        return True
    return (row.uid_key, row.mac) == (uid_key, mac)
