"""Says in words, and in JSON, what was verified."""

from datetime import UTC, datetime
from typing import Any

from translog.core.policy import Cosigned, VerifiedCheckpoint
from translog.core.wire import encode_base64, printable

_YEAR_9999_S = 253_402_300_799


def format_time(time_s: int) -> str:
    """RFC 3339 in UTC; times past the year 9999 as seconds."""
    if time_s > _YEAR_9999_S:
        return f"{time_s} seconds after 1970"
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_checkpoint(verified: VerifiedCheckpoint) -> list[str]:
    """Lines for people: who signed, who cosigned, when."""
    head = verified.checkpoint
    lines = [f"{printable(head.origin)}, {head.size} entries, root {encode_base64(head.root)}"]
    lines += [f"  signed by {_who(item)}" for item in verified.signed]
    lines += [f"  cosigned by {_who(item)}" for item in verified.cosigned]
    if not verified.cosigned:
        lines.append("  cosigned by nobody the policy lists: only the log's operator vouches for it")
    return lines


def _who(item: Cosigned) -> str:
    name = item.name.encode("ascii", "backslashreplace").decode()
    return f"{name} ({item.vkey.type.label})" + ("" if item.time_s is None else f" at {format_time(item.time_s)}")


def checkpoint_document(verified: VerifiedCheckpoint) -> dict[str, Any]:
    """The same as a JSON object."""
    head = verified.checkpoint
    return {
        "origin": head.origin,
        "size": head.size,
        "root": encode_base64(head.root),
        "signed": [_document(item) for item in verified.signed],
        "cosigned": [_document(item) for item in verified.cosigned],
    }


def _document(item: Cosigned) -> dict[str, Any]:
    name = item.name.encode("ascii", "backslashreplace").decode()
    return {"name": name, "vkey": str(item.vkey), "algorithm": item.vkey.type.label, "time_s": item.time_s}
