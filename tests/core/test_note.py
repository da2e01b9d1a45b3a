"""Signed notes: known answers, whose signatures count, and that no changed note opens as another one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.known import (
    CHECKPOINT,
    ENOCH_VKEY,
    LOG,
    LOG_LINE,
    LOG_MLDSA,
    LOG_VKEY,
    PETER_LINE,
    PETER_SKEY,
    PETER_TEXT,
    PETER_VKEY,
    SPEC_NOTE,
    SPEC_VKEY,
    TEXT,
    TIME,
    WITNESS,
    WITNESS_LINE,
    WITNESS_MLDSA,
    WITNESS_VKEY,
    changes,
    signer,
    substrings,
    verifier,
)
from translog.core.keys import KeyType, SKey, parse_skey
from translog.core.note import (
    NOTE_BYTES_MAX,
    SIGNATURES_MAX,
    Note,
    Signature,
    Verifier,
    format_note,
    format_signature,
    is_key_name,
    open_note,
    parse_note,
    parse_signature,
    sign_note,
    verify_note,
)
from translog.core.wire import encode_base64
from translog.errors import MalformedError, SignatureError

PETER_NOTE = (PETER_TEXT + "\n" + PETER_LINE).encode()
KNOWN = [verifier(LOG_VKEY), verifier(WITNESS_VKEY)]


def line_of(name: str, blob: bytes) -> str:
    return f"\u2014 {name} {encode_base64(blob)}\n"


# Known answers


def test_the_example_of_the_specification_opens() -> None:
    opened = open_note(SPEC_NOTE, [verifier(SPEC_VKEY)])
    assert opened.text == "This is an example message.\n"
    assert [signature.name for signature in opened.verified] == ["example.com/foo"]
    assert opened.unverified == ()


def test_the_note_of_go_opens_and_is_signed_the_same() -> None:
    assert open_note(PETER_NOTE, [verifier(PETER_VKEY)]).text == PETER_TEXT
    assert sign_note(PETER_TEXT, [signer(parse_skey(PETER_SKEY))], time_s=TIME) == PETER_NOTE


def test_our_known_checkpoint_opens_and_is_signed_the_same() -> None:
    assert sign_note(TEXT, [signer(LOG), signer(WITNESS)], time_s=TIME) == CHECKPOINT
    opened = open_note(CHECKPOINT, KNOWN)
    assert opened.text == TEXT
    assert [signature.name for signature in opened.verified] == ["example.com/log", "example.com/witness"]


# Splitting


def test_a_note_splits_at_its_last_empty_line() -> None:
    for text in ("\n", "a\n", "a\n\nb\n", "\n\n\n", "a\n\n\u2014 b AAAA\n", "\u2014 example.com/log AAAA\n"):
        data = sign_note(text, [signer(LOG)], time_s=TIME)
        assert parse_note(data).text == text
        assert open_note(data, KNOWN).text == text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        b"text\n\n\n",
        b"text" + LOG_LINE.encode(),
        b"text\n" + LOG_LINE.encode(),
        b"text\n\n" + LOG_LINE.encode()[:-1],
        b"text\n\n" + LOG_LINE.encode() + b"\n",
        b"text\n\n" + LOG_LINE.encode() + b"more\n",
        b"text\n\n" + LOG_LINE.encode() + b" " + LOG_LINE.encode(),
        b"text\r\n\r\n" + LOG_LINE.encode(),
        b"te\txt\n\n" + LOG_LINE.encode(),
        b"te\0xt\n\n" + LOG_LINE.encode(),
        b"te\xffxt\n\n" + LOG_LINE.encode(),
        b"te\xed\xa0\x80xt\n\n" + LOG_LINE.encode(),
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_note(data)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\u2014",
        "\u2014 ",
        "\u2014 name",
        "\u2014 name ",
        "\u2014 name AAAAAA",
        "\u2014 name AAAA",
        "\u2014 name AAAAAA==",
        "\u2014 name AAAAAAA=\n",
        "\u2014 name  AAAAAAA=",
        "\u2014  name AAAAAAA=",
        "\u2014 na me AAAAAAA=",
        "\u2014 na+me AAAAAAA=",
        "\u2014 na\u00a0me AAAAAAA=",
        "\u2014 na\u2003me AAAAAAA=",
        "\u2014 na\nme AAAAAAA=",
        "\u2014 name AAAAAAA",
        "\u2014 name AAAAAAB=",
        "\u2014 name AAAAAAA= ",
        "\u2014 name AAAA\u2014AAA=",
        "\u2013 name AAAAAAA=",
        "- name AAAAAAA=",
        "\u2014name AAAAAAA=",
        " \u2014 name AAAAAAA=",
        "\u2014 \ud800 AAAAAAA=",
        "name AAAAAAA=",
    ],
)
def test_what_is_no_signature_line_is_refused(line: str) -> None:
    with pytest.raises(MalformedError):
        parse_signature(line)


def test_the_shortest_signature_line_has_one_byte_after_the_key_id() -> None:
    assert parse_signature("\u2014 n AAECA/8=") == Signature(name="n", key_id=bytes(range(4)), payload=b"\xff")


def test_key_names() -> None:
    assert all(map(is_key_name, ["a", "\u2014", "example.com/log", "a#b", "a\x7f", "\U0001f511"]))
    spaces = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2007\u200a\u2028\u2029\u202f\u205f\u3000"
    for bad in ("", "a+b", *(f"a{char}b" for char in spaces), *(f"a{chr(n)}" for n in range(32)), "a\ud800", "\udfffa"):
        assert not is_key_name(bad)


def test_more_than_100_signatures_or_1_mb_are_refused() -> None:
    line = line_of("n", bytes(5))
    assert len(parse_note(("t\n\n" + line * SIGNATURES_MAX).encode()).signatures) == SIGNATURES_MAX == 100
    with pytest.raises(MalformedError, match="more than 100"):
        parse_note(("t\n\n" + line * (SIGNATURES_MAX + 1)).encode())
    rest = len(("\n\n" + line).encode())
    assert parse_note(("t" * (NOTE_BYTES_MAX - rest) + "\n\n" + line).encode())
    with pytest.raises(MalformedError, match="at most 1000000"):
        parse_note(("t" * (NOTE_BYTES_MAX - rest + 1) + "\n\n" + line).encode())


def test_16_ml_dsa_signatures_are_read_and_verified() -> None:
    signers = [signer(SKey(name=f"w{n}", type=KeyType.COSIGNATURE_MLDSA44, seed=bytes([n]) * 32)) for n in range(16)]
    data = sign_note(TEXT, signers, time_s=TIME)
    assert len(open_note(data, [verifier(str(each.skey.vkey)) for each in signers]).verified) == 16


# Whose signature counts


def test_a_note_of_no_known_key_is_refused() -> None:
    for verifiers in ([], [verifier(PETER_VKEY)], [verifier(ENOCH_VKEY), verifier(SPEC_VKEY)]):
        with pytest.raises(SignatureError, match=r"signed by example.com/log\+d455c521, example.com/witness") as caught:
            open_note(CHECKPOINT, verifiers)
        assert caught.value.code == "unknown-key"


def test_lines_of_unknown_keys_are_ignored_and_returned_unverified() -> None:
    opened = open_note(CHECKPOINT, [verifier(LOG_VKEY)])
    assert [signature.name for signature in opened.verified] == ["example.com/log"]
    assert [signature.name for signature in opened.unverified] == ["example.com/witness"]


def test_a_name_or_a_key_id_alone_does_not_make_a_key_known() -> None:
    log = parse_signature(LOG_LINE[:-1])
    half = [
        format_signature(Signature(name="example.com/other", key_id=log.key_id, payload=log.payload)),
        format_signature(Signature(name=log.name, key_id=b"\0\0\0\0", payload=log.payload)),
        format_signature(Signature(name=log.name, key_id=log.key_id[::-1], payload=b"\0")),
    ]
    opened = open_note((TEXT + "\n" + "".join(half) + LOG_LINE).encode(), KNOWN)
    assert opened.verified == (log,)
    assert len(opened.unverified) == 3
    with pytest.raises(SignatureError):
        open_note((TEXT + "\n" + "".join(half)).encode(), KNOWN)


@pytest.mark.parametrize("payload", [b"\0", bytes(64), bytes(72), bytes(63), bytes(65), bytes(2428)])
def test_a_line_of_a_known_key_that_does_not_verify_spoils_the_note(payload: bytes) -> None:
    for name, key_id in (("example.com/log", "d455c521"), ("example.com/witness", "098ef77f")):
        bad = line_of(name, bytes.fromhex(key_id) + payload)
        good = WITNESS_LINE if "log" in name else LOG_LINE
        for lines in (bad + good, good + bad, bad):
            with pytest.raises(SignatureError):
                open_note((TEXT + "\n" + lines).encode(), KNOWN)


def test_repeats_of_a_known_key_count_once_and_must_all_verify() -> None:
    bad = line_of("example.com/log", bytes.fromhex("d455c521") + bytes(64))
    opened = open_note((TEXT + "\n" + LOG_LINE + LOG_LINE).encode(), KNOWN)
    assert opened.verified == (parse_signature(LOG_LINE[:-1]),)
    assert opened.unverified == ()
    for lines in (bad + LOG_LINE, LOG_LINE + bad):
        with pytest.raises(SignatureError):
            open_note((TEXT + "\n" + lines).encode(), KNOWN)


def test_verified_signatures_keep_the_order_of_the_note() -> None:
    opened = open_note((TEXT + "\n" + WITNESS_LINE + LOG_LINE).encode(), KNOWN)
    assert [signature.name for signature in opened.verified] == ["example.com/witness", "example.com/log"]


def test_a_signature_of_another_text_does_not_verify() -> None:
    for text in (TEXT[:-1] + " \n", TEXT + "more\n", "\n" + TEXT):
        for line in (LOG_LINE, WITNESS_LINE):
            with pytest.raises(SignatureError):
                open_note((text + "\n" + line).encode(), KNOWN)


# Every small change


@pytest.mark.parametrize(
    ("good", "verifiers"), [(CHECKPOINT, KNOWN), (SPEC_NOTE, [verifier(SPEC_VKEY)]), (PETER_NOTE, [verifier(PETER_VKEY)])]
)
def test_every_substring_and_change_of_a_note_is_refused_or_formats_back_and_never_opens_as_another(
    good: bytes, verifiers: list[Verifier]
) -> None:
    """What still opens has lost a line, or has one whose name or key ID is no longer that of a known key, which is then
    ignored. The text and what was verified of it are the same as before."""
    text, signatures = parse_note(good).text, set(parse_note(good).signatures)
    opened_count = 0
    for data in (*substrings(good), *changes(good)):
        try:
            note = parse_note(data)
        except MalformedError:
            continue
        assert format_note(note.text, note.signatures) == data
        try:
            opened = verify_note(note, verifiers)
        except SignatureError:
            continue
        opened_count += 1
        assert opened.text == text
        assert set(opened.verified) < signatures
    assert (opened_count > 0) == (len(signatures) > 1)


# Signing


def test_a_text_that_would_parse_as_another_note_is_not_signed() -> None:
    for text in ("", "no newline", "a\rb\n", "a\tb\n", "a\0b\n"):
        with pytest.raises(MalformedError):
            sign_note(text, [signer(LOG)], time_s=TIME)
    with pytest.raises(MalformedError, match="parse as another one"):
        sign_note("a\n\n\u2014 n AAAAAAA=", [signer(LOG)], time_s=TIME)
    with pytest.raises(MalformedError):
        sign_note(TEXT, [], time_s=TIME)


def test_a_signer_of_a_bad_name_signs_no_note() -> None:
    with pytest.raises(MalformedError):
        sign_note(TEXT, [signer(SKey(name="a b", type=KeyType.ED25519, seed=bytes(32)))], time_s=TIME)


def test_all_kinds_of_keys_may_sign_one_note() -> None:
    skeys = [LOG, LOG_MLDSA, WITNESS, WITNESS_MLDSA]
    data = sign_note(TEXT, [signer(skey) for skey in skeys], time_s=TIME)
    assert len(open_note(data, [verifier(str(skey.vkey)) for skey in skeys]).verified) == 4


NAMES = st.text(min_size=1, max_size=12).filter(is_key_name)
LINES = st.builds(
    Signature,
    name=NAMES,
    key_id=st.binary(min_size=4, max_size=4),
    payload=st.binary(min_size=1, max_size=80),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]).filter(lambda char: char >= " " or char == "\n")).map(
    lambda t: t + "\n"
)


@given(TEXTS, st.lists(LINES, min_size=1, max_size=4))
def test_any_note_round_trips(text: str, signatures: list[Signature]) -> None:
    assert parse_note(format_note(text, signatures)) == Note(text=text, signatures=tuple(signatures))


@given(LINES)
def test_any_signature_line_round_trips(signature: Signature) -> None:
    assert parse_signature(format_signature(signature).removesuffix("\n")) == signature
