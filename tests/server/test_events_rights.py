"""Who may write, read and see audit events, and what nobody is ever told."""

import pytest
import structlog

from translog.bootstrap import configure_logging
from translog.core.proof import parse_receipt

from .conftest import Serve
from .event_log import (
    ADMIN,
    AUDITOR,
    EVENTS,
    JSON,
    NDJSON,
    OCSF,
    break_mapping,
    by,
    dumps,
    entries,
    entry_bytes,
    index_of,
    member,
    record,
    send,
    serve_members,
    take,
)
from .harness import Running

# --- rights -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", ["none", "own", "all"])
@pytest.mark.parametrize("may_append", [True, False])
async def test_what_a_member_may(serve: Serve, reads: str, may_append: bool) -> None:
    log = await serve_members(serve, member("acme", reads=reads, may_append=may_append), member("other", reads="none"))
    await take(log, record("theirs"), **by("other"))
    for path, body, content_type in (
        (EVENTS, dumps(record("mine")), JSON),
        ("/v1/sources/ocsf/s", dumps(OCSF), JSON),
        ("/v1/logs", b"{}", JSON),
        ("/services/collector", b'{"event":"x"}', JSON),
        ("/services/collector/raw", b"x", "text/plain"),
    ):
        answer = await log.post(path, body, content_type, **by("acme"))
        assert answer.status == (200 if may_append else 403), path
    mine = None
    if may_append:
        mine = (await take(log, record("mine"), **by("acme")))[0]["index"]
        assert (await log.get(f"{EVENTS}/{mine}", **by("acme"))).status == (403 if reads == "none" else 200)
        assert (await log.get(f"{EVENTS}/{mine}/evidence", **by("acme"))).status == (403 if reads == "none" else 200)
    for index in (0, 1):
        assert (await log.get(f"{EVENTS}/{index}", **by("acme"))).status == (200 if reads == "all" else 403)
        assert (await log.get(f"{EVENTS}/{index}/evidence", **by("acme"))).status == (200 if reads == "all" else 403)
    seen = {item["member"] for item in (await log.get("/v1/streams", **by("acme"))).require_ok().json["streams"]}
    wanted = {
        "none": set(),
        "own": {"acme"} if may_append else set(),
        "all": {"log", "other"} | ({"acme"} if may_append else set()),
    }
    assert seen == wanted[reads]


async def test_nobody_may_nothing(serve: Serve) -> None:
    log = await serve_members(serve, member("acme"))
    await take(log, record("a"), **by("acme"))
    before = await entry_bytes(log)
    for answer in (
        await send(log, record()),
        await log.post("/v1/sources/ocsf/s", dumps(OCSF), JSON),
        await log.post("/v1/streams/s", b"{}", NDJSON),
        await log.get(f"{EVENTS}/1"),
        await log.get(f"{EVENTS}/1/evidence"),
        await log.get("/v1/streams"),
        await send(log, record(), **by("nobody")),
        await log.get(f"{EVENTS}/1", **by("nobody")),
    ):
        answer.problem(401, "unauthenticated")
    assert await entry_bytes(log) == before


async def test_who_may_not_read_entries_is_not_told_whose_an_event_is(serve: Serve) -> None:
    log = await serve_members(serve, member("acme"), member("other"), public_read="listed")
    await take(log, record("a"), **by("acme"))
    answer = await log.get(f"{EVENTS}/1", **by("other"))
    answer.problem(403, "not-your-event")
    assert b"acme" not in answer.body


async def test_a_program_on_this_machine_reads_what_this_machine_wrote(event_log: Running, serve: Serve) -> None:
    index = await index_of(event_log, record("a"))
    (await event_log.get(f"{EVENTS}/{index}")).require_ok()
    (await event_log.get(ADMIN)).problem(403, "not-your-event")
    await event_log.server.stop()
    log = await serve(directory=event_log.directory, members=(member("acme"), AUDITOR))
    (await log.get(f"{EVENTS}/{index}")).problem(401)
    (await log.get(f"{EVENTS}/{index}", **by("acme"))).problem(403)
    (await log.get(f"{EVENTS}/{index}", **by("auditor"))).require_ok()


