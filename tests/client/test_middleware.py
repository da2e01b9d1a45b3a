"""The middlewares: an event for each request, the trace through it, and no request that fails for the log's sake."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from client.event_stub import EventStub, Fault
from translog.client.delivery import Unsent
from translog.client.events import EventSubmitter
from translog.client.middleware import AuditASGI, audit_middleware, trace_config
from translog.client.pending import Limits
from translog.client.trace import current, outgoing_headers

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b"}
Message = MutableMapping[str, Any]


def events(stub: EventStub) -> list[dict[str, Any]]:
    return [json.loads(data) for _, data in stub.stored]


async def item(request: web.Request) -> web.Response:
    return web.json_response(outgoing_headers())


async def forbidden(request: web.Request) -> web.Response:
    raise web.HTTPForbidden(text="no")


async def conflict(request: web.Request) -> web.Response:
    return web.Response(status=409)


async def broken(request: web.Request) -> web.Response:
    raise KeyError("a secret")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"sent")
    return response


@asynccontextmanager
async def audited(
    stub: EventStub, *, limits: Limits | None = None, on_unsent: Callable[[Unsent], None] | None = None, **options: Any
) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    told = on_unsent or (lambda unsent: None)
    async with stub.serving() as url, EventSubmitter(url, on_unsent=told, limits=limits) as log:
        app = web.Application(middlewares=[audit_middleware(log, **options)])
        app.router.add_get("/items/{id}", item)
        app.router.add_delete("/items/{id}", forbidden)
        app.router.add_post("/items", conflict)
        app.router.add_get("/broken", broken)
        app.router.add_get("/stream", stream)
        async with TestClient(TestServer(app, host="127.0.0.1")) as client:
            yield client
            assert await log.flush() or options.get("required")


# aiohttp


async def test_a_request_becomes_an_event_without_its_query() -> None:
    stub = EventStub()
    async with audited(stub, who=lambda request: request.headers.get("X-User")) as client:
        response = await client.get("/items/7?password=hunter2", headers={**PARENT, "User-Agent": "agent/1", "X-User": "alice"})
        assert response.status == 200
        passed_on = await response.json()
    (event,) = events(stub)
    assert "hunter2" not in json.dumps(event)
    assert event.pop("duration_ms") >= 0
    assert event.pop("src_port") > 0
    span = event.pop("span_id")
    assert event.pop("id")
    assert event.pop("time")
    assert event == {
        "action": "GET /items/{id}",
        "resource": "/items/7",
        "actor": "alice",
        "outcome": "success",
        "http": {"method": "GET", "url": "/items/7", "status": 200},
        "trace_id": TRACE,
        "parent_span_id": SPAN,
        "src_ip": "127.0.0.1",
        "user_agent": "agent/1",
    }
    assert passed_on == {"traceparent": f"00-{TRACE}-{span}-01", "tracestate": "a=b"}
    assert current.get() is None


OUTCOMES = [
    ("DELETE", "/items/7", 403, {"action": "DELETE /items/{id}", "outcome": "failure", "decision": "denied"}),
    ("POST", "/items", 409, {"action": "POST /items", "outcome": "failure"}),
    ("GET", "/broken", 500, {"action": "GET /broken", "outcome": "failure", "reason": "KeyError"}),
    ("GET", "/nowhere", 404, {"action": "GET", "outcome": "failure"}),
    ("GET", "/stream", 200, {"action": "GET /stream", "outcome": "success"}),
]


@pytest.mark.parametrize(("method", "path", "status", "expected"), OUTCOMES)
@pytest.mark.parametrize("required", [False, True])
async def test_outcomes_by_status_and_exception(
    method: str, path: str, status: int, expected: dict[str, str], required: bool
) -> None:
    stub = EventStub()
    async with audited(stub, required=required) as client:
        assert (await client.request(method, path)).status == status
    (event,) = events(stub)
    assert {name: event[name] for name in ("action", "outcome", "reason", "decision") if name in event} == expected
    assert (event["http"]["status"], event["resource"], "actor" in event) == (status, path, False)
    assert "a secret" not in json.dumps(event)


@pytest.mark.parametrize(
    "headers", [{}, {"traceparent": f"00-{'0' * 32}-{SPAN}-01"}, {"traceparent": "x", "tracestate": "a=b"}]
)
async def test_a_trace_begins_where_the_request_brings_none(headers: dict[str, str]) -> None:
    stub = EventStub()
    async with audited(stub) as client:
        passed_on = await (await client.get("/items/7", headers=headers)).json()
        await client.get("/items/8", headers=headers)
    first, second = events(stub)
    assert passed_on == {"traceparent": f"00-{first['trace_id']}-{first['span_id']}-01"}
    assert len({TRACE, first["trace_id"], second["trace_id"]}) == 3
    assert "parent_span_id" not in first


async def test_the_span_ends_with_the_request() -> None:
    after: list[object] = []

    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        after.append(current.get())
        return response

    stub = EventStub()
    async with stub.serving() as url, EventSubmitter(url) as log:
        app = web.Application(middlewares=[outer, audit_middleware(log)])
        app.router.add_get("/items/{id}", item)
        async with TestClient(TestServer(app, host="127.0.0.1")) as client:
            assert (await client.get("/items/7")).status == 200
    assert after == [None]


async def test_a_log_that_fails_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    told: list[Unsent] = []
    limits = Limits(queue_events_max=2, request_timeout_ms=300, batch_age_ms=0)
    async with audited(stub, on_unsent=told.append, limits=limits) as client:
        for number in range(3):
            assert (await client.get(f"/items/{number}")).status == 200
        assert "a request was not logged, the event is lost" in caplog.text
        stub.status = 403
    assert [unsent.event["resource"] for unsent in told] == ["/items/0", "/items/1"]


async def test_a_who_that_fails_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    stub = EventStub()
    async with audited(stub, who=lambda request: request["no such key"]) as client:
        assert (await client.get("/items/7")).status == 200
    assert "actor" not in events(stub)[0]
    assert "the function that finds a request's actor failed" in caplog.text


@pytest.mark.parametrize(("method", "path"), [("GET", "/items/7"), ("DELETE", "/items/7"), ("GET", "/nowhere")])
async def test_a_required_event_that_is_not_logged_makes_it_503(method: str, path: str) -> None:
    stub = EventStub()
    async with audited(stub, required=True) as client:
        stub.status = 403
        response = await client.request(method, path)
        assert (response.status, await response.text()) == (503, "the request could not be logged\n")
        stub.status = None
        assert (await client.request(method, path)).status != 503
        assert len(stub.stored) == 1


async def test_a_required_event_has_its_own_deadline() -> None:
    stub = EventStub([Fault.SLOW_BEFORE])
    async with audited(stub, required=True, timeout_ms=50, limits=Limits(request_timeout_ms=500)) as client:
        assert (await client.get("/items/7")).status == 503


async def test_a_defect_of_the_application_stays_its_own_where_the_event_is_required(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stub = EventStub()
    stub.status = 403
    async with audited(stub, required=True) as client:
        assert (await client.get("/broken")).status == 500
    assert "KeyError: 'a secret'" in caplog.text


async def test_a_response_that_is_on_its_way_cannot_be_held_back() -> None:
    stub = EventStub()
    stub.status = 403
    async with audited(stub, required=True) as client:
        response = await client.get("/stream")
        assert (response.status, await response.read()) == (200, b"sent")


@pytest.mark.parametrize("required", [False, True])
async def test_a_request_whose_client_left_has_an_unknown_outcome(required: bool) -> None:
    stub = EventStub([Fault.SLOW_BEFORE])  # for longer than anybody waits for it
    limits = Limits(request_timeout_ms=200)
    async with stub.serving() as url, EventSubmitter(url, limits=limits) as log:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def handler(request: web.Request) -> web.Response:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return web.Response()

        app = web.Application(middlewares=[audit_middleware(log, required=required, timeout_ms=20)])
        app.router.add_get("/slow", handler)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            request = asyncio.create_task(session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/slow"))
            await begun.wait()
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        async with asyncio.timeout(10):
            await ended.wait()
        await runner.cleanup()
    (event,) = events(stub)
    assert (event["outcome"], "status" in event["http"]) == ("unknown", False)
    assert event["reason"] == "the client disconnected, or the server stopped"


async def test_outgoing_requests_carry_the_span_and_replace_what_was_set() -> None:
    seen: list[dict[str, list[str]]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append({name: request.headers.getall(name, []) for name in ("traceparent", "tracestate")})
        return web.Response()

    stub = EventStub()
    other = web.Application()
    other.router.add_get("/", handler)
    async with TestServer(other, host="127.0.0.1") as server, stub.serving() as url, EventSubmitter(url) as log:

        async def call(request: web.Request) -> web.Response:
            async with aiohttp.ClientSession(trace_configs=[trace_config()]) as session:
                await session.get(server.make_url("/"), headers={"traceparent": "old", "Tracestate": "old=1"})
            return web.Response()

        app = web.Application(middlewares=[audit_middleware(log)])
        app.router.add_get("/", call)
        async with TestClient(TestServer(app, host="127.0.0.1")) as client:
            await client.get("/", headers=PARENT)
            await client.get("/")
        async with aiohttp.ClientSession(trace_configs=[trace_config()]) as session:
            await session.get(server.make_url("/"), headers={"traceparent": "kept", "tracestate": "kept=1"})
    first, second = events(stub)
    assert seen == [
        {"traceparent": [f"00-{TRACE}-{first['span_id']}-01"], "tracestate": ["a=b"]},
        {"traceparent": [f"00-{second['trace_id']}-{second['span_id']}-01"], "tracestate": []},
        {"traceparent": ["kept"], "tracestate": ["kept=1"]},
    ]


# ASGI


SCOPE = {
    "type": "http",
    "method": "PUT",
    "path": "/items/7",
    "query_string": b"password=hunter2",
    "headers": [(b"user-agent", b"agent/1"), *((name.encode(), value.encode()) for name, value in PARENT.items())],
    "client": ("192.0.2.1", 4711),
}


class Exchange:
    """One request to an ASGI application; `sent` is what came back."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b""}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int | None:
        return next((message["status"] for message in self.sent if message["type"] == "http.response.start"), None)


