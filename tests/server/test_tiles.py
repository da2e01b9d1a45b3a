"""The read side of tlog-tiles over HTTP: bytes, paths, headers. Requirements 13 to 20 of the specifications' checklist."""

import gzip
from collections import OrderedDict
from hashlib import sha256

import pytest
from core.merkle_oracle import Oracle
from hypothesis import given
from hypothesis import strategies as st

from translog.errors import StorageError
from translog.log.reader import Reader
from translog.server.tiles_api import _KEY_BYTES, KeptBodies, _accepts_gzip

from .conftest import Serve
from .harness import (
    AS_ACME,
    MEMBERS,
    OCTETS,
    Running,
    bundle,
    numbered,
    publication_blocked,
    request_bytes,
    require_checkpoint,
    tile_bytes,
    tile_path,
    tiles_at,
)

SIZES = (1, 2, 255, 256, 257, 511, 512, 513, 700)
IMMUTABLE = "public, max-age=604800, immutable"


async def test_every_tile_of_every_published_size_is_served_to_the_byte_for_ever(log_server: Running) -> None:
    oracle = Oracle(numbered(0, SIZES[-1]))
    seen: set[tuple[int, int, int]] = set()
    size = 0
    for target in SIZES:
        await log_server.grow(oracle.entries[size:target])
        size = target
        assert require_checkpoint((await log_server.get("/checkpoint")).body, oracle) == size
        seen |= set(tiles_at(size))
        for level, index, width in seen:
            tile = (await log_server.get(tile_path(level, index, width))).require_ok()
            assert tile.body == tile_bytes(oracle, level, index, width)
            if level == 0:
                entries = oracle.entries[index * 256 : index * 256 + width]
                assert (await log_server.get(tile_path("entries", index, width))).body == bundle(entries)
    assert (1, 0, 1) in seen
    assert (0, 0, 255) in seen
    assert (0, 2, 188) in seen


async def test_every_width_of_a_tile_is_a_prefix_of_it(log_server: Running) -> None:
    oracle = Oracle(numbered(0, 300))
    await log_server.grow(oracle.entries)
    full = (await log_server.get("/tile/0/000")).body
    assert len(full) == 256 * 32
    for width in range(1, 256):
        assert (await log_server.get(f"/tile/0/000.p/{width}")).body == full[: 32 * width]
        assert (await log_server.get(f"/tile/entries/000.p/{width}")).body == bundle(oracle.entries[:width])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257])
async def test_exactly_the_tiles_of_the_size_exist_and_no_empty_ones(log_server: Running, size: int) -> None:
    await log_server.grow(numbered(0, size))
    wanted = {(level, index): width for level, index, width in tiles_at(size)}
    for level in (0, 1, 2, 7, 63):
        for index in (0, 1, 2):
            width = wanted.get((level, index), 0)
            for beyond in {width + 1, 255, 256} & set(range(width + 1, 257)):
                answer = await log_server.get(tile_path(level, index, beyond))
                answer.problem(404, "not-published")
                assert int(answer.headers["Retry-After"]) >= 1
                if level == 0:
                    (await log_server.get(tile_path("entries", index, beyond))).problem(404, "not-published")


