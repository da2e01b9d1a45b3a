"""What each key type signs, to the byte, and what a signature of each covers."""

from hashlib import sha256

import pytest

from core.known import LOG, LOG_MLDSA, TEXT, TIME, WITNESS, WITNESS_LINE, WITNESS_MLDSA, signer
from translog.core.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from translog.core.cosignature import KeySigner, KeyVerifier, ed25519_message, mldsa44_message, signature_time
from translog.core.keys import KeyType, SKey, sign_bytes, verify_bytes
from translog.core.note import parse_signature
from translog.core.wire import SIZE_MAX
from translog.errors import MalformedError, SignatureError

SKEYS = [LOG, WITNESS, WITNESS_MLDSA]
TIMED = [WITNESS, WITNESS_MLDSA]


def refused(skey: SKey, text: str, payload: bytes) -> bool:
    try:
        KeyVerifier(skey.vkey).verify(text, payload)
    except SignatureError:
        return True
    return False


# Messages


def test_the_ed25519_message_is_the_time_and_the_whole_note_text() -> None:
    assert ed25519_message("o\n1\nr\next\n", time_s=TIME) == b"cosignature/v1\ntime 1700000000\no\n1\nr\next\n"


def test_the_ml_dsa_44_message_has_the_layout_of_the_azul_fixture() -> None:
    """cloudflare/azul, crates/tlog_cosignature/src/subtree_v1.rs, cosigned_message_layout_unchanged. Its start and time are
    both not 0, which the specification forbids and we refuse: so once with start 0, and once with time 0."""
    time_s, start, end = 0x0102_0304_0506_0708, 0x0910_1112_1314_1516, 0x1718_191A_1B1C_1D1E
    subtree = b"\x42" * 32
    timed = mldsa44_message(cosigner="a", time_s=time_s, origin="b", start=0, end=end, subtree=subtree)
    inner = mldsa44_message(cosigner="a", time_s=0, origin="b", start=start, end=end, subtree=subtree)
    head, tail = b"subtree/v1\n\x00" + b"\x01a", bytes.fromhex("1718191a1b1c1d1e") + subtree
    assert timed == head + bytes.fromhex("0102030405060708") + b"\x01b" + bytes(8) + tail
    assert inner == head + bytes(8) + b"\x01b" + bytes.fromhex("0910111213141516") + tail
    whole = timed[:24] + inner[24:]
    assert len(timed) == len(inner) == len(whole) == 72
    digest = sha256(whole).hexdigest()
    assert (digest[:8], digest[-4:]) == ("cf85108c", "4184")


def test_the_ml_dsa_44_message_of_our_known_checkpoint() -> None:
    root = parse_checkpoint(TEXT).root
    message = mldsa44_message(
        cosigner="example.com/witness", time_s=TIME, origin="example.com/log", start=0, end=1, subtree=root
    )
    assert len(message) == 104
    assert sha256(message).hexdigest() == "f353a388eb74ec1949c086ced5983dc3090bc6bb4c751820c3a2a01a7b627c49"


@pytest.mark.parametrize(
    "wrong",
    [
        {"cosigner": ""},
        {"cosigner": "c" * 256},
        {"cosigner": "\u2014" * 86},
        {"origin": ""},
        {"origin": "o" * 256},
        {"time_s": -1},
        {"time_s": SIZE_MAX + 1},
        {"start": -1},
        {"start": 2},
        {"start": 1},
        {"end": SIZE_MAX + 1},
        {"end": -1},
        {"subtree": bytes(31)},
        {"subtree": bytes(33)},
        {"subtree": b""},
    ],
)
def test_an_ml_dsa_44_message_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    good: dict[str, object] = {"cosigner": "c", "time_s": TIME, "origin": "o", "start": 0, "end": 1, "subtree": bytes(32)}
    mldsa44_message(**good)  # type: ignore[arg-type]
    with pytest.raises(MalformedError):
        mldsa44_message(**good | wrong)  # type: ignore[arg-type]


def test_the_largest_ml_dsa_44_message() -> None:
    message = mldsa44_message(cosigner="c" * 255, time_s=SIZE_MAX, origin="o" * 255, start=0, end=SIZE_MAX, subtree=bytes(32))
    assert len(message) == 70 + 255 + 255


# Payloads


