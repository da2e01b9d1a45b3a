"""`translog keys`: shows, makes, never overwrites, never shows what is secret."""

import json
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from cli.harness import require_plain, run
from translog.core.keys import KeyType, format_skey, parse_skey, parse_vkey


def test_show_prints_the_public_keys_of_a_log(tmp_path: Path) -> None:
    made = json.loads(run("init", tmp_path / "log", "--origin", "log.example", "--profile", "opaque", "--json").out)
    result = run("keys", "show", tmp_path / "log")
    assert (result.code, result.err) == (0, "")
    assert sorted(result.out.splitlines()) == sorted(made["vkeys"])
    for path in (tmp_path / "log" / "keys").iterdir():
        assert run("keys", "show", path).out.strip() in made["vkeys"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ed25519", KeyType.ED25519),
        ("cosignature-ed25519", KeyType.COSIGNATURE_ED25519),
        ("mldsa44", KeyType.COSIGNATURE_MLDSA44),
    ],
)
def test_generate_makes_a_key_of_each_type(tmp_path: Path, name: str, kind: KeyType) -> None:
    path = tmp_path / "key"
    result = run("keys", "generate", "witness.example", "-o", path, "--type", name)
    assert (result.code, result.err) == (0, "")
    vkey = parse_vkey(result.out.removesuffix("\n"))
    assert (vkey.name, vkey.type) == ("witness.example", kind)
    skey = parse_skey(path.read_text().removesuffix("\n"))
    assert skey.vkey == vkey
    assert format_skey(skey) not in result.out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run("keys", "show", path).out == result.out


def test_two_keys_are_never_the_same(tmp_path: Path) -> None:
    made = {run("keys", "generate", "a", "-o", tmp_path / str(number), "--type", "ed25519").out for number in range(3)}
    assert len(made) == 3


@pytest.mark.parametrize("command", [("generate", "a"), ("token",)])
def test_nothing_is_overwritten(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    lines = require_plain(run("keys", *command, "-o", path), 4)
    assert "never overwritten" in lines[1]
    assert path.read_text() == "precious"


@pytest.mark.parametrize("command", [("generate", "a"), ("token",)])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "nowhere" / "file"
    assert f"cannot write {path}: No such file or directory" in require_plain(run("keys", *command, "-o", path), 4)[0]


@pytest.mark.parametrize("name", ["", "a b", "a+b", "\t"])
def test_names_that_name_no_key_are_wrong_usage(tmp_path: Path, name: str) -> None:
    assert run("keys", "generate", name, "-o", tmp_path / "key").code == 2
    assert not any(tmp_path.iterdir())


def test_unknown_types_are_wrong_usage(tmp_path: Path) -> None:
    assert run("keys", "generate", "a", "-o", tmp_path / "key", "--type", "rsa").code == 2


def test_names_beyond_ascii_can_be_given(tmp_path: Path) -> None:
    result = run("keys", "generate", "z\xfcri.example", "-o", tmp_path / "key", "--type", "ed25519")
    assert result.code == 0
    assert run("keys", "show", tmp_path / "key").out == result.out


def test_a_token_goes_to_the_member_and_its_digest_into_the_settings(tmp_path: Path) -> None:
    shown = run("keys", "token").out.splitlines()
    token = shown[0].removeprefix("token (for the member, secret): ")
    assert shown[1] == f'token_sha256 = "{sha256(token.encode()).hexdigest()}"'
    path = tmp_path / "token"
    result = run("keys", "token", "-o", path)
    kept = path.read_text().removesuffix("\n")
    assert result.out == f'token_sha256 = "{sha256(kept.encode()).hexdigest()}"\n'
    assert kept != token
    assert len(kept) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_show_says_what_is_wrong_with_a_key(tmp_path: Path) -> None:
    assert "there is no key in" in require_plain(run("keys", "show", tmp_path), 4)[0]
    path = tmp_path / "key"
    assert f"cannot read the key {path}" in require_plain(run("keys", "show", path), 4)[0]
    for content in (b"", b"\xff\xfe", b"PRIVATE+KEY+secretly", b"PRIVATE+KEY+a+00000000+c2VjcmV0"):
        path.write_bytes(content)
        lines = require_plain(run("keys", "show", path), 4)
        assert str(path) in lines[0]
        assert "secretly" not in lines[0]
        assert "c2VjcmV0" not in lines[0]
    path.write_bytes(bytes(10_000))
    require_plain(run("keys", "show", path), 1)


def test_json_is_one_document(tmp_path: Path) -> None:
    made = json.loads(run("keys", "generate", "log.example", "-o", tmp_path / "key", "--json").out)
    assert json.loads(run("keys", "show", tmp_path / "key", "--json").out) == {"ok": True, "vkeys": [made["vkey"]]}
    shown = json.loads(run("keys", "token", "--json").out)
    assert sha256(shown["token"].encode()).hexdigest() == shown["token_sha256"]
    written = json.loads(run("keys", "token", "-o", tmp_path / "token", "--json").out)
    assert written["token"] is None
    assert sha256((tmp_path / "token").read_bytes().strip()).hexdigest() == written["token_sha256"]
