"""An event loop whose time is made up: it jumps to the next timer when nothing is ready.

Rules: nothing sleeps and nothing runs on a thread, so a run is what its seed says and takes no longer than its work does. What
code hands to an executor runs here, in order per executor, after a moment of made-up time. A run in which nothing can happen
any more, or in which time stands still for ever, fails. Whatever a task or callback raised unheard fails the run too.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

STANDSTILL_STEPS = 200_000
"""So many turns of the loop without time passing are a loop without end."""


class SimulationError(AssertionError):
    """The simulation itself cannot go on."""


class _Jump(selectors.SelectSelector):
    """Looks at no file: whoever would wait lets time pass instead."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise SimulationError("nothing is left that could ever happen")
        self.loop.pass_time(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Use `run_virtual`."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now_s = 0.0
        self._steps = 0
        self._free_at: dict[int, float] = {}
        self._executors: list[object] = []  # kept, so that no two have one id
        self.failures: list[str] = []
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)
        self.set_exception_handler(self._note_failure)

    def time(self) -> float:
        """Seconds since the run began."""
        return self._now_s

    def pass_time(self, seconds: float) -> None:
        """Jumps to the next timer."""
        self._steps = 0 if seconds > 0 else self._steps + 1
        if self._steps > STANDSTILL_STEPS:
            raise SimulationError(f"time stands still at {self._now_s:.3f} s")
        self._now_s += max(0.0, seconds)

    def run_in_executor(  # type: ignore[override]  # the base class promises a future of any kind
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        """Runs `func` on the loop a moment later, after what that executor was given before."""
        if getattr(executor, "_shutdown", False):
            raise RuntimeError("cannot schedule new futures after shutdown")
        if id(executor) not in self._free_at:
            self._executors.append(executor)
        starts = max(self._now_s, self._free_at.get(id(executor), 0.0)) + self._random.uniform(0, 0.002)
        ends = starts + self._random.uniform(0, 0.002)
        self._free_at[id(executor)] = ends
        future: asyncio.Future[T] = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:
                self.call_at(ends, _unless_cancelled, future, future.set_exception, error)
            else:
                self.call_at(ends, _unless_cancelled, future, future.set_result, result)

        self.call_at(starts, work)
        return future

    def _note_failure(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")


def _unless_cancelled(future: "asyncio.Future[T]", act: Callable[[Any], None], value: object) -> None:
    if not future.cancelled():
        act(value)


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]], *, random: Random, limit_s: float = 86_400) -> T:
    """What `main` returns, in at most `limit_s` of made-up time. Every task it left is cancelled."""
    loop = VirtualLoop(random)

    async def limited() -> T:
        async with asyncio.timeout(limit_s):
            return await main()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(limited())
    if loop.failures:
        raise SimulationError("; ".join(loop.failures))
    return result


EPOCH_MS = 1_700_000_000_000
"""What a clock that is right says when a run begins."""


class NodeClock:
    """One machine's clocks: the wall clock is off by `skew_ms` and both run faster than time by `drift` (parts of one)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, skew_ms: int = 0, drift: float = 0.0) -> None:
        self._loop = loop
        self._drift = drift
        self.skew_ms = skew_ms

    def wall_ms(self) -> int:
        return EPOCH_MS + self.skew_ms + self.boot_ms()

    def boot_ms(self) -> int:
        return int(self._loop.time() * (1 + self._drift) * 1000)
