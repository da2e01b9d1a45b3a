"""Our witness cosigns a log of other people's: Tessera's, which asks for it before it publishes, or which is polled.

Tessera reads a policy with Ed25519 witness keys only; lines of other keys in an answer it drops.
"""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from translog.client.polled import PolledRemoteLog
from translog.core.checkpoint import parse_checkpoint
from translog.core.cosignature import KeyVerifier
from translog.core.keys import KeyType, SKey, format_skey
from translog.core.note import open_note, parse_note
from translog.core.policy import parse_policy, verify_checkpoint
from translog.witness.accusations import Accusations
from translog.witness.loglist import KnownLog
from translog.witness.opening import create_witness, open_witness
from translog.witness.poller import Poller
from translog.witness.protocol import monitoring_path, origin_hash
from translog.witness.settings import read_witness_settings

from .conftest import Site
from .our_witness import OurWitness
from .tessera_tools import Tessera
from .translog_command import run_translog
from .witness_programs import Asker
from .witness_situations import SITUATIONS, ask_all, known_keys

LOG_KEY = SKey(name="example.com/tessera", type=KeyType.ED25519, seed=bytes(range(32)))


class TesseraLog:
    """The log in `files`, and what appends to it."""

    def __init__(self, tessera: Tessera, folder: Path) -> None:
        self.files = folder / "log"
        self._tessera = tessera
        self._folder = folder
        self._skey = folder / "skey"
        self._skey.write_text(format_skey(LOG_KEY))

    @property
    def checkpoint(self) -> bytes:
        return (self.files / "checkpoint").read_bytes()

    def answer(self, target: str) -> bytes | None:
        path = self.files / target
        return path.read_bytes() if path.is_file() else None

    def append(self, first: int, end: int, *, policy: str = "", fail_open: bool = False) -> str:
        """Adds entries, and waits until they are published with the cosignatures that `policy` asks for. Returns what the
        program logged."""
        entries = self._folder / f"entries-{first}"
        entries.mkdir()
        for n in range(first, end):
            (entries / f"{n:06}").write_text(f"entry {n}")
        policy_file = self._folder / "policy"
        policy_file.write_text(policy)
        asked = policy_file if policy else None
        result = self._tessera.append(self.files, self._skey, entries, witness_policy=asked, fail_open=fail_open)
        assert result.returncode == 0, result.stderr
        return result.stderr


@pytest.fixture
def log(tessera: Tessera, tmp_path: Path) -> TesseraLog:
    return TesseraLog(tessera, tmp_path)


@pytest.fixture
def witness(tmp_path: Path) -> OurWitness:
    return OurWitness(directory=tmp_path / "witness")


@pytest.fixture
def url(log: TesseraLog, site: Site) -> str:
    """Where the log is served."""
    return site.add(log.answer)


def test_tessera_publishes_what_our_witness_cosigned(log: TesseraLog, witness: OurWitness, url: str, tmp_path: Path) -> None:
    """The witness knows nothing yet when the log has 300 entries: told so, Tessera begins from nothing. Later, the witness
    having been started again, it has the size that Tessera takes it for."""
    log.append(0, 300)
    with witness.served([LOG_KEY.vkey]) as served:
        said = log.append(300, 600, policy=witness.policy_lines(KeyType.COSIGNATURE_ED25519, served))
        assert "replied with x.tlog.size 0 != our hint 300, retrying" in said
    with witness.served() as served:
        lines = witness.policy_lines(KeyType.COSIGNATURE_ED25519, served)
        said = log.append(600, 700, policy=lines)
        assert "x.tlog.size" not in said
        with closing(Asker(served)) as asker:
            shown = asker.ask("GET", monitoring_path(LOG_KEY.name))
    policy = tmp_path / "verifying"
    policy.write_text(f"log {LOG_KEY.vkey}\n{lines}")
    verified = verify_checkpoint(log.checkpoint, parse_policy(policy.read_bytes()))
    assert verified.checkpoint.size == 700
    assert [item.vkey for item in verified.cosigned] == [witness.vkeys[KeyType.COSIGNATURE_ED25519]]
    assert (
        parse_note(log.checkpoint).signatures == parse_note(shown.body).signatures[:1] + parse_note(shown.body).signatures[-1:]
    )
    result = run_translog("checkpoint", "--log", url, "--policy", str(policy), "--json")
    assert result.returncode == 0, result.stderr


def test_a_forked_copy_of_the_log_gets_no_cosignature(log: TesseraLog, witness: OurWitness, tmp_path: Path) -> None:
    log.append(0, 30)
    shutil.copytree(log.files, tmp_path / "copy")
    with witness.served([LOG_KEY.vkey]) as served:
        lines = witness.policy_lines(KeyType.COSIGNATURE_ED25519, served)
        log.append(30, 40, policy=lines)
        log.files = tmp_path / "copy"
        said = []
        for first, end in ((40, 45), (45, 50), (50, 60)):  # for 35, 40 and 50 entries, of which the witness has seen others
            said.append(log.append(first, end, policy=lines, fail_open=True))
            assert len(parse_note(log.checkpoint).signatures) == 1
    assert "replied with x.tlog.size 40, larger than log size 35" in said[0]
    assert "says that the consistency proof is bad: 422" in said[1]
    assert "says that the consistency proof is bad: 422" in said[2]


def test_a_log_unknown_to_our_witness_is_told_so(log: TesseraLog, witness: OurWitness) -> None:
    with witness.served() as served:
        lines = witness.policy_lines(KeyType.COSIGNATURE_ED25519, served)
        said = log.append(0, 3, policy=lines, fail_open=True)
    assert "says checkpoint origin is unknown: 404" in said


