"""One spelling per value: what Python's own functions would take, and these must not."""

import base64
import itertools
import re
import string
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translog.core.wire import SIZE_MAX, clip, decode_base64, decode_text, encode_base64, parse_decimal, split_lines
from translog.errors import MalformedError

T = TypeVar("T")


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("7", 7), ("10", 10), ("9223372036854775807", SIZE_MAX)])
def test_decimals(text: str, value: int) -> None:
    assert parse_decimal(text) == value


INT_TAKES = ["+5", " 5", "5 ", "5\n", "\t5", "1_000", "007", "00", "-0", "-1", "\u0661\u0662", "\uff15", "\u00a05", "5\u2003"]


@pytest.mark.parametrize("text", INT_TAKES)
def test_a_number_that_int_would_take_is_refused(text: str) -> None:
    int(text)
    with pytest.raises(MalformedError, match="not a plain decimal number"):
        parse_decimal(text)


@pytest.mark.parametrize("text", ["", "\u00b2", "1e3", "0x1", "1.0", "five", "5\0", "\ud800", "9" * 20, "1" + "0" * 10_000])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_decimal(text)


def test_a_number_above_its_maximum_is_refused() -> None:
    assert parse_decimal("255", maximum=255) == 255
    for text, maximum in (("256", 255), ("1", 0), (str(SIZE_MAX + 1), SIZE_MAX), ("9999999999999999999", SIZE_MAX)):
        with pytest.raises(MalformedError, match="out of range"):
            parse_decimal(text, maximum=maximum)


def test_every_string_of_up_to_three_characters_that_is_taken_formats_back() -> None:
    for length in range(4):
        for letters in itertools.product("0123+-_ \n\u0661", repeat=length):
            text = "".join(letters)
            try:
                assert str(parse_decimal(text)) == text
            except MalformedError:
                assert not (text.isascii() and text.isdigit() and (text == "0" or text[0] != "0"))


@given(st.integers(min_value=0, max_value=SIZE_MAX))
def test_every_number_round_trips(value: int) -> None:
    assert parse_decimal(str(value)) == value


B64_TAKES = ["YW!!Jj", "YWJj\n", "YW Jj", "Y-WJj", "YWJjYQ===", "YWI=YWJj"]
VALIDATE_TAKES = ["YWJ=", "YR==", "AB==", "//9="]


@pytest.mark.parametrize("text", B64_TAKES)
def test_base64_that_b64decode_would_take_is_refused(text: str) -> None:
    base64.b64decode(text)
    with pytest.raises(MalformedError):
        decode_base64(text)


@pytest.mark.parametrize("text", VALIDATE_TAKES)
def test_base64_with_spare_bits_set_is_refused_though_it_validates(text: str) -> None:
    base64.b64decode(text, validate=True)
    with pytest.raises(MalformedError, match="not canonical"):
        decode_base64(text)


@pytest.mark.parametrize(
    "text", ["Y", "YQ", "YQ=", "YWI", "=", "====", "YQ==\n", "-_-_", "YW\u2028J", "\uff39\uff31==", "\ud800", "é"]
)
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        decode_base64(text)


def test_base64_of_another_size_is_refused() -> None:
    assert decode_base64("YWI=", size=2) == b"ab"
    assert decode_base64("") == decode_base64("", size=0) == b""
    for size in (0, 1, 3):
        with pytest.raises(MalformedError, match="got 2"):
            decode_base64("YWI=", size=size)


@pytest.mark.parametrize("good", ["", "YQ==", "YWI=", "YWJj", "+/+/AA=="])
def test_a_changed_base64_is_refused_or_formats_back(good: str) -> None:
    changed = [good[i:j] for i, j in itertools.combinations(range(len(good) + 1), 2)]
    changed += [good[:at] + chr(value) + good[at + 1 :] for at in range(len(good)) for value in range(300)]
    changed += [good[:at] + char + good[at:] for at in range(len(good) + 1) for char in string.printable]
    for text in changed:
        try:
            assert encode_base64(decode_base64(text)) == text
        except MalformedError:
            continue


