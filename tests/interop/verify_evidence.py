#!/usr/bin/env python3
"""Verifies an evidence file offline: python verify_evidence.py EVIDENCE POLICY

Written from specs/formats.md, "Disclosure and evidence", and the C2SP pages it names, to show that a stranger can. Shares no
code with translog; needs only cryptography. Prints what is proven as JSON, or says why not and exits with 1.
"""

import hashlib
import json
import re
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

NAME = r"([a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?)"
ENTRY = rf'{{"translog":"event/1","member":"{NAME}","stream":"{NAME}","seq":(0|[1-9]\d*),"numbered":"(sender|log)",'
ENTRY += r'"received_at":(0|[1-9]\d*),"root":"([\w+/]{43}=)"}'
RECEIPT = r"c2sp.org/tlog-proof@v1\n(?:extra .*\n)?index (0|[1-9]\d{0,18})((?:\n.{44}){0,63})\n\n(.*)"
Key = tuple[str, bytes, bytes]


def need(holds: object, why: str) -> None:
    if not holds:
        raise ValueError(why)


def groups(pattern: str, text: str, flags: re.RegexFlag = re.ASCII) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text, flags)
    if found is None:
        raise ValueError(f"not {pattern[:40]}")
    return found.groups()


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def b64(text: str, size: int | None = None) -> bytes:
    data = b64decode(text, validate=True)
    need(b64encode(data).decode() == text and size in (None, len(data)), "base64")
    return data


def hashes(proof: list[str]) -> list[bytes]:
    return [b64(value, 32) for value in proof]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def strict(text: str) -> Any:
    """I-JSON: no key twice, no number beyond 2^53-1 or a double, no half of a surrogate pair; nested at most 120 deep."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len(dict(pairs)) == len(pairs), "a key twice")
        return dict(pairs)

    def check(value: Any, depth: int) -> None:
        need(depth <= 120 and not (isinstance(value, int) and abs(value) >= 2**53), "a number too large, or nested too deep")
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(inner, depth + isinstance(inner, dict | list))

    value = json.loads(text, object_pairs_hook=unique)
    check(value, 1)
    need(compact(value).encode() and text == text.strip(), "space around")
    return value


def root_of(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """The root that an inclusion proof leads to, RFC 6962 section 2.1.1."""
    need(0 <= index < size and bool(proof) == (size > 1), "an inclusion proof of the wrong length")
    if size == 1:
        return leaf
    left = 1 << (size - 1).bit_length() - 1
    if index < left:
        return sha(b"\1", root_of(leaf, index, left, proof[:-1]), proof[-1])
    return sha(b"\1", proof[-1], root_of(leaf, index - left, size - left, proof[:-1]))


def roots_of(root: bytes | None, old: int, new: int, proof: list[bytes]) -> tuple[bytes, bytes]:
    """The old and the new root that a consistency proof leads to, RFC 6962 section 2.1.2."""
    if old == new:
        need(len(proof) == (root is None), "a consistency proof of the wrong length")
        return (root or proof[0],) * 2
    left = 1 << (new - 1).bit_length() - 1
    if old <= left:
        first, second = roots_of(root, old, left, proof[:-1])
        return first, sha(b"\1", second, proof[-1])
    first, second = roots_of(None, old - left, new - left, proof[:-1])
    return sha(b"\1", proof[-1], first), sha(b"\1", proof[-1], second)


def parse_key(vkey: str) -> Key:
    name, key_id, key = vkey.split("+", 2)
    need(sha(name.encode(), b"\n", b64(key))[:4].hex() == key_id and b64(key)[0] in (1, 4, 6), "not a vkey known here")
    return name, bytes.fromhex(key_id), b64(key)


def parse_checkpoint(note: str) -> tuple[str, int, bytes, str, list[str]]:
    """Origin, size, root, text and signature lines."""
    text, signatures = note.rsplit("\n\n", 1)
    origin, size, root, *extensions = text.split("\n")
    groups(r"0|[1-9]\d{0,18}", size)
    need(origin and all(extensions) and signatures.endswith("\n"), "not a checkpoint")
    return origin, int(size), b64(root, 32), text + "\n", signatures[:-1].split("\n")


def open_checkpoint(note: str, policy: str) -> tuple[str, int, bytes]:
    """Origin, size and root, if the policy accepts the checkpoint. https://c2sp.org/tlog-policy"""
    origin, size, root, text, lines = parse_checkpoint(note)

    def is_signed_by(key: Key) -> bool:
        """https://c2sp.org/tlog-cosignature"""
        name, key_id, kind, public = key[0], key[1], key[2][0], key[2][1:]
        found = [b64(line.split(" ")[2]) for line in lines if line.startswith(f"\u2014 {name} ")]
        for payload in [data[4:] for data in found if data[:4] == key_id]:
            stamp = payload[:8]
            if kind == 6:
                names = [bytes([len(value.encode())]) + value.encode() for value in (name, origin)]
                signed = b"".join([b"subtree/v1\n\0", names[0], stamp, names[1], bytes(8), size.to_bytes(8, "big"), root])
                MLDSA44PublicKey.from_public_bytes(public).verify(payload[8:], signed)
            else:
                time = f"cosignature/v1\ntime {int.from_bytes(stamp, 'big')}\n" if kind == 4 else ""
                Ed25519PublicKey.from_public_bytes(public).verify(payload[8 * bool(time) :], (time + text).encode())
        return any(data[:4] == key_id for data in found)

    kinds, satisfied, quorum = set(), {"none"}, ""
    for words in map(str.split, policy.split("\n")):
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "log":
            key = parse_key(words[1])
            kinds |= {key[2][0]} if key[0] == origin and is_signed_by(key) else set()
        elif words[0] == "witness":
            satisfied |= {words[1]} if is_signed_by(parse_key(words[2])) else set()
        elif words[0] == "group":
            threshold = {"any": 1, "all": len(words) - 3}.get(words[2]) or int(words[2])
            satisfied |= {words[1]} if len(satisfied.intersection(words[3:])) >= threshold else set()
        else:
            need(words[0] == "quorum" and not quorum, "not a policy known here")
            quorum = words[1]
    need(kinds and (1 in kinds or text.count("\n") == 3), "not signed by the log")
    need(quorum in satisfied and (size or root == sha()), "not cosigned as the policy asks, or not the empty tree")
    return origin, size, root


