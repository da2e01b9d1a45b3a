"""The texts of an event: its header and a name with a value for each field, in JSON that every reader understands alike.

    text_0      ["translog",{"v":1,"origin":...,"member":...,"stream":...,"names":[the n names in order]}]
    text_i      [name,value], i = 1..n

Rules: compact JSON, UTF-8, made once and then kept verbatim; what a strict reader would refuse is not made. The header formats
back to the same bytes; other texts may come from other programs, whose numbers are spelled otherwise. specs/formats.md,
"Sealed event"; https://www.rfc-editor.org/rfc/rfc7493 (I-JSON), but noncharacters may occur.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import starmap
from typing import Any

from translog.core.wire import clip
from translog.errors import MalformedError
from translog.events.jsontext import INTEGER_MAX, JSONObject, compact

LEAVES_MAX = 65_535
"""Most texts of an event, the header included: their number is a u16."""
TEXT_BYTES_MAX = 16 * 1024 * 1024
"""Largest text: larger values are blobs."""
TEXT_DEPTH_MAX = 120
"""Objects and arrays within each other in a text: those of a record (jsontext.DEPTH_MAX), and what mappings put around them."""

_VERSION = 1
_encode: Callable[[Any, int], Sequence[str]] = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
    None, None, json.encoder.encode_basestring, None, ":", ",", False, False, False
)
"""What jsontext.compact is made of: made anew for every text it would take twice the time."""
_quote = json.encoder.encode_basestring
_HEADERS_MAX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What text_0 binds an event to, and the names of its fields, in order."""

    origin: str
    member: str
    stream: str
    names: tuple[str, ...]


def format_header(header: Header) -> bytes:
    """text_0."""
    return _header(header.origin, header.member, header.stream, header.names).encode("utf-8")


def parse_header(text: bytes) -> Header:
    """What text_0 says. Raises MalformedError for another version, names that are not unique, another spelling."""
    name, value = parse_text(text)
    if name != "translog" or not isinstance(value, dict):
        raise MalformedError("text 0 is not the header of an event")
    if value.get("v") != _VERSION:
        raise MalformedError(f"the event is sealed in version {clip(str(value.get('v')))}, which is not known here")
    parts = [value.get(key) for key in ("origin", "member", "stream")]
    names = value.get("names")
    if not isinstance(names, list) or not all(isinstance(part, str) for part in (*parts, *names)):
        raise MalformedError("the event's header lacks a part")
    if len(set(names)) != len(names) or len(names) >= LEAVES_MAX:
        raise MalformedError("two fields of the event have one name, or it has too many")
    header = Header(origin=str(parts[0]), member=str(parts[1]), stream=str(parts[2]), names=tuple(names))
    if format_header(header) != text:
        raise MalformedError("the event's header is not in its one spelling")
    return header


def parse_text(text: bytes) -> tuple[str, Any]:
    """Name and value of a text. Raises MalformedError unless it is a pair in strict JSON: see `parse_json`."""
    if len(text) > TEXT_BYTES_MAX:
        raise MalformedError(f"a text of {len(text)} bytes: at most {TEXT_BYTES_MAX} are read")
    pair = parse_json(text)
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        raise MalformedError("a text of the event is not a name and a value")
    if text[:2] != b'["' or text[end_of_name(text) :][:1] != b",":
        raise MalformedError("a text of the event has space around its name")
    return pair[0], pair[1]


def end_of_name(text: bytes) -> int:
    """Where the name ends in a text that is a pair: past its closing quote."""
    at = text.index(b'"') + 1
    while text[at] != 0x22:
        at += 2 if text[at] == 0x5C else 1
    return at + 1


