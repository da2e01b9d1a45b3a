"""A witness put together: as a server of its own, and as a role in a log's server."""

import asyncio
import os
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from client.serving import make_log, served, url_of
from log.harness import FakeClock, until
from server.certificates import Authority
from server.witness_log import MadeLog

from translog import witnessing
from translog.client.submit import Submitter
from translog.core.checkpoint import parse_checkpoint
from translog.core.keys import KeyType, VKey
from translog.core.note import parse_note
from translog.core.policy import parse_policy
from translog.errors import NotFoundError, PushbackError, RefusedError, SettingsError
from translog.log.keyfiles import LOG_KEY_FILES, read_skey
from translog.witness.loglist import KnownLog
from translog.witness.opening import KEY_FILES
from translog.witness.protocol import monitoring_path, origin_hash
from translog.witness.settings import FILE_NAME
from translog.witnessing import (
    WitnessServer,
    add_logs,
    find_key,
    list_logs,
    new_witness,
    open_role,
    prepare_witness,
    public_keys,
    read_witness_file,
)

NAME = "w.example/witness"
ADD = "/add-checkpoint"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    new_witness(tmp_path / "witness", name=NAME)
    return tmp_path / "witness"


def know(directory: Path, log: MadeLog, **details: Any) -> None:
    add_logs(directory, [KnownLog(origin=log.origin, vkeys=tuple(log.vkeys), **details)])


def say(directory: Path, text: str) -> None:
    """Adds lines to DIR/witness.toml."""
    with (directory / FILE_NAME).open("a") as file:
        file.write(f"\n{text}\n")


@asynccontextmanager
async def witnessing_server(directory: Path, *lists: Path, **server: Any) -> AsyncIterator[WitnessServer]:
    running = WitnessServer(
        directory, read_witness_file(directory, overrides={"listen": "127.0.0.1:0", **server}, log_lists=lists)
    )
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def post(url: str, body: bytes, tls: ssl.SSLContext | bool = True) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as http, http.post(url, data=body, ssl=tls) as answer:
        return answer.status, await answer.read()


