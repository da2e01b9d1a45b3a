"""`/services/collector`: what Splunk-style senders send, and the answers that they know."""

import base64
import gzip
import json
from typing import Any

import pytest

from translog.errors import CorruptionError, StorageError
from translog.storage.leveldb import LevelDBStore
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import JSON, by, dumps, entries, event, member, raw_data
from .harness import Answer, Running, publication_blocked

EVENT, RAW, HEALTH = "/services/collector/event", "/services/collector/raw", "/services/collector/health"
OK = {"text": "Success", "code": 0}
TEXT = "text/plain"


def require_told(answer: Answer, status: int, code: int) -> str:
    """The text of the collector's own answer."""
    assert (answer.status, answer.headers["Content-Type"].partition(";")[0]) == (status, JSON), answer
    assert answer.headers["Cache-Control"] == "no-store"
    assert (status == 503) <= ("Retry-After" in answer.headers)
    assert (status == 401) == ("WWW-Authenticate" in answer.headers)
    told = json.loads(answer.body)
    assert set(told) == {"text", "code"}
    assert told["code"] == code
    text: str = told["text"]
    assert text
    return text


@pytest.mark.parametrize("path", ["/services/collector", EVENT, f"{EVENT}/1.0"])
async def test_events_one_behind_the_other(event_log: Running, path: str) -> None:
    sent = [
        {"time": 1700000000.5, "host": "web-1", "event": {"actor": "alice", "action": "door.open", "id": "1"}},
        {"event": "a line of text", "sourcetype": "syslog", "fields": {"k": "v"}},
    ]
    answer = await event_log.post(path, b"".join(map(dumps, sent)), JSON)
    assert answer.require_ok().json == OK
    assert await raw_data(event_log) == [dumps(item).decode() for item in sent]
    first, second = await event(event_log, 1), await event(event_log, 2)
    assert (first["actor"]["user"]["name"], first["time"]) == ("alice", 1700000000500)
    assert first["metadata"]["reporter"] == {"hostname": "web-1"}
    assert (second["class_uid"], second["message"]) == (0, "a line of text")


@pytest.mark.parametrize("path", [RAW, f"{RAW}/1.0"])
async def test_lines_of_text_are_an_event_each(event_log: Running, path: str) -> None:
    query = "?host=web-1&sourcetype=syslog&index=main&channel=00872DC6-AC83-4EDE-8AFE-8413C3825C4C"
    answer = await event_log.post(path + query, b'first\r\n\n  \nsecond \xff\n{"actor":"a","action":"b"}', TEXT)
    assert answer.require_ok().json == OK
    assert len(await entries(event_log)) == 3
    first, second, third = [await event(event_log, index) for index in (1, 2, 3)]
    assert (first["message"], first["raw_data"]) == ("first", "first")
    assert first["metadata"]["reporter"] == {"hostname": "web-1"}
    assert base64.b64decode(second["raw_data"]) == b"second \xff"
    assert third["actor"]["user"]["name"] == "a"


async def test_the_channel_may_come_as_a_header(event_log: Running) -> None:
    (await event_log.post(RAW, b"x", TEXT, **{"X-Splunk-Request-Channel": "abc"})).require_ok()
    assert (await event(event_log, 1))["metadata"]["log_source"] == "abc"


@pytest.mark.parametrize("query", ["?host=%ff%fe", "?host=%ED%A0%80", "?host=a&host=b", "?host=" + "x" * 3_000, "?index=%00"])
async def test_a_query_of_any_kind_refuses_no_line(event_log: Running, query: str) -> None:
    (await event_log.post(RAW + query, b"x", TEXT)).require_ok()
    assert (await event(event_log, 1))["raw_data"] == "x"


async def test_what_a_sender_says_about_index_and_source_grants_nothing(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, members=(member("acme", streams=("own", "second")),))
    body = dumps({"event": "x", "index": "log", "source": "admin", "host": "other", "stream": "second"})
    (await log.post(EVENT, body, JSON, **by("acme"))).require_ok()
    (await log.post(f"{RAW}?index=second&source=second&stream=second", b"x", TEXT, **by("acme"))).require_ok()
    (await log.post(EVENT, body, JSON, Translog_Stream="second", **by("acme"))).require_ok()
    assert [(entry.member, entry.stream) for entry in await entries(log)] == [("acme", "own")] * 2 + [("acme", "second")]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Splunk acme-token"},
        {"Authorization": "splunk acme-token"},
        {"Authorization": "Bearer acme-token"},
        {"Authorization": "Basic " + base64.b64encode(b"x:acme-token").decode()},
        {"X-API-Key": "acme-token"},
    ],
)
async def test_a_token_in_any_of_its_forms(serve: Serve, headers: dict[str, str]) -> None:
    log = await serve(profile=Profile.EVENTS, members=(member("acme"),))
    assert (await log.post(EVENT, b'{"event":"x"}', JSON, **headers)).require_ok().json == OK
    assert len(await entries(log)) == 1


