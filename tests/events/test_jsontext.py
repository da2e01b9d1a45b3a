"""Records are cut out of a body byte for byte; what readers would read differently is an error of that record alone."""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translog.errors import MalformedError, TooLargeError, TranslogError
from translog.events.jsontext import (
    DEPTH_MAX,
    INTEGER_MAX,
    ITEMS_MAX,
    Slice,
    compact,
    parse_record,
    split_lines,
    split_list,
    split_nested,
    split_stream,
)

Split = Callable[[bytes], list[Slice]]


def stream(body: bytes) -> list[Slice]:
    return split_stream(body, records_max=100)


def listed(body: bytes) -> list[Slice]:
    return split_list(body, "Records", records_max=100)


def lines(body: bytes) -> list[Slice]:
    return split_lines(body, records_max=100)


def raws(slices: list[Slice]) -> list[bytes]:
    return [part.raw for part in slices]


def values(slices: list[Slice]) -> list[Any]:
    assert [part.error for part in slices] == [""] * len(slices)
    return [part.value for part in slices]


# --- cutting ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b"", []),
        (b" \t\r\n ", []),
        (b"[]", []),
        (b"[ ]\n[]", []),
        (b'{"a":1}', [b'{"a":1}']),
        (b' {"a":1} \n', [b'{"a":1}']),
        (b'{"a":1}{"a":2}', [b'{"a":1}', b'{"a":2}']),
        (b'{"a":1}\r\n\r\n{"a":2}\n', [b'{"a":1}', b'{"a":2}']),
        (b'[{"a":1},{"a":2}]', [b'{"a":1}', b'{"a":2}']),
        (b'[ {"a" : [1, 2]} \n,\t{"a":2}\r\n]', [b'{"a" : [1, 2]}', b'{"a":2}']),
        (b'[{"a":1}]{"a":2}[3]', [b'{"a":1}', b'{"a":2}', b"3"]),
        (b'["]}", "[\\"{", null]', [b'"]}"', b'"[\\"{"', b"null"]),
        (b"[[1,2],[3]]", [b"[1,2]", b"[3]"]),
        (b"1 2 3", [b"1", b"2", b"3"]),
        (b'\xef\xbb\xbf{"a":1}', [b'{"a":1}']),
    ],
)
def test_a_stream_is_cut_into_its_values(body: bytes, records: list[bytes]) -> None:
    slices = stream(body)
    assert raws(slices) == records
    assert values(slices) == [json.loads(raw) for raw in records]


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'{"Records":[]}', []),
        (b'{"Records" : [ {"a":1} , {"a":2} ] , "more":[{"a":3}]}', [b'{"a":1}', b'{"a":2}']),
        (b'{"more":{"Records":[1]},"\\u0052ecords":[{"a":1}]}', [b'{"a":1}']),
        (b'\xef\xbb\xbf{"Records":[{"a":1}]}', [b'{"a":1}']),
        (b'[{"a":1},{"a":2}]', [b'{"a":1}', b'{"a":2}']),
        (b' {"a":1} ', [b'{"a":1}']),
        (b'{"Records":{"a":1}}', [b'{"Records":{"a":1}}']),
        (b'{"Records":null}', [b'{"Records":null}']),
        (b'{"a":1}\n{"a":2}', [b'{"a":1}', b'{"a":2}']),
        (b'{"Records":[1]}{"a":2}', [b'{"Records":[1]}', b'{"a":2}']),
        (b"", []),
    ],
)
def test_a_named_list_is_cut_into_its_elements(body: bytes, records: list[bytes]) -> None:
    slices = listed(body)
    assert raws(slices) == records
    assert values(slices) == [json.loads(raw) for raw in records]


