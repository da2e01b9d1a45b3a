"""The schema of an embedded store: keys sort, keep apart and come back; damaged values are refused."""

import json
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.growth import META
from translog.core.merkle import EMPTY_ROOT
from translog.core.tile import LEVEL_MAX
from translog.errors import CorruptionError, SettingsError
from translog.events.entry import Numbered
from translog.storage import keyspace
from translog.storage.store import LogMeta, PayloadRow, Profile, StoredCheckpoint, StreamHead, StreamName, TreeState

NUMBERS = [0, 1, 2, 255, 256, 257, 65_535, 65_536, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
U64 = st.integers(min_value=0, max_value=2**64 - 1)
WHOLE_KEYS = {keyspace.META, keyspace.STATE, keyspace.LATEST}
STREAM = StreamName("acme", "k8s-prod")
KEY, MAC = b"k" * 16, b"m" * 16
MADE = {
    "c": keyspace.kept_checkpoint_key(0),
    "e": keyspace.entry_key(0),
    "t": keyspace.tile_key(0, 0),
    "p": keyspace.payload_key(0),
    "b": keyspace.blob_key(0, 0),
    "i": keyspace.id_row_key(KEY),
    "n": keyspace.stream_row_key(STREAM),
    "q": keyspace.number_key(STREAM, 0),
}
"""A key of each prefix."""
SHORT = st.binary(min_size=16, max_size=16)


def test_the_keys_are_those_of_the_table() -> None:
    assert keyspace.META == b"meta"
    assert keyspace.STATE == b"state"
    assert keyspace.LATEST == b"latest"
    assert keyspace.entry_key(258) == b"e\0\0\0\0\0\0\x01\x02"
    assert keyspace.tile_key(7, 258) == b"t\x07\0\0\0\0\0\0\x01\x02"
    assert keyspace.kept_checkpoint_key(258) == b"c\0\0\0\0\0\0\x01\x02"
    assert keyspace.payload_key(258) == b"p\0\0\0\0\0\0\x01\x02"
    assert keyspace.blob_key(258, 259) == b"b\0\0\0\0\0\0\x01\x02\x01\x03"
    assert keyspace.id_row_key(KEY + MAC) == b"i" + KEY + MAC
    assert keyspace.stream_row_key(STREAM) == b"nacme\0k8s-prod"
    assert keyspace.number_key(STREAM, 258) == b"q" + sha256(b"acme\0k8s-prod").digest()[:16] + b"\0\0\0\0\0\0\x01\x02"
    assert keyspace.uid_key(STREAM, "gr\u00f6\u00dfe") == sha256("acme\0k8s-prod\0gr\u00f6\u00dfe".encode()).digest()[:16]


def test_no_whole_key_begins_with_a_prefix() -> None:
    assert all(key[:1] == letter.encode() for letter, key in MADE.items())
    assert not {key[:1].decode() for key in WHOLE_KEYS} & MADE.keys()
    assert {prefix.decode() for prefix in keyspace.EVENT_PREFIXES} == MADE.keys() - {"c", "e", "t"}


def test_no_other_key_is_among_the_kept_checkpoints() -> None:
    start, end = keyspace.KEPT_CHECKPOINT_START, keyspace.KEPT_CHECKPOINT_END
    others = [*WHOLE_KEYS, *map(keyspace.entry_key, NUMBERS), *(keyspace.tile_key(0, n) for n in NUMBERS)]
    assert not [key for key in others if start <= key < end]
    assert all(start < keyspace.kept_checkpoint_key(n) < end for n in NUMBERS)


def test_keys_sort_by_number() -> None:
    for low, high in pairwise(NUMBERS):
        assert keyspace.entry_key(low) < keyspace.entry_key(high)
        assert keyspace.kept_checkpoint_key(low) < keyspace.kept_checkpoint_key(high)
        assert keyspace.tile_key(3, low) < keyspace.tile_key(3, high)
        assert keyspace.tile_key(3, high) < keyspace.tile_key(4, low)
        assert keyspace.payload_key(low) < keyspace.payload_key(high)
        assert keyspace.blob_key(low, keyspace.BLOBS_MAX) < keyspace.blob_key(high, 0)
        assert keyspace.number_key(STREAM, low) < keyspace.number_key(STREAM, high)
    assert keyspace.blob_key(0, 255) < keyspace.blob_key(0, 256)


@given(number=U64)
def test_numbers_come_back_from_keys(number: int) -> None:
    assert keyspace.entry_index(keyspace.entry_key(number)) == number
    stored = keyspace.decode_kept_checkpoint(keyspace.kept_checkpoint_key(number), b"note")
    assert stored == StoredCheckpoint(size=number, note=b"note")


@pytest.mark.parametrize("level", [-1, LEVEL_MAX + 1, 63, 256])
def test_no_tree_has_a_tile_of_that_level(level: int) -> None:
    with pytest.raises(CorruptionError):
        keyspace.tile_key(level, 0)


class TestState:
    @given(size=U64, root=st.binary(min_size=32, max_size=32), received_at_ms=U64)
    def test_comes_back(self, size: int, root: bytes, received_at_ms: int) -> None:
        state = TreeState(size=size, root=root, received_at_ms=received_at_ms)
        assert keyspace.decode_state(keyspace.encode_state(state)) == state

    def test_is_laid_out_as_the_table_says(self) -> None:
        state = TreeState(size=1, root=EMPTY_ROOT, received_at_ms=2)
        assert keyspace.encode_state(state) == bytes(7) + b"\x01" + EMPTY_ROOT + bytes(7) + b"\x02"

    @pytest.mark.parametrize("length", [0, 1, 40, 47, 49, 96])
    def test_of_another_length_is_damaged(self, length: int) -> None:
        with pytest.raises(CorruptionError):
            keyspace.decode_state(bytes(length))


class TestLatest:
    @given(size=U64, note=st.binary())
    def test_comes_back(self, size: int, note: bytes) -> None:
        checkpoint = StoredCheckpoint(size=size, note=note)
        assert keyspace.decode_latest(keyspace.encode_latest(checkpoint)) == checkpoint

    @pytest.mark.parametrize("length", range(8))
    def test_too_short_for_a_size_is_damaged(self, length: int) -> None:
        with pytest.raises(CorruptionError):
            keyspace.decode_latest(bytes(length))


class TestMeta:
    GOOD = keyspace.encode_meta(META)

    @given(origin=st.text(st.characters(exclude_categories=["Cs"])), profile=st.sampled_from(Profile), minimum_index=U64)
    def test_comes_back(self, origin: str, profile: Profile, minimum_index: int) -> None:
        meta = LogMeta(format_version=1, origin=origin, profile=profile, minimum_index=minimum_index)
        assert keyspace.decode_meta(keyspace.encode_meta(meta)) == meta

    def test_is_compact_json(self) -> None:
        expected = '{"format":1,"origin":"log.example/t\u00e4st","profile":"opaque","minimum_index":0}'
        assert expected.encode() == self.GOOD

    def test_every_cut_is_damaged(self) -> None:
        for end in range(len(self.GOOD)):
            with pytest.raises(CorruptionError):
                keyspace.decode_meta(self.GOOD[:end])

    def test_every_flipped_bit_is_refused_or_is_another_meta(self) -> None:
        """Some flips make another well-formed description: that the store is rotten, checksums tell."""
        for at in range(len(self.GOOD)):
            for bit in range(8):
                flipped = bytearray(self.GOOD)
                flipped[at] ^= 1 << bit
                try:
                    meta = keyspace.decode_meta(bytes(flipped))
                except (CorruptionError, SettingsError):
                    continue
                assert keyspace.encode_meta(meta) == flipped
                assert meta != META

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"null",
            b"[]",
            b"7",
            b"\xff",
            b"[" * 100_000,
            b'{"format":1}',
            b'{"format":1,"origin":"a","profile":"none","minimum_index":0}',
            b'{"format":1,"origin":"a","profile":[],"minimum_index":0}',
            b'{"format":1,"origin":"a","profile":"opaque","minimum_index":0,"more":1}',
            b'{"format":1,"origin":"a","profile":"opaque", "minimum_index":0}',
            b'{"format":1,"origin":"a","origin":"b","profile":"opaque","minimum_index":0}',
            b'{"format":1.0,"origin":"a","profile":"opaque","minimum_index":0} ',
        ],
    )
    def test_anything_else_is_damaged(self, value: bytes) -> None:
        with pytest.raises(CorruptionError):
            keyspace.decode_meta(value)

    @pytest.mark.parametrize("version", [0, 2, 1_000, "1", None])
    def test_of_another_version_says_so(self, version: object) -> None:
        value = json.dumps({"format": version, "anything": "else"}).encode()
        with pytest.raises(SettingsError) as caught:
            keyspace.decode_meta(value)
        assert caught.value.code == "store-version"
        assert caught.value.hint


