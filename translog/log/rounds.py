"""A round of witnessing: one signed checkpoint, offered to every witness of the publication policy.

Rules: only lines of the policy's keys that verify over this checkpoint get in; there is a quorum once there is one for all
who verify under the policy, whichever key of a witness they list. https://c2sp.org/tlog-policy
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from translog.core.cosignature import KeyVerifier
from translog.core.note import Note, Signature, format_note, parse_note
from translog.core.policy import Policy, PolicyWitness, restrict_policy
from translog.core.quorum import has_quorum
from translog.errors import SignatureError, TranslogError

Prove = Callable[[int], Awaitable[Sequence[bytes]]]
"""The consistency proof from an older size, above 0, to the checkpoint's."""
RootAt = Callable[[int], Awaitable[bytes]]
"""The root of the checkpoint's tree when it had that size."""


class Round:
    """One signed checkpoint on its way to all witnesses."""

    def __init__(
        self,
        note: bytes,
        *,
        size: int,
        policy: Policy,
        endpoints: int,
        prove: Prove,
        root_at: RootAt | None = None,
        starting: bool = False,
    ) -> None:
        """`starting` for the first round of a process: until it is over, whatever a witness states of larger sizes counts."""
        self.note_sent = note
        self.size = size
        self.prove = prove
        self.root_at = root_at
        self.starting = starting
        self._parsed = parse_note(note)
        self._policy = policy
        self._policies = verified_under(policy)
        self._left = endpoints
        self._lines: dict[str, Signature] = {}
        self.error: TranslogError | None = None
        """What ended the round."""
        self._changed = asyncio.Event()
        self.withdrawn = False
        """Whether it was given up: nobody is asked for it any more."""
        self.late: Callable[[], None] | None = None
        """Called for each line that comes once the round is over, and when what it is about must not stand."""

    @property
    def text(self) -> str:
        """What is signed."""
        return self._parsed.text

    @property
    def note(self) -> bytes:
        """The checkpoint with the lines that have come by now, in the policy's order."""
        lines = [self._lines[name] for name in self._policy.witnesses if name in self._lines]
        return format_note(self._parsed.text, [*self._parsed.signatures, *lines])

    @property
    def has_quorum(self) -> bool:
        """Whether the policy is satisfied."""
        return all(has_quorum(policy, self._lines) for policy in self._policies)

    def take(self, lines: dict[str, Signature]) -> None:
        """Verified lines, by the policy's names."""
        new = lines.keys() - self._lines.keys()
        self._lines.update(lines)
        self._changed.set()
        if new and self.late is not None:
            self.late()

    def answered(self) -> None:
        """Another witness has answered, for better or worse."""
        self._left -= 1
        self._changed.set()

    def fail(self, error: TranslogError) -> None:
        """Ends the round: `wait` raises this."""
        self.error = error
        self._changed.set()
        if self.late is not None:
            self.late()

    async def wait(self, *, timeout_ms: int, all_asked: bool) -> bool:
        """Whether there is a quorum, as soon as there is (with `all_asked`, once every witness has answered once), or when the
        time is over. Raises what ended the round."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                while self.error is None and not (self._left <= 0 if all_asked else self.has_quorum):
                    self._changed.clear()
                    await self._changed.wait()
        self.starting = False
        if self.error is not None:
            raise self.error
        return self.has_quorum


def verified_under(policy: Policy) -> tuple[Policy, Policy]:
    """What people verify under who go by this policy: of a witness with two keys they list one, the ML-DSA-44 one or the other.
    A checkpoint must do for all of them."""
    return restrict_policy(policy, classic=False), restrict_policy(policy, classic=True)


def verified_lines(note: Note, entries: Iterable[PolicyWitness]) -> dict[str, Signature]:
    """The lines of these witnesses that verify, by the policy's names; one that does not verify is as good as none."""
    found: dict[str, Signature] = {}
    for entry in entries:
        for line in note.signatures:
            if (line.name, line.key_id) == (entry.vkey.name, entry.vkey.key_id) and entry.name not in found:
                with suppress(SignatureError):
                    KeyVerifier(entry.vkey).verify(note.text, line.payload)
                    found[entry.name] = line
    return found
