"""EventSubmitter: whatever happens on the way, an event is in the log once, or its sender is told."""

import asyncio
import json
import logging
import os
import random
import re
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from client.event_stub import COMMITS, EventStub, Fault
from client.serving import policy_for, served, url_of
from client.simulator import POLICY
from translog.bootstrap import create_log
from translog.client import delivery, pending
from translog.client.blocking import SyncEventSubmitter, submit_events
from translog.client.delivery import Backoff, EventResult, UndeliveredError, Unsent, may_repeat, may_repeat_without_ids, persist
from translog.client.events import EventSubmitter, Receipts
from translog.client.pending import Limits, Room, new_uid, prepare
from translog.client.submit import Submitter
from translog.core.merkle import hash_leaf
from translog.core.proof import parse_receipt, verify_receipt
from translog.errors import MalformedError, PushbackError, RemoteError, SettingsError, TooLargeError
from translog.storage.store import Profile

FAST = Limits(batch_age_ms=0, request_timeout_ms=100)
"""A try that is not answered is over soon."""
_real_sleep = asyncio.sleep


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds between tries, without jitter; they pass at once."""
    paused: list[float] = []

    async def sleep(seconds: float) -> None:
        paused.append(seconds)
        await _real_sleep(0)

    monkeypatch.setattr(delivery, "asyncio", SimpleNamespace(sleep=sleep, get_running_loop=asyncio.get_running_loop))
    return paused


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"event-{number}", "action": "test", "actor": "alice", **more}


def ocsf(**metadata: Any) -> dict[str, Any]:
    return {"class_uid": 6003, "time": 1, "metadata": {"version": "1.8.0", **metadata}}


DEEP: list[Any] = []
for _ in range(200):
    DEEP = [DEEP]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await _real_sleep(0.001)


# One event


async def test_an_event_is_sent_with_an_id_and_a_time_and_its_result_says_where_it_is() -> None:
    stub = EventStub()
    original = {"actor": "alice", "action": "deployment.create", "resource": "prod/web"}
    async with stub.serving() as url, EventSubmitter(url, token="secret", stream="k8s-prod") as log:
        first, second = await log.submit(original), await log.submit(original)
    assert (first, second) == (EventResult(index=0), EventResult(index=1))
    assert original == {"actor": "alice", "action": "deployment.create", "resource": "prod/web"}
    sent = json.loads(stub.bodies[0])
    assert original.items() <= sent.items()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", sent["time"])
    assert uuid.UUID(sent["id"]).version == 7
    request = stub.requests[0]
    assert (request.headers["Authorization"], request.headers["Translog-Stream"]) == ("Bearer secret", "k8s-prod")
    assert (request.content_type, request.query_string) == ("application/x-ndjson", "ack=published&receipts=index")


async def test_without_a_stream_the_credential_decides() -> None:
    stub = EventStub()
    async with stub.serving() as url, EventSubmitter(url) as log:
        await log.submit(event(1))
    assert not {"Translog-Stream", "Authorization"} & set(stub.requests[0].headers)


def test_ids_and_times_of_the_sender_are_kept() -> None:
    assert prepare(event(1, time=5)).event == event(1, time=5)
    assert prepare(ocsf(uid="mine")).event == ocsf(uid="mine")
    made = prepare(ocsf())
    assert made.event == ocsf(uid=made.uid)
    assert "id" not in made.event
    assert uuid.UUID(made.uid)


def test_ids_are_uuids_of_version_7_in_the_order_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for time_ms in (0, 1, 1_763_750_000_123, (1 << 48) - 1):
        monkeypatch.setattr(pending, "time", SimpleNamespace(time_ns=lambda time_ms=time_ms: time_ms * 1_000_000 + 999))
        for filling in (b"\x00", b"\xff"):
            monkeypatch.setattr(pending, "os", SimpleNamespace(urandom=lambda count, filling=filling: filling * count))
            uid = uuid.UUID(new_uid())
            assert (uid.version, uid.variant, uid.int >> 80) == (7, uuid.RFC_4122, time_ms)
            made.append(str(uid))
    assert made == sorted(made)
    assert len(set(made)) == 8


@pytest.mark.parametrize(
    "bad",
    [
        [],
        "text",
        {"id": 5},
        {"id": ""},
        {"class_uid": 0, "metadata": []},
        {"class_uid": 0, "metadata": {"uid": 7}},
        {"action": float("nan")},
        {"action": "x", "context": float("inf")},
        {"action": "x", "context": object()},
        {"action": "x", "context": b"bytes"},
        {"action": "\ud800"},
        {"action": "x", "context": {1, 2}},
        {("a", "b"): 1},
        {"actor": "alice", "id": "x" * 1_025},
        {"action": "x", "context": [[[[[[]]]]]] * 20, "id": 5},
        {"resource": "neither actor nor action"},
        {"class_uid": -1},
        {"class_uid": "6003"},
        {"action": "deep", "context": DEEP},
    ],
)
async def test_what_is_no_event_is_refused_before_anything_is_sent(bad: Any) -> None:
    stub = EventStub()
    async with stub.serving() as url, EventSubmitter(url) as log:
        for submit in (log.submit, log.post):
            with pytest.raises(MalformedError):
                await submit(bad)
        with pytest.raises(MalformedError):
            await log.submit_all([event(1), bad])
    assert not stub.requests


def test_odd_arguments_are_refused() -> None:
    for stream in ("", "Upper", "a/b", "a\nb", "-a", "a" * 64):
        with pytest.raises(MalformedError):
            EventSubmitter("http://localhost", stream=stream)
    with pytest.raises(MalformedError):
        EventSubmitter("localhost")
    with pytest.raises(ValueError):
        EventSubmitter("http://localhost", receipts="all")
    with pytest.raises(MalformedError):
        Limits(queue_events_max=0)
    with pytest.raises(MalformedError):
        Limits(batch_age_ms=-1)


async def test_full_receipts_are_tlog_proofs_of_the_logs_entries() -> None:
    stub = EventStub()
    async with stub.serving() as url, EventSubmitter(url, receipts=Receipts.FULL) as log:
        results = await log.submit_all([event(number) for number in range(5)])
    for index, result in enumerate(results):
        assert result.tlog_proof is not None
        receipt = parse_receipt(result.tlog_proof)
        assert verify_receipt(receipt, leaf_hash=hash_leaf(stub.entry(index)), policy=POLICY).index == index


async def test_an_event_that_is_only_durable_has_the_url_of_its_receipt() -> None:
    stub = EventStub([Fault.DURABLE])
    stub.result = lambda result, record: {**result, "receipt": f"/v1/receipts/{result['index']}"}
    async with stub.serving() as url, EventSubmitter(url, receipts="full") as log:
        result = await log.submit(event(1))
    assert (result.index, result.receipt_url, result.proof, result.tlog_proof) == (0, "/v1/receipts/0", None, None)


async def test_duplicates_conflicts_and_base_events_are_told_apart() -> None:
    stub = EventStub()
    stub.result = lambda result, record: {**result, "error": {"code": "odd", "detail": "time\n"} if "odd" in record else None}
    async with stub.serving() as url, EventSubmitter(url) as log:
        await log.submit(event(1, time=1))
        again, other, odd = await log.submit_all([event(1, time=1), event(1, time=2), event(2, time=1, odd=1)])
    assert again == EventResult(index=0, duplicate=True)
    assert other == EventResult(index=1, conflicts_with=0)
    assert odd == EventResult(index=2, error="odd: time\\n")


async def test_a_record_that_the_log_refuses_by_itself_is_told_and_the_others_are_logged() -> None:
    stub = EventStub()
    refuse = {"event-1"}
    stub.result = lambda result, record: {"index": None, "error": "conflict"} if record["id"] in refuse else result
    async with stub.serving() as url, EventSubmitter(url) as log:
        with pytest.raises(UndeliveredError, match="refused the event: conflict") as caught:
            await log.submit_all([event(0), event(1), event(2)])
    assert [one.event["id"] for one in caught.value.unsent] == ["event-1"]
    assert (caught.value.code, caught.value.unsent[0].may_be_logged) == ("event-refused", False)


# Batches and order


async def test_events_go_in_batches_by_count_in_order() -> None:
    stub = EventStub()
    limits = Limits(batch_events_max=4, batch_age_ms=5_000)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        await asyncio.gather(*(log.submit(event(number)) for number in range(12)))
    assert [body.count(b"\n") for body in stub.bodies] == [4, 4, 4]
    assert stub.uids == [f"event-{number}" for number in range(12)]


async def test_batches_stay_below_their_bytes_and_a_large_event_goes_alone() -> None:
    stub = EventStub()
    limits = Limits(batch_bytes_max=1_000, batch_age_ms=5_000)
    sizes = [10, 300, 300, 300, 5_000, 10, 900, 900, 10]
    async with stub.serving() as url, EventSubmitter(url, limits=limits, close_timeout_ms=5_000) as log:
        for number, size in enumerate(sizes):
            await log.post(event(number, filling="x" * size, time=1))
        assert await log.flush()
    assert stub.uids == [f"event-{number}" for number in range(9)]
    assert all(len(body) <= 1_000 or body.count(b"\n") == 1 for body in stub.bodies)
    assert [body.count(b"\n") for body in stub.bodies] == [3, 1, 1, 1, 1, 2] or len(stub.bodies) < 9


async def test_a_batch_that_gets_full_while_it_waits_is_sent_at_once() -> None:
    stub = EventStub()
    size = len(prepare(event(1, time=1)).data) + 1
    for limits in (Limits(batch_events_max=2, batch_age_ms=600_000), Limits(batch_bytes_max=2 * size, batch_age_ms=600_000)):
        async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
            first = asyncio.create_task(log.submit(event(1, time=1)))
            await _real_sleep(0.02)
            await asyncio.gather(first, log.submit(event(2, time=1)))
    assert [body.count(b"\n") for body in stub.bodies] == [2, 2]


async def test_a_lone_event_is_sent_when_it_is_old_enough() -> None:
    stub = EventStub()
    async with stub.serving() as url, EventSubmitter(url, limits=Limits(batch_age_ms=20)) as log:
        begin = asyncio.get_running_loop().time()
        await log.submit(event(1))
        assert asyncio.get_running_loop().time() - begin >= 0.02


async def test_flush_and_close_wait_for_no_age() -> None:
    stub = EventStub()
    limits = Limits(batch_age_ms=60_000)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        log.post_nowait(event(1))
        assert log.pending == 1
        assert await log.flush(timeout_ms=5_000)
        assert (stub.uids, log.pending) == (["event-1"], 0)
        log.post_nowait(event(2))
    assert stub.uids == ["event-1", "event-2"]


async def test_flush_says_when_something_is_still_open_and_gives_nothing_up() -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    async with stub.serving() as url, EventSubmitter(url, limits=Limits(request_timeout_ms=500)) as log:
        await log.post(event(1))
        assert not await log.flush(timeout_ms=1)
        assert await log.flush(timeout_ms=5_000)
    assert stub.uids == ["event-1"]


# Trying again


@pytest.mark.parametrize("fault", set(Fault) - {Fault.NONE, Fault.DURABLE})
async def test_every_fault_is_survived_and_the_event_is_there_once(fault: Fault) -> None:
    stub = EventStub([fault, fault])
    async with stub.serving() as url, EventSubmitter(url, limits=FAST) as log:
        result = await log.submit(event(1))
    assert stub.uids == ["event-1"]
    assert result == EventResult(index=0, duplicate=fault in COMMITS)
    assert stub.faults == [fault, fault, Fault.NONE]
    assert len(set(stub.bodies)) == 1


async def test_the_order_is_kept_through_faults() -> None:
    stub = EventStub([Fault.RESET_BEFORE, Fault.NONE, Fault.ERROR_AFTER, Fault.BUSY, Fault.CUT_AFTER])
    async with stub.serving() as url, EventSubmitter(url, limits=Limits(batch_events_max=2, batch_age_ms=0)) as log:
        await asyncio.gather(*(log.submit(event(number)) for number in range(10)))
    assert stub.uids == [f"event-{number}" for number in range(10)]


async def test_retry_after_is_waited_for_and_believed_up_to_a_limit(pauses: list[float]) -> None:
    stub = EventStub([Fault.BUSY, Fault.TOO_MANY])
    stub.retry_after = "7"
    async with stub.serving() as url, EventSubmitter(url, limits=FAST) as log:
        await log.submit(event(1))
        assert pauses == [7.0, 7.0]
        stub.retry_after, stub.plan = "86400", type(stub.plan)([Fault.BUSY])
        await log.submit(event(2))
    assert pauses[2:] == [300.0]


async def test_retry_after_may_be_a_date_and_is_ignored_where_it_is_neither(pauses: list[float]) -> None:
    stub = EventStub()
    ahead, past = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (200, -200))
    odd = ["soon", "-5", "1e3", "+7", "", "99999999", format_datetime(past, usegmt=True), "Sun, 31 Feb 2026 00:00:00 GMT"]
    async with stub.serving() as url, EventSubmitter(url, limits=FAST) as log:
        for number, stub.retry_after in enumerate([format_datetime(ahead, usegmt=True), *odd]):
            stub.plan.append(Fault.BUSY)
            await log.submit(event(number))
    assert 150 < pauses[0] <= 200
    assert pauses[1:] == [0.0] * len(odd)


async def test_retry_after_counts_where_the_outcome_is_unknown_too(pauses: list[float]) -> None:
    answers = [web.Response(status=503, headers={"Retry-After": "9"}), web.Response(status=503)]

    async def proxy(request: web.Request) -> web.StreamResponse:
        return answers.pop(0) if answers else await stub.handle(request)

    stub = EventStub()
    stub.routes["/v1/events"] = proxy
    async with stub.serving() as url, EventSubmitter(url, limits=FAST) as log:
        await log.submit(event(1))
    assert pauses == [9.0, 0.0]


def test_pauses_grow_with_full_jitter_up_to_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", draw)
    backoff = Backoff()
    assert [backoff.next_ms(None) for _ in range(10)] == [200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
    assert {low for low, _ in drawn} == {0}
    assert backoff.next_ms(1_000) == 31_000
    backoff.reset()
    assert [backoff.next_ms(1_000), backoff.next_ms(None)] == [1_200, 400]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 422, 302])
async def test_what_is_refused_for_good_is_not_repeated_and_every_event_is_told(status: int) -> None:
    stub = EventStub()
    stub.status = status
    limits = Limits(batch_events_max=3, batch_age_ms=5_000)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        with pytest.raises(UndeliveredError) as caught:
            await log.submit_all([event(number) for number in range(3)])
    assert [one.event["id"] for one in caught.value.unsent] == ["event-0", "event-1", "event-2"]
    assert {(one.error.status, one.may_be_logged) for one in caught.value.unsent} == {(status, False)}
    assert len(stub.requests) == (5 if status == 413 else 1)  # too large: halved, down to each event alone


async def test_a_request_that_is_too_large_is_halved_and_only_the_large_event_is_refused() -> None:
    stub = EventStub()
    stub.body_bytes_max = 2_000
    sizes = [10, 700, 10, 5_000, 900, 10, 10]
    limits = Limits(batch_events_max=7, batch_age_ms=5_000)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        with pytest.raises(UndeliveredError) as caught:
            await log.submit_all([event(number, filling="x" * size) for number, size in enumerate(sizes)])
    assert [one.event["id"] for one in caught.value.unsent] == ["event-3"]
    assert stub.uids == [f"event-{number}" for number in (0, 1, 2, 4, 5, 6)]


RETRIED = [(status, "") for status in (None, 408, 425, 429, 500, 502, 503, 504)] + [
    (503, "read-only"),
    (200, "outcome-unknown"),
]


@pytest.mark.parametrize(("status", "code"), RETRIED)
def test_with_ids_anything_transient_is_repeated(status: int | None, code: str) -> None:
    assert may_repeat(RemoteError("x", status=status, code=code))


UNWRITTEN = {(429, "pool-full"): True, (503, "too-busy"): True, (None, ""): True, (None, "outcome-unknown"): False}
UNWRITTEN |= {(status, "outcome-unknown"): False for status in (200, 500, 503)}
UNWRITTEN |= {(status, ""): False for status in (400, 429, 503)}


@pytest.mark.parametrize(("status", "code"), UNWRITTEN)
def test_without_ids_only_what_was_surely_not_written_is_repeated(status: int | None, code: str) -> None:
    assert may_repeat_without_ids(RemoteError("x", status=status, code=code)) is UNWRITTEN[status, code]


async def test_a_deadline_that_the_pause_would_pass_ends_it_at_once(pauses: list[float]) -> None:
    tries: list[int] = []

    async def attempt() -> None:
        tries.append(1)
        raise RemoteError("busy", status=503, retry_after_ms=10_000)

    now = asyncio.get_running_loop().time()
    with pytest.raises(RemoteError, match="busy"):
        await persist(attempt, backoff=Backoff(), deadline=now + 9.9, repeatable=may_repeat)
    assert (len(tries), pauses) == (1, [])


async def test_pauses_begin_anew_after_a_success(pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    stub = EventStub([Fault.ERROR_BEFORE] * 3)
    async with stub.serving() as url, EventSubmitter(url, limits=FAST) as log:
        await log.submit(event(1))
        stub.plan.extend([Fault.ERROR_BEFORE] * 2)
        await log.submit(event(2))
    assert pauses == [0.2, 0.4, 0.8, 0.2, 0.4]


@pytest.mark.parametrize(
    "odd",
    [
        {"index": None},
        {},
        {"index": -1},
        {"index": True},
        {"index": "0"},
        {"index": 0, "proof": "x"},
        {"index": 0, "proof": [1]},
    ],
)
async def test_a_result_that_no_log_gives_counts_as_no_answer(odd: dict[str, Any]) -> None:
    stub = EventStub()
    answers = [odd, odd]
    stub.result = lambda result, record: answers.pop() if answers else result
    async with stub.serving() as url, EventSubmitter(url, limits=FAST) as log:
        assert await log.submit(event(1)) == EventResult(index=0, duplicate=True)
    assert len(stub.requests) == 3


# Giving up


async def test_a_deadline_gives_the_event_up_and_says_whether_it_may_be_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "asyncio", asyncio)  # pauses take their time
    for fault, may_be_logged in ((Fault.BUSY, False), (Fault.SLOW_AFTER, True), (Fault.ERROR_BEFORE, True)):
        stub = EventStub([fault] * 10_000)
        stub.retry_after = "60"
        monkeypatch.setattr(random, "uniform", lambda low, high: high)
        async with stub.serving() as url, EventSubmitter(url, close_timeout_ms=0) as log:
            with pytest.raises(UndeliveredError) as caught:
                await log.submit(event(1), timeout_ms=150)
            (unsent,) = caught.value.unsent
            assert (unsent.event["id"], unsent.may_be_logged) == ("event-1", may_be_logged), fault
            assert (log.unsent, log.pending, log.room.events, log.room.bytes) == ((), 0, 0, 0)
            assert (len(log._queue), log._queued_bytes) == (0, 0)
        assert "it may be submitted again as it is" in caught.value.hint
        assert ("is not known to be in the log" if may_be_logged else "is not in the log") in caught.value.detail


async def test_an_event_given_up_is_not_sent_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    async with stub.serving() as url, EventSubmitter(url, limits=Limits(request_timeout_ms=300, batch_age_ms=0)) as log:
        first = asyncio.create_task(log.submit(event(1)))
        await until(lambda: bool(stub.requests))
        with pytest.raises(UndeliveredError, match="not reached yet") as caught:
            await log.submit(event(2), timeout_ms=10)
        assert not caught.value.unsent[0].may_be_logged
        assert (len(log._queue), log._queued_bytes) == (0, 0)
        third = asyncio.create_task(log.submit(event(3)))
        await asyncio.gather(first, third)
    assert stub.uids == ["event-1", "event-3"]


async def test_an_event_given_up_between_two_tries_is_not_in_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def pause(seconds: float) -> None:
        await _real_sleep(0.1)

    monkeypatch.setattr(delivery, "asyncio", SimpleNamespace(sleep=pause, get_running_loop=asyncio.get_running_loop))
    stub = EventStub([Fault.BUSY])
    limits = Limits(batch_events_max=2, batch_age_ms=5_000)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        hasty = asyncio.create_task(log.submit(event(1), timeout_ms=50))
        await _real_sleep(0)
        await log.submit(event(2))
        with pytest.raises(UndeliveredError, match="is not in the log"):
            await hasty
    assert stub.uids == ["event-2"]
    assert [body.count(b"\n") for body in stub.bodies] == [2, 1]


async def test_events_given_up_do_not_shorten_the_pauses_of_those_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)
        await _real_sleep(0.05)

    monkeypatch.setattr(delivery, "asyncio", SimpleNamespace(sleep=pause, get_running_loop=asyncio.get_running_loop))
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    stub = EventStub([Fault.ERROR_BEFORE] * 3)
    async with stub.serving() as url, EventSubmitter(url, limits=FAST) as log:
        with pytest.raises(UndeliveredError):
            await log.submit(event(1), timeout_ms=20)
        await log.submit(event(2))
    assert paused == [0.2, 0.4, 0.8]


async def test_nobody_listening_is_waited_out_until_the_deadline() -> None:
    async with EventSubmitter("http://127.0.0.1:1", close_timeout_ms=0) as log:
        with pytest.raises(UndeliveredError, match="in the log: cannot reach") as caught:
            await log.submit(event(1), timeout_ms=50)
    assert caught.value.status is None


async def test_posted_events_that_nobody_waits_for_are_raised_at_the_end() -> None:
    stub = EventStub()
    stub.status = 403

    async def use() -> None:
        async with stub.serving() as url, EventSubmitter(url) as log:
            await log.post(event(1))
            log.post_nowait(event(2))
            assert await log.flush()
            assert [one.event["id"] for one in log.unsent] == ["event-1", "event-2"]

    with pytest.raises(UndeliveredError, match="2 events, the first of which is not in the log") as caught:
        await use()
    assert [one.event["id"] for one in caught.value.unsent] == ["event-1", "event-2"]


async def test_an_error_on_its_way_is_not_hidden_by_undelivered_events() -> None:
    stub = EventStub()
    stub.status = 403

    async def use() -> None:
        async with stub.serving() as url, EventSubmitter(url) as log:
            await log.post(event(1))
            raise KeyError("mine")

    with pytest.raises(KeyError) as caught:
        await use()
    assert "the event is not in the log" in caught.value.__notes__[0]


async def test_close_gives_up_at_its_deadline_and_returns_everything(pauses: list[float]) -> None:
    stub = EventStub([Fault.SLOW_AFTER])
    async with stub.serving() as url:
        log = EventSubmitter(url, limits=Limits(batch_events_max=2, batch_age_ms=0))
        await log.__aenter__()
        for number in range(5):
            await log.post(event(number))
        await until(lambda: bool(stub.requests))
        sent = stub.bodies[0].count(b"\n")
        unsent = await log.close(timeout_ms=20)
        assert [one.event["id"] for one in unsent] == [f"event-{number}" for number in range(5)]
        assert [one.may_be_logged for one in unsent] == [number < sent for number in range(5)]
        assert await log.close() == ()
        for submit in (log.submit, log.post):
            with pytest.raises(UndeliveredError, match="closed"):
                await submit(event(9))


async def test_close_wakes_those_who_wait_for_room() -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    async with stub.serving() as url:
        log = EventSubmitter(url, limits=Limits(queue_events_max=1))
        await log.__aenter__()
        await log.post(event(1))
        waiting = asyncio.create_task(log.submit(event(2)))
        await until(lambda: bool(stub.requests))
        closing = asyncio.create_task(log.close(timeout_ms=600_000))
        await asyncio.wait({waiting})
        assert not closing.done()
        (unsent,) = await log.close(timeout_ms=0)
        await closing
        assert unsent.event["id"] == "event-1"
        with pytest.raises(UndeliveredError, match="closed") as caught:
            await waiting
        assert caught.value.unsent[0].event["id"] == "event-2"


async def test_a_cancelled_wait_leaves_the_event_on_its_way() -> None:
    stub = EventStub([Fault.BUSY])
    async with stub.serving() as url, EventSubmitter(url, limits=Limits(batch_age_ms=100)) as log:
        waiting = asyncio.create_task(log.submit(event(1)))
        await until(lambda: log.pending == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert stub.uids == ["event-1"]


async def test_a_cancelled_wait_for_an_event_that_fails_is_told_as_if_posted() -> None:
    stub = EventStub()
    stub.status = 403
    told: list[Unsent] = []
    async with stub.serving() as url, EventSubmitter(url, limits=Limits(batch_age_ms=100), on_unsent=told.append) as log:
        waiting = asyncio.create_task(log.submit(event(1)))
        await until(lambda: log.pending == 1)
        waiting.cancel()
    assert [one.event["id"] for one in told] == ["event-1"]
    assert log.room.events == 0


async def test_on_unsent_is_told_and_its_failure_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stub = EventStub()
    stub.status = 403

    def fail(unsent: Unsent) -> None:
        raise KeyError(unsent.event["id"])

    async with stub.serving() as url, EventSubmitter(url, on_unsent=fail) as log:
        await log.post(event(1))
        assert await log.flush()
        stub.status = None
        await log.submit(event(2))
        assert (log.unsent, log.room.events) == ((), 0)
    assert "on_unsent failed" in caplog.text
    assert stub.uids == ["event-2"]


async def test_a_defect_of_the_sender_is_told_to_everyone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("translog.client.events.post_events", fail)
    log = EventSubmitter("http://127.0.0.1:1")
    await log.__aenter__()
    with caplog.at_level(logging.ERROR):
        await log.post(event(0))
        with pytest.raises(UndeliveredError) as caught:
            await log.submit(event(1))
        with pytest.raises(UndeliveredError, match="closed"):
            await log.submit(event(2))
    assert caught.value.unsent[0].event["id"] == "event-1"
    assert [one.event["id"] for one in await log.close()] == ["event-0"]
    assert "the sender of events stopped" in caplog.text


# The queue


async def test_a_full_queue_pushes_back_or_is_waited_for_in_order() -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    limits = Limits(queue_events_max=2, batch_age_ms=0, request_timeout_ms=200)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        for number in range(2):
            log.post_nowait(event(number))
        with pytest.raises(PushbackError, match="2 events of") as caught:
            log.post_nowait(event(9))
        assert (caught.value.code, caught.value.retry_after_ms) == ("queue-full", 1_000)
        with pytest.raises(PushbackError):
            await log.post(event(9), timeout_ms=5)
        with pytest.raises(PushbackError):
            await log.submit(event(9), timeout_ms=5)
        waiting = [asyncio.create_task(log.submit(event(number))) for number in range(2, 8)]
        await _real_sleep(0)
        with pytest.raises(PushbackError):
            log.post_nowait(event(9))
        await asyncio.gather(*waiting)
    assert stub.uids == [f"event-{number}" for number in range(8)]


async def test_the_queue_is_bounded_in_bytes_and_an_event_that_never_fits_is_told_so() -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    limits = Limits(queue_bytes_max=500, batch_age_ms=0, request_timeout_ms=200)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        log.post_nowait(event(1, filling="x" * 300))
        with pytest.raises(PushbackError):
            log.post_nowait(event(2, filling="x" * 300))
        with pytest.raises(TooLargeError) as caught:
            log.post_nowait(event(3, filling="x" * 600))
        assert caught.value.code == "event-too-large"
        await log.submit(event(2, filling="x" * 300))
        with pytest.raises(UndeliveredError) as refused:
            await log.submit_all([event(4), event(5, filling="x" * 600)])
    assert [(one.event["id"], one.error.code) for one in refused.value.unsent] == [("event-5", "event-too-large")]
    assert stub.uids == ["event-1", "event-2", "event-4"]


async def test_a_small_event_does_not_overtake_a_large_one_that_waits_for_room() -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    limits = Limits(queue_bytes_max=600, batch_age_ms=0, request_timeout_ms=200)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        log.post_nowait(event(1, filling="x" * 300))
        large = asyncio.create_task(log.submit(event(2, filling="x" * 300)))
        await _real_sleep(0)
        with pytest.raises(PushbackError):
            log.post_nowait(event(9))
        small = asyncio.create_task(log.submit(event(3)))
        await asyncio.gather(large, small)
    assert stub.uids == ["event-1", "event-2", "event-3"]


async def test_unsent_events_keep_their_room_until_they_are_taken() -> None:
    stub = EventStub()
    stub.status = 403
    async with stub.serving() as url, EventSubmitter(url, limits=Limits(queue_events_max=3, batch_age_ms=0)) as log:
        for number in range(3):
            log.post_nowait(event(number))
        assert await log.flush()
        with pytest.raises(PushbackError):
            log.post_nowait(event(3))
        taken = log.take_unsent()
        assert [one.event["id"] for one in taken] == ["event-0", "event-1", "event-2"]
        assert (log.unsent, log.room.events, log.room.bytes) == ((), 0, 0)
        stub.status = None
        await log.submit_all([one.event for one in taken])
    assert stub.uids == ["event-0", "event-1", "event-2"]


def test_room_is_given_back_whole() -> None:
    freed: list[int] = []
    room = Room(Limits(queue_events_max=2, queue_bytes_max=10), freed=lambda: freed.append(room.events))
    assert [room.try_take(4), room.try_take(7), room.try_take(6), room.try_take(0)] == [True, False, True, False]
    assert not room.take(1, wait_ms=1)
    room.give(4)
    room.give(6)
    assert (room.events, room.bytes, freed) == (0, 0, [1, 0])


# Whatever the plan of faults


@st.composite
def _plans(draw: st.DrawFn) -> list[Fault]:
    slow = {Fault.SLOW_AFTER, Fault.SLOW_BEFORE}
    return draw(st.lists(st.sampled_from(sorted(set(Fault) - slow) * 3 + sorted(slow)), max_size=12))


@settings(max_examples=60, deadline=None)
@given(
    plan=_plans(),
    posts=st.lists(st.sampled_from(["post", "submit", "hasty", "pause"]), max_size=15),
    batch=st.integers(1, 4),
    close_ms=st.sampled_from([0, 5, 5_000]),
)
def test_every_event_is_stored_at_most_once_and_what_is_not_stored_is_told_once(
    plan: list[Fault], posts: list[str], batch: int, close_ms: int
) -> None:
    async def scenario() -> None:
        stub = EventStub(plan)
        told: Counter[str] = Counter()
        surely_not: set[str] = set()
        confirmed: dict[str, int | None] = {}

        def tell(unsent: Unsent) -> None:
            told[unsent.event["id"]] += 1
            if not unsent.may_be_logged:
                surely_not.add(unsent.event["id"])

        async def submit(log: EventSubmitter, number: int, timeout_ms: int) -> None:
            try:
                confirmed[f"event-{number}"] = (await log.submit(event(number), timeout_ms=timeout_ms)).index
            except UndeliveredError as error:
                for unsent in error.unsent:
                    tell(unsent)

        async with stub.serving() as url:
            limits = Limits(batch_events_max=batch, batch_age_ms=1, request_timeout_ms=30)
            log = EventSubmitter(url, limits=limits, on_unsent=tell)
            await log.__aenter__()
            tasks = []
            for number, how in enumerate(posts):
                if how == "pause":
                    await _real_sleep(0.003)
                elif how == "post":
                    log.post_nowait(event(number))
                else:
                    tasks.append(asyncio.create_task(submit(log, number, 3 if how == "hasty" else 20_000)))
                    await _real_sleep(0)
            assert await log.close(timeout_ms=close_ms) == ()
            await asyncio.gather(*tasks)
        events = {f"event-{number}" for number, how in enumerate(posts) if how != "pause"}
        stored = Counter(stub.uids)
        assert not [uid for uid, count in stored.items() if count > 1]
        assert not [uid for uid, count in told.items() if count > 1]
        assert set(stored) <= events
        assert events - set(stored) <= set(told)
        assert not surely_not & set(stored)
        assert all(stub.uids[index] == uid for uid, index in confirmed.items() if index is not None)
        assert not set(told) & set(confirmed)
        submitted = {f"event-{number}" for number, how in enumerate(posts) if how in ("submit", "hasty")}
        assert submitted <= set(told) | set(confirmed)
        in_order = [uid for uid in stub.uids if uid is not None]
        assert in_order == sorted(in_order, key=lambda uid: int(uid.partition("-")[2]))
        assert (log.pending, log.room.events, log.room.bytes) == (0, 0, 0)
        if close_ms == 5_000 and "hasty" not in posts:
            assert not told

    asyncio.run(scenario())


# Without a loop


def test_blocking_submission_brings_results_in_order() -> None:
    stub = EventStub([Fault.RESET_AFTER])
    with stub.serving_aside() as url:
        results = submit_events(url, [event(number) for number in range(3)], token="secret", stream="s", receipts="full")
        with SyncEventSubmitter(url) as log:
            assert log.submit(event(9)) == EventResult(index=3)
            uid = log.post({"action": "posted"})
            assert log.flush()
            assert (log.unsent, log.take_unsent()) == ((), ())
    assert [(result.index, result.duplicate) for result in results] == [(0, True), (1, True), (2, True)]
    assert stub.uids == ["event-0", "event-1", "event-2", "event-9", uid]


def test_blocking_submission_tells_what_it_could_not_deliver() -> None:
    stub = EventStub()
    stub.status = 401
    with stub.serving_aside() as url:
        with pytest.raises(UndeliveredError) as caught:
            submit_events(url, [event(1), event(2)])
        assert [one.event["id"] for one in caught.value.unsent] == ["event-1", "event-2"]
        with pytest.raises(UndeliveredError, match="401"), SyncEventSubmitter(url) as log:
            log.post(event(3))
        with pytest.raises(ZeroDivisionError) as other, SyncEventSubmitter(url) as log:
            1 / len(log.unsent) if log.post(event(3)) else None
        assert "not in the log" in other.value.__notes__[0]
        log = SyncEventSubmitter(url).open()
        log.post(event(4))
        assert [one.event["id"] for one in log.close()] == ["event-4"]
        assert log.close() == ()
        for submit in (log.submit, log.post):
            with pytest.raises(RemoteError, match="closed"):
                submit(event(5))
        with pytest.raises(MalformedError):
            log.post({"action": object()})


def test_blocking_post_waits_for_room_for_so_long_and_no_longer() -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    with stub.serving_aside() as url:
        limits = Limits(queue_events_max=1, request_timeout_ms=300)
        with SyncEventSubmitter(url, limits=limits) as log:
            log.post(event(1))
            for wait_ms in (0, 1):
                with pytest.raises(PushbackError):
                    log.post(event(2), wait_ms=wait_ms)
            log.post(event(3), wait_ms=600_000)
    assert stub.uids == ["event-1", "event-3"]


def test_a_submitter_is_opened_once_and_not_used_across_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    unopened = SyncEventSubmitter("http://127.0.0.1:1")
    with pytest.raises(RemoteError, match="closed"):
        unopened.submit(event(1))
    with pytest.raises(RemoteError, match="closed"):
        unopened.post(event(1))
    assert (unopened.thread_id, unopened.close()) == (None, ())
    assert (unopened._log.room.events, unopened._log.room.bytes) == (0, 0)
    with SyncEventSubmitter("http://127.0.0.1:1") as log:
        with pytest.raises(SettingsError):
            log.open()
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            for use in (lambda: log.submit(event(1)), lambda: log.post(event(1)), log.flush, log.close):
                with pytest.raises(SettingsError, match="made in another process"):
                    use()


# A real log


async def test_a_real_log_finds_duplicates_and_conflicts_and_proves_what_it_has(tmp_path: Path) -> None:
    vkeys = create_log(tmp_path / "log", origin="log.example/events", profile=Profile.EVENTS)
    policy = policy_for(vkeys)
    async with served(tmp_path / "log") as server, Submitter(url_of(server)) as reader:
        async with EventSubmitter(url_of(server), receipts="full") as log:
            first = await log.submit_all([event(number, time=1) for number in range(3)])
            again = await log.submit_all([event(number, time=1) for number in range(3)])
            other = await log.submit(event(1, time=2))
        indexes = [result.index for result in first]
        assert [(result.index, result.duplicate) for result in again] == [(index, True) for index in indexes]
        assert (other.conflicts_with, other.duplicate) == (indexes[1], False)
        for result in (*first, *again, other):
            assert result.index is not None
            assert result.tlog_proof is not None
            (entry,) = await reader.entries(start=result.index, end=result.index + 1)
            receipt = parse_receipt(result.tlog_proof)
            assert verify_receipt(receipt, leaf_hash=hash_leaf(entry), policy=policy).index == result.index
