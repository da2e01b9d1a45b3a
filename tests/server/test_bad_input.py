"""Bad input of every kind to the doors for audit events: a clear outcome for each, nothing lost, and the log goes on.

Rules: what can be told apart as records is logged byte for byte, whatever it says; what cannot is refused whole, with its
reason. After each, a good event is taken as if nothing had been.
"""

import asyncio
import gzip
import json
import random
import string
from base64 import b64decode
from io import BytesIO
from typing import Any

import pytest

from translog.events.normalize import UID_CHARS_MAX
from translog.events.sources.table import SOURCES
from translog.log.lifecycle import Mode
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import EVENTS, JSON, NDJSON, PACK, dumps, entries, event, index_of, raw_data, record, require_dense, send, take
from .harness import Running, request_bytes

DEEP = 10_000


async def require_going_on(log: Running) -> None:
    """The log takes a good event, and what it has is numbered without a hole."""
    assert log.server.service.mode is Mode.OPEN
    (result,) = await take(log, record())
    assert result["error"] is None
    assert (await event(log, result["index"]))["actor"]["user"]["name"] == "alice"
    require_dense(await entries(log))


# --- records that say something odd -------------------------------------------------------------------------------------

NOT_PARSED = {
    "a name twice": b'{"actor":"a","action":"b","actor":"c"}',
    "a name twice deep down": b'{"actor":"a","context":[{"x":{"y":1,"y":1}}]}',
    "a name twice by escapes": b'{"actor":"a","\\u0061ctor":"b"}',
    "NaN": b'{"actor":"a","context":NaN}',
    "Infinity": b'{"actor":"a","context":[-Infinity]}',
    "half of a pair": b'{"actor":"\\ud800"}',
    "the other half": b'{"actor":"a","x":{"\\udc00":1}}',
    "pairs the wrong way round": b'{"actor":"\\udc00\\ud800"}',
    "nested deep": b'{"actor":"a","x":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "nested in objects": b'{"actor":"a","x":' + b'{"x":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "a control character": b'{"actor":"a\x00b"}',
    "a newline in a string": b'{"actor":"a\x07"}',
    "an unknown escape": b'{"actor":"\\x41"}',
    "a leading zero": b'{"actor":"a","x":01}',
    "a plus": b'{"actor":"a","x":+1}',
    "hex": b'{"actor":"a","x":0x10}',
    "no digit": b'{"actor":"a","x":1.}',
    "True": b'{"actor":True}',
    "a comment": b'{"actor":"a"/**/}',
    "single quotes": b"{'actor':'a'}",
    "a comma too many": b'{"actor":"a",}',
    "a colon missing": b'{"actor" "a"}',
    "latin-1": '{"actor":"Müller"}'.encode("latin-1"),
    "UTF-8 that is too long": b'{"actor":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"actor":"\xed\xa0\x80"}',
    "beyond Unicode": b'{"actor":"\xf5\x80\x80\x80"}',
}
"""Records that no strict reader takes. Each is one line without a newline."""


@pytest.mark.parametrize("name", NOT_PARSED)
@pytest.mark.parametrize("around", ["alone", "array", "lines"])
async def test_a_record_that_does_not_parse_is_kept_byte_for_byte(event_log: Running, name: str, around: str) -> None:
    """And takes nobody with it."""
    bad, good = NOT_PARSED[name], dumps(record("good"))
    body = {"alone": bad, "array": b"[%s,%s,%s]" % (good, bad, good), "lines": b"%s\n%s\n%s" % (good, bad, good)}[around]
    answer = await event_log.post(EVENTS, body, NDJSON if around == "lines" else JSON)
    results = answer.require_ok().json["results"]
    assert [bool(result["error"]) for result in results] == ([True] if around == "alone" else [False, True, False])
    index = results[len(results) // 2]["index"]
    found = await event(event_log, index)
    assert found["class_uid"] == 0
    assert found["fed"]["error"] == results[len(results) // 2]["error"]
    is_binary = found["fed"].get("raw_encoding") == "base64"
    assert (b64decode(found["raw_data"]) if is_binary else found["raw_data"].encode()) == bad
    assert found["raw_data_size"] == len(bad)
    assert "actor" not in found
    if around != "alone":
        assert results[2]["duplicate"]
    await require_going_on(event_log)


NUMBERS = {
    b"9007199254740991": 2**53 - 1,
    b"9007199254740992": "9007199254740992",
    b"-9007199254740993": "-9007199254740993",
    b"18446744073709551616": "18446744073709551616",
    b"1" * 5_000: "1" * 5_000,
    b"1e400": "1e400",
    b"-1e400": "-1e400",
    b"1e-400": "1e-400",
    b"0e400": 0.0,
    b"1.5": 1.5,
    b"1E5": 100000.0,
    b"0.1000000000000000055511151231257827": 0.1,
}


@pytest.mark.parametrize("digits", NUMBERS, ids=lambda digits: digits[:24].decode())
async def test_numbers_that_readers_would_round_are_kept_as_their_digits(event_log: Running, digits: bytes) -> None:
    body = b'{"actor":"a","action":"b","context":{"n":' + digits + b"}}"
    (result,) = (await event_log.post(EVENTS, body, JSON)).require_ok().json["results"]
    assert result["error"] is None
    found = await event(event_log, result["index"])
    assert found["unmapped"]["context"] == {"n": NUMBERS[digits]}
    assert type(found["unmapped"]["context"]["n"]) is type(NUMBERS[digits])
    assert found["raw_data"].encode() == body


@pytest.mark.parametrize("value", ["\x7f", "\u2028\u2029", "\ufeff", "\uffff", "\U0010ffff", "\u0000", "e\u0301", "\u202e"])
async def test_characters_of_any_kind_come_back(event_log: Running, value: str) -> None:
    sent = record("a", reason=f"<{value}>", context={value: value})
    found = await event(event_log, await index_of(event_log, sent))
    assert found["fed"]["why"]["reason"] == f"<{value}>"
    assert found["unmapped"]["context"] == {value: value}


TIMES = {
    "1601-01-01T00:00:00Z": -11644473600000,
    "9999-12-31T23:59:59.999Z": 253402300799999,
    "0001-01-01T00:00:00Z": -62135596800000,
    "1970-01-01T00:00:00Z": 0,
    "2026-01-02T03:04:05.123456789+05:30": 1767303245123,
    -1: -1,
    0: 0,
    2**53 - 1: 2**53 - 1,
}


@pytest.mark.parametrize("time", TIMES)
async def test_times_of_all_years(event_log: Running, time: str | int) -> None:
    found = await event(event_log, await index_of(event_log, record("a", time=time)))
    assert found["time"] == TIMES[time]
    ocsf = {"class_uid": 6003, "time": TIMES[time]}
    assert (await event(event_log, await index_of(event_log, ocsf)))["time"] == TIMES[time]
    await require_going_on(event_log)


NO_TIMES: tuple[Any, ...] = (
    *("10000-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "yesterday", "", "2026-13-01T00:00:00Z"),
    *(None, True, 1.5, [], {}, "2026-01-01T25:00:00Z", "2026-01-01T00:00:00+99:99", "٢٠٢٦-01-01T00:00:00Z", 10**30),
)


@pytest.mark.parametrize("time", NO_TIMES, ids=repr)
async def test_a_time_that_is_none_is_kept_aside_and_missing(event_log: Running, time: Any) -> None:
    found = await event(event_log, await index_of(event_log, record("a", time=time)))
    assert "time" not in found
    assert "time" in found["fed"]["missing"]
    if time is not None:
        assert found["unmapped"]["time"] == (time if type(time) is not int else str(time))


IDS: tuple[Any, ...] = (None, "", [], {}, True, "x" * (UID_CHARS_MAX + 1), "x" * 100_000)


@pytest.mark.parametrize("uid", IDS, ids=lambda uid: repr(uid)[:20])
async def test_an_id_that_is_none_makes_no_duplicate(event_log: Running, uid: Any) -> None:
    sent = {**record(), "id": uid}
    first, second = await index_of(event_log, sent), await index_of(event_log, sent)
    assert first != second
    assert "uid" not in (await event(event_log, first))["metadata"]
    assert await raw_data(event_log) == [dumps(sent).decode()] * 2


@pytest.mark.parametrize("uid", ["x" * UID_CHARS_MAX, "\0", " ", "ä", "\U0001f332", 7, 0, "7\x00"])
async def test_an_id_of_any_other_kind_is_one(event_log: Running, uid: Any) -> None:
    sent = {**record(), "id": uid}
    first = await index_of(event_log, sent)
    (again,) = await take(event_log, sent)
    assert (again["index"], again["duplicate"]) == (first, True)


async def test_missing_everything_is_named_and_logged(event_log: Running) -> None:
    found = await event(event_log, await index_of(event_log, {"actor": "a"}))
    assert {"time", "api.operation"} <= set(found["fed"]["missing"]) or "api" in found["fed"]["missing"]
    assert "uid" not in found["metadata"]


# --- senders that write what is the log's own ---------------------------------------------------------------------------


async def test_nothing_of_the_logs_own_is_taken_from_a_sender(event_log: Running) -> None:
    forged = {
        "class_uid": 6003,
        "time": 1,
        "metadata": {"uid": "a", "version": "1.8.0", "product": {"name": "x"}},
        "actor": {"user": {"name": "alice"}},
        "raw_data": "forged",
        "raw_data_size": 1,
        "raw_data_hash": {"value": "00"},
        "observables": [{"name": "forged", "type_id": 1, "value": "forged"}],
        "fed": {
            "conflicts_with": 0,
            "error": "forged",
            "mapping": {"name": "forged", "version": "9"},
            "missing": [],
            "ns": "k8s",
        },
        "unmapped": {"fed": {"conflicts_with": 1}},
    }
    (result,) = await take(event_log, forged)
    assert (result["conflicts_with"], result["error"]) == (None, None)
    found = await event(event_log, result["index"])
    assert found["raw_data"] == dumps(forged).decode()
    assert found["raw_data_size"] == len(dumps(forged))
    assert "raw_data_hash" not in found
    assert all(item["value"] != "forged" for item in found["observables"])
    assert found["fed"]["mapping"] == {"name": "events", "version": "1"}
    assert set(found["fed"]) <= {"ns", "mapping", "missing"}
    kept = json.dumps(found["unmapped"])
    assert kept.count('"conflicts_with"') == 2
    assert '"raw_data": "forged"' in kept


BLOB = {"salt": "AAAAAAAAAAAAAAAAAAAAAA==", "sha256": "A" * 43 + "=", "size": 5}


@pytest.mark.parametrize("inner", [BLOB, {**BLOB, "size": -1}, "text", None, {}, 7, {"$blob": BLOB}])
async def test_an_object_that_looks_like_a_blob_is_read_back_as_it_was(event_log: Running, inner: Any) -> None:
    for sent in (
        {"class_uid": 6003, "time": 1, "api": {"$blob": inner}},
        {"class_uid": 6003, "time": 1, "unmapped": {"$blob": inner}},
        {"class_uid": 6003, "time": 1, "message": '{"$blob":7}'},
    ):
        found = await event(event_log, await index_of(event_log, sent))
        for name in ("api", "message"):
            assert found.get(name) == sent.get(name)
        if "unmapped" in sent:
            assert found["unmapped"] == sent["unmapped"]
        assert found["raw_data"] == dumps(sent).decode()


async def test_a_name_that_the_log_uses_inside_is_a_name_like_any_other(event_log: Running) -> None:
    sent = record("a", translog="event/1", _={"x": 1}, names=["a"], **{"$blob": 1})
    found = await event(event_log, await index_of(event_log, sent))
    assert {"translog": "event/1", "_": {"x": 1}, "names": ["a"], "$blob": 1}.items() <= found["unmapped"].items()


# --- size ---------------------------------------------------------------------------------------------------------------

HUGE = 50 * 1024 * 1024


def huge() -> bytes:
    """A record of 50 MB that hardly compresses."""
    letters = (string.ascii_letters + string.digits).encode()
    return dumps(record("huge"))[:-1] + b',"reason":"' + bytes(random.Random(1).choices(letters, k=HUGE)) + b'"}'


async def test_a_record_of_50_mb_is_413_under_default_limits(event_log: Running) -> None:
    body = b'{"actor":"' + b"a" * HUGE + b'"}'
    packed = gzip.compress(body, 1)
    for path in (EVENTS, "/v1/sources/ocsf/s", "/v1/streams/s"):
        (await event_log.post(path, BytesIO(body), JSON)).problem(413, "body-too-large")
        (await event_log.post(path, packed, JSON, Content_Encoding="gzip")).problem(413, "body-too-large")
    assert (await event_log.post("/v1/logs", BytesIO(body), JSON)).status == 413
    assert (await event_log.post("/services/collector", BytesIO(body), JSON)).status == 413
    assert await entries(event_log) == []
    await require_going_on(event_log)


async def test_a_record_of_50_mb_is_stored_and_read_back_where_limits_allow_it(serve: Serve) -> None:
    log = await serve(
        profile=Profile.EVENTS,
        body_bytes_max=2 * HUGE,
        decoded_bytes_max=2 * HUGE,
        bodies_bytes_max=4 * HUGE,
        answers_bytes_max=8 * HUGE,
        log={"pool_bytes_max": 4 * HUGE},
    )
    body = huge()
    (result,) = (await log.post(EVENTS, BytesIO(body), JSON)).require_ok().json["results"]
    (again,) = (await log.post(EVENTS, BytesIO(body), JSON)).require_ok().json["results"]
    assert (again["index"], again["duplicate"]) == (result["index"], True)
    found = await event(log, result["index"])
    assert found["raw_data"].encode() == body
    assert found["fed"]["why"]["reason"] == json.loads(body)["reason"]
    assert (await log.get(f"{EVENTS}/{result['index']}/evidence")).require_ok().json["disclosures"]
    await require_going_on(log)


@pytest.mark.parametrize("size", [1_023, 1_024, 1_025, 4_096])
async def test_fields_around_the_limit_of_a_blob(serve: Serve, size: int) -> None:
    log = await serve(profile=Profile.EVENTS, intake={"blob_bytes_min": 1_024})
    for filler in ("x", "\\", "\x01", "ä", "\U0001f332"):
        sent = record(reason=filler * size)
        found = await event(log, await index_of(log, sent))
        assert found["fed"]["why"]["reason"] == filler * size
        assert found["raw_data"] == dumps(sent).decode()


@pytest.mark.parametrize("path", [EVENTS, "/v1/sources/kubernetes/s", "/v1/streams/s", "/v1/logs", "/services/collector"])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_bomb_is_413(event_log: Running, path: str, encoding: str) -> None:
    bomb = PACK[encoding](bytes(40 * 1024 * 1024))
    assert len(bomb) < 100_000
    answer = await event_log.post(path, bomb, JSON, Content_Encoding=encoding)
    assert answer.status == 413
    assert await entries(event_log) == []
    await require_going_on(event_log)


@pytest.mark.parametrize("path", [EVENTS, "/v1/sources/kubernetes/s", "/v1/streams/s"])
@pytest.mark.parametrize(
    ("encoding", "status", "code"),
    [
        ("br", 415, "unsupported-encoding"),
        ("deflate", 415, "unsupported-encoding"),
        ("gzip, gzip", 415, "unsupported-encoding"),
        ("gzip, identity", 415, "unsupported-encoding"),
        ("", 415, "unsupported-encoding"),
        ("gzip", 400, "bad-compression"),
        ("zstd", 400, "bad-compression"),
    ],
)
async def test_what_does_not_decompress_is_refused(
    event_log: Running, path: str, encoding: str, status: int, code: str
) -> None:
    (await event_log.post(path, b'{"actor":"a"}', JSON, Content_Encoding=encoding)).problem(status, code)
    (await event_log.post(path, gzip.compress(b"{}" * 500)[:-9], JSON, Content_Encoding="gzip")).problem(400, "bad-compression")
    assert await entries(event_log) == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "GZIP", "identity"])
async def test_what_decompresses_is_taken(event_log: Running, encoding: str) -> None:
    body = dumps([record("a"), record("b")])
    packed = PACK[encoding.lower()](body) if encoding.lower() in PACK else body
    assert (await event_log.post(EVENTS, packed, JSON, Content_Encoding=encoding)).require_ok().json["count"] == 2
    assert await raw_data(event_log) == [dumps(record("a")).decode(), dumps(record("b")).decode()]


# --- bodies -------------------------------------------------------------------------------------------------------------

NO_BODIES = (
    *(b"{", b"[", b"]", b"}", b"[1,]", b"[,1]", b"[1 2]", b'{"a":1', b'"abc', b"[{]", b"[}", b",", b"{},{}", b"[1]]"),
    *("[{}]".encode("utf-16"), "[{}]".encode("utf-16-be"), "[{}]".encode("utf-32"), b'[{"a":"b}]'),
    *(b"\x1f\x8b\x08\x00,", b"PK\x03\x04,", b"[" * DEEP, b'{"x":' * DEEP, b"\xff" * 10 + b",", b'{"a":1}]', b"a=1,b=2"),
)


@pytest.mark.parametrize("body", NO_BODIES, ids=lambda body: repr(body[:16]))
async def test_a_body_whose_records_cannot_be_told_apart_is_400(event_log: Running, body: bytes) -> None:
    for path in (EVENTS, "/v1/sources/ocsf/s", "/v1/sources/cloudtrail/s"):
        (await event_log.post(path, body, JSON)).problem(400, "not-json")
    assert await entries(event_log) == []
    await require_going_on(event_log)


@pytest.mark.parametrize(
    ("body", "raws"),
    [
        (b"{}", [b"{}"]),
        (b"[]", []),
        (b"[[]]", [b"[]"]),
        (b"[{},{}]", [b"{}", b"{}"]),
        (b"null", [b"null"]),
        (b'[null,true,1,"x"]', [b"null", b"true", b"1", b'"x"']),
        (b"nonsense", [b"nonsense"]),
        (b":", [b":"]),
        (b"\x00", [b"\x00"]),
        (b"{\x00}", [b"{\x00}"]),
        (b"{a} b", [b"{a}", b"b"]),
        (b"\xef\xbb\xbf", []),
        (b'\xef\xbb\xbf[{"a":1}]', [b'{"a":1}']),
        (b'[{"a":1}]\n[{"b":1}]', [b'{"a":1}', b'{"b":1}']),
        (b'"\\ud800"', [b'"\\ud800"']),
    ],
)
async def test_a_body_of_odd_records_is_those_records(event_log: Running, body: bytes, raws: list[bytes]) -> None:
    answer = (await event_log.post(EVENTS, body, JSON)).require_ok().json
    assert answer["count"] == len(raws)
    assert all(result["error"] for result in answer["results"])
    assert await raw_data(event_log) == [raw.decode() for raw in raws]
    await require_going_on(event_log)


@pytest.mark.parametrize("source", sorted(set(SOURCES) - {"otlp", "otel-audit", "cloudevents"}))
@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"[{}]", b'{"items":[{}]}', b'{"Records":[{}]}', b"[[[]]]", b"7", b'{"items":7}']
)
async def test_no_source_is_brought_down_by_another_ones_shape(event_log: Running, source: str, body: bytes) -> None:
    answer = (await event_log.post(f"/v1/sources/{source}/s", body, JSON)).require_ok().json
    assert answer["count"] == len(await entries(event_log))
    for result in answer["results"]:
        assert (await event(event_log, result["index"]))["raw_data"].encode() in body
    await require_going_on(event_log)


async def test_a_body_that_ends_early_logs_nothing(event_log: Running) -> None:
    body = dumps([record("a"), record("b")])
    async with event_log.connection() as (_, writer):
        writer.write(request_bytes("POST", EVENTS, f"Content-Length: {len(body)}", body=body[:-5]))
        await writer.drain()
    answer = await event_log.raw(request_bytes("POST", EVENTS, f"Content-Length: {len(body) - 5}", body=body[:-5]))
    answer.problem(400, "not-json")
    assert await entries(event_log) == []
    await require_going_on(event_log)


VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        10**15,
        "",
        "x",
        "\0",
        "é" * 50,
        "2026-01-02T03:04:05Z",
        "192.0.2.1",
        "a@b.example",
        "::1",
    ),
    *(
        [],
        {},
        [1],
        ["x", 1],
        {"a": 1},
        [{}],
        [[]],
        {"name": "x"},
        {"uid": 7},
        [{"name": "x"}],
        {"": {}},
        {"a": [{"b": [None]}]},
    ),
)
NAMES: dict[str, tuple[str, ...]] = {
    "events": (
        *("id", "time", "actor", "action", "resource", "outcome", "reason", "decision", "policy", "session", "on_behalf_of"),
        *("trace_id", "span_id", "src_ip", "src_port", "severity", "message", "context", "http", "duration_ms", "product"),
    ),
    "ocsf": (
        *("class_uid", "category_uid", "activity_id", "type_uid", "severity_id", "time", "metadata", "actor", "api", "fed"),
        *("unmapped", "observables", "raw_data", "resources", "src_endpoint", "cloud", "status_id", "message", "device"),
    ),
    "kubernetes": (
        *("kind", "apiVersion", "auditID", "stage", "verb", "user", "impersonatedUser", "sourceIPs", "objectRef", "properties"),
        *("responseStatus", "requestObject", "responseObject", "annotations", "requestReceivedTimestamp", "stageTimestamp"),
    ),
    "cloudtrail": (
        *("eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress", "eventID"),
        *("errorCode", "errorMessage", "requestParameters", "responseElements", "resources", "tlsDetails", "eventType"),
        *("additionalEventData", "sharedEventID", "recipientAccountId", "readOnly", "eventCategory", "insightDetails"),
    ),
    "github": (
        *(
            "action",
            "actor",
            "actor_id",
            "actor_ip",
            "actor_location",
            "created_at",
            "@timestamp",
            "_document_id",
            "org",
            "repo",
        ),
        *("user", "operation_type", "team", "business", "token_id", "sender", "repository", "organization", "actor_is_bot"),
    ),
    "collector": ("event", "time", "host", "source", "sourcetype", "index", "fields", "channel"),
}
"""Names that each source reads."""
FIXED: dict[str, dict[str, Any]] = {
    "ocsf": {"class_uid": 6003},
    "kubernetes": {"kind": "Event", "apiVersion": "audit.k8s.io/v1"},
    "cloudtrail": {"eventVersion": "1.08", "eventName": "GetObject", "eventSource": "s3.amazonaws.com"},
    "github": {"action": "repo.create"},
    "events": {"actor": "a"},
}


