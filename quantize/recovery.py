"""What to leave in float: as little as brings accuracy back, and what int8 makes slower.

Pure search: candidates are made and judged by a function that is given. Both searches need few
candidates: accuracy comes back monotonically enough for doubling and halving, and time is
predicted group by group and only then measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from quantize.groups import Group
from quantize.records import Recipe

SWITCH_COSTS: Final = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05)
"""What a change between float and int8 may cost, as shares of the float model's time. Nobody
knows it before: every value draws the borders elsewhere, and the best one is measured."""

Judged = TypeVar("Judged")


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Repair:
    """A cheap change to try before nodes are ranked.

    Attributes:
        name: What is put behind the recipe's name.
        recipe: The recipe to use.
        exclude: Nodes that it leaves in float.
    """

    name: str
    recipe: Recipe
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found(Generic[Judged]):
    """What a search for the fewest exclusions ended with.

    Attributes:
        exclude: Nodes to leave in float, in the order of the ranking.
        judged: What the judging function said of it.
        groups: How many groups these nodes are.
        tried: How many candidates were judged.
        reached: Whether it is good enough; if not, it is the last that was tried.
    """

    exclude: tuple[str, ...]
    judged: Judged
    groups: int
    tried: int
    reached: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """Measured times of one group of nodes.

    Attributes:
        nodes: The group's nodes.
        operator: Operator type of the first.
        float_s: Seconds in the float model.
        quantised_s: Seconds in the quantised model, with the conversions it needs.
    """

    nodes: tuple[str, ...]
    operator: str
    float_s: float
    quantised_s: float


@dataclass(frozen=True, slots=True)
class Faster:
    """What a search for speed ended with.

    Attributes:
        exclude: Nodes to leave in float; empty if all of them in int8 is the fastest.
        ratio: Candidate's time over the float model's: below 1 is faster.
        tried: Every set of nodes that was measured, with its ratio.
    """

    exclude: tuple[str, ...]
    ratio: float
    tried: tuple[tuple[tuple[str, ...], float], ...]


def repairs(recipe: Recipe, groups: Sequence[Group]) -> tuple[Repair, ...]:
    """List cheap repairs of a recipe that misses the floor.

    Args:
        recipe: The recipe.
        groups: Of the float model, in the order of its graph.

    Returns:
        In the order of first try.
    """
    weighted = [group for group in groups if group.operator in {"Conv", "Gemm", "MatMul"}]
    found: list[Repair] = []
    if recipe.kind in {"static", "dynamic"} and not recipe.per_channel:
        recipe = _changed(recipe, per_channel=True)
        found.append(Repair("per-channel", recipe))
    if recipe.calibration == "minmax":
        clipped = _changed(recipe, calibration="percentile", percentile=99.99)
        found.append(Repair("percentile", clipped))
    if len(weighted) > 2:  # noqa: PLR2004 - of fewer, both ends are all there is
        first, head = weighted[0].nodes, weighted[-1].nodes
        found.append(Repair("without-head", recipe, head))
        found.append(Repair("without-first", recipe, first))
        found.append(Repair("without-ends", recipe, (*first, *head)))
    return tuple(found)


def recover_accuracy(
    ranked: Sequence[Sequence[str]],
    judge: Callable[[tuple[str, ...]], Judged],
    good_enough: Callable[[Judged], bool],
    *,
    out_of_time: Callable[[], bool] = _never,
) -> Found[Judged] | None:
    """Find how few of the ranked groups have to stay in float: double, then halve the step.

    Args:
        ranked: Nodes of each group, the worst group first.
        judge: Makes and judges the candidate without these nodes.
        good_enough: Whether a candidate meets the floor.
        out_of_time: Whether no further candidate may be begun.

    Returns:
        The least exclusion found that is good enough: one group less was not, unless time ran
        out. The largest one tried if none is; ``None`` if nothing could be tried.
    """
    tried = 0
    best: Found[Judged] | None = None
    failed = 0  # groups left out that are surely too few
    count = 1
    while count <= len(ranked) and not out_of_time():
        nodes = tuple(node for group in ranked[:count] for node in group)
        judged = judge(nodes)
        tried += 1
        reached = good_enough(judged)
        best = Found(nodes, judged, count, tried, reached)
        if reached or count == len(ranked):
            break
        failed = count
        count = min(2 * count, len(ranked))
    if best is None or not best.reached:
        return best
    while best.groups - failed > 1 and not out_of_time():
        count = (best.groups + failed) // 2
        nodes = tuple(node for group in ranked[:count] for node in group)
        judged = judge(nodes)
        tried += 1
        if good_enough(judged):
            best = Found(nodes, judged, count, tried, reached=True)
        else:
            failed = count
    return Found(best.exclude, best.judged, best.groups, tried, reached=True)


def recover_speed(
    costs: Sequence[Cost],
    measure: Callable[[tuple[str, ...]], float | None],
    *,
    start: float,
    keep: Sequence[str] = (),
    out_of_time: Callable[[], bool] = _never,
) -> Faster:
    """Find groups that are faster in float, so that the whole is.

    Args:
        costs: Of every group, in the order of the graph.
        measure: Makes the candidate that leaves these nodes in float and gives its time over the
            float model's; ``None``: it could not be made.
        start: That ratio of the candidate the costs are of.
        keep: Nodes that stay in float whatever happens, as accuracy needs them.
        out_of_time: Whether no further candidate may be begun.

    Returns:
        The fastest, which is the start if nothing was faster.
    """
    kept = tuple(keep)
    best = Faster(kept, start, ((kept, start),))
    seen = {frozenset(kept)}
    for nodes in exclusions(costs):
        exclude = tuple(dict.fromkeys((*kept, *nodes)))
        if frozenset(exclude) in seen:
            continue
        if out_of_time():
            break
        seen.add(frozenset(exclude))
        ratio = measure(exclude)
        if ratio is None:
            continue
        tried = (*best.tried, (exclude, ratio))
        best = (
            Faster(exclude, ratio, tried)
            if ratio < best.ratio
            else Faster(best.exclude, best.ratio, tried)
        )
    return best


def exclusions(costs: Sequence[Cost]) -> tuple[tuple[str, ...], ...]:
    """List sets of nodes that may be better off in float, by what was measured.

    Args:
        costs: Of every group, in the order of the graph.

    Returns:
        Different sets, none of them empty: for each assumed cost of a change the best way through
        the graph, then all groups of operators that int8 makes slower altogether.
    """
    total = sum(cost.float_s for cost in costs)
    sets = [_cheapest_way(costs, share * total) for share in SWITCH_COSTS]
    slower: dict[str, float] = {}
    for cost in costs:
        slower[cost.operator] = slower.get(cost.operator, 0.0) + cost.quantised_s - cost.float_s
    losers = {operator for operator, seconds in slower.items() if seconds > 0}
    sets.append(tuple(cost.operator in losers for cost in costs))
    named = (
        tuple(node for cost, left in zip(costs, chosen, strict=True) if left for node in cost.nodes)
        for chosen in sets
    )
    return tuple(dict.fromkeys(nodes for nodes in named if nodes))


def _cheapest_way(costs: Sequence[Cost], switch_s: float) -> tuple[bool, ...]:
    """Choose float or int8 for each group so that times and changes add up to the least.

    Inputs and outputs of the graph are float.

    Returns:
        For each group whether it is left in float.
    """
    spent = {True: 0.0, False: switch_s}
    came: list[dict[bool, bool]] = []
    for cost in costs:
        here, previous = {}, {}
        for in_float in (True, False):
            stay, change = spent[in_float], spent[not in_float] + switch_s
            previous[in_float] = in_float if stay <= change else not in_float
            here[in_float] = min(stay, change) + (cost.float_s if in_float else cost.quantised_s)
        spent = here
        came.append(previous)
    state = spent[True] <= spent[False] + switch_s
    way: list[bool] = []
    for previous in reversed(came):
        way.append(state)
        state = previous[state]
    return tuple(reversed(way))


def _changed(recipe: Recipe, **fields: object) -> Recipe:
    changed: Recipe = msgspec.structs.replace(recipe, **fields)
    return changed
