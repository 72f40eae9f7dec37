"""Files that change between being hashed and being loaded are never served under that digest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import ModelLoadError
from edge_runtime.optimized_graphs import OptimizedGraphs
from tests import models
from tests.loads import bare, load

ONE = {"x": np.ones((1, 2), np.float32)}
Meddle = Callable[[Path], None]


class Meddled(OptimizedGraphs):
    """A cache during whose look-up, after the hashing, somebody changes the model's files.

    Attributes:
        meddle: What is done then.
    """

    def __init__(self, folder: Path, meddle: Callable[[], None]) -> None:
        super().__init__(folder)
        self.meddle = meddle

    def find(self, key: str) -> Path | None:
        """Look for a graph."""
        self.meddle()
        return super().find(key)


def rewrite(path: Path) -> None:
    """Write other contents into the same file."""
    other = models.add_constant(path.with_name("other.onnx"), 5.0)
    path.write_bytes(other.read_bytes())


def replace(path: Path) -> None:
    """Put another file in its place."""
    models.add_constant(path, 5.0)


def renew(path: Path) -> None:
    """Put an equal file in its place: nobody can tell that it was equal all the time."""
    copy = path.with_name("copy.onnx")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize("meddle", [rewrite, replace, renew])
def test_files_that_change_while_they_are_loaded_are_refused_and_load_when_they_rest(
    tmp_path: Path, meddle: Meddle
) -> None:
    path = models.add_constant(tmp_path / "m.onnx", 1.0)
    bundle = bare(path)
    state = tmp_path / "state" / "optimized"
    with pytest.raises(ModelLoadError, match="changed while they were loaded; load it again"):
        load(bundle, Meddled(state, lambda: meddle(path)))
    assert not [*state.rglob("*.onnx"), *state.rglob("*.ort")], "nothing of it is kept"
    expected = 2.0 if meddle is renew else 6.0
    for _ in range(2):  # once from the file, once from what was kept of it
        loaded = load(bare(path), OptimizedGraphs(state))
        assert loaded.session.run(["y"], ONE)[0].tolist() == [[expected] * 2]
        loaded.session.close()


def test_files_that_vanish_while_they_are_loaded_are_refused(tmp_path: Path) -> None:
    path = models.add_constant(tmp_path / "m.onnx", 1.0)
    bundle = bare(path)
    with pytest.raises(ModelLoadError):
        load(bundle, Meddled(tmp_path / "state" / "optimized", path.unlink))


def test_files_that_rest_are_loaded(tmp_path: Path) -> None:
    path = models.add_constant(tmp_path / "m.onnx", 1.0)
    loaded = load(bare(path), Meddled(tmp_path / "state" / "optimized", lambda: None))
    assert loaded.session.run(["y"], ONE)[0].tolist() == [[2.0, 2.0]]
    loaded.session.close()
