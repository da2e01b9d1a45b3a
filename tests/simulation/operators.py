"""A dishonest operator: shows one branch of a log to some witnesses and clients, another to the others.

Rules: it holds the log's keys, reads every answer, asks again as long as it likes, and combines whatever lines it has ever got.
A fork is one log. With a division of the honest witnesses it gives each the branch meant for it, and then tries to talk it into
the other one; without one it gives everything to everybody at once, in any order.
"""

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, Literal

from simulation.network import Network
from simulation.policies import ENTRIES, Side, witness_keys, witness_name
from simulation.trees import Tree
from simulation.virtual import EPOCH_MS
from simulation.witnesses import ADD, Answer, Liar
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import KeyType, SKey
from translog.core.note import Note, Signature, format_note, parse_note, sign_note, verify_note
from translog.errors import SignatureError
from translog.witness.protocol import SIZE_MEDIA, AddCheckpoint, format_add_checkpoint, parse_cosignatures, parse_size
from translog.witness.store import KnownLog

NAME = "operator"
TIMEOUT_MS = 2_000
COMMON = 5
"""Entries before the branches part."""
SIZES = (COMMON, 7, 8)
"""Of the checkpoints of either branch; the first is of both."""
COSIGNED: Final = "cosigned"
_VERIFIERS = [KeyVerifier(skey.vkey) for number in set(ENTRIES.values()) for skey in witness_keys(number).values()]


class Fork:
    """One log with two branches."""

    def __init__(self, number: int, division: tuple[Side, Side] | None) -> None:
        self.skey = SKey(name=f"fork{number}.example", type=KeyType.ED25519, seed=bytes([100 + number]) * 32)
        self.division = division
        common = [b"%d" % n for n in range(COMMON)]
        self.branches = [Tree([*common, *(b"%s %d" % (side, n) for n in range(3))]) for side in (b"left", b"right")]
        self._signed: dict[str, Note] = {}
        self._lines: dict[str, dict[tuple[str, bytes], Signature]] = {}

    @property
    def origin(self) -> str:
        return self.skey.name

    @property
    def known(self) -> KnownLog:
        """As witnesses know it."""
        return KnownLog(origin=self.origin, vkeys=(self.skey.vkey,))

    def text(self, branch: int, size: int) -> str:
        return self.branches[branch].text(self.origin, size)

    def signed(self, text: str) -> Note:
        """With the log's own line."""
        if text not in self._signed:
            self._signed[text] = parse_note(sign_note(text, [KeySigner(self.skey)], time_s=EPOCH_MS // 1000))
        return self._signed[text]

    def take(self, text: str, lines: Sequence[Signature]) -> bool:
        """Keeps the lines that verify. Whether there is any."""
        good: list[Signature] = []
        for line in lines:
            try:
                good += verify_note(Note(text=text, signatures=(line,)), _VERIFIERS).verified
            except SignatureError:
                continue
        self._lines.setdefault(text, {}).update({(line.name, line.key_id): line for line in good})
        return bool(good)

    def notes(self) -> list[bytes]:
        """Every checkpoint it can show, each with all the lines it has."""
        return [
            format_note(text, [*self.signed(text).signatures, *lines.values()]) for text, lines in sorted(self._lines.items())
        ]


class Operator:
    """Works on its forks until each witness has cosigned what was meant for it."""

    def __init__(self, forks: Sequence[Fork], *, honest: Side, liars: Mapping[int, Liar], web: Network[Answer], random: Random):
        self.forks = forks
        self.refused = 0
        """Answers that were no cosignature."""
        self._honest = sorted(honest)
        self._liars = liars
        self._web = web
        self._random = random

    async def run(self) -> None:
        """Ends when nothing is left to try."""
        await asyncio.gather(*(self._work_on(fork) for fork in self.forks))

    async def _work_on(self, fork: Fork) -> None:
        for liar in self._liars.values():
            for text in {fork.text(branch, size): None for branch in (0, 1) for size in SIZES}:
                fork.take(text, liar.sign(text, time_s=EPOCH_MS // 1000 + self._random.randrange(100)))
        if fork.division is None:
            await asyncio.gather(*(self._offer_everything(fork, number) for number in self._honest))
        else:
            sides = {number: branch for branch, side in enumerate(fork.division) for number in side}
            await asyncio.gather(*(self._win(fork, number, sides[number]) for number in self._honest))

    async def _win(self, fork: Fork, number: int, branch: int) -> None:
        """Gets a witness to cosign one branch, whatever it takes, and asks it for the other one then."""
        stated = 0
        for size in SIZES if self._random.random() < 0.3 else SIZES[-1:]:
            while (heard := await self._ask(fork, number, branch, old=min(stated, size), size=size)) is not COSIGNED:
                assert heard != "refused", f"{witness_name(number)} refuses what it should cosign"
                stated = heard if isinstance(heard, int) else stated
            stated = size
        if self._random.random() < 0.5:
            await asyncio.gather(*(self._try(fork, number, 1 - branch, stated) for _ in range(self._random.randint(1, 2))))

    async def _offer_everything(self, fork: Fork, number: int) -> None:
        """Both branches, all sizes, at once and again."""
        for _ in range(3):
            await asyncio.gather(*(self._try(fork, number, branch, SIZES[-2]) for branch in (0, 1)))

    async def _try(self, fork: Fork, number: int, branch: int, stated: int) -> None:
        """Asks for a cosignature that it may not get, once, and once more if a size is named."""
        size = self._random.choice(SIZES[1:])
        old = min(size, self._random.choice([0, COMMON, stated, stated, size]))
        heard = await self._ask(fork, number, branch, old=old, size=size, honestly=self._random.random() < 0.7)
        if isinstance(heard, int):
            await self._ask(fork, number, branch, old=min(heard, size), size=size)

    async def _ask(
        self, fork: Fork, number: int, branch: int, *, old: int, size: int, honestly: bool = True
    ) -> int | Literal["cosigned", "refused"] | None:
        """What comes of it; the size that the witness names, if it does. None for no answer."""
        text = fork.text(branch, size)
        proof = fork.branches[branch if honestly else 1 - branch].prove(old, size)
        note = format_note(text, fork.signed(text).signatures)
        request = ADD + format_add_checkpoint(AddCheckpoint(old=old, proof=tuple(proof), note=note))
        answer = await self._web.ask(NAME, witness_name(number), request, timeout_ms=TIMEOUT_MS)
        if answer is None:
            return None
        self.refused += answer.status != 200
        if answer.media == SIZE_MEDIA:
            return parse_size(answer.body)
        return COSIGNED if answer.status == 200 and fork.take(text, parse_cosignatures(answer.body)) else "refused"
