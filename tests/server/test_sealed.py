"""`POST /v1/streams/<stream>`: events that their sender sealed and numbered, down to those of a sender who lies."""

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Any

import pytest

from translog.core.wire import encode_base64
from translog.errors import StorageError
from translog.events.cipher import PAYLOAD, seal_record
from translog.events.entry import Numbered
from translog.events.seal import LeafTree, Sealed, event_root, hash_field, make_salts, seal, seal_texts
from translog.events.texts import Header, format_header
from translog.storage.leveldb import LevelDBStore
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import EVENTS, by, dumps, entries, entry_bytes, index_of, member, record, require_dense, send, take
from .harness import NDJSON, ORIGIN, Answer, Running, commits_blocked, publication_blocked, until

PATH = "/v1/streams/agent"
EVENT: dict[str, Any] = {"metadata": {"uid": "1"}, "time": 1, "message": "größe \U0001f332"}


def sealed(value: Any = 0, *, origin: str = ORIGIN, name: str = "local", stream: str = "agent", seed: bytes = b"") -> Sealed:
    """An event of its own for every value."""
    return seal({**EVENT, "count": value}, origin=origin, member=name, stream=stream, seed=seed or os.urandom(32))


def whole(event: Sealed, **changes: Any) -> dict[str, Any]:
    """The line of an event that the log may open."""
    texts = [text.decode() for text in event.texts]
    return {"root": encode_base64(event.root), "seed": encode_base64(event.seed), "texts": texts, **changes}


def bare(root: bytes) -> dict[str, Any]:
    return {"root": encode_base64(root)}


def opaque(root: bytes, data: bytes) -> dict[str, Any]:
    return {"root": encode_base64(root), "record": encode_base64(data)}


def body_of(first_seq: Any, lines: Sequence[Any]) -> bytes:
    return b"".join(dumps(line) + b"\n" for line in ({"first_seq": first_seq}, *lines))


async def post(log: Running, first_seq: Any, lines: Sequence[Any], path: str = PATH, **headers: str) -> Answer:
    return await log.post(path, body_of(first_seq, lines), NDJSON, **headers)


async def placed(log: Running, first_seq: int, lines: Sequence[Any]) -> list[tuple[int, int, bool]]:
    """Index, number and whether it was there, of each event of a batch that must be taken."""
    answer = (await post(log, first_seq, lines)).require_ok().json
    assert answer["count"] == len(lines)
    return [(result["index"], result["seq"], result["duplicate"]) for result in answer["results"]]


# --- taking -------------------------------------------------------------------------------------------------------------


async def test_all_three_kinds_are_logged_under_the_senders_numbers(event_log: Running) -> None:
    event = sealed()
    lines = [whole(event), bare(b"\1" * 32), opaque(b"\2" * 32, b"\2for readers only")]
    assert await placed(event_log, 0, lines) == [(1, 0, False), (2, 1, False), (3, 2, False)]
    every = await entries(event_log)
    assert [entry.root for entry in every] == [event.root, b"\1" * 32, b"\2" * 32]
    assert {(entry.stream, entry.numbered) for entry in every} == {("agent", Numbered.SENDER)}
    first, second, third = [(await event_log.get(f"{EVENTS}/{index}")).require_ok() for index in (1, 2, 3)]
    assert first.json["event"] == {**EVENT, "count": 0}
    assert (first.json["content"], first.json["entry"]["numbered"]) == ("open", "sender")
    assert (second.json["content"], second.json["event"]) == ("never given", None)
    assert (third.json["content"], third.json["event"]) == ("opaque record", None)
    assert b"for readers only" not in third.body
    (stream,) = (await event_log.get("/v1/streams")).json["streams"]
    assert (stream["numbered"], stream["count"], stream["last_index"]) == ("sender", 3, 3)


