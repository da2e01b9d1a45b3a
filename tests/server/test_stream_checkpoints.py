"""A stream's own signed checkpoints: what the log takes, what it refuses, and what they let a member prove."""

import asyncio
import json
import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.keys import KeyType, SKey
from translog.core.note import sign_note
from translog.core.wire import encode_base64
from translog.events.entry import parse_stream_checkpoint
from translog.log import streamtree
from translog.log.access import Mode
from translog.log.streamtree import _stored_root
from translog.storage.leveldb import LevelDBStore
from translog.storage.store import Profile

from .conftest import Serve
from .event_log import by, dumps, entry_bytes, member
from .harness import NDJSON, ORIGIN, Answer, Running

PATH = "/v1/streams/agent"
STREAM_ORIGIN = f"{ORIGIN}/members/acme/agent"
KEY = SKey(name=STREAM_ORIGIN, type=KeyType.ED25519, seed=bytes(32))
OTHER = SKey(name=STREAM_ORIGIN, type=KeyType.ED25519, seed=b"\1" * 32)


def tree_hash(roots: Sequence[bytes], first_seq: int = 0) -> bytes:
    """Straight from RFC 6962, over the leaves that formats.md gives a stream."""
    if len(roots) == 1:
        return sha256(b"\0" + first_seq.to_bytes(8, "big") + roots[0]).digest()
    split = 1 << ((len(roots) - 1).bit_length() - 1)
    left, right = tree_hash(roots[:split], first_seq), tree_hash(roots[split:], first_seq + split)
    return sha256(b"\1" + left + right).digest()


def note(roots: Sequence[bytes], *, key: SKey = KEY, origin: str = STREAM_ORIGIN, size: int | None = None) -> str:
    """The stream's checkpoint after these events."""
    checkpoint = Checkpoint(origin=origin, size=len(roots) if size is None else size, root=tree_hash(roots))
    return sign_note(format_checkpoint(checkpoint), [KeySigner(key)], time_s=1_700_000_000).decode()


def some_roots(count: int) -> list[bytes]:
    return [os.urandom(32) for _ in range(count)]


async def post(log: Running, first_seq: int, roots: Sequence[bytes], checkpoint: Any = None, path: str = PATH) -> Answer:
    lines: list[dict[str, Any]] = [{"first_seq": first_seq}, *({"root": encode_base64(root)} for root in roots)]
    if checkpoint is not None:
        lines.append({"checkpoint": checkpoint})
    return await log.post(path, b"\n".join(map(dumps, lines)), NDJSON, **by("acme"))


@pytest.fixture
async def log(serve: Serve) -> Running:
    """A log that knows the key of acme's stream."""
    return await serve(profile=Profile.EVENTS, members=(member("acme", stream_vkeys=(str(KEY.vkey),)),))


async def checkpoints(log: Running) -> list[str]:
    """Those that were logged."""
    every = [data for data in await entry_bytes(log) if json.loads(data)["translog"] == "stream/1"]
    return [parse_stream_checkpoint(data).note.decode() for data in every]


@pytest.mark.parametrize("sizes", [(1,), (2,), (3, 4), (1, 1, 1, 1, 1), (7, 1, 8, 5)])
async def test_checkpoints_of_a_stream_are_logged_behind_its_events(log: Running, sizes: tuple[int, ...]) -> None:
    roots: list[bytes] = []
    notes = []
    for count in sizes:
        batch = some_roots(count)
        roots += batch
        notes.append(note(roots))
        answer = (await post(log, len(roots) - count, batch, notes[-1])).require_ok().json
        assert [result["seq"] for result in answer["results"]] == list(range(len(roots) - count, len(roots)))
    assert await checkpoints(log) == notes
    kinds = [json.loads(data)["translog"] for data in await entry_bytes(log)]
    assert kinds == ["event/1"] + [kind for count in sizes for kind in (*["event/1"] * count, "stream/1")]


async def test_a_checkpoint_may_cover_batches_that_came_without_one(log: Running) -> None:
    roots = some_roots(9)
    (await post(log, 0, roots[:4])).require_ok()
    (await post(log, 4, roots[4:5])).require_ok()
    (await post(log, 5, roots[5:], note(roots))).require_ok()
    assert await checkpoints(log) == [note(roots)]


async def test_it_holds_over_a_restart(log: Running, serve: Serve) -> None:
    roots = some_roots(5)
    (await post(log, 0, roots[:3], note(roots[:3]))).require_ok()
    await log.server.stop()
    again = await serve(directory=log.directory, members=(member("acme", stream_vkeys=(str(KEY.vkey),)),))
    (await post(again, 3, roots[3:], note(roots))).require_ok()
    assert await checkpoints(again) == [note(roots[:3]), note(roots)]


