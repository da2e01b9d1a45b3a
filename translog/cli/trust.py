"""The policy a command goes by: the file it was given, or what the log says of itself, with a warning."""

import asyncio
from pathlib import Path

import click

from translog.cli.options import read_policy
from translog.client.submit import Submitter
from translog.core.policy import Policy, parse_policy
from translog.core.wire import printable
from translog.errors import MalformedError, RemoteError
from translog.storage.source import Damage


async def choose_policy(path: Path | None, submitter: Submitter) -> Policy:
    """The policy in the file; without one, a policy of the keys that `GET /v1/log` lists."""
    if path is not None:
        return read_policy(path)
    info = await submitter.info()
    origin = printable(info.origin)
    click.echo(f"no --policy: taking {origin} at its word for its keys (`translog policy` saves them for next time)", err=True)
    keys = "".join(f"log {vkey}\n" for vkey in info.vkeys)
    try:
        return parse_policy(f"{keys}quorum none\n".encode())
    except MalformedError as error:
        raise RemoteError(f"no policy can be made from the keys {origin} lists: {error.detail}") from None


def ask_policy(url: str, *, token: str | None) -> Policy:
    """A policy of the keys that the log at `url` lists, with a warning. Raises RemoteError where it lists none."""

    async def ask() -> Policy:
        async with Submitter(url, token=token) as submitter:
            return await choose_policy(None, submitter)

    try:
        return asyncio.run(ask())
    except RemoteError as error:
        if error.status not in (404, 410):
            raise
        raise RemoteError(f"{url} does not say what its keys are", status=error.status, hint="give --policy FILE") from None


def policy_for(location: str, path: Path | None, *, token: str | None) -> Policy | None:
    """The policy in the file; without one, what a log over HTTP says its keys are; None for a directory."""
    if path is not None:
        return read_policy(path)
    return ask_policy(location, token=token) if location.startswith(("http://", "https://")) else None


class Damages:
    """Damage that a copy went on without: told on standard error at once, and remembered for the end."""

    def __init__(self) -> None:
        self.told: list[dict[str, str]] = []

    def tell(self, damage: Damage) -> None:
        """Warns of it."""
        self.told.append({"resource": damage.resource, "problem": damage.problem})
        click.echo(f"warning: {printable(damage.resource)}: {printable(damage.problem)}", err=True)

    @property
    def exit_code(self) -> int:
        """1 if there was any."""
        return 1 if self.told else 0

    @property
    def verdict(self) -> str:
        """The word that the report starts with."""
        return "DAMAGED, but copied" if self.told else "OK"
