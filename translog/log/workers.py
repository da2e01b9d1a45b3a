"""The processes that check a log, and the work they are given: each opens the source for itself, only results come back.

Rules: with one process the work is done here; results come in the order of the work; at most two pieces of work a process are
under way, so that what waits does not grow with the log; a process that has lost its parent ends.
"""

import multiprocessing
import os
import resource
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TypeVar

from translog.core.policy import Policy
from translog.errors import StorageError, TranslogError
from translog.log.eventspan import EventSpan, EventTask
from translog.log.findings import EventsFound
from translog.log.payloads import FindKey
from translog.log.recompute import Span, SpanResult, bundles_in, check_notes, check_span
from translog.storage.source import TreeSource
from translog.storage.store import StoredCheckpoint

OpenKeys = Callable[[], FindKey]
"""Opens the vault; called once in every process, so it must be picklable."""

_opened: TreeSource | TranslogError
"""In a worker process: its own view of the source, or why there is none."""
_find_key: FindKey | None = None
"""In a worker process: the data keys."""

T = TypeVar("T")
R = TypeVar("R")


def _begin(open_source: Callable[[], TreeSource], open_keys: OpenKeys | None) -> None:
    global _opened, _find_key
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _opened = open_source()
        _find_key = None if open_keys is None else open_keys()
    except TranslogError as error:
        _opened = error
    # From here on nothing is written here, but for LevelDB, which would compact its view in the background: half of the time.
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))


def _end_with_parent() -> None:
    """A pool's processes wait for work for ever where their parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _check_span(task: EventTask | None, span: Span) -> tuple[SpanResult, EventsFound | None]:
    if isinstance(_opened, TranslogError):
        raise _opened
    return _check(_opened, span, task, _find_key)


def _check(
    source: TreeSource, span: Span, task: EventTask | None, find_key: FindKey | None
) -> tuple[SpanResult, EventsFound | None]:
    if task is None:
        return check_span(source, span), None
    events = EventSpan(source, bundles_in(span), task, find_key)
    return check_span(source, span, events.take), events.found


class Workers:
    """Runs the work here, or in other processes where there is more than one."""

    def __init__(
        self, open_source: Callable[[], TreeSource], source: TreeSource, processes: int, *, open_keys: OpenKeys | None = None
    ) -> None:
        """`open_keys` where payloads are to be opened. Raises what that raises."""
        self._source = source
        self._find_key = None if open_keys is None else open_keys()
        self._window = 2 * processes
        self._pool: Executor | None = None
        if processes > 1:
            context = multiprocessing.get_context("spawn")  # a fork would take LevelDB's threads along, dead
            self._pool = ProcessPoolExecutor(processes, context, _begin, (open_source, open_keys))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def check_spans(
        self, spans: Iterable[Span], task: EventTask | None = None
    ) -> Iterator[tuple[SpanResult, EventsFound | None]]:
        """The results, in order; with a task, those of the events too. Raises what `check_span` raises, StorageError if a
        process died."""
        if self._pool is None:
            return (_check(self._source, span, task, self._find_key) for span in spans)
        return self._in_order(self._pool, partial(_check_span, task), spans)

    def check_notes(self, policy: Policy, groups: Iterable[Sequence[StoredCheckpoint]]) -> Iterator[list[str]]:
        """For each checkpoint of each group why the policy does not accept it, empty where it does. Raises StorageError if a
        process died."""
        notes = ([checkpoint.note for checkpoint in group] for group in groups)
        if self._pool is None:
            return (check_notes(policy, group) for group in notes)
        return self._in_order(self._pool, partial(check_notes, policy), notes)

    def _in_order(self, pool: Executor, function: Callable[[T], R], work: Iterable[T]) -> Iterator[R]:
        waiting: deque[Future[R]] = deque()
        try:
            for item in work:
                waiting.append(pool.submit(function, item))
                if len(waiting) == self._window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise StorageError("a process that checks has died", hint="is there enough memory? try --processes 1") from None
