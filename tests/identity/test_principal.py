"""Members, principals and `require`: deny by default, and no name or token means two things."""

from hashlib import sha256
from typing import Any

import pytest
from pydantic import ValidationError

from translog.errors import AuthenticationError, MalformedError, PermissionDeniedError, SettingsError
from translog.identity.principal import (
    ANONYMOUS,
    LOCAL,
    Members,
    MemberSettings,
    Permission,
    Principal,
    may_read_events,
    require,
    require_stream,
)

TOKEN = "a-token"


def member(name: str = "acme", token: str = TOKEN, **rest: Any) -> MemberSettings:
    return MemberSettings(name=name, token_sha256=sha256(token.encode()).hexdigest(), **rest)


@pytest.mark.parametrize("may_append", [True, False])
@pytest.mark.parametrize("may_read", [True, False])
def test_a_member_has_the_rights_of_its_settings_and_no_others(may_append: bool, may_read: bool) -> None:
    principal = Members([member(may_append=may_append, may_read=may_read, streams=("a", "b"))]).authenticate(TOKEN)
    assert principal.member == "acme"
    assert principal.streams == ("a", "b")
    assert not principal.any_stream
    for permission, granted in ((Permission.APPEND, may_append), (Permission.READ_ENTRIES, may_read)):
        assert (permission in principal.permissions) == granted
        if granted:
            assert require(principal, permission) is principal
        else:
            with pytest.raises(PermissionDeniedError, match=f"member acme may not {permission.value}"):
                require(principal, permission)


def test_by_default_a_member_may_append_to_one_stream_and_not_read() -> None:
    principal = Members([member()]).authenticate(TOKEN)
    assert principal.permissions == {Permission.APPEND}
    assert principal.streams == ("default",)
    assert not may_read_events(principal, "acme")


@pytest.mark.parametrize(
    "token",
    ["", "A-token", "a-token ", " a-token", "a-toke", sha256(TOKEN.encode()).hexdigest(), "acme", "\udcff", "ä" * 5_000],
)
def test_any_other_token_is_unknown_and_never_repeated(token: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        Members([member()]).authenticate(token)
    assert not token or token not in str(caught.value)


def test_without_members_nobody_is_known() -> None:
    with pytest.raises(AuthenticationError):
        Members([]).authenticate(TOKEN)


def test_tokens_find_their_own_member() -> None:
    members = Members([member("a", "1"), member("b", "2")])
    assert [members.authenticate(token).member for token in ("1", "2")] == ["a", "b"]


@pytest.mark.parametrize(
    "settings",
    [
        [member("a", "1"), member("a", "2")],
        [member("a", "1"), member("b", "1")],
        [member("log")],
        [member("local")],
        [member("a", "1"), member("a", "1")],
    ],
)
def test_a_name_or_token_that_occurs_twice_and_the_name_log_are_refused(settings: list[MemberSettings]) -> None:
    with pytest.raises(SettingsError):
        Members(settings)


@pytest.mark.parametrize("name", ["a", "0", "a.b-c", "a" * 63, "x" * 62 + "9"])
def test_good_names(name: str) -> None:
    assert member(name, streams=(name,)).name == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", ".a", "a.", "a" * 64, "a_b", "a/b", "a b", "ä", "a\n", "\na", "\u0661"])
def test_bad_names(name: str) -> None:
    with pytest.raises(ValidationError):
        member(name)
    with pytest.raises(ValidationError):
        member(streams=(name,))


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n", TOKEN])
def test_a_digest_is_64_lower_hex_digits(digest: str) -> None:
    with pytest.raises(ValidationError):
        MemberSettings(name="acme", token_sha256=digest)


def test_a_member_has_a_stream_and_no_unknown_settings() -> None:
    with pytest.raises(ValidationError):
        member(streams=())
    with pytest.raises(ValidationError):
        MemberSettings.model_validate({**member().model_dump(), "token": TOKEN})
    with pytest.raises(ValidationError):
        member(may_admin=True)


@pytest.mark.parametrize("permission", Permission)
def test_require_asks_the_unknown_for_credentials(permission: Permission) -> None:
    with pytest.raises(AuthenticationError):
        require(ANONYMOUS, permission)


def test_a_local_program_may_append_and_read_what_came_from_this_machine() -> None:
    assert LOCAL.permissions == {Permission.APPEND, Permission.READ_OWN_EVENTS}
    assert may_read_events(LOCAL, "local")
    assert not may_read_events(LOCAL, "acme")
    assert not may_read_events(ANONYMOUS, "local")


@pytest.mark.parametrize(("reads", "own", "others"), [("none", False, False), ("own", True, False), ("all", True, True)])
def test_whose_events_a_member_reads(reads: str, own: bool, others: bool) -> None:
    members = Members([member(reads=reads), member("b", "b-token")])
    assert may_read_events(members.authenticate(TOKEN), "acme") == own
    assert may_read_events(members.authenticate(TOKEN), "b") == others
    assert members.named("acme") is members.authenticate(TOKEN)


def test_streams_are_those_listed_and_the_first_is_the_default() -> None:
    principal = Members([member(streams=("a", "b"))]).authenticate(TOKEN)
    assert require_stream(principal, None) == ("acme", "a")
    assert require_stream(principal, "b") == ("acme", "b")
    with pytest.raises(PermissionDeniedError, match="may not write to stream c"):
        require_stream(principal, "c")


@pytest.mark.parametrize(("streams", "default"), [(("*",), "default"), (("a", "*"), "a"), (("*", "a"), "a")])
def test_a_star_allows_any_stream(streams: tuple[str, ...], default: str) -> None:
    principal = Members([member(streams=streams)]).authenticate(TOKEN)
    assert require_stream(principal, None) == ("acme", default)
    assert require_stream(principal, "anything") == ("acme", "anything")
    with pytest.raises(MalformedError):
        require_stream(principal, "*")


@pytest.mark.parametrize("name", ["", "A", "-a", "a" * 64, "a/b", "a\n", "\0", "\ud800", "ä" * 5_000])
def test_what_cannot_be_a_stream_is_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        require_stream(LOCAL, name)


def test_members_are_counted() -> None:
    assert [len(Members(known)) for known in ([], [member("a", "1"), member("b", "2")])] == [0, 2]


def test_a_principal_has_no_right_unless_given() -> None:
    with pytest.raises(PermissionDeniedError):
        require(Principal(member="x", permissions=frozenset()), Permission.APPEND)


def test_a_right_does_not_follow_from_another() -> None:
    reader = Principal(member="x", permissions=frozenset({Permission.READ_ENTRIES}))
    with pytest.raises(PermissionDeniedError):
        require(reader, Permission.APPEND)
