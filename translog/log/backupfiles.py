"""Which partial tiles and bundles a backup needs, and which it no longer does. For backup.py.

Rules: readers ask for the partial versions of two trees, that of the newest checkpoint and that of all entries; what is deleted
is neither's, and was not needed by the backup before either.
"""

from dataclasses import replace

from translog.core.integrate import Edge
from translog.core.tile import TILE_HEIGHT, TILE_WIDTH, Bundle, Tile, edge_tiles
from translog.storage.folder import Backup, Folder, partials_of
from translog.storage.store import StoredCheckpoint


def _place(tile: Tile | Bundle) -> tuple[int, int]:
    return (tile.level if isinstance(tile, Tile) else -1), tile.index


def write_edges(folder: Folder, edge: Edge, latest: StoredCheckpoint | None) -> None:
    """The partial tiles of the tree and of the checkpoint that readers know; full tiles and the last bundle are there."""
    for tile in edge_tiles(edge.size):
        folder.write_tile(tile, edge.tiles[tile.level])
    if latest is None or latest.size == edge.size:
        return
    partials = {_place(tile): tile for tile in partials_of(edge.size)}
    for part in partials_of(latest.size):
        wide = replace(part, width=TILE_WIDTH)
        folder.cut_from(partials.get(_place(part), wide), part)


def drop_partials(folder: Folder, before: Backup | None, edge: Edge, latest: StoredCheckpoint | None, *, last: bool) -> None:
    """Deletes the partial versions that nobody needs any more, of full tiles or of the last ones; those of an interrupted
    backup too."""
    wanted: dict[tuple[int, int], set[int]] = {}
    for size in {edge.size, edge.size if latest is None else latest.size}:
        for tile in partials_of(size):
            wanted.setdefault(_place(tile), set()).add(tile.width)
    begin = 0 if before is None else before.state.size if before.latest is None else before.latest.size
    level = 0
    while edge.size >> (TILE_HEIGHT * level):
        height = TILE_HEIGHT * (level + 1)
        end = edge.size >> height
        for index in [end] if last else range(begin >> height, end):
            tiles: list[Tile | Bundle] = [Tile(level=level, index=index)]
            for tile in [*tiles, Bundle(index=index)] if level == 0 else tiles:
                folder.drop_partials(tile, kept=wanted.get(_place(tile), ()))
        level += 1
