"""Choose among trials: those that no other one beats in everything, and the best for a goal.

Pure, and the same trials in the same order always give the same choice.
"""

import math
from collections.abc import Iterable

from quantize.records import Goal, Trial

Costs = tuple[float, ...]


def pareto(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """Keep the trials that no other trial beats.

    Trials count that have a score on the held-out samples. One beats another if it is nowhere
    worse in kept ratio, median and 90th percentile of latency over the float model's in the same
    runs, size and peak memory, and somewhere better. What was not measured is the worst there is.

    Args:
        trials: In any order.

    Returns:
        In the order given; of trials that are equal in everything, all.
    """
    judged = [(trial, _costs(trial)) for trial in trials if trial.held_out is not None]
    return tuple(
        trial for trial, costs in judged if not any(_beats(others, costs) for _, others in judged)
    )


def choose(trials: Iterable[Trial], goal: Goal) -> Trial | None:
    """Take the best of the accepted trials.

    For ``latency`` the lowest ratio to the float model's median wins, which is measured in the same
    runs; if none has one, the smallest file. Then, and for the other goals: size, peak memory, how
    surely accuracy is kept, latency, and the order given.

    Args:
        trials: In order of preference where nothing else tells.
        goal: What they compete in.

    Returns:
        ``None``: none was accepted.
    """
    accepted = [trial for trial in trials if trial.decision is not None and trial.decision.accepted]
    return min(accepted, key=lambda trial: _rank(trial, goal), default=None)


def _rank(trial: Trial, goal: Goal) -> Costs:
    latency = trial.latency.ratio if trial.latency else math.inf
    size = float(trial.size_bytes)
    memory = float(trial.memory_bytes or math.inf)
    low = trial.held_out.low if trial.held_out else None
    loss = -math.inf if low is None else -low
    match goal:
        case "latency":
            return (latency, size, memory, loss)
        case "size":
            return (size, memory, loss, latency)
        case "memory":
            return (memory, size, loss, latency)


def _costs(trial: Trial) -> Costs:
    """List what a trial costs, each lower is better."""
    latency = trial.latency
    return (
        -trial.held_out.ratio if trial.held_out else math.inf,
        latency.ratio if latency else math.inf,
        latency.p90_s / latency.reference_p90_s if latency else math.inf,
        float(trial.size_bytes or math.inf),
        float(trial.memory_bytes or math.inf),
    )


def _beats(mine: Costs, theirs: Costs) -> bool:
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))
