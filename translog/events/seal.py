"""The seal of an event: a small Merkle tree over its fields, which an entry commits to by its root.

    text_i      the header and the fields: texts.py
    salt_i      bytes 16*i .. 16*i+16 of SHAKE-256("translog/salts/1" || seed)
    leaf_i      SHA-256(0x00 || salt_i || text_i)
    event root  SHA-256(0x02 || u16(n+1) || RFC 6962 tree hash over leaf_0 .. leaf_n)
    plain       u8 1 || seed || u16 count || (u32 length || text)*                             whole event
                u8 2 || u16 count || (u8 1 || salt || u32 length || text  |  u8 0 || leaf)*    after a field was erased

Rules: nothing is sealed that a strict reader would refuse; text_0 is in every disclosure and cannot be erased; the seed gives
every salt, so it leaves only with the whole event. Pure: seeds come in as bytes. specs/formats.md, "Sealed event", "Payload".
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256, shake_256
from typing import Any, NamedTuple

from translog.core.merkle import Node, fold_range
from translog.core.wire import HASH_BYTES, clip, decode_base64, encode_base64
from translog.errors import MalformedError, VerificationError
from translog.events.jsontext import JSONObject
from translog.events.texts import Header, make_json, make_texts, parse_header, parse_json, parse_text

SEED_BYTES = 32
SALT_BYTES = 16
BLOB = "$blob"

_WHOLE, _ERASED = 1, 2
_U16, _U32, _SALT = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(f"{SALT_BYTES}s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A sealed event. `texts[0]` is the header; `seed` gives the salts."""

    texts: tuple[bytes, ...] = field(repr=False)
    seed: bytes = field(repr=False)
    root: bytes


class Field(NamedTuple):
    """One text with its salt."""

    salt: bytes
    text: bytes


class Blob(NamedTuple):
    """A large value that is stored beside the payload: its salt, and the compact JSON of the value."""

    salt: bytes
    data: bytes


def seal(event: Mapping[str, Any], *, origin: str, member: str, stream: str, seed: bytes) -> Sealed:
    """Seals an event whose fields are in the order given, under 32 random bytes.

    Raises MalformedError for what is not JSON that every reader understands alike (a lone surrogate, NaN, an integer beyond
    2^53-1, a name that is no string, deep nesting), and for too many fields or too large ones.
    """
    return _seal(make_texts(event, origin=origin, member=member, stream=stream), seed)


def seal_with_blobs(
    event: Mapping[str, Any], *, origin: str, member: str, stream: str, seed: bytes, blob_bytes_min: int
) -> tuple[Sealed, list[Blob]]:
    """`take_blobs` and `seal` in one, for a normalised event (`is_plain` of make_texts): most have no blobs. Raises
    MalformedError as they do."""
    if not _may_have_blobs(event, blob_bytes_min):
        texts = make_texts(event, origin=origin, member=member, stream=stream, is_plain=True)
        if max(map(len, texts)) <= blob_bytes_min:  # a text is longer than the JSON of its value
            return _seal(texts, seed), []
    kept, blobs = take_blobs(event, seed=seed, blob_bytes_min=blob_bytes_min)
    return seal(kept, origin=origin, member=member, stream=stream, seed=seed), blobs


def _may_have_blobs(event: Mapping[str, Any], blob_bytes_min: int) -> bool:
    """Whether a field is a string of that many characters, or could be mistaken for a blob."""
    for value in event.values():
        kind = type(value)
        if (kind is str and len(value) > blob_bytes_min) or (kind is dict and is_blob(value)):
            return True
    return False


def seal_texts(texts: Sequence[bytes], *, seed: bytes) -> Sealed:
    """Seals texts that were made elsewhere. Raises MalformedError unless they are a header and the strict JSON pairs that it
    names, or if a value claims to be a blob. Whether origin, member and stream are the right ones is the caller's business."""
    if not texts:
        raise MalformedError("an event has a header at least")
    names = parse_header(texts[0]).names
    if len(names) != len(texts) - 1:
        raise MalformedError(f"the event's header names {len(names)} fields, not {len(texts) - 1}")
    for name, text in zip(names, texts[1:], strict=True):
        found, value = parse_text(text)
        if found != name:
            raise MalformedError(f"the event's header names {clip(name)} where {clip(found)} is")
        if is_blob(value):
            raise MalformedError(f"the field {clip(name)} claims to be a blob, which does not come along")
    return _seal(tuple(texts), seed)


def _seal(texts: tuple[bytes, ...], seed: bytes) -> Sealed:
    if len(seed) != SEED_BYTES:
        raise MalformedError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    # hash_field, without a call for each
    leaves = [sha256(b"\0" + salt + text).digest() for salt, text in zip(make_salts(seed, len(texts)), texts, strict=True)]
    return Sealed(texts=texts, seed=seed, root=event_root(LeafTree(leaves).root, len(leaves)))


