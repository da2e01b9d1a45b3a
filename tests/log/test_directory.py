"""A log's directory comes into being whole or not at all, and durably."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from translog.errors import SettingsError, StorageError
from translog.log import directory as module
from translog.log.directory import new_directory, require_new

LAST = "translog.toml"


def fill(building: Path) -> None:
    (building / "log").mkdir()
    (building / "log" / "table").write_text("rows")
    (building / LAST).write_text("settings")
    (building / "head").write_text("head")


def make(path: Path) -> None:
    with new_directory(path, last=LAST) as building:
        fill(building)


def files(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


WHOLE = {"log/table": "rows", LAST: "settings", "head": "head"}


@pytest.mark.parametrize("name", ["new", "empty", "a/b/c", "mounted-before"])
def test_it_is_there_when_the_context_ends(tmp_path: Path, name: str) -> None:
    if name == "empty":
        (tmp_path / name).mkdir()
    elif name == "mounted-before":
        (tmp_path / name / "lost+found").mkdir(parents=True)
        (tmp_path / name / "lost+found").rmdir()
    with new_directory(tmp_path / name, last=LAST) as building:
        fill(building)
        assert building.parent == (tmp_path / name).parent
        assert not (tmp_path / name).exists() or not any((tmp_path / name).iterdir())
    assert files(tmp_path / name) == WHOLE
    assert [child.name for child in (tmp_path / name).parent.iterdir()] == [Path(name).name]
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o700


def test_a_relative_path_is_one_from_where_the_program_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with new_directory(Path("log"), last=LAST) as building:
        fill(building)
        monkeypatch.chdir("/")
    assert files(tmp_path / "log") == WHOLE


@pytest.mark.parametrize("what", ["file", "other", "hidden", "inside lost+found"])
def test_what_is_there_is_never_touched(tmp_path: Path, what: str) -> None:
    path = tmp_path / "log"
    if what == "file":
        path.write_text("mine")
    elif what == "inside lost+found":
        (path / "lost+found").mkdir(parents=True)
        (path / "more").mkdir()
    else:
        path.mkdir()
        (path / (".mine" if what == "hidden" else "mine")).write_text("mine")
    before = files(tmp_path)
    for call in (make, require_new):
        with pytest.raises(SettingsError) as caught:
            call(path)
        assert caught.value.code == "log-exists"
    assert files(tmp_path) == before
    assert [child.name for child in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), StorageError("no"), KeyboardInterrupt(), SystemExit(1)],
    ids=repr,
)
@pytest.mark.parametrize("existed", [True, False])
def test_what_fails_inside_leaves_nothing(tmp_path: Path, error: BaseException, existed: bool) -> None:
    path = tmp_path / "log"
    if existed:
        path.mkdir()
    expected = StorageError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected) as caught, new_directory(path, last=LAST) as building:  # noqa: PT012  # it fails inside
        fill(building)
        raise error
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot create {path}: No space left on device"
    assert [child.name for child in tmp_path.iterdir()] == (["log"] if existed else [])
    assert not existed or not any(path.iterdir())
    make(path)
    assert files(path) == WHOLE


@pytest.mark.parametrize("step", ["sync_tree", "make_directory", "sync_directory"])
def test_what_fails_around_it_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module, step, fail)
        with pytest.raises(StorageError, match="Input/output error"):
            make(tmp_path / "log")
    assert not any(tmp_path.iterdir())
    make(tmp_path / "log")
    assert files(tmp_path / "log") == WHOLE


def test_everything_is_synced_before_it_gets_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, Path]] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def record_replace(path: Path, target: Path) -> Path:
        done.append(("replace", target))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    make(tmp_path / "a" / "log")
    at = done.index(("replace", tmp_path / "a" / "log"))
    (building,) = {path for _, path in done[:at] if path.name.startswith(".init-")}
    synced = {path for what, path in done[:at] if what == "sync"}
    assert {building, *(building / name for name in (*WHOLE, "log"))} <= synced
    assert tmp_path in synced, "the name of the parent that was made"
    assert done[at + 1 :] == [("sync", tmp_path / "a")]


# --- mount points -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs takes root and a file system namespace that allows it")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_mount_point_is_filled_the_last_file_last(mounted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    rename = Path.rename

    def record(path: Path, target: Path) -> Path:
        moved.append(target.name)
        return rename(path, target)

    (mounted / "lost+found").mkdir()
    monkeypatch.setattr(Path, "rename", record)
    make(mounted)
    assert files(mounted) == WHOLE
    assert sorted(moved) == sorted(["log", LAST, "head"])
    assert moved[-1] == LAST
    assert sorted(child.name for child in mounted.iterdir()) == sorted(["log", LAST, "head", "lost+found"])


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_mount_point_that_takes_not_everything_is_empty_again(
    mounted: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    moved: list[str] = []
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        moved.append(target.name)
        if len(moved) == failing + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail)
        with pytest.raises(StorageError, match="No space left"):
            make(mounted)
    assert not any(mounted.iterdir())
    make(mounted)
    assert files(mounted) == WHOLE
