"""The composition root of what is done to a log that does not run here: check it, copy it, bring it back, let it sign again.

Rules: wiring, as in bootstrap.py. location.py says what a location is.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from translog.core.keys import VKey
from translog.core.merkle import root_hash
from translog.core.policy import Policy, parse_policy, verify_checkpoint
from translog.core.tile import TileReader
from translog.errors import HeldError, SettingsError, VerificationError
from translog.location import Located, is_url, located, own_vkeys, read_head
from translog.log.backup import Copied, back_up, fill_store
from translog.log.directory import new_directory
from translog.log.fsck import Checker, Report
from translog.log.head import HeadFile
from translog.log.keyfiles import KEK_FILE, LOG_KEY_FILES, list_key_files
from translog.log.keystore import bring_secrets, copy_vault, open_keys, require_apart, unreadable
from translog.log.opening import require_may_sign
from translog.log.payloads import FindKey
from translog.storage.files import write_file
from translog.storage.folder import Folder, require_backup_folder
from translog.storage.keyspace import FORMAT_VERSION
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.migrations import upgrade_store
from translog.storage.source import Damage, EventSource, TreeSource
from translog.storage.store import LogMeta, Profile, StoredCheckpoint

_logger = structlog.get_logger()

_REMOTE_PROCESSES_MAX = 2
"""Each has up to 16 requests under way; a log has other readers too."""


def check_log(
    location: str,
    *,
    policy: Policy | None,
    token: str | None,
    processes: int | None,
    progress: Callable[[int, int], None],
    keys: Path | None = None,
    vault: Path | None = None,
) -> Report:
    """Checks everything at a location. Without a policy, a directory's own keys say who may have signed. `keys` (with kek.key)
    and `vault` are directories to open payloads with; a log's directory has its own.

    Raises TranslogError only if there is nothing to check, or a log over HTTP stops answering.
    """
    with located(location, token=token) as log:
        cores = len(os.sched_getaffinity(0))
        report = Checker(
            log.open_source,
            policy=policy or _own_policy(log),
            claims=log.claims,
            damages=log.damages,
            processes=processes or (min(cores, _REMOTE_PROCESSES_MAX) if is_url(location) else cores),
            progress=progress,
            open_keys=_keys_of(log, keys, vault),
        ).run()
        report.remarks += log.remarks
        return report


def _keys_of(log: Located, keys: Path | None, vault: Path | None) -> Callable[[str], FindKey] | None:
    """How to open the key store of a log, given its origin; None where there is none."""
    kek = log.kek if keys is None else keys / KEK_FILE
    vault = vault or log.vault
    return None if kek is None or vault is None else partial(open_keys, vault, kek)


def backup_log(
    location: str,
    folder: Path,
    *,
    policy: Policy | None,
    token: str | None,
    progress: Callable[[int, int], None],
    tell: Callable[[Damage], None],
    vault: Path | None = None,
) -> Copied:
    """Writes the log at a location into a folder, or continues the backup that is there; see log/backup.py: back_up. What is
    damaged and not needed for that is told to `tell`. The key store of an events log's directory is written into `vault`."""
    require_backup_folder(folder)
    if vault is not None:
        require_apart(vault, folder)
    with located(location, token=token) as log, _opened(log, tell) as source:
        known: set[bytes] | None = None
        if vault is not None:
            if log.vault is None:
                raise SettingsError(
                    f"{location} has no key store to be copied",
                    hint="it is in the directory of the stopped log only; leave --vault out",
                    code="no-vault",
                )
            known = copy_vault(log.vault, vault)  # first: a key store that is newer than the payloads does no harm
        copied = back_up(
            source,
            Folder(folder),
            policy=policy or _own_policy(log),
            progress=progress,
            claims=log.claims,
            tell=tell,
            dedup_key=log.dedup_key,
        )
        if known is not None and (lost := unreadable(copied.key_ids, known)):
            tell(Damage(resource="the key store", problem=f"lacks the keys of {lost} payloads: nobody can read them"))
        return copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A log brought back, and why it must not sign yet; None where DIR/head shows that it may. `unreadable` payloads are under
    keys that were not brought along."""

    copied: Copied
    held: str | None
    unreadable: int = 0


def restore_log(
    location: str,
    directory: Path,
    *,
    policy: Policy | None,
    keys: Path | None,
    head: Path | None,
    token: str | None,
    progress: Callable[[int, int], None],
    tell: Callable[[Damage], None],
    vault: Path | None = None,
    without_vault: bool = False,
) -> Restored:
    """Makes a new log's directory from a backup, another log's directory, or a log over HTTP, all of it or nothing.

    `keys` is a directory with the private keys. `vault` is one with the key store of an events log, which is not restored
    without it unless `without_vault` says that its payloads are given up. `head` is DIR/head of the disk that the log ran on
    last; without it the new log is on hold: it serves and does not sign. Raises SettingsError if the directory has anything
    in it, and what reading the source and verifying it raises.
    """
    from translog.config import FILE_NAME, write_settings  # and pydantic, for all who do not restore

    with (
        located(location, token=token) as log,
        _opened(log, tell) as source,
        new_directory(directory, last=FILE_NAME) as building,
    ):
        of_events = _require_vault(source, vault, without_vault=without_vault)
        if keys is not None:
            _copy_keys(keys, building / "keys")
        damages: list[Damage] = []
        vkeys = own_vkeys(building / "keys", damages)
        for damage in damages:
            raise SettingsError(f"{damage.resource} {damage.problem}", hint="bring this log's own keys", code="bad-key")
        policy = policy or (_policy_of(vkeys) if vkeys else _own_policy(log))
        with DirectoryLock(building) as lock:
            create = partial(_create_store, lock)
            copied = fill_store(source, create, policy=policy, progress=progress, claims=log.claims, tell=tell)
        _require_signed_with(vkeys, copied.latest)
        state, origin = copied.state, copied.meta.origin
        lost = 0
        if of_events:
            lost = bring_secrets(
                building,
                origin=origin,
                dedup_key=log.dedup_key,
                vault=vault,
                key_ids=copied.key_ids,
                random_bytes=os.urandom,
                tell=tell,
            )
        held: str | None = "nothing shows that no newer checkpoint was signed"
        if head is None:
            HeadFile.create(building / "head", origin=origin, size=state.size, root=state.root, hold=True)
        else:
            _copy_head(head, building / "head")
            held = _reason_to_hold(building, copied)
            if held is not None:
                _set_hold(building / "head", origin=origin)
                held = held.replace(str(building), str(directory))
        write_settings(building, origin=origin, profile=copied.meta.profile.value)
        return Restored(copied=copied, held=held, unreadable=lost)


def _require_vault(source: TreeSource, vault: Path | None, *, without_vault: bool) -> bool:
    """Whether the log is one of events. Raises SettingsError if its key store is neither there nor given up."""
    contents = source.contents()
    payloads = source.payloads_end() if isinstance(source, EventSource) else None
    if payloads is None and (contents.meta is None or contents.meta.profile is not Profile.EVENTS):
        if vault is not None or without_vault:
            raise SettingsError("this log has no payloads, and no key store", hint="leave --vault and --without-vault out")
        return False
    if vault is None and not without_vault:
        size = min(payloads or 0, 0 if contents.state is None else contents.state.size)
        raise SettingsError(
            f"the payloads of {size} entries are encrypted under keys that are not in what is restored"
            if size
            else "this is a log of events, and its payloads are not in what is restored",
            hint="name the copy of its key store with --vault; --without-vault gives them up: nobody will ever read them",
            code="no-vault",
        )
    return True


def _create_store(lock: DirectoryLock, meta: LogMeta) -> LevelDBStore:
    """A new store in this program's format, whatever that of the copied log was."""
    return LevelDBStore.create(lock, replace(meta, format_version=FORMAT_VERSION))


