"""A log over HTTP whose checkpoints need witnesses: what it says of them, what it answers without a quorum, what it logs."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey, parse_vkey
from translog.core.policy import Policy, parse_policy, verify_checkpoint
from translog.core.proof import parse_receipt, verify_receipt
from translog.errors import NotFoundError, OldSizeError, QuorumError, SettingsError, VerificationError
from translog.storage.store import Profile
from translog.witness.protocol import SIZE_MEDIA, format_size
from translog.witness.service import Witness
from translog.witness.store import KnownLog, WitnessStore

from .conftest import Serve
from .event_log import AUDITOR, by, record, send, take
from .harness import ORIGIN, Running, numbered, until
from .test_ops import samples

NAMES = ("one", "two", "three")
QUICK = {"min_interval_ms": 0, "quorum_timeout_ms": 300, "request_timeout_ms": 1_000, "backoff_ms_max": 100}


class Site:
    """A witness behind a web server; `up` switches it off, as if nobody was there."""

    def __init__(self, number: int, directory: Path) -> None:
        name = f"{NAMES[number]}.example/w"
        self.skeys = [
            SKey(name=name, type=kind, seed=bytes([number + 1]) * 32)
            for kind in (KeyType.COSIGNATURE_ED25519, KeyType.COSIGNATURE_MLDSA44)
        ]
        store = WitnessStore.create(directory / f"{NAMES[number]}.sqlite", name=name, vkeys=[key.vkey for key in self.skeys])
        signers = [KeySigner(skey) for skey in self.skeys]
        self.witness = Witness(store=store, signers=signers, now_ms=lambda: time.time_ns() // 1_000_000)
        self.name = NAMES[number]
        self.up = True
        self.url = ""

    def lines(self) -> str:
        ed, ml = (
            f"witness {self.name}-{kind} {key.vkey} {self.url}\n" for kind, key in zip(("ed", "ml"), self.skeys, strict=True)
        )
        return f"{ed}{ml}group {self.name} any {self.name}-ed {self.name}-ml\n"

    async def post(self, request: web.Request) -> web.Response:
        if not self.up:
            return web.Response(status=500)
        body = await request.read()
        try:
            return web.Response(body=await asyncio.to_thread(self.witness.add_checkpoint, body))
        except OldSizeError as error:
            return web.Response(status=409, body=format_size(error.size), headers={"Content-Type": SIZE_MEDIA})
        except VerificationError as error:
            return web.Response(status=422, text=str(error))
        except NotFoundError as error:
            return web.Response(status=404, text=str(error))

    async def latest(self, request: web.Request) -> web.Response:
        try:
            return web.Response(body=self.witness.latest(request.match_info["hash"]))
        except NotFoundError:
            return web.Response(status=404)


class World:
    """Three witnesses, and the log that is to be witnessed."""

    def __init__(self, sites: list[Site], serve: Serve) -> None:
        self.sites = sites
        self._serve = serve
        self.log: Running

    def policy_text(self, quorum: int) -> str:
        names = " ".join(site.name for site in self.sites)
        return "".join(site.lines() for site in self.sites) + f"group q {quorum} {names}\nquorum q\n"

    async def start(self, quorum: int = 2, *, known: bool = True, **more: Any) -> Running:
        witnessing = {**QUICK, "policy_file": "policy", **more.pop("witnessing", {})}
        self.log = await self._serve(
            secrets={"policy": self.policy_text(quorum).encode()}, log={"witnessing": witnessing, **more.pop("log", {})}, **more
        )
        if known:
            await self.introduce()
        return self.log

    async def introduce(self) -> None:
        vkeys = tuple(map(parse_vkey, (await self.log.get("/v1/log")).json["vkeys"]))
        for site in self.sites:
            site.witness.add_log(KnownLog(origin=ORIGIN, vkeys=vkeys, queries_per_day=10_000_000, source="command"))
        service = self.log.server.service
        await until(lambda: service.published is not None and service.published.witnessed)

    async def policy(self) -> Policy:
        return parse_policy((await self.log.get("/v1/log")).json["policy"].encode())


@asynccontextmanager
async def open_sites(directory: Path) -> AsyncIterator[list[Site]]:
    async with AsyncExitStack() as stack:
        sites = []
        for number in range(len(NAMES)):
            site = Site(number, directory)
            app = web.Application()
            app.router.add_post("/w/add-checkpoint", site.post)
            app.router.add_get("/w/{hash}/checkpoint", site.latest)
            server = await stack.enter_async_context(TestServer(app))
            site.url = str(server.make_url("/w"))
            sites.append(site)
        yield sites


@pytest.fixture
async def world(tmp_path: Path, serve: Serve) -> AsyncIterator[World]:
    async with open_sites(tmp_path) as sites:
        yield World(sites, serve)


async def test_a_receipt_verifies_under_the_policy_that_the_log_states(world: World) -> None:
    log = await world.start()
    entries = numbered(0, 3)
    await log.grow(entries)
    policy = await world.policy()
    receipt = parse_receipt((await log.get("/v1/receipts/1")).require_ok().body)
    verified = verify_receipt(receipt, leaf_hash=sha256(b"\0" + entries[1]).digest(), policy=policy)
    assert len(verified.checkpoint.cosigned) >= 2
    assert {item.vkey.type for item in verified.checkpoint.cosigned} == {KeyType.COSIGNATURE_MLDSA44}, (
        "the strong ones are listed"
    )


async def test_what_the_log_says_of_its_witnesses(world: World) -> None:
    log = await world.start()
    await log.grow(numbered(0, 2))
    said = (await log.get("/v1/log")).json["witnessing"]
    assert said["published_witnessed"] is True
    assert said["unwitnessed_since_ms"] is None
    assert said["without_quorum"] == "hold"
    assert [witness["name"] for witness in said["witnesses"]] == ["one.example/w", "two.example/w", "three.example/w"]
    world.sites[0].up = False
    await log.grow(numbered(0, 1))
    service = log.server.service
    assert service.witnesses is not None
    await until(lambda: service.witnesses.status()[0].failure is not None)  # type: ignore[union-attr]
    first = (await log.get("/v1/log")).json["witnessing"]["witnesses"][0]
    assert first["failure"] == "witness-failed"
    metrics = await samples(log)
    assert metrics["translog_witness_failures_total witness-failed one.example/w"] >= 1
    assert metrics["translog_witness_cosigned_size two.example/w"] == 3
    assert metrics["translog_unwitnessed_since_timestamp_seconds"] == 0


async def test_without_quorum_entries_are_durable_and_everybody_is_told(world: World) -> None:
    log = await world.start(publish_deadline_ms=200)
    await log.grow(numbered(0, 1))
    for site in world.sites[:2]:
        site.up = False
    answer = await log.append([b"held back"])
    assert answer.status == 202
    assert answer.json["first"] == 1
    service = log.server.service
    await until(lambda: service.unwitnessed_since_ms is not None)
    for ready in (await log.get("/readyz"), await log.admin("GET", "/readyz")):
        assert ready.status == 200
        assert ready.json["unwitnessed_since_ms"] == service.unwitnessed_since_ms
    said = (await log.get("/v1/log")).json
    assert (said["integrated_size"], said["published_size"]) == (2, 1)
    assert said["witnessing"]["published_witnessed"] is True
    assert (await samples(log))["translog_unwitnessed_since_timestamp_seconds"] == service.unwitnessed_since_ms / 1000  # type: ignore[operator]
    (await log.get("/v1/receipts/1")).problem(404, "not-published")
    world.sites[0].up = True
    await until(lambda: service.unwitnessed_since_ms is None)
    (await log.get("/v1/receipts/1")).require_ok()


async def test_published_all_the_same_it_has_no_receipts(world: World) -> None:
    log = await world.start(publish_deadline_ms=200, witnessing={"without_quorum": "publish"})
    await log.grow(numbered(0, 1))
    policy = await world.policy()
    for site in world.sites:
        site.up = False
    assert (await log.append([b"x"], "?receipts=full")).status == 202
    service = log.server.service
    await until(lambda: service.published is not None and service.published.size == 2)
    said = (await log.get("/v1/log")).json
    assert said["published_size"] == 2
    assert said["witnessing"]["published_witnessed"] is False
    refused = await log.get("/v1/receipts/1")
    refused.problem(404, "not-witnessed")
    assert int(refused.headers["Retry-After"]) >= 1
    with pytest.raises(QuorumError):
        verify_checkpoint((await log.get("/checkpoint")).body, policy)
    (await log.get("/v1/receipts/0")).require_ok()


async def test_a_known_event_sent_again_brings_no_proof_without_quorum(world: World) -> None:
    log = await world.start(profile=Profile.EVENTS, publish_deadline_ms=100, witnessing={"without_quorum": "publish"})
    for site in world.sites:
        site.up = False
    service = log.server.service
    assert (await send(log, record("1"))).status == 202
    await until(lambda: service.published is not None and service.published.size == service.integrated.size)
    assert service.published is not None
    assert not service.published.witnessed
    for query in ("?ack=durable&receipts=full", "?ack=published&receipts=full", "?ack=durable&receipts=index"):
        answer = await send(log, record("1"), query)
        assert answer.status in (200, 202)
        assert answer.json["checkpoint"] is None
        (result,) = answer.json["results"]
        assert result["duplicate"] is True
        assert result["proof"] is None
        assert result["receipt"] is not None


async def test_receipts_of_entries_from_before_there_were_witnesses_have_their_cosignatures_too(
    world: World, serve: Serve
) -> None:
    plain = await serve(log={"keep_checkpoint_interval_ms": 0})
    entries = numbered(0, 3)
    await plain.grow(entries)
    await plain.server.stop()
    (plain.directory / "policy").write_text(world.policy_text(2))
    world.log = await serve(directory=plain.directory, log={"witnessing": {**QUICK, "policy_file": "policy"}})
    refused = await world.log.get("/v1/receipts/1")
    refused.problem(404, "not-witnessed")
    await world.introduce()
    policy = await world.policy()
    receipt = parse_receipt((await world.log.get("/v1/receipts/1")).require_ok().body)
    leaf_hash = sha256(b"\0" + entries[1]).digest()
    assert verify_receipt(receipt, leaf_hash=leaf_hash, policy=policy).checkpoint.cosigned
    old = parse_receipt((await world.log.get("/v1/receipts/1?size=3")).require_ok().body)
    assert old.index == 1


async def test_events_tell_when_the_quorum_is_lost_and_back(world: World) -> None:
    log = await world.start(profile=Profile.EVENTS, members=(AUDITOR, dict(AUDITOR, name="acme", token_sha256="0" * 64)))
    service = log.server.service
    for site in world.sites[:2]:
        site.up = False
    before = service.integrated.size
    await service.publish_anew(timeout_ms=1)
    await until(lambda: service.unwitnessed_since_ms is not None and service.integrated.size > before)
    world.sites[0].up = True
    await until(lambda: service.unwitnessed_since_ms is None and service.integrated.size > before + 1)
    await until(lambda: service.published is not None and service.published.size == service.integrated.size)
    operations = []
    for index in range(service.integrated.size):
        event = (await log.get(f"/v1/events/{index}", **by("auditor"))).require_ok().json["event"]
        operations.append(event["api"]["operation"])
    assert operations[0] == "log.create"
    assert operations[-2:] == ["witness.quorum-lost", "witness.quorum-reached"]


async def test_an_event_waits_for_witnesses_and_its_evidence_names_them(world: World) -> None:
    log = await world.start(profile=Profile.EVENTS)
    (result,) = await take(log, record("1"))
    document = json.loads((await log.get(f"/v1/events/{result['index']}/evidence")).require_ok().body)
    verified = verify_checkpoint(parse_receipt(document["receipt"].encode()).checkpoint, await world.policy())
    assert len(verified.cosigned) >= 2


async def test_a_log_that_was_never_added_anywhere_says_so(world: World) -> None:
    log = await world.start(known=False, publish_deadline_ms=100)
    assert (await log.append([b"x"])).status == 202
    (await log.get("/checkpoint")).problem(503, "not-open")
    said = (await log.get("/v1/log")).json["witnessing"]["witnesses"]
    assert {witness["failure"] for witness in said} == {"witness-unknown-log"}
    await world.introduce()
    await until(lambda: log.server.service.published is not None and log.server.service.published.size == 1)


async def test_a_restarted_log_goes_on_with_its_witnesses(world: World, serve: Serve) -> None:
    log = await world.start()
    await log.grow(numbered(0, 4))
    policy = await world.policy()
    await log.server.stop()
    again = await serve(directory=log.directory, log={"witnessing": {**QUICK, "policy_file": "policy"}})
    await again.grow(numbered(0, 2))
    assert again.server.service.published is not None
    verify_checkpoint(again.server.service.published.note, policy)
    assert all(site.witness.store.find_cosigned(ORIGIN).size >= 4 for site in world.sites)  # type: ignore[union-attr]


async def test_an_older_copy_is_held_at_its_start(world: World, serve: Serve, tmp_path: Path) -> None:
    log = await world.start()
    await log.grow(numbered(0, 2))
    await log.server.stop()
    shutil.copytree(log.directory, tmp_path / "copy")
    witnessing = {"witnessing": {**QUICK, "policy_file": "policy"}}
    newer = await serve(directory=log.directory, log=witnessing)
    await newer.grow(numbered(0, 3))
    await newer.server.stop()
    older = await serve(directory=tmp_path / "copy", log=witnessing)
    ready = await older.admin("GET", "/readyz")
    assert (ready.status, ready.json["code"]) == (503, "witness-ahead")
    assert "of size 5" in ready.json["reason"]
    assert "shows a checkpoint that this log's keys signed" in ready.json["reason"]
    (await older.append([b"another history"])).problem(503, "read-only")
    (await older.get("/checkpoint")).require_ok()


async def test_a_policy_that_can_never_be_met_ends_the_start(world: World, serve: Serve) -> None:
    text = world.policy_text(2).replace(f" {world.sites[0].url}", "").replace(f" {world.sites[1].url}", "")
    with pytest.raises(SettingsError) as refused:
        await serve(secrets={"policy": text.encode()}, log={"witnessing": {"policy_file": "policy"}})
    assert refused.value.code == "quorum-unreachable"
    assert "one-ed, one-ml, two-ed, two-ml" in refused.value.detail


async def test_many_writers_share_the_publications_that_the_witnesses_take(world: World) -> None:
    log = await world.start(profile=Profile.EVENTS)
    answers = await asyncio.gather(*(send(log, record(str(n))) for n in range(40)))
    assert {answer.status for answer in answers} == {200}
    notes = {answer.json["checkpoint"] for answer in answers}
    for note in notes:
        verify_checkpoint(note.encode(), await world.policy())
