"""What each stage costs on an event's way from a body to the store: processor time, all threads, in this process.

The stages are those of a batch in the server (translog/server/intake.py, then log/sequencer.py), as many records at a time,
without HTTP and on one thread. Run as a program: SOURCE [EVENTS] prints a table. In microseconds an event:

    split     the body cut into records, each parsed            identify  SHA-256 of the id, HMAC of the record
    map       the source's table: record to OCSF fields         number    sequence numbers, entries, look-ups of ids
    normalise metadata, observables, what is missing, order     tree      the log's tree over the entries
    seal      texts, salts, leaves, event root                  commit    LevelDB: rows encoded, written, synced, compacted
    encrypt   payload framed, zstd, AES-256-GCM
"""

import hmac
import os
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from benchmarks.event_records import Records
from benchmarks.stores import ORIGIN, new_log, quiet_logging
from translog.core.integrate import EMPTY_EDGE, Edge, integrate
from translog.events.cipher import seal_record
from translog.events.jsontext import Slice
from translog.events.mapping import MappingError, Source
from translog.events.normalize import normalize
from translog.events.seal import encode_plain, seal_with_blobs
from translog.events.sources.table import SOURCES
from translog.log.drafts import Draft
from translog.log.numbering import EventAssembler
from translog.storage.keyspace import uid_key
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import Profile, StreamName, TreeState, Update

STAGES = ("split", "map", "normalise", "seal", "encrypt", "identify", "number", "tree", "commit")
BATCH_EVENTS = 1_000
TURN_EVENTS = 64
"""As many are prepared at a time as in the server."""
EVENTS = 20_000
READINGS = 3
_STREAM = StreamName("local", "bench")
_RECEIVED_AT_MS = 1_700_000_000_000
_BLOB_BYTES_MIN = 65_536

T = TypeVar("T")


class _Way:
    """The way of the batches of one log, and the processor seconds that each stage took so far."""

    def __init__(self, source: str, store: LevelDBStore) -> None:
        self.taken = dict.fromkeys(STAGES, 0.0)
        self._source: Source = SOURCES[source]
        self._records = Records(source)
        self._store = store
        self._assembler = EventAssembler(store, streams_max=1_000)
        self._edge: Edge = EMPTY_EDGE
        self._key = os.urandom(32)

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        begin = time.process_time()
        result = work()
        self.taken[stage] += time.process_time() - begin
        return result

    def go(self, start: int) -> None:
        """One batch, from its body to the store."""
        source, timed = self._source, self._timed
        body = self._records.join(self._records.take(start, BATCH_EVENTS))
        headers = {"content-type": self._records.content_type}
        slices = timed("split", lambda: source.split(body, headers, BATCH_EVENTS))
        drafts: list[Draft] = []
        for first in range(0, len(slices), TURN_EVENTS):
            drafts += self._prepare(slices[first : first + TURN_EVENTS])
        size = self._edge.size
        made = timed("number", lambda: self._assembler.assemble([drafts], size=size, received_at_ms=_RECEIVED_AT_MS))
        grown = timed("tree", lambda: integrate(self._edge, made.entries))
        state = TreeState(size=grown.edge.size, root=grown.edge.root, received_at_ms=_RECEIVED_AT_MS)
        update = Update(old_size=size, state=state, entries=made.entries, tiles=grown.tiles, rows=made.rows)
        timed("commit", lambda: self._store.commit(update))
        self._edge = grown.edge
        if self._edge.size - size != BATCH_EVENTS:
            raise RuntimeError("not every event was new")

    def _prepare(self, slices: list[Slice]) -> list[Draft]:
        source, timed = self._source, self._timed
        timed("map", lambda: [_map(source, one) for one in slices])
        done = timed("normalise", lambda: [normalize(source, one) for one in slices])
        seeds = [os.urandom(32) for _ in done]
        sealed = timed("seal", lambda: [self._seal(one.event, seed) for one, seed in zip(done, seeds, strict=True)])
        nonces = [os.urandom(12) for _ in done]
        records = timed("encrypt", lambda: [self._encrypt(*pair) for pair in zip(sealed, nonces, strict=True)])
        known = timed("identify", lambda: [self._identify(*pair) for pair in zip(done, slices, strict=True)])
        return [
            Draft(stream=_STREAM, root=seal.root, record=record, uid_key=key, mac=mac)
            for seal, record, (key, mac) in zip(sealed, records, known, strict=True)
        ]

    def _seal(self, event: dict[str, Any], seed: bytes) -> Any:
        member, stream = _STREAM
        return seal_with_blobs(event, origin=ORIGIN, member=member, stream=stream, seed=seed, blob_bytes_min=_BLOB_BYTES_MIN)[0]

    def _encrypt(self, sealed: Any, nonce: bytes) -> bytes:
        plain = encode_plain(sealed)
        return seal_record(plain, data_key=self._key, key_id=b"local/1", origin=ORIGIN, root=sealed.root, nonce=nonce)

    def _identify(self, done: Any, record: Slice) -> tuple[bytes, bytes]:
        return uid_key(_STREAM, done.uid), hmac.digest(self._key, b"s\0" + record.raw, "sha256")[:16]


def _map(source: Source, record: Slice) -> object:
    try:
        return source.map(record.value, record.context)
    except MappingError:
        return None


def profile_stages(source: str, work: Path, *, events: int = EVENTS) -> dict[str, float]:
    """Microseconds an event by stage, from one run of `events` in a new log in `work`. Raises UnavailableError."""
    with TemporaryDirectory(dir=work) as path:
        directory = Path(path) / "log"
        new_log(directory, profile=Profile.EVENTS)
        with DirectoryLock(directory) as lock:
            store = LevelDBStore.open(lock)
            try:
                way = _Way(source, store)
                for start in range(0, events, BATCH_EVENTS):
                    way.go(start)
            finally:
                store.close()
    taken = {stage: 1e6 * seconds / events for stage, seconds in way.taken.items()}
    taken["normalise"] -= taken["map"]  # which it did once more
    return taken


def hash_us() -> float:
    """Processor microseconds of one SHA-256 of a tree node: how fast this machine is just now."""
    node = os.urandom(65)
    begin = time.process_time()
    for _ in range(100_000):
        sha256(node).digest()
    return 10 * (time.process_time() - begin)


if __name__ == "__main__":
    quiet_logging()
    _events = int(sys.argv[2]) if len(sys.argv) > 2 else EVENTS
    with TemporaryDirectory() as _work:
        _runs = [profile_stages(sys.argv[1], Path(_work), events=_events) for _ in range(READINGS)]
    for _stage in STAGES:
        print(f"{_stage:<10}{median(run[_stage] for run in _runs):>8.1f} µs")
    print(f"{'in all':<10}{median(sum(run.values()) for run in _runs):>8.1f} µs")
    print(f"{'a hash':<10}{hash_us():>8.2f} µs")
