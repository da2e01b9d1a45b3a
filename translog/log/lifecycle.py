"""A log's life: start, the tasks that run it, what happens when a write fails, drain and stop.

Rules: start-up and recovery are one code path, opening.py. Where that says the log must not sign, it is held: it serves what
it has and takes nothing. A failed write closes the store and opens the log anew; a broken invariant (CorruptionError) holds
it until somebody looks.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from enum import Enum
from functools import partial
from typing import TypeVar

import structlog

from translog.core.merkle import EMPTY_ROOT
from translog.core.note import Signer
from translog.core.tile import TileCache
from translog.errors import (
    CorruptionError,
    FenceError,
    HeldError,
    PushbackError,
    StorageError,
    TranslogError,
)
from translog.log.clock import Clock, ClockGuard
from translog.log.head import HeadFile
from translog.log.metrics import LogMetrics
from translog.log.opening import Opening, open_log
from translog.log.pool import Pool, Sequenced, require_entries
from translog.log.publisher import Publisher
from translog.log.reader import Published, Reader
from translog.log.sequencer import Sequencer
from translog.log.settings import LogSettings
from translog.log.waiters import SizeWaiters, uninterrupted
from translog.storage.store import LogMeta, LogStore, TreeState

_logger = structlog.get_logger()

_CLOCK_WATCH_S = 5.0

T = TypeVar("T")
_Work = Callable[[], Coroutine[None, None, None]]


class Mode(Enum):
    """What the log does at the moment."""

    STARTING = "starting"
    OPEN = "open"
    REOPENING = "reopening"
    HELD = "held"
    STOPPING = "stopping"


class LogService:
    """One log, from `start` to `stop`. Belongs to the event loop's thread; everything that blocks runs on its threads."""

    def __init__(
        self,
        *,
        meta: LogMeta,
        open_store: Callable[[], LogStore],
        open_head: Callable[[], HeadFile],
        signers: Sequence[Signer],
        clock: Clock,
        settings: LogSettings,
        metrics: LogMetrics,
    ) -> None:
        self.meta = meta
        self.settings = settings
        self.metrics = metrics
        self.mode = Mode.STARTING
        self.held: TranslogError | None = None
        self.integrated = TreeState(size=0, root=EMPTY_ROOT, received_at_ms=0)
        self._open_store = open_store
        self._open_head = open_head
        self._signers = signers
        self.guard = ClockGuard(clock, jump_ms_max=settings.clock_jump_ms, retry_after_ms=settings.retry_after_ms)
        self._pool = Pool(
            entries_max=settings.pool_entries_max,
            entry_bytes_max=settings.pool_bytes_max,
            retry_after_ms=settings.retry_after_ms,
        )
        self._published_waiters = SizeWaiters()
        self._integrated_waiters = SizeWaiters()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._signing = ThreadPoolExecutor(1, thread_name_prefix="signing")
        self._readers = ThreadPoolExecutor(settings.reader_threads, thread_name_prefix="reader")
        self._opening: Opening | None = None
        self._reader: Reader | None = None
        self._cache = TileCache(tiles_max=settings.tile_cache_tiles)
        self._task: asyncio.Task[None] | None = None
        self._may_sign = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    # --- start and stop -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the log and publishes what is integrated: when this returns there is a checkpoint to serve, or the log is
        held. Raises SettingsError, StorageError or CorruptionError, everything closed again."""
        try:
            work = await self._begin()
        except BaseException:
            await self.stop(drain_ms=0)
            raise
        self._task = asyncio.create_task(self._supervise(work), name="log")

    async def stop(self, *, drain_ms: int) -> None:
        """Refuses new entries, sequences and publishes those that wait (for at most `drain_ms`), and closes the store: when
        this returns or raises, nothing of the log is open. May be called again."""
        self._set_mode(Mode.STOPPING)
        try:
            await self._drain(drain_ms)
        finally:
            await uninterrupted(self._shut())

    async def _drain(self, drain_ms: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_ms / 1000):
                while self._in_flight or self._unpublished:
                    await self._idle.wait()
                    await self._published_waiters.wait(self.integrated.size, timeout_ms=drain_ms)

    async def _shut(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled() and (error := self._task.exception()) is not None:
                _logger.critical("the log's task had ended", error=repr(error))
        self._pool.fail_all(_stopping())
        await self._close_opening()
        for executor in (self._writer, self._signing, self._readers):
            await asyncio.to_thread(executor.shutdown)

    @property
    def _unpublished(self) -> bool:
        """Whether something committed will still be published if one waits."""
        running = self._task is not None and not self._task.done() and self.held is None
        return running and (self.published is None or self.published.size < self.integrated.size)

    # --- appending ------------------------------------------------------------------------------------------------------

    async def append(self, entries: Sequence[bytes], *, timeout_ms: int | None = None) -> Sequenced:
        """Commits `entries`, together and in order; durable when it returns.

        Raises MalformedError for no entries, TooLargeError for one that fits no bundle, PushbackError (nothing was written),
        HeldError, or StorageError `outcome-unknown`, which it also is when nothing is known within the time.
        """
        try:
            require_entries(entries)
            self._require_open()
            self.guard.tick()
            submission = self._pool.add(entries)
        except TranslogError as error:
            self.metrics.pushbacks.labels(error.code).inc()
            raise
        self.metrics.pool_entries.set(self._pool.entries)
        self._begin_waiting()
        try:
            return await submission.outcome(timeout_ms=timeout_ms)
        finally:
            self._end_waiting()

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
            raise _stopping()
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
        checkpoint. A CorruptionError holds the log: it serves on, but signs and takes nothing."""
        with self._holding_on_corruption() as reader:
            return await self._run(self._readers, partial(read, reader))

    def read_at_once(self, read: Callable[[Reader], T]) -> T:
        """The same here on the event loop's thread, for a `read` that touches one key of the store at most: going to another
        thread costs more than that."""
        with self._holding_on_corruption() as reader:
            return read(reader)

    @contextmanager
    def _holding_on_corruption(self) -> Iterator[Reader]:
        if self._reader is None:
            raise PushbackError("nothing is published yet", code="not-open", retry_after_ms=self.settings.retry_after_ms)
        try:
            yield self._reader
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
        opening = self._opening
        if opening is None:
            raise StorageError("the store is closed", code="store-closed")
        return await self._run(self._readers, lambda: opening.store.read_entries(start=start, end=end))

    # --- the operator's actions -----------------------------------------------------------------------------------------

    def accept_clock(self, operator: str) -> int:
        """Takes the clock as it is for right. Returns by how many ms it had been set."""
        jump_ms = self.guard.accept()
        _logger.warning("the clock was accepted", operator=operator, jump_ms=jump_ms)
        return jump_ms

    # --- the life of the tasks ------------------------------------------------------------------------------------------

    async def _begin(self) -> list[_Work]:
        """Opens the log; the tasks to run on it, none if it is held."""
        opening = await uninterrupted(self._open())
        self._set_integrated(opening.state)
        self._cache = TileCache(tiles_max=self.settings.tile_cache_tiles)
        self._reader = None
        if opening.published is not None:
            self._show(opening.published)
        if opening.held is not None:
            self._hold(opening.held)
            return []
        publisher = Publisher(
            store=opening.store,
            head=opening.head,
            origin=self.meta.origin,
            signers=self._signers,
            guard=self.guard,
            writer=self._writer,
            signing=self._signing,
            settings=self.settings,
            metrics=self.metrics,
            committed=opening.state,
            require_may_sign=self._require_may_sign,
            on_publish=self._show,
        )
        self._may_sign = True
        try:
            await uninterrupted(publisher.publish())
        except PushbackError:  # the clock is in doubt
            if self.published is None:
                raise
            publisher.committed(opening.state)  # `run` tries again

        def on_commit(state: TreeState) -> None:
            self._set_integrated(state)
            publisher.committed(state)

        sequencer = Sequencer(
            store=opening.store,
            edge=opening.edge,
            received_at_ms=opening.state.received_at_ms,
            pool=self._pool,
            guard=self.guard,
            writer=self._writer,
            settings=self.settings,
            metrics=self.metrics,
            on_commit=on_commit,
        )
        if self.mode is not Mode.STOPPING:
            self._set_mode(Mode.OPEN)
        _logger.info("log open", origin=self.meta.origin, size=opening.state.size)
        return [sequencer.run, publisher.run, self._watch_clock]

    async def _watch_clock(self) -> None:
        """Ticks also when nobody appends, and tells when the clock is set and when it is right again."""
        jumped = False
        while True:
            try:
                self.guard.tick()
                if jumped:
                    _logger.info("the clocks agree again, sequencing goes on")
                jumped = False
            except PushbackError as error:
                if not jumped:
                    _logger.critical("the clock was set, sequencing is paused", detail=error.detail, hint=error.hint)
                jumped = True
            self.metrics.clock_jump.set(self.guard.jump_ms / 1000)
            await asyncio.sleep(_CLOCK_WATCH_S)

    async def _open(self) -> Opening:
        shown = self.published
        self._opening = await self._run(
            self._writer,
            lambda: open_log(self._open_store, self._open_head, signers=self._signers, shown=shown),
        )
        return self._opening

    async def _supervise(self, work: list[_Work]) -> None:
        while work:
            tasks = [asyncio.create_task(item()) for item in work]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                # At once, before what is under way has ended: nothing more is taken, and nothing more signed.
                self._may_sign = False
                if self.mode is Mode.OPEN:
                    self._set_mode(Mode.REOPENING)
                for task in tasks:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
            work = await self._recover([error for error in results if isinstance(error, Exception)])

    async def _recover(self, errors: list[Exception]) -> list[_Work]:
        """After a failed write: closes everything and opens it anew, as often as it takes. None to run if it is held."""
        self.metrics.failed_writes.inc()
        wait_ms = self.settings.reopen_wait_ms
        while True:
            for error in errors:
                if isinstance(error, FenceError) or not isinstance(error, StorageError | PushbackError):
                    self._hold(error if isinstance(error, TranslogError) else CorruptionError(f"unexpected: {error!r}"))
                    return []
                if not isinstance(error, HeldError):  # a publication that was stopped because something else failed
                    _logger.error("a write failed, opening the log anew", detail=str(error), wait_ms=wait_ms)
            if self.mode is not Mode.STOPPING:
                self._set_mode(Mode.REOPENING)
            self._pool.fail_all(
                PushbackError(
                    "the log is being opened anew; nothing of this was written",
                    code="not-open",
                    retry_after_ms=wait_ms,
                )
            )
            try:
                await uninterrupted(self._close_opening())  # a stop finds nothing more to close, so this must
                await asyncio.sleep(wait_ms / 1000)
                wait_ms = min(2 * wait_ms, 30 * self.settings.reopen_wait_ms)
                return await self._begin()
            except Exception as error:  # what nobody foresaw holds the log, above
                errors = [error]

    def _set_integrated(self, state: TreeState) -> None:
        self.integrated = state
        self.metrics.integrated_size.set(state.size)
        self._integrated_waiters.reached(state.size)

    def _require_may_sign(self) -> None:
        if not self._may_sign:
            raise self._held_error()

    def _show(self, published: Published) -> None:
        if self._opening is not None:
            self._reader = Reader(store=self._opening.store, published=published, cache=self._cache)
            self._published_waiters.reached(published.size)

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

    async def _close_opening(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            try:
                await self._run(self._writer, opening.store.close)
            finally:
                opening.head.close()

    async def _run(self, executor: Executor, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, function)


def _stopping() -> PushbackError:
    return PushbackError("the log is shutting down; nothing was written", code="not-open", retry_after_ms=5_000)
