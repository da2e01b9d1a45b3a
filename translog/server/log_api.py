"""What the log says of itself and proves: `/v1/log`, checkpoints, proofs, entries, receipts.

Rules: published state only; a list is bounded in items and bytes and says where it ended; what cannot change any more may be
cached, the rest never.
"""

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from translog.core.tile import ENTRY_BYTES_MAX
from translog.core.wire import HASH_BYTES, decode_base64, encode_base64, parse_decimal
from translog.errors import MalformedError, NotFoundError
from translog.log.reader import Inclusion, Reader
from translog.server.api import (
    DECIMAL_SCHEMA,
    IMMUTABLE,
    JSON,
    NDJSON,
    NO_STORE,
    PLAIN_TEXT,
    PRINCIPAL,
    Api,
    Decimal,
    Route,
    json_response,
    parse_query,
)
from translog.server.auth import require_entry_reader
from translog.storage.source import encode_kept


class Limits(BaseModel):
    """What a client must keep to."""

    entry_bytes_max: int
    body_bytes_max: int
    decoded_bytes_max: int
    entries_per_request_max: int
    entries_per_read_max: int


class WitnessAnswer(BaseModel):
    """A witness of the publication policy, and what the log heard from it last."""

    name: str = Field(description="Its own name, as in its keys.")
    url: str
    cosigned_size: int | None = Field(description="The size it cosigned last, since the log was started.")
    cosigned_at_ms: int | None = Field(description="When that was, in ms since the epoch.")
    failure: str | None = Field(description="Why its last answer brought no cosignature.")
    ahead: int | None = Field(description="A size it stated that the log never signed: somebody is wrong, or worse.")


class WitnessingAnswer(BaseModel):
    """How publication under a policy stands."""

    without_quorum: str = Field(description="What becomes of checkpoints that too few cosign: hold or publish.")
    published_witnessed: bool = Field(description="Whether the latest checkpoint has its quorum.")
    unwitnessed_since_ms: int | None = Field(description="Since when the quorum is not reached, null while it is.")
    witnesses: list[WitnessAnswer]


class LogAnswer(BaseModel):
    """A log in its own words. Nothing here is signed: trust comes from a policy."""

    origin: str
    vkeys: list[str] = Field(description="Every key the log signs checkpoints with.")
    profile: str
    public_read: str
    policy: str = Field(description="A tlog-policy file for this log, as it would like to be trusted.")
    publication_policy: str | None = Field(
        description="The policy that its checkpoints are published under, with all keys of its witnesses; null for none."
    )
    witnessing: WitnessingAnswer | None = Field(description="Null where nobody is asked to cosign.")
    integrated_size: int = Field(description="Entries committed.")
    published_size: int = Field(description="Entries in the latest checkpoint.")
    limits: Limits


class InclusionAnswer(BaseModel):
    """RFC 6962 section 2.1.1, base64."""

    index: int
    size: int
    root: str
    leaf_hash: str
    proof: list[str]


class ConsistencyAnswer(BaseModel):
    """RFC 6962 section 2.1.2, base64."""

    old: int
    new: int
    proof: list[str]


class EntriesAnswer(BaseModel):
    """Entries [start, end), base64. `end` is lower than asked for where the answer would be too long."""

    start: int
    end: int
    entries: list[str]


def _parse_leaf_hash(value: object) -> bytes:
    text = str(value)
    if len(text) == 2 * HASH_BYTES:
        try:
            return bytes.fromhex(text)
        except ValueError:
            raise MalformedError("leaf_hash is neither hex nor base64 of 32 bytes") from None
    return decode_base64(text.replace(" ", "+"), size=HASH_BYTES)  # a `+` that was not escaped arrives as a space


class SizeQuery(BaseModel):
    """`?size=`."""

    size: Decimal | None = Field(None, description="A tree size.")


class StartQuery(BaseModel):
    """`?start=`."""

    start: Decimal = Field(0, description="The smallest tree size of interest.")


class InclusionQuery(BaseModel):
    """What to prove, and in which tree."""

    index: Decimal | None = Field(None, description="The entry's index; this or leaf_hash.")
    leaf_hash: Annotated[bytes | None, BeforeValidator(_parse_leaf_hash), WithJsonSchema({"type": "string"})] = Field(
        None, description="The entry's leaf hash, hex or base64; needs the setting `log.leaf_lookup`."
    )
    size: Decimal | None = Field(None, description="The tree size to prove in; the published one by default.")


