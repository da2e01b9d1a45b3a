"""Entries of an events log: known answers, one spelling, and no other kind taken for an event."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from core.known import CHECKPOINT, changes, signer
from hypothesis import given
from hypothesis import strategies as st

from events import forgeries
from events.known import cases
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.merkle import hash_leaf
from translog.core.note import Signature, format_signature, sign_note
from translog.errors import MalformedError
from translog.events.entry import (
    _NAME,
    EventEntry,
    Numbered,
    StreamCheckpoint,
    entry_kind,
    format_entry,
    format_stream_checkpoint,
    parse_entry,
    parse_stream_checkpoint,
    stream_origin,
)
from translog.identity.principal import NAME_PATTERN

ENTRY = EventEntry(
    member="acme", stream="k8s-prod", seq=17, numbered=Numbered.LOG, received_at_ms=1_763_750_000_123, root=bytes(range(32))
)
LINE = (
    b'{"translog":"event/1","member":"acme","stream":"k8s-prod","seq":17,"numbered":"log","received_at":1763750000123,'
    b'"root":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}'
)
ORIGIN = "log.example.org/audit"


def stream_note(origin: str = f"{ORIGIN}/members/acme/k8s-prod") -> bytes:
    text = format_checkpoint(Checkpoint(origin=origin, size=3, root=bytes(32)))
    return sign_note(text, [signer(forgeries.SENDER)], time_s=1)


STREAM = StreamCheckpoint(member="acme", stream="k8s-prod", note=stream_note())
LARGE = Signature(name="n", key_id=bytes(4), payload=bytes(5_000))
STREAM_LINE = format_stream_checkpoint(STREAM)


def test_known_answers(shared: Path) -> None:
    for case in cases(shared):
        entry = parse_entry(case["entry"])
        assert format_entry(entry) == case["entry"]
        parsed = case["parsed"]
        assert (entry.member, entry.stream, entry.seq) == (parsed["member"], parsed["stream"], parsed["seq"])
        assert (entry.numbered, entry.received_at_ms) == (parsed["numbered"], parsed["received_at"])
        assert entry.root == case["event_root"]
        assert hash_leaf(case["entry"]) == case["entry_leaf_hash"]


def test_an_entry_in_full() -> None:
    assert format_entry(ENTRY) == LINE
    assert parse_entry(LINE) == ENTRY
    assert entry_kind(LINE) == "event/1"


@given(
    st.from_regex(NAME_PATTERN, fullmatch=True),
    st.from_regex(NAME_PATTERN, fullmatch=True),
    st.integers(0, 2**53 - 1),
    st.sampled_from(Numbered),
    st.integers(0, 2**53 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_any_entry_round_trips_and_is_compact_json(
    member: str, stream: str, seq: int, numbered: Numbered, received_at_ms: int, root: bytes
) -> None:
    entry = EventEntry(member=member, stream=stream, seq=seq, numbered=numbered, received_at_ms=received_at_ms, root=root)
    data = format_entry(entry)
    assert parse_entry(data) == entry
    assert len(data) <= 320
    document = json.loads(data)
    assert list(document) == ["translog", "member", "stream", "seq", "numbered", "received_at", "root"]
    assert json.dumps(document, separators=(",", ":")).encode() == data


def test_every_one_byte_change_of_an_entry_is_refused_or_another_entry_in_its_one_spelling() -> None:
    parsed = 0
    for data in changes(LINE):
        try:
            entry = parse_entry(data)
        except MalformedError:
            continue
        parsed += 1
        assert entry != ENTRY
        assert format_entry(entry) == data
    assert parsed > 1_000


@pytest.mark.parametrize("at", range(len(LINE)))
def test_an_entry_cut_short_or_split_by_a_space_is_refused(at: int) -> None:
    for data in (LINE[:at], LINE[:at] + b" " + LINE[at:], LINE[:at] + b"\n" + LINE[at:]):
        with pytest.raises(MalformedError):
            parse_entry(data)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"}", b"}\n"),
        (b"}", b',"seed":1}'),
        (b"event/1", b"event/2"),
        (b'"seq":17', b'"seq":017'),
        (b'"seq":17', b'"seq":-17'),
        (b'"seq":17', b'"seq":1.7e1'),
        (b'"seq":17', b'"seq":9007199254740992'),
        (b'"seq":17', b'"seq":"17"'),
        (b"1763750000123", b"9007199254740992"),
        (b"acme", b"Acme"),
        (b"acme", b""),
        (b"acme", b"-acme"),
        (b"acme", b"acme."),
        (b"acme", b"a" * 64),
        (b"acme", b"a\\u0063me"),
        (b'"log"', b'"nobody"'),
        (b"Hh8=", b"Hh9="),
        (b"Hh8=", b"Hh8"),
        (b'"member":"acme",', b""),
        (b'"member":"acme","stream":"k8s-prod"', b'"stream":"k8s-prod","member":"acme"'),
    ],
)
def test_what_is_no_event_entry_is_refused(old: bytes, new: bytes) -> None:
    assert old in LINE
    with pytest.raises(MalformedError):
        parse_entry(LINE.replace(old, new, 1))


def test_names_are_those_of_members_and_streams() -> None:
    """The pattern is written twice, since the verifier goes without the identity package."""
    assert _NAME.replace("(?:", "(") == NAME_PATTERN.removeprefix("^").removesuffix("$")


def test_a_streams_checkpoint_in_full() -> None:
    head = '{"translog":"stream/1","member":"acme","stream":"k8s-prod","checkpoint":"'
    assert STREAM_LINE.decode().startswith(f"{head}{ORIGIN}/members/acme/k8s-prod\\n3\\n")
    assert STREAM_LINE.endswith(b'\\n"}')
    assert parse_stream_checkpoint(STREAM_LINE) == STREAM
    assert entry_kind(STREAM_LINE) == "stream/1"
    assert stream_origin(ORIGIN, member="acme", stream="k8s-prod") == f"{ORIGIN}/members/acme/k8s-prod"


def test_every_one_byte_change_of_a_streams_checkpoint_is_refused_or_formats_back() -> None:
    for data in changes(STREAM_LINE):
        try:
            found = parse_stream_checkpoint(data)
        except MalformedError:
            continue
        assert found != STREAM
        assert format_stream_checkpoint(found) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        LINE,
        STREAM_LINE[:-1],
        STREAM_LINE + b"\n",
        STREAM_LINE.replace(b",", b", ", 1),
        STREAM_LINE.replace(b'"acme"', b"1"),
        STREAM_LINE.replace(b'"acme"', b'"Acme"'),
        STREAM_LINE.replace(b'"acme"', b'"other"'),
        STREAM_LINE.replace(b'"acme"', b'"acme","member":"acme"'),
        STREAM_LINE.replace(b'"k8s-prod"', b'"other"'),
        STREAM_LINE.replace(b'"acme"', b'"\\ud800"'),
        STREAM_LINE.replace(b"}", b',"extra":1}'),
        b'{"translog":"stream/1","member":"acme","stream":"k8s-prod","checkpoint":1}',
        b'{"translog":"stream/1","member":"acme","stream":"k8s-prod","checkpoint":"note"}',
        b'{"translog":"stream/1"}',
        b'{"translog":"stream/1",' + b"[" * 60_000,
        STREAM_LINE.ljust(65_536),
        format_stream_checkpoint(StreamCheckpoint(member="acme", stream="k8s-prod", note=CHECKPOINT)),
        format_stream_checkpoint(StreamCheckpoint(member="Acme", stream="a", note=stream_note(f"{ORIGIN}/members/Acme/a"))),
        format_stream_checkpoint(StreamCheckpoint(member="a", stream="a b", note=stream_note(f"{ORIGIN}/members/a/a b"))),
        format_stream_checkpoint(replace(STREAM, note=STREAM.note + format_signature(LARGE).encode() * 10)),
    ],
)
def test_what_is_no_streams_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_stream_checkpoint(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b'{"translog":"event/1"', "event/1"),
        (b'{"translog":"key/1","role":"log"}', "key/1"),
        (b'{"translog":"future/7"}', "future/7"),
        (b"", None),
        (b"hello", None),
        (b"{}", None),
        (b' {"translog":"event/1"}', None),
        (b'{"translog": "event/1"}', None),
        (b'{"translog":1}', None),
        (b'{"translog":""}', None),
        (b'{"translog":"a\\u0062"}', None),
        (b'{"translog":"' + b"a" * 65 + b'"}', None),
        (b'{"translog":"\xc3\xa4/1"}', None),
        (b'{"other":1,"translog":"event/1"}', None),
        (b"\xff\xff", None),
    ],
)
def test_the_kind_of_an_entry_is_what_it_says_it_is(data: bytes, kind: str | None) -> None:
    assert entry_kind(data) == kind
