"""Private keys in files: written once, readable by their owner only, refused otherwise, never shown."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from translog.core.keys import KeyType, SKey, format_skey
from translog.errors import SettingsError, StorageError
from translog.log import keyfiles
from translog.log.keyfiles import (
    LOG_KEY_FILES,
    admit_key,
    create_log_keys,
    discard_private_key,
    drop_new_key,
    list_key_files,
    read_first_vkeys,
    read_log_keys,
    read_skey,
    write_new_key,
    write_skey,
)

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


# Several keys of a type

LATER = [SKey(name=ORIGIN, type=kind, seed=bytes([200 + n]) * 32) for n, kind in enumerate([*LOG_KEY_FILES, *LOG_KEY_FILES])]


def new_file(keys: Path) -> keyfiles.KeyFile:
    (file,) = [file for file in list_key_files(keys) if file.form == "skey.new"]
    return file


def add(keys: Path, skey: SKey) -> Path:
    write_new_key(keys, skey)
    admit_key(new_file(keys))
    return keys / f"log-{'ed25519' if skey.type is KeyType.ED25519 else 'mldsa44'}-{skey.vkey.key_id.hex()}.skey"


def test_a_key_that_is_being_added_is_not_in_use_until_it_is(keys: Path) -> None:
    before = read_log_keys(keys, origin=ORIGIN, types=BOTH)
    write_new_key(keys, LATER[0])
    assert read_log_keys(keys, origin=ORIGIN, types=BOTH) == before
    file = new_file(keys)
    assert (file.type, file.key_id, file.read_vkey()) == (LATER[0].type, LATER[0].vkey.key_id.hex(), LATER[0].vkey)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    admit_key(file)
    assert [file.form for file in list_key_files(keys)] == ["skey"] * 3
    assert read_log_keys(keys, origin=ORIGIN, types=BOTH) == [before[0], LATER[0], before[1]]


def test_a_key_that_is_not_to_be_is_gone(keys: Path) -> None:
    write_new_key(keys, LATER[0])
    drop_new_key(keys, LATER[0].vkey)
    drop_new_key(keys, LATER[0].vkey)
    assert sorted(path.name for path in keys.iterdir()) == sorted(LOG_KEY_FILES.values())


def test_the_first_keys_come_first_and_the_others_in_order(keys: Path) -> None:
    first = read_log_keys(keys, origin=ORIGIN, types=BOTH)
    for skey in LATER:
        add(keys, skey)
    found = read_log_keys(keys, origin=ORIGIN, types=BOTH)
    by_id = sorted(LATER, key=lambda skey: skey.vkey.key_id)
    kinds = [[skey for skey in by_id if skey.type is kind] for kind in LOG_KEY_FILES]
    assert found == [first[0], *kinds[0], first[1], *kinds[1]]
    assert read_log_keys(keys, origin=ORIGIN, types={KeyType.ED25519}) == [first[1], *kinds[1]]


@pytest.mark.parametrize("number", [0, 1])
def test_of_a_retired_key_the_public_half_stays(keys: Path, number: int) -> None:
    first = read_log_keys(keys, origin=ORIGIN, types=BOTH)
    for skey in LATER[:2]:
        add(keys, skey)
    file = next(file for file in list_key_files(keys) if file.type is first[number].type)
    discard_private_key(file)
    left = list_key_files(keys)
    assert [file.form for file in left].count("vkey") == 1
    assert not file.path.exists()
    (public,) = [file for file in left if file.form == "vkey"]
    assert (public.path.name, public.read_vkey()) == (f"{file.path.stem}.vkey", first[number].vkey)
    assert all(first[number].seed not in path.read_bytes() for path in keys.iterdir())
    assert first[number] not in read_log_keys(keys, origin=ORIGIN, types=BOTH)
    assert set(read_first_vkeys(keys, origin=ORIGIN)) == {skey.vkey for skey in first}


def test_a_discard_that_was_cut_off_is_done_again(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = add(keys, LATER[0])
    (file,) = [file for file in list_key_files(keys) if file.key_id]

    def cut_off(path: Path, data: bytes, *, mode: int) -> None:
        path.with_name(f"{path.name}.new").write_bytes(data[:50])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(keyfiles, "write_file", cut_off)
        with pytest.raises(StorageError, match="No space left"):
            discard_private_key(file)
    assert path.exists()
    discard_private_key(file)
    assert not path.exists()
    assert [(file.form, file.read_vkey()) for file in list_key_files(keys) if file.key_id] == [("vkey", LATER[0].vkey)]


def test_without_any_key_of_a_type_the_first_is_named(keys: Path) -> None:
    add(keys, LATER[0])
    (keys / LOG_KEY_FILES[LATER[0].type]).unlink()
    assert LATER[0] in read_log_keys(keys, origin=ORIGIN, types=BOTH)
    (keys / LOG_KEY_FILES[LATER[1].type]).unlink()
    with pytest.raises(SettingsError) as caught:
        read_log_keys(keys, origin=ORIGIN, types=BOTH)
    assert caught.value.code == "no-keys"
    assert caught.value.detail.startswith(f"{LOG_KEY_FILES[LATER[1].type]} is missing")


def test_a_later_key_under_another_ones_name_is_refused(keys: Path) -> None:
    path = add(keys, LATER[0])
    path.write_text(format_skey(LATER[2]) + "\n")
    with pytest.raises(SettingsError, match="holds another key than its name says"):
        read_log_keys(keys, origin=ORIGIN, types=BOTH)


def test_a_later_key_that_others_may_read_is_refused(keys: Path) -> None:
    add(keys, LATER[0]).chmod(0o640)
    with pytest.raises(SettingsError) as caught:
        read_log_keys(keys, origin=ORIGIN, types=BOTH)
    assert caught.value.code == "key-mode"


def test_what_is_no_public_key_is_refused(keys: Path) -> None:
    (keys / "log-ed25519.vkey").write_text("x\n")
    (file,) = [file for file in list_key_files(keys) if file.form == "vkey"]
    with pytest.raises(SettingsError, match="holds no public key") as caught:
        file.read_vkey()
    assert caught.value.code == "bad-key"


def test_first_keys_that_cannot_be_read_are_left_out(keys: Path) -> None:
    vkeys = read_first_vkeys(keys, origin=ORIGIN)
    (keys / "log-ed25519.skey").write_text("noise")
    assert read_first_vkeys(keys, origin=ORIGIN) == vkeys[:1]
    assert read_first_vkeys(keys, origin="log.example/other") == []
    assert read_first_vkeys(keys / "nowhere", origin=ORIGIN) == []


@pytest.mark.parametrize(
    "name",
    [
        "log-mldsa44-12345678.skey.old",
        "log-mldsa44-1234567.skey",
        "log-MLDSA44.skey",
        "x-log-mldsa44.skey",
        "log-mldsa44.vkey.new",
    ],
)
def test_other_files_are_nobodys_keys(keys: Path, name: str) -> None:
    before = list_key_files(keys)
    (keys / name).write_text("x")
    assert list_key_files(keys) == before