def test_lines_are_records_and_blank_lines_are_none() -> None:
    slices = lines(b'{"a":1}\r\n\n \t\n  {"a":2}\nnot json\n{"a":"\xe2\x80\xa8"}\n\xff')
    assert raws(slices) == [b'{"a":1}', b'{"a":2}', b"not json", b'{"a":"\xe2\x80\xa8"}', b"\xff"]
    assert [part.error for part in slices] == ["", "", "not JSON", "", "not UTF-8 at byte 0"]


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"]",
        b",",
        b"1,2",
        b'"abc',
        b'["abc',
        b'["abc\\',
        b'["\\"]',
        b'{"a":1',
        b'[{"a":1}',
        b'[{"a":[1}',
        b"}",
    ],
)
@pytest.mark.parametrize("split", [stream, listed])
def test_a_body_whose_records_cannot_be_told_apart_is_malformed(split: Split, body: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        split(body)
    assert caught.value.code == "not-json"


@pytest.mark.parametrize(
    "body",
    [
        b'{"Records":[1],"Records":[2]}',
        b'{"Records":[1]',
        b'{"a" 1}',
        b"{a:1}",
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":1,,"b":2}',
        b'{"a',
    ],
)
def test_a_body_around_a_list_is_malformed_where_it_is_no_json(body: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        listed(body)
    assert caught.value.code == "not-json"


@pytest.mark.parametrize(
    "split", [split_stream, split_lines, lambda body, records_max: split_list(body, "a", records_max=records_max)]
)
@pytest.mark.parametrize("separator", [b"\n", b"\n\n"])
def test_more_records_than_allowed_are_refused(split: Callable[..., list[Slice]], separator: bytes) -> None:
    assert len(split(separator.join([b"{}"] * 3), records_max=3)) == 3
    with pytest.raises(TooLargeError) as caught:
        split(separator.join([b"{}"] * 4), records_max=3)
    assert caught.value.code == "too-many-entries"


def test_more_elements_than_allowed_are_refused() -> None:
    assert len(split_list(b'{"a":[1,2,3]}', "a", records_max=3)) == 3
    for body in (b'{"a":[1,2,3,4]}', b"[1,2,3,4]", b"[1,2][3,4]", b"[nul,nul,nul,nul]"):
        with pytest.raises(TooLargeError):
            split_list(body, "a", records_max=3)


def test_nested_lists_are_cut_with_what_is_around_them() -> None:
    inner = b'{"r": {"k":"\xc3\xa9"} ,"b":[{"s":2,"c":[{"i":1}, [2] ,nul]},{"c":[]}]}'
    body = b'{"x":1, "a":[' + inner + b',{"b":null},{"b":[{"c":[3],"t":[]}]}]}'
    found = split_nested(body, ("a", "b", "c"), records_max=10)
    assert [part.raw for part, _ in found] == [b'{"i":1}', b"[2]", b"nul", b"3"]
    assert [part.error for part, _ in found] == ["", "", "not JSON", ""]
    first = [{"x": b"1"}, {"r": b'{"k":"\xc3\xa9"}'}, {"s": b"2"}]
    assert [around for _, around in found] == [first, first, first, [{"x": b"1"}, {}, {"t": b"[]"}]]
    assert split_nested(b"{}", ("a",), records_max=1) == split_nested(b' {"a":null} ', ("a",), records_max=1) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"a":[{"b":[1]}]',
        b'{"a":[{"b":[1]}]} x',
        b'{"a":[{"b":[1]},]}',
        b'{"a":{"b":[1]}}',
        b'{"a":[[1]]}',
        b'{"a":[1]}',
        b'{"a":[{"b":1}]}',
        b'{"a":nullx}',
        b'{"a":"null"}',
        b'{"a":[],"a":[]}',
        b'{"a":[{"x":1,"\\u0078":2}]}',
        b'{"a":[{"b":["unfinished]}]}',
    ],
)
def test_nested_lists_of_another_shape_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        split_nested(body, ("a", "b"), records_max=10)
    assert caught.value.code == "not-json"


def test_more_nested_elements_than_allowed_are_refused() -> None:
    with pytest.raises(TooLargeError):
        split_nested(b'{"a":[{"b":[1,2]},{"b":[3,4]}]}', ("a", "b"), records_max=3)


# --- parsing ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b'{"a":1,"a":2}', "the name 'a' occurs twice in one object"),
        (b'{"x":{"a":1,"\\u0061":2}}', "the name 'a' occurs twice in one object"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"a":Infinity}', "Infinity is not JSON"),
        (b'{"a":"\\ud800"}', "half of a surrogate pair"),
        (b'{"\\udc00":1}', "half of a surrogate pair"),
        (b'{"a":"\\udc00\\ud800"}', "half of a surrogate pair"),
        (b'{"a":"\x01"}', "not JSON: invalid control character at"),
        (b'{"a":"\t"}', "not JSON: invalid control character at"),
        (b'{"a":"\\x"}', "not JSON: invalid \\escape"),
        (b'{"a":"\\u12"}', "not JSON: invalid \\uxxxx escape"),
        (b'{"a":1,}', "not JSON: expecting property name enclosed in double quotes"),
        (b"{'a':1}", "not JSON: expecting property name enclosed in double quotes"),
        (b'{"a" 1}', "not JSON: expecting ':' delimiter"),
        (b'{"a":01}', "not JSON: expecting ',' delimiter"),
        (b'{"a":.5}', "not JSON"),
        (b'{"a":+1}', "not JSON"),
        (b'{"a":\xff}', "not UTF-8 at byte 5"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xc0\xaf"}', "not UTF-8 at byte 6"),
        (b"nul", "not JSON"),
    ],
)
def test_an_error_is_of_its_record_alone(raw: bytes, error: str) -> None:
    for slices in (stream(b'[{"before":1},' + raw + b',{"after":1}]'), lines(b'{"before":1}\n' + raw + b'\n{"after":1}')):
        assert raws(slices) == [b'{"before":1}', raw, b'{"after":1}']
        assert [part.error.startswith(error) for part in slices] == [False, True, False]
        assert [part.value for part in slices] == [{"before": 1}, None, {"after": 1}]
    alone = parse_record(raw, {"header": "x"})
    assert alone.raw == raw
    assert alone.error.startswith(error)
    assert alone.value is None
    assert alone.context == {"header": "x"}


