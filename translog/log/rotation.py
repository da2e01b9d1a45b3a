"""Changing the log's own keys: one is added, both sign, the old one is retired. Safe to be cut off at any step.

    add      private key to a file `….skey.new` · change committed · file renamed · both sign · a checkpoint by both, kept
    retire   change committed · the others sign · private key deleted, public one kept · a checkpoint by the others, kept

Rules: what is in the log counts (log/keyledger.py), so a start finishes what was committed and drops what was not. A key is
retired only when a kept checkpoint that the publication policy accepts covers the newest addition, since nobody could follow
otherwise, and never the last of its type. One change at a time. A change that any key of this log ever signed and that was not
made here is refused where entries are appended: whoever made it has a private key of this log, and could show it to those who
have an old policy.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from translog.core.cosignature import KeySigner
from translog.core.keys import SEED_BYTES, KeyType, SKey, VKey
from translog.core.policy import NO_QUORUM, Policy, PolicyLog, verify_checkpoint
from translog.errors import (
    ConflictError,
    MalformedError,
    NotFoundError,
    PermissionDeniedError,
    PushbackError,
    SettingsError,
    StorageError,
    TranslogError,
    VerificationError,
)
from translog.events.keychain import (
    Action,
    KeyChain,
    KeyChange,
    Role,
    looks_like_key_change,
    parse_key_change,
    sign_key_change,
)
from translog.log.keyfiles import (
    KeyFile,
    admit_key,
    discard_private_key,
    drop_new_key,
    list_key_files,
    read_log_keys,
    write_new_key,
)
from translog.log.keyledger import KeyLedger, Ledger, LoggedChange
from translog.log.lifecycle import LogService, Mode
from translog.log.reader import Reader
from translog.log.waiters import uninterrupted

_logger = structlog.get_logger()

KEYS_MAX = 8
"""Keys in use at once, at most: each makes every checkpoint up to 3.3 kB larger."""
PUBLISH_TIMEOUT_MS = 20_000
"""How long the new checkpoint is waited for; it comes all the same."""
_FOLLOW_TIMEOUT_MS = 10_000
_WATCH_MS = 600_000
_RETRY_S = 5.0
_NOTES_BYTES_MAX = 4 * 1024 * 1024

Commit = Callable[[bytes, Action, VKey, str], Awaitable[None]]
"""Commits the entry of a change, durably, with a word on which operator made it. Raises as LogService.append."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A change that was made: which of this log's, the entry's index, and whether a checkpoint signed after it is published."""

    vkey: VKey
    number: int
    index: int
    published: bool


