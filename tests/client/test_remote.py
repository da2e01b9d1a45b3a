"""RemoteLog: reads honest logs, ours and other people's, and refuses every lie."""

import gzip
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from core.merkle_oracle import Oracle

from client.serving import make_log, policy_for, served, url_of
from client.simulator import (
    ED25519,
    MLDSA44,
    POLICY,
    STRANGER,
    Simulator,
    entries_of,
    entry_at,
    flip,
    policy_of,
    respond,
    sign_head,
)
from translog.client import transport
from translog.client.remote import RemoteLog
from translog.client.submit import Submitter
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.merkle import hash_leaf, verify_consistency
from translog.core.note import NOTE_BYTES_MAX, sign_note
from translog.core.policy import Policy, parse_policy
from translog.core.proof import verify_receipt
from translog.errors import (
    ConsistencyError,
    InclusionError,
    MalformedError,
    QuorumError,
    RemoteError,
    SignatureError,
    VerificationError,
)

SIZES = (0, 1, 255, 256, 257, 700)


@asynccontextmanager
async def reading(simulator: Simulator, policy: Policy = POLICY, *, token: str | None = None) -> AsyncIterator[RemoteLog]:
    """A client of the simulator that has seen its checkpoint."""
    async with simulator.serving() as url, RemoteLog(url, policy, token=token) as remote:
        await remote.refresh()
        yield remote


@asynccontextmanager
async def about_to_read(
    simulator: Simulator, policy: Policy = POLICY, *, timeout_ms: int = transport.TIMEOUT_MS
) -> AsyncIterator[RemoteLog]:
    """The same before the first refresh."""
    async with simulator.serving() as url, RemoteLog(url, policy, timeout_ms=timeout_ms) as remote:
        yield remote


