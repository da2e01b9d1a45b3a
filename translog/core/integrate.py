"""Appending to the tree: from its right edge and new entries to the changed tiles and the new edge. Pure.

Rules: each leaf is hashed once and each inner node once, when it completes; a tile grows by appending, so a shorter version
of it is always a prefix of a longer one. https://c2sp.org/tlog-tiles, https://www.rfc-editor.org/rfc/rfc6962#section-2.1
"""

from collections.abc import Iterable
from dataclasses import dataclass

from translog.core.merkle import fold_range, hash_children, hash_leaf, range_nodes
from translog.core.tile import TILE_HEIGHT, TILE_WIDTH, Tile, TilePlan, TileSource, edge_tiles
from translog.core.wire import HASH_BYTES

_TILE_BYTES = TILE_WIDTH * HASH_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """The right edge of a tree: all that appending needs of it. At most 63 hashes and 8 partial tiles, whatever the size.

    `subtrees` are the hashes of `range_nodes(0, size)`; `tiles[level]` is the content of the partial tile of that level,
    empty where there is none.
    """

    size: int
    subtrees: tuple[bytes, ...]
    tiles: tuple[bytes, ...]

    @property
    def root(self) -> bytes:
        """The tree's root hash."""
        return fold_range(self.subtrees)


EMPTY_EDGE = Edge(size=0, subtrees=(), tiles=())


def load_edge(source: TileSource, *, size: int, root: bytes) -> Edge:
    """The edge of the tree head (size, root). Reads at most 8 tiles, checked against `root`: raises VerificationError."""
    nodes = range_nodes(0, size)
    plan = TilePlan(nodes, size=size)
    data = source.read_tiles(plan.tiles)
    subtrees = plan.authenticate(data, root=root).read_hashes(nodes)
    by_level = {tile.level: tile_data for tile, tile_data in zip(plan.tiles, data, strict=True)}
    levels = 1 + max((tile.level for tile in edge_tiles(size)), default=-1)
    return Edge(size=size, subtrees=tuple(subtrees), tiles=tuple(by_level.get(level, b"") for level in range(levels)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Integration:
    """What appending changed: the new edge, and the full content of every tile that grew, widest version only."""

    edge: Edge
    tiles: dict[Tile, bytes]


def integrate(edge: Edge, entries: Iterable[bytes]) -> Integration:
    """Appends `entries` in order. About two hashes an entry; the caller has checked that they fit a bundle."""
    size = edge.size
    subtrees = list(edge.subtrees)
    partial = [bytearray(tile) for tile in edge.tiles]
    tiles: dict[Tile, bytes] = {}

    def grow(level: int, value: bytes) -> None:
        """Adds a hash to the rightmost tile of a level, and hands the tile out when it is full."""
        while len(partial) <= level:
            partial.append(bytearray())
        tile = partial[level]
        tile += value
        if len(tile) == _TILE_BYTES:
            tiles[Tile(level=level, index=size >> (TILE_HEIGHT * (level + 1)))] = bytes(tile)
            tile.clear()

    for entry in entries:
        value = hash_leaf(entry)
        grow(0, value)
        level = 0
        while size >> level & 1:  # the new subtree completes its parent
            value = hash_children(subtrees.pop(), value)
            level += 1
            if level % TILE_HEIGHT == 0:
                grow(level // TILE_HEIGHT, value)
        subtrees.append(value)
        size += 1

    new_edge = Edge(size=size, subtrees=tuple(subtrees), tiles=tuple(bytes(tile) for tile in partial))
    unchanged = set(edge_tiles(edge.size))
    for tile in edge_tiles(size):
        if tile not in unchanged:
            tiles[tile] = new_edge.tiles[tile.level]
    return Integration(edge=new_edge, tiles=tiles)
