"""Runs the translog command as a user would, with settings from nowhere but its options."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

_RESOURCE = re.compile(r"tile/(?:entries|\d+)/(?:x\d{3}/)*\d{3}(?:\.p/\d+)?")


def run_translog(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `translog ARGUMENTS`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRANSLOG_")}
    command = [sys.executable, "-m", "translog", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def run_fsck(url: str, policy: Path) -> subprocess.CompletedProcess[str]:
    """Checks the whole log under `url`."""
    return run_translog("fsck", url, "--policy", str(policy), "--json")


def named_resources(result: subprocess.CompletedProcess[str]) -> set[str]:
    """The paths of tiles and bundles that the one JSON document on standard output names."""
    return set(_RESOURCE.findall(json.dumps(json.loads(result.stdout))))
