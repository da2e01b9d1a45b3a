"""`translog doctor`: configurations to paste without a secret in them, and a test event followed to its proof."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from aiohttp import web
from client.event_stub import EventStub
from client.simulator import ED25519, ORIGIN, STRANGER

from cli.harness import Result, Served, require_plain, run, serving
from translog.cli.senders import EVENTS_SOURCES, SENDERS, body_of, configure
from translog.events.normalize import normalize
from translog.events.sources.table import SOURCES

URL = "https://log.example:8443"
INDEXED = sorted(name for name, sender in SENDERS.items() if sender.answers_index)
OTHERS = sorted(set(SENDERS) - set(INDEXED))


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("doctor") / "log"
    assert run("init", directory, "--origin", "log.example/doctor").code == 0
    with serving(directory) as served:
        yield served


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The stub's."""
    path = tmp_path / "stub-policy"
    path.write_text(f"log {ED25519.vkey}\nquorum none\n")
    return path


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> EventStub:
    monkeypatch.setattr("translog.client.submit._PUBLISH_POLL_S", 0)
    return EventStub()


def doctor(url: str, source: str, *arguments: object) -> Result:
    return run("doctor", "--source", source, "--log", url, *arguments)


def report(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.out)
    document["steps"] = {step.pop("step"): step for step in document["steps"]}
    return document


# A real log


@pytest.mark.parametrize("source", sorted(SENDERS))
def test_a_test_event_of_every_source_is_followed_to_its_evidence(log: Served, source: str) -> None:
    first, second = (report(doctor(log.url, source, "--json")) for _ in range(2))
    steps = second["steps"]
    expected = ["reachable", "accepted", *(["found"] if source in OTHERS else []), "published", "receipt", "evidence"]
    assert (second["ok"], list(steps)) == (True, expected)
    index = steps["accepted" if source in INDEXED else "found"]["index"]
    assert index > first["steps"]["accepted" if source in INDEXED else "found"]["index"]
    assert steps["published"]["size"] > index
    assert steps["receipt"]["detail"] == "it verifies under the log's own keys"
    assert steps["evidence"]["stream"] == ("local/default" if SENDERS[source].stream_header else f"local/{source}")


def test_people_read_the_configuration_and_each_step(log: Served, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    assert run("policy", "--log", log.url, "-o", policy).code == 0
    result = doctor(log.url, "kubernetes", "--stream", "k8s-prod", "--policy", policy)
    assert (result.code, result.err) == (0, "")
    configuration, _, steps = result.out.partition("\nok  ")
    assert f"server: {log.url}/v1/sources/kubernetes/k8s-prod" in configuration
    told = [line.partition(":")[0] for line in ("ok  " + steps).splitlines()]
    assert told == [f"ok  {step}" for step in ("reachable", "accepted", "published", "receipt", "evidence")]
    assert "in local/k8s-prod, number 0" in steps
    assert "under the policy given" in steps


def test_a_stream_in_the_header_is_sent_where_the_path_has_none(log: Served) -> None:
    for source in ("short", "otlp", "splunk-hec"):
        steps = report(doctor(log.url, source, "--stream", f"to-{source}", "--json"))["steps"]
        assert steps["evidence"]["stream"] == f"local/to-{source}"


# Without sending


def test_no_send_only_prints_and_reaches_for_nothing(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("very-secret\n")
    for source in SENDERS:
        for options in ((), ("--json",)):
            result = doctor(URL, source, "--stream", "my-stream", "--token-file", token, "--no-send", *options)
            assert (result.code, result.err) == (0, "")
            assert "very-secret" not in result.out
            assert str(token) in result.out
            assert not re.search(r"@[A-Z_]+@", result.out)
    assert doctor(URL, "unheard-of", "--no-send").code == 2
    assert doctor(URL, "short", "--stream", "a/b", "--no-send").code == 2


def configuration(source: str, url: str = URL) -> str:
    return configure(SENDERS[source], url=url, stream="s-1", token_file="/etc/t")


def test_the_kubernetes_configuration_is_yaml_of_the_kinds_it_says() -> None:
    policy, kubeconfig, flags = yaml.safe_load_all(configuration("kubernetes"))
    assert (policy["kind"], policy["apiVersion"]) == ("Policy", "audit.k8s.io/v1")
    assert {rule["level"] for rule in policy["rules"]} == {"None", "Metadata", "Request"}
    assert kubeconfig["kind"] == "Config"
    assert kubeconfig["clusters"][0]["cluster"] == {"server": f"{URL}/v1/sources/kubernetes/s-1"}
    assert kubeconfig["users"][0]["user"] == {"tokenFile": "/etc/t"}
    (context,) = kubeconfig["contexts"]
    named = (kubeconfig["current-context"], context["context"]["cluster"], context["context"]["user"])
    assert named == (context["name"], kubeconfig["clusters"][0]["name"], kubeconfig["users"][0]["name"])
    assert flags is None
    bodies = [rule for rule in policy["rules"] if "secrets" in str(rule.get("resources"))]
    assert [rule["level"] for rule in bodies] == ["Metadata"]
    assert policy["rules"].index(bodies[0]) < [rule["level"] for rule in policy["rules"]].index("Request")


def test_the_collectors_configuration_is_yaml_that_names_what_it_uses() -> None:
    environment, collector = configuration("otlp").split("---\n")
    document = yaml.safe_load(collector)
    (name, exporter) = next(iter(document["exporters"].items()))
    assert exporter["logs_endpoint"] == f"{URL}/v1/logs"
    assert document["service"]["pipelines"]["logs/audit"]["exporters"] == [name]
    assert set(document["service"]["extensions"]) == set(document["extensions"])
    assert {exporter["auth"]["authenticator"], exporter["sending_queue"]["storage"]} == set(document["extensions"])
    assert f"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT={URL}/v1/logs\n" in environment


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, ("log.example", "8443", "On")),
        ("http://127.0.0.1:80/", ("127.0.0.1", "80", "Off")),
        ("https://log.example", ("log.example", "443", "On")),
    ],
)
def test_hosts_and_ports_are_those_of_the_url(url: str, expected: tuple[str, str, str]) -> None:
    text = configuration("splunk-hec", url)
    found = tuple(re.search(rf"^ +{name} +(\S+)$", text, re.MULTILINE)[1] for name in ("Host", "Port", "TLS"))  # type: ignore[index]
    assert found == expected
    assert "//services" not in text
    assert f"URL    {url.rstrip('/')}/services/collector/event" in text