@pytest.mark.parametrize("source", NAMES)
async def test_a_record_with_values_of_any_type_is_logged(event_log: Running, source: str) -> None:
    """Each name with each value, and some of all of them at random: a defect in a mapping would be a 503."""
    fixed = FIXED.get(source, {})
    chance = random.Random(4)
    records = [fixed | {name: value} for name in NAMES[source] for value in VALUES]
    records += [{name: chance.choice(VALUES) for name in NAMES[source]} | fixed for _ in range(500)]
    answer = (await event_log.post(f"/v1/sources/{source}/s", b"".join(map(dumps, records)), JSON)).require_ok().json
    assert answer["count"] == len(records)
    assert all(result["index"] is not None for result in answer["results"])
    every = await entries(event_log)
    assert len(every) == sum(not result["duplicate"] for result in answer["results"])
    require_dense(every)
    for place in chance.sample(range(len(records)), 40):
        index = answer["results"][place]["index"]
        assert (await event(event_log, index))["raw_data"] == dumps(records[place]).decode()


# --- numbers and streams ------------------------------------------------------------------------------------------------


async def test_a_mixture_of_everything_at_once(event_log: Running) -> None:
    """Good and bad from many senders: every record that can be told apart is there, once."""
    bodies = [
        *(b"[" + bad + b"," + dumps(record(str(number))) + b"]" for number, bad in enumerate(NOT_PARSED.values())),
        *NO_BODIES,
        *(dumps([record(str(number), reason="other"), record(str(number))]) for number in range(20)),
    ]
    random.Random(2).shuffle(bodies)
    answers = await asyncio.gather(
        *(event_log.post(EVENTS, body, JSON, **{"Translog-Stream": f"s{n % 2}"}) for n, body in enumerate(bodies))
    )
    taken = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} == {200, 400}
    assert sum(answer.status == 400 for answer in answers) == len(NO_BODIES)
    indexes = {result["index"] for answer in taken for result in answer.json["results"] if not result["duplicate"]}
    every = await entries(event_log)
    assert indexes == set(range(1, len(every) + 1))
    require_dense(every)
    await require_going_on(event_log)


