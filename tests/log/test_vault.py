"""Data keys: on the disk before anybody uses them, whole whatever breaks, their owner's alone, never shown. And the two keys in
DIR/keys that belong to an events log."""

import errno
import json
import os
import re
import stat
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translog.errors import CorruptionError, MalformedError, NotFoundError, SettingsError, StorageError
from translog.log import vault as module
from translog.log.keyfiles import create_event_keys, create_log_keys, read_secret
from translog.log.vault import FileKeyWrapper, Vault
from translog.storage import files

ORIGIN = "log.example/vault"
KEK = bytes(range(32))
TIME_MS = 1_763_750_000_123


def numbered() -> Callable[[int], bytes]:
    """Random bytes that are not, and never the same twice."""
    count = iter(range(1, 256))
    return lambda size: bytes([next(count)]) * size


def open_vault(
    directory: Path, *, kek: bytes = KEK, origin: str = ORIGIN, random_bytes: Callable[[int], bytes] = os.urandom
) -> Vault:
    wrapper = FileKeyWrapper(kek, origin=origin, random_bytes=random_bytes)
    return Vault.open(directory, wrapper=wrapper, random_bytes=random_bytes, now_ms=lambda: TIME_MS)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    Vault.create(tmp_path / "vault")
    return tmp_path / "vault"


@pytest.fixture
def filled(directory: Path) -> dict[str, tuple[bytes, bytes]]:
    """What `current` said of two members."""
    vault = open_vault(directory)
    return {member: vault.current(member) for member in ("acme", "b2")}


def require_holds(directory: Path, expected: dict[str, tuple[bytes, bytes]]) -> None:
    vault = open_vault(directory)
    for member, (key_id, key) in expected.items():
        assert vault.current(member) == (key_id, key)
        assert vault.find(key_id) == key