def answering(status: int, seen: list[dict[str, str]] | None = None) -> Any:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        scope["route"] = SimpleNamespace(path="/items/{id}")
        if seen is not None:
            seen.append(outgoing_headers())
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"secret answer"})

    return app


async def failing(scope: Message, receive: Any, send: Any) -> None:
    raise KeyError("a secret")


async def silent(scope: Message, receive: Any, send: Any) -> None:
    return None


async def exchange(stub: EventStub, app: Any, *, scope: Message | None = None, **options: Any) -> Exchange:
    made = Exchange()
    async with stub.serving() as url, EventSubmitter(url, on_unsent=lambda unsent: None) as log:
        await AuditASGI(app, log, **options)(dict(scope or SCOPE), made.receive, made.send)
    return made


@pytest.mark.parametrize("required", [False, True])
async def test_asgi_requests_become_events_too(required: bool) -> None:
    stub, seen = EventStub(), list[dict[str, str]]()
    made = await exchange(stub, answering(201, seen), who=lambda scope: {"uid": scope["client"][0]}, required=required)
    (event,) = events(stub)
    span = event.pop("span_id")
    for name in ("id", "time", "duration_ms"):
        assert event.pop(name) is not None
    assert event == {
        "action": "PUT /items/{id}",
        "resource": "/items/7",
        "actor": {"uid": "192.0.2.1"},
        "outcome": "success",
        "http": {"method": "PUT", "url": "/items/7", "status": 201},
        "trace_id": TRACE,
        "parent_span_id": SPAN,
        "src_ip": "192.0.2.1",
        "src_port": 4711,
        "user_agent": "agent/1",
    }
    assert seen == [{"traceparent": f"00-{TRACE}-{span}-01", "tracestate": "a=b"}]
    assert (made.status, made.sent[-1]["body"], current.get()) == (201, b"secret answer", None)


