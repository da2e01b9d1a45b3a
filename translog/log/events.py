"""Reads a logged event back: its entry, its payload and its blobs, opened with the vault's keys.

Rules: nothing is returned that does not hash to the entry, or is not of this log, member and stream: the payload's root is
computed anew from its texts. What does not fit is damage of that event, which it names, and does not hold the log: the tree is
whole, and others' events must not be kept out. An event may have no payload here, or one that only its member's readers can
open; that is said, and no error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import structlog

from translog.errors import CorruptionError, MalformedError, NotFoundError, VerificationError
from translog.events.cipher import BLOB, RECORD_VERSION, open_record, record_key_id
from translog.events.entry import EVENT, EventEntry, Numbered, entry_kind, parse_entry
from translog.events.seal import Field, Payload, decode_plain, find_blobs, put_back_blobs
from translog.log.access import LogAccess
from translog.log.vault import Vault
from translog.storage.store import LogStore, PayloadRow

_logger = structlog.get_logger()

PAYLOAD_MISMATCH = "payload-mismatch"
"""Code of the CorruptionError of one event."""
_TOLD_MAX = 10_000
"""Damaged events that are remembered as told."""
PLAIN_BYTES_MAX = 256 * 1024 * 1024
"""Largest payload read back: more than any request may bring."""


class Content(StrEnum):
    """What the log has of an event beside its entry."""

    OPEN = "open"
    NEVER_GIVEN = "never given"
    OPAQUE = "opaque record"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedEvent:
    """An event as it was sealed. `entry_bytes` is what the log's tree holds, `entry` what it says. Where `content` is not OPEN
    there is neither `payload` nor `event`. `event` has names and values of what was not erased, blobs put back."""

    index: int
    entry_bytes: bytes
    entry: EventEntry
    content: Content
    payload: Payload | None = field(default=None, repr=False)
    event: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def texts(self) -> list[bytes | None]:
        """The sealed texts, the header's first; None in the place of an erased one."""
        fields = () if self.payload is None else self.payload.fields
        return [item.text if isinstance(item, Field) else None for item in fields]


class EventSource(Protocol):
    """What is read of an event: the part of LogStore."""

    def read_entries(self, *, start: int, end: int) -> list[bytes]:
        """See LogStore."""

    def read_payloads(self, indexes: Sequence[int]) -> list[PayloadRow | None]:
        """See LogStore."""

    def read_blobs(self, index: int) -> list[bytes]:
        """See LogStore."""


class EventStore:
    """The events of a log that runs."""

    def __init__(self, service: LogAccess, vault: Vault) -> None:
        self._service = service
        self._vault = vault
        self._told: set[int] = set()

    async def read_event(self, index: int) -> OpenedEvent:
        """A committed event, published or not: its caller tells them apart. Raises as `open_event`, and StorageError while the
        log is being opened anew. A CorruptionError other than PAYLOAD_MISMATCH holds the log."""
        opened = await self._service.read_store(lambda store: self._open(store, index))
        if isinstance(opened, CorruptionError):
            self._tell(index, opened)
            raise opened
        return opened

    def _open(self, store: LogStore, index: int) -> OpenedEvent | CorruptionError:
        """The event, or why its payload is damaged: what a read of the store raises would hold the log."""
        try:
            return open_event(store, index, origin=self._service.meta.origin, vault=self._vault)
        except CorruptionError as error:
            if error.code != PAYLOAD_MISMATCH:
                raise
            return error

    def _tell(self, index: int, error: CorruptionError) -> None:
        """Once for each event: who reads must not fill the log file."""
        if index not in self._told and len(self._told) < _TOLD_MAX:
            self._told.add(index)
            _logger.critical("an event is damaged", index=index, code=error.code, detail=error.detail)


def open_event(source: EventSource, index: int, *, origin: str, vault: Vault) -> OpenedEvent:
    """Entry `index`, opened. Blocks.

    Raises NotFoundError beyond the log, `not-an-event` for an entry that is none, `key-unknown` where the vault lacks its key;
    CorruptionError `payload-mismatch`, naming the event, where anything does not belong to its entry.
    """
    (entry_bytes,) = source.read_entries(start=index, end=index + 1)
    if entry_kind(entry_bytes) != EVENT:
        raise NotFoundError(f"entry {index} is not an event", code="not-an-event")
    try:
        entry = parse_entry(entry_bytes)
        (row,) = source.read_payloads([index])
        content = _content(entry, row)
        if row is None or row.record is None or content is not Content.OPEN:
            return OpenedEvent(index=index, entry_bytes=entry_bytes, entry=entry, content=content)
        payload = _open_payload(entry, row.record, origin=origin, vault=vault)
        event = _open_blobs(payload.event(), entry, row, source.read_blobs(index), origin=origin, vault=vault)
    except (MalformedError, VerificationError) as error:
        raise CorruptionError(
            f"the payload of event {index} does not belong to its entry: {error.detail}",
            hint="nothing of it is shown; restore the log from a backup or a mirror",
            code=PAYLOAD_MISMATCH,
        ) from error
    return OpenedEvent(index=index, entry_bytes=entry_bytes, entry=entry, content=Content.OPEN, payload=payload, event=event)


def _content(entry: EventEntry, row: PayloadRow | None) -> Content:
    """What a payload row holds. Raises MalformedError for what this log cannot have written."""
    if row is None:
        raise MalformedError("it has no payload row")
    if row.record is not None and row.record[:1] == bytes([RECORD_VERSION]):
        return Content.OPEN
    if entry.numbered is not Numbered.SENDER:  # the log seals what it numbers
        raise MalformedError("the log made its payload, and that is gone")
    if row.blobs or row.uid_key is not None:
        raise MalformedError("the payload is opaque, and has an id or blobs")
    return Content.NEVER_GIVEN if row.record is None else Content.OPAQUE


def _open_payload(entry: EventEntry, record: bytes, *, origin: str, vault: Vault) -> Payload:
    _require_own_key(record, entry)
    plain = open_record(record, find_key=vault.find, origin=origin, root=entry.root, plain_bytes_max=PLAIN_BYTES_MAX)
    payload = decode_plain(plain)
    if payload.root() != entry.root:
        raise VerificationError("it hashes to another event root")
    header = payload.header()
    if (header.origin, header.member, header.stream) != (origin, entry.member, entry.stream):
        raise VerificationError("it was sealed for another log, member or stream")
    return payload


def _open_blobs(
    event: Mapping[str, Any], entry: EventEntry, row: PayloadRow, records: Sequence[bytes], *, origin: str, vault: Vault
) -> Mapping[str, Any]:
    references = find_blobs(event)
    if not len(records) == len(references) == row.blobs:
        raise MalformedError(f"it refers to {len(references)} blobs, its row to {row.blobs}, and {len(records)} are there")
    for record in records:
        _require_own_key(record, entry)
    blobs = [
        open_record(
            record,
            find_key=vault.find,
            origin=origin,
            root=entry.root,
            plain_bytes_max=reference.size,
            label=BLOB,
            blob_salt=reference.salt,
        )
        for record, reference in zip(records, references, strict=True)
    ]
    return put_back_blobs(event, blobs)


def _require_own_key(record: bytes, entry: EventEntry) -> None:
    key_id = record_key_id(record)
    if key_id is None or key_id.rpartition(b"/")[0] != entry.member.encode():
        raise MalformedError("its record names no key of its member")
