"""`translog restore`: makes a log's directory from a backup."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from translog.cli.options import PATH, json_option, policy_option, read_token, token_option
from translog.cli.progress import counting
from translog.core.wire import encode_base64, printable

if TYPE_CHECKING:
    from translog.maintenance import Restored


@click.command()
@click.argument("location", metavar="BACKUP|DIR|URL")
@click.argument("directory", type=PATH, metavar="NEW")
@click.option("--keys", type=PATH, metavar="KEYS", help="Directory with the log's private keys, to be copied to NEW/keys.")
@click.option("--vault", type=PATH, metavar="VAULT", help="Directory with the copy of an events log's key store.")
@click.option("--without-vault", is_flag=True, help="Give up the payloads of an events log: nobody will ever read them.")
@click.option("--head", type=PATH, metavar="FILE", help="DIR/head of the disk that the log ran on last, if there is one.")
@policy_option
@token_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    location: str,
    directory: Path,
    keys: Path | None,
    vault: Path | None,
    without_vault: bool,
    head: Path | None,
    policy_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Make the directory NEW from a backup, verified, from what is left of another directory, or from a mirror's URL.

    The restored log serves what it has and does not sign, since a newer checkpoint than the backup's may have been signed.
    With --head it signs if all that the head tells of was restored; otherwise `translog resume` lets it, on your word. A log
    of events needs --vault, the copy of its key store that `translog backup --vault` wrote, and in KEYS its kek.key.
    """
    from translog.cli.trust import Damages, policy_for
    from translog.maintenance import restore_log

    if vault is not None and without_vault:
        raise click.UsageError("--vault and --without-vault contradict each other")
    token = read_token(token_file)
    policy = policy_for(location, policy_file, token=token)
    damages = Damages()
    with counting("restoring") as count:
        restored = restore_log(
            location,
            directory,
            policy=policy,
            keys=keys,
            head=head,
            token=token,
            progress=count,
            tell=damages.tell,
            vault=vault,
            without_vault=without_vault,
        )
    if as_json:
        click.echo(json.dumps(_document(restored) | {"ok": not damages.told, "damages": damages.told}))
    else:
        _print(restored, damages.verdict, directory, with_keys=keys is not None)
    context.exit(damages.exit_code)


def _document(restored: "Restored") -> dict[str, object]:
    copied = restored.copied
    return {
        "ok": True,
        "origin": copied.meta.origin,
        "size": copied.state.size,
        "root": encode_base64(copied.state.root),
        "may_sign": restored.held is None,
        "held": restored.held,
        "signatures_checked": copied.signatures_checked,
        "unreadable": restored.unreadable,
    }


def _print(restored: "Restored", verdict: str, directory: Path, *, with_keys: bool) -> None:
    copied = restored.copied
    root = encode_base64(copied.state.root)
    click.echo(f"{verdict}: {directory} holds {printable(copied.meta.origin)}, {copied.state.size} entries, root {root}")
    if not with_keys:
        click.echo(f"  bring the private keys to {directory / 'keys'} (mode 0600), and your settings to translog.toml")
    if restored.unreadable:
        click.echo(f"  {restored.unreadable} payloads are under keys that are not here: nobody can read them")
    if restored.held is None:
        click.echo("  its head tells of nothing that is not here: it may sign")
    else:
        click.echo(f"  it will serve and not sign: {restored.held}")
        click.echo(f"  when you know that nothing newer was signed: translog resume {directory} --nothing-newer-was-signed")
    if not copied.signatures_checked:
        click.echo("  note: who signed the checkpoints was not checked, for want of --policy or keys")
