"""Verifies a whole log from its entries alone, with a recursive oracle that shares no code with translog.core.merkle.

Rules: every tile, every stored checkpoint and every text ever signed must be of one tree, the one of the stored entries;
heads of prefixes of one tree are consistent by definition.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.policy import Policy, verify_checkpoint
from translog.core.tile import Tile
from translog.storage.store import LogStore, StoredCheckpoint


@dataclass
class Tree:
    """RFC 6962 section 2.1, word for word, over `entries`."""

    entries: Sequence[bytes]
    memo: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def root(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end])."""
        if (begin, end) not in self.memo:
            if end - begin > 1:
                power = 1
                while power * 2 < end - begin:
                    power *= 2
                children = self.root(begin, begin + power) + self.root(begin + power, end)
                self.memo[begin, end] = sha256(b"\x01" + children).digest()
            else:
                self.memo[begin, end] = sha256(b"\x00" + self.entries[begin] if end > begin else b"").digest()
        return self.memo[begin, end]

    def tiles(self) -> dict[Tile, bytes]:
        """Every tile of the tree, each at the width it has now."""
        found = {}
        level, span = 0, 1
        while hashes := len(self.entries) // span:
            for first in range(0, hashes, 256):
                last = min(first + 256, hashes)
                data = b"".join(self.root(n * span, (n + 1) * span) for n in range(first, last))
                found[Tile(level=level, index=first // 256, width=last - first)] = data
            level, span = level + 1, span * 256
        return found


def kept_checkpoints(store: LogStore) -> list[StoredCheckpoint]:
    """All of them, the largest first."""
    kept = []
    found = store.find_checkpoint_below(size_max=store.read_state().size)
    while found is not None:
        kept.append(found)
        found = store.find_checkpoint_below(size_max=found.size - 1) if found.size else None
    return kept


def check_tree(store: LogStore) -> Tree:
    """Entries, tiles and root of the committed tree agree."""
    state = store.read_state()
    tree = Tree(store.read_entries(start=0, end=state.size))
    assert len(tree.entries) == state.size
    assert tree.root(0, state.size) == state.root
    tiles = tree.tiles()
    assert store.read_tiles(list(tiles)) == list(tiles.values())
    return tree


def check_head(checkpoint: Checkpoint, tree: Tree, *, origin: str) -> None:
    """A signed tree head is of `origin` and of a prefix of `tree`."""
    assert checkpoint.origin == origin
    assert checkpoint.size <= len(tree.entries), "a tree head larger than the log"
    assert checkpoint.root == tree.root(0, checkpoint.size), "a tree head of another history"


def check_log(store: LogStore, policy: Policy, *, signed: Iterable[str] = ()) -> list[bytes]:
    """Verifies everything in `store`, and every note text in `signed`. Returns the log's entries."""
    tree = check_tree(store)
    kept = kept_checkpoints(store)
    latest = store.read_checkpoint()
    assert latest is not None
    assert not kept or latest.size >= kept[0].size
    for stored in [latest, *kept]:
        checkpoint = verify_checkpoint(stored.note, policy).checkpoint
        assert checkpoint.size == stored.size
        check_head(checkpoint, tree, origin=store.meta.origin)
    for text in signed:
        check_head(parse_checkpoint(text), tree, origin=store.meta.origin)
    return list(tree.entries)
