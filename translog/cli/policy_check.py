"""`translog policy check`: says what a policy file is worth. Needs no network and no server packages.

Rules: exit code 1 where the log's operator needs no dishonest witness for a split view, so also for `quorum none`; a witness is
named as in its vkey, a key as the policy names it; what comes out of the file is escaped for the terminal.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from translog.cli.describe import describe_worth, plain_name, worth_document
from translog.cli.options import PATH, json_option, read_policy
from translog.core.keys import KeyType
from translog.core.policy import NO_QUORUM, Policy, PolicyWitness
from translog.core.quorum import PolicyWorth, weigh_policy
from translog.core.wire import printable


@click.command()
@click.argument("file", type=PATH)
@json_option
@click.pass_context
def command(context: click.Context, file: Path, as_json: bool) -> None:
    """Say what a policy file is worth: who must be dishonest before the log can show different people different trees, whose
    absence stops it from publishing, and what of that holds against one who can forge Ed25519.

    Ends with exit code 1 if the log's operator needs nobody's help for a split view: two quorums have no witness in common, or
    the policy says `quorum none`.
    """
    policy = read_policy(file)
    worth = weigh_policy(policy)
    sound = bool(worth.split)
    if as_json:
        click.echo(
            json.dumps({"ok": sound, "quorum": plain_name(policy.quorum)} | worth_document(worth) | _rest(policy, worth))
        )
    else:
        click.echo(f"{'OK' if sound else 'NOT SOUND'}: {describe_worth(worth)}")
        for line in _describe(policy, worth):
            click.echo(f"  {line}")
    if not sound:
        context.exit(1)


def _without_url(policy: Policy, worth: PolicyWorth) -> list[PolicyWitness]:
    """The keys that the quorum counts and that a log could not ask for a cosignature."""
    return [each for each in policy.witnesses.values() if each.url is None and each.name not in worth.unused]


def _rest(policy: Policy, worth: PolicyWorth) -> dict[str, object]:
    return {
        "without_url": [plain_name(witness.name) for witness in _without_url(policy, worth)],
        "logs": [
            {
                "origin": log.vkey.name,
                "vkey": str(log.vkey),
                "algorithm": log.vkey.type.label,
                "post_quantum": log.vkey.type is KeyType.COSIGNATURE_MLDSA44,
                "url": None if log.url is None else plain_name(log.url),
            }
            for log in policy.logs
        ],
    }


def _describe(policy: Policy, worth: PolicyWorth) -> Iterator[str]:
    if worth.split is None:
        yield "no witness is asked for, so nothing stops publication, and nothing shows a split view"
    else:
        yield from _describe_split(worth)
        yield f"publication stops without {'these' if len(worth.stop or ()) > 1 else 'this one'}: {_named(worth.stop or ())}"
        yield from _describe_keys(worth)
    yield from _describe_rest(policy, worth)
    yield from _describe_logs(policy)


def _describe_split(worth: PolicyWorth) -> Iterator[str]:
    one, other = worth.views or ((), ())
    views = f"{_named(one, ' + ')} and {_named(other, ' + ')}"
    if worth.split:
        yield f"dishonest, beside the operator: {_named(worth.split)}"
        yield f"two quorums with nobody else in common: {views}"
    elif not worth.uncounted:
        yield f"two quorums have nobody in common: {views}"
    yield f"witnesses that count: {len(worth.witnesses)}, {_named(worth.witnesses)}"
    if worth.uncounted:
        names = _named(worth.uncounted)
        yield f"with keys in too many places for an exact answer, and so taken to be dishonest and absent already: {names}"


def _describe_keys(worth: PolicyWorth) -> Iterator[str]:
    yield f"post-quantum keys (ML-DSA-44): {_named(map(plain_name, worth.post_quantum)) or 'none'}"
    if worth.classic:
        yield f"Ed25519 keys: {_named(map(plain_name, worth.classic))}"
    if worth.split_quantum:
        yield f"against one who can forge Ed25519 a split view would still take: {_named(worth.split_quantum)}"
    else:
        yield "against one who can forge Ed25519 the witnesses are worth nothing: a split view would take none of them"


def _describe_rest(policy: Policy, worth: PolicyWorth) -> Iterator[str]:
    if worth.repeated:
        yield (
            f"keys in several places of the quorum, each counted by itself: {_named(worth.repeated)} "
            "(to count a witness once, put its keys into one `any` group)"
        )
    if worth.unused:
        yield f"never needed for the quorum: {_named(map(plain_name, worth.unused))}"
    if without_url := _without_url(policy, worth):
        names = _named(plain_name(witness.name) for witness in without_url)
        yield f"without a URL, so a log that publishes under this policy could not ask: {names}"


def _describe_logs(policy: Policy) -> Iterator[str]:
    for log in policy.logs:
        quantum = log.vkey.type is KeyType.COSIGNATURE_MLDSA44
        url = "" if log.url is None else f" {plain_name(log.url)}"
        strength = "post-quantum" if quantum else "whoever can forge Ed25519 can sign as this log"
        yield f"log {printable(log.vkey.name)}, {log.vkey.type.label} ({strength}), key {log.vkey.key_id.hex()}{url}"
    if not policy.logs:
        needed = "" if policy.quorum == NO_QUORUM else "; a log may still publish under it"
        yield f"it lists no log, so nothing verifies under it{needed}"


def _named(names: Iterable[str], separator: str = ", ") -> str:
    return separator.join(map(printable, names))
