"""The documentation is tested: generated parts are current, links lead somewhere, what is named exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from translog.cli.main import COMMANDS
from translog.log.metrics import LogMetrics

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "specs").rglob("*.md"))]


def test_the_generated_parts_of_the_readme_are_current() -> None:
    done = subprocess.run([sys.executable, "scripts/docs", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_command_of_the_readme_exists() -> None:
    used = re.findall(r"translog ([a-z]+) ", (ROOT / "README.md").read_text("utf-8"))
    assert used
    unknown = {name for name in used if name not in COMMANDS} - {"serve", "is", "believes"}
    assert not unknown


def test_metrics_named_in_the_documentation_exist() -> None:
    metrics = {metric.name for metric in LogMetrics().registry.collect()}
    named = {name for page in PAGES for name in re.findall(r"`(translog_[a-z_]+)`", page.read_text("utf-8"))}
    assert named
    for name in named:
        base = re.sub(r"_(total|count|sum|bucket)$", "", name)
        assert base in metrics or base.startswith(("translog_public_", "translog_admin_")), name
