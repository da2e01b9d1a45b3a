"""RemoteTree: a log over HTTP as a source; what it refuses or answers wrongly is damage, and it always ends.

A RemoteTree has an event loop of its own, so every test works with it in a thread.
"""

import asyncio
import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import pytest
from aiohttp import web

from client.simulator import ORIGIN, POLICY, Answer, Simulator, entries_of, flip, respond, sign_head
from translog.client import tree as module
from translog.client.transport import TRIES_MAX
from translog.client.tree import RemoteTree
from translog.core.tile import Bundle, Tile, encode_bundle
from translog.errors import MalformedError, RemoteError
from translog.log.fsck import Checker, Report
from translog.storage.source import BundleRead, Contents, Damage, encode_kept
from translog.storage.store import Profile, StoredCheckpoint

T = TypeVar("T")

PATIENCE_S = 20
SIZE = 600
BUNDLES = [Bundle(index=0), Bundle(index=1), Bundle(index=2, width=88)]
TILES = [Tile(level=0, index=0), Tile(level=0, index=1), Tile(level=0, index=2, width=88), Tile(level=1, index=0, width=2)]
HTML = b"<html><body>404 Not Found</body></html>"


async def using(log: Simulator, work: Callable[[RemoteTree], T], *, token: str | None = None) -> T:
    """What `work` makes of the log."""
    async with log.serving() as url:

        def run() -> T:
            tree = RemoteTree(url, token=token, timeout_ms=5_000)
            try:
                return work(tree)
            finally:
                tree.close()

        return await asyncio.to_thread(run)


def bundles(*asked: Bundle) -> Callable[[RemoteTree], list[BundleRead]]:
    return lambda tree: list(tree.bundles(asked))


def tiles(*asked: Tile) -> Callable[[RemoteTree], list[bytes | Damage]]:
    return lambda tree: list(tree.tiles(asked))


def kept(tree: RemoteTree) -> list[StoredCheckpoint | Damage]:
    tree.contents()
    return list(tree.checkpoints())


def check(tree: RemoteTree) -> Report:
    return Checker(lambda: tree, policy=POLICY, processes=1, progress=lambda done, total: None).run()


async def test_it_reads_a_log_of_another_program() -> None:
    log = Simulator(entries_of(SIZE))

    def read(tree: RemoteTree) -> tuple[Contents, list[BundleRead], list[bytes | Damage]]:
        assert list(tree.checkpoints()) == []
        assert list(tree.strays(size=SIZE)) == []
        assert tree.resource_of_entries == "bundle"
        return tree.contents(), list(tree.bundles(BUNDLES)), list(tree.tiles(TILES))

    contents, reads, data = await using(log, read)
    assert contents.meta is not None
    assert (contents.meta.origin, contents.meta.profile) == (ORIGIN, Profile.OPAQUE)
    assert contents.state is not None
    assert (contents.state.size, contents.state.root, contents.state.received_at_ms) == (SIZE, log.root(SIZE), 0)
    assert contents.latest == StoredCheckpoint(size=SIZE, note=log.files["checkpoint"])
    assert [entry for read in reads for entry in read.entries] == entries_of(SIZE)
    assert {read.problem for read in reads} == {""}
    assert data == [log.oracle.tile(tile) for tile in TILES]


async def test_a_whole_log_is_found_whole_and_a_flipped_byte_named() -> None:
    log = Simulator(entries_of(SIZE))
    assert (await using(log, check)).whole
    log.files["tile/entries/001"] = flip(log.files["tile/entries/001"], -1)
    report = await using(log, check)
    assert [(damage.resource, damage.problem) for damage in report.damages] == [
        ("tile/entries/001", "entry 511: is not what the tree says it is")
    ]


@pytest.mark.parametrize("status", [404, 410])
async def test_where_a_partial_tile_is_gone_the_same_part_of_the_full_one_is_read(status: int) -> None:
    log = Simulator(entries_of(512))
    for path in ("tile/0/001.p/44", "tile/entries/001.p/44"):
        log.answers[path] = respond(status)
    (data,) = await using(log, tiles(Tile(level=0, index=1, width=44)))
    assert data == log.oracle.tile(Tile(level=0, index=1, width=44))
    (read,) = await using(log, bundles(Bundle(index=1, width=44)))
    assert (list(read.entries), read.problem) == (entries_of(512)[256:300], "")
    assert log.count("tile/0/001") == log.count("tile/entries/001") == 1


