"""What is on its way to the sequencer: bounded in number and bytes, first in, first out.

Rules: a submission is one or more items, each an entry or what one will be made of, that are committed together and in order;
an item's length is the bytes it takes. Full means PushbackError at once, never a wait and never a silent drop; whoever takes
a submission out settles its future. Belongs to the event loop's thread.
"""

import asyncio
from collections import deque
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

from translog.core.tile import ENTRY_BYTES_MAX
from translog.errors import MalformedError, PushbackError, StorageError, TooLargeError, TranslogError
from translog.log.drafts import Outcome

ItemT = TypeVar("ItemT", bound=Sized)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequenced:
    """Where a submission's new entries are: indexes [first, first + count), in a commit after which the log had `size` entries,
    the newest received then. Of an events log `outcomes` tell what became of each item; every index in them is below `size`.
    """

    first: int
    count: int
    size: int
    received_at_ms: int
    outcomes: tuple[Outcome, ...] = ()

    @property
    def indexes(self) -> range:
        """The new entries' indexes."""
        return range(self.first, self.first + self.count)


@dataclass(frozen=True, slots=True)
class Submission(Generic[ItemT]):
    """Items that wait, and the future that tells what became of them."""

    items: Sequence[ItemT]
    item_bytes: int
    done: "asyncio.Future[Sequenced]"

    def fail(self, error: TranslogError) -> None:
        """Settles the future with an error, unless whoever waited has gone."""
        if not self.done.done():
            self.done.set_exception(error)

    async def outcome(self, *, timeout_ms: int | None) -> Sequenced:
        """What became of it. Raises what it was failed with, or StorageError when the time is over: it may be committed all
        the same."""
        if timeout_ms is None:
            return await self.done
        timer = asyncio.get_running_loop().call_later(timeout_ms / 1000, self._expire, timeout_ms)
        try:
            return await self.done
        finally:
            timer.cancel()

    def _expire(self, timeout_ms: int) -> None:
        self.fail(
            StorageError(
                f"not committed within {timeout_ms} ms, and whether it will be is not known",
                hint="when the log is open again, look for these before sending them once more, or they may be logged twice",
                code="outcome-unknown",
            )
        )


def require_entries(entries: Sequence[bytes]) -> None:
    """Raises MalformedError for no entries, TooLargeError for one that fits no bundle."""
    if not entries:
        raise MalformedError("there is no entry to append", code="no-entries")
    for number, entry in enumerate(entries):
        if len(entry) > ENTRY_BYTES_MAX:
            raise TooLargeError(
                f"entry {number} has {len(entry)} bytes, at most {ENTRY_BYTES_MAX} are possible; nothing was logged",
                code="entry-too-large",
            )


class Pool(Generic[ItemT]):
    """Submissions that wait. `entries` and `entry_bytes` are what they will be in the log, at most."""

    def __init__(self, *, entries_max: int, entry_bytes_max: int, retry_after_ms: int) -> None:
        self._entries_max = entries_max
        self._entry_bytes_max = entry_bytes_max
        self._retry_after_ms = retry_after_ms
        self._waiting: deque[Submission[ItemT]] = deque()
        self._filled = asyncio.Event()
        self.entries = 0
        self.entry_bytes = 0

    def add(self, items: Sequence[ItemT]) -> Submission[ItemT]:
        """Queues `items`. Raises PushbackError when full, TooLargeError for what can never fit."""
        entry_bytes = sum(map(len, items))
        if len(items) > self._entries_max or entry_bytes > self._entry_bytes_max:
            raise TooLargeError(
                f"{len(items)} entries of {entry_bytes} bytes are more than the pool ever holds "
                f"({self._entries_max} entries, {self._entry_bytes_max} bytes)",
                hint="send smaller batches",
            )
        if self.entries + len(items) > self._entries_max or self.entry_bytes + entry_bytes > self._entry_bytes_max:
            raise PushbackError(
                f"the log is busy: {self.entries} entries wait to be sequenced",
                hint="nothing was written; send it again later",
                code="pool-full",
                retry_after_ms=self._retry_after_ms,
            )
        submission = Submission(items, entry_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(submission)
        self.entries += len(items)
        self.entry_bytes += entry_bytes
        self._filled.set()
        return submission

    async def wait(self) -> None:
        """Returns as soon as something waits."""
        await self._filled.wait()

    def take(self, *, entries_max: int, entry_bytes_max: int) -> list[Submission[ItemT]]:
        """The oldest submissions within the limits, at least one if any waits."""
        taken: list[Submission[ItemT]] = []
        entries = entry_bytes = 0
        while self._waiting:
            head = self._waiting[0]
            entries += len(head.items)
            entry_bytes += head.item_bytes
            if taken and (entries > entries_max or entry_bytes > entry_bytes_max):
                break
            taken.append(self._waiting.popleft())
            self.entries -= len(head.items)
            self.entry_bytes -= head.item_bytes
        if not self._waiting:
            self._filled.clear()
        return taken

    def fail_all(self, error: TranslogError) -> None:
        """Empties the pool; everyone who waited gets `error`."""
        for submission in self.take(entries_max=self._entries_max, entry_bytes_max=self._entry_bytes_max):
            submission.fail(error)
