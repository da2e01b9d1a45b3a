"""The tables of the model are OCSF's, attribute by attribute; what is missing is named, and what joins events is found."""

import json
import subprocess
import sys
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ocsf_json_schema import get_ocsf_schema  # type: ignore[import-untyped]
from pydantic import BaseModel

from translog.events import schema
from translog.events.jsontext import JSONObject
from translog.events.model import (
    BASE_REQUIRES,
    CLASSES,
    FIELD_ORDER,
    MISSING_MAX,
    OBJECT_REQUIRES,
    OBSERVABLE_CHARS_MAX,
    OBSERVABLES_MAX,
    OBSERVED,
    OCSF_VERSION,
    PROFILE_REQUIRES,
    find_missing,
    find_observables,
)

OCSF: JSONObject = get_ocsf_schema(OCSF_VERSION)
OCSF_CLASSES: dict[int, JSONObject] = {kind["uid"]: kind for kind in OCSF["classes"].values()}
NOT_IN_CLASSES = {"fed"}
MADE_HERE = {"observables"}
"""An object that normalize makes whole, so nobody needs to look for what it lacks."""


def required(attributes: JSONObject, *, with_profile: bool = False) -> set[str]:
    return {
        name
        for name, attribute in attributes.items()
        if attribute["requirement"] == "required" and bool(attribute.get("profiles")) is with_profile
    }


def one_of(thing: JSONObject) -> set[str]:
    constraints = thing.get("constraints") or {}
    assert set(constraints) <= {"at_least_one", "just_one"}
    return {name for names in constraints.values() for name in names}


# --- the tables -------------------------------------------------------------------------------------------------------------


def test_the_classes_are_those_of_ocsf() -> None:
    assert len(CLASSES) == 11
    for uid, ours in CLASSES.items():
        theirs = OCSF_CLASSES[uid]
        assert theirs["name"] == ours.name
        assert theirs["category_uid"] == ours.category_uid == uid // 1000
        assert required(theirs["attributes"]) == {*BASE_REQUIRES, *ours.requires}
        assert one_of(theirs) == set(ours.one_of)
        gated = required(theirs["attributes"], with_profile=True)
        assert {(profile, name) for name in gated for profile in theirs["attributes"][name]["profiles"]} == set(
            PROFILE_REQUIRES.items()
        )


def test_the_fields_are_the_attributes_of_the_classes_and_one_extension() -> None:
    assert len(set(FIELD_ORDER)) == len(FIELD_ORDER)
    assert set(FIELD_ORDER) - NOT_IN_CLASSES == {name for uid in CLASSES for name in OCSF_CLASSES[uid]["attributes"]}
    assert FIELD_ORDER[0] == "metadata"
    assert FIELD_ORDER[-1] == "fed"


def test_the_objects_are_those_that_the_classes_can_hold() -> None:
    kinds: dict[str, str] = {}

    def visit(attributes: JSONObject) -> None:
        for name, attribute in attributes.items():
            kind = attribute.get("object_type")
            if kind is not None:
                known = name in kinds
                assert kinds.setdefault(name, kind) == kind
                if not known:
                    visit(OCSF["objects"][kind]["attributes"])

    for uid in CLASSES:
        visit(OCSF_CLASSES[uid]["attributes"])
    shapeless = {name for name, kind in kinds.items() if kind == "object"}
    assert set(OBJECT_REQUIRES) == set(kinds) - shapeless - MADE_HERE
    for name, needs in OBJECT_REQUIRES.items():
        theirs = OCSF["objects"][kinds[name]]
        assert set(needs.names) == required(theirs["attributes"]), name
        assert set(needs.one_of) == one_of(theirs), name
        assert not required(theirs["attributes"], with_profile=True), name


def attributes_at(path: str) -> tuple[JSONObject, bool]:
    """The attribute at a path of any of our classes, and whether the path says rightly which are lists."""
    for uid in CLASSES:
        attributes = OCSF_CLASSES[uid]["attributes"]
        lists_right = True
        attribute: JSONObject | None = None
        for part in path.split("."):
            attribute = attributes.get(part.removesuffix("[]")) if attributes is not None else None
            if attribute is None:
                break
            lists_right &= bool(attribute.get("is_array")) is part.endswith("[]")
            kind = attribute.get("object_type")
            attributes = OCSF["objects"][kind]["attributes"] if kind else None
        if attribute is not None:
            return attribute, lists_right
    raise AssertionError(f"no such attribute: {path}")


