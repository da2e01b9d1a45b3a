"""A log of ours in a process of its own, which publishes once witnesses have cosigned.

Rules: what it is asked is asked over HTTP, as its users do; what it hands out is verified under the policy that it states,
whose witnesses are compared with those that were asked for.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from translog.bootstrap import create_log
from translog.client.submit import Appended, Submitter
from translog.core.keys import KeyType, VKey
from translog.core.policy import Policy, VerifiedCheckpoint, parse_policy, verify_checkpoint
from translog.storage.store import Profile

from .translog_command import run_translog
from .witness_programs import Asker

_PATIENCE_S = 30.0
_SETTINGS = """
[log.witnessing]
policy_file = "policy"
without_quorum = "hold"
min_interval_ms = 50
backoff_ms_max = 500
quorum_timeout_ms = 2000
"""


class WitnessedLog:
    """A log of any entries in `folder`, whose publication policy `ask_for` writes."""

    def __init__(self, folder: Path, *, origin: str) -> None:
        self.directory = folder / "log"
        self._vkeys = create_log(self.directory, origin=origin, profile=Profile.OPAQUE)
        with (self.directory / "translog.toml").open("a") as settings:
            settings.write(_SETTINGS)

    def vkey(self, key_type: KeyType) -> VKey:
        return next(vkey for vkey in self._vkeys if vkey.type is key_type)

    def ask_for(self, policy: str) -> None:
        (self.directory / "policy").write_text(policy)

    @contextmanager
    def served(self) -> Iterator["Served"]:
        """The log until the end of the block, where it is told to stop."""
        command = [sys.executable, "-m", "translog", "serve", str(self.directory)]
        command += ["--listen", "127.0.0.1:0", "--admin-listen", ""]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"serving \S+ on (http://\S+)", line):
                    with closing(Served(found[1])) as served:
                        yield served
                    break
            else:
                pytest.fail(f"the log did not start: {said}")
        finally:
            process.terminate()
            process.communicate(timeout=_PATIENCE_S)
        assert process.returncode == 0


class Served:
    """The log while it is served at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._asker = Asker(url)

    def close(self) -> None:
        self._asker.close()

    @property
    def says(self) -> dict[str, Any]:
        """What it says of itself."""
        document: dict[str, Any] = json.loads(self._asker.ask("GET", "v1/log").body)
        return document

    @property
    def policy(self) -> Policy:
        """The policy that it asks to be trusted under."""
        return parse_policy(self.says["policy"].encode())

    @property
    def note(self) -> bytes:
        """Its newest checkpoint."""
        return self._asker.ask("GET", "checkpoint").body

    @property
    def checkpoint(self) -> VerifiedCheckpoint:
        """The same, which that policy accepts."""
        return verify_checkpoint(self.note, self.policy)

    def append(self, entries: Sequence[bytes]) -> list[Appended]:
        """Adds entries; waits for their receipts, which that policy accepts."""

        async def append() -> list[Appended]:
            async with Submitter(self.url) as submitter:
                return await submitter.append(entries, self.policy)

        return asyncio.run(append())

    def append_only(self, entry: bytes) -> None:
        """Adds an entry, and waits for nothing but that it is committed."""
        assert self._asker.ask("POST", "add?ack=durable", entry).status == 202

    def await_that(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What it says of itself, once that is so."""
        deadline = time.monotonic() + _PATIENCE_S
        while not holds(said := self.says):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        return said


def verify_with_command(receipt: bytes, entry: bytes, policy: str, folder: Path) -> int:
    """The status of `translog verify`."""
    for name, content in (("receipt", receipt), ("entry", entry), ("policy", policy.encode())):
        (folder / name).write_bytes(content)
    options = ["--policy", str(folder / "policy"), "--entry", str(folder / "entry")]
    return run_translog("verify", str(folder / "receipt"), *options).returncode
