"""A record of a source to one canonical event.

    Slice -> source.map -> fields in the model's order, with metadata, raw_data, unmapped, observables and `fed`

Rules: content never fails. What does not parse, or is not its source's, becomes a Base Event (class 0) with the original and
`fed.error`; a required value that a record does not have is named in `fed.missing` and never invented; `raw_data` is the exact
slice received, in base64 where it is not UTF-8 (`fed.raw_encoding`). The same slice and mapping give the same event for ever:
`fed.mapping` names the mapping, and remap.py derives events anew. Pure.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

from translog.events.jsontext import JSONObject, Slice
from translog.events.mapping import MappingError, Source
from translog.events.model import FIELD_ORDER, OCSF_VERSION, find_missing, find_observables

RAW_ENCODING = "base64"
BASE_EVENT = {"class_uid": 0, "category_uid": 0, "activity_id": 0}
_RANK = {name: rank for rank, name in enumerate(FIELD_ORDER)}
UID_CHARS_MAX = 1_024
"""A longer id is none: it goes to `unmapped` with its name."""


class Normalized(NamedTuple):
    """A canonical event, and its id (`metadata.uid`), if it has one."""

    event: JSONObject
    uid: str | None

    @property
    def error(self) -> str:
        """Why it is a Base Event; empty for any other."""
        error: str = self.event["fed"].get("error", "")
        return error


def normalize(source: Source, record: Slice) -> Normalized:
    """The event of one record. Never fails."""
    error = record.error
    event: JSONObject = {}
    if not error:
        try:
            if type(record.value) is not dict:
                raise MappingError("the record is not a JSON object")
            event = source.map(record.value, record.context)
        except MappingError as problem:
            error = str(problem)
    if error:
        event = _base_event(source, record)
    return _complete(source, record, event, error)


def _base_event(source: Source, record: Slice) -> JSONObject:
    return {
        **BASE_EVENT,
        "metadata": {"product": {"name": source.name}},
        "message": f"a record of source {source.name} that could not be mapped",
    }


def _complete(source: Source, record: Slice, event: JSONObject, error: str) -> Normalized:
    fed: JSONObject = event.setdefault("fed", {})
    metadata = event.setdefault("metadata", {})
    metadata.setdefault("version", OCSF_VERSION)
    event.setdefault("class_uid", 6003)
    event.setdefault("category_uid", event["class_uid"] // 1000)
    event.setdefault("activity_id", 0)
    event.setdefault("type_uid", event["class_uid"] * 100 + event["activity_id"])
    event.setdefault("severity_id", 0)
    try:
        event["raw_data"] = record.raw.decode("utf-8")
    except UnicodeDecodeError:
        event["raw_data"] = b64encode(record.raw).decode("ascii")
        fed["raw_encoding"] = RAW_ENCODING
    event["raw_data_size"] = len(record.raw)
    if record.context:
        fed["raw_context"] = record.context
    uid = metadata.get("uid")
    if uid is not None and len(uid) > UID_CHARS_MAX:
        event.setdefault("unmapped", {})["metadata.uid"] = metadata.pop("uid")
        uid = None
    observables = find_observables(event)
    if observables:
        event["observables"] = observables
    missing = find_missing(event)
    if missing:
        fed["missing"] = missing
    if error:
        fed["error"] = error
    fed["mapping"] = {"name": source.name, "version": source.version}
    if source.sha256:
        fed["mapping"]["sha256"] = source.sha256
    return Normalized(event=in_order(event), uid=uid)


def in_order(event: JSONObject) -> JSONObject:
    """The fields in the model's order. A field that is none is a defect of a mapping (KeyError)."""
    return {name: event[name] for name in sorted(event, key=_RANK.__getitem__)}


def raw_record(event: JSONObject) -> tuple[bytes, JSONObject]:
    """The bytes of the record that an event was made from, and its context."""
    raw: str = event["raw_data"]
    fed = event.get("fed", {})
    data = b64decode(raw) if fed.get("raw_encoding") == RAW_ENCODING else raw.encode("utf-8")
    return data, fed.get("raw_context", {})


def differences(old: Any, new: Any, path: Sequence[str] = ()) -> list[str]:
    """The dotted paths at which two events differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [
            found
            for name in names
            for found in (
                differences(old[name], new[name], (*path, name)) if name in old and name in new else [".".join((*path, name))]
            )
        ]
    return [] if type(old) is type(new) and old == new else [".".join(path)]
