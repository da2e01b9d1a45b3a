"""The hashing under fsck, against the definition; and who is believed where accounts differ."""

import copy
from collections.abc import Sequence
from hashlib import sha256

import pytest
from core.merkle_oracle import Oracle
from faults.made_store import POLICY, STRANGER, MemoryTree, entries_of, memory_tree, root_of, sign_head
from hypothesis import given
from hypothesis import strategies as st

from translog.core.merkle import EMPTY_ROOT
from translog.core.tile import TILE_WIDTH, Tile
from translog.log import judge as module
from translog.log.judge import compare, judge
from translog.log.recompute import Pyramid, Span, SpanResult, Suspect, Version, check_notes, check_span, tree_hash

SIZE = 256 * 3 + 10


def leaf_hashes(entries: Sequence[bytes]) -> list[bytes]:
    return [sha256(b"\x00" + entry).digest() for entry in entries]


@pytest.mark.parametrize("count", [*range(1, 131), 255, 256, 257, 1_000])
def test_the_tree_hash_is_that_of_the_definition(count: int) -> None:
    assert tree_hash(leaf_hashes(entries_of(count))) == root_of(entries_of(count))


# --- a span -------------------------------------------------------------------------------------------------------------


def span_of(tree: MemoryTree, first: int, end: int, *stated: int) -> SpanResult:
    assert tree.state is not None
    return check_span(tree, Span(first=first, end=end, size=tree.state.size, stated=stated))


def test_a_span_that_agrees_gives_roots_folds_and_bytes() -> None:
    result = span_of(memory_tree(SIZE), 1, 4, 257, 511, 513, SIZE)
    oracle = Oracle(entries_of(SIZE))
    assert result.roots == [oracle.mth(256, 512), oracle.mth(512, 768), oracle.mth(768, SIZE)]
    assert result.folds == {
        257: oracle.mth(256, 257),
        511: oracle.mth(256, 511),
        513: oracle.mth(512, 513),
        SIZE: oracle.mth(768, SIZE),
    }
    assert (result.suspects, result.readable) == ([], True)
    assert result.entry_bytes == sum(map(len, entries_of(SIZE)[256:]))


def test_a_suspect_has_both_accounts_and_what_differs() -> None:
    tree = memory_tree(SIZE)
    tree.entries[300] = b"altered"
    result = span_of(tree, 0, 4, 299, 302)
    (suspect,) = result.suspects
    oracle, altered = Oracle(entries_of(SIZE)), Oracle([tree.entries[n] for n in range(SIZE)])
    assert (suspect.index, suspect.width, suspect.differing, suspect.unreadable) == (1, 256, (44,), ())
    assert suspect.of_tile == Version(root=oracle.mth(256, 512), folds={299: oracle.mth(256, 299), 302: oracle.mth(256, 302)})
    assert suspect.of_entries == Version(
        root=altered.mth(256, 512), folds={299: oracle.mth(256, 299), 302: altered.mth(256, 302)}
    )
    assert [root is None for root in result.roots] == [False, True, False, False]
    assert not suspect.agrees


@pytest.mark.parametrize(
    ("tile", "readable"), [(b"", False), (b"x" * 31, False), (bytes(8_191), False), (bytes(8_192), True), (None, False)]
)
def test_a_span_without_entries_is_readable_only_by_a_tile_that_is_one(tile: bytes | None, readable: bool) -> None:
    tree = memory_tree(256)
    tree.entries = {}
    tree.tiles_at = {} if tile is None else {(0, 0): tile}
    result = span_of(tree, 0, 1)
    assert result.readable is readable
    assert (result.suspects[0].of_tile is None) is not readable


def test_one_entry_is_enough_to_be_readable() -> None:
    tree = memory_tree(256)
    tree.entries, tree.tiles_at = {200: tree.entries[200]}, {}
    assert span_of(tree, 0, 1).readable


# --- the rows above -----------------------------------------------------------------------------------------------------


