"""Programs that a measurement runs: started, watched, stopped, their processor time read.

Rules: loopback only; what was started is stopped, also when the measurement fails; no setting leaks in from the environment.
"""

import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

SCRIPTS = Path(__file__).resolve().parent.parent
START_S_MAX = 120.0
_STOP_S_MAX = 60.0
_POLL_S = 0.005


class UnavailableError(Exception):
    """A program or package that a row needs is not here; says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that runs: its process, where it listens, and how long it took until it said so (seconds)."""

    pid: int
    url: str
    started_s: float = 0.0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 0

    def cpu_s(self) -> float:
        """User and system time the process has taken, all threads, in seconds; in steps of 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def environment(**more: str) -> dict[str, str]:
    """The environment for a child: without anybody's settings, and with the path to this package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRANSLOG_")}
    return kept | {"PYTHONPATH": str(SCRIPTS)} | more


def run_program(command: Sequence[str | Path], *, timeout_s: float = 3_600, env: Mapping[str, str] | None = None) -> str:
    """Its standard output. Raises RuntimeError with what it said if it fails."""
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, timeout=timeout_s, env=env or environment()
    )
    if done.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} exits {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout


def run_module(module: str, *arguments: object) -> str:
    """Standard output of a module of this package, in an interpreter of its own."""
    return run_program([sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)])


def command_of_module(module: str, *arguments: object) -> list[str]:
    """The command for `running`."""
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


@contextmanager
def running(
    command: Sequence[str | Path], *, log: Path, url: str = "", env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server until the end of the block. Its address is `url`, reached as soon as it takes connections, or else what it
    prints as `serving ... on URL`. Its output goes to `log`. Raises RuntimeError if it does not come up."""
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env or environment())  # noqa: S603
    try:
        found = _wait_until_up(process, log, url)
        yield Server(pid=process.pid, url=found, started_s=time.perf_counter() - begin)
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(process: "subprocess.Popen[bytes]", log: Path, url: str) -> str:
    give_up = time.monotonic() + START_S_MAX
    while time.monotonic() < give_up and process.poll() is None:
        if url:
            with suppress(OSError), socket.create_connection(Server(pid=0, url=url).address, timeout=1):
                return url
        elif match := re.search(r"^serving .+ on (http://\S+)$", log.read_text("utf-8", "replace"), re.MULTILINE):
            return match[1]
        time.sleep(_POLL_S)
    raise RuntimeError(f"{Path(str(process.args[0])).name} did not start: {log.read_text('utf-8', 'replace')[-400:]}")  # type: ignore[index]


def serve_log(directory: Path, *, admin: str = "", **settings: str) -> AbstractContextManager[Server]:
    """`translog serve` on the log in `directory`, on a free port of loopback; `settings` are environment variables."""
    command = [sys.executable, "-m", "translog", "serve", str(directory), "--listen", "127.0.0.1:0", "--admin-listen", admin]
    return running(command, log=directory.with_name(directory.name + ".serve.log"), env=environment(**settings))


def free_port() -> int:
    """A port of loopback that nobody listens on, below those the system hands out."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
