"""A live log in a new directory, served in this process."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from translog.bootstrap import LogServer, create_log
from translog.config import read_settings
from translog.core.keys import VKey
from translog.core.policy import Policy, format_log_policy, parse_policy
from translog.storage.store import Profile

ORIGIN = "log.example/live"


def make_log(directory: Path, *, origin: str = ORIGIN) -> list[VKey]:
    """Creates an empty opaque log; returns its public keys."""
    return create_log(directory, origin=origin, profile=Profile.OPAQUE)


def policy_for(vkeys: Sequence[VKey], *, classic: bool = False) -> Policy:
    return parse_policy(format_log_policy(vkeys, classic=classic).encode())


@asynccontextmanager
async def served(directory: Path, **server: Any) -> AsyncIterator[LogServer]:
    """Serves the log in `directory` on a free port; `server` overrides settings of that section."""
    overrides = {"listen": "127.0.0.1:0", "admin_listen": "", **server}
    running = LogServer(directory, read_settings(directory, {"server": overrides}))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


def url_of(running: LogServer) -> str:
    return f"http://{running.address}"
