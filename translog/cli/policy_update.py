"""`translog policy update`: follows a log's changes of its keys, and changes the policy's `log` lines with them.

Rules: only the lines of that log change; its comments, witnesses, groups and quorum, and other logs, stay byte for byte. A
policy that cannot be brought to date is left as it was.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from translog.cli.options import PATH, json_option, log_option, read_policy_bytes, write_output
from translog.core.keys import VKey, parse_vkey
from translog.core.policy import Policy, parse_policy
from translog.core.wire import printable
from translog.errors import ConsistencyError, SettingsError


@click.command()
@click.argument("file", type=PATH)
@log_option
@click.option("--output", "-o", type=PATH, metavar="FILE", help="Write to this file and leave the other as it is.")
@json_option
def command(file: Path, log: str, output: Path | None, as_json: bool) -> None:
    """Follow the changes of a log's keys from those that the policy in FILE lists to those that the log has now.

    Every change must be signed by a key from before it and proven by a receipt that the policy, as it was before, accepts with
    its witnesses; a policy with `quorum none` is not brought to date. Writes FILE anew, or the file that --output names. A log
    could keep a change to itself: when you hear of a stolen key, make sure that it is gone from the file.
    """
    from translog.cli.describe import checkpoint_document, describe_checkpoint
    from translog.client.keychain import follow_keys

    policy, old = read_policy_bytes(file)
    followed = asyncio.run(follow_keys(log, policy))
    new = replace_keys(old, policy, followed.origin, followed.vkeys)
    if file.is_file() and read_policy_bytes(file)[1] != old:
        raise SettingsError(
            f"{file} was changed by somebody else meanwhile, and is left as it is now", hint="try again", code="policy-exists"
        )
    target = file if output is None else output
    if output is not None or new != old:
        write_output(new, target)
    if as_json:
        changes = [
            {
                "number": item.change.number,
                "index": item.index,
                "action": item.change.action.value,
                "vkey": str(item.change.vkey),
            }
            for item in followed.changes
        ]
        document = {
            "ok": True,
            "changed": new != old,
            "changes": changes,
            "vkeys": [str(vkey) for vkey in followed.vkeys],
            **checkpoint_document(followed.checkpoint),
        }
        click.echo(json.dumps(document))
        return
    click.echo(
        f"OK: {printable(followed.origin)}, " + (f"{printable(str(target))} is new" if new != old else "nothing to change")
    )
    for item in followed.changes:
        vkey = item.change.vkey
        done = {"add": "adds", "retire": "retires"}[item.change.action.value]
        click.echo(f"  change {item.change.number}, entry {item.index}: {done} {_named(vkey)}")
    click.echo(f"  keys listed now: {', '.join(map(_named, followed.vkeys))}")
    for line in describe_checkpoint(followed.checkpoint):
        click.echo(f"  {line}")


def _named(vkey: VKey) -> str:
    return f"{vkey.key_id.hex()} ({vkey.type.label})"


def replace_keys(data: bytes, policy: Policy, origin: str, vkeys: Sequence[VKey]) -> bytes:
    """The policy file with these keys for the log `origin`: lines of others go, those of new ones stand behind the last that
    was there. Raises MalformedError for what is then no policy, such as a witness with a new key's bytes."""
    there = [log for log in policy.logs if log.vkey.name == origin]
    new = [vkey for vkey in vkeys if vkey not in [log.vkey for log in there]]
    url = "" if there[0].url is None else f" {there[0].url}"
    lines = data.split(b"\n")
    own = [(number, vkey) for number, vkey in _log_lines(lines) if vkey.name == origin]
    added = [f"log {vkey}{url}".encode("utf-8", "surrogateescape") for vkey in new]
    last = own[-1][0]
    gone = {number for number, vkey in own if vkey not in vkeys}
    kept = [[] if number in gone else [line] for number, line in enumerate(lines)]
    kept[last] += added
    changed = b"\n".join(line for group in kept for line in group)
    if {log.vkey for log in parse_policy(changed).logs if log.vkey.name == origin} != set(vkeys):
        raise ConsistencyError("the policy that comes out does not list the keys that were followed")
    return changed


def _log_lines(lines: Sequence[bytes]) -> Iterator[tuple[int, VKey]]:
    for number, line in enumerate(lines):
        words = line.replace(b"\t", b" ").split()
        if words[:1] == [b"log"]:
            yield number, parse_vkey(words[1].decode("utf-8"))
