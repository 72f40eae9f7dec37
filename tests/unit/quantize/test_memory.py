"""Peak memory, measured in a process of its own."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from quantize.errors import StepFailedError
from quantize.memory import peak_bytes
from tests.models import identity, save, value

MIB = 1 << 20


def widening(path: Path, columns: int) -> Path:
    """``y`` is ``x`` repeated so often: a run needs that much."""
    times = helper.make_tensor("times", TensorProto.INT64, [2], [1, columns])
    node = helper.make_node("Tile", ["x", "times"], ["y"])
    return save(
        path, [node], [value("x", shape=("batch", 1))], [value("y", shape=(1, columns))], [times]
    )


def test_counts_what_a_run_needs(tmp_path: Path) -> None:
    feeds = {"x": np.ones((1, 1), np.float32)}
    small = peak_bytes(widening(tmp_path / "small.onnx", 16), feeds)
    large = peak_bytes(widening(tmp_path / "large.onnx", 16 * MIB), feeds)
    assert small > 0
    assert 48 * MIB < large - small < 256 * MIB


def test_takes_inputs_of_any_name(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["file", "a/b"], ["y"])
    path = save(tmp_path / "m.onnx", [node], [value("file"), value("a/b")], [value("y")])
    feeds = {name: np.ones((1, 2), np.float32) for name in ("file", "a/b")}
    assert peak_bytes(path, feeds, threads=2) > 0


def test_a_failure_is_one_sentence_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(StepFailedError, match=r"^broken\.onnx: memory not measured: ") as told:
        peak_bytes(path, {})
    assert "Traceback" not in told.value.message
    with pytest.raises(StepFailedError, match=r"memory not measured: m\.onnx: a run failed"):
        peak_bytes(identity(tmp_path / "m.onnx"), {})
