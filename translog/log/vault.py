"""The data keys of an events log, wrapped, in DIR/vault/keys.json: outside LevelDB, which keeps deleted values.

    {"translog":"vault/1","keys":[
    {"id":"acme/3f2a9c10","member":"acme","created_at":1763750000123,"wrapped":"<base64>"}
    ]}

Rules: a key is on the disk before anybody encrypts with it; the file is rewritten whole, or not; every key is unwrapped when
the vault is opened, so that a wrong key-encryption key shows at once; one process writes, under DIR/lock; files and directory
are their owner's alone; no key is ever shown. The file is backed up apart from the store: together they are readable.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from translog.core.wire import clip, decode_base64, encode_base64
from translog.errors import CorruptionError, MalformedError, NotFoundError, SettingsError, StorageError, VerificationError
from translog.events.cipher import KEY_BYTES, NONCE_BYTES, unwrap_key, wrap_key
from translog.log.keyfiles import require_private
from translog.storage.files import write_file

KEYS_FILE = "keys.json"
_VERSION = "vault/1"
_ID_BYTES = 4


class KeyWrapper(Protocol):
    """Wraps data keys under a key-encryption key: in a file, or in a key management service. May be used by many threads."""

    def wrap(self, key: bytes, *, key_id: bytes) -> bytes:
        """The key, encrypted."""

    def unwrap(self, wrapped: bytes, *, key_id: bytes) -> bytes:
        """The key. Raises VerificationError or MalformedError for what was not wrapped here, or not for this id."""


class FileKeyWrapper:
    """See KeyWrapper. `kek` is what DIR/keys/kek.key holds."""

    def __init__(self, kek: bytes, *, origin: str, random_bytes: Callable[[int], bytes]) -> None:
        self._kek = kek
        self._origin = origin
        self._random_bytes = random_bytes

    def wrap(self, key: bytes, *, key_id: bytes) -> bytes:
        return wrap_key(key, kek=self._kek, key_id=key_id, origin=self._origin, nonce=self._random_bytes(NONCE_BYTES))

    def unwrap(self, wrapped: bytes, *, key_id: bytes) -> bytes:
        return unwrap_key(wrapped, kek=self._kek, key_id=key_id, origin=self._origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A key as it is stored: `key_id` is <member>/<8 hex digits>, random, so that a vault that was lost and begun anew never
    has another key under an id that payloads name."""

    key_id: str
    member: str
    created_at_ms: int
    wrapped: bytes = field(repr=False)


class Vault:
    """The data keys. Safe to use from many threads; `find` never blocks, `current` only for a member's first key."""

    def __init__(
        self,
        path: Path,
        rows: Sequence[_Row],
        *,
        wrapper: KeyWrapper,
        random_bytes: Callable[[int], bytes],
        now_ms: Callable[[], int],
    ) -> None:
        """Use `open`."""
        self._path = path
        self._rows = tuple(rows)
        self._wrapper = wrapper
        self._random_bytes = random_bytes
        self._now_ms = now_ms
        self._guard = threading.Lock()
        self._keys = {row.key_id.encode(): self._unwrapped(row) for row in rows}
        self._current = {row.member: row.key_id.encode() for row in rows}

    @staticmethod
    def create(directory: Path) -> None:
        """Makes DIR/vault, without a key. Raises StorageError, also if it is there."""
        try:
            directory.mkdir(mode=0o700)
            write_file(directory / KEYS_FILE, _format([]), mode=0o600)
        except OSError as error:
            raise StorageError(f"cannot create {directory}: {error.strerror}") from error

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        wrapper: KeyWrapper,
        random_bytes: Callable[[int], bytes],
        now_ms: Callable[[], int],
    ) -> "Vault":
        """The vault in DIR/vault.

        Raises SettingsError if there is none or others may read it, CorruptionError if it is damaged or a key in it does not
        unwrap, which names the key.
        """
        path = directory / KEYS_FILE
        require_private(directory)
        require_private(path)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror}") from None
        try:
            rows = _parse(data)
        except MalformedError as error:
            raise CorruptionError(f"{path} is damaged: {error.detail}", hint=_HINT) from None
        return cls(path, rows, wrapper=wrapper, random_bytes=random_bytes, now_ms=now_ms)

    def current(self, member: str) -> tuple[bytes, bytes]:
        """Key id and data key to encrypt a member's payloads with. The first is made here, and durable when this returns.
        Raises StorageError."""
        key_id = self._current.get(member)
        if key_id is None:
            with self._guard:
                key_id = self._current.get(member) or self._make(member)
        return key_id, self._keys[key_id]

    def find(self, key_id: bytes) -> bytes:
        """The data key of that id. Raises NotFoundError `key-unknown`."""
        key = self._keys.get(key_id)
        if key is None:
            raise NotFoundError(
                f"there is no data key {clip(key_id.decode('utf-8', 'replace'))} in the vault",
                hint="is this the vault of this log, and its newest copy?",
                code="key-unknown",
            )
        return key

    def _make(self, member: str) -> bytes:
        key = self._random_bytes(KEY_BYTES)
        key_id = f"{member}/{self._random_bytes(_ID_BYTES).hex()}"
        wrapped = self._wrapper.wrap(key, key_id=key_id.encode())
        rows = (*self._rows, _Row(key_id=key_id, member=member, created_at_ms=self._now_ms(), wrapped=wrapped))
        try:
            write_file(self._path, _format(rows), mode=0o600)
        except OSError as error:  # whether the file has the key or not, nobody has used it, and the next attempt replaces it
            raise StorageError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._rows = rows
        self._keys[key_id.encode()] = key
        self._current[member] = key_id.encode()
        return key_id.encode()

    def _unwrapped(self, row: _Row) -> bytes:
        try:
            return self._wrapper.unwrap(row.wrapped, key_id=row.key_id.encode())
        except (MalformedError, VerificationError):
            raise CorruptionError(f"the data key {row.key_id} in {self._path} does not unwrap", hint=_HINT) from None


_HINT = "nothing was changed; bring back DIR/vault and DIR/keys/kek.key of this log from their backups"


def _format(rows: Sequence[_Row]) -> bytes:
    lines = [
        json.dumps(
            {
                "id": row.key_id,
                "member": row.member,
                "created_at": row.created_at_ms,
                "wrapped": encode_base64(row.wrapped),
            },
            separators=(",", ":"),
            ensure_ascii=False,
        )
        for row in rows
    ]
    return ('{"translog":"' + _VERSION + '","keys":[\n' + ",\n".join(lines) + ("\n" if lines else "") + "]}\n").encode()


def _parse(data: bytes) -> list[_Row]:
    """What `_format` made. Raises MalformedError, which quotes nothing."""
    try:
        document = json.loads(data)
        rows = [_parse_row(row) for row in document["keys"]]
        well_formed = _format(rows) == data
    except (ValueError, KeyError, TypeError, RecursionError, MalformedError):
        raise MalformedError(f"it is not a key store of version {_VERSION}") from None
    if not well_formed or len({row.key_id for row in rows}) != len(rows):
        raise MalformedError(f"it is not a key store of version {_VERSION}, or a key occurs twice")
    return rows


def _parse_row(row: dict[str, Any]) -> _Row:
    key_id, member, created_at_ms = row["id"], row["member"], row["created_at"]
    if not isinstance(key_id, str) or type(created_at_ms) is not int or key_id.rpartition("/")[0] != member:
        raise MalformedError("not a key")
    return _Row(key_id=key_id, member=member, created_at_ms=created_at_ms, wrapped=decode_base64(row["wrapped"]))
