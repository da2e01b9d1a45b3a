"""Every parser of audit events, and every source with what becomes of its records, with good values to start from.

A target is as in targets.py. What has no one spelling (JSON that somebody else wrote, the body of a source, a mapping's file)
formats back to itself where all that follows from it holds: a record is a slice of its body and parses anew to the same; its
event can be sealed; the texts are the same whether or not each value was looked at, and strict readers read them back.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from fuzz.source_bodies import BODIES, CUSTOM_FILE, PAYROLL, SHORT, Headers, body_of
from fuzz.targets import Parser
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.note import sign_note
from translog.core.proof import Receipt, format_receipt
from translog.core.wire import encode_base64
from translog.errors import MalformedError, SettingsError, TooLargeError
from translog.events.disclosure import LinkedCheckpoint, format_evidence, make_evidence, parse_evidence
from translog.events.entry import (
    EventEntry,
    Numbered,
    StreamCheckpoint,
    format_entry,
    format_stream_checkpoint,
    parse_entry,
    parse_stream_checkpoint,
)
from translog.events.jsontext import Slice, compact, parse_record, split_lines, split_list, split_nested, split_stream
from translog.events.mapping import Source
from translog.events.normalize import normalize, raw_record
from translog.events.remap import remap
from translog.events.seal import (
    Field,
    Payload,
    decode_plain,
    encode_plain,
    find_blobs,
    put_back_blobs,
    seal,
    seal_texts,
    seal_with_blobs,
)
from translog.events.sources.custom import load_custom
from translog.events.texts import format_header, make_json, make_texts, parse_header, parse_json, parse_text
from translog.log import vault

RECORDS_MAX = 20
SEALED_FOR = {"origin": "log.example/x", "member": "acme", "stream": "web"}
_REFUSES = (MalformedError, TooLargeError)

# --- parsers of one value -------------------------------------------------------------------------------------------------

_EVENT = {"metadata": {"uid": "1"}, "time": 1_700_000_000_000, "message": "größe \U0001f332", "unmapped": {"a": [1.5, None]}}
_SEALED = seal(_EVENT, **SEALED_FOR, seed=bytes(range(32)))
_ENTRIES = [
    EventEntry(member="acme", stream="web", seq=seq, numbered=numbered, received_at_ms=seq, root=_SEALED.root)
    for seq, numbered in ((0, Numbered.LOG), (2**53 - 1, Numbered.SENDER))
]
_SIGNER = KeySigner(SKey(name="log.example/x", type=KeyType.ED25519, seed=bytes(32)))


def _note(origin: str) -> bytes:
    return sign_note(format_checkpoint(Checkpoint(origin=origin, size=1, root=bytes(32))), [_SIGNER], time_s=1)


def _evidence(names: list[str] | None, linked: LinkedCheckpoint | None) -> bytes:
    receipt = format_receipt(Receipt(index=0, proof=(), checkpoint=_note("log.example/x")))
    payload = decode_plain(encode_plain(_SEALED))
    evidence = make_evidence(
        payload=payload, names=names, entry=format_entry(_ENTRIES[0]), receipt=receipt, not_before=linked, stream=linked
    )
    return format_evidence(evidence)


def _plain(data: bytes) -> bytes:
    """Whatever the texts are: leaves, root and erasing never fail; what they say is an event, or malformed."""
    payload = decode_plain(data)
    assert len(payload.root()) == 32
    if len(payload.fields) > 1:
        erased = payload.erase(len(payload.fields) - 1)
        assert erased.root() == payload.root()
        assert decode_plain(encode_plain(erased)) == erased
    try:
        event = payload.event()
        find_blobs(event)
    except MalformedError:
        pass
    else:
        _require_resealed(payload, event)
    return encode_plain(payload)


def _require_resealed(payload: Payload, event: Mapping[str, Any]) -> None:
    if payload.seed is not None:
        texts = [item.text for item in payload.fields if isinstance(item, Field)]
        try:
            assert seal_texts(texts, seed=payload.seed).root == payload.root()
        except MalformedError as error:
            assert "claims to be a blob" in error.detail  # noqa: PT017  the one reason left
        header = payload.header()
        made = make_texts(event, origin=header.origin, member=header.member, stream=header.stream)
        assert [parse_text(text) for text in made[1:]] == list(event.items())


def _text(data: bytes) -> bytes:
    """A text from elsewhere has its own spelling; what it says must survive ours."""
    name, value = parse_text(data)
    assert parse_json(make_json([name, value])) == [name, value]
    return data


def _json(data: bytes) -> bytes:
    value = parse_json(data)
    assert parse_json(make_json(value)) == value
    return data


_ROWS = [
    {"id": f"{member}/1", "member": member, "created_at": at, "wrapped": encode_base64(bytes(40))}
    for member, at in (("acme", 1), ("größe", 2**60))
]
_VAULTS = tuple(vault._format(vault._parse(_file)) for _file in [
    b'{"translog":"vault/1","keys":[\n' + b",\n".join(compact(row).encode() for row in rows) + b"\n" * bool(rows) + b"]}\n"
    for rows in ([], _ROWS[:1], _ROWS)
])  # fmt: skip

# --- bodies that are cut into records -------------------------------------------------------------------------------------


_BETWEEN = b" \t\r\n,[]\xef\xbb\xbf"
"""What may be between records; a byte order mark is before the first only, which is not looked at."""


def require_slices(body: bytes, slices: list[Slice], *, around: bool = False) -> None:
    """They are parts of the body, in order and apart, and each parses anew to the same. Nothing else is in the body, unless
    there may be something `around` them."""
    at = 0
    for record in slices:
        begin = body.index(record.raw, at)
        assert around or not body[at:begin].strip(_BETWEEN)
        at = begin + len(record.raw)
        assert parse_record(record.raw)[1:3] == record[1:3]
        assert (record.value is None) or not record.error
    assert around or not body[at:].strip(_BETWEEN)


def _cut(split: Callable[..., list[Slice]], data: bytes, *, around: bool = False) -> bytes:
    require_slices(data, split(data, records_max=RECORDS_MAX), around=around)
    return data


def _cut_nested(data: bytes) -> bytes:
    found = split_nested(data, ("a", "b"), records_max=RECORDS_MAX)
    require_slices(data, [record for record, _ in found], around=True)
    assert all(raw in data for _, around in found for members in around for raw in members.values())
    return data


_BODIES = (
    b'{"a":1}{"b":[1.5e3,"\\u00e9\\ud83d\\ude00",null]} [true,"x"]\n{"c":{"d":{}}}',
    b"\xef\xbb\xbf [1, 2 ,3]",
    b'{"a":"\xff"}\n{"a":1e400,"b":90071992547409931}\r\n{"a":1,"a":2}\n\n{"a":"\\ud800"}\n{"a":NaN}',
    b"[" * 101 + b"]" * 101,
)
_LISTS = (b'{"Records":[{"a":1},{"a":2}],"more":{}}', b'[{"a":1}]', b'{"records":1}', b'{"Records":null}', *_BODIES)
_NESTED = (b'{"a":[{"b":[{"x":1},{"x":2}],"y":1},{"b":null}],"z":[]}', b'{"a":null}', b"{}", b'{"a":[{"b":[1]},{}]}')

# --- sources --------------------------------------------------------------------------------------------------------------


def require_sealable(source: Source, record: Slice) -> None:
    """Whatever the record is, its event is sealed, and read back as it is; and it follows from its original."""
    try:
        _require_sealable(source, record)
    except (MalformedError, TooLargeError) as error:  # which a body may be refused with, but no record
        raise AssertionError(f"{source.name} makes of {record} what cannot be sealed: {error}") from error


def _require_sealable(source: Source, record: Slice) -> None:
    event, uid = normalize(source, record)
    assert uid is None or type(uid) is str
    assert raw_record(event) == (record.raw, record.context)
    texts = make_texts(event, **SEALED_FOR, is_plain=False)
    assert texts == make_texts(event, **SEALED_FOR, is_plain=True)
    assert parse_header(texts[0]).names == tuple(event)
    assert [parse_text(text) for text in texts[1:]] == list(event.items())
    sealed, blobs = seal_with_blobs(event, **SEALED_FOR, seed=bytes(32), blob_bytes_min=100)
    found = decode_plain(encode_plain(sealed)).event()
    assert put_back_blobs(found, [blob.data for blob in blobs]) == event
    again = remap(event, {source.name: source})
    assert (again.differing, again.skipped) == ((), "")


def take(source: Source, headers: Headers, body: bytes) -> list[Slice]:
    """The records of a body, every one of them sealed and read back. Raises MalformedError, TooLargeError."""
    slices = source.split(body, headers, RECORDS_MAX)
    for record in slices:
        assert record == source.parse(record.raw, record.context)
        require_sealable(source, record)
    return slices


def _take(source: Source, headers: Headers, body: bytes) -> bytes:
    take(source, headers, body)
    return body


def _custom(data: bytes) -> bytes:
    """A file that is taken makes a source that takes anything."""
    try:
        source = load_custom(data)
    except SettingsError as error:
        raise MalformedError(error.detail) from None
    for record in (PAYROLL, {}, SHORT, {"records": [PAYROLL]}):
        require_sealable(source, parse_record(body_of(record)))
    return data


def sources() -> Iterator[tuple[str, Parser]]:
    """A parser for each of BODIES."""
    for name, (source, headers, bodies) in BODIES.items():
        yield f"source {name}", Parser(partial(_take, source, headers), bodies, _REFUSES)


EVENT_PARSERS: dict[str, Parser] = {
    "parse_entry": Parser(lambda data: format_entry(parse_entry(data)), tuple(map(format_entry, _ENTRIES))),
    "parse_stream_checkpoint": Parser(
        lambda data: format_stream_checkpoint(parse_stream_checkpoint(data)),
        (
            format_stream_checkpoint(
                StreamCheckpoint(member="acme", stream="web", note=_note("log.example/x/members/acme/web"))
            ),
        ),
    ),
    "parse_header": Parser(lambda data: format_header(parse_header(data)), (_SEALED.texts[0],)),
    "parse_text": Parser(_text, (*_SEALED.texts[1:], b'["a",1.50E+2]', b'["b", "\\u00e4\\/\\ud83d\\ude00"]')),
    "parse_json": Parser(_json, (*_SEALED.texts, b"-0.0", b"9007199254740991", b'"\\ud83d\\ude00"', b'{"a":[{"b":null}]}')),
    "decode_plain": Parser(
        _plain,
        (
            encode_plain(_SEALED),
            encode_plain(decode_plain(encode_plain(_SEALED)).erase(2)),
            encode_plain(seal({"a": 1}, **SEALED_FOR, seed=bytes(32))),
        ),
    ),
    "parse_evidence": Parser(
        lambda data: format_evidence(parse_evidence(data)),
        (
            _evidence(None, None),
            _evidence(["time"], LinkedCheckpoint(checkpoint=_note("log.example/x"), proof=(bytes(32),))),
        ),
    ),
    "vault file": Parser(lambda data: vault._format(vault._parse(data)), _VAULTS),
    "split_lines": Parser(partial(_cut, split_lines), _BODIES, _REFUSES),
    "split_stream": Parser(partial(_cut, split_stream), _BODIES[:2], _REFUSES),
    "split_list": Parser(
        partial(_cut, lambda body, **more: split_list(body, "Records", **more), around=True), _LISTS[:4], _REFUSES
    ),
    "split_nested": Parser(_cut_nested, _NESTED, _REFUSES),
    "load_custom": Parser(_custom, (CUSTOM_FILE,)),
    **dict(sources()),
}
