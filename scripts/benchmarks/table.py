"""The table of figures: for people, and as Markdown for the specification."""

from collections.abc import Mapping, Sequence

from benchmarks.figures import Figure, show_number

HEADINGS = ("row", "what", "ours", "floor or peer", "ratio", "target", "met")


def cells(figure: Figure) -> tuple[str, ...]:
    """What the table shows of a figure, by column."""
    if figure.value is None:
        return (str(figure.row), figure.what, figure.note or "not measured", "", "", "", "")
    floor = f"{show_number(figure.floor_value)} {figure.floor_name}" if figure.floor_value is not None else figure.floor_name
    ratio = "" if figure.ratio is None else f"{show_number(figure.ratio)}x"
    met = {True: "yes", False: "NO", None: ""}[figure.is_met]
    target = "" if figure.target is None else str(figure.target)
    return (str(figure.row), figure.what, f"{show_number(figure.value)} {figure.unit}", floor, ratio, target, met)


def format_table(figures: Sequence[Figure]) -> str:
    """Aligned columns, then how each row was measured."""
    rows = [HEADINGS, *map(cells, figures)]
    # A line without a figure says so across the columns, and so does not widen one.
    widths = [max(len(row[n]) for row in rows if n < 2 or row[-5:-1] != ("",) * 4 or row[3]) for n in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", "how:", *(f"  {line}" for line in _methods(figures))])


def format_markdown(machine: Mapping[str, str], figures: Sequence[Figure]) -> str:
    """A machine line, the table, and the methods."""
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    lines += ["", f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells(figure))} |" for figure in figures]
    return "\n".join([*lines, "", *(f"- {line}" for line in _methods(figures))])


def _methods(figures: Sequence[Figure]) -> list[str]:
    """Each method once, with the rows it is about; figures that share one stand together."""
    found: dict[tuple[int, str], None] = {}
    for figure in figures:
        text = "; ".join(part for part in (figure.method, figure.note if figure.value is not None else "") if part)
        if text:
            found[figure.row, text] = None
    return [f"row {row}: {text}" for row, text in found]
