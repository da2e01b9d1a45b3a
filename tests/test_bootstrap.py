"""A log's directory that is not what it should be: a clear error or a read-only log, and all there again once mended.

Every test starts from a log of 300 published entries in one run and 20 more in another, so that its store has tables and a
write-ahead log. Tests that need a file system of their own skip where mounting one is not allowed.
"""

import asyncio
import errno
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli.harness import require_plain, run_program
from client.serving import ORIGIN, make_log, policy_for, served, url_of
from log.harness import until

from translog.bootstrap import LogServer, create_log
from translog.cli.main import exit_code_of
from translog.client.remote import RemoteLog
from translog.client.submit import Submitter
from translog.client.transport import Transport
from translog.config import FILE_NAME
from translog.core.merkle import EMPTY_ROOT, hash_leaf
from translog.core.note import parse_note
from translog.core.policy import Policy, parse_policy
from translog.errors import CorruptionError, RemoteError, SettingsError, StorageError, TranslogError
from translog.index.lookup import LeafLookup
from translog.log.head import HeadFile
from translog.log.keyfiles import LOG_KEY_FILES, read_secret, read_skey
from translog.log.lifecycle import Mode
from translog.log.settings import SigningKey
from translog.log.vault import FileKeyWrapper, Vault
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import Profile

ENTRIES = [b"entry %d" % index for index in range(320)]

try:
    import plyvel
except ImportError:  # a Python it has no wheel for
    import plyvel_next as plyvel


async def fill(directory: Path) -> Policy:
    """Makes the log of ENTRIES."""
    policy = policy_for(make_log(directory))
    for start, end in ((0, 300), (300, 320)):
        async with served(directory) as server, Submitter(url_of(server)) as submitter:
            await submitter.append(ENTRIES[start:end], policy)
    return policy


class Log:
    """A copy of the log that a test may spoil."""

    def __init__(self, directory: Path, policy: Policy) -> None:
        self.directory = directory
        self.policy = policy

    async def require_whole(self, more: bytes = b"one more") -> None:
        """Everything that was ever acknowledged is there, and the log takes and signs more."""
        async with served(self.directory) as server:
            assert server.service.mode is Mode.OPEN
            async with Submitter(url_of(server)) as submitter, RemoteLog(url_of(server), self.policy) as remote:
                (appended,) = await submitter.append([more], self.policy)
                await remote.refresh()
                assert (await remote.entries(start=0, end=appended.index))[: len(ENTRIES)] == ENTRIES

    async def refusal(self) -> TranslogError:
        """Why it cannot be served: an error of exit code 4, the directory let go of again."""
        with pytest.raises(TranslogError) as caught:
            async with served(self.directory):
                pass
        error = caught.value
        assert exit_code_of(error) == 4
        assert "\n" not in error.detail
        return error

    async def require_read_only(self, code: str, *, size: int = len(ENTRIES)) -> None:
        """It serves `size` entries, says why it is held, and takes nothing."""
        async with served(self.directory) as server:
            assert server.service.mode is Mode.HELD
            assert server.service.held is not None
            assert server.service.held.code == code
            assert server.service.held.hint
            async with Submitter(url_of(server)) as submitter, RemoteLog(url_of(server), self.policy) as remote:
                with pytest.raises(RemoteError) as caught:
                    await submitter.append([b"no"], self.policy)
                assert (caught.value.status, caught.value.code) == (503, "read-only")
                await remote.refresh()
                assert await remote.entries(start=0, end=remote.latest.checkpoint.size) == ENTRIES[:size]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Policy]:
    directory = tmp_path_factory.mktemp("master") / "log"
    return directory, asyncio.run(fill(directory))


@pytest.fixture
def log(master: tuple[Path, Policy], tmp_path: Path) -> Log:
    shutil.copytree(master[0], tmp_path / "log")
    return Log(tmp_path / "log", master[1])


@contextmanager
def without(path: Path) -> Iterator[None]:
    """Takes a file or directory away, and brings it back over whatever was put there meanwhile."""
    away = path.parent.parent / f"{path.name}.away"
    path.rename(away)
    yield
    if path.is_dir():
        shutil.rmtree(path)
    away.rename(path)


def only(log: Log, pattern: str) -> Path:
    """The last file of the store of that pattern."""
    return sorted((log.directory / "log").glob(pattern))[-1]


