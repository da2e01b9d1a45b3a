"""What a log stands on, in memory and under control: disk, head file, clock, keys; and what it did to them, in order.

Rules: a World outlives its services, as a machine outlives its processes. Faults are planned; a Gate stops a thread at a point
of interest until the test lets it go on. Nothing here waits for time to pass.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from log.check_log import check_log
from translog.core.checkpoint import parse_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.integrate import EMPTY_EDGE, integrate, load_edge
from translog.core.keys import KeyType, SKey
from translog.core.merkle import EMPTY_ROOT
from translog.core.policy import parse_policy
from translog.core.tile import Tile
from translog.errors import StorageError
from translog.events.entry import Numbered, entry_kind, parse_entry
from translog.log.drafts import Draft, Note
from translog.log.head import SLOT_BYTES, Head, HeadFile, encode_slot
from translog.log.lifecycle import LogService, Mode
from translog.log.metrics import LogMetrics
from translog.log.numbering import Assembled, EventAssembler
from translog.log.settings import LogSettings
from translog.log.witnesses import Witnesses
from translog.storage.memory import MemoryDisk, MemoryStore
from translog.storage.store import (
    EventRows,
    LogMeta,
    Profile,
    StoredCheckpoint,
    StreamHead,
    StreamName,
    TreeState,
    Update,
)

ORIGIN = "log.example/test"
META = LogMeta(format_version=1, origin=ORIGIN, profile=Profile.OPAQUE)
EVENTS_META = LogMeta(format_version=1, origin=ORIGIN, profile=Profile.EVENTS)
SKEY = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(32))
POLICY = parse_policy(f"log {SKEY.vkey}\nquorum none\n".encode())
PATIENCE_S = 10
"""A test that waits this long has failed."""

HeadFault = Literal["refused", "torn", "applied"]


class FakeClock:
    """Two clocks that stand still until told."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000_000
        self.boot = 5_000

    def wall_ms(self) -> int:
        return self.wall

    def boot_ms(self) -> int:
        return self.boot

    def advance(self, ms: int) -> None:
        """Time passes."""
        self.wall += ms
        self.boot += ms


class Gate:
    """Stops whoever passes, until it is opened."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        if not self._open.wait(PATIENCE_S):
            raise AssertionError("nobody opened the gate")

    async def reached(self) -> None:
        """Returns when somebody stands at it."""
        assert await asyncio.to_thread(self._reached.wait, PATIENCE_S), "nobody came to the gate"

    def open(self) -> None:
        self._open.set()


class RecordingSigner(KeySigner):
    """The log's key; keeps every text it ever signed."""

    __slots__ = ("world",)
    world: "World"

    def sign(self, text: str, *, time_s: int) -> bytes:
        checkpoint = parse_checkpoint(text)
        self.world.note("sign", checkpoint.size)
        self.world.signed.append(text)
        head = self.world.read_head()
        if (head.size, head.root, head.hold) != (checkpoint.size, checkpoint.root, False):
            self.world.violations.append(f"signed size {checkpoint.size} while DIR/head says {head}")
        return KeySigner.sign(self, text, time_s=time_s)