async def check_everything(remote: RemoteLog, oracle: Oracle, policy: Policy) -> None:
    """Entries, roots, both kinds of proof and receipts are the oracle's."""
    entries = oracle.entries
    size = len(entries)
    assert remote.latest.checkpoint.size == size
    assert await remote.entries(start=0, end=size) == list(entries)
    edges = sorted({0, 1, 2, 254, 255, 256, 257, size // 2, size - 1, size} & set(range(size + 1)))
    for start, end in itertools.combinations(edges, 2):
        assert await remote.entries(start=start, end=end) == list(entries[start:end])
    for old, new in itertools.combinations_with_replacement(edges, 2):
        assert await remote.root(new) == oracle.mth(0, new)
        if old:
            proof = await remote.prove_consistency(old=old, new=new)
            assert proof == oracle.proof(old, 0, new)
            verify_consistency(old=old, new=new, proof=proof, old_root=oracle.mth(0, old), new_root=oracle.mth(0, new))
        if old < new:
            assert await remote.prove_inclusion(index=old, size=new) == oracle.path(old, 0, new)
    for index in edges[:-1]:
        receipt = await remote.receipt(index)
        verified = verify_receipt(receipt, leaf_hash=hash_leaf(entries[index]), policy=policy)
        assert (verified.index, verified.checkpoint.checkpoint.size) == (index, size)
        with pytest.raises(InclusionError):
            verify_receipt(receipt, leaf_hash=hash_leaf(b"another entry"), policy=policy)


# Honest logs


@pytest.mark.parametrize("size", SIZES)
async def test_foreign_log_of_any_size_reads_as_the_oracle_says(size: int) -> None:
    simulator = Simulator(entries_of(size))
    async with reading(simulator) as remote:
        await check_everything(remote, simulator.oracle, POLICY)


async def test_our_own_log_reads_as_the_oracle_says_as_it_grows(tmp_path: Path) -> None:
    vkeys = make_log(tmp_path / "log")
    policy = policy_for(vkeys)
    entries = entries_of(max(SIZES))
    async with served(tmp_path / "log") as server, RemoteLog(url_of(server), policy) as remote, Submitter(url_of(server)) as to:
        written = 0
        for size in SIZES:
            if size > written:
                await to.append(entries[written:size], policy)
            written = size
            await remote.refresh()
            await check_everything(remote, Oracle(entries[:size]), policy)


async def test_checkpoint_signed_with_both_key_types_is_read_under_either_policy() -> None:
    simulator = Simulator(entries_of(10))
    simulator.show_head(10, ED25519, MLDSA44)
    for skey in (ED25519, MLDSA44):
        async with reading(simulator, policy_of(skey)) as remote:
            assert [item.vkey for item in remote.latest.signed] == [skey.vkey]


@pytest.mark.parametrize("status", [404, 410])
async def test_partial_tiles_that_are_gone_are_cut_from_the_full_ones(status: int) -> None:
    simulator = Simulator(entries_of(700))
    simulator.show_head(300)
    for path in ("tile/0/001.p/44", "tile/entries/001.p/44"):
        simulator.answers[path] = respond(status)
    simulator.answers["tile/1/000.p/1"] = respond(200, simulator.files["tile/1/000.p/2"])  # wider than asked for
    async with reading(simulator) as remote:
        assert await remote.entries(start=250, end=300) == entries_of(300)[250:]
        assert await remote.prove_inclusion(index=299) == simulator.oracle.path(299, 0, 300)


async def test_partial_tile_that_is_gone_without_a_full_one_is_reported_as_missing() -> None:
    simulator = Simulator(entries_of(300))
    simulator.answers["tile/0/001.p/44"] = respond(404)
    async with reading(simulator) as remote:
        with pytest.raises(RemoteError) as caught:
            await remote.prove_inclusion(index=0)
        assert caught.value.status == 404


async def test_other_failures_of_a_partial_tile_do_not_lead_to_the_full_one() -> None:
    simulator = Simulator(entries_of(700))
    simulator.show_head(300)
    simulator.answers["tile/0/001.p/44"] = respond(403)
    async with reading(simulator) as remote:
        with pytest.raises(RemoteError):
            await remote.prove_inclusion(index=0)
        assert simulator.count("tile/0/001") == 0


async def test_answers_compressed_without_being_asked_are_read() -> None:
    simulator = Simulator(entries_of(300))
    simulator.gzip = True
    async with reading(simulator) as remote:
        assert await remote.entries(start=0, end=300) == entries_of(300)


async def test_an_encoding_nobody_knows_is_refused() -> None:
    simulator = Simulator(entries_of(3))
    simulator.answers["checkpoint"] = respond(200, b"noise", headers={"Content-Encoding": "gzip"})
    async with about_to_read(simulator) as remote:
        with pytest.raises(RemoteError):
            await remote.refresh()


async def test_authenticated_tiles_are_fetched_once() -> None:
    simulator = Simulator(entries_of(700))
    async with reading(simulator) as remote:
        for index in (0, 1, 255):
            await remote.prove_inclusion(index=index)
        assert simulator.count("tile/0/000") == 1


async def test_token_is_sent_as_bearer() -> None:
    simulator = Simulator(entries_of(1))
    async with reading(simulator, token="secret") as remote:
        await remote.entries(start=0, end=1)
    assert {request.headers.get("Authorization") for request in simulator.requests} == {"Bearer secret"}


async def test_without_a_token_there_is_no_authorization() -> None:
    simulator = Simulator(entries_of(1))
    async with reading(simulator):
        pass
    assert all("Authorization" not in request.headers for request in simulator.requests)


async def test_nothing_can_be_asked_before_the_first_checkpoint() -> None:
    async with RemoteLog("http://127.0.0.1:1", POLICY) as remote:
        with pytest.raises(RemoteError, match="no checkpoint was fetched yet"):
            await remote.entries(start=0, end=0)


@pytest.mark.parametrize("url", ["", "log.example", "ftp://log.example", "file:///etc/passwd", " http://log.example"])
def test_only_http_urls_are_taken(url: str) -> None:
    with pytest.raises(MalformedError, match="not a log's URL"):
        RemoteLog(url, POLICY)


async def test_a_trailing_slash_changes_nothing() -> None:
    simulator = Simulator(entries_of(1))
    async with simulator.serving() as url, RemoteLog(url + "//", POLICY) as remote:
        assert (await remote.refresh()).checkpoint.size == 1


async def test_ranges_outside_the_log_are_refused_without_asking_it() -> None:
    simulator = Simulator(entries_of(5))
    async with reading(simulator) as remote:
        for start, end in ((-1, 2), (3, 2), (0, 6), (6, 6)):
            with pytest.raises(InclusionError):
                await remote.entries(start=start, end=end)
        for index, size in ((-1, 5), (5, 5), (0, 6), (0, 0)):
            with pytest.raises(InclusionError):
                await remote.prove_inclusion(index=index, size=size)
        for old, new in ((0, 5), (3, 2), (1, 6), (-1, 3)):
            with pytest.raises(ConsistencyError):
                await remote.prove_consistency(old=old, new=new)
        for size in (-1, 6):
            with pytest.raises(ConsistencyError):
                await remote.root(size)
    assert [request.path for request in simulator.requests] == ["/checkpoint"]


# Lies in files


@pytest.mark.parametrize("where", ["first", "middle", "last"])
async def test_one_changed_byte_in_any_tile_or_bundle_is_refused(where: str) -> None:
    simulator = Simulator(entries_of(300))
    honest = dict(simulator.files)
    paths = [path for path in honest if path != "checkpoint"]
    assert len(paths) == 5
    async with simulator.serving() as url:
        for path in paths:
            at = {"first": 0, "middle": len(honest[path]) // 2, "last": len(honest[path]) - 1}[where]
            simulator.files = honest | {path: flip(honest[path], at)}
            async with RemoteLog(url, POLICY) as remote:
                await remote.refresh()
                with pytest.raises((VerificationError, MalformedError)):
                    await remote.entries(start=0, end=300)
        simulator.files = honest
        async with RemoteLog(url, POLICY) as remote:
            await remote.refresh()
            assert len(await remote.entries(start=0, end=300)) == 300


@pytest.mark.parametrize("lie", [lambda data: b"", lambda data: data[:-1], lambda data: data[:-32], lambda data: data[32:]])
async def test_tiles_cut_short_are_refused(lie: object) -> None:
    assert callable(lie)
    simulator = Simulator(entries_of(300))
    simulator.files["tile/0/000"] = lie(simulator.files["tile/0/000"])
    async with reading(simulator) as remote:
        with pytest.raises(VerificationError) as caught:
            await remote.prove_inclusion(index=0)
        assert caught.value.code == "tile-mismatch"


@pytest.mark.parametrize("bundle", [b"", b"\0", b"\0\1", b"\0\0" * 255, b"\0\0" * 257, b"\xff\xff" + bytes(65_535)])
async def test_bundles_of_the_wrong_length_are_refused(bundle: bytes) -> None:
    simulator = Simulator([b""] * 256)
    simulator.files["tile/entries/000"] = bundle
    async with reading(simulator) as remote:
        with pytest.raises((MalformedError, InclusionError)):
            await remote.entries(start=0, end=256)


async def test_entries_in_another_order_are_refused() -> None:
    simulator = Simulator([b"a", b"b"])
    simulator.files["tile/entries/000.p/2"] = b"\0\1b\0\1a"
    async with reading(simulator) as remote:
        with pytest.raises(InclusionError, match="entry 0 is not the one"):
            await remote.entries(start=0, end=2)


async def test_every_changed_byte_of_a_checkpoint_is_refused() -> None:
    simulator = Simulator(entries_of(3))
    honest = simulator.files["checkpoint"]
    async with about_to_read(simulator) as remote:
        for at in range(len(honest)):
            simulator.files["checkpoint"] = flip(honest, at)
            with pytest.raises((MalformedError, SignatureError)):
                await remote.refresh()
        simulator.files["checkpoint"] = honest
        await remote.refresh()


@pytest.mark.parametrize("cut", [0, 1, 20, 60, -1])
async def test_checkpoints_cut_short_are_refused(cut: int) -> None:
    simulator = Simulator(entries_of(3))
    simulator.files["checkpoint"] = simulator.files["checkpoint"][:cut]
    async with about_to_read(simulator) as remote:
        with pytest.raises(MalformedError):
            await remote.refresh()


async def test_checkpoints_of_unknown_keys_are_refused() -> None:
    simulator = Simulator(entries_of(3))
    simulator.show_head(3, STRANGER)
    async with about_to_read(simulator) as remote:
        with pytest.raises(SignatureError) as caught:
            await remote.refresh()
        assert caught.value.code == "unknown-key"


async def test_checkpoints_without_the_quorum_are_refused() -> None:
    witness = SKey(name="witness.example", type=KeyType.COSIGNATURE_ED25519, seed=bytes(32))
    policy = parse_policy(f"log {ED25519.vkey}\nwitness w {witness.vkey}\nquorum w\n".encode())
    simulator = Simulator(entries_of(3))
    async with about_to_read(simulator, policy) as remote:
        with pytest.raises(QuorumError):
            await remote.refresh()
        simulator.show_head(3, ED25519, witness)
        assert [item.name for item in (await remote.refresh()).cosigned] == ["w"]


@pytest.mark.parametrize("text", ["just a text\n", "origin\n3\nAAAA\n", "log.example/foreign\n-1\nx\n"])
async def test_signed_notes_that_are_no_checkpoints_are_refused(text: str) -> None:
    simulator = Simulator(entries_of(3))
    simulator.files["checkpoint"] = sign_note(text, [KeySigner(ED25519)], time_s=1)
    async with about_to_read(simulator) as remote:
        with pytest.raises(MalformedError):
            await remote.refresh()


# Histories


@pytest.mark.parametrize(("old", "new"), [(0, 700), (1, 2), (255, 256), (256, 257), (300, 700), (512, 700), (700, 700)])
async def test_growing_logs_are_followed(old: int, new: int) -> None:
    simulator = Simulator(entries_of(new))
    simulator.show_head(old)
    async with reading(simulator) as remote:
        simulator.show_head(new)
        assert (await remote.refresh()).checkpoint.size == new
        assert remote.latest.checkpoint.size == new
        assert remote.latest_note == simulator.files["checkpoint"]
        assert await remote.entries(start=0, end=new) == entries_of(new)


@pytest.mark.parametrize("older", [0, 1, 255, 256, 699])
async def test_an_older_checkpoint_of_the_same_history_leaves_the_newest_in_place(older: int) -> None:
    simulator = Simulator(entries_of(700))
    async with reading(simulator) as remote:
        newest = remote.latest_note
        simulator.show_head(older)
        assert (await remote.refresh()).checkpoint.size == older
        assert remote.latest.checkpoint.size == 700
        assert remote.latest_note == newest


def forked(size: int, *, at: int) -> list[bytes]:
    """The honest log's entries but one."""
    entries = entries_of(size)
    entries[at] = b"another history"
    return entries


@pytest.mark.parametrize(("seen", "shown", "at"), [(300, 300, 299), (300, 700, 0), (300, 700, 299), (700, 300, 299), (2, 1, 0)])
async def test_two_histories_are_detected_and_the_first_note_kept(seen: int, shown: int, at: int) -> None:
    simulator = Simulator(entries_of(seen))
    fork = Simulator(forked(shown, at=at))
    async with reading(simulator) as remote:
        first = remote.latest_note
        simulator.files = (
            simulator.files | fork.files if shown > seen else simulator.files | {"checkpoint": fork.files["checkpoint"]}
        )
        with pytest.raises(ConsistencyError, match="two histories") as caught:
            await remote.refresh()
        assert "keep both checkpoints" in caught.value.hint
        assert remote.latest_note == first


@pytest.mark.parametrize(("seen", "shown"), [(700, 300), (300, 256), (2, 1)])
async def test_an_older_fork_without_the_tiles_that_were_seen_is_refused(seen: int, shown: int) -> None:
    simulator = Simulator(entries_of(seen))
    async with reading(simulator) as remote:
        first = remote.latest_note
        simulator.show(forked(shown, at=0))
        with pytest.raises((RemoteError, VerificationError)):
            await remote.refresh()
        assert remote.latest_note == first


async def test_a_fork_that_agrees_on_what_was_seen_is_a_continuation() -> None:
    simulator = Simulator(entries_of(300))
    async with reading(simulator) as remote:
        simulator.show(forked(700, at=300))
        assert (await remote.refresh()).checkpoint.size == 700


async def test_a_fork_whose_tiles_belong_to_neither_head_is_refused() -> None:
    simulator = Simulator(entries_of(300))
    async with reading(simulator) as remote:
        simulator.files["checkpoint"] = sign_head(400, bytes(32))
        for path, data in Simulator(entries_of(400)).files.items():
            if path != "checkpoint":
                simulator.files[path] = data
        with pytest.raises(VerificationError):
            await remote.refresh()
        assert remote.latest.checkpoint.size == 300


async def test_another_origin_at_the_same_url_is_no_continuation() -> None:
    other = SKey(name="log.example/other", type=KeyType.ED25519, seed=bytes(32))
    simulator = Simulator(entries_of(3))
    async with reading(simulator, policy_of(ED25519, other)) as remote:
        simulator.files["checkpoint"] = sign_head(3, simulator.root(3), other, origin=other.name)
        with pytest.raises(ConsistencyError, match=r"now says it is 'log\.example/other'"):
            await remote.refresh()


async def _accept_nothing_of_a_fork(remote: RemoteLog, simulator: Simulator) -> None:
    """Sees a fork of 600 entries that contradicts the 300 seen, then goes on with the honest log of 1,000."""
    fork = forked(600, at=5)
    fork[400] = b"forged"
    simulator.show(fork)
    with pytest.raises(ConsistencyError):
        await remote.refresh()
    forged_bundle = simulator.files["tile/entries/001"]
    simulator.show(entries_of(1000))
    await remote.refresh()
    simulator.files["tile/entries/001"] = forged_bundle


async def test_entries_of_a_fork_that_was_refused_are_not_believed_later() -> None:
    simulator = Simulator(entries_of(300))
    async with reading(simulator) as remote:
        await _accept_nothing_of_a_fork(remote, simulator)
        with pytest.raises(InclusionError):
            await remote.entries(start=400, end=401)


async def test_an_honest_log_can_be_read_after_a_fork_was_refused() -> None:
    simulator = Simulator(entries_of(300))
    async with reading(simulator) as remote:
        simulator.show(forked(600, at=5))
        with pytest.raises(ConsistencyError):
            await remote.refresh()
        simulator.show(entries_of(700))
        await remote.refresh()
        assert await remote.entries(start=0, end=700) == entries_of(700)


# Answers that do not end, do not come, or come from elsewhere


async def test_endless_answers_are_cut_off_and_not_asked_for_again() -> None:
    simulator = Simulator(entries_of(3))
    simulator.answers["checkpoint"] = simulator.endless
    async with about_to_read(simulator) as remote:
        with pytest.raises(RemoteError, match=f"more than {NOTE_BYTES_MAX} bytes"):
            await remote.refresh()
    assert simulator.count("checkpoint") == 1


async def test_compressed_bombs_are_cut_off() -> None:
    simulator = Simulator(entries_of(3))
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    simulator.answers["checkpoint"] = respond(200, bomb, headers={"Content-Encoding": "gzip"})
    async with about_to_read(simulator) as remote:
        with pytest.raises(RemoteError, match=f"more than {NOTE_BYTES_MAX} bytes"):
            await remote.refresh()


async def test_tiles_and_bundles_have_limits_of_their_own() -> None:
    simulator = Simulator([b"x"])
    async with reading(simulator) as remote:
        simulator.files["tile/0/000.p/1"] = bytes(256 * 32 + 1)
        with pytest.raises(RemoteError, match="more than 8192 bytes"):
            await remote.prove_inclusion(index=0)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_passing_trouble_is_waited_out_as_long_as_the_log_says(status: int, waits: list[float]) -> None:
    simulator = Simulator(entries_of(3))
    honest = respond(200, simulator.files["checkpoint"])
    simulator.answers["checkpoint"] = respond(status, headers={"Retry-After": "7"}, times=2, then=honest)
    async with reading(simulator) as remote:
        assert remote.latest.checkpoint.size == 3
    assert simulator.count("checkpoint") == 3
    assert waits == [7.0, 7.0]


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2015 07:28:00 GMT", "", "-1", "1.5", "999999999999", "soon"])
async def test_retry_after_that_is_no_number_of_seconds_leads_to_waits_of_our_own(value: str, waits: list[float]) -> None:
    simulator = Simulator(entries_of(3))
    simulator.answers["checkpoint"] = respond(503, headers={"Retry-After": value})
    async with about_to_read(simulator) as remote:
        with pytest.raises(RemoteError) as caught:
            await remote.refresh()
    assert caught.value.status == 503
    assert waits == [0.2, 0.4, 0.8, 1.6]


async def test_a_log_cannot_make_us_wait_for_a_day(waits: list[float]) -> None:
    simulator = Simulator(entries_of(3))
    simulator.answers["checkpoint"] = respond(503, headers={"Retry-After": "86400"})
    async with about_to_read(simulator) as remote:
        with pytest.raises(RemoteError):
            await remote.refresh()
    assert waits == [transport.WAIT_MS_MAX / 1000] * (transport.TRIES_MAX - 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
async def test_refusals_are_not_asked_again_and_name_url_status_and_reason(status: int) -> None:
    simulator = Simulator(entries_of(3))
    body = b'{"code":"a-code","detail":"some reason","hint":"do that"}'
    simulator.answers["checkpoint"] = respond(status, body)
    async with about_to_read(simulator) as remote:
        with pytest.raises(RemoteError) as caught:
            await remote.refresh()
    assert simulator.count("checkpoint") == 1
    error = caught.value
    assert (error.status, error.code, error.hint) == (status, "a-code", "do that")
    assert error.detail.endswith(f"/checkpoint answers {status}: some reason")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"detail":{}}', b"[" * 100_000, b"\xff", b'{"code":1e999}'])
async def test_errors_of_any_shape_become_remote_errors(body: bytes) -> None:
    simulator = Simulator(entries_of(3))
    simulator.answers["checkpoint"] = respond(500, body)
    async with about_to_read(simulator) as remote:
        with pytest.raises(RemoteError) as caught:
            await remote.refresh()
    assert caught.value.status == 500


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    elsewhere = Simulator(entries_of(3))
    simulator = Simulator(entries_of(3))
    async with elsewhere.serving() as url, simulator.serving() as here, RemoteLog(here, POLICY, token="secret") as remote:
        simulator.answers["checkpoint"] = respond(status, headers={"Location": f"{url}/checkpoint"})
        with pytest.raises(RemoteError) as caught:
            await remote.refresh()
    assert caught.value.status == status
    assert not elsewhere.requests


async def test_a_log_that_hangs_is_given_up() -> None:
    simulator = Simulator(entries_of(3))
    simulator.answers["checkpoint"] = simulator.hang
    async with about_to_read(simulator, timeout_ms=50) as remote:
        with pytest.raises(RemoteError, match="lost"):
            await remote.refresh()
    assert simulator.count("checkpoint") == transport.TRIES_MAX


async def test_connections_that_break_are_tried_again_and_then_reported() -> None:
    simulator = Simulator(entries_of(3))
    simulator.answers["checkpoint"] = simulator.close_early
    async with about_to_read(simulator) as remote:
        with pytest.raises(RemoteError, match="lost"):
            await remote.refresh()
    assert simulator.count("checkpoint") == transport.TRIES_MAX


async def test_a_connection_that_breaks_once_does_no_harm() -> None:
    simulator = Simulator(entries_of(3))
    honest = respond(200, simulator.files["checkpoint"])
    times = itertools.count()

    async def once(request: web.Request) -> web.StreamResponse:
        return await (simulator.close_early if next(times) == 0 else honest)(request)

    simulator.answers["checkpoint"] = once
    async with reading(simulator) as remote:
        assert remote.latest.checkpoint.size == 3


async def test_nobody_there_is_an_unreached_log() -> None:
    async with RemoteLog("http://127.0.0.1:1", POLICY) as remote:
        with pytest.raises(RemoteError, match=r"cannot reach http://127\.0\.0\.1:1") as caught:
            await remote.refresh()
    assert caught.value.status is None
    assert "is the log running" in caught.value.hint


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999", "http://a..b", "http://[::1"])
async def test_urls_that_lead_nowhere_are_remote_errors(url: str) -> None:
    async with RemoteLog(url, POLICY) as remote:
        with pytest.raises(RemoteError):
            await remote.refresh()


async def test_any_range_can_be_read_from_a_log_that_has_only_the_bundles_of_its_size() -> None:
    simulator = Simulator(entries_of(700))
    async with reading(simulator) as remote:
        assert await remote.entries(start=512, end=513) == [entry_at(512)]


async def test_only_tiles_that_the_checkpoint_implies_are_asked_for() -> None:
    simulator = Simulator(entries_of(700))
    async with reading(simulator) as remote:
        assert await remote.entries(start=0, end=10) == entries_of(10)
    assert {request.path.removeprefix("/") for request in simulator.requests} <= set(simulator.files)
