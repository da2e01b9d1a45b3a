"""Health on both listeners, metrics and operator actions on the admin listener only; a held log; a clock that was set."""

import asyncio
from typing import Any

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from translog.log.head import HeadFile
from translog.log.lifecycle import Mode

from .conftest import Serve
from .harness import ORIGIN, Answer, Running, SettableClock, numbered, raw, request_bytes


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
        public, admin = await log_server.get(path), await log_server.admin("GET", path)
        assert public.require_ok().json == {"status": "open", "code": None, "published_size": 3, "unwitnessed_since_ms": None}
        assert admin.require_ok().json == public.json | {"reason": None}
        assert public.headers["Cache-Control"] == admin.headers["Cache-Control"] == "no-store"


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
    assert (ready.status, ready.json["status"], ready.json["code"]) == (503, "held", "store-behind-head")
    assert ready.headers["Retry-After"] == "300"
    assert "older copy" in (await held.admin("GET", "/readyz")).json["reason"]
    (await held.get("/healthz")).require_ok()
    answer = await held.append([b"x"])
    assert answer.problem(503, "read-only")["hint"]
    assert answer.headers["Retry-After"] == "300"
    assert (await held.get("/checkpoint")).body == note
    for path in ("/tile/0/000.p/3", "/tile/entries/000.p/3", "/v1/entries?start=0&end=3", "/v1/receipts/0", "/v1/log"):
        (await held.get(path)).require_ok()
    assert (await samples(held))["translog_accepting"] == 0


async def test_which_files_a_held_log_misses_is_for_the_operator_only(serve: Serve) -> None:
    log = await serve()
    await log.grow([b"x"])
    await log.server.stop()
    (log.directory / "head").unlink()
    held = await serve(directory=log.directory)
    for path in ("/readyz", "/healthz"):
        said = (await held.get(path)).json
        assert (said["code"], set(said)) == ("head-lost", {"status", "code", "published_size", "unwitnessed_since_ms"})
        admin = (await held.admin("GET", path)).json
        assert (admin["code"], str(held.directory) in admin["reason"]) == ("head-lost", True)
    with structlog.testing.capture_logs() as logs:
        answer = await held.post("/add", b"y")
    answer.problem(503, "read-only")
    assert str(held.directory).encode() not in answer.body
    assert str(held.directory) in str(logs)


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


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:6963", "localhost.evil.example", "127.0.0.1.evil.example", "["])
async def test_no_page_reads_the_admin_listener_under_a_name_it_points_here(log_server: Running, path: str, host: str) -> None:
    (await log_server.admin("GET", path, Host=host)).problem(403, "unknown-host")


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3:6963", "[::1]:6963", "localhost", "LOCALHOST:6963"])
async def test_metrics_are_scraped_by_address_or_as_localhost(log_server: Running, host: str) -> None:
    (await log_server.admin("GET", "/metrics", Host=host)).require_ok()


async def test_the_name_in_admin_listen_is_the_admin_listeners(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = asyncio.BaseEventLoop.getaddrinfo

    async def to_loopback(loop: Any, host: Any, port: Any, **rest: Any) -> Any:
        return await resolve(loop, "127.0.0.1" if host == "Metrics.Internal" else host, port, **rest)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", to_loopback)
    log = await serve(admin_listen="Metrics.Internal:0")
    port = log.server.admin_address.rpartition(":")[2]
    for host, status in (("metrics.internal", 200), (f"metrics.internal:{port}", 200), ("other.internal", 403)):
        request = request_bytes("GET", "/metrics").replace(b"Host: 127.0.0.1", f"Host: {host}".encode())
        assert (await raw(f"127.0.0.1:{port}", request)).status == status


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
    "nobody": ("no-operator", {"Translog_Operator": "  "}),
    "a form": ("no-operator", {"Content_Type": "text/plain"}),
    "a page": ("from-page", {"Origin": "https://evil.example", "Translog_Operator": "alice"}),
    "a page without Origin": ("from-page", {"Sec_Fetch_Site": "cross-site", "Translog_Operator": "alice"}),
    "a name pointed here": ("unknown-host", {"Host": "evil.example:6963", "Translog_Operator": "alice"}),
}


@pytest.mark.parametrize("who", BAD_OPERATORS)
async def test_operator_actions_say_who_acts_and_do_not_come_from_pages(serve: Serve, clock: SettableClock, who: str) -> None:
    log = await serve()
    clock.offset_ms = 3_600_000
    code, headers = BAD_OPERATORS[who]
    (await log.admin("POST", "/clock/accept", **headers)).problem(403, code)
    (await log.admin("GET", "/clock/accept", Translog_Operator="alice")).problem(405)
    (await appended(log)).problem(503, "clock-jumped")
