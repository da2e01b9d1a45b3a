"""Changing a log's keys: what is asked before, what becomes of one that is cut off anywhere, and who may not."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from log.harness import ORIGIN, SKEY, World, until
from log.witnessing import FakeWitness, dead, policy_of
from translog.core.cosignature import KeySigner
from translog.core.keys import SIGNATURE_BYTES, KeyType, SKey, VKey
from translog.core.note import Signature, format_note, parse_note
from translog.errors import (
    ConflictError,
    NotFoundError,
    PermissionDeniedError,
    PushbackError,
    StorageError,
    TranslogError,
)
from translog.events.jsontext import compact
from translog.events.keychain import Action, KeyChain, Role, parse_key_change, sign_key_change
from translog.log import keyfiles, rotation
from translog.log.follower import Follower
from translog.log.keyfiles import list_key_files, read_first_vkeys, read_log_keys, write_skey
from translog.log.keyledger import KeyLedger
from translog.log.lifecycle import LogService
from translog.log.metrics import LogMetrics
from translog.log.rotation import KeyRotation
from translog.log.settings import WitnessingSettings
from translog.log.witnesses import Endpoint, Witnesses

MLDSA = SKey(name=ORIGIN, type=KeyType.COSIGNATURE_MLDSA44, seed=bytes([9]) * 32)
BOTH = {KeyType.COSIGNATURE_MLDSA44, KeyType.ED25519}


class CutError(Exception):
    """The process is gone."""


class Rotating:
    """A log in memory with its key files, whose process may go and come again."""

    def __init__(self, path: Path, *, types: set[KeyType] = BOTH, **settings: Any) -> None:
        self.world = World(path, **settings)
        self.keys = path / "keys"
        self.state = path / "state" / "keys.json"
        self.types = types
        self.seeds = iter(range(20, 200))
        self.committed: list[tuple[Action, str, str]] = []
        self.before_commit: Callable[[], None] = lambda: None
        self.after_commit: Callable[[], None] = lambda: None
        self.publish_timeout_ms = 10_000
        self.keys.mkdir(mode=0o700)
        for skey, name in ((MLDSA, "log-mldsa44.skey"), (SKEY, "log-ed25519.skey")):
            write_skey(self.keys / name, skey)

    def forget_state(self) -> None:
        self.state.unlink()

    @asynccontextmanager
    async def running(self, *, wait: bool = True) -> AsyncIterator[tuple[LogService, KeyRotation]]:
        service = self.world.service()
        service.use_signers([KeySigner(skey) for skey in read_log_keys(self.keys, origin=ORIGIN, types=self.types)])
        await service.start()
        first = read_first_vkeys(self.keys, origin=ORIGIN)
        ledger = KeyLedger(self.state, origin=ORIGIN, first=first, size=service.integrated.size)

        async def commit(entry: bytes, action: Action, vkey: VKey, operator: str) -> None:
            self.before_commit()
            await service.append([entry])
            self.committed.append((action, vkey.key_id.hex(), operator))
            self.after_commit()

        rotating = KeyRotation(
            service,
            ledger,
            directory=self.keys,
            types=self.types,
            commit=commit,
            random_bytes=lambda size: bytes([next(self.seeds)]) * size,
            publish_timeout_ms=self.publish_timeout_ms,
        )
        tasks = [asyncio.create_task(work) for work in (Follower(service, ledger).run(), rotating.run())]
        try:
            if wait:
                await until(lambda: rotating._is_ready)
            yield service, rotating
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await service.stop(drain_ms=0)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.keys.iterdir())

    def private(self) -> set[VKey]:
        return {file.read_vkey() for file in list_key_files(self.keys) if file.form == "skey"}

    async def require_sound(self, service: LogService, rotating: KeyRotation) -> None:
        """Account, key files, signers and the published checkpoint agree, and the log's keys can still be changed."""
        chain = rotating.ledger.chain
        assert set(chain.active) == self.private()
        assert not [name for name in self.files() if name.endswith(".new")]
        await until(lambda: signed_by(service) == {vkey.key_id for vkey in chain.active})
        added = await rotating.add(KeyType.ED25519, operator="later")
        assert (await rotating.retire(added.vkey.key_id.hex(), operator="later")).number == chain.number + 2
        assert set(rotating.ledger.chain.active) == set(chain.active) == self.private()


