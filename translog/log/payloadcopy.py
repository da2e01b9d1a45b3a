"""What an events log keeps beside its entries, copied: into a backup, and back into a store.

Rules: payload rows and blobs are copied as they are, unopened, so a copy needs no keys; what should be beside an entry and is
not is told, and the copy goes on, since entries are worth having without it; a payload that a backup has is never given up for
none. The rows that find events and number them are made anew from entries and payload rows, in order. What was lost stays lost:
no row is made that would say that the log never had it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from translog.core.tile import TILE_WIDTH, Bundle, bundles_of
from translog.errors import CorruptionError, MalformedError, SettingsError
from translog.events.cipher import record_key_id
from translog.events.entry import EVENT, EventEntry, Numbered, entry_kind, parse_entry
from translog.storage import keyspace
from translog.storage.folder import Folder
from translog.storage.source import MISSING, Damage, EventRead, EventSource, TreeSource
from translog.storage.store import EventRows, LogStore, PayloadRow, StreamHead, StreamName

Tell = Callable[[Damage], None]
"""Told of what is lost."""


class Losses:
    """Tells of what is lost, once for neighbours that are lost alike, and counts the payloads under each key."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._run: tuple[str, str, int, int] | None = None
        self.key_ids: Counter[bytes] = Counter()
        """Payloads that the log can open with each key."""

    def look(self, index: int, entry: bytes, read: EventRead) -> PayloadRow | None:
        """The payload row of an entry, None where there is none; what is not there and should be is told."""
        for name in read.strays:
            self._tell(Damage(resource=name, problem="is there, and should not be"))
        if entry_kind(entry) != EVENT:
            return None
        if read.row is None:
            self._lost("payload", index, read.lost)
            return None
        try:
            row = keyspace.decode_payload_row(read.row)
        except CorruptionError:
            self._lost("payload", index, "is not what this program writes there")
            return None
        for number in range(row.blobs):
            if number not in read.blobs:
                self._lost(f"blob {number} of payload", index, read.lost)
        key_id = None if row.record is None else record_key_id(row.record)
        if key_id is not None:
            self.key_ids[key_id] += 1
        return row

    def _lost(self, what: str, index: int, problem: str) -> None:
        if self._run is not None and (self._run[0], self._run[1], self._run[3]) == (what, problem, index - 1):
            self._run = (what, problem, self._run[2], index)
        else:
            self.end()
            self._run = (what, problem, index, index)

    def end(self) -> None:
        """Tells of the last."""
        if self._run is not None:
            what, problem, first, last = self._run
            name = f"{what} {first}" if first == last else f"{what}s {first} to {last}"
            self._run = None
            self._tell(Damage(resource=name, problem=problem))


def copy_payloads(source: TreeSource, folder: Folder, *, done: int, size: int, losses: Losses) -> int:
    """Writes what belongs to the entries of a backup, from `done` on, into its private part; the entries are there. Returns of
    how many entries the payloads are then there: as many as before, from a source that has none. Raises StorageError."""
    end = source.payloads_end() if isinstance(source, EventSource) else None
    if end is None or not isinstance(source, EventSource):
        return done
    for bundle in bundles_of(start=done, end=min(end, size)):
        width = done - bundle.index * TILE_WIDTH
        before = folder.events([Bundle(index=bundle.index, width=width)]) if width > 0 else iter(())
        (read,) = folder.bundles([bundle])
        reads = _merged(source.events([bundle]), before)
        folder.private.write(bundle, _looked_at(bundle, read.entries, reads, losses, skip=width))
    losses.end()
    return max(done, min(end, size))


def _merged(reads: Iterator[EventRead], before: Iterator[EventRead]) -> Iterator[EventRead]:
    for read in reads:
        old = next(before, EventRead())
        yield old if read.row is None and old.row is not None else read


def _looked_at(
    bundle: Bundle, entries: Sequence[bytes | None], reads: Iterator[EventRead], losses: Losses, *, skip: int
) -> Iterator[EventRead]:
    """The reads, after a look at those behind the first `skip`, which were looked at when they were copied first."""
    for position, (entry, read) in enumerate(zip(entries, reads, strict=True)):
        if position >= skip and entry is not None:
            losses.look(bundle.index * TILE_WIDTH + position, entry, read)
        yield read