def _copy_head(source: Path, target: Path) -> None:
    try:
        write_file(target, source.read_bytes(), mode=0o600)
    except OSError as error:
        raise SettingsError(f"cannot copy the head {source}: {error.strerror}", code="no-head") from None


def _require_signed_with(vkeys: Sequence[VKey], latest: StoredCheckpoint | None) -> None:
    """Raises SettingsError if the keys that are here are not those that signed last."""
    if latest is None or not vkeys:
        return
    try:
        verify_checkpoint(latest.note, _policy_of(vkeys))
    except VerificationError as error:
        raise SettingsError(
            f"the keys are not this log's: {error.detail}",
            hint="bring the keys that signed its last checkpoint",
            code="bad-key",
        ) from None


def _copy_keys(source: Path, target: Path) -> None:
    """The files of a directory of keys, with the modes they need."""
    if not source.is_dir():
        raise SettingsError(f"{source} is not a directory of keys", code="no-keys")
    target.mkdir(mode=0o700)
    for file in source.iterdir():
        if file.is_file():
            with open(os.open(target / file.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
                copy.write(file.read_bytes())
    if not any(file.form == "skey" for file in list_key_files(target)):
        raise SettingsError(f"{source} holds no key of a log: neither {' nor '.join(LOG_KEY_FILES.values())}", code="no-keys")


def _set_hold(path: Path, *, origin: str) -> None:
    """Makes DIR/head say hold: start-up does not see every reason. One that is lost or of another log holds as it is."""
    head = HeadFile.open(path, origin=origin)
    try:
        newest = head.require_newest()
        head.write(size=newest.size, root=newest.root, hold=True)
    except HeldError:
        return
    finally:
        head.close()


def _reason_to_hold(directory: Path, copied: Copied) -> str | None:
    """Why the log in `directory` must not sign yet; None if DIR/head shows that nothing signed is missing from it, and it or
    a checkpoint knows of every entry."""
    damages: list[Damage] = []
    heads = [head for _, head in read_head(directory / "head", damages)]
    reason = _why_held(directory, copied)
    if reason is not None:
        return reason
    for damage in damages:
        return f"{damage.resource} {damage.problem}, and may have been the newer one"
    covered = max(head.size for head in heads)
    if copied.latest is not None and copied.signatures_checked:
        covered = max(covered, copied.latest.size)
    if covered < copied.state.size:
        return f"entries {covered} to {copied.state.size - 1} are in no checkpoint that was checked, nor known to the head"
    return None


def _why_held(directory: Path, copied: Copied) -> str | None:
    """Why the log in `directory` would be held when it starts, if it would."""
    state = copied.state
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        head = HeadFile.open(directory / "head", origin=copied.meta.origin)
        try:
            newest = head.require_newest()
            reader = TileReader(store, size=state.size, root=state.root)
            root = root_hash(newest.size, reader) if newest.size <= state.size else None
            require_may_sign(newest, state=state, root_at_head=root, latest=copied.latest)
        except HeldError as error:
            return error.detail
        finally:
            head.close()
            store.close()
    return None


@contextmanager
def _opened(log: Located, tell: Callable[[Damage], None]) -> Iterator[TreeSource]:
    """The source, and a word on what is not to be had from it."""
    for damage in log.damages:
        tell(damage)
    source = log.open_source()
    try:
        yield source
    finally:
        source.close()


def _own_policy(log: Located) -> Policy | None:
    return _policy_of(log.vkeys) if log.vkeys else None


def _policy_of(vkeys: Sequence[VKey]) -> Policy:
    return parse_policy("".join([*(f"log {vkey}\n" for vkey in vkeys), "quorum none\n"]).encode())


def upgrade_log(directory: Path) -> list[str]:
    """Migrates the store in a log's directory to this version's format. Returns what was done, nothing if it is of it already.

    Raises SettingsError, StorageError, CorruptionError; the store can then be tried again, with this version or its own.
    """
    _require_log(directory)
    with DirectoryLock(directory) as lock:
        return upgrade_store(lock)


def _require_log(directory: Path) -> None:
    if not (directory / "log").is_dir():
        raise SettingsError(
            f"{directory} is not a log's directory", hint="name the one `translog init` created", code="no-store"
        )


def resume_log(directory: Path) -> int:
    """Rewrites DIR/head from the store and lifts its hold, on the owner's word that nothing newer was signed. Returns the
    size that may be signed from now on.

    Raises SettingsError, StorageError, CorruptionError, and HeldError where the head itself shows that the word is wrong.
    """
    _require_log(directory)
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        try:
            state = store.read_state()
            damages: list[Damage] = []
            _require_signed_with(own_vkeys(directory / "keys", damages), store.read_checkpoint())
            reader = TileReader(store, size=state.size, root=state.root)
            path = directory / "head"
            head = HeadFile.open(path, origin=store.meta.origin)
            head.require_not_newer(size=state.size, root_at=lambda size: root_hash(size, reader))
            head.close()
            if path.exists():
                shutil.copyfile(path, path.with_name("head.before-resume"))
            HeadFile.create(path, origin=store.meta.origin, size=state.size, root=state.root)
            _logger.warning("resumed on the owner's word", origin=store.meta.origin, size=state.size, root=state.root.hex())
            return state.size
        finally:
            store.close()
