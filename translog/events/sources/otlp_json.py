"""Log records of an OTLP request in JSON, cut out byte for byte, and the normal form of records in either encoding.

    {"timeUnixNano":"1544712660300000000","severityNumber":10,"body":{"stringValue":"…"},"attributes":[{"key":"…","value":{…}}],
     "traceId":"5b8efff798038103d269b633813fc60c",…}

Rules: the normal form is OTLP's JSON with what encoders may choose fixed: 64-bit integers as strings, ids as lower-case hex,
bytes as standard base64, nothing that has its default value, no unknown fields. A record that does not decode is an error of
that record alone. Its context is the normal form of what it shares with others: {"resource","scope","schemaUrl"}. Enumerations
are integers and names in camel case, which OTLP asks for. https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

import math
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from typing import Any

from translog.events.jsontext import JSONObject, RecordError, Slice, parse_record, split_nested

VALUE_DEPTH_MAX = 24
"""Values within each other in one attribute: as many as JSON's DEPTH_MAX leaves room for, in both encodings."""
TOO_DEEP = f"values nested deeper than {VALUE_DEPTH_MAX}"
_NAMES = ("resourceLogs", "scopeLogs", "logRecords")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_DIGITS = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def split_json(body: bytes, records_max: int) -> list[Slice]:
    """The records of a request in JSON. Raises MalformedError, TooLargeError."""
    slices = []
    contexts: dict[int, JSONObject] = {}
    decoded: dict[int, JSONObject] = {}
    for record, around in split_nested(body, _NAMES, records_max=records_max):
        context = contexts.get(id(around))
        if context is None:
            context = contexts[id(around)] = _json_context(around, decoded)
        slices.append(_decoded(record, context))
    return slices


def _json_context(around: list[JSONObject], decoded: dict[int, JSONObject]) -> JSONObject:
    """What a scope's records share. `decoded` keeps what is done: one resource may have many scopes, and be large."""
    _, resource_logs, scope_logs = around
    context: JSONObject = {}
    for name, members, fields in (("resource", resource_logs, _RESOURCE), ("scope", scope_logs, _SCOPE)):
        if name in members:
            value = decoded.get(id(members))
            if value is None:
                value = decoded[id(members)] = _decode_shared(members[name], fields)
            if value:
                context[name] = value
    for members in (scope_logs, resource_logs):
        url = parse_record(members.get("schemaUrl", b'""')).value
        if type(url) is str and url:
            context.setdefault("schemaUrl", url)
    return context


def _decode_shared(raw: bytes, fields: "Mapping[str, _Decode]") -> JSONObject:
    found = parse_record(raw)
    if found.error:
        return undecoded(raw, found.error)
    try:
        return {} if found.value is None else _message(found.value, fields, 0)
    except RecordError as error:
        return undecoded(raw, str(error))


def undecoded(raw: bytes, error: str) -> JSONObject:
    """What takes the place of a resource or scope that does not decode."""
    return {"error": error, "bytes": b64encode(raw).decode("ascii")}


def parse_json(raw: bytes, context: JSONObject) -> Slice:
    """The slice of one record in JSON."""
    return _decoded(parse_record(raw), context)


def _decoded(record: Slice, context: JSONObject) -> Slice:
    if record.error:
        return record._replace(context=context)
    try:
        return Slice(record.raw, _message(record.value, _LOG_RECORD, 0), "", context)
    except RecordError as error:
        return Slice(record.raw, None, str(error), context)


_Decode = Callable[[Any, int], Any]


def _message(value: Any, fields: Mapping[str, _Decode], depth: int) -> JSONObject:
    """An object's known fields that are not null and not of their default value."""
    if type(value) is not dict:
        raise RecordError("an object of OTLP is of another type")
    found = {}
    for name, decode in fields.items():
        given = value.get(name)
        if given is None:
            continue
        try:
            decoded = decode(given, depth)
        except ValueError:
            raise RecordError(f"{name} is not of its type in OTLP") from None
        if decoded not in _DEFAULTS:
            found[name] = decoded
    return found


_DEFAULTS: tuple[Any, ...] = ("", "0", 0, [], {})


