"""Says in words, and in JSON, what was verified, and what the policy is worth under which it was."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from translog.core.keys import KeyType
from translog.core.policy import Cosigned, VerifiedCheckpoint
from translog.core.quorum import PolicyWorth
from translog.core.wire import encode_base64, printable

_YEAR_9999_S = 253_402_300_799


def format_time(time_s: int) -> str:
    """RFC 3339 in UTC; times past the year 9999 as seconds."""
    if time_s > _YEAR_9999_S:
        return f"{time_s} seconds after 1970"
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_checkpoint(verified: VerifiedCheckpoint, *, unasked: Collection[str] = ()) -> list[str]:
    """Lines for people: who signed, who cosigned, when. `unasked` are the policy's names of witnesses that its quorum does not
    count."""
    head = verified.checkpoint
    lines = [f"{printable(head.origin)}, {head.size} entries, root {encode_base64(head.root)}"]
    lines += [f"  signed by {_who(item)}" for item in verified.signed]
    lines += [
        f"  cosigned by {_who(item)}" + (", whom the policy does not ask for" if item.name in unasked else "")
        for item in verified.cosigned
    ]
    if not verified.cosigned:
        lines.append("  cosigned by nobody the policy lists: only the log's operator vouches for it")
    return lines


def _who(item: Cosigned) -> str:
    strength = ", post-quantum" if _is_post_quantum(item) else ""
    when = "" if item.time_s is None else f" at {format_time(item.time_s)}"
    return f"{plain_name(item.name)} ({item.vkey.type.label}{strength}){when}"


def _is_post_quantum(item: Cosigned) -> bool:
    return item.vkey.type is KeyType.COSIGNATURE_MLDSA44


def plain_name(name: str) -> str:
    """A name out of a policy, whose octets above ASCII may be anything, in ASCII."""
    return name.encode("ascii", "backslashreplace").decode()


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
    return {
        "name": plain_name(item.name),
        "vkey": str(item.vkey),
        "algorithm": item.vkey.type.label,
        "post_quantum": _is_post_quantum(item),
        "time_s": item.time_s,
    }


def describe_worth(worth: PolicyWorth) -> str:
    """What it would take to show different people different trees, in one line."""
    if worth.split is None or worth.split_quantum is None:
        return "the policy asks for no witnesses: the log's operator alone could show a split view"
    line = f"a split view would take {_count(worth.split)}"
    if worth.uncounted:
        line = f"a split view would take at least {_count(worth.split)}"
    if len(worth.split_quantum) < len(worth.split):
        line += f", or {len(worth.split_quantum) or 'none'} where Ed25519 can be forged"
    return line


def _count(witnesses: Sequence[str]) -> str:
    if not witnesses:
        return "no dishonest witness"
    return "1 dishonest witness" if len(witnesses) == 1 else f"{len(witnesses)} dishonest witnesses"


def worth_document(worth: PolicyWorth) -> dict[str, Any]:
    """What a policy is worth, as a JSON object. Witnesses are named as in their vkeys, keys as the policy names them."""
    return {
        "witnesses": worth.witnesses,
        "split": worth.split,
        "split_quantum": worth.split_quantum,
        "stop": worth.stop,
        "views": worth.views,
        "post_quantum": [plain_name(name) for name in worth.post_quantum],
        "classic": [plain_name(name) for name in worth.classic],
        "unused": [plain_name(name) for name in worth.unused],
        "repeated": worth.repeated,
        "uncounted": worth.uncounted,
    }
