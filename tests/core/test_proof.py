"""Receipts: exact parsing, and that each proves its own entry and no other."""

from collections.abc import Container

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.known import (
    CHECKPOINT,
    LEAF,
    LOG,
    LOG_LINE,
    LOG_VKEY,
    TIME,
    WITNESS,
    WITNESS_LINE,
    WITNESS_VKEY,
    changes,
    signer,
    substrings,
)
from core.merkle_oracle import Oracle
from translog.core import hash_leaf
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.note import sign_note
from translog.core.policy import parse_policy, verify_checkpoint
from translog.core.proof import (
    EXTRA_BYTES_MAX,
    HEADER,
    PROOF_HASHES_MAX,
    RECEIPT_BYTES_MAX,
    Receipt,
    format_receipt,
    parse_receipt,
    verify_receipt,
    verify_receipt_under,
)
from translog.core.wire import SIZE_MAX, encode_base64
from translog.errors import InclusionError, MalformedError, QuorumError, SignatureError, VerificationError

POLICY = parse_policy(f"log {LOG_VKEY}\nwitness w {WITNESS_VKEY}\nquorum w\n".encode())
UNWITNESSED = parse_policy(f"log {LOG_VKEY}\nquorum none\n".encode())
TREE = Oracle([bytes([n]) for n in range(40)])
HASH = encode_base64(bytes(32))


def receipt_of(index: int, size: int, *, extra: bytes | None = None) -> Receipt:
    """A receipt of entry `index` as a log of the oracle's first `size` entries would make it."""
    text = format_checkpoint(Checkpoint(origin=LOG.name, size=size, root=TREE.mth(0, size)))
    note = sign_note(text, [signer(LOG), signer(WITNESS)], time_s=TIME)
    return Receipt(index=index, proof=tuple(TREE.path(index, 0, size)), checkpoint=note, extra=extra)


ONLY = f"{HEADER}\nindex 0\n\n".encode() + CHECKPOINT
WITH_EXTRA = format_receipt(receipt_of(2, 3, extra=b"extra!"))


def test_the_receipt_of_the_only_entry_has_no_hashes() -> None:
    receipt = parse_receipt(ONLY)
    assert receipt == Receipt(index=0, proof=(), checkpoint=CHECKPOINT)
    assert format_receipt(receipt) == ONLY
    verified = verify_receipt(receipt, leaf_hash=hash_leaf(LEAF), policy=POLICY)
    assert (verified.index, verified.checkpoint.checkpoint.size) == (0, 1)


def test_a_receipt_in_full() -> None:
    receipt = receipt_of(2, 3, extra=b"extra!")
    assert (
        b"c2sp.org/tlog-proof@v1\nextra ZXh0cmEh\nindex 2\n"
        + encode_base64(TREE.mth(0, 2)).encode()
        + b"\n\n"
        + receipt.checkpoint
    ) == WITH_EXTRA
    assert parse_receipt(WITH_EXTRA) == receipt


@pytest.mark.parametrize("size", [1, 2, 3, 8, 13, 40])
def test_the_receipts_of_a_tree_prove_each_entry_and_no_other(size: int) -> None:
    head = verify_checkpoint(receipt_of(0, size).checkpoint, POLICY)
    for index in range(size):
        receipt = receipt_of(index, size)
        assert parse_receipt(format_receipt(receipt)) == receipt
        for other in range(size):
            if other == index:
                assert verify_receipt_under(receipt, leaf_hash=TREE.mth(other, other + 1), checkpoint=head).index == index
            else:
                with pytest.raises(InclusionError):
                    verify_receipt_under(receipt, leaf_hash=TREE.mth(other, other + 1), checkpoint=head)


def test_an_index_beyond_the_tree_is_refused() -> None:
    receipt = parse_receipt(ONLY.replace(b"index 0", b"index 1"))
    with pytest.raises(InclusionError, match="no entry 1 in a tree of size 1"):
        verify_receipt(receipt, leaf_hash=hash_leaf(LEAF), policy=POLICY)


