"""The order in which candidates are tried, and which of them is shipped.

Recipes first; then, for each family of recipes that misses the floor, repairs and layers left in
float; then layers that int8 makes slower. What is best in the goal is held against the held-out
set, until something is accepted.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from quantize.errors import StepFailedError
from quantize.groups import Group, groups_of
from quantize.probing import group_seconds, node_times
from quantize.pruning_trials import prune
from quantize.recipes import facts_of, ladder, safe
from quantize.records import Recipe, Sensitivity, Trial
from quantize.recovery import Cost, recover_accuracy, recover_speed, repairs
from quantize.sensitivity import rank
from quantize.trials import Trials

LOOKS_MAX: Final = 5
"""Candidates that are held against the held-out set: each look costs a little of its meaning."""
RANKED_ON: Final = 16
"""Samples that layers are compared on."""
RANKED_LATE: Final = 4
"""The same once time is up."""
FINALISTS: Final = 3
"""Candidates that are timed once more before one of them is taken."""
TIMED_LATE: Final = 3
"""Candidates whose latency is measured although time is up, the recipes' first ones."""
FASTEST: Final = 2
"""Families of recipes whose slow layers are looked for, in the fastest of each."""
_SAME_SIZE: Final = 0.02  # share by which sizes differ that count as one


class Found(NamedTuple):
    """What a search came to.

    Attributes:
        baseline: The optimised float model, measured.
        chosen: What is shipped; ``None``: nothing was accepted.
        portable: What is shipped for CPUs that ``chosen`` is not right on; ``None``: the float
            model is.
        sensitivity: Groups of nodes, the worst first; empty: nothing could be compared.
        notes: What a reader must know beside that.
    """

    baseline: Trial
    chosen: Trial | None
    portable: Trial | None
    sensitivity: tuple[Sensitivity, ...]
    notes: tuple[str, ...]


