"""Copies a whole log from one place to another, verified on the way: into a backup, and back into a store.

Rules: a copy is made of entries and checkpoints alone; the tree over them is computed anew, and must have every root that is
stated of it on the way, kept checkpoints included, or the copy fails and says where. A backup is continued, not read again.
What is copied counts only once it is whole and durable. What an events log has beside its entries: payloadcopy.py. A restored
log must not sign until somebody says so (specs/formats.md, "Never signing two histories"): that is for the caller.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from translog.core.checkpoint import Checkpoint, parse_checkpoint
from translog.core.integrate import EMPTY_EDGE, Edge, integrate, load_edge
from translog.core.merkle import EMPTY_ROOT, hash_leaf, root_hash
from translog.core.note import parse_note
from translog.core.policy import Policy, verify_checkpoint
from translog.core.tile import TILE_WIDTH, Bundle, Tile, TileReader, bundles_of, encode_bundle
from translog.errors import CorruptionError, MalformedError, SettingsError, VerificationError
from translog.log.backupfiles import drop_partials, write_edges
from translog.log.fsck import Claim
from translog.log.payloadcopy import Deriver, Losses, bring_dedup_key, copy_payloads
from translog.storage.folder import Backup, Folder
from translog.storage.keyspace import FORMAT_VERSION
from translog.storage.source import BundleRead, Contents, Damage, EventSource, TreeSource
from translog.storage.store import NO_ROWS, LogMeta, LogStore, Profile, StoredCheckpoint, TreeState, Update

_HINT = "`translog fsck` names all that is bad"
_DAMAGED_HINT = "keep it for what is whole in it, and start a new one in another folder"
_SPAN_ENTRIES = 256 * TILE_WIDTH
"""Entries whose bundles are listed at a time: a log may state any size."""
_COMMIT_BYTES = 8 * 1024 * 1024
"""Bytes of entries in one commit to a store that is filled."""

Progress = Callable[[int, int], None]
"""Told how many entries are done, and of how many."""


Tell = Callable[[Damage], None]
"""Told of damage that a copy goes on without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy holds now, and how many entries this run brought. Of an events log also of how many entries, from the first
    on, the payloads are there, and how many of those that this run brought are under each key."""

    meta: LogMeta
    state: TreeState
    latest: StoredCheckpoint | None
    new_entries: int
    new_checkpoints: int
    signatures_checked: bool
    payloads: int | None = None
    key_ids: Mapping[bytes, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One bundle more: its entries, those of them that are new, the tiles that changed, and the edge behind it."""

    bundle: Bundle
    entries: Sequence[bytes]
    new: Sequence[bytes]
    tiles: dict[Tile, bytes]
    edge: Edge


