"""Who may append and read: every kind of credential and of connection, and that no error repeats a token."""

from base64 import b64encode
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import HttpVersion10, HttpVersion11
from multidict import CIMultiDict

from translog.errors import PermissionDeniedError
from translog.identity.principal import ANONYMOUS, LOCAL, Members, MemberSettings
from translog.server.auth import authenticate, is_loopback
from translog.server.settings import ServerSettings

from .conftest import Serve
from .harness import ACME, AS_ACME, MEMBERS, READER, WRITER, Running, request_bytes

SECRET = "wrong-secret-token"


def basic(token: str, user: str = "any") -> str:
    return "Basic " + b64encode(f"{user}:{token}".encode()).decode()


CREDENTIALS: dict[str, dict[str, str]] = {
    "nothing": {},
    "Origin": {"Origin": "https://evil.example"},
    "Origin null": {"Origin": "null"},
    "cross-site": {"Sec_Fetch_Site": "cross-site"},
    "same-site": {"Sec_Fetch_Site": "same-site"},
    "forwarded": {"X_Forwarded_For": "203.0.113.7"},
    "forwarded host": {"X_Forwarded_Host": "log.example"},
    "real ip": {"X_Real_IP": "127.0.0.1"},
    "via": {"Via": "1.1 proxy"},
    "rfc 7239": {"Forwarded": "for=127.0.0.1"},
    "Bearer": {"Authorization": f"Bearer {ACME}"},
    "bearer": {"Authorization": f"bearer   {ACME}"},
    "Basic": {"Authorization": basic(ACME)},
    "X-API-Key": {"X_API_Key": ACME},
    "Bearer and Origin": {"Authorization": f"Bearer {ACME}", "Origin": "https://app.example"},
    "Bearer forwarded": {"Authorization": f"Bearer {ACME}", "X_Forwarded_For": "203.0.113.7"},
    "wrong Bearer": {"Authorization": f"Bearer {SECRET}"},
    "wrong Basic": {"Authorization": basic(SECRET)},
    "wrong key": {"X_API_Key": SECRET},
    "empty key": {"X_API_Key": ""},
    "reader": {"Authorization": f"Bearer {READER}"},
    "writer": {"Authorization": f"Bearer {WRITER}"},
}
GOOD_WHEN = {
    # credentials: (may append, may read where public_read is "members", where it is "listed")
    "Bearer": (True, True, True),
    "bearer": (True, True, True),
    "Basic": (True, True, True),
    "X-API-Key": (True, True, True),
    "Bearer and Origin": (True, True, True),
    "Bearer forwarded": (True, True, True),
    "reader": (False, True, True),
    "writer": (True, True, False),
}
MALFORMED = [
    "",
    "Bearer",
    "Bearer ",
    "Basic",
    "Basic ====",
    "Basic " + b64encode(SECRET.encode()).decode(),
    "Basic " + b64encode(f"{SECRET}:".encode()).decode(),
    "Basic " + b64encode(b"\xff:\xfe").decode(),
    "Basic not base64 at all",
    f"Digest username={SECRET}",
    SECRET,
    f"Token {SECRET}",
    f"Bearer{ACME}",
    f"Bearer {ACME},",
    f"Bearer {ACME} {ACME}",
    f'Bearer "{ACME}"',
    "Bearer " + SECRET * 100,
    f"Bearer {ACME}, Basic x",
]


async def expect(log: Running, headers: dict[str, str], *, append: bool, read: bool, status: int) -> None:
    for path, allowed in (("/add", append), ("/v1/entries", append)):
        body = b"x" if path == "/add" else b"\0\1x"
        answer = await log.post(path, body, **headers)
        assert answer.status == (200 if allowed else status), answer
        if not allowed:
            answer.problem(status)
            assert SECRET.encode() not in answer.body
            assert ACME.encode() not in answer.body
    for path in ("/v1/entries?start=0&end=1", "/tile/entries/000.p/1"):
        answer = await log.get(path, **headers)
        assert answer.status == (200 if read else status), answer
        if not read:
            answer.problem(status)


@pytest.mark.parametrize("who", CREDENTIALS)
@pytest.mark.parametrize("public_read", ["everyone", "members", "listed"])
async def test_who_may_append_and_read(serve: Serve, who: str, public_read: str) -> None:
    log = await serve(members=MEMBERS, public_read=public_read)
    await log.grow([b"x"], **AS_ACME)
    append, member, listed = GOOD_WHEN.get(who, (False, False, False))
    bad = who.startswith(("wrong", "empty"))
    read = not bad if public_read == "everyone" else {"members": member, "listed": listed}[public_read]
    status = 403 if who in ("reader", "writer") else 401
    await expect(log, CREDENTIALS[who], append=append, read=read, status=status)