class Search:
    """One search.

    Args:
        trials: Makes and measures candidates.
    """

    def __init__(self, trials: Trials) -> None:
        self._trials = trials
        self._prepared = trials.prepared
        self._settings = trials.prepared.settings
        self._groups: tuple[Group, ...] = groups_of(trials.prepared.model)
        self._float_seconds: tuple[float, ...] = ()
        self._sensitivity: dict[str, tuple[Sensitivity, ...]] = {}
        self._notes: list[str] = []
        self._looks = 0

    def run(self) -> Found:
        """Search until everything that is worth it was tried, or time is up."""
        baseline = self._trials.baseline()
        recipes = self._settings.recipes or ladder(
            self._prepared.target, facts_of(self._prepared.model), self._settings.goal
        )
        if not recipes:
            self._notes.append("Nothing of the model can be quantised: no layer has weights.")
        self._screen(recipes)
        self._recover_accuracy()
        self._recover_speed()
        if self._settings.prune and not self._trials.out_of_time:
            promising = sorted(self._passing(), key=self._promise)
            self._notes += prune(self._trials, promising, self._comfortable)
        chosen = self._first_accepted(self._finals(self._eligible()), baseline)
        portable = self._portable(chosen, baseline)
        sensitivity = self._layers(chosen)
        if self._looks > 1:
            self._notes.append(
                f"{self._looks} candidates were held against the held-out samples: the more looks, "
                "the less a bound means."
            )
        return Found(baseline, chosen, portable, sensitivity, tuple(self._notes))

    # -- candidates ------------------------------------------------------------------------------

    def _screen(self, recipes: Sequence[Recipe]) -> None:
        for place, recipe in enumerate(recipes):
            # The first one is tried in any case: an answer needs something to speak of.
            if place and self._trials.out_of_time:
                return
            self._trials.screen(recipe)

    def _recover_accuracy(self) -> None:
        """For each family of recipes of which none is good enough, mend the best one."""
        families: dict[tuple[object, ...], list[Trial]] = {}
        for trial in self._trials.tried:
            if trial.search is not None and trial.recipe.kind in {"static", "dynamic"}:
                families.setdefault(_family(trial.recipe), []).append(trial)
        for members in families.values():
            if self._trials.out_of_time:
                return
            if not any(self._comfortable(trial) for trial in members):
                self._mend(max(members, key=_kept))

    def _mend(self, trial: Trial) -> None:
        """Bring one candidate's accuracy back: cheap repairs, then layers left in float."""
        best = trial
        for repair in repairs(trial.recipe, self._groups):
            if self._trials.out_of_time:
                return
            tried = self._trials.screen(repair.recipe, repair.exclude)
            if tried.search is not None and _kept(tried) > _kept(best):
                best = tried
            if self._comfortable(tried):
                return
        ranked = self._ranked(best)
        kept = set(best.excluded)
        worst = [each.nodes for each in ranked if not kept.issuperset(each.nodes)]
        recover_accuracy(
            worst,
            lambda nodes: self._trials.screen(best.recipe, (*kept, *nodes)),
            self._comfortable,
            out_of_time=lambda: self._trials.out_of_time,
        )

    def _recover_speed(self) -> None:
        """Leave layers in float that int8 makes slower, in the fastest candidates."""
        if self._settings.goal != "latency" or not self._prepared.is_measurable:
            return
        timed = []
        for trial in self._passing():
            if self._trials.out_of_time:
                return
            timed.append(self._trials.timed(trial))
        static = [t for t in timed if t.recipe.kind == "static" and t.latency is not None]
        fastest: dict[tuple[object, ...], Trial] = {}
        for trial in sorted(static, key=_pace):
            fastest.setdefault(_family(trial.recipe), trial)
        for trial in [*fastest.values()][:FASTEST]:
            if self._trials.out_of_time:
                return
            self._speed_up(trial)

    def _speed_up(self, trial: Trial) -> None:
        try:
            costs = self._costs(trial)
        except StepFailedError as error:
            self._notes.append(f"{trial.name} could not be profiled: {error.message}")
            return

        def measure(exclude: tuple[str, ...]) -> float | None:
            tried = self._trials.screen(trial.recipe, exclude)
            if not self._meets_floor(tried):
                return None
            return _pace(self._trials.timed(tried))

        recover_speed(
            costs,
            measure,
            start=_pace(trial),
            keep=trial.excluded,
            out_of_time=lambda: self._trials.out_of_time,
        )

    def _costs(self, trial: Trial) -> list[Cost]:
        feeds, threads = self._prepared.feeds[0], self._settings.threads
        if not self._float_seconds:
            times = node_times(self._prepared.model, feeds, threads=threads)
            self._float_seconds = group_seconds(times, self._groups)
        times = node_times(self._trials.file(trial), feeds, threads=threads)
        seconds = group_seconds(times, self._groups)
        return [
            Cost(group.nodes, group.operator, in_float, quantised)
            for group, in_float, quantised in zip(
                self._groups, self._float_seconds, seconds, strict=True
            )
        ]

    # -- the decision ----------------------------------------------------------------------------

    def _eligible(self) -> list[Trial]:
        """Give the candidates that may be shipped to the target, the best in the goal first."""
        eligible, timed_late = [], 0
        for trial in self._passing():
            if self._prepared.target.saturates and not trial.portable:
                self._trials.reject(
                    trial, "its 16-bit sums can be cut off on the target's CPUs, which lack VNNI"
                )
                continue
            # Behind those, whoever promises something is timed when its turn comes.
            late = self._trials.out_of_time and trial.latency is None
            if not late or (self._settings.goal == "latency" and timed_late < TIMED_LATE):
                timed_late += late
                trial = self._trials.timed(trial)  # noqa: PLW2901 - the same one, with more known
            eligible.append(trial)
        return sorted(eligible, key=self._promise)

    def _finals(self, eligible: Sequence[Trial]) -> list[Trial]:
        """Time the first ones again: the best of many measurements was lucky, too."""
        if self._settings.goal != "latency" or len(eligible) == 1:
            return [*eligible]
        again = [
            trial if self._trials.out_of_time else self._trials.timed_again(trial)
            for trial in eligible[:FINALISTS]
        ]
        return [*sorted(again, key=self._promise), *eligible[FINALISTS:]]

    def _first_accepted(self, candidates: Sequence[Trial], baseline: Trial) -> Trial | None:
        """Hold candidates against the held-out set, in order, until one is accepted."""
        without_gain = 0
        for trial in candidates:
            if self._looks >= LOOKS_MAX or without_gain > 1:
                return None
            if trial.held_out is None:
                self._looks += 1
            judged = self._trials.judge(trial, baseline)
            if judged.decision is None:
                continue
            if judged.decision.accepted:
                return judged
            # Behind it are those that promise less in the goal; one more, as times are noisy.
            without_gain += judged.decision.floor_met
        return None

    def _portable(self, chosen: Trial | None, baseline: Trial) -> Trial | None:
        """Find what is shipped for CPUs that the chosen one is not right on."""
        if chosen is None or chosen.portable or self._prepared.target.arch == "aarch64":
            return None
        twin = safe(chosen.recipe)
        if twin != chosen.recipe:
            self._trials.screen(twin, chosen.excluded)
        candidates = [
            trial
            for trial in self._eligible()
            if trial.portable and not (trial.decision and not trial.decision.accepted)
        ]
        self._looks = min(self._looks, LOOKS_MAX - 2)
        found = self._first_accepted(candidates, baseline)
        if found is None:
            self._notes.append(
                "No int8 variant that is right on x86 CPUs without VNNI was accepted; the "
                "optimised float model is shipped for them."
            )
        return found

    # -- layers ----------------------------------------------------------------------------------

    def _layers(self, chosen: Trial | None) -> tuple[Sensitivity, ...]:
        """Rank the layers of the chosen candidate, or of the one that kept most."""
        static = [t for t in self._trials.tried if t.recipe.kind == "static" and t.search]
        subject = chosen if chosen is not None and chosen.recipe.kind == "static" else None
        if subject is None and static:
            subject = max(static, key=_kept)
        return self._ranked(subject) if subject is not None else ()

    def _ranked(self, trial: Trial) -> tuple[Sensitivity, ...]:
        found = self._sensitivity.get(trial.name)
        if found is None:
            data = self._prepared.splits.search
            samples = RANKED_LATE if self._trials.out_of_time else RANKED_ON
            try:
                found = rank(
                    self._prepared.model,
                    self._trials.file(trial),
                    self._groups,
                    data.take(range(min(data.samples, samples))),
                    seconds=self._seconds(),
                    excluded=trial.excluded,
                    threads=self._settings.threads,
                )
            except StepFailedError as error:
                self._notes.append(f"The layers of {trial.name} were not ranked: {error.message}")
                found = ()
            self._sensitivity[trial.name] = found
        return found

    def _seconds(self) -> tuple[float, ...]:
        """Give the time of each group in float; nothing where it cannot be measured."""
        if not self._float_seconds:
            feeds, threads = self._prepared.feeds[0], self._settings.threads
            times = node_times(self._prepared.model, feeds, threads=threads)
            self._float_seconds = group_seconds(times, self._groups)
        return self._float_seconds

    def _promise(self, trial: Trial) -> tuple[float, ...]:
        """Order candidates by what is known before the held-out set is looked at."""
        pace, size, loss = _pace(trial), float(trial.size_bytes), -_kept(trial)
        if self._settings.goal == "latency":
            return (pace, size, loss)
        # Of about one size, one that is right everywhere: it needs no second model beside it.
        near = round(math.log(max(size, 1.0)) / _SAME_SIZE)
        return (near, not trial.portable, loss, size, pace)

    # -- what counts as good ---------------------------------------------------------------------

    def _passing(self) -> list[Trial]:
        return [trial for trial in self._trials.tried if self._meets_floor(trial)]

    def _meets_floor(self, trial: Trial) -> bool:
        return trial.status != "failed" and _kept(trial) >= self._settings.floor

    def _comfortable(self, trial: Trial) -> bool:
        """Whether a candidate has half of what it may lose in hand: the bound needs some."""
        floor = self._settings.floor
        return trial.status != "failed" and _kept(trial) >= (1 + floor) / 2


def _family(recipe: Recipe) -> tuple[object, ...]:
    return recipe.kind, recipe.activation, recipe.weight, recipe.reduce_range


def _kept(trial: Trial) -> float:
    return trial.search.ratio if trial.search is not None else float("-inf")


def _pace(trial: Trial) -> float:
    return trial.latency.ratio if trial.latency is not None else float("inf")
