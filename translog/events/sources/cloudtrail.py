"""AWS CloudTrail: management, data, sign-in and network activity records.

Bodies: delivery files (`{"Records": [...]}`), arrays, single records, records one behind the other; and the envelope in which
EventBridge delivers a record (`{"detail-type": ..., "detail": {...}}`), whose other members go to `unmapped`.

Rules: a record is an API Activity, unless it is a sign-in, or a change of a user or a group whose name the record has. A record
without an error code succeeded if it is of a kind that is a request. `sourceIPAddress` may be the DNS name of an AWS service.
`invokedBy`, `onBehalfOf` and `sourceIdentity` are who stands behind the identity. What resources a record does not list is read
from those request parameters that can be nothing else.
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
"""

import re
from collections.abc import Mapping
from typing import Any

from translog.events.jsontext import JSONObject, Slice, split_list
from translog.events.mapping import (
    MappingError,
    Row,
    Source,
    Table,
    activity_of,
    address,
    anything,
    boolean,
    enum,
    listed,
    pick,
    put,
    rfc3339,
    string,
)

_USER_TYPE = enum(
    {
        **dict.fromkeys(("IAMUser", "FederatedUser", "SAMLUser", "WebIdentityUser", "IdentityCenterUser", "Directory"), 1),
        "Root": 2,
        "AWSService": 4,
        "Unknown": 0,
        **dict.fromkeys(("AssumedRole", "Role", "AWSAccount"), 99),
    }
)
_YES_OR_NO = enum({"Yes": True, "No": False})


def _service(value: Any) -> str | None:
    """The DNS name of a service where an address could stand."""
    return value if type(value) is str and value and address(value) is None else None


def _object(value: Any) -> JSONObject | None:
    return value if type(value) is dict and value else None


def _resource(value: Any) -> JSONObject | None:
    """One of `resources`. What is not understood stays in its `data`."""
    if type(value) is not dict:
        return None
    resource: JSONObject = {}
    rest = _RESOURCE.apply(value, resource)
    if "uid" not in resource:
        return None
    if rest:
        resource["data"] = rest
    return resource


_RESOURCE = Table(
    (Row("ARN", "uid", string), Row("arn", "uid", string), Row("type", "type", string), Row("accountId", "owner.account.uid"))
)

# What the rows put below `_` is for the code that follows, which takes it out again.
_TABLE = Table(
    (
        Row("eventID", "metadata.uid"),
        Row("eventVersion", "metadata.log_version"),
        Row("eventTime", "metadata.original_time"),
        Row("eventTime", "time", rfc3339),
        Row("eventType", "metadata.event_code", string),
        Row("eventCategory", "metadata.log_name", string),
        Row("sharedEventID", "metadata.correlation_uid"),
        Row("requestID", "metadata.correlation_uid"),
        Row("requestID", "api.request.uid"),
        Row("eventName", "api.operation", string),
        Row("eventSource", "api.service.name", string),
        Row("apiVersion", "api.version"),
        Row("requestParameters", "api.request.data", anything),
        Row("responseElements", "api.response.data", anything),
        Row("errorCode", "api.response.error"),
        Row("errorCode", "status_code"),
        Row("errorMessage", "status_detail"),
        Row("awsRegion", "cloud.region", string),
        Row("recipientAccountId", "cloud.account.uid"),
        Row("sourceIPAddress", "src_endpoint.ip", address),
        Row("sourceIPAddress", "src_endpoint.svc_name", _service),
        Row("userAgent", "http_request.user_agent"),
        Row("resources", "resources", listed(_resource)),
        Row("userIdentity.type", "actor.user.type", string),
        Row("userIdentity.type", "actor.user.type_id", _USER_TYPE),
        Row("userIdentity.arn", "actor.user.uid", string),
        Row("userIdentity.principalId", "actor.user.uid_alt"),
        Row("userIdentity.userName", "actor.user.name"),
        Row("userIdentity.sessionContext.sessionIssuer.userName", "actor.user.name"),
        Row("userIdentity.accountId", "actor.user.account.uid"),
        Row("userIdentity.accessKeyId", "actor.user.credential_uid"),
        Row("userIdentity.credentialId", "actor.session.credential_uid"),
        Row("userIdentity.sessionContext.attributes.creationDate", "actor.session.created_time", rfc3339),
        Row("userIdentity.sessionContext.attributes.mfaAuthenticated", "actor.session.is_mfa", boolean),
        Row("userIdentity.sessionContext.sessionIssuer.arn", "actor.session.issuer"),
        Row("userIdentity.sessionContext.webIdFederationData.federatedProvider", "actor.idp.name"),
        Row("userIdentity.identityProvider", "actor.idp.name"),
        Row("userIdentity.invokedBy", "actor.invoked_by", string),
        Row("userIdentity.onBehalfOf", "_.on_behalf_of", _object),
        Row("userIdentity.sourceIdentity", "_.source_identity", string),
        Row("userIdentity.sessionContext.sourceIdentity", "_.source_identity", string),
    )
)
_ON_BEHALF_OF = Table((Row("userId", "uid", string), Row("identityStoreArn", "domain", string)))

