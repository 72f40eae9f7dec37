"""Compares two models on the same samples: answers, score, time and size. Decides nothing."""

from pathlib import Path
from typing import Final

import numpy as np

from edge_runtime.goldens import distance
from edge_runtime.hardware import cpu_facts
from quantize.data import Dataset
from quantize.errors import BadInputError
from quantize.evaluation import outputs_of, rows_that_work, score
from quantize.execution import open_runner
from quantize.latency import compare as compare_latency
from quantize.metrics import Metric
from quantize.model.storage import stored_bytes
from quantize.progress import Progress, Silent
from quantize.records import Latency, Record, Score
from quantize.reports import wording
from quantize.signature import Array, Signature
from quantize.variants import as_served

FEEDS_MAX: Final = 16
"""Different inputs that times are taken with, in turn."""
ROWS: Final = 32
"""Rows of a run while answers are compared; 1 would be slow, more takes memory."""
_SILENT: Final = Silent()
_DECIBELS: Final = 10.0


class OutputDistance(Record, frozen=True, kw_only=True):
    """How far one output is from that of the other model.

    Attributes:
        output: Its name.
        largest: Largest absolute difference, in the output's unit; ``None``: there is none,
            because shapes differ or only one of both is a number.
        mean: Mean absolute difference; ``None`` as above.
        sample: Where the largest is.
        cosine: Mean cosine of the samples; ``None``: not a float output, or as above.
        signal_to_noise_db: Power of the first model's output over that of the difference; ``None``:
            no difference, or as above.
        same_class: Share of rows whose largest number stands in the same place of the last axis;
            ``None``: there are no two to choose from, or it is no float output.
        equal: Share of elements that are equal.
    """

    output: str
    largest: float | None
    mean: float | None
    sample: int
    cosine: float | None
    signal_to_noise_db: float | None
    same_class: float | None
    equal: float


class Comparison(Record, frozen=True, kw_only=True):
    """Two models side by side; the first is the measure.

    Attributes:
        first: Name of the first file.
        second: Name of the second.
        samples: Samples that both answered.
        outputs: Distances, by the outputs that both have.
        score: Of the second, beside the first; ``None``: no metric suits.
        latency: Of the second, beside the first, on this CPU.
        first_bytes: Size of the first with its external weights.
        second_bytes: Size of the second.
    """

    first: str
    second: str
    samples: int
    outputs: tuple[OutputDistance, ...]
    score: Score | None
    latency: Latency
    first_bytes: int
    second_bytes: int


def compare(
    first: Path,
    second: Path,
    data: Dataset,
    *,
    metric: Metric | None,
    rows: int = ROWS,
    threads: int = 1,
    runs: int = 40,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Progress = _SILENT,
) -> Comparison:
    """Run both models on the samples, then time them in turns.

    Args:
        first: Model file that is the measure, usually the float model.
        second: Model file beside it.
        data: Samples for both.
        metric: Scores both; ``None``: distances only.
        rows: Most rows of a run; a model whose rows change each other gets one at a time.
        threads: Threads of a run.
        runs: Least timed runs of each.
        seed: Draws the order of runs.
        confidence: Of the score's lower bound.
        progress: Told of every run.

    Raises:
        BadInputError: The models do not take the same inputs, share no output, or the metric does
            not fit.
        StepFailedError: A model cannot be loaded or fails.
    """
    options = as_served({}, cpu_facts())
    with open_runner(first, threads=threads, options=options) as runner:
        signature = runner.signature
        fit = rows_that_work(runner, data, rows)
        theirs = outputs_of(runner, data, fit, progress=progress)
    with open_runner(second, threads=threads, options=options) as runner:
        _check_same_inputs(signature, runner.signature, first.name, second.name)
        fit = rows_that_work(runner, data, rows)
        mine = outputs_of(runner, data, fit, progress=progress)
    shared = [name for name in theirs if name in mine]
    if not shared:
        raise BadInputError(
            f"{first.name} and {second.name} share no output: {sorted(theirs)} and {sorted(mine)}"
        )
    worth = None
    if metric is not None:
        if missing := [name for name in metric.outputs if name not in mine]:
            raise BadInputError(
                f"{second.name} has no output {missing[0]!r}, which the metric {metric.name} reads"
            )
        worth = score(metric, mine, theirs, data.labels, confidence=confidence)
    few = data.take(np.arange(min(data.samples, FEEDS_MAX * data.rows_per_run(1))))
    return Comparison(
        first=first.name,
        second=second.name,
        samples=data.samples,
        outputs=tuple(output_distance(name, theirs[name], mine[name]) for name in shared),
        score=worth,
        latency=compare_latency(
            second,
            first,
            tuple(few.feeds(1)),
            threads=threads,
            runs=runs,
            seed=seed,
            rows=data.rows_per_run(1),
            options=options,
        ),
        first_bytes=stored_bytes(first),
        second_bytes=stored_bytes(second),
    )