def test_observables_are_of_attributes_that_there_are_and_of_their_kind() -> None:
    type_ids = {int(type_id) for type_id in OCSF["objects"]["observable"]["attributes"]["type_id"]["enum"]}
    by_type = {"ip_t": 2, "hostname_t": 1, "mac_t": 3, "username_t": 4, "email_t": 5, "url_t": 6, "resource_uid_t": 10}
    for path, type_id in OBSERVED.items():
        assert type_id in type_ids
        if path.startswith("fed."):
            continue
        attribute, lists_right = attributes_at(path)
        assert lists_right, path
        if attribute["type"] in by_type:
            assert type_id == by_type[attribute["type"]], path


def models() -> list[type[BaseModel]]:
    return [kind for kind in vars(schema).values() if isinstance(kind, type) and issubclass(kind, schema._Object)]


def test_the_documented_model_names_attributes_of_ocsf() -> None:
    extension = {schema.Fed, schema.Why, schema.Identity, schema.MappingName}

    def visit(kind: type[BaseModel], attributes: JSONObject) -> None:
        for name, field in kind.model_fields.items():
            if name == "fed":
                continue
            assert name in attributes, f"{kind.__name__}.{name}"
            inner = [arg for arg in _types(field.annotation) if isinstance(arg, type) and issubclass(arg, BaseModel)]
            object_type = attributes[name].get("object_type")
            assert bool(inner) is (object_type not in (None, "object")), f"{kind.__name__}.{name}"
            for below in inner:
                visit(below, OCSF["objects"][object_type]["attributes"])

    everything = {name: a for uid in CLASSES for name, a in OCSF_CLASSES[uid]["attributes"].items()}
    visit(schema.AuditEvent, everything)
    assert set(schema.AuditEvent.model_fields) <= set(FIELD_ORDER)
    assert extension < set(models())
    for kind in models():
        assert kind is schema._Object or (kind.__doc__ and kind.model_json_schema()["description"])


def _types(annotation: Any) -> list[Any]:
    args = get_args(annotation)
    return [found for arg in args for found in _types(arg)] if args else [annotation]


def test_the_tables_need_nothing_but_the_standard_library() -> None:
    script = "import sys, translog.events.model, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"pydantic", "jsonschema", "ocsf_json_schema", "cryptography"}


# --- what is missing --------------------------------------------------------------------------------------------------------

WHOLE: JSONObject = {
    "metadata": {"version": "1.8.0", "product": {"name": "p"}},
    "class_uid": 6003,
    "category_uid": 6,
    "activity_id": 1,
    "type_uid": 600301,
    "severity_id": 0,
    "time": 0,
    "actor": {"user": {"name": "a"}},
    "api": {"operation": "o"},
    "src_endpoint": {"ip": "1.2.3.4"},
}


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, []),
        ({"time": ...}, ["time"]),
        ({"actor": ..., "src_endpoint": ..., "api": ...}, ["actor", "api", "src_endpoint"]),
        ({"actor": {}}, ["actor.user"]),
        ({"actor": {"user": {}}}, ["actor.user.name"]),
        ({"src_endpoint": {"port": 1}}, ["src_endpoint.ip"]),
        ({"src_endpoint": {"svc_name": "a"}}, []),
        ({"api": {"request": {"data": 1}}}, ["api.operation", "api.request.uid"]),
        ({"resources": [{"name": "a"}, {"type": "b"}, {}, "c"]}, ["resources[].name"]),
        ({"trace": {"span": {"uid": "a"}}}, ["trace.uid", "trace.span.start_time", "trace.span.end_time"]),
        ({"metadata": {"version": "1", "product": {}, "profiles": ["cloud"]}}, ["metadata.product.name", "cloud"]),
        ({"metadata": {"version": "1", "product": {"uid": "a"}, "profiles": ["cloud"]}, "cloud": {}}, ["cloud.provider"]),
        ({"metadata": {"version": "1", "product": {"uid": "a"}, "profiles": ["osint"]}}, ["osint"]),
        ({"cloud": {"region": "r"}}, ["cloud.provider"]),
        ({"class_uid": 3002, "user": {"uid": "a"}}, ["service"]),
        ({"class_uid": 3002, "user": {"uid": "a"}, "dst_endpoint": {"ip": "1.2.3.4"}}, []),
        ({"class_uid": 3005}, ["user", "privileges"]),
        ({"class_uid": 1007}, ["device", "process"]),
        ({"class_uid": 4001}, []),
        ({"class_uid": True}, []),
        ({"class_uid": ...}, ["class_uid"]),
        ({"unmapped": {"actor": {}, "user": {}}, "api": {"operation": "o", "request": {"uid": "1", "data": {"user": {}}}}}, []),
        ({"metadata": "no object", "actor": 5}, []),
        ({"ai_model": {}}, ["ai_model.name", "ai_model.ai_provider"]),
    ],
)
def test_missing_values_are_named(change: JSONObject, missing: list[str]) -> None:
    event = {name: value for name, value in {**WHOLE, **change}.items() if value is not ...}
    assert find_missing(event) == missing


