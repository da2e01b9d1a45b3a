"""Whether a payload and its blobs are the ones that an entry commits to. For eventspan.py.

Rules: the code that seals and opens for those who use a log is not used here, only formats, SHA-256 and the cipher. A payload
is right if its record opens under a key of its member, its texts hash to the root in the entry, and its header names this log,
member and stream; a blob, if it opens to what the event refers to. specs/formats.md, "Checking".
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from hashlib import sha256

from translog.errors import MalformedError, NotFoundError, VerificationError
from translog.events.cipher import BLOB, PAYLOAD, RECORD_VERSION, open_record, record_key_id
from translog.events.entry import EventEntry, Numbered
from translog.events.seal import SEED_BYTES, BlobReference, Field, decode_plain, find_blobs, make_salts
from translog.events.texts import Header, parse_header, parse_text
from translog.log.findings import ERASED, NEVER_GIVEN, NOT_OPENED, OPAQUE, EventsFound
from translog.log.recompute import tree_hash
from translog.storage.source import EventRead
from translog.storage.store import PayloadRow

FindKey = Callable[[bytes], bytes]
"""The data key of a key id. Raises NotFoundError, with code `key-erased` where it is gone on purpose."""

_PLAIN_BYTES_MAX = 256 * 1024 * 1024
"""Largest payload that is opened: more than any request may bring."""
_KEPT_HEADER_BYTES_MAX = 4_096
_VERSION = bytes([RECORD_VERSION])
_ERASED_CODE = "key-erased"
_REFERENCE = b'{"$blob":{'
"""How the reference to a blob begins in the texts that this program makes."""


class PayloadCheck:
    """Looks at payload after payload, and notes what is found."""

    def __init__(self, found: EventsFound, *, origin: str, find_key: FindKey | None) -> None:
        """Without `find_key` nothing is opened."""
        self._found = found
        self._origin = origin
        self._find_key = find_key

    def check(self, index: int, event: EventEntry, row: PayloadRow, read: EventRead) -> int:
        """How many blobs belong to the event. Raises MalformedError or VerificationError for what is not the event's."""
        record = row.record
        if event.numbered is Numbered.SENDER and row.uid_key is not None:
            raise MalformedError("has an id, and its sender numbered it")
        if record is None or record[:1] != _VERSION:
            self._require_not_ours(event, row)
            return 0
        key_id = record_key_id(record)
        if key_id is None or key_id.rpartition(b"/")[0] != event.member.encode():
            raise MalformedError("names no key of its member")
        if self._find_key is None:
            self._found.excepted[NOT_OPENED] += 1
            return row.blobs
        try:
            return self._open(index, event, row, read, partial(self._open_record, event, self._find_key))
        except NotFoundError as error:
            if error.code == _ERASED_CODE:
                self._found.excepted[ERASED] += 1
            else:
                count, first = self._found.unknown_keys.get(key_id, (0, index))
                self._found.unknown_keys[key_id] = (count + 1, first)
            return row.blobs

    def _require_not_ours(self, event: EventEntry, row: PayloadRow) -> None:
        """A payload that the log never got, or that only its member's readers can open: there is neither of what the log
        numbers, since it seals that itself."""
        record = row.record
        if event.numbered is Numbered.LOG:
            raise MalformedError("was made by the log, and is gone" if record is None else "is of an unknown version")
        if row.blobs:
            raise MalformedError("is not the log's to read, and has blobs")
        if record is None:
            self._found.excepted[NEVER_GIVEN] += 1
            return
        if not record or self._opens_as_ours(event, record):
            raise MalformedError("has lost its version")
        self._found.excepted[OPAQUE] += 1

    def _opens_as_ours(self, event: EventEntry, record: bytes) -> bool:
        if self._find_key is None:
            return False
        with suppress(MalformedError, VerificationError, NotFoundError):
            self._open_record(event, self._find_key, _VERSION + record[1:], _PLAIN_BYTES_MAX)
            return True
        return False

    def _open_record(
        self, event: EventEntry, find_key: FindKey, record: bytes, bytes_max: int, label: bytes = PAYLOAD, salt: bytes = b""
    ) -> bytes:
        origin = self._origin
        return open_record(
            record,
            find_key=find_key,
            origin=origin,
            root=event.root,
            plain_bytes_max=bytes_max,
            label=label,
            blob_salt=salt,
        )

    def _open(self, index: int, event: EventEntry, row: PayloadRow, read: EventRead, open_with: Callable[..., bytes]) -> int:
        """Opens payload and blobs; how many of these there should be."""
        plain = open_with(row.record, _PLAIN_BYTES_MAX)
        texts, leaves = _decode(plain)
        if sha256(b"\2" + len(leaves).to_bytes(2, "big") + tree_hash(leaves)).digest() != event.root:
            raise VerificationError("is not what the entry says: it hashes to another event root")
        header = _header(texts[0] or b"")
        if (header.origin, header.member, header.stream) != (self._origin, event.member, event.stream):
            raise VerificationError("was sealed for another log, member or stream")
        if len(header.names) != len(texts) - 1:
            raise MalformedError(f"has {len(texts) - 1} fields, and its header names {len(header.names)}")
        references = _references(header, texts) if _REFERENCE in plain else []
        if None in texts and len(references) != row.blobs:
            self._found.good["payloads"] += 1
            return row.blobs  # of an erased field nobody can tell whether it was a blob
        for number, reference in enumerate(references):
            if number in read.blobs:
                self._open_blob(index, number, reference, read.blobs[number], open_with)
        if len(references) != row.blobs:
            self._found.bad("payloads", "payload", index, f"refers to {len(references)} blobs, and its row says {row.blobs}")
        else:
            self._found.good["payloads"] += 1
        return len(references)

    def _open_blob(
        self, index: int, number: int, reference: BlobReference, record: bytes, open_with: Callable[..., bytes]
    ) -> None:
        try:
            data = open_with(record, reference.size, BLOB, reference.salt)
            if len(data) != reference.size or sha256(reference.salt + data).digest() != reference.sha256:
                raise VerificationError("is not the one that was sealed")
        except (MalformedError, VerificationError, NotFoundError) as error:
            self._found.bad("blobs", f"blob {number} of payload", index, error.detail)
        else:
            self._found.good["blobs"] += 1


