"""What a source's mapping is made of: a table of rows, and what else a table cannot say.

    TABLE = Table(
        Row("eventName", "api.operation"),
        Row("sourceIPAddress", "src_endpoint.ip", address),
        ...
    )

A row takes the value at `source` in the record to `target` in the event, through `convert`. Rules: a convert that returns None
has not understood the value, which then stays in the record's remainder, as does everything that no row names: the remainder
becomes `unmapped`, so nothing of a record is lost. Of rows with one target, the first that understands its value wins. No
value is invented: what a record does not say is not in the event. Pure.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from ipaddress import ip_address
from typing import Any, NamedTuple

from translog.events.jsontext import INTEGER_MAX, JSONObject, Slice, parse_record

Convert = Callable[[Any], Any]
Path = tuple[str, ...]

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:[.,](\d+))? ?"
    r"([Zz]|UTC|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?",
    re.ASCII,
)
_DIGITS = re.compile(r"-?[0-9]{1,16}")
_IPV4 = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])")
_EMAIL = re.compile(r"[a-zA-Z0-9!#$%&'*+\-/=?^_`{|}~.]+@[a-zA-Z0-9\-]+\.[a-zA-Z0-9\-.]+", re.ASCII)


class MappingError(Exception):
    """Why a record is not one of its source's. It becomes a Base Event that says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A source of records: how its bodies are cut, and how a record becomes an event.

    `split` takes a body, the request's headers (names in lower case) and the most records allowed; it raises MalformedError for
    a body that is not the source's outer shape and TooLargeError. `map` takes a record's value and its context and returns the
    event's fields, `unmapped` included, or raises MappingError. `parse` makes a slice anew from its bytes and context, for
    remap.py. `content`, of a record without an error, is what makes two records of one id the same, where that is not their
    bytes and context. `version` changes whenever the same record would become another event; `sha256` names a mapping that is
    not part of this program (custom.py).
    """

    name: str
    version: str
    split: Callable[[bytes, Mapping[str, str], int], list[Slice]]
    map: Callable[[JSONObject, JSONObject], JSONObject]
    parse: Callable[[bytes, JSONObject], Slice] = parse_record
    content: Callable[[Slice], bytes] | None = None
    sha256: str = ""


def path(text: str) -> Path:
    """The path of `a.b.c`; a dot within a name is written as `\\.`."""
    return tuple(part.replace("\0", ".") for part in text.replace("\\.", "\0").split("."))


# --- conversions: a value of JSON to what the event wants, None where it is not understood ---------------------------------


def text(value: Any) -> str | None:
    """A string that is not empty; numbers as their digits."""
    if type(value) is str:
        return value or None
    if type(value) is int or type(value) is float:
        return str(value)
    return None


def string(value: Any) -> str | None:
    """A string that is not empty."""
    return value if type(value) is str and value else None


def integer(value: Any) -> int | None:
    """An integer of at most 2^53-1, also from its digits."""
    if type(value) is str and _DIGITS.fullmatch(value):
        value = int(value)
    return value if type(value) is int and abs(value) <= INTEGER_MAX else None


def boolean(value: Any) -> bool | None:
    """true and false, also as strings."""
    return {"true": True, "false": False, True: True, False: False}.get(value) if isinstance(value, str | bool) else None


def anything(value: Any) -> Any:
    """The value as it is."""
    return value


def address(value: Any) -> str | None:
    """An IP address as it is spelled, without a port; of at most 40 characters, as in OCSF."""
    if type(value) is not str or len(value) > 40:
        return None
    if _IPV4.fullmatch(value) is None:
        try:
            ip_address(value)
        except ValueError:
            return None
    return value


def port(value: Any) -> int | None:
    """A port."""
    number = integer(value)
    return number if number is not None and 0 <= number <= 65_535 else None


def email(value: Any) -> str | None:
    """An e-mail address, as OCSF spells its type email_t."""
    return value if type(value) is str and len(value) < 384 and _EMAIL.fullmatch(value) else None


def hex_id(digits: int) -> Convert:
    """A trace or span id of so many hex digits, not all zero (W3C trace context), in lower case."""

    def convert(value: Any) -> str | None:
        if type(value) is not str or len(value) != digits or not value.isascii():
            return None
        lower = value.lower()
        return lower if set(lower) <= _HEX and set(lower) != {"0"} else None

    return convert


_HEX = frozenset("0123456789abcdef")


def rfc3339(value: Any) -> int | None:
    """Milliseconds since 1970 of an RFC 3339 time, also with a space for the T or without a zone (then UTC), years 1 to 9999.
    A leap second counts as the second before it, as in POSIX time."""
    if type(value) is not str or len(value) > 64:
        return None
    match = _RFC3339.fullmatch(value)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        return None
    minutes = (days * 24 + int(hour)) * 60 + int(minute)
    if zone and zone[0] in "+-":
        offset = int(zone[1:3]) * 60 + int(zone[-2:])
        minutes += -offset if zone[0] == "+" else offset
    milliseconds = int(f"{fraction[:3]:0<3}") if fraction else 0
    return (minutes * 60 + min(int(second), 59)) * 1000 + milliseconds


def epoch(unit_ms: float) -> Convert:
    """Milliseconds since 1970 of a number, or its digits, in units of so many ms: 1000 for seconds, 1e-6 for nanoseconds."""

    def convert(value: Any) -> int | None:
        if type(value) is str:
            if not re.fullmatch(r"-?[0-9]{1,20}(?:\.[0-9]{1,9})?", value, re.ASCII):
                return None
            whole, _, fraction = value.partition(".")
            value = float(value) if fraction else int(whole)
        if type(value) is int:
            milliseconds = value // round(1 / unit_ms) if unit_ms < 1 else value * round(unit_ms)
        elif type(value) is float and abs(value * unit_ms) <= INTEGER_MAX:
            milliseconds = round(value * unit_ms)
        else:
            return None
        return milliseconds if abs(milliseconds) <= INTEGER_MAX else None

    return convert


def enum(values: Mapping[Any, Any]) -> Convert:
    """The value's counterpart in a table; strings in any case."""
    words = {key.lower(): value for key, value in values.items() if isinstance(key, str)}
    others = {(type(key), key): value for key, value in values.items() if not isinstance(key, str)}

    def convert(value: Any) -> Any:
        if type(value) is str:
            return words.get(value.lower())
        return others.get((type(value), value)) if type(value) in (bool, int) else None

    return convert


