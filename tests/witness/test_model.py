"""Anything sent in any order, against a model of a witness that knows the whole trees and nothing of proofs.

Two logs, each of which may show two trees that part at entry 3; requests are right, or wrong in one or several ways; the clock
goes anywhere; the witness is opened anew at any time.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translog.core.cosignature import KeySigner, signature_time
from translog.core.keys import KeyType
from translog.core.merkle import EMPTY_ROOT
from translog.core.note import format_note, parse_note
from translog.errors import (
    ConsistencyError,
    MalformedError,
    NotFoundError,
    OldSizeError,
    SignatureError,
    TranslogError,
)
from translog.witness.protocol import origin_hash, parse_cosignatures
from witness.made_log import WITNESS_VKEYS, MadeLog, Time, make_key, make_witness, require_cosigned

SIZE = 12
ORIGINS = ("log.example/a", "log.example/b", "log.example/unknown")
TREES = {
    (origin, fork): MadeLog(origin, fork_at=3 if fork else None, types=(KeyType.ED25519,), size=SIZE)
    for origin in ORIGINS
    for fork in (False, True)
}
BYTES = bytes(range(32))


@dataclass(frozen=True)
class Sent:
    """A request, and what is done before: the clock set, the witness opened anew."""

    origin: str
    fork: bool
    old: int | None  # None: the size that is stored
    new: int
    proof: str
    signed: str
    root: str
    malformed: bool
    now_s: int
    anew: bool


SENT = st.builds(
    Sent,
    origin=st.sampled_from(ORIGINS[:2] * 4 + ORIGINS[2:]),
    fork=st.sampled_from([False, False, False, True]),
    old=st.none() | st.integers(0, SIZE),
    new=st.integers(0, SIZE),
    proof=st.sampled_from(["right"] * 8 + ["none", "cut", "longer", "changed", "of other sizes"]),
    signed=st.sampled_from(["right"] * 8 + ["by a stranger", "wrongly", "by a stranger too"]),
    root=st.sampled_from(["right"] * 10 + ["wrong"]),
    malformed=st.sampled_from([False] * 15 + [True]),
    now_s=st.integers(-5, 1_000),
    anew=st.booleans(),
)


@dataclass
class Model:
    """What is stored of a log: every entry of its tree, as the root would be."""

    size: int
    root: bytes
    time_s: int


def proof_of(sent: Sent, old: int) -> tuple[bytes, ...]:
    tree = TREES[sent.origin, sent.fork]
    right = tree.proof(old, sent.new)
    return {
        "right": right,
        "none": (),
        "cut": right[:-1],
        "longer": (*right, BYTES),
        "changed": (BYTES, *right[1:]) if right else right,
        "of other sizes": tree.proof(max(1, old - 1), sent.new),
    }[sent.proof]


def note_of(sent: Sent) -> bytes:
    tree = TREES[sent.origin, sent.fork]
    stranger = KeySigner(make_key(sent.origin, KeyType.ED25519, 77))
    right = KeySigner(tree.skeys[0])
    signers = {"by a stranger": [stranger], "by a stranger too": [stranger, right]}.get(sent.signed, [right])
    note = tree.note(sent.new, signers=signers, root=BYTES if sent.root == "wrong" else None)
    if sent.signed != "wrongly":
        return note
    parsed = parse_note(note)
    broken = [replace(line, payload=line.payload[:-1] + bytes([line.payload[-1] ^ 1])) for line in parsed.signatures]
    return format_note(parsed.text, broken)


def root_of(sent: Sent) -> bytes:
    return BYTES if sent.root == "wrong" else TREES[sent.origin, sent.fork].tree.mth(0, sent.new)


def expected(sent: Sent, old: int, stored: Model | None) -> type[TranslogError] | None:
    """What a witness answers, from the trees alone."""
    tree = TREES[sent.origin, sent.fork]
    root = root_of(sent)
    known = stored.size if stored else 0
    if sent.malformed:
        return MalformedError
    if sent.origin == ORIGINS[2]:
        return NotFoundError
    if sent.signed in ("by a stranger", "wrongly"):
        return SignatureError
    if old > sent.new:
        return MalformedError
    if old != known:
        return OldSizeError
    if sent.new == 0 and root != EMPTY_ROOT:
        return ConsistencyError
    proof = proof_of(sent, old)
    if old == 0:
        return ConsistencyError if proof else None
    assert stored is not None
    if old == sent.new:
        return None if not proof and root == stored.root else ConsistencyError
    consistent = root == tree.tree.mth(0, sent.new) and tree.tree.mth(0, old) == stored.root
    return None if consistent and proof == tree.proof(old, sent.new) else ConsistencyError


@settings(max_examples=60, deadline=None)
@given(st.lists(SENT, max_size=25))
def test_a_witness_answers_as_one_would_that_sees_the_whole_tree(requests: list[Sent]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        time = Time()
        logs = [TREES[origin, False] for origin in ORIGINS[:2]]
        witness = make_witness(Path(folder, "state"), *logs, now_ms=time)
        models: dict[str, Model] = {}
        for sent in requests:
            if sent.anew:
                witness.store.close()
                witness = make_witness(Path(folder, "state"), now_ms=time)
            time.now_s = sent.now_s
            stored = models.get(sent.origin)
            old = sent.old if sent.old is not None else stored.size if stored else 0
            note = note_of(sent)
            body = TREES[sent.origin, sent.fork].request(old, sent.new, proof=proof_of(sent, old), note=note)
            if sent.malformed:
                body = body.replace(b"\n", b"\r\n", 1)
            error = expected(sent, old, stored)
            if error is not None:
                with pytest.raises(error) as raised:
                    witness.add_checkpoint(body)
                assert type(raised.value) is error, sent
                assert getattr(raised.value, "size", None) in (None, stored.size if stored else 0)
            else:
                answer = witness.add_checkpoint(body)
                time_s = max(sent.now_s, 1, stored.time_s if stored else 0)
                require_cosigned(note, answer)
                lines = parse_cosignatures(answer)
                assert {signature_time(v, line.payload) for v, line in zip(WITNESS_VKEYS, lines, strict=True)} == {time_s}
                models[sent.origin] = Model(size=sent.new, root=root_of(sent), time_s=time_s)
                assert witness.latest(origin_hash(sent.origin)).endswith(answer)
            for origin, model in models.items():
                cosigned = witness.store.find_cosigned(origin)
                assert cosigned is not None
                assert (cosigned.size, cosigned.root, cosigned.time_s) == (model.size, model.root, model.time_s)
        witness.store.close()
