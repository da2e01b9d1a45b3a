"""Fixtures: logs that are served."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest

from translog.bootstrap import LogServer, create_log
from translog.config import read_settings
from translog.identity.principal import MemberSettings
from translog.storage.store import Profile

from .harness import ORIGIN, Running


class Serve(Protocol):
    """Serves a log, by default a new opaque one, until the end of the test. `settings` are those of `[server]`; `secrets` are
    private files in the log's directory, by name."""

    async def __call__(
        self,
        *,
        directory: Path | None = None,
        members: tuple[dict[str, Any], ...] = (),
        log: dict[str, Any] | None = None,
        profile: Profile = Profile.OPAQUE,
        secrets: Mapping[str, bytes] | None = None,
        **settings: Any,
    ) -> Running: ...


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(
            *,
            directory: Path | None = None,
            members: tuple[dict[str, Any], ...] = (),
            log: dict[str, Any] | None = None,
            profile: Profile = Profile.OPAQUE,
            secrets: Mapping[str, bytes] | None = None,
            **settings: Any,
        ) -> Running:
            if directory is None:
                directory = tmp_path / "log"
                create_log(directory, origin=ORIGIN, profile=profile)
            for name, secret in (secrets or {}).items():
                (directory / name).write_bytes(secret)
                (directory / name).chmod(0o600)
            listen = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
            overrides = {"server": {**listen, **settings}, "log": {"reopen_wait_ms": 1, **(log or {})}}
            read = read_settings(directory, overrides)
            read = read.model_copy(update={"members": tuple(MemberSettings(**member) for member in members)})
            server = LogServer(directory, read)
            await server.start()
            stack.push_async_callback(server.stop)
            http = await stack.enter_async_context(
                aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Accept-Encoding", "Content-Type"))
            )
            return Running(server=server, http=http, directory=directory)

        yield start


@pytest.fixture
async def log_server(serve: Serve) -> Running:
    """A new log under default settings."""
    return await serve()


@pytest.fixture
async def event_log(serve: Serve) -> Running:
    """A new log of audit events under default settings, which this machine may write to."""
    return await serve(profile=Profile.EVENTS)
