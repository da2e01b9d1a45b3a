"""How many streams a log may have, and how many of them one member.

Rules: `log.streams_max` in all, and of those a quarter, rounded up, for each member: so no member alone keeps the others from
their first stream. `local`, which is everybody in a log without members, has no such share. The log's own streams count, and
are never refused: what an operator does is logged also in a log that is full. Streams that there are go on.
"""

from collections import Counter
from collections.abc import Iterable

from translog.errors import ConflictError
from translog.identity.principal import LOCAL_MEMBER, LOG_MEMBER
from translog.storage.store import StreamName

_SHARES = 4


class StreamCount:
    """The streams of a log, counted: in all, and for each member. Belongs to the writer's thread."""

    def __init__(self, streams: Iterable[StreamName], *, streams_max: int) -> None:
        """Of a log that has these streams."""
        self._streams_max = streams_max
        self._member_max = -(-streams_max // _SHARES)
        self._members = Counter(stream.member for stream in streams)
        self._total = self._members.total()

    def begin(self, stream: StreamName) -> None:
        """Counts one more. Raises ConflictError, and then has not."""
        if stream.member != LOG_MEMBER:
            self._require_room(stream)
        self._members[stream.member] += 1
        self._total += 1

    def forget(self, stream: StreamName) -> None:
        """Takes one back that was counted and is not to be begun after all."""
        self._members[stream.member] -= 1
        self._total -= 1

    def _require_room(self, stream: StreamName) -> None:
        if self._total >= self._streams_max:
            raise ConflictError(
                f"the log has all the {self._streams_max} streams it takes, so {stream.stream!r} cannot be one more",
                hint="send this to a stream that there is, or have the log's operator raise log.streams_max",
                code="too-many-streams",
            )
        if stream.member != LOCAL_MEMBER and self._members[stream.member] >= self._member_max:
            raise ConflictError(
                f"one member may have {self._member_max} streams in this log, so {stream.stream!r} cannot be one more",
                hint="send this to a stream that there is, or have the log's operator raise log.streams_max",
                code="too-many-streams",
            )
