"""Evidence that holds, and every way of forging evidence that we could think of. Shared by whatever verifies evidence.

Rules: seals, trees and documents are made here by hand, from the page and not from translog.events, so that anything can be
sealed and logged properly, also what the package would refuse to seal. All keys are fixed. Entry 4 of 7 is what evidence is
about; the checkpoint from before it is of size 3.
"""

import hashlib
import itertools
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from core.merkle_oracle import Oracle

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.note import sign_note
from translog.core.proof import Receipt, format_receipt
from translog.errors import (
    ConsistencyError,
    DisclosureError,
    InclusionError,
    MalformedError,
    QuorumError,
    SignatureError,
    TranslogError,
)

ORIGIN = "log.example.org/audit"
MEMBER, STREAM, SEQ = "acme", "k8s-prod", 2
INDEX, SIZE, OLD_SIZE = 4, 7, 3
TIME_S = 1_763_750_100
OLD_TIME_S = TIME_S - 600
SEED = bytes(range(64, 96))

Document = dict[str, Any]


def _skey(name: str, kind: KeyType, first: int) -> SKey:
    return SKey(name=name, type=kind, seed=bytes((first + n) % 256 for n in range(32)))


ED25519 = _skey(ORIGIN, KeyType.ED25519, 0)
MLDSA44 = _skey(ORIGIN, KeyType.COSIGNATURE_MLDSA44, 32)
WITNESS = _skey("witness.example/ed25519", KeyType.COSIGNATURE_ED25519, 96)
WITNESS_MLDSA = _skey("witness.example/mldsa44", KeyType.COSIGNATURE_MLDSA44, 128)
STRANGER = _skey(ORIGIN, KeyType.ED25519, 160)
SENDER = _skey(f"{ORIGIN}/members/{MEMBER}/{STREAM}", KeyType.ED25519, 192)
SIGNERS = (ED25519, MLDSA44, WITNESS, WITNESS_MLDSA)

POLICIES = {
    "mldsa": f"log {MLDSA44.vkey} https://log.example.org/\nquorum none\n",
    "classic": f"# Ed25519 only\nlog {ED25519.vkey}\nquorum none\n",
    "both": f"log {ED25519.vkey}\nlog {MLDSA44.vkey}\nquorum none\n",
    "witness": f"log {MLDSA44.vkey}\nwitness paul {WITNESS.vkey} https://paul.example/\nquorum paul\n",
    "group": (
        f"log {MLDSA44.vkey}\nwitness paul {WITNESS.vkey}\nwitness mary {WITNESS_MLDSA.vkey}\n"
        "group both all paul mary\ngroup outer any both\nquorum outer\n"
    ),
}
POLICY = POLICIES["group"]
"""What forgeries are tried on: the policy that asks the most."""

EVENT: Document = {
    "metadata": {"version": "1.8.0", "uid": "b1946ac9"},
    "time": 1_763_750_000_000,
    "actor": {"user": {"uid": "alice", "email_addr": "alice@corp.example"}},
    "api": {"operation": "deployment.create"},
    "message": 'größe 🌲 \u2028 "quoted" \\ tab\t',
    "score": 0.5,
    "status": None,
}
OTHER_EVENT: Document = {**EVENT, "actor": {"user": {"uid": "mallory"}}}
NAMES = list(EVENT)
SHOWN = ("actor", "message")


FOREIGN_FIELDS = (b'["a", 1.50E+3 ]', b'["\\u0062",{"\\ud83c\\udf32":[-0.0,true]}]', b'["\xef\xbf\xbf",""]')
"""As other programs may spell them."""


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def header_of(names: Sequence[Any], **changes: Any) -> bytes:
    """Text 0, with any of its members changed."""
    return dump(["translog", {"v": 1, "origin": ORIGIN, "member": MEMBER, "stream": STREAM, "names": list(names), **changes}])


def texts_of(event: Mapping[str, Any]) -> list[bytes]:
    return [header_of(list(event)), *(dump([name, value]) for name, value in event.items())]


class Tree:
    """An event's tree, over texts that may be anything."""

    def __init__(self, texts: Sequence[bytes], seed: bytes = SEED) -> None:
        stream = hashlib.shake_256(b"translog/salts/1" + seed).digest(16 * len(texts))
        self.texts = texts
        self.salts = [stream[16 * n : 16 * n + 16] for n in range(len(texts))]
        self.oracle = Oracle([salt + text for salt, text in zip(self.salts, texts, strict=True)])
        self.root = sha(b"\x02" + len(texts).to_bytes(2, "big") + self.oracle.mth(0, len(texts)))

    def disclose(self, leaf: int) -> Document:
        return {
            "leaf": leaf,
            "of": len(self.texts),
            "salt": b64(self.salts[leaf]),
            "text": self.texts[leaf].decode(),
            "proof": [b64(value) for value in self.oracle.path(leaf, 0, len(self.texts))],
        }


