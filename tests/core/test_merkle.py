"""Hashes and proofs against a recursive oracle, other people's vectors, and everything that must be refused."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.merkle_oracle import Oracle, UniformReader, is_subtree, shape, uniform_root
from translog.core.merkle import (
    EMPTY_ROOT,
    Node,
    consistency_nodes,
    fold_range,
    hash_children,
    hash_leaf,
    inclusion_nodes,
    prove_consistency,
    prove_inclusion,
    prove_subtree,
    range_nodes,
    root_hash,
    verify_consistency,
    verify_inclusion,
    verify_subtree,
)
from translog.errors import ConsistencyError, InclusionError, VerificationError

SIZE = 130
TREE = Oracle([bytes([n]) for n in range(SIZE)])
SOME_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 129)
HUGE = (2**32 + 5, 2**62, 2**62 + 1, 2**63 - 2, 2**63 - 1)


def accepts(verify: Callable[..., None], **arguments: Any) -> bool:
    try:
        verify(**arguments)
    except VerificationError:
        return False
    return True


def flips(value: bytes) -> Iterator[bytes]:
    """`value` with each of its bits changed in turn."""
    for bit in range(len(value) * 8):
        changed = bytearray(value)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def bent(proof: list[bytes], other: bytes) -> Iterator[list[bytes]]:
    """Every way in which a proof is not the proof: a changed bit, a missing, additional, swapped or wrongly sized hash."""
    for at, value in enumerate(proof):
        yield from ([*proof[:at], changed, *proof[at + 1 :]] for changed in flips(value))
        yield [*proof[:at], *proof[at + 1 :]]
        yield [*proof[:at], value[:-1], *proof[at + 1 :]]
        yield [*proof[:at], value + b"\0", *proof[at + 1 :]]
    for at in range(len(proof) + 1):
        yield [*proof[:at], other, *proof[at:]]
        yield [*proof[:at], b"", *proof[at:]]
    for at in range(len(proof) - 1):
        yield [*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :]]


# Roots


def test_hashes_are_those_of_rfc_6962() -> None:
    assert hash_leaf(b"entry") == sha256(b"\x00entry").digest()
    assert hash_children(b"l" * 32, b"r" * 32) == sha256(b"\x01" + b"l" * 32 + b"r" * 32).digest()
    assert sha256(b"").digest() == EMPTY_ROOT == fold_range([])


def test_roots_of_the_certificate_transparency_test_leaves() -> None:
    """The eight leaves of RFC 6962's reference code and its roots of sizes 1 to 8."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    tree = Oracle([bytes.fromhex(leaf) for leaf in leaves])
    assert [root_hash(size, tree).hex() for size in range(1, 9)] == roots


def test_root_of_every_size_equals_the_oracle() -> None:
    assert [root_hash(size, TREE) for size in range(SIZE + 1)] == [TREE.mth(0, size) for size in range(SIZE + 1)]


def test_range_nodes_cover_the_range_in_order_with_maximal_perfect_subtrees() -> None:
    for begin in range(70):
        for end in range(begin, 70):
            nodes = range_nodes(begin, end)
            covered = [leaf for level, index in nodes for leaf in range(index << level, (index + 1) << level)]
            assert covered == list(range(begin, end))
            for (level, index), (next_level, next_index) in pairwise(nodes):
                assert not (level == next_level and index % 2 == 0 and next_index == index + 1), "these two could be one"


def test_range_nodes_stay_within_their_bound() -> None:
    assert len(range_nodes(1, 2**63 - 1)) == 124 <= 2 * 63
    assert len(range_nodes(0, 2**63 - 1)) == 63
    assert range_nodes(0, 2**63) == [Node(63, 0)]
    assert range_nodes(3, 3) == []


# Proofs


def test_every_inclusion_proof_equals_the_oracle_and_verifies() -> None:
    for size in range(1, SIZE + 1):
        for index in range(size):
            proof = prove_inclusion(index=index, size=size, reader=TREE)
            assert proof == TREE.path(index, 0, size)
            verify_inclusion(leaf_hash=TREE.mth(index, index + 1), index=index, size=size, proof=proof, root=TREE.mth(0, size))


