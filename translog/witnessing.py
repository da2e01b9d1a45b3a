"""The composition root of a witness that runs: as a server of its own, or as a role in a log's server. Wiring, no logic.

`new_witness` makes a witness's directory, all of it or nothing; `WitnessServer` opens one and serves it; `open_role` opens one
that bootstrap.py serves beside a log.
"""

import asyncio
import os
import resource
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Gauge
from pydantic import ValidationError

from translog.client.polled import PolledRemoteLog
from translog.core.keys import VKey
from translog.core.wire import clip
from translog.errors import NotFoundError, PushbackError, SettingsError
from translog.log.clock import Clock, ClockGuard, SystemClock
from translog.log.waiters import uninterrupted
from translog.server.listener import Listener
from translog.server.settings import TLSSettings
from translog.server.tls import TLS
from translog.server.witness_app import WitnessApi, WitnessServerSettings, witness_admin_app, witness_app
from translog.witness.accusations import Accusations
from translog.witness.loglist import KnownLog, parse_log_list
from translog.witness.opening import ACCUSATIONS, STATE_FILE, create_witness, open_witness
from translog.witness.poller import Poller
from translog.witness.protocol import Cosigned
from translog.witness.service import Witness
from translog.witness.settings import FILE_NAME, WitnessSettings, read_document, read_witness_settings
from translog.witness.store import WitnessStore

_logger = structlog.get_logger()

_SERVER = "server"
_CLOCK_JUMP_MS = 10_000
_CLOCK_RETRY_MS = 5_000
_ADMIN_CONNECTIONS_MAX = 32
_OTHER_FILES = 192
"""The state and each thread's connection to it, logs that are polled, the runtime's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessFile:
    """What DIR/witness.toml says."""

    witness: WitnessSettings
    server: WitnessServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessedLogState:
    """A log that a witness knows, and what it cosigned of it last; None for nothing yet."""

    log: KnownLog
    cosigned: Cosigned | None


def new_witness(directory: Path, *, name: str) -> tuple[VKey, ...]:
    """Creates a witness and returns its public keys. Raises SettingsError if the directory has anything in it or the name
    cannot be one, StorageError."""
    create_witness(directory, name=name, random_bytes=os.urandom)
    return public_keys(directory)


def prepare_witness(directory: Path, *, name: str | None) -> bool:
    """Creates a witness where a name is given and there is nothing yet; returns whether it did. Raises SettingsError if the one
    that is there has another name, or there is none and no name for one."""
    there = (directory / FILE_NAME).exists()
    if name is None:
        read_document(directory)
        return False
    if not there:
        new_witness(directory, name=name)
        return True
    with closing(WitnessStore.open(directory / STATE_FILE)) as store:
        if store.name != name:
            raise SettingsError(
                f"the witness in {directory} is called {store.name!r}, not {name!r}",
                hint="a name is for life: leave --name out, or choose another directory for another witness",
                code="witness-other-state",
            )
    return False


def read_witness_file(
    directory: Path, *, overrides: dict[str, Any] | None = None, log_lists: Sequence[Path] = ()
) -> WitnessFile:
    """The settings of the witness in `directory`; `overrides` are of its `[server]` table, `log_lists` are more lists. Raises
    SettingsError naming the key that is wrong."""
    witness = read_witness_settings(directory, others=(_SERVER,))
    lists = (*witness.log_lists, *(str(path.absolute()) for path in log_lists))
    table = read_document(directory).get(_SERVER, {})
    try:
        if not isinstance(table, dict):
            raise SettingsError(f"{directory / FILE_NAME}: {_SERVER} is no table", code="bad-settings")
        server = WitnessServerSettings(**{**table, **(overrides or {})})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, (_SERVER, *first["loc"])))
        raise SettingsError(
            f"{directory / FILE_NAME}: {where}: {first['msg']}", hint="README.md lists every setting", code="bad-settings"
        ) from None
    return WitnessFile(witness=witness.model_copy(update={"log_lists": lists}), server=server)


def public_keys(directory: Path) -> tuple[VKey, ...]:
    """The keys that the witness in `directory` signs with. Raises SettingsError, CorruptionError, StorageError."""
    witness = _open(directory)
    witness.store.close()
    return witness.vkeys


def add_logs(directory: Path, logs: Iterable[KnownLog]) -> int:
    """Makes logs known to the witness in `directory`, which may be running. Returns how many changed anything. Raises
    MalformedError, RefusedError for the witness's own name or keys, SettingsError, StorageError."""
    witness = _open(directory)
    with closing(witness.store):
        return sum([witness.add_log(log) for log in logs])


