"""What goldens are made of: real samples within limits, and edges that the float model can take."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantize import golden_inputs
from quantize.data import Dataset
from quantize.golden_inputs import FirstLayer, edge_feeds, first_layers, make_goldens, saturating
from tests import models
from tests.quantize_bundles import FLOAT, digits


def _rows(count: int, width: int = 2) -> Dataset:
    array = np.arange(count * width, dtype=np.float32).reshape(count, width)
    return Dataset({"x": array}, np.arange(count), "test")


def test_takes_64_evenly_spread_samples_with_their_labels() -> None:
    data = digits()
    golden, *edges = make_goldens(FLOAT, data, data)
    assert golden.name == "samples-00"
    assert golden.feeds["image"].shape == (64, 1, 8, 8)
    assert data.labels is not None
    assert golden.labels is not None
    np.testing.assert_array_equal(golden.feeds["image"][[0, -1]], data.inputs["image"][[0, -1]])
    np.testing.assert_array_equal(golden.labels[[0, -1]], data.labels[[0, -1]])
    assert [edge.name for edge in edges] == [
        "edge-zeros",
        "edge-largest",
        "edge-saturation",
        "edge-near-saturation",
    ]
    assert all(len(edge.feeds["image"]) == 1 and edge.labels is None for edge in edges)


def test_takes_all_samples_where_there_are_few(tmp_path: Path) -> None:
    data = _rows(5)
    golden = make_goldens(models.add_constant(tmp_path / "m.onnx", 1.0), data, data)[0]
    np.testing.assert_array_equal(golden.feeds["x"], data.inputs["x"])
    np.testing.assert_array_equal(golden.outputs["y"], data.inputs["x"] + 1)


def test_keeps_within_its_bytes_but_has_one_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.add_constant(tmp_path / "m.onnx", 1.0)
    data = _rows(50)
    monkeypatch.setattr(golden_inputs, "BYTES_MAX", 10 * 16)
    assert len(make_goldens(path, data, data)[0].feeds["x"]) == 10
    monkeypatch.setattr(golden_inputs, "BYTES_MAX", 1)
    assert len(make_goldens(path, data, data)[0].feeds["x"]) == 1


def test_gives_a_model_that_insists_on_its_rows_full_runs(tmp_path: Path) -> None:
    path = models.add_constant(tmp_path / "m.onnx", 1.0, shape=(4, 2))
    data = Dataset(_rows(11).inputs, np.arange(11), "test", run_rows=4)
    goldens = make_goldens(path, data, data)
    real = [golden for golden in goldens if golden.name.startswith("samples")]
    assert [golden.name for golden in real] == ["samples-00", "samples-01"]
    assert all(golden.feeds["x"].shape == (4, 2) for golden in goldens)
    assert [len(golden.labels) for golden in real if golden.labels is not None] == [4, 4]


def test_fills_up_a_run_when_there_are_fewer_samples_than_rows(tmp_path: Path) -> None:
    path = models.add_constant(tmp_path / "m.onnx", 1.0, shape=(4, 2))
    data = Dataset(_rows(3).inputs, np.arange(3), "test", run_rows=4)
    golden = make_goldens(path, data, data)[0]
    assert golden.feeds["x"].shape == (4, 2)
    assert golden.labels is not None
    assert len(golden.labels) == 3


def test_takes_whole_inputs_one_by_one(tmp_path: Path) -> None:
    path = models.add_constant(tmp_path / "m.onnx", 1.0, shape=(2,))
    data = Dataset(_rows(3).inputs, None, "test", whole=frozenset({"x"}))
    real = [each for each in make_goldens(path, data, data) if each.name.startswith("samples")]
    assert [each.feeds["x"].shape for each in real] == [(2,)] * 3


def test_leaves_out_edges_where_the_float_model_gives_no_numbers(tmp_path: Path) -> None:
    data = _rows(3)
    names = [golden.name for golden in make_goldens(models.divide(tmp_path / "m.onnx"), data, data)]
    assert names == ["samples-00"]


def test_integers_stay_within_what_was_seen(tmp_path: Path) -> None:
    indices = np.array([2, 1, 2], np.int64)
    data = Dataset({"x": indices}, None, "test")
    edges = make_goldens(models.gather(tmp_path / "m.onnx"), data, data)[1:]
    assert {int(golden.feeds["x"][0]) for golden in edges} <= {1, 2}


def test_has_no_edge_twice() -> None:
    data = Dataset({"x": np.zeros((3, 2), np.float32)}, None, "test")
    assert edge_feeds({"x": data.inputs["x"]}, data, data, {}) == {}


# -- saturation ---------------------------------------------------------------------------------


def test_a_filter_meets_large_values_exactly_where_it_is_positive() -> None:
    weights = np.array([[[[-1.0, 1.0]]], [[[2.0, -3.0]]]])  # the second has the most positive
    found = saturating(np.zeros((1, 1, 2, 5), np.float32), FirstLayer("Conv", weights), -1.0, 9.0)
    np.testing.assert_array_equal(found[0, 0], [[9, -1, 9, -1, 9]] * 2)
    assert found.dtype == np.float32


def test_near_saturation_lies_between_a_sample_and_saturation() -> None:
    data = digits()
    edges = {golden.name: golden.feeds["image"] for golden in make_goldens(FLOAT, data, data)}
    sample = data.inputs["image"][:1]
    np.testing.assert_allclose(
        edges["edge-near-saturation"], sample + 0.75 * (edges["edge-saturation"] - sample)
    )


def test_only_the_channels_of_the_filter_are_changed() -> None:
    weights = np.array([[[[1.0]]], [[[5.0]]]])
    found = saturating(np.zeros((1, 2, 1, 1)), FirstLayer("Conv", weights, groups=2), 0.0, 9.0)
    np.testing.assert_array_equal(found.reshape(-1), [0, 9])


def test_a_column_of_a_product_counts_like_a_filter() -> None:
    weights = np.array([[1.0, 0.1], [-1.0, 0.1]])
    found = saturating(np.zeros((2, 3, 2)), FirstLayer("MatMul", weights), 0.0, 9.0)
    np.testing.assert_array_equal(found, np.broadcast_to([9.0, 0.0], (2, 3, 2)))


def test_shapes_that_do_not_fit_change_nothing() -> None:
    template = np.ones((1, 7))
    assert saturating(template, FirstLayer("Gemm", np.ones((3, 2))), 0.0, 9.0) is template
    assert saturating(template, FirstLayer("Conv", np.ones((3, 2, 1, 1))), 0.0, 9.0) is template


def test_finds_the_first_layer_of_a_real_model() -> None:
    assert first_layers(FLOAT)["image"].operator == "Conv"


@pytest.mark.parametrize("transposed", [False, True])
def test_reads_weights_of_a_product_as_in_and_out(tmp_path: Path, transposed: bool) -> None:  # noqa: FBT001
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    stored = weights.T if transposed else weights
    tensors = [
        numpy_helper.from_array(np.float32(2), "two"),
        numpy_helper.from_array(np.ascontiguousarray(stored), "w"),
    ]
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "w"], ["y"], transB=int(transposed)),
    ]
    path = models.save(
        tmp_path / "m.onnx",
        nodes,
        [models.value("x")],
        [models.value("y", shape=("b", 3))],
        tensors,
    )
    np.testing.assert_array_equal(first_layers(path)["x"].weights, weights)


def test_reads_the_weights_of_the_first_layer_from_beside_the_model(tmp_path: Path) -> None:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="w.bin", size_threshold=0,
        convert_attribute=False,
    )  # fmt: skip
    np.testing.assert_array_equal(first_layers(path)["x"].weights, weights)


def test_a_model_without_a_layer_has_none(tmp_path: Path) -> None:
    assert first_layers(models.two_inputs(tmp_path / "m.onnx")) == {}
