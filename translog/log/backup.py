"""Copies a whole log from one place to another, verified on the way: into a backup, and back into a store.

Rules: a copy is made of entries and checkpoints alone; the tree over them is computed anew, and must have every root that is
stated of it on the way, kept checkpoints included, or the copy fails and says where. A backup is continued, not read again.
What is copied counts only once it is whole and durable. A restored log must not sign until somebody says so
(specs/formats.md, "Never signing two histories"): that is for the caller, who writes DIR/head.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.integrate import EMPTY_EDGE, Edge, integrate, load_edge
from translog.core.merkle import EMPTY_ROOT, hash_leaf, root_hash
from translog.core.note import parse_note
from translog.core.policy import Policy, verify_checkpoint
from translog.core.tile import TILE_WIDTH, Bundle, Tile, TileReader, bundles_of, edge_tiles, encode_bundle
from translog.errors import CorruptionError, MalformedError, NotFoundError, SettingsError, VerificationError
from translog.storage.folder import Backup, Folder
from translog.storage.source import Damage, TreeSource
from translog.storage.store import LogMeta, LogStore, Profile, StoredCheckpoint, TreeState, Update

_HINT = "`translog fsck` names all that is bad"
_STORE_FORMAT = 1
_COMMIT_BYTES = 8 * 1024 * 1024
"""Bytes of entries in one commit to a store that is filled."""

Progress = Callable[[int, int], None]
"""Told how many entries are done, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy holds now, and how many entries this run brought."""

    meta: LogMeta
    state: TreeState
    latest: StoredCheckpoint | None
    new_entries: int
    new_checkpoints: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One bundle more: its entries, those of them that are new, the tiles that changed, and the edge at each stop."""

    bundle: Bundle
    entries: Sequence[bytes]
    new: Sequence[bytes]
    tiles: dict[Tile, bytes]
    stops: Sequence[Edge]


