"""GitHub: the audit log of an organization or enterprise, and webhook deliveries.

Bodies: audit log records in arrays or one behind the other (the API, the stream's files); or, where the header `X-GitHub-Event`
says so, one webhook payload in JSON, whose event, delivery and hook are kept beside it as its context. Whether the delivery is
signed is not looked at here.

Rules: an audit log record tells of what was done, so it succeeded, unless its action says that it failed. Its times are
milliseconds or text. `user` is whom it was done to, a resource. A webhook payload has no time of its own and no address:
`fed.missing` names both. Nothing numbers records, so an omission does not show.
https://docs.github.com/en/organizations/keeping-your-organization-secure/managing-security-settings-for-your-organization/audit-log-events-for-your-organization
https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from collections.abc import Mapping
from typing import Any

from translog.events.jsontext import JSONObject, Slice, parse_record, split_stream
from translog.events.mapping import (
    CREATE,
    DELETE,
    OTHER,
    READ,
    UPDATE,
    MappingError,
    Row,
    Source,
    Table,
    activity_of,
    address,
    enum,
    epoch,
    put,
    rfc3339,
    string,
)

_HEADERS = (
    "x-github-event",
    "x-github-delivery",
    "x-github-hook-id",
    "x-github-hook-installation-target-type",
    "x-github-hook-installation-target-id",
)
_MILLISECONDS = epoch(1)


def _moment(value: Any) -> int | None:
    """Milliseconds, or a time as text."""
    return rfc3339(value) if type(value) is str and "-" in value else _MILLISECONDS(value)


def _is_bot(value: Any) -> int | None:
    """OCSF's type_id of a user."""
    return (4 if value else 1) if type(value) is bool else None


# What the rows put below `_` is for the code that follows, which takes it out again.
_AUDIT = Table(
    (
        Row("_document_id", "metadata.uid", string),
        Row("@timestamp", "time", _moment),
        Row("created_at", "time", _moment),
        Row("@timestamp", "metadata.original_time"),
        Row("created_at", "metadata.original_time"),
        Row("request_id", "metadata.correlation_uid", string),
        Row("action", "api.operation", string),
        Row("operation_type", "_.operation_type", string),
        Row("actor", "actor.user.name", string),
        Row("actor_id", "actor.user.uid"),
        Row("actor_is_bot", "actor.user.type_id", _is_bot),
        Row("external_identity_nameid", "actor.user.uid_alt", string),
        Row("token_id", "actor.user.credential_uid"),
        Row("hashed_token", "actor.user.credential_uid", string),
        Row("oauth_application_name", "actor.app_name", string),
        Row("integration", "actor.app_name", string),
        Row("oauth_application_id", "actor.app_uid"),
        Row("actor_ip", "src_endpoint.ip", address),
        Row("actor_location.country_code", "src_endpoint.location.country", string),
        Row("user_agent", "http_request.user_agent", string),
        Row("repo", "_.repo.name", string),
        Row("repository", "_.repo.name", string),
        Row("repo_id", "_.repo.uid"),
        Row("repository_id", "_.repo.uid"),
        Row("team", "_.team.name", string),
        Row("team_id", "_.team.uid"),
        Row("user", "_.user.name", string),
        Row("user_id", "_.user.uid"),
        Row("org", "_.org.name", string),
        Row("org_id", "_.org.uid"),
        Row("business", "_.business.name", string),
        Row("business_id", "_.business.uid"),
    )
)
_WEBHOOK = Table(
    (
        Row("action", "_.action", string),
        Row("sender.login", "actor.user.name", string),
        Row("sender.id", "actor.user.uid"),
        Row("sender.type", "actor.user.type", string),
        Row("sender.type", "actor.user.type_id", enum({"User": 1, "Bot": 4})),
        Row("installation.id", "actor.app_uid"),
        Row("repository.full_name", "_.repo.name", string),
        Row("repository.id", "_.repo.uid"),
        Row("team.slug", "_.team.name", string),
        Row("team.id", "_.team.uid"),
        Row("member.login", "_.user.name", string),
        Row("member.id", "_.user.uid"),
        Row("organization.login", "_.org.name", string),
        Row("organization.id", "_.org.uid"),
        Row("enterprise.slug", "_.business.name", string),
        Row("enterprise.id", "_.business.uid"),
    )
)
_RESOURCES = {"repo": "Repository", "team": "Team", "user": "User", "org": "Organization", "business": "Enterprise"}
"""What a record may be about, the closest first."""

_OPERATIONS = {"create": CREATE, "access": READ, "modify": UPDATE, "restore": UPDATE, "transfer": UPDATE, "remove": DELETE}
"""The activity of an audit log record's operation_type."""
_ACTIONS = {
    **dict.fromkeys(("created", "opened", "added", "published", "submitted", "member_added", "reopened"), CREATE),
    **dict.fromkeys(
        ("edited", "renamed", "transferred", "closed", "archived", "unarchived", "publicized", "privatized"), UPDATE
    ),
    **dict.fromkeys(("deleted", "removed", "member_removed", "revoked", "dismissed"), DELETE),
}
"""The activity of a webhook's action, where it is plain."""


def _split(body: bytes, headers: Mapping[str, str], records_max: int) -> list[Slice]:
    context: JSONObject = {name: headers[name] for name in _HEADERS if headers.get(name)}
    if "x-github-event" in context:
        return [parse_record(body, context)]
    return split_stream(body, records_max=records_max)


def _map(record: JSONObject, context: JSONObject) -> JSONObject:
    event: JSONObject = {
        "metadata": {"product": {"name": "GitHub", "vendor_name": "GitHub"}, "log_provider": "GitHub"},
        "class_uid": 6003,
        "api": {"service": {"name": "github"}},
    }
    rest = _map_webhook(event, record, context) if "x-github-event" in context else _map_audit(event, record)
    if rest:
        event["unmapped"] = rest
    return event


def _map_audit(event: JSONObject, record: JSONObject) -> JSONObject:
    event["metadata"]["log_name"] = "audit log"
    rest = _AUDIT.apply(record, event)
    action = event["api"].get("operation")
    if action is None:
        raise MappingError("no action: not a record of GitHub's audit log")
    more = event.pop("_", {})
    operation_type = more.get("operation_type")
    event["activity_id"] = _OPERATIONS.get(operation_type, activity_of(action))
    put(rest, "operation_type", operation_type)
    event["status_id"] = 2 if "failed" in action.replace(".", "_").split("_") else 1
    _add_resources(event, more)
    return rest


def _map_webhook(event: JSONObject, record: JSONObject, context: JSONObject) -> JSONObject:
    name: str = context["x-github-event"]
    event["metadata"]["log_name"] = "webhook"
    put(event, "metadata.uid", context.get("x-github-delivery"))
    rest = _WEBHOOK.apply(record, event)
    more = event.pop("_", {})
    action = more.get("action")
    event["api"]["operation"] = name if action is None else f"{name}.{action}"
    event["activity_id"] = _ACTIONS.get(action, OTHER)
    _add_resources(event, more)
    return rest


def _add_resources(event: JSONObject, more: JSONObject) -> None:
    resources = [{**more[name], "type": kind} for name, kind in _RESOURCES.items() if name in more]
    put(event, "resources", resources)


GITHUB = Source(name="github", version="1", split=_split, map=_map)
