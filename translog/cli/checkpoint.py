"""`translog checkpoint`: shows a log's checkpoint."""

import asyncio
import json
from pathlib import Path

import click

from translog.cli.options import json_option, log_option, output_option, policy_option, write_output


@click.command()
@log_option
@click.option("--size", type=click.IntRange(min=0), help="The kept checkpoint of exactly this size.")
@policy_option
@output_option
@json_option
def command(log: str, size: int | None, policy_file: Path | None, output: Path | None, as_json: bool) -> None:
    """Fetch a checkpoint, verify it under the policy, and print the note."""
    from translog.cli.describe import checkpoint_document, describe_checkpoint
    from translog.cli.trust import choose_policy
    from translog.client.submit import Submitter
    from translog.core.policy import VerifiedCheckpoint, verify_checkpoint

    async def fetch() -> tuple[bytes, VerifiedCheckpoint]:
        async with Submitter(log) as submitter:
            trusted = await choose_policy(policy_file, submitter)
            note = await submitter.checkpoint(size=size)
            return note, verify_checkpoint(note, trusted)

    note, verified = asyncio.run(fetch())
    if as_json:
        document = json.dumps({"ok": True, **checkpoint_document(verified), "note": note.decode()})
        write_output(f"{document}\n".encode(), output)
        return
    write_output(note, output)
    for line in describe_checkpoint(verified):
        click.echo(line, err=True)
