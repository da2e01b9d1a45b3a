"""The table of commands, loaded lazily so that `translog verify` stays fast, and the mapping from errors to exit codes.

Rules: 0 it holds or it is done; 1 a check failed; 2 usage; 3 the other side could not be reached or refused; 4 local storage
or configuration. An error is one sentence, and one more that says what to do, on standard error; with --json also one JSON
document on standard output.
"""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from translog import __version__
from translog.core.wire import printable
from translog.errors import (
    ConflictError,
    CorruptionError,
    MalformedError,
    NotFoundError,
    PushbackError,
    RateLimitedError,
    RefusedError,
    RemoteError,
    SettingsError,
    StorageError,
    TooLargeError,
    TranslogError,
    VerificationError,
)

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("translog.cli.init", "Create a log."),
    "serve": ("translog.cli.serve", "Serve a log."),
    "add": ("translog.cli.add", "Append opaque entries and save their receipts."),
    "submit": ("translog.cli.submit", "Submit audit events and save their receipts."),
    "receipt": ("translog.cli.receipt", "Fetch the receipt of an entry."),
    "evidence": ("translog.cli.evidence", "Fetch what proves an event, or some of its fields."),
    "verify": ("translog.cli.verify", "Verify receipts and evidence, offline."),
    "checkpoint": ("translog.cli.checkpoint", "Show a log's checkpoint, verified."),
    "prove": ("translog.cli.prove", "Fetch and verify inclusion and consistency proofs."),
    "policy": ("translog.cli.policy", "Write, check or update a policy file for a log."),
    "keys": ("translog.cli.keys", "Show keys, make keys and tokens."),
    "fsck": ("translog.cli.fsck", "Check a whole log, and name everything bad in it."),
    "remap": ("translog.cli.remap", "Check that events follow from their originals."),
    "doctor": ("translog.cli.doctor", "Print a sender's configuration and send a test event."),
    "backup": ("translog.cli.backup", "Copy a log into a folder, verified."),
    "restore": ("translog.cli.restore", "Make a log's directory from a backup."),
    "upgrade": ("translog.cli.upgrade", "Migrate a store to this version's format."),
    "witness": ("translog.cli.witness", "Run a witness, which cosigns other logs' checkpoints."),
    "resume": ("translog.cli.resume", "Let a held log sign again."),
}
"""Name: (module with a `command`, summary). Modules are named as strings and imported when called."""

EXIT_CODES: dict[type[TranslogError], int] = {
    VerificationError: 1,
    MalformedError: 1,
    RemoteError: 3,
    RefusedError: 3,
    TooLargeError: 2,
    NotFoundError: 3,
    ConflictError: 3,
    RateLimitedError: 3,
    PushbackError: 3,
    StorageError: 4,
    SettingsError: 4,
    CorruptionError: 4,
}
"""By type; a subclass that is not listed exits as the nearest class above it that is."""


class _LazyGroup(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="translog %(version)s")
def app() -> None:
    """A transparency log for audit events."""


def exit_code_of(error: TranslogError) -> int:
    """The exit code for an error."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def main() -> None:
    """The `translog` program."""
    sys.exit(_run())


def _run() -> int:
    try:
        code = app.main(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except TranslogError as error:
        return fail(error.code, error.detail, error.hint, exit_code_of(error))
    except click.ClickException as error:
        if "--json" in sys.argv:
            _print_failure("usage", error.format_message(), "", {})
        error.show()
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "translog":
            raise
        detail = f"this command needs the package {error.name}, which is not installed"
        return fail("not-installed", detail, "pip install 'translog[server]'", 4)
    except click.Abort:
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:  # whoever read our output has gone; keep the interpreter from complaining at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def fail(code: str, detail: str, hint: str, exit_code: int, **more: Any) -> int:
    """Says what is wrong, with --json also as a document that has `more` in it; returns the exit code."""
    if "--json" in sys.argv:
        _print_failure(code, detail, hint, more)
    # Much of what is said comes from files and answers of others.
    click.echo(f"translog: {printable(detail)}", err=True)
    if hint:
        click.echo(f"  {printable(hint)}", err=True)
    return exit_code


def _print_failure(code: str, detail: str, hint: str, more: Mapping[str, Any]) -> None:
    click.echo(json.dumps({"ok": False, "code": code, "detail": detail, "hint": hint, **more}))
