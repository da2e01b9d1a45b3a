"""One table: what fails, how, at which step; then what the sender is told, whether the entries are there, what the log does.

Rules: a row is the whole truth about its fault, at every place of the tree (PLACES). After every row the log is verified from
its entries alone, with every text that was ever signed; what was acknowledged is at its index; what was shown never went
back; and a new service on the same machine opens, has published everything, and takes the next entry.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from log.harness import META, ORIGIN, Gate, HeadFault, RecordingSigner, RecordingStore, World, until, until_published

from translog.errors import HeldError, PushbackError, StorageError
from translog.log.head import SLOT_BYTES, HeadFile
from translog.log.lifecycle import LogService, Mode
from translog.log.pool import Sequenced
from translog.log.publisher import Publisher
from translog.storage.memory import Fault, MemoryDisk


class Step(Enum):
    """The writes of a log, in their order. A publication is the last three of them."""

    OPEN = "open the store"
    COMMIT = "commit"
    HEAD = "write DIR/head"
    SIGN = "sign"
    STORE = "store the checkpoint"
    PUBLICATION = "publication as a whole"


class How(Enum):
    """What goes wrong with a step, and what whoever called it sees: a failure, always."""

    REFUSED = "not applied"
    APPLIED = "applied but reported failed"
    TORN = "half written"
    DIES_BEFORE = "the store dies before"  # and with it what was stored since the last commit
    DIES_AFTER = "the store dies after"
    UNFORESEEN = "an exception nobody foresaw"


class Told(Enum):
    """What the sender of the entries hears."""

    LOGGED = "acknowledged"
    UNKNOWN = "outcome-unknown"
    NOTHING = "no answer"


class End(Enum):
    """What becomes of the log."""

    GOES_ON = "goes on by itself"
    HELD = "held until somebody looks"
    STOPS = "the process stops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `opened`: how often the store was opened anew, tries that failed included."""

    faults: tuple[tuple[Step, How], ...]
    told: Told
    logged: bool
    end: End
    opened: int

    def __str__(self) -> str:
        return ", then ".join(f"{step.value}: {how.value}" for step, how in self.faults)


STORE_FAULTS = {
    How.REFUSED: Fault.REFUSED,
    How.APPLIED: Fault.APPLIED_BUT_FAILED,
    How.DIES_BEFORE: Fault.CRASH_BEFORE,
    How.DIES_AFTER: Fault.CRASH_AFTER,
}
HEAD_FAULTS: dict[How, HeadFault] = {How.REFUSED: "refused", How.APPLIED: "applied", How.TORN: "torn"}

OPEN, COMMIT, HEAD, SIGN, STORE, PUBLICATION = Step
REFUSED, APPLIED, TORN, DIES_BEFORE, DIES_AFTER, UNFORESEEN = How
LOGGED, UNKNOWN, NOTHING = Told
GOES_ON, HELD, STOPS = End
THERE, ABSENT = True, False


def row(told: Told, logged: bool, end: End, opened: int, *faults: tuple[Step, How]) -> Row:
    return Row(faults=faults, told=told, logged=logged, end=end, opened=opened)


