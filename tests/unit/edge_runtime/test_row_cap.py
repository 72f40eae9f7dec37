"""The most rows of a run follow its objective: up by two, down by a tenth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.batching import RowCap

OBJECTIVE_NS = 1_000_000
FAST_NS = int(0.9 * OBJECTIVE_NS) - 1
HELD_NS = int(0.95 * OBJECTIVE_NS)
SLOW_NS = OBJECTIVE_NS + 1


def cap(rows: int = 10, rows_max: int = 100) -> RowCap:
    return RowCap(OBJECTIVE_NS, rows, rows_max)


@given(
    st.integers(-5, 300),
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 3 * OBJECTIVE_NS)), max_size=200),
)
def test_cap_stays_between_one_and_its_limit(
    rows: int, rows_max: int, runs: list[tuple[int, int]]
) -> None:
    limit = RowCap(OBJECTIVE_NS, rows, rows_max)
    assert 1 <= limit.rows <= rows_max
    for run in runs:
        before = limit.rows
        limit.observe(*run)
        assert 1 <= limit.rows <= rows_max
        assert limit.rows - before <= 2
        assert limit.rows >= min(before, int(before * 0.9)) or limit.rows == 1


def test_cap_grows_by_two_when_a_full_run_was_fast() -> None:
    limit = cap()
    limit.observe(10, FAST_NS)
    assert limit.rows == 12


def test_cap_holds_while_runs_are_not_full() -> None:
    limit = cap()
    limit.observe(9, 1)
    assert limit.rows == 10


def test_cap_holds_near_the_objective() -> None:
    limit = cap()
    for ns in (HELD_NS, OBJECTIVE_NS):
        limit.observe(10, ns)
    assert limit.rows == 10


@pytest.mark.parametrize("rows", [1, 10])
def test_cap_shrinks_by_a_tenth_when_a_run_was_slow(rows: int) -> None:
    limit = cap()
    limit.observe(rows, SLOW_NS)
    assert limit.rows == 9


def test_cap_does_not_shrink_for_a_request_that_was_larger_by_itself() -> None:
    limit = cap()
    for _ in range(100):
        limit.observe(500, 100 * OBJECTIVE_NS)
    assert limit.rows == 10


def test_cap_never_grows_beyond_its_limit() -> None:
    limit = cap(rows_max=11)
    for _ in range(5):
        limit.observe(limit.rows, 1)
    assert limit.rows == 11


@given(st.integers(1_000, 400_000), st.integers(1_000, 400_000), st.integers(0, 100_000))
def test_cap_adapts_to_a_step_change(first_ns: int, then_ns: int, fixed_ns: int) -> None:
    limit = cap(rows=1, rows_max=256)
    for row_ns in (first_ns, then_ns, first_ns):
        for _ in range(300):
            limit.observe(limit.rows, fixed_ns + row_ns * limit.rows)
        fitting = max(1, min(256, (OBJECTIVE_NS - fixed_ns) // row_ns))
        assert 0.8 * fitting - 3 <= limit.rows <= fitting + 2
