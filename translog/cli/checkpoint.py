"""`translog checkpoint`: shows a log's checkpoint."""

import asyncio
import json
from typing import Annotated

import typer

from translog.cli.options import JSON_OPTION, LOG_OPTION, OUTPUT_OPTION, POLICY_OPTION, command_app, write_output

app = command_app()


@app.command()
def checkpoint(
    log: LOG_OPTION,
    size: Annotated[int | None, typer.Option(min=0, help="The kept checkpoint of exactly this size.")] = None,
    policy: POLICY_OPTION = None,
    output: OUTPUT_OPTION = None,
    as_json: JSON_OPTION = False,
) -> None:
    """Fetch a checkpoint, verify it under the policy, and print the note."""
    from translog.cli.describe import checkpoint_document, describe_checkpoint
    from translog.cli.trust import choose_policy
    from translog.client.submit import Submitter
    from translog.core.policy import VerifiedCheckpoint, verify_checkpoint

    async def fetch() -> tuple[bytes, VerifiedCheckpoint]:
        async with Submitter(log) as submitter:
            trusted = await choose_policy(policy, submitter)
            note = await submitter.checkpoint(size=size)
            return note, verify_checkpoint(note, trusted)

    note, verified = asyncio.run(fetch())
    if as_json:
        typer.echo(json.dumps({"ok": True, **checkpoint_document(verified), "note": note.decode()}))
        return
    write_output(note, output)
    for line in describe_checkpoint(verified):
        typer.echo(line, err=True)