def listed(convert: Convert) -> Convert:
    """A list of which each element is understood."""

    def convert_all(value: Any) -> list[Any] | None:
        if type(value) is not list or not value:
            return None
        found = [convert(item) for item in value]
        return None if any(item is None for item in found) else found

    return convert_all


# --- tables -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """From `source` to `target`, both dotted paths."""

    source: str
    target: str
    convert: Convert = text


class _Step(NamedTuple):
    order: int
    source: Path
    above: Path
    name: str
    convert: Convert


class _Dispute(NamedTuple):
    """A value whose step shares its target with other rows. `safe`: it is in the event already, by another row."""

    step: _Step
    value: Any
    safe: bool


class _Node(NamedTuple):
    """What becomes of one name of a record. `alone` are steps whose target no other row has, which need no order."""

    alone: list[_Step]
    shared: list[_Step]
    below: "dict[str, _Node]"
    taken: list[bool]


@dataclass(slots=True)
class Table:
    """Rows, ready to apply. `taken` names what of the record code beside the table puts into the event."""

    rows: Sequence[Row]
    taken: Iterable[str] = ()
    _tree: dict[str, _Node] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._tree = {}
        targets = Counter(row.target for row in self.rows)
        for order, row in enumerate(self.rows):
            target = path(row.target)
            node = _node(self._tree, path(row.source))
            steps = node.alone if targets[row.target] == 1 else node.shared
            steps.append(_Step(order, path(row.source), target[:-1], target[-1], row.convert))
        for name in self.taken:
            _node(self._tree, path(name)).taken.append(True)

    def apply(self, record: JSONObject, event: JSONObject) -> JSONObject:
        """Fills the event; returns the remainder of the record: what no row and no `taken` name, or what was not understood."""
        disputes: list[_Dispute] = []
        rest = _apply(self._tree, record, event, disputes)
        if disputes:
            disputes.sort(key=_by_order)
            lost = {step.source: not safe for step, _, safe in disputes}
            for step, value, _ in disputes:
                if _place(step, value, event):
                    lost[step.source] = False
            for source, is_lost in lost.items():
                if is_lost:
                    keep(rest, record, source)
        return rest