def entry_of(root: bytes, /, **changes: Any) -> bytes:
    fields = {
        "translog": "event/1",
        "member": MEMBER,
        "stream": STREAM,
        "seq": SEQ,
        "numbered": "sender",
        "received_at": 1_000 * TIME_S - 77,
        "root": b64(root),
    }
    return dump({**fields, **changes})


@cache
def _sign(text: str, signers: tuple[SKey, ...], time_s: int) -> bytes:
    """Once for each text, since ML-DSA signatures of one text differ."""
    return sign_note(text, [KeySigner(skey) for skey in signers], time_s=time_s)


class Log:
    """Seven entries, the one at INDEX as given."""

    def __init__(self, entry: bytes) -> None:
        self.entry = entry
        self.oracle = Oracle([entry if n == INDEX else b"entry %d" % n for n in range(SIZE)])

    def note(self, size: int, *signers: SKey, time_s: int = TIME_S, origin: str = ORIGIN) -> bytes:
        text = format_checkpoint(Checkpoint(origin=origin, size=size, root=self.oracle.mth(0, size) if size else sha(b"")))
        return _sign(text, signers or SIGNERS, time_s)

    def receipt(self, index: int = INDEX, note: bytes = b"") -> str:
        proof = tuple(self.oracle.path(index, 0, SIZE))
        return format_receipt(Receipt(index=index, proof=proof, checkpoint=note or self.note(SIZE))).decode()

    def before(self, size: int = OLD_SIZE, note: bytes = b"") -> Document:
        proof = self.oracle.proof(size, 0, SIZE) if size else []
        return {"checkpoint": (note or self.note(size, time_s=OLD_TIME_S)).decode(), "proof": [b64(value) for value in proof]}


def stream_of(
    root: bytes,
    seq: int = SEQ,
    size: int = 5,
    *,
    origin: str = SENDER.name,
    skey: SKey = SENDER,
    extensions: tuple[str, ...] = (),
) -> Document:
    """A stream checkpoint in whose tree the event root is at `seq`."""
    oracle = Oracle([n.to_bytes(8, "big") + (root if n == seq else sha(b"%d" % n)) for n in range(size)])
    text = format_checkpoint(Checkpoint(origin=origin, size=size, root=oracle.mth(0, size), extensions=extensions))
    note = _sign(text, (skey,), TIME_S)
    return {"checkpoint": note.decode(), "proof": [b64(value) for value in oracle.path(seq, 0, size)]}


def evidence_of(
    texts: Sequence[bytes],
    leaves: Sequence[int],
    *,
    with_before: bool = False,
    with_stream: bool = False,
    **entry_changes: Any,
) -> Document:
    """Evidence for texts that were sealed and logged properly, whatever they are."""
    tree = Tree(texts)
    log = Log(entry_of(tree.root, **entry_changes))
    document: Document = {
        "translog": "evidence/1",
        "entry": b64(log.entry),
        "disclosures": [tree.disclose(leaf) for leaf in leaves],
        "receipt": log.receipt(),
    }
    if with_before:
        document["not_before"] = log.before()
    if with_stream:
        document["stream"] = stream_of(tree.root)
    return document


TREE = Tree(texts_of(EVENT))
LOG = Log(entry_of(TREE.root))
SHOWN_LEAVES = (0, *(1 + NAMES.index(name) for name in SHOWN))


@cache
def _good() -> dict[str, bytes]:
    texts = texts_of(EVENT)
    everything = range(len(texts))
    documents = {
        "two fields": evidence_of(texts, SHOWN_LEAVES),
        "the header alone": evidence_of(texts, [0]),
        "every field": evidence_of(texts, everything),
        "an event without fields": evidence_of([header_of([])], [0]),
        "an event of one field": evidence_of(texts_of({"message": "hello"}), [0, 1]),
        "a checkpoint from before": evidence_of(texts, SHOWN_LEAVES, with_before=True),
        "a stream's checkpoint": evidence_of(texts, SHOWN_LEAVES, with_stream=True),
        "all there may be": evidence_of(texts, everything, with_before=True, with_stream=True),
        "numbered by the log": evidence_of(texts, SHOWN_LEAVES, numbered="log"),
        "the empty tree before": evidence_of(texts, SHOWN_LEAVES) | {"not_before": LOG.before(0)},
        "the tree just before": evidence_of(texts, SHOWN_LEAVES) | {"not_before": LOG.before(INDEX)},
        "other programs' JSON": evidence_of([header_of(["a", "b", "\uffff"]), *FOREIGN_FIELDS], range(4)),
        "the largest numbers": evidence_of(texts, SHOWN_LEAVES, seq=2**53 - 1, received_at=2**53 - 1),
    }
    return {name: dump(document) for name, document in documents.items()}


