"""Options that several commands share, and what they read and write: small files and policies."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from translog.core.policy import POLICY_BYTES_MAX, Policy, parse_policy
from translog.core.wire import printable
from translog.errors import MalformedError, SettingsError

PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


def _log_url(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} is no URL: it starts with http:// or https://")
    return value


log_option = click.option("--log", metavar="URL", required=True, callback=_log_url, help="The log's URL.")
optional_log_option = click.option("--log", metavar="URL", callback=_log_url, help="The log's URL.")
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
    """A policy file. Raises SettingsError, naming file and line."""
    return read_policy_bytes(path)[0]


def read_policy_bytes(path: Path) -> tuple[Policy, bytes]:
    """A policy file, and what is written in it. Raises as `read_policy`."""
    try:
        data = read_file(path, bytes_max=POLICY_BYTES_MAX, what="the policy")
        return parse_policy(data), data
    except MalformedError as error:
        raise SettingsError(f"{path}: {error.detail}", hint=error.hint, code="bad-policy") from None


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
    """Writes to the file, which is replaced whole or left as it was, or to standard output. Raises SettingsError."""
    if output is None:
        click.echo(_shown(data) if sys.stdout.isatty() else data, nl=False)
        return
    try:
        if output.exists() and not output.is_file():  # a pipe or a device
            output.write_bytes(data)
            return
        target = Path(os.path.realpath(output))  # what a link leads to is replaced, not the link
        with whole_file(target, data) as made:
            if target.exists():
                made.chmod(stat.S_IMODE(target.stat().st_mode))
            made.replace(target)
    except OSError as error:
        raise SettingsError(f"cannot write {output}: {error.strerror}") from None


def _shown(data: bytes) -> str:
    return "\n".join(printable(line) for line in data.decode("utf-8", "backslashreplace").split("\n"))


@contextmanager
def whole_file(path: Path, data: bytes) -> Iterator[Path]:
    """A synced file beside `path` with all of the data, to be renamed or linked; gone at the end. Raises OSError."""
    made = path.with_name(f".translog-{os.urandom(8).hex()}")
    try:
        with made.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield made
    finally:
        made.unlink(missing_ok=True)