async def test_refusals_in_the_collectors_own_words(serve: Serve) -> None:
    members = (member("acme", streams=("own",)), member("mute", may_append=False))
    log = await serve(profile=Profile.EVENTS, members=members, entries_per_request_max=2, decoded_bytes_max=100_000)
    for path, body in ((EVENT, b'{"event":"x"}'), (RAW, b"x")):

        async def post(body: bytes, path: str = path, **headers: str) -> Answer:
            return await log.post(path, body, JSON, **headers)

        require_told(await post(body), 401, 2)
        require_told(await post(body, **by("mute")), 403, 4)
        require_told(await post(body, Translog_Stream="another", **by("acme")), 403, 7)
        require_told(await post(body, Translog_Stream="no name", **by("acme")), 400, 6)
        require_told(await post((body + b"\n") * 3, **by("acme")), 413, 6)
        require_told(await post(gzip.compress(bytes(10**6)), Content_Encoding="gzip", **by("acme")), 413, 6)
        require_told(await post(body, Content_Encoding="gzip", **by("acme")), 400, 6)
        require_told(await post(body, Content_Encoding="br", **by("acme")), 415, 6)
        require_told(await post(b"", **by("acme")), 400, 5)
        require_told(await post(b" \n ", **by("acme")), 400, 5)
        require_told(await post(body, Authorization="Splunk nobody-token"), 401, 2)
        assert await entries(log) == []
    require_told(await log.post(EVENT, b'{"event":', JSON, **by("acme")), 400, 6)


@pytest.mark.parametrize("body", [b"{}", b'{"event":null}', b'{"event":""}', b"[[]]", b"7", b'"x"', b'{"event":{},"event":{}}'])
async def test_a_record_inside_a_sound_body_is_never_refused(event_log: Running, body: bytes) -> None:
    answer = await event_log.post(EVENT, body + b'{"event":"good"}', JSON)
    assert answer.require_ok().json == OK
    assert (await event(event_log, 1))["fed"]["error"]
    assert (await event(event_log, 2))["message"] == "good"


@pytest.mark.parametrize("path", [EVENT, RAW])
async def test_an_opaque_log_says_so(log_server: Running, path: str) -> None:
    assert "opaque" in require_told(await log_server.post(path, b'{"event":"x"}', JSON), 404, 6)


async def test_it_is_answered_when_durable(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with publication_blocked(monkeypatch):
        for path in (EVENT, RAW):
            assert (await event_log.post(path, b'{"event":"x"}', JSON)).require_ok().json == OK
        assert event_log.server.service.integrated.size == 3


@pytest.mark.parametrize("path", [EVENT, RAW])
async def test_trouble_of_ours_is_503_and_tells_nothing(event_log: Running, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def fail_with(error: Exception) -> Any:
        def fail(*_: Any) -> None:
            raise error

        return fail

    with monkeypatch.context() as patch:
        patch.setattr("translog.events.normalize.find_missing", fail_with(KeyError("/secret/path")))
        assert "secret" not in require_told(await event_log.post(path, b'{"event":"x"}', JSON), 503, 9)
    with monkeypatch.context() as patch:
        patch.setattr(LevelDBStore, "commit", fail_with(StorageError("no space left on /secret/path")))
        assert "secret" not in require_told(await event_log.post(path, b'{"event":"x"}', JSON), 503, 9)
    while (answer := await event_log.post(path, b'{"event":"x"}', JSON)).status != 200:
        require_told(answer, 503, 9)
    assert len(await entries(event_log)) == 1


@pytest.mark.parametrize("path", [HEALTH, f"{HEALTH}/1.0"])
async def test_health_is_whether_events_are_taken(serve: Serve, path: str) -> None:
    log = await serve(profile=Profile.EVENTS, members=(member("acme"),))
    assert (await log.get(path)).require_ok().json == {"text": "HEC is healthy", "code": 17}
    log.server.service._hold(CorruptionError("a test says so"))
    assert json.loads((await log.get(path)).body)["code"] == 9
    assert (await log.get(path)).status == 503


async def test_resends_of_what_has_no_id_are_logged_again_and_of_others_once(event_log: Running) -> None:
    for _ in range(2):
        (await event_log.post(EVENT, b'{"event":"x"}{"event":{"actor":"a","action":"b","id":"1"}}', JSON)).require_ok()
    assert len(await entries(event_log)) == 3