class TestKeys:
    def test_each_member_has_one_and_keeps_it(self, directory: Path) -> None:
        vault = open_vault(directory)
        made = {member: vault.current(member) for member in ("acme", "b2", "acme", "x.y-z")}
        for member, (key_id, _) in made.items():
            assert re.fullmatch(f"{re.escape(member)}/[0-9a-f]{{8}}", key_id.decode())
        assert open_vault(directory).current("acme") == made["acme"]
        assert {len(key) for _, key in made.values()} == {32}
        assert len({key for _, key in made.values()}) == 3
        for key_id, key in made.values():
            assert vault.find(key_id) == key
        require_holds(directory, made)

    def test_the_first_is_on_the_disk_before_anybody_has_it(self, directory: Path) -> None:
        vault = open_vault(directory)
        assert json.loads((directory / "keys.json").read_bytes())["keys"] == []
        expected = vault.current("acme")
        require_holds(directory, {"acme": expected})
        before = (directory / "keys.json").stat()
        assert vault.current("acme") == expected
        assert (directory / "keys.json").stat().st_ino == before.st_ino, "it was written again"

    def test_one_that_is_not_there_is_not_found(self, directory: Path, filled: dict[str, tuple[bytes, bytes]]) -> None:
        vault = open_vault(directory)
        for key_id in (b"acme/2", b"acme", b"", b"\xff\x00"):
            with pytest.raises(NotFoundError) as caught:
                vault.find(key_id)
            assert caught.value.code == "key-unknown"

    def test_the_file_is_what_the_table_says(self, directory: Path) -> None:
        assert (directory / "keys.json").read_bytes() == b'{"translog":"vault/1","keys":[\n]}\n'
        vault = open_vault(directory, random_bytes=numbered())
        for member in ("acme", "b2"):
            vault.current(member)
        text = (directory / "keys.json").read_text()
        document = json.loads(text)
        rows = document["keys"]
        assert [row["id"].partition("/")[0] for row in rows] == ["acme", "b2"]
        lines = [
            f'{{"id":"{row["id"]}","member":"{member}","created_at":{TIME_MS},"wrapped":"{row["wrapped"]}"}}'
            for member, row in zip(("acme", "b2"), rows, strict=True)
        ]
        assert text == '{"translog":"vault/1","keys":[\n' + ",\n".join(lines) + "\n]}\n"

    def test_many_threads_get_the_same_key_and_one_is_written(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        vault = open_vault(directory)
        writes: list[bytes] = []
        real = files.write_file

        def write_file(path: Path, data: bytes, *, mode: int) -> None:
            writes.append(data)
            real(path, data, mode=mode)

        monkeypatch.setattr(module, "write_file", write_file)
        got: list[tuple[str, tuple[bytes, bytes], bytes]] = []
        barrier = threading.Barrier(16)

        def use(member: str) -> None:
            barrier.wait(10)
            for _ in range(50):
                key_id, key = vault.current(member)
                got.append((member, (key_id, key), vault.find(key_id)))

        threads = [threading.Thread(target=use, args=(f"m{n % 4}",)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert len(got) == 800
        assert len({pair for _, pair, _ in got}) == 4
        assert all(key == found for _, (_, key), found in got)
        assert len(writes) == 4
        require_holds(directory, {member: pair for member, pair, _ in got})


class TestSecrecy:
    def test_files_are_their_owners_alone_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            Vault.create(tmp_path / "vault")
            for member in ("acme", "b2"):
                open_vault(tmp_path / "vault").current(member)
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "vault").stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "vault").iterdir()} == {0o600}

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o610, 0o601])
    @pytest.mark.parametrize("what", ["directory", "file"])
    def test_a_vault_that_others_may_touch_is_refused_with_the_way_out(
        self, directory: Path, filled: dict[str, tuple[bytes, bytes]], what: str, mode: int
    ) -> None:
        path = directory if what == "directory" else directory / "keys.json"
        path.chmod(mode | 0o700 if what == "directory" else mode)
        with pytest.raises(SettingsError) as caught:
            open_vault(directory)
        assert caught.value.code == "key-mode"
        right = "700" if what == "directory" else "600"
        assert caught.value.hint == f"chmod {right} {path}"
        path.chmod(int(right, 8))
        require_holds(directory, filled)

    def test_no_key_is_in_the_file_in_errors_or_in_what_is_printed(
        self, directory: Path, filled: dict[str, tuple[bytes, bytes]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        vault = open_vault(directory)
        with pytest.raises(NotFoundError) as unknown:
            vault.find(b"acme/9")
        with pytest.raises(CorruptionError) as wrong:
            open_vault(directory, kek=bytes(32))
        captured = capsys.readouterr()
        data = (directory / "keys.json").read_text() + captured.out + captured.err
        texts = data + repr(vault) + str(vars(vault)["_rows"]) + str(unknown.value) + str(wrong.value)
        for _, key in [*filled.values(), (b"", KEK)]:
            for secret in (key.hex(), b64encode(key).decode(), repr(key)[2:-1]):
                assert secret not in texts
        wrapped = [row["wrapped"] for row in json.loads((directory / "keys.json").read_bytes())["keys"]]
        shown = str(vars(vault)["_rows"]) + str(wrong.value)
        assert not [text for text in wrapped if text in shown or repr(b64decode(text))[2:-1] in shown]


class TestRefusals:
    @pytest.mark.parametrize("what", ["vault", "keys.json"])
    def test_one_that_is_not_there_is_never_made_in_passing(self, directory: Path, what: str) -> None:
        (directory / "keys.json").unlink()
        if what == "vault":
            directory.rmdir()
        with pytest.raises(SettingsError, match="cannot read"):
            open_vault(directory)
        assert not (directory / "keys.json").exists()

    def test_one_that_cannot_be_read_says_so(self, directory: Path) -> None:
        (directory / "keys.json").unlink()
        (directory / "keys.json").mkdir(0o700)
        with pytest.raises(SettingsError, match="Is a directory"):
            open_vault(directory)

    def test_one_that_is_there_is_not_made_again(self, directory: Path, filled: dict[str, tuple[bytes, bytes]]) -> None:
        with pytest.raises(StorageError, match="cannot create"):
            Vault.create(directory)
        require_holds(directory, filled)

    @pytest.mark.parametrize("wrong", ["kek", "origin"])
    def test_keys_that_do_not_unwrap_are_named(
        self, directory: Path, filled: dict[str, tuple[bytes, bytes]], wrong: str
    ) -> None:
        options: dict[str, Any] = {"kek": bytes(32)} if wrong == "kek" else {"origin": "log.example/other"}
        with pytest.raises(CorruptionError) as caught:
            open_vault(directory, **options)
        assert "the data key acme/" in caught.value.detail
        assert "kek.key" in caught.value.hint
        require_holds(directory, filled)

    def test_a_key_under_another_ones_id_does_not_unwrap(self, directory: Path, filled: dict[str, tuple[bytes, bytes]]) -> None:
        path = directory / "keys.json"
        text = path.read_text()
        wrapped = [row["wrapped"] for row in json.loads(text)["keys"]]
        path.write_text(text.replace(wrapped[0], "*").replace(wrapped[1], wrapped[0]).replace("*", wrapped[1]))
        with pytest.raises(CorruptionError, match="the data key acme/"):
            open_vault(directory)

    def test_every_cut_and_what_follows_the_end_is_damage(
        self, directory: Path, filled: dict[str, tuple[bytes, bytes]]
    ) -> None:
        path = directory / "keys.json"
        data = path.read_bytes()
        for cut in [*(data[:end] for end in range(len(data))), data + b"\n", data + data, b" " + data]:
            path.write_bytes(cut)
            with pytest.raises(CorruptionError, match="is damaged"):
                open_vault(directory)
        path.write_bytes(data)
        require_holds(directory, filled)

    def test_every_change_of_a_byte_is_damage_or_another_time(
        self, directory: Path, filled: dict[str, tuple[bytes, bytes]]
    ) -> None:
        """When a key was made is told, not proven."""
        path = directory / "keys.json"
        data = path.read_bytes()
        harmless = 0
        for at in range(len(data)):
            for bit in (0, 1, 5, 7):
                changed = bytearray(data)
                changed[at] ^= 1 << bit
                path.write_bytes(changed)
                try:
                    vault = open_vault(directory)
                except CorruptionError:
                    continue
                harmless += 1
                assert chr(data[at]).isdigit()
                assert chr(changed[at]).isdigit()
                assert {member: vault.current(member) for member in filled} == filled
                assert path.read_bytes() == changed
        assert 0 < harmless <= 2 * 13 * 3

    @given(data=st.binary(max_size=60) | st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["id", "member", "created_at", "wrapped", "acme/1"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["translog", "keys", "id", "member", "created_at", "wrapped"]), inner, max_size=4),
    ).map(lambda value: json.dumps(value).encode()))  # fmt: skip
    def test_whatever_is_read_is_rows_or_malformed(self, data: bytes) -> None:
        try:
            rows = module._parse(data)
        except MalformedError:
            return
        assert module._format(rows) == data

    @pytest.mark.parametrize(
        "row",
        [
            '{"id":"acme/1","member":"b2","created_at":1,"wrapped":""}',
            '{"id":"acme","member":"acme","created_at":1,"wrapped":""}',
            '{"id":"acme/1","member":"acme","created_at":1.0,"wrapped":""}',
            '{"id":"acme/1","member":"acme","created_at":true,"wrapped":""}',
            '{"id":"acme/1","member":"acme","created_at":1,"wrapped":"A"}',
            '{"id":"acme/1","member":"acme","created_at":1,"wrapped":null}',
            '{"id":"acme/1","member":"acme","created_at":1,"wrapped":"","more":1}',
            '{"id":"acme/1","member":"acme","created_at":1,"wrapped":""},\n{"id":"acme/1","member":"acme","created_at":2,"wrapped":""}',
        ],
    )
    def test_rows_that_nobody_writes_are_damage(self, directory: Path, row: str) -> None:
        (directory / "keys.json").write_text(f'{{"translog":"vault/1","keys":[\n{row}\n]}}\n')
        with pytest.raises(CorruptionError, match="is damaged"):
            open_vault(directory)

    def test_another_version_is_not_read(self, directory: Path) -> None:
        path = directory / "keys.json"
        path.write_bytes(path.read_bytes().replace(b"vault/1", b"vault/2"))
        with pytest.raises(CorruptionError):
            open_vault(directory)


