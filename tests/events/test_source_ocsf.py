"""Records that are OCSF already."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.mutants import JSON_VALUES, RECORDS_MAX, mutated, require_kept, take
from translog.events import strict
from translog.events.jsontext import parse_record
from translog.events.model import CLASSES, FIELD_ORDER, OCSF_VERSION
from translog.events.normalize import normalize
from translog.events.sources.ocsf import FED_TAKEN, FIELD_CHECKS, OCSF, OWN_FIELDS

RECORD: dict[str, Any] = {
    "metadata": {"version": "1.8.0", "uid": "e-1", "product": {"name": "p"}, "profiles": ["trace"]},
    "class_uid": 6003,
    "category_uid": 6,
    "activity_id": 2,
    "type_uid": 600302,
    "severity_id": 1,
    "time": 1_700_000_000_000,
    "message": "read",
    "actor": {"user": {"uid": "u"}},
    "api": {"operation": "GetObject"},
    "src_endpoint": {"ip": "10.0.0.1"},
    "resources": [{"uid": "r"}],
    "status_id": 1,
    "trace": {"uid": "4bf92f3577b34da6a3ce929d0e0e4736"},
    "unmapped": {"own": True},
}


def event_of(**changes: Any) -> dict[str, Any]:
    """The event of RECORD with changes; None drops a field."""
    record = {name: value for name, value in (RECORD | changes).items() if value is not None}
    (normalized,) = take(OCSF, json.dumps(record).encode())
    return normalized.event


def test_a_good_record_is_taken_as_it_is() -> None:
    event = event_of()
    made = {name: value for name, value in event.items() if name not in OWN_FIELDS}
    assert made == RECORD
    assert event["fed"] == {"mapping": {"name": "ocsf", "version": "1"}}
    assert json.loads(event["raw_data"]) == RECORD


def test_every_field_has_the_type_that_ocsf_gives_it() -> None:
    assert FIELD_CHECKS.keys() | OWN_FIELDS == set(FIELD_ORDER)
    assert FIELD_CHECKS.keys() & OWN_FIELDS == set()
    schemas = strict._schemas()
    good = {"integer": 1, "boolean": True, "string": "x", "object": {}}
    seen = set()
    for kind in CLASSES.values():
        for profile in ([], ["cloud", "trace", "host", "osint", "datetime", "security_control"]):
            for name, field in schemas.get_class_schema(kind.name, profile)["properties"].items():
                if name in OWN_FIELDS:
                    continue
                sample: Any = good[field.get("type", "object")] if field.get("type") != "array" else None
                if sample is None:
                    sample = [good[field["items"].get("type", "object")]]
                assert FIELD_CHECKS[name](sample), (kind.name, name, field)
                assert not any(
                    FIELD_CHECKS[name](other) for other in ([None], 1.5, *good.values()) if other != sample and other != 1
                )
                seen.add(name)
    assert len(seen) > 70


@pytest.mark.parametrize("name", [name for name in FIELD_ORDER if name != "class_uid" and name not in OWN_FIELDS])
def test_a_field_of_another_type_goes_to_unmapped(name: str) -> None:
    wrong: Any = 1.5
    event = event_of(**({"trace": None} | {name: wrong}))  # without metadata nothing says that there is a trace
    if name == "unmapped":
        assert event["unmapped"] == {"unmapped": wrong}
    else:
        assert event["unmapped"] == {"own": True, name: wrong}
        assert event.get(name) != wrong


def test_a_field_that_ocsf_does_not_have_goes_to_unmapped() -> None:
    assert event_of(colour="red", nothing={}, tenant=[1])["unmapped"] == {
        "own": True,
        "colour": "red",
        "nothing": {},
        "tenant": [1],
    }


def test_what_the_log_makes_itself_is_not_taken() -> None:
    event = event_of(raw_data="forged", raw_data_size=1, raw_data_hash={"value": "x"}, observables=[{"name": "a"}], own=1)
    assert json.loads(event["raw_data"])["raw_data"] == "forged"
    assert event["raw_data_size"] == len(event["raw_data"])
    assert {"name": "actor.user.uid", "type_id": 31, "value": "u"} in event["observables"]
    forged = {
        "raw_data": "forged",
        "raw_data_size": 1,
        "raw_data_hash": {"value": "x"},
        "observables": [{"name": "a"}],
        "own": 1,
    }
    assert event["unmapped"] == {"unmapped": {"own": True}, **forged}


def test_of_fed_only_what_a_sender_can_know_is_taken() -> None:
    good: dict[str, Any] = {
        "ns": "acme",
        "observer": "gateway",
        "reporter_chain": ["a", "b"],
        "on_behalf_of": [{"name": "bob"}],
        "why": {"reason": "x", "ticket": "T-1", "policy": {"name": "p"}},
        "source_seq": 7,
    }
    forged = {
        "identity": {"sub": "root"},
        "missing": [],
        "error": "no",
        "mapping": {"name": "cloudtrail", "version": "1"},
        "conflicts_with": 1,
        "raw_encoding": "base64",
        "raw_context": {},
        "actor_canonical": "root",
    }
    assert set(good) == set(FED_TAKEN)
    event = event_of(fed=good | forged)
    assert event["fed"] == {**good, "mapping": {"name": "ocsf", "version": "1"}}
    assert event["unmapped"] == {"own": True, "fed": forged}


@pytest.mark.parametrize(
    "fed",
    [
        {"ns": 1},
        {"observer": {}},
        {"reporter_chain": "a"},
        {"reporter_chain": [1]},
        {"on_behalf_of": ["bob"]},
        {"why": "because"},
        {"why": {"reason": 1}},
        {"why": {"policy": "p"}},
        {"why": {"colour": "red"}},
        {"source_seq": -1},
        {"source_seq": True},
        "text",
        [],
    ],
)
def test_what_is_no_fed_goes_to_unmapped(fed: Any) -> None:
    event = event_of(fed=fed)
    assert event["unmapped"] == {"own": True, "fed": fed}
    assert event["fed"] == {"mapping": {"name": "ocsf", "version": "1"}}


@pytest.mark.parametrize(
    ("changes", "made", "refused"),
    [
        ({"category_uid": None, "type_uid": None}, (6, 2, 600302), {}),
        ({"activity_id": None}, (6, 2, 600302), {}),
        ({"activity_id": None, "type_uid": None}, (6, 0, 600300), {}),
        ({"category_uid": 3}, (6, 2, 600302), {"category_uid": 3}),
        ({"type_uid": 300201}, (6, 2, 600302), {"type_uid": 300201}),
        ({"activity_id": 4}, (6, 4, 600304), {"type_uid": 600302}),
        ({"activity_id": 100}, (6, 0, 600300), {"activity_id": 100, "type_uid": 600302}),
    ],
)
def test_class_category_and_type_agree(changes: dict[str, Any], made: tuple[int, int, int], refused: dict[str, Any]) -> None:
    event = event_of(**changes)
    assert (event["category_uid"], event["activity_id"], event["type_uid"]) == made
    assert event["unmapped"] == {"own": True, **refused}


@pytest.mark.parametrize(("class_uid", "category_uid"), [(4001, 4), (201_001, 1), (99_999, 99)])
def test_a_class_that_is_not_known_here_is_kept(class_uid: int, category_uid: int) -> None:
    record = RECORD | {"class_uid": class_uid, "type_uid": class_uid * 100 + 2, "category_uid": category_uid}
    normalized = normalize(OCSF, parse_record(json.dumps(record).encode()))
    require_kept(OCSF, normalized)
    assert {name: value for name, value in normalized.event.items() if name not in OWN_FIELDS} == record


@pytest.mark.parametrize("class_uid", ["6003", None, True, 6003.0, -1, 2**31, [6003]])
def test_a_record_without_a_class_is_a_base_event(class_uid: Any) -> None:
    (normalized,) = take(OCSF, json.dumps(RECORD | {"class_uid": class_uid}).encode())
    assert normalized.event["class_uid"] == 0
    assert "class_uid" in normalized.error


@pytest.mark.parametrize("uid", [7, "", ["x"], None])
def test_an_id_is_a_string(uid: Any) -> None:
    event = event_of(trace=None, metadata={"uid": uid, "product": {"name": "p"}, "version": 8, "profiles": "trace"})
    assert event["metadata"] == {"product": {"name": "p"}, "version": OCSF_VERSION}
    assert event["unmapped"]["metadata"] == {"uid": uid, "version": 8, "profiles": "trace"}


@given(st.dictionaries(st.sampled_from(FIELD_ORDER), JSON_VALUES))
def test_fields_may_hold_anything(changes: dict[str, Any]) -> None:
    for record in OCSF.split(json.dumps(RECORD | changes).encode(), {}, RECORDS_MAX):
        require_kept(OCSF, normalize(OCSF, record))


@given(mutated(RECORD | {"fed": {"why": {"reason": "r"}, "on_behalf_of": [{"name": "b"}]}}))
def test_a_record_with_anything_in_it_is_kept(record: dict[str, Any]) -> None:
    for found in OCSF.split(json.dumps([record]).encode(), {}, RECORDS_MAX):
        require_kept(OCSF, normalize(OCSF, found))
