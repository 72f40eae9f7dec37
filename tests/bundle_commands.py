"""The commands ``bundle`` and ``keyring`` as a person or a script runs them."""

import os
import subprocess
from pathlib import Path

import numpy as np

from tests.daemons import COMMAND

WAIT_S = 60.0
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program; nobody is there to answer its questions."""
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def done(*arguments: str | Path, **environment: str) -> str:
    """Run it, and give what it printed; it must succeed."""
    ended = run(*arguments, **environment)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refused(code: int, *arguments: str | Path, **environment: str) -> str:
    """Run it, and give all it said; it must end with that exit code."""
    ended = run(*arguments, **environment)
    assert ended.returncode == code, (ended.returncode, ended.stdout, ended.stderr)
    assert "Traceback" not in ended.stderr
    return ended.stderr + ended.stdout


def create(model: Path, output: Path, *more: str | Path, **environment: str) -> str:
    """Make a bundle of ``m`` version 3."""
    return done(
        *("bundle", "create", model, "--name", "m", "--version", "3", "-o", output),
        *more,
        **environment,
    )
