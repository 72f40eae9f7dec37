"""The gate: nothing below the floor and nothing slower passes, whatever else is true."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from quantize.gate import decide
from quantize.records import Decision, Goal, Latency, Recipe, Score, Trial

MARGIN = 0.05
SURE = Score(metric="top1", value=0.99, reference=1, ratio=0.999, low=0.995, samples=450)
FAST = Latency(
    p50_s=0.5,
    p90_s=0.6,
    reference_p50_s=1,
    reference_p90_s=1.1,
    ratio=0.5,
    ratio_low=0.48,
    ratio_high=0.52,
    runs=40,
    threads=1,
    rows=1,
    cpu="simulated",
)
GOOD = Trial(
    name="int8",
    recipe=Recipe(name="int8", kind="static"),
    status="measured",
    size_bytes=250,
    memory_bytes=400,
    held_out=SURE,
    latency=FAST,
)
BASELINE = Trial(
    name="fp32",
    recipe=Recipe(name="fp32", kind="float32"),
    status="measured",
    size_bytes=1000,
    memory_bytes=1000,
)


def decided(
    trial: Trial, *, floor: float = 0.99, goal: Goal = "latency", measurable: bool = True
) -> Decision:
    return decide(
        trial, floor=floor, goal=goal, margin=MARGIN, baseline=BASELINE, measurable=measurable
    )


def scored(**changes: float | None) -> Trial:
    return structs.replace(GOOD, held_out=structs.replace(SURE, **changes))


def timed(low: float, ratio: float, high: float) -> Trial:
    changed = structs.replace(FAST, ratio_low=low, ratio=ratio, ratio_high=high)
    return structs.replace(GOOD, latency=changed)


@pytest.mark.parametrize("goal", ["latency", "size", "memory"])
def test_accepts_what_is_accurate_and_better(goal: Goal) -> None:
    decision = decided(GOOD, goal=goal)
    assert decision.accepted
    assert decision.floor_met
    assert "450 held-out samples" in decision.reasons[0]


ANY = st.floats() | st.floats(0.9, 1.1) | st.sampled_from([math.nan, math.inf, -math.inf, 1e308])
GOALS = st.sampled_from(["latency", "size", "memory"])


@given(
    low=st.none() | ANY,
    ratio=ANY,
    floor=st.floats(0.5, 1),
    goal=GOALS,
    measurable=st.booleans(),
)
def test_never_accepts_below_the_floor(
    low: float | None, ratio: float, floor: float, goal: Goal, *, measurable: bool
) -> None:
    decision = decided(scored(low=low, ratio=ratio), floor=floor, goal=goal, measurable=measurable)
    if decision.accepted or decision.floor_met:
        assert low is not None
        assert low >= floor
        assert ratio >= floor


@given(st.tuples(ANY, ANY, ANY))
def test_never_accepts_what_is_not_clearly_faster_for_latency(
    found: tuple[float, float, float],
) -> None:
    if decided(timed(*found)).accepted:
        assert found[2] < 1 - MARGIN


@given(st.integers(0, 1100), st.sampled_from(["size", "memory"]))
def test_never_accepts_what_is_not_smaller(found: int, goal: Goal) -> None:
    decision = decided(structs.replace(GOOD, size_bytes=found, memory_bytes=found), goal=goal)
    assert decision.accepted == (0 < found <= 950)


def test_accuracy_that_was_not_measured_is_not_accepted() -> None:
    decision = decided(structs.replace(GOOD, held_out=None))
    assert not decision.accepted
    assert "not measured on the held-out samples" in decision.reasons[0]


def test_a_bound_for_less_confidence_is_not_accepted() -> None:
    assert not decided(scored(confidence=0.9)).accepted


def test_says_how_many_samples_would_tell() -> None:
    decision = decided(scored(low=0.98, samples_needed=812))
    assert not decision.floor_met
    assert "about 812 would tell" in decision.reasons[0]
    few = decided(scored(low=None, samples_needed=20))
    assert "too few to bound it" in few.reasons[0]
    edge = decided(scored(ratio=0.99, low=0.98))
    assert "no number of them would tell" in edge.reasons[0]


def test_says_how_far_below_the_floor_it_is() -> None:
    assert "keeps 97 % " in decided(scored(ratio=0.97, low=0.95)).reasons[0]


def test_a_bound_is_never_rounded_up_to_the_floor() -> None:
    assert "98.99 %" in decided(scored(low=0.989999, samples_needed=500)).reasons[0]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ((1.1, 1.2, 1.3), "it is slower"),
        ((0.97, 0.98, 0.99), "not faster by 5 %"),
        ((0.8, 0.9, 0.96), "not clearly faster by 5 %"),
        ((math.nan, math.nan, math.nan), "not clearly faster"),
    ],
)
def test_says_why_it_is_not_fast_enough(found: tuple[float, float, float], says: str) -> None:
    decision = decided(timed(*found))
    assert not decision.accepted
    assert decision.floor_met
    assert says in decision.reasons[0]


def test_latency_that_was_not_measured_counts_only_where_it_cannot_be() -> None:
    unmeasured = structs.replace(GOOD, latency=None)
    assert not decided(unmeasured).accepted
    decision = decided(unmeasured, measurable=False)
    assert decision.accepted
    assert any("latency not measured" in reason for reason in decision.reasons)


def test_the_latency_of_a_foreign_cpu_is_not_an_argument() -> None:
    decision = decided(timed(1.1, 1.2, 1.3), measurable=False)
    assert decision.accepted
    assert "1.2" not in " ".join(decision.reasons)


@pytest.mark.parametrize("goal", ["size", "memory"])
def test_slower_is_permitted_for_other_goals_and_said(goal: Goal) -> None:
    slow = structs.replace(timed(1.1, 1.2, 1.3), batchable=False)
    decision = decided(slow, goal=goal)
    assert decision.accepted
    assert any("slower, which goal" in reason for reason in decision.reasons)
    assert any("not batchable" in reason for reason in decision.reasons)


def test_what_failed_is_said_first_and_all_of_it() -> None:
    decision = decided(structs.replace(timed(1.1, 1.2, 1.3), held_out=None))
    assert len(decision.reasons) == 2
    accurate_but_slow = decided(timed(1.1, 1.2, 1.3))
    assert ["slower" in reason for reason in accurate_but_slow.reasons] == [True, False]


def test_a_failed_trial_keeps_its_reason() -> None:
    failed = structs.replace(GOOD, status="failed", reason="cannot load")
    assert decided(failed) == Decision(accepted=False, reasons=("cannot load",), floor_met=False)
