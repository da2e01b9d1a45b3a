"""Requests to witnesses, prepared beforehand: checkpoints of real trees, signed, with proofs that lead from one to the next.

Rules: logs differ in name and keys only, and share one tree; a request can be made once, since the next builds on it.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.load import Connection, Load, percentile
from benchmarks.processes import Server
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.integrate import EMPTY_EDGE, integrate
from translog.core.keys import SKey, VKey
from translog.core.merkle import prove_consistency, prove_inclusion
from translog.core.note import sign_note
from translog.core.tile import Tile, TileReader
from translog.witness.protocol import AddCheckpoint, format_add_checkpoint

PATH = "/add-checkpoint"
_BATCH_ENTRIES = 50_000


class GrowingTree:
    """A tree in memory, whose entries are their indexes as text."""

    def __init__(self) -> None:
        self._edge = EMPTY_EDGE
        self._tiles: dict[Tile, bytes] = {}

    @property
    def size(self) -> int:
        """Entries."""
        return self._edge.size

    @property
    def root(self) -> bytes:
        """Root hash."""
        return self._edge.root

    def grow(self, size: int) -> None:
        """Adds entries until there are `size`."""
        while self.size < size:
            entries = [b"%d" % index for index in range(self.size, min(size, self.size + _BATCH_ENTRIES))]
            done = integrate(self._edge, entries)
            self._edge = done.edge
            self._tiles |= done.tiles

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        """See TileSource."""
        return [self._tiles[tile] for tile in tiles]

    def prove_from(self, old: int) -> tuple[bytes, ...]:
        """The consistency proof from a smaller size; none from 0."""
        return tuple(prove_consistency(old=old, new=self.size, reader=self._reader())) if old else ()

    def prove_entry(self, index: int) -> tuple[bytes, ...]:
        """The inclusion proof of an entry."""
        return tuple(prove_inclusion(index=index, size=self.size, reader=self._reader()))

    def _reader(self) -> TileReader:
        return TileReader(self, size=self.size, root=self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How a tree grew: from a size, by a proof, to a size and root."""

    old: int
    proof: tuple[bytes, ...]
    size: int
    root: bytes


def grow_steps(*, first: int, count: int, entries: int = 7) -> list[Step]:
    """A tree that is of size `first` after the first step, and grows by `entries` with each of the others; `count` in all."""
    tree, steps = GrowingTree(), []
    for number in range(count):
        old = tree.size
        tree.grow(first + number * entries)
        steps.append(Step(old=old, proof=tree.prove_from(old), size=tree.size, root=tree.root))
    return steps


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedLog:
    """A log by its keys, whose name is its origin."""

    skeys: tuple[SKey, ...]

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        """Its public keys."""
        return tuple(skey.vkey for skey in self.skeys)

    def note(self, size: int, root: bytes) -> bytes:
        """A checkpoint, signed with all keys."""
        text = format_checkpoint(Checkpoint(origin=self.skeys[0].name, size=size, root=root))
        return sign_note(text, [KeySigner(skey) for skey in self.skeys], time_s=int(time.time()))

    def request(self, step: Step) -> bytes:
        """The body that asks to cosign where the step leads."""
        note = self.note(step.size, step.root)
        return format_add_checkpoint(AddCheckpoint(old=step.old, proof=step.proof, note=note))


def ask_load(server: Server, queues: Sequence[Sequence[bytes]], *, cpu_of: Sequence[Server] = ()) -> Load:
    """Asks a witness to cosign, each queue over a connection of its own, one request after the other. `cpu_of` are processes
    whose time counts too. Raises RuntimeError for any answer that is not 200."""
    waits: list[float] = []
    errors: list[Exception] = []

    def ask(connection: Connection, queue: Sequence[bytes]) -> None:
        try:
            waits.extend([connection.request("POST", PATH, body) for body in queue])
        except Exception as error:
            errors.append(error)

    counted = (server, *cpu_of)
    with ExitStack() as stack:
        connections = [stack.enter_context(Connection(server)) for _ in queues]
        threads = [threading.Thread(target=ask, args=pair) for pair in zip(connections, queues, strict=True)]
        before, begin = sum(one.cpu_s() for one in counted), time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds, cpu_s = time.perf_counter() - begin, sum(one.cpu_s() for one in counted) - before
    if errors:
        raise errors[0]
    return Load(requests=len(waits), seconds=seconds, cpu_s=cpu_s, p99_ms=1e3 * percentile(waits, 0.99))


def ask_together(servers: Sequence[Server], bodies: Sequence[bytes], *, wanted: int) -> list[float]:
    """Sends each body to all witnesses at once: the seconds until `wanted` of them have answered. Raises RuntimeError for any
    answer that is not 200."""
    return asyncio.run(_ask_together(servers, bodies, wanted))


async def _ask_together(servers: Sequence[Server], bodies: Sequence[bytes], wanted: int) -> list[float]:
    streams = [await asyncio.open_connection(*server.address) for server in servers]
    waits = []
    try:
        for body in bodies:
            head = f"POST {PATH} HTTP/1.1\r\nHost: witness\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            begin = time.perf_counter()
            for _, writer in streams:
                writer.write(head + body)
            answers = asyncio.as_completed([_read_answer(reader) for reader, _ in streams])
            for number, answer in enumerate(answers, 1):
                await answer
                if number == wanted:
                    waits.append(time.perf_counter() - begin)
    finally:
        for _, writer in streams:
            writer.close()
    return waits


async def _read_answer(reader: asyncio.StreamReader) -> None:
    lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    if b" 200 " not in lines[0] + b" ":
        raise RuntimeError(f"answered {lines[0].decode()}")
    await reader.readexactly(next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")))