class Forgery(NamedTuple):
    """Forged evidence, the error it deserves, and a part of what that must say."""

    data: bytes
    error: type[TranslogError]
    says: str


def good() -> dict[str, bytes]:
    """Evidence that holds under every one of POLICIES, by what is special about it."""
    return dict(_good())


def base() -> Document:
    """Evidence with all its parts, to be changed."""
    document: Document = json.loads(_good()["all there may be"])
    tree = [item for item in document["disclosures"] if item["leaf"] in SHOWN_LEAVES]
    return document | {"disclosures": tree}


def _edited(change: Callable[[Document], Any]) -> bytes:
    document = base()
    change(document)
    return dump(document)


def flip(text: str, at: int = 0) -> str:
    """Base64 with one bit of what it encodes changed."""
    data = bytearray(b64decode(text))
    data[at] ^= 1
    return b64(bytes(data))


def _set(*path: str | int, to: Any) -> bytes:
    """The base with one value replaced: `to` may be a function of the old one."""

    def change(document: Document) -> None:
        inner: Any = document
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = to(inner[path[-1]]) if callable(to) else to

    return _edited(change)


def _changed_parts() -> Iterator[tuple[str, Forgery]]:
    for number, leaf in ((0, 0), (1, SHOWN_LEAVES[1]), (2, SHOWN_LEAVES[2])):
        at = ("disclosures", number)
        says = "header, leaf 0" if not leaf else f"leaf {leaf} is not what the entry commits to"
        yield f"leaf {leaf}: salt", Forgery(_set(*at, "salt", to=flip), DisclosureError, says)
        yield f"leaf {leaf}: text", Forgery(_set(*at, "text", to=lambda text: text.replace("m", "n", 1)), DisclosureError, says)
        for n in range(3):
            yield f"leaf {leaf}: proof {n}", Forgery(_set(*at, "proof", n, to=flip), DisclosureError, says)
    yield "entry: root", Forgery(_set("entry", to=lambda text: flip(text, -10)), InclusionError, "does not lead")
    entry = LOG.entry.replace(b'"seq":2', b'"seq":3')
    yield "entry: seq", Forgery(_set("entry", to=b64(entry)), InclusionError, "does not lead")
    yield "receipt: index", Forgery(_receipt("index 4", "index 5"), InclusionError, "does not lead")
    yield "receipt: root", Forgery(_set("receipt", to=_other_root), SignatureError, "")
    yield "receipt: size", Forgery(_receipt(f"{ORIGIN}\n7\n", f"{ORIGIN}\n8\n"), SignatureError, "")
    yield "receipt: origin", Forgery(_receipt(f"\n{ORIGIN}\n7", "\nlog.example.org/other\n7"), SignatureError, "lists no log")
    yield "receipt: version", Forgery(_receipt("tlog-proof@v1", "tlog-proof@v2"), MalformedError, "not a receipt")
    for skey in SIGNERS[1:]:  # the policy lists all but the first
        line = Forgery(_set("receipt", to=_spoil(skey)), SignatureError, "is not valid")
        yield f"receipt: signature of {skey.name}, {skey.type}", line


def _receipt(old: str, new: str) -> bytes:
    assert old in base()["receipt"]
    return _set("receipt", to=lambda text: text.replace(old, new, 1))


def _other_root(receipt: str) -> str:
    root = b64(LOG.oracle.mth(0, SIZE))
    assert root in receipt
    return receipt.replace(root, flip(root))


def _spoil(skey: SKey) -> Callable[[str], str]:
    """Changes the signature line of that key."""
    key_id = skey.vkey.key_id

    def change(receipt: str) -> str:
        lines = receipt.split("\n")
        for n, line in enumerate(lines):
            if line.startswith(f"\u2014 {skey.name} ") and b64decode(line.split(" ")[-1])[:4] == key_id:
                lines[n] = line.rpartition(" ")[0] + " " + flip(line.split(" ")[-1], -1)
                return "\n".join(lines)
        raise AssertionError("no such line")

    return change


def _disclosures(change: Callable[[list[Document]], list[Document]]) -> bytes:
    return _set("disclosures", to=change)


