"""`translog submit`: how files become requests, what is said of records, what is saved, what is repeated."""

import gzip
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client.event_stub import EventStub, Fault
from client.simulator import POLICY, STRANGER
from core.merkle_oracle import Oracle

from cli.harness import Result, require_plain, run
from translog.cli import submit as submit_module
from translog.cli.submit import JSON, NDJSON, TEXT, Request, have_ids, media_of, read_requests
from translog.client import delivery
from translog.client.submit import Submitter
from translog.core.merkle import hash_leaf
from translog.core.proof import parse_receipt, verify_receipt
from translog.errors import RemoteError, TooLargeError


class Sender:
    """Submits to a stub of a log."""

    def __init__(self, stub: EventStub, url: str, directory: Path) -> None:
        self.stub = stub
        self.url = url
        self.directory = directory
        self.receipts = directory / "receipts"

    def submit(self, *arguments: object, source: str = "short", stdin: bytes = b"") -> Result:
        return run("submit", "--log", self.url, "--source", source, *arguments, stdin=stdin)

    def report(self, *arguments: object, source: str = "short", stdin: bytes = b"") -> dict[str, Any]:
        result = self.submit("--json", *arguments, source=source, stdin=stdin)
        assert result.code == 0, result.err
        document: dict[str, Any] = json.loads(result.out)
        assert document.pop("ok") is True
        return document

    def file(self, name: str, content: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    stub = EventStub()
    with stub.serving_aside() as url:
        yield Sender(stub, url, tmp_path)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PAUSE_MS_FIRST", 0)
    monkeypatch.setattr(delivery, "RETRY_AFTER_MS_MAX", 0)
    monkeypatch.setattr("translog.client.submit._PUBLISH_POLL_S", 0)


def lines(*numbers: int, **more: Any) -> bytes:
    records = [{"id": f"e{number}", "time": 1, "actor": "a", "action": "b", **more} for number in numbers]
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


# What is sent where


@pytest.mark.parametrize("source", ["short", "ocsf", "events"])
def test_events_go_to_v1_events_and_name_their_stream_in_a_header(sender: Sender, source: str) -> None:
    body = lines(1, 2)
    assert sender.report("--stream", "s-1", sender.file("f", body), source=source)["logged"] == 2
    assert sender.report(sender.file("g", lines(3)), source=source)["logged"] == 1
    first, second = sender.stub.requests
    assert (first.path, first.headers["Translog-Stream"], first.content_type) == ("/v1/events", "s-1", NDJSON)
    assert (second.path, second.content_type, "Translog-Stream" in second.headers) == ("/v1/events", JSON, False)
    assert first.query_string == "ack=durable&receipts=index"
    assert sender.stub.bodies == [body, lines(3)]


def test_a_sources_records_go_to_its_path_with_the_token(sender: Sender) -> None:
    token = sender.file("token", b"secret\n")
    records = json.dumps({"Records": [{"eventID": "a"}, {"eventID": "b"}]}).encode()
    document = sender.report("--stream", "aws", "--token-file", token, sender.file("f", records), source="cloudtrail")
    assert (document["logged"], document["indexes"]) == (2, [0, 1])
    sender.report(sender.file("g", b'{"eventID":"c"}'), source="cloudtrail")
    first, second = sender.stub.requests
    assert (first.path, first.headers["Authorization"]) == ("/v1/sources/cloudtrail/aws", "Bearer secret")
    assert second.path == "/v1/sources/cloudtrail/cloudtrail"
    assert sender.stub.bodies[0] == records


def test_cloudevents_say_whether_they_are_one_or_a_batch(sender: Sender) -> None:
    for body, media in ((b'{"id":"1"}', "cloudevents"), (b'[{"id":"2"}]', "cloudevents-batch")):
        sender.report("-", source="cloudevents", stdin=body)
        assert sender.stub.requests[-1].content_type == f"application/{media}+json"


def test_compressed_files_are_passed_on_as_they_are(sender: Sender) -> None:
    packed = gzip.compress(lines(1, 2, 3))
    assert sender.report(sender.file("f.gz", packed))["logged"] == 3
    (request,) = sender.stub.requests
    assert (request.headers["Content-Encoding"], request.content_type, sender.stub.bodies) == ("gzip", NDJSON, [packed])


MEDIA = {
    b"": TEXT,
    b"{}": JSON,
    b"{}\n": JSON,
    b"{}\n\n \n": JSON,
    b'{"a":1}\n{"a":2}': NDJSON,
    b'\n\n{"a":1}\n\n{"a":2}\n': NDJSON,
    b'{\n  "a": 1\n}\n': JSON,
    b'[\n{"a":1},\n{"a":2}\n]': JSON,
    b'[{"a":1}]': JSON,
    b"<34>1 2026-01-02T03:04:05Z host su - ID47 - failed\n": TEXT,
    b'{"cut":"of': JSON,
    b"[" * 5_000 + b"\n{}": JSON,
}


@pytest.mark.parametrize("head", MEDIA)
def test_what_is_lines_and_what_is_a_document(head: bytes) -> None:
    assert media_of(head) == MEDIA[head]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\n\n\n"])
@pytest.mark.parametrize("limit", [100, 1_000, 100_000])
def test_lines_are_cut_at_their_borders_whole_and_in_order(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, ending: bytes, limit: int
) -> None:
    monkeypatch.setattr(submit_module, "REQUEST_BYTES_MAX", 500)
    text = lines(*range(100)).rstrip(b"\n") + ending
    path = sender.file("f", text)
    requests = list(read_requests(str(path), body_bytes_max=limit, records_max=1_000))
    assert b"".join(request.body for request in requests) == lines(*range(100))
    assert all(len(request.body) <= 500 and request.media == NDJSON for request in requests)
    assert len(requests) > 5
    few = list(read_requests(str(path), body_bytes_max=limit, records_max=3))
    assert [request.body.count(b"\n") for request in few] == [3] * 33 + [1]


def test_lines_of_text_are_cut_too(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_module, "REQUEST_BYTES_MAX", 20)
    requests = list(read_requests(str(sender.file("f", b"one line\n\ntwo\nthree\n")), body_bytes_max=99, records_max=2))
    assert [(request.body, request.media) for request in requests] == [(b"one line\ntwo\n", TEXT), (b"three\n", TEXT)]


def test_documents_and_lines_above_the_logs_limit_are_refused_here(sender: Sender) -> None:
    sender.stub.body_bytes_max = 200
    for content, said in (
        (json.dumps({"Records": ["x" * 200]}).encode(), "is one document, sent whole, and has more than the 200 bytes"),
        (gzip.compress(bytes(range(256)), compresslevel=0), "is one document, sent whole"),
        (b"{}\n" + json.dumps(["x" * 200]).encode(), "line 2 of"),
    ):
        result = sender.submit(sender.file("f", content), "--json")
        assert said in require_plain(result, 2)[0]
        assert json.loads(result.out)["hint"].endswith("nothing was logged before that")
    assert not sender.stub.requests
    exact = json.dumps(["x" * 196]).encode()
    assert len(exact) == 200
    (request,) = read_requests(str(sender.file("f", exact)), body_bytes_max=200, records_max=9)
    assert request == Request(file=str(sender.directory / "f"), body=exact, media=JSON)
    with pytest.raises(TooLargeError):
        list(read_requests(str(sender.file("f", exact)), body_bytes_max=199, records_max=9))


def test_usage_and_files_that_cannot_be_read(sender: Sender) -> None:
    assert sender.submit(sender.directory / "missing").code == 4
    assert sender.submit(sender.file("f", lines(1)), source="../v1").code == 2
    assert sender.submit("--stream", "A/B", sender.file("f", lines(1))).code == 2
    assert run("submit", "--log", sender.url, "f").code == 2
    assert sender.submit("-").out == "there was nothing to submit\n"
    assert not sender.stub.requests


# What is said


def test_people_are_told_what_became_of_the_records(sender: Sender) -> None:
    sender.stub.result = lambda result, record: {**result, "error": "no\x1bactor" if record.get("odd") else None}
    path = sender.file("f", lines(1, 2))
    assert sender.submit(path).out == "logged 2 events\n"
    assert sender.submit(path).out == "logged 0 events, 2 were logged before\n"
    result = sender.submit(sender.file("g", lines(2, 3, odd=1)), path)
    assert result.out == (
        "logged 2 events, 2 were logged before, 1 have the id of an event with other content and are marked so, "
        "2 were not understood and are kept as they came (Base Events)\n"
    )
    assert result.err.splitlines() == [
        f"record 1 of {sender.directory}/g, entry 2: no\\x1bactor",
        f"record 2 of {sender.directory}/g, entry 3: no\\x1bactor",
    ]


def test_programs_get_one_document(sender: Sender) -> None:
    sender.stub.result = lambda result, record: {**result, "error": "odd" if record["id"] == "e3" else None}
    path = sender.file("f", lines(1, 1, 3))
    assert sender.report(path) == {
        "logged": 2,
        "duplicates": 1,
        "conflicts": 0,
        "not_understood": [{"file": str(path), "record": 3, "index": 1, "error": "odd"}],
        "refused": [],
        "indexes": [0, 0, 1],
    }


def test_records_that_are_refused_make_it_fail(sender: Sender) -> None:
    sender.stub.result = lambda result, record: {"index": None, "error": "no"} if record["id"] == "e2" else result
    result = sender.submit("--json", sender.file("f", lines(1, 2, 3)))
    assert (result.code, json.loads(result.out)["indexes"]) == (3, [0, 2])
    assert result.err.splitlines() == [
        f"record 2 of {sender.directory}/f, not logged: no",
        "translog: the log refused 1 records; logged 2 events",
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 415])
def test_a_request_that_is_refused_is_made_once_and_said(sender: Sender, status: int) -> None:
    sender.stub.status = status
    said = require_plain(sender.submit(sender.file("f", lines(1))), 3)
    assert f"answers {status}: planned refused-by-plan" in said[0]
    assert said[1] == "  nothing was logged before that"
    assert len(sender.stub.requests) == 1


