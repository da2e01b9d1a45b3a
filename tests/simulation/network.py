"""Messages between nodes: late, lost, doubled, overtaken, cut off.

Rules: a request and its answer are two messages, each with a fate of its own; whoever asks hears nothing of what was lost. A
doubled request is served twice, and the second may come long after the first. A cut drops what would arrive while it lasts,
in one direction or both. `heal` makes the network calm: every message arrives, within DELAY_S_MAX.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

DELAY_S_MAX = 0.2
"""What a message takes at most in a calm network."""
LATE_S_MAX = 8.0
"""What one takes at most otherwise."""

AnswerT = TypeVar("AnswerT")
Serve = Callable[[str, bytes, Callable[[AnswerT], None]], None]
"""A server: is told who asks, what, and how to answer; may answer later, or never, or more than once."""


@dataclass(slots=True)
class Weather:
    """What happens to a message: probabilities."""

    loss: float = 0.0
    doubling: float = 0.0
    lateness: float = 0.0


class Network(Generic[AnswerT]):
    """Who can reach whom, and how well."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._servers: dict[str, Serve[AnswerT]] = {}
        self._cuts: set[tuple[str, str]] = set()
        self.weather = Weather()
        self.delivered = 0

    def serve(self, name: str, server: Serve[AnswerT]) -> None:
        """Makes `name` reachable."""
        self._servers[name] = server

    def cut(self, source: str, target: str) -> None:
        """Nothing arrives from `source` at `target`."""
        self._cuts.add((source, target))

    def mend(self) -> None:
        """Nobody is cut off any more."""
        self._cuts.clear()

    def heal(self) -> None:
        """From now on everything arrives, and in time."""
        self.mend()
        self.weather = Weather()

    def send(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        """Calls `arrive` later: once, or as the weather is."""
        loop = asyncio.get_running_loop()
        weather, random = self.weather, self._random
        if random.random() < weather.loss:
            return
        for _ in range(2 if random.random() < weather.doubling else 1):
            delay_s = random.uniform(0.001, LATE_S_MAX if random.random() < weather.lateness else DELAY_S_MAX)
            loop.call_later(delay_s, self._arrive, source, target, arrive)

    def _arrive(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        if (source, target) not in self._cuts:
            self.delivered += 1
            arrive()

    async def ask(self, source: str, target: str, request: bytes, *, timeout_ms: int) -> AnswerT | None:
        """The first answer to arrive, None if none does within the time."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[AnswerT] = loop.create_future()

        def hear(answer: AnswerT) -> None:
            if not answered.done():
                answered.set_result(answer)

        def serve() -> None:
            server = self._servers[target]
            server(source, request, lambda answer: self.send(target, source, lambda: hear(answer)))

        self.send(source, target, serve)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await answered
        except TimeoutError:
            return None
