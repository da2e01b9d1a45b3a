"""The Go checksum database's packages (sumdb/note and sumdb/tlog, in golog/) against our notes, keys, tiles and proofs.

Rules: a damaged log must be refused for the damaged resource, so each refusal names what golog must complain of.
"""

import json
import subprocess
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType, SKey, format_skey, parse_skey, parse_vkey
from translog.core.merkle import hash_leaf
from translog.core.note import open_note, sign_note
from translog.core.proof import format_receipt
from translog.core.tile import bundles_of, format_tile_path, tiles_of
from translog.errors import MalformedError, SignatureError

from .conftest import LogAddress, RunGolog, Site, damaged
from .static_log import LOG_KEY, ORIGIN, TIME_S, StaticLog, entry_at, flip, make_log, sign_head

Result = subprocess.CompletedProcess[str]


def assert_accepted(result: Result, log: StaticLog) -> None:
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"ok: size {log.size} root {b64encode(log.root).decode()}"


def assert_refused(result: Result, *named: str) -> None:
    assert result.returncode == 1, result.stdout + result.stderr
    assert "ok:" not in result.stdout
    for name in named:
        assert name in result.stderr


# A live server joins here: add the name of a fixture that gives its LogAddress.
@pytest.mark.parametrize("address", ["static_log_address"])
def test_golog_accepts_a_log_and_its_proofs(address: str, run_golog: RunGolog, request: pytest.FixtureRequest) -> None:
    log_address: LogAddress = request.getfixturevalue(address)
    result = run_golog(log_address.url, log_address.vkey)
    assert result.returncode == 0, result.stderr
    assert "\nanswers: " in result.stdout
    assert "\nanswers: 0 " not in result.stdout
    assert "\nok: size " in result.stdout


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 700, 65_536, 70_000, 256_300])
def test_golog_accepts_a_good_log_of_any_size(size: int, run_golog: RunGolog, site: Site) -> None:
    log = make_log(size)
    assert_accepted(run_golog(site.add(log.answer), log.vkey, proofs=size <= 700), log)


def test_golog_reads_every_tile_and_bundle(run_golog: RunGolog, site: Site) -> None:
    log = make_log(70_000)
    asked = []

    def answer(target: str) -> bytes | None:
        asked.append(target)
        return log.answer(target)

    assert_accepted(run_golog(site.add(answer), log.vkey, proofs=False), log)
    assert sorted(asked) == sorted(log.files)


def test_golog_accepts_a_log_in_a_folder(run_golog: RunGolog, tmp_path: Path) -> None:
    log = make_log(700)
    for path, data in log.files.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    assert_accepted(run_golog(tmp_path.as_uri(), log.vkey, proofs=False), log)


FLIPS = [
    pytest.param(700, "tile/0/000", 100, "tile/0/000: ", id="full level-0 tile"),
    pytest.param(700, "tile/0/002.p/188", 187 * 32, "tile/0/002.p/188", id="partial tile"),
    pytest.param(700, "tile/1/000.p/2", 0, "tile/1/000.p/2", id="partial level-1 tile"),
    pytest.param(70_000, "tile/1/000", 255 * 32, "tile/1/000: ", id="full level-1 tile"),
    pytest.param(70_000, "tile/2/000.p/1", 31, "tile/2/000.p/1", id="level-2 tile"),
    pytest.param(700, "tile/entries/001", 0, "tile/entries/001: ", id="high byte of a length in a bundle"),
    pytest.param(700, "tile/entries/001", 1, "tile/entries/001: ", id="low byte of a length in a bundle"),
    pytest.param(700, "tile/entries/001", 2, "entry 256 in tile/entries/001: ", id="first byte of an entry"),
    pytest.param(700, "tile/entries/002.p/188", -1, "entry 699 in tile/entries/002.p/188: ", id="last byte of an entry"),
]


@pytest.mark.parametrize(("size", "path", "at", "named"), FLIPS)
def test_golog_refuses_a_flipped_byte(size: int, path: str, at: int, named: str, run_golog: RunGolog, site: Site) -> None:
    log = make_log(size)
    url = site.add(damaged(log, path, lambda body: flip(body, at)))
    assert_refused(run_golog(url, log.vkey, proofs=False), named)


