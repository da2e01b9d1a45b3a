"""Polls logs that do not submit their checkpoints themselves, and cosigns what they show.

Rules: what was fetched goes through the same checks as any request; a log that is slow, gone or shows nonsense is left for the
next time and keeps no other waiting for long; one that contradicts what was cosigned is accused, and the poller goes on.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.cosignature import KeyVerifier
from translog.core.note import format_note, open_note
from translog.core.wire import clip
from translog.errors import ConsistencyError, OldSizeError, TranslogError, VerificationError
from translog.log.waiters import uninterrupted
from translog.witness.accusations import Accusations
from translog.witness.loglist import KnownLog
from translog.witness.protocol import AddCheckpoint, Cosigned, format_add_checkpoint
from translog.witness.service import Witness
from translog.witness.settings import WitnessSettings

_logger = structlog.get_logger()


class PolledLog(Protocol):
    """A log that can be asked. Its methods raise TranslogError."""

    async def fetch(self) -> bytes:
        """The checkpoint it shows, a note; nothing of it is verified."""

    async def prove(self, *, old: int, new: int) -> list[bytes]:
        """A consistency proof, 0 < old < new, where `new` is the size of the checkpoint fetched last."""


class Poller:
    """Polls all logs of a witness that have a `poll_url`."""

    def __init__(
        self,
        *,
        witness: Witness,
        connect: Callable[[KnownLog], AbstractAsyncContextManager[PolledLog]],
        settings: WitnessSettings,
        accusations: Accusations,
    ) -> None:
        self._witness = witness
        self._connect = connect
        self._settings = settings
        self._accusations = accusations
        self._free = asyncio.Semaphore(settings.poll_at_once)

    async def run(self) -> None:
        """Polls until cancelled."""
        while True:
            await self.poll_all()
            await asyncio.sleep(self._settings.poll_interval_ms / 1000)

    async def poll_all(self) -> None:
        """Polls each log once, some at a time. Never fails."""
        try:
            logs = await uninterrupted(asyncio.to_thread(self._witness.store.logs, polled=True))
        except TranslogError as error:
            _logger.error("the logs to poll could not be read", detail=str(error))
            return
        await asyncio.gather(*(self.poll(log) for log in logs))

    async def poll(self, log: KnownLog) -> None:
        """Polls one log. Never fails: what goes wrong is logged."""
        async with self._free:
            try:
                async with asyncio.timeout(self._settings.poll_timeout_ms / 1000):
                    await self._poll(log)
            except TimeoutError:
                _warn(log, f"it took longer than {self._settings.poll_timeout_ms} ms")
            except TranslogError as error:
                _warn(log, str(error))
            except Exception:
                _logger.exception("polling a log failed unexpectedly", origin=log.origin)

    async def _poll(self, log: KnownLog) -> None:
        async with self._connect(log) as polled:
            fetched = await polled.fetch()
            note, checkpoint = await uninterrupted(asyncio.to_thread(_verify, log, fetched))
            stored = await uninterrupted(asyncio.to_thread(self._witness.store.find_cosigned, log.origin))
            old = stored.size if stored else 0
            if checkpoint.size < old:
                _warn(log, f"it shows a checkpoint of size {checkpoint.size}, after one of {old} that was cosigned")
                return
            proof = await polled.prove(old=old, new=checkpoint.size) if 0 < old < checkpoint.size else []
        request = AddCheckpoint(old=old, proof=tuple(proof), note=note)
        await uninterrupted(asyncio.to_thread(self._submit, log, request, checkpoint, stored))

    def _submit(self, log: KnownLog, request: AddCheckpoint, checkpoint: Checkpoint, stored: Cosigned | None) -> None:
        try:
            self._witness.add_checkpoint(format_add_checkpoint(request))
        except OldSizeError:  # it was submitted, or polled by another process, meanwhile
            _logger.info("a polled log was cosigned meanwhile", origin=log.origin, size=checkpoint.size)
        except ConsistencyError as error:
            if stored is None or stored.size == checkpoint.size:  # these the witness itself has accused, or nobody can be
                raise
            self._accusations.keep(
                origin=log.origin,
                problem=f"the tree of size {checkpoint.size} does not continue that of size {stored.size}: {error.detail}",
                cosigned=stored.note,
                shown=request.note,
                proof=request.proof,
            )


def _verify(log: KnownLog, note: bytes) -> tuple[bytes, Checkpoint]:
    """The checkpoint, and the note with nothing but the log's lines. Raises MalformedError, VerificationError."""
    opened = open_note(note, [KeyVerifier(vkey) for vkey in log.vkeys])
    checkpoint = parse_checkpoint(opened.text)
    if checkpoint.origin != log.origin:
        raise VerificationError(f"it shows the checkpoint of another log, {clip(checkpoint.origin)}")
    return format_note(opened.text, opened.verified), checkpoint


def _warn(log: KnownLog, detail: str) -> None:
    _logger.warning("a log could not be polled, it is tried again", origin=log.origin, url=log.poll_url, detail=detail)
