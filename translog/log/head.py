"""DIR/head: the newest size and root this log may have signed, durable before any signature leaves the process.

Rules: two slots of 4,096 bytes, written and synced in turn, so that a torn write leaves the other. A slot is

    u8 version (1) || u64 counter || u8 length || origin || u64 size || 32-byte root || u8 hold || SHA-256 of all before

zero-padded. `hold` means: serve, but do not sign. Why it exists: a store that was lost, rolled back or replaced by an older
copy opens without a word, and signing it would make two histories. What start-up makes of it is in opening.py.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from translog.core.wire import HASH_BYTES
from translog.errors import HeldError, MalformedError, StorageError
from translog.storage.files import write_file

VERSION = 1
SLOT_BYTES = 4_096
_SLOTS = 2
_FIXED_BYTES = 1 + 8 + 1 + 8 + HASH_BYTES + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a slot says. `counter` grows by one with every write."""

    counter: int
    origin: str
    size: int
    root: bytes
    hold: bool


def encode_slot(head: Head) -> bytes:
    """The 4,096 bytes of a slot."""
    origin = head.origin.encode()
    body = b"".join(
        (
            bytes([VERSION]),
            head.counter.to_bytes(8, "big"),
            bytes([len(origin)]),
            origin,
            head.size.to_bytes(8, "big"),
            head.root,
            bytes([head.hold]),
        )
    )
    return (body + sha256(body).digest()).ljust(SLOT_BYTES, b"\x00")


def decode_slot(data: bytes) -> Head:
    """What `encode_slot` encoded. Raises MalformedError for anything else, a torn write in particular."""
    if len(data) != SLOT_BYTES or data[0] != VERSION:
        raise MalformedError("not a slot of DIR/head")
    origin_length = data[9]
    end = _FIXED_BYTES + origin_length
    position = 10 + origin_length
    try:
        head = Head(
            counter=int.from_bytes(data[1:9], "big"),
            origin=data[10:position].decode("utf-8"),
            size=int.from_bytes(data[position : position + 8], "big"),
            root=data[position + 8 : position + 8 + HASH_BYTES],
            hold=data[end - 1] == 1,
        )
    except UnicodeDecodeError:
        raise MalformedError("not a slot of DIR/head") from None
    if encode_slot(head) != data:
        raise MalformedError("a damaged slot of DIR/head")
    return head


class HeadFile:
    """DIR/head, open. One writer, under the directory's lock."""

    def __init__(self, path: Path, *, origin: str) -> None:
        """Use `create` or `open`."""
        self._path = path
        self._origin = origin
        self._descriptor = -1
        self._newest: Head | None = None

    @classmethod
    def create(cls, path: Path, *, origin: str, size: int, root: bytes, hold: bool = False) -> None:
        """Writes the file anew, atomically and durably. Raises StorageError."""
        head = Head(counter=0, origin=origin, size=size, root=root, hold=hold)
        try:
            write_file(path, encode_slot(head) * _SLOTS, mode=0o600)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from error

    @classmethod
    def open(cls, path: Path, *, origin: str) -> "HeadFile":
        """Opens the file and reads it. Raises StorageError; what it holds, or does not, `require_newest` tells."""
        file = cls(path, origin=origin)
        try:
            file._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            slots = [os.pread(file._descriptor, SLOT_BYTES, n * SLOT_BYTES) for n in range(_SLOTS)]
        except FileNotFoundError:
            return file
        except OSError as error:
            file.close()
            raise StorageError(f"cannot use {path}: {error.strerror}") from error
        found = []
        for slot in slots:
            try:
                found.append(decode_slot(slot))
            except MalformedError:
                continue
        file._newest = max(found, key=lambda head: head.counter, default=None)
        return file

    def require_newest(self) -> Head:
        """The newest intact slot. Raises HeldError if there is none or it is of another log."""
        if self._newest is None:
            raise HeldError(
                f"{self._path} is missing or both its slots are damaged, so what this log signed last is not known",
                hint="bring the file back from where it went; or, if you know that nothing newer than this store was ever "
                "signed, run `translog resume DIR --nothing-newer-was-signed`",
                code="head-lost",
            )
        if self._newest.origin != self._origin:
            raise HeldError(
                f"{self._path} belongs to the log {self._newest.origin!r}, not {self._origin!r}",
                hint="put this log's own head file back",
                code="head-of-another-log",
            )
        return self._newest

    def require_not_newer(self, *, size: int, root_at: Callable[[int], bytes]) -> None:
        """Raises HeldError if an intact slot is of another log, of a larger tree than `size`, or of another history than
        `root_at` tells. A file without an intact slot says nothing against the store."""
        if self._newest is None:
            return
        newest = self.require_newest()
        if newest.size > size or root_at(newest.size) != newest.root:
            raise HeldError(
                f"{self._path}: a tree of size {newest.size} may have been signed, which this store does not continue",
                hint="restore a newer backup or fill the log from a mirror; it cannot be resumed as it is",
                code="head-contradicts",
            )

    def write(self, *, size: int, root: bytes, hold: bool = False) -> None:
        """Records a tree head over the older slot. Durable when it returns. Raises StorageError: unknown whether written."""
        newest = self.require_newest()
        head = Head(counter=newest.counter + 1, origin=self._origin, size=size, root=root, hold=hold)
        try:
            _write_all(self._descriptor, encode_slot(head), head.counter % _SLOTS * SLOT_BYTES)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error.strerror}", hint="is the disk full or failing?") from error
        self._newest = head

    def close(self) -> None:
        """Closes the file. May be called again. An error is of no interest: whatever counts was synced."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with suppress(OSError):
                os.close(descriptor)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written
