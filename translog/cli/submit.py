"""`translog submit`: sends files of audit events, in their source's own format, and saves receipts.

Rules: bodies go as they are: what is in lines is cut at line borders into requests below a limit, anything else goes whole. A
request is repeated where the log finds duplicates by the records' ids; where they have none, only if it was surely not logged.
What the log did not understand is in the log all the same, and is told. Receipts are verified before they are saved.
"""

import asyncio
import contextlib
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from translog.cli.add import _Added, _prepare, _report_unproven, _save_all
from translog.cli.options import PATH, json_option, log_option, policy_option, read_token, token_option
from translog.cli.senders import EVENTS_SOURCES, source_option, stream_option
from translog.core.wire import printable
from translog.errors import RemoteError, SettingsError, TooLargeError, TranslogError

if TYPE_CHECKING:
    from translog.client.delivery import EventResult
    from translog.client.submit import Submitter
    from translog.core.policy import Policy

REQUEST_BYTES_MAX = 4 * 1024 * 1024
"""Lines that are sent together."""
REQUEST_RECORDS_MAX = 1_000
PATIENCE_S = 120.0
"""How long one request is tried for."""
_TOLD_MAX = 20
"""Records that are told one by one on standard error."""
_GZIP = b"\x1f\x8b"
_SNIFFED_BYTES_MAX = 1024 * 1024
_LOOKED_AT_BYTES_MAX = 64 * 1024 * 1024
"""Compressed events of more than this count as events without ids."""
_LOOKED_AT_RECORDS_MAX = 100_000
_NOT_REPEATED = "a request whose outcome is unknown is not sent again, since the log would not find duplicates"
NDJSON = "application/x-ndjson"
JSON = "application/json"
TEXT = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A body to send, of media type `media` once decompressed."""

    file: str
    body: bytes
    media: str
    is_gzip: bool = False


@dataclass(slots=True)
class _Tally(_Added):
    """What the log said of all records."""

    logged: int = 0
    duplicates: int = 0
    conflicts: int = 0
    not_understood: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    """Records told of, by file."""

    def add(self, file: str, results: "Sequence[EventResult]") -> None:
        for result in results:
            number = self.seen[file] = self.seen.get(file, 0) + 1
            told = {"file": file, "record": number, "index": result.index, "error": result.error}
            if result.index is None:
                self.refused.append(told)
                continue
            self.indexes.append(result.index)
            self.logged += not result.duplicate
            self.duplicates += result.duplicate
            self.conflicts += result.conflicts_with is not None
            if result.error:
                self.not_understood.append(told)

    def __str__(self) -> str:
        said = f"logged {self.logged} events" if self.logged != 1 else "logged 1 event"
        if self.duplicates:
            said += f", {self.duplicates} were logged before"
        if self.conflicts:
            said += f", {self.conflicts} have the id of an event with other content and are marked so"
        if self.not_understood:
            said += f", {len(self.not_understood)} were not understood and are kept as they came (Base Events)"
        return said


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@log_option
@source_option
@stream_option
@click.option("--receipts", type=PATH, metavar="DIR", help="Save each receipt there as <index>.tlog-proof.")
@policy_option
@token_option
@json_option
def command(
    files: tuple[str, ...],
    log: str,
    source: str,
    stream: str | None,
    receipts: Path | None,
    policy_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> int:
    """Submit audit events in a source's format. FILE may be - for standard input; gzip files are sent as they are.

    Files of lines (NDJSON, text) are cut at line borders into requests; other files, such as one {"Records":[...]}, are one
    request each and must fit the log's limit. Where records carry ids the command may be repeated: what is logged already is
    found to be a duplicate.
    """
    if receipts is not None:
        _prepare(receipts)
    tally = asyncio.run(_Submission(log, source, stream, receipts, policy_file, token_file).submit(files))
    return _report(tally, as_json=as_json)


def _report(tally: _Tally, *, as_json: bool) -> int:
    from translog.cli.main import fail

    for told in (*tally.refused, *tally.not_understood)[:_TOLD_MAX]:
        where = "not logged" if told["index"] is None else f"entry {told['index']}"
        click.echo(printable(f"record {told['record']} of {told['file']}, {where}: {told['error']}"), err=True)
    if tally.refused:
        return fail("event-refused", f"the log refused {len(tally.refused)} records; {tally}", "", 3, **_document(tally))
    if not as_json:
        click.echo(str(tally) if tally.indexes else "there was nothing to submit")
    elif not tally.unproven:
        click.echo(json.dumps({"ok": True, **_document(tally)}))
    return _report_unproven(tally) if tally.unproven else 0


def _document(tally: _Tally) -> dict[str, Any]:
    return {
        "logged": tally.logged,
        "duplicates": tally.duplicates,
        "conflicts": tally.conflicts,
        "not_understood": tally.not_understood,
        "refused": tally.refused,
        "indexes": tally.indexes,
    }


class _Submission:
    """One run of the command."""

    def __init__(
        self,
        url: str,
        source: str,
        stream: str | None,
        receipts: Path | None,
        policy_file: Path | None,
        token_file: Path | None,
    ) -> None:
        self._url = url
        self._source = source
        self._is_events = source in EVENTS_SOURCES
        self._headers = {"Translog-Stream": stream} if stream is not None and self._is_events else {}
        path = "v1/events" if self._is_events else f"v1/sources/{source}/{stream or source}"
        # A file makes requests one after the other: without receipts, none needs to wait for the next checkpoint.
        self._path = f"{path}?{'ack=durable&receipts=index' if receipts is None else 'ack=published&receipts=full'}"
        self._receipts = receipts
        self._policy_file = policy_file
        self._token = read_token(token_file)
        self._told = False
        self.tally = _Tally()

    async def submit(self, files: Sequence[str]) -> _Tally:
        """Raises TranslogError, with what was logged before it in the hint."""
        from translog.cli.progress import counting
        from translog.cli.trust import choose_policy
        from translog.client.submit import Submitter
        from translog.client.transport import Transport

        try:
            async with (
                Submitter(self._url, token=self._token) as submitter,
                Transport(self._url, token=self._token) as transport,
            ):
                info = await submitter.info()
                policy = None if self._receipts is None else await choose_policy(self._policy_file, submitter)
                records_max = min(REQUEST_RECORDS_MAX, info.entries_per_request_max)
                with counting("submitting") as count:
                    for name in files:
                        for request in read_requests(name, body_bytes_max=info.body_bytes_max, records_max=records_max):
                            results = await self._send(transport, request)
                            self.tally.add(name, results)
                            count(len(self.tally.indexes))
                            if policy is not None and self._receipts is not None:
                                await self._save(submitter, results, policy, self._receipts)
        except TranslogError as error:
            done = f"before that: {self.tally}" if self.tally.indexes else "nothing was logged before that"
            error.hint = f"{error.hint}; {done}" if error.hint else done
            raise
        return self.tally

    async def _send(self, transport: Any, request: Request) -> "list[EventResult]":
        from translog.client.delivery import Backoff, may_repeat, may_repeat_without_ids, persist, post_events

        headers = {**self._headers, "Content-Type": _content_type(self._source, request)}
        if request.is_gzip:
            headers["Content-Encoding"] = "gzip"

        async def attempt() -> "list[EventResult]":
            return await post_events(transport, self._path, request.body, headers=headers, count=None)

        has_ids = have_ids(self._source, request, records_max=_LOOKED_AT_RECORDS_MAX)
        if not has_ids and not self._told:
            self._told = True
            click.echo(f"warning: {printable(request.file)} has records without ids: {_NOT_REPEATED}", err=True)
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        repeatable = may_repeat if has_ids else may_repeat_without_ids
        try:
            return await persist(attempt, backoff=Backoff(), deadline=deadline, repeatable=repeatable)
        except RemoteError as error:
            if has_ids and error.code == "outcome-unknown":
                error.hint = "send the same again later: the log finds by their ids what it has already"
            raise

    async def _save(self, submitter: "Submitter", results: "Sequence[EventResult]", policy: "Policy", directory: Path) -> None:
        """Saves the receipts; of what was logged before, only those that are not there yet."""
        wanted = {
            result.index: result
            for result in results
            if result.index is not None and not (result.duplicate and (directory / f"{result.index}.tlog-proof").exists())
        }
        try:
            entries = await _entries(submitter, sorted(wanted))
        except RemoteError as error:
            if error.code != "not-published":
                raise
            self.tally.unproven += sorted(wanted)
            return
        proven = _verified(wanted, entries, policy)
        left = {index: entry for index, entry in entries.items() if index not in proven}
        for appended in await submitter.prove(left, policy):
            if appended.receipt is None:
                self.tally.unproven.append(appended.index)
            else:
                proven[appended.index] = appended.receipt
        _save_all(directory, proven)


def _verified(results: "dict[int, EventResult]", entries: dict[int, bytes], policy: "Policy") -> dict[int, bytes]:
    """The receipts that came with the results. Raises VerificationError, MalformedError."""
    from translog.core.merkle import hash_leaf
    from translog.core.policy import verify_checkpoint
    from translog.core.proof import Receipt, format_receipt, verify_receipt_under

    verified = {}
    checkpoints: dict[bytes, Any] = {}
    for index, result in results.items():
        if result.proof is None or result.checkpoint is None:
            continue
        if result.checkpoint not in checkpoints:
            checkpoints[result.checkpoint] = verify_checkpoint(result.checkpoint, policy)
        receipt = Receipt(index=index, proof=result.proof, checkpoint=result.checkpoint)
        checkpoint = checkpoints[result.checkpoint]
        verify_receipt_under(receipt, leaf_hash=hash_leaf(entries[index]), checkpoint=checkpoint)
        verified[index] = format_receipt(receipt)
    return verified


async def _entries(submitter: "Submitter", indexes: Sequence[int]) -> dict[int, bytes]:
    """The log's entries at these indexes, ascending: what the receipts prove. Raises RemoteError."""
    found: dict[int, bytes] = {}
    position = 0
    while position < len(indexes):
        start = indexes[position]
        run = sum(index < start + REQUEST_RECORDS_MAX for index in indexes[position:])
        end = indexes[position + run - 1] + 1
        try:
            entries = await submitter.entries(start=start, end=end)
        except RemoteError as error:
            if error.status not in (401, 403):
                raise
            said = f"the events are logged, but these credentials may not read the log's entries: {error.detail}"
            hint = "a receipt is verified with its entry: fetch receipts with credentials that may read"
            raise RemoteError(said, status=error.status, hint=hint, code="entries-not-readable") from None
        there = dict(enumerate(entries, start=start))
        found |= {index: there[index] for index in indexes[position : position + run] if index in there}
        position += sum(index in there for index in indexes[position : position + run])
    return found


