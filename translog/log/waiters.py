"""Waiting for the log to reach a size."""

import asyncio
import heapq
from contextlib import suppress
from itertools import count


class SizeWaiters:
    """Those who wait for the log to reach a size: committed, or published. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._size = -1
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._ticket = count()

    def reached(self, size: int) -> None:
        """Wakes whoever waits for `size` or less."""
        self._size = size
        while self._waiting and self._waiting[0][0] <= size:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    async def wait(self, size: int, *, timeout_ms: int) -> bool:
        """Whether the log is at `size`, or comes to be within the time."""
        if self._size >= size:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (size, next(self._ticket), future))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                await future
                return True
        return False
