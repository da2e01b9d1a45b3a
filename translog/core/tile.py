"""Tiles: coordinates, paths, bundles, and the reader that authenticates tiles before anyone sees a hash of them.

Rules: a tile of level L and index N holds the hashes of nodes (8L, 256N) .. (8L, 256N+255); a partial tile is a prefix.
Bytes become hashes only in `TilePlan.authenticate`: the tiles on the tree's right edge must fold to the root, every other tile
must hash to the entry for it in its parent, or what is used of it to what was kept of it since. https://c2sp.org/tlog-tiles
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from translog.core.merkle import Node, fold_range, range_nodes
from translog.core.wire import HASH_BYTES, SIZE_MAX, parse_decimal
from translog.errors import MalformedError, TooLargeError, VerificationError

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
ENTRY_BYTES_MAX = 65_535
"""A bundle holds the length of an entry in 16 bits."""
BUNDLE_BYTES_MAX = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
"""The largest entry bundle: 16.8 MB."""
LEVEL_MAX = 63 // TILE_HEIGHT
"""Highest tile level a tree of 2^63-1 leaves can have. Paths may say up to 63; such tiles never exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Coordinates of a hash tile; `width` is its number of hashes, 1..256."""

    level: int
    index: int
    width: int = TILE_WIDTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Coordinates of an entry bundle: entries [256 * index, 256 * index + width)."""

    index: int
    width: int = TILE_WIDTH


class TileSource(Protocol):
    """Where tiles come from: the store, a folder, another log over HTTP. What it returns is not trusted."""

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        """The bytes of each tile, in order. Raises NotFoundError, StorageError or RemoteError."""


_GROUP_HEIGHT = 4
_GROUP_BYTES = HASH_BYTES << _GROUP_HEIGHT
_SUMMARIES_PER_TILE = 16
"""Summaries kept for each tile kept: about 0.9 kB each with their keys."""

