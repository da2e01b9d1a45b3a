"""`translog serve`: serves, drains on a signal, and says in a sentence why it cannot."""

import json
import signal
import socket
from pathlib import Path

import pytest

from cli.harness import require_plain, run, run_program, serving


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    assert run("init", tmp_path / "log", "--origin", "log.example/serve", "--profile", "opaque").code == 0
    return tmp_path / "log"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_nothing_is_lost(directory: Path, tmp_path: Path, number: int) -> None:
    with serving(directory) as served:
        assert served.said[-1].startswith("serving log.example/serve on http://127.0.0.1:")
        assert run("policy", "--log", served.url, "-o", tmp_path / "policy").code == 0
        added = run("add", "--log", served.url, "--policy", tmp_path / "policy", "-", stdin=b"kept")
        assert added.code == 0
        assert served.stop(number) == 0
    assert "stopping: finishing what is under way" in served.said
    assert "Traceback" not in "\n".join(served.said)
    with serving(directory) as served:
        receipt = run("receipt", 0, "--log", served.url, "-o", tmp_path / "receipt")
        assert receipt.code == 0
    (tmp_path / "entry").write_bytes(b"kept")
    verified = run("verify", tmp_path / "receipt", "--policy", tmp_path / "policy", "--entry", tmp_path / "entry")
    assert verified.code == 0


def test_a_second_signal_ends_it_at_once(directory: Path) -> None:
    with serving(directory) as served:
        host, _, port = served.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /add HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
            assert slow.recv(100).startswith(b"HTTP/1.1 100 ")  # the request is under way, and will not end by itself
            served.process.send_signal(signal.SIGTERM)
            assert served.process.stderr is not None
            for line in served.process.stderr:
                if line.startswith("stopping"):
                    break
            assert served.stop() == 4
    assert "ended at once, as asked a second time" in served.said
    with serving(directory) as served:
        assert served.stop() == 0


def test_a_second_server_and_a_taken_port_are_told_in_a_sentence(directory: Path, tmp_path: Path) -> None:
    run("init", tmp_path / "other", "--origin", "log.example/other", "--profile", "opaque")
    with serving(directory) as served:
        second = run_program("serve", directory, "--listen", "127.0.0.1:0", "--admin-listen", "")
        lines = require_plain(second, 4)
        assert lines[0] == f"translog: {directory} is in use by a running log"
        assert lines[1].startswith("  stop that one first")
        address = served.url.removeprefix("http://")
        taken = run_program("serve", tmp_path / "other", "--listen", address, "--admin-listen", "")
        said = [line for line in taken.err.splitlines() if not line.startswith("{")]
        assert taken.code == 4
        assert said[0].startswith(f"translog: cannot listen on {address}: ")
        assert said[1].startswith("  another program may have the port")
        assert "Traceback" not in taken.err
        resumed = run("resume", directory, "--nothing-newer-was-signed")
        assert "is in use by a running log" in require_plain(resumed, 4)[0]
        assert served.stop() == 0


def test_a_taken_admin_port_is_told_in_a_sentence(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run_program("serve", directory, "--listen", "127.0.0.1:0", "--admin-listen", address)
    assert result.code == 4
    assert f"translog: cannot listen on {address}" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", ":x", "127.0.0.1:70000", "127.0.0.1:-1", "256.1.1.1:0"])
def test_addresses_that_are_none_are_told_in_a_sentence(directory: Path, address: str) -> None:
    result = run_program("serve", directory, "--listen", address, "--admin-listen", "")
    assert result.code == 4
    assert "Traceback" not in result.err
    assert any(line.startswith("translog: ") for line in result.err.splitlines())


def test_what_is_no_log_is_told_in_a_sentence(tmp_path: Path) -> None:
    lines = require_plain(run_program("serve", tmp_path / "nowhere"), 4)
    assert "translog init" in lines[1]
    assert not (tmp_path / "nowhere").exists()


def test_the_environment_overrides_the_file_and_options_override_both(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSLOG_SERVER__LISTEN", "not-an-address")
    assert "'not-an-address' is not an address" in run_program("serve", directory).err
    with serving(directory) as served:
        assert json.loads(run("checkpoint", "--log", served.url, "--json").out)["size"] == 0


def test_a_held_log_serves_and_says_so(directory: Path, tmp_path: Path) -> None:
    (directory / "head").rename(tmp_path / "head")
    with serving(directory) as served:
        refused = run("add", "--log", served.url, "-", stdin=b"x")
        assert require_plain_remote(refused.err).endswith("/v1/entries?receipts=full answers 503: the log is read-only")
        assert refused.err.endswith("; nothing was added before that\n")
        assert refused.code == 3
        assert served.stop() == 0
    assert any(line.startswith("READ-ONLY: ") and "--nothing-newer-was-signed" in line for line in served.said)


def require_plain_remote(err: str) -> str:
    """What was said before the log refused is the warning about its keys only."""
    lines = [line for line in err.splitlines() if not line.startswith("no --policy: ")]
    assert lines[0].startswith("translog: ")
    assert len(lines) <= 2
    return lines[0]
