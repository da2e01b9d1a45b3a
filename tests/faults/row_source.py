"""A store's rows in memory, read by the code that reads a frozen store: thousands of damaged stores in the time of one on disk.

Rules: `RowDB` answers as plyvel's DB does, in as far as frozen.py asks; nothing in it is ever damaged as a block.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from faults.made_events import MadeEvents
from faults.made_store import POLICY
from translog.log.fsck import Checker, Claim, Report
from translog.log.keystore import open_keys
from translog.log.payloads import FindKey
from translog.storage.frozen import FrozenStore


class RowDB:
    """Rows in key order."""

    def __init__(self, rows: Mapping[bytes, bytes]) -> None:
        self._rows = sorted(rows.items())
        self._keys = [key for key, _ in self._rows]
        self._values = dict(rows)

    def get(self, key: bytes, **options: Any) -> bytes | None:
        return self._values.get(key)

    def iterator(self, *, start: bytes, **options: Any) -> "_Iterator":
        return _Iterator(self._rows[bisect_left(self._keys, start) :])

    def raw_iterator(self, **options: Any) -> "_RawIterator":
        return _RawIterator(self._rows, self._keys)

    def close(self) -> None:
        """Nothing is open."""


class _Iterator:
    def __init__(self, rows: list[tuple[bytes, bytes]]) -> None:
        self._rows = iter(rows)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._rows

    def close(self) -> None:
        """Nothing is open."""


class _RawIterator:
    def __init__(self, rows: list[tuple[bytes, bytes]], keys: list[bytes]) -> None:
        self._rows, self._keys, self._at = rows, keys, 0

    def __enter__(self) -> "_RawIterator":
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing is open."""

    def seek(self, key: bytes) -> None:
        self._at = bisect_left(self._keys, key)

    def next(self) -> None:
        self._at += 1

    def valid(self) -> bool:
        return self._at < len(self._rows)

    def key(self) -> bytes:
        return self._keys[self._at]

    def item(self) -> tuple[bytes, bytes]:
        return self._rows[self._at]


class RowStore(FrozenStore):
    """A FrozenStore over rows in memory."""

    def __init__(self, rows: Mapping[bytes, bytes]) -> None:
        self._db = RowDB(rows)

    def close(self) -> None:
        """Nothing is open."""


def rows_of(made: MadeEvents) -> dict[bytes, bytes]:
    """All rows of a store on disk."""
    with made.rows() as db:
        return dict(db)


def check_rows(
    rows: Mapping[bytes, bytes],
    made: MadeEvents,
    *,
    open_with: Callable[[str], FindKey] | None = None,
    claims: list[Claim] | None = None,
) -> Report:
    """What fsck makes of these rows, with the keys of the log that they were of."""
    find = open_keys(made.vault, made.directory / "keys" / "kek.key", "log.example/made") if open_with is None else None
    return Checker(
        lambda: RowStore(rows),
        policy=POLICY,
        claims=claims or [],
        processes=1,
        progress=lambda done, total: None,
        open_keys=open_with or (lambda origin: find),  # type: ignore[arg-type,return-value]  # one of both is there
    ).run()


def named(report: Report) -> list[str]:
    """The damage as lines."""
    return [f"{damage.resource}: {damage.problem}" for damage in report.damages]
