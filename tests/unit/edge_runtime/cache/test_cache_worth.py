"""The cache by-passes itself where it costs more than it saves, and only there."""

from collections.abc import Iterator
from itertools import pairwise

from edge_runtime.cache.life import SLACK_S, Policy, is_young
from edge_runtime.cache.wear import HOUR_S, Wear
from edge_runtime.cache.worth import (
    DISK_TRIAL_EVERY,
    MEASURING_SHARE,
    RUN_EVERY,
    RUN_EVERY_AT_FIRST,
    RUNS_KNOWN,
    SEEN_MIN,
    TRIAL,
    TRIAL_EVERY,
    Worth,
)
from edge_runtime.settings import Model

US, MS = 1_000, 1_000_000
LOOKUP, STORE = 4 * US, 15 * US


def asked(worth: Worth, run_ns: int, hits: Iterator[bool], lookup_ns: int = LOOKUP) -> int:
    """Ask once per element; how many were looked up."""
    looked_up = 0
    for is_hit in hits:
        if not worth.admits():
            continue
        looked_up += 1
        if is_hit:
            worth.hit(lookup_ns, run_ns)
        else:
            worth.miss(lookup_ns)
            worth.stored(STORE, run_ns)
    return looked_up


def every(number: int, count: int = 10_000) -> Iterator[bool]:
    """One hit in so many requests; 0: none."""
    return (bool(number) and not turn % number for turn in range(1, count + 1))


def test_a_model_of_20_us_is_bypassed_even_if_every_request_hits() -> None:
    worth = Worth()
    asked(worth, 20 * US, every(1))
    assert worth.is_bypassed
    assert worth.text.startswith("by-passed: a look-up costs 4.0 us, a run 20.0 us")


def test_a_model_of_10_ms_with_repeats_is_not() -> None:
    for number in (1, 2, 20):
        worth = Worth()
        assert asked(worth, 10 * MS, every(number)) == 10_000
        assert not worth.is_bypassed
        assert worth.text.startswith("on: ")


def test_a_model_whose_inputs_never_repeat_is_bypassed_after_some_hundred_requests() -> None:
    for run_ns in (100 * US, MS, 10 * MS, 50 * MS):
        worth = Worth()
        asked(worth, run_ns, every(0, 1500))
        assert worth.is_bypassed
        assert "by-passed" in worth.text


def test_the_cheaper_a_look_up_beside_a_run_the_longer_the_trial() -> None:
    looked_up = [asked(Worth(), run_ns, every(0, 2000)) for run_ns in (60 * US, MS, 50 * MS)]
    assert looked_up == sorted(set(looked_up))


def test_a_look_up_that_costs_more_than_the_run_is_bypassed() -> None:
    worth = Worth()
    asked(worth, 100 * US, every(2), lookup_ns=400 * US)  # a large input of a small model
    assert worth.is_bypassed


def test_nothing_is_decided_on_a_handful_of_requests() -> None:
    worth = Worth()
    asked(worth, 10 * US, every(0, SEEN_MIN - 1))
    assert not worth.is_bypassed
    assert worth.text == "learning"


def test_while_bypassed_some_requests_in_a_row_are_tried() -> None:
    worth = Worth()
    asked(worth, 20 * US, every(1))
    turns = [worth.admits() for _ in range(3 * TRIAL_EVERY)]
    assert sum(turns) == 3 * TRIAL
    changes = sum(before != after for before, after in pairwise(turns))
    assert changes <= 6


def test_it_comes_back_when_inputs_begin_to_repeat() -> None:
    worth = Worth()
    asked(worth, 10 * MS, every(0, 2000))
    assert worth.is_bypassed
    asked(worth, 10 * MS, every(2, 2 * TRIAL_EVERY))
    assert not worth.is_bypassed


def hits(worth: Worth, told_ns: int, real_ns: int, count: int = 10_000) -> int:
    """Let every request hit an answer whose run took something else once; how many ran."""
    ran = 0
    for _ in range(count):
        if not worth.admits():
            continue
        if worth.takes_run():
            ran += 1
            worth.ran(real_ns)
        else:
            worth.hit(LOOKUP, told_ns)
    return ran