class KeyRotation:
    """Changes the keys of one log. Belongs to the event loop's thread."""

    def __init__(
        self,
        service: LogService,
        ledger: KeyLedger,
        *,
        directory: Path,
        types: Collection[KeyType],
        commit: Commit,
        random_bytes: Callable[[int], bytes],
        publish_timeout_ms: int = PUBLISH_TIMEOUT_MS,
    ) -> None:
        """`directory` has the key files, `types` are those that sign checkpoints."""
        self._service = service
        self._ledger = ledger
        self._directory = directory
        self._types = types
        self._commit = commit
        self._random_bytes = random_bytes
        self._publish_timeout_ms = publish_timeout_ms
        self._lock = asyncio.Lock()
        self._is_ready = False
        self._missing: frozenset[VKey] = frozenset()

    @property
    def ledger(self) -> Ledger:
        """The log's own account of its keys. Raises PushbackError while that is not complete."""
        self._require_ready()
        return self._ledger.ledger

    def _require_ready(self) -> None:
        if not self._is_ready:
            raise self._not_ready()

    def _not_ready(self, hint: str = "") -> PushbackError:
        return PushbackError(
            "the log is still reading which keys it has",
            hint=hint,
            code="not-open",
            retry_after_ms=self._service.settings.retry_after_ms,
        )

    async def run(self) -> None:
        """Finishes what was interrupted, then follows the account. Until cancelled."""
        while True:
            try:
                # What was committed before the start is known to be followed; so what is not in it never will be committed.
                if await self._ledger.wait(self._service.integrated.size, timeout_ms=_WATCH_MS):
                    async with self._lock:
                        is_changed = await uninterrupted(self._settle(starting=not self._is_ready))
                    self._is_ready = True
                    if is_changed:
                        await self._service.publish_anew(timeout_ms=self._publish_timeout_ms)
                    number = self._ledger.ledger.chain.number
                    await self._ledger.wait_number(number + 1, timeout_ms=_WATCH_MS)
            except TranslogError as error:
                _logger.error("the log's keys could not be put in order, trying again", detail=str(error))
                await asyncio.sleep(_RETRY_S)
            except Exception:
                _logger.exception("the log's keys could not be put in order, trying again")
                await asyncio.sleep(_RETRY_S)

    async def add(self, key_type: KeyType, *, operator: str) -> Changed:
        """Makes a key of this type and has the log sign with it as well.

        Raises ConflictError where it cannot be, PushbackError, and what committing raises.
        """
        return await uninterrupted(self._add(key_type, operator))

    async def _add(self, key_type: KeyType, operator: str) -> Changed:
        self._require_ready()
        async with self._lock:
            ledger = await self._current()
            self._require_addable(ledger.chain, key_type)
            skey = self._new_key(ledger.chain, key_type)
            await asyncio.to_thread(write_new_key, self._directory, skey)
            try:
                entry = await self._sign(ledger.chain, Action.ADD, skey.vkey)
                await self._commit(entry, Action.ADD, skey.vkey, operator)
            except StorageError:
                raise  # it may be committed yet: then the key is taken into use when that is seen, or after a start
            except TranslogError:
                await asyncio.to_thread(drop_new_key, self._directory, skey.vkey)
                raise
            return await self._finish(skey.vkey, entry)

    async def retire(self, key_id: str, *, operator: str) -> Changed:
        """Has the log sign no more with the key of this ID (8 hex digits), and deletes its private half.

        Raises NotFoundError, ConflictError where it cannot be, PushbackError, and what committing raises.
        """
        return await uninterrupted(self._retire(key_id, operator))

    async def _retire(self, key_id: str, operator: str) -> Changed:
        self._require_ready()
        async with self._lock:
            ledger = await self._current()
            vkey = self._require_retirable(ledger.chain, key_id)
            await self._require_followable(ledger)
            entry = await self._sign(ledger.chain, Action.RETIRE, vkey)
            await self._commit(entry, Action.RETIRE, vkey, operator)
            return await self._finish(vkey, entry)

    async def _sign(self, chain: KeyChain, action: Action, vkey: VKey) -> bytes:
        """The entry of the next change, signed by every key that signs checkpoints now."""
        return await asyncio.to_thread(
            sign_key_change,
            role=Role.LOG,
            name=chain.name,
            vkey=vkey,
            action=action,
            number=chain.number + 1,
            signers=self._service.signers,
            time_s=self._service.guard.wall_ms // 1000,
        )

    async def _finish(self, vkey: VKey, entry: bytes) -> Changed:
        """What follows the commit. Raises PushbackError if the account does not keep up, and then `run` does the rest;
        ConflictError if another change came first."""
        await self._follow()
        found = [change for change in self._ledger.ledger.changes if change.entry == entry]
        await self._settle(starting=False)
        if not found:
            raise ConflictError("another change of the keys came first, and this one does not count", code="key-changed")
        change = found[-1]
        _logger.warning("the log's keys were changed", key_id=vkey.key_id.hex(), number=change.after.number, index=change.index)
        published = await self._service.publish_anew(timeout_ms=self._publish_timeout_ms)
        return Changed(vkey=vkey, number=change.after.number, index=change.index, published=published)

    async def _current(self) -> Ledger:
        """The account, up to date and agreeing with the key files. Raises PushbackError, ConflictError."""
        if self._service.mode is not Mode.OPEN:
            raise PushbackError(
                f"nothing was done: the log is {self._service.mode.value}, and takes no entries",
                code="not-open",
                retry_after_ms=self._service.settings.retry_after_ms,
            )
        await self._follow()
        ledger = self._ledger.ledger
        for signer in self._service.signers:
            if not _is_of(signer.key_id, ledger.chain):
                raise ConflictError(
                    f"the log signs with the key {signer.key_id.hex()}, which its entries know nothing of",
                    hint="DIR/keys lacks the public file of a first key that was retired, or has another log's key: bring back "
                    "the files that belong there, and start the log anew",
                    code="keys-unclear",
                )
        return ledger

    async def _follow(self) -> None:
        """Returns when the account is up to date. Raises PushbackError."""
        if not await self._ledger.wait(self._service.integrated.size, timeout_ms=_FOLLOW_TIMEOUT_MS):
            raise self._not_ready(hint="`translog keys show DIR` says what was done")

    def _require_addable(self, chain: KeyChain, key_type: KeyType) -> None:
        if key_type not in self._types:
            raise ConflictError(
                f"the log does not sign with {key_type.label} keys: log.sign_with leaves them out",
                hint="add it there and start the log anew; it needs a first key of that type then",
                code="key-type-off",
            )
        if len(chain.active) >= KEYS_MAX:
            raise ConflictError(f"the log has {KEYS_MAX} keys, as many as it may", hint="retire one", code="too-many-keys")

    def _new_key(self, chain: KeyChain, key_type: KeyType) -> SKey:
        known = {vkey.key_id for vkey in (*chain.active, *chain.retired)}
        while True:
            skey = SKey(name=chain.name, type=key_type, seed=self._random_bytes(SEED_BYTES))
            if skey.vkey.key_id not in known:
                return skey

    def _require_retirable(self, chain: KeyChain, key_id: str) -> VKey:
        for vkey in chain.retired:
            if vkey.key_id.hex() == key_id:
                raise ConflictError(f"the key {key_id} was retired before", code="key-retired")
        found = [vkey for vkey in chain.active if vkey.key_id.hex() == key_id]
        if not found:
            known = ", ".join(f"{vkey.key_id.hex()} ({vkey.type.label})" for vkey in chain.active)
            raise NotFoundError(f"the log has no key {key_id}", hint=f"it has {known}", code="no-such-key")
        (vkey,) = found
        signing = {signer.key_id for signer in self._service.signers}
        left = [other for other in chain.active if other != vkey and other.key_id in signing]
        if vkey.type in self._types:
            left = [other for other in left if other.type is vkey.type]
        if not left:
            raise ConflictError(
                f"the key {key_id} is the last of its type that the log signs with",
                hint="add another one first: `translog keys add DIR`; or, to do without the type, take it out of log.sign_with "
                "and start the log anew",
                code="last-key",
            )
        return vkey

    async def _require_followable(self, ledger: Ledger) -> None:
        """Raises ConflictError unless whoever has a policy from before the newest addition can follow it."""
        added = [change for change in ledger.changes if parse_key_change(change.entry).action is Action.ADD]
        if not added or await self._service.read(lambda reader: self._is_covered(reader, added[-1])):
            return
        await self._service.publish_anew(timeout_ms=self._publish_timeout_ms)
        if not await self._service.read(lambda reader: self._is_covered(reader, added[-1])):
            raise ConflictError(
                f"no kept checkpoint that the publication policy accepts covers the addition of "
                f"{parse_key_change(added[-1].entry).vkey.key_id.hex()}: nobody could follow from the old key to the new one",
                hint="wait until enough witnesses cosign (GET /v1/log says who does not), then try again",
                code="key-not-published",
            )

    def _is_covered(self, reader: Reader, added: LoggedChange) -> bool:
        """On a reader's thread."""
        witnesses = self._service.witnesses
        asked = Policy(logs=(), witnesses={}, groups={}, quorum=NO_QUORUM) if witnesses is None else witnesses.policy
        logs = tuple(PolicyLog(vkey=vkey) for vkey in added.before.active)
        policy = Policy(logs=logs, witnesses=asked.witnesses, groups=asked.groups, quorum=asked.quorum)
        start = added.index + 1
        while page := reader.kept_checkpoints(start=start, note_bytes_max=_NOTES_BYTES_MAX):
            if any(_accepts(policy, kept.note) for kept in page):
                return True
            start = page[-1].size + 1
        return False

    async def _settle(self, *, starting: bool) -> bool:
        """Brings key files and signers in line with the account; whether other keys sign from now on. Raises SettingsError,
        StorageError."""
        chain = self._ledger.ledger.chain
        skeys, missing = await asyncio.to_thread(self._settle_files, chain, starting)
        is_changed = [skey.vkey.key_id for skey in skeys] != [signer.key_id for signer in self._service.signers]
        if is_changed:
            self._service.use_signers([KeySigner(skey) for skey in skeys])
        for vkey in missing - self._missing:
            _logger.critical(
                "the log has a key by its own account whose private half is not here: it was lost, or somebody else added it",
                key_id=vkey.key_id.hex(),
            )
        self._missing = missing
        return is_changed

    def _settle_files(self, chain: KeyChain, starting: bool) -> tuple[list[SKey], frozenset[VKey]]:
        """The private keys to sign with, and the keys that are in use and not here. Blocks."""
        for file in list_key_files(self._directory):
            if file.form == "skey.new":
                self._settle_new(file, chain, starting)
        skeys = read_log_keys(self._directory, origin=chain.name, types=self._types)
        staying = [skey for skey in skeys if skey.vkey not in chain.retired]
        if {skey.type for skey in staying} != {skey.type for skey in skeys}:
            raise SettingsError("the log's entries retire the last key of a type", code="keys-unclear")
        here = set()
        for file in list_key_files(self._directory):
            vkey = None
            if file.form == "skey":
                vkey = file.read_vkey()
                if vkey in chain.retired:
                    discard_private_key(file)
            here.add(vkey)
        return staying, frozenset(vkey for vkey in chain.active if vkey not in here)

    def _settle_new(self, file: KeyFile, chain: KeyChain, starting: bool) -> None:
        try:
            vkey = file.read_vkey()
        except SettingsError:
            if not starting:
                raise
            vkey = None  # torn: its change was never committed, since the file comes first
        if vkey in chain.active:
            admit_key(file)
        elif starting or vkey in chain.retired:
            _logger.warning("an addition of a key had been interrupted, and is dropped", key_id=file.key_id)
            try:
                file.path.unlink()
            except OSError as error:
                raise StorageError(f"cannot delete {file.path}: {error.strerror}") from error

    # --- who else may change them: nobody ---------------------------------------------------------------------------------

    async def require_none(self, entries: Sequence[bytes]) -> None:
        """Raises PermissionDeniedError if one of the entries that somebody appends would be a change of this log's keys,
        PushbackError while that cannot be told."""
        suspects = [entry for entry in entries if looks_like_key_change(entry)]
        if suspects:
            await asyncio.to_thread(_require_none, suspects, self.ledger)


