"""`translog doctor`: a sender's configuration, ready to paste, and a test event followed from its endpoint to its proof.

Rules: the token is read and sent, never printed; every step says what was seen, and the first that fails ends it; the event is
an ordinary one and stays in the log. What is verified is verified here: receipt and evidence, under the log's own keys or the
policy given.
"""

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from translog.cli.options import json_option, log_option, policy_option, read_token, token_option
from translog.cli.senders import SENDERS, Sender, body_of, configure, stream_option
from translog.core.wire import printable
from translog.errors import RemoteError, TranslogError, VerificationError

if TYPE_CHECKING:
    from translog.client.submit import Submitter
    from translog.client.transport import Transport
    from translog.core.policy import Policy

DEFAULT_TOKEN_FILE = "/etc/translog/token"  # noqa: S105  # a path
BASE_EVENT = "base-event"
"""Code for a test event that the log has taken, and not understood."""
_LOOKED_AT_MAX = 1_000
"""How many of the newest entries are searched for an event whose sender is not told its index."""
_PATIENCE_S = 20.0


@dataclass(slots=True)
class _Steps:
    """What was seen, told as it goes."""

    aloud: bool
    done: list[dict[str, Any]] = field(default_factory=list)
    now: str = ""

    def begin(self, step: str) -> None:
        self.now = step

    def tell(self, detail: str, **more: Any) -> None:
        self.done.append({"step": self.now, "detail": detail, **more})
        if self.aloud:
            click.echo(f"ok  {self.now}: {printable(detail)}")


@click.command()
@click.option("--source", type=click.Choice(sorted(SENDERS)), required=True, help="The kind of sender.")
@log_option
@stream_option
@click.option("--send/--no-send", default=True, help="Send a test event and follow it to its receipt, or only print.")
@policy_option
@token_option
@json_option
def command(
    source: str,
    log: str,
    stream: str | None,
    send: bool,
    policy_file: Path | None,
    token_file: Path | None,
    as_json: bool,
) -> int:
    """Print a sender's configuration, send a test event in its format, and follow it to its verified receipt."""
    from translog.cli.main import exit_code_of, fail

    sender = SENDERS[source]
    named = stream or source
    token = read_token(token_file)
    configuration = configure(sender, url=log, stream=named, token_file=str(token_file or DEFAULT_TOKEN_FILE))
    steps = _Steps(aloud=not as_json)
    if not as_json:
        click.echo(configuration)
    if send:
        check = _Check(sender, log, stream if sender.stream_header else named, token, policy_file, steps)
        try:
            asyncio.run(check.run())
        except TranslogError as error:
            more = {"configuration": configuration, "steps": steps.done, "failed": steps.now}
            return fail(error.code, f"{steps.now}: {error.detail}", error.hint, exit_code_of(error), **more)
    if as_json:
        click.echo(json.dumps({"ok": True, "configuration": configuration, "steps": steps.done}))
    return 0


