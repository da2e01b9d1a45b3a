"""Disclosures and evidence files: what proves an event, or some of its fields, offline to whoever holds a policy.

    disclosure  {"leaf":3,"of":12,"salt":"<base64, 16 bytes>","text":"[\\"actor\\",{...}]","proof":["<base64>",...]}
    evidence    {"translog":"evidence/1","entry":"<base64>","disclosures":[...],"receipt":"<tlog-proof text>",
                 "not_before":{"checkpoint":"<note>","proof":["<base64>",...]},
                 "stream":{"checkpoint":"<note>","proof":["<base64>",...]}}          the last two optional

Rules: compact JSON with these keys in this order (broken above for reading only), so that what was parsed formats back to the
same bytes; leaf 0, the header, first, the others ascending, each once; every part is bounded; a seed is never part of it. Needs
the standard library and core. specs/formats.md, "Disclosure and evidence".
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.cosignature import KeyVerifier
from translog.core.keys import VKey
from translog.core.merkle import hash_children, hash_leaf, prove_inclusion, verify_consistency, verify_inclusion
from translog.core.note import parse_note, verify_note
from translog.core.policy import Policy, VerifiedCheckpoint, verify_checkpoint
from translog.core.proof import RECEIPT_BYTES_MAX, VerifiedReceipt, parse_receipt, verify_receipt_under
from translog.core.quorum import accepted_by, accepted_since, stated_times
from translog.core.tile import ENTRY_BYTES_MAX
from translog.core.wire import HASH_BYTES, clip, decode_base64, encode_base64
from translog.errors import DisclosureError, InclusionError, MalformedError, NotFoundError
from translog.events.entry import EventEntry, Numbered, parse_entry, stream_origin
from translog.events.jsontext import JSONObject, compact
from translog.events.seal import SALT_BYTES, Field, LeafTree, Payload, event_root, hash_field
from translog.events.texts import LEAVES_MAX, TEXT_BYTES_MAX, Header, parse_header, parse_json, parse_text

VERSION = "evidence/1"
EVIDENCE_BYTES_MAX = 64 * 1024 * 1024
"""Largest evidence file read."""
_PROOF_HASHES_MAX = 64
"""Most hashes of any proof: what a consistency proof between trees of up to 2^63-1 entries may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure:
    """One text of an event with what proves it: leaf number `leaf` of `of`, 16 bytes of salt, the leaf's inclusion proof."""

    leaf: int
    of: int
    salt: bytes
    text: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedCheckpoint:
    """A note, and the proof that links it to what the evidence is about."""

    checkpoint: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A parsed evidence file, nothing of it verified. `receipt` is a tlog-proof file. `not_before` is a checkpoint from before
    the event with its consistency proof, `stream` a checkpoint of the sender's with the event's inclusion proof."""

    entry: bytes
    disclosures: tuple[Disclosure, ...]
    receipt: bytes
    not_before: LinkedCheckpoint | None = None
    stream: LinkedCheckpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedStream:
    """The event is in the tree of this stream checkpoint. `signed_by` is the key whose signature was checked; where no key was
    given it is None, and nobody is known to have signed the checkpoint."""

    checkpoint: Checkpoint
    signed_by: VKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEvidence:
    """What an evidence file proves. Made by `verify_evidence` only.

    `names` are all fields the event was sealed with, in order; `shown` those that are disclosed, with their values. Times are
    POSIX seconds, by the witnesses' clocks where the policy asks for witnesses, else by the log's; None where no signature that
    counts states one. `entry.received_at_ms` is the log's own statement.
    """

    receipt: VerifiedReceipt
    entry: EventEntry
    names: tuple[str, ...]
    shown: Mapping[str, Any]
    no_later_than_s: int | None
    not_before: VerifiedCheckpoint | None
    not_before_s: int | None
    stream: VerifiedStream | None

    @property
    def origin(self) -> str:
        """The log."""
        return self.receipt.checkpoint.checkpoint.origin

    @property
    def index(self) -> int:
        """The entry's place in the log."""
        return self.receipt.index

    @property
    def size(self) -> int:
        """The size of the tree that it is proven in."""
        return self.receipt.checkpoint.checkpoint.size

    @property
    def withheld(self) -> tuple[str, ...]:
        """The names of the fields that the event has and the evidence does not show."""
        return tuple(name for name in self.names if name not in self.shown)

    def absent(self, name: str) -> bool:
        """Whether the event is proven never to have had a field of this name."""
        return name not in self.names