async def test_a_tile_that_is_committed_but_not_published_is_not_shown(
    log_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with publication_blocked(monkeypatch):
        assert (await log_server.append([b"x"], "?ack=durable")).status == 202
        (await log_server.get("/tile/0/000.p/1")).problem(404, "not-published")
        (await log_server.get("/tile/entries/000.p/1")).problem(404, "not-published")


@pytest.mark.parametrize("path", ["0/000", "0/000.p/7", "0/001.p/44", "1/000.p/1", "entries/000", "entries/001.p/44"])
async def test_tiles_full_or_partial_are_immutable_octets(log_server: Running, path: str) -> None:
    await log_server.grow(numbered(0, 300))
    answer = (await log_server.get(f"/tile/{path}")).require_ok()
    assert answer.headers["Content-Type"] == OCTETS
    assert answer.headers["Cache-Control"] == IMMUTABLE
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("path", ["/checkpoint", "/v1/checkpoint", "/v1/checkpoint?size=0"])
async def test_a_checkpoint_is_text_and_never_cached(log_server: Running, path: str) -> None:
    answer = (await log_server.get(path)).require_ok()
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("accept", ["", "gzip", "gzip, identity"])
@pytest.mark.parametrize("path", ["/tile/entries/000.p/9", "/tile/0/000.p/9", "/tile/zero", "/nothing"])
async def test_no_error_is_cached_or_marked_as_compressed(log_server: Running, path: str, accept: str) -> None:
    answer = await log_server.get(path, Accept_Encoding=accept)
    answer.problem(400 if "zero" in path else 404)


@pytest.mark.parametrize(
    ("accept", "compressed"),
    [
        ("gzip", True),
        ("gzip, identity", True),
        ("GZIP;q=0.5", True),
        ("br;q=1, gzip; q=0.001", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzipped", False),
        ("", False),
        ("br, zstd", False),
    ],
)
async def test_bundles_are_compressed_for_those_who_take_it(log_server: Running, accept: str, compressed: bool) -> None:
    entries = numbered(0, 20)
    await log_server.grow(entries)
    answer = (await log_server.get("/tile/entries/000.p/20", Accept_Encoding=accept)).require_ok()
    assert answer.headers.get("Content-Encoding") == ("gzip" if compressed else None)
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert (gzip.decompress(answer.body) if compressed else answer.body) == bundle(entries)
    assert _accepts_gzip(accept) == compressed


async def test_hash_tiles_are_never_compressed(log_server: Running) -> None:
    await log_server.grow(numbered(0, 20))
    answer = await log_server.get("/tile/0/000.p/20", Accept_Encoding="gzip")
    assert "Content-Encoding" not in answer.headers
    assert len(answer.body) == 20 * 32


async def test_bundles_of_a_log_that_is_not_public_are_not_for_shared_caches(serve: Serve) -> None:
    log = await serve(public_read="members", members=MEMBERS)
    await log.grow([b"x"], **AS_ACME)
    assert (await log.get("/tile/entries/000.p/1", **AS_ACME)).headers["Cache-Control"].startswith("private")
    assert (await log.get("/tile/0/000.p/1")).headers["Cache-Control"] == IMMUTABLE


async def test_bundle_leaves_hash_to_the_level_0_tile(log_server: Running) -> None:
    entries = [b"", b"a", b"b" * 65_535]
    await log_server.grow(entries)
    tile = (await log_server.get("/tile/0/000.p/3")).body
    data = (await log_server.get("/tile/entries/000.p/3")).body
    for number in range(3):
        length = int.from_bytes(data[:2], "big")
        assert sha256(b"\0" + data[2 : 2 + length]).digest() == tile[32 * number : 32 * number + 32]
        data = data[2 + length :]
    assert data == b""


NOT_CANONICAL = [
    "0/0",
    "0/00",
    "0/0000",
    "0/000/",
    "0//000",
    "0/000.p",
    "0/000.p/",
    "0/000.p/0",
    "0/000.p/01",
    "0/000.p/256",
    "0/000.p/257",
    "0/000.p/1000",
    "0/000.p/-1",
    "0/000.p/+1",
    "0/000.p/1/",
    "0/000.p/1.p/1",
    "0/000.P/1",
    "0/x000",
    "0/x000/000",
    "0/x000/x001/000",
    "0/001/000",
    "0/X001/000",
    "0/x001000",
    "0/x1/000",
    "00/000",
    "01/000",
    "64/000",
    "255/000",
    "-1/000",
    "+0/000",
    "a/000",
    "Entries/000",
    "entries/0",
    "entries/x000/000",
    "entries/000.p/0",
    "entries/000.p/256",
    "data/000",
    "0",
    "0/",
    "0/00a",
    "0/%30%30%30",
    "0/000%2ep/1",
    "0%2F000",
    "%65ntries/000",
    "0/../0/000",
    "./0/000",
    "../checkpoint",
    "entries/../0/000",
    "0/x999/x999/x999/x999/x999/x999/x999/999",
    "0/x999/x999/x999/x999/x999/x999/999",
    "0/x036/x028/x797/x018/x963/968",
    "0/" + "x001/" * 60 + "000",
]


@pytest.mark.parametrize("path", NOT_CANONICAL)
async def test_every_other_spelling_of_a_tile_path_is_refused(log_server: Running, path: str) -> None:
    answer = await log_server.raw(request_bytes("GET", f"/tile/{path}"))
    answer.problem(400)


@pytest.mark.parametrize("query", ["?", "?x=%41", "?%30"])
async def test_a_query_does_not_matter(log_server: Running, query: str) -> None:
    await log_server.grow([b"x"])
    (await log_server.get(f"/tile/0/000.p/1{query}")).require_ok()


@pytest.mark.parametrize(
    "path", ["/tile", "/tile/", "//tile/0/000", "/Tile/0/000", "/checkpoint/", "/CHECKPOINT", "/a/../checkpoint"]
)
async def test_nothing_else_leads_to_a_tile_or_checkpoint(log_server: Running, path: str) -> None:
    (await log_server.raw(request_bytes("GET", path))).problem(404, "no-such-path")


@pytest.mark.parametrize(
    "path",
    [
        "0/999",
        "0/x001/000",
        "0/x001/x234/067.p/8",
        "0/x036/x028/x797/x018/x963/967",
        "entries/x036/x028/x797/x018/x963/967",
        "7/000",
        "63/x036/x028/x797/x018/x963/967",
    ],
)
async def test_absurd_tiles_are_not_published(log_server: Running, path: str) -> None:
    await log_server.grow([b"x"])
    (await log_server.get(f"/tile/{path}")).problem(404, "not-published")


# --- what is kept to be sent again --------------------------------------------------------------------------------------


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 150)), max_size=60))
def test_kept_bodies_stay_within_their_bytes_and_the_least_recently_used_goes_first(steps: list[tuple[bool, int, int]]) -> None:
    limit = 3 * _KEY_BYTES + 200
    kept = KeptBodies(limit)
    model: OrderedDict[int, bytes] = OrderedDict()
    for is_put, key, size in steps:
        if is_put:
            body = bytes([key]) * size
            kept.put(key, body)
            model.setdefault(key, body)
            while sum(len(body) + _KEY_BYTES for body in model.values()) > limit:
                model.popitem(last=False)
        else:
            assert kept.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        assert list(kept._bodies.items()) == list(model.items())


