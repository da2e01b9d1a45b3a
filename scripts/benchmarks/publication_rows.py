"""Row 14: publication under a policy that asks for a majority of witnesses on this machine, each a process of its own.

Durable means here: the entry in LevelDB, DIR/head, and in each witness of the quorum its SQLite state, all synced before the
answer. Log, witnesses and client share the cores of one machine: with many witnesses that is what is measured.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from urllib.request import urlopen

from benchmarks import floors
from benchmarks.figures import Figure, not_available
from benchmarks.load import Connection, Load, find_wrk, lone_posts, percentile, post_load
from benchmarks.local_witnesses import (
    BOTH,
    LOG_TYPE,
    WITNESS_TYPE,
    LocalWitness,
    majority,
    majority_lines,
    make_witness,
    new_skeys,
    serve_witnesses,
    witness_name,
)
from benchmarks.processes import Server, UnavailableError, command_of_module, free_port, running, serve_log
from benchmarks.stores import Entries
from benchmarks.witness_requests import OfferedLog, ask_together, grow_steps
from benchmarks.workshop import Workshop
from translog.bootstrap import create_log
from translog.core.keys import VKey
from translog.log.settings import WitnessingSettings
from translog.storage.store import Profile

ENTRY_BYTES = 1_000
_WRITERS = 128
_SLOW_S = 2
_FAULTY_MIN = 5
"""From so many witnesses on a majority is left when two of them fail."""
_LOAD_S_MIN = 5
"""How long a load lasts at least: some intervals."""
_INTERVAL_MS = WitnessingSettings().min_interval_ms
_DEADLINE_MS = 30_000
_OCTETS = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A log, how many witnesses its policy lists, whether two of them fail, and what stands in for the log when its witnesses
    are asked directly."""

    directory: Path
    vkeys: tuple[VKey, ...]
    witnesses: int
    faulty: bool
    probe: OfferedLog
    bodies: list[bytes]

    @property
    def what(self) -> str:
        return f"{self.witnesses or 'no'} witnesses{', one dead and one slow' if self.faulty else ''}"

    @property
    def answering(self) -> int:
        return self.witnesses - 2 * self.faulty


def publication(shop: Workshop) -> list[Figure]:
    """Row 14."""
    counts = shop.plan.witnesses
    cases = [_case(shop, count, faulty=False) for count in counts]
    cases += [_case(shop, count, faulty=True) for count in counts if count >= _FAULTY_MIN]
    known = [vkeys for case in cases for vkeys in (case.vkeys, case.probe.vkeys)]
    made = [make_witness(shop.new_path("witness"), name=witness_name(n), logs=known) for n in range(max(counts))]
    figures: list[Figure] = []
    with serve_witnesses(made) as servers:
        for case in cases:
            with _listed(shop, case, made, servers) as slow:
                figures += _latency(shop, case, servers[: case.answering], has_slow=slow is not None)
            shop.say(f"{figures[-1].what}: {figures[-1].value:.1f} {figures[-1].unit}")
        try:
            figures += _under_load(shop, [case for case in cases if not case.faulty])
        except UnavailableError as error:
            figures.append(not_available(14, "publication under load", str(error)))
    for path in (*(case.directory for case in cases), *(witness.directory for witness in made)):
        shop.forget(path)
    return figures


def _case(shop: Workshop, count: int, *, faulty: bool) -> _Case:
    origin = f"bench.example/witnessed-{count}{'-faulty' if faulty else ''}"
    directory = shop.new_path("witnessed")
    vkeys = tuple(create_log(directory, origin=origin, profile=Profile.OPAQUE))
    probe = OfferedLog(skeys=new_skeys(f"{origin}-probe", [LOG_TYPE[key] for key in BOTH]))
    asked = _probes(shop) * max(shop.plan.readings, 3) if count and not faulty else 0
    bodies = [probe.request(step) for step in grow_steps(first=1_000, count=asked)]
    return _Case(directory=directory, vkeys=vkeys, witnesses=count, faulty=faulty, probe=probe, bodies=bodies)


def _probes(shop: Workshop) -> int:
    return min(100, shop.plan.lone_appends)


@contextmanager
def _listed(shop: Workshop, case: _Case, made: Sequence[LocalWitness], servers: Sequence[Server]) -> Iterator[Server | None]:
    """Writes the log's policy. Where two witnesses are to fail, one has a URL at which nothing listens, the other is reached
    through a proxy that waits: the proxy."""
    urls = [server.url for server in servers[: case.answering]]
    with ExitStack() as stack:
        slow = None
        if case.faulty:
            command = command_of_module("slow_proxy", servers[case.answering].url, _SLOW_S)
            slow = stack.enter_context(running(command, log=shop.new_path("slow.log")))
            urls += [slow.url, f"http://127.0.0.1:{free_port()}"]
        policy = majority_lines([witness.vkeys for witness in made[: case.witnesses]], urls)
        (case.directory / "policy").write_text(policy, "utf-8")
        yield slow