NO_TOKEN = [who for who, headers in CREDENTIALS.items() if not {"Authorization", "X_API_Key"} & set(headers)]


@pytest.mark.parametrize("who", NO_TOKEN)
@pytest.mark.parametrize("public_read", ["everyone", "members", "listed"])
async def test_without_members_this_machine_may_append_and_read_what_everybody_may(
    serve: Serve, who: str, public_read: str
) -> None:
    log = await serve(public_read=public_read)
    await log.grow([b"x"])
    await expect(log, CREDENTIALS[who], append=who == "nothing", read=public_read == "everyone", status=401)


SERVES_OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "behind a proxy": ({"behind_proxy": True}, ""),
    "not wanted": ({"loopback_append": False}, ""),
    "public URL": ({"public_url": "https://log.example/audit"}, "server.public_url"),
    "members": ({"members": MEMBERS}, "members"),
}


@pytest.mark.parametrize("why", SERVES_OTHERS)
async def test_a_log_that_serves_others_does_not_trust_loopback_and_says_why(serve: Serve, why: str) -> None:
    settings, said = SERVES_OTHERS[why]
    log = await serve(**settings)
    hint = (await log.append([b"x"])).problem(401)["hint"]
    assert ("this machine" in hint) == bool(said)
    assert said in hint
    assert log.server.service.integrated.size == 0


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("Origin", "Origin"),
        ("cross-site", "web page"),
        ("forwarded", "X-Forwarded-For"),
        ("via", "Via"),
        ("rfc 7239", "Forwarded"),
    ],
)
async def test_a_request_over_loopback_that_is_not_taken_says_why(log_server: Running, who: str, said: str) -> None:
    assert said in (await log_server.post("/add", b"x", **CREDENTIALS[who])).problem(401)["hint"]


async def test_http_1_0_is_what_a_proxy_speaks(log_server: Running) -> None:
    request = request_bytes("POST", "/add", "Content-Length: 1", body=b"x").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert "HTTP/1.0" in (await log_server.raw(request)).problem(401)["hint"]
    assert log_server.server.service.integrated.size == 0


async def test_reading_is_not_said_to_be_better_on_this_machine(serve: Serve) -> None:
    log = await serve(public_read="listed")
    for headers in ({}, CREDENTIALS["Origin"]):
        assert "this machine" not in (await log.get("/v1/entries?start=0&end=1", **headers)).problem(401)["hint"]


@pytest.mark.parametrize("header", MALFORMED)
@pytest.mark.parametrize("path", ["/add", "/checkpoint"])
async def test_a_credential_that_is_present_must_be_good(serve: Serve, header: str, path: str) -> None:
    log = await serve(members=MEMBERS)
    method = "POST" if path == "/add" else "GET"
    answer = await log.raw(request_bytes(method, path, f"Authorization: {header}", "Content-Length: 0"))
    answer.problem(401)
    for token in (SECRET, ACME):
        assert token.encode() not in answer.body


@pytest.mark.parametrize("lines", [("Authorization: Bearer {0}", "X-API-Key: {1}"), ("X-API-Key: {0}", "X-API-Key: {1}")])
async def test_of_two_credentials_both_must_be_good(serve: Serve, lines: tuple[str, str]) -> None:
    log = await serve(members=MEMBERS)
    sent = [line.format(ACME, SECRET) for line in lines]
    (await log.raw(request_bytes("POST", "/add", *sent, "Content-Length: 0"))).problem(401)


async def test_tiles_proofs_and_receipts_are_for_everyone(serve: Serve) -> None:
    log = await serve(members=MEMBERS, public_read="listed", loopback_append=False)
    await log.append([b"x"], Authorization=f"Bearer {ACME}")
    for path in (
        "/checkpoint",
        "/tile/0/000.p/1",
        "/v1/log",
        "/v1/proofs/inclusion?index=0",
        "/v1/receipts/0",
        "/openapi.json",
    ):
        (await log.get(path)).require_ok()
    (await log.get("/v1/entries?start=0&end=1")).problem(401)


