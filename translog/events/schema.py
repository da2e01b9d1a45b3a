"""The canonical event in types: for the OpenAPI document, and for people who handle events in Python.

Rules: names and meanings are OCSF 1.8.0's, `fed` is ours. Attributes of OCSF that are not spelled out here are let through as
they are. Nothing on the way of an event into the log uses these models: what an event needs is model.py's business, and whether
it is OCSF to the letter strict.py's. Optional attributes that an event does not have are None, so dump with `exclude_none`.
https://schema.ocsf.io/1.8.0
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Milliseconds = Annotated[int, Field(description="Milliseconds since 1970-01-01T00:00:00Z.")]


class _Object(BaseModel):
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)


class Group(_Object):
    """A group of users."""

    name: str | None = None
    uid: str | None = None


class Account(_Object):
    """The account that a principal or a cloud resource belongs to."""

    name: str | None = None
    uid: str | None = None


class User(_Object):
    """A person or another principal. At least one of name, uid and account."""

    name: str | None = None
    """The login name."""
    uid: str | None = None
    """What identifies the principal for ever at its source: an ARN, a number."""
    uid_alt: str | None = None
    """A second identifier."""
    type_id: int | None = None
    """0 unknown, 1 user, 2 admin, 3 system, 4 service, 99 other (then `type` says what)."""
    type: str | None = None
    """The source's own word for the kind of principal."""
    email_addr: str | None = None
    full_name: str | None = None
    domain: str | None = None
    """Where the name is valid: a directory, a tenant."""
    groups: list[Group] | None = None
    account: Account | None = None
    credential_uid: str | None = None
    """The credential that was used, by its id: an access key, a token's hash. Never the credential itself."""


class Session(_Object):
    """The session in which it was done."""

    uid: str | None = None
    issuer: str | None = None
    """Who issued it: the role that was assumed, the identity provider."""
    created_time: Milliseconds | None = None
    is_mfa: bool | None = None
    credential_uid: str | None = None


class IdentityProvider(_Object):
    """Who vouched for the user."""

    name: str | None = None
    uid: str | None = None


class Policy(_Object):
    """A policy, rule or binding. At least one of name, uid and type."""

    name: str | None = None
    uid: str | None = None
    type: str | None = None
    """Its kind: ClusterRoleBinding, service control policy."""
    version: str | None = None
    desc: str | None = None


class Authorization(_Object):
    """One decision on whether the actor may, and what made it."""

    decision: str | None = None
    """`allowed` or `denied`; a source's own word where it means neither."""
    policy: Policy | None = None


class Actor(_Object):
    """Who did it, as the source says. At least one of its attributes."""

    user: User | None = None
    session: Session | None = None
    idp: IdentityProvider | None = None
    invoked_by: str | None = None
    """The service through which it was done."""
    app_name: str | None = None
    app_uid: str | None = None
    authorizations: list[Authorization] | None = None
    """What was decided: allowed or denied, and by which policy."""


class Service(_Object):
    """A service."""

    name: str | None = None
    uid: str | None = None


class Request(_Object):
    """What was asked."""

    uid: str | None = None
    """The request's id at its source."""
    data: Any = None
    """Its parameters, as the source gives them."""


class Response(_Object):
    """What was answered."""

    code: int | None = None
    error: str | None = None
    """The error's code or name."""
    message: str | None = None
    data: Any = None


class Api(_Object):
    """What was called."""

    operation: str | None = None
    """In the source's own words: `CreateUser`, `repo.create`, `create/exec`."""
    service: Service | None = None
    version: str | None = None
    request: Request | None = None
    response: Response | None = None


class Resource(_Object):
    """What it was done to. At least one of name and uid."""

    name: str | None = None
    uid: str | None = None
    type: str | None = None
    namespace: str | None = None
    version: str | None = None
    owner: User | None = None
    data: Any = None


class Location(_Object):
    """Where on Earth, as the source says."""

    country: str | None = None
    """ISO 3166-1 alpha-2."""
    city: str | None = None


class Endpoint(_Object):
    """A network endpoint. At least one of ip, hostname, svc_name, name and uid."""

    ip: str | None = None
    """As the source saw or was told it."""
    port: int | None = None
    hostname: str | None = None
    svc_name: str | None = None
    """The name of the service where the source gives that in place of an address."""
    intermediate_ips: list[str] | None = None
    """Proxies in between."""
    location: Location | None = None


class Url(_Object):
    """A URL."""

    url_string: str | None = None


class HttpRequest(_Object):
    """The HTTP request that carried it."""

    user_agent: str | None = None
    http_method: str | None = None
    url: Url | None = None
    uid: str | None = None


class Cloud(_Object):
    """The cloud in which it happened (profile `cloud`)."""

    provider: str | None = None
    region: str | None = None
    account: Account | None = None


class Span(_Object):
    """A span of a trace."""

    uid: str | None = None
    parent_uid: str | None = None
    start_time: Milliseconds | None = None
    end_time: Milliseconds | None = None


class Trace(_Object):
    """The distributed trace that it is part of (profile `trace`)."""

    uid: str | None = None
    """The W3C trace id: 32 hex digits."""
    span: Span | None = None


