"""The log's side of witnessing: asks every witness of the publication policy to cosign a checkpoint, all at once.

Rules: one request at a time to each witness, no two within an interval, each with a time limit, so that a slow, dead or lying
one never holds up the others; only lines of the policy's keys that verify are kept, and whatever else an answer has is dropped;
a 409 that names another size is followed once. A 409 that names more than this log ever signed is a rollback alarm: at start-up
it holds the log, later only if the witness can show what it was given. https://c2sp.org/tlog-witness
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import structlog

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.cosignature import signature_time
from translog.core.note import Note, Signature, Verifier, parse_note, verify_note
from translog.core.policy import Policy, PolicyWitness
from translog.core.quorum import has_quorum
from translog.core.wire import printable
from translog.errors import HeldError, MalformedError, OldSizeError, RemoteError, SignatureError, TranslogError
from translog.log.metrics import LogMetrics
from translog.log.rounds import Prove, RootAt, Round, verified_lines, verified_under
from translog.log.settings import WitnessingSettings

_logger = structlog.get_logger()

_BACKOFF_MS_FIRST = 250
_CONTRADICTIONS = frozenset({409, 422})
"""Statuses of a witness that has another tree; some answer 409 without a size for that."""
_ALARM_QUIET_S = 600.0
"""A witness that states another size each time shall not fill the log with events; its status and metric tell all the same."""
_NOTES_MAX = 256
"""Checkpoints of which it is remembered whether they have their quorum."""
_LEEWAY_MS = 500
"""A witness's client has the same time limit and says more about what went wrong, so it may be the first to give up."""


