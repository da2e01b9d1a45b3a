"""`translog remap`: events of a file and of a log, and what it says of those that do not follow from their originals."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client.simulator import Simulator, entries_of, respond

from cli.harness import Result, require_plain, run
from translog.events.jsontext import parse_record
from translog.events.normalize import normalize
from translog.events.sources.short import EVENTS

SIZE = 5


def event(number: int) -> dict[str, Any]:
    record = json.dumps({"id": str(number), "actor": "alice", "action": "door.open", "time": number}).encode()
    return normalize(EVENTS, parse_record(record)).event


def forged(number: int) -> dict[str, Any]:
    made = event(number)
    return made | {"actor": {"user": {"name": "mallory"}}, "fed": made["fed"] | {"mapping": {"name": "events", "version": "0"}}}


def answer(index: int, content: dict[str, Any] | None) -> bytes:
    return json.dumps({"index": index, "entry": {"seq": index}, "content": "open", "event": content}).encode()


@pytest.fixture
def log() -> Iterator[tuple[Simulator, str]]:
    """A log of five entries: events 0, 1 and 4, a note at 2, and somebody else's event 3."""
    ready, stop, found = threading.Event(), threading.Event(), []

    async def serve() -> None:
        simulator = Simulator(entries_of(SIZE))
        async with simulator.serving() as url:
            found.append((simulator, url))
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        simulator, url = found[0]
        for index in (0, 1, 4):
            simulator.answers[f"v1/events/{index}"] = respond(body=answer(index, event(index)))
        simulator.answers["v1/events/2"] = problem(404, "not-an-event")
        simulator.answers["v1/events/3"] = problem(403, "not-your-event")
        yield simulator, url
    finally:
        stop.set()
        thread.join()


def problem(status: int, code: str) -> Any:
    return respond(
        status, json.dumps({"code": code, "detail": "no"}).encode(), headers={"Content-Type": "application/problem+json"}
    )


def check(*arguments: object) -> Result:
    return run("remap", "--check", *arguments)


def written(directory: Path, *lines: bytes) -> Path:
    path = directory / "events.ndjson"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_events_that_follow_from_their_originals(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(event(0)).encode(), b"", answer(17, event(1)))
    result = check(path)
    assert (result.code, result.out) == (0, "2 compared, 0 differ, 0 not compared\n")
    assert json.loads(check(path, "--json").out) == {"ok": True, "compared": 2, "differing": [], "skipped": []}


def test_what_differs_is_named_with_its_index_and_ends_with_1(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(event(0)).encode(), answer(17, forged(1)), answer(18, None), b'{"fed":{}}')
    result = check(path)
    assert result.code == 1
    assert result.out.splitlines() == [
        "event 17 differs: actor.user.name (made by mapping events 0, compared with 1)",
        "event 18 was not compared: no mapping made it",
        "event 3 was not compared: no mapping made it",
        "2 compared, 1 differ, 2 not compared",
    ]
    document = json.loads(check(path, "--json").out)
    assert document["ok"] is False
    assert document["differing"] == [
        {"index": 17, "mapping": "events", "recorded": "0", "current": "1", "fields": ["actor.user.name"]}
    ]
    assert [found["index"] for found in document["skipped"]] == [18, 3]


def test_an_event_that_its_own_mapping_would_not_make_is_told_apart(tmp_path: Path) -> None:
    changed = event(0) | {"severity_id": 6}
    result = check(written(tmp_path, json.dumps(changed).encode()))
    assert result.out.startswith("event 0 differs: severity_id (mapping events 1, the version that made it)\n")
    assert result.code == 1


def test_a_range_is_of_indexes_its_end_not_among_them(tmp_path: Path) -> None:
    path = written(tmp_path, *(answer(index, forged(index)) for index in (5, 6, 7, 8)))
    assert [found["index"] for found in json.loads(check(path, "--json", "--from", 6, "--to", 8).out)["differing"]] == [6, 7]


def test_many_findings_are_not_all_shown(tmp_path: Path) -> None:
    path = written(tmp_path, *(answer(index, forged(index)) for index in range(60)))
    result = check(path)
    assert result.out.count("differs:") == 50
    assert "... and 10 more that differ; --json lists them" in result.out
    assert len(json.loads(check(path, "--json").out)["differing"]) == 60


def test_events_of_a_log_that_are_ours_to_read(log: tuple[Simulator, str], tmp_path: Path) -> None:
    simulator, url = log
    token = tmp_path / "token"
    token.write_text("secret\n")
    assert json.loads(check("--log", url, "--token-file", token, "--json").out)["compared"] == 3
    assert {request.headers["Authorization"] for request in simulator.requests} == {"Bearer secret"}
    simulator.answers["v1/events/4"] = respond(body=answer(4, forged(4)))
    result = check("--log", url)
    assert (result.code, result.out.splitlines()[0][:15]) == (1, "event 4 differs")
    assert check("--log", url, "--to", 4).code == 0
    assert json.loads(check("--log", url, "--from", 1, "--to", 2, "--json").out)["compared"] == 1
    assert json.loads(check("--log", url, "--from", 9, "--json").out)["compared"] == 0


def test_a_log_that_answers_otherwise_is_told(log: tuple[Simulator, str]) -> None:
    simulator, url = log
    require_plain(check("--log", url, "--to", SIZE + 1), 3)
    for body in (b"no JSON", b"[]", b"[" * 100_000):
        simulator.answers["v1/events/1"] = respond(body=body)
        require_plain(check("--log", url), 3)
    simulator.answers["v1/events/1"] = problem(401, "unauthenticated")
    require_plain(check("--log", url), 3)
    simulator.answers["checkpoint"] = respond(body=b"none")
    require_plain(check("--log", url), 3)


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    require_plain(check(tmp_path / "missing"), 4)
    (line, *_) = require_plain(check(written(tmp_path, json.dumps(event(0)).encode(), b"{")), 1)
    assert "line 2" in line
    require_plain(check(written(tmp_path, b"[1]")), 1)


@pytest.mark.parametrize("arguments", [(), ("f", "--log", "http://x"), ("--log", "ftp://x")])
def test_usage(arguments: tuple[str, ...]) -> None:
    assert check(*arguments).code == 2
    assert run("remap", *arguments).code == 2
