"""pymerkle 7.0, the peer for trees in Python: appends in memory and in SQLite, inclusion proofs at 50,000 entries.

Installed once, by hash, into an environment of its own; measured there in a process of its own. Run as a program by that
environment's interpreter: WHAT FOLDER; prints one number.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

ENTRY_BYTES = 1_000
PROOF_ENTRIES = 50_000
_REQUIREMENTS = """\
pymerkle==7.0.0 --hash=sha256:506817f2a78cf9b2b49fcabb1d00c0dc76f0efa90fb0b14d998bab4e6729ad4f
cachetools==7.2.1 --hash=sha256:63aa53dfe7473c10cccdd5a01dedf76ef2c4b73a58840d9396e7d0752cbdac3b
"""


@lru_cache(maxsize=1)
def find_pymerkle(programs: Path) -> Path:
    """The interpreter that has it, installed if need be. Raises OSError or subprocess.SubprocessError."""
    home = programs / "pymerkle"
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        requirements = programs / "pymerkle.txt"
        programs.mkdir(parents=True, exist_ok=True)
        requirements.write_text(_REQUIREMENTS, "utf-8")
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True, capture_output=True)  # noqa: S603
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"]
        install = [*pip, "--only-binary", ":all:", "--require-hashes", "-r", requirements]
        subprocess.run(install, check=True, capture_output=True, timeout=120)  # noqa: S603
        (home / "installed").touch()
    return python.absolute()


def measure_pymerkle(python: Path, what: str, folder: Path) -> float:
    """A rate per second: `memory` appends, `sqlite` appends, `sqlite-batches` entries, or `proofs`."""
    done = subprocess.run(  # noqa: S603
        [python, Path(__file__), what, folder], check=True, capture_output=True, text=True, timeout=300
    )
    return float(done.stdout)


def _measure(what: str, folder: Path) -> float:
    from pymerkle import InmemoryTree, SqliteTree  # type: ignore[import-not-found]

    entries = [os.urandom(ENTRY_BYTES) for _ in range(1_000)]
    if what == "proofs":
        tree = InmemoryTree()
        for n in range(PROOF_ENTRIES):
            tree.append_entry(b"%d" % n)
        indexes = [1 + n * 7_919 % PROOF_ENTRIES for n in range(1_000)]
        return _rate(len(indexes), lambda: [tree.prove_inclusion(index, PROOF_ENTRIES) for index in indexes])
    if what == "memory":
        tree = InmemoryTree()
        return _rate(20_000, lambda: [tree.append_entry(entries[n % 1_000]) for n in range(20_000)])
    path = folder / f"pymerkle-{os.getpid()}.sqlite"
    tree = SqliteTree(str(path))
    try:
        if what == "sqlite":
            return _rate(100, lambda: [tree.append_entry(entry) for entry in entries[:100]])
        return _rate(10_000, lambda: [tree.append_entries(entries) for _ in range(10)])
    finally:
        tree.close()
        path.unlink()


def _rate(count: int, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


if __name__ == "__main__":
    print(_measure(sys.argv[1], Path(sys.argv[2])))
