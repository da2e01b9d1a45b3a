"""Whether an event still follows from its original: derived anew from `raw_data` and compared.

Rules: the mapping is the one that the event names, as it is today; where its version is another, differences are to be
expected and the result says so. What a mapping does not make is not compared: the mark of a conflict, the mapping's version and
hash, and what the log adds about its sender (ADDED). An event whose original is not there, or whose mapping is not, is not
compared but named. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from translog.events.jsontext import JSONObject
from translog.events.mapping import Source
from translog.events.normalize import differences, normalize, raw_record

ADDED = ("fed.conflicts_with", "fed.identity", "fed.mapping.version", "fed.mapping.sha256")
"""Dotted paths that are not the mapping's. What the log proved of its sender's identity is below `fed.identity`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remapped:
    """What became of one event. `mapping` is its mapping's name; `recorded` and `current` are its versions then and now.
    `differing` are the dotted paths that differ; `skipped` says why there was nothing to compare, empty where there was."""

    mapping: str
    recorded: str
    current: str
    differing: tuple[str, ...]
    skipped: str = ""

    @property
    def is_same_version(self) -> bool:
        """Whether the mapping is the one that made the event."""
        return self.recorded == self.current


def remap(event: Any, sources: Mapping[str, Source]) -> Remapped:
    """Derives one event anew. Never fails, whatever the event holds."""
    made_by = _mapping_of(event)
    name, recorded = str(made_by.get("name", "")), str(made_by.get("version", ""))
    source = sources.get(name)

    def skipped(reason: str) -> Remapped:
        current = "" if source is None else source.version
        return Remapped(mapping=name, recorded=recorded, current=current, differing=(), skipped=reason)

    if not name:
        return skipped("no mapping made it")
    if source is None:
        return skipped(f"the mapping {name} is not known here")
    if made_by.get("sha256", "") != source.sha256:
        return skipped(f"the mapping {name} is another file than the one that made it")
    try:
        raw, context = raw_record(event)
        anew = normalize(source, source.parse(raw, context)).event
    except (AttributeError, KeyError, TypeError, ValueError):  # an event from elsewhere may hold anything, its context too
        return skipped("its original is not there")
    found = tuple(path for path in differences(event, anew) if not _is_added(path))
    return Remapped(mapping=name, recorded=recorded, current=source.version, differing=found)


def _mapping_of(event: Any) -> JSONObject:
    fed = event.get("fed") if type(event) is dict else None
    mapping = fed.get("mapping") if type(fed) is dict else None
    return mapping if type(mapping) is dict else {}


def _is_added(path: str) -> bool:
    return any(path == added or path.startswith(added + ".") for added in ADDED)
