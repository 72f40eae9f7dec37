"""Other people's programs: where they are installed, and how their checks are run."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
CLIENTS: Final = Path(__file__).parent / "clients"
RUN_S: Final = 60.0

Results = Mapping[str, str | None]


def environment(name: str) -> Path:
    """Give a peer's virtual environment; without it the test is skipped, in CI it fails."""
    folder = ROOT / f".venv-{name}"
    if not (folder / "bin" / "python").exists():
        message = f"{folder.name} is missing: run `make peers`"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


def run(command: list[str], variables: Mapping[str, str] | None = None) -> str:
    """Run a peer's program to its successful end and give what it printed."""
    done = subprocess.run(
        command,
        env={**os.environ, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def checks(script: str) -> list[str]:
    """List the checks of a client script, without importing it."""
    text = (CLIENTS / script).read_text("utf-8")
    return re.findall(r"^(?:async )?def (check_\w+)", text, re.MULTILINE)


def results(peer: str, script: str, *arguments: str) -> Results:
    """Run every check of a client script in its peer's environment."""
    python = environment(peer) / "bin" / "python"
    printed = run([str(python), str(CLIENTS / script), *arguments])
    found: Results = json.loads(printed.splitlines()[-1])
    assert [*found] == checks(script)
    return found


def demand(found: Results, check: str) -> None:
    """Fail with the traceback of a check that failed."""
    if found[check] is not None:
        pytest.fail(str(found[check]), pytrace=False)
