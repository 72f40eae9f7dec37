"""A version that nothing can be compared with is judged by its own failures."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from edge_runtime.release.evidence import Blocks, Evidence, Side, Snapshot
from edge_runtime.release.policy import LOOKS_MAX, Thresholds, judge

WANTED = Thresholds(agreement_floor=0.0, error_rate_max=0.1, traffic_min=16, blocks_min=16)


def alone(blocks: int, errors: float) -> Snapshot:
    return Snapshot(
        blocks=blocks, candidate=Blocks(count=blocks, errors=errors, log_means=(0.0,) * blocks)
    )


@given(st.integers(1, 300), st.data())
def test_the_chance_and_the_bound_are_the_exact_ones(blocks: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, blocks))
    numbers = judge(alone(blocks, errors), WANTED, 0, is_over=True).numbers
    assert numbers["error_rate"] == pytest.approx(errors / blocks)
    assert numbers["error_rate_p"] == pytest.approx(binom.sf(errors - 1, blocks, 0.1), abs=1e-12)
    low = binomtest(errors, blocks).proportion_ci(1 - 2 * WANTED.alpha, "exact").low
    assert numbers["error_rate_low"] == pytest.approx(low, abs=1e-9)


@pytest.mark.parametrize(
    ("blocks", "errors", "verdict"),
    [(8, 2.0, "inconclusive"), (16, 8.0, "fail"), (16, 0.9, "pass"), (1024, 160.0, "fail")],
)
def test_half_fails_few_pass_and_little_says_nothing(
    blocks: int, errors: float, verdict: str
) -> None:
    found = judge(alone(blocks, errors), WANTED, 0)
    assert found.verdict == verdict
    if verdict == "fail":
        assert "allowed are 0.1, and there is nothing to compare it with" in found.reasons[0]


def test_where_it_is_not_asked_errors_alone_speak_against_nobody() -> None:
    wanted = Thresholds(agreement_floor=0.0)
    found = judge(alone(64, 64.0), wanted, 0)
    assert found.verdict == "pass"
    assert "error_rate" not in found.numbers


def test_requests_of_one_block_count_once() -> None:
    evidence = Evidence(1.0)
    for second in range(4):
        for _ in range(1000):
            evidence.add_block(second, candidate=Side(runs=2, errors=1), active=Side())
    snapshot = evidence.snapshot()
    assert (snapshot.candidate.count, snapshot.candidate.errors) == (4, 2.0)
    assert judge(snapshot, WANTED, 0, is_over=True).verdict == "inconclusive"


def test_one_that_fails_as_often_as_it_may_is_seldom_rejected() -> None:
    draw = random.Random(5)  # noqa: S311 - no secret
    rejected = 0
    for _ in range(400):
        errors, looks, verdict = 0, 0, "inconclusive"
        for block in range(1, 257):
            errors += draw.random() < WANTED.error_rate_max
            found = judge(alone(block, errors), WANTED, looks)
            looks, verdict = found.looks, found.verdict
            if verdict == "fail":
                break
        assert looks <= LOOKS_MAX
        rejected += verdict == "fail"
    assert rejected / 400 <= WANTED.alpha