def test_other_encodings_are_not_read() -> None:
    assert parse_record('{"a":1}'.encode("utf-16")).error == "not UTF-8 at byte 0"
    assert parse_record('{"a":1}'.encode("utf-16-le")).error.startswith("not JSON")
    assert parse_record(b'\xef\xbb\xbf{"a":1}').value == {"a": 1}
    assert parse_record(b'\xef\xbb\xbf\xef\xbb\xbf{"a":1}').error == "not JSON"


def test_after_an_error_the_others_are_parsed_as_before() -> None:
    good = [b'{"a":[1,{"b":"]"}]}', b'"x"', b"1.50", b"null", b'{"\xc3\xa9":1}']
    slices = stream(b"[nul," + b", ".join(good) + b"]")
    assert raws(slices) == [b"nul", *good]
    assert [part.value for part in slices[1:]] == [json.loads(raw) for raw in good]
    assert [part.error for part in slices] == ["not JSON", *[""] * len(good)]


def test_one_record_that_is_not_utf8_spoils_no_other() -> None:
    slices = listed(b'{"Records":[{"a":"\xc3\xa9"},{"a":"\xe9"},{"\xe9":1,"a":2,"a":3},{"a":"\xf0\x9f\x98\x80"}]}')
    assert raws(slices) == [b'{"a":"\xc3\xa9"}', b'{"a":"\xe9"}', b'{"\xe9":1,"a":2,"a":3}', b'{"a":"\xf0\x9f\x98\x80"}']
    assert [part.value for part in slices] == [{"a": "é"}, None, None, {"a": "😀"}]
    assert slices[1].error == "not UTF-8 at byte 6"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9007199254740991", INTEGER_MAX),
        ("-9007199254740991", -INTEGER_MAX),
        ("9007199254740992", "9007199254740992"),
        ("-9007199254740992", "-9007199254740992"),
        ("12345678901234567", "12345678901234567"),
        ("1" * 5000, "1" * 5000),
        ("1e400", "1e400"),
        ("-1E+400", "-1E+400"),
        ("1e-400", "1e-400"),
        ("-0.000001e-400", "-0.000001e-400"),
        ("0.000e5", 0.0),
        ("0e400", 0.0),
        ("1.0", 1.0),
        ("1e2", 100.0),
        ("0", 0),
        ('"\\ud83d\\ude00"', "😀"),
        ('"\\\\ud800"', "\\ud800"),
        ('"\\u0000"', "\0"),
        ('"\ufeff"', "\ufeff"),
    ],
)
def test_values_keep_what_they_say(text: str, value: Any) -> None:
    part = parse_record(f'{{"a":{text}}}'.encode())
    assert part.error == ""
    assert type(part.value["a"]) is type(value)
    assert part.value == {"a": value}


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"[":', "}]")])
def test_nesting_is_bounded(opening: str, closing: str) -> None:
    deepest = DEPTH_MAX // (2 if "{" in opening and opening[0] == "[" else 1)
    for depth, error in ((deepest, ""), (deepest + 1, "nested deeper than 100"), (10_000, "nested deeper than 100")):
        raw = (opening * depth + "1" + closing * depth).encode()
        assert parse_record(raw).error == error
        slices = stream(b'[{"[{":1},' + raw + b",2]")
        assert raws(slices) == [b'{"[{":1}', raw, b"2"]
        assert [part.error for part in slices] == ["", error, ""]


