"""Kubernetes: audit events of the API server (audit.k8s.io), from its webhook or its log file.

Bodies: the webhook's `EventList`, single events, arrays, and lines of the log file. AKS's diagnostic records, which carry an
event as text in `properties.log`, are unwrapped; what is around it goes to `unmapped`. GKE's are Cloud Audit Log entries,
another format: they become Base Events.

Rules: one request makes an event for each of its stages, so an event's id is `auditID/stage`; the record does not say which
cluster it is from, which is what a stream is for. The user is who authenticated; whom they impersonated is who they acted for.
The first of `sourceIPs` is what the client or its first proxy claims, the rest are proxies. Nothing in a record numbers events,
so an omission does not show. A request for a collection has the collection as its resource.
https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
"""

import re
from collections.abc import Mapping
from typing import Any

from translog.events.jsontext import JSONObject, Slice, parse_record, split_list
from translog.events.mapping import (
    MappingError,
    Row,
    Source,
    Table,
    activity_of,
    address,
    anything,
    integer,
    listed,
    put,
    rfc3339,
    string,
    text,
)

_API = "audit.k8s.io/"


def _group(value: Any) -> JSONObject | None:
    name = string(value)
    return None if name is None else {"name": name}


def _only(value: Any) -> str | None:
    """The string of a list that has no other."""
    return string(value[0]) if type(value) is list and len(value) == 1 else None


def _object(value: Any) -> JSONObject | None:
    return value if type(value) is dict and value else None


_USER = (
    Row("username", "name", string),
    Row("uid", "uid", string),
    Row("groups", "groups", listed(_group)),
    Row("extra.authentication\\.kubernetes\\.io/credential-id", "credential_uid", _only),
    Row("extra.accessKeyId", "credential_uid", _only),
    Row("extra.arn", "uid_alt", _only),
)
_IMPERSONATED = Table(_USER)
_REFERENCE = Table(
    (
        Row("apiGroup", "api.service.name", string),
        Row("apiVersion", "api.version", string),
        Row("resource", "kind", string),
        Row("subresource", "subresource", string),
        Row("name", "resource.name", string),
        Row("uid", "resource.uid", string),
        Row("namespace", "resource.namespace", string),
        Row("resourceVersion", "resource.version"),
    )
)
# What the rows put below `_` is for the code that follows, which takes it out again.
_TABLE = Table(
    (
        Row("auditID", "metadata.correlation_uid", string),
        Row("auditID", "api.request.uid", string),
        Row("apiVersion", "metadata.log_version", string),
        Row("level", "metadata.log_level", string),
        Row("stage", "_.stage", string),
        Row("stageTimestamp", "time", rfc3339),
        Row("requestReceivedTimestamp", "time", rfc3339),
        Row("stageTimestamp", "metadata.original_time", string),
        Row("requestReceivedTimestamp", "metadata.original_time", string),
        Row("requestReceivedTimestamp", "start_time", rfc3339),
        Row("verb", "_.verb", string),
        Row("requestURI", "http_request.url.url_string", string),
        Row("userAgent", "http_request.user_agent", string),
        Row("objectRef", "_.reference", _object),
        Row("requestObject", "api.request.data", anything),
        Row("responseObject", "api.response.data", anything),
        Row("responseStatus.code", "api.response.code", integer),
        Row("responseStatus.reason", "api.response.error", string),
        Row("responseStatus.message", "status_detail", string),
        Row("responseStatus.status", "status", string),
        Row("impersonatedUser", "_.impersonated", _object),
        Row("sourceIPs", "_.addresses", listed(address)),
        Row("annotations.authorization\\.k8s\\.io/decision", "_.decision", string),
        Row("annotations.authorization\\.k8s\\.io/reason", "fed.why.reason", string),
        *(Row(f"user.{row.source}", f"actor.user.{row.target}", row.convert) for row in _USER),
    ),
    taken=("kind",),
)

_DECISIONS = {"allow": "allowed", "forbid": "denied"}
_BINDING = re.compile(r'RBAC: allowed by (\w{1,64}) "?([^" ]{1,512})"?', re.ASCII)
"""What of an authorizer's reason names the policy: RBAC: allowed by ClusterRoleBinding "x" of ClusterRole "y" to Group "z"."""


