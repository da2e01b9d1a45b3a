"""A log as a set of files, made with translog.core alone: what other people's verifiers are tried on without our server.

`make_log` builds one of any size. `StaticLog.files` maps paths under the log's prefix to bytes; a test that wants a damaged
log changes a copy. Keys and entries are fixed, so a log of a size is the same in every run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import parse_qsl, urlsplit

from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.integrate import EMPTY_EDGE, integrate
from translog.core.keys import KeyType, SKey
from translog.core.merkle import hash_leaf, prove_consistency, prove_inclusion, root_hash
from translog.core.note import sign_note
from translog.core.proof import Receipt, format_receipt
from translog.core.tile import Tile, TileReader, bundles_of, encode_bundle, format_tile_path, tiles_of
from translog.core.wire import encode_base64

ORIGIN = "example.com/interop"
TIME_S = 1_700_000_000
LOG_KEY = SKey(name=ORIGIN, type=KeyType.ED25519, seed=bytes(range(32)))
OTHER_KEYS = (
    SKey(name=ORIGIN, type=KeyType.COSIGNATURE_MLDSA44, seed=bytes(range(32, 64))),
    SKey(name="witness.example.com", type=KeyType.COSIGNATURE_ED25519, seed=bytes(range(64, 96))),
)
"""Every checkpoint also has lines of types that sumdb/note does not know, as a real one would."""

BATCH_ENTRIES = 300
"""Entries are appended in batches that end inside tiles, so that tiles grow in steps."""


def sign_head(size: int, root: bytes, *, key: SKey = LOG_KEY) -> bytes:
    """A checkpoint of any tree head, signed by `key` and the other keys."""
    text = format_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=root))
    return sign_note(text, [KeySigner(key), *(KeySigner(other) for other in OTHER_KEYS)], time_s=TIME_S)


def entry_at(index: int) -> bytes:
    """Short entries, but for an empty one and one of the greatest length."""
    return {3: b"", 5: b"\xff" * 65_535}.get(index, b"entry %d" % index)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticLog:
    """A log's files by path, with what it takes to prove things about them. Also a TileSource."""

    size: int
    root: bytes
    files: dict[str, bytes]

    @property
    def vkey(self) -> str:
        return str(LOG_KEY.vkey)

    def read_tiles(self, tiles: Sequence[Tile]) -> list[bytes]:
        return [self.files[format_tile_path(tile)] for tile in tiles]

    @property
    def reader(self) -> TileReader:
        return TileReader(self, size=self.size, root=self.root)

    def checkpoint_at(self, size: int) -> bytes:
        """The checkpoint that the log signed when it had `size` entries."""
        return sign_head(size, root_hash(size, self.reader))

    def receipt(self, index: int, *, size: int) -> Receipt:
        proof = prove_inclusion(index=index, size=size, reader=self.reader)
        return Receipt(index=index, proof=tuple(proof), checkpoint=self.checkpoint_at(size))

    def receipt_file(self, index: int) -> bytes:
        """The receipt of an entry at the log's last checkpoint."""
        return format_receipt(self.receipt(index, size=self.size))

    def answer(self, target: str) -> bytes | None:
        """What a server answers to a request for `target` (path and query): a file or a proof, None where there is none."""
        if target in self.files:
            return self.files[target]
        url = urlsplit(target)
        query = {name: int(value) for name, value in parse_qsl(url.query)}
        if url.path == "v1/proofs/inclusion":
            return self._inclusion(**query)
        if url.path == "v1/proofs/consistency":
            return self._consistency(**query)
        return None

    def _inclusion(self, *, index: int, size: int) -> bytes:
        proof = prove_inclusion(index=index, size=size, reader=self.reader)
        answer = {
            "index": index,
            "size": size,
            "root": encode_base64(root_hash(size, self.reader)),
            "leaf_hash": encode_base64(hash_leaf(entry_at(index))),
            "proof": [encode_base64(value) for value in proof],
        }
        return json.dumps(answer).encode()

    def _consistency(self, *, old: int, new: int) -> bytes:
        proof = prove_consistency(old=old, new=new, reader=self.reader)
        return json.dumps({"old": old, "new": new, "proof": [encode_base64(value) for value in proof]}).encode()


@lru_cache(maxsize=16)
def make_log(size: int, *, forked_at: int | None = None) -> StaticLog:
    """The log whose entries are `entry_at(0)` to `entry_at(size - 1)`, but for the one at `forked_at`.

    Shared between tests: do not change its files.
    """
    entries = [b"another" if index == forked_at else entry_at(index) for index in range(size)]
    edge = EMPTY_EDGE
    tiles: dict[tuple[int, int], bytes] = {}
    for start in range(0, size, BATCH_ENTRIES):
        step = integrate(edge, entries[start : start + BATCH_ENTRIES])
        tiles |= {(tile.level, tile.index): data for tile, data in step.tiles.items()}
        edge = step.edge
    files = {"checkpoint": sign_head(size, edge.root)}
    files |= {format_tile_path(tile): tiles[tile.level, tile.index] for tile in tiles_of(size)}
    for bundle in bundles_of(start=0, end=size):
        first = bundle.index * 256
        files[format_tile_path(bundle)] = encode_bundle(entries[first : first + bundle.width])
    return StaticLog(size=size, root=edge.root, files=files)


def flip(data: bytes, at: int) -> bytes:
    """`data` with the lowest bit of one byte changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)
