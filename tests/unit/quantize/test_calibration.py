"""Calibration: once for all recipes, the same as looking at everything, and bounded."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize import calibration, probing
from quantize.calibration import Calibrator, entropy_range, histogram, percentile_range
from quantize.data import Dataset
from quantize.errors import StepFailedError
from quantize.execution import open_runner
from quantize.probing import float_tensors, with_outputs
from quantize.records import Recipe
from quantize.signature import Array
from tests import quantize_graphs

MINMAX = Recipe(name="a", kind="static", calibration="minmax")
PERCENTILE = Recipe(name="b", kind="static", calibration="percentile", percentile=90)
OTHER_PERCENTILE = Recipe(name="c", kind="static", calibration="percentile", percentile=99)
ENTROPY = Recipe(name="d", kind="static", calibration="entropy")


@dataclass
class Counted:
    """Samples that count how often the model is run with one."""

    data: Dataset
    runs: int = field(default=0)

    @property
    def samples(self) -> int:
        """How many there are."""
        return self.data.samples

    @property
    def sha256(self) -> str:
        """Digest of all of them."""
        return self.data.sha256

    def feeds(self, rows: int) -> Iterator[dict[str, Array]]:
        """Give them, and count."""
        for feeds in self.data.feeds(rows):
            self.runs += 1
            yield feeds


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return quantize_graphs.cnn(tmp_path / "m.onnx")


def test_recipes_with_one_method_calibrate_once(model: Path, tmp_path: Path) -> None:
    data = Counted(quantize_graphs.pictures())
    calibrator = Calibrator(model, data, tmp_path / "cache")
    first = calibrator.ranges(MINMAX)
    assert data.runs == data.samples
    assert calibrator.ranges(MINMAX) == first
    assert data.runs == data.samples


def test_all_methods_together_take_two_passes(model: Path, tmp_path: Path) -> None:
    data = Counted(quantize_graphs.pictures())
    calibrator = Calibrator(model, data, tmp_path / "cache")
    for recipe in (ENTROPY, PERCENTILE, MINMAX, OTHER_PERCENTILE):
        calibrator.ranges(recipe)
    assert data.runs == 2 * data.samples


def test_a_later_session_calibrates_not_at_all(model: Path, tmp_path: Path) -> None:
    first = Calibrator(model, quantize_graphs.pictures(), tmp_path / "cache").ranges(ENTROPY)
    again = Counted(quantize_graphs.pictures())
    assert Calibrator(model, again, tmp_path / "cache").ranges(ENTROPY) == first
    assert again.runs == 0


def test_a_cache_that_cannot_be_written_costs_time_only(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    samples = quantize_graphs.pictures()
    first = Calibrator(model, samples, tmp_path / "cache").ranges(ENTROPY)
    assert Calibrator(model, samples, tmp_path / "file" / "cache").ranges(ENTROPY) == first
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".npz"}


def test_another_model_or_other_samples_calibrate_anew(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = Calibrator(model, quantize_graphs.pictures(), cache).ranges(MINMAX)
    other_data = Counted(quantize_graphs.pictures(seed=2))
    assert Calibrator(model, other_data, cache).ranges(MINMAX) != first
    assert other_data.runs == other_data.samples
    quantize_graphs.cnn(model, seed=1)
    other_model = Counted(quantize_graphs.pictures())
    assert Calibrator(model, other_model, cache).ranges(MINMAX) != first
    assert other_model.runs == other_model.samples


def test_a_changed_file_of_external_weights_counts_as_another_model(
    model: Path, tmp_path: Path
) -> None:
    proto = onnx.load(model)
    beside = tmp_path / "beside.onnx"
    onnx.save(proto, beside, save_as_external_data=True, location="w.bin", size_threshold=0)
    data = quantize_graphs.pictures()
    before = calibration.fingerprint(beside, data)
    weights = bytearray((tmp_path / "w.bin").read_bytes())
    weights[3] ^= 1
    (tmp_path / "w.bin").write_bytes(weights)
    assert calibration.fingerprint(beside, data) != before


def test_a_result_that_was_cut_off_is_made_again(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = Calibrator(model, quantize_graphs.pictures(), cache).ranges(MINMAX)
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    assert Calibrator(model, quantize_graphs.pictures(), cache).ranges(MINMAX) == first


def activations(model: Path, data: Dataset) -> dict[str, Array]:
    tensors = float_tensors(model)
    with with_outputs(model, tensors) as copy, open_runner(copy, optimize="none") as runner:
        runs = [{**runner.run(feeds), **feeds} for feeds in data.feeds(1)]
    return {name: np.concatenate([run[name].reshape(-1) for run in runs]) for name in tensors}


def test_ranges_are_the_ends_of_every_tensor_on_all_samples(model: Path, tmp_path: Path) -> None:
    data = quantize_graphs.pictures()
    ranges = Calibrator(model, data, tmp_path / "cache").ranges(MINMAX)
    expected = activations(model, data)
    assert set(ranges) == set(expected) >= {"x", "conv1", "relu3", "logits", "y"}
    for name, values in expected.items():
        assert ranges[name] == pytest.approx((values.min(), values.max()))


@pytest.mark.parametrize("limit", [1, 5000, 1 << 30])
def test_histograms_do_not_depend_on_how_much_is_held_at_once(
    model: Path, tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = quantize_graphs.pictures()
    expected = Calibrator(model, data, tmp_path / "whole").ranges(PERCENTILE)
    monkeypatch.setattr(probing, "CHUNK_BYTES", limit)
    assert Calibrator(model, data, tmp_path / f"{limit}").ranges(PERCENTILE) == expected


def test_a_percentile_keeps_that_share_of_the_values(model: Path, tmp_path: Path) -> None:
    data = quantize_graphs.pictures(count=32)
    ranges = Calibrator(model, data, tmp_path / "cache").ranges(PERCENTILE)
    low, high = ranges["conv2"]
    values = activations(model, data)["conv2"]
    assert np.mean((values >= low) & (values <= high)) == pytest.approx(0.9, abs=0.01)


def test_numbers_that_are_not_finite_are_told_with_their_tensor(
    model: Path, tmp_path: Path
) -> None:
    pictures = quantize_graphs.pictures().inputs["x"].copy()
    pictures[3, 0, 0, 0] = 3e38
    data = Dataset({"x": pictures}, None, "test")
    with pytest.raises(StepFailedError, match=r"tensor '\w+' .*NaN or infinite"):
        Calibrator(model, data, tmp_path / "cache").ranges(MINMAX)
    assert not (tmp_path / "cache").exists()


arrays = st.lists(
    st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=50
).map(lambda numbers: np.array(numbers, np.float32))


@given(arrays, st.floats(51, 100))
def test_every_method_stays_within_the_ends(values: Array, percentile: float) -> None:
    low, high = float(values.min()), float(values.max())
    counts = histogram(values, low, high)
    assert counts.sum() == values.size
    for found in (
        percentile_range(counts, low, high, percentile),
        entropy_range(counts, low, high),
    ):
        assert low <= found[0] <= found[1] <= high


@given(arrays)
def test_the_whole_percentile_keeps_every_value(values: Array) -> None:
    low, high = float(values.min()), float(values.max())
    found = percentile_range(histogram(values, low, high), low, high, 100)
    assert found == pytest.approx((low, high), rel=1e-3, abs=(high - low) * 1e-3)


def test_entropy_cuts_off_a_lonely_outlier() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    values[0] = 100.0
    low, high = float(values.min()), float(values.max())
    cut = entropy_range(histogram(values, low, high), low, high)
    assert cut[0] == low
    assert 3 < cut[1] < 20
