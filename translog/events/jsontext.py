"""JSON as it was received: records cut out of a body byte for byte, and parsed without a guess.

Rules: a record's bytes are the slice of the body between the characters around it, never re-encoded. Parsing is strict where
readers differ: duplicate names, NaN and its like, lone surrogates, control characters, nesting below DEPTH_MAX and more than
ITEMS_MAX values are errors of that record alone, and its bytes are kept all the same. A number that JSON readers would round
(beyond 2^53-1, 1e400, 1e-400) becomes the string of its digits. Only a body whose records cannot be told apart is malformed.
https://www.rfc-editor.org/rfc/rfc8259, https://www.rfc-editor.org/rfc/rfc7493
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from translog.errors import MalformedError, TooLargeError

DEPTH_MAX = 100
"""Objects and arrays within each other in one record: deeper than what audit logs hold, shallower than any stack."""
ITEMS_MAX = 100_000
"""Objects, arrays and commas outside strings in one record: as many as its values, or more. 30 MB of `[],` parse to 1 GB."""
AROUND_MAX = 100_000
"""Objects and members around the records of one request, besides ten for each record that it may have."""
INTEGER_MAX = 2**53 - 1
_WINDOW_CHARS = 4 * ITEMS_MAX

JSONObject = dict[str, Any]

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_PLAIN = re.compile(r"[^\]}, \t\n\r]*+")
_FLAT = rf'(?:[^"\[\]{{}}]++|{_STRING.pattern})*+'
"""No brackets outside strings."""
_BRACKETS = re.compile(_FLAT + r'([\[{]++|[\]}]++|"|\Z)', re.DOTALL)
"""Up to and with a run of brackets of one direction; or a quote, but only one behind which no string ends; or to the end."""
_OUTER_BRACKETS = re.compile(rf"(?:{_FLAT}[\[{{]{_FLAT}[\]}}])*+" + _BRACKETS.pattern, re.DOTALL)
"""The same, past arrays and objects that hold none."""
_MANY_ITEMS = re.compile(rf'(?:(?:[^"\[{{,]++|{_STRING.pattern})*+[\[{{,]){{{ITEMS_MAX + 1}}}+', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_scan_string: Callable[[str, int], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]


class RecordError(Exception):
    """Why one record does not parse. Never leaves its Slice."""


class Slice(NamedTuple):
    """One record: its bytes as received, and what they say; or `error`, and then `value` is None. `context` is what a source
    needs beside them to understand them: headers of the request, or what several records share."""

    raw: bytes
    value: Any
    error: str
    context: JSONObject = {}  # noqa: RUF012  # never written to


def compact(value: Any) -> str:
    """Compact JSON: no spaces, and only what must be is escaped."""
    return _encode(value)


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False).encode


def parse_record(raw: bytes, context: JSONObject | None = None) -> Slice:
    """A body, or a part of one, that is one record."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Slice(raw, None, f"not UTF-8 at byte {error.start}", context or {})
    return _parse(raw, text)._replace(context=context or {})


def split_lines(body: bytes, *, records_max: int) -> list[Slice]:
    """NDJSON: a record a line; blank lines are none. Raises TooLargeError."""
    slices = []
    for line in body.split(b"\n"):
        raw = line.strip(b" \t\r")
        if raw:
            slices.append(parse_record(raw))
            _require_few(slices, records_max)
    return slices


def split_stream(body: bytes, *, records_max: int) -> list[Slice]:
    """JSON values one behind the other, with or without space between; the elements of an array count as values of their own.

    Raises MalformedError where it cannot be told where a record ends, TooLargeError.
    """
    text, encoding = _text(body)
    slices = _Slices(text)
    at = _begin(text)
    while at < len(text):
        if text[at] == "[":
            at = _array(text, encoding, at, slices, records_max)
        else:
            at = _element(text, encoding, at, slices)
            _require_few(slices, records_max)
        at = _skip(text, at)
    return slices


def split_list(body: bytes, name: str, *, records_max: int) -> list[Slice]:
    """The elements of the array called `name` in the object that is the body; of the body itself, if it is an array; the body,
    if it is an object without that name, or with more than ITEMS_MAX members. Raises MalformedError, TooLargeError."""
    text, encoding = _text(body)
    at = _begin(text)
    if text[at : at + 1] != "{":
        return split_stream(body, records_max=records_max)
    begin = at
    slices = _Slices(text)
    found = False
    members = 0
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}" and members <= ITEMS_MAX:
        members += 1
        key, at = _member(text, at)
        if key == name and text[at : at + 1] == "[":
            if found:
                raise MalformedError(f"the body has two members {name!r}", code="not-json")
            found = True
            at = _array(text, encoding, at, slices, records_max)
        else:
            at = _end_of_value(text, at)
        at = _next_item(text, at, "}")
    if members > ITEMS_MAX or _skip(text, at + 1) != len(text):
        return split_stream(body, records_max=records_max)
    if not found:
        slices.append(parse_record(text[begin : at + 1].encode(encoding)))
    return slices


