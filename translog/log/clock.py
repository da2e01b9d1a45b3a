"""The log's time, and when not to trust it.

Rules: `received_at` is the wall clock in ms and never decreases. Between two ticks the wall clock and CLOCK_BOOTTIME must
move together; when they come apart by more than a limit, somebody or something set the clock, and sequencing pauses until
they agree again or the operator accepts the new time.
"""

import time
from typing import Protocol

from translog.errors import PushbackError


class Clock(Protocol):
    """Two clocks: one that can be set, one that cannot."""

    def wall_ms(self) -> int:
        """Milliseconds since the epoch."""

    def boot_ms(self) -> int:
        """Milliseconds since some fixed moment, suspended time included."""


class SystemClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class ClockGuard:
    """Hands out the time while the two clocks agree."""

    def __init__(self, clock: Clock, *, jump_ms_max: int, retry_after_ms: int) -> None:
        self._clock = clock
        self._jump_ms_max = jump_ms_max
        self._retry_after_ms = retry_after_ms
        self._offset_ms = clock.wall_ms() - clock.boot_ms()

    @property
    def jump_ms(self) -> int:
        """How far the wall clock is now from where the last good tick lets expect it."""
        return self._clock.wall_ms() - self._clock.boot_ms() - self._offset_ms

    @property
    def wall_ms(self) -> int:
        """What the wall clock says, right or wrong."""
        return self._clock.wall_ms()

    def tick(self) -> int:
        """The time in ms since the epoch. Raises PushbackError while the clocks do not agree."""
        wall_ms = self._clock.wall_ms()
        offset_ms = wall_ms - self._clock.boot_ms()
        jump_ms = offset_ms - self._offset_ms
        if abs(jump_ms) > self._jump_ms_max:
            raise PushbackError(
                f"the log's clock was set by {jump_ms / 1000:+.1f} s, so sequencing is paused",
                hint="set the clock right; or accept it, on the log's machine: "
                "curl -X POST -H 'Translog-Operator: NAME' http://127.0.0.1:6963/clock/accept",
                code="clock-jumped",
                retry_after_ms=self._retry_after_ms,
            )
        self._offset_ms = offset_ms
        return wall_ms

    def accept(self) -> int:
        """Takes the clock as it is now for right. Returns by how many ms it had jumped."""
        jump_ms = self.jump_ms
        self._offset_ms += jump_ms
        return jump_ms
