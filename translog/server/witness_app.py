"""The aiohttp applications of a witness that is a server of its own, public and admin, made from the route tables.

Rules: the same middleware, limits and errors as a log's (app.py); whoever comes to the start page learns who this witness is
and how to rely on it; which logs it knows is told to nobody who does not know them.
"""

import json
from dataclasses import dataclass
from typing import Annotated

from aiohttp import web
from prometheus_client import CollectorRegistry, exposition
from pydantic import BaseModel, ConfigDict, Field

from translog.identity.principal import ANONYMOUS, Principal
from translog.server.api import JSON, NO_STORE, PLAIN_TEXT, Route, json_response
from translog.server.app import DOCUMENT, OPENAPI_ROUTE, make_app
from translog.server.auth import require_admin_host
from translog.server.listener import parse_address
from translog.server.openapi import openapi_document
from translog.server.settings import Milliseconds, ServerSettings, TLSSettings
from translog.server.witness_api import desk_of, open_desk, policy_lines, witness_routes
from translog.witness.service import Witness

_NOT_READY_RETRY_S = 5


def _as_in_a_log(name: str) -> str | None:
    """What the setting of this name is in a log."""
    return ServerSettings.model_fields[name].description


class WitnessServerSettings(BaseModel):
    """The `[server]` table of witness.toml: listeners, TLS, and limits on what comes in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:6964", description="Address and port of the public interface.")
    admin_listen: str = Field("", description="Address and port of metrics; empty switches it off.")
    public_url: str = Field(
        "", description="The URL prefix others reach this witness at; the policy lines on its start page carry it."
    )
    behind_proxy: bool = Field(
        False, description="A proxy in front passes requests on, all from its own address: nothing is limited by address then."
    )
    tls: TLSSettings = TLSSettings()
    body_timeout_ms: Milliseconds = Field(30_000, description=_as_in_a_log("body_timeout_ms"))
    connections_max: Annotated[int, Field(ge=1)] = Field(500, description=_as_in_a_log("connections_max"))
    idle_timeout_ms: Milliseconds = Field(75_000, description=_as_in_a_log("idle_timeout_ms"))
    send_timeout_ms: Milliseconds = Field(60_000, description=_as_in_a_log("send_timeout_ms"))
    drain_timeout_ms: Milliseconds = Field(10_000, description=_as_in_a_log("drain_timeout_ms"))
    access_log: bool = Field(False, description=_as_in_a_log("access_log"))

    def for_listeners(self) -> ServerSettings:
        """The same, as listeners and the reading of bodies take it."""
        return ServerSettings(**{**self.model_dump(exclude={"tls"}), "tls": self.tls})


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessApi:
    """One witness as the HTTP interface sees it."""

    witness: Witness
    settings: ServerSettings
    registry: CollectorRegistry


class WitnessHealth(BaseModel):
    """How the witness is."""

    status: str = Field(description="open, or failing: its state cannot be read or written")


async def get_start(api: WitnessApi, request: web.Request) -> web.Response:
    return web.Response(text=_introduction(api), headers={"Content-Type": PLAIN_TEXT, "Cache-Control": NO_STORE})


async def get_healthz(api: WitnessApi, request: web.Request) -> web.Response:
    return json_response(WitnessHealth(status="open"))


async def get_readyz(api: WitnessApi, request: web.Request) -> web.Response:
    if await desk_of(request).ready():
        return json_response(WitnessHealth(status="open"))
    response = json_response(WitnessHealth(status="failing"), status=503)
    response.headers["Retry-After"] = str(_NOT_READY_RETRY_S)
    return response


async def get_metrics(api: WitnessApi, request: web.Request) -> web.Response:
    body = exposition.generate_latest(api.registry)
    return web.Response(body=body, headers={"Content-Type": exposition.CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": NO_STORE})


def _introduction(api: WitnessApi) -> str:
    witness = api.witness
    keys = "".join(f"{vkey}\n" for vkey in witness.vkeys)
    return (
        f"This is the witness {witness.name}. It cosigns checkpoints of the logs that its operator has added,\n"
        "each only if it extends the one before: https://c2sp.org/tlog-witness\n"
        f"\nIts public keys:\n\n{keys}"
        "\nLines of a policy (https://c2sp.org/tlog-policy) that relies on it, once you have compared the keys with ones you\n"
        f"got another way:\n\n{policy_lines(witness.vkeys, url=api.settings.public_url)}"
        "\nPOST /add-checkpoint asks for a cosignature; GET /<sha256 of the origin>/checkpoint has the checkpoint of a log\n"
        "that was cosigned last. To have your log cosigned, write to the operator.\n"
    )


_HEALTH = Route(
    method="GET",
    path="/healthz",
    handler=get_healthz,
    summary="Whether the process answers",
    answers={200: ("It does.", JSON, WitnessHealth)},
)
_READY = Route(
    method="GET",
    path="/readyz",
    handler=get_readyz,
    summary="Whether the witness cosigns",
    answers={200: ("It does.", JSON, WitnessHealth), 503: ("Its state cannot be read or written.", JSON, WitnessHealth)},
)
WITNESS_PUBLIC_ROUTES = (
    Route(
        method="GET",
        path="/",
        handler=get_start,
        summary="Who this witness is",
        answers={200: ("A text.", PLAIN_TEXT, None)},
    ),
    *witness_routes(""),
    _HEALTH,
    _READY,
    OPENAPI_ROUTE,
)
WITNESS_ADMIN_ROUTES = (
    _HEALTH,
    Route(
        method="GET",
        path="/metrics",
        handler=get_metrics,
        summary="Prometheus metrics",
        answers={200: ("Text exposition format.", exposition.CONTENT_TYPE_PLAIN_0_0_4, None)},
    ),
)


def witness_app(api: WitnessApi) -> web.Application:
    """The public interface."""
    app = make_app(
        api,
        WITNESS_PUBLIC_ROUTES,
        listener="public",
        identify=_anybody,
        registry=api.registry,
        access_log=api.settings.access_log,
    )
    name = f"Witness {api.witness.name}"
    app[DOCUMENT] = json.dumps(openapi_document(WITNESS_PUBLIC_ROUTES, origin=api.witness.name, what=name)).encode()
    open_desk(app, api.witness, api.settings, registry=api.registry)
    return app


def witness_admin_app(api: WitnessApi) -> web.Application:
    """Metrics. Raises SettingsError if `admin_listen` is not an address."""
    own_name, _ = parse_address(api.settings.admin_listen)
    return make_app(
        api,
        WITNESS_ADMIN_ROUTES,
        listener="admin",
        identify=lambda request: require_admin_host(request, own_name=own_name),
        registry=api.registry,
        access_log=api.settings.access_log,
    )


def _anybody(request: web.Request) -> Principal:
    """A witness knows no members: a log's signature is what counts."""
    return ANONYMOUS
