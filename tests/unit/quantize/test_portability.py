"""What computes the same on x86 CPUs with and without VNNI."""

import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from quantize import quantizers
from quantize.calibration import Calibrator
from quantize.execution import optimized_copy
from quantize.portability import is_portable
from quantize.recipes import ModelFacts, ladder, safe
from quantize.records import Recipe
from quantize.targets import TARGETS
from tests import quantize_graphs

FACTS = ModelFacts(convolutions=1, products=1, attention=False, largest_product=0)
RECIPES = {
    recipe.name: recipe
    for target in ("x86-64-vnni", "arm64", "portable")
    for recipe in ladder(TARGETS[target], FACTS)
    if recipe.calibration in {"", "minmax"}
}


def candidate(recipe: Recipe, folder: Path) -> Path:
    model = quantize_graphs.cnn(folder / "m.onnx")
    data = quantize_graphs.pictures()
    ranges = Calibrator(model, data, folder / "cache").ranges(recipe)
    path = folder / "q.onnx"
    quantizers.build(recipe, model, path, ranges=ranges)
    return path


@pytest.mark.parametrize(
    ("name", "portable"),
    [
        ("u8s8", False),
        ("s8s8", False),
        ("u8s8-7bit", True),
        ("u8u8", True),
        ("dynamic", False),
        ("dynamic-7bit", True),
    ],
)
def test_recipes_are_portable_as_their_weights_say(
    tmp_path: Path, name: str, *, portable: bool
) -> None:
    answer = is_portable(candidate(RECIPES[name], tmp_path))
    assert answer.portable is portable
    assert portable or "cut off" in answer.reason


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other CPUs keep signed activations")
def test_signed_activations_become_unsigned_on_x86(tmp_path: Path) -> None:
    """Why S8S8 of full range is not portable: its int8 weights meet uint8 after all."""
    path = candidate(RECIPES["s8s8"], tmp_path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "loaded.onnx").graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    products = {
        (kinds[node.input[2]], kinds[node.input[5]])
        for node in graph.node
        if node.op_type == "QLinearConv"
    }
    assert products == {(TensorProto.UINT8, TensorProto.INT8)}


@pytest.mark.parametrize("largest", [64, 65])
def test_the_bound_is_64(tmp_path: Path, largest: int) -> None:
    weight = np.zeros((4, 4), np.int8)
    weight[1, 1] = -largest
    graph = helper.make_graph(
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            helper.make_node("MatMulInteger", ["q", "w", "zero"], ["y"], name="product"),
        ],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, 4])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    assert is_portable(path).portable is (largest <= 64)


def test_a_float_model_is_portable(tmp_path: Path) -> None:
    answer = is_portable(quantize_graphs.cnn(tmp_path / "m.onnx"))
    assert answer == (True, "it has no integer products")


def test_float_weights_that_the_runtime_will_round_are_not(tmp_path: Path) -> None:
    path = candidate(safe(RECIPES["u8s8"]), tmp_path)
    model = onnx.load(path)
    graph = model.graph
    (node,) = [each for each in graph.node if each.name == "conv2"]
    shape = next(list(t.dims) for t in graph.initializer if t.name == "conv2.w_quantized")
    graph.initializer.append(
        onnx.numpy_helper.from_array(np.ones(shape, np.float32), "float_weight")
    )
    node.input[1] = "float_weight"
    onnx.save(model, path)
    assert "rounds the float weights of Conv 'conv2'" in is_portable(path).reason


def test_the_form_that_the_runtime_optimised_gives_the_same_answer(tmp_path: Path) -> None:
    path = candidate(RECIPES["u8s8"], tmp_path)
    optimized_copy(path, tmp_path / "basic.onnx")
    assert not is_portable(tmp_path / "basic.onnx").portable
