"""Two models side by side: distances, score, time and size, and clear words where they differ."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from quantize.comparison import Comparison, compare, output_distance, summary
from quantize.data import Dataset
from quantize.errors import BadInputError
from quantize.execution import open_runner
from quantize.metrics import metric
from tests import models
from tests.quantize_bundles import FLOAT, INT8, digits

ROWS = Dataset({"x": np.arange(20, dtype=np.float32).reshape(10, 2)}, None, "test")


def test_compares_the_int8_digits_with_the_float_ones() -> None:
    data = digits().take(np.arange(100))
    with open_runner(FLOAT) as runner:
        measure = metric("top1", has_labels=True, signature=runner.signature)
    found = compare(FLOAT, INT8, data, metric=measure, runs=10)
    assert (found.first, found.second, found.samples) == (FLOAT.name, INT8.name, 100)
    assert found.score is not None
    assert found.score.samples == 100
    assert found.score.low is not None
    assert found.first_bytes == FLOAT.stat().st_size
    scores, label = found.outputs
    assert (scores.output, label.output) == ("scores", "label")
    assert scores.largest is not None
    assert 0 < scores.largest < 0.2
    assert scores.same_class is not None
    assert scores.same_class > 0.95
    assert label.cosine is label.same_class is None
    assert label.equal == pytest.approx(scores.same_class)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found
    text = summary(found)
    for word in ("score    top1", "speed", "size", "output   scores", "output   label"):
        assert word in text


def test_a_model_is_equal_to_itself(tmp_path: Path) -> None:
    path = models.identity(tmp_path / "m.onnx")
    (output,) = compare(path, path, ROWS, metric=None, runs=10).outputs
    assert (output.largest, output.mean, output.cosine, output.same_class, output.equal) == (
        0, 0, 1, 1, 1,
    )  # fmt: skip
    assert output.signal_to_noise_db is None


def test_rows_that_change_each_other_are_run_one_at_a_time(tmp_path: Path) -> None:
    def scaled(name: str, **axes: object) -> Path:
        shape = ["rows", 2]
        graph = helper.make_graph(
            [
                helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=1, **axes),
                helper.make_node("Div", ["x", "largest"], ["y"]),
            ],
            "scaled",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(made, tmp_path / name)
        return tmp_path / name

    by_row, by_run = scaled("row.onnx", axes=[1]), scaled("run.onnx")
    (output,) = compare(by_row, by_run, ROWS, metric=None, runs=10).outputs
    assert output.largest == 0


def test_finds_the_sample_that_differs_most() -> None:
    first = np.ones((5, 3), np.float32)
    second = first.copy()
    second[3, 1] = 3
    found = output_distance("y", first, second)
    assert (found.largest, found.sample) == (2, 3)
    assert found.mean == pytest.approx(2 / 15)
    assert found.equal == pytest.approx(14 / 15)
    assert found.same_class == pytest.approx(4 / 5)
    assert found.signal_to_noise_db == pytest.approx(10 * np.log10(15 / 4))


def test_says_that_shapes_differ() -> None:
    found = output_distance("y", np.zeros((2, 3), np.float32), np.zeros((2, 2), np.float32))
    assert found.largest is None
    assert found.equal == 0


def test_what_is_no_number_in_both_is_no_difference() -> None:
    array = np.array([[np.nan, 1], [np.inf, 2]], np.float32)
    found = output_distance("y", array, array.copy())
    assert (found.largest, found.equal, found.cosine) == (0, 1, 1)


def test_refuses_models_that_take_other_inputs(tmp_path: Path) -> None:
    one, two = models.identity(tmp_path / "a.onnx"), models.two_inputs(tmp_path / "b.onnx")
    with pytest.raises(BadInputError, match=r"a\.onnx takes x .* and b\.onnx takes a "):
        compare(one, two, ROWS, metric=None)


def test_refuses_models_that_share_no_output(tmp_path: Path) -> None:
    one = models.identity(tmp_path / "a.onnx")
    node = helper.make_node("Identity", ["x"], ["z"])
    two = models.save(tmp_path / "b.onnx", [node], [models.value("x")], [models.value("z")])
    with pytest.raises(BadInputError, match="share no output"):
        compare(one, two, ROWS, metric=None)
