"""`translog backup` and `translog restore`: of logs that run and that do not, whole and damaged; what a restored log may do.

Most tests start from a log of 300 published entries in one run and 20 more in another, every checkpoint of which was kept.
Tests that need a file system of their own skip where mounting one is not allowed.
"""

import asyncio
import errno
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from client.serving import ORIGIN, make_log, policy_for, served, url_of
from log.check_log import Tree, check_log
from log.sources import MemorySource, TreeLog
from storage.backends import PLYVEL

from cli.harness import Result, require_plain, run, run_program
from translog.client.remote import RemoteLog
from translog.client.submit import Submitter
from translog.config import FILE_NAME, read_settings
from translog.core.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.integrate import integrate, load_edge
from translog.core.keys import KeyType, SKey
from translog.core.merkle import EMPTY_ROOT, hash_leaf, verify_consistency
from translog.core.note import parse_note, sign_note
from translog.core.policy import Policy, format_log_policy, verify_checkpoint
from translog.core.proof import verify_receipt
from translog.core.tile import encode_bundle
from translog.errors import RemoteError
from translog.log.backup import back_up
from translog.log.head import SLOT_BYTES, HeadFile, decode_slot
from translog.log.keyfiles import LOG_KEY_FILES, read_skey
from translog.log.lifecycle import Mode
from translog.storage import keyspace
from translog.storage.folder import Folder
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.source import encode_kept
from translog.storage.store import LogMeta, Profile, StoredCheckpoint, TreeState, Update

ENTRIES = [b"entry %d" % index for index in range(320)]
RESUME = "--nothing-newer-was-signed"


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Policy]:
    directory = tmp_path_factory.mktemp("master") / "log"
    return directory, asyncio.run(_fill(directory))


async def _fill(directory: Path) -> Policy:
    policy = policy_for(make_log(directory))
    with (directory / FILE_NAME).open("a") as file:
        file.write("[log]\nkeep_checkpoint_interval_ms = 0\nreopen_wait_ms = 1\n")
    for start, end in ((0, 300), (300, 320)):
        async with served(directory) as server, Submitter(url_of(server)) as submitter:
            await submitter.append(ENTRIES[start:end], policy)
    return policy


class Log:
    """A copy of the log, and where its backup goes."""

    def __init__(self, directory: Path, policy: Policy) -> None:
        self.directory = directory
        self.policy = policy
        self.out = directory.parent / "out"
        self.new = directory.parent / "new"

    def rows(self) -> dict[bytes, bytes]:
        return rows_of(self.directory)

    def back_up(self, *options: object) -> Result:
        """Backs up the directory, which must succeed."""
        return require_done(run("backup", self.directory, self.out, *options))

    def restore(self, *options: object, source: object = None) -> Any:
        """Restores, which must succeed; what it says as JSON."""
        result = require_done(run("restore", source or self.out, self.new, *options, "--json"))
        return json.loads(result.out)

    def bring_settings(self) -> None:
        """What the owner brings from elsewhere."""
        shutil.copy(self.directory / FILE_NAME, self.new / FILE_NAME)
        if not (self.new / "keys").exists():
            shutil.copytree(self.directory / "keys", self.new / "keys")

    @property
    def newest(self) -> bytes:
        """The note that was published last."""
        return self.rows()[keyspace.LATEST][8:]


def require_done(result: Result) -> Result:
    assert result.code == 0, result.err
    return result


def rows_of(directory: Path) -> dict[bytes, bytes]:
    """Every row of a store."""
    with PLYVEL.DB(str(directory / "log")) as db:
        return dict(db.iterator())


def tree_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def log(master: tuple[Path, Policy], tmp_path: Path) -> Log:
    shutil.copytree(master[0], tmp_path / "log")
    return Log(tmp_path / "log", master[1])


@pytest.fixture
def policy_file(log: Log, tmp_path: Path) -> Path:
    """The policy of the log, which trusts either of its keys."""
    path = tmp_path / "policy"
    vkeys = [read_skey(log.directory / "keys" / name).vkey for name in LOG_KEY_FILES.values()]
    path.write_text("".join(f"log {vkey}\n" for vkey in vkeys) + "quorum none\n")
    return path


def commit_unpublished(directory: Path, entries: list[bytes]) -> None:
    """What a log leaves that is killed between commit and publication."""
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        state = store.read_state()
        grown = integrate(load_edge(store, size=state.size, root=state.root), entries)
        new = TreeState(size=grown.edge.size, root=grown.edge.root, received_at_ms=state.received_at_ms + 1)
        store.commit(Update(old_size=state.size, state=new, entries=entries, tiles=grown.tiles))
        store.close()


# --- of a directory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["backup", "directory"])
def test_a_log_comes_back_row_by_row(log: Log, source: str) -> None:
    before = log.rows()
    said = log.back_up().out
    assert f"OK: {log.out} holds {ORIGIN}, 320 entries, root " in said
    assert "new: 320 entries, 3 checkpoints" in said
    restored = log.restore(source=log.out if source == "backup" else log.directory)
    assert (restored["size"], restored["may_sign"]) == (320, False)
    assert rows_of(log.new) == before == log.rows()
    assert sorted(path.name for path in log.new.iterdir()) == ["head", "lock", "log", FILE_NAME]
    assert read_settings(log.new).origin == ORIGIN
    assert stat.S_IMODE(log.new.stat().st_mode) == 0o700


