"""Dividing samples: no sample in two sets, the same sets every time."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize.data import Dataset, Splits, split
from quantize.errors import BadInputError


def data(values: list[int], *, labelled: bool = True, origin: str = "data.npz") -> Dataset:
    array = np.array(values, np.float32)[:, None]
    return Dataset({"x": array}, np.arange(len(values)) if labelled else None, origin)


def divide(
    samples: Dataset, evaluate: Dataset | None = None, *, most: int = 128, seed: int = 0
) -> Splits:
    return split(samples, evaluate, calibration_samples=most, search_samples=most, seed=seed)


def values(samples: Dataset) -> list[float]:
    return [float(each) for each in samples.inputs["x"][:, 0]]


VALUES = st.lists(st.integers(0, 30), min_size=3, max_size=80).filter(
    lambda each: len(set(each)) > 2
)


@given(VALUES, st.integers(1, 20), st.integers(0, 3))
def test_no_sample_is_in_two_sets_or_twice_in_one(found: list[int], most: int, seed: int) -> None:
    splits = divide(data(found), most=most, seed=seed)
    sets = splits[:3]
    every = [value for each in sets for value in values(each)]
    assert len(every) == len(set(every))
    assert set(every) == set(map(float, found))
    assert all(each.samples for each in sets)
    assert splits.held_out.samples == max(each.samples for each in sets)
    assert splits.record.duplicates == len(found) - len(set(found))


@given(VALUES, VALUES, st.booleans())
def test_evaluation_samples_are_in_no_other_set(
    found: list[int],
    deciding: list[int],
    labelled: bool,  # noqa: FBT001 - drawn
) -> None:
    found = [*found, 100, 101, 102]
    splits = divide(data(found, labelled=labelled), data(deciding, origin="eval.npz"))
    calibration, search, held_out = (set(values(each)) for each in splits[:3])
    assert not calibration & search
    assert not (calibration | search) & held_out
    decided = held_out if labelled else held_out | search
    assert decided == set(map(float, deciding))
    assert splits.has_labels


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_a_file_does_not_matter(found: list[int], random: Random) -> None:
    shuffled = list(found)
    random.shuffle(shuffled)
    before, after = divide(data(found)), divide(data(shuffled))
    assert [values(each) for each in before[:3]] == [values(each) for each in after[:3]]


def test_labels_stay_with_their_samples() -> None:
    for each in divide(data(list(range(100, 150))))[:3]:
        assert each.labels is not None
        assert [value - 100 for value in values(each)] == each.labels.tolist()


def test_the_seed_draws_other_sets() -> None:
    samples = data(list(range(50)))
    assert divide(samples, seed=1).record.sha256 != divide(samples, seed=2).record.sha256


def test_all_evaluation_data_decides_where_the_other_data_has_labels() -> None:
    splits = divide(data(list(range(1000))), data(list(range(2000, 2450)), origin="eval.npz"))
    assert splits.record.held_out == 450
    assert (splits.record.calibration, splits.record.search) == (128, 128)


def test_the_search_borrows_labels_where_only_evaluation_data_has_them() -> None:
    splits = divide(data(list(range(100)), labelled=False), data(list(range(200, 600))))
    assert splits.has_labels
    assert (splits.record.search, splits.record.held_out) == (100, 300)
    assert not divide(data(list(range(9)), labelled=False)).has_labels


def test_without_evaluation_data_450_samples_leave_enough_to_tell_99_percent() -> None:
    assert divide(data(list(range(450)))).record.held_out >= 330


@pytest.mark.parametrize(
    ("found", "deciding"), [([1, 1, 2], None), ([1], [5, 6, 7]), ([5, 6, 1], [5, 6, 7])]
)
def test_too_few_different_samples_are_refused(
    found: list[int], deciding: list[int] | None
) -> None:
    evaluate = data(deciding, origin="eval.npz") if deciding else None
    with pytest.raises(BadInputError, match=r"data\.npz has \d different samples.*at least \d"):
        divide(data(found), evaluate)
