"""Backups of a log of events, and what comes back from them: payloads, blobs, keys, and the rows that are made anew.

Rules: the logs are made by faults/made_events.py, and read from rows in memory or from their directories; what is restored must
be the log row by row.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from faults.made_events import (
    AGENT,
    FEED,
    WEB,
    Dice,
    MadeEvents,
    Maker,
    event_of,
    grow_events,
    make_events,
    open_vault,
    read_events,
)
from faults.made_store import POLICY
from faults.row_source import RowStore, check_rows, named, rows_of

from log.sources import MemorySource, TreeLog
from log.test_backup import Stopped, failing, quiet, snapshot
from translog.core.tile import bundles_of
from translog.errors import CorruptionError, SettingsError, StorageError
from translog.log.backup import Copied, back_up
from translog.log.drafts import Conflict, Draft, Note, Placed
from translog.log.fsck import Checker, Report
from translog.log.keystore import copy_vault, open_keys, read_key_ids, require_apart
from translog.log.vault import KEYS_FILE, Vault
from translog.maintenance import Restored, backup_log, check_log, restore_log
from translog.storage import keyspace
from translog.storage.folder import Folder
from translog.storage.source import Damage

BATCH = 51
"""Entries of a commit."""


def commits(count: int, maker: Maker) -> Iterator[list[Draft | Note]]:
    """So many commits of 50 events of three streams and an entry of another kind: with ids, blobs, conflicts, never given."""
    yield from islice(_commits(maker), count)


def _commits(maker: Maker) -> Iterator[list[Draft | Note]]:
    for number in range(0, 10_000, 50):
        batch: list[Draft | Note] = []
        for n in range(number, number + 50):
            stream = (WEB, AGENT, FEED)[n % 3]
            event = event_of(n) | ({"raw_data": "x" * 300} if n % 10 == 0 else {})
            if stream is FEED:
                batch.append(maker.sealed_elsewhere(FEED, n // 3, b"\x07%d" % n if n % 2 else None))
            else:
                seq = n // 3 if stream is AGENT else None
                batch.append(maker.draft(stream, event, uid=f"event-{n}" if stream is WEB and n % 4 else None, seq=seq))
        yield [*batch, Note(entry=b"other %d" % number)]


def made_of(directory: Path, count: int) -> MadeEvents:
    return make_events(directory, partial(commits, count))  # type: ignore[arg-type]  # one batch after the other


OLD, NEW = 6, 12


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, MadeEvents]:
    """The same log at two sizes, by commits."""
    home = tmp_path_factory.mktemp("logs")
    return {count: made_of(home / f"log-{count}", count) for count in (OLD, NEW)}


@pytest.fixture(scope="module")
def rows(logs: Mapping[int, MadeEvents]) -> dict[int, dict[bytes, bytes]]:
    return {count: rows_of(made) for count, made in logs.items()}


@pytest.fixture
def log(logs: Mapping[int, MadeEvents], tmp_path: Path) -> MadeEvents:
    """A copy of the smaller log, to change."""
    shutil.copytree(logs[OLD].directory, tmp_path / "log")
    return MadeEvents(directory=tmp_path / "log", size=logs[OLD].size)


def copy(rows: Mapping[bytes, bytes], folder: Path, **options: Any) -> Copied:
    return back_up(RowStore(rows), Folder(folder), policy=POLICY, progress=quiet, **options)


def fsck(folder: Path, made: MadeEvents) -> Report:
    """What fsck makes of a backup, with the keys of the log."""
    keys = partial(open_keys, made.vault, made.directory / "keys" / "kek.key")
    return Checker(partial(Folder, folder), policy=POLICY, processes=1, progress=quiet, open_keys=keys).run()


def require_whole(folder: Path, made: MadeEvents, *, size: int, payloads: int) -> None:
    report = fsck(folder, made)
    assert named(report) == []
    assert (report.size, Folder(folder).payloads_end()) == (size, payloads)
    events = list(range(payloads))
    opened = [n for n in events if n % BATCH != 50 and (n // BATCH * 50 + n % BATCH) % 3 != 2]
    assert report.good.get("payloads", 0) == len(opened)


def backup(made: MadeEvents, folder: Path, vault: Path | None = None) -> tuple[Copied, list[Damage]]:
    told: list[Damage] = []
    copied = backup_log(str(made.directory), folder, policy=None, token=None, progress=quiet, tell=told.append, vault=vault)
    return copied, told


def restore(source: object, target: Path, **options: Any) -> tuple[Restored, list[Damage]]:
    told: list[Damage] = []
    options = {"policy": None, "keys": None, "head": None, "token": None, "progress": quiet, "tell": told.append} | options
    return restore_log(str(source), target, **options), told


# --- what a backup holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [OLD, NEW])
def test_a_backup_has_every_row_and_blob_and_is_whole(
    tmp_path: Path, logs: Mapping[int, MadeEvents], rows: dict[int, dict[bytes, bytes]], count: int
) -> None:
    made = logs[count]
    copied = copy(rows[count], tmp_path / "out", dedup_key=b"key\n")
    assert copied.payloads == made.size == count * BATCH
    require_whole(tmp_path / "out", made, size=made.size, payloads=made.size)
    reads = list(Folder(tmp_path / "out").events(bundles_of(start=0, end=made.size)))
    assert reads == list(RowStore(rows[count]).events(bundles_of(start=0, end=made.size)))
    assert {name for name in snapshot(tmp_path / "out") if name.startswith("private/")} == {
        "private/dedup.key",
        "private/dedup.key.sha256",
        *(f"private/payloads/{index:03}" for index in range(made.size // 256)),
        f"private/payloads/{made.size // 256:03}.p/{made.size % 256}",
    }
    key_id = made.opened_vault().current("acme")[0]
    assert sum(copied.key_ids.values()) == sum(read.row is not None and key_id in read.row[:60] for read in reads)


def test_a_backup_continued_is_the_same_as_one_made_at_once(tmp_path: Path, rows: dict[int, dict[bytes, bytes]]) -> None:
    copy(rows[OLD], tmp_path / "out")
    copied = copy(rows[NEW], tmp_path / "out")
    assert copied.new_entries == (NEW - OLD) * BATCH
    copy(rows[NEW], tmp_path / "fresh")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")
    copy(rows[NEW], tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_a_backup_continued_within_its_last_bundle_keeps_one_file_of_it(
    tmp_path: Path, rows: dict[int, dict[bytes, bytes]]
) -> None:
    made = made_of(tmp_path / "log", OLD + 1)
    copy(rows[OLD], tmp_path / "out")
    copy(rows_of(made), tmp_path / "out")
    copy(rows_of(made), tmp_path / "fresh")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")
    assert [path.name for path in (tmp_path / "out/private/payloads/001.p").iterdir()] == [str(7 * BATCH - 256)]


def test_full_bundles_are_written_once(tmp_path: Path, rows: dict[int, dict[bytes, bytes]]) -> None:
    copy(rows[OLD], tmp_path / "out")
    full = tmp_path / "out" / "private" / "payloads" / "000"
    before = full.stat().st_mtime_ns, full.stat().st_ino
    copy(rows[NEW], tmp_path / "out")
    assert (full.stat().st_mtime_ns, full.stat().st_ino) == before


class WithoutPayloads:
    """See TreeSource: a log of events as it is over HTTP."""

    def __init__(self, rows: Mapping[bytes, bytes]) -> None:
        self._store = RowStore(rows)
        for name in ("contents", "checkpoints", "bundles", "tiles", "strays", "close"):
            setattr(self, name, getattr(self._store, name))

    resource_of_entries = "bundle"


def test_a_log_over_http_gives_no_payloads_and_the_backup_says_so(
    tmp_path: Path, logs: Mapping[int, MadeEvents], rows: dict[int, dict[bytes, bytes]]
) -> None:
    folder = tmp_path / "out"
    copied = back_up(WithoutPayloads(rows[OLD]), Folder(folder), policy=POLICY, progress=quiet)  # type: ignore[arg-type]
    assert copied.payloads == 0
    require_whole(folder, logs[OLD], size=OLD * BATCH, payloads=0)
    report = fsck(folder, logs[OLD])
    assert (
        f"the payloads of entries 0 to {OLD * BATCH - 1} are not here: they were copied from a log over HTTP" in report.remarks
    )
    copy(rows[OLD], folder)
    require_whole(folder, logs[OLD], size=OLD * BATCH, payloads=OLD * BATCH)
    copied = back_up(WithoutPayloads(rows[NEW]), Folder(folder), policy=POLICY, progress=quiet)  # type: ignore[arg-type]
    assert copied.payloads == OLD * BATCH
    require_whole(folder, logs[NEW], size=NEW * BATCH, payloads=OLD * BATCH)
    copy(rows[NEW], folder)
    copy(rows[NEW], tmp_path / "fresh")
    assert snapshot(folder) == snapshot(tmp_path / "fresh")


def test_an_opaque_log_has_nothing_private(tmp_path: Path) -> None:
    copied = back_up(MemorySource(TreeLog(), 20, 20), Folder(tmp_path / "out"), policy=None, progress=quiet)
    assert copied.payloads is None
    assert not (tmp_path / "out" / "private").exists()
    assert b"backup/1" in (tmp_path / "out" / "backup.json").read_bytes()
    assert Folder(tmp_path / "out").payloads_end() is None


# --- damage -------------------------------------------------------------------------------------------------------------


def test_what_is_lost_is_told_and_the_rest_copied(
    tmp_path: Path, logs: Mapping[int, MadeEvents], rows: dict[int, dict[bytes, bytes]]
) -> None:
    lost = {keyspace.payload_key(index) for index in (3, 4, 5, 260)} | {keyspace.blob_key(0, 0)}
    damaged = {key: value for key, value in rows[OLD].items() if key not in lost} | {keyspace.payload_key(7): b"\xff"}
    told: list[Damage] = []
    copy(damaged, tmp_path / "out", tell=told.append)
    assert [(damage.resource, damage.problem) for damage in told] == [
        ("blob 0 of payload 0", "is missing"),
        ("payloads 3 to 5", "is missing"),
        ("payload 7", "is not what this program writes there"),
        ("payload 260", "is missing"),
    ]
    report = fsck(tmp_path / "out", logs[OLD])
    assert report.bad == {"payloads": 5, "blobs": 1}
    assert {damage.resource for damage in report.damages} == {"private/payloads/000", "private/payloads/001"}
    with pytest.raises(CorruptionError, match="blob 0 of payload 0"):
        copy(damaged, tmp_path / "other")


def test_a_payload_that_the_backup_has_is_not_given_up_for_none(
    tmp_path: Path, logs: Mapping[int, MadeEvents], rows: dict[int, dict[bytes, bytes]]
) -> None:
    """Its last bundle is written anew, from a log that has lost what the backup has."""
    copy(rows[OLD], tmp_path / "out")
    index = OLD * BATCH - 10
    assert index > 256
    damaged = {key: value for key, value in rows[NEW].items() if key != keyspace.payload_key(index)}
    copy(damaged, tmp_path / "out")
    require_whole(tmp_path / "out", logs[NEW], size=NEW * BATCH, payloads=NEW * BATCH)


def test_every_flipped_byte_of_the_private_files_is_named(
    tmp_path: Path, logs: Mapping[int, MadeEvents], rows: dict[int, dict[bytes, bytes]]
) -> None:
    """With the keys and without."""
    folder = tmp_path / "out"
    copy(rows[OLD], folder)
    for path in sorted((folder / "private" / "payloads").rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        for at in [*range(200), *range(200, len(data), 997), len(data) - 1]:
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
            report = Checker(partial(Folder, folder), policy=POLICY, processes=1, progress=quiet).run()
            assert report.bad.keys() == {"payloads"}
            name = path.relative_to(folder).as_posix().partition(".p/")[0]
            assert {damage.resource for damage in report.damages} == {name}
        path.write_bytes(data)


def test_every_flipped_byte_of_the_dedup_key_is_named_and_mended_by_the_next_backup(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    for name in ("dedup.key", "dedup.key.sha256"):
        path = tmp_path / "out" / "private" / name
        data = path.read_bytes()
        for changed in [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))] + [b"", data[:-1]]:
            path.write_bytes(changed)
            report = check_log(str(tmp_path / "out"), policy=POLICY, token=None, processes=1, progress=quiet)
            assert [damage.resource for damage in report.damages] == ["private/dedup.key"]
        path.unlink()
        report = check_log(str(tmp_path / "out"), policy=POLICY, token=None, processes=1, progress=quiet)
        assert [damage.resource for damage in report.damages] == ["private/dedup.key"]
        backup(log, tmp_path / "out")
        assert snapshot(tmp_path / "out") == before


def test_files_exchanged_between_bundles_are_named(
    tmp_path: Path, logs: Mapping[int, MadeEvents], rows: dict[int, dict[bytes, bytes]]
) -> None:
    folder = tmp_path / "out"
    copy(rows[NEW], folder)
    one, other = folder / "private/payloads/000", folder / "private/payloads/001"
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    assert fsck(folder, logs[NEW]).bad["payloads"] > 400


def test_a_lost_file_is_named(tmp_path: Path, logs: Mapping[int, MadeEvents], rows: dict[int, dict[bytes, bytes]]) -> None:
    folder = tmp_path / "out"
    copy(rows[NEW], folder)
    (folder / "private/payloads/001").unlink()
    report = fsck(folder, logs[NEW])
    assert report.bad == {"payloads": 256}
    assert "is missing, with its file private/payloads/001" in report.damages[0].problem


def test_another_dedup_key_than_the_backups_is_refused(tmp_path: Path, rows: dict[int, dict[bytes, bytes]]) -> None:
    copy(rows[OLD], tmp_path / "out", dedup_key=b"key\n")
    before = snapshot(tmp_path / "out")
    with pytest.raises(SettingsError) as caught:
        copy(rows[NEW], tmp_path / "out", dedup_key=b"other\n")
    assert caught.value.code == "bad-key"
    assert snapshot(tmp_path / "out") == before
    copy(rows[NEW], tmp_path / "out")  # lost, which whoever calls tells
    assert Folder(tmp_path / "out").private.read_key() == b"key\n"


# --- broken off ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), Stopped()], ids=["full", "stopped"])
@pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("what", "first"), [(what, first) for what in ("fsync", "replace", "unlink") for first in (True, False)]
)
def test_broken_off_at_every_step_the_old_backup_is_whole_and_the_next_run_completes_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logs: Mapping[int, MadeEvents],
    rows: dict[int, dict[bytes, bytes]],
    what: str,
    applied: bool,
    error: BaseException,
    first: bool,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    copy(rows[NEW], tmp_path / "fresh", dedup_key=b"key\n")
    expected = snapshot(tmp_path / "fresh")
    copy(rows[OLD], tmp_path / "old", dedup_key=b"key\n")
    steps, broken = 0, True
    while broken:
        folder = tmp_path / f"out-{steps}"
        if not first:
            shutil.copytree(tmp_path / "old", folder)
        broken = False
        with failing(monkeypatch, what, steps, error, applied=applied):
            try:
                copy(rows[NEW], folder, dedup_key=b"key\n")
            except (StorageError, Stopped):
                broken = True
        if broken and (folder / "backup.json").exists():
            size = Folder(folder).read_backup().state.size  # type: ignore[union-attr]
            assert size in ((NEW * BATCH,) if first else (OLD * BATCH, NEW * BATCH))
            require_whole(folder, logs[NEW], size=size, payloads=size)
        copy(rows[NEW], folder, dedup_key=b"key\n")
        assert snapshot(folder) == expected
        shutil.rmtree(folder)
        steps += 1
    assert steps > 1 or (what == "unlink" and first)


# --- the key store ------------------------------------------------------------------------------------------------------


def test_the_key_store_is_copied_apart_and_replaced_whole(log: MadeEvents, tmp_path: Path) -> None:
    copied, told = backup(log, tmp_path / "out", tmp_path / "keys")
    assert told == []
    assert (tmp_path / "keys" / KEYS_FILE).read_bytes() == (log.vault / KEYS_FILE).read_bytes()
    assert [(path.stat().st_mode & 0o777) for path in (tmp_path / "keys", tmp_path / "keys" / KEYS_FILE)] == [0o700, 0o600]
    assert copied.payloads == log.size
    assert KEYS_FILE not in {Path(name).name for name in snapshot(tmp_path / "out")}
    assert (tmp_path / "out/private/dedup.key").read_bytes() == (log.directory / "keys/dedup.key").read_bytes()
    kek = (log.directory / "keys" / "kek.key").read_bytes().strip()
    everything = b"".join(snapshot(tmp_path / "out").values()) + b"".join(snapshot(tmp_path / "keys").values())
    assert kek not in everything
    grow_events(log.directory, lambda maker: [[maker.draft(WEB._replace(member="new"), event_of(1))]], dice=Dice(90))
    backup(log, tmp_path / "out", tmp_path / "keys")
    assert {key_id.partition(b"/")[0] for key_id in read_key_ids(tmp_path / "keys")} == {b"acme", b"new"}


@pytest.mark.parametrize("where", ["out", "out/keys", "."])
def test_the_key_store_does_not_go_where_the_backup_is(log: MadeEvents, tmp_path: Path, where: str) -> None:
    with pytest.raises(SettingsError, match="are not apart"):
        backup(log, tmp_path / "here" / "out", tmp_path / "here" / where)
    assert not (tmp_path / "here").exists()
    require_apart(tmp_path / "one", tmp_path / "one-more")


def test_a_copy_with_keys_that_the_vault_lacks_is_never_overwritten(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out", tmp_path / "keys")
    before = (tmp_path / "keys" / KEYS_FILE).read_bytes()
    shutil.rmtree(log.vault)
    Vault.create(log.vault)
    with pytest.raises(SettingsError) as caught:
        backup(log, tmp_path / "out", tmp_path / "keys")
    assert caught.value.code == "vault-is-newer"
    assert (tmp_path / "keys" / KEYS_FILE).read_bytes() == before
    _, told = backup(log, tmp_path / "new", tmp_path / "other")
    lost = [damage for damage in told if damage.resource == "the key store"]
    assert len(lost) == 1
    assert lost[0].problem.startswith("lacks the keys of ")


def test_a_damaged_vault_is_not_copied_over_a_good_one(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out", tmp_path / "keys")
    good = (log.vault / KEYS_FILE).read_bytes()
    for data in (b"", good[:-1], good.replace(b'"wrapped"', b'"Wrapped"')):
        (log.vault / KEYS_FILE).write_bytes(data)
        with pytest.raises(CorruptionError):
            copy_vault(log.vault, tmp_path / "keys")
        assert (tmp_path / "keys" / KEYS_FILE).read_bytes() == good
    (log.vault / KEYS_FILE).unlink()
    with pytest.raises(SettingsError) as caught:
        copy_vault(log.vault, tmp_path / "keys")
    assert caught.value.code == "no-vault"
    (log.vault / KEYS_FILE).write_bytes(good)
    (log.vault / KEYS_FILE).chmod(0o600)
    (tmp_path / "keys" / KEYS_FILE).write_bytes(b"damaged")
    with pytest.raises(CorruptionError):
        copy_vault(log.vault, tmp_path / "keys")


@pytest.mark.parametrize("at", range(3))
def test_a_copy_of_the_key_store_that_is_broken_off_leaves_the_old_one(
    log: MadeEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    copy_vault(log.vault, tmp_path / "keys")
    before = (tmp_path / "keys" / KEYS_FILE).read_bytes()
    grow_events(log.directory, lambda maker: [[maker.draft(WEB._replace(member="new"), event_of(1))]], dice=Dice(90))
    after = (log.vault / KEYS_FILE).read_bytes()
    with failing(monkeypatch, "fsync" if at < 2 else "replace", at % 2, Stopped(), applied=False), pytest.raises(Stopped):
        copy_vault(log.vault, tmp_path / "keys")
    assert (tmp_path / "keys" / KEYS_FILE).read_bytes() in (before, after)
    copy_vault(log.vault, tmp_path / "keys")
    assert (tmp_path / "keys" / KEYS_FILE).read_bytes() == after


# --- restored -----------------------------------------------------------------------------------------------------------


def test_what_is_restored_is_the_log_row_by_row(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out", tmp_path / "vault")
    restored, told = restore(
        tmp_path / "out",
        tmp_path / "new",
        vault=tmp_path / "vault",
        keys=log.directory / "keys",
        head=log.directory / "head",
    )
    assert (told, restored.held, restored.unreadable) == ([], None, 0)
    new = MadeEvents(directory=tmp_path / "new", size=log.size)
    assert rows_of(new) == rows_of(log)
    assert new.events() == log.events()
    assert not [event for event in new.events() if isinstance(event, str) and "is not an event" not in event]
    assert {path.name: path.read_bytes() for path in (new.directory / "keys").iterdir()} == {
        path.name: path.read_bytes() for path in (log.directory / "keys").iterdir()
    }
    report = check_log(str(new.directory), policy=None, token=None, processes=1, progress=quiet)
    assert named(report) == []


def test_ids_that_are_taken_and_entries_of_other_kinds_come_back(tmp_path: Path) -> None:
    log = make_events(tmp_path / "log")
    backup(log, tmp_path / "out", tmp_path / "vault")
    assert restore(tmp_path / "out", tmp_path / "new", vault=tmp_path / "vault", keys=log.directory / "keys")[1] == []
    assert rows_of(MadeEvents(directory=tmp_path / "new", size=log.size)) == rows_of(log)


def test_a_damaged_directory_is_restored_from(log: MadeEvents, tmp_path: Path) -> None:
    """Tiles and rows that follow are made anew; its own key store and dedup.key go along."""
    whole = rows_of(log)
    with log.rows() as db, db.write_batch() as batch:
        for key in whole:
            if key[:1] in (b"i", b"n", b"q", b"t"):
                batch.delete(key)
    restored, told = restore(log.directory, tmp_path / "new", vault=log.vault, keys=log.directory / "keys")
    assert (told, restored.unreadable) == ([], 0)
    assert rows_of(MadeEvents(directory=tmp_path / "new", size=log.size)) == whole


def test_a_restored_log_knows_what_it_has_and_goes_on_where_it_was(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out", tmp_path / "vault")
    restore(
        tmp_path / "out", tmp_path / "new", vault=tmp_path / "vault", keys=log.directory / "keys", head=log.directory / "head"
    )
    seqs = OLD * 50 // 3

    def again(maker: Maker) -> list[list[Draft | Note]]:
        """The drafts of the first commit once more, then an id with other content, and the next of each stream."""
        first = next(iter(commits(1, Maker(maker.vault))))
        other = maker.draft(WEB, event_of(3) | {"message": "changed"}, uid="event-3")
        return [first[:-1], [other], [maker.draft(AGENT, event_of(8_000), seq=seqs), maker.draft(WEB, event_of(8_001))]]

    size, outcomes = grow_events(tmp_path / "new", again, dice=Dice(5_000))
    placed = [outcome for outcome in outcomes[:50] if isinstance(outcome, Placed)]
    known = [index for index in range(50) if not (index % 3 == 0 and index % 4 == 0)]
    assert len(placed) == 50
    assert [placed[index].duplicate for index in known] == [True] * len(known)
    assert [placed[index].index for index in known] == known
    assert outcomes[50] == Conflict(index=3)
    assert [type(outcome).__name__ for outcome in outcomes[51:]] == ["Placed", "Placed"]
    assert outcomes[51] == Placed(index=size - 2, seq=seqs)
    report = check_log(str(tmp_path / "new"), policy=None, token=None, processes=1, progress=quiet)
    assert named(report) == []


def test_without_its_key_store_a_log_is_not_restored_unless_it_is_given_up(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out", tmp_path / "vault")
    with pytest.raises(SettingsError) as caught:
        restore(tmp_path / "out", tmp_path / "new", keys=log.directory / "keys")
    assert caught.value.code == "no-vault"
    assert f"of {log.size} entries" in caught.value.detail
    assert not (tmp_path / "new").exists()
    restored, told = restore(tmp_path / "out", tmp_path / "new", keys=log.directory / "keys", without_vault=True)
    opened = sum(not isinstance(event, str) and event.payload is not None for event in log.events())
    assert (told, restored.unreadable) == ([], opened)
    assert read_key_ids(tmp_path / "new" / "vault") == set()
    said = {event for event in read_events(tmp_path / "new") if isinstance(event, str) and "is not an event" not in event}
    assert len(said) == 1
    assert f"there is no data key '{log.opened_vault().current('acme')[0].decode()}' in the vault" in said.pop()
    open_vault(tmp_path / "new", dice=3_000).current("acme")
    grow_events(tmp_path / "new", lambda maker: [[maker.draft(WEB, event_of(9_000))]], dice=Dice(6_000))
    report = check_log(str(tmp_path / "new"), policy=None, token=None, processes=1, progress=quiet)
    assert report.bad == {"data keys": 1}
    assert report.good["payloads"] == 1


def test_without_any_key_a_log_that_gives_its_payloads_up_gets_new_ones(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out")
    restore(tmp_path / "out", tmp_path / "new", without_vault=True)
    assert sorted(path.name for path in (tmp_path / "new" / "keys").iterdir()) == ["dedup.key", "kek.key"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "new" / "keys").iterdir())
    grow_events(tmp_path / "new", lambda maker: [[maker.draft(WEB, event_of(9_000))]], dice=Dice(6_000))
    assert not isinstance(read_events(tmp_path / "new")[-1], str)


def test_a_key_store_that_lacks_a_key_says_how_many_payloads_are_lost(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out", tmp_path / "vault")
    grow_events(log.directory, lambda maker: [[maker.draft(WEB._replace(member="new"), event_of(1))]], dice=Dice(90))
    backup(log, tmp_path / "out")
    restored, _ = restore(tmp_path / "out", tmp_path / "new", vault=tmp_path / "vault", keys=log.directory / "keys")
    assert restored.unreadable == 1


def test_keys_that_do_not_belong_together_are_refused(log: MadeEvents, tmp_path: Path) -> None:
    backup(log, tmp_path / "out", tmp_path / "vault")
    shutil.copytree(log.directory / "keys", tmp_path / "keys")
    other = b"A" * 43 + b"=\n"
    for name in ("kek.key", "dedup.key"):
        data = (tmp_path / "keys" / name).read_bytes()
        (tmp_path / "keys" / name).write_bytes(other)
        with pytest.raises(SettingsError) as caught:
            restore(tmp_path / "out", tmp_path / "new", vault=tmp_path / "vault", keys=tmp_path / "keys")
        assert caught.value.code == "bad-key"
        assert not (tmp_path / "new").exists()
        (tmp_path / "keys" / name).write_bytes(data)
    with pytest.raises(SettingsError) as caught:
        restore(tmp_path / "out", tmp_path / "new", vault=tmp_path / "nothing", keys=tmp_path / "keys")
    assert caught.value.code == "no-vault"
    restore(tmp_path / "out", tmp_path / "new", vault=tmp_path / "vault", keys=tmp_path / "keys")


def test_a_lost_dedup_key_is_told_by_the_backup_and_by_the_restore(log: MadeEvents, tmp_path: Path) -> None:
    (log.directory / "keys" / "dedup.key").unlink()
    _, told = backup(log, tmp_path / "out", tmp_path / "vault")
    assert [damage.resource for damage in told] == ["DIR/keys/dedup.key"]
    report = check_log(str(log.directory), policy=None, token=None, processes=1, progress=quiet)
    assert [damage.resource for damage in report.damages] == ["DIR/keys/dedup.key"]
    _, told = restore(tmp_path / "out", tmp_path / "new", vault=tmp_path / "vault", keys=log.directory / "keys")
    assert [damage.resource for damage in told] == ["private/dedup.key", "dedup.key"]
    assert (tmp_path / "new" / "keys" / "dedup.key").stat().st_mode & 0o777 == 0o600


def test_payloads_that_were_lost_stay_lost_and_are_not_called_never_given(log: MadeEvents, tmp_path: Path) -> None:
    with log.rows() as db:
        for index in (1, 2, 3):
            db.delete(keyspace.payload_key(index))
    told: list[Damage] = []
    backup_log(str(log.directory), tmp_path / "out", policy=None, token=None, progress=quiet, tell=told.append)
    _, told = restore(tmp_path / "out", tmp_path / "new", keys=log.directory / "keys", vault=log.vault)
    assert [damage.resource for damage in told] == ["payloads 1 to 3"]
    new = MadeEvents(directory=tmp_path / "new", size=log.size)
    assert not {keyspace.payload_key(index) for index in (1, 2, 3)} & rows_of(new).keys()
    report = check_log(str(new.directory), policy=None, token=None, processes=1, progress=quiet)
    assert report.bad == {"payloads": 3}


def test_a_mirror_without_payloads_is_restored_with_what_is_public(
    tmp_path: Path, log: MadeEvents, rows: dict[int, dict[bytes, bytes]]
) -> None:
    back_up(WithoutPayloads(rows[OLD]), Folder(tmp_path / "out"), policy=POLICY, progress=quiet)  # type: ignore[arg-type]
    _, told = restore(tmp_path / "out", tmp_path / "new", keys=log.directory / "keys", without_vault=True)
    assert [damage.problem for damage in told if damage.resource.startswith("payload")]
    new = rows_of(MadeEvents(directory=tmp_path / "new", size=log.size))
    assert {key for key in new if key[:1] == b"p"} == set()
    for prefix in (b"n", b"q"):
        assert {key: value for key, value in new.items() if key[:1] == prefix} == {
            key: value for key, value in rows[OLD].items() if key[:1] == prefix
        }
    assert check_rows(new, log).bad.keys() == {"payloads"}


def test_what_only_events_have_is_refused_for_an_opaque_log(tmp_path: Path) -> None:
    back_up(MemorySource(TreeLog(), 20, 20), Folder(tmp_path / "out"), policy=None, progress=quiet)
    for options in ({"vault": tmp_path / "vault"}, {"without_vault": True}):
        with pytest.raises(SettingsError, match="no payloads"):
            restore(tmp_path / "out", tmp_path / "new", **options)


def test_a_folder_that_has_lost_its_backup_json_is_public_only(tmp_path: Path, rows: dict[int, dict[bytes, bytes]]) -> None:
    copy(rows[OLD], tmp_path / "out")
    (tmp_path / "out" / "backup.json").unlink()
    assert Folder(tmp_path / "out").payloads_end() is None
    report = Checker(partial(Folder, tmp_path / "out"), policy=POLICY, processes=1, progress=quiet).run()
    assert report.whole
