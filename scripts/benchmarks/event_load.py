"""Posts batches of audit records, in a process of its own: what it costs to make them is not the server's.

Run as a program: URL PID SOURCE START COUNT BATCH CONNECTIONS SECONDS. Posts records [START, START + COUNT) of the source in
batches, answered when durable, each connection waiting for its answer, and prints one JSON document. It ends early after
SECONDS, unless they are 0, and at once with an error at an answer that is none of 200.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from benchmarks.event_records import Records
from benchmarks.load import Connection
from benchmarks.processes import Server, run_module

QUERY = "?ack=durable&receipts=none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a load was: events answered, seconds since it began, the server's processor seconds until then."""

    events: int
    seconds: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLoad:
    """What came of a load: a mark after every batch, the first before any; the bytes of the records; seconds of each batch."""

    marks: list[Mark]
    record_bytes: int
    waits: list[float]

    def part(self, begin: int, end: int) -> tuple[float, float]:
        """Events a second and the server's microseconds an event, between the first marks with `begin` and `end` events."""
        first = next(mark for mark in self.marks if mark.events >= begin)
        last = next(mark for mark in self.marks if mark.events >= end)
        events = last.events - first.events
        return events / (last.seconds - first.seconds), 1e6 * (last.cpu_s - first.cpu_s) / events


def event_load(
    server: Server, source: str, *, start: int, events: int, batch: int, connections: int, seconds: float = 0
) -> EventLoad:
    """Runs the load in another process. Raises RuntimeError for an answer that is an error."""
    output = run_module("event_load", server.url, server.pid, source, start, events, batch, connections, seconds)
    document = json.loads(output)
    marks = [Mark(events=done, seconds=at, cpu_s=cpu_s) for done, at, cpu_s in document["marks"]]
    return EventLoad(marks=marks, record_bytes=document["record_bytes"], waits=document["waits"])


class _Poster:
    """What the connections share."""

    def __init__(self, server: Server, source: str, batches: Iterator[tuple[int, int]], give_up: float) -> None:
        self._server = server
        self._records = Records(source)
        self._batches = batches
        self._give_up = give_up
        self._guard = threading.Lock()
        self._done = 0
        self._begin = time.perf_counter()
        self.marks = [(0, 0.0, server.cpu_s())]
        self.record_bytes = 0
        self.waits: list[float] = []
        self.error: Exception | None = None

    def run(self) -> None:
        """One connection, from the first batch that is left to the last."""
        try:
            with Connection(self._server) as connection:
                while self.error is None and time.perf_counter() < self._give_up:
                    with self._guard:
                        found = next(self._batches, None)
                    if found is None:
                        return
                    self._post(connection, *found)
        except Exception as error:
            self.error = error

    def _post(self, connection: Connection, start: int, size: int) -> None:
        made = self._records.take(start, size)
        body = self._records.join(made)
        wait = connection.request("POST", self._records.path + QUERY, body, content_type=self._records.content_type)
        with self._guard:
            self._done += size
            self.record_bytes += sum(map(len, made))
            self.waits.append(wait)
            self.marks.append((self._done, time.perf_counter() - self._begin, self._server.cpu_s()))


def _main(arguments: list[str]) -> None:
    url, pid, source = arguments[0], int(arguments[1]), arguments[2]
    start, events, batch, connections = map(int, arguments[3:7])
    seconds = float(arguments[7])
    batches = ((first, min(batch, start + events - first)) for first in range(start, start + events, batch))
    if not events:
        batches = ((first, batch) for first in count(start, batch))
    give_up = time.perf_counter() + seconds if seconds else float("inf")
    poster = _Poster(Server(pid=pid, url=url), source, batches, give_up)
    threads = [threading.Thread(target=poster.run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if poster.error is not None:
        raise poster.error
    print(json.dumps({"marks": poster.marks, "record_bytes": poster.record_bytes, "waits": poster.waits}))


if __name__ == "__main__":
    _main(sys.argv[1:])