# What is repeated


CLOUDTRAIL = b'{"Records":[{"eventID":"x","eventName":"y","eventSource":"z","eventTime":"2026-01-02T03:04:05Z"}]}'
UNCERTAIN = [Fault.RESET_AFTER, Fault.ERROR_AFTER, Fault.CUT_AFTER, Fault.UNKNOWN_BEFORE]


@pytest.mark.parametrize("fault", UNCERTAIN)
def test_records_with_ids_are_sent_again_and_are_there_once(sender: Sender, fault: Fault) -> None:
    for source, body in (("short", lines(1, 2)), ("cloudtrail", CLOUDTRAIL)):
        sender.stub.plan = deque([fault, fault])
        sender.report(sender.file("f", body), source=source)
    assert sender.stub.uids == ["e1", "e2", "x"]


@pytest.mark.parametrize("fault", UNCERTAIN)
def test_records_without_ids_are_not_sent_again_when_nobody_knows(sender: Sender, fault: Fault) -> None:
    for source, body in (("short", b'{"actor":"a"}'), ("syslog", b"<34>1 x\n")):
        sender.stub.plan = deque([fault])
        before = len(sender.stub.requests)
        result = sender.submit(sender.file("f", body), source=source)
        assert result.code == 3
        assert "whether the entries were logged is not known" in result.err
        assert len(sender.stub.requests) == before + 1
        assert f"warning: {sender.directory}/f has records without ids: a request whose outcome is unknown" in result.err


