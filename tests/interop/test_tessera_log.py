"""Our client and commands on a log that another implementation wrote: Tessera's, in files, served by a web server.

Rules: the log is written in two runs that end inside tiles; everything read of it is compared with what was put in.
"""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from translog.client.remote import RemoteLog
from translog.core.keys import KeyType, SKey, format_skey
from translog.core.merkle import hash_leaf
from translog.core.policy import Policy, format_log_policy, parse_policy, verify_checkpoint
from translog.core.proof import verify_receipt
from translog.errors import MalformedError, VerificationError

from .conftest import Answer, RunGolog, Site
from .static_log import flip
from .tessera_tools import Tessera, Verdict
from .translog_command import named_resources, run_fsck, run_translog

KEY = SKey(name="example.com/tessera", type=KeyType.ED25519, seed=bytes(range(32)))
OLD_SIZE, SIZE = 300, 700
ENTRIES = [b"entry %d " % n * (n % 40) for n in range(SIZE - 1)] + [b"\xff" * 65_535]


class TesseraLog:
    """The log's files on disk, its policy, and the checkpoint it had at 300 entries."""

    def __init__(self, folder: Path, tessera: Tessera) -> None:
        self.files = folder / "log"
        self.policy_file = folder / "policy"
        self.policy_file.write_text(format_log_policy([KEY.vkey], classic=True))
        self._skey = folder / "skey"
        self._skey.write_text(format_skey(KEY))
        self._append(tessera, folder / "first", ENTRIES[:OLD_SIZE])
        self.old = (self.files / "checkpoint").read_bytes()
        self._append(tessera, folder / "second", ENTRIES[OLD_SIZE:])

    def _append(self, tessera: Tessera, folder: Path, entries: list[bytes]) -> None:
        folder.mkdir()
        for n, entry in enumerate(entries):
            (folder / f"{n:06}").write_bytes(entry)
        result = tessera.append(self.files, self._skey, folder)
        assert result.returncode == 0, result.stderr

    @property
    def policy(self) -> Policy:
        return parse_policy(self.policy_file.read_bytes())

    @property
    def paths(self) -> list[str]:
        """What the log of its last size is made of: earlier partial tiles are still there, but nobody asks for them."""
        bundles = [f"tile/entries/{name}" for name in ("000", "001", "002.p/188")]
        return ["checkpoint", "tile/0/000", "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2", *bundles]

    def answer(self, target: str) -> bytes | None:
        path = self.files / target
        return path.read_bytes() if path.is_file() else None

    def flipped(self, damaged: str) -> Answer:
        """The log with one byte changed in the middle of one file."""

        def answer(target: str) -> bytes | None:
            body = self.answer(target)
            return flip(body, len(body) // 2) if body is not None and target == damaged else body

        return answer


async def read_all(url: str, policy: Policy) -> list[bytes]:
    """Every entry, verified."""
    async with RemoteLog(url, policy) as remote:
        size = (await remote.refresh()).checkpoint.size
        return await remote.entries(start=0, end=size)


@pytest.fixture(scope="module")
def tessera_log(tessera: Tessera, tmp_path_factory: pytest.TempPathFactory) -> TesseraLog:
    return TesseraLog(tmp_path_factory.mktemp("log"), tessera)


@pytest.fixture(scope="module")
def url(tessera_log: TesseraLog, site: Site) -> str:
    return site.add(tessera_log.answer)


def test_other_programs_accept_the_log_too(tessera_log: TesseraLog, url: str, tessera: Tessera, run_golog: RunGolog) -> None:
    assert tessera.fsck(url, str(KEY.vkey)).verdict is Verdict.ACCEPTS
    result = run_golog(url, str(KEY.vkey), proofs=False)
    assert result.returncode == 0, result.stderr


async def test_our_client_reads_every_entry(tessera_log: TesseraLog, url: str) -> None:
    assert await read_all(url, tessera_log.policy) == ENTRIES


async def test_our_client_proves_every_entry_and_every_size(tessera_log: TesseraLog, url: str) -> None:
    """Each receipt is verified on its own; a consistency proof is verified before it is given."""
    async with RemoteLog(url, tessera_log.policy) as remote:
        await remote.refresh()
        for index, entry in enumerate(ENTRIES):
            verify_receipt(await remote.receipt(index), leaf_hash=hash_leaf(entry), policy=tessera_log.policy)
            await remote.prove_consistency(old=index + 1, new=SIZE)
        assert await remote.root(OLD_SIZE) == verify_checkpoint(tessera_log.old, tessera_log.policy).checkpoint.root


async def test_our_client_follows_the_log_from_its_old_checkpoint(tessera_log: TesseraLog, site: Site) -> None:
    notes = [tessera_log.old, None]

    def answer(target: str) -> bytes | None:
        return notes[0] if target == "checkpoint" and notes[0] is not None else tessera_log.answer(target)

    async with RemoteLog(site.add(answer), tessera_log.policy) as remote:
        assert (await remote.refresh()).checkpoint.size == OLD_SIZE
        notes.pop(0)
        assert (await remote.refresh()).checkpoint.size == SIZE
        assert remote.latest_note == tessera_log.answer("checkpoint")


def test_translog_checkpoint_shows_it(tessera_log: TesseraLog, url: str) -> None:
    result = run_translog("checkpoint", "--log", url, "--policy", str(tessera_log.policy_file), "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["note"].encode() == tessera_log.answer("checkpoint")
    assert document["size"] == SIZE


def test_translog_prove_proves_in_it(tessera_log: TesseraLog, url: str) -> None:
    options = ["--log", url, "--policy", str(tessera_log.policy_file), "--json"]
    inclusion = run_translog("prove", "inclusion", "17", *options)
    assert inclusion.returncode == 0, inclusion.stderr
    assert len(json.loads(inclusion.stdout)["proof"]) == 10
    consistency = run_translog("prove", "consistency", str(OLD_SIZE), *options)
    assert consistency.returncode == 0, consistency.stderr
    old = verify_checkpoint(tessera_log.old, tessera_log.policy).checkpoint
    assert b64decode(json.loads(consistency.stdout)["old_root"]) == old.root


def test_translog_receipt_makes_one_that_translog_verify_accepts(tessera_log: TesseraLog, url: str, tmp_path: Path) -> None:
    receipt, entry_file, policy = tmp_path / "receipt", tmp_path / "entry", ["--policy", str(tessera_log.policy_file)]
    made = run_translog("receipt", "17", "--log", url, *policy, "--output", str(receipt))
    assert made.returncode == 0, made.stderr
    for entry, status in ((ENTRIES[17], 0), (ENTRIES[18], 1)):
        entry_file.write_bytes(entry)
        result = run_translog("verify", str(receipt), *policy, "--entry", str(entry_file))
        assert result.returncode == status, result.stderr


async def test_a_flipped_byte_anywhere_is_refused(tessera_log: TesseraLog, site: Site) -> None:
    """In every file of the log, one at a time."""
    for damaged in tessera_log.paths:
        with pytest.raises((VerificationError, MalformedError)):
            await read_all(site.add(tessera_log.flipped(damaged)), tessera_log.policy)


def test_our_fsck_accepts_it(tessera_log: TesseraLog, url: str) -> None:
    result = run_fsck(url, tessera_log.policy_file)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not named_resources(result)


def test_our_fsck_names_the_damaged_file(tessera_log: TesseraLog, site: Site) -> None:
    for damaged in tessera_log.paths:
        result = run_fsck(site.add(tessera_log.flipped(damaged)), tessera_log.policy_file)
        assert result.returncode == 1, result.stdout + result.stderr
        assert named_resources(result) == ({damaged} if damaged != "checkpoint" else set())
