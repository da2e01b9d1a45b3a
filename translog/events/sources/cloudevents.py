"""CloudEvents 1.0.2 over HTTP: structured, batched and binary mode, with the extensions that an audit log has a use for.

Rules: the mode follows from the content type. A binary event's record is the body, its context the `ce-*` headers and the
content type as they came. The id of an event is source and id, unique together: joined by a space, which a source, being a
URI-reference, does not have. `data` is what the event is about and in whatever form its producer chose: it stays in `unmapped`,
also where it is OCSF, because what a producer says about an event is not what it forwards in one.
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

import re
from base64 import b64encode
from collections.abc import Mapping

from translog.errors import MalformedError
from translog.events.jsontext import JSONObject, Slice, parse_record, split_stream
from translog.events.mapping import (
    OTHER,
    MappingError,
    Row,
    Source,
    Table,
    activity_of,
    enum,
    put,
    rfc3339,
    string,
)
from translog.events.sources.otlp import sequence, severity
from translog.events.sources.short import SEVERITY
from translog.events.sources.trace import complete_trace, put_traceparent

STRUCTURED = "application/cloudevents"
BATCH = "application/cloudevents-batch"
_PREFIX = "ce-"
_CONTENT_TYPE = "content-type"
_ATTRIBUTE = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_PAST = re.compile(r"[A-Za-z][a-z]+(?=ed(?![a-z]))")
_USER_TYPE = enum({"app_user": 1, "user": 1, "system": 3, "service_account": 4, "unknown": 0})

_TABLE = Table(
    (
        Row("id", "metadata.original_event_uid", string),
        Row("source", "metadata.source", string),
        Row("type", "metadata.event_code", string),
        Row("type", "api.operation", string),
        Row("time", "time", rfc3339),
        Row("time", "metadata.original_time", string),
        Row("recordedtime", "metadata.logged_time", rfc3339),
        Row("subject", "_.subject", string),
        Row("authid", "actor.user.uid", string),
        Row("authtype", "actor.user.type", string),
        Row("correlationid", "metadata.correlation_uid", string),
        Row("sequence", "metadata.sequence", sequence),
        Row("sequence", "fed.source_seq", sequence),
        Row("severitynumber", "severity_id", severity),
        Row("severitytext", "severity_id", SEVERITY),
    ),
    taken=("specversion",),
)


def _split(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
    """Raises MalformedError for an event format other than JSON, and for a body without an event that is no batch."""
    media = headers.get(_CONTENT_TYPE, "").partition(";")[0].strip().lower()
    kind, _, event_format = media.partition("+")
    if kind not in (STRUCTURED, BATCH):
        context = {name: _header_text(value) for name, value in headers.items() if name.startswith(_PREFIX)}
        if not context:
            raise MalformedError("no CloudEvent: neither its content type nor a ce- header says that it is one")
        if _CONTENT_TYPE in headers:
            context[_CONTENT_TYPE] = _header_text(headers[_CONTENT_TYPE])
        return [_parse(body, context)]
    if event_format not in ("", "json"):
        raise MalformedError(f"CloudEvents in {event_format[:60]!r} are not read", hint="send them as JSON")
    slices = split_stream(body, records_max=records_max)
    if not slices and kind == STRUCTURED:
        raise MalformedError("no CloudEvent in the body")
    return slices


def _header_text(value: str) -> str:
    """A header's value without bytes that are no text, which a server hands on as halves of surrogate pairs."""
    return value.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")


def _parse(raw: bytes, context: JSONObject) -> Slice:
    """The slice of a record; in binary mode its value is what the same event would be in structured mode."""
    if not any(name.startswith(_PREFIX) for name in context):
        return parse_record(raw, context)
    event: JSONObject = {}
    for header, value in context.items():
        name = header.removeprefix(_PREFIX)
        if header == _CONTENT_TYPE:
            event["datacontenttype"] = value
        elif name != header and _ATTRIBUTE.fullmatch(name):
            try:
                event[name] = _header_value(value)
            except UnicodeDecodeError:
                return Slice(raw, None, f"the header {header} has an escape that is not UTF-8", context)
    if raw:
        _add_data(event, raw, context.get(_CONTENT_TYPE, ""))
    return Slice(raw, event, "", context)


def _header_value(value: str) -> str:
    """An attribute's value: quoting undone, then one round of percent-decoding. Raises UnicodeDecodeError."""
    quoted = _QUOTED.fullmatch(value)
    if quoted is not None:
        value = _ESCAPED.sub(r"\1", quoted[1])
    return _PERCENT.sub(lambda match: bytes([int(match[1], 16)]), value.encode("utf-8")).decode("utf-8")


def _add_data(event: JSONObject, raw: bytes, content_type: str) -> None:
    media = content_type.partition(";")[0].strip().lower()
    if media in ("", "application/json", "text/json") or media.endswith("+json"):
        data = parse_record(raw)
        if not data.error:
            event["data"] = data.value
            return
    try:
        event["data"] = raw.decode("utf-8")
    except UnicodeDecodeError:
        event["data_base64"] = b64encode(raw).decode("ascii")


def _map(record: JSONObject, context: JSONObject) -> JSONObject:
    if record.get("specversion") != "1.0":
        raise MappingError("not a CloudEvent of specversion 1.0")
    for name in ("id", "source", "type"):
        if not string(record.get(name)):
            raise MappingError(f"a CloudEvent without {name}")
    event: JSONObject = {"class_uid": 6003, "activity_id": activity_of_type(record["type"])}
    rest = _TABLE.apply(record, event)
    if " " not in record["source"]:
        event["metadata"]["uid"] = f"{record['source']} {record['id']}"
    subject = event.pop("_", {}).get("subject")
    if subject is not None:
        event["resources"] = [{"name": subject}]
    user = event.get("actor", {}).get("user", {})
    if "type" in user:
        kind = _USER_TYPE(user["type"])
        user["type_id"] = OTHER if kind is None else kind
    if put_traceparent(event, rest.get("traceparent")):
        del rest["traceparent"]
    complete_trace(event)
    put(event, "unmapped", rest)
    return event


def activity_of_type(kind: str) -> int:
    """The activity of a type, whose verb is mostly in the past: `com.example.object.deleted.v2` is a deletion."""
    stems = " ".join(f"{stem} {stem}e" for stem in _PAST.findall(kind[:256]))
    activity = activity_of(stems)
    return activity_of(kind) if activity == OTHER else activity


CLOUDEVENTS = Source(name="cloudevents", version="1", split=_split, map=_map, parse=_parse)
