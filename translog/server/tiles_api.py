"""The read side of C2SP tlog-tiles: `/checkpoint`, `/tile/<L>/<N>[.p/<W>]`, `/tile/entries/<N>[.p/<W>]`.

Rules: bytes and paths exactly as the specification has them; tiles never change, so they may be cached for long, a checkpoint
and an error never; bundles are compressed for who can take it; who may fetch entries is a setting. https://c2sp.org/tlog-tiles
"""

import gzip

from aiohttp import web

from translog.core.tile import Bundle, parse_tile_path
from translog.errors import MalformedError, PushbackError
from translog.log.reader import Reader
from translog.server.api import IMMUTABLE, IMMUTABLE_PRIVATE, NO_STORE, OCTETS, PLAIN_TEXT, PRINCIPAL, Api, Route
from translog.server.auth import require_entry_reader
from translog.server.settings import PublicRead

_GZIP_LEVEL = 1
"""Most of the gain at a fifth of the cost of level 6."""


async def get_checkpoint(api: Api, request: web.Request) -> web.Response:
    published = api.service.published
    if published is None:
        raise PushbackError("nothing is published yet", code="not-open", retry_after_ms=1_000)
    return web.Response(body=published.note, headers={"Content-Type": PLAIN_TEXT, "Cache-Control": NO_STORE})


async def get_tile(api: Api, request: web.Request) -> web.Response:
    if "%" in request.raw_path.partition("?")[0]:
        raise MalformedError("a tile path has no escaped characters")
    tile = parse_tile_path(f"tile/{request.match_info['tile']}")
    if isinstance(tile, Bundle):
        return await _bundle(api, request, tile)
    data = api.service.read_at_once(lambda reader: reader.tile(tile))
    return web.Response(body=data, headers={"Content-Type": OCTETS, "Cache-Control": IMMUTABLE})


async def _bundle(api: Api, request: web.Request, bundle: Bundle) -> web.Response:
    require_entry_reader(request[PRINCIPAL], api.settings.public_read)
    compressed = _accepts_gzip(request.headers.get("Accept-Encoding", ""))

    def read(reader: Reader) -> bytes:
        data = reader.bundle(bundle)
        return gzip.compress(data, compresslevel=_GZIP_LEVEL, mtime=0) if compressed else data

    data = await api.service.read(read)
    public = api.settings.public_read is PublicRead.EVERYONE
    headers = {
        "Content-Type": OCTETS,
        "Cache-Control": IMMUTABLE if public else IMMUTABLE_PRIVATE,
        "Vary": "Accept-Encoding",
    }
    if compressed:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=data, headers=headers)


def _accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header (RFC 9110 section 12.5.3) names gzip with a weight above 0."""
    for item in header.split(","):
        coding, _, parameters = item.partition(";")
        if coding.strip().lower() == "gzip":
            weight = parameters.strip().lower().removeprefix("q=")
            return weight.strip("0.") != "" or not parameters.strip()
    return False


ROUTES = (
    Route(
        method="GET",
        path="/checkpoint",
        handler=get_checkpoint,
        summary="The latest checkpoint, a signed note",
        answers={200: ("The note.", PLAIN_TEXT, None)},
        errors=(503,),
    ),
    Route(
        method="GET",
        path="/tile/{tile:.+}",
        handler=get_tile,
        summary="A hash tile `<L>/<N>[.p/<W>]` or an entry bundle `entries/<N>[.p/<W>]`",
        parameters={"tile": {"type": "string", "examples": ["0/000.p/1", "entries/000.p/1", "1/x001/x234/067"]}},
        answers={200: ("The tile's hashes or the bundle's entries.", OCTETS, None)},
        errors=(400, 404, 500, 503),
    ),
)
