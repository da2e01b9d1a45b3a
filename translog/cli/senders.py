"""Names of sources and streams, and what `translog doctor` knows of each kind of sender: its configuration, a test event.

Rules: a token is named by its file or its environment variable, never written; `@URL@`, `@HOST@`, `@PORT@`, `@TLS@`,
`@STREAM@` and `@TOKEN_FILE@` stand for what the command was told. Configurations are the senders' own, to paste as they are.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import click

EVENTS_SOURCES = frozenset({"events", "ocsf", "short"})
"""Sent to POST /v1/events, which tells OCSF and the short form apart itself."""
_JSON = "application/json"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)


def _name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and _NAME.fullmatch(value) is None:
        raise click.BadParameter(f"{value!r} is no name of a {parameter.name}: up to 63 of a-z, 0-9, dot and hyphen")
    return value


source_option = click.option(
    "--source",
    required=True,
    callback=_name,
    metavar="SOURCE",
    help="The format: ocsf or short for events as POST /v1/events takes them, else a source such as kubernetes or cloudtrail.",
)
stream_option = click.option(
    "--stream",
    callback=_name,
    metavar="S",
    help="The stream to log to; by default the credential's own, or one named as the source where the URL must name it.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A kind of sender. `test` makes a record with an id within it. `stream_header`: the path does not name the stream.
    `answers_index`: the answer to an append says where the record is."""

    path: str
    configuration: str
    test: Callable[[str, datetime], Any]
    media: str = _JSON
    stream_header: bool = False
    answers_index: bool = True


def configure(sender: Sender, *, url: str, stream: str, token_file: str) -> str:
    """The configuration with what is particular to this log."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    values = {
        "URL": url.rstrip("/"),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or (443 if is_tls else 80)),
        "TLS": "On" if is_tls else "Off",
        "STREAM": stream,
        "TOKEN_FILE": token_file,
    }
    text = sender.configuration
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _time(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- Kubernetes -------------------------------------------------------------------------------------------------------

_KUBERNETES = """\
# /etc/kubernetes/audit/policy.yaml: what is recorded. Bodies of secrets are not.
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/metrics", "/version", "/openapi/*"]
  - level: None
    users: ["system:kube-proxy", "system:apiserver"]
    verbs: [get, list, watch]
  - level: Metadata
    resources:
      - group: ""
        resources: [secrets, configmaps, serviceaccounts/token]
      - group: authentication.k8s.io
        resources: [tokenreviews]
  - level: Request
    verbs: [create, update, patch, delete, deletecollection]
  - level: Metadata
---
# /etc/kubernetes/audit/webhook.yaml: where it goes. The log must be at an https URL: over plain http the API server sends no
# credentials. Add certificate-authority: FILE under cluster: for a CA of your own.
apiVersion: v1
kind: Config
clusters:
  - name: translog
    cluster:
      server: @URL@/v1/sources/kubernetes/@STREAM@
users:
  - name: audit
    user:
      tokenFile: @TOKEN_FILE@
contexts:
  - name: translog
    context: {cluster: translog, user: audit}
current-context: translog
---
# flags of kube-apiserver; mount /etc/kubernetes/audit into its pod, and @TOKEN_FILE@
# --audit-policy-file=/etc/kubernetes/audit/policy.yaml
# --audit-webhook-config-file=/etc/kubernetes/audit/webhook.yaml
# --audit-webhook-mode=batch
# --audit-webhook-batch-max-size=400
# --audit-webhook-batch-max-wait=5s
# --audit-webhook-batch-buffer-size=10000
# --audit-webhook-initial-backoff=10s
# --audit-log-path=/var/log/kubernetes/audit.log
# The API server drops events when its buffer is full. The log file above fills such a hole, what is there is not logged twice:
#   translog submit --log @URL@ --source kubernetes --stream @STREAM@ --token-file @TOKEN_FILE@ /var/log/kubernetes/audit.log
"""


def _kubernetes(uid: str, now: datetime) -> Any:
    event = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": uid,
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/namespaces/default/pods/translog-doctor",
        "verb": "get",
        "user": {"username": "translog-doctor", "groups": ["system:authenticated"]},
        "sourceIPs": ["192.0.2.1"],
        "userAgent": "translog-doctor",
        "objectRef": {"resource": "pods", "namespace": "default", "name": "translog-doctor", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 404},
        "requestReceivedTimestamp": _time(now),
        "stageTimestamp": _time(now),
        "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "a test of the audit log"},
    }
    return {"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": [event]}


# --- CloudTrail -------------------------------------------------------------------------------------------------------

_CLOUDTRAIL = """\
# /usr/local/bin/translog-cloudtrail: the trail's files of one day, today's by default. Put your own bucket and prefix.
#!/bin/sh
set -eu
day=${1:-$(date -u +%Y/%m/%d)}
spool=$(mktemp -d)
trap 'rm -rf "$spool"' EXIT
aws s3 cp s3://BUCKET/AWSLogs/ "$spool" --recursive --no-progress --exclude '*' --include "*/CloudTrail/*/$day/*.json.gz"
find "$spool" -name '*.json.gz' -print0 | sort -z | xargs -0 -r -n 100 \\
  translog submit --log @URL@ --source cloudtrail --stream @STREAM@ --token-file @TOKEN_FILE@
---
# crontab of a user that may read the bucket. What was sent before is found to be a duplicate, so nothing keeps count; the
# second line fetches what the trail delivered around midnight.
*/5 * * * * flock -n /tmp/translog-cloudtrail.lock translog-cloudtrail
15 1 * * * translog-cloudtrail $(date -u -d yesterday +\\%Y/\\%m/\\%d)
"""


def _cloudtrail(uid: str, now: datetime) -> Any:
    record = {
        "eventVersion": "1.09",
        "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::000000000000:user/doctor", "userName": "translog-doctor"},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": "sts.amazonaws.com",
        "eventName": "GetCallerIdentity",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "192.0.2.1",
        "userAgent": "translog-doctor",
        "eventID": uid,
        "eventType": "AwsApiCall",
        "readOnly": True,
        "recipientAccountId": "000000000000",
    }
    return {"Records": [record]}


# --- GitHub -----------------------------------------------------------------------------------------------------------

_GITHUB = """\
Organization or enterprise settings > Webhooks > Add webhook
  Payload URL       @URL@/v1/sources/github/@STREAM@
  Content type      application/json
  Secret            the content of the member's webhook_secret_file (`openssl rand -hex 32` makes one)
  SSL verification  enabled
  Events            "Send me everything", or the ones to be audited
