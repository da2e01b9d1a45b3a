"""`translog policy check`, and the witnesses in what `translog policy` writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from client.simulator import ED25519, MLDSA44, ORIGIN, STRANGER, respond

from cli.harness import Result, require_plain, run, run_program
from cli.test_main import BLOCKER
from cli.test_reading import in_the_background
from translog.core.keys import KeyType, SKey
from translog.core.policy import parse_policy

ED, ML = KeyType.COSIGNATURE_ED25519, KeyType.COSIGNATURE_MLDSA44
LOG = f"log {MLDSA44.vkey} https://log.example/\n"


def line(name: str, kind: KeyType = ED, *, url: str = "https://w.example/", witness: str = "") -> str:
    """A witness line; the vkey's name is `<name>.example`, or `<witness>.example`."""
    skey = SKey(name=f"{witness or name}.example", type=kind, seed=name.encode().ljust(31, b".") + bytes([kind]))
    return f"witness {name} {skey.vkey} {url}".rstrip() + "\n"


def lines(names: str, kind: KeyType = ED) -> str:
    return "".join(line(name, kind) for name in names)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy"


def check(file: Path, text: str, *options: object) -> Result:
    file.write_text(text)
    return run("policy", "check", file, *options)


def test_a_sound_policy_says_who_must_be_dishonest_and_who_may_be_absent(file: Path) -> None:
    result = check(file, LOG + lines("abc", ML) + "group g 2 a b c\nquorum g\n")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "OK: a split view would take 1 dishonest witness",
        "  dishonest, beside the operator: a.example",
        "  two quorums with nobody else in common: a.example + b.example and a.example + c.example",
        "  witnesses that count: 3, a.example, b.example, c.example",
        "  publication stops without these: a.example, b.example",
        "  post-quantum keys (ML-DSA-44): a, b, c",
        "  against one who can forge Ed25519 a split view would still take: a.example",
        f"  log {ORIGIN}, ML-DSA-44 (post-quantum), key {MLDSA44.vkey.key_id.hex()} https://log.example/",
    ]


def test_two_disjoint_quorums_are_named_and_the_exit_code_is_1(file: Path) -> None:
    text = LOG + lines("abcde") + "group g 2 a b c d e\nquorum g\n"
    result = check(file, text)
    assert (result.code, result.err) == (1, "")
    said = result.out.splitlines()
    assert said[0] == "NOT SOUND: a split view would take no dishonest witness"
    assert said[1] == "  two quorums have nobody in common: a.example + b.example and c.example + d.example"
    result = check(file, text, "--json")
    document = json.loads(result.out)
    assert (result.code, document["ok"], document["split"]) == (1, False, [])
    assert document["views"] == [["a.example", "b.example"], ["c.example", "d.example"]]


def test_quorum_none_is_the_operators_word_and_the_exit_code_is_1(file: Path) -> None:
    result = check(file, LOG + line("a") + "quorum none\n")
    assert (result.code, result.err) == (1, "")
    said = result.out.splitlines()
    assert said[0] == "NOT SOUND: the policy asks for no witnesses: the log's operator alone could show a split view"
    assert "  never needed for the quorum: a" in said
    document = json.loads(check(file, LOG + "quorum none\n", "--json").out)
    assert [document[key] for key in ("ok", "quorum", "split", "split_quantum", "stop")] == [False, "none", None, None, None]


def test_what_remains_against_one_who_can_forge_ed25519_is_said(file: Path) -> None:
    result = check(file, LOG + lines("ab") + line("c", ML) + line("d", ML) + "group g all a b c d\nquorum g\n")
    assert result.code == 0
    said = result.out.splitlines()
    assert said[0] == "OK: a split view would take 4 dishonest witnesses, or 2 where Ed25519 can be forged"
    assert "  publication stops without this one: a.example" in said
    assert "  post-quantum keys (ML-DSA-44): c, d" in said
    assert "  Ed25519 keys: a, b" in said
    assert "  against one who can forge Ed25519 a split view would still take: c.example, d.example" in said
    result = check(file, LOG + lines("abc") + "group g all a b c\nquorum g\n")
    assert result.code == 0
    assert "  post-quantum keys (ML-DSA-44): none" in result.out.splitlines()
    assert result.out.splitlines()[0].endswith(", or none where Ed25519 can be forged")
    assert "  against one who can forge Ed25519 the witnesses are worth nothing: a split view would take none of them" in (
        result.out.splitlines()
    )


