"""The OpenTelemetry SDK's exporters of logs, OTLP over HTTP, against receivers that misbehave, and our log.

What they do with an answer is in specs/external/otlp.md; these tests hold them to that. A batch that an exporter gives up is
gone: nothing above it sends it again.
"""

import itertools
import json
import logging
import math
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as PB2LogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter

from .events_log import TOKEN, EventsLog, ServedLog
from .otel_sender import (
    BODIES,
    SPAN_ID,
    TRACE_ID,
    Encoding,
    export,
    exporter,
    record,
    through_a_batch_processor,
    through_the_sdk,
)
from .receiver import PASS, Answer, Received, Receiver, free_port, receiving

TIMEOUT_S = 4.0
"""Instead of the exporters' ten seconds."""
SHORT_S = 1.0
BACKOFF_S = 0.8
"""One second, less a fifth at random: before the first retry."""
RETRIED = (429, 502, 503, 504)
DROPPED = (400, 401, 404, 409, 413, 415, 500, 501)


class Case(NamedTuple):
    plan: Sequence[Answer]
    timeout_s: float = TIMEOUT_S


class Outcome(NamedTuple):
    believed: bool
    received: list[Received]


def rejecting(encoding: Encoding) -> Answer:
    """A partial success: one record was rejected, and why."""
    if encoding is Encoding.JSON:
        body = b'{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"too bad"}}'
        return Answer(headers={"Content-Type": "application/json"}, body=body)
    partial = ExportLogsPartialSuccess(rejected_log_records=1, error_message="too bad")
    body = ExportLogsServiceResponse(partial_success=partial).SerializeToString()
    return Answer(headers={"Content-Type": "application/x-protobuf"}, body=body)


CASES = {
    **{f"answer {status}": Case([Answer(status=status)]) for status in (200, 202, 204, 302, 307)},
    **{f"refuse {status}": Case([Answer(status=status), Answer()]) for status in DROPPED},
    **{f"retry {status}": Case([Answer(status=status), Answer()]) for status in RETRIED},
    "Retry-After: 2": Case([Answer(status=503, headers={"Retry-After": "2"}), Answer()]),
    "Retry-After: 0": Case([Answer(status=503, headers={"Retry-After": "0"})]),
    "Retry-After: 5": Case([Answer(status=503, headers={"Retry-After": "5"}), Answer()]),
    "busy for ever": Case([Answer(status=503)]),
    "lost, then well": Case([Answer(lost=True), Answer()]),
    "lost for ever": Case([Answer(lost=True)]),
    "slow": Case([Answer(delay_s=2 * SHORT_S), Answer()], SHORT_S),
}
KEYS = list(itertools.product(CASES, Encoding))


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, Encoding], Outcome]:
    """What each case came to: all of them at once, as most of their time is waiting."""

    def run(key: tuple[str, Encoding]) -> Outcome:
        name, encoding = key
        case = CASES[name]
        with receiving(case.plan) as receiver:
            believed = export(exporter(encoding, receiver.url, timeout_s=case.timeout_s), [record("paid")])
            return Outcome(believed, list(receiver.received))

    with ThreadPoolExecutor(len(KEYS)) as pool:
        return dict(zip(KEYS, pool.map(run, KEYS), strict=True))


def gap_s(outcome: Outcome) -> float:
    first, second = outcome.received
    assert first.body == second.body
    return second.at_s - first.at_s


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("status", [200, 202, 204, 302, 307])
def test_any_2xx_or_3xx_is_success(status: int, encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]) -> None:
    believed, received = outcomes[f"answer {status}", encoding]
    assert believed
    assert len(received) == 1


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("status", DROPPED)
def test_most_errors_drop_the_batch_at_once(
    status: int, encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]
) -> None:
    believed, received = outcomes[f"refuse {status}", encoding]
    assert not believed
    assert len(received) == 1


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("status", RETRIED)
def test_four_errors_have_the_batch_sent_again(
    status: int, encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]
) -> None:
    outcome = outcomes[f"retry {status}", encoding]
    assert outcome.believed
    assert gap_s(outcome) >= BACKOFF_S * 0.95


@pytest.mark.parametrize("encoding", Encoding)
def test_seconds_to_wait_are_kept_to(encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]) -> None:
    outcome = outcomes["Retry-After: 2", encoding]
    assert outcome.believed
    assert gap_s(outcome) >= 2 * 0.95


@pytest.mark.parametrize("encoding", Encoding)
def test_a_date_to_wait_for_is_kept_to(encoding: Encoding) -> None:
    date = formatdate(time.time() + 3, usegmt=True)
    with receiving([Answer(status=503, headers={"Retry-After": date}), Answer()]) as receiver:
        believed = export(exporter(encoding, receiver.url), [record("paid")])
    assert believed
    assert gap_s(Outcome(believed, receiver.received)) > 1.5  # a date has no fractions; its own wait would be up to 1.2 s


@pytest.mark.parametrize("encoding", Encoding)
def test_zero_seconds_to_wait_use_up_all_six_tries_at_once(
    encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]
) -> None:
    believed, received = outcomes["Retry-After: 0", encoding]
    assert not believed
    assert len(received) == 6


