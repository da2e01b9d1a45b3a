"""Every byte of a store, flipped: fsck names the damage, or it is shown that there is none.

Rules: `look` reads a store as the log does, and shares nothing with fsck. What fsck accepts must look as the whole store does;
where that holds is written down below by file and region, so that a region which goes silent turns a test red. Nothing that
is checked is changed by checking it. The stores are so small that every byte of them has its turn.
"""

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from log.check_log import kept_checkpoints

from faults.made_store import ORIGIN, Made, digests, make_store
from translog.core.tile import tiles_of
from translog.errors import TranslogError
from translog.log.fsck import Report
from translog.log.head import SLOT_BYTES, HeadFile
from translog.maintenance import check_log
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock

COMMITS = (2, 2, 1)
MASKS = (0x01, 0x80, 0xFF)
FORMS = ("wal", "tables")


class Outcome(Enum):
    """What becomes of a damaged store."""

    NAMED = "named"
    """fsck says so, or says why it cannot read it."""
    IDENTICAL = "identical"
    """The log opens, and has what it had."""
    LAST_WRITE_LOST = "last write lost"
    """The log opens as it would if the power had failed before its last write, a `publish`, which promises nothing."""
    REFUSED = "refused"
    """The log does not open, and fsck said nothing."""
    DIFFERENT = "different"
    """The log opens as another one, and fsck said nothing."""


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """fsck's work files in memory, where there is such a place."""
    tmp_path_factory.getbasetemp()  # which is not to be there
    if Path("/dev/shm").is_dir():
        monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """The stores in memory too."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="translog-flips-", dir="/dev/shm") as name:
        yield Path(name)


def fsck(directory: Path) -> Report:
    return check_log(str(directory), policy=None, token=None, processes=1, progress=lambda done, total: None)


def fsck_says(directory: Path) -> str:
    """What it names, empty where it accepts."""
    try:
        report = fsck(directory)
    except TranslogError as error:
        return f"{error.detail} {error.hint}"
    return "" if report.whole else "; ".join(f"{damage.resource}: {damage.problem}" for damage in report.damages)


def look(made: Made, work: Path) -> dict[str, Any]:
    """What the log finds in a copy of the store. Raises TranslogError where it does not open, or cannot be read."""
    copy = made.copy(work / "look")
    try:
        with DirectoryLock(copy.directory) as lock:
            store = LevelDBStore.open(lock)
            try:
                state = store.read_state()
                head = HeadFile.open(copy.directory / "head", origin=ORIGIN)
                newest = head.require_newest()
                head.close()
                return {
                    "meta": store.meta,
                    "state": state,
                    "entries": store.read_entries(start=0, end=state.size),
                    "tiles": store.read_tiles(list(tiles_of(state.size))),
                    "kept": store.read_checkpoints(size_min=0, count_max=1_000),
                    "kept, from the end": kept_checkpoints(store),
                    "latest": store.read_checkpoint(),
                    "head": newest,
                }
            finally:
                store.close()
    finally:
        shutil.rmtree(copy.directory)


def judged(made: Made, work: Path, right: dict[str, Any], crashed: dict[str, Any] | None) -> Outcome:
    before = digests(made.directory)
    said = fsck_says(made.directory)
    assert digests(made.directory) == before, "fsck changed what it checked"
    if said:
        return Outcome.NAMED
    try:
        found = look(made, work)
    except TranslogError:
        return Outcome.REFUSED
    if found == right:
        return Outcome.IDENTICAL
    return Outcome.LAST_WRITE_LOST if found == crashed else Outcome.DIFFERENT


def records(wal: bytes) -> list[int]:
    """Where each record of a short log file begins: 7 bytes of checksum, length and type, then the data."""
    begins, at = [], 0
    while at + 7 <= len(wal):
        begins.append(at)
        at += 7 + int.from_bytes(wal[at + 4 : at + 6], "little")
    assert at == len(wal) < 32_768
    return begins


def before_last_write(made: Made, work: Path) -> dict[str, Any] | None:
    """What the log is without the last record of its write-ahead log, a `publish`."""
    if made.table_paths():
        return None
    copy = made.copy(work / "crashed")
    data = copy.wal().read_bytes()
    last = records(data)[-1]
    assert b"latest" in data[last:]
    assert b"state" not in data[last:]
    copy.wal().write_bytes(data[:last])
    try:
        return look(copy, work)
    finally:
        shutil.rmtree(copy.directory)


@dataclass(frozen=True)
class Region:
    """Bytes [begin, end) of a file."""

    name: str
    begin: int
    end: int


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


_BLOCK_TRAILER = 5
"""Type and checksum behind every block."""
_FOOTER = 48


def table_regions(data: bytes) -> list[Region]:
    """A table file by LevelDB's description of the format, doc/table_format.md."""
    footer = len(data) - _FOOTER
    handle = []
    at = footer
    for _ in range(4):
        value, at = _varint(data, at)
        handle.append(value)
    (meta_at, meta_size, index_at, index_size) = handle
    name_at = data.index(b"filter.leveldb.BuiltinBloomFilter2", meta_at) + len(b"filter.leveldb.BuiltinBloomFilter2")
    filter_at, after = _varint(data, name_at)
    filter_size, _ = _varint(data, after)
    meta_handle_end = _varint(data, _varint(data, footer)[1])[1]
    regions = [
        Region("data", 0, filter_at),
        Region("filter", filter_at, filter_at + filter_size + _BLOCK_TRAILER),
        Region("metaindex", meta_at, meta_at + meta_size + _BLOCK_TRAILER),
        Region("index", index_at, index_at + index_size + _BLOCK_TRAILER),
        Region("footer: where the metaindex is", footer, meta_handle_end),
        Region("footer: where the index is", meta_handle_end, at - 1),
        Region("footer: where the index is, last byte", at - 1, at),
        Region("footer: padding", at, len(data) - 8),
        Region("footer: magic number", len(data) - 8, len(data)),
    ]
    assert [region.begin for region in regions] == [0, *(region.end for region in regions[:-1])]
    return regions