# fmt: off
TABLE = [
    #   sender   entries the log  opened  what fails, in this order
    #   hears                     anew
    # While the log runs: each step, each way.
    row(UNKNOWN, ABSENT, GOES_ON, 1, (COMMIT, REFUSED)),
    row(UNKNOWN, THERE,  GOES_ON, 1, (COMMIT, APPLIED)),
    row(UNKNOWN, ABSENT, GOES_ON, 1, (COMMIT, DIES_BEFORE)),
    row(UNKNOWN, THERE,  GOES_ON, 1, (COMMIT, DIES_AFTER)),
    row(UNKNOWN, ABSENT, HELD,    0, (COMMIT, UNFORESEEN)),
    row(LOGGED,  THERE,  GOES_ON, 1, (PUBLICATION, REFUSED)),
    row(LOGGED,  THERE,  GOES_ON, 1, (PUBLICATION, APPLIED)),
    row(LOGGED,  THERE,  HELD,    0, (PUBLICATION, UNFORESEEN)),
    row(LOGGED,  THERE,  GOES_ON, 1, (HEAD, REFUSED)),
    row(LOGGED,  THERE,  GOES_ON, 1, (HEAD, TORN)),
    row(LOGGED,  THERE,  GOES_ON, 1, (HEAD, APPLIED)),
    row(LOGGED,  THERE,  GOES_ON, 1, (SIGN, REFUSED)),
    row(LOGGED,  THERE,  GOES_ON, 1, (SIGN, APPLIED)),
    row(LOGGED,  THERE,  HELD,    0, (SIGN, UNFORESEEN)),
    row(LOGGED,  THERE,  GOES_ON, 1, (STORE, REFUSED)),
    row(LOGGED,  THERE,  GOES_ON, 1, (STORE, APPLIED)),
    row(LOGGED,  THERE,  GOES_ON, 1, (STORE, DIES_BEFORE)),
    row(LOGGED,  THERE,  GOES_ON, 1, (STORE, DIES_AFTER)),
    row(LOGGED,  THERE,  HELD,    0, (STORE, UNFORESEEN)),
    # A second fault in the recovery from the first.
    row(UNKNOWN, ABSENT, GOES_ON, 2, (COMMIT, REFUSED), (OPEN, REFUSED)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, APPLIED), (OPEN, REFUSED)),
    row(UNKNOWN, THERE,  GOES_ON, 4, (COMMIT, DIES_AFTER), (OPEN, REFUSED), (OPEN, REFUSED), (OPEN, REFUSED)),
    row(LOGGED,  THERE,  GOES_ON, 2, (STORE, REFUSED), (OPEN, REFUSED)),
    row(UNKNOWN, ABSENT, GOES_ON, 2, (COMMIT, REFUSED), (HEAD, REFUSED)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, APPLIED), (HEAD, REFUSED)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, APPLIED), (HEAD, TORN)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, APPLIED), (HEAD, APPLIED)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, APPLIED), (SIGN, APPLIED)),
    row(UNKNOWN, ABSENT, HELD,    1, (COMMIT, REFUSED), (SIGN, UNFORESEEN)),
    row(UNKNOWN, THERE,  HELD,    1, (COMMIT, APPLIED), (SIGN, UNFORESEEN)),
    row(UNKNOWN, ABSENT, GOES_ON, 2, (COMMIT, REFUSED), (STORE, REFUSED)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, APPLIED), (STORE, APPLIED)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, DIES_AFTER), (STORE, DIES_BEFORE)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, DIES_AFTER), (STORE, DIES_AFTER)),
    row(LOGGED,  THERE,  GOES_ON, 2, (HEAD, APPLIED), (STORE, DIES_BEFORE)),
    row(LOGGED,  THERE,  GOES_ON, 3, (HEAD, TORN), (OPEN, REFUSED), (STORE, APPLIED)),
    # The same fault again, in the recovery or, of commits, when the same entries are sent again.
    row(UNKNOWN, ABSENT, GOES_ON, 2, (COMMIT, REFUSED), (COMMIT, REFUSED)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, APPLIED), (COMMIT, APPLIED)),
    row(UNKNOWN, THERE,  GOES_ON, 2, (COMMIT, DIES_AFTER), (COMMIT, DIES_AFTER)),
    row(LOGGED,  THERE,  GOES_ON, 2, (PUBLICATION, REFUSED), (PUBLICATION, REFUSED)),
    row(LOGGED,  THERE,  GOES_ON, 2, (PUBLICATION, APPLIED), (PUBLICATION, APPLIED)),
    row(LOGGED,  THERE,  GOES_ON, 2, (HEAD, REFUSED), (HEAD, REFUSED)),
    row(LOGGED,  THERE,  GOES_ON, 2, (HEAD, TORN), (HEAD, TORN)),
    row(LOGGED,  THERE,  GOES_ON, 2, (HEAD, APPLIED), (HEAD, APPLIED)),
    row(LOGGED,  THERE,  GOES_ON, 2, (SIGN, APPLIED), (SIGN, APPLIED)),
    row(LOGGED,  THERE,  GOES_ON, 2, (STORE, REFUSED), (STORE, REFUSED)),
    row(LOGGED,  THERE,  GOES_ON, 2, (STORE, APPLIED), (STORE, APPLIED)),
    row(LOGGED,  THERE,  GOES_ON, 2, (STORE, DIES_BEFORE), (STORE, DIES_BEFORE)),
    row(LOGGED,  THERE,  GOES_ON, 2, (STORE, DIES_AFTER), (STORE, DIES_AFTER)),
]

