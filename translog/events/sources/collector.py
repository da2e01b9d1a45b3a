"""The HTTP event collector that Splunk-style senders speak: `/services/collector/event` and `/services/collector/raw`.

    {"time":1700000000.123,"host":"web-1","source":"app","sourcetype":"_json","index":"main","fields":{…},"event":…}

Rules: a body of `event` is such objects one behind the other, of `raw` a line of text each, with what the query and the channel
header say as its context. An `event` that is OCSF or in the short form is mapped as such. Any other says nothing about who did
what that could be relied on: it becomes a Base Event with its text as `message`, or its object in `unmapped`. The protocol has
no ids: only an event that brings its own has one, so that resends of others are logged again. What the envelope says about time
and origin fills what the event itself leaves open.
"""

from collections.abc import Mapping
from typing import Any

from translog.errors import TooLargeError
from translog.events.jsontext import JSONObject, Slice, compact, parse_record, split_stream
from translog.events.mapping import MappingError, Row, Source, Table, epoch, put, string
from translog.events.sources.short import map_event

CONTEXT_NAMES = ("host", "source", "sourcetype", "index", "time", "channel")
"""What of a request to `raw` belongs to each of its lines: query parameters, and the header X-Splunk-Request-Channel."""
CHANNEL_HEADER = "x-splunk-request-channel"
_PREFIX = "x-collector-"

_ENVELOPE = Table(
    (
        Row("time", "time", epoch(1000)),
        Row("host", "metadata.reporter.hostname", string),
        Row("source", "metadata.source", string),
        Row("sourcetype", "metadata.log_format", string),
        Row("index", "metadata.log_name", string),
        Row("channel", "metadata.log_source", string),
    ),
    taken=("event",),
)


def _split(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
    """Raises MalformedError, TooLargeError."""
    return split_stream(body, records_max=records_max)


def _map(record: JSONObject, context: JSONObject) -> JSONObject:
    content = record.get("event")
    if content is None or content == "":
        raise MappingError("an object of the collector without an event")
    envelope: JSONObject = {}
    rest = _ENVELOPE.apply(record, envelope)
    event = _event_of(content)
    for name, value in envelope.pop("metadata", {}).items():
        event.setdefault("metadata", {}).setdefault(name, value)
    put(event, "time", envelope.get("time"))
    if rest:
        unmapped = event.setdefault("unmapped", {})
        clash = unmapped.keys() & rest.keys()
        unmapped.update({"collector": rest} if clash else rest)
    return event


def _event_of(content: Any) -> JSONObject:
    if type(content) is dict:
        if "class_uid" in content or (content.get("actor") is not None and content.get("action") is not None):
            try:
                return map_event(content, {})
            except MappingError:  # it only looked like one
                return _base({"unmapped": {"event": content}})
        event = _base({"unmapped": {"event": content}})
        put(event, "message", string(content.get("message")))
        return event
    return _base({"message": content if type(content) is str else compact(content)})


def _base(fields: JSONObject) -> JSONObject:
    return {"class_uid": 0, "category_uid": 0, "activity_id": 0, **fields}


def _split_raw(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
    """Lines of text; blank ones are none. Raises TooLargeError."""
    context: JSONObject = {}
    for name in CONTEXT_NAMES:
        value = headers.get(CHANNEL_HEADER if name == "channel" else _PREFIX + name)
        if value:
            context[name] = value.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")
    slices: list[Slice] = []
    for line in body.split(b"\n"):
        raw = line.removesuffix(b"\r")
        if raw.strip(b" \t"):
            if len(slices) == records_max:
                raise TooLargeError(
                    f"more than {records_max} records in one request", hint="send smaller batches", code="too-many-entries"
                )
            slices.append(_parse_raw(raw, context))
    return slices


def _parse_raw(raw: bytes, context: JSONObject) -> Slice:
    """A line as the object that `event` would have been sent. A line that is not UTF-8 is kept as raw_data alone."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Slice(raw, None, f"not UTF-8 at byte {error.start}", context)
    content = parse_record(raw).value if text.lstrip(" \t").startswith("{") else None
    return Slice(raw, {**context, "event": text if content is None else content}, "", context)


COLLECTOR = Source(name="collector", version="1", split=_split, map=_map)
COLLECTOR_RAW = Source(name="collector-raw", version="1", split=_split_raw, map=_map, parse=_parse_raw)
"""Lines of `raw`; the server hands on query parameters as headers: raw_headers()."""


def raw_headers(query: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
    """The headers for COLLECTOR_RAW.split of a request with this query."""
    named = {_PREFIX + name: query[name] for name in CONTEXT_NAMES if name in query and name != "channel"}
    channel = headers.get(CHANNEL_HEADER) or query.get("channel", "")
    return named | ({CHANNEL_HEADER: channel} if channel else {})
