"""Rows 1, 2 and 3: appending over HTTP. Durable means here: written and fdatasynced by LevelDB before the answer."""

import subprocess
from statistics import median

from benchmarks import floors, tessera
from benchmarks.figures import Figure, Target, not_available, repeat
from benchmarks.load import Load, find_wrk, lone_posts, percentile, post_load
from benchmarks.processes import UnavailableError, command_of_module, running, serve_log
from benchmarks.pymerkle_tree import find_pymerkle, measure_pymerkle
from benchmarks.stores import Entries
from benchmarks.workshop import Workshop
from translog.core.integrate import EMPTY_EDGE, integrate
from translog.core.keys import KeyType

ENTRY_BYTES = 1_000
BATCH_ENTRIES = 1_000
_OCTETS = "application/octet-stream"
_MANY_CONNECTIONS = (128, 512)
_BATCH_CONNECTIONS = 8


def lone_append(shop: Workshop) -> list[Figure]:
    """Row 1: one client, one entry at a time, answered when it is in a signed checkpoint."""
    plan = shop.plan
    entry = Entries("text", ENTRY_BYTES).take(0, 1)[0]
    directory, _ = shop.new_log("lone")
    ours: list[list[float]] = []
    syncs: list[float] = []
    sign_big: list[float] = []
    sign_small: list[float] = []
    trips: list[float] = []
    log = shop.new_path("constant.log")
    with serve_log(directory) as server, running(command_of_module("constant_server", 1), log=log) as constant:
        lone_posts(server, "/add", entry, count=20)
        for _ in range(plan.readings):
            ours.append(lone_posts(server, "/add", entry, count=plan.lone_appends))
            syncs.append(1e3 * floors.sync_s(shop.work, count=plan.syncs))
            sign_big.append(1e3 * floors.sign_s(KeyType.COSIGNATURE_MLDSA44, count=plan.syncs))
            sign_small.append(1e3 * floors.sign_s(KeyType.ED25519, count=plan.syncs))
            trips.append(1e3 * percentile(lone_posts(constant, "/", entry, count=plan.lone_appends), 0.5))
    shop.forget(directory)
    floor = [2 * sync + big + small + trip for sync, big, small, trip in zip(syncs, sign_big, sign_small, trips, strict=True)]
    parts = f"fdatasync {median(syncs):.3f}, ML-DSA-44 {median(sign_big):.3f}, Ed25519 "
    parts += f"{median(sign_small):.3f}, round trip to aiohttp {median(trips):.3f} ms"
    method = (
        f"POST /add of {ENTRY_BYTES} bytes over one connection, each answered 200 after commit (fdatasync), DIR/head "
        f"(fdatasync), both signatures and publication; {plan.readings} series of {plan.lone_appends}, median of each "
        f"series' p50 or p99; no witnesses. Floor: 2 fdatasyncs of a 4 kB append + both signatures + one round trip ({parts})"
    )
    name = "ms: sum of floors"
    p50 = [1e3 * percentile(series, 0.50) for series in ours]
    p99 = [1e3 * percentile(series, 0.99) for series in ours]
    met = Target(limit=1.0, lower=True, of_ratio=True)
    return [
        Figure(
            row=1,
            what="lone append, published, p50",
            unit="ms",
            ours=p50,
            floor=floor,
            floor_name=name,
            target=met,
            method=method,
        ),
        Figure(
            row=1,
            what="lone append, published, p99",
            unit="ms",
            ours=p99,
            floor=floor,
            floor_name=f"{name} (p50s)",
            target=Target(limit=20, lower=True, unit="ms"),
            method=method,
        ),
    ]


def many_writers(shop: Workshop) -> list[Figure]:
    """Row 2: single entries from many writers at once."""
    figures: list[Figure] = []
    try:
        find_wrk()
        figures += [figure for connections in _MANY_CONNECTIONS for figure in _many_writers(shop, connections)]
    except UnavailableError as error:
        figures.append(not_available(2, "/add, many writers", str(error)))
    figures.append(_pymerkle_figure(shop, figures))
    return figures + tessera.compare(shop, entry_bytes=ENTRY_BYTES)


def _many_writers(shop: Workshop, connections: int) -> list[Figure]:
    plan = shop.plan
    body = shop.new_path("entry")
    body.write_bytes(Entries("text", ENTRY_BYTES).take(0, 1)[0])
    directory, _ = shop.new_log("writers")
    log = shop.new_path("constant.log")
    ours: list[Load] = []
    floor: list[Load] = []
    with serve_log(directory) as server, running(command_of_module("constant_server", 1), log=log) as constant:
        for _ in range(plan.readings):
            for kept, target, path in ((floor, constant, "/"), (ours, server, "/add")):
                kept.append(post_load(target, path, body, content_type=_OCTETS, connections=connections, seconds=plan.seconds))
    shop.forget(directory)
    method = (
        f"wrk -t1, {plan.readings} x {plan.seconds} s, POST /add of {ENTRY_BYTES} bytes, answered after commit (fdatasync, "
        "shared by what waits) and publication (DIR/head fdatasync, two signatures); processor time is user + system of the "
        "server's process. Floor: aiohttp alone on the same event loop, reading the same body and answering a number"
    )
    what = f"/add, {connections} writers"
    return [
        Figure(
            row=2,
            what=f"{what}: appends/s",
            unit="/s",
            ours=[load.rate for load in ours],
            floor=[load.rate for load in floor],
            floor_name="/s: aiohttp, trivial POST",
            method=method,
        ),
        Figure(
            row=2,
            what=f"{what}: server CPU per append",
            unit="ms",
            ours=[load.cpu_ms for load in ours],
            floor=[load.cpu_ms for load in floor],
            floor_name="ms: aiohttp, trivial POST",
            target=Target(limit=0.08, lower=True, unit="ms"),
            method=method,
        ),
    ]


