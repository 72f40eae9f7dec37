"""Fixtures that many tests share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.daemons import Daemon
from tests.every_row import IS_EVERY_ROW

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "examples" / "digits"

# How long an example takes says more about the machine than about the promise.
hypothesis.settings.register_profile(
    "untimed", deadline=None, max_examples=100 if IS_EVERY_ROW else 40
)
hypothesis.settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Keep what was collected out of every later look of the collector: it is large and stays.

    A daemon in this process collects when a model leaves; among ten thousand tests that takes
    half a second each time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Keep the caller's own daemon, settings and state out of the tests."""
    for variable in list(os.environ):
        if variable.startswith("EDGE_RUNTIME"):
            monkeypatch.delenv(variable)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    # Of daemons that are started without --state-dir; tests.daemons gives each one its own.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))


@pytest.fixture(scope="session")
def digits() -> Iterator[Daemon]:
    """A daemon that serves the digits model, shared: tests must not change what it serves."""
    with Daemon([f"digits={DIGITS / 'digits-int8.onnx'}", "--http", "127.0.0.1:0"]) as running:
        yield running
