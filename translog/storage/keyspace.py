"""The keys and values of an embedded store. Encoding only; this table is the schema.

    key                              value
    meta                             compact JSON {"format":1,"origin":...,"profile":...,"minimum_index":0}
    state                            u64 size || 32-byte root || u64 received_at ms
    latest                           u64 size || note            the latest published checkpoint
    c || u64 size                    note                        a kept checkpoint
    e || u64 index                   entry
    t || u8 level || u64 index       hashes of the tile so far, 32 bytes each: a partial tile is a prefix of the later one

Integers are big-endian, so keys sort by number. The one-letter prefixes are the first letter of no whole key;
p, i, q and b are reserved (payloads, idempotency, stream numbers, blobs).
"""

import json

from translog.core.tile import LEVEL_MAX
from translog.core.wire import HASH_BYTES
from translog.errors import CorruptionError, SettingsError
from translog.storage.store import LogMeta, Profile, StoredCheckpoint, TreeState

FORMAT_VERSION = 1

META = b"meta"
STATE = b"state"
LATEST = b"latest"

_U64 = 8


def entry_key(index: int) -> bytes:
    return b"e" + index.to_bytes(_U64, "big")


def entry_index(key: bytes) -> int:
    """The index in a key that `entry_key` made."""
    return int.from_bytes(key[1:], "big")


def tile_key(level: int, index: int) -> bytes:
    """Raises CorruptionError for a level that no tree has."""
    if not 0 <= level <= LEVEL_MAX:
        raise CorruptionError(f"no tree has a tile of level {level}")
    return b"t" + bytes([level]) + index.to_bytes(_U64, "big")


def decode_tile_key(key: bytes) -> tuple[int, int] | None:
    """Level and index in a key that `tile_key` made, None for any other key."""
    if len(key) != 2 + _U64 or key[:1] != b"t" or key[1] > LEVEL_MAX:
        return None
    return key[1], int.from_bytes(key[2:], "big")


TILE_END = b"u"
"""Greater than every tile's key."""


def kept_checkpoint_key(size: int) -> bytes:
    return b"c" + size.to_bytes(_U64, "big")


KEPT_CHECKPOINT_START = b"c"
"""Less than every kept checkpoint's key."""
KEPT_CHECKPOINT_END = b"c" + b"\xff" * _U64 + b"\xff"
"""Greater than every kept checkpoint's key."""


def decode_kept_checkpoint(key: bytes, value: bytes) -> StoredCheckpoint:
    return StoredCheckpoint(size=int.from_bytes(key[1:], "big"), note=value)


def encode_meta(meta: LogMeta) -> bytes:
    document = {
        "format": meta.format_version,
        "origin": meta.origin,
        "profile": meta.profile.value,
        "minimum_index": meta.minimum_index,
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def decode_meta(value: bytes) -> LogMeta:
    """Raises SettingsError for a format version this program does not know, CorruptionError for anything else wrong."""
    try:
        document = json.loads(value)
        version = document["format"]
        if version != FORMAT_VERSION:
            older = type(version) is int and 0 < version < FORMAT_VERSION
            raise SettingsError(
                f"the store has format version {version}, this program knows {FORMAT_VERSION}",
                hint="keep a copy of DIR, then run `translog upgrade DIR`"
                if older
                else "use the version of translog that wrote it, or a newer one",
                code="store-version",
            )
        meta = LogMeta(
            format_version=version,
            origin=document["origin"],
            profile=Profile(document["profile"]),
            minimum_index=document["minimum_index"],
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptionError("the store's description of the log (key `meta`) is damaged") from None
    if encode_meta(meta) != value:
        raise CorruptionError("the store's description of the log (key `meta`) is damaged")
    return meta


def meta_version(value: bytes) -> int:
    """The format version in a value of any version. Raises CorruptionError."""
    try:
        version: int = json.loads(value)["format"]
        well_formed = type(version) is int and version >= 1 and with_meta_version(value, version) == value
    except (ValueError, KeyError, TypeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise CorruptionError("the store's description of the log (key `meta`) is damaged")
    return version


def with_meta_version(value: bytes, version: int) -> bytes:
    """The same description under another format version, which must be the only difference between the two."""
    return json.dumps(json.loads(value) | {"format": version}, separators=(",", ":"), ensure_ascii=False).encode()


def encode_state(state: TreeState) -> bytes:
    return state.size.to_bytes(_U64, "big") + state.root + state.received_at_ms.to_bytes(_U64, "big")


def decode_state(value: bytes) -> TreeState:
    """Raises CorruptionError for a value of the wrong length."""
    if len(value) != _U64 + HASH_BYTES + _U64:
        raise CorruptionError("the store's tree state (key `state`) is damaged")
    return TreeState(
        size=int.from_bytes(value[:_U64], "big"),
        root=value[_U64 : _U64 + HASH_BYTES],
        received_at_ms=int.from_bytes(value[_U64 + HASH_BYTES :], "big"),
    )


def encode_latest(checkpoint: StoredCheckpoint) -> bytes:
    return checkpoint.size.to_bytes(_U64, "big") + checkpoint.note


def decode_latest(value: bytes) -> StoredCheckpoint:
    """Raises CorruptionError for a value too short to hold a size."""
    if len(value) < _U64:
        raise CorruptionError("the store's latest checkpoint (key `latest`) is damaged")
    return StoredCheckpoint(size=int.from_bytes(value[:_U64], "big"), note=value[_U64:])