def add_keys(
    directory: Path,
    keys: Mapping[str, Sequence[VKey]],
    *,
    queries_per_day: int | None = None,
    contact: str = "",
    poll_url: str = "",
) -> int:
    """`add_logs` for keys by origin. What is not said stays as it is where the log is known; a new one may ask as often as the
    settings say."""
    usual = read_witness_settings(directory, others=(_SERVER,)).queries_per_day
    with closing(_open_store(directory)) as store:
        known = {origin: log.queries_per_day for origin in keys if (log := store.find_log(origin)) is not None}
    logs = [
        KnownLog(
            origin=origin,
            vkeys=tuple(vkeys),
            queries_per_day=queries_per_day or known.get(origin, usual),
            contact=contact,
            poll_url=poll_url,
        )
        for origin, vkeys in keys.items()
    ]
    return add_logs(directory, logs)


def add_list(directory: Path, data: bytes) -> tuple[int, int]:
    """`add_logs` for a list. Returns how many of its logs are new, and how many it has. Raises MalformedError with the line."""
    usual = read_witness_settings(directory, others=(_SERVER,)).queries_per_day
    logs = parse_log_list(data, queries_per_day=usual)
    return add_logs(directory, logs), len(logs)


def remove_key(directory: Path, vkey: VKey, *, origin: str) -> None:
    """From now on the witness in `directory`, which may be running, takes nothing signed by that key for that log's. Raises
    NotFoundError, SettingsError, StorageError."""
    with closing(_open_store(directory)) as store:
        store.remove_key(origin, vkey)


def find_key(directory: Path, key_id: bytes, *, origin: str) -> VKey:
    """A log's key by its ID. Raises NotFoundError, SettingsError, StorageError."""
    with closing(_open_store(directory)) as store:
        log = store.find_log(origin)
    found = [vkey for vkey in log.vkeys if vkey.key_id == key_id] if log is not None else []
    if len(found) != 1:
        raise NotFoundError(f"the log {clip(origin)} has no such key", hint="`translog witness logs` lists them")
    return found[0]


def list_logs(directory: Path) -> list[WitnessedLogState]:
    """What the witness in `directory`, which may be running, knows. Raises SettingsError, CorruptionError, StorageError."""
    with closing(_open_store(directory)) as store:
        return [WitnessedLogState(log=log, cosigned=store.find_cosigned(log.origin)) for log in store.logs()]


def _open_store(directory: Path) -> WitnessStore:
    read_document(directory)
    return WitnessStore.open(directory / STATE_FILE)


def _open(directory: Path) -> Witness:
    """The witness in `directory` with nothing added: its settings' logs and lists are read where it is served."""
    settings = read_witness_settings(directory, others=(_SERVER,))
    return open_witness(directory, now_ms=_now_ms, settings=settings.model_copy(update={"logs": (), "log_lists": ()}))


def _now_ms() -> int:
    return SystemClock().wall_ms()


def _steady_clock(clock: Clock) -> Callable[[], int]:
    """The time, for as long as the clock is not set: cosignatures that were made too early cannot be taken back, since no later
    one of that log may state an earlier time. It raises PushbackError."""
    guard = ClockGuard(clock, jump_ms_max=_CLOCK_JUMP_MS, retry_after_ms=_CLOCK_RETRY_MS)

    def now_ms() -> int:
        try:
            return guard.tick()
        except PushbackError as error:
            _logger.critical("the clock was set, nothing is cosigned", jump_ms=guard.jump_ms)
            raise PushbackError(
                f"the witness's clock was set by {guard.jump_ms / 1000:+.1f} s, so nothing is cosigned",
                hint="its operator sets it right, or, if it is right now, restarts the witness",
                code=error.code,
                retry_after_ms=error.retry_after_ms,
            ) from None

    return now_ms


