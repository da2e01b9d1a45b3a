"""The audit webhook of a real Kubernetes API server, k8s.io/apiserver v0.37.2, against receivers that misbehave, and our log.

What the code does with an answer is in specs/external/kubernetes-audit-webhook.md; these tests hold it to that. Its times are
constants of the server's options: the tests shorten the first delay, DELAY_S instead of ten seconds, and nothing else.
"""

import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from .events_log import TOKEN, EventsLog, ServedLog
from .k8s_sender import Report, events_in, run_k8saudit, write_kubeconfig
from .receiver import PASS, Answer, Received, free_port, receiving

DELAY_S = 0.2
FACTORS = (1.0, 1.5, 2.25, 3.375)
"""What the first delay is multiplied with before each of the four retries, and then with up to 1.2 at random."""
ATTEMPTS = len(FACTORS) + 1
TRIES_IN_AN_ATTEMPT = 11
"""One and ten more, as long as the answer has a Retry-After of seconds and 30 s have not gone."""
REQUESTS = 30
OPTIONS = ("-initial-backoff", f"{DELAY_S}s", "-requests", str(REQUESTS))
SLOW_S = 10.0
REFUSALS = (400, 401, 404, 409, 413, 429, 500, 502, 503)


class Case(NamedTuple):
    plan: Sequence[Answer]
    options: Sequence[str] = OPTIONS


class Outcome(NamedTuple):
    report: Report
    batches: list[list[Received]]

    @property
    def received(self) -> list[Received]:
        return [request for batch in self.batches for request in batch]


CASES = {
    **{f"answer {status}": Case([Answer(status=status)]) for status in (200, 202, 204)},
    "a page": Case([Answer(headers={"Content-Type": "text/html"}, body=b"<p>thank you")]),
    "half JSON": Case([Answer(headers={"Content-Type": "application/json"}, body=b'{"results":[')]),
    "results": Case([Answer(headers={"Content-Type": "application/json"}, body=b'{"results":[{"index":0}]}')]),
    **{f"refuse {status}": Case([Answer(status=status)]) for status in REFUSALS},
    "Retry-After: a date": Case([Answer(status=503, headers={"Retry-After": "Sun, 22 Nov 2026 03:20:00 GMT"})]),
    "Retry-After: 0": Case([Answer(status=503, headers={"Retry-After": "0"})]),
    "503, then well": Case([Answer(status=503, headers={"Retry-After": "1"})] * 3 + [Answer()]),
    "429, then well": Case([Answer(status=429, headers={"Retry-After": "1"})] * 3 + [Answer()]),
    "400 with Retry-After, then well": Case([Answer(status=400, headers={"Retry-After": "5"}), Answer()]),
    "lost, then well": Case([Answer(lost=True)] * 2 + [Answer()]),
    "slow": Case([Answer(delay_s=SLOW_S)]),
    "small buffer": Case([Answer()], ["-requests", "300", "-buffer", "50", "-batch", "10", "-qps", "20", "-burst", "1"]),
}


