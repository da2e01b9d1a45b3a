"""The keys and values of an embedded store. Encoding only; this table is the schema.

    key                              value
    meta                             compact JSON {"format":1,"origin":...,"profile":...,"minimum_index":0}
    state                            u64 size || 32-byte root || u64 received_at ms
    latest                           u64 size || note            the latest published checkpoint
    c || u64 size                    note                        a kept checkpoint
    e || u64 index                   entry
    t || u8 level || u64 index       hashes of the tile so far, 32 bytes each: a partial tile is a prefix of the later one

Of an events log only:

    p || u64 index                   payload row, one for every event
    b || u64 index || u16 number     blob record, numbered from 0 in each event
    i || id key                      u64 index || content MAC    the first event of this id
    i || id key || content MAC       u64 index                   a later one of this id with other content
    n || member || 0 || stream       u8 numbered (0 log, 1 sender) || u64 next seq || u64 last index || u64 its received_at ms
    q || stream key || u64 seq       u64 index                   of sender-numbered streams only

    payload row   u8 flags (1 has an id, 2 has a record) || [id key || content MAC] || u16 count of blobs || record
    id key        SHA-256(member || 0 || stream || 0 || event id), its first 16 bytes
    stream key    SHA-256(member || 0 || stream), its first 16 bytes
    content MAC   HMAC-SHA-256(dedup key, source || 0 || record as received), its first 16 bytes

i, n and q follow from entries and payload rows. Integers are big-endian, so keys sort by number. The one-letter prefixes are
the first letter of no whole key.
"""

import json
from hashlib import sha256

from translog.core.tile import LEVEL_MAX
from translog.core.wire import HASH_BYTES
from translog.errors import CorruptionError, SettingsError
from translog.events.entry import Numbered
from translog.storage.store import LogMeta, PayloadRow, Profile, StoredCheckpoint, StreamHead, StreamName, TreeState

FORMAT_VERSION = 1

META = b"meta"
STATE = b"state"
LATEST = b"latest"

_U64 = 8
SHORT_HASH_BYTES = 16
"""Of id keys, stream keys and content MACs."""
BLOBS_MAX = 0xFFFF
"""Blobs of one event."""


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


# --- an events log ------------------------------------------------------------------------------------------------------

EVENT_PREFIXES = (b"p", b"b", b"i", b"n", b"q")
"""What the keys begin with that only an events log has."""
_FLAG_ID, _FLAG_RECORD = 1, 2
_NUMBERED = (Numbered.LOG, Numbered.SENDER)


def payload_key(index: int) -> bytes:
    return b"p" + index.to_bytes(_U64, "big")


def encode_payload_row(row: PayloadRow) -> bytes:
    flags, told, record = 0, b"", b""
    if row.uid_key is not None and row.mac is not None:
        flags, told = _FLAG_ID, row.uid_key + row.mac
    if row.record is not None:
        flags, record = flags | _FLAG_RECORD, row.record
    return bytes((flags,)) + told + row.blobs.to_bytes(2, "big") + record


def decode_payload_row(value: bytes) -> PayloadRow:
    """Raises CorruptionError for what `encode_payload_row` does not make."""
    flags = value[0] if value else 0xFF
    at = 1 + (2 * SHORT_HASH_BYTES if flags & _FLAG_ID else 0)
    if flags > _FLAG_ID | _FLAG_RECORD or len(value) < at + 2 or (len(value) > at + 2 and not flags & _FLAG_RECORD):
        raise CorruptionError("a payload row of the store is damaged")
    return PayloadRow(
        record=value[at + 2 :] if flags & _FLAG_RECORD else None,
        uid_key=value[1 : 1 + SHORT_HASH_BYTES] if flags & _FLAG_ID else None,
        mac=value[1 + SHORT_HASH_BYTES : at] if flags & _FLAG_ID else None,
        blobs=int.from_bytes(value[at : at + 2], "big"),
    )


def blob_key(index: int, number: int) -> bytes:
    return b"b" + index.to_bytes(_U64, "big") + number.to_bytes(2, "big")


def uid_key(stream: StreamName, uid: str) -> bytes:
    """The id key of an event id, 16 bytes; the key of its row without the prefix, as LogStore.find_ids takes it."""
    return sha256(f"{stream.member}\0{stream.stream}\0{uid}".encode()).digest()[:SHORT_HASH_BYTES]


def encode_first_id(index: int, mac: bytes) -> bytes:
    """The value of the row of an id's first event."""
    return index.to_bytes(_U64, "big") + mac


def decode_first_id(value: bytes) -> tuple[int, bytes]:
    """Index and content MAC. Raises CorruptionError for a value of the wrong length."""
    if len(value) != _U64 + SHORT_HASH_BYTES:
        raise CorruptionError("an event id of the store is damaged")
    return int.from_bytes(value[:_U64], "big"), value[_U64:]


def encode_index(index: int) -> bytes:
    """The value of the row of an id's later event, and of a sender's number."""
    return index.to_bytes(_U64, "big")


def decode_index(value: bytes) -> int:
    """Raises CorruptionError for a value of the wrong length."""
    if len(value) != _U64:
        raise CorruptionError("an index in the store is damaged")
    return int.from_bytes(value, "big")


def id_row_key(key: bytes) -> bytes:
    """The whole key of an id key, or of an id key and a content MAC."""
    return b"i" + key


STREAM_START = b"n"
"""Less than every stream's key."""
STREAM_END = b"o"
"""Greater than every stream's key."""


def stream_row_key(stream: StreamName) -> bytes:
    return f"n{stream.member}\0{stream.stream}".encode()


def encode_stream_head(head: StreamHead) -> bytes:
    numbers = (head.next_seq, head.last_index, head.last_received_at_ms)
    return bytes((_NUMBERED.index(head.numbered),)) + b"".join(number.to_bytes(_U64, "big") for number in numbers)


def decode_stream_row(key: bytes, value: bytes) -> tuple[StreamName, StreamHead]:
    """The stream and its head. Raises CorruptionError for what is no stream's row."""
    try:
        member, stream = key[1:].decode().split("\0")
    except ValueError:
        member = stream = ""
    if not member or not stream or len(value) != 1 + 3 * _U64 or value[0] >= len(_NUMBERED):
        raise CorruptionError(f"the store's row of a stream (key {key.hex()}) is damaged")
    next_seq, last_index, last_received_at_ms = (
        int.from_bytes(value[at : at + _U64], "big") for at in range(1, len(value), _U64)
    )
    head = StreamHead(
        numbered=_NUMBERED[value[0]],
        next_seq=next_seq,
        last_index=last_index,
        last_received_at_ms=last_received_at_ms,
    )
    return StreamName(member, stream), head


def number_key(stream: StreamName, seq: int) -> bytes:
    key = sha256(f"{stream.member}\0{stream.stream}".encode()).digest()[:SHORT_HASH_BYTES]
    return b"q" + key + seq.to_bytes(_U64, "big")
