"""What the figures were taken on: machine, filesystem, versions, commit."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from translog import __version__

_PACKAGES = ("aiohttp", "cryptography", "pydantic", "plyvel", "plyvel-next", "uvloop")


def describe_machine(work: Path) -> dict[str, str]:
    """Name and value of everything a reader of the figures needs. `work` is where the stores lie."""
    return {
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB RAM, load {os.getloadavg()[0]:.1f}",
        "kernel": f"{platform.system()} {platform.release()}",
        "filesystem": _filesystem(work),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join([f"translog {__version__}", *_versions()]),
        "commit": _commit(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _filesystem(path: Path) -> str:
    """Type and options of the mount that holds `path`."""
    path = path.resolve()
    best: tuple[int, str] = (-1, "unknown")
    try:
        mounts = Path("/proc/mounts").read_text("utf-8").splitlines()
    except OSError:
        return best[1]
    for line in mounts:
        _, point, kind, options, *_ = line.split()
        if path.is_relative_to(point) and len(point) > best[0]:
            best = (len(point), f"{kind} ({options})")
    return best[1]


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        return git("rev-parse", "--short=12", "HEAD") + (" with changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
