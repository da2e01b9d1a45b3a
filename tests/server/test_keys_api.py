"""The log's keys over HTTP: for everybody as far as published; changed on the admin listener, by somebody with a name."""

import asyncio
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey, parse_vkey
from translog.core.note import parse_note
from translog.core.policy import parse_policy
from translog.core.proof import parse_receipt, verify_receipt
from translog.events.keychain import Action, KeyChain, Role, parse_key_change, sign_key_change
from translog.log.keyfiles import read_skey
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import AUDITOR, by
from .harness import ORIGIN, Answer, Running, publication_blocked, until

BY_ALICE = {"Translog-Operator": "alice"}


async def ask(log: Running, path: str, body: bytes = b"", **headers: str) -> Answer:
    """Posts to the admin listener, as alice."""
    return await log._request(log.server.admin_address, "POST", path, body=body, headers={**BY_ALICE, **headers})


async def keys_of(log: Running, query: str = "") -> Any:
    """GET /v1/keys, once the log has read its own."""
    while (answer := await log.get(f"/v1/keys{query}")).status == 503:  # noqa: ASYNC110  # nobody signals it
        await asyncio.sleep(0.01)
    return answer.require_ok().json


async def add(log: Running, kind: str = "mldsa44") -> Any:
    await keys_of(log)
    return (await ask(log, "/keys", b'{"type":"%s"}' % kind.encode())).require_ok().json


async def retire(log: Running, key_id: str) -> Any:
    return (await ask(log, f"/keys/{key_id}/retire")).require_ok().json


def id_of(vkey: str) -> str:
    return parse_vkey(vkey).key_id.hex()


def lines_of(note: bytes) -> set[str]:
    return {line.key_id.hex() for line in parse_note(note).signatures}


def private_key(directory: Path, name: str) -> SKey:
    return read_skey(directory / "keys" / name)


async def test_a_new_log_has_its_first_keys_and_no_changes(log_server: Running) -> None:
    found = await keys_of(log_server)
    assert found == {"keys": (await log_server.get("/v1/log")).json["vkeys"], "count": 0, "start": 0, "changes": []}
    assert len(found["keys"]) == 2


async def test_a_key_is_added_and_everybody_can_follow(log_server: Running) -> None:
    before = await keys_of(log_server)
    added = await add(log_server)
    assert set(added) == {"vkey", "key_id", "number", "index", "published"}
    assert (added["number"], added["index"], added["published"], added["key_id"]) == (1, 0, True, id_of(added["vkey"]))
    after = await keys_of(log_server)
    assert after["keys"] == [*before["keys"], added["vkey"]]
    (change,) = after["changes"]
    assert (change["index"], after["count"]) == (0, 1)
    entry = b64decode(change["entry"])
    chain = KeyChain(name=ORIGIN, active=tuple(map(parse_vkey, before["keys"])))
    assert [str(vkey) for vkey in chain.follow(entry).active] == after["keys"]
    (logged,) = (await log_server.get("/v1/entries?start=0&end=1")).json["entries"]
    assert logged == change["entry"]
    receipt = parse_receipt((await log_server.get("/v1/receipts/0")).require_ok().body)
    old = parse_policy("".join(f"log {vkey}\n" for vkey in before["keys"]).encode() + b"quorum none\n")
    verify_receipt(receipt, leaf_hash=sha256(b"\0" + entry).digest(), policy=old)


async def test_the_log_says_which_keys_it_has_now(log_server: Running) -> None:
    first = (await log_server.get("/v1/log")).json["vkeys"]
    added = await add(log_server)
    told = (await log_server.get("/v1/log")).json
    assert set(told["vkeys"]) == {*first, added["vkey"]}
    assert lines_of((await log_server.get("/checkpoint")).body) == {id_of(vkey) for vkey in told["vkeys"]}
    assert added["vkey"] in told["policy"]
    retired = await retire(log_server, id_of(first[0]))
    assert (retired["vkey"], retired["number"], retired["published"]) == (first[0], 2, True)
    told = (await log_server.get("/v1/log")).json
    assert set(told["vkeys"]) == {first[1], added["vkey"]}
    assert lines_of((await log_server.get("/checkpoint")).body) == {id_of(vkey) for vkey in told["vkeys"]}
    assert first[0] not in told["policy"]
    assert (await keys_of(log_server))["keys"] == [first[1], added["vkey"]]


