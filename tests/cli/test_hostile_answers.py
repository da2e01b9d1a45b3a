"""The command line against logs that lie, withhold and shout, and against disks that refuse."""

import errno
import io
import json
import os
import resource
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from client.simulator import ED25519, ORIGIN

from cli.conftest import SharedLog
from cli.harness import require_plain, run
from translog.cli import add as add_module
from translog.cli.describe import describe_checkpoint
from translog.cli.options import write_output
from translog.core.checkpoint import Checkpoint
from translog.core.keys import KeyType, SKey
from translog.core.policy import VerifiedCheckpoint
from translog.errors import SettingsError

EVIL = "\x1b]0;title\x07\r\n\x9b31m\u202eend"
NOT_YET = (404, b'{"code":"not-published"}')


class Liar(ThreadingHTTPServer):
    """Answers what it was told to by path, else 404 not-published."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.size = 10
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def say(self, path: str, status: int = 200, **document: object) -> None:
        self.answers[path] = (status, json.dumps(document).encode())


class _Handler(BaseHTTPRequestHandler):
    server: Liar

    def do_GET(self) -> None:
        self._answer(*self.server.answers.get(self.path, NOT_YET))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        count = body.count(b"x")  # every entry of these tests has one
        first, self.server.size = self.server.size, self.server.size + count
        document = {"first": first, "count": count, "results": [], "checkpoint": None}
        self._answer(202, json.dumps(document).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.server.asked.append(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    monkeypatch.setattr("translog.client.submit._PUBLISH_WAIT_S", 0)
    server = Liar()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "trusted"
    path.write_text(f"log {ED25519.vkey}\nquorum none\n")
    return path


@contextmanager
def full_disk() -> Iterator[None]:
    """No file grows past ten bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# What it says


def test_what_a_log_says_does_not_reach_the_terminal_as_it_is(liar: Liar) -> None:
    liar.say("/v1/log", 403, code=EVIL, detail=EVIL, hint=EVIL)
    for line in require_plain(run("checkpoint", "--log", liar.url), 3):
        assert line.isprintable()
        assert line.endswith("\\x1b]0;title\\x07\\r\\n\\x9b31m\\u202eend")


def test_an_origin_is_shown_escaped(liar: Liar, tmp_path: Path) -> None:
    origin = "log.example/\x9b31m\u202e"
    vkey = SKey(name=origin, type=KeyType.ED25519, seed=bytes(32)).vkey
    limits = {"entries_per_request_max": 1, "body_bytes_max": 1}
    liar.say("/v1/log", origin=origin, vkeys=[str(vkey)], published_size=0, integrated_size=0, limits=limits)
    liar.answers["/checkpoint"] = (200, b"")
    assert "taking log.example/\\x9b31m\\u202e at its word" in run("checkpoint", "--log", liar.url).err
    assert run("policy", "--log", liar.url, "-o", tmp_path / "made").code == 0
    assert (tmp_path / "made").read_text().startswith("# log.example/\\x9b31m\\u202e: ")
    head = Checkpoint(origin=origin, size=0, root=bytes(32))
    lines = describe_checkpoint(VerifiedCheckpoint(checkpoint=head, signed=(), cosigned=()))
    assert all(line.isprintable() for line in lines)


def test_names_in_files_are_shown_escaped(tmp_path: Path, policy: Path) -> None:
    path = tmp_path / "\x1b[2J"
    assert require_plain(run("verify", path, "--policy", policy, "--entry", path), 4)[0].isprintable()