def test_a_receipt_needs_what_its_policy_asks() -> None:
    leaf_hash = hash_leaf(LEAF)
    receipt = parse_receipt(ONLY.replace(WITNESS_LINE.encode(), b""))
    verify_receipt(receipt, leaf_hash=leaf_hash, policy=UNWITNESSED)
    with pytest.raises(QuorumError):
        verify_receipt(receipt, leaf_hash=leaf_hash, policy=POLICY)
    with pytest.raises(SignatureError):
        verify_receipt(receipt, leaf_hash=leaf_hash, policy=parse_policy(b"quorum none"))
    with pytest.raises(SignatureError):
        verify_receipt(parse_receipt(ONLY.replace(LOG_LINE.encode(), b"")), leaf_hash=leaf_hash, policy=POLICY)


@pytest.mark.parametrize(
    "head",
    [
        "",
        HEADER,
        f"{HEADER}\n",
        "index 0",
        f"{HEADER}\n0",
        f"{HEADER}\nindex",
        f"{HEADER}\nindex ",
        f"{HEADER}\nindex 00",
        f"{HEADER}\nindex +0",
        f"{HEADER}\nindex -1",
        f"{HEADER}\nindex  0",
        f"{HEADER}\nindex 0 ",
        f"{HEADER}\nindex \u0661",
        f"{HEADER}\nindex {SIZE_MAX + 1}",
        f"{HEADER}\nIndex 0",
        f"{HEADER}\nindex 0\nindex 0",
        f"{HEADER} \nindex 0",
        f"\n{HEADER}\nindex 0",
        f" {HEADER}\nindex 0",
        "c2sp.org/tlog-proof@v2\nindex 0",
        f"{HEADER}\nextra\nindex 0",
        f"{HEADER}\nextra AA\nindex 0",
        f"{HEADER}\nextra AB==\nindex 0",
        f"{HEADER}\nextra  AA==\nindex 0",
        f"{HEADER}\nextra AA==",
        f"{HEADER}\nextra AA==\nextra AA==\nindex 0",
        f"{HEADER}\nindex 0\nextra AA==",
        f"{HEADER}\nindex 0\n{HASH[:-1]}",
        f"{HEADER}\nindex 0\n{HASH} ",
        f"{HEADER}\nindex 0\n{encode_base64(bytes(31))}",
        f"{HEADER}\nindex 0\n{encode_base64(bytes(33))}",
        f"{HEADER}\nindex 0\n" + "\n".join([HASH] * (PROOF_HASHES_MAX + 1)),
        f"{HEADER}\r\nindex 0\r",
    ],
)
def test_what_is_no_receipt_is_refused(head: str) -> None:
    with pytest.raises(MalformedError):
        parse_receipt(head.encode() + b"\n\n" + CHECKPOINT)


