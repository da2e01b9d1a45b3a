"""Row 4: audit events the whole way over HTTP, from a source's record to a sealed, encrypted, numbered entry; row 9 for them.

Durable means here: written and fdatasynced by LevelDB before the answer. What the log costs is the time of its own process; the
records are made, and answers read, in other ones.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import floors
from benchmarks.event_load import QUERY, EventLoad, event_load
from benchmarks.event_profile import READINGS, STAGES, TURN_EVENTS, profile_stages
from benchmarks.event_records import Records, find_cloudtrail
from benchmarks.figures import Figure, Target, not_available
from benchmarks.load import Connection, percentile
from benchmarks.processes import Server, UnavailableError, serve_log
from benchmarks.stores import compact, folder_bytes, open_intake, open_service
from benchmarks.workshop import Workshop
from translog.events.sources.table import SOURCES
from translog.storage.store import Profile, StreamName

BATCH_EVENTS = 1_000
CONNECTIONS = 4
KUBERNETES_EVENTS = 400
"""Most events in one request of the API server's webhook, unless it is told otherwise."""
_CURVE_EVENTS = 10_000
_WARM_EVENTS = 2_000
_SETTLE_S = 1.0
_LEAVES, _PAYLOAD_BYTES, _ENTRY_BYTES = 20, 870, 190
"""What an event of CloudTrail has, near enough for a floor: fields, bytes of its payload row and of its entry."""
_NAMES = {"cloudtrail": "CloudTrail records", "events": "short events as NDJSON"}


