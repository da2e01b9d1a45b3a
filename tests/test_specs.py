"""The specifications folder: every test, module and function it names exists, and every table has its shape.

A name is `path.py`, or `path.py::name` with classes and methods as pytest spells them; it is looked up in the syntax tree, so
nothing is imported. A rule without a test says exactly "not implemented", a threat without one "not covered". Settings, codes
and commands that a page names exist too, and every code is named. The last tests are for rules that no other file looks at.
"""

import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from client.simulator import Simulator, respond
from pydantic import BaseModel

from translog.bootstrap import create_log
from translog.cli.main import COMMANDS
from translog.client.transport import Transport
from translog.config import Settings
from translog.errors import RemoteError, TranslogError
from translog.server import problem
from translog.storage.leveldb import LevelDBStore
from translog.storage.lock import DirectoryLock
from translog.storage.store import Profile

ROOT = Path(__file__).parent.parent
SPECS = ROOT / "specs"
PAGES = sorted(SPECS.rglob("*.md"))
EXTERNAL = sorted((SPECS / "external").glob("*.md"))
STRENGTHS = {"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY", "OPTIONAL", "RECOMMENDED", "NOT RECOMMENDED", "our own"}

_PIPE = re.compile(r"(?<!\\)\|")
_REFERENCES = re.compile(r"`[^`]+`(?:, `[^`]+`)*")
_NAMED = re.compile(r"`([\w/]+/[\w/]+\.py)(?:(?:::|: )([\w:]+))?`")
_SETTING = re.compile(r"`((?:server|log)(?:\.[a-z_0-9]+)+)(?: = [^`]*)?`")
_COMMAND = re.compile(r"`translog ([a-z][^`]*)`")


def name_of(page: Path) -> str:
    return page.relative_to(SPECS).as_posix()


def tables(page: Path) -> Iterator[list[list[str]]]:
    """The tables of a page, each a list of rows of cells, its header first and without the line below it."""
    rows: list[list[str]] = []
    for line in [*page.read_text("utf-8").split("\n"), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in _PIPE.split(line.removeprefix("|").removesuffix("|"))])
        elif rows:
            header, rule, *body = rows
            assert all(set(cell) == {"-"} for cell in rule), f"{name_of(page)}: {line}"
            assert all(len(row) == len(header) for row in body), f"{name_of(page)}: a row of another width in {header}"
            yield [header, *body]
            rows = []


@cache
def names_in(path: Path) -> dict[str, ast.stmt]:
    """What a module defines, by the name after `::`."""
    found: dict[str, ast.stmt] = {}

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                found[prefix + node.name] = node
                collect(node.body, f"{prefix}{node.name}::")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[prefix + node.name] = node
            elif isinstance(node, ast.Assign):
                found.update({prefix + target.id: node for target in node.targets if isinstance(target, ast.Name)})

    collect(ast.parse(path.read_text("utf-8")).body, "")
    return found


def missing(reference: str) -> str:
    """Why a reference leads nowhere; empty if it leads somewhere. A page may leave the package's name out of a path."""
    path, _, name = reference.partition("::")
    if not path.startswith(("translog/", "tests/")):
        path = f"translog/{path}"
    if not (ROOT / path).is_file():
        return f"there is no {path}"
    if name and name not in names_in(ROOT / path):
        return f"there is no {name} in {path}"
    return ""


def references(cell: str) -> list[str]:
    assert _REFERENCES.fullmatch(cell), f"not a list of references: {cell}"
    return [part.strip("`") for part in cell.split(", ")]


def require_tests(cell: str) -> None:
    for reference in references(cell):
        name = reference.rpartition("::")[2]
        assert reference.startswith("tests/"), f"not a test: {reference}"
        assert name.startswith("test_"), f"not a test: {reference}"
        assert not missing(reference), missing(reference)
        test = names_in(ROOT / reference.partition("::")[0])[reference.partition("::")[2]]
        assert isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef)
        marks = [ast.unparse(decorator) for decorator in test.decorator_list]
        assert not any(mark.startswith("pytest.mark.xfail") for mark in marks), f"{reference} is expected to fail"


@pytest.mark.parametrize("page", EXTERNAL, ids=name_of)
def test_every_rule_names_what_keeps_it_and_what_tests_it(page: Path) -> None:
    number = 0
    for header, *rows in tables(page):
        assert header == ["#", "rule", "strength", "where", "test"]
        for found, rule, strength, where, test in rows:
            number += 1
            assert found == str(number)
            assert rule.endswith((".", ")")), rule
            assert strength in STRENGTHS, rule
            if test == "not implemented":
                assert where == "-", rule
            else:
                require_tests(test)
                for reference in references(where):
                    assert reference.startswith("translog/")
                    assert not missing(reference), missing(reference)
    assert number > 0


def test_every_threat_names_its_test_or_is_not_covered() -> None:
    threats = [row for header, *rows in tables(SPECS / "threat-model.md") if header[-1] == "test" for row in rows]
    assert len(threats) > 40
    for threat, against, test in threats:
        assert threat
        assert against
        if test != "not covered":
            require_tests(test)


