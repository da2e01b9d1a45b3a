"""Who a request comes from: credentials to a Principal.

Rules: a credential that is present must be valid, whatever it is for. Credentials travel over TLS, loopback or a trusted
proxy only. Without credentials, a program on this machine may act as LOCAL, if the log is set up for this machine alone (no
public URL, no members) and nothing suggests that the request came through a proxy or out of a web page (a page of any site
can make a browser post to loopback).
"""

import binascii
import ipaddress
from base64 import b64decode
from dataclasses import replace
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, web

from translog.errors import AuthenticationError, PermissionDeniedError
from translog.identity.principal import ANONYMOUS, LOCAL, Members, Permission, Principal, require
from translog.server.settings import PublicRead, ServerSettings

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
_TOKEN_CHARS_MAX = 1_024
_TOKEN_SCHEMES = ("bearer", "splunk")
"""Splunk's is what senders of its event collector write."""


def authenticate(request: web.Request, members: Members, settings: ServerSettings) -> Principal:
    """The principal of a request. Raises AuthenticationError for credentials that are wrong, PermissionDeniedError for ones
    sent where others could read them."""
    token = _token(request)
    if token is None:
        if not settings.loopback_append or settings.behind_proxy or not _peer_is_loopback(request):
            return ANONYMOUS
        reason = _why_not_local(request, members, settings)
        return replace(ANONYMOUS, not_local=reason) if reason else LOCAL
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
        if scheme.lower() in _TOKEN_SCHEMES and value:
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


def _why_not_local(request: web.Request, members: Members, settings: ServerSettings) -> str:
    """What speaks against taking a request over loopback for one of a program on this machine; empty for nothing."""
    if settings.public_url:
        return "server.public_url is set: others are served, and may come through a forwarding process"
    if members:
        return "this log has members: be one of them"
    forwarded = [name for name in _FORWARDED if name in request.headers]
    if forwarded:
        return f"the request came through a proxy: it has the header {forwarded[0]}"
    if request.version < HttpVersion11:
        return "the request is HTTP/1.0, which is what proxies speak"
    if comes_from_page(request):
        return "the request comes from a web page: it has Origin, or Sec-Fetch-Site of another site"
    if not names_this_host(request):
        return "the Host header is neither an address nor localhost"
    return ""


def comes_from_page(request: web.Request) -> bool:
    """Whether a browser says that a web page, not of this origin, made it send this."""
    headers = request.headers
    return "Origin" in headers or headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")


def names_this_host(request: web.Request, *, own_name: str = "") -> bool:
    """Whether the Host header is an address, `localhost` or `own_name`. Whoever controls any other name could point it at this
    machine, and have a page of theirs talk to us as its own site (DNS rebinding)."""
    return _names(request.headers.get("Host", ""), own_name)


def require_admin_host(request: web.Request, *, own_name: str) -> Principal:
    """Anybody, as the admin listener asks nobody who they are. Raises PermissionDeniedError for a Host that is not ours."""
    if not names_this_host(request, own_name=own_name):
        raise PermissionDeniedError(
            "the admin listener is not reached by this name",
            hint="use an IP address, localhost, or the host as it is written in server.admin_listen",
            code="unknown-host",
        )
    return ANONYMOUS


def _peer_is_loopback(request: web.Request) -> bool:
    """Both ends: a peer address alone could be anybody's behind a forwarding process."""
    transport = request.transport
    if transport is None:
        return False
    ends = (transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
    return all(isinstance(end, tuple) and is_loopback(str(end[0])) for end in ends)


@lru_cache(maxsize=1_024)  # the same few again and again
def _names(header: str, own_name: str) -> bool:
    try:
        host = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    return bool(host) and (host in ("localhost", own_name.lower()) or _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1_024)  # a fifteenth of an append went into parsing the same few addresses
def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
