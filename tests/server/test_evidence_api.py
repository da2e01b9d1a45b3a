"""`GET /v1/events/<index>/evidence`: what it gives verifies offline, shows what was asked for and nothing else; what somebody
who lies makes of it does not verify."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from translog.bootstrap import create_log
from translog.core.checkpoint import parse_checkpoint
from translog.core.note import parse_note
from translog.core.policy import Policy
from translog.errors import DisclosureError, TranslogError, VerificationError
from translog.events.disclosure import Disclosure, Evidence, VerifiedEvidence, format_evidence, parse_evidence, verify_evidence
from translog.events.entry import format_entry, parse_entry
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import EVENTS, by, dumps, entry_bytes, event, index_of, member, record, send, take
from .harness import ORIGIN, Running

RECORD = record("a", context={"salary": 7}, reason="CHG-1")


async def evidence_of(log: Running, index: int, query: str = "", **headers: str) -> Evidence:
    await entry_bytes(log)
    answer = (await log.get(f"{EVENTS}/{index}/evidence{query}", **headers)).require_ok()
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    return parse_evidence(answer.body)


async def verified(log: Running, index: int, query: str = "") -> VerifiedEvidence:
    return verify_evidence(await evidence_of(log, index, query), await log.policy())


# --- what is shown ------------------------------------------------------------------------------------------------------


async def test_all_fields_by_default(event_log: Running) -> None:
    index = await index_of(event_log, RECORD)
    proven = await verified(event_log, index)
    assert proven.shown == await event(event_log, index)
    assert proven.withheld == ()
    assert (proven.origin, proven.index) == (ORIGIN, index)
    assert (proven.entry.member, proven.entry.stream) == ("local", "default")
    assert proven.absent("user")


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ("actor", ["actor"]),
        ("actor,time", ["time", "actor"]),
        ("time,actor", ["time", "actor"]),
        ("actor,actor,", ["actor"]),
        ("", []),
        (",", []),
        ("nothing", []),
        ("actor,nothing,%C3%A4", ["actor"]),
        ("Actor", []),
        ("act", []),
        ("actor.user", []),
        (" actor", []),
        ("translog", []),
    ],
)
async def test_the_fields_that_were_asked_for_and_no_other(event_log: Running, fields: str, shown: list[str]) -> None:
    index = await index_of(event_log, RECORD)
    answer = (await event_log.get(f"{EVENTS}/{index}/evidence?fields={fields}".replace(" ", "%20"))).require_ok()
    proven = verify_evidence(parse_evidence(answer.body), await event_log.policy())
    whole = await event(event_log, index)
    assert proven.shown == {name: whole[name] for name in shown}
    assert sorted(proven.shown, key=proven.names.index) == [name for name in proven.names if name in shown]
    assert set(proven.withheld) == set(whole) - set(shown)
    assert not proven.absent("raw_data")
    if "raw_data" not in shown:
        assert b"salary" not in answer.body
        assert b"seed" not in answer.body


async def test_salts_of_what_is_withheld_stay_here(event_log: Running) -> None:
    index = await index_of(event_log, RECORD)
    every = await evidence_of(event_log, index)
    some = (await event_log.get(f"{EVENTS}/{index}/evidence?fields=actor")).body
    for disclosure in every.disclosures:
        shown = disclosure.leaf == 0 or disclosure.text.startswith(b'["actor"')
        said = json.loads(format_evidence(every))["disclosures"][disclosure.leaf]
        assert (said["salt"].encode() in some) == shown


@pytest.mark.parametrize("query", ["fields=a&fields=b", f"fields={'x' * 4097}"])
async def test_a_bad_query_is_400(event_log: Running, query: str) -> None:
    index = await index_of(event_log, RECORD)
    (await event_log.get(f"{EVENTS}/{index}/evidence?{query}")).problem(400, "malformed")


async def test_it_says_that_the_event_is_not_older_than_a_checkpoint(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, log={"keep_checkpoint_interval_ms": 0})
    for uid in "abcdef":
        await take(log, record(uid))
    for index in (1, 4, 6):
        evidence = await evidence_of(log, index)
        assert evidence.not_before is not None
        before = parse_checkpoint(parse_note(evidence.not_before.checkpoint).text)
        assert before.size == index
        proven = verify_evidence(evidence, await log.policy())
        assert proven.not_before is not None
        assert proven.not_before_s is not None
        assert proven.no_later_than_s is not None
        assert proven.not_before_s <= proven.no_later_than_s
        assert proven.size >= index + 1


async def test_it_verifies_after_the_log_has_grown_and_been_started_again(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS)
    index = await index_of(log, RECORD)
    before = await evidence_of(log, index)
    await take(log, [record(str(n)) for n in range(600)])
    await log.server.stop()
    log = await serve(directory=log.directory)
    for evidence in (before, await evidence_of(log, index)):
        proven = verify_evidence(evidence, await log.policy())
        assert (proven.index, proven.shown) == (index, await event(log, index))


# --- lies ---------------------------------------------------------------------------------------------------------------


def flips(data: bytes) -> Iterator[bytes]:
    """Every byte, with one bit changed."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ (1 << (at % 7))]) + data[at + 1 :]


