"""Settings: file, then environment, then options; every mistake names the file and the key; no secrets."""

import os
from pathlib import Path

import pytest
from client.serving import ORIGIN, make_log
from pydantic import BaseModel

from translog.config import FILE_NAME, Settings, read_settings
from translog.errors import SettingsError
from translog.identity.principal import MemberSettings
from translog.log.keyfiles import LOG_KEY_FILES
from translog.log.settings import LogSettings
from translog.server.settings import PublicRead, ServerSettings, TLSSettings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("TRANSLOG_"):
            monkeypatch.delenv(name)


def write(directory: Path, text: str) -> Path:
    (directory / FILE_NAME).write_text(f'origin = "log.example"\nprofile = "opaque"\n{text}')
    return directory


def refusal(directory: Path) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        read_settings(directory)
    return caught.value


def test_a_file_of_init_gives_the_defaults(tmp_path: Path) -> None:
    make_log(tmp_path / "log")
    settings = read_settings(tmp_path / "log")
    assert settings == Settings(origin=ORIGIN, profile="opaque")
    assert settings.server.listen == "127.0.0.1:6962"
    assert settings.server.admin_listen == "127.0.0.1:6963"
    assert settings.server.public_read is PublicRead.EVERYONE
    assert settings.members == ()
    assert [key.type for key in settings.log.sign_with] == list(LOG_KEY_FILES)


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    token = "0" * 64
    settings = read_settings(
        write(
            tmp_path,
            f"""
            [server]
            listen = "[::1]:1"
            public_read = "listed"
            [server.tls]
            cert = "cert.pem"
            key = "key.pem"
            [log]
            leaf_lookup = true
            [[members]]
            name = "acme"
            token_sha256 = "{token}"
            [[members]]
            name = "umbrella"
            token_sha256 = "{"1" * 64}"
            streams = ["a", "b"]
            may_append = false
            """,
        )
    )
    assert settings.server.listen == "[::1]:1"
    assert settings.server.admin_listen == "127.0.0.1:6963"
    assert settings.server.public_read is PublicRead.LISTED
    assert settings.server.tls.cert == Path("cert.pem")
    assert settings.log.leaf_lookup
    assert [(member.name, member.may_append) for member in settings.members] == [("acme", True), ("umbrella", False)]
    assert settings.members[1].streams == ("a", "b")


MISTAKES = {
    "nonsense = 1": "nonsense",
    "[server]\nlistn = 'x'": "server.listn",
    "[server]\nlisten = 5": "server.listen",
    "[server]\nbody_bytes_max = 'large'": "server.body_bytes_max",
    "[server]\nbody_bytes_max = 0": "server.body_bytes_max",
    "[server]\nbody_bytes_max = 1.5": "server.body_bytes_max",
    "[server]\npublic_read = 'nobody'": "server.public_read",
    "[server.tls]\ncertificate = 'x'": "server.tls.certificate",
    "[log]\npool_entries_max = -1": "log.pool_entries_max",
    "[log]\nleaf_lookup = 'perhaps'": "log.leaf_lookup",
    "[log]\nsign_with = []": "log.sign_with",
    "[log]\nsign_with = 'ed25519'": "log.sign_with",
    "[log]\nsign_with = ['ed25519', 'rsa']": "log.sign_with.1",
    "[[members]]\nname = 'acme'": "members.0.token_sha256",
    "[[members]]\nname = 'Acme'\ntoken_sha256 = '0'": "members.0.name",
    "[members]\nname = 'acme'": "members",
    "server = 'x'": "server",
    "[extra]\nx = 1": "extra",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_name_the_file_and_the_key(tmp_path: Path, text: str) -> None:
    error = refusal(write(tmp_path, text))
    assert error.detail.startswith(f"{tmp_path / FILE_NAME} (or the environment): {MISTAKES[text]}")
    assert error.code == "bad-settings"
    assert "\n" not in error.detail


@pytest.mark.parametrize("names", [["ed25519"], ["mldsa44"], ["ed25519", "mldsa44"]])
def test_the_keys_that_sign_can_be_chosen(tmp_path: Path, names: list[str]) -> None:
    settings = read_settings(write(tmp_path, f"[log]\nsign_with = {names}\n"))
    assert [key.value for key in settings.log.sign_with] == names


def test_values_are_not_repeated_in_errors(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "[[members]]\nname = 'acme'\ntoken_sha256 = 'translog_a-token-by-mistake'"))
    assert "by-mistake" not in str(error)


