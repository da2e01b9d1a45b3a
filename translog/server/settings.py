"""The `[server]` section of translog.toml: listeners, access, TLS, and a limit on everything that comes in."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Milliseconds = Annotated[int, Field(ge=1)]
Bytes = Annotated[int, Field(ge=1)]


class PublicRead(StrEnum):
    """Who may fetch entries. Hash tiles, proofs, receipts and checkpoints are for everyone."""

    EVERYONE = "everyone"
    MEMBERS = "members"
    LISTED = "listed"


class TLSSettings(BaseModel):
    """The `[server.tls]` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cert: Path | None = Field(None, description="Certificate chain, PEM. With `key`, the public listener speaks TLS.")
    key: Path | None = Field(None, description="Private key of the certificate, PEM.")
    client_ca: Path | None = Field(None, description="Ask every client for a certificate signed by one of these, PEM.")
    handshake_timeout_ms: Milliseconds = Field(
        10_000, description="A TLS handshake must be done within this time; until then it is one of `connections_max`."
    )
    reload_interval_ms: Milliseconds = Field(30_000, description="How often the files are looked at for changes.")


class IntakeSettings(BaseModel):
    """The `[server.intake]` section: how audit events are taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blob_bytes_min: Annotated[int, Field(ge=1_024, le=8 * 1024 * 1024)] = Field(
        65_536, description="A field of an event above this size is stored beside its payload, as a record of its own."
    )
    audit_signal: bool = Field(
        False, description="Take `POST /v1/audit`, the draft OpenTelemetry audit signal. Its interface may change."
    )
    custom_sources: tuple[Path, ...] = Field(
        (), max_length=100, description="Mappings of members' own sources, TOML files, as paths in the log's directory."
    )
    push_deadline_ms: Milliseconds = Field(
        4_000,
        description="How long senders that push wait for the commit before they are answered 503: less than half of what "
        "OpenTelemetry's exporters wait in all. What was logged all the same is recognised when they send it again.",
    )
    streams_per_read_max: Annotated[int, Field(ge=1)] = Field(1_000, description="Streams in one `/v1/streams` answer.")


class ServerSettings(BaseModel):
    """Listeners, access and limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:6962", description="Address and port of the public interface.")
    admin_listen: str = Field(
        "127.0.0.1:6963",
        description="Address and port of metrics and operator actions; empty switches it off. Requests must name it by an IP "
        "address, `localhost`, or the host written here.",
    )
    public_url: str = Field(
        "",
        description="The URL prefix others reach this log at; policies and the URLs of receipts carry it. With it, "
        "`loopback_append` has no effect.",
    )
    public_read: PublicRead = Field(PublicRead.EVERYONE, description="Who may fetch entries: everyone, members or listed.")
    loopback_append: bool = Field(
        True,
        description="Let programs on this machine append without credentials, but not read more than everybody may. Only "
        "while `public_url` and `[[members]]` are empty and `behind_proxy` is off, and for requests over loopback, of HTTP/1.1 "
        "or later, that name the host by an IP address or `localhost`, have no forwarding header and come from no web page.",
    )
    behind_proxy: bool = Field(
        False, description="A proxy in front terminates TLS: accept credentials on this plaintext listener."
    )
    witness: str = Field(
        "",
        description="A witness's directory, as a path in the log's directory (`translog witness init` makes one): it is served "
        "under `/witness`, and never cosigns this log's own checkpoints.",
    )
    tls: TLSSettings = TLSSettings()
    intake: IntakeSettings = IntakeSettings()
    publish_deadline_ms: Milliseconds = Field(
        2_000, description="How long an append waits for its checkpoint before it is answered 202."
    )
    commit_deadline_ms: Milliseconds = Field(
        30_000, description="How long an append waits to be committed before it is answered 503 outcome-unknown."
    )
    body_bytes_max: Bytes = Field(16 * 1024 * 1024, description="Largest request body as sent, compressed or not.")
    decoded_bytes_max: Bytes = Field(
        32 * 1024 * 1024, description="Largest request body after decompression: a bomb stops here."
    )
    body_timeout_ms: Milliseconds = Field(30_000, description="A request body must have arrived within this time.")
    entries_per_request_max: Annotated[int, Field(ge=1)] = Field(10_000, description="Entries in one append, at most.")
    entries_per_read_max: Annotated[int, Field(ge=1)] = Field(1_000, description="Entries in one `/v1/entries` answer.")
    read_bytes_max: Bytes = Field(4 * 1024 * 1024, description="Bytes of entries after which an answer ends early.")
    bodies_bytes_max: Bytes = Field(
        256 * 1024 * 1024, description="Bytes of request bodies held for all connections together; above it 503."
    )
    answers_bytes_max: Bytes = Field(
        256 * 1024 * 1024, description="Bytes of large answers held for all connections together; above it 503."
    )
    request_line_bytes_max: Bytes = Field(8_190, description="Longest request line: path and query.")
    header_bytes_max: Bytes = Field(8_190, description="Longest single header.")
    headers_max: Annotated[int, Field(ge=8)] = Field(64, description="Headers in a request, at most.")
    connections_max: Annotated[int, Field(ge=1)] = Field(
        4_000,
        description="Open connections; one more is answered 503 and closed, over TLS only closed. Mind the limit on open "
        "files.",
    )
    idle_timeout_ms: Milliseconds = Field(
        75_000, description="A connection without a complete request for this long is closed: slow heads, idle keep-alives."
    )
    send_timeout_ms: Milliseconds = Field(
        300_000, description="An answer must be taken within this time: a slow reader may take long, but not for ever."
    )
    drain_timeout_ms: Milliseconds = Field(10_000, description="How long a stop waits for requests under way.")
    access_log: bool = Field(False, description="Log every request, not only those that failed here (5xx).")
