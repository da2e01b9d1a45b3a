"""tlog-witness over HTTP: statuses, types and bodies as the specification has them, down to the bytes, and nothing learned from
requests."""

import asyncio
import gzip
import re
import threading
import unittest.mock
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from translog.core.cosignature import KeyVerifier
from translog.core.keys import KeyType, VKey
from translog.core.note import open_note
from translog.core.policy import parse_policy
from translog.errors import StorageError
from translog.server import witness_api
from translog.server.api import Route
from translog.server.settings import ServerSettings
from translog.server.witness_app import WITNESS_PUBLIC_ROUTES
from translog.witness.loglist import KnownLog
from translog.witness.protocol import REQUEST_BYTES_MAX, Cosigned
from translog.witness.store import WitnessStore
from translog.witnessing import WitnessServer, add_logs, new_witness, read_witness_file

from .conftest import Serve
from .harness import PATIENCE_S, PROBLEM, Answer, connection, parse_answer, raw, request_bytes, until
from .witness_log import OTHER, MadeLog, forged_line, lines_of, spoiled

NAME = "w.example/witness"
ADD = "/add-checkpoint"


@dataclass(kw_only=True)
class RunningWitness:
    """A witness that is being served, and a log that it knows."""

    server: WitnessServer
    directory: Path
    log: MadeLog

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        return self.server.witness.vkeys

    async def get(self, path: str, *lines: str, method: str = "GET") -> Answer:
        return await raw(self.server.address, request_bytes(method, path, *lines))

    async def add(self, body: bytes, *lines: str) -> Answer:
        return await raw(self.server.address, request_bytes("POST", ADD, f"Content-Length: {len(body)}", *lines, body=body))

    async def cosign(self, old: int, size: int) -> Answer:
        """Has the log's checkpoint cosigned."""
        answer = (await self.add(self.log.request(old, size))).require_ok()
        self.log.require_cosigned(size, answer.body, self.vkeys)
        return answer


@pytest.fixture
async def witness(tmp_path: Path) -> AsyncIterator[RunningWitness]:
    directory, log = tmp_path / "witness", MadeLog()
    new_witness(directory, name=NAME)
    add_logs(directory, [KnownLog(origin=log.origin, vkeys=tuple(log.vkeys))])
    server = WitnessServer(
        directory, read_witness_file(directory, overrides={"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"})
    )
    await server.start()
    try:
        yield RunningWitness(server=server, directory=directory, log=log)
    finally:
        await server.stop()


def require_size(answer: Answer, size: int) -> None:
    """The one 409 that tells a size."""
    assert answer.status == 409
    assert answer.headers["Content-Type"] == "text/x.tlog.size"
    assert answer.body == b"%d\n" % size
    assert answer.headers["Cache-Control"] == "no-store"


LOG = MadeLog()
BEGUN = 3
"""Size that is cosigned before a row's request is sent."""


def text_of(note: bytes) -> bytes:
    """A note's text and the empty line below it."""
    return note[: note.index(b"\n\n") + 2]


def corrupt(note: bytes, number: int) -> bytes:
    """The note with one of its lines spoiled."""
    lines = lines_of(note)
    lines[number] = spoiled(lines[number])
    return text_of(note) + b"".join(lines)


NOTE_5 = LOG.note(5)
PROOF = LOG.proof(BEGUN, 5)
STRANGER = MadeLog("log.example/stranger")
FORK = MadeLog(entries=OTHER)

