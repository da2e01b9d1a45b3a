"""A folder of tiles: what backup.json may say, byte for byte, how partial tiles are found, and which folders are taken."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from log.harness import META, POLICY
from log.sources import MemorySource, TreeLog

from translog.core.merkle import EMPTY_ROOT
from translog.core.note import NOTE_BYTES_MAX
from translog.core.tile import Bundle, Tile
from translog.core.wire import SIZE_MAX
from translog.errors import CorruptionError, MalformedError, SettingsError, StorageError, TranslogError
from translog.log.backup import back_up
from translog.storage import folder as module
from translog.storage.folder import Backup, Folder, decode_backup, encode_backup, require_backup_folder
from translog.storage.source import Damage, decode_kept, encode_kept
from translog.storage.store import LogMeta, Profile, StoredCheckpoint, TreeState

LOG = TreeLog()
BACKUP = Backup(
    meta=LogMeta(format_version=1, origin='log.example/t\u00e4st "\\', profile=Profile.EVENTS, minimum_index=7),
    state=TreeState(size=300, root=bytes(range(32)), received_at_ms=1_700_000_000_000),
    latest=StoredCheckpoint(size=290, note="log.example\n290\n\u2014 \u2028\n".encode()),
)
NUMBERS = st.integers(0, SIZE_MAX)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
BACKUPS = st.builds(
    Backup,
    meta=st.builds(LogMeta, format_version=NUMBERS, origin=TEXT, profile=st.sampled_from(Profile), minimum_index=NUMBERS),
    state=st.builds(TreeState, size=NUMBERS, root=st.binary(min_size=32, max_size=32), received_at_ms=NUMBERS),
    latest=st.none() | st.builds(StoredCheckpoint, size=NUMBERS, note=TEXT.map(str.encode)),
)


def fill(path: Path, size: int, latest: int | None = None, kept: tuple[int, ...] = (0,)) -> None:
    """A backup of the test log."""
    source = MemorySource(LOG, size, size if latest is None else latest, kept)
    back_up(source, Folder(path), policy=POLICY, progress=lambda done, total: None)


# --- backup.json --------------------------------------------------------------------------------------------------------


@given(backup=BACKUPS)
@example(backup=BACKUP)
@example(backup=replace(BACKUP, latest=None))
def test_what_a_backup_says_comes_back(backup: Backup) -> None:
    assert decode_backup(encode_backup(backup)) == backup


def test_the_text_is_this() -> None:
    assert encode_backup(BACKUP).decode() == (
        '{\n "translog": "backup/1",\n "format": 1,\n "origin": "log.example/t\u00e4st \\"\\\\",\n "profile": "events",\n'
        ' "minimum_index": 7,\n "size": 300,\n "root": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",\n'
        ' "received_at": 1700000000000,\n "checkpoint": "log.example\\n290\\n\u2014 \u2028\\n",\n "checkpoint_size": 290\n}\n'
    )


def test_every_changed_byte_and_every_shorter_text_is_refused_or_says_what_it_says() -> None:
    """A change inside a value makes another backup; anywhere else it makes none."""
    good = encode_backup(BACKUP)
    for end in range(len(good)):
        with pytest.raises(MalformedError):
            decode_backup(good[:end])
    taken = 0
    for at in range(len(good)):
        for value in {*range(32, 127), 0, 9, 10, 13, 127, 128, 255, good[at] ^ 1} - {good[at]}:
            changed = good[:at] + bytes([value]) + good[at + 1 :]
            try:
                found = decode_backup(changed)
            except MalformedError:
                continue
            except SettingsError:  # of another version
                assert b'"translog": "backup/1"' not in changed
                continue
            taken += 1
            assert encode_backup(found) == changed
            assert found != BACKUP
    assert taken


def test_the_backup_of_an_events_log_says_of_how_many_entries_it_has_payloads() -> None:
    of_events = replace(BACKUP, payloads=280)
    data = encode_backup(of_events)
    assert decode_backup(data) == of_events
    expected = encode_backup(BACKUP).replace(b'"backup/1"', b'"backup/2"')
    assert data == expected.replace(b' "checkpoint":', b' "payloads": 280,\n "checkpoint":')
    for damaged in (data.replace(b"backup/2", b"backup/1"), encode_backup(BACKUP).replace(b"backup/1", b"backup/2")):
        with pytest.raises(MalformedError):
            decode_backup(damaged)


@pytest.mark.parametrize("more", [b"\n", b" ", b"{}", b"\x00"])
def test_nothing_may_come_before_or_after(more: bytes) -> None:
    for data in (encode_backup(BACKUP) + more, more + encode_backup(BACKUP)):
        with pytest.raises(MalformedError):
            decode_backup(data)


def _document(**changes: Any) -> bytes:
    document = json.loads(encode_backup(BACKUP)) | changes
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


WRONG_NUMBERS: list[Any] = [-1, 2**63, 1.0, "1", None, True, [1], {}]
WRONG_TEXTS: list[Any] = [None, 1, ["log"], {}, "\ud800"]


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {name: value}
            for name in ("format", "minimum_index", "size", "received_at", "checkpoint_size")
            for value in WRONG_NUMBERS
        ),
        *({"origin": value} for value in WRONG_TEXTS),
        *({"profile": value} for value in ("", "other", None, 1, "Opaque")),
        *({"root": value} for value in ("", "AAAA", "!" * 44, None, 1, EMPTY_ROOT.hex())),
        *({"checkpoint": value} for value in WRONG_TEXTS),
        {"more": 1},
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match=r"backup\.json is damaged"):
        decode_backup(_document(**changes))


@pytest.mark.parametrize("name", json.loads(encode_backup(BACKUP)))
def test_no_name_may_be_missing_or_come_twice(name: str) -> None:
    document = json.loads(encode_backup(BACKUP))
    value = document.pop(name)
    with pytest.raises(MalformedError):
        decode_backup((json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    line = f' "{name}": {json.dumps(value, ensure_ascii=False)}'
    text = encode_backup(BACKUP).decode()
    assert line in text
    with pytest.raises(MalformedError):
        decode_backup(text.replace(line, f"{line},\n{line}").encode())


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"5", b'"x"', b"{}", b"[" * 100_000, b"\xff", b"9" * 5_000, "{}".encode("utf-16")],
    ids=range(10),
)
def test_what_is_no_backup_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_backup(data)


@pytest.mark.parametrize("version", ["backup/3", "backup/10", "", None, 1, ["backup/1"]])
def test_another_version_is_refused_with_the_way_out(tmp_path: Path, version: object) -> None:
    with pytest.raises(SettingsError) as caught:
        decode_backup(_document(translog=version, unknown=1))
    assert caught.value.code == "backup-version"
    assert "a newer one" in caught.value.hint
    (tmp_path / "backup.json").write_bytes(_document(translog=version))
    for call in (Folder(tmp_path).contents, Folder(tmp_path).read_backup):
        with pytest.raises(SettingsError):
            call()


def test_the_largest_checkpoint_fits(tmp_path: Path) -> None:
    note = b"\n" * (NOTE_BYTES_MAX - 1) + b'"'
    backup = replace(BACKUP, latest=StoredCheckpoint(size=1, note=note))
    Folder(tmp_path).finish(backup)
    assert Folder(tmp_path).read_backup() == backup


# --- kept checkpoints ---------------------------------------------------------------------------------------------------


@given(kept=st.builds(StoredCheckpoint, size=NUMBERS, note=TEXT.map(str.encode)))
def test_a_kept_checkpoint_is_one_line(kept: StoredCheckpoint) -> None:
    line = encode_kept(kept)
    assert line.count(b"\n") == 1
    assert decode_kept(line) == kept


def test_every_changed_byte_of_a_kept_checkpoint_is_refused_or_is_another() -> None:
    kept = StoredCheckpoint(size=12, note=LOG.checkpoint(12).note)
    line = encode_kept(kept)
    for at in range(len(line)):
        for value in set(range(256)) - {line[at]}:
            changed = line[:at] + bytes([value]) + line[at + 1 :]
            try:
                found = decode_kept(changed)
            except MalformedError:
                continue
            assert found != kept
            assert encode_kept(found) == changed


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"[" * 100_000,
        b'{"size":1}\n',
        b'{"note":"x"}\n',
        b'{"size":true,"note":"x"}\n',
        b'{"size":1.0,"note":"x"}\n',
        b'{"size":-1,"note":"x"}\n',
        b'{"size":9223372036854775808,"note":"x"}\n',
        b'{"size":1,"note":null}\n',
        b'{"size":1,"note":"\\ud800"}\n',
        b'{"size":1,"note":"x"}',
        b'{"size":1,"note":"x"}\n\n',
        b'{"size": 1,"note":"x"}\n',
        b'{"note":"x","size":1}\n',
        b'{"size":1,"size":1,"note":"x"}\n',
        b'{"size":1,"note":"x","more":1}\n',
        b"5\n",
        b"\xff\n",
    ],
    ids=range(19),
)
def test_what_is_no_kept_checkpoint_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_kept(line)


def test_a_damaged_line_hides_no_other(tmp_path: Path) -> None:
    fill(tmp_path, 20, kept=(0, 7, 20))
    path = tmp_path / "checkpoints.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"noise\n" + lines[2])
    folder = Folder(tmp_path)
    folder.contents()
    found = list(folder.checkpoints())
    assert [getattr(item, "size", None) for item in found] == [0, None, 20]
    assert found[1] == Damage(resource="checkpoints.ndjson, line 2", problem="is not a kept checkpoint")
    assert [getattr(item, "size", None) for item in folder.checkpoints(size_min=8)] == [None, 20]


def test_kept_checkpoints_beyond_the_backup_do_not_count(tmp_path: Path) -> None:
    fill(tmp_path, 20, 10, kept=(0, 7))
    with (tmp_path / "checkpoints.ndjson").open("ab") as file:
        for size in (10, 11, 20, 21):
            file.write(encode_kept(LOG.checkpoint(size)))
    folder = Folder(tmp_path)
    folder.contents()
    assert [getattr(item, "size", None) for item in folder.checkpoints()] == [0, 7, 10]


def test_a_folder_whose_kept_checkpoints_cannot_be_read_says_so(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    (tmp_path / "checkpoints.ndjson").unlink()
    assert list(Folder(tmp_path).checkpoints()) == []
    (tmp_path / "checkpoints.ndjson").mkdir()
    (found,) = Folder(tmp_path).checkpoints()
    assert found == Damage(resource="checkpoints.ndjson", problem="cannot be read: Is a directory")


# --- what it holds ------------------------------------------------------------------------------------------------------


def test_without_backup_json_it_is_the_tree_of_its_checkpoint(tmp_path: Path) -> None:
    fill(tmp_path, 20, 10)
    (tmp_path / "backup.json").unlink()
    contents = Folder(tmp_path).contents()
    assert (contents.meta, contents.state, contents.latest) == (None, None, LOG.checkpoint(10))
    again = tmp_path / "again"
    copied = back_up(Folder(tmp_path), Folder(again), policy=POLICY, progress=lambda done, total: None)
    assert (copied.state.size, copied.meta) == (10, META)


def test_a_damaged_backup_json_is_named_and_never_copied(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    (tmp_path / "backup.json").write_bytes(encode_backup(BACKUP)[:-2])
    contents = Folder(tmp_path).contents()
    assert contents.damages == [Damage(resource="backup.json", problem="backup.json is damaged")]
    with pytest.raises(CorruptionError, match=r"backup\.json"):
        back_up(Folder(tmp_path), Folder(tmp_path / "again"), policy=None, progress=lambda done, total: None)


@pytest.mark.parametrize("note", [None, b"", b"noise", b"x" * (NOTE_BYTES_MAX + 1)])
def test_a_folder_without_a_checkpoint_is_no_log(tmp_path: Path, note: bytes | None) -> None:
    if note is not None:
        (tmp_path / "checkpoint").write_bytes(note)
    with pytest.raises(TranslogError) as caught:
        Folder(tmp_path).contents()
    assert isinstance(caught.value, SettingsError if note is None else CorruptionError | StorageError)


@pytest.mark.parametrize("tile", [Tile(level=0, index=0, width=44), Bundle(index=0, width=44)], ids=["tile", "bundle"])
def test_a_partial_tile_that_is_gone_is_cut_from_the_full_one_and_from_no_other(tmp_path: Path, tile: Tile | Bundle) -> None:
    fill(tmp_path, 300)
    folder = Folder(tmp_path)

    def read(tile: Tile | Bundle) -> object:
        if isinstance(tile, Tile):
            return next(iter(folder.tiles([tile])))
        return next(iter(folder.bundles([tile]))).entries

    whole = LOG.edge(44).tiles[0] if isinstance(tile, Tile) else LOG.entries(0, 44)
    assert read(tile) == whole
    wider = replace(tile, index=1, width=40)  # of 44, which are there
    missing = Damage(resource="tile/0/001.p/40", problem="is missing") if isinstance(tile, Tile) else [None] * 40
    assert read(wider) == missing


@pytest.mark.parametrize("what", ["too long", "directory"])
def test_a_tile_that_cannot_be_read_is_damage(tmp_path: Path, what: str) -> None:
    fill(tmp_path, 300)
    path = tmp_path / "tile" / "0" / "000"
    path.unlink()
    if what == "directory":
        path.mkdir()
    else:
        path.write_bytes(bytes(256 * 32 + 1))
    (found,) = Folder(tmp_path).tiles([Tile(level=0, index=0)])
    assert isinstance(found, Damage)
    assert found.resource == "tile/0/000"
    assert ("cannot be read" in found.problem or "cannot read" in found.problem) == (what == "directory")
    assert ("is larger than 8192 bytes" in found.problem) == (what == "too long")


# --- which folders are taken --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["lost+found/"],
        ["tile/"],
        ["tile/", "checkpoints.ndjson"],
        ["checkpoints.ndjson"],
        ["backup.json.new", "tile/"],
        ["backup.json", "checkpoint", "anything"],
    ],
    ids=str,
)
def test_new_empty_interrupted_and_finished_folders_are_taken(tmp_path: Path, names: list[str]) -> None:
    require_backup_folder(tmp_path / "new")
    _make(tmp_path, names)
    require_backup_folder(tmp_path)


@pytest.mark.parametrize(
    "names", [["notes"], [".hidden"], ["tile/", "checkpoint"], ["log/"], ["log/", "keys/", "head"], ["tile/", "log/"]], ids=str
)
def test_folders_of_other_things_are_refused(tmp_path: Path, names: list[str]) -> None:
    _make(tmp_path, names)
    with pytest.raises(SettingsError, match="holds other things than a backup"):
        require_backup_folder(tmp_path)


def _make(path: Path, names: list[str]) -> None:
    for name in names:
        if name.endswith("/"):
            (path / name).mkdir()
        else:
            (path / name).write_text("x")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="is no folder"):
        require_backup_folder(tmp_path / "file")


@pytest.mark.parametrize("refused", [True, False])
def test_a_folder_made_for_nothing_goes_again(tmp_path: Path, refused: bool) -> None:
    folder = Folder(tmp_path / "a" / "out")
    with folder.locked():
        assert folder.path.is_dir()
        if not refused:
            folder.write_tile(Tile(level=0, index=0, width=1), bytes(32))
    assert folder.path.exists() is not refused


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write"), Folder(tmp_path / "file" / "out").locked():
        pass


def test_only_other_partials_are_dropped(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    for tile in (Tile(level=0, index=0, width=1), Tile(level=0, index=0, width=2), Tile(level=0, index=1, width=1)):
        folder.write_tile(tile, bytes(32 * tile.width))
    (tmp_path / "tile/0/000.p/2.new").write_bytes(b"half")
    folder.drop_partials(Tile(level=0, index=0), kept={1})
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "tile/0/000.p/1",
        "tile/0/001.p/1",
    ]
    folder.drop_partials(Tile(level=0, index=0), kept=())
    folder.drop_partials(Tile(level=0, index=0), kept=())
    folder.drop_partials(Tile(level=5, index=0), kept={3})
    assert os.listdir(tmp_path / "tile/0") == ["001.p"]


def test_the_version_is_the_first() -> None:
    assert module.VERSION == "backup/1"


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "tile" / "0").mkdir(parents=True)
    os.mkfifo(tmp_path / "tile" / "0" / "000")
    (damage,) = Folder(tmp_path).tiles([Tile(level=0, index=0)])
    assert isinstance(damage, Damage)
    assert "no plain file" in damage.problem
    os.mkfifo(tmp_path / "checkpoints.ndjson")
    (other,) = Folder(tmp_path).checkpoints()
    assert isinstance(other, Damage)


def test_a_line_without_end_is_read_in_pieces(tmp_path: Path) -> None:
    """A file of zeros, of more bytes than there is memory for."""
    with (tmp_path / "checkpoints.ndjson").open("wb") as file:
        file.truncate(1 << 40)
    (damage,) = Folder(tmp_path).checkpoints()
    assert isinstance(damage, Damage)
    assert "endless" in damage.problem