@pytest.mark.parametrize("status", [404, 410])
async def test_what_is_gone_altogether_is_missing(status: int) -> None:
    log = Simulator(entries_of(SIZE))
    for path in ("tile/0/002.p/88", "tile/entries/002.p/88", "tile/0/002", "tile/entries/002", "tile/0/000"):
        log.answers[path] = respond(status, HTML)
    assert await using(log, tiles(TILES[0], TILES[2])) == [
        Damage(resource="tile/0/000", problem="is missing"),
        Damage(resource="tile/0/002.p/88", problem="is missing"),
    ]
    (read,) = await using(log, bundles(BUNDLES[2]))
    assert (set(read.entries), len(read.entries), read.problem) == ({None}, 88, "is missing")


WRONG: dict[str, Answer] = {
    "400": respond(400),
    "403": respond(403),
    "500": respond(500, b'{"detail": "out of order"}'),
    "redirected": respond(301, headers={"Location": "/elsewhere"}),
}


@pytest.mark.parametrize("answer", WRONG.values(), ids=WRONG)
async def test_what_is_refused_is_damage_and_hides_nothing_else(answer: Answer) -> None:
    log = Simulator(entries_of(SIZE))
    log.answers |= {"tile/0/001": answer, "tile/entries/001": answer}
    data = await using(log, tiles(*TILES))
    assert isinstance(data[1], Damage)
    assert (data[1].resource, "answers" in data[1].problem) == ("tile/0/001", True)
    assert [data[n] for n in (0, 2, 3)] == [log.oracle.tile(TILES[n]) for n in (0, 2, 3)]
    reads = await using(log, bundles(*BUNDLES))
    assert [None in read.entries for read in reads] == [False, True, False]
    assert "answers" in reads[1].problem
    report = await using(log, check)
    assert {damage.resource for damage in report.damages} == {"tile/0/001", "tile/entries/001"}


async def test_a_refused_partial_tile_is_not_looked_for_elsewhere() -> None:
    log = Simulator(entries_of(SIZE))
    log.answers["tile/0/002.p/88"] = respond(403)
    assert isinstance((await using(log, tiles(TILES[2])))[0], Damage)
    assert log.count("tile/0/002") == 0


@pytest.mark.parametrize("body", [b"", HTML, b"\xff\xff", bytes(8_191), bytes(8_193)], ids=len)
async def test_wrong_bytes_are_named_and_nothing_else(body: bytes) -> None:
    log = Simulator(entries_of(SIZE))
    log.answers["tile/0/001"] = respond(200, body)
    assert {damage.resource for damage in (await using(log, check)).damages} == {"tile/0/001"}
    log = Simulator(entries_of(SIZE))
    log.answers["tile/entries/001"] = respond(200, body)
    report = await using(log, check)
    assert {damage.resource for damage in report.damages} == {"tile/entries/001"}


async def test_endless_answers_are_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUNDLE_BYTES_MAX", 100_000)
    log = Simulator(entries_of(1))
    log.answers["tile/0/000"] = log.endless
    (data,) = await using(log, tiles(TILES[0]))
    assert isinstance(data, Damage)
    assert "more than 8192 bytes" in data.problem
    log = Simulator(entries_of(1))
    log.answers["tile/entries/000"] = log.endless
    (read,) = await using(log, bundles(BUNDLES[0]))
    assert "more than 100000 bytes" in read.problem


async def test_a_bundle_with_an_entry_too_many_or_too_few_says_so() -> None:
    log = Simulator(entries_of(SIZE))
    honest = entries_of(SIZE)[512:]
    log.files["tile/entries/002.p/88"] = encode_bundle([*honest, b"more"])
    (read,) = await using(log, bundles(BUNDLES[2]))
    assert (list(read.entries), read.problem) == (honest, "the bundle has 89 entries, not 88")
    report = await using(log, check)
    assert [(d.resource, report.bad) for d in report.damages] == [("tile/entries/002.p/88", {"strays": 1})]
    log.files["tile/entries/002.p/88"] = encode_bundle(honest[:-1])
    (read,) = await using(log, bundles(BUNDLES[2]))
    assert (list(read.entries), read.problem) == ([*honest[:-1], None], "the bundle has 87 entries, not 88")


