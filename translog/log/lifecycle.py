"""A log's life: start, the tasks that run it, what happens when a write fails, drain and stop.

Rules: start-up and recovery are one code path, opening.py. Where that says the log must not sign, it is held: it serves what
it has and takes nothing. A failed write closes the store and opens the log anew; a broken invariant (CorruptionError) holds
it until somebody looks.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import structlog

from translog.core.note import Signer
from translog.core.tile import TileCache
from translog.errors import CorruptionError, FenceError, HeldError, PushbackError, StorageError, TranslogError
from translog.log.access import LogAccess, stopping
from translog.log.access import Mode as Mode  # whoever has a LogService asks for its mode
from translog.log.clock import Clock
from translog.log.head import HeadFile
from translog.log.metrics import LogMetrics
from translog.log.numbering import EventAssembler, OpaqueAssembler
from translog.log.opening import Opening, open_log
from translog.log.publisher import Publisher
from translog.log.reader import Published, Reader, nobody_is_asked
from translog.log.sequencer import Assembler, Sequencer
from translog.log.settings import LogSettings
from translog.log.waiters import uninterrupted
from translog.log.witnesses import Witnesses
from translog.storage.store import LogMeta, LogStore, Profile, TreeState

_logger = structlog.get_logger()

_CLOCK_WATCH_S = 5.0
_DRAIN_STEP_MS = 100

_Work = Callable[[], Coroutine[None, None, None]]


class LogService(LogAccess):
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
        witnesses: Witnesses | None = None,
    ) -> None:
        super().__init__(meta=meta, clock=clock, settings=settings, metrics=metrics)
        self._open_store = open_store
        self._open_head = open_head
        self.signers = signers
        self.witnesses = witnesses
        self._is_witnessed = nobody_is_asked if witnesses is None else witnesses.accepts
        self._publisher: Publisher | None = None
        self._first = True
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._signing = ThreadPoolExecutor(1, thread_name_prefix="signing")
        self._cache = TileCache(tiles_max=settings.tile_cache_tiles)

    # --- start and stop -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Opens the log, publishes what is integrated, asks every witness: when this returns there is a checkpoint to serve,
        or the log is held, or too few witnesses cosign. Raises SettingsError, StorageError or CorruptionError, everything
        closed again."""
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
                    # In short steps: the quorum may be lost meanwhile, and then nothing more comes.
                    await self._published_waiters.wait(self.integrated.size, timeout_ms=min(drain_ms, _DRAIN_STEP_MS))

    async def _shut(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled() and (error := self._task.exception()) is not None:
                _logger.critical("the log's task had ended", error=repr(error))
        self._pool.fail_all(stopping())
        if self.witnesses is not None:
            await self.witnesses.stop()
        await self._close_opening()
        for executor in (self._writer, self._signing, self._readers):
            await asyncio.to_thread(executor.shutdown)

    @property
    def _unpublished(self) -> bool:
        """Whether something committed will still be published if one waits."""
        running = self._task is not None and not self._task.done() and self.held is None and self.unwitnessed_since_ms is None
        return running and (self.published is None or self.published.size < self.integrated.size)

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
        assembler = await uninterrupted(self._run(self._writer, lambda: self._assembler(opening.store)))
        publisher = Publisher(
            store=opening.store,
            head=opening.head,
            origin=self.meta.origin,
            signers=lambda: self.signers,
            guard=self.guard,
            writer=self._writer,
            signing=self._signing,
            readers=self._readers,
            settings=self.settings,
            metrics=self.metrics,
            committed=opening.state,
            published=opening.published,
            witnesses=self.witnesses,
            starting=self._first,
            require_may_sign=self._require_may_sign,
            on_publish=self._show,
            on_quorum=self._set_quorum,
        )
        self._publisher = publisher
        self._may_sign = True
        try:
            if self.witnesses is None or self._first:
                await publisher.publish()
            else:  # the log need not wait for witnesses to take entries again
                publisher.look_again()
            self._first = False
        except HeldError as error:  # a witness knows more than this log
            self._hold(error)
            return []
        except PushbackError:  # the clock is in doubt
            self._first = False
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
            assembler=assembler,
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
            lambda: open_log(
                self._open_store,
                self._open_head,
                signers=self.signers,
                shown=shown,
                is_witnessed=self._is_witnessed,
            ),
        )
        return self._opening

    def _assembler(self, store: LogStore) -> Assembler[Any]:
        if self.meta.profile is Profile.OPAQUE:
            return OpaqueAssembler()
        return EventAssembler(store, streams_max=self.settings.streams_max)

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
        if self.witnesses is not None and self.witnesses.held is not None:
            self._hold(self.witnesses.held)
            return []
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

    def _require_may_sign(self) -> None:
        if not self._may_sign:
            raise self._held_error()

    def _show(self, published: Published) -> None:
        if self._opening is not None:
            self._reader = Reader(
                store=self._opening.store, published=published, cache=self._cache, is_witnessed=self._is_witnessed
            )
            if published.witnessed:
                self._published_waiters.reached(published.size)

    def _set_quorum(self, reached: bool) -> None:
        """Notes whether the quorum was reached for what was signed last; tells of changes only."""
        if reached == (self.unwitnessed_since_ms is None):
            return
        self.unwitnessed_since_ms = None if reached else self.guard.wall_ms
        self.metrics.unwitnessed_since.set((self.unwitnessed_since_ms or 0) / 1000)
        if reached:
            _logger.info("the witnesses' quorum is reached again")
        else:
            _logger.critical("too few witnesses cosign", without_quorum=self.settings.witnessing.without_quorum.value)
        if self.on_quorum is not None:
            self.on_quorum(reached)

    # --- keys -----------------------------------------------------------------------------------------------------------

    def use_signers(self, signers: Sequence[Signer]) -> None:
        """Signs with these from the next checkpoint on."""
        self.signers = tuple(signers)

    async def publish_anew(self, *, timeout_ms: int) -> bool:
        """Whether a checkpoint signed after this call is published, with its quorum, within the time. It is kept for good."""
        if self._publisher is None or self.mode is not Mode.OPEN:
            return False
        self._begin_waiting()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await self._publisher.sign_anew()
        except TimeoutError:
            return False
        finally:
            self._end_waiting()

    async def _close_opening(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            try:
                await self._run(self._writer, opening.store.close)
            finally:
                opening.head.close()