def _structure() -> Iterator[tuple[str, Forgery]]:
    disclosure = DisclosureError
    out_of_place = "out of place"
    yield "no disclosures", Forgery(_disclosures(lambda _: []), disclosure, "does not show the event's header")
    yield "leaf 0 missing", Forgery(_disclosures(lambda all_: all_[1:]), disclosure, "does not show the event's header")
    yield "leaf 0 last", Forgery(_disclosures(lambda all_: all_[1:] + all_[:1]), disclosure, "does not show the event's header")
    yield "leaf 0 twice", Forgery(_disclosures(lambda all_: all_[:1] + all_), disclosure, out_of_place)
    yield "a field twice", Forgery(_disclosures(lambda all_: [*all_, all_[-1]]), disclosure, out_of_place)
    yield "descending", Forgery(_disclosures(lambda all_: [all_[0], all_[2], all_[1]]), disclosure, out_of_place)
    other = Tree(texts_of(OTHER_EVENT))
    leaf = SHOWN_LEAVES[1]
    commits = f"leaf {leaf} is not what the entry commits to"
    yield "a field of another event", Forgery(_set("disclosures", 1, to=other.disclose(leaf)), disclosure, commits)
    yield (
        "all of another event",
        Forgery(_set("disclosures", to=[other.disclose(leaf) for leaf in SHOWN_LEAVES]), disclosure, "header, leaf 0"),
    )
    yield (
        "the same event under another seed",
        Forgery(
            _set("disclosures", to=[Tree(texts_of(EVENT), bytes(32)).disclose(leaf) for leaf in SHOWN_LEAVES]),
            disclosure,
            "header, leaf 0",
        ),
    )
    yield "a field as another leaf", Forgery(_set("disclosures", 1, "leaf", to=leaf + 1), disclosure, "is not what the entry")
    yield "leaf 0 as another", Forgery(_set("disclosures", 0, "leaf", to=1), disclosure, "does not show the event's header")
    yield "a leaf beyond the last", Forgery(_set("disclosures", 2, "leaf", to=len(NAMES) + 1), disclosure, out_of_place)
    for of in (len(NAMES), len(NAMES) + 2, 1, 2**32, 2**53 - 1):
        yield f"leaf 0 of {of}", Forgery(_set("disclosures", 0, "of", to=of), disclosure, "")
        yield f"a field of {of}", Forgery(_set("disclosures", 1, "of", to=of), disclosure, out_of_place)
    for of, hashes in ((0, 3), (-1, 3), (-4, 3), (65_536, 3), (0, 1), (65_536, 16), (-(2**40), 41)):
        header = TREE.disclose(0) | {"of": of, "proof": [b64(bytes(32))] * hashes}
        data = _set("disclosures", 0, to=header)
        yield f"leaf 0 of {of}, {hashes} hashes", Forgery(data, disclosure, f"no proof of {hashes} hashes")
    yield "a negative leaf", Forgery(_set("disclosures", 1, "leaf", to=-1), disclosure, out_of_place)


def _lengths() -> Iterator[tuple[str, Forgery]]:
    more = [b64(bytes(32))]
    for number, says in ((0, "no proof of"), (1, "the proof has")):
        at = ("disclosures", number, "proof")
        yield f"disclosure {number}: a hash too many", Forgery(_set(*at, to=lambda all_: all_ + more), DisclosureError, says)
        yield f"disclosure {number}: a hash too few", Forgery(_set(*at, to=lambda all_: all_[:-1]), DisclosureError, says)
        yield f"disclosure {number}: no hashes", Forgery(_set(*at, to=[]), DisclosureError, says)
        yield f"disclosure {number}: far too many hashes", Forgery(_set(*at, to=more * 65), MalformedError, "up to 64 hashes")
    hashes = "".join(f"{b64(value)}\n" for value in LOG.oracle.path(INDEX, 0, SIZE))
    yield "receipt: a hash too many", Forgery(_receipt(hashes, hashes + more[0] + "\n"), InclusionError, "the proof has 4")
    yield "receipt: no hashes", Forgery(_receipt(hashes, ""), InclusionError, "the proof has 0")
    yield "receipt: far too many hashes", Forgery(_receipt(hashes, (more[0] + "\n") * 64), MalformedError, "more than 63")


