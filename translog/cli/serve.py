"""`translog serve`: serves a log until SIGTERM or SIGINT, then drains."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from translog.cli.options import command_app

app = command_app()


@app.command()
def serve(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The log's directory; DIR/translog.toml has its settings.")],
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Overrides `server.listen`.")] = None,
    admin_listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Overrides `server.admin_listen`.")] = None,
) -> None:
    """Serve a log. SIGTERM or Ctrl-C stops it: no new connections, what is under way is finished, nothing is lost."""
    from translog.bootstrap import LogServer, configure_logging
    from translog.config import read_settings

    configure_logging()
    overrides = {"listen": listen, "admin_listen": admin_listen}
    settings = read_settings(directory, {"server": {name: value for name, value in overrides.items() if value is not None}})

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = LogServer(directory, settings)
        await server.start()
        scheme = "http" if settings.server.tls.cert is None else "https"
        typer.echo(f"serving {server.service.meta.origin} on {scheme}://{server.address}", err=True)
        if server.admin_address:
            typer.echo(f"metrics and operator actions on http://{server.admin_address}", err=True)
        if server.service.held is not None:
            typer.echo(f"READ-ONLY: {server.service.held}", err=True)
        await stop.wait()
        typer.echo("stopping: finishing what is under way", err=True)
        await server.stop()

    asyncio.run(run())
