"""The processes that check a log, and the work they are given: each opens the source for itself, only results come back.

Rules: with one process the work is done here; results come in the order of the work; at most two pieces of work a process are
under way, so that memory does not grow with the log.
"""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from translog.core.policy import Policy
from translog.errors import StorageError
from translog.log.recompute import Span, SpanResult, check_notes, check_span
from translog.storage.source import TreeSource
from translog.storage.store import StoredCheckpoint

_source: TreeSource
"""In a worker process: its own view of the source."""


def _begin(open_source: Callable[[], TreeSource]) -> None:
    global _source
    _source = open_source()


def _check_span(span: Span) -> SpanResult:
    return check_span(_source, span)


class Workers:
    """Runs the work here, or in other processes where there is more than one."""

    def __init__(self, open_source: Callable[[], TreeSource], source: TreeSource, processes: int) -> None:
        self._source = source
        self._window = 2 * processes
        self._pool: Executor | None = None
        if processes > 1:
            context = multiprocessing.get_context("spawn")  # a fork would take LevelDB's threads along, dead
            self._pool = ProcessPoolExecutor(processes, context, _begin, (open_source,))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def check_spans(self, spans: Iterator[Span]) -> Iterator[SpanResult]:
        """The results, in order."""
        if self._pool is None:
            for span in spans:
                yield check_span(self._source, span)
            return
        waiting: deque[Future[SpanResult]] = deque()
        try:
            for span in spans:
                waiting.append(self._pool.submit(_check_span, span))
                if len(waiting) == self._window:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise StorageError("a process that checks has died", hint="is there enough memory? try --processes 1") from None

    def check_notes(self, policy: Policy, groups: Sequence[Sequence[StoredCheckpoint]]) -> Iterator[list[str]]:
        """For each checkpoint of each group why the policy refuses it, empty where it does not."""
        notes = [[checkpoint.note for checkpoint in group] for group in groups]
        if self._pool is None:
            return (check_notes(policy, group) for group in notes)
        futures = [self._pool.submit(check_notes, policy, group) for group in notes]
        return (future.result() for future in futures)