@pytest.mark.parametrize("more", [0, 1, 64, 300])
async def test_what_was_not_published_is_in_it_and_a_web_server_shows_what_was(log: Log, more: int) -> None:
    entries = [b"more %d" % n for n in range(more)]
    if more:
        commit_unpublished(log.directory, entries)
    before = log.rows()
    log.back_up()
    assert json.loads(run("fsck", log.out, "--json", "--processes", 1).out)["size"] == 320 + more
    with web_server(log.out) as url:
        async with RemoteLog(url, log.policy) as remote:
            await remote.refresh()
            assert remote.latest.checkpoint.size == 320
            assert await remote.entries(start=0, end=320) == ENTRIES
            for index in (0, 255, 256, 319):
                receipt = await remote.receipt(index)
                verify_receipt(receipt, leaf_hash=hash_leaf(ENTRIES[index]), policy=log.policy)
            assert await remote.root(300) == Tree(ENTRIES).root(0, 300)
    log.restore()
    assert rows_of(log.new) == before
    log.bring_settings()
    assert run("resume", log.new, RESUME).code == 0
    async with served(log.new) as server, RemoteLog(url_of(server), log.policy) as remote:
        await remote.refresh()
        assert await remote.entries(start=0, end=320 + more) == ENTRIES + entries


