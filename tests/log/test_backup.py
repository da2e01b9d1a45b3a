"""Copies of a whole log: what they hold, what they refuse, and that a copy broken off at any write leaves the old one whole."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from log.check_log import Tree, check_log
from log.harness import META, ORIGIN, POLICY
from log.sources import MemorySource, TreeLog
from translog.core.keys import KeyType, SKey
from translog.core.policy import Policy, parse_policy
from translog.core.tile import Bundle, bundles_of, format_tile_path
from translog.errors import CorruptionError, SettingsError, SignatureError, StorageError, TranslogError
from translog.log.backup import Copied, back_up, fill_store
from translog.log.fsck import Checker
from translog.storage.folder import Folder
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.memory import MemoryDisk, MemoryStore
from translog.storage.source import Damage, TreeSource, encode_kept
from translog.storage.store import LogMeta, Profile

LOG = TreeLog()
SIZES = (0, 1, 2, 255, 256, 257, 511, 512, 513)
LARGE = (65_535, 65_536, 65_537)
OTHER_KEY = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes([7]) * 32)


def quiet(done: int, total: int) -> None:
    """Nobody watches."""


def source(size: int, latest: int | None = None, kept: Sequence[int] = (), **more: object) -> MemorySource:
    """The log with `size` entries, all of them published unless `latest` says otherwise."""
    return MemorySource(LOG, size, size if latest is None else latest, kept, **more)  # type: ignore[arg-type]


def copy(origin: TreeSource, folder: Path, policy: Policy | None = POLICY) -> Copied:
    return back_up(origin, Folder(folder), policy=policy, progress=quiet)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, and every empty directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if path.is_file() or not any(path.iterdir())
    }


def require_whole(folder: Path, *, size: int, checkpoints: Sequence[int]) -> None:
    """fsck finds `size` entries and those checkpoints, all of them good."""
    report = Checker(lambda: Folder(folder), policy=POLICY, processes=1, progress=quiet).run()
    assert (report.damages, report.size) == ([], size)
    assert report.good.get("checkpoints", 0) == len(set(checkpoints))
    reader = Folder(folder)
    contents = reader.contents()
    assert contents.state is not None
    assert contents.state.root == LOG.edge(size).root
    assert [getattr(item, "size", item) for item in reader.checkpoints()] == sorted({*checkpoints} & _kept(folder))
    for read, bundle in zip(reader.bundles(bundles_of(start=0, end=size)), bundles_of(start=0, end=size), strict=True):
        base = bundle.index * 256
        assert (list(read.entries), read.problem) == (LOG.entries(base, base + bundle.width), "")


def _kept(folder: Path) -> set[int]:
    lines = (folder / "checkpoints.ndjson").read_bytes().splitlines() if (folder / "checkpoints.ndjson").exists() else []
    return {int(line.split(b",")[0].removeprefix(b'{"size":')) for line in lines}


@lru_cache(maxsize=32)
def tree_files(size: int) -> dict[str, bytes]:
    """Tiles and bundles of the tree of `size` by path, from the recursive definition."""
    found = {format_tile_path(tile): data for tile, data in Tree(LOG.entries(0, size)).tiles().items()}
    for first in range(0, size, 256):
        entries = LOG.entries(first, min(first + 256, size))
        data = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
        found[format_tile_path(Bundle(index=first // 256, width=len(entries)))] = data
    return found


def files_of(size: int, latest: int, kept: Sequence[int]) -> dict[str, bytes]:
    """The files that a backup is made of, by the words of tlog-tiles: every full tile and bundle, and of the tree and of the
    checkpoint the partial ones."""
    found: dict[str, bytes] = {}
    for head in {size, latest}:
        found |= tree_files(head)
    found["checkpoint"] = LOG.checkpoint(latest).note
    found["checkpoints.ndjson"] = b"".join(encode_kept(LOG.checkpoint(at)) for at in kept)
    return found


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the disk, in tests that do not look at that."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# --- what a backup holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, *LARGE])
def test_a_backup_is_the_files_of_tlog_tiles_and_its_own_two(tmp_path: Path, no_sync: None, size: int) -> None:
    kept = sorted({0, size // 2, size})
    copied = copy(source(size, kept=kept), tmp_path / "out")
    assert (copied.state, copied.new_entries, copied.new_checkpoints) == (LOG.state(size), size, len(kept))
    assert (copied.meta, copied.latest) == (META, LOG.checkpoint(size))
    expected = files_of(size, size, kept)
    assert snapshot(tmp_path / "out").keys() - expected.keys() == {"backup.json"}
    assert {name: data for name, data in snapshot(tmp_path / "out").items() if name != "backup.json"} == expected
    require_whole(tmp_path / "out", size=size, checkpoints=kept)


@pytest.mark.parametrize(
    ("size", "latest"),
    [(1, 0), (2, 1), (256, 255), (257, 255), (257, 256), (300, 10), (513, 255), (513, 300), (65_537, 65_535), (65_600, 300)],
)
def test_entries_that_are_not_published_yet_are_in_it_and_the_checkpoint_can_be_read(
    tmp_path: Path, no_sync: None, size: int, latest: int
) -> None:
    copied = copy(source(size, latest, kept=[0]), tmp_path / "out")
    assert (copied.state.size, copied.latest) == (size, LOG.checkpoint(latest))
    assert snapshot(tmp_path / "out").items() >= files_of(size, latest, [0]).items()
    assert len(snapshot(tmp_path / "out")) == len(files_of(size, latest, [0])) + 1
    require_whole(tmp_path / "out", size=size, checkpoints=[0, latest])


@pytest.mark.parametrize("size", [0, 300])
def test_a_log_that_published_nothing_can_be_backed_up(tmp_path: Path, size: int) -> None:
    for _ in range(2):
        copied = copy(MemorySource(LOG, size, None), tmp_path / "out")
        assert (copied.latest, copied.state) == (None, LOG.state(size))
        assert not (tmp_path / "out" / "checkpoint").exists()
        require_whole(tmp_path / "out", size=size, checkpoints=[])


def test_what_the_log_is_and_when_it_took_its_newest_entry_are_kept(tmp_path: Path) -> None:
    meta = LogMeta(format_version=3, origin=ORIGIN, profile=Profile.EVENTS, minimum_index=2**62)
    copy(source(5, meta=meta), tmp_path / "out")
    contents = Folder(tmp_path / "out").contents()
    assert (contents.meta, contents.state) == (meta, LOG.state(5))


# --- a backup is continued ----------------------------------------------------------------------------------------------

PAIRS = [*combinations_with_replacement(SIZES, 2), *((old, new) for old in (0, 1, 256, 513, *LARGE) for new in LARGE)]


@pytest.mark.parametrize(("old", "new"), [pair for pair in PAIRS if pair[0] <= pair[1]])
def test_a_backup_continued_is_the_same_as_one_made_at_once(tmp_path: Path, no_sync: None, old: int, new: int) -> None:
    kept = [size for size in (0, 1, 256, old, new) if size <= new]
    kept = sorted(set(kept))
    copy(source(old, kept=[size for size in kept if size <= old]), tmp_path / "out")
    seen = source(new, kept=kept)
    copied = copy(seen, tmp_path / "out")
    assert (copied.new_entries, copied.new_checkpoints) == (new - old, len([size for size in kept if size > old]))
    assert seen.read == list(range(old // 256, -(-new // 256))) if new > old else not seen.read
    copy(source(new, kept=kept), tmp_path / "fresh")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_kept_checkpoints_of_earlier_runs_stay(tmp_path: Path) -> None:
    for size in (0, 3, 300, 300, 301):
        copy(source(size, kept=[at for at in (0, 3, 299, 301) if at <= size]), tmp_path / "out")
    require_whole(tmp_path / "out", size=301, checkpoints=[0, 3, 299, 301])
    assert sorted(_kept(tmp_path / "out")) == [0, 3, 299, 301]


def test_a_checkpoint_once_seen_is_not_given_up_for_an_older_one(tmp_path: Path) -> None:
    copy(source(300, 290, kept=[0]), tmp_path / "out")
    copied = copy(source(400, 280, kept=[0]), tmp_path / "out")  # a publication is not synced: a crash can lose it
    assert copied.latest == LOG.checkpoint(290)
    assert snapshot(tmp_path / "out").items() >= files_of(400, 290, [0]).items()
    require_whole(tmp_path / "out", size=400, checkpoints=[0, 290])


def test_the_newest_signature_at_the_same_size_is_taken(tmp_path: Path) -> None:
    copy(source(10), tmp_path / "out")
    more = TreeLog(skey=OTHER_KEY).checkpoint(10).note.partition(b"\n\n")[2]
    anew = replace(LOG.checkpoint(10), note=LOG.checkpoint(10).note + more)
    copy(source(10, lies={10: anew}), tmp_path / "out")
    assert (tmp_path / "out" / "checkpoint").read_bytes() == anew.note


# --- what is refused ----------------------------------------------------------------------------------------------------


@contextmanager
def unchanged(folder: Path, *, size: int, checkpoints: Sequence[int]) -> Iterator[None]:
    """The backup in the folder stays what it was, byte for byte where it counts, and can be continued."""
    before = snapshot(folder)
    yield
    after = snapshot(folder)
    assert {name: after.get(name) for name in before} == before
    require_whole(folder, size=size, checkpoints=checkpoints)


@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        (MemorySource(TreeLog(origin="log.example/other"), 400, 400), "backup-of-another-log", "'log.example/other'"),
        (source(299), "backup-is-newer", "has 300 entries, the log only 299"),
        (source(0), "backup-is-newer", "only 0"),
        (MemorySource(LOG, 300, 300, damages=[Damage(resource="key 'x'", problem="is odd")]), "corrupt", "key 'x': is odd"),
        (MemorySource(TreeLog({299: b"another"}), 300, 300), "corrupt", "the first 300 entries do not have the root"),
        (MemorySource(TreeLog({0: b"another"}), 400, 400), "corrupt", "the first 400 entries do not have the root"),
        (MemorySource(TreeLog({0: b"another"}), 400, 400, [350]), "corrupt", "checkpoint of size 350"),
        (MemorySource(TreeLog({0: b"another"}), 4_000, 4_000, [301]), "corrupt", "checkpoint of size 301"),
        (MemorySource(TreeLog({260: b"another"}), 400, 400), "corrupt", "an entry from 256 on"),
        (MemorySource(TreeLog({299: b"another"}), 5_000, 5_000), "corrupt", "an entry from 256 on"),
        (MemorySource(TreeLog({0: b"another"}), 400, 400, [250]), "corrupt", "checkpoint of size 250"),
    ],
)
def test_another_log_or_an_older_or_another_history_is_refused(
    tmp_path: Path, no_sync: None, wrong: MemorySource, code: str, says: str
) -> None:
    folder = tmp_path / "out"
    copy(source(300, kept=[0, 200]), folder)
    wrong = replace(wrong, meta=replace(META, origin=wrong.log.origin))
    with unchanged(folder, size=300, checkpoints=[0, 200, 300]), pytest.raises(TranslogError) as caught:
        copy(wrong, folder, policy=None)
    assert (caught.value.code, says in caught.value.detail) == (code, True), caught.value
    copy(source(5_000, kept=[0, 200, 301]), folder)
    copy(source(5_000, kept=[0, 200, 301]), tmp_path / "fresh")
    assert snapshot(folder) == snapshot(tmp_path / "fresh")


DAMAGED: list[tuple[MemorySource, str]] = [
    (source(600, lost={599: "is missing"}), "entry 599: is missing"),
    (source(600, lost={0: "cannot be read", 1: "cannot be read"}), "entry 0: cannot be read"),
    (source(600, lost={256: "is missing"}), "entry 256: is missing"),
    (source(600, lies={600: LOG.checkpoint(600, root=bytes(32))}), "contradict each other"),
    (source(600, kept=[100], lies={100: LOG.checkpoint(100, root=bytes(32))}), "the first 100 entries do not have the root"),
    (source(600, kept=[256], lies={256: LOG.checkpoint(256, root=bytes(32))}), "the first 256 entries do not have the root"),
    (source(600, 599, lies={599: LOG.checkpoint(599, root=bytes(32))}), "the checkpoint of size 599 states"),
    (source(600, kept=[0], lies={0: LOG.checkpoint(0, root=bytes(32))}), "contradict each other"),
    (source(0, lies={0: LOG.checkpoint(0, root=bytes(32))}), "contradict each other"),
    (
        source(600, kept=[100], lies={100: replace(LOG.checkpoint(100), note=LOG.checkpoint(101).note)}),
        "the checkpoint of size 100 says that it is of size 101",
    ),
    (source(600, 601), "a checkpoint of size 601 was published, and only 600 entries are left"),
    (source(600, kept=[601]), "a checkpoint of size 601 was published"),
    (source(600, kept=[100], lies={100: replace(LOG.checkpoint(100), note=b"noise")}), "the checkpoint of size 100: "),
    (source(600, meta=replace(META, origin="log.example/other")), "checkpoints of several logs"),
]


@pytest.mark.parametrize(("damaged", "says"), DAMAGED, ids=[says[:40] for _, says in DAMAGED])
def test_a_damaged_log_is_refused_naming_the_place_and_nothing_half_made_counts(
    tmp_path: Path, no_sync: None, damaged: MemorySource, says: str
) -> None:
    with pytest.raises(CorruptionError) as caught:
        copy(damaged, tmp_path / "out", None)
    assert says in caught.value.detail
    assert not (tmp_path / "out" / "backup.json").exists()
    with pytest.raises(CorruptionError) as caught:
        fill_store(damaged, lambda meta: MemoryStore(MemoryDisk(meta=meta)), policy=None, progress=quiet)
    assert says in caught.value.detail


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (source(600, kept=[300, 310], lost={310: "is missing"}), "entry 310: is missing"),
        (source(600, kept=[310], lies={310: LOG.checkpoint(310, root=bytes(32))}), "the first 310 entries"),
        (source(300, kept=[299], lies={299: LOG.checkpoint(299, root=bytes(32))}), "the first 299 entries"),
        (source(600, kept=[600], lies={600: LOG.checkpoint(600, root=bytes(32))}), "contradict each other"),
    ],
)
def test_a_damaged_log_does_not_spoil_the_backup_that_is_there(
    tmp_path: Path, no_sync: None, damaged: MemorySource, says: str
) -> None:
    copy(source(300, kept=[50]), tmp_path / "out")
    with unchanged(tmp_path / "out", size=300, checkpoints=[50, 300]), pytest.raises(CorruptionError) as caught:
        copy(damaged, tmp_path / "out")
    assert says in caught.value.detail


@pytest.mark.parametrize("where", ["latest", "kept"])
def test_a_checkpoint_that_the_policy_does_not_accept_is_refused(tmp_path: Path, where: str) -> None:
    liar = TreeLog(skey=OTHER_KEY)
    at = {"latest": 10, "kept": 7}[where]
    wrong = source(10, kept=[0, 7], lies={at: liar.checkpoint(at)})
    with pytest.raises(SignatureError) as caught:
        copy(wrong, tmp_path / "out")
    assert caught.value.detail.startswith(f"the checkpoint of size {at}: ")
    assert not (tmp_path / "out").exists()
    copy(wrong, tmp_path / "out", parse_policy(f"log {OTHER_KEY.vkey}\nlog {LOG.skey.vkey}\nquorum none\n".encode()))
    assert _kept(tmp_path / "out") == {0, 7}


def test_nothing_known_about_the_size_is_refused(tmp_path: Path) -> None:
    class Nothing(MemorySource):
        def contents(self):  # type: ignore[no-untyped-def]
            return replace(super().contents(), state=None, latest=None)

    with pytest.raises(CorruptionError, match="neither a tree state nor a checkpoint is left"):
        copy(Nothing(LOG, 5, 5), tmp_path / "out")
    assert copy(Nothing(LOG, 5, 5, kept=[0, 4]), tmp_path / "out").state.size == 4


def test_a_log_that_states_any_size_is_read_entry_by_entry(tmp_path: Path) -> None:
    """A list of 2^54 bundles would take all memory before the first is looked at."""

    class Endless(MemorySource):
        def contents(self):  # type: ignore[no-untyped-def]
            return replace(super().contents(), state=replace(LOG.state(300), size=2**62), latest=None)

    with pytest.raises(CorruptionError, match="entry 300: is missing"):
        copy(Endless(LOG, 300, 300, lost={300: "is missing"}), tmp_path / "out")


def test_checkpoints_that_come_twice_or_out_of_order_are_taken_once(tmp_path: Path) -> None:
    class Repeating(MemorySource):
        def checkpoints(self, *, size_min: int = 0):  # type: ignore[no-untyped-def]
            yield from super().checkpoints()
            yield from super().checkpoints()

    for size in (10, 20):
        copy(Repeating(LOG, size, size, [at for at in (0, 7, 20) if at <= size]), tmp_path / "out")
    copy(source(20, kept=[0, 7, 20]), tmp_path / "fresh")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_a_log_that_grows_between_two_questions_is_asked_again(tmp_path: Path) -> None:
    class Growing(MemorySource):
        def checkpoints(self, *, size_min: int = 0):  # type: ignore[no-untyped-def]
            self.size = self.latest = 700
            self.kept = [0, 650, 700]
            yield from super().checkpoints(size_min=size_min)

    assert copy(Growing(LOG, 600, 600, [0]), tmp_path / "out").state.size == 700
    require_whole(tmp_path / "out", size=700, checkpoints=[0, 650, 700])


# --- a folder that is not what it was ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["tile/entries/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1"], ids=lambda path: path.replace("/", "-")
)
@pytest.mark.parametrize("how", ["lost", "altered"])
def test_a_backup_whose_edge_is_damaged_is_not_continued(tmp_path: Path, path: str, how: str) -> None:
    folder = tmp_path / "out"
    copy(source(300, kept=[0]), folder)
    if how == "lost":
        (folder / path).unlink()
    else:
        (folder / path).write_bytes(bytes(len((folder / path).read_bytes())))
    before = snapshot(folder)
    if "entries" in path:  # the entries of the last bundle are written anew, and were hashed
        copy(source(400, kept=[0]), folder)
        require_whole(folder, size=400, checkpoints=[0, 400])
        return
    with pytest.raises(CorruptionError, match=r"the backup is damaged: (tile/|the tiles)") as caught:
        copy(source(400, kept=[0]), folder)
    assert "start a new one" in caught.value.hint
    assert snapshot(folder) == before


def test_kept_checkpoints_torn_at_any_byte_are_read_up_to_there_and_brought_back(tmp_path: Path, no_sync: None) -> None:
    folder = tmp_path / "out"
    copy(source(20, kept=[0, 7]), folder)
    path = folder / "checkpoints.ndjson"
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        complete = whole[:end].count(b"\n")
        assert [getattr(item, "size", item) for item in _checkpoints(folder)] == [0, 7][:complete]
        copied = copy(source(20, kept=[0, 7]), folder)
        assert copied.new_checkpoints == 2 - complete
        assert path.read_bytes() == whole


def _checkpoints(folder: Path) -> list[object]:
    reader = Folder(folder)
    reader.contents()
    return list(reader.checkpoints())


def test_a_kept_checkpoint_that_is_damaged_stops_the_backup_and_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    copy(source(20, kept=[0, 7, 20]), folder)
    path = folder / "checkpoints.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"size":7}\n' + lines[2])
    before = snapshot(folder)
    with pytest.raises(CorruptionError, match=r"checkpoints\.ndjson, line 2 is not a kept checkpoint"):
        copy(source(30, kept=[0, 7, 20]), folder)
    assert snapshot(folder) == before


def test_two_backups_do_not_write_at_once(tmp_path: Path) -> None:
    def second(bundle: Bundle) -> None:
        with pytest.raises(SettingsError) as caught:
            copy(source(300), tmp_path / "out")
        assert caught.value.code == "directory-in-use"
        told.append(bundle)

    told: list[Bundle] = []
    copy(source(300, before_bundle=second), tmp_path / "out")
    assert len(told) == 2
    require_whole(tmp_path / "out", size=300, checkpoints=[300])


# --- broken off at every write ------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """The program ends here, as by a signal."""


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, what: str, at: int, error: BaseException, *, applied: bool) -> Iterator[list[int]]:
    """The operation of that name and number fails, before it is done or after."""
    calls = [0]
    owner: object = {"fsync": os, "open": os}.get(what, Path)
    real: Callable[..., object] = getattr(owner, what)

    def count(*arguments: object, **options: object) -> object:
        if "w" not in str(options.get("mode", arguments[1:2])) and what == "open" and not _writes(arguments):
            return real(*arguments, **options)
        calls[0] += 1
        if calls[0] - 1 != at:
            return real(*arguments, **options)
        if applied:
            real(*arguments, **options)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(owner, what, count)
        yield calls


def _writes(arguments: Sequence[object]) -> bool:
    return len(arguments) > 1 and isinstance(arguments[1], int) and bool(arguments[1] & os.O_CREAT)


OLD = (300, 290, [0, 200])
NEW = (600, 590, [0, 200, 290, 400])


def broken_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, what: str, at: int, error: BaseException, applied: bool
) -> bool:
    """Runs the backup with that failure; whether it got so far as to fail."""
    with failing(monkeypatch, what, at, error, applied=applied) as calls:
        try:
            copy(source(NEW[0], NEW[1], NEW[2]), folder)
        except (StorageError, Stopped):
            return True
    assert calls[0] <= at, "a failed write was taken for a good one"
    return False


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Stopped()], ids=["full", "stopped"])
@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("what", "first"),
    [
        *((what, first) for what in ("fsync", "open", "replace", "mkdir") for first in (True, False)),
        ("unlink", False),  # a first backup has nothing to delete
        ("rmdir", False),
    ],
)
def test_broken_off_at_every_step_the_old_backup_is_whole_and_the_next_run_completes_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_sync: None,
    what: str,
    applied: bool,
    error: BaseException,
    first: bool,
) -> None:
    copy(source(*NEW), tmp_path / "fresh")
    expected = snapshot(tmp_path / "fresh")
    copy(source(*OLD), tmp_path / "old")
    steps = 0
    while True:
        folder = tmp_path / f"out-{steps}"
        if not first:
            shutil.copytree(tmp_path / "old", folder)
        failed = broken_off(folder, monkeypatch, what=what, at=steps, error=error, applied=applied)
        if failed and (folder / "backup.json").exists():
            size = Folder(folder).read_backup().state.size  # type: ignore[union-attr]
            assert size in ((NEW[0],) if first else (OLD[0], NEW[0]))
            known = OLD if size == OLD[0] else NEW
            require_whole(folder, size=size, checkpoints=[*known[2], known[1]])
        elif failed:
            assert first
            assert not (folder / "checkpoint").exists()
        copy(source(*NEW), folder)
        assert snapshot(folder) == expected
        shutil.rmtree(folder)
        steps += 1
        if not failed:
            break
    assert steps > 1, "nothing of that kind was ever done"


HEADS = st.sampled_from([0, 1, 2, 100, 255, 256, 257, 300, 511, 512, 513, 600])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(st.tuples(HEADS, HEADS, st.none() | st.integers(0, 40)), min_size=1, max_size=5),
    what=st.sampled_from(["fsync", "replace", "unlink"]),
)
def test_runs_of_any_sizes_broken_off_anywhere_end_as_one_run_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_sync: None, runs: list[tuple[int, int, int | None]], what: str
) -> None:
    folder, fresh = tmp_path / "out", tmp_path / "fresh"
    size = latest = 0
    for sizes in runs:
        size = max(size, *sizes[:2])
        latest = min(size, max(latest, min(sizes[:2])))
        now = source(size, latest, [at for at in (0, 2, 255, 300, 512) if at <= latest])
        with failing(monkeypatch, what, -1 if sizes[2] is None else sizes[2], Stopped(), applied=False):
            try:
                copy(now, folder)
            except Stopped:
                if (folder / "backup.json").exists():
                    report = Checker(lambda: Folder(folder), policy=POLICY, processes=1, progress=quiet).run()
                    assert not report.damages
    copy(now, folder)
    copy(now, fresh)
    assert snapshot(folder) == snapshot(fresh)
    shutil.rmtree(folder)
    shutil.rmtree(fresh)


def test_everything_is_durable_before_the_backup_says_that_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file, and every directory that got a new name in it, is synced between that and the renaming of backup.json."""
    done: list[tuple[str, Path]] = []
    folder = tmp_path / "a" / "out"
    fsync, rename, mkdir = os.fsync, Path.replace, Path.mkdir

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def record_replace(path: Path, target: Path) -> Path:
        assert ("sync", path) in done, "renamed before it was synced"
        done.append(("name", target))
        return rename(path, target)

    def record_mkdir(path: Path, mode: int = 0o777, **options: bool) -> None:
        mkdir(path, mode, **options)
        done.append(("name", path))

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    monkeypatch.setattr(Path, "mkdir", record_mkdir)
    copy(source(600, 590, [0]), folder)
    end = done.index(("name", folder / "backup.json"))
    named = [path for what, path in done[:end] if what == "name"]
    assert {folder, folder.parent, folder / "tile" / "entries" / "002.p" / "88"} <= set(named)
    for at, (what, path) in enumerate(done[:end]):
        if what == "name":
            assert ("sync", path.parent) in done[at:end], f"the name of {path} may be lost"
    kept = done.index(("sync", folder / "checkpoints.ndjson"))
    assert ("sync", folder) in done[kept:end]
    assert done[end + 1] == ("sync", folder)
    assert done.index(("name", folder / "checkpoint")) > end