AT_START = [
    # The entries were committed by a process that died before it published them: nobody was told anything.
    row(NOTHING, THERE,  STOPS,   1, (OPEN, REFUSED)),
    row(NOTHING, THERE,  STOPS,   1, (PUBLICATION, REFUSED)),
    row(NOTHING, THERE,  STOPS,   1, (PUBLICATION, APPLIED)),
    row(NOTHING, THERE,  STOPS,   1, (HEAD, REFUSED)),
    row(NOTHING, THERE,  STOPS,   1, (HEAD, TORN)),
    row(NOTHING, THERE,  STOPS,   1, (HEAD, APPLIED)),
    row(NOTHING, THERE,  STOPS,   1, (SIGN, APPLIED)),
    row(NOTHING, THERE,  STOPS,   1, (SIGN, UNFORESEEN)),
    row(NOTHING, THERE,  STOPS,   1, (STORE, REFUSED)),
    row(NOTHING, THERE,  STOPS,   1, (STORE, APPLIED)),
    row(NOTHING, THERE,  STOPS,   1, (STORE, DIES_BEFORE)),
    row(NOTHING, THERE,  STOPS,   1, (STORE, DIES_AFTER)),
    # Twice: two processes stop, the third goes on.
    row(NOTHING, THERE,  STOPS,   2, (OPEN, REFUSED), (OPEN, REFUSED)),
    row(NOTHING, THERE,  STOPS,   2, (HEAD, REFUSED), (HEAD, REFUSED)),
    row(NOTHING, THERE,  STOPS,   2, (HEAD, TORN), (HEAD, TORN)),
    row(NOTHING, THERE,  STOPS,   2, (HEAD, APPLIED), (STORE, DIES_AFTER)),
    row(NOTHING, THERE,  STOPS,   2, (SIGN, APPLIED), (STORE, DIES_BEFORE)),
    row(NOTHING, THERE,  STOPS,   2, (STORE, DIES_AFTER), (STORE, DIES_AFTER)),
]

