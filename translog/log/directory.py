"""A log's directory comes into being whole, or not at all: made beside its place, then moved there.

Rules: nothing that is there is overwritten; what was half made is deleted; a mount point cannot be replaced, so there the
parts are moved in one by one, the one that makes it a log last.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from translog.errors import SettingsError, StorageError
from translog.storage.files import make_directory, sync_directory, sync_tree


def require_new(directory: Path) -> None:
    """Raises SettingsError unless there is nothing in `directory`."""
    if directory.is_symlink() and not directory.exists():
        raise SettingsError(f"{directory} is a link that leads nowhere", hint="name a directory", code="log-exists")
    if directory.exists() and (not directory.is_dir() or {child.name for child in directory.iterdir()} - {"lost+found"}):
        raise SettingsError(
            f"{directory} exists and is not empty", hint="a log is created once, in a new directory", code="log-exists"
        )


@contextmanager
def new_directory(directory: Path, *, last: str) -> Iterator[Path]:
    """A directory to put everything into; durable and at `directory` when the context ends well, gone when it does not.

    `last` names the file without which it is no log. Raises SettingsError if there is something already, StorageError.
    """
    try:
        require_new(directory)
        directory = directory.resolve()  # what a link leads to is made, not the link replaced
        make_directory(directory.parent)
        mounted = directory.is_mount()
        building = Path(tempfile.mkdtemp(prefix=".init-", dir=directory if mounted else directory.parent))
        try:
            yield building
            sync_tree(building)
            if mounted:
                _move_children(building, directory, last=last)
            else:
                _move_whole(building, directory)
        except BaseException:  # whatever was moved has been moved back
            shutil.rmtree(building, ignore_errors=True)
            raise
    except OSError as error:
        raise StorageError(f"cannot create {directory}: {error.strerror or error}") from error


def _move_whole(source: Path, target: Path) -> None:
    source.replace(target)
    try:
        sync_directory(target.parent)
    except BaseException:
        target.replace(source)
        raise


def _move_children(source: Path, target: Path, *, last: str) -> None:
    moved: list[str] = []
    try:
        for child in sorted(source.iterdir(), key=lambda child: child.name == last):
            child.rename(target / child.name)
            moved.append(child.name)
        sync_directory(target)
        source.rmdir()
    except BaseException:
        for name in moved:
            (target / name).rename(source / name)
        raise
