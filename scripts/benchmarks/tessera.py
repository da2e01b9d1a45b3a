"""Tessera on POSIX files (Go), the peer for appends over HTTP: its own server and ours under its own load tool.

Built through the module proxy, at one version, on the first run that asks for it; needs Go and, that once, the network.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.request import urlopen

from benchmarks.figures import Figure, Target, not_available
from benchmarks.processes import Server, UnavailableError, environment, free_port, running, serve_log
from benchmarks.workshop import Workshop
from translog.core.checkpoint import parse_checkpoint
from translog.core.keys import SEED_BYTES, KeyType, SKey, format_skey
from translog.core.note import parse_note
from translog.log.keyfiles import LOG_KEY_FILES, read_skey

VERSION = "v1.0.4"
_MODULE = "github.com/transparency-dev/tessera"
_SERVER, _HAMMER = "cmd/conformance/posix", "internal/hammer"
_WRITERS = (512, 4_000)
_WARM_UP_S = 3.0
_POLL_S = 0.02
_WHAT = "appends under Tessera's load tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    rate: float
    cpu_ms: float


@lru_cache(maxsize=1)
def _build(programs: Path) -> tuple[Path, Path]:
    """Server and load tool, built if need be. Raises UnavailableError."""
    home = (programs / f"tessera-{VERSION}").absolute()
    server, hammer = home / "posix", home / "hammer"
    if server.exists() and hammer.exists():
        return server, hammer
    go = shutil.which("go")
    if go is None:
        raise UnavailableError("Tessera is built with Go, which is not installed")
    env = environment(GOBIN=str(home), GOFLAGS="-modcacherw")
    try:
        for package in (_SERVER, _HAMMER):
            command = [go, "install", f"{_MODULE}/{package}@{VERSION}"]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=900, env=env)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise UnavailableError(f"Tessera could not be built: {said[-1] if said else error}") from None
    return server, hammer


def compare(shop: Workshop, *, entry_bytes: int) -> list[Figure]:
    """Lines of row 2: both logs under the same tool, one after the other, as often as there are readings."""
    if not shop.with_peers:
        return [not_available(2, _WHAT, "give --peers to build and measure Tessera")]
    try:
        server, hammer = _build(shop.programs)
    except UnavailableError as error:
        return [not_available(2, _WHAT, str(error))]
    figures = []
    for writers in _WRITERS:
        ours: list[_Reading] = []
        theirs: list[_Reading] = []
        for _ in range(shop.plan.readings):
            theirs.append(_theirs(shop, server, hammer, writers, entry_bytes))
            ours.append(_ours(shop, hammer, writers, entry_bytes))
        figures += _figures(shop, writers, entry_bytes, ours, theirs)
    return figures


def _figures(shop: Workshop, writers: int, entry_bytes: int, ours: list[_Reading], theirs: list[_Reading]) -> list[Figure]:
    plan = shop.plan
    method = (
        f"Tessera {VERSION}'s own server on POSIX files (batches of 256 or 1 s, checkpoint every second) and its load tool, no "
        f"duplicates, no readers, entries of {entry_bytes} B or little more, new logs, {plan.readings} x {plan.peer_seconds} s "
        f"after {_WARM_UP_S:.0f} s; appends are what the published tree grew by from one checkpoint to another, processor time "
        "is the server's alone; "
        "both fsync before they answer, we also sign before it"
    )
    name = f"/add, {writers:,} writers of Tessera's tool"
    return [
        Figure(
            row=2,
            what=f"{name}: appends/s",
            unit="/s",
            ours=[one.rate for one in ours],
            floor=[one.rate for one in theirs],
            floor_name="/s: Tessera",
            target=Target(limit=1.0, of_ratio=True),
            method=method,
        ),
        Figure(
            row=2,
            what=f"{name}: server CPU per append",
            unit="ms",
            ours=[one.cpu_ms for one in ours],
            floor=[one.cpu_ms for one in theirs],
            floor_name="ms: Tessera",
            target=Target(limit=1.0, lower=True, of_ratio=True),
            method=method,
        ),
    ]


def _ours(shop: Workshop, hammer: Path, writers: int, entry_bytes: int) -> _Reading:
    directory, _ = shop.new_log("hammered")
    vkey = read_skey(directory / "keys" / LOG_KEY_FILES[KeyType.ED25519]).vkey
    try:
        with serve_log(directory, TRANSLOG_SERVER__CONNECTIONS_MAX=str(3 * writers)) as server:
            return _hammered(shop, server, hammer, str(vkey), writers, entry_bytes)
    finally:
        shop.forget(directory)


def _theirs(shop: Workshop, program: Path, hammer: Path, writers: int, entry_bytes: int) -> _Reading:
    directory = shop.new_path("tessera")
    directory.mkdir()
    skey = SKey(name="bench.example/tessera", type=KeyType.ED25519, seed=os.urandom(SEED_BYTES))
    key = shop.new_path("tessera.key")
    key.touch(0o600)
    key.write_text(format_skey(skey), "utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    options = ["--storage_dir", str(directory), "--listen", url.removeprefix("http://"), "--private_key", str(key)]
    try:
        with running([program, *options], log=shop.new_path("tessera.log"), url=url) as server:
            _wait_until(lambda: _published_size(server) >= 0, "Tessera publishes no checkpoint")
            return _hammered(shop, server, hammer, str(skey.vkey), writers, entry_bytes)
    finally:
        shop.forget(directory)


def _hammered(shop: Workshop, server: Server, hammer: Path, vkey: str, writers: int, entry_bytes: int) -> _Reading:
    url = f"{server.url}/"
    options = [f"--log_public_key={vkey}", f"--log_url={url}", f"--write_log_url={url}", f"--num_writers={writers}"]
    options += ["--max_write_ops=1000000", "--num_readers_full=0", "--num_readers_random=0", "--max_read_ops=0"]
    options += ["--show_ui=false", "--dup_chance=0", f"--leaf_min_size={entry_bytes}"]
    with shop.new_path("hammer.log").open("wb") as output:
        load = subprocess.Popen([hammer, *options], stdout=output, stderr=output)  # noqa: S603
    try:
        _wait_until(lambda: _published_size(server) > 0, "nothing is appended")
        time.sleep(_WARM_UP_S)
        begin = _at_next_checkpoint(server)
        time.sleep(shop.plan.peer_seconds)
        end = _at_next_checkpoint(server)
    finally:
        load.kill()
        load.wait()
    appended = end[0] - begin[0]
    return _Reading(rate=appended / (end[1] - begin[1]), cpu_ms=1_000 * (end[2] - begin[2]) / appended)


def _at_next_checkpoint(server: Server) -> tuple[int, float, float]:
    """Size, wall clock and processor time as soon as a larger tree is published: some logs publish once a second only."""
    size = _published_size(server)
    _wait_until(lambda: _published_size(server) > size, "nothing is appended any more")
    return _published_size(server), time.perf_counter(), server.cpu_s()


def _published_size(server: Server) -> int:
    """-1 before the first checkpoint."""
    try:
        with urlopen(f"{server.url}/checkpoint", timeout=30) as answer:  # noqa: S310
            return parse_checkpoint(parse_note(answer.read()).text).size
    except OSError:
        return -1


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError(otherwise)
        time.sleep(_POLL_S)
