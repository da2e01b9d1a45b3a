"""Runs k8saudit, the audit webhook of the Kubernetes API server, and reads what it reports. See the top of k8s/main.go."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 80

_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters:
- name: log
  cluster:
    server: {url}
{authority}users:
- name: member
  user:
    token: {token}
contexts:
- name: audit
  context: {{cluster: log, user: member}}
current-context: audit
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of a batch: `took_ms` is from the first attempt to the last answer."""

    events: int
    delivered: bool
    took_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an API server made of its events. `events` are those that it made: audit id and stage."""

    events: list[tuple[str, str]]
    batches: list[Batch]
    overflowed: int
    failed: int

    @property
    def delivered(self) -> int:
        return sum(batch.events for batch in self.batches if batch.delivered)


def write_kubeconfig(file: Path, url: str, *, token: str = "none", authority: Path | None = None) -> Path:
    """A kubeconfig as an API server's `--audit-webhook-config-file` wants it."""
    trust = f"    certificate-authority: {authority}\n" if authority is not None else ""
    file.write_text(_KUBECONFIG.format(url=url, token=token, authority=trust))
    return file


def run_k8saudit(program: Path, kubeconfig: Path, *options: str) -> Report:
    """Runs the program to its end."""
    command = [str(program), "-kubeconfig", str(kubeconfig), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    report = json.loads(done.stdout)
    return Report(
        events=[(audit_id, stage) for audit_id, stage in report["events"]],
        batches=[Batch(**batch) for batch in report["batches"] or []],
        overflowed=report["overflowed"],
        failed=report["failed"],
    )


def events_in(body: bytes) -> list[tuple[str, str]]:
    """Audit id and stage of each event in a body that the webhook sent."""
    document = json.loads(body)
    assert (document["kind"], document["apiVersion"]) == ("EventList", "audit.k8s.io/v1")
    return [(event["auditID"], event["stage"]) for event in document["items"]]