Deliveries carry X-Hub-Signature-256, which is their credential: the token in @TOKEN_FILE@ is not for GitHub.
GitHub does not send a failed delivery again by itself: Recent deliveries > Redeliver. The audit log fills such a hole:
  gh api --paginate "/orgs/ORG/audit-log?include=all&per_page=100" > audit.json
  translog submit --log @URL@ --source github --stream @STREAM@ --token-file @TOKEN_FILE@ audit.json
Audit log streaming (enterprise) to an HTTPS event collector, which speaks as Splunk does:
  Domain @HOST@    Port @PORT@    Token: the content of @TOKEN_FILE@
"""


def _github(uid: str, now: datetime) -> Any:
    return {
        "@timestamp": int(now.timestamp() * 1000),
        "_document_id": uid,
        "action": "repo.access",
        "actor": "translog-doctor",
        "actor_ip": "192.0.2.1",
        "org": "translog-doctor",
        "repo": "translog-doctor/test",
        "user_agent": "translog-doctor",
    }


# --- OpenTelemetry ----------------------------------------------------------------------------------------------------

_OTLP = """\
# An SDK's exporter, by environment. The token is read from its file when the program starts.
export OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=@URL@/v1/logs
export OTEL_EXPORTER_OTLP_LOGS_PROTOCOL=http/protobuf
export OTEL_EXPORTER_OTLP_LOGS_COMPRESSION=gzip
export OTEL_EXPORTER_OTLP_LOGS_HEADERS="authorization=Bearer%20$(cat @TOKEN_FILE@),translog-stream=@STREAM@"
---
# The collector: keeps what the log has not taken yet on disk, and never gives up on it.
extensions:
  bearertokenauth/translog:
    filename: @TOKEN_FILE@
  file_storage/translog:
    directory: /var/lib/otelcol/translog
exporters:
  otlphttp/translog:
    logs_endpoint: @URL@/v1/logs
    compression: gzip
    headers: {translog-stream: @STREAM@}
    auth: {authenticator: bearertokenauth/translog}
    retry_on_failure: {enabled: true, max_elapsed_time: 0}
    sending_queue: {enabled: true, storage: file_storage/translog, block_on_overflow: true}
service:
  extensions: [bearertokenauth/translog, file_storage/translog]
  pipelines:
    logs/audit:
      receivers: [otlp]
      exporters: [otlphttp/translog]
# Give each record the attribute log.record.uid (or audit.record.id): one that is sent twice is then logged once.
"""


def _otlp(uid: str, now: datetime) -> Any:
    names = {
        "log.record.uid": uid,
        "audit.actor.id": "translog-doctor",
        "audit.actor.type": "service",
        "audit.action": "READ",
        "audit.outcome": "success",
    }
    record = {
        "timeUnixNano": str(int(now.timestamp() * 1_000_000) * 1_000),
        "eventName": "translog.doctor",
        "body": {"stringValue": "a test of the audit log"},
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in names.items()],
    }
    scope = {"scope": {"name": "translog.doctor"}, "logRecords": [record]}
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "translog-doctor"}}]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}


# --- CloudEvents ------------------------------------------------------------------------------------------------------

_CLOUDEVENTS = """\
TOKEN_FILE=@TOKEN_FILE@
TO=@URL@/v1/sources/cloudevents/@STREAM@
# structured: the event is the body
curl --fail-with-body -H "Authorization: Bearer $(cat $TOKEN_FILE)" -H 'Content-Type: application/cloudevents+json' $TO \\
  -d '{"specversion":"1.0","id":"'$(uuidgen)'","source":"/billing","type":"invoice.approve","subject":"INV-7",
       "authtype":"user","authid":"alice","data":{"amount":12}}'
