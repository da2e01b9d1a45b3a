"""fsck of a log of events: numbers and times, payloads and keys, the rows that follow; in one span and in many, in one process
and in several. tests/faults/test_event_flips.py changes every byte."""

import json
import re
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults.made_events import AGENT, FEED, WEB, Dice, MadeEvents, Maker, event_of, grow_events, make_events, rewrite_entries
from faults.made_store import ORIGIN, POLICY, MemoryTree, entries_of, tree_of
from faults.row_source import RowStore, check_rows, named, rows_of

from translog.core.tile import TILE_WIDTH
from translog.errors import NotFoundError
from translog.events.cipher import RECORD_VERSION, open_record, seal_record
from translog.events.entry import EventEntry, Numbered, format_entry, parse_entry
from translog.events.seal import Field, decode_plain, encode_plain
from translog.log import fsck as fsck_module
from translog.log import payloads as payloads_module
from translog.log.drafts import Draft, Note
from translog.log.fsck import Checker, Report
from translog.log.payloads import FindKey
from translog.maintenance import check_log
from translog.storage import keyspace
from translog.storage.source import DerivedSource, EventSource
from translog.storage.store import LogMeta, Profile, StreamHead, StreamName

ROOT = bytes(range(32))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeEvents:
    return make_events(tmp_path_factory.mktemp("events") / "log")


@pytest.fixture
def rows(made: MadeEvents) -> dict[bytes, bytes]:
    return rows_of(made)


@pytest.fixture
def log(made: MadeEvents, tmp_path: Path) -> MadeEvents:
    """A copy to change."""
    copy = replace(made, directory=tmp_path / "log")
    shutil.copytree(made.directory, copy.directory)
    return copy


def fsck(directory: Path, **options: Any) -> Report:
    options = {"policy": None, "token": None, "processes": 1, "progress": lambda done, total: None} | options
    return check_log(str(directory), **options)


# --- numbers and times, from entries alone ----------------------------------------------------------------------------


def entry(seq: int, time_ms: int, *, stream: StreamName = WEB, numbered: Numbered = Numbered.LOG) -> bytes:
    return format_entry(
        EventEntry(member=stream.member, stream=stream.stream, seq=seq, numbered=numbered, received_at_ms=time_ms, root=ROOT)
    )


def event_tree(entries: Sequence[bytes], *, time_ms: int = 0) -> MemoryTree:
    """A log of events as it can be read from anywhere."""
    tree = tree_of(entries)
    assert tree.state is not None
    tree.meta = LogMeta(format_version=1, origin=ORIGIN, profile=Profile.EVENTS)
    tree.state = replace(tree.state, received_at_ms=time_ms)
    return tree


def check_entries(entries: Sequence[bytes | None], *, time_ms: int = 0, span_bundles: int = 64) -> Report:
    """What fsck makes of entries, None where one is lost, in spans of so many bundles."""
    tree = event_tree([value or b"" for value in entries], time_ms=time_ms)
    tree.entries = {index: value for index, value in enumerate(entries) if value is not None}
    before = fsck_module._SPAN_BUNDLES
    fsck_module._SPAN_BUNDLES = span_bundles
    try:
        return Checker(tree.open, policy=POLICY, processes=1, progress=lambda done, total: None).run()
    finally:
        fsck_module._SPAN_BUNDLES = before


ORDERS: dict[str, tuple[list[bytes], list[str]]] = {
    "right": ([entry(0, 5), entry(0, 5, stream=FEED), entry(1, 5), entry(1, 9, stream=FEED), entry(2, 9)], []),
    "a hole": ([entry(0, 5), entry(2, 5), entry(3, 5)], ["entry 1: is number 2 of the stream acme/web, which expects 1"]),
    "twice": ([entry(0, 5), entry(0, 5), entry(1, 5)], ["entry 1: is number 0 of the stream acme/web, which expects 1"]),
    "not from 0": ([entry(1, 5), entry(2, 5)], ["entry 0: is number 1 of the stream acme/web, which expects 0"]),
    "by another": (
        [entry(0, 5), entry(1, 5, numbered=Numbered.SENDER), entry(2, 5, numbered=Numbered.SENDER)],
        ["entry 1: is numbered by sender, and the stream acme/web is not"],
    ),
    "back in time": (
        [entry(0, 5), entry(0, 4, stream=FEED), entry(1, 4)],
        ["entry 1: was received at 4, and entry 0 at 5: time has gone back"],
    ),
    "no event": (
        [entry(0, 5), entry(1, 5).replace(b'"seq":1', b'"seq":01'), entry(1, 5)],
        ["entry 1: claims to be an event and is none: "],
    ),
    "other entries": ([b"", b'{"translog":"key/1","x":1}', entry(0, 5), b"\xff", b'{"translog":"event/2"}', entry(1, 6)], []),
}