class _Copy:
    """What a source has to give from `edge` on."""

    def __init__(self, source: TreeSource, *, policy: Policy | None, kept_from: int) -> None:
        """Reads what is stated. Raises CorruptionError where that is damaged or contradicts itself, VerificationError for a
        checkpoint that the policy does not accept."""
        contents = source.contents()
        for damage in contents.damages:
            raise _damaged(damage)
        self._source = source
        self._policy = policy
        self.kept: list[StoredCheckpoint] = []
        self._stated: dict[int, tuple[str, bytes]] = {}
        heads = []
        for item in source.checkpoints(size_min=kept_from):
            if isinstance(item, Damage):
                raise _damaged(item)
            heads.append(self._state(item))
            self.kept.append(item)
        self.latest = contents.latest
        if contents.latest is not None:
            heads.append(self._state(contents.latest))
        if contents.state is None and not heads:
            raise CorruptionError("neither a tree state nor a checkpoint is left: how much to copy is not known", hint=_HINT)
        self.state = contents.state or TreeState(size=heads[-1].size, root=heads[-1].root, received_at_ms=0)
        self._add_stated("the tree state", self.state.size, self.state.root)
        self.meta = contents.meta or LogMeta(format_version=_STORE_FORMAT, origin=heads[-1].origin, profile=Profile.OPAQUE)
        if any(head.origin != self.meta.origin for head in heads):
            raise CorruptionError(f"a checkpoint of this log, {self.meta.origin!r}, is of another one", hint=_HINT)
        if max(self._stated) > self.state.size:
            raise CorruptionError(
                f"a checkpoint of size {max(self._stated)} was published, and only {self.state.size} entries are left",
                hint=_HINT,
            )

    def _state(self, stored: StoredCheckpoint) -> Checkpoint:
        name = f"the checkpoint of size {stored.size}"
        try:
            head = parse_checkpoint(parse_note(stored.note).text)
            if self._policy is not None:
                verify_checkpoint(stored.note, self._policy)
        except MalformedError as error:
            raise CorruptionError(f"{name}: {error.detail}", hint=_HINT) from None
        except VerificationError as error:
            raise type(error)(f"{name}: {error.detail}", hint=error.hint, code=error.code) from None
        if head.size != stored.size:
            raise CorruptionError(f"{name} says that it is of size {head.size}", hint=_HINT)
        self._add_stated(name, head.size, head.root)
        return head

    def _add_stated(self, name: str, size: int, root: bytes) -> None:
        other, other_root = self._stated.setdefault(size, (name, root))
        if other_root != root:
            raise CorruptionError(f"{name} and {other} contradict each other", hint=_HINT)

    def require_at(self, edge: Edge, tiles: TileReader) -> None:
        """Raises CorruptionError unless what is stated of the tree up to `edge` is true of it."""
        for size, (_, root) in sorted(self._stated.items()):
            if size <= edge.size and (root_hash(size, tiles) if size else EMPTY_ROOT) != root:
                raise self._contradicted(size)

    def steps(self, edge: Edge, progress: Progress) -> Iterator[_Step]:
        """What comes behind `edge`, bundle by bundle. Raises CorruptionError at the first entry that is lost, or the first
        stated root that is not the tree's."""
        stops = [size for size in sorted(self._stated) if size > edge.size]
        bundles = bundles_of(start=edge.size, end=self.state.size)
        for bundle, read in zip(bundles, self._source.bundles(bundles), strict=True):
            base = bundle.index * TILE_WIDTH
            entries = [entry for entry in read.entries if entry is not None]
            if len(entries) < bundle.width:
                lost = next(n for n, entry in enumerate(read.entries) if entry is None)
                raise CorruptionError(f"entry {base + lost}: {read.problem}", hint=_HINT)
            done = edge.size - base
            if done and b"".join(hash_leaf(entry) for entry in entries[:done]) != edge.tiles[0]:
                raise CorruptionError(f"an entry from {base} on is not the one in the backup", hint=_HINT)
            tiles: dict[tuple[int, int], tuple[Tile, bytes]] = {}
            edges = []
            while edge.size < base + bundle.width:
                end = min([base + bundle.width, *stops[:1]])
                grown = integrate(edge, entries[edge.size - base : end - base])
                edge = grown.edge
                tiles |= {(tile.level, tile.index): (tile, data) for tile, data in grown.tiles.items()}
                if stops[:1] == [edge.size]:
                    if edge.root != self._stated[stops.pop(0)][1]:
                        raise self._contradicted(edge.size)
                    edges.append(edge)
            progress(edge.size, self.state.size)
            yield _Step(bundle=bundle, entries=entries, new=entries[done:], tiles=dict(tiles.values()), stops=edges)

    def _contradicted(self, size: int) -> CorruptionError:
        return CorruptionError(f"the first {size} entries do not have the root that {self._stated[size][0]} states", hint=_HINT)


def back_up(source: TreeSource, folder: Folder, *, policy: Policy | None, progress: Progress) -> Copied:
    """Writes a log into a folder, or continues the backup that is there. Durable when it returns.

    Raises SettingsError for a folder that holds the backup of another log or of a newer tree, and what reading the source
    and verifying it raises; the backup is then as it was.
    """
    before = folder.read_backup()
    old_edge = edge = EMPTY_EDGE
    kept_from = 0
    if before is not None:
        old_edge = edge = load_edge(_FolderTiles(folder), size=before.state.size, root=before.state.root)
        kept_from = 1 + max((item.size for item in folder.checkpoints() if isinstance(item, StoredCheckpoint)), default=-1)
    copy = _Copy(source, policy=policy, kept_from=kept_from)
    if before is not None:
        _require_continuation(before, copy)
        copy.require_at(edge, TileReader(_FolderTiles(folder), size=edge.size, root=edge.root))
    for step in copy.steps(edge, progress):
        folder.write_tile(step.bundle, encode_bundle(step.entries))
        for tile, data in step.tiles.items():
            if tile.width == TILE_WIDTH:
                folder.write_tile(tile, data)
        for edge in step.stops:
            if edge.size == copy.state.size or (copy.latest is not None and edge.size == copy.latest.size):
                _write_edge(folder, edge, step)
    folder.add_checkpoints(copy.kept)
    folder.finish(Backup(meta=copy.meta, state=copy.state, latest=copy.latest))
    if edge.size > old_edge.size:
        _drop_edge(folder, old_edge, kept=edge)
    return Copied(
        meta=copy.meta,
        state=copy.state,
        latest=copy.latest,
        new_entries=copy.state.size - old_edge.size,
        new_checkpoints=len(copy.kept),
    )


