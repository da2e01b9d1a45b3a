"""`translog resume`: lets a held log sign again."""

import json
from pathlib import Path

import click

from translog.cli.options import PATH, json_option


@click.command()
@click.argument("directory", type=PATH, metavar="DIR")
@click.option(
    "--nothing-newer-was-signed",
    "nothing_newer",
    is_flag=True,
    help="Your word that no checkpoint larger than this store was signed.",
)
@json_option
def command(directory: Path, nothing_newer: bool, as_json: bool) -> None:
    """Let a log sign again that is held because DIR/head was lost, is an older copy, or says so after a restore.

    If a larger checkpoint was signed after all, signing again makes two histories, and everybody who has both can prove it.
    Ask witnesses and members for the largest checkpoint they have seen first.
    """
    if not nothing_newer:
        raise click.UsageError(
            "a log is resumed on its owner's word only: ask witnesses and members for the largest checkpoint they saw;"
            " then give --nothing-newer-was-signed"
        )
    from translog.bootstrap import configure_logging
    from translog.maintenance import resume_log

    configure_logging()
    size = resume_log(directory)
    if as_json:
        click.echo(json.dumps({"ok": True, "size": size}))
        return
    click.echo(f"the log may sign again from size {size} on; start it with: translog serve {directory}")
