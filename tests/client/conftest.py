"""Waits of the client are recorded and not waited for."""

import random
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the transport wanted to wait between tries, without jitter."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("translog.client.transport.asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    return waited
