"""Values of a program made JSON, for events that must not be lost for an odd value in them.

Rules: what JSON has no type for becomes text (objects, bytes, numbers that are not finite, and keys); what UTF-8 has no bytes
for is escaped (lone surrogates); depth and the length of each text are bounded, and what is cut off is said.
"""

import math
from collections.abc import Mapping
from typing import Any

TEXT_CHARS_MAX = 64 * 1024
"""Of any text within a value."""
_DEPTH_MAX = 16
_INTEGER_BITS_MAX = 1_024
"""Longer integers become hexadecimal text: Python refuses to write the decimal digits of very long ones."""


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON: what JSON has no type for, and what is nested below _DEPTH_MAX, as its text. Raises what the value's
    own methods raise."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _INTEGER_BITS_MAX else clip(hex(value))
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < _DEPTH_MAX and isinstance(value, Mapping):
        return {_text(name): plain(item, depth + 1) for name, item in value.items()}
    if depth < _DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth + 1) for item in value]
    return _text(value)


def clip(text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Fit for JSON, of at most so many characters before escapes; how many were cut off is said."""
    clipped = text if len(text) <= chars_max else f"{text[:chars_max]}… ({len(text) - chars_max} more)"
    return clipped.encode("utf-8", "backslashreplace").decode()


def _text(value: Any) -> str:
    try:
        return clip(str(value))
    except RecursionError:
        return f"<{type(value).__name__}, nested too deeply>"
