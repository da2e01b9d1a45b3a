"""The log's own keys: how they changed, for everybody; adding and retiring them, on the admin listener only.

Rules: what is published of the log's account, nothing verified by it for anybody: who follows it checks each change under a
policy (client/keychain.py). A change says who made it; in a log of events that is an event of its own beside the public entry.
"""

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from translog.core.wire import encode_base64
from translog.errors import MalformedError, NotFoundError
from translog.log.rotation import Changed, KeyRotation
from translog.log.settings import SigningKey
from translog.server.api import JSON, Api, Decimal, Route, json_response, parse_query
from translog.server.body import read_body
from translog.server.ops_api import require_operator

_KEY_ID_SCHEMA = {"type": "string", "pattern": "^[0-9a-f]{8}$"}


class ChangeAnswer(BaseModel):
    """A change of the log's keys."""

    index: int = Field(description="Where its entry is in the log.")
    entry: str = Field(description="The entry, base64: key/1, which says what changed and is signed by a key from before.")


class KeysAnswer(BaseModel):
    """The log's keys and how it came to have them, as far as published. Nothing here is to be believed without proof."""

    keys: list[str] = Field(description="The vkeys after all changes.")
    count: int = Field(description="How many changes there are.")
    start: int = Field(description="How many of them were left out in front.")
    changes: list[ChangeAnswer] = Field(description="The changes from there on, as many as fit, oldest first.")


class StartQuery(BaseModel):
    """`?start=`."""

    start: Decimal = Field(0, description="How many changes to leave out in front.")


class AddRequest(BaseModel):
    """What kind of key to add."""

    model_config = ConfigDict(extra="forbid")

    type: SigningKey = SigningKey.MLDSA44


class ChangedAnswer(BaseModel):
    """A change that was made."""

    vkey: str
    key_id: str
    number: int = Field(description="Which change of the log's keys it is, from 1.")
    index: int = Field(description="Where its entry is in the log.")
    published: bool = Field(description="Whether a checkpoint that was signed after it is published, with its quorum.")


async def get_keys(api: Api, request: web.Request) -> web.Response:
    query = parse_query(StartQuery, request)
    rotation = _require_keys(api)
    published = api.service.published
    ledger = rotation.ledger.within(0 if published is None else published.size)
    changes: list[ChangeAnswer] = []
    left = api.settings.read_bytes_max
    for change in ledger.changes[query.start :]:
        left -= len(change.entry)
        changes.append(ChangeAnswer(index=change.index, entry=encode_base64(change.entry)))
        if left <= 0:
            break
    keys = [str(vkey) for vkey in ledger.chain.active]
    return json_response(KeysAnswer(keys=keys, count=len(ledger.changes), start=query.start, changes=changes))


async def post_key(api: Api, request: web.Request) -> web.Response:
    operator = require_operator(request)
    rotation = _require_keys(api)
    try:
        asked = AddRequest.model_validate_json(await read_body(request, api.settings))
    except ValidationError:
        kinds = " or ".join(f'"{kind.value}"' for kind in SigningKey)
        raise MalformedError("the body does not say what kind of key to add", hint=f'{{"type": {kinds}}}') from None
    return json_response(_answer(await rotation.add(asked.type.type, operator=operator)))


async def post_retire(api: Api, request: web.Request) -> web.Response:
    operator = require_operator(request)
    return json_response(_answer(await _require_keys(api).retire(request.match_info["id"], operator=operator)))


def _answer(changed: Changed) -> ChangedAnswer:
    return ChangedAnswer(
        vkey=str(changed.vkey),
        key_id=changed.vkey.key_id.hex(),
        number=changed.number,
        index=changed.index,
        published=changed.published,
    )


def _require_keys(api: Api) -> KeyRotation:
    if api.keys is None:
        raise NotFoundError("this server keeps no account of its keys")
    return api.keys


ROUTES = (
    Route(
        method="GET",
        path="/v1/keys",
        handler=get_keys,
        summary="The log's keys, and the entries that changed them",
        query=StartQuery,
        answers={200: ("The keys, and a page of their changes.", JSON, KeysAnswer)},
        errors=(400, 404, 503),
    ),
)

ADMIN_ROUTES = (
    Route(
        method="POST",
        path="/keys",
        handler=post_key,
        summary="Add a key that the log signs with",
        bodies=(JSON,),
        answers={200: ("The log signs with it.", JSON, ChangedAnswer)},
        errors=(400, 404, 409, 413, 415, 500, 503),
    ),
    Route(
        method="POST",
        path="/keys/{id}/retire",
        handler=post_retire,
        summary="Retire a key that the log signs with",
        parameters={"id": _KEY_ID_SCHEMA},
        answers={200: ("The log signs with it no more.", JSON, ChangedAnswer)},
        errors=(400, 404, 409, 500, 503),
    ),
)
