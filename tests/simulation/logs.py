"""The honest log of a run: the real service over a disk in memory, its witnesses asked over the network of the run.

Rules: a LogNode is a machine; each start is a process of it, and a crash leaves nothing but the disk and the head. A process
that is gone asks nobody any more, though what it sent may still arrive.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from simulation.policies import ENTRIES, EVERYBODY
from simulation.trees import Tree
from simulation.virtual import NodeClock
from simulation.witnesses import Answer, Web, WebWitness
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType, SKey
from translog.core.merkle import EMPTY_ROOT
from translog.core.policy import Policy
from translog.errors import PushbackError, StorageError
from translog.log.head import Head, HeadFile
from translog.log.lifecycle import LogService, Mode
from translog.log.metrics import LogMetrics
from translog.log.settings import LogSettings
from translog.log.witnesses import Endpoint, Witnesses
from translog.storage.memory import MemoryDisk, MemoryStore
from translog.storage.store import LogMeta, Profile, StoredCheckpoint

NAME = "log"
ORIGIN = "log.example/honest"
SKEY = SKey(name=ORIGIN, type=KeyType.ED25519, seed=b"\xff" * 32)
RESTART_S = 0.5
"""How long a supervisor waits."""
META = LogMeta(format_version=1, origin=ORIGIN, profile=Profile.OPAQUE)


@dataclass(slots=True)
class Machine:
    """What a power cut leaves of a log, and what was ever stored as published."""

    disk: MemoryDisk = field(default_factory=lambda: MemoryDisk(meta=META))
    head: Head = field(default_factory=lambda: Head(counter=0, origin=ORIGIN, size=0, root=EMPTY_ROOT, hold=False))
    head_faults: list[str] = field(default_factory=list)
    """Of the next writes: "refused", or "applied" though it is said to have failed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint that was stored as published: by which process, and when by the log's own clock."""

    process: int
    size: int
    note: bytes
    time_s: int


class MemoryHead(HeadFile):
    """See HeadFile."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(Path("head"), origin=ORIGIN)
        self._newest = machine.head
        self._machine = machine
        self.dead = False

    def write(self, *, size: int, root: bytes, hold: bool = False) -> None:
        fault = self._machine.head_faults.pop(0) if self._machine.head_faults else ""
        if self.dead or fault == "refused":
            raise StorageError("the head was not written")
        newest = self.require_newest()
        self._newest = self._machine.head = Head(counter=newest.counter + 1, origin=ORIGIN, size=size, root=root, hold=hold)
        if fault:
            raise StorageError("the head was written, but failure reported")


class WatchedStore(MemoryStore):
    """Tells of what is published."""

    def __init__(self, disk: MemoryDisk, on_publish: Callable[[StoredCheckpoint], None]) -> None:
        super().__init__(disk)
        self._watch = on_publish

    def publish(self, checkpoint: StoredCheckpoint, *, keep: bool, durable: bool = False) -> None:
        super().publish(checkpoint, keep=keep, durable=durable)
        self._watch(checkpoint)


class LogNode:
    """One machine that runs the log."""

    def __init__(self, *, policy: Policy, web: Web, clock: NodeClock, settings: LogSettings, name: str = NAME) -> None:
        self.name = name
        self.machine = Machine()
        self.clock = clock
        self.published: list[Stored] = []
        """All that was stored as published, in order."""
        self.service: LogService | None = None
        self._policy = policy
        self._web = web
        self._settings = settings
        self._process = 0
        self._stores: list[WatchedStore] = []
        self._heads: list[MemoryHead] = []
        self._starting: asyncio.Task[None] | None = None
        web.serve(name, self._serve)

    # --- life -----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Starts the log, and again whenever that fails, as a supervisor would."""
        self._starting = asyncio.create_task(self._start())

    async def _start(self) -> None:
        while True:
            self._begin_process()
            assert self.service is not None
            try:
                return await self.service.start()
            except (StorageError, PushbackError):
                await asyncio.sleep(RESTART_S)

    def _begin_process(self) -> None:
        self._process += 1
        metrics = LogMetrics()
        self.service = LogService(
            meta=META,
            open_store=self._open_store,
            open_head=self._open_head,
            signers=[KeySigner(SKEY)],
            clock=self.clock,
            settings=self._settings,
            metrics=metrics,
            witnesses=Witnesses(
                self._endpoints(),
                policy=self._policy,
                origin=ORIGIN,
                own=lambda: [KeyVerifier(SKEY.vkey)],
                now_ms=self.clock.wall_ms,
                verifying=ThreadPoolExecutor(1),
                settings=self._settings.witnessing,
                metrics=metrics,
            ),
        )

    def _endpoints(self) -> list[Endpoint]:
        process = self._process
        timeout_ms = self._settings.witnessing.request_timeout_ms
        return [
            Endpoint(
                url=f"https://w{number}.example",
                witnesses=tuple(entry for name, entry in self._policy.witnesses.items() if ENTRIES[name] == number),
                client=WebWitness(
                    number, web=self._web, source=self.name, timeout_ms=timeout_ms, alive=lambda: self._process == process
                ),
            )
            for number in sorted(EVERYBODY)
        ]

    def _open_store(self) -> WatchedStore:
        process = self._process

        def note_published(stored: StoredCheckpoint) -> None:
            self.published.append(Stored(process, stored.size, stored.note, self.clock.wall_ms() // 1000))

        self._stores.append(WatchedStore(self.machine.disk, note_published))
        return self._stores[-1]

    def _open_head(self) -> MemoryHead:
        self._heads.append(MemoryHead(self.machine))
        return self._heads[-1]

    async def crash(self) -> None:
        """The power goes: nothing is written or sent from now on."""
        self._process += 1
        for store in self._stores:
            store.crash()
        for head in self._heads:
            head.dead = True
        await self.stop(drain_ms=0)

    async def stop(self, *, drain_ms: int) -> None:
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError):
                await self._starting
        service, self.service = self.service, None
        if service is not None:
            await service.stop(drain_ms=drain_ms)
        self._stores.clear()
        self._heads.clear()

    # --- use ------------------------------------------------------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether it is meant to run."""
        return self.service is not None or (self._starting is not None and not self._starting.done())

    @property
    def is_open(self) -> bool:
        """Whether it takes entries."""
        return self.service is not None and self.service.mode is Mode.OPEN

    @property
    def integrated(self) -> int:
        """Entries on the disk."""
        return self.machine.disk.state.size

    @property
    def served(self) -> int:
        """The size that it shows with its quorum, -1 for none."""
        shown = self.service.published if self.service is not None else None
        return shown.size if shown is not None and shown.witnessed else -1

    @property
    def tree(self) -> Tree:
        """All that is committed."""
        return Tree(self.machine.disk.entries)

    async def append(self, entries: Sequence[bytes]) -> None:
        """Adds entries, or does not."""
        if self.service is not None:
            with suppress(PushbackError, StorageError):
                await self.service.append(entries)

    def _serve(self, source: str, request: bytes, answer: Callable[[Answer], None]) -> None:
        """Its checkpoint."""
        starting = self._starting is None or not self._starting.done()  # nobody listens yet
        if not starting and self.service is not None and self.service.published is not None:
            answer(Answer(200, self.service.published.note))


async def append_now_and_then(node: LogNode, random: Random, *, quiet: Callable[[], bool]) -> None:
    """Until cancelled; not while it is quiet."""
    number = 0
    while True:
        await asyncio.sleep(random.expovariate(1.0))
        if not quiet():
            batch = [b"%d/%d" % (number, n) for n in range(random.choice([1, 1, 2, 20]))]
            number += 1
            await node.append(batch)
