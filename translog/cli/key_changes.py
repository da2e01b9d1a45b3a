"""What `translog keys add` and `translog keys retire` do: they ask the running log, over its admin listener.

Rules: the address comes from DIR/translog.toml and the environment, as the log has it; what was not answered may have been done
all the same, and is said so.
"""

import asyncio
import getpass
import json
from pathlib import Path
from typing import Any

import click

from translog.client.transport import Transport, has_not_written
from translog.config import read_settings
from translog.core.keys import VKey, parse_vkey
from translog.core.wire import printable
from translog.errors import MalformedError, RemoteError, SettingsError

_TIMEOUT_MS = 120_000
"""The log waits for its witnesses before it answers."""
_ANSWER_BYTES_MAX = 64 * 1024
_TRIES_MAX = 20
_WAIT_MS = 500


def add_key(directory: Path, *, kind: str, operator: str | None, as_json: bool) -> None:
    """Adds a key and says what comes next. Raises SettingsError, RemoteError."""
    answer = _ask(directory, "keys", json.dumps({"type": kind}).encode(), operator)
    vkey = _vkey_of(answer)
    if as_json:
        click.echo(json.dumps({"ok": True, **answer}))
        return
    click.echo(str(vkey))
    also = f"the log signs with {vkey.key_id.hex()} ({vkey.type.label}) as well"
    _say(f"{also}: change {answer['number']}, entry {answer['index']}")
    _say_published(answer)
    need = "the witnesses' operators need the vkey above before another is retired"
    _say(f"back up {directory / 'keys'}: it has one more file; {need}")


def retire_key(directory: Path, *, key_id: str, operator: str | None, as_json: bool) -> None:
    """Retires a key and says what comes next. Raises SettingsError, RemoteError."""
    if len(key_id) != 8 or set(key_id) - set("0123456789abcdef"):
        raise click.UsageError("a key's ID has 8 hex digits: they are the middle part of its vkey")
    answer = _ask(directory, f"keys/{key_id}/retire", b"", operator)
    vkey = _vkey_of(answer)
    if as_json:
        click.echo(json.dumps({"ok": True, **answer}))
        return
    done = f"retired {vkey.key_id.hex()} ({vkey.type.label})"
    click.echo(printable(f"{done}: change {answer['number']}, entry {answer['index']}"))
    _say_published(answer)
    _say("have the witnesses' operators drop it, and the members run `translog policy update`: until then they believe it")
    _say("destroy its backups")


def _ask(directory: Path, path: str, body: bytes, operator: str | None) -> dict[str, Any]:
    address = read_settings(directory).server.admin_listen
    if not address:
        raise SettingsError(
            f"the log in {directory} has no admin listener, and its keys are changed over that",
            hint="set server.admin_listen and start the log anew",
            code="no-admin-listener",
        )
    try:
        who = operator or getpass.getuser()
    except (KeyError, OSError):
        raise click.UsageError("nobody knows whom this program runs as: say it with --operator NAME") from None
    if not who.isprintable() or not who.strip():
        raise click.UsageError("the operator's name is empty, or has characters that cannot be shown")
    headers = {"Translog-Operator": who, "Content-Type": "application/json"}

    async def ask() -> bytes:
        async with Transport(f"http://{address}", timeout_ms=_TIMEOUT_MS) as transport:
            for left in reversed(range(_TRIES_MAX)):
                try:
                    return (await transport.post_once(path, body, headers=headers, bytes_max=_ANSWER_BYTES_MAX)).body
                except RemoteError as error:  # after its start a log reads which keys it has
                    if not left or not has_not_written(error):
                        raise
                    await asyncio.sleep(min(error.retry_after_ms or _WAIT_MS, _WAIT_MS) / 1000)
            raise RemoteError("unreachable")

    try:
        answer = json.loads(asyncio.run(ask()))
        if isinstance(answer, dict) and {"vkey", "number", "index", "published"} <= answer.keys():
            return answer
    except RemoteError as error:
        if error.code == "outcome-unknown":
            error.hint = f"`translog keys show {directory}` tells, once the log answers again"
        raise
    except (ValueError, RecursionError):
        pass
    raise RemoteError(f"{address} does not answer as a translog's admin listener does", hint="is server.admin_listen right?")


def _vkey_of(answer: dict[str, Any]) -> VKey:
    try:
        return parse_vkey(str(answer["vkey"]))
    except MalformedError as error:
        raise RemoteError(f"the log answers with no key: {error.detail}") from None


def _say_published(answer: dict[str, Any]) -> None:
    if not answer["published"]:
        _say(
            "no checkpoint signed after it is published yet: too few witnesses cosign; `GET /v1/log` says who does not and why"
        )


def _say(sentence: str) -> None:
    click.echo(printable(sentence), err=True)
