"""A witness: cosigns the checkpoints of the logs it knows, each only if it follows from the one it cosigned last.

Rules: checks come in the order of the specification's answers; an unknown log costs no signature check; what was cosigned is
on disk before the answer leaves; only lines that verified by the log's keys, and our own, are stored. Only what moves a log on
counts against the log, since that is all that it alone can send: whatever else comes counts against the one who sent it.
A checkpoint with extension lines is refused: an ML-DSA-44 cosignature does not cover them. https://c2sp.org/tlog-witness
"""

import re
from collections.abc import Callable, Collection, Container, Sequence
from pathlib import Path

import structlog

from translog.core.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import VKey
from translog.core.note import Note, Signature, Signer, VerifiedNote, format_note, parse_note, verify_note
from translog.core.wire import clip
from translog.errors import (
    MalformedError,
    NotFoundError,
    OldSizeError,
    PushbackError,
    RateLimitedError,
    RefusedError,
    SettingsError,
    TranslogError,
    VerificationError,
)
from translog.witness.accusations import Accusations
from translog.witness.limits import Buckets
from translog.witness.loglist import LIST_BYTES_MAX, QUERIES_PER_DAY, KnownLog, parse_log_list
from translog.witness.protocol import AddCheckpoint, Cosigned, format_cosignatures, parse_add_checkpoint, require_successor
from translog.witness.store import WitnessStore

PEER_FAILURES_PER_DAY = 20_000

_HASH = re.compile(r"[0-9a-f]{64}")
_TRIES = 4
"""How often it is looked again when the same checkpoint was cosigned a second later meanwhile; once is enough but for a clock
that runs backwards."""
_RETRY_MS = 1_000
_TOLD_MAX = 20
"""Logs of a list that are named when they are left out."""

_logger = structlog.get_logger()


