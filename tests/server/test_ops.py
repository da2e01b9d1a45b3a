"""Health on both listeners, metrics and operator actions on the admin listener only; a held log; a clock that was set."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from translog.log.head import HeadFile
from translog.log.lifecycle import Mode

from .conftest import Serve
from .harness import ORIGIN, Answer, Running, SettableClock, numbered


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SettableClock:
    """The clock of logs that are started in the test."""
    clock = SettableClock()
    monkeypatch.setattr("translog.bootstrap.SystemClock", lambda: clock)
    return clock


async def samples(log: Running) -> dict[str, float]:
    text = (await log.admin("GET", "/metrics")).require_ok().body.decode()
    families = list(text_string_to_metric_families(text))
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


async def test_an_open_log_is_healthy_and_ready_on_both_listeners(log_server: Running) -> None:
    await log_server.grow(numbered(0, 3))
    for path in ("/healthz", "/readyz"):
        for answer in (await log_server.get(path), await log_server.admin("GET", path)):
            assert answer.require_ok().json == {"status": "open", "reason": None, "published_size": 3}
            assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("mode", Mode)
async def test_a_log_is_ready_only_while_it_is_open(log_server: Running, monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(log_server.server.service, "mode", mode)
        ready = await log_server.get("/readyz")
        assert ready.status == (200 if mode is Mode.OPEN else 503)
        assert ready.json["status"] == mode.value
        assert (await log_server.get("/healthz")).require_ok().json["status"] == mode.value
        answer = await log_server.append([b"x"])
        if mode is Mode.OPEN:
            answer.require_ok()
        else:
            answer.problem(503, "read-only" if mode is Mode.HELD else "not-open")
        (await log_server.get("/checkpoint")).require_ok()


async def test_a_held_log_says_why_serves_what_it_has_and_takes_nothing(serve: Serve) -> None:
    log = await serve()
    await log.grow(numbered(0, 3))
    note = (await log.get("/checkpoint")).body
    await log.server.stop()
    head = HeadFile.open(log.directory / "head", origin=ORIGIN)
    head.write(size=9, root=bytes(32))
    head.close()

    held = await serve(directory=log.directory)
    ready = await held.get("/readyz")
    assert (ready.status, ready.json["status"]) == (503, "held")
    assert "older copy" in ready.json["reason"]
    (await held.get("/healthz")).require_ok()
    problem = (await held.append([b"x"])).problem(503, "read-only")
    assert "older copy" in problem["detail"]
    assert problem["hint"]
    assert (await held.get("/checkpoint")).body == note
    for path in ("/tile/0/000.p/3", "/tile/entries/000.p/3", "/v1/entries?start=0&end=3", "/v1/receipts/0", "/v1/log"):
        (await held.get(path)).require_ok()
    assert (await samples(held))["translog_accepting"] == 0


# --- metrics ------------------------------------------------------------------------------------------------------------


async def test_metrics_are_on_the_admin_listener_only(log_server: Running) -> None:
    (await log_server.get("/metrics")).problem(404, "no-such-path")
    (await log_server.request("POST", "/clock/accept")).problem(404, "no-such-path")
    answer = await log_server.admin("GET", "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["Cache-Control"] == "no-store"
    for path in ("/checkpoint", "/v1/log", "/openapi.json", "/tile/0/000.p/1"):
        (await log_server.admin("GET", path)).problem(404, "no-such-path")


async def test_metrics_count_what_happened(log_server: Running) -> None:
    await log_server.append(numbered(0, 7))
    await log_server.get("/tile/0/000.p/7")
    await log_server.get("/tile/0/000.p/5")
    await log_server.get("/nothing-1")
    await log_server.get("/nothing-2")
    await log_server.request("PURGE", "/checkpoint")
    said = await samples(log_server)
    assert said["translog_integrated_size"] == said["translog_published_size"] == said["translog_appended_entries_total"] == 7
    assert said["translog_accepting"] == 1
    assert said["translog_public_requests_total GET /tile/{tile} 200"] == 2
    assert said["translog_public_requests_total GET none 404"] == 2
    assert said["translog_public_requests_total POST /v1/entries 200"] == 1
    assert not [name for name in said if "nothing" in name or "PURGE" in name]


async def test_the_admin_listener_can_be_switched_off(serve: Serve) -> None:
    log = await serve(admin_listen="")
    assert log.server.admin_address == ""
    (await log.get("/healthz")).require_ok()


async def test_refused_appends_are_counted_by_reason(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(log_server.server.service, "mode", Mode.REOPENING)
        await log_server.append([b"x"])
    assert (await samples(log_server))["translog_pushbacks_total not-open"] == 1


# --- the clock ----------------------------------------------------------------------------------------------------------


async def appended(log: Running) -> Answer:
    return await log.append([b"x"])


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000, 10_001 + 5_000])
async def test_a_clock_that_was_set_pauses_appends_until_it_is_accepted(
    serve: Serve, clock: SettableClock, jump_ms: int
) -> None:
    log = await serve()
    (await appended(log)).require_ok()
    clock.offset_ms = jump_ms
    problem = (await appended(log)).problem(503, "clock-jumped")
    assert "/clock/accept" in problem["hint"]
    (await log.get("/checkpoint")).require_ok()
    answer = await log.admin("POST", "/clock/accept", Translog_Operator="alice")
    assert abs(answer.require_ok().json["jump_ms"] - jump_ms) < 1_000
    (await appended(log)).require_ok()


async def test_appends_go_on_by_themselves_when_the_clock_is_right_again(serve: Serve, clock: SettableClock) -> None:
    log = await serve()
    clock.offset_ms = 3_600_000
    (await appended(log)).problem(503, "clock-jumped")
    clock.offset_ms = 0
    (await appended(log)).require_ok()


BAD_OPERATORS: dict[str, tuple[str, dict[str, str]]] = {
    "none": ("no-operator", {}),
    "a form": ("no-operator", {"Content_Type": "text/plain"}),
    "a page": ("from-page", {"Origin": "https://evil.example", "Translog_Operator": "alice"}),
    "a page without Origin": ("from-page", {"Sec_Fetch_Site": "cross-site", "Translog_Operator": "alice"}),
    "a name pointed here": ("from-page", {"Host": "evil.example:6963", "Translog_Operator": "alice"}),
}


@pytest.mark.parametrize("who", BAD_OPERATORS)
async def test_operator_actions_say_who_acts_and_do_not_come_from_pages(serve: Serve, clock: SettableClock, who: str) -> None:
    log = await serve()
    clock.offset_ms = 3_600_000
    code, headers = BAD_OPERATORS[who]
    (await log.admin("POST", "/clock/accept", **headers)).problem(403, code)
    (await log.admin("GET", "/clock/accept", Translog_Operator="alice")).problem(405)
    (await appended(log)).problem(503, "clock-jumped")
