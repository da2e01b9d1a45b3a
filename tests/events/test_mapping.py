"""Conversions understand a value or leave it alone; a table takes what its rows say and loses nothing."""

import json
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translog.events.jsontext import INTEGER_MAX, JSONObject
from translog.events.mapping import (
    CREATE,
    DELETE,
    OTHER,
    READ,
    UPDATE,
    Convert,
    Row,
    Table,
    activity_of,
    address,
    anything,
    boolean,
    email,
    enum,
    epoch,
    hex_id,
    integer,
    listed,
    pick,
    port,
    put,
    rfc3339,
    string,
    text,
)

from .records import scalars

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=6,
)
CONVERTS: list[Convert] = [
    text,
    string,
    integer,
    boolean,
    anything,
    address,
    port,
    email,
    hex_id(32),
    rfc3339,
    epoch(1),
    epoch(1000),
    epoch(1e-6),
    enum({"a": 1, True: 2, 3: 4}),
    listed(string),
]
digits = st.text("-0123456789.eE+ ", max_size=24) | st.sampled_from(["--5", "-", "²", "٣", "1_000", "1e999", "0x1"])


@given(json_values | digits)
def test_no_conversion_fails_on_any_value(value: Any) -> None:
    for convert in CONVERTS:
        found = convert(value)
        if type(found) is int:
            assert abs(found) <= INTEGER_MAX or convert is anything


# --- times ------------------------------------------------------------------------------------------------------------------

