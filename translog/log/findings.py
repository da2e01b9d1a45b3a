"""What the events of a span are found to be: passed from the processes that check to the one that names.

Rules: plain values that can be pickled; damage is named by the index of its entry, and what is wrong alike with neighbours is
one Run, so that nothing here grows with the damage alone.
"""

from collections import Counter
from dataclasses import dataclass, field

from translog.events.entry import Numbered
from translog.storage.store import StreamName

NEVER_GIVEN, OPAQUE, ERASED, NOT_OPENED = "never given", "opaque", "erased", "not opened"
"""Why a payload counts neither as good nor as bad."""
STRAY = "is there, and should not be"


@dataclass(slots=True, kw_only=True)
class Run:
    """Damage of one kind to `what` of the entries `first` to `last`, `count` of them."""

    kind: str
    what: str
    first: int
    last: int
    problem: str


@dataclass(slots=True, kw_only=True)
class StreamPart:
    """A stream's events in a span: the first, the last, and how many entries of the span before each are in doubt."""

    first_numbered: Numbered
    numbered: Numbered
    first_seq: int
    first_index: int
    doubts_before: int
    next_seq: int
    last_index: int
    last_received_at_ms: int
    doubts_at_last: int


@dataclass(slots=True, kw_only=True)
class EventsFound:
    """What a span's events are. `ids` and `numbers` count the rows that follow from them, `unknown_keys` the payloads whose key
    is not in the vault, by key id, with the first one's index."""

    runs: list[Run] = field(default_factory=list)
    good: Counter[str] = field(default_factory=Counter)
    excepted: Counter[str] = field(default_factory=Counter)
    streams: dict[StreamName, StreamPart] = field(default_factory=dict)
    first_received: tuple[int, int] | None = None
    """The first event's index and time of receipt."""
    last_received: tuple[int, int] | None = None
    ids: int = 0
    numbers: int = 0
    doubtful: set[int] = field(default_factory=set)
    unknown_keys: dict[bytes, tuple[int, int]] = field(default_factory=dict)

    def bad(self, kind: str, what: str, index: int, problem: str) -> None:
        """Adds one."""
        runs = self.runs
        if runs and (runs[-1].kind, runs[-1].what, runs[-1].problem, runs[-1].last) == (kind, what, problem, index - 1):
            runs[-1].last = index
        else:
            runs.append(Run(kind=kind, what=what, first=index, last=index, problem=problem))


def numbering_problem(
    stream: StreamName, seq: int, numbered: Numbered, expected: int, numbered_before: Numbered, doubts: int
) -> str:
    """What is wrong with the next event of a stream, empty if nothing; `doubts` entries before it may have been of it too."""
    if not expected <= seq <= expected + doubts:
        return f"is number {seq} of the stream {stream.member}/{stream.stream}, which expects {expected}"
    if numbered is not numbered_before:
        return f"is numbered by {numbered.value}, and the stream {stream.member}/{stream.stream} is not"
    return ""


def received_before(received_at_ms: int, before: int, before_ms: int) -> str:
    """What is wrong with a time of receipt."""
    return f"was received at {received_at_ms}, and entry {before} at {before_ms}: time has gone back"
