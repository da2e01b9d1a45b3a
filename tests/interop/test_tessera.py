"""Tessera's fsck, client, integration test and load test against our log.

What its release v1.0.4 does with a log, as these tests hold it to: it ignores the ML-DSA-44 signature, which stands first in
our checkpoints, and goes by the Ed25519 one. Its fsck is right about whole logs. About damage it is of little help: the exit
status is 0 whatever it finds, it names the tile where the bundle below it is damaged, it crashes on a bundle with too few
entries, accepts a bundle or a partial tile with more than its width, and, once every worker (there is one, unless told) has met
damage, waits for ever if more tiles than it has workers are left. DAMAGE is the table.

Rules: our own fsck must name exactly the damaged resource, in every row of the table.
"""

import asyncio
import re
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from translog.bootstrap import create_log
from translog.client.transport import Transport
from translog.core.checkpoint import parse_checkpoint
from translog.core.keys import KeyType, SKey
from translog.core.note import NOTE_BYTES_MAX, parse_note
from translog.core.policy import format_log_policy
from translog.core.tile import encode_bundle
from translog.storage.store import Profile

from .conftest import Answer, Site, damaged
from .static_log import LOG_KEY, OTHER_KEYS, StaticLog, flip, make_log, sign_head
from .tessera_tools import Judged, Tessera, Verdict
from .test_live import served
from .translog_command import named_resources, run_fsck

ACCEPTS, REFUSES, HANGS, CRASHES = Verdict
SIZES = (1, 255, 256, 257, 1_000, 70_000)
BATCH_ENTRIES = 10_000
_BROKEN_OFF = re.compile(r'W\d{4} .* hammer\.go:\d+\] get\("[^"]*"\): .*: context canceled')


class NewLog:
    """A log on disk, to be served and filled."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "log"
        self.vkeys = create_log(self.directory, origin="log.example/tessera", profile=Profile.OPAQUE)
        self.vkey = next(str(vkey) for vkey in self.vkeys if vkey.type is KeyType.ED25519)
        self.policy = folder / "policy"
        self.policy.write_text(format_log_policy(self.vkeys))


@pytest.fixture
def new_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewLog:
    # A disk that is slow for a moment is no finding: Tessera's writers take 202, not published yet, for a failure.
    monkeypatch.setenv("TRANSLOG_SERVER__PUBLISH_DEADLINE_MS", "60000")
    return NewLog(tmp_path)


async def _append(url: str, start: int, end: int) -> None:
    async with Transport(url) as transport:
        for first in range(start, end, BATCH_ENTRIES):
            entries = [b"entry %d " % index * (index % 5) for index in range(first, min(end, first + BATCH_ENTRIES))]
            batch = encode_bundle(entries)
            await transport.post(
                "v1/entries", batch, content_type="application/octet-stream", bytes_max=len(entries) * 1_000 + NOTE_BYTES_MAX
            )


async def _head(url: str) -> tuple[int, str]:
    """Size and root, in base64, of the log's checkpoint, unverified."""
    async with Transport(url) as transport:
        note = await transport.get("checkpoint", bytes_max=NOTE_BYTES_MAX)
    checkpoint = parse_checkpoint(parse_note(note).text)
    return checkpoint.size, b64encode(checkpoint.root).decode()


def fill(url: str, start: int, end: int) -> tuple[int, str]:
    """Appends the entries from `start` to below `end`, and gives size and root once they are published."""
    asyncio.run(_append(url, start, end))
    return asyncio.run(_head(url))


def assert_whole(judged: Judged, size: int, root: str) -> None:
    assert judged.verdict is ACCEPTS, judged.reason
    assert f"log with size {size} and root {root} " in judged.reason


