"""The schema of an embedded store: keys sort, keep apart and come back; damaged values are refused."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.growth import META
from translog.core.merkle import EMPTY_ROOT
from translog.core.tile import LEVEL_MAX
from translog.errors import CorruptionError, SettingsError
from translog.storage import keyspace
from translog.storage.store import LogMeta, Profile, StoredCheckpoint, TreeState

NUMBERS = [0, 1, 2, 255, 256, 257, 65_535, 65_536, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
U64 = st.integers(min_value=0, max_value=2**64 - 1)
WHOLE_KEYS = {keyspace.META, keyspace.STATE, keyspace.LATEST}
PREFIXES = {"c": "kept checkpoints", "e": "entries", "t": "tiles"}
RESERVED = {"p", "i", "q", "b"}


def test_the_keys_are_those_of_the_table() -> None:
    assert keyspace.META == b"meta"
    assert keyspace.STATE == b"state"
    assert keyspace.LATEST == b"latest"
    assert keyspace.entry_key(258) == b"e\0\0\0\0\0\0\x01\x02"
    assert keyspace.tile_key(7, 258) == b"t\x07\0\0\0\0\0\0\x01\x02"
    assert keyspace.kept_checkpoint_key(258) == b"c\0\0\0\0\0\0\x01\x02"


def test_no_whole_key_begins_with_a_prefix() -> None:
    assert not {key[:1].decode() for key in WHOLE_KEYS} & (PREFIXES.keys() | RESERVED)
    assert not PREFIXES.keys() & RESERVED
    prefixes = {keyspace.entry_key(0)[:1], keyspace.tile_key(0, 0)[:1], keyspace.kept_checkpoint_key(0)[:1]}
    assert prefixes == {letter.encode() for letter in PREFIXES}


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