def _spellings() -> Iterator[tuple[str, Forgery]]:
    whole = dump(base())
    one = "one spelling"
    twice = "occurs twice"
    for path in ((), ("disclosures", 0), ("disclosures", 1), ("not_before",), ("stream",)):
        where = "/".join(map(str, path)) or "the document"

        def inner_of(document: Document, path: tuple[str | int, ...] = path) -> Document:
            inner: Any = document
            for step in path:
                inner = inner[step]
            assert isinstance(inner, dict)
            return inner

        for key, value in (("seed", b64(SEED)), ("", None), ("extra", {})):
            data = _edited(lambda document, key=key, value=value: inner_of(document).update({key: value}))  # type: ignore[misc]
            yield f"{where}: the key {key!r}", Forgery(data, MalformedError, one)

        def reverse(document: Document, inner_of: Callable[[Document], Document] = inner_of) -> None:
            inner = inner_of(document)
            for key in list(inner)[-2::-1]:
                inner[key] = inner.pop(key)

        yield f"{where}: keys in another order", Forgery(_edited(reverse), MalformedError, one)
        for key in inner_of(base()):
            if key in ("not_before", "stream"):
                continue
            data = _edited(lambda document, key=key: inner_of(document).pop(key))  # type: ignore[misc]
            yield f"{where}: without {key!r}", Forgery(data, MalformedError, f"'{key}' is missing")
            part = dump(inner_of(base()))
            double = part[:-1] + b"," + dump({key: inner_of(base())[key]})[1:]
            yield f"{where}: {key!r} twice", Forgery(whole.replace(part, double, 1), MalformedError, twice)
    yield "a space", Forgery(whole.replace(b",", b", ", 1), MalformedError, one)
    yield "indented", Forgery(json.dumps(base(), indent=1, ensure_ascii=False).encode(), MalformedError, one)
    yield "escaped beyond need", Forgery(whole.replace(b"evidence/1", b"\\u0065vidence/1"), MalformedError, one)
    yield "ASCII only", Forgery(json.dumps(base(), separators=(",", ":")).encode(), MalformedError, one)
    for name, data in (("a newline behind", whole + b"\n"), ("two documents", whole * 2), ("NUL behind", whole + b"\0")):
        yield name, Forgery(data, MalformedError, "something follows")
    for name, data in (("BOM", b"\xef\xbb\xbf" + whole), ("a space before", b" " + whole), ("cut short", whole[:-1])):
        yield name, Forgery(data, MalformedError, "not strict JSON")
    yield "UTF-16", Forgery(whole.decode().encode("utf-16"), MalformedError, "not UTF-8")
    yield "a lone surrogate", Forgery(whole.replace(b"alice", b"\\ud800", 1), MalformedError, "surrogate")


def _values() -> Iterator[tuple[str, Forgery]]:
    number = ('"1"', "1.0", "1e0", "true", "null", "[1]", "01", "+1", "-0")
    for key in ("leaf", "of"):
        for text in number:
            data = _set("disclosures", 1, key, to="@").replace(b'"@"', text.encode())
            yield f"{key}: {text}", Forgery(data, MalformedError, "")
        for text in (str(2**53), "9" * 400, "9" * 5_000, "1e400", "NaN", "-Infinity"):
            data = _set("disclosures", 1, key, to="@").replace(b'"@"', text.encode())
            yield f"{key}: {text[:20]} ({len(text)})", Forgery(data, MalformedError, "not strict JSON")
    for path in (("entry",), ("disclosures", 1, "salt"), ("disclosures", 1, "proof", 0), ("not_before", "proof", 0)):
        where = "/".join(map(str, path))
        for name, value in (("null", None), ("a number", 1), ("a list", []), ("no base64", "!"), ("no padding", "YQ")):
            yield f"{where}: {name}", Forgery(_set(*path, to=value), MalformedError, "")
    for path, size in ((("disclosures", 1, "salt"), 16), (("disclosures", 1, "proof", 0), 32), (("stream", "proof", 0), 32)):
        for length in (size - 1, size + 1, 0):
            where = f"{'/'.join(map(str, path))} of {length} bytes"
            yield where, Forgery(_set(*path, to=b64(bytes(length))), MalformedError, f"expected {size} bytes")
    # The last character of 16 bytes in base64 has four bits that say nothing.
    loose = _set("disclosures", 1, "salt", to=lambda text: text[:21] + chr(ord(text[21]) + 1) + "==")
    yield "salt in loose base64", Forgery(loose, MalformedError, "canonical")
    wrong: tuple[tuple[str, Any], ...] = (("null", None), ("a number", 1), ("an object", {}), ("empty", ""))
    for name, value in wrong:
        yield f"receipt: {name}", Forgery(_set("receipt", to=value), MalformedError, "")
        yield (
            f"text: {name}",
            Forgery(_set("disclosures", 1, "text", to=value), DisclosureError if value == "" else MalformedError, ""),
        )
        yield f"not_before: {name}", Forgery(_set("not_before", to=value), MalformedError, "")
        yield f"stream: {name}", Forgery(_set("stream", to=value), MalformedError, "")
        yield f"disclosures: {name}", Forgery(_set("disclosures", to=value), MalformedError, "'disclosures'")
        yield f"a disclosure: {name}", Forgery(_set("disclosures", 1, to=value), MalformedError, "")
    for version in ("evidence/2", "event/1", "accusation/1", ""):
        yield f"version {version!r}", Forgery(_set("translog", to=version), MalformedError, "not evidence of a version")
    for name, data in (("nothing", b""), ("{}", b"{}"), ("{", b"{"), ("[]", b"[]"), ("null", b"null"), ("a string", b'"{}"')):
        yield f"the document {name}", Forgery(data, MalformedError, "")
    for name, data in (
        ("arrays", b'{"translog":' + b"[" * 100_000),
        ("closed arrays", b'{"translog":' + b"[" * 500 + b"]" * 500 + b"}"),
        ("objects", b'{"a":' * 100_000),
        ("arrays in the evidence", _set("disclosures", to="@").replace(b'"@"', b"[" * 121 + b"]" * 121)),
    ):
        yield f"nested {name}", Forgery(data, MalformedError, "")


