"""Bodies that every source takes, with the headers they come with: what hostile ones are made of."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from translog.events.jsontext import compact
from translog.events.mapping import Source
from translog.events.sources.collector import CHANNEL_HEADER, raw_headers
from translog.events.sources.custom import load_custom
from translog.events.sources.otlp import JSON, PROTOBUF
from translog.events.sources.table import SOURCES

Headers = Mapping[str, str]


def body_of(*records: Any) -> bytes:
    """One document, or one a line."""
    return b"\n".join(compact(record).encode() for record in records)


TIME = "2026-01-02T03:04:05.678Z"
SHORT: dict[str, Any] = {
    "id": "1", "time": TIME, "actor": {"uid": "u-1", "name": "alice", "email": "a@b.example", "groups": ["ops", {"name": "x"}]},
    "action": "door.open", "resource": {"type": "door", "id": "7"}, "src_ip": "192.0.2.1", "outcome": "failure",
    "reason": "OPS-123 it burns", "session": {"uid": "s"}, "severity": "high", "on_behalf_of": ["bob"], "more": [1, {"a": 2}],
}  # fmt: skip
BLOB_LIKE: dict[str, Any] = {"actor": "a", "action": "b", "$blob": {"salt": "", "sha256": "", "size": 1}}
"""Its `unmapped` is what stands for a blob."""
OCSF: dict[str, Any] = {
    "class_uid": 6003, "category_uid": 6, "activity_id": 2, "type_uid": 600302, "severity_id": 1, "time": 1_700_000_000_000,
    "metadata": {"version": "1.8.0", "uid": "o-1", "product": {"name": "p", "vendor_name": "v"}},
    "api": {"operation": "Read"}, "src_endpoint": {"ip": "::1", "port": 80}, "actor": {"user": {"uid": "u"}},
    "raw_data": "mine", "fed": {"why": {"reason": "r"}},
    "observables": [], "unmapped": {"x": 1},
}  # fmt: skip
CLOUDTRAIL: dict[str, Any] = {
    "eventVersion": "1.08", "eventID": "2f1d", "eventTime": "2026-01-02T03:04:05Z", "eventSource": "iam.amazonaws.com",
    "eventName": "AttachUserPolicy", "awsRegion": "us-east-1", "sourceIPAddress": "192.0.2.1", "userAgent": "cli",
    "userIdentity": {
        "type": "AssumedRole", "principalId": "A:s", "arn": "arn:aws:sts::1:assumed-role/R/s", "accountId": "1",
        "sessionContext": {"attributes": {"mfaAuthenticated": "true", "creationDate": TIME}, "sessionIssuer": {"arn": "a"}},
    },
    "requestParameters": {"userName": "u", "policyArn": "arn:aws:iam::aws:policy/A"}, "responseElements": None,
    "errorCode": "AccessDenied", "errorMessage": "no", "resources": [{"ARN": "arn:aws:s3:::b", "accountId": "1", "type": "t"}],
    "tlsDetails": {"tlsVersion": "TLSv1.3"}, "readOnly": False, "recipientAccountId": "1",
}  # fmt: skip
GITHUB: dict[str, Any] = {
    "_document_id": "d-1", "@timestamp": 1_700_000_000_000, "action": "repo.create", "actor": "alice", "actor_id": 7,
    "actor_ip": "192.0.2.1", "org": "o", "org_id": 1, "repo": "o/r", "user": "bob", "created_at": 1, "operation_type": "create",
    "hashed_token": "x=", "programmatic_access_type": "OAuth", "user_agent": "git", "data": {"old": 1},
}  # fmt: skip
WEBHOOK: dict[str, Any] = {
    "action": "created", "sender": {"login": "alice", "id": 1, "type": "User"}, "repository": {"full_name": "o/r", "id": 2},
    "organization": {"login": "o"}, "installation": {"id": 3}, "issue": {"number": 4},
}  # fmt: skip
KUBERNETES: dict[str, Any] = {
    "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "a-1", "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/d/pods/p/exec", "verb": "create",
    "user": {"username": "system:serviceaccount:a:b", "uid": "u", "groups": ["g"], "extra": {"k": ["v"]}},
    "impersonatedUser": {"username": "bob", "groups": []}, "sourceIPs": ["10.0.0.1", "::1"], "userAgent": "kubectl",
    "objectRef": {"resource": "pods", "namespace": "d", "name": "p", "subresource": "exec", "apiVersion": "v1"},
    "responseStatus": {"code": 403, "status": "Failure", "reason": "Forbidden", "message": "no"},
    "requestReceivedTimestamp": "2026-01-02T03:04:05.678901Z", "stageTimestamp": "2026-01-02T03:04:05.7Z",
    "annotations": {
        "authorization.k8s.io/decision": "allow",
        "authorization.k8s.io/reason": 'RBAC: allowed by RoleBinding "b/c" of Role "c"',
    },
}  # fmt: skip
CLOUDEVENT: dict[str, Any] = {
    "specversion": "1.0", "id": "c-1", "source": "/s", "type": "com.example.user.created", "time": TIME, "subject": "x/1",
    "authtype": "app_user", "authid": "u", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "sequence": "0000000007",
    "severitynumber": 9, "datacontenttype": "application/json", "data": {"a": [1, 2]},
}  # fmt: skip
LOG_RECORD: dict[str, Any] = {
    "timeUnixNano": "1700000000000000000", "observedTimeUnixNano": "1700000000000000001", "severityNumber": 9,
    "eventName": "user.create", "body": {"kvlistValue": {"values": [{"key": "k", "value": {"bytesValue": "AAE="}}]}},
    "attributes": [
        {"key": "audit.record.id", "value": {"stringValue": "r-1"}}, {"key": "audit.actor.id", "value": {"stringValue": "u"}},
        {"key": "audit.outcome", "value": {"stringValue": "success"}}, {"key": "n", "value": {"doubleValue": "NaN"}},
        {"key": "n", "value": {"intValue": "-9223372036854775808"}}, {"key": "l", "value": {"arrayValue": {"values": [{}]}}},
    ],
    "traceId": "ab" * 16, "spanId": "cd" * 8, "flags": 1, "droppedAttributesCount": 2,
}  # fmt: skip
LOGS: dict[str, Any] = {
    "resourceLogs": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]},
            "scopeLogs": [{"scope": {"name": "n", "version": "1"}, "logRecords": [LOG_RECORD, {}], "schemaUrl": "u"}],
        }
    ]
}
ENVELOPE: dict[str, Any] = {
    "time": 1_700_000_000.123, "host": "web-1", "source": "app", "sourcetype": "_json", "index": "main", "fields": {"a": "b"},
    "event": {"actor": "alice", "action": "x", "id": "e-1"},
}  # fmt: skip
CUSTOM_FILE = rb"""
name = "payroll"
version = "3"
split = "list"
list = "records"
id = "entry.id"
rows = [["user.login", "actor.user.name"], ["client", "src_endpoint.ip", "address"], ["x", "api.request.data", "json"]]
[product]
name = "Payroll"
[time]
path = "at"
format = "%d/%m/%Y %H:%M:%S %z"
[operation]
path = "verb"
activity = { "salary.*" = "update", "*secret*" = "read", "exact" = "create" }
[outcome]
path = "result"
success = ["ok", "true"]
failure = ["failed", "7"]
[decision]
path = "gate"
allowed = ["open"]
denied = ["shut"]
"""
PAYROLL: dict[str, Any] = {
    "entry": {"id": 17}, "user": {"login": "alice"}, "client": "10.0.0.1", "x": {"a": [1.5]}, "at": "02/01/2026 03:04:05 +0100",
    "verb": "salary.raise", "result": 7, "gate": "shut",
}  # fmt: skip


def nested(depth: int, *, named: bool) -> AnyValue:
    """A value with so many within each other."""
    value = AnyValue(string_value="innermost")
    for _ in range(depth - 1):
        outer = AnyValue()
        if named:
            outer.kvlist_value.values.append(KeyValue(key="k", value=value))
        else:
            outer.array_value.values.append(value)
        value = outer
    return value


def protobuf_logs(more: AnyValue | None = None) -> bytes:
    """An OTLP request in protobuf, with a value in all places where there may be one."""
    values = [AnyValue(string_value="u"), AnyValue(int_value=-1), AnyValue(double_value=1.5), AnyValue(bytes_value=b"\xff")]
    attributes = [KeyValue(key=key, value=value) for key, value in zip(("audit.actor.id", "i", "d", "i"), values, strict=True)]
    record = LogRecord(time_unix_nano=1, severity_number=9, event_name="user.create", attributes=attributes)  # type: ignore[arg-type]
    record.body.string_value = "text"
    record.trace_id = b"\xab" * 16
    scope = ScopeLogs(schema_url="u")
    scope.scope.name = "n"
    logs = ResourceLogs()
    logs.resource.attributes.append(attributes[0])
    if more is not None:
        record.body.CopyFrom(more)
        for holder in (record, scope.scope, logs.resource):
            holder.attributes.append(KeyValue(key="more", value=more))
    scope.log_records.extend([record, LogRecord()])
    logs.scope_logs.append(scope)
    return ExportLogsServiceRequest(resource_logs=[logs]).SerializeToString()


_ODD_VALUES = [nested(depth, named=named) for named in (False, True) for depth in (2, 23, 24, 25, 26, 30)]
_ODD_VALUES += [AnyValue(double_value=float(value)) for value in ("nan", "inf", "-inf", "-0.0", "1e300")]
CUSTOM = load_custom(CUSTOM_FILE)
_RAW = raw_headers({"host": "h", "time": "1.5", "sourcetype": "s"}, {CHANNEL_HEADER: "c"})
_BINARY = {"ce-id": "1", "ce-source": "/s", "ce-type": "t", "ce-specversion": "1.0", "ce-x": "%c3%a9", "content-type": JSON}
BODIES: dict[str, tuple[Source, Headers, tuple[bytes, ...]]] = {
    "events": (SOURCES["events"], {}, (body_of(SHORT), body_of([SHORT, OCSF]), body_of(SHORT, OCSF, BLOB_LIKE))),
    "ocsf": (SOURCES["ocsf"], {}, (body_of(OCSF), body_of([OCSF]))),
    "cloudtrail": (SOURCES["cloudtrail"], {}, (body_of({"Records": [CLOUDTRAIL]}), body_of(CLOUDTRAIL))),
    "github": (SOURCES["github"], {}, (body_of(GITHUB), body_of([GITHUB, GITHUB]), body_of(WEBHOOK))),
    "github webhook": (SOURCES["github"], {"x-github-event": "issues", "x-github-delivery": "d-1"}, (body_of(WEBHOOK),)),
    "kubernetes": (
        SOURCES["kubernetes"],
        {},
        (
            body_of({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "items": [KUBERNETES]}),
            body_of({"category": "kube-audit", "properties": {"log": compact(KUBERNETES), "pod": "p"}}),
        ),
    ),
    "cloudevents structured": (
        SOURCES["cloudevents"],
        {"content-type": "application/cloudevents+json"},
        (body_of(CLOUDEVENT),),
    ),
    "cloudevents batch": (
        SOURCES["cloudevents"],
        {"content-type": "application/cloudevents-batch+json"},
        (body_of([CLOUDEVENT, CLOUDEVENT]), b"[]"),
    ),
    "cloudevents binary": (SOURCES["cloudevents"], _BINARY, (body_of({"a": [1]}), b"\xff\xfe", b"")),
    "otlp json": (SOURCES["otlp"], {"content-type": JSON}, (body_of(LOGS),)),
    "otlp protobuf": (SOURCES["otlp"], {"content-type": PROTOBUF}, (protobuf_logs(), *map(protobuf_logs, _ODD_VALUES))),
    "otel-audit": (SOURCES["otel-audit"], {"content-type": JSON}, (body_of(LOGS),)),
    "collector": (
        SOURCES["collector"],
        {},
        (body_of(ENVELOPE) + body_of(ENVELOPE | {"event": "text"}), body_of(ENVELOPE | {"event": OCSF})),
    ),
    "collector-raw": (SOURCES["collector-raw"], _RAW, (body_of(SHORT) + b"\r\nsome text\n\xff\n" + body_of(OCSF),)),
    "custom": (CUSTOM, {}, (body_of({"records": [PAYROLL]}), body_of([PAYROLL]))),
}
