"""The aiohttp applications, public and admin, made from the route tables.

Rules: every request passes one middleware, which finds out who asks, turns errors into problem+json, counts and logs; no
handler sees an unauthenticated credential; what a handler did not foresee is a 500 with a log line and without details.
"""

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache, partial
from http import HTTPStatus

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Middleware
from prometheus_client import Counter, Histogram

from translog.errors import TranslogError
from translog.identity.principal import Principal
from translog.server import (
    audit_api,
    collector_api,
    entries_api,
    events_api,
    events_read_api,
    log_api,
    ops_api,
    otlp_api,
    sealed_api,
    tiles_api,
)
from translog.server.api import JSON, NO_STORE, PRINCIPAL, Api, Route
from translog.server.auth import authenticate, require_admin_host
from translog.server.listener import parse_address
from translog.server.openapi import openapi_document
from translog.server.problem import COMMON_HEADERS, http_problem, internal_problem, plain_problem, problem

_logger = structlog.get_logger()

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Identify = Callable[[web.Request], Principal]
_Refuse = Callable[[web.Request, TranslogError], web.Response]


_DOCUMENT = web.AppKey("document", bytes)


async def get_openapi(api: Api, request: web.Request) -> web.Response:
    return web.Response(body=request.app[_DOCUMENT], content_type=JSON, headers={"Cache-Control": NO_STORE})


PUBLIC_ROUTES = (
    *tiles_api.ROUTES,
    *log_api.ROUTES,
    *entries_api.ROUTES,
    *events_api.ROUTES,
    *events_read_api.ROUTES,
    *sealed_api.ROUTES,
    *otlp_api.ROUTES,
    *audit_api.ROUTES,
    *collector_api.ROUTES,
    *ops_api.ROUTES,
    Route(
        method="GET",
        path="/openapi.json",
        handler=get_openapi,
        summary="This document",
        answers={200: ("OpenAPI 3.1.", JSON, None)},
    ),
)


def public_app(api: Api) -> web.Application:
    """The public interface."""
    app = _app(api, "public", PUBLIC_ROUTES, lambda request: authenticate(request, api.members, api.settings))
    app[tiles_api.KEPT] = tiles_api.KeptBodies(tiles_api.KEPT_BYTES_MAX)
    app[_DOCUMENT] = json.dumps(openapi_document(PUBLIC_ROUTES, origin=api.service.meta.origin)).encode()
    return app


def admin_app(api: Api) -> web.Application:
    """Metrics, health and operator actions. Raises SettingsError if `admin_listen` is not an address."""
    own_name, _ = parse_address(api.settings.admin_listen)
    return _app(api, "admin", ops_api.ADMIN_ROUTES, lambda request: require_admin_host(request, own_name=own_name))


def _app(api: Api, listener: str, routes: Iterable[Route], identify: _Identify) -> web.Application:
    routes = tuple(routes)
    refusals = {route.path: route.refuse for route in routes if route.refuse is not None}
    app = web.Application(middlewares=[_middleware(api, listener, identify, refusals)])
    for route in routes:
        for method in (route.method, "HEAD") if route.method == "GET" else (route.method,):
            app.router.add_route(method, route.path, partial(route.handler, api), expect_handler=_expect)
    return app


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Answers `Expect: 100-continue`, and refuses any other in our own shape."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        return plain_problem(417)
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    return None


def _middleware(api: Api, listener: str, identify: _Identify, refusals: Mapping[str, _Refuse]) -> Middleware:
    requests = Counter(
        f"translog_{listener}_requests",
        f"Requests to the {listener} listener.",
        ["method", "route", "status"],
        registry=api.service.metrics.registry,
    )
    seconds = Histogram(
        f"translog_{listener}_request_seconds",
        f"Time to answer on the {listener} listener.",
        ["route"],
        registry=api.service.metrics.registry,
    )

    @lru_cache(maxsize=1_024)  # finding these by their labels costs as much as everything else here
    def metrics_of(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return requests.labels(method, route, status), seconds.labels(route)

    @web.middleware
    async def middleware(request: web.Request, handler: _Next) -> web.StreamResponse:
        begin = time.perf_counter()
        response = await _answer(request, handler)
        response.headers.update(COMMON_HEADERS)
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        method = request.method if request.method in _METHODS else "other"
        count, duration = metrics_of(method, route, response.status)
        count.inc()
        duration.observe(time.perf_counter() - begin)
        if api.settings.access_log or response.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _logger.info("request", method=method, path=request.path[:200], status=response.status, peer=request.remote)
        return response

    async def _answer(request: web.Request, handler: _Next) -> web.StreamResponse:
        try:
            request[PRINCIPAL] = identify(request)
            return await handler(request)
        except TranslogError as error:
            resource = request.match_info.route.resource
            refuse = refusals.get(resource.canonical) if resource is not None else None
            return problem(error) if refuse is None else refuse(request, error)
        except web.HTTPException as error:
            return http_problem(error)
        except ConnectionError:
            raise
        except Exception:
            _logger.exception("a request failed unexpectedly", method=request.method, path=request.path[:200])
            return internal_problem()

    return middleware


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
