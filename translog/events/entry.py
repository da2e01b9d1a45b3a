"""The public entries of an events log: what stands for an event in the tree, and for a stream's signed checkpoint.

    {"translog":"event/1","member":"acme","stream":"k8s-prod","seq":17,"numbered":"log","received_at":1763750000123,
     "root":"<base64, 32 bytes>"}
    {"translog":"stream/1","member":"acme","stream":"k8s-prod","checkpoint":"<note>"}

Rules: compact JSON with exactly these keys in this order (the line above is broken for reading only); what was parsed formats
back to the same bytes; an entry of any other kind is opaque. specs/formats.md, "Sealed event".
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from translog.core.checkpoint import parse_checkpoint
from translog.core.note import parse_note
from translog.core.tile import ENTRY_BYTES_MAX
from translog.core.wire import HASH_BYTES, decode_base64, encode_base64, parse_decimal
from translog.errors import MalformedError
from translog.events.jsontext import INTEGER_MAX, compact

EVENT = "event/1"
STREAM = "stream/1"
_NAME = r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?"
_KIND = re.compile(rb'\{"translog":"([!#-\[\]-~]{1,64})"')
_EVENT = re.compile(
    rf'\{{"translog":"event/1","member":"({_NAME})","stream":"({_NAME})","seq":([0-9]{{1,16}}),"numbered":"(sender|log)",'
    r'"received_at":([0-9]{1,16}),"root":"([A-Za-z0-9+/=]{44})"\}'.encode(),
)


class Numbered(StrEnum):
    """Who numbered an event in its stream. Only a sender's numbers show what never arrived."""

    SENDER = "sender"
    LOG = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventEntry:
    """What is public of a sealed event. `received_at_ms` is the log's clock, `root` the 32-byte event root."""

    member: str
    stream: str
    seq: int
    numbered: Numbered
    received_at_ms: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCheckpoint:
    """A sender's signed checkpoint over its own stream. `note` is its bytes; nothing of it is verified."""

    member: str
    stream: str
    note: bytes


def stream_origin(origin: str, *, member: str, stream: str) -> str:
    """The origin of the checkpoints of a stream in the log `origin`."""
    return f"{origin}{_origin_suffix(member, stream)}"


def _origin_suffix(member: str, stream: str) -> str:
    return f"/members/{member}/{stream}"


def format_entry(entry: EventEntry) -> bytes:
    """The bytes that are logged, at most 320. Names are the caller's business: no other ones parse."""
    numbered = "sender" if entry.numbered is Numbered.SENDER else "log"
    return (
        f'{{"translog":"event/1","member":"{entry.member}","stream":"{entry.stream}","seq":{entry.seq},"numbered":"{numbered}",'
        f'"received_at":{entry.received_at_ms},"root":"{encode_base64(entry.root)}"}}'
    ).encode()


def parse_entry(data: bytes) -> EventEntry:
    """The event an entry stands for. Raises MalformedError for any other entry."""
    match = _EVENT.fullmatch(data)
    if match is None:
        raise MalformedError("the entry is not that of a sealed event (event/1)")
    member, stream, seq, numbered, received_at, root = (group.decode("ascii") for group in match.groups())
    entry = EventEntry(
        member=member,
        stream=stream,
        seq=parse_decimal(seq, maximum=INTEGER_MAX),
        numbered=Numbered(numbered),
        received_at_ms=parse_decimal(received_at, maximum=INTEGER_MAX),
        root=decode_base64(root, size=HASH_BYTES),
    )
    if format_entry(entry) != data:
        raise MalformedError("the entry is not in its one spelling")
    return entry


def format_stream_checkpoint(checkpoint: StreamCheckpoint) -> bytes:
    """The bytes that are logged."""
    return compact(
        {
            "translog": STREAM,
            "member": checkpoint.member,
            "stream": checkpoint.stream,
            "checkpoint": checkpoint.note.decode("utf-8"),
        }
    ).encode()


def parse_stream_checkpoint(data: bytes) -> StreamCheckpoint:
    """The checkpoint in an entry: a well-formed note of that stream, unverified. Raises MalformedError for any other entry."""
    if len(data) > ENTRY_BYTES_MAX or entry_kind(data) != STREAM:
        raise MalformedError("the entry is not a stream's checkpoint (stream/1)")
    try:
        document = json.loads(data.decode("utf-8"))
        checkpoint = StreamCheckpoint(
            member=document["member"], stream=document["stream"], note=document["checkpoint"].encode("utf-8")
        )
        spelled = format_stream_checkpoint(checkpoint)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise MalformedError("the entry is not a stream's checkpoint (stream/1)") from None
    if spelled != data or not all(
        isinstance(name, str) and re.fullmatch(_NAME, name) for name in (checkpoint.member, checkpoint.stream)
    ):
        raise MalformedError("the stream's checkpoint is not in its one spelling")
    origin = parse_checkpoint(parse_note(checkpoint.note).text).origin
    if not origin.endswith(_origin_suffix(checkpoint.member, checkpoint.stream)):
        raise MalformedError("the checkpoint's origin is not that of the stream")
    return checkpoint


def entry_kind(data: bytes) -> str | None:
    """What an entry says it is ("event/1", "stream/1", or a kind not known here), None for what is none of ours. Costs a look
    at its first bytes; only parsing tells whether it is."""
    match = _KIND.match(data)
    return None if match is None else match[1].decode("ascii")