def make_disclosures(payload: Payload, leaves: Iterable[int]) -> list[Disclosure]:
    """The disclosures of those leaves, ascending. Raises NotFoundError for one that was erased."""
    tree = LeafTree(payload.leaves())
    count = len(payload.fields)
    disclosures = []
    for leaf in sorted(set(leaves)):
        item = payload.fields[leaf]
        if not isinstance(item, Field):
            raise NotFoundError(f"field {leaf} of the event was erased", code="field-erased")
        proof = tuple(prove_inclusion(index=leaf, size=count, reader=tree))
        disclosures.append(Disclosure(leaf=leaf, of=count, salt=item.salt, text=item.text, proof=proof))
    return disclosures


def make_evidence(
    payload: Payload,
    *,
    names: Collection[str] | None = None,
    entry: bytes,
    receipt: bytes,
    not_before: LinkedCheckpoint | None = None,
    stream: LinkedCheckpoint | None = None,
) -> Evidence:
    """Evidence that shows the fields of these names: of all that were not erased where `names` is None.

    A name that the event does not have is no error: the header proves that. Whether the parts belong together is the caller's
    business. Raises NotFoundError for a field that was erased, MalformedError for a payload without a proper header.
    """
    numbered = enumerate(payload.header().names, start=1)
    if names is None:
        leaves = [leaf for leaf, _ in numbered if isinstance(payload.fields[leaf], Field)]
    else:
        leaves = [leaf for leaf, name in numbered if name in names]
    disclosures = tuple(make_disclosures(payload, [0, *leaves]))
    return Evidence(entry=entry, disclosures=disclosures, receipt=receipt, not_before=not_before, stream=stream)


def format_evidence(evidence: Evidence) -> bytes:
    """The bytes of an evidence file: UTF-8, one line without a newline."""
    document: JSONObject = {
        "translog": VERSION,
        "entry": encode_base64(evidence.entry),
        "disclosures": [_disclosure_document(disclosure) for disclosure in evidence.disclosures],
        "receipt": evidence.receipt.decode("utf-8"),
    }
    for name, linked in (("not_before", evidence.not_before), ("stream", evidence.stream)):
        if linked is not None:
            document[name] = {"checkpoint": linked.checkpoint.decode("utf-8"), "proof": _hashes(linked.proof)}
    return compact(document).encode("utf-8")


def _disclosure_document(disclosure: Disclosure) -> JSONObject:
    return {
        "leaf": disclosure.leaf,
        "of": disclosure.of,
        "salt": encode_base64(disclosure.salt),
        "text": disclosure.text.decode("utf-8"),
        "proof": _hashes(disclosure.proof),
    }


def _hashes(proof: Iterable[bytes]) -> list[str]:
    return [encode_base64(value) for value in proof]


def parse_evidence(data: bytes) -> Evidence:
    """The parts of an evidence file, unverified. Raises MalformedError, also for a key too many, and for another spelling."""
    if len(data) > EVIDENCE_BYTES_MAX:
        raise MalformedError(f"an evidence file of {len(data)} bytes: at most {EVIDENCE_BYTES_MAX} are read")
    document = parse_json(data)
    version = _get(document, "translog", str)
    if version != VERSION:
        raise MalformedError(f"not evidence of a version known here: {clip(version)}", code="unknown-evidence")
    disclosures = _get(document, "disclosures", list)
    if len(disclosures) > LEAVES_MAX:
        raise MalformedError(f"more than {LEAVES_MAX} disclosures")
    evidence = Evidence(
        entry=_bounded(decode_base64(_get(document, "entry", str)), ENTRY_BYTES_MAX, "the entry"),
        disclosures=tuple(_parse_disclosure(item) for item in disclosures),
        receipt=_bounded(_get(document, "receipt", str).encode("utf-8"), RECEIPT_BYTES_MAX, "the receipt"),
        not_before=_parse_linked(document, "not_before"),
        stream=_parse_linked(document, "stream"),
    )
    if format_evidence(evidence) != data:
        raise MalformedError("the evidence is not in its one spelling: a key too many, another order, spaces, or the like")
    return evidence


