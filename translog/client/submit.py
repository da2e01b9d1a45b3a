"""Appends opaque entries to a translog and brings back receipts.

Rules: a receipt is verified against the entry it is for, under the policy, before it is handed out; an append whose outcome
is unknown is reported and not repeated, since opaque entries have nothing to tell a duplicate by.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from translog.client.transport import TIMEOUT_MS, Transport, outcome_unknown
from translog.core.keys import VKey, parse_vkey
from translog.core.merkle import hash_leaf
from translog.core.note import NOTE_BYTES_MAX, is_key_name
from translog.core.policy import Policy, parse_policy, verify_checkpoint
from translog.core.proof import (
    PROOF_HASHES_MAX,
    RECEIPT_BYTES_MAX,
    Receipt,
    format_receipt,
    parse_receipt,
    verify_receipt,
    verify_receipt_under,
)
from translog.core.tile import ENTRY_BYTES_MAX, encode_bundle
from translog.core.wire import HASH_BYTES, SIZE_MAX, decode_base64
from translog.errors import InclusionError, MalformedError, RemoteError

_RESULT_BYTES_MAX = PROOF_HASHES_MAX * 48 + 64
"""An entry's share of the answer to an append: base64 hashes, quoted and with commas, and what is around them."""
_ENTRY_JSON_BYTES_MAX = 4 * (ENTRY_BYTES_MAX // 3 + 1) + 3
"""An entry in base64, quoted and with a comma."""
NOT_PUBLISHED = "not-published"
"""The code for a receipt that is not there yet."""
_LOG_BYTES_MAX = 1024 * 1024
_ODD = (AttributeError, KeyError, MalformedError, OverflowError, TypeError, ValueError)
"""What reading a JSON answer of the wrong shape can raise."""
_PUBLISH_WAIT_S = 60.0
"""How long the receipts of a batch are waited for, all together."""
_PUBLISH_POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class LogInfo:
    """What a log says of itself, unverified. `policy` is how it would like to be trusted, None where it does not say: its logs
    are among `vkeys`, and no witness has a key of the log."""

    origin: str
    vkeys: tuple[VKey, ...]
    policy: Policy | None
    published_size: int
    integrated_size: int
    entries_per_request_max: int
    body_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """An entry in the log: its index, and its receipt, a tlog-proof file; None if that could not be had yet."""

    index: int
    receipt: bytes | None


class Submitter:
    """Appends to one log. Use as an async context manager."""

    def __init__(self, url: str, *, token: str | None = None, timeout_ms: int = TIMEOUT_MS) -> None:
        self._transport = Transport(url, token=token, timeout_ms=timeout_ms)

    async def __aenter__(self) -> "Submitter":
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(exc_type, exc, traceback)

    async def info(self) -> LogInfo:
        """`GET /v1/log`. Raises RemoteError, also where the answer is not a translog's."""
        document = _document(await self._transport.get("v1/log", bytes_max=_LOG_BYTES_MAX))
        try:
            info = LogInfo(
                origin=str(document["origin"]),
                vkeys=tuple(parse_vkey(vkey) for vkey in document["vkeys"]),
                policy=_parse_policy(document),
                published_size=int(document["published_size"]),
                integrated_size=int(document["integrated_size"]),
                entries_per_request_max=int(document["limits"]["entries_per_request_max"]),
                body_bytes_max=int(document["limits"]["body_bytes_max"]),
            )
        except _ODD:
            raise _not_a_log(self._transport.url) from None
        # A policy is made from this: nothing in it may be able to add a line or a foreign key.
        if not is_key_name(info.origin) or any(vkey.name != info.origin for vkey in info.vkeys):
            raise _not_a_log(self._transport.url)
        if info.policy is not None:
            _require_own(info.policy, info, self._transport.url)
        return info

    async def append(self, entries: Sequence[bytes], policy: Policy) -> list[Appended]:
        """Appends a batch, all or nothing, waits until it is published, and verifies every receipt.

        Raises TooLargeError for an entry that no log takes; RemoteError, with code `outcome-unknown` where the entries may
        have been logged all the same, and with their indexes in the hint where they were logged but their receipts cannot be
        had; VerificationError where the log's receipts do not hold.
        """
        answer = await self._transport.post(
            "v1/entries?receipts=full",
            encode_bundle(entries),
            content_type="application/octet-stream",
            bytes_max=len(entries) * _RESULT_BYTES_MAX + NOTE_BYTES_MAX,
        )
        try:
            first, note, proofs = _parse_answer(answer.body, len(entries))
        except (RemoteError, *_ODD):
            raise outcome_unknown(f"{self._transport.url} does not answer as a translog does") from None
        if note is None:
            return await self._wait_all(first, entries, policy)
        verified = verify_checkpoint(note, policy)
        appended = []
        for n, (entry, proof) in enumerate(zip(entries, proofs, strict=True)):
            receipt = Receipt(index=first + n, proof=proof, checkpoint=note)
            verify_receipt_under(receipt, leaf_hash=hash_leaf(entry), checkpoint=verified)
            appended.append(Appended(index=first + n, receipt=format_receipt(receipt)))
        return appended

    async def _wait_all(self, first: int, entries: Sequence[bytes], policy: Policy) -> list[Appended]:
        """The entries are logged; their receipts are None if they are not published in time."""
        try:
            return await self.prove(dict(enumerate(entries, start=first)), policy)
        except RemoteError as error:
            named = f"entry {first} is" if len(entries) == 1 else f"the entries {first} to {first + len(entries) - 1} are"
            logged = f"{named} in the log, by its word: do not send them again, fetch their receipts later"
            error.hint = f"{error.hint}; {logged}" if error.hint else logged
            raise

    async def prove(self, entries: Mapping[int, bytes], policy: Policy) -> list[Appended]:
        """The verified receipts of entries that are logged, by index, ascending; None where one is not published in time.

        Waits up to a minute for all together. Raises RemoteError; VerificationError where a receipt does not hold.
        """
        deadline = asyncio.get_running_loop().time() + _PUBLISH_WAIT_S
        numbered = sorted(entries.items())
        # Once the last is published, all are: so only it is ever polled for.
        last = [await self._wait(index, entry, policy, deadline) for index, entry in numbered[-1:]]
        return [await self._wait(index, entry, policy, deadline) for index, entry in numbered[:-1]] + last

    async def entries(self, *, start: int, end: int) -> list[bytes]:
        """`GET /v1/entries`, unverified: entries [start, ...), as many as one answer has, at least one. Waits up to a minute
        for them to be published. Raises RemoteError, status 401 or 403 where the log does not show entries to everybody."""
        path = f"v1/entries?start={start}&end={end}"
        ask = partial(self._transport.get, path, bytes_max=(end - start) * _ENTRY_JSON_BYTES_MAX + 100)
        deadline = asyncio.get_running_loop().time() + _PUBLISH_WAIT_S
        document = _document(await wait_published(ask, deadline=deadline))
        try:
            entries = [decode_base64(entry) for entry in document["entries"]]
        except _ODD:
            raise _not_a_log(self._transport.url) from None
        if not 0 < len(entries) <= end - start:
            raise _not_a_log(self._transport.url)
        return entries

    async def _wait(self, index: int, entry: bytes, policy: Policy, deadline: float) -> Appended:
        try:
            data = await wait_published(partial(self.receipt, index), deadline=deadline)
        except RemoteError as error:
            if error.code != NOT_PUBLISHED:
                raise
            return Appended(index=index, receipt=None)
        receipt = parse_receipt(data)
        if receipt.index != index:
            raise InclusionError(f"asked for the receipt of entry {index}, got that of {receipt.index}")
        verify_receipt(receipt, leaf_hash=hash_leaf(entry), policy=policy)
        return Appended(index=index, receipt=data)

    async def receipt(self, index: int) -> bytes:
        """`GET /v1/receipts/<index>`, unverified: the log does not say for which entry. Raises RemoteError."""
        return await self._transport.get(f"v1/receipts/{index}", bytes_max=RECEIPT_BYTES_MAX)

    async def checkpoint(self, *, size: int | None = None) -> bytes:
        """The latest checkpoint, or the kept one of `size`, unverified. Raises RemoteError."""
        path = "checkpoint" if size is None else f"v1/checkpoint?size={size}"  # every tlog-tiles log has the first
        return await self._transport.get(path, bytes_max=NOTE_BYTES_MAX)


async def wait_published(ask: Callable[[], Awaitable[bytes]], *, deadline: float) -> bytes:
    """What `ask` returns, asked again while the log says that it is not published yet, until `deadline` (the loop's clock,
    seconds). Raises RemoteError, past the deadline with code NOT_PUBLISHED."""
    while True:
        try:
            return await ask()
        except RemoteError as error:
            if error.code != NOT_PUBLISHED or asyncio.get_running_loop().time() >= deadline:
                raise
        await asyncio.sleep(_PUBLISH_POLL_S)


def _parse_answer(body: bytes, count: int) -> tuple[int, bytes | None, list[tuple[bytes, ...]]]:
    """First index, checkpoint (None where not published yet) and a proof per entry. Raises RemoteError or one of _ODD."""
    document = _document(body)
    first = int(document["first"])
    if int(document["count"]) != count or not 0 <= first <= SIZE_MAX - count:
        raise ValueError
    if document["checkpoint"] is None:
        return first, None, []
    proofs = [tuple(decode_base64(value, size=HASH_BYTES) for value in result["proof"]) for result in document["results"]]
    if len(proofs) != count:
        raise ValueError
    return first, document["checkpoint"].encode(), proofs


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise RemoteError("the answer is not JSON: is this a translog?")
    return document


def _not_a_log(url: str) -> RemoteError:
    return RemoteError(f"{url} does not answer as a translog does", hint="is the URL right, without a path like /checkpoint?")


def _parse_policy(document: dict[str, Any]) -> Policy | None:
    """The policy that the log publishes under, with all keys of its witnesses, or else the one it would be trusted under."""
    if document.get("publication_policy") is not None:
        return parse_policy(document["publication_policy"].encode())
    return parse_policy(document["policy"].encode()) if "policy" in document else None


def _require_own(policy: Policy, info: LogInfo, url: str) -> None:
    """Raises RemoteError for a stated policy that trusts a key beside the log's, or takes a key of the log for a witness's."""
    own = {vkey.public_key for vkey in info.vkeys}
    witnesses = [witness.vkey for witness in policy.witnesses.values()]
    foreign = any(log.vkey not in info.vkeys for log in policy.logs)
    if foreign or any(vkey.public_key in own or vkey.name == info.origin for vkey in witnesses):
        raise RemoteError(
            f"the policy that {url} states is not of this log alone",
            hint="it trusts another log's key, or has the log witness itself: ask the operator",
        )
