"""Witnesses on this machine: made, served by `translog witness serve`, listed in policies.

Rules: each has a directory and a process of its own; no limit on requests a day gets in the way of a figure.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import Server, running
from translog.core.keys import SEED_BYTES, KeyType, SKey, VKey
from translog.log.keyfiles import read_skey
from translog.log.settings import SigningKey
from translog.witness.loglist import QUERIES_PER_DAY_MAX
from translog.witness.opening import KEY_FILES, create_witness
from translog.witness.settings import FILE_NAME

LOG_TYPE = {SigningKey.ED25519: KeyType.ED25519, SigningKey.MLDSA44: KeyType.COSIGNATURE_MLDSA44}
WITNESS_TYPE = {SigningKey.ED25519: KeyType.COSIGNATURE_ED25519, SigningKey.MLDSA44: KeyType.COSIGNATURE_MLDSA44}
BOTH = (SigningKey.MLDSA44, SigningKey.ED25519)
KEY_SETS = {"Ed25519": (SigningKey.ED25519,), "ML-DSA-44": (SigningKey.MLDSA44,), "both": BOTH}
"""What a witness signs with, and a log here."""


def new_skeys(name: str, types: Iterable[KeyType]) -> tuple[SKey, ...]:
    """New keys of these types under one name."""
    return tuple(SKey(name=name, type=key_type, seed=os.urandom(SEED_BYTES)) for key_type in types)


def witness_name(number: int) -> str:
    """What the witness with this number is called."""
    return f"witness-{number:02d}.example.org"


def majority(count: int) -> int:
    """The least number that is more than half of `count`."""
    return count // 2 + 1


def majority_lines(witnesses: Sequence[Sequence[VKey]], urls: Sequence[str] = ()) -> str:
    """A policy's lines that ask for a majority of witnesses, each with all its keys: either is as good as the other."""
    if not witnesses:
        return "quorum none\n"
    lines = []
    for number, vkeys in enumerate(witnesses):
        names = [f"w{number}-{vkey.type.label.lower()}" for vkey in vkeys]
        url = f" {urls[number]}" if urls else ""
        lines += [f"witness {name} {vkey}{url}" for name, vkey in zip(names, vkeys, strict=True)]
        lines.append(f"group w{number} any {' '.join(names)}")
    everybody = " ".join(f"w{number}" for number in range(len(witnesses)))
    lines += [f"group majority {majority(len(witnesses))} {everybody}", "quorum majority"]
    return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWitness:
    """A witness's directory and public keys."""

    directory: Path
    vkeys: tuple[VKey, ...]


def make_witness(
    directory: Path, *, name: str, logs: Iterable[Sequence[VKey]], sign_with: Sequence[SigningKey] = BOTH
) -> LocalWitness:
    """A new witness that knows these logs by their keys."""
    create_witness(directory, name=name, random_bytes=os.urandom)
    with (directory / FILE_NAME).open("a", encoding="utf-8") as settings:
        settings.write(f"sign_with = {json.dumps(sign_with)}\n")
        for vkeys in logs:
            keys = json.dumps(list(map(str, vkeys)))
            settings.write(f"[[logs]]\nvkeys = {keys}\nqueries_per_day = {QUERIES_PER_DAY_MAX}\n")
    files = [directory / "keys" / KEY_FILES[WITNESS_TYPE[key]] for key in sign_with]
    return LocalWitness(directory=directory, vkeys=tuple(read_skey(file).vkey for file in files))


def serve_witness(witness: LocalWitness) -> AbstractContextManager[Server]:
    """`translog witness serve`, on a free port of loopback."""
    directory = witness.directory
    command = [sys.executable, "-m", "translog", "witness", "serve", str(directory), "--listen", "127.0.0.1:0"]
    return running(command, log=directory.with_name(directory.name + ".serve.log"))


@contextmanager
def serve_witnesses(witnesses: Sequence[LocalWitness]) -> Iterator[list[Server]]:
    """All of them, each in a process of its own, until the end of the block."""
    with ExitStack() as stack:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            servers = list(pool.map(lambda witness: stack.enter_context(serve_witness(witness)), witnesses))
        yield servers