@contextmanager
def web_server(folder: Path, handler: Callable[..., BaseHTTPRequestHandler] | None = None) -> Iterator[str]:
    """Any web server, with the folder as its root."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the parameter's name is theirs
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), handler or partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_log_without_entries_or_a_checkpoint(tmp_path: Path) -> None:
    policy = policy_for(make_log(tmp_path / "log"))
    log = Log(tmp_path / "log", policy)
    for published in (False, True):
        if published:
            async with served(log.directory):
                pass
        log.back_up()
        restored = log.restore("--keys", log.directory / "keys")
        assert (restored["size"], rows_of(log.new)) == (0, log.rows())
        assert run("resume", log.new, RESUME).code == 0
        async with served(log.new) as server, Submitter(url_of(server)) as submitter:
            await submitter.append([b"first"], policy)
        shutil.rmtree(log.new)


def test_a_running_log_is_backed_up_by_url_only(log: Log) -> None:
    with DirectoryLock(log.directory):
        for command in (["backup", log.directory, log.out], ["restore", log.directory, log.new]):
            assert "is in use" in require_plain(run(*command), 4)[0]
    assert not log.out.exists()
    assert not log.new.exists()


def test_what_is_no_log_and_what_is_no_place_for_a_backup(log: Log, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    for source in (tmp_path / "nowhere", tmp_path / "file", tmp_path / "mine"):
        for command in (["backup", source, log.out], ["restore", source, log.new]):
            require_plain(run(*command), 4)
    for folder in (tmp_path / "file", tmp_path / "mine", log.directory):
        before = tree_of(tmp_path)
        require_plain(run("backup", log.directory, folder), 4)
        assert {name: data for name, data in tree_of(tmp_path).items() if "/log/" not in name} == {
            name: data for name, data in before.items() if "/log/" not in name
        }
    assert not log.out.exists()
    assert not log.new.exists()


def test_a_checkpoint_that_was_signed_by_other_keys_stops_the_backup(log: Log, tmp_path: Path) -> None:
    make_log(tmp_path / "other")
    shutil.rmtree(log.directory / "keys")
    shutil.copytree(tmp_path / "other" / "keys", log.directory / "keys")
    assert "the checkpoint of size 0: " in require_plain(run("backup", log.directory, log.out), 1)[0]
    assert not log.out.exists()
    shutil.rmtree(log.directory / "keys")  # without keys or a policy nobody says who may sign
    log.back_up()


def test_the_json_documents(log: Log) -> None:
    first, second = (json.loads(log.back_up("--json").out) for _ in range(2))
    root = Tree(ENTRIES).root(0, 320)
    assert first.keys() == second.keys()
    assert first.keys() >= {"ok", "origin", "size", "root", "new_entries", "new_checkpoints", "damages"}
    assert first["damages"] == []
    assert (first["ok"], first["origin"], first["size"], first["new_entries"], first["new_checkpoints"]) == (
        True,
        ORIGIN,
        320,
        320,
        3,
    )
    assert (second["new_entries"], second["new_checkpoints"]) == (0, 0)
    restored = log.restore("--head", log.directory / "head")
    assert (restored["ok"], restored["origin"], restored["size"], restored["root"]) == (True, ORIGIN, 320, first["root"])
    assert (restored["may_sign"], restored["held"], restored["damages"]) == (True, None, [])
    assert keyspace.decode_state(rows_of(log.new)[b"state"]).root == root
    failed = run("restore", log.out, log.new, "--json")
    assert json.loads(failed.out)["code"] == "log-exists"


# --- damaged --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["lost", "altered"])
def test_a_damaged_entry_stops_the_backup_and_is_named(log: Log, what: str) -> None:
    with PLYVEL.DB(str(log.directory / "log")) as db:
        if what == "lost":
            db.delete(keyspace.entry_key(270))
        else:
            db.put(keyspace.entry_key(270), b"another")
    line = require_plain(run("backup", log.directory, log.out), 4)[0]
    assert ("entry 270: is missing" if what == "lost" else "the first 300 entries do not have the root") in line
    assert not (log.out / "backup.json").exists()
    require_plain(run("restore", log.directory, log.new), 4)
    assert not log.new.exists()


def test_damaged_tiles_are_made_anew(log: Log) -> None:
    before = log.rows()
    with PLYVEL.DB(str(log.directory / "log")) as db:
        db.put(keyspace.tile_key(0, 0), bytes(256 * 32))
        db.delete(keyspace.tile_key(0, 1))
        db.put(keyspace.tile_key(1, 0), b"")
    assert run("fsck", log.directory, "--processes", 1).code == 1
    log.back_up()
    log.restore()
    assert rows_of(log.new) == before


@pytest.mark.parametrize("key", [keyspace.STATE, keyspace.LATEST])
def test_what_is_stated_of_whole_entries_may_be_lost(log: Log, key: bytes) -> None:
    with PLYVEL.DB(str(log.directory / "log")) as db:
        db.put(key, b"noise")
    result = run("backup", log.directory, log.out, "--json")
    assert result.code == 1
    assert key.decode() in result.err
    document = json.loads(result.out)
    assert not document["ok"]
    assert key.decode() in document["damages"][0]["resource"]
    assert document["size"] == 320
    assert run("fsck", log.out, "--processes", 1).code == 0


def test_kept_checkpoints_over_http_may_be_noise(log: Log, policy_file: Path, tmp_path: Path) -> None:
    hostile = Hostile(log)
    hostile.pages = [hostile.pages[0] + b"noise\n"]
    with hostile.served() as url:
        result = run("backup", url, tmp_path / "copy", "--policy", policy_file)
    assert result.code == 1
    assert "a line is not a kept checkpoint" in result.err
    assert result.out.startswith("DAMAGED, but copied: ")
    assert run("fsck", tmp_path / "copy", "--processes", 1).code == 0


@pytest.mark.parametrize("key", [keyspace.META, keyspace.kept_checkpoint_key(300)])
def test_a_damaged_row_stops_the_backup_and_is_named(log: Log, key: bytes) -> None:
    with PLYVEL.DB(str(log.directory / "log")) as db:
        db.put(key, b"noise")
    line = require_plain(run("backup", log.directory, log.out), 4)[0]
    assert (key.decode() if key[:1] != b"c" else "the checkpoint of size 300") in line


def _write_ahead_log(log: Log) -> Path:
    (path,) = (log.directory / "log").glob("*.log")
    return path


async def test_a_torn_write_ahead_log_costs_its_end_which_is_told_and_holds_what_is_restored(log: Log) -> None:
    path = _write_ahead_log(log)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"entry 310")])
    result = run("backup", log.directory, log.out)
    assert (result.code, f"DAMAGED, but copied: {log.out} holds {ORIGIN}, 300 entries" in result.out) == (1, True)
    assert "320 entries, and 300 are left" in result.err
    assert all(line.startswith("warning: DIR/head, slot ") for line in result.err.splitlines())
    assert run("fsck", log.out, "--processes", 1).code == 0
    restored = log.restore("--head", log.directory / "head", "--keys", log.directory / "keys")
    assert not restored["may_sign"]
    assert "the store has 300 entries, but a tree of 320 may have been signed" in restored["held"]
    async with served(log.new) as server:
        assert server.service.mode is Mode.HELD
        assert server.service.held is not None
        assert server.service.held.code == "store-behind-head"
    assert "a tree of size 320 may have been signed" in require_plain(run("resume", log.new, RESUME), 4)[0]


@pytest.mark.parametrize(
    ("near", "says"),
    [
        (b"entry 310", "the first 320 entries do not have the root"),
        (b"\n320\n", "the checkpoint of size 320"),
        (b"log.example/live\n300\n", ""),  # a checkpoint that is there in a table, too
    ],
    ids=["entry", "checkpoint", "spare"],
)
def test_a_rotten_write_ahead_log_is_told_and_nothing_rotten_is_copied(log: Log, near: bytes, says: str) -> None:
    """What LevelDB brings back from it, it brings back unchecked."""
    path = _write_ahead_log(log)
    data = bytearray(path.read_bytes())
    data[data.index(near) + 1] ^= 0xFF
    path.write_bytes(data)
    result = run("backup", log.directory, log.out)
    assert "warning: the store's files: " in result.err
    assert "checksum mismatch" in result.err
    if says:
        assert (result.code, says in result.err) == (4, True)
        assert not (log.out / "backup.json").exists()
    else:
        assert (result.code, "320 entries" in result.out) == (1, True)
        assert run("fsck", log.out, "--processes", 1).code == 0
    assert path.read_bytes() == data, "the source was changed"


# --- of a log that runs ---------------------------------------------------------------------------------------------------


async def test_a_log_under_load_is_backed_up_again_and_again(log: Log) -> None:
    """Every checkpoint is kept, so that the log is never the same between two questions of a backup."""
    sent = list(ENTRIES)
    stop = False

    async def load(submitter: Submitter) -> None:
        while not stop:
            batch = [b"load %d" % n for n in range(len(sent), len(sent) + 50)]
            await submitter.append(batch, log.policy)
            sent.extend(batch)

    sizes = []
    async with served(log.directory) as server, Submitter(url_of(server)) as submitter:
        loading = asyncio.create_task(load(submitter))
        try:
            for _ in range(5):
                result = await asyncio.to_thread(run, "backup", url_of(server), log.out, "--json")
                sizes.append(json.loads(require_done(result).out)["size"])
                assert (await asyncio.to_thread(run, "fsck", log.out, "--processes", 1)).code == 0
                await _until(partial(_more, sent, len(sent), loading))
        finally:
            stop = True
            await loading
        last = await asyncio.to_thread(run, "backup", url_of(server), log.out)
        require_done(last)
        restored = await asyncio.to_thread(run, "restore", url_of(server), log.new, "--json")
        assert json.loads(require_done(restored).out)["size"] == len(sent)
    assert sizes == sorted(set(sizes)), "nothing new between two backups"
    assert sizes[-1] <= len(sent)
    rows = log.rows()
    assert _without_time(rows_of(log.new)) == _without_time(rows)
    shutil.rmtree(log.new)
    log.restore()
    assert _without_time(rows_of(log.new)) == _without_time(rows)
    with DirectoryLock(log.new) as lock:
        store = LevelDBStore.open(lock)
        assert check_log(store, log.policy) == sent
        store.close()


def _more(sent: list[bytes], than: int, loading: "asyncio.Task[None]") -> bool:
    return len(sent) > than or loading.done()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # nobody signals what is waited for
            await asyncio.sleep(0.002)


def _without_time(rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Over HTTP the log does not say when it took its newest entry."""
    return rows | {keyspace.STATE: rows[keyspace.STATE][:-8]}


