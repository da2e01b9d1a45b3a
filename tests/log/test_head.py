"""DIR/head: two slots, written in turn and synced; whatever happens to one, the other is there."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translog.core.merkle import EMPTY_ROOT
from translog.errors import HeldError, MalformedError, StorageError
from translog.log.head import SLOT_BYTES, Head, HeadFile, decode_slot, encode_slot
from translog.storage.files import sync_directory

ORIGIN = "log.example/test"
HEAD = Head(counter=7, origin=ORIGIN, size=258, root=bytes(range(32)), hold=False)
U64 = st.integers(min_value=0, max_value=2**64 - 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "head"
    HeadFile.create(made, origin=ORIGIN, size=0, root=EMPTY_ROOT)
    return made


@contextlib.contextmanager
def opened(path: Path, origin: str = ORIGIN) -> Iterator[HeadFile]:
    file = HeadFile.open(path, origin=origin)
    try:
        yield file
    finally:
        file.close()


def newest(path: Path, origin: str = ORIGIN) -> Head:
    with opened(path, origin) as file:
        return file.require_newest()


def root(n: int) -> bytes:
    return bytes([n]) * 32


class TestSlot:
    @given(
        counter=U64,
        origin=st.text(st.characters(exclude_categories=["Cs"]), max_size=63),
        size=U64,
        root=st.binary(min_size=32, max_size=32),
        hold=st.booleans(),
    )
    def test_comes_back(self, counter: int, origin: str, size: int, root: bytes, hold: bool) -> None:
        head = Head(counter=counter, origin=origin, size=size, root=root, hold=hold)
        assert len(encode_slot(head)) == SLOT_BYTES
        assert decode_slot(encode_slot(head)) == head

    @pytest.mark.parametrize("length", [0, 1, 255])
    def test_takes_every_origin_a_log_can_have(self, length: int) -> None:
        head = replace(HEAD, origin="o" * length)
        assert decode_slot(encode_slot(head)) == head

    def test_is_laid_out_as_documented(self) -> None:
        data = encode_slot(replace(HEAD, hold=True))
        fixed = b"\x01" + bytes(7) + b"\x07" + b"\x10" + ORIGIN.encode() + bytes(6) + b"\x01\x02" + bytes(range(32)) + b"\x01"
        assert data.startswith(fixed)
        assert not any(data[len(fixed) + 32 :])

    def test_every_changed_byte_is_refused(self) -> None:
        good = encode_slot(HEAD)
        for at in range(SLOT_BYTES):
            for mask in (0x01, 0x80, 0xFF):
                changed = good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :]
                with pytest.raises(MalformedError):
                    decode_slot(changed)

    @pytest.mark.parametrize(
        "data", [b"", bytes(SLOT_BYTES), b"\xff" * SLOT_BYTES, encode_slot(HEAD)[:-1], encode_slot(HEAD) + b"\0"]
    )
    def test_anything_else_is_refused(self, data: bytes) -> None:
        with pytest.raises(MalformedError):
            decode_slot(data)


class TestWrite:
    def test_is_read_back(self, path: Path) -> None:
        with opened(path) as file:
            for n in range(1, 6):
                file.write(size=n, root=root(n), hold=n == 3)
                expected = Head(counter=n, origin=ORIGIN, size=n, root=root(n), hold=n == 3)
                assert file.require_newest() == expected
                assert newest(path) == expected

    def test_slots_take_turns_across_openings(self, path: Path) -> None:
        for n in range(1, 5):
            with opened(path) as file:
                file.write(size=n, root=root(n))
            data = path.read_bytes()
            slots = [decode_slot(data[:SLOT_BYTES]), decode_slot(data[SLOT_BYTES:])]
            assert sorted(slot.counter for slot in slots) == [n - 1, n]
            assert slots[n % 2].size == n

    def test_is_synced_before_it_returns(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []

        def fdatasync(descriptor: int) -> None:
            assert os.path.samestat(os.fstat(descriptor), path.stat())
            seen.append(newest(path).size)  # what was written when the sync was asked for

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        with opened(path) as file:
            for n in (1, 2):
                file.write(size=n, root=root(n))
                assert seen == list(range(1, n + 1))

    def test_creation_is_synced_with_its_directory_entry(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            named = os.readlink(f"/proc/self/fd/{descriptor}")
            order.append(f"{Path(named).name} {(tmp_path / 'head').exists()}")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        HeadFile.create(tmp_path / "head", origin=ORIGIN, size=3, root=root(3), hold=True)
        assert order == ["head.new False", f"{tmp_path.name} True"]
        assert newest(tmp_path / "head") == Head(counter=0, origin=ORIGIN, size=3, root=root(3), hold=True)

    def test_a_torn_write_leaves_the_other_slot(self, path: Path) -> None:
        """Every prefix of the new slot over the old one."""
        with opened(path) as file:
            file.write(size=1, root=root(1))
            file.write(size=2, root=root(2))
            before = path.read_bytes()
            file.write(size=3, root=root(3))
        after = path.read_bytes()
        content = len(after[SLOT_BYTES:].rstrip(b"\0"))
        for length in [*range(content + 40), 512, 1024, SLOT_BYTES]:
            path.write_bytes(before[:SLOT_BYTES] + after[SLOT_BYTES : SLOT_BYTES + length] + before[SLOT_BYTES + length :])
            found = newest(path)
            assert (found.size, found.root) in ((2, root(2)), (3, root(3)))
            assert found.size == 2 or length >= content

    @pytest.mark.parametrize("damaged", [0, 1])
    def test_goes_over_a_damaged_slot_first(self, path: Path, damaged: int) -> None:
        with opened(path) as file:
            file.write(size=1, root=root(1))
        data = bytearray(path.read_bytes())
        data[damaged * SLOT_BYTES + 20] ^= 1
        path.write_bytes(data)
        survivor = 0 if damaged else 1
        assert newest(path).size == survivor
        with opened(path) as file:
            file.write(size=9, root=root(9))
        data = bytearray(path.read_bytes())
        assert decode_slot(bytes(data[damaged * SLOT_BYTES :][:SLOT_BYTES])).size == 9
        assert decode_slot(bytes(data[(1 - damaged) * SLOT_BYTES :][:SLOT_BYTES])).size == survivor

    @pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
    def test_that_fails_is_a_storage_error_and_not_taken_for_written(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError(5, "Input/output error")

        with opened(path) as file:
            with monkeypatch.context() as patched:
                patched.setattr(os, call, fail)
                with pytest.raises(StorageError) as caught:
                    file.write(size=1, root=root(1))
            assert caught.value.hint
            assert file.require_newest().size == 0
            file.write(size=2, root=root(2))
            assert newest(path).size == 2

    def test_in_pieces_is_whole(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:1000], at))
        with opened(path) as file:
            file.write(size=1, root=root(1))
        assert newest(path).size == 1


class TestOpen:
    @pytest.mark.parametrize("content", [None, b"", bytes(2 * SLOT_BYTES), b"\x01" * 100])
    def test_without_an_intact_slot_nothing_may_be_signed(self, path: Path, content: bytes | None) -> None:
        path.unlink() if content is None else path.write_bytes(content)
        with opened(path) as file:
            for call in (file.require_newest, lambda: file.write(size=1, root=root(1))):
                with pytest.raises(HeldError) as caught:
                    call()
                assert caught.value.code == "head-lost"
                assert "resume" in caught.value.hint

    def test_a_file_cut_to_one_slot_has_that_slot(self, path: Path) -> None:
        os.truncate(path, SLOT_BYTES + 100)
        assert newest(path).size == 0

    def test_the_head_of_another_log_is_refused(self, path: Path) -> None:
        with pytest.raises(HeldError) as caught:
            newest(path, "log.example/other")
        assert caught.value.code == "head-of-another-log"
        assert ORIGIN in caught.value.detail

    def test_what_cannot_be_opened_is_a_storage_error(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError):
            HeadFile.open(tmp_path, origin=ORIGIN)

    def test_what_cannot_be_read_is_a_storage_error(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        before = set(os.listdir("/proc/self/fd"))
        with monkeypatch.context() as patched:
            patched.setattr(os, "pread", fail)
            with pytest.raises(StorageError):
                HeadFile.open(path, origin=ORIGIN)
        assert set(os.listdir("/proc/self/fd")) == before

    def test_close_twice(self, path: Path) -> None:
        file = HeadFile.open(path, origin=ORIGIN)
        file.close()
        file.close()
        with pytest.raises(StorageError):
            file.write(size=1, root=root(1))


class TestCreate:
    def test_replaces_what_was_there(self, path: Path) -> None:
        HeadFile.create(path, origin=ORIGIN, size=5, root=root(5))
        assert newest(path).size == 5
        assert [file.name for file in path.parent.iterdir()] == ["head"]

    def test_that_fails_leaves_what_was_there(self, path: Path) -> None:
        (path.parent / "head.new").mkdir()
        with pytest.raises(StorageError):
            HeadFile.create(path, origin=ORIGIN, size=5, root=root(5))
        assert newest(path).size == 0

    def test_in_a_directory_that_is_not_there_is_a_storage_error(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError):
            HeadFile.create(tmp_path / "missing" / "head", origin=ORIGIN, size=0, root=EMPTY_ROOT)
        with pytest.raises(OSError, match="No such file"):
            sync_directory(tmp_path / "missing")

    def test_on_a_full_disk_leaves_what_was_there(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = shutil.which("mount")
        command = [mount or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
        if mount is None or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small tmpfs takes root and a file system namespace that allows it")
        try:
            HeadFile.create(disk / "head", origin=ORIGIN, size=1, root=root(1))
            with contextlib.suppress(OSError):
                (disk / "ballast").write_bytes(bytes(65_536))
            with pytest.raises(StorageError):
                HeadFile.create(disk / "head", origin=ORIGIN, size=2, root=root(2))
            assert newest(disk / "head").size == 1
            with opened(disk / "head") as file:
                file.write(size=3, root=root(3))  # over space it has already
            assert newest(disk / "head").size == 3
        finally:
            subprocess.run(["umount", str(disk)], check=True)
