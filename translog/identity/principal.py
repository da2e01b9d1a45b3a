"""Principals, permissions and the members they come from.

Rules: deny by default; a right that is not in a principal's set does not exist. A member proves itself with a random token of
which only the SHA-256 is in the settings. Nobody's rights follow from a name in a request.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from translog.core.keys import VKey, parse_vkey
from translog.errors import AuthenticationError, MalformedError, PermissionDeniedError, SettingsError

NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
"""Names of members and streams: they are public, so a member may use an opaque label."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
LOG_MEMBER = "log"
"""The log itself: no member may have this name."""


class Permission(Enum):
    """What a principal may do. The value is how an error names it."""

    APPEND = "append entries"
    READ_ENTRIES = "read entries"
    READ_OWN_EVENTS = "read the events of its own streams"
    READ_ALL_EVENTS = "read the events of every member"


class Reads(StrEnum):
    """Whose events a member may read back."""

    NONE = "none"
    OWN = "own"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request comes from. `member` is None for someone unknown or merely local."""

    member: str | None
    permissions: frozenset[Permission]
    streams: tuple[str, ...] = ()
    """Those it may write to, its default first."""
    any_stream: bool = False
    not_local: str = ""
    """Why somebody on this machine is not taken for LOCAL, for the one who wonders."""


ANONYMOUS = Principal(member=None, permissions=frozenset())
"""No credentials: what everybody may do is decided where it is done."""
LOCAL_MEMBER = "local"
"""Who LOCAL is in a log of audit events: no other member may have this name."""
LOCAL = Principal(
    member=None,
    permissions=frozenset({Permission.APPEND, Permission.READ_OWN_EVENTS}),
    streams=("default",),
    any_stream=True,
)
"""No credentials, but from this very machine, on a log that trusts it. It reads what came from this machine, and no more than
everybody does of anything else."""


_ANY_STREAM = "*"


class MemberSettings(BaseModel):
    """One `[[members]]` table of translog.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(description="The member's public name.")
    token_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="SHA-256 of the member's token, in hex. `translog keys token` makes a token and this line."
    )
    streams: tuple[Annotated[str, Field(pattern=rf"{NAME_PATTERN}|^\*$")], ...] = Field(
        ("default",),
        min_length=1,
        max_length=1_000,
        description='The streams it may write to; the first is its default, and "*" allows any. No effect on opaque logs: '
        "they have no streams.",
    )
    may_append: bool = Field(True, description="Whether it may append entries.")
    may_read: bool = Field(False, description='Whether it may read entries where `public_read` is "listed".')
    reads: Reads = Field(
        Reads.NONE,
        description="Whose audit events it may read back, and make evidence of: none, own, or all. A sender needs none.",
    )
    webhook_secret_file: str = Field(
        "",
        max_length=4_096,
        description="File with the secret that a source signs its deliveries with (GitHub), as a path in the log's directory. "
        "Mode 0600. Its deliveries then need no token.",
    )
    stream_vkeys: tuple[str, ...] = Field(
        (),
        max_length=100,
        description="Verifier keys that sign checkpoints of its sender-numbered streams, named "
        "<origin>/members/<member>/<stream>.",
    )


class Members:
    """The members that settings name, found by token."""

    def __init__(self, members: Iterable[MemberSettings]) -> None:
        """Raises SettingsError for a name or token that occurs twice, or a member called `log`."""
        self._by_token: dict[str, Principal] = {}
        self._by_name: dict[str, Principal] = {}
        self._stream_vkeys: dict[str, tuple[VKey, ...]] = {}
        names = set()
        for member in members:
            if member.name in (LOG_MEMBER, LOCAL_MEMBER) or member.name in names:
                raise SettingsError(f"the member name {member.name!r} is taken")
            if member.token_sha256 in self._by_token:
                raise SettingsError(f"the token of member {member.name!r} is another member's too")
            names.add(member.name)
            self._stream_vkeys[member.name] = tuple(_parse_stream_vkey(text, member.name) for text in member.stream_vkeys)
            permissions = {
                Permission.APPEND: member.may_append,
                Permission.READ_ENTRIES: member.may_read,
                Permission.READ_OWN_EVENTS: member.reads is not Reads.NONE,
                Permission.READ_ALL_EVENTS: member.reads is Reads.ALL,
            }
            self._by_token[member.token_sha256] = self._by_name[member.name] = Principal(
                member=member.name,
                permissions=frozenset(permission for permission, granted in permissions.items() if granted),
                streams=tuple(stream for stream in member.streams if stream != _ANY_STREAM) or ("default",),
                any_stream=_ANY_STREAM in member.streams,
            )

    def __len__(self) -> int:
        return len(self._by_token)

    def named(self, name: str) -> Principal:
        """The member of that name, which must be one."""
        return self._by_name[name]

    def stream_vkeys(self, name: str) -> tuple[VKey, ...]:
        """The keys that sign checkpoints of a member's streams; none for a name that is no member's."""
        return self._stream_vkeys.get(name, ())

    def authenticate(self, token: str) -> Principal:
        """The member whose token this is. Raises AuthenticationError.

        The look-up is by digest of a random token, so its timing tells nothing that helps to guess one.
        """
        principal = self._by_token.get(sha256(token.encode("utf-8", "surrogateescape")).hexdigest())
        if principal is None:
            raise AuthenticationError("this token is not known here", hint="ask the log's operator for one")
        return principal


def _parse_stream_vkey(text: str, member: str) -> VKey:
    try:
        return parse_vkey(text)
    except MalformedError as error:
        raise SettingsError(f"a stream key of member {member!r} is none: {error.detail}", code="bad-settings") from None


def require(principal: Principal, permission: Permission) -> Principal:
    """The principal, if it has the right. Raises AuthenticationError without credentials, PermissionDeniedError with."""
    if permission in principal.permissions:
        return principal
    if principal.member is None:
        hint = "send a member's token as `Authorization: Bearer <token>`"
        if principal.not_local and permission in LOCAL.permissions:
            hint += f"; being on this machine does not do, because {principal.not_local}"
        raise AuthenticationError(f"you need credentials to {permission.value}", hint=hint)
    raise PermissionDeniedError(f"member {principal.member} may not {permission.value}")


def require_stream(principal: Principal, stream: str | None) -> tuple[str, str]:
    """Member and stream that the principal's events go to; its default stream for None.

    Raises PermissionDeniedError for a stream that is not among its own, MalformedError for what cannot be a stream's name.
    """
    member = principal.member or LOCAL_MEMBER
    if stream is None:
        return member, principal.streams[0]
    if _NAME.fullmatch(stream) is None:
        raise MalformedError(
            f"{stream[:80]!r} cannot be the name of a stream",
            hint="up to 63 of a-z, 0-9, dot and hyphen; neither dot nor hyphen at the ends",
            code="bad-stream",
        )
    if stream not in principal.streams and not principal.any_stream:
        raise PermissionDeniedError(
            f"member {member} may not write to stream {stream}",
            hint="the log's operator lists it under the member's `streams`",
            code="stream-not-allowed",
        )
    return member, stream


def may_read_events(principal: Principal, member: str) -> bool:
    """Whether the principal may read the events of a member."""
    own = (principal.member or LOCAL_MEMBER) == member and Permission.READ_OWN_EVENTS in principal.permissions
    return own or Permission.READ_ALL_EVENTS in principal.permissions