async def test_an_unspoilt_copy_is_whole(log: Log) -> None:
    await log.require_whole()


# Made


def modes(directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}


def test_a_log_of_events_is_made_with_a_vault_and_its_keys(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    vkeys = create_log(directory, origin=ORIGIN, profile=Profile.EVENTS)
    assert [vkey.name for vkey in vkeys] == [ORIGIN, ORIGIN]
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        assert (store.meta.profile, store.read_streams()) == (Profile.EVENTS, {})
        store.close()
    found = modes(directory)
    private = {"keys/log-ed25519.skey", "keys/log-mldsa44.skey", "keys/dedup.key", "keys/kek.key", "vault/keys.json"}
    assert {found[name] for name in private} == {0o600}
    assert {found[name] for name in ("keys", "vault")} == {0o700}
    assert private == {name for name in found if name.startswith(("keys/", "vault/"))}
    secrets = [read_secret(directory / "keys" / name) for name in ("dedup.key", "kek.key")]
    assert len(set(secrets)) == 2
    wrapper = FileKeyWrapper(secrets[1], origin=ORIGIN, random_bytes=os.urandom)
    vault = Vault.open(directory / "vault", wrapper=wrapper, random_bytes=os.urandom, now_ms=lambda: 1)
    assert vault.current("acme")[0].startswith(b"acme/")


def test_an_opaque_log_has_neither(tmp_path: Path) -> None:
    create_log(tmp_path / "log", origin=ORIGIN, profile=Profile.OPAQUE)
    assert {path.name for path in (tmp_path / "log").iterdir()} == {"keys", "log", "head", "lock", "translog.toml"}
    assert {path.name for path in (tmp_path / "log" / "keys").iterdir()} == set(LOG_KEY_FILES.values())


@pytest.mark.parametrize("what", ["create_event_keys", "Vault.create", "LevelDBStore.create", "write_settings"])
def test_a_log_of_events_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"translog.bootstrap.{what}", fail)
        with pytest.raises(StorageError):
            create_log(tmp_path / "log", origin=ORIGIN, profile=Profile.EVENTS)
    assert not any(tmp_path.iterdir())
    create_log(tmp_path / "log", origin=ORIGIN, profile=Profile.EVENTS)


# Of another log or version


async def test_settings_of_another_log_are_refused(log: Log) -> None:
    path = log.directory / FILE_NAME
    text = path.read_text()
    for name, changed in (
        ("origin", text.replace(ORIGIN, "log.example/other")),
        ("profile", text.replace('"opaque"', '"events"')),
    ):
        path.write_text(changed)
        error = await log.refusal()
        assert error.code == "store-of-another-log"
        assert error.detail.startswith(f"settings say {name} = ")
    path.write_text(text)
    await log.require_whole()


@pytest.mark.parametrize(("name", "value"), [("origin", ORIGIN), ("profile", "opaque")])
async def test_settings_that_do_not_say_which_log_are_refused_with_the_line_to_add(log: Log, name: str, value: str) -> None:
    path = log.directory / FILE_NAME
    line = f'{name} = "{value}"'
    path.write_text(path.read_text().replace(f"{line}\n", ""))
    error = await log.refusal()
    assert (error.code, error.detail) == ("bad-settings", f"translog.toml does not say {name}")
    assert error.hint == f"add the line {line}"
    path.write_text(f"{line}\n{path.read_text()}")
    await log.require_whole()


async def test_the_store_of_another_log_is_refused(log: Log, tmp_path: Path) -> None:
    make_log(tmp_path / "other", origin="log.example/other")
    with without(log.directory / "log"):
        shutil.copytree(tmp_path / "other" / "log", log.directory / "log")
        assert (await log.refusal()).code == "store-of-another-log"
    await log.require_whole()


async def test_the_keys_of_another_log_are_refused(log: Log, tmp_path: Path) -> None:
    make_log(tmp_path / "other", origin="log.example/other")
    with without(log.directory / "keys"):
        shutil.copytree(tmp_path / "other" / "keys", log.directory / "keys")
        assert "is named 'log.example/other'" in (await log.refusal()).detail
    await log.require_whole()


async def test_the_head_of_another_log_holds(log: Log) -> None:
    with without(log.directory / "head"):
        HeadFile.create(log.directory / "head", origin="log.example/other", size=0, root=EMPTY_ROOT)
        await log.require_read_only("head-of-another-log")
    await log.require_whole()