METHODS = {
    EVENTS: {"POST"},
    f"{EVENTS}/1": {"GET", "HEAD"},
    f"{EVENTS}/1/evidence": {"GET", "HEAD"},
    "/v1/streams": {"GET", "HEAD"},
    "/v1/streams/s": {"POST"},
    "/v1/sources/kubernetes/s": {"POST"},
    "/v1/logs": {"POST"},
    "/v1/audit": {"POST"},
    "/services/collector": {"POST"},
    "/services/collector/event": {"POST"},
    "/services/collector/raw": {"POST"},
    "/services/collector/health": {"GET", "HEAD"},
}


@pytest.mark.parametrize("path", METHODS)
async def test_405_says_which_methods_there_are(event_log: Running, path: str) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - METHODS[path]:
        answer = await event_log.request(method, path)
        assert answer.status == 405
        assert set(answer.headers["Allow"].split(",")) == METHODS[path]


@pytest.mark.parametrize("path", [f"{EVENTS}/1", f"{EVENTS}/1/evidence?fields=actor", "/v1/streams?cursor=z/z", f"{EVENTS}/99"])
async def test_head_is_get_without_the_body(event_log: Running, path: str) -> None:
    await take(event_log, record("a"))
    got = await event_log.get(path)
    head = await event_log.raw(request_bytes("HEAD", path))
    assert (head.status, head.body) == (got.status, b"")
    assert head.headers["Content-Length"] == str(len(got.body))
    assert head.headers["Content-Type"] == got.headers["Content-Type"]