_REQUESTS = frozenset(("AwsApiCall", "AwsConsoleSignIn", "AwsConsoleAction", "AwsVpceEvent"))
"""The types of records that are requests."""

_DENIED = frozenset(
    (
        "AccessDenied",
        "AccessDeniedException",
        "UnauthorizedOperation",
        "UnauthorizedAccess",
        "NotAuthorized",
        "AuthorizationError",
    )
)
_POLICY = re.compile(
    r"(?:with an explicit deny in (?:an? |the )?|because no )((?:[a-z]+[ -]){0,4}(?:policy|boundary|policies))\b", re.ASCII
)
"""How AWS says which kind of policy refused: "because no identity-based policy allows the ec2:RunInstances action"."""

_LOGINS = {"ConsoleLogin": 1, "CheckMfa": 6, "SwitchRole": 7}
"""activity_id of class 3002 of the sign-in service's operations."""
_USER_CHANGES = {
    "CreateUser": 1,
    "DeleteUser": 6,
    "ChangePassword": 3,
    "UpdateLoginProfile": 4,
    "AttachUserPolicy": 7,
    "PutUserPolicy": 7,
    "DetachUserPolicy": 8,
    "DeleteUserPolicy": 8,
    "EnableMFADevice": 10,
    "DeactivateMFADevice": 11,
}
"""activity_id of class 3001 of IAM's operations."""
_GROUP_CHANGES = {
    "AttachGroupPolicy": 1,
    "PutGroupPolicy": 1,
    "DetachGroupPolicy": 2,
    "DeleteGroupPolicy": 2,
    "AddUserToGroup": 3,
    "RemoveUserFromGroup": 4,
    "DeleteGroup": 5,
    "CreateGroup": 6,
}
"""activity_id of class 3006 of IAM's operations."""

_PARAMETERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "s3.amazonaws.com": (("bucketName", "AWS::S3::Bucket"),),
    "iam.amazonaws.com": (
        ("userName", "AWS::IAM::User"),
        ("roleName", "AWS::IAM::Role"),
        ("groupName", "AWS::IAM::Group"),
        ("instanceProfileName", "AWS::IAM::InstanceProfile"),
        ("policyArn", "AWS::IAM::ManagedPolicy"),
    ),
    "sts.amazonaws.com": (("roleArn", "AWS::IAM::Role"),),
    "ec2.amazonaws.com": (("instanceId", "AWS::EC2::Instance"), ("volumeId", "AWS::EC2::Volume")),
    "lambda.amazonaws.com": (("functionName", "AWS::Lambda::Function"),),
    "kms.amazonaws.com": (("keyId", "AWS::KMS::Key"),),
    "secretsmanager.amazonaws.com": (("secretId", "AWS::SecretsManager::Secret"),),
    "rds.amazonaws.com": (("dBInstanceIdentifier", "AWS::RDS::DBInstance"),),
    "dynamodb.amazonaws.com": (("tableName", "AWS::DynamoDB::Table"),),
}
"""The request parameters that name a resource, by service, with the type it then has."""


