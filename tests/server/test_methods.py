"""HEAD and 405: rules that hold for every route, so every route is walked."""

import pytest

from translog.server.api import Route
from translog.server.app import PUBLIC_ROUTES
from translog.server.ops_api import ADMIN_ROUTES

from .harness import Running, numbered, parse_answer, request_bytes

GOOD = {
    "/tile/{tile:.+}": "/tile/entries/000.p/9",
    "/v1/receipts/{index}": "/v1/receipts/3",
    "/v1/proofs/inclusion": "/v1/proofs/inclusion?index=3",
    "/v1/proofs/consistency": "/v1/proofs/consistency?old=1&new=9",
    "/v1/entries": "/v1/entries?start=0&end=9",
    "/v1/events/{index}": "/v1/events/3",
    "/v1/events/{index}/evidence": "/v1/events/3/evidence",
    "/v1/sources/{source}/{stream}": "/v1/sources/cloudtrail/a",
    "/v1/streams/{stream}": "/v1/streams/a",
    "/witness/{hash}/checkpoint": f"/witness/{64 * '0'}/checkpoint",
}
"""A request that succeeds, where the path alone is none."""
BAD = ["/nothing", "/tile/0/0", "/tile/0/999", "/v1/checkpoint?size=5", "/v1/receipts/99", "/v1/entries?start=1&end=1"]


@pytest.mark.parametrize(
    "path",
    [*sorted({GOOD.get(route.path, route.path) for route in PUBLIC_ROUTES if route.method == "GET"}), *BAD, "/tile/0/000.p/3"],
)
@pytest.mark.parametrize("accept", ["gzip", "identity"])
async def test_head_is_get_without_the_body(log_server: Running, path: str, accept: str) -> None:
    await log_server.grow(numbered(0, 9))
    got = await log_server.get(path, Accept_Encoding=accept)
    head = await log_server.raw(request_bytes("HEAD", path, f"Accept-Encoding: {accept}"))
    assert got.body
    assert head.body == b""
    assert head.status == got.status
    assert int(head.headers["Content-Length"]) == len(got.body)

    def comparable(headers: dict[str, str]) -> dict[str, str]:
        return {name.lower(): value for name, value in headers.items() if name.lower() not in ("date", "connection")}

    assert comparable(dict(head.headers)) == comparable(dict(got.headers))


@pytest.mark.parametrize("path", sorted({GOOD.get(route.path, route.path) for route in PUBLIC_ROUTES}))
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"])
async def test_405_says_which_methods_a_path_takes(log_server: Running, path: str, method: str) -> None:
    template = next((route for route, good in GOOD.items() if good == path), path)
    allowed = {route.method for route in PUBLIC_ROUTES if route.path == template}
    allowed |= {"HEAD"} if "GET" in allowed else set()
    if method in allowed:
        return
    answer = await log_server.request(method, path)
    if method != "HEAD":
        answer.problem(405, "method-not-allowed")
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == allowed


@pytest.mark.parametrize("route", ADMIN_ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_the_admin_listener_has_405_too(log_server: Running, route: Route) -> None:
    answer = await log_server.admin("DELETE", route.path)
    answer.problem(405, "method-not-allowed")
    assert answer.headers["Allow"] in ("GET,HEAD", "POST")


async def test_a_body_on_a_get_changes_nothing_and_the_connection_goes_on(log_server: Running) -> None:
    async with log_server.connection() as (reader, writer):
        writer.write(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc" + request_bytes("GET", "/checkpoint")
        )
        data = await reader.read()
    first, second = data.split(b"HTTP/1.1 ")[1:]
    assert parse_answer(b"HTTP/1.1 " + first).status == parse_answer(b"HTTP/1.1 " + second).status == 200