@pytest.mark.parametrize("version", [b"2", b"0", b'"1"', b"null"])
async def test_a_store_of_another_version_is_refused(log: Log, version: bytes) -> None:
    before = _write_meta(log, _read_meta(log).replace(b'"format":1', b'"format":' + version))
    error = await log.refusal()
    assert isinstance(error, SettingsError)
    assert error.code == "store-version"
    _write_meta(log, before)
    await log.require_whole()


@pytest.mark.parametrize("meta", [b"", b"{}", b"noise", b'{"format":1}', b"[" * 10_000], ids=range(5))
async def test_a_store_whose_description_is_damaged_is_refused(log: Log, meta: bytes) -> None:
    before = _write_meta(log, meta)
    assert isinstance(await log.refusal(), CorruptionError)
    _write_meta(log, before)
    await log.require_whole()


def _read_meta(log: Log) -> bytes:
    with plyvel.DB(str(log.directory / "log")) as db:
        meta: bytes = db.get(b"meta")
        return meta


def _write_meta(log: Log, meta: bytes) -> bytes:
    """Returns what was there."""
    before = _read_meta(log)
    with plyvel.DB(str(log.directory / "log")) as db:
        db.put(b"meta", meta, sync=True)
    return before


# Half deleted


async def test_a_missing_current_file_is_refused(log: Log) -> None:
    with without(log.directory / "log" / "CURRENT"):
        error = await log.refusal()
        assert (error.code, "half deleted" in error.detail) == ("no-store", True)
    await log.require_whole()


@pytest.mark.parametrize("pattern", ["MANIFEST-*", "*.ldb"])
async def test_missing_files_of_the_store_are_refused(log: Log, pattern: str) -> None:
    path = only(log, pattern)
    with without(path):
        error = await log.refusal()
        assert isinstance(error, CorruptionError)
        assert path.name in error.detail
        assert "bring the files back" in error.hint
    await log.require_whole()


async def test_a_missing_write_ahead_log_is_refused_and_can_be_brought_back(log: Log) -> None:
    with without(only(log, "*.log")):
        before = _store_files(log)
        error = await log.refusal()
        assert isinstance(error, CorruptionError)
        assert "has lost its write-ahead log (*.log)" in error.detail
        assert "bring the file back" in error.hint
        assert _store_files(log) == before
    await log.require_whole()


def _store_files(log: Log) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (log.directory / "log").iterdir()}


async def test_a_missing_store_is_refused(log: Log) -> None:
    with without(log.directory / "log"):
        assert (await log.refusal()).code == "no-store"
        assert not (log.directory / "log").exists()
    await log.require_whole()


@pytest.mark.parametrize("content", [None, b"", b"noise", bytes(8_192)])
async def test_a_head_that_is_missing_or_damaged_holds(log: Log, content: bytes | None) -> None:
    with without(log.directory / "head"):
        if content is not None:
            (log.directory / "head").write_bytes(content)
        await log.require_read_only("head-lost")
    await log.require_whole()


async def test_missing_keys_are_refused(log: Log) -> None:
    with without(log.directory / "keys"):
        assert (await log.refusal()).code == "no-keys"
    await log.require_whole()


@pytest.mark.parametrize("name", LOG_KEY_FILES.values())
async def test_one_missing_key_is_refused(log: Log, name: str) -> None:
    with without(log.directory / "keys" / name):
        error = await log.refusal()
        assert (error.code, error.detail) == ("no-keys", f"{name} is missing in {log.directory / 'keys'}")
    await log.require_whole()


@pytest.mark.parametrize("key", SigningKey)
async def test_a_log_can_sign_with_one_of_its_keys_and_no_other_need_be_there(log: Log, key: SigningKey) -> None:
    path = log.directory / FILE_NAME
    text = path.read_text()
    path.write_text(f'{text}[log]\nsign_with = ["{key}"]\n')
    (other,) = (name for key_type, name in LOG_KEY_FILES.items() if key_type is not key.type)
    skey = read_skey(log.directory / "keys" / LOG_KEY_FILES[key.type])
    policy = parse_policy(f"log {skey.vkey}\nquorum none\n".encode())
    with without(log.directory / "keys" / other):
        async with served(log.directory) as server, Submitter(url_of(server)) as submitter:
            await submitter.append([b"signed once"], policy)
            note = parse_note(await submitter.checkpoint())
            assert [(line.name, line.key_id) for line in note.signatures] == [(ORIGIN, skey.vkey.key_id)]
            assert (await submitter.info()).vkeys == (skey.vkey,)
    path.write_text(text)
    await log.require_whole()


