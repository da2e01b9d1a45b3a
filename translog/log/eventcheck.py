"""Puts together what the spans of a log of events are found to be, and compares the rows that only the whole log decides.

Rules: as in fsck.py, which uses this: nothing of the code that numbers events is used. A stream's numbers go on from span to
span; entries that are lost or wrong may have been any stream's, so what they would explain is not named. Damage to an entry is
named once, not again as that of all that belongs to it. specs/formats.md, "Checking".
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from translog.core.tile import TILE_WIDTH, Bundle
from translog.core.wire import clip
from translog.errors import CorruptionError, MalformedError
from translog.events.entry import EVENT, Numbered, entry_kind, parse_entry
from translog.log.findings import (
    ERASED,
    NEVER_GIVEN,
    NOT_OPENED,
    OPAQUE,
    STRAY,
    EventsFound,
    Run,
    numbering_problem,
    received_before,
)
from translog.storage import keyspace
from translog.storage.payloads import payload_path
from translog.storage.source import Damage, DerivedSource, TreeSource
from translog.storage.store import StreamHead, StreamName

_RUNS_MAX = 100_000
"""Of damage that is kept until it is known which entries are bad; about 30 MB."""
_REMARKS = {
    NEVER_GIVEN: "payloads that were never given to the log",
    OPAQUE: "payloads for their member's readers, which cannot be opened here",
    ERASED: "payloads that were erased with their keys",
    NOT_OPENED: "payloads that were not opened, for want of their keys",
}


class Findings(Protocol):
    """Where to put what is found: the Report of fsck.py."""

    remarks: list[str]
    excepted: dict[str, int]

    def found(self, kind: str, damage: Damage, *, count: int = 1) -> None:
        """Records `count` bad resources of a kind."""

    def passed(self, kind: str, count: int = 1) -> None:
        """Records good ones."""


@dataclass(slots=True)
class _Head:
    """Where a stream is behind the spans that were put together, and how many entries before its last event are in doubt."""

    head: StreamHead
    doubts: int


class EventCheck:
    """The events of a whole log. `take` its spans, in order, then `finish`."""

    def __init__(self, report: Findings, *, by_bundle: bool) -> None:
        """`by_bundle` where payloads are files of a backup, which damage is named by."""
        self._report = report
        self._by_bundle = by_bundle
        self._runs: list[Run] = []
        self._unnamed = 0
        self._good: Counter[str] = Counter()
        self._excepted: Counter[str] = Counter()
        self._streams: dict[StreamName, _Head] = {}
        self._doubtful: set[int] = set()
        self._ids = self._numbers = 0
        self._received: tuple[int, int] | None = None
        self._unknown_keys: dict[bytes, tuple[int, int]] = {}

    def take(self, found: EventsFound) -> None:
        """The next span."""
        room = _RUNS_MAX - len(self._runs)
        self._runs += found.runs[:room]
        self._unnamed += sum(run.last - run.first + 1 for run in found.runs[room:])
        self._good += found.good
        self._excepted += found.excepted
        self._ids += found.ids
        self._numbers += found.numbers
        for key_id, (count, first) in found.unknown_keys.items():
            known, earliest = self._unknown_keys.get(key_id, (0, first))
            self._unknown_keys[key_id] = (known + count, earliest)
        self._join(found)
        self._doubtful |= found.doubtful

    def _join(self, found: EventsFound) -> None:
        """Numbers and times from one span to the next."""
        if found.first_received is not None and found.last_received is not None:
            index, received_at_ms = found.first_received
            if self._received is not None and received_at_ms < self._received[1]:
                self._bad_order(index, received_before(received_at_ms, *self._received))
            self._received = found.last_received
        doubts = len(self._doubtful)
        for stream, part in found.streams.items():
            known = self._streams.get(stream)
            expected, before, numbered = (0, 0, part.first_numbered)
            if known is not None:
                expected, before, numbered = known.head.next_seq, known.doubts, known.head.numbered
            missing = doubts + part.doubts_before - before
            problem = numbering_problem(stream, part.first_seq, part.first_numbered, expected, numbered, missing)
            if problem:
                self._bad_order(part.first_index, problem)
            head = StreamHead(
                numbered=part.numbered,
                next_seq=part.next_seq,
                last_index=part.last_index,
                last_received_at_ms=part.last_received_at_ms,
            )
            self._streams[stream] = _Head(head, doubts + part.doubts_at_last)

    def _bad_order(self, index: int, problem: str) -> None:
        self._good["events"] -= 1
        self._runs.append(Run(kind="events", what="entry", first=index, last=index, problem=problem))

    # --- the end --------------------------------------------------------------------------------------------------------

    def finish(self, source: TreeSource, bad_entries: Collection[int], *, derived: bool, size: int, time_ms: int) -> None:
        """Names all damage but that of `bad_entries`, which is named already. `size` and `time_ms` are the tree state's; the
        time is 0 where nobody knows it."""
        for run in self._runs:
            self._name(run, bad_entries)
        if self._unnamed:
            damage = Damage(resource="more rows", problem=f"{self._unnamed} of them, are damaged too")
            self._report.found("payloads", damage, count=self._unnamed)
        for kind in self._good:
            self._report.passed(kind, self._good[kind])
        for key_id, (count, first) in self._unknown_keys.items():
            name = f"data key {clip(key_id.decode('utf-8', 'backslashreplace'))}"
            problem = f"is not in the vault: {count} payloads, that of event {first} first, were not opened"
            self._report.found("data keys", Damage(resource=name, problem=problem))
        for why, count in self._excepted.items():
            self._report.excepted[why] = count
            self._report.remarks.append(f"{_REMARKS[why]}: {count}")
        if self._received is not None and time_ms:
            self._check_time(time_ms, size)
        if derived and isinstance(source, DerivedSource):
            self._check_streams(source)
            self._check_ids(source)
            self._check_numbers(source)

    def _name(self, run: Run, bad_entries: Collection[int]) -> None:
        indexes: Iterator[int] | list[int] = iter(range(run.first, run.last + 1))
        if bad_entries:
            indexes = [index for index in indexes if index not in bad_entries]
        split = self._by_bundle and run.kind in ("payloads", "blobs")
        for _, group in groupby(enumerate(indexes), key=lambda item: (item[1] - item[0], split and item[1] // TILE_WIDTH)):
            some = [index for _, index in group]
            plural = "entries" if run.what == "entry" else f"{run.what}s"
            name = f"{run.what} {some[0]}" if len(some) == 1 else f"{plural} {some[0]} to {some[-1]}"
            damage = Damage(resource=name, problem=run.problem)
            if split:
                path = payload_path(Bundle(index=some[0] // TILE_WIDTH))
                damage = Damage(resource=path, problem=f"{name}: {run.problem}")
            self._report.found(run.kind, damage, count=len(some))

    def _check_time(self, time_ms: int, size: int) -> None:
        index, received_at_ms = self._received or (0, 0)
        if received_at_ms > time_ms or (index == size - 1 and received_at_ms != time_ms):
            problem = f"says that the newest entry was received at {time_ms}, and entry {index} was at {received_at_ms}"
            self._report.found("tree heads", Damage(resource="the tree state", problem=problem))

    # --- rows that follow -----------------------------------------------------------------------------------------------

    def _check_streams(self, source: DerivedSource) -> None:
        left = dict(self._streams)
        for row in source.scan_rows(keyspace.STREAM_START):
            if isinstance(row, Damage):
                self._report.found("streams", row)
                continue
            try:
                stream, head = keyspace.decode_stream_row(*row)
            except CorruptionError:
                self._report.found("streams", Damage(resource=f"key {row[0].hex()}", problem="is not the row of a stream"))
                continue
            known = left.pop(stream, None)
            if known is not None and known.head == head:
                self._report.passed("streams")
            elif head.last_index not in self._doubtful:
                problem = STRAY if known is None else f"is at {_told(known.head)}, and its row says {_told(head)}"
                self._report.found("streams", Damage(resource=_stream_name(stream), problem=problem))
        for stream in left:
            self._report.found("streams", Damage(resource=_stream_name(stream), problem="has no row"))

    def _check_ids(self, source: DerivedSource) -> None:
        """Every event's row is there, so if there are as many, they are these. Otherwise each is looked at."""
        for key, value in self._rows_to_look_at(source, b"i", "ids", self._ids):
            known = True
            try:
                index = keyspace.decode_first_id(value)[0] if len(key) == _FIRST_ID_BYTES else keyspace.decode_index(value)
                mac = keyspace.decode_first_id(value)[1] if len(key) == _FIRST_ID_BYTES else key[_FIRST_ID_BYTES:]
                (row,) = source.find_rows([keyspace.payload_key(index)])
                if not isinstance(row, Damage):
                    event = keyspace.decode_payload_row(row)
                    known = (event.uid_key, event.mac) == (key[1:_FIRST_ID_BYTES], mac)
                elif index not in self._doubtful:  # an event without a payload row is named as that
                    (entry,) = source.find_rows([keyspace.entry_key(index)])
                    known = not isinstance(entry, Damage) and entry_kind(entry) == EVENT
            except (CorruptionError, OverflowError):
                known = False
            if not known:
                self._report.found("ids", Damage(resource=f"key {key.hex()}", problem="is the id of no event"))

    def _check_numbers(self, source: DerivedSource) -> None:
        for key, value in self._rows_to_look_at(source, b"q", "numbers", self._numbers):
            known = False
            try:
                index = keyspace.decode_index(value)
                (entry,) = source.find_rows([keyspace.entry_key(index)])
                if index in self._doubtful:
                    known = True
                elif not isinstance(entry, Damage):
                    event = parse_entry(entry)
                    stream = StreamName(event.member, event.stream)
                    known = event.numbered is Numbered.SENDER and key == keyspace.number_key(stream, event.seq)
            except (CorruptionError, MalformedError, OverflowError):
                known = False
            if not known:
                self._report.found("numbers", Damage(resource=f"key {key.hex()}", problem="is the number of no event"))

    def _rows_to_look_at(self, source: DerivedSource, prefix: bytes, kind: str, expected: int) -> Iterator[tuple[bytes, bytes]]:
        """All rows, if they are not as many as they should be, or some of those that should be there are not."""
        count = 0
        for row in source.scan_rows(prefix):
            if isinstance(row, Damage):
                self._report.found(kind, row)
            else:
                count += 1
        if count != expected or any(run.kind == kind for run in self._runs):
            for row in source.scan_rows(prefix):
                if not isinstance(row, Damage):
                    yield row


_FIRST_ID_BYTES = 1 + keyspace.SHORT_HASH_BYTES


def _stream_name(stream: StreamName) -> str:
    return f"stream {stream.member}/{stream.stream}"


def _told(head: StreamHead) -> str:
    return f"{head.next_seq} by {head.numbered.value}, its last event {head.last_index} received at {head.last_received_at_ms}"
