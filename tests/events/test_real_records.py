"""Every real record there is: it is mapped, what it lacks is named and is all that strict validation has against it, its bytes
are in the event, and nothing that it says is lost."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from translog.events.jsontext import JSONObject, Slice, parse_record
from translog.events.mapping import Source, rfc3339
from translog.events.normalize import normalize, raw_record
from translog.events.strict import find_problems

from .mutants import require_sound
from .records import DATA_SETS, RECORDS_MAX, Stated, delivery_files, lost, scalars, slices_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=DATA_SETS, ids="-".join)
def records(request: pytest.FixtureRequest, shared: Path) -> tuple[Source, list[Slice]]:
    return slices_of(shared, *request.param)


def test_what_is_missing_is_all_that_is_wrong(records: tuple[Source, list[Slice]]) -> None:
    source, slices = records
    assert slices
    for record in slices:
        found = normalize(source, record)
        require_sound(source, found)
        missing = {re.sub(r"\[\d+\]", "[]", problem.path) for problem in find_problems(found.event)}
        assert missing == set(found.event["fed"].get("missing", []))


def test_every_record_of_the_exercise_is_whole(shared: Path) -> None:
    source, slices = slices_of(shared, "cloudtrail", "exercise")
    assert len(slices) == 2900
    for record in slices:
        found = normalize(source, record)
        assert found.error == ""
        assert "missing" not in found.event["fed"]
        assert found.uid == record.value["eventID"]


def test_the_bytes_are_those_of_the_files(shared: Path) -> None:
    source, _ = slices_of(shared, "cloudtrail", "exercise")
    for body in delivery_files(shared):
        at = 0
        slices = source.split(body, {}, RECORDS_MAX)
        assert [record.value for record in slices] == json.loads(body)["Records"]
        for record in slices:
            at = body.index(record.raw, at) + len(record.raw)
            assert raw_record(normalize(source, record).event) == (record.raw, {})


# --- nothing is lost --------------------------------------------------------------------------------------------------------


def is_time(value: Any, event: JSONObject) -> bool:
    return rfc3339(value) in scalars(event)


def is_verb(value: Any, event: JSONObject) -> bool:
    return bool(event["api"]["operation"].partition("/")[0] == value)


def is_subresource(value: Any, event: JSONObject) -> bool:
    return bool(event["resources"][0].get("type", "").partition("/")[2] == value)


def is_kind(value: Any, event: JSONObject) -> bool:
    return bool(value == "Event" and event["metadata"]["product"]["name"] == "Kubernetes")


def is_action(value: Any, event: JSONObject) -> bool:
    return bool(event["api"]["operation"].partition(".")[2] == value)


def is_resource(value: Any, event: JSONObject) -> bool:
    return bool(event["resources"][0].get("type", "").partition("/")[0] == value)


def is_decision(value: Any, event: JSONObject) -> bool:
    return bool({"allow": "allowed", "forbid": "denied"}[value] == event["fed"]["why"]["decision"])


def is_within(value: Any, event: JSONObject) -> bool:
    return not list(lost(parse_record(value.encode()).value, event, KUBERNETES_STATED))


def is_bot(value: Any, event: JSONObject) -> bool:
    return bool(event["actor"]["user"]["type_id"] == (4 if value else 1))


def is_milliseconds(value: Any, event: JSONObject) -> bool:
    return bool(event["time"] == int(value))


KUBERNETES_STATED: Stated = {
    "kind": is_kind,
    "verb": is_verb,
    "stageTimestamp": is_time,
    "requestReceivedTimestamp": is_time,
    "objectRef.resource": is_resource,
    "objectRef.subresource": is_subresource,
    "annotations.authorization.k8s.io/decision": is_decision,
    "properties.log": is_within,
}
STATED: dict[str, Stated] = {
    "cloudtrail": {"userIdentity.sessionContext.attributes.creationDate": is_time},
    "kubernetes": KUBERNETES_STATED,
    "github": {"action": is_action, "actor_is_bot": is_bot, "created_at": is_milliseconds, "@timestamp": is_milliseconds},
}
"""How values that are not in the event as they are, or only as part of another, are in it."""


def test_nothing_of_a_record_is_lost(records: tuple[Source, list[Slice]]) -> None:
    source, slices = records
    mapped = 0
    for record in slices:
        found = normalize(source, record)
        if not found.error:
            mapped += 1
            assert list(lost(record.value, found.event, STATED[source.name])) == []
    assert mapped > len(slices) * 0.8


def test_a_loss_would_be_seen() -> None:
    event: JSONObject = {"unmapped": {"a": "1", "c": True}, "raw_data": '{"b":"2"}', "observables": [{"value": "2"}]}
    assert list(lost({"a": 1, "b": ["2"], "c": "true", "d": None}, event, {})) == ["b"]


def test_the_table_in_the_specifications_is_current(shared: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "sources", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
