"""`translog prove`: inclusion and consistency proofs of any tlog-tiles log, made from verified tiles."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from translog.cli.options import JSON_OPTION, LOG_OPTION, POLICY_OPTION, command_app
from translog.core.wire import encode_base64

if TYPE_CHECKING:
    from translog.client.remote import RemoteLog

app = command_app(no_args_is_help=True)


@app.command()
def inclusion(
    index: Annotated[int, typer.Argument(min=0, metavar="INDEX", help="The entry's index.")],
    log: LOG_OPTION,
    size: Annotated[int | None, typer.Option(min=1, help="The tree size to prove in; the newest by default.")] = None,
    policy: POLICY_OPTION = None,
    as_json: JSON_OPTION = False,
) -> None:
    """Prove that an entry is in the log: hashes from the leaf's sibling up."""

    async def prove(remote: "RemoteLog") -> dict[str, Any]:
        at = remote.latest.checkpoint.size if size is None else size
        proof = await remote.prove_inclusion(index=index, size=at)
        return {"index": index, "size": at, "root": encode_base64(await remote.root(at)), "proof": proof}

    _show(_with_log(log, policy, prove), as_json=as_json)


@app.command()
def consistency(
    old: Annotated[int, typer.Argument(min=1, metavar="OLD", help="The older tree size.")],
    log: LOG_OPTION,
    new: Annotated[int | None, typer.Argument(min=1, metavar="[NEW]", help="The newer one; the newest by default.")] = None,
    policy: POLICY_OPTION = None,
    as_json: JSON_OPTION = False,
) -> None:
    """Prove that the tree of size OLD is a prefix of the tree of size NEW."""

    async def prove(remote: "RemoteLog") -> dict[str, Any]:
        at = remote.latest.checkpoint.size if new is None else new
        proof = await remote.prove_consistency(old=old, new=at)
        roots = {"old_root": encode_base64(await remote.root(old)), "new_root": encode_base64(await remote.root(at))}
        return {"old": old, "new": at, **roots, "proof": proof}

    _show(_with_log(log, policy, prove), as_json=as_json)


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
        typer.echo(json.dumps({"ok": True, **proven, "proof": hashes}))
        return
    for name, value in proven.items():
        typer.echo(f"{name} {value}")
    for value in hashes:
        typer.echo(value)
