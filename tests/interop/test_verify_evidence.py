"""Evidence verified by a program that a stranger could have written: it and `translog verify` agree, on good and on forged."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli.harness import run
from events import forgeries

from .verify_evidence import verify

VERIFIER = Path(__file__).with_name("verify_evidence.py")
GOOD = forgeries.good()
FORGERIES = forgeries.forgeries()
IN_COMMON = ("origin", "index", "size", "member", "stream", "seq", "numbered", "received_at_ms", "fields", "withheld")


class Files:
    """An evidence file and a policy, for programs."""

    def __init__(self, directory: Path, evidence: bytes, policy: str) -> None:
        self.evidence, self.policy = directory / "evidence", directory / "policy"
        self.evidence.write_bytes(evidence)
        self.policy.write_text(policy)

    def ours(self) -> tuple[int, dict[str, object]]:
        """Exit code and JSON document of `translog verify`."""
        result = run("verify", self.evidence, "--policy", self.policy, "--json")
        return result.code, json.loads(result.out) if result.out else {}

    def theirs(self) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(VERIFIER), str(self.evidence), str(self.policy)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_verifier_shares_nothing_with_the_package() -> None:
    allowed = {"cryptography", *sys.stdlib_module_names}
    imported = set()
    for node in ast.walk(ast.parse(VERIFIER.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            imported.add(str(node.module).partition(".")[0])
    assert "cryptography" in imported
    assert imported <= allowed


@pytest.mark.parametrize("policy", forgeries.POLICIES)
@pytest.mark.parametrize("name", GOOD)
def test_both_find_the_same_proven(name: str, policy: str, tmp_path: Path) -> None:
    files = Files(tmp_path, GOOD[name], forgeries.POLICIES[policy])
    code, document = files.ours()
    assert code == 0
    assert verify(GOOD[name], forgeries.POLICIES[policy]) == {key: document[key] for key in IN_COMMON}


@pytest.mark.parametrize("name", FORGERIES)
def test_both_refuse_what_is_forged(name: str, tmp_path: Path) -> None:
    data = FORGERIES[name].data
    code, document = Files(tmp_path, data, forgeries.POLICY).ours()
    # What does not start as evidence does is taken for a receipt, which comes with an entry.
    assert code == (1 if data.startswith(b"{") else 2)
    assert document.get("ok", False) is False
    with pytest.raises(Exception):  # noqa: B017  # whatever it stumbles over: it proves nothing
        verify(data, forgeries.POLICY)


def test_the_verifier_as_a_program(tmp_path: Path) -> None:
    good = Files(tmp_path, GOOD["two fields"], forgeries.POLICY)
    done = good.theirs()
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["fields"] == {name: forgeries.EVENT[name] for name in forgeries.SHOWN}
    done = Files(tmp_path, FORGERIES["a field of another event"].data, forgeries.POLICY).theirs()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("NOT PROVEN: ValueError: leaf 3 is not what was logged")


@pytest.mark.parametrize("line", ["quorum none\nquorum none", "mirror x", "", "log x+y+z"])
def test_the_verifier_refuses_policies_that_it_does_not_know(line: str) -> None:
    policy = f"log {forgeries.MLDSA44.vkey}\n{line}\n"
    with pytest.raises(ValueError):
        verify(GOOD["two fields"], policy)
