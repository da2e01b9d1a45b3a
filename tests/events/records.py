"""Real records for tests, in delivery files as they are or in excerpts without the names that their collector added; and
whether an event has lost anything of its record."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from translog.events.jsontext import JSONObject, Slice, compact, parse_record
from translog.events.mapping import Source
from translog.events.sources.table import SOURCES

RECORDS_MAX = 100_000


def delivery_files(shared: Path) -> list[bytes]:
    """CloudTrail's delivery files of an exercise."""
    return [path.read_bytes() for path in sorted((shared / "data" / "cloudtrail").glob("*.json"))]


def excerpts(shared: Path, product: str) -> list[bytes]:
    """The records of one product, each as compact JSON."""
    lines = (shared / "data" / "sources" / f"{product}.jsonl").read_text("utf-8").splitlines()
    return [compact(_bare(json.loads(line)["log"])).encode() for line in lines]


def _bare(value: Any) -> Any:
    """Without the names that begin with p_, which the records' collector added."""
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items() if not name.startswith("p_")}
    return [_bare(item) for item in value] if isinstance(value, list) else value


DATA_SETS = (
    ("cloudtrail", "exercise"),
    ("cloudtrail", "excerpts"),
    ("github", "excerpts"),
    ("kubernetes", "excerpts"),
)


def slices_of(shared: Path, name: str, data: str) -> tuple[Source, list[Slice]]:
    """A source, and a data set's records as it gets them."""
    source = SOURCES[name]
    if data == "excerpts":
        return source, [parse_record(raw) for raw in excerpts(shared, name)]
    return source, [part for body in delivery_files(shared) for part in source.split(body, {}, RECORDS_MAX)]


def scalars(value: Any) -> Iterator[Any]:
    """Every value that is no object or array."""
    if isinstance(value, dict):
        for item in value.values():
            yield from scalars(item)
    elif isinstance(value, list):
        for item in value:
            yield from scalars(item)
    else:
        yield value


# --- nothing is lost ---------------------------------------------------------------------------------------------------------

Stated = Mapping[str, Callable[[Any, JSONObject], bool]]
"""How values at a path of the record that are not in the event as they are, or only as part of another, are in it."""


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, path)
    elif value is not None:
        yield path, value


def spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def lost(record: Any, event: JSONObject, stated: Stated) -> Iterator[str]:
    there = {
        spelled(value) for name, field in event.items() if name not in ("raw_data", "observables") for value in scalars(field)
    }
    for path, value in leaves(record):
        if spelled(value) not in there and not (path in stated and stated[path](value, event)):
            yield path
