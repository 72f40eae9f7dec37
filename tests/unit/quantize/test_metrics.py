"""Metrics: which output they read, what a sample is worth, and what is said of unfit labels."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from quantize.errors import BadInputError, StepFailedError
from quantize.measures import Custom
from quantize.metrics import RATIO_MAX, Metric, aggregate, metric, ratio
from quantize.signature import Array, Shape, Signature, TensorInfo


def gives(**outputs: tuple[type, Shape]) -> Signature:
    return Signature(
        (),
        tuple(TensorInfo(name, np.dtype(each), shape) for name, (each, shape) in outputs.items()),
    )


CLASSIFIER = gives(scores=(np.float32, (None, 4)), label=(np.int64, (None,)))
SCORES = np.array([[0.1, 0.7, 0.2, 0], [0.4, 0.4, 0.1, 0.1], [0, 0, 0, 1]], np.float32)


def read(
    name: str, outputs: Mapping[str, Array], *, has_labels: bool = True, output: str = ""
) -> Metric:
    """Find a metric for a model that gives arrays like these."""
    shapes = {key: (each.dtype.type, (None, *each.shape[1:])) for key, each in outputs.items()}
    return metric(name, has_labels=has_labels, signature=gives(**shapes), output=output)


def test_auto_is_top1_with_labels_and_else_the_cosine() -> None:
    assert metric("auto", has_labels=True, signature=CLASSIFIER).name == "top1"
    assert metric("auto", has_labels=False, signature=CLASSIFIER).name == "cosine"


@pytest.mark.parametrize(
    ("outputs", "chosen"),
    [
        ({"scores": (np.float32, (None, 10)), "label": (np.int64, (None,))}, "scores"),
        ({"map": (np.float32, (None, 64, 7, 7)), "scores": (np.float32, (None, 10))}, "scores"),
        ({"two": (np.float32, (None, 2)), "many": (np.float32, (None, 1000, 1, 1))}, "many"),
        ({"label": (np.int64, (None,))}, "label"),
        ({"first": (np.float32, (None, 5)), "second": (np.float32, (None, 5))}, "first"),
    ],
)
def test_top1_reads_the_output_that_looks_most_like_scores(
    outputs: dict[str, tuple[type, Shape]], chosen: str
) -> None:
    assert metric("top1", has_labels=True, signature=gives(**outputs)).outputs == (chosen,)


def test_the_user_can_name_the_output() -> None:
    found = metric("top1", has_labels=True, signature=CLASSIFIER, output="label")
    labels = np.array([1, 0, 3])
    assert found.per_sample({"label": np.array([1, 2, 3])}, {}, labels).tolist() == [1, 0, 1]


def test_of_equal_scores_the_first_class_is_the_higher() -> None:
    found = read("top1", {"scores": SCORES})
    assert found.per_sample({"scores": SCORES}, {}, np.array([1, 0, 3])).tolist() == [1, 1, 1]
    assert found.per_sample({"scores": SCORES}, {}, np.array([1, 1, 0])).tolist() == [1, 0, 0]


def test_a_model_that_says_the_same_of_every_class_is_not_right_in_top5() -> None:
    scores = np.zeros((10, 10), np.float32)
    right = read("top5", {"scores": scores}).per_sample({"scores": scores}, {}, np.arange(10))
    assert right.tolist() == [1] * 5 + [0] * 5


def test_nan_is_always_wrong() -> None:
    scores = np.array([[np.nan, 1], [0, np.nan]], np.float32)
    found = read("top1", {"scores": scores})
    for label in (0, 1):
        assert found.per_sample({"scores": scores}, {}, np.full(2, label)).tolist() == [0, 0]


@pytest.mark.parametrize("last", [True, False])
def test_a_sample_with_many_labels_is_worth_the_share_that_is_right(last: bool) -> None:  # noqa: FBT001 - a parameter
    labels = np.array([[[0, 1], [2, 2]], [[1, 1], [1, 0]]])
    scores = np.eye(3, dtype=np.float32)[labels]
    scores[0, 0, 0] = (0, 1, 0)
    if not last:
        scores = np.moveaxis(scores, -1, 1)
    found = read("top1", {"scores": scores})
    assert found.per_sample({"scores": scores}, {}, labels).tolist() == [0.75, 1]


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (SCORES[:, :, None, None], np.array([1, 0, 3])),
        (SCORES, np.array([[1], [0], [3]], np.uint8)),
        (SCORES[:, None], np.array([1, 0, 3])),
    ],
)
def test_axes_of_one_element_do_not_matter(scores: Array, labels: Array) -> None:
    assert (
        read("top1", {"scores": scores}).per_sample({"scores": scores}, {}, labels).tolist()
        == [1] * 3
    )


@pytest.mark.parametrize(
    ("name", "labels", "says"),
    [
        ("top1", None, "labels missing"),
        ("top1", np.zeros(3), r"labels are float64; .*save them as integers"),
        ("top1", np.zeros((3, 4), np.int64), r"shape \[3, 4\] .*argmax"),
        ("top1", np.array([0, 1, 4]), r"go from 0 to 4, .*4 classes, numbered 0 to 3"),
        ("top1", np.array([0, -1, 2]), r"go from -1 to 2"),
        ("top5", np.array([0, 1, 2]), "top5 of 4 classes is right whatever"),
        ("mae", np.zeros((3, 2)), r"labels are float64 \[3, 2\].*as many numbers"),
        ("mae", np.array(["a", "b", "c"]), r"labels are str"),
    ],
)
def test_labels_that_do_not_fit_are_refused(name: str, labels: Array | None, says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        read(name, {"scores": SCORES}).per_sample({"scores": SCORES}, {}, labels)


@pytest.mark.parametrize("name", ["top1", "top5", "mae", "rmse"])
def test_missing_labels_are_told_with_the_way_out(name: str) -> None:
    with pytest.raises(BadInputError, match=r"labels missing: .*'labels'.*--metric cosine"):
        metric(name, has_labels=False, signature=CLASSIFIER)


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(BadInputError, match="no metric 'f1'; it is auto, top1"):
        metric("f1", has_labels=True, signature=CLASSIFIER)
    with pytest.raises(BadInputError, match=r"no output 'x' .*'scores', 'label'"):
        metric("top1", has_labels=True, signature=CLASSIFIER, output="x")
    with pytest.raises(BadInputError, match=r"needs a float output, the model gives label int64"):
        metric("cosine", has_labels=False, signature=gives(label=(np.int64, (None,))))


def test_errors_are_means_over_all_samples_and_the_root_is_taken_last() -> None:
    outputs, labels = {"y": np.array([[1.0], [3.0]], np.float32)}, np.array([0, 0])
    mae, rmse = read("mae", outputs), read("rmse", outputs)
    assert mae.better == rmse.better == "lower"
    assert aggregate(mae, mae.per_sample(outputs, outputs, labels)) == 2
    assert aggregate(rmse, rmse.per_sample(outputs, outputs, labels)) == pytest.approx(5**0.5)


def test_an_error_that_is_not_a_number_is_a_failure_of_the_candidate() -> None:
    outputs = {"y": np.array([[1.0], [np.nan]], np.float32)}
    with pytest.raises(StepFailedError, match="for 1 samples, the first is 1"):
        read("mae", outputs).per_sample(outputs, outputs, np.zeros(2))


def test_the_cosine_is_that_of_the_worst_output() -> None:
    reference = {"a": np.array([[1, 0], [1, 0]], np.float32), "b": np.ones((2, 3), np.float32)}
    outputs = {"a": np.array([[2, 0], [0, 1]], np.float32), "b": np.full((2, 3), 9, np.float32)}
    found = read("cosine", reference, has_labels=False)
    assert found.per_sample(outputs, reference, None) == pytest.approx([1, 0])
    only = read("cosine", reference, has_labels=False, output="b")
    assert only.per_sample(outputs, reference, None) == pytest.approx([1, 1])


def test_the_cosine_of_strange_outputs() -> None:
    reference = {"y": np.array([[0, 0], [1, 1], [1, 1], [1e38, 1e38], [3, 4]], np.float32)}
    outputs = {"y": np.array([[0, 0], [0, 0], [np.nan, 1], [1e38, 1e38], [3, 4]], np.float32)}
    found = read("cosine", reference, has_labels=False)
    assert found.per_sample(outputs, reference, None).tolist() == [1, 0, -1, 1, 1]
    assert found.per_sample(reference, reference, None).tolist() == [1] * 5
    with pytest.raises(BadInputError, match="float model's output 'y' holds NaN"):
        found.per_sample(reference, outputs, None)


def test_a_users_function_is_found_in_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_scores.py").write_text(
        "def positive(outputs, labels):\n    return (outputs['scores'][:, 1] > 0) * 1\n"
        "def short(outputs, labels):\n    return [1]\n"
        "def broken(outputs, labels):\n    return outputs['none']\n"
        "number = 3\n",
        "utf-8",
    )
    monkeypatch.chdir(tmp_path)

    def found(name: str) -> Metric:
        return metric(f"own_scores:{name}", has_labels=False, signature=CLASSIFIER)

    outputs: dict[str, Array] = {"scores": SCORES, "label": np.zeros(3, np.int64)}
    assert found("positive").per_sample(outputs, outputs, None).tolist() == [1, 1, 0]
    with pytest.raises(BadInputError, match=r"returned shape \[1\] for 3 samples"):
        found("short").per_sample(outputs, outputs, None)
    with pytest.raises(BadInputError, match="own_scores:broken failed: KeyError: 'none'"):
        found("broken").per_sample(outputs, outputs, None)
    with pytest.raises(BadInputError, match="own_scores:number is not a function but int"):
        found("number")
    with pytest.raises(BadInputError, match="cannot use the metric own_scores:absent"):
        found("absent")
    with pytest.raises(BadInputError, match="cannot use the metric nowhere:f: ModuleNotFound"):
        metric("nowhere:f", has_labels=False, signature=CLASSIFIER)


def test_a_users_function_is_known_by_the_file_it_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an interrupted search knows must not count for a metric that was changed since.
    file = tmp_path / "known_scores.py"
    file.write_text("def one(outputs, labels):\n    return outputs['scores'][:, 0] * 0 + 1\n")
    monkeypatch.chdir(tmp_path)
    found = metric("known_scores:one", has_labels=False, signature=CLASSIFIER)
    assert isinstance(found, Custom)
    assert found.source_sha256 == sha256(file.read_bytes()).hexdigest()


def test_the_kept_ratio_is_1_for_as_good_and_less_for_worse() -> None:
    assert ratio(0.9, 0.9, "higher") == ratio(0.2, 0.2, "lower") == ratio(0, 0, "lower") == 1
    assert ratio(0.45, 0.9, "higher") == ratio(0.4, 0.2, "lower") == 0.5
    assert ratio(0, 0.2, "lower") == RATIO_MAX
    assert ratio(0.2, 0, "lower") == ratio(0, 0.9, "higher") == 0
