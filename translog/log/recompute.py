"""What the entries of a span of bundles hash to, beside what the stored tiles say. Runs in the processes of fsck.py.

Rules: hashes come from SHA-256 and RFC 6962 alone, with none of the code that wrote the tree; a bundle whose entries and
tile agree costs one hash an entry and one a node, everything else is for `Suspect`. https://www.rfc-editor.org/rfc/rfc6962#section-2.1
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from translog.core.merkle import EMPTY_ROOT
from translog.core.policy import Policy, verify_checkpoint
from translog.core.tile import TILE_WIDTH, Bundle, Tile
from translog.core.wire import HASH_BYTES
from translog.errors import MalformedError, VerificationError
from translog.storage.source import BundleRead, Damage, TreeSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bundles [first, end) of a tree of `size`, and the sizes within them at which somebody states a root."""

    first: int
    end: int
    size: int
    stated: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One account of a bundle: the hash over all of its leaves, and over those below each stated size."""

    root: bytes
    folds: dict[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A bundle whose entries and tile do not agree, or that cannot be read. Positions count within the bundle."""

    index: int
    width: int
    of_entries: Version | None
    of_tile: Version | None
    unreadable: tuple[int, ...]
    entries_problem: str
    differing: tuple[int, ...]
    tile_problem: str

    @property
    def agrees(self) -> bool:
        """Whether entries and tile agree after all: then there is something beside them."""
        return self.of_entries is not None and self.of_tile is not None and not self.differing


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanResult:
    """`roots` has one hash per bundle, None for the suspects."""

    span: Span
    roots: list[bytes | None]
    folds: dict[int, bytes]
    suspects: list[Suspect]
    entry_bytes: int
    readable: bool


def tree_hash(hashes: Sequence[bytes]) -> bytes:
    """The Merkle tree hash over at least one leaf hash: pairs, level by level, an odd one moves up as it is."""
    while len(hashes) > 1:
        above = [sha256(b"\x01" + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=False)]
        if len(hashes) % 2:
            above.append(hashes[-1])
        hashes = above
    return hashes[0]


Look = Callable[[Bundle, Sequence[bytes | None], Collection[int]], None]
"""Shown each bundle, its entries, None where one cannot be read, and the positions of those that are not as their tile says."""


def bundles_in(span: Span) -> list[Bundle]:
    """The bundles of a span, as wide as they are in its tree."""
    return [Bundle(index=n, width=min(TILE_WIDTH, span.size - n * TILE_WIDTH)) for n in range(span.first, span.end)]