# --- broken off at every write ------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """The program ends here, as by a signal."""


@contextmanager
def broken_off(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException, *, applied: bool) -> Iterator[list[str]]:
    """The step of that number fails, before it is done or after: of opening a file, writing, syncing and renaming."""
    steps: list[str] = []

    def breaking(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            steps.append(name)
            if len(steps) - 1 != at:
                return real(*arguments, **options)
            if applied:
                real(*arguments, **options)
            raise error

        return step

    with monkeypatch.context() as patched:
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink")):
            patched.setattr(owner, name, breaking(name, getattr(owner, name)))
        yield steps


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Stopped()], ids=["full", "stopped"])
@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
def test_broken_off_at_every_step_no_key_is_lost_and_none_is_used_that_is_not_kept(
    directory: Path,
    filled: dict[str, tuple[bytes, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    applied: bool,
) -> None:
    whole = (directory / "keys.json").read_bytes()
    for at in range(100):
        (directory / "keys.json").write_bytes(whole)
        vault = open_vault(directory)
        used: dict[str, tuple[bytes, bytes]] = dict(filled)
        expected = Stopped if isinstance(error, Stopped) else StorageError
        with broken_off(monkeypatch, at, error, applied=applied) as steps, suppress(expected):
            used["new"] = vault.current("new")
        require_holds(directory, used)  # as after a crash
        if len(steps) <= at:
            break
        assert "new" not in used, "a failed write was taken for a good one"
        used["new"] = vault.current("new")  # as if it had only failed
        require_holds(directory, used)
        assert [path.name for path in directory.iterdir()] == ["keys.json"]
    assert steps == ["unlink", "open", "fsync", "replace", "open", "fsync"]


# --- DIR/keys -----------------------------------------------------------------------------------------------------------


class TestEventKeys:
    @pytest.fixture
    def keys(self, tmp_path: Path) -> Path:
        create_log_keys(tmp_path / "keys", origin=ORIGIN, random_bytes=os.urandom)
        create_event_keys(tmp_path / "keys", random_bytes=numbered())
        return tmp_path / "keys"

    def test_are_32_bytes_each_as_one_line_of_base64(self, keys: Path) -> None:
        assert read_secret(keys / "dedup.key") == b"\x01" * 32
        assert read_secret(keys / "kek.key") == b"\x02" * 32
        assert (keys / "kek.key").read_bytes() == b64encode(b"\x02" * 32) + b"\n"
        assert {stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()} == {0o600}

    def test_are_never_overwritten(self, keys: Path) -> None:
        with pytest.raises(SettingsError) as caught:
            create_event_keys(keys, random_bytes=os.urandom)
        assert caught.value.code == "key-exists"
        assert read_secret(keys / "dedup.key") == b"\x01" * 32

    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
    def test_that_others_may_read_are_refused(self, keys: Path, mode: int) -> None:
        (keys / "kek.key").chmod(mode)
        with pytest.raises(SettingsError) as caught:
            read_secret(keys / "kek.key")
        assert (caught.value.code, caught.value.hint) == ("key-mode", f"chmod 600 {keys / 'kek.key'}")

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\n",
            b64encode(bytes(31)),
            b64encode(bytes(33)),
            b64encode(bytes(32)).rstrip(b"="),
            b" " + b64encode(bytes(32)),
            b64encode(bytes(32)) + b"\n\n",
            b"\xff" * 44,
            bytes(32),
        ],
    )
    def test_that_are_no_keys_are_refused_without_showing_them(self, keys: Path, content: bytes) -> None:
        (keys / "kek.key").write_bytes(content)
        with pytest.raises(SettingsError) as caught:
            read_secret(keys / "kek.key")
        assert caught.value.code == "bad-key"
        assert not content.strip() or content.decode("latin-1").strip() not in str(caught.value)

    def test_that_are_not_there_say_so(self, keys: Path) -> None:
        (keys / "dedup.key").unlink()
        with pytest.raises(SettingsError, match="cannot read"):
            read_secret(keys / "dedup.key")
