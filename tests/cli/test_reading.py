"""`translog receipt`, `checkpoint`, `prove` and `policy`: what they fetch is verified, and works with any tlog-tiles log."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from client.simulator import ED25519, STRANGER, Simulator, entries_of, entry_at, flip, respond

from cli.conftest import SharedLog
from cli.harness import require_plain, run
from translog.core.keys import KeyType
from translog.core.merkle import hash_leaf, verify_consistency, verify_inclusion
from translog.core.note import parse_note
from translog.core.policy import parse_policy, verify_checkpoint
from translog.core.proof import parse_receipt, verify_receipt
from translog.core.wire import decode_base64


@contextmanager
def in_the_background(simulator_size: int) -> Iterator[tuple[Simulator, str]]:
    """A foreign log served by a thread, for commands that run an event loop of their own."""
    ready, stop, found = threading.Event(), threading.Event(), []

    async def serve() -> None:
        simulator = Simulator(entries_of(simulator_size))
        async with simulator.serving() as url:
            found.append((simulator, url))
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield found[0]
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def foreign() -> Iterator[tuple[Simulator, str]]:
    with in_the_background(300) as served:
        yield served


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "foreign-policy"
    path.write_text(f"log {ED25519.vkey}\nquorum none\n")
    return path


@pytest.fixture
def filled(shared_log: SharedLog) -> SharedLog:
    """The shared log with some entries; entry 0 differs from run to run, as the order of tests does."""
    added = run("add", "--log", shared_log.url, "--policy", shared_log.policy, "--lines", "-", stdin=b"a\nb\nc\n")
    assert added.code == 0
    return shared_log


# receipt


def test_a_receipt_is_fetched_to_standard_output_or_a_file(filled: SharedLog, tmp_path: Path) -> None:
    shown = run("receipt", 0, "--log", filled.url)
    assert (shown.code, shown.err) == (0, "")
    assert parse_receipt(shown.raw).index == 0
    saved = run("receipt", 0, "--log", filled.url, "-o", tmp_path / "receipt")
    assert (saved.code, saved.raw) == (0, b"")
    assert parse_receipt((tmp_path / "receipt").read_bytes()).index == 0


def test_with_a_policy_the_receipt_is_made_here_and_verified(filled: SharedLog) -> None:
    added = json.loads(run("add", "--log", filled.url, "--policy", filled.policy, "--json", "-", stdin=b"mine").out)
    trusted = parse_policy(filled.policy.read_bytes())
    receipt = parse_receipt(run("receipt", added["indexes"][0], "--log", filled.url, "--policy", filled.policy).raw)
    assert verify_receipt(receipt, leaf_hash=hash_leaf(b"mine"), policy=trusted).index == added["indexes"][0]


def test_a_receipt_can_be_made_of_a_foreign_log(foreign: tuple[Simulator, str], policy: Path) -> None:
    _, url = foreign
    receipt = parse_receipt(run("receipt", 255, "--log", url, "--policy", policy).raw)
    trusted = parse_policy(policy.read_bytes())
    assert verify_receipt(receipt, leaf_hash=hash_leaf(entry_at(255)), policy=trusted).index == 255


def test_a_foreign_log_that_lies_gets_no_receipt_past_us(foreign: tuple[Simulator, str], policy: Path) -> None:
    simulator, url = foreign
    simulator.files["tile/0/000"] = flip(simulator.files["tile/0/000"], 0)
    result = run("receipt", 1, "--log", url, "--policy", policy)
    assert "tile/0/000 does not match the tree head of size 300" in require_plain(result, 1)[0]
    assert result.raw == b""


def test_receipts_that_are_not_there_exit_with_3(filled: SharedLog, foreign: tuple[Simulator, str]) -> None:
    assert "answers 404" in require_plain(run("receipt", 10**9, "--log", filled.url), 3)[0]
    assert "answers 400" in require_plain(run("receipt", 2**70, "--log", filled.url), 3)[0]
    assert "answers 404" in require_plain(run("receipt", 0, "--log", foreign[1]), 3)[0]
    result = run("receipt", 10**9, "--log", filled.url, "--policy", filled.policy)
    assert "there is no entry 1000000000" in require_plain(result, 1)[0]


def test_output_that_cannot_be_written_is_named(filled: SharedLog, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "file"):
        assert f"cannot write {path}" in require_plain(run("receipt", 0, "--log", filled.url, "-o", path), 4)[0]


# checkpoint


def test_the_checkpoint_is_verified_and_printed_byte_for_byte(filled: SharedLog, tmp_path: Path) -> None:
    result = run("checkpoint", "--log", filled.url, "--policy", filled.policy, "-o", tmp_path / "note")
    assert result.code == 0
    note = (tmp_path / "note").read_bytes()
    verified = verify_checkpoint(note, parse_policy(filled.policy.read_bytes()))
    assert result.err.splitlines()[0].startswith(f"log.example/shared, {verified.checkpoint.size} entries, root ")
    shown = run("checkpoint", "--log", filled.url, "--policy", filled.policy)
    assert parse_note(shown.raw)


def test_the_checkpoint_as_json(filled: SharedLog) -> None:
    document = json.loads(run("checkpoint", "--log", filled.url, "--policy", filled.classic, "--json").out)
    assert document["ok"] is True
    assert document["origin"] == "log.example/shared"
    assert [item["algorithm"] for item in document["signed"]] == ["Ed25519"]
    assert parse_note(document["note"].encode())


def test_the_checkpoint_as_json_goes_where_it_is_told(filled: SharedLog, tmp_path: Path) -> None:
    path = tmp_path / "document"
    result = run("checkpoint", "--log", filled.url, "--policy", filled.policy, "--json", "-o", path)
    assert (result.code, result.raw, result.err) == (0, b"", "")
    document = json.loads(path.read_bytes())
    verify_checkpoint(document["note"].encode(), parse_policy(filled.policy.read_bytes()))
    assert path.read_bytes().endswith(b"}\n")


def test_the_first_checkpoint_was_kept_and_others_name_the_nearest(filled: SharedLog) -> None:
    first = run("checkpoint", "--log", filled.url, "--policy", filled.policy, "--size", 0)
    assert first.raw.startswith(b"log.example/shared\n0\n")
    result = run("checkpoint", "--log", filled.url, "--policy", filled.policy, "--size", 10**9)
    assert "answers 404" in require_plain(result, 3)[0]


def test_a_checkpoint_the_policy_does_not_accept_is_not_printed(filled: SharedLog, policy: Path) -> None:
    result = run("checkpoint", "--log", filled.url, "--policy", policy)
    assert "the policy lists no log 'log.example/shared'" in require_plain(result, 1)[0]
    assert result.raw == b""


# prove


def test_inclusion_is_proven(filled: SharedLog) -> None:
    document = json.loads(run("prove", "inclusion", 0, "--log", filled.url, "--policy", filled.policy, "--json").out)
    receipt = parse_receipt(run("receipt", 0, "--log", filled.url, "--policy", filled.policy).raw)
    assert document["ok"] is True
    assert [decode_base64(value) for value in document["proof"]] == list(receipt.proof)


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 300), (299, 300), (255, 256), (256, 300), (100, 257)])
def test_inclusion_in_a_foreign_log_is_the_oracles(index: int, size: int, policy: Path) -> None:
    with in_the_background(300) as (simulator, url):
        document = json.loads(run("prove", "inclusion", index, "--size", size, "--log", url, "--policy", policy, "--json").out)
        proof = [decode_base64(value) for value in document["proof"]]
        assert proof == simulator.oracle.path(index, 0, size)
        root = decode_base64(document["root"])
        assert (document["index"], document["size"], root) == (index, size, simulator.root(size))
        verify_inclusion(leaf_hash=hash_leaf(entry_at(index)), index=index, size=size, proof=proof, root=root)


@pytest.mark.parametrize(("old", "new"), [(1, 300), (255, 256), (256, 257), (300, 300), (257, None)])
def test_consistency_of_a_foreign_log_is_the_oracles(old: int, new: int | None, policy: Path) -> None:
    with in_the_background(300) as (simulator, url):
        sizes = [old] if new is None else [old, new]
        document = json.loads(run("prove", "consistency", *sizes, "--log", url, "--policy", policy, "--json").out)
        new = 300 if new is None else new
        proof = [decode_base64(value) for value in document["proof"]]
        assert proof == simulator.oracle.proof(old, 0, new)
        old_root, new_root = decode_base64(document["old_root"]), decode_base64(document["new_root"])
        assert (document["old"], document["new"], old_root, new_root) == (old, new, simulator.root(old), simulator.root(new))
        verify_consistency(old=old, new=new, proof=proof, old_root=old_root, new_root=new_root)


def test_proofs_for_people_are_lines(foreign: tuple[Simulator, str], policy: Path) -> None:
    simulator, url = foreign
    lines = run("prove", "inclusion", 5, "--log", url, "--policy", policy).out.splitlines()
    assert lines[:2] == ["index 5", "size 300"]
    assert [decode_base64(line) for line in lines[3:]] == simulator.oracle.path(5, 0, 300)


@pytest.mark.parametrize(
    "arguments",
    [
        ("inclusion", 300),
        ("inclusion", 5, "--size", 5),
        ("inclusion", 5, "--size", 301),
        ("consistency", 5, 4),
        ("consistency", 1, 301),
    ],
)
def test_what_cannot_be_proven_is_told_in_a_sentence(
    arguments: tuple[object, ...], foreign: tuple[Simulator, str], policy: Path
) -> None:
    result = run("prove", *arguments, "--log", foreign[1], "--policy", policy, "--json")
    require_plain(result, 1)
    assert json.loads(result.out)["ok"] is False


@pytest.mark.parametrize("arguments", [("inclusion", -1), ("inclusion", 0, "--size", 0), ("consistency", 0), ("nothing",), ()])
def test_proofs_of_nothing_are_wrong_usage(arguments: tuple[object, ...]) -> None:
    assert run("prove", *arguments, "--log", "http://127.0.0.1:1").code == 2


def test_two_histories_in_one_log_are_not_proven_consistent(foreign: tuple[Simulator, str], policy: Path) -> None:
    simulator, url = foreign
    simulator.files["tile/0/001.p/44"] = flip(simulator.files["tile/0/001.p/44"], 3)
    require_plain(run("prove", "consistency", 5, "--log", url, "--policy", policy), 1)


# policy


def test_the_policy_lists_the_strongest_key_and_says_what_it_is_worth(shared_log: SharedLog) -> None:
    text = shared_log.policy.read_text()
    (listed,) = parse_policy(text.encode()).logs
    assert (listed.vkey.type, listed.url) == (KeyType.COSIGNATURE_MLDSA44, shared_log.url)
    assert text.startswith("# log.example/shared: as the log itself said. Compare the key")
    assert "# No witnesses: " in text
    result = run("policy", "--log", shared_log.url)
    assert result.raw == shared_log.policy.read_bytes()
    assert "trusts what" in result.err


def test_classic_lists_ed25519_and_warns(shared_log: SharedLog) -> None:
    text = shared_log.classic.read_text()
    (listed,) = parse_policy(text.encode()).logs
    assert listed.vkey.type is KeyType.ED25519
    assert "a quantum computer could forge" in text


def test_the_policy_written_is_the_one_init_printed(shared_log: SharedLog) -> None:
    shown = run("keys", "show", shared_log.directory).out.split()
    written = [parse_policy(path.read_bytes()).logs[0].vkey for path in (shared_log.policy, shared_log.classic)]
    assert sorted(map(str, written)) == sorted(shown)


def test_a_site_that_is_no_translog_gets_no_policy(foreign: tuple[Simulator, str]) -> None:
    simulator, url = foreign
    require_plain(run("policy", "--log", url), 3)
    simulator.answers["v1/log"] = respond(200, b"<html>")
    assert "is this a translog" in require_plain(run("policy", "--log", url), 3)[0]
    simulator.answers["v1/log"] = respond(200, b"{}")
    lines = require_plain(run("policy", "--log", url), 3)
    assert "does not answer as a translog does" in lines[0]


def test_a_log_cannot_write_lines_of_its_own_into_a_policy(foreign: tuple[Simulator, str]) -> None:
    simulator, url = foreign
    info = {
        "origin": f"x\nlog {STRANGER.vkey}\n#",
        "vkeys": [str(ED25519.vkey)],
        "published_size": 0,
        "integrated_size": 0,
        "limits": {"entries_per_request_max": 1, "body_bytes_max": 1},
    }
    simulator.answers["v1/log"] = respond(200, json.dumps(info).encode())
    result = run("policy", "--log", url)
    assert result.code != 0 or [log.vkey for log in parse_policy(result.raw).logs] == [ED25519.vkey]
