"""Graphs rewritten for int8 kernels compute the same bits."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantize import integer_forms
from quantize.execution import open_runner
from tests import quantize_graphs


def rewritten(path: Path) -> tuple[Path, int]:
    model = onnx.load(path)
    count = integer_forms.rewrite(model)
    onnx.checker.check_model(model, full_check=True)
    target = path.with_name("rewritten.onnx")
    onnx.save(model, target)
    return target, count


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_a_channel_shuffle_becomes_a_gather_that_gives_the_same_bits(
    tmp_path: Path, groups: int
) -> None:
    path = quantize_graphs.shuffled(tmp_path / "m.onnx", groups=groups)
    target, count = rewritten(path)
    assert count == 1
    assert [node.op_type for node in onnx.load(target).graph.node] == ["Conv", "Gather", "Conv"]
    feeds = next(quantize_graphs.pictures(channels=8).feeds(1))
    with open_runner(path) as before, open_runner(target) as after:
        np.testing.assert_array_equal(before.run(feeds)["y"], after.run(feeds)["y"])


def test_a_sum_of_two_becomes_an_add_that_gives_the_same_bits(tmp_path: Path) -> None:
    path = quantize_graphs.cnn(tmp_path / "m.onnx")
    target, count = rewritten(path)
    assert count == 1
    assert "Sum" not in {node.op_type for node in onnx.load(target).graph.node}
    feeds = next(quantize_graphs.pictures().feeds(8))
    with open_runner(path) as before, open_runner(target) as after:
        np.testing.assert_array_equal(before.run(feeds)["y"], after.run(feeds)["y"])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("apart", [1, 4, 4, 4, 16]),  # cuts the picture in another way
        ("together", [1, 8, 16, 8]),  # joins it in another way
    ],
)
def test_what_only_looks_like_a_shuffle_stays(tmp_path: Path, name: str, shape: list[int]) -> None:
    model = onnx.load(quantize_graphs.shuffled(tmp_path / "m.onnx"))
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.array(shape), name))
    assert integer_forms.rewrite(model) == 0


def test_a_shuffle_whose_middle_is_an_output_stays(tmp_path: Path) -> None:
    model = onnx.load(quantize_graphs.shuffled(tmp_path / "m.onnx"))
    model.graph.output.append(onnx.ValueInfoProto(name="turn"))
    assert integer_forms.rewrite(model) == 0


def test_nodes_get_names_of_their_own_and_good_ones_stay() -> None:
    names = ["", "a", "a", "Relu_0", ""]
    nodes = [onnx.helper.make_node("Relu", ["x"], [f"y{i}"], name=n) for i, n in enumerate(names)]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], []))
    integer_forms.name_nodes(model)
    made = [node.name for node in model.graph.node]
    assert made[1] == "a"
    assert made[3] == "Relu_0"
    assert len(set(made)) == len(names)
    assert all(made)
