"""The verdict: when looks are made, what fails, what passes, and what is said."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.manifest import Comparison
from edge_runtime.release.evidence import Blocks, Contested, Snapshot
from edge_runtime.release.policy import (
    LOOKS_MAX,
    Judgement,
    Thresholds,
    blocks_needed,
    is_look_due,
    judge,
    next_look,
    rules,
    thresholds,
    too_many_errors,
)
from edge_runtime.settings.release import Release
from edge_runtime.settings.release import Thresholds as Overrides

PAIRED, UNDER_TRAFFIC = 4, 2
"""Measures of comparisons, and of real traffic."""
WANTED = Thresholds()
NOT_COMPARED = Thresholds(agreement_floor=0.0)


def pairs(n: int, ratio: float = 1.0, **more: float) -> Snapshot:
    """``n`` comparisons that all agree, unless told otherwise; times are all different."""
    ratios = tuple(math.log(ratio) + 0.001 * ((place * 7919) % 101 - 50) for place in range(n))
    fields: dict[str, float] = {"answered": n, "agreements": float(n), **more}
    return msgspec.structs.replace(
        Snapshot(blocks=n, seen=3 * n, pairs=n, log_ratios=ratios), **fields
    )


def traffic(candidate: Blocks, active: Blocks, share: float = 0.5) -> Snapshot:
    """Traffic of which the candidate gets a share; each error has a block of its own."""
    ours = [Contested(1.0, share)] * int(candidate.errors)
    theirs = [Contested(0.0, share)] * int(active.errors)
    return Snapshot(
        blocks=candidate.count,
        candidate=candidate,
        active=active,
        shared=min(candidate.count, active.count),
        contested=(*ours, *theirs),
    )


def controlled(candidate: Blocks, active: Blocks) -> Snapshot:
    return Snapshot(blocks=candidate.count, candidate=candidate, active=active, is_control=True)


def blocks(n: int, errors: float = 0.0, mean_s: float = 0.01) -> Blocks:
    means = tuple(math.log(mean_s) + 0.001 * ((place * 7919) % 101 - 50) for place in range(n))
    return Blocks(count=n, errors=errors, log_means=means)


# -- what is asked -------------------------------------------------------------------------------


def test_the_owner_of_the_device_overrules_the_bundle() -> None:
    bundle = Comparison(agreement_floor=0.9, cosine_floor=0.8, latency_ratio_max=3.0)
    settings = Release(alpha=0.01, blocks_min=32)
    assert thresholds(bundle, Overrides(), settings) == Thresholds(
        agreement_floor=0.9, latency_ratio_max=3.0, error_rate_max=0.1, alpha=0.01, blocks_min=32
    )
    overrides = Overrides(
        agreement_floor=0.0, cosine_floor=0.99, latency_ratio_max=1.1, error_rate_max=0.2
    )
    assert thresholds(bundle, overrides, settings) == Thresholds(
        agreement_floor=0.0, latency_ratio_max=1.1, error_rate_max=0.2, alpha=0.01, blocks_min=32
    )
    assert rules(bundle, Overrides()) == bundle
    assert rules(bundle, Overrides(cosine_floor=0.99)) == msgspec.structs.replace(
        bundle, cosine_floor=0.99
    )


# -- looks ---------------------------------------------------------------------------------------


def test_looks_are_due_at_twice_as_many_blocks_each_time() -> None:
    due = [next_look(looks, WANTED) for looks in range(LOOKS_MAX + 1)]
    assert due == [8, 16, 32, 64, 128, 256, 512, 1024, None]


def test_the_last_look_waits_for_what_it_could_prove() -> None:
    assert next_look(7, Thresholds(blocks_min=4096)) == 4096
    assert next_look(7, Thresholds(agreement_floor=0.999)) == blocks_needed(0.999, 0.05 / 8)
    assert next_look(7, Thresholds(agreement_floor=1.0)) == 1024


def test_between_looks_nothing_is_spent() -> None:
    assert judge(pairs(7), WANTED, 0).looks == 0
    found = judge(pairs(100), WANTED, 4)
    assert (found.verdict, found.looks) == ("inconclusive", 4)
    assert found.reasons == ("100 of the 128 blocks of the next look",)
    assert found.numbers["level"] == 0


def test_looks_that_were_passed_over_give_their_part_to_the_one_that_is_made() -> None:
    assert judge(pairs(8), WANTED, 0).numbers["level"] == 0.05 / 8 / PAIRED
    late = judge(pairs(100), WANTED, 0)
    assert late.looks == 4
    assert late.numbers["level"] == pytest.approx(4 * 0.05 / 8 / PAIRED)
    assert not is_look_due(101, late.looks, WANTED)


def test_the_end_of_a_step_spends_all_that_is_left() -> None:
    found = judge(pairs(20), WANTED, 2, is_over=True)
    assert found.looks == LOOKS_MAX
    assert found.numbers["level"] == pytest.approx(6 * 0.05 / 8 / PAIRED)
    again = judge(pairs(20), WANTED, found.looks, is_over=True)
    assert (again.verdict, again.looks) == ("inconclusive", LOOKS_MAX)
    assert again.reasons == ("agreement: all 8 looks were spent without a proof",)
    assert judge(pairs(2000), WANTED, found.looks).reasons == (
        "all 8 looks of this step are spent",
    )


def test_a_lower_limit_of_looks_than_were_spent_does_no_harm() -> None:
    assert judge(pairs(2000), Thresholds(looks_max=2), 5, is_over=True).looks == 5


# -- fail ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("snapshot", "word"),
    [
        (pairs(64, errors_candidate=16, answered=48, agreements=48.0), "errors"),
        (pairs(64, bad=16), "bad values"),
        (pairs(64, agreements=48.0), "agreement"),
        (pairs(64, ratio=10.0), "latency"),
        (pairs(16, ratio=10.0), "latency"),
        (pairs(1024, ratio=1.6), "latency"),
        (traffic(blocks(64, errors=16.0), blocks(64)), "errors under traffic"),
        (controlled(blocks(64, errors=16.0), blocks(64)), "errors under traffic"),
        (traffic(blocks(64, mean_s=0.1), blocks(64)), "latency under traffic"),
        (traffic(blocks(64, mean_s=0.1), blocks(900)), "latency under traffic"),
        (controlled(blocks(64, mean_s=0.1), blocks(64)), "latency under traffic"),
    ],
)
def test_what_is_clearly_worse_fails_with_the_reason(snapshot: Snapshot, word: str) -> None:
    found = judge(snapshot, WANTED, 0)
    assert found.verdict == "fail"
    (reason,) = found.reasons
    assert reason.startswith(f"{word}: ")
    assert found.is_suspect


def test_several_reasons_are_all_given() -> None:
    bad = pairs(64, ratio=10.0, agreements=10.0, bad=50)
    words = [reason.partition(":")[0] for reason in judge(bad, WANTED, 0).reasons]
    assert words == ["bad values", "agreement", "latency"]


def test_a_reason_says_what_was_seen_and_what_is_allowed() -> None:
    (reason,) = judge(pairs(64, ratio=10.0), WANTED, 3).reasons
    assert "10 times the active version's in 64 blocks, allowed are 1.5" in reason


def test_the_same_errors_of_both_are_not_held_against_the_candidate() -> None:
    both = pairs(64, errors_candidate=16, errors_active=16, answered=48, agreements=48.0)
    assert judge(both, WANTED, 0).verdict != "fail"
    assert judge(traffic(blocks(64, 16.0), blocks(64, 16.0)), NOT_COMPARED, 0).verdict == "pass"


def test_a_few_accidents_do_not_fail() -> None:
    for few in (
        pairs(64, errors_candidate=1, answered=63, agreements=63.0),
        pairs(64, agreements=62.0),
        pairs(64, ratio=1.4),
    ):
        assert judge(few, WANTED, 0).verdict == "inconclusive"


@pytest.mark.parametrize("failures", range(6))
def test_three_failures_in_a_row_that_the_active_version_answers_are_enough(failures: int) -> None:
    assert bool(too_many_errors(failures)) == (failures >= 3)


# -- pass ----------------------------------------------------------------------------------------


def test_a_good_candidate_passes_as_soon_as_the_floor_is_proven() -> None:
    assert blocks_needed(0.98, 0.05 / 8) == 252
    looks = 0
    for n in (8, 16, 32, 64, 128):
        found = judge(pairs(n), WANTED, looks)
        assert found.verdict == "inconclusive"
        looks = found.looks
    found = judge(pairs(256), WANTED, looks)
    assert found.verdict == "pass"
    assert found.numbers["agreement"] == 1
    assert found.numbers["latency_ratio"] == pytest.approx(1.0, rel=0.01)


def test_too_few_blocks_for_the_floor_are_told_with_the_number_needed() -> None:
    found = judge(pairs(128), WANTED, 4)
    (reason,) = found.reasons
    assert "252 blocks that all agree would prove it" in reason
    assert not found.is_suspect


def test_a_floor_of_one_is_never_proven_and_that_is_said() -> None:
    found = judge(pairs(1024), Thresholds(agreement_floor=1.0), 0)
    assert found.verdict == "inconclusive"
    assert "which no number of blocks can prove" in found.reasons[0]
    missed = pairs(1024, agreements=1023.0)
    assert judge(missed, Thresholds(agreement_floor=1.0), 0).verdict == "fail"


def test_too_little_traffic_is_inconclusive_even_at_the_end() -> None:
    for n in (0, 3):
        found = judge(pairs(n), WANTED, 0, is_over=True)
        assert found.verdict == "inconclusive"
        assert found.reasons[0] == f"{n} blocks, at least 16 are needed to pass"
        assert not found.is_suspect


def test_what_looks_worse_without_proof_does_not_pass() -> None:
    suspect = pairs(512, errors_candidate=6, answered=506, agreements=506.0)
    found = judge(suspect, WANTED, 6)
    assert found.verdict == "inconclusive"
    assert found.is_suspect
    assert found.reasons[0].startswith("errors: 6 of the candidate and 0 of the active version")


def test_a_step_in_which_nothing_is_compared_passes_by_its_traffic() -> None:
    good = traffic(blocks(16), blocks(200))
    assert judge(good, NOT_COMPARED, 0).verdict == "pass"
    assert judge(good, WANTED, 0).verdict == "inconclusive"


def test_traffic_without_the_active_version_says_that_nothing_was_compared() -> None:
    found = judge(traffic(blocks(16), Blocks()), NOT_COMPARED, 0)
    assert found.verdict == "pass"
    assert "latency under traffic: there is nothing to compare it with" in found.reasons


def test_pairs_and_traffic_can_each_fail_a_candidate() -> None:
    good = traffic(blocks(64), blocks(64))
    fields = {field: getattr(good, field) for field in ("candidate", "active", "shared")}
    assert judge(msgspec.structs.replace(pairs(64, ratio=10.0), **fields), WANTED, 0).verdict == (
        "fail"
    )
    bad = msgspec.structs.replace(good, candidate=blocks(64, mean_s=0.1), pairs=64)
    assert judge(bad, WANTED, 0).verdict == "fail"


def test_what_an_earlier_step_has_proven_must_only_not_be_contradicted() -> None:
    proven = Thresholds(is_agreement_proven=True)
    assert judge(pairs(16), proven, 1).verdict == "pass"
    assert judge(pairs(16, agreements=14.0), proven, 1).verdict == "inconclusive"
    assert judge(pairs(64, agreements=48.0), proven, 3).verdict == "fail"
    assert next_look(7, Thresholds(is_agreement_proven=True, agreement_floor=0.999)) == 1024


def test_a_step_with_real_traffic_waits_for_it() -> None:
    wanted = Thresholds(traffic_min=16, is_agreement_proven=True)
    found = judge(pairs(512), wanted, 6)
    assert found.verdict == "inconclusive"
    assert found.reasons == ("0 blocks of real traffic, at least 16 are needed",)
    mixed = msgspec.structs.replace(pairs(512), candidate=blocks(16))
    assert judge(mixed, wanted, 6).verdict == "pass"


def test_few_errors_are_enough_where_the_candidate_gets_little_traffic() -> None:
    few, none = blocks(64, errors=3.0), blocks(64)
    assert judge(traffic(few, none, share=0.05), NOT_COMPARED, 3).verdict == "fail"
    assert judge(traffic(few, none, share=0.9), NOT_COMPARED, 3).verdict == "pass"


def test_a_step_that_goes_on_after_its_last_look_still_tells_what_looks_worse() -> None:
    suspect = pairs(2000, errors_candidate=6, answered=1994, agreements=1994.0)
    found = judge(suspect, WANTED, LOOKS_MAX, is_over=True)
    assert (found.verdict, found.looks, found.is_suspect) == ("inconclusive", LOOKS_MAX, True)
    good = traffic(blocks(2000), blocks(2000))
    assert judge(good, NOT_COMPARED, LOOKS_MAX, is_over=True).verdict == "pass"
    assert judge(good, NOT_COMPARED, LOOKS_MAX).verdict == "inconclusive"


# -- whatever comes ------------------------------------------------------------------------------


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    n = draw(st.integers(0, 300))
    answered = draw(st.integers(0, n))
    bad = draw(st.integers(0, answered))
    runs = draw(st.tuples(st.integers(0, 100), st.integers(0, 100)))
    mean = st.floats(1e-6, 1e6)
    shares = st.floats(0, 1)
    return (
        pairs(
            n,
            ratio=draw(st.floats(1e-3, 1e3)),
            errors_candidate=draw(st.integers(0, n)),
            errors_active=draw(st.integers(0, n)),
            answered=answered,
            bad=bad,
            agreements=(answered - bad) * draw(shares),
        )
        if draw(st.booleans())
        else traffic(
            blocks(runs[0], runs[0] * draw(shares), draw(mean)),
            blocks(runs[1], runs[1] * draw(shares), draw(mean)),
        )
    )


WANTS = st.builds(
    Thresholds,
    agreement_floor=st.floats(0, 1),
    latency_ratio_max=st.floats(1e-3, 1e3),
    alpha=st.floats(1e-4, 0.5),
    looks_max=st.integers(1, 12),
    blocks_min=st.integers(1, 400),
    traffic_min=st.integers(0, 100),
    is_agreement_proven=st.booleans(),
)


@given(snapshots(), WANTS, st.integers(0, 13), st.booleans())
def test_every_verdict_is_sound(
    snapshot: Snapshot,
    wanted: Thresholds,
    looks: int,
    is_over: bool,  # noqa: FBT001
) -> None:
    found = judge(snapshot, wanted, looks, is_over=is_over)
    assert looks <= found.looks <= max(looks, wanted.looks_max)
    assert found.reasons
    assert all(found.reasons)
    assert all(math.isfinite(number) for number in found.numbers.values())
    assert (found.numbers["level"] > 0) == (found.looks > looks)
    measures = PAIRED * bool(snapshot.pairs) + UNDER_TRAFFIC * bool(snapshot.candidate.count)
    spent = wanted.alpha * (found.looks - looks) / wanted.looks_max / (measures or PAIRED)
    assert found.numbers["level"] == pytest.approx(spent)
    if found.looks == looks:
        assert found.verdict != "fail"
        asks_for_proof = wanted.agreement_floor > 0 and not wanted.is_agreement_proven
        assert found.verdict == "inconclusive" or (is_over and not asks_for_proof)
    if found.verdict == "pass":
        assert snapshot.blocks >= wanted.blocks_min
        assert snapshot.candidate.count >= wanted.traffic_min
        assert not found.is_suspect
        if wanted.agreement_floor > 0 and not wanted.is_agreement_proven:
            assert found.numbers["agreement"] >= wanted.agreement_floor
    if found.verdict == "fail":
        chances = [number for key, number in found.numbers.items() if key.endswith("_p")]
        assert min(chances) <= found.numbers["level"]
    assert msgspec.json.decode(msgspec.json.encode(found), type=Judgement) == found


ORDER = ("fail", "inconclusive", "pass")


def _worse(snapshot: Snapshot, more: int, slower: float) -> list[Snapshot]:
    fresh = msgspec.structs.replace
    candidate = snapshot.candidate
    errors = min(candidate.count, candidate.errors + more)
    means = tuple(mean + slower for mean in candidate.log_means)
    return [
        fresh(snapshot, agreements=max(0.0, snapshot.agreements - more)),
        fresh(snapshot, bad=min(snapshot.answered, snapshot.bad + more)),
        fresh(snapshot, errors_candidate=min(snapshot.pairs, snapshot.errors_candidate + more)),
        fresh(snapshot, log_ratios=tuple(ratio + slower for ratio in snapshot.log_ratios)),
        fresh(snapshot, candidate=fresh(candidate, errors=errors)),
        fresh(snapshot, candidate=fresh(candidate, log_means=means)),
    ]


@given(snapshots(), WANTS, st.integers(0, 12), st.integers(1, 20), st.floats(0, 3))
def test_worse_evidence_never_makes_a_better_verdict(
    snapshot: Snapshot, wanted: Thresholds, looks: int, more: int, slower: float
) -> None:
    for is_over in (False, True):
        before = judge(snapshot, wanted, looks, is_over=is_over).verdict
        for each in _worse(snapshot, more, slower):
            after = judge(each, wanted, looks, is_over=is_over).verdict
            assert ORDER.index(after) <= ORDER.index(before)