def test_tessera_accepts_our_log_at_every_size_while_it_grows(new_log: NewLog, tessera: Tessera) -> None:
    with served(new_log.directory) as url, tessera.follow(url, new_log.vkey) as follower:
        size, root = asyncio.run(_head(url))
        assert size == 0
        assert_whole(tessera.fsck(url, new_log.vkey), 0, root)
        assert follower.look() == f"size 0 root {root} from 0"
        for new_size in SIZES:
            old_size, (size, root) = size, fill(url, size, new_size)
            assert size == new_size
            assert_whole(tessera.fsck(url, new_log.vkey), size, root)
            assert follower.look() == f"size {size} root {root} from {old_size}"
        assert follower.look() == f"size {size} root {root} from {size}"


def test_tessera_accepts_our_log_after_each_of_many_small_steps(new_log: NewLog, tessera: Tessera) -> None:
    with served(new_log.directory) as url, tessera.follow(url, new_log.vkey) as follower:
        assert follower.look().startswith("size 0 ")
        for old_size, new_size in zip(range(0, 540, 17), range(17, 540, 17), strict=False):
            size, root = fill(url, old_size, new_size)
            assert follower.look() == f"size {size} root {root} from {old_size}"
        assert_whole(tessera.fsck(url, new_log.vkey), size, root)


def test_tesseras_integration_test_passes(new_log: NewLog, tessera: Tessera) -> None:
    with served(new_log.directory) as url:
        fill(url, 0, 200)
        result = tessera.integration(url, new_log.vkey, entries=300)
        size, root = asyncio.run(_head(url))
        judged = tessera.fsck(url, new_log.vkey)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "--- PASS: TestLiveLogIntegration " in result.stdout
    assert size == 500
    assert_whole(judged, size, root)


def test_tesseras_load_test_finds_nothing_wrong(new_log: NewLog, tessera: Tessera) -> None:
    with served(new_log.directory) as url:
        fill(url, 0, 200)
        result = tessera.hammer(url, new_log.vkey, entries=300)
        judged = tessera.fsck(url, new_log.vkey)  # of a log that may still be growing: its last writes were under way
    assert result.returncode == 0, result.stderr
    assert "Reached tree size goal of 500 " in result.stderr
    # Once it has reached its goal it breaks off its own requests, and warns of those that were under way.
    warnings = re.findall(r"^[WEF]\d{4} .*", result.stderr, flags=re.MULTILINE)
    assert [line for line in warnings if not _BROKEN_OFF.fullmatch(line)] == []
    assert judged.verdict is ACCEPTS, judged.reason


def test_our_fsck_accepts_our_log_at_every_size(new_log: NewLog) -> None:
    size = 0
    with served(new_log.directory) as url:
        for new_size in (0, *SIZES):
            size, _ = fill(url, size, new_size)
            result = run_fsck(url, new_log.policy)
            assert result.returncode == 0, result.stdout + result.stderr
            assert not named_resources(result)


class Damage(NamedTuple):
    """One damaged answer of a log of `size`; what Tessera's fsck makes of it, and what its reason has in it."""

    size: int
    path: str
    change: Callable[[bytes], bytes | None]
    verdict: Verdict
    reason: str


def _gone(_: bytes) -> None:
    return None


