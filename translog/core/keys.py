"""Keys: their text forms, their IDs, and the one place that calls signature algorithms.

    vkey   <name>+<key ID, 8 hex digits>+<base64 of type byte and public key>
    skey   PRIVATE+KEY+<name>+<key ID>+<base64 of type byte and 32-byte seed>       (the Go form)

Rules: a key ID is SHA-256(name || 0x0A || type || public key)[:4] for every type used here; a seed never shows in repr.
https://c2sp.org/signed-note
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from translog.core.note import KEY_ID_BYTES, is_key_name
from translog.core.wire import clip, decode_base64, encode_base64
from translog.errors import MalformedError, SignatureError

SEED_BYTES = 32
VKEY_CHARS_MAX = 4_096
"""Longest vkey or skey read: an ML-DSA-44 vkey takes 1,765 characters beside its name."""

_SKEY_PREFIX = "PRIVATE+KEY+"


class KeyType(IntEnum):
    """The type byte of a signed-note key."""

    ED25519 = 0x01
    COSIGNATURE_ED25519 = 0x04
    COSIGNATURE_MLDSA44 = 0x06

    @property
    def label(self) -> str:
        """The algorithm's name for people."""
        return "ML-DSA-44" if self is KeyType.COSIGNATURE_MLDSA44 else "Ed25519"


PUBLIC_KEY_BYTES = {KeyType.ED25519: 32, KeyType.COSIGNATURE_ED25519: 32, KeyType.COSIGNATURE_MLDSA44: 1312}
SIGNATURE_BYTES = {KeyType.ED25519: 64, KeyType.COSIGNATURE_ED25519: 64, KeyType.COSIGNATURE_MLDSA44: 2420}


@dataclass(frozen=True, slots=True, kw_only=True)
class VKey:
    """A public key with its name. `str()` gives the vkey."""

    name: str
    type: KeyType
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that, with the name, identify the key."""
        return sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public_key).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.public_key)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SKey:
    """A private key with its name."""

    name: str
    type: KeyType
    seed: bytes = field(repr=False)

    @property
    def vkey(self) -> VKey:
        """The public half."""
        return VKey(name=self.name, type=self.type, public_key=_private_key(self).public_key().public_bytes_raw())


def parse_vkey(text: str) -> VKey:
    """The key that a vkey names. Raises MalformedError: bad name, unknown type, wrong length, an ID that does not match."""
    if len(text) > VKEY_CHARS_MAX:
        raise MalformedError(f"a key of {len(text)} characters: at most {VKEY_CHARS_MAX} are read")
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise MalformedError(f"not a vkey: {clip(text)}", hint="<name>+<8 hex digits>+<base64>")
    name, hex_id, encoded = parts
    key_type, public_key = _decode_key(name, encoded, PUBLIC_KEY_BYTES)
    vkey = VKey(name=name, type=key_type, public_key=public_key)
    if hex_id != vkey.key_id.hex():
        raise MalformedError(f"the key ID in {clip(text)} does not belong to that name and key")
    return vkey


def parse_skey(text: str) -> SKey:
    """The private key that `text` holds. Raises MalformedError, never quoting the text."""
    if not text.startswith(_SKEY_PREFIX) or len(text) > VKEY_CHARS_MAX:
        raise MalformedError(f"not a private key: it must start with {_SKEY_PREFIX}")
    parts = text.removeprefix(_SKEY_PREFIX).split("+", 2)
    if len(parts) != 3:
        raise MalformedError("not a private key: a part is missing")
    name, hex_id, encoded = parts
    try:
        key_type, seed = _decode_key(name, encoded, dict.fromkeys(KeyType, SEED_BYTES))
    except MalformedError:
        raise MalformedError("not a private key: bad name, type or base64") from None
    skey = SKey(name=name, type=key_type, seed=seed)
    if hex_id != skey.vkey.key_id.hex():
        raise MalformedError(f"the key ID of the private key {clip(name)} does not belong to that name and key")
    return skey


def format_skey(skey: SKey) -> str:
    """The Go form of a private key. Keep it out of logs and settings."""
    return f"{_SKEY_PREFIX}{skey.name}+{skey.vkey.key_id.hex()}+{encode_base64(bytes([skey.type]) + skey.seed)}"


def _decode_key(name: str, encoded: str, sizes: dict[KeyType, int]) -> tuple[KeyType, bytes]:
    if not is_key_name(name):
        raise MalformedError(f"not a key name: {clip(name)}")
    data = decode_base64(encoded)
    try:
        key_type = KeyType(data[0])
    except (ValueError, IndexError):
        raise MalformedError(f"key {clip(name)} is of a type not known here", hint="0x01, 0x04 and 0x06 are") from None
    if len(data) - 1 != sizes[key_type]:
        raise MalformedError(f"key {clip(name)} has {len(data) - 1} bytes, not {sizes[key_type]}")
    return key_type, data[1:]


@lru_cache(maxsize=64)
def _private_key(skey: SKey) -> Ed25519PrivateKey | MLDSA44PrivateKey:
    if skey.type is KeyType.COSIGNATURE_MLDSA44:
        return MLDSA44PrivateKey.from_seed_bytes(skey.seed)
    return Ed25519PrivateKey.from_private_bytes(skey.seed)


@lru_cache(maxsize=256)
def _public_verify(vkey: VKey) -> Callable[[bytes, bytes], None]:
    """Raises ValueError for bytes that are no point of the curve."""
    if vkey.type is KeyType.COSIGNATURE_MLDSA44:
        return MLDSA44PublicKey.from_public_bytes(vkey.public_key).verify
    return Ed25519PublicKey.from_public_bytes(vkey.public_key).verify


def sign_bytes(skey: SKey, message: bytes) -> bytes:
    """The bare signature: 64 bytes of Ed25519, or 2,420 of pure ML-DSA-44 with an empty context (about 0.5 ms)."""
    return _private_key(skey).sign(message)


def verify_bytes(vkey: VKey, message: bytes, signature: bytes) -> None:
    """Raises SignatureError unless `signature` is the key's over `message`."""
    try:
        _public_verify(vkey)(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureError(f"the signature of {vkey.name}+{vkey.key_id.hex()} is not valid") from None
