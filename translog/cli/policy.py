"""`translog policy`: writes a policy file for a log; `check` and `update` are commands of their own, imported when called."""

import asyncio
import importlib
from collections.abc import Mapping
from pathlib import Path

import click

from translog.cli.options import optional_log_option, output_option, read_file, write_output
from translog.core.policy import NO_QUORUM, POLICY_BYTES_MAX, format_log_policy
from translog.core.wire import printable
from translog.errors import MalformedError, RemoteError, SettingsError

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "check": ("translog.cli.policy_check", "Say what a policy file is worth."),
    "update": ("translog.cli.policy_update", "Follow a log's changes of its keys."),
}
"""As in cli/main.py. What `check` needs is installed everywhere, what `update` needs is not."""


class _PolicyGroup(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


@click.group(cls=_PolicyGroup, invoke_without_command=True)
@optional_log_option
@output_option
@click.option("--classic", is_flag=True, help="List Ed25519 keys instead of ML-DSA-44.")
@click.option("--force", is_flag=True, help="Replace a FILE that says something else.")
@click.pass_context
def command(context: click.Context, log: str | None, output: Path | None, classic: bool, force: bool) -> None:
    """Write a tlog-policy file from what a log says of itself: its keys, and the witnesses it publishes with.

    It trusts what it is told, this once: compare the keys with ones you got another way (from the operator, a colleague, a
    paper). From then on the file, not the log, decides what is believed.
    """
    if context.invoked_subcommand is not None:
        if log is not None or output is not None or classic or force:
            raise click.UsageError(f"options of {context.invoked_subcommand} go behind it")
        return
    if log is None:
        raise click.UsageError("Missing option '--log'.")
    _write_policy(log, output, classic=classic, force=force)


def _write_policy(log: str, output: Path | None, *, classic: bool, force: bool) -> None:
    from translog.client.submit import LogInfo, Submitter

    async def fetch() -> LogInfo:
        async with Submitter(log) as submitter:
            return await submitter.info()

    info = asyncio.run(fetch())
    try:
        listed = format_log_policy(info.vkeys, url=log, classic=classic, publication=info.policy)
    except MalformedError as error:
        raise RemoteError(f"no policy can be made from what {printable(info.origin)} states: {error.detail}") from None
    head = f"# {printable(info.origin)}: as the log itself said. Compare the key with one you got another way.\n"
    if info.policy is not None and info.policy.quorum != NO_QUORUM:
        head += "# It named the witnesses, too: find out whether they are who they seem, and not the operator's own.\n"
    policy = (head + listed).encode()
    if output is not None and not force:
        _require_same(output, policy)
    write_output(policy, output)
    click.echo(f"this policy trusts what {log} said of itself; compare its keys before you rely on it", err=True)


def _require_same(path: Path, policy: bytes) -> None:
    """Raises SettingsError if there is a file that is not this policy: somebody may rely on it, witnesses and all."""
    if not path.is_file():
        return
    try:
        same = read_file(path, bytes_max=POLICY_BYTES_MAX, what="the policy") == policy
    except MalformedError:
        same = False
    if not same:
        raise SettingsError(
            f"{path} is there already and says something else",
            hint="write to another file and compare the two, or give --force to replace it",
            code="policy-exists",
        )
