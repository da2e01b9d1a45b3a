"""Composition of the witnesses that a log asks: the policy it publishes under, who is asked over HTTP, what is told of it."""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from pathlib import Path

import structlog

from translog.client.witness import RemoteWitness
from translog.core.cosignature import KeySigner, KeyVerifier
from translog.core.keys import VKey
from translog.core.policy import Policy, format_log_policy
from translog.errors import MalformedError, SettingsError, TranslogError
from translog.events.jsontext import JSONObject
from translog.log.clock import SystemClock
from translog.log.lifecycle import LogService
from translog.log.metrics import LogMetrics
from translog.log.publication import endpoints_of, read_publication_policy, warn_of_weakness
from translog.log.settings import LogSettings
from translog.log.witnesses import Witnesses
from translog.server.intake import Intake

_logger = structlog.get_logger()


@asynccontextmanager
async def open_witnesses(
    directory: Path, log: LogSettings, own: Sequence[VKey], origin: str, metrics: LogMetrics
) -> AsyncIterator[Witnesses | None]:
    """Those who cosign before a checkpoint of the log in `directory` is published; None for nobody. `own` are all keys it ever
    signed with. Raises SettingsError for a policy that cannot be published under."""
    settings = log.witnessing
    if not settings.policy_file:
        yield None
        return
    policy = read_publication_policy(directory / settings.policy_file, own)
    warn_of_weakness(policy)
    async with AsyncExitStack() as stack:
        remotes: list[RemoteWitness] = []

        def connect(url: str) -> RemoteWitness:
            remotes.append(RemoteWitness(url, timeout_ms=settings.request_timeout_ms))
            return remotes[-1]

        try:
            endpoints = endpoints_of(policy, connect)
        except MalformedError as error:
            raise SettingsError(f"{settings.policy_file}: {error.detail}", hint=error.hint, code="bad-policy") from None
        for remote in remotes:
            await stack.enter_async_context(remote)
        verifying = ThreadPoolExecutor(1, thread_name_prefix="cosignatures")
        stack.callback(verifying.shutdown)
        yield Witnesses(
            endpoints,
            policy=policy,
            origin=origin,
            own=lambda: [KeyVerifier(vkey) for vkey in own],
            now_ms=SystemClock().wall_ms,
            verifying=verifying,
            settings=settings,
            metrics=metrics,
        )


def log_changes(service: LogService, witnesses: Witnesses, intake: Intake) -> None:
    """From now on logs it as an event when the quorum is lost or back, and when a witness knows more than the log."""
    under_way: set[asyncio.Task[None]] = set()

    def tell(operation: str, data: JSONObject) -> None:
        uid = f"{operation}/{os.urandom(8).hex()}"
        task = asyncio.create_task(_log_operation(intake, operation, uid, data))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    def on_quorum(reached: bool) -> None:
        tell("witness.quorum-reached" if reached else "witness.quorum-lost", {})

    witnesses.on_ahead = lambda name, size, proven: tell("witness.ahead", {"witness": name, "size": size, "proven": proven})
    service.on_quorum = on_quorum
    if service.unwitnessed_since_ms is not None:
        on_quorum(False)


async def _log_operation(intake: Intake, operation: str, uid: str, data: JSONObject) -> None:
    try:
        await intake.log_admin(operation, uid=uid, actor=process_user(), data=data)
    except (TranslogError, RuntimeError) as error:  # the latter where the log was stopped meanwhile
        _logger.error("this could not be logged as an event", operation=operation, detail=str(error))


def stated_policy(url: str, publication: Policy | None) -> Callable[[tuple[VKey, ...]], str]:
    """Gives the policy that a log with these keys would be trusted under. That raises SettingsError."""

    @lru_cache(maxsize=4)
    def policy_for(vkeys: tuple[VKey, ...]) -> str:
        try:
            return format_log_policy(vkeys, url=url, publication=publication)
        except MalformedError as error:
            raise SettingsError(f"no policy for this log can be written: {error.detail}", code="bad-policy") from None

    return policy_for


def vkeys_of(service: LogService) -> tuple[VKey, ...]:
    """What it signs with now."""
    return tuple(signer.skey.vkey for signer in service.signers if isinstance(signer, KeySigner))


def process_user() -> JSONObject:
    """Whom this process runs as, as an OCSF user."""
    uid = os.getuid()
    try:
        return {"uid": str(uid), "name": pwd.getpwuid(uid).pw_name}
    except KeyError:
        return {"uid": str(uid)}
