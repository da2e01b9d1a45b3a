"""`GET /v1/checkpoints`: the kept checkpoints, smallest first, in pages; what backups are made of."""

import pytest
from core.merkle_oracle import Oracle
from storage.growth import META, Growth, checkpoint_of

from translog.core.policy import verify_checkpoint
from translog.core.tile import TileCache
from translog.log.reader import Published, Reader
from translog.storage.memory import MemoryDisk, MemoryStore
from translog.storage.source import decode_kept
from translog.storage.store import StoredCheckpoint

from .conftest import Serve
from .harness import Answer, Running, numbered, publication_blocked, require_checkpoint

KEEP_ALL = {"keep_checkpoint_interval_ms": 0}
NDJSON = "application/x-ndjson"


def kept(answer: Answer) -> list[StoredCheckpoint]:
    """The lines of an answer, after checking its shape."""
    answer.require_ok()
    assert answer.headers["Content-Type"] == NDJSON
    assert answer.headers["Cache-Control"] == "no-store"
    return [decode_kept(line) for line in answer.body.splitlines(keepends=True)]


async def grown(log: Running, *sizes: int) -> Running:
    """The log, with a checkpoint kept at each of those sizes."""
    for size in sizes:
        await log.grow(numbered(await log.size(), size))
    return log


async def test_they_come_smallest_first_each_of_its_size_and_signed(serve: Serve) -> None:
    log = await grown(await serve(log=KEEP_ALL), 1, 3, 255, 256, 300)
    found = kept(await log.get("/v1/checkpoints"))
    assert [checkpoint.size for checkpoint in found] == [0, 1, 3, 255, 256, 300]
    oracle = Oracle(numbered(0, 300))
    for checkpoint in found:
        assert require_checkpoint(checkpoint.note, oracle) == checkpoint.size
        verify_checkpoint(checkpoint.note, await log.policy())
        assert (await log.get(f"/v1/checkpoint?size={checkpoint.size}")).body == checkpoint.note


@pytest.mark.parametrize(
    ("start", "sizes"), [(0, [0, 1, 3, 9]), (1, [1, 3, 9]), (2, [3, 9]), (9, [9]), (10, []), (2**63 - 1, [])]
)
async def test_they_start_where_asked_and_there_is_nothing_behind_the_end(serve: Serve, start: int, sizes: list[int]) -> None:
    log = await grown(await serve(log=KEEP_ALL), 1, 3, 9)
    answer = await log.get(f"/v1/checkpoints?start={start}")
    assert [checkpoint.size for checkpoint in kept(answer)] == sizes
    assert answer.body.count(b"\n") == len(sizes)


async def test_a_new_log_has_one_and_by_default_one_a_minute_is_kept(log_server: Running) -> None:
    assert [checkpoint.size for checkpoint in kept(await log_server.get("/v1/checkpoints"))] == [0]
    await grown(log_server, 1, 2)
    assert [checkpoint.size for checkpoint in kept(await log_server.get("/v1/checkpoints"))] == [0]


@pytest.mark.parametrize("bytes_max", [1, 4_000, 8_000, 1_000_000])
async def test_pages_are_as_long_as_a_read_may_be_and_give_all_of_them(serve: Serve, bytes_max: int) -> None:
    log = await grown(await serve(log=KEEP_ALL, read_bytes_max=bytes_max), *range(1, 8))
    pages: list[list[int]] = []
    while page := kept(await log.get(f"/v1/checkpoints?start={pages[-1][-1] + 1 if pages else 0}")):
        notes = [len(checkpoint.note) for checkpoint in page]
        assert sum(notes[:-1]) < bytes_max, "longer than it had to be"
        assert sum(notes) >= bytes_max or page[-1].size == 7, "shorter than it may be"
        pages.append([checkpoint.size for checkpoint in page])
    assert [size for page in pages for size in page] == list(range(8))
    assert len(pages) == {1: 8, 1_000_000: 1}.get(bytes_max, len(pages))


async def test_there_may_be_more_than_are_read_from_the_store_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.log.reader._CHECKPOINTS_STEP", 3)
    log = await grown(await serve(log=KEEP_ALL), *range(1, 9))
    for count in range(10):
        assert [item.size for item in kept(await log.get(f"/v1/checkpoints?start={count}"))] == list(range(count, 9))


async def test_what_is_not_signed_yet_is_not_there(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await grown(await serve(log=KEEP_ALL), 3)
    with publication_blocked(monkeypatch):
        await log.append([b"x"], "?ack=durable")
        assert [checkpoint.size for checkpoint in kept(await log.get("/v1/checkpoints"))] == [0, 3]


@pytest.mark.parametrize(("published", "sizes"), [(0, [0]), (2, [0]), (3, [0, 3]), (4, [0, 3]), (5, [0, 3, 5])])
def test_what_is_stored_and_not_shown_yet_is_not_there(published: int, sizes: list[int]) -> None:
    """A checkpoint is stored before it is shown: in between, the list ends where the world sees the log end."""
    store = MemoryStore(MemoryDisk(meta=META))
    Growth().commit(store, 5)
    for size in (0, 3, 5):
        store.publish(checkpoint_of(size), keep=True)
    head = Published(size=published, root=bytes(32), note=b"")
    reader = Reader(store=store, published=head, cache=TileCache(tiles_max=16))
    for start in range(7):
        found = reader.kept_checkpoints(start=start, note_bytes_max=1_000_000)
        assert [checkpoint.size for checkpoint in found] == [size for size in sizes if size >= start]


@pytest.mark.parametrize("start", ["", "-1", "+1", "01", "1.0", "0x1", "1_0", "9223372036854775808", "one", "1%0A"])
async def test_a_start_that_is_no_number_is_refused(log_server: Running, start: str) -> None:
    (await log_server.get(f"/v1/checkpoints?start={start}")).problem(400)


async def test_head_is_get_without_the_list_and_nothing_else_is_taken(log_server: Running) -> None:
    (await log_server.post("/v1/checkpoints")).problem(405)
    head = await log_server.request("HEAD", "/v1/checkpoints")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == NDJSON


async def test_everybody_may_read_them(serve: Serve) -> None:
    log = await serve(public_read="listed")
    assert [checkpoint.size for checkpoint in kept(await log.get("/v1/checkpoints"))] == [0]