def test_brackets_in_strings_do_not_nest() -> None:
    raw = compact({"a": "[{" * 1000, '"]': ["\\", '\\"[' * 1000]}).encode()
    assert parse_record(raw).error == ""
    assert raws(stream(b"[" + raw + b"," + raw + b"]")) == [raw, raw]


@pytest.mark.parametrize("item", ["[]", "{}", "1", '"[,{"', "[1,2]"])
@pytest.mark.parametrize("opening", ["[", '{"a":[', '{"b":"\\\\","a":["\\"",'])
def test_items_are_bounded(opening: str, item: str) -> None:
    """Brackets and commas in strings are none; the record is kept, and so are those around it."""
    shape = json.loads(f"{opening}1]{'}' if opening[0] == '{' else ''}")
    before = opening.count(",") + opening.count("[") + opening.count("{")
    each = 1 + (item[0] in "[{") + (item == "[1,2]")  # its comma and what is in it
    most = (ITEMS_MAX + 1 - before) // each
    for count, error in ((most, ""), (most + 2, "more than 100000 items")):
        raw = (opening + ",".join([item] * count) + "]" + "}" * (type(shape) is dict)).encode()
        assert parse_record(raw) == Slice(raw, None if error else json.loads(raw), error)
        for slices in (lines(b"1\n" + raw + b"\n2"), stream(b"[1," + raw + b",2]"), listed(b'{"Records":[1,' + raw + b",2]}")):
            assert raws(slices) == [b"1", raw, b"2"]
            assert [part.error for part in slices] == ["", error, ""]


def test_a_body_of_more_members_than_items_is_one_record() -> None:
    members = [f'"{number}":1'.encode() for number in range(ITEMS_MAX)]
    whole = b'{"Records":[1,2],' + b",".join(members[:-1]) + b"}"
    assert raws(listed(whole)) == [b"1", b"2"]
    larger = b'{"Records":[1,2],' + b",".join(members) + b"}"
    assert listed(larger) == [Slice(larger, None, "more than 100000 items")]


@pytest.mark.parametrize("item", [b"12.5e+10", b"-1", b"true", b'{"a":[1,"]"]}', b'"\\"]"', b"\xc3\xa9".join([b'"', b'"'])])
@pytest.mark.parametrize("error", [b"", b"nul,"])
def test_long_bodies_are_cut_as_short_ones_wherever_a_record_lies(item: bytes, error: bytes) -> None:
    count = 5 * ITEMS_MAX // (len(item) + 1)
    for spaces in range(len(item) + 1):
        body = b"[" + b" " * spaces + b",".join([item] * count) + b"," + error + b"0]"
        slices = split_stream(body, records_max=count + 2)
        assert {part.raw for part in slices[:count]} == {item}
        assert len(slices) == count + 1 + bool(error)
        assert [part.error for part in slices if part.error] == ["not JSON"] * bool(error)
        assert slices[0].value == slices[count - 1].value == json.loads(item)


def test_records_longer_than_the_window_are_parsed_whole() -> None:
    long = [b'["%s"]' % (b"x" * size) for size in (4 * ITEMS_MAX - 5, 4 * ITEMS_MAX - 4, 4 * ITEMS_MAX - 3, 9 * ITEMS_MAX)]
    parts = [part for raw in long for part in (raw, b"1", b'{"a":1}')]
    slices = stream(b"[" + b",".join(parts) + b"]")
    assert raws(slices) == parts
    assert values(slices) == [json.loads(raw) for raw in parts]


# --- whatever the input -----------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=12,
).filter(lambda value: _is_utf8(value))
white = st.text(" \t\n\r", max_size=3)


def _is_utf8(value: Any) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in json.dumps(value, ensure_ascii=False))


@given(st.lists(st.tuples(json_values, white, white, st.booleans()), max_size=6), st.booleans())
def test_slices_are_the_elements_as_json_reads_them(items: list[tuple[Any, str, str, bool]], wrapped: bool) -> None:
    texts = [json.dumps(value, ensure_ascii=escaped, indent=1 if before else None) for value, before, _, escaped in items]
    array = "[" + ",".join(f"{before}{text}{after}" for text, (_, before, after, _) in zip(texts, items, strict=True)) + "]"
    body = (f'{{"x":[1,"]"],"Records":{array},"y":{{"Records":[]}}}}' if wrapped else array).encode()
    slices = listed(body)
    assert raws(slices) == [text.encode() for text in texts]
    for part, (value, *_) in zip(slices, items, strict=True):
        assert part.error == ""
        assert part.value == value
        assert compact(part.value) == compact(json.loads(part.raw))