FILES = ["checkpoint", *map(format_tile_path, tiles_of(700)), *map(format_tile_path, bundles_of(start=0, end=700))]


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("change", [lambda _: None, lambda body: body[:-1]], ids=["missing", "cut short"])
def test_golog_refuses_a_missing_or_short_file(
    path: str, change: Callable[[bytes], bytes | None], run_golog: RunGolog, site: Site
) -> None:
    log = make_log(700)
    assert_refused(run_golog(site.add(damaged(log, path, change)), log.vkey, proofs=False), path)


@pytest.mark.parametrize(
    ("path", "more", "named"),
    [
        ("tile/0/000", bytes(32), "tile/0/000: "),
        ("tile/0/002.p/188", bytes(32), "tile/0/002.p/188"),
        ("tile/entries/002.p/188", bytes(2), "tile/entries/002.p/188: 189 entries, not 188"),
        ("tile/entries/002.p/188", bytes(1), "tile/entries/002.p/188: ends inside entry 188"),
    ],
)
def test_golog_refuses_more_than_the_tree_has(path: str, more: bytes, named: str, run_golog: RunGolog, site: Site) -> None:
    log = make_log(700)
    assert_refused(run_golog(site.add(damaged(log, path, lambda body: body + more)), log.vkey, proofs=False), named)


@pytest.mark.parametrize("line", [0, 1, 2, 4], ids=["origin", "size", "root", "the log's signature"])
def test_golog_refuses_a_changed_line_of_the_checkpoint(line: int, run_golog: RunGolog, site: Site) -> None:
    log = make_log(700)

    def change(body: bytes) -> bytes:
        lines = body.split(b"\n")
        lines[line] = flip(lines[line], len(lines[line]) - 10 if line == 4 else 0)
        return b"\n".join(lines)

    result = run_golog(site.add(damaged(log, "checkpoint", change)), log.vkey, proofs=False)
    assert_refused(result, "checkpoint: invalid signature for key example.com/interop+")


def test_golog_ignores_a_changed_signature_of_a_key_it_does_not_know(run_golog: RunGolog, site: Site) -> None:
    log = make_log(700)
    url = site.add(damaged(log, "checkpoint", lambda body: flip(body, len(body) - 10)))
    assert_accepted(run_golog(url, log.vkey, proofs=False), log)


def test_golog_refuses_a_signed_root_that_the_tiles_do_not_make(run_golog: RunGolog, site: Site) -> None:
    log = make_log(700)
    url = site.add(damaged(log, "checkpoint", lambda _: sign_head(700, flip(log.root, 0))))
    assert_refused(run_golog(url, log.vkey, proofs=False), "checkpoint or tile/1/000.p/2 or tile/0/002.p/188: ")


@pytest.mark.parametrize(
    ("size", "before", "after", "named"),
    [
        pytest.param(700, ORIGIN, "example.com/another", "origin", id="another origin"),
        pytest.param(700, "\n700\n", "\n0700\n", "not a size", id="leading zero"),
        pytest.param(700, "\n700\n", "\n-700\n", "not a size", id="negative size"),
        pytest.param(700, "=\n", "\n", "not a hash", id="root without padding"),
        pytest.param(0, "uFU=\n", "uFV=\n", "not a hash", id="root with stray bits"),
        pytest.param(700, "=\n", "=\nextension\n", "not origin, size and root", id="extension line"),
        pytest.param(0, "47DEQpj8", "57DEQpj8", "root", id="root of something for the empty tree"),
    ],
)
def test_golog_refuses_a_signed_text_that_is_no_checkpoint_of_the_log(
    size: int, before: str, after: str, named: str, run_golog: RunGolog, site: Site
) -> None:
    log = make_log(size)
    text = log.files["checkpoint"].decode().partition("\n\n")[0] + "\n"
    assert before in text
    note = sign_note(text.replace(before, after), [KeySigner(LOG_KEY)], time_s=TIME_S)
    url = site.add(damaged(log, "checkpoint", lambda _: note))
    assert_refused(run_golog(url, log.vkey, proofs=False), f"checkpoint: {named}")