def _log(texts: Sequence[bytes], leaves: Sequence[int] = (0,), **entry_changes: Any) -> bytes:
    return dump(evidence_of(texts, leaves, **entry_changes))


def _sealed_badly() -> Iterator[tuple[str, Forgery]]:
    """What no honest log would take, sealed and logged all the same."""
    texts = texts_of(EVENT)
    fields = texts[1:]
    names = NAMES
    another = "for another log, member or stream"
    for key in ("origin", "member", "stream"):
        forged = [header_of(names, **{key: "elsewhere"}), *fields]
        yield f"sealed for another {key}", Forgery(_log(forged, SHOWN_LEAVES), DisclosureError, another)
        if key != "origin":
            data = _log(texts, SHOWN_LEAVES, **{key: "elsewhere"})
            yield f"logged under another {key}", Forgery(data, DisclosureError, another)
    twice = [*names[:-1], names[0]]
    yield "a name twice in the header", Forgery(_log([header_of(twice), *fields]), MalformedError, "one name")
    two = [header_of(["actor", "actor"]), dump(["actor", "alice"]), dump(["actor", "bob"])]
    yield "two fields of one name", Forgery(_log(two, [0, 2]), MalformedError, "one name")
    yield "a name too many in the header", Forgery(_log([header_of([*names, "x"]), *fields]), DisclosureError, "names 8 fields")
    yield "a name too few in the header", Forgery(_log([header_of(names[1:]), *fields]), DisclosureError, "names 6 fields")
    swapped = [texts[0], texts[2], texts[1], *texts[3:]]
    yield "fields in another order than the header", Forgery(_log(swapped, [0, 1]), DisclosureError, "but the header has")
    renamed = [texts[0], dump(["Metadata", 1]), *texts[2:]]
    yield "a field under another name", Forgery(_log(renamed, [0, 1]), DisclosureError, "but the header has")
    header = header_of(names)
    for what, bad, says in (
        ("another version", header_of(names, v=2), "version '2'"),
        ("version true", header_of(names, v=True), "one spelling"),
        ("version 1.0", header.replace(b'"v":1', b'"v":1.0'), "one spelling"),
        ("a key too many", header_of(names, seed=b64(SEED)), "one spelling"),
        ("a space", header.replace(b",", b", ", 1), "one spelling"),
        ("a duplicate key", header.replace(b'"v":1', b'"v":2,"v":1'), "occurs twice"),
        ("another order", dump(["translog", dict(reversed(json.loads(header)[1].items()))]), "one spelling"),
        ("a name that is a number", header_of([1, *names[1:]]), "lacks a part"),
        ("names that are text", header.replace(dump(names), dump("names")), "lacks a part"),
        ("an origin that is null", header_of(names, origin=None), "lacks a part"),
        ("a third element", header[:-1] + b",1]", "not a name and a value"),
        ("another name", header.replace(b"translog", b"Translog"), "not the header"),
        ("no object", dump(["translog", 1]), "not the header"),
    ):
        yield f"a header with {what}", Forgery(_log([bad, *fields]), MalformedError, says)
    yield from _bad_texts()
    not_an_event = "not that of a sealed event"
    spaced = LOG.entry.replace(b",", b", ", 1)
    yield "a respelled entry", Forgery(_respelled(spaced), MalformedError, not_an_event)
    for what, changes in (
        ("a negative seq", {"seq": -1}),
        ("a huge seq", {"seq": 2**53}),
        ("a huge time", {"received_at": 2**53}),
        ("numbered by nobody", {"numbered": "nobody"}),
        ("another kind", {"translog": "event/2"}),
        ("a member of no proper name", {"member": "Acme"}),
        ("a key too many", {"seed": b64(SEED)}),
        ("a short root", {"root": b64(TREE.root[1:])}),
    ):
        yield f"an entry with {what}", Forgery(_respelled(entry_of(TREE.root, **changes)), MalformedError, "")
    yield "an opaque entry", Forgery(_respelled(b"entry 4"), MalformedError, not_an_event)
    large = entry_of(TREE.root).ljust(65_536)
    yield "an entry larger than any", Forgery(_respelled(large), MalformedError, "at most 65535")