# --- a log that does not answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("path", ["tile/0/001", "tile/entries/001", "checkpoint", "v1/checkpoints"])
async def test_a_log_that_has_no_time_is_asked_again_and_given_up(path: str, status: int, waits: list[float]) -> None:
    log = Simulator(entries_of(SIZE))
    log.answers[path] = respond(status)
    if path == "v1/checkpoints":
        assert await using(log, kept) == [
            Damage(resource="kept checkpoints", problem=log_answers(log, f"v1/checkpoints?start=0 answers {status}"))
        ]
    else:
        with pytest.raises(RemoteError) as caught:
            await using(log, check)
        assert caught.value.status == status
    assert log.count(path) == TRIES_MAX
    assert len(waits) >= TRIES_MAX - 1


def log_answers(log: Simulator, end: str) -> str:
    """The sentence, with the URL that the log had."""
    return f"http://{log.requests[0].host}/{end}: no reason given"


async def test_a_log_that_has_no_time_for_a_while_is_read() -> None:
    log = Simulator(entries_of(SIZE))

    async def honest(request: web.Request) -> web.StreamResponse:
        return web.Response(body=log.files[request.path.removeprefix("/")])

    for path in list(log.files):
        log.answers[path] = respond(503, times=2, then=honest)
    assert (await using(log, check)).whole


async def test_a_log_that_is_not_there_or_goes_away_ends_the_work() -> None:
    log = Simulator(entries_of(SIZE))
    async with log.serving() as url:
        pass

    def run() -> None:
        tree = RemoteTree(url)
        try:
            with pytest.raises(RemoteError) as caught:
                tree.contents()
            assert caught.value.status is None
            for work in (
                lambda: list(tree.bundles(BUNDLES)),
                lambda: list(tree.tiles(TILES)),
                lambda: list(tree.checkpoints()),
            ):
                with pytest.raises(RemoteError):
                    work()
        finally:
            tree.close()

    await asyncio.to_thread(run)
    log.answers["tile/entries/002.p/88"] = log.close_early
    with pytest.raises(RemoteError):
        await using(log, check)


async def test_an_answer_that_never_comes_ends_the_work() -> None:
    log = Simulator(entries_of(SIZE))
    log.answers["tile/0/000"] = log.hang
    async with log.serving() as url:

        def run() -> None:
            tree = RemoteTree(url, timeout_ms=50)
            try:
                with pytest.raises(RemoteError):
                    list(tree.tiles(TILES))
            finally:
                tree.close()

        await asyncio.to_thread(run)


