"""The environment: a variable that looks like a setting and is none is an error that names it."""

from pathlib import Path

import pytest
from test_config import _clean_environment, refusal, write

from translog.config import read_settings

__all__ = ["_clean_environment"]


@pytest.mark.parametrize(
    "name",
    [
        "TRANSLOG_LISTEN",
        "TRANSLOG_SERVR__LISTEN",
        "TRANSLOG_SERVER_LISTEN",
        "TRANSLOG_SERVER__LISTN",
        "TRANSLOG_SERVER__LISTEN__X",
        "TRANSLOG_SERVER__TLS__CRT",
        "TRANSLOG_ORIGIN__X",
        "TRANSLOG_",
        "TRANSLOG___",
        "TRANSLOG_SERVER__",
        "translog_log__leaf_lokup",
    ],
)
@pytest.mark.parametrize("value", ["", "a-secret"])
def test_unknown_names_are_errors_that_name_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    error = refusal(write(tmp_path, ""))
    assert (error.detail, error.code) == (f"the environment: {name} is no setting", "bad-settings")
    assert "a-secret" not in str(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRANSLOG_DIR", "data/log"),
        ("TRANSLOG_REQUIRE_INTEROP", "1"),
        ("TRANSLOG_FUZZ_EXAMPLES", "5"),
        ("TRANSLOG_SEED", "5"),
        ("TRANSLOG_ORIGIN", "log.example"),
        ("TRANSLOG_SERVER__LISTEN", "127.0.0.1:1"),
        ("TRANSLOG_SERVER", '{"listen": "127.0.0.1:1"}'),
        ("TRANSLOG_SERVER__TLS__CERT", "x.pem"),
        ("TRANSLOG_MEMBERS", "[]"),
        ("translog_log__leaf_lookup", "true"),
        ("TRANSLOGGER", "x"),
    ],
)
def test_settings_and_names_of_our_scripts_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert read_settings(write(tmp_path, "")).origin == "log.example"


def test_the_links_of_a_kubernetes_service_of_our_name_are_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "")
    for name in ("TRANSLOG_SERVICE_HOST", "TRANSLOG_SERVICE_PORT_HTTP", "TRANSLOG_PORT", "TRANSLOG_PORT_6962_TCP_ADDR"):
        monkeypatch.setenv(name, "tcp://10.0.0.7:6962")
    assert read_settings(tmp_path).server.listen == "127.0.0.1:6962"
