"""`translog add`: appends opaque entries and saves their receipts."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
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
    else:
        click.echo(f"added {_described(added)}" if added else "there was nothing to add")


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
                    appended = await submitter.append(batch, policy)
                    added += [one.index for one in appended]
                    count(len(added))
                    if receipts is not None:
                        _save_all(receipts, {one.index: one.receipt for one in appended})
            except TranslogError as error:
                done = f"added before that: {_described(added)}" if added else "nothing was added before that"
                error.hint = f"{error.hint}; {done}" if error.hint else done
                raise
    return added


def _described(indexes: list[int]) -> str:
    if len(indexes) == 1:
        return f"entry {indexes[0]}"
    return f"{len(indexes)} entries, indexes {indexes[0]} to {indexes[-1]}"


def _batches(entries: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == BATCH_ENTRIES_MAX or size + len(entry) > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry)
    if batch:
        yield batch


def _read(name: str, *, lines: bool) -> Iterator[bytes]:
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            for number, entry in enumerate(_split(file, lines=lines), start=1):
                if len(entry) > ENTRY_BYTES_MAX:
                    where = f"line {number} of {name}" if lines else name
                    raise TooLargeError(f"{where} has more than the {ENTRY_BYTES_MAX} bytes possible", code="entry-too-large")
                yield entry
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


def _save_all(directory: Path, receipts: Mapping[int, bytes | None]) -> None:
    """Saves what can be saved. Raises SettingsError for the first that could not be, after all others were."""
    failed: list[tuple[int, str]] = []
    for index, receipt in receipts.items():
        path = directory / f"{index}.tlog-proof"
        if receipt is None:
            failed.append((index, "the log has not handed it out yet"))
            continue
        try:
            _save(path, receipt)
        except FileExistsError:
            if path.read_bytes() != receipt:
                failed.append((index, f"{path} is there already, and is of another log or checkpoint"))
        except OSError as error:
            failed.append((index, f"cannot write {path}: {error.strerror}"))
    if failed:
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise SettingsError(
            f"the receipt of entry {failed[0][0]}{others} is not saved: {failed[0][1]}",
            hint="the entry is in the log: `translog receipt --log URL INDEX -o FILE` fetches its receipt",
            code="receipt-not-saved",
        )


def _save(path: Path, receipt: bytes) -> None:
    """Writes a new file, whole or not at all. Raises FileExistsError, OSError."""
    descriptor, name = tempfile.mkstemp(prefix=".receipt-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(receipt)
        Path(name).chmod(0o644)
        os.link(name, path)
    finally:
        Path(name).unlink()
