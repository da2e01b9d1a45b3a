"""`scripts/bench`: measures the rows asked for and prints one table. Exits 0 whatever the figures are, 1 if a row broke."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import Figure, not_available
from benchmarks.machine import describe_machine
from benchmarks.rows import ROWS
from benchmarks.stores import quiet_logging
from benchmarks.table import format_markdown, format_table
from benchmarks.workshop import QUICK, Plan, Workshop

_PROGRAMS = Path(".venv-bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    quiet_logging()
    options = _parser().parse_args(arguments)
    unknown = sorted(set(options.rows) - set(ROWS))
    if unknown:
        print(f"bench: there is no row {unknown[0]}; there are {', '.join(map(str, ROWS))}", file=sys.stderr)
        return 2
    plan = QUICK if options.quick else Plan()
    if options.entries is not None:
        marks = tuple(mark for mark in Plan().growth_marks if mark < options.entries)
        plan = replace(plan, growth_marks=(*marks, options.entries), proof_entries=options.entries, events=options.entries)
    parent: Path = options.dir
    parent.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    broken = False
    with tempfile.TemporaryDirectory(prefix="work-", dir=parent) as work:
        machine = describe_machine(Path(work))
        shop = Workshop(plan, Path(work), programs=_PROGRAMS, with_peers=options.peers)
        begin = time.monotonic()
        for number in sorted(set(options.rows)) or ROWS:
            print(f"row {number}: {ROWS[number].title}", file=sys.stderr, flush=True)
            started = time.monotonic()
            try:
                figures += ROWS[number].measure(shop)
            except Exception as error:
                broken = True
                shop.say(f"broke: {error!r}")
                figures.append(not_available(number, ROWS[number].title, f"it broke: {error}"))
            shop.say(f"{time.monotonic() - started:.0f} s")
        machine["run"] = f"{'quick' if options.quick else 'normal'}, {time.monotonic() - begin:.0f} s in all"
    _print(machine, figures, options)
    return 1 if broken else 0


def _print(machine: dict[str, str], figures: list[Figure], options: argparse.Namespace) -> None:
    if options.markdown:
        print(format_markdown(machine, figures))
    else:
        for name, value in machine.items():
            print(f"{name + ':':<12}{value}")
        print(f"\n{format_table(figures)}")
    if options.json is not None:
        document = {"machine": machine, "figures": [figure.document() for figure in figures]}
        options.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def _parser() -> argparse.ArgumentParser:
    rows = "; ".join(f"{number} {row.title}" for number, row in ROWS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures translog against peers and floors in the same run. A figure is the median of at least three "
        "readings. Nothing fails for a figure.",
    )
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help=f"only these rows: {rows}")
    parser.add_argument("--quick", action="store_true", help="less of everything: six to eight minutes on two cores")
    parser.add_argument(
        "--entries", type=int, metavar="N", help="how far rows 4 and 8 go, and how large the log of rows 5 to 7 is"
    )
    parser.add_argument(
        "--peers", action="store_true", help="also build and measure Tessera (row 2): needs Go, once the network"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write everything, all readings too, to FILE (from the checkout)"
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--dir", type=Path, default=_PROGRAMS / "work", metavar="DIR", help="where the logs lie while measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
