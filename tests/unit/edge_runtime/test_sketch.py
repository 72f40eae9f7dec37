"""Sketches count what they promise, add up, and take any array."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from edge_runtime.observation.sketch import (
    GROWTH,
    LABELS_MAX,
    ROWS_MAX,
    SCORE_BUCKETS,
    VALUES_MAX,
    Sketch,
)
from edge_runtime.tensors import Array


def counted(*outputs: Array) -> Sketch:
    sketch = Sketch()
    for output in outputs:
        sketch.add(output)
    return sketch


def upper_bound(bucket: str) -> float:
    """Give the value that a bucket of values ends at."""
    text = bucket.removeprefix("value:")
    return -(GROWTH ** int(text[1:])) if text.startswith("~") else GROWTH ** int(text)


def test_scores_are_counted_by_their_best_class_and_its_share() -> None:
    sketch = counted(np.array([[0.08, 0.92], [0.62, 0.38]], np.float32))
    assert sketch.told() == {"class:1": 1, "class:0": 1, "score:18": 1, "score:12": 1}


def test_logits_are_counted_by_their_softmax() -> None:
    sketch = counted(np.array([[0.0, np.log(3)]], np.float32))
    assert sketch.told() == {"class:1": 1, "score:15": 1}


def test_a_few_whole_numbers_are_classes_and_many_are_values() -> None:
    assert counted(np.array([7, 7, 0])).told() == {"class:7": 2, "class:0": 1}
    assert "value:4" in counted(np.full(ROWS_MAX + 1, 2, np.uint8)).told()
    assert counted(np.array([-1])).told() == {"value:~0": 1}


def test_values_are_counted_in_growing_buckets_by_sign() -> None:
    sketch = counted(np.array([0, 1.0, -1.2, 100], np.float64))
    assert sketch.told() == {"zero": 1, "value:0": 1, "value:~1": 1, "value:21": 1}
    assert GROWTH**20 < 100 <= GROWTH**21


def test_what_is_no_number_is_counted_as_bad_and_nowhere_else() -> None:
    sketch = counted(np.array([[np.nan, 1], [1, 0]], np.float32), np.array([np.inf, 2.0]))
    assert (sketch.rows, sketch.bad) == (4, 2)
    assert sum(sketch.told().values()) == 3


def test_many_classes_are_told_apart_only_so_far() -> None:
    rows = np.eye(LABELS_MAX + 20, dtype=np.float32)
    sketch = counted(*(rows[index : index + 1] for index in range(len(rows))))
    labels = {key: count for key, count in sketch.told().items() if key.startswith("class:")}
    assert len(labels) == LABELS_MAX + 1
    assert labels["class:other"] == 20


def test_of_a_large_answer_only_so_much_is_looked_at() -> None:
    assert counted(np.ones((10 * ROWS_MAX, 3), np.float32)).rows <= ROWS_MAX
    assert counted(np.ones(10 * VALUES_MAX + 1, np.int64)).rows <= VALUES_MAX


@given(
    st.lists(
        arrays.arrays(
            st.sampled_from([np.float32, np.float64, np.float16, np.int8, np.uint64, np.bool_]),
            arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
        ),
        max_size=4,
    )
)
def test_any_arrays_add_up_to_what_they_are_one_by_one(outputs: list[Array]) -> None:
    together, apart, rows = counted(*outputs), Counter[str](), 0
    for output in outputs:
        one = counted(output)
        apart.update(one.told())
        rows += one.rows
        assert 0 <= one.bad <= one.rows
    assert together.told() == dict(apart)
    assert together.rows == rows


@given(arrays.arrays(np.float64, st.integers(1, 50), elements=st.floats(-1e9, 1e9)))
def test_a_quantile_can_be_told_within_a_bucket(values: NDArray[np.float64]) -> None:
    sketch = counted(values.reshape(-1, 1))
    ends = sorted(
        bound
        for bucket, count in sketch.told().items()
        for bound in [0.0 if bucket == "zero" else upper_bound(bucket)] * count
    )
    for exact, told in zip(sorted(values.tolist()), ends, strict=True):
        if abs(exact) > 1e-15:
            assert abs(told - exact) <= 0.25 * abs(exact) + 1e-12


def test_text_is_not_counted() -> None:
    assert counted(np.array([["a", "b"]], object)).rows == 0


def test_scores_use_all_parts_of_the_unit() -> None:
    sketch = counted(np.array([[1.0, 0.0], [0.5, 0.5]], np.float32))
    assert sketch.told()[f"score:{SCORE_BUCKETS - 1}"] == 1
    assert sketch.told()["score:10"] == 1


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_nothing_is_counted_of_nothing(shape: tuple[int, ...]) -> None:
    assert counted(np.zeros(shape, np.float32)).told() == {}
