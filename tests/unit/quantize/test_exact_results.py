"""Results of the last layers are not rounded, and nothing else changes."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from quantize import quantizers
from quantize.calibration import Calibrator
from quantize.data.dataset import Dataset
from quantize.exact_results import keep_exact
from quantize.execution import open_runner
from quantize.records import Recipe
from tests import quantize_graphs

ROOT = Path(__file__).parent.parent.parent.parent
DIGITS = ROOT / "examples" / "digits" / "digits-fp32.onnx"
RECIPE = Recipe(
    name="u8s8",
    kind="static",
    activation="QUInt8",
    weight="QInt8",
    per_channel=True,
    calibration="minmax",
)


def _built(model: Path, folder: Path) -> Path:
    calibrator = Calibrator(model, quantize_graphs.pictures(), folder / "cache")
    ranges = calibrator.ranges(RECIPE)
    file = folder / "quantised.onnx"
    quantizers.build(RECIPE, model, file, ranges=ranges)
    return file


def test_logits_come_without_a_rounding_behind_them(tmp_path: Path) -> None:
    file = _built(quantize_graphs.cnn(tmp_path / "m.onnx"), tmp_path)
    graph = onnx.load(file).graph
    makers = {tensor: node.op_type for node in graph.node for tensor in node.output}
    assert all(makers[value.name] != "DequantizeLinear" for value in graph.output)
    read = {tensor for node in graph.node for tensor in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_it_is_closer_to_the_float_model_than_with_the_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = quantize_graphs.cnn(tmp_path / "m.onnx")
    exact = _built(model, tmp_path).rename(tmp_path / "exact.onnx")
    monkeypatch.setattr("quantize.exact_results.keep_exact", lambda _: 0)
    rounded = _built(model, tmp_path)
    distances = []
    feeds = [*quantize_graphs.pictures(16).feeds(1)]
    for file in (exact, rounded):
        with open_runner(model) as theirs, open_runner(file) as mine:
            pairs = [(mine.run(each), theirs.run(each)) for each in feeds]
        distances.append(
            np.mean([np.abs(a[name] - b[name]).mean() for a, b in pairs for name in a])
        )
    assert distances[0] <= distances[1]


def test_a_result_that_integers_follow_is_left_alone(tmp_path: Path) -> None:
    model = onnx.load(_built(quantize_graphs.cnn(tmp_path / "m.onnx"), tmp_path))
    before = len(model.graph.node)
    assert keep_exact(model) == 0
    assert len(model.graph.node) == before


def test_shares_that_something_else_reads_stay_float(tmp_path: Path) -> None:
    """The digits' ArgMax reads the Softmax that is an output: neither may be rounded."""
    calibration = np.load(DIGITS.with_name("test.npz"))["image"][:32]
    data = Dataset({"image": calibration}, None, "digits")
    calibrator = Calibrator(_copied(DIGITS, tmp_path), data, tmp_path / "cache")
    file = tmp_path / "digits.onnx"
    quantizers.build(RECIPE, tmp_path / DIGITS.name, file, ranges=calibrator.ranges(RECIPE))
    with open_runner(file) as runner:
        scores = runner.run({"image": calibration})["scores"]
    assert len(np.unique(scores)) > 256
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def _copied(model: Path, folder: Path) -> Path:
    inferred = onnx.shape_inference.infer_shapes(onnx.load(model))
    onnx.save(inferred, folder / model.name)
    return folder / model.name
