"""Percentiles are measured values, ratios belong to their rounds, and tables say what was found."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import report
from benchmarks.results import (
    Entry,
    Fact,
    Outcome,
    Spread,
    at_least,
    at_most,
    percentile,
    ratios,
    spread,
)


@given(
    st.lists(st.floats(-1e9, 1e9, allow_nan=False), min_size=1, max_size=300), st.integers(0, 100)
)
def test_percentile_is_the_least_value_that_enough_values_do_not_exceed(
    values: list[float], percent: int
) -> None:
    found = percentile(values, percent)
    enough = Fraction(percent, 100) * len(values)
    assert found in values
    assert sum(value <= found for value in values) >= enough
    below = [value for value in values if value < found]
    assert not below or len(below) < enough


def test_percentile_99_of_a_hundred_leaves_one_out() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 99) == 99
    assert percentile(values, 50) == 50
    assert percentile(values, 0) == 1
    assert percentile(values, 100) == 100


def test_ratios_divide_within_a_round_and_not_across() -> None:
    # The whole machine was ten times slower in the second round: that must cancel out.
    assert ratios([20, 2, 21], [10, 1, 10]) == Spread(2, 2, 2.1)


def test_ratios_refuse_rounds_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_limits_count_as_reached() -> None:
    assert at_most("p99", 1.5, 1.5, "x").reached
    assert not at_most("p99", 1.51, 1.5, "x").reached
    assert at_least("goodput", 0.9, 0.9, "x").reached
    assert not at_least("goodput", 0.89, 0.9, "x").reached


def test_entries_of_several_rows_share_a_table() -> None:
    outcome = Outcome(entries=[Entry("Fair shares", {"user": "modest", "p99 ms": 1.25})])
    outcome.add(Outcome(entries=[Entry("Overload", {"kept": spread([0.9, 0.8, 1.0])})]))
    outcome.add(Outcome(entries=[Entry("Fair shares", {"user": "greedy", "p99 ms": None})]))
    assert report.tables(outcome).splitlines() == [
        "## Fair shares",
        "",
        "| user   | p99 ms |",
        "| ------ | ------ |",
        "| modest | 1.25   |",
        "| greedy |        |",
        "",
        "## Overload",
        "",
        "| kept          |",
        "| ------------- |",
        "| 0.9 (0.8 - 1) |",
    ]


def test_a_number_that_never_varied_is_written_once() -> None:
    outcome = Outcome(facts=[Fact("wakes", "edge-runtime", "per s", spread([0.0, 0.0]))])
    assert "| wakes | edge-runtime | 0 | per s |" in report.tables(outcome)


def test_everything_found_is_written_for_machines() -> None:
    outcome = Outcome(entries=[Entry("Overload", {"kept": spread([0.9])})])
    assert '"kept"' in report.to_json(outcome, {"CPU": "one"}, "2026-11-23")
