"""Opening a log: its store, its head, its edge, and whether it may sign.

Rules ("never signing two histories", specs/formats.md): a log must not sign when the store is behind DIR/head, when the
store's root at that size is another, when a checkpoint was published that the head does not know, when both slots of the
head are lost, when the head says hold, or when its keys are not the ones that signed before. It is then held, and says what
to do. Opening reads a bounded number of tiles, whatever the log's size.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from translog.core.integrate import Edge, load_edge
from translog.core.merkle import root_hash
from translog.core.note import Signer, parse_note
from translog.core.tile import TileReader
from translog.errors import CorruptionError, HeldError, SettingsError, VerificationError
from translog.log.head import Head, HeadFile
from translog.log.reader import Published, nobody_is_asked, read_published
from translog.storage.store import LogStore, StoredCheckpoint, TreeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What one opening of the store found."""

    store: LogStore
    head: HeadFile
    state: TreeState
    edge: Edge
    published: Published | None
    held: HeldError | None


def require_may_sign(head: Head, *, state: TreeState, root_at_head: bytes | None, latest: StoredCheckpoint | None) -> None:
    """Raises HeldError unless signing the store's tree cannot contradict what was signed before.

    `root_at_head` is the root of the store's first `head.size` entries, None where it has fewer.
    """
    if root_at_head is None:
        raise HeldError(
            f"the store has {state.size} entries, but a tree of {head.size} may have been signed: it is an older copy, or lost "
            "its newest writes",
            hint="restore the newest backup or fill it from a mirror; if neither exists, keep this log read-only and start a "
            "new one with a new origin",
            code="store-behind-head",
        )
    if root_at_head != head.root:
        raise HeldError(
            f"the store's first {head.size} entries are not the ones that may have been signed",
            hint="this store and DIR/head are of two histories: find the store that belongs to the head",
            code="head-mismatch",
        )
    if latest is not None and latest.size > head.size:
        raise HeldError(
            f"a checkpoint of size {latest.size} was published, but DIR/head knows of {head.size} only: it is an older copy",
            hint="put the newest DIR/head back; or, if you know that nothing newer than this store was ever signed, run "
            "`translog resume DIR --nothing-newer-was-signed`",
            code="head-behind",
        )
    if head.hold:
        raise HeldError(
            "this log was restored and must not sign before it is known to be whole",
            hint="fill it from a mirror; or, if you know that nothing newer was ever signed, run "
            "`translog resume DIR --nothing-newer-was-signed`",
            code="on-hold",
        )


def open_log(
    open_store: Callable[[], LogStore],
    open_head: Callable[[], HeadFile],
    *,
    signers: Sequence[Signer],
    shown: Published | None,
    is_witnessed: Callable[[bytes], bool] = nobody_is_asked,
) -> Opening:
    """The one way a log comes up, at the start and after a failed write. `is_witnessed` tells of a checkpoint
    whether it has the quorum that the log publishes with. Blocks.

    Raises SettingsError, StorageError or CorruptionError, everything closed again.
    """
    with ExitStack() as undo:
        store = open_store()
        undo.callback(store.close)
        head = open_head()
        undo.callback(head.close)
        if store.meta.minimum_index:
            raise SettingsError(
                f"entries below {store.meta.minimum_index} were pruned from this store, and this program cannot prune",
                hint="use the version of translog that pruned it, or a newer one",
                code="store-version",
            )
        state = store.read_state()
        try:
            edge = load_edge(store, size=state.size, root=state.root)
        except VerificationError as error:
            raise CorruptionError(
                f"the store is damaged: {error.detail}", hint="restore the log from a backup or a mirror"
            ) from error
        latest = store.read_checkpoint()
        published = None if latest is None else read_published(latest, is_witnessed=is_witnessed)
        held = None
        try:
            newest = head.require_newest()
            root_at_head = _root_at(store, state, newest.size)
            require_may_sign(newest, state=state, root_at_head=root_at_head, latest=latest)
            _require_own_keys(latest, signers)
        except HeldError as error:
            held = error
        # What was shown already stays shown, also where the store has lost it: a publication is not synced.
        if shown is not None and (published is None or published.size < shown.size):
            published = shown if _root_at(store, state, shown.size) == shown.root else published
        undo.pop_all()
        return Opening(store=store, head=head, state=state, edge=edge, published=published, held=held)


def _require_own_keys(latest: StoredCheckpoint | None, signers: Sequence[Signer]) -> None:
    """Raises HeldError if what was published last carries no line of any key that would sign now."""
    if latest is None:
        return
    signed = {(signature.name, signature.key_id) for signature in parse_note(latest.note).signatures}
    if not signed & {(signer.name, signer.key_id) for signer in signers}:
        raise HeldError(
            "none of the log's keys has signed the checkpoint that was published last: they are other keys",
            hint="bring the keys back that belong to this log; everybody's policies name those",
            code="other-keys",
        )


def _root_at(store: LogStore, state: TreeState, size: int) -> bytes | None:
    if size > state.size:
        return None
    try:
        return root_hash(size, TileReader(store, size=state.size, root=state.root))
    except VerificationError as error:
        raise CorruptionError(f"the store is damaged: {error.detail}") from error
