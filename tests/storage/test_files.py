"""Files written whole: all of the old bytes or all of the new ones, at any failure, and what is synced when."""

import errno
import os
import stat
from pathlib import Path

import pytest

from translog.storage.files import make_directory, sync_directory, sync_tree, write_file


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """What is synced and renamed, in order."""
    found: list[tuple[str, Path]] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        found.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def record_replace(path: Path, target: Path) -> Path:
        found.append(("replace", target))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    return found


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 5_000_000])
def test_a_file_is_synced_before_it_gets_its_name_and_the_name_after(
    tmp_path: Path, done: list[tuple[str, Path]], data: bytes
) -> None:
    path = tmp_path / "file"
    for _ in range(2):
        write_file(path, data)
        assert path.read_bytes() == data
        assert done == [("sync", tmp_path / "file.new"), ("replace", path), ("sync", tmp_path)]
        done.clear()
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_the_mode_is_the_one_asked_for(tmp_path: Path) -> None:
    umask = os.umask(0o022)
    try:
        write_file(tmp_path / "open", b"")
        write_file(tmp_path / "closed", b"", mode=0o600)
    finally:
        os.umask(umask)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("open", "closed")] == [0o644, 0o600]


@pytest.mark.parametrize(("what", "survives"), [("fsync", b"old"), ("replace", b"old"), ("sync_directory", b"new")])
def test_a_failure_leaves_the_old_bytes_or_the_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, survives: bytes
) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        if what == "sync_directory":
            patched.setattr("translog.storage.files.sync_directory", fail)
        else:
            patched.setattr(os if what == "fsync" else Path, what, fail)
        with pytest.raises(OSError, match="No space"):
            write_file(path, b"new")
    assert path.read_bytes() == survives
    write_file(path, b"newer, and longer than what was half written")
    assert path.read_bytes() == b"newer, and longer than what was half written"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


def test_a_longer_leftover_does_not_shine_through(tmp_path: Path) -> None:
    (tmp_path / "file.new").write_bytes(b"x" * 100)
    write_file(tmp_path / "file", b"short")
    assert (tmp_path / "file").read_bytes() == b"short"


def test_a_tree_is_synced_to_its_last_file_and_every_directory(tmp_path: Path, done: list[tuple[str, Path]]) -> None:
    tree = tmp_path / "tree"
    for name in ("a/b/c", "a/d", "e"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_text(name)
    (tree / "top").write_text("top")
    sync_tree(tree)
    assert {path for _, path in done} == {tree, *tree.rglob("*")}


def test_directories_are_made_durable_from_the_top(tmp_path: Path, done: list[tuple[str, Path]]) -> None:
    for _ in range(2):
        make_directory(tmp_path / "a" / "b" / "c")
    assert done == [("sync", tmp_path), ("sync", tmp_path / "a"), ("sync", tmp_path / "a" / "b")]


def test_a_directory_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        make_directory(tmp_path / "file" / "a")
    with pytest.raises(OSError, match="Not a directory"):
        sync_directory(tmp_path / "file")


def test_no_descriptor_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "file").write_text("x")
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        sync_directory(tmp_path)
    with pytest.raises(OSError, match="Input/output"):
        sync_tree(tmp_path)
    with pytest.raises(OSError, match="Input/output"):
        write_file(tmp_path / "a", b"")
    assert os.listdir("/proc/self/fd") == before
