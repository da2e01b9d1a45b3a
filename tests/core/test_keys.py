"""vkeys and private keys: known answers, one spelling each, and a seed that never shows."""

import itertools
import traceback
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.known import (
    ENOCH_VKEY,
    LOG,
    LOG_VKEY,
    PETER_SKEY,
    PETER_VKEY,
    SPEC_VKEY,
    WITNESS,
    WITNESS_MLDSA,
    WITNESS_VKEY,
    text_changes,
)
from translog.core.keys import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    VKEY_CHARS_MAX,
    KeyType,
    SKey,
    VKey,
    format_skey,
    parse_skey,
    parse_vkey,
    sign_bytes,
    verify_bytes,
)
from translog.core.wire import encode_base64
from translog.errors import MalformedError, SignatureError

MLDSA_VKEY = str(WITNESS_MLDSA.vkey)
VKEYS = [LOG_VKEY, WITNESS_VKEY, SPEC_VKEY, PETER_VKEY, ENOCH_VKEY, MLDSA_VKEY]
SKEYS = [LOG, WITNESS, WITNESS_MLDSA]


def vkey_text(name: str, blob: bytes, *, key_id: str | None = None) -> str:
    """A vkey made by the formula of the specification, whatever its parts are."""
    made = sha256(name.encode("utf-8", "surrogatepass") + b"\n" + blob).hexdigest()[:8]
    return f"{name}+{key_id or made}+{encode_base64(blob)}"


# Known answers


def test_public_keys_of_our_seeds_are_the_known_ones() -> None:
    assert str(LOG.vkey) == LOG_VKEY
    assert str(WITNESS.vkey) == WITNESS_VKEY


def test_ml_dsa_44_key_of_our_seed_is_the_known_one() -> None:
    assert (
        sha256(WITNESS_MLDSA.vkey.public_key).hexdigest() == "9f107644c1084526af3bc8098680b05499a2325a644e388fb4f970e058d19d46"
    )
    assert WITNESS_MLDSA.vkey.key_id.hex() == "bb74db26"


def test_the_private_key_of_go_has_the_public_key_of_go() -> None:
    skey = parse_skey(PETER_SKEY)
    assert str(skey.vkey) == PETER_VKEY
    assert format_skey(skey) == PETER_SKEY


@pytest.mark.parametrize("text", VKEYS)
def test_vkeys_parse_and_format_back(text: str) -> None:
    vkey = parse_vkey(text)
    assert str(vkey) == text
    assert vkey.name == text.split("+")[0]
    assert vkey.key_id.hex() == text.split("+")[1]


def test_key_types_have_the_sizes_of_the_specification() -> None:
    assert PUBLIC_KEY_BYTES == {0x01: 32, 0x04: 32, 0x06: 1312}
    assert SIGNATURE_BYTES == {0x01: 64, 0x04: 64, 0x06: 2420}
    assert [key_type.label for key_type in KeyType] == ["Ed25519", "Ed25519", "ML-DSA-44"]


# Refusals of vkeys


@pytest.mark.parametrize("good", [LOG_VKEY, ENOCH_VKEY, WITNESS_VKEY])
def test_every_substring_and_every_changed_character_of_a_vkey_is_refused(good: str) -> None:
    for text in text_changes(good):
        with pytest.raises(MalformedError):
            parse_vkey(text)


def test_every_truncation_and_every_changed_character_of_an_ml_dsa_vkey_is_refused() -> None:
    for at, char in enumerate(MLDSA_VKEY):
        for text in (MLDSA_VKEY[:at], MLDSA_VKEY[:at] + chr(ord(char) ^ 1) + MLDSA_VKEY[at + 1 :], MLDSA_VKEY[at + 1 :]):
            with pytest.raises(MalformedError):
                parse_vkey(text)


@pytest.mark.parametrize(
    "name", ["", "a b", "a\u00a0b", "a\u2003b", "a\u2028b", "a\u0085b", "a\tb", "a\nb", "a\0b", "a\x1fb", "a\ud800b", " a"]
)
def test_a_vkey_of_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(MalformedError, match="not a key name"):
        parse_vkey(vkey_text(name, b"\x01" + bytes(32)))