def _settings(*, min_interval_ms: int) -> dict[str, str]:
    """A policy, and time enough that whoever waits for publication is never told to come again."""
    return {
        "TRANSLOG_LOG__WITNESSING__POLICY_FILE": "policy",
        "TRANSLOG_LOG__WITNESSING__MIN_INTERVAL_MS": str(min_interval_ms),
        "TRANSLOG_SERVER__PUBLISH_DEADLINE_MS": str(_DEADLINE_MS),
    }


@dataclass(slots=True)
class _Readings:
    """Of one case, in ms: the waits of each series, and the floors beside it."""

    series: list[list[float]] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)
    signs: list[float] = field(default_factory=list)
    trips: list[float] = field(default_factory=list)
    asked: list[list[float]] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)


def _latency(shop: Workshop, case: _Case, servers: Sequence[Server], *, has_slow: bool) -> list[Figure]:
    """A lone client's appends, published, with no least time between two checkpoints."""
    plan = shop.plan
    entry = Entries("text", ENTRY_BYTES).take(0, 1)[0]
    taken = _Readings()
    constant_log = shop.new_path("constant.log")
    with (
        serve_log(case.directory, **_settings(min_interval_ms=0)) as server,
        running(command_of_module("constant_server", 1), log=constant_log) as constant,
    ):
        lone_posts(server, "/add", entry, count=20)
        if has_slow:
            time.sleep(_SLOW_S)  # until the slow one is asked anew, as it will be from then on
        for reading in range(max(plan.readings, 3)):
            taken.series.append([1e3 * wait for wait in lone_posts(server, "/add", entry, count=plan.lone_appends)])
            taken.syncs.append(1e3 * floors.sync_s(shop.work, count=plan.syncs))
            taken.signs.append(1e3 * sum(floors.sign_s(LOG_TYPE[key], count=plan.syncs) for key in BOTH))
            taken.trips.append(1e3 * percentile(lone_posts(constant, "/", entry, count=plan.lone_appends), 0.5))
            if case.bodies:
                bodies = case.bodies[reading * _probes(shop) : (reading + 1) * _probes(shop)]
                waits = ask_together(servers, bodies, wanted=majority(case.witnesses))
                taken.asked.append([1e3 * wait for wait in waits])
                taken.bare.append(_witness_floor_ms(shop, bodies[0]) + taken.trips[-1])
    return _latency_figures(shop, case, taken)


def _witness_floor_ms(shop: Workshop, body: bytes) -> float:
    """What one witness cannot go below: the log's signatures verified, its own made, one transaction."""
    count = shop.plan.syncs
    crypto = sum(floors.verify_s(LOG_TYPE[key], count=count) + floors.sign_s(WITNESS_TYPE[key], count=count) for key in BOTH)
    return 1e3 * (crypto + floors.sqlite_commit_s(shop.work, row_bytes=2 * len(body), count=count)[0])


def _latency_figures(shop: Workshop, case: _Case, taken: _Readings) -> list[Figure]:
    answers = [percentile(waits, 0.5) for waits in taken.asked] or [0.0] * len(taken.series)
    floor = [
        2 * sync + sign + trip + answer
        for sync, sign, trip, answer in zip(taken.syncs, taken.signs, taken.trips, answers, strict=True)
    ]
    parts = f"fdatasync {median(taken.syncs):.3f}, both signatures {median(taken.signs):.3f}, round trip to aiohttp "
    parts += f"{median(taken.trips):.3f}, witnesses' answer {median(answers):.2f} ms"
    method = (
        f"POST /add of {ENTRY_BYTES} bytes over one connection, answered 200 once published: after commit and DIR/head "
        "(fdatasync each), the log's two signatures, and both cosignatures of a majority of witnesses, each a process of "
        "its own (`translog witness serve`) on the same cores, its state committed with an fsync; min_interval_ms = 0; "
        f"{len(taken.series)} series of {shop.plan.lone_appends}, median of each series' p50 or p99. Floor: 2 fdatasyncs of a "
        "4 kB append + both signatures + one round trip + the majority's answer to a request put to all witnesses at once. At "
        f"the dead one's URL nothing listens, the slow one answers after {_SLOW_S} s"
    )
    figures = [
        Figure(
            row=14,
            what=f"lone append, published, {case.what}, {name}",
            unit="ms",
            ours=[percentile(series, share) for series in taken.series],
            floor=[] if case.faulty else floor,
            floor_name="" if case.faulty else floor_name,
            method=text,
        )
        for name, share, floor_name, text in (
            ("p50", 0.5, "ms: sum of floors", method if case.faulty else f"floors, {case.what}: {parts}"),
            ("p99", 0.99, "ms: sum of floors (p50s)", method),
        )
    ]
    if case.bodies:
        figures.append(
            Figure(
                row=14,
                what=f"{case.what} asked at once: answer {majority(case.witnesses)}, p50",
                unit="ms",
                ours=answers,
                floor=taken.bare,
                floor_name="ms: one witness's floors",
                method=f"{_probes(shop)} prepared requests a reading, one after the other, each put to all witnesses at once. "
                "Floor, for one witness with a core to itself: two verifications, two signatures, one transaction of SQLite "
                "with an fsync, one round trip to aiohttp",
            )
        )
    return figures


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """Of one load: entries a second, checkpoints published a second, a lone client's waits for publication (ms)."""

    entries_per_s: float
    published_per_s: float
    waits_ms: list[float]


