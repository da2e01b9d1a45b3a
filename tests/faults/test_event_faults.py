"""The fault table once more, for a log of events: who sends again what was not answered never has it logged twice.

Rules: the rows are those of test_fault_table.py, and so is the machine that acts them out; records go the whole way, as they
would from a request: mapped, sealed, encrypted, numbered. After every row all that was sent is sent again until it is answered:
what was there is a duplicate at its index, what was not is logged now; then every event is opened and there once, and the rows
that find events are those that follow from the entries.
"""

import asyncio
import http.client
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from client.serving import policy_for
from log.harness import EVENTS_META, ORIGIN, derive_rows, until, until_published
from server.event_log import record

from faults.machine import Log, Server, mounted, serving
from faults.observer import verify_directory
from faults.test_fault_table import (
    AT_START,
    POWER_CUTS,
    TABLE,
    End,
    How,
    Machine,
    Row,
    Step,
    Told,
    faulty_publications,  # noqa: F401  acts in every test here
    require_all_closed,
)
from translog.bootstrap import create_log
from translog.errors import ConflictError, HeldError, PushbackError, StorageError
from translog.events.jsontext import compact, parse_record
from translog.events.seal import seal
from translog.events.sources.table import SOURCES
from translog.log.drafts import Draft, Placed
from translog.log.events import open_event
from translog.log.lifecycle import LogService, Mode
from translog.log.vault import FileKeyWrapper, Vault
from translog.server.intake import Intake, Taken
from translog.storage.memory import MemoryDisk, MemoryStore
from translog.storage.store import Profile, StreamName

WEB, AGENT = StreamName("acme", "web"), StreamName("acme", "agent")
BEFORE = 12
"""Events that are there before anything fails."""
COUNT = 6
"""Events of a batch."""


@dataclass
class Sent:
    """A batch; where each of its events was told to be, once it was answered."""

    name: str
    sealed: bool
    told: list[tuple[int, bool]] = field(default_factory=list)


@dataclass
class Senders:
    """Those who send to a machine, whatever service runs on it."""

    vault: Vault
    machine: Machine
    numbers: dict[str, int] = field(default_factory=dict)
    """The first number of each sealed batch."""
    heard: list[Told] = field(default_factory=list)

    def intake(self, service: LogService) -> Intake:
        return Intake(
            service=service,
            vault=self.vault,
            dedup_key=bytes(32),
            blob_bytes_min=1_024,
            random_bytes=os.urandom,
            commit_deadline_ms=10_000,
            host="host",
        )

    async def send(self, service: LogService, sent: Sent) -> list[tuple[int, bool]]:
        """Index of each event, and whether it was a duplicate. Raises what the log does."""
        intake = self.intake(service)
        try:
            if sent.sealed:
                outcomes = (await intake.take_sealed(self._drafts(sent))).outcomes
                return [(outcome.index, outcome.duplicate) for outcome in outcomes if isinstance(outcome, Placed)]
            return [(taken.index, taken.duplicate) for taken in await self.take(service, records_of(sent.name))]
        finally:
            intake.close()

    async def take(self, service: LogService, raws: Sequence[bytes]) -> list[Taken]:
        intake = self.intake(service)
        try:
            return (await intake.take(WEB, SOURCES["events"], [parse_record(raw) for raw in raws])).results
        finally:
            intake.close()

    def _drafts(self, sent: Sent) -> list[Draft]:
        first = self.numbers.setdefault(sent.name, COUNT * len(self.numbers))
        seed = bytes(32)  # as it was when it was sealed, so that it is the same again
        names = {"member": AGENT.member, "stream": AGENT.stream, "origin": ORIGIN}
        roots = [seal({"message": f"{sent.name} {n}"}, seed=seed, **names).root for n in range(COUNT)]
        return [Draft(stream=AGENT, root=root, record=b"\x02", seq=first + n) for n, root in enumerate(roots)]

    async def deliver(self, service: LogService, sent: Sent) -> bool:
        """Sends until it is answered; false if the log is held before that."""
        while True:
            await until(lambda: service.mode in (Mode.OPEN, Mode.HELD))
            if service.mode is Mode.HELD:
                return False
            try:
                sent.told = await self.send(service, sent)
            except HeldError:
                return False
            except StorageError as error:
                assert error.code == "outcome-unknown"  # noqa: PT017  one of the answers there are
                self.heard.append(Told.UNKNOWN)
            except PushbackError:
                continue  # nothing was written
            else:
                self.heard.append(Told.LOGGED)
                return True

    def require_once(self, batches: Sequence[Sent]) -> None:
        """Every event of these batches, and of what was there before, is there once, at the index that was told."""
        machine = self.machine
        entries = machine.check()
        rows, disk = derive_rows(machine.disk), machine.disk
        assert (disk.ids, disk.streams, disk.numbers) == (rows.ids, rows.streams, rows.numbers)
        assert list(disk.payloads) == list(range(len(entries)))
        store = MemoryStore(machine.disk)
        opened = [open_event(store, index, origin=ORIGIN, vault=self.vault) for index in range(len(entries))]
        raws = {index: one.event["raw_data"].encode() for index, one in enumerate(opened) if one.event is not None}
        roots = {one.entry.root: index for index, one in enumerate(opened) if one.event is None}
        expected = Counter(raw for sent in batches if not sent.sealed for raw in records_of(sent.name))
        assert Counter(raws.values()) == expected
        assert set(expected.values()) == {1}
        assert len(raws) + len(roots) == len(entries)
        for sent in batches:
            indexes = [index for index, _ in sent.told]
            if sent.sealed:
                assert indexes == [roots[draft.root] for draft in self._drafts(sent)]
            else:
                assert [raws[index] for index in indexes] == records_of(sent.name)