# batched: several of them in an array
curl --fail-with-body -H "Authorization: Bearer $(cat $TOKEN_FILE)" -H 'Content-Type: application/cloudevents-batch+json' $TO \\
  -d '[{"specversion":"1.0","id":"'$(uuidgen)'","source":"/billing","type":"invoice.approve"}]'
# binary: the attributes are headers, the body is the data
curl --fail-with-body -H "Authorization: Bearer $(cat $TOKEN_FILE)" -H 'Content-Type: application/json' $TO \\
  -H 'ce-specversion: 1.0' -H "ce-id: $(uuidgen)" -H 'ce-source: /billing' -H 'ce-type: invoice.approve' \\
  -H 'ce-subject: INV-7' -H 'ce-authtype: user' -H 'ce-authid: alice' -d '{"amount":12}'
"""


def _cloudevents(uid: str, now: datetime) -> Any:
    return {
        "specversion": "1.0",
        "id": uid,
        "source": "/translog/doctor",
        "type": "translog.doctor.read",
        "time": _time(now),
        "authtype": "service",
        "authid": "translog-doctor",
        "subject": "translog-doctor",
    }


# --- the HTTP event collector -----------------------------------------------------------------------------------------

_SPLUNK_HEC = """\
# Fluent Bit; the token is in its environment: EnvironmentFile= of the service, with TRANSLOG_TOKEN=<content of @TOKEN_FILE@>
[OUTPUT]
    Name               splunk
    Match              audit.*
    Host               @HOST@
    Port               @PORT@
    TLS                @TLS@
    TLS.Verify         On
    Splunk_Token       ${TRANSLOG_TOKEN}
    Compress           gzip
    Retry_Limit        no_limits
    storage.total_limit_size 1G
# Splunk forwarders and everything else that speaks to an HTTP event collector:
#   URL    @URL@/services/collector/event    (lines of text: /services/collector/raw)
#   header Authorization: Splunk <content of @TOKEN_FILE@>
# Which stream: the token's first one, or the header Translog-Stream: @STREAM@ where a sender can set headers. Records of this
# kind carry no id: one that a sender sends twice is logged twice.
"""


def _splunk_hec(uid: str, now: datetime) -> Any:
    event = {"user": "translog-doctor", "action": "read", "app": "translog-doctor", "id": uid}
    return {"time": now.timestamp(), "host": "translog-doctor", "source": "translog", "sourcetype": "audit", "event": event}


# --- the short form ---------------------------------------------------------------------------------------------------

_SHORT = """\
# any program
curl --fail-with-body -H "Authorization: Bearer $(cat @TOKEN_FILE@)" -H 'Translog-Stream: @STREAM@' @URL@/v1/events \\
  -H 'Content-Type: application/json' \\
  -d '{"id":"'$(uuidgen)'","actor":"alice","action":"invoice.approve","resource":"INV-7","outcome":"success"}'
# Python: pip install 'translog[server]'
import logging
from pathlib import Path
from translog.client.logging_handler import AuditHandler
handler = AuditHandler("@URL@", token=Path("@TOKEN_FILE@").read_text().strip(), stream="@STREAM@")
logging.getLogger("audit").addHandler(handler)
"""


def _short(uid: str, now: datetime) -> Any:
    return {
        "id": uid,
        "time": _time(now),
        "actor": "translog-doctor",
        "action": "log.test",
        "resource": "translog-doctor",
        "outcome": "success",
        "reason": "a test of the audit log",
    }


def body_of(sender: Sender, uid: str, now: datetime) -> bytes:
    """The test event as the sender would send it."""
    return json.dumps(sender.test(uid, now)).encode()


SENDERS: Mapping[str, Sender] = {
    "cloudevents": Sender(
        path="v1/sources/cloudevents/@STREAM@",
        configuration=_CLOUDEVENTS,
        test=_cloudevents,
        media="application/cloudevents+json",
    ),
    "cloudtrail": Sender(path="v1/sources/cloudtrail/@STREAM@", configuration=_CLOUDTRAIL, test=_cloudtrail),
    "github": Sender(path="v1/sources/github/@STREAM@", configuration=_GITHUB, test=_github),
    "kubernetes": Sender(path="v1/sources/kubernetes/@STREAM@", configuration=_KUBERNETES, test=_kubernetes),
    "otlp": Sender(path="v1/logs", configuration=_OTLP, test=_otlp, stream_header=True, answers_index=False),
    "short": Sender(path="v1/events", configuration=_SHORT, test=_short, stream_header=True),
    "splunk-hec": Sender(
        path="services/collector/event",
        configuration=_SPLUNK_HEC,
        test=_splunk_hec,
        stream_header=True,
        answers_index=False,
    ),
}
"""By the name that --source gives."""
