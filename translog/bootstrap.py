"""The composition root of a log that runs: wiring, no logic. maintenance.py is that of what is done to one that does not.

`create_log` makes a log's directory, all of it or nothing; `LogServer` opens one and serves it.
"""

import asyncio
import logging
import os
import resource
import socket
import sys
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from translog.asking import log_changes, open_witnesses, process_user, stated_policy, vkeys_of
from translog.config import FILE_NAME, Settings, write_settings
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import VKey
from translog.core.merkle import EMPTY_ROOT
from translog.core.note import is_key_name
from translog.core.policy import format_policy
from translog.errors import SettingsError
from translog.events.keychain import Action
from translog.identity.principal import Members
from translog.index.lookup import LeafLookup
from translog.location import own_vkeys
from translog.log.clock import SystemClock
from translog.log.directory import new_directory
from translog.log.events import EventStore
from translog.log.follower import Follower
from translog.log.head import HeadFile
from translog.log.keyfiles import (
    DEDUP_KEY_FILE,
    KEK_FILE,
    create_event_keys,
    create_log_keys,
    read_first_vkeys,
    read_log_keys,
    read_secret,
)
from translog.log.keyledger import KeyLedger
from translog.log.lifecycle import LogService, Mode
from translog.log.metrics import LogMetrics
from translog.log.rotation import KeyRotation
from translog.log.streamtree import StreamTrees
from translog.log.vault import FileKeyWrapper, Vault
from translog.server.api import Api, EventLog
from translog.server.app import admin_app, public_app
from translog.server.intake import Intake
from translog.server.listener import Listener
from translog.server.settings import ServerSettings, TLSSettings
from translog.server.sourcefiles import read_sources, read_webhook_secret
from translog.server.tls import TLS
from translog.storage.keyspace import FORMAT_VERSION
from translog.storage.leveldb import OPEN_FILES_MAX, LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import LogMeta, Profile
from translog.witness.service import Witness
from translog.witnessing import open_role

_logger = structlog.get_logger()

_ADMIN_CONNECTIONS_MAX = 32
_OTHER_FILES = 64
_DRAIN_LEAST_MS = 500
_LEDGER_PAUSE_MS = 500
"""Changes of keys are rare, and looked for now and then."""
ORIGIN_BYTES_MAX = 114
"""So that the origins derived from it (streams, keys) stay within the 255 bytes that a checkpoint allows."""


def create_log(directory: Path, *, origin: str, profile: Profile) -> list[VKey]:
    """Creates keys, store, head, settings and (for events) the vault in a new directory, all of it or nothing, and returns the
    public keys.

    Raises SettingsError if the directory has anything in it or the origin cannot be one, StorageError.
    """
    if not is_key_name(origin) or not origin.isprintable() or len(origin.encode()) > ORIGIN_BYTES_MAX:
        raise SettingsError(
            f"{origin!r} cannot be a log's origin",
            hint=f"a URL without its scheme, as log.example.org/audit: no spaces, no +, at most {ORIGIN_BYTES_MAX} bytes",
            code="bad-origin",
        )
    with new_directory(directory, last=FILE_NAME) as building:
        skeys = create_log_keys(building / "keys", origin=origin, random_bytes=os.urandom)
        if profile is Profile.EVENTS:
            create_event_keys(building / "keys", random_bytes=os.urandom)
            Vault.create(building / "vault")
        HeadFile.create(building / "head", origin=origin, size=0, root=EMPTY_ROOT)
        with DirectoryLock(building) as lock:
            meta = LogMeta(format_version=FORMAT_VERSION, origin=origin, profile=profile)
            LevelDBStore.create(lock, meta).close()
        write_settings(building, origin=origin, profile=profile.value)
    return [skey.vkey for skey in skeys]


