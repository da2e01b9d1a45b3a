"""Submits audit events to a log, in order and in batches, until the log has them or says why not.

    async with EventSubmitter(url, token=token) as log:
        result = await log.submit({"actor": "alice", "action": "deployment.create", "resource": "prod/web"})

Rules: one request at a time, so a stream keeps the order in which events were accepted; every event has an id, so a request
whose outcome is unknown is repeated and the log finds the duplicates; an event is given up only when it is refused for good,
or the deadline of whoever waits for it or of `close` has passed, and then it is told, once: nothing is dropped silently.
"""

import asyncio
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from types import TracebackType
from typing import Any

from translog.client.delivery import (
    EVENTS_PATH,
    NDJSON,
    Backoff,
    EventResult,
    UndeliveredError,
    Unsent,
    may_repeat,
    persist,
    post_events,
)
from translog.client.pending import Limits, Prepared, Room, prepare
from translog.client.transport import Transport
from translog.errors import MalformedError, RemoteError, TranslogError

SUBMIT_TIMEOUT_MS = 60_000
CLOSE_TIMEOUT_MS = 10_000
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_logger = logging.getLogger(__name__)


class Receipts(StrEnum):
    """What a result carries beside its index: where the receipt will be, or the proof itself."""

    INDEX = "index"
    FULL = "full"


@dataclass(slots=True, eq=False)
class _Item:
    """An accepted event. `settled` is what became of it; `awaited` whether somebody waits to be told."""

    prepared: Prepared
    queued_at: float
    settled: asyncio.Future[EventResult | UndeliveredError]
    awaited: bool
    in_flight: bool = False
    may_be_logged: bool = False
    error: RemoteError = field(default_factory=lambda: RemoteError("the log was not reached yet", code="not-sent"))


