"""Options that several commands share, and what they read: small files and policies."""

from pathlib import Path

import click

from translog.core.policy import POLICY_BYTES_MAX, Policy, parse_policy
from translog.errors import MalformedError, SettingsError

PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


def _log_url(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} is no URL: it starts with http:// or https://")
    return value


log_option = click.option("--log", metavar="URL", required=True, callback=_log_url, help="The log's URL.")
output_option = click.option("--output", "-o", type=PATH, metavar="FILE", help="Write to this file instead of standard output.")
token_option = click.option(
    "--token-file", type=PATH, metavar="FILE", help="File with the token to send, for logs that ask for one."
)
policy_option = click.option(
    "--policy",
    "policy_file",
    type=PATH,
    metavar="FILE",
    help="The tlog-policy file to trust; without it, the log is taken at its word.",
)


def read_file(path: Path, *, bytes_max: int, what: str) -> bytes:
    """A file's bytes. Raises SettingsError if it cannot be read, MalformedError if it is larger than `bytes_max`."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise SettingsError(f"cannot read {what} {path}: {error.strerror}") from None
    if len(data) > bytes_max:
        raise MalformedError(f"{what} {path} is larger than {bytes_max} bytes")
    return data


def read_policy(path: Path) -> Policy:
    """A policy file. Raises SettingsError, or MalformedError naming file and line."""
    data = read_file(path, bytes_max=POLICY_BYTES_MAX, what="the policy")
    try:
        return parse_policy(data)
    except MalformedError as error:
        raise MalformedError(f"{path}: {error.detail}", hint=error.hint) from None


def read_token(path: Path | None) -> str | None:
    """The token in a file, None for no file. Raises SettingsError."""
    if path is None:
        return None
    try:
        token = read_file(path, bytes_max=1_024, what="the token").decode("ascii").strip()
    except (UnicodeDecodeError, MalformedError):
        raise SettingsError(f"{path} holds no token") from None
    if not token or not token.isprintable() or " " in token:
        raise SettingsError(
            f"{path} holds no token, or more than one", hint="it has one line, as `translog keys token -o` writes"
        )
    return token


def write_output(data: bytes, output: Path | None) -> None:
    """Writes to the file, or to standard output. Raises SettingsError."""
    if output is None:
        click.echo(data, nl=False)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise SettingsError(f"cannot write {output}: {error.strerror}") from None