def test_golog_refuses_another_logs_key(run_golog: RunGolog, site: Site) -> None:
    log = make_log(1)
    other = SKey(name=LOG_KEY.name, type=KeyType.ED25519, seed=bytes(32))
    assert_refused(run_golog(site.add(log.answer), str(other.vkey), proofs=False), "checkpoint: ", "no verifiable signatures")


OTHER_HASH = b64encode(bytes(32)).decode()
WRONG_ANSWERS: list[tuple[str, str, object]] = [
    ("v1/proofs/inclusion?index=63&size=700", "index", 62),
    ("v1/proofs/inclusion?index=63&size=700", "size", 699),
    ("v1/proofs/inclusion?index=63&size=700", "root", OTHER_HASH),
    ("v1/proofs/inclusion?index=63&size=700", "leaf_hash", OTHER_HASH),
    ("v1/proofs/inclusion?index=63&size=700", "proof", [OTHER_HASH] * 10),
    ("v1/proofs/inclusion?index=0&size=1", "proof", [OTHER_HASH]),
    ("v1/proofs/inclusion?index=0&size=1", "proof", None),
    ("v1/proofs/consistency?old=64&new=700", "old", 63),
    ("v1/proofs/consistency?old=64&new=700", "new", 699),
    ("v1/proofs/consistency?old=64&new=700", "proof", [OTHER_HASH] * 4),
    ("v1/proofs/consistency?old=700&new=700", "proof", [OTHER_HASH]),
    ("v1/proofs/consistency?old=700&new=700", "proof", None),
]


@pytest.mark.parametrize(("path", "field", "value"), WRONG_ANSWERS)
def test_golog_refuses_a_wrong_proof_answer(path: str, field: str, value: object, run_golog: RunGolog, site: Site) -> None:
    log = make_log(700)

    def change(body: bytes) -> bytes:
        answer = json.loads(body)
        assert answer[field] != value
        return json.dumps(answer | {field: value}).encode()

    assert_refused(run_golog(site.add(damaged(log, path, change)), log.vkey), path)


@pytest.mark.parametrize("size", [0, 1, 256, 511, 700])
def test_golog_accepts_an_earlier_checkpoint(size: int, run_golog: RunGolog, site: Site, tmp_path: Path) -> None:
    log = make_log(700)
    old = tmp_path / "old"
    old.write_bytes(log.checkpoint_at(size))
    result = run_golog(site.add(log.answer), log.vkey, old=old, proofs=False)
    assert_accepted(result, log)
    assert f"old: size {size} is a prefix\n" in result.stdout


@pytest.mark.parametrize(
    ("make_note", "named"),
    [
        pytest.param(lambda: sign_head(256, make_log(255).root), "root", id="another tree of that size"),
        pytest.param(lambda: make_log(701).files["checkpoint"], "size 701 is above 700", id="a larger tree"),
        pytest.param(lambda: flip(make_log(256).files["checkpoint"], 0), "invalid signature", id="a changed checkpoint"),
    ],
)
def test_golog_refuses_an_earlier_checkpoint_of_another_tree(
    make_note: Callable[[], bytes], named: str, run_golog: RunGolog, site: Site, tmp_path: Path
) -> None:
    log = make_log(700)
    old = tmp_path / "old"
    old.write_bytes(make_note())
    assert_refused(run_golog(site.add(log.answer), log.vkey, old=old, proofs=False), f"{old}: ", named)


@pytest.fixture
def run_receipt(run_golog: RunGolog, site: Site, tmp_path: Path) -> Callable[[StaticLog, bytes, bytes], Result]:
    """Verifies a receipt of an entry, along with the log it is from."""

    def run(log: StaticLog, receipt: bytes, entry: bytes) -> Result:
        (tmp_path / "receipt").write_bytes(receipt)
        (tmp_path / "entry").write_bytes(entry)
        url = site.add(log.answer)
        return run_golog(url, log.vkey, receipt=tmp_path / "receipt", entry=tmp_path / "entry", proofs=False)

    return run


RunReceipt = Callable[[StaticLog, bytes, bytes], Result]


