"""The publication policy of a log: which files are taken, which are refused and why, who is asked."""

from pathlib import Path
from typing import Any

import pytest
import structlog

from log.harness import SKEY, FakeClock
from log.witnessing import FakeWitness
from translog.core.keys import KeyType, SKey
from translog.core.policy import parse_policy
from translog.errors import SettingsError
from translog.log.publication import endpoints_of, read_publication_policy, warn_of_weakness

CLOCK = FakeClock()
ONE, TWO, THREE = (FakeWitness(n, CLOCK) for n in (1, 2, 3))
STRONG = FakeWitness(4, CLOCK, mldsa=True)
ALL = ONE.lines + TWO.lines + THREE.lines
OTHER = SKey(name="other.example", type=KeyType.ED25519, seed=bytes([9]) * 32)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(text: str) -> Any:
        (tmp_path / "policy").write_text(text)
        return read_publication_policy(tmp_path / "policy", [SKEY.vkey])

    return read


def test_a_policy_of_witnesses_needs_no_log_lines(read: Any) -> None:
    assert read(f"{ALL}group q 2 w1a w2a w3a\nquorum q\n").quorum == "q"


def test_log_lines_that_have_this_log_are_fine(read: Any) -> None:
    assert read(f"log {OTHER.vkey}\nlog {SKEY.vkey}\n{ALL}quorum w1a\n").quorum == "w1a"


BAD = {
    "of another log": (f"log {OTHER.vkey}\n{ALL}quorum w1a\n", "bad-policy", "none of this log's keys"),
    "malformed": ("nonsense\n", "bad-policy", "line 1"),
    "no quorum line": (ALL, "bad-policy", "no quorum line"),
    "no http": (ALL.replace("http://w1", "ftp://w1") + "quorum w1a\n", "bad-policy", "not http"),
    "no url at all": (ALL.replace(" http://w1", "") + "quorum w1a\n", "quorum-unreachable", "w1a"),
    "all of them, one without url": (
        ALL.replace(" http://w2", "") + "group q all w1a w2a w3a\nquorum q\n",
        "quorum-unreachable",
        "w2a",
    ),
    "a witness with one key that has no url": (
        STRONG.lines.replace(" http://w4", "", 1) + "group w any w4a w4b\nquorum w\n",
        "quorum-unreachable",
        "w4a",
    ),
    "two of three, two without url": (
        ALL.replace(" http://w2", "").replace(" http://w3", "") + "group q 2 w1a w2a w3a\nquorum q\n",
        "quorum-unreachable",
        "w2a, w3a",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_policy_that_cannot_work_is_refused_with_the_reason(read: Any, case: str) -> None:
    text, code, said = BAD[case]
    with pytest.raises(SettingsError) as refused:
        read(text)
    assert refused.value.code == code
    assert said in refused.value.detail
    assert "policy" in refused.value.detail


def test_a_witness_without_url_may_be_missing_where_the_others_suffice(read: Any) -> None:
    policy = read(ALL.replace(" http://w3", "") + "group q 2 w1a w2a w3a\nquorum q\n")
    assert [endpoint.url for endpoint in endpoints_of(policy, lambda url: ONE)] == ["http://w1", "http://w2"]


def test_a_log_cannot_witness_itself(read: Any) -> None:
    same_key = SKey(name="w9.example/w", type=KeyType.COSIGNATURE_ED25519, seed=SKEY.seed)
    same_name = SKey(name=SKEY.name, type=KeyType.COSIGNATURE_ED25519, seed=bytes([7]) * 32)
    for skey in (same_key, same_name):
        with pytest.raises(SettingsError, match="cannot witness itself"):
            read(f"witness w {skey.vkey} http://w\nquorum w\n")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        read_publication_policy(tmp_path / "nowhere", [SKEY.vkey])


def test_entries_of_one_url_are_asked_once() -> None:
    lines = STRONG.lines.replace("http://w4", "http://w4/", 1) + ONE.lines
    policy = parse_policy((lines + "group w any w4a w4b\nquorum w\n").encode())
    asked: list[str] = []
    endpoints = endpoints_of(policy, lambda url: asked.append(url) or ONE)  # type: ignore[func-returns-value]
    assert asked == ["http://w4", "http://w1"]
    assert [[witness.name for witness in endpoint.witnesses] for endpoint in endpoints] == [["w4a", "w4b"], ["w1a"]]


@pytest.mark.parametrize(
    ("quorum", "warned"),
    [("group q 1 w1a w2a w3a\nquorum q\n", True), ("group q 2 w1a w2a w3a\nquorum q\n", False), ("quorum none\n", True)],
)
def test_a_policy_that_needs_no_dishonest_witness_is_warned_of(quorum: str, warned: bool) -> None:
    with structlog.testing.capture_logs() as logs:
        warn_of_weakness(parse_policy((ALL + quorum).encode()))
    assert bool(logs) is warned
    assert all(line["log_level"] == "warning" for line in logs)


def test_a_policy_that_the_log_could_not_state_is_refused(tmp_path: Path) -> None:
    """Also where the name is of a key that members would not be told of."""
    name = STRONG.policy_names[0]
    text = (STRONG.lines + f"group w any {' '.join(STRONG.policy_names)}\nquorum w\n").encode()
    (tmp_path / "policy").write_bytes(text)
    read_publication_policy(tmp_path / "policy", [SKEY.vkey])
    (tmp_path / "policy").write_bytes(text.replace(name.encode(), name.encode() + b"\xff"))
    with pytest.raises(SettingsError, match="not UTF-8"):
        read_publication_policy(tmp_path / "policy", [SKEY.vkey])
