"""Runs `translog` in this process, or as a program.

Rules: `run` goes through cli.main.main, so that exit codes and error output are the real ones; a server is a process of its
own on a port the system chose.
"""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from translog.cli.main import main

PROGRAM = (sys.executable, "-m", "translog")
STRICT = (sys.executable, "-W", "error", "-m", "translog")
PATIENCE_S = 20


@dataclass(frozen=True, slots=True)
class Result:
    """What a command said. `out` is decoded; `raw` is not."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()


def run(*arguments: object, stdin: bytes = b"") -> Result:
    """Runs a command in this process. Anything but a clean exit is raised."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    source = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    argv = ["translog", *map(str, arguments)]
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.object(sys, "stdin", source),
        mock.patch.object(sys, "argv", argv),
    ):
        try:
            main()
            code: object = 0
        except SystemExit as exit_:
            code = exit_.code or 0
    out.flush()
    err.flush()
    assert isinstance(code, int)
    for stream in (out, err):
        assert isinstance(stream.buffer, io.BytesIO)
    return Result(code, out.buffer.getvalue(), err.buffer.getvalue().decode())


def run_program(
    *arguments: object, env: Mapping[str, str] | None = None, stdin: bytes = b"", program: Sequence[str] = STRICT
) -> Result:
    """Runs a command as a program, to its end; by default a warning is an error."""
    done = subprocess.run(
        [*program, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE_S,
        env={**os.environ, **(env or {})},
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


def require_plain(result: Result, code: int) -> list[str]:
    """The lines on standard error, which must be a sentence of the program's and at most one more."""
    lines = result.err.splitlines()
    assert result.code == code, result.err
    assert lines, "an error without a word"
    assert len(lines) <= 2, result.err
    assert lines[0].startswith("translog: ")
    assert all(line.startswith("  ") for line in lines[1:])
    assert "Traceback" not in result.err
    return lines


@dataclass(slots=True)
class Served:
    """A server process."""

    process: subprocess.Popen[str]
    url: str
    said: list[str]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal; the exit code. What it said is in `said` then."""
        self.process.send_signal(number)
        code = self.process.wait(timeout=PATIENCE_S)
        assert self.process.stderr is not None
        self.said += self.process.stderr.read().splitlines()
        return code


@contextmanager
def serving(directory: Path, *options: str) -> Iterator[Served]:
    """`translog serve` on a free port, killed at the end unless it was stopped."""
    command = [*STRICT, "serve", str(directory), "--listen", "127.0.0.1:0", "--admin-listen", "", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    said = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.rstrip("\n"))
            if line.startswith("serving "):
                break
        else:
            raise AssertionError(f"the server did not start: {said}")
        yield Served(process, said[-1].rpartition(" ")[2], said)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
