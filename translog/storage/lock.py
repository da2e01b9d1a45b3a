"""One process per log directory: our own flock on DIR/lock, held before anything of the log is opened.

Rules: a store counts itself in and out, so that the lock cannot go before the store does. LevelDB's own lock is lost when a
second open fails in the same process; then another process can open the same files, and acknowledged data is gone. So nobody
reaches LevelDB without holding this. A table of this process's directories catches a second open here even where DIR/lock
itself was deleted. flock, not fcntl: closing one descriptor of the file must not drop the lock of another.
"""

import errno
import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from translog.errors import SettingsError, StorageError

_held: set[tuple[int, int]] = set()
_held_guard = threading.Lock()


class DirectoryLock:
    """Holds a log's directory from construction to `release`.

    Raises SettingsError if another program, or this one, holds it already or if it is no directory; StorageError if the
    lock file cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        try:
            info = directory.stat()
        except OSError as error:
            raise SettingsError(
                f"{directory} is not a log's directory: {error.strerror}", hint="`translog init` creates one"
            ) from None
        self.directory = directory
        self._identity = (info.st_dev, info.st_ino)
        self._users = 0
        self._released = False
        with _held_guard:
            if self._identity in _held:
                raise _busy(directory)
            self._descriptor = _lock_file(directory)
            _held.add(self._identity)

    def enter(self) -> None:
        """Counts somebody who has files of the directory open: `release` waits for their `leave`. Raises StorageError if the
        lock was released."""
        with _held_guard:
            if self._descriptor < 0 or self._released:
                raise StorageError(f"{self.directory} is not locked any more")
            self._users += 1

    def leave(self) -> None:
        """Undoes an `enter`."""
        with _held_guard:
            self._users -= 1
            self._unlock()

    def release(self) -> None:
        """Lets go as soon as nobody has files open any more. May be called again."""
        with _held_guard:
            self._released = True
            self._unlock()

    def _unlock(self) -> None:
        if self._released and not self._users and self._descriptor >= 0:
            with suppress(OSError):  # the lock goes with the descriptor all the same
                os.close(self._descriptor)
            self._descriptor = -1
            _held.discard(self._identity)

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _lock_file(directory: Path) -> int:
    path = directory / "lock"
    try:
        descriptor = _open_file(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", hint="the log needs to write its directory") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise _busy(directory) from None
    return descriptor


def _open_file(path: Path) -> int:
    """On a read-only file system the file that is there: it can be locked all the same, for those who only read the log."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS or not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _busy(directory: Path) -> SettingsError:
    return SettingsError(
        f"{directory} is in use by a running log",
        hint="stop that one first, or give its URL instead of the directory",
        code="directory-in-use",
    )
