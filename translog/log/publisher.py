"""Signs and publishes tree heads.

Rules: DIR/head holds a size and root, durably, before any signature over them leaves the process; then the checkpoint is
signed off the event loop, stored, and only then served. One publication at a time, always of the newest committed tree, so
many commits may share one. An idle log signs anew after a while, so that silence shows. https://c2sp.org/tlog-checkpoint
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress

import structlog

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.note import Signer, sign_note
from translog.errors import PushbackError
from translog.log.clock import ClockGuard
from translog.log.head import HeadFile
from translog.log.metrics import LogMetrics
from translog.log.reader import Published
from translog.log.settings import LogSettings
from translog.log.waiters import uninterrupted
from translog.storage.store import LogStore, StoredCheckpoint, TreeState

_log = structlog.get_logger()


class Publisher:
    """One run of publishing over one opening of the store."""

    def __init__(
        self,
        *,
        store: LogStore,
        head: HeadFile,
        origin: str,
        signers: Sequence[Signer],
        guard: ClockGuard,
        writer: Executor,
        signing: Executor,
        settings: LogSettings,
        metrics: LogMetrics,
        committed: TreeState,
        require_may_sign: Callable[[], None],
        on_publish: Callable[[Published], None],
    ) -> None:
        self._store = store
        self._head = head
        self._origin = origin
        self._signers = signers
        self._guard = guard
        self._writer = writer
        self._signing = signing
        self._settings = settings
        self._metrics = metrics
        self._state = committed
        self._require_may_sign = require_may_sign
        self._on_publish = on_publish
        self._kept_at_ms: int | None = None
        self._wake = asyncio.Event()
        self._recorded: tuple[int, bytes] | None = None

    def committed(self, state: TreeState) -> None:
        """Tells that there is more to publish."""
        self._state = state
        self._wake.set()

    async def run(self) -> None:
        """Publishes until cancelled (between publications only) or until a write fails: then raises what failed."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.idle_sign_interval_ms / 1000):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await uninterrupted(self.publish())
            except PushbackError as error:  # the clock is in doubt: sign nothing with it, look again soon
                _log.warning("publication waits", code=error.code, detail=error.detail)
                await asyncio.sleep(error.retry_after_ms / 1000)
                self._wake.set()

    async def publish(self) -> None:
        """Publishes the newest committed tree once. Raises StorageError, HeldError if the log was held meanwhile, or
        PushbackError while the clock is in doubt."""
        state = self._state
        now_ms = self._guard.tick()
        keep = self._kept_at_ms is None or not 0 <= now_ms - self._kept_at_ms < self._settings.keep_checkpoint_interval_ms
        loop = asyncio.get_running_loop()
        with self._metrics.publish_seconds.time():
            note = await loop.run_in_executor(self._signing, self._record_and_sign, state, now_ms // 1000)
            stored = StoredCheckpoint(size=state.size, note=note)
            await loop.run_in_executor(self._writer, lambda: self._store.publish(stored, keep=keep))
        if keep:
            self._kept_at_ms = now_ms
        self._metrics.published_size.set(state.size)
        self._metrics.published_at.set(now_ms / 1000)
        self._on_publish(Published(size=state.size, root=state.root, note=note))

    def _record_and_sign(self, state: TreeState, time_s: int) -> bytes:
        """On the signing thread."""
        self._require_may_sign()
        # What the head held when it was opened does not count: it may be in the page cache only.
        if self._recorded != (state.size, state.root):
            self._head.write(size=state.size, root=state.root)
            self._recorded = (state.size, state.root)
        self._require_may_sign()
        # From here on the size and root survive anything, so a signature may exist.
        text = format_checkpoint(Checkpoint(origin=self._origin, size=state.size, root=state.root))
        return sign_note(text, self._signers, time_s=time_s)