class EventSubmitter:
    """Submits events to one stream of one log. Use as an async context manager, within one event loop."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        stream: str | None = None,
        receipts: Receipts | str = Receipts.INDEX,
        limits: Limits | None = None,
        close_timeout_ms: int = CLOSE_TIMEOUT_MS,
        on_unsent: Callable[[Unsent], None] | None = None,
    ) -> None:
        """`stream`: the credential's default where None. `on_unsent` is told of posted events that were given up; without
        it they are kept in `unsent`, and keep their room in the queue. Raises MalformedError."""
        if stream is not None and _NAME.fullmatch(stream) is None:
            raise MalformedError(f"not a stream's name: {stream[:80]!r}", hint="lower-case letters, digits, dots and hyphens")
        self._limits = limits or Limits()
        self._transport = Transport(url, token=token, timeout_ms=self._limits.request_timeout_ms)
        self._path = f"{EVENTS_PATH}?ack=published&receipts={Receipts(receipts).value}"
        self._headers = {"Content-Type": NDJSON} | ({} if stream is None else {"Translog-Stream": stream})
        self._close_timeout_ms = close_timeout_ms
        self._on_unsent = on_unsent
        self._queue: dict[_Item, None] = {}  # in order, and given-up ones leave from anywhere
        self._queued_bytes = 0
        self._batch: list[_Item] = []
        self._kept: list[tuple[Unsent, int | None]] = []
        self._wake = asyncio.Event()
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._flushing = 0
        self._closed = False
        self.room = Room(self._limits, freed=self._freed.set)
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "EventSubmitter":
        await self._transport.__aenter__()
        self._sender = asyncio.create_task(self._run(), name="translog event sender")
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raises UndeliveredError with the posted events that nobody was told of, unless another error is on its way."""
        unsent = await self.close()
        if not unsent:
            return
        error = undelivered(unsent)
        if exc is None:
            raise error
        exc.add_note(str(error))

    async def submit(self, event: Mapping[str, Any], *, timeout_ms: int = SUBMIT_TIMEOUT_MS) -> EventResult:
        """Waits until the log has the event, in a checkpoint or, where that takes longer than 2 s, on disk.

        An event without an id gets one. A cancelled wait does not take the event back. Raises MalformedError and
        TooLargeError, before anything is sent; PushbackError where there was no room in the queue within `timeout_ms`;
        UndeliveredError with the event, its id in it, where the log refused it or did not have it in time.
        """
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        item = await self._accept_in_time(prepare(event), deadline, awaited=True)
        return await self._result(item, deadline)

    async def submit_all(
        self, events: Iterable[Mapping[str, Any]], *, timeout_ms: int = SUBMIT_TIMEOUT_MS
    ) -> list[EventResult]:
        """`submit` of several, in order: a result each. Raises MalformedError before anything is sent, and UndeliveredError
        with every event that is not known to be in the log."""
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        accepted: list[_Item] = []
        unsent: list[Unsent] = []
        for prepared in [prepare(event) for event in events]:
            try:
                accepted.append(await self._accept_in_time(prepared, deadline, awaited=True))
            except UndeliveredError as error:
                unsent += error.unsent
            except TranslogError as error:
                unsent.append(Unsent(event=prepared.event, error=_as_remote(error), may_be_logged=False))
        results = []
        late: list[Unsent] = []
        for item in accepted:
            try:
                results.append(await self._result(item, deadline))
            except UndeliveredError as error:
                late += error.unsent
        if late or unsent:
            raise undelivered([*late, *unsent])
        return results

    async def post(self, event: Mapping[str, Any], *, timeout_ms: int = SUBMIT_TIMEOUT_MS) -> str:
        """Waits for room in the queue only; returns the event's id. It is tried until `close` gives up, and `on_unsent` or
        `unsent` tell if that comes to nothing. Raises what `submit` raises before anything is sent."""
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        return (await self._accept_in_time(prepare(event), deadline, awaited=False)).prepared.uid

    def post_nowait(self, event: Mapping[str, Any]) -> str:
        """`post` that raises PushbackError at once where there is no room."""
        prepared = prepare(event)
        self._require_open(prepared)
        if self._waiting or not self.room.try_take(len(prepared.data)):
            raise self.room.full()
        return self.accept(prepared, awaited=False).prepared.uid

    @property
    def unsent(self) -> tuple[Unsent, ...]:
        """Posted events that were given up, and of which nobody was told yet. They keep their room in the queue."""
        return tuple(unsent for unsent, _ in self._kept)

    @property
    def pending(self) -> int:
        """Events accepted of which nothing is known yet."""
        return sum(not item.settled.done() for item in (*self._batch, *self._queue))

    def take_unsent(self) -> tuple[Unsent, ...]:
        """`unsent`, which is empty afterwards."""
        taken, self._kept = self._kept, []
        for _, size in taken:
            if size is not None:
                self.room.give(size)
        return tuple(unsent for unsent, _ in taken)

    async def flush(self, *, timeout_ms: int = CLOSE_TIMEOUT_MS) -> bool:
        """Whether the fate of all events accepted so far is known, within that time. None is given up."""
        waiting = {item.settled for item in (*self._batch, *self._queue) if not item.settled.done()}
        if not waiting:
            return True
        self._flushing += 1
        self._wake.set()
        try:
            _, late = await asyncio.wait(waiting, timeout=timeout_ms / 1000)
        finally:
            self._flushing -= 1
        return not late

    async def close(self, *, timeout_ms: int | None = None) -> tuple[Unsent, ...]:
        """Takes no more events, sends what is there for at most that long, gives the rest up; returns `take_unsent()`."""
        self._closed = True
        self._wake.set()
        self._freed.set()
        try:
            if self._sender is not None:
                left_ms = self._close_timeout_ms if timeout_ms is None else timeout_ms
                await asyncio.wait({self._sender}, timeout=left_ms / 1000)
        finally:
            if self._sender is not None:
                self._sender.cancel()
                await asyncio.gather(self._sender, return_exceptions=True)
            self._give_up_all()  # of a sender that was cancelled before it began
            await self._transport.__aexit__(None, None, None)
        return self.take_unsent()

    # --- the way in -----------------------------------------------------------------------------------------------------

    async def _accept_in_time(self, prepared: Prepared, deadline: float, *, awaited: bool) -> _Item:
        self._require_open(prepared)
        size = len(prepared.data)
        if self._waiting or not self.room.try_take(size):
            self._waiting += 1
            try:
                async with asyncio.timeout_at(deadline), self._turn:  # the lock is fair: first come, first served
                    while not self.room.try_take(size):
                        self._freed.clear()
                        await self._freed.wait()
                        self._require_open(prepared)
            except TimeoutError:
                raise self.room.full() from None
            finally:
                self._waiting -= 1
        return self.accept(prepared, awaited=awaited)

    def _require_open(self, prepared: Prepared) -> None:
        if self._closed or self._sender is None:
            error = RemoteError("the submitter is closed", code="closed")
            raise undelivered([Unsent(event=prepared.event, error=error, may_be_logged=False)])

    def accept(self, prepared: Prepared, *, awaited: bool) -> _Item:
        """Queues an event whose room is taken already. For the blocking submitter; on the loop's thread."""
        loop = asyncio.get_running_loop()
        item = _Item(prepared, loop.time(), loop.create_future(), awaited)
        if self._closed:
            self._give_up(item, RemoteError("the submitter is closed", code="closed"))
            return item
        self._queue[item] = None
        self._queued_bytes += len(prepared.data)
        if len(self._queue) == 1 or self._is_batch_full():
            self._wake.set()
        return item

    async def _result(self, item: _Item, deadline: float) -> EventResult:
        try:
            await asyncio.wait({item.settled}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        except asyncio.CancelledError:
            item.awaited = False
            if item.settled.done() and isinstance(fate := item.settled.result(), UndeliveredError):
                self._tell(fate.unsent[0], None)
            raise
        if not item.settled.done():
            self._give_up(item, item.error)
        result = item.settled.result()
        if isinstance(result, UndeliveredError):
            raise result
        return result

    # --- the way out ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while (batch := await self._next_batch()) is not None:
                await self._deliver(batch, backoff)
        except Exception:
            _logger.exception("the sender of events stopped")
            raise
        finally:
            self._closed = True
            self._freed.set()
            self._give_up_all()

    async def _next_batch(self) -> list[_Item] | None:
        """None when closed and nothing is left; empty where all were given up meanwhile."""
        while not self._queue:
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        due = next(iter(self._queue)).queued_at + self._limits.batch_age_ms / 1000
        try:
            async with asyncio.timeout_at(due):
                while not (self._closed or self._flushing or self._is_batch_full()):
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            pass
        self._batch = []
        size = 0
        for item in islice(self._queue, self._limits.batch_events_max):
            size += len(item.prepared.data) + 1
            if self._batch and size > self._limits.batch_bytes_max:
                break
            self._batch.append(item)
        for item in self._batch:
            self._unqueue(item)
        return self._batch

    def _is_batch_full(self) -> bool:
        size = self._queued_bytes + len(self._queue)
        return len(self._queue) >= self._limits.batch_events_max or size >= self._limits.batch_bytes_max

    def _unqueue(self, item: _Item) -> None:
        del self._queue[item]
        self._queued_bytes -= len(item.prepared.data)

    async def _deliver(self, batch: list[_Item], backoff: Backoff) -> None:
        """Returns when the fate of each is known. A request that is too large is cut in halves, down to the event."""

        async def attempt() -> None:
            live = _live(batch)
            if live:
                await self._send(live)
                backoff.reset()

        try:
            await persist(attempt, backoff=backoff, deadline=math.inf, repeatable=may_repeat)
        except RemoteError as error:
            live = _live(batch)
            if error.status == 413 and len(live) > 1:
                half = len(live) // 2
                await self._deliver(live[:half], backoff)
                await self._deliver(live[half:], backoff)
                return
            for item in live:
                self._give_up(item, error)

    async def _send(self, items: list[_Item]) -> None:
        """One try. Raises RemoteError."""
        body = b"".join(item.prepared.data + b"\n" for item in items)
        for item in items:
            item.in_flight = True
        try:
            results = await post_events(self._transport, self._path, body, headers=self._headers, count=len(items))
        except RemoteError as error:
            for item in items:
                item.error = error
                item.may_be_logged |= error.code == "outcome-unknown"
            raise
        except asyncio.CancelledError:
            for item in items:
                item.may_be_logged = True
            raise
        finally:
            for item in items:
                item.in_flight = False
        for item, result in zip(items, results, strict=True):
            if result.index is None:
                item.may_be_logged = False
                self._give_up(item, RemoteError(f"the log refused the event: {result.error}", code="event-refused"))
            elif not item.settled.done():
                item.settled.set_result(result)
                self.room.give(len(item.prepared.data))

    # --- giving up ------------------------------------------------------------------------------------------------------

    def _give_up_all(self) -> None:
        for item in (*self._batch, *self._queue):
            self._give_up(item, item.error)

    def _give_up(self, item: _Item, error: RemoteError) -> None:
        """Settles an event whose fate is open, and tells whoever is to know, once."""
        if item.settled.done():
            return
        if item in self._queue:
            self._unqueue(item)
        unsent = Unsent(event=item.prepared.event, error=error, may_be_logged=item.may_be_logged or item.in_flight)
        item.settled.set_result(undelivered([unsent]))
        if item.awaited:
            self.room.give(len(item.prepared.data))
        else:
            self._tell(unsent, len(item.prepared.data))

    def _tell(self, unsent: Unsent, size: int | None) -> None:
        """Tells of an event that nobody waits for. `size` is the room it has, None for none."""
        if self._on_unsent is None:
            self._kept.append((unsent, size))
            return
        try:
            self._on_unsent(unsent)
        except Exception:
            _logger.exception("on_unsent failed for an event that was not delivered")
        if size is not None:
            self.room.give(size)


def _live(items: Iterable[_Item]) -> list[_Item]:
    return [item for item in items if not item.settled.done()]


def _as_remote(error: TranslogError) -> RemoteError:
    return RemoteError(error.detail, hint=error.hint, code=error.code)


def undelivered(unsent: Sequence[Unsent]) -> UndeliveredError:
    """The error that tells of these, at least one."""
    error = unsent[0].error
    known = "is not known to be" if any(one.may_be_logged for one in unsent) else "is not"
    named = "the event" if len(unsent) == 1 else f"{len(unsent)} events, the first of which"
    return UndeliveredError(
        f"{named} {known} in the log: {error.detail}",
        unsent=unsent,
        hint="`unsent` has what was not delivered; it may be submitted again as it is, the log finds duplicates by its id",
        code=error.code if len({one.error.code for one in unsent}) == 1 else "",
    )