def _split(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
    return split_list(body, "Records", records_max=records_max)


def _map(record: JSONObject, context: JSONObject) -> JSONObject:
    envelope: JSONObject = {}
    if "eventName" not in record and type(record.get("detail")) is dict:
        envelope = {name: value for name, value in record.items() if name != "detail"}
        record = record["detail"]
    event: JSONObject = {
        "metadata": {
            "product": {"name": "CloudTrail", "vendor_name": "AWS"},
            "log_provider": "AWS",
            "profiles": ["cloud"],
        },
        "cloud": {"provider": "AWS"},
    }
    rest = _TABLE.apply(record, event)
    operation = pick(event, "api", "operation")
    if operation is None:
        raise MappingError("no eventName: not a CloudTrail record")
    _add_people(event)
    _add_outcome(event, operation)
    if not (_is_login(event, operation, rest) or _is_user_change(event, operation) or _is_group_change(event, operation)):
        event["class_uid"] = 6003
        event["activity_id"] = activity_of(operation)
        if "resources" not in event:
            _add_resources(event)
    elif "resources" in event:
        rest["resources"] = record["resources"]
        del event["resources"]
    if envelope:
        rest["envelope"] = envelope
    if rest:
        event["unmapped"] = rest
    return event


def _add_people(event: JSONObject) -> None:
    """Who stands behind the identity; and the service, where it is the identity."""
    more = event.pop("_", {})
    actor = event.get("actor", {})
    behind = []
    invoked_by = actor.get("invoked_by")
    if invoked_by is not None:
        user = actor.setdefault("user", {})
        if user.keys().isdisjoint(("name", "uid", "account")):
            user["name"] = invoked_by
        else:
            behind.append({"name": invoked_by, "type": "Service", "type_id": 4})
    if "on_behalf_of" in more:
        user = {}
        rest = _ON_BEHALF_OF.apply(more["on_behalf_of"], user)
        behind.append(user | ({"data": rest} if rest else {}))
    if "source_identity" in more:
        behind.append({"name": more["source_identity"]})
    if behind:
        event["fed"] = {"on_behalf_of": behind}


def _add_outcome(event: JSONObject, operation: str) -> None:
    """Status, and what was decided where the record says it was refused, and by which kind of policy."""
    error = event.get("status_code")
    if error is None:
        if event["metadata"].get("event_code") in _REQUESTS:
            answer = pick(event, "api", "response", "data", operation)
            event["status_id"] = 2 if answer == "Failure" else 1
        return
    event["status_id"] = 2
    if error.removeprefix("Client.") not in _DENIED:
        return
    authorization: JSONObject = {"decision": "denied"}
    match = _POLICY.search(event.get("status_detail", "")[:4096])
    if match is not None:
        authorization["policy"] = {"type": match[1]}
    event.setdefault("actor", {})["authorizations"] = [authorization]
    event.setdefault("fed", {})["why"] = {**authorization}


def _is_login(event: JSONObject, operation: str, rest: JSONObject) -> bool:
    """Makes a sign-in an Authentication, if the record says who signed in."""
    user = pick(event, "actor", "user")
    service = pick(event, "api", "service", "name")
    if operation not in _LOGINS or service != "signin.amazonaws.com" or user is None:
        return False
    event["class_uid"] = 3002
    event["activity_id"] = _LOGINS[operation]
    event["user"] = user
    event["service"] = {"name": service}
    used = _YES_OR_NO(pick(rest, "additionalEventData", "MFAUsed"))
    if used is not None:
        event["is_mfa"] = used
    return True


def _is_user_change(event: JSONObject, operation: str) -> bool:
    """Makes a change of a user an Account Change, if the record names the user."""
    if operation not in _USER_CHANGES or pick(event, "api", "service", "name") != "iam.amazonaws.com":
        return False
    parameters = pick(event, "api", "request", "data")
    user = _named(parameters, "userName")
    if user is None and operation == "ChangePassword":
        user = pick(event, "actor", "user")
    if user is None:
        return False
    put(user, "uid", string(pick(event, "api", "response", "data", "user", "arn")))
    event["class_uid"] = 3001
    event["activity_id"] = _USER_CHANGES[operation]
    event["user"] = user
    policy: JSONObject = {}
    put(policy, "uid", string(pick(parameters, "policyArn")))
    put(policy, "name", string(pick(parameters, "policyName")))
    if policy:
        event["policies"] = [policy]
    return True


def _is_group_change(event: JSONObject, operation: str) -> bool:
    """Makes a change of a group a Group Management event, if the record names the group."""
    if operation not in _GROUP_CHANGES or pick(event, "api", "service", "name") != "iam.amazonaws.com":
        return False
    parameters = pick(event, "api", "request", "data")
    group = _named(parameters, "groupName")
    if group is None:
        return False
    event["class_uid"] = 3006
    event["activity_id"] = _GROUP_CHANGES[operation]
    event["group"] = group
    put(event, "user", _named(parameters, "userName"))
    policy = string(pick(parameters, "policyArn")) or string(pick(parameters, "policyName"))
    if policy is not None:
        event["privileges"] = [policy]
    return True


def _named(parameters: Any, name: str) -> JSONObject | None:
    value = string(pick(parameters, name))
    return None if value is None else {"name": value}


def _add_resources(event: JSONObject) -> None:
    parameters = pick(event, "api", "request", "data")
    resources = []
    for name, kind in _PARAMETERS.get(pick(event, "api", "service", "name"), ()):
        value = string(pick(parameters, name))
        if value is not None:
            resources.append({"uid" if value.startswith("arn:") else "name": value, "type": kind})
    put(event, "resources", resources)


CLOUDTRAIL = Source(name="cloudtrail", version="1", split=_split, map=_map)
