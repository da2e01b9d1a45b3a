"""Signs and publishes tree heads.

Rules: DIR/head holds a size and root, durably, before any signature over them leaves the process; then the checkpoint is
signed off the event loop, cosigned by the quorum of the publication policy if there is one, stored, and only then served. One
publication at a time, always of the newest committed tree, so many commits may share one; an idle log publishes at once.
Without a quorum it holds back, or publishes what is signed and marks it. Cosignatures that come later are added. An idle log
signs anew after a while, so that silence shows. https://c2sp.org/tlog-checkpoint
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress

import structlog

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.merkle import prove_consistency, root_hash
from translog.core.note import Signer, sign_note
from translog.core.tile import TileReader
from translog.errors import PushbackError
from translog.log.clock import ClockGuard
from translog.log.head import HeadFile
from translog.log.metrics import LogMetrics
from translog.log.reader import Published
from translog.log.rounds import Prove, RootAt, Round
from translog.log.settings import LogSettings, WithoutQuorum
from translog.log.waiters import uninterrupted
from translog.log.witnesses import Witnesses
from translog.storage.store import LogStore, StoredCheckpoint, TreeState

_log = structlog.get_logger()

_LATE_S = 0.1
"""How long cosignatures that come late are gathered before they are stored."""


class Publisher:
    """One run of publishing over one opening of the store."""

    def __init__(
        self,
        *,
        store: LogStore,
        head: HeadFile,
        origin: str,
        signers: Callable[[], Sequence[Signer]],
        guard: ClockGuard,
        writer: Executor,
        signing: Executor,
        readers: Executor,
        settings: LogSettings,
        metrics: LogMetrics,
        committed: TreeState,
        published: Published | None,
        witnesses: Witnesses | None,
        starting: bool,
        require_may_sign: Callable[[], None],
        on_publish: Callable[[Published], None],
        on_quorum: Callable[[bool], None],
    ) -> None:
        """With `starting`, for the first run of a process, the first publication waits for the answer of every witness, so that
        one that knows more than this log is heard before anything new is signed. `on_quorum` is told, after each checkpoint,
        whether its quorum was reached in time."""
        self._store = store
        self._head = head
        self._origin = origin
        self._signers = signers
        self._guard = guard
        self._writer = writer
        self._signing = signing
        self._readers = readers
        self._settings = settings
        self._metrics = metrics
        self._state = committed
        self._published = published
        self._witnesses = witnesses
        self._starting = starting
        self._require_may_sign = require_may_sign
        self._on_publish = on_publish
        self._on_quorum = on_quorum
        self._quorum_lost = False
        self._done: TreeState | None = None
        self._kept_at_ms: int | None = None
        self._wake = asyncio.Event()
        self._began_at_s: float | None = None
        self._recorded: tuple[int, bytes] | None = None
        self._last: tuple[Round, TreeState, bool] | None = None
        """The round of the checkpoint that is published, what it is about, and whether it is kept."""
        self._publishes_anyway = settings.witnessing.without_quorum is WithoutQuorum.PUBLISH
        self._late: asyncio.TimerHandle | None = None
        self._anew: list[asyncio.Future[bool]] = []

    def committed(self, state: TreeState) -> None:
        """Tells that there is more to publish."""
        self._state = state
        self._wake.set()

    def look_again(self) -> None:
        """Tells that something has changed, if only what witnesses say."""
        self._wake.set()

    async def sign_anew(self) -> bool:
        """True once a checkpoint that was signed after this call is published, with its quorum, and kept for good; False once
        there will be none of this run."""
        signed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._anew.append(signed)
        self._wake.set()
        return await signed

    async def run(self) -> None:
        """Publishes until cancelled (between steps only) or until a write fails: then raises what failed."""
        try:
            await self._run()
        finally:
            for future in self._anew:
                if not future.done():
                    future.set_result(False)

    async def _run(self) -> None:
        while True:
            idle = True
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.idle_sign_interval_ms / 1000):
                    await self._wake.wait()
                    idle = False
            self._wake.clear()
            try:
                if idle or not self._is_current():
                    await self._pause()
                    await self._add_late()
                    await self.publish()
                else:
                    await self._add_late()
            except PushbackError as error:  # the clock is in doubt: sign nothing with it, look again soon
                _log.warning("publication waits", code=error.code, detail=error.detail)
                await asyncio.sleep(error.retry_after_ms / 1000)
                self._wake.set()

    async def _pause(self) -> None:
        """Until a checkpoint may be published: what is signed then is the newest."""
        ready_at_s = self._ready_at_s()
        while (left_s := ready_at_s - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(left_s, _LATE_S))
            await self._add_late()
            # Witnesses may come back meanwhile. One that is asked in vain for an older checkpoint must not put it off.
            ready_at_s = min(ready_at_s, self._ready_at_s())

    def _ready_at_s(self) -> float:
        ready_at_s = 0.0
        if self._witnesses is not None and not (self._quorum_lost and self._publishes_anyway):
            ready_at_s = self._witnesses.free_at_s()
        if self._began_at_s is not None:
            ready_at_s = max(ready_at_s, self._began_at_s + self._settings.publish_interval_ms / 1000)
        return ready_at_s

    def _tell_of_late(self) -> None:
        """Wakes the publisher a little later, when more may have come."""
        if self._late is None:
            self._late = asyncio.get_running_loop().call_later(_LATE_S, self._wake.set)

    def _is_current(self) -> bool:
        """Whether what this run has published last, with its quorum, is all there is."""
        if self._witnesses is not None:
            self._witnesses.require_sound()
        return self._done is self._state and not self._anew

    async def publish(self) -> None:
        """Publishes the newest committed tree once, or finds no quorum for it: then it wakes itself.

        Raises StorageError, HeldError if the log was held meanwhile or a witness shows that it must be, or PushbackError while
        the clock is in doubt.
        """
        self._began_at_s = asyncio.get_running_loop().time()
        state, anew = self._state, [*self._anew]
        now_ms = self._guard.tick()
        if self._witnesses is not None:
            self._witnesses.require_sound()
        keep = self._kept_at_ms is None or not 0 <= now_ms - self._kept_at_ms < self._settings.keep_checkpoint_interval_ms
        keep = keep or bool(anew)
        with self._metrics.publish_seconds.time():
            note = await uninterrupted(self._sign(state, now_ms // 1000))
            if self._witnesses is None:
                await uninterrupted(self._store_and_show(state, note, keep=keep, witnessed=True))
            elif not await self._publish_cosigned(self._witnesses, state, note, keep=keep):
                return
        self._done = state
        if keep:
            self._kept_at_ms = now_ms
        self._metrics.published_at.set(now_ms / 1000)
        self._anew = [future for future in self._anew if future not in anew]
        for future in anew:
            if not future.done():
                future.set_result(True)

    async def _sign(self, state: TreeState, time_s: int) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._signing, self._record_and_sign, state, time_s)

    async def _publish_cosigned(self, witnesses: Witnesses, state: TreeState, note: bytes, *, keep: bool) -> bool:
        """Whether the checkpoint was published with its quorum."""
        starting, self._starting = self._starting, False
        prove, root_at = self._prover(state)
        offered = witnesses.begin(note, size=state.size, prove=prove, root_at=root_at, starting=starting)
        settings = self._settings.witnessing
        publish_anyway = self._publishes_anyway
        if self._quorum_lost and publish_anyway:  # nobody waits for witnesses that were not there the last time
            await self._show_unwitnessed(state, note)
        if starting:
            timeout_ms = min(settings.request_timeout_ms, settings.quorum_timeout_ms)
        elif self._quorum_lost and publish_anyway:
            timeout_ms = settings.request_timeout_ms
        else:
            timeout_ms = settings.quorum_timeout_ms
        try:
            reached = await offered.wait(timeout_ms=timeout_ms, all_asked=starting)
            if not reached and self._quorum_lost and publish_anyway:
                reached = await self._wait_for_quorum_or_news(offered)
        except BaseException:  # the store is opened anew: nobody waits for this one any more
            offered.withdrawn = True
            raise
        self._quorum_lost = not reached
        witnesses.require_sound()
        if not reached:
            offered.withdrawn = True
            self._done = None  # also where what is published says the same: that the quorum is back must show
            self._on_quorum(False)
            if publish_anyway:
                await self._show_unwitnessed(state, offered.note)
            self._wake.set()  # with what is newest then
            return False
        self._last = offered, state, keep
        offered.late = self._tell_of_late
        await uninterrupted(self._store_and_show(state, offered.note, keep=keep, witnessed=True))
        self._on_quorum(True)
        return True

    async def _wait_for_quorum_or_news(self, offered: Round) -> bool:
        """Whether the quorum came before anything that is to be published without it."""
        quorum = asyncio.create_task(
            offered.wait(timeout_ms=self._settings.witnessing.quorum_timeout_ms, all_asked=False), name="quorum"
        )
        news = asyncio.create_task(self._wake.wait(), name="news")
        try:
            await asyncio.wait([quorum, news], return_when=asyncio.FIRST_COMPLETED)
            return await quorum if quorum.done() else False
        finally:
            quorum.cancel()
            news.cancel()

    async def _show_unwitnessed(self, state: TreeState, note: bytes) -> None:
        """Publishes it, unless what is published says the same and has its quorum. It is never kept; what it takes the place of
        is, since receipts are at what is kept."""
        shown = self._published
        if shown is None or shown.size < state.size or not shown.witnessed:
            if shown is not None and shown.witnessed:
                before = StoredCheckpoint(size=shown.size, note=shown.note)
                await uninterrupted(self._store_checkpoint(before, keep=True, durable=False))
            await uninterrupted(self._store_and_show(state, note, keep=False, witnessed=False))
            self._metrics.published_at.set(self._guard.wall_ms / 1000)

    async def _add_late(self) -> None:
        """Adds the cosignatures that have come since the published checkpoint was stored."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._last is None or self._published is None:
            return
        offered, state, keep = self._last
        note = offered.note
        if note != self._published.note and self._published.size == state.size and self._published.witnessed:
            await uninterrupted(self._store_and_show(state, note, keep=keep, witnessed=True, durable=False))

    async def _store_and_show(
        self, state: TreeState, note: bytes, *, keep: bool, witnessed: bool, durable: bool = True
    ) -> None:
        await self._store_checkpoint(StoredCheckpoint(size=state.size, note=note), keep=keep, durable=durable)
        self._published = Published(size=state.size, root=state.root, note=note, witnessed=witnessed)
        self._metrics.published_size.set(state.size)
        self._on_publish(self._published)

    async def _store_checkpoint(self, stored: StoredCheckpoint, *, keep: bool, durable: bool) -> None:
        # Without witnesses the next start signs anew. With them it may have to show this one, until they answer.
        durable = durable and self._witnesses is not None
        await asyncio.get_running_loop().run_in_executor(
            self._writer, lambda: self._store.publish(stored, keep=keep, durable=durable)
        )

    def _prover(self, state: TreeState) -> tuple[Prove, RootAt]:
        """What makes proofs from older sizes of this tree, and its roots at these."""
        made: dict[int, asyncio.Future[Sequence[bytes]]] = {}

        def reader() -> TileReader:
            return TileReader(self._store, size=state.size, root=state.root)

        async def prove(old: int) -> Sequence[bytes]:
            if old not in made:  # most witnesses are at the same size
                made[old] = asyncio.get_running_loop().run_in_executor(
                    self._readers, lambda: prove_consistency(old=old, new=state.size, reader=reader())
                )
                made[old].add_done_callback(lambda proof: proof.cancelled() or proof.exception())  # also if nobody waits
            return await asyncio.shield(made[old])

        async def root_at(size: int) -> bytes:
            return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: root_hash(size, reader()))

        return prove, root_at

    def _record_and_sign(self, state: TreeState, time_s: int) -> bytes:
        """On the signing thread."""
        self._require_may_sign()
        # What the head held when it was opened does not count: it may be in the page cache only.
        if self._recorded != (state.size, state.root):
            self._head.write(size=state.size, root=state.root)
            self._recorded = (state.size, state.root)
        self._require_may_sign()
        # From here on the size and root survive anything, so a signature may exist.
        text = format_checkpoint(Checkpoint(origin=self._origin, size=state.size, root=state.root))
        return sign_note(text, self._signers(), time_s=time_s)