def pyramid(size: int) -> tuple[Pyramid, dict[int, bytes], Oracle]:
    oracle = Oracle(entries_of(size))
    roots: list[bytes | None] = [oracle.mth(n, min(n + 256, size)) for n in range(0, size, 256)]
    folds = {n: oracle.mth(n // 256 * 256, n) for n in range(size + 1) if n % 256}
    return Pyramid(roots, size), folds, oracle


@pytest.mark.parametrize("size", [1, 255, 256, 257, 511, 512, 513, 768, 1_024, 1_500, 2_048])
def test_every_prefix_has_the_root_of_the_definition(size: int) -> None:
    tree, folds, oracle = pyramid(size)
    for n in range(size + 1):
        assert tree.root(n, folds) == oracle.mth(0, n)
    assert tree.root(0, {}) == EMPTY_ROOT
    assert tree.root(size + 1, folds) is None


def test_the_root_of_what_is_lost_or_was_not_read_is_not_known() -> None:
    _, folds, oracle = pyramid(256 * 7)
    roots: list[bytes | None] = [oracle.mth(256 * n, 256 * n + 256) for n in range(7)]
    roots[4] = None
    tree = Pyramid(roots, 256 * 7)
    assert [tree.root(256 * n, folds) is None for n in range(8)] == [False] * 5 + [True] * 3
    assert tree.root(256 * 4 + 1, folds) == oracle.mth(0, 256 * 4 + 1)
    assert tree.root(256 * 4 + 1, {}) is None
    unread = Pyramid(roots[:3], 1 << 62)
    assert unread.end == 256 * 3
    assert [unread.root(256 * n, folds) is None for n in range(5)] == [False] * 4 + [True]
    assert unread.root(1 << 62, folds) is None


def test_a_tile_above_has_the_hashes_that_are_known() -> None:
    size = 256 * 300 + 7
    leaves = [b"%032d" % n for n in range(301)]
    tree = Pyramid([None if n == 299 else leaves[n] for n in range(301)], size)
    assert tree.tile(Tile(level=1, index=0)) == leaves[:256]
    assert tree.tile(Tile(level=1, index=1, width=44)) == [*leaves[256:299], None]
    assert tree.tile(Tile(level=2, index=0, width=1)) == [tree_hash(leaves[:256])]


@given(st.integers(1, 40), st.data())
def test_putting_another_hash_is_as_building_anew(count: int, data: st.DataObject) -> None:
    roots: list[bytes | None] = [bytes([n]) * 32 for n in range(count)]
    size = count * TILE_WIDTH - data.draw(st.sampled_from([0, 100]))
    tree = Pyramid(roots, size)
    for _ in range(3):
        index = data.draw(st.integers(0, count - 1))
        roots[index] = data.draw(st.sampled_from([None, b"\xfe" * 32, b"\xff" * 32]))
        tree.put(index, roots[index])
        anew = Pyramid(roots, size)
        assert tree._rows == anew._rows


# --- signatures ---------------------------------------------------------------------------------------------------------


def test_notes_are_accepted_or_refused_one_by_one() -> None:
    good = sign_head(1, bytes(32))
    other = sign_head(1, bytes(32), origin="log.example/other")
    forged = sign_head(1, bytes(32), skey=STRANGER)
    problems = check_notes(POLICY, [good, b"", forged, b"\xff", other, good])
    assert [bool(problem) for problem in problems] == [False, True, True, True, True, False]
    assert check_notes(POLICY, []) == []


# --- who is right -------------------------------------------------------------------------------------------------------

A, B, C, D = (letter * 32 for letter in (b"a", b"b", b"c", b"d"))


def suspect_of(
    entries: bytes | None, tile: bytes | None, *, index: int = 0, width: int = 256, differing: tuple[int, ...] = (3,)
) -> Suspect:
    return Suspect(
        index=index,
        width=width,
        of_entries=None if entries is None else Version(root=entries, folds={}),
        of_tile=None if tile is None else Version(root=tile, folds={}),
        unreadable=() if entries is not None else (5,),
        entries_problem="" if entries is not None else "is missing",
        differing=differing if entries != tile else (),
        tile_problem="does not match",
    )


@pytest.mark.parametrize(
    ("entries", "tile", "above", "root", "settled", "bad_entries", "tile_is_bad"),
    [
        (A, B, A, A, True, [], True),
        (A, B, B, B, True, [3], False),
        (A, B, C, C, False, [3], True),
        (A, B, None, A, False, [3], True),
        (A, A, None, A, True, [], False),
        (A, A, B, A, True, [], False),
        (None, B, B, B, True, [3, 5], False),
        (None, B, C, C, False, [3, 5], True),
        (None, B, None, B, False, [3, 5], True),
        (A, None, A, A, True, [], True),
        (A, None, C, C, False, range(256), True),
        (A, None, None, A, False, range(256), True),
        (None, None, C, C, True, range(256), True),
        (None, None, None, None, True, range(256), True),
    ],
)
def test_two_that_agree_are_right(
    entries: bytes | None,
    tile: bytes | None,
    above: bytes | None,
    root: bytes | None,
    settled: bool,
    bad_entries: Sequence[int],
    tile_is_bad: bool,
) -> None:
    verdict = compare(suspect_of(entries, tile), above)
    assert (verdict.root, verdict.settled) == (root, settled)
    assert (list(verdict.bad_entries), verdict.tile_is_bad) == (list(bad_entries), tile_is_bad)


def judged(suspects: Sequence[Suspect], above: Sequence[bytes | None], *stated: Sequence[bytes]) -> list[bytes | None]:
    """The roots after judging, where somebody states the roots of those bundles."""
    verdicts = [compare(suspect, hash_) for suspect, hash_ in zip(suspects, above, strict=True)]
    tree = Pyramid([verdict.root for verdict in verdicts], 256 * len(verdicts))
    judge(verdicts, tree, {}, [(256 * len(roots), tree_hash(roots)) for roots in stated])
    assert [verdict.root for verdict in verdicts] == tree._rows[0]
    return [verdict.root if verdict.settled else None for verdict in verdicts]


def test_the_stated_root_says_who_is_right() -> None:
    suspects = [suspect_of(A, B, index=0), suspect_of(A, B, index=1), suspect_of(A, B, index=2)]
    above = [None, C, C]
    assert judged(suspects, above, [A, B, C]) == [A, B, C]
    assert judged(suspects, above, [B], [B, A], [B, A, A]) == [B, A, A]
    assert judged(suspects, above, [B], [B, A], [D, D, D]) == [B, A, None]
    assert judged(suspects, above, [D], [B, A], [D, D, D]) == [B, A, None]
    assert judged(suspects, above, [D, D, D]) == [None, None, None]
    assert judged(suspects, above) == [None, None, None]


def test_what_is_stated_of_a_larger_tree_does_not_crowd_out_what_settles_this_one() -> None:
    suspects = [suspect_of(A, B, index=0), suspect_of(A, B, index=1)]
    others = [[D, bytes([n]) * 32] for n in range(20)]
    assert judged(suspects, [None, None], [B], *others) == [B, None]


def test_two_stated_roots_that_contradict_each_other_settle_nothing() -> None:
    suspects = [suspect_of(A, B)]
    assert judged(suspects, [None], [A], [B]) == [None]
    assert judged(suspects, [None], [A], [D]) == [A]


def test_too_many_to_try_are_left_unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    suspects = [suspect_of(A, B, index=n) for n in range(13)]
    right = [A if n % 3 else B for n in range(13)]
    assert judged(suspects, [None] * 13, right) == [None] * 13
    assert judged(suspects[:12], [None] * 12, right[:12]) == right[:12]
    assert judged(suspects, [None] * 13, right[:6], right) == right
    monkeypatch.setattr(module, "_TRIALS_MAX", 1 << 13)
    assert judged(suspects, [None] * 13, right) == right


def test_a_stated_size_within_the_bundle_does_not_clear_what_is_behind_it() -> None:
    tree = memory_tree(200, kept=[10])
    broken = copy.deepcopy(tree)
    broken.entries[150] = b"altered"
    (suspect,) = span_of(broken, 0, 1, 10, 200).suspects
    oracle = Oracle(entries_of(200))
    folds: dict[int, bytes] = {}
    verdict = compare(suspect, None)
    judge([verdict], Pyramid([verdict.root], 200), folds, [(10, oracle.mth(0, 10))])
    assert [verdict.settled] == [False]
    judge([verdict], Pyramid([verdict.root], 200), folds, [(10, oracle.mth(0, 10)), (200, oracle.mth(0, 200))])
    assert [verdict.settled] == [True]
    assert verdict.root == oracle.mth(0, 200)
    assert folds == {10: oracle.mth(0, 10), 200: oracle.mth(0, 200)}