@pytest.mark.parametrize(("status", "outcome"), [(200, "success"), (302, "success"), (400, "failure"), (500, "failure")])
async def test_asgi_outcomes(status: int, outcome: str) -> None:
    stub = EventStub()
    await exchange(stub, answering(status))
    assert (events(stub)[0]["outcome"], events(stub)[0]["http"]["status"]) == (outcome, status)


async def test_asgi_exceptions_are_failures_and_go_on() -> None:
    stub = EventStub()
    with pytest.raises(KeyError):
        await exchange(stub, failing)
    (event,) = events(stub)
    assert (event["outcome"], event["reason"], event["http"]["status"], event["action"]) == ("failure", "KeyError", 500, "PUT")
    assert "a secret" not in json.dumps(event)


async def test_asgi_with_a_log_that_fails() -> None:
    stub = EventStub()
    stub.status = 403
    assert (await exchange(stub, answering(200))).status == 200
    made = await exchange(stub, answering(200), required=True)
    assert [message["type"] for message in made.sent] == ["http.response.start", "http.response.body"]
    assert (made.status, made.sent[1]["body"]) == (503, b"the request could not be logged\n")
    assert (await exchange(stub, silent, required=True)).status == 503


async def test_asgi_applications_that_say_nothing_and_other_scopes() -> None:
    stub = EventStub()
    assert (await exchange(stub, silent)).sent == []
    assert events(stub)[0]["outcome"] == "unknown"
    made = await exchange(stub, answering(200), scope={"type": "websocket"}, required=True)
    assert (made.status, len(stub.stored)) == (200, 1)
    bare = {"type": "http", "method": "GET", "path": "/\ud800" + "x" * 9_000, "client": None}
    await exchange(stub, silent, scope=bare)
    event = events(stub)[1]
    assert event["resource"].startswith("/\\ud800xxx")
    assert len(event["resource"]) < 5_000
    assert not {"src_ip", "src_port", "user_agent", "parent_span_id"} & set(event)


