"""What stands in float is computed in float, and computes the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantize.execution import open_runner
from quantize.load_time_rounding import keep_float, rounded_at_load
from quantize.probing import node_times
from quantize.signature import Array

RNG = np.random.default_rng(0)
FEEDS: dict[str, Array] = {"x": RNG.normal(size=(1, 4, 8, 8)).astype(np.float32)}


def between_conversions(path: Path, follower: str) -> Path:
    """X -> Q -> DQ -> Conv (float weights) -> follower -> Q -> DQ -> y."""
    tensors = {
        "scale": np.array(0.05, np.float32),
        "zero": np.array(128, np.uint8),
        "after": np.array(0 if follower else 128, np.uint8),
        "w": RNG.normal(size=(8, 4, 3, 3)).astype(np.float32) / 6,
        "low": np.array(0, np.float32),
        "high": np.array(20, np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["c"], name="conv"),
    ]
    last = "c"
    if follower:
        limits = ["low", "high"] if follower == "Clip" else []
        nodes.append(helper.make_node(follower, ["c", *limits], ["f"]))
        last = "f"
    nodes += [
        helper.make_node("QuantizeLinear", [last, "scale", "after"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "scale", "after"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 6, 6])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.mark.parametrize("follower", ["", "Relu", "Clip"])
def test_float_stays_float_and_gives_what_the_graph_says(tmp_path: Path, follower: str) -> None:
    path = between_conversions(tmp_path / "m.onnx", follower)
    assert "QLinearConv" in {time.operator for time in node_times(path, FEEDS, runs=1)}
    model = onnx.load(path)
    assert [node.name for node in rounded_at_load(model.graph)] == ["conv"]
    assert keep_float(model) == 1
    assert not rounded_at_load(model.graph)
    onnx.checker.check_model(model, full_check=True)
    kept = tmp_path / "kept.onnx"
    onnx.save(model, kept)
    operators = {time.operator for time in node_times(kept, FEEDS, runs=1)}
    assert operators & {"Conv", "FusedConv"}
    assert not operators & {"QLinearConv", "LeakyRelu"}
    with open_runner(path, optimize="none") as said, open_runner(kept) as done:
        # One step of rounding: float sums come in another order.
        np.testing.assert_allclose(done.run(FEEDS)["y"], said.run(FEEDS)["y"], atol=0.051)


def test_a_result_with_two_readers_is_left_alone(tmp_path: Path) -> None:
    model = onnx.load(between_conversions(tmp_path / "m.onnx", "Relu"))
    model.graph.node.append(helper.make_node("Neg", ["c"], ["other"]))
    assert keep_float(model) == 0
