"""Requests, answers and sizes: one spelling each, and bounded. What follows what is in test_service.py."""

import pytest

from translog.core.note import Signature, format_signature
from translog.core.wire import encode_base64
from translog.errors import MalformedError
from translog.witness.protocol import (
    ANSWER_BYTES_MAX,
    ANSWER_SIGNATURES_MAX,
    PROOF_HASHES_MAX,
    REQUEST_BYTES_MAX,
    AddCheckpoint,
    format_add_checkpoint,
    format_cosignatures,
    format_size,
    monitoring_path,
    parse_add_checkpoint,
    parse_cosignatures,
    parse_size,
)

SOFA = "example.com/behind-the-sofa"
EXAMPLE = f"""\
old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

{SOFA}
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— {SOFA} Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— {SOFA} opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
""".encode()
"""From the specification, as is the answer."""
BEFORE = "— witness.example"
ANSWER = f"""\
{BEFORE}/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==
{BEFORE}/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==
""".encode()


def test_the_specifications_request_is_read_and_written_back() -> None:
    request = parse_add_checkpoint(EXAMPLE)
    assert request.old == 20852014
    assert [encode_base64(value)[:4] for value in request.proof] == ["PlRN", "jrJZ", "5+pK", "/6WV"]
    assert request.note.startswith(b"example.com/behind-the-sofa\n20852163\n")
    assert format_add_checkpoint(request) == EXAMPLE


def test_the_specifications_answer_is_read_and_written_back() -> None:
    signatures = parse_cosignatures(ANSWER)
    assert [signature.name for signature in signatures] == ["witness.example/w1", "witness.example/w2"]
    assert format_cosignatures(signatures) == ANSWER


def test_a_proof_has_63_hashes_at_most() -> None:
    request = AddCheckpoint(old=1, proof=(bytes(32),) * PROOF_HASHES_MAX, note=b"note")
    assert parse_add_checkpoint(format_add_checkpoint(request)) == request
    with pytest.raises(MalformedError):
        format_add_checkpoint(AddCheckpoint(old=1, proof=(bytes(32),) * (PROOF_HASHES_MAX + 1), note=b"note"))


def test_a_request_is_bounded() -> None:
    head = len(b"old 0\n\n")
    parse_add_checkpoint(b"old 0\n\n" + b"n" * (REQUEST_BYTES_MAX - head))
    with pytest.raises(MalformedError):
        parse_add_checkpoint(b"old 0\n\n" + b"n" * (REQUEST_BYTES_MAX - head + 1))


def test_what_would_not_be_read_is_not_written() -> None:
    for bad in (
        AddCheckpoint(old=-1, proof=(), note=b"n"),
        AddCheckpoint(old=2**63, proof=(), note=b"n"),
        AddCheckpoint(old=0, proof=(bytes(31),), note=b"n"),
        AddCheckpoint(old=0, proof=(), note=b""),
    ):
        with pytest.raises(MalformedError):
            format_add_checkpoint(bad)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        ANSWER[:-1],
        ANSWER + b"\n",
        b"\n" + ANSWER,
        ANSWER.replace(b"\n", b"\r\n"),
        b"- w AAAAAAA=\n",
        b"\xff\n",
        b"{}\n",
    ],
)
def test_an_answer_of_anything_else_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_cosignatures(body)


def test_an_answer_is_bounded() -> None:
    line = format_signature(Signature(name="w", key_id=b"abcd", payload=b"s")).encode()
    assert len(parse_cosignatures(line * ANSWER_SIGNATURES_MAX)) == ANSWER_SIGNATURES_MAX
    with pytest.raises(MalformedError):
        parse_cosignatures(line * (ANSWER_SIGNATURES_MAX + 1))
    long = format_signature(Signature(name="w" * ANSWER_BYTES_MAX, key_id=b"abcd", payload=b"s")).encode()
    with pytest.raises(MalformedError):
        parse_cosignatures(long)


def test_a_size_is_one_line() -> None:
    for size in (0, 1, 12, 2**63 - 1):
        assert parse_size(format_size(size)) == size
    assert format_size(12) == b"12\n"
    for body in (
        b"",
        b"12",
        b"12\n\n",
        b"12\n3\n",
        b"12\n" + b"x" * 100,
        b" 12\n",
        b"012\n",
        b"-1\n",
        b"9223372036854775808\n",
        b"\xd9\xa1\n",
    ):
        with pytest.raises(MalformedError):
            parse_size(body)


def test_the_monitoring_path_is_the_hash_of_the_origin() -> None:
    assert (
        monitoring_path("example.com/behind-the-sofa")
        == "5fd2dc0beb4ce54da5050cf6d5c75248b023abad441c3cecde3976fbe9da4fe4/checkpoint"
    )