class _Copy:
    """What a source has to give from `edge` on."""

    def __init__(
        self, source: TreeSource, *, policy: Policy | None, kept_from: int, claims: Sequence[Claim], tell: Tell | None
    ) -> None:
        """Reads what is stated. Raises CorruptionError where that is damaged or contradicts itself, VerificationError for a
        checkpoint that the policy does not accept."""
        self._source = source
        self.policy = policy
        self._tell = tell
        self._kept_from = kept_from
        self._kept: dict[int, bytes] = {}  # by size, a digest: the notes of years are not held in memory
        self._origins: set[str] = set()
        self._stated: dict[int, tuple[str, bytes]] = {0: ("the empty log", EMPTY_ROOT)}
        contents = self._contents()
        heads = []
        largest: StoredCheckpoint | None = None
        for item in source.checkpoints(size_min=kept_from):
            if isinstance(item, Damage):
                self._go_on_without(item)
            elif item.size >= kept_from:  # a server that does not know the query shows all of them, every time
                kept_from = item.size + 1
                heads, largest = [self._state(item)], item
                self._kept[item.size] = sha256(item.note).digest()
                self._require_same_log(contents, heads)
        if self._kept and contents.latest is not None and max(self._kept) > contents.latest.size:
            contents = self._contents()  # a log that runs has gone on meanwhile
        self.latest = contents.latest or largest
        if contents.latest is not None:
            heads.append(self._state(contents.latest))
        if contents.state is None and not heads:
            raise CorruptionError("neither a tree state nor a checkpoint is left: how much to copy is not known", hint=_HINT)
        self.state = contents.state or TreeState(size=heads[-1].size, root=heads[-1].root, received_at_ms=0)
        self.losses = Losses(self._go_on_without)
        self._add_stated("the tree state", self.state.size, self.state.root)
        of_events = isinstance(source, EventSource) and source.payloads_end() is not None
        profile = Profile.EVENTS if of_events else Profile.OPAQUE
        self.meta = contents.meta or LogMeta(format_version=FORMAT_VERSION, origin=heads[-1].origin, profile=profile)
        self._require_same_log(contents, heads)
        if max(self._stated) > self.state.size:
            raise CorruptionError(
                f"a checkpoint of size {max(self._stated)} was published, and only {self.state.size} entries are left",
                hint=_HINT,
            )
        for claim in claims:
            self._add_claim(claim)

    def _add_claim(self, claim: Claim) -> None:
        """What stands beside the source must be true of it; where it tells of more, that is lost."""
        if claim.origin and claim.origin != self.meta.origin:
            self._go_on_without(Damage(resource=claim.resource, problem=f"is of another log, {claim.origin!r}"))
        elif claim.size > self.state.size:
            problem = f"says {claim.size} entries, and {self.state.size} are left"
            self._go_on_without(Damage(resource=claim.resource, problem=problem))
        else:
            self._add_stated(claim.resource, claim.size, claim.root)

    @property
    def source(self) -> TreeSource:
        return self._source

    def _contents(self) -> Contents:
        """What the source states. Raises CorruptionError if it is not known what log this is."""
        contents = self._source.contents()
        for damage in contents.damages:
            if contents.meta is None:
                raise _damaged(damage)
            self._go_on_without(damage)
        return contents

    def _go_on_without(self, damage: Damage) -> None:
        """Entries can be copied without a checkpoint of theirs, if somebody is told."""
        if self._tell is None:
            raise _damaged(damage)
        self._tell(damage)

    def _require_same_log(self, contents: Contents, heads: Sequence[Checkpoint]) -> None:
        origins = {head.origin for head in heads} | ({contents.meta.origin} if contents.meta is not None else set())
        self._origins |= origins
        if len(self._origins) > 1:
            raise CorruptionError(f"there are checkpoints of several logs here: {sorted(self._origins)}", hint=_HINT)

    @property
    def kept_count(self) -> int:
        """How many kept checkpoints are copied."""
        return len(self._kept)

    def kept(self) -> Iterator[StoredCheckpoint]:
        """The kept checkpoints, read once more. Raises CorruptionError if they are others than before."""
        left = dict(self._kept)
        for item in self._source.checkpoints(size_min=self._kept_from):
            digest = None if isinstance(item, Damage) else left.pop(item.size, None)
            if isinstance(item, Damage) or digest is None:
                continue  # told of already, or new since
            if sha256(item.note).digest() != digest:
                raise CorruptionError(f"the checkpoint of size {item.size} is not the one it was a moment ago", hint=_HINT)
            yield item
        if left:
            raise CorruptionError(f"the checkpoint of size {min(left)} was there a moment ago, and is not now", hint=_HINT)

    def _state(self, stored: StoredCheckpoint) -> Checkpoint:
        name = f"the checkpoint of size {stored.size}"
        try:
            head = parse_checkpoint(parse_note(stored.note).text)
            if self.policy is not None:
                verify_checkpoint(stored.note, self.policy)
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
        for bundle, read in self._read_from(edge.size):
            base = bundle.index * TILE_WIDTH
            entries = [entry for entry in read.entries if entry is not None]
            if len(entries) < bundle.width:
                lost = next(n for n, entry in enumerate(read.entries) if entry is None)
                raise CorruptionError(f"entry {base + lost}: {read.problem}", hint=_HINT)
            done = edge.size - base
            if done and b"".join(hash_leaf(entry) for entry in entries[:done]) != edge.tiles[0]:
                raise CorruptionError(f"an entry from {base} on is not the one in the backup", hint=_HINT)
            tiles: dict[tuple[int, int], tuple[Tile, bytes]] = {}
            while edge.size < base + bundle.width:
                end = min([base + bundle.width, *stops[:1]])
                grown = integrate(edge, entries[edge.size - base : end - base])
                edge = grown.edge
                tiles |= {(tile.level, tile.index): (tile, data) for tile, data in grown.tiles.items()}
                if stops[:1] == [edge.size] and edge.root != self._stated[stops.pop(0)][1]:
                    raise self._contradicted(edge.size)
            progress(edge.size, self.state.size)
            yield _Step(bundle=bundle, entries=entries, new=entries[done:], tiles=dict(tiles.values()), edge=edge)

    def _read_from(self, start: int) -> Iterator[tuple[Bundle, BundleRead]]:
        while start < self.state.size:
            end = min(self.state.size, (start // _SPAN_ENTRIES + 1) * _SPAN_ENTRIES)
            bundles = bundles_of(start=start, end=end)
            yield from zip(bundles, self._source.bundles(bundles), strict=True)
            start = end

    def _contradicted(self, size: int) -> CorruptionError:
        return CorruptionError(f"the first {size} entries do not have the root that {self._stated[size][0]} states", hint=_HINT)


def back_up(
    source: TreeSource,
    folder: Folder,
    *,
    policy: Policy | None,
    progress: Progress,
    claims: Sequence[Claim] = (),
    tell: Tell | None = None,
    dedup_key: bytes | None = None,
) -> Copied:
    """Writes a log into a folder, or continues the backup that is there. Durable when it returns. `dedup_key` is the file of an
    events log.

    Raises SettingsError for a folder that holds the backup of another log or of a newer tree, CorruptionError for one that is
    damaged, and what reading the source and verifying it raises; the backup is then as it was. `tell` hears of checkpoints that
    cannot be read, and of `claims` of more than is left; without it they end the copy. Other claims must be true.
    """
    with folder.locked():
        before = folder.read_backup()
        kept_from = 0 if before is None else _kept_end(folder)
        copy = _Copy(source, policy=policy, kept_from=kept_from, claims=claims, tell=tell)
        if copy.meta.profile is Profile.EVENTS:
            bring_dedup_key(folder, dedup_key)
        return _back_up(copy, folder, before, progress)


def _back_up(copy: _Copy, folder: Folder, before: Backup | None, progress: Progress) -> Copied:
    old_edge = edge = EMPTY_EDGE if before is None else _edge_of(folder, before)
    if before is not None:
        _require_continuation(before, copy)
        copy.require_at(edge, TileReader(_FolderTiles(folder), size=edge.size, root=edge.root))
    for step in copy.steps(edge, progress):
        edge = step.edge
        folder.write_tile(step.bundle, encode_bundle(step.entries))
        for tile, data in step.tiles.items():
            if tile.width == TILE_WIDTH:
                folder.write_tile(tile, data)
    latest = copy.latest
    if before is not None and before.latest is not None and (latest is None or latest.size < before.latest.size):
        latest = before.latest  # an unsynced publication can be lost; what everybody has seen is not forgotten here
    payloads = None
    if copy.meta.profile is Profile.EVENTS:
        done = 0 if before is None else before.payloads or 0
        payloads = copy_payloads(copy.source, folder, done=done, size=edge.size, losses=copy.losses)
    write_edges(folder, edge, latest)
    folder.add_checkpoints(copy.kept())
    # Where there is a full tile, the old backup can do without the partial one; the last tiles have to wait.
    drop_partials(folder, before, edge, latest, last=False)
    if payloads is not None:
        folder.drop_payload_partials(begin=done, end=payloads, last=False)
    folder.finish(Backup(meta=copy.meta, state=copy.state, latest=latest, payloads=payloads))
    drop_partials(folder, before, edge, latest, last=True)
    if payloads is not None:
        folder.drop_payload_partials(begin=done, end=payloads, last=True)
    return Copied(
        meta=copy.meta,
        state=copy.state,
        latest=latest,
        new_entries=copy.state.size - old_edge.size,
        new_checkpoints=copy.kept_count,
        signatures_checked=copy.policy is not None,
        payloads=payloads,
        key_ids=copy.losses.key_ids,
    )


def fill_store(
    source: TreeSource,
    create_store: Callable[[LogMeta], LogStore],
    *,
    policy: Policy | None,
    progress: Progress,
    claims: Sequence[Claim] = (),
    tell: Tell | None = None,
) -> Copied:
    """Writes a log into a new store, which `create_store` makes, and closes it. `tell` and errors are as those of `back_up`."""
    copy = _Copy(source, policy=policy, kept_from=0, claims=claims, tell=tell)
    store = create_store(copy.meta)
    try:
        deriver = Deriver(source, store, copy.losses) if copy.meta.profile is Profile.EVENTS else None
        _fill(store, copy, deriver, progress)
        copy.losses.end()
        for checkpoint in copy.kept():
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
        new_checkpoints=copy.kept_count,
        signatures_checked=copy.policy is not None,
        payloads=copy.state.size if deriver is not None else None,
        key_ids=copy.losses.key_ids,
    )


def _fill(store: LogStore, copy: _Copy, deriver: Deriver | None, progress: Progress) -> None:
    entries: list[bytes] = []
    tiles: dict[tuple[int, int], tuple[Tile, bytes]] = {}
    committed = size = waiting = 0
    for step in copy.steps(EMPTY_EDGE, progress):
        entries += step.new
        tiles |= {(tile.level, tile.index): (tile, data) for tile, data in step.tiles.items()}
        size += len(step.new)
        waiting += sum(len(entry) for entry in step.new)
        if deriver is not None:
            waiting += deriver.take(step.bundle, step.entries)
        if waiting < _COMMIT_BYTES and size < copy.state.size:
            continue
        rows = NO_ROWS if deriver is None else deriver.rows()
        received_at_ms = max(copy.state.received_at_ms, 0 if deriver is None else deriver.received_at_ms)
        state = TreeState(size=size, root=step.edge.root, received_at_ms=received_at_ms)
        store.commit(Update(old_size=committed, state=state, entries=entries, tiles=dict(tiles.values()), rows=rows))
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


def _edge_of(folder: Folder, backup: Backup) -> Edge:
    """The edge of a backup. Raises CorruptionError."""
    try:
        return load_edge(_FolderTiles(folder), size=backup.state.size, root=backup.state.root)
    except VerificationError as error:
        raise CorruptionError(f"the backup is damaged: {error.detail}", hint=_DAMAGED_HINT) from None


def _kept_end(folder: Folder) -> int:
    """The smallest size of a kept checkpoint that the backup does not have. Raises CorruptionError."""
    end = 0
    for item in folder.checkpoints():
        if isinstance(item, Damage):
            raise CorruptionError(f"the backup is damaged: {item.resource} {item.problem}", hint=_DAMAGED_HINT)
        end = item.size + 1
    return end


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
                raise CorruptionError(f"the backup is damaged: {data.resource} {data.problem}", hint=_DAMAGED_HINT)
            found.append(data)
        return found
