"""`translog resume`: a held log signs again on its owner's word, unless the head shows that the word is wrong."""

import json
import shutil
from pathlib import Path

import pytest
from client.serving import ORIGIN, make_log, policy_for, served, url_of

from cli.harness import require_plain, run
from translog.client.remote import RemoteLog
from translog.client.submit import Submitter
from translog.core.merkle import EMPTY_ROOT
from translog.core.policy import Policy
from translog.errors import SettingsError
from translog.log.head import HeadFile
from translog.log.lifecycle import Mode
from translog.maintenance import resume_log

WORD = "--nothing-newer-was-signed"


@pytest.fixture
async def log(tmp_path: Path) -> tuple[Path, Policy]:
    """A log of three entries, stopped."""
    directory = tmp_path / "log"
    policy = policy_for(make_log(directory))
    async with served(directory) as server, Submitter(url_of(server)) as submitter:
        await submitter.append([b"a", b"b", b"c"], policy)
    return directory, policy


async def check_signs_again(directory: Path, policy: Policy, entries: list[bytes]) -> None:
    """The log takes and publishes an entry, and has all that it had."""
    async with served(directory) as server, Submitter(url_of(server)) as submitter, RemoteLog(url_of(server), policy) as remote:
        await submitter.append([b"new"], policy)
        await remote.refresh()
        assert await remote.entries(start=0, end=len(entries) + 1) == [*entries, b"new"]


async def test_without_the_owners_word_nothing_happens(log: tuple[Path, Policy]) -> None:
    directory, _ = log
    before = (directory / "head").read_bytes()
    result = run("resume", directory)
    assert (result.code, WORD in result.err) == (2, True)
    assert (directory / "head").read_bytes() == before


@pytest.mark.parametrize("what", ["lost", "damaged", "held", "older"])
async def test_a_held_log_signs_again(log: tuple[Path, Policy], what: str) -> None:
    directory, policy = log
    head = directory / "head"
    if what == "lost":
        head.unlink()
    elif what == "damaged":
        head.write_bytes(bytes(8_192))
    elif what == "held":
        file = HeadFile.open(head, origin=ORIGIN)
        newest = file.require_newest()
        file.write(size=newest.size, root=newest.root, hold=True)
        file.close()
    else:
        HeadFile.create(head, origin=ORIGIN, size=0, root=EMPTY_ROOT)
    async with served(directory) as server:
        assert server.service.mode is Mode.HELD
        async with RemoteLog(url_of(server), policy) as remote:
            await remote.refresh()
            assert await remote.entries(start=0, end=3) == [b"a", b"b", b"c"]
    before = head.read_bytes() if head.exists() else None
    result = run("resume", directory, WORD)
    assert result.code == 0
    assert "from size 3 on" in result.out
    logged = json.loads(result.err)
    assert (logged["event"], logged["origin"], logged["size"]) == ("resumed on the owner's word", ORIGIN, 3)
    kept = directory / "head.before-resume"
    assert (kept.read_bytes() if kept.exists() else None) == before
    await check_signs_again(directory, policy, [b"a", b"b", b"c"])


async def test_a_head_that_says_otherwise_outweighs_the_word(log: tuple[Path, Policy], tmp_path: Path) -> None:
    directory, policy = log
    kept = tmp_path / "older"
    shutil.copytree(directory, kept)
    await check_signs_again(directory, policy, [b"a", b"b", b"c"])
    shutil.copy(directory / "head", kept / "head")
    before = (kept / "head").read_bytes()
    lines = require_plain(run("resume", kept, WORD), 4)
    assert "a tree of size 4 may have been signed" in lines[0]
    assert (kept / "head").read_bytes() == before


async def test_a_head_of_another_log_or_history_outweighs_the_word(log: tuple[Path, Policy]) -> None:
    directory, _ = log
    HeadFile.create(directory / "head", origin="log.example/other", size=0, root=EMPTY_ROOT)
    assert "belongs to the log 'log.example/other'" in require_plain(run("resume", directory, WORD), 4)[0]
    HeadFile.create(directory / "head", origin=ORIGIN, size=2, root=bytes(32))
    assert "this store does not continue" in require_plain(run("resume", directory, WORD), 4)[0]


async def test_a_log_that_is_not_held_may_be_resumed(log: tuple[Path, Policy]) -> None:
    directory, policy = log
    assert run("resume", directory, WORD).code == 0
    await check_signs_again(directory, policy, [b"a", b"b", b"c"])


def test_what_is_no_log_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        lines = require_plain(run("resume", path, WORD), 4)
        assert lines == [f"translog: {path} is not a log's directory", "  name the one `translog init` created"]


def test_a_directory_that_is_no_log_is_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        resume_log(tmp_path)
    assert caught.value.code == "no-store"
    assert not any(tmp_path.iterdir())


async def test_a_log_whose_newest_checkpoint_its_own_keys_did_not_sign_is_not_resumed(
    log: tuple[Path, Policy], tmp_path: Path
) -> None:
    """As after a restore from a forged backup, with the real keys brought along afterwards."""
    directory, _ = log
    make_log(tmp_path / "other")
    shutil.rmtree(directory / "keys")
    shutil.copytree(tmp_path / "other" / "keys", directory / "keys")
    lines = require_plain(run("resume", directory, WORD), 4)
    assert "the keys are not this log's" in lines[0]
