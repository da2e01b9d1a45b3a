"""Runs other people's witnesses: litewitness of torchwood, and the omniwitness.

Rules: each has a folder of its own, listens on loopback and is ended with its block; a second block goes on with what the first
has left in the folder, as after a restart. Their own tools for what they store are not used: what litewitness would be told
with witnessctl is written to its database.
"""

import base64
import hashlib
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from translog.core.keys import KeyType, SKey, VKey, format_skey
from translog.core.merkle import EMPTY_ROOT

LITEWITNESS_PACKAGE = "filippo.io/torchwood/cmd/litewitness"
OMNIWITNESS_PACKAGE = "github.com/transparency-dev/witness/cmd/omniwitness"
_PORTS = range(24_100, 24_900)
"""Below the range from which the system takes the ports of outgoing connections."""
_PATIENCE_S = 30.0
_LITEWITNESS_TABLES = """
    CREATE TABLE log (origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL);
    CREATE TABLE key (origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin));
    CREATE TABLE bastion (origin TEXT NOT NULL, bastion TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin));
"""


class Answer(NamedTuple):
    """What a witness answers; `media` is its content type, if it has one."""

    status: int
    media: str
    body: bytes


class Asker:
    """A connection to a witness's URL, kept alive while the witness lets it be."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._prefix = address.path.rstrip("/")
        self._connection = HTTPConnection(address.hostname, address.port, timeout=_PATIENCE_S)

    def close(self) -> None:
        self._connection.close()

    def add_checkpoint(self, body: bytes) -> Answer:
        return self.ask("POST", "add-checkpoint", body)

    def ask(self, method: str, path: str, body: bytes | None = None) -> Answer:
        self._connection.request(method, f"{self._prefix}/{path}", body)
        response = self._connection.getresponse()
        return Answer(response.status, response.getheader("Content-Type", ""), response.read())


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no free port from {_PORTS.start} to {_PORTS.stop - 1}")


@contextmanager
def _process(command: Sequence[str], *, log: Path, ended_by: int = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block; what it prints is added to the file `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(ended_by)
        try:
            process.wait(timeout=_PATIENCE_S)
        finally:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], address: str | tuple[str, int], *, log: Path) -> None:
    """Returns once something listens at `address`: a path, or host and port."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as probe:
            try:
                probe.connect(address)
                return
            except OSError:
                assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    raise AssertionError(f"nothing listens at {address}: {log.read_text()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Litewitness:
    """litewitness with an Ed25519 key, which it asks an ssh-agent for. `name` and `seed` make the key."""

    program: Path
    folder: Path
    name: str = "witness.example/lite"
    seed: bytes = bytes(range(96, 128))

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        return (SKey(name=self.name, type=KeyType.COSIGNATURE_ED25519, seed=self.seed).vkey,)

    @property
    def printed(self) -> Path:
        return self.folder / "printed"

    def know(self, logs: Iterable[VKey]) -> None:
        """Adds logs by their keys, as witnessctl's add-log and add-key do. Those of type 0x06 it cannot use."""
        fresh = not self._database.exists()
        with closing(sqlite3.connect(self._database)) as database, database:
            if fresh:
                database.executescript(_LITEWITNESS_TABLES)
            for vkey in logs:
                empty = base64.b64encode(EMPTY_ROOT).decode()
                database.execute("INSERT OR IGNORE INTO log VALUES (?, 0, ?)", (vkey.name, empty))
                database.execute("INSERT INTO key VALUES (?, ?)", (vkey.name, str(vkey)))

    @contextmanager
    def running(self, *, port: int = 0) -> Iterator[str]:
        """Its URL until the end of the block."""
        port = port or free_port()
        with ExitStack() as stack:
            short = Path(stack.enter_context(TemporaryDirectory()))  # the path of a socket has about a hundred characters
            agent = str(short / "agent")
            self._start_agent(stack, agent, short / "key")
            fingerprint = hashlib.sha256(self.vkeys[0].public_key).hexdigest()
            command = [str(self.program), "-name", self.name, "-db", str(self._database), "-ssh-agent", agent]
            command += ["-key", fingerprint, "-listen", f"127.0.0.1:{port}"]
            process = stack.enter_context(_process(command, log=self.printed, ended_by=signal.SIGINT))
            _await(process, ("127.0.0.1", port), log=self.printed)
            yield f"http://127.0.0.1:{port}"

    def _start_agent(self, stack: ExitStack, address: str, key: Path) -> None:
        process = stack.enter_context(_process(["ssh-agent", "-D", "-a", address], log=self.printed))
        _await(process, address, log=self.printed)
        private = Ed25519PrivateKey.from_private_bytes(self.seed)
        key.touch(mode=0o600)
        key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        environment = {**os.environ, "SSH_AUTH_SOCK": address}
        subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True, capture_output=True)

    @property
    def _database(self) -> Path:
        return self.folder / "litewitness.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Omniwitness:
    """The omniwitness with an Ed25519 and an ML-DSA-44 key under one name. `name` and `seed` make the keys.

    It knows one key of each log, of any type, and those of public logs that are built in; it asks none of them anything.
    """

    program: Path
    folder: Path
    name: str = "witness.example/omni"
    seed: bytes = bytes(range(128, 160))

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        return tuple(skey.vkey for skey in self._skeys)

    @property
    def printed(self) -> Path:
        return self.folder / "printed"

    def know(self, logs: Iterable[VKey]) -> None:
        """Adds logs, each by one of its keys."""
        with (self.folder / "logs.yaml").open("a") as file:
            if not file.tell():
                file.write("Logs:\n")
            for vkey in logs:
                file.write(f"  - Origin: {vkey.name}\n    PublicKey: {vkey}\n")

    @contextmanager
    def running(self, *, port: int = 0, requests_per_s: float = 0) -> Iterator[str]:
        """Its URL until the end of the block."""
        port = port or free_port()
        command = [str(self.program), "-listen", f"127.0.0.1:{port}", "-metrics_listen", "", "-logtostderr"]
        command += ["-db_file", str(self.folder / "state.db"), "-rate_limit", str(requests_per_s)]
        command += ["-additional_logs", str(self.folder / "logs.yaml")]
        for number, skey in enumerate(self._skeys):
            key = self.folder / f"key-{number}"
            key.write_text(format_skey(skey))
            command += ["-private_key_path", str(key)]
        with _process(command, log=self.printed) as process:
            _await(process, ("127.0.0.1", port), log=self.printed)
            yield f"http://127.0.0.1:{port}"

    @property
    def _skeys(self) -> tuple[SKey, ...]:
        types = (KeyType.COSIGNATURE_ED25519, KeyType.COSIGNATURE_MLDSA44)
        return tuple(SKey(name=self.name, type=key_type, seed=self.seed) for key_type in types)


def copy_module(source: Path, target: Path) -> None:
    """Copies the Go files of a module out of the module cache, where nothing can be changed."""
    for file in [source / "go.mod", *source.rglob("*.go")]:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