class RecordingStore(MemoryStore):
    """A MemoryStore that tells the world what is done to it."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.disk)
        self._world = world

    def commit(self, update: Update) -> None:
        self._world.note("commit", update.state.size)
        super().commit(update)
        self._world.note("committed", update.state.size)

    def publish(self, checkpoint: StoredCheckpoint, *, keep: bool, durable: bool = False) -> None:
        self._world.note("publish", checkpoint.size)
        super().publish(checkpoint, keep=keep, durable=durable)
        self._world.note("published", checkpoint.size)

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        self._world.tiles_read += len(tiles)
        return super().read_tiles(tiles)

    def read_entries(self, *, start: int, end: int) -> list[bytes]:
        self._world.entries_read += end - start
        return super().read_entries(start=start, end=end)

    def close(self) -> None:
        super().close()
        self._world.note("close store", 0)


class RecordingHead(HeadFile):
    """A HeadFile that tells the world, and fails as planned."""

    world: "World"

    def write(self, *, size: int, root: bytes, hold: bool = False) -> None:
        self.world.note("head", size)
        fault = self.world.head_faults.pop(0) if self.world.head_faults else None
        if fault == "torn":
            slot = encode_slot(Head(counter=self.require_newest().counter + 1, origin=ORIGIN, size=size, root=root, hold=hold))
            at = (self.require_newest().counter + 1) % 2 * SLOT_BYTES
            os.pwrite(self._descriptor, slot[: SLOT_BYTES // 100], at)
        if fault in ("refused", "torn"):
            raise StorageError(f"the head was not written: {fault}")
        super().write(size=size, root=root, hold=hold)
        if fault == "applied":
            raise StorageError("the head was written, but failure reported")
        self.world.note("head written", size)

    def close(self) -> None:
        super().close()
        self.world.note("close head", 0)


class World:
    """The machine under a log."""

    def __init__(self, path: Path, *, meta: LogMeta = META, **settings: Any) -> None:
        self.meta = meta
        self.disk = MemoryDisk(meta=meta)
        self.head_path = path / "head"
        self.clock = FakeClock()
        self.settings = LogSettings(
            reader_threads=1, keep_checkpoint_interval_ms=0, retry_after_ms=1, reopen_wait_ms=1
        ).model_copy(update=settings)
        self.events: list[tuple[str, int]] = []
        self.gates: dict[str, Gate] = {}
        self.signed: list[str] = []
        self.violations: list[str] = []
        self.head_faults: list[HeadFault] = []
        self.witnesses: Witnesses | None = None
        self.open_failures = 0
        self.opened: list[RecordingStore] = []
        self.tiles_read = self.entries_read = 0
        self.signer = RecordingSigner(SKEY)
        object.__setattr__(self.signer, "world", self)
        HeadFile.create(self.head_path, origin=ORIGIN, size=0, root=EMPTY_ROOT)

    def note(self, what: str, size: int) -> None:
        """Records an event, then stops at the gate put there, once."""
        self.events.append((what, size))
        gate = self.gates.pop(what, None)
        if gate is not None:
            gate.pass_through()

    def gate(self, what: str) -> Gate:
        """Stops the next event of that name: commit, committed, publish, published, head, `head written`, sign."""
        self.gates[what] = gate = Gate()
        return gate

    def sizes(self, what: str) -> list[int]:
        return [size for event, size in self.events if event == what]

    def open_store(self) -> RecordingStore:
        if self.open_failures:
            self.open_failures -= 1
            raise StorageError("the store cannot be opened")
        self.opened.append(RecordingStore(self))
        return self.opened[-1]

    def open_head(self) -> HeadFile:
        class Bound(RecordingHead):
            world = self

        return Bound.open(self.head_path, origin=ORIGIN)

    def read_head(self) -> Head:
        head = HeadFile.open(self.head_path, origin=ORIGIN)
        head.close()
        return head.require_newest()

    def fill(self, entries: Sequence[bytes]) -> None:
        """Puts entries straight into the store's disk, as one commit of nobody's."""
        grown = integrate(EMPTY_EDGE, entries)
        state = TreeState(size=grown.edge.size, root=grown.edge.root, received_at_ms=1)
        MemoryStore(self.disk).commit(Update(old_size=0, state=state, entries=entries, tiles=grown.tiles))

    def service(self) -> LogService:
        return LogService(
            meta=self.meta,
            open_store=self.open_store,
            open_head=self.open_head,
            signers=[self.signer],
            clock=self.clock,
            settings=self.settings,
            metrics=LogMetrics(),
            witnesses=self.witnesses,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LogService]:
        """A started service; stopped without drain at the end."""
        service = self.service()
        await service.start()
        try:
            yield service
        finally:
            for gate in self.gates.values():
                gate.open()
            await service.stop(drain_ms=0)

    def check(self) -> list[bytes]:
        """Verifies the whole log as it is on the disk, with all that was ever signed. Returns its entries."""
        entries = check_log(MemoryStore(self.disk), POLICY, signed=self.signed)
        assert not self.violations
        return entries


class NumberedLog:
    """An events log without a service: what is appended is numbered and committed here and now."""

    def __init__(self, *, streams_max: int = 1_000) -> None:
        self.streams_max = streams_max
        self.disk = MemoryDisk(meta=EVENTS_META)
        self.time_ms = 1_700_000_000_000
        self.open()

    def open(self) -> None:
        """As after a crash: nothing is known but what the disk has."""
        self.store = MemoryStore(self.disk)
        state = self.store.read_state()
        self.edge = load_edge(self.store, size=state.size, root=state.root)
        self.assembler = EventAssembler(self.store, streams_max=self.streams_max)

    def commit(self, *batch: Sequence[Draft | Note]) -> Assembled:
        """One commit of these submissions. Raises what the store raises; then `open` it again."""
        self.time_ms += 1
        assembled = self.assembler.assemble(batch, size=self.edge.size, received_at_ms=self.time_ms)
        if assembled.entries:
            grown = integrate(self.edge, assembled.entries)
            state = TreeState(size=grown.edge.size, root=grown.edge.root, received_at_ms=self.time_ms)
            self.store.commit(
                Update(
                    old_size=self.edge.size,
                    state=state,
                    entries=assembled.entries,
                    tiles=grown.tiles,
                    rows=assembled.rows,
                )
            )
            self.edge = grown.edge
        return assembled


def derive_rows(disk: MemoryDisk) -> EventRows:
    """The ids, streams and numbers that follow from the entries and payload rows on a disk, told in order and in no haste."""
    ids: dict[bytes, bytes] = {}
    streams: dict[StreamName, StreamHead] = {}
    numbers: dict[tuple[StreamName, int], int] = {}
    for index, entry in enumerate(disk.entries):
        if entry_kind(entry) != "event/1":
            continue
        event = parse_entry(entry)
        row = disk.payloads[index]
        name = StreamName(event.member, event.stream)
        if row.uid_key is not None and row.mac is not None:
            place = index.to_bytes(8, "big")
            first = row.uid_key not in ids
            ids[row.uid_key if first else row.uid_key + row.mac] = place + row.mac if first else place
        streams[name] = StreamHead(
            numbered=event.numbered, next_seq=event.seq + 1, last_index=index, last_received_at_ms=event.received_at_ms
        )
        if event.numbered is Numbered.SENDER:
            numbers[name, event.seq] = index
    return EventRows(payloads=disk.payloads, blobs=disk.blobs, ids=ids, streams=streams, numbers=numbers)


async def until(condition: Callable[[], bool]) -> None:
    """Returns when `condition` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  what is waited for knows nothing of events
            await asyncio.sleep(0.001)


async def until_open(service: LogService) -> None:
    """Returns when the log takes entries."""
    await until(lambda: service.mode is Mode.OPEN)


async def until_published(service: LogService, size: int) -> None:
    assert await service.wait_published(size, timeout_ms=PATIENCE_S * 1000), f"size {size} was not published"
