"""Files written whole and durably: a name leads to all of the old bytes or all of the new ones, also after power loss."""

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Makes the directory's entries durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Makes a directory, of that mode, and those above it that are missing, durably. Raises OSError."""
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(mode, exist_ok=True)
    sync_directory(path.parent)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Puts `data` in the place of what was there, durable when it returns. Raises OSError."""
    made = path.with_name(f"{path.name}.new")
    made.unlink(missing_ok=True)  # half of an earlier one, or somebody's link
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)
    sync_directory(path.parent)


def sync_tree(path: Path) -> None:
    """Makes a directory and all in it durable, as after a copy. Raises OSError."""
    for directory, _, names in os.walk(path):
        for name in names:
            descriptor = os.open(Path(directory, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(directory))