async def get(url: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status, await answer.read()


def sizes(directory: Path) -> dict[str, int]:
    """The size that was cosigned last, by origin."""
    return {state.log.origin: state.cosigned.size if state.cosigned else 0 for state in list_logs(directory)}


def test_a_new_witness_has_private_keys_and_a_name(directory: Path) -> None:
    keys = public_keys(directory)
    assert [key.type for key in keys] == [KeyType.COSIGNATURE_MLDSA44, KeyType.COSIGNATURE_ED25519]
    assert {key.name for key in keys} == {NAME}
    for path in (directory / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not prepare_witness(directory, name=NAME)
    assert not prepare_witness(directory, name=None)


def test_what_is_there_is_not_made_into_a_witness(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    with pytest.raises(SettingsError):
        prepare_witness(tmp_path / "full", name=NAME)
    assert os.listdir(tmp_path / "full") == ["something"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("nonsense = 1", "nonsense"),
        ("[server]\nnonsense = 1", "server.nonsense"),
        ("[server]\nlisten = 1", "server.listen"),
        ("[server.tls]\nnonsense = 1", "server.tls.nonsense"),
        ("server = 3", "server is no table"),
        ("[server]\npublic_read = 'everyone'", "server.public_read"),
        ("[other]\nx = 1", "other"),
    ],
)
def test_settings_that_are_none_are_named(directory: Path, said: str, told: str) -> None:
    say(directory, said)
    with pytest.raises(SettingsError) as caught:
        read_witness_file(directory)
    assert f"{directory / FILE_NAME}: {told}" in caught.value.detail


async def test_options_win_over_the_file(directory: Path) -> None:
    say(directory, '[server]\nlisten = "nowhere"\naccess_log = true')
    settings = read_witness_file(directory, overrides={"listen": "127.0.0.1:0"})
    assert settings.server.access_log
    assert settings.server.for_listeners().listen == "127.0.0.1:0"
    async with witnessing_server(directory) as running:
        assert running.address.startswith("127.0.0.1:")


async def test_a_start_that_fails_leaves_nothing_open(directory: Path) -> None:
    async with witnessing_server(directory) as running:
        with pytest.raises(SettingsError) as caught:
            async with witnessing_server(directory, listen=running.address):
                pass
        assert caught.value.code == "cannot-listen"
        with pytest.raises(SettingsError):
            async with witnessing_server(directory, admin_listen=running.address):
                pass
    async with witnessing_server(directory, listen=running.address):
        pass


async def test_a_witness_speaks_tls(directory: Path, tmp_path: Path) -> None:
    authority, log = Authority("authority"), MadeLog()
    cert, key = authority.issue().write(tmp_path, "w")
    say(directory, f'[server.tls]\ncert = "{cert}"\nkey = "{key}"')
    know(directory, log)
    async with witnessing_server(directory) as running:
        status, answer = await post(f"https://{running.address}{ADD}", log.request(0, 5), authority.client())
        assert status == 200
        log.require_cosigned(5, answer, running.witness.vkeys)
        with pytest.raises(aiohttp.ClientError):
            await post(f"http://{running.address}{ADD}", log.request(5, 6))


async def test_lists_are_read_again_and_one_that_breaks_takes_nothing_away(directory: Path, tmp_path: Path) -> None:
    log, other = MadeLog(types=[KeyType.ED25519]), MadeLog("log.example/other", types=[KeyType.ED25519])
    listed = tmp_path / "list"
    listed.write_text(f"logs/v0\nvkey {log.vkeys[0]}\n")
    say(directory, "log_list_interval_ms = 1000")
    async with witnessing_server(directory, listed) as running:
        url = f"http://{running.address}{ADD}"
        assert (await post(url, log.request(0, 5)))[0] == 200
        assert (await post(url, other.request(0, 5)))[0] == 404
        listed.write_text("no list")
        await asyncio.sleep(1.2)
        assert (await post(url, log.request(5, 6)))[0] == 200
        listed.write_text(f"logs/v0\nvkey {other.vkeys[0]}\n")
        await until(lambda: other.origin in sizes(directory))
        assert (await post(url, other.request(0, 5)))[0] == 200
        assert (await post(url, log.request(6, 7)))[0] == 200


async def test_a_log_that_is_polled_is_cosigned_and_goes_on_submitting(directory: Path, tmp_path: Path) -> None:
    vkeys = make_log(tmp_path / "log")
    say(directory, "poll_interval_ms = 1000")
    async with served(tmp_path / "log") as log, Submitter(url_of(log)) as submitter:
        policy = parse_policy("".join(f"log {vkey}\n" for vkey in vkeys).encode() + b"quorum none\n")
        await submitter.append([b"one", b"two"], policy)
        add_logs(directory, [KnownLog(origin=vkeys[0].name, vkeys=tuple(vkeys), poll_url=url_of(log))])
        async with witnessing_server(directory) as running:
            await until(lambda: sizes(directory) == {vkeys[0].name: 2})
            await submitter.append([b"three"], policy)
            await until(lambda: sizes(directory) == {vkeys[0].name: 3})
            status, note = await get(f"http://{running.address}/{monitoring_path(vkeys[0].name)}")
            assert status == 200
            assert parse_checkpoint(parse_note(note).text).size == 3


def test_a_key_is_found_by_its_id_and_log(directory: Path) -> None:
    log, other = MadeLog(), MadeLog("log.example/other")
    know(directory, log)
    know(directory, other)
    assert find_key(directory, log.vkeys[0].key_id, origin=log.origin) == log.vkeys[0]
    for key_id, origin in ((log.vkeys[0].key_id, other.origin), (bytes(4), log.origin), (log.vkeys[0].key_id, "none")):
        with pytest.raises(NotFoundError):
            find_key(directory, key_id, origin=origin)


@pytest.mark.parametrize("hard", [600, 1_048_576])
def test_connections_never_take_the_files_that_the_state_needs(monkeypatch: pytest.MonkeyPatch, hard: int) -> None:
    limits = [(256, hard)]
    monkeypatch.setattr("resource.getrlimit", lambda _: limits[-1])
    monkeypatch.setattr("resource.setrlimit", lambda _, value: limits.append(value))
    if hard == 600:
        with pytest.raises(SettingsError) as caught:
            witnessing._require_files(500)
        assert caught.value.code == "file-limit"
        assert len(limits) == 1
    else:
        witnessing._require_files(500)
        assert 600 < limits[-1][0] < 1_024
        witnessing._require_files(500)
        assert len(limits) == 2


# The role in a log's server


def role_in(log_directory: Path) -> Path:
    """A witness in a log's directory."""
    new_witness(log_directory / "witness", name=NAME)
    return log_directory / "witness"


async def test_a_log_serves_a_witness_for_others_and_never_for_itself(tmp_path: Path) -> None:
    vkeys = make_log(tmp_path / "log")
    directory, other = role_in(tmp_path / "log"), MadeLog()
    know(directory, other)
    add_logs(directory, [KnownLog(origin=vkeys[0].name, vkeys=tuple(vkeys))])  # the command does not know whose role it is
    async with served(tmp_path / "log", witness="witness") as log, Submitter(url_of(log)) as submitter:
        policy = parse_policy("".join(f"log {vkey}\n" for vkey in vkeys).encode() + b"quorum none\n")
        await submitter.append([b"one"], policy)
        url = f"{url_of(log)}/witness"
        status, answer = await post(f"{url}{ADD}", other.request(0, 5))
        assert status == 200
        other.require_cosigned(5, answer, public_keys(directory))
        assert await post(f"{url}{ADD}", other.request(0, 6)) == (409, b"5\n")
        assert (await get(f"{url}{other.path}"))[0] == 200
        status, note = await get(f"{url_of(log)}/checkpoint")
        assert (await post(f"{url}{ADD}", b"old 0\n\n" + note))[0] == 404
        assert (await get(f"{url}/{origin_hash(vkeys[0].name)}/checkpoint"))[0] == 404
    assert sizes(directory) == {other.origin: 5, vkeys[0].name: 0}


def test_a_role_refuses_the_log_s_own_origin_and_keys_under_any_name(tmp_path: Path) -> None:
    vkeys = make_log(tmp_path / "log")
    role = open_role(role_in(tmp_path / "log"), own_origin=vkeys[0].name, own_vkeys=vkeys)
    try:
        stranger = MadeLog().vkeys[0]
        disguised = VKey(name="log.example/disguised", type=vkeys[0].type, public_key=vkeys[0].public_key)
        for origin, vkey in ((vkeys[0].name, stranger), ("log.example/disguised", disguised)):
            with pytest.raises(RefusedError):
                role.witness.add_log(KnownLog(origin=origin, vkeys=(vkey,)))
        assert role.witness.add_log(KnownLog(origin=stranger.name, vkeys=(stranger,)))
    finally:
        role.close()


def test_a_witness_with_the_name_of_its_log_is_refused(tmp_path: Path) -> None:
    vkeys = make_log(tmp_path / "log")
    new_witness(tmp_path / "log" / "witness", name=vkeys[0].name)
    with pytest.raises(SettingsError) as caught:
        open_role(tmp_path / "log" / "witness", own_origin=vkeys[0].name, own_vkeys=vkeys)
    assert caught.value.code == "witness-is-the-log"


def test_a_witness_with_a_key_of_its_log_is_refused(tmp_path: Path) -> None:
    vkeys = make_log(tmp_path / "log")
    directory = role_in(tmp_path / "log")
    own = read_skey(directory / "keys" / KEY_FILES[KeyType.COSIGNATURE_MLDSA44]).vkey
    theirs = VKey(name=vkeys[0].name, type=own.type, public_key=own.public_key)
    assert KeyType.COSIGNATURE_MLDSA44 in LOG_KEY_FILES
    with pytest.raises(SettingsError) as caught:
        open_role(directory, own_origin=vkeys[0].name, own_vkeys=[theirs])
    assert caught.value.code == "witness-is-the-log"


def test_a_witness_whose_clock_is_set_cosigns_nothing_until_it_is_right_again() -> None:
    clock = FakeClock()
    now_ms = witnessing._steady_clock(clock)
    assert now_ms() == clock.wall
    clock.advance(3_600_000)
    assert now_ms() == clock.wall
    clock.wall += 10_001
    for _ in range(2):
        with pytest.raises(PushbackError) as refused:
            now_ms()
        assert refused.value.code == "clock-jumped"
        assert "restarts the witness" in refused.value.hint
        clock.advance(1_000)
    clock.wall -= 10_001
    assert now_ms() == clock.wall
