"""A log as a folder of files, as tlog-tiles lays it out: a backup, or a static copy of any such log.

    FOLDER/tile/<L>/<N>[.p/<W>], tile/entries/<N>[.p/<W>], checkpoint      https://c2sp.org/tlog-tiles
    FOLDER/checkpoints.ndjson     a line {"size":…,"note":…} per kept checkpoint, smallest first
    FOLDER/private/               of an events log: payloads, blobs and dedup.key, as payloads.py has them
    FOLDER/backup.json            what a backup holds; written last, atomically: nothing beyond it counts

Rules: full tiles and bundles are written once; whatever is named by backup.json was durable before. A folder without
backup.json is read as the tree of its checkpoint. Any web server can show a backup, but for private/, to any tlog-tiles client.
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from translog.core.checkpoint import parse_checkpoint
from translog.core.note import NOTE_BYTES_MAX, parse_note
from translog.core.tile import BUNDLE_BYTES_MAX, TILE_WIDTH, Bundle, Tile, edge_tiles, format_tile_path
from translog.core.wire import HASH_BYTES, SIZE_MAX, decode_base64, encode_base64
from translog.errors import CorruptionError, MalformedError, SettingsError, StorageError
from translog.storage.files import make_directory, sync_directory, write_file
from translog.storage.payloads import PRIVATE, PrivateFolder, drop_partials, open_plain_file
from translog.storage.source import BundleRead, Contents, Damage, EventRead, cut_tile, decode_kept, encode_kept, read_bundle
from translog.storage.store import LogMeta, Profile, StoredCheckpoint, TreeState

VERSION = "backup/1"
VERSION_OF_EVENTS = "backup/2"
"""Of a folder that may have payloads: one that does not know of them must not take it for whole."""
_BACKUP = "backup.json"
_KEPT = "checkpoints.ndjson"
_JSON_BYTES_MAX = 2 * NOTE_BYTES_MAX + 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """What backup.json says: the log, the tree that is here whole, and the newest checkpoint of it, if any. Of an events log
    also of how many entries, from the first on, the payloads are here."""

    meta: LogMeta
    state: TreeState
    latest: StoredCheckpoint | None
    payloads: int | None = None


def encode_backup(backup: Backup) -> bytes:
    """The text of backup.json."""
    of_events = backup.payloads is not None
    document = {
        "translog": VERSION_OF_EVENTS if of_events else VERSION,
        "format": backup.meta.format_version,
        "origin": backup.meta.origin,
        "profile": backup.meta.profile.value,
        "minimum_index": backup.meta.minimum_index,
        "size": backup.state.size,
        "root": encode_base64(backup.state.root),
        "received_at": backup.state.received_at_ms,
        **({"payloads": backup.payloads} if of_events else {}),
        "checkpoint": None if backup.latest is None else backup.latest.note.decode(),
        "checkpoint_size": None if backup.latest is None else backup.latest.size,
    }
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def decode_backup(data: bytes) -> Backup:
    """What `encode_backup` encoded. Raises SettingsError for another version of the format, MalformedError."""
    try:
        document = json.loads(data)
        version = document["translog"]
        if version not in (VERSION, VERSION_OF_EVENTS):
            raise SettingsError(
                f"the backup is of format {version!r}, this program knows {VERSION!r} and {VERSION_OF_EVENTS!r}",
                hint="use the version of translog that wrote it, or a newer one",
                code="backup-version",
            )
        note = document["checkpoint"]
        backup = Backup(
            meta=LogMeta(
                format_version=_number(document["format"]),
                origin=_text(document["origin"]),
                profile=Profile(document["profile"]),
                minimum_index=_number(document["minimum_index"]),
            ),
            state=TreeState(
                size=_number(document["size"]),
                root=decode_base64(document["root"], size=HASH_BYTES),
                received_at_ms=_number(document["received_at"]),
            ),
            latest=None if note is None else StoredCheckpoint(size=_number(document["checkpoint_size"]), note=note.encode()),
            payloads=_number(document["payloads"]) if version == VERSION_OF_EVENTS else None,
        )
        well_formed = encode_backup(backup) == data
    except (MalformedError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise MalformedError(f"{_BACKUP} is damaged", hint="without it, the folder is read as the tree of its checkpoint")
    return backup


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= SIZE_MAX:
        raise TypeError
    return value


def _kept_max(backup: Backup) -> int:
    """The size of the largest kept checkpoint that counts: a larger one is of a backup that was interrupted."""
    return -1 if backup.latest is None else backup.latest.size


def require_backup_folder(path: Path) -> None:
    """Raises SettingsError unless a backup may be written there: a new folder, an empty one, or one with a backup in it, whole
    or interrupted."""
    if path.exists() and not path.is_dir():
        raise SettingsError(f"{path} is no folder", hint="name a new folder, or one that holds a backup already")
    if not path.is_dir() or (path / _BACKUP).exists():
        return
    # The first backup writes the checkpoint last, so one without backup.json is another program's.
    if {child.name for child in path.iterdir()} - {"tile", PRIVATE, _KEPT, f"{_BACKUP}.new", "lost+found"}:
        raise SettingsError(f"{path} holds other things than a backup", hint="name a new folder")


def _damage_of_checkpoint(note: bytes, backup: Backup) -> list[Damage]:
    try:
        if parse_checkpoint(parse_note(note).text).origin == backup.meta.origin:
            return []
        problem = "is of another log"
    except MalformedError as error:
        problem = error.detail
    return [Damage(resource="checkpoint", problem=problem)]


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines, those that are too long in pieces."""
    while line := file.readline(_JSON_BYTES_MAX):
        yield line