def output_distance(name: str, first: Array, second: Array) -> OutputDistance:
    """Measure how far two outputs for the same samples are from each other.

    Args:
        name: The output's.
        first: The measure; the first axis counts samples.
        second: Of the other model.
    """
    far = distance(second, first)
    comparable = bool(np.isfinite(far.beyond)) and first.dtype.kind in "biuf"
    if not comparable:
        same = float(np.mean(first == second)) if first.shape == second.shape else 0.0
        return OutputDistance(
            output=name, largest=None, mean=None, sample=far.row, cosine=None,
            signal_to_noise_db=None, same_class=None, equal=same,
        )  # fmt: skip
    # What is no number is so in both; it is left out of the sums.
    ours, theirs = (np.nan_to_num(each.astype(np.float64), posinf=0, neginf=0)
                    for each in (second, first))  # fmt: skip
    is_float = first.dtype.kind == "f"
    noise = float(np.mean((ours - theirs) ** 2)) if ours.size else 0.0
    signal = float(np.mean(theirs**2)) if ours.size else 0.0
    return OutputDistance(
        output=name,
        largest=far.beyond,
        mean=float(np.mean(np.abs(ours - theirs))) if ours.size else 0.0,
        sample=far.row,
        cosine=_cosine(ours, theirs) if is_float and ours.size else None,
        signal_to_noise_db=_DECIBELS * float(np.log10(signal / noise))
        if noise and signal
        else None,
        same_class=_same_class(second, first) if is_float else None,
        equal=float(np.mean((first == second) | ((first != first) & (second != second)))),  # noqa: PLR0124 - NaN
    )


def summary(found: Comparison) -> str:
    """Say what a comparison found, for a person; several lines."""
    lines = [f"{found.second} beside {found.first}, on {found.samples} samples"]
    if found.score is not None:
        lines.append(
            f"  score    {found.score.metric} {found.score.value:.6g} beside "
            f"{found.score.reference:.6g}: {wording.kept(found.score, 'samples')}"
        )
    lines.append(f"  speed    {wording.speed(found.latency)}, {wording.run(found.latency)}")
    share = wording.percent(found.second_bytes / max(1, found.first_bytes))
    lines.append(
        f"  size     {wording.size(found.second_bytes)} beside {wording.size(found.first_bytes)}: "
        f"{share}"
    )
    lines += [f"  output   {_output_text(each)}" for each in found.outputs]
    return "\n".join(lines)


def _output_text(each: OutputDistance) -> str:
    equal = f"{wording.percent(each.equal)} of the numbers are equal"
    if each.largest is None or each.mean is None:
        return f"{each.output}: shapes differ, or only one is a number; {equal}"
    parts = [
        f"{each.output}: largest difference {each.largest:.4g} (sample {each.sample})",
        f"mean {each.mean:.4g}",
    ]
    if each.signal_to_noise_db is not None:
        parts.append(f"signal to noise {each.signal_to_noise_db:.1f} dB")
    if each.cosine is not None:
        parts.append(f"cosine {each.cosine:.6f}")
    parts.append(
        f"same class for {wording.percent(each.same_class)}"
        if each.same_class is not None
        else equal
    )
    return ", ".join(parts)


def _check_same_inputs(first: Signature, second: Signature, *names: str) -> None:
    mine, theirs = ({(each.name, each.dtype) for each in it.inputs} for it in (first, second))
    if mine != theirs:
        shown = " and ".join(
            f"{name} takes {', '.join(map(str, it.inputs))}"
            for name, it in zip(names, (first, second), strict=True)
        )
        raise BadInputError(f"two models can be compared where they take the same inputs; {shown}")


def _cosine(ours: Array, theirs: Array) -> float:
    mine, other = (each.reshape(len(each), -1) for each in (ours, theirs))
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(other, axis=1)
    same = (mine == other).all(axis=1)
    products = (mine * other).sum(axis=1) / np.where(lengths == 0, 1.0, lengths)
    return float(np.where(same, 1.0, np.clip(products, -1.0, 1.0)).mean())


def _same_class(ours: Array, theirs: Array) -> float | None:
    if theirs.ndim < 2 or theirs.shape[-1] < 2 or not theirs.size:  # noqa: PLR2004
        return None
    return float(np.mean(ours.argmax(axis=-1) == theirs.argmax(axis=-1)))