@pytest.mark.parametrize("source", ["cloudevents", "cloudtrail"])
def test_what_is_for_a_shell_is_shell(source: str) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    script = configuration(source).split("---\n")[0]
    done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_for_python_is_python() -> None:
    code = configuration("short").partition("# Python")[2].partition("\n")[2]
    compile(code, "snippet", "exec")
    for name in re.findall(r"^from (translog\S+) import (\w+)", code, re.MULTILINE):
        assert hasattr(__import__(name[0], fromlist=["x"]), name[1])


def test_a_crontab_line_escapes_percent_signs() -> None:
    lines = [line for line in configuration("cloudtrail").splitlines() if re.match(r"[0-9*]", line)]
    assert len(lines) == 2
    assert all(re.search(r"(?<!\\)%", line) is None for line in lines)


@pytest.mark.parametrize("source", sorted(SENDERS))
def test_test_events_are_understood_and_no_two_are_alike(source: str) -> None:
    sender = SENDERS[source]
    known = SOURCES["events" if source in EVENTS_SOURCES else {"splunk-hec": "collector"}.get(source, source)]
    bodies = [body_of(sender, uid, datetime.now(UTC)) for uid in ("uid-1", "uid-2")]
    assert b"uid-1" in bodies[0]
    assert bodies[0] != bodies[1]
    (record,) = known.split(bodies[0], {"content-type": sender.media}, 10)
    normalized = normalize(known, record)
    assert normalized.error == ""
    assert (normalized.uid is None) is (source == "splunk-hec")


# What goes wrong


def test_a_log_that_is_not_there_is_said_after_the_configuration() -> None:
    result = doctor("http://127.0.0.1:1", "short")
    assert require_plain(result, 3)[0].startswith("translog: reachable: cannot reach http://127.0.0.1:1")
    assert "http://127.0.0.1:1/v1/events" in result.out


def test_credentials_that_do_not_do_are_said_with_what_to_do(stub: EventStub) -> None:
    with stub.serving_aside() as url:
        stub.status = 401
        result = doctor(url, "kubernetes", "--json")
    document = json.loads(result.out)
    assert (result.code, document["ok"], document["failed"]) == (3, False, "accepted")
    assert [step["step"] for step in document["steps"]] == ["reachable"]
    assert document["hint"].startswith("give --token-file FILE")
    assert len(stub.requests) == 1


