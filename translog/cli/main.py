"""The table of commands, loaded lazily so that `translog verify` stays fast, and the mapping from errors to exit codes.

Rules: 0 it holds or it is done; 1 a check failed; 2 usage; 3 the other side could not be reached or refused; 4 local storage
or configuration. An error is one sentence, and one more that says what to do, on standard error; with --json also one JSON
document on standard output.
"""

import importlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from translog import __version__
from translog.errors import (
    CorruptionError,
    MalformedError,
    NotFoundError,
    PushbackError,
    RefusedError,
    RemoteError,
    SettingsError,
    StorageError,
    TranslogError,
    VerificationError,
)

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("translog.cli.init", "Create a log."),
    "serve": ("translog.cli.serve", "Serve a log."),
    "add": ("translog.cli.add", "Append opaque entries and save their receipts."),
    "receipt": ("translog.cli.receipt", "Fetch the receipt of an entry."),
    "verify": ("translog.cli.verify", "Verify receipts, offline."),
    "checkpoint": ("translog.cli.checkpoint", "Show a log's checkpoint, verified."),
    "prove": ("translog.cli.prove", "Fetch and verify inclusion and consistency proofs."),
    "policy": ("translog.cli.policy", "Write a policy file for a log, or check one."),
    "keys": ("translog.cli.keys", "Show keys, make keys and tokens."),
    "resume": ("translog.cli.resume", "Let a held log sign again."),
}
"""Name: (module with an `app`, summary). Modules are named as strings and imported when called."""

EXIT_CODES: dict[type[TranslogError], int] = {
    VerificationError: 1,
    MalformedError: 1,
    RemoteError: 3,
    RefusedError: 3,
    NotFoundError: 3,
    PushbackError: 3,
    StorageError: 4,
    SettingsError: 4,
    CorruptionError: 4,
}
"""By type; a subclass that is not listed exits as the nearest class above it that is."""


class _LazyGroup(TyperGroup):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module, summary = COMMANDS[cmd_name]
        command = get_command(importlib.import_module(module).app)
        command.name = cmd_name
        command.short_help = summary
        return command


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"translog {__version__}")
        raise typer.Exit


@app.callback(help="A transparency log for audit events.")
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version and exit."),
) -> None:
    pass


def exit_code_of(error: TranslogError) -> int:
    """The exit code for an error."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def main() -> None:
    """The `translog` program."""
    try:
        app()
    except TranslogError as error:
        if "--json" in sys.argv:
            typer.echo(json.dumps({"ok": False, "code": error.code, "detail": error.detail, "hint": error.hint}))
        typer.echo(f"translog: {error.detail}", err=True)
        if error.hint:
            typer.echo(f"  {error.hint}", err=True)
        sys.exit(exit_code_of(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "translog":
            raise
        typer.echo(f"translog: this command needs the package {error.name}, which is not installed", err=True)
        typer.echo("  pip install 'translog[server]'", err=True)
        sys.exit(4)
    except BrokenPipeError:
        sys.exit(141)