def wal_regions(data: bytes) -> list[Region]:
    """A log file by LevelDB's description of the format, doc/log_format.md."""
    regions = []
    begins = records(data)
    for begin, end in zip(begins, [*begins[1:], len(data)], strict=True):
        last = "the last record" if end == len(data) else "a record"
        regions += [
            Region(f"{last}: checksum", begin, begin + 4),
            Region(f"{last}: length, low byte", begin + 4, begin + 5),
            Region(f"{last}: length, high byte", begin + 5, begin + 6),
            Region(f"{last}: type", begin + 6, begin + 7),
            Region(f"{last}: data", begin + 7, end),
        ]
    return regions


def kind_of(path: Path) -> str:
    return path.suffix.removeprefix(".") if path.suffix else path.name.partition("-")[0]


def regions_of(path: Path, data: bytes) -> list[Region]:
    """The parts of a file, each of which is to have one kind of outcome."""
    if kind_of(path) == "ldb":
        return table_regions(data)
    if kind_of(path) in ("log", "MANIFEST") and data:
        return wal_regions(data)
    return [Region("all of it", 0, len(data))]


def changed(data: bytes, at: int, mask: int) -> bytes:
    out = bytearray(data)
    out[at] ^= mask
    return bytes(out)


def masks_at(region: Region, at: int) -> tuple[int, ...]:
    """What to flip: in what LevelDB itself interprets every bit pattern, in data, where only a checksum counts, one each."""
    return (MASKS[at % len(MASKS)],) if region.name.endswith("data") or region.name == "all of it" else MASKS