@pytest.mark.parametrize("content", [b"[server", b"a = ", b"\xff\xfe", b"origin = 'x'\norigin = 'y'"])
def test_files_that_are_no_toml_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    error = refusal(tmp_path)
    assert error.detail.startswith(f"{tmp_path / FILE_NAME} is not TOML: ")
    assert error.code == "bad-settings"


def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    error = refusal(tmp_path)
    assert (error.detail, error.code) == (f"cannot read {tmp_path / FILE_NAME}: Is a directory", "bad-settings")


def test_a_missing_file_leads_to_init(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere")
    assert (error.code, "translog init" in error.hint) == ("no-settings", True)


def test_the_environment_wins_over_the_file_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = write(tmp_path, "[server]\nlisten = '127.0.0.1:1'\npublic_url = 'http://file'\n[log]\nretry_after_ms = 5\n")
    monkeypatch.setenv("TRANSLOG_SERVER__LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("TRANSLOG_LOG__LEAF_LOOKUP", "true")
    monkeypatch.setenv("translog_server__tls__cert", "env.pem")
    settings = read_settings(directory)
    assert (settings.server.listen, settings.server.public_url) == ("127.0.0.1:2", "http://file")
    assert (settings.log.leaf_lookup, settings.log.retry_after_ms) == (True, 5)
    assert settings.server.tls.cert == Path("env.pem")


def test_options_win_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSLOG_SERVER__LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("TRANSLOG_SERVER__PUBLIC_URL", "http://env")
    settings = read_settings(write(tmp_path, ""), {"server": {"listen": "127.0.0.1:3"}})
    assert (settings.server.listen, settings.server.public_url) == ("127.0.0.1:3", "http://env")


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("TRANSLOG_SERVER__BODY_BYTES_MAX", "large", "server.body_bytes_max"),
        ("TRANSLOG_LOG__LEAF_LOOKUP", "perhaps", "log.leaf_lookup"),
        ("TRANSLOG_MEMBERS", "[{}]", "members.0.name"),
    ],
)
def test_mistakes_in_the_environment_name_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, key: str
) -> None:
    monkeypatch.setenv(name, value)
    assert f"(or the environment): {key}: " in refusal(write(tmp_path, "")).detail


def test_an_environment_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSLOG_MEMBERS", "not json")
    assert refusal(write(tmp_path, "")).code == "bad-settings"


def test_variables_of_others_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSLOGGER_SERVER__LISTEN", "x")
    monkeypatch.setenv("SERVER__LISTEN", "x")
    assert read_settings(write(tmp_path, "")).server.listen == "127.0.0.1:6962"


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, ""))
    for part, name in ((settings, "origin"), (settings.server, "listen")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(part, name, "x")


def test_no_secret_shows_in_settings(tmp_path: Path) -> None:
    make_log(tmp_path / "log")
    shown = repr(read_settings(tmp_path / "log"))
    for name in LOG_KEY_FILES.values():
        secret = (tmp_path / "log" / "keys" / name).read_text().strip().split("+", 4)[4]
        assert len(secret) == 44
        assert secret not in shown
    models: tuple[type[BaseModel], ...] = (Settings, MemberSettings, LogSettings, ServerSettings, TLSSettings)
    fields = {name for model in models for name in model.model_fields}
    suspects = {name for name in fields if any(word in name for word in ("password", "secret", "skey", "seed"))}
    assert suspects == {"webhook_secret_file"}, "a secret is never a setting, only where it is"
