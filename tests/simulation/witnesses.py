"""The witnesses of a run: honest ones, which are the real thing over a disk that survives crashes, and liars.

Rules: an honest witness is two processes on one disk, whose requests may interleave wherever the disk is touched; it crashes
before a write, after it, or between write and answer. A liar has the keys of its number and no scruples: for a dishonest
operator it signs anything, to an honest log it lies in ways of its own. Nobody has another witness's keys.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from simulation.network import Network
from simulation.policies import witness_keys, witness_name, witness_signers
from simulation.virtual import NodeClock
from translog.core.checkpoint import parse_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.note import Signature, format_signature, parse_note
from translog.errors import (
    ConsistencyError,
    MalformedError,
    NotFoundError,
    OldSizeError,
    PushbackError,
    RateLimitedError,
    RemoteError,
    SignatureError,
    StorageError,
    TranslogError,
    VerificationError,
)
from translog.witness.protocol import (
    SIZE_MEDIA,
    AddCheckpoint,
    Cosigned,
    format_add_checkpoint,
    format_cosignatures,
    format_size,
    origin_hash,
    parse_add_checkpoint,
    parse_cosignatures,
    parse_size,
)
from translog.witness.service import Witness
from translog.witness.store import KnownLog, WitnessStore

ADD = b"POST /add-checkpoint\n"
LATEST = b"GET /"


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back over HTTP."""

    status: int
    body: bytes = b""
    media: str = ""
    retry_after_ms: int | None = None


Web = Network[Answer]


class CrashError(Exception):
    """The machine stops here."""


@dataclass(slots=True)
class WitnessDisk:
    """What a power cut leaves."""

    name: str
    logs: dict[str, KnownLog] = field(default_factory=dict)
    cosigned: dict[str, Cosigned] = field(default_factory=dict)


class MemoryWitnessStore(WitnessStore):
    """The state of a witness on such a disk."""

    def __init__(
        self,
        disk: WitnessDisk,
        *,
        after_read: Callable[[str], None],
        before_write: Callable[[str], None],
        after_write: Callable[[], None],
    ) -> None:
        self.name = disk.name
        self.vkeys = ()
        self._disk = disk
        self._after_read = after_read
        self._before_write = before_write
        self._after_write = after_write

    def close(self) -> None:
        """Nothing is open."""

    def find_log(self, origin: str) -> KnownLog | None:
        return self._disk.logs.get(origin)

    def logs(self, *, polled: bool = False) -> list[KnownLog]:
        return [log for log in self._disk.logs.values() if log.poll_url or not polled]

    def find_cosigned(self, origin: str) -> Cosigned | None:
        found = self._disk.cosigned.get(origin)
        self._after_read(origin)
        return found

    def find_by_hash(self, hex_hash: str) -> Cosigned | None:
        return next((found for origin, found in self._disk.cosigned.items() if origin_hash(origin) == hex_hash), None)

    def update(self, origin: str, *, old: int, new: Cosigned) -> None:
        self._before_write(origin)
        stored = self._disk.cosigned.get(origin)
        known = stored.size if stored else 0
        if old != known or (stored is not None and new.time_s < stored.time_s):
            raise OldSizeError(f"the last checkpoint cosigned is of size {known} by now", size=known)
        if new.size < known or (stored is not None and new.size == known and new.root != stored.root):
            raise ConsistencyError("a witness takes nothing back")
        self._disk.cosigned[origin] = new
        self._after_write()


_STATUSES: list[tuple[type[TranslogError], int]] = [
    (MalformedError, 400),
    (SignatureError, 403),
    (NotFoundError, 404),
    (VerificationError, 422),
    (RateLimitedError, 429),
    (PushbackError, 503),
    (StorageError, 503),
    (TranslogError, 403),
]


