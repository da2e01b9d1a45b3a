"""The composition root of what is done to a log that does not run here: check it, copy it, bring it back, let it sign again.

Rules: wiring, as in bootstrap.py. A location is a log's directory, a folder of tiles such as a backup, or the URL of any
tlog-tiles log. A log's directory is locked while it is read, and not changed by reading it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from translog.client.tree import RemoteTree
from translog.core.keys import VKey
from translog.core.merkle import root_hash
from translog.core.policy import Policy, parse_policy
from translog.core.tile import TileReader
from translog.errors import MalformedError, SettingsError, TranslogError
from translog.log.fsck import Checker, Claim, Report
from translog.log.head import SLOT_BYTES, HeadFile, decode_slot
from translog.log.keyfiles import LOG_KEY_FILES, read_skey
from translog.storage.folder import Folder
from translog.storage.frozen import FrozenStore, freeze
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.source import Damage, TreeSource

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A log found at a location: how to read it, what is known of it beside its tree, and its own keys where they are here."""

    open_source: Callable[[], TreeSource]
    claims: Sequence[Claim] = ()
    damages: Sequence[Damage] = ()
    vkeys: Sequence[VKey] = ()


def is_url(location: str) -> bool:
    """Whether a location is one to ask over HTTP."""
    return location.startswith(("http://", "https://"))


@contextmanager
def located(location: str, *, token: str | None = None) -> Iterator[Located]:
    """The log at a location, for as long as the context lasts. Raises SettingsError if there is none or it is in use."""
    if is_url(location):
        yield Located(open_source=partial(RemoteTree, location, token=token))
        return
    directory = Path(location)
    if not directory.is_dir():
        raise SettingsError(f"{directory} is neither a directory nor a URL", code="no-store")
    if not (directory / "log").is_dir():
        yield Located(open_source=partial(Folder, directory))
        return
    with DirectoryLock(directory), tempfile.TemporaryDirectory(prefix="translog-", ignore_cleanup_errors=True) as workplace:
        frozen = Path(workplace, "log")
        damages = freeze(directory / "log", frozen)
        claims = list(_read_head(directory / "head", damages))
        yield Located(
            open_source=partial(FrozenStore, frozen), claims=claims, damages=damages, vkeys=_own_vkeys(directory / "keys")
        )


def _read_head(path: Path, damages: list[Damage]) -> Iterator[Claim]:
    """What the slots of DIR/head state; what is wrong with them is added to `damages`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        damages.append(Damage(resource="DIR/head", problem=f"cannot be read: {error.strerror}"))
        return
    for number in range(2):
        name = f"DIR/head, slot {number}"
        try:
            head = decode_slot(data[number * SLOT_BYTES : (number + 1) * SLOT_BYTES])
        except MalformedError:
            damages.append(Damage(resource=name, problem="is damaged"))
        else:
            yield Claim(resource=name, size=head.size, root=head.root)
    if len(data) > 2 * SLOT_BYTES:
        damages.append(Damage(resource="DIR/head", problem=f"has {len(data)} bytes, not {2 * SLOT_BYTES}"))


def _own_vkeys(directory: Path) -> list[VKey]:
    """The public halves of the keys that can be read."""
    vkeys = []
    for name in LOG_KEY_FILES.values():
        try:
            vkeys.append(read_skey(directory / name).vkey)
        except TranslogError:
            continue
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
        if policy is None and log.vkeys:
            policy = parse_policy("".join([*(f"log {vkey}\n" for vkey in log.vkeys), "quorum none\n"]).encode())
        return Checker(
            log.open_source,
            policy=policy,
            claims=log.claims,
            damages=log.damages,
            processes=processes or len(os.sched_getaffinity(0)),
            progress=progress,
        ).run()


def resume_log(directory: Path) -> int:
    """Rewrites DIR/head from the store and lifts its hold, on the owner's word that nothing newer was signed. Returns the
    size that may be signed from now on.

    Raises SettingsError, StorageError, CorruptionError, and HeldError where the head itself shows that the word is wrong.
    """
    if not (directory / "log").is_dir():
        raise SettingsError(
            f"{directory} is not a log's directory", hint="name the one `translog init` created", code="no-store"
        )
    with DirectoryLock(directory) as lock:
        store = LevelDBStore.open(lock)
        try:
            state = store.read_state()
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