def test_tessera_takes_the_line_of_our_ed25519_key_only(log: TesseraLog, witness: OurWitness) -> None:
    with witness.served([LOG_KEY.vkey]) as served:
        result = run_translog("witness", "keys", str(witness.directory), "--url", served)
        assert result.returncode == 0, result.stderr
        lines = [line for line in result.stdout.splitlines() if line.startswith(("witness ", "group "))]
        whole = "\n".join([*lines, f"quorum {witness.name}"])
        with pytest.raises(AssertionError, match="failed to create witness group from policy: invalid witness config"):
            log.append(0, 3, policy=whole)
        [usable] = [line for line in lines if str(witness.vkeys[KeyType.COSIGNATURE_ED25519]) in line]
        log.append(3, 6, policy=f"{usable}\nquorum {usable.split()[1]}")
    assert len(parse_note(log.checkpoint).signatures) == 2


async def test_our_witness_cosigns_what_it_polls(log: TesseraLog, witness: OurWitness, url: str) -> None:
    create_witness(witness.directory, name=witness.name, random_bytes=os.urandom)
    known = KnownLog(origin=LOG_KEY.name, vkeys=(LOG_KEY.vkey,), poll_url=url)
    accusations = witness.directory / "accusations"
    polling = open_witness(witness.directory, now_ms=lambda: time.time_ns() // 1_000_000)
    with closing(polling.store):
        polling.add_log(known)
        poller = Poller(
            witness=polling,
            connect=lambda found: PolledRemoteLog(found.poll_url),
            settings=read_witness_settings(witness.directory),
            accusations=Accusations(accusations),
        )
        cosigned = []
        for first, end in ((0, 300), (300, 600), (600, 601)):
            log.append(first, end)
            await poller.poll_all()
            cosigned.append(polling.latest(origin_hash(LOG_KEY.name)))
    verifiers = [KeyVerifier(vkey) for vkey in (LOG_KEY.vkey, *witness.vkeys.values())]
    opened = [open_note(note, verifiers) for note in cosigned]
    assert [len(note.verified) for note in opened] == [3, 3, 3]
    assert [parse_checkpoint(note.text).size for note in opened] == [300, 600, 601]
    assert not accusations.exists()


def test_our_witness_polls_and_cosigns_the_log_of_tesseras_conformance_server(
    tessera: Tessera, witness: OurWitness, tmp_path: Path
) -> None:
    """Three programs in processes of their own: Tessera's server, which takes entries and publishes, and our witness."""
    skey = tmp_path / "skey"
    skey.write_text(format_skey(LOG_KEY))
    create_witness(witness.directory, name=witness.name, random_bytes=os.urandom)
    settings = witness.directory / "witness.toml"
    settings.write_text(f"poll_interval_ms = 1000\n{settings.read_text()}")
    with tessera.serving(tmp_path / "served", skey) as url:
        result = run_translog("witness", "add-log", str(witness.directory), str(LOG_KEY.vkey), "--poll", url)
        assert result.returncode == 0, result.stderr
        with witness.served() as served, closing(Asker(served)) as asker:
            policy = parse_policy(f"log {LOG_KEY.vkey}\n{witness.policy_lines(KeyType.COSIGNATURE_MLDSA44, served)}".encode())
            for count in (1, 3, 300):
                size = _fill(url, count)
                verified = verify_checkpoint(_cosigned(asker, size), policy)
                assert verified.checkpoint.size == size
                assert len(verified.cosigned) == 1
    assert not (witness.directory / "accusations").exists()


def _fill(url: str, count: int) -> int:
    """Adds so many entries at once; the size of the log then."""
    with ThreadPoolExecutor(64) as pool:
        return max(pool.map(lambda n: _add(url, f"{count}: {n}".encode()), range(count))) + 1


def _add(url: str, entry: bytes) -> int:
    with urlopen(Request(f"{url}/add", data=entry), timeout=60) as answer:
        return int(answer.read().split()[0])


def _cosigned(asker: Asker, size: int) -> bytes:
    """What the witness shows once it is of that size."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = asker.ask("GET", monitoring_path(LOG_KEY.name))
        if shown.status == 200 and parse_checkpoint(parse_note(shown.body).text).size >= size:
            return shown.body
        time.sleep(0.1)
    raise AssertionError(f"nothing of size {size} was cosigned")


def test_our_witness_answers_as_the_specification_says(witness: OurWitness) -> None:
    """What other witnesses are compared with; but for extension lines, which not all of its keys could vouch for."""
    keys = [vkey for kind in (KeyType.ED25519, KeyType.COSIGNATURE_MLDSA44) for vkey in known_keys(kind)]
    with witness.served(keys) as served:
        answers = ask_all(served, list(witness.vkeys.values()))
    specified = {name: situation.status for name, situation in SITUATIONS.items()}
    assert {name: answer.status for name, answer in answers.items()} == specified | {"extension lines": 400}
    media = {200: "text/plain; charset=utf-8", 409: "text/x.tlog.size"}
    for answer in answers.values():
        assert answer.media == media.get(answer.status, "application/problem+json")
    assert {answer.body for answer in answers.values() if answer.status == 200} == {b"ML-DSA-44 Ed25519"}
    assert [answer.body for answer in answers.values() if answer.status == 409] == [b"3\n", b"3\n", b"0\n", b"7\n"]
