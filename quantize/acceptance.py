"""What devices check: how far outputs may be from the goldens, and the score they must keep there.

Made when a bundle is written, from what its variants really answer; ``scored`` and ``metric_for``
are also what ``verify`` uses, so that both mean the same.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from edge_runtime.goldens import Golden, distance
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import Acceptance, Tolerance
from edge_runtime.manifest import Metric as Floor
from quantize import metrics
from quantize.errors import QuantizeError, StepFailedError
from quantize.execution import open_runner
from quantize.goldens import answered
from quantize.metrics import Metric
from quantize.signature import Array, Signature
from quantize.variants import ShippedVariant, as_served

HEAD_ROOM: Final = 1.5
"""How much farther off than any variant here a device may be: other CPUs round otherwise."""
ROUNDING: Final = 1e-4
"""Least tolerance, as a share of the output's largest value: float sums in another order."""
LOOSENING_MAX: Final = 4.0
"""Edge cases may be this much farther off than real samples. One that is more would loosen the
tolerance until it says nothing of real samples, so it is left out."""
BUDGET_FACTOR: Final = 3.0
"""Times and memory measured here, times this, are the budgets of a device."""

_SUMS: Final = 1e-9  # sums in another order must not decide

Answers = Sequence[Mapping[str, Array]]


class Accepted(NamedTuple):
    """What a bundle asks of devices.

    Attributes:
        acceptance: Tolerances, floor and budgets; its list of goldens is left empty.
        goldens: Those to ship.
        notes: What was left out, and why.
    """

    acceptance: Acceptance
    goldens: tuple[Golden, ...]
    notes: tuple[str, ...]


def acceptance(
    goldens: Sequence[Golden],
    variants: Sequence[ShippedVariant],
    *,
    metric: Metric | None,
    metric_output: str,
    floor: float,
    rows: int,
    cpu: CpuFacts,
) -> Accepted:
    """Work out what devices check, from what the variants answer here.

    Args:
        goldens: With the float model's outputs.
        variants: What is shipped.
        metric: What the search was decided on; ``None``: no floor on the goldens.
        metric_output: The output that was asked for by name; empty: none was.
        floor: Share of the float model's score that must be kept.
        rows: Rows of the shortest run the model takes: times of others are no budget.
        cpu: This machine's.

    Raises:
        StepFailedError: A variant cannot be loaded, or fails on real samples.
    """
    answers = [_answers(variant, goldens, cpu) for variant in variants]
    kept, notes = _without_wild_edges(goldens, answers)
    chosen = [goldens[place] for place in kept]
    given: list[Answers] = [[each[place] or {} for place in kept] for each in answers]
    tolerances, loose = _tolerances(chosen, given)
    least, unscored = _floor(metric, metric_output, floor, chosen, given)
    return Accepted(
        Acceptance(
            tolerances=tolerances,
            metric=least,
            latency_budget_s=_latency_budget(variants, rows),
            memory_budget_bytes=_memory_budget(variants),
        ),
        tuple(chosen),
        (*notes, *loose, *unscored),
    )


def metric_for(name: str, signature: Signature, *, has_labels: bool) -> tuple[Metric, float] | None:
    """Find the metric that a manifest names.

    Nothing is imported on a manifest's word: a user's function counts as unknown.

    Args:
        name: ``top1``, or ``top1(scores)`` with its output; ``-mae`` is the error, negated so
            that more is better.
        signature: Of the model.
        has_labels: Whether goldens have labels.

    Returns:
        The metric and the factor that makes more of it better; ``None``: unknown, or the goldens
        do not have what it needs.
    """
    plain = name.removeprefix("-")
    plain, bracket, rest = plain.partition("(")
    output = rest.removesuffix(")") if bracket else ""
    if plain not in metrics.NAMES:
        return None
    try:
        found = metrics.metric(plain, has_labels=has_labels, signature=signature, output=output)
    except QuantizeError:
        return None
    return found, (-1.0 if found.better == "lower" else 1.0)


def scored(metric: Metric, goldens: Sequence[Golden], answers: Answers) -> float | None:
    """Score a model's answers to the goldens.

    Args:
        metric: Which score.
        goldens: Those without labels count only where the metric needs none.
        answers: The model's outputs to each.

    Returns:
        In the metric's own unit; ``None``: no golden can be scored.

    Raises:
        BadInputError: The labels do not fit the outputs.
        StepFailedError: The outputs are not numbers that can be scored.
    """
    every = []
    for golden, outputs in zip(goldens, answers, strict=True):
        if metric.needs_labels and golden.labels is None:
            continue
        if any(name not in golden.outputs for name in metric.outputs):
            continue
        mine, reference = (_by_sample(golden, metric, each) for each in (outputs, golden.outputs))
        every.append(metric.per_sample(mine, reference, golden.labels))
    return metrics.aggregate(metric, np.concatenate(every)) if every else None


