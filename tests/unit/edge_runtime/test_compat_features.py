"""Features: which input, which outputs, how many numbers, and what is said of a row."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_runtime.api.compat import features
from edge_runtime.datatypes import BY_NAME
from edge_runtime.errors import InvalidRequestError, InvalidTensorError
from edge_runtime.protocol.messages import InferResponse, OutputTensor
from edge_runtime.tensors import VARIABLE, Array, Signature, TensorSpec

ROWS = VARIABLE


def spec(
    name: str, shape: Sequence[int], datatype: str = "FP32", labels: tuple[str, ...] = ()
) -> TensorSpec:
    return TensorSpec(name, BY_NAME[datatype], tuple(shape), (), labels)


def plan(*outputs: TensorSpec, shape: Sequence[int] = (ROWS, 4)) -> features.Plan:
    return features.plan(Signature([spec("x", shape)], outputs))


SCORES = spec("probabilities", (ROWS, 3))
VALUE = spec("y", (ROWS, 1))


def decode(how: features.Plan, given: Any) -> features.Rows:  # noqa: ANN401
    return features.decode(how, msgspec.Raw(json.dumps(given).encode()), "m")


def say(how: features.Plan, count: int, **outputs: Array) -> tuple[list[Any], list[Any]]:
    """Predict from made-up outputs, of FP32, INT64 or strings."""
    names = {"f": "FP32", "i": "INT64", "O": "BYTES"}
    tensors = [
        OutputTensor(name, BY_NAME[names[array.dtype.kind]], array, binary=False)
        for name, array in outputs.items()
    ]
    return features.predictions(how, count, InferResponse("m", "1", "", tensors))


def floats(*rows: Any) -> Array:  # noqa: ANN401
    return np.array(rows, "<f4")


# -- which outputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "label", "scores"),
    [
        ([spec("y", (ROWS, 3))], "", "y"),
        ([spec("y", (ROWS,), "INT64")], "y", ""),
        (
            [spec("output_label", (ROWS,), "INT64"), spec("output_probability", (ROWS, 3))],
            "output_label",
            "output_probability",
        ),
        ([spec("label", (ROWS,), "BYTES"), spec("y", (ROWS, 3))], "label", "y"),
        ([spec("count", (ROWS,), "INT64"), spec("y", (ROWS, 3))], "", "y"),
        ([spec("embedding", (ROWS, 9)), spec("Prob", (ROWS, 3))], "", "Prob"),
        ([spec("embedding", (ROWS, 9)), spec("scores", (ROWS, 3))], "", "scores"),
        ([spec("a", (ROWS, 2), labels=("n", "y")), spec("prob", (ROWS, 3))], "", "a"),
        ([spec("half", (ROWS, 2), "FP16"), spec("y", (ROWS, 3))], "", "y"),
    ],
)
def test_outputs_are_known_by_labels_name_and_datatype(
    outputs: list[TensorSpec], label: str, scores: str
) -> None:
    how = plan(*outputs)
    assert (how.label, how.scores) == (label, scores)
    assert [output.name for output in how.outputs] == [name for name in (label, scores) if name]


@pytest.mark.parametrize(
    "outputs",
    [
        [spec("a", (ROWS, 2)), spec("b", (ROWS, 2))],
        [spec("a", (ROWS, 2), "INT64"), spec("b", (ROWS, 2), "INT64")],
        [spec("a", (ROWS, 2), "BF16")],
    ],
)
def test_outputs_that_nobody_can_tell_apart_are_refused(outputs: list[TensorSpec]) -> None:
    with pytest.raises(InvalidRequestError, match=r"no output of \['a'.*/v2/models"):
        plan(*outputs)


def test_several_inputs_are_refused() -> None:
    signature = Signature([spec("a", (ROWS, 1)), spec("b", (ROWS, 1))], [SCORES])
    with pytest.raises(InvalidRequestError, match=r"one input; this one takes \['a', 'b'\]"):
        features.plan(signature)


# -- how many features --------------------------------------------------------------------------


def test_a_row_and_a_list_of_rows_are_told_apart() -> None:
    how = plan(SCORES)
    one = decode(how, [1, 2, 3, 4])
    assert (one.tensor.array.tolist(), one.given, one.is_list) == ([[1, 2, 3, 4]], 1, False)
    two = decode(how, [[1, 2, 3, 4], [5, 6, 7, 8]])
    assert (two.tensor.array.tolist(), two.given) == ([[1, 2, 3, 4], [5, 6, 7, 8]], 2)
    assert two.is_list
    assert decode(how, [[1, 2, 3, 4]]).is_list


@pytest.mark.parametrize(
    ("shape", "given", "made"),
    [
        ((ROWS, 1, 2, 2), [1, 2, 3, 4], (1, 1, 2, 2)),
        ((1, 2, 2), [1, 2, 3, 4], (1, 2, 2)),
        ((1, 2, 2), [[1, 2, 3, 4]], (1, 2, 2)),
        ((4,), [1, 2, 3, 4], (4,)),
        ((), [1], ()),
        ((ROWS,), [7], (1,)),
        ((ROWS,), [[7], [8]], (2,)),
        ((ROWS, ROWS), [1, 2, 3], (1, 3)),
        ((ROWS, ROWS, 2), [[1, 2, 3, 4], [5, 6, 7, 8]], (2, 2, 2)),
        ((1, ROWS), [1, 2, 3], (1, 3)),
    ],
)
def test_features_fill_the_models_shape_in_row_major_order(
    shape: tuple[int, ...], given: list[Any], made: tuple[int, ...]
) -> None:
    array = decode(plan(SCORES, shape=shape), given).tensor.array
    assert array.shape == made
    assert array.reshape(-1).tolist() == np.array(given).reshape(-1).tolist()


@pytest.mark.parametrize(
    ("shape", "given", "message"),
    [
        ((ROWS, 4), [1, 2, 3], r"^model 'm' takes 4 features, 3 given$"),
        ((ROWS, 4), [1, 2, 3, 4, 5], "takes 4 features, 5 given"),
        ((ROWS, 4), [], "takes 4 features, 0 given"),
        ((ROWS, 4), [[1, 2, 3, 4], [1]], r"^row 1: model 'm' takes 4 features, 1 given$"),
        ((ROWS, 4), [[]], "row 0: model 'm' takes 4 features, 0 given"),
        ((ROWS, 2, 2), [[[1, 2], [3, 4]]], "features are a flat list of FP32"),
        ((ROWS, 4), [1, 2, 3, "4"], r"Expected `float`, got `str` - at `\$\[3\]`"),
        ((ROWS, 4), 4, "Expected `array`, got `int`"),
        ((ROWS, 4), {"a": 1}, "Expected `array`, got `object`"),
        ((1, 4), [[1, 2, 3, 4]] * 2, "takes one row at a time, 2 given"),
        ((ROWS, ROWS, 2), [1, 2, 3], "takes a multiple of 2 features, 3 given"),
        ((ROWS, ROWS), [], "takes a multiple of 1 features, 0 given"),
        ((ROWS, ROWS), [[1, 2], [3]], r"row 1: .* 2 features \(as in the first row\), 1 given"),
        ((ROWS, ROWS, ROWS), [1], "which a list of features cannot say"),
    ],
)
def test_another_number_of_features_is_refused_with_both_numbers(
    shape: tuple[int, ...], given: object, message: str
) -> None:
    how = plan(SCORES, shape=shape)
    with pytest.raises(InvalidTensorError, match=message):
        decode(how, given)


# -- what is said of a row ----------------------------------------------------------------------


def test_highest_score_is_the_confidence_and_its_index_the_prediction() -> None:
    scores = floats([0.25, 0.5, 0.25], [0.75, 0.125, 0.125])
    assert say(plan(SCORES), 2, probabilities=scores) == ([1, 0], [0.5, 0.75])


def test_labels_of_the_manifest_name_the_prediction() -> None:
    how = plan(spec("y", (ROWS, 3), labels=("red", "green")))
    scores = floats([0.25, 0.5, 0.25], [0, 0, 1])
    assert say(how, 2, y=scores) == (["green", 2], [0.5, 1.0])


def test_label_output_is_the_prediction_and_the_scores_give_the_confidence() -> None:
    how = plan(spec("label", (ROWS,), "BYTES"), SCORES)
    names = np.array(["cat", "dog"], object)
    scores = floats([0.25, 0.5, 0.25], [0.75, 0.125, 0.125])
    assert say(how, 2, label=names, probabilities=scores) == (["cat", "dog"], [0.5, 0.75])


def test_label_without_scores_has_no_confidence() -> None:
    how = plan(spec("label", (ROWS, 1), "INT64"))
    assert say(how, 2, label=np.array([[7], [8]])) == ([7, 8], [None, None])


@pytest.mark.parametrize("values", [floats(1.5, 2.5), floats([1.5], [2.5])])
def test_regression_gives_the_value_and_no_confidence(values: Array) -> None:
    assert say(plan(VALUE), 2, y=values) == ([1.5, 2.5], [None, None])


def test_scores_without_an_axis_of_rows_are_one_row() -> None:
    how = plan(spec("y", (3,)), shape=(4,))
    assert say(how, 1, y=floats(0.25, 0.5, 0.25)) == ([1], [0.5])


def test_output_that_is_no_table_is_given_as_it_is() -> None:
    how = plan(spec("y", (ROWS, 2, 2)))
    image = floats([[1, 2], [3, 4]], [[5, 6], [7, 8]])
    assert say(how, 2, y=image) == (image.tolist(), [None, None])
    assert say(how, 1, y=image) == ([image.tolist()], [None])


def test_output_that_is_not_one_per_row_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"shape \[3\] for 2 rows"):
        say(plan(VALUE), 2, y=floats(1, 2, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(InvalidRequestError, match="NaN or infinity"):
        say(plan(VALUE), 1, y=floats([value]))
    with pytest.raises(InvalidRequestError, match="NaN or infinity"):
        say(plan(SCORES), 1, probabilities=floats([value, 0, 0]))
