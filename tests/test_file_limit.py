"""Connections never take the file descriptors that writing needs."""

from pathlib import Path

import pytest

from translog import bootstrap
from translog.bootstrap import LogServer, create_log
from translog.config import read_settings
from translog.errors import SettingsError
from translog.server.settings import ServerSettings
from translog.storage.leveldb import OPEN_FILES_MAX
from translog.storage.store import Profile


class Limits:
    """RLIMIT_NOFILE as a process finds it."""

    def __init__(self, soft: int, hard: int) -> None:
        self.value = (soft, hard)

    def getrlimit(self, _: int) -> tuple[int, int]:
        return self.value

    def setrlimit(self, _: int, value: tuple[int, int]) -> None:
        assert value[0] <= self.value[1]
        self.value = value


def connections(monkeypatch: pytest.MonkeyPatch, limits: Limits, wanted: int) -> int:
    monkeypatch.setattr("resource.getrlimit", limits.getrlimit)
    monkeypatch.setattr("resource.setrlimit", limits.setrlimit)
    return bootstrap._within_file_limit(ServerSettings(connections_max=wanted)).connections_max


def test_the_soft_limit_is_raised_as_far_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(1_024, 1_048_576)
    assert connections(monkeypatch, limits, 4_000) == 4_000
    assert 4_000 + OPEN_FILES_MAX < limits.value[0] < 6_000


def test_a_low_hard_limit_means_fewer_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(1_024, 1_024)
    found = connections(monkeypatch, limits, 4_000)
    assert 100 < found <= 1_024 - OPEN_FILES_MAX - 64


def test_a_limit_that_is_high_enough_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(65_536, 65_536)
    assert connections(monkeypatch, limits, 4_000) == 4_000
    assert limits.value == (65_536, 65_536)


def test_without_any_room_the_log_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        connections(monkeypatch, Limits(256, 256), 4_000)
    assert caught.value.code == "file-limit"
    assert "ulimit" in caught.value.hint


async def test_a_log_is_not_served_without_room_and_can_be_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_log(tmp_path / "log", origin="log.example/files", profile=Profile.OPAQUE)
    settings = read_settings(tmp_path / "log", {"server": {"listen": "127.0.0.1:0", "admin_listen": ""}})
    with monkeypatch.context() as patched:
        limits = Limits(256, 256)
        patched.setattr("resource.getrlimit", limits.getrlimit)
        patched.setattr("resource.setrlimit", limits.setrlimit)
        with pytest.raises(SettingsError) as caught:
            await LogServer(tmp_path / "log", settings).start()
    assert caught.value.code == "file-limit"
    server = LogServer(tmp_path / "log", settings)
    await server.start()
    await server.stop()
