"""The Merkle tree as RFC 6962 section 2.1 defines it, recursively. Shares no code with the package.

`SUB` is the subtree proof of draft-ietf-plants-merkle-tree-certs section 4; RFC 6962's PATH and PROOF are cases of it, and
are written out here all the same. Results are memoised by range, so that tests may ask for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256

from translog.core.merkle import Node
from translog.core.tile import TILE_WIDTH, Tile


def split_of(size: int) -> int:
    """The largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def join(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


@dataclass(repr=False)
class Oracle:
    """A tree over `entries`. It is a HashReader and, by `tile`, knows the content of any tile."""

    entries: Sequence[bytes]
    memo: dict[tuple[int, int], bytes] = field(default_factory=dict)
    reads: int = 0

    def mth(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end])."""
        if (begin, end) not in self.memo:
            if end - begin > 1:
                middle = begin + split_of(end - begin)
                self.memo[begin, end] = join(self.mth(begin, middle), self.mth(middle, end))
            else:
                self.memo[begin, end] = sha256(b"\0" + self.entries[begin] if end > begin else b"").digest()
        return self.memo[begin, end]

    def path(self, index: int, begin: int, end: int) -> list[bytes]:
        """PATH(index - begin, D[begin:end])."""
        if end - begin == 1:
            return []
        middle = begin + split_of(end - begin)
        if index < middle:
            return [*self.path(index, begin, middle), self.mth(middle, end)]
        return [*self.path(index, middle, end), self.mth(begin, middle)]

    def proof(self, old: int, begin: int, end: int, known: bool = True) -> list[bytes]:
        """SUBPROOF(old - begin, D[begin:end], known)."""
        if old == end:
            return [] if known else [self.mth(begin, end)]
        middle = begin + split_of(end - begin)
        if old <= middle:
            return [*self.proof(old, begin, middle, known), self.mth(middle, end)]
        return [*self.proof(old, middle, end, False), self.mth(begin, middle)]

    def sub(self, start: int, end: int, low: int, high: int, known: bool = True) -> list[bytes]:
        """SUBTREE_SUBPROOF of [start, end) within [low, high)."""
        if (start, end) == (low, high):
            return [] if known else [self.mth(low, high)]
        middle = low + split_of(high - low)
        if end <= middle:
            return [*self.sub(start, end, low, middle, known), self.mth(middle, high)]
        if start >= middle:
            return [*self.sub(start, end, middle, high, known), self.mth(low, middle)]
        return [*self.sub(middle, end, middle, high, False), self.mth(low, middle)]

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        self.reads += 1
        assert all(node.index >= 0 and (node.index + 1) << node.level <= len(self.entries) for node in nodes)
        return [self.mth(node.index << node.level, (node.index + 1) << node.level) for node in nodes]

    def tile(self, tile: Tile) -> bytes:
        span = TILE_WIDTH**tile.level
        first = tile.index * TILE_WIDTH
        return b"".join(self.mth(n * span, (n + 1) * span) for n in range(first, first + tile.width))


def shape(start: int, end: int, low: int, high: int, known: bool = True) -> str:
    """How the proof of [start, end) within [low, high) joins, leaf side first. Proofs of one shape cannot be told apart:
    the sizes they are for must come from a signed tree head."""
    if (start, end) == (low, high):
        return "known " if known else "first "
    middle = low + split_of(high - low)
    if end <= middle:
        return shape(start, end, low, middle, known) + "R"
    if start >= middle:
        return shape(start, end, middle, high, known) + "L"
    return shape(middle, end, middle, high, False) + "I"


def is_subtree(start: int, end: int, size: int) -> bool:
    """Section 4.1 of the draft, for editions 02 to 05: not empty, and start a multiple of BIT_CEIL(end - start)."""
    ceiling = 1
    while ceiling < end - start:
        ceiling *= 2
    return 0 <= start < end <= size and start % ceiling == 0


@cache
def uniform_root(size: int, entry: bytes = b"") -> bytes:
    """The root of a tree whose entries are all equal, which can be as large as 2^63 - 1."""
    if size == 1:
        return sha256(b"\0" + entry).digest()
    return join(uniform_root(split_of(size), entry), uniform_root(size - split_of(size), entry))


class UniformReader:
    """A HashReader over such a tree."""

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        return [uniform_root(1 << node.level) for node in nodes]
