"""The log as of one published checkpoint: nothing beyond it, and nothing that does not verify."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from log.check_log import Tree
from log.harness import META, POLICY, SKEY
from translog.core.checkpoint import Checkpoint, format_checkpoint
from translog.core.cosignature import KeySigner
from translog.core.integrate import EMPTY_EDGE, integrate
from translog.core.keys import KeyType, SKey
from translog.core.merkle import hash_leaf, verify_consistency, verify_inclusion
from translog.core.note import sign_note
from translog.core.policy import parse_policy
from translog.core.proof import parse_receipt, verify_receipt
from translog.core.tile import Bundle, Tile, TileCache, decode_bundle
from translog.errors import ConsistencyError, CorruptionError, InclusionError, NotFoundError, SignatureError
from translog.log.reader import NOT_PUBLISHED_RETRY_MS, Published, Reader, read_published
from translog.storage.memory import MemoryDisk, MemoryStore
from translog.storage.store import StoredCheckpoint, TreeState, Update

ENTRIES = [b"entry %d" % n for n in range(700)]
TREE = Tree(ENTRIES)
PUBLISHED = 600
KEPT = (0, 3, 257, 400)
LAST_KEPT = max(KEPT)


def checkpoint(size: int) -> StoredCheckpoint:
    text = format_checkpoint(Checkpoint(origin=META.origin, size=size, root=TREE.root(0, size)))
    return StoredCheckpoint(size=size, note=sign_note(text, [KeySigner(SKEY)], time_s=1))


@pytest.fixture
def disk() -> MemoryDisk:
    """700 entries committed, 600 published, checkpoints kept of KEPT."""
    disk = MemoryDisk(meta=META)
    grown = integrate(EMPTY_EDGE, ENTRIES)
    state = TreeState(size=700, root=grown.edge.root, received_at_ms=1)
    store = MemoryStore(disk)
    store.commit(Update(old_size=0, state=state, entries=ENTRIES, tiles=grown.tiles))
    for size in KEPT:
        store.publish(checkpoint(size), keep=True)
    store.publish(checkpoint(PUBLISHED), keep=False)
    store.close()
    return disk


def open_reader(disk: MemoryDisk, size: int = PUBLISHED) -> Reader:
    return Reader(store=MemoryStore(disk), published=read_published(checkpoint(size)), cache=TileCache(tiles_max=16))


@pytest.fixture
def reader(disk: MemoryDisk) -> Reader:
    return open_reader(disk)


def require_not_published(call: Callable[[], object]) -> None:
    with pytest.raises(NotFoundError) as caught:
        call()
    assert caught.value.code == "not-published"
    assert caught.value.retry_after_ms == NOT_PUBLISHED_RETRY_MS


class TestTilesAndEntries:
    def test_tiles_are_those_of_the_published_tree(self, reader: Reader) -> None:
        for tile, data in Tree(ENTRIES[:PUBLISHED]).tiles().items():
            assert reader.tile(tile) == data
            assert reader.tile(replace(tile, width=1)) == data[:32]

    @pytest.mark.parametrize(
        "tile",
        [Tile(level=0, index=2, width=89), Tile(level=0, index=2), Tile(level=1, index=0, width=3), Tile(level=63, index=0)],
    )
    def test_tiles_beyond_it_are_not_shown(self, reader: Reader, tile: Tile) -> None:
        require_not_published(lambda: reader.tile(tile))

    def test_bundles_hold_the_entries(self, reader: Reader) -> None:
        assert decode_bundle(reader.bundle(Bundle(index=1))) == ENTRIES[256:512]
        assert decode_bundle(reader.bundle(Bundle(index=2, width=88))) == ENTRIES[512:600]
        assert decode_bundle(reader.bundle(Bundle(index=2, width=1))) == ENTRIES[512:513]

    @pytest.mark.parametrize("bundle", [Bundle(index=2, width=89), Bundle(index=2), Bundle(index=3, width=1)])
    def test_bundles_beyond_it_are_not_shown(self, reader: Reader, bundle: Bundle) -> None:
        require_not_published(lambda: reader.bundle(bundle))

    @pytest.mark.parametrize(("start", "end"), [(0, 600), (0, 1), (63, 65), (100, 300), (590, 600), (590, 10_000)])
    def test_entries_come_as_far_as_published(self, reader: Reader, start: int, end: int) -> None:
        assert reader.entries(start=start, end=end, entry_bytes_max=10**6) == ENTRIES[start : min(end, PUBLISHED)]

    @pytest.mark.parametrize(("bytes_max", "count"), [(1, 1), (8, 2), (9, 2), (10_000, 600)])
    def test_entries_end_early_when_they_get_large(self, reader: Reader, bytes_max: int, count: int) -> None:
        found = reader.entries(start=0, end=600, entry_bytes_max=bytes_max)
        assert found == ENTRIES[: len(found)]
        assert len(found) == count

    @pytest.mark.parametrize(("start", "end"), [(600, 601), (599, 599), (5, 4), (2**63 - 2, 2**63 - 1)])
    def test_no_entries_is_not_found(self, reader: Reader, start: int, end: int) -> None:
        require_not_published(lambda: reader.entries(start=start, end=end, entry_bytes_max=10))


class TestProofs:
    @pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 400, 511, 512, 513, 600])
    def test_inclusion_at_any_size(self, reader: Reader, size: int) -> None:
        for index in sorted({0, size // 3, size // 2, size - 1}):
            found = reader.inclusion(index=index, size=size)
            assert (found.index, found.size, found.root) == (index, size, TREE.root(0, size))
            assert found.leaf_hash == hash_leaf(ENTRIES[index])
            verify_inclusion(leaf_hash=found.leaf_hash, index=index, size=size, proof=found.proof, root=TREE.root(0, size))

    def test_inclusion_is_at_the_published_size_by_default(self, reader: Reader) -> None:
        assert reader.inclusion(index=5).size == PUBLISHED

    @pytest.mark.parametrize(("index", "size"), [(600, None), (600, 601), (5, 601), (650, 700), (2**62, None), (600, 600)])
    def test_inclusion_beyond_the_published_tree_may_come_later(self, reader: Reader, index: int, size: int | None) -> None:
        require_not_published(lambda: reader.inclusion(index=index, size=size))

    @pytest.mark.parametrize(("index", "size"), [(5, 5), (5, 0), (599, 3)])
    def test_inclusion_in_a_smaller_tree_will_never_be(self, reader: Reader, index: int, size: int) -> None:
        with pytest.raises(NotFoundError) as caught:
            reader.inclusion(index=index, size=size)
        assert caught.value.retry_after_ms is None

    @pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 2), (3, 600), (256, 257), (255, 512), (599, 600), (600, 600)])
    def test_consistency_between_any_sizes(self, reader: Reader, old: int, new: int) -> None:
        proof = reader.consistency(old=old, new=new)
        verify_consistency(old=old, old_root=TREE.root(0, old), new=new, new_root=TREE.root(0, new), proof=proof)

    @pytest.mark.parametrize(("old", "new"), [(0, 5), (0, 0), (6, 5)])
    def test_consistency_the_wrong_way_is_refused(self, reader: Reader, old: int, new: int) -> None:
        with pytest.raises(ConsistencyError):
            reader.consistency(old=old, new=new)

    def test_consistency_beyond_the_published_tree_may_come_later(self, reader: Reader) -> None:
        require_not_published(lambda: reader.consistency(old=1, new=601))

    @pytest.mark.parametrize("damage", [Tile(level=0, index=0), Tile(level=1, index=0, width=2)])
    def test_tiles_that_do_not_verify_are_corruption(self, disk: MemoryDisk, damage: Tile) -> None:
        data = disk.tiles[damage.level, damage.index]
        disk.tiles[damage.level, damage.index] = bytes([data[0] ^ 1]) + data[1:]
        calls: Sequence[Callable[[Reader], object]] = [
            lambda reader: reader.inclusion(index=5),
            lambda reader: reader.consistency(old=5, new=600),
            lambda reader: reader.receipt(index=5),
        ]
        for call in calls:
            with pytest.raises(CorruptionError):
                call(open_reader(disk))

    def test_a_proof_reads_the_store_once(self, disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Sequence[Tile]] = []
        read_tiles = MemoryStore.read_tiles

        def noted(store: MemoryStore, tiles: Sequence[Tile]) -> list[bytes]:
            asked.append(tiles)
            return read_tiles(store, tiles)

        monkeypatch.setattr(MemoryStore, "read_tiles", noted)
        reader = open_reader(disk)
        reader.inclusion(index=5)
        assert len(asked) == 1
        reader.inclusion(index=6)
        assert len(asked) == 1
        reader.consistency(old=300, new=600)
        assert asked[1:] == [[Tile(level=0, index=1)]]

    def test_a_tile_that_was_dropped_and_is_damaged_since_is_corruption(self, disk: MemoryDisk) -> None:
        reader = Reader(store=MemoryStore(disk), published=read_published(checkpoint(PUBLISHED)), cache=TileCache(tiles_max=1))
        good = disk.tiles[0, 0]
        for index in (5, 300, 5):
            assert reader.inclusion(index=index).root == TREE.root(0, PUBLISHED)
        for at in (32 * 4, 32 * 5, 32 * 15 + 31):
            disk.tiles[0, 0] = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
            with pytest.raises(CorruptionError, match="tile/0/000"):
                reader.inclusion(index=5)
        disk.tiles[0, 0] = good
        assert reader.inclusion(index=5).leaf_hash == hash_leaf(ENTRIES[5])

    def test_a_published_root_of_another_tree_is_corruption(self, disk: MemoryDisk) -> None:
        published = replace(read_published(checkpoint(PUBLISHED)), root=TREE.root(0, 599))
        reader = Reader(store=MemoryStore(disk), published=published, cache=TileCache(tiles_max=16))
        for _ in range(2):
            with pytest.raises(CorruptionError):
                reader.inclusion(index=5)
            with pytest.raises(CorruptionError):
                reader.consistency(old=5, new=600)

    def test_lost_tiles_are_corruption(self, disk: MemoryDisk) -> None:
        del disk.tiles[0, 0]
        with pytest.raises(CorruptionError):
            open_reader(disk).inclusion(index=5)


class TestCheckpoints:
    def test_the_published_one_by_default_and_by_size(self, reader: Reader) -> None:
        assert reader.checkpoint() == reader.checkpoint(size=PUBLISHED) == checkpoint(PUBLISHED).note

    @pytest.mark.parametrize("size", KEPT)
    def test_kept_ones_by_size(self, reader: Reader, size: int) -> None:
        assert reader.checkpoint(size=size) == checkpoint(size).note

    @pytest.mark.parametrize(
        ("size", "nearest"), [(1, "0, 3"), (4, "3, 257"), (258, "257, 400"), (401, "400, 600"), (650, "400"), (2**62, "400")]
    )
    def test_another_size_names_the_nearest(self, reader: Reader, size: int, nearest: str) -> None:
        with pytest.raises(NotFoundError) as caught:
            reader.checkpoint(size=size)
        assert caught.value.code == "not-kept"
        assert caught.value.detail.endswith(f"of size {nearest}")

    def test_where_none_is_near_it_says_so(self, disk: MemoryDisk) -> None:
        disk.kept.clear()
        disk.latest = None
        with pytest.raises(NotFoundError, match="none"):
            open_reader(disk).checkpoint(size=7)

    @pytest.mark.parametrize(
        "stored",
        [
            StoredCheckpoint(size=3, note=b"no note"),
            StoredCheckpoint(size=4, note=checkpoint(3).note),
            StoredCheckpoint(size=3, note=sign_note("no checkpoint\n", [KeySigner(SKEY)], time_s=1)),
        ],
    )
    def test_what_is_stored_and_does_not_parse_is_corruption(self, disk: MemoryDisk, stored: StoredCheckpoint) -> None:
        with pytest.raises(CorruptionError):
            read_published(stored)
        disk.kept = {stored.size: stored}
        with pytest.raises(CorruptionError):
            open_reader(disk).receipt(index=0)


class TestReceipts:
    def verify(self, receipt: bytes, index: int, size: int) -> None:
        parsed = parse_receipt(receipt)
        assert parsed.index == index
        verified = verify_receipt(parsed, leaf_hash=hash_leaf(ENTRIES[index]), policy=POLICY)
        assert verified.checkpoint.checkpoint.size == size
        with pytest.raises(InclusionError):
            verify_receipt(parsed, leaf_hash=hash_leaf(b"another entry"), policy=POLICY)

    @pytest.mark.parametrize(
        ("index", "size"), [(0, 3), (2, 3), (3, 257), (256, 257), (257, 400), (399, 400), (400, 600), (599, 600)]
    )
    def test_are_at_the_first_kept_checkpoint_that_covers(self, reader: Reader, index: int, size: int) -> None:
        self.verify(reader.receipt(index=index), index, size)

    @pytest.mark.parametrize("size", [3, 257, 400, 600])
    def test_by_size(self, reader: Reader, size: int) -> None:
        self.verify(reader.receipt(index=1, size=size), 1, size)
        assert reader.receipt(index=1, size=size) == reader.receipt(index=1, size=size)

    def test_of_a_size_that_was_not_kept_name_the_nearest(self, reader: Reader) -> None:
        with pytest.raises(NotFoundError) as caught:
            reader.receipt(index=1, size=300)
        assert caught.value.code == "not-kept"
        assert "257, 400" in caught.value.detail

    def test_of_a_size_before_the_entry_will_never_be(self, reader: Reader) -> None:
        with pytest.raises(NotFoundError) as caught:
            reader.receipt(index=300, size=257)
        assert caught.value.retry_after_ms is None

    @pytest.mark.parametrize("index", [600, 650, 700, 2**63 - 1])
    def test_of_what_is_not_published_come_later(self, reader: Reader, index: int) -> None:
        require_not_published(lambda: reader.receipt(index=index))

    def test_a_checkpoint_ahead_of_the_published_one_is_not_used(self, disk: MemoryDisk) -> None:
        """Stored a moment ago, and not shown yet."""
        reader = open_reader(disk, size=LAST_KEPT)
        require_not_published(lambda: reader.receipt(index=LAST_KEPT))
        self.verify(reader.receipt(index=LAST_KEPT - 1), LAST_KEPT - 1, LAST_KEPT)

    def test_in_a_row_share_the_published_checkpoint(self, reader: Reader) -> None:
        receipts = reader.receipts(first=250, count=10)
        assert len(receipts) == 10
        for index, receipt in enumerate(receipts, start=250):
            self.verify(receipt, index, PUBLISHED)
        require_not_published(lambda: reader.receipts(first=599, count=2))
        assert reader.receipts(first=0, count=0) == []

    def test_of_another_log_do_not_verify(self, reader: Reader) -> None:
        other = SKey(name="log.example/other", type=KeyType.ED25519, seed=bytes(32))
        policy = parse_policy(f"log {other.vkey}\nquorum none\n".encode())
        with pytest.raises(SignatureError):
            verify_receipt(parse_receipt(reader.receipt(index=0)), leaf_hash=hash_leaf(ENTRIES[0]), policy=policy)

    def test_a_kept_checkpoint_of_another_tree_is_corruption(self, disk: MemoryDisk) -> None:
        text = format_checkpoint(Checkpoint(origin=META.origin, size=257, root=bytes(32)))
        disk.kept[257] = StoredCheckpoint(size=257, note=sign_note(text, [KeySigner(SKEY)], time_s=1))
        with pytest.raises(CorruptionError, match="not of its tree"):
            open_reader(disk).receipt(index=100)


def test_an_empty_log_has_a_checkpoint_and_nothing_else(disk: MemoryDisk) -> None:
    reader = open_reader(disk, size=0)
    assert reader.checkpoint() == checkpoint(0).note
    assert reader.published == Published(size=0, root=TREE.root(0, 0), note=checkpoint(0).note)
    for call in (
        lambda: reader.receipt(index=0),
        lambda: reader.inclusion(index=0),
        lambda: reader.tile(Tile(level=0, index=0, width=1)),
        lambda: reader.entries(start=0, end=1, entry_bytes_max=1),
    ):
        require_not_published(call)
