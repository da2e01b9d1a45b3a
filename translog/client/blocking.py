"""Submits events from programs without an event loop: an EventSubmitter on a thread of its own.

Rules: thin: what is submitted, repeated and given up is decided in client/events.py. Any thread may call; `post` does not wait
for that thread. Not for use across a fork: neither the thread nor its connections are in the child, so a submitter made before
the fork raises SettingsError there, and the child makes its own. `on_unsent` is called on the submitter's thread.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from translog.client.delivery import EventResult, Unsent
from translog.client.events import CLOSE_TIMEOUT_MS, SUBMIT_TIMEOUT_MS, EventSubmitter, undelivered
from translog.client.pending import Prepared, prepare
from translog.errors import RemoteError, SettingsError

T = TypeVar("T")


class SyncEventSubmitter:
    """See EventSubmitter, whose arguments it takes. Use as a context manager, or call `open` and `close`."""

    def __init__(self, url: str, **options: Any) -> None:
        """Raises MalformedError."""
        self._log = EventSubmitter(url, **options)
        self._lock = threading.RLock()  # the handler of a signal, or a finalizer, may post in the midst of a post
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._pid = os.getpid()

    def open(self) -> "SyncEventSubmitter":
        """Starts the thread. Raises SettingsError when called twice or in a child process."""
        self._require_own_process()
        if self._thread is not None:
            raise SettingsError("an event submitter is opened once", code="opened-twice")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="translog events", daemon=True)
        self._thread.start()
        self._run(self._log.__aenter__())
        return self

    def __enter__(self) -> "SyncEventSubmitter":
        return self.open()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises UndeliveredError with the posted events that nobody was told of, unless another error is on its way."""
        unsent = self.close()
        if unsent and exc is None:
            raise undelivered(unsent)
        if unsent and exc is not None:
            exc.add_note(str(undelivered(unsent)))

    @property
    def thread_id(self) -> int | None:
        """The identity of the thread that sends, None before `open`."""
        return None if self._thread is None else self._thread.ident

    def submit(self, event: Mapping[str, Any], *, timeout_ms: int = SUBMIT_TIMEOUT_MS) -> EventResult:
        """See EventSubmitter.submit. Blocks."""
        return self._run(self._log.submit(event, timeout_ms=timeout_ms))

    def submit_all(self, events: Iterable[Mapping[str, Any]], *, timeout_ms: int = SUBMIT_TIMEOUT_MS) -> list[EventResult]:
        """See EventSubmitter.submit_all. Blocks."""
        return self._run(self._log.submit_all(list(events), timeout_ms=timeout_ms))

    def post(self, event: Mapping[str, Any], *, wait_ms: float = 0) -> str:
        """Queues the event and returns its id. Blocks at most `wait_ms`, where there is no room; then PushbackError."""
        self._require_own_process()
        prepared = prepare(event)
        if not self._log.room.take(len(prepared.data), wait_ms=wait_ms):
            raise self._log.room.full()
        with self._lock:
            if self._loop is not None and not self._closed:
                self._loop.call_soon_threadsafe(self._accept, prepared)
                return prepared.uid
        self._log.room.give(len(prepared.data))
        raise _closed(prepared)

    def _accept(self, prepared: Prepared) -> None:
        self._log.accept(prepared, awaited=False)

    @property
    def unsent(self) -> tuple[Unsent, ...]:
        """See EventSubmitter.unsent."""
        return self._log.unsent

    def take_unsent(self) -> tuple[Unsent, ...]:
        """See EventSubmitter.take_unsent."""

        async def take() -> tuple[Unsent, ...]:
            return self._log.take_unsent()

        return self._run(take())

    def flush(self, *, timeout_ms: int = CLOSE_TIMEOUT_MS) -> bool:
        """See EventSubmitter.flush. Blocks."""
        return self._run(self._log.flush(timeout_ms=timeout_ms))

    def close(self, *, timeout_ms: int | None = None) -> tuple[Unsent, ...]:
        """See EventSubmitter.close. Blocks; may be called again."""
        self._require_own_process()
        with self._lock:
            if self._closed or self._loop is None or self._thread is None:
                self._closed = True
                return ()
            self._closed = True  # what was posted before this is in the loop's queue before what follows
            closing = asyncio.run_coroutine_threadsafe(self._log.close(timeout_ms=timeout_ms), self._loop)
        try:
            return closing.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._require_own_process()
            with self._lock:
                if self._loop is None or self._closed:
                    raise RemoteError("the submitter is closed", code="closed")
                running = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise
        return running.result()

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise SettingsError(
                "this event submitter was made in another process, and its thread is not in this one",
                hint="make one in each process, after the fork",
                code="forked",
            )


def submit_events(
    url: str, events: Iterable[Mapping[str, Any]], *, timeout_ms: int = SUBMIT_TIMEOUT_MS, **options: Any
) -> list[EventResult]:
    """Submits events, in order, and waits for a result each: `with SyncEventSubmitter(url, **options)` for a single time.

    Raises what EventSubmitter.submit_all raises.
    """
    with SyncEventSubmitter(url, **options) as log:
        return log.submit_all(events, timeout_ms=timeout_ms)


def _closed(prepared: Prepared) -> RemoteError:
    error = RemoteError("the submitter is closed", code="closed")
    return undelivered([Unsent(event=prepared.event, error=error, may_be_logged=False)])