async def test_credentials_are_checked_before_the_body_is_read(serve: Serve) -> None:
    log = await serve(members=MEMBERS, loopback_append=False, body_timeout_ms=600_000)
    for line in ("X-Nothing: 1", f"Authorization: Bearer {SECRET}", f"Authorization: Bearer {READER}"):
        async with log.connection() as (reader, writer):
            writer.write(f"POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n{line}\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] in (b"401", b"403")


async def test_a_token_may_be_any_text(serve: Serve) -> None:
    token = "tök:en with spaces"
    log = await serve(members=({"name": "x", "token_sha256": sha256(token.encode()).hexdigest()},), loopback_append=False)
    assert (await log.append([b"x"], Authorization=basic(token, "user"))).status == 200
    assert (await log.append([b"x"], Authorization=f"Bearer {token}")).status == 200


# --- connections that cannot be had here --------------------------------------------------------------------------------


def request_from(
    peer: Any, own: Any = ("127.0.0.1", 1), *, secure: bool = False, version: Any = HttpVersion11, **headers: str
) -> Any:
    extra = {"peername": peer, "sockname": own}
    return SimpleNamespace(
        headers=CIMultiDict({"Host": "127.0.0.1"} | {name.replace("_", "-"): value for name, value in headers.items()}),
        secure=secure,
        version=version,
        transport=SimpleNamespace(get_extra_info=extra.get),
    )


KNOWN = Members([MemberSettings(**member) for member in MEMBERS])
NOBODY = Members([])
FAR = ("203.0.113.7", 4000)


@pytest.mark.parametrize(
    "credentials", [{"Authorization": f"Bearer {ACME}"}, {"Authorization": basic(ACME)}, {"X_API_Key": ACME}]
)
def test_credentials_over_plain_http_from_elsewhere_are_refused(credentials: dict[str, Any]) -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        authenticate(request_from(FAR, **credentials), KNOWN, ServerSettings())
    assert caught.value.code == "plaintext-credentials"
    assert ACME not in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "settings"),
    [
        (request_from(FAR, secure=True, Authorization=f"Bearer {ACME}"), ServerSettings()),
        (request_from(FAR, Authorization=f"Bearer {ACME}"), ServerSettings(behind_proxy=True)),
        (request_from(("::1", 1, 0, 0), ("::1", 2, 0, 0), Authorization=f"Bearer {ACME}"), ServerSettings()),
    ],
)
def test_credentials_over_tls_a_trusted_proxy_or_loopback_are_taken(request_: Any, settings: ServerSettings) -> None:
    assert authenticate(request_, KNOWN, settings).member == "acme"


@pytest.mark.parametrize(
    ("peer", "own"),
    [
        (FAR, ("127.0.0.1", 1)),
        (("127.0.0.1", 1), ("203.0.113.1", 1)),
        (("10.0.0.1", 1), ("127.0.0.1", 1)),
        (("::ffff:10.0.0.1", 1, 0, 0), ("::1", 1, 0, 0)),
        (None, ("127.0.0.1", 1)),
        ("", ""),
        ("/run/socket", "/run/socket"),
    ],
)
@pytest.mark.parametrize("secure", [True, False])
def test_only_both_ends_on_loopback_are_local(peer: Any, own: Any, secure: bool) -> None:
    assert authenticate(request_from(peer, own, secure=secure), NOBODY, ServerSettings()) is ANONYMOUS


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_in_every_spelling_is_local(address: str) -> None:
    assert is_loopback(address)
    assert authenticate(request_from((address, 1), (address, 2)), NOBODY, ServerSettings()) is LOCAL
    for request, members in (
        (request_from((address, 1), (address, 2)), KNOWN),
        (request_from((address, 1), (address, 2), version=HttpVersion10), NOBODY),
    ):
        assert authenticate(request, members, ServerSettings()).permissions == frozenset()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "localhost", "", "::ffff:8.8.8.8", "fe80::1%lo"])
def test_nothing_else_is_loopback(address: str) -> None:
    assert not is_loopback(address)


def test_a_connection_that_is_gone_is_not_local() -> None:
    request = request_from(("127.0.0.1", 1))
    request.transport = None
    assert authenticate(request, NOBODY, ServerSettings()) is ANONYMOUS


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:6962", True),
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("[::1]:80", True),
        ("10.1.2.3", True),  # reached by address: nobody can point that elsewhere
        ("evil.example", False),
        ("evil.example:6962", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1@evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
async def test_a_page_that_pointed_its_name_at_loopback_is_not_local(serve: Serve, host: str, local: bool) -> None:
    log = await serve()
    request = request_bytes("POST", "/add", "Content-Length: 0").replace(b"Host: 127.0.0.1", b"Host: " + host.encode())
    answer = await log.raw(request)
    if local:
        answer.require_ok()
    else:
        assert "Host header" in answer.problem(401)["hint"]