def _get(document: Any, name: str, kind: type) -> Any:
    value = document.get(name) if type(document) is dict else None
    if type(value) is not kind:
        raise MalformedError(f"not evidence: {name!r} is missing, or not what it should be")
    return value


def _bounded(data: bytes, bytes_max: int, what: str) -> bytes:
    if len(data) > bytes_max:
        raise MalformedError(f"{what} in the evidence has {len(data)} bytes: at most {bytes_max} are read")
    return data


def _parse_proof(document: Any) -> tuple[bytes, ...]:
    proof = _get(document, "proof", list)
    if len(proof) > _PROOF_HASHES_MAX or not all(isinstance(item, str) for item in proof):
        raise MalformedError(f"a proof in the evidence is not a list of up to {_PROOF_HASHES_MAX} hashes")
    return tuple(decode_base64(item, size=HASH_BYTES) for item in proof)


def _parse_disclosure(document: Any) -> Disclosure:
    return Disclosure(
        leaf=_get(document, "leaf", int),
        of=_get(document, "of", int),
        salt=decode_base64(_get(document, "salt", str), size=SALT_BYTES),
        text=_bounded(_get(document, "text", str).encode("utf-8"), TEXT_BYTES_MAX, "a text"),
        proof=_parse_proof(document),
    )


def _parse_linked(document: JSONObject, name: str) -> LinkedCheckpoint | None:
    if name not in document:
        return None
    linked = _get(document, name, dict)
    return LinkedCheckpoint(checkpoint=_get(linked, "checkpoint", str).encode("utf-8"), proof=_parse_proof(linked))


def verify_evidence(evidence: Evidence, policy: Policy, *, stream_vkey: VKey | None = None) -> VerifiedEvidence:
    """What the evidence proves under the policy; `stream_vkey` is the key that the stream's checkpoint must be signed with.

    Checked in this order: the policy accepts the receipt's checkpoint; the receipt proves the entry in it; leaf 0 proves in the
    entry's root and agrees with entry and origin; each other disclosure proves, and has the name that leaf 0 lists there; what
    is optional. Raises MalformedError, DisclosureError, and what `verify_receipt` raises.
    """
    receipt = parse_receipt(evidence.receipt)
    checkpoint = verify_checkpoint(receipt.checkpoint, policy)
    verified = verify_receipt_under(receipt, leaf_hash=hash_leaf(evidence.entry), checkpoint=checkpoint)
    entry = parse_entry(evidence.entry)
    tree_root, header = _verify_header(evidence.disclosures, entry, checkpoint.checkpoint.origin)
    shown = _verify_fields(evidence.disclosures, tree_root, header)
    before = None if evidence.not_before is None else _verify_before(evidence.not_before, verified, policy)
    stream = None
    if evidence.stream is not None:
        stream = _verify_stream(evidence.stream, entry, checkpoint.checkpoint.origin, stream_vkey)
    return VerifiedEvidence(
        receipt=verified,
        entry=entry,
        names=header.names,
        shown=shown,
        no_later_than_s=accepted_by(stated_times(checkpoint, policy), policy),
        not_before=before,
        not_before_s=None if before is None else accepted_since(stated_times(before, policy), policy),
        stream=stream,
    )


