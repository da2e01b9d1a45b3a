"""Logs made to be damaged: one in memory that can be altered at will, and logs on disk with fixed keys and entries.

Rules: what is made here is whole, and the same in every run; only `translog.core.integrate` and the store make it, so fsck
shares nothing with it. `MemoryTree` can be pickled, and every copy of it reads the same.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.integrate import EMPTY_EDGE, integrate
from translog.core.keys import KeyType, SKey
from translog.core.merkle import EMPTY_ROOT
from translog.core.note import sign_note
from translog.core.policy import parse_policy
from translog.core.tile import TILE_WIDTH, Bundle, Tile, format_tile_path, tiles_of
from translog.log.fsck import Claim
from translog.log.head import HeadFile
from translog.log.keyfiles import LOG_KEY_FILES, write_skey
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.source import BundleRead, Contents, Damage
from translog.storage.store import LogMeta, Profile, StoredCheckpoint, TreeState, Update

ORIGIN = "log.example/made"
META = LogMeta(format_version=1, origin=ORIGIN, profile=Profile.OPAQUE)
SKEY = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(range(32)))
STRANGER = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(32))
"""A key of the same name that no policy lists."""
POLICY = parse_policy(f"log {SKEY.vkey}\nquorum none\n".encode())
TIME_S = 1_700_000_000


def entry_at(index: int) -> bytes:
    """Tiny entries, each of its own."""
    return b"%x" % index


def entries_of(size: int) -> list[bytes]:
    return [entry_at(index) for index in range(size)]


def sign_head(size: int, root: bytes, *, origin: str = ORIGIN, skey: SKey = SKEY) -> bytes:
    """A checkpoint of any tree head."""
    text = format_checkpoint(Checkpoint(origin=origin, size=size, root=root))
    return sign_note(text, [KeySigner(skey)], time_s=TIME_S)


def root_of(entries: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if len(entries) < 2:
        return sha256(b"\x00" + entries[0] if entries else b"").digest()
    power = 1 << (len(entries) - 1).bit_length() - 1
    return sha256(b"\x01" + root_of(entries[:power]) + root_of(entries[power:])).digest()


@dataclass
class MemoryTree:
    """A TreeSource in memory. Take things out, or alter them."""

    entries: dict[int, bytes]
    tiles_at: dict[tuple[int, int], bytes]
    """By level and index: all that is kept of the tile."""
    meta: LogMeta | None
    state: TreeState | None
    latest: StoredCheckpoint | None
    kept: list[StoredCheckpoint | Damage] = field(default_factory=list)
    extra: dict[int, str] = field(default_factory=dict)
    """By bundle: what is wrong with it although all its entries can be read."""
    stray: list[Damage] = field(default_factory=list)
    resource_of_entries: str = "entry"

    def contents(self) -> Contents:
        return Contents(meta=self.meta, state=self.state, latest=self.latest)

    def checkpoints(self, *, size_min: int = 0) -> Iterator[StoredCheckpoint | Damage]:
        yield from (kept for kept in self.kept if isinstance(kept, Damage) or kept.size >= size_min)

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        for bundle in bundles:
            first = bundle.index * TILE_WIDTH
            read = [self.entries.get(index) for index in range(first, first + bundle.width)]
            yield BundleRead(read, "is missing" if None in read else self.extra.get(bundle.index, ""))

    def tiles(self, tiles: Sequence[Tile]) -> Iterator[bytes | Damage]:
        for tile in tiles:
            data = self.tiles_at.get((tile.level, tile.index))
            yield Damage(resource=format_tile_path(tile), problem="is missing") if data is None else data

    def strays(self, *, size: int) -> Iterator[Damage]:
        yield from self.stray

    def close(self) -> None:
        """Nothing is open."""

    def open(self) -> "MemoryTree":
        """What a Checker calls; being a method of a value that can be pickled, it can be pickled."""
        return self


def memory_tree(size: int, *, kept: Sequence[int] = (), entry: Callable[[int], bytes] = entry_at) -> MemoryTree:
    """A whole log of `size` entries that keeps checkpoints of those sizes, and has one of its size as the latest."""
    entries = [entry(index) for index in range(size)]
    return tree_of(entries, kept=kept)


def tree_of(entries: Sequence[bytes], *, kept: Sequence[int] = ()) -> MemoryTree:
    """The same, of any entries."""
    step = integrate(EMPTY_EDGE, entries)
    roots = {n: integrate(EMPTY_EDGE, entries[:n]).edge.root for n in kept}
    return MemoryTree(
        entries=dict(enumerate(entries)),
        tiles_at={(tile.level, tile.index): step.tiles[tile] for tile in tiles_of(len(entries))},
        meta=META,
        state=TreeState(size=len(entries), root=step.edge.root, received_at_ms=1),
        latest=StoredCheckpoint(size=len(entries), note=sign_head(len(entries), step.edge.root)),
        kept=[StoredCheckpoint(size=n, note=sign_head(n, roots[n])) for n in sorted(kept)],
    )


def head_claims(tree: MemoryTree) -> list[Claim]:
    """What DIR/head would state of it: the tree now, and an older one."""
    assert tree.state is not None
    return [
        Claim(resource="DIR/head, slot 0", size=tree.state.size, root=tree.state.root),
        Claim(resource="DIR/head, slot 1", size=0, root=EMPTY_ROOT),
    ]


# --- on disk ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Made:
    """A log's directory that nobody has open. `size` is committed, and published."""

    directory: Path
    size: int

    @property
    def store(self) -> Path:
        return self.directory / "log"

    def table_paths(self) -> list[Path]:
        return sorted(self.store.glob("*.ldb"))

    def table(self) -> Path:
        """The one table file of a compacted store."""
        (path,) = self.table_paths()
        return path

    def wal(self) -> Path:
        """The one write-ahead log with anything in it."""
        (path,) = [path for path in self.store.glob("*.log") if path.stat().st_size]
        return path

    def copy(self, target: Path) -> "Made":
        """The same in another place."""
        shutil.copytree(self.directory, target)
        return Made(directory=target, size=self.size)