ROWS: dict[str, tuple[bytes, int, str]] = {
    # 400: what does not parse
    "empty body": (b"", 400, "malformed"),
    "no old line": (b"\n" + NOTE_5, 400, "malformed"),
    "old is no number": (b"old x\n\n" + NOTE_5, 400, "malformed"),
    "old has a leading zero": (b"old 03\n\n" + NOTE_5, 400, "malformed"),
    "old is negative": (b"old -3\n\n" + NOTE_5, 400, "malformed"),
    "old is beyond 2^63-1": (b"old 9223372036854775808\n\n" + NOTE_5, 400, "malformed"),
    "carriage returns": (LOG.request(BEGUN, 5).replace(b"\n", b"\r\n"), 400, "malformed"),
    "a hash is no base64": (b"old 3\n!!!!\n\n" + NOTE_5, 400, "malformed"),
    "a hash is too short": (b"old 3\nAAAA\n\n" + NOTE_5, 400, "malformed"),
    "64 hashes": (LOG.request(BEGUN, 5, proof=[bytes(32)] * 64), 400, "malformed"),
    "no empty line": (b"old 3\n", 400, "malformed"),
    "no note": (b"old 3\n\n", 400, "malformed"),
    "a note without signatures": (b"old 3\n\n" + text_of(NOTE_5), 400, "malformed"),
    "a note that is cut": (LOG.request(BEGUN, 5)[:-1], 400, "malformed"),
    "a checkpoint without a root": (b"old 3\n\n" + LOG.origin.encode() + b"\n5\n\n" + lines_of(NOTE_5)[0], 400, "malformed"),
    "extension lines": (LOG.request(BEGUN, 5, note=NOTE_5.replace(b"\n\n", b"\nextension\n\n", 1)), 400, "malformed"),
    "not UTF-8": (b"old 3\n\n\xff\xfe" + NOTE_5, 400, "malformed"),
    # 404 before any signature is looked at
    "an unknown origin": (STRANGER.request(0, 5), 404, "unknown-log"),
    "an unknown origin with a known log's lines": (
        LOG.request(BEGUN, 5, note=NOTE_5.replace(LOG.origin.encode(), b"log.example/none", 1)),
        404,
        "unknown-log",
    ),
    # 403
    "signed by nobody known": (
        b"old 3\n\n" + text_of(NOTE_5) + lines_of(STRANGER.note(5))[0],
        403,
        "unknown-key",
    ),
    "one of two lines does not verify": (
        LOG.request(BEGUN, 5, note=corrupt(NOTE_5, 1)),
        403,
        "bad-signature",
    ),
    "signatures of another checkpoint": (
        LOG.request(BEGUN, 5, note=text_of(NOTE_5) + b"".join(lines_of(LOG.note(6)))),
        403,
        "bad-signature",
    ),
    "403 comes before 400 of sizes": (
        LOG.request(9, 5, proof=[], note=corrupt(NOTE_5, 0)),
        403,
        "bad-signature",
    ),
    # 400 again, once the signature is good
    "old is above the size": (LOG.request(6, 5, proof=[]), 400, "malformed"),
    # 409
    "old 0, to learn the size": (LOG.request(0, 5), 409, ""),
    "old is below": (LOG.request(2, 5), 409, ""),
    "old is above": (LOG.request(4, 5), 409, ""),
    "409 comes before 422 of proofs": (LOG.request(4, 5, proof=[bytes(32)]), 409, ""),
    "going back": (LOG.request(2, 2, proof=[]), 409, ""),
    # 422
    "another root at the same size": (FORK.request(BEGUN, BEGUN), 422, "inconsistent"),
    "a proof at the same size": (LOG.request(BEGUN, BEGUN, proof=[bytes(32)]), 422, "inconsistent"),
    "no proof": (LOG.request(BEGUN, 5, proof=[]), 422, "inconsistent"),
    "a proof of something else": (LOG.request(BEGUN, 5, proof=LOG.proof(2, 5)), 422, "inconsistent"),
    "a proof that is too long": (LOG.request(BEGUN, 5, proof=[*PROOF, bytes(32)]), 422, "inconsistent"),
    "a proof of 63 hashes": (LOG.request(BEGUN, 5, proof=[bytes(32)] * 63), 422, "inconsistent"),
    "a fork that proves itself": (FORK.request(BEGUN, 5), 422, "inconsistent"),
    # 200
    "growth": (LOG.request(BEGUN, 5), 200, ""),
    "the same size": (LOG.request(BEGUN, BEGUN), 200, ""),
    "growth by much": (LOG.request(BEGUN, 40), 200, ""),
    "only one of the log's lines": (
        LOG.request(BEGUN, 5, note=text_of(NOTE_5) + lines_of(NOTE_5)[1]),
        200,
        "",
    ),
    "lines of others": (LOG.request(BEGUN, 5, note=NOTE_5 + b"".join(lines_of(STRANGER.note(5)))), 200, ""),
}


