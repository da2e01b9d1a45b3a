"""Where a whole log is read from, to check it or to copy it: a store, a folder of tiles, another log over HTTP.

Rules: nothing that a source says is believed; what it cannot give it names as Damage and goes on, so that one bad block
hides nothing else. Read by log/fsck.py and log/backup.py; the adapters are frozen.py and folder.py here, and client/tree.py.
What an events log keeps beside its entries is private: a log over HTTP is a TreeSource only. Methods block.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from translog.core.tile import TILE_WIDTH, Bundle, Tile, decode_bundle
from translog.core.wire import HASH_BYTES, SIZE_MAX
from translog.errors import MalformedError
from translog.storage.store import LogMeta, StoredCheckpoint, TreeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """One thing that is not as it should be: which, and what is wrong with it, as a person would say it."""

    resource: str
    problem: str


class BundleRead(NamedTuple):
    """As many entries as a bundle is wide, None in the place of each that cannot be read. `problem` says why, or what else is
    wrong with the bundle, and is empty otherwise."""

    entries: Sequence[bytes | None]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a source says it holds. `meta` is None where that is lost.

    `state` is the tree to check: of a store the committed one, elsewhere that of `latest`; its time is 0 where it is not
    known. `latest` is the newest checkpoint. `damages` were found while looking.
    """

    meta: LogMeta | None
    state: TreeState | None
    latest: StoredCheckpoint | None
    damages: Sequence[Damage] = ()


class TreeSource(Protocol):
    """See above. Every tile and bundle asked for is of the tree that `contents` states."""

    @property
    def resource_of_entries(self) -> str:
        """What holds entries here, to name damage by: "entry" (each on its own) or "bundle"."""

    def contents(self) -> Contents:
        """What is there. Raises TranslogError if nothing can be read at all."""

    def checkpoints(self, *, size_min: int = 0) -> Iterator[StoredCheckpoint | Damage]:
        """The kept checkpoints of at least that size, smallest first."""

    def bundles(self, bundles: Sequence[Bundle]) -> Iterator[BundleRead]:
        """Each bundle, in order, exactly as many entries as it is wide. Raises RemoteError when the other side is gone."""

    def tiles(self, tiles: Sequence[Tile]) -> Iterator[bytes | Damage]:
        """Each tile, in order: all that is kept of it, which should be exactly its width. Raises as `bundles`."""

    def strays(self, *, size: int) -> Iterator[Damage]:
        """What is there and should not be, in a log of `size` entries."""

    def close(self) -> None:
        """Lets go of what is open. May be called again."""


MISSING = "is missing"


class EventRead(NamedTuple):
    """What is kept beside one entry: its payload row as keyspace.py encodes it, None where there is none, and its blob records
    by number. `lost` says why what should be here and is not cannot be had; `strays` names rows of no entry beside it."""

    row: bytes | None = None
    blobs: Mapping[int, bytes] = {}
    lost: str = MISSING
    strays: Sequence[str] = ()


@runtime_checkable
class EventSource(Protocol):
    """A TreeSource that has more than entries where the log is one of events."""

    def payloads_end(self) -> int | None:
        """Below which index what belongs to the entries is here: in a store that of all, in a backup of as many as were read
        from one. None where the log is not one of events. Raises as `contents`."""

    def events(self, bundles: Sequence[Bundle]) -> Iterator[EventRead]:
        """What is beside each entry of each bundle, in order."""


@runtime_checkable
class DerivedSource(Protocol):
    """An EventSource that also has the rows which follow from entries and payload rows."""

    def find_rows(self, keys: Sequence[bytes]) -> list[bytes | Damage]:
        """The value of each row, in order, by its whole key: of rows that are written once."""

    def scan_rows(self, prefix: bytes) -> Iterator[tuple[bytes, bytes] | Damage]:
        """All rows whose key begins with that byte, in order; Damage once, if some cannot be read."""


def read_bundle(bundle: Bundle, data: bytes | Damage) -> BundleRead:
    """The entries in the bytes of a bundle."""
    lost: list[bytes | None] = [None] * bundle.width
    if isinstance(data, Damage):
        return BundleRead(lost, data.problem)
    try:
        entries = decode_bundle(data, count_max=TILE_WIDTH)
    except MalformedError as error:
        return BundleRead(lost, error.detail)
    problem = "" if len(entries) == bundle.width else f"the bundle has {len(entries)} entries, not {bundle.width}"
    return BundleRead([*entries, *lost][: bundle.width], problem)


def cut_tile(tile: Tile | Bundle, data: bytes) -> bytes:
    """The bytes of a partial tile or bundle from those of a wider one; whatever is too short, or no bundle, as it is."""
    if isinstance(tile, Tile):
        return data[: tile.width * HASH_BYTES]
    end = 0
    for _ in range(tile.width):
        end += 2 + int.from_bytes(data[end : end + 2], "big")
    return data[:end]


def encode_kept(kept: StoredCheckpoint) -> bytes:
    """A kept checkpoint as a line of compact JSON, {"size":...,"note":...}: in backups, and over HTTP."""
    document = {"size": kept.size, "note": kept.note.decode()}
    return (json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def decode_kept(line: bytes) -> StoredCheckpoint:
    """What `encode_kept` encoded. Raises MalformedError."""
    try:
        document = json.loads(line)
        kept = StoredCheckpoint(size=document["size"], note=document["note"].encode())
        well_formed = type(kept.size) is int and 0 <= kept.size <= SIZE_MAX and encode_kept(kept) == line
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise MalformedError("is not a kept checkpoint")
    return kept