def test_records_without_ids_are_sent_again_when_they_were_surely_not_logged(sender: Sender) -> None:
    sender.stub.plan = deque([Fault.BUSY, Fault.BUSY])
    assert sender.report("-", source="syslog", stdin=b"<34>1 x\n")["logged"] == 1


def test_whether_records_have_ids_is_looked_at() -> None:
    def look(body: bytes, media: str = JSON, source: str = "short", *, is_gzip: bool = False) -> bool:
        return have_ids(source, Request(file="f", body=body, media=media, is_gzip=is_gzip), records_max=10)

    assert look(lines(1, 2), NDJSON)
    assert look(gzip.compress(lines(1, 2)), NDJSON, is_gzip=True)
    assert look(b'[{"id":"1","actor":"a"},{"class_uid":0,"metadata":{"uid":"2"}}]')
    bad = b'{"id":""} | {"id":1} | {} | [{"id":"1","actor":"a"},{}] | [1] | { | {"class_uid":0,"id":"1"} | \xff | {"id":"1"}'
    for body in bad.split(b" | "):
        assert not look(body), body
    assert not look(lines(1) + b"{}\n", NDJSON)
    assert not look(lines(*range(11)), NDJSON)
    assert not look(gzip.compress(lines(1))[:-1], NDJSON, is_gzip=True)
    assert not look(b"\x1f\x8bno", NDJSON, is_gzip=True)
    assert look(CLOUDTRAIL, source="cloudtrail")
    assert not look(CLOUDTRAIL.replace(b"eventID", b"other"), source="cloudtrail")
    assert not look(CLOUDTRAIL, source="unknown")
    cloudevent = b'{"specversion":"1.0","id":"1","source":"/s","type":"t"}'
    assert look(cloudevent, source="cloudevents")
    assert look(b"[" + cloudevent + b"]", source="cloudevents")


