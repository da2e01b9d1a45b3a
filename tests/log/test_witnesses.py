"""Publication under a policy: at quorum, whoever is slow, dead or lying; rollback alarms; the quorum lost and back."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from log.check_log import kept_checkpoints
from log.harness import PATIENCE_S, POLICY, SKEY, Gate, World, until, until_open, until_published
from log.witnessing import FakeWitness, dead, forged_checkpoint, never, policy_of, stating, witnesses_of
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.note import Signature, parse_note, sign_note
from translog.core.policy import Policy, verify_checkpoint
from translog.core.proof import parse_receipt
from translog.errors import (
    HeldError,
    MalformedError,
    NotFoundError,
    OldSizeError,
    QuorumError,
    RemoteError,
    SignatureError,
    StorageError,
)
from translog.log.lifecycle import LogService, Mode
from translog.log.rounds import Round
from translog.log.settings import WithoutQuorum, WitnessingSettings
from translog.storage.memory import Fault, MemoryStore

FAST = WitnessingSettings().model_copy(
    update={"min_interval_ms": 0, "backoff_ms_max": 1, "request_timeout_ms": 300, "quorum_timeout_ms": 200}
)


class Witnessed:
    """A log with witnesses around it."""

    def __init__(self, path: Path, count: int, quorum: int, *, mldsa: bool = False, **settings: Any) -> None:
        self.world = World(path)
        self.settings = FAST.model_copy(update=settings)
        self.world.settings = self.world.settings.model_copy(update={"witnessing": self.settings})
        self.fakes = [FakeWitness(n, self.world.clock, mldsa=mldsa) for n in range(1, count + 1)]
        self.quorum = quorum
        self.executor: Any = None
        self.alarms: list[tuple[str, int, bool]] = []
        self.told: list[bool] = []

    @property
    def policy(self) -> Policy:
        return policy_of(self.fakes, self.quorum, log=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LogService]:
        witnesses, executor = witnesses_of(self.fakes, self.quorum, self.world.clock, self.settings)
        witnesses.on_ahead = lambda name, size, proven: self.alarms.append((name, size, proven))
        self.world.witnesses = witnesses
        service = self.world.service()
        service.on_quorum = self.told.append
        try:
            await service.start()
            yield service
        finally:
            for gate in self.world.gates.values():
                gate.open()
            await service.stop(drain_ms=0)
            executor.shutdown()

    def cosigners(self, note: bytes) -> list[str]:
        return [item.name for item in verify_checkpoint(note, self.policy).cosigned]


Make = Callable[..., Witnessed]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda *arguments, **settings: Witnessed(tmp_path, *arguments, **settings)


def note_of(service: LogService) -> bytes:
    assert service.published is not None
    return service.published.note


async def grow(service: LogService, count: int = 1) -> int:
    size = 0
    for _ in range(count):
        size = (await service.append([b"x"])).size
        await until_published(service, size)
    return size


async def test_what_is_published_has_the_quorum_that_the_policy_asks_for(make: Make) -> None:
    log = make(3, 3)
    async with log.running() as service:
        for size in range(1, 6):
            assert await grow(service) == size
            assert log.cosigners(note_of(service)) == ["w1a", "w2a", "w3a"]
    for fake in log.fakes:
        # One proof from the size before to the next, and none was asked for twice.
        assert [size for _, size in fake.asked] == sorted({size for _, size in fake.asked})
        assert fake.size == 5
    log.world.check()
    for kept in kept_checkpoints(MemoryStore(log.world.disk)):
        verify_checkpoint(kept.note, log.policy)


async def test_nothing_is_shown_or_stored_before_the_quorum_is_there(make: Make) -> None:
    log = make(2, 2)
    async with log.running() as service:
        gate = asyncio.Event()

        async def waits(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await gate.wait()
            return await log.fakes[1].honest(old, proof, note)

        log.fakes[1].answer = waits
        await service.append([b"x"])
        await until(lambda: log.fakes[0].size == 1)
        assert not await service.wait_published(1, timeout_ms=30)
        assert log.world.sizes("publish")[-1] == 0
        gate.set()
        await until_published(service, 1)


async def test_a_receipt_says_who_vouches(make: Make) -> None:
    log = make(3, 2, mldsa=True)
    async with log.running() as service:
        await grow(service, 3)
        receipt = parse_receipt(await service.read(lambda reader: reader.receipt(index=1)))
        verified = verify_checkpoint(receipt.checkpoint, log.policy)
        assert len({item.name[:2] for item in verified.cosigned}) >= 2
        assert {item.vkey.type.label for item in verified.cosigned} == {"Ed25519", "ML-DSA-44"}


@pytest.mark.parametrize("bad", [never, dead], ids=["hangs", "dead"])
async def test_a_witness_that_is_not_there_holds_up_nobody(make: Make, bad: Any) -> None:
    log = make(3, 2, request_timeout_ms=30_000, quorum_timeout_ms=500)
    log.fakes[0].answer = bad
    loop = asyncio.get_running_loop()
    async with log.running() as service:
        began = loop.time()
        await grow(service, 20)
        assert loop.time() - began < 5
        assert log.cosigners(note_of(service)) == ["w2a", "w3a"]


async def test_a_late_line_is_added_to_what_is_published(make: Make) -> None:
    log = make(3, 2)
    gate = asyncio.Event()

    async def late(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        await gate.wait()
        return await log.fakes[2].honest(old, proof, note)

    async with log.running() as service:
        await grow(service)
        log.fakes[2].answer = late
        await grow(service)
        signed = len(log.world.signed)
        assert "w3a" not in log.cosigners(note_of(service))
        gate.set()
        await until(lambda: "w3a" in log.cosigners(note_of(service)))
        assert len(log.world.signed) == signed, "a line that comes later is no reason to sign anew"
        kept = kept_checkpoints(log.world.opened[-1])[0]
        assert log.cosigners(kept.note) == ["w1a", "w2a", "w3a"]


def _with_payload(lines: tuple[Signature, ...], payload: bytes) -> tuple[Signature, ...]:
    return tuple(Signature(name=line.name, key_id=line.key_id, payload=payload) for line in lines)


LIES: dict[str, Callable[[Witnessed, str], tuple[Signature, ...]]] = {
    "another's line": lambda log, text: log.fakes[1].sign(text),
    "no line": lambda log, text: (),
    "a line that does not verify": lambda log, text: _with_payload(log.fakes[0].sign(text), bytes(8) + bytes(64)),
    "a line over another tree": lambda log, text: log.fakes[0].sign(text.replace("\n2\n", "\n3\n")),
    "a short line": lambda log, text: _with_payload(log.fakes[0].sign(text), b"x"),
    "its line under another name": lambda log, text: tuple(
        Signature(name="w1.example/x", key_id=line.key_id, payload=line.payload) for line in log.fakes[0].sign(text)
    ),
    "a time in the future": lambda log, text: log.fakes[0].sign(text, time_s=log.world.clock.wall // 1000 + 301),
    "the log's own line": lambda log, text: parse_note(forged_checkpoint(1, bytes(32))).signatures,
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_does_not_count_and_is_not_kept(make: Make, lie: str) -> None:
    log = make(3, 2)

    async def lies(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        return tuple(LIES[lie](log, parse_note(note).text))

    log.fakes[0].answer = lies
    async with log.running() as service:
        await grow(service, 2)
        await until(lambda: log.fakes[0].asked[-1][1] == 2)
        assert service.witnesses is not None
        await until(lambda: service.witnesses.status()[0].failure is not None)  # type: ignore[union-attr]
        note = note_of(service)
        assert log.cosigners(note) == ["w2a", "w3a"]
        assert len(parse_note(note).signatures) == 3, "the log's line, and a line of each who cosigned"


async def test_a_time_within_the_leeway_counts(make: Make) -> None:
    log = make(1, 1)

    async def ahead(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        await log.fakes[0].honest(old, proof, note)
        return log.fakes[0].sign(parse_note(note).text, time_s=log.world.clock.wall // 1000 + 300)

    log.fakes[0].answer = ahead
    async with log.running() as service:
        await grow(service)


async def test_unknown_lines_beside_good_ones_are_dropped(make: Make) -> None:
    log = make(2, 2)

    async def chatty(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        text = parse_note(note).text
        return (*log.fakes[1].sign(text), *await log.fakes[0].honest(old, proof, note), *log.fakes[0].sign(text))

    log.fakes[0].answer = chatty
    async with log.running() as service:
        await grow(service)
        names = [line.name for line in parse_note(note_of(service)).signatures]
        assert names == ["log.example/test", "w1.example/w", "w2.example/w"]


async def test_a_time_in_the_future_costs_that_line_and_not_the_one_of_its_other_key(make: Make) -> None:
    log = make(2, 1, mldsa=True)

    async def half(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        first, _ = await log.fakes[0].honest(old, proof, note)
        return first, log.fakes[0].sign(parse_note(note).text, time_s=log.world.clock.wall // 1000 + 301)[1]

    log.fakes[0].answer = half
    async with log.running() as service:
        await grow(service)
        await until(lambda: "w1a" in log.cosigners(note_of(service)))
        assert "w1b" not in log.cosigners(note_of(service))


async def test_a_witness_that_cosigns_with_one_of_its_keys_only_makes_no_quorum_and_the_operator_sees_why(make: Make) -> None:
    log = make(1, 1, mldsa=True)

    async def one(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        return (await log.fakes[0].honest(old, proof, note))[:1]

    log.fakes[0].answer = one
    async with log.running() as service:
        assert service.unwitnessed_since_ms is not None
        assert service.published is None
        assert service.witnesses is not None
        (status,) = service.witnesses.status()
        assert (status.failure, status.cosigned_size) == ("witness-no-line", 0)
        log.fakes[0].answer = log.fakes[0].honest
        await grow(service)
        assert service.witnesses.status()[0].failure is None


class TestAnotherSize:
    async def test_a_witness_that_is_behind_is_met_where_it_is(self, make: Make) -> None:
        log = make(2, 1)
        async with log.running() as service:
            await grow(service, 3)
            await until(lambda: log.fakes[0].size == 3)
            log.fakes[0].size, log.fakes[0].root = 0, bytes(32)  # it has lost its state, and begins anew
            log.fakes[0].asked.clear()
            await grow(service)
            await until(lambda: log.fakes[0].size == 4)
            assert log.fakes[0].asked == [(3, 4), (0, 4)]

    async def test_a_log_that_starts_anew_asks_where_its_witnesses_are(self, make: Make) -> None:
        log = make(2, 2)
        async with log.running() as service:
            await grow(service, 3)
        for fake in log.fakes:
            fake.asked.clear()
        async with log.running() as service:
            assert [fake.asked for fake in log.fakes] == [[(0, 3), (3, 3)]] * 2
            await grow(service)
        log.world.check()

    async def test_one_that_names_another_size_each_time_is_asked_twice_and_no_more(self, make: Make) -> None:
        log = make(2, 1, backoff_ms_max=60_000)
        sizes = iter(range(1, 1000))

        async def moves(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            raise OldSizeError("another size", size=next(sizes) % 3)

        async with log.running() as service:
            await grow(service, 4)
            await until(lambda: log.fakes[0].size == 4)
            log.fakes[0].answer = moves
            log.fakes[0].asked.clear()
            await grow(service)
            await until(lambda: len(log.fakes[0].asked) == 2)
            await asyncio.sleep(0.05)
            assert len(log.fakes[0].asked) == 2

    async def test_one_that_names_the_size_it_was_asked_from_is_not_asked_again(self, make: Make) -> None:
        log = make(2, 1, backoff_ms_max=60_000)
        async with log.running() as service:
            await grow(service, 2)
            await until(lambda: log.fakes[0].size == 2)
            log.fakes[0].answer = stating(2)
            log.fakes[0].asked.clear()
            await grow(service)
            await until(lambda: len(log.fakes[0].asked) == 1)
            await asyncio.sleep(0.05)
            assert log.fakes[0].asked == [(2, 3)]

    async def test_the_interval_counts_from_the_second_request(self, make: Make) -> None:
        log = make(1, 1, min_interval_ms=200)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].size, log.fakes[0].root = 0, bytes(32)

            async def slow_to_refuse(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
                if old:
                    await asyncio.sleep(0.1)
                return await log.fakes[0].honest(old, proof, note)

            log.fakes[0].answer = slow_to_refuse
            await grow(service, 2)
            first, second, third = log.fakes[0].asked_at_s[-3:]
            assert [old for old, _ in log.fakes[0].asked[-3:]] == [1, 0, 2]
            assert second - first < 0.19
            assert third - second >= 0.195


class TestRollback:
    async def test_at_the_start_any_word_of_a_larger_size_holds_the_log(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service, 2)
        log.fakes[2].answer = stating(7)
        signed = len(log.world.signed)
        async with log.running() as service:
            assert service.mode is Mode.HELD
            assert service.held is not None
            assert service.held.code == "witness-ahead"
            assert "w3" in service.held.detail
            assert service.held.hint
            with pytest.raises(HeldError):
                await service.append([b"x"])
            assert service.published is not None  # it serves on
        assert len(log.world.signed) == signed + 1, "nothing but what was signed before is signed anew"
        assert log.alarms == [("w3.example/w", 7, False)]

    async def test_at_the_start_a_word_holds_it_also_where_the_witness_shows_nothing(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service, 2)
        log.fakes[2].answer = stating(7)

        async def hangs(origin: str) -> bytes | None:
            await asyncio.Event().wait()
            raise AssertionError

        log.fakes[2].latest = hangs  # type: ignore[method-assign]
        async with log.running() as service:
            assert service.mode is Mode.HELD
            assert service.held is not None
            assert "states that it cosigned" in service.held.detail

    async def test_what_a_slow_witness_proves_holds_a_log_that_is_idle(self, make: Make) -> None:
        log = make(3, 2, request_timeout_ms=30_000)
        gate = asyncio.Event()

        async def slow(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await gate.wait()
            raise OldSizeError("another size", size=9)

        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = slow
            log.fakes[0].note = forged_checkpoint(9, bytes(32))
            await grow(service)
            gate.set()
            await until(lambda: service.mode is Mode.HELD)

    async def test_what_a_slow_witness_proves_ends_the_round_that_is_under_way(self, make: Make) -> None:
        log = make(3, 2, request_timeout_ms=30_000, quorum_timeout_ms=30_000, backoff_ms_max=60_000)
        gate, never_opened = asyncio.Event(), asyncio.Event()

        async def slow(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await gate.wait()
            raise OldSizeError("another size", size=9)

        async def waits(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await never_opened.wait()
            raise AssertionError

        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = slow
            log.fakes[0].note = forged_checkpoint(9, bytes(32))
            await grow(service)
            log.fakes[1].answer = waits
            await service.append([b"x"])
            await until(lambda: log.fakes[1].under_way == 1)
            gate.set()
            await until(lambda: service.mode is Mode.HELD)
            assert log.fakes[0].asked[-1] == (1, 2), "it was not asked a second time for that"
            assert service.published is not None
            assert service.published.size == 2

    async def test_one_that_states_another_size_each_time_makes_one_alarm(self, make: Make) -> None:
        log = make(3, 2)
        stated: list[int] = []

        async def lies(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            stated.append(100 + len(stated))
            raise OldSizeError("another size", size=stated[-1])

        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = lies
            await grow(service)
            await until(lambda: len(stated) > 5)
            assert log.alarms == [("w1.example/w", 100, False)]
            assert service.witnesses is not None
            assert (service.witnesses.status()[0].ahead or 0) > 100, "the newest is shown"

    async def test_at_the_start_every_witness_is_heard_however_often_another_is_asked(self, make: Make) -> None:
        log = make(3, 1)

        async def slow(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await asyncio.sleep(0.1)
            raise OldSizeError("another size", size=7)

        log.fakes[1].answer = dead
        log.fakes[2].answer = slow
        async with log.running() as service:
            assert len(log.fakes[1].asked) > 3
            assert service.mode is Mode.HELD

    async def test_a_word_is_an_alarm_once_more_when_it_is_proven(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = stating(9)
            await grow(service)
            await until(lambda: bool(log.alarms))
            log.fakes[0].note = forged_checkpoint(9, bytes(32))
            await until(lambda: service.mode is Mode.HELD)
            assert log.alarms == [("w1.example/w", 9, False), ("w1.example/w", 9, True)]

    async def test_a_size_that_was_signed_is_no_alarm_whatever_was_asked(self, make: Make) -> None:
        """A witness may work off a request that was given up after a later one."""
        log = make(3, 2, request_timeout_ms=30_000)
        gate = asyncio.Event()

        async def slow(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await gate.wait()
            log.fakes[0].answer = log.fakes[0].honest
            raise OldSizeError("another size", size=3)

        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = slow
            await grow(service, 2)
            assert log.fakes[0].asked[-1] == (1, 2)
            gate.set()
            await until(lambda: log.fakes[0].size == 3)
            assert not log.alarms

    async def test_one_that_cosigns_again_has_taken_its_word_back(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = stating(9)
            await grow(service)
            await until(lambda: bool(log.alarms))
            log.fakes[0].answer = log.fakes[0].honest
            await until(lambda: log.fakes[0].size == 2)
            assert service.witnesses is not None
            await until(lambda: service.witnesses.status()[0].failure is None)  # type: ignore[union-attr]
            assert service.witnesses.status()[0].ahead is None

    async def test_later_a_word_alone_holds_up_nobody(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = stating(2**62)
            await grow(service, 3)
            await until(lambda: bool(log.alarms))
            assert log.alarms == [("w1.example/w", 2**62, False)]
            assert service.mode is Mode.OPEN
            assert service.witnesses is not None
            assert [status.ahead for status in service.witnesses.status()] == [2**62, None, None]
            assert log.cosigners(note_of(service)) == ["w2a", "w3a"]

    async def test_a_word_that_comes_after_the_start_is_no_word_at_the_start(self, make: Make) -> None:
        log = make(3, 2, backoff_ms_max=60_000)
        gate = asyncio.Event()

        async def silent_at_first(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await gate.wait()
            raise OldSizeError("another size", size=2**62)

        log.fakes[0].answer = silent_at_first
        async with log.running() as service:
            gate.set()
            await until(lambda: bool(log.fakes[0].under_way == 0 and len(log.fakes[0].asked) >= 1))
            log.fakes[0].answer = stating(2**62)
            await grow(service, 2)
            await until(lambda: bool(log.alarms))
            await grow(service)
            assert service.mode is Mode.OPEN

    async def test_a_failed_write_makes_no_start(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = stating(2**62)
            log.world.disk.faults.append(("commit", Fault.REFUSED))
            with pytest.raises(StorageError):
                await service.append([b"x"])
            await until(lambda: len(log.world.opened) == 2)
            await until_open(service)
            await grow(service, 2)
            await until(lambda: bool(log.alarms))
            assert service.mode is Mode.OPEN

    async def test_a_checkpoint_with_the_logs_own_signature_holds_it_at_any_time(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].note = forged_checkpoint(9, bytes(32))
            log.fakes[0].answer = stating(9)
            await service.append([b"x"])
            await until(lambda: service.mode is Mode.HELD)
            assert service.held is not None
            assert service.held.code == "witness-ahead"
            assert ("w1.example/w", 9, True) in log.alarms

    @pytest.mark.parametrize(
        "shown",
        ["of another key", "of another log", "of a size that was signed", "of the size that was signed last", "garbage"],
    )
    async def test_what_proves_nothing_is_no_proof(self, make: Make, shown: str) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service)
            good = forged_checkpoint(9, bytes(32))
            elsewhere = format_checkpoint(Checkpoint(origin="log.example/other", size=9, root=bytes(32)))
            log.fakes[0].note = {
                "of another log": sign_note(elsewhere, [KeySigner(SKEY)], time_s=1),
                "of the size that was signed last": forged_checkpoint(2, bytes(32)),
                "of another key": good.replace(b"\n9\n", b"\n10\n"),
                "of a size that was signed": forged_checkpoint(1, bytes(32)),
                "garbage": b"\xff",
            }[shown]
            log.fakes[0].answer = stating(9)
            await grow(service, 3)
            await until(lambda: bool(log.alarms))
            assert log.alarms == [("w1.example/w", 9, False)]
            assert service.mode is Mode.OPEN


class TestFork:
    """A log that was rolled back, and has grown past what the witness saw before it reached it."""

    @staticmethod
    def refuses(log: Witnessed, size: int, root: bytes) -> None:
        log.fakes[0].note = forged_checkpoint(size, root)

        async def answer(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            raise RemoteError("another tree", status=422, code="witness-refused")

        log.fakes[0].answer = answer

    async def test_a_checkpoint_of_its_own_that_is_of_another_tree_holds_it(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service, 3)
            self.refuses(log, 2, bytes(32))
            await service.append([b"x"])
            await until(lambda: service.mode is Mode.HELD)
            assert service.held is not None
            assert service.held.code == "witness-fork"
            assert "of size 2" in service.held.detail

    async def test_one_of_the_same_size_does_so_too(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service, 2)
            self.refuses(log, 3, bytes(32))
            await service.append([b"x"])
            await until(lambda: service.mode is Mode.HELD)

    async def test_one_that_is_of_its_tree_proves_nothing(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service, 2)
            assert service.published is not None
            self.refuses(log, 2, service.published.root)
            await grow(service, 3)
            await until(lambda: service.witnesses.status()[0].failure == "witness-refused")  # type: ignore[union-attr]
            assert service.mode is Mode.OPEN

    async def test_one_of_another_key_proves_nothing(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service, 2)
            self.refuses(log, 2, bytes(32))
            assert log.fakes[0].note is not None
            log.fakes[0].note = log.fakes[0].note[:-4] + b"AA=\n"
            await grow(service, 3)
            await until(lambda: service.witnesses.status()[0].failure == "witness-refused")  # type: ignore[union-attr]
            assert service.mode is Mode.OPEN


class TestWithoutQuorum:
    async def test_a_log_holds_back_and_goes_on_taking_entries(self, make: Make) -> None:
        log = make(3, 2)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = log.fakes[1].answer = dead
            for _ in range(5):
                await service.append([b"x"])
            await until(lambda: service.unwitnessed_since_ms is not None)
            assert service.mode is Mode.OPEN
            assert service.integrated.size == 6
            assert service.published is not None
            assert (service.published.size, service.published.witnessed) == (1, True)
            assert len(await service.read_integrated(start=0, end=6)) == 6  # what the log's own followers see
            assert not await service.wait_published(2, timeout_ms=10)
            log.fakes[0].answer = log.fakes[0].honest
            await until_published(service, 6)
            await until(lambda: log.told == [False, True])
            assert service.unwitnessed_since_ms is None
        log.world.check()

    async def test_an_idle_log_that_lost_its_quorum_tells_when_it_is_back(
        self, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = make(1, 1)
        log.world.settings = log.world.settings.model_copy(update={"idle_sign_interval_ms": 100})
        async with log.running() as service:
            size = await grow(service)
            log.fakes[0].answer = dead

            def told(reached: bool) -> None:
                log.told.append(reached)
                monkeypatch.setitem(vars(service.settings), "idle_sign_interval_ms", 600_000)  # idleness helps no more

            service.on_quorum = told
            await until(lambda: log.told == [False])
            log.fakes[0].answer = log.fakes[0].honest
            await until(lambda: log.told == [False, True])
            assert service.unwitnessed_since_ms is None
            assert service.integrated.size == size

    async def test_witnesses_out_of_step_are_asked_for_the_same_checkpoint_again(self, make: Make) -> None:
        """Where a round is shorter than the interval: whoever was asked for one that was given up could not be asked for the
        next in time, for ever."""
        log = make(2, 2, min_interval_ms=400, quorum_timeout_ms=200)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = dead
            await service.append([b"x"])
            await until(lambda: service.unwitnessed_since_ms is not None)
            log.fakes[0].answer = log.fakes[0].honest
            assert await service.wait_published(2, timeout_ms=3_000)

    async def test_a_new_log_without_quorum_takes_entries_and_shows_nothing(self, make: Make) -> None:
        log = make(1, 1)
        log.fakes[0].answer = dead
        async with log.running() as service:
            await service.append([b"x"])
            assert service.mode is Mode.OPEN
            assert service.published is None
            log.fakes[0].answer = log.fakes[0].honest
            await until_published(service, 1)

    async def test_published_all_the_same_it_is_marked_and_gives_no_receipts(self, make: Make) -> None:
        log = make(3, 2, without_quorum=WithoutQuorum.PUBLISH)
        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = log.fakes[1].answer = dead
            await service.append([b"x"])
            await until(lambda: service.published is not None and service.published.size == 2)
            assert service.published is not None
            assert not service.published.witnessed
            assert not await service.wait_published(2, timeout_ms=10), "who waits for a receipt waits for the quorum"
            with pytest.raises(NotFoundError) as refused:
                await service.read(lambda reader: reader.receipt(index=1))
            assert refused.value.code == "not-witnessed"
            with pytest.raises(NotFoundError):
                await service.read(lambda reader: reader.receipts(first=1, count=1))
            parse_receipt(await service.read(lambda reader: reader.receipt(index=0)))
            with pytest.raises(QuorumError):
                verify_checkpoint(note_of(service), log.policy)
            assert [kept.size for kept in kept_checkpoints(log.world.opened[-1])] == [1, 0]
            log.fakes[0].answer = log.fakes[0].honest
            await until_published(service, 2)
            parse_receipt(await service.read(lambda reader: reader.receipt(index=1)))
        log.world.check()

    async def test_without_quorum_nobody_waits_for_it_again_and_again(self, make: Make) -> None:
        log = make(1, 1, without_quorum=WithoutQuorum.PUBLISH, quorum_timeout_ms=60_000, request_timeout_ms=100)
        log.fakes[0].answer = dead
        async with log.running() as service:  # the start waited for the first answer, and saw that there is no quorum
            await service.append([b"x"])
            await until(lambda: service.published is not None and service.published.size == 1)

    async def test_what_has_its_quorum_is_not_replaced_by_the_same_without(self, make: Make) -> None:
        log = make(1, 1, without_quorum=WithoutQuorum.PUBLISH)
        log.world.settings = log.world.settings.model_copy(update={"idle_sign_interval_ms": 1})
        async with log.running() as service:
            await grow(service)
            log.fakes[0].answer = dead
            await until(lambda: service.unwitnessed_since_ms is not None)
            await asyncio.sleep(0.05)
            assert service.published is not None
            assert service.published.witnessed
            log.cosigners(note_of(service))

    async def test_after_a_restart_it_is_known_which_checkpoint_has_its_quorum(self, make: Make) -> None:
        log = make(1, 1, without_quorum=WithoutQuorum.PUBLISH)
        async with log.running() as service:
            await grow(service)
        log.fakes[0].answer = dead
        async with log.running() as service:
            assert service.published is not None
            assert service.published.witnessed
            await service.append([b"x"])
            await until(lambda: service.published is not None and service.published.size == 2)
        async with log.running() as service:
            assert service.published is not None
            assert (service.published.size, service.published.witnessed) == (2, False)
            with pytest.raises(NotFoundError):
                await service.read(lambda reader: reader.receipt(index=1))


async def test_what_was_published_is_durable_since_the_next_start_may_have_no_quorum_to_sign_anew(make: Make) -> None:
    log = make(1, 1)
    async with log.running() as service:
        await grow(service, 2)
        log.world.opened[-1].crash()
    log.fakes[0].answer = dead
    async with log.running() as service:
        assert service.published is not None
        assert (service.published.size, service.published.witnessed) == (2, True)


async def test_no_witness_is_asked_more_often_than_the_interval_allows(make: Make) -> None:
    log = make(2, 2, min_interval_ms=150, quorum_timeout_ms=5_000)
    async with log.running() as service:
        await grow(service, 4)
    for fake in log.fakes:
        gaps = [later - earlier for earlier, later in zip(fake.asked_at_s, fake.asked_at_s[1:], strict=False)]
        assert min(gaps) >= 0.145


async def test_under_load_nothing_waits_longer_than_an_interval_and_an_answer(make: Make) -> None:
    """What is signed before the witnesses may be asked grows old while it waits for them."""
    log = make(3, 2, min_interval_ms=400, quorum_timeout_ms=5_000)
    loop = asyncio.get_running_loop()
    async with log.running() as service:
        waited: list[float] = []

        async def append(after_s: float) -> None:
            await asyncio.sleep(after_s)
            began = loop.time()
            size = (await service.append([b"x"])).size
            await until_published(service, size)
            waited.append(loop.time() - began)

        await asyncio.gather(*(append(n / 50) for n in range(80)))
        assert max(waited) < 0.4 + 0.25
        assert len(waited) == 80


async def test_lines_that_come_late_are_stored_together(make: Make) -> None:
    log = make(5, 1)
    gate = asyncio.Event()

    def late(fake: FakeWitness) -> None:
        async def answer(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await gate.wait()
            return await fake.honest(old, proof, note)

        fake.answer = answer

    async with log.running() as service:
        await grow(service)
        await until(lambda: len(log.cosigners(note_of(service))) == 5)
        for fake in log.fakes[1:]:
            late(fake)
        await grow(service)
        stored = len(log.world.sizes("publish"))
        gate.set()
        await until(lambda: len(log.cosigners(note_of(service))) == 5)
        assert len(log.world.sizes("publish")) == stored + 1


async def test_a_witness_that_was_busy_is_asked_for_the_newest_next(make: Make) -> None:
    log = make(3, 2, request_timeout_ms=30_000)
    gate = asyncio.Event()

    async def slow(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        await gate.wait()
        return await log.fakes[0].honest(old, proof, note)

    async with log.running() as service:
        await grow(service)
        log.fakes[0].answer = slow
        log.fakes[0].asked.clear()
        await grow(service, 3)
        gate.set()
        await until(lambda: log.fakes[0].size == 4)
        assert log.fakes[0].asked == [(1, 2), (2, 4)]


async def test_a_witness_that_fails_is_asked_less_often_and_after_the_wait_that_it_asks_for(make: Make) -> None:
    log = make(2, 1, backoff_ms_max=60_000)
    waits_ms = iter([None, 900])

    async def busy(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        if (wait_ms := next(waits_ms, 0)) == 0:
            return await log.fakes[0].honest(old, proof, note)
        raise RemoteError("not now", code="witness-pushback", retry_after_ms=wait_ms)

    async with log.running() as service:
        await grow(service)
        await until(lambda: log.fakes[0].size == 1)
        log.fakes[0].answer = busy
        log.fakes[0].asked_at_s.clear()
        await grow(service)
        await until(lambda: log.fakes[0].size == 2)
        gaps = [later - earlier for earlier, later in zip(log.fakes[0].asked_at_s, log.fakes[0].asked_at_s[1:], strict=False)]
        assert [gap > least for gap, least in zip(gaps, [0.24, 0.89], strict=True)] == [True] * 2
        began = asyncio.get_running_loop().time()
        await grow(service)
        await until(lambda: log.fakes[0].size == 3)
        assert asyncio.get_running_loop().time() - began < 0.7, "once it cosigns, it is asked at once again"


async def test_a_witness_whose_client_never_ends_is_given_up(make: Make) -> None:
    log = make(2, 1, request_timeout_ms=100)
    async with log.running() as service:
        log.fakes[0].answer = never
        await grow(service)
        await until(lambda: service.witnesses.status()[0].failure == "witness-timeout")  # type: ignore[union-attr]
        log.fakes[0].answer = log.fakes[0].honest
        await until(lambda: log.fakes[0].size == 1)


async def test_a_defect_in_asking_ends_nothing(make: Make) -> None:
    log = make(2, 2)

    async def broken(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        raise RuntimeError("boom")

    async with log.running() as service:
        log.fakes[0].answer = broken
        await service.append([b"x"])
        await until(lambda: service.witnesses.status()[0].failure == "witness-defect")  # type: ignore[union-attr]
        log.fakes[0].answer = log.fakes[0].honest
        await until_published(service, 1)


async def test_publications_keep_their_interval_and_one_after_a_pause_does_not_wait(make: Make) -> None:
    log = make(1, 1)
    log.world.settings = log.world.settings.model_copy(update={"publish_interval_ms": 200})
    loop = asyncio.get_running_loop()
    async with log.running() as service:
        await asyncio.sleep(0.21)
        began = loop.time()
        await grow(service)
        assert loop.time() - began < 0.15, "an idle log publishes at once"
        await grow(service, 2)
        assert loop.time() - began >= 0.39


async def test_signing_anew_on_request_is_kept_and_waited_for(make: Make) -> None:
    log = make(1, 1)
    log.world.settings = log.world.settings.model_copy(update={"keep_checkpoint_interval_ms": 10_000_000})
    async with log.running() as service:
        await grow(service)
        signed = len(log.world.signed)
        assert await service.publish_anew(timeout_ms=PATIENCE_S * 1000)
        assert len(log.world.signed) == signed + 1
        assert [kept.size for kept in kept_checkpoints(log.world.opened[-1])] == [1, 0]
        log.fakes[0].answer = dead
        assert not await service.publish_anew(timeout_ms=50)


async def test_what_nobody_adds_to_is_stored_once(make: Make) -> None:
    log = make(2, 2)
    async with log.running() as service:
        await grow(service, 5)
    assert log.world.sizes("publish") == [0, 1, 2, 3, 4, 5]


async def test_lines_that_come_one_after_another_are_all_added(make: Make) -> None:
    log = make(3, 1)
    gates = [asyncio.Event() for _ in log.fakes]
    gates[0].set()

    def late(n: int) -> Any:
        async def answer(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
            await gates[n].wait()
            return await log.fakes[n].honest(old, proof, note)

        return answer

    async with log.running() as service:
        for n, fake in enumerate(log.fakes):
            fake.answer = late(n)
        await grow(service)
        for n, gate in enumerate(gates):
            gate.set()
            await until(lambda n=n: len(log.cosigners(note_of(service))) == n + 1)  # type: ignore[misc]


async def test_a_stop_while_a_proof_is_made_leaves_nothing_behind(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    log = make(1, 1)
    async with log.running() as service:
        await grow(service, 2)
        gate = Gate()
        store = log.world.opened[-1]

        def broken(*_: Any, **__: Any) -> Any:
            gate.pass_through()
            raise StorageError("closed")

        store.read_tiles = broken  # type: ignore[method-assign]
        await service.append([b"x"])
        await gate.reached()
        stopping = asyncio.create_task(service.stop(drain_ms=0))
        await asyncio.sleep(0.05)
        gate.open()
        await stopping
    del log, service, store, broken, stopping
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_what_fails_while_a_proof_is_made_is_no_fault_of_the_witness(make: Make) -> None:
    log = make(1, 1)
    async with log.running() as service:
        await grow(service, 2)
        store = log.world.opened[-1]

        def broken(*_: Any, **__: Any) -> Any:
            raise MalformedError("boom")

        store.read_tiles = broken  # type: ignore[method-assign]
        await service.append([b"x"])
        await until(lambda: service.mode is Mode.HELD)
        assert service.witnesses is not None
        assert service.witnesses.status()[0].failure is None


async def test_a_round_takes_lines_after_its_end_and_tells(make: Make) -> None:
    log = make(2, 1)
    note = forged_checkpoint(1, bytes(32))

    async def prove(old: int) -> list[bytes]:
        return []

    offered = Round(note, size=1, policy=log.policy, endpoints=2, prove=prove)
    assert not await offered.wait(timeout_ms=1, all_asked=False)
    told: list[int] = []
    (line,) = log.fakes[1].sign(offered.text)
    offered.take({"w2a": line})
    assert await offered.wait(timeout_ms=1, all_asked=False)
    assert not await asyncio.wait_for(_still_waits(offered), 1)
    offered.late = lambda: told.append(1)
    offered.take({"w2a": line})
    assert not told
    offered.take({"w1a": log.fakes[0].sign(offered.text)[0]})
    assert told == [1]
    assert [item.name for item in parse_note(offered.note).signatures] == ["log.example/test", "w1.example/w", "w2.example/w"]


async def _still_waits(offered: Round) -> bool:
    """Whether waiting for everybody ends before its time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await offered.wait(timeout_ms=30, all_asked=True)
    return loop.time() - began < 0.02