class ConsistencyQuery(BaseModel):
    """Between which sizes."""

    old: Decimal
    new: Decimal


class EntriesQuery(BaseModel):
    """Which range."""

    start: Decimal
    end: Decimal


async def get_log(api: Api, request: web.Request) -> web.Response:
    service, settings = api.service, api.settings
    published = service.published
    answer = LogAnswer(
        origin=service.meta.origin,
        vkeys=[str(vkey) for vkey in api.vkeys()],
        profile=service.meta.profile.value,
        public_read=settings.public_read.value,
        policy=api.policy(),
        publication_policy=api.publication_policy,
        witnessing=_witnessing(api),
        integrated_size=service.integrated.size,
        published_size=published.size if published else 0,
        limits=Limits(
            entry_bytes_max=ENTRY_BYTES_MAX,
            body_bytes_max=settings.body_bytes_max,
            decoded_bytes_max=settings.decoded_bytes_max,
            entries_per_request_max=settings.entries_per_request_max,
            entries_per_read_max=settings.entries_per_read_max,
        ),
    )
    return json_response(answer)


def _witnessing(api: Api) -> WitnessingAnswer | None:
    service = api.service
    if service.witnesses is None:
        return None
    published = service.published
    return WitnessingAnswer(
        without_quorum=service.settings.witnessing.without_quorum.value,
        published_witnessed=published is not None and published.witnessed,
        unwitnessed_since_ms=service.unwitnessed_since_ms,
        witnesses=[
            WitnessAnswer(
                name=status.name,
                url=status.url,
                cosigned_size=status.cosigned_size,
                cosigned_at_ms=status.cosigned_at_ms,
                failure=status.failure,
                ahead=status.ahead,
            )
            for status in service.witnesses.status()
        ],
    )


async def get_checkpoint(api: Api, request: web.Request) -> web.Response:
    query = parse_query(SizeQuery, request)
    note = await api.service.read(lambda reader: reader.checkpoint(size=query.size))
    return web.Response(body=note, headers={"Content-Type": PLAIN_TEXT, "Cache-Control": NO_STORE})


async def get_checkpoints(api: Api, request: web.Request) -> web.Response:
    query = parse_query(StartQuery, request)

    def read(reader: Reader) -> bytes:
        kept = reader.kept_checkpoints(start=query.start, note_bytes_max=api.settings.read_bytes_max)
        return b"".join(encode_kept(checkpoint) for checkpoint in kept)

    body = await api.service.read(read)
    return web.Response(body=body, content_type=NDJSON, headers={"Cache-Control": NO_STORE})


async def get_inclusion(api: Api, request: web.Request) -> web.Response:
    query = parse_query(InclusionQuery, request)
    index = query.index
    if (index is None) == (query.leaf_hash is None):
        raise MalformedError("give either index or leaf_hash")
    if index is None:
        index = await _look_up(api, query.leaf_hash or b"")
    at = index
    found: Inclusion = await api.service.read(lambda reader: reader.inclusion(index=at, size=query.size))
    if query.leaf_hash is not None and found.leaf_hash != query.leaf_hash:  # the table is derived: only the tree is right
        raise _unknown_leaf()
    answer = InclusionAnswer(
        index=found.index,
        size=found.size,
        root=encode_base64(found.root),
        leaf_hash=encode_base64(found.leaf_hash),
        proof=[encode_base64(value) for value in found.proof],
    )
    return json_response(answer, cache=IMMUTABLE if query.size is not None and query.index is not None else NO_STORE)


async def _look_up(api: Api, leaf_hash: bytes) -> int:
    if api.leaf_lookup is None:
        raise NotFoundError(
            "this log keeps no index of leaf hashes",
            hint="ask by index; operators: log.leaf_lookup = true",
            code="no-leaf-lookup",
        )
    lookup = api.leaf_lookup
    index = await api.service.read(lambda reader: lookup.find(leaf_hash))
    if index is None:
        raise _unknown_leaf()
    return index


