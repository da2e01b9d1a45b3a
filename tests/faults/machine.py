"""A `translog serve` process on a bad day, and what an outsider wrote down of its answers.

Rules: the server is a real process with settings from its environment; whatever a test starts is ended with it. Every answer
to an append goes into the Record as acknowledged, refused or unknown, and is checked for honesty on the way. After a test the
stopped log is verified whole against the Record: `verify_log` is the one place that does so.
"""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import pytest
from client.serving import make_log, policy_for
from log.check_log import check_log

from translog.core.note import parse_note
from translog.core.policy import Policy, verify_checkpoint
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock

PATIENCE_S = 30
"""A test that waits this long has failed."""
NOTHING_WRITTEN = {"pool-full", "not-open", "clock-jumped", "body-timeout", "read-only", "too-many-connections"}
"""Codes of 503 that promise that nothing was written."""
OUTCOME_UNKNOWN = {"outcome-unknown"}
"""Codes of 503 after which a sender must look before it sends again."""
READS_FAIL = {"store-closed", "storage", "not-open"}
"""Codes of 503 that reads may get while the log is being opened anew."""


def unavailable(reason: str) -> NoReturn:
    """Skips for want of a right or a program; fails where the suite is required."""
    if os.environ.get("TRANSLOG_REQUIRE_INTEROP") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Returns when `condition` holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.005)


def command(*arguments: object) -> None:
    subprocess.run([str(argument) for argument in arguments], check=True, capture_output=True)