def test_every_consistency_proof_equals_the_oracle_and_verifies() -> None:
    for new in range(1, SIZE + 1):
        for old in range(1, new + 1):
            proof = prove_consistency(old=old, new=new, reader=TREE)
            assert proof == TREE.proof(old, 0, new)
            verify_consistency(old=old, old_root=TREE.mth(0, old), new=new, new_root=TREE.mth(0, new), proof=proof)


def test_every_subtree_proof_equals_the_oracle_and_verifies() -> None:
    for size in range(1, 41):
        for end in range(1, size + 1):
            for start in range(end):
                if is_subtree(start, end, size):
                    proof = prove_subtree(start=start, end=end, size=size, reader=TREE)
                    assert proof == TREE.sub(start, end, 0, size)
                    verify_subtree(
                        start=start, end=end, size=size, subtree=TREE.mth(start, end), root=TREE.mth(0, size), proof=proof
                    )


def test_what_is_not_a_subtree_has_no_proof() -> None:
    for size in range(20):
        for start in range(-1, 21):
            for end in range(-1, 22):
                if not is_subtree(start, end, size):
                    with pytest.raises(ConsistencyError):
                        prove_subtree(start=start, end=end, size=size, reader=TREE)
                    with pytest.raises(ConsistencyError):
                        verify_subtree(start=start, end=end, size=size, subtree=TREE.mth(0, 1), root=TREE.mth(0, 1), proof=[])


def test_a_proof_takes_one_read_of_the_nodes_it_announced() -> None:
    class Recorder(Oracle):
        def read_hashes(self, nodes: Any) -> list[bytes]:
            self.asked = list(nodes)
            return super().read_hashes(nodes)

    tree = Recorder(TREE.entries)
    for number, (part, whole) in enumerate([(1, 1), (2, 7), (5, 7), (64, 129), (100, 101), (129, 130)], start=1):
        prove_inclusion(index=part - 1, size=whole, reader=tree)
        assert tree.asked == inclusion_nodes(index=part - 1, size=whole)
        prove_consistency(old=part, new=whole, reader=tree)
        assert tree.asked == consistency_nodes(old=part, new=whole)
        assert tree.reads == 2 * number


@pytest.mark.parametrize("size", HUGE)
def test_proofs_of_the_largest_trees_stay_within_their_bound_and_verify(size: int) -> None:
    root = uniform_root(size)
    for index in (0, 1, size // 3, size // 2, size - 2, size - 1):
        proof = prove_inclusion(index=index, size=size, reader=UniformReader())
        assert len(proof) <= 63
        verify_inclusion(leaf_hash=hash_leaf(b""), index=index, size=size, proof=proof, root=root)
        old = index + 1
        proof = prove_consistency(old=old, new=size, reader=UniformReader())
        assert len(proof) <= (63 if size <= 2**62 else 64)
        verify_consistency(old=old, old_root=uniform_root(old), new=size, new_root=root, proof=proof)
        if old < size:
            assert not accepts(
                verify_consistency, old=old, old_root=uniform_root(old + 1), new=size, new_root=root, proof=proof
            )


# Refusals


@pytest.mark.parametrize(("index", "size"), [(-1, 1), (0, 0), (1, 1), (5, 5), (6, 5), (0, -1)])
def test_an_index_outside_of_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(InclusionError):
        prove_inclusion(index=index, size=size, reader=TREE)
    with pytest.raises(InclusionError):
        verify_inclusion(leaf_hash=EMPTY_ROOT, index=index, size=size, proof=[], root=EMPTY_ROOT)


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 1), (2, 1), (-1, 1), (-1, -1)])
def test_sizes_that_shrink_or_start_empty_have_no_consistency_proof(old: int, new: int) -> None:
    with pytest.raises(ConsistencyError):
        prove_consistency(old=old, new=new, reader=TREE)
    with pytest.raises(ConsistencyError):
        verify_consistency(old=old, old_root=EMPTY_ROOT, new=new, new_root=EMPTY_ROOT, proof=[])


def test_errors_say_what_failed() -> None:
    leaf, root = TREE.mth(0, 1), TREE.mth(0, 2)
    with pytest.raises(InclusionError, match="not lead"):
        verify_inclusion(leaf_hash=leaf, index=0, size=2, proof=[leaf], root=root)
    with pytest.raises(InclusionError, match="0 hashes, one for these sizes has 1"):
        verify_inclusion(leaf_hash=leaf, index=0, size=2, proof=[], root=root)
    with pytest.raises(ConsistencyError, match="not 32 bytes"):
        verify_consistency(old=1, old_root=leaf, new=2, new_root=root, proof=[b"short"])


