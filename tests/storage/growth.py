"""A log that grows: makes the updates that a sequencer would make, and knows what the store must then hold."""

from dataclasses import dataclass, field

from log.check_log import check_tree

from translog.core.integrate import EMPTY_EDGE, Edge, integrate
from translog.storage.store import LogMeta, LogStore, Profile, StoredCheckpoint, TreeState, Update

META = LogMeta(format_version=1, origin="log.example/t\u00e4st", profile=Profile.OPAQUE, minimum_index=0)


def entry_of(index: int) -> bytes:
    return b"entry %d" % index


@dataclass
class Growth:
    """What was committed so far, and what comes next."""

    edge: Edge = EMPTY_EDGE
    time_ms: int = 1_000
    entries: list[bytes] = field(default_factory=list)

    def next(self, count: int, *, entries: list[bytes] | None = None) -> Update:
        """The update that appends `count` entries. Call `accept` once it is committed."""
        new = [entry_of(n) for n in range(self.edge.size, self.edge.size + count)] if entries is None else entries
        grown = integrate(self.edge, new)
        state = TreeState(size=grown.edge.size, root=grown.edge.root, received_at_ms=self.time_ms)
        return Update(old_size=self.edge.size, state=state, entries=new, tiles=grown.tiles)

    def accept(self, update: Update) -> None:
        self.edge = integrate(self.edge, update.entries).edge
        self.entries += update.entries

    def commit(self, store: LogStore, count: int, *, entries: list[bytes] | None = None) -> Update:
        update = self.next(count, entries=entries)
        store.commit(update)
        self.accept(update)
        return update

    def check(self, store: LogStore) -> None:
        """The store holds exactly what was accepted."""
        assert store.read_state() == TreeState(
            size=self.edge.size, root=self.edge.root, received_at_ms=self.time_ms if self.edge.size else 0
        )
        assert check_tree(store).entries == self.entries


def checkpoint_of(size: int, text: bytes = b"note") -> StoredCheckpoint:
    """A checkpoint as far as a store cares: it does not look into the note."""
    return StoredCheckpoint(size=size, note=b"%s of %d" % (text, size))
