"""Builds golog, k8saudit and Tessera's tools once a session, and serves logs to them.

Rules: without Go, or without the modules that are needed, tests skip; with TRANSLOG_REQUIRE_INTEROP=1 they fail instead. What
does not compile is always a failure.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import pytest

from .static_log import StaticLog, make_log
from .tessera_tools import TOOL_PACKAGES, Tessera
from .witness_programs import LITEWITNESS_PACKAGE, OMNIWITNESS_PACKAGE, copy_module

GOLOG_SOURCE = Path(__file__).parent / "golog"
K8S_SOURCE = Path(__file__).parent / "k8s"
TESSERA_SOURCE = Path(__file__).parent / "tessera"
TORCHWOOD_SOURCE = Path(__file__).parent / "torchwood"
OMNIWITNESS_SOURCE = Path(__file__).parent / "omniwitness"
PORTS = range(24_000, 24_100)
"""Below the range from which the system takes the ports of outgoing connections."""

Answer = Callable[[str], bytes | None]
"""From a path and query under a log's prefix to a body, or None for 404."""


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("TRANSLOG_REQUIRE_INTEROP") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _go(source: Path) -> str:
    """The go command, once the modules that `source` needs are there."""
    go = shutil.which("go")
    if go is None:
        _unavailable("there is no go on PATH")
    download = subprocess.run([go, "mod", "download"], cwd=source, capture_output=True, text=True, check=False)
    if download.returncode:
        _unavailable(f"go mod download failed: {download.stderr}")
    return go


def _build(source: Path, command: list[str]) -> None:
    build = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr


@pytest.fixture(scope="session")
def golog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    go = _go(GOLOG_SOURCE)
    binary = tmp_path_factory.mktemp("golog") / "golog"
    _build(GOLOG_SOURCE, [go, "build", "-buildvcs=false", "-o", str(binary), "."])
    return binary


@pytest.fixture(scope="session")
def k8saudit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled program."""
    go = _go(K8S_SOURCE)
    binary = tmp_path_factory.mktemp("k8saudit") / "k8saudit"
    _build(K8S_SOURCE, [go, "build", "-buildvcs=false", "-o", str(binary), "."])
    return binary


@pytest.fixture(scope="session")
def tessera(tmp_path_factory: pytest.TempPathFactory) -> Tessera:
    """Tessera's programs, compiled from the release that tessera/go.mod pins."""
    go = _go(TESSERA_SOURCE)
    folder = tmp_path_factory.mktemp("tessera")
    _build(TESSERA_SOURCE, [go, "build", "-buildvcs=false", "-o", f"{folder}/", ".", *TOOL_PACKAGES])
    integration = "github.com/transparency-dev/tessera/integration"
    _build(TESSERA_SOURCE, [go, "test", "-buildvcs=false", "-c", "-o", str(folder / "integration.test"), integration])
    return Tessera(folder)


@pytest.fixture(scope="session")
def litewitness_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """litewitness, compiled from the release of torchwood that torchwood/go.mod pins. It needs an ssh-agent."""
    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        _unavailable("there is no ssh-agent on PATH")
    go = _go(TORCHWOOD_SOURCE)
    binary = tmp_path_factory.mktemp("torchwood") / "litewitness"
    _build(TORCHWOOD_SOURCE, [go, "build", "-buildvcs=false", "-o", str(binary), LITEWITNESS_PACKAGE])
    return binary


@pytest.fixture(scope="session")
def omniwitness_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The omniwitness, compiled from the version that omniwitness/go.mod pins.

    It asks for a function that no release of its Merkle library has, and which it does not use: a copy of the library gets it.
    """
    go = _go(OMNIWITNESS_SOURCE)
    folder = tmp_path_factory.mktemp("omniwitness")
    merkle = "github.com/transparency-dev/merkle"
    found = subprocess.run(
        [go, "list", "-m", "-f", "{{.Dir}}", merkle], cwd=OMNIWITNESS_SOURCE, capture_output=True, text=True, check=True
    )
    copy_module(Path(found.stdout.strip()), folder / "merkle")
    shutil.copy(OMNIWITNESS_SOURCE / "proof" / "subtree.go", folder / "merkle" / "proof")
    for name in ("go.mod", "go.sum"):
        shutil.copy(OMNIWITNESS_SOURCE / name, folder)
    _build(folder, [go, "mod", "edit", "-replace", f"{merkle}={folder / 'merkle'}"])
    binary = folder / "omniwitness"
    options = ["-buildvcs=false", "-trimpath", f"-modfile={folder / 'go.mod'}"]  # trimmed, what was built before is found again
    _build(OMNIWITNESS_SOURCE, [go, "build", *options, "-o", str(binary), OMNIWITNESS_PACKAGE])
    return binary


class RunGolog(Protocol):
    """Verifies the log under `url`; see the top of golog/main.go. `old`, `receipt` and `entry` are files."""

    def __call__(
        self,
        url: str,
        vkey: str,
        *,
        old: Path | None = None,
        receipt: Path | None = None,
        entry: Path | None = None,
        proofs: bool = True,
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def run_golog(golog: Path) -> RunGolog:
    def run(
        url: str,
        vkey: str,
        *,
        old: Path | None = None,
        receipt: Path | None = None,
        entry: Path | None = None,
        proofs: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        command = [str(golog), "-url", url, "-vkey", vkey, f"-proofs={str(proofs).lower()}"]
        for option, file in (("-old", old), ("-receipt", receipt), ("-entry", entry)):
            if file is not None:
                command += [option, str(file)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


def damaged(log: StaticLog, path: str, change: Callable[[bytes], bytes | None]) -> Answer:
    """The log with one answer changed, or gone."""

    def answer(target: str) -> bytes | None:
        body = log.answer(target)
        return change(body) if body is not None and target == path else body

    return answer


class Site:
    """A web server with one log under each prefix it has handed out."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []
        self.port = 0

    def add(self, answer: Answer) -> str:
        """The URL under which `answer` is asked from now on."""
        self._answers.append(answer)
        return f"http://127.0.0.1:{self.port}/{len(self._answers) - 1}"

    def answer(self, target: str) -> bytes | None:
        prefix, _, rest = target.removeprefix("/").partition("/")
        return self._answers[int(prefix)](rest)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints what went wrong here, not that a program hung up that was ended while it read."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _listen(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    for port in PORTS:
        try:
            return _Server(("127.0.0.1", port), handler)
        except OSError:
            continue
    pytest.fail(f"no free port from {PORTS.start} to {PORTS.stop - 1}")


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections open
        disable_nagle_algorithm = True  # or each answer waits 40 ms between head and body

        def do_GET(self) -> None:
            body = site.answer(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = _listen(Handler)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


class LogAddress(NamedTuple):
    """A log that golog can be pointed at, proofs included."""

    url: str
    vkey: str


@pytest.fixture
def static_log_address(site: Site) -> LogAddress:
    log = make_log(700)
    return LogAddress(site.add(log.answer), log.vkey)