class WitnessClient(Protocol):
    """One remote witness."""

    async def add_checkpoint(self, *, old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        """The lines it answers, unverified. Raises OldSizeError where it builds on another size, else RemoteError."""

    async def latest(self, origin: str) -> bytes | None:
        """The note it cosigned last, None if it says there is none. Raises RemoteError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A witness's URL, and the policy's entries for it: one for each of its keys."""

    url: str
    witnesses: tuple[PolicyWitness, ...]
    client: WitnessClient

    @property
    def name(self) -> str:
        """The witness's own name, as in its keys."""
        return self.witnesses[0].vkey.name


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessStatus:
    """What is known of a witness: the size it cosigned last, when it last did so (ms since the epoch), and what was wrong with
    its last answer, if anything. `ahead` is the size it stated that this log never signed, if it did."""

    name: str
    url: str
    cosigned_size: int | None = None
    cosigned_at_ms: int | None = None
    failure: str | None = None
    ahead: int | None = None


class Witnesses:
    """All witnesses of a publication policy. Outlives the log's store being opened anew. Belongs to the event loop's thread."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        policy: Policy,
        origin: str,
        own: Callable[[], Sequence[Verifier]],
        now_ms: Callable[[], int],
        verifying: Executor,
        settings: WitnessingSettings,
        metrics: LogMetrics,
    ) -> None:
        """`own` gives all keys this log ever signed with: what a witness shows as signed by one of them, this log signed."""
        self.policy = policy
        self.settings = settings
        self._policies = verified_under(policy)
        self._origin = origin
        self.own = own
        self._now_ms = now_ms
        self._verifying = verifying
        self._metrics = metrics
        self._signed_size = 0
        self._newest: Round | None = None
        self.held: HeldError | None = None
        """Why the log must not sign any more, once a witness has shown that it signed more than it knows of."""
        self._askers = [_Asker(endpoint, self) for endpoint in endpoints]
        self._tasks: list[asyncio.Task[None]] = []
        self.accepts: Callable[[bytes], bool] = lru_cache(maxsize=_NOTES_MAX)(self._accepts)
        """Whether a checkpoint of this log has the quorum that the policy asks for. Blocks, for some hundreds of microseconds a
        witness; what was asked about lately is remembered."""
        self.on_ahead: Callable[[str, int, bool], None] | None = None
        """Told of a rollback alarm: which witness, the size it stated, whether it is proven."""

    def begin(self, note: bytes, *, size: int, prove: Prove, root_at: RootAt, starting: bool) -> Round:
        """Offers a checkpoint to every witness. Those still busy with an older one take it next. `starting`: see Round."""
        self._signed_size = max(self._signed_size, size)
        endpoints = len(self._askers)
        started = Round(
            note,
            size=size,
            policy=self.policy,
            endpoints=endpoints,
            prove=prove,
            root_at=root_at,
            starting=starting,
        )
        self._newest = started
        if not self._tasks:
            self._tasks = [asyncio.create_task(asker.run(), name=f"witness {asker.status.name}") for asker in self._askers]
        for asker in self._askers:
            asker.offer(started)
        return started

    def free_at_s(self) -> float:
        """When, by the event loop's clock, as many witnesses may be asked as make a quorum: what is signed before that grows
        old while it waits. One that is being asked counts as if it answered well."""
        free = sorted((asker.free_at_s, asker.names) for asker in self._askers)
        names: list[str] = []
        for at_s, more in free:
            names += more
            if all(has_quorum(policy, names) for policy in self._policies):
                return at_s
        return 0.0

    def require_sound(self) -> None:
        """Raises `held`, if there is one."""
        if self.held is not None:
            raise self.held

    def status(self) -> list[WitnessStatus]:
        """What is known of each witness."""
        return [asker.status for asker in self._askers]

    def _accepts(self, note: bytes) -> bool:
        try:
            lines = verified_lines(parse_note(note), self.policy.witnesses.values())
        except (MalformedError, SignatureError):
            return False
        return all(has_quorum(policy, lines) for policy in self._policies)

    async def stop(self) -> None:
        """Breaks off whatever is asked. May be called again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def cosigned(self, asker: "_Asker", offered: Round, answer: Sequence[Signature]) -> bool:
        """Takes what verifies of an answer: whether that is a line of each of its keys. Raises SignatureError where nothing
        does."""
        note = Note(text=offered.text, signatures=tuple(answer))
        loop = asyncio.get_running_loop()
        entries = asker.endpoint.witnesses
        lines = await loop.run_in_executor(self._verifying, verified_lines, note, entries)
        latest_s = self._now_ms() // 1000 + self.settings.future_s_max
        good = {}
        for entry in entries:
            if entry.name in lines:
                time_s = signature_time(entry.vkey, lines[entry.name].payload)
                if time_s is not None and time_s <= latest_s:
                    good[entry.name] = lines[entry.name]
        if good:
            offered.take(good)
        elif lines:
            raise SignatureError("its cosignature states no time, or one in the future", code="witness-time")
        else:
            raise SignatureError("its answer has no line of a key that the policy lists", code="witness-no-line")
        return len(good) == len(entries)

    async def ahead(self, asker: "_Asker", offered: Round, size: int) -> None:
        """A witness states that this log signed more than it knows of."""
        if size <= self._signed_size:
            return
        name, starting = asker.status.name, offered.starting
        if starting:  # its round may be over before what it shows is here
            self._hold(offered, self._said_ahead(name, size, proven=False), code="witness-ahead", ends=False)
        proven = await self._is_proven(asker)
        self._metrics.witness_alarms.labels(name).inc()
        now_s = asyncio.get_running_loop().time()
        is_news = asker.status.ahead != size and now_s >= asker.quiet_until_s
        asker.status = replace(asker.status, ahead=size)
        if is_news or (proven and self.held is None):
            asker.quiet_until_s = now_s + _ALARM_QUIET_S
            _logger.critical(
                "a witness states more than this log ever signed",
                witness=name,
                size=size,
                signed_size=self._signed_size,
                proven=proven,
            )
            if self.on_ahead is not None:
                self.on_ahead(name, size, proven)
        if proven or starting:
            self._hold(offered, self._said_ahead(name, size, proven=proven), code="witness-ahead")

    def _said_ahead(self, name: str, size: int, *, proven: bool) -> str:
        shown = "shows a checkpoint that this log's keys signed" if proven else "states that it cosigned a checkpoint"
        return f"the witness {name} {shown}, of size {size}, but this log knows of {self._signed_size} only"

    async def look_for_fork(self, asker: "_Asker", offered: Round) -> None:
        """A witness says that the checkpoint does not continue what it cosigned last. If that has this log's own signature,
        this log is not the one that it was."""
        shown = await self._shown(asker)
        if shown is None or offered.root_at is None or shown.size > offered.size:
            return
        if await offered.root_at(shown.size) != shown.root:
            self._metrics.witness_alarms.labels(asker.status.name).inc()
            self._hold(
                offered,
                f"the witness {asker.status.name} shows a checkpoint of size {shown.size} that this log's keys signed, and its "
                "tree is not the one that this log had then",
                code="witness-fork",
            )

    def _hold(self, offered: Round, detail: str, *, code: str, ends: bool = True) -> None:
        """`ends` the rounds: what a slow witness was asked for may not be the newest one."""
        self.held = HeldError(
            f"{detail}: it is an older copy, or another one runs with its keys",
            hint="find the newest store, or fill the log from a mirror. If the witness is wrong, which the other witnesses can "
            "tell, take it out of the policy file and start again",
            code=code,
        )
        for ended in {offered, self._newest or offered} if ends else ():
            ended.fail(self.held)

    async def _is_proven(self, asker: "_Asker") -> bool:
        """Whether the witness shows a larger checkpoint with a signature of this log's own."""
        shown = await self._shown(asker)
        return shown is not None and shown.size > self._signed_size

    async def _shown(self, asker: "_Asker") -> Checkpoint | None:
        """The checkpoint that the witness shows, if it has a signature of this log's own."""
        with suppress(RemoteError, MalformedError, SignatureError, TimeoutError):
            async with asyncio.timeout(self.settings.request_timeout_ms / 1000):
                note = await asker.endpoint.client.latest(self._origin)
            if note is not None:
                checkpoint = parse_checkpoint(verify_note(parse_note(note), self.own()).text)
                return checkpoint if checkpoint.origin == self._origin else None
        return None


class _Asker:
    """Asks one witness, one thing at a time, the newest first."""

    def __init__(self, endpoint: Endpoint, owner: Witnesses) -> None:
        self.endpoint = endpoint
        self.status = WitnessStatus(name=endpoint.name, url=endpoint.url)
        self._owner = owner
        self._offered: Round | None = None
        self._wake = asyncio.Event()
        self._size = 0
        self.quiet_until_s = 0.0
        """Until when it makes no new alarm, by the event loop's clock."""
        self.names = [witness.name for witness in endpoint.witnesses]
        self.free_at_s = 0.0
        """When it may be asked again, by the event loop's clock."""
        self._backoff_ms = 0
        self._asked_at_s = 0.0

    def offer(self, offered: Round) -> None:
        """The checkpoint to ask for next."""
        self._offered = offered
        self._wake.set()

    async def run(self) -> None:
        """Asks until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            asked: Round | None = None
            while self._offered is not None:
                await asyncio.sleep(max(0.0, self.free_at_s - asyncio.get_running_loop().time()))
                offered = self._offered
                if offered.withdrawn:
                    self._offered = None
                    continue
                good = await self._ask_once(offered)
                if offered is not asked:
                    offered.answered()
                asked = offered
                if good and offered is self._offered:
                    self._offered = None

    async def _ask_once(self, offered: Round) -> bool:
        """Whether it cosigned. Takes down when it may be asked again."""
        self._asked_at_s = asyncio.get_running_loop().time()
        interval_ms = self._owner.settings.min_interval_ms
        self.free_at_s = self._asked_at_s + interval_ms / 1000
        try:
            return await self._ask(offered)
        finally:
            self.free_at_s = self._asked_at_s + max(interval_ms, self._backoff_ms) / 1000

    async def _ask(self, offered: Round) -> bool:
        """Whether it cosigned."""
        owner, metrics = self._owner, self._owner._metrics
        failure, wait_ms, is_whole = None, None, False
        try:
            with metrics.witness_seconds.time():
                is_whole = await self._exchange(offered)
        except TimeoutError:
            failure = "witness-timeout"
        except TranslogError as error:
            if error is offered.error:  # our own store's, no fault of the witness; or the log is held
                self._backoff_ms = _BACKOFF_MS_FIRST
                return False
            failure, wait_ms = error.code, getattr(error, "retry_after_ms", None)
            if self.status.failure != failure:
                _logger.warning(
                    "a witness did not cosign", witness=self.status.name, code=failure, detail=printable(str(error))
                )
        except Exception as error:  # an adapter's defect must not end the asking
            failure = "witness-defect"
            _logger.error("asking a witness failed unexpectedly", witness=self.status.name, error=repr(error))
        if failure is None:
            self._backoff_ms = 0
            if not is_whole:  # kept, but who lists the other key only does not count this witness
                failure = "witness-no-line"
                metrics.witness_failures.labels(self.status.name, failure).inc()
            self.status = replace(
                self.status, cosigned_size=offered.size, cosigned_at_ms=owner._now_ms(), failure=failure, ahead=None
            )
            metrics.witness_cosigned_size.labels(self.status.name).set(offered.size)
            return True
        self._backoff_ms = min(max(wait_ms or 0, 2 * self._backoff_ms, _BACKOFF_MS_FIRST), owner.settings.backoff_ms_max)
        self.status = replace(self.status, failure=failure)
        metrics.witness_failures.labels(self.status.name, failure).inc()
        return False

    async def _exchange(self, offered: Round) -> bool:
        """Asks; where the witness refuses the tree, looks at what it has instead. Whether it cosigned with all its keys."""
        try:
            answer = await self._ask_from_its_size(offered)
        except RemoteError as error:
            if error.status in _CONTRADICTIONS:
                await self._owner.look_for_fork(self, offered)
            raise
        is_whole = await self._owner.cosigned(self, offered, answer)
        self._size = offered.size
        return is_whole

    async def _ask_from_its_size(self, offered: Round) -> Sequence[Signature]:
        """Asks once, and once more from another size if the witness names one."""
        try:
            return await self._request(offered)
        except OldSizeError as error:
            stated = error.size
            if stated > offered.size:
                await self._owner.ahead(self, offered, stated)
            if stated > offered.size or stated == self._size:
                raise
            self._size = stated
            return await self._request(offered)

    async def _request(self, offered: Round) -> Sequence[Signature]:
        old = self._size if self._size <= offered.size else 0
        proof = await self._prove(offered, old) if 0 < old < offered.size else ()
        self._asked_at_s = asyncio.get_running_loop().time()
        async with asyncio.timeout((self._owner.settings.request_timeout_ms + _LEEWAY_MS) / 1000):
            return await self.endpoint.client.add_checkpoint(old=old, proof=proof, note=offered.note_sent)

    async def _prove(self, offered: Round, old: int) -> Sequence[bytes]:
        try:
            return await offered.prove(old)
        except TranslogError as error:  # of our own store: no fault of the witness
            offered.fail(error)
            raise