@contextmanager
def mounted(path: Path, *arguments: object) -> Iterator[None]:
    """A file system mounted at `path`; skips where that is not allowed."""
    path.mkdir(exist_ok=True)
    if os.geteuid() or shutil.which("mount") is None:
        unavailable("mounting a file system takes root")
    done = subprocess.run(["mount", *map(str, arguments), str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        unavailable(f"no file system can be mounted here: {done.stderr}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer. `code` is that of a problem, else empty."""

    status: int
    body: bytes
    code: str
    retry_after: str | None


@dataclass(slots=True)
class Record:
    """What an outsider knows. Safe to use from many threads."""

    acknowledged: dict[int, bytes] = field(default_factory=dict)
    refused: set[bytes] = field(default_factory=set)
    unknown: set[bytes] = field(default_factory=set)
    checkpoints: set[bytes] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def file(self, entries: Sequence[bytes], answer: Answer | None) -> str:
        """Writes down what became of a batch that `POST /v1/entries` was sent with; None is a connection that broke. Returns
        the code of a refusal."""
        with self._guard:
            if answer is None:
                self.unknown.update(entries)
                return "connection-lost"
            if answer.status in (200, 202):
                document = json.loads(answer.body)
                assert document["count"] == len(entries)
                for index, entry in enumerate(entries, start=document["first"]):
                    assert index not in self.acknowledged, "two entries at one index"
                    self.acknowledged[index] = entry
                return ""
            assert answer.status == 503, f"an append was answered {answer.status}: {answer.body!r}"
            assert answer.code in NOTHING_WRITTEN | OUTCOME_UNKNOWN, f"a refusal that does not say what was written: {answer}"
            assert int(answer.retry_after or 0) >= 1, "a refusal without a time to wait"
            (self.refused if answer.code in NOTHING_WRITTEN else self.unknown).update(entries)
            self.codes.add(answer.code)
            return answer.code

    def merge(self, other: "Record") -> None:
        """Adds what another outsider wrote down of the same log."""
        assert not self.acknowledged.keys() & other.acknowledged.keys(), "two entries at one index"
        self.acknowledged.update(other.acknowledged)
        self.refused |= other.refused
        self.unknown |= other.unknown
        self.checkpoints |= other.checkpoints
        self.codes |= other.codes


@dataclass(slots=True)
class Log:
    """A log's directory, and the record of it."""

    directory: Path
    policy: Policy
    record: Record = field(default_factory=Record)


def create(directory: Path) -> Log:
    """A new, empty log."""
    return Log(directory, policy_for(make_log(directory)))


@dataclass(slots=True)
class Server:
    """A running `translog serve`."""

    log: Log
    process: subprocess.Popen[str]
    said: list[str]
    reader: threading.Thread
    url: str = ""
    admin_url: str = ""

    def get(self, path: str, *, admin: bool = False) -> Answer:
        """One request on a connection of its own."""
        return fetch(self.admin_url if admin else self.url, "GET", path)

    def append(self, *entries: bytes, ack: str = "published") -> str:
        """Sends one batch, and files the answer. Returns the code of a refusal, empty if it was taken."""
        body = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
        answer = None
        try:
            answer = fetch(self.url, "POST", f"/v1/entries?ack={ack}&receipts=none", body)
        except ConnectionRefusedError:
            return "connection-refused"  # nobody was there to write anything
        except (OSError, http.client.HTTPException):
            answer = None
        return self.log.record.file(entries, answer)

    def checkpoint(self) -> bytes:
        """The checkpoint, which must verify; into the record with it."""
        answer = self.get("/checkpoint")
        assert answer.status == 200, f"/checkpoint was answered {answer}"
        verify_checkpoint(answer.body, self.log.policy)
        self.log.record.checkpoints.add(answer.body)
        return answer.body

    def size(self) -> int:
        """The published size."""
        return verify_checkpoint(self.checkpoint(), self.log.policy).checkpoint.size

    def status(self) -> tuple[str, str | None]:
        """What `/readyz` says: status and code."""
        document = json.loads(self.get("/readyz").body)
        return document["status"], document["code"]

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.get("/metrics", admin=True).body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)

    def memory(self, field_name: str = "RssAnon") -> int:
        """Bytes of a line of /proc/PID/status."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field_name}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {field_name} in /proc")

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end. Returns the exit code; what was said until then is in `said`."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=PATIENCE_S)
        self.reader.join()
        return code


def fetch(url: str, method: str, path: str, body: bytes = b"") -> Answer:
    """One request on a connection of its own. Raises OSError or HTTPException where there is no whole answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    try:
        headers = {"Content-Type": "application/octet-stream"} if body else {}
        connection.request(method, path, body=body or None, headers=headers)
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    problem = response.headers.get("Content-Type") == "application/problem+json"
    code = json.loads(data)["code"] if problem else ""
    return Answer(status=response.status, body=data, code=code, retry_after=response.headers.get("Retry-After"))


def environment(**settings: object) -> dict[str, str]:
    """This process's environment with these settings (`log__pool_entries_max=10`) and no others."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("TRANSLOG_")}
    return clean | {f"TRANSLOG_{name.upper()}": str(value) for name, value in settings.items()}


def start(log: Log, **settings: object) -> subprocess.Popen[str]:
    """Starts `translog serve` on ports of the system's choice. Whoever calls ends it."""
    command = [sys.executable, "-W", "error", "-m", "translog", "serve", str(log.directory)]
    command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(**settings))


def refusal(log: Log) -> tuple[int, str]:
    """Exit code and words of a start that must not succeed."""
    process = start(log)
    try:
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


@contextmanager
def serving(log: Log, **settings: object) -> Iterator[Server]:
    """A server that listens; killed at the end unless it was ended. Its first checkpoint, where there is one, is on record."""
    process = start(log, **settings)
    said: list[str] = []

    def read() -> None:
        if process.stderr is not None:
            said.extend(line.rstrip("\n") for line in process.stderr)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        listening = "metrics and operator actions on "
        wait_for(lambda: process.poll() is not None or any(line.startswith(listening) for line in list(said)), "a start")
        assert process.poll() is None, f"the server did not start: {said}"
        url, admin = (line.rpartition(" ")[2] for line in said if line.startswith(("serving ", listening)))
        server = Server(log, process, said, reader, url, admin)
        if server.get("/checkpoint").code != "not-open":  # held before it published anything
            server.checkpoint()
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        if process.stderr is not None:
            process.stderr.close()


def verify_log(log: Log) -> list[bytes]:
    """Verifies the stopped log, whole, against all that outsiders were told; entries are all different. Returns them."""
    record = log.record
    with DirectoryLock(log.directory) as lock:
        store = LevelDBStore.open(lock)
        try:
            entries = check_log(store, log.policy, signed=[parse_note(note).text for note in record.checkpoints])
        finally:
            store.close()
    lost = {index for index, entry in record.acknowledged.items() if index >= len(entries) or entries[index] != entry}
    assert not lost, f"acknowledged and not there: {sorted(lost)[:10]}"
    present = set(entries)
    assert len(present) == len(entries), "an entry is there twice"
    assert not present & record.refused, "refused with the promise that nothing was written, and there all the same"
    assert not present - set(record.acknowledged.values()) - record.unknown, "entries that nobody sent"
    return entries
