"""`translog fsck`: exit codes, the table and the document, whose keys count, and damage from one end to the other."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from faults.made_store import (
    ORIGIN,
    SKEY,
    STRANGER,
    Made,
    MemoryTree,
    digests,
    entries_of,
    make_store,
    memory_tree,
    root_of,
    sign_head,
)
from storage.backends import PLYVEL

from cli.conftest import SharedLog
from cli.harness import Result, require_plain, run, run_program, serving
from translog.core.tile import bundles_of, encode_bundle, format_tile_path, tiles_of
from translog.core.wire import encode_base64
from translog.log.head import HeadFile
from translog.storage import keyspace
from translog.storage.folder import Backup, encode_backup
from translog.storage.lock import DirectoryLock
from translog.storage.store import LogMeta, Profile, StoredCheckpoint

WHOLE = {"signatures": 3, "entries": 300, "tiles": 3, "checkpoints": 3, "tree heads": 3}
"""What is good in the log of `made`."""
EVIL = "log.example/\x1b[2J\u202eevil"


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_store(tmp_path / "log", [200, 100])


def put(made: Made, key: bytes, value: bytes | None) -> None:
    db = PLYVEL.DB(str(made.store))
    if value is None:
        db.delete(key)
    else:
        db.put(key, value)
    db.close()


def document_of(result: Result) -> dict[str, Any]:
    document = json.loads(result.out)
    assert isinstance(document, dict)
    return document


def resources(result: Result) -> list[str]:
    return [damage["resource"] for damage in document_of(result)["damages"]]


# --- a directory --------------------------------------------------------------------------------------------------------


def test_a_whole_log_gives_a_table_and_exit_code_0(made: Made) -> None:
    result = run("fsck", made.directory)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        f"{ORIGIN}, 300 entries, root {encode_base64(root_of(entries_of(300)))}",
        "",
        f"  {'':11}  {'good':>12}  {'bad':>8}",
        *(f"  {kind:11}  {count:>12}  {0:>8}" for kind, count in WHOLE.items()),
        "",
        "OK: everything that was looked at is of this one tree",
    ]


def test_as_json_it_is_one_document(made: Made) -> None:
    result = run("fsck", made.directory, "--json")
    assert (result.code, result.err) == (0, "")
    assert document_of(result) == {
        "ok": True,
        "origin": ORIGIN,
        "size": 300,
        "root": encode_base64(root_of(entries_of(300))),
        "entry_bytes": sum(map(len, entries_of(300))),
        "good": WHOLE,
        "bad": {},
        "excepted": {},
        "damages": [],
        "remarks": [],
    }


def test_damage_is_named_with_exit_code_1_and_what_to_read(made: Made) -> None:
    put(made, keyspace.entry_key(7), b"another")
    put(made, keyspace.tile_key(1, 0), None)
    put(made, b"stray", b"")
    result = run("fsck", made.directory)
    assert (result.code, result.err) == (1, "")
    lines = result.out.splitlines()
    assert [line for line in lines if line.startswith("BAD ")] == [
        "BAD entry 7: is not what the tree says it is",
        "BAD tile/1/000.p/1: is missing",
        "BAD key 7374726179: is there, and should not be",
    ]
    counts = {line[2:13].strip(): line[13:].split() for line in lines if line.startswith("  ")}
    assert (counts["entries"], counts["tiles"], counts["strays"]) == (["299", "1"], ["2", "1"], ["0", "1"])
    assert lines[-1] == "The log is damaged. specs/worst-day.md says what to do; nothing was changed."
    result = run("fsck", made.directory, "--json")
    assert result.code == 1
    assert document_of(result)["ok"] is False
    assert document_of(result)["bad"] == {"entries": 1, "tiles": 1, "strays": 1}
    assert resources(result) == ["entry 7", "tile/1/000.p/1", "key 7374726179"]


def test_much_damage_is_cut_for_people_and_not_for_programs(made: Made) -> None:
    db = PLYVEL.DB(str(made.store))
    for index in range(0, 200, 2):
        db.put(keyspace.entry_key(index), b"another")
    db.close()
    result = run("fsck", made.directory)
    assert sum(line.startswith("BAD ") for line in result.out.splitlines()) == 50
    assert "... and 50 more; --json lists them" in result.out
    assert len(resources(run("fsck", made.directory, "--json"))) == 100


def test_a_tree_whose_root_is_not_known_says_so(made: Made) -> None:
    put(made, keyspace.entry_key(256), None)
    put(made, keyspace.tile_key(0, 1), None)
    assert f"{ORIGIN}, 300 entries, root unknown" in run("fsck", made.directory).out
    assert document_of(run("fsck", made.directory, "--json"))["root"] is None


def test_an_empty_log_is_whole(tmp_path: Path) -> None:
    made = make_store(tmp_path / "log", [])
    assert run("fsck", made.directory).code == 0


def test_a_log_just_created_is_whole(tmp_path: Path) -> None:
    assert run("init", tmp_path / "log", "--origin", ORIGIN, "--profile", "opaque").code == 0
    assert run("fsck", tmp_path / "log").code == 0


def test_a_head_that_is_lost_or_of_another_log_is_named(made: Made, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", [200, 100])
    head = made.directory / "head"
    data = head.read_bytes()
    assert ORIGIN.encode() in data
    head.unlink()
    assert resources(run("fsck", made.directory, "--json")) == ["DIR/head"]
    (made.directory / "head").mkdir()
    assert resources(run("fsck", made.directory, "--json")) == ["DIR/head"]
    (made.directory / "head").rmdir()
    head.write_bytes((other.directory / "head").read_bytes()[:4096])
    assert resources(run("fsck", made.directory, "--json")) == ["DIR/head, slot 1"]
    head.unlink()
    HeadFile.create(head, origin="log.example/other", size=300, root=root_of(entries_of(300)))
    assert resources(run("fsck", made.directory, "--json")) == ["DIR/head, slot 0", "DIR/head, slot 1"]
    head.write_bytes(data + b"\0")
    assert resources(run("fsck", made.directory, "--json")) == ["DIR/head"]


def test_a_log_that_runs_is_refused_with_what_to_do(shared_log: SharedLog) -> None:
    for options in ((), ("--json",)):
        lines = require_plain(run("fsck", shared_log.directory, *options), 4)
        assert lines == [
            f"translog: {shared_log.directory} is in use by a running log",
            "  stop that one first, or give its URL instead of the directory",
        ]
    document = document_of(run("fsck", shared_log.directory, "--json"))
    assert (document["ok"], document["code"]) == (False, "directory-in-use")


@pytest.mark.parametrize("what", ["nowhere", "a file", "an empty directory", "a directory of other things"])
def test_what_is_no_log_is_told_in_a_sentence(what: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if what == "a file":
        path.write_text("x")
    elif what != "nowhere":
        path.mkdir()
        if what != "an empty directory":
            (path / "thing").write_text("x")
    before = digests(tmp_path)
    lines = require_plain(run("fsck", path), 4)
    assert str(path) in lines[0]
    assert digests(tmp_path) == before


def test_half_a_store_is_told_in_a_sentence(made: Made) -> None:
    (made.store / "CURRENT").unlink()
    lines = require_plain(run("fsck", made.directory), 4)
    assert "half deleted" in lines[0]


def test_the_number_of_processes_can_be_said_and_is_at_least_one(made: Made) -> None:
    assert run("fsck", made.directory, "--processes", 1).code == 0
    assert run("fsck", made.directory, "--processes", 0).code == 2


def test_two_processes_say_what_one_says_and_no_more(tmp_path: Path) -> None:
    """As a program, with warnings as errors: more than one span, so that there is work for two."""
    made = make_store(tmp_path / "log", [20_000])
    put(made, keyspace.entry_key(17_000), b"another")
    results = [run_program("fsck", made.directory, "--json", "--processes", count) for count in (1, 2)]
    assert [result.err for result in results] == ["", ""]
    assert results[0].out == results[1].out
    assert resources(results[0]) == ["entry 17000"]


# --- whose keys count ---------------------------------------------------------------------------------------------------


def forge(made: Made) -> None:
    """Another's signature under the latest checkpoint."""
    note = sign_head(300, root_of(entries_of(300)), skey=STRANGER)
    put(made, keyspace.LATEST, keyspace.encode_latest(StoredCheckpoint(size=300, note=note)))