def make_salts(seed: bytes, count: int) -> list[bytes]:
    """The salts of the first `count` leaves."""
    return _salts(b"translog/salts/1", seed, count)


def _salts(label: bytes, seed: bytes, count: int) -> list[bytes]:
    return [salt for (salt,) in _SALT.iter_unpack(shake_256(label + seed).digest(SALT_BYTES * count))]


def hash_field(salt: bytes, text: bytes) -> bytes:
    """leaf_i."""
    return sha256(b"\0" + salt + text).digest()


def event_root(tree_root: bytes, count: int) -> bytes:
    """The event root from the tree hash over `count` leaves."""
    return sha256(b"\2" + _U16.pack(count) + tree_root).digest()


class LeafTree:
    """The tree over an event's leaves, at least one of them. A core.merkle.HashReader; about 0.4 us a leaf."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._levels = [leaves]
        odd = []
        level = leaves
        while len(level) > 1:
            if len(level) & 1:
                odd.append(level[-1])
            # core.merkle.hash_children, without a call for each
            nodes = iter(level)
            pairs = zip(nodes, nodes)  # noqa: B905  # the odd one joins at the end
            level = [sha256(b"\1" + left + right).digest() for left, right in pairs]
            self._levels.append(level)
        self.root = fold_range([level[0], *reversed(odd)])
        """The RFC 6962 tree hash."""

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """See HashReader; these are the leaves themselves, so there is nothing to authenticate."""
        return [self._levels[node.level][node.index] for node in nodes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The private part of an event. An erased field is its 32-byte leaf; then there is no seed."""

    fields: tuple[Field | bytes, ...] = field(repr=False)
    seed: bytes | None = field(repr=False)

    def leaves(self) -> list[bytes]:
        """All leaves, the header's first."""
        return [hash_field(*item) if isinstance(item, Field) else item for item in self.fields]

    def root(self) -> bytes:
        """The event root."""
        return event_root(LeafTree(self.leaves()).root, len(self.fields))

    def header(self) -> Header:
        """What text_0 says. Raises MalformedError."""
        first = self.fields[0]
        if not isinstance(first, Field):
            raise MalformedError("the event's header is missing")
        return parse_header(first.text)

    def event(self) -> JSONObject:
        """Names and values of what was not erased. Raises MalformedError unless they are as the header says."""
        event = {}
        names = self.header().names
        if len(names) != len(self.fields) - 1:
            raise MalformedError("the event's header names more or fewer fields than there are")
        for name, item in zip(names, self.fields[1:], strict=True):
            if isinstance(item, Field):
                found, event[name] = parse_text(item.text)
                if found != name:
                    raise MalformedError(f"the event's header names {clip(name)} where {clip(found)} is")
        return event

    def erase(self, leaf: int) -> "Payload":
        """The payload without that field. Raises MalformedError for the header, or for no leaf of this event."""
        if not 1 <= leaf < len(self.fields):
            raise MalformedError(f"leaf {leaf} of {len(self.fields)} cannot be erased")
        fields = list(self.fields)
        item = fields[leaf]
        fields[leaf] = hash_field(*item) if isinstance(item, Field) else item
        return Payload(fields=tuple(fields), seed=None)


def encode_plain(payload: Sealed | Payload) -> bytes:
    """The plain text of a payload record: with the seed where there is one."""
    if isinstance(payload, Sealed):
        return b"".join([bytes([_WHOLE]), payload.seed, *_framed(payload.texts)])
    if payload.seed is not None:  # then no field is erased
        texts = [item.text for item in payload.fields if isinstance(item, Field)]
        return b"".join([bytes([_WHOLE]), payload.seed, *_framed(texts)])
    parts = [bytes([_ERASED]), _U16.pack(len(payload.fields))]
    for item in payload.fields:
        parts += [b"\1", item.salt, _U32.pack(len(item.text)), item.text] if isinstance(item, Field) else [b"\0", item]
    return b"".join(parts)


def _framed(texts: Sequence[bytes]) -> list[bytes]:
    parts = [_U16.pack(len(texts))]
    for text in texts:
        parts += (_U32.pack(len(text)), text)
    return parts


