"""Acknowledgement: what an append waits for, what its results carry, and where its receipts are.

Rules: `durable` means committed, `published` in a checkpoint; who waits longer than `publish_deadline_ms` is told where the
receipt will be, which is no failure.
"""

from enum import StrEnum

from pydantic import BaseModel, Field

from translog.core.wire import encode_base64
from translog.log.reader import Reader
from translog.server.api import Api


class Ack(StrEnum):
    """What an append waits for."""

    DURABLE = "durable"
    PUBLISHED = "published"


class Receipts(StrEnum):
    """What a result carries beside its index."""

    NONE = "none"
    INDEX = "index"
    FULL = "full"


class AppendQuery(BaseModel):
    """`?ack=&receipts=`."""

    ack: Ack = Field(Ack.PUBLISHED, description="Answer when committed, or when in a checkpoint.")
    receipts: Receipts = Field(
        Receipts.INDEX, description="none: indexes only as first and count; index: one result each; full: with proofs."
    )


class AckQuery(BaseModel):
    """`?ack=`."""

    ack: Ack = Field(Ack.PUBLISHED, description="Answer when committed, or when in a checkpoint.")


async def is_published(api: Api, size: int, ack: Ack) -> bool:
    """Whether a checkpoint that has its quorum covers `size` entries: now, or, if that is what is waited for, before the
    deadline. A larger one without may take its place meanwhile: `checkpoint_of` tells."""
    if ack is Ack.DURABLE:
        published = api.service.published
        return published is not None and published.witnessed and published.size >= size
    return await api.service.wait_published(size, timeout_ms=api.settings.publish_deadline_ms)


def receipt_url(api: Api, index: int) -> str:
    """Where the receipt will be: under `public_url`, whose path a request does not tell; without one, from the root."""
    return f"{api.settings.public_url.rstrip('/')}/v1/receipts/{index}"


def checkpoint_of(reader: Reader) -> str:
    """The note that proofs made by `reader` are under. Raises NotFoundError if it lacks its quorum."""
    return reader.require_witnessed().note.decode()


def prove(reader: Reader, index: int) -> list[str]:
    """The inclusion proof under the reader's checkpoint, base64."""
    return [encode_base64(value) for value in reader.inclusion(index=index).proof]
