"""A log of audit events with one member, served by a process of its own over TLS, and read back over HTTP.

Rules: what is read back is what the log has, every entry in order; so a test sees what came twice.
"""

import json
import re
import signal
import ssl
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from hashlib import sha256
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from server.certificates import Authority

from translog.bootstrap import create_log
from translog.storage.store import Profile

MEMBER = "acme"
TOKEN = "translog-interop-token"
_PATIENCE_S = 60


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body.decode()}")
        self.status = status


class ServedLog:
    """The log while it is served at `url`; what is asked is asked by its member, over one connection."""

    def __init__(self, url: str, trust: ssl.SSLContext) -> None:
        self.url = url
        address = urlsplit(url)
        assert address.hostname is not None
        self._connection = HTTPSConnection(address.hostname, address.port, timeout=_PATIENCE_S, context=trust)
        self._published = 0

    def close(self) -> None:
        self._connection.close()

    def ask(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """What a GET, or a POST of `body`, is answered: JSON. Raises RefusedError."""
        method = "GET" if body is None else "POST"
        self._connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}", **(headers or {})})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RefusedError(response.status, answer)
        return json.loads(answer)

    def events(self, stream: str) -> list[dict[str, Any]]:
        """Every event of the member's stream, in order, once all that is committed is published."""
        return [self.event(index) for index in self._indexes(stream, self.ask("/v1/log")["integrated_size"])]

    def event(self, index: int) -> dict[str, Any]:
        """One of the member's events, once it is published."""
        self._await_published(index + 1)
        event: dict[str, Any] = self.ask(f"/v1/events/{index}")["event"]
        return event

    def _await_published(self, size: int) -> None:
        while self._published < size:
            self._published = self.ask("/v1/log")["published_size"]

    def _indexes(self, stream: str, size: int) -> list[int]:
        """The indexes of a stream's entries below `size`; the log has entries of its own too."""
        self._await_published(size)
        found: list[int] = []
        start = 0
        while start < size:
            answer = self.ask(f"/v1/entries?start={start}&end={size}")
            for index, encoded in enumerate(answer["entries"], start):
                entry = json.loads(b64decode(encoded))
                if (entry["member"], entry["stream"]) == (MEMBER, stream):
                    found.append(index)
            start = answer["end"]
        return found


class EventsLog:
    """The log. Its member writes to any stream and reads its own events.

    `authority` is the file, and `trust` the context, of who trusts its certificate; `context` is for one who stands in for it.
    """

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "log"
        create_log(self.directory, origin="log.example/events", profile=Profile.EVENTS)
        authority = Authority("senders trust this")
        self.authority = folder / "authority.pem"
        self.authority.write_bytes(authority.pem)
        self.trust = authority.client()
        cert, key = authority.issue().write(folder, "log")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        with (self.directory / "translog.toml").open("a") as settings:
            settings.write(f'\n[server.tls]\ncert = "{cert}"\nkey = "{key}"\n')
            settings.write(f'\n[[members]]\nname = "{MEMBER}"\ntoken_sha256 = "{sha256(TOKEN.encode()).hexdigest()}"\n')
            settings.write('streams = ["default", "*"]\nreads = "own"\n')

    @contextmanager
    def serving(self, *, port: int = 0, killed: bool = False) -> Iterator[ServedLog]:
        """The log until the end of the block, where it is told to stop, or killed."""
        command = [sys.executable, "-m", "translog", "serve", str(self.directory)]
        command += ["--listen", f"127.0.0.1:{port}", "--admin-listen", ""]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"serving \S+ on (https://\S+)", line):
                    with closing(ServedLog(found[1], self.trust)) as served:
                        yield served
                    break
            else:
                pytest.fail(f"the log did not start: {said}")
        finally:
            process.kill() if killed else process.terminate()
            process.communicate(timeout=30)
        assert process.returncode == (-signal.SIGKILL if killed else 0)
