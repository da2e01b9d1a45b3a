"""The bytes of tlog-witness, and what a checkpoint must be to follow the one that was cosigned last.

    old <size>                          request of add-checkpoint
    <base64 of a hash>                  0 to 63 lines
    <empty line>
    <checkpoint, signed by its log>

Rules: one spelling per request and answer, so what was parsed formats back to the same bytes; a proof is verified against the
root that was stored, never against one from a request; nothing here verifies signatures. https://c2sp.org/tlog-witness
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from translog.core.checkpoint import Checkpoint
from translog.core.merkle import EMPTY_ROOT, verify_consistency
from translog.core.note import Signature, format_signature, parse_signature
from translog.core.wire import HASH_BYTES, decode_base64, decode_text, encode_base64, parse_decimal, split_lines
from translog.errors import ConsistencyError, MalformedError, OldSizeError

REQUEST_BYTES_MAX = 128 * 1024
"""Largest request read: 63 hashes, and a checkpoint with more than 30 ML-DSA-44 lines."""
PROOF_HASHES_MAX = 63
SIZE_MEDIA = "text/x.tlog.size"
"""Content type of the body that goes with a 409: the size, see `format_size`."""
ANSWER_BYTES_MAX = 64 * 1024
"""Largest answer read: 16 ML-DSA-44 lines with long names take less."""
ANSWER_SIGNATURES_MAX = 16

_OLD = "old "


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """A request to cosign: `proof` leads from the tree of size `old` to that of the checkpoint in `note`, which is as the
    sender wrote it, not parsed yet."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """The checkpoint of a log that was cosigned last, at `time_s` (POSIX seconds). `note` has the log's lines that verified
    and the witness's own."""

    size: int
    root: bytes
    time_s: int
    note: bytes


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """The parts of a request; the note is not looked into. Raises MalformedError."""
    if len(body) > REQUEST_BYTES_MAX:
        raise MalformedError(f"a request of {len(body)} bytes: at most {REQUEST_BYTES_MAX} are read")
    head, separator, note = body.partition(b"\n\n")
    if not separator or not note:
        raise MalformedError("no checkpoint after an empty line")
    first, *hashes = decode_text(head, what="the request").split("\n")
    if not first.startswith(_OLD):
        raise MalformedError("the request does not begin with a line `old <size>`")
    if len(hashes) > PROOF_HASHES_MAX:
        raise MalformedError(f"a proof of {len(hashes)} hashes: at most {PROOF_HASHES_MAX} are read")
    return AddCheckpoint(
        old=parse_decimal(first.removeprefix(_OLD)),
        proof=tuple(decode_base64(line, size=HASH_BYTES) for line in hashes),
        note=note,
    )


def format_add_checkpoint(request: AddCheckpoint) -> bytes:
    """The body of a request. Raises MalformedError if it would not be read: a proof or a note that is too long."""
    lines = [f"{_OLD}{request.old}", *map(encode_base64, request.proof)]
    body = "\n".join(lines).encode() + b"\n\n" + request.note
    if parse_add_checkpoint(body) != request:
        raise MalformedError("this cannot be a request: it would be read as another one")
    return body


def parse_cosignatures(body: bytes) -> tuple[Signature, ...]:
    """The signature lines of an answer, none of them verified. Raises MalformedError, also for none or more than 16."""
    if len(body) > ANSWER_BYTES_MAX:
        raise MalformedError(f"an answer of {len(body)} bytes: at most {ANSWER_BYTES_MAX} are read")
    lines = split_lines(decode_text(body, what="the answer"))
    if len(lines) > ANSWER_SIGNATURES_MAX:
        raise MalformedError(f"an answer of {len(lines)} lines: at most {ANSWER_SIGNATURES_MAX} are read")
    return tuple(parse_signature(line) for line in lines)


def format_cosignatures(signatures: Iterable[Signature]) -> bytes:
    """The body of an answer."""
    return "".join(map(format_signature, signatures)).encode()


def parse_size(body: bytes) -> int:
    """The size in the body of a 409. Raises MalformedError."""
    size, newline, rest = body[:64].decode("ascii", "replace").partition("\n")
    if not newline or rest:
        raise MalformedError("not one line with a size")
    return parse_decimal(size)


def format_size(size: int) -> bytes:
    """The body of a 409."""
    return b"%d\n" % size


def origin_hash(origin: str) -> str:
    """What a log is called in URLs: SHA-256 of its origin, in hex."""
    return sha256(origin.encode()).hexdigest()


def monitoring_path(origin: str) -> str:
    """Where a witness serves the checkpoint of a log, below its monitoring prefix."""
    return f"{origin_hash(origin)}/checkpoint"


def require_successor(request: AddCheckpoint, checkpoint: Checkpoint, *, stored: Cosigned | None) -> None:
    """Whether a checkpoint, whose signature was verified, may follow the one that was cosigned last (None for none).

    Raises, in this order: MalformedError for an old size above the checkpoint's; OldSizeError for one that is not that of
    `stored`; ConsistencyError for a tree of size 0 with a root of something, a proof where none can be, a proof that does not
    lead from the stored root to the checkpoint's, or another root at the same size.
    """
    if request.old > checkpoint.size:
        raise MalformedError(f"the old size {request.old} is above the checkpoint's, {checkpoint.size}")
    known = stored.size if stored else 0
    if request.old != known:
        raise OldSizeError(f"the last checkpoint cosigned is of size {known}, not {request.old}", size=known)
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise ConsistencyError("the checkpoint is of size 0, but its root is not that of the empty tree")
    if request.proof and request.old in (0, checkpoint.size):
        raise ConsistencyError(f"no proof leads from size {request.old} to size {checkpoint.size}, but the request has one")
    if stored is not None and stored.size == checkpoint.size:
        if checkpoint.root != stored.root:
            raise ConsistencyError(f"another root was cosigned at size {stored.size}: the log has shown two trees")
    elif stored is not None and stored.size > 0:
        verify_consistency(
            old=stored.size, old_root=stored.root, new=checkpoint.size, new_root=checkpoint.root, proof=request.proof
        )