def answer_to(work: Callable[[], bytes]) -> Answer:
    """The HTTP answer to a request."""
    try:
        return Answer(200, work())
    except OldSizeError as error:
        return Answer(409, format_size(error.size), SIZE_MEDIA)
    except TranslogError as error:
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        return Answer(status, error.detail.encode(), retry_after_ms=getattr(error, "retry_after_ms", None))


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that has arrived and is not served yet."""

    source: str
    request: bytes
    answer: Callable[[Answer], None]


class HonestWitness:
    """One machine with two processes."""

    def __init__(self, number: int, *, web: Web, random: Random, clock: NodeClock, logs: Sequence[KnownLog]) -> None:
        self.number = number
        self.name = witness_name(number)
        self.disk = WitnessDisk(name=self.name, logs={log.origin: log for log in logs})
        self.clock = clock
        self.up = True
        self.crash_next: Literal["", "before", "after", "answered"] = ""
        self.released: list[tuple[str, int, bytes]] = []
        """Origin, size and root of everything it ever cosigned for anybody."""
        self.held_back = 0.0
        """How likely a request waits for the next one, to be served in the midst of it."""
        self._random = random
        self._waiting: list[_Waiting] = []
        self._boot()
        web.serve(self.name, self.serve)

    def _boot(self) -> None:
        def make() -> Witness:
            store = MemoryWitnessStore(
                self.disk,
                after_read=self._let_others_in,
                before_write=self._before_write,
                after_write=self._after_write,
            )
            return Witness(store=store, signers=witness_signers(self.number), now_ms=self.clock.wall_ms)

        self._processes = [make(), make()]

    def restart(self) -> None:
        """Up again, with nothing but the disk."""
        if not self.up:
            self.up, self.crash_next = True, ""
            self._boot()

    def crash(self) -> None:
        """Down; who asked hears nothing."""
        self.up = False
        self._waiting.clear()

    def serve(self, source: str, request: bytes, answer: Callable[[Answer], None]) -> None:
        """See Network."""
        if not self.up:
            return
        arrived = _Waiting(source, request, answer)
        if self._random.random() < self.held_back:
            self._waiting.append(arrived)
            asyncio.get_running_loop().call_later(self._random.uniform(0, 2), self._serve_waiting, arrived)
        else:
            self._serve(arrived, self._processes[0])

    def _serve_waiting(self, arrived: _Waiting) -> None:
        if any(waiting is arrived for waiting in self._waiting):
            self._waiting = [waiting for waiting in self._waiting if waiting is not arrived]
            self._serve(arrived, self._processes[0])

    def _serve(self, arrived: _Waiting, process: Witness) -> None:
        request = arrived.request
        try:
            if request.startswith(ADD):
                reply = answer_to(lambda: process.add_checkpoint(request.removeprefix(ADD), peer=arrived.source))
                if reply.status == 200:
                    self._note_released(request)
            else:
                reply = answer_to(lambda: process.latest(request.removeprefix(LATEST).decode()))
        except CrashError:
            self.crash()
            return
        if not self.up or self.crash_next == "answered":
            self.crash()
            return
        arrived.answer(reply)

    def _note_released(self, request: bytes) -> None:
        checkpoint = parse_checkpoint(parse_note(parse_add_checkpoint(request.removeprefix(ADD)).note).text)
        self.released.append((checkpoint.origin, checkpoint.size, checkpoint.root))
        stored = self.disk.cosigned[checkpoint.origin]
        assert stored.size >= checkpoint.size, "answered before it was on disk"

    def _let_others_in(self, origin: str) -> None:
        """The other process may take a request of the same log while this one is in the midst of one."""
        rivals = [waiting for waiting in self._waiting if b"\n%s\n" % origin.encode() in waiting.request]
        if rivals and self._random.random() < 0.5:
            self._waiting = [waiting for waiting in self._waiting if waiting is not rivals[0]]
            self._serve(rivals[0], self._processes[1])
        if not self.up:
            raise CrashError

    def _before_write(self, origin: str) -> None:
        self._let_others_in(origin)
        if self.crash_next == "before":
            raise CrashError

    def _after_write(self) -> None:
        if self.crash_next == "after":
            raise CrashError


Lie = Literal[
    "cosign", "silence", "refuse", "garbage", "empty", "huge size", "near size", "small size", "late", "other text",
    "forged", "replay", "future", "no time", "pushback",
]  # fmt: skip
LIES: tuple[Lie, ...] = Lie.__args__  # type: ignore[attr-defined]
SIZE_LIES: tuple[Lie, ...] = ("huge size", "near size")


class Liar:
    """A dishonest witness, as honest logs see it."""

    def __init__(self, number: int, *, web: Web, random: Random, clock: NodeClock) -> None:
        self.number = number
        self.name = witness_name(number)
        self.clock = clock
        self.lies = random.sample(LIES, random.randint(1, 4))
        self.may_state_sizes: Callable[[], bool] = lambda: True
        self.told: list[Lie] = []
        self._random = random
        self._signers = [KeySigner(skey) for skey in witness_keys(number).values()]
        self._seen: list[bytes] = []
        web.serve(self.name, self.serve)

    def sign(self, text: str, *, time_s: int) -> list[Signature]:
        """Anything, for anybody."""
        return [
            Signature(name=signer.name, key_id=signer.key_id, payload=signer.sign(text, time_s=time_s))
            for signer in self._signers
        ]

    def serve(self, source: str, request: bytes, answer: Callable[[Answer], None]) -> None:
        """See Network."""
        random, loop = self._random, asyncio.get_running_loop()
        if not request.startswith(ADD):
            answer(self._latest())
            return
        try:
            asked = parse_add_checkpoint(request.removeprefix(ADD))
        except MalformedError:
            answer(Answer(400))
            return
        self._seen.append(asked.note)
        for lie in random.choices(self.lies, k=2 if random.random() < 0.1 else 1):
            if lie in SIZE_LIES and not self.may_state_sizes():
                continue
            self.told.append(lie)
            if lie != "silence":
                loop.call_later(random.uniform(3, 30) if lie == "late" else 0, answer, self._lie(lie, asked))

    def _latest(self) -> Answer:
        """The newest note it was ever sent, an older one, or one that no log has signed."""
        random = self._random
        if not self._seen or random.random() < 0.2:
            return Answer(random.choice([404, 500]), b"\xff")
        note = random.choice(self._seen)
        if random.random() < 0.5:
            checkpoint = parse_checkpoint(parse_note(note).text)
            text = f"{checkpoint.origin}\n{checkpoint.size + 1_000}\n{'A' * 43}=\n"
            lines = [*parse_note(note).signatures, *self.sign(text, time_s=1)]
            note = (text + "\n" + "".join(map(format_signature, lines))).encode()
        return Answer(200, note)

    def _lie(self, lie: Lie, asked: AddCheckpoint) -> Answer:
        random = self._random
        text = parse_note(asked.note).text
        now_s = self.clock.wall_ms() // 1000
        size = parse_checkpoint(text).size
        lines = self.sign(text, time_s=now_s)
        match lie:
            case "refuse":
                return Answer(random.choice([400, 403, 404, 422, 500, 302, 409]), b"no")
            case "garbage":
                return Answer(200, random.choice([random.randbytes(100), b"\xe2\x80\x94 x y\n", b"A" * 70_000]))
            case "empty":
                return Answer(200)
            case "huge size":
                return Answer(409, format_size(random.choice([size + 1, 10**6, 2**63 - 1])), SIZE_MEDIA)
            case "near size":
                return Answer(409, format_size(max(0, size + random.randint(-3, 3))), SIZE_MEDIA)
            case "small size":
                return Answer(409, format_size(random.randrange(size + 1)), SIZE_MEDIA)
            case "other text":
                lines = self.sign(text.replace(text.split("\n")[0], "other.example"), time_s=now_s)
            case "forged":  # another witness's line, made up
                victim = witness_signers(self.number % 5 + 1)[0]
                lines = [replace(line, name=victim.name, key_id=victim.key_id) for line in lines]
            case "replay":
                lines = [replace(line, payload=line.payload[:-1] + b"\0") for line in lines]
                older = random.choice(self._seen)
                lines += self.sign(parse_note(older).text, time_s=now_s)
            case "future":
                lines = self.sign(text, time_s=now_s + 10**6)
            case "no time":
                lines = [replace(line, payload=bytes(8) + line.payload[8:]) for line in lines]
            case "pushback":
                return Answer(429, retry_after_ms=10**9)
            case _:
                pass
        return Answer(200, format_cosignatures(lines))


class WebWitness:
    """A log's client of a witness, over the network of the run. See log.witnesses.WitnessClient."""

    def __init__(
        self, number: int, *, web: Web, source: str, timeout_ms: int, alive: Callable[[], bool] = lambda: True
    ) -> None:
        self._name = witness_name(number)
        self._alive = alive
        self._web = web
        self._source = source
        self._timeout_ms = timeout_ms

    async def add_checkpoint(self, *, old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        """As client.witness.RemoteWitness takes answers."""
        request = ADD + format_add_checkpoint(AddCheckpoint(old=old, proof=tuple(proof), note=note))
        answer = await self._exchange(request)
        try:
            if answer.status == 200:
                return parse_cosignatures(answer.body)
            if answer.status == 409 and answer.media == SIZE_MEDIA and (size := parse_size(answer.body)) != old:
                raise OldSizeError("the witness has another size", size=size)
        except MalformedError as error:
            raise RemoteError(error.detail, status=answer.status, code="witness-answer") from None
        raise RemoteError(
            "it did not cosign", status=answer.status, code="witness-refused", retry_after_ms=answer.retry_after_ms
        )

    async def latest(self, origin: str) -> bytes | None:
        """The same."""
        answer = await self._exchange(LATEST + origin_hash(origin).encode())
        if answer.status == 200:
            return answer.body
        if answer.status == 404:
            return None
        raise RemoteError("it did not tell", status=answer.status, code="witness-failed")

    async def _exchange(self, request: bytes) -> Answer:
        if not self._alive():
            await asyncio.sleep(0.001)
            raise RemoteError("this process is gone", code="witness-unreachable")
        answer = await self._web.ask(self._source, self._name, request, timeout_ms=self._timeout_ms)
        if answer is None:
            raise RemoteError("no answer in time", code="witness-no-answer")
        return answer