@pytest.fixture(scope="module")
def outcomes(k8saudit: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What each case came to: all of them at once, as most of their time is waiting."""
    folder = tmp_path_factory.mktemp("k8s")

    def run(number: int, case: Case) -> Outcome:
        with receiving(case.plan) as receiver:
            kubeconfig = write_kubeconfig(folder / f"kubeconfig-{number}", f"{receiver.url}/v1/sources/kubernetes/prod")
            report = run_k8saudit(k8saudit, kubeconfig, *case.options)
            return Outcome(report, receiver.batches())

    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(run, itertools.count(), CASES.values()), strict=True))


def assert_delivered_once_each(outcome: Outcome) -> None:
    """Every event came, in one of the bodies, and the sender knows it."""
    came = Counter(event for batch in outcome.batches for event in events_in(batch[0].body))
    assert came == Counter(outcome.report.events)
    assert set(came.values()) == {1}
    assert (outcome.report.failed, outcome.report.overflowed) == (0, 0)
    assert outcome.report.delivered == len(outcome.report.events) == 2 * REQUESTS


def gaps_s(batch: Sequence[Received]) -> list[float]:
    return [later.at_s - earlier.at_s for earlier, later in itertools.pairwise(batch)]


def assert_tried_and_dropped(outcome: Outcome) -> None:
    """Every batch was sent five times, with growing delays, and then given up."""
    for batch in outcome.batches:
        assert len(batch) == ATTEMPTS
        for gap_s, factor in zip(gaps_s(batch), FACTORS, strict=True):
            assert gap_s >= DELAY_S * factor * 0.95  # the clocks of two processes
    assert outcome.report.failed == len(outcome.report.events) == 2 * REQUESTS
    assert outcome.report.delivered == 0


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("answer ")] + ["a page", "half JSON", "results"])
def test_any_2xx_is_success_whatever_its_body(name: str, outcomes: dict[str, Outcome]) -> None:
    assert_delivered_once_each(outcomes[name])
    assert [len(batch) for batch in outcomes[name].batches] == [1] * len(outcomes[name].report.batches)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("refuse ")] + ["Retry-After: a date"])
def test_any_other_answer_is_tried_five_times_and_then_the_events_are_lost(name: str, outcomes: dict[str, Outcome]) -> None:
    assert_tried_and_dropped(outcomes[name])


def test_a_receiver_that_is_down_loses_events_after_five_attempts(k8saudit: Path, tmp_path: Path) -> None:
    with receiving() as receiver:
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", receiver.url)
    report = run_k8saudit(k8saudit, kubeconfig, *OPTIONS)
    assert report.failed == len(report.events) == 2 * REQUESTS
    assert min(batch.took_ms for batch in report.batches) >= sum(FACTORS) * DELAY_S * 1_000


@pytest.mark.parametrize("status", [429, 503])
def test_seconds_to_wait_are_kept_to_and_cost_no_attempt(status: int, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[f"{status}, then well"]
    assert_delivered_once_each(outcome)
    retried = [batch for batch in outcome.batches if len(batch) > 1]
    assert retried
    assert all(gap_s >= 0.95 for batch in retried for gap_s in gaps_s(batch))


def test_seconds_to_wait_mean_nothing_with_other_answers(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["400 with Retry-After, then well"]
    assert_delivered_once_each(outcome)
    [[gap_s]] = [gaps_s(batch) for batch in outcome.batches if len(batch) > 1]
    assert DELAY_S * 0.95 <= gap_s < 5


def test_zero_seconds_to_wait_bring_a_flood_of_requests(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["Retry-After: 0"]
    assert {len(batch) for batch in outcome.batches} == {ATTEMPTS * TRIES_IN_AN_ATTEMPT}
    assert outcome.report.failed == len(outcome.report.events)


def test_a_lost_answer_has_the_very_same_body_sent_again(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["lost, then well"]
    assert_delivered_once_each(outcome)
    assert sum(len(batch) - 1 for batch in outcome.batches) == 2


def test_ten_seconds_are_waited_for_and_hold_nothing_else_up(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["slow"]
    assert_delivered_once_each(outcome)
    assert [len(batch) for batch in outcome.batches] == [1] * len(outcome.report.batches)
    assert all(batch.took_ms >= SLOW_S * 1_000 for batch in outcome.report.batches)


def test_a_full_buffer_drops_events_and_counts_them(outcomes: dict[str, Outcome]) -> None:
    report, batches = outcomes["small buffer"]
    came = [event for batch in batches for event in events_in(batch[0].body)]
    assert report.overflowed > 0
    assert len(came) == len(set(came)) == len(report.events) - report.overflowed
    assert set(came) <= set(report.events)


def test_a_request_is_plain_json_with_a_query_of_the_senders_own(outcomes: dict[str, Outcome]) -> None:
    for request in outcomes["answer 200"].received:
        assert request.path == "/v1/sources/kubernetes/prod?timeout=30s"
        assert request.headers["Content-Type"] == "application/json"
        assert "Content-Encoding" not in request.headers
        assert "Authorization" not in request.headers, "the credentials of a kubeconfig are for https only"
        assert len(events_in(request.body)) <= 400


# Our log


@pytest.fixture
def events_log(tmp_path: Path) -> EventsLog:
    return EventsLog(tmp_path)


def logged(log: ServedLog) -> list[tuple[str, str]]:
    """Audit id and stage of every event in the log. Each must have been mapped."""
    found = []
    for event in log.events("prod"):
        assert not {"error", "conflicts_with"} & set(event["fed"]), event["fed"]
        record = json.loads(event["raw_data"])
        assert event["metadata"]["uid"] == f"{record['auditID']}/{record['stage']}"
        assert event["actor"]["user"]["name"] == "alice@corp.example"
        assert event["api"]["operation"] == "patch"
        found.append((record["auditID"], record["stage"]))
    return found


def assert_logged_once_each(found: list[tuple[str, str]], report: Report) -> None:
    assert (report.failed, report.overflowed) == (0, 0)
    assert Counter(found) == Counter(report.events)
    assert set(Counter(found).values()) == {1}


def test_an_api_server_logs_each_of_its_events_once(k8saudit: Path, events_log: EventsLog, tmp_path: Path) -> None:
    with events_log.serving() as log:
        webhook = f"{log.url}/v1/sources/kubernetes/prod"
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", webhook, token=TOKEN, authority=events_log.authority)
        report = run_k8saudit(k8saudit, kubeconfig, "-requests", "500")
        assert_logged_once_each(logged(log), report)
        [stream] = log.ask("/v1/streams")["streams"]
    # The first retry would come after ten seconds and more: every batch was taken, and answered, at once.
    assert max(batch.took_ms for batch in report.batches) < 10_000
    assert max(batch.events for batch in report.batches) == 400
    assert (stream["stream"], stream["count"], stream["numbered"]) == ("prod", len(report.events), "log")


def test_large_objects_are_kept_whole(k8saudit: Path, events_log: EventsLog, tmp_path: Path) -> None:
    with events_log.serving() as log:
        webhook = f"{log.url}/v1/sources/kubernetes/prod"
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", webhook, token=TOKEN, authority=events_log.authority)
        report = run_k8saudit(k8saudit, kubeconfig, "-requests", "5", "-object-bytes", "300000")
        records = [json.loads(event["raw_data"]) for event in log.events("prod")]
    assert len(records) == len(report.events)
    patches = [record["requestObject"]["data"]["key"] for record in records if record["stage"] == "ResponseComplete"]
    assert patches == ["x" * 300_000] * 5


def test_lost_answers_make_no_event_twice(k8saudit: Path, events_log: EventsLog, tmp_path: Path) -> None:
    plan = [Answer(lost=True), Answer(lost=True), PASS]
    with (
        events_log.serving() as log,
        receiving(plan, context=events_log.context, log=log.url, trust=events_log.trust) as between,
    ):
        webhook = f"{between.url}/v1/sources/kubernetes/prod"
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", webhook, token=TOKEN, authority=events_log.authority)
        report = run_k8saudit(k8saudit, kubeconfig, *OPTIONS)
        assert_logged_once_each(logged(log), report)
    assert sum(len(batch) - 1 for batch in between.batches()) == 2
    assert {request.passed_on.status for request in between.received if request.passed_on} == {200}


def test_a_log_that_starts_late_and_is_killed_once_loses_and_repeats_nothing(
    k8saudit: Path, events_log: EventsLog, tmp_path: Path
) -> None:
    port = free_port()
    webhook = f"https://127.0.0.1:{port}/v1/sources/kubernetes/prod"
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", webhook, token=TOKEN, authority=events_log.authority)
    options = ["-requests", "300", "-gap", "15ms", "-batch", "20", "-initial-backoff", "1500ms"]
    with ThreadPoolExecutor(1) as pool:
        sender = pool.submit(run_k8saudit, k8saudit, kubeconfig, *options)
        with events_log.serving(port=port, killed=True) as log:
            while not log.events("prod"):
                time.sleep(0.05)
        with events_log.serving(port=port) as log:
            report = sender.result()
            assert_logged_once_each(logged(log), report)