def check_span(source: TreeSource, span: Span, look: Look | None = None) -> SpanResult:
    """Reads the span's entries and level-0 tiles once, and compares. Raises RemoteError if the source is gone."""
    bundles = bundles_in(span)
    tiles = source.tiles([Tile(level=0, index=bundle.index, width=bundle.width) for bundle in bundles])
    stated: dict[int, list[int]] = {}
    for size in span.stated:
        stated.setdefault(size // TILE_WIDTH, []).append(size)
    roots: list[bytes | None] = []
    folds: dict[int, bytes] = {}
    suspects = []
    entry_bytes = 0
    readable = False
    for bundle, read, tile in zip(bundles, source.bundles(bundles), tiles, strict=True):
        leaves = [None if entry is None else sha256(b"\x00" + entry).digest() for entry in read.entries]
        sizes = stated.get(bundle.index, [])
        if not read.problem and None not in leaves and b"".join(leaves) == tile:  # type: ignore[arg-type]  # None is not in it
            version = _version(leaves, bundle.index, sizes)  # type: ignore[arg-type]
            roots.append(version.root)
            folds |= version.folds
            entry_bytes += sum(map(len, read.entries))  # type: ignore[arg-type]
            readable = True
            differing: tuple[int, ...] = ()
        else:
            roots.append(None)
            suspects.append(_suspect(bundle, read, leaves, tile, sizes))
            readable = readable or any(leaves) or suspects[-1].of_tile is not None
            differing = suspects[-1].differing
        if look is not None:
            look(bundle, read.entries, differing)
    return SpanResult(span=span, roots=roots, folds=folds, suspects=suspects, entry_bytes=entry_bytes, readable=readable)


def _version(leaves: Sequence[bytes], index: int, sizes: Sequence[int]) -> Version:
    folds = {size: tree_hash(leaves[: size - index * TILE_WIDTH]) for size in sizes}
    return Version(root=tree_hash(leaves), folds=folds)


def _suspect(
    bundle: Bundle, read: BundleRead, leaves: Sequence[bytes | None], tile: bytes | Damage, sizes: Sequence[int]
) -> Suspect:
    stored: list[bytes] = []
    problem = "does not match the entries"
    if isinstance(tile, Damage):
        problem = tile.problem
    else:
        stored = [tile[at : at + HASH_BYTES] for at in range(0, len(tile), HASH_BYTES)]
        if len(tile) != bundle.width * HASH_BYTES:
            problem = f"has {len(tile)} bytes, not {bundle.width * HASH_BYTES}"
            stored = []
    whole = [leaf for leaf in leaves if leaf is not None]
    return Suspect(
        index=bundle.index,
        width=bundle.width,
        of_entries=_version(whole, bundle.index, sizes) if len(whole) == bundle.width else None,
        of_tile=_version(stored, bundle.index, sizes) if stored else None,
        unreadable=tuple(n for n, leaf in enumerate(leaves) if leaf is None),
        entries_problem=read.problem,
        differing=tuple(n for n, (a, b) in enumerate(zip(leaves, stored, strict=False)) if a is not None and a != b),
        tile_problem=problem,
    )


class Pyramid:
    """Every perfect subtree of 256 leaves and more, from the roots of the bundles up; None where something below is lost."""

    def __init__(self, roots: Sequence[bytes | None], size: int) -> None:
        self.end = min(size, len(roots) * TILE_WIDTH)
        row = list(roots[: size // TILE_WIDTH])
        self._rows = [row]
        while len(row) > 1:
            pairs = zip(row[::2], row[1::2], strict=False)
            row = [None if a is None or b is None else tree_hash((a, b)) for a, b in pairs]
            self._rows.append(row)

    def put(self, index: int, root: bytes | None) -> None:
        """Another hash for bundle `index`, and for all that is above it. The last, partial one is in no row."""
        if index >= len(self._rows[0]):
            return
        self._rows[0][index] = root
        for below, row in zip(self._rows, self._rows[1:], strict=False):
            index //= 2
            if index >= len(row):
                return
            left, right = below[2 * index : 2 * index + 2]
            row[index] = None if left is None or right is None else tree_hash((left, right))

    def tile(self, tile: Tile) -> list[bytes | None]:
        """The hashes of a tile of level 1 or above."""
        row = self._rows[8 * (tile.level - 1)]
        return row[tile.index * TILE_WIDTH : tile.index * TILE_WIDTH + tile.width]

    def root(self, size: int, folds: Mapping[int, bytes]) -> bytes | None:
        """The root of the first `size` entries, with the hash over those behind the last full bundle from `folds`; None
        where something below is lost, or was not read."""
        if size == 0:
            return EMPTY_ROOT
        if size > self.end:
            return None
        parts: list[bytes | None] = []
        begin, bundles = 0, size // TILE_WIDTH
        for row in range(len(self._rows) - 1, -1, -1):
            if bundles >> row & 1:
                parts.append(self._rows[row][begin >> row])
                begin += 1 << row
        if size % TILE_WIDTH:
            parts.append(folds.get(size))
        result = parts[-1]
        for part in reversed(parts[:-1]):
            result = None if part is None or result is None else tree_hash((part, result))
        return result


def check_notes(policy: Policy, notes: Sequence[bytes]) -> list[str]:
    """For each checkpoint why the policy does not accept it; empty where it does."""
    problems = []
    for note in notes:
        try:
            verify_checkpoint(note, policy)
            problems.append("")
        except (MalformedError, VerificationError) as error:
            problems.append(error.detail)
    return problems
