"""From records to committed events: normalise, seal, encrypt, append. What every intake endpoint goes through.

Rules: content never fails, so a request is refused only for who sends it, its size, or the log's state, and then as a whole;
each record has a result. Sealing needs nothing that only the sequencer knows; a batch of more than a few records is prepared on
a thread of its own, so that others are answered meanwhile. An event whose id is taken by other content is marked
(`fed.conflicts_with`), sealed anew and appended all the same, because ids can be chosen by an attacker and an audit event must
not be suppressible; only who asks for it (`reject`) gets a conflict instead.
"""

import asyncio
import hmac
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import NamedTuple, TypeVar

from translog.errors import MalformedError, StorageError, TooLargeError, TranslogError
from translog.events.admin import ADMIN_STREAM, admin_event
from translog.events.cipher import BLOB, seal_record
from translog.events.jsontext import JSONObject, Slice, compact
from translog.events.mapping import Source
from translog.events.normalize import in_order, normalize
from translog.events.seal import encode_plain, seal_texts, seal_with_blobs
from translog.events.texts import parse_header
from translog.identity.principal import LOG_MEMBER
from translog.log.drafts import Conflict, Draft, Note, Placed
from translog.log.lifecycle import LogService
from translog.log.pool import Sequenced
from translog.log.vault import Vault
from translog.storage.store import StreamName

T = TypeVar("T")

_INLINE_RECORDS = 4
_INLINE_BYTES = 16 * 1024
"""A batch up to this size is prepared at once: going to another thread costs more."""
_TURN_RECORDS = 64
"""Records prepared at a time: so that a large batch holds up smaller ones for milliseconds, and that each step finds what it
needs in the processor's caches, which saves a fifth of the time."""
_SMALL_RECORDS = 512
"""Batches above it are prepared one behind the other, with smaller ones in between: all at once they would all be done late,
and make one long commit that others wait for. The API server of Kubernetes sends 400 events at most."""
_GIVE_WAY_S = 0.1
"""Between two turns, a large batch waits for the smaller ones at most so long: senders of small ones have less patience, and
must not keep it from going on either."""
_SHARED_BYTES_MAX = 64 * 1024 * 1024
"""What records of one request share (a resource, headers), times the records that share it: it is kept with each of them, so a
small body could otherwise become any amount."""
_NONCE_BYTES = 12
_SEED_BYTES = 32
_KEY_BYTES = 16
_ROUNDS_MAX = 8
"""An event that met a conflict is known by the index it conflicts with, so the second round ends it. More would be a defect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of one record. `error` says why it is a Base Event; `conflict` that it was not logged, on request."""

    index: int
    seq: int | None = None
    duplicate: bool = False
    conflict: bool = False
    conflicts_with: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intaken:
    """What became of a request: a result per record, and the size of the tree that has all of them."""

    results: list[Taken]
    size: int


class _Prepared(NamedTuple):
    """A record on its way."""

    error: str
    draft: Draft


class _Known(NamedTuple):
    """What an event's id and content are recognised by."""

    uid_key: bytes | None = None
    mac: bytes = b""


