"""Candidates: made as the recipe says, fused by ONNX Runtime, close to the float model."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from quantize import execution, quantizers
from quantize.calibration import Calibrator
from quantize.data import Dataset
from quantize.errors import StepFailedError
from quantize.execution import open_runner
from quantize.portability import is_portable
from quantize.probing import node_times
from quantize.recipes import ModelFacts, ladder, safe
from quantize.records import Recipe
from quantize.targets import TARGETS
from tests import quantize_graphs

U8S8 = ladder(TARGETS["x86-64-vnni"], ModelFacts(1, 1, attention=False, largest_product=0))[0]
DYNAMIC = Recipe(name="dynamic", kind="dynamic", weight="QInt8", per_channel=True)
CNN_RECIPES = [
    recipe
    for target in ("x86-64-vnni", "arm64-dotprod", "x86-64")
    for recipe in ladder(
        TARGETS[target], ModelFacts(1, 1, attention=False, largest_product=0), "size"
    )
]


def build(recipe: Recipe, model: Path, data: Dataset, exclude: Sequence[str] = ()) -> Path:
    destination = model.with_name(f"{recipe.name}.onnx")
    ranges = None
    if recipe.calibration:
        ranges = Calibrator(model, data, model.parent / "cache").ranges(recipe)
    quantizers.build(recipe, model, destination, ranges=ranges, exclude=exclude)
    return destination


def error(candidate: Path, model: Path, data: Dataset) -> float:
    """Largest distance of an output, as a share of the outputs' range."""
    feeds = next(data.feeds(data.samples))
    with open_runner(candidate) as rounded, open_runner(model) as exact:
        reference = exact.run(feeds)["y"]
        return float(np.abs(rounded.run(feeds)["y"] - reference).max() / np.ptp(reference))


@pytest.mark.parametrize(
    "recipe", {recipe.name: recipe for recipe in CNN_RECIPES}.values(), ids=lambda each: each.name
)
def test_every_recipe_of_the_ladders_gives_a_model_close_to_the_float_one(
    recipe: Recipe, tmp_path: Path
) -> None:
    model = quantize_graphs.cnn(tmp_path / "m.onnx")
    data = quantize_graphs.pictures(count=32)
    candidate = build(recipe, model, data)
    onnx.checker.check_model(onnx.load(candidate))
    assert error(candidate, model, data) < 0.1
    assert {path.name for path in tmp_path.iterdir()} <= {"m.onnx", "cache", candidate.name}


def operators(candidate: Path, data: Dataset) -> Counter[str]:
    feeds = next(data.feeds(1))
    return Counter(time.operator for time in node_times(candidate, feeds, runs=1))


def test_the_default_operators_fuse_into_integer_kernels(tmp_path: Path) -> None:
    data = quantize_graphs.pictures()
    candidate = build(U8S8, quantize_graphs.cnn(tmp_path / "m.onnx"), data)
    run = operators(candidate, data)
    assert run["QLinearConv"] == 3
    assert run["QLinearAdd"] == 1  # the model says Sum
    assert run["QGemm"] == 1
    assert not run["Conv"] + run["FusedConv"] + run["Relu"] + run["Add"] + run["Sum"]
    # The head's result comes in float as it is: nothing behind it takes integers.
    assert (run["QuantizeLinear"], run["DequantizeLinear"]) == (1, 0)


def test_a_channel_shuffle_stays_in_integers_without_its_slow_transpose(tmp_path: Path) -> None:
    data = quantize_graphs.pictures(channels=8)
    candidate = build(U8S8, quantize_graphs.shuffled(tmp_path / "m.onnx"), data)
    run = operators(candidate, data)
    assert run["Gather"] == 1
    assert run["QLinearConv"] == 2
    assert all(
        len(node.attribute[0].ints) <= 4
        for node in onnx.load(candidate).graph.node
        if node.op_type == "Transpose"
    )


def test_weights_have_a_scale_per_channel_and_biases_are_int32(tmp_path: Path) -> None:
    model = quantize_graphs.cnn(tmp_path / "m.onnx")
    graph = onnx.load(build(U8S8, model, quantize_graphs.pictures())).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    assert list(tensors["conv1.w_scale"].dims) == [16]
    assert tensors["conv1.b_quantized"].data_type == onnx.TensorProto.INT32
    axes = {
        node.input[0]: attribute.i
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        for attribute in node.attribute
        if attribute.name == "axis"
    }
    assert axes["conv1.w_quantized"] == 0