def _by_order(dispute: "_Dispute") -> int:
    return dispute.step.order


def _node(tree: dict[str, _Node], names: Path) -> _Node:
    for name in names[:-1]:
        tree = tree.setdefault(name, _Node([], [], {}, [])).below
    return tree.setdefault(names[-1], _Node([], [], {}, []))


def _apply(tree: Mapping[str, _Node], record: JSONObject, event: JSONObject, disputes: list[_Dispute]) -> JSONObject:
    """One pass over the record: places what has its target to itself, notes the rest for later, returns the remainder."""
    rest: JSONObject = {}
    for name, value in record.items():
        node = tree.get(name)
        if node is None:
            rest[name] = value
            continue
        if value is None:
            continue
        alone, shared, below, taken = node
        safe = bool(taken)
        for _, _, above, target, convert in alone:  # as in _place, without a call for each
            converted = convert(value)
            if converted is not None:
                place = event
                for outer in above:
                    place = place.setdefault(outer, {})
                if target not in place:
                    place[target] = converted
                    safe = True
        if shared:
            disputes.extend(_Dispute(step, value, safe) for step in shared)
        if below and type(value) is dict:
            part = _apply(below, value, event, disputes)
            if part and not safe:
                rest[name] = part
        elif not safe and not shared:
            rest[name] = value
    return rest


def _place(step: _Step, value: Any, event: JSONObject) -> bool:
    """Whether the step understood the value and its target was free."""
    _, _, above, name, convert = step
    converted = convert(value)
    if converted is None:
        return False
    for part in above:
        event = event.setdefault(part, {})
    if name in event:
        return False
    event[name] = converted
    return True


def keep(rest: JSONObject, record: JSONObject, source: Path) -> None:
    """Puts the record's value at a path back into its remainder."""
    value: Any = record
    for name in source[:-1]:
        value = value[name]
        rest = rest.setdefault(name, {})
    if source[-1] in value:
        rest[source[-1]] = value[source[-1]]


def pick(record: Any, *names: str) -> Any:
    """The value at a path, None if it is not there."""
    for name in names:
        if type(record) is not dict:
            return None
        record = record.get(name)
    return record


def put(event: JSONObject, target: str, value: Any) -> None:
    """Sets what a dotted path names, unless the value is None or empty, or something is there already."""
    if value is None or value in ("", [], {}):
        return
    *above, name = target.split(".")
    for part in above:
        event = event.setdefault(part, {})
    event.setdefault(name, value)


CREATE, READ, UPDATE, DELETE, OTHER = 1, 2, 3, 4, 99
"""OCSF's activity_id of class 6003."""

_VERBS = {
    CREATE: "create put insert add run register generate import allocate issue post new start launch upload invite",
    READ: "get list describe read watch head lookup query search scan select view fetch download check test validate decode",
    UPDATE: "update patch set attach modify associate enable tag change replace edit rename move restore reset rotate",
    DELETE: "delete remove detach terminate destroy drop revoke disassociate deregister untag purge cancel deletecollection",
}
_ACTIVITY = {verb: activity for activity, verbs in _VERBS.items() for verb in verbs.split()}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def activity_of(operation: str) -> int:
    """The activity of an operation's first verb: `CreateUser`, `repo.create`, `k8s/pods:get` → 1, 1, 2; 99 for any other."""
    for word in _WORD.findall(operation[:256]):
        activity = _ACTIVITY.get(word.lower())
        if activity is not None:
            return activity
    return OTHER
