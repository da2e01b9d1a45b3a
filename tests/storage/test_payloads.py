"""Bundles of payloads in a backup: what is written is read, whatever the sizes; a changed byte costs one event and no other."""

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from translog.core.tile import Bundle
from translog.errors import CorruptionError, StorageError
from translog.storage.payloads import PrivateFolder, decode_payloads, encode_payloads, open_plain_file, payload_path
from translog.storage.source import EventRead

READS = [
    EventRead(b"row 0", {0: b"first", 1: b"", 2: b"third"}),
    EventRead(),
    EventRead(b"r"),
    EventRead(b"\0" * 300, {0: b"\xff" * 70_000}),
    EventRead(),
]
FIRST = 3 * 256


def decoded(path: Path, width: int = len(READS)) -> list[EventRead]:
    with path.open("rb") as file:
        return list(decode_payloads(file, Bundle(index=3, width=width)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    path.write_bytes(b"".join(encode_payloads(FIRST, READS)))
    return path


def test_the_format_is_the_one_that_is_described(tmp_path: Path) -> None:
    """Spelled out, so that a change of it is seen here."""
    body = b"\0\0\0\3row\0\0\0\4blob"
    expected = b"translog payloads/1\n"
    expected += b"\0\0\0\x0f" + sha256(b"\0\0\0\0\0\0\1\0" + body).digest() + body
    expected += b"\0\0\0\0" + sha256(b"\0\0\0\0\0\0\1\1").digest()
    assert b"".join(encode_payloads(256, [EventRead(b"row", {0: b"blob"}), EventRead()])) == expected


def test_what_is_written_is_read(path: Path) -> None:
    assert decoded(path) == READS
    assert decoded(path, width=2) == READS[:2], "a partial one is the beginning of a wider one"


def test_blobs_behind_a_hole_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "bundle"
    file.write_bytes(b"".join(encode_payloads(FIRST, [EventRead(b"row", {0: b"a", 2: b"c"})])))
    assert decoded(file, 1) == [EventRead(b"row", {0: b"a"})]


def test_a_changed_byte_costs_one_event_or_those_behind_it(path: Path) -> None:
    data = path.read_bytes()
    for at in [*range(600), *range(600, len(data), 997), *range(len(data) - 40, len(data))]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :])
        found = decoded(path)
        wrong = [n for n, (read, right) in enumerate(zip(found, READS, strict=True)) if read != right]
        assert wrong, at
        assert wrong == [wrong[0]] or wrong == list(range(wrong[0], len(READS)))
        for n in wrong:
            assert found[n].row is None
            assert found[n].lost.startswith("cannot be read: ")


def test_every_cut_loses_the_end_and_says_so(path: Path) -> None:
    data = path.read_bytes()
    for length in [*range(600), *range(600, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:length])
        found = decoded(path)
        assert len(found) == len(READS)
        whole = next(n for n, read in enumerate(found) if read.lost != EventRead().lost)
        assert found[:whole] == READS[:whole]
        assert all(read.row is None and read.lost.startswith("cannot be read") for read in found[whole:])


def test_the_bundle_of_other_entries_is_not_believed(path: Path) -> None:
    with path.open("rb") as file:
        found = list(decode_payloads(file, Bundle(index=4, width=len(READS))))
    assert {read.lost for read in found} == {"cannot be read: its bytes in the file were changed"}


def test_a_length_beyond_the_file_takes_no_memory(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20] + b"\xff" * 100)
    assert {read.lost for read in decoded(path)} == {"cannot be read: the file is cut short, or damaged before"}


class TestPrivateFolder:
    def test_is_for_its_owner_alone(self, tmp_path: Path) -> None:
        folder = PrivateFolder(tmp_path)
        before = os.umask(0o002)
        try:
            folder.write(Bundle(index=3, width=len(READS)), READS)
            folder.write_key(b"key\n")
        finally:
            os.umask(before)
        assert list(folder.events([Bundle(index=3, width=len(READS))])) == READS
        assert folder.read_key() == b"key\n"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "private").rglob("*")}
        assert modes == {"dedup.key": 0o600, "dedup.key.sha256": 0o600, "payloads": 0o700, "003.p": 0o700, "5": 0o600}
        assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o700

    def test_a_key_is_never_replaced_by_another_and_its_checksum_is_that_of_sha256sum(self, tmp_path: Path) -> None:
        folder = PrivateFolder(tmp_path)
        assert folder.write_key(b"key\n")
        assert not folder.write_key(b"other\n")
        assert folder.read_key() == b"key\n"
        digest = sha256(b"key\n").hexdigest()
        assert (tmp_path / "private" / "dedup.key.sha256").read_text() == f"{digest}  dedup.key\n"
        (tmp_path / "private" / "dedup.key").unlink()
        with pytest.raises(CorruptionError):
            folder.read_key()
        assert folder.write_key(b"key\n")
        assert folder.read_key() == b"key\n"

    def test_a_partial_one_is_read_from_the_full_one_when_that_is_all_there_is(self, tmp_path: Path) -> None:
        folder = PrivateFolder(tmp_path)
        reads = [EventRead(b"row %d" % n) for n in range(256)]
        folder.write(Bundle(index=0), reads)
        assert list(folder.events([Bundle(index=0, width=7)])) == reads[:7]

    def test_what_is_not_there_is_missing(self, tmp_path: Path) -> None:
        folder = PrivateFolder(tmp_path)
        (read,) = folder.events([Bundle(index=1_234_567, width=1)])
        assert (read.row, read.lost) == (None, "is missing, with its file private/payloads/x001/x234/567.p/1")
        assert folder.read_key() is None

    def test_what_is_no_plain_file_is_named(self, tmp_path: Path) -> None:
        folder = PrivateFolder(tmp_path)
        path = tmp_path / payload_path(Bundle(index=0, width=1))
        path.parent.mkdir(parents=True)
        os.mkfifo(path)
        (read,) = folder.events([Bundle(index=0, width=1)])
        assert read.lost == "cannot be read: it is no plain file"
        os.mkfifo(tmp_path / "private" / "dedup.key")
        with pytest.raises(StorageError):
            folder.read_key()
        with pytest.raises(OSError, match="no plain file"):
            open_plain_file(path)

    def test_partial_files_that_nobody_needs_are_deleted(self, tmp_path: Path) -> None:
        folder = PrivateFolder(tmp_path)
        for width in (1, 2, 3):
            folder.write(Bundle(index=0, width=width), READS[:width])
        folder.drop_partials(0, kept={2})
        assert [path.name for path in (tmp_path / "private/payloads/000.p").iterdir()] == ["2"]
        folder.drop_partials(0, kept=())
        folder.drop_partials(0, kept=())
        assert list((tmp_path / "private/payloads").iterdir()) == []

    def test_a_write_that_fails_leaves_what_was_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = PrivateFolder(tmp_path)
        bundle = Bundle(index=0, width=2)
        folder.write(bundle, READS[:2])

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="No space left"):
            folder.write(bundle, READS[2:4])
        with pytest.raises(StorageError, match="No space left"):
            folder.write_key(b"key")
        assert list(folder.events([bundle])) == READS[:2]
        assert folder.read_key() is None