async def test_a_page_in_a_browser_neither_writes_nor_reads(event_log: Running) -> None:
    index = await index_of(event_log, record("a"))
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"X-Forwarded-For": "192.0.2.1"}):
        (await send(event_log, record("b"), **headers)).problem(401)
        (await event_log.get(f"{EVENTS}/{index}", **headers)).problem(401)
        (await event_log.get("/v1/streams", **headers)).problem(401)
    assert len(await entries(event_log)) == 1


NOT_EVENTS = (
    ("POST", EVENTS),
    ("POST", "/v1/sources/kubernetes/s"),
    ("POST", "/v1/streams/s"),
    ("POST", "/v1/logs"),
    ("POST", "/v1/audit"),
    ("POST", "/services/collector"),
    ("POST", "/services/collector/event"),
    ("POST", "/services/collector/raw"),
    ("GET", "/services/collector/health"),
    ("GET", f"{EVENTS}/0"),
    ("GET", f"{EVENTS}/0/evidence"),
    ("GET", "/v1/streams"),
)


@pytest.mark.parametrize(("method", "path"), NOT_EVENTS)
async def test_an_opaque_log_takes_and_has_no_events(log_server: Running, method: str, path: str) -> None:
    await log_server.grow([b"x"])
    answer = await log_server.request(method, path, body=b"{}" if method == "POST" else None, Content_Type=JSON)
    assert answer.status == 404
    assert b"audit events" in answer.body
    assert await entry_bytes(log_server) == [b"x"]


@pytest.mark.parametrize("path", ["/add", "/v1/entries"])
async def test_a_log_of_events_takes_no_other_entries(event_log: Running, path: str) -> None:
    (await event_log.post(path, b"\0\1a")).problem(404, "not-opaque")
    assert len(await entry_bytes(event_log)) == 1


# --- what must not be told ----------------------------------------------------------------------------------------------


async def test_secrets_are_in_no_answer_and_no_log_line(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = b"the-webhook-secret-of-acme"
    configure_logging()
    try:
        log = await serve_members(
            serve, member("acme", webhook_secret_file="hook"), AUDITOR, secrets={"hook": secret}, access_log=True
        )
        bodies = [
            (await send(log, record("a", reason="private-reason"), **by("acme"))).body,
            (await log.post("/v1/sources/github/s", b"{}", JSON, **{"X-Hub-Signature-256": "sha256=00"})).body,
            (await log.get("/v1/log")).body,
            (await log.get("/openapi.json")).body,
            (await log.get("/v1/streams", **by("auditor"))).body,
            (await log.admin("GET", "/metrics")).body,
        ]
        break_mapping(monkeypatch)
        bodies.append((await send(log, record("b", reason="private-reason"), **by("acme"))).body)
        bodies.append((await log.post("/v1/sources/ocsf/s", dumps(OCSF), JSON, **by("acme"))).body)
        vault = (log.directory / "vault" / "keys.json").read_text()
        keys = [(log.directory / "keys" / name).read_text().strip().splitlines()[-1] for name in ("kek.key", "dedup.key")]
    finally:
        structlog.reset_defaults()
    told = b"\n".join(bodies).decode() + "".join(capfd.readouterr())
    assert "a push failed" in told
    assert '"wrapped"' in vault
    for value in (secret.decode(), "acme-token", "auditor-token", "private-reason", *keys):
        assert value not in told, value


async def test_the_same_event_twice_has_two_roots(event_log: Running) -> None:
    """Who sees the public entries alone cannot tell that it is the same: seeds are random."""
    await take(event_log, [record(), record()])
    one, two = await entries(event_log)
    assert one.root != two.root


async def test_receipts_of_events_are_those_of_entries(event_log: Running) -> None:
    index = await index_of(event_log, record("a"))
    receipt = (await event_log.get(f"/v1/receipts/{index}")).require_ok()
    assert parse_receipt(receipt.body).index == index
    assert await event_log.verify(receipt.body, (await entry_bytes(event_log))[index]) == index
