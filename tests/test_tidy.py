"""The rules of the house that no linter has: sizes, owners of libraries, leftovers."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
FOLDERS = ("edge_runtime", "quantize", "agent", "fleet", "tests", "benchmarks", "examples", "docs")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PROGRAMS = sorted(
    path
    for folder in ("edge_runtime", "quantize", "agent", "fleet")
    for path in (ROOT / folder).rglob("*.py")
)

# One file owns each foreign library (a folder's name: every file in it).
OWNERS = {
    "cryptography": {
        "agent/enrolment/certificates.py",
        "agent/identity.py",
        "edge_runtime/observation/journal_record.py",
        "edge_runtime/trust/signatures.py",
        "fleet/repository/key_files.py",
    },
    "fastcdc": {"fleet/repository/chunking.py"},
    "rich": {"fleet/cli/output.py"},
    "starlette": {"fleet/repository/server.py"},
    "typer": {"fleet/cli"},
    "uvicorn": {"fleet/repository/server.py"},
    "onnxruntime": {
        "edge_runtime/session.py",
        "quantize/execution.py",
        "quantize/quantizers.py",
        "quantize/model/shapes.py",
        "quantize/passes/transformers.py",
    },
    "matplotlib": {"quantize/reports/pictures.py"},
    "onnxsim": {"quantize/pruning.py"},
    "onnxslim": {"quantize/passes/slimming.py"},
    "scipy": {"quantize/confidence.py"},
    "httptools": {"edge_runtime/api/http.py", "edge_runtime/client"},
    "uvloop": {"edge_runtime/daemon.py"},
    "prometheus_client": {"agent/telemetry/runtime_numbers.py", "edge_runtime/api/exposition.py"},
    "psutil": {"agent/telemetry/host.py"},
    "tqdm": {"agent/cli/importing.py", "edge_runtime/cli", "quantize/cli/bars.py"},
    "sqlite3": {
        "agent/records",
        "edge_runtime/cache",
        "edge_runtime/observation/journal_file.py",
        "edge_runtime/release/journal_checks.py",
        "edge_runtime/release/journal_file.py",
        "edge_runtime/release/journal_migration.py",
    },
    "paho": {"agent/transport/bounded_client.py", "agent/transport/connection.py"},
    "tuf": {"agent/trust", "fleet/repository"},
    "urllib3": {"agent/trust"},
    "sqlite_utils": {"edge_runtime/cache/migrations.py", "edge_runtime/cache/inspection.py"},
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function without its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_a_file_is_one_idea_long() -> None:
    lines = {_name(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > FILE_LINES_MAX} == {}


def test_a_function_fits_a_screen() -> None:
    assert [
        f"{_name(path)}: {node.name} has {_code_lines(node)} lines"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and _code_lines(node) > FUNCTION_LINES_MAX
    ] == []


def test_nothing_is_left_for_later_in_comments() -> None:
    words = ("FIX" + "ME", "TO" + "DO", "XX" + "X")
    texts = {_name(path): path.read_text("utf-8") for path in FILES}
    assert [name for name, text in texts.items() if any(word in text for word in words)] == []


@pytest.mark.parametrize("library", OWNERS)
def test_one_place_owns_each_library(library: str) -> None:
    users = {_name(path) for path in PROGRAMS if library in set(_imports(path))}
    strangers = {
        user
        for user in users
        if not any(user == owner or user.startswith(f"{owner}/") for owner in OWNERS[library])
    }
    assert users, f"nobody imports {library}; drop the row and the dependency"
    assert not strangers


def _modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    return set(output.split())


def test_the_manifest_loads_neither_numpy_nor_onnxruntime() -> None:
    assert not {"numpy", "onnxruntime"} & _modules_after("import edge_runtime.manifest")


def test_the_client_loads_no_onnxruntime() -> None:
    assert "onnxruntime" not in _modules_after("import edge_runtime.client")


def test_wrong_usage_is_told_without_loading_onnxruntime() -> None:
    statement = "from edge_runtime.cli import parser; parser()"
    assert not {"numpy", "onnxruntime", "asyncio"} & _modules_after(statement)


def test_the_daemon_starts_without_what_only_some_need() -> None:
    modules = _modules_after("import edge_runtime.daemon, edge_runtime.cli.serve")
    strangers = {"prometheus_client", "tqdm", "onnx", "psutil", "sqlite3", "sqlite_utils"}
    assert not (strangers | {"cryptography"}) & modules


def test_a_bundle_is_verified_with_what_a_device_has() -> None:
    statement = "import quantize.cli, quantize.cli.verify_command"
    strangers = {"onnx", "onnxslim", "onnxsim", "scipy", "matplotlib", "sympy", "tqdm"}
    assert not strangers & _modules_after(statement)


def test_wrong_usage_of_the_quantiser_is_told_without_loading_onnxruntime() -> None:
    statement = "from quantize.cli.arguments import parser; parser()"
    assert not {"numpy", "onnxruntime", "onnx", "scipy"} & _modules_after(statement)