POWER_CUTS = [
    # The machine dies at that event, with these faults before it; the next process finds what was durable.
    # The first column is what the sender had heard by then.
    (row(NOTHING, ABSENT, STOPS,   0), "commit"),
    (row(NOTHING, THERE,  STOPS,   0), "committed"),
    (row(LOGGED,  THERE,  STOPS,   0), "head"),
    (row(LOGGED,  THERE,  STOPS,   0), "head torn"),
    (row(LOGGED,  THERE,  STOPS,   0), "head written"),
    (row(LOGGED,  THERE,  STOPS,   0), "sign"),
    (row(LOGGED,  THERE,  STOPS,   0), "publish"),  # that is: signed
    (row(LOGGED,  THERE,  STOPS,   0), "published"),
    # In the middle of a recovery.
    (row(UNKNOWN, ABSENT, STOPS,   0, (COMMIT, REFUSED)), "close store"),
    (row(UNKNOWN, THERE,  STOPS,   0, (COMMIT, APPLIED)), "close store"),
    (row(UNKNOWN, ABSENT, STOPS,   1, (COMMIT, REFUSED)), "head"),
    (row(UNKNOWN, THERE,  STOPS,   1, (COMMIT, APPLIED)), "head"),
    (row(UNKNOWN, THERE,  STOPS,   1, (COMMIT, DIES_AFTER)), "head torn"),
    (row(UNKNOWN, THERE,  STOPS,   1, (COMMIT, APPLIED)), "head written"),
    (row(UNKNOWN, THERE,  STOPS,   1, (COMMIT, DIES_AFTER)), "sign"),
    (row(UNKNOWN, THERE,  STOPS,   1, (COMMIT, APPLIED)), "publish"),
    (row(UNKNOWN, THERE,  STOPS,   1, (COMMIT, DIES_AFTER)), "published"),
    (row(UNKNOWN, THERE,  STOPS,   2, (COMMIT, APPLIED), (OPEN, REFUSED)), "sign"),
]
# fmt: on


def lose_head(world: World) -> None:
    world.head_path.write_bytes(bytes(2 * SLOT_BYTES))


def lose_newest_entry(world: World) -> None:
    """An older copy of the store."""
    world.disk = disk_of(world.disk.state.size - 1)


def another_history(world: World) -> None:
    world.disk = disk_with([*world.disk.entries[:-1], b"something else"])


def older_head(world: World) -> None:
    HeadFile.create(world.head_path, origin=ORIGIN, size=1, root=disk_of(1).state.root)


def head_says_hold(world: World) -> None:
    HeadFile.create(world.head_path, origin=ORIGIN, size=len(world.disk.entries), root=world.disk.state.root, hold=True)


