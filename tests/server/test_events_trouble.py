"""Trouble of the log itself while audit events come in: what senders are told, and that nothing is lost."""

import asyncio
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from translog.errors import CorruptionError, PushbackError, StorageError, TranslogError
from translog.log.lifecycle import Mode
from translog.log.reader import Reader
from translog.server.intake import Intake
from translog.storage.leveldb import LevelDBStore
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import (
    EVENTS,
    JSON,
    OCSF,
    break_mapping,
    by,
    dumps,
    entries,
    fail_with,
    index_of,
    member,
    record,
    require_dense,
    send,
    serve_members,
    take,
)
from .harness import Running, commits_blocked, until

# --- trouble of the log's own -------------------------------------------------------------------------------------------

PUSHES = (
    ("/v1/sources/ocsf/s", dumps({**OCSF, "metadata": {"uid": "a"}})),
    ("/v1/logs", b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}'),
    ("/services/collector", b'{"event":{"actor":"a","action":"x","id":"a"}}'),
    ("/services/collector/raw", b'{"actor":"a","action":"x","id":"a"}'),
)


@pytest.mark.parametrize(("path", "body"), PUSHES)
@pytest.mark.parametrize(
    "error",
    [StorageError("the disk is full: /secret/path"), CorruptionError("/secret/path is damaged"), KeyError("/secret/path")],
    ids=["storage", "corruption", "defect"],
)
async def test_store_trouble_while_pushing_is_503_and_nothing_else(
    event_log: Running, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes, error: Exception
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(LevelDBStore, "commit", fail_with(error))
        answer = await event_log.post(path, body, JSON)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert b"secret" not in answer.body
    if not isinstance(error, StorageError):
        answer = await event_log.post(path, body, JSON)
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
        await until(lambda: event_log.server.service.mode is Mode.HELD)
        return
    while (answer := await event_log.post(path, body, JSON)).status != 200:
        assert answer.status == 503
    assert len(await entries(event_log)) == 1


@pytest.mark.parametrize("method", ["find_ids", "read_streams"])
async def test_trouble_in_reading_while_pushing_is_503_too(
    event_log: Running, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    body = dumps([{**OCSF, "metadata": {"uid": str(n)}} for n in range(3)])
    with monkeypatch.context() as patch:
        patch.setattr(LevelDBStore, method, fail_with(StorageError("the disk is gone: /secret/path")))
        answer = await event_log.post("/v1/sources/ocsf/s", body, JSON)
    if method == "find_ids":
        answer.problem(503)
        assert b"secret" not in answer.body
    while answer.status != 200:
        answer = await event_log.post("/v1/sources/ocsf/s", body, JSON)
    assert len(await entries(event_log)) == 3


async def test_damage_is_500_to_people_and_503_to_those_who_push(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Intake, "_append", fail_with(CorruptionError("/secret/path is damaged")))
        (await send(event_log, record("a"))).problem(500, "corrupt")
        for path, body in PUSHES:
            answer = await event_log.post(path, body, JSON)
            assert (answer.status, int(answer.headers["Retry-After"]) >= 1) == (503, True), path
            assert b"secret" not in answer.body
    await take(event_log, record("a"))


async def test_a_stop_loses_nothing_that_was_acknowledged(event_log: Running, serve: Serve) -> None:
    async def write(number: int) -> list[str]:
        known: list[str] = []
        for turn in range(50):
            uids = [f"{number}.{turn}.{n}" for n in range(20)]
            try:
                answer = await send(event_log, [record(uid) for uid in uids], "?ack=durable&receipts=none")
            except aiohttp.ClientError:
                break
            if answer.status != 200:
                answer.problem(503)
                break
            known += uids
        return known

    writers = [asyncio.create_task(write(number)) for number in range(4)]
    await until(lambda: event_log.server.service.integrated.size > 100)
    await event_log.server.stop()
    known = {uid for uids in await asyncio.gather(*writers) for uid in uids}
    assert known
    log = await serve(directory=event_log.directory)
    results = await take(log, [record(uid) for uid in sorted(known)])
    assert all(result["duplicate"] for result in results)
    require_dense(await entries(log))


async def test_a_failed_write_of_events_is_an_unknown_outcome_and_sending_again_finds_out(
    event_log: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = LevelDBStore.commit

    def commit_and_fail(store: LevelDBStore, update: Any) -> None:
        commit(store, update)
        raise StorageError("nobody knows: /secret/path")

    with monkeypatch.context() as patch:
        patch.setattr(LevelDBStore, "commit", commit_and_fail)
        answer = await send(event_log, [record("a"), record("b")])
    answer.problem(503, "outcome-unknown")
    assert b"secret" not in answer.body
    while (answer := await send(event_log, [record("a"), record("b"), record("c")])).status != 200:
        answer.problem(503)
    assert [result["duplicate"] for result in answer.json["results"]] == [True, True, False]
    assert len(await entries(event_log)) == 3


async def test_a_full_pool_pushes_back_with_a_time_to_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve(profile=Profile.EVENTS, log={"pool_entries_max": 2, "retry_after_ms": 6_001})
    with commits_blocked(monkeypatch):
        first = asyncio.create_task(take(log, record("a")))
        pool = log.server.service._pool
        await until(lambda: log.server.service._in_flight == 1 and pool.entries == 0)
        second = asyncio.create_task(take(log, [record("b"), record("c")]))
        await until(lambda: pool.entries == 2)
        for path, body in ((EVENTS, dumps(record("d"))), *PUSHES):
            answer = await log.post(path, body, JSON)
            wait_s = "2" if path == "/v1/logs" else "7"  # its senders drop what they would have to keep for longer
            assert (answer.status, answer.headers["Retry-After"]) == (503, wait_s), path
    await asyncio.gather(first, second)
    assert len(await entries(log)) == 3


async def test_pushed_back_half_way_everything_is_there_when_it_is_sent_again(
    event_log: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conflict is appended in a second step, which may fail alone."""
    await take(event_log, record("a"))
    batch = [record("b"), record("a", reason="x")]
    append = Intake._append
    calls = [0]

    async def append_once(self: Intake, *args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise PushbackError("full", retry_after_ms=1)
        return await append(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Intake, "_append", append_once)
        (await send(event_log, batch)).problem(503)
    results = await take(event_log, batch)
    assert [(item["duplicate"], item["conflicts_with"]) for item in results] == [(True, None), (False, 1)]
    assert len(await entries(event_log)) == 3


@pytest.mark.parametrize("error", [StorageError("the store is closed", code="store-closed"), CorruptionError("damaged")])
async def test_a_failure_after_the_commit_does_not_invite_to_send_again(
    event_log: Running, monkeypatch: pytest.MonkeyPatch, error: TranslogError
) -> None:
    monkeypatch.setattr(Reader, "inclusion", fail_with(error))
    answer = await send(event_log, record(), "?receipts=full")
    assert answer.status == 202
    assert answer.json["results"][0]["receipt"] == "/v1/receipts/1"
    assert event_log.server.service.integrated.size == 2


async def test_a_defect_of_ours_is_500_to_people_and_503_to_those_who_push(
    event_log: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, capture_logs() as lines:
        break_mapping(patch)
        for body in (dumps(record("a")), dumps([record("a")] * 50)):
            answer = await event_log.post(EVENTS, body, JSON)
            answer.problem(500, "internal")
            assert b"secret" not in answer.body
        for path, body in PUSHES:
            answer = await event_log.post(path, body, JSON)
            assert (answer.status, int(answer.headers["Retry-After"]) >= 1) == (503, True), path
            assert b"secret" not in answer.body
    assert sum(line["event"] == "a push failed" for line in lines) == len(PUSHES)
    assert await entries(event_log) == []
    await take(event_log, record("a"))
    for path, body in PUSHES:
        assert (await event_log.post(path, body, JSON)).status == 200
    assert len(await entries(event_log)) == 5


async def test_the_first_key_of_a_member_that_cannot_be_written_is_503(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve_members(serve, member("acme"))
    with monkeypatch.context() as patch:
        patch.setattr("translog.log.vault.write_file", fail_with(OSError(28, "no space left on device")))
        (await send(log, record("a"), **by("acme"))).problem(503, "storage")
        (await log.post("/v1/sources/ocsf/s", dumps(OCSF), JSON, **by("acme"))).problem(503)
    await take(log, record("a"), **by("acme"))
    assert len(await entries(log)) == 1


async def test_a_held_log_takes_no_events_and_gives_what_it_has(event_log: Running) -> None:
    index = await index_of(event_log, record("a"))
    event_log.server.service._hold(CorruptionError("a test says so: /secret/path"))
    answer = await send(event_log, record("b"))
    answer.problem(503, "read-only")
    assert b"secret" not in answer.body
    for path, body in PUSHES:
        assert (await event_log.post(path, body, JSON)).status == 503
    assert (await event_log.get("/services/collector/health")).status == 503
    (await event_log.get(f"{EVENTS}/{index}")).require_ok()