def test_our_known_cosignature_is_made_and_verifies() -> None:
    payload = parse_signature(WITNESS_LINE[:-1]).payload
    assert KeySigner(WITNESS).sign(TEXT, time_s=TIME) == payload
    KeyVerifier(WITNESS.vkey).verify(TEXT, payload)
    assert payload[:8] == TIME.to_bytes(8, "big")
    assert signature_time(WITNESS.vkey, payload) == TIME


def test_payloads_have_the_lengths_of_the_specification() -> None:
    assert [len(signer(skey).sign(TEXT, time_s=TIME)) for skey in SKEYS] == [64, 8 + 64, 8 + 2420]
    assert [4 + len(signer(skey).sign(TEXT, time_s=TIME)) for skey in TIMED] == [76, 2432]


def test_an_ml_dsa_44_cosignature_signs_the_checkpoint_from_0_to_its_size_with_an_empty_context() -> None:
    payload = signer(WITNESS_MLDSA).sign(TEXT, time_s=TIME)
    message = mldsa44_message(
        cosigner=WITNESS_MLDSA.name,
        time_s=TIME,
        origin="example.com/log",
        start=0,
        end=1,
        subtree=parse_checkpoint(TEXT).root,
    )
    verify_bytes(WITNESS_MLDSA.vkey, message, payload[8:])
    made_by_hand = TIME.to_bytes(8, "big") + sign_bytes(WITNESS_MLDSA, message)
    KeyVerifier(WITNESS_MLDSA.vkey).verify(TEXT, made_by_hand)


def test_a_signer_and_its_verifier_have_the_same_name_and_key_id() -> None:
    for skey in SKEYS:
        assert (signer(skey).name, signer(skey).key_id) == (KeyVerifier(skey.vkey).name, KeyVerifier(skey.vkey).key_id)
        assert signer(skey).key_id == skey.vkey.key_id


@pytest.mark.parametrize("skey", SKEYS)
def test_a_payload_of_another_length_is_refused(skey: SKey) -> None:
    payload = signer(skey).sign(TEXT, time_s=TIME)
    KeyVerifier(skey.vkey).verify(TEXT, payload)
    for other in (b"", payload[:1], payload[:7], payload[:8], payload[:9], payload[:-1], payload + b"\0", bytes(8) + payload):
        with pytest.raises(SignatureError, match=r"wrong length|no valid time"):
            KeyVerifier(skey.vkey).verify(TEXT, other)


@pytest.mark.parametrize("skey", TIMED)
def test_every_changed_bit_of_the_time_is_refused(skey: SKey) -> None:
    payload = signer(skey).sign(TEXT, time_s=TIME)
    for bit in range(64):
        other = (TIME ^ 1 << bit).to_bytes(8, "big")
        assert refused(skey, TEXT, other + payload[8:])
    assert refused(skey, TEXT, TIME.to_bytes(8, "little") + payload[8:])


@pytest.mark.parametrize("skey", TIMED)
@pytest.mark.parametrize("time_s", [SIZE_MAX + 1, 2**64 - 1])
def test_a_time_out_of_range_is_refused_even_if_signed(skey: SKey, time_s: int) -> None:
    message = ed25519_message(TEXT, time_s=time_s)
    if skey.type is KeyType.COSIGNATURE_MLDSA44:
        head = mldsa44_message(
            cosigner=skey.name, time_s=1, origin="example.com/log", start=0, end=1, subtree=parse_checkpoint(TEXT).root
        )
        at = 12 + 1 + len(skey.name)
        message = head[:at] + time_s.to_bytes(8, "big") + head[at + 8 :]
    payload = time_s.to_bytes(8, "big") + sign_bytes(skey, message)
    with pytest.raises(SignatureError, match="no valid time"):
        KeyVerifier(skey.vkey).verify(TEXT, payload)
    with pytest.raises(SignatureError, match="no valid time"):
        signature_time(skey.vkey, payload)


def test_time_0_verifies_and_makes_no_claim() -> None:
    skey = next(skey for skey in TIMED if skey.type is KeyType.COSIGNATURE_MLDSA44)
    root = parse_checkpoint(TEXT).root
    message = mldsa44_message(cosigner=skey.name, time_s=0, origin="example.com/log", start=0, end=1, subtree=root)
    payload = bytes(8) + sign_bytes(skey, message)
    KeyVerifier(skey.vkey).verify(TEXT, payload)
    assert signature_time(skey.vkey, payload) is None
    with pytest.raises(MalformedError):
        KeySigner(skey).sign(TEXT, time_s=0)


