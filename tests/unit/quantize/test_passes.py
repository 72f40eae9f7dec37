"""Rewriting steps: what each does, and that only what helps is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from quantize.errors import BadInputError, StepFailedError
from quantize.execution import open_runner
from quantize.model import storage
from quantize.model.architecture import transformer_type
from quantize.model.operators import opset
from quantize.passes.agreement import compare, tolerance
from quantize.passes.constants import CONSTANTS, constant_nodes
from quantize.passes.finishing import FINISHING, name_nodes
from quantize.passes.lifting import LIFTING
from quantize.passes.sequence import PASSES, run_passes
from quantize.passes.slimming import SLIMMING
from quantize.passes.step import Pass, always, broken, read_subject
from quantize.passes.transformers import TRANSFORMERS
from quantize.records import Latency, PassResult
from quantize.signature import Array
from tests import quantize_models as models

Feeds = list[Mapping[str, Array]]


def _samples(path: Path, count: int = 3, varying: int = 3) -> Feeds:
    random = np.random.default_rng(7)
    with open_runner(path) as runner:
        inputs = runner.signature.inputs
    return [
        {
            each.name: random.normal(
                size=[varying if size is None else size for size in each.shape]
            ).astype(each.dtype)
            for each in inputs
        }
        for _ in range(count)
    ]


def _run(
    path: Path, folder: Path, passes: Sequence[Pass] = PASSES
) -> tuple[onnx.ModelProto, dict[str, PassResult], Path]:
    made, results = run_passes(path, folder, _samples(path), passes=passes)
    return storage.load_graph(made), {each.name: each for each in results}, made


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _latency(ratio: float, low: float, high: float) -> Latency:
    return Latency(
        p50_s=ratio,
        p90_s=ratio,
        reference_p50_s=1.0,
        reference_p90_s=1.0,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        runs=10,
        threads=1,
        rows=1,
        cpu="test",
    )


def _edit(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path, Path], None]:
    def call(source: Path, destination: Path) -> None:
        model = storage.load_graph(source)
        change(model)
        storage.save(model, destination, weights_in=source.parent)

    return call


def _step(change: Callable[[onnx.ModelProto], None]) -> tuple[Pass, ...]:
    return (LIFTING, Pass("test", requires=always, call=_edit(change)))


def test_normalisation_is_folded_into_the_weights(tmp_path: Path) -> None:
    model, results, _ = _run(models.cnn(tmp_path / "m.onnx"), tmp_path / "w")
    assert "BatchNormalization" not in _operators(model)
    assert results["onnxslim"].kept
    assert results["onnxslim"].nodes_after == results["onnxslim"].nodes_before - 4


def test_an_old_network_comes_out_new_with_all_weights_stored(tmp_path: Path) -> None:
    model, results, made = _run(models.opset9(tmp_path / "m.onnx"), tmp_path / "w")
    assert opset(model) >= 17
    assert not {"ConstantOfShape", "Dropout", "BatchNormalization"} & set(_operators(model))
    assert "head.weight" in {each.name for each in model.graph.initializer}
    assert [each.name for each in model.graph.input] == ["image"]
    assert results["constants"].kept
    onnx.checker.check_model(str(made), full_check=True)


def test_a_transformer_is_fused_and_its_products_stay_where_quantisers_look(
    tmp_path: Path,
) -> None:
    model, results, _ = _run(models.transformer(tmp_path / "m.onnx", plain=True), tmp_path / "w")
    assert results["onnxruntime.transformers"].kept
    operators = _operators(model)
    assert operators.count("MatMul") == 8
    assert "SkipLayerNormalization" in operators
    assert "Erf" not in operators


def test_the_result_gives_the_answers_of_the_original(tmp_path: Path) -> None:
    for build in (models.cnn, models.mlp, models.transformer, models.opset9, models.external):
        path = build(tmp_path / build.__name__ / "m.onnx")
        made, results = run_passes(path, path.parent / "w", _samples(path))
        fresh = _samples(path, count=5)[3:]
        with open_runner(path) as old, open_runner(made) as new:
            answers = compare([new.run(each) for each in fresh], [old.run(each) for each in fresh])
        assert not answers.problem
        assert results[0].name == "opset"


def test_external_weights_stay_beside_the_result_and_the_original_is_not_touched(
    tmp_path: Path,
) -> None:
    path = models.external(tmp_path / "m.onnx")
    files = {each: each.read_bytes() for each in (path, tmp_path / "m.onnx.data")}
    model, _, made = _run(path, tmp_path / "w", (LIFTING, FINISHING))
    assert all(each.external_data for each in model.graph.initializer)
    assert storage.stored_bytes(made) > (tmp_path / "m.onnx.data").stat().st_size
    assert {each: each.read_bytes() for each in files} == files


def test_only_the_last_model_is_left_and_the_original_stays_even_beside_it(
    tmp_path: Path,
) -> None:
    path = models.external(tmp_path / "m.onnx")
    files = {each: each.read_bytes() for each in tmp_path.iterdir()}
    made, _ = run_passes(path, tmp_path, _samples(path))
    assert {each: each.read_bytes() for each in files} == files
    assert set(tmp_path.iterdir()) - files.keys() == {made}


def test_every_node_has_a_name_of_its_own_afterwards(tmp_path: Path) -> None:
    model, _, _ = _run(models.opset9(tmp_path / "m.onnx"), tmp_path / "w")
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_names_that_nodes_have_are_kept() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"], name="a"),
        helper.make_node("Relu", ["b"], ["c"], name="a"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    name_nodes(model)
    assert [node.name for node in model.graph.node] == ["a_2", "a", "c"]


def test_a_step_that_changes_an_answer_is_not_kept(tmp_path: Path) -> None:
    def falsify(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.01, tensor.name))
        model.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0))

    path = models.mlp(tmp_path / "m.onnx")
    _, results, made = _run(path, tmp_path / "w", _step(falsify))
    assert not results["test"].kept
    assert "'y' differs by" in results["test"].reason
    assert results["test"].max_difference > 0
    assert made.name == "0-opset.onnx"
    assert [each.name for each in made.parent.iterdir()] == [made.name]


def test_a_step_that_fixes_the_batch_is_not_kept(tmp_path: Path) -> None:
    def fix(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3

    _, results, _ = _run(models.mlp(tmp_path / "m.onnx"), tmp_path / "w", _step(fix))
    assert "the shape of 'x'" in results["test"].reason


def test_a_step_that_hides_weights_is_not_kept(tmp_path: Path) -> None:
    def hide(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type, model.graph.node[0].domain = "FusedGemm", "com.microsoft"
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    _, results, _ = _run(models.mlp(tmp_path / "m.onnx"), tmp_path / "w", _step(hide))
    assert "hides 1024 of 3072 weights" in results["test"].reason


def test_a_step_that_fails_is_recorded_and_the_next_goes_on(tmp_path: Path) -> None:
    def fail(_source: Path, _destination: Path) -> None:
        raise StepFailedError("cannot do it")

    steps = (LIFTING, Pass("failing", requires=always, call=fail), SLIMMING)
    _, results, _ = _run(models.cnn(tmp_path / "m.onnx"), tmp_path / "w", steps)
    assert results["failing"].reason == "cannot do it"
    assert results["onnxslim"].kept


def test_a_step_whose_result_does_not_load_is_recorded(tmp_path: Path) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type, model.graph.node[0].domain = "Unheard", "com.microsoft"
        model.graph.initializer[0].name = model.graph.node[0].input[1]
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    _, results, _ = _run(models.cnn(tmp_path / "m.onnx"), tmp_path / "w", _step(spoil))
    assert not results["test"].kept
    assert results["test"].reason


def test_a_step_that_changes_nothing_is_not_kept(tmp_path: Path) -> None:
    _, results, _ = _run(models.mlp(tmp_path / "m.onnx"), tmp_path / "w")
    assert results["onnxslim"].reason == "it changes nothing"


@pytest.mark.parametrize(
    ("latency", "kept"),
    [(_latency(1.3, 1.1, 1.5), False), (_latency(1.1, 0.9, 1.3), True)],
    ids=["slower", "doubtful"],
)
def test_a_slower_result_is_not_kept_and_a_doubtful_one_is(
    tmp_path: Path, latency: Latency, *, kept: bool
) -> None:
    measured: list[str] = []

    def measure(new: Path, old: Path) -> Latency:
        measured.extend((new.name, old.name))
        return latency

    path = models.cnn(tmp_path / "m.onnx")
    steps = (LIFTING, SLIMMING)
    made, results = run_passes(path, tmp_path / "w", _samples(path), measure=measure, passes=steps)
    assert measured == ["1-onnxslim.onnx", "0-opset.onnx"]
    assert results[1].kept is kept
    assert results[1].latency_ratio == latency.ratio
    assert results[0].latency_ratio is None
    assert made.name.startswith("1" if kept else "0")


def test_a_model_that_answers_nan_is_refused(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx")
    samples = [{"x": np.full((1, 16), np.nan, np.float32)}]
    with pytest.raises(BadInputError, match="NaN for sample 0"):
        run_passes(path, tmp_path / "w", samples)


def test_a_step_that_is_needed_and_fails_is_the_models_fault(tmp_path: Path) -> None:
    steps = (replace(LIFTING, ensures=lambda _before, _after: "it is odd"),)
    path = models.mlp(tmp_path / "m.onnx")
    with pytest.raises(BadInputError, match="it is odd"):
        run_passes(path, tmp_path / "w", _samples(path), passes=steps)


def test_constants_are_computed_once_and_what_is_random_is_left(tmp_path: Path) -> None:
    model = storage.load_graph(models.mlp(tmp_path / "m.onnx"))
    weight = model.graph.node[0].input[1]
    model.graph.node[0].input[1] = "twice"
    model.graph.node[0].attribute.append(helper.make_attribute("transB", 1))
    added = [
        helper.make_node("Transpose", [weight], ["once"], perm=[1, 0]),
        helper.make_node("Identity", ["once"], ["twice"]),
        helper.make_node("RandomNormal", [], ["noise"], shape=[1]),
    ]
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*added, *kept])
    assert [each.op_type for each in constant_nodes(model)] == ["Transpose", "Identity"]
    path = tmp_path / "with.onnx"
    storage.save(model, path)
    CONSTANTS.call(path, tmp_path / "folded.onnx")
    folded = storage.load_graph(tmp_path / "folded.onnx")
    assert {each.name for each in folded.graph.initializer} >= {"twice"}
    assert weight not in {each.name for each in folded.graph.initializer}
    assert _operators(folded)[0] == "RandomNormal"
    feeds = {"x": np.ones((2, 16), np.float32)}
    with open_runner(path) as old, open_runner(tmp_path / "folded.onnx") as new:
        assert np.allclose(old.run(feeds)["y"], new.run(feeds)["y"])
    assert not list(tmp_path.glob("*-constants.onnx"))


def test_a_model_over_the_limit_skips_what_needs_it_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "ONE_FILE_BYTES_MAX", 10_000)
    model, results, made = _run(models.transformer(tmp_path / "m.onnx"), tmp_path / "w")
    assert "more than one protobuf message" in results["onnxslim"].reason
    assert "more than one protobuf message" in results["onnxruntime.transformers"].reason
    assert any(each.external_data for each in model.graph.initializer)
    assert storage.stored_bytes(made) > 10_000


@pytest.mark.parametrize(
    ("build", "kind"), [(models.transformer, "bert"), (models.cnn, ""), (models.mlp, "")]
)
def test_transformers_are_recognised(
    tmp_path: Path, build: Callable[[Path], Path], kind: str
) -> None:
    path = build(tmp_path / "m.onnx")
    assert transformer_type(storage.load_graph(path)) == kind
    assert bool(TRANSFORMERS.requires(read_subject(path))) is not bool(kind)


def test_a_result_for_one_cpu_only_is_broken(tmp_path: Path) -> None:
    before = read_subject(models.cnn(tmp_path / "m.onnx"))
    model = storage.load_graph(before.path)
    model.graph.node[0].domain = "com.microsoft.nchwc"
    after = replace(before, model=model)
    assert "com.microsoft.nchwc" in broken(before, after)


def test_answers_may_differ_by_rounding_and_not_more() -> None:
    right: Feeds = [{"y": np.array([[0.0, 1.0, 10.0]], np.float32)}]
    near: Feeds = [{"y": right[0]["y"] + np.float32(5e-4)}]
    far: Feeds = [{"y": right[0]["y"] + np.float32(5e-3)}]
    assert not compare(near, right).problem
    assert "'y' differs" in compare(far, right).problem


def test_infinities_integers_and_shapes_must_be_the_same() -> None:
    right: Feeds = [{"y": np.array([1.0, -np.inf], np.float32), "n": np.array([1, 2])}]
    assert not compare(right, right).problem
    for name, other in (
        ("y", np.array([1.0, 5.0], np.float32)),
        ("y", np.array([[1.0, -np.inf]], np.float32)),
        ("n", np.array([1, 3])),
    ):
        assert repr(name) in compare([{**right[0], name: other}], right).problem


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20),
    st.floats(0, 0.4),
)
def test_within_the_tolerance_the_largest_stays_the_largest_unless_another_was_near(
    values: list[float], share: float
) -> None:
    right = np.array(values, np.float32)
    allowed = tolerance([right])
    noise = np.random.default_rng(0).uniform(-1, 1, right.size) * allowed * share
    found = (right + noise).astype(np.float32)
    if not compare([{"y": found}], [{"y": right}]).problem:
        assert right[int(found.argmax())] >= right.max() - 2 * allowed
