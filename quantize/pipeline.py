"""From settings to a bundle and its report: everything ``edge-quantize`` does, top to bottom."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.hardware import CpuFacts, cpu_facts
from edge_runtime.manifest import (
    Accuracy,
    Manifest,
    Provenance,
    Requires,
    Runtime,
    check_model_name,
)
from quantize.acceptance import acceptance
from quantize.choice import choose, pareto
from quantize.data.splitting import Splits
from quantize.errors import BadInputError
from quantize.execution import RUNTIME_VERSION
from quantize.golden_inputs import make_goldens
from quantize.measures import Custom
from quantize.metrics import Metric
from quantize.model.opset import OPSET_LEAST
from quantize.model.source import Source, open_model
from quantize.packaging import Contents, check_output, new_folder, shipped, write_bundle
from quantize.preparing import Prepared, check_inputs, prepare
from quantize.progress import Progress
from quantize.pruning import check_installed
from quantize.records import Record, Score, Trial
from quantize.reports.document import (
    Ending,
    Report,
    SourceModel,
    installed_versions,
    this_host,
)
from quantize.reports.writing import write_report
from quantize.runtime_needs import oldest_release
from quantize.search import Found, Search
from quantize.settings import Settings
from quantize.signature import Signature
from quantize.targets import Target
from quantize.trials import Trials
from quantize.variants import ShippedVariant, in_order_of_preference
from quantize.workspace import Workspace, workspace


class Result(NamedTuple):
    """How a search ended.

    Attributes:
        report: Everything about it.
        output: Folder with the report, and the bundle if there is one.
    """

    report: Report
    output: Path


class _Fingerprint(Record, frozen=True):
    """What the results of a search depend on; ``metric``: digest of the user's own."""

    settings: Settings
    metric: str
    source: str
    data: dict[str, str]
    versions: dict[str, str]
    cpu: str


def quantize(settings: Settings, cache: Path, progress: Progress) -> Result:
    """Search for the best candidate and write it as a bundle, or write why there is none.

    Args:
        settings: What is asked for; paths are absolute or relative to the working directory.
        cache: Folder where calibration results are kept from search to search.
        progress: Is told of long work.

    Raises:
        BadInputError: The model, the data or a setting cannot be used; nothing is left behind.
        StepFailedError: The float model itself cannot be shipped.
        KeyboardInterrupt: Interrupted; what is known is kept for the next call.
    """
    begun = time.monotonic()
    output = Path(settings.output)
    settings = _checked(settings, output)
    cpu = cpu_facts()
    inputs = check_inputs(settings)
    with workspace(output, _fingerprint(settings, inputs, cpu)) as work:
        if work.resumed:
            with progress.step(f"going on: {work.resumed} results of an interrupted search"):
                pass
        prepared = prepare(settings, inputs, cpu, work, progress)
        work.is_worth_keeping = True
        trials = Trials(prepared, work, cache, progress, began=begun)
        found = Search(trials).run()
        found = _in_order(found, trials.tried, settings)
        report = _report(prepared, found, trials, time.monotonic() - begun)
        with new_folder(output) as folder, progress.step("writing the bundle"):
            if report.ending == "floor-not-reached":
                report = write_report(report, folder)
            else:
                report = _bundle(folder, report, prepared, found, work)
    return Result(report, output)


def _checked(settings: Settings, output: Path) -> Settings:
    """Refuse what can be refused before anything is read, and fill in the model's name."""
    check_output(output)
    name = settings.name or Path(settings.model).stem
    try:
        check_model_name(name)
    except EdgeRuntimeError as error:
        raise BadInputError(f"{error.message}; give another one with --name") from error
    if settings.prune:
        check_installed()
    for given in (settings.model, settings.data, settings.evaluate):
        if given and Path(given).resolve().is_relative_to(output.resolve()):
            raise BadInputError(
                f"{given} lies in {output}, which the result would replace; choose another --output"
            )
    return msgspec.structs.replace(settings, name=name)


def _fingerprint(
    settings: Settings, inputs: tuple[Source, Signature, Splits, Metric], cpu: CpuFacts
) -> str:
    source, _, splits, metric = inputs
    # A search that ran out of time, or whose result goes elsewhere, can be taken up with more.
    plain = msgspec.structs.replace(settings, output="", time_budget_s=1.0)
    depends = _Fingerprint(
        settings=plain,
        metric=metric.source_sha256 if isinstance(metric, Custom) else "",
        source=source.sha256,
        data=splits.record.sha256,
        versions=installed_versions(),
        cpu=cpu.description,
    )
    return sha256(msgspec.json.encode(depends, order="deterministic")).hexdigest()


