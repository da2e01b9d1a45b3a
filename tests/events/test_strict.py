"""Strict validation says what OCSF has against an event, and where; of what is missing, in the words of `fed.missing`."""

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translog.events.jsontext import JSONObject
from translog.events.model import CLASSES, find_missing
from translog.events.strict import Problem, find_problems

from .test_model import WHOLE


def changed(event: JSONObject, path: str, value: Any) -> JSONObject:
    """A copy with another value at a path; without it, if the value is `...`."""
    name, _, rest = path.partition(".")
    copy = dict(event)
    if rest:
        copy[name] = changed(copy.get(name, {}), rest, value)
    elif value is ...:
        del copy[name]
    else:
        copy[name] = value
    return copy


def test_a_whole_event_has_no_problems_and_fed_is_not_looked_at() -> None:
    assert find_problems(WHOLE) == []
    assert find_problems({**WHOLE, "fed": {"anything": [1]}}) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("time", ..., Problem("time", "required and not there", missing=True)),
        ("actor", {}, Problem("actor.user", "has none of process, user, invoked_by, session, app_name, app_uid", missing=True)),
        ("api.operation", ..., Problem("api.operation", "required and not there", missing=True)),
        ("resources", [{"name": "a"}, {"type": "b"}], Problem("resources[1].name", "has none of name, uid", missing=True)),
        ("time", "now", Problem("time", "'now' is not of type 'integer'")),
        ("api.operation", 1, Problem("api.operation", "1 is not of type 'string'")),
        ("activity_id", 7, Problem("activity_id", "7 is not one of [3, 0, 1, 2, 99, 4]")),
        ("fed2", 1, Problem("fed2", "no such attribute")),
        ("actor.user.nickname", "a", Problem("actor.user.nickname", "no such attribute")),
        ("trace", {"uid": "1"}, Problem("trace", "no such attribute")),
        ("class_uid", 1, Problem("class_uid", "1 is none of the classes of events")),
        ("class_uid", True, Problem("class_uid", "True is none of the classes of events")),
        ("class_uid", ..., Problem("class_uid", "None is none of the classes of events")),
    ],
)
def test_each_problem_is_named_with_its_place(path: str, value: Any, problem: Problem) -> None:
    assert find_problems(changed(WHOLE, path, value)) == [problem]


def test_profiles_open_and_demand_attributes() -> None:
    traced = changed(WHOLE, "trace", {"uid": "1"})
    assert find_problems(changed(traced, "metadata.profiles", ["trace"])) == []
    clouded = changed(WHOLE, "metadata.profiles", ["cloud", "trace", "cloud"])
    assert find_problems(clouded) == [Problem("cloud", "required and not there", missing=True)]
    assert find_problems(changed(clouded, "cloud", {"provider": "p"})) == []
    assert [found.path for found in find_problems(changed(WHOLE, "metadata.profiles", "cloud"))] == ["metadata.profiles"]


def test_exactly_one_of_two() -> None:
    session = {**WHOLE, "class_uid": 3003, "category_uid": 3, "type_uid": 300301, "user": {"name": "a"}}
    session = {name: value for name, value in session.items() if name not in ("api",)}
    assert [(found.path, found.missing) for found in find_problems(session)] == [("privileges", True)]
    both = {**session, "privileges": ["p"], "group": {"name": "g"}}
    assert find_problems(both) == [Problem("", "has more than one of privileges, group")]


@pytest.mark.parametrize("class_uid", CLASSES)
def test_an_empty_event_lacks_the_same_to_both(class_uid: int) -> None:
    event = {"class_uid": class_uid}
    assert {found.path for found in find_problems(event) if found.missing} == set(find_missing(event))


paths = st.sampled_from(
    ["time", "actor", "actor.user", "actor.user.name", "api", "api.operation", "src_endpoint", "metadata", "metadata.product"]
)
class_uids = st.sampled_from(sorted(CLASSES))
profiles = st.lists(st.sampled_from(["cloud", "host", "osint", "trace"]), max_size=3, unique=True)


@settings(max_examples=50)
@given(class_uids, st.lists(paths, max_size=4), profiles)
def test_missing_is_what_strict_validation_misses(class_uid: int, gone: list[str], named: list[str]) -> None:
    event = {**changed(WHOLE, "metadata.profiles", named), "class_uid": class_uid}
    for path in gone:
        above, _, name = path.rpartition(".")
        place: Any = event
        for part in filter(None, above.split(".")):
            place = place.get(part, {})
        if name in place:
            event = changed(event, path, ...)
    problems = find_problems(event)
    strangers = tuple(f"{found.path}." for found in problems if found.what == "no such attribute")
    missing = {path for path in find_missing(event) if not path.startswith(strangers)}
    assert {found.path for found in problems if found.missing} == missing


@pytest.mark.parametrize("absent", ["jsonschema", "ocsf_json_schema"])
def test_without_the_extra_the_error_says_what_to_install(absent: str) -> None:
    script = f"import sys; sys.modules[{absent!r}] = None\nimport translog.events.strict"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("ImportError: strict validation needs the OCSF schemas: pip install 'translog[ocsf]'")