def verify(data: bytes, policy: str) -> dict[str, Any]:
    """What the evidence proves."""
    document = strict(data.decode())
    optional = [key for key in ("not_before", "stream") if key in document]
    need(list(document) == ["translog", "entry", "disclosures", "receipt", *optional], "a key too many, or missing")
    need(document["translog"] == "evidence/1" and compact(document).encode() == data, "another version or spelling")
    need(all(list(document[key]) == ["checkpoint", "proof"] for key in optional), "a linked checkpoint")
    # The policy accepts the receipt's checkpoint, and the receipt proves the entry in it.
    number, proof, note = groups(RECEIPT, document["receipt"], re.ASCII | re.DOTALL)
    origin, size, root = open_checkpoint(note, policy)
    entry, index = b64(document["entry"]), int(number)
    need(root_of(sha(b"\0", entry), index, size, hashes(proof.split("\n")[1:])) == root, "the entry is not in the log")
    member, stream, seq, numbered, received_at, entry_root = groups(ENTRY, entry.decode())
    need(max(int(seq), int(received_at)) < 2**53, "a number too large")
    # Leaf 0 says of which log, member and stream the event is, and what its fields are called.
    names: list[str] = []
    shown: dict[str, Any] = {}
    last, count = -1, document["disclosures"][0]["of"]
    for item in document["disclosures"]:
        need(list(item) == ["leaf", "of", "salt", "text", "proof"], "a disclosure")
        need(type(item["leaf"]) is int and type(item["of"]) is int, "a disclosure")
        leaf = item["leaf"]
        need(last < leaf < item["of"] == count < 2**16 and (last >= 0 or leaf == 0), f"leaf {leaf} is out of place")
        found = root_of(sha(b"\0", b64(item["salt"], 16), item["text"].encode()), leaf, count, hashes(item["proof"]))
        need(sha(b"\2", count.to_bytes(2, "big"), found) == b64(entry_root), f"leaf {leaf} is not what was logged")
        name, value = strict(item["text"])
        if leaf == 0:
            names = value["names"]
            bound = {"v": 1, "origin": origin, "member": member, "stream": stream, "names": names}
            need(item["text"] == compact(["translog", bound]) and {str} >= set(map(type, names)), "leaf 0 disagrees")
            need(len(set(names)) == len(names) == count - 1, "leaf 0 has a name twice, or too few or many")
        else:
            need(name == names[leaf - 1], f"leaf {leaf} is not {names[leaf - 1]}")
            shown[name] = value
        last = leaf
    if "not_before" in document:
        old_origin, old, old_root = open_checkpoint(document["not_before"]["checkpoint"], policy)
        path = hashes(document["not_before"]["proof"])
        need(old_origin == origin and old <= index, "not a checkpoint from before")
        need(roots_of(old_root, old, size, path) == (old_root, root) if old else not path, "not the same log's history")
    if "stream" in document:  # its signature needs a key that no policy has
        of_stream, length, stream_root, text, _ = parse_checkpoint(document["stream"]["checkpoint"])
        need(numbered == "sender" and of_stream == f"{origin}/members/{member}/{stream}" and text.count("\n") == 3, "stream")
        leaf_hash = sha(b"\0", int(seq).to_bytes(8, "big"), b64(entry_root))
        need(root_of(leaf_hash, int(seq), length, hashes(document["stream"]["proof"])) == stream_root, "not in the stream")
    return {
        "origin": origin,
        "index": index,
        "size": size,
        "member": member,
        "stream": stream,
        "seq": int(seq),
        "numbered": numbered,
        "received_at_ms": int(received_at),
        "fields": shown,
        "withheld": [name for name in names if name not in shown],
    }


if __name__ == "__main__":
    try:
        proven = verify(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_text("utf-8"))
    except Exception as error:
        sys.exit(f"NOT PROVEN: {type(error).__name__}: {error}")
    sys.stdout.write(compact(proven) + "\n")