def test_a_body_above_all_the_bytes_is_not_kept_and_drops_no_other() -> None:
    kept = KeptBodies(1_000)
    kept.put("small", b"x")
    kept.put("exact", bytes(1_001 - _KEY_BYTES))
    assert (kept.get("small"), kept.get("exact")) == (b"x", None)
    kept.put("exact", bytes(1_000 - _KEY_BYTES))
    assert (kept.get("small"), kept.get("exact")) == (None, bytes(1_000 - _KEY_BYTES))


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is read of tiles and bundles from now on."""
    reads: list[object] = []
    for name in ("tile", "bundle"):

        def recording(reader: Reader, what: object, read: object = getattr(Reader, name)) -> bytes:
            reads.append(what)
            return read(reader, what)  # type: ignore[operator,no-any-return]

        monkeypatch.setattr(Reader, name, recording)
    return reads


@pytest.mark.parametrize("accept", ["", "gzip"])
@pytest.mark.parametrize(
    ("path", "reads"), [("0/000", 1), ("entries/000", 1), ("0/001.p/44", 3), ("entries/001.p/44", 3), ("0/000.p/9", 3)]
)
async def test_what_is_full_is_read_once_and_answered_the_same_again(
    log_server: Running, monkeypatch: pytest.MonkeyPatch, path: str, reads: int, accept: str
) -> None:
    await log_server.grow(numbered(0, 300))
    counted = count_reads(monkeypatch)
    first, *others = [(await log_server.get(f"/tile/{path}", Accept_Encoding=accept)).require_ok() for _ in range(3)]
    for answer in others:
        assert answer.body == first.body
        assert {**answer.headers, "Date": ""} == {**first.headers, "Date": ""}
    assert len(counted) == reads


async def test_a_compressed_bundle_is_never_sent_to_one_who_did_not_ask_for_it(log_server: Running) -> None:
    entries = numbered(0, 256)
    await log_server.grow(entries)
    for accept in ("gzip", "", "gzip", "identity", "gzip;q=0", "gzip"):
        answer = (await log_server.get("/tile/entries/000", Accept_Encoding=accept)).require_ok()
        assert ("Content-Encoding" in answer.headers) == (accept == "gzip")
        assert (gzip.decompress(answer.body) if accept == "gzip" else answer.body) == bundle(entries)


@pytest.mark.parametrize("path", ["entries/000", "entries/%30%300", "Entries/000", "/entries/000"])
async def test_what_members_were_sent_is_not_sent_to_others(serve: Serve, path: str) -> None:
    log = await serve(public_read="members", members=MEMBERS)
    await log.grow(numbered(0, 256), **AS_ACME)
    for _ in range(2):
        (await log.get("/tile/entries/000", **AS_ACME)).require_ok()
        answer = await log.raw(request_bytes("GET", f"/tile/{path}"))
        answer.problem(401 if path == "entries/000" else 400)
        answer = await log.raw(request_bytes("GET", f"/tile/{path}", "Authorization: Bearer nobody"))
        answer.problem(401)


async def test_what_is_kept_has_no_other_spelling(log_server: Running) -> None:
    await log_server.grow(numbered(0, 300))
    for path in ("0/000", "entries/000"):
        (await log_server.get(f"/tile/{path}")).require_ok()
    for path in NOT_CANONICAL:
        (await log_server.raw(request_bytes("GET", f"/tile/{path}"))).problem(400)
    (await log_server.get("/tile/0/001")).problem(404, "not-published")


async def test_an_error_is_not_kept(log_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = Oracle(numbered(0, 256))
    await log_server.grow(oracle.entries[:255])
    for path in ("0/000", "entries/000"):
        (await log_server.get(f"/tile/{path}")).problem(404, "not-published")
    await log_server.grow(oracle.entries[255:])

    def fail(*_: object) -> bytes:
        raise StorageError("the disk is slow today")

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "tile", fail)
        patch.setattr(Reader, "bundle", fail)
        for path in ("0/000", "entries/000"):
            (await log_server.get(f"/tile/{path}")).problem(503)
    assert (await log_server.get("/tile/0/000")).require_ok().body == tile_bytes(oracle, 0, 0, 256)
    assert (await log_server.get("/tile/entries/000")).require_ok().body == bundle(oracle.entries)