def changed(disclosure: Disclosure) -> Iterator[Disclosure]:
    """A disclosure with one bit changed."""
    for salt in flips(disclosure.salt):
        yield replace(disclosure, salt=salt)
    for text in flips(disclosure.text):
        yield replace(disclosure, text=text)
    for place, value in enumerate(disclosure.proof):
        for flipped in (*list(flips(value))[:3], value[1:] + value[:1]):
            yield replace(disclosure, proof=(*disclosure.proof[:place], flipped, *disclosure.proof[place + 1 :]))
    for leaf in {disclosure.leaf ^ 1, disclosure.leaf + 1, disclosure.of}:
        yield replace(disclosure, leaf=leaf)
    yield replace(disclosure, of=disclosure.of + 1)
    yield replace(disclosure, proof=disclosure.proof[:-1])
    yield replace(disclosure, proof=(*disclosure.proof, bytes(32)))


async def test_one_bit_of_a_disclosure_changed_and_it_does_not_verify(event_log: Running) -> None:
    index = await index_of(event_log, RECORD)
    evidence = await evidence_of(event_log, index, "?fields=actor,time")
    policy = await event_log.policy()
    verify_evidence(evidence, policy)
    tried = 0
    for place, disclosure in enumerate(evidence.disclosures):
        for lie in changed(disclosure):
            disclosures = (*evidence.disclosures[:place], lie, *evidence.disclosures[place + 1 :])
            with pytest.raises(DisclosureError):
                verify_evidence(replace(evidence, disclosures=disclosures), policy)
            tried += 1
    assert tried > 300


async def test_leaves_out_of_order_or_twice_do_not_verify(event_log: Running) -> None:
    index = await index_of(event_log, RECORD)
    evidence = await evidence_of(event_log, index, "?fields=actor,time")
    policy = await event_log.policy()
    header, first, second = evidence.disclosures
    for lie in (
        (header, second, first),
        (header, first, first),
        (first, second),
        (header, header, first),
        (header, first, header),
        (),
    ):
        with pytest.raises(DisclosureError):
            verify_evidence(replace(evidence, disclosures=lie), policy)


async def test_two_fields_of_one_name_do_not_parse(event_log: Running) -> None:
    index = await index_of(event_log, RECORD)
    body = (await event_log.get(f"{EVENTS}/{index}/evidence?fields=actor")).body
    policy = await event_log.policy()
    for old, new in (
        (b'["actor",{"user":{"name":"alice"}}]', b'["actor",{"user":{"name":"alice"},"user":{"name":"mallory"}}]'),
        (b'["actor",{"user":{"name":"alice"}}]', b'["actor",{"user":{"name":"alice","name":"mallory"}}]'),
        (b'"names":["metadata",', b'"names":["metadata","metadata",'),
        (b'"names":["metadata",', b'"names":["actor",'),
    ):
        told, lie = (json.dumps(text.decode())[1:-1].encode() for text in (old, new))
        assert told in body
        with pytest.raises(TranslogError):
            verify_evidence(parse_evidence(body.replace(told, lie)), policy)
    twice = body.replace(b'"entry":', b'"entry":"AA==","entry":')
    with pytest.raises(TranslogError):
        parse_evidence(twice)


def other_entry(**changes: Any) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, entry=format_entry(replace(parse_entry(evidence.entry), **changes)))


