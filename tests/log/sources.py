"""A log to copy from: signed checkpoints at any size of one tree, and a TreeSource over it that can be spoilt.

Rules: `TreeLog` holds entries and answers for every prefix of them; `MemorySource` shows one moment of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from log.harness import META, SKEY
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.integrate import EMPTY_EDGE, Edge, integrate
from translog.core.keys import SKey
from translog.core.note import sign_note
from translog.core.tile import TILE_WIDTH, Bundle, Tile
from translog.storage.source import BundleRead, Contents, Damage
from translog.storage.store import LogMeta, LogStore, StoredCheckpoint, TreeState


@dataclass
class TreeLog:
    """A log whose entries are `entry N`, but for an empty one, a long one and those in `changed`."""

    changed: dict[int, bytes] = field(default_factory=dict)
    origin: str = META.origin
    skey: SKey = SKEY
    edges: dict[int, Edge] = field(default_factory=lambda: {0: EMPTY_EDGE})

    def entry(self, index: int) -> bytes:
        return self.changed.get(index, {3: b"", 5: b"\xff" * 65_535}.get(index, b"entry %d" % index))

    def entries(self, start: int, end: int) -> list[bytes]:
        return [self.entry(index) for index in range(start, end)]

    def edge(self, size: int) -> Edge:
        if size not in self.edges:
            nearest = max(known for known in self.edges if known < size)
            self.edges[size] = integrate(self.edges[nearest], self.entries(nearest, size)).edge
        return self.edges[size]

    def checkpoint(self, size: int, *, root: bytes | None = None, stated_size: int | None = None) -> StoredCheckpoint:
        """The checkpoint of `size`; one that lies where told."""
        stated = size if stated_size is None else stated_size
        head = Checkpoint(origin=self.origin, size=stated, root=self.edge(size).root if root is None else root)
        return StoredCheckpoint(size=size, note=sign_note(format_checkpoint(head), [KeySigner(self.skey)], time_s=1))

    def state(self, size: int) -> TreeState:
        return TreeState(size=size, root=self.edge(size).root, received_at_ms=size)


@dataclass
class MemorySource:
    """See TreeSource. `latest` and `kept` are sizes; what is in `lies` is shown in the place of the truth."""

    log: TreeLog
    size: int
    latest: int | None = None
    kept: Sequence[int] = ()
    meta: LogMeta | None = META
    lies: dict[int, StoredCheckpoint] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    damages: Sequence[Damage] = ()
    before_bundle: Callable[[Bundle], None] = lambda bundle: None
    read: list[int] = field(default_factory=list)

    @property
    def resource_of_entries(self) -> str:
        return "entry"

    def _checkpoint(self, size: int) -> StoredCheckpoint:
        return self.lies.get(size) or self.log.checkpoint(size)

    def contents(self) -> Contents:
        latest = None if self.latest is None else self._checkpoint(self.latest)
        return Contents(meta=self.meta, state=self.log.state(self.size), latest=latest, damages=self.damages)

    def checkpoints(self, *, size_min: int = 0) -> Iterator[StoredCheckpoint | Damage]:
        for size in self.kept:
            if size >= size_min:
                yield self._checkpoint(size)

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        for bundle in bundles:
            self.before_bundle(bundle)
            self.read.append(bundle.index)
            base = bundle.index * TILE_WIDTH
            found: list[bytes | None] = [*self.log.entries(base, base + bundle.width)]
            problem = ""
            for index, why in self.lost.items():
                if base <= index < base + bundle.width:
                    found[index - base], problem = None, why
            yield BundleRead(found, problem)

    def tiles(self, tiles: Sequence[Tile]) -> Iterator[bytes | Damage]:
        raise AssertionError("a copy reads no tiles")

    def strays(self, *, size: int) -> Iterator[Damage]:
        yield from ()

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class StoreSource:
    """The TreeSource that any LogStore is."""

    store: LogStore
    resource_of_entries: str = "entry"

    def contents(self) -> Contents:
        return Contents(meta=self.store.meta, state=self.store.read_state(), latest=self.store.read_checkpoint())

    def checkpoints(self, *, size_min: int = 0) -> Iterator[StoredCheckpoint | Damage]:
        yield from self.store.read_checkpoints(size_min=size_min, count_max=1_000_000)

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        for bundle in bundles:
            start = bundle.index * TILE_WIDTH
            yield BundleRead(self.store.read_entries(start=start, end=start + bundle.width))

    def tiles(self, tiles: Sequence[Tile]) -> Iterator[bytes | Damage]:
        yield from self.store.read_tiles(tiles)

    def strays(self, *, size: int) -> Iterator[Damage]:
        yield from ()

    def close(self) -> None:
        self.store.close()
