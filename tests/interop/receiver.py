"""A receiver for other people's senders: it answers as planned, or passes requests on to a log, and keeps what came.

Rules: the n-th request gets the n-th answer of the plan, and every later one the last. A request is kept before it is answered.
PASS is the log's own answer; Answer(lost=True) hangs up in place of an answer, after the log, if there is one, got the request.
"""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

PORTS = range(24_100, 24_300)
"""Below the range from which the system takes the ports of outgoing connections."""
_HOP = {"connection", "content-length", "date", "host", "server", "transfer-encoding"}
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request is answered, after `delay_s`."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    lost: bool = False


PASS: Final = Answer(status=0)
"""The answer of the log that the receiver passes requests on to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request, the monotonic time at which it was whole, and what the log answered, if it was passed on."""

    at_s: float
    path: str
    headers: Mapping[str, str]
    body: bytes
    passed_on: Answer | None = None


class Receiver:
    """What came so far, in the order in which it came."""

    def __init__(self, plan: Sequence[Answer], log: str, trust: ssl.SSLContext | None) -> None:
        self.url = ""
        self.received: list[Received] = []
        self._plan = plan
        self._log = urlsplit(log)
        self._trust = trust
        self._mutex = threading.Lock()
        self._begun = 0

    def batches(self) -> list[list[Received]]:
        """The attempts at each body, in order."""
        found: dict[bytes, list[Received]] = {}
        for request in self.received:
            found.setdefault(request.body, []).append(request)
        return list(found.values())

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """What to answer."""
        at_s = time.monotonic()
        with self._mutex:
            planned = self._plan[min(self._begun, len(self._plan) - 1)]
            self._begun += 1
        answer = planned
        passed_on = None
        if self._log.netloc and (planned is PASS or planned.lost):
            passed_on = answer = self._pass_on(path, headers, body)
        with self._mutex:
            self.received.append(Received(at_s=at_s, path=path, headers=headers, body=body, passed_on=passed_on))
        time.sleep(planned.delay_s)
        return planned if planned.lost else answer

    def _pass_on(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        assert self._log.hostname is not None
        connection = http.client.HTTPSConnection(self._log.hostname, self._log.port, timeout=_PATIENCE_S, context=self._trust)
        try:
            connection.request("POST", path, body, {name: value for name, value in headers.items() if name.lower() not in _HOP})
            response = connection.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in _HOP}
            return Answer(status=response.status, headers=kept, body=response.read())
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open
    disable_nagle_algorithm = True  # or each answer waits 40 ms between head and body
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        answer = self.receiver.take(self.path, dict(self.headers), body)
        if answer.lost:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a connection that is kept open would be waited for
    context: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Makes the TLS connection in the thread of the request, so that nobody waits for anybody's handshake."""
        if self.context is not None:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)
        if self.context is not None:
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: senders hang up when they have waited long enough."""


def free_port() -> int:
    """A port that nobody listens on."""
    for port in reversed(PORTS):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail(f"no free port from {PORTS.start} to {PORTS.stop - 1}")


@contextmanager
def receiving(
    plan: Sequence[Answer] = (Answer(),),
    *,
    context: ssl.SSLContext | None = None,
    log: str = "",
    trust: ssl.SSLContext | None = None,
) -> Iterator[Receiver]:
    """A receiver that listens until the end of the block, with TLS where there is a `context`; `log` is the URL of a log that
    `trust` trusts."""
    receiver = Receiver(plan, log, trust)
    handler = type("Handler", (_Handler,), {"receiver": receiver})
    for port in PORTS:
        try:
            server = _Server(("127.0.0.1", port), handler)
            break
        except OSError:
            continue
    else:
        pytest.fail(f"no free port from {PORTS.start} to {PORTS.stop - 1}")
    server.context = context
    receiver.url = f"{'http' if context is None else 'https'}://127.0.0.1:{port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
