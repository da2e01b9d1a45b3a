"""The read side of C2SP tlog-tiles: `/checkpoint`, `/tile/<L>/<N>[.p/<W>]`, `/tile/entries/<N>[.p/<W>]`.

Rules: bytes and paths exactly as the specification has them; tiles never change, so they may be cached for long, a checkpoint
and an error never; bundles are compressed for who can take it; who may fetch entries is a setting. https://c2sp.org/tlog-tiles
"""

import gzip
from collections import OrderedDict
from collections.abc import Hashable

from aiohttp import web

from translog.core.tile import TILE_WIDTH, Bundle, parse_tile_path
from translog.errors import MalformedError, PushbackError
from translog.log.reader import Reader
from translog.server.api import IMMUTABLE, IMMUTABLE_PRIVATE, NO_STORE, OCTETS, PLAIN_TEXT, PRINCIPAL, Api, Route
from translog.server.auth import require_entry_reader
from translog.server.settings import PublicRead

_GZIP_LEVEL = 1
"""Most of the gain at a fifth of the cost of level 6."""
KEPT_BYTES_MAX = 32 * 1024 * 1024
_KEY_BYTES = 256
"""What a body costs beside its bytes, about: some are small."""

_CHECKPOINT_HEADERS = {"Content-Type": PLAIN_TEXT, "Cache-Control": NO_STORE}
_TILE_HEADERS = {"Content-Type": OCTETS, "Cache-Control": IMMUTABLE}


class KeptBodies:
    """Bodies of full tiles and bundles as they were sent, so many bytes of them; the least recently used goes first. Whoever
    follows the log asks for the same newest ones. Belongs to the event loop's thread."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = self._left = bytes_max
        self._bodies: OrderedDict[Hashable, bytes] = OrderedDict()

    def get(self, key: Hashable) -> bytes | None:
        """None for a body that is not held."""
        body = self._bodies.get(key)
        if body is not None:
            self._bodies.move_to_end(key)
        return body

    def put(self, key: Hashable, body: bytes) -> None:
        """Holds a body that will never be another one. Too large a one is not held."""
        if key in self._bodies or len(body) + _KEY_BYTES > self._bytes_max:
            return
        self._bodies[key] = body
        self._left -= len(body) + _KEY_BYTES
        while self._left < 0:
            _, dropped = self._bodies.popitem(last=False)
            self._left += len(dropped) + _KEY_BYTES


KEPT = web.AppKey("kept", KeptBodies)


async def get_checkpoint(api: Api, request: web.Request) -> web.Response:
    published = api.service.published
    if published is None:
        raise PushbackError("nothing is published yet", code="not-open", retry_after_ms=1_000)
    return web.Response(body=published.note, headers=_CHECKPOINT_HEADERS)


async def get_tile(api: Api, request: web.Request) -> web.Response:
    if "%" in request.raw_path.partition("?")[0]:
        raise MalformedError("a tile path has no escaped characters")
    path = request.match_info["tile"]
    kept = request.app[KEPT]
    data = kept.get(path)
    if data is None:
        tile = parse_tile_path(f"tile/{path}")
        if isinstance(tile, Bundle):
            return await _bundle(api, request, tile, kept)
        data = api.service.read_at_once(lambda reader: reader.tile(tile))
        if tile.width == TILE_WIDTH:
            kept.put(path, data)
    return web.Response(body=data, headers=_TILE_HEADERS)


async def _bundle(api: Api, request: web.Request, bundle: Bundle, kept: KeptBodies) -> web.Response:
    require_entry_reader(request[PRINCIPAL], api.settings.public_read)
    compressed = _accepts_gzip(request.headers.get("Accept-Encoding", ""))

    def read(reader: Reader) -> bytes:
        data = reader.bundle(bundle)
        return gzip.compress(data, compresslevel=_GZIP_LEVEL, mtime=0) if compressed else data

    # Not under the path: that is for everyone.
    key = (bundle.index, compressed)
    full = bundle.width == TILE_WIDTH
    data = kept.get(key) if full else None
    if data is None:
        data = await api.service.read(read)
        if full:
            kept.put(key, data)
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
