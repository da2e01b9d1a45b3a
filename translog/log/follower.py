"""Hands committed entries to whatever is derived from the log: an index, a mirror, a registry.

Rules: a sink keeps its own durable cursor and may be deleted at any time; it gets every committed entry once, in order,
published or not; it is never on the append path, and a sink that fails is tried again without disturbing the log.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from translog.errors import TranslogError
from translog.log.lifecycle import LogService, Mode

_logger = structlog.get_logger()

STEP_ENTRIES = 1_000
_WAIT_MS = 60_000
_RETRY_S = 5.0


class Sink(Protocol):
    """Something derived from the log. Its methods block and are called from one thread."""

    @property
    def name(self) -> str:
        """Names it in metrics and logs."""

    def cursor(self) -> int:
        """How many entries it has taken, durably."""

    def apply(self, start: int, entries: Sequence[bytes]) -> None:
        """Takes entries [start, start + len(entries)) and moves the cursor, both or neither."""


class Follower:
    """Feeds one sink."""

    def __init__(self, service: LogService, sink: Sink, *, pause_ms: int = 0) -> None:
        """`pause_ms` is the least time between two steps of a sink that need not be up to date: many small ones cost more."""
        self._service = service
        self._sink = sink
        self._pause_s = pause_ms / 1000
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"follower-{sink.name}")

    async def run(self) -> None:
        """Follows until cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                except TranslogError as error:
                    _logger.warning("a follower failed, it tries again", follower=self._sink.name, detail=str(error))
                except Exception:
                    _logger.exception("a follower failed unexpectedly, it tries again", follower=self._sink.name)
                    if self._service.mode is Mode.STOPPING:
                        raise
                await asyncio.sleep(_RETRY_S)
        finally:
            await asyncio.to_thread(self._thread.shutdown)

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        lag = self._service.metrics.follower_lag.labels(self._sink.name)
        cursor = await loop.run_in_executor(self._thread, self._sink.cursor)
        while True:
            await self._service.wait_integrated(cursor + 1, timeout_ms=_WAIT_MS)
            end = min(self._service.integrated.size, cursor + STEP_ENTRIES)
            if end > cursor:
                entries = await self._service.read_integrated(start=cursor, end=end)
                await loop.run_in_executor(self._thread, self._sink.apply, cursor, entries)
                cursor = end
            lag.set(self._service.integrated.size - cursor)
            if self._pause_s and self._service.integrated.size - cursor < STEP_ENTRIES:
                await asyncio.sleep(self._pause_s)