def test_a_token_is_sent(stub: EventStub, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("very-secret\n")
    with stub.serving_aside() as url:
        result = doctor(url, "kubernetes", "--token-file", token)
    assert stub.requests[0].headers["Authorization"] == "Bearer very-secret"
    assert "very-secret" not in result.out + result.err


def test_events_that_may_not_be_read_back_are_not_called_checked(stub: EventStub) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403)

    stub.routes["/v1/events/{index}/evidence"] = refuse
    stub.unpublished = 3
    with stub.serving_aside() as url:
        document = report(doctor(url, "kubernetes", "--json"))
    assert document["steps"]["evidence"]["checked"] is False
    assert document["steps"]["reachable"]["detail"].startswith(ORIGIN)


def test_a_receipt_under_other_keys_than_the_policys_is_refused(stub: EventStub, tmp_path: Path) -> None:
    foreign = tmp_path / "policy"
    foreign.write_text(f"log {STRANGER.vkey}\nquorum none\n")
    with stub.serving_aside() as url:
        assert require_plain(doctor(url, "kubernetes", "--policy", foreign), 1)[0].startswith("translog: published: ")


def test_evidence_that_is_none_is_refused(stub: EventStub, policy: Path) -> None:
    async def lie(request: web.Request) -> web.StreamResponse:
        return web.json_response({"translog": "evidence/1"})

    stub.routes["/v1/events/{index}/evidence"] = lie
    with stub.serving_aside() as url:
        assert require_plain(doctor(url, "kubernetes", "--policy", policy), 1)[0].startswith("translog: evidence: not evidence")


def test_evidence_of_another_event_is_refused(log: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy"
    assert run("policy", "--log", log.url, "-o", policy).code == 0
    monkeypatch.setattr("translog.cli.doctor.body_of", lambda sender, uid, now: body_of(sender, "another", now))
    said = require_plain(doctor(log.url, "github", "--policy", policy), 1)[0]
    assert re.fullmatch(r"translog: evidence: entry \d+ is not the test event", said)


def test_a_record_that_was_not_understood_is_said_by_the_evidence_where_the_sender_is_told_nothing(
    log: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy"
    assert run("policy", "--log", log.url, "-o", policy).code == 0

    def odd(sender: object, uid: str, now: datetime) -> bytes:
        return json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [uid]}]}]}).encode()

    monkeypatch.setattr("translog.cli.doctor.body_of", odd)
    result = doctor(log.url, "otlp", "--policy", policy, "--json")
    assert (result.code, json.loads(result.out)["code"]) == (1, "base-event"), result.err


def test_an_answer_that_is_no_evidence_is_an_error_unless_it_is_a_matter_of_rights(stub: EventStub, policy: Path) -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        return web.Response(status=410)

    stub.routes["/v1/events/{index}/evidence"] = gone
    with stub.serving_aside() as url:
        assert "answers 410" in require_plain(doctor(url, "kubernetes", "--policy", policy), 3)[0]


def test_the_test_event_is_found_among_others(stub: EventStub) -> None:
    async def take(request: web.Request) -> web.StreamResponse:
        for data in (b"another", await request.read(), b"a third"):
            stub.stored.append((None, data))
            stub.streams.append("s")
        return web.json_response({})

    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403)

    stub.routes |= {"/v1/logs": take, "/v1/events/{index}/evidence": refuse}
    with stub.serving_aside() as url:
        steps = report(doctor(url, "otlp", "--json"))["steps"]
    assert (steps["found"]["index"], steps["published"]["size"]) == (1, 3)


@pytest.mark.parametrize(
    "change", [{"error": "odd"}, {"index": None, "error": "no"}, {"index": "0"}, {"index": -1}, {"index": True}]
)
def test_an_event_that_is_not_understood_is_said(stub: EventStub, policy: Path, change: dict[str, Any]) -> None:
    stub.result = lambda result, record: result | change
    with stub.serving_aside() as url:
        said = require_plain(doctor(url, "kubernetes", "--policy", policy), 1 if change == {"error": "odd"} else 3)[0]
    assert said.startswith("translog: accepted: ")
    assert ("entry 0, but the log did not understand it: odd" in said) is (change == {"error": "odd"})


def test_a_record_that_nobody_may_find_again_is_said(stub: EventStub, policy: Path) -> None:
    async def take(request: web.Request) -> web.StreamResponse:
        stub.stored.append((None, await request.read()))
        stub.streams.append("s")
        return web.json_response({})

    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403)

    stub.routes |= {"/v1/logs": take, "/v1/events/{index}": refuse}
    with stub.serving_aside() as url:
        said = require_plain(doctor(url, "otlp", "--policy", policy), 3)
    assert said[0].startswith("translog: found: the record was accepted, but none of the 1 entries since is it")
