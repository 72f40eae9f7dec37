"""Runs the rewriting steps one after another and keeps of each only what helps.

A result is kept if it is valid, takes and gives the same tensors, gives the answers of the
original model, and is not slower. What fails is recorded, and the next step starts from what was
there before it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from edge_runtime.errors import ModelLoadError
from quantize.errors import BadInputError, StepFailedError
from quantize.execution import Level, open_runner
from quantize.model import storage
from quantize.passes.agreement import Outputs, compare
from quantize.passes.constants import CONSTANTS
from quantize.passes.finishing import FINISHING
from quantize.passes.lifting import LIFTING
from quantize.passes.runtime import RUNTIME
from quantize.passes.slimming import SLIMMING
from quantize.passes.step import Pass, Subject, broken, is_same_graph, read_subject
from quantize.passes.transformers import TRANSFORMERS
from quantize.progress import Progress, Silent
from quantize.records import Latency, PassResult
from quantize.signature import Array

PASSES: Final = (LIFTING, CONSTANTS, SLIMMING, TRANSFORMERS, RUNTIME, FINISHING)
SLOWER: Final = 1.02
"""Ratio of times from which on, with all of its interval, a result is slower."""

Feeds = Mapping[str, Array]
Measure = Callable[[Path, Path], Latency]


def run_passes(
    source: Path,
    workspace: Path,
    samples: Sequence[Feeds],
    *,
    measure: Measure | None = None,
    progress: Progress | None = None,
    passes: Sequence[Pass] = PASSES,
) -> tuple[Path, tuple[PassResult, ...]]:
    """Bring a float model into the form that quantisers take, as fast as it gets without them.

    Args:
        source: The model as it came; ``open_model`` has accepted it.
        workspace: Folder for what the steps write; is made.
        samples: Inputs that answers are compared on; every answer is kept in memory meanwhile.
        measure: Compares a candidate (first) with the model before it; ``None``: not measured.
        progress: Is told of each step.
        passes: The steps; the first must be able to read from another folder.

    Returns:
        The file after the last step that was kept, and what became of each step.

    Raises:
        BadInputError: The model itself cannot be run, or a step that is needed cannot be done.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    results: list[PassResult] = []
    try:
        expected = _answers(source, samples, "none")  # as the file says, operator by operator
        current = read_subject(source)
    except (StepFailedError, ModelLoadError, OSError) as error:
        raise BadInputError(
            f"ONNX Runtime cannot run {source.name}: {error}; check the model and the data"
        ) from error
    _refuse_nan(expected, source.name)
    with (progress or Silent()).step("rewriting the float model", len(passes)) as step:
        for number, each in enumerate(passes):
            destination = workspace / f"{number}-{each.name.replace(' ', '-')}.onnx"
            result, made = _tried(
                each, current, destination, samples=samples, expected=expected, measure=measure
            )
            results.append(result)
            if result.kept and made is not None:
                if current.path != source:
                    storage.supersede(current.path, made.path, spare=source)
                current = made
            elif each.is_needed:
                raise BadInputError(
                    f"{source.name} cannot be prepared ({each.name}): {result.reason}"
                )
            else:
                storage.remove(destination)
            step.advance()
    return current.path, tuple(results)


def _tried(
    each: Pass,
    current: Subject,
    destination: Path,
    *,
    samples: Sequence[Feeds],
    expected: Sequence[Outputs],
    measure: Measure | None,
) -> tuple[PassResult, Subject | None]:
    """Do one step; return what became of it, and its model if there is one."""
    begun = time.monotonic()
    before = len(current.model.graph.node)
    result = PassResult(name=each.name, kept=False, reason="", nodes_before=before)
    unmet = each.requires(current)
    if unmet:
        return msgspec.structs.replace(result, reason=f"not tried: {unmet}"), None
    made: Subject | None = None
    try:
        each.call(current.path, destination)
        made = read_subject(destination)
        result = msgspec.structs.replace(result, nodes_after=len(made.model.graph.node))
        reason = broken(current, made) or each.ensures(current, made)
        if not reason and not each.is_needed and is_same_graph(current, made):
            reason = "it changes nothing"
        if not reason:
            agreement = compare(_answers(destination, samples, "basic"), expected)
            result = msgspec.structs.replace(result, max_difference=agreement.max_difference)
            reason = agreement.problem
        latency = None
        if not reason and not each.is_needed and measure is not None:
            latency = measure(destination, current.path)
            result = msgspec.structs.replace(result, latency_ratio=latency.ratio)
            reason = _slower(latency)
    except BadInputError as error:
        if each.is_needed:
            raise
        reason = error.message
    except (StepFailedError, ModelLoadError, OSError) as error:
        reason = str(error)
    seconds = time.monotonic() - begun
    kept = not reason
    result = msgspec.structs.replace(
        result, kept=kept, reason=reason or _praise(result), seconds=seconds
    )
    return result, made


def _answers(path: Path, samples: Sequence[Feeds], level: Level) -> list[Outputs]:
    with open_runner(path, optimize=level) as runner:
        return [runner.run(feeds) for feeds in samples]


def _refuse_nan(answers: Sequence[Outputs], name: str) -> None:
    for number, outputs in enumerate(answers):
        for output, array in outputs.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise BadInputError(
                    f"output {output!r} of {name} is NaN for sample {number}, so that nothing can "
                    "be compared with it; check the model, and that the data is what it expects"
                )


def _slower(latency: Latency) -> str:
    if latency.ratio_low <= SLOWER:
        return ""
    low, high = latency.ratio_low, latency.ratio_high
    return f"it takes {low:.2f} to {high:.2f} times as long"


def _praise(result: PassResult) -> str:
    if result.nodes_after < result.nodes_before:
        less = result.nodes_before - result.nodes_after
        return f"same answers with {less} nodes less"
    return "same answers"
