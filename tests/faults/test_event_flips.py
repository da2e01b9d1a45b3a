"""Every byte of what an events log keeps beside its entries, changed, lost, moved, exchanged: fsck names it.

Rules: rows are changed with checksums that fit, as no rot could but a defect or somebody at the disk; then a sample of the
files themselves. What may stay silent is written down below, with why.
"""

import shutil
import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from faults.made_events import FEED, MadeEvents, everything, make_events
from faults.made_store import digests
from faults.row_source import check_rows, named, rows_of
from translog.maintenance import check_log
from translog.storage import keyspace

PREFIXES = (b"p", b"b", b"i", b"n", b"q")
MASKS = (0x01, 0x80, 0xFF)
OPAQUE_RECORD = keyspace.payload_key(6)
"""What its member encrypted for readers of its own: the log cannot tell a changed one from what came. Its row's first three
bytes are flags and the count of blobs."""
NOT_THE_LOGS = {OPAQUE_RECORD, keyspace.payload_key(8)}
"""That, and a payload that the log never got: which event of a stream has which, only its member knows."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeEvents:
    return make_events(tmp_path_factory.mktemp("events") / "log")


@pytest.fixture(scope="module")
def rows(made: MadeEvents) -> dict[bytes, bytes]:
    return rows_of(made)


def beside(rows: dict[bytes, bytes]) -> list[bytes]:
    """The keys that only an events log has."""
    return [key for key in rows if key[:1] in PREFIXES and key not in (keyspace.META, keyspace.STATE)]


def test_the_log_has_rows_of_every_kind_and_is_whole(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    assert {key[:1] for key in beside(rows)} == set(PREFIXES)
    report = check_rows(rows, made)
    assert named(report) == []
    assert report.good.items() >= {"events": 9, "payloads": 7, "blobs": 3, "ids": 4, "numbers": 4, "streams": 3}.items()
    assert report.excepted == {"opaque": 1, "never given": 1}
    assert report.root is not None


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_byte_of_every_row_is_named(made: MadeEvents, rows: dict[bytes, bytes], prefix: bytes) -> None:
    flips, silent = 0, set()
    for key in beside(rows):
        if key[:1] != prefix:
            continue
        for at in range(len(rows[key])):
            for mask in MASKS:
                value = bytearray(rows[key])
                value[at] ^= mask
                report = check_rows(rows | {key: bytes(value)}, made)
                flips += 1
                assert report.root is not None, "damage beside the entries is no damage to the tree"
                assert not {"entries", "tiles", "checkpoints"} & report.bad.keys()
                if report.whole:
                    silent.add((key, at))
    assert flips >= 3 * sum(len(rows[key]) for key in beside(rows) if key[:1] == prefix)
    length = len(rows[OPAQUE_RECORD])
    assert silent == ({(OPAQUE_RECORD, at) for at in range(3, length)} if prefix == b"p" else set())


def test_every_byte_of_every_key_is_named(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    for key in beside(rows):
        for at in range(len(key)):
            for mask in MASKS:
                moved = bytearray(key)
                moved[at] ^= mask
                if bytes(moved) in rows:
                    continue
                changed = {other: value for other, value in rows.items() if other != key} | {bytes(moved): rows[key]}
                assert not check_rows(changed, made).whole, (key, bytes(moved))


def test_every_cut_and_every_byte_more_is_named(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    for key in beside(rows):
        value = rows[key]
        if key == OPAQUE_RECORD:
            continue
        for other in [*(value[:length] for length in range(len(value))), value + b"\0", b"\0" + value]:
            assert not check_rows(rows | {key: other}, made).whole, (key, other)


def test_every_row_lost_is_named_and_nothing_else(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    kinds = {b"p": "payloads", b"b": "blobs", b"i": "ids", b"n": "streams", b"q": "numbers"}
    for key in beside(rows):
        report = check_rows({other: value for other, value in rows.items() if other != key}, made)
        assert report.bad == {kinds[key[:1]]: 1}, named(report)


def test_every_two_rows_of_a_kind_exchanged_are_named(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    """A payload under another entry, a blob in the place of another, an id that leads to another event."""
    exchanged = 0
    for one, other in combinations(beside(rows), 2):
        if one[:1] == other[:1] and rows[one] != rows[other] and {one, other} != NOT_THE_LOGS:
            exchanged += 1
            report = check_rows(rows | {one: rows[other], other: rows[one]}, made)
            assert not report.whole, (one, other)
            assert "entries" not in report.bad
    assert exchanged > 40


def test_every_row_that_is_there_twice_is_named(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    """The row of one place in another where there is none: beside an entry that is no event, behind the end, of no stream."""
    more = [
        keyspace.payload_key(4),
        keyspace.payload_key(7),
        keyspace.payload_key(made.size),
        keyspace.payload_key(2**63),
        keyspace.payload_key(3) + b"\0",
        keyspace.payload_key(3)[:-1],
        keyspace.blob_key(0, 0),
        keyspace.blob_key(4, 0),
        keyspace.blob_key(5, 3),
        keyspace.blob_key(5, 1_000),
        keyspace.blob_key(made.size, 0),
        keyspace.blob_key(5, 0) + b"\0",
        keyspace.blob_key(5, 0)[:-1],
        keyspace.id_row_key(bytes(16)),
        keyspace.id_row_key(bytes(32)),
        keyspace.id_row_key(b""),
        keyspace.stream_row_key(FEED._replace(stream="other")),
        b"n",
        keyspace.number_key(FEED, 2),
        keyspace.number_key(FEED._replace(stream="other"), 0),
        b"q",
        b"d",
        b"j",
        b"o",
        b"r",
    ]
    for key in more:
        assert key not in rows
        like = next((rows[other] for other in beside(rows) if other[:1] == key[:1]), b"x")
        report = check_rows(rows | {key: like}, made)
        assert sum(report.bad.values()) == 1, (key, named(report))


# --- the files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")
    with tempfile.TemporaryDirectory(prefix="translog-flips-", dir="/dev/shm") as name:
        yield Path(name)


@pytest.mark.parametrize("compacted", [True, False], ids=["tables", "write-ahead log"])
def test_a_flipped_byte_of_the_files_is_named_or_changes_nothing(home: Path, compacted: bool) -> None:
    """A sample: that every region of LevelDB's files is covered, test_flips.py shows; here there are rows of events in them."""
    made = make_events(home / "log", everything, compacted=compacted)
    right = made.events()
    before = digests(made.directory)
    silent = 0
    for path in sorted([*made.store.glob("*.ldb"), *made.store.glob("*.log")]):
        data = path.read_bytes()
        for at in range(0, len(data), 37):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
            try:
                whole = check_log(
                    str(made.directory), policy=None, token=None, processes=1, progress=lambda done, total: None
                ).whole
            except Exception as error:
                whole = not str(error)
            if whole:
                silent += 1
                copy = MadeEvents(directory=home / "copy", size=made.size)
                shutil.copytree(made.directory, copy.directory)
                assert copy.events() == right, (path.name, at)
                shutil.rmtree(copy.directory)
        path.write_bytes(data)
    assert silent < 20, "the filter and the footer of a table"
    assert {name: digest for name, (digest, _) in digests(made.directory).items()} == {
        name: digest for name, (digest, _) in before.items()
    }
