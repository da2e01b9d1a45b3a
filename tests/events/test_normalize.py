"""A record becomes one event whatever it says: mapped, or a Base Event that says why not; and the original is in it."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translog.events.jsontext import JSONObject, Slice, parse_record
from translog.events.mapping import MappingError, Source
from translog.events.model import FIELD_ORDER
from translog.events.normalize import UID_CHARS_MAX, differences, in_order, normalize, raw_record
from translog.events.strict import find_problems


def _map(record: JSONObject, context: JSONObject) -> JSONObject:
    if "refuse" in record:
        raise MappingError(record["refuse"])
    return json.loads(json.dumps(record))  # type: ignore[no-any-return]


SOURCE = Source(name="test", version="7", split=lambda body, headers, records_max: [parse_record(body)], map=_map)
WHOLE: JSONObject = {
    "time": 0,
    "api": {"operation": "o"},
    "actor": {"user": {"name": "a"}},
    "src_endpoint": {"ip": "1.2.3.4"},
    "metadata": {"product": {"name": "p"}, "uid": "id-1"},
}


def record_of(value: Any) -> Slice:
    return parse_record(json.dumps(value).encode())


def test_an_event_is_completed_in_the_models_order() -> None:
    record = record_of(WHOLE)
    found = normalize(SOURCE, record)
    assert found.uid == "id-1"
    assert found.error == ""
    assert list(found.event) == sorted(found.event, key=FIELD_ORDER.index)
    assert found.event == {
        "metadata": {"product": {"name": "p"}, "uid": "id-1", "version": "1.8.0"},
        "class_uid": 6003,
        "category_uid": 6,
        "activity_id": 0,
        "type_uid": 600300,
        "severity_id": 0,
        "time": 0,
        "actor": {"user": {"name": "a"}},
        "api": {"operation": "o"},
        "src_endpoint": {"ip": "1.2.3.4"},
        "raw_data": json.dumps(WHOLE),
        "raw_data_size": len(json.dumps(WHOLE)),
        "observables": [
            {"name": "actor.user.name", "type_id": 4, "value": "a"},
            {"name": "src_endpoint.ip", "type_id": 2, "value": "1.2.3.4"},
        ],
        "fed": {"mapping": {"name": "test", "version": "7"}},
    }
    assert find_problems(found.event) == []


def test_what_the_mapping_says_of_the_class_counts() -> None:
    found = normalize(SOURCE, record_of({**WHOLE, "class_uid": 3001, "activity_id": 6, "user": {"name": "b"}}))
    assert [found.event[name] for name in ("class_uid", "category_uid", "activity_id", "type_uid")] == [3001, 3, 6, 300106]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b'{"refuse":"why not"}', "why not"),
        (b"[1]", "the record is not a JSON object"),
        (b"null", "the record is not a JSON object"),
        (b'"a"', "the record is not a JSON object"),
        (b'{"a":1,"a":2}', "the name 'a' occurs twice in one object"),
        (b"not json", "not JSON"),
        (b"", "not JSON"),
        (b"\xff\x00", "not UTF-8 at byte 0"),
        (b'"\\ud800"', "half of a surrogate pair"),
        (b"[" * 200 + b"]" * 200, "nested deeper than 100"),
    ],
)
def test_a_record_that_cannot_be_mapped_is_a_base_event_that_says_why(raw: bytes, error: str) -> None:
    found = normalize(SOURCE, parse_record(raw, {"header": "h"}))
    assert found.error == error
    assert found.uid is None
    assert (found.event["class_uid"], found.event["type_uid"]) == (0, 0)
    assert found.event["fed"]["missing"] == ["time"]
    assert raw_record(found.event) == (raw, {"header": "h"})
    assert {problem.path for problem in find_problems(found.event)} == {"time"}


@given(st.binary(max_size=60), st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_the_original_is_in_the_event(raw: bytes, context: JSONObject) -> None:
    found = normalize(SOURCE, parse_record(raw, context))
    assert raw_record(found.event) == (raw, context)
    assert found.event["raw_data_size"] == len(raw)
    assert raw_record(json.loads(json.dumps(found.event))) == (raw, context)


def test_an_id_that_is_too_long_is_none() -> None:
    long = {**WHOLE, "metadata": {"product": {"name": "p"}, "uid": "x" * UID_CHARS_MAX}}
    assert normalize(SOURCE, record_of(long)).uid == "x" * UID_CHARS_MAX
    long["metadata"]["uid"] += "x"
    found = normalize(SOURCE, record_of(long))
    assert found.uid is None
    assert "uid" not in found.event["metadata"]
    assert found.event["unmapped"] == {"metadata.uid": "x" * (UID_CHARS_MAX + 1)}


def test_missing_values_and_a_mapping_of_ones_own_are_named() -> None:
    source = dataclasses.replace(SOURCE, sha256="ab" * 32)
    found = normalize(source, record_of({"time": 1}))
    assert found.event["fed"]["missing"] == ["actor", "api", "src_endpoint", "metadata.product"]
    assert found.event["fed"]["mapping"] == {"name": "test", "version": "7", "sha256": "ab" * 32}


def test_a_field_that_is_none_is_a_defect() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        in_order({"time": 1, "nonsense": 2})


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 1.0}, ["a"]),
        ({"a": 1}, {"a": True}, ["a"]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 2}}, ["a.c", "a.d"]),
        ({"a": [1]}, {"a": [1, 2]}, ["a"]),
        ({"a": 1}, {}, ["a"]),
        ({}, {"a": {"b": 1}}, ["a"]),
        (1, 2, [""]),
    ],
)
def test_differences_are_named_by_path(old: Any, new: Any, paths: list[str]) -> None:
    assert differences(old, new) == paths
