"""`translog keys`: shows, makes, never overwrites, never shows what is secret."""

import json
import stat
from hashlib import sha256
from pathlib import Path

import pytest
from aiohttp import web
from client.simulator import respond

from cli.harness import require_plain, run, serving
from cli.test_reading import in_the_background
from cli.test_stolen_key import free_port
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


# Changing the keys of a running log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    assert run("init", tmp_path / "log", "--origin", "log.example", "--profile", "opaque").code == 0
    return tmp_path / "log"


def listen(log: Path, address: str) -> None:
    """From now on that is where its admin listener is."""
    settings = log / "translog.toml"
    settings.write_text(settings.read_text().replace("[server]\n", f'[server]\nadmin_listen = "{address}"\n'))


def test_a_running_log_changes_its_keys_and_says_what_comes_next(log: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    listen(log, address)
    first = {parse_vkey(vkey).type: parse_vkey(vkey) for vkey in run("keys", "show", log).out.splitlines()}
    with serving(log, "--admin-listen", address) as served:
        added = run("keys", "add", log)
        assert added.code == 0, added.err
        vkey = parse_vkey(added.out.removesuffix("\n"))
        assert vkey.type is KeyType.COSIGNATURE_MLDSA44
        key_id = vkey.key_id.hex()
        need = "the witnesses' operators need the vkey above before another is retired"
        assert added.err.splitlines() == [
            f"the log signs with {key_id} (ML-DSA-44) as well: change 1, entry 0",
            f"back up {log / 'keys'}: it has one more file; {need}",
        ]
        old = first[KeyType.COSIGNATURE_MLDSA44].key_id.hex()
        retired = run("keys", "retire", log, old)
        assert (retired.code, retired.out) == (0, f"retired {old} (ML-DSA-44): change 2, entry 1\n")
        assert "translog policy update" in retired.err
        lines = require_plain(run("keys", "retire", log, key_id), 3)
        assert "is the last of its type" in lines[0]
        assert "translog keys add" in lines[1]
        added = run("keys", "add", log, "--type", "ed25519", "--operator", "z\xfcrich \u2603", "--json")
        assert json.loads(added.out)["number"] == 3
        assert served.stop() == 0
    shown = run("keys", "show", log)
    assert set(shown.out.splitlines()) == {str(vkey), str(first[KeyType.ED25519]), json.loads(added.out)["vkey"]}
    assert shown.err == f"retired: {first[KeyType.COSIGNATURE_MLDSA44]}\n"
    document = json.loads(run("keys", "show", log, "--json").out)
    assert document["retired"] == [str(first[KeyType.COSIGNATURE_MLDSA44])]


def test_a_log_that_does_not_run_changes_no_keys(log: Path) -> None:
    listen(log, f"127.0.0.1:{free_port()}")
    before = sorted((log / "keys").iterdir())
    for command in (("add", log), ("retire", log, "00000000")):
        lines = require_plain(run("keys", *command), 3)
        assert "cannot reach http://127.0.0.1:" in lines[0]
        assert "is the log running" in lines[1]
    assert sorted((log / "keys").iterdir()) == before


def test_without_an_admin_listener_that_is_said(log: Path) -> None:
    listen(log, "")
    assert "has no admin listener" in require_plain(run("keys", "add", log), 4)[0]
    assert "there is no" in require_plain(run("keys", "add", log / "nowhere"), 4)[0]


@pytest.mark.parametrize("key_id", ["", "1234567", "123456789", "ABCDEF01", "../../x"])
def test_what_is_no_key_id_is_wrong_usage(log: Path, key_id: str) -> None:
    assert run("keys", "retire", log, key_id).code == 2


@pytest.mark.parametrize("operator", ["a\nb", "\x00", "a\x7f"])
def test_an_operator_who_cannot_be_shown_is_wrong_usage(log: Path, operator: str) -> None:
    assert run("keys", "add", log, "--operator", operator).code == 2


def test_what_is_not_published_yet_and_odd_answers_are_told(log: Path) -> None:
    vkey = run("keys", "show", log).out.splitlines()[0]
    with in_the_background(0) as (simulator, url):
        listen(log, url.removeprefix("http://"))
        answer = {"vkey": vkey, "key_id": "x", "number": 1, "index": 5, "published": False}
        simulator.answers["keys"] = respond(body=json.dumps(answer).encode())
        assert "too few witnesses cosign" in run("keys", "add", log).err
        for body in (b"", b"[]", b"{}", json.dumps(answer | {"vkey": "x"}).encode()):
            simulator.answers["keys"] = respond(body=body)
            require_plain(run("keys", "add", log), 3)
        simulator.answers["keys"] = simulator.close_early
        lines = require_plain(run("keys", "add", log), 3)
        assert f"translog keys show {log}" in lines[1]


def test_a_log_that_still_reads_its_keys_is_waited_for_and_one_that_is_read_only_is_not(log: Path) -> None:
    vkey = run("keys", "show", log).out.splitlines()[0]
    done = json.dumps({"vkey": vkey, "key_id": "x", "number": 1, "index": 5, "published": True}).encode()
    asked: list[str] = []

    async def not_at_first(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        code = "not-open" if len(asked) < 3 else ""
        problem = json.dumps({"code": code, "detail": "not yet"}).encode()
        return web.Response(status=503, body=problem, headers={"Retry-After": "0"}) if code else web.Response(body=done)

    async def read_only(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=503, body=b'{"code":"read-only","detail":"held"}', headers={"Retry-After": "300"})

    with in_the_background(0) as (simulator, url):
        listen(log, url.removeprefix("http://"))
        simulator.answers["keys"] = not_at_first
        assert run("keys", "add", log).code == 0
        assert len(asked) == 3
        simulator.answers["keys"] = read_only
        require_plain(run("keys", "add", log), 3)
        assert len(asked) == 4


def test_files_that_hold_no_public_key_are_named(log: Path) -> None:
    (log / "keys" / "log-mldsa44-12345678.vkey").write_text("x\n")
    assert "log-mldsa44-12345678.vkey" in require_plain(run("keys", "show", log), 4)[0]


def test_evidence_of_old_events_is_had_under_new_keys(tmp_path: Path) -> None:
    log, address = tmp_path / "events", f"127.0.0.1:{free_port()}"
    assert run("init", log, "--origin", "log.example").code == 0
    listen(log, address)
    (tmp_path / "event").write_text('{"id":"1","actor":"alice","action":"door.open"}\n')
    with serving(log, "--admin-listen", address) as served:
        assert run("submit", "--log", served.url, "--source", "events", tmp_path / "event").code == 0
        assert run("policy", "--log", served.url, "-o", tmp_path / "old").code == 0
        old = next(vkey for vkey in run("keys", "show", log).out.splitlines() if len(vkey) > 1_000)
        assert run("keys", "add", log).code == 0
        assert run("keys", "retire", log, parse_vkey(old).key_id.hex()).code == 0
        assert run("policy", "--log", served.url, "-o", tmp_path / "new").code == 0
        fetched = {
            name: run("evidence", "--log", served.url, "--policy", tmp_path / name, 1, "-o", tmp_path / f"by-{name}")
            for name in ("old", "new")
        }
        assert served.stop() == 0
    assert [result.code for result in fetched.values()] == [0, 0], fetched["new"].err
    assert fetched["old"].err == ""
    assert "made a new one" in fetched["new"].err
    for evidence, policy, code in (("by-old", "old", 0), ("by-new", "new", 0), ("by-old", "new", 1), ("by-new", "old", 1)):
        assert run("verify", tmp_path / evidence, "--policy", tmp_path / policy).code == code
