"""What of a log's directory its sources need: mappings that members describe, and the secrets that deliveries are signed with.

Rules: a mapping never takes the name of another; a secret is a private file, is read once, and is never shown.
"""

from collections.abc import Iterable
from pathlib import Path

from translog.errors import SettingsError
from translog.events.mapping import Source
from translog.events.sources.custom import FILE_BYTES_MAX, load_custom
from translog.events.sources.table import SOURCES
from translog.log.keyfiles import require_private

_SECRET_BYTES_MIN = 16
_SECRET_BYTES_MAX = 4_096


def read_sources(directory: Path, custom: Iterable[Path]) -> dict[str, Source]:
    """All sources by name: those of this program, and those of the files. Raises SettingsError naming the file."""
    sources = dict(SOURCES)
    for name in custom:
        path = directory / name
        source = _read_custom(path)
        if source.name in sources:
            raise SettingsError(f"{path}: there is a source called {source.name!r} already", code="bad-source")
        sources[source.name] = source
    return sources


def _read_custom(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", code="bad-source") from None
    if len(data) > FILE_BYTES_MAX:
        raise SettingsError(f"{path} has more than {FILE_BYTES_MAX} bytes", code="bad-source")
    try:
        return load_custom(data)
    except SettingsError as error:
        raise SettingsError(
            f"{path}: {error.detail}", hint="specs/adding-a-source.md tells how one looks", code="bad-source"
        ) from None


def read_webhook_secret(path: Path) -> bytes:
    """The secret in a file, without the newline at its end. Raises SettingsError for a file that is not there, that others may
    read, or that holds less than 16 bytes."""
    require_private(path)
    try:
        with path.open("rb") as file:
            secret = file.read(_SECRET_BYTES_MAX + 1).removesuffix(b"\n")
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", code="bad-secret") from None
    if not _SECRET_BYTES_MIN <= len(secret) <= _SECRET_BYTES_MAX:
        raise SettingsError(
            f"{path} does not hold a secret of {_SECRET_BYTES_MIN} to {_SECRET_BYTES_MAX} bytes",
            hint="make one: head -c 32 /dev/urandom | base64",
            code="bad-secret",
        )
    return secret