@pytest.mark.parametrize(("body", "status", "code"), list(ROWS.values()), ids=list(ROWS))
async def test_every_request_has_its_answer(witness: RunningWitness, body: bytes, status: int, code: str) -> None:
    begun = await witness.cosign(0, BEGUN)
    shown = await witness.get(witness.log.path)
    answer = await witness.add(body)
    if status == 200:
        size = int(body.partition(b"\n\n")[2].split(b"\n")[1])
        assert answer.require_ok().headers["Content-Type"] == "text/plain; charset=utf-8"
        witness.log.require_cosigned(size, answer.body, witness.vkeys)
        assert (await witness.get(witness.log.path)).size == size
        return
    if status == 409:
        require_size(answer, BEGUN)
    else:
        answer.problem(status, code)
    assert begun.body not in answer.body
    assert (await witness.get(witness.log.path)).body == shown.body


EMPTY_ROWS: dict[str, tuple[bytes, int]] = {
    "the empty tree": (LOG.request(0, 0), 200),
    "an empty tree with a root of something": (LOG.request(0, 0, note=LOG.note(0, root=bytes(32))), 422),
    "a proof from nothing": (LOG.request(0, 5, proof=[bytes(32)]), 422),
    "a proof from nothing to nothing": (LOG.request(0, 0, proof=[bytes(32)]), 422),
    "from nothing": (LOG.request(0, 5), 200),
    "from something": (LOG.request(3, 5), 409),
}


@pytest.mark.parametrize(("body", "status"), list(EMPTY_ROWS.values()), ids=list(EMPTY_ROWS))
async def test_every_first_request_has_its_answer(witness: RunningWitness, body: bytes, status: int) -> None:
    (await witness.get(witness.log.path)).problem(404)
    answer = await witness.add(body)
    assert answer.status == status
    if status == 409:
        require_size(answer, 0)
    assert (await witness.get(witness.log.path)).status == (200 if status == 200 else 404)


async def test_a_log_that_lost_its_place_learns_it_with_one_request(witness: RunningWitness) -> None:
    await witness.cosign(0, 3)
    await witness.cosign(3, 8)
    told = await witness.add(witness.log.request(0, 9))
    require_size(told, 8)
    await witness.cosign(int(told.body), 9)


async def test_an_answer_has_the_witness_s_lines_only_and_the_shown_note_those_of_the_log_too(witness: RunningWitness) -> None:
    forged = forged_line(witness.vkeys[0], 2428) + forged_line(witness.vkeys[1], 72)
    body = witness.log.request(0, 5, note=witness.log.note(5) + forged + b"".join(lines_of(STRANGER.note(5))))
    answer = (await witness.add(body)).require_ok()
    witness.log.require_cosigned(5, answer.body, witness.vkeys)
    shown = (await witness.get(witness.log.path)).require_ok()
    assert shown.headers["Content-Type"] == "text/plain; charset=utf-8"
    keys = [*witness.log.vkeys, *witness.vkeys]
    opened = open_note(shown.body, [KeyVerifier(vkey) for vkey in keys])
    assert {line.key_id for line in opened.verified} == {vkey.key_id for vkey in keys}
    assert not opened.unverified


async def test_the_shown_checkpoint_is_not_kept_by_others_for_long(witness: RunningWitness) -> None:
    await witness.cosign(0, 5)
    cache = (await witness.get(witness.log.path)).headers["Cache-Control"]
    age = re.fullmatch(r"no-store|max-age=([0-9]+)", cache)
    assert age is not None
    assert int(age[1] or 0) <= 60


@pytest.mark.parametrize("path", [LOG.path.upper(), "/x/checkpoint", "/" + "0" * 64 + "/checkpoint", "/%2e%2e/checkpoint"])
async def test_what_was_never_cosigned_is_404(witness: RunningWitness, path: str) -> None:
    await witness.cosign(0, 5)
    (await witness.get(path)).problem(404)


