"""What is written down about tensors, and what happens where nobody knows it."""

from pathlib import Path

from onnx import TensorProto, helper

from quantize.model import storage
from quantize.model.shapes import dimensions, unknown, with_shapes
from tests import quantize_models as models


def test_every_tensor_of_a_plain_network_gets_its_shape(tmp_path: Path) -> None:
    model = with_shapes(storage.load_graph(models.cnn(tmp_path / "m.onnx")))
    assert unknown(model) == 0
    shapes = dimensions(model)
    assert shapes["stem"] == (None, 16, 16, 16)
    assert shapes["flat"] == (None, 32)


def test_weights_keep_their_values_and_do_not_become_inputs(tmp_path: Path) -> None:
    path = models.cnn(tmp_path / "m.onnx")
    before = storage.load_graph(path).graph
    after = with_shapes(storage.load_graph(path)).graph
    assert list(after.initializer) == list(before.initializer)
    assert list(after.input) == list(before.input)
    assert list(after.node) == list(before.node)


def test_external_weights_are_not_needed(tmp_path: Path) -> None:
    path = models.external(tmp_path / "m.onnx")
    (tmp_path / "m.onnx.data").unlink()
    assert unknown(with_shapes(storage.load_graph(path))) == 0


def test_operators_of_the_runtime_do_not_end_inference(tmp_path: Path) -> None:
    model = storage.load_graph(models.transformer(tmp_path / "m.onnx"))
    for node in model.graph.node:
        if node.name == "gelu_erf":
            node.op_type, node.domain = "Gelu", "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    made = with_shapes(model)
    assert unknown(made) == 0
    assert dimensions(made)["gelu_erf"][-1] == 128


def test_a_model_that_cannot_be_inferred_stays_as_it_is(tmp_path: Path) -> None:
    model = storage.load_graph(models.mlp(tmp_path / "m.onnx"))
    wrong = helper.make_tensor_value_info("dense0", TensorProto.FLOAT, [1, 2, 3, 4, 5])
    model.graph.value_info.append(wrong)
    nodes = [node.name for node in model.graph.node]
    made = with_shapes(model)
    assert [node.name for node in made.graph.node] == nodes
    assert dimensions(made)["dense0.weight"] == (16, 64)
