"""What a model is made of, and what follows from it."""

from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edge_runtime.external_data import operators
from edge_runtime.hardware import cpu_facts
from edge_runtime.loading import load_bundle
from edge_runtime.repository import discover
from edge_runtime.routing import LoadedVersion
from edge_runtime.settings import Batching, Engine, Model
from tests.models import identity, save, slow, value


def loop(path: Path) -> Path:
    """A model whose time follows from its input's value: it counts to ``x``."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["sum", "one"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    node = helper.make_node("Loop", ["x", "true", "zero"], ["y"], body=body)
    outputs = [value("y", shape=())]
    return save(path, [node], [value("x", "INT64", ())], outputs, [zero, true])


def loaded(path: Path) -> LoadedVersion:
    load = partial(
        load_bundle,
        engine=Engine(),
        batching=Batching(),
        settings=Model(),
        providers=("CPUExecutionProvider",),
        cpu=cpu_facts(),
        cpus=1,
    )
    (bundle,) = discover({"m": Model(path=str(path))}, ()).bundles["m"].values()
    return load(bundle)


def test_every_operator_is_found_in_subgraphs_too(tmp_path: Path) -> None:
    assert operators(slow(tmp_path / "slow.onnx")) == {"MatMul"}
    assert operators(loop(tmp_path / "loop.onnx")) == {"Loop", "Identity", "Add"}


@pytest.mark.parametrize("name", ["digits-int8", "digits-fp32"])
def test_the_list_is_that_of_the_onnx_package(name: str) -> None:
    path = Path(__file__).parents[3] / "examples" / "digits" / f"{name}.onnx"
    nodes = onnx.load(path).graph.node
    assert operators(path) == {node.op_type for node in nodes}


def test_a_model_whose_time_follows_from_values_never_runs_on_the_loops_thread(
    tmp_path: Path,
) -> None:
    assert not loaded(loop(tmp_path / "loop.onnx")).lane.inline
    assert loaded(identity(tmp_path / "m.onnx")).lane.inline
