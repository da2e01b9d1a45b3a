"""`translog receipt`: fetches the receipt of an entry."""

import asyncio
from typing import Annotated

import typer

from translog.cli.options import LOG_OPTION, OUTPUT_OPTION, POLICY_OPTION, command_app, read_policy, write_output

app = command_app()


@app.command()
def receipt(
    index: Annotated[int, typer.Argument(min=0, metavar="INDEX", help="The entry's index.")],
    log: LOG_OPTION,
    output: OUTPUT_OPTION = None,
    policy: POLICY_OPTION = None,
) -> None:
    """Fetch a receipt (a tlog-proof file).

    With --policy it is made here from the log's tiles and its newest checkpoint, verified: that works with any tlog-tiles
    log. Without, it is the one the log hands out, and `translog verify` tells what it is worth.
    """

    async def fetch() -> bytes:
        if policy is None:
            from translog.client.submit import Submitter

            async with Submitter(log) as submitter:
                return await submitter.receipt(index)
        from translog.client.remote import RemoteLog
        from translog.core.proof import format_receipt

        async with RemoteLog(log, read_policy(policy)) as remote:
            await remote.refresh()
            return format_receipt(await remote.receipt(index))

    write_output(asyncio.run(fetch()), output)
