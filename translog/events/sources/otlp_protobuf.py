"""Log records of an OTLP request in protobuf, cut out byte for byte: a walk over the wire format.

    tag varint (number << 3 | type), then by type: 0 varint, 1 eight bytes, 2 length varint and bytes, 3 … 4 group, 5 four bytes

Rules: the walk goes only as deep as the records, and protobuf's own library decodes what is within; a record that it refuses is
an error of that record alone. Two resources in one message are one, merged, which is what their bytes one behind the other
mean. Unknown fields are passed over. https://protobuf.dev/programming-guides/encoding/
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from translog.errors import MalformedError, TooLargeError
from translog.events.jsontext import ITEMS_MAX, JSONObject, RecordError, Slice, require_few_around
from translog.events.sources.otlp_json import TOO_DEEP, VALUE_DEPTH_MAX, undecoded

ENCODING = "protobuf"
_GROUPS_MAX = 100
_VARINT, _I64, _LEN, _GROUP, _END, _I32 = range(6)
_NUMBER_MAX = 2**29 - 1


def split_protobuf(body: bytes, records_max: int) -> list[Slice]:
    """The records of a request in protobuf. Raises MalformedError, TooLargeError."""
    slices: list[Slice] = []
    passed = count(1)
    for number, begin, end in _fields(body, 0, len(body), passed, records_max):
        if number == 1:
            _split_resource_logs(body, begin, end, slices, records_max, passed)
    return slices


def _split_resource_logs(
    body: bytes, begin: int, end: int, slices: list[Slice], records_max: int, passed: Iterator[int]
) -> None:
    resource, scopes, url = _parts(_fields(body, begin, end, passed, records_max), body)
    shared = _decode_shared(resource, _normal_resource)
    for scope_begin, scope_end in scopes:
        scope, records, scope_url = _parts(_fields(body, scope_begin, scope_end, passed, records_max), body)
        if len(slices) + len(records) > records_max:
            raise TooLargeError(
                f"more than {records_max} records in one request", hint="send smaller batches", code="too-many-entries"
            )
        if records:
            context = _context(shared, _decode_shared(scope, _normal_scope), scope_url or url)
            slices += [parse_protobuf(body[at:until], context) for at, until in records]


def _parts(fields: Iterator[tuple[int, int, int]], body: bytes) -> tuple[bytes, list[tuple[int, int]], bytes]:
    """Of the fields of a ResourceLogs or ScopeLogs: the resource or scope, where its ScopeLogs or LogRecords are, its
    schema URL."""
    shared = []
    url = b""
    places = []
    for number, at, until in fields:
        if number == 1:
            shared.append(body[at:until])
        elif number == 2:
            places.append((at, until))
        elif number == 3:
            url = body[at:until]
    return b"".join(shared), places, url


def _fields(body: bytes, at: int, end: int, passed: Iterator[int], records_max: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message that have a length: number, where their bytes begin, where they end. `passed` counts those of all
    messages, of any type. Raises MalformedError, TooLargeError for more than belong to so many records."""
    groups: list[int] = []
    while at < end:
        require_few_around(next(passed), records_max)
        tag, at = _varint(body, at, end, bytes_max=5)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number <= _NUMBER_MAX:
            raise _malformed(at)
        if kind == _VARINT:
            _, at = _varint(body, at, end, bytes_max=10)
        elif kind == _I64:
            at += 8
        elif kind == _I32:
            at += 4
        elif kind == _LEN:
            length, begin = _varint(body, at, end, bytes_max=5)
            at = begin + length
            if at <= end and not groups:
                yield number, begin, at
        elif kind == _GROUP and len(groups) < _GROUPS_MAX:
            groups.append(number)
        elif kind != _END or not groups or groups.pop() != number:
            raise _malformed(at)
        if at > end:
            raise _malformed(at)
    if groups:
        raise _malformed(at)


def _varint(body: bytes, at: int, end: int, *, bytes_max: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * bytes_max, 7):
        if at >= end:
            break
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _malformed(at)


def _malformed(at: int) -> MalformedError:
    return MalformedError(f"the body is not an OTLP request in protobuf: no field at byte {at}")


def _require_few_items(raw: bytes, kind: str) -> None:
    """Raises RecordError for a message with more fields, at any depth, than a record may have items: the library would make an
    object of each, and two bytes can be one."""
    if len(raw) <= 2 * ITEMS_MAX:
        return
    passed = count(1)
    waiting = [(kind, 0, len(raw))]
    try:
        while waiting:
            kind, begin, end = waiting.pop()
            for number, at, until in _fields(raw, begin, end, passed, 0):
                if (kind, number) in _WITHIN:
                    waiting.append((_WITHIN[kind, number], at, until))
    except TooLargeError:
        raise RecordError(f"more than {ITEMS_MAX} items") from None
    except MalformedError:
        return  # the library says so