@pytest.mark.parametrize(("size", "index"), [(1, 0), (256, 3), (257, 256), (700, 0), (700, 5), (700, 699)])
def test_golog_accepts_a_receipt(size: int, index: int, run_receipt: RunReceipt) -> None:
    log = make_log(size)
    result = run_receipt(log, log.receipt_file(index), entry_at(index))
    assert_accepted(result, log)
    assert f"receipt: entry {index} in the tree of size {size}\n" in result.stdout


def test_golog_accepts_a_receipt_of_an_earlier_size_with_extra_data(run_receipt: RunReceipt) -> None:
    log = make_log(700)
    receipt = replace(log.receipt(17, size=300), extra=b"anything")
    assert_accepted(run_receipt(log, format_receipt(receipt), entry_at(17)), log)


@pytest.mark.parametrize("which", range(10))
def test_golog_refuses_a_receipt_with_a_flipped_byte_in_a_hash(which: int, run_receipt: RunReceipt) -> None:
    log = make_log(700)
    receipt = log.receipt(17, size=700)
    proof = list(receipt.proof)
    assert len(proof) == 10
    proof[which] = flip(proof[which], 31)
    changed = format_receipt(replace(receipt, proof=tuple(proof)))
    assert_refused(run_receipt(log, changed, entry_at(17)), "/receipt for ", "invalid transparency proof")


def test_golog_refuses_a_receipt_for_another_entry(run_receipt: RunReceipt) -> None:
    log = make_log(700)
    assert_refused(run_receipt(log, log.receipt_file(17), entry_at(18)), "/entry", "invalid transparency proof")


def test_golog_refuses_a_receipt_at_another_index(run_receipt: RunReceipt) -> None:
    log = make_log(700)
    changed = format_receipt(replace(log.receipt(17, size=700), index=16))
    assert_refused(run_receipt(log, changed, entry_at(17)), "invalid transparency proof")


def test_golog_refuses_a_receipt_of_another_tree(run_receipt: RunReceipt) -> None:
    """One that holds by itself: the log signed a second tree of one entry."""
    log, entry = make_log(700), b"not in the log"
    other = replace(make_log(1).receipt(0, size=1), checkpoint=sign_head(1, hash_leaf(entry)))
    assert_refused(run_receipt(log, format_receipt(other), entry), "/receipt: root ")


NAMES = ["example.com/log", "prüfung.example/δ"]
TEXT = "a text\n\nwith an empty line, and prüfung\n"


def golog_keygen(golog: Path, name: str) -> tuple[str, str]:
    result = subprocess.run([golog, "keygen", name], capture_output=True, text=True, check=True)
    skey, vkey = result.stdout.split("\n")[:2]
    return skey, vkey


def golog_sign(golog: Path, tmp_path: Path, skey: str, text: str) -> bytes:
    (tmp_path / "skey").write_text(skey + "\n")
    return subprocess.run([golog, "sign", tmp_path / "skey"], input=text.encode(), capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", NAMES)
def test_keys_that_go_generates_are_ours_to_the_letter(name: str, golog: Path) -> None:
    skey, vkey = golog_keygen(golog, name)
    assert parse_skey(skey).vkey == parse_vkey(vkey)
    assert format_skey(parse_skey(skey)) == skey
    assert str(parse_vkey(vkey)) == vkey


@pytest.mark.parametrize("name", NAMES)
def test_go_and_we_sign_the_same_note_with_the_same_key(name: str, golog: Path, tmp_path: Path) -> None:
    key = SKey(name=name, type=KeyType.ED25519, seed=bytes(range(32)))
    ours = sign_note(TEXT, [KeySigner(key)], time_s=TIME_S)
    assert golog_sign(golog, tmp_path, format_skey(key), TEXT) == ours


def test_a_note_that_go_signs_opens_and_no_changed_byte_of_it_does(golog: Path, tmp_path: Path) -> None:
    skey, vkey = golog_keygen(golog, NAMES[1])
    verifier = KeyVerifier(parse_vkey(vkey))
    note = golog_sign(golog, tmp_path, skey, TEXT)
    assert open_note(note, [verifier]).text == TEXT
    for at in range(len(note)):
        with pytest.raises((MalformedError, SignatureError)):
            open_note(flip(note, at), [verifier])