def _require_none(entries: Sequence[bytes], ledger: Ledger) -> None:
    """Whoever follows sees what they are shown, from the keys that their policy lists: so a key that was retired counts here,
    and a number that is taken, and one good line beside bad ones of keys that the policy may not list."""
    chain = ledger.chain
    made = {_stated(parse_key_change(change.entry)) for change in ledger.changes}
    for entry in entries:
        try:
            change = parse_key_change(entry)
        except MalformedError:
            continue
        if change.name != chain.name or _stated(change) in made:
            continue
        if not any(_has_signed(vkey, change) for vkey in (*chain.active, *chain.retired)):
            continue
        _logger.critical(
            "somebody appends a change of this log's keys, signed with one of them: that key was stolen",
            action=change.action.value,
            key_id=change.vkey.key_id.hex(),
        )
        raise PermissionDeniedError(
            "changes of this log's keys are made by its operator",
            hint="translog keys add, translog keys retire",
            code="key-change",
        )


def _stated(change: KeyChange) -> tuple[Role, int, Action, VKey]:
    """What a change of this name says, whoever signed it."""
    return change.role, change.number, change.action, change.vkey


def _has_signed(vkey: VKey, change: KeyChange) -> bool:
    try:
        KeyChain(name=change.name, active=(vkey,)).require_signed(change)
        return True
    except (MalformedError, VerificationError):
        return False


def _accepts(policy: Policy, note: bytes) -> bool:
    try:
        verify_checkpoint(note, policy)
        return True
    except (MalformedError, VerificationError):
        return False


def _is_of(key_id: bytes, chain: KeyChain) -> bool:
    return any(vkey.key_id == key_id for vkey in chain.active)