@pytest.mark.parametrize("name", ["a", "é", "oid/1.3.6.1.4.1.1", "a/b?c=d#e", "\u2014", "\U0001f511", "a\x7fb"])
def test_a_vkey_of_any_other_name_is_read(name: str) -> None:
    assert parse_vkey(vkey_text(name, b"\x01" + bytes(32))).name == name


@pytest.mark.parametrize("type_byte", [0x00, 0x02, 0x03, 0x05, 0x07, 0xFA, 0xFF])
def test_a_vkey_of_another_type_is_refused(type_byte: int) -> None:
    with pytest.raises(MalformedError, match="type not known"):
        parse_vkey(vkey_text("name", bytes([type_byte]) + bytes(32)))


@pytest.mark.parametrize(("type_byte", "size"), [(1, 31), (1, 33), (1, 0), (4, 31), (4, 64), (6, 32), (6, 1311), (6, 1313)])
def test_a_vkey_of_another_length_is_refused(type_byte: int, size: int) -> None:
    with pytest.raises(MalformedError, match="bytes, not"):
        parse_vkey(vkey_text("name", bytes([type_byte]) + bytes(size)))


@pytest.mark.parametrize("key_id", ["D455C521", "d455c5210", "d455c52", "0xd455c5", "d455c521 ", "00000000"])
def test_a_key_id_that_is_not_exactly_the_keys_is_refused(key_id: str) -> None:
    with pytest.raises(MalformedError, match="key ID"):
        parse_vkey(LOG_VKEY.replace("d455c521", key_id))


@pytest.mark.parametrize("text", ["", "+", "++", "name", "name+00000000", "name+00000000+", "++AQ==", "a" * 10_000])
def test_what_is_no_vkey_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_vkey(text)


def test_the_longest_vkey_is_read_and_no_longer_one() -> None:
    rest = len(vkey_text("", b"\x01" + bytes(32)))
    longest = vkey_text("n" * (VKEY_CHARS_MAX - rest), b"\x01" + bytes(32))
    assert str(parse_vkey(longest)) == longest
    with pytest.raises(MalformedError, match="at most 4096"):
        parse_vkey(vkey_text("n" * (VKEY_CHARS_MAX - rest + 1), b"\x01" + bytes(32)))


@given(st.text(min_size=1, max_size=20), st.sampled_from(KeyType), st.data())
def test_any_key_round_trips(name: str, key_type: KeyType, data: st.DataObject) -> None:
    key = VKey(
        name=name, type=key_type, public_key=data.draw(st.binary(min_size=32, max_size=32)) * (PUBLIC_KEY_BYTES[key_type] // 32)
    )
    if any(char == "+" or char.isspace() or char < " " for char in name):
        with pytest.raises(MalformedError):
            parse_vkey(vkey_text(name, bytes([key_type]) + key.public_key))
    else:
        assert parse_vkey(str(key)) == key


# Private keys


@pytest.mark.parametrize("skey", SKEYS)
def test_private_keys_round_trip(skey: SKey) -> None:
    assert parse_skey(format_skey(skey)) == skey


@settings(max_examples=20)
@given(st.binary(min_size=32, max_size=32), st.sampled_from(KeyType))
def test_any_private_key_round_trips(seed: bytes, key_type: KeyType) -> None:
    skey = SKey(name="n", type=key_type, seed=seed)
    assert parse_skey(format_skey(skey)) == skey


def traces_of(skey: SKey) -> list[str]:
    """Pieces of the seed, as it may be spelled, that must not be seen anywhere."""
    encoded = encode_base64(bytes([skey.type]) + skey.seed)
    return [encoded[at : at + 12] for at in range(0, 32, 4)] + [skey.seed.hex()[:16], repr(skey.seed)[2:30]]


def test_every_substring_and_every_change_of_a_private_key_is_refused_without_showing_the_seed() -> None:
    good = format_skey(LOG)
    traces = traces_of(LOG)
    for text in text_changes(good):
        with pytest.raises(MalformedError) as caught:
            parse_skey(text)
        shown = f"{caught.value} {caught.value!r} {caught.value.hint} {caught.value.args}"
        assert not any(trace in shown for trace in traces)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("PRIVATE+KEY+", "PRIVATE+", "must start with"),
        ("+d455c521+", "", "a part is missing"),
        ("log+d455c521", "l g+d455c521", "bad name, type or base64"),
        ("AQAB", "AgAB", "bad name, type or base64"),
        ("HR4f", "HR5=", "bad name, type or base64"),
        ("HR4f", "HR4=", "bad name, type or base64"),
        ("d455c521", "D455C521", "does not belong"),
        ("log+", "other+", "does not belong"),
    ],
)
def test_a_private_key_error_says_what_is_wrong_and_its_traceback_shows_no_seed(old: str, new: str, says: str) -> None:
    text = format_skey(LOG).replace(old, new)
    assert text != format_skey(LOG)
    with pytest.raises(MalformedError, match=says) as caught:
        parse_skey(text)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(trace in shown for trace in traces_of(LOG))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