@pytest.mark.parametrize(
    "note", [b"", b"\n", CHECKPOINT[:-1], b"\n" + CHECKPOINT.split(b"\n\n")[1], b"text\n", b"\xff" + CHECKPOINT]
)
def test_a_receipt_whose_checkpoint_is_no_note_is_refused(note: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_receipt(f"{HEADER}\nindex 0\n\n".encode() + note)


def test_a_receipt_without_an_empty_line_is_refused() -> None:
    with pytest.raises(MalformedError, match="empty line"):
        parse_receipt(f"{HEADER}\nindex 0\n".encode())


def test_the_longest_parts_are_read_and_no_longer_ones() -> None:
    full = Receipt(index=SIZE_MAX, proof=(bytes(32),) * PROOF_HASHES_MAX, checkpoint=CHECKPOINT, extra=bytes(EXTRA_BYTES_MAX))
    assert parse_receipt(format_receipt(full)) == full
    longer = Receipt(index=0, proof=(), checkpoint=CHECKPOINT, extra=bytes(EXTRA_BYTES_MAX + 1))
    with pytest.raises(MalformedError, match="extra bytes"):
        parse_receipt(format_receipt(longer))
    with pytest.raises(MalformedError, match=f"at most {RECEIPT_BYTES_MAX}"):
        parse_receipt(ONLY + b"a" * (RECEIPT_BYTES_MAX - len(ONLY) + 1))
    with pytest.raises(MalformedError, match="not a signature line"):
        parse_receipt(ONLY + b"a" * 10 + b"\n")
    assert parse_receipt(f"{HEADER}\nextra \nindex 0\n\n".encode() + CHECKPOINT).extra == b""


@pytest.mark.parametrize(
    ("good", "leaf_hash"), [(ONLY, hash_leaf(LEAF)), (WITH_EXTRA, TREE.mth(2, 3))], ids=["size 1", "with extra"]
)
def test_every_substring_and_change_of_a_receipt_is_refused_or_formats_back_and_only_extra_may_differ(
    good: bytes, leaf_hash: bytes
) -> None:
    """What still verifies proves the same, and differs in nothing but the extra data, which nobody vouches for."""
    original = parse_receipt(good)
    proven = verify_receipt(original, leaf_hash=leaf_hash, policy=POLICY)
    differing = 0
    for data in (*substrings(good), *changes(good)):
        try:
            receipt = parse_receipt(data)
        except MalformedError:
            continue
        assert format_receipt(receipt) == data
        try:
            verified = verify_receipt(receipt, leaf_hash=leaf_hash, policy=POLICY)
        except (MalformedError, VerificationError):
            continue
        differing += 1
        assert verified == proven
        assert receipt.extra != original.extra
    assert (differing > 0) == (original.extra is not None)


def outcome(data: bytes, *, parsed: Container[bytes]) -> Receipt | str:
    """What is parsed, or what is said in refusing."""
    try:
        return parse_receipt(data, parsed=parsed)
    except MalformedError as error:
        return error.detail


@pytest.mark.parametrize("good", [ONLY, WITH_EXTRA], ids=["size 1", "with extra"])
def test_a_checkpoint_known_to_be_well_formed_changes_nothing_in_what_is_parsed_or_refused(good: bytes) -> None:
    note = parse_receipt(good).checkpoint
    heads = len(good) - len(note)
    double = good[:heads] + b"\n" + good[heads:]
    odd = [good[:at] + b"\n" + good[at:] for at in range(heads + 1)]
    cut = [good[:at] + good[heads:] for at in range(heads)] + [good[at:] for at in range(heads)]
    for data in (good, double, note, b"", *odd, *cut, *changes(good)):
        assert outcome(data, parsed={note}) == outcome(data, parsed=())


def test_what_is_no_text_is_told_by_its_place_in_the_receipt() -> None:
    head = f"{HEADER}\nindex 0\n\n".encode()
    with pytest.raises(MalformedError, match=f"the receipt is not UTF-8 at byte {len(head) + 1}$"):
        parse_receipt(head + b"a\xff")
    with pytest.raises(MalformedError, match="the receipt contains a control character"):
        parse_receipt(head + b"a\0")


def test_a_checkpoint_known_to_be_well_formed_is_not_parsed_again_and_any_other_is() -> None:
    head = f"{HEADER}\nindex 0\n\n".encode()
    for note in (b"taken on trust", b"\xff\0", b""):
        assert parse_receipt(head + note, parsed=[note]).checkpoint == note
        with pytest.raises(MalformedError):
            parse_receipt(head + note + b"\n", parsed=[note])
    for data in (HEADER.encode(), f"{HEADER}\nindex 0".encode(), head[:-1]):
        with pytest.raises(MalformedError, match="empty line"):
            parse_receipt(data, parsed=[b""])


@given(
    st.integers(min_value=0, max_value=SIZE_MAX),
    st.lists(st.binary(min_size=32, max_size=32), max_size=5),
    st.none() | st.binary(max_size=40),
)
def test_any_receipt_round_trips(index: int, proof: list[bytes], extra: bytes | None) -> None:
    receipt = Receipt(index=index, proof=tuple(proof), checkpoint=CHECKPOINT, extra=extra)
    assert parse_receipt(format_receipt(receipt)) == receipt