def _bad_texts() -> Iterator[tuple[str, Forgery]]:
    for what, text, says in (
        ("no pair", b'["x"]', "not a name and a value"),
        ("three elements", b'["x",1,2]', "not a name and a value"),
        ("an object", b'{"x":1}', "not a name and a value"),
        ("a name that is a number", b"[1,1]", "not a name and a value"),
        ("no JSON", b"x", "not strict JSON"),
        ("nothing", b"", "not strict JSON"),
        ("something behind", b'["x",1]1', "something follows"),
        ("a space behind", b'["x",1] ', "something follows"),
        ("a space before", b' ["x",1]', "not strict JSON"),
        ("a duplicate key", b'["x",{"a":1,"a":1}]', "occurs twice"),
        ("a duplicate key deep inside", b'["x",[[{"b":{"a":1,"\\u0061":2}}]]]', "occurs twice"),
        ("NaN", b'["x",NaN]', "is not JSON"),
        ("Infinity", b'["x",[Infinity]]', "is not JSON"),
        ("1e400", b'["x",1e400]', "beyond the range"),
        ("2^53", b'["x",9007199254740992]', "beyond 2^53-1"),
        ("-2^53", b'["x",[-9007199254740992]]', "beyond 2^53-1"),
        ("a number of 5,000 digits", b'["x",' + b"9" * 5_000 + b"]", "beyond 2^53-1"),
        ("half a surrogate pair", b'["x","\\ud83c"]', "half of a surrogate pair"),
        ("half a surrogate pair in a key", b'["x",{"\\udf32":1}]', "half of a surrogate pair"),
        ("a raw tab", b'["x","\t"]', "not strict JSON"),
        ("nesting too deep", b'["x",' + b"[" * 120 + b"]" * 120 + b"]", "nested too deep"),
        ("nesting far too deep", b'["x",' + b"[" * 100_000, "nested too deep"),
    ):
        data = _log([header_of(["x", "y"]), text, dump(["y", 1])], [0, 1])
        yield f"a text with {what}", Forgery(data, MalformedError, says)


def _respelled(entry: bytes) -> bytes:
    """Evidence for any entry."""
    return dump(base() | {"entry": b64(entry), "receipt": Log(entry).receipt(), "not_before": Log(entry).before()})


def _receipts() -> Iterator[tuple[str, Forgery]]:
    yield "the receipt of another entry", Forgery(_set("receipt", to=LOG.receipt(5)), InclusionError, "does not lead")
    other = Log(entry_of(Tree(texts_of(OTHER_EVENT)).root)).receipt()
    yield "the receipt of another tree", Forgery(_set("receipt", to=other), InclusionError, "does not lead")
    for what, signers, error in (
        ("a stranger", (STRANGER, WITNESS, WITNESS_MLDSA), SignatureError),
        ("the other key only", (ED25519, WITNESS, WITNESS_MLDSA), SignatureError),
        ("witnesses only", (WITNESS, WITNESS_MLDSA), SignatureError),
        ("no witness", (MLDSA44,), QuorumError),
        ("one witness of two", (MLDSA44, WITNESS), QuorumError),
        ("the other witness of two", (MLDSA44, WITNESS_MLDSA), QuorumError),
    ):
        receipt = LOG.receipt(note=LOG.note(SIZE, *signers))
        yield f"a receipt signed by {what}", Forgery(_set("receipt", to=receipt), error, "")
    foreign = _skey("log.example.org/other", KeyType.COSIGNATURE_MLDSA44, 32)
    note = LOG.note(SIZE, foreign, WITNESS, WITNESS_MLDSA, origin=foreign.name)
    yield "a receipt of another log", Forgery(_set("receipt", to=LOG.receipt(note=note)), SignatureError, "lists no log")
    extended = f"{ORIGIN}\n{SIZE}\n{b64(LOG.oracle.mth(0, SIZE))}\nextension\n"
    note = sign_note(extended, [KeySigner(skey) for skey in SIGNERS[1:]], time_s=TIME_S)
    yield (
        "a checkpoint with extension lines that nobody signed",
        Forgery(_set("receipt", to=LOG.receipt(note=note)), SignatureError, "extension lines"),
    )