LAST_OF_001 = len(b"entry 511")
DAMAGE = {
    "full tile, flipped": Damage(700, "tile/0/000", lambda b: flip(b, 100), HANGS, "Tiles/0: \n[0, 1):Invalid, "),
    "full tile, gone": Damage(700, "tile/0/000", _gone, HANGS, "Tiles/0: \n[0, 1):FetchError, "),
    "full tile, cut": Damage(700, "tile/0/001", lambda b: b[:-1], HANGS, "Tiles/0: \n[0, 1):OK, [1, 2):Invalid, "),
    "full tile of level 1, flipped": Damage(70_000, "tile/1/000", lambda b: flip(b, 0), HANGS, "Tiles/1: \n[0, 1):Invalid, "),
    "partial tile, flipped": Damage(
        700, "tile/0/002.p/188", lambda b: flip(b, -1), REFUSES, "failed: tile/0/002.p/188: log has:"
    ),
    "partial tile, gone": Damage(700, "tile/0/002.p/188", _gone, REFUSES, "neither partial nor full resource found: "),
    "partial tile, with a hash more": Damage(700, "tile/0/002.p/188", lambda b: b + bytes(32), ACCEPTS, ""),
    "partial tile of level 1, flipped": Damage(
        700, "tile/1/000.p/2", lambda b: flip(b, 0), REFUSES, "failed: tile/1/000.p/2: "
    ),
    "bundle, an entry flipped": Damage(700, "tile/entries/001", lambda b: flip(b, 2), HANGS, "[1, 2):Invalid, "),
    "last bundle, an entry flipped": Damage(
        700, "tile/entries/002.p/188", lambda b: flip(b, -1), REFUSES, "failed: tile/0/002.p/188: log has:"
    ),
    "bundle, a length flipped": Damage(700, "tile/entries/001", lambda b: flip(b, 1), REFUSES, "AppendBundle({1 0 0 256}): "),
    "bundle, gone": Damage(700, "tile/entries/001", _gone, REFUSES, "/tile/entries/001"),
    "bundle, cut inside an entry": Damage(700, "tile/entries/001", lambda b: b[:-1], REFUSES, "AppendBundle({1 0 0 256}): "),
    "bundle, its last entry cut": Damage(
        700, "tile/entries/001", lambda b: b[: -2 - LAST_OF_001], CRASHES, "index out of range [255] with length 255"
    ),
    "bundle, empty": Damage(700, "tile/entries/001", lambda _: b"", CRASHES, "index out of range [0] with length 0"),
    "bundle, with an entry more": Damage(700, "tile/entries/001", lambda b: b + bytes(2), ACCEPTS, ""),
    "last bundle, with an entry more": Damage(700, "tile/entries/002.p/188", lambda b: b + bytes(2), ACCEPTS, ""),
    "checkpoint, its root changed": Damage(
        700, "checkpoint", lambda b: b.replace(b"GQx2", b"HQx2"), REFUSES, "failed to verify signatures on checkpoint"
    ),
    "checkpoint, another root signed": Damage(
        700, "checkpoint", lambda _: sign_head(700, bytes(32)), REFUSES, "calculated root 190c763c"
    ),
    "checkpoint, gone": Damage(700, "checkpoint", _gone, REFUSES, "failed to fetch and verify checkpoint"),
}


def damaged_log(damage: Damage) -> Answer:
    log = make_log(damage.size)
    good = log.files[damage.path]
    assert damage.change(good) != good
    return damaged(log, damage.path, damage.change)


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, damage in DAMAGE.items()])
def test_what_tesseras_fsck_makes_of_damage(damage: Damage, tessera: Tessera, site: Site) -> None:
    url = site.add(damaged_log(damage))
    judged = tessera.fsck(url, str(LOG_KEY.vkey))
    assert judged.verdict is damage.verdict, judged.reason
    assert damage.reason in judged.reason
    if damage.verdict is HANGS:  # not so with more workers than there is damage
        assert tessera.fsck(url, str(LOG_KEY.vkey), workers=4).verdict is REFUSES


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_our_fsck_names_exactly_what_is_damaged(damage: Damage, site: Site, tmp_path: Path) -> None:
    """Without a checkpoint there is nothing to check, and the log is at fault: status 3."""
    policy = tmp_path / "policy"
    policy.write_text(format_log_policy([LOG_KEY.vkey, OTHER_KEYS[0].vkey]))
    result = run_fsck(site.add(damaged_log(damage)), policy)
    assert result.returncode == (3 if damage == DAMAGE["checkpoint, gone"] else 1), result.stdout + result.stderr
    expected = set() if damage.path == "checkpoint" else {damage.path}
    assert named_resources(result) == expected, result.stdout + result.stderr


def test_tesseras_fsck_ignores_a_changed_ml_dsa_signature(tessera: Tessera, site: Site) -> None:
    log = make_log(700)

    def change(note: bytes) -> bytes:
        lines = note.split(b"\n")
        assert len(lines[5]) > 3_000
        other = b"B" if lines[5][2_000:2_001] == b"A" else b"A"  # still base64
        return b"\n".join([*lines[:5], lines[5][:2_000] + other + lines[5][2_001:], *lines[6:]])

    judged = tessera.fsck(site.add(damaged(log, "checkpoint", change)), log.vkey)
    assert_whole(judged, log.size, b64encode(log.root).decode())