def test_a_policy_without_witnesses_that_cosigned_is_not_accepted(make: Make) -> None:
    with pytest.raises(SignatureError):
        verify_checkpoint(forged_checkpoint(1, bytes(32)).replace(b"\n1\n", b"\n2\n"), POLICY)


async def test_signing_anew_is_not_waited_for_once_the_log_cannot(make: Make) -> None:
    log = make(1, 1)
    async with log.running() as service:
        await grow(service)
        log.fakes[0].answer = never
        waiting = asyncio.create_task(service.publish_anew(timeout_ms=60_000))
        await asyncio.sleep(0.01)
        log.world.disk.faults.append(("commit", Fault.REFUSED))
        with pytest.raises(StorageError):
            await service.append([b"x"])
        async with asyncio.timeout(PATIENCE_S):
            assert not await waiting


async def test_a_stop_does_not_wait_for_a_quorum_that_is_lost(make: Make) -> None:
    log = make(1, 1, quorum_timeout_ms=300)
    async with log.running() as service:
        await grow(service)
        log.fakes[0].answer = dead
        await service.append([b"x"])
        loop = asyncio.get_running_loop()
        began = loop.time()
        await service.stop(drain_ms=30_000)
        assert loop.time() - began < 5


@pytest.mark.parametrize(
    "settings",
    [
        {"min_interval_ms": 10_000},
        {"min_interval_ms": 60_000, "quorum_timeout_ms": 60_000},
        {"min_interval_ms": 5_000, "without_quorum": "publish"},
        {"backoff_ms_max": 99},
    ],
)
def test_settings_that_would_never_publish_are_refused(settings: dict[str, Any]) -> None:
    WitnessingSettings.model_validate({"min_interval_ms": 4_999, "without_quorum": "publish"})
    with pytest.raises(ValidationError):
        WitnessingSettings.model_validate(settings)


async def test_witnesses_that_are_never_free_at_once_do_not_put_off_publication(make: Make) -> None:
    """One that fails for an older checkpoint is asked again as soon as it may be, so it is never seen free."""
    log = make(2, 2)
    loop = asyncio.get_running_loop()
    async with log.running() as service:
        await grow(service)
        assert service.witnesses is not None
        service.witnesses.free_at_s = lambda: loop.time() + 0.15  # type: ignore[method-assign]
        await grow(service, 2)


async def test_a_log_that_is_opened_anew_takes_entries_before_its_witnesses_have_answered(make: Make) -> None:
    log = make(1, 1, request_timeout_ms=120_000, quorum_timeout_ms=120_000)
    async with log.running() as service:
        await grow(service)
        log.fakes[0].answer = never
        log.world.disk.faults.append(("commit", Fault.REFUSED))
        with pytest.raises(StorageError):
            await service.append([b"x"])
        await until(lambda: len(log.world.opened) == 2)
        await until_open(service)
        assert (await service.append([b"x"])).size == 2
