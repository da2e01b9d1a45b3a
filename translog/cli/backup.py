"""`translog backup`: copies a log into a folder, verified."""

import json
from pathlib import Path

import click

from translog.cli.options import PATH, json_option, policy_option, read_token, token_option
from translog.cli.progress import counting
from translog.core.wire import encode_base64, printable


@click.command()
@click.argument("location", metavar="DIR|URL")
@click.argument("folder", type=PATH)
@click.option("--vault", type=PATH, metavar="VAULT", help="Directory to write a copy of the key store of an events log to.")
@policy_option
@token_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    location: str,
    folder: Path,
    vault: Path | None,
    policy_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Copy a log into FOLDER, verified, or bring the backup that is there up to date.

    URL is a log that is running, DIR the directory of one that is not. The tree is computed anew from the entries and must
    have every root that its checkpoints state. FOLDER is then itself a log that any web server can show, `translog fsck`
    checks and `translog restore` brings back. Where the log is damaged and the entries are whole, the backup is made, the
    damage told, and the exit code 1.

    Of a log of events, DIR's payloads, encrypted, are in FOLDER/private, which is not to be shown; a log that is running gives
    none. The keys to them are not in FOLDER: --vault writes the key store to a place of its own, and nobody can read a payload
    without that copy and DIR/keys/kek.key. Signing keys, kek.key and settings are not copied at all: keep DIR/keys and
    DIR/translog.toml elsewhere.
    """
    from translog.cli.trust import Damages, policy_for
    from translog.maintenance import backup_log

    token = read_token(token_file)
    policy = policy_for(location, policy_file, token=token)
    damages = Damages()
    with counting("backing up") as count:
        copied = backup_log(location, folder, policy=policy, token=token, progress=count, tell=damages.tell, vault=vault)
    root = encode_base64(copied.state.root)
    if as_json:
        document = {
            "ok": not damages.told,
            "origin": copied.meta.origin,
            "size": copied.state.size,
            "root": root,
            "new_entries": copied.new_entries,
            "new_checkpoints": copied.new_checkpoints,
            "signatures_checked": copied.signatures_checked,
            "payloads": copied.payloads,
            "damages": damages.told,
        }
        click.echo(json.dumps(document))
        context.exit(damages.exit_code)
    click.echo(f"{damages.verdict}: {folder} holds {printable(copied.meta.origin)}, {copied.state.size} entries, root {root}")
    click.echo(f"  new: {copied.new_entries} entries, {copied.new_checkpoints} checkpoints")
    if copied.payloads is not None:
        if copied.payloads < copied.state.size:
            left = copied.state.size - copied.payloads
            click.echo(
                f"  note: the payloads of {left} entries are not in it: only the directory of the stopped log gives them"
            )
        if vault is None:
            click.echo("  note: the key store is not in it; --vault writes it, and without it no payload can be read")
        else:
            click.echo(f"  the key store is in {vault}: keep it apart from {folder}, and kek.key apart from both")
    if not copied.signatures_checked:
        click.echo("  note: who signed the checkpoints was not checked, for want of --policy or keys")
    context.exit(damages.exit_code)