HARMLESS = {
    # LevelDB's own diary, which nobody reads.
    ("LOG", "all of it"): {Outcome.IDENTICAL},
    # Checked by checksum, and only ever used to read less: with a damaged one LevelDB reads every block.
    ("ldb", "filter"): {Outcome.IDENTICAL},
    # Says where the filter is. The same.
    ("ldb", "metaindex"): {Outcome.IDENTICAL},
    # Says where that is. A flip of a top bit makes a number longer, so that the next ones are read wrongly: that is named.
    ("ldb", "footer: where the metaindex is"): {Outcome.IDENTICAL, Outcome.NAMED},
    # The top bit makes the number go on into the padding, whose zeros are worth nothing: it is the same number.
    ("ldb", "footer: where the index is, last byte"): {Outcome.IDENTICAL, Outcome.NAMED},
    # Zeros that fill the footer up to its length.
    ("ldb", "footer: padding"): {Outcome.IDENTICAL},
    # A length that leads beyond the end of the file is a record whose writing was cut off by a crash, for LevelDB and for
    # everybody: the log goes on from the write before. Losing an earlier record so is seen, from DIR/head at the latest.
    ("log", "the last record: length, high byte"): {Outcome.NAMED, Outcome.LAST_WRITE_LOST},
}
"""Every region where a flip is not always named, and what it is there. All others: always named."""


@pytest.mark.parametrize("form", FORMS)
def test_every_byte_of_the_store_is_named_or_shown_to_be_harmless(form: str, home: Path) -> None:
    made = make_store(home / "log", COMMITS, form=form)
    right = look(made, home)
    crashed = before_last_write(made, home)
    before = digests(made.directory)
    found: dict[tuple[str, str], Counter[Outcome]] = {}
    for path in sorted(made.store.iterdir()):
        data = path.read_bytes()
        for region in regions_of(path, data):
            tally = found.setdefault((kind_of(path), region.name), Counter())
            for at in range(region.begin, region.end):
                for mask in masks_at(region, at):
                    path.write_bytes(changed(data, at, mask))
                    tally[judged(made, home, right, crashed)] += 1
        path.write_bytes(data)
    assert sum(tally.total() for tally in found.values()) >= sum(path.stat().st_size for path in made.store.iterdir())
    silent = {where: set(tally) for where, tally in found.items() if tally.keys() - {Outcome.NAMED}}
    kinds = {kind_of(path) for path in made.store.iterdir() if path.stat().st_size}
    assert silent == {where: outcomes for where, outcomes in HARMLESS.items() if where[0] in kinds and where in found}
    assert {name: digest for name, (digest, _) in digests(made.directory).items()} == {
        name: digest for name, (digest, _) in before.items()
    }


def test_a_store_whose_manifest_is_set_back_is_named_and_not_written_to(home: Path) -> None:
    """The length of a record that leads beyond the end makes LevelDB take an older list of its files for the newest. It then
    numbers new tables as old ones, and wrote them over the store's own, before the links to those had a name of their own."""
    made = make_store(home / "log", COMMITS, form="mixed")
    assert len(made.table_paths()) > 1
    right = look(made, home)
    (manifest,) = made.store.glob("MANIFEST-*")
    data = manifest.read_bytes()
    for at in range(len(data)):
        for mask in MASKS:
            manifest.write_bytes(changed(data, at, mask))
            assert judged(made, home, right, None) is Outcome.NAMED, at
    for length in range(len(data)):
        manifest.write_bytes(data[:length])
        assert judged(made, home, right, None) is Outcome.NAMED, length


def test_the_two_forms_have_every_kind_of_file(home: Path) -> None:
    """So that "every file" above means what it says."""
    kinds = set()
    for form in FORMS:
        made = make_store(home / form, COMMITS, form=form)
        kinds |= {(form, kind_of(path)) for path in made.store.iterdir() if path.stat().st_size}
    assert kinds == {
        *(("wal", kind) for kind in ("CURRENT", "LOG", "MANIFEST", "log")),
        *(("tables", kind) for kind in ("CURRENT", "LOG", "MANIFEST", "ldb")),
    }


def test_every_byte_of_head_is_named(home: Path) -> None:
    made = make_store(home / "log", COMMITS)
    head = made.directory / "head"
    data = head.read_bytes()
    assert len(data) == 2 * SLOT_BYTES
    written = [len(data[at : at + SLOT_BYTES].rstrip(b"\0")) for at in (0, SLOT_BYTES)]
    for slot, length in enumerate(written):
        for at in [*range(length + 2), *range(length + 2, SLOT_BYTES, 61), SLOT_BYTES - 1]:
            for mask in MASKS:
                head.write_bytes(changed(data, slot * SLOT_BYTES + at, mask))
                assert fsck_says(made.directory) == f"DIR/head, slot {slot}: is damaged", at
    head.write_bytes(data)
    assert not fsck_says(made.directory)


