"""Bundles of payloads in a backup: what an events log keeps beside its entries, 256 of them a file.

    FOLDER/private/payloads/<N>[.p/<W>]      beside tile/entries/<N>[.p/<W>]
    FOLDER/private/dedup.key                 as DIR/keys/dedup.key
    FOLDER/private/dedup.key.sha256          its checksum, as sha256sum writes it

    file    "translog payloads/1\\n" || frame*, one for each entry
    frame   u32 length || SHA-256(u64 index || body) || body
    body    nothing for an entry that has nothing, else  u32 length || payload row || (u32 length || blob record)*

Rules: rows and records are as keyspace.py has them, and encrypted; a frame that does not hash to what it says is not believed,
and hides no other; one event is in memory at a time. Integers are big-endian.
"""

import errno
import os
import stat
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from translog.core.tile import TILE_WIDTH, Bundle, format_tile_path
from translog.errors import CorruptionError, MalformedError, StorageError
from translog.storage.files import make_directory, sync_directory, write_file
from translog.storage.source import EventRead

PRIVATE = "private"
"""The directory in a backup that is for nobody but the owner of the log."""
_HEAD = b"translog payloads/1\n"
_U32 = struct.Struct(">I")
_DIGEST_BYTES = 32
_KEY = "dedup.key"
_KEY_CHECKSUM = "dedup.key.sha256"
_KEY_BYTES_MAX = 8_192


def payload_path(bundle: Bundle) -> str:
    """The path of a bundle's payloads in a backup."""
    return format_tile_path(bundle).replace("tile/entries", f"{PRIVATE}/payloads", 1)


def encode_payloads(start: int, reads: Iterable[EventRead]) -> Iterator[bytes]:
    """The file of the entries from `start` on, in pieces. Of blobs only those before the first that is missing are written."""
    yield _HEAD
    for index, read in enumerate(reads, start=start):
        body = b""
        if read.row is not None:
            records: list[bytes] = []
            while len(records) in read.blobs:
                records.append(read.blobs[len(records)])
            body = b"".join(_U32.pack(len(part)) + part for part in (read.row, *records))
        yield _U32.pack(len(body)) + _digest(index, body)
        yield body


def decode_payloads(file: BinaryIO, bundle: Bundle) -> Iterator[EventRead]:
    """What the file says is beside each entry of the bundle; it may be that of a wider one. What is behind a frame whose end
    cannot be found is lost. Raises OSError."""
    first = bundle.index * TILE_WIDTH
    left = os.fstat(file.fileno()).st_size - len(_HEAD)
    lost = (
        "" if file.read(len(_HEAD)) == _HEAD else "cannot be read: the file is of a version that is not known here, or damaged"
    )
    for index in range(first, first + bundle.width):
        body, digest = b"", b""
        if not lost:
            head = file.read(_U32.size + _DIGEST_BYTES)
            length = int.from_bytes(head[: _U32.size], "big")
            left -= len(head) + length
            if len(head) < _U32.size + _DIGEST_BYTES or left < 0:
                lost = "cannot be read: the file is cut short, or damaged before"
            else:
                digest, body = head[_U32.size :], file.read(length)
        if lost:
            yield EventRead(lost=lost)
        elif _digest(index, body) != digest:
            yield EventRead(lost="cannot be read: its bytes in the file were changed")
        else:
            yield _decode_body(body)


def _digest(index: int, body: bytes) -> bytes:
    return sha256(index.to_bytes(8, "big") + body).digest()


def _decode_body(body: bytes) -> EventRead:
    if not body:
        return EventRead()
    parts = []
    at = 0
    while at < len(body):
        end = at + _U32.size + int.from_bytes(body[at : at + _U32.size], "big")
        if not at + _U32.size <= end <= len(body):
            raise MalformedError("a frame of payloads hashes to what it says and is none")
        parts.append(body[at + _U32.size : end])
        at = end
    return EventRead(parts[0], dict(enumerate(parts[1:])))