def test_witnesses_that_are_no_use_are_told(file: Path) -> None:
    text = LOG + lines("ab", ML) + line("c", ML, url="") + line("d", url="") + "group g all a c\nquorum g\n"
    said = check(file, text).out.splitlines()
    assert "  never needed for the quorum: b, d" in said
    assert "  without a URL, so a log that publishes under this policy could not ask: c" in said
    document = json.loads(check(file, text, "--json").out)
    assert (document["unused"], document["without_url"]) == (["b", "d"], ["c"])


def test_a_witness_whose_keys_are_in_several_places_is_told(file: Path) -> None:
    both = line("a-ed", ED, witness="a") + line("a-ml", ML, witness="a") + lines("bc", ML)
    apart = check(file, LOG + both + "group g 2 a-ed a-ml b c\nquorum g\n")
    assert apart.code == 1
    assert any(
        said.startswith("  keys in several places of the quorum") and "a.example" in said for said in apart.out.split("\n")
    )
    together = check(file, LOG + both + "group a any a-ed a-ml\ngroup g 2 a b c\nquorum g\n")
    assert together.code == 0
    assert "several places" not in together.out


def test_the_logs_keys_are_listed_with_their_strength(file: Path) -> None:
    text = f"log {ED25519.vkey}\nlog {MLDSA44.vkey}\n{line('a')}quorum a\n"
    said = check(file, text).out.splitlines()
    assert said[-2] == (
        f"  log {ORIGIN}, Ed25519 (whoever can forge Ed25519 can sign as this log), key {ED25519.vkey.key_id.hex()}"
    )
    assert said[-1].startswith(f"  log {ORIGIN}, ML-DSA-44 (post-quantum), key ")
    logs = json.loads(check(file, text, "--json").out)["logs"]
    assert [(each["vkey"], each["post_quantum"], each["url"]) for each in logs] == [
        (str(ED25519.vkey), False, None),
        (str(MLDSA44.vkey), True, None),
    ]
    result = check(file, line("a") + "quorum a\n")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "  it lists no log, so nothing verifies under it; a log may still publish under it"


def test_a_file_that_is_no_policy_is_configuration(file: Path) -> None:
    assert f"{file}: policy line 1" in require_plain(check(file, "nonsense\n"), 4)[0]
    file.unlink()
    assert "cannot read the policy" in require_plain(run("policy", "check", file), 4)[0]


def test_names_reach_the_terminal_escaped(file: Path) -> None:
    skey = SKey(name="w\x9b31m\u202e.example", type=ML, seed=bytes(32))
    file.write_bytes(LOG.encode() + f"witness \u202e {skey.vkey} https://\u202e/\nquorum \u202e\n".encode())
    for options in ((), ("--json",)):
        result = run("policy", "check", file, *options)
        assert result.code == 0
        assert all(said.isprintable() for said in result.out.split("\n"))


def test_checking_needs_no_server_packages(file: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLOCKER)
    file.write_text(LOG + lines("abc", ML) + "group g 2 a b c\nquorum g\n")
    result = run_program("policy", "check", file, env={"PYTHONPATH": str(site)})
    assert (result.code, result.err) == (0, "")
    assert run_program("policy", "--help", env={"PYTHONPATH": str(site)}).code == 0


@pytest.mark.parametrize("options", [("--log", "http://127.0.0.1:1"), ("--classic",), ("--force",), ("-o", "x")])
def test_options_of_the_policy_command_mean_nothing_to_its_commands(file: Path, options: Sequence[str]) -> None:
    file.write_text("quorum none\n")
    result = run("policy", *options, "check", file)
    assert (result.code, result.out) == (2, "")
    assert "options of check go behind it" in result.err