class Witness:
    """One witness. Blocking and safe for several threads."""

    def __init__(
        self,
        *,
        store: WitnessStore,
        signers: Sequence[Signer],
        now_ms: Callable[[], int],
        excluded: Container[str] = (),
        excluded_keys: Collection[bytes] = (),
        vkeys: Sequence[VKey] = (),
        log_lists: Sequence[Path] = (),
        queries_per_day: int = QUERIES_PER_DAY,
        peer_failures_per_day: int = PEER_FAILURES_PER_DAY,
        accusations: Accusations | None = None,
    ) -> None:
        """`excluded` are origins, and `excluded_keys` raw public keys, that are never witnessed: the host's own. `vkeys` are
        those of the signers, and may be left out where these hold their keys. `queries_per_day` is for logs in lists that say
        nothing of it. Raises SettingsError for no signers, or for ones that are not those of the store."""
        self._store = store
        self._signers = tuple(signers)
        self._now_ms = now_ms
        self._excluded = excluded
        self._vkeys = tuple(vkeys) or tuple(signer.skey.vkey for signer in signers if isinstance(signer, KeySigner))
        self._foreign = frozenset(excluded_keys) | {vkey.public_key for vkey in (*self._vkeys, *store.vkeys)}
        self._log_lists = tuple(log_lists)
        self._queries_per_day = queries_per_day
        self._peer_failures_per_day = peer_failures_per_day
        self._accusations = accusations
        self._moves = Buckets()
        self._repeats = Buckets()
        self._outrun = Buckets()
        self._failures = Buckets()
        self._own = {(signer.name, signer.key_id) for signer in self._signers}
        ours = {(vkey.name, vkey.key_id) for vkey in store.vkeys} or self._own
        if not self._own or {name for name, _ in self._own} != {store.name} or not self._own <= ours:
            raise SettingsError(
                f"these keys are not those of the witness {store.name!r} whose state this is",
                hint="bring this witness's own keys back, or its own state",
                code="witness-other-state",
            )

    @property
    def name(self) -> str:
        """What policies know it by, in its vkeys."""
        return self._store.name

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        """Its public keys, those it signs with."""
        return self._vkeys

    @property
    def store(self) -> WitnessStore:
        """Its state."""
        return self._store

    def logs(self) -> list[KnownLog]:
        """The logs it knows."""
        return self._store.logs()

    def add_log(self, log: KnownLog) -> bool:
        """See WitnessStore.add_log. Raises RefusedError for a log that it must not witness: the host's own, or one with the
        witness's name or keys."""
        self._require_foreign(log)
        return self._store.add_log(log)

    def remove_key(self, origin: str, vkey: VKey) -> None:
        """See WitnessStore.remove_key."""
        self._store.remove_key(origin, vkey)

    def reload_lists(self) -> int:
        """Reads the log lists again and adds the logs that are new. Returns how many. Never fails: what cannot be read, or
        must not be witnessed, is logged and left out."""
        return sum(self._load_list(path) for path in self._log_lists)

    def add_checkpoint(self, body: bytes, *, peer: str = "") -> bytes:
        """Cosigns. Returns the answer's signature lines. `peer` is who sent it, for limits; empty for this process itself.

        Raises, in this order: MalformedError; NotFoundError for an unknown log; RateLimitedError for a peer that sent too
        much that was no use; SignatureError; RateLimitedError for a log that asks too often; what `require_successor` raises;
        OldSizeError if another request was faster; StorageError, PushbackError. Whatever it raises, nothing was given out.
        """
        request = parse_add_checkpoint(body)
        note = parse_note(request.note)
        checkpoint = parse_checkpoint(note.text)
        if checkpoint.extensions:
            raise MalformedError("a checkpoint with extension lines is not cosigned here")
        foreign = checkpoint.origin not in self._excluded and checkpoint.origin != self.name
        log = self._store.find_log(checkpoint.origin) if foreign else None
        if log is None:
            raise NotFoundError(
                f"this witness knows no log {clip(checkpoint.origin)}", hint="ask its operator to add it", code="unknown-log"
            )
        if peer:
            self._failures.require(peer, per_day=self._peer_failures_per_day, now_ms=self._now_ms())
        try:
            opened = self._verify(note, log)
            self._moves.require(log.origin, per_day=log.queries_per_day, now_ms=self._now_ms())
            own = self._cosign(request, checkpoint, opened, log, peer)
        except (VerificationError, OldSizeError) as error:
            if peer and not self._was_outrun(error, checkpoint, log, peer):
                self._failures.charge(peer, per_day=self._peer_failures_per_day, now_ms=self._now_ms())
            raise
        return format_cosignatures(own)

    def _was_outrun(self, error: TranslogError, checkpoint: Checkpoint, log: KnownLog, peer: str) -> bool:
        """Whether somebody else was faster with the same or a newer checkpoint: that is no fault of the log's, which another
        witness, to whom it shows everything, could otherwise have limited here."""
        if not isinstance(error, OldSizeError) or checkpoint.size < error.size:
            return False
        try:
            self._outrun.take(f"{log.origin}\n{peer}", per_day=log.queries_per_day, now_ms=self._now_ms())
        except RateLimitedError:
            return False
        return True

    def latest(self, origin_hash: str) -> bytes:
        """The checkpoint of a log that was cosigned last: its text, the log's lines, our own. Raises NotFoundError."""
        cosigned = self._store.find_by_hash(origin_hash) if _HASH.fullmatch(origin_hash) else None
        if cosigned is None:
            raise NotFoundError("no checkpoint of such a log was cosigned")
        return cosigned.note

    def _verify(self, note: Note, log: KnownLog) -> VerifiedNote:
        """Raises SignatureError. The same line many times over is verified once."""
        distinct = Note(text=note.text, signatures=tuple(dict.fromkeys(note.signatures)))
        return verify_note(distinct, [KeyVerifier(vkey) for vkey in log.vkeys if self._is_foreign(vkey)])

    def _cosign(
        self, request: AddCheckpoint, checkpoint: Checkpoint, opened: VerifiedNote, log: KnownLog, peer: str
    ) -> tuple[Signature, ...]:
        """Our lines, once the checkpoint is stored with them."""
        for _ in range(_TRIES):
            stored = self._store.find_cosigned(log.origin)
            self._look_for_fork(checkpoint, request.note, stored)
            require_successor(request, checkpoint, stored=stored)
            time_s = max(self._now_ms() // 1000, 1)
            repeated = stored is not None and stored.size == checkpoint.size
            if stored is not None:
                if repeated and stored.time_s >= time_s and (own := self._own_lines(stored)):
                    return own  # as fresh as can be; a time before it would go back
                time_s = max(time_s, stored.time_s)
            if repeated and peer:  # what is public anybody can send again: it must not use up what the log may
                self._repeats.take(f"{log.origin}\n{peer}", per_day=log.queries_per_day, now_ms=self._now_ms())
            text = format_checkpoint(checkpoint)  # what was understood, not what was sent
            own = tuple(
                Signature(name=signer.name, key_id=signer.key_id, payload=signer.sign(text, time_s=time_s))
                for signer in self._signers
            )
            theirs = self._log_lines(log, opened, stored if repeated else None)
            cosigned = Cosigned(
                size=checkpoint.size, root=checkpoint.root, time_s=time_s, note=format_note(text, (*theirs, *own))
            )
            try:
                self._store.update(log.origin, old=request.old, new=cosigned)
            except OldSizeError as error:
                if error.size != request.old:
                    raise
                continue
            if not repeated:  # once for each step, however many ask for the same one at the same time
                self._moves.charge(log.origin, per_day=log.queries_per_day, now_ms=self._now_ms())
            return own
        raise PushbackError("this checkpoint is being cosigned for others", retry_after_ms=_RETRY_MS)

    def _own_lines(self, stored: Cosigned) -> tuple[Signature, ...]:
        """The lines of all our signers in a stored note; empty if one is missing."""
        found = tuple(line for line in parse_note(stored.note).signatures if (line.name, line.key_id) in self._own)
        return found if len(found) == len(self._own) else ()

    def _log_lines(self, log: KnownLog, opened: VerifiedNote, same: Cosigned | None) -> list[Signature]:
        """The log's lines that verified, and those that did when the same checkpoint was stored before: whoever sends it again
        with fewer lines must not take the others away."""
        lines = {(line.name, line.key_id): line for line in opened.verified}
        if same is not None:
            known = {(vkey.name, vkey.key_id) for vkey in log.vkeys if self._is_foreign(vkey)}
            for line in parse_note(same.note).signatures:
                if (line.name, line.key_id) in known:
                    lines.setdefault((line.name, line.key_id), line)
        return list(lines.values())

    def _look_for_fork(self, checkpoint: Checkpoint, note: bytes, stored: Cosigned | None) -> None:
        """Two roots at one size, both signed by the log, are proof whoever sends them, and whatever old size they name."""
        if (
            self._accusations is not None
            and stored is not None
            and stored.size == checkpoint.size
            and stored.root != checkpoint.root
        ):
            self._accusations.keep(
                origin=checkpoint.origin,
                problem=f"two trees of size {stored.size} with different roots",
                cosigned=stored.note,
                shown=note,
            )

    def _is_foreign(self, vkey: VKey) -> bool:
        return vkey.name != self.name and vkey.public_key not in self._foreign

    def _require_foreign(self, log: KnownLog) -> None:
        if log.origin in self._excluded or log.origin == self.name or not all(map(self._is_foreign, log.vkeys)):
            raise RefusedError(
                f"{clip(log.origin)} has the name or a key of this witness or of its host, and must be witnessed by others",
                hint="a witness that belongs to the log shows nobody that there is one tree only",
            )

    def _load_list(self, path: Path) -> int:
        left_out = 0

        def skip(error: TranslogError) -> None:
            nonlocal left_out
            left_out += 1
            if left_out <= _TOLD_MAX:
                _logger.warning("a log of a list is left out", path=str(path), detail=str(error))

        try:
            with path.open("rb") as file:
                data = file.read(LIST_BYTES_MAX + 1)
            listed = parse_log_list(data, queries_per_day=self._queries_per_day, skip=skip)
            logs = []
            for log in listed:
                try:
                    self._require_foreign(log)
                    logs.append(log)
                except RefusedError as error:
                    skip(error)
            added = self._store.add_logs(logs)
        except (OSError, ValueError, TranslogError) as error:  # a path with a NUL is no OSError
            _logger.error("a log list could not be read, its new logs are not known yet", path=str(path), detail=str(error))
            return 0
        if left_out > _TOLD_MAX:
            _logger.warning("more logs of a list are left out", path=str(path), count=left_out - _TOLD_MAX)
        if added:
            _logger.info("logs were added from a list", path=str(path), added=added)
        return added
