"""Waiting: for the log to reach a size, and for work that must not be cut off in the middle."""

import asyncio
import heapq
from collections.abc import Coroutine
from contextlib import suppress
from itertools import count
from typing import TypeVar

T = TypeVar("T")


async def uninterrupted(work: Coroutine[None, None, T]) -> T:
    """Runs `work` to its end, also when cancelled meanwhile: the cancellation goes on after it.

    Work on a thread cannot be cancelled; whoever cancels must not close what the thread still uses.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains that it was not
        raise


class SizeWaiters:
    """Those who wait for the log to reach a size: committed, or published. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._size = -1
        self._waiting: list[tuple[int, int, asyncio.Future[bool]]] = []
        self._abandoned = 0
        self._ticket = count()

    def reached(self, size: int) -> None:
        """Wakes whoever waits for `size` or less."""
        self._size = size
        while self._waiting and self._waiting[0][0] <= size:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(True)

    async def wait(self, size: int, *, timeout_ms: int) -> bool:
        """Whether the log is at `size`, or comes to be within the time."""
        if self._size >= size:
            return True
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        heapq.heappush(self._waiting, (size, next(self._ticket), future))
        timer = loop.call_later(timeout_ms / 1000, _give_up, future)  # a quarter of the cost of asyncio.timeout
        try:
            came = await future
        finally:
            timer.cancel()
        if not came:
            self._forget_abandoned()
        return came

    def _forget_abandoned(self) -> None:
        """Drops those who gave up, whenever they are half of all: each costs its part of one pass."""
        self._abandoned += 1
        if 2 * self._abandoned > len(self._waiting):
            self._waiting = [waiting for waiting in self._waiting if not waiting[2].done()]
            heapq.heapify(self._waiting)
            self._abandoned = 0


def _give_up(future: "asyncio.Future[bool]") -> None:
    if not future.done():
        future.set_result(False)
