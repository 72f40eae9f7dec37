"""Choosing: nothing that is beaten in everything, only what was accepted, always the same."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from quantize.choice import choose, pareto
from quantize.records import Decision, Goal, Latency, Recipe, Score, Trial

STEPS = st.integers(1, 4)


def trial(
    name: str,
    *,
    kept: float = 0.99,
    latency: float | None = 0.5,
    size: int = 100,
    memory: int = 100,
    accepted: bool = True,
) -> Trial:
    score = Score(metric="top1", value=kept, reference=1, ratio=kept, low=kept - 0.01, samples=500)
    times = None
    if latency is not None:
        times = Latency(
            p50_s=latency,
            p90_s=latency * 2,
            reference_p50_s=1,
            reference_p90_s=2,
            ratio=latency,
            ratio_low=latency - 0.01,
            ratio_high=latency + 0.01,
            runs=40,
            threads=1,
            rows=1,
            cpu="",
        )
    return Trial(
        name=name,
        recipe=Recipe(name=name, kind="static"),
        status="measured",
        held_out=score,
        latency=times,
        size_bytes=size,
        memory_bytes=memory,
        decision=Decision(accepted=accepted, reasons=(), floor_met=accepted),
    )


TRIALS = st.lists(
    st.builds(
        lambda kept, latency, size, memory, accepted: trial(
            "t", kept=kept / 4, latency=latency, size=size, memory=memory, accepted=accepted
        ),
        STEPS,
        st.none() | st.floats(0.1, 2),
        STEPS,
        STEPS,
        st.booleans(),
    ),
    max_size=8,
).map(lambda every: [structs.replace(each, name=f"t{i}") for i, each in enumerate(every)])


@given(TRIALS)
def test_every_trial_that_is_left_out_is_beaten_by_one_that_is_kept(trials: list[Trial]) -> None:
    kept = pareto(trials)
    assert [each for each in trials if each in kept] == list(kept)
    for each in trials:
        if each not in kept:
            assert pareto([*kept, each]) == kept
    assert pareto(kept) == kept
    assert bool(kept) == bool(trials)


@given(TRIALS, st.sampled_from(["latency", "size", "memory"]))
def test_the_best_of_the_accepted_is_chosen(trials: list[Trial], goal: Goal) -> None:
    chosen = choose(trials, goal)
    accepted = [each for each in trials if each.decision and each.decision.accepted]
    if chosen is None:
        assert not accepted
        return
    assert chosen in accepted
    match goal:
        case "latency":
            ratios = [each.latency.ratio for each in accepted if each.latency]
            assert not ratios or (chosen.latency and chosen.latency.ratio == min(ratios))
        case "size":
            assert chosen.size_bytes == min(each.size_bytes for each in accepted)
        case "memory":
            assert chosen.memory_bytes == min(each.memory_bytes for each in accepted)


def test_a_trial_beaten_in_everything_is_left_out() -> None:
    good, worse = trial("good"), trial("worse", kept=0.98, latency=0.6, size=110, memory=110)
    other = trial("other", kept=0.98, size=50)
    assert pareto([worse, good, other]) == (good, other)


def test_equal_trials_are_all_kept_and_the_first_is_chosen() -> None:
    twins = [trial("a"), trial("b")]
    assert pareto(twins) == tuple(twins)
    assert choose(twins, "latency") == twins[0]


def test_what_was_not_measured_is_never_an_advantage() -> None:
    measured = trial("measured", latency=0.9)
    unmeasured = trial("unmeasured", latency=None, memory=0)
    assert pareto([measured, unmeasured]) == (measured,)
    assert choose([unmeasured, measured], "latency") == measured
    assert choose([unmeasured, measured], "memory") == measured
    assert pareto([structs.replace(measured, held_out=None)]) == ()


def test_without_any_latency_the_smallest_is_chosen() -> None:
    large, small = trial("large", latency=None), trial("small", latency=None, size=50)
    assert choose([large, small], "latency") == small


def test_a_candidate_nobody_decided_on_is_not_chosen() -> None:
    assert choose([structs.replace(trial("a"), decision=None)], "size") is None
    assert choose([], "size") is None
