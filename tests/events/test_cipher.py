"""Payload records: known answers, what opens them, and that nothing else does."""

import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core.known import changes, substrings
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from events.known import cases
from translog.errors import MalformedError, NotFoundError, VerificationError
from translog.events import cipher
from translog.events.cipher import BLOB, open_record, record_key_id, seal_record, unwrap_key, wrap_key

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ORIGIN = "log.example.org/audit"
ROOT = bytes(range(32))
KEY = bytes(range(64, 96))
KEY_ID = b"acme/1"
NONCE = bytes(range(12))
PLAIN = b"plain text " * 9
LIMIT = 1_000_000


def made(plain: bytes = PLAIN, **changes: Any) -> bytes:
    parts: dict[str, Any] = {"data_key": KEY, "key_id": KEY_ID, "origin": ORIGIN, "root": ROOT, "nonce": NONCE}
    return seal_record(plain, **{**parts, **changes})


def opened(record: bytes, **changes: Any) -> bytes:
    parts: dict[str, Any] = {"find_key": lambda _: KEY, "origin": ORIGIN, "root": ROOT, "plain_bytes_max": LIMIT}
    return open_record(record, **{**parts, **changes})


def sealed_by_hand(packed: bytes) -> bytes:
    """A record whose cipher text holds `packed` as it is, where zstd should have been."""
    key = cipher._record_key(KEY, cipher.PAYLOAD, ORIGIN.encode(), ROOT)
    head = made()[: 2 + len(KEY_ID) + 12]
    return head + AESGCM(key).encrypt(NONCE, packed, head + ORIGIN.encode() + ROOT)


RECORD = made()


def test_known_answers(shared: Path) -> None:
    """The record was made by another binding of zstd, so its bytes may be others; it must open."""
    for case in cases(shared):
        keys: list[bytes] = []

        def find(key_id: bytes, case: dict[str, Any] = case, keys: list[bytes] = keys) -> bytes:
            keys.append(key_id)
            data_key: bytes = case["data_key"]
            return data_key

        where = {"origin": case["origin"], "root": case["event_root"]}
        assert open_record(case["record"], find_key=find, plain_bytes_max=LIMIT, **where) == case["payload_whole"]
        assert keys == [case["key_id"]] == [record_key_id(case["record"])]
        again = seal_record(
            case["payload_whole"], data_key=case["data_key"], key_id=case["key_id"], nonce=case["nonce"], **where
        )
        head = 2 + len(case["key_id"]) + 12
        assert again[:head] == case["record"][:head]
        assert open_record(again, find_key=find, plain_bytes_max=LIMIT, **where) == case["payload_whole"]
        derived = cipher._record_key(case["data_key"], cipher.PAYLOAD, case["origin"].encode(), case["event_root"])
        assert derived == case["payload_key"]


@given(st.binary(max_size=5_000), st.binary(min_size=1, max_size=255), st.binary(min_size=12, max_size=12))
def test_any_record_opens_to_what_was_sealed(plain: bytes, key_id: bytes, nonce: bytes) -> None:
    record = made(plain, key_id=key_id, nonce=nonce)
    assert record_key_id(record) == key_id
    assert opened(record) == plain


def test_every_one_byte_change_and_every_part_of_a_record_is_refused() -> None:
    for data in (*changes(RECORD), *substrings(RECORD)):
        with pytest.raises((MalformedError, VerificationError)):
            opened(data)