def audit_events(shop: Workshop) -> list[Figure]:
    """Row 4."""
    figures: list[Figure] = []
    for source, events in (("cloudtrail", shop.plan.events), ("events", shop.plan.events // 10)):
        try:
            figures += _batches(shop, source, events)
        except UnavailableError as error:
            figures.append(not_available(4, f"{_NAMES[source]} in batches", str(error)))
    try:
        return figures + _lone(shop) + _beside_batches(shop) + _stages(shop)
    except UnavailableError as error:
        return [*figures, not_available(4, "waits beside batches, and stages", str(error))]


def _batches(shop: Workshop, source: str, events: int) -> list[Figure]:
    """Throughput and cost in equal parts of the way to `events`, and what has become of them at its end."""
    readings = shop.plan.readings
    part = max(READINGS, events // readings // BATCH_EVENTS) * BATCH_EVENTS
    sample = find_cloudtrail() if source == "cloudtrail" else Records(source).take(0, BATCH_EVENTS)
    with _served(shop, source) as server:
        loads: list[EventLoad] = []
        floor: list[float] = []
        for number in range(readings):
            floor.append(floors.event_us(shop.work, sample, leaves=_LEAVES, entry_bytes=_ENTRY_BYTES, row_bytes=_PAYLOAD_BYTES))
            start = number * part
            loads.append(event_load(server, source, start=start, events=part, batch=BATCH_EVENTS, connections=CONNECTIONS))
    parts = [load.part(0, part) for load in loads]
    bytes_each = loads[0].record_bytes / part
    method = (
        f"{readings} x {part:,} {_NAMES[source]} of {bytes_each:.0f} bytes, each with an id of its own, by another process in "
        f"batches of {BATCH_EVENTS:,} over {CONNECTIONS} connections: POST {Records(source).path}{QUERY}, answered after "
        "commit (fdatasync), publication beside it. A microsecond is one of the server's process, all threads. Floor: of such "
        f"a record json.loads, {2 * _LEAVES} SHA-256, AES-256-GCM, and LevelDB's three rows in synced batches, in one thread"
    )
    what = f"{_NAMES[source]} in batches of {BATCH_EVENTS:,}"
    rate = Figure(
        row=4,
        what=f"{what}: events/s",
        unit="/s",
        ours=[rate for rate, _ in parts],
        floor=[1e6 / us for us in floor],
        floor_name="/s: parse, hashes, AES, LevelDB",
        target=Target(limit=10_000, unit="/s"),
        method=method,
    )
    cost = Figure(
        row=4,
        what=f"{what}: server CPU per event",
        unit="µs",
        ours=[us for _, us in parts],
        floor=floor,
        floor_name="µs: parse, hashes, AES, LevelDB",
        target=Target(limit=100, lower=True, unit="µs"),
        method=method,
    )
    return [rate, cost, _curve(what, loads, part, method)]


def _curve(what: str, loads: Sequence[EventLoad], part: int, method: str) -> Figure:
    """The cost of the last events of the way, beside that of the first."""
    width = min(_CURVE_EVENTS, part)
    count = min(READINGS, part // width)
    first = [loads[0].part(width * n, width * (n + 1))[1] for n in range(count)]
    last = [loads[-1].part(part - width * (n + 1), part - width * n)[1] for n in range(count)]
    return Figure(
        row=4,
        what=f"{what}: server CPU per event at {part * len(loads):,}",
        unit="µs",
        ours=last,
        floor=first,
        floor_name=f"µs: the first {count} x {width:,}",
        target=Target(limit=1 / 0.9, lower=True, of_ratio=True),
        method=method,
    )


def _lone(shop: Workshop) -> list[Figure]:
    """One client, one event at a time, answered when it is in a signed checkpoint, in a log at rest."""
    plan = shop.plan
    records = Records("events")
    with _served(shop, "events") as server:
        waits = [
            _lone_posts(server, records, start=number * plan.lone_appends, count=plan.lone_appends)
            for number in range(1, plan.readings + 1)
        ]
    method = (
        "POST /v1/events?ack=published of one short event over one connection: answered after commit (fdatasync), DIR/head "
        f"(fdatasync), both signatures and publication; {plan.readings} series of {plan.lone_appends}; no witnesses"
    )
    return [
        Figure(
            row=4,
            what=f"lone event, published, {name}",
            unit="ms",
            ours=[1e3 * percentile(series, share) for series in waits],
            target=Target(limit=20, lower=True, unit="ms"),
            method=method,
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]


def _lone_posts(server: Server, records: Records, *, start: int, count: int) -> list[float]:
    path = "/v1/events?ack=published"
    with Connection(server) as connection:
        return [
            connection.request("POST", path, body, content_type=records.content_type) for body in records.take(start, count)
        ]


@dataclass(slots=True)
class _Probe:
    """A client that asks again and again, a pause after each answer, while batches are posted."""

    what: str
    pause_s: float
    ask: Callable[[Connection, int], float]
    waits: list[float] = field(default_factory=list)
    error: Exception | None = None

    def run(self, server: Server, ended: threading.Event) -> None:
        try:
            with Connection(server) as connection:
                while not ended.is_set():
                    self.waits.append(self.ask(connection, len(self.waits)))
                    ended.wait(self.pause_s)
        except Exception as error:
            self.error = error


def _probes() -> list[_Probe]:
    short, kubernetes = Records("events"), Records("kubernetes")

    def checkpoint(connection: Connection, number: int) -> float:
        return connection.request("GET", "/checkpoint")

    def lone(connection: Connection, number: int) -> float:
        body = short.take(1_000_000 + number, 1)[0]
        return connection.request("POST", "/v1/events?ack=published", body, content_type=short.content_type)

    def event_list(connection: Connection, number: int) -> float:
        body = kubernetes.join(kubernetes.take(number * KUBERNETES_EVENTS, KUBERNETES_EVENTS))
        return connection.request("POST", kubernetes.path, body, content_type=kubernetes.content_type)

    return [
        _Probe("GET /checkpoint", 0.02, checkpoint),
        _Probe("lone event, published", 0.05, lone),
        _Probe(f"Kubernetes EventList of {KUBERNETES_EVENTS}, durable", 0.25, event_list),
    ]


def _beside_batches(shop: Workshop) -> list[Figure]:
    """How long others wait while batches come as fast as they are taken."""
    seconds = max(4, 2 * shop.plan.seconds)
    series: dict[str, list[list[float]]] = {}
    with _served(shop, "cloudtrail") as server:
        for reading in range(1, READINGS + 1):
            ended = threading.Event()
            probes = _probes()
            threads = [threading.Thread(target=probe.run, args=(server, ended)) for probe in probes]
            try:
                for thread in threads:
                    thread.start()
                start = reading * 10_000_000
                event_load(
                    server,
                    "cloudtrail",
                    start=start,
                    events=0,
                    batch=BATCH_EVENTS,
                    connections=CONNECTIONS,
                    seconds=seconds,
                )
            finally:
                ended.set()
                for thread in threads:
                    thread.join()
            for probe in probes:
                if probe.error is not None:
                    raise probe.error
                series.setdefault(probe.what, []).append(probe.waits)
    method = (
        f"{READINGS} x {seconds} s, while another process posts batches of {BATCH_EVENTS:,} CloudTrail records over "
        f"{CONNECTIONS} connections as fast as they are answered; the three kinds of client at once, one connection each, a "
        "pause of 20, 50 and 250 ms after each answer"
    )
    return [
        Figure(
            row=4,
            what=f"beside batches: {what}, {name}",
            unit="ms",
            ours=[1e3 * percentile(waits, share) for waits in found],
            target=Target(limit=100, lower=True, unit="ms") if name == "p99" and "Kubernetes" not in what else None,
            method=method,
        )
        for what, found in series.items()
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]


def _stages(shop: Workshop) -> list[Figure]:
    """Where the time goes."""
    runs = [profile_stages("cloudtrail", shop.work, events=min(shop.plan.events, 20_000)) for _ in range(READINGS)]
    method = (
        f"the stages of benchmarks.event_profile over CloudTrail records, {TURN_EVENTS} at a time as in the server, from "
        "number on a batch at a time; in one process, on one thread and without HTTP: processor time, all threads"
    )
    return [
        Figure(row=4, what=f"stage: {stage}", unit="µs", ours=[run[stage] for run in runs], method=method) for stage in STAGES
    ]


def disk(shop: Workshop) -> list[Figure]:
    """Row 9, for events: what DIR/log takes for the records that were sent."""
    figures = []
    for source, name in _NAMES.items():
        what = f"disk per byte of {name}, compacted"
        try:
            records = Records(source)
        except UnavailableError as error:
            figures.append(not_available(9, what, str(error)))
            continue
        directory, _ = shop.new_log("event-disk", profile=Profile.EVENTS)
        count = shop.plan.disk_entries // 2
        sent = 0
        shares = []
        for part in range(3):
            sent += asyncio.run(_append(directory, source, records, start=part * count, count=count))
            compact(directory)
            shares.append(folder_bytes(directory / "log") / sent)
        shop.forget(directory)
        figures.append(
            Figure(
                row=9,
                what=what,
                unit="x",
                ours=shares,
                floor=[1.0],
                floor_name="x: the records alone",
                target=Target(limit=1.0, lower=True, unit="x") if source == "cloudtrail" else None,
                method=f"blocks of all files in DIR/log at {count:,}, {2 * count:,} and {3 * count:,} events, in process, in "
                f"batches of {BATCH_EVENTS:,}, each after an orderly stop and LevelDB's compact_range",
            )
        )
    return figures


async def _append(directory: Path, source: str, records: Records, *, start: int, count: int) -> int:
    """Logs records [start, start + count) in this process; how many bytes they have."""
    known, sent = SOURCES[source], 0
    headers = {"content-type": records.content_type}
    async with open_service(directory) as service:
        with open_intake(directory, service) as intake:
            for first in range(start, start + count, BATCH_EVENTS):
                made = records.take(first, min(BATCH_EVENTS, start + count - first))
                sent += sum(map(len, made))
                slices = await intake.split(known, records.join(made), headers, BATCH_EVENTS)
                await intake.take(StreamName("local", "bench"), known, slices)
    return sent


@contextmanager
def _served(shop: Workshop, source: str) -> Iterator[Server]:
    """A new log of audit events that has taken its first ones, until the end of the block."""
    directory, _ = shop.new_log("events", profile=Profile.EVENTS)
    try:
        with serve_log(directory) as server:
            event_load(server, source, start=10**9, events=_WARM_EVENTS, batch=BATCH_EVENTS, connections=1)
            time.sleep(_SETTLE_S)
            yield server
    finally:
        shop.forget(directory)
