"""A source that a member describes in a file, without code.

    name = "payroll"                          # its name in /v1/sources/<name>/<stream>
    version = "1"                             # change it with the mapping
    split = "lines"                           # or "stream", or "list" with list = "records"
    id = "entry.id"                           # where the record's id is; without one a resend is logged again
    rows = [                                  # from, to, and what the value is (text if left out)
      ["user.login", "actor.user.name"],
      ["client", "src_endpoint.ip", "address"],
    ]
    [product]
    name = "Payroll"
    [time]
    path = "at"
    format = "epoch_s"                        # rfc3339, epoch_s, epoch_ms, epoch_us, epoch_ns, or a strptime pattern
    [operation]
    path = "verb"
    [operation.activity]                      # a word, or its beginning or end: the first that fits; otherwise its first verb
    "salary.*" = "update"
    [outcome]                                 # and likewise [decision] with allowed and denied
    path = "result"
    success = ["ok"]
    failure = ["failed", "error"]

Rules: the file is checked whole before it is used, so that an event of it is OCSF; a target is one of TARGETS, and the value's
kind must be the target's. There are no regular expressions. An event names the file's SHA-256 in `fed.mapping`. Pure.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from translog.errors import SettingsError
from translog.events.jsontext import JSONObject, Slice, split_lines, split_list, split_stream
from translog.events.mapping import (
    CREATE,
    DELETE,
    OTHER,
    READ,
    UPDATE,
    Convert,
    MappingError,
    Row,
    Source,
    Table,
    activity_of,
    address,
    anything,
    boolean,
    email,
    epoch,
    integer,
    path,
    port,
    rfc3339,
    string,
    text,
)
from translog.events.sources.short import HTTP_METHOD, SEVERITY, USER_TYPE, authorize, full_url
from translog.events.sources.trace import SPAN_ID, TRACE_ID, add_profile, complete_trace

FILE_BYTES_MAX = 64 * 1024
ROWS_MAX = 200
WORDS_MAX = 500
_CHARS_MAX = 200
_DEPTH_MAX = 8
_NAME = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
_TIME_CHARS_MAX = 64
_DIRECTIVES = frozenset("YmdHMSfzjbBypI%")
"""Of strptime: those that mean the same everywhere."""

CONVERTS: Mapping[str, tuple[str, Convert]] = {
    "text": ("string", text),
    "string": ("string", string),
    "integer": ("integer", integer),
    "boolean": ("boolean", boolean),
    "address": ("ip", address),
    "port": ("port", port),
    "email": ("email", email),
    "url": ("string", full_url),
    "method": ("method", HTTP_METHOD),
    "user_type": ("user_type", USER_TYPE),
    "severity": ("severity", SEVERITY),
    "trace_id": ("trace_id", TRACE_ID),
    "span_id": ("span_id", SPAN_ID),
    "rfc3339": ("time", rfc3339),
    "epoch_s": ("time", epoch(1000)),
    "epoch_ms": ("time", epoch(1)),
    "epoch_us": ("time", epoch(1e-3)),
    "epoch_ns": ("time", epoch(1e-6)),
    "json": ("json", anything),
}
"""What a value can be, by name: the kind it then is, and the conversion."""

_ENDPOINT = "ip:ip port:port hostname name uid svc_name domain"
_TARGETS = {
    "": "message status_code status_detail severity_id:severity duration:integer start_time:time end_time:time",
    "metadata": """original_event_uid correlation_uid event_code log_name log_provider log_format log_version log_level source
        tenant_uid sequence:integer logged_time:time""",
    "metadata.product": "version uid",
    "actor": "app_name app_uid invoked_by",
    "actor.user": "uid name full_name display_name domain email_addr:email type type_id:user_type uid_alt credential_uid",
    "actor.user.account": "uid name",
    "actor.session": "uid issuer uid_alt credential_uid is_mfa:boolean created_time:time",
    "actor.idp": "uid name",
    "api": "version",
    "api.service": "name uid version",
    "api.request": "uid data:json",
    "api.response": "code:integer error message error_message data:json",
    "resources": "uid name type namespace region version data:json",
    "src_endpoint": _ENDPOINT,
    "dst_endpoint": _ENDPOINT,
    "http_request": "user_agent uid referrer version http_method:method",
    "http_request.url": "url_string path hostname scheme query_string port:port",
    "http_response": "code:integer",
    "cloud": "provider region project_uid",
    "cloud.account": "uid name",
    "trace": "uid:trace_id",
    "trace.span": "uid:span_id parent_uid:span_id",
    "fed": "ns observer",
    "fed.why": "reason ticket approval_uid",
    "fed.why.policy": "name uid type version",
}


def _targets() -> dict[str, str]:
    found = {}
    for above, names in _TARGETS.items():
        for word in names.split():
            name, _, kind = word.partition(":")
            found[f"{above}.{name}".removeprefix(".")] = kind or "string"
    return found


TARGETS: Mapping[str, str] = _targets()
"""Where a value may go, and the kind it must be. A string may be any kind of text: an address, an e-mail address, an id."""
_TEXTS = frozenset(("string", "ip", "email", "method", "trace_id", "span_id"))
_ACTIVITIES = {"create": CREATE, "read": READ, "update": UPDATE, "delete": DELETE, "other": OTHER}
_ActivityName = Literal["create", "read", "update", "delete", "other"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_max_length=_CHARS_MAX, frozen=True)


class _Product(_Section):
    name: str = Field(min_length=1)
    vendor_name: str | None = Field(None, min_length=1)


class _Path(_Section):
    path: str

    @field_validator("path")
    @classmethod
    def _check(cls, value: str) -> str:
        return _checked_path(value)


class _Time(_Path):
    format: str = "rfc3339"

    @field_validator("format")
    @classmethod
    def _check_format(cls, value: str) -> str:
        if "%" not in value:
            if CONVERTS.get(value, ("",))[0] != "time":
                raise ValueError("is rfc3339, epoch_s, epoch_ms, epoch_us, epoch_ns or a strptime pattern")
            return value
        after = value.replace("%%", "").split("%")[1:]
        unknown = [part[:1] for part in after if part[:1] not in _DIRECTIVES]
        if unknown:
            raise ValueError(f"has the directive %{unknown[0]}, which is not among {' '.join(sorted(_DIRECTIVES))}")
        try:
            datetime.strptime("", value)  # noqa: DTZ007  # only to see whether the pattern is one
        except (ValueError, re.error) as error:  # re.error for a directive that stands twice
            if "does not match" not in str(error):
                raise ValueError(f"is no pattern: {error}") from None
        return value


class _Operation(_Path):
    activity: dict[str, _ActivityName] = Field(default={}, max_length=WORDS_MAX)

    @field_validator("activity")
    @classmethod
    def _check_words(cls, value: dict[str, _ActivityName]) -> dict[str, _ActivityName]:
        for word in value:
            if not word.strip("*") or "*" in word[1:-1]:
                raise ValueError(f"{word!r} is no word: a star stands at its beginning or its end")
        return value


class _Outcome(_Path):
    success: list[str] = Field(default=[], max_length=WORDS_MAX)
    failure: list[str] = Field(default=[], max_length=WORDS_MAX)


class _Decision(_Path):
    allowed: list[str] = Field(default=[], max_length=WORDS_MAX)
    denied: list[str] = Field(default=[], max_length=WORDS_MAX)


class _File(_Section):
    name: str = Field(pattern=_NAME)
    version: str = Field(min_length=1)
    split: Literal["lines", "stream", "list"] = "stream"
    list_name: str | None = Field(None, alias="list", min_length=1)
    id: str | None = None
    rows: list[list[str]] = Field(max_length=ROWS_MAX)
    product: _Product | None = None
    time: _Time | None = None
    operation: _Operation | None = None
    outcome: _Outcome | None = None
    decision: _Decision | None = None

    @field_validator("id")
    @classmethod
    def _check_id(cls, value: str | None) -> str | None:
        return None if value is None else _checked_path(value)

    @field_validator("rows")
    @classmethod
    def _check_rows(cls, value: list[list[str]]) -> list[list[str]]:
        for number, row in enumerate(value):
            problem = _row_problem(row)
            if problem:
                raise ValueError(f"row {number + 1}: {problem}")
        return value


def _checked_path(value: str) -> str:
    if not all(path(value)) or len(path(value)) > _DEPTH_MAX:
        raise ValueError(f"{value!r} is no path of 1 to {_DEPTH_MAX} names with dots between")
    return value


def _row_problem(row: list[str]) -> str:
    """What is wrong with a row; empty for a good one."""
    if len(row) not in (2, 3):
        return "a row has a source, a target and, if it is not text, what the value is"
    try:
        _checked_path(row[0])
    except ValueError as error:
        return str(error)
    wanted = TARGETS.get(row[1])
    if wanted is None:
        return f"{row[1]!r} is no target"
    named = row[2] if len(row) == 3 else "text"
    if named not in CONVERTS:
        return f"{named!r} is none of {', '.join(CONVERTS)}"
    kind = CONVERTS[named][0]
    if kind != wanted and not (wanted == "string" and kind in _TEXTS) and wanted != "json":
        return f"{row[1]} is {wanted}, and {named} makes {kind}"
    return ""


def load_custom(data: bytes) -> Source:
    """The source that a file describes. Raises SettingsError, which names the key that is wrong."""
    if len(data) > FILE_BYTES_MAX:
        raise SettingsError(f"a mapping has at most {FILE_BYTES_MAX} bytes")
    try:
        described = _File.model_validate(tomllib.loads(data.decode("utf-8")))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"the mapping's {key or 'file'}: {first['msg'].removeprefix('Value error, ')}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"the mapping is not TOML: {error}") from None
    if (described.split == "list") != (described.list_name is not None):
        raise SettingsError('the mapping\'s list: is the name of the array, with split = "list" and only then')
    return Source(
        name=described.name,
        version=described.version,
        split=_splitter(described),
        map=_mapper(described),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _splitter(described: _File) -> Callable[[bytes, Mapping[str, str], int], list[Slice]]:
    def split(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
        if described.list_name is not None:
            return split_list(body, described.list_name, records_max=records_max)
        split_body = split_lines if described.split == "lines" else split_stream
        return split_body(body, records_max=records_max)

    return split


def _mapper(described: _File) -> Callable[[JSONObject, JSONObject], JSONObject]:
    table = Table(tuple(_rows(described)))
    words = described.operation.activity if described.operation is not None else {}
    product = {} if described.product is None else described.product.model_dump(exclude_none=True)

    def map_record(record: JSONObject, context: JSONObject) -> JSONObject:
        event: JSONObject = {}
        rest = table.apply(record, event)
        if not event:
            raise MappingError(f"the mapping {described.name} understands nothing of the record")
        event["class_uid"] = 6003
        operation = event.get("api", {}).get("operation")
        event["activity_id"] = 0 if operation is None else _activity(operation, words)
        if product:
            event.setdefault("metadata", {}).setdefault("product", {}).update(product)
        if "resources" in event:
            event["resources"] = [event["resources"]]
        if "cloud" in event:
            add_profile(event, "cloud")
        authorize(event)
        complete_trace(event)
        if rest:
            event["unmapped"] = rest
        return event

    return map_record


def _rows(described: _File) -> list[Row]:
    rows = [Row(row[0], row[1], CONVERTS[row[2] if len(row) == 3 else "text"][1]) for row in described.rows]
    if described.id is not None:
        rows.append(Row(described.id, "metadata.uid"))
    if described.time is not None:
        rows.append(Row(described.time.path, "time", _time_convert(described.time.format)))
        rows.append(Row(described.time.path, "metadata.original_time"))
    if described.operation is not None:
        rows.append(Row(described.operation.path, "api.operation"))
    if described.outcome is not None:
        words = _by_word({1: described.outcome.success, 2: described.outcome.failure})
        rows.append(Row(described.outcome.path, "status_id", words))
    if described.decision is not None:
        words = _by_word({"allowed": described.decision.allowed, "denied": described.decision.denied})
        rows.append(Row(described.decision.path, "fed.why.decision", words))
    return rows


def _by_word(words: Mapping[Any, list[str]]) -> Convert:
    """What a value's word means; true, false and numbers are their words."""
    meanings = {word.lower(): meaning for meaning, listed in words.items() for word in listed}

    def convert(value: Any) -> Any:
        word = str(value) if type(value) is bool else text(value)
        return None if word is None else meanings.get(word.lower())

    return convert


def _activity(operation: str, words: Mapping[str, _ActivityName]) -> int:
    for word, activity in words.items():
        bare = word.strip("*")
        begins, ends = operation.startswith(bare), operation.endswith(bare)
        fits = operation == word
        if word.startswith("*") and word.endswith("*"):
            fits = bare in operation
        elif word.startswith("*"):
            fits = ends
        elif word.endswith("*"):
            fits = begins
        if fits:
            return _ACTIVITIES[activity]
    return activity_of(operation)


def _time_convert(pattern: str) -> Convert:
    """Milliseconds since 1970 of a time in that format; UTC where the pattern has no zone."""
    if "%" not in pattern:
        return CONVERTS[pattern][1]

    def convert(value: Any) -> int | None:
        if type(value) is not str or len(value) > _TIME_CHARS_MAX:
            return None
        try:
            moment = datetime.strptime(value, pattern)  # noqa: DTZ007  # the pattern may have a zone
            moment = moment.replace(tzinfo=moment.tzinfo or UTC)
            return (moment - _EPOCH) // _MILLISECOND
        except (ValueError, OverflowError):
            return None

    return convert


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