@pytest.mark.parametrize("encoding", Encoding)
def test_a_wait_past_the_timeout_drops_the_batch_at_once(
    encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]
) -> None:
    believed, received = outcomes["Retry-After: 5", encoding]
    assert not believed
    assert len(received) == 1


@pytest.mark.parametrize("encoding", Encoding)
def test_a_receiver_that_stays_busy_loses_the_batch_within_the_timeout(
    encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]
) -> None:
    believed, received = outcomes["busy for ever", encoding]
    assert not believed
    assert 2 <= len(received) <= 3  # after about 1 s and 2 s more; 4 s more are past the timeout


@pytest.mark.parametrize("encoding", Encoding)
def test_a_lost_answer_has_the_very_same_body_sent_again_at_once(
    encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]
) -> None:
    outcome = outcomes["lost, then well", encoding]
    assert outcome.believed
    assert gap_s(outcome) < BACKOFF_S


@pytest.mark.parametrize("encoding", Encoding)
def test_a_receiver_that_only_hangs_up_loses_the_batch(
    encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]
) -> None:
    believed, received = outcomes["lost for ever", encoding]
    assert not believed
    assert len({request.body for request in received}) == 1
    assert len(received) > 2


@pytest.mark.parametrize("encoding", Encoding)
def test_a_receiver_that_is_down_loses_the_batch(encoding: Encoding) -> None:
    with receiving() as receiver:
        pass
    assert not export(exporter(encoding, receiver.url, timeout_s=SHORT_S), [record("paid")])
    assert receiver.received == []


@pytest.mark.parametrize("encoding", Encoding)
def test_an_answer_that_is_slower_than_the_timeout_drops_the_batch(
    encoding: Encoding, outcomes: dict[tuple[str, Encoding], Outcome]
) -> None:
    believed, received = outcomes["slow", encoding]
    assert not believed
    assert len(received) == 1


@pytest.mark.parametrize("encoding", Encoding)
def test_a_partial_success_is_not_noticed(encoding: Encoding, caplog: pytest.LogCaptureFixture) -> None:
    with receiving([rejecting(encoding)]) as receiver, caplog.at_level(logging.INFO, logger="opentelemetry"):
        assert export(exporter(encoding, receiver.url), [record("paid"), record("refused")])
    assert len(receiver.received) == 1
    assert caplog.records == []


@pytest.mark.parametrize("encoding", Encoding)
def test_a_full_queue_drops_the_oldest_records(encoding: Encoding) -> None:
    records = [record("paid", uid=f"uid-{number:02}") for number in range(100)]
    with receiving([Answer(delay_s=0.3)]) as receiver:
        sender = exporter(encoding, receiver.url)
        through_a_batch_processor(sender, records, queue=20, batch=10)
    came = [
        uid for uid in (f"uid-{number:02}" for number in range(100)) if any(uid.encode() in r.body for r in receiver.received)
    ]
    assert len(came) < len(records)
    assert came[-20:] == [f"uid-{number}" for number in range(80, 100)]


# Our log


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of these is set, requests trusts that file and not the one that it was given."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


class Target:
    """A log that is served, and a stream of it for one test."""

    def __init__(self, events_log: EventsLog, log: ServedLog, stream: str) -> None:
        self.log = log
        self.stream = stream
        self.events_log = events_log

    def exporter(self, encoding: Encoding, url: str = "", **options: Any) -> LogRecordExporter:
        return exporter_to(self.events_log, url or self.log.url, encoding, stream=self.stream, **options)

    def events(self) -> list[dict[str, Any]]:
        return self.log.events(self.stream)

    def behind(self, *plan: Answer) -> AbstractContextManager[Receiver]:
        """A receiver before the log."""
        trust = self.events_log.trust
        return receiving(plan, context=self.events_log.context, log=self.log.url, trust=trust)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EventsLog, ServedLog]]:
    events_log = EventsLog(tmp_path_factory.mktemp("otel"))
    with events_log.serving() as log:
        yield events_log, log


@pytest.fixture
def target(served: tuple[EventsLog, ServedLog]) -> Target:
    return Target(*served, f"stream-{uuid4().hex}")


def exporter_to(
    log: EventsLog, url: str, encoding: Encoding, *, stream: str, gzip: bool = False, token: str = TOKEN
) -> LogRecordExporter:
    headers = {"Authorization": f"Bearer {token}", "Translog-Stream": stream}
    return exporter(encoding, url, gzip=gzip, headers=headers, authority=str(log.authority))


def read_back(value: Any) -> Any:
    """A body as the log gives it back: JSON, where large integers are their digits, bytes base64, and what is no number a
    string."""
    match value:
        case bytes():
            return b64encode(value).decode()
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity"
        case int() if abs(value) >= 2**53:
            return str(value)
        case Mapping():
            return {key: read_back(item) for key, item in value.items()}
        case list():
            return [read_back(item) for item in value]
        case _:
            return value


