"""Old models come out as opset 17 with the same answers, or are refused with the operator."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantize.errors import BadInputError
from quantize.execution import open_runner
from quantize.model import storage
from quantize.model.operators import opset
from quantize.model.opset import OPSET_LEAST, lifted
from quantize.signature import Array
from tests import quantize_models as models


def _value(name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT) -> object:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _model(
    nodes: Sequence[onnx.NodeProto],
    values: tuple[Sequence[object], Sequence[object]],
    version: int,
    tensors: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "old", *values, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=4)


def _answers(path: Path, feeds: dict[str, Array]) -> list[Array]:
    with open_runner(path, optimize="none") as runner:
        return list(runner.run(feeds).values())


def _same_after_lifting(model: onnx.ModelProto, folder: Path, feeds: dict[str, Array]) -> bool:
    storage.save(model, folder / "old.onnx")
    made = lifted(storage.load_graph(folder / "old.onnx"), "old.onnx")
    assert opset(made) == OPSET_LEAST
    storage.save(made, folder / "new.onnx", weights_in=folder)
    onnx.checker.check_model(str(folder / "new.onnx"), full_check=True)
    before, after = (_answers(folder / name, feeds) for name in ("old.onnx", "new.onnx"))
    return all(np.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))


def test_a_network_of_2018_is_lifted_with_the_same_answers(tmp_path: Path) -> None:
    model = storage.load_graph(models.opset9(tmp_path / "m.onnx"))
    image = np.random.default_rng(1).normal(size=(1, 3, 16, 16)).astype(np.float32)
    assert _same_after_lifting(model, tmp_path, {"image": image})


def test_after_lifting_no_stored_tensor_is_an_input(tmp_path: Path) -> None:
    made = lifted(storage.load_graph(models.opset9(tmp_path / "m.onnx")), "m.onnx")
    assert [each.name for each in made.graph.input] == ["image"]
    assert made.ir_version >= 8


def test_a_new_model_is_left_as_it_is(tmp_path: Path) -> None:
    model = storage.load_graph(models.cnn(tmp_path / "m.onnx"))
    before = model.SerializeToString(deterministic=True)
    assert lifted(model, "m.onnx").SerializeToString(deterministic=True) == before


def test_external_weights_stay_where_they_are_while_an_old_graph_is_lifted(tmp_path: Path) -> None:
    path = models.external(tmp_path / "m.onnx")
    model = storage.load_graph(path)
    model.opset_import[0].version = 11
    made = lifted(model, "m.onnx")
    kept = [each for each in made.graph.initializer if each.external_data]
    assert len(kept) == len(storage.load_graph(path).graph.initializer)
    storage.save(made, tmp_path / "out" / "new.onnx", weights_in=tmp_path)
    feeds: dict[str, Array] = {"x": np.ones((2, 16), np.float32)}
    assert np.array_equal(_answers(path, feeds), _answers(tmp_path / "out" / "new.onnx", feeds))


def test_softmax_over_several_axes_keeps_its_old_meaning(tmp_path: Path) -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    shape = ("batch", 3, 4)
    model = _model([node], ([_value("x", shape)], [_value("y", shape)]), 9)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    assert _same_after_lifting(model, tmp_path, {"x": x})


def test_upsampling_becomes_resize_with_the_same_answers(tmp_path: Path) -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    node = helper.make_node("Upsample", ["x", "scales"], ["y"], mode="nearest")
    values = ([_value("x", (1, 2, 3, 3))], [_value("y", (1, 2, 6, 6))])
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 3)).astype(np.float32)
    assert _same_after_lifting(_model([node], values, 9, [scales]), tmp_path, {"x": x})


def test_graphs_within_nodes_are_lifted_too(tmp_path: Path) -> None:
    branches = [
        helper.make_graph(
            [helper.make_node(kind, ["x"], [name], axes=[0])], name, [], [_value(name, shape)]
        )
        for kind, name, shape in (("Squeeze", "then", (3,)), ("Squeeze", "else", (3,)))
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    values = ([_value("c", (), TensorProto.BOOL), _value("x", (1, 3))], [_value("y", (3,))])
    feeds: dict[str, Array] = {"c": np.array(1, np.bool_), "x": np.ones((1, 3), np.float32)}
    assert _same_after_lifting(_model([node], values, 11), tmp_path, feeds)


def test_layer_normalization_from_before_onnx_had_it_is_lifted(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.arange(1, 5, dtype=np.float32), "scale")
    node = helper.make_node("LayerNormalization", ["x", "scale"], ["y"], axis=-1)
    shape = ("batch", 4)
    model = _model([node], ([_value("x", shape)], [_value("y", shape)]), 12, [scale])
    x = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    assert _same_after_lifting(model, tmp_path, {"x": x})


def test_functions_of_a_model_are_put_in_place(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("own", "Activate", ["a"], ["b"], body, imports[:1])
    node = helper.make_node("Activate", ["x"], ["y"], domain="own")
    graph = helper.make_graph([node], "g", [_value("x", (2,))], [_value("y", (2,))])
    model = helper.make_model(graph, opset_imports=imports, functions=[function], ir_version=8)
    storage.save(model, tmp_path / "m.onnx")
    made = lifted(storage.load_graph(tmp_path / "m.onnx"), "m.onnx")
    assert [each.op_type for each in made.graph.node] == ["Relu"]
    assert not made.functions


def test_what_cannot_be_lifted_is_refused_with_the_operator_and_its_node() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["i"], ["o"])],
        "body",
        [_value("i", (2,))],
        [_value("o", (2,))],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], name="fine"),
        helper.make_node(
            "Scan", ["lengths", "h"], ["y"], name="loop", num_scan_inputs=1, body=body
        ),
    ]
    inputs = [_value("x", (1, 3, 2)), _value("lengths", (1,), TensorProto.INT64)]
    model = _model(nodes, (inputs, [_value("y", (1, 3, 2))]), 8)
    with pytest.raises(BadInputError, match=r"opset 8 .*operator Scan in node 'loop'") as caught:
        lifted(model, "m.onnx")
    assert "/" not in caught.value.message
