"""What all API modules share: the thing they serve, and the table of routes that both the application and the OpenAPI
document are made from.

Rules: a route exists once, here or in a module's ROUTES; handlers raise errors of ours and never build error answers; query
parameters are parsed by a pydantic model, strictly where we named them and ignoring others.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, WithJsonSchema

from translog.core.keys import VKey
from translog.core.wire import SIZE_MAX, parse_decimal
from translog.errors import MalformedError, NotFoundError, TranslogError
from translog.events.mapping import Source
from translog.identity.principal import Members, Principal
from translog.index.lookup import LeafLookup
from translog.log.events import EventStore
from translog.log.lifecycle import LogService
from translog.log.rotation import KeyRotation
from translog.log.streamtree import StreamTrees
from translog.server.intake import Intake
from translog.server.settings import ServerSettings
from translog.witness.service import Witness

PLAIN_TEXT = "text/plain; charset=utf-8"
OCTETS = "application/octet-stream"
JSON = "application/json"
NDJSON = "application/x-ndjson"
IMMUTABLE = "public, max-age=604800, immutable"
IMMUTABLE_PRIVATE = "private, max-age=604800, immutable"
NO_STORE = "no-store"

PRINCIPAL = web.RequestKey("principal", Principal)

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """What a log of audit events has beside: how it takes them, how it reads them back, the sources it knows by name, the
    secrets by member that webhooks are signed with, and the trees of streams that their senders sign."""

    intake: Intake
    store: EventStore
    sources: Mapping[str, Source]
    webhook_secrets: Mapping[str, bytes]
    trees: StreamTrees


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One log as the HTTP interface sees it: `vkeys` it signs with now, the `policy` it likes to be trusted under; `events`
    is None for an opaque log; `keys` changes its keys; `witness` is None for a log that cosigns for no others."""

    service: LogService
    members: Members
    settings: ServerSettings
    vkeys: Callable[[], tuple[VKey, ...]]
    policy: Callable[[], str]
    publication_policy: str | None = None
    leaf_lookup: LeafLookup | None
    events: EventLog | None = None
    keys: KeyRotation | None = None
    witness: Witness | None = None


Handler = Callable[[Any, web.Request], Awaitable[web.StreamResponse]]
"""Takes what the application serves (an Api, where that is a log) and a request to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation: how it is reached, what runs it, and what its documentation says.

    `answers` maps a status to a description and its content: a media type, with the model of its JSON where it is JSON.
    `refuse` makes the answer for an error, whoever raised it, where its senders know another form than problem+json; the media
    types of that, and of its other answers, are `own_media`.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    query: type[BaseModel] | None = None
    bodies: tuple[str, ...] = ()
    answers: Mapping[int, tuple[str, str, type[BaseModel] | None]]
    errors: tuple[int, ...] = ()
    refuse: Callable[[web.Request, TranslogError], web.Response] | None = None
    own_media: tuple[str, ...] = ()
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)


def _strict_decimal(value: object) -> int:
    if isinstance(value, str):
        return parse_decimal(value)
    raise MalformedError("expected one decimal number")


Decimal = Annotated[
    int, BeforeValidator(_strict_decimal), WithJsonSchema({"type": "integer", "minimum": 0, "maximum": SIZE_MAX})
]
"""A size or index in a query: plain decimal, at most 2^63-1."""

DECIMAL_SCHEMA = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,17})$"}


def parse_query(model: type[M], request: web.Request) -> M:
    """The query parameters that `model` names. Raises MalformedError naming the first bad one, or one given twice."""
    values = {}
    # Most requests have no query, and parsing none costs more than validating it.
    for name in model.model_fields if request.query_string else ():
        found = request.query.getall(name, [])
        if len(found) > 1:
            raise MalformedError(f"the query parameter {name!r} is given more than once")
        if found:
            values[name] = found[0]
    try:
        return model.model_validate(values)
    except MalformedError as error:
        raise MalformedError(f"bad query: {error.detail}", hint=error.hint) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "query"
        raise MalformedError(f"bad query parameter {where}: {first['msg']}") from None


def require_events(api: Api) -> EventLog:
    """What a log of audit events has. Raises NotFoundError for an opaque log."""
    if api.events is None:
        raise NotFoundError("this log takes opaque entries, not audit events", hint="POST /add", code="not-events")
    return api.events


def json_response(model: BaseModel, *, status: int = 200, cache: str = NO_STORE) -> web.Response:
    """A JSON answer, `null` members included."""
    return web.Response(
        status=status,
        body=model.model_dump_json(by_alias=True).encode(),
        content_type=JSON,
        headers={"Cache-Control": cache},
    )


class Problem(BaseModel):
    """RFC 9457 problem details: the shape of every error."""

    type: str
    title: str
    status: int
    code: str = Field(description="Stable and fit for programs.")
    detail: str = Field(description="What is wrong.")
    hint: str | None = Field(None, description="What to do about it.")
