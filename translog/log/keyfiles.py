"""Private keys in files: DIR/keys/log-ed25519.skey and log-mldsa44.skey; of an events log also dedup.key and kek.key.

    log-mldsa44.skey                 the log's first key of its type
    log-mldsa44-<key ID>.skey        one that was added later
    log-mldsa44-<key ID>.skey.new    one that is being added: not in use
    log-mldsa44-<key ID>.vkey        the public half of one that was retired, whose private half is gone

Rules: mode 0600 in a directory of mode 0700, and refused otherwise; written once, durably, never over an existing file;
never shown. Losing the former ends the log's ability to sign, so they belong in a backup of their own. dedup.key (what resent
events are recognised by) belongs beside the store's backup; kek.key (what the data keys are wrapped with) apart from both.
"""

import os
import re
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from translog.core.keys import SEED_BYTES, KeyType, SKey, VKey, format_skey, parse_skey, parse_vkey
from translog.core.wire import decode_base64, encode_base64
from translog.errors import MalformedError, SettingsError, StorageError
from translog.storage.files import sync_directory, write_file

LOG_KEY_FILES = {KeyType.COSIGNATURE_MLDSA44: "log-mldsa44.skey", KeyType.ED25519: "log-ed25519.skey"}
"""The first keys' by type; the first type is the one policies ask for."""
DEDUP_KEY_FILE = "dedup.key"
KEK_FILE = "kek.key"
SECRET_BYTES = 32
"""Of each of these two, which are one line of base64."""
_KEY_FILE_BYTES_MAX = 8_192
_NAME = re.compile(r"log-(mldsa44|ed25519)(?:-([0-9a-f]{8}))?\.(skey|vkey|skey\.new)")
_TYPES = {"mldsa44": KeyType.COSIGNATURE_MLDSA44, "ed25519": KeyType.ED25519}
_KINDS = {key_type: kind for kind, key_type in _TYPES.items()}

T = TypeVar("T")


def create_log_keys(directory: Path, *, origin: str, random_bytes: Callable[[int], bytes]) -> list[SKey]:
    """Makes and writes a key of each type under `directory`. Raises SettingsError if one is there, StorageError."""
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {directory}: {error.strerror}") from error
    skeys = []
    for key_type, name in LOG_KEY_FILES.items():
        skey = SKey(name=origin, type=key_type, seed=random_bytes(SEED_BYTES))
        write_skey(directory / name, skey)
        skeys.append(skey)
    return skeys


def create_event_keys(directory: Path, *, random_bytes: Callable[[int], bytes]) -> None:
    """Makes and writes what an events log has beside: dedup.key and kek.key. Raises SettingsError if one is there,
    StorageError."""
    for name in (DEDUP_KEY_FILE, KEK_FILE):
        _write_line(directory / name, encode_base64(random_bytes(SECRET_BYTES)))


def write_skey(path: Path, skey: SKey) -> None:
    """Writes a private key, durably. Raises SettingsError if the file exists, StorageError."""
    _write_line(path, format_skey(skey))