def make_store(
    directory: Path,
    commits: Sequence[int],
    *,
    form: str = "tables",
    entry: Callable[[int], bytes] = entry_at,
    unpublished: int = 0,
) -> Made:
    """A log that grew by `commits`, each of which was published and its checkpoint kept; then by `unpublished`, that a crash
    kept from being published.

    `form` is "wal": all in the write-ahead log, as after a crash; "tables": compacted, and closed; or "mixed": compacted before
    every commit, so that only the last, which is in the write-ahead log, as after a crash.
    """
    working = directory if form == "tables" else directory.with_name(directory.name + ".running")
    working.mkdir(parents=True)
    (working / "keys").mkdir(mode=0o700)
    write_skey(working / "keys" / LOG_KEY_FILES[KeyType.ED25519], SKEY)
    HeadFile.create(working / "head", origin=ORIGIN, size=0, root=EMPTY_ROOT)
    head = HeadFile.open(working / "head", origin=ORIGIN)
    lock = DirectoryLock(working)
    store = LevelDBStore.create(lock, META)
    store.publish(StoredCheckpoint(size=0, note=sign_head(0, EMPTY_ROOT)), keep=True)
    edge = EMPTY_EDGE
    try:
        for number, count in enumerate([*commits, unpublished]):
            if form == "mixed" and number < len(commits):
                store._db.compact_range()
            entries = [entry(index) for index in range(edge.size, edge.size + count)]
            if not entries:
                continue
            step = integrate(edge, entries)
            state = TreeState(size=step.edge.size, root=step.edge.root, received_at_ms=1_000 + number)
            store.commit(Update(old_size=edge.size, state=state, entries=entries, tiles=step.tiles))
            edge = step.edge
            if number < len(commits):
                head.write(size=edge.size, root=edge.root)
                store.publish(StoredCheckpoint(size=edge.size, note=sign_head(edge.size, edge.root)), keep=True)
        if form == "tables":
            store._db.compact_range()
        else:
            shutil.copytree(working, directory)
    finally:
        store.close()
        lock.release()
        head.close()
    if form != "tables":
        shutil.rmtree(working)
    return Made(directory=directory, size=edge.size)


def digests(directory: Path) -> dict[str, tuple[str, int]]:
    """Of every file below a directory but `lock`: its SHA-256, and the time it was last changed."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path != directory / "lock":
            found[str(path.relative_to(directory))] = (sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
    return found
