"""What tests say to a log of audit events, and what they ask it: records, members with their tokens, entries, rows on disk.

Rules: what is compared is what the log has, read back from its entries and payloads, not what an answer says alone.
"""

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from storage.backends import PLYVEL

from translog.events.entry import EventEntry, parse_entry
from translog.storage.store import Profile

from .conftest import Serve
from .harness import Answer, Running, hashes

EVENTS = "/v1/events"
JSON = "application/json"
NDJSON = "application/x-ndjson"
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
"""How a body is compressed, by its Content-Encoding."""
STREAM = "Translog-Stream"
ADMIN = "/v1/events/0"
OCSF = {"class_uid": 6003, "activity_id": 1, "time": 1, "actor": {"user": {"name": "bob"}}, "api": {"operation": "x"}}


def member(name: str, **settings: Any) -> dict[str, Any]:
    """The settings of a member whose token is `<name>-token`. It may write to any stream, and reads its own events."""
    token_sha256 = sha256(f"{name}-token".encode()).hexdigest()
    return {"name": name, "token_sha256": token_sha256, "streams": ("default", "*"), "reads": "own", **settings}


AUDITOR = member("auditor", may_append=False, reads="all")


async def serve_members(serve: Serve, *members: dict[str, Any], **settings: Any) -> Running:
    """A new log of audit events with these members."""
    return await serve(profile=Profile.EVENTS, members=members, **settings)


def by(name: str) -> dict[str, str]:
    """The header with that member's token."""
    return {"Authorization": f"Bearer {name}-token"}


def record(uid: str | None = None, /, **fields: Any) -> dict[str, Any]:
    """A record in the short form."""
    named = {} if uid is None else {"id": uid}
    return {**named, "time": "2026-01-02T03:04:05Z", "actor": "alice", "action": "door.create", "src_ip": "192.0.2.1", **fields}


def dumps(value: Any) -> bytes:
    """As JSON, compact."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


async def send(log: Running, records: Any, query: str = "", **headers: str) -> Answer:
    """Posts an object, or an array of them, to /v1/events."""
    return await log.post(EVENTS + query, dumps(records), JSON, **headers)


async def take(log: Running, records: Any, query: str = "", **headers: str) -> list[dict[str, Any]]:
    """The results of what must be taken, published."""
    answer = (await send(log, records, query, **headers)).require_ok().json
    assert answer["count"] == len(answer["results"])
    results: list[dict[str, Any]] = answer["results"]
    return results


async def index_of(log: Running, value: Any, **headers: str) -> int:
    """Where one record that must be taken was logged."""
    (result,) = await take(log, value, **headers)
    index: int = result["index"]
    return index


async def entry_bytes(log: Running) -> list[bytes]:
    """All entries, once all that is committed is published."""
    size = log.server.service.integrated.size
    assert await log.server.service.wait_published(size, timeout_ms=10_000)
    found: list[bytes] = []
    while len(found) < size:
        found += hashes((await log.get(f"/v1/entries?start={len(found)}&end={size}")).json["entries"])
    return found


async def entries(log: Running) -> list[EventEntry]:
    """All entries but the log's own."""
    return [entry for entry in map(parse_entry, await entry_bytes(log)) if entry.member != "log"]


async def event(log: Running, index: int, **headers: str) -> dict[str, Any]:
    """An event that must be readable; its number of bytes and its entry are checked on the way."""
    await entry_bytes(log)
    answer = (await log.get(f"{EVENTS}/{index}", **headers)).require_ok().json
    assert answer["index"] == index
    assert answer["content"] == "open"
    found: dict[str, Any] = answer["event"]
    assert found["raw_data_size"] >= 0
    return found


async def raw_data(log: Running, **headers: str) -> list[str]:
    """The records as they were received of all events but the log's own, in order."""
    every = [parse_entry(data) for data in await entry_bytes(log)]
    return [(await event(log, index, **headers))["raw_data"] for index, entry in enumerate(every) if entry.member != "log"]


def require_dense(every: Sequence[EventEntry]) -> None:
    """Each stream's events are numbered 0, 1, 2, … in the order of the log, and time does not go back."""
    numbers: dict[tuple[str, str], int] = {}
    for entry in every:
        expected = numbers.get((entry.member, entry.stream), 0)
        assert entry.seq == expected
        numbers[entry.member, entry.stream] = expected + 1
    times = [entry.received_at_ms for entry in every]
    assert times == sorted(times)


@contextmanager
def rows(directory: Path) -> Iterator[Any]:
    """The database of a log that is stopped."""
    db = PLYVEL.DB(str(directory / "log"))
    try:
        yield db
    finally:
        db.close()


def read_row(directory: Path, key: bytes) -> bytes:
    with rows(directory) as db:
        value: bytes = db.get(key)
    assert value is not None
    return value


def write_rows(directory: Path, changes: Mapping[bytes, bytes]) -> None:
    with rows(directory) as db:
        for key, value in changes.items():
            db.put(key, value)


def fail_with(error: Exception) -> Any:
    """Something that raises it whenever it is called."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def break_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event gets a field that no event has, which is a defect of a mapping."""
    monkeypatch.setattr("translog.events.normalize.find_observables", fail_with(KeyError("/secret/path")))