@pytest.mark.parametrize(
    "changed",
    [
        {"find_key": lambda _: bytes(32)},
        {"origin": "log.example.org/other"},
        {"root": bytes(32)},
        {"label": BLOB},
        {"blob_salt": bytes(16)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_record_opens_under_its_own_key_event_log_and_label_only(changed: dict[str, Any]) -> None:
    with pytest.raises(VerificationError) as caught:
        opened(RECORD, **changed)
    assert caught.value.code == "record-does-not-open"


def test_a_blob_is_bound_to_its_salt() -> None:
    record = made(label=BLOB, blob_salt=bytes(range(16)))
    assert opened(record, label=BLOB, blob_salt=bytes(range(16))) == PLAIN
    for changed in ({}, {"label": BLOB}, {"label": BLOB, "blob_salt": bytes(16)}, {"blob_salt": bytes(range(16))}):
        with pytest.raises(VerificationError):
            opened(record, **changed)


def test_origin_and_root_cannot_be_traded_for_each_other() -> None:
    """The key frames the origin's length, so moving a byte from one to the other gives another key."""
    record = made(origin="log.example.org/audi", root=b"t" + ROOT)
    with pytest.raises(VerificationError):
        opened(record, origin="log.example.org/audit", root=ROOT)


def test_a_plain_text_of_the_largest_size_opens_and_no_larger_one() -> None:
    record = made(bytes(1_000))
    assert opened(record, plain_bytes_max=1_000) == bytes(1_000)
    with pytest.raises(MalformedError, match="larger than 999 bytes") as caught:
        opened(record, plain_bytes_max=999)
    assert caught.value.code == "payload-too-large"


def test_a_bomb_is_not_decompressed() -> None:
    bomb = zstd.compress(bytes(50_000_000))
    assert len(bomb) < 10_000
    record = sealed_by_hand(bomb)
    tracemalloc.start()
    with pytest.raises(MalformedError, match="larger than 1000000 bytes"):
        opened(record)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_frame_that_asks_for_a_large_window_is_refused() -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    frame = compressor.compress(b"a") + compressor.flush()
    with pytest.raises(MalformedError, match="does not decompress"):
        opened(sealed_by_hand(frame))


@pytest.mark.parametrize(
    "damage",
    [
        lambda frame: b"",
        lambda frame: frame[:-1],
        lambda frame: frame + b"\0",
        lambda frame: frame + frame,
        lambda frame: b"\x50\x2a\x4d\x18\0\0\0\0" + frame,
        lambda frame: b"no frame at all",
    ],
    ids=["empty", "cut short", "a byte more", "two frames", "a skippable frame", "none"],
)
def test_what_is_not_one_whole_frame_is_refused(damage: Callable[[bytes], bytes]) -> None:
    frame = zstd.compress(PLAIN)
    assert opened(sealed_by_hand(frame)) == PLAIN
    with pytest.raises(MalformedError) as caught:
        opened(sealed_by_hand(damage(frame)))
    assert caught.value.code == "bad-compression"


def test_what_finding_a_key_raises_passes_through() -> None:
    def erased(key_id: bytes) -> bytes:
        raise NotFoundError("erased", code="key-erased")

    with pytest.raises(NotFoundError) as caught:
        opened(RECORD, find_key=erased)
    assert caught.value.code == "key-erased"


@pytest.mark.parametrize("data", [b"", b"\1", b"\1\0", b"\2" + RECORD[1:], b"\0" + RECORD[1:], b"\1\xff" + RECORD[2:40]])
def test_no_key_id_is_read_from_what_is_no_record(data: bytes) -> None:
    assert record_key_id(data) is None
    with pytest.raises(MalformedError) as caught:
        opened(data)
    assert caught.value.code == "unknown-record"


@pytest.mark.parametrize("changed", [{"key_id": b""}, {"key_id": bytes(256)}, {"nonce": bytes(11)}, {"nonce": bytes(13)}])
def test_no_record_is_made_that_could_not_be_read(changed: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        made(**changed)


def test_compressors_are_used_again_and_frames_stay_apart() -> None:
    cipher._idle.clear()
    plains = [bytes([n]) * (n * 37 % 400) for n in range(64)]
    records = [made(plain) for plain in plains]
    assert len(cipher._idle) == 1
    assert [opened(record) for record in records] == plains
    assert records == [made(plain) for plain in plains]


def test_a_wrapped_key_opens_under_its_kek_id_and_log_only() -> None:
    kek = bytes(range(32))
    wrapped = wrap_key(KEY, kek=kek, key_id=KEY_ID, origin=ORIGIN, nonce=NONCE)
    assert KEY not in wrapped
    assert unwrap_key(wrapped, kek=kek, key_id=KEY_ID, origin=ORIGIN) == KEY
    for changed in ({"kek": KEY}, {"key_id": b"acme/2"}, {"origin": "log.example.org/other"}):
        with pytest.raises(VerificationError) as caught:
            unwrap_key(wrapped, **{"kek": kek, "key_id": KEY_ID, "origin": ORIGIN, **changed})  # type: ignore[arg-type]
        assert caught.value.code == "key-does-not-open"
    for data in (*changes(wrapped), *substrings(wrapped), wrapped + b"\0"):
        with pytest.raises((MalformedError, VerificationError)):
            unwrap_key(data, kek=kek, key_id=KEY_ID, origin=ORIGIN)


def test_a_wrapped_key_by_hand() -> None:
    """u8 1 || nonce || AES-256-GCM, bound to label, framed key id and origin."""
    kek = bytes(range(32))
    bound = b"translog/wrap/1\x06acme/1log.example.org/audit"
    by_hand = b"\1" + NONCE + AESGCM(kek).encrypt(NONCE, KEY, bound)
    assert wrap_key(KEY, kek=kek, key_id=KEY_ID, origin=ORIGIN, nonce=NONCE) == by_hand


@pytest.mark.parametrize("changed", [{"key": b""}, {"key": bytes(31)}, {"nonce": bytes(11)}, {"key_id": bytes(256)}])
def test_no_key_is_wrapped_that_could_not_be_unwrapped(changed: dict[str, bytes]) -> None:
    parts = {"key": KEY, "kek": bytes(32), "key_id": KEY_ID, "nonce": NONCE, **changed}
    with pytest.raises(MalformedError):
        wrap_key(parts.pop("key"), origin=ORIGIN, **parts)
