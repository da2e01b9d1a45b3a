"""The trees that senders keep over their own streams: what a stream's signed checkpoint must have for a root.

    leaf n of a stream   SHA-256(0x00 || u64 seq n || event root)

Rules: the log computes a root from what it has committed and what comes with the checkpoint, so it never logs a checkpoint
that its own entries contradict. Of each stream the perfect subtrees are remembered, so a checkpoint costs what came since the
one before it, about 10 µs an event; after a start the first costs the whole stream, and so does one that is older than what is
remembered. Who asks takes the stream's turn, so what is asked for by many at once is computed once, and keeps one thread.
specs/formats.md, "Streams".
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

from translog.core.merkle import fold_range, hash_children, hash_leaf
from translog.errors import CorruptionError, MalformedError
from translog.events.entry import parse_entry
from translog.storage.store import StreamName

_STREAMS_MAX = 1_000
"""Streams remembered; of one more, the one that was asked for longest ago is forgotten."""


class StreamReader(Protocol):
    """What is read of a stream: the part of LogStore."""

    def find_number(self, stream: StreamName, seq: int) -> int | None:
        """See LogStore."""

    def read_entries(self, *, start: int, end: int) -> list[bytes]:
        """See LogStore."""


class StreamTrees:
    """The subtrees of streams. `root` may be called on many threads, `turn` belongs to the event loop's."""

    def __init__(self) -> None:
        self._known: OrderedDict[StreamName, tuple[int, tuple[bytes, ...]]] = OrderedDict()
        self._guard = threading.Lock()
        self._turns: WeakValueDictionary[StreamName, asyncio.Lock] = WeakValueDictionary()

    def turn(self, stream: StreamName) -> asyncio.Lock:
        """The stream's turn: to be held around `root`, since whoever comes next then finds what was remembered."""
        turn = self._turns.get(stream)
        if turn is None:
            turn = self._turns[stream] = asyncio.Lock()
        return turn

    def root(self, reader: StreamReader, stream: StreamName, *, stored: int, first_seq: int, roots: Sequence[bytes]) -> bytes:
        """The root of the stream's first `first_seq + len(roots)` events: the `stored` ones as they are committed, the others
        as they come. Those must follow on: `first_seq` is at most `stored`. Blocks. Raises StorageError, CorruptionError."""
        size = first_seq + len(roots)
        begin, edge = self._recall(stream, size)
        kept = (begin, tuple(edge))
        for seq in range(begin, size):
            if seq == stored:
                kept = (seq, tuple(edge))
            root = _stored_root(reader, stream, seq) if seq < stored else roots[seq - first_seq]
            _grow(edge, seq, hash_leaf(seq.to_bytes(8, "big") + root))
        self._remember(stream, kept if size > stored else (size, tuple(edge)))
        return fold_range(edge)

    def _recall(self, stream: StreamName, size: int) -> tuple[int, list[bytes]]:
        with self._guard:
            begin, edge = self._known.get(stream, (0, ()))
        return (begin, list(edge)) if begin <= size else (0, [])

    def _remember(self, stream: StreamName, known: tuple[int, tuple[bytes, ...]]) -> None:
        with self._guard:
            self._known[stream] = max(known, self._known.get(stream, known), key=lambda one: one[0])
            self._known.move_to_end(stream)
            if len(self._known) > _STREAMS_MAX:
                self._known.popitem(last=False)


def _grow(edge: list[bytes], size: int, leaf_hash: bytes) -> None:
    """Adds a leaf to the perfect subtrees of a tree of `size`."""
    while size & 1:
        leaf_hash = hash_children(edge.pop(), leaf_hash)
        size >>= 1
    edge.append(leaf_hash)


def _stored_root(reader: StreamReader, stream: StreamName, seq: int) -> bytes:
    index = reader.find_number(stream, seq)
    if index is None:
        raise CorruptionError(f"number {seq} of stream {'/'.join(stream)} is missing from the store")
    try:
        return parse_entry(reader.read_entries(start=index, end=index + 1)[0]).root
    except MalformedError as error:
        raise CorruptionError(f"entry {index} is not the event that the store says it is") from error
