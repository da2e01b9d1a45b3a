"""`translog add`: appends opaque entries and saves their receipts."""

import asyncio
import contextlib
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from translog.cli.options import PATH, json_option, log_option, policy_option, read_token, token_option, whole_file
from translog.core.tile import ENTRY_BYTES_MAX
from translog.errors import SettingsError, TooLargeError, TranslogError

if TYPE_CHECKING:
    from translog.client.submit import Appended

BATCH_ENTRIES_MAX = 1_000
BATCH_BYTES_MAX = 4 * 1024 * 1024
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What file systems without hard links answer."""


@dataclass(slots=True)
class _Added:
    """The indexes of what is in the log, and of that of which the log has not handed out a receipt."""

    indexes: list[int] = field(default_factory=list)
    unproven: list[int] = field(default_factory=list)

    def count(self, appended: Sequence["Appended"]) -> None:
        self.indexes += [one.index for one in appended]
        self.unproven += [one.index for one in appended if one.receipt is None]


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
) -> int:
    """Append entries, in order, and verify and save their receipts. FILE may be - for standard input.

    Entries go in batches, each all or nothing. If one fails, those before it are in the log and their receipts are saved; the
    message says how many. An append whose outcome is unknown is not repeated.
    """
    if receipts is not None:
        _prepare(receipts)
    entries = (entry for name in files for entry in _read(name, lines=lines))
    added = asyncio.run(_add(entries, log, receipts, policy_file, token_file))
    if not as_json:
        click.echo(f"added {_described(added.indexes)}" if added.indexes else "there was nothing to add")
    elif not added.unproven:
        click.echo(json.dumps({"ok": True, "count": len(added.indexes), "indexes": added.indexes}))
    return _report_unproven(added) if added.unproven else 0


def _report_unproven(added: _Added) -> int:
    from translog.cli.main import fail
    from translog.client.submit import NOT_PUBLISHED

    return fail(
        NOT_PUBLISHED,
        f"nothing proves yet that these are in the log, it has not published them: {_described(added.unproven)}",
        "do not send them again: `translog receipt --log URL INDEX -o FILE` fetches a receipt later",
        3,
        count=len(added.indexes),
        indexes=added.indexes,
        unproven=added.unproven,
    )


async def _add(
    entries: Iterable[bytes], log: str, receipts: Path | None, policy_path: Path | None, token_file: Path | None
) -> _Added:
    from translog.cli.progress import counting
    from translog.cli.trust import choose_policy
    from translog.client.submit import Submitter

    added = _Added()
    batches = _batches(entries)
    try:
        first = list(islice(batches, 1))  # what cannot be sent is noticed before anybody is asked anything
        async with Submitter(log, token=read_token(token_file)) as submitter:
            policy = await choose_policy(policy_path, submitter)
            with counting("adding") as count:
                for batch in chain(first, batches):
                    appended = await submitter.append(batch, policy)
                    added.count(appended)
                    count(len(added.indexes))
                    if receipts is not None:
                        _save_all(receipts, {one.index: one.receipt for one in appended if one.receipt is not None})
    except TranslogError as error:
        done = f"added before that: {_described(added.indexes)}" if added.indexes else "nothing was added before that"
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


def _save_all(directory: Path, receipts: Mapping[int, bytes]) -> None:
    """Saves what can be saved. Raises SettingsError for the first that could not be, after all others were."""
    failed: list[tuple[int, str]] = []
    for index, receipt in receipts.items():
        path = directory / f"{index}.tlog-proof"
        try:
            if not _save_or_compare(path, receipt):
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


def _save_or_compare(path: Path, receipt: bytes) -> bool:
    """Whether the file is the receipt now. Raises OSError."""
    try:
        _save(path, receipt)
    except FileExistsError:
        return path.read_bytes() == receipt
    return True


def _save(path: Path, receipt: bytes) -> None:
    """Writes a new file, whole or not at all. Raises FileExistsError, OSError."""
    with whole_file(path, receipt) as made:
        try:
            os.link(made, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            made.rename(path)
