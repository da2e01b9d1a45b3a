"""Who a request comes from: credentials to a Principal.

Rules: a credential that is present must be valid, whatever it is for. Credentials travel over TLS, loopback or a trusted
proxy only. Without credentials, a program on this machine may act as LOCAL, if settings allow it and nothing suggests that
the request came through a proxy or out of a web page (a page of any site can make a browser post to loopback).
"""

import binascii
import ipaddress
from base64 import b64decode
from urllib.parse import urlsplit

from aiohttp import web

from translog.errors import AuthenticationError, PermissionDeniedError
from translog.identity.principal import ANONYMOUS, LOCAL, Members, Permission, Principal, require
from translog.server.settings import PublicRead, ServerSettings

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
_TOKEN_CHARS_MAX = 1_024


def authenticate(request: web.Request, members: Members, settings: ServerSettings) -> Principal:
    """The principal of a request. Raises AuthenticationError for credentials that are wrong, PermissionDeniedError for ones
    sent where others could read them."""
    token = _token(request)
    if token is None:
        return LOCAL if settings.loopback_append and _is_local(request, settings) else ANONYMOUS
    if not (request.secure or settings.behind_proxy or _peer_is_loopback(request)):
        raise PermissionDeniedError(
            "credentials are not accepted over plain HTTP",
            hint="use https; this token may have been read on its way, so have it replaced",
            code="plaintext-credentials",
        )
    return members.authenticate(token)


def require_entry_reader(principal: Principal, public_read: PublicRead) -> None:
    """Raises AuthenticationError or PermissionDeniedError unless the principal may fetch entries."""
    if public_read is PublicRead.EVERYONE or (public_read is PublicRead.MEMBERS and principal.member is not None):
        return
    require(principal, Permission.READ_ENTRIES)


def _token(request: web.Request) -> str | None:
    """The token of `Authorization: Bearer`, the password of `Basic`, or `X-API-Key`. Raises AuthenticationError."""
    headers = request.headers.getall("Authorization", [])
    tokens = request.headers.getall("X-API-Key", [])
    if len(headers) + len(tokens) > 1:
        raise AuthenticationError("more than one credential", hint="send one token, one way")
    token = tokens[0] if tokens else None
    for header in headers:
        scheme, _, value = header.partition(" ")
        value = value.strip()
        if scheme.lower() == "bearer" and value:
            token = value
        elif scheme.lower() == "basic":
            token = _basic_password(value)
        else:
            raise AuthenticationError("this Authorization header is not understood", hint="use Bearer, or Basic")
    if token is not None and len(token) > _TOKEN_CHARS_MAX:
        raise AuthenticationError("this token is too long to be one of ours")
    return token


def _basic_password(value: str) -> str:
    try:
        _, separator, password = b64decode(value, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        separator = password = ""
    if not separator or not password:
        raise AuthenticationError("this Basic Authorization is not understood", hint="the token goes in as the password")
    return password


def _is_local(request: web.Request, settings: ServerSettings) -> bool:
    headers = request.headers
    through_proxy = settings.behind_proxy or any(name in headers for name in _FORWARDED)
    return _peer_is_loopback(request) and not through_proxy and not may_come_from_page(request)


def may_come_from_page(request: web.Request) -> bool:
    """Whether a web page could have made a browser send this: it says so, or it names the host by a name, which anybody who
    controls that name could point at this machine (DNS rebinding)."""
    headers = request.headers
    if "Origin" in headers or headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    try:
        host = urlsplit(f"//{headers.get('Host', '')}").hostname or ""
    except ValueError:
        return True
    return host != "localhost" and not _is_address(host)


def _peer_is_loopback(request: web.Request) -> bool:
    """Both ends: a peer address alone could be anybody's behind a forwarding process."""
    transport = request.transport
    if transport is None:
        return False
    ends = (transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
    return all(isinstance(end, tuple) and is_loopback(str(end[0])) for end in ends)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
