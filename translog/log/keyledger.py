"""The log's own key changes, found among its entries: which keys it has by its own public account.

Rules: a follower's Sink. An entry counts if it is the next change of this log's keys (events/keychain.py) and else not at all,
whoever appended it. The file is derived: deleting it costs the time to read all entries again; one that is damaged, or of
another log, of other first keys or of a longer log, is made anew. Belongs to two threads: `apply` to the follower's, the rest
to the event loop's.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import structlog

from translog.core.keys import VKey
from translog.core.wire import decode_base64, encode_base64
from translog.errors import MalformedError, StorageError, VerificationError
from translog.events.keychain import KeyChain, looks_like_key_change
from translog.log.waiters import SizeWaiters
from translog.storage.files import write_file

_logger = structlog.get_logger()

_FORM = "keys/1"
_SAVE_ENTRIES = 10_000
"""The file is written with every change, and else after so many entries: they are read again after a start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange:
    """A change of the log's keys: its entry, where it is, and the keys before and after it."""

    index: int
    entry: bytes
    before: KeyChain
    after: KeyChain


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The changes among the first `size` entries."""

    size: int
    first: KeyChain
    changes: tuple[LoggedChange, ...] = ()

    @property
    def chain(self) -> KeyChain:
        """The keys after all of them."""
        return self.changes[-1].after if self.changes else self.first

    def within(self, size: int) -> "Ledger":
        """The changes among the first `size` entries."""
        changes = tuple(change for change in self.changes if change.index < size)
        return Ledger(size=min(size, self.size), first=self.first, changes=changes)


class KeyLedger:
    """Keeps the account. Make it on the event loop."""

    name = "keys"

    def __init__(self, path: Path, *, origin: str, first: Sequence[VKey], size: int) -> None:
        """The account of the log `origin` with `size` entries, whose first keys are `first`."""
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._waiters = SizeWaiters()
        self._number_waiters = SizeWaiters()
        self._state = _read(path, KeyChain(name=origin, active=tuple(first)), size)
        self._saved_size = self._state.size
        self._tell()

    @property
    def ledger(self) -> Ledger:
        """The account as far as it was followed."""
        return self._state

    async def wait(self, size: int, *, timeout_ms: int) -> bool:
        """Whether the first `size` entries were followed, or are within the time."""
        return await self._waiters.wait(size, timeout_ms=timeout_ms)

    async def wait_number(self, number: int, *, timeout_ms: int) -> bool:
        """Whether so many changes were found, or are within the time."""
        return await self._number_waiters.wait(number, timeout_ms=timeout_ms)

    def cursor(self) -> int:
        """See Sink."""
        return self._state.size

    def apply(self, start: int, entries: Sequence[bytes]) -> None:
        """See Sink. Raises StorageError."""
        state = self._state
        changes = state.changes
        chain = state.chain
        ignored: list[int] = []
        for index, entry in enumerate(entries, start=start):
            if not looks_like_key_change(entry):
                continue
            try:
                after = chain.follow(entry)
            except (MalformedError, VerificationError):
                ignored.append(index)
                continue
            changes = (*changes, LoggedChange(index=index, entry=entry, before=chain, after=after))
            chain = after
        if ignored:
            _logger.info("entries look like changes of keys, and are none of this log's", count=len(ignored), last=ignored[-1])
        new = Ledger(size=start + len(entries), first=state.first, changes=changes)
        if changes != state.changes or new.size - self._saved_size >= _SAVE_ENTRIES:
            _write(self._path, new)
            self._saved_size = new.size
        self._state = new
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._waiters.reached(self._state.size)
        self._number_waiters.reached(self._state.chain.number)


def _write(path: Path, ledger: Ledger) -> None:
    document = {
        "translog": _FORM,
        "origin": ledger.first.name,
        "first": [str(vkey) for vkey in ledger.first.active],
        "size": ledger.size,
        "changes": [{"index": change.index, "entry": encode_base64(change.entry)} for change in ledger.changes],
    }
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_file(path, json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode() + b"\n", mode=0o600)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", hint="it can be deleted: it is made anew") from error


def _read(path: Path, first: KeyChain, size: int) -> Ledger:
    """The account in the file, or an empty one."""
    empty = Ledger(size=0, first=first)
    try:
        document = json.loads(path.read_bytes())
        known = (document["translog"], document["origin"], document["first"])
        said_size = document["size"]
        told = [(change["index"], decode_base64(change["entry"])) for change in document["changes"]]
        indexes = [-1, *(index for index, _ in told), said_size]
        if known != (_FORM, first.name, [str(vkey) for vkey in first.active]) or said_size > size:
            return empty
        if any(type(index) is not int for index in indexes) or any(a >= b for a, b in pairwise(indexes)):
            return empty
        changes: list[LoggedChange] = []
        chain = first
        for index, entry in told:
            changes.append(LoggedChange(index=index, entry=entry, before=chain, after=chain.follow(entry)))
            chain = changes[-1].after
        return Ledger(size=said_size, first=first, changes=tuple(changes))
    except FileNotFoundError:
        return empty
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, MalformedError, VerificationError):
        _logger.warning("the account of the log's keys is made anew", path=str(path))
        return empty