class Product(_Object):
    """What wrote the record."""

    name: str | None = None
    vendor_name: str | None = None
    version: str | None = None


class Metadata(_Object):
    """About the record itself."""

    version: str | None = None
    """OCSF's version."""
    uid: str | None = None
    """The event's id. With member and stream it makes a resend a duplicate."""
    product: Product | None = None
    profiles: list[str] | None = None
    """OCSF's profiles that this event uses."""
    original_time: str | None = None
    """The time as the source wrote it."""
    logged_time: Milliseconds | None = None
    """When the source's own log took it in."""
    log_name: str | None = None
    log_provider: str | None = None
    log_version: str | None = None
    log_level: str | None = None
    event_code: str | None = None
    correlation_uid: str | None = None
    """What joins the events of one request."""
    tenant_uid: str | None = None
    sequence: int | None = None
    labels: list[str] | None = None


class Observable(_Object):
    """A value by which this event can be joined with others."""

    name: str | None = None
    """Its path in the event: `actor.user.uid`, `resources[].uid`."""
    type_id: int | None = None
    """OCSF's kind of value: 2 IP address, 4 user name, 10 resource uid, 31 user uid, 99 another."""
    value: str | None = None


class Why(_Object):
    """Why it was done, and why it was allowed or denied, as far as the record says."""

    reason: str | None = None
    """In words: of the person, or of the authorizer."""
    ticket: str | None = None
    """The ticket or change that asked for it."""
    approval_uid: str | None = None
    """The approval that it was done under."""
    policy: Policy | None = None
    """By what it was allowed or denied."""
    decision: str | None = None
    """`allowed` or `denied`; a source's own word where it means neither."""


class Identity(_Object):
    """What was proven of who sent it, never the credential itself."""

    iss: str | None = None
    sub: str | None = None
    aud: str | None = None
    kid: str | None = None
    jkt: str | None = None
    """The key's RFC 7638 thumbprint."""
    method: str | None = None
    verified_at: Milliseconds | None = None
    jwks_leaf: int | None = None
    """The index of the entry with the issuer's keys at that time."""


class MappingName(_Object):
    """Which mapping made the event: the same record and mapping make the same event."""

    name: str | None = None
    version: str | None = None
    sha256: str | None = None
    """Of a mapping that is not part of the program."""


class Fed(_Object):
    """What OCSF has no place for, and what the log did to make the event."""

    ns: str | None = None
    """The member's own name space."""
    observer: str | None = None
    """Who saw it and made the record, where that is not who sent it."""
    reporter_chain: list[str] | None = None
    """Who passed the record on, the first first."""
    actor_canonical: str | None = None
    on_behalf_of: list[User] | None = None
    """For whom the actor acted: impersonated users, services in between, the person behind a role."""
    why: Why | None = None
    identity: Identity | None = None
    missing: list[str] | None = None
    """The paths of values that OCSF requires and that the record does not have. None is ever made up."""
    error: str | None = None
    """Why the record could not be mapped. Then the event is a Base Event with the original."""
    raw_encoding: str | None = None
    """`base64` where raw_data is not the record's text, because its bytes are not UTF-8."""
    raw_context: dict[str, Any] | None = None
    """What the source's mapping used beside the record."""
    conflicts_with: int | None = None
    """The index of the event that had this id first, with other content."""
    mapping: MappingName | None = None
    source_seq: int | None = None
    """The source's own number of the record in its sequence."""


class AuditEvent(_Object):
    """One audit event: what happened, who did it, to what, from where, how it ended, and the original record."""

    metadata: Metadata
    class_uid: int
    """0 Base Event, 3001 Account Change, 3002 Authentication, 3006 Group Management, 6003 API Activity, and others of OCSF."""
    category_uid: int
    activity_id: int
    """Of class 6003: 1 create, 2 read, 3 update, 4 delete, 99 other, 0 unknown."""
    type_uid: int
    """class_uid * 100 + activity_id."""
    severity_id: int
    """0 unknown, 1 informational, 2 low, 3 medium, 4 high, 5 critical, 6 fatal, 99 other."""
    time: Milliseconds | None = None
    """When it happened, as the source says; the log's own time is the entry's received_at_ms."""
    start_time: Milliseconds | None = None
    message: str | None = None
    actor: Actor | None = None
    user: User | None = None
    """Whom it was done to (3001, 3005), or who signed in (3002)."""
    group: Group | None = None
    privileges: list[str] | None = None
    policies: list[Policy] | None = None
    service: Service | None = None
    is_mfa: bool | None = None
    api: Api | None = None
    resources: list[Resource] | None = None
    src_endpoint: Endpoint | None = None
    dst_endpoint: Endpoint | None = None
    http_request: HttpRequest | None = None
    cloud: Cloud | None = None
    status_id: int | None = None
    """0 unknown, 1 success, 2 failure, 99 other."""
    status: str | None = None
    status_code: str | None = None
    """The source's own code."""
    status_detail: str | None = None
    trace: Trace | None = None
    raw_data: str | None = None
    """The record, byte for byte as received."""
    raw_data_size: int | None = None
    """Its bytes."""
    unmapped: dict[str, Any] | None = None
    """What of the record has no place elsewhere in the event."""
    observables: list[Observable] | None = None
    fed: Fed | None = None