def _level(tile: Tile | Bundle) -> int:
    """The level, 0 for a bundle."""
    return 0 if isinstance(tile, Bundle) else tile.level


def partials_of(size: int) -> list[Tile | Bundle]:
    """The partial tiles and the partial bundle that readers of the tree of `size` ask for."""
    width = size % TILE_WIDTH
    return [*edge_tiles(size), *([Bundle(index=size // TILE_WIDTH, width=width)] if width else [])]


class Folder:
    """See TreeSource, and how a backup is written. One writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.private = PrivateFolder(path)
        self._backup: Backup | None = None

    @property
    def resource_of_entries(self) -> str:
        return "bundle"

    def read_backup(self) -> Backup | None:
        """What backup.json says, None where there is none. Raises SettingsError, MalformedError, StorageError."""
        data = self._read(_BACKUP, bytes_max=_JSON_BYTES_MAX)
        self._backup = None if data is None else decode_backup(data)
        return self._backup

    def contents(self) -> Contents:
        """Raises SettingsError if neither backup.json nor a checkpoint is there."""
        damages = []
        try:
            self.read_backup()
        except MalformedError as error:
            damages.append(Damage(resource=_BACKUP, problem=error.detail))
        note = self._read("checkpoint", bytes_max=NOTE_BYTES_MAX)
        if self._backup is not None:
            if note is not None:  # one of another size is of a backup that was interrupted; another program's is none
                damages += _damage_of_checkpoint(note, self._backup)
            return Contents(meta=self._backup.meta, state=self._backup.state, latest=self._backup.latest, damages=damages)
        if note is None:
            raise SettingsError(f"{self.path} holds no log: there is neither {_BACKUP} nor a checkpoint", code="no-store")
        try:
            latest = StoredCheckpoint(size=parse_checkpoint(parse_note(note).text).size, note=note)
        except MalformedError as error:
            raise CorruptionError(f"{self.path / 'checkpoint'}: {error.detail}") from None
        return Contents(meta=None, state=None, latest=latest, damages=damages)

    def checkpoints(self, *, size_min: int = 0) -> Iterator[StoredCheckpoint | Damage]:
        size_max = SIZE_MAX if self._backup is None else _kept_max(self._backup)
        try:
            with open_plain_file(self.path / _KEPT) as file:
                for number, line in enumerate(_lines(file), start=1):
                    if len(line) == _JSON_BYTES_MAX and not line.endswith(b"\n"):
                        yield Damage(resource=f"{_KEPT}, line {number}", problem="is not a kept checkpoint, but endless")
                        return
                    if not line.endswith(b"\n"):
                        return  # the last one was being written when the backup stopped
                    try:
                        kept = decode_kept(line)
                    except MalformedError as error:
                        yield Damage(resource=f"{_KEPT}, line {number}", problem=error.detail)
                        continue
                    if size_min <= kept.size <= size_max:
                        yield kept
        except FileNotFoundError:
            return
        except OSError as error:
            yield Damage(resource=_KEPT, problem=f"cannot be read: {error.strerror}")

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        for bundle in bundles:
            yield read_bundle(bundle, self._read_tile(bundle, bytes_max=BUNDLE_BYTES_MAX))

    def tiles(self, tiles: Sequence[Tile]) -> Iterator[bytes | Damage]:
        for tile in tiles:
            yield self._read_tile(tile, bytes_max=TILE_WIDTH * HASH_BYTES)

    def payloads_end(self) -> int | None:
        try:
            backup = self.read_backup()
        except MalformedError:
            return None
        return None if backup is None else backup.payloads

    def events(self, bundles: Sequence[Bundle]) -> Iterator[EventRead]:
        return self.private.events(bundles)

    def strays(self, *, size: int) -> Iterator[Damage]:
        """Partial tiles of the checkpoint, where that is not of all the entries, that are not the beginning of wider ones.

        What is beyond the size is of a backup that was interrupted, and the next one writes it anew.
        """
        latest = None if self._backup is None else self._backup.latest
        if latest is None or latest.size == size:
            return
        widths = {(isinstance(tile, Bundle), _level(tile), tile.index): tile for tile in partials_of(size)}
        for tile in partials_of(latest.size):
            wide = widths.get((isinstance(tile, Bundle), _level(tile), tile.index), replace(tile, width=TILE_WIDTH))
            part = self._read_tile(tile, bytes_max=BUNDLE_BYTES_MAX)
            whole = self._read_tile(wide, bytes_max=BUNDLE_BYTES_MAX)
            if isinstance(part, Damage):
                yield part
            elif not isinstance(whole, Damage) and part != cut_tile(tile, whole):
                yield Damage(resource=format_tile_path(tile), problem="is not the beginning of the wider one")

    def close(self) -> None:
        """Nothing is open."""

    # --- writing --------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, which goes again if it stays empty, and keeps other writers out. Raises SettingsError if there is
        one, StorageError."""
        made = not self.path.exists()
        try:
            make_directory(self.path, mode=0o700)  # entries may be for few; its owner opens it for a web server
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from error
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)
            if made:
                with suppress(OSError):
                    self.path.rmdir()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(
                f"another backup is being written to {self.path}", hint="wait for its end", code="directory-in-use"
            ) from None

    def write_tile(self, tile: Tile | Bundle, data: bytes) -> None:
        """Durably. Raises StorageError."""
        self._write(format_tile_path(tile), data)

    def cut_from(self, wide: Tile | Bundle, tile: Tile | Bundle) -> None:
        """Writes a partial tile that is the beginning of one that is there. Raises CorruptionError, StorageError."""
        data = self._read_tile(wide, bytes_max=BUNDLE_BYTES_MAX)
        if isinstance(data, Damage):
            raise CorruptionError(f"the backup is damaged: {data.resource} {data.problem}", hint="start a new one")
        self.write_tile(tile, cut_tile(tile, data))

    def drop_partials(self, full: Tile | Bundle, *, kept: Collection[int]) -> None:
        """Deletes the partial versions of a tile, other widths than `kept`, and what was half written of them. Raises
        StorageError."""
        drop_partials(self.path / f"{format_tile_path(full)}.p", kept=kept)

    def drop_payload_partials(self, *, begin: int, end: int, last: bool) -> None:
        """Deletes the partial files of payloads that nobody needs when they are there up to `end`: of full bundles, or of the
        last one. Raises StorageError."""
        full = end // TILE_WIDTH
        for index in [full] if last else range(begin // TILE_WIDTH, full):
            self.private.drop_partials(index, kept={end % TILE_WIDTH} if last else ())

    def add_checkpoints(self, kept: Iterable[StoredCheckpoint]) -> None:
        """Appends kept checkpoints, larger ones than are there, durably. Raises StorageError."""
        path = self.path / _KEPT
        try:
            new = not path.exists()
            with path.open("ab") as file:
                file.truncate(self._end_of_kept())
                file.writelines(map(encode_kept, kept))
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync_directory(self.path)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}", hint="is the disk full?") from error

    def _end_of_kept(self) -> int:
        """Where the lines end that count."""
        size_max = -1 if self._backup is None else _kept_max(self._backup)
        end = 0
        with open_plain_file(self.path / _KEPT) as file:
            for line in _lines(file):
                if not line.endswith(b"\n") or decode_kept(line).size > size_max:
                    break
                end += len(line)
        return end

    def finish(self, backup: Backup) -> None:
        """From now on the folder holds this. Raises StorageError."""
        self._write(_BACKUP, encode_backup(backup))
        if backup.latest is not None:
            self._write("checkpoint", backup.latest.note)
        self._backup = backup

    def _write(self, name: str, data: bytes) -> None:
        path = self.path / name
        try:
            make_directory(path.parent)
            write_file(path, data)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}", hint="is the disk full?") from error

    # --- reading files --------------------------------------------------------------------------------------------------

    def _read_tile(self, tile: Tile | Bundle, *, bytes_max: int) -> bytes | Damage:
        """The tile's bytes; of a partial one that is gone, those of the full one cut to its width."""
        path = format_tile_path(tile)
        try:
            data = self._read(path, bytes_max=bytes_max)
            if data is None and tile.width < TILE_WIDTH:
                full = Bundle(index=tile.index) if isinstance(tile, Bundle) else Tile(level=tile.level, index=tile.index)
                data = self._read(format_tile_path(full), bytes_max=bytes_max)
                data = None if data is None else cut_tile(tile, data)
        except StorageError as error:
            return Damage(resource=path, problem=error.detail)
        return Damage(resource=path, problem="is missing") if data is None else data

    def _read(self, name: str, *, bytes_max: int) -> bytes | None:
        path = self.path / name
        try:
            with open_plain_file(path) as file:
                data = file.read(bytes_max + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from None
        if len(data) > bytes_max:
            raise StorageError(f"{path} is larger than {bytes_max} bytes")
        return data