async def test_a_batch_sent_again_logs_its_checkpoint_once(log: Running) -> None:
    roots = some_roots(3)
    for _ in range(3):
        answer = (await post(log, 0, roots, note(roots))).require_ok().json
    assert [result["duplicate"] for result in answer["results"]] == [True] * 3
    assert await checkpoints(log) == [note(roots)]


async def test_a_right_one_that_comes_late_is_logged_and_a_wrong_one_refused(log: Running) -> None:
    roots = some_roots(5)
    (await post(log, 0, roots[:3])).require_ok()
    (await post(log, 3, roots[3:])).require_ok()
    (await post(log, 0, roots[:3], note(some_roots(3)))).problem(422, "stream-mismatch")
    (await post(log, 3, roots[3:], note(some_roots(5)))).problem(422, "stream-mismatch")
    assert await checkpoints(log) == []
    for first_seq, until in ((0, 3), (1, 5), (3, 5)):
        answer = (await post(log, first_seq, roots[first_seq:until], note(roots[:until]))).require_ok().json
        assert all(result["duplicate"] for result in answer["results"])
    assert await checkpoints(log) == [note(roots[:3]), note(roots)]
    (await post(log, 0, roots, note(some_roots(5)))).problem(422, "stream-mismatch")


async def test_of_a_batch_that_is_sent_many_times_at_once_the_checkpoint_is_logged_once(log: Running) -> None:
    roots = some_roots(3)
    answers = await asyncio.gather(*(post(log, 0, roots, note(roots)) for _ in range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    assert await checkpoints(log) == [note(roots)]


async def test_after_a_restart_one_sent_again_is_logged_once_more_at_most(log: Running, serve: Serve) -> None:
    roots = some_roots(3)
    (await post(log, 0, roots, note(roots))).require_ok()
    await log.server.stop()
    again = await serve(directory=log.directory, members=(member("acme", stream_vkeys=(str(KEY.vkey),)),))
    for _ in range(3):
        (await post(again, 0, roots, note(roots))).require_ok()
    assert await checkpoints(again) == [note(roots)] * 2


async def test_what_many_ask_for_at_once_after_a_restart_is_computed_once(
    log: Running, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = some_roots(200)
    (await post(log, 0, roots[:-1])).require_ok()
    await log.server.stop()
    again = await serve(directory=log.directory, members=(member("acme", stream_vkeys=(str(KEY.vkey),)),))
    read: list[int] = []

    def tell(reader: Any, stream: Any, seq: int) -> bytes:
        read.append(seq)
        return _stored_root(reader, stream, seq)

    monkeypatch.setattr(streamtree, "_stored_root", tell)
    answers = await asyncio.gather(*(post(again, 199, roots[-1:], note(roots)) for _ in range(4)))
    assert [answer.status for answer in answers] == [200] * 4
    assert [read.count(seq) for seq in range(199)] == [1] * 199
    assert len(await checkpoints(again)) == 1


async def test_an_older_one_does_not_make_the_next_one_dearer(log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = some_roots(50)
    (await post(log, 0, roots[:10], note(roots[:10]))).require_ok()
    (await post(log, 10, roots[10:40])).require_ok()
    (await post(log, 40, roots[40:], note(roots))).require_ok()
    (await post(log, 40, roots[40:], note(roots))).require_ok()
    (await post(log, 0, roots[:10], note(roots[:10]))).require_ok()
    read: list[int] = []

    def tell(reader: Any, stream: Any, seq: int) -> bytes:
        read.append(seq)
        return _stored_root(reader, stream, seq)

    monkeypatch.setattr(streamtree, "_stored_root", tell)
    (await post(log, 40, roots[40:], note(roots))).require_ok()
    assert read == []


async def test_of_other_streams_nothing_is_read(log: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_streams(_: LevelDBStore) -> Any:
        raise AssertionError("all streams were read")

    monkeypatch.setattr(LevelDBStore, "read_streams", read_streams)
    roots = some_roots(5)
    (await post(log, 0, roots[:2], note(roots[:2]))).require_ok()
    (await post(log, 1, roots[1:], note(roots))).require_ok()
    (await post(log, 0, roots[:4], note(roots[:4]))).require_ok()


async def test_a_batch_of_which_the_beginning_is_known_has_its_checkpoint_logged(log: Running) -> None:
    roots = some_roots(6)
    (await post(log, 0, roots[:4], note(roots[:4]))).require_ok()
    answer = (await post(log, 2, roots[2:], note(roots))).require_ok().json
    assert [result["duplicate"] for result in answer["results"]] == [True, True, False, False]
    assert await checkpoints(log) == [note(roots[:4]), note(roots)]


ROOTS = [bytes([number]) * 32 for number in range(3)]
BAD = {
    "of other events": (note([b"\7" * 32, *ROOTS[1:]]), 422, "stream-mismatch"),
    "of another order": (note([ROOTS[1], ROOTS[0], ROOTS[2]]), 422, "stream-mismatch"),
    "too small": (note(ROOTS[:2]), 422, "verification-failed"),
    "too large": (note(ROOTS, size=4), 422, "verification-failed"),
    "of another stream": (note(ROOTS, origin=f"{ORIGIN}/members/acme/other"), 422, "verification-failed"),
    "of the log": (note(ROOTS, origin=ORIGIN), 422, "verification-failed"),
    "signed by another key": (note(ROOTS, key=OTHER), 422, "unknown-key"),
    "not signed": (note(ROOTS).partition("\n\n")[0] + "\n\n", 400, "malformed"),
    "changed": (note(ROOTS).replace("acme/agent\n", "acme/agenT\n", 1), 422, "bad-signature"),
    "no note": ("checkpoint", 400, "malformed"),
    "no text": (7, 400, "not-sealed"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_checkpoint_that_does_not_hold_keeps_its_events_out_too(log: Running, name: str) -> None:
    checkpoint, status, code = BAD[name]
    (await post(log, 0, ROOTS, checkpoint)).problem(status, code)
    assert len(await entry_bytes(log)) == 1
    (await post(log, 0, ROOTS, note(ROOTS))).require_ok()


@pytest.mark.parametrize("vkeys", [(), (str(SKey(name="other", type=KeyType.ED25519, seed=bytes(32)).vkey),)])
async def test_without_a_key_of_the_stream_no_checkpoint_is_taken(serve: Serve, vkeys: tuple[str, ...]) -> None:
    log = await serve(profile=Profile.EVENTS, members=(member("acme", stream_vkeys=vkeys),))
    (await post(log, 0, ROOTS, note(ROOTS))).problem(403, "no-stream-key")
    assert len(await entry_bytes(log)) == 1


async def test_a_gap_is_still_a_gap(log: Running) -> None:
    (await post(log, 1, ROOTS, note([bytes(32), *ROOTS]))).problem(409, "wrong-number")


async def test_a_checkpoint_is_never_taken_on_trust_while_the_batch_before_it_is_on_its_way(log: Running) -> None:
    first, last = some_roots(400), some_roots(1)
    wrong = note([*some_roots(400), *last])
    earlier = asyncio.create_task(post(log, 0, first))
    while (answer := await post(log, 400, last, wrong)).status != 422:
        answer.problem(409, "wrong-number")
    answer.problem(422, "stream-mismatch")
    (await earlier).require_ok()
    assert await checkpoints(log) == []


async def test_a_stream_that_the_log_numbers_has_no_checkpoints_and_the_log_goes_on(log: Running) -> None:
    lines = b"\n".join(dumps({"id": str(number), "actor": "a", "action": "b"}) for number in range(5))
    (await log.post("/v1/events", lines, NDJSON, **by("acme"), Translog_Stream="agent")).require_ok()
    for first_seq in (0, 2, 5):
        roots = some_roots(first_seq + 3)
        (await post(log, first_seq, roots[first_seq:], note(roots))).problem(409, "numbered-otherwise")
    assert log.server.service.mode is Mode.OPEN


async def test_a_fork_is_still_a_fork(log: Running) -> None:
    (await post(log, 0, ROOTS, note(ROOTS))).require_ok()
    other = [b"\7" * 32, *ROOTS[1:], b"\4" * 32]
    (await post(log, 0, other, note(other))).problem(422, "stream-mismatch")
    (await post(log, 0, other)).problem(409, "stream-forked")


async def test_a_checkpoint_belongs_at_the_end(log: Running) -> None:
    lines = [{"first_seq": 0}, {"checkpoint": note(ROOTS)}, *({"root": encode_base64(root)} for root in ROOTS)]
    (await log.post(PATH, b"\n".join(map(dumps, lines)), NDJSON, **by("acme"))).problem(400, "not-sealed")
    (await post(log, 0, [], note(ROOTS))).problem(400, "no-entries")