@pytest.mark.parametrize("skey", TIMED)
def test_the_earliest_and_the_latest_time_verify(skey: SKey) -> None:
    for time_s in (1, SIZE_MAX):
        payload = signer(skey).sign(TEXT, time_s=time_s)
        KeyVerifier(skey.vkey).verify(TEXT, payload)
        assert signature_time(skey.vkey, payload) == time_s


@pytest.mark.parametrize("skey", TIMED)
def test_a_payload_too_short_for_a_time_states_none(skey: SKey) -> None:
    for payload in (b"", b"\0", b"\x01" * 7):
        with pytest.raises(SignatureError):
            signature_time(skey.vkey, payload)


def test_a_plain_signature_states_no_time() -> None:
    assert signature_time(LOG.vkey, b"") is None
    assert signature_time(LOG.vkey, bytes(64)) is None


@pytest.mark.parametrize("skey", SKEYS)
@pytest.mark.parametrize("time_s", [0, -1, SIZE_MAX + 1])
def test_nothing_is_signed_at_a_time_out_of_range(skey: SKey, time_s: int) -> None:
    with pytest.raises(MalformedError, match="cannot sign at time"):
        signer(skey).sign(TEXT, time_s=time_s)


# What is covered


def test_origin_size_and_root_are_covered_by_every_kind() -> None:
    head = parse_checkpoint(TEXT)
    others = [
        Checkpoint(origin="example.com/other", size=head.size, root=head.root),
        Checkpoint(origin=head.origin, size=2, root=head.root),
        Checkpoint(origin=head.origin, size=head.size, root=bytes(32)),
    ]
    for skey in SKEYS:
        payload = signer(skey).sign(TEXT, time_s=TIME)
        assert not refused(skey, TEXT, payload)
        assert all(refused(skey, format_checkpoint(other), payload) for other in others)


def test_extension_lines_are_covered_by_0x01_and_0x04_and_not_by_0x06() -> None:
    extended = TEXT + "extension\n"
    assert [refused(skey, extended, signer(skey).sign(TEXT, time_s=TIME)) for skey in SKEYS] == [True, True, False]
    assert [refused(skey, TEXT, signer(skey).sign(extended, time_s=TIME)) for skey in SKEYS] == [True, True, False]


def test_an_ml_dsa_44_signature_covers_the_cosigners_name() -> None:
    renamed = SKey(name="example.com/other", type=WITNESS_MLDSA.type, seed=WITNESS_MLDSA.seed)
    assert refused(renamed, TEXT, signer(WITNESS_MLDSA).sign(TEXT, time_s=TIME))


def test_a_signature_of_one_kind_is_none_of_another() -> None:
    seed = bytes(range(32))
    plain = SKey(name="n", type=KeyType.ED25519, seed=seed)
    cosigning = SKey(name="n", type=KeyType.COSIGNATURE_ED25519, seed=seed)
    assert plain.vkey.public_key == cosigning.vkey.public_key
    assert refused(plain, TEXT, signer(cosigning).sign(TEXT, time_s=TIME)[8:])
    assert refused(cosigning, TEXT, TIME.to_bytes(8, "big") + signer(plain).sign(TEXT, time_s=TIME))


@pytest.mark.parametrize("text", ["not a checkpoint\n", "o\n1\nAAAA\n", f"{'o' * 256}\n1\n{TEXT.splitlines()[2]}\n"])
def test_an_ml_dsa_44_key_signs_and_verifies_checkpoints_only(text: str) -> None:
    for skey in (LOG_MLDSA, WITNESS_MLDSA):
        with pytest.raises(MalformedError):
            signer(skey).sign(text, time_s=TIME)
        with pytest.raises(SignatureError, match="cannot have signed this"):
            KeyVerifier(skey.vkey).verify(text, TIME.to_bytes(8, "big") + bytes(2420))
    for skey in (LOG, WITNESS):
        KeyVerifier(skey.vkey).verify(text, signer(skey).sign(text, time_s=TIME))


def test_an_ml_dsa_44_key_of_a_name_beyond_255_bytes_signs_nothing() -> None:
    skey = SKey(name="n" * 256, type=KeyType.COSIGNATURE_MLDSA44, seed=bytes(32))
    with pytest.raises(MalformedError, match="256 bytes"):
        signer(skey).sign(TEXT, time_s=TIME)