def _under_load(shop: Workshop, cases: Sequence[_Case]) -> list[Figure]:
    """Many writers, with the default least time between two checkpoints sent to a witness; each case beside the one without
    witnesses."""
    find_wrk()
    seconds = max(_LOAD_S_MIN, shop.plan.seconds)
    body = shop.new_path("entry")
    body.write_bytes(Entries("text", ENTRY_BYTES).take(0, 1)[0])
    taken: dict[str, list[_Loaded]] = {case.what: [] for case in cases}
    with ExitStack() as stack:
        running_logs = []
        for case in cases:
            admin = f"127.0.0.1:{free_port()}"
            settings = _settings(min_interval_ms=_INTERVAL_MS)
            running_logs.append((case, stack.enter_context(serve_log(case.directory, admin=admin, **settings)), admin))
        for _ in range(3):
            for case, server, admin in running_logs:
                taken[case.what].append(_load(server, admin, body, seconds))
    return [figure for case in cases for figure in _load_figures(case, taken, taken[cases[0].what], seconds)]


def _load(server: Server, admin: str, body: Path, seconds: int) -> _Loaded:
    ended = threading.Event()
    waits: list[float] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            with Connection(server) as connection:
                while not waits or not ended.is_set():
                    waits.append(1e3 * connection.request("POST", "/add", b"lone"))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    begin, before = time.perf_counter(), _publications(admin)
    thread.start()
    try:
        load: Load = post_load(server, "/add?ack=durable", body, content_type=_OCTETS, connections=_WRITERS, seconds=seconds)
        published = (_publications(admin) - before) / (time.perf_counter() - begin)
    finally:
        ended.set()
        thread.join()
    if errors:
        raise errors[0]
    return _Loaded(entries_per_s=load.rate, published_per_s=published, waits_ms=waits)


def _publications(admin: str) -> float:
    with urlopen(f"http://{admin}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("translog_publish_seconds_count")))


def _load_figures(case: _Case, taken: dict[str, list[_Loaded]], alone: Sequence[_Loaded], seconds: int) -> list[Figure]:
    loads = taken[case.what]
    method = (
        f"wrk -t1 -c{_WRITERS}, 3 x {seconds} s, POST /add?ack=durable of {ENTRY_BYTES} bytes, answered after commit; beside "
        "it one client that waits for publication; checkpoints are counted by the log's metrics; min_interval_ms = "
        f"{_INTERVAL_MS}, its default. Peer: the same log without witnesses, in the same run"
    )
    has_peer = bool(case.witnesses)
    entries = Figure(
        row=14,
        what=f"under load, {case.what}: entries/s",
        unit="/s",
        ours=[load.entries_per_s for load in loads],
        floor=[load.entries_per_s for load in alone] if has_peer else [],
        floor_name="/s: no witnesses" if has_peer else "",
        method=method,
    )
    published = Figure(
        row=14,
        what=f"under load, {case.what}: checkpoints/s",
        unit="/s",
        ours=[load.published_per_s for load in loads],
        floor=[1e3 / _INTERVAL_MS] if has_peer else [],
        floor_name="/s: the interval" if has_peer else "",
        method=method,
    )
    waits = [
        Figure(
            row=14,
            what=f"under load, {case.what}: lone append, published, {name}",
            unit="ms",
            ours=[percentile(load.waits_ms, share) for load in loads],
            floor=[_INTERVAL_MS] if has_peer else [],
            floor_name="ms: the interval" if has_peer else "",
            method=method,
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    return [entries, published, *waits]
