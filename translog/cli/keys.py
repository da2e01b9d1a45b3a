"""`translog keys`: shows a log's public keys, makes keys and tokens; has a running log change its keys.

Rules: needs no server packages but for the last, whose module is imported when it is called.
"""

import importlib
import json
import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from translog.cli.options import PATH, json_option, read_file
from translog.core.keys import SEED_BYTES, VKEY_CHARS_MAX, KeyType, SKey, VKey, format_skey, parse_skey, parse_vkey
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
    """Print the public keys (vkeys) that belong to private keys; of a log's directory also, on standard error, those that were
    retired."""
    is_log = directory.is_dir()
    paths = sorted((directory / "keys").glob("*.skey")) if is_log else [directory]
    if not paths:
        raise SettingsError(f"there is no key in {directory}/keys")
    vkeys = [str(_read_key(path)) for path in paths]
    public = sorted((directory / "keys").glob("*.vkey")) if is_log else []
    retired = [vkey for vkey in (str(_read_key(path)) for path in public) if vkey not in vkeys]
    if as_json:
        click.echo(json.dumps({"ok": True, "vkeys": vkeys} | ({"retired": retired} if is_log else {})))
        return
    click.echo("\n".join(vkeys))
    for vkey in retired:
        click.echo(f"retired: {vkey}", err=True)


def _read_key(path: Path) -> VKey:
    """The public half of the private key in a file, or the public key in it. Raises SettingsError."""
    text = read_file(path, bytes_max=VKEY_CHARS_MAX, what="the key").decode("utf-8", "replace").removesuffix("\n")
    try:
        return parse_vkey(text) if path.suffix == ".vkey" else parse_skey(text).vkey
    except MalformedError as error:
        raise SettingsError(f"{path}: {error.detail}", code="bad-key") from None


_operator_option = click.option(
    "--operator", metavar="NAME", help="Who does it, for the log's records; by default whom this program runs as."
)


@command.command()
@click.argument("directory", type=PATH, metavar="DIR")
@click.option("--type", "kind", type=click.Choice(["mldsa44", "ed25519"]), default="mldsa44", show_default=True)
@_operator_option
@json_option
def add(directory: Path, kind: str, operator: str | None, as_json: bool) -> None:
    """Have the running log in DIR sign with one more key.

    The log makes the key, logs its addition signed by the keys it has, and signs with all of them from then on. Members follow
    with `translog policy update`; the witnesses' operators take up the key by hand (`translog witness add-log`).
    """
    _key_changes().add_key(directory, kind=kind, operator=operator, as_json=as_json)


@command.command()
@click.argument("directory", type=PATH, metavar="DIR")
@click.argument("key_id", metavar="KEYID")
@_operator_option
@json_option
def retire(directory: Path, key_id: str, operator: str | None, as_json: bool) -> None:
    """Have the running log in DIR sign no more with the key of this ID (8 hex digits, as in its vkey), and delete it.

    Its public half stays, so that what it signed can be checked. Members follow with `translog policy update`; the witnesses'
    operators drop the key by hand (`translog witness remove-key`).
    """
    _key_changes().retire_key(directory, key_id=key_id, operator=operator, as_json=as_json)


def _key_changes() -> Any:
    return importlib.import_module("translog.cli.key_changes")


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