def records_of(name: str) -> list[bytes]:
    """The records of a batch, one of them with a field that is a blob."""
    count = BEFORE if name == "before" else COUNT
    return [compact(record(f"{name} {n}", note="x" * (2_000 if n == 3 else 3))).encode() for n in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "machine").mkdir()
    return tmp_path / "machine"


@pytest.fixture
def senders(path: Path) -> Senders:
    Vault.create(path.parent / "vault")
    wrapper = FileKeyWrapper(bytes(32), origin=ORIGIN, random_bytes=os.urandom)
    vault = Vault.open(path.parent / "vault", wrapper=wrapper, random_bytes=os.urandom, now_ms=lambda: 1)
    return Senders(vault, Machine(path, MemoryDisk(meta=EVENTS_META)))


async def fill(senders: Senders, service: LogService) -> Sent:
    """What is there before anything fails, published."""
    before = Sent("before", sealed=False)
    assert await senders.deliver(service, before)
    await until_published(service, BEFORE)
    senders.heard.clear()
    return before


async def go_on(senders: Senders, batches: list[Sent]) -> None:
    """A new service on the machine: whatever is sent again is a duplicate, and what is new is not."""
    machine = senders.machine
    machine.faults.clear()
    async with machine.running() as service:
        assert service.mode is Mode.OPEN, service.held
        for sent in batches:
            told = dict(sent.told)
            assert await senders.deliver(service, sent)
            assert not told or sent.told == [(index, True) for index in told]
        batches.append(Sent("next", sealed=False))
        assert await senders.deliver(service, batches[-1])
        assert not any(duplicate for _, duplicate in batches[-1].told)
        await until_published(service, len(machine.disk.entries))
    require_all_closed(machine)
    senders.require_once(batches)


KINDS = pytest.mark.parametrize("sealed", [False, True], ids=["by id", "by number"])


@KINDS
@pytest.mark.parametrize("row", TABLE, ids=str)
async def test_while_the_log_runs(senders: Senders, row: Row, sealed: bool) -> None:
    machine = senders.machine
    async with machine.running() as service:
        batches = [await fill(senders, service)]
        machine.faults = list(row.faults)
        while len(batches) == 1 or (machine.faults and machine.faults[0][0] is Step.COMMIT):
            batches.append(Sent(f"sent {len(batches)}", sealed=sealed))
            size = len(machine.disk.entries)
            answered = await senders.deliver(service, batches[-1])
            assert senders.heard[0] is row.told
            was_there = row.logged and row.told is Told.UNKNOWN
            if answered:
                assert batches[-1].told == [(size + n, was_there) for n in range(COUNT)]
            senders.heard.clear()

        def ended() -> bool:
            published = service.published
            goes_on = service.mode is Mode.OPEN and published is not None and published.size == len(machine.disk.entries)
            return (goes_on if row.end is End.GOES_ON else service.mode is Mode.HELD) and not machine.faults

        await until(ended)
        assert len(machine.disk.entries) == BEFORE + COUNT * (row.logged or row.end is not End.HELD) * (len(batches) - 1)
    await go_on(senders, batches)


@KINDS
@pytest.mark.parametrize(("row", "event"), POWER_CUTS, ids=lambda value: str(value) or "at once")
async def test_power_cuts(senders: Senders, row: Row, event: str, sealed: bool) -> None:
    """The sender of a batch that nobody answered, or of which nobody knows, sends it to the next process."""
    machine = senders.machine
    event, torn, _ = event.partition(" torn")
    sent = Sent("sent", sealed=sealed)
    async with machine.running() as service:
        batches = [await fill(senders, service), sent]
        machine.faults = list(row.faults)
        gate = machine.gate(event)
        sending = asyncio.create_task(senders.send(service, sent))
        await gate.reached()
        if row.told is Told.LOGGED:
            sent.told = await sending
        elif row.told is Told.UNKNOWN:
            with pytest.raises(StorageError) as unknown:
                await sending
            assert unknown.value.code == "outcome-unknown"
        senders.machine = machine.after_power_cut(torn=bool(torn))
        gate.open()
        await asyncio.gather(sending, return_exceptions=True)
    async with senders.machine.running() as service:
        again = await senders.send(service, sent)
        assert again == [(BEFORE + n, row.logged) for n in range(COUNT)]
    sent.told = again
    await go_on(senders, batches)


