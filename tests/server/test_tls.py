"""TLS: served, asked of clients, reloaded while running; what cannot be loaded changes nothing."""

import asyncio
import ssl
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from cryptography import x509
from prometheus_client import Gauge

from translog.errors import SettingsError
from translog.server.settings import TLSSettings
from translog.server.tls import TLS

from .certificates import Authority, Issued
from .conftest import Serve
from .harness import ACME, MEMBERS, PATIENCE_S, Answer, Running, parse_answer, request_bytes, until


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("test authority")


@pytest.fixture
def issued(authority: Authority, tmp_path: Path) -> Issued:
    """The certificate that is in server.pem and server.key."""
    issued = authority.issue()
    issued.write(tmp_path, "server")
    return issued


@pytest.fixture
def tls(issued: Issued, tmp_path: Path) -> dict[str, Any]:
    """The settings for it, looked at often."""
    return {"cert": tmp_path / "server.pem", "key": tmp_path / "server.key", "reload_interval_ms": 5}


async def ask(log: Running, context: ssl.SSLContext, *lines: str) -> tuple[Answer, bytes]:
    """Asks for the checkpoint; the answer and the server's certificate."""
    host, _, port = log.server.address.rpartition(":")
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        try:
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.write(request_bytes("GET", "/checkpoint", *lines))
            return parse_answer(await reader.read()), certificate
        finally:
            writer.transport.abort()


async def test_the_public_listener_speaks_tls_and_nothing_else(serve: Serve, authority: Authority, tls: dict[str, Any]) -> None:
    log = await serve(tls=tls, members=MEMBERS)
    answer, _ = await ask(log, authority.client(), f"Authorization: Bearer {ACME}")
    answer.require_ok()
    with pytest.raises((ConnectionError, AssertionError)):
        await log.raw(request_bytes("GET", "/checkpoint"))
    (await log.admin("GET", "/healthz")).require_ok()


async def test_old_protocols_are_not_spoken(serve: Serve, authority: Authority, tls: dict[str, Any]) -> None:
    log = await serve(tls=tls)
    context = authority.client()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await ask(log, context)


async def test_with_a_client_ca_only_its_clients_are_served(
    serve: Serve, authority: Authority, tls: dict[str, Any], tmp_path: Path
) -> None:
    ours, others = Authority("clients"), Authority("strangers")
    (tmp_path / "clients.pem").write_bytes(ours.pem)
    log = await serve(tls={**tls, "client_ca": tmp_path / "clients.pem"})
    good = ours.issue("client").write(tmp_path, "good")
    bad = others.issue("client").write(tmp_path, "bad")
    answer, _ = await ask(log, authority.client(good))
    answer.require_ok()
    for context in (authority.client(), authority.client(bad)):
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            await ask(log, context)


async def test_a_new_certificate_is_served_without_a_restart(
    serve: Serve, authority: Authority, issued: Issued, tls: dict[str, Any], tmp_path: Path
) -> None:
    log = await serve(tls=tls)
    assert (await ask(log, authority.client()))[1] == issued.der
    renewed = authority.issue()
    renewed.write(tmp_path, "server")
    async with asyncio.timeout(PATIENCE_S):
        while (await ask(log, authority.client()))[1] != renewed.der:
            pass


async def test_a_certificate_renewed_while_the_log_starts_is_served_too(
    serve: Serve, authority: Authority, tls: dict[str, Any], tmp_path: Path
) -> None:
    log = await serve(tls=tls)
    renewed = authority.issue()
    renewed.write(tmp_path, "server")  # before anything else runs on the event loop
    async with asyncio.timeout(1):
        while (await ask(log, authority.client()))[1] != renewed.der:
            pass


