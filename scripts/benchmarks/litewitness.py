"""litewitness (Go), the peer for cosigning: built from the module that the interoperability tests pin, with the same requests.

It keeps its state in SQLite, signs with Ed25519 through an ssh-agent, and knows logs by their Ed25519 keys only. What its own
tool would tell it is written to its database. Building it needs Go and, once, the network.
"""

import base64
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from benchmarks.processes import SCRIPTS, Server, UnavailableError, environment, free_port, running
from translog.core.keys import VKey
from translog.core.merkle import EMPTY_ROOT

PACKAGE = "filippo.io/torchwood/cmd/litewitness"
_SOURCE = SCRIPTS.parent / "tests" / "interop" / "torchwood"
_START_S_MAX = 30.0
_TABLES = """
    CREATE TABLE log (origin TEXT PRIMARY KEY, tree_size INTEGER NOT NULL, tree_hash TEXT NOT NULL);
    CREATE TABLE key (origin TEXT NOT NULL, key TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin));
    CREATE TABLE bastion (origin TEXT NOT NULL, bastion TEXT NOT NULL, FOREIGN KEY(origin) REFERENCES log(origin));
"""


def version() -> str:
    """Of its module, as pinned."""
    words = (_SOURCE / "go.mod").read_text("utf-8").split()
    return words[words.index("filippo.io/torchwood") + 1]


@lru_cache(maxsize=1)
def build(programs: Path) -> Path:
    """The program, built if need be. Raises UnavailableError."""
    program = (programs / f"torchwood-{version()}" / "litewitness").absolute()
    if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
        raise UnavailableError("litewitness signs through an ssh-agent, which is not installed")
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise UnavailableError("litewitness is built with Go, which is not installed")
    command = [go, "build", "-buildvcs=false", "-o", str(program), PACKAGE]
    try:
        subprocess.run(command, cwd=_SOURCE, check=True, capture_output=True, text=True, timeout=900)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise UnavailableError(f"litewitness could not be built: {said[-1] if said else error}") from None
    return program


@contextmanager
def serve_litewitness(program: Path, folder: Path, logs: Iterable[VKey]) -> Iterator[tuple[Server, Server]]:
    """It and its agent, until the end of the block. `folder` is new."""
    folder.mkdir()
    database = folder / "litewitness.db"
    _know(database, logs)
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    with ExitStack() as stack:
        short = Path(stack.enter_context(TemporaryDirectory()))  # the path of a socket has about a hundred characters
        agent = stack.enter_context(_agent(short / "agent", key, short / "key"))
        url = f"http://127.0.0.1:{free_port()}"
        command = [str(program), "-name", "witness.example/lite", "-db", str(database), "-ssh-agent", str(short / "agent")]
        command += ["-key", sha256(public).hexdigest(), "-listen", url.removeprefix("http://"), "-obscurity"]
        yield stack.enter_context(running(command, log=folder / "printed", url=url)), agent


def _know(database: Path, logs: Iterable[VKey]) -> None:
    empty = base64.b64encode(EMPTY_ROOT).decode()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript(_TABLES)
        for vkey in logs:
            connection.execute("INSERT INTO log VALUES (?, 0, ?)", (vkey.name, empty))
            connection.execute("INSERT INTO key VALUES (?, ?)", (vkey.name, str(vkey)))


@contextmanager
def _agent(address: Path, key: Ed25519PrivateKey, file: Path) -> Iterator[Server]:
    file.touch(mode=0o600)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL, env=environment())  # noqa: S603, S607
    try:
        _await(address)
        command = ["ssh-add", "-q", str(file)]
        subprocess.run(command, env=environment(SSH_AUTH_SOCK=str(address)), check=True, capture_output=True)  # noqa: S603
        yield Server(pid=process.pid, url="")
    finally:
        process.terminate()
        process.wait()


def _await(address: Path) -> None:
    give_up = time.monotonic() + _START_S_MAX
    while time.monotonic() < give_up:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(os.fspath(address))
            return
        time.sleep(0.02)
    raise UnavailableError("the ssh-agent did not start")
