"""`translog init`: creates a log once, whole or not at all."""

import json
import stat
from pathlib import Path

import pytest

from cli.harness import require_plain, run, run_program
from translog.core.keys import KeyType, parse_vkey
from translog.core.policy import parse_policy
from translog.errors import StorageError


def init(directory: object, origin: str = "log.example/new", *options: object) -> list[object]:
    return ["init", directory, "--origin", origin, "--profile", "opaque", *options]


def test_a_new_log_has_keys_store_head_and_settings(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    result = run(*init(directory))
    assert result.code == 0
    assert sorted(path.name for path in directory.iterdir()) == ["head", "keys", "lock", "log", "translog.toml"]
    assert sorted(path.name for path in (directory / "keys").iterdir()) == ["log-ed25519.skey", "log-mldsa44.skey"]
    assert "PRIVATE" not in result.out + result.err
    assert f"created the log log.example/new in {directory}" in result.err


def test_only_the_owner_may_read_what_is_made(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    run(*init(directory))
    for path in (directory, directory / "keys"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (directory / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_prints_vkeys_and_a_policy_that_trusts_them(tmp_path: Path) -> None:
    out = run(*init(tmp_path / "log")).out
    head, _, policy = out.partition("policy:\n")
    vkeys = [parse_vkey(line.split(": ")[1]) for line in head.splitlines()]
    assert {vkey.type for vkey in vkeys} == {KeyType.ED25519, KeyType.COSIGNATURE_MLDSA44}
    assert {vkey.name for vkey in vkeys} == {"log.example/new"}
    (listed,) = parse_policy(policy.encode()).logs
    assert listed.vkey in vkeys
    assert listed.vkey.type is KeyType.COSIGNATURE_MLDSA44


def test_json_is_one_document(tmp_path: Path) -> None:
    document = json.loads(run(*init(tmp_path / "log", "log.example/new", "--json")).out)
    assert (document["ok"], document["origin"], document["directory"]) == (True, "log.example/new", str(tmp_path / "log"))
    assert len(parse_policy(document["policy"].encode()).logs) == 1
    assert len([parse_vkey(vkey) for vkey in document["vkeys"]]) == 2


def test_an_empty_directory_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for directory in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        assert run(*init(directory)).code == 0
        assert (directory / "head").exists()


def test_it_refuses_to_run_twice_and_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    run(*init(directory))
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    result = run(*init(directory, "log.example/other", "--json"))
    lines = require_plain(result, 4)
    assert lines == [f"translog: {directory} exists and is not empty", "  a log is created once, in a new directory"]
    assert json.loads(result.out)["code"] == "log-exists"
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("what", ["file", "other", "dangling"])
def test_it_refuses_what_is_no_empty_directory(tmp_path: Path, what: str) -> None:
    path = tmp_path / "log"
    if what == "file":
        path.write_text("mine")
    elif what == "other":
        path.mkdir()
        (path / "notes").write_text("mine")
    else:
        path.symlink_to(tmp_path / "nowhere")
    require_plain(run(*init(path)), 4)
    assert [child.name for child in tmp_path.iterdir()] == ["log"]


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert f"cannot create {tmp_path / 'file' / 'log'}" in require_plain(run(*init(tmp_path / "file" / "log")), 4)[0]


@pytest.mark.parametrize("options", [[], ["--profile", "events"]])
def test_a_log_of_events_has_the_keys_of_its_vault_beside(tmp_path: Path, options: list[str]) -> None:
    result = run("init", tmp_path / "log", "--origin", "log.example", *options, "--json")
    assert result.code == 0
    assert 'profile = "events"' in (tmp_path / "log" / "translog.toml").read_text()
    names = {path.name for path in (tmp_path / "log" / "keys").iterdir()}
    assert names == {"log-ed25519.skey", "log-mldsa44.skey", "dedup.key", "kek.key"}
    assert (tmp_path / "log" / "vault" / "keys.json").is_file()
    secrets = [(tmp_path / "log" / "keys" / name).read_text().strip() for name in ("dedup.key", "kek.key")]
    assert not [secret for secret in secrets if secret in result.out + result.err]


BAD_ORIGINS = [
    "",
    " ",
    "a b",
    "a+b",
    "a\nb",
    "a\tb",
    "a\u2003b",
    "a\u2028b",
    "x" * 115,
    "\xfc" * 58,
    "\udcff",
    "a\x01b",
    "a\x7fb",
    "a\u200bb",
    "a\ud800",
]


@pytest.mark.parametrize("origin", BAD_ORIGINS, ids=range(len(BAD_ORIGINS)))
def test_bad_origins_are_refused_and_nothing_is_left(tmp_path: Path, origin: str) -> None:
    lines = require_plain(run(*init(tmp_path / "log", origin)), 4)
    assert lines[0].endswith("cannot be a log's origin")
    assert "at most 114 bytes" in lines[1]
    assert not any(tmp_path.iterdir())


def test_an_origin_of_114_bytes_is_fine(tmp_path: Path) -> None:
    assert run(*init(tmp_path / "log", "x" * 114)).code == 0


@pytest.mark.parametrize("origin", ['log.example/"\\n', "log.example/\xfc", "log.example/'", "log.example/{origin}#x"])
def test_any_origin_that_is_taken_survives_the_settings_file(tmp_path: Path, origin: str) -> None:
    from translog.config import read_settings

    assert run(*init(tmp_path / "log", origin)).code == 0
    assert read_settings(tmp_path / "log").origin == origin


@pytest.mark.parametrize("step", ["bootstrap.create_log_keys", "bootstrap.write_settings", "log.directory.sync_directory"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), StorageError("no"), KeyboardInterrupt()])
def test_a_creation_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(f"translog.{step}", fail)
    assert run(*init(tmp_path / "log")).code == (130 if isinstance(error, KeyboardInterrupt) else 4)
    assert not any(tmp_path.iterdir())


def test_the_current_directory_can_become_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").mkdir()
    monkeypatch.chdir(tmp_path / "log")
    assert run(*init(".")).code == 0
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["head", "keys", "lock", "log", "translog.toml"]
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_as_a_program_it_leaves_no_warnings_behind(tmp_path: Path) -> None:
    result = run_program(*init(tmp_path / "log"))
    assert result.code == 0
    assert len(result.err.splitlines()) == 2
