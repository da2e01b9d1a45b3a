"""OpenTelemetry logs: OTLP/HTTP requests in protobuf and JSON, and the draft audit signal, whose records are log records.

Rules: what says who did what is read from the draft's `audit.*` attributes first, then from the semantic conventions; a record
without either is an API Activity that misses its operation and actor, as `fed.missing` says. Resource and scope count as part
of each of their records. Of two attributes of one name the last counts, the other stays in `unmapped.repeated_attributes`.
Values that JSON has no number for (NaN, infinities) are strings. The observed time stands in for a missing time.
https://opentelemetry.io/docs/specs/otel/logs/data-model/, https://opentelemetry.io/docs/specs/semconv/registry/attributes/
"""

from collections.abc import Mapping, Sequence
from typing import Any

from translog.errors import MalformedError
from translog.events.jsontext import INTEGER_MAX, JSONObject, Slice, compact
from translog.events.mapping import Row, Source, Table, activity_of, address, email, epoch, integer, port, put, string
from translog.events.sources.otlp_json import parse_json, split_json
from translog.events.sources.otlp_protobuf import ENCODING, parse_protobuf, split_protobuf
from translog.events.sources.short import HTTP_METHOD, OUTCOME, USER_TYPE, full_url
from translog.events.sources.trace import SPAN_ID, TRACE_ID, add_profile, complete_trace

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_NANOSECONDS = epoch(1e-6)
_SEVERITY = (1, 1, 1, 3, 4, 6)
"""OCSF's severity_id of trace, debug, info, warn, error and fatal, four severity numbers each."""