async def test_texts_are_kept_and_given_byte_for_byte(event_log: Running) -> None:
    """Also in a spelling that is not ours."""
    texts = [b'["count",1.50E+2]', b'["message","\\u00e4\\/"]', b'["time", 1]']
    header = format_header(Header(origin=ORIGIN, member="local", stream="agent", names=("count", "message", "time")))
    seed = os.urandom(32)
    made = seal_texts([header, *texts], seed=seed)
    await placed(event_log, 0, [whole(made)])
    answer = (await event_log.get(f"{EVENTS}/1")).require_ok()
    assert answer.body.endswith(b'"event":{"count":1.50E+2,"message":"\\u00e4\\/","time": 1}}')
    evidence = (await event_log.get(f"{EVENTS}/1/evidence")).require_ok().json
    assert [item["text"].encode() for item in evidence["disclosures"]] == [header, *texts]
    assert [item["salt"] for item in evidence["disclosures"]] == [encode_base64(salt) for salt in make_salts(seed, 4)]


@pytest.mark.parametrize("name", ['a"b', "a\\", 'a\\"', "\\\\", ",", '","', "\n", "", "ä"])
async def test_fields_of_any_name_come_back(event_log: Running, name: str) -> None:
    event = seal({name: {name: 1}, "b": 2}, origin=ORIGIN, member="local", stream="agent", seed=os.urandom(32))
    await placed(event_log, 0, [whole(event)])
    assert (await event_log.get(f"{EVENTS}/1")).require_ok().json["event"] == {name: {name: 1}, "b": 2}


async def test_there_is_nothing_of_what_the_log_never_got(event_log: Running) -> None:
    await placed(event_log, 0, [bare(bytes(32)), opaque(b"\2" * 32, b"\xff" * 100)])
    for index in (1, 2):
        (await event_log.get(f"{EVENTS}/{index}/evidence")).problem(404, "no-payload")
        receipt = (await event_log.get(f"/v1/receipts/{index}")).require_ok().body
        assert await event_log.verify(receipt, (await entry_bytes(event_log))[index]) == index


