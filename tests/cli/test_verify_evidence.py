"""`translog verify` of evidence files, and `translog evidence`, which fetches them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
from events import forgeries
from events.forgeries import EVENT, LOG, NAMES, ORIGIN, POLICIES, SENDER, SHOWN, SIZE, TIME_S

from cli.harness import Result, require_plain, run, run_program

GOOD = forgeries.good()
EVIL = "\x1b]0;title\x07\r\n\x9b31m\u202eend"


class Case:
    """An evidence file and a policy."""

    def __init__(self, directory: Path) -> None:
        self.evidence, self.policy, self.output = directory / "evidence", directory / "policy", directory / "output"
        self.use(GOOD["two fields"])
        self.policy.write_text(forgeries.POLICY)

    def use(self, data: bytes) -> None:
        self.evidence.write_bytes(data)

    def verify(self, *options: object) -> Result:
        return run("verify", self.evidence, "--policy", self.policy, *options)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


# It holds


def test_what_is_proven_is_said(case: Case) -> None:
    result = case.verify()
    assert (result.code, result.err) == (0, "")
    root = forgeries.b64(LOG.oracle.mth(0, SIZE))
    assert result.out.splitlines() == [
        f"OK: event 4 is in the log {ORIGIN}",
        "  member acme, stream k8s-prod, number 2, numbered by the sender",
        "  received at 2025-11-21T18:34:59.923Z, as the log states",
        "  logged no later than 2025-11-21T18:35:00Z, by the clocks of the witnesses the policy asks for",
        "  shown, 2 of 7 fields:",
        '    actor: {"user":{"uid":"alice","email_addr":"alice@corp.example"}}',
        '    message: "größe 🌲 \\u2028 \\"quoted\\" \\\\ tab\\t"',
        "  withheld, but part of the event: metadata, time, api, score, status",
        "  Any other field was never in the event.",
        f"  {ORIGIN}, 7 entries, root {root}",
        f"    signed by {ORIGIN} (ML-DSA-44, post-quantum) at 2025-11-21T18:35:00Z",
        "    cosigned by paul (Ed25519) at 2025-11-21T18:35:00Z",
        "    cosigned by mary (ML-DSA-44, post-quantum) at 2025-11-21T18:35:00Z",
        "  a split view would take 2 dishonest witnesses, or 1 where Ed25519 can be forged",
    ]


def test_json_is_one_document_that_says_the_same(case: Case) -> None:
    case.use(GOOD["all there may be"])
    result = case.verify("--json")
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    document = json.loads(result.out)
    for name, size in (("checkpoint", SIZE), ("not_before_checkpoint", forgeries.OLD_SIZE)):
        head = document.pop(name)
        assert (head["origin"], head["size"]) == (ORIGIN, size)
        assert [item["name"] for item in head["cosigned"]] == ["paul", "mary"]
    assert document == {
        "ok": True,
        "origin": ORIGIN,
        "index": 4,
        "size": SIZE,
        "member": "acme",
        "stream": "k8s-prod",
        "seq": 2,
        "numbered": "sender",
        "received_at_ms": 1_000 * TIME_S - 77,
        "no_later_than_s": TIME_S,
        "not_before_s": forgeries.OLD_TIME_S,
        "fields": EVENT,
        "withheld": [],
        "stream_checkpoint": {"origin": SENDER.name, "size": 5, "signature_checked": False},
        "policy": {
            "witnesses": [forgeries.WITNESS.name, forgeries.WITNESS_MLDSA.name],
            "split": [forgeries.WITNESS.name, forgeries.WITNESS_MLDSA.name],
            "split_quantum": [forgeries.WITNESS_MLDSA.name],
            "stop": [forgeries.WITNESS.name],
            "views": [[forgeries.WITNESS.name, forgeries.WITNESS_MLDSA.name]] * 2,
            "post_quantum": ["mary"],
            "classic": ["paul"],
            "unused": [],
            "repeated": [],
            "uncounted": [],
        },
    }
    case.use(GOOD["two fields"])
    document = json.loads(case.verify("--json").out)
    assert document["withheld"] == [name for name in NAMES if name not in SHOWN]
    assert [document[name] for name in ("not_before_s", "not_before_checkpoint", "stream_checkpoint")] == [None] * 3


def test_every_good_file_is_proven(case: Case) -> None:
    for data in GOOD.values():
        case.use(data)
        assert case.verify().code == 0


def test_times_and_a_streams_checkpoint_are_said(case: Case) -> None:
    case.use(GOOD["all there may be"])
    lines = case.verify().out.splitlines()
    assert "  logged not before 2025-11-21T18:25:00Z, by the clocks of the witnesses the policy asks for" in lines
    assert "  It is in the stream's checkpoint of size 5, whose signature was NOT checked: that takes --stream-vkey." in lines
    assert not [line for line in lines if "withheld" in line]
    assert lines[lines.index("  from before it:") + 1].startswith(f"    {ORIGIN}, 3 entries, root ")


def test_a_streams_key_is_checked(case: Case) -> None:
    case.use(GOOD["a stream's checkpoint"])
    result = case.verify("--stream-vkey", SENDER.vkey)
    assert "  It is in the stream's checkpoint of size 5, whose signature was checked." in result.out.splitlines()
    assert json.loads(case.verify("--stream-vkey", SENDER.vkey, "--json").out)["stream_checkpoint"]["signature_checked"] is True
    assert "not that of" in require_plain(case.verify("--stream-vkey", forgeries.STRANGER.vkey), 1)[0]
    case.use(GOOD["two fields"])
    assert "no stream's checkpoint" in require_plain(case.verify("--stream-vkey", SENDER.vkey), 1)[0]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("mldsa", "  logged no later than 2025-11-21T18:35:00Z, by the log's own clock"),
        ("classic", "  when it was logged is not shown: no signature that counts states a time"),
    ],
)
def test_whose_clock_it_was_is_said(case: Case, policy: str, said: str) -> None:
    case.policy.write_text(POLICIES[policy])
    assert said in case.verify().out.splitlines()


def test_times_that_contradict_each_other_are_pointed_out(case: Case) -> None:
    late = LOG.before(note=LOG.note(forgeries.OLD_SIZE, time_s=TIME_S + 1))
    case.use(forgeries.dump(forgeries.base() | {"not_before": late}))
    assert "  these times contradict each other: somebody's clock is wrong" in case.verify().out.splitlines()


def test_who_numbered_is_said_with_what_it_is_worth(case: Case) -> None:
    case.use(GOOD["numbered by the log"])
    line = case.verify().out.splitlines()[1]
    assert line.endswith("numbered by the log: the numbers prove nothing about what never arrived")


def test_the_header_alone_shows_no_field(case: Case) -> None:
    case.use(GOOD["the header alone"])
    lines = case.verify().out.splitlines()
    assert lines[4:7] == [
        "  no field is shown",
        f"  withheld, but part of the event: {', '.join(NAMES)}",
        "  Any other field was never in the event.",
    ]


def test_times_beyond_the_calendar_are_said(case: Case) -> None:
    case.use(GOOD["the largest numbers"])
    assert "  received at 9007199254740 seconds after 1970, as the log states" in case.verify().out.splitlines()


def test_nothing_of_an_event_reaches_the_terminal_as_it_is(case: Case) -> None:
    texts = forgeries.texts_of({EVIL: EVIL, "shown: 1\n  withheld": {EVIL: [EVIL]}, f"{EVIL}, actor": 1})
    case.use(forgeries.dump(forgeries.evidence_of(texts, [0, 1, 2])))
    result = case.verify()
    assert result.code == 0
    assert all(line.isprintable() for line in result.out.split("\n"))
    lines = result.out.splitlines()
    assert lines[5].startswith('    "\\u001b]0;title')
    assert lines[6].startswith('    "shown: 1\\n  withheld": {')
    assert lines[7].startswith('  withheld, but part of the event: "\\u001b]0;title')
    assert lines[7].endswith(', actor"')


# It does not hold


@pytest.mark.parametrize(
    ("name", "detail", "hint"),
    [
        ("a field of another event", "leaf 3 is not what the entry commits to", "put together from parts"),
        ("the receipt of another entry", "does not lead to the tree's root", "not the one this evidence is for"),
        ("receipt: root", "is not valid", "the evidence was changed, or the policy is for another log"),
        ("a receipt of another log", "the policy lists no log", "the evidence is of another log"),
        ("cut short", "not strict JSON", "the evidence was changed or cut short"),
        ("a receipt signed by one witness of two", "quorum", ""),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_with_a_hint(case: Case, name: str, detail: str, hint: str) -> None:
    case.use(forgeries.forgeries()[name].data)
    lines = require_plain(case.verify(), 1)
    assert lines[0].startswith(f"translog: {case.evidence}: ")
    assert detail in lines[0]
    assert (hint in lines[1]) if hint else len(lines) == 1
    document = json.loads(case.verify("--json").out)
    assert document["ok"] is False


def test_an_old_checkpoint_is_refused_if_asked(case: Case) -> None:
    assert case.verify("--max-age", "9000d").code == 0
    assert "the checkpoint was signed" in require_plain(case.verify("--max-age", "1s"), 1)[0]


def test_evidence_is_not_taken_for_a_receipt_nor_the_other_way_round(case: Case, tmp_path: Path) -> None:
    entry = tmp_path / "entry"
    entry.write_bytes(LOG.entry)
    result = case.verify("--entry", entry)
    assert (result.code, result.out) == (2, "")
    assert "which brings its entry along: leave out --entry" in result.err
    case.use(LOG.receipt().encode())
    assert case.verify("--entry", entry).code == 0
    result = case.verify()
    assert (result.code, result.out) == (2, "")
    assert "a receipt proves an entry: give it with --entry FILE" in result.err
    result = case.verify("--entry", entry, "--stream-vkey", SENDER.vkey)
    assert (result.code, result.out) == (2, "")
    assert "--stream-vkey says nothing about receipts" in result.err


def test_a_streams_key_that_is_none_is_a_usage_error(case: Case) -> None:
    result = case.verify("--stream-vkey", "none")
    assert (result.code, result.out) == (2, "")
    assert "--stream-vkey: not a vkey" in result.err


def test_evidence_verifies_without_the_servers_packages(case: Case, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    packages = (
        "aiohttp",
        "backports",
        "plyvel",
        "plyvel_next",
        "pydantic",
        "pydantic_settings",
        "structlog",
        "prometheus_client",
    )
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {packages!r}:\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    result = run_program("verify", case.evidence, "--policy", case.policy, env={"PYTHONPATH": str(site)})
    assert (result.code, result.err) == (0, "")
    assert result.out == case.verify().out


# Fetching


class Stub(ThreadingHTTPServer):
    """Answers every GET with the same."""

    def __init__(self, body: bytes, status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.status = body, status
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[Stub]:
    with Stub(body, status) as stub:
        thread = Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stub
        finally:
            stub.shutdown()
            thread.join()


def fetch(case: Case, stub: Stub, *options: object, index: object = 4) -> Result:
    return run("evidence", "--log", stub.url, index, "-o", case.output, *options)


def test_evidence_is_fetched_and_verifies(case: Case, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    with answering(GOOD["two fields"]) as stub:
        for options in ((), ("--policy", case.policy)):
            result = fetch(case, stub, "--fields", "actor,message", "--token-file", token, *options)
            assert (result.code, result.out, result.err) == (0, "", "")
            assert case.output.read_bytes() == GOOD["two fields"]
            case.output.unlink()
        result = run("evidence", "--log", stub.url, "4")
        assert (result.code, result.raw) == (0, GOOD["two fields"])
    asked = ("/v1/events/4/evidence?fields=actor,message", "Bearer s3cret")
    assert stub.asked == [asked, asked, ("/v1/events/4/evidence", None)]


def test_names_of_fields_are_escaped(case: Case) -> None:
    with answering(GOOD["the header alone"]) as stub:
        assert fetch(case, stub, "--fields", "a&b=ü/,c d").code == 0
    ((path, _),) = stub.asked
    assert parse_qs(urlsplit(path).query, strict_parsing=True) == {"fields": ["a&b=ü/,c d"]}


@pytest.mark.parametrize("fields", ["", ",", "actor,", ",actor"])
def test_an_empty_name_is_a_usage_error(case: Case, fields: str) -> None:
    result = run("evidence", "--log", "http://127.0.0.1:1", "4", "--fields", fields)
    assert (result.code, result.out) == (2, "")
    assert "--fields takes the names of fields" in result.err


def test_evidence_that_the_policy_refuses_is_not_written(case: Case) -> None:
    forged = forgeries.forgeries()["a field of another event"].data
    with answering(forged) as stub:
        assert "leaf 3 is not what the entry commits to" in require_plain(fetch(case, stub, "--policy", case.policy), 1)[0]
        assert not case.output.exists()
        assert fetch(case, stub).code == 0  # at the log's word: `translog verify` tells what it is worth
    assert run("verify", case.output, "--policy", case.policy).code == 1


def test_evidence_that_was_not_asked_for_is_not_written(case: Case) -> None:
    with answering(GOOD["two fields"]) as stub:
        assert "asked for the evidence of event 5, got that of 4" in require_plain(fetch(case, stub, index=5), 1)[0]
        assert "shows more fields than were asked for" in require_plain(fetch(case, stub, "--fields", "actor"), 1)[0]
    assert not case.output.exists()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"c2sp.org/tlog-proof@v1\n", b"\xff", GOOD["two fields"][:-1]])
def test_an_answer_that_is_no_evidence_is_the_logs_fault(case: Case, body: bytes) -> None:
    with answering(body) as stub:
        assert "does not answer with evidence" in require_plain(fetch(case, stub), 3)[0]
    assert not case.output.exists()


def test_what_the_log_says_of_an_event_that_is_not_there_is_told(case: Case) -> None:
    body = json.dumps({"code": "no-such-event", "detail": "there is no event 4", "hint": "wait"}).encode()
    with answering(body, 404) as stub:
        lines = require_plain(fetch(case, stub), 3)
    assert lines == [f"translog: {stub.url}/v1/events/4/evidence answers 404: there is no event 4", "  wait"]
