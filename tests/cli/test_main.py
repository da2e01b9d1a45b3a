"""The frame of the command line: commands, exit codes, one shape of error, lazy imports, life without server packages."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.harness import PATIENCE_S, STRICT, require_plain, run, run_program
from translog import __version__, errors
from translog.cli import main as main_module
from translog.cli.main import COMMANDS, EXIT_CODES, exit_code_of
from translog.errors import OldSizeError, PushbackError, RateLimitedError, TranslogError

SERVER_PACKAGES = ("aiohttp", "plyvel", "plyvel_next", "pydantic", "pydantic_settings", "structlog", "prometheus_client")


def _family(kind: type[TranslogError]) -> Iterator[type[TranslogError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _family(child)


FAMILY = [kind for kind in _family(TranslogError) if kind.__module__ == errors.__name__]


def _make(kind: type[TranslogError]) -> TranslogError:
    if kind in (PushbackError, RateLimitedError):
        return kind("what is wrong", retry_after_ms=1)
    return kind("what is wrong", size=1) if kind is OldSizeError else kind("what is wrong", hint="do this")


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_has_an_exit_code_from_1_to_4(kind: type[TranslogError]) -> None:
    assert exit_code_of(_make(kind)) in (1, 2, 3, 4)


def test_the_exit_codes_are_those_of_the_documentation() -> None:
    by_code: dict[int, set[str]] = {}
    for kind in FAMILY:
        by_code.setdefault(exit_code_of(_make(kind)), set()).add(kind.__name__)
    failed = {"Malformed", "Verification", "Signature", "Inclusion", "Consistency", "Quorum", "Disclosure"}
    refused = {
        "Remote",
        "Refused",
        "Authentication",
        "PermissionDenied",
        "Conflict",
        "WrongNumber",
        "OldSize",
        "RateLimited",
        "UnsupportedMedia",
        "NotFound",
        "Pushback",
    }
    local = {"Storage", "Fence", "Held", "Settings", "Corruption"}
    expected = ((1, failed), (2, {"TooLarge"}), (3, refused), (4, local))
    assert by_code == {code: {f"{name}Error" for name in names} for code, names in expected}
    assert set(EXIT_CODES) <= set(FAMILY)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("as_json", [False, True])
def test_any_error_is_a_sentence_a_hint_and_with_json_one_document(
    kind: type[TranslogError], as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = _make(kind)

    def fail(*, standalone_mode: bool) -> None:
        assert not standalone_mode
        raise error

    monkeypatch.setattr(main_module, "app", SimpleNamespace(main=fail))
    result = run(*(["--json"] if as_json else []))
    lines = require_plain(result, exit_code_of(error))
    assert lines == ["translog: what is wrong"] + ([f"  {error.hint}"] if error.hint else [])
    if as_json:
        assert json.loads(result.out) == {"ok": False, "code": error.code, "detail": "what is wrong", "hint": error.hint}
        assert result.out.count("\n") == 1
    else:
        assert result.out == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    for option in ("--help", "-h"):
        result = run(name, option)
        assert (result.code, result.err) == (0, "")
        assert "Usage:" in result.out


def test_help_lists_every_command() -> None:
    result = run("--help")
    assert result.code == 0
    for name, (_, summary) in COMMANDS.items():
        assert name in result.out
        assert summary in result.out


def test_version() -> None:
    assert run("--version").out == f"translog {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [(), ("nope",), ("verify",), ("verify", "x"), ("init", "x"), ("receipt", "minus-one", "--log", "x"), ("add",)]
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "Usage:" in result.err


@pytest.mark.parametrize(
    "arguments",
    [("verify",), ("verify", "x", "--policy", "x"), ("init", "x"), ("nope",), ("add",), ("receipt", "x", "--log", "x")],
)
def test_wrong_usage_with_json_is_one_document_too(arguments: tuple[str, ...]) -> None:
    result = run(*arguments, "--json")
    assert result.code == 2
    document = json.loads(result.out)
    assert (document["ok"], document["code"], document["hint"]) == (False, "usage", "")
    assert document["detail"] in result.err
    assert result.out.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [("add", "-"), ("receipt", 0), ("checkpoint",), ("policy",), ("prove", "inclusion", 0), ("prove", "consistency", 1)],
)
@pytest.mark.parametrize("url", ["", "log.example", "ftp://log.example", " http://log.example"])
def test_a_log_that_is_no_url_is_wrong_usage(arguments: tuple[object, ...], url: str) -> None:
    result = run(*arguments, "--log", url)
    assert (result.code, result.out) == (2, "")
    assert f"{url!r} is no URL: it starts with http:// or https://" in result.err


def test_ctrl_c_exits_with_130_and_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen([*STRICT, "policy", "--log", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        silent.settimeout(PATIENCE_S)
        connection, _ = silent.accept()  # it waits for an answer now
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err.strip()) == (130, "", "interrupted")


def _modules_after(*arguments: object) -> set[str]:
    code = (
        "import sys\nfrom translog.cli.main import main\n"
        f"sys.argv = {['translog', *map(str, arguments)]!r}\n"
        "try:\n    main()\nexcept SystemExit as end:\n    print(end.code, *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    end, *modules = done.stderr.splitlines()[-1].split(" ")
    assert end in ("0", "None", "1", "4"), done.stderr
    return {module.partition(".")[0] for module in modules} | {m for m in modules if m.startswith("translog.")}


def test_verify_imports_neither_network_nor_storage_packages(tmp_path: Path) -> None:
    modules = _modules_after("verify", tmp_path / "no", "--policy", tmp_path / "no", "--entry", tmp_path / "no")
    assert "translog.cli.verify" in modules
    assert modules.isdisjoint({*SERVER_PACKAGES, "asyncio", "rich", "ssl"})
    assert {m for m in modules if m.startswith("translog.")}.isdisjoint({"translog.client", "translog.storage", "translog.log"})


def test_help_imports_no_command() -> None:
    assert {m for m in _modules_after("--help") if m.startswith("translog.cli.")} == {"translog.cli.main"}


BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SERVER_PACKAGES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def without_server(tmp_path: Path) -> dict[str, str]:
    """The environment of a program that finds none of the server's packages."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BLOCKER)
    return {"PYTHONPATH": str(site)}


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "new", "--origin", "log.example", "--profile", "opaque"),
        ("serve", "new"),
        ("policy", "--log", "http://127.0.0.1:1"),
    ],
)
def test_commands_that_need_server_packages_say_how_to_get_them(
    arguments: tuple[str, ...], without_server: dict[str, str]
) -> None:
    result = run_program(*arguments, env=without_server)
    lines = require_plain(result, 4)
    assert "needs the package" in lines[0]
    assert any(package in lines[0] for package in SERVER_PACKAGES)
    assert lines[1] == "  pip install 'translog[server]'"


def test_a_missing_package_is_a_json_document_too(without_server: dict[str, str]) -> None:
    result = run_program("init", "new", "--origin", "log.example", "--profile", "opaque", "--json", env=without_server)
    lines = require_plain(result, 4)
    document = json.loads(result.out)
    assert (document["ok"], document["code"]) == (False, "not-installed")
    assert lines == [f"translog: {document['detail']}", f"  {document['hint']}"]


def test_verification_and_keys_work_without_server_packages(without_server: dict[str, str], tmp_path: Path) -> None:
    from cli.test_verify import Case

    case = Case(tmp_path)
    result = run_program("verify", case.receipt, "--policy", case.policy, "--entry", case.entry, env=without_server)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("OK: entry 5 is in the log\n")
    made = run_program("keys", "generate", "log.example", "-o", tmp_path / "key", env=without_server)
    assert (made.code, made.err) == (0, "")
    assert run_program("keys", "show", tmp_path / "key", env=without_server).out == made.out
    assert run_program("--help", env=without_server).code == 0


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    code = f"{sys.executable} -m translog --help | true"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
