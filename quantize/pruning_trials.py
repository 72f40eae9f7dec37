"""Candidates with fewer channels and heads: each rung of the ladder as it is, and quantised."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from quantize.errors import StepFailedError
from quantize.pruning import prune_ladder
from quantize.records import Trial
from quantize.trials import Trials

WATCHED: Final = 32
"""Runs that tell how strong channels are."""
FOLLOWED: Final = 2
"""Quantised candidates that are made again from the pruned model: the most promising ones."""


def prune(
    trials: Trials, promising: Sequence[Trial], is_comfortable: Callable[[Trial], bool]
) -> list[str]:
    """Try the ladder, and quantise the smallest model that keeps the floor with some in hand.

    Args:
        trials: Makes and measures candidates.
        promising: Quantised candidates, the most promising first.
        is_comfortable: Whether a candidate's score on the search set is good enough.

    Returns:
        Sentences for the report: what became of each rung that gave no candidate.

    Raises:
        BadInputError: onnxsim is not installed.
    """
    prepared = trials.prepared
    samples = [*islice(prepared.splits.calibration.feeds(1), WATCHED)]
    notes: list[str] = []
    smallest = None
    folder = trials.folder("pruned")
    for rung in prune_ladder(prepared.model, folder, samples, prepared.settings.prune_ratios):
        share = f"{round(100 * rung.ratio)} %"
        if rung.path is None:
            notes.append(f"Pruning {share}: {rung.reason}.")
            continue
        name = f"pruned-{round(100 * rung.ratio)}"
        if is_comfortable(trials.screen_float(name, rung.path, f"{share} less: {rung.reason}")):
            smallest = name, rung.path
        if trials.out_of_time:
            break
    if smallest is None:
        return notes
    try:
        base = trials.based_on(*smallest)
    except StepFailedError as error:
        return [*notes, f"{smallest[0]} was not quantised: {error.message}"]
    for trial in promising[:FOLLOWED]:
        if trials.out_of_time:
            break
        trials.screen(trial.recipe, trial.excluded, base)
    return notes
