"""Running over samples and scoring: the digits, streams of any length, and unfit float models."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from quantize.data import Dataset, read_data
from quantize.errors import BadInputError, StepFailedError
from quantize.evaluation import outputs_of, rows_that_work, score
from quantize.execution import Runner, open_runner
from quantize.metrics import Metric, metric
from quantize.progress import Step
from quantize.signature import Array, Signature, TensorInfo
from tests.conftest import DIGITS
from tests.models import (
    add_constant,
    dynamically_quantized,
    identity,
    less_mean,
    some_rows,
)


@pytest.fixture(scope="module")
def runners() -> Iterator[tuple[Runner, Runner]]:
    """The float and the int8 digits model."""
    with (
        open_runner(DIGITS / "digits-fp32.onnx") as float_model,
        open_runner(DIGITS / "digits-int8.onnx") as int8_model,
    ):
        yield float_model, int8_model


def test_the_digits_keep_99_percent_with_confidence(runners: tuple[Runner, Runner]) -> None:
    data = read_data(DIGITS / "test.npz", runners[0].signature)
    found = metric("auto", has_labels=data.labels is not None, signature=runners[0].signature)
    reference, outputs = (outputs_of(each, data, 64, found.outputs) for each in runners)
    result = score(found, outputs, reference, data.labels, confidence=0.95, floor=0.99)
    assert (result.metric, result.samples) == ("top1", 450)
    assert result.reference == pytest.approx(448 / 450)
    assert result.ratio == pytest.approx(1)
    assert result.low is not None
    assert 0.99 <= result.low < 1
    assert result.samples_needed is None


def test_fewer_digits_cannot_tell_and_say_how_many_would(runners: tuple[Runner, Runner]) -> None:
    data = read_data(DIGITS / "test.npz", runners[0].signature).take(range(100))
    found = metric("top1", has_labels=True, signature=runners[0].signature)
    reference, outputs = (outputs_of(each, data, 64) for each in runners)
    result = score(found, outputs, reference, data.labels, confidence=0.95, floor=0.99)
    assert result.low is not None
    assert result.low < 0.99
    assert result.samples_needed is not None
    assert 320 < result.samples_needed < 340


@pytest.mark.parametrize("rows", [1, 7, 450, 1000])
def test_outputs_do_not_depend_on_the_rows_of_a_run(
    runners: tuple[Runner, Runner], rows: int
) -> None:
    data = read_data(DIGITS / "test.npz", runners[0].signature)
    outputs = outputs_of(runners[0], data, rows, ("label",))
    assert list(outputs) == ["label"]
    assert outputs["label"].shape == (450,)
    np.testing.assert_array_equal(
        outputs["label"], outputs_of(runners[0], data, 50, ("label",))["label"]
    )


def test_a_run_that_was_filled_up_gives_no_more_outputs_than_samples(tmp_path: Path) -> None:
    array = np.arange(10, dtype=np.float32).reshape(5, 2)
    with open_runner(add_constant(tmp_path / "m.onnx", 1, (3, 2))) as runner:
        outputs = outputs_of(runner, Dataset({"x": array}, None, "", run_rows=3), 8)
    np.testing.assert_array_equal(outputs["y"], array + 1)


def test_whole_inputs_give_whole_outputs(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    with open_runner(add_constant(tmp_path / "m.onnx", 1, (2, 2))) as runner:
        data = Dataset({"x": array}, None, "", whole=frozenset({"x"}))
        np.testing.assert_array_equal(outputs_of(runner, data, 8)["y"], array + 1)


def test_outputs_without_a_row_for_each_sample_are_refused(tmp_path: Path) -> None:
    array = np.array([[1, 0], [-1, 0]], np.float32)
    with (
        open_runner(some_rows(tmp_path / "m.onnx")) as runner,
        pytest.raises(BadInputError, match=r"'y' has shape \[1, 2\] for 2 samples"),
    ):
        outputs_of(runner, Dataset({"x": array}, None, ""), 8)


def test_outputs_whose_shape_changes_are_refused(tmp_path: Path) -> None:
    array = np.array([[[1, 0], [1, 0]], [[1, 0], [-1, 0]]], np.float32)
    data = Dataset({"x": array}, None, "", whole=frozenset({"x"}))
    with (
        open_runner(some_rows(tmp_path / "m.onnx")) as runner,
        pytest.raises(StepFailedError, match=r"shape \[1, 2\] for a sample after \[2, 2\]"),
    ):
        outputs_of(runner, data, 8)


def test_runs_take_many_samples_only_where_that_changes_nothing(
    tmp_path: Path, runners: tuple[Runner, Runner]
) -> None:
    digits = read_data(DIGITS / "test.npz", runners[0].signature)
    assert [rows_that_work(each, digits, 16) for each in runners] == [16, 16]
    random = np.random.default_rng(0)
    pairs = Dataset({"x": random.random((8, 2), np.float32)}, None, "")
    wide = Dataset({"x": random.random((8, 8), np.float32)}, None, "")
    with (
        open_runner(less_mean(tmp_path / "mean.onnx")) as mean,
        open_runner(dynamically_quantized(tmp_path / "dynamic.onnx")) as dynamic,
        open_runner(identity(tmp_path / "one.onnx", shape=(1, 2))) as one,
    ):
        assert rows_that_work(mean, pairs, 4) == 1
        assert rows_that_work(dynamic, wide, 4) == 1
        assert rows_that_work(one, pairs, 4) == 1


class Counting:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[int | None] = []

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Step]:
        """Note how much there is."""
        assert text
        self.told.append(total)
        yield self

    def advance(self, count: int = 1) -> None:
        """Note how much is done."""
        self.told.append(count)


def test_progress_counts_every_sample(tmp_path: Path) -> None:
    progress = Counting()
    with open_runner(identity(tmp_path / "m.onnx")) as runner:
        data = Dataset({"x": np.zeros((5, 2), np.float32)}, None, "")
        outputs_of(runner, data, 2, progress=progress)
    assert progress.told == [5, 2, 2, 1]


FLOATS = Signature((), (TensorInfo("y", np.dtype(np.float32), (None, 2)),))


def of(name: str) -> Metric:
    return metric(name, has_labels=True, signature=FLOATS)


def outputs(values: Array) -> dict[str, Array]:
    return {"y": values.astype(np.float32)}


def test_the_bound_of_an_error_is_of_the_metric_itself() -> None:
    random = np.random.default_rng(0)
    labels = random.normal(size=(200, 2))
    reference = outputs(labels + random.normal(0, 0.1, labels.shape))
    worse = outputs(labels + random.normal(0, 0.12, labels.shape))
    for name in ("mae", "rmse"):
        result = score(of(name), worse, reference, labels, confidence=0.95, floor=0.8)
        assert result.ratio == pytest.approx(result.reference / result.value)
        assert result.low is not None
        assert 0.7 < result.low < result.ratio < 1


@pytest.mark.parametrize(("samples", "low"), [(19, None), (20, 10.0)])
def test_a_candidate_without_any_error_is_told_only_with_enough_samples(
    samples: int, low: float | None
) -> None:
    labels = np.zeros((samples, 2))
    result = score(of("mae"), outputs(labels), outputs(labels + 1), labels, confidence=0.95)
    assert (result.ratio, result.low) == (10, low)


def test_without_confidence_there_is_no_bound() -> None:
    labels = np.zeros((3, 2))
    result = score(of("mae"), outputs(labels + 2), outputs(labels + 1), labels)
    assert (result.ratio, result.low, result.samples_needed) == (0.5, None, None)


def test_a_float_model_that_is_never_right_is_refused() -> None:
    scores = outputs(np.array([[1, 0], [1, 0]]))
    with pytest.raises(BadInputError, match=r"top1 is 0 on all 2 samples.*--metric-output NAME"):
        score(of("top1"), scores, scores, np.array([1, 1]))


def test_labels_that_are_the_float_models_own_outputs_are_refused() -> None:
    values = outputs(np.ones((3, 2)))
    with pytest.raises(BadInputError, match=r"mae is 0 on all 3 samples.*--metric cosine"):
        score(of("mae"), values, values, values["y"])


def test_a_float_model_that_gives_nan_is_bad_input_and_a_candidate_only_fails() -> None:
    labels = np.zeros((3, 2))
    good, broken = outputs(labels + 1), outputs(np.full((3, 2), np.nan))
    with pytest.raises(BadInputError, match="float model cannot be scored"):
        score(of("mae"), good, broken, labels)
    with pytest.raises(StepFailedError, match="NaN"):
        score(of("mae"), broken, good, labels)
