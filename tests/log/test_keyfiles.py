"""Private keys in files: written once, readable by their owner only, refused otherwise, never shown."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from translog.core.keys import KeyType, SKey, format_skey
from translog.errors import SettingsError, StorageError
from translog.log.keyfiles import LOG_KEY_FILES, create_log_keys, read_log_keys, read_skey, write_skey

ORIGIN = "log.example/keys"
BOTH = frozenset(LOG_KEY_FILES)
SKEY = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(range(32)))


def numbered() -> Callable[[int], bytes]:
    """Random bytes that are not."""
    count = iter(range(256))
    return lambda size: bytes([next(count)]) * size


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    create_log_keys(tmp_path / "keys", origin=ORIGIN, random_bytes=numbered())
    return tmp_path / "keys"


def refusal(path: Path) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        read_skey(path)
    assert "PRIVATE" not in str(caught.value)
    return caught.value


def test_a_key_of_each_type_is_made_from_seeds_of_its_own(tmp_path: Path) -> None:
    asked: list[int] = []

    def random_bytes(size: int) -> bytes:
        asked.append(size)
        return bytes([len(asked)]) * size

    made = create_log_keys(tmp_path / "keys", origin=ORIGIN, random_bytes=random_bytes)
    assert asked == [32, 32]
    assert [(skey.name, skey.type) for skey in made] == [(ORIGIN, KeyType.COSIGNATURE_MLDSA44), (ORIGIN, KeyType.ED25519)]
    assert made[0].seed != made[1].seed
    assert read_log_keys(tmp_path / "keys", origin=ORIGIN, types=BOTH) == made


def test_modes_let_nobody_else_in_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_log_keys(tmp_path / "keys", origin=ORIGIN, random_bytes=numbered())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o610, 0o777])
def test_keys_that_others_may_touch_are_refused_with_the_way_out(keys: Path, mode: int) -> None:
    path = keys / "log-ed25519.skey"
    path.chmod(mode)
    error = refusal(path)
    assert error.code == "key-mode"
    assert f"mode 0{mode:o}" in error.detail
    assert error.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    assert read_skey(path).name == ORIGIN


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_modes_of_the_owner_alone_are_fine(keys: Path, mode: int) -> None:
    (keys / "log-ed25519.skey").chmod(mode)
    assert read_skey(keys / "log-ed25519.skey").type is KeyType.ED25519


def test_keys_are_never_overwritten(keys: Path) -> None:
    before = (keys / "log-ed25519.skey").read_bytes()
    with pytest.raises(SettingsError) as caught:
        write_skey(keys / "log-ed25519.skey", SKEY)
    assert caught.value.code == "key-exists"
    with pytest.raises(SettingsError):
        create_log_keys(keys, origin=ORIGIN, random_bytes=numbered())
    assert (keys / "log-ed25519.skey").read_bytes() == before


def test_a_place_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot create"):
        create_log_keys(tmp_path / "file" / "keys", origin=ORIGIN, random_bytes=numbered())
    with pytest.raises(StorageError, match="cannot write"):
        write_skey(tmp_path / "nowhere" / "key", SKEY)


@pytest.mark.parametrize("key_type", LOG_KEY_FILES)
def test_keys_that_are_not_asked_for_need_not_be_there(keys: Path, key_type: KeyType) -> None:
    for other in BOTH - {key_type}:
        (keys / LOG_KEY_FILES[other]).unlink()
    (skey,) = read_log_keys(keys, origin=ORIGIN, types={key_type})
    assert (skey.name, skey.type) == (ORIGIN, key_type)


@pytest.mark.parametrize("key_type", LOG_KEY_FILES)
def test_keys_that_are_not_asked_for_are_not_read(keys: Path, key_type: KeyType) -> None:
    for other in BOTH - {key_type}:
        (keys / LOG_KEY_FILES[other]).write_bytes(b"noise")
    assert [skey.type for skey in read_log_keys(keys, origin=ORIGIN, types={key_type})] == [key_type]


@pytest.mark.parametrize("lost", [[KeyType.ED25519], [KeyType.COSIGNATURE_MLDSA44], list(LOG_KEY_FILES)])
def test_a_lost_key_is_not_a_key_switched_off(keys: Path, lost: list[KeyType]) -> None:
    for key_type in lost:
        (keys / LOG_KEY_FILES[key_type]).unlink()
    with pytest.raises(SettingsError) as caught:
        read_log_keys(keys, origin=ORIGIN, types=BOTH)
    error = caught.value
    assert error.code == "no-keys"
    assert [name in error.detail for name in LOG_KEY_FILES.values()] == [key_type in lost for key_type in LOG_KEY_FILES]
    assert str(keys) in error.detail
    assert "log.sign_with" in error.hint


def test_keys_of_another_log_are_refused(keys: Path) -> None:
    with pytest.raises(SettingsError, match=r"is named 'log\.example/keys', this log is"):
        read_log_keys(keys, origin="log.example/other", types=BOTH)


def test_one_key_of_another_log_is_enough(keys: Path) -> None:
    (keys / "log-ed25519.skey").unlink()
    write_skey(keys / "log-ed25519.skey", SKey(name="log.example/other", type=KeyType.ED25519, seed=bytes(32)))
    with pytest.raises(SettingsError, match=r"is named 'log\.example/other'"):
        read_log_keys(keys, origin=ORIGIN, types=BOTH)


CONTENTS = [
    b"",
    b"\n",
    b"PRIVATE+KEY+secretly",
    b"\xff\xfe\x00",
    b"x" * 100_000,
    format_skey(SKEY).encode() + b"\n\n",
    b" " + format_skey(SKEY).encode(),
    format_skey(SKEY).encode()[:-1],
    format_skey(SKEY).encode().replace(b"PRIVATE", b"private"),
    str(SKEY.vkey).encode(),
]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_files_that_hold_no_key_are_refused_without_showing_it(keys: Path, content: bytes) -> None:
    path = keys / "log-ed25519.skey"
    path.write_bytes(content)
    error = refusal(path)
    assert error.code == "bad-key"
    assert "secretly" not in str(error)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    assert f"cannot read {tmp_path / 'key'}: No such file" in refusal(tmp_path / "key").detail


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir(mode=0o700)
    assert "Is a directory" in refusal(tmp_path / "key").detail


def test_names_beyond_ascii_are_read_back(tmp_path: Path) -> None:
    made = create_log_keys(tmp_path / "keys", origin="log.example/\xfc", random_bytes=numbered())
    assert read_log_keys(tmp_path / "keys", origin="log.example/\xfc", types=BOTH) == made


def test_a_key_of_the_other_type_than_its_file_says_is_refused(keys: Path) -> None:
    (keys / "log-mldsa44.skey").write_bytes((keys / "log-ed25519.skey").read_bytes())
    with pytest.raises(SettingsError, match=r"log-mldsa44\.skey holds a key of another type") as caught:
        read_log_keys(keys, origin=ORIGIN, types=BOTH)
    assert caught.value.code == "bad-key"