def test_patience_ends_and_what_was_logged_before_is_said(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_module, "PATIENCE_S", 0.05)
    sender.stub.plan = deque([Fault.NONE, *[Fault.ERROR_BEFORE] * 100_000])
    result = sender.submit(sender.file("f", lines(1, 2)), sender.file("g", lines(3)))
    said = require_plain(result, 3)
    assert (
        said[1] == "  send the same again later: the log finds by their ids what it has already; before that: logged 2 events"
    )
    assert len(sender.stub.requests) > 2


# Receipts


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    from client.simulator import ED25519

    path.write_text(f"log {ED25519.vkey}\nquorum none\n")
    return path


def require_receipts(sender: Sender, *indexes: int) -> None:
    assert {path.name for path in sender.receipts.iterdir()} == {f"{index}.tlog-proof" for index in indexes}
    for index in indexes:
        receipt = parse_receipt((sender.receipts / f"{index}.tlog-proof").read_bytes())
        verify_receipt(receipt, leaf_hash=hash_leaf(sender.stub.entry(index)), policy=POLICY)
        assert receipt.index == index


def test_receipts_are_verified_and_saved(sender: Sender, policy: Path) -> None:
    sender.submit("-", stdin=lines(90, 91))
    path = sender.file("f", lines(1, 2, 91, 3))
    saved: list[dict[str, bytes]] = []
    for _ in range(2):  # the second time all are duplicates, and their receipts are there
        sender.report("--receipts", sender.receipts, "--policy", policy, path)
        require_receipts(sender, 1, 2, 3, 4)
        saved.append({path.name: path.read_bytes() for path in sender.receipts.iterdir()})
        sender.submit("-", stdin=lines(100 + len(saved)))  # another checkpoint
    assert saved[0] == saved[1]
    assert [request.query_string for request in sender.stub.requests].count("ack=published&receipts=full") == 2


def test_receipts_that_come_later_are_fetched(sender: Sender, policy: Path) -> None:
    sender.stub.plan = deque([Fault.DURABLE])
    sender.stub.unpublished = 3
    sender.report("--receipts", sender.receipts, "--policy", policy, sender.file("f", lines(1, 2)))
    require_receipts(sender, 0, 1)


def test_receipts_that_do_not_come_are_told(sender: Sender, policy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.client.submit._PUBLISH_WAIT_S", 0)
    sender.stub.plan = deque([Fault.DURABLE])
    sender.stub.unpublished = 1_000
    result = sender.submit("--json", "--receipts", sender.receipts, "--policy", policy, sender.file("f", lines(1, 2)))
    assert (result.code, json.loads(result.out)["unproven"]) == (3, [0, 1])


def test_receipts_that_do_not_come_though_the_entries_are_there_are_told(
    sender: Sender, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("translog.client.submit._PUBLISH_WAIT_S", 0)
    monkeypatch.setattr(Submitter, "receipt", _not_published)
    sender.stub.plan = deque([Fault.DURABLE])
    result = sender.submit("--json", "--receipts", sender.receipts, "--policy", policy, sender.file("f", lines(1, 2)))
    assert (result.code, json.loads(result.out)["unproven"]) == (3, [0, 1])


async def _not_published(self: Submitter, index: int) -> bytes:
    raise RemoteError("not yet", status=404, code="not-published")


def test_receipts_of_another_log_are_not_saved(sender: Sender, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_text(f"log {STRANGER.vkey}\nquorum none\n")
    result = sender.submit("--receipts", sender.receipts, "--policy", foreign, sender.file("f", lines(1)))
    assert result.code == 1
    assert "before that: logged 1 event" in result.err
    assert not list(sender.receipts.iterdir())


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.DURABLE])
def test_receipts_for_other_entries_are_not_saved(
    sender: Sender, policy: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(EventStub, "oracle", lambda self: Oracle([b"other %d" % n for n in range(len(self.stored))]))
    sender.stub.plan = deque([fault])
    result = sender.submit("--receipts", sender.receipts, "--policy", policy, sender.file("f", lines(1, 2)))
    assert result.code == 1
    assert not list(sender.receipts.iterdir())


def test_credentials_that_may_not_read_entries_are_told(sender: Sender, policy: Path) -> None:
    sender.stub.entries_status = 403
    result = sender.submit("--json", "--receipts", sender.receipts, "--policy", policy, sender.file("f", lines(1)))
    assert (result.code, json.loads(result.out)["code"]) == (3, "entries-not-readable")
    assert "before that: logged 1 event" in result.err