# --- files to requests ------------------------------------------------------------------------------------------------------


def read_requests(name: str, *, body_bytes_max: int, records_max: int) -> Iterator[Request]:
    """The requests a file makes. Raises SettingsError where it cannot be read, TooLargeError where it must go whole and is too
    large, or a line is."""
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            head = file.read(body_bytes_max + 1)
            if head.startswith(_GZIP):
                media = media_of(_decompressed(head))
                yield Request(file=name, body=_whole(head, name, body_bytes_max), media=media, is_gzip=True)
            elif media_of(head) == JSON:
                yield Request(file=name, body=_whole(head, name, body_bytes_max), media=JSON)
            else:
                lines = _lines(head, file, name, body_bytes_max)
                yield from _cut(lines, name, media_of(head), records_max=records_max)
    except OSError as error:
        raise SettingsError(f"cannot read {name}: {error.strerror}") from None


def media_of(head: bytes) -> str:
    """NDJSON where the first line with something on it is a whole JSON value and others follow, JSON where it is not, or
    nothing follows, and text for what does not begin as JSON does."""
    start = head.lstrip()
    if not start.startswith((b"{", b"[")):
        return TEXT
    line, _, rest = start.partition(b"\n")
    if not rest.strip():
        return JSON
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return JSON
    return NDJSON


