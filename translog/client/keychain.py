"""Follows a log's changes of its keys under a policy, from the keys that it lists to the ones that the log has now.

Rules: the log is asked and never believed. A change counts if it is the next of the chain (events/keychain.py), and a receipt
proves its entry under the policy as it was before that change, its witnesses' quorum included; the checkpoint of today must
hold under what comes out. Without witnesses there is nothing to follow by: one who stole a key could show a chain of his own.
Keys of a type that the policy does not list are not taken up: a policy of ML-DSA-44 keys stays one. What the log does not tell
is not known: it could keep a change to itself. specs/formats.md, "Changes of keys".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from translog.client.transport import TIMEOUT_MS, Transport
from translog.core.keys import VKey, parse_vkey
from translog.core.merkle import hash_leaf
from translog.core.note import NOTE_BYTES_MAX
from translog.core.policy import NO_QUORUM, Policy, PolicyLog, VerifiedCheckpoint, verify_checkpoint
from translog.core.proof import RECEIPT_BYTES_MAX, parse_receipt, verify_receipt
from translog.core.tile import ENTRY_BYTES_MAX
from translog.core.wire import clip, decode_base64
from translog.errors import (
    ConsistencyError,
    InclusionError,
    MalformedError,
    QuorumError,
    RemoteError,
    SignatureError,
    VerificationError,
)
from translog.events.keychain import KeyChain, KeyChange, keys_before, parse_key_change
from translog.storage.source import decode_kept

CHANGES_MAX = 1_000
"""Changes followed, at most."""
_PAGE_BYTES_MAX = 64 * 1024 * 1024
_PAGES_MAX = 16
_ODD = (AttributeError, KeyError, MalformedError, RecursionError, TypeError, ValueError)
"""What reading a JSON answer of the wrong shape can raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange:
    """A change of keys and the index of its entry."""

    index: int
    entry: bytes
    change: KeyChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Where the changes led: those that were not in the policy yet, the policy with the keys of now, and the checkpoint that
    holds under it."""

    origin: str
    changes: tuple[LoggedChange, ...]
    policy: Policy
    checkpoint: VerifiedCheckpoint

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        """The log's keys that the policy lists now."""
        return tuple(log.vkey for log in self.policy.logs if log.vkey.name == self.origin)


async def follow_keys(url: str, policy: Policy, *, timeout_ms: int = TIMEOUT_MS) -> Followed:
    """Follows the log at `url`, one of the policy's.

    Raises QuorumError for a policy without witnesses, VerificationError where a change is not proven or the log's checkpoint
    does not hold, RemoteError.
    """
    if policy.quorum == NO_QUORUM:
        raise QuorumError(
            "the policy asks for no witnesses, so nothing but the log's own word would stand behind new keys",
            hint="get a new policy from the operator by another way, and compare its keys",
            code="policy-without-witnesses",
        )
    async with Transport(url, timeout_ms=timeout_ms) as transport:
        try:
            return await _Follower(transport, policy).follow()
        except VerificationError as error:
            error.hint = error.hint or "the policy stays as it is; if the log is right, get a new one by another way"
            raise