def _split(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
    return split_list(body, "items", records_max=records_max)


def _map(record: JSONObject, context: JSONObject) -> JSONObject:
    record, envelope = _unwrapped(record)
    kind = record.get("kind", "Event" if "auditID" in record else "")  # an item of an EventList does not repeat it
    if kind != "Event" or not str(record.get("apiVersion") or _API).startswith(_API):
        raise MappingError(f"not an audit event of Kubernetes, of kind Event and apiVersion {_API}v1")
    event: JSONObject = {
        "metadata": {"product": {"name": "Kubernetes"}, "log_provider": "kube-apiserver", "log_name": "audit"},
        "class_uid": 6003,
    }
    rest = _TABLE.apply(record, event)
    more = event.pop("_", {})
    _add_identity(event, rest, more)
    _add_operation(event, rest, more)
    _add_outcome(event, more)
    if rest.get("responseStatus") == {"metadata": {}}:
        del rest["responseStatus"]  # which every answer has
    if envelope:
        rest["envelope"] = envelope
    if rest:
        event["unmapped"] = rest
    return event


def _unwrapped(record: JSONObject) -> tuple[JSONObject, JSONObject]:
    """The audit event, and what is around it in an AKS diagnostic record. Raises MappingError."""
    if "protoPayload" in record:
        raise MappingError("a Cloud Audit Log entry of GKE, not an audit event of Kubernetes")
    properties = record.get("properties")
    if "kind" in record or type(properties) is not dict or type(properties.get("log")) is not str:
        return record, {}
    inner = parse_record(properties["log"].encode("utf-8", "replace"))
    if type(inner.value) is not dict:
        raise MappingError(f"properties.log is not an audit event: {inner.error or 'not an object'}")
    envelope = {**record, "properties": {name: value for name, value in properties.items() if name != "log"}}
    return inner.value, envelope if envelope["properties"] else {
        name: envelope[name] for name in record if name != "properties"
    }


def _add_identity(event: JSONObject, rest: JSONObject, more: JSONObject) -> None:
    """The event's id; who asked, for whom, and from where."""
    audit_id = event["metadata"].get("correlation_uid")
    if audit_id is not None:
        event["metadata"]["uid"] = f"{audit_id}/{more['stage']}" if "stage" in more else audit_id
    if "stage" in more:
        rest["stage"] = more["stage"]
    name = event.get("actor", {}).get("user", {}).get("name")
    if name is not None:
        event["actor"]["user"]["type_id"] = _user_type(name)
    if "impersonated" in more:
        user: JSONObject = {}
        put(rest, "impersonatedUser", _IMPERSONATED.apply(more["impersonated"], user))
        put(event, "fed.on_behalf_of", [user] if user else None)
    if "addresses" in more:
        first, *others = more["addresses"]
        event["src_endpoint"] = {"ip": first}
        put(event, "src_endpoint.intermediate_ips", others)


def _user_type(name: str) -> int:
    """OCSF's type_id: service, system or (plain) user."""
    return 4 if name.startswith("system:serviceaccount:") else 3 if name.startswith("system:") else 1


def _add_operation(event: JSONObject, rest: JSONObject, more: JSONObject) -> None:
    """What was asked for, of what."""
    found: JSONObject = {}
    if "reference" in more:
        put(rest, "objectRef", _REFERENCE.apply(more["reference"], found))
    api = event.setdefault("api", {})
    api.update(found.get("api", {}))
    kind, subresource = found.get("kind"), found.get("subresource")
    resource = found.get("resource", {})
    if kind is None:
        put(rest, "objectRef.subresource", subresource)
    else:
        resource["type"] = f"{kind}/{subresource}" if subresource else kind
        if "name" not in resource and "uid" not in resource:
            resource["name"] = kind
    put(event, "resources", [resource] if resource else None)
    if "verb" in more:
        api["operation"] = f"{more['verb']}/{subresource}" if subresource else more["verb"]
        event["activity_id"] = activity_of(more["verb"])
    if not api:
        del event["api"]


def _add_outcome(event: JSONObject, more: JSONObject) -> None:
    """How it ended; what was decided, and by which binding."""
    response = event.get("api", {}).get("response", {})
    code = response.get("code")
    if code is not None:
        event["status_code"] = text(code)
        event["status_id"] = 1 if code < 400 else 2
    elif event.get("status") in ("Success", "Failure"):
        event["status_id"] = 1 if event["status"] == "Success" else 2
    decision = more.get("decision")
    if decision is None:
        return
    authorization: JSONObject = {"decision": _DECISIONS.get(decision, decision)}
    match = _BINDING.match(event.get("fed", {}).get("why", {}).get("reason", ""))
    if match is not None:
        authorization["policy"] = {"name": match[2], "type": match[1]}
    event.setdefault("actor", {})["authorizations"] = [authorization]
    event.setdefault("fed", {}).setdefault("why", {}).update(authorization)


KUBERNETES = Source(name="kubernetes", version="1", split=_split, map=_map)
