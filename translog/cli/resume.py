"""`translog resume`: lets a held log sign again."""

from pathlib import Path
from typing import Annotated

import typer

from translog.cli.options import command_app
from translog.errors import SettingsError

app = command_app()


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The log's directory; no server may be running on it.")],
    nothing_newer: Annotated[
        bool,
        typer.Option("--nothing-newer-was-signed", help="Your word that no checkpoint larger than this was signed."),
    ] = False,
) -> None:
    """Let a log sign again that is held because DIR/head was lost, is an older copy, or says so after a restore.

    If a larger checkpoint was signed after all, signing again makes two histories, and everybody who has both can prove it.
    Ask witnesses and members for the largest checkpoint they have seen first.
    """
    if not nothing_newer:
        raise SettingsError(
            "a log is resumed on its owner's word only",
            hint="ask witnesses and members for the largest checkpoint they saw; then give --nothing-newer-was-signed",
        )
    from translog.bootstrap import resume_log

    size = resume_log(directory)
    typer.echo(f"the log may sign again from size {size} on; start it with: translog serve {directory}")