def test_products_have_a_scale_per_column(tmp_path: Path) -> None:
    model = quantize_graphs.mlp(tmp_path / "m.onnx")
    graph = onnx.load(build(U8S8, model, quantize_graphs.samples(16))).graph
    scales = next(tensor for tensor in graph.initializer if tensor.name == "w1_scale")
    assert list(scales.dims) == [32]


def test_excluded_nodes_stay_in_float(tmp_path: Path) -> None:
    model, data = quantize_graphs.cnn(tmp_path / "m.onnx"), quantize_graphs.pictures()
    run = operators(build(U8S8, model, data, ["conv2", "relu2"]), data)
    assert run["QLinearConv"] == 2
    assert run["Conv"] + run["FusedConv"] == 1


@pytest.mark.parametrize("name", ["conv3", "conv1", "logits"])
def test_excluded_nodes_are_not_rounded_by_the_runtime_either(tmp_path: Path, name: str) -> None:
    """ONNX Runtime gives float weights between two conversions int8 ones while it loads."""
    model, data = quantize_graphs.cnn(tmp_path / "m.onnx"), quantize_graphs.pictures()
    candidate = build(U8S8, model, data, [name])
    run = operators(candidate, data)
    assert run["QLinearConv"] + run["QGemm"] == 3
    assert is_portable(build(safe(U8S8), model, data, [name])).portable


def test_the_softmax_that_gives_the_answer_stays_in_float(tmp_path: Path) -> None:
    model, data = quantize_graphs.cnn(tmp_path / "m.onnx"), quantize_graphs.pictures()
    candidate = build(U8S8, model, data)
    assert operators(candidate, data)["Softmax"] == 1
    with open_runner(candidate) as runner:
        shares = runner.run(next(data.feeds(8)))["y"]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


def test_reduced_range_keeps_weights_to_seven_bits(tmp_path: Path) -> None:
    model = quantize_graphs.cnn(tmp_path / "m.onnx")
    graph = onnx.load(build(safe(U8S8), model, quantize_graphs.pictures())).graph
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert len(weights) == 4
    assert 60 <= max(int(np.abs(weight.astype(int)).max()) for weight in weights) <= 64


def test_dynamic_quantisation_takes_gemms_as_well(tmp_path: Path) -> None:
    model, data = quantize_graphs.mlp(tmp_path / "m.onnx"), quantize_graphs.samples(16)
    candidate = build(DYNAMIC, model, data)
    kinds = Counter(node.op_type for node in onnx.load(candidate).graph.node)
    assert kinds["MatMulInteger"] == 3
    assert error(candidate, model, data) < 0.1


def test_a_recipe_that_fails_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    model, data = quantize_graphs.mlp(tmp_path / "m.onnx"), quantize_graphs.samples(16)
    recipe = Recipe(name="4bit", kind="matmul-nbits", bits=4, block_size=32)
    with pytest.raises(StepFailedError, match=r"recipe 4bit finds no MatMul") as failure:
        build(recipe, model, data)
    assert "\n" not in failure.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_range_that_is_missing_is_told_not_guessed(tmp_path: Path) -> None:
    model = quantize_graphs.mlp(tmp_path / "m.onnx")
    with pytest.raises(StepFailedError, match=r"recipe u8s8 cannot be made: [^\n]* param product1"):
        quantizers.build(U8S8, model, tmp_path / "q.onnx", ranges={"x": (-1, 1)})
    with pytest.raises(StepFailedError, match="needs calibrated ranges"):
        quantizers.build(U8S8, model, tmp_path / "q.onnx")


def test_a_tensor_that_is_always_zero_can_be_quantised(tmp_path: Path) -> None:
    model = quantize_graphs.mlp(tmp_path / "m.onnx")
    data = Dataset({"x": np.zeros((4, 16), np.float32)}, None, "test")
    candidate = build(U8S8, model, data)
    with open_runner(candidate) as runner:
        assert np.isfinite(runner.run(next(data.feeds(4)))["y"]).all()


def test_quantisers_are_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build(U8S8, quantize_graphs.cnn(tmp_path / "m.onnx"), quantize_graphs.pictures())
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET
    assert execution.RUNTIME_VERSION
