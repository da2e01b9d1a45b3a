"""`translog remap`: derives events anew from their originals, and names every one that comes out otherwise."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from translog.cli.options import PATH, json_option, read_token, token_option
from translog.core.wire import printable
from translog.errors import MalformedError, NotFoundError, RemoteError, SettingsError

if TYPE_CHECKING:
    from translog.events.remap import Remapped

EVENT_BYTES_MAX = 64 * 1024 * 1024
"""The answer to a request for one event."""
_PASSED_OVER = ("not-an-event", "not-your-event")
"""The codes of answers that say that there is nothing to check, or not for this token."""
_SHOWN_MAX = 50


@click.command()
@click.argument("file", type=PATH, required=False)
@click.option("--check", is_flag=True, help="Compare, and change nothing. This is all there is: a log's events never change.")
@click.option("--log", metavar="URL", help="Read the events from this log.")
@click.option("--from", "start", type=click.IntRange(min=0), default=0, help="The first index; 0 by default.")
@click.option("--to", "end", type=click.IntRange(min=0), help="The index behind the last; the log's size by default.")
@token_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    file: Path | None,
    check: bool,
    log: str | None,
    start: int,
    end: int | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Check that events follow from their originals.

    Each event is derived anew from its raw_data with the mapping that made it, and compared. FILE has an event on each line, or
    what `GET /v1/events/<index>` answers; --log reads from a log what the token is entitled to. Ends with exit code 1 if any
    event differs.
    """
    if not check:
        raise click.UsageError("say --check")
    if (file is None) == (log is None):
        raise click.UsageError("give a FILE of events, or --log URL")
    if log is not None and not log.startswith(("http://", "https://")):
        raise click.BadParameter(f"{log!r} is no URL: it starts with http:// or https://")
    summary = _Summary()
    if log is not None:
        asyncio.run(_check_log(summary, log, start, end, read_token(token_file)))
    elif file is not None:
        for index, event in _read_events(file):
            if index >= start and (end is None or index < end):
                summary.add(index, event)
    summary.show(as_json=as_json)
    if summary.differing:
        context.exit(1)


class _Summary:
    """What was found so far."""

    def __init__(self) -> None:
        from translog.events.sources.table import SOURCES

        self.checked = 0
        self.differing: list[tuple[int, Remapped]] = []
        self.skipped: list[tuple[int, str]] = []
        self._sources = SOURCES

    def add(self, index: int, event: Any) -> None:
        """Checks one event."""
        from translog.events.remap import remap

        found = remap(event, self._sources)
        if found.skipped:
            self.skipped.append((index, found.skipped))
            return
        self.checked += 1
        if found.differing:
            self.differing.append((index, found))

    def show(self, *, as_json: bool) -> None:
        """Prints it all."""
        if as_json:
            click.echo(json.dumps(self._document()))
            return
        for index, found in self.differing[:_SHOWN_MAX]:
            click.echo(f"event {index} differs: {printable(', '.join(found.differing))} ({printable(_versions(found))})")
        for index, reason in self.skipped[:_SHOWN_MAX]:
            click.echo(f"event {index} was not compared: {printable(reason)}")
        for kind, found_all in (("differ", self.differing), ("were not compared", self.skipped)):
            if len(found_all) > _SHOWN_MAX:
                click.echo(f"... and {len(found_all) - _SHOWN_MAX} more that {kind}; --json lists them")
        click.echo(f"{self.checked} compared, {len(self.differing)} differ, {len(self.skipped)} not compared")

    def _document(self) -> dict[str, Any]:
        return {
            "ok": not self.differing,
            "compared": self.checked,
            "differing": [
                {
                    "index": index,
                    "mapping": found.mapping,
                    "recorded": found.recorded,
                    "current": found.current,
                    "fields": list(found.differing),
                }
                for index, found in self.differing
            ],
            "skipped": [{"index": index, "reason": reason} for index, reason in self.skipped],
        }


def _versions(found: "Remapped") -> str:
    if found.is_same_version:
        return f"mapping {found.mapping} {found.current}, the version that made it"
    return f"made by mapping {found.mapping} {found.recorded}, compared with {found.current}"


def _read_events(path: Path) -> Iterator[tuple[int, Any]]:
    """The events of a file with their indexes: the one that a line has, otherwise the line's number from 0.

    Raises SettingsError, MalformedError.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                if line.strip():
                    yield _event_of(line, f"{path}, line {number + 1}", number)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None


def _event_of(data: bytes, what: str, index: int) -> tuple[int, Any]:
    """An event, or the answer that has one. Raises MalformedError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedError(f"{what}: not JSON") from None
    if not isinstance(document, dict):
        raise MalformedError(f"{what}: not an event")
    if "entry" not in document:
        return index, document
    found = document.get("index")
    return (found if isinstance(found, int) else index), document.get("event")


async def _check_log(summary: _Summary, log: str, start: int, end: int | None, token: str | None) -> None:
    async with aclosing(_fetch(log, start, end, token)) as events:
        async for index, event in events:
            summary.add(index, event)


async def _fetch(log: str, start: int, end: int | None, token: str | None) -> AsyncGenerator[tuple[int, Any], None]:
    """The events of a log; what is no event, or not ours to read, is passed over. Raises RemoteError."""
    from translog.client.transport import Transport
    from translog.core.checkpoint import parse_checkpoint
    from translog.core.note import NOTE_BYTES_MAX, parse_note

    async with Transport(log, token=token) as transport:
        note = await transport.get("checkpoint", bytes_max=NOTE_BYTES_MAX)
        try:
            size = parse_checkpoint(parse_note(note).text).size
        except MalformedError as error:
            raise RemoteError(f"{log} answers with no checkpoint: {error.detail}") from None
        if end is not None and end > size:
            raise NotFoundError(f"the log has {size} entries", hint=f"--to is at most {size}")
        for index in range(start, size if end is None else end):
            try:
                data = await transport.get(f"v1/events/{index}", bytes_max=EVENT_BYTES_MAX)
            except RemoteError as error:
                if error.code not in _PASSED_OVER:
                    raise
                continue
            try:
                yield index, _event_of(data, f"{log}, event {index}", index)[1]
            except MalformedError as error:
                raise RemoteError(error.detail) from None