def test_without_a_log_there_is_nothing_to_write(file: Path) -> None:
    for arguments in ((), ("--classic",), ("-o", file), ("nonsense",)):
        result = run("policy", *arguments)
        assert (result.code, result.out) == (2, "")
        assert "Usage:" in result.err
    assert not file.exists()


def test_the_help_lists_its_commands() -> None:
    said = run("policy", "--help").out
    assert "  check   Say what a policy file is worth." in said
    assert "  update  " in said


# What `translog policy` writes


def stated(text: str, **changes: object) -> bytes:
    """The answer of `GET /v1/log` that states this policy."""
    document: Mapping[str, object] = {
        "origin": ORIGIN,
        "vkeys": [str(ED25519.vkey), str(MLDSA44.vkey)],
        "policy": text,
        "published_size": 0,
        "integrated_size": 0,
        "limits": {"entries_per_request_max": 1, "body_bytes_max": 1},
    }
    return json.dumps({**document, **changes}).encode()


def write(text: str, *options: object) -> Result:
    with in_the_background(1) as (simulator, url):
        simulator.answers["v1/log"] = respond(200, stated(text))
        return run("policy", "--log", url, *options)


PAIR = line("a-ed", ED, witness="a") + line("a-ml", ML, witness="a") + line("b") + line("c", ML)
GROUPS = "group a any a-ed a-ml\ngroup g 2 a b c\nquorum g\n"


def test_the_policy_written_asks_for_the_logs_witnesses(file: Path) -> None:
    result = write(LOG + PAIR + GROUPS)
    assert result.code == 0
    policy = parse_policy(result.raw)
    assert [log.vkey for log in policy.logs] == [MLDSA44.vkey]
    assert {name: each.url for name, each in policy.witnesses.items()} == dict.fromkeys(
        ("a-ml", "b", "c"), "https://w.example/"
    )
    assert (policy.groups["g"].threshold, policy.groups["g"].members, policy.quorum) == (2, ("a", "b", "c"), "g")
    assert "# It named the witnesses, too: " in result.out
    assert "# Ed25519 only, so that a quantum computer could forge their cosignatures: b\n" in result.out
    assert "No witnesses" not in result.out
    classic = write(LOG + PAIR + GROUPS, "--classic")
    policy = parse_policy(classic.raw)
    assert ([log.vkey for log in policy.logs], list(policy.witnesses)) == ([ED25519.vkey], ["a-ed", "b", "c"])
    assert "# Without an Ed25519 key that is known here: c\n" in classic.out
    assert check(file, result.out).code == 0


def test_a_policy_without_witnesses_keeps_its_warning() -> None:
    result = write(LOG + "quorum none\n")
    assert "# No witnesses: the log's operator alone could show different people different trees.\n" in result.out
    assert "It named the witnesses" not in result.out


OWN = SKey(name="w.example", type=ML, seed=MLDSA44.seed)
BAD = {
    "another log's key": LOG + f"log {STRANGER.vkey}\nquorum none\n",
    "another log": LOG + f"log {SKey(name='other.example', type=KeyType.ED25519, seed=bytes(32)).vkey}\nquorum none\n",
    "the log as its own witness, by a key it lists": LOG + f"witness w {OWN.vkey}\nquorum w\n",
    "the log as its own witness, by a key it does not list there": f"log {ED25519.vkey}\nwitness w {OWN.vkey}\nquorum w\n",
    "a witness of the log's name": f"witness w {SKey(name=ORIGIN, type=ML, seed=bytes(32)).vkey}\nquorum w\n",
    "no policy": "nonsense\n",
    "nothing": "",
    "a lone surrogate": LOG + "quorum none\n# \ud800",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_stated_policy_that_is_not_of_this_log_alone_is_refused(text: str) -> None:
    result = write(text)
    require_plain(result, 3)
    assert result.out == ""


def test_a_witness_may_have_any_name_in_utf8() -> None:
    result = write(LOG + line("a", ML).replace("witness a ", "witness \u00e9\u2028 ") + "quorum \u00e9\u2028\n")
    assert list(parse_policy(result.raw).witnesses) == ["\u00e9\u2028".encode().decode("ascii", "surrogateescape")]
