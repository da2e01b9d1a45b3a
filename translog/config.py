"""Settings: DIR/translog.toml, then `TRANSLOG_*` in the environment, then options of the command line.

Rules: one section per package, declared by the package that reads it and handed to it whole; an unknown key is an error; no
secret is ever a setting, only paths to secrets and digests of them. `TRANSLOG_SERVER__LISTEN` is `listen` in `[server]`.
"""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as EnvironmentSettingsError

from translog.errors import SettingsError
from translog.identity.principal import MemberSettings
from translog.log.settings import LogSettings
from translog.server.settings import ServerSettings

FILE_NAME = "translog.toml"
_PREFIX = "TRANSLOG_"
_DELIMITER = "__"
_SERVICE_LINKS = ("TRANSLOG_PORT", "TRANSLOG_SERVICE_")
"""Kubernetes puts these into every container where a service is named translog."""
_OTHERS = frozenset(
    f"TRANSLOG_{name}"
    for name in ("DIR", "FUZZ_EXAMPLES", "KILL_ROUNDS", "OVERLOAD_S", "REQUIRE_INTEROP", "SEED", "SEEDS", "SYSCALLS")
)
"""Names that scripts and tests of this repository use, and that are no settings."""


_TEMPLATE = """\
# Settings of this log; README.md lists all of them with their defaults and reasons.
# origin and profile are fixed for life: they repeat what the store says, and must agree with it.
origin = {origin}
profile = "{profile}"

[server]
# listen = "127.0.0.1:6962"
# admin_listen = "127.0.0.1:6963"
# public_url = "https://log.example.org/audit"

# A member that may append from elsewhere; `translog keys token` makes a token and its digest.
# [[members]]
# name = "acme"
# token_sha256 = "..."
"""


class Settings(BaseSettings):
    """All settings of a log."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter=_DELIMITER, extra="forbid", frozen=True)

    origin: str = ""
    profile: str = ""
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    members: tuple[MemberSettings, ...] = ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment before what `read_settings` passes, which is the file."""
        return env_settings, init_settings


def read_settings(directory: Path, overrides: dict[str, dict[str, Any]] | None = None) -> Settings:
    """The settings of the log in `directory`; `overrides` by section win over file and environment.

    Raises SettingsError naming the file and the key that is wrong, or the variable that is no setting.
    """
    _require_known_names()
    path = directory / FILE_NAME
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"there is no {path}", hint=f"is {directory} a log's directory? `translog init` creates one", code="no-settings"
        ) from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", code="bad-settings") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", code="bad-settings") from None
    try:
        settings = Settings(**document)
        for section, values in (overrides or {}).items():
            present = getattr(settings, section)
            changed = type(present).model_validate({**present.model_dump(), **values})
            settings = settings.model_copy(update={section: changed})
        return settings
    except EnvironmentSettingsError as error:
        raise SettingsError(
            f"the environment: {error}", hint="TRANSLOG_<SECTION>__<KEY> sets one key", code="bad-settings"
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(
            f"{path} (or the environment): {where}: {first['msg']}", hint="README.md lists every setting", code="bad-settings"
        ) from None


def _require_known_names() -> None:
    """Raises SettingsError for a variable that looks like a setting and is none: nobody would notice it otherwise."""
    for name in sorted(os.environ):
        upper = name.upper()  # the environment's names are read in any case
        if not upper.startswith(_PREFIX) or upper in _OTHERS or upper.startswith(_SERVICE_LINKS):
            continue
        if not _is_key(Settings, upper.removeprefix(_PREFIX).lower().split(_DELIMITER)):
            raise SettingsError(
                f"the environment: {name} is no setting",
                hint="TRANSLOG_<SECTION>__<KEY> sets one key; README.md lists every setting",
                code="bad-settings",
            )


def _is_key(model: type[BaseModel], path: Sequence[str]) -> bool:
    field = model.model_fields.get(path[0])
    if field is None or len(path) == 1:
        return field is not None
    section = field.annotation
    return isinstance(section, type) and issubclass(section, BaseModel) and _is_key(section, path[1:])


def write_settings(directory: Path, *, origin: str, profile: str) -> None:
    """Writes a new log's DIR/translog.toml. Raises OSError, also where there is one."""
    quoted = '"' + origin.replace("\\", "\\\\").replace('"', '\\"').replace("\x7f", "\\u007F") + '"'
    with (directory / FILE_NAME).open("x", encoding="utf-8") as file:
        file.write(_TEMPLATE.format(origin=quoted, profile=profile))
