"""Logs of events made to be damaged, with everything in them that an events log can hold, and fixed keys and seeds.

Rules: what is made here is whole, and the same in every run. The writer's own code numbers the events (EventAssembler), which
fsck shares nothing with; sealing and encrypting are those of translog.events.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from storage.backends import PLYVEL

from faults.made_store import ORIGIN, SKEY, Made, sign_head
from translog.core.integrate import EMPTY_EDGE, integrate
from translog.core.keys import KeyType
from translog.core.merkle import EMPTY_ROOT
from translog.core.tile import tiles_of
from translog.events.cipher import BLOB, seal_record
from translog.events.seal import encode_plain, seal, take_blobs
from translog.log.drafts import Draft, Note, Outcome
from translog.log.events import OpenedEvent, open_event
from translog.log.head import HeadFile
from translog.log.keyfiles import DEDUP_KEY_FILE, KEK_FILE, LOG_KEY_FILES, create_event_keys, read_secret, write_skey
from translog.log.numbering import EventAssembler
from translog.log.vault import FileKeyWrapper, Vault
from translog.storage import keyspace
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import LogMeta, Profile, StoredCheckpoint, StreamName, TreeState, Update

META = LogMeta(format_version=1, origin=ORIGIN, profile=Profile.EVENTS)
WEB, AGENT, FEED = StreamName("acme", "web"), StreamName("acme", "agent"), StreamName("beta", "feed")
BLOB_BYTES_MIN = 200
STEP_MS = 7


@dataclass
class Dice:
    """Bytes that look random, and are the same in every run."""

    thrown: int = 0

    def __call__(self, count: int) -> bytes:
        self.thrown += 1
        return b"".join(sha256(b"%d/%d" % (self.thrown, part)).digest() for part in range(-(-count // 32)))[:count]


@dataclass
class Maker:
    """Seals and encrypts, as intake does."""

    vault: Vault
    dice: Dice = field(default_factory=Dice)
    origin: str = ORIGIN

    def draft(self, stream: StreamName, event: dict[str, Any], *, uid: str | None = None, seq: int | None = None) -> Draft:
        """An event on its way, its payload under the member's key."""
        seed = self.dice(32)
        kept, blobs = take_blobs(event, seed=seed, blob_bytes_min=BLOB_BYTES_MIN)
        sealed = seal(kept, origin=self.origin, member=stream.member, stream=stream.stream, seed=seed)
        key_id, data_key = self.vault.current(stream.member)

        def encrypt(plain: bytes, **more: Any) -> bytes:
            more |= {"data_key": data_key, "key_id": key_id, "origin": self.origin, "root": sealed.root}
            return seal_record(plain, nonce=self.dice(12), **more)

        return Draft(
            stream=stream,
            root=sealed.root,
            record=encrypt(encode_plain(sealed)),
            blobs=tuple(encrypt(blob.data, label=BLOB, blob_salt=blob.salt) for blob in blobs),
            uid_key=None if uid is None else keyspace.uid_key(stream, uid),
            mac=b"" if uid is None else sha256(json.dumps(event).encode()).digest()[:16],
            seq=seq,
        )

    def sealed_elsewhere(self, stream: StreamName, seq: int, record: bytes | None) -> Draft:
        """What its member sealed and encrypted for readers of its own, or kept to itself."""
        return Draft(stream=stream, root=self.dice(32), record=record, seq=seq)


def event_of(number: int) -> dict[str, Any]:
    return {"metadata": {"uid": f"event-{number}"}, "time": 1_700_000_000_000 + number, "message": f"number {number}"}


def everything(maker: Maker) -> list[list[Draft | Note]]:
    """Commits with one of each: with and without an id, an id that is taken, blobs, numbered by their senders, not to be opened
    here, never given, and entries that are no events."""
    first = maker.draft(WEB, event_of(0), uid="event-0")
    taken = maker.draft(WEB, event_of(0) | {"fed": {"conflicts_with": 0}}, uid="event-0")
    large = event_of(2) | {"raw_data": "x" * 300, "unmapped": {"much": ["y" * 40] * 8}, "fed": {"$blob": 1}}
    return [
        [first, maker.draft(WEB, {"time": 1, "message": "without an id"})],
        [
            maker.draft(AGENT, event_of(1), seq=0),
            replace(taken, conflicts_with=0),
            Note(entry=b'{"translog":"other/1","x":[]}'),
        ],
        [
            maker.draft(WEB, large, uid="event-2"),
            maker.sealed_elsewhere(FEED, 0, b"\x07for others"),
            Note(entry=b"\xffno JSON"),
        ],
        [
            maker.sealed_elsewhere(FEED, 1, None),
            maker.draft(AGENT, event_of(3), seq=1),
            maker.draft(WEB, event_of(4), uid="event-4"),
        ],
    ]


@dataclass(frozen=True, kw_only=True)
class MadeEvents(Made):
    """A log of events in a directory that nobody has open."""

    outcomes: Sequence[Outcome] = ()

    @property
    def vault(self) -> Path:
        return self.directory / "vault"

    def opened_vault(self) -> Vault:
        return open_vault(self.directory)

    @contextmanager
    def rows(self) -> Iterator[Any]:
        """The database itself, to change what no program would."""
        with PLYVEL.DB(str(self.store)) as db:
            yield db

    def events(self) -> list[OpenedEvent | str]:
        """Every entry as the log's own reader opens it; what it says where it does not."""
        return read_events(self.directory)


