"""DIR/witness.toml: what a witness is called, whom it cosigns for and how often, every limit with its default and reason.

Rules: an unknown key is an error; no secret is ever a setting; the tables of others, as `[server]`, are theirs to read.
"""

import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from translog.core.keys import KeyType, parse_vkey
from translog.errors import MalformedError, SettingsError
from translog.log.settings import SigningKey
from translog.witness.loglist import (
    CONTACT_CHARS_MAX,
    KEYS_MAX,
    QUERIES_PER_DAY,
    QUERIES_PER_DAY_MAX,
    URL_CHARS_MAX,
    KnownLog,
    require_log,
)

FILE_NAME = "witness.toml"

_TEMPLATE = """\
# Settings of this witness; README.md lists all of them with their defaults and reasons.
# The name is fixed for life: it is that of its keys, and what policies know it by.
name = {name}

# A log that it cosigns for; `translog witness add-log` does the same.
# [[logs]]
# vkeys = ["..."]
# queries_per_day = 172800
"""


def cosignature_type(key: SigningKey) -> KeyType:
    """The type of a witness's key of this kind."""
    return KeyType.COSIGNATURE_MLDSA44 if key is SigningKey.MLDSA44 else KeyType.COSIGNATURE_ED25519


class WitnessedLog(BaseModel):
    """One `[[logs]]` table of witness.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vkeys: Annotated[tuple[str, ...], Field(min_length=1, max_length=KEYS_MAX)] = Field(
        description="The log's verifier keys, of which one must have signed."
    )
    origin: str = Field("", description="The first line of its checkpoints, where it is not the name of its keys.")
    queries_per_day: Annotated[int, Field(ge=0, le=QUERIES_PER_DAY_MAX)] = Field(
        0, description="How many requests of this log are answered a day; 0 for as many as for any other."
    )
    contact: Annotated[str, Field(max_length=CONTACT_CHARS_MAX)] = Field(
        "", description="Whom to tell when something is wrong."
    )
    poll_url: Annotated[str, Field(max_length=URL_CHARS_MAX)] = Field(
        "", description="Where to fetch its checkpoints and tiles, for a log that does not submit them itself."
    )

    def known(self, *, queries_per_day: int) -> KnownLog:
        """The log. Raises MalformedError for keys or an origin that cannot be."""
        vkeys = tuple(map(parse_vkey, self.vkeys))
        if not self.origin and len({vkey.name for vkey in vkeys}) > 1:
            raise MalformedError("the keys of a log have several names", hint="say which origin they sign for")
        log = KnownLog(
            origin=self.origin or vkeys[0].name,
            vkeys=vkeys,
            queries_per_day=self.queries_per_day or queries_per_day,
            contact=self.contact,
            source="settings",
            poll_url=self.poll_url,
        )
        require_log(log)
        return log


class WitnessSettings(BaseModel):
    """How the witness works, and for whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", description="Repeats the name of the witness's keys and state, and must agree with it.")
    sign_with: Annotated[tuple[SigningKey, ...], Field(min_length=1)] = Field(
        (SigningKey.MLDSA44, SigningKey.ED25519),
        description="The keys in DIR/keys that cosign. All of them must be there: a lost key is no key switched off.",
    )
    logs: tuple[WitnessedLog, ...] = Field((), description="Logs it cosigns for; taking one out does not make it unknown.")
    log_lists: Annotated[tuple[str, ...], Field(max_length=100)] = Field(
        (), description="Files with lists of logs (`logs/v0`), as paths in the witness's directory. Lists only add."
    )
    log_list_interval_ms: Annotated[int, Field(ge=1_000)] = Field(
        3_600_000, description="The lists are read again this often; the witness network asks for once a week at least."
    )
    queries_per_day: Annotated[int, Field(ge=1, le=QUERIES_PER_DAY_MAX)] = Field(
        QUERIES_PER_DAY, description="Requests of one log that are answered a day, where nothing else is said of it."
    )
    peer_failures_per_day: Annotated[int, Field(ge=1)] = Field(
        20_000,
        description="Requests of one address that move nothing (bad signatures, bad proofs, replays) that are answered a day: "
        "what is public can be sent by anybody, and costs signatures to look at.",
    )
    poll_interval_ms: Annotated[int, Field(ge=1_000)] = Field(
        60_000, description="Logs with a `poll_url` are asked for their checkpoint this often."
    )
    poll_timeout_ms: Annotated[int, Field(ge=100)] = Field(
        30_000, description="How long one such log may take for its checkpoint and proof, before it is left for the next time."
    )
    poll_at_once: Annotated[int, Field(ge=1, le=1_000)] = Field(
        8, description="Logs that are asked at the same time: bounds memory, and how long a slow log keeps others waiting."
    )


def read_witness_settings(directory: Path, *, others: Collection[str] = ("server",)) -> WitnessSettings:
    """The settings of the witness in `directory`; tables named in `others` are left to whoever reads them. Raises
    SettingsError naming the file and the key that is wrong."""
    path = directory / FILE_NAME
    document = read_document(directory)
    try:
        return WitnessSettings(**{key: value for key, value in document.items() if key not in others})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SettingsError(f"{path}: {where}: {first['msg']}", code="bad-settings") from None


def read_document(directory: Path) -> dict[str, Any]:
    """What is in DIR/witness.toml. Raises SettingsError."""
    path = directory / FILE_NAME
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"there is no {path}",
            hint=f"is {directory} a witness's directory? `translog witness init` creates one",
            code="no-settings",
        ) from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", code="bad-settings") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", code="bad-settings") from None


def write_witness_settings(directory: Path, *, name: str) -> None:
    """Writes a new witness's DIR/witness.toml. Raises OSError, also where there is one."""
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"').replace("\x7f", "\\u007F") + '"'
    with (directory / FILE_NAME).open("x", encoding="utf-8") as file:
        file.write(_TEMPLATE.format(name=quoted))