def _pymerkle_figure(shop: Workshop, ours: list[Figure]) -> Figure:
    """Durable single appends: ours over HTTP, pymerkle's in its own process."""
    what = f"durable appends/s, over HTTP with {_MANY_CONNECTIONS[-1]} writers, against pymerkle in process"
    rates = next((figure.ours for figure in reversed(ours) if figure.unit == "/s" and figure.ours), ())
    peer = pymerkle_readings(shop, "sqlite")
    if peer is None:
        return not_available(2, what, "pymerkle could not be installed")
    method = "pymerkle 7.0 SqliteTree.append_entry one by one, SQLite's default durability (one fsynced transaction each)"
    return Figure(row=2, what=what, unit="/s", ours=rates, floor=peer, floor_name="/s: pymerkle, SQLite", method=method)


def pymerkle_readings(shop: Workshop, what: str) -> list[float] | None:
    """Readings of the peer, None where it cannot be had."""
    try:
        python = find_pymerkle(shop.programs)
    except (OSError, subprocess.SubprocessError) as error:
        shop.say(f"pymerkle cannot be had: {error}")
        return None
    return repeat(shop.plan.readings, lambda: measure_pymerkle(python, what, shop.work))[0]


def batches(shop: Workshop) -> list[Figure]:
    """Row 3: NDJSON batches of opaque entries, answered when durable."""
    figures: list[Figure] = []
    try:
        find_wrk()
        for entry_bytes in (100, 300, 1_000):
            figures += _batches(shop, entry_bytes)
    except UnavailableError as error:
        figures.append(not_available(3, "NDJSON batches", str(error)))
    return figures + _pymerkle_batches(shop, figures)


def _batches(shop: Workshop, entry_bytes: int) -> list[Figure]:
    plan = shop.plan
    body = shop.new_path("batch")
    body.write_bytes(b"\n".join(Entries("text", entry_bytes).take(0, BATCH_ENTRIES)) + b"\n")
    directory, _ = shop.new_log("batches")
    loads: list[Load] = []
    floor: list[tuple[float, float]] = []
    path = "/v1/entries?ack=durable&receipts=none"
    with serve_log(directory) as server:
        for _ in range(plan.readings):
            floor.append(
                floors.leveldb_batches_per_s(
                    shop.work, entry_bytes=entry_bytes, batch_entries=BATCH_ENTRIES, seconds=plan.seconds / 2
                )
            )
            loads.append(
                post_load(
                    server,
                    path,
                    body,
                    content_type="application/x-ndjson",
                    connections=_BATCH_CONNECTIONS,
                    seconds=plan.seconds,
                )
            )
    shop.forget(directory)
    method = (
        f"wrk -t1 -c{_BATCH_CONNECTIONS}, {plan.readings} x {plan.seconds} s, POST {path} of {BATCH_ENTRIES} lines of base64, "
        "answered after commit (fdatasync); publication goes on beside it; a core is a second of the server's processor time. "
        "Floor: LevelDB alone in process, synced batches of as many entries of the same size"
    )
    what = f"NDJSON batches of {BATCH_ENTRIES:,} x {entry_bytes} B"
    name = "/s: LevelDB, synced"
    per_core = [BATCH_ENTRIES * load.rate_per_core for load in loads]
    target = Target(limit=100_000, unit="/s")
    rates = [BATCH_ENTRIES * load.rate for load in loads]
    return [
        Figure(
            row=3,
            what=f"{what}: entries/s",
            unit="/s",
            ours=rates,
            floor=[per_s for per_s, _ in floor],
            floor_name=name,
            method=method,
        ),
        Figure(
            row=3,
            what=f"{what}: entries/s per core",
            unit="/s",
            ours=per_core,
            floor=[per_cpu_second for _, per_cpu_second in floor],
            floor_name=name,
            target=target,
            method=method,
        ),
    ]


def _pymerkle_batches(shop: Workshop, ours: list[Figure]) -> list[Figure]:
    entries = Entries("text", ENTRY_BYTES).take(0, BATCH_ENTRIES)
    count = 20

    def tree_alone() -> object:
        edge = EMPTY_EDGE
        for _ in range(count):
            edge = integrate(edge, entries).edge
        return edge

    rates = repeat(shop.plan.readings, lambda: count * BATCH_ENTRIES / floors.median_time(tree_alone, count=1))[0]
    memory, sqlite = pymerkle_readings(shop, "memory"), pymerkle_readings(shop, "sqlite-batches")
    what = f"tree alone, in memory, {ENTRY_BYTES} B: entries/s"
    durable = f"durable batches of {BATCH_ENTRIES:,} x {ENTRY_BYTES} B, over HTTP, against pymerkle in process"
    if memory is None or sqlite is None:
        return [not_available(3, text, "pymerkle could not be installed") for text in (what, durable)]
    over_http = next((figure.ours for figure in reversed(ours) if figure.unit == "/s" and not figure.target), ())
    return [
        Figure(
            row=3,
            what=what,
            unit="/s",
            ours=rates,
            floor=memory,
            floor_name="/s: pymerkle, memory",
            method=f"core.integrate in batches of {BATCH_ENTRIES}; pymerkle 7.0 InmemoryTree.append_entry one by one",
        ),
        Figure(
            row=3,
            what=durable,
            unit="/s",
            ours=over_http,
            floor=sqlite,
            floor_name="/s: pymerkle, SQLite",
            method="pymerkle 7.0 SqliteTree.append_entries, one fsynced SQLite transaction a batch",
        ),
    ]