def _decompressed(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _SNIFFED_BYTES_MAX)
    except zlib.error:
        return b""  # the log says what is wrong with it


def _whole(body: bytes, name: str, bytes_max: int) -> bytes:
    if len(body) > bytes_max:
        raise TooLargeError(
            f"{name} is one document, sent whole, and has more than the {bytes_max} bytes that the log takes in a request",
            hint="split it, or write a record a line (NDJSON, not compressed): that is cut into requests",
            code="file-too-large",
        )
    return body


def _lines(head: bytes, file: BinaryIO, name: str, bytes_max: int) -> Iterator[bytes]:
    """Lines with something on them, each with its newline."""
    *lines, last = head.split(b"\n")
    rest = file.readline(bytes_max + 1)
    following = iter(lambda: file.readline(bytes_max + 1), b"")
    for number, line in enumerate(chain((line + b"\n" for line in lines), [last + rest], following), start=1):
        if len(line) > bytes_max:
            raise TooLargeError(
                f"line {number} of {name} has more than the {bytes_max} bytes that the log takes", code="line-too-large"
            )
        if line.strip():
            yield line if line.endswith(b"\n") else line + b"\n"


def _cut(lines: Iterable[bytes], name: str, media: str, *, records_max: int) -> Iterator[Request]:
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == records_max or size + len(line) > REQUEST_BYTES_MAX):
            yield Request(file=name, body=b"".join(batch), media=media)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield Request(file=name, body=b"".join(batch), media=media)


def have_ids(source: str, request: Request, *, records_max: int) -> bool:
    """Whether every record has an id by which the log finds duplicates: as this program maps them, so not where it does not
    know the source."""
    from translog.events.normalize import normalize
    from translog.events.sources.table import SOURCES

    known = SOURCES.get("events" if source in EVENTS_SOURCES else source)
    body = request.body
    try:
        if request.is_gzip:
            inflater = zlib.decompressobj(wbits=31)
            body = inflater.decompress(body, _LOOKED_AT_BYTES_MAX)
            if not inflater.eof:
                return False
        records = [] if known is None else known.split(body, {"content-type": _content_type(source, request)}, records_max)
    except (zlib.error, TranslogError):  # the log says what is wrong with it
        return False
    return known is not None and all(normalize(known, record).uid is not None for record in records)


def _content_type(source: str, request: Request) -> str:
    if source != "cloudevents" or request.media != JSON or request.is_gzip:
        return request.media
    is_batch = request.body.lstrip().startswith(b"[")
    return "application/cloudevents-batch+json" if is_batch else "application/cloudevents+json"
