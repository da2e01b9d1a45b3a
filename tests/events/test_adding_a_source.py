"""The guide to adding a source holds: its example is run, and its record becomes the event that it shows."""

import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given

from translog.events.jsontext import JSONObject
from translog.events.mapping import Source

from .mutants import mutated, take
from .records import lost
from .test_real_records import is_time

GUIDE = Path(__file__).resolve().parents[2] / "specs" / "adding-a-source.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def example() -> Source:
    (code,) = blocks("python")
    module: dict[str, Any] = {"__name__": "doors"}
    exec(compile(code, GUIDE, "exec"), module)
    source = module["DOORS"]
    assert isinstance(source, Source)
    return source


RECORD, EVENT = (json.loads(block) for block in blocks("json"))
DOORS = example()


def test_the_record_becomes_the_event_that_the_guide_shows() -> None:
    line = json.dumps(RECORD).encode()
    first, second = take(DOORS, line + b"\n" + line + b"\n")
    event = dict(first.event)
    assert event.pop("raw_data") == line.decode()
    assert event.pop("raw_data_size") == len(line)
    assert event == EVENT
    assert list(event) == list(EVENT)
    assert second == first


def test_what_is_not_its_own_is_a_base_event() -> None:
    (found,) = take(DOORS, b'{"window": 1}')
    assert found.error == "no door: not an access record"


@given(mutated(RECORD))
def test_the_example_never_fails_and_loses_nothing(record: JSONObject) -> None:
    for found in take(DOORS, json.dumps(record).encode()):
        if not found.error:
            assert list(lost(record, found.event, {"at": is_time})) == []
