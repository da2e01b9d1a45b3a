"""Audit records to measure with, no two alike: real records of CloudTrail, events in the short form, Kubernetes' audit events.

Rules: a record's id is random and comes once, so that none is a duplicate; a range has the same records in every process;
making one costs about a microsecond, in the process that sends it and never in the one that is measured.
"""

import json
import random
from pathlib import Path

from benchmarks.processes import UnavailableError
from translog.events.jsontext import split_list

CLOUDTRAIL = Path(__file__).resolve().parents[3] / "shared" / "data" / "cloudtrail"
"""Delivery files of CloudTrail, which lie beside the checkout: see `find_cloudtrail`."""
_HOUR = "2026-11-22T10"
_RECORDS_MAX = 100_000


def find_cloudtrail() -> list[bytes]:
    """The real records, as they were received. Raises UnavailableError where they are not at hand."""
    files = sorted(CLOUDTRAIL.glob("*.json"))
    records = [part.raw for path in files for part in split_list(path.read_bytes(), "Records", records_max=_RECORDS_MAX)]
    if not records:
        raise UnavailableError(f"no CloudTrail records in {CLOUDTRAIL.parent.name}/{CLOUDTRAIL.name} beside the checkout")
    return records


class Records:
    """Records by index, in one body: of the source `cloudtrail`, `events` (the short form, NDJSON) or `kubernetes`."""

    def __init__(self, source: str) -> None:
        """Raises UnavailableError."""
        self.path = "/v1/events" if source == "events" else f"/v1/sources/{source}/bench"
        self.content_type = "application/x-ndjson" if source == "events" else "application/json"
        self._begin, self._between, self._end = {
            "cloudtrail": (b'{"Records":[', b",", b"]}"),
            "events": (b"", b"\n", b"\n"),
            "kubernetes": (b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[', b",", b"]}"),
        }[source]
        self._templates = {"cloudtrail": _cloudtrail, "events": _short, "kubernetes": _kubernetes}[source]()

    def take(self, start: int, count: int) -> list[bytes]:
        """Records [start, start + count)."""
        bits = random.Random(start).randbytes(16 * count).hex()  # noqa: S311  # ids, no secrets
        made = []
        for number in range(count):
            head, tail = self._templates[(start + number) % len(self._templates)]
            digits = bits[32 * number : 32 * number + 32]
            uid = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
            made.append(head + uid.encode() + tail)
        return made

    def join(self, records: list[bytes]) -> bytes:
        """The body that holds these records."""
        return self._begin + self._between.join(records) + self._end


def _cut(record: bytes, uid: str) -> tuple[bytes, bytes]:
    """What is before and behind the record's id."""
    head, _, tail = record.partition(uid.encode())
    return head, tail


def _cloudtrail() -> list[tuple[bytes, bytes]]:
    return [_cut(record, json.loads(record)["eventID"]) for record in find_cloudtrail()]


_UID = "00000000-0000-4000-8000-000000000000"


def _short() -> list[tuple[bytes, bytes]]:
    """What an application says of a change: about 430 bytes."""
    pick = random.Random(4)  # noqa: S311
    records = []
    for _ in range(1_000):
        record = {
            "id": _UID,
            "time": f"{_HOUR}:{pick.randrange(60):02d}:{pick.randrange(60):02d}.{pick.randrange(1_000):03d}Z",
            "actor": {"name": f"user-{pick.randrange(50_000)}@corp.example", "type": "user"},
            "action": pick.choice(("document.read", "document.update", "deployment.create", "key.rotate", "user.delete")),
            "resource": {"type": "document", "uid": f"{pick.getrandbits(64):016x}", "name": f"Report {pick.randrange(9_999)}"},
            "outcome": pick.choice(("success", "success", "success", "failure")),
            "reason": f"CHG-{pick.randrange(10_000)}",
            "src_ip": f"10.{pick.randrange(256)}.{pick.randrange(256)}.9",
            "trace_id": f"{pick.getrandbits(128) | 1:032x}",
            "context": {"tenant": f"t-{pick.randrange(400)}", "release": f"2026.{pick.randrange(12)}.{pick.randrange(30)}"},
        }
        records.append(_cut(json.dumps(record, separators=(",", ":")).encode(), _UID))
    return records


def _kubernetes() -> list[tuple[bytes, bytes]]:
    """What the API server says of a request at level Metadata: about 1 kB."""
    pick = random.Random(8)  # noqa: S311
    records = []
    for _ in range(1_000):
        verb, kind = pick.choice(("get", "list", "update", "create", "patch")), pick.choice(("pods", "secrets", "leases"))
        name, namespace = f"{kind}-{pick.getrandbits(40):010x}", f"team-{pick.randrange(40)}"
        at = f"{_HOUR}:{pick.randrange(60):02d}:{pick.randrange(60):02d}.{pick.randrange(10**6):06d}Z"
        account = f"system:serviceaccount:{namespace}:runner"
        reason = f'RBAC: allowed by RoleBinding "runner/{namespace}" of Role "runner" to ServiceAccount "runner/{namespace}"'
        record = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": _UID,
            "stage": "ResponseComplete",
            "requestURI": f"/api/v1/namespaces/{namespace}/{kind}/{name}",
            "verb": verb,
            "user": {
                "username": account,
                "uid": f"{pick.getrandbits(128):032x}",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
            },
            "sourceIPs": [f"10.{pick.randrange(256)}.{pick.randrange(256)}.9"],
            "userAgent": "runner/v1.34.1 (linux/amd64) kubernetes/93248f9",
            "objectRef": {"resource": kind, "namespace": namespace, "name": name, "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 200},
            "requestReceivedTimestamp": at,
            "stageTimestamp": at,
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": reason},
        }
        records.append(_cut(json.dumps(record, separators=(",", ":")).encode(), _UID))
    return records
