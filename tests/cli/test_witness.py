"""`translog witness`: real processes, spoken to over HTTP as a log or a monitor does."""

import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from server.witness_log import ENTRIES, MadeLog

from cli.harness import PATIENCE_S, STRICT, Served, require_plain, run, run_program, serving
from translog.core.checkpoint import parse_checkpoint
from translog.core.keys import KeyType, VKey, parse_vkey
from translog.core.note import parse_note
from translog.core.policy import parse_policy

NAME = "w.example.org/w"
ADD = "/add-checkpoint"


@contextmanager
def serving_witness(directory: Path, *options: str) -> Iterator[Served]:
    """`translog witness serve` on a free port, killed at the end unless it was stopped."""
    command = [*STRICT, "witness", "serve", str(directory), "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.rstrip("\n"))
            if line.startswith("serving "):
                break
        else:
            raise AssertionError(f"the witness did not start: {said}")
        yield Served(process, said[-1].rpartition(" ")[2], said)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def ask(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of one answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def shown_size(url: str, log: MadeLog) -> int:
    """The size that a witness shows of a log; 0 for none."""
    status, body = ask(url, "GET", log.path)
    return parse_checkpoint(parse_note(body).text).size if status == 200 else 0


def vkeys_of(directory: Path) -> list[VKey]:
    return [parse_vkey(vkey) for vkey in json.loads(run("witness", "keys", directory, "--json").out)["vkeys"]]


def vkey_options(log: MadeLog) -> list[str]:
    return [part for vkey in log.vkeys for part in ("--log", str(vkey))]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    assert run("witness", "init", tmp_path / "w", "--name", NAME).code == 0
    return tmp_path / "w"


def test_one_command_runs_a_witness_and_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    directory, log = tmp_path / "w", MadeLog()
    with serving_witness(directory, "--name", NAME, *vkey_options(log)) as served:
        assert served.said == [
            f"created the witness {NAME} in {directory}",
            "it knows 1 log",
            f"serving the witness {NAME} on {served.url}",
        ]
        vkeys = vkeys_of(directory)
        status, answer = ask(served.url, "POST", ADD, log.request(0, 5))
        assert status == 200
        log.require_cosigned(5, answer, vkeys)
        assert ask(served.url, "POST", ADD, log.request(0, 7)) == (409, b"5\n")
        status, answer = ask(served.url, "POST", ADD, log.request(5, 7))
        assert status == 200
        again, answer = ask(served.url, "POST", ADD, log.request(7, 7))
        assert again == 200
        log.require_cosigned(7, answer, vkeys)
        assert served.stop() == 0
    assert served.said[-1] == "stopping: finishing what is under way"
    with serving_witness(directory, "--name", NAME, *vkey_options(log)) as served:
        assert not any(line.startswith("created") for line in served.said)
        assert vkeys_of(directory) == vkeys
        assert shown_size(served.url, log) == 7
        assert ask(served.url, "POST", ADD, log.request(5, 9)) == (409, b"7\n")
        assert ask(served.url, "POST", ADD, log.request(7, 9))[0] == 200
        assert served.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("delay_ms", [0, 3, 8, 15, 30])
def test_what_was_answered_is_there_after_a_kill(directory: Path, delay_ms: int) -> None:
    log, answered = MadeLog(entries=[b"%d" % number for number in range(2_000)]), [0]
    vkeys = vkeys_of(directory)
    answers: list[bytes] = []

    def grow(url: str) -> None:
        try:
            for size in range(1, 2_000):
                status, answer = ask(url, "POST", ADD, log.request(size - 1, size))
                assert status == 200, answer
                answers.append(answer)
                answered.append(size)
        except (OSError, http.client.HTTPException):
            return  # killed

    with serving_witness(directory, *vkey_options(log)) as served:
        thread = threading.Thread(target=grow, args=(served.url,))
        thread.start()
        until(lambda: len(answered) > 5)
        time.sleep(delay_ms / 1000)
        served.process.kill()
        thread.join(PATIENCE_S)
    log.require_cosigned(answered[-1], answers[-1], vkeys)
    with serving_witness(directory) as served:
        stored = shown_size(served.url, log)
        assert answered[-1] <= stored <= answered[-1] + 1
        assert ask(served.url, "POST", ADD, log.request(answered[-2], stored + 1)) == (409, b"%d\n" % stored)
        assert ask(served.url, "POST", ADD, log.request(stored, stored + 1))[0] == 200


def until(condition: object) -> None:
    """Returns when the condition holds."""
    assert callable(condition)
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_two_clients_of_two_processes_on_one_state_never_take_it_back(directory: Path) -> None:
    """Two clients, each with a witness process of its own over the same directory, race for every step."""
    log, seen = MadeLog(), []

    def climb(url: str, step: int) -> list[int]:
        size, cosigned = 0, []
        while size + step < len(ENTRIES):
            status, answer = ask(url, "POST", ADD, log.request(size, size + step))
            assert status in (200, 409), answer
            size = size + step if status == 200 else int(answer)
            if status == 200:
                cosigned.append(size)
        return cosigned

    with (
        serving_witness(directory, *vkey_options(log)) as first,
        serving_witness(directory) as second,
        ThreadPoolExecutor(2) as clients,
    ):
        for cosigned in clients.map(climb, (first.url, second.url), (1, 2)):
            assert cosigned == sorted(cosigned)
            seen.append(cosigned)
        assert shown_size(first.url, log) == shown_size(second.url, log) == max(seen[0][-1:] + seen[1][-1:])
    assert not set(seen[0]) & set(seen[1]), "one step was taken twice"


def test_a_second_signal_ends_it_at_once(directory: Path) -> None:
    with serving_witness(directory) as served:
        host, _, port = served.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
            assert slow.recv(100).startswith(b"HTTP/1.1 100 ")
            served.process.send_signal(signal.SIGTERM)
            assert served.process.stderr is not None
            for line in served.process.stderr:
                if line.startswith("stopping"):
                    break
            assert served.stop() == 4


def test_init_prints_keys_and_a_policy_that_counts_the_witness_once(tmp_path: Path) -> None:
    made = run("witness", "init", tmp_path / "w", "--name", NAME, "--json")
    document = json.loads(made.out)
    assert document["name"] == NAME
    log = MadeLog()
    policy = parse_policy(f"log {log.vkeys[0]}\n{document['policy']}quorum {NAME}\n".encode())
    assert [str(entry.vkey) for entry in policy.witnesses.values()] == document["vkeys"]
    assert policy.groups[NAME].threshold == 1
    assert [parse_vkey(vkey).type for vkey in document["vkeys"]] == [
        KeyType.COSIGNATURE_MLDSA44,
        KeyType.COSIGNATURE_ED25519,
    ]
    shown = run("witness", "keys", tmp_path / "w", "--url", "https://w.example.org")
    lines = [line for line in shown.out.splitlines() if line.startswith("witness ")]
    assert [line.split(" ")[3] for line in lines] == ["https://w.example.org"] * 2
    again = require_plain(run("witness", "init", tmp_path / "w", "--name", NAME), 4)
    assert "is not empty" in again[0] or "already" in again[0] or "has" in again[0]


def test_a_public_url_of_the_settings_is_in_the_policy_lines(directory: Path) -> None:
    with (directory / "witness.toml").open("a") as file:
        file.write('\n[server]\npublic_url = "https://w.example.org/x"\n')
    assert run("witness", "keys", directory).out.count(" https://w.example.org/x\n") == 2


def test_logs_are_added_listed_and_cosigned_while_it_runs(directory: Path) -> None:
    log, other = MadeLog(), MadeLog("log.example/other")
    assert "no logs yet" in run("witness", "logs", directory).err
    with serving_witness(directory) as served:
        assert served.said[-2] == f"it knows no log: translog witness add-log {directory} VKEY"
        assert ask(served.url, "POST", ADD, log.request(0, 5))[0] == 404
        added = run("witness", "add-log", directory, *log.vkeys, "--contact", "ops@example.org")
        assert added.out == f"cosigns for {log.origin}\n"
        assert run("witness", "add-log", directory, *log.vkeys).out == f"cosigns for {log.origin}, as before\n"
        before_s = int(time.time())
        assert ask(served.url, "POST", ADD, log.request(0, 5))[0] == 200
        run("witness", "add-log", directory, other.vkeys[0], "--queries-per-day", 7)
        assert run("witness", "add-log", directory, other.vkeys[1]).out == f"cosigns for {other.origin}\n"
        listed = json.loads(run("witness", "logs", directory, "--json").out)["logs"]
        assert [entry["origin"] for entry in listed] == [log.origin, other.origin]
        assert listed[1]["vkeys"] == [str(vkey) for vkey in other.vkeys]
        assert listed[0]["cosigned"]["size"] == 5
        assert before_s <= time.mktime(time.strptime(listed[0]["cosigned"]["time"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
        assert listed[0]["contact"] == "ops@example.org"
        assert (listed[1]["cosigned"], listed[1]["queries_per_day"]) == (None, 7)
        shown = run("witness", "logs", directory).out.splitlines()
        assert shown[:2] == [log.origin, f"  cosigned last: size 5 at {listed[0]['cosigned']['time']}"]
        assert "  cosigned last: nothing yet" in shown


def test_a_key_that_was_removed_counts_no_more(directory: Path) -> None:
    log = MadeLog()
    run("witness", "add-log", directory, *log.vkeys)
    with serving_witness(directory) as served:
        assert ask(served.url, "POST", ADD, log.request(0, 5))[0] == 200
        assert run("witness", "remove-key", directory, log.vkeys[0]).code == 0
        removed = run("witness", "remove-key", directory, log.vkeys[1].key_id.hex(), "--origin", log.origin)
        assert removed.out == f"removed the key {log.vkeys[1].key_id.hex()} of {log.origin}\n"
        assert ask(served.url, "POST", ADD, log.request(5, 6))[0] == 403
        assert shown_size(served.url, log) == 5
        assert "  no key: nothing of it is cosigned" in run("witness", "logs", directory).out.splitlines()
    gone = require_plain(run("witness", "remove-key", directory, log.vkeys[0]), 3)
    assert "has no such key" in gone[0]
    require_plain(run("witness", "remove-key", directory, "00000000", "--origin", log.origin), 3)
    assert run("witness", "remove-key", directory, "00000000").code == 2
    with serving_witness(directory, *vkey_options(log)) as served:
        assert ask(served.url, "POST", ADD, log.request(5, 6))[0] == 200


def test_a_list_of_logs_is_added_and_only_adds(directory: Path, tmp_path: Path) -> None:
    log, other = MadeLog(types=[KeyType.ED25519]), MadeLog("log.example/other", types=[KeyType.ED25519])
    (tmp_path / "list").write_text(f"logs/v0\n\nvkey {log.vkeys[0]}\nqpd 100\ncontact a@b\n")
    assert run("witness", "add-log", directory, "--list", tmp_path / "list").out == "1 of 1 logs in the list are new\n"
    (tmp_path / "list").write_text(f"logs/v0\nvkey {log.vkeys[0]}\nqpd 1\nvkey {other.vkeys[0]}\n")
    assert run("witness", "add-log", directory, "--list", tmp_path / "list").out == "1 of 2 logs in the list are new\n"
    listed = json.loads(run("witness", "logs", directory, "--json").out)["logs"]
    assert [(entry["origin"], entry["source"]) for entry in listed] == [(log.origin, "list"), (other.origin, "list")]
    assert listed[0]["queries_per_day"] == 100
    (tmp_path / "list").write_text("logs/v0\nvkey nonsense\n")
    assert "log list line 2" in require_plain(run("witness", "add-log", directory, "--list", tmp_path / "list"), 1)[0]
    for bad in (tmp_path / "list", tmp_path / "nowhere"):
        (tmp_path / "list").write_text("no list")
        refused = run_program("witness", "serve", tmp_path / "second", "--name", "w2.example", "--log-list", bad)
        assert "list" in require_plain(refused, 1 if bad.exists() else 4)[0]
        assert not (tmp_path / "second").exists()
    (tmp_path / "list").write_text(f"logs/v0\nvkey {other.vkeys[0]}\n")
    with serving_witness(tmp_path / "second", "--name", "w2.example", "--log-list", str(tmp_path / "list")) as served:
        assert ask(served.url, "POST", ADD, other.request(0, 5))[0] == 200
        assert ask(served.url, "POST", ADD, log.request(0, 5))[0] == 404


def test_a_log_with_keys_of_another_name_is_known_by_its_origin(directory: Path) -> None:
    log = MadeLog("sum.example")
    log.origin = "go.sum database tree"
    assert run("witness", "add-log", directory, *log.vkeys, "--origin", log.origin).code == 0
    with serving_witness(directory) as served:
        assert ask(served.url, "POST", ADD, log.request(0, 5))[0] == 200


def test_a_log_that_submits_nothing_is_polled(directory: Path, tmp_path: Path) -> None:
    """A real log, which knows nothing of the witness."""
    log_directory = tmp_path / "log"
    created = json.loads(run("init", log_directory, "--origin", "log.example/polled", "--profile", "opaque", "--json").out)
    with (directory / "witness.toml").open("a") as file:
        file.write("\npoll_interval_ms = 1000\n")
    with serving(log_directory) as log, serving_witness(directory) as witness:
        assert run("add", "--log", log.url, "-", stdin=b"one").code == 0
        assert run("witness", "add-log", directory, *created["vkeys"], "--poll", log.url).code == 0

        def size() -> int:
            cosigned = json.loads(run("witness", "logs", directory, "--json").out)["logs"][0]["cosigned"]
            return 0 if cosigned is None else int(cosigned["size"])

        until(lambda: size() == 1)
        assert run("add", "--log", log.url, "-", stdin=b"two").code == 0
        until(lambda: size() == 2)
        assert witness.stop() == 0
    assert not [line for line in witness.said if '"level": "error"' in line or "Traceback" in line]


@pytest.mark.parametrize("command", ["serve", "logs", "keys", "add-log", "remove-key"])
def test_what_is_no_witness_is_told_in_a_sentence(tmp_path: Path, command: str) -> None:
    more = [str(MadeLog().vkeys[0])] if command in ("add-log", "remove-key") else []
    lines = require_plain(run_program("witness", command, tmp_path / "nowhere", *more), 4)
    assert "witness.toml" in lines[0]
    assert "translog witness init" in lines[1]
    assert not (tmp_path / "nowhere").exists()


def test_a_state_that_is_lost_ends_the_witness(directory: Path) -> None:
    for path in directory.glob("state.sqlite*"):
        path.unlink()
    results = [run_program("witness", "serve", directory, "--name", NAME)]
    for result in [*results, run("witness", "logs", directory), run("witness", "keys", directory)]:
        lines = require_plain(result, 4)
        assert "state of this witness is lost" in lines[0]
        assert "must sign nothing more" in lines[1]
    assert not (directory / "state.sqlite").exists()


def test_another_name_a_taken_port_and_bad_settings_are_told_in_a_sentence(directory: Path) -> None:
    lines = require_plain(run_program("witness", "serve", directory, "--name", "another.example"), 4)
    assert f"is called '{NAME}', not 'another.example'" in lines[0]
    with serving_witness(directory) as served:
        address = served.url.removeprefix("http://")
        lines = require_plain(run_program("witness", "serve", directory, "--listen", address), 4)
        assert lines[0].startswith(f"translog: cannot listen on {address}: ")
        taken = run_program("witness", "serve", directory, "--listen", "127.0.0.1:0", "--admin-listen", address)
        require_plain(taken, 4)
    with (directory / "witness.toml").open("a") as file:
        file.write("\n[server]\nlistens = 1\n")
    lines = require_plain(run_program("witness", "serve", directory), 4)
    assert "witness.toml: server.listens: " in lines[0]


def test_a_name_that_no_key_can_have_makes_nothing(tmp_path: Path) -> None:
    require_plain(run_program("witness", "serve", tmp_path / "w", "--name", "with a space"), 4)
    assert not (tmp_path / "w").exists()


def test_its_own_name_and_keys_are_no_log(directory: Path) -> None:
    own = vkeys_of(directory)[0]
    lines = require_plain(run("witness", "add-log", directory, own), 3)
    assert "must be witnessed by others" in lines[0]
    stolen = VKey(name="log.example/stolen", type=own.type, public_key=own.public_key)
    require_plain(run("witness", "add-log", directory, stolen), 3)
    others = MadeLog("w.example.org/other", types=[KeyType.COSIGNATURE_ED25519]).vkeys[0]
    assert "is for witnesses" in require_plain(run("witness", "add-log", directory, others), 1)[0]


def test_what_logs_may_ask_follows_the_settings_and_stays_when_a_key_is_added(directory: Path) -> None:
    log, other = MadeLog(), MadeLog("log.example/other")
    with (directory / "witness.toml").open("a") as file:
        file.write("\nqueries_per_day = 123\n")
    run("witness", "add-log", directory, log.vkeys[0], "--queries-per-day", 7, "--poll", "http://127.0.0.1:1")
    run("witness", "add-log", directory, log.vkeys[1], other.vkeys[0])
    listed = json.loads(run("witness", "logs", directory, "--json").out)["logs"]
    assert [(entry["queries_per_day"], entry["poll_url"]) for entry in listed] == [(7, "http://127.0.0.1:1"), (123, "")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("add-log", "DIR"),
        ("add-log", "DIR", "nonsense"),
        ("add-log", "DIR", "VKEY", "--list", "x"),
        ("add-log", "DIR", "--list", "x", "--origin", "y"),
        ("add-log", "DIR", "VKEY", "--poll", "ftp://x"),
        ("add-log", "DIR", "VKEY", "--queries-per-day", "0"),
        ("remove-key", "DIR", "nonsense"),
        ("serve", "DIR", "--log", "nonsense"),
        ("init", "DIR"),
    ],
)
def test_what_is_said_wrongly_is_a_usage_error(directory: Path, arguments: tuple[str, ...]) -> None:
    said = {"DIR": str(directory), "VKEY": str(MadeLog().vkeys[0])}
    result = run("witness", *(said.get(argument, argument) for argument in arguments))
    assert result.code == 2
    assert "Traceback" not in result.err
    assert json.loads(run("witness", "logs", directory, "--json").out)["logs"] == []


def test_every_refusal_is_a_document_with_json(directory: Path) -> None:
    result = run("witness", "remove-key", directory, MadeLog().vkeys[0], "--json")
    assert json.loads(result.out)["ok"] is False
    assert result.code == 3
