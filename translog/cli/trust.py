"""The policy a command goes by: the file it was given, or what the log says of itself, with a warning."""

from pathlib import Path

import click

from translog.cli.options import read_policy
from translog.client.submit import Submitter
from translog.core.policy import Policy, parse_policy


async def choose_policy(path: Path | None, submitter: Submitter) -> Policy:
    """The policy in the file; without one, a policy of the keys that `GET /v1/log` lists."""
    if path is not None:
        return read_policy(path)
    info = await submitter.info()
    click.echo(
        f"no --policy: taking {info.origin} at its word for its keys (`translog policy` saves them for next time)", err=True
    )
    keys = "".join(f"log {vkey}\n" for vkey in info.vkeys)
    return parse_policy(f"{keys}quorum none\n".encode())
