"""Notes and requests that somebody made to do harm: none gets past a check, costs much, or leaves anything behind."""

import time as clock
from pathlib import Path

import pytest

import translog.core.keys
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, VKey
from translog.core.note import SIGNATURES_MAX, Signature, format_note
from translog.core.wire import encode_base64
from translog.errors import ConsistencyError, MalformedError, NotFoundError, SignatureError, TranslogError
from translog.witness.protocol import PROOF_HASHES_MAX, REQUEST_BYTES_MAX, origin_hash
from translog.witness.service import Witness
from witness.made_log import WITNESS_KEYS, WITNESS_NAME, MadeLog, make_key, make_witness, parse_note, require_cosigned


def refuses(witness: Witness, body: bytes, error: type[TranslogError] = MalformedError) -> None:
    with pytest.raises(error) as raised:
        witness.add_checkpoint(body)
    assert type(raised.value) is error
    assert witness.store.find_cosigned("log.example/made") is None


def test_hundreds_of_lines_are_too_many_and_a_hundred_are_not(witness: Witness, log: MadeLog) -> None:
    note = parse_note(log.note(1))
    strangers = [Signature(name="x", key_id=b"%04d" % n, payload=bytes(64)) for n in range(500)]
    refuses(witness, log.request(0, 1, note=format_note(note.text, [*note.signatures, *strangers])))
    full = format_note(note.text, [*strangers[: SIGNATURES_MAX - 2], *note.signatures])
    require_cosigned(note_of(note.text, note.signatures), witness.add_checkpoint(log.request(0, 1, note=full)))


def note_of(text: str, signatures: tuple[Signature, ...]) -> bytes:
    return format_note(text, signatures)


