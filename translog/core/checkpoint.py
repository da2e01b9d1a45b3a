"""Checkpoints (signed tree heads): the text that a log signs.

    <origin>
    <tree size, decimal>
    <root hash, base64>
    <extension lines, if any>

Rules: no empty line, every line ends in a newline, one spelling per checkpoint. We read extension lines and never write
any. https://c2sp.org/tlog-checkpoint
"""

from dataclasses import dataclass

from translog.core.wire import HASH_BYTES, decode_base64, encode_base64, parse_decimal, split_lines
from translog.errors import MalformedError

ORIGIN_BYTES_MAX = 255
"""The ML-DSA-44 cosignature frames the origin with an 8-bit length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head of the log `origin`: `size` entries under the 32-byte `root`."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()


def parse_checkpoint(text: str) -> Checkpoint:
    """The tree head in the text of a note. Raises MalformedError. Whether the root of size 0 is that of the empty tree is
    for whoever verifies the checkpoint."""
    lines = split_lines(text)
    if len(lines) < 3 or not all(lines):
        raise MalformedError("not a checkpoint: it needs origin, size and root, and no empty line")
    origin, size, root, *extensions = lines
    if len(origin.encode()) > ORIGIN_BYTES_MAX:
        raise MalformedError(f"the origin is longer than {ORIGIN_BYTES_MAX} bytes")
    return Checkpoint(
        origin=origin,
        size=parse_decimal(size),
        root=decode_base64(root, size=HASH_BYTES),
        extensions=tuple(extensions),
    )


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """The text to sign."""
    lines = (checkpoint.origin, str(checkpoint.size), encode_base64(checkpoint.root), *checkpoint.extensions)
    return "".join(f"{line}\n" for line in lines)