def _linked() -> Iterator[tuple[str, Forgery]]:
    before = LOG.before()
    for size in (INDEX + 1, SIZE):
        says = f"the checkpoint of size {size} is not from before entry {INDEX}"
        yield f"not_before of size {size}", Forgery(_set("not_before", to=LOG.before(size)), DisclosureError, says)
    for what, proof in (
        ("no proof", []),
        ("a proof too long", [*before["proof"], b64(bytes(32))]),
        ("a changed proof", [flip(before["proof"][0]), *before["proof"][1:]]),
    ):
        data = _set("not_before", "proof", to=proof)
        yield f"not_before with {what}", Forgery(data, ConsistencyError, "")
    other = Log(b"").oracle
    forked = Oracle([b"x", *other.entries[1:]])
    text = format_checkpoint(Checkpoint(origin=ORIGIN, size=OLD_SIZE, root=forked.mth(0, OLD_SIZE)))
    note = sign_note(text, [KeySigner(skey) for skey in SIGNERS], time_s=OLD_TIME_S).decode()
    yield "not_before of another history", Forgery(_set("not_before", "checkpoint", to=note), ConsistencyError, "")
    nothing = LOG.before(0) | {"proof": [b64(bytes(32))]}
    yield "not_before of size 0 with a proof", Forgery(_set("not_before", to=nothing), DisclosureError, "empty tree")
    for what, signers, error in (("a stranger", (STRANGER,), SignatureError), ("no witness", (MLDSA44,), QuorumError)):
        linked = LOG.before(note=LOG.note(OLD_SIZE, *signers, time_s=OLD_TIME_S))
        yield f"not_before signed by {what}", Forgery(_set("not_before", to=linked), error, "")
    yield "not_before that is no note", Forgery(_set("not_before", "checkpoint", to="note\n"), MalformedError, "not a note")
    not_included = InclusionError
    root = TREE.root
    of_stream = "not one of this stream"
    for what, origin in (
        ("another stream", f"{ORIGIN}/members/{MEMBER}/other"),
        ("another member", f"{ORIGIN}/members/other/{STREAM}"),
        ("another log", f"log.example.org/members/{MEMBER}/{STREAM}"),
        ("the log", ORIGIN),
    ):
        yield (
            f"a stream checkpoint of {what}",
            Forgery(_set("stream", to=stream_of(root, origin=origin)), DisclosureError, of_stream),
        )
    extended = stream_of(root, extensions=("extension",))
    yield "a stream checkpoint with extension lines", Forgery(_set("stream", to=extended), DisclosureError, of_stream)
    yield "a stream checkpoint that has it elsewhere", Forgery(_set("stream", to=stream_of(root, 3)), not_included, "")
    yield "a stream checkpoint too small", Forgery(_set("stream", to=stream_of(root, 1, 2)), not_included, "there is no entry")
    yield "a stream checkpoint of another event", Forgery(_set("stream", to=stream_of(sha(b""))), not_included, "does not lead")
    yield "a stream checkpoint with a changed proof", Forgery(_set("stream", "proof", 0, to=flip), not_included, "")
    yield "a stream checkpoint without a proof", Forgery(_set("stream", "proof", to=[]), not_included, "the proof has 0")
    yield (
        "a stream checkpoint that is no note",
        Forgery(_set("stream", "checkpoint", to="note\n"), MalformedError, "no empty line"),
    )
    by_log = evidence_of(texts_of(EVENT), SHOWN_LEAVES, with_stream=True, numbered="log")
    yield "a stream checkpoint where the log numbers", Forgery(dump(by_log), DisclosureError, of_stream)


@cache
def _forgeries() -> dict[str, Forgery]:
    parts = (_changed_parts(), _structure(), _lengths(), _spellings(), _values(), _sealed_badly(), _receipts(), _linked())
    found: dict[str, Forgery] = {}
    for name, forgery in itertools.chain(*parts):
        assert name not in found, name
        assert forgery.data not in _good().values(), name
        found[name] = forgery
    return found


def forgeries() -> dict[str, Forgery]:
    """Forged evidence, by what is wrong with it; tried under POLICY."""
    return dict(_forgeries())