@pytest.mark.parametrize(
    "change",
    [
        other_entry(member="mallory"),
        other_entry(stream="other"),
        other_entry(seq=7),
        other_entry(received_at_ms=1),
        other_entry(root=bytes(32)),
        lambda evidence: replace(evidence, entry=b"{}"),
        lambda evidence: replace(evidence, receipt=evidence.receipt.replace(b"index 1\n", b"index 2\n")),
    ],
)
async def test_another_entry_than_the_logged_one_does_not_verify(
    event_log: Running, change: Callable[[Evidence], Evidence]
) -> None:
    index = await index_of(event_log, RECORD)
    evidence = await evidence_of(event_log, index)
    with pytest.raises(VerificationError):
        verify_evidence(change(evidence), await event_log.policy())


async def test_parts_of_two_events_do_not_make_one(serve: Serve) -> None:
    """Of another stream, of another member, and of another event of the same stream."""
    log = await serve(profile=Profile.EVENTS, members=(member("acme"), member("other")))
    places = []
    for name, stream in (("acme", "s"), ("acme", "s"), ("acme", "t"), ("other", "s")):
        (result,) = (await send(log, record(), Translog_Stream=stream, **by(name))).require_ok().json["results"]
        places.append((result["index"], name))
    pieces = [await evidence_of(log, index, **by(name)) for index, name in places]
    policy = await log.policy()
    for place, one in enumerate(pieces):
        verify_evidence(one, policy)
        for other in pieces[:place] + pieces[place + 1 :]:
            for lie in (
                replace(one, disclosures=other.disclosures),
                replace(one, disclosures=(one.disclosures[0], *other.disclosures[1:])),
                replace(one, disclosures=(other.disclosures[0], *one.disclosures[1:])),
                replace(one, receipt=other.receipt),
                replace(one, entry=other.entry),
                replace(one, entry=other.entry, receipt=other.receipt),
            ):
                with pytest.raises(VerificationError):
                    verify_evidence(lie, policy)


async def served_elsewhere(serve: Serve, directory: Path, *, origin: str) -> tuple[Policy, Evidence]:
    create_log(directory, origin=origin, profile=Profile.EVENTS)
    log = await serve(directory=directory)
    index = await index_of(log, RECORD)
    return await log.policy(), await evidence_of(log, index)


@pytest.mark.parametrize("origin", ["log.example/other", ORIGIN])
async def test_evidence_of_another_log_does_not_verify(serve: Serve, tmp_path: Path, origin: str) -> None:
    """Also of one that has taken the name of this one."""
    log = await serve(profile=Profile.EVENTS)
    own = await evidence_of(log, await index_of(log, RECORD))
    own_policy = await log.policy()
    policy, evidence = await served_elsewhere(serve, tmp_path / "other", origin=origin)
    verify_evidence(evidence, policy)
    verify_evidence(own, own_policy)
    for lie, under in (
        (evidence, own_policy),
        (own, policy),
        (replace(own, not_before=evidence.not_before), own_policy),
        (replace(evidence, receipt=own.receipt), own_policy),
        (replace(own, disclosures=evidence.disclosures), own_policy),
    ):
        with pytest.raises(VerificationError):
            verify_evidence(lie, under)


async def test_a_checkpoint_from_after_the_event_is_not_from_before_it(event_log: Running) -> None:
    one = await index_of(event_log, record("a"))
    two = await index_of(event_log, record("b"))
    await event_log.get(f"{EVENTS}/{two}")
    evidence = await evidence_of(event_log, one)
    assert evidence.not_before is not None
    latest = (await event_log.get("/checkpoint")).body
    lie = replace(evidence, not_before=replace(evidence.not_before, checkpoint=latest))
    with pytest.raises(VerificationError):
        verify_evidence(lie, await event_log.policy())


async def test_a_large_field_is_proven_by_its_digest(serve: Serve) -> None:
    log = await serve(profile=Profile.EVENTS, intake={"blob_bytes_min": 1_024})
    index = await index_of(log, record("a", context="ä" * 5_000))
    proven = await verified(log, index, "?fields=raw_data")
    assert list(proven.shown["raw_data"]) == ["$blob"]
    assert proven.shown["raw_data"]["$blob"]["size"] == len(dumps(dumps(record("a", context="ä" * 5_000)).decode()))