async def test_a_backup_by_url_and_one_of_the_directory_continue_each_other(log: Log) -> None:
    async with served(log.directory) as server:
        require_done(await asyncio.to_thread(run, "backup", url_of(server), log.out))
    commit_unpublished(log.directory, [b"more"])
    assert json.loads(log.back_up("--json").out)["new_entries"] == 1
    async with served(log.directory) as server:
        result = require_done(await asyncio.to_thread(run, "backup", url_of(server), log.out, "--json"))
        assert json.loads(result.out)["new_entries"] == 0
    assert [item.size for item in Folder(log.out).checkpoints() if isinstance(item, StoredCheckpoint)] == [0, 300, 320, 321]


async def test_another_log_or_an_older_copy_does_not_touch_the_backup(log: Log, tmp_path: Path) -> None:
    log.back_up()
    before = tree_of(log.out)
    other = Log(tmp_path / "other", policy_for(make_log(tmp_path / "other", origin="log.example/other")))
    make_log(tmp_path / "younger")
    async with served(other.directory) as server:
        codes = [await asyncio.to_thread(run, "backup", url_of(server), log.out, "--json")]
    codes += [run("backup", place, log.out, "--json") for place in (other.directory, tmp_path / "younger")]
    assert [json.loads(result.out)["code"] for result in codes] == [
        "backup-of-another-log",
        "backup-of-another-log",
        "backup-is-newer",
    ]
    assert [result.code for result in codes] == [4, 4, 4]
    assert all("Traceback" not in result.err and "\n  " in result.err for result in codes)
    assert tree_of(log.out) == before


# --- a log that means no good -------------------------------------------------------------------------------------------


