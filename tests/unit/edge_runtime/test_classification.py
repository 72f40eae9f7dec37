"""The classification extension: highest first, with index and label."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.datatypes import BY_NAME
from edge_runtime.protocol.classification import top_classes
from tests import strategies

RANKED = ["FP32", "FP64", "FP16", "INT8", "UINT8", "INT64", "UINT64"]


def top(array: Any, count: int, labels: tuple[str, ...] = (), dtype: str = "<f4") -> Any:  # noqa: ANN401
    return top_classes(np.array(array, dtype), count, labels).tolist()


def test_classes_are_value_index_and_label() -> None:
    labels = ("cat", "dog")
    assert top([[0.25, 0.5, 0.125]], 3, labels) == [
        ["0.500000:1:dog", "0.250000:0:cat", "0.125000:2"]
    ]


def test_integers_are_shown_as_integers() -> None:
    assert top([2**63, 3, 2**64 - 1], 2, dtype="<u8") == [f"{2**64 - 1}:2", f"{2**63}:0"]
    assert top([-128, 127], 2, dtype="|i1") == ["127:1", "-128:0"]


def test_every_row_is_ranked_on_its_own() -> None:
    assert top([[1, 2], [4, 3]], 1) == [["2.000000:1"], ["4.000000:0"]]


def test_more_classes_than_there_are_gives_all() -> None:
    assert top([1, 2], 99) == ["2.000000:1", "1.000000:0"]


def test_of_equal_scores_the_lower_index_is_first() -> None:
    assert top([7, 9, 9, 7], 4, dtype="<i4") == ["9:1", "9:2", "7:0", "7:3"]


def test_nan_is_the_worst_class() -> None:
    assert top([np.nan, -1.0, np.inf], 3) == ["inf:2", "-1.000000:1", "nan:0"]


def test_axes_after_the_first_are_one_row() -> None:
    assert top([[[1, 2], [4, 3]]], 2) == [["4.000000:2", "3.000000:3"]]


@pytest.mark.parametrize(
    ("shape", "result"),
    [((), (1,)), ((3,), (2,)), ((0, 3), (0, 2)), ((2, 0), (2, 0)), ((0,), (0,)), ((0, 0), (0, 0))],
)
def test_no_shape_is_too_odd(shape: tuple[int, ...], result: tuple[int, ...]) -> None:
    assert top_classes(np.zeros(shape, "<f4"), 2).shape == result


@given(
    st.sampled_from(RANKED).flatmap(lambda name: strategies.finite_arrays(BY_NAME[name])),
    st.integers(1, 9),
)
def test_first_class_is_the_argmax(array: Any, count: int) -> None:  # noqa: ANN401
    if array.ndim < 2 or not array.size:
        return
    scores = array.reshape(array.shape[0], -1)
    if scores.dtype.kind == "f":
        scores = np.where(np.isnan(scores), -np.inf, scores)
    found = top_classes(array, count)
    assert [int(row[0].split(":")[1]) for row in found.tolist()] == scores.argmax(axis=1).tolist()
    assert all(len({text.split(":")[1] for text in row}) == len(row) for row in found.tolist())
