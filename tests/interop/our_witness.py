"""Our own witness in a process of its own, as `translog witness serve` runs it."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from translog.core.keys import KeyType, VKey, parse_skey

_TRANSLOG = [sys.executable, "-m", "translog"]
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OurWitness:
    """A witness whose directory is made when it is served for the first time."""

    directory: Path
    name: str = "witness.example/ours"

    @property
    def vkeys(self) -> dict[KeyType, VKey]:
        """Its public keys, once there is a directory."""
        skeys = [parse_skey(file.read_text().strip()) for file in (self.directory / "keys").glob("*.skey")]
        return {skey.type: skey.vkey for skey in skeys}

    def policy_lines(self, key_type: KeyType, url: str) -> str:
        """A policy's lines that ask for this witness alone."""
        return f"witness ours {self.vkeys[key_type]} {url}\nquorum ours\n"

    @contextmanager
    def served(self, logs: Sequence[VKey] = (), *, port: int = 0) -> Iterator[str]:
        """Its URL until the end of the block, where it is told to stop. `logs` are added to those it knows."""
        command = [*_TRANSLOG, "witness", "serve", str(self.directory), "--name", self.name]
        command += ["--listen", f"127.0.0.1:{port}"]
        for vkey in logs:
            command += ["--log", str(vkey)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r" on (http://[\w.:]+)", line):
                    yield found[1]
                    break
            else:
                pytest.fail(f"the witness did not start: {said}")
        finally:
            process.terminate()
            process.communicate(timeout=_PATIENCE_S)
        assert process.returncode in (0, -signal.SIGTERM)
