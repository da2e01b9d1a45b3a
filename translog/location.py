"""Where a log is: a directory, a folder of tiles such as a backup, or the URL of any tlog-tiles log; opened to be read.

Rules: wiring, for maintenance.py. A log's directory is locked while it is read, and not changed by reading it; what is wrong
beside its tree is named, and nothing more is read of that.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from translog.core.keys import VKey
from translog.errors import CorruptionError, MalformedError, SettingsError, StorageError, TranslogError
from translog.log.fsck import Claim
from translog.log.head import SLOT_BYTES, Head, decode_slot
from translog.log.keyfiles import DEDUP_KEY_FILE, KEK_FILE, list_key_files, read_secret
from translog.storage.folder import Folder
from translog.storage.frozen import FrozenStore, freeze
from translog.storage.lock import DirectoryLock
from translog.storage.payloads import PRIVATE
from translog.storage.source import Damage, TreeSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A log found at a location: how to read it, what is known of it beside its tree, and its own keys where they are here; of
    an events log also its key store, and the file dedup.key."""

    open_source: Callable[[], TreeSource]
    claims: Sequence[Claim] = ()
    damages: Sequence[Damage] = ()
    vkeys: Sequence[VKey] = ()
    remarks: Sequence[str] = ()
    vault: Path | None = None
    kek: Path | None = None
    dedup_key: bytes | None = None


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
        damages: list[Damage] = []
        dedup_key = _backup_dedup_key(Folder(directory), damages)
        yield Located(open_source=partial(Folder, directory), damages=damages, dedup_key=dedup_key)
        return
    with DirectoryLock(directory), _workplace() as workplace:
        frozen = Path(workplace, "log")
        damages = freeze(directory / "log", frozen)
        heads = read_head(directory / "head", damages)
        claims = [Claim(resource=name, size=head.size, root=head.root, origin=head.origin) for name, head in heads]
        hold = bool(heads) and max((head for _, head in heads), key=lambda head: head.counter).hold
        vkeys = own_vkeys(directory / "keys", damages)
        yield Located(
            open_source=partial(FrozenStore, frozen),
            claims=claims,
            damages=damages,
            vkeys=vkeys,
            remarks=["DIR/head says hold: the log would serve, and not sign"] if hold else [],
            vault=directory / "vault",
            kek=directory / "keys" / KEK_FILE,
            dedup_key=_own_dedup_key(directory, damages),
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


def read_head(path: Path, damages: list[Damage]) -> list[tuple[str, Head]]:
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


def own_vkeys(directory: Path, damages: list[Damage]) -> list[VKey]:
    """The public halves of the keys that are there, and of those that were retired: checkpoints that they signed stay good.
    What is wrong with one is added to `damages`."""
    vkeys: list[VKey] = []
    try:
        files = [file for file in list_key_files(directory) if file.form != "skey.new"]
    except TranslogError as error:
        damages.append(Damage(resource="DIR/keys", problem=f"cannot be used: {error}"))
        return vkeys
    for file in files:
        try:
            vkeys.append(file.read_vkey())
        except (OSError, TranslogError) as error:
            damages.append(Damage(resource=f"DIR/keys/{file.path.name}", problem=f"cannot be used: {error}"))
    return list(dict.fromkeys(vkeys))  # one whose private half was not deleted yet is there twice


def _backup_dedup_key(folder: Folder, damages: list[Damage]) -> bytes | None:
    """The file dedup.key in a backup that has payloads; what is wrong with it is added to `damages`."""
    resource = f"{PRIVATE}/{DEDUP_KEY_FILE}"
    try:
        key = folder.private.read_key()
        if key is None and folder.payloads_end():
            damages.append(Damage(resource=resource, problem="is missing"))
        return key
    except (CorruptionError, StorageError) as error:
        damages.append(Damage(resource=resource, problem=error.detail))
        return None


def _own_dedup_key(directory: Path, damages: list[Damage]) -> bytes | None:
    """The file dedup.key of an events log, which has a vault too; what is wrong with it is added to `damages`."""
    path = directory / "keys" / DEDUP_KEY_FILE
    if not path.exists() and not (directory / "vault").exists():
        return None
    try:
        read_secret(path)
        return path.read_bytes()
    except (OSError, TranslogError) as error:
        damages.append(Damage(resource=f"DIR/keys/{DEDUP_KEY_FILE}", problem=f"cannot be used: {error}"))
        return None