async def test_what_was_under_way_when_the_work_ended_makes_no_noise(caplog: pytest.LogCaptureFixture) -> None:
    """Some of it has failed by then, some waits for an answer that would take longer than the test."""
    log = Simulator(entries_of(256 * 20))
    failing = [f"tile/0/{index:03d}" for index in range(2, 8)]

    async def after_the_others(request: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(PATIENCE_S):
            while any(log.count(path) < TRIES_MAX for path in failing):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        return web.Response(status=503)

    log.answers |= dict.fromkeys(failing, respond(503)) | {"tile/0/001": after_the_others, "tile/entries/005": log.hang}

    def stop_early(url: str) -> None:
        tree = RemoteTree(url, timeout_ms=600_000)
        try:
            reading = tree.tiles([Tile(level=0, index=n) for n in range(20)])
            others = tree.bundles([Bundle(index=n) for n in range(20)])
            next(others)
            next(reading)
            with pytest.raises(RemoteError):
                list(reading)
        finally:
            tree.close()

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        async with log.serving() as url, asyncio.timeout(PATIENCE_S):
            await asyncio.to_thread(stop_early, url)
        gc.collect()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_closing_twice_is_fine() -> None:
    async with Simulator(entries_of(1)).serving() as url:

        def run() -> None:
            tree = RemoteTree(url)
            tree.close()
            tree.close()

        await asyncio.to_thread(run)


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(MalformedError):
        RemoteTree("ftp://log.example")


@pytest.mark.parametrize("body", [b"", HTML, b"\xff\xfe", b"log.example\n-1\n\n"], ids=len)
async def test_what_is_no_checkpoint_is_no_log(body: bytes) -> None:
    log = Simulator(entries_of(1))
    log.files["checkpoint"] = body
    with pytest.raises(MalformedError):
        await using(log, lambda tree: tree.contents())


# --- several requests at once -------------------------------------------------------------------------------------------


async def test_several_requests_are_under_way_and_results_come_in_the_order_asked_for() -> None:
    log = Simulator(entries_of(256 * 30))
    at_once: list[int] = []
    inside = 0
    full = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal inside
        inside += 1
        at_once.append(inside)
        if inside == module._AT_ONCE:
            full.set()
        await full.wait()
        for _ in range(int(request.path[-3:]) * 7 % 5):  # answers overtake each other
            await asyncio.sleep(0)
        inside -= 1
        return web.Response(body=log.files[request.path.removeprefix("/")])

    for index in range(30):
        log.answers[f"tile/entries/{index:03d}"] = slow
        log.answers[f"tile/0/{index:03d}"] = slow
    reads = await using(log, bundles(*(Bundle(index=n) for n in range(30))))
    assert [entry for read in reads for entry in read.entries] == entries_of(256 * 30)
    assert max(at_once) == module._AT_ONCE
    asked = [Tile(level=0, index=n) for n in (29, 3, 3, 0, 17, 5, 11, 12, 13, 2, 1)]
    assert await using(log, tiles(*asked)) == [log.oracle.tile(tile) for tile in asked]


# --- a translog ---------------------------------------------------------------------------------------------------------


async def test_the_token_goes_with_every_request() -> None:
    log = Simulator(entries_of(SIZE))

    def everything(tree: RemoteTree) -> None:
        kept(tree)
        list(tree.bundles(BUNDLES))
        list(tree.tiles(TILES))

    await using(log, everything, token="a-token")
    assert {request.headers["Authorization"] for request in log.requests} == {"Bearer a-token"}
    assert {"/checkpoint", "/v1/log", "/v1/checkpoints", "/tile/0/000"} <= {request.path for request in log.requests}
    del log.requests[:]
    await using(log, everything)
    assert not any("Authorization" in request.headers for request in log.requests)


@pytest.mark.parametrize(
    ("answer", "profile"),
    [
        (respond(200, b'{"profile": "events"}'), Profile.EVENTS),
        (respond(200, b'{"profile": "opaque"}'), Profile.OPAQUE),
        (respond(200, b'{"profile": "other"}'), Profile.OPAQUE),
        (respond(200, b'{"profile": []}'), Profile.OPAQUE),
        (respond(200, b"[]"), Profile.OPAQUE),
        (respond(200, b"[" * 100_000), Profile.OPAQUE),
        (respond(200, b"\xff"), Profile.OPAQUE),
        (respond(500), Profile.OPAQUE),
    ],
    ids=range(8),
)
async def test_the_profile_is_what_a_translog_says_and_opaque_elsewhere(answer: Answer, profile: Profile) -> None:
    log = Simulator(entries_of(1))
    log.answers["v1/log"] = answer
    contents = await using(log, lambda tree: tree.contents())
    assert contents.meta is not None
    assert contents.meta.profile is profile


def line(size: int, *, note: bytes | None = None) -> bytes:
    return encode_kept(StoredCheckpoint(size=size, note=sign_head(size, bytes(32)) if note is None else note))


def pages(*lists: list[int]) -> Answer:
    """Answers each request with the next list of sizes, and then with nothing."""
    left = list(lists)

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"".join(map(line, left.pop(0))) if left else b"")

    return answer


def sizes(found: list[StoredCheckpoint | Damage]) -> list[int]:
    return [item.size for item in found if isinstance(item, StoredCheckpoint)]