def test_tesseras_fsck_refuses_our_log_under_another_key(tessera: Tessera, site: Site) -> None:
    other = SKey(name=LOG_KEY.name, type=KeyType.ED25519, seed=bytes(32))
    judged = tessera.fsck(site.add(make_log(1).answer), str(other.vkey))
    assert judged.verdict is REFUSES
    assert "failed to verify signatures on checkpoint" in judged.reason


class Show:
    """An Answer that can be changed while it is served."""

    def __init__(self, log: StaticLog) -> None:
        self.answer: Answer = log.answer

    def __call__(self, target: str) -> bytes | None:
        return self.answer(target)


def test_tesseras_client_finds_that_a_fork_is_no_continuation(tessera: Tessera, site: Site) -> None:
    show = Show(make_log(300))
    with tessera.follow(site.add(show), str(LOG_KEY.vkey)) as follower:
        assert follower.look().startswith("size 300 ")
        show.answer = make_log(700, forked_at=17).answer
        assert "log consistency check failed" in follower.look()


@pytest.mark.parametrize("log", [make_log(300, forked_at=17), make_log(299)], ids=["another tree of that size", "smaller tree"])
def test_tesseras_client_keeps_silent_about_a_checkpoint_that_is_no_larger(
    log: StaticLog, tessera: Tessera, site: Site
) -> None:
    """It goes on with the checkpoint it had. Our client finds both."""
    show = Show(make_log(300))
    with tessera.follow(site.add(show), str(LOG_KEY.vkey)) as follower:
        first = follower.look()
        show.answer = damaged(make_log(300), "checkpoint", lambda _: log.files["checkpoint"])
        assert follower.look() == first.replace("from 0", "from 300")


def test_tesseras_client_takes_up_from_an_old_checkpoint(tessera: Tessera, site: Site, tmp_path: Path) -> None:
    log, old = make_log(700), tmp_path / "old"
    url = site.add(log.answer)
    for size in (1, 256, 300, 700):
        old.write_bytes(log.checkpoint_at(size))
        with tessera.follow(url, log.vkey, old=old) as follower:
            assert follower.look() == f"size 700 root {b64encode(log.root).decode()} from 0"
    old.write_bytes(make_log(300, forked_at=17).files["checkpoint"])
    with tessera.follow(url, log.vkey, old=old) as follower:
        assert "log consistency check failed" in follower.look()


@pytest.mark.parametrize(
    ("path", "change", "said"),
    [
        pytest.param("tile/entries/001", lambda b: flip(b, 2), "entry 256 in tile/entries/001 is not the one", id="bundle"),
        pytest.param("tile/entries/001", lambda b: b + bytes(2), "tile/entries/001: 257 entries", id="long bundle"),
        pytest.param("tile/0/001", lambda b: flip(b, 0), "entry 256 in tile/entries/001 is not the one", id="tile"),
        pytest.param("tile/1/000.p/2", lambda b: flip(b, 0), "proof of entry ", id="tile of level 1"),
        pytest.param("tile/0/002.p/188", _gone, "tile/0/002", id="tile gone"),
        pytest.param("checkpoint", lambda b: flip(b, 0), "first checkpoint: ", id="checkpoint"),
        pytest.param("checkpoint", lambda _: sign_head(700, bytes(32)), "the entries make the root 190c763c", id="root"),
    ],
)
def test_tesseras_client_finds_damage(
    path: str, change: Callable[[bytes], bytes | None], said: str, tessera: Tessera, site: Site
) -> None:
    log = make_log(700)
    with tessera.follow(site.add(damaged(log, path, change)), log.vkey) as follower:
        answer = follower.look()
    assert answer.startswith("follow: ")
    assert said in answer
