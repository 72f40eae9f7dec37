"""Samples in memory: their order, their names, and how a model is fed with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize.data import Dataset


def rows(count: int, run_rows: int | None = None) -> Dataset:
    array = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    return Dataset({"x": array}, np.arange(count), "memory", run_rows=run_rows)


@given(st.integers(1, 40), st.integers(1, 50))
def test_feeds_hold_every_sample_once_and_in_order(count: int, at_once: int) -> None:
    data = rows(count)
    feeds = [each["x"] for each in data.feeds(at_once)]
    assert max(map(len, feeds)) <= at_once
    np.testing.assert_array_equal(np.concatenate(feeds), data.inputs["x"])


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 50))
def test_a_model_with_fixed_rows_always_gets_as_many(count: int, fixed: int, at_once: int) -> None:
    data = rows(count, fixed)
    feeds = [each["x"] for each in data.feeds(at_once)]
    assert {len(each) for each in feeds} == {fixed}
    np.testing.assert_array_equal(np.concatenate(feeds)[:count], data.inputs["x"])


def test_a_whole_input_is_fed_without_the_samples_axis() -> None:
    data = Dataset(
        {"x": np.zeros((3, 5, 2)), "scale": np.ones(3), "row": np.zeros((3, 4))},
        None,
        "memory",
        whole=frozenset({"x", "scale"}),
    )
    shapes = [{name: each.shape for name, each in feed.items()} for feed in data.feeds(8)]
    assert shapes == [{"x": (5, 2), "scale": (), "row": (1, 4)}] * 3
    assert all(isinstance(feed["scale"], np.ndarray) for feed in data.feeds(1))


def test_takes_samples_with_their_labels() -> None:
    taken = rows(5, 2).take([3, 0])
    assert taken.inputs["x"].tolist() == [[6, 7], [0, 1]]
    assert taken.labels is not None
    assert taken.labels.tolist() == [3, 0]
    assert (taken.samples, taken.run_rows) == (2, 2)


def test_cannot_be_changed_and_leaves_the_callers_arrays_alone() -> None:
    array = np.zeros((2, 2), np.float32)
    data = Dataset({"x": array}, None, "memory")
    with pytest.raises(ValueError, match="read-only"):
        data.inputs["x"][0] = 1
    array[0] = 1


def test_the_digest_covers_values_names_dtypes_shapes_and_labels() -> None:
    array = np.zeros((2, 4), np.float32)
    sets = [
        Dataset({"x": array}, None, ""),
        Dataset({"y": array}, None, ""),
        Dataset({"x": array.astype(np.int32)}, None, ""),
        Dataset({"x": array.reshape(2, 2, 2)}, None, ""),
        Dataset({"x": array + 1}, None, ""),
        Dataset({"x": array}, np.zeros(2), ""),
        Dataset({"x": array}, np.ones(2), ""),
    ]
    assert len({each.sha256 for each in sets}) == len(sets)
    assert Dataset({"x": array.copy()}, None, "elsewhere").sha256 == sets[0].sha256


def test_a_sample_is_named_by_what_the_model_sees() -> None:
    array = np.array([[1, 2], [1, 2], [3, 4]], np.float32)
    first, second, third = Dataset({"x": array}, np.arange(3), "").sample_digests()
    assert first == second != third
    whole = Dataset({"x": array[:, None]}, None, "", whole=frozenset({"x"}))
    assert whole.sample_digests() == [first, second, third]
    assert Dataset({"x": array}, None, "").sample_digests(seed=1)[0] != first


def test_strings_are_samples_too() -> None:
    data = Dataset({"x": np.array([["a"], ["b"], ["a"]])}, None, "")
    first, second, third = data.sample_digests()
    assert first == third != second
    assert data.sha256
