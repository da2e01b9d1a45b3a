"""Appending in any batches gives the oracle's tree, its tiles and its edge."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.merkle_oracle import Oracle
from translog.core.integrate import EMPTY_EDGE, Edge, integrate, load_edge
from translog.core.merkle import EMPTY_ROOT
from translog.core.tile import Tile, tiles_of
from translog.errors import VerificationError

TREE = Oracle([n.to_bytes(3, "big") for n in range(66_200)])


class Tiles:
    """A TileSource over the oracle."""

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        assert len(tiles) <= 8
        return [TREE.tile(tile) for tile in tiles]


def edge_of(size: int) -> Edge:
    return load_edge(Tiles(), size=size, root=TREE.mth(0, size))


def check(edge: Edge, count: int) -> Edge:
    """Appends the next `count` entries and checks everything there is to it."""
    size = edge.size + count
    result = integrate(edge, iter(TREE.entries[edge.size : size]))
    assert result.edge.size == size
    assert result.edge.root == TREE.mth(0, size)
    before = set(tiles_of(edge.size))
    assert result.tiles == {tile: TREE.tile(tile) for tile in tiles_of(size) if tile not in before}
    assert result.edge == edge_of(size)
    return result.edge


def test_the_empty_edge_is_the_edge_of_the_empty_tree() -> None:
    assert edge_of(0) == EMPTY_EDGE
    assert EMPTY_EDGE.root == EMPTY_ROOT


def test_appending_one_by_one() -> None:
    edge = EMPTY_EDGE
    for _ in range(700):
        edge = check(edge, 1)


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 511, 512, 513, 1000])
@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 300])
def test_appending_a_batch(size: int, count: int) -> None:
    check(edge_of(size), count)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=400), max_size=8))
def test_any_split_into_batches_gives_the_same_tree(counts: list[int]) -> None:
    edge = EMPTY_EDGE
    for count in counts:
        edge = check(edge, count)
    assert edge == integrate(EMPTY_EDGE, TREE.entries[: sum(counts)]).edge


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=65_000, max_value=65_600), st.integers(min_value=0, max_value=600))
def test_batches_across_a_full_tile_of_level_1(size: int, count: int) -> None:
    edge = edge_of(size)
    result = integrate(edge, TREE.entries[size : size + count])
    before = {*tiles_of(size)}
    assert result.tiles == {tile: TREE.tile(tile) for tile in tiles_of(size + count) if tile not in before}
    assert result.edge == edge_of(size + count)


def test_the_tile_of_level_2_appears_with_entry_65536() -> None:
    result = integrate(edge_of(65_535), TREE.entries[65_535:65_536])
    assert set(result.tiles) == {Tile(level=0, index=255), Tile(level=1, index=0), Tile(level=2, index=0, width=1)}
    assert result.edge.tiles == (b"", b"", TREE.mth(0, 65_536))


def test_integrating_leaves_the_edge_it_was_given_alone() -> None:
    edge = edge_of(300)
    integrate(edge, TREE.entries[300:600])
    assert edge == edge_of(300)


@pytest.mark.parametrize("size", [1, 255, 256, 300, 65_536, 66_000])
def test_an_edge_that_does_not_lead_to_the_root_is_not_loaded(size: int) -> None:
    with pytest.raises(VerificationError):
        load_edge(Tiles(), size=size, root=TREE.mth(0, size - 1))