@pytest.mark.parametrize("size", SOME_SIZES)
def test_every_other_index_and_size_is_refused(size: int) -> None:
    root = TREE.mth(0, size)
    for index in range(size):
        proof = TREE.path(index, 0, size)
        leaf = TREE.mth(index, index + 1)
        for other in range(size):
            assert accepts(verify_inclusion, leaf_hash=leaf, index=other, size=size, proof=proof, root=root) == (other == index)
        for other in range(size + 4):
            same = index < other and shape(index, index + 1, 0, other) == shape(index, index + 1, 0, size)
            assert accepts(verify_inclusion, leaf_hash=leaf, index=index, size=other, proof=proof, root=root) == same


@pytest.mark.parametrize("new", [1, 2, 3, 5, 8, 13, 17])
def test_every_other_pair_of_sizes_is_refused(new: int) -> None:
    for old in range(1, new + 1):
        proof = TREE.proof(old, 0, new)
        for other_old in range(20):
            for other_new in range(20):
                same = 0 < other_old <= other_new and shape(0, other_old, 0, other_new) == shape(0, old, 0, new)
                assert same == accepts(
                    verify_consistency,
                    old=other_old,
                    old_root=TREE.mth(0, old),
                    new=other_new,
                    new_root=TREE.mth(0, new),
                    proof=proof,
                )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 100])
