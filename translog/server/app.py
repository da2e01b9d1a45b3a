"""The aiohttp applications of a log, public and admin, made from the route tables; witness_app.py makes a witness's likewise.

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
from prometheus_client import CollectorRegistry, Counter, Histogram

from translog.errors import TranslogError
from translog.identity.principal import Principal
from translog.server import (
    audit_api,
    collector_api,
    entries_api,
    events_api,
    events_read_api,
    keys_api,
    log_api,
    ops_api,
    otlp_api,
    sealed_api,
    tiles_api,
    witness_api,
)
from translog.server.api import JSON, NO_STORE, PRINCIPAL, Api, Route
from translog.server.auth import authenticate, require_admin_host
from translog.server.listener import parse_address
from translog.server.openapi import openapi_document
from translog.server.problem import COMMON_HEADERS, http_problem, internal_problem, plain_problem, problem

_logger = structlog.get_logger()

_Next = Callable[[web.Request], Awaitable[web.StreamResponse]]
Identify = Callable[[web.Request], Principal]
_Refuse = Callable[[web.Request, TranslogError], web.Response]

DOCUMENT = web.AppKey("document", bytes)


async def get_openapi(served: object, request: web.Request) -> web.Response:
    return web.Response(body=request.app[DOCUMENT], content_type=JSON, headers={"Cache-Control": NO_STORE})


OPENAPI_ROUTE = Route(
    method="GET",
    path="/openapi.json",
    handler=get_openapi,
    summary="This document",
    answers={200: ("OpenAPI 3.1.", JSON, None)},
)
PUBLIC_ROUTES = (
    *tiles_api.ROUTES,
    *log_api.ROUTES,
    *keys_api.ROUTES,
    *entries_api.ROUTES,
    *events_api.ROUTES,
    *events_read_api.ROUTES,
    *sealed_api.ROUTES,
    *otlp_api.ROUTES,
    *audit_api.ROUTES,
    *collector_api.ROUTES,
    *ops_api.ROUTES,
    *witness_api.witness_routes("/witness"),
    OPENAPI_ROUTE,
)


def public_app(api: Api) -> web.Application:
    """The public interface."""
    app = _log_app(api, "public", PUBLIC_ROUTES, lambda request: authenticate(request, api.members, api.settings))
    app[tiles_api.KEPT] = tiles_api.KeptBodies(tiles_api.KEPT_BYTES_MAX)
    app[DOCUMENT] = json.dumps(openapi_document(PUBLIC_ROUTES, origin=api.service.meta.origin)).encode()
    if api.witness is not None:
        witness_api.open_desk(app, api.witness, api.settings, registry=api.service.metrics.registry)
    return app


def admin_app(api: Api) -> web.Application:
    """Metrics, health and operator actions. Raises SettingsError if `admin_listen` is not an address."""
    own_name, _ = parse_address(api.settings.admin_listen)
    routes = (*ops_api.ADMIN_ROUTES, *keys_api.ADMIN_ROUTES)
    return _log_app(api, "admin", routes, lambda request: require_admin_host(request, own_name=own_name))


def _log_app(api: Api, listener: str, routes: Iterable[Route], identify: Identify) -> web.Application:
    registry = api.service.metrics.registry
    return make_app(api, routes, listener=listener, identify=identify, registry=registry, access_log=api.settings.access_log)


def make_app(
    served: object,
    routes: Iterable[Route],
    *,
    listener: str,
    identify: Identify,
    registry: CollectorRegistry,
    access_log: bool,
) -> web.Application:
    """An application of these routes, whose handlers get `served`. `listener` is its name in metrics: public or admin."""
    routes = tuple(routes)
    refusals = {route.path: route.refuse for route in routes if route.refuse is not None}
    app = web.Application(middlewares=[_middleware(listener, identify, refusals, registry, access_log)])
    for route in routes:
        for method in (route.method, "HEAD") if route.method == "GET" else (route.method,):
            app.router.add_route(method, route.path, partial(route.handler, served), expect_handler=_expect)
    return app


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Answers `Expect: 100-continue`, and refuses any other in our own shape."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        return plain_problem(417)
    if request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    return None


def _middleware(
    listener: str, identify: Identify, refusals: Mapping[str, _Refuse], registry: CollectorRegistry, access_log: bool
) -> Middleware:
    requests = Counter(
        f"translog_{listener}_requests",
        f"Requests to the {listener} listener.",
        ["method", "route", "status"],
        registry=registry,
    )
    seconds = Histogram(
        f"translog_{listener}_request_seconds",
        f"Time to answer on the {listener} listener.",
        ["route"],
        registry=registry,
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
        if access_log or response.status == HTTPStatus.INTERNAL_SERVER_ERROR:
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
