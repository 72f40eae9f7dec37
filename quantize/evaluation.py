"""Run a model over samples, and say what its answers are worth beside the float model's."""

from typing import Final

import numpy as np
from msgspec import structs

from quantize.confidence import SAMPLES_MIN, Bound, means_kept, shares_kept
from quantize.data.dataset import Dataset
from quantize.errors import BadInputError, StepFailedError
from quantize.execution import Runner
from quantize.measures import Outputs, Scores
from quantize.metrics import RATIO_MAX, Metric, aggregate, ratio
from quantize.progress import Progress, Silent
from quantize.records import Score
from quantize.signature import Array

_SILENT: Final = Silent()
_ROUNDING: Final = 1e-5
"""Share of an output's largest number by which sums of floats in another order may differ."""


def outputs_of(
    runner: Runner,
    data: Dataset,
    rows: int,
    names: tuple[str, ...] | None = None,
    *,
    progress: Progress = _SILENT,
    text: str = "",
) -> dict[str, Array]:
    """Run a model over all samples.

    Memory: the outputs that are asked for, and one run.

    Args:
        runner: The model.
        data: Samples.
        rows: Most samples in one run; 1 for a dynamically quantised model, whose rows change each
            other.
        names: Outputs to keep, for example those a metric reads; ``None``: all.
        progress: Told of every run.
        text: What the work is, for a person; empty: the file's name.

    Returns:
        Outputs by name; the first axis counts samples.

    Raises:
        StepFailedError: A run failed, or an output's shape changes from run to run.
        BadInputError: An output has no row for each sample.
    """
    step = data.rows_per_run(rows)
    kept = names if names is not None else tuple(each.name for each in runner.signature.outputs)
    given: dict[str, Array] = {}
    done = 0
    with progress.step(text or f"running {runner.name}", data.samples) as work:
        for feeds in data.feeds(rows):
            count = min(step, data.samples - done)
            for name, array in runner.run(feeds, kept).items():
                fed = count if data.run_rows is None else step
                part = array[None] if data.whole else _rows(name, array, fed, runner.name)[:count]
                if name not in given:
                    given[name] = np.empty((data.samples, *part.shape[1:]), part.dtype)
                _check_shape(name, part, given[name], runner.name)
                given[name][done : done + count] = part
            done += count
            work.advance(count)
    return given


def rows_that_work(
    runner: Runner, data: Dataset, wanted: int, names: tuple[str, ...] | None = None
) -> int:
    """Find how many samples one run may take without changing what each of them gives.

    Some models take any number of rows and work with one only, because a shape inside is fixed;
    in others, such as dynamically quantised ones, rows of a run change each other.

    Args:
        runner: The model.
        data: Samples; the first ones are tried.
        wanted: The most that are wanted, at least 1.
        names: Outputs that matter; ``None``: all.

    Returns:
        ``wanted``, or 1 where a run of so many fails, or answers differ by more than rounding.

    Raises:
        StepFailedError: Runs of one sample fail, too.
        BadInputError: They have no row for each sample, either.
    """
    if wanted == 1 or data.rows_per_run(wanted) != wanted or data.samples == 1:
        return 1
    first = data.take(range(min(wanted, data.samples)))
    alone = outputs_of(runner, first, 1, names)
    try:
        together = outputs_of(runner, first, wanted, names)
    except (StepFailedError, BadInputError):
        return 1
    return wanted if all(_agree(alone[name], together[name]) for name in alone) else 1


def score(
    metric: Metric,
    outputs: Outputs,
    reference: Outputs,
    labels: Array | None,
    *,
    confidence: float | None = None,
    floor: float = 1.0,
) -> Score:
    """Score a candidate's answers beside the float model's for the same samples.

    Args:
        metric: How to score.
        outputs: The candidate's, by name; the first axis counts samples.
        reference: The float model's.
        labels: ``None`` where the metric needs none.
        confidence: Of the lower bound; ``None``: without a bound.
        floor: What the bound will be held against, for ``samples_needed``.

    Raises:
        BadInputError: Labels and outputs do not fit, or the float model's own score is so bad (or,
            for an error, so good) that no share of it can be kept.
        StepFailedError: The candidate's answers are not numbers that can be scored.
    """
    theirs = _reference_scores(metric, reference, labels)
    mine = metric.per_sample(outputs, reference, labels)
    value, whole = aggregate(metric, mine), aggregate(metric, theirs)
    result = Score(
        metric=metric.name,
        value=value,
        reference=whole,
        ratio=ratio(value, whole, metric.better),
        samples=len(mine),
    )
    if confidence is None:
        return result
    bound = _bound(metric, mine, theirs, confidence)
    # Bounds are of means; where the metric is the root of a mean, so is the bound.
    low = None if bound.low is None else max(bound.low, 0.0) ** metric.power
    return structs.replace(
        result,
        low=low,
        confidence=confidence,
        samples_needed=bound.samples_needed(floor ** (1 / metric.power)),
    )


def _reference_scores(metric: Metric, reference: Outputs, labels: Array | None) -> Scores:
    """Score the float model itself, and refuse what no candidate can be compared with."""
    try:
        scores = metric.per_sample(reference, reference, labels)
    except StepFailedError as error:
        raise BadInputError(
            f"the float model cannot be scored: {error.message}; mend the model or the data, or "
            "use another metric or output"
        ) from error
    whole = aggregate(metric, scores)
    if whole > 0:
        return scores
    if metric.better == "lower":
        raise BadInputError(
            f"the float model's {metric.name} is 0 on all {len(scores)} samples, so no share of it "
            "can be kept; labels that are the model's own outputs need --metric cosine"
        )
    raise BadInputError(
        f"the float model's {metric.name} is {whole:.4g} on all {len(scores)} samples, so no share "
        "of it can be kept; check that labels and samples belong together, or name another output "
        "with --metric-output NAME"
    )


def _bound(metric: Metric, mine: Scores, theirs: Scores, confidence: float) -> Bound:
    if metric.is_share:
        return shares_kept(mine, theirs, confidence)
    if metric.better == "higher":
        return means_kept(mine, theirs, confidence)
    if not mine.any():
        # No error in any sample: there is nothing to resample.
        known = len(mine) >= SAMPLES_MIN
        return Bound(RATIO_MAX if known else None, RATIO_MAX, len(mine), lambda _: RATIO_MAX)
    return means_kept(theirs, mine, confidence)


def _rows(name: str, array: Array, rows: int, model: str) -> Array:
    if not array.ndim or len(array) != rows:
        raise BadInputError(
            f"{model}: output {name!r} has shape {list(array.shape)} for {rows} samples, so it has "
            "no row for each; give samples as whole inputs (arrays with one axis more in front), "
            "or name another output with --metric-output NAME"
        )
    return array


def _agree(first: Array, second: Array) -> bool:
    if first.shape != second.shape:
        return False
    if first.dtype.kind != "f" or not first.size:
        return bool(np.array_equal(first, second))
    largest = float(np.abs(first[np.isfinite(first)]).max(initial=0.0))
    return np.allclose(first, second, rtol=0, atol=_ROUNDING * largest, equal_nan=True)


def _check_shape(name: str, part: Array, whole: Array, model: str) -> None:
    if part.shape[1:] != whole.shape[1:]:
        raise StepFailedError(
            f"{model}: output {name!r} has shape {list(part.shape[1:])} for a sample after "
            f"{list(whole.shape[1:])} for the ones before; only outputs of one shape can be "
            "compared"
        )
