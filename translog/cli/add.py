"""`translog add`: appends opaque entries and saves their receipts."""

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import click

from translog.cli.options import PATH, json_option, log_option, policy_option, read_token, token_option
from translog.core.tile import ENTRY_BYTES_MAX
from translog.errors import SettingsError, TooLargeError, TranslogError

BATCH_ENTRIES_MAX = 1_000
BATCH_BYTES_MAX = 4 * 1024 * 1024


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@log_option
@click.option("--receipts", type=PATH, metavar="DIR", help="Save each receipt there as <index>.tlog-proof.")
@click.option("--lines", is_flag=True, help="Every line, without its newline, is an entry; else every file is.")
@policy_option
@token_option
@json_option
def command(
    files: tuple[str, ...],
    log: str,
    receipts: Path | None,
    lines: bool,
    policy_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Append entries, in order, and verify and save their receipts. FILE may be - for standard input.

    Entries go in batches, each all or nothing. If one fails, those before it are in the log and their receipts are saved; the
    message says how many. An append whose outcome is unknown is not repeated.
    """
    if receipts is not None:
        _prepare(receipts)
    entries = (entry for name in files for entry in _read(name, lines=lines))
    added = asyncio.run(_add(entries, log, receipts, policy_file, token_file))
    if as_json:
        click.echo(json.dumps({"ok": True, "count": len(added), "indexes": added}))
    elif added:
        click.echo(f"added {len(added)} entries, indexes {added[0]} to {added[-1]}")
    else:
        click.echo("there was nothing to add")


async def _add(
    entries: Iterable[bytes], log: str, receipts: Path | None, policy_path: Path | None, token_file: Path | None
) -> list[int]:
    from translog.cli.progress import counting
    from translog.cli.trust import choose_policy
    from translog.client.submit import Submitter

    added: list[int] = []
    async with Submitter(log, token=read_token(token_file)) as submitter:
        policy = await choose_policy(policy_path, submitter)
        with counting("adding") as count:
            try:
                for batch in _batches(entries):
                    for appended in await submitter.append(batch, policy):
                        added.append(appended.index)
                        if receipts is not None:
                            _save(receipts / f"{appended.index}.tlog-proof", appended.receipt)
                    count(len(added))
            except TranslogError as error:
                done = f"{len(added)} entries were added before" + (f" (the last is {added[-1]})" if added else "")
                error.hint = f"{error.hint}; {done}" if error.hint else done
                raise
    return added


def _batches(entries: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for entry in entries:
        if len(entry) > ENTRY_BYTES_MAX:
            raise TooLargeError(f"an entry has more than the {ENTRY_BYTES_MAX} bytes possible", code="entry-too-large")
        if batch and (len(batch) == BATCH_ENTRIES_MAX or size + len(entry) > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry)
    if batch:
        yield batch


def _read(name: str, *, lines: bool) -> Iterator[bytes]:
    try:
        if name == "-":
            yield from _split(sys.stdin.buffer, lines=lines)
        else:
            with Path(name).open("rb") as file:
                yield from _split(file, lines=lines)
    except OSError as error:
        raise SettingsError(f"cannot read {name}: {error.strerror}") from None


def _split(file: BinaryIO, *, lines: bool) -> Iterator[bytes]:
    if not lines:
        yield file.read(ENTRY_BYTES_MAX + 1)
        return
    while line := file.readline(ENTRY_BYTES_MAX + 2):
        yield line.removesuffix(b"\n")


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot create {directory}: {error.strerror}") from None


def _save(path: Path, receipt: bytes) -> None:
    """Writes a receipt. One that is there already is left alone if it is the same, and never overwritten."""
    try:
        with path.open("xb") as file:
            file.write(receipt)
    except FileExistsError:
        if path.read_bytes() != receipt:
            raise SettingsError(
                f"{path} is there already, and is of another log or checkpoint", hint="save receipts in a directory per log"
            ) from None
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from None
