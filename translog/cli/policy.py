"""`translog policy`: writes a policy file for a log."""

import asyncio
from pathlib import Path

import click

from translog.cli.options import log_option, output_option, read_file, write_output
from translog.core.policy import POLICY_BYTES_MAX, format_log_policy
from translog.core.wire import printable
from translog.errors import MalformedError, SettingsError


@click.command()
@log_option
@output_option
@click.option("--classic", is_flag=True, help="List Ed25519 keys instead of ML-DSA-44.")
@click.option("--force", is_flag=True, help="Replace a FILE that says something else.")
def command(log: str, output: Path | None, classic: bool, force: bool) -> None:
    """Write a tlog-policy file from what a log says of itself.

    It trusts what it is told, this once: compare the keys with ones you got another way (from the operator, a colleague, a
    paper). From then on the file, not the log, decides what is believed.
    """
    from translog.client.submit import LogInfo, Submitter

    async def fetch() -> LogInfo:
        async with Submitter(log) as submitter:
            return await submitter.info()

    info = asyncio.run(fetch())
    listed = format_log_policy(info.vkeys, url=log, classic=classic)
    head = f"# {printable(info.origin)}: as the log itself said. Compare the key with one you got another way.\n"
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