async def test_missing_settings_are_refused(log: Log) -> None:
    with without(log.directory / FILE_NAME):
        assert (await log.refusal()).code == "no-settings"
    await log.require_whole()


@pytest.mark.parametrize("name", ["lock", "log/LOCK", "log/LOG"])
async def test_files_that_say_nothing_may_be_missing(log: Log, name: str) -> None:
    (log.directory / name).unlink()
    await log.require_whole()


async def test_the_derived_index_may_be_deleted_or_broken_off(log: Log) -> None:
    path = log.directory / FILE_NAME
    path.write_text(path.read_text() + "[log]\nleaf_lookup = true\n")
    for _ in range(2):
        async with served(log.directory) as server, RemoteLog(url_of(server), log.policy) as remote:
            await remote.refresh()
            assert await _find(server, ENTRIES[319]) == 319
        shutil.rmtree(log.directory / "index")


async def _find(server: LogServer, entry: bytes) -> int:
    """The index that the log's derived look-up knows, once it has followed."""
    path = f"v1/proofs/inclusion?leaf_hash={hash_leaf(entry).hex()}"
    async with asyncio.timeout(20), Transport(url_of(server)) as transport:
        while True:
            try:
                index: int = json.loads(await transport.get(path, bytes_max=100_000))["index"]
                return index
            except RemoteError as error:
                if error.code != "unknown-leaf":
                    raise
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("content", [b"noise" * 1_000, b"", b"SQLite format 3\0" + b"\xa5" * 5_000], ids=range(3))
async def test_a_damaged_derived_index_is_rebuilt_and_does_not_stop_the_log(log: Log, content: bytes) -> None:
    path = log.directory / FILE_NAME
    path.write_text(path.read_text() + "[log]\nleaf_lookup = true\n")
    (log.directory / "index").mkdir()
    (log.directory / "index" / "leaves.sqlite").write_bytes(content)
    async with served(log.directory) as server:
        assert await _find(server, ENTRIES[319]) == 319


async def test_a_derived_index_of_another_log_is_rebuilt(log: Log) -> None:
    path = log.directory / FILE_NAME
    path.write_text(path.read_text() + "[log]\nleaf_lookup = true\n")
    other = LeafLookup(log.directory / "index" / "leaves.sqlite", origin="log.example/other", size=5)
    other.apply(0, [ENTRIES[7]])
    other.close()
    async with served(log.directory) as server:
        assert await _find(server, ENTRIES[7]) == 7


# Keys and modes


@pytest.mark.parametrize("name", LOG_KEY_FILES.values())
async def test_keys_that_others_may_read_are_refused_with_the_way_out(log: Log, name: str) -> None:
    path = log.directory / "keys" / name
    path.chmod(0o644)
    error = await log.refusal()
    assert (error.code, error.hint) == ("key-mode", f"chmod 600 {path}")
    path.chmod(0o600)
    await log.require_whole()


async def test_a_damaged_key_is_refused(log: Log) -> None:
    path = log.directory / "keys" / "log-ed25519.skey"
    before = path.read_bytes()
    path.write_bytes(before[:-5])
    assert (await log.refusal()).code == "bad-key"
    path.write_bytes(before)
    await log.require_whole()


# One at a time, and start-up that fails


async def test_a_directory_is_served_once(log: Log) -> None:
    async with served(log.directory):
        assert (await log.refusal()).code == "directory-in-use"
    await log.require_whole()


async def test_an_older_copy_of_the_whole_store_is_read_only(log: Log, tmp_path: Path) -> None:
    shutil.copytree(log.directory / "log", tmp_path / "older")
    await log.require_whole()
    shutil.rmtree(log.directory / "log")
    shutil.copytree(tmp_path / "older", log.directory / "log")
    await log.require_read_only("store-behind-head")


async def test_a_start_that_fails_late_lets_go_of_everything(log: Log) -> None:
    async with served(log.directory, listen="127.0.0.1:0") as server:
        taken = server.address
        other = log.directory.parent / "other"
        make_log(other, origin="log.example/second")
        for overrides in ({"listen": taken}, {"admin_listen": taken}):
            with pytest.raises(SettingsError) as caught:
                async with served(other, **overrides):
                    pass
            assert caught.value.code == "cannot-listen"
    async with served(other):
        pass


