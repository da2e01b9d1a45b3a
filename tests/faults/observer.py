"""What an outside observer keeps of a log that is killed and started again, and what it holds against the log. No I/O.

Rules: everything the log ever said counts for ever, across restarts: checkpoints, receipts, acknowledgements. What may not be
known at once is checked when the log is stopped, by `settle`; everything since the last time, so that a thousand rounds cost
no more than a thousand times one. The tree is computed here once more, with no code of translog.core. A broken promise raises
Violation.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from pathlib import Path

from translog.core.keys import VKey
from translog.core.policy import Policy, VerifiedCheckpoint, format_log_policy, parse_policy, verify_checkpoint
from translog.core.proof import parse_receipt, verify_receipt_under
from translog.errors import TranslogError
from translog.maintenance import check_log
from translog.storage.store import TreeState

Batch = tuple[bytes, ...]


class Violation(AssertionError):  # noqa: N818  (an error of the log's, not of the program's)
    """The log broke a promise."""


def verify_directory(directory: Path) -> int:
    """Verifies the stopped log in `directory` in full, as `translog fsck` does. Returns its size; nothing is changed."""
    report = check_log(str(directory), policy=None, token=None, processes=1, progress=lambda done, total: None)
    assert report.whole, report.damages
    assert report.good.get("signatures") == report.good.get("checkpoints"), report
    return report.size


def log_policies(vkeys: Iterable[VKey]) -> tuple[Policy, Policy]:
    """The policy on the log's ML-DSA-44 key, and the one on its Ed25519 key."""
    vkeys = list(vkeys)
    modern, classic = (parse_policy(format_log_policy(vkeys, classic=classic).encode()) for classic in (False, True))
    return modern, classic


@dataclass(slots=True)
class _Growing:
    """RFC 6962 section 2.1, one leaf at a time: the perfect subtrees on the right edge, and the root at every size so far."""

    edge: list[tuple[int, bytes]] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=lambda: [sha256(b"").digest()])

    def add(self, entry: bytes) -> None:
        leaves, value = 1, sha256(b"\x00" + entry).digest()
        self.leaves.append(value)
        while self.edge and self.edge[-1][0] == leaves:
            value = sha256(b"\x01" + self.edge.pop()[1] + value).digest()
            leaves *= 2
        self.edge.append((leaves, value))
        root = b""
        for _, subtree in reversed(self.edge):
            root = sha256(b"\x01" + subtree + root).digest() if root else subtree
        self.roots.append(root)


@dataclass(slots=True)
class _Sent:
    """A batch, known by its first entry, and what is known of it."""

    entries: Batch
    sent: int = 0
    refused: int = 0
    acknowledged: set[int] = field(default_factory=set)
    found: set[int] = field(default_factory=set)


class TreeObserver:
    """What an outsider keeps of the log's tree, whatever its entries are."""

    def __init__(self, policies: Sequence[Policy], *, origin: str) -> None:
        """Every checkpoint must satisfy each of `policies`."""
        self._policies = policies
        self._origin = origin
        self._tree = _Growing()
        self._heads: dict[int, bytes] = {}
        self._unsettled_heads: set[int] = set()
        self._notes: dict[bytes, VerifiedCheckpoint] = {}
        self.floor = 0
        """The least size that a checkpoint asked for from now on may have."""
        self.checkpoints = self.receipts = 0

    @property
    def size(self) -> int:
        """Entries that are settled."""
        return len(self._tree.leaves)

    def recent(self, count: int) -> list[int]:
        """Indexes that were acknowledged, of the `count` last ones at most."""
        raise NotImplementedError

    def see_receipt(self, data: bytes, *, index: int) -> None:
        """A receipt of an entry that was acknowledged at `index`."""
        raise NotImplementedError

    def _settle_entries(self, new_entries: Sequence[bytes], start: int) -> None:
        """Holds entries of the stopped log, from index `start` on, against what was said of them."""
        raise NotImplementedError

    # --- what is seen while the log runs --------------------------------------------------------------------------------

    def see_checkpoint(self, note: bytes, *, floor: int | None = None) -> int:
        """A checkpoint, from wherever. `floor` is what `self.floor` was when it was asked for, of one that must be the
        log's latest. Returns its size."""
        digest = sha256(note).digest()
        verified = self._notes.get(digest)
        if verified is None:
            try:
                verified = [verify_checkpoint(note, policy) for policy in self._policies][-1]
            except TranslogError as error:
                raise Violation(f"a checkpoint that does not verify: {error}\n{note!r}") from error
            if verified.checkpoint.origin != self._origin:
                raise Violation(f"a checkpoint of another log: {verified.checkpoint.origin!r}")
            self._notes[digest] = verified
            self.checkpoints += 1
            self._see_head(verified.checkpoint.size, verified.checkpoint.root)
        size = verified.checkpoint.size
        if floor is not None:
            if size < floor:
                raise Violation(f"the latest checkpoint is of size {size}, after {floor} was published")
            self.floor = max(self.floor, size)
        return size

    def _verify_receipt(self, data: bytes, *, index: int, leaf_hash: bytes) -> None:
        try:
            receipt = parse_receipt(data)
            self.see_checkpoint(receipt.checkpoint)
            checkpoint = self._notes[sha256(receipt.checkpoint).digest()]
            proven = verify_receipt_under(receipt, leaf_hash=leaf_hash, checkpoint=checkpoint)
        except TranslogError as error:
            raise Violation(f"the receipt of entry {index} does not verify: {error}") from error
        if proven.index != index:
            raise Violation(f"the receipt of entry {index} is for index {proven.index}")
        self.receipts += 1

    def _see_head(self, size: int, root: bytes) -> None:
        if self._heads.setdefault(size, root) != root:
            raise Violation(f"two checkpoints of size {size} with different roots")
        if size <= self.size:
            self._require_root(size, root)
        else:
            self._unsettled_heads.add(size)

    # --- what the stopped log must have ---------------------------------------------------------------------------------

    def settle(self, new_entries: Sequence[bytes], state: TreeState) -> None:
        """The stopped log is in `state`, and `new_entries` are what it has from `self.size` on (none if it is smaller)."""
        before = self.size
        if state.size < before:
            raise Violation(f"the log had {before} entries, now it has {state.size}")
        if state.size != before + len(new_entries):
            raise ValueError("these are not the new entries")
        for entry in new_entries:
            self._tree.add(entry)
        self._require_root(state.size, state.root)
        self._settle_entries(new_entries, before)
        for size in self._unsettled_heads:
            if size > self.size:
                raise Violation(f"a checkpoint of size {size} was seen, the log has {self.size} entries")
            self._require_root(size, self._heads[size])
        self._unsettled_heads.clear()

    def settle_all(self, entries: Sequence[bytes], state: TreeState) -> None:
        """`settle`, given all of the stopped log's entries: also those that were settled before must be what they were."""
        for index, (leaf_hash, entry) in enumerate(zip(self._tree.leaves, entries, strict=False)):
            if sha256(b"\x00" + entry).digest() != leaf_hash:
                raise Violation(f"entry {index} was changed after it was committed: {entry!r}")
        self.settle(entries[self.size :], state)

    def _require_root(self, size: int, root: bytes) -> None:
        if self._tree.roots[size] != root:
            raise Violation(f"a tree head of size {size} is of another history")


