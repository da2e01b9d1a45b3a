"""Rows 5 and 6: proofs and tiles served, at random places of a large log that nobody appends to meanwhile."""

import random
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

from benchmarks.append_rows import pymerkle_readings
from benchmarks.figures import Figure, Target, not_available
from benchmarks.load import Load, find_wrk, get_load
from benchmarks.processes import Server, UnavailableError, command_of_module, running, serve_log
from benchmarks.pymerkle_tree import PROOF_ENTRIES
from benchmarks.workshop import Workshop
from translog.core.tile import TILE_WIDTH, Bundle, Tile, format_tile_path

ENTRY_BYTES = 100
_PATHS = 20_000
_PROOF_CONNECTIONS = 8
_TILE_CONNECTIONS = 16


class _Served:
    """Readings of one kind of answer, ours and aiohttp's of a constant body of the same size."""

    def __init__(self, shop: Workshop, server: Server, make_path: Callable[[], str], *, connections: int) -> None:
        self.ours: list[Load] = []
        self.floor: list[Load] = []
        plan = shop.plan
        paths = _write_paths(shop, make_path)
        with urlopen(server.url + paths.read_text("utf-8").partition("\n")[0], timeout=30) as answer:  # noqa: S310
            self.body_bytes = len(answer.read())
        command = command_of_module("constant_server", self.body_bytes)
        with running(command, log=shop.new_path("constant.log")) as constant:
            get_load(server, paths, connections=connections, seconds=1)  # what a cache can hold, it now does
            for _ in range(plan.readings):
                self.floor.append(get_load(constant, paths, connections=connections, seconds=plan.seconds))
                self.ours.append(get_load(server, paths, connections=connections, seconds=plan.seconds))


def _write_paths(shop: Workshop, make_path: Callable[[], str]) -> Path:
    path = shop.new_path("paths")
    path.write_text("".join(f"{make_path()}\n" for _ in range(_PATHS)), "utf-8")
    return path


def proofs(shop: Workshop) -> list[Figure]:
    """Row 5: inclusion and consistency proofs."""
    try:
        find_wrk()
    except UnavailableError as error:
        return [not_available(5, "proofs served", str(error))]
    count = shop.plan.proof_entries
    directory, _ = shop.filled_log(count=count, entry_bytes=ENTRY_BYTES)
    pick = random.Random(5)  # noqa: S311
    kinds = {
        "inclusion": lambda: f"/v1/proofs/inclusion?index={pick.randrange(count)}",
        "consistency": lambda: f"/v1/proofs/consistency?old={pick.randrange(1, count)}&new={count}",
    }
    figures: list[Figure] = []
    with serve_log(directory) as server:
        for kind, make_path in kinds.items():
            served = _Served(shop, server, make_path, connections=_PROOF_CONNECTIONS)
            figures += _proof_figures(shop, kind, served)
    inclusion = [figure for figure in figures if "inclusion" in figure.what and figure.target and figure.unit == "/s"]
    peer = pymerkle_readings(shop, "proofs")
    what = f"inclusion proofs served per core at {count:,}, against pymerkle in process"
    if peer is None:
        figures.append(not_available(5, what, "pymerkle could not be installed"))
    else:
        figures.append(
            Figure(
                row=5,
                what=what,
                unit="/s",
                ours=inclusion[0].ours,
                floor=peer,
                floor_name=f"/s: pymerkle at {PROOF_ENTRIES:,}",
                method=f"pymerkle 7.0 InmemoryTree.prove_inclusion at {PROOF_ENTRIES:,} entries, in process",
            )
        )
    return figures


def _proof_figures(shop: Workshop, kind: str, served: _Served) -> list[Figure]:
    plan = shop.plan
    method = (
        f"wrk -t1 -c{_PROOF_CONNECTIONS} as fast as it goes, {plan.readings} x {plan.seconds} s, {_PATHS:,} random places in "
        f"a log of {plan.proof_entries:,} entries at rest, after one second to warm up; reads only. A core is a second of the "
        f"server's processor time. Floor: aiohttp alone, a constant body of {served.body_bytes:,} bytes"
    )
    what = f"{kind} proofs at {plan.proof_entries:,}"
    return [
        Figure(
            row=5,
            what=f"{what}: served/s",
            unit="/s",
            ours=[load.rate for load in served.ours],
            floor=[load.rate for load in served.floor],
            floor_name="/s: aiohttp, constant body",
            method=method,
        ),
        Figure(
            row=5,
            what=f"{what}: served/s per core",
            unit="/s",
            ours=[load.rate_per_core for load in served.ours],
            floor=[load.rate_per_core for load in served.floor],
            floor_name="/s: aiohttp, constant body",
            target=Target(limit=5_000, unit="/s"),
            method=method,
        ),
        Figure(
            row=5,
            what=f"{what}: p99",
            unit="ms",
            ours=[load.p99_ms for load in served.ours],
            floor=[load.p99_ms for load in served.floor],
            floor_name="ms: aiohttp, constant body",
            target=Target(limit=5, lower=True, unit="ms"),
            method=method,
        ),
    ]


def tiles(shop: Workshop) -> list[Figure]:
    """Row 6: full tiles and entry bundles."""
    try:
        find_wrk()
    except UnavailableError as error:
        return [not_available(6, "tiles served", str(error))]
    plan = shop.plan
    count = plan.proof_entries
    directory, _ = shop.filled_log(count=count, entry_bytes=ENTRY_BYTES)
    pick = random.Random(6)  # noqa: S311
    full = count // TILE_WIDTH
    kinds = {
        "full tiles": lambda: f"/{format_tile_path(Tile(level=0, index=pick.randrange(full)))}",
        f"entry bundles of {TILE_WIDTH} x {ENTRY_BYTES} B": lambda: f"/{format_tile_path(Bundle(index=pick.randrange(full)))}",
    }
    figures = []
    with serve_log(directory) as server:
        for kind, make_path in kinds.items():
            served = _Served(shop, server, make_path, connections=_TILE_CONNECTIONS)
            method = (
                f"wrk -t1 -c{_TILE_CONNECTIONS}, {plan.readings} x {plan.seconds} s, {_PATHS:,} random ones of {full:,}, "
                f"uncompressed; reads only. Floor: aiohttp alone, a constant body of {served.body_bytes:,} bytes"
            )
            figures += [
                Figure(
                    row=6,
                    what=f"{kind}: served/s",
                    unit="/s",
                    ours=[load.rate for load in served.ours],
                    floor=[load.rate for load in served.floor],
                    floor_name="/s: aiohttp, constant body",
                    target=Target(limit=0.9, of_ratio=True),
                    method=method,
                ),
                Figure(
                    row=6,
                    what=f"{kind}: server CPU each",
                    unit="ms",
                    ours=[load.cpu_ms for load in served.ours],
                    floor=[load.cpu_ms for load in served.floor],
                    floor_name="ms: aiohttp, constant body",
                    method=method,
                ),
            ]
    return figures