class TestPayloadRow:
    @given(
        record=st.none() | st.binary(max_size=40),
        told=st.none() | st.tuples(SHORT, SHORT),
        blobs=st.integers(0, keyspace.BLOBS_MAX),
    )
    def test_comes_back(self, record: bytes | None, told: tuple[bytes, bytes] | None, blobs: int) -> None:
        uid_key, mac = told or (None, None)
        row = PayloadRow(record=record, uid_key=uid_key, mac=mac, blobs=blobs)
        assert keyspace.decode_payload_row(keyspace.encode_payload_row(row)) == row

    def test_is_laid_out_as_the_table_says(self) -> None:
        encode = keyspace.encode_payload_row
        assert encode(PayloadRow(record=None)) == b"\x00\x00\x00"
        assert encode(PayloadRow(record=b"record", blobs=258)) == b"\x02\x01\x02record"
        assert encode(PayloadRow(record=None, uid_key=KEY, mac=MAC)) == b"\x01" + KEY + MAC + b"\x00\x00"
        assert encode(PayloadRow(record=b"r", uid_key=KEY, mac=MAC, blobs=1)) == b"\x03" + KEY + MAC + b"\x00\x01r"

    @given(value=st.binary(max_size=50) | st.builds(lambda flags, rest: bytes([flags]) + rest, st.integers(0, 4), st.binary()))
    def test_anything_else_is_damaged(self, value: bytes) -> None:
        try:
            row = keyspace.decode_payload_row(value)
        except CorruptionError:
            return
        assert keyspace.encode_payload_row(row) == value

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"\x00",
            b"\x00\x00",
            b"\x00\x00\x00r",
            b"\x02\x00",
            b"\x01" + KEY + MAC + b"\x00",
            b"\x04\x00\x00",
            b"\xff" * 99,
        ],
    )
    def test_these_are_damaged(self, value: bytes) -> None:
        with pytest.raises(CorruptionError):
            keyspace.decode_payload_row(value)


