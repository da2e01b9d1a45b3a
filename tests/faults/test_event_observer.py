"""The observer of killed logs of events takes what is right, and finds whatever is not."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from core.merkle_oracle import Oracle

from faults.event_observer import EventObserver, Item, Kept, Record, SealedRecord, Told
from faults.observer import Violation, log_policies
from faults.test_kill import ORIGIN, SIGNERS, make_note, make_state
from translog.core.proof import Receipt, format_receipt
from translog.core.wire import encode_base64
from translog.storage.store import StreamName

WEB, AGENT = StreamName("acme", "web"), StreamName("acme", "agent")
FIRST, OTHER, LATER = Record(WEB, "1", "{}"), Record(WEB, "1", "{ }"), Record(WEB, "2", "{}")
TEXTS = (b'["translog",{}]', b'["message","m"]')
SEALED = [
    SealedRecord(AGENT, 0, bytes([1]) * 32, TEXTS, None),
    SealedRecord(AGENT, 1, bytes([2]) * 32, (), b"\x02r"),
    SealedRecord(AGENT, 2, bytes([3]) * 32, (), None),
]
ITEMS: list[Item] = [FIRST, OTHER, LATER, *SEALED]
Row = tuple[dict[str, Any], Kept]


def entry(stream: StreamName, seq: int, *, sealed: bytes = b"", **changes: Any) -> dict[str, Any]:
    return {
        "member": stream.member,
        "stream": stream.stream,
        "seq": seq,
        "numbered": "sender" if sealed else "log",
        "received_at": 7,
        "root": encode_base64(sealed),
        **changes,
    }


def opened(record: Record, **fed: Any) -> Kept:
    return Kept({"metadata": {"uid": record.uid}, "raw_data": record.raw, "fed": fed}, (b"text",), None)


def payload(item: SealedRecord) -> Kept:
    return Kept({"message": "m"} if item.texts else None, item.texts, item.record)


LOG: list[Row] = [
    (entry(StreamName("log", "admin"), 0), Kept({"message": "made"}, (b"text",), None)),
    (entry(WEB, 0), opened(FIRST)),
    (entry(AGENT, 0, sealed=SEALED[0].root), payload(SEALED[0])),
    (entry(WEB, 1), opened(OTHER, conflicts_with=1)),
    (entry(AGENT, 1, sealed=SEALED[1].root), payload(SEALED[1])),
    (entry(WEB, 2), opened(LATER)),
    (entry(AGENT, 2, sealed=SEALED[2].root), payload(SEALED[2])),
]


def told(index: int, seq: int | None, *, duplicate: bool = False, conflicts_with: int | None = None) -> Told:
    return Told(index=index, seq=seq, duplicate=duplicate, conflicts_with=conflicts_with)


def settle(seen: EventObserver, rows: Sequence[Row]) -> None:
    """The stopped log is these rows, and its tree is right."""
    entries = [json.dumps(row).encode() for row, _ in rows]
    seen.settle_all(entries, make_state(len(entries), entries))
    seen.settle_events([kept for _, kept in rows])


def changed(at: int, row: Row) -> list[Row]:
    return [*LOG[:at], row, *LOG[at + 1 :]]


@pytest.fixture
def observer() -> EventObserver:
    """Has sent everything, and knows what became of some of it."""
    observer = EventObserver(log_policies(skey.vkey for skey in SIGNERS), origin=ORIGIN)
    for item in ITEMS:
        observer.send(item)
    observer.acknowledge(FIRST, told(1, 0))
    observer.acknowledge(OTHER, told(3, 1, conflicts_with=1))
    observer.acknowledge(SEALED[0], told(2, 0))
    observer.acknowledge(SEALED[1], told(4, 1, duplicate=True))
    return observer


def receipt(index: int, size: int = len(LOG)) -> bytes:
    entries = [json.dumps(row).encode() for row, _ in LOG[:size]]
    proof = tuple(Oracle(entries).path(index, 0, len(entries)))
    return format_receipt(Receipt(index=index, proof=proof, checkpoint=make_note(len(entries), entries=entries)))


def test_it_takes_what_is_right(observer: EventObserver) -> None:
    observer.see_receipt(receipt(3, size=5), index=3)
    assert observer.receipts == 0  # its entry is not known yet
    settle(observer, LOG[:5])
    settle(observer, LOG)
    observer.see_receipt(receipt(6), index=6)
    observer.acknowledge(LATER, told(5, None, duplicate=True))
    observer.acknowledge(FIRST, told(1, None, duplicate=True))
    observer.acknowledge(OTHER, told(3, None, duplicate=True))
    observer.acknowledge(SEALED[2], told(6, 2))
    observer.see_event(1, {"raw_data": "{}", "metadata": {"uid": "1"}})
    observer.see_event(2, {"message": "m"})
    observer.see_event(4, None)
    settle(observer, LOG)
    observer.require_complete()
    assert (observer.size, observer.acknowledgements, observer.receipts) == (7, 8, 2)
    assert set(observer.recent(9)) == set(range(1, 7))


Step = Callable[[EventObserver], object]
BROKEN: dict[str, tuple[str, *tuple[Step, ...]]] = {
    "one index for two events": ("for two events", lambda seen: seen.acknowledge(LATER, told(1, 0))),
    "one event at two indexes": ("at 1 and at 5", lambda seen: seen.acknowledge(FIRST, told(5, 2))),
    "an event logged anew twice": ("anew twice", lambda seen: seen.acknowledge(FIRST, told(1, 0))),
    "another number than the sender's": ("acknowledged as 1", lambda seen: seen.acknowledge(SEALED[2], told(6, 1))),
    "another number than was told": (
        "acknowledged as number 1, and is 2",
        lambda seen: seen.acknowledge(LATER, told(5, 1)),
        lambda seen: settle(seen, LOG),
    ),
    "a lost event": ("index 4 is not there", lambda seen: settle(seen, LOG[:4])),
    "a late acknowledgement of nothing": (
        "index 6 is not there",
        lambda seen: settle(seen, LOG[:6]),
        lambda seen: seen.acknowledge(SEALED[2], told(6, 2)),
        lambda seen: settle(seen, LOG[:6]),
    ),
    "a late acknowledgement elsewhere": (
        "index 5 is not there",
        lambda seen: settle(seen, LOG),
        lambda seen: seen.acknowledge(SEALED[2], told(5, 2)),
    ),
    "an event twice": ("there twice, at 1 and 3", lambda seen: settle(seen, changed(3, (entry(WEB, 1), marked(FIRST))))),
    "an event nobody sent": (
        "none that was sent",
        lambda seen: settle(seen, changed(5, (entry(WEB, 2), opened(Record(WEB, "3", "{}"))))),
    ),
    "an event of another stream": (
        "none that was sent",
        lambda seen: settle(seen, changed(5, (entry(WEB._replace(stream="b"), 0), opened(LATER)))),
    ),
    "a record that was changed": (
        "none that was sent",
        lambda seen: settle(seen, changed(5, (entry(WEB, 2), opened(Record(WEB, "2", "{  }"))))),
    ),
    "a conflict without a mark": (
        "in conflict with None",
        lambda seen: settle(seen, changed(3, (entry(WEB, 1), opened(OTHER)))),
    ),
    "a mark without a conflict": ("in conflict with 1", lambda seen: settle(seen, changed(5, (entry(WEB, 2), marked(LATER))))),
    "a number left out": ("2 is next", lambda seen: settle(seen, changed(5, (entry(WEB, 3), opened(LATER))))),
    "a number twice": ("2 is next", lambda seen: settle(seen, changed(5, (entry(WEB, 1), opened(LATER))))),
    "numbered otherwise": (
        "by log, 2 is next",
        lambda seen: settle(seen, changed(6, (entry(AGENT, 2), payload(SEALED[2])))),
    ),
    "time that goes back": (
        "received at 6, after one at 7",
        lambda seen: settle(seen, changed(5, (entry(WEB, 2, received_at=6), opened(LATER)))),
    ),
    "another root than the sender's": (
        "another event than its sender's",
        lambda seen: settle(seen, changed(6, (entry(AGENT, 2, sealed=bytes([9]) * 32), payload(SEALED[2])))),
    ),
    "an event too many of a sender": (
        "another event than its sender's",
        lambda seen: settle(seen, [*LOG, (entry(AGENT, 3, sealed=bytes([9]) * 32), payload(SEALED[2]))]),
    ),
    "texts that were changed": (
        "not what was sent",
        lambda seen: settle(seen, changed(2, (LOG[2][0], LOG[2][1]._replace(texts=TEXTS[:1])))),
    ),
    "a record for readers that is lost": (
        "not what was sent",
        lambda seen: settle(seen, changed(4, (LOG[4][0], LOG[4][1]._replace(record=None)))),
    ),
    "an event that does not open": (
        "cannot be opened",
        lambda seen: settle(seen, changed(5, (LOG[5][0], Kept(None, (), b"x")))),
    ),
    "another event given back": (
        "and was sent as",
        lambda seen: seen.see_event(1, {"raw_data": "{ }", "metadata": {"uid": "1"}}),
    ),
    "an event not given back": ("and was sent as", lambda seen: seen.see_event(1, None)),
    "another sealed event given back": ("and was sealed as", lambda seen: seen.see_event(2, {"message": "n"})),
    "something given back that the log never had": ("and was sealed as", lambda seen: seen.see_event(4, {})),
    "a receipt of another entry": (
        "for index 3|does not verify",
        lambda seen: seen.see_receipt(receipt(3), index=4),
        lambda seen: settle(seen, LOG),
    ),
    "a late receipt of another entry": (
        "for index 3|does not verify",
        lambda seen: settle(seen, LOG),
        lambda seen: seen.see_receipt(receipt(3), index=4),
    ),
    "a receipt of nothing": (
        "a receipt of entry 6",
        lambda seen: seen.see_receipt(receipt(6), index=6),
        lambda seen: settle(seen, LOG[:6]),
    ),
    "something never answered": ("2 events were never acknowledged", lambda seen: seen.require_complete()),
}


def marked(record: Record) -> Kept:
    return opened(record, conflicts_with=1)


@pytest.mark.parametrize("name", BROKEN)
def test_it_finds(observer: EventObserver, name: str) -> None:
    message, steps = BROKEN[name][0], BROKEN[name][1:]
    for step in steps[:-1]:
        step(observer)
    with pytest.raises(Violation, match=message):
        steps[-1](observer)


def test_it_finds_a_conflict_that_was_not_told() -> None:
    observer = EventObserver(log_policies(skey.vkey for skey in SIGNERS), origin=ORIGIN)
    for item in ITEMS:
        observer.send(item)
    observer.acknowledge(OTHER, told(3, 1))
    with pytest.raises(Violation, match="acknowledged as in conflict with None"):
        settle(observer, LOG)
