"""`translog serve`: serves a log until SIGTERM or SIGINT, then drains."""

import asyncio
import gc
import os
import signal
from pathlib import Path

import click

from translog.cli.options import PATH


@click.command()
@click.argument("directory", type=PATH, metavar="DIR")
@click.option("--listen", metavar="HOST:PORT", help="Overrides `server.listen`.")
@click.option("--admin-listen", metavar="HOST:PORT", help="Overrides `server.admin_listen`; empty switches it off.")
def command(directory: Path, listen: str | None, admin_listen: str | None) -> None:
    """Serve a log. SIGTERM or Ctrl-C stops it: no new connections, what is under way is finished, nothing is lost.

    A second signal ends it at once, without waiting for a disk that hangs; nothing acknowledged is lost by that either.
    """
    from translog.bootstrap import LogServer, configure_logging
    from translog.config import read_settings

    configure_logging()
    overrides = {"listen": listen, "admin_listen": admin_listen}
    settings = read_settings(directory, {"server": {name: value for name, value in overrides.items() if value is not None}})

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked_to_stop, stop)
        server = LogServer(directory, settings)
        await server.start()
        _collect_garbage_less_often()
        scheme = "http" if settings.server.tls.cert is None else "https"
        click.echo(f"serving {server.service.meta.origin} on {scheme}://{server.address}", err=True)
        if server.admin_address:
            click.echo(f"metrics and operator actions on http://{server.admin_address}", err=True)
        if server.service.held is not None:
            click.echo(f"READ-ONLY: {server.service.held}", err=True)
        await stop.wait()
        click.echo("stopping: finishing what is under way", err=True)
        await server.stop()

    asyncio.run(run())


def _collect_garbage_less_often() -> None:
    """With thousands of requests in flight, the collector's passes over them cost half of the processor's time. What was made
    by now stays for good, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def asked_to_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        click.echo("ended at once, as asked a second time", err=True)
        os._exit(4)
    stop.set()
