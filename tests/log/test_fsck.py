"""fsck: whatever is damaged is named, nothing else is, and it always ends.

Rules: logs are MemoryTrees with one thing or several done to them; a row says what a check must name, and that is all it may
name. The cases where no program could know better are rows of their own.
"""

import copy
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import pytest
from core.merkle_oracle import Oracle
from faults.made_store import (
    ORIGIN,
    POLICY,
    STRANGER,
    MemoryTree,
    entries_of,
    head_claims,
    make_store,
    memory_tree,
    sign_head,
    tree_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from log.check_log import Tree
from translog.core.policy import Policy
from translog.core.tile import Bundle, Tile, format_tile_path
from translog.errors import RemoteError, StorageError
from translog.log import fsck
from translog.log.fsck import Checker, Claim, Report
from translog.storage.frozen import FrozenStore, freeze
from translog.storage.source import BundleRead, Damage, TreeSource
from translog.storage.store import StoredCheckpoint

KEPT = (0, 3, 100, 256, 290)
SIZE = 300


def check(
    tree: MemoryTree | Callable[[], TreeSource],
    *,
    policy: Policy | None = POLICY,
    claims: Sequence[Claim] = (),
    damages: Sequence[Damage] = (),
    processes: int = 1,
) -> Report:
    open_source = tree.open if isinstance(tree, MemoryTree) else tree
    checker = Checker(
        open_source,
        policy=policy,
        claims=claims,
        damages=damages,
        processes=processes,
        progress=lambda done, total: None,
    )
    return checker.run()


def named(report: Report) -> list[str]:
    """Kind is not recorded with the damage, so `report.bad` tells that."""
    return sorted({damage.resource for damage in report.damages})


@cache
def _whole(size: int, kept: tuple[int, ...]) -> MemoryTree:
    return memory_tree(size, kept=kept)


def whole(size: int = SIZE, *, kept: Sequence[int] = KEPT) -> MemoryTree:
    """A log to damage."""
    return copy.deepcopy(_whole(size, tuple(kept)))


def flip(data: bytes, at: int = 0) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


# --- ways to do damage --------------------------------------------------------------------------------------------------

Deed = Callable[[MemoryTree], None]


def alter(*indexes: int) -> Deed:
    def deed(tree: MemoryTree) -> None:
        for index in indexes:
            tree.entries[index] = b"altered " + tree.entries[index]

    return deed


def lose(*indexes: int) -> Deed:
    def deed(tree: MemoryTree) -> None:
        for index in indexes:
            del tree.entries[index]

    return deed


def alter_tile(level: int, index: int, *hashes: int) -> Deed:
    def deed(tree: MemoryTree) -> None:
        for at in hashes or (0,):
            tree.tiles_at[level, index] = flip(tree.tiles_at[level, index], at * 32)

    return deed


def cut_tile(level: int, index: int, count: int) -> Deed:
    def deed(tree: MemoryTree) -> None:
        tree.tiles_at[level, index] = tree.tiles_at[level, index][:-count]

    return deed


def extend_tile(level: int, index: int, more: bytes) -> Deed:
    def deed(tree: MemoryTree) -> None:
        tree.tiles_at[level, index] += more

    return deed


def lose_tile(level: int, index: int) -> Deed:
    def deed(tree: MemoryTree) -> None:
        del tree.tiles_at[level, index]

    return deed


def put_kept(size: int, note: bytes) -> Deed:
    """Another note in the place of a kept checkpoint."""

    def deed(tree: MemoryTree) -> None:
        tree.kept = [
            StoredCheckpoint(size=size, note=note) if isinstance(kept, StoredCheckpoint) and kept.size == size else kept
            for kept in tree.kept
        ]

    return deed


def put_latest(size: int, note: bytes) -> Deed:
    def deed(tree: MemoryTree) -> None:
        tree.latest = StoredCheckpoint(size=size, note=note)

    return deed


def put_state(**changes: object) -> Deed:
    def deed(tree: MemoryTree) -> None:
        assert tree.state is not None
        tree.state = replace(tree.state, **changes)  # type: ignore[arg-type]

    return deed


def together(*deeds: Deed) -> Deed:
    def deed(tree: MemoryTree) -> None:
        for one in deeds:
            one(tree)

    return deed


def set_extra(bundle: int, problem: str) -> Deed:
    return lambda tree: tree.extra.update({bundle: problem})


def root_at(size: int) -> bytes:
    return Oracle(entries_of(SIZE)).mth(0, size)


def altered_note(size: int) -> bytes:
    """A kept checkpoint with one character of its root changed, so that its signature is wrong too."""
    note = sign_head(size, root_at(size))
    at = note.index(b"\n", note.index(b"\n") + 1) + 5
    return note[:at] + (b"A" if note[at : at + 1] != b"A" else b"B") + note[at + 1 :]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One log's damage, and what a check must say."""

    deed: Deed
    named: Sequence[str]
    bad: dict[str, int]


FULL, PART, UPPER = "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"
AT_100 = "checkpoint of size 100"
TOO_WIDE = "tile/0/001.p/45"

ONE_KIND = {
    "an altered entry": Row(deed=alter(5), named=["entry 5"], bad={"entries": 1}),
    "the first entry": Row(deed=alter(0), named=["entry 0"], bad={"entries": 1}),
    "the last entry of a bundle": Row(deed=alter(255), named=["entry 255"], bad={"entries": 1}),
    "a missing entry": Row(deed=lose(5), named=["entry 5"], bad={"entries": 1}),
    "several altered": Row(deed=alter(5, 6, 7, 200), named=["entries 5 to 7", "entry 200"], bad={"entries": 4}),
    "several missing": Row(deed=lose(0, 1, 255), named=["entries 0 to 1", "entry 255"], bad={"entries": 3}),
    "some altered, some missing": Row(deed=together(alter(5), lose(6)), named=["entry 5", "entry 6"], bad={"entries": 2}),
    "an altered one in the partial bundle": Row(deed=alter(299), named=["entry 299"], bad={"entries": 1}),
    "a missing one in the partial bundle": Row(deed=lose(256), named=["entry 256"], bad={"entries": 1}),
    "one in each bundle": Row(deed=alter(9, 260), named=["entry 260", "entry 9"], bad={"entries": 2}),
    "a bundle lost": Row(deed=lose(*range(256)), named=["entries 0 to 255"], bad={"entries": 256}),
    "the partial bundle lost": Row(deed=lose(*range(256, 300)), named=["entries 256 to 299"], bad={"entries": 44}),
    "all entries lost": Row(deed=lose(*range(300)), named=["entries 0 to 255", "entries 256 to 299"], bad={"entries": 300}),
    "more than entries in a bundle": Row(
        deed=set_extra(0, "has something beside it"), named=["tile/entries/000"], bad={"strays": 1}
    ),
    "an altered tile": Row(deed=alter_tile(0, 0, 7), named=[FULL], bad={"tiles": 1}),
    "many hashes of a tile": Row(deed=alter_tile(0, 0, *range(256)), named=[FULL], bad={"tiles": 1}),
    "a tile lost": Row(deed=lose_tile(0, 0), named=[FULL], bad={"tiles": 1}),
    "a tile a hash short": Row(deed=cut_tile(0, 0, 32), named=[FULL], bad={"tiles": 1}),
    "a tile a byte short": Row(deed=cut_tile(0, 0, 1), named=[FULL], bad={"tiles": 1}),
    "a tile a byte long": Row(deed=extend_tile(0, 0, b"x"), named=[FULL], bad={"tiles": 1}),
    "a tile a hash long": Row(deed=extend_tile(0, 0, bytes(32)), named=[FULL], bad={"tiles": 1}),
    "an empty tile": Row(deed=cut_tile(0, 0, 8192), named=[FULL], bad={"tiles": 1}),
    "an altered partial tile": Row(deed=alter_tile(0, 1, 43), named=[PART], bad={"tiles": 1}),
    "a partial tile lost": Row(deed=lose_tile(0, 1), named=[PART], bad={"tiles": 1}),
    "a partial tile short": Row(deed=cut_tile(0, 1, 32), named=[PART], bad={"tiles": 1}),
    "a partial tile long": Row(deed=extend_tile(0, 1, bytes(32)), named=[PART], bad={"tiles": 1}),
    "an altered upper tile": Row(deed=alter_tile(1, 0), named=[UPPER], bad={"tiles": 1}),
    "an upper tile lost": Row(deed=lose_tile(1, 0), named=[UPPER], bad={"tiles": 1}),
    "an upper tile short": Row(deed=cut_tile(1, 0, 1), named=[UPPER], bad={"tiles": 1}),
    "an upper tile long": Row(deed=extend_tile(1, 0, b"x"), named=[UPPER], bad={"tiles": 1}),
    "a kept checkpoint of another root": Row(
        deed=put_kept(100, sign_head(100, bytes(32))), named=[AT_100], bad={"checkpoints": 1}
    ),
    "a kept checkpoint of another size": Row(
        deed=put_kept(100, sign_head(99, root_at(99))), named=[AT_100], bad={"checkpoints": 1}
    ),
    "a kept checkpoint of another log": Row(
        deed=put_kept(100, sign_head(100, root_at(100), origin="log.example/other")),
        named=[AT_100],
        bad={"checkpoints": 1, "signatures": 1},
    ),
    "a kept checkpoint that is none": Row(
        deed=put_kept(100, b"\xff\x00 nothing"), named=[AT_100], bad={"checkpoints": 1, "signatures": 1}
    ),
    "an empty kept checkpoint": Row(
        deed=put_kept(0, b""), named=["checkpoint of size 0"], bad={"checkpoints": 1, "signatures": 1}
    ),
    "a kept checkpoint with a character changed": Row(
        deed=put_kept(100, altered_note(100)), named=[AT_100], bad={"checkpoints": 1, "signatures": 1}
    ),
    "a kept checkpoint of a stranger": Row(
        deed=put_kept(100, sign_head(100, root_at(100), skey=STRANGER)), named=[AT_100], bad={"signatures": 1}
    ),
    "a kept checkpoint that cannot be read": Row(
        deed=lambda tree: tree.kept.insert(1, Damage(resource="kept checkpoints", problem="some cannot be read")),
        named=["kept checkpoints"],
        bad={"checkpoints": 1},
    ),
    "a kept checkpoint beyond the tree": Row(
        deed=lambda tree: tree.kept.append(StoredCheckpoint(size=301, note=sign_head(301, bytes(32)))),
        named=["checkpoint of size 301"],
        bad={"checkpoints": 1},
    ),
    "a latest checkpoint of another root": Row(
        deed=put_latest(300, sign_head(300, bytes(32))), named=["checkpoint of size 300"], bad={"checkpoints": 1}
    ),
    "a latest checkpoint of a stranger": Row(
        deed=put_latest(300, sign_head(300, root_at(300), skey=STRANGER)),
        named=["checkpoint of size 300"],
        bad={"signatures": 1},
    ),
    "a latest checkpoint that is none": Row(
        deed=put_latest(300, b"-"), named=["checkpoint of size 300"], bad={"checkpoints": 1, "signatures": 1}
    ),
    "a tree state of another root": Row(deed=put_state(root=bytes(32)), named=["the tree state"], bad={"tree heads": 1}),
    "a tree state that is too large": Row(
        deed=put_state(size=301),
        # The last bundle should then be wider than it is: what it hashes to, and so every head above it, is not known.
        named=[
            *("DIR/head, slot 0", "checkpoint of size 290", "checkpoint of size 300", "the tree state"),
            *("entries 256 to 299", "entry 300", TOO_WIDE),
        ],
        bad={"entries": 45, "tiles": 1, "tree heads": 2, "checkpoints": 2},
    ),
    "a stray": Row(
        deed=lambda tree: tree.stray.append(Damage(resource="key 00", problem="is there")), named=["key 00"], bad={"strays": 1}
    ),
}


@pytest.mark.parametrize("row", ONE_KIND.values(), ids=ONE_KIND)
def test_one_kind_of_damage_is_named_and_nothing_else(row: Row) -> None:
    tree = whole()
    row.deed(tree)
    report = check(tree, claims=head_claims(whole()))
    assert (named(report), report.bad) == (sorted(row.named), row.bad)
    assert not report.whole


COMBINED = {
    "an entry and its tile": Row(
        deed=together(alter(5), alter_tile(0, 0, 5)), named=["entry 5", FULL], bad={"entries": 1, "tiles": 1}
    ),
    "a lost entry and its tile": Row(
        deed=together(lose(120), alter_tile(0, 0, 120)), named=["entry 120", FULL], bad={"entries": 1, "tiles": 1}
    ),
    "an entry and the tile above": Row(
        deed=together(alter(5), alter_tile(1, 0)), named=["entry 5", UPPER], bad={"entries": 1, "tiles": 1}
    ),
    "an entry and the tile above lost": Row(
        deed=together(alter(5), lose_tile(1, 0)), named=["entry 5", UPPER], bad={"entries": 1, "tiles": 1}
    ),
    "a tile and the one above": Row(deed=together(alter_tile(0, 0), alter_tile(1, 0)), named=[FULL, UPPER], bad={"tiles": 2}),
    "a tile lost and the one above altered": Row(
        deed=together(lose_tile(0, 0), alter_tile(1, 0)), named=[FULL, UPPER], bad={"tiles": 2}
    ),
    "a bundle lost and the tile above altered": Row(
        deed=together(lose(*range(256)), alter_tile(1, 0)), named=["entries 0 to 255", UPPER], bad={"entries": 256, "tiles": 1}
    ),
    "a stray beside entries and the tile above altered": Row(
        deed=together(set_extra(0, "has something beside it"), alter_tile(1, 0)),
        named=["tile/entries/000", UPPER],
        bad={"strays": 1, "tiles": 1},
    ),
    "a stray beside entries and the tile altered": Row(
        deed=together(set_extra(0, "has something beside it"), alter_tile(0, 0)),
        named=["tile/entries/000", FULL],
        bad={"strays": 1, "tiles": 1},
    ),
    "an entry in both bundles, and the tile above": Row(
        deed=together(alter(9, 299), alter_tile(1, 0)),
        named=["entry 299", "entry 9", UPPER],
        bad={"entries": 2, "tiles": 1},
    ),
    "an entry in one bundle, the tile of the other, and the tile above": Row(
        deed=together(alter(9), alter_tile(0, 1), lose_tile(1, 0)),
        named=["entry 9", PART, UPPER],
        bad={"entries": 1, "tiles": 2},
    ),
    "every tile lost": Row(
        deed=together(lose_tile(0, 0), lose_tile(0, 1), lose_tile(1, 0)), named=[FULL, PART, UPPER], bad={"tiles": 3}
    ),
    "an entry and a checkpoint": Row(
        deed=together(alter(5), put_kept(100, sign_head(100, bytes(32)))),
        named=[AT_100, "entry 5"],
        bad={"entries": 1, "checkpoints": 1},
    ),
    "an entry, and the state and latest checkpoint beyond": Row(
        deed=together(alter(299), put_state(root=bytes(32)), put_latest(300, sign_head(300, bytes(31) + b"1"))),
        named=["checkpoint of size 300", "entry 299", "the tree state"],
        bad={"entries": 1, "checkpoints": 1, "tree heads": 1},
    ),
    "everything of a bundle lost but the hash above": Row(
        # The checkpoints within the bundle have nothing below them any more; all others still hold.
        deed=together(lose(*range(256)), lose_tile(0, 0)),
        named=["entries 0 to 255", FULL, "checkpoint of size 3", AT_100],
        bad={"entries": 256, "tiles": 1, "checkpoints": 2},
    ),
}


@pytest.mark.parametrize("row", COMBINED.values(), ids=COMBINED)
def test_damage_that_comes_together_is_told_apart(row: Row) -> None:
    tree = whole()
    row.deed(tree)
    report = check(tree, claims=head_claims(whole()))
    if row is COMBINED["an entry and its tile"] or row is COMBINED["a lost entry and its tile"]:
        # Which hashes of the bundle are right nobody can tell, so the heads within it cannot be checked: those are named too.
        within = [damage.resource for damage in report.damages if damage.problem.startswith("cannot be checked")]
        assert within == ["checkpoint of size 3", AT_100]
        assert report.bad.pop("checkpoints") == 2
        report.damages = [damage for damage in report.damages if damage.resource not in within]
    assert (named(report), report.bad) == (sorted(row.named), row.bad)


def test_where_nothing_can_tell_both_are_named() -> None:
    """An entry and its tile differ, the tile above is lost, and every tree head is altered: no two agree."""
    tree = whole(kept=())
    alter(5)(tree)
    lose_tile(1, 0)(tree)
    put_state(root=bytes(32))(tree)
    put_latest(300, sign_head(300, bytes(31) + b"1"))(tree)
    report = check(tree)
    assert named(report) == ["checkpoint of size 300", "entry 5", "the tree state", FULL, UPPER]


def test_a_lost_edge_leaves_what_is_below_it_to_be_checked() -> None:
    tree = whole()
    lose(*range(256, 300))(tree)
    lose_tile(0, 1)(tree)
    report = check(tree, claims=head_claims(whole()))
    assert named(report) == [
        "DIR/head, slot 0",
        "checkpoint of size 290",
        "checkpoint of size 300",
        "entries 256 to 299",
        "the tree state",
        PART,
    ]
    assert report.good["checkpoints"] == 4
    assert report.root is None


def test_a_tile_above_a_bundle_of_which_nothing_is_left_is_taken_at_its_word() -> None:
    """It is the only one that still knows that hash, so it is not named for what nobody can compare."""
    tree = whole(kept=())
    lose(*range(256))(tree)
    lose_tile(0, 0)(tree)
    lose_tile(1, 0)(tree)
    report = check(tree)
    assert named(report) == ["checkpoint of size 300", "entries 0 to 255", "the tree state", FULL, UPPER]
    tree = large(65_537)
    together(lose(*range(256)), lose_tile(0, 0), lose_tile(1, 0))(tree)
    assert {name for name in named(check(tree)) if name.startswith("tile/")} == {FULL, "tile/1/000"}


def test_a_history_that_was_rewritten_whole_is_named_by_its_checkpoints() -> None:
    """Entries and tiles are of one tree; only what was signed tells that it is another one."""
    honest, entries = whole(), entries_of(SIZE)
    entries[120] = b"another"
    forged = tree_of(entries)
    forged.kept, forged.latest = honest.kept, honest.latest
    report = check(forged, claims=head_claims(honest))
    assert named(report) == ["DIR/head, slot 0", "checkpoint of size 256", "checkpoint of size 290", "checkpoint of size 300"]
    assert report.good == {"signatures": 6, "entries": 300, "tiles": 3, "checkpoints": 3, "tree heads": 2}


def test_a_state_that_is_too_small_makes_the_rest_of_the_log_unstated() -> None:
    """Documented: the size to check is the committed one. Whoever states more is named, the state because of its root."""
    tree = whole()
    put_state(size=299)(tree)
    report = check(tree)
    assert named(report) == ["checkpoint of size 300", "entries 256 to 298", "the tree state", "tile/0/001.p/43"]
    assert "states 300 entries, of which 299 are here" in {damage.problem for damage in report.damages}


def test_a_claim_of_another_log_is_named_although_its_tree_is_this_one() -> None:
    claims = [Claim(resource="DIR/head, slot 0", size=SIZE, root=root_at(SIZE), origin="log.example/other")]
    report = check(whole(), claims=claims)
    assert [(damage.resource, damage.problem) for damage in report.damages] == [
        ("DIR/head, slot 0", "is of another log, 'log.example/other'")
    ]
    assert check(whole(), claims=[replace(claims[0], origin=ORIGIN)]).whole


@pytest.mark.parametrize("size", [301, 1 << 40, (1 << 64) - 1])
def test_a_head_ahead_of_the_store_is_named(size: int) -> None:
    report = check(whole(), claims=[Claim(resource="DIR/head, slot 1", size=size, root=bytes(32))])
    assert [(damage.resource, damage.problem) for damage in report.damages] == [
        ("DIR/head, slot 1", f"states {size} entries, of which 300 are here")
    ]


def test_without_meta_the_checkpoints_must_agree_on_the_log() -> None:
    tree = whole()
    tree.meta = None
    report = check(tree)
    assert (report.whole, report.origin) == (True, ORIGIN)
    put_kept(100, sign_head(100, root_at(100), origin="log.example/other"))(tree)
    assert named(check(tree, policy=None)) == [AT_100]


def test_without_a_state_the_largest_tree_that_is_stated_is_checked() -> None:
    tree = whole()
    tree.state = None
    assert (check(tree).whole, check(tree).size) == (True, SIZE)
    alter(299)(tree)
    assert named(check(tree)) == ["entry 299"]
    tree.latest = None
    report = check(tree, claims=head_claims(whole()))
    assert (named(report), report.size) == (["entry 299"], SIZE)
    assert check(tree).size == 290
    tree.kept = []
    assert check(tree).size == 0


def test_without_a_policy_signatures_are_a_remark() -> None:
    report = check(whole(), policy=None)
    assert report.whole
    assert "who signed" in report.remarks[0]
    assert "signatures" not in report.good
    assert not check(whole()).remarks


def test_what_the_caller_knows_is_part_of_the_report() -> None:
    report = check(whole(), damages=[Damage(resource="the store's files", problem="are damaged")])
    assert (named(report), report.bad) == (["the store's files"], {"files": 1})


def test_the_report_names_the_first_ten_thousand_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsck, "_DAMAGES_MAX", 10)
    tree = whole()
    alter(*range(0, 200, 2))(tree)
    report = check(tree)
    assert (len(report.damages), report.bad) == (10, {"entries": 100})
    assert report.good["entries"] == 200