def test_nothing_is_everything_missing() -> None:
    assert find_missing({}) == list(BASE_REQUIRES)


# --- observables ------------------------------------------------------------------------------------------------------------


def test_observables_are_named_typed_and_once() -> None:
    event = {
        "metadata": {"correlation_uid": "req-1", "uid": "not this"},
        "actor": {
            "user": {"uid": "u1", "name": "alice", "groups": [{"name": "g"}, {"name": "g"}, {"uid": "2"}]},
            "invoked_by": "",
        },
        "resources": [{"uid": "arn:1", "owner": {"account": {"uid": "9"}}}, {"uid": "arn:1"}, {"name": "n"}, "x"],
        "src_endpoint": {"ip": "1.2.3.4", "intermediate_ips": ["5.6.7.8", 9, "1.1.1.1"], "port": 1},
        "process": {"pid": 7},
        "fed": {"on_behalf_of": [{"name": "bob"}], "why": {"ticket": "CHG-1", "policy": {"uid": "p"}}},
        "unmapped": {"user": {"uid": "not this"}},
    }
    assert [(found["name"], found["type_id"], found["value"]) for found in find_observables(event)] == [
        ("metadata.correlation_uid", 99, "req-1"),
        ("actor.user.uid", 31, "u1"),
        ("actor.user.name", 4, "alice"),
        ("actor.user.groups[].name", 32, "g"),
        ("actor.user.groups[].uid", 33, "2"),
        ("resources[].uid", 10, "arn:1"),
        ("resources[].owner.account.uid", 35, "9"),
        ("resources[].name", 38, "n"),
        ("src_endpoint.ip", 2, "1.2.3.4"),
        ("src_endpoint.intermediate_ips[]", 2, "5.6.7.8"),
        ("src_endpoint.intermediate_ips[]", 2, "9"),
        ("src_endpoint.intermediate_ips[]", 2, "1.1.1.1"),
        ("process.pid", 15, "7"),
        ("fed.on_behalf_of[].name", 4, "bob"),
        ("fed.why.ticket", 99, "CHG-1"),
        ("fed.why.policy.uid", 99, "p"),
    ]


def test_what_we_add_is_bounded() -> None:
    long = "x" * OBSERVABLE_CHARS_MAX
    event = {
        "actor": {"user": {"name": long, "uid": long + "x"}},
        "resources": [{"uid": str(i)} for i in range(2 * OBSERVABLES_MAX)],
    }
    found = find_observables(event)
    assert len(found) == OBSERVABLES_MAX
    assert found[0]["value"] == long
    many: JSONObject = {}
    for name in OBJECT_REQUIRES:
        many[name] = {inner: {} for inner in OBJECT_REQUIRES}
    assert len(find_missing(many)) == MISSING_MAX


attribute_names = st.sampled_from([*FIELD_ORDER, *OBJECT_REQUIRES, "name", "uid", "profiles", "ip", "data"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("cloud"),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(attribute_names, below, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(attribute_names, anything, max_size=8))
def test_no_event_makes_them_fail(event: JSONObject) -> None:
    before = json.dumps(event)
    missing, observables = find_missing(event), find_observables(event)
    assert json.dumps(event) == before
    assert len(set(missing)) == len(missing)
    assert all(type(found["value"]) is str and found["name"] in OBSERVED for found in observables)