def split_nested(body: bytes, names: Sequence[str], *, records_max: int) -> list[tuple[Slice, list[JSONObject]]]:
    """The elements of arrays within arrays: for names a, b those of `{"a":[{"b":[element, …], …}, …], …}`, each with the other
    members of the objects around it, as bytes, outermost first. An array that is missing or null is empty.

    Raises MalformedError for any other shape, TooLargeError, also for more objects and members around them than AROUND_MAX.
    """
    text, encoding = _text(body)
    nested = _Nested(text, encoding, records_max)
    end = nested.walk(_begin(text), names, [])
    if _skip(text, end) != len(text):
        raise _malformed(end)
    return list(zip(nested.slices, nested.around, strict=True))


class _Nested:
    """Arrays within arrays, as far as they were walked."""

    def __init__(self, text: str, encoding: str, records_max: int) -> None:
        self.slices = _Slices(text)
        self.around: list[list[JSONObject]] = []
        self._text = text
        self._encoding = encoding
        self._records_max = records_max
        self._count = 0

    def walk(self, at: int, names: Sequence[str], around: list[JSONObject]) -> int:
        """Takes the object at `at`, which holds the array names[0]; returns where it ends."""
        text = self._text
        if text[at : at + 1] != "{":
            raise _malformed(at)
        self._count += 1
        require_few_around(self._count, self._records_max)
        others: JSONObject = {}
        seen: set[str] = set()
        at = _skip(text, at + 1)
        while text[at : at + 1] != "}":
            self._count += 1
            require_few_around(self._count, self._records_max)
            key, begin = _member(text, at)
            if key in seen:
                raise MalformedError(f"the name {key[:60]!r} occurs twice in one object", code="not-json")
            seen.add(key)
            if key == names[0] and not text.startswith("null", begin):
                at = self._items(begin, names, [*around, others])
            else:
                at = _end_of_value(text, begin)
                if key == names[0] and text[begin:at] != "null":
                    raise _malformed(begin)
                others[key] = text[begin:at].encode(self._encoding)
            at = _next_item(text, at, "}")
        return at + 1

    def _items(self, at: int, names: Sequence[str], around: list[JSONObject]) -> int:
        text = self._text
        if text[at : at + 1] != "[":
            raise _malformed(at)
        if len(names) == 1:
            at = _array(text, self._encoding, at, self.slices, self._records_max)
            self.around += [around] * (len(self.slices) - len(self.around))
            return at
        at = _skip(text, at + 1)
        while text[at : at + 1] != "]":
            at = self.walk(at, names[1:], around)
            at = _next_item(text, at, "]")
        return at + 1


class _Slices(list[Slice]):
    """Records cut out of a body. `careful` from the first that does not parse: where a record ends is then found before it is
    parsed, because an error of the parser costs time in proportion to where it is in the text."""

    careful = False

    def __init__(self, text: str) -> None:
        super().__init__()
        self.move(text, 0)

    def move(self, text: str, at: int) -> None:
        """Puts the window at `at`: the characters that the parser sees, because it does not stop at ITEMS_MAX. What ends before
        `window_end` is whole; nearer to the end of the window, `1` may be the beginning of `1e+5`."""
        self.window, self.window_at = text[at : at + _WINDOW_CHARS], at
        end = at + _WINDOW_CHARS
        self.window_end = end - 2 if end < len(text) else len(text) + 1


def _text(body: bytes) -> tuple[str, str]:
    """The body as text whose slices encode back to its bytes, and how."""
    try:
        return body.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return body.decode("latin-1"), "latin-1"


def _array(text: str, encoding: str, at: int, slices: _Slices, records_max: int) -> int:
    """Adds the elements of the array at `at`; returns where it ends."""
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        at = _element(text, encoding, at, slices)
        _require_few(slices, records_max)
        at = _next_item(text, _skip(text, at), "]")
    return at + 1


def _element(text: str, encoding: str, at: int, slices: _Slices) -> int:
    """Adds the value at `at`; returns where it ends."""
    if not slices.careful:
        begin = slices.window_at
        try:
            value, end = _STRICT(slices.window, at - begin)
            end += begin
        except (StopIteration, RecordError, ValueError, RecursionError):
            end = slices.window_end
        if end < slices.window_end:
            part = text[at:end]
            raw = part.encode(encoding)
            slices.append(_checked(raw, part, value) if encoding == "utf-8" and end - at <= ITEMS_MAX else parse_record(raw))
            return end
        if at > begin and slices.window_end < len(text):
            slices.move(text, at)
            return _element(text, encoding, at, slices)
    end = _end_of_value(text, at)
    slices.append(parse_record(text[at:end].encode(encoding)))
    slices.careful = slices.careful or slices[-1].error not in ("", _TOO_MANY)
    return end


