"""Numbering: dense numbers, ids that suppress nothing, senders held to their own numbers, submissions whole or not at all.

The last part is a state machine: random members, streams, ids, contents, numbers and batches, with crashes between and in
commits, against a model that is as plain as the rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from log.harness import NumberedLog, derive_rows
from translog.core.tile import ENTRY_BYTES_MAX
from translog.errors import ConflictError, CorruptionError, MalformedError, StorageError, TooLargeError, WrongNumberError
from translog.events.entry import EventEntry, Numbered, StreamCheckpoint, format_entry, format_stream_checkpoint, parse_entry
from translog.log.drafts import Conflict, Draft, Note, Outcome, Placed, require_items
from translog.log.numbering import Assembled, OpaqueAssembler
from translog.storage import keyspace
from translog.storage.memory import Fault
from translog.storage.store import EventRows, PayloadRow, StreamName

ACME = StreamName("acme", "k8s-prod")
OTHER = StreamName("other", "k8s-prod")
AGENT = StreamName("acme", "agent")
CHECKPOINT = Note(
    entry=format_stream_checkpoint(StreamCheckpoint(member="acme", stream="agent", note=b"log.example/members/acme/agent\n"))
)


def root_of(text: str) -> bytes:
    return sha256(text.encode()).digest()


def by_id(uid: str | None, content: str = "content", *, stream: StreamName = ACME, conflicts_with: int | None = None) -> Draft:
    """An event that the log numbers."""
    return Draft(
        stream=stream,
        root=root_of(f"{uid} {content} {conflicts_with}"),
        record=b"\x01" + content.encode(),
        uid_key=None if uid is None else keyspace.uid_key(stream, uid),
        mac=b"" if uid is None else content.encode().ljust(16, b"."),
        conflicts_with=conflicts_with,
    )


def by_number(seq: int, text: str = "event", *, stream: StreamName = AGENT) -> Draft:
    """An event that its sender numbered."""
    return Draft(stream=stream, root=root_of(f"{seq} {text}"), record=None, seq=seq)


def placed(index: int, seq: int | None = None, *, duplicate: bool = False) -> Placed:
    return Placed(index=index, seq=seq, duplicate=duplicate)


def again(index: int) -> Placed:
    return Placed(index=index, seq=None, duplicate=True)


@pytest.fixture
def log() -> NumberedLog:
    return NumberedLog()


def outcomes(assembled: Assembled) -> tuple[Outcome, ...]:
    (result,) = assembled.results
    assert isinstance(result, tuple)
    return result


def refusal(assembled: Assembled) -> ConflictError:
    (result,) = assembled.results
    assert isinstance(result, ConflictError)
    return result


def check(log: NumberedLog) -> list[EventEntry | None]:
    """What follows from entries and payload rows is what is stored. Returns the events; None for an entry that is none."""
    rows = derive_rows(log.disk)
    assert (log.disk.ids, log.disk.streams, log.disk.numbers) == (rows.ids, rows.streams, rows.numbers)
    events = [None if entry == CHECKPOINT.entry else parse_entry(entry) for entry in log.disk.entries]
    assert log.disk.payloads.keys() == {index for index, event in enumerate(events) if event is not None}
    return events


class TestOpaque:
    def test_the_entries_are_what_was_appended(self) -> None:
        assembled = OpaqueAssembler().assemble([[b"a", b""], [b"b"]], size=7, received_at_ms=1)
        assert assembled.entries == [b"a", b"", b"b"]
        assert (assembled.counts, assembled.results, assembled.known) == ([2, 1], [(), ()], 0)
        assert assembled.rows == EventRows()


class TestPlaces:
    def test_an_event_becomes_an_entry_with_a_payload_row(self, log: NumberedLog) -> None:
        draft = replace(by_id("1"), blobs=(b"blob 0", b"blob 1"))
        assert outcomes(log.commit([draft])) == (placed(0, 0),)
        assert log.disk.entries == [
            format_entry(
                EventEntry(
                    member="acme", stream="k8s-prod", seq=0, numbered=Numbered.LOG, received_at_ms=log.time_ms, root=draft.root
                )
            )
        ]
        assert log.disk.payloads == {0: PayloadRow(record=draft.record, uid_key=draft.uid_key, mac=draft.mac, blobs=2)}
        assert log.disk.blobs == {(0, 0): b"blob 0", (0, 1): b"blob 1"}
        check(log)

    def test_each_stream_counts_for_itself_across_commits_and_openings(self, log: NumberedLog) -> None:
        seqs: dict[StreamName, int] = {}
        for step in range(6):
            items = [by_id(None, f"{step} {n}", stream=(ACME, OTHER, ACME, OTHER, ACME)[n]) for n in range(step)]
            results = log.commit(items[:2], items[2:])
            told = [outcome for result in results.results if isinstance(result, tuple) for outcome in result]
            for item, outcome in zip(items, told, strict=True):
                assert isinstance(outcome, Placed)
                assert outcome.seq == seqs.get(item.stream, 0)
                seqs[item.stream] = seqs.get(item.stream, 0) + 1
            if step % 2:
                log.open()
        assert [outcome.index for outcome in told if isinstance(outcome, Placed)] == list(range(10, 15))
        check(log)

    def test_events_without_an_id_are_never_duplicates(self, log: NumberedLog) -> None:
        draft = by_id(None)
        assert outcomes(log.commit([draft, draft])) == (placed(0, 0), placed(1, 1))
        assert outcomes(log.commit([draft])) == (placed(2, 2),)
        assert log.disk.ids == {}

    def test_a_note_is_an_entry_as_it_is_and_moves_no_stream(self, log: NumberedLog) -> None:
        assert outcomes(log.commit([by_number(0), CHECKPOINT, by_number(1)])) == (placed(0, 0), placed(1), placed(2, 1))
        assert outcomes(log.commit([CHECKPOINT])) == (placed(3),)
        assert log.disk.entries[1] == log.disk.entries[3] == CHECKPOINT.entry
        assert [event is None for event in check(log)] == [False, True, False, True]

    def test_counts_say_whose_the_new_entries_are(self, log: NumberedLog) -> None:
        log.commit([by_id("1")])
        assembled = log.commit(
            [by_id("1"), by_id("2")], [by_number(7)], [by_id("2"), by_id("1", "else")], [by_id("3"), CHECKPOINT]
        )
        assert assembled.counts == [1, 0, 0, 2]
        assert assembled.known == 3
        assert len(assembled.entries) == 3


class TestIds:
    def test_the_same_id_and_content_is_a_duplicate_for_the_life_of_the_log(self, log: NumberedLog) -> None:
        log.commit([by_id("1"), by_id("2")])
        for _ in range(2):
            assert outcomes(log.commit([by_id("2"), by_id("1")])) == (again(1), again(0))
            log.open()
        assert log.edge.size == 2
        check(log)

    def test_duplicates_within_a_commit_are_seen(self, log: NumberedLog) -> None:
        assembled = log.commit([by_id("1"), by_id("1")], [by_id("1"), by_id("2")])
        assert assembled.results == [(placed(0, 0), again(0)), (again(0), placed(1, 1))]
        check(log)

    @pytest.mark.parametrize("how", ["stored", "in an earlier submission", "in the same"])
    def test_other_content_is_a_conflict_until_it_is_marked(self, log: NumberedLog, how: str) -> None:
        first, second = by_id("1"), by_id("1", "else")
        if how == "stored":
            log.commit([first])
            result = log.commit([second]).results[-1]
        elif how == "in an earlier submission":
            result = log.commit([first], [second]).results[-1]
        else:
            result = log.commit([first, second]).results[-1]
        assert isinstance(result, tuple)
        assert result[-1] == Conflict(index=0)
        assert log.edge.size == 1
        marked = by_id("1", "else", conflicts_with=0)
        assert outcomes(log.commit([marked])) == (placed(1, 1),)
        check(log)

    def test_a_marked_one_sent_again_is_a_duplicate_of_its_own_index(self, log: NumberedLog) -> None:
        log.commit([by_id("1")])
        marked = by_id("1", "else", conflicts_with=0)
        assert outcomes(log.commit([marked, marked, by_id("1", "else")])) == (placed(1, 1), again(1), again(1))
        for draft in (marked, by_id("1", "else")):
            assert outcomes(log.commit([draft])) == (again(1),)
            log.open()
        assert outcomes(log.commit([by_id("1", "a third")])) == (Conflict(index=0),)
        assert outcomes(log.commit([by_id("1", "a third", conflicts_with=0)])) == (placed(2, 2),)
        assert outcomes(log.commit([by_id("1"), by_id("1", "else"), by_id("1", "a third")])) == (again(0), again(1), again(2))
        check(log)

    def test_the_mark_must_name_the_first(self, log: NumberedLog) -> None:
        log.commit([by_id("0"), by_id("1")])
        assert outcomes(log.commit([by_id("1", "else", conflicts_with=0)])) == (Conflict(index=1),)
        assert log.edge.size == 2

    def test_a_mark_of_what_turns_out_the_same_is_a_duplicate(self, log: NumberedLog) -> None:
        log.commit([by_id("1")])
        assert outcomes(log.commit([by_id("1", conflicts_with=0)])) == (again(0),)

    def test_a_marked_one_of_an_id_that_nobody_has_is_the_first(self, log: NumberedLog) -> None:
        assert outcomes(log.commit([by_id("1", conflicts_with=5)])) == (placed(0, 0),)
        assert outcomes(log.commit([by_id("1")])) == (again(0),)
        check(log)

    def test_ids_of_other_streams_are_others(self, log: NumberedLog) -> None:
        third = StreamName("acme", "k8s-test")
        log.commit([by_id("1")])
        assert outcomes(log.commit([by_id("1", "else", stream=OTHER), by_id("1", "x", stream=third)])) == (
            placed(1, 0),
            placed(2, 0),
        )
        check(log)

    def test_all_ids_of_a_commit_are_looked_up_at_once(self, log: NumberedLog, monkeypatch: pytest.MonkeyPatch) -> None:
        log.commit([by_id("0"), by_id("1")])
        asked: list[list[bytes]] = []
        real = log.store.find_ids

        def find_ids(keys: Sequence[bytes]) -> list[bytes | None]:
            asked.append(list(keys))
            return real(keys)

        monkeypatch.setattr(log.store, "find_ids", find_ids)
        log.commit([by_id(str(n)) for n in range(5)] + [by_id("1", "else"), by_id(None)], [by_id("7"), by_id("7")])
        drafts = [by_id(str(n)) for n in (*range(5), 7)]
        assert sorted(asked[0]) == sorted(draft.uid_key for draft in drafts if draft.uid_key is not None)
        other = by_id("1", "else")
        assert other.uid_key is not None
        assert asked[1:] == [[other.uid_key + other.mac]]


class TestNumbers:
    def test_the_next_number_is_taken(self, log: NumberedLog) -> None:
        assert outcomes(log.commit([by_number(0), by_number(1)])) == (placed(0, 0), placed(1, 1))
        log.open()
        assert outcomes(log.commit([by_number(2)])) == (placed(2, 2),)
        assert [event.numbered for event in check(log) if event] == [Numbered.SENDER] * 3

    @pytest.mark.parametrize("reopened", [False, True])
    def test_a_known_number_with_the_same_root_is_a_duplicate(self, log: NumberedLog, reopened: bool) -> None:
        log.commit([by_number(0), by_number(1)])
        if reopened:
            log.open()
        assert outcomes(log.commit([by_number(0), by_number(1), by_number(2), by_number(2)])) == (
            placed(0, 0, duplicate=True),
            placed(1, 1, duplicate=True),
            placed(2, 2),
            placed(2, 2, duplicate=True),
        )
        check(log)

    @pytest.mark.parametrize("how", ["stored", "in an earlier submission", "in the same"])
    def test_a_known_number_with_another_root_is_a_fork(self, log: NumberedLog, how: str) -> None:
        first, fork = by_number(0), by_number(0, "forged")
        if how == "stored":
            log.commit([first])
            results = log.commit([fork]).results
        else:
            results = (
                log.commit([first], [fork]).results if how == "in an earlier submission" else log.commit([first, fork]).results
            )
        assert isinstance(results[-1], ConflictError)
        assert results[-1].code == "stream-forked"
        assert "number 0 of the stream 'agent'" in results[-1].detail
        assert log.edge.size == (0 if how == "in the same" else 1)
        check(log)

    @pytest.mark.parametrize("reopened", [False, True])
    def test_a_number_that_is_too_high_names_the_one_expected(self, log: NumberedLog, reopened: bool) -> None:
        for expected in range(3):
            error = refusal(log.commit([by_number(expected + 1)]))
            assert isinstance(error, WrongNumberError)
            assert (error.code, error.expected) == ("wrong-number", expected)
            assert f"expects number {expected}, not {expected + 1}" in error.detail
            log.commit([by_number(expected)])
            if reopened:
                log.open()
        check(log)

    def test_within_a_submission_too(self, log: NumberedLog) -> None:
        error = refusal(log.commit([by_number(0), by_number(2)]))
        assert isinstance(error, WrongNumberError)
        assert error.expected == 1
        assert log.edge.size == 0

    def test_who_numbers_a_stream_is_decided_by_its_first_event_for_life(self, log: NumberedLog) -> None:
        log.commit([by_number(0, stream=ACME), by_id("1", stream=AGENT)])
        for _ in range(2):
            for draft in (by_id("2", stream=ACME), by_number(1, stream=AGENT), by_number(0, stream=AGENT)):
                error = refusal(log.commit([draft]))
                assert error.code == "numbered-otherwise"
            log.open()
        assert outcomes(log.commit([by_number(1, stream=ACME), by_id("2", stream=AGENT)])) == (placed(2, 1), placed(3, 1))
        check(log)

    def test_a_stream_decided_by_a_submission_that_is_undone_is_not_decided(self, log: NumberedLog) -> None:
        assembled = log.commit([by_number(0, stream=ACME), by_number(5)], [by_id("1", stream=ACME)])
        assert isinstance(assembled.results[0], WrongNumberError)
        assert assembled.results[1] == (placed(0, 0),)
        check(log)

    @pytest.mark.parametrize("damage", ["no number", "another entry", "no event"])
    def test_a_number_that_the_store_has_lost_or_swapped_is_corruption(self, log: NumberedLog, damage: str) -> None:
        log.commit([by_number(0), by_number(1), CHECKPOINT])
        if damage == "no number":
            del log.disk.numbers[AGENT, 0]
        else:
            log.disk.numbers[AGENT, 0] = {"another entry": 1, "no event": 2}[damage]
        with pytest.raises(CorruptionError):
            log.commit([by_number(0)])


class TestAllOrNothing:
    def test_what_came_before_the_conflict_leaves_nothing(self, log: NumberedLog) -> None:
        log.commit([by_id("0"), by_number(0)])
        before = (dict(log.disk.ids), dict(log.disk.streams), dict(log.disk.numbers))
        third = StreamName("third", "new")
        bad: list[Draft | Note] = [
            replace(by_id("1"), blobs=(b"blob",)),
            by_id("0", "else", conflicts_with=0),
            by_id("1", stream=third),
            by_number(1),
            CHECKPOINT,
            by_number(3),
        ]
        assert isinstance(refusal(log.commit(bad)), WrongNumberError)
        assert log.edge.size == 2
        assert before == (log.disk.ids, log.disk.streams, log.disk.numbers)
        good = [by_id("1"), by_id("0", "else", conflicts_with=0), by_id("1", stream=third), by_number(1)]
        assert outcomes(log.commit(good)) == (placed(2, 1), placed(3, 2), placed(4, 0), placed(5, 1))
        check(log)

    def test_other_submissions_of_the_commit_are_not_touched(self, log: NumberedLog) -> None:
        assembled = log.commit(
            [by_id("1"), by_number(0)],
            [by_id("2"), by_number(1), by_number(1, "forged")],
            [by_id("2"), by_number(1)],
            [by_id("3"), by_number(9)],
            [by_id("1"), by_id("3")],
        )
        assert [isinstance(result, ConflictError) for result in assembled.results] == [False, True, False, True, False]
        assert assembled.results[2] == (placed(2, 1), placed(3, 1))
        assert assembled.results[4] == (again(0), placed(4, 2))
        assert assembled.counts == [2, 0, 2, 0, 1]
        check(log)

    def test_a_conflict_of_ids_keeps_nothing_else_from_being_committed(self, log: NumberedLog) -> None:
        log.commit([by_id("1")])
        assert outcomes(log.commit([by_id("2"), by_id("1", "else"), by_id("3")])) == (
            placed(1, 1),
            Conflict(index=0),
            placed(2, 2),
        )

    def test_a_commit_with_nothing_new_writes_nothing(self, log: NumberedLog) -> None:
        log.commit([by_id("1"), by_number(0)])
        assembled = log.commit([by_id("1")], [by_id("1", "else")], [by_number(0)], [by_number(7)])
        assert not assembled.entries
        assert assembled.rows == EventRows()
        assert assembled.known == 3


class TestStreamsAreBounded:
    def test_one_stream_too_many_is_refused_and_those_that_there_are_go_on(self) -> None:
        log = NumberedLog(streams_max=3)
        names = [StreamName(f"m{number}", "s") for number in range(4)]
        first, second, third, fourth = (by_id(None, stream=name) for name in names)
        assert outcomes(log.commit([first, second])) == (placed(0, 0), placed(1, 0))
        assert refusal(log.commit([first, third, fourth])).code == "too-many-streams"
        assert outcomes(log.commit([first, second, third, first])) == (placed(2, 1), placed(3, 1), placed(4, 0), placed(5, 2))
        for again_opened in (False, True):
            if again_opened:
                log.open()
            assert refusal(log.commit([fourth])).code == "too-many-streams"
            assert outcomes(log.commit([third]))
        assembled = log.commit([fourth], [third])
        assert isinstance(assembled.results[0], ConflictError)
        assert assembled.counts == [0, 1]
        check(log)

    @pytest.mark.parametrize(("streams_max", "share"), [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
    def test_a_member_has_a_quarter_and_the_others_begin_theirs(self, streams_max: int, share: int) -> None:
        log = NumberedLog(streams_max=streams_max)
        mine = [by_id(None, stream=StreamName("acme", f"s{number}")) for number in range(share + 1)]
        assert refusal(log.commit(mine)).code == "too-many-streams"
        assert log.edge.size == 0
        for number in range(share):
            log.commit(mine[number : number + 1])
        for again_opened in (False, True):
            if again_opened:
                log.open()
            error = refusal(log.commit([mine[-1]]))
            assert (error.code, f"may have {share} streams" in error.detail) == ("too-many-streams", streams_max > 1)
            assert outcomes(log.commit(mine[:-1]))
        others = log.commit(*([by_id(None, stream=StreamName(f"m{number}", "s"))] for number in range(streams_max)))
        assert [isinstance(result, ConflictError) for result in others.results] == [False] * (streams_max - share) + [
            True
        ] * share
        check(log)

    def test_who_is_everybody_has_no_share_and_the_log_itself_no_limit(self) -> None:
        log = NumberedLog(streams_max=5)
        everybody = [by_id(None, stream=StreamName("local", f"s{number}")) for number in range(6)]
        assert outcomes(log.commit(everybody[:5]))
        assert refusal(log.commit(everybody[5:])).code == "too-many-streams"
        assert outcomes(log.commit([by_id(None, stream=StreamName("log", "admin"))])) == (placed(5, 0),)
        check(log)

    def test_what_was_refused_is_not_counted(self) -> None:
        log = NumberedLog(streams_max=4)
        first, second = by_number(0, stream=StreamName("acme", "a")), by_number(0, stream=StreamName("acme", "b"))
        for _ in range(3):
            assert refusal(log.commit([first, by_number(2, stream=StreamName("acme", "a"))])).code == "wrong-number"
        assembled = log.commit([first], [by_number(1, stream=first.stream), by_number(7, stream=first.stream)], [second])
        assert [isinstance(result, ConflictError) for result in assembled.results] == [False, True, True]
        assert refusal(log.commit([second])).code == "too-many-streams"
        check(log)


class TestNotesOfAStream:
    @staticmethod
    def of(size: int, stream: StreamName = AGENT) -> Note:
        return replace(CHECKPOINT, stream=stream, size=size)

    def test_one_that_is_not_larger_is_a_duplicate_of_the_last(self, log: NumberedLog) -> None:
        first = log.commit([by_number(0), self.of(1)], [by_number(0), self.of(1)])
        assert first.results[1] == (placed(0, 0, duplicate=True), again(1))
        assert outcomes(log.commit([by_number(0), self.of(1)])) == (placed(0, 0, duplicate=True), again(1))
        assert outcomes(log.commit([by_number(1), self.of(2), self.of(2)])) == (placed(2, 1), placed(3), again(3))
        assert outcomes(log.commit([self.of(1)])) == (again(3),)
        assert outcomes(log.commit([self.of(1, ACME)])) == (placed(4),)
        check(log)

    def test_after_a_start_it_is_logged_once_more(self, log: NumberedLog) -> None:
        log.commit([by_number(0), self.of(1)])
        log.open()
        assert [outcomes(log.commit([by_number(0), self.of(1)]))[1] for _ in range(2)] == [placed(2), again(2)]
        check(log)

    def test_one_of_a_refused_submission_was_not_logged(self, log: NumberedLog) -> None:
        results = log.commit([by_number(0), self.of(1), by_number(5)], [by_number(0)], [self.of(1)]).results
        assert isinstance(results[0], ConflictError)
        assert results[1:] == [(placed(0, 0),), (placed(1),)]
        check(log)


class TestWhole:
    @pytest.mark.parametrize("how", ["stored", "in an earlier submission", "in the same"])
    def test_a_conflict_refuses_the_whole_submission(self, log: NumberedLog, how: str) -> None:
        first = by_id("1")
        whole = [replace(draft, whole=True) for draft in (by_id("0"), by_id("1", "else"), by_id("2"))]
        if how == "stored":
            log.commit([first])
            result = log.commit(whole).results[-1]
        elif how == "in an earlier submission":
            result = log.commit([first], whole).results[-1]
        else:
            result = log.commit([first, *whole]).results[-1]
        assert isinstance(result, ConflictError)
        assert result.code == "id-conflict"
        assert log.edge.size == (0 if how == "in the same" else 1)
        assert outcomes(log.commit([whole[0], whole[2], whole[0]]))
        check(log)

    def test_what_is_known_with_the_same_content_is_no_conflict(self, log: NumberedLog) -> None:
        log.commit([by_id("1")], [by_id("1", "else", conflicts_with=0)])
        known = [replace(draft, whole=True) for draft in (by_id("1"), by_id("1", "else"), by_id("2"))]
        assert outcomes(log.commit(known)) == (again(0), again(1), placed(2, 2))


class TestWhatCannotBeKept:
    @pytest.mark.parametrize(
        "items",
        [
            [],
            [replace(by_id("1"), root=bytes(31))],
            [by_id("0"), replace(by_id("1"), uid_key=bytes(15))],
            [replace(by_id("1"), mac=bytes(17))],
            [replace(by_id("1"), mac=b"")],
            [replace(by_id("1"), record=None)],
            [replace(by_id(None), conflicts_with=0)],
            [replace(by_id(None), blobs=(b"",) * 65_536)],
            [by_number(-1)],
            [by_number(2**53)],
            [replace(by_number(0), uid_key=bytes(16), mac=bytes(16))],
            [replace(by_number(0), conflicts_with=0)],
            [
                Note(
                    entry=format_entry(
                        EventEntry(member="a", stream="b", seq=0, numbered=Numbered.LOG, received_at_ms=0, root=bytes(32))
                    )
                )
            ],
        ],
    )
    def test_is_refused(self, items: list[Draft | Note]) -> None:
        with pytest.raises(MalformedError):
            require_items(items)

    @pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a\n", "a\0b", "a" * 64, "\u00e4", 'a"b'])
    def test_is_refused_with_names_that_no_entry_has(self, name: str) -> None:
        for stream in (StreamName(name, "a"), StreamName("a", name)):
            with pytest.raises(MalformedError) as caught:
                require_items([by_id("1"), by_id("1", stream=stream)])
            assert caught.value.code == "bad-name"

    def test_a_note_that_fits_no_bundle_is_too_large(self) -> None:
        require_items([Note(entry=bytes(ENTRY_BYTES_MAX))])
        with pytest.raises(TooLargeError):
            require_items([Note(entry=bytes(ENTRY_BYTES_MAX + 1))])

    def test_everything_else_is_taken(self) -> None:
        require_items([by_id("1"), by_id(None), by_id("1", conflicts_with=0), by_number(0), by_number(2**53 - 1), CHECKPOINT])
        require_items([replace(by_id("1", stream=StreamName("a" * 63, "0")), blobs=(b"",) * 65_535)])

    def test_the_bytes_of_an_item_are_counted(self) -> None:
        draft = by_id("1")
        assert draft.record is not None
        small = len(replace(draft, record=b"\x01"))
        assert len(replace(draft, record=bytes(1_001))) == small + 1_000
        assert len(replace(draft, record=b"\x01", blobs=(bytes(10), bytes(20)))) == small + 30
        assert len(replace(by_number(0), record=None)) == small - 1
        assert len(CHECKPOINT) == len(CHECKPOINT.entry)
        longest = EventEntry(
            member="m" * 63,
            stream="s" * 63,
            seq=2**53 - 1,
            numbered=Numbered.SENDER,
            received_at_ms=2**53 - 1,
            root=bytes(32),
        )
        assert small > len(format_entry(longest))


# --- against a model ----------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """The rules, told as plainly as can be. An event is (stream, seq, root, uid key, mac); a note is None."""

    log: list[tuple[StreamName, int, bytes, bytes | None, bytes] | None] = field(default_factory=list)
    numbered: dict[StreamName, Numbered] = field(default_factory=dict)

    def copy(self) -> "Model":
        return Model(list(self.log), dict(self.numbered))

    def submit(self, items: Sequence[Draft | Note]) -> list[Outcome] | str:
        """What becomes of a submission: an outcome each, or the code it is refused with."""
        trial = self.copy()
        told: list[Outcome] = []
        for item in items:
            outcome = trial.take(item)
            if isinstance(outcome, str):
                return outcome
            told.append(outcome)
        self.log, self.numbered = trial.log, trial.numbered
        return told

    def expected(self, stream: StreamName) -> int:
        return sum(event is not None and event[0] == stream for event in self.log)

    def take(self, item: Draft | Note) -> Outcome | str:
        if isinstance(item, Note):
            self.log.append(None)
            return placed(len(self.log) - 1)
        numbered = Numbered.LOG if item.seq is None else Numbered.SENDER
        if self.numbered.get(item.stream, numbered) is not numbered:
            return "numbered-otherwise"
        expected = self.expected(item.stream)
        if item.seq is not None and item.seq != expected:
            if item.seq > expected:
                return f"wrong-number {expected}"
            index = next(i for i, event in enumerate(self.log) if event and event[:2] == (item.stream, item.seq))
            event = self.log[index]
            assert event
            return placed(index, item.seq, duplicate=True) if event[2] == item.root else "stream-forked"
        if item.uid_key is not None:
            same_id = [i for i, event in enumerate(self.log) if event and event[3] == item.uid_key]
            same = [i for i in same_id if (event := self.log[i]) and event[4] == item.mac]
            if same:
                return again(same[0])
            if same_id and item.conflicts_with != same_id[0]:
                return Conflict(index=same_id[0])
        self.numbered[item.stream] = numbered
        self.log.append((item.stream, expected, item.root, item.uid_key, item.mac))
        return placed(len(self.log) - 1, expected)


STREAMS = [StreamName("acme", "a"), StreamName("acme", "b"), StreamName("other", "a")]
Recipe = tuple[Any, ...]
RECIPES = st.one_of(
    st.tuples(st.just("id"), st.sampled_from(STREAMS), st.sampled_from(["1", "2", "3", None]), st.sampled_from("xyz"),
              st.sampled_from([None, None, "right", "wrong"])),
    st.tuples(st.just("seq"), st.sampled_from(STREAMS), st.sampled_from([-2, -1, 0, 0, 0, 0, 1]), st.sampled_from("pppq")),
    st.tuples(st.just("note")),
)  # fmt: skip
BATCHES = st.lists(st.lists(RECIPES, min_size=1, max_size=6), min_size=1, max_size=4)


class Numbering(RuleBasedStateMachine):
    """Commits, crashes and openings, in any order."""

    batches = Bundle("batches")

    @initialize()
    def begin(self) -> None:
        self.log = NumberedLog()
        self.model = Model()

    def cook(self, recipe: Recipe, taken: dict[StreamName, int]) -> Draft | Note:
        """An item from a recipe, near enough to what the log expects to be of interest."""
        if recipe[0] == "note":
            return CHECKPOINT
        stream = recipe[1]
        if recipe[0] == "seq":
            seq = max(0, self.model.expected(stream) + taken.get(stream, 0) + recipe[2])
            taken[stream] = taken.get(stream, 0) + (recipe[2] == 0)
            return by_number(seq, recipe[3], stream=stream)
        draft = by_id(recipe[2], recipe[3], stream=stream)
        if recipe[4] and draft.uid_key is not None:
            firsts = [i for i, event in enumerate(self.model.log) if event and event[3] == draft.uid_key]
            mark = firsts[0] if recipe[4] == "right" and firsts else len(self.model.log) + 1
            draft = replace(draft, conflicts_with=mark, root=root_of(f"{recipe} {mark}"))
        return draft

    @rule(target=batches, recipes=BATCHES)
    def send(self, recipes: list[list[Recipe]]) -> list[list[Draft | Note]]:
        taken: dict[StreamName, int] = {}
        batch = [[self.cook(recipe, taken) for recipe in items] for items in recipes]
        self.commit(batch)
        return batch

    @rule(batch=batches)
    def send_again(self, batch: list[list[Draft | Note]]) -> None:
        self.commit(batch)

    @rule(batch=batches)
    def send_again_as_one(self, batch: list[list[Draft | Note]]) -> None:
        self.commit([[item for items in batch for item in items]])

    @rule(recipes=BATCHES, fault=st.sampled_from(Fault))
    def send_while_the_store_fails(self, recipes: list[list[Recipe]], fault: Fault) -> None:
        taken: dict[StreamName, int] = {}
        batch = [[self.cook(recipe, taken) for recipe in items] for items in recipes]
        model = self.model.copy()
        for items in batch:
            model.submit(items)
        self.log.disk.faults = [("commit", fault)]
        try:
            self.log.commit(*batch)
        except StorageError:
            if fault in (Fault.APPLIED_BUT_FAILED, Fault.CRASH_AFTER):
                self.model = model
        else:
            assert len(model.log) == len(self.model.log), "what is new needs a commit"
        self.log.disk.faults = []
        self.log.open()

    @rule()
    def reopen(self) -> None:
        self.log.open()

    def commit(self, batch: list[list[Draft | Note]]) -> None:
        before = len(self.model.log)
        assembled = self.log.commit(*batch)
        sizes = [before]
        for items, result in zip(batch, assembled.results, strict=True):
            expected = self.model.submit(items)
            sizes.append(len(self.model.log))
            if isinstance(result, ConflictError):
                number = f" {result.expected}" if isinstance(result, WrongNumberError) else ""
                assert result.code + number == expected
            else:
                assert list(result) == expected
        assert list(assembled.counts) == [after - size for size, after in pairwise(sizes)]
        assert len(assembled.entries) == len(self.model.log) - before

    @invariant()
    def the_disk_is_what_the_rules_say(self) -> None:
        if not hasattr(self, "log"):
            return
        events = check(self.log)
        assert len(events) == len(self.model.log)
        times = [event.received_at_ms for event in events if event]
        assert times == sorted(times)
        for index, (event, expected) in enumerate(zip(events, self.model.log, strict=True)):
            assert (event is None) == (expected is None)
            if event and expected:
                stream, seq, root, uid_key, mac = expected
                assert (event.member, event.stream, event.seq, event.root) == (*stream, seq, root)
                assert event.numbered is self.model.numbered[stream]
                row = self.log.disk.payloads[index]
                assert (row.uid_key, row.mac) == ((uid_key, mac) if uid_key is not None else (None, None))


TestNumbering = Numbering.TestCase
Numbering.TestCase.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
