"""`translog prove`: inclusion and consistency proofs of any tlog-tiles log, made from verified tiles."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from translog.cli.options import json_option, log_option, policy_option
from translog.core.wire import encode_base64

if TYPE_CHECKING:
    from translog.client.remote import RemoteLog


@click.group()
def command() -> None:
    """Fetch and verify proofs of any tlog-tiles log, made here from its tiles."""


@command.command()
@click.argument("index", type=click.IntRange(min=0))
@log_option
@click.option("--size", type=click.IntRange(min=1), help="The tree size to prove in; the newest by default.")
@policy_option
@json_option
def inclusion(index: int, log: str, size: int | None, policy_file: Path | None, as_json: bool) -> None:
    """Prove that an entry is in the log: hashes from the leaf's sibling up."""

    async def prove(remote: "RemoteLog") -> dict[str, Any]:
        at = remote.latest.checkpoint.size if size is None else size
        proof = await remote.prove_inclusion(index=index, size=at)
        return {"index": index, "size": at, "root": encode_base64(await remote.root(at)), "proof": proof}

    _show(_with_log(log, policy_file, prove), as_json=as_json)


@command.command()
@click.argument("old", type=click.IntRange(min=1))
@click.argument("new", type=click.IntRange(min=1), required=False)
@log_option
@policy_option
@json_option
def consistency(old: int, new: int | None, log: str, policy_file: Path | None, as_json: bool) -> None:
    """Prove that the tree of size OLD is a prefix of the tree of size NEW (the newest by default)."""

    async def prove(remote: "RemoteLog") -> dict[str, Any]:
        at = remote.latest.checkpoint.size if new is None else new
        proof = await remote.prove_consistency(old=old, new=at)
        roots = {"old_root": encode_base64(await remote.root(old)), "new_root": encode_base64(await remote.root(at))}
        return {"old": old, "new": at, **roots, "proof": proof}

    _show(_with_log(log, policy_file, prove), as_json=as_json)


def _with_log(log: str, policy_path: Path | None, prove: Callable[["RemoteLog"], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    from translog.cli.trust import choose_policy
    from translog.client.remote import RemoteLog
    from translog.client.submit import Submitter

    async def run() -> dict[str, Any]:
        async with Submitter(log) as submitter:
            policy = await choose_policy(policy_path, submitter)
        async with RemoteLog(log, policy) as remote:
            await remote.refresh()
            return await prove(remote)

    return asyncio.run(run())


def _show(proven: dict[str, Any], *, as_json: bool) -> None:
    hashes = [encode_base64(value) for value in proven.pop("proof")]
    if as_json:
        click.echo(json.dumps({"ok": True, **proven, "proof": hashes}))
        return
    for name, value in proven.items():
        click.echo(f"{name} {value}")
    for value in hashes:
        click.echo(value)
