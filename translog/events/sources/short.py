"""The short form: a few plain names that spare people OCSF, and `POST /v1/events`, which takes both.

    {"id":"42","time":"2026-01-02T03:04:05Z","actor":"alice@corp.example","action":"deployment.create","resource":"prod/web",
     "outcome":"success","reason":"CHG-1234","trace_id":"…","context":{…}}

Rules: a record needs an actor or an action; every name of it may be missing, and what is not understood (a time that is none,
an outcome of another word, a name that is not of the form) stays in `unmapped`. A string is the name of the actor, resource or
policy and the id of the session; an object says more. What an object says beyond OCSF's attributes stays in `unmapped`, of a
resource in its `data`. Reasons that are a ticket's key (CHG-1234) are tickets too.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from translog.events.jsontext import INTEGER_MAX, JSONObject, Slice, split_lines, split_stream
from translog.events.mapping import (
    OTHER,
    MappingError,
    Row,
    Source,
    Table,
    activity_of,
    address,
    boolean,
    email,
    enum,
    integer,
    port,
    put,
    rfc3339,
    string,
    text,
)
from translog.events.sources.ocsf import OCSF
from translog.events.sources.trace import SPAN_ID, TRACE_ID, complete_trace

_Named = Callable[[Any], tuple[JSONObject, Any]]
_TICKET = re.compile(r"[A-Z][A-Z0-9]{1,9}-[0-9]{1,9}", re.ASCII)
USER_TYPE = enum({"user": 1, "admin": 2, "system": 3, "service": 4})
"""OCSF's type_id of a user."""
OUTCOME = enum({"unknown": 0, "success": 1, "failure": 2})
"""OCSF's status_id."""
DECISION = enum({"allowed": "allowed", "allow": "allowed", "denied": "denied", "deny": "denied"})
"""What a policy decided, in one spelling."""
SEVERITY = enum(
    {
        **dict.fromkeys(("trace", "debug", "info", "informational", "information"), 1),
        **dict.fromkeys(("low", "notice"), 2),
        **dict.fromkeys(("medium", "warn", "warning"), 3),
        **dict.fromkeys(("high", "error", "err"), 4),
        **dict.fromkeys(("critical", "crit", "alert"), 5),
        **dict.fromkeys(("fatal", "emergency", "emerg"), 6),
    }
)
"""OCSF's severity_id of the words that OCSF, syslog and logging libraries use."""
HTTP_METHOD = enum({name: name for name in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]})


def moment(value: Any) -> int | None:
    """RFC 3339, or milliseconds since 1970."""
    if type(value) is int:
        return value if abs(value) <= INTEGER_MAX else None
    return rfc3339(value)


def full_url(value: Any) -> str | None:
    """A URL with its scheme."""
    return value if type(value) is str and "://" in value[:64] else None


def url_path(value: Any) -> str | None:
    """A URL without a scheme."""
    return value if type(value) is str and value and full_url(value) is None else None


def authorize(event: JSONObject) -> None:
    """What a policy decided is the actor's authorization too, which is where OCSF has it."""
    why = event.get("fed", {}).get("why", {})
    authorization = {name: why[name] for name in ("decision", "policy") if name in why}
    if authorization:
        event.setdefault("actor", {})["authorizations"] = [authorization]


def ticket(value: Any) -> str | None:
    """The key of a ticket, and nothing else."""
    return value if type(value) is str and _TICKET.fullmatch(value) else None


def _user_type(value: Any) -> int | None:
    return (USER_TYPE(value) or OTHER) if type(value) is str else None


def _groups(value: Any) -> list[JSONObject] | None:
    if type(value) is not list or not value:
        return None
    found = [{"name": item} if type(item) is str and item else item for item in value]
    return found if all(_is_flat(item, ("name", "uid", "type", "domain")) for item in found) else None


def _is_flat(item: Any, names: tuple[str, ...]) -> bool:
    return type(item) is dict and bool(item) and all(name in names and string(value) for name, value in item.items())