def _in_order(found: Found, tried: Sequence[Trial], settings: Settings) -> Found:
    """Let the accepted candidate that is best in the goal be the chosen one."""
    best = choose(tried, settings.goal)
    if best is None or found.chosen is None or best.name == found.chosen.name:
        return found
    return found._replace(chosen=best, portable=None) if best.portable else found


def _ending(found: Found, tried: Sequence[Trial]) -> Ending:
    if found.chosen is not None:
        return "met"
    keeps_floor = any(trial.decision and trial.decision.floor_met for trial in tried)
    return "not-faster" if keeps_floor or not tried else "floor-not-reached"


def _report(prepared: Prepared, found: Found, trials: Trials, seconds: float) -> Report:
    source = prepared.source
    short = ""
    if trials.was_short:
        budget = prepared.settings.time_budget_s
        short = f"the time budget of {budget:g} s was used up; --time-budget gives more"
    return Report(
        ending=_ending(found, trials.tried),
        created=datetime.now(tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        seconds=seconds,
        stopped_early=short,
        settings=prepared.settings,
        metric=prepared.metric.name,
        target=prepared.target.name,
        measured_here=prepared.is_measurable,
        source=SourceModel(
            sha256=source.sha256,
            size_bytes=source.size_bytes,
            opset=source.opset,
            nodes=source.nodes,
            operators=dict(source.operators),
        ),
        host=this_host(prepared.cpu),
        versions=installed_versions(),
        passes=prepared.passes,
        split=prepared.splits.record,
        baseline=found.baseline,
        trials=trials.tried,
        pareto=tuple(
            trial.name
            for trial in pareto(trials.tried)
            if trial.decision is not None and trial.decision.accepted
        ),
        chosen=found.chosen.name if found.chosen else "",
        sensitivity=found.sensitivity,
        notes=found.notes,
    )


def _bundle(
    folder: Path, report: Report, prepared: Prepared, found: Found, work: Workspace
) -> Report:
    """Write the bundle; its report says what is shipped."""
    settings = prepared.settings
    variants = in_order_of_preference(
        found.chosen, found.portable, found.baseline, _requires(prepared.target), work.root
    )
    accepted = acceptance(
        make_goldens(prepared.source.path, prepared.splits.held_out, prepared.splits.calibration),
        variants,
        metric=prepared.metric,
        metric_output=settings.metric_output,
        floor=settings.floor,
        rows=prepared.run_rows,
        cpu=prepared.cpu,
    )
    contents = Contents(
        name=settings.name,
        version=settings.version,
        created=report.created,
        variants=variants,
        goldens=accepted.goldens,
        acceptance=accepted.acceptance,
        runtime=_runtime(variants),
        provenance=_provenance(prepared, variants[0].trial),
    )
    written = report

    def write_reports(manifest: Manifest) -> None:
        nonlocal written
        written = write_report(
            msgspec.structs.replace(
                report,
                shipped=shipped(manifest, variants),
                notes=(*report.notes, *accepted.notes),
            ),
            folder,
        )

    write_bundle(folder, contents, write_reports)
    return written


def _requires(target: Target) -> Requires:
    """Say what a CPU must have for a candidate that is right on the target only."""
    return Requires(target.arch, ("vnni",) if target.vnni else ())


def _runtime(variants: Sequence[ShippedVariant]) -> Runtime:
    models = [open_model(each.file, quantized_too=True) for each in variants]
    opset = max(OPSET_LEAST, *(model.opset for model in models))
    return Runtime(oldest_release(models, RUNTIME_VERSION), opset)


def _provenance(prepared: Prepared, trial: Trial) -> Provenance:
    settings = prepared.settings
    return Provenance(
        recipe=trial.name,
        source_digest=prepared.source.sha256,
        accuracy=_accuracy(trial.held_out, prepared.metric.better, settings.confidence),
        data_sha256=prepared.splits.record.sha256,
    )


def _accuracy(score: Score | None, better: str, confidence: float) -> Accuracy | None:
    """State the score with the bound that the decision was taken on; the other side has none."""
    if score is None or not score.low:
        return None
    low = high = score.value
    if better == "higher":
        low = min(score.low * score.reference, low)
    else:
        high = max(score.reference / score.low, high)
    return Accuracy(score.metric, score.value, low, high, score.samples, confidence)
