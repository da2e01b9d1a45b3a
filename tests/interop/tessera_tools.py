"""Runs the programs of Tessera, another implementation of tlog-tiles, and reads what they found.

Rules: every run ends, by a watchdog if nothing else. Tessera's fsck exits with status 0 whatever it finds, and never ends after
some damage, so its verdict is taken from what it logs.
"""

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

TOOL_PACKAGES = (
    "github.com/transparency-dev/tessera/cmd/conformance/posix",
    "github.com/transparency-dev/tessera/cmd/fsck",
    "github.com/transparency-dev/tessera/cmd/examples/posix-oneshot",
    "github.com/transparency-dev/tessera/internal/hammer",
)
_WATCHDOG_S = 120.0
"""Ends what neither ends nor reports: a failure of the test, never a verdict."""
_REPORTS = 3
"""After this many reports with the same damage, one each second, and no end, fsck hangs."""
_HEADER = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ [\w-]+\.go:\d+\] ")
_TROUBLE = re.compile(r"\):(Invalid|FetchError)\b")


class Verdict(StrEnum):
    """What Tessera's fsck makes of a log."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    HANGS = "hangs"
    CRASHES = "crashes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict with the reason: what fsck logged as failure or success, its last report where it hangs, or its panic."""

    verdict: Verdict
    reason: str


@contextmanager
def watched(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process with pipes, its standard error into its standard output; killed after the watchdog's time or the block."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watchdog = threading.Timer(_WATCHDOG_S, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        watchdog.join()
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class Tessera:
    """The compiled programs."""

    folder: Path

    def fsck(self, url: str, vkey: str, *, workers: int = 1) -> Judged:
        """Checks the whole log under `url`, whose Ed25519 key is `vkey`. One worker is the program's default."""
        key = self.folder / "key"
        key.write_text(vkey)  # no newline, as in Tessera's own examples; with one it works too
        options = ["-ui=false", "-logtostderr", "-v=1", f"-N={workers}", "-storage_url", url, "-public_key", str(key)]
        with watched([str(self.folder / "fsck"), *options]) as process:
            return _judge(process)

    def integration(self, url: str, vkey: str, *, entries: int) -> subprocess.CompletedProcess[str]:
        """Tessera's test of a live log: adds entries, reads them back and proves them."""
        options = ["-run_integration_test", "-log_url", url, "-write_log_url", url, "-log_public_key", vkey]
        return self._run("integration.test", "-test.v", *options, "-test_entry_size", str(entries))

    def hammer(self, url: str, vkey: str, *, entries: int) -> subprocess.CompletedProcess[str]:
        """Tessera's load test: writes and reads at the same time until `entries` more are in the log."""
        load = ["-num_writers", "8", "-max_write_ops", "200", "-num_readers_full", "2", "-max_read_ops", "200"]
        end = ["-leaf_write_goal", str(entries), "-max_runtime", "60s", "-show_ui=false", "-logtostderr"]
        return self._run("hammer", "-log_url", url, "-log_public_key", vkey, *load, *end)

    def append(
        self, storage: Path, skey_file: Path, entries: Path, *, witness_policy: Path | None = None, fail_open: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Adds each file in the folder `entries`, in the order of their names, to the log in files under `storage`.

        Where `witness_policy` is not met, a checkpoint is published all the same with `fail_open`, and else never.
        """
        options = ["-storage_dir", str(storage), "-private_key", str(skey_file), "-entries", f"{entries}/*"]
        if witness_policy is not None:
            options += ["-witness_policy_file", str(witness_policy), f"-witness_fail_open={str(fail_open).lower()}"]
        return self._run("posix-oneshot", *options)

    @contextmanager
    def serving(self, storage: Path, skey_file: Path) -> Iterator[str]:
        """The URL of its conformance server over a log in files, until the end of the block."""
        storage.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        options = ["--storage_dir", str(storage), "--listen", address, "--private_key", str(skey_file)]
        with watched([str(self.folder / "posix"), *options]) as process:
            assert process.stdout is not None
            deadline = time.monotonic() + _WATCHDOG_S
            while not (storage / "checkpoint").is_file():
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < deadline, "Tessera publishes no checkpoint"
                time.sleep(0.05)
            yield f"http://{address}"

    @contextmanager
    def follow(self, url: str, vkey: str, *, old: Path | None = None) -> Iterator["Follower"]:
        """Follows a log until the end of the block; see the top of tessera/main.go."""
        options = ["-url", url, "-vkey", vkey] + (["-old", str(old)] if old is not None else [])
        with watched([str(self.folder / "follow"), *options]) as process:
            yield Follower(process)

    def _run(self, program: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / program), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=_WATCHDOG_S, check=False)


@dataclass(frozen=True, slots=True)
class Follower:
    """A running follow."""

    process: subprocess.Popen[str]

    def look(self) -> str:
        """What it says of the log now: "size N root HASH from M", or what does not hold."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it refused the first checkpoint, which it reads without being asked
            pass
        return self.process.stdout.readline().rstrip("\n")


def _judge(process: subprocess.Popen[str]) -> Judged:
    reports: list[str] = []
    logged: list[str] = []
    for message in _messages(process):
        logged.append(message)
        if message.startswith("Successfully fsck'd"):
            verdict = Judged(verdict=Verdict.ACCEPTS, reason=message)
            break
        if message.startswith("fsck failed: "):
            verdict = Judged(verdict=Verdict.REFUSES, reason=message)
            break
        if message.startswith("panic: "):
            assert process.wait() == 2
            return Judged(verdict=Verdict.CRASHES, reason=message)
        if message.startswith("Ranges:"):
            reports.append(message)
            last = reports[-_REPORTS:]
            if len(last) == _REPORTS and len(set(last)) == 1 and _TROUBLE.search(message):
                return Judged(verdict=Verdict.HANGS, reason=message)
    else:
        raise AssertionError(f"fsck ended with {process.wait()} and no verdict: {logged}")
    process.communicate()
    assert process.returncode == 0, "the status is 0 whatever was found"
    return verdict


def _messages(process: subprocess.Popen[str]) -> Iterator[str]:
    """What is logged, without headers. A message of several lines is known to be whole once something follows it."""
    assert process.stdout is not None
    message: list[str] = []
    for line in process.stdout:
        header = _HEADER.match(line)
        if header is not None or line.startswith("panic: "):
            if message:
                yield "".join(message).rstrip("\n")
            message = []
        message.append(line[header.end() :] if header is not None else line)
    if message:
        yield "".join(message).rstrip("\n")