class WitnessRole:
    """An open witness and what it does unasked: polls logs and reads lists of logs again."""

    def __init__(self, directory: Path, witness: Witness, settings: WitnessSettings) -> None:
        self.witness = witness
        self._settings = settings
        self._poller = Poller(
            witness=witness,
            connect=lambda log: PolledRemoteLog(log.poll_url, timeout_ms=settings.poll_timeout_ms),
            settings=settings,
            accusations=Accusations(directory / ACCUSATIONS),
        )

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poller.run(), name="log poller")
            group.create_task(self._reload_lists(), name="log list reader")

    async def _reload_lists(self) -> None:
        while True:
            await asyncio.sleep(self._settings.log_list_interval_ms / 1000)
            await uninterrupted(asyncio.to_thread(self.witness.reload_lists))

    def close(self) -> None:
        """Closes its state; nobody may be using it."""
        self.witness.store.close()


def open_role(directory: Path, *, own_origin: str, own_vkeys: Iterable[VKey]) -> WitnessRole:
    """The witness in `directory` for the log `own_origin` to serve: never for that log, nor under its keys.

    Raises SettingsError, code `witness-is-the-log`, if it has the log's name or a key of its; and what `open_witness` raises.
    """
    settings = read_witness_settings(directory, others=(_SERVER,))
    own_keys = {vkey.public_key for vkey in own_vkeys}
    witness = open_witness(
        directory,
        now_ms=_steady_clock(SystemClock()),
        settings=settings,
        excluded=frozenset({own_origin}),
        excluded_keys=own_keys,
    )
    if witness.name == own_origin or any(vkey.public_key in own_keys for vkey in witness.vkeys):
        witness.store.close()
        raise SettingsError(
            f"the witness in {directory} has the name or a key of the log that serves it",
            hint="create a witness with a name of its own: policies refuse a log that witnesses itself",
            code="witness-is-the-log",
        )
    return WitnessRole(directory, witness, settings)


class WitnessServer:
    """A witness being served, from `start` to `stop`."""

    def __init__(self, directory: Path, settings: WitnessFile) -> None:
        self._directory = directory
        self._settings = settings
        self._stack = AsyncExitStack()
        self.address = ""
        self.admin_address = ""
        self.witness: Witness

    async def start(self) -> None:
        """Opens the witness, listens, polls. Raises SettingsError, RefusedError, StorageError, CorruptionError, everything
        closed again."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings, stack = self._settings.server, self._stack
        registry = CollectorRegistry()
        tls = _open_tls(settings.tls, registry)
        listening = settings.for_listeners()
        _require_files(settings.connections_max)
        self.witness = witness = await asyncio.to_thread(
            open_witness, self._directory, now_ms=_steady_clock(SystemClock()), settings=self._settings.witness
        )
        role = WitnessRole(self._directory, witness, self._settings.witness)
        stack.callback(role.close)
        api = WitnessApi(witness=witness, settings=listening, registry=registry)
        public = Listener(witness_app(api), listening, tls=None if tls is None else tls.context)
        self.address = await public.start(settings.listen)
        stack.push_async_callback(public.stop)
        if settings.admin_listen:
            admin = Listener(witness_admin_app(api), listening.model_copy(update={"connections_max": _ADMIN_CONNECTIONS_MAX}))
            self.admin_address = await admin.start(settings.admin_listen)
            stack.push_async_callback(admin.stop)
        self._run(role.run())
        if tls is not None:
            self._run(tls.watch())

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        task.add_done_callback(_tell_of_death)

        async def stop() -> None:
            task.cancel()
            await asyncio.wait([task])

        self._stack.push_async_callback(stop)

    async def stop(self) -> None:
        """Takes no new connections, finishes what is under way for `drain_timeout_ms`, closes everything."""
        await self._stack.aclose()


def _open_tls(settings: TLSSettings, registry: CollectorRegistry) -> TLS | None:
    """None for a listener without TLS. Raises SettingsError."""
    expiry = Gauge(
        "translog_tls_not_after_timestamp_seconds", "When the TLS certificate ends; 0 without TLS.", registry=registry
    )
    if settings.cert is None and settings.key is None and settings.client_ca is None:
        return None
    return TLS(settings, expiry=expiry)


def _tell_of_death(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.critical("a background task has ended", task=task.get_name(), error=repr(error))


def _require_files(connections: int) -> None:
    """Lets this process open files for so many connections and everything else. Raises SettingsError if it may not: connections
    would take the descriptors that writing needs."""
    wanted = connections + _ADMIN_CONNECTIONS_MAX + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SettingsError(
            f"this process may open {hard} files, and {connections} connections need {wanted}",
            hint="allow it more (ulimit -n, or LimitNOFILE in the service file), or lower server.connections_max",
            code="file-limit",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
