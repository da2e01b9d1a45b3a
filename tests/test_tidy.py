"""Reads the sources: what the style asks for and no linter checks."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "translog").rglob("*.py"))
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 420
DOCSTRING_LINES_MAX = 12
JUNK_DRAWERS = {"utils", "util", "helpers", "common", "misc", "base", "types", "manager"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def public_definitions(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_module_opens_with_a_short_docstring(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert docstring, f"{path} says not what it is for"
    if "| ---" not in docstring and "    " not in docstring:  # tables and byte layouts may be longer
        assert len(docstring.splitlines()) <= DOCSTRING_LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_functions_and_modules_are_short(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_public_classes_and_raising_functions_have_docstrings(path: Path) -> None:
    for node in public_definitions(ast.parse(path.read_text("utf-8"))):
        raises = any(isinstance(child, ast.Raise) for child in ast.walk(node))
        if isinstance(node, ast.ClassDef) or (raises and not any(a.arg == "request" for a in node.args.args)):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def _is_handled(handler: ast.ExceptHandler) -> bool:
    """Whether the error is raised again, answered, logged with its trace, or handed on by name."""
    for child in ast.walk(handler):
        logged = isinstance(child, ast.Attribute) and child.attr == "exception"
        handed_on = isinstance(child, ast.Name) and child.id == handler.name
        if isinstance(child, ast.Raise | ast.Return) or logged or handed_on:
            return True
    return False


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_no_assert_and_no_swallowed_exception(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert disappears under -O"
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
            assert not broad or _is_handled(node), f"line {node.lineno}: a broad except that goes on"


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_no_module_imports_the_package_root_or_is_a_junk_drawer(path: Path) -> None:
    assert path.stem not in JUNK_DRAWERS
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "translog":
            assert [alias.name for alias in node.names] == ["__version__"]
        if isinstance(node, ast.Import):
            assert all(alias.name != "translog" for alias in node.names)


@pytest.mark.parametrize("path", SOURCES, ids=ids)
def test_verify_functions_return_no_bool(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(("verify", "require")):
            assert not (isinstance(node.returns, ast.Name) and node.returns.id == "bool"), node.name


def test_every_module_can_be_imported_alone() -> None:
    """One fresh interpreter imports each module into an emptied module table, with warnings as errors."""
    names = [module_name(path) for path in SOURCES if path.name != "__main__.py"]
    script = (
        "import sys, importlib\n"
        "for name in sys.argv[1:]:\n"
        "    for loaded in [m for m in sys.modules if m.partition('.')[0] == 'translog']:\n"
        "        del sys.modules[loaded]\n"
        "    importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