@pytest.mark.parametrize(("entries", "problems"), ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("before", [0, 253, 255])
def test_numbers_have_no_holes_and_time_does_not_go_back(entries: list[bytes], problems: list[str], before: int) -> None:
    """Within a span, and from one to the next: `before` entries of other kinds come first."""
    problems = [re.sub(r"\bentry (\d)\b", lambda match: f"entry {before + int(match[1])}", problem) for problem in problems]
    for span_bundles in (1, 64):
        report = check_entries([b"x"] * before + entries, span_bundles=span_bundles)
        assert _without_detail(named(report)) == _without_detail(problems)
        assert report.bad == ({"events": len(problems)} if problems else {})
        events = sum(value.startswith(b'{"translog":"event/1"') for value in entries)
        assert report.good["events"] == events - len(problems)


def _without_detail(lines: Sequence[str]) -> list[str]:
    """Why an entry does not parse is for tests/events/test_entry.py."""
    return [line.partition(" none: ")[0] for line in lines]


def test_a_log_whose_entries_nobody_calls_events_is_not_asked_for_numbers() -> None:
    tree = tree_of([entry(7, 5), entry(7, 4)])
    report = Checker(tree.open, policy=POLICY, processes=1, progress=lambda done, total: None).run()
    assert report.whole
    assert "events" not in report.good


@pytest.mark.parametrize("span_bundles", [1, 64])
@pytest.mark.parametrize("lost", [[1], [1, 2], [256], [255, 256], [5, 300]])
def test_an_entry_that_is_lost_leaves_a_hole_that_is_not_named(lost: list[int], span_bundles: int) -> None:
    entries: list[bytes | None] = [entry(n, 5 + n) for n in range(400)]
    for index in lost:
        entries[index] = None
    report = check_entries(entries, span_bundles=span_bundles)
    assert report.bad.keys() <= {"entries", "tiles", "checkpoints", "tree heads"}
    assert report.bad["entries"] == len(lost)


def test_a_hole_larger_than_what_is_lost_is_named() -> None:
    entries: list[bytes | None] = [entry(n if n < 3 else n + 1, 5) for n in range(10)]
    entries[1] = None
    assert named(check_entries(entries))[-1] == "entry 3: is number 4 of the stream acme/web, which expects 3"


def test_a_changed_entry_is_named_once_and_not_as_that_of_its_stream() -> None:
    """The tile says what it was; nothing is said of its number, nor of the ones that follow."""
    tree = event_tree([entry(n, 5) for n in range(300)])
    tree.entries[7] = entry(70, 1)
    report = Checker(tree.open, policy=POLICY, processes=1, progress=lambda done, total: None).run()
    assert named(report) == ["entry 7: is not what the tree says it is"]


def test_a_changed_tile_is_no_fault_of_the_events() -> None:
    tree = event_tree([entry(n, 5) for n in range(300)])
    tile = tree.tiles_at[0, 0]
    tree.tiles_at[0, 0] = tile[:32] + bytes(32) + tile[64:]
    report = Checker(tree.open, policy=POLICY, processes=1, progress=lambda done, total: None).run()
    assert named(report) == ["tile/0/000: does not match the entries"]


@pytest.mark.parametrize(("time_ms", "bad"), [(0, False), (9, False), (8, True), (10, True)])
def test_the_tree_state_knows_when_the_newest_event_was_received(time_ms: int, bad: bool) -> None:
    report = check_entries([entry(0, 5), entry(1, 9)], time_ms=time_ms)
    problem = f"the tree state: says that the newest entry was received at {time_ms}, and entry 1 was at 9"
    assert named(report) == ([problem] if bad else [])


def test_an_entry_behind_the_newest_event_may_be_newer() -> None:
    assert check_entries([entry(0, 5), b"other"], time_ms=9).whole
    assert not check_entries([entry(0, 5), b"other"], time_ms=4).whole


# --- payloads ---------------------------------------------------------------------------------------------------------


def row_at(rows: dict[bytes, bytes], index: int) -> Any:
    return keyspace.decode_payload_row(rows[keyspace.payload_key(index)])


def with_row(rows: dict[bytes, bytes], index: int, **changes: Any) -> dict[bytes, bytes]:
    row = replace(row_at(rows, index), **changes)
    return rows | {keyspace.payload_key(index): keyspace.encode_payload_row(row)}


def event_at(rows: dict[bytes, bytes], index: int) -> EventEntry:
    return parse_entry(rows[keyspace.entry_key(index)])


def resealed(made: MadeEvents, rows: dict[bytes, bytes], index: int, change: Callable[[bytes], bytes]) -> bytes:
    """The record of an event, its plain text changed, under the right key and for the right root: what nobody without the keys
    can make."""
    root = event_at(rows, index).root
    vault = made.opened_vault()
    plain = open_record(row_at(rows, index).record, find_key=vault.find, origin=ORIGIN, root=root, plain_bytes_max=10**6)
    key_id, data_key = vault.current("acme")
    return seal_record(change(plain), data_key=data_key, key_id=key_id, origin=ORIGIN, root=root, nonce=bytes(12))


def test_texts_that_hash_to_another_root_are_named(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    for change in (
        lambda plain: plain.replace(b"number 0", b"number 1"),
        lambda plain: plain[:1] + bytes(32) + plain[33:],
        lambda plain: plain + b"\0",
        lambda plain: plain[:-1],
        lambda plain: b"",
        lambda plain: b"\3" + plain[1:],
        lambda plain: plain[:35],
    ):
        record = resealed(made, rows, 0, change)
        report = check_rows(with_row(rows, 0, record=record), made)
        assert report.bad == {"payloads": 1}
        assert report.damages[0].resource == "payload 0"


def other_record(made: MadeEvents, origin: str, stream: StreamName) -> tuple[bytes, bytes]:
    """Root and record of an event sealed for another log or stream, encrypted as one of this."""
    draft = Maker(made.opened_vault(), Dice(7), origin=origin).draft(stream, event_of(0))
    vault = made.opened_vault()
    assert draft.record is not None
    plain = open_record(draft.record, find_key=vault.find, origin=origin, root=draft.root, plain_bytes_max=10**6)
    key_id, data_key = vault.current("acme")
    record = seal_record(plain, data_key=data_key, key_id=key_id, origin=ORIGIN, root=draft.root, nonce=bytes(12))
    return draft.root, record


@pytest.mark.parametrize(
    ("origin", "stream"), [("log.example/other", WEB), (ORIGIN, WEB._replace(stream="other")), (ORIGIN, FEED)]
)
def test_an_event_sealed_for_another_log_or_stream_is_named(log: MadeEvents, origin: str, stream: StreamName) -> None:
    if stream is FEED:
        grow_events(log.directory, lambda maker: [[maker.draft(FEED, event_of(9), seq=2)]], dice=Dice(70))
    root, record = other_record(log, origin, stream)
    rows = rows_of(log)
    size = keyspace.decode_state(rows[keyspace.STATE]).size
    entries = [rows[keyspace.entry_key(index)] for index in range(size)]
    entries[0] = format_entry(replace(event_at(rows, 0), root=root))
    rewrite_entries(log, entries)
    rows = with_row(rows_of(log), 0, record=record)
    assert named(check_rows(rows, log)) == ["payload 0: was sealed for another log, member or stream"]


def test_a_changed_entry_is_not_named_again_as_its_payload(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    for index, changes in ((0, {"root": ROOT}), (2, {"seq": 7}), (3, {"stream": "other"}), (5, {"member": "beta"})):
        changed = format_entry(replace(event_at(rows, index), **changes))
        report = check_rows(rows | {keyspace.entry_key(index): changed}, made)
        assert named(report) == [f"entry {index}: is not what the tree says it is"]


def test_a_payload_from_which_a_field_was_erased_is_right(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    for index, leaf in ((0, 1), (0, 3), (5, 3)):
        record = resealed(made, rows, index, lambda plain, leaf=leaf: encode_plain(decode_plain(plain).erase(leaf)))  # type: ignore[misc]
        report = check_rows(with_row(rows, index, record=record), made)
        assert named(report) == []
        assert report.good["payloads"] == 7


def test_a_blob_that_the_event_does_not_know_and_one_that_its_row_does_not(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    assert row_at(rows, 5).blobs == 3
    report = check_rows(with_row(rows, 5, blobs=2), made)
    assert named(report) == ["payload 5: refers to 3 blobs, and its row says 2"]
    report = check_rows(with_row(rows, 5, blobs=4), made)
    assert named(report) == ["payload 5: refers to 3 blobs, and its row says 4"]
    blob = rows[keyspace.blob_key(5, 0)]
    report = check_rows(with_row(rows, 0, blobs=1) | {keyspace.blob_key(0, 0): blob}, made)
    assert named(report) == [
        "payload 0: refers to 0 blobs, and its row says 1",
        "blob 0 of payload 0: is there, and should not be",
    ]


def test_a_blob_of_other_content_under_the_right_key_is_named(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    root, vault = event_at(rows, 5).root, made.opened_vault()
    key_id, data_key = vault.current("acme")
    plain = open_record(row_at(rows, 5).record, find_key=vault.find, origin=ORIGIN, root=root, plain_bytes_max=10**6)
    texts = [field.text for field in decode_plain(plain).fields if isinstance(field, Field)]
    text = next(text for text in texts if text.startswith(b'["raw_data"'))
    reference = json.loads(text)[1]["$blob"]
    for data in (b"z" * reference["size"], b"z"):
        record = seal_record(
            data,
            data_key=data_key,
            key_id=key_id,
            origin=ORIGIN,
            root=root,
            nonce=bytes(12),
            label=b"translog/blob/1",
            blob_salt=b64decode(reference["salt"]),
        )
        reports = [check_rows(rows | {keyspace.blob_key(5, n): record}, made) for n in range(3)]
        assert all(report.bad == {"blobs": 1} for report in reports)
        assert any("is not the one that was sealed" in named(report)[0] for report in reports)


def test_what_the_log_numbers_it_sealed_itself(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    gone = with_row(rows, 1, record=None)
    assert named(check_rows(gone, made)) == ["payload 1: was made by the log, and is gone"]
    for first in (0, 2, 255):
        other = with_row(rows, 1, record=bytes([first]) + row_at(rows, 1).record[1:])
        assert named(check_rows(other, made)) == ["payload 1: is of an unknown version"]
    for record in (b"", bytes([RECORD_VERSION]), b"\1\xff" + bytes(40), b"\1\0" + bytes(40), b"\1\6beta/1" + bytes(60)):
        assert check_rows(with_row(rows, 1, record=record), made).bad == {"payloads": 1}


def test_what_a_sender_numbered_may_be_nobodys_to_read_but_has_no_blobs_and_no_id(
    made: MadeEvents, rows: dict[bytes, bytes]
) -> None:
    for index in (6, 8):
        for changes in ({"blobs": 1}, {"uid_key": bytes(16), "mac": bytes(16)}):
            assert check_rows(with_row(rows, index, **changes), made).bad["payloads"] == 1
    ours = with_row(rows, 2, record=b"\2" + row_at(rows, 2).record[1:])
    assert named(check_rows(ours, made)) == ["payload 2: has lost its version"]


def test_rows_beside_an_entry_that_is_no_event_are_named(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    assert keyspace.payload_key(4) not in rows
    more = {keyspace.payload_key(4): rows[keyspace.payload_key(1)], keyspace.blob_key(7, 0): b"x"}
    assert named(check_rows(rows | more, made)) == [
        "payload 4: is there, and the entry is no event",
        "blob 0 of payload 7: is there, and should not be",
    ]


def test_long_headers_are_not_kept(made: MadeEvents, rows: dict[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for bytes_max, kept in ((4_096, True), (0, False)):
        monkeypatch.setattr(payloads_module, "_KEPT_HEADER_BYTES_MAX", bytes_max)
        payloads_module._kept_header.cache_clear()
        assert check_rows(rows, made).good["payloads"] == 7
        assert bool(payloads_module._kept_header.cache_info().currsize) is kept


def test_many_alike_are_named_as_one(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    left = {key: value for key, value in rows.items() if key[:1] != b"p"}
    report = check_rows(left, made)
    assert [line for line in named(report) if line.startswith("payload")] == [
        "payloads 0 to 3: is missing",
        "payloads 5 to 6: is missing",
        "payloads 8 to 10: is missing",
    ]
    assert report.bad["payloads"] == 9


# --- keys -------------------------------------------------------------------------------------------------------------


def test_without_a_vault_or_its_key_that_is_said_once_and_the_rest_is_checked(log: MadeEvents) -> None:
    kek = log.directory / "keys" / "kek.key"
    kek.rename(log.directory / "kek")
    report = fsck(log.directory)
    (damage,) = report.damages
    assert (damage.resource, report.bad, report.excepted["not opened"]) == ("the key store", {"data keys": 1}, 7)
    assert str(kek) in damage.problem
    assert report.good["ids"] == 4
    assert "payloads" not in report.good
    assert "payloads that were not opened, for want of their keys: 7" in report.remarks
    kek.write_text("A" * 43 + "=\n")
    kek.chmod(0o600)
    report = fsck(log.directory)
    assert "does not unwrap" in report.damages[0].problem
    assert report.bad == {"data keys": 1}
    (log.directory / "kek").replace(kek)
    shutil.rmtree(log.vault)
    report = fsck(log.directory)
    assert (report.bad, report.excepted["not opened"]) == ({"data keys": 1}, 7)


def test_keys_can_be_brought_from_elsewhere(log: MadeEvents, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    log.vault.rename(tmp_path / "elsewhere" / "vault")
    (log.directory / "keys" / "kek.key").rename(tmp_path / "elsewhere" / "kek.key")
    assert not fsck(log.directory).whole
    report = fsck(log.directory, keys=tmp_path / "elsewhere", vault=tmp_path / "elsewhere" / "vault")
    assert named(report) == []
    assert report.good["payloads"] == 7


def test_a_key_that_the_vault_lacks_is_named_once_and_an_erased_one_is_counted(
    made: MadeEvents, rows: dict[bytes, bytes]
) -> None:
    def lacks(code: str) -> Callable[[str], FindKey]:
        def find(key_id: bytes) -> bytes:
            raise NotFoundError("no such key", code=code)

        return lambda origin: find

    report = check_rows(rows, made, open_with=lacks("key-unknown"))
    key_id = made.opened_vault().current("acme")[0].decode()
    assert named(report) == [f"data key '{key_id}': is not in the vault: 7 payloads, that of event 0 first, were not opened"]
    report = check_rows(rows, made, open_with=lacks("key-erased"))
    assert report.whole
    assert report.excepted["erased"] == 7


def test_a_vault_of_another_key_names_what_does_not_open(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    report = check_rows(rows, made, open_with=lambda origin: lambda key_id: bytes(32))
    assert report.bad["payloads"] == 7
    assert {damage.problem for damage in report.damages if damage.resource.startswith("payload")} == {
        "the payload record does not open under its key"
    }


# --- rows that follow -------------------------------------------------------------------------------------------------


def stream_row(rows: dict[bytes, bytes], stream: StreamName) -> StreamHead:
    key = keyspace.stream_row_key(stream)
    return keyspace.decode_stream_row(key, rows[key])[1]


@pytest.mark.parametrize(
    "changes", [{"next_seq": 6}, {"last_index": 9}, {"last_received_at_ms": 1}, {"numbered": Numbered.SENDER}]
)
def test_a_stream_that_is_elsewhere_is_named(made: MadeEvents, rows: dict[bytes, bytes], changes: dict[str, Any]) -> None:
    head = replace(stream_row(rows, WEB), **changes)
    report = check_rows(rows | {keyspace.stream_row_key(WEB): keyspace.encode_stream_head(head)}, made)
    assert report.bad == {"streams": 1}
    assert report.damages[0].resource == "stream acme/web"


def test_ids_of_the_first_and_of_later_events(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    key, mac = row_at(rows, 0).uid_key, row_at(rows, 0).mac
    later = row_at(rows, 3).mac
    assert row_at(rows, 3).uid_key == key != row_at(rows, 5).uid_key
    first_row, later_row = keyspace.id_row_key(key), keyspace.id_row_key(key + later)
    swapped = {first_row: keyspace.encode_first_id(3, later), keyspace.id_row_key(key + mac): keyspace.encode_index(0)}
    changed = {other: value for other, value in rows.items() if other != later_row} | swapped
    assert "id of event 0: has a row that names event 3, which is not the first of this id" in named(check_rows(changed, made))
    none = {other: value for other, value in rows.items() if other != later_row}
    assert named(check_rows(none, made)) == ["id of event 3: has no row"]
    wrong = rows | {later_row: keyspace.encode_index(0)}
    assert "id of event 3: has a row of its content that names event 0" in named(check_rows(wrong, made))
    other = rows | {first_row: keyspace.encode_first_id(1, mac), keyspace.id_row_key(key + mac): keyspace.encode_index(0)}
    assert "id of event 3: has a row that names event 1, which is not the first of this id" in named(check_rows(other, made))
    twice = with_row(rows, 3, mac=mac)
    assert any("should not have been logged twice" in line for line in named(check_rows(twice, made)))


def test_a_store_that_lost_what_it_says_of_itself_is_still_checked_as_one_of_events(
    made: MadeEvents, rows: dict[bytes, bytes]
) -> None:
    report = check_rows({key: value for key, value in rows.items() if key != keyspace.META}, made)
    assert named(report) == ["key 'meta': is missing"]
    assert report.good["payloads"] == 7


def test_a_store_that_lost_its_state_and_meta_names_those(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    report = check_rows({key: value for key, value in rows.items() if key not in (keyspace.META, keyspace.STATE)}, made)
    assert named(report) == ["key 'meta': is missing", "key 'state': is missing"]
    assert report.good["payloads"] == 7


def test_an_opaque_log_has_no_such_rows(made: MadeEvents, rows: dict[bytes, bytes]) -> None:
    opaque = rows | {keyspace.META: rows[keyspace.META].replace(b"events", b"opaque")}
    report = check_rows(opaque, made)
    assert report.bad == {"strays": len([key for key in rows if key[:1] in keyspace.EVENT_PREFIXES])}


# --- many spans and processes -----------------------------------------------------------------------------------------


def many(maker: Maker) -> Iterator[list[Draft | Note]]:
    """1,100 events of three streams, some with ids, and entries of other kinds between."""
    for number in range(0, 1_100, 50):
        batch: list[Draft | Note] = []
        for n in range(number, number + 50):
            stream = (WEB, AGENT, FEED)[n % 3]
            if stream is FEED:
                batch.append(maker.sealed_elsewhere(FEED, n // 3, None))
            else:
                seq = n // 3 if stream is AGENT else None
                batch.append(maker.draft(stream, event_of(n), uid=f"event-{n}" if stream is WEB else None, seq=seq))
        yield [*batch, Note(entry=b"other %d" % number)]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> MadeEvents:
    return make_events(tmp_path_factory.mktemp("large") / "log", many)  # type: ignore[arg-type]  # one batch after the other


@pytest.mark.parametrize("processes", [1, 2])
def test_spans_make_one_log_in_any_number_of_processes(
    large: MadeEvents, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(fsck_module, "_SPAN_BUNDLES", 1)
    report = fsck(large.directory, processes=processes)
    assert named(report) == []
    assert report.good.items() >= {"events": 1_100, "payloads": 734, "ids": 367, "numbers": 733, "streams": 3}.items()
    assert report.excepted == {"never given": 366}


def test_damage_in_many_spans_is_the_same_in_any_number_of_processes(
    large: MadeEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsck_module, "_SPAN_BUNDLES", 1)
    copy = replace(large, directory=tmp_path / "log")
    shutil.copytree(large.directory, copy.directory)
    with copy.rows() as db:
        for index in (10, 300, 301, 900):
            db.delete(keyspace.payload_key(index))
        db.delete(keyspace.stream_row_key(FEED))
        db.put(keyspace.number_key(AGENT, 5_000), keyspace.encode_index(3))
    reports = [fsck(copy.directory, processes=processes) for processes in (1, 2)]
    assert named(reports[0]) == named(reports[1])
    assert reports[0].bad == reports[1].bad == {"payloads": 4, "streams": 1, "numbers": 1}


def test_payload_rows_behind_the_tree_are_strays(large: MadeEvents) -> None:
    rows = rows_of(large)
    source = RowStore(rows)
    assert list(source.strays(size=large.size)) == []
    end = large.size // TILE_WIDTH * TILE_WIDTH
    strays = [damage.resource for damage in source.strays(size=end)]
    assert [name for name in strays if name.startswith("payload")] == [
        f"payload {index}" for index in range(end, large.size) if keyspace.payload_key(index) in rows
    ]


def test_a_source_is_asked_for_payloads_if_it_has_any() -> None:
    """The tests above that look at entries alone do."""
    assert not isinstance(tree_of(entries_of(1)), EventSource | DerivedSource)
    assert isinstance(RowStore({}), EventSource)
    assert isinstance(RowStore({}), DerivedSource)
