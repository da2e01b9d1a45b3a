"""`translog keys`: shows a log's public keys, makes keys and tokens. Needs no server packages."""

import json
import os
import secrets
from hashlib import sha256
from pathlib import Path

import click

from translog.cli.options import PATH, json_option, read_file
from translog.core.keys import SEED_BYTES, VKEY_CHARS_MAX, KeyType, SKey, format_skey, parse_skey
from translog.core.note import is_key_name
from translog.errors import MalformedError, SettingsError

_TOKEN_BYTES = 32
_TYPES = {
    "ed25519": KeyType.ED25519,
    "cosignature-ed25519": KeyType.COSIGNATURE_ED25519,
    "mldsa44": KeyType.COSIGNATURE_MLDSA44,
}


@click.group()
def command() -> None:
    """Show keys, make keys and tokens."""


@command.command()
@click.argument("directory", type=PATH, metavar="DIR|FILE")
@json_option
def show(directory: Path, as_json: bool) -> None:
    """Print the public keys (vkeys) that belong to private keys."""
    paths = sorted((directory / "keys").glob("*.skey")) if directory.is_dir() else [directory]
    if not paths:
        raise SettingsError(f"there is no key in {directory}/keys")
    vkeys = []
    for path in paths:
        text = read_file(path, bytes_max=VKEY_CHARS_MAX, what="the key").decode("utf-8", "replace")
        try:
            vkeys.append(str(parse_skey(text.removesuffix("\n")).vkey))
        except MalformedError as error:
            raise SettingsError(f"{path}: {error.detail}", code="bad-key") from None
    click.echo(json.dumps({"ok": True, "vkeys": vkeys}) if as_json else "\n".join(vkeys))


@command.command()
@click.argument("name")
@click.option("--output", "-o", type=PATH, metavar="FILE", required=True, help="The private key's file; must not exist.")
@click.option("--type", "kind", type=click.Choice(list(_TYPES)), default="mldsa44", show_default=True, help="What kind of key.")
@json_option
def generate(name: str, output: Path, kind: str, as_json: bool) -> None:
    """Make a key. The private half goes to a file of mode 0600, the public half (vkey) to standard output."""
    if not is_key_name(name):
        raise click.UsageError("a key's name has no spaces and no +")
    skey = SKey(name=name, type=_TYPES[kind], seed=secrets.token_bytes(SEED_BYTES))
    _write_secret(output, format_skey(skey))
    click.echo(json.dumps({"ok": True, "vkey": str(skey.vkey)}) if as_json else str(skey.vkey))


@command.command()
@click.option("--output", "-o", type=PATH, metavar="FILE", help="Where the token goes; standard output by default.")
@json_option
def token(output: Path | None, as_json: bool) -> None:
    """Make a member's token, and the line that lets its holder in when put into translog.toml."""
    made = f"translog_{secrets.token_urlsafe(_TOKEN_BYTES)}"
    digest = sha256(made.encode()).hexdigest()
    if output is not None:
        _write_secret(output, made)
    if as_json:
        click.echo(json.dumps({"ok": True, "token": made if output is None else None, "token_sha256": digest}))
        return
    if output is None:
        click.echo(f"token (for the member, secret): {made}")
    click.echo(f'token_sha256 = "{digest}"')


def _write_secret(path: Path, secret: str) -> None:
    """A new file of mode 0600, whole or not at all. Raises SettingsError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(secret + "\n")
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            path.unlink()
            raise
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}", hint="a secret is never overwritten") from None