async def test_a_certificate_that_ends_soon_is_told_again_the_next_day(
    tls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()
    monkeypatch.setattr("translog.server.tls.time", SimpleNamespace(time=lambda: now_s))
    with structlog.testing.capture_logs() as lines:
        loaded = TLS(TLSSettings(**tls), expiry=Gauge("expiry", "When it ends.", registry=None))
        watch = asyncio.create_task(loaded.watch())
        for day in range(1, 4):
            await until(lambda day=day: len([line for line in lines if "ends soon" in line["event"]]) == day)  # type: ignore[misc]
            now_s += 86_401
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def test_failed_handshakes_do_not_take_the_places_of_others(
    serve: Serve, authority: Authority, tls: dict[str, Any]
) -> None:
    log = await serve(tls={**tls, "handshake_timeout_ms": 50}, connections_max=3, idle_timeout_ms=600_000)
    for _ in range(3):
        async with log.connection() as (reader, writer):
            writer.write(b"this is not TLS\r\n\r\n")
            with suppress(ConnectionError):
                await reader.read()
    async with asyncio.timeout(10):  # a hundredth of what it would take by the limit on idle connections
        while not await is_served(log, authority):
            pass


async def is_served(log: Running, authority: Authority) -> bool:
    with suppress(ConnectionError, ssl.SSLError):
        return (await ask(log, authority.client()))[0].status == 200
    return False


async def test_one_connection_too_many_is_closed_before_its_handshake(
    serve: Serve, authority: Authority, tls: dict[str, Any]
) -> None:
    log = await serve(tls={**tls, "handshake_timeout_ms": 600_000}, connections_max=2)
    async with log.connection(), log.connection():
        for _ in range(5):
            async with log.connection() as (reader, _):
                with suppress(ConnectionError):
                    assert await reader.read() == b""
            assert not await is_served(log, authority)


def _garbage(folder: Path) -> None:
    (folder / "server.pem").write_bytes(b"garbage")


def _no_key(folder: Path) -> None:
    (folder / "server.key").unlink()


def _empty_key(folder: Path) -> None:
    (folder / "server.key").write_bytes(b"")


def _only_the_certificate(folder: Path) -> None:
    """As in the middle of a renewal: the certificate is new, its key not there yet."""
    authority = Authority("another")
    (folder / "server.pem").write_bytes(authority.issue().cert)


def _only_the_key(folder: Path) -> None:
    authority = Authority("another")
    (folder / "server.key").write_bytes(authority.issue().key)


@pytest.mark.parametrize(
    "spoil",
    [
        _garbage,
        _no_key,
        _empty_key,
        _only_the_certificate,
        _only_the_key,
    ],
)
async def test_what_cannot_be_loaded_leaves_the_old_certificate_until_it_can(
    serve: Serve, authority: Authority, issued: Issued, tls: dict[str, Any], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    log = await serve(tls=tls)
    await ask(log, authority.client())
    with structlog.testing.capture_logs() as logs:
        spoil(tmp_path)
        await until(lambda: any("not reloaded" in line["event"] for line in logs))
    answer, certificate = await ask(log, authority.client())
    answer.require_ok()
    assert certificate == issued.der
    renewed = authority.issue()
    renewed.write(tmp_path, "server")
    async with asyncio.timeout(PATIENCE_S):
        while (await ask(log, authority.client()))[1] != renewed.der:
            pass


async def test_a_client_authority_that_is_gone_from_the_file_is_not_trusted_any_more(
    serve: Serve, authority: Authority, tls: dict[str, Any], tmp_path: Path
) -> None:
    old, new = Authority("old clients"), Authority("new clients")
    (tmp_path / "clients.pem").write_bytes(old.pem)
    log = await serve(tls={**tls, "client_ca": tmp_path / "clients.pem"})
    (await ask(log, authority.client(old.issue("client").write(tmp_path, "old"))))[0].require_ok()
    with structlog.testing.capture_logs() as logs:
        (tmp_path / "clients.pem").write_bytes(new.pem)
        await until(lambda: any(line["event"] == "TLS certificate reloaded" for line in logs))
    (await ask(log, authority.client(new.issue("client").write(tmp_path, "new"))))[0].require_ok()
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        await ask(log, authority.client((tmp_path / "old.pem", tmp_path / "old.key")))


@pytest.mark.parametrize("spoil", [_garbage, _no_key, _empty_key, _only_the_certificate, _only_the_key])
async def test_a_log_does_not_start_with_a_certificate_it_cannot_load(
    serve: Serve, tls: dict[str, Any], tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(tmp_path)
    with pytest.raises(SettingsError) as caught:
        await serve(tls=tls)
    assert caught.value.code == "bad-tls"


@pytest.mark.parametrize("missing", [("cert",), ("key",), ("cert", "key")])
async def test_certificate_and_key_belong_together(
    serve: Serve, tls: dict[str, Any], tmp_path: Path, missing: tuple[str, ...]
) -> None:
    left = {name: value for name, value in tls.items() if name not in missing}
    with pytest.raises(SettingsError):
        await serve(tls={**left, "client_ca": tmp_path / "server.pem"})


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
async def test_a_client_ca_that_cannot_be_read_is_refused(
    serve: Serve, tls: dict[str, Any], tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "clients.pem").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        await serve(tls={**tls, "client_ca": tmp_path / "clients.pem"})
    assert caught.value.code == "bad-tls"


async def test_the_end_of_the_certificate_is_a_metric_and_a_warning(serve: Serve, issued: Issued, tls: dict[str, Any]) -> None:
    with structlog.testing.capture_logs() as logs:
        log = await serve(tls=tls)
    ends = x509.load_pem_x509_certificate(issued.cert).not_valid_after_utc.timestamp()
    text = (await log.admin("GET", "/metrics")).body.decode()
    value = next(line.split()[1] for line in text.splitlines() if line.startswith("translog_tls_not_after_timestamp_seconds "))
    assert float(value) == ends
    assert [line for line in logs if "ends soon" in line["event"]]