def signed_by(service: LogService) -> set[bytes]:
    """The keys whose lines the published checkpoint has."""
    assert service.published is not None
    return {line.key_id for line in parse_note(service.published.note).signatures}


def ids(*keys: VKey | SKey) -> set[bytes]:
    return {key.key_id if isinstance(key, VKey) else key.vkey.key_id for key in keys}


@pytest.fixture
def log(tmp_path: Path) -> Rotating:
    return Rotating(tmp_path)


async def refusal(work: Any) -> TranslogError:
    with pytest.raises(TranslogError) as caught:
        await work
    return caught.value


async def test_a_key_is_added_and_both_sign(log: Rotating) -> None:
    async with log.running() as (service, rotating):
        await service.append([b"a"])
        changed = await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
        assert (changed.number, changed.index, changed.published) == (1, 1, True)
        assert signed_by(service) == ids(MLDSA, SKEY, changed.vkey)
        assert log.committed == [(Action.ADD, changed.vkey.key_id.hex(), "alice")]
        kept = await service.read(lambda reader: reader.kept_checkpoints(start=2, note_bytes_max=1_000_000))
        assert {line.key_id for line in parse_note(kept[-1].note).signatures} == ids(MLDSA, SKEY, changed.vkey)
    assert f"log-mldsa44-{changed.vkey.key_id.hex()}.skey" in log.files()
    async with log.running() as (service, rotating):
        assert signed_by(service) == ids(MLDSA, SKEY, changed.vkey)
        await log.require_sound(service, rotating)


async def test_the_old_one_is_retired_and_signs_no_more(log: Rotating) -> None:
    async with log.running() as (service, rotating):
        added = await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
        retired = await rotating.retire(MLDSA.vkey.key_id.hex(), operator="bob")
        assert (retired.vkey, retired.number, retired.published) == (MLDSA.vkey, 2, True)
        assert signed_by(service) == ids(SKEY, added.vkey)
        assert log.committed[1] == (Action.RETIRE, MLDSA.vkey.key_id.hex(), "bob")
    assert log.files() == sorted(["log-ed25519.skey", f"log-mldsa44-{added.vkey.key_id.hex()}.skey", "log-mldsa44.vkey"])
    async with log.running() as (service, rotating):
        assert signed_by(service) == ids(SKEY, added.vkey)
        assert rotating.ledger.chain.retired == (MLDSA.vkey,)
        await log.require_sound(service, rotating)


async def test_the_account_may_be_lost(log: Rotating) -> None:
    async with log.running() as (service, rotating):
        await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
        await rotating.retire(MLDSA.vkey.key_id.hex(), operator="bob")
        before = rotating.ledger
    log.forget_state()
    async with log.running() as (service, rotating):
        assert rotating.ledger == before
        await log.require_sound(service, rotating)


# Cut off anywhere


def cutting(patched: pytest.MonkeyPatch, module: Any, name: str, *, after: bool) -> None:
    """The process goes before or after that function."""
    whole = getattr(module, name)

    def cut(*args: Any, **kwargs: Any) -> Any:
        if after:
            whole(*args, **kwargs)
        raise CutError

    patched.setattr(module, name, cut)


def cut_commit(log: Rotating, *, after: bool) -> None:
    def cut() -> None:
        raise CutError

    if after:
        log.after_commit = cut
    else:
        log.before_commit = cut


async def _publish_cut(self: LogService, *, timeout_ms: int) -> bool:
    raise CutError


Cutter = Callable[[pytest.MonkeyPatch, Rotating], None]
ADD_CUTS: dict[str, tuple[Cutter, bool]] = {
    "before the file": (lambda patched, log: cutting(patched, rotation, "write_new_key", after=False), False),
    "after the file": (lambda patched, log: cutting(patched, rotation, "write_new_key", after=True), False),
    "before signing": (lambda patched, log: cutting(patched, rotation, "sign_key_change", after=False), False),
    "before the commit": (lambda patched, log: cut_commit(log, after=False), False),
    "after the commit": (lambda patched, log: cut_commit(log, after=True), True),
    "before the renaming": (lambda patched, log: cutting(patched, rotation, "admit_key", after=False), True),
    "after the renaming": (lambda patched, log: cutting(patched, rotation, "admit_key", after=True), True),
    "before it signs": (lambda patched, log: cutting(patched, LogService, "use_signers", after=False), True),
    "after it may sign": (lambda patched, log: cutting(patched, LogService, "use_signers", after=True), True),
    "before the checkpoint": (lambda patched, log: patched.setattr(LogService, "publish_anew", _publish_cut), True),
}


