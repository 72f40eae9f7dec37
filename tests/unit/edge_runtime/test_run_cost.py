"""What a run is expected to cost, learned from what the last ones did."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.run_cost import RunCost
from tests.fakes import known_cost

LIMIT_NS = 500_000

costs = st.floats(1e3, 1e7)


@given(costs, costs, st.lists(st.integers(1, 64), min_size=30, max_size=60))
def test_cost_of_a_run_is_learned_as_a_line(a: float, b: float, sizes: list[int]) -> None:
    cost = RunCost()
    sizes += [1, 64] * 20  # both ends lately
    for rows in sizes:
        cost.observe(rows, a + b * rows)
    for rows in (1, 64):
        assert cost.estimate_ns(rows) == pytest.approx(a + b * rows, rel=1.0)


@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 2**50)), max_size=60))
def test_estimate_is_never_negative_or_undefined(seen: list[tuple[int, int]]) -> None:
    cost = RunCost()
    for rows, ns in seen:
        cost.observe(rows, ns)
    for rows in (0, 1, 1024):
        assert 0 <= cost.estimate_ns(rows) < float("inf")


@given(
    st.lists(st.tuples(st.integers(1, 2**20), st.integers(1, 2**40)), min_size=3, max_size=60),
    st.floats(1e3, 1e9),
)
def test_size_within_a_time_is_the_largest_that_is_expected_to_keep_it(
    seen: list[tuple[int, int]], limit_ns: float
) -> None:
    cost = RunCost()
    for size, ns in seen:
        cost.observe(size, ns)
    size = cost.size_within(limit_ns)
    assert size >= 1
    if size > 1:
        assert cost.estimate_ns(size) <= limit_ns * (1 + 1e-6)
    if size < 2**31:
        assert cost.estimate_ns(size + 1) >= limit_ns * (1 - 1e-6)


def test_first_runs_warm_the_model_up_and_do_not_count() -> None:
    cost = RunCost()
    for _ in range(2):
        cost.observe(1, 10**9)
        assert not cost.known
    cost.observe(1, 1000)
    assert cost.known
    assert cost.estimate_ns(1) == pytest.approx(1000)


def test_one_outlier_does_not_banish_a_fast_model() -> None:
    cost = known_cost(LIMIT_NS / 10)
    cost.observe(1, 10**10)
    assert cost.estimate_ns(1) < LIMIT_NS


def test_model_that_became_slow_goes_to_the_pool_within_a_few_runs() -> None:
    cost = known_cost(LIMIT_NS / 10)
    runs = 0
    while cost.estimate_ns(1) < LIMIT_NS:
        cost.observe(1, 10 * LIMIT_NS)
        runs += 1
    assert runs <= 16


def test_model_that_became_fast_comes_back() -> None:
    cost = known_cost(10 * LIMIT_NS)
    runs = 0
    while cost.estimate_ns(1) >= LIMIT_NS:
        cost.observe(1, LIMIT_NS / 10)
        runs += 1
    assert runs <= 100


def test_one_size_alone_is_taken_as_proportional() -> None:
    cost = known_cost(1000, rows=4)
    assert cost.estimate_ns(400) == pytest.approx(100_000)


@given(st.integers(20, 200), st.integers(2, 50))
def test_a_long_axis_that_is_not_the_first_counts_too(short_runs: int, factor: int) -> None:
    cost = RunCost()
    for _ in range(short_runs):
        cost.observe(64, 50_000)
    assert cost.estimate_ns(64 * factor) >= 49_000 * factor


def test_rounding_of_large_sizes_is_not_taken_for_a_spread() -> None:
    cost = RunCost()
    for _ in range(100):
        cost.observe(123_456_789, 1_000_000)
    assert 900_000 < cost.estimate_ns(123_456_789) < 1_100_000