def cut(split: Split, body: bytes) -> list[Slice]:
    """The records, none if the body is refused for one of the two reasons there are."""
    refused = ""
    slices: list[Slice] = []
    try:
        slices = split(body)
    except TranslogError as error:
        refused = error.code
    assert refused in ("", "not-json", "too-many-entries")
    return slices


fragments = st.sampled_from(
    [
        "[",
        "]",
        "{",
        "}",
        '"',
        ",",
        ":",
        "\\",
        "\\u",
        "d800",
        " ",
        "\n",
        "1",
        "-",
        ".",
        "e",
        "nul",
        "null",
        "true",
        "NaN",
        '"a"',
        "\xff",
        "é",
    ]
)


@given(st.lists(fragments, max_size=30).map("".join), st.sampled_from(["utf-8", "latin-1"]))
def test_every_body_is_cut_in_order_or_malformed(text: str, encoding: str) -> None:
    body = text.encode(encoding)
    for split in (stream, listed, lines):
        at = 0
        for part in cut(split, body):
            at = body.index(part.raw, at) + len(part.raw)
            assert (part.value is None) or part.error == ""
            if not part.error:
                assert _same(json.loads(part.raw), part.value)
    assert parse_record(body).raw == body


def _same(read: Any, ours: Any) -> bool:
    """Whether json reads the same, big numbers aside."""
    if isinstance(ours, str) and not isinstance(read, str):
        return type(read) in (int, float)
    if isinstance(read, dict):
        return read.keys() == ours.keys() and all(_same(read[name], ours[name]) for name in read)
    if isinstance(read, list):
        return len(read) == len(ours) and all(map(_same, read, ours))
    return bool(read == ours)


MEGABYTES = 5_000_000
HOSTILE = {
    "open brackets": b"[" * MEGABYTES,
    "open brackets with spaces": b"[ " * (MEGABYTES // 2),
    "objects in objects": b'{"a":' * (MEGABYTES // 5),
    "arrays of strings": b'[""' * (MEGABYTES // 3),
    "brackets and spaces behind": b"[" + b"[]," * DEPTH_MAX + b"[]]" + b" " * MEGABYTES,
    "an open bracket and letters": b"[{" + b"a" * MEGABYTES,
    "brackets within a string": b'"' + b"[{" * (MEGABYTES // 2) + b'"',
    "empty arrays": b'{"a":[' + b"[]," * (MEGABYTES // 3) + b"[]]}",
    "arrays of empty arrays": b'{"a":[' + b"[[]]," * (MEGABYTES // 5) + b"[]]}",
    "commas and half a string": b'["' + b'\\",' * (MEGABYTES // 3),
    "quotes": b'"' * MEGABYTES,
    "escaped quotes": b'["' + b'\\"' * (MEGABYTES // 2),
    "escaped quotes and half an escape": b'["' + b'\\"' * (MEGABYTES // 2) + b"\\",
    "letters": b"a" * MEGABYTES,
    "minus signs": b"-" * MEGABYTES,
    "digits": b"1" * MEGABYTES,
    "newlines": b"\n" * MEGABYTES,
    "errors far into the text": b'["' + b"a" * MEGABYTES + b'"' + b',"\\x"' * 9_000 + b"]",
    "errors between good ones, far into the text": b'["' + b"a" * MEGABYTES + b'"' + b',"\\x",1' * 4_500 + b"]",
    "errors far into a text that is not UTF-8": b'["\xff' + b"a" * MEGABYTES + b'"' + b',"\\x"' * 9_000 + b"]",
    "a name that occurs twice, at the end": b"{" + b"".join(b'"%06d":0,' % i for i in range(MEGABYTES // 11)) + b'"000001":0}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_take_time_in_proportion(name: str) -> None:
    """Against reading the same bytes once in the simplest way; what is quadratic takes thousands of times that."""
    body = HOSTILE[name]
    begin = time.process_time()
    sum(1 for byte in body if byte == 0)
    unit = max(time.process_time() - begin, 0.05)
    for split in (split_stream, split_lines, _split_records):
        begin = time.process_time()
        cut(partial(split, records_max=10_000), body)
        assert time.process_time() - begin < 100 * unit


def _split_records(body: bytes, *, records_max: int) -> list[Slice]:
    return split_list(body, "Records", records_max=records_max)


def test_a_deep_record_is_an_error_also_deep_in_the_stack() -> None:
    def below(frames: int) -> str:
        return below(frames - 1) if frames else parse_record(b"[" * 10_000 + b"]" * 10_000).error

    assert below(sys.getrecursionlimit() // 2) == "nested deeper than 100"
