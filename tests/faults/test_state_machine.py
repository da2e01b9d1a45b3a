"""A log against a list: any order of appends, faults, crashes, stops, readings and older copies, on both adapters.

Rules: the model is a list of entries and what was said about them; the trees and proofs it expects come from a recursive oracle
that shares no code with the package. After every step: nothing is published that is not committed; every entry that was
acknowledged is at its index; every checkpoint ever signed or shown is of a prefix of the list. A batch with an unknown outcome
is looked for once the log is open again: it is there whole, or not at all.

For a long run by hand: TRANSLOG_FUZZ_EXAMPLES=1000 python -m pytest tests/faults/test_state_machine.py
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from core.merkle_oracle import Oracle
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from log.check_log import check_log
from log.harness import META, ORIGIN, PATIENCE_S, POLICY, HeadFault, RecordingStore, World, until, until_published
from log.sources import StoreSource
from storage.backends import FailingWrites

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.policy import verify_checkpoint
from translog.core.proof import parse_receipt, verify_receipt
from translog.core.tile import Tile
from translog.errors import HeldError, PushbackError, StorageError
from translog.log.backup import back_up, fill_store
from translog.log.head import HeadFile
from translog.log.lifecycle import LogService, Mode
from translog.log.pool import Sequenced
from translog.log.reader import Reader
from translog.storage.folder import Folder
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.memory import Fault
from translog.storage.store import LogStore, StoredCheckpoint, Update

EXAMPLES = int(os.environ.get("TRANSLOG_FUZZ_EXAMPLES", "40"))
STEPS = 30
ENTRIES_MAX = 2_500
"""A log of that size takes no more: the oracle is slow."""

T = TypeVar("T")
Operation = Literal["commit", "publish"]
Batch = list[bytes]

small = st.lists(st.binary(max_size=4), min_size=1, max_size=5)
crossing = st.builds(lambda count, mark: [b"%d/%d" % (mark, n) for n in range(count)], st.integers(200, 300), st.integers(0, 9))
odd: st.SearchStrategy[Batch] = st.sampled_from([[b""], [b"\xff" * 65_535], [b"", b"\x00" * 65_535, b""], [b"same"] * 3])
batches = small | small | crossing | odd
numbers = st.integers(0, 2**16)
crash_points = st.sampled_from(["", "commit", "committed", "head", "head written", "sign", "publish", "published"])


class Ground(World):
    """The machine under a log, with either adapter. `cut` and `copy` make another one of it; the old one is then left alone."""

    store_faults: list[tuple[Operation, Fault]]
    faults: tuple[Fault, ...]
    stores: list[LogStore]
    """All that were opened."""

    def beside(self) -> Path:
        """An empty directory."""
        return Path(tempfile.mkdtemp(dir=self.head_path.parent.parent))

    def twin(self, store: "Ground | None" = None, *, head: bytes | None = None) -> "Ground":
        """Another machine with what is on this one's disk now; or with the store of another, or another DIR/head."""
        twin = type(self)(self.beside())
        twin.signed = list(self.signed)  # first: the head knows all that was signed before it is read
        twin.head_path.write_bytes(self.head_path.read_bytes() if head is None else head)
        twin.clock = self.clock
        (self if store is None else store).copy_store_to(twin)
        return twin

    def copy_store_to(self, twin: Any) -> None:
        """The committed log, and whatever else would survive, as it is this moment."""
        raise NotImplementedError

    def require_whole(self) -> Batch:
        """Verifies the closed log, with all that was ever signed. Returns its entries."""
        raise NotImplementedError

    def plan(self, operation: Operation, fault: Fault) -> None:
        self.store_faults.append((operation, fault))

    def release(self) -> None:
        """Lets go of the directory."""


class InMemory(Ground):
    """A crash loses what was published since the last commit."""

    faults = tuple(Fault)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.store_faults, self.stores = self.disk.faults, []

    def open_store(self) -> RecordingStore:
        self.stores.append(store := super().open_store())
        return store

    def copy_store_to(self, twin: "InMemory") -> None:
        disk = self.disk
        twin.disk = replace(
            disk, entries=list(disk.entries), tiles=dict(disk.tiles), kept=dict(disk.kept), faults=twin.store_faults
        )

    def require_whole(self) -> Batch:
        return self.check()


