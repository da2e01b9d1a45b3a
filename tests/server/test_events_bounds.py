"""What a request may not do to a log of events, to other senders or to the truth of an answer."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from translog.errors import CorruptionError, PushbackError
from translog.events.texts import Header, format_header
from translog.log.access import LogAccess, Mode
from translog.server import events_read_api, intake
from translog.server.intake import Intake
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import EVENTS, JSON, by, entries, entry_bytes, index_of, member, record, send
from .harness import NDJSON, ORIGIN, Running, until
from .test_sealed import PATH, body_of, sealed, whole


async def test_what_is_logged_in_part_is_told_as_unknown(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events whose ids are taken go in a second round; whoever is pushed back there must not be told that nothing is
    written."""
    await index_of(event_log, record("taken"))
    append = LogAccess.append_events
    calls: list[int] = []

    async def second_fails(self: LogAccess, items: Any, **options: Any) -> Any:
        calls.append(len(items))
        if len(calls) == 2:
            raise PushbackError("the log is busy", code="pool-full", retry_after_ms=1)
        return await append(self, items, **options)

    batch = [record("new"), record("taken", reason="other")]
    with monkeypatch.context() as patch:
        patch.setattr(LogAccess, "append_events", second_fails)
        (await send(event_log, batch)).problem(503, "outcome-unknown")
    assert calls == [2, 1]
    assert len(await entries(event_log)) == 2
    results = (await send(event_log, batch)).require_ok().json["results"]
    assert [result["duplicate"] for result in results] == [True, False]
    assert results[1]["conflicts_with"] == 1


async def test_what_is_pushed_back_as_a_whole_is_told_so(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the second round, if nothing was logged in the first."""
    await index_of(event_log, record("taken"))
    append = LogAccess.append_events
    calls: list[int] = []

    async def second_fails(self: LogAccess, items: Any, **options: Any) -> Any:
        calls.append(len(items))
        if len(calls) == 2:
            raise PushbackError("the log is busy", code="pool-full", retry_after_ms=1)
        return await append(self, items, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LogAccess, "append_events", second_fails)
        (await send(event_log, [record("taken", reason="other")])).problem(503, "pool-full")
    assert len(await entries(event_log)) == 1


async def test_a_rejection_says_which_also_to_those_who_want_no_results(event_log: Running) -> None:
    await index_of(event_log, record("taken"))
    answer = await send(
        event_log, [record("new"), record("taken", reason="other")], "?on_conflict=reject&receipts=none&ack=durable"
    )
    assert answer.status == 409
    results = json.loads(answer.body)["results"]
    assert [(result["index"], result["conflicts_with"]) for result in results] == [(2, None), (None, 1)]


@pytest.mark.parametrize("text", [b'[ "count",1]', b'["count" ,1]', b'["count"\n,1]', b' ["count",1]', b'["count",1] '])
async def test_a_sealed_text_with_space_around_its_name_is_refused(event_log: Running, text: bytes) -> None:
    """It could not be given back as it is."""
    header = format_header(Header(origin=ORIGIN, member="local", stream="agent", names=("count",)))
    line = whole(sealed()) | {"texts": [header.decode(), text.decode()]}
    (await event_log.post(PATH, body_of(0, [line]), NDJSON)).problem(400, "not-sealed")
    assert await entries(event_log) == []


async def test_who_is_not_known_is_asked_for_credentials_whatever_the_entry_is(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, members=(member("acme", reads="all"),), public_read="listed")
    (await send(log, record("a"), **by("acme"))).require_ok()
    for index in (0, 1):
        (await log.get(f"{EVENTS}/{index}")).problem(401, "unauthenticated")
    (await log.get("/v1/streams")).problem(401, "unauthenticated")
    (await log.post("/v1/sources/nope/s", b"{}", JSON)).problem(401, "unauthenticated")
    (await log.post("/v1/sources/nope/s", b"{}", JSON, **by("acme"))).problem(404, "no-such-source")


async def test_evidence_that_no_verifier_would_read_is_not_made(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    index = await index_of(event_log, record("a", context={"x": "y" * 5_000}))
    monkeypatch.setattr(events_read_api, "EVIDENCE_BYTES_MAX", 5_000)
    problem = (await event_log.get(f"{EVENTS}/{index}/evidence")).problem(413, "evidence-too-large")
    assert "fields" in problem["hint"]
    (await event_log.get(f"{EVENTS}/{index}/evidence?fields=time,actor")).require_ok()


async def test_an_action_that_cannot_be_logged_is_not_done(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    service = event_log.server.service
    service._hold(CorruptionError("made up"))
    assert service.mode is Mode.HELD
    accepted: list[str] = []
    monkeypatch.setattr(service, "accept_clock", accepted.append)
    answer = await event_log.admin("POST", "/clock/accept", **{"Translog-Operator": "olga"})
    answer.problem(503, "not-open")
    assert accepted == []


async def test_an_action_is_logged_with_who_did_it(event_log: Running) -> None:
    (await event_log.admin("POST", "/clock/accept", **{"Translog-Operator": "olga"})).require_ok()
    every = await entry_bytes(event_log)
    assert len(every) == 2
    assert b'"member":"log","stream":"admin","seq":1' in every[1]


async def test_a_stop_does_not_wait_for_what_is_being_prepared(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, drain_timeout_ms=200)
    assert log.server.service.mode is Mode.OPEN
    release = threading.Event()
    (found,) = _intakes(log)
    work = asyncio.create_task(found.in_thread(release.wait))
    await asyncio.sleep(0.05)
    begin = asyncio.get_running_loop().time()
    try:
        await log.server.stop()
        assert asyncio.get_running_loop().time() - begin < 5
    finally:
        release.set()
        await work


def _intakes(log: Running) -> list[Intake]:
    """The intake among what the server closes at its end."""
    callbacks: list[Callable[..., Any]] = [callback for _, callback in log.server._stack._exit_callbacks]  # type: ignore[attr-defined]
    closing = [callback.__wrapped__ for callback in callbacks if hasattr(callback, "__wrapped__")]
    return [close.__self__ for close in closing if isinstance(getattr(close, "__self__", None), Intake)]


@pytest.mark.parametrize(("wait_s", "between"), [(10, False), (0.001, True)], ids=["gives way", "not for ever"])
async def test_a_large_batch_gives_way_to_small_ones(
    event_log: Running, monkeypatch: pytest.MonkeyPatch, wait_s: float, between: bool
) -> None:
    """While a small batch is prepared, no turn of a large one comes in between, unless it has waited its time."""
    turns: list[str] = []
    in_thread = Intake.in_thread

    async def told(self: Intake, work: Any) -> Any:
        items = getattr(work, "args", [[]])[-1]
        name = "" if not items else "small" if b"small" in items[0].raw else "large"
        turns.append(name)
        result = await in_thread(self, work)
        if name == "small":
            await asyncio.sleep(0.02)
        return result

    async def post(name: str, count: int) -> None:
        records = [record(f"{name}{number}") for number in range(count)]
        (await send(event_log, records, "?receipts=none&ack=durable")).require_ok()

    monkeypatch.setattr(Intake, "in_thread", told)
    monkeypatch.setattr(intake, "_GIVE_WAY_S", wait_s)
    large = asyncio.create_task(post("large", 5_000))
    await until(lambda: turns.count("large") >= 3)
    await post("small", 400)
    await large
    first, last = turns.index("small"), len(turns) - turns[::-1].index("small")
    assert ("large" in turns[first:last]) == between
    assert turns.count("large") == 79
    assert len(await entries(event_log)) == 5_400