async def test_kept_checkpoints_come_page_by_page() -> None:
    log = Simulator(entries_of(SIZE))
    all_sizes = [0, 1, 7, 100, 256, 300, 600]

    async def answer(request: web.Request) -> web.StreamResponse:
        start = int(request.query["start"])
        return web.Response(body=b"".join(line(size) for size in all_sizes if size >= start and size < start + 150))

    async def two(request: web.Request) -> web.StreamResponse:
        start = int(request.query["start"])
        return web.Response(body=b"".join([line(size) for size in all_sizes if size >= start][:2]))

    log.answers["v1/checkpoints"] = two
    assert sizes(await using(log, kept)) == all_sizes
    asked = [request.query["start"] for request in log.requests if request.path == "/v1/checkpoints"]
    assert asked == ["0", "2", "101", "301", "601"]
    assert sizes(await using(log, lambda tree: list(tree.checkpoints(size_min=101)))) == [256, 300, 600]
    log.answers["v1/checkpoints"] = answer
    assert sizes(await using(log, kept)) == [0, 1, 7, 100]  # a page without any is the end


async def test_what_was_signed_since_is_of_no_interest() -> None:
    """A log that is being written keeps larger checkpoints than the one that the check began with."""
    log = Simulator(entries_of(SIZE))
    log.answers["v1/checkpoints"] = pages([1, 600], [601, 700])
    assert sizes(await using(log, kept)) == [1, 600]


HOSTILE: dict[str, tuple[Answer, list[int], str]] = {
    "descending": (pages([5, 3]), [5], "in order"),
    "the same twice": (pages([5, 5]), [5], "in order"),
    "smaller than asked for": (pages([5], [3]), [5], "in order"),
    "garbage": (respond(200, line(1) + b"garbage\n"), [1], "is not a kept checkpoint"),
    "a line without an end": (respond(200, line(1)[:-1]), [], "is not a kept checkpoint"),
    "an empty line": (respond(200, b"\n"), [], "is not a kept checkpoint"),
    "no number": (respond(200, b'{"size":true,"note":""}\n'), [], "is not a kept checkpoint"),
    "a number too large": (respond(200, b'{"size":%d,"note":""}\n' % (1 << 64)), [], "is not a kept checkpoint"),
    "half a character": (respond(200, b'{"size":1,"note":"\\ud800"}\n'), [], "is not a kept checkpoint"),
    "deep": (respond(200, b"[" * 100_000 + b"\n"), [], "is not a kept checkpoint"),
    "a web page": (respond(200, HTML), [], "is not a kept checkpoint"),
    "refused": (respond(403), [], "answers 403"),
}


@pytest.mark.parametrize(("answer", "good", "said"), HOSTILE.values(), ids=HOSTILE)
async def test_pages_that_are_none_are_damage_and_end(answer: Answer, good: list[int], said: str) -> None:
    log = Simulator(entries_of(SIZE))
    log.answers["v1/checkpoints"] = answer
    found = await using(log, kept)
    assert sizes(found) == good
    (damage,) = [item for item in found if isinstance(item, Damage)]
    assert said in damage.problem


async def test_pages_without_end_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGES_MAX", 20)
    log = Simulator(entries_of(SIZE))
    log.files["checkpoint"] = sign_head(1 << 62, bytes(32))

    async def one_more(request: web.Request) -> web.StreamResponse:
        return web.Response(body=line(int(request.query["start"])))

    log.answers["v1/checkpoints"] = one_more
    found = await using(log, kept)
    assert sizes(found) == list(range(20))
    assert found[-1] == Damage(resource="kept checkpoints", problem="do not end within 20 pages")
    log.files["checkpoint"] = sign_head(5, bytes(32))
    assert sizes(await using(log, kept)) == list(range(6))


async def test_a_checkpoint_of_any_size_with_nothing_below_ends_soon() -> None:
    log = Simulator(entries_of(SIZE))
    log.files["checkpoint"] = sign_head(1 << 62, bytes(32))
    report = await using(log, check)
    assert report.size == 1 << 62
    assert not report.whole
    assert len(log.requests) < 3_000


async def test_a_web_server_that_answers_everything_with_a_page_ends_soon() -> None:
    log = Simulator(entries_of(1))
    checkpoint = sign_head(1 << 62, bytes(32))

    async def page(request: web.Request) -> web.StreamResponse:
        log.requests.append(request)
        return web.Response(body=checkpoint if request.path == "/checkpoint" else HTML)

    log._handle = page  # type: ignore[method-assign]
    report = await using(log, check)
    assert not report.whole
    assert len(log.requests) < 3_000