def open_vault(directory: Path, *, dice: int = 2_000) -> Vault:
    wrapper = FileKeyWrapper(read_secret(directory / "keys" / KEK_FILE), origin=ORIGIN, random_bytes=Dice(1_000))
    return Vault.open(directory / "vault", wrapper=wrapper, random_bytes=Dice(dice), now_ms=lambda: 1)


def read_events(directory: Path, vault: Vault | None = None) -> list[OpenedEvent | str]:
    """See MadeEvents.events."""
    vault = vault or open_vault(directory)
    found: list[OpenedEvent | str] = []
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        try:
            for index in range(store.read_state().size):
                try:
                    found.append(open_event(store, index, origin=ORIGIN, vault=vault))
                except Exception as error:
                    found.append(str(error))
        finally:
            store.close()
    return found


def make_events(
    directory: Path,
    commits: Callable[[Maker], Sequence[Sequence[Draft | Note]]] = everything,
    *,
    compacted: bool = True,
) -> MadeEvents:
    """A log of events that grew by `commits`, each published and its checkpoint kept."""
    directory.mkdir(parents=True)
    (directory / "keys").mkdir(mode=0o700)
    write_skey(directory / "keys" / LOG_KEY_FILES[KeyType.ED25519], SKEY)
    create_event_keys(directory / "keys", random_bytes=Dice(500))
    Vault.create(directory / "vault")
    HeadFile.create(directory / "head", origin=ORIGIN, size=0, root=EMPTY_ROOT)
    (directory / "translog.toml").write_text("")
    size, outcomes = grow_events(directory, commits, create=True, compacted=compacted)
    return MadeEvents(directory=directory, size=size, outcomes=outcomes)


def grow_events(
    directory: Path,
    commits: Callable[[Maker], Sequence[Sequence[Draft | Note]]],
    *,
    create: bool = False,
    compacted: bool = True,
    dice: Dice | None = None,
) -> tuple[int, list[Outcome]]:
    """Appends to a log of events, as its sequencer would. Returns its size, and what became of each draft."""
    maker = Maker(open_vault(directory), dice or Dice())
    head = HeadFile.open(directory / "head", origin=ORIGIN)
    outcomes: list[Outcome] = []
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.create(lock, META) if create else LevelDBStore.open(lock)
        try:
            assembler = EventAssembler(store, streams_max=1_000)
            old = store.read_state()
            entries = store.read_entries(start=0, end=old.size)
            edge = integrate(EMPTY_EDGE, entries).edge if entries else EMPTY_EDGE
            for batch in commits(maker):
                time_ms = max(1_700_000_000_000, store.read_state().received_at_ms) + STEP_MS
                made = assembler.assemble([batch], size=edge.size, received_at_ms=time_ms)
                (result,) = made.results
                if not isinstance(result, tuple):
                    raise result
                outcomes += result
                if not made.entries:
                    continue
                step = integrate(edge, made.entries)
                state = TreeState(size=step.edge.size, root=step.edge.root, received_at_ms=time_ms)
                store.commit(Update(old_size=edge.size, state=state, entries=made.entries, tiles=step.tiles, rows=made.rows))
                edge = step.edge
                head.write(size=edge.size, root=edge.root)
                store.publish(StoredCheckpoint(size=edge.size, note=sign_head(edge.size, edge.root)), keep=True)
            if compacted:
                store._db.compact_range()
        finally:
            store.close()
            head.close()
    return edge.size, outcomes


def rewrite_entries(made: MadeEvents, entries: Sequence[bytes]) -> None:
    """Puts other entries in the place of all, and makes tree, checkpoint and head of them: what a thief of the log's key could
    do, and what a log looks like that was numbered wrongly."""
    step = integrate(EMPTY_EDGE, entries)
    with made.rows() as db, db.write_batch() as batch:
        for key, _ in db.iterator(start=b"c", stop=b"f"):
            batch.delete(key)
        for key, _ in db.iterator(start=b"t", stop=b"u"):
            batch.delete(key)
        old = keyspace.decode_state(db.get(keyspace.STATE))
        for index, entry in enumerate(entries):
            batch.put(keyspace.entry_key(index), entry)
        for tile in tiles_of(len(entries)):
            batch.put(keyspace.tile_key(tile.level, tile.index), step.tiles[tile])
        state = replace(old, size=len(entries), root=step.edge.root)
        batch.put(keyspace.STATE, keyspace.encode_state(state))
        latest = StoredCheckpoint(size=len(entries), note=sign_head(len(entries), step.edge.root))
        batch.put(keyspace.LATEST, keyspace.encode_latest(latest))
    HeadFile.create(made.directory / "head", origin=ORIGIN, size=len(entries), root=step.edge.root)


__all__ = ["DEDUP_KEY_FILE", "KEK_FILE", "Dice", "MadeEvents", "Maker", "everything", "grow_events", "make_events"]
