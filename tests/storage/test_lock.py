"""One process per log directory, and one holder per process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from translog.errors import SettingsError, StorageError, TranslogError
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import LogMeta, Profile

HOLD = """
import sys
from pathlib import Path
from translog.errors import TranslogError
from translog.storage.lock import DirectoryLock
try:
    lock = DirectoryLock(Path(sys.argv[1]))
except TranslogError as error:
    print(error.code)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


def start_other(directory: Path) -> subprocess.Popen[str]:
    """Another process that tries to hold the directory until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(directory)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ask_other(directory: Path) -> str:
    """What another process gets: `held` or the code of its error."""
    with start_other(directory) as process:
        line = first_line(process)
        process.communicate("")
    return line


def require_busy(directory: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        DirectoryLock(directory)
    assert caught.value.code == "directory-in-use"
    assert caught.value.hint


def test_a_second_holder_in_this_process_is_refused(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        require_busy(tmp_path)
        require_busy(tmp_path)  # the refusal dropped nothing
        assert ask_other(tmp_path) == "directory-in-use"
    DirectoryLock(tmp_path).release()


def test_another_process_is_refused_until_release(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        assert ask_other(tmp_path) == "directory-in-use"
    assert ask_other(tmp_path) == "held"


def test_the_lock_of_another_process_is_respected_and_goes_with_it(tmp_path: Path) -> None:
    with start_other(tmp_path) as process:
        assert first_line(process) == "held"
        require_busy(tmp_path)
        process.kill()
    DirectoryLock(tmp_path).release()


@pytest.mark.parametrize("spelling", ["dots", "symlink", "relative"])
def test_another_name_of_the_directory_is_the_same_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "link").symlink_to(home)
    monkeypatch.chdir(home)
    with DirectoryLock(home):
        require_busy({"dots": home / ".." / "home", "symlink": tmp_path / "link", "relative": Path()}[spelling])


def test_deleting_the_lock_file_does_not_let_a_second_holder_in_here(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        (tmp_path / "lock").unlink()
        require_busy(tmp_path)
        assert not (tmp_path / "lock").exists()


def test_two_directories_are_held_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with DirectoryLock(tmp_path / "a"), DirectoryLock(tmp_path / "b"):
        require_busy(tmp_path / "a")
        require_busy(tmp_path / "b")


def test_release_twice_does_not_release_the_next_holder(tmp_path: Path) -> None:
    first = DirectoryLock(tmp_path)
    first.release()
    with DirectoryLock(tmp_path):
        first.release()
        require_busy(tmp_path)
        assert ask_other(tmp_path) == "directory-in-use"


def test_an_error_in_the_block_releases(tmp_path: Path) -> None:
    with pytest.raises(KeyError), DirectoryLock(tmp_path):
        raise KeyError
    DirectoryLock(tmp_path).release()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path) as lock:
        assert not os.get_inheritable(lock._descriptor)


def _file(path: Path) -> None:
    path.write_bytes(b"")


def _below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_bytes(b"")


@pytest.mark.parametrize(
    ("arrange", "error"),
    [(lambda _: None, SettingsError), (_file, StorageError), (_below_a_file, SettingsError)],
    ids=["missing", "a file", "below a file"],
)
def test_what_is_no_directory_is_refused(tmp_path: Path, arrange: Callable[[Path], None], error: type[TranslogError]) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    arrange(parent / "home")
    with pytest.raises(error) as caught:
        DirectoryLock(parent / "home")
    assert caught.value.hint


def test_a_lock_file_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with pytest.raises(StorageError) as caught:
        DirectoryLock(tmp_path)
    assert caught.value.hint
    (tmp_path / "lock").rmdir()
    DirectoryLock(tmp_path).release()


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """The directory on a read-only mount. Skips the test where nothing can be mounted."""
    path = str(directory)
    if subprocess.run(["mount", "--bind", path, path], capture_output=True, check=False).returncode:
        pytest.skip("no bind mounts here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
def test_on_a_read_only_file_system_the_file_that_is_there_is_locked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with read_only(home), pytest.raises(StorageError, match="Read-only file system"):
        DirectoryLock(home)
    DirectoryLock(home).release()
    with read_only(home):
        with DirectoryLock(home):
            require_busy(home)
            assert ask_other(home) == "directory-in-use"
        with start_other(home) as process:
            assert first_line(process) == "held"
            require_busy(home)
            process.communicate("")
        DirectoryLock(home).release()


def test_a_directory_deleted_under_the_holder_can_be_made_and_held_again(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    lock = DirectoryLock(home)
    shutil.rmtree(home)
    home.mkdir()
    lock.release()
    DirectoryLock(home).release()


def test_the_lock_stays_until_whoever_has_files_open_has_left(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    lock.enter()
    lock.release()
    require_busy(tmp_path)
    assert ask_other(tmp_path) == "directory-in-use"
    lock.leave()
    assert ask_other(tmp_path) == "held"
    with pytest.raises(StorageError):
        lock.enter()


def test_an_open_store_keeps_the_lock_of_its_directory(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    store = LevelDBStore.create(lock, LogMeta(format_version=1, origin="log.example", profile=Profile.OPAQUE))
    lock.release()
    require_busy(tmp_path)
    store.close()
    store.close()
    assert ask_other(tmp_path) == "held"
