"""Receipts: tlog-proof files, which prove one entry offline to whoever holds a policy.

    c2sp.org/tlog-proof@v1
    extra <base64>                 optional, vouched for by nobody
    index <decimal>
    <hash, base64>                 the inclusion proof, leaf's sibling first: none in a tree of size 1
    <empty line>
    <checkpoint: a signed note>

Rules: a receipt carries neither the entry nor the policy; what was parsed formats back to the same bytes.
https://c2sp.org/tlog-proof
"""

from collections.abc import Container
from dataclasses import dataclass

from translog.core.merkle import verify_inclusion
from translog.core.note import NOTE_BYTES_MAX, parse_note
from translog.core.policy import Policy, VerifiedCheckpoint, verify_checkpoint
from translog.core.wire import HASH_BYTES, decode_base64, decode_text, encode_base64, parse_decimal
from translog.errors import MalformedError

HEADER = "c2sp.org/tlog-proof@v1"
PROOF_HASHES_MAX = 63
EXTRA_BYTES_MAX = 65_536
"""Most bytes of `extra` read; we write none."""
RECEIPT_BYTES_MAX = NOTE_BYTES_MAX + 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A parsed receipt, nothing of it verified. `checkpoint` is the note's bytes."""

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedReceipt:
    """The entry is at `index` in the tree of a checkpoint that the policy accepts."""

    index: int
    checkpoint: VerifiedCheckpoint


def parse_receipt(data: bytes, *, parsed: Container[bytes] = ()) -> Receipt:
    """The parts of a receipt, unverified, its checkpoint a well-formed note. Raises MalformedError.

    `parsed` are notes known to be well-formed, such as the verified checkpoints that many receipts share: they are not
    parsed again, which would be most of the work.
    """
    if len(data) > RECEIPT_BYTES_MAX:
        raise MalformedError(f"a receipt of {len(data)} bytes: at most {RECEIPT_BYTES_MAX} are read")
    head, separator, note = data.partition(b"\n\n")
    is_parsed = note in parsed
    text = decode_text(head if is_parsed else data, what="the receipt")
    lines = text.partition("\n\n")[0].split("\n")
    if lines[0] != HEADER or not separator:
        raise MalformedError(f"not a receipt: it must start with {HEADER} and have an empty line before the checkpoint")
    extra = None
    position = 1
    if len(lines) > position and lines[position].startswith("extra "):
        extra = decode_base64(lines[position].removeprefix("extra "))
        if len(extra) > EXTRA_BYTES_MAX:
            raise MalformedError(f"more than {EXTRA_BYTES_MAX} extra bytes in the receipt")
        position += 1
    if len(lines) <= position or not lines[position].startswith("index "):
        raise MalformedError("the receipt has no index line")
    index = parse_decimal(lines[position].removeprefix("index "))
    hashes = lines[position + 1 :]
    if len(hashes) > PROOF_HASHES_MAX:
        raise MalformedError(f"more than {PROOF_HASHES_MAX} hashes in the receipt")
    proof = tuple(decode_base64(line, size=HASH_BYTES) for line in hashes)
    if not is_parsed:
        parse_note(note)
    return Receipt(index=index, proof=proof, checkpoint=note, extra=extra)


def format_receipt(receipt: Receipt) -> bytes:
    """The bytes of a tlog-proof file."""
    lines = [HEADER]
    if receipt.extra is not None:
        lines.append(f"extra {encode_base64(receipt.extra)}")
    lines += [f"index {receipt.index}", *(encode_base64(value) for value in receipt.proof), "", ""]
    return "\n".join(lines).encode() + receipt.checkpoint


def verify_receipt(receipt: Receipt, *, leaf_hash: bytes, policy: Policy) -> VerifiedReceipt:
    """Raises what `verify_checkpoint` raises, or InclusionError unless the leaf is at the receipt's index."""
    return verify_receipt_under(receipt, leaf_hash=leaf_hash, checkpoint=verify_checkpoint(receipt.checkpoint, policy))


def verify_receipt_under(receipt: Receipt, *, leaf_hash: bytes, checkpoint: VerifiedCheckpoint) -> VerifiedReceipt:
    """`verify_receipt` where many receipts share a checkpoint: the caller passes what `verify_checkpoint` made of
    `receipt.checkpoint`. Costs one hash per hash of the proof. Raises InclusionError."""
    head = checkpoint.checkpoint
    verify_inclusion(leaf_hash=leaf_hash, index=receipt.index, size=head.size, proof=receipt.proof, root=head.root)
    return VerifiedReceipt(index=receipt.index, checkpoint=checkpoint)