_TABLE = Table(
    (
        Row("id", "metadata.uid"),
        Row("time", "time", moment),
        Row("action", "api.operation", string),
        Row("outcome", "status_id", OUTCOME),
        Row("reason", "fed.why.reason", string),
        Row("reason", "fed.why.ticket", ticket),
        Row("decision", "fed.why.decision", DECISION),
        Row("message", "message", string),
        Row("severity", "severity_id", SEVERITY),
        Row("trace_id", "trace.uid", TRACE_ID),
        Row("span_id", "trace.span.uid", SPAN_ID),
        Row("parent_span_id", "trace.span.parent_uid", SPAN_ID),
        Row("src_ip", "src_endpoint.ip", address),
        Row("src_port", "src_endpoint.port", port),
        Row("user_agent", "http_request.user_agent", string),
        Row("http.method", "http_request.http_method", HTTP_METHOD),
        Row("http.url", "http_request.url.url_string", full_url),
        Row("http.url", "http_request.url.path", url_path),
        Row("http.status", "http_response.code", integer),
        Row("duration_ms", "duration", integer),
        Row("correlation_id", "metadata.correlation_uid"),
        Row("product", "metadata.product.name", string),
    ),
    taken=("actor", "resource", "on_behalf_of", "session", "policy"),
)
_PERSON = Table(
    (
        Row("uid", "uid"),
        Row("name", "name", string),
        Row("full_name", "full_name", string),
        Row("email_addr", "email_addr", email),
        Row("type", "type", string),
        Row("type", "type_id", _user_type),
        Row("domain", "domain", string),
        Row("groups", "groups", _groups),
        Row("credential_uid", "credential_uid", string),
        Row("uid_alt", "uid_alt", string),
    )
)
_RESOURCE = Table(
    (
        Row("uid", "uid"),
        Row("name", "name", string),
        Row("type", "type", string),
        Row("namespace", "namespace", string),
        Row("region", "region", string),
        Row("version", "version", string),
    )
)
_SESSION = Table((Row("uid", "uid"), Row("issuer", "issuer", string), Row("is_mfa", "is_mfa", boolean)))
_POLICY = Table(
    (Row("uid", "uid"), Row("name", "name", string), Row("type", "type", string), Row("version", "version", string))
)


def map_short(record: JSONObject, context: JSONObject) -> JSONObject:
    """The event of a record in the short form. Raises MappingError."""
    if record.get("actor") is None and record.get("action") is None:
        raise MappingError("neither OCSF nor the short form: it has no class_uid, no actor and no action")
    event: JSONObject = {"class_uid": 6003}
    rest = _TABLE.apply(record, event)
    for name, target, convert in _NAMED:
        value = record.get(name)
        if value is not None:
            made, left = convert(value)
            put(event, target, made)
            put(rest, name, left)
    for name, target, convert in _LISTED:
        _put_list(event, rest, name, target, convert, record.get(name))
    user = event.get("actor", {}).get("user", {})
    put(user, "email_addr", email(user.get("name")))
    operation = event.get("api", {}).get("operation")
    event["activity_id"] = 0 if operation is None else activity_of(operation)
    authorize(event)
    complete_trace(event)
    put(event, "unmapped", rest)
    return event


def person(value: Any) -> tuple[JSONObject, Any]:
    """OCSF's user of a string, its name, or an object, and what is left of it."""
    return _by_table(_PERSON, "name", value)


def _by_table(table: Table, name: str, value: Any) -> tuple[JSONObject, Any]:
    """An object through its table, or its attribute `name` alone."""
    if type(value) is dict:
        made: JSONObject = {}
        left = table.apply(value, made)
        return made, left
    named = text(value)
    return ({}, value) if named is None else ({name: named}, None)


def _resource(value: Any) -> tuple[JSONObject, Any]:
    made, left = _by_table(_RESOURCE, "name", value)
    if type(left) is dict and left:
        made["data"] = left
        left = None
    return made, left


def _put_list(event: JSONObject, rest: JSONObject, name: str, target: str, convert: _Named, value: Any) -> None:
    """One thing, or a list of them, if each of them is understood whole; otherwise all of them stay in the remainder."""
    if value is None:
        return
    found = [convert(item) for item in (value if type(value) is list else [value])]
    if found and all(made and not left for made, left in found):
        put(event, target, [made for made, _ in found])
    else:
        rest[name] = value


_NAMED: Sequence[tuple[str, str, _Named]] = (
    ("actor", "actor.user", person),
    ("session", "actor.session", partial(_by_table, _SESSION, "uid")),
    ("policy", "fed.why.policy", partial(_by_table, _POLICY, "name")),
)
_LISTED: Sequence[tuple[str, str, _Named]] = (
    ("on_behalf_of", "fed.on_behalf_of", person),
    ("resource", "resources", _resource),
)


def split_events(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
    """The records of `POST /v1/events`: a line each with the content type application/x-ndjson, otherwise one object, an array,
    or objects one behind the other. Raises MalformedError, TooLargeError."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() == "application/x-ndjson":
        return split_lines(body, records_max=records_max)
    return split_stream(body, records_max=records_max)


def map_event(record: JSONObject, context: JSONObject) -> JSONObject:
    """OCSF where the record has a class_uid, else the short form. Raises MappingError."""
    return OCSF.map(record, context) if "class_uid" in record else map_short(record, context)


EVENTS = Source(name="events", version="1", split=split_events, map=map_event)