async def test_receipts_hold_under_the_keys_of_their_time(serve: Serve) -> None:
    log_server = await serve(log={"keep_checkpoint_interval_ms": 0})
    first = await log_server.policy()
    await log_server.grow([b"old"])
    before = (await log_server.get("/v1/receipts/0")).body
    await add(log_server)
    await retire(log_server, id_of((await keys_of(log_server))["keys"][0]))
    leaf_hash = sha256(b"\0old").digest()
    verify_receipt(parse_receipt(before), leaf_hash=leaf_hash, policy=first)
    assert (await log_server.get("/v1/receipts/0")).body == before
    latest = await log_server.size()
    assert await log_server.verify((await log_server.get(f"/v1/receipts/0?size={latest}")).body, b"old") == 0


async def test_a_restarted_log_has_the_keys_it_had(serve: Serve) -> None:
    log = await serve()
    first = (await keys_of(log))["keys"]
    added = await add(log)
    await retire(log, id_of(first[0]))
    before = await keys_of(log)
    await log.server.stop()
    again = await serve(directory=log.directory)
    assert await keys_of(again) == before
    assert lines_of((await again.get("/checkpoint")).body) == {id_of(added["vkey"]), id_of(first[1])}
    names = sorted(path.name for path in (log.directory / "keys").iterdir())
    assert names == sorted(["log-ed25519.skey", f"log-mldsa44-{added['key_id']}.skey", "log-mldsa44.vkey"])


async def test_pages_of_changes_follow_each_other(serve: Serve) -> None:
    log = await serve(read_bytes_max=65_535)
    for _ in range(3):
        key_id = (await add(log, "ed25519"))["key_id"]
        await retire(log, key_id)
    whole = await keys_of(log)
    assert (len(whole["changes"]), whole["count"]) == (6, 6)
    assert (await keys_of(log, "?start=4"))["changes"] == whole["changes"][4:]
    assert (await keys_of(log, "?start=9"))["changes"] == []
    (await log.get("/v1/keys?start=x")).problem(400)


