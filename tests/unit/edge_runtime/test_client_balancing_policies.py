"""Who gets the next request: fair, in proportion, never the busier, never an ejected one."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.client.balancing import best
from edge_runtime.client.policies import (
    LeastOutstanding,
    Policy,
    RoundRobin,
    Weighted,
    policy_named,
)
from edge_runtime.errors import ConfigError

COUNT = 6

candidates = st.lists(st.integers(0, COUNT - 1), min_size=1, unique=True)
outstanding = st.lists(st.integers(0, 4), min_size=COUNT, max_size=COUNT)
flags = st.lists(st.booleans(), min_size=1, max_size=COUNT)
IDLE = [0] * COUNT


def _counts(policy: Policy, among: list[int], picks: int) -> Counter[int]:
    return Counter(policy.choose(among, IDLE) for _ in range(picks))


@given(candidates, st.integers(0, 50), st.integers(0, 100))
def test_round_robin_counts_differ_by_one_at_most(among: list[int], picks: int, first: int) -> None:
    counts = _counts(RoundRobin(COUNT, first), among, picks)
    assert set(counts) <= set(among)
    shares = [counts[index] for index in among]
    assert max(shares) - min(shares) <= 1


@given(candidates, st.integers(0, 50))
def test_least_outstanding_takes_turns_among_equals(among: list[int], picks: int) -> None:
    counts = _counts(LeastOutstanding(COUNT), among, picks)
    shares = [counts[index] for index in among]
    assert max(shares) - min(shares) <= 1


@given(st.lists(st.tuples(candidates, outstanding), min_size=1))
def test_least_outstanding_never_picks_a_busier_one(
    rounds: list[tuple[list[int], list[int]]],
) -> None:
    policy = LeastOutstanding(COUNT)
    for among, busy in rounds:
        chosen = policy.choose(among, busy)
        assert chosen in among
        assert busy[chosen] == min(busy[index] for index in among)


@given(st.lists(st.integers(1, 9), min_size=COUNT, max_size=COUNT), candidates)
def test_weighted_gives_each_its_exact_share_of_a_round(
    weights: list[int], among: list[int]
) -> None:
    policy = Weighted(weights)
    among = sorted(among)
    total = sum(weights[index] for index in among)
    for _ in range(2):
        counts = _counts(policy, among, total)
        assert counts == {index: weights[index] for index in among}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=COUNT))
def test_weighted_never_strays_far_from_the_shares(weights: list[int]) -> None:
    policy = Weighted(weights)
    counts: Counter[int] = Counter()
    everyone = range(len(weights))
    for picks in range(1, 2 * sum(weights) + 1):
        counts[policy.choose(everyone, IDLE)] += 1
        for index, weight in enumerate(weights):
            assert abs(counts[index] - picks * weight / sum(weights)) < len(weights)


def test_weighted_spreads_the_heavy_one_out() -> None:
    policy = Weighted([3, 1])
    order = [policy.choose([0, 1], IDLE) for _ in range(8)]
    assert order == [0, 0, 1, 0, 0, 0, 1, 0]


def test_weighted_goes_on_in_proportion_after_one_was_out() -> None:
    policy = Weighted([2, 1, 1])
    assert _counts(policy, [1, 2], 10) == {1: 5, 2: 5}
    assert _counts(policy, [0, 1, 2], 40) == {0: 20, 1: 10, 2: 10}


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("random", None),
        ("", None),
        ("weighted", None),
        ("round_robin", [1, 1]),
        ("weighted", [1]),
        ("weighted", [1, 1, 1]),
        ("weighted", [1, 0]),
        ("weighted", [1, -1]),
        ("weighted", [1, float("nan")]),
        ("weighted", [1, float("inf")]),
        ("weighted", [1, 10**400]),
        ("weighted", [1e-300, 1e300]),
        ("weighted", [1, "1"]),
        ("weighted", [1, True]),
        ("weighted", [1, None]),
        ("weighted", "12"),
        ("weighted", 2),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(name: Any, weights: Any) -> None:  # noqa: ANN401 - also none of the names
    with pytest.raises(ConfigError, match=r"policy|weights"):
        policy_named(name, 2, weights)


def test_weights_whose_sum_is_infinite_keep_their_proportions() -> None:
    policy = policy_named("weighted", 3, [1.5e308, 1.5e308, 0.75e308])
    chosen = [policy.choose([0, 1, 2], [0, 0, 0]) for _ in range(100)]
    assert [chosen.count(index) for index in range(3)] == [40, 40, 20]


@given(flags, st.data(), st.booleans())
def test_an_ejected_one_is_never_picked_while_another_is_healthy(
    ejected: list[bool],
    data: st.DataObject,
    again: bool,  # noqa: FBT001 - a strategy fills it
) -> None:
    tried = data.draw(st.sets(st.integers(0, len(ejected) - 1)))
    among = best(ejected, tried, again=again)
    assert among
    untried = set(range(len(ejected))) - tried
    rivals = set(range(len(ejected))) if again or not untried else untried
    if any(not ejected[index] for index in rivals):
        assert not any(ejected[index] for index in among)


@given(st.integers(1, COUNT))
def test_when_all_are_ejected_all_are_tried(count: int) -> None:
    assert best([True] * count, [], again=False) == list(range(count))


@given(flags, st.data())
def test_what_was_not_sent_goes_where_the_call_has_not_been(
    ejected: list[bool], data: st.DataObject
) -> None:
    tried = data.draw(st.sets(st.integers(0, len(ejected) - 1), max_size=len(ejected) - 1))
    assert not tried & set(best(ejected, tried, again=False))


def test_what_may_have_run_goes_to_a_healthy_one_rather_than_to_a_new_one() -> None:
    assert best([False, True], [0], again=True) == [0]
    assert best([False, False], [0], again=True) == [1]
    assert best([True, True], [0], again=True) == [1]
