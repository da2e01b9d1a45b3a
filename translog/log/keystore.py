"""The key store of an events log and its copies: opened to check payloads, backed up apart from the store, brought back.

Rules: a copy is the vault's own file, keys still wrapped, checked before it is taken and replaced whole; a copy that has keys
which the vault lacks is never overwritten; nothing is decrypted but to see that a key-encryption key is the right one.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from translog.core.wire import encode_base64
from translog.errors import CorruptionError, SettingsError, StorageError
from translog.log.keyfiles import DEDUP_KEY_FILE, KEK_FILE, SECRET_BYTES, read_secret
from translog.log.payloads import FindKey
from translog.log.vault import KEYS_FILE, FileKeyWrapper, Vault
from translog.storage.files import make_directory, write_file
from translog.storage.source import Damage


class _Unopened:
    """See KeyWrapper. For whoever has no key-encryption key, and asks only which keys there are."""

    def wrap(self, key: bytes, *, key_id: bytes) -> bytes:
        raise StorageError("a copy of the key store takes no new keys")

    def unwrap(self, wrapped: bytes, *, key_id: bytes) -> bytes:
        return b""


def _no_time() -> int:
    return 0


def open_keys(vault: Path, kek: Path, origin: str) -> FindKey:
    """The data keys in a vault's directory. Raises SettingsError, CorruptionError if a key does not unwrap."""
    wrapper = FileKeyWrapper(read_secret(kek), origin=origin, random_bytes=os.urandom)
    return Vault.open(vault, wrapper=wrapper, random_bytes=os.urandom, now_ms=_no_time).find


def read_key_ids(vault: Path) -> set[bytes]:
    """Which keys are in a vault's directory. Raises SettingsError, CorruptionError for what is no key store."""
    Vault.open(vault, wrapper=_Unopened(), random_bytes=os.urandom, now_ms=_no_time)
    return {row["id"].encode() for row in json.loads(_read(vault))["keys"]}


def copy_vault(source: Path, target: Path) -> set[bytes]:
    """Writes a copy of the vault in one directory into another, durably and whole, or replaces the one there. Returns which
    keys it has.

    Raises SettingsError `no-vault` for a source that is none, `vault-is-newer` for a target that has keys which the source
    lacks; CorruptionError if either is damaged, StorageError. The target is then as it was.
    """
    key_ids = _ids_of(source)
    if (target / KEYS_FILE).exists():
        lost = sorted(_ids_of(target) - key_ids)
        if lost:
            raise SettingsError(
                f"the key store in {target} has {len(lost)} keys that {source} lacks",
                hint="keep it: payloads may be under them; name another directory for this one",
                code="vault-is-newer",
            )
    try:
        make_directory(target, mode=0o700)
        write_file(target / KEYS_FILE, _read(source), mode=0o600)
    except OSError as error:
        raise StorageError(f"cannot write {target / KEYS_FILE}: {error.strerror}", hint="is the disk full?") from error
    return key_ids


def require_apart(vault: Path, folder: Path) -> None:
    """Raises SettingsError if one of the directories is in the other: whoever gets hold of that has both."""
    one, other = vault.resolve(), folder.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise SettingsError(
            f"{vault} and {folder} are not apart",
            hint="keep the key store where the backup is not: together, and with kek.key, they are readable",
        )


def _ids_of(vault: Path) -> set[bytes]:
    if not (vault / KEYS_FILE).exists():
        raise SettingsError(
            f"there is no key store in {vault}",
            hint=f"name the directory with {KEYS_FILE} in it, as `translog backup --vault` writes it",
            code="no-vault",
        )
    return read_key_ids(vault)


def _read(vault: Path) -> bytes:
    try:
        return (vault / KEYS_FILE).read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {vault / KEYS_FILE}: {error.strerror}") from None


def require_kek(vault: Path, keys: Path, *, origin: str) -> None:
    """Raises SettingsError if the key-encryption key in a directory of keys does not open the vault; not if there is none."""
    if not (keys / KEK_FILE).exists():
        return
    try:
        open_keys(vault, keys / KEK_FILE, origin)
    except CorruptionError as error:
        raise SettingsError(
            f"{keys / KEK_FILE} is not the key that this log's data keys are wrapped with: {error.detail}",
            hint="bring the kek.key that belongs to this key store",
            code="bad-key",
        ) from None


def unreadable(key_ids: Mapping[bytes, int], known: set[bytes]) -> int:
    """How many payloads are under keys that are not known."""
    return sum(count for key_id, count in key_ids.items() if key_id not in known)


def bring_secrets(
    directory: Path,
    *,
    origin: str,
    dedup_key: bytes | None,
    vault: Path | None,
    key_ids: Mapping[bytes, int],
    random_bytes: Callable[[int], bytes],
    tell: Callable[[Damage], None],
) -> int:
    """Puts dedup.key, kek.key and the vault of an events log into its new directory, beside what is in DIR/keys already.

    `dedup_key` is the file from the backup; without it a new one is made, which is told. Without a `vault` the log gets an
    empty one, and where it has no kek.key, that too. `key_ids` counts the payloads
    under each key. Returns how many of them cannot be read. Raises SettingsError for keys that do not belong together.
    """
    keys = directory / "keys"
    try:
        keys.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot create {keys}: {error.strerror}") from error
    _bring_dedup_key(keys / DEDUP_KEY_FILE, dedup_key, random_bytes, tell)
    if vault is not None:
        known = copy_vault(vault, directory / "vault")
        require_kek(directory / "vault", keys, origin=origin)
    else:
        known = set()
        if not (keys / KEK_FILE).exists():
            _write_secret(keys / KEK_FILE, random_bytes(SECRET_BYTES))
        read_secret(keys / KEK_FILE)
        Vault.create(directory / "vault")
    return unreadable(key_ids, known)


def _bring_dedup_key(
    path: Path, copied: bytes | None, random_bytes: Callable[[int], bytes], tell: Callable[[Damage], None]
) -> None:
    brought = read_secret(path) if path.exists() else None
    if copied is not None and brought is None:
        _write(path, copied)
        read_secret(path)
    elif copied is not None and copied != path.read_bytes():
        raise SettingsError(
            f"the {DEDUP_KEY_FILE} that was brought along is not the one in the backup",
            hint=f"the backup's belongs to its events; leave the other {DEDUP_KEY_FILE} out",
            code="bad-key",
        )
    elif brought is None:
        problem = (
            "is lost, and a new one was made: events that are sent again will be taken for new ones and marked as conflicts"
        )
        tell(Damage(resource=DEDUP_KEY_FILE, problem=problem))
        _write_secret(path, random_bytes(SECRET_BYTES))


def _write_secret(path: Path, secret: bytes) -> None:
    _write(path, encode_base64(secret).encode() + b"\n")


def _write(path: Path, data: bytes) -> None:
    try:
        write_file(path, data, mode=0o600)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
