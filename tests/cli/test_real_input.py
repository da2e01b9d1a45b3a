"""2,900 real audit records: appended by the command line, and verified offline when the server is gone."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.harness import PROGRAM, require_plain, run, run_program, serving


@dataclass(frozen=True, slots=True)
class Run:
    """What a user is left with: entries, receipts and a policy."""

    lines: Path
    receipts: Path
    policy: Path
    entries: list[bytes]


@pytest.fixture(scope="module")
def done(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = shared / "data" / "cloudtrail"
    if not folder.is_dir():
        pytest.skip(f"no CloudTrail records at {folder}")
    home = tmp_path_factory.mktemp("real")
    entries = [
        json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
        for path in sorted(folder.glob("*.json"))
        for record in json.loads(path.read_bytes())["Records"]
    ]
    result = Run(home / "records", home / "receipts", home / "policy", entries)
    result.lines.write_bytes(b"".join(entry + b"\n" for entry in entries))
    assert run("init", home / "log", "--origin", "log.example/cloudtrail", "--profile", "opaque").code == 0
    with serving(home / "log") as served:
        assert run("policy", "--log", served.url, "-o", result.policy).code == 0
        options = ("--log", served.url, "--policy", result.policy, "--receipts", result.receipts)
        added = run_program("add", *options, "--lines", result.lines, program=PROGRAM)
        assert (added.code, added.err) == (0, "")
        assert added.out == f"added {len(entries)} entries, indexes 0 to {len(entries) - 1}\n"
        assert served.stop() == 0
    return result


def test_the_data_is_the_2900_records(done: Run) -> None:
    assert len(done.entries) == 2_900
    assert len(list(done.receipts.iterdir())) == 2_900


def test_all_receipts_verify_offline(done: Run) -> None:
    result = run_program("verify", done.receipts, "--policy", done.policy, "--entry", done.lines, "--lines", "--json")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert (document["ok"], document["count"]) == (True, 2_900)
    assert {checkpoint["origin"] for checkpoint in document["checkpoints"]} == {"log.example/cloudtrail"}


def test_single_receipts_verify_with_their_entry_and_no_other(done: Run, tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    for index in random.Random(1).sample(range(2_900), 20):
        receipt = done.receipts / f"{index}.tlog-proof"
        entry.write_bytes(done.entries[index])
        verified = run("verify", receipt, "--policy", done.policy, "--entry", entry, "--json")
        assert (verified.code, json.loads(verified.out)["index"]) == (0, index)
        entry.write_bytes(done.entries[index - 1])
        require_plain(run("verify", receipt, "--policy", done.policy, "--entry", entry), 1)


def test_one_changed_byte_in_one_record_fails_the_whole(done: Run, tmp_path: Path) -> None:
    content = bytearray(done.lines.read_bytes())
    at = content.index(b"ConsoleLogin") if b"ConsoleLogin" in content else len(content) // 2
    content[at] ^= 1
    (tmp_path / "records").write_bytes(content)
    number = content.count(b"\n", 0, at)
    result = run("verify", done.receipts, "--policy", done.policy, "--entry", tmp_path / "records", "--lines")
    line = require_plain(result, 1)[0]
    assert f"/{number}.tlog-proof: " in line
