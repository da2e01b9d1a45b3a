"""Who is right about a bundle: its entries, its tile, or the hash in the tile above? Used by fsck.py.

Rules: two that agree are right. Where no two do, that is right which alone leads to the most roots that somebody states;
suspects that no stated root tells apart are tried together, in so many combinations as are cheap. Without an answer both
entries and tile are named, which may be one too many.
"""

from bisect import bisect_left, bisect_right
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from translog.core.tile import TILE_WIDTH
from translog.core.wire import HASH_BYTES
from translog.log.recompute import Pyramid, Suspect, Version

_TRIALS_MAX = 4_096
"""So many combinations are tried: of 12 bundles with two accounts each."""
_GROUP_MAX = 64
"""Suspects that are tried together, at most, however few accounts there are of each."""
_WITNESSES_MAX = 16
"""Stated roots that a combination is held against."""
_LAST = b"\xff" * HASH_BYTES


@dataclass(slots=True, kw_only=True)
class Verdict:
    """On a suspect: the accounts of it, the one to go on with first, and whether anything else agrees with that one."""

    suspect: Suspect
    accounts: list[Version]
    settled: bool

    @property
    def root(self) -> bytes | None:
        """What to take the bundle's hash for."""
        return self.accounts[0].root if self.accounts else None

    @property
    def folds(self) -> dict[int, bytes]:
        """The hashes below the sizes within the bundle."""
        return self.accounts[0].folds if self.accounts else {}

    @property
    def bad_entries(self) -> Sequence[int]:
        """Positions. Without a tile to compare with, any of the entries may be the wrong one."""
        suspect = self.suspect
        if suspect.agrees or self._is(suspect.of_entries):
            return ()
        return range(suspect.width) if suspect.of_tile is None else sorted(suspect.unreadable + suspect.differing)

    def entry_problem(self, position: int) -> str:
        """What is wrong with a bad entry."""
        if position in self.suspect.unreadable:
            return self.suspect.entries_problem
        if self.suspect.of_tile is None:
            return "cannot be checked, since the tile of its bundle is lost, and other entries or the tile above"
        return "is not what the tree says it is"

    @property
    def tile_is_bad(self) -> bool:
        """Whether it is missing, or not what it should be."""
        return not self.suspect.agrees and not self._is(self.suspect.of_tile)

    def _is(self, account: Version | None) -> bool:
        return self.settled and account is not None and account.root == self.root


def compare(suspect: Suspect, above: bytes | None) -> Verdict:
    """What the hash in the tile above makes of a suspect; None where there is none."""
    told = [version for version in (suspect.of_entries, suspect.of_tile) if version is not None]
    accounts = {version.root: version for version in told}
    if above is not None:
        accounts.setdefault(above, Version(root=above, folds={}))
    first = suspect.of_entries.root if suspect.agrees and suspect.of_entries is not None else above
    ordered = sorted(accounts.values(), key=lambda version: version.root != first)
    settled = suspect.agrees or not told or any(version.root == above for version in told)
    return Verdict(suspect=suspect, accounts=ordered, settled=settled)


def judge(verdicts: Sequence[Verdict], tree: Pyramid, folds: dict[int, bytes], stated: Sequence[tuple[int, bytes]]) -> None:
    """Settles what is not settled by the sizes and roots that are stated. `tree` has the root of every verdict, and gets those
    that change; `folds` gets all."""
    for verdict in verdicts:
        if verdict.settled:
            folds.update(verdict.folds)
    stated = sorted({(size, root) for size, root in stated if size <= tree.end})
    unsettled = [verdict for verdict in verdicts if not verdict.settled]
    begins = [verdict.suspect.index * TILE_WIDTH for verdict in unsettled]
    group: list[Verdict] = []
    for verdict, begin, next_begin in zip(unsettled, begins, [*begins, tree.end][1:], strict=True):
        group.append(verdict)
        if len(group) > _GROUP_MAX or prod(len(member.accounts) for member in group) > _TRIALS_MAX:  # no later root helps
            for member in group:
                folds.update(member.folds)
            group = []
            continue
        end = begin + verdict.suspect.width  # a smaller stated size says nothing of the entries behind it
        witnesses = stated[bisect_left(stated, (end, b"")) : bisect_right(stated, (next_begin, _LAST))]
        if witnesses and _try_together(group, tree, folds, witnesses[-_WITNESSES_MAX:]):
            group = []
    for verdict in group:
        folds.update(verdict.folds)


def _try_together(
    group: Sequence[Verdict], tree: Pyramid, folds: dict[int, bytes], witnesses: Sequence[tuple[int, bytes]]
) -> bool:
    """Whether one combination, and no other, leads to the most of the stated roots: then that is settled."""
    first = tuple(verdict.accounts[0] for verdict in group)
    best, most, ties = first, 0, 0
    for trial in product(*(verdict.accounts for verdict in group)):
        for verdict, account in zip(group, trial, strict=True):
            tree.put(verdict.suspect.index, account.root)
        known = ChainMap({}, *(account.folds for account in trial), folds)
        right = sum(tree.root(size, known) == root for size, root in witnesses)
        if right == most:
            ties += 1
        elif right > most:
            best, most, ties = trial, right, 0
    settled = most > 0 and not ties
    for verdict, account in zip(group, best if settled else first, strict=True):
        tree.put(verdict.suspect.index, account.root)
        if settled:
            verdict.accounts.remove(account)
            verdict.accounts.insert(0, account)
            verdict.settled = True
            folds.update(account.folds)
    return settled