class LogServer:
    """A log being served, from `start` to `stop`."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self._directory = directory
        self._settings = settings
        self._stack = AsyncExitStack()
        self._deadline = 0.0
        self.address = ""
        self.admin_address = ""
        self.service: LogService

    async def start(self) -> None:
        """Locks the directory, opens the log, publishes, listens. Raises SettingsError, StorageError, CorruptionError,
        everything closed again."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings, stack = self._settings, self._stack
        lock = stack.enter_context(DirectoryLock(self._directory))
        meta = await asyncio.to_thread(_read_meta, lock, settings)
        skeys = read_log_keys(self._directory / "keys", origin=meta.origin, types={key.type for key in settings.log.sign_with})
        members = Members(settings.members)
        metrics = LogMetrics()
        tls = TLS(settings.server.tls, expiry=metrics.tls_expiry) if _wants_tls(settings.server.tls) else None
        own = own_vkeys(self._directory / "keys", [])
        witnesses = await stack.enter_async_context(open_witnesses(self._directory, settings.log, own, meta.origin, metrics))
        self.service = service = LogService(
            meta=meta,
            open_store=lambda: LevelDBStore.open(lock),
            open_head=lambda: HeadFile.open(self._directory / "head", origin=meta.origin),
            signers=[KeySigner(skey) for skey in skeys],
            clock=SystemClock(),
            settings=settings.log,
            metrics=metrics,
            witnesses=witnesses,
        )
        if witnesses is not None:  # keys that are added later count as well
            witnesses.own = lambda: [KeyVerifier(vkey) for vkey in dict.fromkeys((*own, *vkeys_of(service)))]
        vault = self._open_vault(meta)
        await service.start()
        stack.push_async_callback(self._stop_service, service)
        events = None if vault is None else self._event_log(service, vault)
        if events is not None and service.integrated.size == 0 and service.mode is Mode.OPEN:
            await events.intake.log_admin("log.create", uid="log.create", actor=process_user())
        lookup = self._leaf_lookup(meta)
        if events is not None and witnesses is not None:
            log_changes(service, witnesses, events.intake)
        publication = None if witnesses is None else witnesses.policy
        policy_for = stated_policy(settings.server.public_url, publication)
        policy_for(vkeys_of(service))
        api = Api(
            service=service,
            members=members,
            settings=settings.server,
            vkeys=lambda: vkeys_of(service),
            policy=lambda: policy_for(vkeys_of(service)),
            publication_policy=None if publication is None else format_policy(publication),
            leaf_lookup=lookup,
            events=events,
            keys=self._key_rotation(meta, events),
            witness=self._witness_role(meta, own),
        )
        public_settings = _within_file_limit(settings.server)
        public = Listener(public_app(api), public_settings, tls=None if tls is None else tls.context)
        self.address = await public.start(settings.server.listen)
        stack.push_async_callback(public.stop)
        if settings.server.admin_listen:
            admin_settings = settings.server.model_copy(update={"connections_max": _ADMIN_CONNECTIONS_MAX})
            admin = Listener(admin_app(api), admin_settings)
            self.admin_address = await admin.start(settings.server.admin_listen)
            stack.push_async_callback(admin.stop)
        if tls is not None:
            self._run(tls.watch())

    def _open_vault(self, meta: LogMeta) -> Vault | None:
        if meta.profile is not Profile.EVENTS:
            return None
        kek = read_secret(self._directory / "keys" / KEK_FILE)
        wrapper = FileKeyWrapper(kek, origin=meta.origin, random_bytes=os.urandom)
        return Vault.open(self._directory / "vault", wrapper=wrapper, random_bytes=os.urandom, now_ms=SystemClock().wall_ms)

    def _event_log(self, service: LogService, vault: Vault) -> EventLog:
        settings = self._settings.server
        intake = Intake(
            service=service,
            vault=vault,
            dedup_key=read_secret(self._directory / "keys" / DEDUP_KEY_FILE),
            blob_bytes_min=settings.intake.blob_bytes_min,
            random_bytes=os.urandom,
            commit_deadline_ms=settings.commit_deadline_ms,
            host=socket.gethostname(),
        )
        self._stack.callback(intake.close)
        return EventLog(
            intake=intake,
            store=EventStore(service, vault),
            sources=read_sources(self._directory, settings.intake.custom_sources),
            webhook_secrets={
                member.name: read_webhook_secret(self._directory / member.webhook_secret_file)
                for member in self._settings.members
                if member.webhook_secret_file
            },
            trees=StreamTrees(),
        )

    def _witness_role(self, meta: LogMeta, own: Sequence[VKey]) -> Witness | None:
        """The witness of other logs that is served beside, if there is one."""
        if not self._settings.server.witness:
            return None
        role = open_role(self._directory / self._settings.server.witness, own_origin=meta.origin, own_vkeys=own)
        self._stack.callback(role.close)
        self._run(role.run())
        return role.witness

    def _leaf_lookup(self, meta: LogMeta) -> LeafLookup | None:
        if not self._settings.log.leaf_lookup:
            return None
        path = self._directory / "index" / "leaves.sqlite"
        lookup = LeafLookup(path, origin=meta.origin, size=self.service.integrated.size)
        self._stack.callback(lookup.close)
        self._run(Follower(self.service, lookup).run())
        return lookup

    def _key_rotation(self, meta: LogMeta, events: EventLog | None) -> KeyRotation:
        """What changes the log's keys, and the account of them that it goes by."""
        service, directory = self.service, self._directory / "keys"

        async def commit(entry: bytes, action: Action, vkey: VKey, operator: str) -> None:
            if events is None:
                await service.append([entry], timeout_ms=self._settings.server.commit_deadline_ms)
                return
            key_id = vkey.key_id.hex()
            await events.intake.log_admin(
                f"key.{action.value}",
                uid=f"key.{action.value}/{key_id}/{os.urandom(8).hex()}",
                actor={"name": operator},
                data={"key_id": key_id, "vkey": str(vkey)},
                entries=[entry],
            )

        first = read_first_vkeys(directory, origin=meta.origin)
        path = self._directory / "state" / "keys.json"
        ledger = KeyLedger(path, origin=meta.origin, first=first, size=service.integrated.size)
        rotation = KeyRotation(
            service,
            ledger,
            directory=directory,
            types={key.type for key in self._settings.log.sign_with},
            commit=commit,
            random_bytes=os.urandom,
        )
        self._run(Follower(service, ledger, pause_ms=_LEDGER_PAUSE_MS).run())
        self._run(rotation.run())
        return rotation

    def _run(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        task.add_done_callback(_tell_of_death)

        async def stop() -> None:
            task.cancel()
            await asyncio.wait([task])

        self._stack.push_async_callback(stop)

    async def stop(self) -> None:
        """Takes no new connections, finishes what is under way for `drain_timeout_ms` in all, closes everything."""
        self._deadline = asyncio.get_running_loop().time() + self._settings.server.drain_timeout_ms / 1000
        await self._stack.aclose()

    async def _stop_service(self, service: LogService) -> None:
        left_s = self._deadline - asyncio.get_running_loop().time()
        await service.stop(drain_ms=max(_DRAIN_LEAST_MS, round(1000 * left_s)))


def _tell_of_death(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.critical("a background task has ended", task=task.get_name(), error=repr(error))


def _within_file_limit(settings: ServerSettings) -> ServerSettings:
    """The settings with as many connections as this process may open beside the store's files. Raises its own limit as far as
    it may; without room, connections would take the descriptors that writing needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections_max + _ADMIN_CONNECTIONS_MAX + OPEN_FILES_MAX + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = wanted if soft == resource.RLIM_INFINITY else soft
    connections = min(settings.connections_max, room - _ADMIN_CONNECTIONS_MAX - OPEN_FILES_MAX - _OTHER_FILES)
    if connections < 1:
        raise SettingsError(
            f"this process may open {room} files, which leaves no room for connections",
            hint=f"allow it {wanted} (ulimit -n, or LimitNOFILE in the service file)",
            code="file-limit",
        )
    if connections < settings.connections_max:
        _logger.warning("fewer connections than set: raise the limit on open files", connections=connections, wanted=wanted)
    return settings.model_copy(update={"connections_max": connections})


def _wants_tls(settings: TLSSettings) -> bool:
    return settings.cert is not None or settings.key is not None or settings.client_ca is not None


def _read_meta(lock: DirectoryLock, settings: Settings) -> LogMeta:
    """What the store says it is. Raises SettingsError if the settings say otherwise."""
    store = LevelDBStore.open(lock)
    meta = store.meta
    store.close()
    for name, said, is_ in (("origin", settings.origin, meta.origin), ("profile", settings.profile, meta.profile.value)):
        if not said:
            raise SettingsError(
                f"translog.toml does not say {name}", hint=f'add the line {name} = "{is_}"', code="bad-settings"
            )
        if said != is_:
            raise SettingsError(
                f"settings say {name} = {said!r}, the store is {is_!r}",
                hint=f"a log's {name} is fixed: correct translog.toml, or bring the right store back",
                code="store-of-another-log",
            )
    return meta


def configure_logging() -> None:
    """Structured logs, one JSON object a line, on standard error."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