NO_PATHS = (
    *("/v1/sources/kubernetes", "/v1/sources/kubernetes/", "/v1/sources//s", "/v1/sources/kubernetes/a/b", "/v1/events/"),
    *("/v1/streams/", "/v1/events/1/", "/v1/events/1/evidence/x", "/services/collector/ack", "/v1/sources/kubernetes/../x"),
)


@pytest.mark.parametrize("path", NO_PATHS)
async def test_paths_that_are_none(event_log: Running, path: str) -> None:
    assert (await event_log.post(path, b"{}", JSON)).status in (404, 405)
    assert await entries(event_log) == []


async def test_a_stream_header_given_twice_is_refused(event_log: Running) -> None:
    body = dumps(record("a"))
    lines = ("Translog-Stream: one", "Translog-Stream: two", f"Content-Length: {len(body)}", "Content-Type: application/json")
    answer = await event_log.raw(request_bytes("POST", EVENTS, *lines, body=body))
    answer.problem(400, "bad-stream")
    assert await entries(event_log) == []


async def test_a_batch_with_one_bad_record_of_ten_thousand(event_log: Running) -> None:
    records = [record(str(n)) for n in range(9_999)]
    body = b"[" + b",".join([*map(dumps, records[:5_000]), b'{"actor":NaN}', *map(dumps, records[5_000:])]) + b"]"
    answer = (await event_log.post(f"{EVENTS}?ack=durable", body, JSON)).require_ok().json
    assert [place for place, result in enumerate(answer["results"]) if result["error"]] == [5_000]
    assert len(await entries(event_log)) == 10_000
    (await send(event_log, [record()] * 10_001)).problem(413, "too-many-entries")