class Observer(TreeObserver):
    """Sends batches, keeps what comes back. The batches that are sent begin with different entries, or are equal."""

    def __init__(self, policies: Sequence[Policy], *, origin: str) -> None:
        super().__init__(policies, origin=origin)
        self._batches: dict[bytes, _Sent] = {}
        self._at: dict[int, _Sent] = {}
        self._entry_at: dict[int, bytes] = {}
        self._unsettled_firsts: list[int] = []

    @property
    def acknowledgements(self) -> int:
        """Batches that were acknowledged."""
        return len(self._at)

    def recent(self, count: int) -> list[int]:
        return list(islice(reversed(self._entry_at), count))

    def send(self, batch: Batch) -> None:
        """`batch` is on its way. With no other word following, its outcome is unknown."""
        known = self._batches.setdefault(batch[0], _Sent(batch))
        if known.entries != batch:
            raise ValueError("two batches begin with one entry")
        known.sent += 1

    def refuse(self, batch: Batch) -> None:
        """The log said that nothing of `batch` was written, of the time it was sent last."""
        self._batches[batch[0]].refused += 1

    def acknowledge(self, batch: Batch, *, first: int, published: bool) -> None:
        """The log said that `batch` is committed from index `first` on, and perhaps that a checkpoint has it."""
        sent = self._batches[batch[0]]
        for index, entry in enumerate(batch, start=first):
            if index in self._entry_at:
                raise Violation(f"index {index} was acknowledged for two entries: {self._entry_at[index]!r}, {entry!r}")
            self._entry_at[index] = entry
        self._at[first] = sent
        sent.acknowledged.add(first)
        if first < self.size:
            self._require_found(first, sent)
        else:
            self._unsettled_firsts.append(first)
        if published:
            self.floor = max(self.floor, first + len(batch))

    def see_receipt(self, data: bytes, *, index: int) -> None:
        self._verify_receipt(data, index=index, leaf_hash=sha256(b"\x00" + self._entry_at[index]).digest())

    def _settle_entries(self, new_entries: Sequence[bytes], start: int) -> None:
        """Every entry belongs to a batch that was sent; each batch is there whole, in order, and not too often; and what was
        acknowledged is there."""
        self._find_batches(new_entries, start)
        for first in self._unsettled_firsts:
            self._require_found(first, self._at[first])
        self._unsettled_firsts.clear()

    def _find_batches(self, new_entries: Sequence[bytes], start: int) -> None:
        at = 0
        while at < len(new_entries):
            sent = self._batches.get(new_entries[at])
            if sent is None:
                raise Violation(f"entry {start + at} is none that was sent, or half a batch: {new_entries[at]!r}")
            if tuple(new_entries[at : at + len(sent.entries)]) != sent.entries:
                raise Violation(f"from entry {start + at} on there is a part of a batch: {sent.entries!r}")
            sent.found.add(start + at)
            if len(sent.found) > sent.sent - sent.refused:
                raise Violation(
                    f"a batch is at {sorted(sent.found)}, sent {sent.sent} times, refused {sent.refused}: {sent.entries!r}"
                )
            at += len(sent.entries)

    def _require_found(self, first: int, sent: _Sent) -> None:
        if first not in sent.found:
            raise Violation(f"what was acknowledged at index {first} is not there: {sent.entries!r}")
