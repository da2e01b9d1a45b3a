"""Payload records and wrapped data keys: the one place that encrypts, and that compresses payloads.

    record   u8 version (1) || u8 length || key id || nonce(12) || AES-256-GCM(zstd(plain))
    key      HMAC-SHA-256(data key, label || u16 length || origin || event root || salt)
    aad      everything in the record before the ciphertext || origin || event root || salt
    wrapped  u8 version (1) || nonce(12) || AES-256-GCM(data key)
    aad      "translog/wrap/1" || u8 length || key id || origin

The zstd frame names its dictionary: payload-1.dict beside this file, which scripts/dictionary made and which never changes (it
holds what events have in common and a short record cannot repeat within itself: it halves what is stored), or none.

Rules: the label says what the record holds, and only a blob has a salt here; a record must open, its bytes may differ between
zstd versions; what comes out of the decompressor is limited; nonces come in as bytes. specs/formats.md, "Payload".
"""

import hmac
import pkgutil
import struct
import sys
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from translog.errors import MalformedError, VerificationError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PAYLOAD = b"translog/payload/1"
BLOB = b"translog/blob/1"
"""Labels: what a record holds."""
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
KEY_ID_BYTES_MAX = 255

RECORD_VERSION = 1
"""Version of the records made here; those of another are opaque to the log."""
_LEVEL = 3
_WINDOW_LOG_MAX = 23
"""8 MiB, as for request bodies: what a record of level 3 asks for is 2 MiB."""
_ZSTD_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
_WRAP = b"translog/wrap/1"
_U16 = struct.Struct(">H")
_IDLE_MAX = 8
_DICTIONARY = zstd.ZstdDict(pkgutil.get_data("translog.events", "payload-1.dict") or b"")
_DICTIONARIES = {0: None, _DICTIONARY.dict_id: _DICTIONARY}
"""By the id that a frame names; 0 is none."""
_idle: list[zstd.ZstdCompressor] = []
"""Compressors that nobody uses: making one anew costs half as much again as the compression of an event. A list's pop and
append are one step each, so threads may share it; one compressor in two hands would mix their frames."""


def seal_record(
    plain: bytes,
    *,
    data_key: bytes,
    key_id: bytes,
    origin: str,
    root: bytes,
    nonce: bytes,
    label: bytes = PAYLOAD,
    blob_salt: bytes = b"",
) -> bytes:
    """The record of `plain` for the event with this root in the log `origin`. `nonce` is 12 random bytes, never used twice
    with one data key and root. About 10 us for 2 kB. Raises MalformedError for a key id that is empty or over 255 bytes."""
    if not 1 <= len(key_id) <= KEY_ID_BYTES_MAX or len(nonce) != NONCE_BYTES:
        raise MalformedError("a key id of 1 to 255 bytes and a nonce of 12 are needed")
    head = bytes((RECORD_VERSION, len(key_id))) + key_id + nonce
    name = origin.encode()
    bound = root + blob_salt
    cipher = AESGCM(_record_key(data_key, label, name, bound))
    return head + cipher.encrypt(nonce, _compress(plain), head + name + bound)


def open_record(
    record: bytes,
    *,
    find_key: Callable[[bytes], bytes],
    origin: str,
    root: bytes,
    plain_bytes_max: int,
    label: bytes = PAYLOAD,
    blob_salt: bytes = b"",
) -> bytes:
    """The plain text of a record.

    `find_key` gives the data key of a key id. What it raises passes through (NotFoundError for a key that was erased). Raises
    MalformedError for what is no record of this version, and for a plain text that is larger than `plain_bytes_max` or does not
    decompress; VerificationError if it does not open: it was changed, or is of another event, log or key.
    """
    key_id = record_key_id(record)
    at = 2 + len(key_id or b"") + NONCE_BYTES
    if key_id is None or len(record) < at + TAG_BYTES:
        raise MalformedError("not a payload record of version 1", code="unknown-record")
    head = record[:at]
    name = origin.encode()
    bound = root + blob_salt
    cipher = AESGCM(_record_key(find_key(key_id), label, name, bound))
    try:
        packed = cipher.decrypt(head[-NONCE_BYTES:], record[at:], head + name + bound)
    except InvalidTag:
        raise VerificationError("the payload record does not open under its key", code="record-does-not-open") from None
    return _decompress(packed, plain_bytes_max)


def record_key_id(record: bytes) -> bytes | None:
    """The key id that a record names; None for a record of another version, or none at all."""
    if len(record) < 2 or record[0] != RECORD_VERSION or not 0 < record[1] <= len(record) - 2:
        return None
    return record[2 : 2 + record[1]]


def wrap_key(key: bytes, *, kek: bytes, key_id: bytes, origin: str, nonce: bytes) -> bytes:
    """A data key encrypted for the key store. `nonce` is 12 random bytes, never used twice with one `kek`."""
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES or len(key_id) > KEY_ID_BYTES_MAX:
        raise MalformedError(f"a key of {KEY_BYTES} bytes, a nonce of {NONCE_BYTES} and a key id of up to 255 are needed")
    return bytes([RECORD_VERSION]) + nonce + AESGCM(kek).encrypt(nonce, key, _wrap_aad(key_id, origin))


def unwrap_key(wrapped: bytes, *, kek: bytes, key_id: bytes, origin: str) -> bytes:
    """The data key. Raises MalformedError for what was not wrapped in this version; VerificationError if it does not open."""
    if len(wrapped) != 1 + NONCE_BYTES + KEY_BYTES + TAG_BYTES or wrapped[0] != RECORD_VERSION:
        raise MalformedError("not a wrapped key of version 1")
    nonce, sealed = wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :]
    try:
        return AESGCM(kek).decrypt(nonce, sealed, _wrap_aad(key_id, origin))
    except InvalidTag:
        raise VerificationError("the wrapped key does not open under this kek", code="key-does-not-open") from None


def _record_key(data_key: bytes, label: bytes, origin: bytes, bound: bytes) -> bytes:
    return hmac.digest(data_key, label + _U16.pack(len(origin)) + origin + bound, "sha256")


def _wrap_aad(key_id: bytes, origin: str) -> bytes:
    return _WRAP + bytes([len(key_id)]) + key_id + origin.encode()


def _compress(plain: bytes) -> bytes:
    try:
        compressor = _idle.pop()
    except IndexError:
        compressor = zstd.ZstdCompressor(level=_LEVEL, zstd_dict=_DICTIONARY.as_digested_dict)
    packed = compressor.compress(plain, compressor.FLUSH_FRAME)
    if len(_idle) < _IDLE_MAX:
        _idle.append(compressor)
    return packed


def _decompress(packed: bytes, plain_bytes_max: int) -> bytes:
    try:
        name = zstd.get_frame_info(packed).dictionary_id
        if name not in _DICTIONARIES:
            raise MalformedError(f"the payload needs dictionary {name:#x}, which is not known here", code="unknown-dictionary")
        decompressor = zstd.ZstdDecompressor(zstd_dict=_DICTIONARIES[name], options=_ZSTD_OPTIONS)
        plain = decompressor.decompress(packed, plain_bytes_max + 1)
    except zstd.ZstdError:
        raise MalformedError("the payload does not decompress", code="bad-compression") from None
    if len(plain) > plain_bytes_max:
        raise MalformedError(f"the payload is larger than {plain_bytes_max} bytes", code="payload-too-large")
    if not decompressor.eof or decompressor.unused_data:
        raise MalformedError("the payload is cut short, or something follows it", code="bad-compression")
    return plain
