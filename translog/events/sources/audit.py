"""The draft OpenTelemetry audit signal: what its sink checks, and what it answers. Its records map as in otlp.py.

    receipt   {"RecordId":"…","IntegrityHash":"<hex>","SinkTimestamp":"<ns>"}
    status    {"record_id":"…","status":"delivered_all_sinks","integrity_hash":"<hex>","sink_timestamp":"<ns>",…}

Rules: IntegrityHash is SHA-256 over the JCS form (RFC 8785) of the record as persisted, and that is the record's normal form
(otlp_json.py) without what it shares with others: a sender computes it from what it sent, in either encoding, with every 64-bit
integer as a string. Severity and scope say nothing here and are no reason to refuse. A batch is taken whole or not at
all. Two records are the same if they have one IntegrityHash and share the same with others, however
they are written. The draft is read as of 2026-06-03: github.com/apeirora/opentelemetry-specification, specification/audit.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785

from translog.events.jsontext import JSONObject, Slice
from translog.events.mapping import Source
from translog.events.sources.otlp import map_log, parse_log, plain, split_logs

DELIVERED, INVALID, CONFLICT, NOT_TAKEN = (
    "delivered_all_sinks",
    "rejected_schema_invalid",
    "rejected_conflict",
    "failed_internal",
)
_TIMES = ("timeUnixNano", "observedTimeUnixNano")
_REQUIRED = ("audit.record.id", "audit.actor.id", "audit.actor.type", "audit.action", "audit.outcome")
_ENUMS = {"audit.actor.type": ("user", "service", "system"), "audit.outcome": ("success", "failure", "unknown")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One record that the log has: id, hash, and when the log received it. `receipt` says where its inclusion receipt is."""

    record_id: str
    integrity_hash: str
    received_at_ms: int
    receipt: JSONObject


def record_id(record: Slice) -> str | None:
    """The `audit.record.id` of a record, if it has one."""
    value = _attributes(record).get("audit.record.id")
    return value if type(value) is str and value else None


def find_problems(record: Slice) -> list[str]:
    """Why a record is not one of the audit signal, a sentence each; empty for a good one."""
    if record.error:
        return [record.error]
    problems = [f"{name} must be set" for name in (*_TIMES, "eventName") if name not in record.value]
    attributes = _attributes(record)
    for name in _REQUIRED:
        value = attributes.get(name)
        if type(value) is not str or not value:
            problems.append(f"{name} must be set, to a string")
        elif name in _ENUMS and value not in _ENUMS[name]:
            problems.append(f"{name} must be one of {', '.join(_ENUMS[name])}")
    return problems


def _attributes(record: Slice) -> JSONObject:
    if record.error:
        return {}
    return {pair["key"]: plain(pair["value"]) for pair in record.value.get("attributes", [])}


def integrity_hash(record: Slice) -> str:
    """IntegrityHash of a record without an error: 64 hex digits."""
    return hashlib.sha256(rfc8785.dumps(record.value)).hexdigest()


def content(record: Slice) -> bytes:
    """What makes two records of one id the same, of a record without an error: its IntegrityHash, and the normal form of what
    it shares with others, whose encoding says nothing."""
    shared = {name: value for name, value in record.context.items() if name != "encoding"}
    return integrity_hash(record).encode() + json.dumps(shared, sort_keys=True, separators=(",", ":")).encode()


AUDIT = Source(name="otel-audit", version="1", split=split_logs, map=map_log, parse=parse_log, content=content)
"""Records of the draft audit signal."""


def build_receipt(stored: Stored) -> JSONObject:
    """The AuditReceipt; `translog` beside the draft's fields says where the proof of inclusion is."""
    return {
        "RecordId": stored.record_id,
        "IntegrityHash": stored.integrity_hash,
        "SinkTimestamp": _nanoseconds(stored.received_at_ms),
        "translog": stored.receipt,
    }


def build_success(stored: Sequence[Stored], *, sink: str) -> JSONObject:
    """The answer to a batch that was taken: 200. `sink` is the log's origin. Signatures of records are kept and not judged."""
    statuses = {
        item.record_id: {
            "record_id": item.record_id,
            "status": DELIVERED,
            "integrity_hash": item.integrity_hash,
            "sink_timestamp": _nanoseconds(item.received_at_ms),
            "verify_status": "deferred",
            "sink_status_map": {sink: {"sink_type": "translog", "delivery_status": "success"}},
            "receipt": build_receipt(item),
        }
        for item in stored
    }
    return {"status": DELIVERED, "record_status_map": statuses, "sink_status_aggregate": "success"}


def build_invalid(records: Sequence[Slice]) -> JSONObject | None:
    """The answer to a batch with records that are none of the audit signal, or that repeat an id with another content: 400, and
    nothing of it was taken. None for a good batch. Records without an id are named by their place, as `#0`."""
    reasons: dict[str, str] = {}
    contents: dict[str, bytes] = {}
    names = []
    for place, record in enumerate(records):
        found = find_problems(record)
        name = record_id(record) or f"#{place}"
        names.append(name)
        if not found:
            same = content(record)
            if contents.setdefault(name, same) != same:
                found = ["the batch has two records of this id that differ"]
        if found:
            reasons.setdefault(name, "; ".join(found))
    return _refused(names, reasons, INVALID) if reasons else None


def build_conflict(record_ids: Sequence[str], known: Sequence[str]) -> JSONObject:
    """The answer to a batch of which the log has `known` with another content: 409, and nothing of it was taken."""
    return _refused(record_ids, dict.fromkeys(known, "the log has a record of this id with another content"), CONFLICT)


def _refused(names: Sequence[str], reasons: dict[str, str], status: str) -> JSONObject:
    def refusal(name: str) -> dict[str, Any]:
        if name in reasons:
            return {"record_id": name, "status": status, "reason": reasons[name]}
        return {"record_id": name, "status": NOT_TAKEN, "reason": "not taken: another record of the batch was refused"}

    return {"status": status, "record_status_map": {name: refusal(name) for name in names}, "sink_status_aggregate": "failed"}


def _nanoseconds(time_ms: int) -> str:
    return str(time_ms * 1_000_000)
