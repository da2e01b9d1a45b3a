"""The memory that bodies, or answers, may take on all connections of a listener together.

Rules: a connection takes what it holds and gives it back when that is done with, or the connection lost; what does not fit is
pushed back, before it is received or sent. Bodies and answers have a budget each, so that whoever reads slowly, without
credentials, stops nobody from appending. Belongs to the event loop's thread.
"""

from translog.errors import PushbackError

_RETRY_MS = 1_000


class Budget:
    """What is left of so many bytes."""

    def __init__(self, bytes_max: int) -> None:
        self.left = bytes_max


class Share:
    """What one connection has taken of a budget, and since when."""

    __slots__ = ("_budget", "_since", "_taken")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0
        self._since = 0.0

    def take(self, count: int, *, now: float = 0.0) -> None:
        """Raises PushbackError, and takes nothing, where less is left. `now` is in seconds, of any clock."""
        if count > self._budget.left:
            raise PushbackError(
                "the log holds as many bytes of requests and answers as it may; nothing was written",
                hint="try again later, or with less at once",
                code="too-busy",
                retry_after_ms=_RETRY_MS,
            )
        self._budget.left -= count
        self._taken += count
        self._since = now

    def held_s(self, now: float) -> float:
        """For how long something has been held; 0 for nothing."""
        return now - self._since if self._taken else 0.0

    def give_back(self) -> None:
        """Everything. May be called again."""
        self._budget.left += self._taken
        self._taken = 0