async def test_an_answer_ends_early(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await serve()
    for _ in range(2):
        await retire(log, (await add(log, "ed25519"))["key_id"])
    settings = log.server._settings.server
    monkeypatch.setitem(settings.__dict__, "read_bytes_max", 1_000)
    pages = [await keys_of(log, f"?start={start}") for start in range(4)]
    assert [len(page["changes"]) for page in pages] == [1, 1, 1, 1]
    assert [change["index"] for page in pages for change in page["changes"]] == [0, 1, 2, 3]


async def test_what_is_not_published_is_not_told(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await keys_of(log_server)
    with publication_blocked(monkeypatch) as go:
        adding = asyncio.create_task(ask(log_server, "/keys", b"{}"))
        await until(lambda: len(list((log_server.directory / "keys").glob("*-*-*.skey"))) == 1)
        assert await keys_of(log_server) == first
        go()
        assert (await adding).require_ok().json["published"]
    assert (await keys_of(log_server))["count"] == 1


@pytest.mark.parametrize("path", ["/keys", "/keys/00000000/retire"])
async def test_operators_say_who_they_are_and_are_no_web_pages(log_server: Running, path: str) -> None:
    await keys_of(log_server)
    (await log_server.admin("POST", path)).problem(403, "no-operator")
    (await ask(log_server, path, Origin="http://127.0.0.1")).problem(403, "from-page")
    (await log_server.post(path, Translog_Operator="alice")).problem(404, "no-such-path")
    assert (await keys_of(log_server))["count"] == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"type":"rsa"}', b'{"type":"ed25519","more":1}', b'{"kind":"ed25519"}'])
async def test_a_body_that_does_not_say_what_kind_is_refused(log_server: Running, body: bytes) -> None:
    await keys_of(log_server)
    document = (await ask(log_server, "/keys", body)).problem(400, "malformed")
    assert "mldsa44" in document["hint"]


async def test_refusals_tell_the_operator_what_to_do(log_server: Running) -> None:
    first = (await keys_of(log_server))["keys"]
    assert "it has" in (await ask(log_server, "/keys/00000000/retire")).problem(404, "no-such-key")["hint"]
    assert "translog keys add" in (await ask(log_server, f"/keys/{id_of(first[0])}/retire")).problem(409, "last-key")["hint"]
    await add(log_server)
    await retire(log_server, id_of(first[0]))
    (await ask(log_server, f"/keys/{id_of(first[0])}/retire")).problem(409, "key-retired")


async def test_two_operators_at_once_make_two_changes(log_server: Running) -> None:
    await keys_of(log_server)
    answers = await asyncio.gather(*(ask(log_server, "/keys", b'{"type":"ed25519"}') for _ in range(2)))
    assert sorted(answer.require_ok().json["number"] for answer in answers) == [1, 2]
    assert len((await keys_of(log_server))["keys"]) == 4


# Whoever else: in an opaque log anybody may append anything


def stolen_change(directory: Path, *, number: int = 1, key: str = "log-ed25519.skey") -> bytes:
    thief = SKey(name=ORIGIN, type=KeyType.ED25519, seed=b"thief" + bytes(27))
    return sign_key_change(
        role=Role.LOG,
        name=ORIGIN,
        vkey=thief.vkey,
        action=Action.ADD,
        number=number,
        signers=[KeySigner(private_key(directory, key))],
        time_s=1_700_000_000,
    )


async def test_with_a_stolen_key_no_key_is_added_by_appending(log_server: Running) -> None:
    await keys_of(log_server)
    stolen = stolen_change(log_server.directory)
    (await log_server.post("/add", stolen)).problem(403, "key-change")
    (await log_server.append([b"x", stolen])).problem(403, "key-change")
    assert await log_server.size() == 0


async def test_look_alikes_and_replays_are_logged_and_change_nothing(log_server: Running) -> None:
    stranger = SKey(name=ORIGIN, type=KeyType.ED25519, seed=b"stranger" + bytes(24))
    added = await add(log_server, "ed25519")
    before = await keys_of(log_server)
    logged = b64decode(before["changes"][0]["entry"])
    retiring = sign_key_change(
        role=Role.LOG,
        name=ORIGIN,
        vkey=parse_vkey(added["vkey"]),
        action=Action.RETIRE,
        number=2,
        signers=[KeySigner(stranger)],
        time_s=1_700_000_000,
    )
    await log_server.grow([logged, logged[:-1], retiring, b'{"translog":"key/1"}'])
    assert await keys_of(log_server) == before
    assert (await retire(log_server, added["key_id"]))["number"] == 2
    found = await keys_of(log_server)
    assert [change["index"] for change in found["changes"]] == [0, 5]


# A log of audit events


async def test_in_a_log_of_events_the_operator_is_named_in_an_event_beside_the_public_entry(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, members=(AUDITOR,))
    added = await add(log, "ed25519")
    retired = await retire(log, added["key_id"])
    assert [change["index"] for change in (await keys_of(log))["changes"]] == [added["index"], retired["index"]]
    entries = (await log.get("/v1/entries?start=0&end=9")).json["entries"]
    assert parse_key_change(b64decode(entries[added["index"]])).vkey == parse_vkey(added["vkey"])
    for change, operation, activity in ((added, "key.add", 1), (retired, "key.retire", 4)):
        event = (await log.get(f"/v1/events/{change['index'] - 1}", **by("auditor"))).require_ok().json["event"]
        assert event["api"]["operation"] == operation
        assert event["activity_id"] == activity
        assert event["actor"]["user"] == {"name": "alice"}
        assert event["unmapped"] == {"key_id": added["key_id"], "vkey": added["vkey"]}
        assert event["resources"][0]["uid"] == ORIGIN
    (await log.get(f"/v1/events/{added['index']}", **by("auditor"))).problem(404, "not-an-event")


async def test_a_member_cannot_log_a_change_of_keys_as_an_event(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS)
    await keys_of(log)
    (await log.post("/add", stolen_change(log.directory))).problem(404, "not-opaque")
    stolen = stolen_change(log.directory)
    (await log.post("/v1/events", stolen, "application/json")).require_ok()
    await until(lambda: log.server.service.published is not None and log.server.service.published.size == 2)
    assert (await keys_of(log))["count"] == 0
