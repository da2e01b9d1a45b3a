"""The draft audit signal: what its sink checks, the hash, and its answers."""

import copy
import hashlib
import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given

from events.mutants import RECORDS_MAX, mutated, take
from events.test_source_otlp import AS_JSON, AS_PROTOBUF, AUDITED, attribute, to_protobuf, wrapped
from translog.events.jsontext import Slice
from translog.events.sources.audit import (
    AUDIT,
    CONFLICT,
    DELIVERED,
    INVALID,
    NOT_TAKEN,
    Stored,
    build_conflict,
    build_invalid,
    build_receipt,
    build_success,
    find_problems,
    integrity_hash,
    record_id,
)


def slice_of(record: Any) -> Slice:
    (found,) = AUDIT.split(wrapped(record), AS_JSON, RECORDS_MAX)
    return found


def with_attribute(key: str, value: Any) -> dict[str, Any]:
    """AUDITED with another value of an attribute; None drops it."""
    kept = [pair for pair in AUDITED["attributes"] if pair["key"] != key]
    return AUDITED | {"attributes": kept if value is None else [*kept, attribute(key, value)]}


def test_a_good_record_has_no_problems_and_its_id() -> None:
    assert find_problems(slice_of(AUDITED)) == []
    assert record_id(slice_of(AUDITED)) == "r-1"
    (normalized,) = take(AUDIT, wrapped(AUDITED), AS_JSON)
    assert normalized.uid == "r-1"
    assert normalized.event["fed"]["mapping"]["name"] == "otel-audit"


@pytest.mark.parametrize("name", ["timeUnixNano", "observedTimeUnixNano", "eventName"])
def test_fields_that_must_be_set(name: str) -> None:
    without = {key: value for key, value in AUDITED.items() if key != name}
    for record in (without, AUDITED | {name: "" if name == "eventName" else "0"}):
        (problem,) = find_problems(slice_of(record))
        assert name in problem


@pytest.mark.parametrize("key", ["audit.record.id", "audit.actor.id", "audit.actor.type", "audit.action", "audit.outcome"])
@pytest.mark.parametrize("value", [None, "", 7])
def test_attributes_that_must_be_set(key: str, value: Any) -> None:
    record = slice_of(with_attribute(key, value))
    (problem,) = find_problems(record)
    assert key in problem
    assert record_id(record) == (None if key == "audit.record.id" else "r-1")


@pytest.mark.parametrize(("key", "value"), [("audit.actor.type", "robot"), ("audit.outcome", "SUCCESS")])
def test_attributes_of_other_words(key: str, value: str) -> None:
    (problem,) = find_problems(slice_of(with_attribute(key, value)))
    assert key in problem


def test_a_record_that_does_not_decode_has_that_as_its_problem() -> None:
    record = slice_of({"timeUnixNano": "x"})
    assert find_problems(record) == [record.error]
    assert record_id(record) is None


def test_the_hash_is_that_of_the_normal_form_in_either_encoding() -> None:
    document = json.loads(wrapped(AUDITED))
    (in_json,) = AUDIT.split(json.dumps(document, indent=2).encode(), AS_JSON, RECORDS_MAX)
    (in_protobuf,) = AUDIT.split(to_protobuf(document).SerializeToString(), AS_PROTOBUF, RECORDS_MAX)
    expected = hashlib.sha256(rfc8785.dumps(AUDITED)).hexdigest()
    assert integrity_hash(in_json) == integrity_hash(in_protobuf) == expected
    assert integrity_hash(slice_of(AUDITED | {"unknown": 1, "droppedAttributesCount": 0})) == expected
    assert integrity_hash(slice_of(AUDITED | {"flags": 2})) != expected
    reordered = AUDITED | {"attributes": AUDITED["attributes"][::-1]}
    assert integrity_hash(slice_of(reordered)) != expected


def test_what_is_hashed_is_spelled_as_the_draft_asks() -> None:
    record = slice_of(
        {"timeUnixNano": "1714041600000000001", "body": {"doubleValue": 5}, "attributes": [attribute("n", 2**53 + 1)]}
    )
    text = (
        '{"attributes":[{"key":"n","value":{"intValue":"9007199254740993"}}],"body":{"doubleValue":5},'
        '"timeUnixNano":"1714041600000000001"}'
    )
    assert integrity_hash(record) == hashlib.sha256(text.encode()).hexdigest()


STORED = Stored(record_id="r-1", integrity_hash="ab" * 32, received_at_ms=1700000000123, receipt={"index": 7})


def test_a_receipt_has_what_the_draft_wants_and_the_proof() -> None:
    assert build_receipt(STORED) == {
        "RecordId": "r-1",
        "IntegrityHash": "ab" * 32,
        "SinkTimestamp": "1700000000123000000",
        "translog": {"index": 7},
    }


def test_the_answer_to_a_batch_that_was_taken() -> None:
    answer = build_success([STORED], sink="log.example/x")
    assert answer["status"] == DELIVERED
    assert answer["record_status_map"] == {
        "r-1": {
            "record_id": "r-1",
            "status": DELIVERED,
            "integrity_hash": "ab" * 32,
            "sink_timestamp": "1700000000123000000",
            "verify_status": "deferred",
            "sink_status_map": {"log.example/x": {"sink_type": "translog", "delivery_status": "success"}},
            "receipt": build_receipt(STORED),
        }
    }


def test_a_batch_is_refused_whole_and_every_record_is_told_why() -> None:
    good, bad = slice_of(AUDITED), slice_of(with_attribute("audit.outcome", None))
    nameless = slice_of({})
    other = slice_of(with_attribute("audit.record.id", "r-2"))
    assert build_invalid([good, other, good]) is None
    answer = build_invalid([other, bad, nameless])
    assert answer is not None
    assert answer["status"] == INVALID
    statuses = {name: said["status"] for name, said in answer["record_status_map"].items()}
    assert statuses == {"r-2": NOT_TAKEN, "r-1": INVALID, "#2": INVALID}
    assert "audit.outcome" in answer["record_status_map"]["r-1"]["reason"]


def test_a_batch_in_which_one_id_means_two_records_is_refused() -> None:
    answer = build_invalid([slice_of(AUDITED), slice_of(AUDITED | {"flags": 9})])
    assert answer is not None
    assert "differ" in answer["record_status_map"]["r-1"]["reason"]


def test_a_conflict_names_the_records_that_are_known_with_another_content() -> None:
    answer = build_conflict(["a", "b"], ["b"])
    assert answer["status"] == CONFLICT
    assert {name: said["status"] for name, said in answer["record_status_map"].items()} == {"a": NOT_TAKEN, "b": CONFLICT}


@given(mutated(AUDITED))
def test_of_any_record_there_are_problems_or_a_hash(record: dict[str, Any]) -> None:
    found = slice_of(record)
    before = copy.deepcopy(found.value)
    problems = find_problems(found)
    if not found.error:
        assert len(integrity_hash(found)) == 64
    assert problems or record_id(found)
    assert found.value == before
