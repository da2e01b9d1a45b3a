"""`translog evidence`: fetches what proves an event, or some of its fields."""

import asyncio
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import click

from translog.cli.options import log_option, output_option, policy_option, read_policy, read_token, token_option, write_output
from translog.core.policy import Policy
from translog.core.proof import format_receipt, parse_receipt
from translog.errors import DisclosureError, InclusionError, MalformedError, QuorumError, RemoteError, SignatureError
from translog.events.disclosure import EVIDENCE_BYTES_MAX, Evidence, format_evidence, parse_evidence, verify_evidence
from translog.events.texts import parse_text


@click.command()
@click.argument("index", type=click.IntRange(min=0))
@log_option
@click.option("--fields", metavar="NAMES", help="Show only these fields, separated by commas; all of them by default.")
@output_option
@policy_option
@token_option
def command(
    index: int, log: str, fields: str | None, output: Path | None, policy_file: Path | None, token_file: Path | None
) -> None:
    """Fetch evidence: a file that proves an event, or the fields of it that you choose to show.

    With --policy it is verified before it is written, and gets a new receipt at the log's newest checkpoint if the policy does
    not accept the old one: other keys signed then, or other witnesses. Without, it is the one the log hands out, and `translog
    verify` tells what it is worth.
    """
    names = None if fields is None else fields.split(",")
    if names is not None and not all(names):
        raise click.UsageError("--fields takes the names of fields, separated by commas: --fields actor,api")
    policy = None if policy_file is None else read_policy(policy_file)
    data = asyncio.run(_fetch(log, index, names, read_token(token_file)))
    try:
        evidence = parse_evidence(data)
        found = parse_receipt(evidence.receipt).index
        shown = _shown(evidence)
    except MalformedError as error:
        raise RemoteError(f"{log} does not answer with evidence: {error.detail}") from None
    if found != index:
        raise InclusionError(f"asked for the evidence of event {index}, got that of {found}")
    if names is not None and not shown <= set(names):
        raise DisclosureError("the log's evidence shows more fields than were asked for: it was not written")
    if policy is not None:
        try:
            verify_evidence(evidence, policy)
        except (QuorumError, SignatureError):  # other keys signed then, or other witnesses
            evidence = asyncio.run(_renewed(log, evidence, index, policy))
            verify_evidence(evidence, policy)
            data = format_evidence(evidence)
            click.echo("the policy does not accept the log's own receipt: made a new one, at its newest checkpoint", err=True)
    write_output(data, output)


async def _fetch(log: str, index: int, names: list[str] | None, token: str | None) -> bytes:
    from translog.client.transport import Transport

    query = "" if names is None else "?fields=" + ",".join(quote(name, safe="") for name in names)
    async with Transport(log, token=token) as transport:
        return await transport.get(f"v1/events/{index}/evidence{query}", bytes_max=EVIDENCE_BYTES_MAX)


async def _renewed(log: str, evidence: Evidence, index: int, policy: Policy) -> Evidence:
    """The same with a receipt at the log's newest checkpoint, and without the checkpoint from before the event."""
    from translog.client.remote import RemoteLog

    async with RemoteLog(log, policy) as remote:
        await remote.refresh()
        return replace(evidence, receipt=format_receipt(await remote.receipt(index)), not_before=None)


def _shown(evidence: Evidence) -> set[str]:
    """The names of all fields that the evidence shows, whether proven or not."""
    return {parse_text(disclosure.text)[0] for disclosure in evidence.disclosures if disclosure.leaf}