async def test_published_by_default_and_durable_on_request(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (await post(event_log, 0, [bare(bytes(32))])).require_ok().json
    assert answer["checkpoint"]
    with publication_blocked(monkeypatch):
        answer = (await post(event_log, 1, [bare(bytes(32))], f"{PATH}?ack=durable")).require_ok().json
        assert (answer["checkpoint"], answer["results"][0]["receipt"]) == (None, "/v1/receipts/2")


async def test_a_large_batch_of_all_kinds(event_log: Running) -> None:
    lines = [whole(sealed(n)) if n % 3 else bare(n.to_bytes(32, "big")) for n in range(500)]
    assert await placed(event_log, 0, lines) == [(n + 1, n, False) for n in range(500)]
    require_dense(await entries(event_log))


# --- what does not add up -----------------------------------------------------------------------------------------------

GOOD = sealed(seed=bytes(32))


def _header(**changes: Any) -> str:
    return json.dumps(["translog", {**json.loads(GOOD.texts[0])[1], **changes}], separators=(",", ":"))


def _retexted(*texts: str) -> dict[str, Any]:
    """A line whose root is that of these texts, whatever they are."""
    leaves = [hash_field(salt, text.encode()) for salt, text in zip(make_salts(bytes(32), len(texts)), texts, strict=True)]
    root = event_root(LeafTree(leaves).root, len(leaves))
    return {"root": encode_base64(root), "seed": encode_base64(bytes(32)), "texts": list(texts)}


TEXTS = [text.decode() for text in GOOD.texts]
LIES: dict[str, Any] = {
    "root of another": whole(GOOD, root=encode_base64(sealed(1, seed=bytes(32)).root)),
    "root of one bit less": whole(GOOD, root=encode_base64(bytes([GOOD.root[0] ^ 1]) + GOOD.root[1:])),
    "root too short": whole(GOOD, root=encode_base64(GOOD.root[1:])),
    "root not base64": whole(GOOD, root="!" * 44),
    "root in another spelling": whole(GOOD, root=encode_base64(GOOD.root).rstrip("=")),
    "root no string": whole(GOOD, root=7),
    "other seed": whole(GOOD, seed=encode_base64(b"\1" * 32)),
    "seed of 31": whole(GOOD, seed=encode_base64(bytes(31))),
    "seed of 33": whole(GOOD, seed=encode_base64(bytes(33))),
    "seed empty": whole(GOOD, seed=""),
    "seed null": whole(GOOD, seed=None),
    "texts empty": whole(GOOD, texts=[]),
    "texts no list": whole(GOOD, texts="".join(TEXTS)),
    "texts not strings": whole(GOOD, texts=[json.loads(text) for text in TEXTS]),
    "a text less": whole(GOOD, texts=TEXTS[:-1]),
    "a text more": whole(GOOD, texts=[*TEXTS, '["x",1]']),
    "texts in another order": whole(GOOD, texts=[TEXTS[0], *reversed(TEXTS[1:])]),
    "a byte of a text": whole(GOOD, texts=[*TEXTS[:-1], '["count",1]']),
    "another log": whole(sealed(origin="log.example/other")),
    "another member": whole(sealed(name="other")),
    "another stream": whole(sealed(stream="agent2")),
    "duplicate key at the top of a value": _retexted(TEXTS[0], *TEXTS[1:-1], '["count",{"a":1,"a":1}]'),
    "duplicate key deep in a value": _retexted(TEXTS[0], *TEXTS[1:-1], '["count",[{"a":[{"b":1,"b":2}]}]]'),
    "two fields of one name": _retexted(_header(names=["time", "time"]), '["time",1]', '["time",1]'),
    "names that are not the texts'": _retexted(_header(names=["a", "b"]), '["b",1]', '["a",1]'),
    "a name too many": _retexted(_header(names=["a", "b"]), '["a",1]'),
    "another version": _retexted(_header(v=2, names=[]), *[]),
    "header spelled otherwise": _retexted(_header(names=[]).replace(",", ", ", 1)),
    "header with more": _retexted(_header(names=[], more=1)),
    "no header": _retexted('["a",1]'),
    "NaN": _retexted(_header(names=["a"]), '["a",NaN]'),
    "a number beyond doubles": _retexted(_header(names=["a"]), '["a",1e400]'),
    "an integer beyond 2^53": _retexted(_header(names=["a"]), '["a",9007199254740993]'),
    "an escaped half of a pair": _retexted(_header(names=["a"]), '["a","\\ud800"]'),
    "nested deep": _retexted(_header(names=["a"]), '["a",' + "[" * 200 + "]" * 200 + "]"),
    "no pair": _retexted(_header(names=["a"]), '["a",1,2]'),
    "space behind": _retexted(_header(names=["a"]), '["a",1] '),
    "claims to be a blob": _retexted(_header(names=["a"]), '["a",{"$blob":{"salt":"","sha256":"","size":1}}]'),
    "record of version 1": opaque(bytes(32), b"\1\5local1" + bytes(60)),
    "a record that the log's own key made": opaque(
        bytes(32),
        seal_record(b"x", data_key=bytes(32), key_id=b"local/1", origin=ORIGIN, root=bytes(32), nonce=bytes(12), label=PAYLOAD),
    ),
    "record empty": opaque(bytes(32), b""),
    "record not base64": {**bare(bytes(32)), "record": "!"},
    "record and texts": {**whole(GOOD), "record": "Ag=="},
    "a seed without texts": {**bare(GOOD.root), "seed": encode_base64(GOOD.seed)},
    "texts without a seed": {**bare(GOOD.root), "texts": TEXTS},
    "another member of the line": {**bare(bytes(32)), "x": 1},
    "no member": {},
    "an array": [],
    "null": None,
    "a number": 1,
    "another first_seq": {"first_seq": 1},
    "a checkpoint that is none": {"checkpoint": 7},
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_does_not_add_up_is_refused_whole_and_the_line_is_named(event_log: Running, lie: str) -> None:
    answer = await post(event_log, 0, [bare(b"\1" * 32), LIES[lie], bare(b"\2" * 32)])
    problem = answer.problem(400, "not-sealed")
    assert problem["detail"].startswith("line 3: ")
    assert await entries(event_log) == []
    assert await placed(event_log, 0, [whole(GOOD)]) == [(1, 0, False)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"root":"' + b"A" * 43 + b'=","root":"' + b"A" * 43 + b'="}', "twice"),
        (b'{"root":"\\ud800"}', "surrogate"),
        (b'{"root":"\xff"}', "UTF-8"),
        (b'{"root":', "not JSON"),
        (b'{"root":"AA=="} {}', "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "nested"),
    ],
)
async def test_a_line_that_does_not_parse_is_refused_with_the_whole(event_log: Running, line: bytes, reason: str) -> None:
    answer = await event_log.post(PATH, b'{"first_seq":0}\n' + line + b"\n", NDJSON)
    detail = answer.problem(400, "not-sealed")["detail"]
    assert detail.startswith("line 2: ")
    assert reason in detail or "nested" in detail
    assert await entries(event_log) == []


FIRSTS = (
    *(b"", b"{}", b"[]", b"0", b'{"first_seq":0,"x":1}', b'{"first_seq":0,"first_seq":0}', b"\xef\xbb\xbf{", b"\xff\xfe{\0"),
    *(b'{"first_seq":%s}' % value for value in (b'"0"', b"-1", b"0.0", b"true", b"null", b"9007199254740992", b"1e3", b"[0]")),
)


@pytest.mark.parametrize("first", FIRSTS)
async def test_without_a_first_number_nothing_is_taken(event_log: Running, first: bytes) -> None:
    body = first + b"\n" + dumps(bare(bytes(32))) + b"\n"
    (await event_log.post(PATH, body, NDJSON)).problem(400, "not-sealed")
    assert await entries(event_log) == []


@pytest.mark.parametrize("body", [b"", b"\n\n", b" "])
async def test_an_empty_body_is_400(event_log: Running, body: bytes) -> None:
    (await event_log.post(PATH, body, NDJSON)).problem(400, "not-sealed")


async def test_a_batch_of_nothing_is_400(event_log: Running) -> None:
    (await post(event_log, 0, [])).problem(400, "no-entries")


async def test_events_per_request_are_bounded(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, entries_per_request_max=3)
    lines = [bare(bytes([n]) * 32) for n in range(5)]
    for count in (4, 5):
        (await post(log, 0, lines[:count])).problem(413, "too-many-entries")
    assert await placed(log, 0, lines[:3]) == [(1, 0, False), (2, 1, False), (3, 2, False)]


async def test_the_last_number_there_can_be(event_log: Running) -> None:
    (await post(event_log, 2**53 - 1, [bare(bytes(32))])).problem(409, "wrong-number")
    problem = (await post(event_log, 2**53 - 1, [bare(bytes(32))] * 2)).problem(400, "not-sealed")
    assert problem["detail"].startswith("line 3: ")


# --- numbers ------------------------------------------------------------------------------------------------------------


def batch(begin: int, end: int, *, history: str = "") -> list[dict[str, Any]]:
    """Events [begin, end) of a stream, the same ones each time."""
    return [whole(sealed(f"{history}{n}", seed=n.to_bytes(32, "big"))) for n in range(begin, end)]


async def test_a_batch_sent_again_is_what_was_logged(event_log: Running, serve: Serve) -> None:
    first = await placed(event_log, 0, batch(0, 20))
    assert await placed(event_log, 0, batch(0, 20)) == [(index, seq, True) for index, seq, _ in first]
    assert await placed(event_log, 7, batch(7, 9)) == [(index, seq, True) for index, seq, _ in first[7:9]]
    await event_log.server.stop()
    log = await serve(directory=event_log.directory)
    assert await placed(log, 0, batch(0, 20)) == [(index, seq, True) for index, seq, _ in first]
    assert len(await entries(log)) == 20


async def test_a_batch_that_is_known_in_part_goes_on_from_there(event_log: Running) -> None:
    first = await placed(event_log, 0, batch(0, 5))
    await index_of(event_log, record("between"))
    again = await placed(event_log, 2, batch(2, 9))
    assert again == [(index, seq, True) for index, seq, _ in first[2:]] + [(n + 2, n, False) for n in range(5, 9)]


async def test_the_same_root_sent_otherwise_is_a_duplicate(event_log: Running) -> None:
    """The number and the root decide; the payload of the first is kept."""
    event = sealed()
    first = await placed(event_log, 0, [whole(event)])
    for line in (bare(event.root), opaque(event.root, b"\2x")):
        assert await placed(event_log, 0, [line]) == [(first[0][0], 0, True)]
    assert (await event_log.get(f"{EVENTS}/1")).require_ok().json["content"] == "open"


async def test_a_number_that_is_another_event_is_a_fork_and_nothing_is_logged(event_log: Running) -> None:
    await placed(event_log, 0, batch(0, 5))
    for begin, end in ((0, 5), (4, 5), (4, 9), (0, 1)):
        (await post(event_log, begin, batch(begin, end, history="other"))).problem(409, "stream-forked")
    forked_late = [*batch(2, 4), *batch(4, 5, history="other"), *batch(5, 9)]
    (await post(event_log, 2, forked_late)).problem(409, "stream-forked")
    assert len(await entries(event_log)) == 5


@pytest.mark.parametrize("first_seq", [1, 2, 1_000, 2**53 - 1])
async def test_a_number_that_is_too_high_is_refused_with_the_one_expected(event_log: Running, first_seq: int) -> None:
    problem = (await post(event_log, first_seq, batch(0, 1))).problem(409, "wrong-number")
    assert "expects number 0, not" in problem["detail"]
    await placed(event_log, 0, batch(0, 1))
    if first_seq > 1:
        problem = (await post(event_log, first_seq, batch(0, 1))).problem(409, "wrong-number")
        assert "expects number 1, not" in problem["detail"]
    assert len(await entries(event_log)) == 1


async def test_numbers_are_of_the_stream_and_member(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, members=(member("acme"), member("other")))
    for name in ("acme", "other"):
        for stream in ("agent", "agent2"):
            line = whole(sealed(name=name, stream=stream))
            answer = await post(log, 0, [line], f"/v1/streams/{stream}", **by(name))
            assert answer.require_ok().json["results"][0]["seq"] == 0
    (await post(log, 0, [whole(sealed(name="acme"))], "/v1/streams/agent", **by("other"))).problem(400, "not-sealed")
    assert len(await entries(log)) == 4


async def test_two_senders_at_once_with_the_same_events_are_one(event_log: Running) -> None:
    answers = await asyncio.gather(*(placed(event_log, 0, batch(0, 30)) for _ in range(8)))
    assert len({tuple((index, seq) for index, seq, _ in answer) for answer in answers}) == 1
    assert sorted(sum(duplicate for _, _, duplicate in answer) for answer in answers) == [0] + [30] * 7
    assert len(await entries(event_log)) == 30


async def test_of_two_senders_at_once_with_two_histories_one_is_told_of_the_fork(event_log: Running) -> None:
    answers = await asyncio.gather(*(post(event_log, 0, batch(0, 10, history=history)) for history in "ab" * 4))
    taken = [answer.status for answer in answers]
    assert sorted(taken) == [200] * 4 + [409] * 4
    assert len(set(taken[::2])) == len(set(taken[1::2])) == 1
    assert len(await entries(event_log)) == 10


async def test_senders_that_go_on_from_each_other(event_log: Running) -> None:
    """Batches that overlap, in any order: a gap is refused, and sent again."""
    pending = [(begin, min(begin + 7, 40)) for begin in range(0, 40, 5)]
    while pending:
        answers = await asyncio.gather(*(post(event_log, begin, batch(begin, end)) for begin, end in reversed(pending)))
        for answer in answers:
            assert answer.status == 200 or answer.problem(409, "wrong-number")
        pending = [item for item, answer in zip(reversed(pending), answers, strict=True) if answer.status != 200]
    every = await entries(event_log)
    assert len(every) == 40
    require_dense(every)


async def test_a_stream_is_numbered_one_way_for_life(event_log: Running) -> None:
    async def to_stream(stream: str) -> Answer:
        return await send(event_log, record(), **{"Translog-Stream": stream})

    (await to_stream("first")).require_ok()
    (await post(event_log, 0, [bare(bytes(32))], "/v1/streams/first")).problem(409, "numbered-otherwise")
    (await post(event_log, 1, [bare(bytes(32))], "/v1/streams/first")).problem(409, "numbered-otherwise")
    (await post(event_log, 0, [bare(bytes(32))], "/v1/streams/second")).require_ok()
    (await to_stream("second")).problem(409, "numbered-otherwise")
    streams = (await event_log.get("/v1/streams")).json["streams"]
    assert [(item["stream"], item["numbered"], item["count"]) for item in streams] == [
        ("first", "log", 1),
        ("second", "sender", 1),
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/sources/ocsf/agent", b'{"class_uid":6003}'),
        ("/v1/logs", b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}'),
        ("/services/collector", b'{"event":"x"}'),
    ],
)
async def test_who_pushes_into_a_senders_stream_is_told_without_a_409(event_log: Running, path: str, body: bytes) -> None:
    (await post(event_log, 0, [bare(bytes(32))])).require_ok()
    answer = await event_log.post(path, body, "application/json", **{"Translog-Stream": "agent"})
    assert answer.status == 403
    assert b"numbered by its sender" in answer.body
    assert len(await entries(event_log)) == 1