# --- cut short, gone, longer --------------------------------------------------------------------------------------------

CUT_HARMLESS = {
    ("LOG", Outcome.IDENTICAL),
    # A write-ahead log that ends early is what a crash leaves: it is the log before its last write, if that was a publish.
    ("log", Outcome.LAST_WRITE_LOST),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_cut_is_named_or_shown_to_be_harmless(form: str, home: Path) -> None:
    made = make_store(home / "log", COMMITS, form=form)
    right, crashed = look(made, home), before_last_write(made, home)
    silent = set()
    for path in sorted(made.store.iterdir()):
        data = path.read_bytes()
        for length in {*range(0, len(data), 7), *range(max(0, len(data) - 60), len(data))}:
            path.write_bytes(data[:length])
            outcome = judged(made, home, right, crashed)
            if outcome is not Outcome.NAMED:
                silent.add((kind_of(path), outcome))
            if outcome is Outcome.LAST_WRITE_LOST:
                assert length >= records(data)[-1]
        path.write_bytes(data)
    kinds = {kind_of(path) for path in made.store.iterdir() if path.stat().st_size}
    assert silent == {(kind, outcome) for kind, outcome in CUT_HARMLESS if kind in kinds}


@pytest.mark.parametrize("form", FORMS)
def test_every_lost_file_is_named_or_shown_to_be_harmless(form: str, home: Path) -> None:
    made = make_store(home / "log", COMMITS, form=form)
    right = look(made, home)
    silent = {}
    for path in sorted(made.store.iterdir()):
        data = path.read_bytes()
        path.unlink()
        outcome = judged(made, home, right, None)
        if outcome is not Outcome.NAMED:
            silent[path.name] = outcome
        path.write_bytes(data)
    assert silent == dict.fromkeys(("LOCK", "LOG"), Outcome.IDENTICAL)
    for name, said in {"head": "DIR/head: cannot be read", "log/CURRENT": "half deleted"}.items():
        path = made.directory / name
        path.rename(path.with_name("away"))
        assert said in fsck_says(made.directory)
        path.with_name("away").rename(path)
    assert not fsck_says(made.directory)


@pytest.mark.parametrize("tail", [b"\0", b"\xff", b"\0" * 100, b"garbage that is longer than a header"], ids=len)
@pytest.mark.parametrize("form", FORMS)
def test_bytes_behind_the_end_of_a_file_are_named_or_shown_to_be_harmless(form: str, tail: bytes, home: Path) -> None:
    made = make_store(home / "log", COMMITS, form=form)
    right = look(made, home)
    outcomes = {}
    for path in [*sorted(made.store.iterdir()), made.directory / "head"]:
        data = path.read_bytes()
        path.write_bytes(data + tail)
        outcomes[path.name if path.name == "head" else kind_of(path)] = judged(made, home, right, None)
        path.write_bytes(data)
    assert outcomes.pop("head") is Outcome.NAMED
    assert set(outcomes.values()) <= {Outcome.NAMED, Outcome.IDENTICAL}


# --- a large store ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """20,000 entries in two tables, beside a small one, and in the write-ahead log."""
    draw = random.Random(1)
    made = make_store(
        tmp_path_factory.mktemp("large") / "log",
        (9_000, 9_000, 2_000),
        form="mixed",
        entry=lambda index: b"%d" % index + draw.randbytes(300),
    )
    assert made.size == 20_000
    assert len(made.table_paths()) == 3
    assert made.wal().stat().st_size > 100_000
    return made


def test_a_sample_of_a_large_store_is_named_or_shown_to_be_harmless(large: Made, home: Path) -> None:
    right = look(large, home)
    whole = {name: digest for name, (digest, _) in digests(large.directory).items()}
    draw = random.Random(20_000)
    files = [path for path in sorted(large.store.iterdir()) if path.stat().st_size and path.name != "LOG"]
    silent: Counter[tuple[str, str]] = Counter()
    for number in range(100):
        path = draw.choices(files, [path.stat().st_size for path in files])[0] if number % 4 else draw.choice(files)
        data = path.read_bytes()
        at, mask = draw.randrange(len(data)), draw.choice(MASKS)
        try:
            path.write_bytes(changed(data, at, mask))
            outcome = judged(large, home, right, None)
        finally:
            path.write_bytes(data)
        if outcome is not Outcome.NAMED:
            assert kind_of(path) == "ldb", (path.name, at, mask, outcome)
            region = next(region for region in regions_of(path, data) if region.begin <= at < region.end)
            assert outcome in HARMLESS.get((kind_of(path), region.name), set()), (path.name, at, mask, outcome)
            silent[kind_of(path), region.name] += 1
    assert sum(silent.values()) < 30, silent
    assert {name: digest for name, (digest, _) in digests(large.directory).items()} == whole


def test_one_damaged_block_of_a_large_store_names_entries_and_leaves_the_rest_good(large: Made, home: Path) -> None:
    table = large.table_paths()[1]
    data = table.read_bytes()
    try:
        table.write_bytes(changed(data, len(data) // 2, 1))
        report = fsck(large.directory)
    finally:
        table.write_bytes(data)
    assert report.bad.keys() == {"entries"}
    assert 0 < report.bad["entries"] < 100
    assert report.good["entries"] == 20_000 - report.bad["entries"]
    assert all("cannot be read" in damage.problem for damage in report.damages)
    assert report.good["checkpoints"] == 4
    assert report.root is not None


def test_a_damaged_block_that_holds_only_what_was_replaced_since_names_no_entry(large: Made, home: Path) -> None:
    """The first table, of the empty log, spans the keys of every entry; all it had was replaced, but for the log's name."""
    table = large.table_paths()[0]
    data = table.read_bytes()
    try:
        table.write_bytes(changed(data, 0, 1))
        report = fsck(large.directory)
    finally:
        table.write_bytes(data)
    assert {damage.resource for damage in report.damages} == {
        "key 'meta'",
        "key 'state'",
        "key 'latest'",
        "kept checkpoints",
    }
    assert report.good["entries"] == 20_000


# --- checking changes nothing -------------------------------------------------------------------------------------------


def _nothing(_: Made) -> None:
    """A whole store."""


def _flip_middle(name: str) -> Callable[[Made], None]:
    def damage(made: Made) -> None:
        (path,) = [path for path in made.store.glob(name) if path.stat().st_size]
        data = path.read_bytes()
        path.write_bytes(changed(data, len(data) // 2, 1))

    return damage


def _lose(name: str) -> Callable[[Made], None]:
    def damage(made: Made) -> None:
        for path in list(made.directory.glob(name)):
            path.unlink()

    return damage


DAMAGE: dict[str, tuple[str, Callable[[Made], None]]] = {
    "whole, in tables": ("tables", _nothing),
    "whole, after a crash": ("wal", _nothing),
    "a table": ("tables", _flip_middle("*.ldb")),
    "the write-ahead log": ("wal", _flip_middle("*.log")),
    "the manifest": ("tables", _flip_middle("MANIFEST-*")),
    "the name of the manifest": ("tables", _flip_middle("CURRENT")),
    "no write-ahead log": ("tables", _lose("log/*.log")),
    "no table": ("tables", _lose("log/*.ldb")),
    "no head": ("tables", _lose("head")),
}


@pytest.mark.parametrize(("form", "damage"), DAMAGE.values(), ids=DAMAGE)
def test_no_byte_and_no_time_of_the_log_is_changed(
    form: str, damage: Callable[[Made], None], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_store(home / "log", COMMITS, form=form)
    damage(made)
    monkeypatch.setattr(tempfile, "tempdir", str(home / "work"))
    (home / "work").mkdir()
    before, times = digests(made.directory), {path: path.stat().st_mtime_ns for path in made.directory.rglob("*/")}
    entries = set(made.directory.rglob("*"))
    assert bool(fsck_says(made.directory)) == (damage is not _nothing)
    assert digests(made.directory) == before
    assert {path: path.stat().st_mtime_ns for path in made.directory.rglob("*/")} == times
    assert set(made.directory.rglob("*")) <= entries | {made.directory / "lock"}
    assert not list((home / "work").iterdir()), "work files were left behind"
