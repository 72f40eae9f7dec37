"""What a search starts from: the float model at its best, samples in sets, and the metric."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import onnx

from edge_runtime.hardware import CpuFacts
from quantize import evaluation, latency, targets
from quantize.data.reading import read_data
from quantize.data.splitting import Splits, split
from quantize.errors import BadInputError, StepFailedError
from quantize.execution import open_runner
from quantize.metrics import Metric, metric
from quantize.model.opset import OPSET_LEAST
from quantize.model.source import Source, open_model
from quantize.passes.sequence import run_passes
from quantize.progress import Progress
from quantize.records import Latency, PassResult
from quantize.settings import Settings
from quantize.signature import Array, Signature
from quantize.targets import Target
from quantize.workspace import Workspace

ROWS: Final = 16
"""Rows of one run while models are scored, where a model takes any number."""
COMPARED: Final = 8
"""Runs that a rewritten model's answers are compared on."""
TIMED: Final = 8
"""Different samples that latency is measured with."""


class _Rewritten(msgspec.Struct, frozen=True):
    """What the rewriting steps left in the workspace."""

    file: str
    passes: tuple[PassResult, ...]


@dataclass(frozen=True)
class Prepared:
    """What a search starts from.

    Attributes:
        settings: What was asked for.
        source: The model as it came.
        model: The optimised float model.
        passes: What became of each rewriting step.
        splits: The samples.
        metric: How answers are scored.
        target: What the bundle is for.
        cpu: This machine's.
        search_reference: The given model's outputs on the search set, by name.
        held_out_reference: The same on the held-out set.
        feeds: Inputs of the runs that are timed: of one row, or as many as the model insists on.
        run_rows: Rows of each of them.
    """

    settings: Settings
    source: Source
    model: Path
    passes: tuple[PassResult, ...]
    splits: Splits
    metric: Metric
    target: Target
    cpu: CpuFacts
    search_reference: Mapping[str, Array]
    held_out_reference: Mapping[str, Array]
    feeds: tuple[Mapping[str, Array], ...]
    run_rows: int

    @property
    def is_measurable(self) -> bool:
        """Whether latency measured here says anything about the target."""
        return targets.matches_this_cpu(self.target, self.cpu)

    def compare(self, candidate: Path, reference: Path, *, time: int = 0) -> Latency:
        """Measure a model file against another one.

        Args:
            candidate: Model file.
            reference: The other one.
            time: Number of the measurement: each is drawn anew.

        Raises:
            StepFailedError: One of them cannot be run.
        """
        settings = self.settings
        return latency.compare(
            candidate,
            reference,
            self.feeds,
            threads=settings.threads,
            runs=settings.runs,
            seed=settings.seed + time,
            rows=self.run_rows,
        )


def check_inputs(settings: Settings) -> tuple[Source, Signature, Splits, Metric]:
    """Read everything that was given, and refuse what cannot be used; nothing is written.

    Raises:
        BadInputError: The model, the data or a setting cannot be used.
    """
    source = open_model(Path(settings.model))
    try:
        with open_runner(source.path) as runner:
            signature = runner.signature
    except StepFailedError as error:
        old = f" (opset {source.opset} is old: export the model again, for {OPSET_LEAST} or newer)"
        hint = old if source.opset < OPSET_LEAST else ""
        raise BadInputError(f"{error.message}{hint}; check the model") from error
    data = read_data(Path(settings.data), signature)
    evaluate = read_data(Path(settings.evaluate), signature) if settings.evaluate else None
    splits = split(
        data,
        evaluate,
        calibration_samples=settings.calibration_samples,
        search_samples=settings.search_samples,
        seed=settings.seed,
    )
    found = metric(
        settings.metric,
        has_labels=splits.has_labels,
        signature=signature,
        output=settings.metric_output,
    )
    return source, signature, splits, found


def prepare(
    settings: Settings,
    inputs: tuple[Source, Signature, Splits, Metric],
    cpu: CpuFacts,
    work: Workspace,
    progress: Progress,
) -> Prepared:
    """Rewrite the float model, and run the given one over the samples.

    Args:
        settings: What was asked for.
        inputs: Of ``check_inputs``.
        cpu: This machine's.
        work: Where files go.
        progress: Is told of long work.

    Raises:
        BadInputError: The model cannot be brought into a form that can be quantised, cannot be
            scored, or does not have a node that is to stay in float.
    """
    source, _, splits, found = inputs
    rows = splits.calibration.rows_per_run(1)
    prepared = Prepared(
        settings=settings,
        source=source,
        model=source.path,
        passes=(),
        splits=splits,
        metric=found,
        target=targets.resolve(settings.target, cpu),
        cpu=cpu,
        search_reference={},
        held_out_reference={},
        feeds=tuple(islice(splits.calibration.feeds(1), TIMED)),
        run_rows=rows,
    )
    rewritten = work.recall("rewritten", "", _Rewritten)
    if rewritten is None or not work.path(rewritten.file).is_file():
        samples = [*islice(splits.calibration.feeds(1), COMPARED)]
        file, passes = run_passes(
            source.path, work.path("float"), samples, measure=prepared.compare, progress=progress
        )
        rewritten = _Rewritten(str(file.relative_to(work.root)), passes)
        work.note("rewritten", "", rewritten)
    model = work.path(rewritten.file)
    _check_excluded(settings, model)
    try:
        with open_runner(source.path, threads=settings.threads) as runner:
            fit = evaluation.rows_that_work(runner, splits.search, ROWS, found.outputs)
            search, held_out = (
                evaluation.outputs_of(
                    runner, data, fit, found.outputs, progress=progress, text="running the model"
                )
                for data in (splits.search, splits.held_out)
            )
    except StepFailedError as error:
        raise BadInputError(f"the float model cannot be run: {error.message}") from error
    # The float model's own score is looked at now: a search for nothing would be long.
    evaluation.score(found, search, search, splits.search.labels)
    evaluation.score(found, held_out, held_out, splits.held_out.labels)
    return replace(
        prepared,
        model=model,
        passes=rewritten.passes,
        search_reference=search,
        held_out_reference=held_out,
    )


def _check_excluded(settings: Settings, model: Path) -> None:
    """Refuse names that are not of a node: they would silently exclude nothing."""
    names = [node.name for node in onnx.load(model, load_external_data=False).graph.node]
    for name in settings.exclude:
        if name not in names:
            near = get_close_matches(name, names, n=3)
            hint = f"near are {', '.join(near)}" if near else f"it has {', '.join(names[:5])}, ..."
            raise BadInputError(
                f"the rewritten model has no node {name!r} to leave in float; {hint}"
            )
