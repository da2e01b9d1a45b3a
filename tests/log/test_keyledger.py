"""The account of a log's keys: found among all entries, look-alikes and replays ignored, made anew when it is lost."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from events.test_keychain import ADD_M2, CHAIN, E1, M1, M2, M3, NAME, NOT_NEXT, change, skey

from log.harness import until
from translog.core.wire import encode_base64
from translog.errors import StorageError
from translog.events.keychain import Action
from translog.log.keyledger import KeyLedger

FIRST = CHAIN.active
RETIRE_M1 = change(M1, 2, M1, M2, E1, action=Action.RETIRE)
ENTRIES = [b"a", b"b", ADD_M2, b"c", RETIRE_M1, b"d"]


def ledger_of(path: Path, entries: Sequence[bytes], *, step: int = 100) -> KeyLedger:
    ledger = KeyLedger(path, origin=NAME, first=FIRST, size=len(entries))
    while (start := ledger.cursor()) < len(entries):
        ledger.apply(start, entries[start : start + step])
    return ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


def saved(path: Path) -> Any:
    """What the file says; None if it is not there."""
    return json.loads(path.read_bytes()) if path.exists() else None


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)


@pytest.mark.parametrize("step", [1, 2, 100])
async def test_changes_are_found_among_other_entries(path: Path, step: int) -> None:
    found = ledger_of(path, ENTRIES, step=step).ledger
    assert [(item.index, item.entry) for item in found.changes] == [(2, ADD_M2), (4, RETIRE_M1)]
    assert [item.before.number for item in found.changes] == [0, 1]
    assert found.changes[1].before == found.changes[0].after
    assert (found.size, found.chain.active, found.chain.retired) == (6, (E1.vkey, M2.vkey), (M1.vkey,))


@pytest.mark.parametrize("name", NOT_NEXT)
async def test_look_alikes_are_ignored_wherever_they_are(path: Path, name: str) -> None:
    look_alike = NOT_NEXT[name]()
    around = [look_alike, ADD_M2, look_alike, RETIRE_M1, look_alike]
    found = ledger_of(path, around).ledger
    assert [item.index for item in found.changes] == [1, 3]


async def test_replays_are_ignored(path: Path) -> None:
    found = ledger_of(path, [ADD_M2, ADD_M2, RETIRE_M1, ADD_M2, RETIRE_M1]).ledger
    assert [item.index for item in found.changes] == [0, 2]


async def test_of_two_next_ones_the_first_counts(path: Path) -> None:
    found = ledger_of(path, [ADD_M2, change(M3, 1, M1)]).ledger
    assert found.chain.active == (*FIRST, M2.vkey)


async def test_other_logs_may_log_their_changes_here(path: Path) -> None:
    other = change(skey(2, name="log.example/other"), 1, skey(1, name="log.example/other"))
    assert ledger_of(path, [other, ADD_M2]).ledger.chain.number == 1


async def test_what_is_known_survives_a_start(path: Path) -> None:
    before = ledger_of(path, ENTRIES[:5])
    again = KeyLedger(path, origin=NAME, first=FIRST, size=6)
    assert again.ledger == before.ledger
    assert again.cursor() == 5


async def test_without_a_change_the_file_is_not_written_at_every_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translog.log.keyledger._SAVE_ENTRIES", 10)
    ledger = KeyLedger(path, origin=NAME, first=FIRST, size=100)
    ledger.apply(0, [b""] * 9)
    assert saved(path) is None
    ledger.apply(9, [b""])
    assert saved(path)["size"] == 10
    ledger.apply(10, [b""] * 9)
    assert KeyLedger(path, origin=NAME, first=FIRST, size=100).cursor() == 10
    assert ledger.cursor() == 19


def spoilt(**members: object) -> bytes:
    told = {
        "translog": "keys/1",
        "origin": NAME,
        "first": [str(vkey) for vkey in FIRST],
        "size": 5,
        "changes": [{"index": 2, "entry": encode_base64(ADD_M2)}, {"index": 4, "entry": encode_base64(RETIRE_M1)}],
    }
    return json.dumps(told | members).encode()


SPOILT = {
    "empty": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "another form": spoilt(translog="keys/2"),
    "another log": spoilt(origin="log.example/other"),
    "other first keys": spoilt(first=[str(M3.vkey)]),
    "a longer log": spoilt(size=7),
    "a size that is none": spoilt(size="5"),
    "a change beyond its size": spoilt(size=4),
    "changes exchanged": spoilt(
        changes=[{"index": 2, "entry": encode_base64(RETIRE_M1)}, {"index": 4, "entry": encode_base64(ADD_M2)}]
    ),
    "indexes exchanged": spoilt(
        changes=[{"index": 4, "entry": encode_base64(ADD_M2)}, {"index": 2, "entry": encode_base64(RETIRE_M1)}]
    ),
    "an entry that is none": spoilt(changes=[{"index": 2, "entry": "x"}]),
    "an index that is none": spoilt(changes=[{"index": True, "entry": encode_base64(ADD_M2)}]),
}


@pytest.mark.parametrize("name", SPOILT)
async def test_a_file_that_does_not_fit_is_made_anew(path: Path, name: str) -> None:
    put(path, SPOILT[name])
    ledger = KeyLedger(path, origin=NAME, first=FIRST, size=6)
    assert ledger.cursor() == 0
    assert ledger_of(path, ENTRIES).ledger.chain.number == 2
    assert KeyLedger(path, origin=NAME, first=FIRST, size=6).ledger.chain.number == 2


async def test_the_file_that_fits_is_the_one_that_is_written(path: Path) -> None:
    ledger_of(path, ENTRIES[:5])
    assert saved(path) == json.loads(spoilt())


async def test_a_file_that_cannot_be_written_moves_nothing(path: Path) -> None:
    path.parent.write_text("in the way")
    ledger = KeyLedger(path, origin=NAME, first=FIRST, size=6)
    with pytest.raises(StorageError, match="it can be deleted"):
        ledger.apply(0, ENTRIES)
    assert (ledger.cursor(), ledger.ledger.chain.number) == (0, 0)


async def test_who_waits_is_told(path: Path) -> None:
    ledger = KeyLedger(path, origin=NAME, first=FIRST, size=6)
    waiting = [
        asyncio.create_task(ledger.wait(6, timeout_ms=10_000)),
        asyncio.create_task(ledger.wait_number(1, timeout_ms=10_000)),
    ]
    await asyncio.sleep(0)
    assert not await ledger.wait(1, timeout_ms=1)
    await asyncio.to_thread(ledger.apply, 0, ENTRIES[:3])
    await until(waiting[1].done)
    assert not waiting[0].done()
    await asyncio.to_thread(ledger.apply, 3, ENTRIES[3:])
    assert await asyncio.gather(*waiting) == [True, True]


async def test_what_is_published_of_it_is_what_was_changed_by_then(path: Path) -> None:
    ledger = ledger_of(path, ENTRIES).ledger
    assert [len(ledger.within(size).changes) for size in range(8)] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert ledger.within(4).chain.active == (*FIRST, M2.vkey)