class RecordingLevelDB(LevelDBStore):
    """A LevelDBStore that tells its machine what is done to it, and fails as planned."""

    ground: "OnLevelDB"

    def commit(self, update: Update) -> None:
        self.ground.note("commit", update.state.size)
        self._take_fault("commit")
        super().commit(update)
        self.ground.note("committed", update.state.size)

    def publish(self, checkpoint: StoredCheckpoint, *, keep: bool, durable: bool = False) -> None:
        self.ground.note("publish", checkpoint.size)
        self._take_fault("publish")
        super().publish(checkpoint, keep=keep, durable=durable)
        self.ground.note("published", checkpoint.size)

    def _take_fault(self, operation: Operation) -> None:
        faults = self.ground.store_faults
        if faults and faults[0][0] == operation:
            self._db = FailingWrites(self._db, applied=faults.pop(0)[1] is Fault.APPLIED_BUT_FAILED)


class OnLevelDB(Ground):
    """A crash leaves the files as they are: the process died, the machine did not."""

    faults = (Fault.REFUSED, Fault.APPLIED_BUT_FAILED)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.store_faults, self.stores = [], []
        self.lock = DirectoryLock(path)
        LevelDBStore.create(self.lock, META).close()

    def open_store(self) -> Any:
        class Bound(RecordingLevelDB):
            ground = self

        self.stores.append(store := Bound.open(self.lock))
        return store

    def copy_store_to(self, twin: "OnLevelDB") -> None:
        """Again, until LevelDB moved no file meanwhile: it compacts on a thread of its own."""
        while True:
            shutil.rmtree(twin.path / "log", ignore_errors=True)
            with suppress(shutil.Error, FileNotFoundError):
                before = self._files()
                shutil.copytree(self.path / "log", twin.path / "log")
                if before == self._files():
                    return

    def _files(self) -> dict[str, tuple[int, int]]:
        found = [(path.name, path.stat()) for path in (self.path / "log").iterdir()]
        return {name: (info.st_size, info.st_mtime_ns) for name, info in found}

    def require_whole(self) -> Batch:
        store: LogStore = LevelDBStore.open(self.lock)
        try:
            return check_log(store, POLICY, signed=self.signed)
        finally:
            store.close()

    def release(self) -> None:
        self.lock.release()