@pytest.mark.parametrize("row", AT_START, ids=str)
async def test_at_the_start(senders: Senders, row: Row) -> None:
    """The events were committed by a process that died before it said so."""
    machine = senders.machine
    sent = Sent("sent", sealed=False)
    async with machine.running() as service:
        batches = [await fill(senders, service), sent]
        gate = machine.gate("committed")
        sending = asyncio.create_task(senders.send(service, sent))
        await gate.reached()
        senders.machine = after = machine.after_power_cut()
        gate.open()
        await sending
    after.faults = list(row.faults)
    while after.faults:
        service = after.service()
        with pytest.raises((StorageError, RuntimeError)):
            await service.start()
    async with after.running() as service:
        assert await senders.deliver(service, sent)
    assert sent.told == [(BEFORE + n, True) for n in range(COUNT)]
    await go_on(senders, batches)


STORE_FAILS = [How.REFUSED, How.APPLIED, How.DIES_BEFORE, How.DIES_AFTER]


@pytest.mark.parametrize("how", STORE_FAILS, ids=lambda how: how.value)
async def test_a_mark_of_a_conflict_that_fails_alone_is_made_once(senders: Senders, how: How) -> None:
    """An event in conflict is committed in a second step, when the others of its batch are there already."""
    machine = senders.machine
    raws = [compact(record("new")).encode(), compact(record("before 7", note="else")).encode()]
    async with machine.running() as service:
        await fill(senders, service)
        gate = machine.gate("committed")
        sending = asyncio.create_task(senders.take(service, raws))
        await gate.reached()
        machine.faults = [(Step.COMMIT, how)]
        gate.open()
        with pytest.raises(StorageError) as failed:
            await sending
        assert failed.value.code == "outcome-unknown"
        await until(lambda: machine.tries == 2 and service.mode is Mode.OPEN)
        applied = how in (How.APPLIED, How.DIES_AFTER)
        new, other = await senders.take(service, raws)
        assert (new.index, new.duplicate, new.conflicts_with) == (BEFORE, True, None)
        assert (other.index, other.duplicate, other.conflicts_with) == (BEFORE + 1, applied, None if applied else 7)
        again = [(taken.index, taken.duplicate) for taken in await senders.take(service, raws)]
        assert again == [(BEFORE, True), (BEFORE + 1, True)]
        await until_published(service, BEFORE + 2)
    opened = open_event(MemoryStore(machine.disk), BEFORE + 1, origin=ORIGIN, vault=senders.vault)
    assert opened.event is not None
    assert opened.event["fed"]["conflicts_with"] == 7
    assert len(machine.check()) == BEFORE + 2


@pytest.mark.parametrize("how", STORE_FAILS, ids=lambda how: how.value)
async def test_a_fork_is_no_fork_because_a_commit_failed(senders: Senders, how: How) -> None:
    """A sender that goes on from what it was never told of gets wrong-number, and its events again get their numbers."""
    machine = senders.machine
    first, second = Sent("first", sealed=True), Sent("second", sealed=True)
    async with machine.running() as service:
        before = await fill(senders, service)
        machine.faults = [(Step.COMMIT, how)]
        with pytest.raises(StorageError):
            await senders.send(service, first)
        await until(lambda: machine.tries == 2 and service.mode is Mode.OPEN)
        if how in (How.REFUSED, How.DIES_BEFORE):
            with pytest.raises(ConflictError) as wrong:
                await senders.send(service, second)
            assert wrong.value.code == "wrong-number"
        assert await senders.deliver(service, first)
        assert await senders.deliver(service, second)
    await go_on(senders, [before, first, second])


# --- the key store on a full disk -----------------------------------------------------------------------------------------


def post(server: Server, uid: str) -> tuple[int, Any]:
    """Sends an event; the answer's status and body."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    try:
        connection.request("POST", "/v1/events", body=compact(record(uid)), headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_a_key_that_does_not_fit_the_disk_is_503_until_it_does(tmp_path: Path) -> None:
    """Nothing is logged under a key that is not kept; whoever has a key goes on meanwhile."""
    directory = tmp_path / "log"
    log = Log(directory, policy_for(create_log(directory, origin="log.example/full", profile=Profile.EVENTS)))
    keys, empty = directory / "vault" / "keys.json", (directory / "vault" / "keys.json").read_bytes()
    with mounted(keys.parent, "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"):
        keys.touch(mode=0o600)
        keys.write_bytes(empty)
        with serving(log) as server:
            ballast = keys.with_name("ballast")
            with pytest.raises(OSError, match="No space"):
                ballast.write_bytes(bytes(64 * 1_024))
            kept = keys.read_bytes()
            for _ in range(3):
                status, said = post(server, "first")
                assert (status, said["code"]) == (503, "storage")
            assert keys.read_bytes() == kept
            assert server.size() == 1  # what the log says of its own making, under the log's own key
            ballast.unlink()
            for duplicate in (False, True):
                status, said = post(server, "first")
                assert (status, said["count"]) == (200, 1)
                assert [(one["index"], one["duplicate"]) for one in said["results"]] == [(1, duplicate)]
            assert len(keys.read_bytes()) > len(kept)
            assert server.end() == 0
        assert verify_directory(directory) == 2