def _verify_header(disclosures: Sequence[Disclosure], entry: EventEntry, origin: str) -> tuple[bytes, Header]:
    """The tree hash over the event's leaves, and what leaf 0 says."""
    if not disclosures or disclosures[0].leaf != 0:
        raise DisclosureError("the evidence does not show the event's header, leaf 0")
    first = disclosures[0]
    if not 1 <= first.of <= LEAVES_MAX or len(first.proof) != (first.of - 1).bit_length():
        raise DisclosureError(f"an event of {first.of} leaves has no proof of {len(first.proof)} hashes")
    tree_root = hash_field(first.salt, first.text)
    for sibling in first.proof:  # leaf 0 is leftmost all the way up
        tree_root = hash_children(tree_root, sibling)
    if event_root(tree_root, first.of) != entry.root:
        raise DisclosureError("the event's header, leaf 0, is not what the entry commits to")
    header = parse_header(first.text)
    if (header.origin, header.member, header.stream) != (origin, entry.member, entry.stream):
        raise DisclosureError("the event was sealed for another log, member or stream than it was logged under")
    if len(header.names) != first.of - 1:
        raise DisclosureError(f"the header names {len(header.names)} fields, but there are {first.of - 1}")
    return tree_root, header


def _verify_fields(disclosures: Sequence[Disclosure], tree_root: bytes, header: Header) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    last = 0
    count = disclosures[0].of
    for disclosure in disclosures[1:]:
        leaf = disclosure.leaf
        if disclosure.of != count or not last < leaf < count:
            raise DisclosureError(
                f"leaf {leaf} of {disclosure.of} is out of place: they ascend, each once, and all are of one event"
            )
        try:
            verify_inclusion(
                leaf_hash=hash_field(disclosure.salt, disclosure.text),
                index=leaf,
                size=count,
                proof=disclosure.proof,
                root=tree_root,
            )
        except InclusionError as error:
            raise DisclosureError(f"leaf {leaf} is not what the entry commits to: {error.detail}") from None
        name, value = parse_text(disclosure.text)
        if name != header.names[leaf - 1]:
            raise DisclosureError(f"leaf {leaf} is {clip(name)}, but the header has {clip(header.names[leaf - 1])} there")
        shown[name] = value
        last = leaf
    return shown


def _verify_before(linked: LinkedCheckpoint, receipt: VerifiedReceipt, policy: Policy) -> VerifiedCheckpoint:
    """The checkpoint, which the policy accepts and whose tree is a prefix of the receipt's that ends before the entry."""
    verified = verify_checkpoint(linked.checkpoint, policy)
    old, new = verified.checkpoint, receipt.checkpoint.checkpoint
    if old.origin != new.origin:
        raise DisclosureError("the checkpoint from before the event is another log's")
    if old.size > receipt.index:
        raise DisclosureError(f"the checkpoint of size {old.size} is not from before entry {receipt.index}")
    if old.size:
        verify_consistency(old=old.size, old_root=old.root, new=new.size, new_root=new.root, proof=linked.proof)
    elif linked.proof:
        raise DisclosureError("nothing proves consistency with the empty tree")
    return verified


def _verify_stream(linked: LinkedCheckpoint, entry: EventEntry, origin: str, vkey: VKey | None) -> VerifiedStream:
    """The stream's checkpoint, in whose tree the event is at its number."""
    note = parse_note(linked.checkpoint)
    checkpoint = parse_checkpoint(note.text)
    expected = stream_origin(origin, member=entry.member, stream=entry.stream)
    if entry.numbered is not Numbered.SENDER or checkpoint.origin != expected or checkpoint.extensions:
        raise DisclosureError("the stream's checkpoint is not one of this stream, as its sender numbered it")
    if vkey is not None:
        if vkey.name != expected:
            raise DisclosureError(f"the key given is {clip(vkey.name)}'s, not that of {clip(expected)}")
        verify_note(note, [KeyVerifier(vkey)])
    leaf_hash = hash_leaf(entry.seq.to_bytes(8, "big") + entry.root)
    verify_inclusion(leaf_hash=leaf_hash, index=entry.seq, size=checkpoint.size, proof=linked.proof, root=checkpoint.root)
    return VerifiedStream(checkpoint=checkpoint, signed_by=vkey)