def test_a_cold_first_run_does_not_hide_that_runs_are_not_worth_keeping() -> None:
    worth = Worth()
    assert hits(worth, 900 * US, 20 * US, SEEN_MIN + RUN_EVERY_AT_FIRST) > 0
    assert worth.is_bypassed
    assert "a run 20.0 us" in worth.text


def test_the_first_run_of_a_version_is_forgotten_when_there_is_another() -> None:
    worth = Worth()
    worth.stored(STORE, 900 * US)
    assert worth.run_ns == 900 * US
    worth.stored(STORE, 30 * US)
    assert worth.run_ns == 30 * US


def test_runs_that_became_slow_are_found_out_although_every_request_hits() -> None:
    worth = Worth()
    hits(worth, 60 * US, 60 * US, 3000)
    assert not worth.is_bypassed
    hits(worth, 60 * US, 5 * MS)
    assert worth.run_ns > 240 * US


def test_runs_that_are_made_to_learn_take_a_tenth_of_the_time_of_look_ups_at_most() -> None:
    for run_ns in (60 * US, MS, 100 * MS):
        ran = hits(Worth(), run_ns, run_ns, 100_000)
        assert RUNS_KNOWN <= ran <= 100_000 // RUN_EVERY
        assert (ran - RUNS_KNOWN) * run_ns <= MEASURING_SHARE * 100_000 * LOOKUP


def test_one_run_at_a_time_is_made_to_learn_however_long_it_takes() -> None:
    worth = Worth()
    ran = 0
    for _ in range(RUN_EVERY_AT_FIRST + 10):
        ran += worth.takes_run()
        worth.hit(LOOKUP, MS)
    assert ran == 1


def test_one_interrupted_run_turns_no_verdict() -> None:
    worth = Worth()
    asked(worth, 10 * MS, every(2, 1000))
    worth.hit(500 * MS, 10 * MS)
    assert not worth.is_bypassed


def test_the_disk_is_asked_only_where_it_is_faster_than_a_run() -> None:
    worth = Worth()
    worth.stored(STORE, MS)
    assert worth.admits_disk()
    for _ in range(100):
        worth.read(MS // 10)
    assert worth.admits_disk()
    for _ in range(100):
        worth.read(30 * MS)
    turns = [worth.admits_disk() for _ in range(10 * DISK_TRIAL_EVERY)]
    assert sum(turns) == 10


def test_no_more_is_written_until_the_hour_is_over() -> None:
    wear = Wear(100)
    assert wear.allows(0)
    wear.spend(99)
    assert wear.allows(1)
    wear.spend(50)
    assert not wear.allows(HOUR_S - 1)
    assert wear.allows(HOUR_S)
    assert wear.spent_bytes == 0
    assert not Wear(0).allows(0)


def test_an_answer_is_young_between_its_creation_and_its_end() -> None:
    assert is_young(100, 10, 100)
    assert is_young(100, 10, 109.9)
    assert not is_young(100, 10, 110)
    assert is_young(100, 10, 100 - SLACK_S)
    assert not is_young(100, 10, 100 - SLACK_S - 1)


def test_a_model_opts_in_by_a_time_to_live() -> None:
    assert Policy.of(Model()) is None
    assert Policy.of(Model(cache_ttl_s=5, cache_stale_s=7)) == Policy(5, stale_s=7)
    assert Policy(5, stale_s=7).keep_s == 12


def test_a_bundle_may_allow_less_than_the_settings_and_never_more() -> None:
    settings = Policy(100, max_bytes=1000, scope="uid", stale_s=7)
    assert settings.within(0, 0) == settings
    assert settings.within(50, 2000) == Policy(50, max_bytes=1000, scope="uid", stale_s=7)
    assert settings.within(500, 10) == Policy(100, max_bytes=10, scope="uid", stale_s=7)