# --- back into a store --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "latest"), [(0, 0), (1, 1), (256, 256), (300, 290), (513, 511), (65_537, 65_537), (5_000, 0)])
def test_a_store_filled_is_the_log_again(tmp_path: Path, no_sync: None, size: int, latest: int) -> None:
    kept = sorted({0, latest // 2})  # and not the latest
    copy(source(size, latest, kept), tmp_path / "out")
    for origin in (source(size, latest, kept), Folder(tmp_path / "out")):
        disk = MemoryDisk(meta=META)
        copied = fill_store(origin, partial(_store_on, disk), policy=POLICY, progress=quiet)
        assert (copied.state, copied.latest, copied.new_checkpoints) == (LOG.state(size), LOG.checkpoint(latest), len(kept))
        store = MemoryStore(disk)
        assert store.read_state() == LOG.state(size)
        assert store.read_checkpoint() == LOG.checkpoint(latest)
        assert store.read_checkpoints(size_min=0, count_max=9) == [LOG.checkpoint(at) for at in kept]
        assert check_log(store, POLICY) == LOG.entries(0, size)


def _store_on(disk: MemoryDisk, meta: LogMeta) -> MemoryStore:
    assert meta == disk.meta
    return MemoryStore(disk)


def test_a_store_is_filled_in_several_commits_none_of_them_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.log.backup._COMMIT_BYTES", 10_000)
    disk, commits = MemoryDisk(meta=META), list[int]()

    class Counting(MemoryStore):
        def commit(self, update):  # type: ignore[no-untyped-def]
            commits.append(sum(map(len, update.entries)))
            super().commit(update)

    fill_store(source(5_000, 4_900, [0, 70]), lambda meta: Counting(disk), policy=POLICY, progress=quiet)
    assert len(commits) > 3
    assert sorted(commits)[-2] < 20_000
    check_log(MemoryStore(disk), POLICY)


@pytest.mark.parametrize("size", [300, 0])
def test_what_is_read_back_from_leveldb_is_the_log(tmp_path: Path, size: int) -> None:
    (tmp_path / "log").mkdir()
    meta = LogMeta(format_version=1, origin=ORIGIN, profile=Profile.EVENTS, minimum_index=0)
    with DirectoryLock(tmp_path / "log") as lock:
        fill_store(
            source(size, kept=[0], meta=meta),
            lambda meta: LevelDBStore.create(lock, meta),
            policy=POLICY,
            progress=quiet,
        )
        store = LevelDBStore.open(lock)
        assert store.meta == meta
        assert check_log(store, POLICY) == LOG.entries(0, size)
        store.close()


def test_a_store_that_fails_is_closed(tmp_path: Path) -> None:
    disk = MemoryDisk(meta=META)
    stores: list[MemoryStore] = []

    def create(meta: LogMeta) -> MemoryStore:
        stores.append(MemoryStore(disk))
        return stores[0]

    with pytest.raises(CorruptionError):
        fill_store(source(300, lost={7: "is missing"}), create, policy=POLICY, progress=quiet)
    with pytest.raises(StorageError, match="closed"):
        stores[0].read_state()


def test_progress_is_told_up_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    copy(source(100), tmp_path / "out")
    back_up(source(600), Folder(tmp_path / "out"), policy=POLICY, progress=lambda done, total: told.append((done, total)))
    assert told == [(256, 600), (512, 600), (600, 600)]