def _by_sample(golden: Golden, metric: Metric, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Give outputs whose first axis counts samples: rows of the run, or the run as a whole."""
    rows = {array.shape[:1] for array in golden.feeds.values()}
    rows |= {golden.outputs[name].shape[:1] for name in metric.outputs}
    chosen = {name: outputs[name] for name in metric.outputs}
    whole = len(rows) > 1 or rows == {()}
    if whole:
        return {name: array[np.newaxis] for name, array in chosen.items()}
    if golden.labels is None:
        return chosen
    # A model that insists on its rows was given more than there are samples.
    return {name: array[: len(golden.labels)] for name, array in chosen.items()}


def _answers(
    variant: ShippedVariant, goldens: Sequence[Golden], cpu: CpuFacts
) -> list[Mapping[str, Array] | None]:
    """Run a variant on every golden; ``None``: an edge case that it fails on."""
    found: list[Mapping[str, Array] | None] = []
    with open_runner(variant.file, options=as_served(variant.session_options, cpu)) as runner:
        for golden in goldens:
            try:
                found += answered(runner, [golden.feeds])
            except StepFailedError:
                if not _is_edge(golden):
                    raise
                found.append(None)
    return found


def _is_edge(golden: Golden) -> bool:
    return golden.name.startswith("edge-")


def _without_wild_edges(
    goldens: Sequence[Golden], answers: Sequence[Sequence[Mapping[str, Array] | None]]
) -> tuple[list[int], tuple[str, ...]]:
    """Leave out edge cases that would make the tolerances meaningless."""
    real = [place for place, golden in enumerate(goldens) if not _is_edge(golden)]
    limits = {
        name: max(LOOSENING_MAX * _farthest(name, goldens, answers, real), least)
        for name, least in _least_tolerances(goldens).items()
    }
    wild = {
        place
        for place, golden in enumerate(goldens)
        if _is_edge(golden)
        and any(
            _farthest(name, goldens, answers, [place]) > limit for name, limit in limits.items()
        )
    }
    kept = [place for place in range(len(goldens)) if place not in wild]
    if not wild:
        return kept, ()
    names = ", ".join(goldens[place].name for place in sorted(wild))
    note = (
        f"Goldens left out: {names}. Outputs there are so far off (over {LOOSENING_MAX:g} times as "
        "far as on real samples) that the tolerance would say nothing of real samples."
    )
    return kept, (note,)


def _farthest(
    name: str,
    goldens: Sequence[Golden],
    answers: Sequence[Sequence[Mapping[str, Array] | None]],
    places: Sequence[int],
) -> float:
    """Give an output's largest distance over some goldens and all variants."""
    worst = 0.0
    for each in answers:
        for place in places:
            given = each[place]
            if given is None:
                return np.inf
            worst = max(worst, distance(given[name], goldens[place].outputs[name]).beyond)
    return worst


def _least_tolerances(goldens: Sequence[Golden]) -> dict[str, float]:
    """Give every float output the tolerance that rounding alone needs."""
    least: dict[str, float] = {}
    for golden in goldens:
        for name, array in golden.outputs.items():
            if array.dtype.kind == "f":
                finite = np.abs(array[np.isfinite(array)]).astype(np.float64)
                largest = float(finite.max(initial=0.0))
                least[name] = max(least.get(name, 0.0), ROUNDING * largest)
    return least


def _tolerances(
    goldens: Sequence[Golden], answers: Sequence[Answers]
) -> tuple[tuple[Tolerance, ...], tuple[str, ...]]:
    """Give every float output the distance it had here, with head-room."""
    found, notes = [], []
    everywhere = range(len(goldens))
    for name, least in _least_tolerances(goldens).items():
        farthest = _farthest(name, goldens, answers, everywhere)
        if np.isfinite(farthest):
            found.append(Tolerance(name, atol=max(HEAD_ROOM * farthest, least)))
        else:
            notes.append(
                f"Output {name} has no tolerance: its shape, or where it is a number, differs "
                "between the variants and the float model."
            )
    return tuple(found), tuple(notes)


def _floor(
    metric: Metric | None,
    output: str,
    floor: float,
    goldens: Sequence[Golden],
    answers: Sequence[Answers],
) -> tuple[Floor | None, tuple[str, ...]]:
    """Say which score devices must reach: the floor, or a little less than the variants here.

    The goldens are few: a variant that keeps the floor on the held-out set may miss it on them, and
    one sample may fall to the other side on another CPU.
    """
    if metric is None or metric.name not in metrics.NAMES:
        return None, ("The goldens carry no score: devices cannot compute this metric.",)
    factor = -1.0 if metric.better == "lower" else 1.0
    reference = scored(metric, goldens, [golden.outputs for golden in goldens])
    scores = [scored(metric, goldens, each) for each in answers]
    if reference is None or any(score is None for score in scores):
        return None, ("The goldens carry no score: they have no labels.",)
    worst = min(factor * score for score in scores if score is not None)
    lost = max(0.0, factor * reference - worst)
    one_sample = 0.0
    if metric.needs_labels and metric.better == "higher":
        one_sample = 1 / max(1, sum(len(g.labels) for g in goldens if g.labels is not None))
    asked = reference * floor if factor > 0 else -reference / floor
    least = min(asked, factor * reference - max(HEAD_ROOM * lost, one_sample))
    name = f"{metric.name}({output})" if output else metric.name
    return Floor("-" * (factor < 0) + name, least - _SUMS), ()


def _latency_budget(variants: Sequence[ShippedVariant], rows: int) -> float:
    """Allow devices three times what was measured here; 0 where something was not."""
    found = [
        max(latency.p50_s, latency.reference_p50_s)
        for variant in variants
        if (latency := variant.trial.latency) is not None and latency.rows == rows
    ]
    return BUDGET_FACTOR * max(found) if found and len(found) == len(variants) else 0.0


def _memory_budget(variants: Sequence[ShippedVariant]) -> int:
    found = [variant.trial.memory_bytes for variant in variants]
    return int(BUDGET_FACTOR * max(found)) if found and all(found) else 0
