"""Witnesses in this process, honest ones and others, and what a log needs to ask them.

Rules: an honest one does what tlog-witness asks, by core's functions and in ten lines of its own, not by the package's witness;
a test changes its `answer` to make it anything else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from log.harness import ORIGIN, SKEY, FakeClock
from translog.core.checkpoint import parse_checkpoint
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType, SKey
from translog.core.merkle import EMPTY_ROOT, verify_consistency
from translog.core.note import Signature, open_note, sign_note
from translog.core.policy import Policy, PolicyWitness, parse_policy
from translog.errors import OldSizeError, RemoteError
from translog.log.metrics import LogMetrics
from translog.log.settings import WitnessingSettings
from translog.log.witnesses import Endpoint, Witnesses

Answer = Callable[[int, Sequence[bytes], bytes], Awaitable[tuple[Signature, ...]]]


class FakeWitness:
    """A witness with an Ed25519 cosignature key, and with `mldsa` an ML-DSA-44 one beside it."""

    def __init__(self, number: int, clock: FakeClock, *, mldsa: bool = False) -> None:
        name = f"w{number}.example/w"
        types = [KeyType.COSIGNATURE_ED25519, *([KeyType.COSIGNATURE_MLDSA44] if mldsa else [])]
        self.skeys = [SKey(name=name, type=kind, seed=bytes([number]) * 32) for kind in types]
        self.name = f"w{number}"
        self.clock = clock
        self.size = 0
        self.root = EMPTY_ROOT
        self.note: bytes | None = None
        self.asked: list[tuple[int, int]] = []
        self.asked_at_s: list[float] = []
        self.under_way = 0
        self.answer: Answer = self.honest

    @property
    def lines(self) -> str:
        """Its lines in a policy."""
        return "".join(f"witness {self.name}{'ab'[n]} {key.vkey} http://{self.name}\n" for n, key in enumerate(self.skeys))

    @property
    def policy_names(self) -> list[str]:
        return [f"{self.name}{'ab'[n]}" for n, _ in enumerate(self.skeys)]

    async def add_checkpoint(self, *, old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        assert not self.under_way, "two requests at once"
        self.under_way += 1
        self.asked.append((old, parse_checkpoint(open_note(note, [KeyVerifier(SKEY.vkey)]).text).size))
        self.asked_at_s.append(asyncio.get_running_loop().time())
        try:
            return await self.answer(old, proof, note)
        finally:
            self.under_way -= 1

    async def honest(self, old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        text = open_note(note, [KeyVerifier(SKEY.vkey)]).text
        head = parse_checkpoint(text)
        if old != self.size:
            raise OldSizeError("another size", size=self.size)
        if old:
            if old == head.size:
                assert (head.root, list(proof)) == (self.root, [])
            else:
                verify_consistency(old=old, old_root=self.root, new=head.size, new_root=head.root, proof=proof)
        self.size, self.root = head.size, head.root
        return self.sign(text)

    def sign(self, text: str, *, time_s: int | None = None) -> tuple[Signature, ...]:
        at_s = self.clock.wall // 1000 if time_s is None else time_s
        return tuple(
            Signature(name=key.name, key_id=key.vkey.key_id, payload=KeySigner(key).sign(text, time_s=at_s))
            for key in self.skeys
        )

    async def latest(self, origin: str) -> bytes | None:
        assert origin == ORIGIN
        return self.note


async def never(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
    """A witness that hangs."""
    await asyncio.Event().wait()
    raise AssertionError


async def dead(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
    """A witness that is not there."""
    raise RemoteError("cannot reach it", code="remote")


def stating(size: int) -> Answer:
    """A witness that answers 409 with that size, whatever it is asked."""

    async def answer(old: int, proof: Sequence[bytes], note: bytes) -> tuple[Signature, ...]:
        raise OldSizeError("another size", size=size)

    return answer


def policy_of(witnesses: Sequence[FakeWitness], quorum: int, *, log: bool = False) -> Policy:
    """So many of the witnesses; one with two keys counts once."""
    lines = [f"log {SKEY.vkey}\n"] if log else []
    members = []
    for witness in witnesses:
        lines.append(witness.lines)
        names = witness.policy_names
        if len(names) > 1:
            lines.append(f"group {witness.name} any {' '.join(names)}\n")
        members.append(names[0] if len(names) == 1 else witness.name)
    lines += [f"group q {quorum} {' '.join(members)}\n", "quorum q\n"]
    return parse_policy("".join(lines).encode())


def witnesses_of(
    fakes: Sequence[FakeWitness], quorum: int, clock: FakeClock, settings: WitnessingSettings, metrics: LogMetrics | None = None
) -> tuple[Witnesses, ThreadPoolExecutor]:
    """The log's side of asking them, and the executor to shut down."""
    policy = policy_of(fakes, quorum)
    executor = ThreadPoolExecutor(1)
    return Witnesses(
        [
            Endpoint(
                url=f"http://{fake.name}",
                witnesses=tuple(_entry(policy, name) for name in fake.policy_names),
                client=fake,
            )
            for fake in fakes
        ],
        policy=policy,
        origin=ORIGIN,
        own=lambda: [KeyVerifier(SKEY.vkey)],
        now_ms=clock.wall_ms,
        verifying=executor,
        settings=settings,
        metrics=metrics or LogMetrics(),
    ), executor


def _entry(policy: Policy, name: str) -> PolicyWitness:
    return replace(policy.witnesses[name])


def forged_checkpoint(size: int, root: bytes) -> bytes:
    """What this log's own key says of a tree that this log does not have."""
    from translog.core.checkpoint import Checkpoint, format_checkpoint

    text = format_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=root))
    return sign_note(text, [KeySigner(SKEY)], time_s=1)