class PrivateFolder:
    """What a backup of an events log has that is not for everybody: directories of mode 0700, files of 0600."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def events(self, bundles: Sequence[Bundle]) -> Iterator[EventRead]:
        """What is beside each entry of each bundle, in order; of a partial file that is gone, the same of the full one."""
        for bundle in bundles:
            path = self._folder / payload_path(bundle)
            if bundle.width < TILE_WIDTH and not path.exists():
                path = self._folder / payload_path(Bundle(index=bundle.index))
            try:
                with open_plain_file(path) as file:
                    yield from decode_payloads(file, bundle)
            except FileNotFoundError:
                yield from [EventRead(lost=f"is missing, with its file {payload_path(bundle)}")] * bundle.width
            except OSError as error:
                yield from [EventRead(lost=f"cannot be read: {error.strerror}")] * bundle.width

    def write(self, bundle: Bundle, reads: Iterable[EventRead]) -> None:
        """Writes a bundle's file, durably and whole. Raises StorageError."""
        path = self._folder / payload_path(bundle)
        made = path.with_name(f"{path.name}.new")
        try:
            _make_private(path.parent)
            made.unlink(missing_ok=True)
            descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(encode_payloads(bundle.index * TILE_WIDTH, reads))
                file.flush()
                os.fsync(file.fileno())
            made.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}", hint="is the disk full?") from error

    def drop_partials(self, index: int, *, kept: Collection[int]) -> None:
        """Deletes the partial files of a bundle, of other widths than `kept`. Raises StorageError."""
        drop_partials(self._folder / f"{payload_path(Bundle(index=index))}.p", kept=kept)

    def read_key(self) -> bytes | None:
        """The file dedup.key, None where there never was one. Raises CorruptionError for one that was lost or changed,
        StorageError."""
        key, checksum = self._read(_KEY), self._read(_KEY_CHECKSUM)
        if key is None and checksum is None:
            return None
        if key is None or checksum is None or checksum != _checksum(key):
            raise CorruptionError(f"{PRIVATE}/{_KEY} is lost, or not what its checksum in {_KEY_CHECKSUM} says")
        return key

    def write_key(self, data: bytes) -> bool:
        """Writes dedup.key, durably, or mends it. Returns whether it could: not where there was another one. Raises
        StorageError."""
        checksum = self._read(_KEY_CHECKSUM)
        if checksum is not None and checksum != _checksum(data):
            return False
        if self._read(_KEY) == data and checksum is not None:
            return True
        for name, content in ((_KEY_CHECKSUM, _checksum(data)), (_KEY, data)):
            path = self._folder / PRIVATE / name
            try:
                make_directory(path.parent, mode=0o700)
                write_file(path, content, mode=0o600)
            except OSError as error:
                raise StorageError(f"cannot write {path}: {error.strerror}", hint="is the disk full?") from error
        return True

    def _read(self, name: str) -> bytes | None:
        path = self._folder / PRIVATE / name
        try:
            with open_plain_file(path) as file:
                return file.read(_KEY_BYTES_MAX)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from None


def _checksum(key: bytes) -> bytes:
    return f"{sha256(key).hexdigest()}  {_KEY}\n".encode()


def _make_private(path: Path) -> None:
    if not path.is_dir():
        _make_private(path.parent)
        make_directory(path, mode=0o700)


def open_plain_file(path: Path) -> BinaryIO:
    """A plain file: opening a pipe would wait for somebody to write into it. Raises OSError."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no plain file")
    return file


def drop_partials(directory: Path, *, kept: Collection[int]) -> None:
    """Deletes what is in the directory of a bundle's or tile's partial versions, but for the widths `kept`. Raises
    StorageError."""
    names = {str(width) for width in kept}
    try:
        for file in list(directory.iterdir()):
            if file.name not in names:
                file.unlink()
        if not names:
            directory.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot delete files of {directory}: {error.strerror}") from error