@dataclass(slots=True)
class _Batch:
    payloads: dict[int, PayloadRow]
    blobs: dict[tuple[int, int], bytes]
    ids: dict[bytes, bytes]
    numbers: dict[tuple[StreamName, int], int]
    moved: set[StreamName]


class Deriver:
    """Makes the rows of an events log from entries and what is beside them, commit after commit, for an empty store."""

    def __init__(self, source: TreeSource, store: LogStore, losses: Losses) -> None:
        self._store = store
        self._losses = losses
        self._source = source if isinstance(source, EventSource) else None
        self._end = (self._source.payloads_end() or 0) if self._source is not None else 0
        self._heads: dict[StreamName, StreamHead] = {}
        self._batch = _Batch({}, {}, {}, {}, set())
        self._identified: list[tuple[int, bytes, bytes]] = []
        self.received_at_ms = 0
        """When the newest event so far was received."""

    def take(self, bundle: Bundle, entries: Sequence[bytes]) -> int:
        """The entries of the next bundle. Returns how many bytes go beside them."""
        here = min(bundle.width, self._end - bundle.index * TILE_WIDTH)
        reads: Iterator[EventRead] = iter(())
        if self._source is not None and here > 0:
            reads = self._source.events([Bundle(index=bundle.index, width=here)])
        size = 0
        for index, entry in enumerate(entries, start=bundle.index * TILE_WIDTH):
            read = next(reads, EventRead(lost=_NOT_COPIED if index >= self._end else MISSING))
            row = self._losses.look(index, entry, read)
            with suppress(MalformedError):  # an entry that is none is named by fsck
                self._follow(index, parse_entry(entry))
            if row is None:
                continue
            size += len(row.record or b"") + sum(map(len, read.blobs.values()))
            self._batch.payloads[index] = row
            for number in range(row.blobs):
                if number not in read.blobs:
                    break
                self._batch.blobs[index, number] = read.blobs[number]
            if row.uid_key is not None and row.mac is not None:
                self._identified.append((index, row.uid_key, row.mac))
        return size

    def _follow(self, index: int, event: EventEntry) -> None:
        stream = StreamName(event.member, event.stream)
        head = self._heads.get(stream)
        self._heads[stream] = StreamHead(
            numbered=event.numbered if head is None else head.numbered,
            next_seq=event.seq + 1,
            last_index=index,
            last_received_at_ms=event.received_at_ms,
        )
        self._batch.moved.add(stream)
        self.received_at_ms = max(self.received_at_ms, event.received_at_ms)
        if event.numbered is Numbered.SENDER:
            self._batch.numbers[stream, event.seq] = index

    def rows(self) -> EventRows:
        """What belongs to a commit of all that was taken since the last."""
        batch, self._batch = self._batch, _Batch({}, {}, {}, {}, set())
        keys = [uid_key for _, uid_key, _ in self._identified]
        known = {key: value for key, value in zip(keys, self._store.find_ids(keys), strict=True) if value is not None}
        for index, uid_key, mac in self._identified:
            first = batch.ids.get(uid_key) or known.get(uid_key)
            if first is None:
                batch.ids[uid_key] = keyspace.encode_first_id(index, mac)
            elif keyspace.decode_first_id(first)[1] != mac:
                batch.ids.setdefault(uid_key + mac, keyspace.encode_index(index))
        self._identified = []
        return EventRows(
            payloads=batch.payloads,
            blobs=batch.blobs,
            ids=batch.ids,
            streams={stream: self._heads[stream] for stream in batch.moved},
            numbers=batch.numbers,
        )


_NOT_COPIED = "is not in what this was copied from"


def bring_dedup_key(folder: Folder, key: bytes | None) -> None:
    """Writes dedup.key, the bytes of the file, into a backup. Raises SettingsError if it has another one, StorageError."""
    if key is not None and not folder.private.write_key(key):
        raise SettingsError(
            "the log's dedup.key is not the one in the backup",
            hint="bring back DIR/keys/dedup.key: with another one, events that are sent again are taken for new ones",
            code="bad-key",
        )