async def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "nowhere", tmp_path):
        with pytest.raises(SettingsError):
            async with served(path):
                pass


def test_the_program_says_it_in_a_sentence_and_exits_with_4(log: Log) -> None:
    (log.directory / "log" / "CURRENT").unlink()
    result = run_program("serve", log.directory, "--listen", "127.0.0.1:0", "--admin-listen", "")
    lines = require_plain(result, 4)
    assert lines[0] == f"translog: there is no store in {log.directory / 'log'}, or it is half deleted"


# File systems that do not do as they are told


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.path)], check=True)

    def fill(self) -> None:
        """Takes all the room that is left."""
        with (self.path / "ballast").open("wb", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def make_room(self) -> None:
        (self.path / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs takes root and a file system namespace that allows it")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def on_disk(disk: Disk, log: Log) -> Log:
    """The log, moved to a small file system."""
    shutil.copytree(log.directory, disk.path / "log")
    return Log(disk.path / "log", log.policy)


async def test_a_read_only_directory_is_refused(disk: Disk, on_disk: Log) -> None:
    disk.remount("ro")
    error = await on_disk.refusal()
    assert isinstance(error, StorageError)
    assert "Read-only file system" in error.detail
    disk.remount("rw")
    await on_disk.require_whole()


async def test_a_log_cannot_be_created_on_a_read_only_or_full_disk(disk: Disk) -> None:
    disk.fill()
    with pytest.raises(StorageError, match="No space left on device"):
        make_log(disk.path / "new")
    disk.make_room()
    disk.remount("ro")
    with pytest.raises(StorageError, match="Read-only file system"):
        make_log(disk.path / "new")
    disk.remount("rw")
    assert not any(disk.path.iterdir())
    make_log(disk.path / "new")


async def test_a_log_does_not_start_on_a_full_disk_and_is_whole_afterwards(disk: Disk, on_disk: Log) -> None:
    disk.fill()
    error = await on_disk.refusal()
    assert isinstance(error, StorageError)
    assert "No space left on device" in error.detail
    disk.make_room()
    await on_disk.require_whole()


async def test_a_disk_that_fills_up_refuses_entries_and_loses_none(disk: Disk, on_disk: Log) -> None:
    path = on_disk.directory / FILE_NAME
    path.write_text(path.read_text() + "[log]\nreopen_wait_ms = 1\nretry_after_ms = 1\n")
    acknowledged = list(ENTRIES)
    async with served(on_disk.directory) as server, Submitter(url_of(server)) as submitter:
        disk.fill()
        entries = [bytes([1]) * 60_000] * 4
        with pytest.raises(RemoteError) as caught:  # noqa: PT012  # how many go into the buffers is not ours to know
            while len(acknowledged) < 1_000:
                await submitter.append(entries, on_disk.policy)
                acknowledged += entries
        assert caught.value.status == 503
        assert caught.value.code in ("outcome-unknown", "storage", "not-open")
        disk.make_room()
        await until(lambda: server.service.mode is Mode.OPEN)
        (after,) = await submitter.append([b"there is room again"], on_disk.policy)
        async with RemoteLog(url_of(server), on_disk.policy) as remote:
            await remote.refresh()
            found = await remote.entries(start=0, end=after.index + 1)
    assert found[: len(acknowledged)] == acknowledged
    assert found[-1] == b"there is room again"
    await on_disk.require_whole()


async def test_a_log_can_be_created_in_an_empty_mounted_directory(disk: Disk) -> None:
    policy = policy_for(make_log(disk.path))
    assert sorted(path.name for path in disk.path.iterdir()) == ["head", "keys", "lock", "log", FILE_NAME]
    async with served(disk.path) as server, Submitter(url_of(server)) as submitter:
        assert len(await submitter.append([b"first"], policy)) == 1
    with pytest.raises(SettingsError) as caught:
        make_log(disk.path)
    assert caught.value.code == "log-exists"


async def test_a_creation_that_fails_leaves_a_mounted_directory_empty(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("translog.bootstrap.write_settings", fail)
        with pytest.raises(StorageError, match="No space left on device"):
            make_log(disk.path)
    assert not any(disk.path.iterdir())
    make_log(disk.path)
