"""Kubernetes audit events: one for each stage of a request, with whom it was for, and which binding allowed it."""

import json
from typing import Any

import pytest
from hypothesis import given, settings

from translog.events.jsontext import JSONObject, compact
from translog.events.sources.kubernetes import KUBERNETES

from .mutants import mutated, take
from .records import lost
from .test_real_records import STATED

EXEC: JSONObject = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "RequestResponse",
    "auditID": "a-1",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/prod/pods/web-0/exec?command=sh",
    "verb": "create",
    "user": {
        "username": "alice@corp.example",
        "uid": "u-1",
        "groups": ["dev", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": ["JTI=1"], "scopes": ["a", "b"]},
    },
    "impersonatedUser": {
        "username": "system:serviceaccount:prod:deployer",
        "groups": ["system:serviceaccounts"],
        "extra": {"x": ["y"]},
    },
    "sourceIPs": ["192.0.2.1", "10.0.0.1", "2001:db8::1"],
    "userAgent": "kubectl/v1.37",
    "objectRef": {
        "resource": "pods",
        "namespace": "prod",
        "name": "web-0",
        "uid": "o-1",
        "apiGroup": "apps",
        "apiVersion": "v1",
        "resourceVersion": "7",
        "subresource": "exec",
    },
    "responseStatus": {"metadata": {}, "code": 101},
    "requestObject": {"command": ["sh"]},
    "responseObject": {"kind": "Status"},
    "requestReceivedTimestamp": "2026-01-02T03:04:05.000001Z",
    "stageTimestamp": "2026-01-02T03:04:06.250000Z",
    "annotations": {
        "authorization.k8s.io/decision": "allow",
        "authorization.k8s.io/reason": 'RBAC: allowed by RoleBinding "dev/prod" of ClusterRole "edit" to Group "dev"',
        "pod-security.kubernetes.io/enforce-policy": "baseline:latest",
    },
}
DENIED: JSONObject = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "level": "Metadata",
    "auditID": "a-2",
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/secrets",
    "verb": "list",
    "user": {"username": "system:serviceaccount:prod:web"},
    "sourceIPs": ["10.0.0.9"],
    "objectRef": {"resource": "secrets", "apiVersion": "v1"},
    "responseStatus": {"status": "Failure", "reason": "Forbidden", "message": "secrets is forbidden", "code": 403},
    "stageTimestamp": "2026-01-02T03:04:06Z",
    "annotations": {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""},
}


def event_of(record: JSONObject) -> JSONObject:
    (found,) = take(KUBERNETES, compact(record).encode())
    assert found.error == ""
    return found.event


def test_a_request_for_another() -> None:
    event = event_of(EXEC)
    assert [event[name] for name in ("class_uid", "activity_id", "time", "start_time")] == [
        6003,
        1,
        1_767_323_046_250,
        1_767_323_045_000,
    ]
    assert event["metadata"] == {
        "product": {"name": "Kubernetes"},
        "log_provider": "kube-apiserver",
        "log_name": "audit",
        "log_version": "audit.k8s.io/v1",
        "log_level": "RequestResponse",
        "correlation_uid": "a-1",
        "original_time": "2026-01-02T03:04:06.250000Z",
        "uid": "a-1/ResponseComplete",
        "version": "1.8.0",
    }
    decision = {"decision": "allowed", "policy": {"name": "dev/prod", "type": "RoleBinding"}}
    assert event["actor"] == {
        "user": {
            "name": "alice@corp.example",
            "uid": "u-1",
            "groups": [{"name": "dev"}, {"name": "system:authenticated"}],
            "credential_uid": "JTI=1",
            "type_id": 1,
        },
        "authorizations": [decision],
    }
    assert event["fed"]["on_behalf_of"] == [
        {"name": "system:serviceaccount:prod:deployer", "groups": [{"name": "system:serviceaccounts"}]}
    ]
    assert event["fed"]["why"] == {**decision, "reason": EXEC["annotations"]["authorization.k8s.io/reason"]}
    assert event["api"] == {
        "operation": "create/exec",
        "service": {"name": "apps"},
        "version": "v1",
        "request": {"uid": "a-1", "data": {"command": ["sh"]}},
        "response": {"code": 101, "data": {"kind": "Status"}},
    }
    assert event["resources"] == [{"name": "web-0", "uid": "o-1", "namespace": "prod", "version": "7", "type": "pods/exec"}]
    assert event["src_endpoint"] == {"ip": "192.0.2.1", "intermediate_ips": ["10.0.0.1", "2001:db8::1"]}
    assert event["http_request"] == {"url": {"url_string": EXEC["requestURI"]}, "user_agent": "kubectl/v1.37"}
    assert (event["status_id"], event["status_code"]) == (1, "101")
    assert event["unmapped"] == {
        "user": {"extra": {"scopes": ["a", "b"]}},
        "annotations": {"pod-security.kubernetes.io/enforce-policy": "baseline:latest"},
        "impersonatedUser": {"extra": {"x": ["y"]}},
        "stage": "ResponseComplete",
    }
    assert "missing" not in event["fed"]