def _decode(plain: bytes) -> tuple[Sequence[bytes | None], Sequence[bytes]]:
    """Texts, None in the place of an erased one, and leaves. The usual form is taken apart here: 25 us less for 20 fields."""
    if plain[:1] != b"\1":
        fields = decode_plain(plain).fields
        texts = [item.text if isinstance(item, Field) else None for item in fields]
        return texts, [sha256(b"\0" + item.salt + item.text).digest() if isinstance(item, Field) else item for item in fields]
    at = 1 + SEED_BYTES + 2
    count = int.from_bytes(plain[at - 2 : at], "big")
    whole = []
    for _ in range(count):
        end = at + 4 + int.from_bytes(plain[at : at + 4], "big")
        whole.append(plain[at + 4 : end])
        at = end
    if at != len(plain) or not whole:
        raise MalformedError("is cut short, or has something behind its end")
    salts = make_salts(plain[1 : 1 + SEED_BYTES], count)
    return whole, [sha256(b"\0" + salt + text).digest() for salt, text in zip(salts, whole, strict=True)]


def _header(text: bytes) -> Header:
    """The header in a text: one source sends few different ones. A long one is not kept: 1,024 of those are any size."""
    return _kept_header(text) if len(text) <= _KEPT_HEADER_BYTES_MAX else parse_header(text)


_kept_header = lru_cache(maxsize=1_024)(parse_header)


def _references(header: Header, texts: Sequence[bytes | None]) -> list[BlobReference]:
    """The blobs that an event refers to, in order. A text that cannot hold a reference is not parsed; one that a sender sealed
    is none, however it is spelled."""
    found = {}
    for name, text in zip(header.names, texts[1:], strict=True):
        if text is not None and _REFERENCE in text:
            found[name] = parse_text(text)[1]
    return find_blobs(found)
