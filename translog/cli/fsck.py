"""`translog fsck`: checks a whole log from its entries alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from translog.cli.options import PATH, json_option, policy_option, read_token, token_option
from translog.cli.progress import counting
from translog.core.wire import encode_base64, printable

if TYPE_CHECKING:
    from translog.log.fsck import Report

_SHOWN_MAX = 50


@click.command()
@click.argument("location", metavar="DIR|URL")
@policy_option
@click.option("--keys", type=PATH, metavar="KEYS", help="Directory with kek.key, to open payloads with; DIR/keys by default.")
@click.option("--vault", type=PATH, metavar="VAULT", help="Directory with the key store; DIR/vault by default.")
@token_option
@click.option("--processes", type=click.IntRange(min=1), help="Processes to check with; one for each core by default.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    location: str,
    policy_file: Path | None,
    keys: Path | None,
    vault: Path | None,
    token_file: Path | None,
    processes: int | None,
    as_json: bool,
) -> None:
    """Check a whole log from its entries alone, and name everything in it that is bad.

    DIR is the directory of a log that is not running, or a backup; nothing in it is changed. URL is any tlog-tiles log. The
    entries are hashed anew, and every tile, every kept checkpoint and DIR/head is compared with that. Of a log of events the
    payloads are opened too, where the keys are at hand, and so of a backup with --keys and --vault. Ends with exit code 1 if
    anything is bad.
    """
    from translog.cli.trust import policy_for
    from translog.maintenance import check_log

    token = read_token(token_file)
    policy = policy_for(location, policy_file, token=token)
    with counting("entries checked") as count:
        report = check_log(location, policy=policy, token=token, processes=processes, progress=count, keys=keys, vault=vault)
    if as_json:
        click.echo(json.dumps(_document(report)))
    else:
        _print(report)
    if not report.whole:
        context.exit(1)


def _document(report: "Report") -> dict[str, object]:
    return {
        "ok": report.whole,
        "origin": report.origin,
        "size": report.size,
        "root": None if report.root is None else encode_base64(report.root),
        "entry_bytes": report.entry_bytes,
        "good": report.good,
        "bad": report.bad,
        "excepted": report.excepted,
        "damages": [{"resource": damage.resource, "problem": damage.problem} for damage in report.damages],
        "remarks": report.remarks,
    }


def _print(report: "Report") -> None:
    root = "unknown" if report.root is None else encode_base64(report.root)
    click.echo(f"{printable(report.origin)}, {report.size} entries, root {root}\n")
    kinds = [*report.good, *(kind for kind in report.bad if kind not in report.good)]
    width = max((len(kind) for kind in kinds), default=0)
    click.echo(f"  {'':{width}}  {'good':>12}  {'bad':>8}")
    for kind in kinds:
        click.echo(f"  {kind:{width}}  {report.good.get(kind, 0):>12,}  {report.bad.get(kind, 0):>8,}")
    click.echo("")
    for damage in report.damages[:_SHOWN_MAX]:
        click.echo(f"BAD {printable(damage.resource)}: {printable(damage.problem)}")
    if len(report.damages) > _SHOWN_MAX:
        click.echo(f"... and {len(report.damages) - _SHOWN_MAX} more; --json lists them")
    for remark in report.remarks:
        click.echo(f"note: {remark}")
    if report.whole:
        click.echo("OK: everything that was looked at is of this one tree")
    else:
        click.echo("The log is damaged. specs/worst-day.md says what to do; nothing was changed.")