def outcome(decode: Callable[[T], object], value: T) -> object:
    """What it returns, or what it says in refusing."""
    try:
        return decode(value)
    except MalformedError as error:
        return error.detail


def decode_base64_plainly(text: str) -> bytes:
    """The definition: what validates, and encodes back to the very same text."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise MalformedError(f"not base64: {clip(text)}") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise MalformedError(f"not canonical base64: {clip(text)}")
    return data


HASHES = [base64.b64encode(bytes((at * step) % 256 for at in range(32))).decode() for step in (0, 1, 7, 255)]


@pytest.mark.parametrize("good", [*HASHES, "", "YQ==", "YWI=", "YWJj", "+/+/AA=="])
def test_base64_is_taken_and_refused_as_its_definition_says_after_every_small_change(good: str) -> None:
    changed = [good[i:j] for i, j in itertools.combinations(range(len(good) + 1), 2)]
    changed += [good[:at] + chr(value) + good[at + 1 :] for at in range(len(good)) for value in (*range(300), 0xD800, 0x2028)]
    changed += [good[:at] + chr(value) + good[at:] for at in range(len(good) + 1) for value in range(128)]
    changed += [good + tail for tail in ("=", "==", "===", "A", "AA==", "\n", "\0")]
    for text in changed:
        assert outcome(decode_base64, text) == outcome(decode_base64_plainly, text)


@given(st.binary())
def test_base64_round_trips(data: bytes) -> None:
    assert decode_base64(encode_base64(data), size=len(data)) == data


def test_lines_end_in_a_newline_and_nowhere_else() -> None:
    assert split_lines("a\nb\n") == ["a", "b"]
    assert split_lines("\n") == [""]
    assert split_lines("a\n\n") == ["a", ""]
    odd = "a\u2028b\u0085c\x0bd\x0ce\x1cf\rg"
    assert len(odd.splitlines()) == 7
    assert split_lines(odd + "\n") == [odd]
    for text in ("", "a", "a\nb", "a\n\u2028", "a\r"):
        with pytest.raises(MalformedError):
            split_lines(text)


def test_text_is_utf8_without_control_characters() -> None:
    for value in range(0x20):
        data = b"a" + bytes([value]) + b"b"
        if value == 0x0A:
            assert decode_text(data, what="it") == "a\nb"
        else:
            with pytest.raises(MalformedError, match="it contains a control character"):
                decode_text(data, what="it")
    good = "\x7f\x80\u2014 \U0010ffff"
    assert decode_text(good.encode(), what="it") == good


def decode_text_plainly(data: bytes) -> str:
    """The definition."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"it is not UTF-8 at byte {error.start}") from None
    if re.search(rb"[\x00-\x09\x0b-\x1f]", data):
        raise MalformedError("it contains a control character other than newline")
    return text


def test_text_is_taken_and_refused_as_its_definition_says_after_every_change_of_one_or_two_bytes() -> None:
    good = "a\n\n\u2014 \x7f\u0085\U0010ffff\n".encode()
    changed = [good[:at] + bytes([value]) + good[at + 1 :] for at in range(len(good)) for value in range(256)]
    changed += [bytes(pair) for pair in itertools.product(range(256), repeat=2)]
    for data in (good, b"", *changed):
        assert outcome(partial(decode_text, what="it"), data) == outcome(decode_text_plainly, data)


@pytest.mark.parametrize("data", [b"\xff", b"a\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x80"])
def test_text_that_is_not_utf8_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="it is not UTF-8 at byte"):
        decode_text(data, what="it")


def test_clipped_text_is_short_and_quoted() -> None:
    assert clip("a\n\u2028") == r"'a\n\u2028'"
    assert clip("a" * 60) == repr("a" * 60)
    assert clip("a" * 61) == repr("a" * 57 + "...")