class Intake:
    """Takes records for one log."""

    def __init__(
        self,
        *,
        service: LogService,
        vault: Vault,
        dedup_key: bytes,
        blob_bytes_min: int,
        random_bytes: Callable[[int], bytes],
        commit_deadline_ms: int,
        host: str,
    ) -> None:
        self._service = service
        self._origin = service.meta.origin
        self._vault = vault
        self._dedup_key = dedup_key
        self._blob_bytes_min = blob_bytes_min
        self._random_bytes = random_bytes
        self._commit_deadline_ms = commit_deadline_ms
        self._host = host
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._large = asyncio.Lock()
        self._small = 0
        self._no_small = asyncio.Event()

    def close(self) -> None:
        """Prepares nothing more. What is being prepared goes on, and is not waited for: nobody waits for it any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def take(
        self,
        stream: StreamName,
        source: Source,
        records: Sequence[Slice],
        *,
        reject_conflicts: bool = False,
        whole: bool = False,
        timeout_ms: int | None = None,
    ) -> Intaken:
        """Logs records, durably; waits for a commit as long as `timeout_ms`, or else `commit_deadline_ms`, say.

        With `whole` it is all or nothing: a record whose id is taken by other content is a ConflictError `id-conflict`, and
        nothing was logged. Raises PushbackError, HeldError, TooLargeError or StorageError, as `append_events` does; after
        StorageError `outcome-unknown` the same records may be sent again: those with ids are found to be duplicates.
        """
        prepared = await self._in_turns(partial(self._prepare, stream, source), records, records)
        if whole:
            prepared = [item._replace(draft=replace(item.draft, whole=True)) for item in prepared]
        results: list[Taken | None] = [None] * len(prepared)
        waiting = list(range(len(prepared)))
        size = 0
        for _ in range(_ROUNDS_MAX):
            if not waiting:
                break
            try:
                sequenced = await self._append([prepared[number].draft for number in waiting], timeout_ms)
            except TranslogError as error:
                if len(waiting) == len(prepared):
                    raise  # nothing of it is logged
                raise _partly_logged(error) from error
            size = max(size, sequenced.size)
            conflicting = []
            for number, outcome in zip(waiting, sequenced.outcomes, strict=True):
                item = prepared[number]
                if isinstance(outcome, Placed):
                    results[number] = Taken(
                        index=outcome.index,
                        seq=outcome.seq,
                        duplicate=outcome.duplicate,
                        conflicts_with=item.draft.conflicts_with,
                        error=item.error,
                    )
                elif reject_conflicts:
                    results[number] = Taken(index=outcome.index, conflict=True, error=item.error)
                else:
                    conflicting.append((number, outcome))
            waiting = [number for number, _ in conflicting]
            if waiting:
                marked = await self._in_turns(
                    partial(self._mark, stream, source),
                    [(records[number], prepared[number], outcome) for number, outcome in conflicting],
                    [records[number] for number in waiting],
                )
                for number, item in zip(waiting, marked, strict=True):
                    prepared[number] = item
        taken = [result for result in results if result is not None]
        if len(taken) != len(results):
            raise RuntimeError("an event keeps conflicting with itself")
        return Intaken(results=taken, size=size)

    async def find_conflicts(self, stream: StreamName, source: Source, records: Sequence[Slice]) -> list[int]:
        """Which records, by their place, have an id that the log has with other content."""
        known = await self.in_thread(lambda: [self._identify(stream, source, record) for record in records])
        keys = [key for uid_key, mac in known if uid_key is not None for key in (uid_key, uid_key + mac)]
        found = dict(zip(keys, await self._service.read_store(lambda store: store.find_ids(keys)), strict=True))
        return [
            place for place, (uid_key, mac) in enumerate(known) if uid_key is not None and _is_conflict(uid_key, mac, found)
        ]

    async def log_admin(
        self, operation: str, *, uid: str, actor: JSONObject, data: JSONObject | None = None, entries: Sequence[bytes] = ()
    ) -> int:
        """Logs that somebody did something to this log (events/admin.py), once by its id `uid`, together with the public
        `entries` that say so, if any. `actor` is an OCSF user. Returns the event's index. Raises as `take` does."""
        now_ms = self._service.guard.wall_ms
        event = admin_event(operation, uid=uid, origin=self._origin, actor=actor, time_ms=now_ms, host=self._host, data=data)
        stream = StreamName(LOG_MEMBER, ADMIN_STREAM)
        known = self._recognise(stream, uid, b"admin\0" + compact(event).encode())
        (draft,) = self._drafts(stream, [event], [known])
        outcome, *_ = (await self._append([draft, *(Note(entry=entry) for entry in entries)])).outcomes
        return outcome.index

    async def take_sealed(self, items: Sequence[Draft | Note]) -> Sequenced:
        """Logs events that their sender sealed and numbered, and its checkpoint. Raises ConflictError, and what `take`
        raises."""
        return await self._append(items)

    async def _append(self, items: Sequence[Draft | Note], timeout_ms: int | None = None) -> Sequenced:
        return await self._service.append_events(items, timeout_ms=timeout_ms or self._commit_deadline_ms)

    async def _in_turns(
        self, work: Callable[[Sequence[T]], list[_Prepared]], items: Sequence[T], records: Sequence[Slice]
    ) -> list[_Prepared]:
        """`work` over the items, which are as large as `records`, some at a time."""
        if len(records) <= _INLINE_RECORDS and sum(len(record.raw) for record in records) <= _INLINE_BYTES:
            return work(items)
        if len(items) > _SMALL_RECORDS:
            async with self._large:
                return await self._turns(work, items, give_way=True)
        self._small += 1
        self._no_small.clear()
        try:
            return await self._turns(work, items, give_way=False)
        finally:
            self._small -= 1
            if not self._small:
                self._no_small.set()

    async def _turns(
        self, work: Callable[[Sequence[T]], list[_Prepared]], items: Sequence[T], *, give_way: bool
    ) -> list[_Prepared]:
        prepared = []
        for start in range(0, len(items), _TURN_RECORDS):
            if give_way and self._small:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_GIVE_WAY_S):
                        await self._no_small.wait()
            prepared += await self.in_thread(partial(work, items[start : start + _TURN_RECORDS]))
        return prepared

    def _prepare(self, stream: StreamName, source: Source, records: Sequence[Slice]) -> list[_Prepared]:
        made = [normalize(source, record) for record in records]
        known = [self._known(stream, source, record, one.uid) for record, one in zip(records, made, strict=True)]
        drafts = self._drafts(stream, [one.event for one in made], known)
        return [_Prepared(one.error, draft) for one, draft in zip(made, drafts, strict=True)]

    def _identify(self, stream: StreamName, source: Source, record: Slice) -> _Known:
        return self._known(stream, source, record, normalize(source, record).uid)

    def _known(self, stream: StreamName, source: Source, record: Slice, uid: str | None) -> _Known:
        return _Known() if uid is None else self._recognise(stream, uid, _content(source, record))

    def _recognise(self, stream: StreamName, uid: str, content: bytes) -> _Known:
        uid_key = sha256("\0".join((*stream, uid)).encode()).digest()[:_KEY_BYTES]
        return _Known(uid_key, hmac.digest(self._dedup_key, content, "sha256")[:_KEY_BYTES])

    def _mark(self, stream: StreamName, source: Source, items: Sequence[tuple[Slice, _Prepared, Conflict]]) -> list[_Prepared]:
        return [self._mark_one(stream, source, *item) for item in items]

    def _mark_one(self, stream: StreamName, source: Source, record: Slice, item: _Prepared, conflict: Conflict) -> _Prepared:
        event = normalize(source, source.parse(record.raw, record.context)).event  # the same again: it is not kept
        event = in_order(event | {"fed": event["fed"] | {"conflicts_with": conflict.index}})
        (draft,) = self._drafts(stream, [event], [_Known(item.draft.uid_key, item.draft.mac)])
        return _Prepared(item.error, replace(draft, conflicts_with=conflict.index))

    def _drafts(self, stream: StreamName, events: Sequence[JSONObject], known: Sequence[_Known]) -> list[Draft]:
        """The events sealed and encrypted, each with a seed and nonces of its own."""
        sealed = [
            seal_with_blobs(
                event,
                origin=self._origin,
                member=stream.member,
                stream=stream.stream,
                seed=self._random_bytes(_SEED_BYTES),
                blob_bytes_min=self._blob_bytes_min,
            )
            for event in events
        ]
        key_id, data_key = self._vault.current(stream.member)
        encrypt = partial(seal_record, data_key=data_key, key_id=key_id, origin=self._origin)
        drafts = []
        for (event, blobs), (uid_key, mac) in zip(sealed, known, strict=True):
            record = encrypt(encode_plain(event), root=event.root, nonce=self._random_bytes(_NONCE_BYTES))
            others = [
                encrypt(data, root=event.root, nonce=self._random_bytes(_NONCE_BYTES), label=BLOB, blob_salt=salt)
                for salt, data in blobs
            ]
            drafts.append(Draft(stream=stream, root=event.root, record=record, blobs=tuple(others), uid_key=uid_key, mac=mac))
        return drafts

    async def split(self, source: Source, body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
        """The records of a body. Raises MalformedError, TooLargeError."""

        def split() -> list[Slice]:
            records = source.split(body, headers, records_max)
            _require_little_shared(records)
            return records

        return split() if len(body) <= _INLINE_BYTES else await self.in_thread(split)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """`work` on the thread that prepares batches."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def draft_sealed(self, stream: StreamName, seq: int, texts: Sequence[bytes], *, seed: bytes, root: bytes) -> Draft:
        """A sender's own sealing, its payload encrypted here. Raises MalformedError unless texts and seed give the root, and
        the texts are of this log, member and stream."""
        sealed = seal_texts(texts, seed=seed)
        if sealed.root != root:
            raise MalformedError("root is not that of these texts and this seed")
        header = parse_header(texts[0])
        if (header.origin, header.member, header.stream) != (self._origin, *stream):
            raise MalformedError("the header is of another log, member or stream")
        key_id, data_key = self._vault.current(stream.member)
        record = seal_record(
            encode_plain(sealed),
            data_key=data_key,
            key_id=key_id,
            origin=self._origin,
            root=root,
            nonce=self._random_bytes(_NONCE_BYTES),
        )
        return Draft(stream=stream, root=root, record=record, seq=seq)


def _require_little_shared(records: Sequence[Slice]) -> None:
    """Raises TooLargeError."""
    sizes: dict[int, int] = {}
    shared = 0
    for record in records:
        if record.context:
            size = sizes.get(id(record.context))
            if size is None:
                size = sizes[id(record.context)] = len(compact(record.context))
            shared += size
            if shared > _SHARED_BYTES_MAX:
                raise TooLargeError(
                    f"what the records share has more than {_SHARED_BYTES_MAX} bytes, as it is kept with each of them",
                    hint="send fewer records at once, or with less of a resource",
                    code="too-much-shared",
                )


def _partly_logged(error: TranslogError) -> StorageError:
    return StorageError(
        f"part of these was logged, and not those whose ids are taken by other content: {error.detail}",
        hint="send all of them again: those with ids that were logged are found to be duplicates",
        code="outcome-unknown",
    )


def _is_conflict(uid_key: bytes, mac: bytes, found: Mapping[bytes, bytes | None]) -> bool:
    first = found[uid_key]
    return first is not None and not first.endswith(mac) and found[uid_key + mac] is None


def _content(source: Source, record: Slice) -> bytes:
    """What makes two records of one id the same: the source, and its `content`, or else bytes as received and what they were
    received with."""
    name = source.name.encode()
    if source.content is not None and not record.error:
        return name + b"\2" + source.content(record)
    if not record.context:
        return name + b"\0" + record.raw
    return name + b"\1" + sha256(compact(record.context).encode()).digest() + record.raw