def test_a_denied_request_for_a_collection() -> None:
    event = event_of(DENIED)
    assert (event["status_id"], event["status_code"], event["status"]) == (2, "403", "Failure")
    assert (event["status_detail"], event["api"]["response"]) == ("secrets is forbidden", {"code": 403, "error": "Forbidden"})
    assert event["resources"] == [{"name": "secrets", "type": "secrets"}]
    assert event["actor"]["user"]["type_id"] == 4
    assert event["actor"]["authorizations"] == [{"decision": "denied"}]
    assert event["fed"]["why"] == {"decision": "denied"}
    assert event["unmapped"]["annotations"] == {"authorization.k8s.io/reason": ""}


@pytest.mark.parametrize(
    ("name", "type_id"),
    [("system:serviceaccount:a:b", 4), ("system:node:n", 3), ("system:anonymous", 3), ("bob", 1), ("systemd", 1)],
)
def test_kinds_of_users(name: str, type_id: int) -> None:
    assert event_of({**DENIED, "user": {"username": name}})["actor"]["user"]["type_id"] == type_id


def test_a_subresource_of_nothing_is_kept() -> None:
    event = event_of({**DENIED, "verb": None, "objectRef": {"subresource": "log"}})
    assert "resources" not in event
    assert event["unmapped"]["objectRef"] == {"subresource": "log"}


def test_eks_says_which_role() -> None:
    user = {
        "username": "admin",
        "extra": {"arn": ["arn:aws:sts::1:assumed-role/r/s"], "accessKeyId": ["ASIA1"], "sessionName": ["s"]},
    }
    event = event_of({**DENIED, "user": user})
    assert event["actor"]["user"]["uid_alt"] == "arn:aws:sts::1:assumed-role/r/s"
    assert event["actor"]["user"]["credential_uid"] == "ASIA1"
    assert event["unmapped"]["user"] == {"extra": {"sessionName": ["s"]}}


@pytest.mark.parametrize(
    ("change", "status", "uid"),
    [
        ({"stage": "RequestReceived", "responseStatus": None}, None, "a-2/RequestReceived"),
        ({"stage": "Panic", "responseStatus": {"code": 500}}, 2, "a-2/Panic"),
        ({"responseStatus": {"status": "Success"}}, 1, "a-2/ResponseComplete"),
        ({"responseStatus": {"code": 399}}, 1, "a-2/ResponseComplete"),
        ({"responseStatus": {"code": 400}}, 2, "a-2/ResponseComplete"),
        ({"stage": None}, 2, "a-2"),
        ({"auditID": None}, 2, None),
    ],
)
def test_stages_have_ids_of_their_own(change: JSONObject, status: int | None, uid: str | None) -> None:
    event = event_of({**DENIED, **change})
    assert event.get("status_id") == status
    assert event["metadata"].get("uid") == uid


def test_the_time_received_stands_in_for_a_stage_without_a_time() -> None:
    event = event_of({**DENIED, "stageTimestamp": None, "requestReceivedTimestamp": "2026-01-02T03:04:05Z"})
    assert event["time"] == event["start_time"] == 1_767_323_045_000
    assert event["metadata"]["original_time"] == "2026-01-02T03:04:05Z"


def test_bodies() -> None:
    one, two = compact(EXEC), compact(DENIED)
    uids = ["a-1/ResponseComplete", "a-2/ResponseComplete"]
    for body in (
        f'{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{one},{two}]}}',
        f"{one}\n{two}\n",
        f"[{one},{two}]",
    ):
        assert [found.uid for found in take(KUBERNETES, body.encode())] == uids
    assert take(KUBERNETES, b'{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[]}') == []


def test_aks_wraps_an_event_in_text() -> None:
    wrapped = {"category": "kube-audit", "properties": {"log": compact(EXEC), "pod": "kube-apiserver-1"}, "time": "t"}
    event = event_of(wrapped)
    assert event["metadata"]["uid"] == "a-1/ResponseComplete"
    assert event["unmapped"]["envelope"] == {"category": "kube-audit", "properties": {"pod": "kube-apiserver-1"}, "time": "t"}
    bare = event_of({"properties": {"log": compact(DENIED)}})
    assert "envelope" not in bare["unmapped"]
    (found,) = take(KUBERNETES, compact({"properties": {"log": '{"a":1,"a":2}'}}).encode())
    assert found.error == "properties.log is not an audit event: the name 'a' occurs twice in one object"


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({}, "not an audit event of Kubernetes"),
        ({"kind": "Event", "apiVersion": "v1"}, "not an audit event of Kubernetes"),
        ({"kind": "Event", "apiVersion": 5}, "not an audit event of Kubernetes"),
        ({"kind": "Pod", "apiVersion": "audit.k8s.io/v1"}, "not an audit event of Kubernetes"),
        ({"protoPayload": {}}, "a Cloud Audit Log entry of GKE"),
        ({"properties": {"log": "[]"}}, "properties.log is not an audit event: not an object"),
    ],
)
def test_what_is_no_audit_event_is_a_base_event(record: Any, error: str) -> None:
    (found,) = take(KUBERNETES, compact(record).encode())
    assert found.error.startswith(error)


@settings(max_examples=300)
@given(
    mutated(EXEC) | mutated(DENIED) | mutated({"category": "kube-audit", "properties": {"log": compact(DENIED), "pod": "p"}})
)
def test_no_record_makes_the_mapping_fail_or_lose_anything(record: JSONObject) -> None:
    raw = json.dumps(record).encode()
    for found in take(KUBERNETES, b"[" + raw + b"]"):
        if not found.error:
            assert list(lost(json.loads(raw), found.event, STATED["kubernetes"])) == []
