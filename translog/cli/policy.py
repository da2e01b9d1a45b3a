"""`translog policy`: writes a policy file for a log."""

import asyncio
from pathlib import Path

import click

from translog.cli.options import log_option, output_option, write_output
from translog.core.policy import format_log_policy


@click.command()
@log_option
@output_option
@click.option("--classic", is_flag=True, help="List Ed25519 keys instead of ML-DSA-44.")
def command(log: str, output: Path | None, classic: bool) -> None:
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
    head = f"# {info.origin}: as the log itself said. Compare the key with one you got another way.\n"
    write_output((head + listed).encode(), output)
    click.echo(f"this policy trusts what {log} said of itself; compare its keys before you rely on it", err=True)