def raw_record(event: dict[str, Any]) -> PB2LogRecord:
    """The record as it was received."""
    if event["fed"].get("raw_encoding") == "base64":
        return PB2LogRecord.FromString(b64decode(event["raw_data"]))
    raw = json.loads(event["raw_data"])
    for name in ("traceId", "spanId"):  # in OTLP these are hex, where protobuf's own JSON has base64
        raw[name] = b64encode(bytes.fromhex(raw[name])).decode()
    return json_format.ParseDict(raw, PB2LogRecord())


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("encoding", Encoding)
def test_every_record_is_logged_once_and_read_back(encoding: Encoding, gzip: bool, target: Target) -> None:
    records = [record(body, uid=f"uid-{number}") for number, body in enumerate(BODIES.values())]
    assert export(target.exporter(encoding, gzip=gzip), records)
    events = target.events()
    assert len(events) == len(records)
    for number, (event, sent) in enumerate(zip(events, records, strict=True)):
        assert "error" not in event["fed"], event["fed"]
        assert event["metadata"]["uid"] == f"uid-{number}"
        assert event["api"]["operation"] == "order.paid"
        assert event["actor"]["user"]["uid"] == "u-17"
        assert (event["trace"]["uid"], event["trace"]["span"]["uid"]) == (f"{TRACE_ID:032x}", f"{SPAN_ID:016x}")
        assert sent.timestamp is not None
        assert event["time"] == sent.timestamp // 1_000_000
        body = event.get("message", event["unmapped"].get("body"))
        assert (body, type(body)) == (read_back(sent.body), type(read_back(sent.body)))
        [readable] = through_the_sdk([sent])
        assert raw_record(event) == encode_logs([readable]).resource_logs[0].scope_logs[0].log_records[0]


@pytest.mark.parametrize("encoding", Encoding)
def test_a_batch_processor_sends_all_it_was_given(encoding: Encoding, target: Target) -> None:
    through_a_batch_processor(target.exporter(encoding), [record(f"{n}", uid=f"uid-{n}") for n in range(700)])
    uids = [event["metadata"]["uid"] for event in target.events()]
    assert sorted(uids) == sorted(f"uid-{n}" for n in range(700))


@pytest.mark.parametrize("encoding", Encoding)
def test_a_lost_answer_makes_no_record_with_an_id_twice(encoding: Encoding, target: Target) -> None:
    with target.behind(Answer(lost=True), PASS) as between:
        assert export(target.exporter(encoding, between.url), [record("paid", uid="uid-1"), record("sent", uid="uid-2")])
    assert len(between.received) == 2
    assert [event["metadata"]["uid"] for event in target.events()] == ["uid-1", "uid-2"]


@pytest.mark.parametrize("encoding", Encoding)
def test_a_lost_answer_makes_a_record_without_an_id_twice(encoding: Encoding, target: Target) -> None:
    """Nothing tells the two apart from two equal events: an audited program gives its records ids."""
    with target.behind(Answer(lost=True), PASS) as between:
        assert export(target.exporter(encoding, between.url), [record("paid")])
    assert len(target.events()) == 2


@pytest.mark.parametrize("encoding", Encoding)
def test_the_answer_is_of_the_kind_of_the_request_and_rejects_nothing(encoding: Encoding, target: Target) -> None:
    with target.behind(PASS) as between:
        assert export(target.exporter(encoding, between.url), [record("paid")])
    [request] = between.received
    assert request.passed_on is not None
    assert request.passed_on.status == 200
    assert request.passed_on.headers["Content-Type"] == request.headers["content-type"]
    if encoding is Encoding.JSON:
        assert json.loads(request.passed_on.body) == {}
    else:
        assert ExportLogsServiceResponse.FromString(request.passed_on.body) == ExportLogsServiceResponse()


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize(("wrong", "status", "code"), [("stream", 400, 3), ("token", 401, 16)])
def test_what_refuses_a_request_is_a_status_of_its_kind(
    wrong: str, status: int, code: int, encoding: Encoding, target: Target
) -> None:
    stream, token = ("no stream's name", TOKEN) if wrong == "stream" else (target.stream, "somebody else's")
    with target.behind(PASS) as between:
        sender = exporter_to(target.events_log, between.url, encoding, stream=stream, token=token)
        assert not export(sender, [record("paid")])
    assert target.events() == []
    [request] = between.received
    assert request.passed_on is not None
    assert request.passed_on.status == status
    assert request.passed_on.headers["Content-Type"] == request.headers["content-type"]
    if encoding is Encoding.JSON:
        assert json.loads(request.passed_on.body)["code"] == code
    else:
        assert Status.FromString(request.passed_on.body).code == code


@pytest.mark.parametrize("encoding", Encoding)
def test_a_log_that_starts_late_gets_the_batch_all_the_same(encoding: Encoding, tmp_path: Path) -> None:
    events_log = EventsLog(tmp_path)
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        sender = exporter_to(events_log, f"https://127.0.0.1:{port}", encoding, stream="shop")
        believed = pool.submit(export, sender, [record("paid", uid="uid-1")])
        with events_log.serving(port=port) as log:
            assert believed.result()
            assert [event["metadata"]["uid"] for event in log.events("shop")] == ["uid-1"]
