"""The composition root of what is done to a log that does not run here: check it, copy it, bring it back, let it sign again.

Rules: wiring, as in bootstrap.py. A location is a log's directory, a folder of tiles such as a backup, or the URL of any
tlog-tiles log. A log's directory is locked while it is read, and not changed by reading it.
"""

import os
import shutil
import tempfile
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
from translog.errors import HeldError, MalformedError, SettingsError, StorageError, TranslogError, VerificationError
from translog.log.backup import Copied, back_up, fill_store
from translog.log.directory import new_directory
from translog.log.fsck import Checker, Claim, Report
from translog.log.head import SLOT_BYTES, Head, HeadFile, decode_slot
from translog.log.keyfiles import LOG_KEY_FILES, read_skey
from translog.log.opening import require_may_sign
from translog.storage.files import write_file
from translog.storage.folder import Folder, require_backup_folder
from translog.storage.frozen import FrozenStore, freeze
from translog.storage.keyspace import FORMAT_VERSION
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.migrations import upgrade_store
from translog.storage.source import Damage, TreeSource
from translog.storage.store import LogMeta, StoredCheckpoint

_logger = structlog.get_logger()

_REMOTE_PROCESSES_MAX = 2
"""Each has up to 16 requests under way; a log has other readers too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A log found at a location: how to read it, what is known of it beside its tree, and its own keys where they are here."""

    open_source: Callable[[], TreeSource]
    claims: Sequence[Claim] = ()
    damages: Sequence[Damage] = ()
    vkeys: Sequence[VKey] = ()
    remarks: Sequence[str] = ()


def is_url(location: str) -> bool:
    """Whether a location is one to ask over HTTP."""
    return location.startswith(("http://", "https://"))


@contextmanager
def located(location: str, *, token: str | None = None) -> Iterator[Located]:
    """The log at a location, for as long as the context lasts. Raises SettingsError if there is none or it is in use."""
    if is_url(location):
        from translog.client.tree import RemoteTree  # importing aiohttp takes longer than checking a small log

        yield Located(open_source=partial(RemoteTree, location, token=token))
        return
    directory = Path(location)
    if not directory.is_dir():
        raise SettingsError(f"{directory} is neither a directory nor a URL", code="no-store")
    if not (directory / "log").is_dir():
        yield Located(open_source=partial(Folder, directory))
        return
    with DirectoryLock(directory), _workplace() as workplace:
        frozen = Path(workplace, "log")
        damages = freeze(directory / "log", frozen)
        heads = _read_head(directory / "head", damages)
        claims = [Claim(resource=name, size=head.size, root=head.root, origin=head.origin) for name, head in heads]
        hold = bool(heads) and max((head for _, head in heads), key=lambda head: head.counter).hold
        vkeys = _own_vkeys(directory / "keys", damages)
        yield Located(
            open_source=partial(FrozenStore, frozen),
            claims=claims,
            damages=damages,
            vkeys=vkeys,
            remarks=["DIR/head says hold: the log would serve, and not sign"] if hold else [],
        )


@contextmanager
def _workplace() -> Iterator[str]:
    """A directory for the time being. Raises StorageError."""
    try:
        temporary = tempfile.TemporaryDirectory(prefix="translog-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(f"cannot make a temporary directory: {error.strerror}", hint="TMPDIR names another place") from error
    with temporary as path:
        yield path


def _read_head(path: Path, damages: list[Damage]) -> list[tuple[str, Head]]:
    """What the slots of DIR/head say, by name; what is wrong with them is added to `damages`."""
    heads: list[tuple[str, Head]] = []
    try:
        data = path.read_bytes()
    except OSError as error:
        damages.append(Damage(resource="DIR/head", problem=f"cannot be read: {error.strerror}"))
        return heads
    for number in range(2):
        name = f"DIR/head, slot {number}"
        try:
            heads.append((name, decode_slot(data[number * SLOT_BYTES : (number + 1) * SLOT_BYTES])))
        except MalformedError:
            damages.append(Damage(resource=name, problem="is damaged"))
    if len(data) > 2 * SLOT_BYTES:
        damages.append(Damage(resource="DIR/head", problem=f"has {len(data)} bytes, not {2 * SLOT_BYTES}"))
    return heads


def _own_vkeys(directory: Path, damages: list[Damage]) -> list[VKey]:
    """The public halves of the keys that are there; what is wrong with one is added to `damages`."""
    vkeys = []
    for name in LOG_KEY_FILES.values():
        try:
            if (directory / name).exists():
                vkeys.append(read_skey(directory / name).vkey)
        except (OSError, TranslogError) as error:
            damages.append(Damage(resource=f"DIR/keys/{name}", problem=f"cannot be used: {error}"))
    return vkeys


def check_log(
    location: str,
    *,
    policy: Policy | None,
    token: str | None,
    processes: int | None,
    progress: Callable[[int, int], None],
) -> Report:
    """Checks everything at a location. Without a policy, a directory's own keys say who may have signed.

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
        ).run()
        report.remarks += log.remarks
        return report


def backup_log(
    location: str,
    folder: Path,
    *,
    policy: Policy | None,
    token: str | None,
    progress: Callable[[int, int], None],
    tell: Callable[[Damage], None],
) -> Copied:
    """Writes the log at a location into a folder, or continues the backup that is there; see log/backup.py: back_up. What is
    damaged and not needed for that is told to `tell`."""
    require_backup_folder(folder)
    with located(location, token=token) as log, _opened(log, tell) as source:
        policy = policy or _own_policy(log)
        return back_up(source, Folder(folder), policy=policy, progress=progress, claims=log.claims, tell=tell)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A log brought back, and why it must not sign yet; None where DIR/head shows that it may."""

    copied: Copied
    held: str | None


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
) -> Restored:
    """Makes a new log's directory from a backup, another log's directory, or a log over HTTP, all of it or nothing.

    `keys` is a directory with the private keys. `head` is DIR/head of the disk that the log ran on last; without it the new
    log is on hold: it serves and does not sign. Raises SettingsError if the directory has anything in it, and what reading
    the source and verifying it raises.
    """
    from translog.config import FILE_NAME, write_settings  # and pydantic, for all who do not restore

    with (
        located(location, token=token) as log,
        _opened(log, tell) as source,
        new_directory(directory, last=FILE_NAME) as building,
    ):
        if keys is not None:
            _copy_keys(keys, building / "keys")
        damages: list[Damage] = []
        vkeys = _own_vkeys(building / "keys", damages)
        for damage in damages:
            raise SettingsError(f"{damage.resource} {damage.problem}", hint="bring this log's own keys", code="bad-key")
        policy = policy or (_policy_of(vkeys) if vkeys else _own_policy(log))
        with DirectoryLock(building) as lock:
            create = partial(_create_store, lock)
            copied = fill_store(source, create, policy=policy, progress=progress, claims=log.claims, tell=tell)
        _require_signed_with(vkeys, copied.latest)
        state, origin = copied.state, copied.meta.origin
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
        return Restored(copied=copied, held=held)


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
    if not any((target / name).exists() for name in LOG_KEY_FILES.values()):
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
    heads = [head for _, head in _read_head(directory / "head", damages)]
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
            _require_signed_with(_own_vkeys(directory / "keys", damages), store.read_checkpoint())
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
