"""Whole trees in memory, and the oracle that knows all of them.

Rules: an oracle is told of every tree that exists in a run. Two checkpoints are consistent if one tree holds both. A root that
is of no tree at all is a failure of the simulation, or a broken hash.
"""

from collections.abc import Sequence

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.merkle import (
    EMPTY_ROOT,
    Node,
    fold_range,
    hash_children,
    hash_leaf,
    prove_consistency,
    range_nodes,
)


class Tree:
    """All entries of a log, or of one of its branches."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self._leaves = [hash_leaf(entry) for entry in entries]
        self._hashes: dict[Node, bytes] = {}

    @property
    def size(self) -> int:
        return len(self._leaves)

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """See merkle.HashReader."""
        return [self._hash(node) for node in nodes]

    def _hash(self, node: Node) -> bytes:
        if node.level == 0:
            return self._leaves[node.index]
        if node not in self._hashes:
            left, right = (Node(node.level - 1, 2 * node.index + side) for side in (0, 1))
            self._hashes[node] = hash_children(self._hash(left), self._hash(right))
        return self._hashes[node]

    def root(self, size: int) -> bytes:
        return fold_range(self.read_hashes(range_nodes(0, size))) if size else EMPTY_ROOT

    def prove(self, old: int, new: int) -> list[bytes]:
        """None from size 0, as witnesses want it."""
        return prove_consistency(old=old, new=new, reader=self) if old else []

    def text(self, origin: str, size: int) -> str:
        return format_checkpoint(Checkpoint(origin=origin, size=size, root=self.root(size)))

    def holds(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.size <= self.size and self.root(checkpoint.size) == checkpoint.root


def inconsistent(accepted: Sequence[Checkpoint], trees: Sequence[Tree]) -> bool:
    """Whether two of these checkpoints of one log are of no common tree."""
    for checkpoint in accepted:
        assert any(tree.holds(checkpoint) for tree in trees), f"nobody has a tree with {checkpoint}"
    return any(
        not any(tree.holds(one) and tree.holds(other) for tree in trees)
        for at, one in enumerate(accepted)
        for other in accepted[:at]
    )
