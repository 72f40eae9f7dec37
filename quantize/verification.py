"""Checks a bundle where it will run: files, goldens, floor and times. Needs the base install only.

What a device's daemon would run is what is checked: the variant for this CPU, with the session
options that the daemon uses here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final, Literal

import numpy as np

from edge_runtime.bundle import Bundle, bundle_from_directory, verify
from edge_runtime.errors import EdgeRuntimeError, ManifestError
from edge_runtime.goldens import Golden, OutputCheck, check_outputs
from edge_runtime.hardware import CpuFacts
from edge_runtime.manifest import MANIFEST_FILE, Manifest, Variant, choose_variant
from quantize.acceptance import metric_for, scored
from quantize.errors import BadInputError, QuantizeError, StepFailedError, VerificationError
from quantize.execution import RUNTIME_VERSION, Runner, open_runner
from quantize.goldens import answered, read
from quantize.records import Record
from quantize.signature import Array, Signature
from quantize.variants import as_served

Verdict = Literal["good", "outside-tolerance", "below-floor"]

RUNS: Final = 50
TIME_BOUND_S: Final = 2.0


class GoldenScore(Record, frozen=True, kw_only=True):
    """The score over the goldens.

    Attributes:
        metric: As the manifest names it; with ``-`` in front it is negated: more is better.
        value: Here.
        floor: Least that is accepted.
        passed: Whether it is reached.
    """

    metric: str
    value: float
    floor: float
    passed: bool


class Timing(Record, frozen=True, kw_only=True):
    """How fast the variant is here; for information.

    Attributes:
        p50_s: Median time of a run in seconds.
        p90_s: 90th percentile.
        runs: How many there were.
        rows: Rows of a run.
        threads: Threads of a run.
        budget_s: Longest median that the manifest allows; 0: it does not say.
    """

    p50_s: float
    p90_s: float
    runs: int
    rows: int
    threads: int
    budget_s: float


class Verification(Record, frozen=True, kw_only=True):
    """What a check of a bundle found.

    Attributes:
        name: The model's name.
        version: Its version.
        verdict: ``good``, or the worst that is wrong.
        problems: What is wrong, a sentence each; empty: nothing.
        warnings: What should be looked at, though it is no reason to refuse.
        variant: The variant that was run.
        variant_reason: Why that one.
        cpu: The CPU, for a person.
        onnxruntime: Version that ran it.
        files: Files whose digests were compared.
        outputs: Every comparison.
        score: ``None``: the manifest asks for none, or it cannot be computed here (a warning
            says so).
        timing: Times.
    """

    name: str
    version: int
    verdict: Verdict
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    variant: str
    variant_reason: str
    cpu: str
    onnxruntime: str
    files: int
    outputs: tuple[OutputCheck, ...]
    score: GoldenScore | None
    timing: Timing


def verify_bundle(
    path: Path, cpu: CpuFacts, *, variant: str = "", threads: int = 1
) -> Verification:
    """Check a bundle on this machine.

    Args:
        path: The bundle directory.
        cpu: This machine's.
        variant: Name of the variant to run; empty: the one for this CPU.
        threads: Threads of a run.

    Returns:
        What was found; ``verdict`` says whether the bundle is good here.

    Raises:
        BadInputError: There is no bundle at that place, its manifest cannot be read, or it has no
            such variant.
        VerificationError: A file is missing or is not the one the manifest names, no variant runs
            on this CPU, or the variant or a golden cannot be loaded.
    """
    bundle = _opened(path)
    manifest = bundle.manifest
    chosen, reason = _variant(manifest, variant, cpu)
    try:
        files = len(verify(bundle))
    except EdgeRuntimeError as error:
        raise VerificationError(error.message) from error
    options = as_served(chosen.session_options, cpu)
    try:
        with open_runner(path / chosen.file, threads=threads, options=options) as runner:
            goldens = _goldens(bundle, runner.signature)
            answers = answered(runner, [golden.feeds for golden in goldens])
            timing = _timing(runner, goldens, manifest.acceptance.latency_budget_s, threads)
            signature = runner.signature
    except StepFailedError as error:
        raise VerificationError(f"{chosen.name}: {error.message}") from error
    outputs = _compared(manifest, goldens, answers)
    score, unscored = _score(manifest, signature, goldens, answers)
    off = [each for each in outputs if not each.passed]
    problems = [each.sentence for each in off]
    if score is not None and not score.passed:
        problems.insert(
            0,
            f"{score.metric} over the goldens is {score.value:.6g}, below the floor of "
            f"{score.floor:.6g}",
        )
    below = score is not None and not score.passed
    return Verification(
        name=manifest.name,
        version=manifest.version,
        verdict="below-floor" if below else "outside-tolerance" if off else "good",
        problems=tuple(problems),
        warnings=(*unscored, *_warnings(manifest, goldens, timing)),
        variant=chosen.name,
        variant_reason=reason,
        cpu=cpu.description,
        onnxruntime=RUNTIME_VERSION,
        files=files,
        outputs=tuple(outputs),
        score=score,
        timing=timing,
    )


def summary(found: Verification) -> str:
    """Say what a check found, for a person; several lines, the verdict first."""
    lines = [
        f"{found.name} version {found.version}: "
        + {
            "good": "good here",
            "outside-tolerance": "NOT GOOD HERE: answers are outside the tolerances",
            "below-floor": "NOT GOOD HERE: the floor is missed",
        }[found.verdict],
        *(f"  problem: {problem}" for problem in found.problems),
        *(f"  warning: {warning}" for warning in found.warnings),
        f"  variant  {found.variant_reason}",
        f"  CPU      {found.cpu}; onnxruntime {found.onnxruntime}",
        f"  files    {found.files} with the right digests",
    ]
    passed = sum(each.passed for each in found.outputs)
    count = len({each.golden for each in found.outputs})
    lines.append(f"  goldens  {passed} of {len(found.outputs)} outputs of {count} files are close")
    if found.score:
        score = found.score
        lines.append(f"  score    {score.metric} {score.value:.6g}, floor {score.floor:.6g}")
    time = found.timing
    lines.append(
        f"  time     {time.p50_s * 1e3:.3f} ms median, {time.p90_s * 1e3:.3f} ms p90 "
        f"({time.runs} runs of {time.rows} rows, {time.threads} threads)"
    )
    return "\n".join(lines)


def _opened(path: Path) -> Bundle:
    if not (path / MANIFEST_FILE).is_file():
        raise BadInputError(
            f"{path} is not a bundle: it has no {MANIFEST_FILE}; name the folder that "
            "edge-quantize wrote (a search that missed the floor writes a report only)"
        )
    try:
        return bundle_from_directory(path)
    except ManifestError as error:
        raise BadInputError(error.message) from error
    except EdgeRuntimeError as error:
        raise VerificationError(error.message) from error


def _variant(manifest: Manifest, name: str, cpu: CpuFacts) -> tuple[Variant, str]:
    if not name:
        try:
            return choose_variant(manifest, cpu)
        except ManifestError as error:
            raise VerificationError(error.message) from error
    for variant in manifest.variants:
        if variant.name == name:
            return variant, f"{name}: asked for by name"
    names = ", ".join(variant.name for variant in manifest.variants)
    raise BadInputError(f"the bundle has no variant {name!r}; it has {names}")


def _goldens(bundle: Bundle, signature: Signature) -> list[Golden]:
    return [
        read(bundle.directory / file.path, signature, file.path)._replace(name=file.path)
        for file in bundle.manifest.acceptance.goldens
        if file.path.endswith(".npz")
    ]


def _compared(
    manifest: Manifest, goldens: Sequence[Golden], answers: Sequence[Mapping[str, Array]]
) -> list[OutputCheck]:
    """Compare outputs that have a tolerance: their own, or the one for all."""
    return [
        check
        for golden, outputs in zip(goldens, answers, strict=True)
        for check in check_outputs(golden, outputs, manifest)
    ]


def _score(
    manifest: Manifest,
    signature: Signature,
    goldens: Sequence[Golden],
    answers: Sequence[Mapping[str, Array]],
) -> tuple[GoldenScore | None, tuple[str, ...]]:
    asked = manifest.acceptance.metric
    if asked is None:
        return None, ()
    has_labels = any(golden.labels is not None for golden in goldens)
    found = metric_for(asked.name, signature, has_labels=has_labels)
    if found is None:
        return None, (f"the score {asked.name!r} cannot be computed here and was not checked",)
    metric, factor = found
    try:
        value = scored(metric, goldens, answers)
    except QuantizeError as error:
        # What is no number cannot be good; of files whose digests are right that is the model.
        raise VerificationError(f"the score {asked.name!r}: {error.message}") from error
    if value is None:
        return None, (f"no golden has what the score {asked.name!r} needs; it was not checked",)
    score = factor * value
    return (
        GoldenScore(
            metric=asked.name, value=score, floor=asked.floor, passed=bool(score >= asked.floor)
        ),
        (),
    )


def _warnings(manifest: Manifest, goldens: Sequence[Golden], timing: Timing) -> list[str]:
    warnings = []
    if not goldens:
        warnings.append("the bundle has no .npz goldens: nothing was compared")
    elif not manifest.acceptance.tolerances:
        warnings.append("the manifest has no tolerances: no output was compared")
    if 0 < timing.budget_s < timing.p50_s:
        warnings.append(
            f"a run takes {timing.p50_s * 1e3:.3f} ms here; the manifest's budget is "
            f"{timing.budget_s * 1e3:.3f} ms"
        )
    return warnings


def _timing(runner: Runner, goldens: Sequence[Golden], budget_s: float, threads: int) -> Timing:
    """Time runs of one row, or of as many as the model insists on."""
    if not goldens:
        return Timing(p50_s=0, p90_s=0, runs=0, rows=0, threads=threads, budget_s=budget_s)
    feeds = goldens[0].feeds
    varying = [tensor.name for tensor in runner.signature.inputs if tensor.shape[:1] == (None,)]
    if len(varying) == len(feeds) and len({len(array) for array in feeds.values()}) == 1:
        feeds = {name: array[:1] for name, array in feeds.items()}
    times: list[float] = []
    runner.run(feeds)
    began = perf_counter()
    while len(times) < RUNS and (not times or perf_counter() - began < TIME_BOUND_S):
        start = perf_counter()
        runner.run(feeds)
        times.append(perf_counter() - start)
    p50_s, p90_s = np.quantile(times, (0.5, 0.9))
    rows = next((len(array) for array in feeds.values() if array.ndim), 1)
    return Timing(
        p50_s=float(p50_s),
        p90_s=float(p90_s),
        runs=len(times),
        rows=rows,
        threads=threads,
        budget_s=budget_s,
    )