@dataclass
class Model:
    """What must be true."""

    entries: Batch = field(default_factory=list)
    oracle: Oracle = field(init=False)
    shown: int = 0
    verified: int = 0
    """Texts of `signed` that were looked at."""

    def __post_init__(self) -> None:
        self.oracle = Oracle(self.entries)

    def root(self, size: int) -> bytes:
        return self.oracle.mth(0, size)

    def require_prefix(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.origin == ORIGIN
        assert checkpoint.size <= len(self.entries), "a tree head larger than the log"
        assert checkpoint.root == self.root(checkpoint.size), "a tree head of another history"


def explains(tail: Sequence[bytes], at: int, acknowledged: dict[int, Batch], unknown: list[Batch]) -> bool:
    """Whether `tail`, the log from index `at` on, is what was acknowledged, each at its index, and some of the unknown, each
    whole and at most once."""
    if not tail:
        return not acknowledged
    if at in acknowledged:
        batch, rest = acknowledged[at], {index: batch for index, batch in acknowledged.items() if index != at}
        return list(tail[: len(batch)]) == batch and explains(tail[len(batch) :], at + len(batch), rest, unknown)
    return any(
        list(tail[: len(batch)]) == batch
        and explains(tail[len(batch) :], at + len(batch), acknowledged, unknown[:n] + unknown[n + 1 :])
        for n, batch in enumerate(unknown)
    )


# What may come next depends on what was done before, not on what came of it: two threads may take turns.
def has_room(machine: "LogMachine") -> bool:
    return machine.sent < ENTRIES_MAX


def has_sent(machine: "LogMachine") -> bool:
    return machine.sent > 0


class LogMachine(RuleBasedStateMachine):
    """One log and its model."""

    ground_class: type[Ground]

    @initialize()
    def create(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="translog-machine-"))
        self.runner = asyncio.Runner()
        self.model = Model()
        self.backups: list[tuple[Ground, int, bytes]] = []
        self.ground = self.ground_class(Path(tempfile.mkdtemp(dir=self.home)))
        self.service: LogService | None = None
        self.sent = 0
        self.run(self._start())

    def teardown(self) -> None:
        if not hasattr(self, "home"):
            return
        try:
            self.run(self._stop())
            assert self.ground.require_whole() == self.model.entries
            assert not self.ground.violations
        finally:
            self.runner.close()
            self.ground.release()
            for backup, _, _ in self.backups:
                backup.release()
            shutil.rmtree(self.home)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # --- the life of the service ----------------------------------------------------------------------------------------

    async def _start(self) -> LogService:
        """A new process. A planned fault may stop it, then there is another."""
        while True:
            faulty = bool(self.ground.store_faults or self.ground.head_faults)
            service = self.ground.service()
            try:
                await service.start()
            except StorageError:
                assert faulty, "a start failed for no reason"
                self._skip_commit_faults()
                continue
            assert service.mode is Mode.OPEN, service.held
            assert service.integrated.size == len(self.model.entries)
            self.service = service
            return service

    def _skip_commit_faults(self) -> None:
        while self.ground.store_faults and self.ground.store_faults[0][0] == "commit":
            del self.ground.store_faults[0]

    async def _stop(self) -> None:
        """In peace: everything is published, nothing planned happens."""
        assert self.service is not None
        self.ground.store_faults.clear()
        self.ground.head_faults.clear()
        await self._published()
        await self.service.stop(drain_ms=PATIENCE_S * 1_000)
        self.service = None

    async def _published(self) -> LogService:
        """Everything is published, and nothing is under way."""
        service = self.running
        await until_published(service, len(self.model.entries))
        await until(lambda: service.mode is Mode.OPEN and service.published is not None)
        return service

    @property
    def running(self) -> LogService:
        assert self.service is not None
        return self.service

    async def _committed(self) -> Batch:
        """The whole log, once it is open (again)."""
        while True:
            await until(lambda: self.running.mode is Mode.OPEN)
            with suppress(StorageError):  # it is being opened anew
                return await self.running.read_integrated(start=0, end=self.running.integrated.size)

    # --- appends --------------------------------------------------------------------------------------------------------

    async def _send(self, *sent: Batch) -> None:
        await until(lambda: self.running.mode is Mode.OPEN)
        openings = len(self.ground.stores)
        answers = await asyncio.gather(*(self.running.append(batch) for batch in sent), return_exceptions=True)
        if any(
            isinstance(answer, StorageError) for answer in answers
        ):  # the log is opened anew; before that, looking is no use
            await until(lambda: len(self.ground.stores) > openings)
        await self._resolve(sent, answers)

    async def _resolve(self, sent: Sequence[Batch], answers: Sequence[Sequenced | BaseException | None]) -> None:
        """Looks what became of the batches, and makes it the model's. None for an answer that nobody heard."""
        acknowledged: dict[int, Batch] = {}
        unknown: list[Batch] = []
        for batch, answer in zip(sent, answers, strict=True):
            if isinstance(answer, Sequenced):
                assert answer.count == len(batch)
                assert answer.first not in acknowledged
                acknowledged[answer.first] = batch
            elif answer is None or (isinstance(answer, StorageError) and answer.code == "outcome-unknown"):
                unknown.append(batch)
            else:
                assert isinstance(answer, PushbackError), answer
                assert answer.code == "not-open"
        found, known = await self._committed(), len(self.model.entries)
        assert found[:known] == self.model.entries
        assert explains(found[known:], known, acknowledged, unknown), "not what was acknowledged, or half a batch"
        self.model.entries += found[known:]

    @precondition(has_room)
    @rule(batch=batches)
    def append(self, batch: Batch) -> None:
        self.sent += len(batch)
        self.run(self._send(batch))

    @precondition(has_room)
    @rule(first=batches, second=batches, third=small)
    def append_at_once(self, first: Batch, second: Batch, third: Batch) -> None:
        self.sent += len(first) + len(second) + len(third)
        self.run(self._send(first, second, third))

    @precondition(has_sent)
    @rule(number=numbers)
    def append_again(self, number: int) -> None:
        """An opaque log does not care."""
        self.sent += 1
        entries = self.model.entries or [b""]
        self.run(self._send([entries[number % len(entries)]]))

    # --- what goes wrong ------------------------------------------------------------------------------------------------

    @rule(operation=st.sampled_from(["commit", "publish"]), number=numbers)
    def plan_a_fault_of_the_store(self, operation: Operation, number: int) -> None:
        self.ground.plan(operation, self.ground.faults[number % len(self.ground.faults)])

    @rule(fault=st.sampled_from(["refused", "torn", "applied"]))
    def plan_a_fault_of_the_head(self, fault: HeadFault) -> None:
        self.ground.head_faults.append(fault)

    @precondition(has_room)
    @rule(point=crash_points, batch=batches, second=small)
    def crash(self, point: str, batch: Batch, second: Batch) -> None:
        """At that point of an append's way, or when nothing is under way."""
        self.sent += len(batch) + len(second) if point else 0
        self.run(self._crash(point, [batch, second] if point else []))

    async def _crash(self, point: str, sent: list[Batch]) -> None:
        old, dying = self.ground, self.running
        old.store_faults.clear()
        old.head_faults.clear()
        await self._published()
        gate = old.gate(point) if point else None
        sending = [asyncio.create_task(dying.append(batch)) for batch in sent]
        if gate is not None:
            await gate.reached()
            if point in ("head", "head written", "sign"):  # the writer goes on beside it
                await asyncio.wait(sending)
        heard = [task.result() if task.done() else None for task in sending]
        self.ground = old.twin()
        if gate is not None:
            gate.open()
        await dying.stop(drain_ms=0)
        await asyncio.gather(*sending, return_exceptions=True)
        old.release()
        service = self.ground.service()
        await service.start()
        self.service = service
        await self._resolve(sent, heard)

    @rule(drain=st.booleans())
    def stop_and_start(self, drain: bool) -> None:
        self.run(self._stop_and_start(PATIENCE_S * 1_000 if drain else 0))

    async def _stop_and_start(self, drain_ms: int) -> None:
        await self.running.stop(drain_ms=drain_ms)
        await self._start()

    # --- backups --------------------------------------------------------------------------------------------------------
    @precondition(lambda self: len(self.backups) < 3)
    @rule()
    def back_up(self) -> None:
        """By copying the files of a stopped log."""

        async def work() -> None:
            await self._stop()
            copy = self.ground.twin()
            self.backups.append((copy, len(self.model.entries), copy.head_path.read_bytes()))
            await self._start()

        self.run(work())

    @rule()
    def restore(self) -> None:
        """From a backup in a folder, as `translog backup` and `translog restore` do it: held, then resumed, it goes on."""

        async def work() -> None:
            await self._stop()
            folder = Folder(self.ground.beside() / "backup")
            store = self.ground.open_store()
            try:
                copied = back_up(StoreSource(store), folder, policy=POLICY, progress=lambda done, total: None)
            finally:
                store.close()
            fresh = type(self.ground)(self.ground.beside())
            fresh.signed, fresh.clock = list(self.ground.signed), self.ground.clock
            fill_store(folder, lambda meta: fresh.open_store(), policy=POLICY, progress=lambda done, total: None)
            size, root = copied.state.size, copied.state.root
            HeadFile.create(fresh.head_path, origin=ORIGIN, size=size, root=root, hold=True)
            service = fresh.service()
            await service.start()
            assert service.mode is Mode.HELD
            with pytest.raises(HeldError):
                await service.append([b"x"])
            assert len(fresh.signed) == len(self.ground.signed), "a held log signed"
            await service.stop(drain_ms=0)
            HeadFile.create(fresh.head_path, origin=ORIGIN, size=size, root=root)  # resumed
            self.ground.release()
            self.ground = fresh
            await self._start()

        self.run(work())

    @precondition(lambda self: self.backups)
    @rule(number=numbers, what=st.sampled_from(["store", "head", "both, on hold"]))
    def put_back_an_older_copy(self, number: int, what: str) -> None:
        """Signs nothing if anything newer was signed; goes on with the newest copy. (Store and head of one older copy cannot
        be told from the newest: whoever restores them so says hold.)"""
        backup, size, head = self.backups[number % len(self.backups)]
        self.run(self._put_back(backup, size, head, what))

    async def _put_back(self, backup: Ground, size: int, head: bytes, what: str) -> None:
        await self._stop()
        newest, signed = self.ground, len(self.ground.signed)
        if what == "store":
            older, code = newest.twin(backup), "store-behind-head"
        elif what == "head":
            older, code = newest.twin(head=head), "head-behind"
        else:
            older, code = newest.twin(backup, head=head), "on-hold"
            HeadFile.create(older.head_path, origin=ORIGIN, size=size, root=self.model.root(size), hold=True)
        service = older.service()
        await service.start()
        if size < len(self.model.entries) or what == "both, on hold":
            assert service.mode is Mode.HELD
            assert service.held is not None
            assert service.held.code == code
            with pytest.raises(HeldError):
                await service.append([b"x"])
            assert service.published is not None
            self.model.require_prefix(verify_checkpoint(service.published.note, POLICY).checkpoint)
            assert len(older.signed) == signed, "a held log signed"
        else:
            assert service.mode is Mode.OPEN  # nothing newer was signed
        await service.stop(drain_ms=0)
        older.release()
        await self._start()

    # --- reading --------------------------------------------------------------------------------------------------------

    @rule()
    def wait_until_published(self) -> None:
        self.run(self._published())

    def reader(self) -> tuple[Reader, int]:
        """The published log, all of it; for this thread, while nothing else runs. At least one entry."""
        while not self.model.entries:  # all that was sent was refused
            self.run(self._send([b""]))
        service = self.run(self._published())
        assert service.published is not None
        assert service._reader is not None
        return service._reader, service.published.size

    @precondition(has_sent)
    @rule(one=numbers, other=numbers)
    def read_entries(self, one: int, other: int) -> None:
        reader, size = self.reader()
        start, end = sorted((one % size, other % size))
        assert reader.entries(start=start, end=end + 1, entry_bytes_max=2**30) == self.model.entries[start : end + 1]

    @precondition(has_sent)
    @rule(one=numbers, other=numbers)
    def prove(self, one: int, other: int) -> None:
        reader, size = self.reader()
        old = one % size + 1
        new = old + other % (size - old + 1)
        assert reader.consistency(old=old, new=new) == self.model.oracle.proof(old, 0, new)
        index = other % new
        proven = reader.inclusion(index=index, size=new)
        assert proven.proof == self.model.oracle.path(index, 0, new)
        assert proven.root == self.model.root(new)
        assert proven.leaf_hash == sha256(b"\0" + self.model.entries[index]).digest()

    @precondition(has_sent)
    @rule(number=numbers)
    def get_a_receipt(self, number: int) -> None:
        reader, size = self.reader()
        index = number % size
        leaf_hash = sha256(b"\0" + self.model.entries[index]).digest()
        for data in (reader.receipt(index=index), *reader.receipts(first=index, count=1)):
            verified = verify_receipt(parse_receipt(data), leaf_hash=leaf_hash, policy=POLICY)
            self.model.require_prefix(verified.checkpoint.checkpoint)

    @precondition(has_sent)
    @rule(number=numbers)
    def read_a_tile(self, number: int) -> None:
        reader, size = self.reader()
        index = number % ((size + 255) // 256)
        tile = Tile(level=0, index=index, width=min(256, size - index * 256))
        assert reader.tile(tile) == self.model.oracle.tile(tile)

    # --- always ---------------------------------------------------------------------------------------------------------

    @invariant()
    def everything_said_is_true(self) -> None:
        if self.service is not None:
            self.run(self._look())

    async def _look(self) -> None:
        assert await self._committed() == self.model.entries
        shown = self.running.published
        assert shown is not None
        assert self.model.shown <= shown.size <= self.running.integrated.size
        self.model.shown = shown.size
        self.model.require_prefix(verify_checkpoint(shown.note, POLICY).checkpoint)
        for text in self.ground.signed[self.model.verified :]:
            self.model.require_prefix(parse_checkpoint(text))
        self.model.verified = len(self.ground.signed)
        assert not self.ground.violations


class MemoryMachine(LogMachine):
    ground_class = InMemory


class LevelDBMachine(LogMachine):
    ground_class = OnLevelDB


def profile(examples: int) -> settings:
    """Without the checks of how Hypothesis itself fares: a step is a life of a log, and takes its time."""
    return settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


class TestMemory(MemoryMachine.TestCase):  # type: ignore[valid-type,misc]
    settings = profile(EXAMPLES)


class TestLevelDB(LevelDBMachine.TestCase):  # type: ignore[valid-type,misc]
    settings = profile(max(1, EXAMPLES // 3))  # each takes three times as long
