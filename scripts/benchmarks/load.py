"""The load on a server: wrk for many connections, a plain socket for one client that waits for every answer.

Rules: an answer that is an error is no figure: it raises; the same tool with the same connections loads ours and the floor.
"""

import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Server, UnavailableError, run_program

_SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What came of a load: requests answered, seconds, processor seconds of the server, 99th percentile of the wait (ms)."""

    requests: int
    seconds: float
    cpu_s: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Server's processor time for one request."""
        return 1_000 * self.cpu_s / self.requests

    @property
    def rate_per_core(self) -> float:
        """Requests per second of the server's processor time."""
        return self.requests / self.cpu_s if self.cpu_s else float("nan")


def find_wrk() -> Path:
    """Raises UnavailableError."""
    found = shutil.which("wrk")
    if found is None:
        raise UnavailableError("wrk is not installed (Debian and Ubuntu: apt-get install wrk)")
    return Path(found)


def post_load(server: Server, path: str, body: Path, *, content_type: str, connections: int, seconds: int) -> Load:
    """The same body to one path. Raises UnavailableError, RuntimeError for any answer that is an error."""
    return _load(server, path, ["post", content_type, str(body)], connections=connections, seconds=seconds)


def get_load(server: Server, paths: Path, *, connections: int, seconds: int) -> Load:
    """The paths of a file, one a line, in turn. Raises UnavailableError, RuntimeError for any answer that is an error."""
    return _load(server, "/", ["paths", str(paths)], connections=connections, seconds=seconds)


def _load(server: Server, path: str, arguments: Sequence[str], *, connections: int, seconds: int) -> Load:
    command: list[str | Path] = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", _SCRIPT]
    before = server.cpu_s()
    output = run_program([*command, server.url + path, "--", *arguments], timeout_s=seconds + 120)
    cpu_s = server.cpu_s() - before
    found = next(line for line in output.splitlines() if line.startswith("FIGURES ")).split()[1:]
    requests, duration_us, refused, broken, p99_us = map(int, found)
    if refused or broken or not requests:
        raise RuntimeError(f"{path}: of {requests} answers {refused} were errors, and {broken} connections or waits broke")
    return Load(requests=requests, seconds=duration_us / 1e6, cpu_s=cpu_s, p99_ms=p99_us / 1_000)


def lone_posts(server: Server, path: str, body: bytes, *, count: int) -> list[float]:
    """Seconds that each of `count` POSTs took, one after the other on one connection. Raises RuntimeError unless all are
    answered 200."""
    with Connection(server) as connection:
        return [connection.request("POST", path, body) for _ in range(count)]


class Connection:
    """One client that waits for every answer."""

    def __init__(self, server: Server) -> None:
        self._host = f"{server.address[0]}:{server.address[1]}"
        self._socket = socket.create_connection(server.address, timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def request(self, method: str, path: str, body: bytes = b"", *, content_type: str = "") -> float:
        """The seconds until the whole answer was there. Raises RuntimeError unless it is 200."""
        about = f"Content-Type: {content_type}\r\n" if content_type else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{about}Content-Length: {len(body)}\r\n\r\n"
        request = head.encode() + body
        begin = time.perf_counter()
        self._socket.sendall(request)
        _read_answer(self._socket)
        return time.perf_counter() - begin


def _read_answer(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    if b" 200 " not in lines[0] + b" ":
        raise RuntimeError(f"answered {lines[0].decode()}")
    left = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")) - len(rest)
    while left > 0:
        left -= len(_receive(connection))


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65_536)
    if not data:
        raise RuntimeError("the server closed the connection")
    return data


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered)) - 1))]
