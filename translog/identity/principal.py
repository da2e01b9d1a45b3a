"""Principals, permissions and the members they come from.

Rules: deny by default; a right that is not in a principal's set does not exist. A member proves itself with a random token of
which only the SHA-256 is in the settings. Nobody's rights follow from a name in a request.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from translog.errors import AuthenticationError, PermissionDeniedError, SettingsError

NAME_PATTERN = r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$"
"""Names of members and streams: they are public, so a member may use an opaque label."""
LOG_MEMBER = "log"
"""The log itself: no member may have this name."""


class Permission(Enum):
    """What a principal may do. The value is how an error names it."""

    APPEND = "append entries"
    READ_ENTRIES = "read entries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request comes from. `member` is None for someone unknown or merely local."""

    member: str | None
    permissions: frozenset[Permission]
    streams: frozenset[str] = frozenset()
    not_local: str = ""
    """Why somebody on this machine is not taken for LOCAL, for the one who wonders."""


ANONYMOUS = Principal(member=None, permissions=frozenset())
"""No credentials: what everybody may do is decided where it is done."""
LOCAL = Principal(member=None, permissions=frozenset({Permission.APPEND}))
"""No credentials, but from this very machine, on a log that trusts it. It reads no more than everybody does."""


class MemberSettings(BaseModel):
    """One `[[members]]` table of translog.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(description="The member's public name.")
    token_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="SHA-256 of the member's token, in hex. `translog keys token` makes a token and this line."
    )
    streams: tuple[Annotated[str, Field(pattern=NAME_PATTERN)], ...] = Field(
        ("default",),
        min_length=1,
        max_length=1_000,
        description="The streams it may write to; the first is its default. No effect on opaque logs, which have no streams.",
    )
    may_append: bool = Field(True, description="Whether it may append entries.")
    may_read: bool = Field(False, description='Whether it may read entries where `public_read` is "listed".')


class Members:
    """The members that settings name, found by token."""

    def __init__(self, members: Iterable[MemberSettings]) -> None:
        """Raises SettingsError for a name or token that occurs twice, or a member called `log`."""
        self._by_token: dict[str, Principal] = {}
        names = set()
        for member in members:
            if member.name == LOG_MEMBER or member.name in names:
                raise SettingsError(f"the member name {member.name!r} is taken")
            if member.token_sha256 in self._by_token:
                raise SettingsError(f"the token of member {member.name!r} is another member's too")
            names.add(member.name)
            permissions = {Permission.APPEND: member.may_append, Permission.READ_ENTRIES: member.may_read}
            self._by_token[member.token_sha256] = Principal(
                member=member.name,
                permissions=frozenset(permission for permission, granted in permissions.items() if granted),
                streams=frozenset(member.streams),
            )

    def __len__(self) -> int:
        return len(self._by_token)

    def authenticate(self, token: str) -> Principal:
        """The member whose token this is. Raises AuthenticationError.

        The look-up is by digest of a random token, so its timing tells nothing that helps to guess one.
        """
        principal = self._by_token.get(sha256(token.encode("utf-8", "surrogateescape")).hexdigest())
        if principal is None:
            raise AuthenticationError("this token is not known here", hint="ask the log's operator for one")
        return principal


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
