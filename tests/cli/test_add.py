"""`translog add`: what becomes an entry, what is saved, and what is said when it fails half-way."""

import json
import resource
from pathlib import Path

import pytest

from cli.conftest import SharedLog
from cli.harness import Result, require_plain, run
from translog.cli import add as add_module
from translog.core.proof import parse_receipt
from translog.errors import RemoteError, SettingsError


class Adder:
    """Adds to the shared log under its policy."""

    def __init__(self, log: SharedLog, directory: Path) -> None:
        self.log = log
        self.directory = directory
        self.receipts = directory / "receipts"

    def add(self, *arguments: object, stdin: bytes = b"") -> Result:
        return run("add", "--log", self.log.url, "--policy", self.log.policy, *arguments, stdin=stdin)

    def save(self, *arguments: object, stdin: bytes = b"") -> list[int]:
        result = self.add("--receipts", self.receipts, "--json", *arguments, stdin=stdin)
        assert (result.code, result.err) == (0, "")
        document = json.loads(result.out)
        assert (document["ok"], document["count"]) == (True, len(document["indexes"]))
        indexes: list[int] = document["indexes"]
        return indexes

    def file(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    def require_verified(self, index: int, entry: bytes) -> None:
        path = self.receipts / f"{index}.tlog-proof"
        assert parse_receipt(path.read_bytes()).index == index
        assert run("verify", path, "--policy", self.log.policy, "--entry", self.file("entry", entry)).code == 0


@pytest.fixture
def adder(shared_log: SharedLog, tmp_path: Path) -> Adder:
    return Adder(shared_log, tmp_path)


def test_each_file_is_an_entry_and_its_receipt_verifies_offline(adder: Adder) -> None:
    contents = [b"one", b"", b"two\nlines\n", b"\x00\xff" * 100, b"x" * 65_535]
    indexes = adder.save(*(adder.file(f"f{number}", content) for number, content in enumerate(contents)))
    assert indexes == list(range(indexes[0], indexes[0] + 5))
    for index, content in zip(indexes, contents, strict=True):
        adder.require_verified(index, content)
    assert len(list(adder.receipts.iterdir())) == 5


LINES = {b"": [], b"\n": [b""], b"a": [b"a"], b"a\n": [b"a"], b"a\n\nb\n": [b"a", b"", b"b"], b"a\r\nb": [b"a\r", b"b"]}


@pytest.mark.parametrize("content", LINES)
def test_each_line_without_its_newline_is_an_entry(adder: Adder, content: bytes) -> None:
    expected = LINES[content]
    indexes = adder.save("--lines", adder.file("lines", content))
    assert len(indexes) == len(expected)
    for index, entry in zip(indexes, expected, strict=True):
        adder.require_verified(index, entry)


def test_standard_input_is_an_entry_or_lines_of_them(adder: Adder) -> None:
    (index,) = adder.save("-", stdin=b"from\nstdin")
    adder.require_verified(index, b"from\nstdin")
    first, second = adder.save("--lines", "-", stdin=b"from\nstdin")
    adder.require_verified(first, b"from")
    adder.require_verified(second, b"stdin")


def test_lines_of_the_greatest_length_fit_and_longer_ones_do_not(adder: Adder) -> None:
    (index,) = adder.save("--lines", adder.file("lines", b"x" * 65_535 + b"\n"))
    adder.require_verified(index, b"x" * 65_535)
    for extra in (b"x\n", b"x", b"xx", b"x" * 200_000):
        path = adder.file("lines", b"short\n" + b"x" * 65_535 + extra)
        result = adder.add("--lines", path, "--json")
        assert require_plain(result, 2) == [
            f"translog: line 2 of {path} has more than the 65535 bytes possible",
            "  nothing was added before that",
        ]
        assert json.loads(result.out)["code"] == "entry-too-large"


def test_a_file_that_is_too_large_is_not_added(adder: Adder) -> None:
    path = adder.file("large", bytes(65_536))
    line = require_plain(adder.add(path), 2)[0]
    assert line == f"translog: {path} has more than the 65535 bytes possible"


def test_people_are_told_how_many_and_where(adder: Adder) -> None:
    result = adder.add("--lines", "-", stdin=b"a\nb\n")
    first = int(result.out.split(" indexes ")[1].split(" ")[0])
    assert result.out == f"added 2 entries, indexes {first} to {first + 1}\n"
    assert adder.add("-", stdin=b"one").out == f"added entry {first + 2}\n"
    assert adder.add("--lines", "-", stdin=b"").out == "there was nothing to add\n"


def test_without_a_policy_the_log_is_taken_at_its_word_with_a_warning(adder: Adder) -> None:
    result = run("add", "--log", adder.log.url, "-", stdin=b"x")
    assert result.code == 0
    assert result.err.startswith("no --policy: taking log.example/shared at its word for its keys")


def test_a_policy_for_another_log_refuses_the_receipts(adder: Adder) -> None:
    vkey = run("keys", "generate", "log.example/else", "-o", adder.directory / "key").out.strip()
    policy = adder.file("other", f"log {vkey}\nquorum none\n".encode())
    result = run("add", "--log", adder.log.url, "--policy", policy, "--receipts", adder.receipts, "-", stdin=b"x")
    assert "the policy lists no log" in require_plain(result, 1)[0]
    assert not any(adder.receipts.iterdir())


def test_a_missing_file_stops_before_anything_is_added(adder: Adder) -> None:
    result = adder.add(adder.file("there", b"x"), adder.directory / "nowhere")
    lines = require_plain(result, 4)
    assert lines == [
        f"translog: cannot read {adder.directory / 'nowhere'}: No such file or directory",
        "  nothing was added before that",
    ]


def test_an_unreachable_log_exits_with_3(adder: Adder) -> None:
    for options in ([], ["--policy", adder.log.policy]):
        result = run("add", "--log", "http://127.0.0.1:1", *options, "--json", "-", stdin=b"x")
        assert "cannot reach http://127.0.0.1:1" in require_plain(result, 3)[0]
        assert json.loads(result.out)["ok"] is False


def test_receipts_need_a_directory(adder: Adder) -> None:
    path = adder.file("file", b"x")
    assert f"cannot create {path}" in require_plain(adder.add("--receipts", path, "-", stdin=b"x"), 4)[0]


def test_receipts_of_another_log_are_never_overwritten(adder: Adder) -> None:
    (index,) = adder.save("-", stdin=b"x")
    adder.receipts = adder.directory / "others"
    adder.receipts.mkdir()
    other = adder.receipts / f"{index + 1}.tlog-proof"
    other.write_bytes(b"another log's")
    result = adder.add("--receipts", adder.receipts, "-", stdin=b"y")
    lines = require_plain(result, 4)
    why = f"{other} is there already, and is of another log or checkpoint"
    assert lines[0] == f"translog: the receipt of entry {index + 1} is not saved: {why}"
    assert "`translog receipt --log URL INDEX -o FILE`" in lines[1]
    assert lines[1].endswith(f"; added before that: entry {index + 1}")
    assert other.read_bytes() == b"another log's"


def test_the_same_receipt_again_is_fine(adder: Adder) -> None:
    receipts = adder.receipts
    receipts.mkdir()
    for _ in range(2):
        add_module._save_all(receipts, {0: b"receipt"})
    assert [(path.name, path.read_bytes()) for path in receipts.iterdir()] == [("0.tlog-proof", b"receipt")]


@pytest.mark.parametrize("what", ["directory", "dangling"])
def test_what_is_in_the_way_of_a_receipt_and_is_no_file_is_told_in_a_sentence(tmp_path: Path, what: str) -> None:
    path = tmp_path / "0.tlog-proof"
    if what == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(SettingsError) as caught:
        add_module._save_all(tmp_path, {0: b"receipt", 1: b"another"})
    assert caught.value.code == "receipt-not-saved"
    assert (tmp_path / "1.tlog-proof").read_bytes() == b"another"


def test_a_receipt_is_a_file_that_everybody_may_read(tmp_path: Path) -> None:
    add_module._save_all(tmp_path, {0: b"receipt"})
    assert (tmp_path / "0.tlog-proof").stat().st_mode & 0o777 == 0o644


def test_receipts_that_cannot_be_saved_do_not_keep_others_from_being_saved(tmp_path: Path) -> None:
    for index in (5, 7):
        (tmp_path / f"{index}.tlog-proof").write_bytes(b"another log's")
    with pytest.raises(SettingsError, match=r"receipt of entry 5 \(and 1 more\) is not saved") as caught:
        add_module._save_all(tmp_path, {5: b"five", 6: b"six", 7: b"seven", 8: b"eight"})
    assert caught.value.code == "receipt-not-saved"
    assert [(tmp_path / f"{index}.tlog-proof").read_bytes() for index in (6, 8)] == [b"six", b"eight"]


def test_entries_whose_receipts_cannot_be_saved_are_counted_as_added(adder: Adder) -> None:
    (index,) = adder.save("-", stdin=b"x")
    (adder.receipts / f"{index + 1}.tlog-proof").write_bytes(b"another log's")
    result = adder.add("--receipts", adder.receipts, "--lines", "--json", "-", stdin=b"a\nb\nc\n")
    assert require_plain(result, 4)[1].endswith(f"; added before that: 3 entries, indexes {index + 1} to {index + 3}")
    assert json.loads(result.out)["code"] == "receipt-not-saved"
    adder.require_verified(index + 2, b"b")
    adder.require_verified(index + 3, b"c")


def test_a_receipt_is_saved_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "0.tlog-proof"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # stands in for a full disk
    try:
        with pytest.raises(SettingsError, match=r"cannot write .*: File too large") as caught:
            add_module._save_all(tmp_path, {0: b"a receipt of more bytes", 1: b"small"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(path) in caught.value.detail
    assert [path.name for path in tmp_path.iterdir()] == ["1.tlog-proof"]


def test_what_was_added_before_a_failure_is_said_and_its_receipts_saved(adder: Adder, monkeypatch: pytest.MonkeyPatch) -> None:
    from translog.client.submit import Submitter

    monkeypatch.setattr(add_module, "BATCH_ENTRIES_MAX", 2)
    append = Submitter.append
    batches = []

    async def fail_third(self: Submitter, entries: list[bytes], policy: object) -> object:
        batches.append(entries)
        if len(batches) == 3:
            raise RemoteError("gone", hint="look first", code="outcome-unknown")
        return await append(self, entries, policy)  # type: ignore[arg-type]

    monkeypatch.setattr(Submitter, "append", fail_third)
    result = adder.add("--receipts", adder.receipts, "--lines", "--json", "-", stdin=b"a\nb\nc\nd\ne\nf\ng\n")
    lines = require_plain(result, 3)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    saved = sorted(int(path.stem) for path in adder.receipts.iterdir())
    assert len(saved) == 4
    assert lines == ["translog: gone", f"  look first; added before that: 4 entries, indexes {saved[0]} to {saved[-1]}"]
    assert json.loads(result.out)["code"] == "outcome-unknown"


def test_batches_are_bounded_in_entries_and_bytes() -> None:
    batches = list(add_module._batches([b"x"] * 2_500))
    assert [len(batch) for batch in batches] == [1_000, 1_000, 500]
    large = list(add_module._batches([bytes(65_535)] * 150))
    assert sum(map(len, large)) == 150
    assert all(sum(map(len, batch)) <= add_module.BATCH_BYTES_MAX for batch in large)
    assert list(add_module._batches([])) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"x" * 2_000])
def test_token_files_without_a_token_are_told_in_a_sentence(adder: Adder, content: bytes) -> None:
    path = adder.file("token", content)
    assert str(path) in require_plain(adder.add("--token-file", path, "-", stdin=b"x"), 4)[0]


def test_a_missing_token_file_is_named(adder: Adder) -> None:
    path = adder.directory / "nowhere"
    assert f"cannot read the token {path}" in require_plain(adder.add("--token-file", path, "-", stdin=b"x"), 4)[0]


def test_an_unknown_token_is_refused_by_the_log(adder: Adder) -> None:
    path = adder.file("token", b"translog_unknown\n")
    result = adder.add("--token-file", path, "-", stdin=b"x")
    assert "answers 401: this token is not known here" in require_plain(result, 3)[0]
    assert "translog_unknown" not in result.err


def test_a_token_of_two_lines_is_told_in_a_sentence(adder: Adder) -> None:
    path = adder.file("token", b"one\ntwo\n")
    require_plain(adder.add("--token-file", path, "-", stdin=b"x"), 4)
