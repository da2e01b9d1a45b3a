"""PolledRemoteLog: any log's checkpoint as it is, and proofs that are of its tree or none at all."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from core.merkle_oracle import Oracle

from client import simulator
from client.serving import make_log, served, url_of
from client.simulator import Simulator, entries_of, flip, respond, sign_head
from translog.client.polled import PolledRemoteLog
from translog.client.submit import Submitter
from translog.client.transport import TIMEOUT_MS
from translog.core.checkpoint import parse_checkpoint
from translog.core.cosignature import KeyVerifier
from translog.core.keys import KeyType, SKey
from translog.core.merkle import verify_consistency
from translog.core.note import NOTE_BYTES_MAX, open_note, parse_note
from translog.core.policy import format_log_policy, parse_policy
from translog.errors import ConsistencyError, MalformedError, RemoteError, VerificationError
from translog.witness.accusations import Accusations
from translog.witness.loglist import KnownLog
from translog.witness.opening import create_witness, open_witness
from translog.witness.poller import PolledLog, Poller
from translog.witness.settings import WitnessSettings

SHORT_MS = 200


@asynccontextmanager
async def polling(log: Simulator, *, timeout_ms: int = TIMEOUT_MS) -> AsyncIterator[PolledRemoteLog]:
    """The log before its first fetch."""
    async with log.serving() as url, PolledRemoteLog(url, timeout_ms=timeout_ms) as polled:
        yield polled


def is_proof(proof: list[bytes], *, old: int, new: int, before: Oracle, after: Oracle) -> bool:
    try:
        verify_consistency(old=old, new=new, proof=proof, old_root=before.mth(0, old), new_root=after.mth(0, new))
    except ConsistencyError:
        return False
    return True


def test_it_is_what_the_poller_asks_for() -> None:
    log: PolledLog = PolledRemoteLog("http://log.example")
    assert callable(log.prove)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 700])
async def test_proofs_of_any_log_are_the_oracles(size: int) -> None:
    log = Simulator(entries_of(size))
    async with polling(log) as polled:
        assert await polled.fetch() == log.files["checkpoint"]
        for new in {1, size // 2, size - 1, size} - {0}:
            for old in {1, new // 2, new - 1, new} - {0}:
                proof = await polled.prove(old=old, new=new)
                assert proof == (log.oracle.proof(old, 0, new) if old < new else [])
                assert is_proof(proof, old=old, new=new, before=log.oracle, after=log.oracle)


async def test_our_own_log_is_polled_as_it_grows(tmp_path: Path) -> None:
    vkeys = make_log(tmp_path / "log")
    entries = entries_of(300)
    policy = parse_policy(format_log_policy(vkeys).encode())
    async with served(tmp_path / "log") as server, PolledRemoteLog(url_of(server)) as polled, Submitter(url_of(server)) as to:
        before = 0
        for size in (2, 260, 300):
            await to.append(entries[before:size], policy)
            note = await polled.fetch()
            head = parse_checkpoint(open_note(note, [KeyVerifier(vkey) for vkey in vkeys]).text)
            oracle = Oracle(entries[:size])
            assert (head.size, head.root) == (size, oracle.mth(0, size))
            proof = await polled.prove(old=before, new=size)
            assert proof == (oracle.proof(before, 0, size) if before else [])
            before = size


async def test_the_name_of_the_key_may_be_another_than_the_origin() -> None:
    log = Simulator(entries_of(9))
    skey = SKey(name="keys.example", type=KeyType.ED25519, seed=bytes(32))
    log.files["checkpoint"] = sign_head(9, log.root(9), skey, origin="go.sum database tree")
    async with polling(log) as polled:
        note = await polled.fetch()
        assert parse_checkpoint(open_note(note, [KeyVerifier(skey.vkey)]).text).origin == "go.sum database tree"
        assert await polled.prove(old=4, new=9) == log.oracle.proof(4, 0, 9)


async def test_a_signature_of_nobody_is_passed_on_for_the_poller_to_judge() -> None:
    log = Simulator(entries_of(9))
    log.show_head(9, simulator.STRANGER)
    async with polling(log) as polled:
        assert parse_note(await polled.fetch()).signatures[0].key_id == simulator.STRANGER.vkey.key_id


async def test_the_note_comes_as_it_was_served_with_lines_of_others() -> None:
    log = Simulator(entries_of(9))
    log.files["checkpoint"] += "\u2014 someone.example AAAAAAAA\n".encode()
    async with polling(log) as polled:
        assert await polled.fetch() == log.files["checkpoint"]


@pytest.mark.parametrize("status", [404, 410])
async def test_partial_tiles_that_are_gone_are_cut_from_the_full_ones(status: int) -> None:
    log = Simulator(entries_of(700))
    log.show_head(300)
    log.answers["tile/0/001.p/44"] = respond(status)
    log.answers["tile/1/000.p/1"] = respond(200, log.files["tile/1/000.p/2"])  # wider than asked for
    async with polling(log) as polled:
        await polled.fetch()
        assert await polled.prove(old=257, new=300) == log.oracle.proof(257, 0, 300)
    assert log.count("tile/0/001") == 1


async def test_compressed_tiles_are_read() -> None:
    log = Simulator(entries_of(300))
    log.gzip = True
    async with polling(log) as polled:
        await polled.fetch()
        assert await polled.prove(old=257, new=300) == log.oracle.proof(257, 0, 300)


async def test_a_log_that_grew_after_the_fetch_is_proved_as_it_was_fetched() -> None:
    log = Simulator(entries_of(300))
    async with polling(log) as polled:
        await polled.fetch()
        old_tiles = {path: data for path, data in log.files.items() if path != "checkpoint"}
        log.show(entries_of(700))
        log.files |= old_tiles
        assert await polled.prove(old=100, new=300) == log.oracle.proof(100, 0, 300)
        with pytest.raises(ConsistencyError):
            await polled.prove(old=100, new=700)
        await polled.fetch()
        assert await polled.prove(old=100, new=700) == log.oracle.proof(100, 0, 700)


async def test_where_there_is_nothing_to_prove_nothing_is_asked() -> None:
    log = Simulator(entries_of(300))
    async with polling(log) as polled:
        await polled.fetch()
        for old, new in ((0, 0), (0, 5), (0, 300), (5, 5), (300, 300)):
            assert await polled.prove(old=old, new=new) == []
    assert len(log.requests) == 1


async def test_sizes_outside_the_checkpoint_fetched_last_have_no_proof() -> None:
    log = Simulator(entries_of(9))
    async with polling(log) as polled:
        with pytest.raises(ConsistencyError):
            await polled.prove(old=0, new=0)
        await polled.fetch()
        for old, new in ((3, 10), (-1, 3), (5, 3), (10, 10)):
            with pytest.raises(ConsistencyError, match=f"from size {old} to {new}"):
                await polled.prove(old=old, new=new)


async def test_a_foreign_log_is_polled_and_cosigned_as_it_grows_and_accused_where_it_rewrites(tmp_path: Path) -> None:
    log = Simulator(entries_of(3))
    create_witness(tmp_path / "witness", name="witness.example", random_bytes=os.urandom)
    witness = open_witness(tmp_path / "witness", now_ms=lambda: 1_790_000_000_000)
    known = KnownLog(origin=simulator.ORIGIN, vkeys=(simulator.ED25519.vkey,))
    witness.add_log(known)
    async with log.serving() as url:
        poller = Poller(
            witness=witness,
            connect=lambda log: PolledRemoteLog(url),
            settings=WitnessSettings(),
            accusations=Accusations(tmp_path / "accusations"),
        )
        for size in (3, 300, 700):
            log.show(entries_of(size))
            await poller.poll(known)
            cosigned = witness.store.find_cosigned(simulator.ORIGIN)
            assert cosigned is not None
            assert (cosigned.size, cosigned.root) == (size, log.root(size))
        log.show([b"another", *entries_of(800)])
        await poller.poll(known)
    assert witness.store.find_cosigned(simulator.ORIGIN) == cosigned
    assert len(list((tmp_path / "accusations").iterdir())) == 1
    witness.store.close()


# Logs that lie


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/001", "tile/0/002.p/188", "tile/1/000.p/2"])
async def test_a_proof_is_made_of_no_hash_that_is_not_in_the_tree(path: str) -> None:
    log = Simulator(entries_of(700))
    log.files[path] = flip(log.files[path], 5)
    refused = []
    async with polling(log) as polled:
        await polled.fetch()
        for old in (1, 257, 513):
            try:
                assert await polled.prove(old=old, new=700) == log.oracle.proof(old, 0, 700)
            except VerificationError as error:
                refused.append(error.code)
    assert set(refused) == {"tile-mismatch"}


@pytest.mark.parametrize("data", [b"", b"short", bytes(32 * 44 - 1)])
async def test_a_tile_that_is_too_short_is_no_tile(data: bytes) -> None:
    log = Simulator(entries_of(300))
    log.files["tile/0/001.p/44"] = data
    async with polling(log) as polled:
        await polled.fetch()
        with pytest.raises(VerificationError):
            await polled.prove(old=100, new=300)


async def test_another_history_gives_a_proof_that_does_not_lead_to_it() -> None:
    before = Simulator(entries_of(300))
    async with polling(before) as polled:
        await polled.fetch()
        before_oracle = before.oracle
        before.show([*entries_of(299), b"another", *entries_of(100)])
        await polled.fetch()
        proof = await polled.prove(old=300, new=400)
        assert is_proof(proof, old=300, new=400, before=before.oracle, after=before.oracle)
        assert not is_proof(proof, old=300, new=400, before=before_oracle, after=before.oracle)
        await polled.fetch()
        assert is_proof(await polled.prove(old=299, new=400), old=299, new=400, before=before_oracle, after=before.oracle)


async def test_a_checkpoint_of_a_size_that_is_not_there_ends_with_the_first_tile_that_is_missing() -> None:
    log = Simulator(entries_of(300))
    log.files["checkpoint"] = sign_head(2**63 - 1, bytes(32))
    async with polling(log) as polled:
        await polled.fetch()
        with pytest.raises(RemoteError) as caught:
            await polled.prove(old=300, new=2**63 - 1)
    assert caught.value.status == 404
    assert len(log.requests) <= 3


@pytest.mark.parametrize(
    "served_note", [b"", b"<html>", b"log.example\n5\n", b"a\nb\nc\n\n\xe2\x80\x94 x AAAAAAAA\n", b"\xff" * 9, b"o\n1\n"]
)
async def test_what_is_no_checkpoint_is_refused_and_leaves_the_last_one(served_note: bytes) -> None:
    log = Simulator(entries_of(9))
    async with polling(log) as polled:
        await polled.fetch()
        log.files["checkpoint"] = served_note
        with pytest.raises(MalformedError):
            await polled.fetch()
        assert await polled.prove(old=4, new=9) == log.oracle.proof(4, 0, 9)


async def test_a_checkpoint_without_end_is_not_read_for_long() -> None:
    log = Simulator(entries_of(9))
    log.answers["checkpoint"] = respond(200, bytes(NOTE_BYTES_MAX + 1))
    async with polling(log) as polled:
        with pytest.raises(RemoteError, match="more than"):
            await polled.fetch()


@pytest.mark.parametrize("path", ["checkpoint", "tile/0/001.p/44"])
async def test_a_log_that_keeps_us_waiting_is_given_up_in_time(path: str) -> None:
    log = Simulator(entries_of(300))
    log.answers[path] = log.hang
    async with polling(log, timeout_ms=SHORT_MS) as polled:
        begin = time.monotonic()
        if path != "checkpoint":
            await polled.fetch()
        with pytest.raises(RemoteError, match=f"longer than {SHORT_MS} ms"):
            await (polled.fetch() if path == "checkpoint" else polled.prove(old=100, new=300))
        assert time.monotonic() - begin < 0.7


async def test_trouble_that_passes_is_waited_out_and_refusals_are_told(waits: list[float]) -> None:
    log = Simulator(entries_of(300))
    honest = respond(200, log.files["checkpoint"])
    log.answers["checkpoint"] = respond(503, headers={"Retry-After": "7"}, times=2, then=honest)
    log.answers["tile/0/001.p/44"] = respond(403)
    async with polling(log) as polled:
        await polled.fetch()
        assert waits == [7.0, 7.0]
        with pytest.raises(RemoteError) as caught:
            await polled.prove(old=100, new=300)
    assert caught.value.status == 403


async def test_redirects_are_not_followed() -> None:
    log = Simulator(entries_of(9))

    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/other"})

    log.answers["checkpoint"] = redirect
    log.files["other"] = log.files["checkpoint"]
    async with polling(log) as polled:
        with pytest.raises(RemoteError, match="redirects are not followed"):
            await polled.fetch()
    assert log.count("other") == 0


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(MalformedError):
        PolledRemoteLog("ftp://log.example")
