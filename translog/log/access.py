"""What a log offers to those who use it while it runs: appending, waiting, reading. lifecycle.py is what keeps it running.

Rules: what the log cannot take now, or ever, is refused at once, with nothing written; who waits is counted, so that a stop
gives them time; everything that blocks runs on a thread. Readers see what is published, the log's own followers and its event
reader what is committed. A CorruptionError in any read for the world holds the log: it serves on, but signs and takes nothing.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from enum import Enum
from functools import partial
from typing import Any, TypeVar

import structlog

from translog.core.merkle import EMPTY_ROOT
from translog.errors import CorruptionError, HeldError, MalformedError, PushbackError, StorageError, TranslogError
from translog.log.clock import Clock, ClockGuard
from translog.log.drafts import Draft, Note, require_items
from translog.log.metrics import LogMetrics
from translog.log.opening import Opening
from translog.log.pool import Pool, Sequenced, Submission, require_entries
from translog.log.reader import Published, Reader
from translog.log.settings import LogSettings
from translog.log.waiters import SizeWaiters
from translog.storage.store import LogMeta, LogStore, Profile, StreamHead, StreamName, TreeState

_logger = structlog.get_logger()

T = TypeVar("T")


class Mode(Enum):
    """What the log does at the moment."""

    STARTING = "starting"
    OPEN = "open"
    REOPENING = "reopening"
    HELD = "held"
    STOPPING = "stopping"


class LogAccess:
    """A log as its users see it. Belongs to the event loop's thread."""

    def __init__(self, *, meta: LogMeta, clock: Clock, settings: LogSettings, metrics: LogMetrics) -> None:
        self.meta = meta
        self.settings = settings
        self.metrics = metrics
        self.mode = Mode.STARTING
        self.held: TranslogError | None = None
        self.unwitnessed_since_ms: int | None = None
        """Since when the publication policy's quorum is not reached; None while it is, or where none is asked for."""
        self.on_quorum: Callable[[bool], None] | None = None
        """Told when the quorum is lost, and when it is there again."""
        self.integrated = TreeState(size=0, root=EMPTY_ROOT, received_at_ms=0)
        self.guard = ClockGuard(clock, jump_ms_max=settings.clock_jump_ms, retry_after_ms=settings.retry_after_ms)
        self._pool: Pool[Any] = Pool(  # of bytes, or of drafts and notes: as the profile says
            entries_max=settings.pool_entries_max,
            entry_bytes_max=settings.pool_bytes_max,
            retry_after_ms=settings.retry_after_ms,
        )
        self._readers = ThreadPoolExecutor(settings.reader_threads, thread_name_prefix="reader")
        self._published_waiters = SizeWaiters()
        self._integrated_waiters = SizeWaiters()
        self._opening: Opening | None = None
        self._reader: Reader | None = None
        self._task: asyncio.Task[None] | None = None
        self._may_sign = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # --- appending ------------------------------------------------------------------------------------------------------

    async def append(self, entries: Sequence[bytes], *, timeout_ms: int | None = None) -> Sequenced:
        """Commits `entries` to an opaque log, together and in order; durable when it returns.

        Raises MalformedError for no entries or a log of events, TooLargeError for one that fits no bundle, PushbackError
        (nothing was written), HeldError, or StorageError `outcome-unknown`, which it also is when nothing is known within the
        time.
        """
        submission = self._submit(Profile.OPAQUE, require_entries, entries)
        try:
            return await submission.outcome(timeout_ms=timeout_ms)
        finally:
            self._end_waiting()

    async def append_events(self, items: Sequence[Draft | Note], *, timeout_ms: int | None = None) -> Sequenced:
        """Numbers and commits events to an events log, together and in order; durable when it returns, also what it says of
        duplicates and conflicts. A Conflict is not written, and does not keep the others from it.

        Raises ConflictError where numbers do not fit (nothing was written), and what `append` raises.
        """
        submission = self._submit(Profile.EVENTS, require_items, items)
        try:
            return await submission.outcome(timeout_ms=timeout_ms)
        finally:
            self._end_waiting()

    def _submit(self, profile: Profile, require: Callable[[Sequence[Any]], None], items: Sequence[Any]) -> Submission[Any]:
        """Queues what is sound. Whoever calls waits for it, and then says so with `_end_waiting`."""
        try:
            if self.meta.profile is not profile:
                raise MalformedError(f"this log is one of {_TAKES[self.meta.profile]}", code="wrong-profile")
            require(items)
            self._require_open()
            self.guard.tick()
            submission = self._pool.add(items)
        except TranslogError as error:
            self.metrics.pushbacks.labels(error.code).inc()
            raise
        self.metrics.pool_entries.set(self._pool.entries)
        self._begin_waiting()
        return submission

    async def wait_published(self, size: int, *, timeout_ms: int) -> bool:
        """Whether a checkpoint of at least `size` is published, or becomes so within the time."""
        self._begin_waiting()
        try:
            return await self._published_waiters.wait(size, timeout_ms=timeout_ms)
        finally:
            self._end_waiting()

    def _begin_waiting(self) -> None:
        """Somebody waits for sequencing or publishing: `stop` gives them time."""
        self._in_flight += 1
        self._idle.clear()

    def _end_waiting(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    def _require_open(self) -> None:
        if self.mode is Mode.HELD:
            raise self._held_error()
        if self.mode is Mode.STOPPING:
            raise stopping()
        if self.mode is not Mode.OPEN:
            raise PushbackError(
                f"the log is {self.mode.value}; nothing was written",
                code="not-open",
                retry_after_ms=self.settings.retry_after_ms,
            )

    def _held_error(self) -> HeldError:
        reason = self.held.detail if self.held else ""
        return HeldError(f"the log takes no entries: {reason}", hint=self.held.hint if self.held else "")

    # --- reading --------------------------------------------------------------------------------------------------------

    @property
    def published(self) -> Published | None:
        """What the world sees; None before the first checkpoint."""
        return self._reader.published if self._reader is not None else None

    async def read(self, read: Callable[[Reader], T]) -> T:
        """`read` of the published log, on a reader thread. Raises what it raises, or PushbackError before the first
        checkpoint. A CorruptionError holds the log."""
        with self._holding_on_corruption():
            return await self._run(self._readers, partial(read, self._require_reader()))

    def read_at_once(self, read: Callable[[Reader], T]) -> T:
        """The same here on the event loop's thread, for a `read` that touches one key of the store at most: going to another
        thread costs more than that."""
        with self._holding_on_corruption():
            return read(self._require_reader())

    def _require_reader(self) -> Reader:
        if self._reader is None:
            raise PushbackError("nothing is published yet", code="not-open", retry_after_ms=self.settings.retry_after_ms)
        return self._reader

    @contextmanager
    def _holding_on_corruption(self) -> Iterator[None]:
        try:
            yield
        except CorruptionError as error:
            self._hold(error)
            if self._task is not None:
                self._task.cancel()
            raise

    async def wait_integrated(self, size: int, *, timeout_ms: int) -> bool:
        """Whether `size` entries are committed, or become so within the time."""
        return await self._integrated_waiters.wait(size, timeout_ms=timeout_ms)

    async def read_integrated(self, *, start: int, end: int) -> list[bytes]:
        """Committed entries [start, end), published or not: for the log's own followers. Raises StorageError while the log
        is being opened anew."""
        store = self._require_store()
        return await self._run(self._readers, lambda: store.read_entries(start=start, end=end))

    async def read_store(self, read: Callable[[LogStore], T]) -> T:
        """`read` of the store, on a reader thread: all that is committed, published or not, which is for its caller to tell
        apart (`published.size`). Raises what it raises, or StorageError while the log is being opened anew. A CorruptionError
        holds the log."""
        with self._holding_on_corruption():
            return await self._run(self._readers, partial(read, self._require_store()))

    async def read_streams(self) -> dict[StreamName, StreamHead]:
        """Every stream that has a committed event, and where it is. Raises StorageError as `read_store`."""
        return await self.read_store(lambda store: store.read_streams())

    def _require_store(self) -> LogStore:
        if self._opening is None:
            raise StorageError("the store is closed", code="store-closed")
        return self._opening.store

    # --- the operator's actions -----------------------------------------------------------------------------------------

    def accept_clock(self, operator: str) -> int:
        """Takes the clock as it is for right. Returns by how many ms it had been set."""
        jump_ms = self.guard.accept()
        _logger.warning("the clock was accepted", operator=operator, jump_ms=jump_ms)
        return jump_ms

    # --- what users see, changed by lifecycle.py ------------------------------------------------------------------------

    def _set_integrated(self, state: TreeState) -> None:
        self.integrated = state
        self.metrics.integrated_size.set(state.size)
        self._integrated_waiters.reached(state.size)

    def _hold(self, error: TranslogError) -> None:
        if self.held is None:
            _logger.critical(
                "the log is held: it serves, but does not sign or take entries", code=error.code, detail=str(error)
            )
        self.held = error
        self._may_sign = False
        if self.mode is not Mode.STOPPING:
            self._set_mode(Mode.HELD)
        self._pool.fail_all(self._held_error())

    def _set_mode(self, mode: Mode) -> None:
        self.mode = mode
        self.metrics.accepting.set(mode is Mode.OPEN)

    async def _run(self, executor: Executor, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, function)


def stopping() -> PushbackError:
    """What a log that shuts down answers."""
    return PushbackError("the log is shutting down; nothing was written", code="not-open", retry_after_ms=5_000)


_TAKES = {Profile.OPAQUE: "opaque entries, not of events", Profile.EVENTS: "events, not of opaque entries"}
