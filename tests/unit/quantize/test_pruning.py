"""Smaller shapes come out, or a reason; nothing that onnxsim returns is believed unseen."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantize import pruning
from quantize.errors import BadInputError
from quantize.execution import open_runner
from quantize.model import storage
from quantize.model.shapes import dimensions
from quantize.passes.sequence import run_passes
from quantize.signature import Array
from tests import quantize_models as models

pytest.importorskip("onnxsim", reason="needs the extra `prune`")

Samples = list[Mapping[str, Array]]
_SHAPES = {models.cnn: (2, 3, 16, 16), models.mlp: (2, 16), models.transformer: (2, 5, 32)}


def _prepared(build: Callable[[Path], Path], folder: Path) -> tuple[Path, Samples]:
    path = build(folder / "m.onnx")
    name = storage.load_graph(path).graph.input[0].name
    random = np.random.default_rng(3)
    samples: Samples = [
        {name: random.normal(size=_SHAPES[build]).astype(np.float32)} for _ in range(3)
    ]
    made, _ = run_passes(path, folder / "passes", samples)
    return made, samples


@pytest.mark.parametrize("build", _SHAPES)
def test_each_rung_is_smaller_than_the_one_before_and_runs(
    tmp_path: Path, build: Callable[[Path], Path]
) -> None:
    source, samples = _prepared(build, tmp_path)
    before = sum(np.prod(each.dims) for each in storage.load_graph(source).graph.initializer)
    rungs = list(pruning.prune_ladder(source, tmp_path / "pruned", samples, (0.1, 0.3, 0.5)))
    assert [rung.ratio for rung in rungs] == [0.1, 0.3, 0.5]
    sizes = [before, *(rung.parameters for rung in rungs)]
    assert all(more > less > 0 for more, less in pairwise(sizes))
    for rung in rungs:
        assert rung.path is not None
        assert "channels removed" in rung.reason
        onnx.checker.check_model(str(rung.path), full_check=True)
        with open_runner(source) as whole, open_runner(rung.path) as smaller:
            assert whole.signature == smaller.signature
            answers = smaller.run(samples[0])
        assert all(np.isfinite(array).all() for array in answers.values())
    assert len(list((tmp_path / "pruned").iterdir())) == 3


def test_shapes_written_in_the_result_are_those_of_the_result(tmp_path: Path) -> None:
    source, samples = _prepared(models.cnn, tmp_path)
    (rung,) = pruning.prune_ladder(source, tmp_path / "pruned", samples, (0.5,))
    assert rung.path is not None
    model = storage.load_graph(rung.path)
    first = model.graph.node[0]
    assert dimensions(model)[first.output[0]][1] == dimensions(model)[first.input[1]][0] == 8


def test_the_same_samples_give_the_same_model(tmp_path: Path) -> None:
    source, samples = _prepared(models.mlp, tmp_path)
    made = []
    for folder in ("a", "b"):
        (rung,) = pruning.prune_ladder(source, tmp_path / folder, samples, (0.3,))
        assert rung.path is not None
        made.append(rung.path.read_bytes())
    assert made[0] == made[1]


def test_a_model_in_which_nothing_can_be_removed_says_so(tmp_path: Path) -> None:
    path = models.mlp(tmp_path / "m.onnx", sizes=(16, 4))
    samples: Samples = [{"x": np.ones((1, 16), np.float32)}]
    (rung,) = pruning.prune_ladder(path, tmp_path / "pruned", samples, (0.3,))
    assert rung.path is None
    assert "no channel or head can be removed" in rung.reason


def _without_last(model: onnx.ModelProto, axes: Mapping[str, int]) -> onnx.ModelProto:
    for tensor in model.graph.initializer:
        if tensor.name in axes:
            array = numpy_helper.to_array(tensor)
            axis = axes[tensor.name]
            cut = np.take(array, range(array.shape[axis] - 1), axis)
            tensor.CopyFrom(numpy_helper.from_array(cut, tensor.name))
    return model


def _narrow(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cut the last layer, so that the model's output has fewer values."""
    return _without_last(model, {"dense2.weight": 1, "dense2.bias": 0})


def _infinite(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove a channel as it should be, and spoil a number."""
    for tensor in model.graph.initializer:
        if tensor.name == "dense2.bias":
            spoilt = np.full(4, np.inf, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(spoilt, tensor.name))
    return _without_last(model, {"dense0.weight": 1, "dense0.bias": 0, "dense1.weight": 0})


def _crash(_model: onnx.ModelProto) -> onnx.ModelProto:
    raise AssertionError("internal\nfailure")


def _nothing(_model: onnx.ModelProto) -> None:
    return None


@pytest.mark.parametrize(
    ("removal", "words"),
    [
        (_narrow, "cannot be used"),
        (_infinite, "output 'y' is not finite"),
        (_crash, "onnxsim failed: internal failure"),
        (_nothing, "returned NoneType"),
    ],
)
def test_a_result_that_is_wrong_is_a_reason_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    removal: Callable[[onnx.ModelProto], object],
    words: str,
) -> None:
    monkeypatch.setattr(pruning, "_removals", lambda _samples, _ratio: [("channels", removal)])
    source, samples = _prepared(models.mlp, tmp_path)
    (rung,) = pruning.prune_ladder(source, tmp_path / "pruned", samples, (0.3,))
    assert rung.path is None
    assert words in rung.reason
    assert not list((tmp_path / "pruned").iterdir())


def test_the_first_removal_is_kept_when_the_second_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pruning._removals

    def removals(samples: Samples, ratio: float) -> list[tuple[str, object]]:
        return [real(samples, ratio)[0], ("heads", _crash)]

    monkeypatch.setattr(pruning, "_removals", removals)
    source, samples = _prepared(models.mlp, tmp_path)
    (rung,) = pruning.prune_ladder(source, tmp_path / "pruned", samples, (0.3,))
    assert rung.path is not None
    assert rung.path.exists()
    assert "channels removed; heads failed" in rung.reason


def test_a_quantised_model_is_not_pruned(tmp_path: Path) -> None:
    path = models.quantized(tmp_path / "m.onnx")
    samples: Samples = [{"x": np.ones((1, 16), np.float32)}]
    (rung,) = pruning.prune_ladder(path, tmp_path / "pruned", samples, (0.3,))
    assert rung.reason == "not tried: the model is quantised"


@pytest.mark.parametrize("how", ["unstructured", "sparse", "2:4", "Magnitude"])
def test_zeros_within_weights_are_refused_with_the_reason(how: str) -> None:
    with pytest.raises(BadInputError, match="make nothing faster"):
        pruning.check_request(how)


def test_an_unknown_way_is_refused_and_the_known_one_is_not() -> None:
    pruning.check_request("structured")
    with pytest.raises(BadInputError, match="unknown"):
        pruning.check_request("hard")


def test_another_version_of_onnxsim_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "VERSION", "0.0.1")
    with pytest.raises(BadInputError, match=r"needs onnxsim 0\.0\.1"):
        pruning.check_installed()


def test_pruning_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="needs samples"):
        next(pruning.prune_ladder(models.mlp(tmp_path / "m.onnx"), tmp_path, []))