@pytest.mark.parametrize("key_type", KeyType)
def test_a_seed_of_another_length_is_refused(key_type: KeyType, size: int) -> None:
    with pytest.raises(MalformedError):
        parse_skey("PRIVATE+KEY+" + vkey_text("name", bytes([key_type]) + bytes(size)))


def test_a_private_key_text_beyond_the_limit_is_refused() -> None:
    with pytest.raises(MalformedError):
        parse_skey(format_skey(SKey(name="n" * VKEY_CHARS_MAX, type=KeyType.ED25519, seed=bytes(32))))


@pytest.mark.parametrize("skey", SKEYS)
def test_a_private_key_shows_no_seed(skey: SKey) -> None:
    shown = f"{skey} {skey!r} {[skey]} {skey.vkey} {skey.vkey!r}"
    assert not any(trace in shown for trace in traces_of(skey))
    assert skey.name in repr(skey)


# Signatures


@pytest.mark.parametrize("skey", SKEYS)
def test_a_signature_verifies_for_its_message_and_key_only(skey: SKey) -> None:
    signature = sign_bytes(skey, b"message")
    assert len(signature) == SIGNATURE_BYTES[skey.type]
    verify_bytes(skey.vkey, b"message", signature)
    other = SKey(name=skey.name, type=skey.type, seed=bytes(32))
    for vkey, message, value in (
        (other.vkey, b"message", signature),
        (skey.vkey, b"messagf", signature),
        (skey.vkey, b"", signature),
        (skey.vkey, b"message", signature[:-1]),
        (skey.vkey, b"message", signature + b"\0"),
        (skey.vkey, b"message", b""),
    ):
        with pytest.raises(SignatureError):
            verify_bytes(vkey, message, value)


@pytest.mark.parametrize("skey", SKEYS)
def test_every_changed_bit_of_a_signature_is_refused(skey: SKey) -> None:
    signature = sign_bytes(skey, b"message")
    for at in range(0, len(signature), max(1, len(signature) // 200)):
        for bit in range(8):
            bad = signature[:at] + bytes([signature[at] ^ 1 << bit]) + signature[at + 1 :]
            with pytest.raises(SignatureError):
                verify_bytes(skey.vkey, b"message", bad)


@pytest.mark.parametrize("public_key", [b"\x02" + bytes(31), b"\xff" * 32, bytes(31), b""])
def test_a_public_key_that_is_no_point_of_the_curve_verifies_nothing(public_key: bytes) -> None:
    for key_type in (KeyType.ED25519, KeyType.COSIGNATURE_ED25519):
        with pytest.raises(SignatureError):
            verify_bytes(VKey(name="n", type=key_type, public_key=public_key), b"message", bytes(64))


def test_rfc_8032_test_1() -> None:
    skey = SKey(
        name="n",
        type=KeyType.ED25519,
        seed=bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"),
    )
    assert skey.vkey.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert sign_bytes(skey, b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


def test_the_same_key_bytes_of_two_types_have_two_ids() -> None:
    ids = {VKey(name="n", type=key_type, public_key=bytes(32)).key_id for key_type in KeyType}
    assert len(ids) == 3
    names = itertools.product(("a", "b"), KeyType)
    assert len({VKey(name=name, type=key_type, public_key=bytes(32)).key_id for name, key_type in names}) == 6
