"""Which nodes belong together."""

from pathlib import Path

import onnx

from quantize.groups import groups_of
from tests import quantize_graphs


def test_a_producer_keeps_what_is_fused_into_it(tmp_path: Path) -> None:
    groups = groups_of(quantize_graphs.cnn(tmp_path / "m.onnx"))
    assert [group.nodes for group in groups] == [
        ("conv1", "relu1"),
        ("conv2", "relu2"),
        ("conv3", "sum", "relu3"),
        ("pool",),
        ("flat",),
        ("logits",),
        ("y",),
    ]
    residual = groups[2]
    assert residual.operator == "Conv"
    assert residual.inputs == ("relu2", "relu1")
    assert residual.output == "relu3"


def test_operators_that_only_move_numbers_are_one_group(tmp_path: Path) -> None:
    groups = groups_of(quantize_graphs.shuffled(tmp_path / "m.onnx"))
    assert [group.nodes for group in groups] == [("conv1",), ("split", "turn", "join"), ("y",)]


def test_every_node_is_in_exactly_one_group_also_without_names(tmp_path: Path) -> None:
    path = quantize_graphs.mlp(tmp_path / "m.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = "same" if node.op_type == "MatMul" else ""
    onnx.save(model, path)
    nodes = [node for group in groups_of(path) for node in group.nodes]
    assert len(set(nodes)) == len(nodes) == len(model.graph.node)
    assert groups_of(path) == groups_of(path)
