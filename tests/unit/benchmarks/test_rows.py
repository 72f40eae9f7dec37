"""Each row's rounds become the ratio that its target is about."""

import pytest

from benchmarks import batching_rows, cache_rows, fairness_rows, overload_rows, release_rows
from benchmarks.counters import Counters, parse
from benchmarks.fairness_rows import ANOTHER, DIGITS_PAIR, NOBODY, SAME, Round
from benchmarks.load import Sample
from benchmarks.overload_rows import Overload, pause_ms
from benchmarks.paced import Wait
from benchmarks.registry import ROWS
from benchmarks.release_rows import ALONE, BAD, GOOD, Passage
from benchmarks.results import Outcome, Spread
from benchmarks.switch import Side, Switched
from benchmarks.workload import WrongAnswerError

FEW = Counters(inferences=10, runs=10, hits=0, cpu_s=0.5)


def waited(*ms: float, greedy: float = 0.0) -> Round:
    sample = Sample(greedy, 1, 2) if greedy else None
    return Round([Wait(200, each) for each in ms], sample)


def switched(connections: int, on: list[float], off: list[float]) -> Switched:
    """Compare rates; an answer takes one over the rate."""
    sides = [
        Side(name, [Sample(rate, 1000 / rate, 2000 / rate) for rate in rates], FEW)
        for name, rates in (("on", on), ("off", off))
    ]
    return Switched(connections, *sides)


def overload(peak: float, good: float, refusals_ms: list[float], rss_mb: float) -> Overload:
    return Overload(peak, good, 10 * peak, refusals_ms, rss_mb)


def column(outcome: Outcome, name: str) -> list[object]:
    return [entry.cells[name] for entry in outcome.entries]


def test_fairness_is_judged_against_the_same_load_on_another_daemon() -> None:
    found = {
        NOBODY: [waited(1), waited(2)],
        ANOTHER: [waited(4, greedy=100), waited(8, greedy=300)],
        SAME: [waited(5, greedy=50), waited(10, greedy=50)],
    }
    outcome = fairness_rows.conclude(DIGITS_PAIR, found, 1.5)
    (target,) = outcome.targets
    assert target.value == 1.25
    assert target.reached
    assert column(outcome, "p99 over nobody")[2] == Spread(5, 5, 5)
    assert column(outcome, "greedy per s") == [None, 200, 50]


def test_a_pair_without_a_limit_has_no_target() -> None:
    found = {NOBODY: [waited(1)], ANOTHER: [waited(1, greedy=1)], SAME: [waited(9, greedy=1)]}
    assert not fairness_rows.conclude(DIGITS_PAIR, found, None).targets


def test_goodput_is_held_against_the_peak_of_its_own_round() -> None:
    found = [overload(100, 95, [1.0, 3.0], 110), overload(50, 40, [2.0], 111.5)]
    outcome = overload_rows.conclude("squeezenet", 109, found, target=True)
    (target,) = outcome.targets
    assert target.value == pytest.approx((0.95 + 0.8) / 2)
    assert not target.reached
    assert column(outcome, "503 p99 ms") == [Spread(2.5, 2.0, 3.0)]
    assert column(outcome, "grew MB, first to last") == [1.5]


def test_a_round_without_a_single_refusal_seen_still_counts_its_goodput() -> None:
    found = [overload(100, 95, [], 110), overload(100, 93, [2.0], 110)]
    outcome = overload_rows.conclude("squeezenet", 109, found, target=True)
    assert outcome.targets[0].value == pytest.approx(0.94)


def test_what_refuses_nothing_is_no_overload() -> None:
    with pytest.raises(WrongAnswerError, match="nothing was refused"):
        overload_rows.conclude("squeezenet", 109, [overload(100, 95, [], 110)], target=True)


def test_pauses_make_all_connections_together_ask_at_the_rate() -> None:
    assert pause_ms(256, 2000) == 128
    assert pause_ms(2, 1e9) == 1


def test_batching_is_judged_with_one_connection_only() -> None:
    found = [switched(1, [98, 99, 97], [100, 100, 100]), switched(32, [190], [100])]
    outcome = batching_rows.conclude(found)
    (target,) = outcome.targets
    assert target.value == pytest.approx(0.98)
    assert target.reached
    assert column(outcome, "per s, on over off")[2] == Spread(1.9, 1.9, 1.9)


def test_the_cache_is_judged_only_where_it_must_cost_nothing() -> None:
    found = [switched(1, [100], [10]), switched(32, [90], [100])]
    kept = cache_rows.conclude("squeezenet", found, target=False)
    assert not kept.targets
    assert column(kept, "p50, on over off")[0] == Spread(0.1, 0.1, 0.1)
    assert [each.reached for each in cache_rows.conclude("digits", found, target=True).targets] == [
        True,
        False,
    ]


def passage(beside_ms: float, status: int = 200) -> Passage:
    return Passage([Wait(200, beside_ms)], [Wait(status, 7.0)], ["committed"])


def test_a_release_is_judged_by_the_waits_of_the_model_beside_it_round_by_round() -> None:
    found = {
        ALONE: [passage(1.0), passage(2.0), passage(4.0)],
        GOOD: [passage(1.1), passage(2.2), passage(40.0)],
        BAD: [passage(1.5), passage(3.0), passage(6.0)],
    }
    outcome = release_rows.conclude(found)
    assert [each.value for each in outcome.targets] == [pytest.approx(1.1), 1.5]
    assert [each.reached for each in outcome.targets] == [True, False]


def test_a_release_under_which_a_request_fails_is_no_result() -> None:
    found = {ALONE: [passage(1.0)], GOOD: [passage(1.0)], BAD: [passage(1.0, 503)]}
    with pytest.raises(WrongAnswerError, match="rolled back: not every answer"):
        release_rows.conclude(found)


def test_counts_are_those_since_the_earlier_reading() -> None:
    page = {
        "model_stats": [
            {
                "inference_count": 640,
                "execution_count": 50,
                "inference_stats": {"cache_hit": {"count": 360}},
            }
        ]
    }
    since = parse(page, 0.7).since(Counters(inferences=0, runs=10, hits=0, cpu_s=0.5))
    assert since.rows_per_run == 16
    assert since.cpu_us == pytest.approx(200)
    assert since.hit_share == 0.36


def test_counts_of_an_idle_daemon_divide_by_nothing() -> None:
    nothing = FEW.since(FEW)
    assert (nothing.rows_per_run, nothing.hit_share, nothing.cpu_us) == (0, 0, 0)


def test_every_pair_of_users_is_a_row() -> None:
    assert {
        "batching",
        "fairness",
        "fairness-pool",
        "short-beside-long",
        "overload",
        "cache",
        "release",
    } <= {*ROWS}
