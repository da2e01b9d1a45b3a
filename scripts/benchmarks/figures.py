"""What a row of the benchmark says: readings of ours, readings of a floor or a peer, their ratio, a target.

Rules: the figure is the median of its readings; a ratio is of two medians of the same run; what could not be measured is a
figure with a note and without readings, never a guess.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

READINGS_MIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the figure should be: at least `limit`, or at most it if `lower`. `of_ratio` means the ratio and not the figure."""

    limit: float
    lower: bool = False
    of_ratio: bool = False
    unit: str = ""

    def is_met(self, *, value: float, ratio: float | None) -> bool | None:
        """None where it is about a ratio and there is none."""
        measured = ratio if self.of_ratio else value
        if measured is None:
            return None
        return measured <= self.limit if self.lower else measured >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.lower else "≥"
        return f"{sign} {show_number(self.limit)}{'x' if self.of_ratio else ''}{' ' + self.unit if self.unit else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. `row` is its number in the list of targets; readings are in `unit`, one per repetition."""

    row: int
    what: str
    unit: str = ""
    ours: Sequence[float] = ()
    floor: Sequence[float] = ()
    floor_name: str = ""
    target: Target | None = None
    method: str = ""
    note: str = ""

    @property
    def value(self) -> float | None:
        """Our median."""
        return median(self.ours) if self.ours else None

    @property
    def floor_value(self) -> float | None:
        """The median of the floor or peer."""
        return median(self.floor) if self.floor else None

    @property
    def ratio(self) -> float | None:
        """Ours by the floor's."""
        if self.value is None or not self.floor_value:
            return None
        return self.value / self.floor_value

    @property
    def is_met(self) -> bool | None:
        """None without a target or a figure."""
        if self.target is None or self.value is None:
            return None
        return self.target.is_met(value=self.value, ratio=self.ratio)

    def document(self) -> dict[str, Any]:
        """For JSON: all readings, and what the table shows."""
        return {
            "row": self.row,
            "what": self.what,
            "unit": self.unit,
            "ours": self.value,
            "ours_readings": list(self.ours),
            "floor_name": self.floor_name,
            "floor": self.floor_value,
            "floor_readings": list(self.floor),
            "ratio": self.ratio,
            "target": None if self.target is None else str(self.target),
            "met": self.is_met,
            "method": self.method,
            "note": self.note,
        }


def not_available(row: int, what: str, reason: str) -> Figure:
    """A line that says why there is no figure."""
    return Figure(row=row, what=what, note=f"not available: {reason}")


def show_number(value: float) -> str:
    """Three significant digits, thousands grouped."""
    if value == 0:
        return "0"
    digits = 0
    size = abs(value)
    while size < 100 and digits < 4:
        size *= 10
        digits += 1
    text = f"{round(value, digits):,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def repeat(count: int, *measures: Callable[[], float]) -> list[list[float]]:
    """`count` readings of each measure, taken in turns so that drift of the machine falls on all alike."""
    readings: list[list[float]] = [[] for _ in measures]
    for _ in range(max(count, READINGS_MIN)):
        for kept, measure in zip(readings, measures, strict=True):
            kept.append(measure())
    return readings
