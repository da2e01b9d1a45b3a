"""The only writer: takes what waits in the pool, numbers and stamps it, integrates it, commits it.

Rules: commits as soon as it is idle and something waits, so batches form by themselves while the previous commit runs. The
store's commit is the commit point: before it nothing is answered or signed, and what fails in it has an unknown outcome,
so the sequencer stops there for good and the log is opened anew (lifecycle.py).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from translog.core.integrate import Edge, integrate
from translog.errors import PushbackError, StorageError
from translog.log.clock import ClockGuard
from translog.log.metrics import LogMetrics
from translog.log.pool import Pool, Sequenced, Submission
from translog.log.settings import LogSettings
from translog.log.waiters import uninterrupted
from translog.storage.store import LogStore, TreeState, Update


class Sequencer:
    """One run of sequencing over one opening of the store."""

    def __init__(
        self,
        *,
        store: LogStore,
        edge: Edge,
        received_at_ms: int,
        pool: Pool,
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

    async def _sequence(self, batch: list[Submission], now_ms: int) -> None:
        first = self._edge.size
        try:
            with self._metrics.commit_seconds.time():
                state = await asyncio.get_running_loop().run_in_executor(self._writer, self._commit, batch, now_ms)
        except Exception:  # also one that nobody foresaw: those who wait must hear of it
            for submission in batch:
                submission.fail(_outcome_unknown())
            raise
        self._metrics.appended.inc(state.size - first)
        self._metrics.appended_bytes.inc(sum(submission.entry_bytes for submission in batch))
        self._metrics.batch_entries.observe(state.size - first)
        self._metrics.pool_entries.set(self._pool.entries)
        for submission in batch:
            count = len(submission.entries)
            if not submission.done.done():
                submission.done.set_result(
                    Sequenced(first=first, count=count, size=state.size, received_at_ms=state.received_at_ms)
                )
            first += count
        self._on_commit(state)

    def _commit(self, batch: list[Submission], now_ms: int) -> TreeState:
        """On the writer's thread: everything that costs time."""
        entries = [entry for submission in batch for entry in submission.entries]
        integration = integrate(self._edge, entries)
        state = TreeState(
            size=integration.edge.size,
            root=integration.edge.root,
            received_at_ms=max(now_ms, self._received_at_ms),
        )
        # The commit point. Nothing is acknowledged or signed before this returns.
        self._store.commit(Update(old_size=self._edge.size, state=state, entries=entries, tiles=integration.tiles))
        self._edge = integration.edge
        self._received_at_ms = state.received_at_ms
        return state


def _outcome_unknown() -> StorageError:
    return StorageError(
        "the write failed, and whether these entries were logged is not known",
        hint="when the log is open again, look for them before sending them once more, or they may be logged twice",
        code="outcome-unknown",
    )