def policy_file(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in [*lines, "quorum none"]))
    return path


def test_a_directorys_own_keys_say_who_may_sign(made: Made) -> None:
    forge(made)
    result = run("fsck", made.directory, "--json")
    assert (result.code, resources(result)) == (1, ["checkpoint of size 300"])
    assert document_of(result)["bad"] == {"signatures": 1}


def test_a_policy_outweighs_the_directorys_own_keys(made: Made, tmp_path: Path) -> None:
    forge(made)
    both = policy_file(tmp_path / "both", f"log {SKEY.vkey}", f"log {STRANGER.vkey}")
    assert run("fsck", made.directory, "--policy", both).code == 0
    other = policy_file(tmp_path / "other", f"log {STRANGER.vkey}")
    result = run("fsck", made.directory, "--policy", other, "--json")
    assert document_of(result)["bad"] == {"signatures": 3}
    require_plain(run("fsck", made.directory, "--policy", tmp_path / "nowhere"), 4)


def test_without_keys_signatures_are_not_checked_and_that_is_said(made: Made) -> None:
    forge(made)
    for file in (made.directory / "keys").iterdir():
        file.unlink()
    result = run("fsck", made.directory)
    assert result.code == 0
    assert "note: who signed the checkpoints was not checked, for want of a policy or keys" in result.out.splitlines()
    assert "signatures" not in result.out


