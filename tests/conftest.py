"""Fixtures that many tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Daemon

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits"


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's own daemon and settings out of the tests."""
    for variable in list(os.environ):
        if variable.startswith("EDGE_RUNTIME"):
            monkeypatch.delenv(variable)


@pytest.fixture(scope="session")
def digits() -> Iterator[Daemon]:
    """A daemon that serves the digits model, shared: tests must not change what it serves."""
    with Daemon([f"digits={DIGITS / 'digits-int8.onnx'}", "--http", "127.0.0.1:0"]) as running:
        yield running