@pytest.mark.parametrize("state_lost", [False, True])
@pytest.mark.parametrize("where", ADD_CUTS)
async def test_an_addition_that_is_cut_off_is_finished_or_dropped(
    log: Rotating, monkeypatch: pytest.MonkeyPatch, where: str, state_lost: bool
) -> None:
    cut, is_done = ADD_CUTS[where]
    async with log.running() as (service, rotating):
        with monkeypatch.context() as patched:
            cut(patched, log)
            # Whoever else puts the keys in order is cut off with it.
            patched.setattr(KeyRotation, "_settle", KeyRotation._settle)
            with pytest.raises(CutError):
                await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
            await asyncio.sleep(0)
    log.before_commit = log.after_commit = lambda: None
    if state_lost and log.state.exists():  # a test
        log.forget_state()
    async with log.running() as (service, rotating):
        chain = rotating.ledger.chain
        assert chain.number == (1 if is_done else 0)
        assert len(log.private()) == (3 if is_done else 2)
        await log.require_sound(service, rotating)


async def test_a_file_of_a_new_key_that_is_torn_is_dropped(log: Rotating) -> None:
    path = log.keys / "log-mldsa44-12345678.skey.new"
    path.write_text("PRIVATE+KEY+log")
    async with log.running() as (service, rotating):
        await log.require_sound(service, rotating)


RETIRE_CUTS: dict[str, tuple[Cutter, bool]] = {
    "before the commit": (lambda patched, log: cut_commit(log, after=False), False),
    "after the commit": (lambda patched, log: cut_commit(log, after=True), True),
    "before the file": (lambda patched, log: cutting(patched, rotation, "discard_private_key", after=False), True),
    "between the two files": (lambda patched, log: cutting(patched, keyfiles, "write_file", after=True), True),
    "after the file": (lambda patched, log: cutting(patched, rotation, "discard_private_key", after=True), True),
    "before others sign": (lambda patched, log: cutting(patched, LogService, "use_signers", after=False), True),
    "after others may sign": (lambda patched, log: cutting(patched, LogService, "use_signers", after=True), True),
    "before the checkpoint": (lambda patched, log: patched.setattr(LogService, "publish_anew", _publish_cut), True),
}


@pytest.mark.parametrize("state_lost", [False, True])
@pytest.mark.parametrize("where", RETIRE_CUTS)
async def test_a_retirement_that_is_cut_off_is_finished_or_never_was(
    log: Rotating, monkeypatch: pytest.MonkeyPatch, where: str, state_lost: bool
) -> None:
    cut, is_done = RETIRE_CUTS[where]
    async with log.running() as (service, rotating):
        added = await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
        with monkeypatch.context() as patched:
            cut(patched, log)
            with pytest.raises(CutError):
                await rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice")
    log.before_commit = log.after_commit = lambda: None
    if state_lost:
        log.forget_state()
    async with log.running() as (service, rotating):
        assert rotating.ledger.chain.retired == ((MLDSA.vkey,) if is_done else ())
        assert (MLDSA.vkey in log.private()) is not is_done
        assert added.vkey in log.private()
        await log.require_sound(service, rotating)


async def test_an_addition_of_unknown_outcome_is_taken_up_when_it_is_seen(log: Rotating) -> None:
    def unknown() -> None:
        raise StorageError("nobody knows", code="outcome-unknown")

    log.after_commit = unknown
    async with log.running() as (service, rotating):
        assert (await refusal(rotating.add(KeyType.ED25519, operator="alice"))).code == "outcome-unknown"
        await until(lambda: len(log.private()) == 3)
        log.after_commit = lambda: None
        await log.require_sound(service, rotating)


async def test_an_addition_that_was_not_committed_leaves_nothing(log: Rotating) -> None:
    def full() -> None:
        raise PushbackError("full", code="pool-full", retry_after_ms=1)

    log.before_commit = full
    async with log.running() as (service, rotating):
        assert (await refusal(rotating.add(KeyType.ED25519, operator="alice"))).code == "pool-full"
        assert log.files() == ["log-ed25519.skey", "log-mldsa44.skey"]
        log.before_commit = lambda: None
        await log.require_sound(service, rotating)


