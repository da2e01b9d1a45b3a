"""Strict decimal, base64 and line parsing, quoting for messages of what was not parsed, and nothing else.

Rules: one accepted spelling per value, so that formatting what was parsed gives the same text. Python's own int(),
b64decode() and splitlines() accept far more (tests/core/test_wire.py lists what) and are not used on wire text elsewhere.
"""

import binascii
import re

from translog.errors import MalformedError

SIZE_MAX = 2**63 - 1
"""Largest tree size, index or timestamp on the wire: the reference implementations hold them in a signed 64-bit integer."""

HASH_BYTES = 32
"""SHA-256."""

_CONTROL = bytes(value for value in range(0x20) if value != 0x0A)
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def parse_decimal(text: str, *, maximum: int = SIZE_MAX) -> int:
    """The integer 0 <= n <= maximum written in ASCII digits without sign, space or leading zero."""
    if _DECIMAL.fullmatch(text) is None:
        raise MalformedError(f"not a plain decimal number: {clip(text)}")
    value = int(text)
    if value > maximum:
        raise MalformedError(f"number out of range: {clip(text)} is above {maximum}")
    return value


def decode_base64(text: str, *, size: int | None = None) -> bytes:
    """Bytes of standard, padded, canonical base64 (RFC 4648 section 4); exactly `size` bytes where given."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error, or not ASCII
        raise MalformedError(f"not base64: {clip(text)}") from None
    if encode_base64(data) != text:
        raise MalformedError(f"not canonical base64: {clip(text)}")
    if size is not None and len(data) != size:
        raise MalformedError(f"expected {size} bytes of base64, got {len(data)}")
    return data


def encode_base64(data: bytes) -> str:
    """Standard, padded base64."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def split_lines(text: str) -> list[str]:
    """The lines of `text`, each of which must end in a newline; U+2028 and its like are ordinary characters."""
    if not text.endswith("\n"):
        raise MalformedError("the last line does not end in a newline")
    return text[:-1].split("\n")


def decode_text(data: bytes, *, what: str) -> str:
    """`data` as UTF-8 without control characters other than newline (so no CR, no TAB, no NUL)."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(f"{what} is not UTF-8 at byte {error.start}") from None
    if len(data.translate(None, delete=_CONTROL)) != len(data):  # a tenth of what a regular expression takes
        raise MalformedError(f"{what} contains a control character other than newline")
    return text


def clip(text: str) -> str:
    """`text` quoted and shortened, fit for an error message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def printable(text: str) -> str:
    """`text` on one line and fit for a terminal: what is not printable is escaped, so control characters (ESC, BEL, newlines,
    C1), overrides of the writing direction, and lone surrogates."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
