"""The test of one variant, in the process of a trial: goldens, stability, time and memory."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from time import process_time
from typing import Final

import msgspec
import numpy as np

from edge_runtime.batching_probe import probe
from edge_runtime.bundle import Bundle
from edge_runtime.datatypes import BF16
from edge_runtime.errors import ArtifactError, EdgeRuntimeError
from edge_runtime.external_data import operators
from edge_runtime.goldens import Golden, check_outputs, read_goldens
from edge_runtime.loading import load_bundle
from edge_runtime.manifest import Acceptance, Manifest
from edge_runtime.release.compatibility import described
from edge_runtime.release.golden_score import score
from edge_runtime.release.memory_peak import MemoryPeak
from edge_runtime.release.stopwatch import Lap, timed, typical
from edge_runtime.release.trial_messages import Device, Subject, Tried, Try
from edge_runtime.release.variants import only_variant
from edge_runtime.routing import LoadedVersion
from edge_runtime.samples import Sample, samples, synthetic
from edge_runtime.settings import Batching
from edge_runtime.tensors import VARIABLE, Array, TensorSpec

Say = Callable[[str], None]
"""Takes what is being done, for whoever has to explain a death."""

_WARM_UP_RUNS: Final = 3  # of each sample; they are not timed
_PROBLEMS_MAX: Final = 8
_MS: Final = 1e3
_MIB: Final = 2**20


def load(subject: Subject, device: Device) -> LoadedVersion:
    """Load a version as the daemon would, without trying anything out.

    Args:
        subject: What to load.
        device: How.

    Raises:
        ArtifactError: As ``load_bundle``.
    """
    return load_bundle(
        only_variant(Bundle(subject.manifest, Path(subject.directory)), subject.variant),
        engine=msgspec.structs.replace(device.engine, warm_up_runs=0),
        batching=Batching(enabled=False),
        settings=subject.settings,
        providers=device.providers,
        cpu=device.cpu,
        cpus=device.cpus,
    )


def try_variant(order: Try, say: Say) -> Tried:
    """Find out whether a variant may be served on this device.

    Args:
        order: Which one, and how long to look.
        say: Told before everything that a model may not survive.

    Returns:
        What was found; a model that is at fault is a finding, too.
    """
    subject = order.subject
    peak = MemoryPeak()
    say("loading the model")
    try:
        with peak.measured():
            loaded = load(subject, order.device)
    except ArtifactError as error:
        return Tried(problems=(error.message,), is_loaded=False, cpu_s=process_time())
    test = _Test(order, loaded, peak, say)
    try:
        test.goldens()
        if not test.problems:
            test.repeat()
        if not test.problems:
            test.joined_runs()
    except ArtifactError as error:  # a golden that cannot be read
        test.problems.append(error.message)
    return test.result()


class _Test:
    """One variant that is loaded, and what is known of it so far."""

    def __init__(self, order: Try, loaded: LoadedVersion, peak: MemoryPeak, say: Say) -> None:
        self.problems: list[str] = []
        self._order = order
        self._loaded = loaded
        self._peak = peak
        self._say = say
        self._bundle = Bundle(order.subject.manifest, Path(order.subject.directory))
        self._notes: list[str] = []
        self._laps: list[Lap] = []
        self._golden_count = 0
        self._runs = 0

    @property
    def _manifest(self) -> Manifest:
        return self._bundle.manifest

    def goldens(self) -> None:
        """Compare the answers to the goldens with what they must be."""
        names = [*self._loaded.signature.outputs]
        scored: list[tuple[Golden, dict[str, Array]]] = []
        for golden in read_goldens(self._bundle.directory, self._manifest, self._loaded.signature):
            outputs = self._run(golden.name, golden.feeds, names)
            if outputs is None:
                continue
            self._golden_count += 1
            found = dict(zip(names, outputs, strict=True))
            checks = check_outputs(golden, found, self._manifest)
            self.problems += [check.sentence for check in checks if not check.passed]
            scored.append((golden._replace(feeds={}), found))
        if not self._golden_count and not self.problems:
            self._notes.append("there are no goldens: only made-up inputs were run")
        elif not self._manifest.acceptance.tolerances:
            self._notes.append("the manifest has no tolerances: goldens were run, not compared")
        metric = self._manifest.acceptance.metric
        if metric is not None and not self.problems:
            problem, note = score(metric, self._loaded.signature, scored)
            self.problems += [problem] if problem else []
            self._notes += [note] if note else []

    def repeat(self) -> None:
        """Run until it counts as stable, and measure."""
        order, names = self._order, [*self._loaded.signature.outputs]
        tried = samples(self._bundle, self._loaded.signature)
        tried = tuple(sample for sample in tried if self._warmed_up(sample, names))
        if not tried:
            self._notes.append("it could not be run on made-up inputs: nothing was measured")
            return
        began_s, laps = process_time(), 0
        with self._peak.measured():
            for sample in cycle(tried):
                shown = sample.golden or "made-up inputs"
                self._say(f"running {shown}, run {self._runs + 1}")
                try:
                    _, lap = timed(partial(self._loaded.session.run, names, sample.feeds))
                except EdgeRuntimeError as error:
                    self.problems.append(
                        f"fails on {shown} in run {self._runs + 1}: {error.message}"
                    )
                    return
                self._runs += 1
                laps += 1
                # Budgets are for the first golden: others may be of other sizes.
                if sample is tried[0]:
                    self._laps.append(lap)
                is_long = process_time() - began_s > order.runs_cpu_s
                if laps >= max(order.runs, len(tried)) or (is_long and laps >= len(tried)):
                    return

    def joined_runs(self) -> None:
        """Do what the daemon does with a version before it answers: share runs."""
        batching = self._order.device.batching
        settings, defaults = self._order.subject.settings, self._manifest.defaults
        signature = self._loaded.signature
        self._say("running made-up inputs of several rows, as the daemon does before it serves")
        verdict = probe(
            self._loaded.session.run,
            signature,
            partial(synthetic, signature),
            settings=batching,
            rows_max=settings.max_rows or defaults.batching.max_rows or batching.max_rows,
            operators=operators(self._bundle.directory / self._loaded.variant.file),
        )
        self._notes.append(
            f"requests {'may' if verdict.joins else 'do not'} share runs: {verdict.reason}"
        )

    def result(self) -> Tried:
        """Say what was found."""
        lap = typical(self._laps)
        if not self.problems:
            self.problems += over_budget(
                self._manifest.acceptance, lap.cpu_s, self._peak.size_bytes
            )
        more = len(self.problems) - _PROBLEMS_MAX
        inputs, outputs = described(self._loaded.signature)
        return Tried(
            digest=self._loaded.digest,
            problems=(
                *self.problems[:_PROBLEMS_MAX],
                *([f"{more} more of this kind"] if more > 0 else ()),
            ),
            notes=tuple(self._notes),
            latency_s=lap.cpu_s,
            wall_s=lap.wall_s,
            memory_bytes=self._peak.size_bytes,
            goldens=self._golden_count,
            runs=self._runs,
            cpu_s=process_time(),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
        )

    def _run(
        self, shown: str, feeds: Mapping[str, Array], names: Sequence[str]
    ) -> list[Array] | None:
        """Run a golden; what is wrong becomes a problem."""
        self._say(f"running {shown}")
        try:
            with self._peak.measured():
                outputs = self._loaded.session.run(names, feeds)
        except EdgeRuntimeError as error:
            self.problems.append(f"fails on {shown}: {error.message}")
            return None
        self._runs += 1
        self._look(shown, outputs, is_golden=True)
        return outputs

    def _warmed_up(self, sample: Sample, names: Sequence[str]) -> bool:
        """Run it for the first time: that is slow, and made-up inputs may be nonsense."""
        shown = sample.golden or "made-up inputs"
        outputs: list[Array] = []
        for _ in range(_WARM_UP_RUNS):
            self._say(f"running {shown}, run {self._runs + 1}")
            try:
                with self._peak.measured():
                    outputs = self._loaded.session.run(names, sample.feeds)
            except EdgeRuntimeError as error:
                if sample.golden:
                    self.problems.append(f"fails on one row of {shown}: {error.message}")
                else:
                    self._notes.append(f"fails on made-up inputs: {error.message}")
                return False
            self._runs += 1
        self._look(shown, outputs, is_golden=bool(sample.golden))
        return True

    def _look(self, shown: str, outputs: Sequence[Array], *, is_golden: bool) -> None:
        """Look at outputs for themselves, without others to compare them with."""
        specs = tuple(self._loaded.signature.outputs.values())
        for spec, array in zip(specs, outputs, strict=True):
            problem = unlike(spec, array)
            if problem and problem not in self.problems:
                self.problems.append(problem)
            if not is_golden and _is_bad(spec, array):
                # A model may mean it: whoever made the inputs up does not know.
                note = f"output {spec.name!r} is not finite on {shown}"
                self._notes += [note] if note not in self._notes else []


def unlike(spec: TensorSpec, array: Array) -> str:
    """Say how an output differs from what the model declares; empty: it does not.

    Args:
        spec: As the model and its manifest declare it.
        array: As the model gave it.
    """
    is_same = array.ndim == len(spec.shape) and all(
        size in (declared, VARIABLE) or declared == VARIABLE
        for size, declared in zip(array.shape, spec.shape, strict=True)
    )
    if is_same:
        return ""
    return (
        f"output {spec.name!r} has shape {list(array.shape)}; declared is {list(spec.shape)} "
        "(-1: any size)"
    )


def over_budget(acceptance: Acceptance, latency_s: float, memory_bytes: int) -> list[str]:
    """Compare with the manifest's budgets; what was not measured is not over them.

    Args:
        acceptance: Has the budgets.
        latency_s: Median time of one run.
        memory_bytes: Memory that it added.
    """
    found = []
    if 0 < acceptance.latency_budget_s < latency_s:
        found.append(
            f"a run takes {latency_s * _MS:.3g} ms, the budget is "
            f"{acceptance.latency_budget_s * _MS:.3g} ms"
        )
    if 0 < acceptance.memory_budget_bytes < memory_bytes:
        found.append(
            f"it adds {memory_bytes / _MIB:.1f} MiB of memory, the budget is "
            f"{acceptance.memory_budget_bytes / _MIB:.1f} MiB"
        )
    return found


def _is_bad(spec: TensorSpec, array: Array) -> bool:
    if spec.datatype is BF16:
        array = (array.astype("<u4") << np.uint32(16)).view("<f4")
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())