class Hostile:
    """The log's own key signs, and the answers are what a test makes of them."""

    def __init__(self, log: Log) -> None:
        log.back_up()
        self.files = {f"/{name}": data for name, data in tree_of(log.out).items()}
        self.skey = read_skey(log.directory / "keys" / LOG_KEY_FILES[KeyType.ED25519])
        self.pages: list[bytes] = [self.files["/checkpoints.ndjson"]]

    def checkpoint(self, size: int, root: bytes) -> StoredCheckpoint:
        text = format_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=root))
        return StoredCheckpoint(size=size, note=sign_note(text, [KeySigner(self.skey)], time_s=1))

    @contextmanager
    def served(self) -> Iterator[str]:
        hostile = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name is theirs
                path, _, query = self.path.partition("?")
                data = hostile.files.get(path)
                if path == "/v1/checkpoints":
                    data = hostile.pages[0] if hostile.pages and query == "start=0" else b""
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                try:
                    self.wfile.write(data or b"")
                except ConnectionError:  # it was told enough
                    return

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Says nothing."""

        with web_server(Path(), Handler) as url:
            yield url


def _longer_bundle(hostile: Hostile) -> str:
    hostile.files["/tile/entries/000"] = encode_bundle([b"x" * 65_535] * 257)
    return "entry 0: "


def _bundle_of_257(hostile: Hostile) -> str:
    hostile.files["/tile/entries/000"] = encode_bundle([*ENTRIES[:256], b"more"])
    return "more than 256 entries in a bundle"


def _bundle_of_255(hostile: Hostile) -> str:
    hostile.files["/tile/entries/000"] = encode_bundle(ENTRIES[:255])
    return "entry 255: the bundle has 255 entries, not 256"


def _bundle_cut_short(hostile: Hostile) -> str:
    hostile.files["/tile/entries/001.p/64"] = hostile.files["/tile/entries/001.p/64"][:-1]
    return "entry 256: the bundle ends inside entry 63"


def _bundle_gone(hostile: Hostile) -> str:
    del hostile.files["/tile/entries/000"]
    return "entry 0: is missing"


def _another_entry(hostile: Hostile) -> str:
    hostile.files["/tile/entries/000"] = encode_bundle([*ENTRIES[:255], b"another"])
    return "the first 300 entries do not have the root that the checkpoint of size 300 states"


def _root_of_other_entries(hostile: Hostile) -> str:
    hostile.files["/checkpoint"] = hostile.checkpoint(320, bytes(32)).note
    return "contradict each other"


def _another_root_alone(hostile: Hostile) -> str:
    hostile.files["/checkpoint"] = hostile.checkpoint(320, bytes(32)).note
    hostile.pages = []
    return "the first 320 entries do not have the root"


def _endless(hostile: Hostile) -> str:
    hostile.files["/checkpoint"] = hostile.checkpoint(2**62, bytes(32)).note
    return "entry 256: is missing"


def _endless_from_the_start(hostile: Hostile) -> str:
    hostile.files["/checkpoint"] = hostile.checkpoint(2**63 - 1, bytes(32)).note
    hostile.pages = []
    del hostile.files["/tile/entries/000"]
    return "entry 0: is missing"


def _older_than_kept(hostile: Hostile) -> str:
    hostile.files["/checkpoint"] = hostile.checkpoint(300, Tree(ENTRIES).root(0, 300)).note
    hostile.files["/tile/entries/001.p/44"] = encode_bundle(ENTRIES[256:299])
    return "entry 299: the bundle has 43 entries, not 44"


def _kept_of_another_tree(hostile: Hostile) -> str:
    hostile.pages = [encode_kept(hostile.checkpoint(17, bytes(32)))]
    return "the first 17 entries do not have the root"


def _kept_by_others(hostile: Hostile) -> str:
    hostile.skey = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(32))
    hostile.pages = [encode_kept(hostile.checkpoint(17, Tree(ENTRIES).root(0, 17)))]
    return "the checkpoint of size 17: "


def _kept_of_another_log(hostile: Hostile) -> str:
    hostile.pages = [hostile.pages[0].replace(b"live", b"evil")]
    return "the checkpoint of size 0: "


def _no_checkpoint(hostile: Hostile) -> str:
    hostile.files["/checkpoint"] = b"noise"
    return ""


def _signed_by_others(hostile: Hostile) -> str:
    hostile.skey = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(32))
    hostile.files["/checkpoint"] = hostile.checkpoint(320, Tree(ENTRIES).root(0, 320)).note
    return "the checkpoint of size 320: "


TRICKS = [
    _longer_bundle,
    _bundle_of_257,
    _bundle_of_255,
    _bundle_cut_short,
    _bundle_gone,
    _another_entry,
    _root_of_other_entries,
    _another_root_alone,
    _endless,
    _endless_from_the_start,
    _older_than_kept,
    _kept_of_another_tree,
    _kept_by_others,
    _kept_of_another_log,
    _no_checkpoint,
    _signed_by_others,
]


OF_THE_HEAD = [_another_root_alone, _root_of_other_entries, _endless, _signed_by_others, _no_checkpoint]
"""The rest of what is told of is in a backup already, and is not read again."""


@pytest.mark.parametrize(
    ("what", "trick"),
    [
        *(("backup", trick) for trick in TRICKS),
        *(("continued", trick) for trick in OF_THE_HEAD),
        *(("restore", trick) for trick in TRICKS),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_log_that_lies_leaves_nothing_that_counts(
    log: Log, policy_file: Path, tmp_path: Path, trick: Callable[[Hostile], str], what: str
) -> None:
    hostile = Hostile(log)
    says = trick(hostile)
    folder = tmp_path / "copy"
    if what == "continued":
        shutil.copytree(log.out, folder)
        hostile.pages = []
    with hostile.served() as url:
        command = ["restore", url, log.new] if what == "restore" else ["backup", url, folder]
        result = run(*command, "--policy", policy_file)
    assert result.code in (1, 4)
    line = require_plain(result, result.code)[0]
    if what != "continued":
        assert says in line
    assert not log.new.exists()
    if what == "continued":
        assert {name: data for name, data in tree_of(folder).items() if name in tree_of(log.out)} == tree_of(log.out)
        assert run("fsck", folder, "--processes", 1).code == 0
    else:
        assert not (folder / "backup.json").exists()
        assert not (folder / "checkpoint").exists()


def test_the_same_log_that_does_not_lie_is_taken(log: Log, policy_file: Path, tmp_path: Path) -> None:
    """The tests above fail for the trick, and not for the server."""
    with Hostile(log).served() as url:
        require_done(run("backup", url, tmp_path / "copy", "--policy", policy_file))
    before, after = tree_of(log.out), tree_of(tmp_path / "copy")
    del before["backup.json"], after["backup.json"]  # the time is not known over HTTP
    assert before == after


def test_a_log_that_does_not_say_its_keys_needs_a_policy(log: Log, tmp_path: Path) -> None:
    with Hostile(log).served() as url:
        lines = require_plain(run("backup", url, tmp_path / "copy"), 3)
    assert "does not say what its keys are" in lines[0]
    assert lines[1] == "  give --policy FILE"


# --- a restored log is on hold --------------------------------------------------------------------------------------------


async def test_a_restored_log_serves_and_signs_nothing_until_its_owner_says_so(log: Log) -> None:
    log.back_up()
    restored = log.restore("--keys", log.directory / "keys")
    assert restored["held"] == "nothing shows that no newer checkpoint was signed"
    shutil.copy(log.directory / FILE_NAME, log.new / FILE_NAME)
    before, head = rows_of(log.new), (log.new / "head").read_bytes()
    for _ in range(2):
        async with served(log.new) as server, Submitter(url_of(server)) as submitter:
            assert server.service.mode is Mode.HELD
            assert server.service.held is not None
            assert server.service.held.code == "on-hold"
            with pytest.raises(RemoteError) as caught:
                await submitter.append([b"no"], log.policy)
            assert (caught.value.status, caught.value.code) == (503, "read-only")
            async with RemoteLog(url_of(server), log.policy) as remote:
                await remote.refresh()
                assert remote.latest_note == log.newest
                assert await remote.entries(start=0, end=320) == ENTRIES
                receipt = await submitter.receipt(319)
                assert b"\n320\n" in receipt
        assert rows_of(log.new) == before
        assert (log.new / "head").read_bytes() == head
    assert run("resume", log.new, RESUME).code == 0
    async with served(log.new) as server, Submitter(url_of(server)) as submitter:
        assert server.service.mode is Mode.OPEN
        await submitter.append([b"new"], log.policy)
        async with RemoteLog(url_of(server), log.policy) as remote:
            await remote.refresh()
            assert await remote.entries(start=0, end=321) == [*ENTRIES, b"new"]
            newest = remote.latest.checkpoint
            for item in Folder(log.out).checkpoints():
                assert isinstance(item, StoredCheckpoint)
                old = verify_checkpoint(item.note, log.policy).checkpoint
                if old.size:
                    proof = await remote.prove_consistency(old=old.size, new=newest.size)
                    verify_consistency(old=old.size, old_root=old.root, new=newest.size, new_root=newest.root, proof=proof)
    log.directory = log.new
    assert json.loads(log.back_up("--json").out)["new_entries"] == 1


async def test_the_head_of_the_last_disk_lets_it_sign_when_nothing_is_missing(log: Log) -> None:
    log.back_up()
    result = require_done(run("restore", log.out, log.new, "--keys", log.directory / "keys", "--head", log.directory / "head"))
    assert "its head tells of nothing that is not here: it may sign" in result.out
    assert "bring the private keys" not in result.out
    async with served(log.new) as server, Submitter(url_of(server)) as submitter:
        assert server.service.mode is Mode.OPEN
        await submitter.append([b"new"], log.policy)


def _go_on(log: Log) -> None:
    async def append() -> None:
        async with served(log.directory) as server, Submitter(url_of(server)) as submitter:
            await submitter.append([b"after the backup"], log.policy)

    asyncio.run(append())


async def test_entries_that_nobody_signed_for_hold_what_is_restored(log: Log) -> None:
    """In a folder anybody could have put them there."""
    commit_unpublished(log.directory, [b"more"])
    log.back_up()
    restored = log.restore("--head", log.directory / "head", "--keys", log.directory / "keys")
    assert not restored["may_sign"]
    assert "entries 320 to 320 are in no checkpoint" in restored["held"]
    async with served(log.new) as server:
        assert server.service.mode is Mode.HELD


def test_a_damaged_slot_of_the_head_may_have_been_the_newer_one(log: Log) -> None:
    log.back_up()
    _go_on(log)
    head = bytearray((log.directory / "head").read_bytes())
    newer = max((0, 1), key=lambda n: decode_slot(bytes(head[n * SLOT_BYTES : (n + 1) * SLOT_BYTES])).counter)
    head[newer * SLOT_BYTES + 20] ^= 1
    (log.directory / "head").write_bytes(head)
    restored = log.restore("--head", log.directory / "head", "--keys", log.directory / "keys")
    assert not restored["may_sign"]
    assert f"slot {newer} is damaged, and may have been the newer one" in restored["held"]

    async def start() -> Mode:
        async with served(log.new) as server:
            return server.service.mode

    assert asyncio.run(start()) is Mode.HELD


def _older_head(log: Log) -> None:
    HeadFile.create(log.directory / "head", origin=ORIGIN, size=300, root=Tree(ENTRIES).root(0, 300))


def _held_head(log: Log) -> None:
    HeadFile.create(log.directory / "head", origin=ORIGIN, size=320, root=Tree(ENTRIES).root(0, 320), hold=True)


def _other_head(log: Log) -> None:
    HeadFile.create(log.directory / "head", origin="log.example/other", size=0, root=EMPTY_ROOT)


def _forked_head(log: Log) -> None:
    HeadFile.create(log.directory / "head", origin=ORIGIN, size=320, root=bytes(32))


def _garbage_head(log: Log) -> None:
    (log.directory / "head").write_bytes(b"noise")


def _empty_head(log: Log) -> None:
    (log.directory / "head").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (_go_on, "store-behind-head", "but a tree of 321 may have been signed"),
        (_older_head, "head-behind", "a checkpoint of size 320 was published, but DIR/head knows of 300 only"),
        (_held_head, "on-hold", "must not sign before it is known to be whole"),
        (_other_head, "head-of-another-log", "belongs to the log 'log.example/other'"),
        (_forked_head, "head-mismatch", "are not the ones that may have been signed"),
        (_garbage_head, "head-lost", "damaged"),
        (_empty_head, "head-lost", "damaged"),
    ],
)
def test_a_head_that_tells_of_more_or_of_nothing_holds(log: Log, change: Callable[[Log], None], code: str, says: str) -> None:
    log.back_up()
    change(log)
    restored = log.restore("--head", log.directory / "head", "--keys", log.directory / "keys")
    assert restored["may_sign"] is False
    assert says in restored["held"]
    assert ".init-" not in restored["held"]
    newest = log.newest if change is not _go_on else (log.out / "checkpoint").read_bytes()

    async def check() -> None:
        async with served(log.new) as server, RemoteLog(url_of(server), log.policy) as remote:
            assert server.service.mode is Mode.HELD
            assert server.service.held is not None
            assert server.service.held.code == code
            await remote.refresh()
            assert remote.latest_note == newest

    asyncio.run(check())


@pytest.mark.parametrize("what", ["missing", "directory"])
def test_a_head_that_cannot_be_read_is_an_error(log: Log, tmp_path: Path, what: str) -> None:
    log.back_up()
    path = tmp_path / "head"
    if what == "directory":
        path.mkdir()
    line = require_plain(run("restore", log.out, log.new, "--head", path), 4)[0]
    assert f"cannot copy the head {path}: " in line
    assert not log.new.exists()
    assert not list(tmp_path.glob(".init-*"))


def _half_head(log: Log) -> None:
    data = bytearray((log.directory / "head").read_bytes())
    data[20] ^= 0xFF
    (log.directory / "head").write_bytes(data)


def _other_half_head(log: Log) -> None:
    data = bytearray((log.directory / "head").read_bytes())
    data[4_096 + 20] ^= 0xFF
    (log.directory / "head").write_bytes(data)


def _unpublished(log: Log) -> None:
    commit_unpublished(log.directory, [b"more"])
    log.back_up()


@pytest.mark.parametrize("change", [_half_head, _other_half_head, _unpublished])
def test_what_restore_says_of_signing_is_what_the_log_does(log: Log, change: Callable[[Log], None]) -> None:
    log.back_up()
    change(log)
    restored = log.restore("--head", log.directory / "head", "--keys", log.directory / "keys")

    async def check() -> None:
        async with served(log.new) as server:
            assert (server.service.mode is Mode.OPEN) == restored["may_sign"], restored["held"]

    asyncio.run(check())


# --- keys ---------------------------------------------------------------------------------------------------------------


def test_keys_are_copied_for_their_owner_alone(log: Log) -> None:
    log.back_up()
    keys = log.directory.parent / "usb"
    shutil.copytree(log.directory / "keys", keys)
    keys.chmod(0o755)
    for path in keys.iterdir():
        path.chmod(0o644)
    (keys / "more").mkdir()
    umask = os.umask(0)
    try:
        log.restore("--keys", keys)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((log.new / "keys").stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (log.new / "keys").iterdir()} == dict.fromkeys(
        LOG_KEY_FILES.values(), 0o600
    )
    assert tree_of(log.new / "keys") == tree_of(log.directory / "keys")


def test_without_keys_it_says_where_they_belong_and_serve_asks_for_them(log: Log) -> None:
    log.back_up()
    said = require_done(run("restore", log.out, log.new)).out
    assert f"bring the private keys to {log.new / 'keys'} (mode 0600)" in said
    assert "it will serve and not sign: " in said
    assert RESUME in said
    result = run_program("serve", log.new, "--listen", "127.0.0.1:0", "--admin-listen", "")
    assert f"is missing in {log.new / 'keys'}" in require_plain(result, 4)[0]


@pytest.mark.parametrize("source", ["backup", "url and policy"])
@pytest.mark.parametrize("whose", ["another key", "another log"])
def test_keys_that_did_not_sign_the_last_checkpoint_are_refused(
    log: Log, tmp_path: Path, policy_file: Path, source: str, whose: str
) -> None:
    log.back_up()
    make_log(tmp_path / "other", origin=ORIGIN if whose == "another key" else "log.example/other")
    keys = tmp_path / "other" / "keys"
    if source == "backup":
        result = run("restore", log.out, log.new, "--keys", keys)
    else:
        with Hostile(log).served() as url:
            result = run("restore", url, log.new, "--keys", keys, "--policy", policy_file)
    assert result.code in (1, 4)
    require_plain(result, result.code)
    assert not log.new.exists()
    assert not list(tmp_path.glob(".init-*"))


@pytest.mark.parametrize("what", ["missing", "file", "empty", "noise"])
def test_a_place_without_keys_is_refused(log: Log, tmp_path: Path, what: str) -> None:
    log.back_up()
    keys = tmp_path / "keys"
    if what == "file":
        keys.write_text("x")
    elif what != "missing":
        keys.mkdir()
        if what == "noise":
            (keys / "notes.txt").write_text("x")
    result = run("restore", log.out, log.new, "--keys", keys, "--json")
    require_plain(result, 4)
    assert json.loads(result.out)["code"] == "no-keys"
    assert not log.new.exists()


# --- all of it or nothing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "log", "other"])
def test_nothing_is_restored_over_anything(log: Log, what: str) -> None:
    log.back_up()
    if what == "file":
        log.new.write_text("mine")
    elif what == "log":
        shutil.copytree(log.directory, log.new)
    else:
        log.new.mkdir()
        (log.new / "notes").write_text("mine")
    before = tree_of(log.directory.parent)
    result = run("restore", log.out, log.new, "--json")
    assert json.loads(result.out)["code"] == "log-exists"
    assert require_plain(result, 4)
    assert tree_of(log.directory.parent) == before


@pytest.mark.parametrize(
    "step",
    [
        "maintenance._copy_keys",
        "maintenance._create_store",
        "maintenance.fill_store",
        "maintenance._copy_head",
        "maintenance._reason_to_hold",
        "config.write_settings",
        "log.directory.sync_tree",
        "log.directory.sync_directory",
        "storage.leveldb.LevelDBStore.commit",
        "storage.leveldb.LevelDBStore.publish",
    ],
)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "stop"])
def test_a_restore_that_fails_leaves_nothing(
    log: Log, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    log.back_up()
    before = tree_of(log.directory.parent)
    options = ["--keys", log.directory / "keys", "--head", log.directory / "head"]
    with monkeypatch.context() as patched:
        patched.setattr(f"translog.{step}", fail)
        result = run("restore", log.out, log.new, *options)
    assert result.code == (130 if isinstance(error, KeyboardInterrupt) else 4)
    assert tree_of(log.directory.parent) == before
    assert not log.new.exists()
    assert log.restore(*options)["may_sign"]


def test_a_restore_that_fails_at_any_sync_leaves_nothing(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.back_up()
    calls = 0

    def fail(left: list[int], descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EIO, "Input/output error")

    while True:
        left = [calls + 1]
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", partial(fail, left))
            result = run("restore", log.out, log.new, "--keys", log.directory / "keys")
        if result.code == 0:
            break
        assert result.code == 4
        assert sorted(path.name for path in log.directory.parent.iterdir()) == ["log", "out"]
        calls += 1
    assert calls > 8, "files, directories, and the name"


def test_all_of_it_is_durable_before_it_has_its_name(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.back_up()
    done: list[tuple[str, Path]] = []
    fsync, rename = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        done.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))

    def record_replace(path: Path, target: Path) -> Path:
        done.append(("replace", target))
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", record_fsync)
        patched.setattr(Path, "replace", record_replace)
        log.restore("--keys", log.directory / "keys")
    at = done.index(("replace", log.new))
    synced = {path for what, path in done[:at] if what == "sync"}
    (building,) = {path for path in synced if path.name.startswith(".init-")}
    there = [log.new, *log.new.rglob("*")]
    assert {building / path.relative_to(log.new) for path in there} <= synced
    assert done[at + 1] == ("sync", log.new.parent)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs takes root and a file system namespace that allows it")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_log_can_be_restored_to_a_mounted_directory(log: Log, disk: Path) -> None:
    log.back_up()
    require_done(run("restore", log.out, disk, "--keys", log.directory / "keys"))
    assert sorted(path.name for path in disk.iterdir()) == ["head", "keys", "lock", "log", FILE_NAME]
    assert rows_of(disk) == log.rows()


@pytest.mark.parametrize("room", [0, 4_096])
def test_a_full_disk_stays_as_it_was(log: Log, disk: Path, tmp_path: Path, room: int) -> None:
    log.back_up()
    with (disk / "ballast").open("wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space"):  # noqa: PT012  # how much fits is the disk's to say
            while True:
                file.write(bytes(4_096))
        file.truncate(max(0, file.tell() - room))
    for command in (["restore", log.out, disk / "new"], ["backup", log.directory, disk / "out"]):
        result = run(*command)
        assert require_plain(result, 4)
        assert "No space left on device" in result.err
    assert not (disk / "new").exists()
    assert not list(disk.glob(".init-*"))
    assert not (disk / "out" / "backup.json").exists()
    (disk / "ballast").unlink()
    require_done(run("backup", log.directory, disk / "out"))
    assert tree_of(disk / "out") == tree_of(log.out)


# --- formats --------------------------------------------------------------------------------------------------------------


def test_a_restored_store_is_of_this_programs_format_whatever_the_backup_was_made_of(log: Log) -> None:
    log.back_up()
    path = log.out / "backup.json"
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 7'))
    log.restore()
    assert rows_of(log.new) == log.rows()


def test_a_backup_of_a_later_format_is_refused(log: Log) -> None:
    log.back_up()
    path = log.out / "backup.json"
    path.write_bytes(path.read_bytes().replace(b'"backup/1"', b'"backup/3"'))
    for command in (["restore", log.out, log.new], ["backup", log.directory, log.out], ["fsck", log.out]):
        result = run(*command, "--json")
        assert json.loads(result.out)["code"] == "backup-version"
        assert "a newer one" in require_plain(result, 4)[1]
    assert not log.new.exists()


@pytest.mark.parametrize("origin", ["log.example/\x7f", 'log.example/"\\', "log.example/\u2028", "x" * 200])
def test_a_mirror_of_any_log_can_be_restored_and_says_what_it_is(tmp_path: Path, origin: str) -> None:
    source = TreeLog(origin=origin, skey=SKey(name="key", type=KeyType.ED25519, seed=bytes(32)))
    meta = LogMeta(format_version=1, origin=origin, profile=Profile.EVENTS, minimum_index=3)
    back_up(
        MemorySource(source, 20, 20, [0, 7], meta=meta),
        Folder(tmp_path / "out"),
        policy=None,
        progress=lambda done, total: None,
    )
    assert run("restore", tmp_path / "out", tmp_path / "new", "--without-vault").code == 1  # its dedup.key is nowhere
    settings = read_settings(tmp_path / "new")
    assert (settings.origin, settings.profile) == (origin, "events")
    assert keyspace.decode_meta(rows_of(tmp_path / "new")[b"meta"]) == meta
    assert parse_checkpoint(parse_note((tmp_path / "out" / "checkpoint").read_bytes()).text).origin == origin


def test_the_policy_file_of_the_tests_is_that_of_the_log(log: Log, policy_file: Path) -> None:
    vkeys = [read_skey(log.directory / "keys" / name).vkey for name in LOG_KEY_FILES.values()]
    assert all(str(vkey) in policy_file.read_text() for vkey in vkeys)
    assert str(vkeys[0]) in format_log_policy(vkeys)
