"""Makes candidates and finds out what they are worth; what is known already is not done again."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from quantize import evaluation, gate
from quantize.calibration import Calibrator
from quantize.data.dataset import Dataset
from quantize.errors import StepFailedError
from quantize.execution import open_runner
from quantize.memory import peak_bytes
from quantize.model.operators import is_quantized, nodes
from quantize.model.storage import load_graph, stored_bytes
from quantize.portability import is_portable
from quantize.preparing import ROWS, Prepared
from quantize.progress import Progress
from quantize.quantizers import build
from quantize.records import BASELINE, Recipe, Score, Trial
from quantize.signature import Array
from quantize.workspace import Workspace

FLOAT: Final = Recipe(name=BASELINE, kind="float32", why="what everything is compared with")

_KIND: Final = "trial"


@dataclass(frozen=True, eq=False)
class Base:
    """A float model that candidates are made from.

    Attributes:
        name: In the names of its candidates; empty: the optimised model itself.
        model: Its file.
        calibrator: Finds its ranges.
    """

    name: str
    model: Path
    calibrator: Calibrator


class Trials:
    """The candidates of one search.

    Args:
        prepared: What the search starts from.
        work: Where files and what is known go.
        cache: Folder of calibration results.
        progress: Is told of long work.
        began: Time of ``clock`` that the time budget counts from; ``None``: now.
        clock: Gives seconds, monotonic.

    Attributes:
        prepared: What the search starts from.
    """

    def __init__(
        self,
        prepared: Prepared,
        work: Workspace,
        cache: Path,
        progress: Progress,
        *,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.prepared = prepared
        self._work = work
        self._cache = cache
        self._progress = progress
        self._clock = clock
        self._ends = (clock() if began is None else began) + prepared.settings.time_budget_s
        self._trials: dict[str, Trial] = {}
        self.was_short = False

    @cached_property
    def base(self) -> Base:
        """The optimised float model."""
        return self.based_on("", self.prepared.model)

    def based_on(self, name: str, model: Path) -> Base:
        """Make candidates from another float model too.

        Args:
            name: In the names of its candidates.
            model: Its file, in the workspace.

        Raises:
            StepFailedError: The file cannot be read.
        """
        return Base(
            name,
            model,
            Calibrator(
                model,
                self.prepared.splits.calibration,
                self._cache,
                threads=self.prepared.settings.threads,
                progress=self._progress,
            ),
        )

    @property
    def out_of_time(self) -> bool:
        """Whether no new candidate may be begun; remembered in ``was_short``."""
        self.was_short = self.was_short or self._clock() >= self._ends
        return self.was_short

    @property
    def tried(self) -> tuple[Trial, ...]:
        """Every candidate as it is known now, in the order of the first try."""
        return tuple(trial for trial in self._trials.values() if trial.name != BASELINE)

    def file(self, trial: Trial) -> Path:
        """Give the path of a candidate's file."""
        return self._work.root / trial.file

    def folder(self, name: str) -> Path:
        """Give a folder of the workspace; it is made.

        Args:
            name: Of the folder.
        """
        return self._work.path(name, "here").parent

    def baseline(self) -> Trial:
        """Measure the optimised float model."""
        trial = self.judge(self.screen_float("", self.prepared.model))
        self._trials[BASELINE] = trial
        return trial

    def screen_float(self, name: str, model: Path, why: str = "") -> Trial:
        """Score a float model on the search set.

        Args:
            name: Empty: the optimised model.
            model: Its file, in the workspace.
            why: Why it is worth a try.
        """
        recipe = FLOAT if not name else Recipe(name=name, kind="float32", why=why)
        return self._screened(recipe.name, recipe, (), model, lambda _: None)

    def screen(
        self, recipe: Recipe, exclude: Iterable[str] = (), base: Base | None = None
    ) -> Trial:
        """Make a candidate and score it on the search set.

        Args:
            recipe: How it is made.
            exclude: Nodes that stay in float, beside those that the settings name.
            base: What it is made from; ``None``: the optimised float model.

        Returns:
            The trial; its status is ``failed`` where it cannot be made, loaded or run.
        """
        base = base or self.base
        left_out = tuple(sorted({*exclude, *self.prepared.settings.exclude}))
        name = _name(recipe, left_out if exclude else (), base)

        def make(file: Path) -> None:
            ranges = base.calibrator.ranges(recipe) if recipe.kind == "static" else None
            build(recipe, base.model, file, ranges=ranges, exclude=left_out)
            if recipe.kind != "float16" and not _has_integers(file):
                file.unlink()
                raise StepFailedError("no layer is left in integers: it is the float model again")

        file = self._work.path("models", f"{sha256(name.encode()).hexdigest()[:16]}.onnx")
        return self._screened(name, recipe, left_out, file, make)

    def timed(self, trial: Trial) -> Trial:
        """Measure a candidate's latency, where this CPU is of the target."""
        trial = self._trials.get(trial.name, trial)
        if trial.latency is not None or trial.status == "failed" or not self.prepared.is_measurable:
            return trial
        reference = self.prepared.model
        if trial.name == BASELINE:
            reference = self.prepared.source.path
        return self._measured(trial, reference, 0)

    def timed_again(self, trial: Trial) -> Trial:
        """Measure a candidate's latency anew, and forget the first time.

        Of many that were measured, the one that seems the fastest was lucky, too.

        Args:
            trial: A candidate; one that was never measured stays as it is.
        """
        if trial.latency is None or trial.status == "failed":
            return trial
        return self._measured(trial, self.prepared.model, 1)

    def _measured(self, trial: Trial, reference: Path, time: int) -> Trial:
        try:
            latency = self.prepared.compare(self.file(trial), reference, time=time)
        except StepFailedError as error:
            return self._keep(trial, status="failed", reason=error.message)
        return self._keep(trial, latency=latency)

    def judge(self, trial: Trial, baseline: Trial | None = None) -> Trial:
        """Measure everything that is left, on the held-out set too, and decide.

        Args:
            trial: Screened.
            baseline: The float model, judged; ``None``: this is it.
        """
        trial = self.timed(trial)
        prepared, settings = self.prepared, self.prepared.settings
        if trial.status != "failed" and trial.held_out is None:
            try:
                score = self._score(
                    trial, prepared.splits.held_out, prepared.held_out_reference, is_last=True
                )
                memory = peak_bytes(self.file(trial), prepared.feeds[0], threads=settings.threads)
            except StepFailedError as error:
                trial = self._keep(trial, status="failed", reason=error.message)
            else:
                trial = self._keep(trial, status="measured", held_out=score, memory_bytes=memory)
        if baseline is None:
            return trial
        decision = gate.decide(
            trial,
            floor=settings.floor,
            goal=settings.goal,
            margin=settings.margin,
            baseline=baseline,
            confidence=settings.confidence,
            measurable=prepared.is_measurable,
        )
        return self._keep(trial, decision=decision)

    def reject(self, trial: Trial, reason: str) -> Trial:
        """Put a candidate aside without looking at the held-out set."""
        return self._keep(trial, status="rejected", reason=reason)

    def _screened(
        self,
        name: str,
        recipe: Recipe,
        exclude: tuple[str, ...],
        file: Path,
        make: Callable[[Path], None],
    ) -> Trial:
        known = self._trials.get(name) or self._work.recall(_KIND, name, Trial)
        if known is not None and (known.status == "failed" or self.file(known).is_file()):
            self._trials[name] = known
            return known
        begun = self._clock()
        trial = Trial(
            name=name,
            recipe=recipe,
            excluded=exclude,
            status="screened",
            file=str(file.relative_to(self._work.root)),
            batchable=recipe.kind != "dynamic",
        )
        try:
            make(file)
            prepared = self.prepared
            score = self._score(trial, prepared.splits.search, prepared.search_reference)
            trial = msgspec.structs.replace(
                trial,
                search=score,
                size_bytes=stored_bytes(file),
                portable=is_portable(file).portable,
            )
        except StepFailedError as error:
            trial = msgspec.structs.replace(trial, status="failed", reason=error.message, file="")
        return self._keep(trial, seconds=self._clock() - begun)

    def _score(
        self, trial: Trial, data: Dataset, reference: Mapping[str, Array], *, is_last: bool = False
    ) -> Score:
        prepared, settings = self.prepared, self.prepared.settings
        with open_runner(self.file(trial), threads=settings.threads) as runner:
            names = prepared.metric.outputs
            rows = evaluation.rows_that_work(runner, data, ROWS, names) if trial.batchable else 1
            outputs = evaluation.outputs_of(
                runner,
                data,
                rows,
                names,
                progress=self._progress,
                text=f"{'deciding on' if is_last else 'trying'} {trial.name}",
            )
        return evaluation.score(
            prepared.metric,
            outputs,
            reference,
            data.labels,
            confidence=settings.confidence if is_last else None,
            floor=settings.floor,
        )

    def _keep(self, trial: Trial, **found: object) -> Trial:
        trial = msgspec.structs.replace(trial, **found)
        self._trials[trial.name] = trial
        self._work.note(_KIND, trial.name, trial)
        return trial


def _has_integers(file: Path) -> bool:
    return any(is_quantized(node.op_type) for node in nodes(load_graph(file)))


def _name(recipe: Recipe, exclude: tuple[str, ...], base: Base) -> str:
    """Name a candidate by all that it is made of."""
    name = f"{base.name}-{recipe.name}" if base.name else recipe.name
    if exclude:
        which = sha256("\n".join(exclude).encode()).hexdigest()[:4]
        name += f"-without-{len(exclude)}-{which}"
    return name