# --- a folder -----------------------------------------------------------------------------------------------------------


def write_folder(tree: MemoryTree, folder: Path, *, backup: bool = True) -> Path:
    """The tree as a backup, written here and not by the program."""
    assert tree.state is not None
    assert tree.latest is not None
    size = tree.state.size
    for tile in tiles_of(size):
        path = folder / format_tile_path(tile)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tree.tiles_at[tile.level, tile.index])
    for bundle in bundles_of(start=0, end=size):
        path = folder / format_tile_path(bundle)
        path.parent.mkdir(parents=True, exist_ok=True)
        first = bundle.index * 256
        path.write_bytes(encode_bundle([tree.entries[n] for n in range(first, first + bundle.width)]))
    (folder / "checkpoint").write_bytes(tree.latest.note)
    if backup:
        assert tree.meta is not None
        (folder / "backup.json").write_bytes(encode_backup(Backup(meta=tree.meta, state=tree.state, latest=tree.latest)))
    return folder


@pytest.mark.parametrize("backup", [True, False], ids=["a backup", "a static copy"])
def test_a_folder_of_tiles_is_checked(backup: bool, tmp_path: Path) -> None:
    folder = write_folder(memory_tree(300), tmp_path / "folder", backup=backup)
    policy = policy_file(tmp_path / "policy", f"log {SKEY.vkey}")
    before = digests(folder)
    result = run("fsck", folder, "--policy", policy, "--json")
    assert (result.code, document_of(result)["good"]["entries"]) == (0, 300)
    assert run("fsck", folder).code == 0
    bundle = folder / "tile" / "entries" / "000"
    bundle.write_bytes(bundle.read_bytes().replace(b"\x00\x027f", b"\x00\x027x"))
    (folder / "tile" / "0" / "001.p" / "44").unlink()
    result = run("fsck", folder, "--json")
    assert (result.code, resources(result)) == (1, ["tile/entries/000", "tile/0/001.p/44"])
    after = digests(folder)
    assert {name for name in before if before[name] != after.get(name)} == {"tile/entries/000", "tile/0/001.p/44"}