_PATH = re.compile(
    r"tile/(?P<level>0|[1-9][0-9]?|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


def format_tile_path(tile: Tile | Bundle) -> str:
    """`tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`, N in groups of three digits: `tile/0/x001/x234/067.p/8`."""
    level = "entries" if isinstance(tile, Bundle) else str(tile.level)
    groups = [f"{tile.index % 1000:03d}"]
    rest = tile.index // 1000
    while rest:
        groups.append(f"x{rest % 1000:03d}")
        rest //= 1000
    partial = "" if tile.width == TILE_WIDTH else f".p/{tile.width}"
    return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def parse_tile_path(path: str) -> Tile | Bundle:
    """The coordinates that `path` names. Raises MalformedError for any but the canonical spelling."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise MalformedError(
            f"not a tile path: {path[:80]!r}", hint="tile/<level>/<index>[.p/<width>], see c2sp.org/tlog-tiles"
        )
    index = int(match["index"].replace("/", "").replace("x", ""))
    width = TILE_WIDTH if match["width"] is None else parse_decimal(match["width"], maximum=TILE_WIDTH - 1)
    tile: Tile | Bundle
    if match["level"] == "entries":
        tile = Bundle(index=index, width=width)
    else:
        tile = Tile(level=parse_decimal(match["level"], maximum=63), index=index, width=width)
    if format_tile_path(tile) != path or index > SIZE_MAX // TILE_WIDTH:
        raise MalformedError(f"not a canonical tile path: {path[:80]!r}")
    return tile


def tile_within(tile: Tile | Bundle, *, size: int) -> bool:
    """Whether all of `tile` exists in the tree of `size`."""
    level = 0 if isinstance(tile, Bundle) else tile.level
    return tile.width > 0 and (tile.index * TILE_WIDTH + tile.width) << (TILE_HEIGHT * level) <= size


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile of the tree of `size`: per level the full ones and then the partial one, if any."""
    level = 0
    while hashes := size >> (TILE_HEIGHT * level):
        full, partial = divmod(hashes, TILE_WIDTH)
        for index in range(full):
            yield Tile(level=level, index=index)
        if partial:
            yield Tile(level=level, index=full, width=partial)
        level += 1


def edge_tiles(size: int) -> list[Tile]:
    """The partial tiles of the tree of `size`, lowest level first. Together they determine the root."""
    tiles = []
    level = 0
    while hashes := size >> (TILE_HEIGHT * level):
        if hashes % TILE_WIDTH:
            tiles.append(Tile(level=level, index=hashes // TILE_WIDTH, width=hashes % TILE_WIDTH))
        level += 1
    return tiles


def bundles_of(*, start: int, end: int) -> list[Bundle]:
    """The bundles that hold entries [start, end), the last one as wide as `end` needs."""
    first, last = start // TILE_WIDTH, (end - 1) // TILE_WIDTH
    return [Bundle(index=n, width=min(TILE_WIDTH, end - n * TILE_WIDTH)) for n in range(first, last + 1)] if start < end else []


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """`(u16 length || entry)*`. Raises TooLargeError for an entry above 65,535 bytes."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise TooLargeError(f"an entry of {len(entry)} bytes: at most {ENTRY_BYTES_MAX} fit", code="entry-too-large")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def decode_bundle(data: bytes, *, count_max: int | None = None) -> list[bytes]:
    """The entries of a bundle, any number of them up to `count_max`. Raises MalformedError where it is cut short."""
    entries: list[bytes] = []
    position = 0
    while position < len(data):
        if count_max is not None and len(entries) == count_max:
            raise MalformedError(f"more than {count_max} entries in a bundle", code="too-many-entries")
        begin = position + 2
        position = begin + int.from_bytes(data[position:begin], "big")
        if position > len(data):
            raise MalformedError(f"the bundle ends inside entry {len(entries)}")
        entries.append(data[begin:position])
    return entries


class TileTree:
    """The hashes inside one tile: its own at row 0, and above them every perfect subtree."""

    __slots__ = ("_rows",)

    def __init__(self, data: bytes) -> None:
        rows = [data]
        while len(below := rows[-1]) >= 2 * HASH_BYTES:
            pairs = range(0, len(below) - 2 * HASH_BYTES + 1, 2 * HASH_BYTES)
            rows.append(b"".join([sha256(b"\x01" + below[at : at + 2 * HASH_BYTES]).digest() for at in pairs]))
        self._rows = rows

    def hash_at(self, row: int, position: int) -> bytes:
        """The subtree over hashes [position * 2^row, (position + 1) * 2^row) of the tile."""
        return self._rows[row][position * HASH_BYTES : (position + 1) * HASH_BYTES]

    def summary(self) -> bytes:
        """The 16 hashes that a full tile can be authenticated by, 16 of its own hashes at a time."""
        return self._rows[_GROUP_HEIGHT]


class TileSummary:
    """A full tile of which only the summary is at hand: the hashes from row 4 up, and below it those of the groups of 16 that
    were opened."""

    __slots__ = ("_groups", "_upper")

    def __init__(self, summary: bytes) -> None:
        self._upper = TileTree(summary)
        self._groups: dict[int, TileTree] = {}

    def open(self, groups: Iterable[int], data: bytes) -> bool:
        """Takes those groups from the tile's bytes, unless one of them does not hash to what the summary says."""
        for number in groups:
            group = TileTree(data[number * _GROUP_BYTES : (number + 1) * _GROUP_BYTES])
            if group.hash_at(_GROUP_HEIGHT, 0) != self._upper.hash_at(0, number):
                return False
            self._groups[number] = group
        return True

    def hash_at(self, row: int, position: int) -> bytes:
        """See TileTree. Raises VerificationError for a group that was not opened."""
        if row >= _GROUP_HEIGHT:
            return self._upper.hash_at(row - _GROUP_HEIGHT, position)
        across = _GROUP_HEIGHT - row
        group = self._groups.get(position >> across)
        if group is None:
            raise VerificationError(f"hash {position} in row {row} of a tile was not authenticated")
        return group.hash_at(row, position & ((1 << across) - 1))


class TileCache:
    """Tiles already authenticated; the least recently used goes first, and leaves its summary if it is full. Share one only
    between tree heads of one append-only log known to be consistent with each other. About 17 kB a tile, and as much again for
    the summaries. Safe to share between threads: keys are tuples of integers, so that no step on the tables runs Python code in
    which another thread could get in between."""

    def __init__(self, *, tiles_max: int) -> None:
        self._tiles_max = tiles_max
        self._trees: OrderedDict[tuple[int, int, int], TileTree] = OrderedDict()
        self._summaries: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def get(self, tile: Tile) -> TileTree | None:
        """The hashes of that tile at that width, None if they are not held."""
        key = (tile.level, tile.index, tile.width)
        tree = self._trees.get(key)
        if tree is not None:
            with suppress(KeyError):  # dropped by another thread in between; the tree in hand is still good
                self._trees.move_to_end(key)
        return tree

    def get_summary(self, tile: Tile) -> TileSummary | None:
        """The summary of a full tile that is not held any more, None if that is gone too."""
        key = (tile.level, tile.index)
        summary = self._summaries.get(key)
        if summary is None:
            return None
        with suppress(KeyError):
            self._summaries.move_to_end(key)
        return TileSummary(summary)

    def put(self, tile: Tile, tree: TileTree) -> None:
        """Holds an authenticated tile."""
        self._trees[tile.level, tile.index, tile.width] = tree
        while len(self._trees) > self._tiles_max:
            with suppress(KeyError):
                (level, index, width), dropped = self._trees.popitem(last=False)
                if width == TILE_WIDTH:
                    self._summaries[level, index] = dropped.summary()
        while len(self._summaries) > _SUMMARIES_PER_TILE * self._tiles_max:
            with suppress(KeyError):
                self._summaries.popitem(last=False)


def _home(node: Node) -> tuple[int, int, int, int]:
    """Where a node's hash is: tile level, tile index, row and position inside the tile."""
    row = node.level % TILE_HEIGHT
    across = TILE_HEIGHT - row
    return node.level // TILE_HEIGHT, node.index >> across, row, node.index & ((1 << across) - 1)


def _require_inside(node: Node, size: int) -> None:
    if node.index < 0 or (node.index + 1) << node.level > size:
        raise VerificationError(f"node {node.index} of level {node.level} is not in a tree of size {size}")


class AuthenticatedTiles:
    """A HashReader over tiles that were checked against a tree head. Made by `TilePlan.authenticate` only."""

    def __init__(self, trees: Mapping[tuple[int, int], TileTree | TileSummary], *, size: int) -> None:
        self.trees = trees
        self._size = size

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """One hash per node. Raises VerificationError for a node outside the tree or of a tile that was not authenticated."""
        hashes = []
        for node in nodes:
            _require_inside(node, self._size)
            level, index, row, position = _home(node)
            tree = self.trees.get((level, index))
            if tree is None:
                raise VerificationError(f"tile {level}/{index} was not authenticated")
            hashes.append(tree.hash_at(row, position))
        return hashes

    def edge(self) -> "AuthenticatedTiles":
        """Only the tiles on the right edge, for further plans under the same tree head."""
        keys = [(tile.level, tile.index) for tile in edge_tiles(self._size)]
        return AuthenticatedTiles({key: self.trees[key] for key in keys}, size=self._size)


class TilePlan:
    """Which tiles to read so that hashes of `nodes` in the tree of `size` can be believed, and the check of what was read.

    `tiles` are the right edge, the nodes' own tiles, and the chain of parents above each up to a tile on that edge or in
    `cache`; tiles that `cache` has a summary of are read again, and their parents are not. Fetch them however you like, then
    call `authenticate`. Raises VerificationError for a node outside the tree. `edge` is what the right edge of the very same
    tree head was found to be before: it is not asked for again.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        *,
        size: int,
        cache: TileCache | None = None,
        edge: AuthenticatedTiles | None = None,
    ) -> None:
        wanted = {(tile.level, tile.index): tile for tile in edge_tiles(size)} if edge is None else {}
        below: dict[tuple[int, int], Tile] = {}
        trusted = {} if edge is None else dict(edge.trees)
        groups: dict[tuple[int, int], set[int]] = {}

        def is_trusted(tile: Tile) -> bool:
            tree = None if cache is None else cache.get(tile) or cache.get_summary(tile)
            if tree is not None:
                trusted[tile.level, tile.index] = tree
            return tree is not None

        for node in nodes:
            _require_inside(node, size)
            level, index, row, position = _home(node)
            while not ((level, index) in wanted or (level, index) in below or (level, index) in trusted):
                if is_trusted(tile := Tile(level=level, index=index)):
                    break
                below[level, index] = tile
                level, row = level + 1, 0
                index, position = divmod(index, TILE_WIDTH)
            if row < _GROUP_HEIGHT and isinstance(trusted.get((level, index)), TileSummary):
                groups.setdefault((level, index), set()).add(position >> (_GROUP_HEIGHT - row))
        self._below = sorted(below.values(), key=lambda tile: tile.level, reverse=True)  # parents before children
        again = [Tile(level=level, index=index) for level, index in groups]
        self.tiles = [*(tile for tile in wanted.values() if not is_trusted(tile)), *self._below, *again]
        self._groups = groups
        self._size = size
        self._trusted = trusted
        self._cache = cache
        self._is_edge_known = edge is not None

    def authenticate(self, data: Sequence[bytes], *, root: bytes) -> AuthenticatedTiles:
        """A reader for the planned nodes under the tree head (size, root), given the bytes of `tiles`, in order.

        Raises VerificationError naming the first tile that is short or does not belong to that tree, and caches nothing.
        """
        trees = dict(self._trusted)
        for tile, tile_data in zip(self.tiles, data, strict=True):
            if len(tile_data) != tile.width * HASH_BYTES:
                raise VerificationError(
                    f"{format_tile_path(tile)} has {len(tile_data)} bytes, not {tile.width * HASH_BYTES}",
                    code="tile-mismatch",
                )
            key = (tile.level, tile.index)
            summary = trees.get(key)
            if not isinstance(summary, TileSummary):
                trees[key] = TileTree(tile_data)
            elif not summary.open(self._groups[key], tile_data):
                raise self._mismatch(tile)
        reader = AuthenticatedTiles(trees, size=self._size)
        if not self._is_edge_known and fold_range(reader.read_hashes(range_nodes(0, self._size))) != root:
            raise VerificationError(
                f"the tiles on the right edge do not hash to the root of size {self._size}", code="tile-mismatch"
            )
        for tile in self._below:
            claimed = trees[tile.level + 1, tile.index // TILE_WIDTH].hash_at(0, tile.index % TILE_WIDTH)
            if claimed != trees[tile.level, tile.index].hash_at(TILE_HEIGHT, 0):
                raise self._mismatch(tile)
        if self._cache is not None:
            for tile in self.tiles:
                tree = trees[tile.level, tile.index]
                if isinstance(tree, TileTree):
                    self._cache.put(tile, tree)
        return reader

    def _mismatch(self, tile: Tile) -> VerificationError:
        return VerificationError(
            f"{format_tile_path(tile)} does not match the tree head of size {self._size}", code="tile-mismatch"
        )


class TileReader:
    """A HashReader over a TileSource: plans, reads once, authenticates, answers."""

    def __init__(self, source: TileSource, *, size: int, root: bytes, cache: TileCache | None = None) -> None:
        self._source = source
        self._size = size
        self._root = root
        self._cache = cache
        self._edge: AuthenticatedTiles | None = None

    def load(self, nodes: Sequence[Node]) -> AuthenticatedTiles:
        """A HashReader for those nodes, so that several proofs cost at most one call of the source."""
        plan = TilePlan(nodes, size=self._size, cache=self._cache, edge=self._edge)
        data = self._source.read_tiles(plan.tiles) if plan.tiles else []
        tiles = plan.authenticate(data, root=self._root)
        if self._edge is None:
            self._edge = tiles.edge()
        return tiles

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """See HashReader. At most one call of the source."""
        return self.load(nodes).read_hashes(nodes)
