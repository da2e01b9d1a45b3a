"""Strict validation of events against the published OCSF schemas, for tests and for people who want to know.

Rules: `fed` is not OCSF's and is taken out first. A validator is compiled once for each class and set of profiles; an event
then costs about a millisecond, so nothing on the way of an event into the log uses it. A missing value has the path that
`fed.missing` gives it, but for the numbers of list elements. Needs the extra `ocsf`. https://schema.ocsf.io/1.8.0
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from translog.events.model import CLASSES, OBJECT_REQUIRES, OCSF_VERSION

try:
    from jsonschema import Draft202012Validator, ValidationError
    from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema  # type: ignore[import-untyped]
except ImportError as problem:
    raise ImportError("strict validation needs the OCSF schemas: pip install 'translog[ocsf]'") from problem

VALIDATORS_MAX = 128
"""Compiled validators that are kept, at some 200 kB each: a class has few sets of profiles in practice."""


class Problem(NamedTuple):
    """What is wrong, and where: a dotted path with list elements as `resources[0].uid`, empty for the event itself. `missing`
    says that the value at that path is not there and must be."""

    path: str
    what: str
    missing: bool = False


def find_problems(event: Mapping[str, Any]) -> list[Problem]:
    """What OCSF's schema of the event's class, with the profiles that metadata.profiles names, has against it; sorted by path.

    An event of no class of CLASSES has that as its only problem.
    """
    class_uid = event.get("class_uid")
    if type(class_uid) is not int or class_uid not in CLASSES:
        return [Problem("class_uid", f"{class_uid!r} is none of the classes of events")]
    metadata = event.get("metadata")
    named = metadata.get("profiles") if isinstance(metadata, dict) else None
    profiles = sorted({name for name in named if isinstance(name, str)}) if isinstance(named, list) else []
    bare = {name: value for name, value in event.items() if name != "fed"}
    problems = [
        found for error in _validator(class_uid, tuple(profiles)).iter_errors(bare) for found in _problems(error, class_uid)
    ]
    return sorted(set(problems))


@lru_cache(maxsize=VALIDATORS_MAX)
def _validator(class_uid: int, profiles: tuple[str, ...]) -> Draft202012Validator:
    schema = _schemas().get_class_schema(CLASSES[class_uid].name, list(profiles))
    return Draft202012Validator(schema)


@lru_cache(maxsize=1)
def _schemas() -> Any:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(OCSF_VERSION))


def _problems(error: ValidationError, class_uid: int) -> Iterator[Problem]:
    path = _path(error.absolute_path)
    inside = f"{path}." if path else ""
    rule, value, schema = _parts(error)
    if error.validator == "required":
        lacking = [name for name in rule if name not in value]
        yield from (Problem(inside + name, "required and not there", missing=True) for name in lacking)
    elif error.validator in ("anyOf", "oneOf"):
        names = [name for choice in rule for name in choice["required"]]
        if any(name in value for name in names):
            yield Problem(path, f"has more than one of {', '.join(names)}")
        else:
            yield Problem(inside + _customary(error.absolute_path, class_uid), f"has none of {', '.join(names)}", missing=True)
    elif error.validator == "additionalProperties":
        yield from (Problem(inside + name, "no such attribute") for name in value if name not in schema["properties"])
    else:
        yield Problem(path, error.message)


def _parts(error: ValidationError) -> tuple[Any, Any, Any]:
    """The rule's value in the schema, the value that breaks it, and the schema around the rule."""
    return error.validator_value, error.instance, error.schema


def _customary(path: Sequence[str | int], class_uid: int) -> str:
    """Which of several attributes `fed.missing` names."""
    attributes = [part for part in path if isinstance(part, str)]
    return OBJECT_REQUIRES[attributes[-1]].one_of[0] if attributes else CLASSES[class_uid].one_of[0]


def _path(parts: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