def parse_json(data: bytes) -> Any:
    """JSON that every reader understands alike: I-JSON (RFC 7493), but noncharacters may occur.

    Raises MalformedError for duplicate names at any depth, integers beyond 2^53-1, numbers beyond a double's range, NaN and its
    like, lone surrogates, what is not UTF-8, nesting below TEXT_DEPTH_MAX, and space around the value.
    """
    try:
        text = data.decode("utf-8")
        value, end = _scan(text, 0)
        if end != len(text):
            raise ValueError("something follows the value")
        if data.count(b"{") + data.count(b"[") > TEXT_DEPTH_MAX:
            _require_plain(value, TEXT_DEPTH_MAX)
        if b"\\u" in data:
            compact(value).encode("utf-8")
    except UnicodeError:
        raise MalformedError("not UTF-8, or half of a surrogate pair") from None
    except (ValueError, StopIteration) as error:
        raise MalformedError(f"not strict JSON: {clip(str(error))}") from None
    except RecursionError:
        raise MalformedError("nested too deep") from None
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> JSONObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return value


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) <= 17 else INTEGER_MAX + 1
    if abs(value) > INTEGER_MAX:
        raise ValueError("an integer beyond 2^53-1")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError("a number beyond the range of a double")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(  # type: ignore[attr-defined]
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant
).scan_once


def make_texts(event: Mapping[str, Any], *, origin: str, member: str, stream: str, is_plain: bool = False) -> tuple[bytes, ...]:
    """The texts of an event, its fields in the order given. Raises MalformedError for what `parse_text` would refuse.

    `is_plain` saves a look at every value, a third of the time: its caller says that they are what jsontext.py parsed or a
    mapping made of that, so strings, finite numbers within 2^53-1, and names that are strings, not nested too deep.
    """
    try:
        if is_plain:
            header = _known_header(origin, member, stream, tuple(event))
        else:
            _require_plain(event if type(event) is dict else dict(event), TEXT_DEPTH_MAX)
            header = _header(origin, member, stream, tuple(event))
        # Encoded, a newline is no control character: so all texts take one conversion to UTF-8.
        joined = "\n".join([header, *starmap(_text, event.items())])
        texts = tuple(joined.encode("utf-8").split(b"\n"))
    except UnicodeEncodeError:
        raise MalformedError("half of a surrogate pair in the event") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {clip(str(error))}") from None
    if len(texts) > LEAVES_MAX:
        detail = f"an event of {len(texts) - 1} fields: at most {LEAVES_MAX - 1} can be sealed"
        raise MalformedError(detail, code="too-many-fields")
    if max(map(len, texts)) > TEXT_BYTES_MAX:
        raise MalformedError(f"a field of more than {TEXT_BYTES_MAX} bytes", code="field-too-large")
    return texts


def _header(origin: str, member: str, stream: str, names: tuple[str, ...]) -> str:
    content = {"v": _VERSION, "origin": origin, "member": member, "stream": stream, "names": names}
    return "".join(_encode(("translog", content), 0))


_known_header = lru_cache(_HEADERS_MAX)(_header)
"""For normalised events: the fields of a stream's events are much the same, and only those of the model."""


def _text(name: str, value: Any) -> str:
    """Most fields are strings and integers, which need not the encoder: calling it costs more than either."""
    kind = type(value)
    if kind is str:
        return f"[{_quote(name)},{_quote(value)}]"
    if kind is int:
        return f"[{_quote(name)},{value}]"
    return "".join(_encode((name, value), 0))


def make_json(value: Any) -> bytes:
    """The compact JSON of one value, such that `parse_json` takes it. Raises MalformedError."""
    try:
        _require_plain([value], TEXT_DEPTH_MAX)
        return "".join(_encode(value, 0)).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("half of a surrogate pair in the event") from None
    except ValueError as error:
        raise MalformedError(f"not JSON: {clip(str(error))}") from None


def _require_plain(value: Any, depth: int) -> None:
    """Raises ValueError for what the encoder lets pass and strict readers do not. Half of the cost of a look at each value is
    the call, hence one call for each container only."""
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                raise ValueError(f"a name that is no string: {key!r}")
        value = value.values()
    for item in value:
        kind = type(item)
        if kind is str:
            continue
        if kind is dict or kind is list:
            if depth <= 1:
                raise ValueError("nested too deep")
            _require_plain(item, depth - 1)
        elif isinstance(item, int):
            if not -INTEGER_MAX <= item <= INTEGER_MAX:
                raise ValueError("an integer beyond 2^53-1")
        elif not (item is None or isinstance(item, str | float)):
            raise ValueError(f"a value of type {kind.__name__}")