def test_keys_that_make_no_policy_are_the_logs_fault(liar: Liar) -> None:
    limits = {"entries_per_request_max": 1, "body_bytes_max": 1}
    vkeys = [str(ED25519.vkey)] * 2
    liar.say("/v1/log", origin=ORIGIN, vkeys=vkeys, published_size=0, integrated_size=0, limits=limits)
    result = run("checkpoint", "--log", liar.url)
    assert (result.code, "this log key is listed already" in result.err) == (3, True)


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("terminal", "expected"), [(True, "a\\x1b[2J\n\u2014 b\\xff\n"), (False, None)])
def test_files_are_escaped_on_a_terminal_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, expected: str | None
) -> None:
    data = b"a\x1b[2J\n\xe2\x80\x94 b\xff\n"
    out = (_Terminal if terminal else io.TextIOWrapper)(io.BytesIO(), "utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    write_output(data, None)
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    assert out.buffer.getvalue() == (data if expected is None else expected.encode())


# What it withholds


def test_entries_nothing_proves_yet_end_with_3_after_all_was_sent(
    liar: Liar, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(add_module, "BATCH_ENTRIES_MAX", 2)
    for options in ([], ["--receipts", tmp_path / "receipts"]):
        first = liar.size
        result = run("add", "--log", liar.url, "--policy", policy, *options, "--lines", "-", stdin=b"x\nx\nx\n")
        lines = require_plain(result, 3)
        assert result.out == f"added 3 entries, indexes {first} to {first + 2}\n"
        assert lines[0].endswith(f": 3 entries, indexes {first} to {first + 2}")
        assert "translog receipt" in lines[1]
    assert liar.asked.count("/v1/entries?receipts=full") == 4


def test_entries_nothing_proves_yet_are_one_json_document(liar: Liar, policy: Path) -> None:
    result = run("add", "--log", liar.url, "--policy", policy, "--json", "-", stdin=b"x")
    require_plain(result, 3)
    document = json.loads(result.out)
    assert (document["ok"], document["code"]) == (False, "not-published")
    assert (document["count"], document["indexes"], document["unproven"]) == (1, [10], [10])


def test_receipts_refused_name_the_entries_that_are_in_the_log(liar: Liar, policy: Path) -> None:
    for index in (10, 11):
        liar.answers[f"/v1/receipts/{index}"] = (500, b"{}")
    lines = require_plain(run("add", "--log", liar.url, "--policy", policy, "--lines", "-", stdin=b"x\nx\n"), 3)
    assert "the entries 10 to 11 are in the log" in lines[1]


# What is wrong here


@pytest.mark.parametrize("options", [["--policy", "trusted"], []])
def test_an_entry_too_large_is_wrong_usage_before_anybody_is_asked(
    liar: Liar, policy: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(policy.parent)
    lines = require_plain(run("add", "--log", liar.url, *options, "-", stdin=b"x" * 65_536), 2)
    assert lines[1] == "  nothing was added before that"
    assert liar.asked == []


@pytest.mark.parametrize(
    "command",
    [
        ("verify", "x", "--entry", "x"),
        ("add", "--log", "http://127.0.0.1:1", "-"),
        ("receipt", "--log", "http://127.0.0.1:1", "0"),
        ("checkpoint", "--log", "http://127.0.0.1:1"),
        ("prove", "inclusion", "--log", "http://127.0.0.1:1", "0"),
        ("prove", "consistency", "--log", "http://127.0.0.1:1", "1"),
    ],
)
@pytest.mark.parametrize("text", ["nonsense\n", "#" * 1_000_001])
def test_a_policy_that_does_not_parse_is_configuration(tmp_path: Path, command: tuple[str, ...], text: str) -> None:
    path = tmp_path / "policy"
    path.write_text(text)
    assert str(path) in require_plain(run(*command, "--policy", path), 4)[0]


def test_resuming_without_the_owners_word_is_wrong_usage(tmp_path: Path) -> None:
    result = run("resume", tmp_path)
    assert result.code == 2
    assert "--nothing-newer-was-signed" in result.err


# Files


def test_an_output_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o640)
    with full_disk(), pytest.raises(SettingsError, match="cannot write"):
        write_output(b"more than ten bytes", path)
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"before", [path])
    link = tmp_path / "link"
    link.symlink_to(path)
    write_output(b"after", link)
    assert (path.read_bytes(), link.is_symlink()) == (b"after", True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_an_output_that_is_a_device_is_written_to() -> None:
    write_output(b"x", Path(os.devnull))
    assert Path(os.devnull).is_char_device()


def test_a_policy_that_says_something_else_is_replaced_by_force_only(shared_log: SharedLog, tmp_path: Path) -> None:
    path = tmp_path / "policy"
    command = ("policy", "--log", shared_log.url, "-o", path)
    assert [run(*command).code, run(*command).code] == [0, 0]
    made = path.read_bytes()
    for other in (made + b"# mine\n", b"", b"#" * 1_000_001):
        path.write_bytes(other)
        lines = require_plain(run(*command), 4)
        assert lines[0] == f"translog: {path} is there already and says something else"
        assert "--force" in lines[1]
        assert path.read_bytes() == other
    assert run(*command, "--force").code == 0
    assert path.read_bytes() == made


def test_a_directory_in_place_of_a_receipt_is_reported(tmp_path: Path) -> None:
    (tmp_path / "5.tlog-proof").mkdir()
    with pytest.raises(SettingsError, match="receipt of entry 5 is not saved: cannot write"):
        add_module._save_all(tmp_path, {5: b"x", 6: b"y"})
    assert (tmp_path / "6.tlog-proof").read_bytes() == b"y"


def test_receipts_are_saved_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "5.tlog-proof"
    add_module._save(path, b"one")
    with pytest.raises(FileExistsError):
        add_module._save(path, b"two")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"one", [path])


def test_a_secret_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with full_disk():
        result = run("keys", "token", "-o", tmp_path / "token")
    assert "cannot write" in require_plain(result, 4)[0]
    assert not any(tmp_path.iterdir())
    target = tmp_path / "target"
    (tmp_path / "link").symlink_to(target)
    require_plain(run("keys", "token", "-o", tmp_path / "link"), 4)
    assert not target.exists()
