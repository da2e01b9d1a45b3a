"""Logs that are polled: what is good is cosigned, what is wrong is told and kept, and nothing stops the others."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType
from translog.core.note import open_note
from translog.errors import RemoteError
from translog.witness.accusations import ACCUSATIONS_MAX, Accusations
from translog.witness.loglist import KnownLog
from translog.witness.poller import PolledLog, Poller
from translog.witness.protocol import origin_hash
from translog.witness.service import Witness
from translog.witness.settings import WitnessSettings
from witness.made_log import WITNESS_VKEYS, MadeLog, Time, make_key, make_witness


class Shown:
    """A PolledLog that shows a tree, or does what it is told to."""

    def __init__(self, tree: MadeLog) -> None:
        self.tree = tree
        self.size = 0
        self.note: Callable[[], bytes] = lambda: self.tree.note(self.size)
        self.slow_s = 0.0
        self.proof: Callable[[int, int], list[bytes]] = lambda old, new: list(self.tree.proof(old, new))
        self.proofs = 0

    async def fetch(self) -> bytes:
        await asyncio.sleep(self.slow_s)
        return self.note()

    async def prove(self, *, old: int, new: int) -> list[bytes]:
        self.proofs += 1
        return self.proof(old, new)


class Network:
    """A poller, the logs it asks, and what it accused them of."""

    def __init__(self, path: Path, *logs: MadeLog, time: Time, timeout_ms: int = 5_000) -> None:
        self.witness: Witness = make_witness(path / "state", now_ms=time)
        self.shown = {log.origin: Shown(log) for log in logs}
        for log in logs:
            self.witness.add_log(KnownLog(origin=log.origin, vkeys=log.vkeys, poll_url=f"https://{log.origin}"))
        self.folder = path / "accusations"
        self.poller = Poller(
            witness=self.witness,
            connect=self.connect,
            settings=WitnessSettings(poll_timeout_ms=timeout_ms, poll_interval_ms=1_000, poll_at_once=2),
            accusations=Accusations(self.folder),
        )

    @asynccontextmanager
    async def connect(self, log: KnownLog) -> AsyncIterator[PolledLog]:
        yield self.shown[log.origin]

    def size(self, log: MadeLog) -> int | None:
        cosigned = self.witness.store.find_cosigned(log.origin)
        return None if cosigned is None else cosigned.size

    def accusations(self) -> list[dict[str, object]]:
        return [json.loads(path.read_text("utf-8")) for path in sorted(self.folder.glob("*.json"))]


@pytest.fixture
async def network(tmp_path: Path, log: MadeLog, time: Time) -> AsyncIterator[Network]:
    made = Network(tmp_path, log, time=time)
    yield made
    made.witness.store.close()


@pytest.fixture
def shown(network: Network, log: MadeLog) -> Shown:
    return network.shown[log.origin]


async def test_a_log_that_grows_is_cosigned_each_time(network: Network, log: MadeLog, shown: Shown) -> None:
    for size in (0, 1, 5, 5, 6, 64):
        shown.size = size
        await network.poller.poll_all()
        assert network.size(log) == size
    assert shown.proofs == 3
    assert network.accusations() == []


async def test_the_same_tree_is_cosigned_with_a_new_time(network: Network, log: MadeLog, shown: Shown, time: Time) -> None:
    shown.size = 5
    for _ in range(2):
        await network.poller.poll_all()
        time.now_s += 60
    cosigned = network.witness.store.find_cosigned(log.origin)
    assert cosigned is not None
    assert cosigned.time_s == time.now_s - 60
    served = network.witness.latest(origin_hash(log.origin))
    opened = open_note(served, [KeyVerifier(vkey) for vkey in (*log.vkeys, *WITNESS_VKEYS)])
    assert (len(opened.verified), opened.unverified) == (4, ())


async def test_a_note_with_many_lines_of_others_is_cosigned_without_them(network: Network, log: MadeLog, shown: Shown) -> None:
    others = [KeySigner(make_key(f"w{n}", KeyType.COSIGNATURE_MLDSA44)) for n in range(60)]
    shown.note = lambda: log.note(5, signers=[*others, *map(KeySigner, log.skeys)])
    assert len(shown.note()) > 128 * 1024
    await network.poller.poll_all()
    assert network.size(log) == 5


@pytest.mark.parametrize("size", [9, 40])
async def test_a_fork_is_accused_with_both_notes_and_not_cosigned(
    network: Network, log: MadeLog, shown: Shown, size: int
) -> None:
    shown.size = 9
    await network.poller.poll_all()
    shown.tree = MadeLog(fork_at=4)
    shown.size = size
    if size == 9:  # the witness has the accusations then
        network.witness._accusations = Accusations(network.folder)
    with capture_logs() as said:
        await network.poller.poll_all()
        await network.poller.poll_all()
    assert "critical" in {line["log_level"] for line in said}
    [accusation] = network.accusations()
    assert accusation["origin"] == log.origin
    for name, tree, stated in (("cosigned", log, 9), ("shown", shown.tree, size)):
        opened = open_note(str(accusation[name]).encode(), [KeyVerifier(vkey) for vkey in log.vkeys])
        assert opened.text == tree.text(stated)
    assert network.size(log) == 9
    shown.tree, shown.size = log, 10
    await network.poller.poll_all()
    assert network.size(log) == 10


async def test_the_accusations_of_one_log_are_bounded(network: Network, log: MadeLog, shown: Shown) -> None:
    shown.size = 9
    await network.poller.poll_all()
    shown.tree = MadeLog(fork_at=4)
    for size in range(10, 40):
        shown.size = size
        await network.poller.poll_all()
    assert len(network.accusations()) == ACCUSATIONS_MAX


async def test_an_accusation_that_cannot_be_written_is_logged_whole(network: Network, log: MadeLog, shown: Shown) -> None:
    network.folder.write_text("in the way")
    shown.size = 9
    await network.poller.poll_all()
    shown.tree, shown.size = MadeLog(fork_at=4), 12
    with capture_logs() as said:
        await network.poller.poll_all()
    [lost] = [line for line in said if line["log_level"] == "error"]
    assert shown.tree.text(12) in lost["shown"]
    with capture_logs() as said:  # again and again it is said, and not shown
        await network.poller.poll_all()
    [again] = [line for line in said if line["log_level"] == "error"]
    assert "shown" not in again
    network.folder.unlink()
    await network.poller.poll_all()
    assert len(network.accusations()) == 1


async def test_a_smaller_tree_is_told_and_changes_nothing(network: Network, log: MadeLog, shown: Shown) -> None:
    for size in (9, 5):
        shown.size = size
        with capture_logs() as said:
            await network.poller.poll_all()
    assert ["size 5" in line["detail"] for line in said] == [True]
    assert network.size(log) == 9
    assert network.accusations() == []


def _fails() -> bytes:
    raise RemoteError("gone", status=500)


def _breaks() -> bytes:
    raise ZeroDivisionError


BAD: dict[str, Callable[[MadeLog], bytes]] = {
    "garbage": lambda log: b"garbage",
    "nothing": lambda log: b"",
    "not UTF-8": lambda log: b"\xff" * 1_000,
    "unknown keys": lambda log: log.note(9, signers=[KeySigner(make_key(log.origin, KeyType.ED25519, 5))]),
    "another log": lambda log: log.note(9, origin="log.example/other", signers=[KeySigner(log.skeys[0])]),
    "a bad line": lambda log: log.note(9).replace(b" 9\n", b" 8\n").replace(b"\n9\n", b"\n8\n"),
    "extension lines": lambda log: log.note(9, extensions=("more",)),
    "no checkpoint": lambda log: log.note(9).replace(b"\n9\n", b"\n09\n"),
    "an error": lambda log: _fails(),
    "a bug": lambda log: _breaks(),
}


@pytest.mark.parametrize("bad", BAD)
async def test_what_is_wrong_with_one_log_is_told_and_no_trouble_for_others(
    tmp_path: Path, log: MadeLog, time: Time, bad: str
) -> None:
    good = MadeLog("log.example/good")
    network = Network(tmp_path, log, good, time=time)
    network.shown[log.origin].note = lambda: BAD[bad](log)
    network.shown[good.origin].size = 7
    with capture_logs() as said:
        await network.poller.poll_all()
    assert [line["origin"] for line in said] == [log.origin]
    assert network.size(log) is None
    assert network.size(good) == 7
    assert network.accusations() == []
    network.shown[log.origin].note = lambda: log.note(5)
    await network.poller.poll_all()
    assert network.size(log) == 5
    network.witness.store.close()


async def test_a_checkpoint_is_taken_from_its_own_url_only_also_where_logs_share_a_key(tmp_path: Path, time: Time) -> None:
    one, two = (MadeLog(f"log.example/{n}", key_name="log.example/key") for n in (1, 2))
    network = Network(tmp_path, one, two, time=time)
    network.shown[one.origin].note = lambda: two.note(9)
    network.shown[two.origin].note = _fails
    await network.poller.poll_all()
    assert (network.size(one), network.size(two)) == (None, None)
    network.witness.store.close()


@pytest.mark.parametrize("proof", [lambda old, new: [], lambda old, new: [bytes(32)] * 70, lambda old, new: _fails()])
async def test_a_proof_that_is_none_lets_nothing_through(
    network: Network, log: MadeLog, shown: Shown, proof: Callable[[int, int], list[bytes]]
) -> None:
    shown.size = 5
    await network.poller.poll_all()
    shown.size, shown.proof = 12, proof
    await network.poller.poll_all()
    assert network.size(log) == 5


async def test_slow_logs_keep_no_others_waiting_for_long(tmp_path: Path, time: Time) -> None:
    slow = [MadeLog(f"log.example/{n}", types=(KeyType.ED25519,)) for n in range(4)]
    good = MadeLog("log.example/good")
    network = Network(tmp_path, *slow, good, time=time, timeout_ms=200)
    for log in slow:
        network.shown[log.origin].slow_s = 60
    network.shown[good.origin].size = 3
    async with asyncio.timeout(5):
        await network.poller.poll_all()
    assert network.size(good) == 3
    network.witness.store.close()


async def test_a_log_that_submitted_it_meanwhile_is_no_fault(network: Network, log: MadeLog, shown: Shown) -> None:
    shown.size = 5
    await network.poller.poll_all()

    def meanwhile(old: int, new: int) -> list[bytes]:
        network.witness.add_checkpoint(log.request(5, 8))
        return list(log.proof(old, new))

    shown.size, shown.proof = 8, meanwhile
    with capture_logs() as said:
        await network.poller.poll_all()
    assert {line["log_level"] for line in said} == {"info"}
    assert network.size(log) == 8
    assert network.accusations() == []


async def test_it_polls_until_it_is_cancelled_also_when_the_state_fails(network: Network, log: MadeLog, shown: Shown) -> None:
    shown.size = 5
    running = asyncio.create_task(network.poller.run())
    async with asyncio.timeout(5):
        while network.size(log) != 5:  # noqa: ASYNC110  # nothing tells when
            await asyncio.sleep(0.01)
    network.witness.store.close()
    with capture_logs() as said:
        await network.poller.poll_all()
    assert [line["log_level"] for line in said] == ["error"]
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
