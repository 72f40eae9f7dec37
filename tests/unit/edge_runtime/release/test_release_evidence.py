"""Evidence is thinned to honest samples, bounded, and what is wrong with a clock does no harm."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.release.evidence import Blocks, Contested, Evidence, Observation, Side, Snapshot


def seen(at_s: float, key: int = 0, **more: float) -> Observation:
    plain = Observation(
        at_s=at_s,
        input_digest=b"%d" % (key or int(at_s * 1000) + 1),
        active_s=0.01,
        candidate_s=0.02,
    )
    return msgspec.structs.replace(plain, **more)


def side(runs: int, errors: int = 0, mean_s: float = 0.01) -> Side:
    return Side(runs=runs, errors=errors, answered_s=mean_s * (runs - errors))


# -- comparisons ---------------------------------------------------------------------------------


def test_one_comparison_of_a_time_block_counts() -> None:
    evidence = Evidence(1.0)
    assert [evidence.add(seen(at_s)) for at_s in (0.0, 0.4, 0.9, 1.0, 1.5, 7.0)] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]
    found = evidence.snapshot()
    assert (found.blocks, found.pairs, found.answered, found.seen) == (3, 3, 3, 6)


def test_an_input_counts_once_however_often_it_comes() -> None:
    evidence = Evidence(1.0)
    assert evidence.add(seen(0.0, key=1))
    assert not evidence.add(seen(5.0, key=1))
    assert evidence.add(seen(5.0, key=2)), "the repeated input must not use up its block"
    assert evidence.blocks == 2


def test_a_clock_that_goes_back_makes_no_samples() -> None:
    evidence = Evidence(1.0)
    assert evidence.add(seen(100.0))
    assert not evidence.add(seen(3.0))
    assert not evidence.add(seen(99.0))


def test_blocks_are_bounded() -> None:
    evidence = Evidence(1.0, blocks_max=5)
    assert sum(evidence.add(seen(float(at_s))) for at_s in range(100)) == 5
    for at_s in range(100):
        evidence.add_block(float(at_s), candidate=side(1), active=side(1))
    found = evidence.snapshot()
    assert (found.blocks, found.pairs, found.candidate.count, found.active.count) == (5, 5, 5, 5)


def test_only_what_both_answered_says_something_of_agreement_and_time() -> None:
    evidence = Evidence(1.0)
    evidence.add(seen(0.0, is_error_candidate=True, agrees=0.0))
    evidence.add(seen(1.0, is_error_active=True))
    evidence.add(seen(2.0, is_error_active=True, is_error_candidate=True))
    evidence.add(seen(3.0, agrees=0.25))
    evidence.add(seen(4.0, is_bad=True))
    found = evidence.snapshot()
    assert (found.pairs, found.answered) == (5, 2)
    assert (found.errors_candidate, found.errors_active) == (2, 2)
    assert (found.bad, found.agreements) == (1, 0.25), "what is bad agrees with nothing"
    assert found.log_ratios == pytest.approx([math.log(2)] * 2)


@pytest.mark.parametrize("times", [(0.0, 0.1), (0.1, 0.0), (math.nan, 0.1), (0.1, math.inf)])
def test_a_time_that_was_not_measured_is_left_out(times: tuple[float, float]) -> None:
    evidence = Evidence(1.0)
    assert evidence.add(seen(0.0, active_s=times[0], candidate_s=times[1]))
    assert evidence.snapshot().log_ratios == ()


@pytest.mark.parametrize(("agrees", "counted"), [(True, 1), (1.5, 1), (-1, 0), (math.nan, 0)])
def test_a_share_stays_between_none_and_all(agrees: float, counted: float) -> None:
    evidence = Evidence(1.0)
    evidence.add(seen(0.0, agrees=agrees))
    assert evidence.snapshot().agreements == counted


# -- real traffic --------------------------------------------------------------------------------


def test_a_block_of_traffic_counts_once_per_side_with_its_share_of_errors() -> None:
    evidence = Evidence(1.0)
    assert evidence.add_block(0.0, candidate=side(4, 1, 0.03), active=side(100, 0, 0.01))
    assert evidence.add_block(1.0, candidate=side(0), active=side(50, 50))
    found = evidence.snapshot()
    assert found.candidate == Blocks(count=1, errors=0.25, log_means=(math.log(0.03),))
    assert (found.active.count, found.active.errors) == (2, 1.0)
    assert found.active.log_means == pytest.approx([math.log(0.01)])
    assert found.blocks == 1, "only blocks that say something of the candidate"


def test_errors_of_a_block_are_shared_out_by_whose_they_are() -> None:
    evidence = Evidence(1.0)
    evidence.add_block(0.0, candidate=side(5, 1), active=side(95, 3))
    evidence.add_block(1.0, candidate=side(5), active=side(95))
    evidence.add_block(2.0, candidate=side(0), active=side(95, 9))
    evidence.add_block(3.0, candidate=side(10, 2), active=side(10))
    found = evidence.snapshot()
    assert found.shared == 3, "blocks in which one side had nothing to do compare nothing"
    assert found.contested == (Contested(0.25, 0.05), Contested(1.0, 0.5))


def test_pieces_of_one_block_are_added_up() -> None:
    evidence = Evidence(1.0)
    assert evidence.add_block(0.1, candidate=side(0), active=side(1))
    assert evidence.blocks == 0
    assert not evidence.add_block(0.5, candidate=side(1, 1), active=side(0))
    assert not evidence.add_block(0.9, candidate=side(3), active=side(1))
    assert evidence.blocks == 1
    assert evidence.snapshot().candidate.errors == 0.25


def test_a_block_in_which_nothing_ran_is_none() -> None:
    evidence = Evidence(1.0)
    assert not evidence.add_block(0.0, candidate=side(0), active=side(0))
    assert evidence.snapshot() == Snapshot()


def test_a_control_stands_in_for_an_active_version_without_traffic() -> None:
    control = Blocks(count=7, errors=1.0, log_means=(-3.0,) * 7)
    evidence = Evidence(1.0, control=control)
    evidence.add_block(0.0, candidate=side(5), active=side(1))
    assert evidence.snapshot().active == control
    assert evidence.snapshot().is_control


def test_a_snapshot_does_not_change_any_more() -> None:
    evidence = Evidence(1.0)
    evidence.add(seen(0.0))
    before = evidence.snapshot()
    evidence.add(seen(1.0))
    evidence.add_block(0.0, candidate=side(5), active=side(1))
    assert (before.pairs, before.candidate.count, len(before.log_ratios)) == (1, 0, 1)


# -- whatever comes ------------------------------------------------------------------------------

TIMES = st.floats(0, 20)
STEPS = st.tuples(
    st.booleans(), TIMES, st.integers(1, 30), st.integers(0, 4), st.integers(0, 4), st.booleans()
)


@given(st.lists(STEPS, max_size=60), st.floats(0.01, 5), st.integers(1, 8))
def test_n_never_exceeds_blocks_of_time_inputs_or_the_limit(
    steps: list[tuple[bool, float, int, int, int, bool]], block_s: float, blocks_max: int
) -> None:
    evidence = Evidence(block_s, blocks_max)
    counted = 0
    for is_pair, at_s, key, runs, errors, is_error in steps:
        if is_pair:
            counted += evidence.add(seen(at_s, key, is_error_candidate=is_error))
        else:
            failed = min(errors, runs)
            evidence.add_block(at_s, candidate=side(runs, failed), active=side(errors))
        found = evidence.snapshot()
        assert found.blocks == evidence.blocks
        assert found.blocks == max(found.pairs, found.candidate.count) <= blocks_max
        assert 0 <= found.candidate.errors <= found.candidate.count
        assert len(found.candidate.log_means) <= found.candidate.count
    pairs = [step for step in steps if step[0]]
    found = evidence.snapshot()
    assert found.pairs == counted <= len({step[2] for step in pairs})
    assert counted <= len({math.floor(step[1] / block_s) for step in pairs})
    assert found.seen == len(pairs)
    assert found.agreements <= found.answered <= found.pairs
    assert found.bad <= found.answered