def severity(value: Any) -> int | None:
    """OCSF's severity_id of a severity number from 1 to 24."""
    number = integer(value)
    return _SEVERITY[(number - 1) // 4] if number is not None and 1 <= number <= 24 else None


def _hostname(value: Any) -> str | None:
    return value if type(value) is str and value and address(value) is None and "/" not in value else None


def sequence(value: Any) -> int | None:
    """A sequence number, also from its digits."""
    number = integer(value)
    return number if number is not None and number >= 0 else None


def _a(name: str) -> str:
    """The path of an attribute."""
    return "attributes." + name.replace(".", "\\.")


def _r(name: str) -> str:
    """The path of a resource's attribute."""
    return "resource." + name.replace(".", "\\.")


_TABLE = Table(
    (
        Row(_a("audit.record.id"), "metadata.uid"),
        Row(_a("log.record.uid"), "metadata.uid"),
        Row("timeUnixNano", "time", _NANOSECONDS),
        Row("timeUnixNano", "metadata.original_time", string),
        Row("observedTimeUnixNano", "metadata.logged_time", _NANOSECONDS),
        Row("observedTimeUnixNano", "time", _NANOSECONDS),
        Row("eventName", "metadata.event_code", string),
        Row(_a("audit.action"), "api.operation", string),
        Row("eventName", "api.operation", string),
        Row(_a("event.name"), "api.operation", string),
        Row(_a("audit.schema.version"), "metadata.log_version"),
        Row(_a("audit.sequence.number"), "metadata.sequence", sequence),
        Row(_a("audit.sequence.number"), "fed.source_seq", sequence),
        Row(_a("audit.outcome"), "status_id", OUTCOME),
        Row(_a("error.type"), "status_code", string),
        Row(_a("error.message"), "status_detail", string),
        Row(_a("exception.message"), "status_detail", string),
        Row("severityNumber", "severity_id", severity),
        Row("body", "message", string),
        Row("traceId", "trace.uid", TRACE_ID),
        Row("spanId", "trace.span.uid", SPAN_ID),
        Row(_a("audit.actor.id"), "actor.user.uid"),
        Row(_a("audit.actor.type"), "actor.user.type_id", USER_TYPE),
        Row(_a("user.id"), "actor.user.uid"),
        Row(_a("enduser.id"), "actor.user.uid"),
        Row(_a("user.name"), "actor.user.name", string),
        Row(_a("user.full_name"), "actor.user.full_name", string),
        Row(_a("user.email"), "actor.user.email_addr", email),
        Row(_a("session.id"), "actor.session.uid"),
        Row(_a("audit.target.id"), "_.target.uid"),
        Row(_a("audit.target.type"), "_.target.type", string),
        Row(_a("audit.source.id"), "src_endpoint.ip", address),
        Row(_a("audit.source.id"), "src_endpoint.hostname", _hostname),
        *(Row(_a(f"{name}.address"), "src_endpoint.ip", address) for name in ("client", "source", "network.peer")),
        *(Row(_a(f"{name}.address"), "src_endpoint.hostname", _hostname) for name in ("client", "source")),
        *(Row(_a(f"{name}.port"), "src_endpoint.port", port) for name in ("client", "source", "network.peer")),
        *(Row(_a(f"{name}.address"), "dst_endpoint.ip", address) for name in ("server", "destination")),
        *(Row(_a(f"{name}.address"), "dst_endpoint.hostname", _hostname) for name in ("server", "destination")),
        *(Row(_a(f"{name}.port"), "dst_endpoint.port", port) for name in ("server", "destination")),
        Row(_a("user_agent.original"), "http_request.user_agent", string),
        Row(_a("http.request.method"), "http_request.http_method", HTTP_METHOD),
        Row(_a("http.response.status_code"), "http_response.code", integer),
        Row(_a("url.full"), "http_request.url.url_string", full_url),
        Row(_a("url.path"), "http_request.url.path", string),
        Row(_a("url.query"), "http_request.url.query_string", string),
        Row(_a("url.scheme"), "http_request.url.scheme", string),
        Row("scope.name", "metadata.log_name", string),
        Row(_r("service.name"), "metadata.product.name", string),
        Row(_r("service.name"), "api.service.name", string),
        Row(_r("service.version"), "metadata.product.version"),
        Row(_r("service.instance.id"), "metadata.product.uid"),
        Row(_r("cloud.provider"), "cloud.provider", string),
        Row(_r("cloud.region"), "cloud.region", string),
        Row(_r("cloud.account.id"), "cloud.account.uid"),
    )
)


def split_logs(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
    """The records of an ExportLogsServiceRequest, their values in normal form. Raises MalformedError, TooLargeError."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == PROTOBUF:
        return split_protobuf(body, records_max)
    if content_type == JSON:
        return split_json(body, records_max)
    raise MalformedError(f"a request of OTLP is {PROTOBUF} or {JSON}, not {content_type[:60]!r}")


def parse_log(raw: bytes, context: JSONObject) -> Slice:
    """The slice of one record from its bytes and context."""
    return parse_protobuf(raw, context) if context.get("encoding") == ENCODING else parse_json(raw, context)


def map_log(record: JSONObject, context: JSONObject) -> JSONObject:
    """The event of a record in normal form."""
    attributes, repeated = _named(record.get("attributes", []))
    flat = {**record, "attributes": attributes}
    if "body" in record:
        flat["body"] = plain(record["body"])
    for name in ("resource", "scope"):
        shared = context.get(name)
        if shared is not None:
            flat[name], more = _shared(shared, name)
            repeated += more
    event: JSONObject = {"class_uid": 6003}
    rest = _TABLE.apply(flat, event)
    target = event.pop("_", {}).get("target")
    if target is not None:
        event["resources"] = [target]
    operation = event.get("api", {}).get("operation")
    event["activity_id"] = 0 if operation is None else activity_of(operation)
    complete_trace(event)
    if "cloud" in event:
        add_profile(event, "cloud")
    put(rest, "schemaUrl", context.get("schemaUrl"))
    put(rest, "repeated_attributes", repeated)
    put(event, "unmapped", rest)
    return event


def _shared(shared: JSONObject, name: str) -> tuple[JSONObject, list[JSONObject]]:
    """A resource, as its attributes, or a scope, its attributes below `attributes`."""
    attributes, repeated = _named(shared.get("attributes", []))
    others = {key: value for key, value in shared.items() if key != "attributes"}
    if name == "scope":
        return {**others, **({"attributes": attributes} if attributes else {})}, repeated
    return attributes or others, repeated


def _named(pairs: Sequence[JSONObject]) -> tuple[JSONObject, list[JSONObject]]:
    """Attributes by name, and those whose name a later one has too."""
    named: JSONObject = {}
    repeated = []
    for pair in pairs:
        key = pair["key"]
        if key in named:
            repeated.append({"key": key, "value": named[key]})
        named[key] = plain(pair["value"])
    return named, repeated


def plain(value: JSONObject) -> Any:
    """The JSON of an AnyValue in normal form. Integers beyond 2^53-1 are their digits, bytes base64; a map with a name that
    occurs twice is a list of its pairs."""
    for kind, content in value.items():
        if kind == "intValue":
            number = int(content)
            return number if abs(number) <= INTEGER_MAX else content
        if kind == "arrayValue":
            return [plain(item) for item in content["values"]]
        if kind == "kvlistValue":
            named, repeated = _named(content["values"])
            return [{"key": pair["key"], "value": plain(pair["value"])} for pair in content["values"]] if repeated else named
        return content
    return None


OTLP = Source(name="otlp", version="1", split=split_logs, map=map_log, parse=parse_log)


# --- answers ----------------------------------------------------------------------------------------------------------------


def encode_status(code: int, message: str, content_type: str) -> bytes:
    """A google.rpc.Status, the body of every error of OTLP/HTTP. `code` is one of gRPC's, 0 to 16.
    https://opentelemetry.io/docs/specs/otlp/#failures-1"""
    if content_type == JSON:
        return compact({"code": code, "message": message}).encode("utf-8")
    said = message.encode("utf-8")
    return (b"\x08" + _varint(code) if code else b"") + (b"\x12" + _varint(len(said)) + said if said else b"")


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
