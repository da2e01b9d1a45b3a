"""Events on their way: prepared once, so that every try sends the same bytes, and the room they take until their fate is told.

Rules: an event gets its id before the first try, `metadata.uid` in OCSF and `id` in the short form, and keeps it; the event
passed in is not changed. An event takes room from when it is accepted until its sender or `take_unsent` has been told what
became of it, so that what a log that is down leaves behind is bounded too.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from translog.errors import MalformedError, PushbackError, TooLargeError
from translog.events.jsontext import parse_record
from translog.events.normalize import normalize
from translog.events.sources.short import EVENTS

_RETRY_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an event submitter may hold and send."""

    batch_events_max: int = 500
    batch_bytes_max: int = 1024 * 1024
    """A larger event goes alone."""
    batch_age_ms: int = 10
    """How long the first event of a batch waits for others; while a request is under way, others gather anyway."""
    queue_events_max: int = 10_000
    queue_bytes_max: int = 64 * 1024 * 1024
    request_timeout_ms: int = 30_000
    """For one try and its whole answer. The log waits up to 30 s for its store."""

    def __post_init__(self) -> None:
        """Raises MalformedError for a limit under which nothing could be sent."""
        for name in ("batch_events_max", "batch_bytes_max", "queue_events_max", "queue_bytes_max", "request_timeout_ms"):
            if getattr(self, name) < 1:
                raise MalformedError(f"{name} must be at least 1")
        if self.batch_age_ms < 0:
            raise MalformedError("batch_age_ms must be at least 0")


@dataclass(frozen=True, slots=True)
class Prepared:
    """An event with its id, and the bytes that are sent for it: one line of JSON without the newline."""

    event: Mapping[str, Any]
    uid: str
    data: bytes


def new_uid() -> str:
    """A UUID of version 7 (RFC 9562 section 5.7): sorts by the time it was made, in ms."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76  # the version
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant
    return str(uuid.UUID(int=value & (1 << 128) - 1))


def is_ocsf(event: Mapping[str, Any]) -> bool:
    """Whether the log takes this as OCSF, not as the short form."""
    return "class_uid" in event


def uid_of(event: Mapping[str, Any]) -> str | None:
    """The event's id, None where it has none. Raises MalformedError for one that is no id."""
    holder = event.get("metadata", {}) if is_ocsf(event) else event
    name = "uid" if is_ocsf(event) else "id"
    if not isinstance(holder, Mapping):
        raise MalformedError("the event's metadata is not an object")
    uid = holder.get(name)
    if uid is not None and not (isinstance(uid, str) and uid):
        raise MalformedError(f"the event's {name} is not a text", hint="leave it out to have one made")
    return uid


def prepare(event: Mapping[str, Any]) -> Prepared:
    """The event with an id, and in the short form with a `time`, now, where it has none. About 50 us.

    Raises MalformedError for what is no JSON, and for an event that the log would not find again by its id, because it would
    take it for neither OCSF nor the short form: such a one could not be sent again safely.
    """
    if not isinstance(event, Mapping):
        raise MalformedError("an event is a JSON object: a dict with texts as keys")
    uid = uid_of(event)
    ready = dict(event)
    if is_ocsf(event):
        ready["metadata"] = {**event.get("metadata", {}), "uid": uid or new_uid()}
        uid = ready["metadata"]["uid"]
    else:
        uid = ready["id"] = uid or new_uid()
        if ready.get("time") is None:
            ready["time"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        data = json.dumps(ready, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:  # no JSON, not finite, circular, a lone surrogate
        raise MalformedError(f"the event is no JSON: {str(error)[:200]}") from None
    found = normalize(EVENTS, parse_record(data, {}))
    if found.uid != uid:
        raise MalformedError(f"not an event as the log takes them: {found.error or 'its id is too long, or not plain text'}")
    return Prepared(ready, uid, data)


class Room:
    """So many events and bytes. Any thread may take; `freed` is called on the thread that gives back."""

    def __init__(self, limits: Limits, *, freed: Callable[[], None]) -> None:
        self._limits = limits
        self._freed = freed
        self._changed = threading.Condition()
        self.events = 0
        self.bytes = 0

    def try_take(self, size: int) -> bool:
        """Whether there was room, which is taken. Raises TooLargeError for an event that never has room."""
        with self._changed:
            return self._try(size)

    def take(self, size: int, *, wait_ms: float) -> bool:
        """`try_take`, blocking this thread for at most so long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._try(size), timeout=wait_ms / 1000)

    def _try(self, size: int) -> bool:
        if size > self._limits.queue_bytes_max:
            raise TooLargeError(
                f"an event of {size} bytes: the queue holds {self._limits.queue_bytes_max}", code="event-too-large"
            )
        if self.events >= self._limits.queue_events_max or self.bytes + size > self._limits.queue_bytes_max:
            return False
        self.events += 1
        self.bytes += size
        return True

    def give(self, size: int) -> None:
        """Gives back what an event took."""
        with self._changed:
            self.events -= 1
            self.bytes -= size
            self._changed.notify_all()
        self._freed()

    def full(self) -> PushbackError:
        """The error for no room."""
        return PushbackError(
            f"{self.events} events of {self.bytes} bytes wait for the log: there is no room for more",
            hint="the log is down, or slower than the events come; this event was not accepted",
            code="queue-full",
            retry_after_ms=_RETRY_MS,
        )
