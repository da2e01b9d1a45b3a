"""`translog witness`: runs a witness, and tells it which logs to cosign for."""

import asyncio
import json
import re
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from translog.cli.options import PATH, json_option, read_file
from translog.core.keys import VKey, parse_vkey
from translog.core.wire import printable
from translog.errors import MalformedError

if TYPE_CHECKING:
    from translog.witnessing import WitnessedLogState, WitnessFile

_directory = click.argument("directory", type=PATH, metavar="DIR")


def _vkey(text: str) -> VKey:
    try:
        return parse_vkey(text)
    except MalformedError as error:
        raise click.BadParameter(f"{error.detail}; a log's policy has its keys, and `translog keys show` prints them") from None


def _vkeys(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> list[VKey]:
    return [_vkey(value) for value in values]


def _parse_url(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not value.startswith(("http://", "https://")):
        raise click.BadParameter(f"{value!r} is no URL: it starts with http:// or https://")
    return value


@click.group()
def command() -> None:
    """Run a witness: it cosigns the checkpoints of logs it was told of, each only if it extends the one before."""


@command.command()
@_directory
@click.option("--name", required=True, help="The witness's name for life: a URL without its scheme, w.example.org/w.")
@json_option
def init(directory: Path, name: str, as_json: bool) -> None:
    """Create a witness: its keys, its state, its settings. Prints its public keys and the lines for a policy.

    Refuses a directory that has anything in it. DIR/state.sqlite belongs to the keys for life: a witness that runs on an older
    copy of it could cosign two trees of one log.
    """
    from translog.witnessing import new_witness

    vkeys = new_witness(directory, name=name)
    if not as_json:
        click.echo(f"created the witness {printable(name)} in {directory}", err=True)
    _show_keys(vkeys, url="", as_json=as_json)
    if not as_json:
        click.echo(f"next: translog witness add-log {directory} VKEY, and translog witness serve {directory}", err=True)


@command.command()
@_directory
@click.option("--name", help="Create DIR for a witness of this name, if there is none in it yet.")
@click.option("--log", "vkeys", metavar="VKEY", multiple=True, callback=_vkeys, help="Cosign for the log of this key.")
@click.option(
    "--log-list", "lists", type=PATH, metavar="FILE", multiple=True, help="Cosign for the logs of this list; it is read again."
)
@click.option("--listen", metavar="HOST:PORT", help="Overrides `server.listen`; 127.0.0.1:6964 by default.")
@click.option(
    "--admin-listen", metavar="HOST:PORT", help="Overrides `server.admin_listen`: where metrics are; none by default."
)
@click.option("--public-url", metavar="URL", callback=_parse_url, default="", help="Overrides `server.public_url`.")
def serve(
    directory: Path,
    name: str | None,
    vkeys: list[VKey],
    lists: tuple[Path, ...],
    listen: str | None,
    admin_listen: str | None,
    public_url: str,
) -> None:
    """Serve a witness, which is created first if --name is given. --log and --log-list add to the logs it knows.

    SIGTERM or Ctrl-C stops it: no new connections, what is under way is finished. A second signal ends it at once. What was
    answered is on disk in any case.
    """
    from translog.bootstrap import configure_logging
    from translog.witness.loglist import LIST_BYTES_MAX, parse_log_list
    from translog.witnessing import add_keys, prepare_witness, read_witness_file

    configure_logging()
    for path in lists:  # from now on, one that cannot be read is only logged
        parse_log_list(read_file(path, bytes_max=LIST_BYTES_MAX, what="the log list"), skip=lambda _: None)
    if prepare_witness(directory, name=name):
        click.echo(f"created the witness {printable(name or '')} in {directory}", err=True)
    if vkeys:
        add_keys(directory, _by_origin(vkeys))
    overrides = {"listen": listen, "admin_listen": admin_listen, "public_url": public_url or None}
    given = {key: value for key, value in overrides.items() if value is not None}
    asyncio.run(_serve(directory, read_witness_file(directory, overrides=given, log_lists=lists)))


async def _serve(directory: Path, settings: "WitnessFile") -> None:
    from translog.cli.serve import asked_to_stop
    from translog.witnessing import WitnessServer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop, stop)
    server = WitnessServer(directory, settings)
    await server.start()
    logs = len(await asyncio.to_thread(server.witness.logs))
    scheme = "http" if settings.server.tls.cert is None else "https"
    if server.admin_address:
        click.echo(f"metrics on http://{server.admin_address}", err=True)
    known = f"it knows {logs} {'log' if logs == 1 else 'logs'}"
    click.echo(known if logs else f"it knows no log: translog witness add-log {directory} VKEY", err=True)
    click.echo(f"serving the witness {printable(server.witness.name)} on {scheme}://{server.address}", err=True)
    await stop.wait()
    click.echo("stopping: finishing what is under way", err=True)
    await server.stop()


@command.command("add-log")
@_directory
@click.argument("vkeys", metavar="[VKEY]...", nargs=-1, callback=_vkeys)
@click.option("--origin", default="", help="The first line of the log's checkpoints, where it is not the name of its keys.")
@click.option("--queries-per-day", type=click.IntRange(min=1), help="How many requests of the log are answered a day.")
@click.option("--contact", default="", help="Whom to tell when something is wrong with the log.")
@click.option(
    "--poll", "poll_url", metavar="URL", default="", callback=_parse_url, help="Fetch its checkpoints there, besides."
)
@click.option("--list", "list_file", type=PATH, metavar="FILE", help="Add the logs of a list (logs/v0), once.")
@json_option
def add_log(
    directory: Path,
    vkeys: list[VKey],
    origin: str,
    queries_per_day: int | None,
    contact: str,
    poll_url: str,
    list_file: Path | None,
    as_json: bool,
) -> None:
    """Cosign for a log from now on, by the key or keys that sign its checkpoints; or give a known log one key more.

    The witness may be running. Compare the keys with ones you got another way: whoever has one of them can have a tree cosigned
    as that log's.
    """
    from translog.witness.loglist import LIST_BYTES_MAX
    from translog.witnessing import add_keys, add_list

    if bool(vkeys) == (list_file is not None):
        raise click.UsageError("name the log's keys, or a --list")
    if list_file is not None:
        if origin or queries_per_day or contact or poll_url:
            raise click.UsageError("a --list says this of each log itself")
        changed, listed = add_list(directory, read_file(list_file, bytes_max=LIST_BYTES_MAX, what="the log list"))
        said = [f"{changed} of {listed} logs in the list are new"]
    else:
        keys = _by_origin(vkeys, origin=origin)
        changed = add_keys(directory, keys, queries_per_day=queries_per_day, contact=contact, poll_url=poll_url)
        said = [f"cosigns for {printable(name)}{'' if changed else ', as before'}" for name in keys]
    if as_json:
        click.echo(json.dumps({"ok": True, "changed": changed}))
    else:
        click.echo("\n".join(said))


@command.command("remove-key")
@_directory
@click.argument("key", metavar="VKEY|KEYID")
@click.option("--origin", default="", help="The log's origin, where it is not the name in VKEY.")
@json_option
def remove_key(directory: Path, key: str, origin: str, as_json: bool) -> None:
    """Trust a log's key no more; a log without any other is cosigned no more. What was cosigned is kept.

    The witness may be running. Lists and settings do not bring the key back, only `add-log` does.
    """
    from translog.witnessing import find_key
    from translog.witnessing import remove_key as remove

    if re.fullmatch(r"[0-9a-f]{8}", key):
        if not origin:
            raise click.UsageError("which log's key is it? Give its --origin")
        vkey = find_key(directory, bytes.fromhex(key), origin=origin)
    else:
        vkey = _vkey(key)
    remove(directory, vkey, origin=origin or vkey.name)
    if as_json:
        click.echo(json.dumps({"ok": True, "origin": origin or vkey.name, "vkey": str(vkey)}))
    else:
        click.echo(f"removed the key {vkey.key_id.hex()} of {printable(origin or vkey.name)}")


@command.command()
@_directory
@json_option
def logs(directory: Path, as_json: bool) -> None:
    """List the logs it cosigns for, and what it cosigned of each last."""
    from translog.witnessing import list_logs

    states = list_logs(directory)
    if as_json:
        click.echo(json.dumps({"ok": True, "logs": [_document(state) for state in states]}))
        return
    for state in states:
        for line in _describe(state):
            click.echo(printable(line))
    if not states:
        click.echo(f"no logs yet: translog witness add-log {directory} VKEY", err=True)


@command.command()
@_directory
@click.option(
    "--url", metavar="URL", default="", callback=_parse_url, help="Where others reach it; `server.public_url` if set."
)
@json_option
def keys(directory: Path, url: str, as_json: bool) -> None:
    """Print its public keys, and the lines of a policy that relies on it."""
    from translog.witnessing import public_keys, read_witness_file

    url = url or read_witness_file(directory).server.public_url
    _show_keys(public_keys(directory), url=url, as_json=as_json)


def _by_origin(vkeys: Sequence[VKey], *, origin: str = "") -> dict[str, list[VKey]]:
    """The keys by the log they are of: all of `origin`, or each of the one that has its name."""
    by_origin: dict[str, list[VKey]] = {}
    for vkey in vkeys:
        by_origin.setdefault(origin or vkey.name, []).append(vkey)
    return by_origin


def _show_keys(vkeys: tuple[VKey, ...], *, url: str, as_json: bool) -> None:
    from translog.server.witness_api import policy_lines

    policy = policy_lines(vkeys, url=url)
    if as_json:
        document = {"ok": True, "name": vkeys[0].name, "vkeys": [str(vkey) for vkey in vkeys], "policy": policy}
        click.echo(json.dumps(document))
        return
    for vkey in vkeys:
        click.echo(f"vkey ({vkey.type.label}): {vkey}")
    click.echo(f"for a policy:\n{policy}", nl=False)


def _document(state: "WitnessedLogState") -> dict[str, Any]:
    log, cosigned = state.log, state.cosigned
    return {
        "origin": log.origin,
        "vkeys": [str(vkey) for vkey in log.vkeys],
        "queries_per_day": log.queries_per_day,
        "contact": log.contact,
        "source": log.source,
        "poll_url": log.poll_url,
        "cosigned": None if cosigned is None else {"size": cosigned.size, "time": _time(cosigned.time_s)},
    }


def _describe(state: "WitnessedLogState") -> list[str]:
    log, cosigned = state.log, state.cosigned
    last = "nothing yet" if cosigned is None else f"size {cosigned.size} at {_time(cosigned.time_s)}"
    lines = [log.origin, f"  cosigned last: {last}"]
    lines += [f"  key {vkey.key_id.hex()}, {vkey.type.label}" for vkey in log.vkeys] or ["  no key: nothing of it is cosigned"]
    lines.append(f"  known by {log.source}, {log.queries_per_day} requests a day")
    if log.poll_url:
        lines.append(f"  polled at {log.poll_url}")
    if log.contact:
        lines.append(f"  contact: {log.contact}")
    return lines


def _time(time_s: int) -> str:
    """As a date; a time that no calendar has is left a number."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{time_s} s"