# What cannot be JSON


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Mute:
    def __str__(self) -> str:
        raise ZeroDivisionError


ODD_ACTORS = [
    ("alice\udcff", "alice\\udcff"),
    ({"uid": "\ud800", 3: float("nan")}, {"uid": "\\ud800", "3": "nan"}),
    ({"uid": 10**5_000}, {"uid": hex(10**5_000)}),
    (nested(500), None),
    (Mute(), None),
]


@pytest.mark.parametrize(("actor", "expected"), ODD_ACTORS, ids=range(len(ODD_ACTORS)))
@pytest.mark.parametrize("required", [False, True])
async def test_no_odd_actor_loses_an_event(actor: Any, expected: Any, required: bool) -> None:
    stub = EventStub()
    async with audited(stub, who=lambda request: actor, required=required) as client:
        assert (await client.get("/items/7")).status == 200
    made = await exchange(stub, answering(200), who=lambda scope: actor, required=required)
    assert made.status == 200
    assert [event["outcome"] for event in events(stub)] == ["success", "success"]
    if expected is not None:
        assert [event["actor"] for event in events(stub)] == [expected, expected]
    assert [("actor" in event) for event in events(stub)] == [not isinstance(actor, Mute)] * 2


async def test_a_header_that_is_not_utf8_hides_no_request() -> None:
    stub = EventStub()
    async with audited(stub, who=lambda request: request.headers["X-User"]) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        fields = b"Host: a\r\nConnection: close\r\nX-User: alice\xff\r\nUser-Agent: agent\xff\r\n"
        writer.write(b"GET /items/7%ff HTTP/1.1\r\n" + fields + b"\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    (event,) = events(stub)
    assert (event["actor"], event["user_agent"]) == ("alice\\udcff", "agent\\udcff")


HUGE: list[list[int]] = [[]] * 100_001
"""JSON, but of more values than one event may have."""


@pytest.mark.parametrize("required", [False, True])
async def test_an_event_that_cannot_be_sent_whole_is_sent_reduced(required: bool, caplog: pytest.LogCaptureFixture) -> None:
    stub = EventStub()
    status = 503 if required else 200
    async with audited(stub, who=lambda request: HUGE, required=required) as client:
        assert (await client.get("/items/7", headers=PARENT)).status == status
    assert (await exchange(stub, answering(200), who=lambda scope: HUGE, required=required)).status == status
    for event in events(stub):
        assert (event["outcome"], event["http"]["url"]) == ("success", "/items/7")
        assert (event["trace_id"], event["http"]["status"], "actor" in event) == (TRACE, 200, False)
        assert event["message"].startswith(
            "the event of this request was reduced, since it could not be sent whole: not an event"
        )
    assert [event["action"] for event in events(stub)] == ["GET /items/{id}", "PUT /items/{id}"]
    assert caplog.text.count("the event of a request was reduced") == 2


async def test_an_event_that_cannot_be_sent_even_reduced_is_told(caplog: pytest.LogCaptureFixture) -> None:
    stub = EventStub()
    async with audited(stub, limits=Limits(queue_bytes_max=50)) as client:
        assert (await client.get("/items/7")).status == 200
    assert "a request was not logged, the event is lost: an event of" in caplog.text
    assert "nor could it be reduced: an event of" in caplog.text
    assert events(stub) == []
