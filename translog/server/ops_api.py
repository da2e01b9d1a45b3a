"""Health for everybody; metrics and operator actions on the admin listener only.

Rules: `/healthz` is 200 while the process answers, `/readyz` while it takes entries and signs, also while too few witnesses
cosign, which it tells: to send entries elsewhere would not help; why a log is held is a code
for everybody and a sentence, which may name files, for the operator; operator actions need a header that no web page can send
unasked, so that a browser on the operator's machine cannot be made to do them.
"""

import secrets

from aiohttp import web
from prometheus_client import exposition
from pydantic import BaseModel, Field

from translog.core.wire import printable
from translog.errors import PermissionDeniedError, PushbackError
from translog.log.lifecycle import Mode
from translog.server.api import JSON, NO_STORE, Api, Route, json_response
from translog.server.auth import comes_from_page
from translog.server.problem import HELD_RETRY_S

OPERATOR_HEADER = "Translog-Operator"
_NOT_READY_RETRY_S = 5
_OPERATOR_CHARS_MAX = 256


class Health(BaseModel):
    """How the log is."""

    status: str = Field(description="starting, open, reopening, held or stopping")
    code: str | None = Field(None, description="Why it is held, for programs.")
    published_size: int
    unwitnessed_since_ms: int | None = Field(
        None, description="Since when too few witnesses cosign, in ms since the epoch; null while they do, or none are asked."
    )


class AdminHealth(Health):
    """How the log is, for its operator."""

    reason: str | None = Field(None, description="Why it is held.")


class ClockAnswer(BaseModel):
    """A clock that was accepted."""

    jump_ms: int = Field(description="By how much it had been set.")


async def get_healthz(api: Api, request: web.Request) -> web.Response:
    return json_response(_health(api))


async def get_readyz(api: Api, request: web.Request) -> web.Response:
    return _ready(api, _health(api))


async def get_admin_healthz(api: Api, request: web.Request) -> web.Response:
    return json_response(_admin_health(api))


async def get_admin_readyz(api: Api, request: web.Request) -> web.Response:
    return _ready(api, _admin_health(api))


def _ready(api: Api, health: Health) -> web.Response:
    mode = api.service.mode
    response = json_response(health, status=200 if mode is Mode.OPEN else 503)
    if mode is not Mode.OPEN:
        response.headers["Retry-After"] = str(HELD_RETRY_S if mode is Mode.HELD else _NOT_READY_RETRY_S)
    return response


def _health(api: Api) -> Health:
    service = api.service
    return Health(
        status=service.mode.value,
        code=service.held.code if service.held is not None else None,
        published_size=service.published.size if service.published else 0,
        unwitnessed_since_ms=service.unwitnessed_since_ms,
    )


def _admin_health(api: Api) -> AdminHealth:
    held = api.service.held
    return AdminHealth(**_health(api).model_dump(), reason=str(held) if held is not None else None)


async def get_metrics(api: Api, request: web.Request) -> web.Response:
    body = exposition.generate_latest(api.service.metrics.registry)
    return web.Response(body=body, headers={"Content-Type": exposition.CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": NO_STORE})


def require_operator(request: web.Request) -> str:
    """Who acts, as they say. Raises PermissionDeniedError for a request that no operator made on purpose."""
    if comes_from_page(request):
        raise PermissionDeniedError(
            "operator actions are not taken from web pages",
            hint="use curl",
            code="from-page",
        )
    operator = request.headers.get(OPERATOR_HEADER, "").strip()
    if not operator:
        raise PermissionDeniedError(
            "operator actions say who acts", hint=f"send the header {OPERATOR_HEADER}: <your name>", code="no-operator"
        )
    return printable(operator[:_OPERATOR_CHARS_MAX])


async def post_clock_accept(api: Api, request: web.Request) -> web.Response:
    operator = require_operator(request)
    if api.events is not None and api.service.mode is not Mode.OPEN:
        raise PushbackError(
            "nothing was done: the log takes no entries now, and this could not be logged",
            code="not-open",
            retry_after_ms=1_000 * _NOT_READY_RETRY_S,
        )
    jump_ms = api.service.accept_clock(operator)
    if api.events is not None:
        uid = f"clock.accept/{secrets.token_hex(8)}"
        await api.events.intake.log_admin("clock.accept", uid=uid, actor={"name": operator}, data={"jump_ms": jump_ms})
    return json_response(ClockAnswer(jump_ms=jump_ms))


ROUTES = (
    Route(
        method="GET",
        path="/healthz",
        handler=get_healthz,
        summary="Whether the process answers",
        answers={200: ("It does.", JSON, Health)},
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=get_readyz,
        summary="Whether the log takes and publishes entries",
        answers={200: ("It does.", JSON, Health), 503: ("It does not; `code` says why it is held.", JSON, Health)},
    ),
)

ADMIN_ROUTES = (
    Route(
        method="GET",
        path="/healthz",
        handler=get_admin_healthz,
        summary="Whether the process answers",
        answers={200: ("It does.", JSON, AdminHealth)},
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=get_admin_readyz,
        summary="Whether the log takes and publishes entries",
        answers={200: ("It does.", JSON, AdminHealth), 503: ("It does not; `reason` says why.", JSON, AdminHealth)},
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=get_metrics,
        summary="Prometheus metrics",
        answers={200: ("Text exposition format.", exposition.CONTENT_TYPE_PLAIN_0_0_4, None)},
    ),
    Route(
        method="POST",
        path="/clock/accept",
        handler=post_clock_accept,
        summary="Take the machine's clock, which was set, for right",
        answers={200: ("Sequencing goes on.", JSON, ClockAnswer)},
        errors=(403, 503),
    ),
)
