"""`translog receipt`: fetches the receipt of an entry."""

import asyncio
from pathlib import Path

import click

from translog.cli.options import log_option, output_option, policy_option, read_policy, write_output


@click.command()
@click.argument("index", type=click.IntRange(min=0))
@log_option
@output_option
@policy_option
def command(index: int, log: str, output: Path | None, policy_file: Path | None) -> None:
    """Fetch a receipt (a tlog-proof file).

    With --policy it is made here from the log's tiles and its newest checkpoint, verified: that works with any tlog-tiles
    log. Without, it is the one the log hands out, and `translog verify` tells what it is worth.
    """

    async def fetch() -> bytes:
        if policy_file is None:
            from translog.client.submit import Submitter

            async with Submitter(log) as submitter:
                return await submitter.receipt(index)
        from translog.client.remote import RemoteLog
        from translog.core.proof import format_receipt

        async with RemoteLog(log, read_policy(policy_file)) as remote:
            await remote.refresh()
            return format_receipt(await remote.receipt(index))

    write_output(asyncio.run(fetch()), output)
