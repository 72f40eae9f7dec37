"""Recovery against simulated evaluators: no model is made."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize.groups import Group
from quantize.records import Recipe
from quantize.recovery import Cost, exclusions, recover_accuracy, recover_speed, repairs

Nodes = tuple[str, ...]


def ranking(count: int) -> list[Nodes]:
    return [(f"conv{index}", f"relu{index}") for index in range(count)]


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_fewest_groups_are_found_in_logarithmically_many_trials(
    count: int, needed: int
) -> None:
    asked: list[Nodes] = []

    def judge(nodes: Nodes) -> int:
        asked.append(nodes)
        return len(nodes) // 2

    found = recover_accuracy(ranking(count), judge, lambda judged: judged >= needed)
    assert found is not None
    assert found.tried == len(asked) == len(set(asked))
    assert found.tried <= 2 * count.bit_length() + 1
    assert found.reached == (needed <= count)
    assert found.groups == min(needed, count)
    assert found.exclude == tuple(
        node for nodes in ranking(count)[: found.groups] for node in nodes
    )
    assert found.judged == found.groups


@given(st.integers(1, 40), st.sets(st.integers(1, 40)))
def test_what_is_found_is_good_enough_even_if_more_exclusions_are_not(
    count: int, good: set[int]
) -> None:
    found = recover_accuracy(ranking(count), lambda nodes: len(nodes) // 2, good.__contains__)
    assert found is not None
    assert found.reached == (found.groups in good)


def test_time_that_runs_out_keeps_what_was_found() -> None:
    trials = iter(range(100))
    found = recover_accuracy(
        ranking(64),
        lambda nodes: (next(trials), len(nodes) // 2)[1],
        lambda judged: judged >= 33,
        out_of_time=lambda: next(trials) > 12,
    )
    assert found is not None
    assert found.reached
    assert found.groups == 64


def test_nothing_can_be_tried_without_time_or_groups() -> None:
    assert recover_accuracy([], lambda _: 0, lambda _: True) is None
    late = recover_accuracy(ranking(3), lambda _: 0, lambda _: True, out_of_time=lambda: True)
    assert late is None


seconds = st.floats(0, 1)
cost_lists = st.lists(st.tuples(seconds, seconds), min_size=1, max_size=9).map(
    lambda pairs: [
        Cost((f"n{index}",), "Conv" if index % 2 else "Pool", in_float, in_int8)
        for index, (in_float, in_int8) in enumerate(pairs)
    ]
)


def simulated(costs: list[Cost], switch_s: float, exclude: Nodes) -> float:
    total, was_float = 0.0, True
    for cost in costs:
        in_float = cost.nodes[0] in exclude
        total += cost.float_s if in_float else cost.quantised_s
        total += switch_s * (in_float != was_float)
        was_float = in_float
    return total + switch_s * (not was_float)


@given(cost_lists)
def test_the_search_is_never_slower_than_its_start_and_reports_what_it_measured(
    costs: list[Cost],
) -> None:
    start = simulated(costs, 0.01, ())
    result = recover_speed(costs, lambda nodes: simulated(costs, 0.01, nodes), start=start)
    assert result.ratio <= start
    assert result.ratio == pytest.approx(simulated(costs, 0.01, result.exclude))
    assert result.ratio == min(ratio for _, ratio in result.tried)
    assert len({frozenset(nodes) for nodes, _ in result.tried}) == len(result.tried)


@given(cost_lists, st.sampled_from([0.0, 0.005, 0.05]))
def test_the_best_of_all_exclusions_is_proposed_where_the_cost_of_a_change_is_known(
    costs: list[Cost], share: float
) -> None:
    switch_s = share * sum(cost.float_s for cost in costs)
    every = [
        tuple(cost.nodes[0] for cost, left in zip(costs, chosen, strict=True) if left)
        for chosen in product((True, False), repeat=len(costs))
    ]
    best = min(simulated(costs, switch_s, nodes) for nodes in every)
    proposed = [(), *exclusions(costs)]
    assert min(simulated(costs, switch_s, nodes) for nodes in proposed) == pytest.approx(best)


def test_nodes_that_accuracy_needs_in_float_stay_there() -> None:
    costs = [Cost(("a",), "Conv", 1.0, 2.0), Cost(("b",), "Conv", 1.0, 0.1)]
    result = recover_speed(costs, lambda nodes: 1 / len(nodes), start=1.0, keep=["b"])
    assert all("b" in nodes for nodes, _ in result.tried)


def test_a_candidate_that_cannot_be_made_is_passed_over() -> None:
    costs = [Cost(("a",), "Conv", 1.0, 2.0)]
    result = recover_speed(costs, lambda _: None, start=1.5)
    assert (result.exclude, result.ratio) == ((), 1.5)


def test_cheap_repairs_come_before_any_ranking() -> None:
    recipe = Recipe(name="r", kind="static", calibration="minmax")
    groups = [Group((name,), "Conv", (), (name,)) for name in "abc"]
    found = repairs(recipe, groups)
    assert [repair.name for repair in found] == [
        "per-channel",
        "percentile",
        "without-head",
        "without-first",
        "without-ends",
    ]
    assert all(repair.recipe.per_channel for repair in found)
    assert [repair.exclude for repair in found[2:]] == [("c",), ("a",), ("a", "c")]
