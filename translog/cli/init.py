"""`translog init`: the only thing that creates a log."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from translog.cli.options import JSON_OPTION, command_app
from translog.core.policy import format_log_policy

app = command_app()


class ProfileName(StrEnum):
    """What entries are, for the life of the log."""

    EVENTS = "events"
    OPAQUE = "opaque"


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    origin: Annotated[str, typer.Option(help="The log's name for life: a URL without scheme, log.example.org/audit.")],
    profile: Annotated[ProfileName, typer.Option(help="What entries are, for life.")] = ProfileName.EVENTS,
    as_json: JSON_OPTION = False,
) -> None:
    """Create a log: its keys, its store, its settings. Prints its public keys and a policy that trusts them.

    Refuses a directory that has anything in it. The private keys are in DIR/keys: back them up apart from the rest.
    """
    from translog.bootstrap import create_log
    from translog.storage.store import Profile

    vkeys = create_log(directory, origin=origin, profile=Profile(profile.value))
    policy = format_log_policy(vkeys)
    if as_json:
        document = {"ok": True, "directory": str(directory), "origin": origin, "vkeys": [str(vkey) for vkey in vkeys]}
        typer.echo(json.dumps({**document, "policy": policy}))
        return
    typer.echo(f"created the log {origin} in {directory}", err=True)
    for vkey in vkeys:
        typer.echo(f"vkey ({vkey.type.label}): {vkey}")
    typer.echo(f"policy:\n{policy}", nl=False)
    typer.echo(f"back up {directory}/keys, then: translog serve {directory}", err=True)
