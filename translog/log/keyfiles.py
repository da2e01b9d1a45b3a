"""Private keys in files: DIR/keys/log-ed25519.skey and log-mldsa44.skey; of an events log also dedup.key and kek.key.

Rules: mode 0600 in a directory of mode 0700, and refused otherwise; written once, durably, never over an existing file;
never shown. Losing the former ends the log's ability to sign, so they belong in a backup of their own. dedup.key (what resent
events are recognised by) belongs beside the store's backup; kek.key (what the data keys are wrapped with) apart from both.
"""

import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from translog.core.keys import SEED_BYTES, KeyType, SKey, format_skey, parse_skey
from translog.core.wire import decode_base64, encode_base64
from translog.errors import MalformedError, SettingsError, StorageError
from translog.storage.files import sync_directory

LOG_KEY_FILES = {KeyType.COSIGNATURE_MLDSA44: "log-mldsa44.skey", KeyType.ED25519: "log-ed25519.skey"}
"""By type; the first is the one policies ask for."""
DEDUP_KEY_FILE = "dedup.key"
KEK_FILE = "kek.key"
SECRET_BYTES = 32
"""Of each of these two, which are one line of base64."""
_KEY_FILE_BYTES_MAX = 8_192

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


def read_log_keys(directory: Path, *, origin: str, types: Collection[KeyType]) -> list[SKey]:
    """The log's keys of those types, all of which must be there. Raises SettingsError."""
    try:
        missing = [name for key_type, name in LOG_KEY_FILES.items() if key_type in types and not (directory / name).exists()]
    except OSError as error:
        raise SettingsError(f"cannot read the keys in {directory}: {error.strerror}") from None
    if missing:
        raise SettingsError(
            f"{' and '.join(missing)} is missing in {directory}",
            hint="bring it back from its backup; or, to sign without it from now on, take it out of log.sign_with",
            code="no-keys",
        )
    found = {key_type: read_skey(directory / name) for key_type, name in LOG_KEY_FILES.items() if key_type in types}
    for key_type, skey in found.items():
        if skey.type is not key_type:
            raise SettingsError(
                f"{directory / LOG_KEY_FILES[key_type]} holds a key of another type than its name says",
                hint="bring this log's own keys back",
                code="bad-key",
            )
        if skey.name != origin:
            raise SettingsError(
                f"a key in {directory} is named {skey.name!r}, this log is {origin!r}", hint="bring this log's own keys back"
            )
    return list(found.values())


def read_skey(path: Path) -> SKey:
    """A private key. Raises SettingsError for a file that others may read, or that holds none."""
    return _read_line(path, parse_skey)


def read_secret(path: Path) -> bytes:
    """The 32 bytes of dedup.key or kek.key. Raises SettingsError for a file that is not there, that others may read, or that
    holds no such key."""
    return _read_line(path, lambda text: decode_base64(text, size=SECRET_BYTES))


def _read_line(path: Path, parse: Callable[[str], T]) -> T:
    require_private(path)
    try:
        with path.open("rb") as file:
            text = file.read(_KEY_FILE_BYTES_MAX).decode("utf-8").removesuffix("\n")
        return parse(text)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, MalformedError):
        raise SettingsError(f"{path} holds no private key", hint="bring it back from its backup", code="bad-key") from None


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
