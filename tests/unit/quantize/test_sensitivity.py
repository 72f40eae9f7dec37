"""Whom to blame: noise that a group adds, against the time it costs in float."""

from pathlib import Path

import numpy as np
import pytest

from quantize import probing, quantizers
from quantize.calibration import Calibrator
from quantize.errors import StepFailedError
from quantize.groups import Group, groups_of
from quantize.probing import NodeTime, chunks, group_seconds, node_times
from quantize.progress import Silent
from quantize.recipes import ModelFacts, ladder
from quantize.records import Recipe
from quantize.sensitivity import LOUDEST, rank, signal_to_noise
from quantize.targets import TARGETS
from tests import quantize_graphs

U8S8 = ladder(TARGETS["x86-64-vnni"], ModelFacts(1, 1, attention=False, largest_product=0))[0]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return quantize_graphs.cnn(tmp_path / "m.onnx")


def candidate(model: Path, spoiled: str = "", exclude: tuple[str, ...] = ()) -> Path:
    """Quantise; the range of one tensor is a hundred times what it should be."""
    data = quantize_graphs.pictures()
    ranges = Calibrator(model, data, model.parent / "cache").ranges(U8S8)
    if spoiled:
        low, high = ranges[spoiled]
        ranges[spoiled] = (100 * low, 100 * high)
    path = model.with_name("q.onnx")
    quantizers.build(U8S8, model, path, ranges=ranges, exclude=exclude)
    return path


@pytest.mark.parametrize(
    ("spoiled", "nodes"),
    [("relu1", ("conv1", "relu1")), ("relu2", ("conv2", "relu2"))],
)
def test_the_layer_that_was_spoiled_comes_first(
    model: Path, spoiled: str, nodes: tuple[str, ...]
) -> None:
    quantised = candidate(model, spoiled)
    ranked = rank(model, quantised, groups_of(model), quantize_graphs.pictures())
    assert ranked[0].nodes == nodes
    assert ranked[0].signal_to_noise_db < 20


def test_what_is_in_float_without_being_excluded_is_not_to_blame(model: Path) -> None:
    """Leaving the softmax out once more would mend nothing."""
    ranked = rank(model, candidate(model), groups_of(model), quantize_graphs.pictures())
    assert {each.nodes[0] for each in ranked} == {
        "conv1",
        "conv2",
        "conv3",
        "pool",
        "flat",
        "logits",
    }


def test_layers_of_a_dynamically_quantised_model_are_ranked_too(tmp_path: Path) -> None:
    model = quantize_graphs.mlp(tmp_path / "m.onnx")
    recipe = Recipe(name="dynamic", kind="dynamic", weight="QInt8")
    quantizers.build(recipe, model, tmp_path / "q.onnx")
    ranked = rank(model, tmp_path / "q.onnx", groups_of(model), quantize_graphs.samples(16))
    assert {each.nodes[0] for each in ranked} == {"product1", "product2", "y"}


def test_of_equal_noise_the_cheaper_group_comes_first(model: Path) -> None:
    quantised = candidate(model)
    groups = groups_of(model)
    free = rank(model, quantised, groups, quantize_graphs.pictures())
    worst = next(place for place, each in enumerate(groups) if each.nodes == free[0].nodes)
    seconds = [1000.0 if place == worst else 1.0 for place in range(len(groups))]
    costly = rank(model, quantised, groups, quantize_graphs.pictures(), seconds=seconds)
    assert costly[0].nodes != free[0].nodes
    assert max(costly, key=lambda each: each.time_share).nodes == free[0].nodes


def test_exact_groups_have_no_noise_and_excluded_ones_are_marked(model: Path) -> None:
    exclude = ("conv1", "relu1")
    quantised = candidate(model, exclude=exclude)
    groups = groups_of(model)
    data = quantize_graphs.pictures()
    signals = signal_to_noise(model, quantised, groups, data, threads=1, progress=Silent())
    assert 20 < signals["relu3"] < 60
    ranked = rank(model, quantised, groups, data, excluded=exclude)
    assert [each.nodes for each in ranked if each.excluded] == [exclude]
    equal = signal_to_noise(model, model, groups, data, threads=1, progress=Silent())
    assert set(equal.values()) == {LOUDEST}


def test_the_result_does_not_depend_on_how_much_is_held_at_once(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantised = candidate(model)
    expected = rank(model, quantised, groups_of(model), quantize_graphs.pictures())
    monkeypatch.setattr(probing, "CHUNK_BYTES", 1)
    assert rank(model, quantised, groups_of(model), quantize_graphs.pictures()) == expected


def test_models_that_share_nothing_are_told(model: Path, tmp_path: Path) -> None:
    other = quantize_graphs.mlp(tmp_path / "other.onnx")
    groups = [Group(("a",), "Conv", (), ("nowhere",))]
    with pytest.raises(StepFailedError, match="keeps no tensor"):
        rank(model, other, groups, quantize_graphs.pictures())


def test_every_second_of_a_profile_belongs_to_a_group(model: Path) -> None:
    groups = groups_of(model)
    feeds = next(quantize_graphs.pictures().feeds(1))
    for path in (model, candidate(model)):
        times = node_times(path, feeds, runs=3)
        seconds = group_seconds(times, groups)
        assert sum(seconds) == pytest.approx(sum(time.seconds for time in times))
        by_first = {group.nodes[0]: each for group, each in zip(groups, seconds, strict=True)}
        assert min(by_first["conv1"], by_first["conv2"], by_first["conv3"]) > 0


def test_what_the_runtime_puts_between_counts_for_the_group_that_needs_it() -> None:
    groups = [
        Group(("a", "relu"), "Conv", ("x",), ("a", "r")),
        Group(("b",), "Conv", ("r",), ("y",)),
    ]
    times = [
        NodeTime("x_QuantizeLinear", "QuantizeLinear", 1),
        NodeTime("Transpose_token_1", "Transpose", 2),
        NodeTime("a_token_4", "QLinearConv", 4),
        NodeTime("ReorderOutput", "ReorderOutput", 8),
        NodeTime("r_DequantizeLinear", "DequantizeLinear", 16),
        NodeTime("Transpose_token_9", "Transpose", 32),
        NodeTime("y_nchwc", "Conv", 64),
        NodeTime("Transpose_token_12", "Transpose", 128),
    ]
    assert group_seconds(times, groups) == (1 + 2 + 4 + 8 + 16, 32 + 64 + 128)


def test_chunks_fit_the_limit_and_hold_everything_once() -> None:
    sizes = dict(zip("abcdef", [5, 5, 11, 3, 3, 4], strict=True))
    assert chunks(sizes, 10) == [["a", "b"], ["c"], ["d", "e", "f"]]
    assert np.sum([len(part) for part in chunks(sizes, 1)]) == len(sizes)