class _Cursor:
    """Takes bytes off the front. Raises MalformedError at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise MalformedError("the payload is cut short")
        self._at += count
        return part

    def text(self) -> bytes:
        return self.take(_U32.unpack(self.take(_U32.size))[0])

    @property
    def is_done(self) -> bool:
        return self._at == len(self._data)


def decode_plain(plain: bytes) -> Payload:
    """The payload in a record's plain text. Raises MalformedError. Nothing is checked against an entry."""
    cursor = _Cursor(plain)
    form = cursor.take(1)[0]
    seed = None
    if form == _WHOLE:
        seed = cursor.take(SEED_BYTES)
    elif form != _ERASED:
        raise MalformedError(f"a payload of form {form}, which is not known here")
    count = _U16.unpack(cursor.take(_U16.size))[0]
    fields: list[Field | bytes] = []
    if seed is not None:
        fields += [Field(salt, cursor.text()) for salt in make_salts(seed, count)]
    else:
        fields += [_decode_field(cursor) for _ in range(count)]
    if not fields or not cursor.is_done:
        raise MalformedError("the payload has no header, or something behind its end")
    if not isinstance(fields[0], Field) or (seed is None and all(isinstance(item, Field) for item in fields)):
        raise MalformedError("the payload has lost its header, or nothing was erased from it")
    return Payload(fields=tuple(fields), seed=seed)


def _decode_field(cursor: _Cursor) -> Field | bytes:
    kind = cursor.take(1)[0]
    if kind > 1:
        raise MalformedError("the payload has a field that is neither there nor erased")
    return Field(cursor.take(SALT_BYTES), cursor.text()) if kind else cursor.take(HASH_BYTES)


def is_blob(value: Any) -> bool:
    """Whether a field's value stands for a blob."""
    return type(value) is dict and len(value) == 1 and BLOB in value


class BlobReference(NamedTuple):
    """What is left in the event of a value that is stored as a blob."""

    name: str
    salt: bytes
    sha256: bytes
    size: int


def take_blobs(event: Mapping[str, Any], *, seed: bytes, blob_bytes_min: int) -> tuple[Mapping[str, Any], list[Blob]]:
    """The event with its large values replaced, and what was taken out, in order.

    Large is a string, object or array whose compact JSON has more than `blob_bytes_min` bytes; so is anything that could be
    mistaken for a blob, so that it is read back as it was. Raises MalformedError for what cannot be sealed. About 10 us for
    2 kB.
    """
    taken: dict[str, bytes] = {}
    for name, value in event.items():
        kind = type(value)
        if (kind is str and 6 * len(value) + 2 > blob_bytes_min) or kind is dict or kind is list:
            data = make_json(value)
            if len(data) > blob_bytes_min or is_blob(value):
                taken[name] = data
    if not taken:
        return event, []
    salts = _salts(b"translog/blob-salts/1", seed, len(taken))
    blobs = [Blob(salt, data) for salt, data in zip(salts, taken.values(), strict=True)]
    references = {name: _refer(blob) for name, blob in zip(taken, blobs, strict=True)}
    return {**event, **references}, blobs


def _refer(blob: Blob) -> JSONObject:
    digest = sha256(blob.salt + blob.data).digest()
    return {BLOB: {"salt": encode_base64(blob.salt), "sha256": encode_base64(digest), "size": len(blob.data)}}


def find_blobs(event: Mapping[str, Any]) -> list[BlobReference]:
    """The blobs of an event, in order. Raises MalformedError for a reference that is none."""
    references = []
    for name, value in event.items():
        if not is_blob(value):
            continue
        inner = value[BLOB]
        if type(inner) is not dict or list(inner) != ["salt", "sha256", "size"] or type(inner["size"]) is not int:
            raise MalformedError(f"the field {clip(name)} is no reference to a blob")
        if not isinstance(inner["salt"], str) or not isinstance(inner["sha256"], str):
            raise MalformedError(f"the field {clip(name)} is no reference to a blob")
        salt = decode_base64(inner["salt"], size=SALT_BYTES)
        digest = decode_base64(inner["sha256"], size=HASH_BYTES)
        references.append(BlobReference(name=name, salt=salt, sha256=digest, size=inner["size"]))
    return references


def put_back_blobs(event: Mapping[str, Any], blobs: Sequence[bytes]) -> Mapping[str, Any]:
    """The event as it was before `take_blobs`, from the blobs' bytes in order. Raises MalformedError, or VerificationError for
    bytes that are not what the event refers to."""
    references = find_blobs(event)
    if len(references) != len(blobs):
        raise MalformedError(f"the event has {len(references)} blobs, not {len(blobs)}")
    values = {}
    for reference, data in zip(references, blobs, strict=True):
        if len(data) != reference.size or sha256(reference.salt + data).digest() != reference.sha256:
            raise VerificationError(f"the blob of the field {clip(reference.name)} is not the one sealed", code="blob-mismatch")
        values[reference.name] = parse_json(data)
    return {**event, **values} if values else event
