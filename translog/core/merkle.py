"""The Merkle tree of RFC 6962 section 2 (hashes) and its proofs, as pure functions.

Rules: a node is the root of a perfect subtree of 2^level leaves. Whatever a proof needs is named first, as nodes, and read
in one call of a HashReader; proofs are generated and verified along the same path (`_descend`), and verified against a
recursive oracle, RFC vectors and other people's programs in tests/core/test_merkle.py. Sizes 0 are the caller's business.
https://www.rfc-editor.org/rfc/rfc6962#section-2.1, https://www.rfc-editor.org/rfc/rfc9162#section-2.1, and for subtrees
https://datatracker.ietf.org/doc/draft-ietf-plants-merkle-tree-certs/ section 4.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Literal, NamedTuple, Protocol

from translog.core.wire import HASH_BYTES
from translog.errors import ConsistencyError, InclusionError, VerificationError

EMPTY_ROOT = sha256(b"").digest()
"""Root of the tree of size 0."""


class Node(NamedTuple):
    """The perfect subtree over leaves [index * 2^level, (index + 1) * 2^level)."""

    level: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a node


class HashReader(Protocol):
    """Reads the hashes that proofs are made of."""

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
        """One 32-byte hash per node, in order, each of them authenticated against the tree head in use.

        Raises VerificationError when what was read does not belong to that tree.
        """


def hash_leaf(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return sha256(b"\x00" + entry).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def range_nodes(begin: int, end: int) -> list[Node]:
    """The fewest perfect subtrees that cover leaves [begin, end), left to right. At most 2 * 63 of them."""
    nodes = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin & ((1 << level) - 1):
            level = (begin & -begin).bit_length() - 1
        nodes.append(Node(level, begin >> level))
        begin += 1 << level
    return nodes


def fold_range(hashes: Sequence[bytes]) -> bytes:
    """The hash of a subtree from the hashes of its `range_nodes`; EMPTY_ROOT for none."""
    if not hashes:
        return EMPTY_ROOT
    result = hashes[-1]
    for left in reversed(hashes[:-1]):
        result = hash_children(left, result)
    return result


def root_hash(size: int, reader: HashReader) -> bytes:
    """The root of the first `size` leaves."""
    return fold_range(reader.read_hashes(range_nodes(0, size)))


_Step = tuple[Literal["inside", "left", "right"], int, int]
"""One sibling [begin, end) on the way down from the root to a subtree, and how it joins on the way up.

