"""Private keys in files: written once, for their owner alone, never shown in an error."""

import os
from pathlib import Path

import pytest

from translog.core.keys import KeyType, SKey, format_skey
from translog.errors import SettingsError, StorageError
from translog.log.keyfiles import LOG_KEY_FILES, create_log_keys, read_log_keys, read_skey, write_skey

ORIGIN = "log.example/test"
SKEY = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(range(32)))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def create(keys: Path) -> list[SKey]:
    return create_log_keys(keys, origin=ORIGIN, random_bytes=os.urandom)


def test_created_keys_come_back(keys: Path) -> None:
    created = create(keys)
    assert [key.type for key in created] == [KeyType.COSIGNATURE_MLDSA44, KeyType.ED25519]
    assert len({key.seed for key in created}) == 2
    assert read_log_keys(keys, origin=ORIGIN) == created


def test_only_their_owner_may_read_them(keys: Path) -> None:
    create(keys)
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in keys.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_may_touch_is_refused_and_told_how_to_mend_it(keys: Path, mode: int) -> None:
    create(keys)
    path = keys / LOG_KEY_FILES[KeyType.ED25519]
    path.chmod(mode)
    with pytest.raises(SettingsError) as caught:
        read_log_keys(keys, origin=ORIGIN)
    assert caught.value.code == "key-mode"
    assert caught.value.hint == f"chmod 600 {path}"


def test_keys_are_never_overwritten(keys: Path) -> None:
    created = create(keys)
    with pytest.raises(SettingsError) as caught:
        create(keys)
    assert caught.value.code == "key-exists"
    assert read_log_keys(keys, origin=ORIGIN) == created


def test_a_key_file_is_the_go_form_and_a_newline(tmp_path: Path) -> None:
    write_skey(tmp_path / "key", SKEY)
    assert (tmp_path / "key").read_text() == format_skey(SKEY) + "\n"
    assert read_skey(tmp_path / "key") == SKEY


@pytest.mark.parametrize("lost", list(LOG_KEY_FILES))
def test_one_key_is_enough(keys: Path, lost: KeyType) -> None:
    create(keys)
    (keys / LOG_KEY_FILES[lost]).unlink()
    (key,) = read_log_keys(keys, origin=ORIGIN)
    assert key.type is not lost


@pytest.mark.parametrize("there", [True, False])
def test_no_key_says_which_to_bring_back(keys: Path, there: bool) -> None:
    if there:
        keys.mkdir()
    with pytest.raises(SettingsError) as caught:
        read_log_keys(keys, origin=ORIGIN)
    assert caught.value.code == "no-keys"
    assert all(name in caught.value.hint for name in LOG_KEY_FILES.values())


def test_keys_of_another_log_are_refused(keys: Path) -> None:
    create(keys)
    with pytest.raises(SettingsError, match="log.example/other"):
        read_log_keys(keys, origin="log.example/other")


@pytest.mark.parametrize(
    "content",
    [b"", b"no key", b"\xff", format_skey(SKEY)[:-2].encode(), format_skey(SKEY).encode() + b"\n\n", b"x" * 100_000],
)
def test_what_is_no_key_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_skey(path)
    assert caught.value.code == "bad-key"
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("there", ["nothing", "directory"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, there: str) -> None:
    path = tmp_path / "key"
    if there == "directory":
        path.mkdir(mode=0o700)
    with pytest.raises(SettingsError, match="cannot read"):
        read_skey(path)


def test_what_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        create(tmp_path / "file" / "keys")
    with pytest.raises(StorageError):
        create(tmp_path / "missing" / "keys")
    with pytest.raises(StorageError):
        write_skey(tmp_path / "missing" / "key", SKEY)
