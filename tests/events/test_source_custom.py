"""Sources that a member describes in a file."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.mutants import RECORDS_MAX, TEXTS, mutated, take
from translog.errors import SettingsError
from translog.events import strict
from translog.events.mapping import Source
from translog.events.sources.custom import CONVERTS, FILE_BYTES_MAX, ROWS_MAX, TARGETS, load_custom

FILE = r"""
name = "payroll"
version = "3"
split = "list"
list = "records"
id = "entry.id"
rows = [
  ["user.login", "actor.user.name"],
  ["user.mail", "actor.user.email_addr", "email"],
  ["client", "src_endpoint.ip", "address"],
  ["employee", "resources.uid"],
  ["employee_type", "resources.type", "string"],
  ["why", "fed.why.reason"],
  ["cloud\\.region", "cloud.region"],
  ["trace", "trace.uid", "trace_id"],
  ["span", "trace.span.uid", "span_id"],
  ["level", "severity_id", "severity"],
  ["before", "api.request.data", "json"],
]
[product]
name = "Payroll"
vendor_name = "Acme"
[time]
path = "at"
format = "%d/%m/%Y %H:%M:%S %z"
[operation]
path = "verb"
activity = { "salary.*" = "update", "*.gone" = "delete", "*secret*" = "read", "exact" = "create" }
[outcome]
path = "result"
success = ["ok", "true"]
failure = ["failed", "7"]
[decision]
path = "gate"
allowed = ["open"]
denied = ["shut"]
"""
RECORD: dict[str, Any] = {
    "entry": {"id": 17},
    "user": {"login": "alice", "mail": "alice@corp.example", "age": 44},
    "client": "10.0.0.1",
    "employee": "E-1",
    "employee_type": "person",
    "why": "CHG-1",
    "cloud.region": "eu",
    "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
    "span": "00f067aa0ba902b7",
    "level": "critical",
    "before": {"salary": 1},
    "at": "02/01/2026 04:04:05 +0100",
    "verb": "salary.raised",
    "result": "failed",
    "gate": "shut",
    "colour": "red",
}
SOURCE = load_custom(FILE.encode())


def minimal(more: str = "", rows: str = '[["a", "message"]]') -> bytes:
    return f'name = "x"\nversion = "1"\nrows = {rows}\n{more}'.encode()


def event_of(source: Source, *records: Any) -> dict[str, Any]:
    (normalized,) = take(source, b"".join(json.dumps(record).encode() for record in records))
    return normalized.event


def test_a_record_is_mapped_as_the_file_says() -> None:
    (normalized,) = take(SOURCE, json.dumps({"records": [RECORD], "next": 1}).encode())
    event = normalized.event
    assert event["metadata"] == {
        "uid": "17",
        "product": {"name": "Payroll", "vendor_name": "Acme"},
        "original_time": "02/01/2026 04:04:05 +0100",
        "profiles": ["cloud", "trace"],
        "version": "1.8.0",
    }
    assert (event["class_uid"], event["activity_id"], event["severity_id"]) == (6003, 3, 5)
    assert (event["time"], event["status_id"]) == (1767323045000, 2)
    assert event["actor"] == {
        "user": {"name": "alice", "email_addr": "alice@corp.example"},
        "authorizations": [{"decision": "denied"}],
    }
    assert event["api"] == {"operation": "salary.raised", "request": {"data": {"salary": 1}}}
    assert event["resources"] == [{"uid": "E-1", "type": "person"}]
    assert event["src_endpoint"] == {"ip": "10.0.0.1"}
    assert event["cloud"] == {"region": "eu"}
    assert event["trace"]["span"]["start_time"] == event["time"]
    assert event["fed"]["why"] == {"reason": "CHG-1", "decision": "denied"}
    assert event["fed"]["mapping"] == {"name": "payroll", "version": "3", "sha256": hashlib.sha256(FILE.encode()).hexdigest()}
    assert event["unmapped"] == {"user": {"age": 44}, "colour": "red"}


def test_a_text_of_any_kind_is_a_string_and_any_value_is_json() -> None:
    rows = """[["a", "message", "email"], ["b", "src_endpoint.name", "address"], ["c", "api.request.data", "integer"],
        ["d", "api.response.data"]]"""
    event = event_of(load_custom(minimal(rows=rows)), {"a": "a@example.org", "b": "::1", "c": "7", "d": "x"})
    assert (event["message"], event["src_endpoint"]) == ("a@example.org", {"name": "::1"})
    assert event["api"] == {"request": {"data": 7}, "response": {"data": "x"}}


@pytest.mark.parametrize(
    ("verb", "activity"),
    [("salary.x", 3), ("salary", 99), ("user.gone", 4), ("a.secret.b", 2), ("exact", 1), ("exactly", 99), ("user.delete", 4)],
)
def test_operations_go_by_their_words_and_otherwise_by_their_verb(verb: str, activity: int) -> None:
    assert event_of(SOURCE, RECORD | {"verb": verb})["activity_id"] == activity


@pytest.mark.parametrize(("result", "status"), [("OK", 1), (True, 1), (7, 2), ("Failed", 2), ("perhaps", None), (False, None)])
def test_outcomes_go_by_their_words(result: Any, status: int | None) -> None:
    event = event_of(SOURCE, RECORD | {"result": result})
    assert event.get("status_id") == status
    assert ("result" in event["unmapped"]) is (status is None)


@pytest.mark.parametrize(
    ("pattern", "value", "time"),
    [
        ("rfc3339", "2026-01-02T03:04:05Z", 1767323045000),
        ("epoch_s", 1767323045.5, 1767323045500),
        ("epoch_ms", "1767323045500", 1767323045500),
        ("epoch_us", 1767323045500000, 1767323045500),
        ("epoch_ns", "1767323045500000000", 1767323045500),
        ("%Y-%m-%d %H:%M:%S.%f", "2026-01-02 03:04:05.500999", 1767323045500),
        ("%d %b %Y %I%p %%", "02 Jan 2026 03AM %", 1767322800000),
        ("%Y%j", "2026002", 1767312000000),
        ("%Y", "9999 ", None),
        ("%Y", 2026, None),
        ("%d/%m/%Y", "31/02/2026", None),
        ("%Y %z", "0001 +2359", -62135683140000),
        ("%Y", "2026" + " " * 80, None),
    ],
)
def test_times_are_read_as_the_file_says(pattern: str, value: Any, time: int | None) -> None:
    event = event_of(load_custom(minimal(f'[time]\npath = "t"\nformat = "{pattern}"\n')), {"a": "x", "t": value})
    assert event.get("time") == time
    if time is not None:
        assert "t" not in event.get("unmapped", {})


def test_bodies_are_split_as_the_file_says() -> None:
    lines, stream = load_custom(minimal('split = "lines"')), load_custom(minimal())
    assert [record.error[:8] for record in lines.split(b'{"a":1}\n{no\n', {}, RECORDS_MAX)] == ["", "not JSON"]
    assert len(stream.split(b'{"a":1}[{"a":2},{"a":3}]', {}, RECORDS_MAX)) == 3
    assert len(SOURCE.split(b'{"records":[{},{}]}', {}, RECORDS_MAX)) == 2


def test_a_record_of_which_nothing_is_understood_is_a_base_event() -> None:
    assert "understands nothing" in event_of(load_custom(minimal()), {"b": 1})["fed"]["error"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "name"),
        (b"name = ", "not TOML"),
        (b"\xff", "not TOML"),
        (b"a = " + b"[" * 20_000, "not TOML"),
        (minimal("colour = 1"), "colour"),
        (minimal("list = 'x'"), "list"),
        (minimal("split = 'list'"), "list"),
        (minimal("split = 'regex'"), "split"),
        (minimal("id = 7"), "id"),
        (minimal("id = 'a..b'"), "id"),
        (minimal("id = 'a.a.a.a.a.a.a.a.a'"), "id"),
        (minimal(f"id = '{'a' * 201}'"), "id"),
        (minimal('[time]\npath = "t"\nformat = "noon"'), "time.format"),
        (minimal('[time]\npath = "t"\nformat = "%G"'), "%G"),
        (minimal('[time]\npath = "t"\nformat = "%Y %"'), "time.format"),
        (minimal('[time]\npath = "t"\nformat = "%Y %Y"'), "time.format"),
        (minimal('[time]\nformat = "rfc3339"'), "time.path"),
        (minimal('[operation]\npath = "v"\nactivity = { "a*b" = "read" }'), "a*b"),
        (minimal('[operation]\npath = "v"\nactivity = { "*" = "read" }'), "operation.activity"),
        (minimal('[operation]\npath = "v"\nactivity = { "a" = "eat" }'), "operation.activity"),
        (minimal('[outcome]\npath = "v"\nsuccess = [1]'), "outcome.success"),
        (minimal('[decision]\npath = "v"\nmaybe = ["x"]'), "decision.maybe"),
        (minimal('[product]\nname = ""'), "product.name"),
        (b'name = "UPPER"\nversion = "1"\nrows = []', "name"),
        (b'name = "x"\nversion = ""\nrows = []', "version"),
        (b'name = "x"\nversion = 1\nrows = []', "version"),
        (minimal(rows='[["a"]]'), "row 1"),
        (minimal(rows='[["a", "message"], ["b", "colour"]]'), "row 2: 'colour' is no target"),
        (minimal(rows='[["a", "raw_data"]]'), "no target"),
        (minimal(rows='[["a", "fed.identity.sub"]]'), "no target"),
        (minimal(rows='[["a", "class_uid", "integer"]]'), "no target"),
        (minimal(rows='[["a", "actor.user"]]'), "no target"),
        (minimal(rows='[["", "message"]]'), "row 1"),
        (minimal(rows='[["a", "message", "eval"]]'), "'eval' is none of"),
        (minimal(rows='[["a", "src_endpoint.ip"]]'), "src_endpoint.ip is ip, and text makes string"),
        (minimal(rows='[["a", "message", "integer"]]'), "message is string"),
        (minimal(rows="[" + ",".join(['["a", "message"]'] * (ROWS_MAX + 1)) + "]"), "rows"),
        (minimal("#" * FILE_BYTES_MAX), "bytes"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_the_name_of_its_key(data: bytes, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_custom(data)
    assert said in caught.value.detail


def test_every_target_is_an_attribute_of_its_type() -> None:
    schema = strict._schemas().get_class_schema("api_activity", ["cloud", "trace"])
    names = {
        **dict.fromkeys(("integer", "port", "severity", "time", "user_type"), "integer"),
        **dict.fromkeys(("string", "ip", "email", "method", "trace_id", "span_id"), "string"),
        "boolean": "boolean",
    }
    checked = 0
    for target, kind in TARGETS.items():
        if target.startswith("fed."):
            continue
        field = {"properties": schema["properties"]}
        for name in target.split("."):
            field = field["properties"][name]
            field = field.get("items", field)
            if "$ref" in field:
                field = schema["$defs"][field["$ref"].rpartition("/")[2]]
        assert kind == "json" or field["type"] == names[kind], target
        checked += 1
    assert checked > 80
    assert set(TARGETS.values()) <= {kind for kind, _ in CONVERTS.values()}


def test_the_example_of_the_documentation_is_a_good_file() -> None:
    documented = Path(load_custom.__code__.co_filename).read_text("utf-8")
    example = documented.partition('"""')[2].partition("Rules:")[0].partition("\n\n")[2]
    source = load_custom(example.encode())
    event = event_of(source, {"user": {"login": "a"}, "at": 1, "verb": "salary.x", "result": "ok", "entry": {"id": "7"}})
    assert (event["activity_id"], event["status_id"], event["time"], event["metadata"]["uid"]) == (3, 1, 1000, "7")


@given(mutated(RECORD))
def test_a_record_with_anything_in_it_is_logged(record: dict[str, Any]) -> None:
    take(SOURCE, json.dumps([record]).encode())


@given(st.sampled_from(FILE.splitlines()), TEXTS)
def test_a_file_with_anything_in_it_is_loaded_or_refused(line: str, other: str) -> None:
    for changed in (FILE.replace(line, other), FILE.replace(line, line + other), FILE.replace(line, other + line)):
        try:
            source = load_custom(changed.encode())
        except SettingsError:
            continue
        take(source, json.dumps({"records": [RECORD]}).encode())
