"""`translog init`: the only thing that creates a log."""

import json
from pathlib import Path

import click

from translog.cli.options import PATH, json_option
from translog.core.policy import format_log_policy


@click.command()
@click.argument("directory", type=PATH, metavar="DIR")
@click.option("--origin", required=True, help="The log's name for life: a URL without scheme, log.example.org/audit.")
@click.option(
    "--profile",
    type=click.Choice(["events", "opaque"]),
    default="events",
    show_default=True,
    help="What entries are, for life.",
)
@json_option
def command(directory: Path, origin: str, profile: str, as_json: bool) -> None:
    """Create a log: its keys, its store, its settings. Prints its public keys and a policy that trusts them.

    Refuses a directory that has anything in it. The private keys are in DIR/keys: back them up apart from the rest.
    """
    from translog.bootstrap import create_log
    from translog.storage.store import Profile

    vkeys = create_log(directory, origin=origin, profile=Profile(profile))
    policy = format_log_policy(vkeys)
    if as_json:
        document = {"ok": True, "directory": str(directory), "origin": origin, "vkeys": [str(vkey) for vkey in vkeys]}
        click.echo(json.dumps({**document, "policy": policy}))
        return
    click.echo(f"created the log {origin} in {directory}", err=True)
    for vkey in vkeys:
        click.echo(f"vkey ({vkey.type.label}): {vkey}")
    click.echo(f"policy:\n{policy}", nl=False)
    click.echo(f"back up {directory}/keys, then: translog serve {directory}", err=True)