def test_every_bent_inclusion_proof_is_refused(size: int) -> None:
    root = TREE.mth(0, size)
    for index in {0, size // 2, size - 1}:
        leaf = TREE.mth(index, index + 1)
        proof = TREE.path(index, 0, size)
        for bad in bent(proof, TREE.mth(0, 1)):
            assert not accepts(verify_inclusion, leaf_hash=leaf, index=index, size=size, proof=bad, root=root)
        for bad_leaf in (*flips(leaf), b"", leaf[:-1], leaf + b"\0"):
            assert not accepts(verify_inclusion, leaf_hash=bad_leaf, index=index, size=size, proof=proof, root=root)
        for bad_root in (*flips(root), b"", root[:-1], root + b"\0"):
            assert not accepts(verify_inclusion, leaf_hash=leaf, index=index, size=size, proof=proof, root=bad_root)


@pytest.mark.parametrize(
    ("start", "end", "size"), [(0, 1, 1), (0, 1, 2), (0, 3, 7), (0, 4, 7), (0, 6, 13), (4, 7, 13), (8, 13, 13)]
)
def test_every_bent_subtree_or_consistency_proof_is_refused(start: int, end: int, size: int) -> None:
    subtree, root = TREE.mth(start, end), TREE.mth(0, size)
    proof = TREE.sub(start, end, 0, size)

    def accepted(proof: list[bytes], subtree: bytes, root: bytes) -> bool:
        one = accepts(verify_subtree, start=start, end=end, size=size, subtree=subtree, root=root, proof=proof)
        if start == 0:
            two = accepts(verify_consistency, old=end, old_root=subtree, new=size, new_root=root, proof=proof)
            assert one == two
        return one

    assert accepted(proof, subtree, root)
    assert not any(accepted(bad, subtree, root) for bad in bent(proof, TREE.mth(0, 1)))
    assert not any(accepted(proof, bad, root) for bad in (*flips(subtree), b"", subtree[:-1]))
    assert not any(accepted(proof, subtree, bad) for bad in (*flips(root), b"", root[:-1]))


# The accumulated vectors of draft-ietf-plants-merkle-tree-certs-05, appendix C.1: a SHA-256 over one line per result


def subtrees_to(size: int) -> Iterator[tuple[int, int]]:
    return ((start, end) for end in range(1, size + 1) for start in range(end) if is_subtree(start, end, size))


def test_accumulated_subtree_hashes_of_the_draft() -> None:
    transcript = sha256()
    for start, end in subtrees_to(SIZE):
        subtree = fold_range(TREE.read_hashes(range_nodes(start, end)))
        transcript.update(f"[{start}, {end}) {subtree.hex()}\n".encode())
    assert transcript.hexdigest() == "94a95384a8c69acea9b50d035a58285b3a777cb7a724005faa5e1f1e1190007f"


def test_accumulated_subtree_inclusion_proofs_of_the_draft() -> None:
    transcript = sha256()
    for start, end in subtrees_to(SIZE):
        part = Oracle(TREE.entries[start:end], memo={(a - start, b - start): v for (a, b), v in TREE.memo.items()})
        for index in range(start, end):
            proof = prove_inclusion(index=index - start, size=end - start, reader=part)
            transcript.update(f"{index} [{start}, {end}){''.join(f' {value.hex()}' for value in proof)}\n".encode())
    assert transcript.hexdigest() == "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f"


def test_accumulated_subtree_consistency_proofs_of_the_draft() -> None:
    transcript = sha256()
    for size in range(1, SIZE + 1):
        for start, end in subtrees_to(size):
            proof = prove_subtree(start=start, end=end, size=size, reader=TREE)
            transcript.update(f"[{start}, {end}) {size}{''.join(f' {value.hex()}' for value in proof)}\n".encode())
    assert transcript.hexdigest() == "c586ebbb73a5621baf2140095d87dde934e3b6503a562a1a5215b8209edd083d"


# The vectors of transparency-dev/merkle


def verdict(vector: dict[str, Any]) -> bool:
    """Whether we accept it."""
    proof = [b64decode(value) for value in vector["proof"] or ()]
    kind = vector["file"].split("/")[0]
    if kind == "inclusion":
        index, size = vector["leafIdx"], vector["treeSize"]
    elif kind == "subtreeinclusion":
        index, size = vector["leafIdx"] - vector["start"], vector["end"] - vector["start"]
    if kind in ("inclusion", "subtreeinclusion"):
        leaf, root = b64decode(vector["leafHash"] or ""), b64decode(vector["root"] or "")
        return accepts(verify_inclusion, leaf_hash=leaf, index=index, size=size, proof=proof, root=root)
    first, second = b64decode(vector["root1"] or ""), b64decode(vector["root2"] or "")
    if kind == "consistency":
        old, new = vector["size1"], vector["size2"]
        return accepts(verify_consistency, old=old, old_root=first, new=new, new_root=second, proof=proof)
    return accepts(
        verify_subtree,
        start=vector["start"],
        end=vector["end"],
        size=vector["size"],
        subtree=first,
        root=second,
        proof=proof,
    )


_PLACEHOLDER = "accepts a root of 12 bytes, a placeholder; we require 32 of every hash"
_EMPTY = "accepts the empty subtree, as the draft does after edition 05; C2SP pins editions that know none, and so do we"
_FOLDER = "subtreeconsistency/additional/"
OUR_DIFFERENCES = {
    "consistency/additional/sizes-are-equal-one-and-proof-is-empty.json": _PLACEHOLDER,
    f"{_FOLDER}sizes-are-equal-one-and-proof-is-empty.json": _PLACEHOLDER,
    f"{_FOLDER}subtree-is-empty-sizes-are-equal-one-subtree-root-valid-proof-is-empty.json": _EMPTY,
    f"{_FOLDER}subtree-is-empty-sizes-are-equal-one-subtree-root-valid-tree-root-random-proof-is-empty.json": _EMPTY,
    f"{_FOLDER}subtree-is-empty-sizes-are-equal-zero-subtree-root-valid-proof-is-empty.json": _EMPTY,
    f"{_FOLDER}subtree-is-empty-sizes-are-equal-zero-subtree-root-valid-tree-root-random-proof-is-empty.json": _EMPTY,
    f"{_FOLDER}subtree-is-empty-subtree-root-valid-proof-is-empty.json": _EMPTY,
    f"{_FOLDER}subtree-is-empty-subtree-root-valid-tree-root-random-proof-is-empty.json": _EMPTY,
}
"""The vectors whose verdict is not ours, and why. The three with size 0, which they refuse, are not here: so do we."""


def test_verdict_on_every_external_vector_is_ours_but_for_the_named_ones(shared: Path) -> None:
    vectors = [json.loads(line) for line in (shared / "data/merkle/vectors.jsonl").read_text().splitlines()]
    assert len(vectors) == 518
    assert {vector["file"] for vector in vectors if verdict(vector) == vector["wantErr"]} == set(OUR_DIFFERENCES)