def test_every_section_of_the_worst_day_names_its_tests() -> None:
    sections = (SPECS / "worst-day.md").read_text("utf-8").split("\n## ")[1:]
    assert len(sections) >= 10
    for section in sections:
        tests = re.findall(r"^Tests: (.*)$", section, re.MULTILINE)
        assert len(tests) == 1, section.partition("\n")[0]
        require_tests(tests[0])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_module_test_and_function_that_a_page_names_exists(page: Path) -> None:
    found = [missing("::".join(filter(None, parts))) for parts in _NAMED.findall(page.read_text("utf-8"))]
    assert [reason for reason in found if reason] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    for setting in _SETTING.findall(page.read_text("utf-8")):
        section: object = Settings
        for key in setting.split("."):
            assert isinstance(section, type), setting
            assert issubclass(section, BaseModel), setting
            assert key in section.model_fields, setting
            section = section.model_fields[key].annotation


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    for said in _COMMAND.findall(page.read_text("utf-8")):
        name, *words = said.split()
        assert name in COMMANDS, said
        command = importlib.import_module(COMMANDS[name][0]).command
        if isinstance(command, click.Group) and words and not (command.invoke_without_command and words[0].startswith("-")):
            command = command.get_command(click.Context(command), words[0])
            assert command is not None, said
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(words))) <= options, said


def codes() -> set[str]:
    """The codes that errors are raised with, and the ones of answers to what is no error of ours."""
    found = {code for code, _, _ in problem.HTTP_PROBLEMS.values()} | {problem.BAD_HTTP, problem.TOO_MANY_CONNECTIONS}
    for path in (ROOT / "translog").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(node.value, ast.Constant):
                found.add(str(node.value.value))
    return found


def defaults() -> set[str]:
    """The codes of errors that are raised without one."""
    kinds = [TranslogError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {kind.default_code for kind in kinds}


def test_every_code_is_in_the_formats_and_every_code_there_exists() -> None:
    page = SPECS / "formats.md"
    assert codes() - set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", page.read_text("utf-8"))) == set()
    said = {header[-1]: rows for header, *rows in tables(page)}
    cells = [row[-1] for row in [*said["codes"], *said["codes, besides those above"]]]
    cells += [row[2] for header, *rows in tables(page) if header[:3] == ["found", "outcome", "code"] for row in rows]
    named = set(re.findall(r"`([a-z]+(?:-[a-z]+)*)`", " ".join(cells)))
    assert len(named) > 70
    assert named - codes() - defaults() == {"usage", "not-installed"}


def test_every_specification_that_is_listed_has_its_table_and_the_other_way_round() -> None:
    [[header, *rows]] = tables(SPECS / "README.md")
    assert header == ["specification", "version", "table"]
    listed = [re.fullmatch(r"\[[\w.-]+\]\(external/([\w.-]+)\)", table) for _, _, table in rows]
    assert sorted(match[1] for match in listed if match) == [page.name for page in EXTERNAL]
    assert all(listed)
    assert all(version for _, version, _ in rows)


def test_decisions_are_numbered_without_gaps_and_say_what_speaks_against_them() -> None:
    records = sorted((SPECS / "decisions").glob("*.md"))
    assert [record.name[:4] for record in records] == [f"{number:04d}" for number in range(1, len(records) + 1)]
    for record in records:
        text = record.read_text("utf-8")
        assert text.startswith(f"# {record.name[:4]}: ")
        for part in ("Context", "Options", "Outcome", "Negatives"):
            assert f"\n**{part}.** " in text, f"{record.name}: {part}"


def test_a_reference_that_leads_nowhere_is_found() -> None:
    assert missing("tests/test_specs.py::missing") == ""
    assert missing("translog/core/note.py::VerifiedNote::text") != ""
    assert missing("tests/test_specs.py::no_such_name") != ""
    assert missing("tests/no_such_file.py") != ""
    assert missing("core/note.py::verify_note") == ""
    assert missing("core/note.py::no_such_name") != ""


# Rules that no other file looks at


async def test_our_client_asks_for_gzip_and_identity() -> None:
    simulator = Simulator([b"x"])
    async with simulator.serving() as url, Transport(url) as transport:
        await transport.get("checkpoint", bytes_max=10_000)
    [request] = simulator.requests
    assert {coding.strip() for coding in request.headers["Accept-Encoding"].split(",")} == {"gzip", "identity"}


async def test_our_client_ignores_members_of_the_wrong_type_and_the_advisory_status() -> None:
    simulator = Simulator([b"x"])
    simulator.answers["checkpoint"] = respond(500, b'{"status":404,"code":7,"detail":["some reason"],"hint":{"do":"that"}}')
    async with simulator.serving() as url, Transport(url) as transport:
        with pytest.raises(RemoteError) as caught:
            await transport.get("checkpoint", bytes_max=10_000)
    assert (caught.value.status, caught.value.code, caught.value.hint) == (500, "remote", "")
    assert caught.value.detail.endswith("/checkpoint answers 500: no reason given")


def test_a_new_log_prunes_nothing(tmp_path: Path) -> None:
    create_log(tmp_path / "log", origin="log.example", profile=Profile.OPAQUE)
    with DirectoryLock(tmp_path / "log") as lock:
        store = LevelDBStore.open(lock)
        assert store.meta.minimum_index == 0
        store.close()


def test_no_value_forges_a_log_line() -> None:
    forged = 'x\n{"event": "forged"}\r\x1b[2J\u2028'
    program = (
        "import structlog; from translog.bootstrap import configure_logging; configure_logging(); "
        f"structlog.get_logger().info('request', path={forged!r}, peer='127.0.0.1')"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stderr
    [line] = said.splitlines()
    assert json.loads(line)["event"] == "request"
    assert json.loads(line)["path"] == forged
    assert all(byte >= 0x20 for byte in line)