def fill_store(
    source: TreeSource, create_store: Callable[[LogMeta], LogStore], *, policy: Policy | None, progress: Progress
) -> Copied:
    """Writes a log into a new store, which `create_store` makes, and closes it. Raises as `back_up` does."""
    copy = _Copy(source, policy=policy, kept_from=0)
    store = create_store(copy.meta)
    try:
        _fill(store, copy, progress)
        for checkpoint in copy.kept:
            store.publish(checkpoint, keep=True)
        if copy.latest is not None:
            store.publish(copy.latest, keep=False)
    finally:
        store.close()
    return Copied(
        meta=copy.meta,
        state=copy.state,
        latest=copy.latest,
        new_entries=copy.state.size,
        new_checkpoints=len(copy.kept),
    )


def _fill(store: LogStore, copy: _Copy, progress: Progress) -> None:
    entries: list[bytes] = []
    tiles: dict[tuple[int, int], tuple[Tile, bytes]] = {}
    committed = size = waiting = 0
    for step in copy.steps(EMPTY_EDGE, progress):
        entries += step.new
        tiles |= {(tile.level, tile.index): (tile, data) for tile, data in step.tiles.items()}
        size += len(step.new)
        waiting += sum(len(entry) for entry in step.new)
        if waiting < _COMMIT_BYTES and size < copy.state.size:
            continue
        root = step.stops[-1].root if size == copy.state.size else EMPTY_ROOT
        state = TreeState(size=size, root=root, received_at_ms=copy.state.received_at_ms)
        store.commit(Update(old_size=committed, state=state, entries=entries, tiles=dict(tiles.values())))
        committed, entries, tiles, waiting = size, [], {}, 0


def _require_continuation(before: Backup, copy: _Copy) -> None:
    if before.meta.origin != copy.meta.origin:
        raise SettingsError(
            f"there is a backup of {before.meta.origin!r} in this folder, and this is {copy.meta.origin!r}",
            hint="give every log a folder of its own",
            code="backup-of-another-log",
        )
    if before.state.size > copy.state.size:
        raise SettingsError(
            f"the backup has {before.state.size} entries, the log only {copy.state.size}: it is an older copy",
            hint="keep this backup; it may be all that is left of the newer one",
            code="backup-is-newer",
        )


def _write_edge(folder: Folder, edge: Edge, step: _Step) -> None:
    """The partial tiles of a tree head that readers will ask for."""
    for tile in edge_tiles(edge.size):
        folder.write_tile(tile, edge.tiles[tile.level])
    width = edge.size - step.bundle.index * TILE_WIDTH
    if width < step.bundle.width:
        folder.write_tile(Bundle(index=step.bundle.index, width=width), encode_bundle(step.entries[:width]))


def _drop_edge(folder: Folder, edge: Edge, *, kept: Edge) -> None:
    """Deletes the partial tiles of a tree head that nobody needs any more."""
    still = {(tile.level, tile.index, tile.width) for tile in edge_tiles(kept.size)}
    for tile in edge_tiles(edge.size):
        if (tile.level, tile.index, tile.width) not in still:
            folder.drop_tile(tile)
    if edge.size % TILE_WIDTH:
        folder.drop_tile(Bundle(index=edge.size // TILE_WIDTH, width=edge.size % TILE_WIDTH))


def _damaged(damage: Damage) -> CorruptionError:
    return CorruptionError(f"{damage.resource}: {damage.problem}", hint=_HINT)


class _FolderTiles:
    """The folder as a TileSource, whose readers authenticate what they get."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        """See TileSource."""
        found = []
        for data in self._folder.tiles(tiles):
            if isinstance(data, Damage):
                raise NotFoundError(f"{data.resource}: {data.problem}", hint="the backup is damaged: start a new one")
            found.append(data)
        return found
