"""What is kept of a tile that was dropped: 16 hashes, by which the tile's bytes are believed when they are read again."""

import pytest

from core.test_tile import TREE, Tiles
from translog.core.merkle import Node
from translog.core.tile import Tile, TileCache, TilePlan, TileReader, TileSummary, TileTree
from translog.errors import VerificationError

SIZE = 66_000
ROOT = TREE.mth(0, SIZE)
FIRST = Tile(level=0, index=0)
SECOND = Tile(level=0, index=1)
PARENT = Tile(level=1, index=0)
TILES_MAX = 4


def summaries_of(*tiles: Tile) -> TileCache:
    """A cache that held those tiles, and then dropped them for others."""
    cache = TileCache(tiles_max=TILES_MAX)
    for tile in tiles:
        cache.put(tile, TileTree(TREE.tile(tile)))
    for index in range(TILES_MAX):
        cache.put(Tile(level=7, index=index, width=1), TileTree(bytes(32)))
    assert all(cache.get(tile) is None and cache.get_summary(tile) is not None for tile in tiles)
    return cache


def open_reader(cache: TileCache, spoiled: dict[Tile, bytes] | None = None) -> tuple[TileReader, Tiles]:
    """A reader that knows the right edge."""
    source = Tiles(spoiled)
    reader = TileReader(source, size=SIZE, root=ROOT, cache=cache)
    reader.read_hashes([])
    source.asked.clear()
    return reader, source


def nodes_inside(tile: Tile) -> list[Node]:
    """Every node whose hash is in a full tile."""
    return [
        Node(8 * tile.level + row, (tile.index << (8 - row)) + position) for row in range(8) for position in range(256 >> row)
    ]


@pytest.mark.parametrize("tile", [FIRST, SECOND, PARENT], ids=["first", "second", "of level 1"])
def test_every_hash_comes_from_the_tile_read_again_or_from_its_summary_and_never_from_its_parents(tile: Tile) -> None:
    reader, source = open_reader(summaries_of(tile))
    for node in nodes_inside(tile):
        source.asked.clear()
        assert reader.read_hashes([node]) == TREE.read_hashes([node])
        assert source.asked == ([[tile]] if node.level % 8 < 4 else [])
    assert reader.read_hashes(nodes_inside(tile)) == TREE.read_hashes(nodes_inside(tile))


@pytest.mark.parametrize("row", range(8))
def test_a_parent_that_was_dropped_is_read_again_to_vouch_for_a_tile_below(row: int) -> None:
    reader, source = open_reader(summaries_of(PARENT))
    nodes = [Node(row, 0), Node(row, 20 << (8 - row)), Node(8, 255), Node(12, 3)]
    assert reader.read_hashes(nodes) == TREE.read_hashes(nodes)
    assert source.asked == [[FIRST, Tile(level=0, index=20), PARENT]]


def test_several_tiles_and_groups_are_read_at_once() -> None:
    reader, source = open_reader(summaries_of(FIRST, SECOND))
    nodes = [Node(0, 0), Node(0, 255), Node(2, 20), Node(0, 256), Node(7, 3)]
    assert reader.read_hashes(nodes) == TREE.read_hashes(nodes)
    assert source.asked == [[FIRST, SECOND]]


@pytest.mark.parametrize("tile", [FIRST, PARENT], ids=["leaves", "of level 1"])
@pytest.mark.parametrize("group", [0, 1, 15])
def test_every_flipped_byte_of_a_group_read_again_is_refused(tile: Tile, group: int) -> None:
    cache = summaries_of(tile)
    good = TREE.tile(tile)
    for at in range(512 * group, 512 * (group + 1)):
        reader, _ = open_reader(cache, {tile: good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :]})
        with pytest.raises(VerificationError, match=r"tile/./000 does not match the tree head of size 66000") as caught:
            reader.read_hashes([Node(8 * tile.level + 1, 8 * group)])
        assert caught.value.code == "tile-mismatch"


def test_a_flipped_byte_of_any_of_the_groups_asked_for_is_refused_and_of_others_not_seen() -> None:
    cache = summaries_of(FIRST)
    good = TREE.tile(FIRST)
    nodes = [Node(0, 40), Node(1, 50)]
    for group in range(16):
        at = 512 * group + 31 * group
        reader, _ = open_reader(cache, {FIRST: good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]})
        if group in (40 // 16, 100 // 16):
            with pytest.raises(VerificationError, match="does not match"):
                reader.read_hashes(nodes)
        else:
            assert reader.read_hashes(nodes) == TREE.read_hashes(nodes)


@pytest.mark.parametrize("data", [b"short", TREE.tile(FIRST)[:-1], TREE.tile(FIRST) + b"\0", TREE.tile(SECOND)])
def test_a_tile_read_again_that_is_short_long_or_another_is_refused(data: bytes) -> None:
    reader, _ = open_reader(summaries_of(FIRST), {FIRST: data})
    with pytest.raises(VerificationError) as caught:
        reader.read_hashes([Node(0, 255)])
    assert caught.value.code == "tile-mismatch"


def test_a_group_that_was_not_asked_for_gives_no_hash() -> None:
    plan = TilePlan([Node(0, 0)], size=SIZE, cache=summaries_of(FIRST))
    tiles = plan.authenticate(Tiles().read_tiles(plan.tiles), root=ROOT)
    assert tiles.read_hashes([Node(0, 15), Node(3, 1), Node(4, 1)]) == TREE.read_hashes([Node(0, 15), Node(3, 1), Node(4, 1)])
    for node in (Node(0, 16), Node(0, 255), Node(3, 2), Node(3, 31)):
        with pytest.raises(VerificationError, match="was not authenticated"):
            tiles.read_hashes([node])


def test_what_was_opened_for_one_plan_is_not_open_for_the_next() -> None:
    cache = summaries_of(FIRST)
    open_reader(cache)[0].read_hashes([Node(0, 0)])
    summary = cache.get_summary(FIRST)
    assert isinstance(summary, TileSummary)
    with pytest.raises(VerificationError, match="was not authenticated"):
        summary.hash_at(0, 0)


def test_a_group_that_does_not_belong_is_not_taken() -> None:
    summary = TileSummary(TileTree(TREE.tile(FIRST)).summary())
    assert not summary.open([3], TREE.tile(SECOND))
    with pytest.raises(VerificationError):
        summary.hash_at(0, 48)
    assert summary.open([3], TREE.tile(FIRST))
    assert [summary.hash_at(0, 48)] == TREE.read_hashes([Node(0, 48)])


def test_only_full_tiles_leave_a_summary_and_the_least_recently_used_of_them_goes_first() -> None:
    cache = TileCache(tiles_max=1)
    full, partial = TileTree(bytes(8192)), TileTree(bytes(32))
    cache.put(Tile(level=0, index=0, width=1), partial)
    for index in range(1, 18):
        cache.put(Tile(level=0, index=index), full)
    assert cache.get_summary(Tile(level=0, index=0)) is None
    assert cache.get_summary(Tile(level=0, index=1)) is not None
    cache.put(Tile(level=0, index=18), full)
    assert cache.get_summary(Tile(level=0, index=1)) is not None
    assert cache.get_summary(Tile(level=0, index=2)) is None
    assert cache.get_summary(Tile(level=0, index=18)) is None
    assert len(cache._summaries) == 16