def _string(value: Any, depth: int) -> str:
    if type(value) is not str:
        raise ValueError
    return value


def _within(lowest: int, highest: int) -> Callable[[Any], int]:
    def decode(value: Any) -> int:
        if (type(value) is str and _DIGITS.fullmatch(value)) or (type(value) is float and value.is_integer()):
            value = int(value)
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError
        return value

    return decode


_int32, _uint32 = _within(-(2**31), 2**31 - 1), _within(0, 2**32 - 1)
_int64, _uint64 = _within(-(2**63), 2**63 - 1), _within(0, 2**64 - 1)


def _enumerator(value: Any, depth: int) -> int:
    if type(value) is not int:
        raise ValueError
    return _int32(value)


def _hex(value: Any, depth: int) -> str:
    if type(value) is not str or not _HEX.fullmatch(value):
        raise ValueError
    return value.lower()


def _base64(value: Any) -> str:
    """The standard spelling of any that JSON's mapping allows: also with the alphabet for URLs, also without padding."""
    if type(value) is not str:
        raise ValueError
    text = value.replace("-", "+").replace("_", "/")
    if not _BASE64.fullmatch(text):
        raise ValueError
    try:
        data = b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except Base64Error:
        raise ValueError from None
    return b64encode(data).decode("ascii")


def _double(value: Any) -> float | str:
    if type(value) is str:
        if value in ("NaN", "Infinity", "-Infinity"):
            return value
        value = float(value) if re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", value, re.ASCII) else None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _any_value(value: Any, depth: int) -> JSONObject:
    if type(value) is not dict:
        raise ValueError
    given = [name for name in _VALUES if value.get(name) is not None]
    if not given:
        return {}
    if len(given) > 1:
        raise RecordError("a value of OTLP is of two types at once")
    if depth >= VALUE_DEPTH_MAX:
        raise RecordError(TOO_DEEP)
    return {given[0]: _VALUES[given[0]](value[given[0]], depth + 1)}


def _values(value: Any, depth: int) -> JSONObject:
    return {"values": [_any_value(item, depth) for item in _list(value)]}


def _pairs(value: Any, depth: int) -> JSONObject:
    return {"values": [_key_value(item, depth) for item in _list(value)]}


def _list(value: Any) -> list[Any]:
    items = value.get("values") if type(value) is dict else value
    if items is None:
        return []
    if type(items) is not list or type(value) is not dict:
        raise ValueError
    return items


def _key_value(value: Any, depth: int) -> JSONObject:
    if type(value) is not dict:
        raise ValueError
    key, item = value.get("key"), value.get("value")
    return {"key": _string("" if key is None else key, depth), "value": {} if item is None else _any_value(item, depth)}


def _attributes(value: Any, depth: int) -> list[JSONObject]:
    if type(value) is not list:
        raise ValueError
    return [_key_value(item, depth) for item in value]


_VALUES: Mapping[str, Callable[[Any, int], Any]] = {
    "stringValue": _string,
    "boolValue": lambda value, depth: _boolean(value),
    "intValue": lambda value, depth: str(_int64(value)),
    "doubleValue": lambda value, depth: _double(value),
    "arrayValue": _values,
    "kvlistValue": _pairs,
    "bytesValue": lambda value, depth: _base64(value),
}
_COUNT: Mapping[str, _Decode] = {"droppedAttributesCount": lambda value, depth: _uint32(value)}
_RESOURCE: Mapping[str, _Decode] = {"attributes": _attributes, **_COUNT}
_SCOPE: Mapping[str, _Decode] = {"name": _string, "version": _string, "attributes": _attributes, **_COUNT}
_LOG_RECORD: Mapping[str, _Decode] = {
    "timeUnixNano": lambda value, depth: str(_uint64(value)),
    "observedTimeUnixNano": lambda value, depth: str(_uint64(value)),
    "severityNumber": _enumerator,
    "severityText": _string,
    "body": _any_value,
    "attributes": _attributes,
    **_COUNT,
    "flags": lambda value, depth: _uint32(value),
    "traceId": _hex,
    "spanId": _hex,
    "eventName": _string,
}
