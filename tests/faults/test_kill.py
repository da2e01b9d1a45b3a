"""`translog serve` killed with SIGKILL at random moments under load, again and again on one directory.

By hand, for a long run: TRANSLOG_KILL_ROUNDS=1000 pytest tests/faults/test_kill.py -k killed -s. The moments are drawn from
TRANSLOG_SEED, which is printed; what the machine does until then is not in the seed's power, so it may take several turns.

Rules: as in killing.py. Most starts find the directory as the kill left it; after some rounds the stopped store is read, and
after fewer verified in full. A killed process leaves the page cache whole: what a power cut takes is another suite's business.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from log.check_log import Tree
from log.harness import World

from faults.killing import Life, drawn, rounds
from faults.observer import Batch, Observer, Violation, log_policies, verify_directory
from translog.bootstrap import create_log
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.note import sign_note
from translog.core.proof import Receipt, format_receipt, parse_receipt
from translog.core.wire import decode_base64
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import Profile, TreeState

ORIGIN = "log.example/killed"
ROUNDS = rounds(14)
WRITERS = 8
REQUESTS_MAX = 25
"""By one writer in one round: bounds how large the log grows."""


class Round(Life):
    """Writers append batches, and now and then one again whose outcome nobody knows."""

    observer: Observer

    def __init__(self, observer: Observer, random: Random, number: int, unknown: list[Batch]) -> None:
        super().__init__(observer, random, number, users=WRITERS, settings={})
        self.unknown = unknown

    def users(self, session: aiohttp.ClientSession) -> list[Coroutine[Any, Any, None]]:
        return [self._write(session, writer, Random(self.seeds[writer])) for writer in range(WRITERS)]

    async def _write(self, session: aiohttp.ClientSession, writer: int, random: Random) -> None:
        for request in range(REQUESTS_MAX):
            if self.unknown and random.random() < 0.05:
                batch = self.unknown.pop(random.randrange(len(self.unknown)))
            else:
                count = random.choice([1, 1, 1, 1, 2, 5])
                batch = tuple(b"%d.%d.%d.%d" % (self.number, writer, request, n) for n in range(count))
            self.observer.send(batch)
            try:
                await self._append(session, batch, random)
            except (aiohttp.ClientError, asyncio.CancelledError) as error:
                self.unknown.append(batch)
                if isinstance(error, asyncio.CancelledError):
                    raise
        await asyncio.Event().wait()

    async def _append(self, session: aiohttp.ClientSession, batch: Batch, random: Random) -> None:
        ack = random.choice(["durable", "published"])
        receipts = random.choice(["none", "index", "full"])
        if len(batch) == 1 and random.random() < 0.7:
            target, body, headers = f"/add?ack={ack}", batch[0], {}
        else:
            target, body = f"/v1/entries?ack={ack}&receipts={receipts}", b"\n".join(batch)
            headers = {"Content-Type": "application/x-ndjson"}
        async with session.post(target, data=body, headers=headers) as answer:
            if answer.status == 503:
                if (await answer.json(content_type=None))["code"] == "outcome-unknown":
                    self.unknown.append(batch)
                else:
                    self.observer.refuse(batch)
                return
            assert answer.status in (200, 202), await answer.text()
            said: Any = await answer.json(content_type=None)
        first = said if isinstance(said, int) else said["first"]
        self.observer.acknowledge(batch, first=first, published=answer.status == 200)
        self.happened("acknowledgement")
        if not isinstance(said, int) and said["checkpoint"] is not None:
            self._see_results(said)

    def _see_results(self, said: dict[str, Any]) -> None:
        note = said["checkpoint"].encode()
        self.observer.see_checkpoint(note)
        for result in said["results"]:
            if result["proof"] is not None:
                proof = tuple(map(decode_base64, result["proof"]))
                receipt = Receipt(index=result["index"], proof=proof, checkpoint=note)
                self.observer.see_receipt(format_receipt(receipt), index=result["index"])


def settle(directory: Path, observer: Observer, *, whole: bool) -> None:
    """Reads the stopped store, all of it if so, and holds it against what was seen."""
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        try:
            state = store.read_state()
            entries = store.read_entries(start=0 if whole else min(observer.size, state.size), end=state.size)
        finally:
            store.close()
    if whole:
        observer.settle_all(entries, state)
    else:
        observer.settle(entries, state)


async def test_a_log_that_is_killed_again_and_again_keeps_every_promise(tmp_path: Path) -> None:
    random, directory = drawn(), tmp_path / "log"
    observer = Observer(log_policies(create_log(directory, origin=ORIGIN, profile=Profile.OPAQUE)), origin=ORIGIN)
    unknown: list[Batch] = []
    for number in range(ROUNDS):
        life = Round(observer, random, number, unknown)
        print(life)  # noqa: T201
        await life.run(directory)
        if random.random() < 0.2:
            settle(directory, observer, whole=False)
        if number % 50 == 49:
            assert verify_directory(directory) >= observer.size
    settle(directory, observer, whole=True)
    assert verify_directory(directory) == observer.size
    print(  # noqa: T201
        f"{observer.size} entries, {observer.acknowledgements} acknowledgements, {observer.checkpoints} checkpoints, "
        f"{observer.receipts} receipts, {len(unknown)} outcomes unknown"
    )
    assert observer.acknowledgements > 2 * ROUNDS
    assert observer.checkpoints > ROUNDS
    assert observer.receipts


# --- the observer can go red ----------------------------------------------------------------------------------------------

SIGNERS = [SKey(name=ORIGIN, type=type_, seed=bytes(32)) for type_ in (KeyType.COSIGNATURE_MLDSA44, KeyType.ED25519)]
ENTRIES = [b"%d" % n for n in range(9)]


def make_note(
    size: int, *, entries: Sequence[bytes] = ENTRIES, signers: Sequence[SKey] = SIGNERS, origin: str = ORIGIN
) -> bytes:
    text = format_checkpoint(Checkpoint(origin=origin, size=size, root=Tree(entries).root(0, size)))
    return sign_note(text, [KeySigner(skey) for skey in signers], time_s=1_700_000_000)


def make_state(size: int, entries: Sequence[bytes] = ENTRIES) -> TreeState:
    return TreeState(size=size, root=Tree(entries).root(0, size), received_at_ms=0)


@pytest.fixture
def observer() -> Observer:
    """Has sent entries 0, 1, (2, 3), 4, (5, 6, 7), 8; knows 0 and (2, 3) to be committed and 4 to be refused."""
    observer = Observer(log_policies(skey.vkey for skey in SIGNERS), origin=ORIGIN)
    for first, end in ((0, 1), (1, 2), (2, 4), (4, 5), (5, 8), (8, 9)):
        observer.send(tuple(ENTRIES[first:end]))
    observer.acknowledge((b"0",), first=0, published=True)
    observer.acknowledge((b"2", b"3"), first=2, published=False)
    observer.refuse((b"4",))
    return observer


def test_the_observer_takes_what_is_right(observer: Observer) -> None:
    assert observer.floor == 1
    assert observer.see_checkpoint(make_note(1), floor=1) == 1
    assert observer.see_checkpoint(make_note(4), floor=1) == 4
    proof = (sha256(b"\x001").digest(),)
    observer.see_receipt(format_receipt(Receipt(index=0, proof=proof, checkpoint=make_note(2))), index=0)
    observer.settle(ENTRIES[:4], make_state(4))
    entries = [*ENTRIES[:4], *ENTRIES[5:8]]
    observer.settle(ENTRIES[5:8], make_state(7, entries))
    observer.acknowledge((b"5", b"6", b"7"), first=4, published=True)
    observer.settle_all(entries, make_state(7, entries))
    assert (observer.floor, observer.size, observer.checkpoints, observer.receipts) == (7, 7, 3, 1)


OTHER = [b"0", b"x", *ENTRIES[2:]]
FOREIGN = [SKey(name=ORIGIN, type=skey.type, seed=bytes([1]) * 32) for skey in SIGNERS]
Step = Callable[[Observer], object]
BROKEN: dict[str, tuple[str, *tuple[Step, ...]]] = {
    "a checkpoint by other keys": ("does not verify", lambda seen: seen.see_checkpoint(make_note(1, signers=FOREIGN))),
    "a checkpoint without one key": ("does not verify", lambda seen: seen.see_checkpoint(make_note(1, signers=SIGNERS[:1]))),
    "a checkpoint of two roots": (
        "different roots",
        lambda seen: seen.see_checkpoint(make_note(3)),
        lambda seen: seen.see_checkpoint(make_note(3, entries=OTHER)),
    ),
    "a forked checkpoint": (
        "of size 3 is of another history",
        lambda seen: seen.see_checkpoint(make_note(3, entries=OTHER)),
        lambda seen: seen.settle(ENTRIES[:4], make_state(4)),
    ),
    "a forked checkpoint afterwards": (
        "of size 3 is of another history",
        lambda seen: seen.settle(ENTRIES[:4], make_state(4)),
        lambda seen: seen.see_checkpoint(make_note(3, entries=OTHER)),
    ),
    "a checkpoint beyond the log": (
        "of size 5 was seen, the log has 4",
        lambda seen: seen.see_checkpoint(make_note(5)),
        lambda seen: seen.settle(ENTRIES[:4], make_state(4)),
    ),
    "a checkpoint that goes back": (
        "of size 3, after 4",
        lambda seen: seen.see_checkpoint(make_note(4), floor=1),
        lambda seen: seen.see_checkpoint(make_note(3), floor=4),
    ),
    "a checkpoint behind what was published": ("of size 0, after 1", lambda seen: seen.see_checkpoint(make_note(0), floor=1)),
    "one index twice": ("for two entries", lambda seen: seen.acknowledge((b"1",), first=3, published=False)),
    "a lost entry": ("index 2 is not there", lambda seen: seen.settle(ENTRIES[:2], make_state(2))),
    "an entry elsewhere": (
        "index 0 is not there",
        lambda seen: seen.settle([b"1", b"0", b"2", b"3"], make_state(4, [b"1", b"0", b"2", b"3"])),
    ),
    "a late acknowledgement of nothing": (
        "index 4 is not there",
        lambda seen: (
            [seen.settle(ENTRIES[:4], make_state(4)), seen.acknowledge((b"8",), first=4, published=False)]
            and seen.settle([], make_state(4))
        ),
    ),
    "a refused entry": ("refused 1", lambda seen: seen.settle(ENTRIES[:5], make_state(5))),
    "an entry twice": (
        r"at \[1, 4\], sent 1 times",
        lambda seen: seen.settle([*ENTRIES[:4], b"1"], make_state(5, [*ENTRIES[:4], b"1"])),
    ),
    "an entry nobody sent": ("none that was sent", lambda seen: seen.settle([b"0", b"x"], make_state(2, OTHER))),
    "half a batch": (
        "a part of a batch",
        lambda seen: seen.settle([*ENTRIES[:4], b"5", b"6"], make_state(6, [*ENTRIES[:4], b"5", b"6"])),
    ),
    "a log that shrank": (
        "had 4 entries, now it has 2",
        lambda seen: seen.settle(ENTRIES[:4], make_state(4)),
        lambda seen: seen.settle([], make_state(2)),
    ),
    "a root of something else": ("another history", lambda seen: seen.settle(ENTRIES[:4], make_state(4, OTHER))),
    "an entry changed later": (
        "entry 1 was changed",
        lambda seen: seen.settle(ENTRIES[:4], make_state(4)),
        lambda seen: seen.settle_all(OTHER[:4], make_state(4)),
    ),
    "a receipt for another index": (
        "does not verify",
        lambda seen: seen.see_receipt(
            format_receipt(Receipt(index=1, proof=(sha256(b"\x000").digest(),), checkpoint=make_note(2))), index=0
        ),
    ),
    "a receipt that is none": ("does not verify", lambda seen: seen.see_receipt(b"", index=0)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_observer_finds(observer: Observer, name: str) -> None:
    message, steps = BROKEN[name][0], BROKEN[name][1:]
    for step in steps[:-1]:
        step(observer)
    with pytest.raises(Violation, match=message):
        steps[-1](observer)


# --- what the rounds above have found -------------------------------------------------------------------------------------


async def test_a_receipt_of_a_published_entry_is_there_during_a_publication(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.settings = world.settings.model_copy(update={"keep_checkpoint_interval_ms": 60_000})
    service = world.service()
    await service.start()
    try:
        first = await service.append([b"0"])
        assert await service.wait_published(first.size, timeout_ms=10_000)
        reader = await service.read(lambda reader: reader)  # what a request has that came before the next publication
        second = await service.append([b"1"])
        assert await service.wait_published(second.size, timeout_ms=10_000)
        assert parse_receipt(reader.receipt(index=0)).index == 0
    finally:
        await service.stop(drain_ms=1_000)