class TestIds:
    @given(index=U64, mac=SHORT)
    def test_come_back(self, index: int, mac: bytes) -> None:
        assert keyspace.encode_first_id(index, mac) == index.to_bytes(8, "big") + mac
        assert keyspace.decode_first_id(keyspace.encode_first_id(index, mac)) == (index, mac)
        assert keyspace.decode_index(keyspace.encode_index(index)) == index

    @pytest.mark.parametrize("length", [0, 7, 8, 9, 23, 25, 32])
    def test_of_another_length_are_damaged(self, length: int) -> None:
        with pytest.raises(CorruptionError):
            keyspace.decode_first_id(bytes(length))
        if length != 8:
            with pytest.raises(CorruptionError):
                keyspace.decode_index(bytes(length))

    def test_of_other_streams_and_events_are_others(self) -> None:
        names = [("a", "b", "c"), ("a", "b", "cd"), ("a", "bc", "d"), ("ab", "c", "d"), ("a", "b", ""), ("a", "b", "c\0")]
        keys = [keyspace.uid_key(StreamName(member, stream), uid) for member, stream, uid in names]
        assert {len(key) for key in keys} == {16}
        assert len(set(keys)) == len(keys)


class TestStreams:
    @given(numbered=st.sampled_from(Numbered), next_seq=U64, last_index=U64, last_received_at_ms=U64)
    def test_come_back(self, numbered: Numbered, next_seq: int, last_index: int, last_received_at_ms: int) -> None:
        head = StreamHead(numbered=numbered, next_seq=next_seq, last_index=last_index, last_received_at_ms=last_received_at_ms)
        value = keyspace.encode_stream_head(head)
        assert keyspace.decode_stream_row(keyspace.stream_row_key(STREAM), value) == (STREAM, head)

    def test_are_laid_out_as_the_table_says(self) -> None:
        head = StreamHead(numbered=Numbered.SENDER, next_seq=1, last_index=2, last_received_at_ms=3)
        numbers = bytes(7) + b"\x01" + bytes(7) + b"\x02" + bytes(7) + b"\x03"
        assert keyspace.encode_stream_head(head) == b"\x01" + numbers
        log = StreamHead(numbered=Numbered.LOG, next_seq=1, last_index=2, last_received_at_ms=3)
        assert keyspace.encode_stream_head(log) == b"\x00" + numbers

    def test_are_between_the_ends_and_nothing_else_is(self) -> None:
        start, end = keyspace.STREAM_START, keyspace.STREAM_END
        names = [STREAM, StreamName("0", "0"), StreamName("z" * 63, "z" * 63)]
        assert all(start < keyspace.stream_row_key(name) < end for name in names)
        others = [*WHOLE_KEYS, *(key for letter, key in MADE.items() if letter != "n")]
        assert not [key for key in others if start <= key < end]

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            (b"nacme\0k8s", bytes(24)),
            (b"nacme\0k8s", bytes(26)),
            (b"nacme\0k8s", b"\x02" + bytes(24)),
            (b"nacme", bytes(25)),
            (b"nacme\0", bytes(25)),
            (b"n\0k8s", bytes(25)),
            (b"nacme\0k8s\0", bytes(25)),
            (b"n\xff\0k8s", bytes(25)),
            (b"n", bytes(25)),
        ],
    )
    def test_anything_else_is_damaged(self, key: bytes, value: bytes) -> None:
        with pytest.raises(CorruptionError):
            keyspace.decode_stream_row(key, value)