class _Follower:
    """One pass from a policy's keys to the log's."""

    def __init__(self, transport: Transport, policy: Policy) -> None:
        self._transport = transport
        self._policy = policy

    async def follow(self) -> Followed:
        keys, told = await self._fetch()
        origin = keys[0].name
        self._require_asked(origin)
        listed = tuple(log.vkey for log in self._policy.logs if log.vkey.name == origin)
        number = _find_place(listed, keys, told)
        chain = KeyChain(name=origin, active=listed, number=number, kinds=frozenset(vkey.type for vkey in listed))
        policy = self._policy
        seen = told[number - 1].index if number else -1
        for item in told[number:]:
            if item.index <= seen:
                raise ConsistencyError("the log names the changes of its keys in another order than that of its entries")
            seen = item.index
            try:
                chain = chain.follow(item.entry)
                await self._require_proven(item, policy)
            except VerificationError as error:
                error.detail = f"change {item.change.number} of the log's keys does not hold: {error.detail}"
                raise
            policy = _with_keys(policy, chain)
        note = await self._transport.get("checkpoint", bytes_max=NOTE_BYTES_MAX)
        checkpoint = verify_checkpoint(note, policy)
        if checkpoint.checkpoint.origin != origin or checkpoint.checkpoint.size <= seen:
            raise ConsistencyError("the log's checkpoint does not cover the changes of its keys")
        return Followed(origin=origin, changes=tuple(told[number:]), policy=policy, checkpoint=checkpoint)

    def _require_asked(self, origin: str) -> None:
        """Raises SignatureError for a log that the policy does not list, or not at the URL that it lists another one at: the
        changes of one must not stand for those of the other."""
        here = {
            log.vkey.name for log in self._policy.logs if log.url is not None and log.url.rstrip("/") == self._transport.url
        }
        if origin not in (here or {log.vkey.name for log in self._policy.logs}):
            where = " at this URL" if here else ""
            raise SignatureError(
                f"the policy lists no log {clip(origin)}{where}",
                hint="what --log names is not the log that the policy is for",
                code="unknown-log",
            )

    async def _fetch(self) -> tuple[tuple[VKey, ...], list[LoggedChange]]:
        """The keys and all changes, as the log tells them. Raises RemoteError."""
        changes: list[LoggedChange] = []
        while True:
            body = await self._transport.get(f"v1/keys?start={len(changes)}", bytes_max=_PAGE_BYTES_MAX)
            try:
                document = json.loads(body)
                keys = tuple(parse_vkey(vkey) for vkey in document["keys"])
                count = document["count"]
                if type(count) is not int:
                    raise ValueError
                page = [_read_change(change) for change in document["changes"]]
            except _ODD:
                raise RemoteError(f"{self._transport.url} does not tell its keys as a translog does") from None
            changes += page
            names = {vkey.name for vkey in keys} | {item.change.name for item in changes}
            if len(names) != 1 or not keys or count > CHANGES_MAX or len(changes) > count:
                raise RemoteError(f"{self._transport.url} does not tell its keys as a translog does")
            if len(changes) == count:
                return keys, changes
            if not page:
                raise RemoteError(f"{self._transport.url} tells of {count} changes of its keys, and shows {len(changes)}")

    async def _require_proven(self, item: LoggedChange, policy: Policy) -> None:
        """Raises VerificationError unless a receipt proves the entry under the policy."""
        try:
            await self._require_receipt(item, "", policy)
        except (SignatureError, QuorumError):
            # The first kept checkpoint that covers it lacks a cosignature, say: a later one may have it.
            for size in await self._accepted_sizes(item.index + 1, policy):
                await self._require_receipt(item, f"?size={size}", policy)
                return
            raise

    async def _require_receipt(self, item: LoggedChange, query: str, policy: Policy) -> None:
        data = await self._transport.get(f"v1/receipts/{item.index}{query}", bytes_max=RECEIPT_BYTES_MAX)
        receipt = parse_receipt(data)
        if receipt.index != item.index:
            raise InclusionError(f"asked for the receipt of entry {item.index}, got that of {receipt.index}")
        verified = verify_receipt(receipt, leaf_hash=hash_leaf(item.entry), policy=policy)
        if verified.checkpoint.checkpoint.origin != item.change.name:
            raise SignatureError("the receipt is another log's", code="unknown-log")

    async def _accepted_sizes(self, start: int, policy: Policy) -> list[int]:
        """The first kept checkpoint from that size on that the policy accepts, if there is one."""
        for _ in range(_PAGES_MAX):
            page = await self._transport.get(f"v1/checkpoints?start={start}", bytes_max=_PAGE_BYTES_MAX)
            for line in page.splitlines(keepends=True):
                kept = decode_kept(line)
                start = max(start, kept.size + 1)
                if _accepts(policy, kept.note):
                    return [kept.size]
            if not page:
                break
        return []


def _read_change(document: dict[str, object]) -> LoggedChange:
    """Raises one of _ODD."""
    index, entry = document["index"], decode_base64(str(document["entry"]))
    if type(index) is not int or index < 0 or len(entry) > ENTRY_BYTES_MAX:
        raise ValueError
    return LoggedChange(index=index, entry=entry, change=parse_key_change(entry))


def _find_place(listed: Sequence[VKey], keys: Sequence[VKey], told: Sequence[LoggedChange]) -> int:
    """After how many of the changes the log had, by its own word, all keys that the policy lists: it takes up the rest. Which
    keys the log had is not believed for it: every change from there on must be signed by one that is listed.

    Raises VerificationError where it never had all of them.
    """
    for number, before in enumerate(keys_before(keys, [item.entry for item in told])):
        if set(listed) <= set(before):
            return number
    raise VerificationError(
        "the log never had all the keys together that the policy lists for it",
        hint="one of them was taken up by mistake, or the log's account is wrong: get a new policy by another way",
        code="keys-unclear",
    )


def _with_keys(policy: Policy, chain: KeyChain) -> Policy:
    """The policy with the chain's keys for its log, at the place and with the URL of the first that it lists."""
    own = [log for log in policy.logs if log.vkey.name == chain.name]
    known = {log.vkey: log for log in own}
    new = [known.get(vkey, PolicyLog(vkey=vkey, url=own[0].url)) for vkey in chain.active]
    at = policy.logs.index(own[0])
    others = [log for log in policy.logs if log.vkey.name != chain.name]
    return replace(policy, logs=(*others[:at], *new, *others[at:]))


def _accepts(policy: Policy, note: bytes) -> bool:
    try:
        verify_checkpoint(note, policy)
    except (MalformedError, VerificationError):
        return False
    return True
