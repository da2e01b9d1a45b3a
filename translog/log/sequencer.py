"""The only writer: takes what waits in the pool, has entries made of it, stamps and integrates them, commits them.

Rules: commits as soon as it is idle and something waits, so batches form by themselves while the previous commit runs. The
store's commit is the commit point: before it nothing is answered or signed, and what fails in it has an unknown outcome,
so the sequencer stops there for good and the log is opened anew (lifecycle.py). Where nothing is new, nothing is written, and
what the answers refer to was committed before.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, Protocol, TypeVar

from translog.core.integrate import Edge, integrate
from translog.errors import ConflictError, PushbackError, StorageError
from translog.log.clock import ClockGuard
from translog.log.metrics import LogMetrics
from translog.log.numbering import Assembled
from translog.log.pool import ItemT, Pool, Sequenced, Submission
from translog.log.settings import LogSettings
from translog.log.waiters import uninterrupted
from translog.storage.store import LogStore, TreeState, Update

ContraT = TypeVar("ContraT", contravariant=True)


class Assembler(Protocol[ContraT]):
    """Makes entries of items. Called on the writer's thread only."""

    def assemble(self, batch: Sequence[Sequence[ContraT]], *, size: int, received_at_ms: int) -> Assembled:
        """What a commit of these submissions' items writes, in a log of `size` entries, received then.

        It is committed before the next call; where that failed there is none. Raises StorageError, CorruptionError.
        """


class Sequencer(Generic[ItemT]):
    """One run of sequencing over one opening of the store."""

    def __init__(
        self,
        *,
        store: LogStore,
        edge: Edge,
        received_at_ms: int,
        pool: Pool[ItemT],
        assembler: Assembler[ItemT],
        guard: ClockGuard,
        writer: Executor,
        settings: LogSettings,
        metrics: LogMetrics,
        on_commit: Callable[[TreeState], None],
    ) -> None:
        self._store = store
        self._edge = edge
        self._received_at_ms = received_at_ms
        self._pool = pool
        self._assembler = assembler
        self._guard = guard
        self._writer = writer
        self._settings = settings
        self._metrics = metrics
        self._on_commit = on_commit

    async def run(self) -> None:
        """Sequences until cancelled (between commits only) or until a write fails: then raises what the store raised, after
        telling those in flight that their outcome is unknown."""
        while True:
            await self._pool.wait()
            batch = self._pool.take(
                entries_max=self._settings.batch_entries_max, entry_bytes_max=self._settings.batch_bytes_max
            )
            try:
                now_ms = self._guard.tick()
            except PushbackError as error:
                for submission in batch:
                    submission.fail(error)
                continue
            await uninterrupted(self._sequence(batch, now_ms))

    async def _sequence(self, batch: list[Submission[ItemT]], now_ms: int) -> None:
        first = self._edge.size
        try:
            with self._metrics.commit_seconds.time():
                state, assembled = await asyncio.get_running_loop().run_in_executor(self._writer, self._commit, batch, now_ms)
        except Exception:  # also one that nobody foresaw: those who wait must hear of it
            for submission in batch:
                submission.fail(_outcome_unknown())
            raise
        self._metrics.pool_entries.set(self._pool.entries)
        grown = state.size > first
        if grown:
            self._metrics.appended.inc(state.size - first)
            self._metrics.appended_bytes.inc(sum(map(len, assembled.entries)))
            self._metrics.batch_entries.observe(state.size - first)
        for submission, count, result in zip(batch, assembled.counts, assembled.results, strict=True):
            if isinstance(result, ConflictError):
                submission.fail(result)
            elif not submission.done.done():
                submission.done.set_result(
                    Sequenced(first=first, count=count, size=state.size, received_at_ms=state.received_at_ms, outcomes=result)
                )
            first += count
        self._metrics.known_events.inc(assembled.known)
        if grown:
            self._on_commit(state)

    def _commit(self, batch: list[Submission[ItemT]], now_ms: int) -> tuple[TreeState, Assembled]:
        """On the writer's thread: everything that costs time."""
        size = self._edge.size
        received_at_ms = max(now_ms, self._received_at_ms)
        assembled = self._assembler.assemble(
            [submission.items for submission in batch], size=size, received_at_ms=received_at_ms
        )
        if not assembled.entries:
            return TreeState(size=size, root=self._edge.root, received_at_ms=self._received_at_ms), assembled
        integration = integrate(self._edge, assembled.entries)
        edge = integration.edge
        state = TreeState(size=edge.size, root=edge.root, received_at_ms=received_at_ms)
        # The commit point. Nothing is acknowledged or signed before this returns.
        self._store.commit(
            Update(old_size=size, state=state, entries=assembled.entries, tiles=integration.tiles, rows=assembled.rows)
        )
        self._edge = edge
        self._received_at_ms = received_at_ms
        return state, assembled


def _outcome_unknown() -> StorageError:
    return StorageError(
        "the write failed, and whether these entries were logged is not known",
        hint="when the log is open again, look for them before sending them once more, or they may be logged twice",
        code="outcome-unknown",
    )
