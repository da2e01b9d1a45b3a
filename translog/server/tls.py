"""TLS by settings: loaded at the start, loaded anew when a file changes, watched for its end.

Rules: what cannot be loaded whole is reported and the old certificate stays; clients that must show a certificate are refused
without one; the end of the certificate's validity is a metric, and a log line from two weeks before.
"""

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509
from prometheus_client import Gauge

from translog.errors import SettingsError
from translog.server.settings import TLSSettings

_logger = structlog.get_logger()

_DAY_S = 86_400
_WARN_S = 14 * _DAY_S


class _CurrentContext(ssl.SSLContext):
    """The context a listener is given once: each new connection is served by the newest one that was loaded whole."""

    current: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        return self.current.wrap_bio(*args, **kwargs)


class TLS:
    """The listener's certificate."""

    def __init__(self, settings: TLSSettings, *, expiry: Gauge) -> None:
        """Raises SettingsError if there is no certificate, or it cannot be loaded."""
        if settings.cert is None or settings.key is None:
            raise SettingsError("TLS needs both server.tls.cert and server.tls.key", code="bad-tls")
        self._settings = settings
        self._cert = settings.cert
        self._key = settings.key
        self._expiry = expiry
        self._seen = self._stamps()
        self.context = _CurrentContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.current = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._cert, self._key, password="")  # never ask on the terminal
            if self._settings.client_ca is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(self._settings.client_ca)
            ends_s = x509.load_pem_x509_certificate(self._cert.read_bytes()).not_valid_after_utc.timestamp()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise SettingsError(
                f"cannot load the TLS certificate, key or client CA: {error}",
                hint="check the paths under [server.tls], that certificate and key belong together, and that the key is not "
                "encrypted",
                code="bad-tls",
            ) from None
        self._expiry.set(ends_s)
        self._ends_s = ends_s
        self._warn()
        return context

    def _warn(self) -> None:
        """Says once a day that the certificate ends soon."""
        now_s = time.time()
        if self._ends_s < now_s + _WARN_S:
            _logger.warning("the TLS certificate ends soon, or has ended", days=round((self._ends_s - now_s) / _DAY_S, 1))
        self._warn_next_s = now_s + _DAY_S

    async def watch(self) -> None:
        """Loads the files anew whenever one of them changes, until cancelled. New connections get the new certificate."""
        while True:
            await asyncio.sleep(self._settings.reload_interval_ms / 1000)
            if time.time() > self._warn_next_s:
                self._warn()
            if (now := self._stamps()) == self._seen:
                continue
            try:
                self.context.current = self._load()
                _logger.info("TLS certificate reloaded")
                self._seen = now
            except SettingsError as error:
                _logger.error("TLS certificate not reloaded, the old one stays", detail=error.detail)

    def _stamps(self) -> list[tuple[int, int]]:
        return [_stamp(path) for path in (self._cert, self._key, self._settings.client_ca) if path is not None]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        info = path.stat()
    except OSError:
        return (0, 0)
    return (info.st_mtime_ns, info.st_ino)
