"""`translog keys`: shows a log's public keys, makes keys and tokens. Needs no server packages."""

import secrets
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from translog.cli.options import command_app, read_file
from translog.core.keys import SEED_BYTES, VKEY_CHARS_MAX, KeyType, SKey, format_skey, parse_skey
from translog.core.note import is_key_name
from translog.errors import MalformedError, SettingsError

app = command_app(no_args_is_help=True)

_TOKEN_BYTES = 32


@app.command()
def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A log's directory, or a private key file.")],
) -> None:
    """Print the public keys (vkeys) that belong to private keys."""
    paths = sorted((directory / "keys").glob("*.skey")) if directory.is_dir() else [directory]
    if not paths:
        raise SettingsError(f"there is no key in {directory}/keys")
    for path in paths:
        text = read_file(path, bytes_max=VKEY_CHARS_MAX, what="the key").decode("ascii", "replace")
        try:
            vkey = parse_skey(text.removesuffix("\n")).vkey
        except MalformedError as error:
            raise SettingsError(f"{path}: {error.detail}", code="bad-key") from None
        typer.echo(f"{vkey}")


@app.command()
def generate(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name: an origin, or a witness's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the private key goes; must not exist.")],
    kind: Annotated[str, typer.Option("--type", help="ed25519, cosignature-ed25519 or mldsa44.")] = "mldsa44",
) -> None:
    """Make a key. The private half goes to a file of mode 0600, the public half (vkey) to standard output."""
    types = {
        "ed25519": KeyType.ED25519,
        "cosignature-ed25519": KeyType.COSIGNATURE_ED25519,
        "mldsa44": KeyType.COSIGNATURE_MLDSA44,
    }
    if kind not in types or not is_key_name(name):
        raise typer.BadParameter("a name without spaces or +, and a type of ed25519, cosignature-ed25519 or mldsa44")
    skey = SKey(name=name, type=types[kind], seed=secrets.token_bytes(SEED_BYTES))
    try:
        output.touch(mode=0o600, exist_ok=False)
        output.write_text(format_skey(skey) + "\n", encoding="ascii")
    except OSError as error:
        raise SettingsError(f"cannot write {output}: {error.strerror}", hint="keys are never overwritten") from None
    typer.echo(f"{skey.vkey}")


@app.command()
def token(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where the token goes; standard output by default.")
    ] = None,
) -> None:
    """Make a member's token, and the line that lets its holder in when put into translog.toml."""
    made = f"translog_{secrets.token_urlsafe(_TOKEN_BYTES)}"
    if output is None:
        typer.echo(f"token (for the member, secret): {made}")
    else:
        try:
            output.touch(mode=0o600, exist_ok=False)
            output.write_text(made + "\n", encoding="ascii")
        except OSError as error:
            raise SettingsError(f"cannot write {output}: {error.strerror}", hint="tokens are never overwritten") from None
    typer.echo(f'token_sha256 = "{sha256(made.encode()).hexdigest()}"')
