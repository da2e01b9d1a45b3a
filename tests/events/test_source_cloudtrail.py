"""CloudTrail's records: who, what, from where, how it ended and what was decided, in the classes that fit."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings

from translog.events.jsontext import JSONObject, compact
from translog.events.sources.cloudtrail import CLOUDTRAIL

from .mutants import mutated, take
from .records import lost
from .test_real_records import STATED

CALL: JSONObject = {
    "eventVersion": "1.08",
    "userIdentity": {
        "type": "AssumedRole",
        "principalId": "AROAEXAMPLE:alice",
        "arn": "arn:aws:sts::111122223333:assumed-role/admin/alice",
        "accountId": "111122223333",
        "accessKeyId": "ASIAEXAMPLE",
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": "AROAEXAMPLE",
                "arn": "arn:aws:iam::111122223333:role/admin",
                "accountId": "111122223333",
                "userName": "admin",
            },
            "webIdFederationData": {"federatedProvider": "idp.example", "attributes": {"aud": "x"}},
            "attributes": {"creationDate": "2026-01-02T03:00:00Z", "mfaAuthenticated": "true"},
            "sourceIdentity": "alice@corp.example",
        },
        "invokedBy": "cloudformation.amazonaws.com",
        "onBehalfOf": {"userId": "u-1", "identityStoreArn": "arn:aws:identitystore::111122223333:identitystore/d-1"},
    },
    "eventTime": "2026-01-02T03:04:05Z",
    "eventSource": "s3.amazonaws.com",
    "eventName": "DeleteBucket",
    "awsRegion": "eu-central-1",
    "sourceIPAddress": "192.0.2.1",
    "userAgent": "aws-cli/2",
    "errorCode": "AccessDenied",
    "errorMessage": "User is not authorized to perform: s3:DeleteBucket with an explicit deny in a service control policy",
    "requestParameters": {"bucketName": "audit", "Host": "audit.s3.amazonaws.com"},
    "responseElements": None,
    "additionalEventData": {"bytesTransferredIn": 0},
    "requestID": "REQ1",
    "eventID": "e-1",
    "readOnly": False,
    "resources": [{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::audit", "accountId": "111122223333", "extra": 1}],
    "eventType": "AwsApiCall",
    "managementEvent": True,
    "recipientAccountId": "111122223333",
    "sharedEventID": "shared-1",
    "eventCategory": "Management",
}
LOGIN: JSONObject = {
    "eventVersion": "1.08",
    "userIdentity": {"type": "IAMUser", "principalId": "AIDA", "accountId": "1", "userName": "bob"},
    "eventTime": "2026-01-02T03:04:05Z",
    "eventSource": "signin.amazonaws.com",
    "eventName": "ConsoleLogin",
    "awsRegion": "us-east-1",
    "sourceIPAddress": "2001:db8::1",
    "requestParameters": None,
    "responseElements": {"ConsoleLogin": "Failure"},
    "additionalEventData": {"MFAUsed": "Yes", "LoginTo": "https://console.example"},
    "eventID": "e-2",
    "eventType": "AwsConsoleSignIn",
    "recipientAccountId": "1",
    "eventCategory": "Management",
}
IAM: JSONObject = {
    **{name: value for name, value in LOGIN.items() if name not in ("additionalEventData", "eventName")},
    "eventSource": "iam.amazonaws.com",
    "eventType": "AwsApiCall",
    "requestID": "REQ2",
    "responseElements": None,
}


def event_of(record: JSONObject) -> JSONObject:
    (found,) = take(CLOUDTRAIL, compact(record).encode())
    assert found.error == ""
    return found.event


def iam(operation: str, parameters: Any, answer: Any = None) -> JSONObject:
    return event_of({**IAM, "eventName": operation, "requestParameters": parameters, "responseElements": answer})


def test_a_call() -> None:
    event = event_of(CALL)
    assert [event[name] for name in ("class_uid", "activity_id", "type_uid", "time")] == [6003, 4, 600304, 1_767_323_045_000]
    assert event["metadata"] == {
        "product": {"name": "CloudTrail", "vendor_name": "AWS"},
        "log_provider": "AWS",
        "profiles": ["cloud"],
        "log_version": "1.08",
        "original_time": "2026-01-02T03:04:05Z",
        "uid": "e-1",
        "event_code": "AwsApiCall",
        "log_name": "Management",
        "correlation_uid": "shared-1",
        "version": "1.8.0",
    }
    assert event["actor"] == {
        "user": {
            "type": "AssumedRole",
            "type_id": 99,
            "uid": "arn:aws:sts::111122223333:assumed-role/admin/alice",
            "uid_alt": "AROAEXAMPLE:alice",
            "name": "admin",
            "account": {"uid": "111122223333"},
            "credential_uid": "ASIAEXAMPLE",
        },
        "session": {"created_time": 1_767_322_800_000, "is_mfa": True, "issuer": "arn:aws:iam::111122223333:role/admin"},
        "idp": {"name": "idp.example"},
        "invoked_by": "cloudformation.amazonaws.com",
        "authorizations": [{"decision": "denied", "policy": {"type": "service control policy"}}],
    }
    assert event["api"] == {
        "service": {"name": "s3.amazonaws.com"},
        "operation": "DeleteBucket",
        "request": {"uid": "REQ1", "data": CALL["requestParameters"]},
        "response": {"error": "AccessDenied"},
    }
    assert event["resources"] == [
        {
            "uid": "arn:aws:s3:::audit",
            "type": "AWS::S3::Bucket",
            "owner": {"account": {"uid": "111122223333"}},
            "data": {"extra": 1},
        }
    ]
    assert event["cloud"] == {"provider": "AWS", "region": "eu-central-1", "account": {"uid": "111122223333"}}
    assert event["src_endpoint"] == {"ip": "192.0.2.1"}
    assert (event["status_id"], event["status_code"], event["status_detail"]) == (2, "AccessDenied", CALL["errorMessage"])
    assert event["fed"] == {
        "on_behalf_of": [
            {"name": "cloudformation.amazonaws.com", "type": "Service", "type_id": 4},
            {"uid": "u-1", "domain": "arn:aws:identitystore::111122223333:identitystore/d-1"},
            {"name": "alice@corp.example"},
        ],
        "why": {"decision": "denied", "policy": {"type": "service control policy"}},
        "mapping": {"name": "cloudtrail", "version": "1"},
    }
    assert event["unmapped"] == {
        "userIdentity": {
            "sessionContext": {
                "sessionIssuer": {"type": "Role", "principalId": "AROAEXAMPLE", "accountId": "111122223333"},
                "webIdFederationData": {"attributes": {"aud": "x"}},
            }
        },
        "additionalEventData": {"bytesTransferredIn": 0},
        "readOnly": False,
        "managementEvent": True,
    }


@pytest.mark.parametrize(
    ("code", "message", "decision", "policy"),
    [
        ("AccessDenied", "", "denied", None),
        (
            "Client.UnauthorizedOperation",
            "because no identity-based policy allows the ec2:RunInstances action",
            "denied",
            "identity-based policy",
        ),
        ("AccessDeniedException", "with an explicit deny in an identity-based policy", "denied", "identity-based policy"),
        ("UnauthorizedOperation", "because no permissions boundary allows the s3:Get action", "denied", "permissions boundary"),
        ("NoSuchBucket", "with an explicit deny in a service control policy", None, None),
        ("ThrottlingException", "Rate exceeded", None, None),
    ],
)
def test_what_was_decided(code: str, message: str, decision: str | None, policy: str | None) -> None:
    event = event_of({**IAM, "eventName": "ListUsers", "errorCode": code, "errorMessage": message})
    assert event["status_id"] == 2
    why = event["fed"].get("why", {})
    assert why.get("decision") == decision
    assert why.get("policy") == (None if policy is None else {"type": policy})
    assert event["actor"].get("authorizations") == (None if decision is None else [why])


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 1),
        ({"errorCode": None}, 1),
        ({"errorCode": ""}, 1),
        ({"errorCode": "X"}, 2),
        ({"eventType": "AwsServiceEvent"}, None),
        ({"eventType": None}, None),
    ],
)
def test_success_is_said_only_of_requests(change: JSONObject, status: int | None) -> None:
    assert event_of({**IAM, "eventName": "ListUsers", **change}).get("status_id") == status


def test_a_sign_in() -> None:
    event = event_of(LOGIN)
    assert (event["class_uid"], event["activity_id"], event["status_id"], event["is_mfa"]) == (3002, 1, 2, True)
    assert event["user"] == event["actor"]["user"]
    assert event["service"] == {"name": "signin.amazonaws.com"}
    assert event["src_endpoint"] == {"ip": "2001:db8::1"}
    assert "missing" not in event["fed"]
    assert event_of({**LOGIN, "responseElements": {"ConsoleLogin": "Success"}})["status_id"] == 1
    assert event_of({**LOGIN, "userIdentity": None})["class_uid"] == 6003
    assert event_of({**LOGIN, "eventSource": "other.amazonaws.com"})["class_uid"] == 6003


def test_changes_of_users_and_groups() -> None:
    created = iam("CreateUser", {"userName": "eve", "path": "/"}, {"user": {"arn": "arn:aws:iam::1:user/eve"}})
    assert (created["class_uid"], created["activity_id"]) == (3001, 1)
    assert created["user"] == {"name": "eve", "uid": "arn:aws:iam::1:user/eve"}
    attached = iam("AttachUserPolicy", {"userName": "eve", "policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"})
    assert (attached["class_uid"], attached["activity_id"]) == (3001, 7)
    assert attached["policies"] == [{"uid": "arn:aws:iam::aws:policy/AdministratorAccess"}]
    assert iam("PutUserPolicy", {"userName": "eve", "policyName": "p"})["policies"] == [{"name": "p"}]
    assert iam("ChangePassword", None)["user"]["name"] == "bob"
    added = iam("AddUserToGroup", {"groupName": "admins", "userName": "eve"})
    assert (added["class_uid"], added["activity_id"], added["group"], added["user"]) == (
        3006,
        3,
        {"name": "admins"},
        {"name": "eve"},
    )
    granted = iam("AttachGroupPolicy", {"groupName": "admins", "policyArn": "arn:p"})
    assert (granted["class_uid"], granted["activity_id"], granted["privileges"]) == (3006, 1, ["arn:p"])
    for operation, parameters in (
        ("CreateUser", None),
        ("CreateUser", {"userName": 5}),
        ("DeleteGroup", {}),
        ("CreateRole", {"userName": "x"}),
    ):
        assert iam(operation, parameters)["class_uid"] == 6003
    kept = event_of(
        {**IAM, "eventName": "CreateUser", "requestParameters": {"userName": "eve"}, "resources": CALL["resources"]}
    )
    assert "resources" not in kept
    assert kept["unmapped"]["resources"] == CALL["resources"]


def test_resources_are_read_from_parameters_that_can_be_nothing_else() -> None:
    assert iam("GetRole", {"roleName": "r", "userName": "u"})["resources"] == [
        {"name": "u", "type": "AWS::IAM::User"},
        {"name": "r", "type": "AWS::IAM::Role"},
    ]
    assert iam("GetPolicy", {"policyArn": "arn:aws:iam::1:policy/p"})["resources"] == [
        {"uid": "arn:aws:iam::1:policy/p", "type": "AWS::IAM::ManagedPolicy"}
    ]
    assert "resources" not in iam("ListUsers", {"bucketName": "b"})


def test_a_service_in_place_of_an_address_or_a_person() -> None:
    event = event_of(
        {
            **IAM,
            "eventName": "AssumeRole",
            "userIdentity": {"type": "AWSService", "invokedBy": "ec2.amazonaws.com"},
            "sourceIPAddress": "ec2.amazonaws.com",
        }
    )
    assert event["src_endpoint"] == {"svc_name": "ec2.amazonaws.com"}
    assert event["actor"]["user"] == {"type": "AWSService", "type_id": 4, "name": "ec2.amazonaws.com"}
    assert "on_behalf_of" not in event["fed"]
    assert "missing" not in event["fed"]


def test_bodies() -> None:
    one, two = compact(CALL), compact(LOGIN)
    for body in (f'{{"Records":[{one},\n{two}]}}', f"[{one},{two}]", f"{one}\n{two}\n", f"{one}{two}"):
        assert [found.uid for found in take(CLOUDTRAIL, body.encode())] == ["e-1", "e-2"]
    (found,) = take(
        CLOUDTRAIL, compact({"version": "0", "detail-type": "AWS API Call via CloudTrail", "detail": CALL}).encode()
    )
    assert found.uid == "e-1"
    assert found.event["unmapped"]["envelope"] == {"version": "0", "detail-type": "AWS API Call via CloudTrail"}


@pytest.mark.parametrize(
    "record", [{}, {"eventname": "CreateUser"}, {"eventName": ""}, {"eventName": 5}, {"detail": {}}, {"detail": []}]
)
def test_what_is_no_record_of_cloudtrail_is_a_base_event(record: JSONObject) -> None:
    (found,) = take(CLOUDTRAIL, compact(record).encode())
    assert found.error == "no eventName: not a CloudTrail record"


@settings(max_examples=300)
@given(
    mutated(CALL) | mutated(LOGIN) | mutated({**IAM, "eventName": "AttachUserPolicy", "requestParameters": {"userName": "u"}})
)
def test_no_record_makes_the_mapping_fail_or_lose_anything(record: JSONObject) -> None:
    before = copy.deepcopy(record)
    raw = json.dumps(record).encode()
    for found in take(CLOUDTRAIL, b"[" + raw + b"]"):
        if not found.error:
            assert list(lost(json.loads(raw), found.event, STATED["cloudtrail"])) == []
    assert record == before