def rotten_tile(world: World) -> None:
    world.disk.tiles[0, (world.disk.state.size - 1) // 256] = bytes(256 * 32)


def somebody_else_commits(world: World) -> None:
    world.disk.state = replace(world.disk.state, size=world.disk.state.size + 1)


# Entries are sent, the commit is refused, and before the log is opened anew something else goes wrong with the machine.
# (A second writer is noticed by the commit itself.) The log is then held; `code` says why.
HOLDING: list[tuple[Callable[[World], None], str]] = [
    (lose_head, "head-lost"),
    (lose_newest_entry, "store-behind-head"),
    (another_history, "head-mismatch"),
    (older_head, "head-behind"),
    (head_says_hold, "on-hold"),
    (rotten_tile, "corrupt"),
    (somebody_else_commits, "fenced"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the tree the entries go."""

    size: int
    count: int

    def __str__(self) -> str:
        return f"{self.size} to {self.size + self.count}"

    @property
    def entries(self) -> list[bytes]:
        return [b"sent %d" % n for n in range(self.count)]


FIRST = Place(size=0, count=1)
SPANNING = Place(size=250, count=300)  # ends one tile, fills the next, begins a third
FAR = Place(size=65_535, count=1)  # fills a tile of level 1, and begins level 2; for single faults only, as it takes long
PLACES = [FIRST, Place(size=255, count=1), SPANNING]  # the second fills a tile, and begins level 1


def everywhere(rows: list[Row]) -> list[tuple[Row, Place]]:
    """Each row at each place."""
    return [(row, place) for row in rows for place in PLACES] + [(row, FAR) for row in rows if len(row.faults) == 1]


@cache
def _filled(size: int) -> MemoryDisk:
    return disk_with([b"entry %d" % n for n in range(size)])


def disk_with(entries: list[bytes]) -> MemoryDisk:
    """A disk with that log, as one commit made it."""
    world = object.__new__(World)  # only its disk: `fill` asks for nothing else
    world.disk = MemoryDisk(meta=META)
    if entries:
        world.fill(entries)
    return world.disk


def copy_of(disk: MemoryDisk) -> MemoryDisk:
    """What is durable there, on a disk of its own."""
    rows: dict[str, Any] = {
        name: dict(getattr(disk, name)) for name in ("tiles", "kept", "payloads", "blobs", "ids", "streams", "numbers")
    }
    return replace(disk, entries=list(disk.entries), faults=[], **rows)


def disk_of(size: int) -> MemoryDisk:
    return copy_of(_filled(size))


def scratch(world: World) -> Path:
    path = world.head_path.with_name(f"{world.head_path.parent.name}-after")
    path.mkdir()
    return path


class Machine(World):
    """A World that acts out faults, each once, in their order."""

    def __init__(self, path: Path, disk: MemoryDisk) -> None:
        super().__init__(path, meta=disk.meta)
        self.disk = disk
        self.faults: list[tuple[Step, How]] = []
        self.tries = 0
        self.signer = FaultySigner(self.signer.skey)
        object.__setattr__(self.signer, "world", self)

    def take(self, step: Step) -> How | None:
        """How this step fails, if its fault is the next."""
        return self.faults.pop(0)[1] if self.faults and self.faults[0][0] is step else None

    def note(self, what: str, size: int) -> None:
        if what == "head" and (how := self.take(Step.HEAD)):
            self.head_faults = [HEAD_FAULTS[how]]
        if what == "commit" and (how := self.take(Step.COMMIT)):
            self._fail("commit", how)
        if what == "publish" and (how := self.take(Step.STORE)):
            self._fail("publish", how)
        super().note(what, size)

    def _fail(self, operation: Literal["commit", "publish"], how: How) -> None:
        if how is How.UNFORESEEN:
            raise MemoryError
        self.disk.faults = [(operation, STORE_FAULTS[how])]

    def open_store(self) -> RecordingStore:
        self.tries += 1
        self.open_failures = int(self.take(Step.OPEN) is not None)
        return super().open_store()

    def after_power_cut(self, *, torn: bool = False) -> "Machine":
        """The machine as the next process finds it: what is durable this moment, and what was signed by now."""
        after = Machine(scratch(self), copy_of(self.disk))
        after.signed = list(self.signed)
        head = bytearray(self.head_path.read_bytes())
        if torn:
            slot = (self.read_head().counter + 1) % 2 * SLOT_BYTES
            head[slot : slot + 60] = bytes(60)
        after.head_path.write_bytes(head)
        return after


class FaultySigner(RecordingSigner):
    """Fails as its machine is told. Applied: there is a signature, and nobody gets it."""

    __slots__ = ()

    def sign(self, text: str, *, time_s: int) -> bytes:
        assert isinstance(self.world, Machine)
        how = self.world.take(Step.SIGN)
        if how is How.UNFORESEEN:
            raise RuntimeError("the key is gone")
        signature = b"" if how is How.REFUSED else super().sign(text, time_s=time_s)
        if how is not None:
            raise StorageError("the key does not answer")
        return signature


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a first machine is; those after power cuts are beside it."""
    (tmp_path / "machine").mkdir()
    return tmp_path / "machine"


@pytest.fixture(autouse=True)
def faulty_publications(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acts out the faults of a publication as a whole."""
    real = Publisher.publish

    async def publish(publisher: Publisher) -> None:
        machine = getattr(publisher._signers()[0], "world")  # noqa: B009  a Signer has none
        how = machine.take(Step.PUBLICATION)
        if how is How.UNFORESEEN:
            raise RuntimeError("nobody foresaw this")
        if how is not How.REFUSED:
            await real(publisher)
        if how is not None:
            raise StorageError("the publication failed")

    monkeypatch.setattr(Publisher, "publish", publish)


async def tell(sending: Awaitable[Sequenced], *, at: int) -> Told:
    """What the sender hears in the end; if it is an index, it must be the right one."""
    try:
        result = await sending
    except StorageError as error:
        assert error.code == "outcome-unknown"  # noqa: PT017  one of the answers there are
        return Told.UNKNOWN
    assert result.first == at
    return Told.LOGGED


def shown(service: LogService) -> int:
    return service.published.size if service.published is not None else -1


async def require_works(service: LogService, expected: list[bytes]) -> None:
    """The next append is fine."""
    result = await service.append([b"next"])
    assert result.first == len(expected)
    expected.append(b"next")
    await until_published(service, len(expected))


async def require_new_service_works(machine: Machine, expected: list[bytes]) -> None:
    """It opens, everything is published before anybody asks, it goes on, and then the whole log verifies."""
    async with machine.running() as service:
        assert service.mode is Mode.OPEN, service.held
        assert shown(service) == len(expected)
        assert machine.disk.entries == expected
        await require_works(service, expected)
    assert not machine.faults
    assert machine.check() == expected


def require_all_closed(machine: Machine) -> None:
    for store in machine.opened:
        with pytest.raises(StorageError):
            store.read_state()
    assert len(machine.sizes("close head")) == len(machine.opened)


@pytest.mark.parametrize(("row", "place"), everywhere(TABLE), ids=str)
async def test_while_the_log_runs(path: Path, row: Row, place: Place) -> None:
    machine = Machine(path, disk_of(place.size))
    expected = list(machine.disk.entries)
    async with machine.running() as service:
        machine.faults = list(row.faults)
        seen = [shown(service)]
        for _ in range(max(1, [step for step, _ in row.faults].count(Step.COMMIT))):
            tries = machine.tries
            assert await tell(service.append(place.entries), at=len(expected)) is row.told
            expected += place.entries * row.logged
            if machine.faults and machine.faults[0][0] is Step.COMMIT:  # sent again as soon as it can be
                await until(lambda: machine.tries > tries and service.mode is Mode.OPEN)  # noqa: B023  awaited here

        def ended() -> bool:
            seen.append(shown(service))
            goes_on = service.mode is Mode.OPEN and seen[-1] == len(expected)
            ends = goes_on if row.end is End.GOES_ON else service.mode is Mode.HELD
            return ends and not machine.faults and machine.tries >= 1 + row.opened

        await until(ended)
        assert machine.disk.entries == expected
        if row.end is End.GOES_ON:
            await require_works(service, expected)
        else:
            await require_held(machine, service, code="corrupt")
        assert machine.tries == 1 + row.opened
        assert seen == sorted(seen), "what was shown went back"
    require_all_closed(machine)
    await require_new_service_works(machine, expected)


async def require_held(machine: Machine, service: LogService, *, code: str) -> None:
    """Nothing is taken or signed, and it says why."""
    signed = len(machine.signed)
    assert service.held is not None
    assert service.held.code == code
    with pytest.raises(HeldError):
        await service.append([b"next"])
    assert service.mode is Mode.HELD
    assert len(machine.signed) == signed


@pytest.mark.parametrize("place", [*PLACES[1:], FAR], ids=str)
@pytest.mark.parametrize(("wreck", "code"), HOLDING, ids=lambda value: getattr(value, "__name__", value))
async def test_what_holds_the_log(path: Path, wreck: Callable[[Machine], None], code: str, place: Place) -> None:
    machine = Machine(path, disk_of(place.size))
    expected = list(machine.disk.entries)
    async with machine.running() as service:
        machine.faults = [(Step.COMMIT, How.REFUSED)]
        gate = machine.gate("commit")
        sending = asyncio.create_task(service.append(place.entries))
        await gate.reached()
        whole, head, signed = copy_of(machine.disk), machine.head_path.read_bytes(), len(machine.signed)
        wreck(machine)
        gate.open()
        assert await tell(sending, at=-1) is Told.UNKNOWN
        await until(lambda: service.mode is Mode.HELD)
        await require_held(machine, service, code=code)
        assert len(machine.signed) == signed
    require_all_closed(machine)
    machine.disk = whole
    machine.head_path.write_bytes(head)
    await require_new_service_works(machine, expected)


async def cut_power_while_sending(machine: Machine, row: Row, event: str, place: Place) -> tuple[Machine, list[bytes]]:
    """The machine after it, and the entries that must be there."""
    expected = machine.disk.entries + place.entries * row.logged
    event, torn, _ = event.partition(" torn")
    async with machine.running() as service:
        machine.faults = list(row.faults)
        gate = machine.gate(event)
        sending = asyncio.create_task(tell(service.append(place.entries), at=place.size))
        await gate.reached()
        if row.told is Told.NOTHING:
            await asyncio.sleep(0)
            assert not sending.done()
        else:
            assert await sending is row.told
        assert machine.tries == 1 + row.opened
        assert shown(service) == place.size, "shown before it was stored"
        after = machine.after_power_cut(torn=bool(torn))
        gate.open()
        with suppress(PushbackError):
            await sending
    return after, expected


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize(("row", "event"), POWER_CUTS, ids=lambda value: str(value) or "at once")
async def test_power_cuts(path: Path, row: Row, event: str, place: Place) -> None:
    after, expected = await cut_power_while_sending(Machine(path, disk_of(place.size)), row, event, place)
    await require_new_service_works(after, expected)


@pytest.mark.parametrize("second", ["head", "head torn", "head written", "sign", "publish", "published"])
@pytest.mark.parametrize(("row", "event"), POWER_CUTS[:8], ids=lambda value: str(value) or "at once")
async def test_a_power_cut_while_the_log_comes_up_after_one(path: Path, row: Row, event: str, second: str) -> None:
    machine, expected = await cut_power_while_sending(Machine(path, disk_of(SPANNING.size)), row, event, SPANNING)
    second, torn, _ = second.partition(" torn")
    gate = machine.gate(second)
    service = machine.service()
    starting = asyncio.create_task(service.start())
    await gate.reached()
    after = machine.after_power_cut(torn=bool(torn))
    gate.open()
    await starting
    await service.stop(drain_ms=0)
    await require_new_service_works(after, expected)


@pytest.mark.parametrize(("row", "place"), everywhere(AT_START), ids=str)
async def test_at_the_start(path: Path, row: Row, place: Place) -> None:
    before, event = POWER_CUTS[1]
    assert event == "committed"
    machine, expected = await cut_power_while_sending(Machine(path, disk_of(place.size)), before, event, place)
    machine.faults = list(row.faults)
    while machine.faults:
        service = machine.service()
        with pytest.raises((StorageError, RuntimeError)):
            await service.start()
        assert service.mode is Mode.STOPPING
        require_all_closed(machine)
    assert machine.tries == row.opened
    await require_new_service_works(machine, expected)


@pytest.mark.parametrize("point", ["before the store is closed", "while the store is closed"])
async def test_a_stop_in_the_middle_of_a_recovery_leaves_nothing_open(path: Path, point: str) -> None:
    machine = Machine(path, disk_of(FIRST.size))
    async with machine.running() as service:
        machine.faults = [(Step.COMMIT, How.REFUSED)]
        commit, closed, before = machine.gate("commit"), machine.gate("close store"), Gate()
        sending = asyncio.create_task(service.append(FIRST.entries))
        await commit.reached()
        if point == "before the store is closed":
            closed.open()
            service._writer.submit(before.pass_through)  # the writer's thread has something else to do first
        commit.open()
        assert await tell(sending, at=0) is Told.UNKNOWN
        await (before.reached() if point == "before the store is closed" else closed.reached())
        await until(lambda: service._opening is None)  # the recovery waits for the writer's thread
        stopping = asyncio.create_task(service.stop(drain_ms=0))
        await until(lambda: service._task is not None and service._task.cancelling() > 0)
        for gate in (before, closed):
            gate.open()
        await stopping
    require_all_closed(machine)
