"""Progress on standard error, where a person watches; silence elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Count(Protocol):
    """Tells how many are done, and of how many where that is known only now."""

    def __call__(self, done: int, total: int | None = None) -> None: ...


@contextmanager
def counting(what: str, *, total: int | None = None) -> Iterator[Count]:
    """Gives a function to call with how many are done."""
    if not sys.stderr.isatty():
        yield lambda done, total=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, total=None: progress.update(task, completed=done, total=total)