# --- over HTTP ----------------------------------------------------------------------------------------------------------


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@contextmanager
def serving_folder(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def static(tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """Another program's log: URL, folder, policy."""
    folder = write_folder(memory_tree(300), tmp_path / "static", backup=False)
    policy = policy_file(tmp_path / "static.policy", f"log {SKEY.vkey}")
    with serving_folder(partial(_Quiet, directory=str(folder))) as url:
        yield url, folder, policy


def test_a_log_of_another_program_is_checked_with_a_policy(static: tuple[str, Path, Path]) -> None:
    url, folder, policy = static
    result = run("fsck", url, "--policy", policy)
    assert (result.code, result.err) == (0, "")
    tile = folder / "tile" / "0" / "000"
    tile.write_bytes(tile.read_bytes()[:-1] + b"!")
    result = run("fsck", url, "--policy", policy, "--json")
    assert (result.code, resources(result)) == (1, ["tile/0/000"])


def test_a_log_that_does_not_say_what_its_keys_are_needs_a_policy(static: tuple[str, Path, Path]) -> None:
    lines = require_plain(run("fsck", static[0]), 3)
    assert lines[1:] == ["  give --policy FILE"]


def test_a_log_that_is_not_there_is_told_in_a_sentence(static: tuple[str, Path, Path]) -> None:
    with serving_folder(_Quiet) as url:
        pass
    require_plain(run("fsck", url, "--policy", static[2]), 3)
    require_plain(run("fsck", url), 3)


def test_a_running_log_is_taken_at_its_word_with_a_warning(shared_log: SharedLog) -> None:
    result = run("fsck", shared_log.url)
    assert result.code == 0, result.out
    assert "taking log.example/shared at its word for its keys" in result.err
    assert result.out.splitlines()[-1] == "OK: everything that was looked at is of this one tree"
    result = run("fsck", shared_log.url, "--policy", shared_log.policy)
    assert (result.code, result.err) == (0, "")


def test_a_damaged_log_is_named_over_http_as_it_is_from_its_directory(tmp_path: Path) -> None:
    """A running log whose disk went bad under it: what it still serves is checked, what it refuses is named."""
    directory = tmp_path / "log"
    assert run("init", directory, "--origin", ORIGIN, "--profile", "opaque").code == 0
    entries = tmp_path / "entries"
    entries.mkdir()
    for index in range(300):
        (entries / f"{index:03d}").write_bytes(b"entry %d" % index)
    with serving(directory) as served:
        added = run("add", "--log", served.url, *sorted(entries.iterdir()), "--receipts", tmp_path / "receipts")
        assert added.code == 0, added.err
        served.stop()
    made = Made(directory=directory, size=300)
    assert run("fsck", directory).code == 0
    put(made, keyspace.entry_key(7), b"another")
    put(made, keyspace.entry_key(299), None)
    offline = run("fsck", directory, "--json")
    assert (offline.code, resources(offline)) == (1, ["entry 7", "entry 299"])
    with serving(directory) as served:
        online = run("fsck", served.url, "--json")
    assert (online.code, resources(online)) == (1, ["tile/entries/000", "tile/entries/001.p/44"])
    assert document_of(online)["root"] == document_of(offline)["root"]


def test_a_log_over_http_is_read_by_two_processes_without_a_word_of_the_libraries(tmp_path: Path) -> None:
    folder = write_folder(memory_tree(20_000), tmp_path / "folder", backup=False)
    policy = policy_file(tmp_path / "policy", f"log {SKEY.vkey}")
    with serving_folder(partial(_Quiet, directory=str(folder))) as url:
        result = run_program("fsck", url, "--policy", policy, "--processes", 2)
        assert (result.code, result.err) == (0, "")
        (folder / "tile" / "entries" / "070").unlink()
        result = run_program("fsck", url, "--policy", policy, "--processes", 2, "--json")
    assert (result.code, result.err, resources(result)) == (1, "", ["tile/entries/070"])


def test_a_token_is_sent(tmp_path: Path) -> None:
    folder = write_folder(memory_tree(3), tmp_path / "folder", backup=False)
    policy = policy_file(tmp_path / "policy", f"log {SKEY.vkey}")
    seen: list[str | None] = []

    class Asking(_Quiet):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            super().do_GET()

    (tmp_path / "token").write_text("a-token\n")
    with serving_folder(partial(Asking, directory=str(folder))) as url:
        assert run("fsck", url, "--policy", policy, "--token-file", tmp_path / "token").code == 0
    assert set(seen) == {"Bearer a-token"}


# --- what others say ----------------------------------------------------------------------------------------------------


def test_what_a_log_says_of_itself_cannot_write_to_a_terminal(tmp_path: Path) -> None:
    tree = memory_tree(3)
    assert tree.state is not None
    tree.meta = LogMeta(format_version=1, origin=EVIL, profile=Profile.OPAQUE)
    folder = write_folder(tree, tmp_path / "folder")
    result = run("fsck", folder)
    assert result.code == 1
    for line in result.out.splitlines():
        assert line.isprintable(), line
    assert "evil" in result.out
    assert document_of(run("fsck", folder, "--json"))["origin"] == EVIL


def test_a_checkpoint_of_a_hostile_origin_is_named_safely(made: Made) -> None:
    note = f"{EVIL}\n3\n{encode_base64(bytes(32))}\n\n\u2014 {EVIL} AAAA\n".encode()
    put(made, keyspace.kept_checkpoint_key(3), note)
    result = run("fsck", made.directory)
    assert result.code == 1
    assert "BAD checkpoint of size 3" in result.out
    for line in result.out.splitlines():
        assert line.isprintable(), line


@pytest.mark.parametrize("field", ["origin", "checkpoint"])
@pytest.mark.parametrize("value", [5, None, [], {}, "\ud800", ""], ids=repr)
def test_a_backup_that_says_nonsense_ends_in_a_sentence_or_a_report(field: str, value: object, tmp_path: Path) -> None:
    folder = write_folder(memory_tree(3), tmp_path / "folder")
    document = json.loads((folder / "backup.json").read_text())
    document[field] = value
    if field == "checkpoint" and value is None:
        document["checkpoint_size"] = None
    (folder / "backup.json").write_text(json.dumps(document, indent=1, ensure_ascii=value == "\ud800") + "\n")
    result = run("fsck", folder)
    assert result.code in (0, 1, 4)
    if (field, value) != ("checkpoint", None):
        assert result.code != 0


def test_the_directory_is_free_again_afterwards(made: Made) -> None:
    assert run("fsck", made.directory).code == 0
    with DirectoryLock(made.directory):
        assert run("fsck", made.directory).code == 4
    assert run("fsck", made.directory).code == 0
    assert os.listdir(made.directory / "log")
