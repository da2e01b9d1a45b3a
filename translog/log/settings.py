"""The `[log]` section of translog.toml: every limit of the log service with its unit, default and reason."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from translog.core.keys import KeyType


class SigningKey(StrEnum):
    """A kind of key a log signs with."""

    MLDSA44 = "mldsa44"
    ED25519 = "ed25519"

    @property
    def type(self) -> KeyType:
        """Its type in notes."""
        return KeyType.COSIGNATURE_MLDSA44 if self is SigningKey.MLDSA44 else KeyType.ED25519


class WithoutQuorum(StrEnum):
    """What becomes of a checkpoint that too few witnesses cosign."""

    HOLD = "hold"
    PUBLISH = "publish"


class WitnessingSettings(BaseModel):
    """Who must cosign before a checkpoint is published."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy_file: str = Field(
        "",
        max_length=4_096,
        description="The publication policy, a tlog-policy file, as a path in the log's directory: checkpoints are published "
        "once its quorum has cosigned. Its witnesses need URLs. Empty: nobody is asked.",
    )
    without_quorum: WithoutQuorum = Field(
        WithoutQuorum.HOLD,
        description="While too few witnesses cosign: `hold` publishes nothing new, `publish` publishes what is signed, marked "
        "as unwitnessed. Receipts wait either way.",
    )
    quorum_timeout_ms: Annotated[int, Field(ge=100)] = Field(
        10_000, description="How long the witnesses are waited for with one checkpoint, before a newer one is tried."
    )
    request_timeout_ms: Annotated[int, Field(ge=100)] = Field(5_000, description="How long one witness may take to answer.")
    min_interval_ms: Annotated[int, Field(ge=0)] = Field(
        1_000, description="The least time between two checkpoints sent to one witness."
    )
    backoff_ms_max: Annotated[int, Field(ge=100)] = Field(
        10_000, description="A witness that fails is asked less often, at least this often."
    )
    future_s_max: Annotated[int, Field(ge=0)] = Field(
        300, description="How far ahead of this machine's clock a cosignature's time may be; one further ahead does not count."
    )

    @model_validator(mode="after")
    def _require_room(self) -> "WitnessingSettings":
        """A round that ends before the witnesses may be asked again would never have a quorum."""
        if self.min_interval_ms >= self.quorum_timeout_ms:
            raise ValueError("min_interval_ms must be below quorum_timeout_ms, or no round has a quorum")
        if self.without_quorum is WithoutQuorum.PUBLISH and self.min_interval_ms >= self.request_timeout_ms:
            raise ValueError('with without_quorum = "publish", min_interval_ms must be below request_timeout_ms')
        return self


class LogSettings(BaseModel):
    """How the log sequences and publishes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sign_with: Annotated[tuple[SigningKey, ...], Field(min_length=1)] = Field(
        (SigningKey.MLDSA44, SigningKey.ED25519),
        description="The keys in DIR/keys that sign checkpoints. All of them must be there: a lost key is no key switched off.",
    )
    pool_entries_max: Annotated[int, Field(ge=1)] = Field(
        50_000, description="Entries waiting to be sequenced, at most; above it appends get 503 with Retry-After."
    )
    pool_bytes_max: Annotated[int, Field(ge=65_535)] = Field(
        64 * 1024 * 1024, description="Bytes of entries waiting to be sequenced, at most: bounds memory under overload."
    )
    batch_entries_max: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Entries in one commit, at most: bounds how long a commit takes and what waits behind it."
    )
    batch_bytes_max: Annotated[int, Field(ge=65_535)] = Field(
        16 * 1024 * 1024, description="Bytes of entries in one commit, at most; half of LevelDB's write buffer."
    )
    retry_after_ms: Annotated[int, Field(ge=1)] = Field(1_000, description="What a sender that is pushed back is told to wait.")
    clock_jump_ms: Annotated[int, Field(ge=1)] = Field(
        10_000, description="Sequencing pauses when wall clock and boot clock move apart by more than this between two ticks."
    )
    publish_interval_ms: Annotated[int, Field(ge=0)] = Field(
        0, description="The least time between two checkpoints; 0 publishes as fast as signing and witnesses allow."
    )
    idle_sign_interval_ms: Annotated[int, Field(ge=1_000)] = Field(
        600_000, description="An idle log signs its checkpoint anew this often, so that silence shows."
    )
    keep_checkpoint_interval_ms: Annotated[int, Field(ge=0)] = Field(
        60_000, description="At least one checkpoint is kept for good per interval in which any was published; 0 keeps all."
    )
    tile_cache_tiles: Annotated[int, Field(ge=16)] = Field(
        2_048,
        description="Authenticated tiles kept in memory for proofs, 17 kB each, and 15 kB for what is kept of older ones.",
    )
    reader_threads: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="Threads that read the store for proofs, entries and receipts."
    )
    reopen_wait_ms: Annotated[int, Field(ge=1)] = Field(
        1_000, description="Wait before the log is opened anew after a failed write; doubles up to 30 times this."
    )
    streams_max: Annotated[int, Field(ge=1)] = Field(
        100_000,
        description="Streams of a log of events, at most, and a quarter of that for one member: each takes some memory, and "
        "their names are public for ever.",
    )
    leaf_lookup: bool = Field(
        False, description="Keep a derived index from leaf hash to entry, for inclusion proofs by `leaf_hash`."
    )
    witnessing: WitnessingSettings = WitnessingSettings()
