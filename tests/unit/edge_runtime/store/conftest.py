"""Fixtures of the store's tests."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder_of_mine() -> Iterator[Path]:
    """A folder that anybody may come to; pytest's own are for its user only."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