`inside` siblings are left parts of the subtree itself, so they go into its hash and into the root; `left` and `right` ones
only into the root.
"""


def _descend(start: int, end: int, size: int) -> tuple[list[_Step], tuple[int, int] | None]:
    """SUBTREE_PROOF of the subtree [start, end) in the tree of `size`: the siblings from the top down, and the part of the
    subtree that the proof must carry as its first hash, or None where that is the whole subtree, known to the verifier."""
    steps: list[_Step] = []
    low, high, whole = 0, size, True
    while (start, end) != (low, high):
        split = low + (1 << ((high - low - 1).bit_length() - 1))
        if end <= split:
            steps.append(("right", split, high))
            high = split
        elif start >= split:
            steps.append(("left", low, split))
            low = split
        else:
            steps.append(("inside", low, split))
            low = start = split
            whole = False
    return steps, None if whole else (low, high)


def _proof_ranges(start: int, end: int, size: int) -> list[tuple[int, int]]:
    steps, first = _descend(start, end, size)
    return ([first] if first else []) + [(begin, end) for _, begin, end in reversed(steps)]


def inclusion_nodes(*, index: int, size: int) -> list[Node]:
    """Every node `prove_inclusion` reads, for callers that must fetch them beforehand."""
    return [node for part in _proof_ranges(index, index + 1, size) for node in range_nodes(*part)]


def consistency_nodes(*, old: int, new: int) -> list[Node]:
    """Every node `prove_consistency` reads, for callers that must fetch them beforehand."""
    return [node for part in _proof_ranges(0, old, new) for node in range_nodes(*part)]


def prove_inclusion(*, index: int, size: int, reader: HashReader) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1: at most 63 hashes, leaf's sibling first. One read.

    Raises InclusionError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise InclusionError(f"there is no entry {index} in a tree of size {size}")
    return _prove(index, index + 1, size, reader)


def prove_consistency(*, old: int, new: int, reader: HashReader) -> list[bytes]:
    """PROOF(old, D[new]) of RFC 6962 section 2.1.2: at most 64 hashes, 63 up to size 2^62; none where old = new. One read.

    Raises ConsistencyError unless 0 < old <= new.
    """
    if not 0 < old <= new:
        raise ConsistencyError(f"no consistency proof leads from size {old} to size {new}")
    return _prove(0, old, new, reader)


def prove_subtree(*, start: int, end: int, size: int, reader: HashReader) -> list[bytes]:
    """The consistency proof of subtree [start, end) with the tree of `size`. Raises ConsistencyError if it is no subtree."""
    _require_subtree(start, end, size)
    return _prove(start, end, size, reader)


def _prove(start: int, end: int, size: int, reader: HashReader) -> list[bytes]:
    covers = [range_nodes(*part) for part in _proof_ranges(start, end, size)]
    hashes = iter(reader.read_hashes([node for cover in covers for node in cover]))
    return [fold_range([next(hashes) for _ in cover]) for cover in covers]


def verify_inclusion(*, leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162 section 2.1.3.2. Raises InclusionError unless `proof` leads from `leaf_hash` at `index` to `root`."""
    if not 0 <= index < size:
        raise InclusionError(f"there is no entry {index} in a tree of size {size}")
    _verify(index, index + 1, size, leaf_hash, root, proof, InclusionError)


def verify_consistency(*, old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162 section 2.1.4.2, for 0 < old <= new. Raises ConsistencyError unless the old tree is a prefix of the new.

    Every tree is consistent with the empty one, so there is nothing to verify from size 0: callers handle it.
    """
    if not 0 < old <= new:
        raise ConsistencyError(f"no consistency proof leads from size {old} to size {new}")
    _verify(0, old, new, old_root, new_root, proof, ConsistencyError)


def verify_subtree(*, start: int, end: int, size: int, subtree: bytes, root: bytes, proof: Sequence[bytes]) -> None:
    """Raises ConsistencyError unless `subtree` is the hash of leaves [start, end) of the tree of `size` with `root`."""
    _require_subtree(start, end, size)
    _verify(start, end, size, subtree, root, proof, ConsistencyError)


def _require_subtree(start: int, end: int, size: int) -> None:
    if not 0 <= start < end <= size or start % (1 << (end - start - 1).bit_length()):
        raise ConsistencyError(f"[{start}, {end}) is not a subtree of a tree of size {size}")


def _verify(
    start: int,
    end: int,
    size: int,
    subtree: bytes,
    root: bytes,
    proof: Sequence[bytes],
    error: type[VerificationError],
) -> None:
    if any(len(value) != HASH_BYTES for value in (subtree, root, *proof)):
        raise error(f"a hash in the proof is not {HASH_BYTES} bytes long")
    steps, first = _descend(start, end, size)
    wanted = len(steps) + (first is not None)
    if len(proof) != wanted:
        raise error(f"the proof has {len(proof)} hashes, one for these sizes has {wanted}")
    siblings = iter(proof)
    of_subtree = of_root = next(siblings) if first else subtree
    for (join, _, _), sibling in zip(reversed(steps), siblings, strict=True):
        if join == "right":
            of_root = hash_children(of_root, sibling)
        else:
            of_root = hash_children(sibling, of_root)
            if join == "inside":
                of_subtree = hash_children(sibling, of_subtree)
    if of_subtree != subtree or of_root != root:
        raise error("the proof does not lead to the tree's root")