_WITHIN = {
    ("record", 5): "value",
    ("record", 6): "pair",
    ("resource", 1): "pair",
    ("scope", 3): "pair",
    ("pair", 2): "value",
    ("value", 5): "array",
    ("value", 6): "list",
    ("array", 1): "value",
    ("list", 1): "pair",
}
"""The messages within messages that repeat, by kind and number of field."""


def parse_protobuf(raw: bytes, context: JSONObject) -> Slice:
    """The slice of one LogRecord, its value in normal form."""
    try:
        _require_few_items(raw, "record")
        return Slice(raw, _normal_record(LogRecord.FromString(raw)), "", context)
    except DecodeError:
        return Slice(raw, None, "not a LogRecord of OTLP in protobuf", context)
    except RecordError as error:
        return Slice(raw, None, str(error), context)


def _decode_shared(raw: bytes, normal: Callable[[bytes], JSONObject]) -> JSONObject:
    """A resource, once for all of its scopes, or a scope."""
    try:
        return normal(raw)
    except (DecodeError, RecordError) as error:
        return undecoded(raw, str(error) if isinstance(error, RecordError) else "not protobuf")


def _context(resource: JSONObject, scope: JSONObject, url: bytes) -> JSONObject:
    context: JSONObject = {"encoding": ENCODING}
    for name, value in (("resource", resource), ("scope", scope)):
        if value:
            context[name] = value
    if url:
        context["schemaUrl"] = url.decode("utf-8", "backslashreplace")
    return context


def _normal_record(record: LogRecord) -> JSONObject:
    return _without_defaults(
        timeUnixNano=str(record.time_unix_nano),
        observedTimeUnixNano=str(record.observed_time_unix_nano),
        severityNumber=int(record.severity_number),
        severityText=record.severity_text,
        body=_normal_value(record.body, 0),
        attributes=_normal_pairs(record.attributes, 0),
        droppedAttributesCount=record.dropped_attributes_count,
        flags=record.flags,
        traceId=record.trace_id.hex(),
        spanId=record.span_id.hex(),
        eventName=record.event_name,
    )


def _normal_resource(raw: bytes) -> JSONObject:
    _require_few_items(raw, "resource")
    resource = Resource.FromString(raw)
    return _without_defaults(
        attributes=_normal_pairs(resource.attributes, 0), droppedAttributesCount=resource.dropped_attributes_count
    )


def _normal_scope(raw: bytes) -> JSONObject:
    _require_few_items(raw, "scope")
    scope = InstrumentationScope.FromString(raw)
    return _without_defaults(
        name=scope.name,
        version=scope.version,
        attributes=_normal_pairs(scope.attributes, 0),
        droppedAttributesCount=scope.dropped_attributes_count,
    )


def _without_defaults(**fields: Any) -> JSONObject:
    return {name: value for name, value in fields.items() if value not in ("", "0", 0, [], {})}


def _normal_pairs(pairs: Iterable[KeyValue], depth: int) -> list[JSONObject]:
    return [{"key": pair.key, "value": _normal_value(pair.value, depth)} for pair in pairs]


def _normal_value(value: AnyValue, depth: int) -> JSONObject:
    kind = value.WhichOneof("value")
    if kind is None or kind == "string_value_strindex":
        return {}
    if depth >= VALUE_DEPTH_MAX:
        raise RecordError(TOO_DEEP)
    if kind == "string_value":
        return {"stringValue": value.string_value}
    if kind == "bool_value":
        return {"boolValue": value.bool_value}
    if kind == "int_value":
        return {"intValue": str(value.int_value)}
    if kind == "double_value":
        return {"doubleValue": _normal_double(value.double_value)}
    if kind == "bytes_value":
        return {"bytesValue": b64encode(value.bytes_value).decode("ascii")}
    if kind == "array_value":
        return {"arrayValue": {"values": [_normal_value(item, depth + 1) for item in value.array_value.values]}}
    return {"kvlistValue": {"values": _normal_pairs(value.kvlist_value.values, depth + 1)}}


def _normal_double(value: float) -> float | str:
    if value != value:  # NaN alone is not itself
        return "NaN"
    return {float("inf"): "Infinity", float("-inf"): "-Infinity"}.get(value, value)
