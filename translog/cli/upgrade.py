"""`translog upgrade`: migrates a store to the format of this version."""

import json
from pathlib import Path

import click

from translog.cli.options import PATH, json_option


@click.command()
@click.argument("directory", type=PATH, metavar="DIR")
@json_option
def command(directory: Path, as_json: bool) -> None:
    """Migrate the store of a log that is not running to the format of this version.

    A log whose store is of an older format does not start and names this command. Keep a copy of DIR: the version that
    wrote the store cannot open it any more afterwards.
    """
    from translog.maintenance import upgrade_log

    steps = upgrade_log(directory)
    if as_json:
        click.echo(json.dumps({"ok": True, "steps": steps}))
        return
    for step in steps:
        click.echo(f"done: {step}")
    click.echo(f"{directory} is of this version's format" + ("" if steps else " already"))