# What is refused


async def test_the_last_key_of_its_type_stays(log: Rotating) -> None:
    async with log.running() as (_, rotating):
        error = await refusal(rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice"))
        assert isinstance(error, ConflictError)
        assert error.code == "last-key"
        assert "translog keys add" in error.hint
        await rotating.add(KeyType.ED25519, operator="alice")
        assert (await refusal(rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice"))).code == "last-key"
        assert log.committed == [(Action.ADD, log.committed[0][1], "alice")]


async def test_a_key_of_a_type_that_does_not_sign_may_go(tmp_path: Path) -> None:
    log = Rotating(tmp_path, types={KeyType.COSIGNATURE_MLDSA44})
    async with log.running() as (_, rotating):
        assert (await refusal(rotating.add(KeyType.ED25519, operator="alice"))).code == "key-type-off"
        assert (await rotating.retire(SKEY.vkey.key_id.hex(), operator="alice")).number == 1
    assert log.files() == ["log-ed25519.vkey", "log-mldsa44.skey"]


async def test_unknown_and_retired_keys_are_named(log: Rotating) -> None:
    async with log.running() as (_, rotating):
        error = await refusal(rotating.retire("00000000", operator="alice"))
        assert isinstance(error, NotFoundError)
        assert error.code == "no-such-key"
        assert all(key.vkey.key_id.hex() in error.hint for key in (MLDSA, SKEY))
        await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
        await rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice")
        assert (await refusal(rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice"))).code == "key-retired"


async def test_keys_are_so_many_at_most(log: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "KEYS_MAX", 3)
    async with log.running() as (_, rotating):
        await rotating.add(KeyType.ED25519, operator="alice")
        assert (await refusal(rotating.add(KeyType.ED25519, operator="alice"))).code == "too-many-keys"


async def test_nothing_is_done_before_the_account_is_read(log: Rotating, monkeypatch: pytest.MonkeyPatch) -> None:
    held = asyncio.Event()

    async def wait(self: KeyRotation, *, starting: bool) -> bool:
        await held.wait()
        return await settle(self, starting=starting)

    settle = KeyRotation._settle
    monkeypatch.setattr(KeyRotation, "_settle", wait)
    async with log.running(wait=False) as (_, rotating):
        look_alike = b'{"translog":"key/1"'
        for work in (rotating.retire("00000000", operator="a"), rotating.require_none([look_alike])):
            assert isinstance(await refusal(work), PushbackError)
        await rotating.require_none([b"anything else"])
        held.set()
        await until(lambda: rotating._is_ready)
        await rotating.require_none([look_alike])


async def test_a_log_whose_first_public_key_is_gone_changes_nothing(log: Rotating) -> None:
    async with log.running() as (_, rotating):
        await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
        await rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice")
        await rotating.add(KeyType.ED25519, operator="alice")
        await rotating.retire(SKEY.vkey.key_id.hex(), operator="alice")
    for name in ("log-mldsa44.vkey", "log-ed25519.vkey"):
        (log.keys / name).unlink()
    log.forget_state()
    async with log.running() as (_, rotating):
        error = await refusal(rotating.add(KeyType.ED25519, operator="alice"))
        assert (type(error), error.code) == (ConflictError, "keys-unclear")
        assert "public file" in error.hint


async def test_a_lost_key_is_retired_by_its_public_half(log: Rotating) -> None:
    async with log.running() as (_, rotating):
        added = await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
    (log.keys / "log-mldsa44.skey").unlink()
    async with log.running() as (_, rotating):
        assert (await refusal(rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice"))).code == "no-such-key"
    (log.keys / "log-mldsa44.vkey").write_text(f"{MLDSA.vkey}\n")
    async with log.running() as (service, rotating):
        assert (await rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice")).number == 2
        assert signed_by(service) == ids(SKEY, added.vkey)
        await log.require_sound(service, rotating)


async def test_two_operators_wait_for_each_other(log: Rotating) -> None:
    async with log.running() as (service, rotating):
        changed = await asyncio.gather(*(rotating.add(KeyType.ED25519, operator=name) for name in ("alice", "bob")))
        assert [change.number for change in changed] == [1, 2]
        assert log.private() == {MLDSA.vkey, SKEY.vkey, *(change.vkey for change in changed)}
        key_id = SKEY.vkey.key_id.hex()
        done = await asyncio.gather(*(rotating.retire(key_id, operator=name) for name in "ab"), return_exceptions=True)
        assert [getattr(item, "code", "done") for item in done] == ["done", "key-retired"]
        await log.require_sound(service, rotating)


async def test_who_goes_away_in_the_middle_does_not_stop_it(log: Rotating) -> None:
    async with log.running() as (service, rotating):
        asked = asyncio.create_task(rotating.add(KeyType.ED25519, operator="alice"))
        await until(lambda: len(log.files()) == 3)
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
        assert len(log.private()) == 3
        await log.require_sound(service, rotating)


# Under a publication policy


@asynccontextmanager
async def witnessed(log: Rotating, *, count: int = 1, **settings: Any) -> AsyncIterator[list[FakeWitness]]:
    """The log's checkpoints need all of these witnesses."""
    fakes = [FakeWitness(number, log.world.clock) for number in range(count)]
    policy = policy_of(fakes, count)
    endpoints = [
        Endpoint(
            url=fake.name, witnesses=tuple(w for w in policy.witnesses.values() if w.name in fake.policy_names), client=fake
        )
        for fake in fakes
    ]
    with ThreadPoolExecutor(1) as verifying:
        log.world.witnesses = Witnesses(
            endpoints,
            policy=policy,
            origin=ORIGIN,
            own=list,
            now_ms=log.world.clock.wall_ms,
            verifying=verifying,
            settings=WitnessingSettings(min_interval_ms=0, backoff_ms_max=100, quorum_timeout_ms=200, **settings),
            metrics=LogMetrics(),
        )
        yield fakes


async def test_an_addition_without_a_quorum_says_so_and_nothing_can_be_retired_yet(log: Rotating) -> None:
    log.publish_timeout_ms = 300
    async with witnessed(log) as (fake,), log.running() as (service, rotating):
        fake.answer = dead
        added = await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
        assert not added.published
        error = await refusal(rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice"))
        assert (type(error), error.code) == (ConflictError, "key-not-published")
        assert added.vkey.key_id.hex() in error.detail
        fake.answer = fake.honest
        log.publish_timeout_ms = rotating._publish_timeout_ms = 10_000
        assert (await rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice")).published
        assert ids(added.vkey, SKEY) < signed_by(service)


async def test_checkpoints_that_no_witness_saw_do_not_cover_an_addition(tmp_path: Path) -> None:
    log = Rotating(tmp_path, witnessing=WitnessingSettings(without_quorum="publish", min_interval_ms=0, quorum_timeout_ms=200))
    log.publish_timeout_ms = 300
    async with witnessed(log) as (fake,), log.running() as (service, rotating):
        fake.answer = dead
        await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
        await until(lambda: service.published is not None and service.published.size == 1)
        assert (await refusal(rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice"))).code == "key-not-published"


async def test_a_checkpoint_from_before_there_were_witnesses_does_not_cover_an_addition(log: Rotating) -> None:
    async with log.running() as (_, rotating):
        await rotating.add(KeyType.COSIGNATURE_MLDSA44, operator="alice")
    log.publish_timeout_ms = 300
    async with witnessed(log) as (fake,):
        fake.answer = dead
        async with log.running() as (_, rotating):
            assert (await refusal(rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice"))).code == "key-not-published"
            fake.answer = fake.honest
            rotating._publish_timeout_ms = 10_000
            assert (await rotating.retire(MLDSA.vkey.key_id.hex(), operator="alice")).number == 2


async def test_a_checkpoint_by_the_new_key_alone_does_not_cover_its_addition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Rotating(tmp_path, types={KeyType.ED25519}, keep_checkpoint_interval_ms=10**9)
    async with log.running() as (service, rotating):
        with monkeypatch.context() as patched:
            patched.setattr(LogService, "publish_anew", _publish_cut)
            with pytest.raises(CutError):
                await rotating.add(KeyType.ED25519, operator="alice")
        await service.append([b"more"])
        await until(lambda: len(signed_by(service)) == 2)
    (log.keys / "log-ed25519.skey").unlink()
    (log.keys / "log-ed25519.vkey").write_text(f"{SKEY.vkey}\n")
    async with log.running() as (service, rotating):
        assert ids(SKEY) & signed_by(service) == set()
        assert (await refusal(rotating.retire(SKEY.vkey.key_id.hex(), operator="alice"))).code == "key-not-published"


# Whoever else


def thiefs_change(number: int, *signers: SKey, key: SKey | None = None, action: Action = Action.ADD) -> bytes:
    thief = SKey(name=ORIGIN, type=KeyType.ED25519, seed=b"thief" + bytes(27))
    return sign_key_change(
        role=Role.LOG,
        name=ORIGIN,
        vkey=(key or thief).vkey,
        action=action,
        number=number,
        signers=[KeySigner(signer) for signer in signers],
        time_s=1_700_000_000,
    )


async def test_a_stolen_key_changes_no_keys_through_what_anybody_may_append(log: Rotating) -> None:
    stranger = SKey(name=ORIGIN, type=KeyType.ED25519, seed=b"stranger" + bytes(24))
    async with log.running() as (service, rotating):
        await rotating.add(KeyType.ED25519, operator="alice")
        (logged,) = [change.entry for change in rotating.ledger.changes]
        for stolen in (
            thiefs_change(1, SKEY),
            thiefs_change(2, SKEY),
            thiefs_change(3, MLDSA),
            thiefs_change(2, SKEY, key=MLDSA, action=Action.RETIRE),
        ):
            error = await refusal(rotating.require_none([b"x", stolen]))
            assert (type(error), error.code) == (PermissionDeniedError, "key-change")
        harmless = [logged, thiefs_change(2, stranger), thiefs_change(2, SKEY)[:-1], b""]
        await rotating.require_none(harmless)
        await service.append(harmless)
        await log.require_sound(service, rotating)


async def test_a_retired_key_changes_no_keys_for_those_who_still_list_it(log: Rotating) -> None:
    """With an old policy, and shown the thief's entries alone, they would follow: witnesses cosign whatever the log has."""
    async with log.running() as (_, rotating):
        added = await rotating.add(KeyType.ED25519, operator="alice")
        await rotating.retire(SKEY.vkey.key_id.hex(), operator="alice")
        for number in (1, 2, 3, 9):
            error = await refusal(rotating.require_none([thiefs_change(number, SKEY)]))
            assert (type(error), error.code) == (PermissionDeniedError, "key-change")
        await rotating.require_none([change.entry for change in rotating.ledger.changes])
        assert rotating.ledger.chain.active[-1] == added.vkey


async def test_one_good_line_of_a_stolen_key_is_enough_beside_bad_ones(log: Rotating) -> None:
    """The bad line spoils the change for the log, and not for those whose policy does not list its key."""
    async with log.running() as (_, rotating):
        for good, bad in ((MLDSA, SKEY), (SKEY, MLDSA)):
            change = parse_key_change(thiefs_change(1, good))
            note = parse_note(change.note)
            spoilt = Signature(name=ORIGIN, key_id=bad.vkey.key_id, payload=bytes(SIGNATURE_BYTES[bad.type] + 8))
            lines = (*note.signatures, spoilt)
            document = json.loads(thiefs_change(1, good)) | {"note": format_note(note.text, lines).decode()}
            entry = compact(document).encode()
            assert KeyChain(name=ORIGIN, active=(good.vkey,)).follow(entry).number == 1
            assert (await refusal(rotating.require_none([entry]))).code == "key-change"


async def test_a_key_that_somebody_else_added_is_told_and_not_signed_with(
    log: Rotating, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(rotation._logger, "critical", lambda event, **_: told.append(event))
    async with log.running() as (service, rotating):
        await service.append([thiefs_change(1, SKEY)])
        await until(lambda: bool(told))
        assert "somebody else added it" in told[0]
        assert signed_by(service) == ids(MLDSA, SKEY)
        (foreign,) = set(rotating.ledger.chain.active) - log.private()
        assert (await rotating.retire(foreign.key_id.hex(), operator="alice")).number == 2
        await log.require_sound(service, rotating)


async def test_retirements_by_others_never_delete_the_last_key_of_a_type(log: Rotating) -> None:
    async with log.running() as (service, rotating):
        await service.append([thiefs_change(1, SKEY, key=MLDSA, action=Action.RETIRE)])
        await until(lambda: rotating.ledger.chain.number == 1)
        await asyncio.sleep(0.05)
        assert "log-mldsa44.skey" in log.files()
        assert service.mode.value == "open"