def _write_line(path: Path, line: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except FileExistsError:
        raise SettingsError(f"there is a key in {path} already", hint="keys are never overwritten", code="key-exists") from None
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """A file with a key of the log, by its name alone. `key_id` (hex) is empty for a first key; `form` is `skey`, `vkey` or
    `skey.new`."""

    path: Path
    type: KeyType
    key_id: str
    form: str

    def read_vkey(self) -> VKey:
        """The public key. Raises SettingsError, also for one that is not what the name says."""
        vkey = _read_line(self.path, parse_vkey, private=False) if self.form == "vkey" else read_skey(self.path).vkey
        self._require_named(vkey)
        return vkey

    def read_skey(self) -> SKey:
        """The private key. Raises SettingsError, also for one that is not what the name says."""
        skey = read_skey(self.path)
        self._require_named(skey.vkey)
        return skey

    def _require_named(self, vkey: VKey) -> None:
        if vkey.type is not self.type or self.key_id not in ("", vkey.key_id.hex()):
            what = "a key of another type" if vkey.type is not self.type else "another key"
            raise SettingsError(
                f"{self.path} holds {what} than its name says", hint="bring this log's own keys back", code="bad-key"
            )


def list_key_files(directory: Path) -> list[KeyFile]:
    """The files with keys of the log, first keys first. Raises SettingsError."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise SettingsError(f"cannot read the keys in {directory}: {error.strerror}") from None
    found = [(name, match) for name in names if (match := _NAME.fullmatch(name)) is not None]
    files = [
        KeyFile(path=directory / name, type=_TYPES[match[1]], key_id=match[2] or "", form=match[3]) for name, match in found
    ]
    order = list(LOG_KEY_FILES)
    return sorted(files, key=lambda file: (order.index(file.type), file.key_id))


def read_log_keys(directory: Path, *, origin: str, types: Collection[KeyType]) -> list[SKey]:
    """The log's private keys of those types: all that are there, at least one of each type. Raises SettingsError."""
    files = [file for file in list_key_files(directory) if file.form == "skey" and file.type in types]
    there = {file.type for file in files}
    missing = [name for key_type, name in LOG_KEY_FILES.items() if key_type in types and key_type not in there]
    if missing:
        raise SettingsError(
            f"{' and '.join(missing)} is missing in {directory}",
            hint="bring it back from its backup; or, to sign without it from now on, take it out of log.sign_with",
            code="no-keys",
        )
    found = [file.read_skey() for file in files]
    for skey in found:
        if skey.name != origin:
            raise SettingsError(
                f"a key in {directory} is named {skey.name!r}, this log is {origin!r}", hint="bring this log's own keys back"
            )
    return found


def read_first_vkeys(directory: Path, *, origin: str) -> list[VKey]:
    """The public halves of the log's first keys, retired ones too. What cannot be read is left out: of the keys that sign,
    `read_log_keys` tells."""
    found: dict[VKey, None] = {}
    for file in list_key_files(directory):
        if not file.key_id and file.form != "skey.new":
            with suppress(SettingsError):
                found[file.read_vkey()] = None
    return [vkey for vkey in found if vkey.name == origin]


def write_new_key(directory: Path, skey: SKey) -> None:
    """Writes a key that is being added, durably: it is not in use before `admit_key`. Raises SettingsError, StorageError."""
    write_skey(directory / f"{_later_name(skey.vkey)}.skey.new", skey)


def admit_key(file: KeyFile) -> None:
    """Takes a key that was being added into use, durably. Raises StorageError."""
    try:
        file.path.rename(file.path.with_suffix(""))
        sync_directory(file.path.parent)
    except OSError as error:
        raise StorageError(f"cannot rename {file.path}: {error.strerror}") from error


def drop_new_key(directory: Path, vkey: VKey) -> None:
    """Deletes a key that was being added and is not to be. Raises StorageError."""
    path = directory / f"{_later_name(vkey)}.skey.new"
    try:
        path.unlink(missing_ok=True)
        sync_directory(directory)
    except OSError as error:
        raise StorageError(f"cannot delete {path}: {error.strerror}") from error


def discard_private_key(file: KeyFile) -> None:
    """Puts the public half of a key in the place of the private one, durably: first the one, then the other. Raises
    SettingsError, StorageError."""
    path = file.path.with_suffix(".vkey")
    try:
        write_file(path, f"{file.read_vkey()}\n".encode(), mode=0o600)
        file.path.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot put {path} in the place of {file.path.name}: {error.strerror}") from error


def _later_name(vkey: VKey) -> str:
    return f"log-{_KINDS[vkey.type]}-{vkey.key_id.hex()}"


def read_skey(path: Path) -> SKey:
    """A private key. Raises SettingsError for a file that others may read, or that holds none."""
    return _read_line(path, parse_skey)


def read_secret(path: Path) -> bytes:
    """The 32 bytes of dedup.key or kek.key. Raises SettingsError for a file that is not there, that others may read, or that
    holds no such key."""
    return _read_line(path, lambda text: decode_base64(text, size=SECRET_BYTES))


def _read_line(path: Path, parse: Callable[[str], T], *, private: bool = True) -> T:
    if private:
        require_private(path)
    try:
        with path.open("rb") as file:
            text = file.read(_KEY_FILE_BYTES_MAX).decode("utf-8").removesuffix("\n")
        return parse(text)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, MalformedError):
        what = "private key" if private else "public key (vkey)"
        raise SettingsError(f"{path} holds no {what}", hint="bring it back from its backup", code="bad-key") from None


def require_private(path: Path) -> None:
    """Raises SettingsError for a file or directory that is not there, or that others may touch."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    if mode & 0o077:
        raise SettingsError(
            f"{path} may be read by others (mode {mode & 0o777:04o})",
            hint=f"chmod {'700' if stat.S_ISDIR(mode) else '600'} {path}",
            code="key-mode",
        )
