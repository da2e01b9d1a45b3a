"""`translog verify`: every outcome, offline."""

import json
import shutil
import time
from pathlib import Path

import pytest
from client.simulator import ED25519, MLDSA44, ORIGIN, STRANGER, Simulator, flip

from cli.harness import Result, require_plain, run
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.note import Signature, format_note, sign_note
from translog.core.proof import Receipt, format_receipt, parse_receipt

WITNESS = SKey(name="witness.example", type=KeyType.COSIGNATURE_ED25519, seed=bytes(range(64, 96)))


class Case:
    """A receipt of entry 5 of 7, its entry, and a policy, as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.entries = [b"entry 0", b"", b"entry 2", b"entry 3", b"entry 4", b"entry 5", b"entry 6"]
        self.log = Simulator(self.entries)
        self.receipt = directory / "receipt"
        self.entry = directory / "entry"
        self.policy = directory / "policy"
        self.receipt.write_bytes(self.make_receipt(5))
        self.entry.write_bytes(self.entries[5])
        self.policy.write_text(f"log {ED25519.vkey}\nquorum none\n")

    def make_receipt(self, index: int, *skeys: SKey, time_s: int = 1_700_000_000) -> bytes:
        text = format_checkpoint(Checkpoint(origin=ORIGIN, size=7, root=self.log.root(7)))
        note = sign_note(text, [KeySigner(skey) for skey in skeys or (ED25519,)], time_s=time_s)
        return format_receipt(Receipt(index=index, proof=tuple(self.log.oracle.path(index, 0, 7)), checkpoint=note))

    def verify(self, *options: object) -> Result:
        return run("verify", self.receipt, "--policy", self.policy, "--entry", self.entry, *options)

    def save_all(self) -> tuple[Path, Path]:
        """A directory with every receipt, and a file with every entry as a line."""
        folder = self.directory / "receipts"
        folder.mkdir()
        for index in range(7):
            (folder / f"{index}.tlog-proof").write_bytes(self.make_receipt(index))
        lines = self.directory / "lines"
        lines.write_bytes(b"\n".join(self.entries) + b"\n")
        return folder, lines

    def verify_all(self, folder: Path, lines: Path, *options: object) -> Result:
        return run("verify", folder, "--policy", self.policy, "--entry", lines, "--lines", *options)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


# It holds


def test_a_receipt_that_holds_is_ok(case: Case) -> None:
    result = case.verify()
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == [
        "OK: entry 5 is in the log",
        "  when it was logged is not shown: no signature that counts states a time",
        f"  {ORIGIN}, 7 entries, root {case.log.files['checkpoint'].decode().splitlines()[2]}",
        f"    signed by {ORIGIN} (Ed25519)",
        "    cosigned by nobody the policy lists: only the log's operator vouches for it",
        "  the policy asks for no witnesses: the log's operator alone could show a split view",
    ]


def test_json_is_one_document_that_says_what_was_verified(case: Case) -> None:
    result = case.verify("--json")
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    root = case.log.files["checkpoint"].decode().splitlines()[2]
    signed = [{"name": ORIGIN, "vkey": str(ED25519.vkey), "algorithm": "Ed25519", "post_quantum": False, "time_s": None}]
    checkpoint = {"origin": ORIGIN, "size": 7, "root": root, "signed": signed, "cosigned": [], "no_later_than_s": None}
    worth: dict[str, object] = dict.fromkeys(("split", "split_quantum", "stop", "views"))
    worth |= {key: [] for key in ("witnesses", "post_quantum", "classic", "unused", "repeated", "uncounted")}
    assert json.loads(result.out) == {
        "ok": True,
        "count": 1,
        "index": 5,
        "no_later_than_s": None,
        "checkpoints": [checkpoint],
        "policy": worth,
    }


def test_witnesses_and_times_are_shown(case: Case) -> None:
    case.receipt.write_bytes(case.make_receipt(5, ED25519, MLDSA44, WITNESS))
    case.policy.write_text(f"log {MLDSA44.vkey}\nwitness paul {WITNESS.vkey}\nquorum paul\n")
    lines = case.verify().out.splitlines()
    assert lines[1] == "  logged no later than 2023-11-14T22:13:20Z, by the clocks of the witnesses the policy asks for"
    assert lines[3:] == [
        f"    signed by {ORIGIN} (ML-DSA-44, post-quantum) at 2023-11-14T22:13:20Z",
        "    cosigned by paul (Ed25519) at 2023-11-14T22:13:20Z",
        "  a split view would take 1 dishonest witness, or none where Ed25519 can be forged",
    ]


QUORUM = {
    name: SKey(name=f"{name}.example", type=KeyType.COSIGNATURE_MLDSA44, seed=bytes([number]) * 32)
    for number, name in enumerate(("mary", "nina", "otto"), start=1)
}
T = 1_700_000_000


def _witnessed(case: Case, quorum: str, **times_s: int) -> bytes:
    """The receipt, cosigned by the witnesses of QUORUM at these times, signed by the log long after. Writes the policy."""
    text = format_checkpoint(Checkpoint(origin=ORIGIN, size=7, root=case.log.root(7)))
    signed = [(MLDSA44, T + 10_000), *((QUORUM[name], time_s) for name, time_s in times_s.items())]
    signatures = [
        Signature(name=skey.name, key_id=skey.vkey.key_id, payload=KeySigner(skey).sign(text, time_s=time_s))
        for skey, time_s in signed
    ]
    witnesses = "".join(f"witness {name} {skey.vkey}\n" for name, skey in QUORUM.items())
    case.policy.write_text(f"log {MLDSA44.vkey}\n{witnesses}group two 2 mary nina otto\nquorum {quorum}\n")
    proof = tuple(case.log.oracle.path(5, 0, 7))
    return format_receipt(Receipt(index=5, proof=proof, checkpoint=format_note(text, signatures)))


def test_a_receipt_says_when_enough_witnesses_had_cosigned_and_what_that_is_worth(case: Case) -> None:
    case.receipt.write_bytes(_witnessed(case, "two", mary=T + 500, nina=T + 100, otto=T + 300))
    lines = case.verify().out.splitlines()
    assert lines[1] == "  logged no later than 2023-11-14T22:18:20Z, by the clocks of the witnesses the policy asks for"
    assert lines[4:] == [
        "    cosigned by mary (ML-DSA-44, post-quantum) at 2023-11-14T22:21:40Z",
        "    cosigned by nina (ML-DSA-44, post-quantum) at 2023-11-14T22:15:00Z",
        "    cosigned by otto (ML-DSA-44, post-quantum) at 2023-11-14T22:18:20Z",
        "  a split view would take 1 dishonest witness",
    ]
    document = json.loads(case.verify("--json").out)
    assert document["no_later_than_s"] == document["checkpoints"][0]["no_later_than_s"] == T + 300
    assert [(each["name"], each["post_quantum"]) for each in document["checkpoints"][0]["cosigned"]] == [
        (name, True) for name in QUORUM
    ]
    assert document["policy"]["split"] == document["policy"]["split_quantum"] == ["mary.example"]
    assert document["policy"]["stop"] == ["mary.example", "nina.example"]


def test_a_witness_that_the_quorum_does_not_name_vouches_for_nothing(case: Case) -> None:
    case.receipt.write_bytes(_witnessed(case, "otto", mary=T, otto=T + 1))
    lines = case.verify().out.splitlines()
    assert lines[1].startswith("  logged no later than 2023-11-14T22:13:21Z, ")
    assert "    cosigned by mary (ML-DSA-44, post-quantum) at 2023-11-14T22:13:20Z, whom the policy does not ask for" in lines
    assert "    cosigned by otto (ML-DSA-44, post-quantum) at 2023-11-14T22:13:21Z" in lines
    assert json.loads(case.verify("--json").out)["policy"]["unused"] == ["mary", "nina"]
    case.receipt.write_bytes(_witnessed(case, "none", mary=T))
    lines = case.verify().out.splitlines()
    assert lines[1] == "  logged no later than 2023-11-15T01:00:00Z, by the log's own clock"
    assert lines[-2].endswith(", whom the policy does not ask for")
    assert lines[-1] == "  the policy asks for no witnesses: the log's operator alone could show a split view"


def test_many_receipts_were_logged_no_later_than_the_latest_of_their_checkpoints_says(case: Case) -> None:
    folder, lines = case.save_all()
    early, late = (parse_receipt(_witnessed(case, "two", mary=time_s, nina=time_s)).checkpoint for time_s in (T, T + 400))
    for index in range(7):
        receipt = Receipt(index=index, proof=tuple(case.log.oracle.path(index, 0, 7)), checkpoint=late if index == 3 else early)
        (folder / f"{index}.tlog-proof").write_bytes(format_receipt(receipt))
    result = case.verify_all(folder, lines)
    assert result.out.splitlines()[:3] == [
        "OK: all 7 entries are in the log",
        "  logged no later than 2023-11-14T22:20:00Z, by the clocks of the witnesses the policy asks for",
        "  under 2 checkpoints; the last:",
    ]
    document = json.loads(case.verify_all(folder, lines, "--json").out)
    assert document["no_later_than_s"] == T + 400
    assert [each["no_later_than_s"] for each in document["checkpoints"]] == [T, T + 400]
    (folder / "3.tlog-proof").write_bytes(case.make_receipt(3, ED25519))
    case.policy.write_text(f"log {ED25519.vkey}\nlog {MLDSA44.vkey}\nquorum none\n")
    document = json.loads(case.verify_all(folder, lines, "--json").out)
    assert document["no_later_than_s"] is None
    assert [each["no_later_than_s"] for each in document["checkpoints"]] == [T + 10_000, None]
    assert "when all were logged is not shown" in case.verify_all(folder, lines).out


def test_a_policy_that_two_separate_quorums_satisfy_is_said_to_be_worth_nothing(case: Case) -> None:
    case.receipt.write_bytes(_witnessed(case, "two", mary=T, nina=T + 60))
    case.policy.write_text(case.policy.read_text().replace("two 2", "two any"))
    lines = case.verify().out.splitlines()
    assert lines[1].startswith("  logged no later than 2023-11-14T22:13:20Z, ")
    assert lines[-1] == "  a split view would take no dishonest witness"


def test_an_empty_entry_verifies(case: Case) -> None:
    case.receipt.write_bytes(case.make_receipt(1))
    case.entry.write_bytes(b"")
    assert case.verify().code == 0


def test_all_lines_verify_under_one_checkpoint(case: Case) -> None:
    result = case.verify_all(*case.save_all())
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("OK: all 7 entries are in the log")
    shutil.rmtree(case.directory / "receipts")
    document = json.loads(case.verify_all(*case.save_all(), "--json").out)
    assert (document["ok"], document["count"], len(document["checkpoints"])) == (True, 7, 1)


def test_lines_need_no_newline_at_the_end(case: Case) -> None:
    folder, lines = case.save_all()
    lines.write_bytes(lines.read_bytes().removesuffix(b"\n"))
    assert case.verify_all(folder, lines).code == 0


def test_a_subset_of_receipts_goes_with_a_subset_of_lines(case: Case) -> None:
    folder, lines = case.save_all()
    for index in (0, 1, 3, 4, 6):
        (folder / f"{index}.tlog-proof").unlink()
    lines.write_bytes(b"entry 2\nentry 5\n")
    assert case.verify_all(folder, lines).code == 0


def test_other_files_beside_the_receipts_are_left_alone(case: Case) -> None:
    folder, lines = case.save_all()
    (folder / "notes.txt").write_text("x")
    (folder / "x.tlog-proof").write_text("x")
    assert case.verify_all(folder, lines).code == 0


# It does not hold


def test_a_changed_entry_is_told_from_a_changed_receipt(case: Case) -> None:
    for entry in (b"entry 6", b"entry 5\n", b"", b"Entry 5"):
        case.entry.write_bytes(entry)
        result = case.verify()
        lines = require_plain(result, 1)
        assert lines[0].startswith(f"translog: {case.receipt}: ")
        assert lines[1] == "  the entry is not the one this receipt is for, or one of the two was changed"
        assert result.out == ""


def test_every_changed_byte_of_a_receipt_is_refused(case: Case) -> None:
    honest = case.receipt.read_bytes()
    assert len(honest) < 600
    for at in range(len(honest)):
        for bit in (1, 0x20):
            case.receipt.write_bytes(honest[:at] + bytes([honest[at] ^ bit]) + honest[at + 1 :])
            require_plain(case.verify(), 1)
    case.receipt.write_bytes(honest)
    assert case.verify().code == 0


def test_every_cut_of_a_receipt_is_refused(case: Case) -> None:
    honest = case.receipt.read_bytes()
    for end in range(len(honest)):
        case.receipt.write_bytes(honest[:end])
        require_plain(case.verify(), 1)


def test_anything_added_to_a_receipt_is_refused(case: Case) -> None:
    honest = case.receipt.read_bytes()
    for more in (b"\n", b" ", b"x", b"\0"):
        for receipt in (honest + more, more + honest):
            case.receipt.write_bytes(receipt)
            require_plain(case.verify(), 1)


def test_a_receipt_of_another_log_is_refused_and_named_so(case: Case) -> None:
    other = SKey(name="log.example/other", type=KeyType.ED25519, seed=bytes(32))
    case.policy.write_text(f"log {other.vkey}\nquorum none\n")
    lines = require_plain(case.verify(), 1)
    assert lines == [
        f"translog: {case.receipt}: the policy lists no log '{ORIGIN}'",
        "  the receipt is of another log than the policy is for",
    ]


def test_a_receipt_signed_by_an_unknown_key_is_refused_and_named_so(case: Case) -> None:
    case.receipt.write_bytes(case.make_receipt(5, STRANGER))
    lines = require_plain(case.verify(), 1)
    assert "no signature by a known key" in lines[0]
    assert lines[1].endswith("get a current policy from someone you trust")


def test_a_receipt_for_another_entry_is_refused(case: Case) -> None:
    case.receipt.write_bytes(case.make_receipt(4))
    require_plain(case.verify(), 1)


def test_a_receipt_without_the_quorum_is_refused(case: Case) -> None:
    case.policy.write_text(f"log {ED25519.vkey}\nwitness paul {WITNESS.vkey}\nquorum paul\n")
    assert "quorum 'paul' is not reached" in require_plain(case.verify(), 1)[0]


def test_failures_with_json_are_one_document(case: Case) -> None:
    case.entry.write_bytes(b"other")
    result = case.verify("--json")
    require_plain(result, 1)
    document = json.loads(result.out)
    assert (document["ok"], document["code"]) == (False, "not-included")
    assert set(document) == {"ok", "code", "detail", "hint"}


def test_one_changed_line_fails_the_whole(case: Case) -> None:
    folder, lines = case.save_all()
    lines.write_bytes(lines.read_bytes().replace(b"entry 3", b"Entry 3"))
    result = case.verify_all(folder, lines)
    assert require_plain(result, 1)[0].startswith(f"translog: {folder / '3.tlog-proof'}: ")
    assert result.out == ""


@pytest.mark.parametrize("number", [0, 3, 6])
def test_one_changed_receipt_fails_the_whole(case: Case, number: int) -> None:
    folder, lines = case.save_all()
    path = folder / f"{number}.tlog-proof"
    path.write_bytes(flip(path.read_bytes(), 40))
    assert str(path) in require_plain(case.verify_all(folder, lines), 1)[0]


def test_a_receipt_under_another_ones_name_fails(case: Case) -> None:
    folder, lines = case.save_all()
    shutil.copy(folder / "2.tlog-proof", folder / "3.tlog-proof")
    assert require_plain(case.verify_all(folder, lines), 1) == [
        f"translog: {folder / '3.tlog-proof'}: this is the receipt of entry 2",
        "  it was renamed, or changed",
    ]


@pytest.mark.parametrize("name", ["02", "\u0662", "7"])
def test_a_receipt_is_named_exactly_as_its_index(case: Case, name: str) -> None:
    folder, lines = case.save_all()
    (folder / "2.tlog-proof").rename(folder / f"{name}.tlog-proof")
    require_plain(case.verify_all(folder, lines), 1)


def test_receipts_and_lines_that_are_both_swapped_are_noticed(case: Case) -> None:
    folder, lines = case.save_all()
    (folder / "2.tlog-proof").rename(folder / "x")
    (folder / "3.tlog-proof").rename(folder / "2.tlog-proof")
    (folder / "x").rename(folder / "3.tlog-proof")
    content = lines.read_bytes()
    lines.write_bytes(content.replace(b"entry 2\nentry 3", b"entry 3\nentry 2"))
    line = require_plain(case.verify_all(folder, lines), 1)[0]
    assert line == f"translog: {folder / '2.tlog-proof'}: this is the receipt of entry 3"


def test_too_few_and_too_many_lines_fail(case: Case) -> None:
    folder, lines = case.save_all()
    content = lines.read_bytes()
    lines.write_bytes(content + b"one more\n")
    assert "has more lines than the 7 receipts" in require_plain(case.verify_all(folder, lines), 1)[0]
    lines.write_bytes(content[: content.rindex(b"entry 6")])
    assert "has fewer lines than the 7 receipts" in require_plain(case.verify_all(folder, lines), 1)[0]
    lines.write_bytes(b"")
    assert "has fewer lines" in require_plain(case.verify_all(folder, lines), 1)[0]


def test_a_line_without_end_fails(case: Case) -> None:
    folder, lines = case.save_all()
    lines.write_bytes(b"x" * 1_000_000)
    require_plain(case.verify_all(folder, lines), 1)


# Files that are missing or wrong


@pytest.mark.parametrize("which", ["receipt", "entry", "policy"])
def test_a_missing_file_is_named(case: Case, which: str) -> None:
    path = getattr(case, which)
    path.unlink()
    assert require_plain(case.verify(), 4)[0] == f"translog: cannot read the {which} {path}: No such file or directory"


@pytest.mark.parametrize("which", ["entry", "policy"])
def test_a_directory_in_place_of_a_file_is_named(case: Case, which: str) -> None:
    path = getattr(case, which)
    path.unlink()
    path.mkdir()
    assert require_plain(case.verify(), 4)[0] == f"translog: cannot read the {which} {path}: Is a directory"


def test_a_directory_needs_lines_and_lines_need_a_directory(case: Case) -> None:
    folder, lines = case.save_all()
    whole = run("verify", folder, "--policy", case.policy, "--entry", lines)
    assert (whole.code, whole.out) == (2, "")
    assert f"{folder} is a directory: for the receipts of many lines, give --lines" in whole.err
    for path in (case.receipt, case.directory / "nowhere"):
        single = run("verify", path, "--policy", case.policy, "--entry", lines, "--lines", "--json")
        assert (single.code, json.loads(single.out)["code"]) == (2, "usage")
        assert f"with --lines, {path} must be a directory of receipts" in single.err


def test_a_directory_without_receipts_is_no_success(case: Case) -> None:
    folder = case.directory / "empty"
    folder.mkdir()
    assert f"there are no receipts (<index>.tlog-proof) in {folder}" in require_plain(case.verify_all(folder, case.entry), 4)[0]


def test_lines_that_are_missing_are_named(case: Case) -> None:
    folder, _ = case.save_all()
    for path in (case.directory / "nowhere", folder):
        assert f"cannot read the entries {path}" in require_plain(case.verify_all(folder, path), 4)[0]


def test_an_entry_must_be_given(case: Case) -> None:
    result = run("verify", case.receipt, "--policy", case.policy)
    assert result.code == 2
    assert "give it with --entry FILE" in result.err


def test_an_entry_that_no_log_takes_is_refused(case: Case) -> None:
    case.entry.write_bytes(bytes(65_536))
    assert "is larger than 65535 bytes" in require_plain(case.verify(), 1)[0]


def test_an_endless_receipt_is_refused(case: Case) -> None:
    case.receipt.write_bytes(bytes(2_000_000))
    assert "is larger than" in require_plain(case.verify(), 1)[0]


V = str(ED25519.vkey)
W = str(WITNESS.vkey)
BAD_POLICIES = {
    "": "the policy has no quorum line",
    "quorum": "line 1: expected: quorum <name>|none",
    f"log {V}\n": "no quorum line",
    f"log {V}\nquorum nobody\n": "line 2: 'nobody' is not defined above",
    f"log {V}\nquorum none\nquorum none\n": "line 3: there is a quorum line already",
    f"log {V} u more\nquorum none\n": "line 1: expected: log <vkey> [<url>]",
    "log\nquorum none\n": "line 1: expected: log",
    "log x\nquorum none\n": "line 1: not a vkey",
    f"log {V[:-4]}AAAA\nquorum none\n": "line 1: the key ID",
    f"log {V}\nlog {V}\nquorum none\n": "line 2: this log key is listed already",
    f"log {W}\nquorum none\n": "line 1: a log key must be of type",
    f"witness w {V}\nquorum none\n": "line 1: a witness key must be a cosignature key",
    f"witness none {W}\nquorum none\n": "line 1: the name 'none' is taken",
    f"witness w {W}\nwitness w {W}\nquorum none\n": "line 2: the name 'w' is taken",
    f"witness w {W}\ngroup g 2 w\nquorum g\n": "line 2: number out of range",
    f"witness w {W}\ngroup g 0 w\nquorum g\n": "line 2: a group needs",
    f"witness w {W}\ngroup g any v\nquorum g\n": "line 2: 'v' is not defined",
    f"witness w {W}\ngroup g any w\ngroup h any w\nquorum g\n": "line 3: 'w' is a member of a group already",
    "group g any\nquorum none\n": "line 1: expected: group",
    f"logs {V}\nquorum none\n": "line 1: expected log, witness, group or quorum, not 'logs'",
    f"log {V}\r\nquorum none\r\n": "line 1: a control character",
    f"log {V}\0\nquorum none\n": "line 1: a control character",
    f"log {V}\nwitness w {ORIGIN}+{W.split('+', 1)[1]}\nquorum none\n": "line 2: the key ID",
}


@pytest.mark.parametrize("policy", BAD_POLICIES, ids=range(len(BAD_POLICIES)))
def test_a_malformed_policy_is_refused_naming_file_and_line(case: Case, policy: str) -> None:
    case.policy.write_text(policy, newline="")
    line = require_plain(case.verify(), 4)[0]
    assert line.startswith(f"translog: {case.policy}: ")
    assert BAD_POLICIES[policy] in line


def test_a_policy_that_is_too_large_is_refused(case: Case) -> None:
    case.policy.write_bytes(b"#" * 1_000_001)
    assert "is larger than 1000000 bytes" in require_plain(case.verify(), 4)[0]


def test_a_policy_that_lists_no_log_accepts_nothing(case: Case) -> None:
    case.policy.write_text("quorum none\n")
    assert "the policy lists no log" in require_plain(case.verify(), 1)[0]


# Age


def _aged(case: Case, seconds: int) -> None:
    case.policy.write_text(f"log {MLDSA44.vkey}\nquorum none\n")
    case.receipt.write_bytes(case.make_receipt(5, MLDSA44, time_s=int(time.time()) - seconds))


@pytest.mark.parametrize(("age", "seconds"), [("90s", 60), ("15m", 800), ("12h", 40_000), ("30d", 2_500_000), ("1s", -200)])
def test_checkpoints_young_enough_are_ok(case: Case, age: str, seconds: int) -> None:
    _aged(case, seconds)
    assert case.verify("--max-age", age).code == 0


@pytest.mark.parametrize(("age", "seconds"), [("90s", 120), ("15m", 1_000), ("12h", 50_000), ("30d", 2_700_000)])
def test_checkpoints_too_old_are_refused(case: Case, age: str, seconds: int) -> None:
    _aged(case, seconds)
    line = require_plain(case.verify("--max-age", age), 1)[0]
    assert "the checkpoint was signed" in line
    assert line.startswith(f"translog: {case.receipt}: ")
    assert case.verify().code == 0


def test_checkpoints_from_the_future_are_refused(case: Case) -> None:
    _aged(case, -1_000)
    assert "from the future" in require_plain(case.verify("--max-age", "1d"), 1)[0]


def test_checkpoints_without_a_time_have_no_age(case: Case) -> None:
    result = case.verify("--max-age", "1d", "--json")
    assert "no signature states a time" in require_plain(result, 1)[0]
    assert json.loads(result.out)["code"] == "no-time"


@pytest.mark.parametrize("age", ["", "0s", "5", "s", "-1s", "1w", "1.5h", "1 h", "٣s", "9999999999s"])
def test_ages_that_are_none_are_wrong_usage(case: Case, age: str) -> None:
    result = case.verify("--max-age", age)
    assert result.code == 2
    assert "90s, 15m, 12h, 30d" in result.err
