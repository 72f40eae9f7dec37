"""Which optimised graphs are not kept: those that cannot be proven to give the same answers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge_runtime import graph_optimization
from edge_runtime.optimized_graphs import MODEL, WEIGHTS, OptimizedGraphs, seal
from edge_runtime.session import SessionSettings
from tests import models
from tests.loads import Loader, bare, externalize, network

pytestmark = pytest.mark.integration

LIMIT = 2**26


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let graphs be made on machines that have no time to spare."""
    monkeypatch.setattr(graph_optimization, "PATIENCE_S", 200.0)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def make(path: Path) -> OptimizedGraphs:
    return OptimizedGraphs(path / "state" / "optimized", LIMIT, model_bytes_min=0)


def weights_that_are_inputs(path: Path) -> Path:
    """Take what old exporters made: ONNX Runtime folds such a weight, and keeps its input."""
    path.write_bytes((LIGHT / "light_squeezenet.onnx").read_bytes())
    return path


def fails_on_samples(path: Path) -> Path:
    return models.gather(path, table=[10.0])


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (weights_that_are_inputs, "it takes or gives other tensors than the original model"),
        (fails_on_samples, "it cannot be proven, the model fails on sample inputs"),
    ],
)
def test_graph_that_cannot_be_proven_is_not_kept_and_not_tried_again(
    write: Callable[[Path], Path],
    why: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    loads, bundle = Loader(caplog), bare(write(tmp_path / "m.onnx"))
    loads(bundle, make(tmp_path))
    assert not loads.used_graph()
    assert "will not be made again" in loads.log.text
    assert why in loads.log.text
    assert not [*tmp_path.glob("**/graph")]
    loads(bundle, make(tmp_path))
    assert not loads.used_graph()
    assert "will not be made again" not in loads.log.text


def branches(path: Path) -> Path:
    """``y = x a`` or ``x b``, whose weights lie in the branches of an If."""

    def branch(name: str, number: float) -> onnx.GraphProto:
        raw = np.full((64, 64), number, "<f4").tobytes()
        weight = helper.make_tensor(f"w_{name}", TensorProto.FLOAT, [64, 64], raw, raw=True)
        node = helper.make_node("MatMul", ["x", weight.name], [name])
        return helper.make_graph([node], name, [], [models.value(name, shape=("n", 64))], [weight])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["y"], then_branch=branch("a", 1.0), else_branch=branch("b", 2.0)
        ),
    ]
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    ends = [models.value(name, shape=("n", 64)) for name in "xy"]
    return models.save(path, nodes, ends[:1], ends[1:], [zero])


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_model_with_branches_gives_the_same_answers_with_the_cache_on(
    where: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = branches(tmp_path / "m.onnx")
    if where == "beside":
        externalize(path)
    loads, graphs = Loader(caplog), make(tmp_path)
    for each in (None, graphs, graphs):
        loaded = loads(bare(path), each)
        for sign, number in ((1, 1), (-1, 2)):
            (output,) = loaded.session.run(["y"], {"x": np.full((1, 64), sign, "<f4")})
            assert {*output.flat} == {sign * number * 64}


# -- the proof itself, with graphs that were spoilt after they were made ---------------------------


def not_a_model(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"\x08\x0a\x3a\x00")


def other_weights(folder: Path) -> None:
    weights = np.fromfile(folder / WEIGHTS, "<f4")
    (2 * weights).tofile(folder / WEIGHTS)


def other_files(folder: Path) -> None:
    model = onnx.load(folder / MODEL, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value.replace(WEIGHTS, "elsewhere.bin")
    (folder / MODEL).write_bytes(model.SerializeToString())
    (folder / WEIGHTS).rename(folder / "elsewhere.bin")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (not_a_model, "it does not run"),
        (other_weights, "it gives other answers than the original model"),
        (other_files, "it still reads weights of the original model"),
        (seal, ""),
    ],
)
def test_proof_finds_what_is_wrong_with_a_graph(
    spoil: Callable[[Path], None],
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    bundle = bare(network(tmp_path / "m.onnx"))
    (tmp_path / "made").mkdir()
    task = graph_optimization.Task(
        bundle.manifest, str(tmp_path), "as-is", SessionSettings(), str(tmp_path / "made")
    )
    monkeypatch.setattr(graph_optimization, "seal", spoil)
    assert graph_optimization.made_and_proven(task).startswith(why)
    assert bool(graph_optimization.made_and_proven(task)) == bool(why)
    assert capfdbinary.readouterr().out
