"""Ranges of lost numbers: few enough to tell, and never counted wrong."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from agent.messages import Loss
from agent.records.losses import RANGES_MAX, Losses, Range

NUMBERS = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 500), st.sampled_from(Loss)),
    unique_by=lambda each: each[:2],
    max_size=400,
)


def _check(ranges: Sequence[Range], added: list[tuple[int, int, Loss]]) -> None:
    """Every number is in a range of its run and reason, and counts add up."""
    for each in ranges:
        inside = [
            seq
            for boot, seq, reason in added
            if (boot, reason) == (each.boot, each.reason) and each.first <= seq <= each.last
        ]
        assert len(inside) == each.lost
        assert each.lost <= each.last - each.first + 1


@given(NUMBERS)
def test_every_number_is_counted_once_in_whatever_order(
    added: list[tuple[int, int, Loss]],
) -> None:
    losses = Losses()
    for each in added:
        losses.add(*each)
    assert sum(each.lost for each in losses.ranges) + losses.forgotten == len(added)
    assert len(losses.ranges) <= RANGES_MAX


@given(NUMBERS, st.integers(1, 64))
def test_what_is_told_and_what_is_left_are_all(
    added: list[tuple[int, int, Loss]], count: int
) -> None:
    losses = Losses()
    for each in sorted(added):
        losses.add(*each)
    told: list[Range] = []
    while losses:
        first = losses.first(count)
        assert 0 < len(first) <= count
        told += first
        losses = losses.without(first)
    assert sum(each.lost for each in told) == len(added)


@given(st.sets(st.integers(1, 5000), max_size=1000))
def test_a_range_counts_what_is_missing_between_its_ends(numbers: set[int]) -> None:
    losses = Losses()
    for seq in sorted(numbers):
        losses.add(1, seq, Loss.QUOTA)
    added = [(1, seq, Loss.QUOTA) for seq in numbers]
    _check(losses.ranges, added)
    _check(losses.first(3), added)


def test_numbers_in_a_row_are_one_range() -> None:
    losses = Losses()
    for seq in range(1, 100_000):
        losses.add(1, seq, Loss.QUOTA)
    assert losses.ranges == (Range(1, 1, 99_999, 99_999, Loss.QUOTA),)


def test_too_many_runs_are_forgotten_with_a_count() -> None:
    losses = Losses()
    for boot in range(1, RANGES_MAX + 11):
        losses.add(boot, 1, Loss.QUOTA)
    assert len(losses.ranges) == RANGES_MAX
    assert losses.forgotten == 10