def _parse(raw: bytes, text: str) -> Slice:
    """A text that is one record."""
    if len(text) > ITEMS_MAX and sum(map(text.count, "[{,")) > ITEMS_MAX and _MANY_ITEMS.match(text) is not None:
        return Slice(raw, None, _TOO_MANY)
    try:
        value, end = _STRICT(text, _begin(text))
    except StopIteration:
        return Slice(raw, None, "not JSON")
    except (RecordError, ValueError, RecursionError) as problem:
        return Slice(raw, None, _reason(problem))
    if _skip(text, end) != len(text):
        return Slice(raw, None, "not JSON: something follows the value")
    return _checked(raw, text, value)


def _checked(raw: bytes, text: str, value: Any) -> Slice:
    """The slice, with what a scanner does not see: too deep, lone surrogates."""
    if text.count("{") + text.count("[") > DEPTH_MAX and _depth(text) > DEPTH_MAX:
        return Slice(raw, None, _TOO_DEEP)
    if _SURROGATE.search(text) is not None:
        try:
            compact(value).encode("utf-8")
        except UnicodeEncodeError:
            return Slice(raw, None, "half of a surrogate pair")
    return Slice(raw, value, "")


_TOO_DEEP = f"nested deeper than {DEPTH_MAX}"
_TOO_MANY = f"more than {ITEMS_MAX} items"


def _reason(problem: Exception) -> str:
    if isinstance(problem, RecursionError):
        return _TOO_DEEP
    if isinstance(problem, json.JSONDecodeError):
        return f"not JSON: {problem.msg.lower()}"
    return str(problem)


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        run = match[1]
        if run[:1] in "[{":
            depth += len(run)
            deepest = max(depth, deepest)
        else:
            depth -= len(run)
    return deepest


def _end_of_value(text: str, at: int) -> int:
    """Where the value at `at` ends, by its brackets and quotes alone. Raises MalformedError if it does not."""
    first = text[at : at + 1]
    if first == '"':
        string = _STRING.match(text, at)
        if string is None:
            raise _malformed(at)
        return string.end()
    if not first or first not in "[{":
        end = _PLAIN.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too
        if end == at:
            raise _malformed(at)
        return end
    depth = 1
    for match in _OUTER_BRACKETS.finditer(text, at + 1):
        run = match[1]
        if run in ('"', ""):
            break
        if run[0] in "[{":
            depth += len(run)
        elif depth > len(run):
            depth -= len(run)
        else:
            return match.start(1) + depth
    raise _malformed(at)


def _member(text: str, at: int) -> tuple[str, int]:
    """The name of the member at `at`, and where its value begins."""
    if text[at : at + 1] != '"':
        raise _malformed(at)
    try:
        name, at = _scan_string(text, at + 1)
    except ValueError:
        raise _malformed(at) from None
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise _malformed(at)
    return name, _skip(text, at + 1)


def _next_item(text: str, at: int, close: str) -> int:
    """Past the comma behind an item, or at the closing bracket."""
    at = _skip(text, at)
    char = text[at : at + 1]
    if char == close:
        return at
    after = _skip(text, at + 1)
    if char != "," or text[after : after + 1] == close:
        raise _malformed(at)
    return after


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing, too


def _begin(text: str) -> int:
    """Where the first value may begin: past a byte order mark and white space."""
    return _skip(text, 1 if text.startswith("\ufeff") else 0)


def _malformed(at: int) -> MalformedError:
    return MalformedError(f"the body is not JSON at character {at}: its records cannot be told apart", code="not-json")


def _require_few(slices: Sequence[Slice], records_max: int) -> None:
    if len(slices) > records_max:
        raise TooLargeError(
            f"more than {records_max} records in one request", hint="send smaller batches", code="too-many-entries"
        )


def require_few_around(count: int, records_max: int) -> None:
    """Raises TooLargeError for more objects and members, or fields, around so many records than AROUND_MAX allows."""
    if count > AROUND_MAX + 10 * records_max:
        raise TooLargeError("too much around the records of one request", hint="send smaller batches", code="too-many-entries")


def _pairs(pairs: list[tuple[str, Any]]) -> JSONObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise RecordError(f"the name {twice[:60]!r} occurs twice in one object")
    return value


def _integer(digits: str) -> int | str:
    if len(digits) < 16:
        return int(digits)
    if len(digits) > 17:
        return digits
    value = int(digits)
    return value if -INTEGER_MAX <= value <= INTEGER_MAX else digits


def _float(digits: str) -> float | str:
    value = float(digits)
    if not math.isfinite(value) or (value == 0 and digits.strip("-0.")[:1] not in ("", "e", "E")):
        return digits
    return value


def _constant(name: str) -> None:
    raise RecordError(f"{name} is not JSON")


_STRICT: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant
).scan_once  # type: ignore[attr-defined]