def test_the_same_line_a_hundred_times_is_verified_once(
    witness: Witness, log: MadeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = 0
    verify = translog.core.keys.verify_bytes

    def counted(vkey: VKey, message: bytes, signature: bytes) -> None:
        nonlocal verified
        verified += 1
        verify(vkey, message, signature)

    monkeypatch.setattr("translog.core.cosignature.verify_bytes", counted)
    note = parse_note(log.note(1, signers=[KeySigner(log.skeys[0])]))
    witness.add_checkpoint(log.request(0, 1, note=format_note(note.text, note.signatures * SIGNATURES_MAX)))
    assert verified == 1


@pytest.mark.parametrize(
    "size", ["-1", "+1", "01", "00", "1 ", " 1", "1e3", "0x1", "９", "1_0", "9" * 19, "9" * 5_000, str(2**63)]
)
def test_a_size_of_another_spelling_or_too_large_is_malformed(witness: Witness, log: MadeLog, size: str) -> None:
    text = log.text(1).replace("\n1\n", f"\n{size}\n")
    line = Signature(name=log.origin, key_id=log.vkeys[0].key_id, payload=bytes(64))
    refuses(witness, b"old 0\n\n" + format_note(text, [line]))
    refuses(witness, log.request(0, 1).replace(b"old 0", b"old " + size.encode()))


def test_the_largest_tree_there_can_be_is_no_trouble(witness: Witness, log: MadeLog) -> None:
    text = log.text(1).replace("\n1\n", f"\n{2**63 - 1}\n")
    line = Signature(name=log.origin, key_id=log.vkeys[0].key_id, payload=KeySigner(log.skeys[0]).sign(text, time_s=1))
    note = format_note(text, [line])
    refuses(witness, log.request(0, 1, proof=[bytes(32)] * PROOF_HASHES_MAX, note=note), ConsistencyError)
    witness.add_checkpoint(log.request(0, 1, note=note))
    stored = witness.store.find_cosigned(log.origin)
    assert stored is not None
    assert stored.size == 2**63 - 1
    require_cosigned(note, witness.add_checkpoint(log.request(2**63 - 1, 2**63 - 1, proof=(), note=note)))


def test_64_proof_lines_are_malformed_and_63_are_looked_at(witness: Witness, log: MadeLog) -> None:
    witness.add_checkpoint(log.request(0, 5))
    line = encode_base64(bytes(32)).encode() + b"\n"
    for lines, error in ((63, ConsistencyError), (64, MalformedError), (1_000, MalformedError)):
        body = b"old 5\n" + line * lines + b"\n" + log.note(13)
        with pytest.raises(error):
            witness.add_checkpoint(body)


@pytest.mark.parametrize(
    "name",
    [
        "log.example/madE",
        "log.example/made/",
        "log.example/made\u200b",
        "log.example/m\u0430de",
        "LOG.EXAMPLE/MADE",
        "log.example/mad\u00e9",
        "log.example",
        "\U0001f512",
    ],
)
def test_a_name_that_is_nearly_the_keys_is_a_strangers(witness: Witness, log: MadeLog, name: str) -> None:
    note = parse_note(log.note(1))
    renamed = [Signature(name=name, key_id=line.key_id, payload=line.payload) for line in note.signatures]
    refuses(witness, log.request(0, 1, note=format_note(note.text, renamed)), SignatureError)
    moved = MadeLog(name)
    refuses(witness, moved.request(0, 1), NotFoundError)


def test_names_and_origins_are_compared_byte_by_byte(tmp_path: Path) -> None:
    composed, decomposed = MadeLog("log.example/\u00e9"), MadeLog("log.example/e\u0301")
    witness = make_witness(tmp_path / "state", composed)
    with pytest.raises(NotFoundError):
        witness.add_checkpoint(decomposed.request(0, 1))
    require_cosigned(composed.note(1), witness.add_checkpoint(composed.request(0, 1)))
    assert witness.latest(origin_hash(composed.origin))
    with pytest.raises(NotFoundError):
        witness.latest(origin_hash(decomposed.origin))
    witness.store.close()


def test_the_same_key_id_under_another_name_is_a_strangers(witness: Witness, log: MadeLog) -> None:
    note = parse_note(log.note(1))
    first = note.signatures[0]
    other = Signature(name="x", key_id=first.key_id, payload=first.payload)
    refuses(witness, log.request(0, 1, note=format_note(note.text, [other])), SignatureError)
    wrong = Signature(name=first.name, key_id=b"\0" + first.key_id[1:], payload=first.payload)
    refuses(witness, log.request(0, 1, note=format_note(note.text, [wrong])), SignatureError)
    require_cosigned(log.note(1), witness.add_checkpoint(log.request(0, 1, note=format_note(note.text, [other, wrong, first]))))


def test_lines_end_in_newlines_and_nothing_else(witness: Witness, log: MadeLog) -> None:
    body = log.request(0, 1)
    for changed in (
        body.replace(b"\n", b"\r\n"),
        body.replace(b"old 0\n", b"old 0\r\n"),
        body.replace(b"\n1\n", b"\n1\r\n"),
        body[:-1] + b"\r\n",
        body.replace(b"\n", b"\r"),
        body + b"\n",
        body + b"\0",
        body[:-1],
        b"\xef\xbb\xbf" + body,
        body.replace(b"old 0\n\n", b"old 0\n\n\n"),
        body.replace(b"\n1\n", b"\n1\n\n"),
        body.replace("\u2014".encode(), b"-"),
        body.replace("\u2014 ".encode(), "\u2014\u00a0".encode()),
    ):
        assert changed != body
        refuses(witness, changed)


def test_a_text_with_a_second_note_in_it_is_no_checkpoint(witness: Witness, log: MadeLog) -> None:
    inner = log.note(1).decode()
    signer = KeySigner(log.skeys[0])
    text = inner + "\nmore\n"
    line = Signature(name=log.origin, key_id=signer.key_id, payload=signer.sign(text, time_s=1))
    refuses(witness, log.request(0, 1, note=format_note(text, [line])))


def test_a_checkpoint_of_another_log_signed_by_this_ones_key_is_refused(witness: Witness, log: MadeLog, tmp_path: Path) -> None:
    other = MadeLog("log.example/other")
    witness.add_log(other.known)
    refuses(witness, other.request(0, 1, note=other.note(1, signers=[KeySigner(log.skeys[0])])), SignatureError)


def test_a_signature_of_a_different_kind_of_key_is_none(witness: Witness, log: MadeLog) -> None:
    """What a key signs as a witness is not what it signs as a log: the messages differ, and so do the key IDs."""
    cosigner = KeySigner(make_key(log.origin, KeyType.COSIGNATURE_ED25519))
    text = log.text(1)
    line = Signature(name=log.origin, key_id=log.vkeys[0].key_id, payload=cosigner.sign(text, time_s=5))
    refuses(witness, log.request(0, 1, note=format_note(text, [line])), SignatureError)


@pytest.mark.parametrize(
    "payload", [b"s", bytes(8), bytes(63), bytes(65), bytes(72), b"\xff" * 2428, bytes(2428), bytes(9_000)]
)
def test_a_payload_of_any_length_is_a_bad_signature(witness: Witness, log: MadeLog, payload: bytes) -> None:
    for vkey in log.vkeys:
        line = Signature(name=log.origin, key_id=vkey.key_id, payload=payload)
        refuses(witness, log.request(0, 1, note=format_note(log.text(1), [line])), SignatureError)


def test_our_own_cosignature_of_another_tree_put_into_a_note_is_dropped(witness: Witness, log: MadeLog) -> None:
    stale = [
        Signature(name=WITNESS_NAME, key_id=skey.vkey.key_id, payload=KeySigner(skey).sign(log.text(9), time_s=1))
        for skey in WITNESS_KEYS
    ]
    note = parse_note(log.note(1))
    sent = format_note(note.text, [*stale, *note.signatures, *stale])
    require_cosigned(log.note(1), witness.add_checkpoint(log.request(0, 1, note=sent)))
    served = witness.latest(origin_hash(log.origin))
    require_cosigned(log.note(1), served.removeprefix(format_note(note.text, note.signatures)))


def test_the_worst_request_takes_no_longer_than_a_few_good_ones(witness: Witness, log: MadeLog) -> None:
    line = encode_base64(b"\xff" * 32) + "\n"
    head = "old 0\n" + line * PROOF_HASHES_MAX + "\n" + log.text(64) + "\n"
    lines = "".join(f"\u2014 x {encode_base64(bytes([n]) * 900)}\n" for n in range(SIGNATURES_MAX))
    body = (head + lines).encode()
    assert REQUEST_BYTES_MAX * 0.9 < len(body) < REQUEST_BYTES_MAX
    start = clock.perf_counter()
    for _ in range(10):
        refuses(witness, body, SignatureError)
    assert clock.perf_counter() - start < 1
    for junk in (b"\n" * REQUEST_BYTES_MAX, b"old 0\n\n" + b"\n" * (REQUEST_BYTES_MAX - 8), b"\xff" * REQUEST_BYTES_MAX):
        refuses(witness, junk)
    assert clock.perf_counter() - start < 2