def test_bundles_are_named_where_entries_are_not_on_their_own() -> None:
    tree = whole()
    tree.resource_of_entries = "bundle"
    alter(5)(tree)
    lose(299)(tree)
    report = check(tree)
    assert {damage.resource: damage.problem for damage in report.damages} == {
        "tile/entries/000": "entry 5: is not what the tree says it is",
        "tile/entries/001.p/44": "entry 299: is missing",
    }


# --- every size, against the definition ---------------------------------------------------------------------------------


def _sizes() -> list[int]:
    return [*range(131), 254, 255, 256, 257, 258, 511, 512, 513]


@pytest.mark.parametrize("first", range(0, 140, 20))
def test_at_every_size_the_root_is_that_of_the_definition(first: int) -> None:
    for size in _sizes()[first : first + 20]:
        kept = sorted({0, size // 3, size // 2, max(0, size - 1), min(size, 256)})
        report = check(whole(size, kept=kept))
        assert report.whole, report.damages
        entries = entries_of(size)
        assert report.root == Tree(entries).root(0, size) == Oracle(entries).mth(0, size)
        assert report.entry_bytes == sum(map(len, entries))
        if size:
            tree = whole(size, kept=kept)
            alter(size - 1)(tree)
            assert named(check(tree)) == [f"entry {size - 1}"], size


@cache
def _large(size: int) -> MemoryTree:
    return memory_tree(size, kept=[1, 256, 65_280, 65_535])


def large(size: int) -> MemoryTree:
    """Two levels of upper tiles. Shared: only dictionaries are copied."""
    tree = _large(size)
    return replace(tree, entries=dict(tree.entries), tiles_at=dict(tree.tiles_at), kept=list(tree.kept))


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537])
def test_where_the_second_upper_level_begins_the_root_is_that_of_the_definition(size: int) -> None:
    report = check(large(size))
    assert report.whole, report.damages
    assert report.root == Oracle(entries_of(size)).mth(0, size)
    assert report.good["tiles"] == -(-size // 256) + 1 + size // 65_536
    assert report.good["entries"] == size


LARGE = {
    "an upper tile": (alter_tile(1, 0, 255), ["tile/1/000"]),
    "the tile at the top": (alter_tile(2, 0), ["tile/2/000.p/1"]),
    "the tile at the top lost": (lose_tile(2, 0), ["tile/2/000.p/1"]),
    "both upper tiles": (together(alter_tile(1, 0, 3), alter_tile(2, 0)), ["tile/1/000", "tile/2/000.p/1"]),
    "an entry and both upper tiles": (
        together(alter(1_000), lose_tile(1, 0), lose_tile(2, 0)),
        ["entry 1000", "tile/1/000", "tile/2/000.p/1"],
    ),
    "an entry, its tile, and the tile at the top": (
        together(alter(1_000), alter_tile(0, 3, 1_000 % 256), alter_tile(2, 0)),
        ["entry 1000", "tile/0/003", "tile/2/000.p/1"],
    ),
    "twelve entries, half of their tiles, and every upper tile": (
        together(*(alter(n * 4_096) if n % 2 else alter_tile(0, n * 16) for n in range(12)), lose_tile(1, 0), lose_tile(2, 0)),
        [
            *(f"entry {n * 4_096}" if n % 2 else f"tile/0/{n * 16:03d}" for n in range(12)),
            "tile/1/000",
            "tile/2/000.p/1",
        ],
    ),
    "the last full bundle, lost with its tile": (
        together(lose(*range(65_280, 65_536)), lose_tile(0, 255)),
        ["checkpoint of size 65535", "entries 65280 to 65535", "tile/0/255"],
    ),
}


@pytest.mark.parametrize(("deed", "expected"), LARGE.values(), ids=LARGE)
def test_damage_below_two_levels_of_upper_tiles_is_told_apart(deed: Deed, expected: list[str]) -> None:
    tree = large(65_537)
    deed(tree)
    assert named(check(tree)) == sorted(expected)


# --- any damage ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hit:
    """A damage, by name; `resource` is what must be named."""

    what: str
    at: int
    resource: str


def _hits(size: int, kept: Sequence[int]) -> st.SearchStrategy[Hit]:
    options = [
        st.builds(lambda what, n: Hit(what, n, f"entry {n}"), st.sampled_from(["alter", "lose"]), st.integers(0, size - 1)),
        st.builds(
            lambda what, n: Hit(what, n, format_tile_path(Tile(level=0, index=n, width=min(256, size - 256 * n)))),
            st.sampled_from(["alter tile", "lose tile", "cut tile"]),
            st.integers(0, (size - 1) // 256),
        ),
        st.just(Hit("state", 0, "the tree state")),
    ]
    if size >= 256:
        upper = format_tile_path(Tile(level=1, index=0, width=size // 256))
        options.append(st.builds(lambda what: Hit(what, 0, upper), st.sampled_from(["alter upper", "lose upper"])))
    if kept:
        options.append(st.builds(lambda n: Hit("kept", n, f"checkpoint of size {n}"), st.sampled_from(list(kept))))
    return st.one_of(options)


def _apply(hit: Hit, tree: MemoryTree) -> None:
    deeds: dict[str, Callable[[], Deed]] = {
        "alter": lambda: alter(hit.at),
        "lose": lambda: lose(hit.at),
        "alter tile": lambda: alter_tile(0, hit.at),
        "lose tile": lambda: lose_tile(0, hit.at),
        "cut tile": lambda: cut_tile(0, hit.at, 32),
        "alter upper": lambda: alter_tile(1, 0),
        "lose upper": lambda: lose_tile(1, 0),
        "state": lambda: put_state(root=bytes(31) + b"!"),
        "kept": lambda: put_kept(hit.at, sign_head(hit.at, b"\xee" * 32)),
    }
    deeds[hit.what]()(tree)


def _covered(report: Report) -> set[str]:
    """What is named, runs of entries taken apart."""
    found: set[str] = set()
    for damage in report.damages:
        words = damage.resource.split()
        if words[0] == "entries":
            found |= {f"entry {n}" for n in range(int(words[1]), int(words[3]) + 1)}
        else:
            found.add(damage.resource)
    return found


@st.composite
def _cases(draw: st.DrawFn) -> tuple[int, list[int], list[Hit]]:
    size = draw(st.one_of(st.integers(1, 20), st.integers(200, 600), st.sampled_from([255, 256, 257, 512, 768])))
    kept = sorted(draw(st.sets(st.integers(0, size), max_size=4)))
    hits = draw(st.lists(_hits(size, kept), min_size=0, max_size=4, unique_by=lambda hit: (hit.what.split()[-1], hit.resource)))
    return size, kept, [hit for number, hit in enumerate(hits) if hit.resource not in {h.resource for h in hits[:number]}]


@settings(max_examples=int(os.environ.get("TRANSLOG_FUZZ_EXAMPLES", "200")), deadline=None)
@given(_cases())
def test_whatever_is_damaged_is_named_and_what_is_not_only_where_nobody_could_know(
    case: tuple[int, list[int], list[Hit]],
) -> None:
    size, kept, hits = case
    tree = whole(size, kept=kept)
    for hit in hits:
        _apply(hit, tree)
    report = check(tree, claims=head_claims(whole(size, kept=kept)))
    covered, damaged = _covered(report), {hit.resource for hit in hits}
    assert report.whole == (not hits)
    of_entries = {hit.at // 256 for hit in hits if hit.what in ("alter", "lose")}
    of_tiles = {hit.at for hit in hits if "tile" in hit.what}
    unknowable, allowed = set(), set()
    for index in of_entries & of_tiles:
        # Entries and tile of one bundle: the hash above tells that both are bad, and that is all anybody knows. So the rest of
        # the bundle may be named, and the heads within; above it, where that hash is lost too or it is the partial bundle.
        first, last = index * 256, min(size, index * 256 + 256)
        allowed |= {f"entry {n}" for n in range(first, last)}
        allowed |= {f"checkpoint of size {n}" for n in (*kept, size) if n > min(of_entries | of_tiles) * 256}
        allowed |= {"the tree state", "DIR/head, slot 0"}
        # Then no head can tell either which is right in other bundles where the entries and the tile differ.
        allowed |= {f"entry {n}" for other in of_tiles for n in range(other * 256, other * 256 + 256)}
        allowed |= {format_tile_path(Tile(level=0, index=n, width=min(256, size - 256 * n))) for n in of_entries}
        if "DIR/head, slot 0" in covered:  # an altered hash above is one more account that no head bears out
            unknowable |= {hit.resource for hit in hits if hit.what == "alter upper"}
    assert damaged - covered <= unknowable
    assert covered - damaged <= allowed


# --- ending -------------------------------------------------------------------------------------------------------------


class Counting(MemoryTree):
    """Counts what is asked for."""

    asked = 0

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        type(self).asked += len(bundles)
        return super().bundles(bundles)


@pytest.mark.parametrize("size", [1 << 62, (1 << 64) - 1])
def test_a_state_of_any_size_ends_soon_and_the_checkpoints_are_still_checked(size: int) -> None:
    tree = whole()
    Counting.asked = 0
    source = Counting(**vars(tree))
    put_state(size=size)(source)
    report = check(source)
    assert Counting.asked < 2_000
    assert report.size == size
    assert report.root is None
    resources = named(report)
    assert "the tree state" in resources
    assert any(resource.endswith(f"to {size - 1}") for resource in resources)
    assert report.good["checkpoints"] == 6 - 2  # those of sizes 290 and 300 end in a bundle that should be wider
    assert sum(report.bad[kind] for kind in ("entries",)) + report.good["entries"] == size


def test_answers_that_are_no_entries_and_no_tile_are_nothing_to_read() -> None:
    """A web server that answers every request with 200 and nothing must not be read up to 2^62."""

    class Hollow(Counting):
        def tiles(self, tiles: Sequence[Tile]) -> Iterator[bytes | Damage]:
            return iter([b"<html>"] * len(tiles))

    Hollow.asked = 0
    source = Hollow(**vars(whole()))
    source.entries = {}
    put_state(size=1 << 62)(source)
    report = check(source)
    assert Hollow.asked < 2_000
    assert not report.whole


def test_a_gap_no_wider_than_what_was_read_does_not_end_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsck, "_SPAN_BUNDLES", 1)
    monkeypatch.setattr(fsck, "_GIVE_UP_SPANS", 2)
    size = 256 * 12
    tree = whole(size, kept=[256, 1_024])
    lose(*range(256 * 4, 256 * 7))(tree)
    for index in (4, 5, 6):
        lose_tile(0, index)(tree)
    report = check(tree)
    assert named(report) == sorted(
        [f"entries {256 * n} to {256 * n + 255}" for n in (4, 5, 6)] + [f"tile/0/00{n}" for n in (4, 5, 6)]
    )
    lose(*range(256 * 7, 256 * 8))(tree)
    lose_tile(0, 7)(tree)
    report = check(tree)
    assert f"entries {256 * 8} to {size - 1}" in named(report)
    assert report.good["checkpoints"] == 2
    assert report.bad["entries"] == 256 * 8


# --- processes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small log is worth two processes."""
    monkeypatch.setattr(fsck, "_SPAN_BUNDLES", 1)
    monkeypatch.setattr(fsck, "_NOTES_AT_ONCE", 2)


@pytest.mark.usefixtures("small_spans")
def test_two_processes_report_what_one_does() -> None:
    tree = whole(256 * 9 + 3, kept=[1, 257, 700, 2_000])
    together(alter(5, 2_306), lose(700), alter_tile(0, 3), lose_tile(1, 0), put_kept(257, b"none"))(tree)
    one, two = check(tree, processes=1), check(tree, processes=2)
    assert one == two
    assert named(one) == [
        "checkpoint of size 257",
        "entry 2306",
        "entry 5",
        "entry 700",
        "tile/0/003",
        "tile/1/000.p/9",
    ]


@pytest.mark.usefixtures("small_spans")
def test_two_processes_read_a_store_each_on_its_own(tmp_path: Path) -> None:
    made = make_store(tmp_path / "log", [256 * 5])
    (tmp_path / "work").mkdir()
    assert freeze(made.store, tmp_path / "work" / "log") == []
    open_source = partial(FrozenStore, tmp_path / "work" / "log")
    reports = [check(open_source, processes=count) for count in (1, 2)]
    assert reports[0] == reports[1]
    assert reports[0].whole


@dataclass
class Fatal(MemoryTree):
    """Its reader dies, or fails, in every process but that of the test."""

    how: str = ""
    home: int = 0

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        if os.getpid() != self.home:
            if self.how == "exit":
                os._exit(9)
            raise RemoteError("the log has gone", status=503)
        return super().bundles(bundles)

    def open(self) -> "Fatal":
        if os.getpid() != self.home and self.how == "open":
            raise StorageError("no room for another view")
        return self


def fatal(how: str) -> Fatal:
    return Fatal(**vars(whole(256 * 4)), how=how, home=os.getpid())


@pytest.mark.usefixtures("small_spans")
@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ("exit", StorageError, "a process that checks has died"),
        ("raise", RemoteError, "the log has gone"),
        ("open", StorageError, "no room for another view"),
    ],
)
def test_a_process_that_dies_or_fails_ends_the_check_with_an_error(how: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        check(fatal(how), processes=2, policy=None)


class Deadly(Policy):
    """Kills the process it gets into."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)


@pytest.mark.usefixtures("small_spans")
def test_a_process_that_dies_of_the_checkpoints_ends_the_check_with_an_error() -> None:
    policy = Deadly(logs=POLICY.logs, witnesses={}, groups={}, quorum="none")
    with pytest.raises(StorageError, match="has died"):
        check(whole(256 * 4), processes=2, policy=policy)


INTERRUPTED = """
    import os, sys, time
    from faults.made_store import MemoryTree, memory_tree, POLICY
    from translog.log import fsck

    class Slow(MemoryTree):
        def bundles(self, bundles):
            if os.getpid() != int(os.environ["SLOW_HOME"]):
                print("working", os.getpid(), flush=True)
                time.sleep(float(os.environ["SLOW_FOR"]))
            return super().bundles(bundles)

    if __name__ == "__main__":
        os.environ["SLOW_HOME"] = str(os.getpid())
        fsck._SPAN_BUNDLES = 1
        tree = Slow(**vars(memory_tree(256 * 12)))
        try:
            fsck.Checker(tree.open, policy=POLICY, processes=2, progress=lambda done, total: None).run()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            sys.exit(130)
"""


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "slow_for", "code"), [(signal.SIGINT, "0.5", 130), (signal.SIGTERM, "600", -15), (signal.SIGKILL, "600", -9)]
)
def test_no_process_outlives_the_check(tmp_path: Path, number: int, slow_for: str, code: int) -> None:
    """Interrupted, it lets go of its processes; killed, they notice."""
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(INTERRUPTED))
    tests = Path(__file__).resolve().parent.parent
    path = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "SLOW_FOR": slow_for}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        working = set()
        try:
            for line in process.stdout:
                if line.startswith("working"):
                    working.add(int(line.split()[1]))
                if len(working) == 2:
                    break
            process.send_signal(number)
            assert process.wait(timeout=60) == code
            process.stdout.read()  # ends when the last process that holds it does
            deadline = time.monotonic() + 60
            while not all(map(_gone, working)) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert all(map(_gone, working))
        finally:
            process.kill()
            for pid in working:
                if not _gone(pid):
                    os.kill(pid, signal.SIGKILL)