async def test_a_request_may_be_compressed(witness: RunningWitness) -> None:
    body = gzip.compress(witness.log.request(0, 5))
    answer = (await witness.add(body, "Content-Encoding: gzip")).require_ok()
    witness.log.require_cosigned(5, answer.body, witness.vkeys)
    (await witness.add(b"old", "Content-Encoding: br")).problem(415)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_request_that_is_too_large_is_413_and_the_largest_is_read(witness: RunningWitness, encoding: str) -> None:
    def encode(body: bytes) -> bytes:
        return gzip.compress(body) if encoding == "gzip" else body

    whole = witness.log.request(0, 5)
    largest = whole + b"x" * (REQUEST_BYTES_MAX - len(whole))
    (await witness.add(encode(largest), f"Content-Encoding: {encoding}")).problem(400, "malformed")
    (await witness.add(encode(largest + b"x"), f"Content-Encoding: {encoding}")).problem(413, "body-too-large")


async def test_a_body_without_a_length_is_bounded_too(witness: RunningWitness) -> None:
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    head = request_bytes("POST", ADD, "Transfer-Encoding: chunked")
    answer = await raw(witness.server.address, head + chunk * 5 + b"0\r\n\r\n")
    answer.problem(413, "body-too-large")


async def test_a_connection_serves_many_requests(witness: RunningWitness) -> None:
    bodies = [witness.log.request(old, new) for old, new in ((0, 2), (0, 9), (2, 9))]
    statuses = []
    async with connection(witness.server.address) as (reader, writer):
        for body in bodies:
            writer.write(f"POST {ADD} HTTP/1.1\r\nHost: w\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            head = await reader.readuntil(b"\r\n\r\n")
            answer = parse_answer(head)
            await reader.readexactly(int(answer.headers["Content-Length"]))
            statuses.append(answer.status)
            assert answer.headers.get("Connection", "").lower() != "close"
    assert statuses == [200, 409, 200]


@pytest.mark.parametrize("route", WITNESS_PUBLIC_ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_head_is_get_without_the_body_and_405_says_what_a_path_takes(witness: RunningWitness, route: Route) -> None:
    await witness.cosign(0, 5)
    path = route.path.replace("/{hash}/checkpoint", witness.log.path)
    allowed = {"POST"} if route.method == "POST" else {"GET", "HEAD"}
    answer = await witness.get(path, method="DELETE")
    answer.problem(405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(",")) == allowed
    if route.method == "GET":
        got, head = await witness.get(path), await witness.get(path, method="HEAD")
        assert got.status == head.status == 200
        assert got.body
        assert head.body == b""
        assert int(head.headers["Content-Length"]) == len(got.body)


async def test_requests_teach_a_witness_nothing(witness: RunningWitness) -> None:
    await witness.cosign(0, 5)
    (await witness.add(STRANGER.request(0, 5))).problem(404, "unknown-log")
    other_keys = MadeLog(witness.log.origin, types=[KeyType.ED25519])
    other_keys.skeys = STRANGER.skeys
    (await witness.add(witness.log.request(5, 9, note=other_keys.note(9)))).problem(403)
    known = witness.server.witness.logs()
    assert [(log.origin, set(log.vkeys)) for log in known] == [(witness.log.origin, set(witness.log.vkeys))]


async def test_a_log_added_while_it_runs_is_cosigned_at_once(witness: RunningWitness) -> None:
    (await witness.add(STRANGER.request(0, 5))).problem(404, "unknown-log")
    add_logs(witness.directory, [KnownLog(origin=STRANGER.origin, vkeys=tuple(STRANGER.vkeys))])
    answer = (await witness.add(STRANGER.request(0, 5))).require_ok()
    STRANGER.require_cosigned(5, answer.body, witness.vkeys)


async def test_of_two_who_race_each_is_told_the_truth(witness: RunningWitness) -> None:
    size = 0
    for new in range(2, 26, 4):
        bodies = [witness.log.request(size, new), witness.log.request(size, new + 1)] * 3
        answers = await asyncio.gather(*map(witness.add, bodies))
        won = {
            int(body.partition(b"\n\n")[2].split(b"\n")[1]) for body, a in zip(bodies, answers, strict=True) if a.status == 200
        }
        assert len(won) == 1, "two trees were cosigned from one size"
        (size,) = won
        assert {answer.status for answer in answers} == {200, 409}
        for answer in answers:
            if answer.status == 409:
                require_size(answer, size)
        assert (await witness.get(witness.log.path)).size == size


async def test_a_log_that_asks_too_often_is_429(witness: RunningWitness) -> None:
    add_logs(witness.directory, [KnownLog(origin=witness.log.origin, vkeys=tuple(witness.log.vkeys), queries_per_day=1)])
    answers = [await witness.add(witness.log.request(old, old + 1)) for old in range(15)]
    assert answers[0].status == 200
    limited = next(answer for answer in answers if answer.status != 200)
    limited.problem(429, "rate-limited")
    assert 60 < int(limited.headers["Retry-After"]) <= 86_400


class HungDisk:
    """A disk on which no write of the witness ends before `go` is called."""

    def __init__(self) -> None:
        self.held = 0
        self._go = threading.Event()

    def wait(self) -> None:
        self.held += 1
        assert self._go.wait(PATIENCE_S)

    def go(self) -> None:
        self._go.set()


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[HungDisk]:
    disk, update = HungDisk(), WitnessStore.update

    def wait_and_update(store: WitnessStore, origin: str, *, old: int, new: Cosigned) -> None:
        disk.wait()
        update(store, origin, old=old, new=new)

    monkeypatch.setattr(WitnessStore, "update", wait_and_update)
    yield disk
    disk.go()


async def test_a_disk_that_hangs_stops_neither_reads_nor_the_refusal_of_more(
    witness: RunningWitness, hung: HungDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_api, "_WAITING_MAX", 2)
    body = witness.log.request(0, 5)
    waiting = [asyncio.ensure_future(witness.add(body)) for _ in range(2)]
    await until(lambda: hung.held == 2)
    (await witness.add(body)).problem(503, "witness-busy")
    (await witness.get("/healthz")).require_ok()
    (await witness.get(witness.log.path)).problem(404)
    hung.go()
    answers = await asyncio.gather(*waiting)
    assert sorted(answer.status for answer in answers) == [200, 409]
    witness.log.require_cosigned(6, (await witness.add(witness.log.request(5, 6))).body, witness.vkeys)


async def test_a_stop_waits_for_what_is_under_way(witness: RunningWitness, hung: HungDisk) -> None:
    answer = asyncio.ensure_future(witness.add(witness.log.request(0, 5)))
    await until(lambda: hung.held == 1)
    stopped = asyncio.ensure_future(witness.server.stop())
    await asyncio.sleep(0.05)
    assert not stopped.done()
    hung.go()
    witness.log.require_cosigned(5, (await answer).require_ok().body, witness.vkeys)
    await stopped


async def test_a_stop_waits_for_the_disk_even_if_nobody_waits_for_the_answer_any_more(
    witness: RunningWitness, hung: HungDisk
) -> None:
    overrides = {"listen": "127.0.0.1:0", "drain_timeout_ms": 10}
    server = WitnessServer(witness.directory, read_witness_file(witness.directory, overrides=overrides))
    await server.start()
    body = witness.log.request(0, 5)
    async with connection(server.address) as (_, writer):
        writer.write(request_bytes("POST", ADD, f"Content-Length: {len(body)}", body=body))
        await until(lambda: hung.held == 1)
        stopped = asyncio.ensure_future(server.stop())
        await asyncio.sleep(1.5)
        assert not stopped.done()
        hung.go()
        await stopped
    assert (await witness.get(witness.log.path)).size == 5


async def test_a_store_that_fails_is_503_and_told_by_readyz(witness: RunningWitness, monkeypatch: pytest.MonkeyPatch) -> None:
    (await witness.get("/readyz")).require_ok()

    def fail(*args: object, **kwargs: object) -> None:
        raise StorageError("the witness's state /secret/path: disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(WitnessStore, "update", fail)
        answer = await witness.add(witness.log.request(0, 5))
        answer.problem(503, "storage")
        assert b"secret" not in answer.body
        assert (await witness.get("/readyz")).status == 503
        assert (await witness.get("/healthz")).status == 200
    await witness.cosign(0, 5)
    (await witness.get("/readyz")).require_ok()


@pytest.mark.parametrize(
    ("remote", "peer"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
    ],
)
def test_failures_are_counted_by_who_can_choose_an_address_and_not_through_proxies(remote: str, peer: str) -> None:
    transport = unittest.mock.Mock(get_extra_info=lambda name, default=None: (remote, 1) if name == "peername" else default)
    request = make_mocked_request("POST", ADD, transport=transport)
    assert request.remote == remote
    assert witness_api._peer(request, ServerSettings()) == peer
    assert witness_api._peer(request, ServerSettings(behind_proxy=True)) == ""


async def test_the_start_page_says_who_it_is_and_its_lines_are_a_policy(witness: RunningWitness) -> None:
    page = (await witness.get("/")).require_ok()
    assert page.headers["Content-Type"] == "text/plain; charset=utf-8"
    text = page.body.decode()
    assert f"This is the witness {NAME}." in text
    assert witness.log.origin not in text
    lines = [line for line in text.splitlines() if line.startswith(("witness ", "group ", "# "))]
    policy = parse_policy("\n".join([f"log {witness.log.vkeys[0]}", *lines, f"quorum {NAME}"]).encode())
    assert {entry.vkey for entry in policy.witnesses.values()} == set(witness.vkeys)


async def test_metrics_count_statuses_and_origins_of_known_logs_only(witness: RunningWitness) -> None:
    await witness.cosign(0, 5)
    await witness.add(STRANGER.request(0, 5))
    await witness.add(witness.log.request(0, 5))
    text = (await raw(witness.server.admin_address, request_bytes("GET", "/metrics"))).require_ok().body.decode()
    assert 'translog_witness_cosigned_total{origin="log.example/made"} 1.0' in text
    assert STRANGER.origin not in text
    for status in (200, 404, 409):
        assert f'translog_public_requests_total{{method="POST",route="/add-checkpoint",status="{status}"}} 1.0' in text
    assert (await witness.get("/metrics")).status == 404


async def test_the_metric_has_so_many_origins_and_no_more(witness: RunningWitness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness_api, "_ORIGINS_MAX", 1)
    add_logs(witness.directory, [KnownLog(origin=STRANGER.origin, vkeys=tuple(STRANGER.vkeys))])
    await witness.cosign(0, 5)
    (await witness.add(STRANGER.request(0, 5))).require_ok()
    await witness.cosign(5, 6)
    text = (await raw(witness.server.admin_address, request_bytes("GET", "/metrics"))).body.decode()
    assert 'translog_witness_cosigned_total{origin="log.example/made"} 2.0' in text
    assert 'translog_witness_cosigned_total{origin="other"} 1.0' in text


async def test_the_document_of_a_witness_is_its_own(witness: RunningWitness) -> None:
    document = (await witness.get("/openapi.json")).require_ok().json
    assert document["info"]["title"] == f"Witness {NAME}"
    assert set(document["paths"]) == {"/", ADD, "/{hash}/checkpoint", "/healthz", "/readyz", "/openapi.json"}
    answers = document["paths"][ADD]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "403", "404", "409", "413", "415", "422", "429", "500", "503"}
    assert "text/x.tlog.size" in answers["409"]["content"]
    assert PROBLEM in answers["422"]["content"]


async def test_a_log_without_the_role_is_no_witness(serve: Serve) -> None:
    running = await serve()
    (await running.post("/witness/add-checkpoint", LOG.request(0, 5))).problem(404, "no-witness")
    (await running.get(f"/witness{LOG.path}")).problem(404, "no-witness")
