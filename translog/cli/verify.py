"""`translog verify`: verifies receipts and evidence files, offline. Needs no network and no server packages.

Rules: nothing is believed but the policy; the entry must be at hand, for a receipt proves nothing without it, and evidence
brings its own; every receipt given must hold, or the exit code is 1; what comes out of an event is escaped for the terminal.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from translog.cli.describe import checkpoint_document, describe_checkpoint, describe_worth, format_time, worth_document
from translog.cli.options import PATH, json_option, read_file, read_policy
from translog.cli.progress import counting
from translog.core.keys import VKey, parse_vkey
from translog.core.merkle import hash_leaf
from translog.core.policy import NO_QUORUM, Policy, VerifiedCheckpoint, verify_checkpoint
from translog.core.proof import RECEIPT_BYTES_MAX, VerifiedReceipt, parse_receipt, verify_receipt_under
from translog.core.quorum import PolicyWorth, accepted_by, accepted_since, stated_times, weigh_policy
from translog.core.tile import ENTRY_BYTES_MAX
from translog.core.wire import printable
from translog.errors import DisclosureError, MalformedError, SettingsError, TranslogError, VerificationError
from translog.events.disclosure import EVIDENCE_BYTES_MAX, VerifiedEvidence, parse_evidence, verify_evidence
from translog.events.entry import Numbered
from translog.events.jsontext import compact

_AGE = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
_PLAIN_NAME = re.compile(r"[\w.-]+", re.ASCII)
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FUTURE_S_MAX = 300
"""How far ahead a signature's time may be of this machine's clock when an age is asked for."""
_UNTIMED = "when it was logged is not shown: no signature that counts states a time"


@click.command()
@click.argument("file", type=PATH, metavar="FILE|DIR")
@click.option("--policy", "policy_file", type=PATH, metavar="FILE", required=True, help="The tlog-policy file to trust.")
@click.option("--entry", type=PATH, metavar="FILE", help="The entry the receipt is for.")
@click.option(
    "--lines", is_flag=True, help="The lines of --entry are entries, in the order of the indexes of the receipts in DIR."
)
@click.option("--max-age", metavar="D", help="Refuse checkpoints signed longer ago than this: 90s, 15m, 12h, 30d.")
@click.option("--stream-vkey", metavar="VKEY", help="The key that must have signed the stream's checkpoint in the evidence.")
@json_option
def command(
    file: Path,
    policy_file: Path,
    entry: Path | None,
    lines: bool,
    max_age: str | None,
    stream_vkey: str | None,
    as_json: bool,
) -> None:
    """Verify that an entry is in the log: the policy accepts the receipt's checkpoint, and the receipt proves the entry in
    it. Or, given an evidence file, what it shows of an event. Works offline, years later."""
    if not lines and _is_evidence(file):
        if entry is not None:
            raise click.UsageError(f"{file} is evidence, which brings its entry along: leave out --entry")
        vkey = None if stream_vkey is None else _parse_vkey(stream_vkey)
        _verify_evidence(file, policy_file, None if max_age is None else _parse_age(max_age), vkey, as_json=as_json)
        return
    if stream_vkey is not None:
        raise click.UsageError(f"{file} is no evidence file: --stream-vkey says nothing about receipts")
    if entry is None:
        raise click.UsageError("a receipt proves an entry: give it with --entry FILE")
    if lines and not file.is_dir():
        raise click.UsageError(f"with --lines, {file} must be a directory of receipts")
    if not lines and file.is_dir():
        raise click.UsageError(f"{file} is a directory: for the receipts of many lines, give --lines")
    age_s = None if max_age is None else _parse_age(max_age)
    trusted = read_policy(policy_file)
    receipts = _receipts(file) if lines else [file]
    entries = _entries(entry, lines=lines)
    checker = _Checker(trusted, age_s, by_name=lines)
    verified = None
    with counting("verifying", total=len(receipts)) as count:
        for done, path in enumerate(receipts):
            data = next(entries, None)
            if data is None:
                raise MalformedError(f"{entry} has fewer lines than the {len(receipts)} receipts in {file}")
            verified = checker.check(path, data)
            count(done + 1)
    if next(entries, None) is not None:
        raise MalformedError(f"{entry} has more lines than the {len(receipts)} receipts in {file}")
    if verified is not None:
        _report(verified, len(receipts), checker, as_json=as_json)


class _Checker:
    """Verifies receipts; the checkpoints they share, once each."""

    def __init__(self, policy: Policy, age_s: int | None, *, by_name: bool) -> None:
        self.policy = policy
        self._by_name = by_name
        self._age_s = age_s
        self.checkpoints: dict[bytes, VerifiedCheckpoint] = {}

    def check(self, path: Path, entry: bytes) -> VerifiedReceipt:
        """Raises what is wrong, naming the file."""
        try:
            data = read_file(path, bytes_max=RECEIPT_BYTES_MAX, what="the receipt")
            receipt = parse_receipt(data, parsed=self.checkpoints)
            checkpoint = self.checkpoints.get(receipt.checkpoint)
            if checkpoint is None:
                checkpoint = verify_checkpoint(receipt.checkpoint, self.policy)
                _require_age(checkpoint, self.policy, self._age_s)
                self.checkpoints[receipt.checkpoint] = checkpoint
            if self._by_name and path.stem != str(receipt.index):
                raise MalformedError(f"this is the receipt of entry {receipt.index}", hint="it was renamed, or changed")
            return verify_receipt_under(receipt, leaf_hash=hash_leaf(entry), checkpoint=checkpoint)
        except (MalformedError, VerificationError) as error:
            raise _named(path, error) from None


def _named(path: Path, error: TranslogError, what: str = "receipt") -> TranslogError:
    hints = {
        "not-included": f"the entry is not the one this {what} is for, or one of the two was changed",
        "bad-signature": f"the {what} was changed, or the policy is for another log",
        "unknown-log": f"the {what} is of another log than the policy is for",
        "unknown-key": "the log signed with a key the policy does not list: get a current policy from someone you trust",
        "malformed": f"the {what} was changed or cut short",
        "bad-disclosure": "the evidence was changed, or put together from parts of different events",
    }
    hint = error.hint or hints.get(error.code, "")
    return type(error)(f"{path}: {error.detail}", hint=hint, code=error.code)


def _require_age(checkpoint: VerifiedCheckpoint, policy: Policy, age_s: int | None) -> None:
    """Raises VerificationError unless the policy would accept the checkpoint by its fresh signatures alone.

    Where the policy asks for witnesses, only their times count: the log's operator can sign an old tree anew at any time.
    """
    if age_s is None:
        return
    counted = checkpoint.cosigned if policy.quorum != NO_QUORUM else (*checkpoint.cosigned, *checkpoint.signed)
    timed = [(item.time_s, item.name) for item in counted if item.time_s is not None]
    now_s = int(time.time())
    signed_s = accepted_since([pair for pair in timed if pair[0] <= now_s + _FUTURE_S_MAX], policy)
    if signed_s is not None and signed_s >= now_s - age_s:
        return
    signed_s = accepted_since(timed, policy)
    if signed_s is None:
        raise VerificationError("no signature states a time that counts, so its age is not known", code="no-time")
    if signed_s >= now_s - age_s:
        raise VerificationError("a signature is from the future, by this machine's clock", code="future-time")
    since = f"{now_s - signed_s} s ago, at {format_time(signed_s)}"
    raise VerificationError(
        f"the checkpoint was signed {since}: longer than {age_s} s",
        hint="get a newer one, or ask why there is none",
        code="too-old",
    )


def _parse_age(text: str) -> int:
    match = _AGE.fullmatch(text)
    if match is None:
        raise click.UsageError("an age is a number and a unit: 90s, 15m, 12h, 30d")
    return int(match[1]) * _UNIT_S[match[2]]


def _parse_vkey(text: str) -> VKey:
    try:
        return parse_vkey(text)
    except MalformedError as error:
        raise click.UsageError(f"--stream-vkey: {error.detail}") from None


def _receipts(directory: Path) -> list[Path]:
    numbered = [
        (int(path.stem), path) for path in directory.glob("*.tlog-proof") if path.stem.isascii() and path.stem.isdigit()
    ]
    if not numbered:
        raise SettingsError(f"there are no receipts (<index>.tlog-proof) in {directory}")
    return [path for _, path in sorted(numbered)]


def _entries(path: Path, *, lines: bool) -> Iterator[bytes]:
    if not lines:
        yield read_file(path, bytes_max=ENTRY_BYTES_MAX, what="the entry")
        return
    try:
        with path.open("rb") as file:
            while line := file.readline(ENTRY_BYTES_MAX + 2):
                yield line.removesuffix(b"\n")
    except OSError as error:
        raise SettingsError(f"cannot read the entries {path}: {error.strerror}") from None


def _report(verified: VerifiedReceipt, count: int, checker: _Checker, *, as_json: bool) -> None:
    policy, worth = checker.policy, weigh_policy(checker.policy)
    bounds = [accepted_by(stated_times(checkpoint, policy), policy) for checkpoint in checker.checkpoints.values()]
    no_later_than_s = max((bound for bound in bounds if bound is not None), default=None) if None not in bounds else None
    if as_json:
        checkpoints = [
            {**checkpoint_document(checkpoint), "no_later_than_s": bound}
            for checkpoint, bound in zip(checker.checkpoints.values(), bounds, strict=True)
        ]
        document = {"ok": True, "count": count, "no_later_than_s": no_later_than_s, "checkpoints": checkpoints}
        index = {"index": verified.index} if count == 1 else {}
        click.echo(json.dumps(document | index | {"policy": worth_document(worth)}))
        return
    under = len(checker.checkpoints)
    click.echo(f"OK: entry {verified.index} is in the log" if count == 1 else f"OK: all {count} entries are in the log")
    if no_later_than_s is not None:
        click.echo(f"  logged no later than {format_time(no_later_than_s)}, by {_clock(policy)}")
    else:
        click.echo(
            f"  {_UNTIMED}"
            if count == 1
            else "  when all were logged is not shown: not on each checkpoint do enough signatures state a time"
        )
    if under > 1:
        click.echo(f"  under {under} checkpoints; the last:")
    for line in _describe_trust(verified.checkpoint, worth):
        click.echo(f"  {line}")


def _clock(policy: Policy) -> str:
    return "the log's own clock" if policy.quorum == NO_QUORUM else "the clocks of the witnesses the policy asks for"


def _describe_trust(checkpoint: VerifiedCheckpoint, worth: PolicyWorth) -> list[str]:
    """Who vouches for the checkpoint, and what that is worth."""
    return [*describe_checkpoint(checkpoint, unasked=worth.unused), describe_worth(worth)]


def _is_evidence(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(1) == b"{"
    except OSError:  # told where it is read
        return False


def _verify_evidence(file: Path, policy_file: Path, age_s: int | None, vkey: VKey | None, *, as_json: bool) -> None:
    policy = read_policy(policy_file)
    try:
        evidence = parse_evidence(read_file(file, bytes_max=EVIDENCE_BYTES_MAX, what="the evidence"))
        verified = verify_evidence(evidence, policy, stream_vkey=vkey)
        if vkey is not None and verified.stream is None:
            raise DisclosureError(
                "there is no stream's checkpoint that --stream-vkey could have signed",
                hint="without that option, the rest of the evidence is verified",
            )
        _require_age(verified.receipt.checkpoint, policy, age_s)
    except (MalformedError, VerificationError) as error:
        raise _named(file, error, "evidence") from None
    worth = weigh_policy(policy)
    if as_json:
        click.echo(json.dumps(_evidence_document(verified) | {"policy": worth_document(worth)}))
    else:
        click.echo("\n".join(_describe_evidence(verified, policy, worth)))


def _evidence_document(verified: VerifiedEvidence) -> dict[str, Any]:
    entry, before, stream = verified.entry, verified.not_before, verified.stream
    return {
        "ok": True,
        "origin": verified.origin,
        "index": verified.index,
        "size": verified.size,
        "member": entry.member,
        "stream": entry.stream,
        "seq": entry.seq,
        "numbered": entry.numbered,
        "received_at_ms": entry.received_at_ms,
        "no_later_than_s": verified.no_later_than_s,
        "not_before_s": verified.not_before_s,
        "fields": verified.shown,
        "withheld": verified.withheld,
        "checkpoint": checkpoint_document(verified.receipt.checkpoint),
        "not_before_checkpoint": None if before is None else checkpoint_document(before),
        "stream_checkpoint": None
        if stream is None
        else {
            "origin": stream.checkpoint.origin,
            "size": stream.checkpoint.size,
            "signature_checked": stream.signed_by is not None,
        },
    }


def _describe_evidence(verified: VerifiedEvidence, policy: Policy, worth: PolicyWorth) -> Iterator[str]:
    entry = verified.entry
    yield f"OK: event {verified.index} is in the log {printable(verified.origin)}"
    who = "the sender" if entry.numbered is Numbered.SENDER else "the log: the numbers prove nothing about what never arrived"
    yield f"  member {entry.member}, stream {entry.stream}, number {entry.seq}, numbered by {who}"
    yield f"  received at {_format_ms(entry.received_at_ms)}, as the log states"
    for what, time_s in (("not before", verified.not_before_s), ("no later than", verified.no_later_than_s)):
        if time_s is not None:
            yield f"  logged {what} {format_time(time_s)}, by {_clock(policy)}"
    if verified.no_later_than_s is None:
        yield f"  {_UNTIMED}"
    elif verified.not_before_s is not None and verified.not_before_s > verified.no_later_than_s:
        yield "  these times contradict each other: somebody's clock is wrong"
    yield f"  shown, {len(verified.shown)} of {len(verified.names)} fields:" if verified.shown else "  no field is shown"
    yield from (f"    {_name(name)}: {printable(compact(value))}" for name, value in verified.shown.items())
    if verified.withheld:
        yield f"  withheld, but part of the event: {', '.join(map(_name, verified.withheld))}"
    yield "  Any other field was never in the event."
    if verified.stream is not None:
        head = verified.stream.checkpoint
        yield f"  It is in the stream's checkpoint of size {head.size}, whose signature was " + (
            "checked." if verified.stream.signed_by is not None else "NOT checked: that takes --stream-vkey."
        )
    yield from (f"  {line}" for line in _describe_trust(verified.receipt.checkpoint, worth))
    if verified.not_before is not None:
        yield "  from before it:"
        yield from (f"    {line}" for line in describe_checkpoint(verified.not_before, unasked=worth.unused))


def _name(name: str) -> str:
    """A field's name, in quotes if it could be taken for more than a name."""
    return name if _PLAIN_NAME.fullmatch(name) else printable(compact(name))


def _format_ms(time_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds; times past the year 9999 as `format_time` has them."""
    seconds, rest_ms = divmod(time_ms, 1000)
    text = format_time(seconds)
    return f"{text[:-1]}.{rest_ms:03}Z" if text.endswith("Z") else text