class _Check:
    """One test event on its way."""

    def __init__(
        self, sender: Sender, url: str, stream: str | None, token: str | None, policy_file: Path | None, steps: _Steps
    ) -> None:
        self._sender = sender
        self._url = url
        self._stream = stream
        self._token = token
        self._policy_file = policy_file
        self._steps = steps
        self._uid = str(uuid.uuid4())

    async def run(self) -> None:
        """Raises TranslogError for the step that failed."""
        from translog.cli.trust import choose_policy
        from translog.client.submit import Submitter
        from translog.client.transport import Transport

        steps = self._steps
        async with Submitter(self._url, token=self._token) as submitter, Transport(self._url, token=self._token) as transport:
            steps.begin("reachable")
            info = await submitter.info()
            steps.tell(f"{info.origin}, {info.integrated_size} entries, {info.published_size} of them published")
            policy = await choose_policy(self._policy_file, submitter)
            steps.begin("accepted")
            answer = await self._post(transport)
            if self._sender.answers_index:
                index = _index_of(answer, self._url)
                steps.tell(f"entry {index}", index=index)
            else:
                steps.tell("the credentials and the record are accepted; its sender is not told where it is")
                steps.begin("found")
                index = await self._find(submitter, transport, info.integrated_size)
                steps.tell(f"entry {index}", index=index)
            await self._prove(submitter, transport, policy, index)

    async def _post(self, transport: "Transport") -> bytes:
        from translog.client.delivery import Backoff, may_repeat_without_ids, persist

        headers = {"Content-Type": self._sender.media}
        if self._sender.stream_header and self._stream is not None:
            headers["Translog-Stream"] = self._stream
        path = self._sender.path.replace("@STREAM@", self._stream or "")
        body = body_of(self._sender, self._uid, datetime.now(UTC))

        async def attempt() -> bytes:
            return (await transport.post_once(path, body, headers=headers, bytes_max=1024 * 1024)).body

        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        try:
            return await persist(attempt, backoff=Backoff(), deadline=deadline, repeatable=may_repeat_without_ids)
        except RemoteError as error:
            if error.status in (401, 403) and not error.hint:
                error.hint = "give --token-file FILE with a token of a member that may append to this stream"
            raise

    async def _find(self, submitter: "Submitter", transport: "Transport", start: int) -> int:
        """The entry of the test event, among those added since. Raises RemoteError."""
        from translog.client.submit import NOT_PUBLISHED, wait_published
        from translog.events.disclosure import EVIDENCE_BYTES_MAX
        from translog.events.entry import EVENT, entry_kind

        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        end = (await submitter.info()).integrated_size
        position = max(start, end - _LOOKED_AT_MAX)
        while position < end:
            entries = await submitter.entries(start=position, end=end)
            for index, entry in enumerate(entries, start=position):
                if entry_kind(entry) != EVENT:
                    continue
                try:
                    ask = partial(transport.get, f"v1/events/{index}", bytes_max=EVIDENCE_BYTES_MAX)
                    event = await wait_published(ask, deadline=deadline)
                except RemoteError as error:
                    if error.code == NOT_PUBLISHED or error.status not in (401, 403, 404):
                        raise
                    continue  # another member's
                if self._uid.encode() in event:
                    return index
            position += len(entries)
        raise RemoteError(
            f"the record was accepted, but none of the {end - start} entries since is it, as far as these credentials may read",
            hint="a token of a member with the right to read its own events is needed to follow it",
            code="not-found",
        )

    async def _prove(self, submitter: "Submitter", transport: "Transport", policy: "Policy", index: int) -> None:
        from translog.client.submit import NOT_PUBLISHED
        from translog.core.policy import verify_checkpoint
        from translog.core.proof import parse_receipt
        from translog.events.disclosure import EVIDENCE_BYTES_MAX, parse_evidence, verify_evidence

        steps = self._steps
        steps.begin("published")
        (entry,) = await submitter.entries(start=index, end=index + 1)
        (appended,) = await submitter.prove({index: entry}, policy)
        if appended.receipt is None:
            raise RemoteError(
                "the event is logged, but not in a checkpoint yet", hint="is the log signing?", code=NOT_PUBLISHED
            )
        head = verify_checkpoint(parse_receipt(appended.receipt).checkpoint, policy).checkpoint
        steps.tell(f"in the checkpoint of size {head.size}", size=head.size)
        steps.begin("receipt")
        steps.tell("it verifies under " + ("the policy given" if self._policy_file else "the log's own keys"))
        steps.begin("evidence")
        try:
            data = await transport.get(f"v1/events/{index}/evidence", bytes_max=EVIDENCE_BYTES_MAX)
        except RemoteError as error:
            if error.status not in (401, 403):
                raise
            steps.tell("not checked: these credentials may append, and not read what was logged", checked=False)
            return
        verified = verify_evidence(parse_evidence(data), policy)
        if verified.index != index or self._uid not in json.dumps(dict(verified.shown), ensure_ascii=False):
            raise VerificationError(f"entry {index} is not the test event", hint="the log answers for another event")
        error_said = verified.shown.get("fed", {}).get("error")
        if error_said:
            raise VerificationError(f"the log did not understand the test event: {error_said}", code=BASE_EVENT)
        where = f"{verified.entry.member}/{verified.entry.stream}"
        steps.tell(f"the log has the test event as it was sent, in {where}, number {verified.entry.seq}", stream=where)


def _index_of(answer: bytes, url: str) -> int:
    """The index of the only result. Raises RemoteError, and VerificationError for a record that was not understood."""
    try:
        (result,) = json.loads(answer)["results"]
        index, error = result["index"], result.get("error")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        index, error = None, None
    if type(index) is not int or index < 0:
        raise RemoteError(f"{url} does not answer as a translog does", hint="is the URL right, without a path?")
    if error:
        said = printable(str(error)[:500])
        raise VerificationError(f"entry {index}, but the log did not understand it: {said}", code=BASE_EVENT)
    return index
