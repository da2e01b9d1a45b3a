"""Paths, tile sets, bundles, and the reader that believes no tile before it has led to the tree head."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from core.merkle_oracle import Oracle
from translog.core.merkle import EMPTY_ROOT, Node, inclusion_nodes, prove_consistency, prove_inclusion, root_hash
from translog.core.tile import (
    LEVEL_MAX,
    AuthenticatedTiles,
    Bundle,
    Tile,
    TileCache,
    TilePlan,
    TileReader,
    TileTree,
    bundles_of,
    decode_bundle,
    edge_tiles,
    encode_bundle,
    format_tile_path,
    parse_tile_path,
    tile_within,
    tiles_of,
)
from translog.core.wire import SIZE_MAX
from translog.errors import MalformedError, TooLargeError, VerificationError

TREE = Oracle([n.to_bytes(3, "big") for n in range(66_000)])


class Tiles:
    """A TileSource over the oracle that remembers what was asked and may spoil one tile."""

    def __init__(self, spoiled: dict[Tile, bytes] | None = None) -> None:
        self.asked: list[list[Tile]] = []
        self.spoiled = spoiled or {}

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        self.asked.append(list(tiles))
        return [self.spoiled.get(tile) or TREE.tile(tile) for tile in tiles]


# Paths

PATHS = [
    ("tile/0/000", Tile(level=0, index=0)),
    ("tile/0/000.p/1", Tile(level=0, index=0, width=1)),
    ("tile/0/255.p/255", Tile(level=0, index=255, width=255)),
    ("tile/0/999", Tile(level=0, index=999)),
    ("tile/1/x001/000", Tile(level=1, index=1000)),
    ("tile/0/x001/234.p/17", Tile(level=0, index=1234, width=17)),
    ("tile/0/x001/x234/067.p/8", Tile(level=0, index=1234067, width=8)),
    ("tile/7/x123/x456/789", Tile(level=7, index=123456789)),
    ("tile/63/000", Tile(level=63, index=0)),
    ("tile/entries/000", Bundle(index=0)),
    ("tile/entries/000.p/255", Bundle(index=0, width=255)),
    ("tile/entries/x273/x000/112.p/112", Bundle(index=273000112, width=112)),
    ("tile/0/x036/x028/x797/x018/x963/967", Tile(level=0, index=36028797018963967)),
]


@pytest.mark.parametrize(("path", "tile"), PATHS)
def test_paths_and_coordinates_belong_together(path: str, tile: Tile | Bundle) -> None:
    assert format_tile_path(tile) == path
    assert parse_tile_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        " tile/0/000",
        "tile//000",
        "tile/00/000",
        "tile/01/000",
        "tile/64/000",
        "tile/100/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/\u0661/000",
        "tile/data/000",
        "tile/entries",
        "tile/Entries/000",
        "Tile/0/000",
        "tile/8/0/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000",
        "tile/0/x000/000",
        "tile/0/x000/001",
        "tile/0/x000/x001/000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/X001/000",
        "tile/0/x1/000",
        "tile/0/x001/00",
        "tile/0/x001/\u0660\u0660\u0660",
        "tile/0/000.p",
        "tile/0/000.p/",
        "tile/0/000.p/0",
        "tile/0/000.p/00",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/1000",
        "tile/0/000.p/+1",
        "tile/0/000.p/1_0",
        "tile/0/000.p/1.p/1",
        "tile/0/000.P/1",
        "tile/0/000_p/1",
        "tile/0/x036/x028/x797/x018/x963/968",
        "tile/0/x999/x999/x999/x999/x999/999",
        "tile/0/x001/x000/x000/x000/x000/x000/000",
        "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
        "tile/0/../000",
    ],
)
def test_any_other_spelling_of_a_path_is_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        parse_tile_path(path)


@pytest.mark.parametrize("path", ["tile/0/x001/x234/067.p/8", "tile/entries/x001/000", "tile/12/000.p/255"])
def test_a_changed_path_is_refused_or_is_the_path_of_another_tile(path: str) -> None:
    changed = [path[i:j] for i, j in itertools.combinations(range(len(path) + 1), 2) if (i, j) != (0, len(path))]
    changed += [path[:at] + chr(value) + path[at + 1 :] for at in range(len(path)) for value in range(256)]
    refused = 0
    for other in changed:
        try:
            assert format_tile_path(parse_tile_path(other)) == other
        except MalformedError:
            refused += 1
    assert 0 < refused < len(changed)


# Which tiles exist


def by_definition(size: int) -> list[Tile]:
    """tlog-tiles: for each level, floor(size / 256^level) hashes."""
    found = []
    for level in range(LEVEL_MAX + 1):
        hashes = size // 256**level
        found += [Tile(level=level, index=n) for n in range(hashes // 256)]
        found += [Tile(level=level, index=hashes // 256, width=hashes % 256)] if hashes % 256 else []
    return found


@pytest.mark.parametrize(
    ("size", "full", "partial"),
    [
        (0, (), ()),
        (1, (0,), (1,)),
        (255, (0,), (255,)),
        (256, (1, 0), (0, 1)),
        (257, (1, 0), (1, 1)),
        (65_535, (255, 0), (255, 255)),
        (65_536, (256, 1, 0), (0, 0, 1)),
        (70_000, (273, 1, 0), (112, 17, 1)),
    ],
)
def test_tiles_of_a_tree_are_exactly_these(size: int, full: tuple[int, ...], partial: tuple[int, ...]) -> None:
    tiles = list(tiles_of(size))
    for level, (count, width) in enumerate(zip(full, partial, strict=True)):
        of_level = [tile for tile in tiles if tile.level == level]
        assert [tile.index for tile in of_level if tile.width == 256] == list(range(count))
        assert [(tile.index, tile.width) for tile in of_level if tile.width < 256] == ([(count, width)] if width else [])
    assert {tile.level for tile in tiles} == set(range(len(full)))
    assert tiles == by_definition(size)
    assert edge_tiles(size) == [tile for tile in tiles if tile.width < 256]


def test_the_largest_tree_has_tiles_of_eight_levels() -> None:
    assert [(tile.level, tile.width) for tile in edge_tiles(SIZE_MAX)] == [*((n, 255) for n in range(7)), (7, 127)]
    assert LEVEL_MAX == 7


def test_a_tile_is_within_a_tree_if_all_of_it_is() -> None:
    for size in (0, 1, 255, 256, 257, 600, 65_536, 66_000):
        existing = set(tiles_of(size))
        widest = {(tile.level, tile.index): tile.width for tile in existing}
        for level, index, width in itertools.product(range(4), (0, 1, 2, 3, 255, 256, 257), (0, 1, 87, 88, 89, 254, 255, 256)):
            inside = 0 < width <= widest.get((level, index), 0)
            assert tile_within(Tile(level=level, index=index, width=width), size=size) == inside
            if level == 0:
                assert tile_within(Bundle(index=index, width=width), size=size) == inside


# Bundles


@pytest.mark.parametrize(
    ("start", "end", "bundles"),
    [
        (0, 0, []),
        (5, 5, []),
        (6, 5, []),
        (0, 1, [Bundle(index=0, width=1)]),
        (0, 256, [Bundle(index=0)]),
        (255, 257, [Bundle(index=0), Bundle(index=1, width=1)]),
        (256, 512, [Bundle(index=1)]),
        (300, 301, [Bundle(index=1, width=45)]),
    ],
)
def test_bundles_of_a_range(start: int, end: int, bundles: list[Bundle]) -> None:
    assert bundles_of(start=start, end=end) == bundles


@pytest.mark.parametrize(
    "entries", [[], [b""], [b"", b""], [b"a", b"", b"bc"], [b"\xff" * 65_535], [bytes([n]) * n for n in range(256)]]
)
def test_bundles_round_trip(entries: list[bytes]) -> None:
    data = encode_bundle(entries)
    assert len(data) == sum(2 + len(entry) for entry in entries)
    assert decode_bundle(data) == decode_bundle(data, count_max=len(entries)) == entries


def test_a_bundle_is_length_prefixed_big_endian() -> None:
    assert encode_bundle([b"ab", b"", b"c" * 258]) == b"\x00\x02ab\x00\x00\x01\x02" + b"c" * 258


def test_an_entry_of_more_than_65535_bytes_fits_no_bundle() -> None:
    with pytest.raises(TooLargeError) as caught:
        encode_bundle([b"fits", bytes(65_536)])
    assert caught.value.code == "entry-too-large"


def test_a_bundle_cut_anywhere_but_between_entries_is_refused() -> None:
    entries = [b"", b"one", b"a" * 300, b"z"]
    data = encode_bundle(entries)
    ends = {len(encode_bundle(entries[:n])): n for n in range(len(entries) + 1)}
    for length in range(len(data) + 1):
        if length in ends:
            assert decode_bundle(data[:length]) == entries[: ends[length]]
        else:
            with pytest.raises(MalformedError, match="ends inside entry"):
                decode_bundle(data[:length])


def test_a_bundle_of_more_entries_than_allowed_is_refused() -> None:
    data = encode_bundle([b"a", b"b", b"c"])
    assert decode_bundle(data, count_max=3) == [b"a", b"b", b"c"]
    for count_max in (0, 1, 2):
        with pytest.raises(MalformedError, match="more than"):
            decode_bundle(data, count_max=count_max)
    assert decode_bundle(b"", count_max=0) == []


# Reading through tiles


def test_a_tile_tree_holds_every_perfect_subtree_inside_the_tile() -> None:
    for width in (1, 2, 3, 7, 88, 255, 256):
        tree = TileTree(TREE.tile(Tile(level=0, index=0, width=width)))
        for row in range(9):
            for position in range(width >> row):
                assert tree.hash_at(row, position) == TREE.mth(position << row, (position + 1) << row)


def check_size(size: int, cache: TileCache | None = None) -> None:
    reader = TileReader(Tiles(), size=size, root=TREE.mth(0, size), cache=cache)
    assert root_hash(size, reader) == TREE.mth(0, size)
    if size:
        index, old = (size // 2 * 7919) % size, (size // 3 * 31) % size or size
        assert prove_inclusion(index=index, size=size, reader=reader) == TREE.path(index, 0, size)
        assert prove_consistency(old=old, new=size, reader=reader) == TREE.proof(old, 0, size)


def test_roots_and_proofs_from_tiles_equal_the_oracle_for_every_size_to_1000() -> None:
    for size in range(1001):
        check_size(size)


@pytest.mark.parametrize("size", [65_279, 65_280, 65_281, 65_535, 65_536, 65_537, 65_791, 65_792, 65_793, 66_000])
def test_roots_and_proofs_from_tiles_equal_the_oracle_around_a_full_tile_of_level_1(size: int) -> None:
    check_size(size)
    reader = TileReader(Tiles(), size=size, root=TREE.mth(0, size))
    for index in (0, 255, 256, 40_000, size - 257, size - 2, size - 1):
        assert prove_inclusion(index=index, size=size, reader=reader) == TREE.path(index, 0, size)
        assert prove_consistency(old=index + 1, new=size, reader=reader) == TREE.proof(index + 1, 0, size)


def test_proofs_for_growing_sizes_may_share_a_cache() -> None:
    cache = TileCache(tiles_max=3)
    for size in range(1, 1400, 29):
        check_size(size, cache)


def test_a_plan_asks_for_the_nodes_tiles_their_parents_and_the_edge_once() -> None:
    edge = [Tile(level=0, index=257, width=208), Tile(level=1, index=1, width=1), Tile(level=2, index=0, width=1)]
    assert TilePlan([], size=66_000).tiles == edge
    assert TilePlan([Node(0, 65_999), Node(3, 8_249), Node(8, 256), Node(16, 0)], size=66_000).tiles == edge
    below = [Tile(level=1, index=0), Tile(level=0, index=0), Tile(level=0, index=255)]
    assert TilePlan([Node(0, 0), Node(7, 1), Node(0, 65_535)], size=66_000).tiles == edge + below
    assert TilePlan([Node(8, 3), Node(15, 1)], size=66_000).tiles == [*edge, Tile(level=1, index=0)]


def test_a_reader_reads_its_source_once_for_a_call_or_for_many_proofs() -> None:
    source = Tiles()
    reader = TileReader(source, size=66_000, root=TREE.mth(0, 66_000))
    reader.read_hashes([Node(0, 7), Node(0, 300)])
    assert len(source.asked) == 1
    indexes = (7, 300, 65_999)
    tiles = reader.load([node for index in indexes for node in inclusion_nodes(index=index, size=66_000)])
    for index in indexes:
        assert prove_inclusion(index=index, size=66_000, reader=tiles) == TREE.path(index, 0, 66_000)
    assert len(source.asked) == 2


def test_a_cached_tile_is_not_read_again_nor_its_parents_nor_the_edge() -> None:
    cache, source = TileCache(tiles_max=10), Tiles()
    reader = TileReader(source, size=66_000, root=TREE.mth(0, 66_000), cache=cache)
    for _ in range(2):
        assert reader.read_hashes([Node(0, 7), Node(8, 9)]) == TREE.read_hashes([Node(0, 7), Node(8, 9)])
    assert reader.read_hashes([Node(0, 300)]) == TREE.read_hashes([Node(0, 300)])
    below = [Tile(level=1, index=0), Tile(level=0, index=0)]
    assert source.asked == [[*edge_tiles(66_000), *below], [Tile(level=0, index=1)]]


def test_a_cached_edge_does_not_vouch_for_another_root_or_size() -> None:
    cache = TileCache(tiles_max=10)
    TileReader(Tiles(), size=600, root=TREE.mth(0, 600), cache=cache).read_hashes([])
    for root in (TREE.mth(0, 601), EMPTY_ROOT):
        with pytest.raises(VerificationError, match="right edge"):
            TileReader(Tiles(), size=600, root=root, cache=cache).read_hashes([])
    source = Tiles()
    TileReader(source, size=601, root=TREE.mth(0, 601), cache=cache).read_hashes([])
    assert source.asked == [[Tile(level=0, index=2, width=89)]]


def test_a_reader_without_a_cache_holds_the_edge_of_its_tree_head_and_no_more() -> None:
    source = Tiles()
    reader = TileReader(source, size=66_000, root=TREE.mth(0, 66_000))
    for _ in range(2):
        assert reader.read_hashes([Node(0, 7), Node(0, 65_999)]) == TREE.read_hashes([Node(0, 7), Node(0, 65_999)])
    below = [Tile(level=1, index=0), Tile(level=0, index=0)]
    assert source.asked == [[*edge_tiles(66_000), *below], below]


def test_an_edge_that_was_refused_is_not_held() -> None:
    edge = Tile(level=0, index=2, width=88)
    source = Tiles({edge: TREE.tile(Tile(level=0, index=1, width=88))})
    reader = TileReader(source, size=600, root=TREE.mth(0, 600))
    for _ in range(2):
        with pytest.raises(VerificationError, match="right edge"):
            reader.read_hashes([Node(0, 0)])
    source.spoiled.clear()
    assert reader.read_hashes([Node(0, 599)]) == TREE.read_hashes([Node(0, 599)])


def test_the_cache_holds_each_width_of_a_tile_apart() -> None:
    cache = TileCache(tiles_max=10)
    for size in (600, 601):
        TileReader(Tiles(), size=size, root=TREE.mth(0, size), cache=cache).read_hashes([])
    assert cache.get(Tile(level=0, index=2)) is None
    for width in (88, 89):
        tree = cache.get(Tile(level=0, index=2, width=width))
        assert tree is not None
        assert tree.hash_at(0, width - 1) == TREE.mth(512 + width - 1, 512 + width)


OUTSIDE = [
    Node(0, 600),
    Node(0, 601),
    Node(0, 767),
    Node(0, 768),
    Node(1, 300),
    Node(3, 75),
    Node(8, 2),
    Node(9, 1),
    Node(10, 0),
    Node(63, 0),
    Node(0, -1),
    Node(8, -1),
]


@pytest.mark.parametrize("node", OUTSIDE)
def test_a_node_outside_of_the_tree_is_refused(node: Node) -> None:
    reader = TileReader(Tiles(), size=600, root=TREE.mth(0, 600))
    with pytest.raises(VerificationError, match="not in a tree of size 600"):
        reader.read_hashes([node])


@pytest.mark.parametrize("node", [*OUTSIDE, Node(0, 0), Node(7, 0), Node(7, 3)])
def test_authenticated_tiles_give_no_hash_of_another_tile_or_from_beyond_the_edge(node: Node) -> None:
    plan = TilePlan([Node(0, 599)], size=600)
    tiles = plan.authenticate(Tiles().read_tiles(plan.tiles), root=TREE.mth(0, 600))
    assert tiles.read_hashes([Node(8, 1), Node(3, 74)]) == TREE.read_hashes([Node(8, 1), Node(3, 74)])
    with pytest.raises(VerificationError):
        tiles.read_hashes([node])


def test_no_node_is_inside_an_empty_tree() -> None:
    with pytest.raises(VerificationError):
        TilePlan([Node(0, 0)], size=0)
    assert TilePlan([], size=0).authenticate([], root=EMPTY_ROOT).read_hashes([]) == []
    with pytest.raises(VerificationError):
        TilePlan([], size=0).authenticate([], root=TREE.mth(0, 1))


class Refusals:
    """Authenticates one plan with one spoiled tile at a time and expects it to be refused and nothing to be cached."""

    def __init__(self, nodes: list[Node], size: int) -> None:
        self.cache = TileCache(tiles_max=100)
        self.plan = TilePlan(nodes, size=size, cache=self.cache)
        self.root = TREE.mth(0, size)
        self.good = Tiles().read_tiles(self.plan.tiles)

    def authenticate(self, data: list[bytes]) -> AuthenticatedTiles:
        return self.plan.authenticate(data, root=self.root)

    def expect(self, number: int, spoiled: bytes) -> None:
        with pytest.raises(VerificationError) as caught:
            self.authenticate([*self.good[:number], spoiled, *self.good[number + 1 :]])
        assert caught.value.code == "tile-mismatch"
        assert not self.cache._trees


def test_every_flipped_byte_of_every_tile_read_is_refused_and_nothing_is_cached() -> None:
    check = Refusals([Node(0, 5)], size=258)
    assert [len(data) for data in check.good] == [2 * 32, 1 * 32, 256 * 32]
    for number, data in enumerate(check.good):
        for at in range(len(data)):
            check.expect(number, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
    check.authenticate(check.good)
    assert list(check.cache._trees) == [(tile.level, tile.index, tile.width) for tile in check.plan.tiles]


@pytest.mark.parametrize("size", [600, 66_000])
def test_a_change_of_any_hash_of_any_tile_read_is_refused_and_nothing_is_cached(size: int) -> None:
    check = Refusals([Node(0, 5), Node(0, 300)], size=size)
    for number, data in enumerate(check.good):
        for at in range(0, len(data), 33):
            check.expect(number, data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :])
    check.authenticate(check.good)
    assert list(check.cache._trees) == [(tile.level, tile.index, tile.width) for tile in check.plan.tiles]


def test_a_short_long_or_swapped_tile_is_refused() -> None:
    check = Refusals([Node(0, 5), Node(0, 300)], size=600)
    for number, data in enumerate(check.good):
        for spoiled in (b"", data[:-1], data[:-32], data + b"\0", data + bytes(32)):
            check.expect(number, spoiled)
    check.expect(2, check.good[3])
    check.expect(3, check.good[2])


def test_tiles_of_another_tree_head_are_refused() -> None:
    plan = TilePlan([Node(0, 5)], size=600)
    for root in (TREE.mth(0, 601), TREE.mth(0, 599), EMPTY_ROOT, b"", TREE.mth(0, 600)[:-1]):
        with pytest.raises(VerificationError, match="right edge"):
            plan.authenticate(Tiles().read_tiles(plan.tiles), root=root)


def test_the_error_names_the_tile_that_does_not_belong() -> None:
    spoiled = {Tile(level=0, index=1): TREE.tile(Tile(level=0, index=0))}
    reader = TileReader(Tiles(spoiled), size=66_000, root=TREE.mth(0, 66_000))
    with pytest.raises(VerificationError, match="tile/0/001 does not match the tree head of size 66000"):
        reader.read_hashes([Node(0, 1), Node(0, 256)])
    reader = TileReader(Tiles({Tile(level=0, index=1): b"short"}), size=66_000, root=TREE.mth(0, 66_000))
    with pytest.raises(VerificationError, match="tile/0/001 has 5 bytes, not 8192"):
        reader.read_hashes([Node(0, 256)])


# The cache


def tree_of(n: int) -> TileTree:
    return TileTree(bytes([n]) * 8192)


def test_the_cache_drops_the_least_recently_used_tile() -> None:
    cache = TileCache(tiles_max=2)
    first, second, third = tree_of(1), tree_of(2), tree_of(3)
    cache.put(Tile(level=0, index=1), first)
    cache.put(Tile(level=0, index=2), second)
    assert cache.get(Tile(level=0, index=1)) is first
    cache.put(Tile(level=0, index=3), third)
    assert cache.get(Tile(level=0, index=2)) is None
    assert cache.get(Tile(level=0, index=1)) is first
    assert cache.get(Tile(level=0, index=3)) is third
    assert cache.get(Tile(level=1, index=1)) is None


def test_a_cache_of_no_tiles_keeps_none() -> None:
    cache = TileCache(tiles_max=0)
    cache.put(Tile(level=0, index=1), tree_of(1))
    assert cache.get(Tile(level=0, index=1)) is None


def test_the_cache_survives_another_thread_that_drops_the_same_tile() -> None:
    class Racing(OrderedDict[Any, Any]):
        """As if another thread had removed the tile between two steps."""

        def move_to_end(self, key: Any, last: bool = True) -> NoReturn:
            raise KeyError(key)

        def popitem(self, last: bool = True) -> NoReturn:
            self.clear()
            raise KeyError

    cache = TileCache(tiles_max=1)
    cache._trees = Racing()
    cache._summaries = Racing()
    tree = tree_of(1)
    cache.put(Tile(level=0, index=1), tree)
    assert cache.get(Tile(level=0, index=1)) is tree
    cache.put(Tile(level=0, index=2), tree)
    assert cache.get(Tile(level=0, index=1)) is None
    cache._summaries.update({(0, index): tree.summary() for index in range(17)})
    assert cache.get_summary(Tile(level=0, index=1)) is not None
    cache.put(Tile(level=0, index=3), tree)
    assert not cache._summaries