moments = st.datetimes(datetime(1601, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
zones = st.integers(-23 * 60 - 59, 23 * 60 + 59)


@given(moments, zones, st.integers(0, 9), st.sampled_from("Tt "), st.booleans())
def test_times_are_read_as_datetime_reads_them(moment: datetime, minutes: int, places: int, letter: str, colon: bool) -> None:
    zone = timezone(timedelta(minutes=minutes))
    try:
        local = moment.astimezone(zone)
    except OverflowError:
        local, zone = moment, UTC
    fraction = f".{local.microsecond:06d}000"[: places + 1] if places else ""
    offset = local.strftime("%z")
    if colon:
        offset = f"{offset[:3]}:{offset[3:]}"
    spelled = f"{local:%Y-%m-%d}{letter}{local:%H:%M:%S}{fraction}{offset}".rjust(10, "0")
    spelled = spelled if spelled[4] == "-" else f"{local.year:04d}{spelled[spelled.index('-') :]}"
    kept = local.replace(microsecond=int(f"{fraction[1:4]:0<3}" or 0) * 1000)
    assert rfc3339(spelled) == (kept - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("spelled", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00", 0),
        ("1970-01-01 00:00:00.001 UTC", 1),
        ("1970-01-01T00:00:00,5z", 500),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1601-01-01T00:00:00Z", -11_644_473_600_000),
        ("9999-12-31T23:59:59.999999999Z", 253_402_300_799_999),
        ("0001-01-01T00:00:00+23:59", -62_135_596_800_000 - 86_340_000),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ("2016-12-31T23:59:60.25Z", 1_483_228_799_250),
        ("2024-02-29T12:00:00-00:00", 1_709_208_000_000),
        ("2024-02-29T12:00:00+05:30", 1_709_188_200_000),
        ("2024-02-29T12:00:00+0530", 1_709_188_200_000),
        ("2024-02-29T12:00:00.123456789012Z", 1_709_208_000_123),
    ],
)
def test_times(spelled: str, milliseconds: int) -> None:
    assert rfc3339(spelled) == milliseconds


@pytest.mark.parametrize(
    "spelled",
    [
        "",
        "2024-02-30T12:00:00Z",
        "2023-02-29T12:00:00Z",
        "0000-01-01T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T12:60:00Z",
        "2024-01-01T12:00:61Z",
        "2024-01-01T12:00:00.Z",
        "2024-01-01T12:00:00+24:00",
        "2024-01-01T12:00:00+05:60",
        "2024-01-01T12:00:00+5",
        "2024-01-01T12:00:00ZZ",
        "2024-01-01T12:00:00\nZ",
        "2024-01-01T12:00:00Z\n",
        "2024-01-01T12:00Z",
        "2024-01-01",
        "12024-01-01T12:00:00Z",
        "２０２４-01-01T12:00:00Z",
        "2024-01-01T12:00:00." + "0" * 60 + "Z",
        "1700000000000",
        1_700_000_000_000,
        None,
    ],
)
def test_what_is_no_time_is_left_alone(spelled: Any) -> None:
    assert rfc3339(spelled) is None


@pytest.mark.parametrize(
    ("unit", "value", "milliseconds"),
    [
        (1, 1_700_000_000_123, 1_700_000_000_123),
        (1, "1700000000123", 1_700_000_000_123),
        (1, 1621305118553.0, 1_621_305_118_553),
        (1000, 1_700_000_000, 1_700_000_000_000),
        (1000, 1_700_000_000.123, 1_700_000_000_123),
        (1000, "1700000000.123", 1_700_000_000_123),
        (1e-3, 1_700_000_000_123_456, 1_700_000_000_123),
        (1e-6, "1700000000123456789", 1_700_000_000_123),
        (1e-6, 999_999, 0),
        (1e-6, -1, -1),
        (1000, -1, -1000),
        (1, True, None),
        (1, "", None),
        (1, "1e3", None),
        (1, "--1", None),
        (1, "1" * 21, None),
        (1000, 10**13, None),
        (1000, 1e300, None),
        (1, "99999999999999999999", None),
        (1, [1], None),
    ],
)
def test_epochs(unit: float, value: Any, milliseconds: int | None) -> None:
    assert epoch(unit)(value) == milliseconds


@given(st.integers(0, 2**64 // 1_000_000 - 1), st.integers(0, 999_999))
def test_nanoseconds_and_their_digits_are_the_same_milliseconds(milliseconds: int, rest: int) -> None:
    nanoseconds = milliseconds * 1_000_000 + rest
    assert epoch(1e-6)(nanoseconds) == epoch(1e-6)(str(nanoseconds)) == milliseconds


# --- other conversions ------------------------------------------------------------------------------------------------------


@given(
    st.ip_addresses().map(str) | st.text("0123456789.", max_size=16) | st.text("0123456789abcdef:.%", max_size=42) | st.text()
)
def test_addresses_are_those_that_python_reads(value: str) -> None:
    try:
        ip_address(value)
    except ValueError:
        known = False
    else:
        known = len(value) <= 40
    assert address(value) == (value if known else None)


@pytest.mark.parametrize(
    "value",
    [
        "0000:0000:0000:0000:0000:ffff:192.168.100.228",
        "01.2.3.4",
        "1.2.3",
        "1.2.3.256",
        "1.2.3.4:80",
        "[::1]",
        "1.2.3.4 ",
        "1.2.3.4\n",
        "",
        1,
        None,
    ],
)
def test_what_is_no_address_is_left_alone(value: Any) -> None:
    assert address(value) is None


@pytest.mark.parametrize(
    ("convert", "value", "found"),
    [
        (text, "", None),
        (text, 0, "0"),
        (text, 1.5, "1.5"),
        (text, True, None),
        (text, {}, None),
        (string, "a", "a"),
        (string, 1, None),
        (integer, "-12", -12),
        (integer, "--5", None),
        (integer, "²", None),
        (integer, 1.0, None),
        (integer, True, None),
        (integer, str(INTEGER_MAX), INTEGER_MAX),
        (integer, str(INTEGER_MAX + 1), None),
        (integer, -INTEGER_MAX - 1, None),
        (boolean, "true", True),
        (boolean, False, False),
        (boolean, 1, None),
        (boolean, "yes", None),
        (port, "443", 443),
        (port, 65_536, None),
        (port, -1, None),
        (email, "a.b+c@corp.example", "a.b+c@corp.example"),
        (email, "alice", None),
        (email, "a@b", None),
        (email, "a @corp.example", None),
        (hex_id(16), "00F067AA0BA902B7", "00f067aa0ba902b7"),
        (hex_id(16), "0" * 16, None),
        (hex_id(16), "g" * 16, None),
        (hex_id(16), "０" * 16, None),
        (enum({"Yes": True, 2: "two", True: "true"}), "YES", True),
        (enum({"Yes": True, 2: "two", True: "true"}), 2, "two"),
        (enum({"Yes": True, 2: "two", True: "true"}), True, "true"),
        (enum({1: "one"}), True, None),
        (enum({1: "one"}), [1], None),
        (listed(string), ["a", "b"], ["a", "b"]),
        (listed(string), ["a", 1], None),
        (listed(string), [], None),
        (listed(string), "ab", None),
    ],
)
def test_conversions(convert: Convert, value: Any, found: Any) -> None:
    assert convert(value) == found
    assert type(convert(value)) is type(found)


@pytest.mark.parametrize(
    ("operation", "activity"),
    [
        ("CreateUser", CREATE),
        ("PutObject", CREATE),
        ("AddUserToGroup", CREATE),
        ("repo.create", CREATE),
        ("GetObject", READ),
        ("listBuckets", READ),
        ("BatchGetItem", READ),
        ("DescribeInstances", READ),
        ("k8s/pods:get", READ),
        ("watch", READ),
        ("GETObject", READ),
        ("UpdateFunctionCode", UPDATE),
        ("patch", UPDATE),
        ("AttachUserPolicy", UPDATE),
        ("DeleteBucket", DELETE),
        ("deletecollection", DELETE),
        ("TerminateInstances", DELETE),
        ("org.remove_member", DELETE),
        ("AssumeRole", OTHER),
        ("getter", OTHER),
        ("", OTHER),
        ("x" * 10_000, OTHER),
    ],
)
def test_an_operation_names_its_activity_by_its_first_verb(operation: str, activity: int) -> None:
    assert activity_of(operation) == activity


# --- tables -----------------------------------------------------------------------------------------------------------------

TABLE = Table(
    (
        Row("a", "x.a"),
        Row("b.c", "x.c", integer),
        Row("b.d", "x.same"),
        Row("e", "x.same", string),
        Row("b.f\\.g", "y"),
        Row("e", "z", boolean),
        Row("l", "l", listed(string)),
    ),
    taken=("code", "b.code"),
)


@pytest.mark.parametrize(
    ("record", "event", "rest"),
    [
        ({}, {}, {}),
        ({"a": "1"}, {"x": {"a": "1"}}, {}),
        ({"a": None, "b": None, "e": None, "more": None}, {}, {"more": None}),
        ({"a": {"deep": 1}}, {}, {"a": {"deep": 1}}),
        ({"b": {"c": "7", "other": 1}}, {"x": {"c": 7}}, {"b": {"other": 1}}),
        ({"b": {"c": "seven"}}, {}, {"b": {"c": "seven"}}),
        ({"b": "not an object"}, {}, {"b": "not an object"}),
        ({"b": []}, {}, {"b": []}),
        ({"b": {}}, {}, {}),
        ({"e": "late", "b": {"d": "early"}}, {"x": {"same": "early"}}, {"e": "late"}),
        ({"b": {"d": "early"}, "e": "late"}, {"x": {"same": "early"}}, {"e": "late"}),
        ({"e": "late", "b": {"d": {}}}, {"x": {"same": "late"}}, {"b": {"d": {}}}),
        ({"e": "true", "b": {"d": "early"}}, {"x": {"same": "early"}, "z": True}, {}),
        ({"e": 1}, {}, {"e": 1}),
        ({"b": {"f.g": "dot", "f": {"g": 1}}}, {"y": "dot"}, {"b": {"f": {"g": 1}}}),
        ({"code": {"x": 1}, "b": {"code": 2, "d": "d"}}, {"x": {"same": "d"}}, {}),
        ({"l": ["a", 1]}, {}, {"l": ["a", 1]}),
    ],
)
def test_a_table_fills_the_event_and_returns_what_is_left(record: JSONObject, event: JSONObject, rest: JSONObject) -> None:
    before = json.dumps(record)
    filled: JSONObject = {}
    assert TABLE.apply(record, filled) == rest
    assert filled == event
    assert json.dumps(record) == before


def test_a_target_that_is_there_already_is_kept() -> None:
    event: JSONObject = {"x": {"a": "ours"}}
    assert TABLE.apply({"a": "theirs"}, event) == {"a": "theirs"}
    assert event == {"x": {"a": "ours"}}


names = st.sampled_from(["a", "b", "c", "d", "e", "f.g", "l", "more"])
records = st.recursive(
    st.integers(0, 9) | st.text("ab1", max_size=2) | st.lists(st.text("a", max_size=1), max_size=2),
    lambda below: st.dictionaries(names, below, max_size=5),
    max_leaves=12,
).filter(lambda value: isinstance(value, dict))


@given(records)
def test_a_table_loses_nothing(record: JSONObject) -> None:
    event: JSONObject = {}
    rest = TABLE.apply(record, event)
    there = {str(value).lower() for value in (*scalars(event), *scalars(rest))}
    assert {str(value) for value in scalars(record)} <= there


def test_pick_and_put() -> None:
    assert pick({"a": {"b": 1}}, "a", "b") == 1
    assert pick({"a": []}, "a", "b") is None
    assert pick(None, "a") is None
    event: JSONObject = {}
    nothing: list[Any] = [None, "", [], {}]
    for value in nothing:
        put(event, "a.b", value)
    assert event == {}
    put(event, "a.b", 0)
    put(event, "a.b", 1)
    assert event == {"a": {"b": 0}}