def _unknown_leaf() -> NotFoundError:
    return NotFoundError(
        "no entry with this leaf hash is known",
        hint="a new one is found within seconds",
        code="unknown-leaf",
        retry_after_ms=1_000,
    )


async def get_consistency(api: Api, request: web.Request) -> web.Response:
    query = parse_query(ConsistencyQuery, request)
    if not 0 < query.old <= query.new:
        raise MalformedError("old and new must satisfy 0 < old <= new", hint="every tree is consistent with the empty one")
    proof = await api.service.read(lambda reader: reader.consistency(old=query.old, new=query.new))
    answer = ConsistencyAnswer(old=query.old, new=query.new, proof=[encode_base64(value) for value in proof])
    return json_response(answer, cache=IMMUTABLE)


async def get_entries(api: Api, request: web.Request) -> web.Response:
    require_entry_reader(request[PRINCIPAL], api.settings.public_read)
    query = parse_query(EntriesQuery, request)
    if query.start >= query.end:
        raise MalformedError("start must be below end")
    end = min(query.end, query.start + api.settings.entries_per_read_max)

    def read(reader: Reader) -> bytes:  # on a reader's thread: a large answer takes long to write
        entries = reader.entries(start=query.start, end=end, entry_bytes_max=api.settings.read_bytes_max)
        encoded = [encode_base64(entry) for entry in entries]
        answer = EntriesAnswer(start=query.start, end=query.start + len(entries), entries=encoded)
        return answer.model_dump_json().encode()

    body = await api.service.read(read)
    return web.Response(body=body, content_type=JSON, headers={"Cache-Control": NO_STORE})


async def get_receipt(api: Api, request: web.Request) -> web.Response:
    index = parse_decimal(request.match_info["index"])
    query = parse_query(SizeQuery, request)
    receipt = await api.service.read(lambda reader: reader.receipt(index=index, size=query.size))
    return web.Response(body=receipt, headers={"Content-Type": PLAIN_TEXT, "Cache-Control": NO_STORE})


ROUTES = (
    Route(
        method="GET",
        path="/v1/log",
        handler=get_log,
        summary="Origin, keys, profile, policy, sizes and limits",
        answers={200: ("The log in its own words.", JSON, LogAnswer)},
    ),
    Route(
        method="GET",
        path="/v1/checkpoint",
        handler=get_checkpoint,
        summary="The latest checkpoint, or a kept one",
        query=SizeQuery,
        answers={200: ("The note.", PLAIN_TEXT, None)},
        errors=(400, 404, 500, 503),
    ),
    Route(
        method="GET",
        path="/v1/checkpoints",
        handler=get_checkpoints,
        summary="The kept checkpoints, smallest first",
        query=StartQuery,
        answers={200: ('A line `{"size":…,"note":…}` for each, as many as fit; none where there are no more.', NDJSON, None)},
        errors=(400, 500, 503),
    ),
    Route(
        method="GET",
        path="/v1/proofs/inclusion",
        handler=get_inclusion,
        summary="Proof that an entry is in a tree",
        query=InclusionQuery,
        answers={200: ("The proof and what it is about.", JSON, InclusionAnswer)},
        errors=(400, 404, 500, 503),
    ),
    Route(
        method="GET",
        path="/v1/proofs/consistency",
        handler=get_consistency,
        summary="Proof that one tree is a prefix of another",
        query=ConsistencyQuery,
        answers={200: ("The proof.", JSON, ConsistencyAnswer)},
        errors=(400, 404, 500, 503),
    ),
    Route(
        method="GET",
        path="/v1/entries",
        handler=get_entries,
        summary="Entries of a range, end exclusive",
        query=EntriesQuery,
        answers={200: ("As many as fit from the start of the range.", JSON, EntriesAnswer)},
        errors=(400, 404, 500, 503),
    ),
    Route(
        method="GET",
        path="/v1/receipts/{index}",
        handler=get_receipt,
        summary="A receipt: a tlog-proof file",
        query=SizeQuery,
        parameters={"index": DECIMAL_SCHEMA},
        answers={200: ("The receipt, at the first kept checkpoint that covers the entry.", PLAIN_TEXT, None)},
        errors=(400, 404, 500, 503),
    ),
)
