"""GitHub: the audit log's records, and webhook deliveries with what only their headers say."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from translog.events.jsontext import JSONObject, compact
from translog.events.sources.github import GITHUB

from .mutants import mutated, take
from .records import lost
from .test_real_records import STATED

CREATED: JSONObject = {
    "@timestamp": 1_767_323_045_678,
    "_document_id": "doc-1",
    "action": "repo.create",
    "operation_type": "create",
    "actor": "alice",
    "actor_id": 7,
    "actor_is_bot": False,
    "actor_ip": "192.0.2.1",
    "actor_location": {"country_code": "DE"},
    "business": "corp",
    "business_id": 1,
    "created_at": 1_767_323_045_678,
    "external_identity_nameid": "alice@corp.example",
    "hashed_token": "aGFzaA==",
    "org": "acme",
    "org_id": 2,
    "programmatic_access_type": "GitHub App server-to-server token",
    "repo": "acme/web",
    "repo_id": 3,
    "request_id": "req-1",
    "user": "bob",
    "user_id": 8,
    "user_agent": "gh/2",
    "visibility": "private",
}
LOGIN: JSONObject = {
    "action": "user.login",
    "actor": "alice",
    "actor_id": 7,
    "org": "acme",
    "created_at": "2026-01-02T03:04:05Z",
}
HEADERS = {
    "x-github-event": "member",
    "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "x-github-hook-id": "292430182",
    "x-github-hook-installation-target-type": "organization",
    "x-github-hook-installation-target-id": "2",
    "x-hub-signature-256": "sha256=00",
    "user-agent": "GitHub-Hookshot/1",
}
PAYLOAD: JSONObject = {
    "action": "added",
    "member": {"login": "bob", "id": 8, "type": "User"},
    "changes": {"permission": {"to": "write"}},
    "repository": {"id": 3, "full_name": "acme/web", "private": True},
    "organization": {"login": "acme", "id": 2},
    "enterprise": {"slug": "corp", "id": 1},
    "sender": {"login": "alice", "id": 7, "type": "User"},
    "installation": {"id": 9},
}


def event_of(record: JSONObject) -> JSONObject:
    (found,) = take(GITHUB, compact(record).encode())
    assert found.error == ""
    return found.event


def test_a_record_of_the_audit_log() -> None:
    event = event_of(CREATED)
    assert [event[name] for name in ("class_uid", "activity_id", "time", "status_id")] == [6003, 1, 1_767_323_045_678, 1]
    assert event["metadata"] == {
        "product": {"name": "GitHub", "vendor_name": "GitHub"},
        "log_provider": "GitHub",
        "log_name": "audit log",
        "original_time": "1767323045678",
        "uid": "doc-1",
        "correlation_uid": "req-1",
        "version": "1.8.0",
    }
    assert event["actor"] == {
        "user": {"name": "alice", "uid": "7", "type_id": 1, "uid_alt": "alice@corp.example", "credential_uid": "aGFzaA=="}
    }
    assert event["api"] == {"service": {"name": "github"}, "operation": "repo.create"}
    assert event["resources"] == [
        {"name": "acme/web", "uid": "3", "type": "Repository"},
        {"name": "bob", "uid": "8", "type": "User"},
        {"name": "acme", "uid": "2", "type": "Organization"},
        {"name": "corp", "uid": "1", "type": "Enterprise"},
    ]
    assert event["src_endpoint"] == {"ip": "192.0.2.1", "location": {"country": "DE"}}
    assert event["unmapped"] == {
        "operation_type": "create",
        "created_at": 1_767_323_045_678,
        "programmatic_access_type": "GitHub App server-to-server token",
        "visibility": "private",
    }
    assert "missing" not in event["fed"]


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (1_767_323_045_678, 1_767_323_045_678),
        (1767323045678.0, 1_767_323_045_678),
        ("1767323045678", 1_767_323_045_678),
        ("2026-01-02T03:04:05.678Z", 1_767_323_045_678),
        ("2026-01-02 03:04:05.678000000", 1_767_323_045_678),
        ("yesterday", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("name", ["created_at", "@timestamp"])
def test_times(name: str, value: object, time: int | None) -> None:
    event = event_of({"action": "org.add_member", name: value})
    assert event.get("time") == time
    assert ("time" in event["fed"]["missing"]) is (time is None)


@pytest.mark.parametrize(
    ("change", "activity", "status"),
    [
        ({"operation_type": "access"}, 2, 1),
        ({"operation_type": "modify"}, 3, 1),
        ({"operation_type": "remove"}, 4, 1),
        ({"operation_type": "authentication", "action": "org.sso_response"}, 99, 1),
        ({"operation_type": None, "action": "repo.destroy"}, 4, 1),
        ({"operation_type": None, "action": "org.invite_failed"}, 1, 2),
    ],
)
def test_activity_and_outcome(change: JSONObject, activity: int, status: int) -> None:
    event = event_of({**CREATED, **change})
    assert (event["activity_id"], event["status_id"]) == (activity, status)


def test_a_sign_in_is_an_api_activity_because_an_authentication_has_no_operation() -> None:
    event = event_of(LOGIN)
    assert (event["class_uid"], event["activity_id"], event["api"]["operation"]) == (6003, 99, "user.login")
    assert event_of({**LOGIN, "action": "user.failed_login"})["status_id"] == 2


def test_a_delivery() -> None:
    body = compact(PAYLOAD).encode()
    (found,) = take(GITHUB, body, HEADERS)
    event = found.event
    assert found.uid == HEADERS["x-github-delivery"]
    assert event["api"] == {"service": {"name": "github"}, "operation": "member.added"}
    assert (event["class_uid"], event["activity_id"]) == (6003, 1)
    assert event["actor"] == {"user": {"name": "alice", "uid": "7", "type": "User", "type_id": 1}, "app_uid": "9"}
    assert event["resources"] == [
        {"name": "acme/web", "uid": "3", "type": "Repository"},
        {"name": "bob", "uid": "8", "type": "User"},
        {"name": "acme", "uid": "2", "type": "Organization"},
        {"name": "corp", "uid": "1", "type": "Enterprise"},
    ]
    assert event["fed"]["missing"] == ["time", "src_endpoint"]
    assert event["fed"]["raw_context"] == {name: value for name, value in HEADERS.items() if name.startswith("x-github")}
    assert event["unmapped"] == {
        "member": {"type": "User"},
        "changes": {"permission": {"to": "write"}},
        "repository": {"private": True},
    }
    assert event["raw_data"] == body.decode()


def test_a_delivery_without_an_action_and_one_that_is_no_json() -> None:
    (push,) = take(
        GITHUB, compact({"ref": "refs/heads/main", "sender": {"login": "a"}}).encode(), {**HEADERS, "x-github-event": "push"}
    )
    assert push.event["api"]["operation"] == "push"
    assert push.event["activity_id"] == 99
    (form,) = take(GITHUB, b"payload=%7B%7D", HEADERS)
    assert form.error == "not JSON"
    assert form.event["fed"]["raw_context"]["x-github-event"] == "member"


def test_bodies() -> None:
    one, two = compact(CREATED), compact(LOGIN)
    for body in (f"[{one},{two}]", f"{one}\n{two}", f"{one}{two}"):
        assert [found.uid for found in take(GITHUB, body.encode(), {"user-agent": "x"})] == ["doc-1", None]


@pytest.mark.parametrize("record", [{}, {"action": ""}, {"action": 5}, {"Action": "repo.create"}])
def test_what_is_no_record_of_the_audit_log_is_a_base_event(record: JSONObject) -> None:
    (found,) = take(GITHUB, compact(record).encode())
    assert found.error == "no action: not a record of GitHub's audit log"


@settings(max_examples=300)
@given(mutated(CREATED) | mutated(LOGIN) | mutated(PAYLOAD), st.booleans())
def test_no_record_makes_the_mapping_fail_or_lose_anything(record: JSONObject, is_delivery: bool) -> None:
    raw = json.dumps(record).encode()
    for found in take(GITHUB, raw if is_delivery else b"[" + raw + b"]", HEADERS if is_delivery else {}):
        if not found.error:
            assert list(lost(json.loads(raw), found.event, STATED["github"])) == []