async def test_two_ways_of_numbering_in_one_commit(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first in the commit decides, before anything of the stream is stored."""
    with commits_blocked(monkeypatch):
        blocking = asyncio.create_task(take(event_log, record()))
        pool = event_log.server.service._pool
        await until(lambda: event_log.server.service._in_flight == 1 and pool.entries == 0)
        one = asyncio.create_task(post(event_log, 0, [bare(bytes(32))]))
        await until(lambda: pool.entries == 1)
        two = asyncio.create_task(send(event_log, record(), **{"Translog-Stream": "agent"}))
        await until(lambda: pool.entries == 2)
    await blocking
    (await one).require_ok()
    (await two).problem(409, "numbered-otherwise")
    assert len(await entries(event_log)) == 2


# --- who and how --------------------------------------------------------------------------------------------------------


async def test_it_takes_the_right_to_append(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, members=(member("acme", may_append=False), member("other", streams=("agent",))))
    (await post(log, 0, [bare(bytes(32))], **by("acme"))).problem(403, "permission-denied")
    (await post(log, 0, [bare(bytes(32))])).problem(401)
    (await post(log, 0, [bare(bytes(32))], "/v1/streams/other", **by("other"))).problem(403, "stream-not-allowed")
    (await post(log, 0, [bare(bytes(32))], **by("other"))).require_ok()


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
async def test_the_content_type_does_not_matter(event_log: Running, content_type: str) -> None:
    (await event_log.post(PATH, body_of(0, [bare(bytes(32))]), content_type)).require_ok()


async def test_an_unknown_outcome_is_found_out_by_sending_again(event_log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = LevelDBStore.commit

    def commit_and_fail(store: LevelDBStore, update: Any) -> None:
        commit(store, update)
        raise StorageError("nobody knows")

    with monkeypatch.context() as patch:
        patch.setattr(LevelDBStore, "commit", commit_and_fail)
        (await post(event_log, 0, batch(0, 3))).problem(503, "outcome-unknown")
    while (answer := await post(event_log, 0, batch(0, 4))).status != 200:
        answer.problem(503)
    assert [result["duplicate"] for result in answer.json["results"]] == [True] * 3 + [False]
    assert len(await entries(event_log)) == 4
