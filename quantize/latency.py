"""Time a candidate against the float model on this CPU, in turns, so that noise falls on both."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_runtime.hardware import cpu_facts
from quantize.confidence import ratio_interval
from quantize.errors import BadInputError
from quantize.execution import open_runner
from quantize.records import Latency
from quantize.signature import Array

Feeds = Mapping[str, Array]
Run = Callable[[int], object]
Clock = Callable[[], float]

SECONDS_MIN: Final = 0.3
"""Least time that is measured, however fast the models are."""
SECONDS_MAX: Final = 60.0
"""Time after which a measurement ends, even if it has fewer runs than were asked for."""
PAIRS_MIN: Final = 10
"""Turns of each model that are measured however slow the models are."""

_TURN_SECONDS: Final = 0.002
"""A model that is faster runs several times in a turn: caches are then its own, as in service."""
_TURN_RUNS_MAX: Final = 32
_WARM_UP_RUNS: Final = 3
_WARM_UP_SECONDS: Final = 0.05
_NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class Times:
    """What was measured, in seconds.

    Attributes:
        candidate: Every run, ``[turns, runs of a turn]``, in order.
        reference: The float model's turns; each is next to the candidate's of the same place.
    """

    candidate: npt.NDArray[np.float64]
    reference: npt.NDArray[np.float64]


@dataclass
class _Turns:
    """One model's turns so far."""

    run: Run
    clock: Clock
    times: list[list[float]] = field(default_factory=list)
    done: int = 0

    def take(self, runs: int) -> None:
        turn = []
        for _ in range(runs):
            started = self.clock()
            self.run(self.done)
            turn.append(self.clock() - started)
            self.done += 1
        self.times.append(turn)


def compare(
    candidate: Path,
    reference: Path,
    feeds: Sequence[Feeds],
    *,
    threads: int,
    runs: int,
    seed: int,
    rows: int = 1,
    options: Mapping[str, str] = _NO_OPTIONS,
) -> Latency:
    """Measure two models, both loaded, turn by turn.

    Args:
        candidate: Model file.
        reference: The float model's file.
        feeds: Inputs of runs, taken one after the other, from the start again after the last; each
            has ``rows`` rows.
        threads: Threads of one run.
        runs: Least runs of each model; more where ``SECONDS_MIN`` has not passed by then.
        seed: Draws which model goes first in each pair, and the resamples of the interval.
        rows: Of one run, for the record.
        options: Session configuration entries of the candidate.

    Raises:
        StepFailedError: A model cannot be loaded or fails.
        BadInputError: ``feeds`` is empty.
    """
    if not feeds:
        raise BadInputError("no sample to measure latency with; give at least one")
    with (
        open_runner(candidate, threads=threads, options=options) as mine,
        open_runner(reference, threads=threads) as theirs,
    ):
        times = in_turns(
            lambda place: mine.run(feeds[place % len(feeds)]),
            lambda place: theirs.run(feeds[place % len(feeds)]),
            runs=runs,
            seed=seed,
        )
    return summary(times, threads=threads, rows=rows, seed=seed, cpu=cpu_facts().description)


def in_turns(
    candidate: Run, reference: Run, *, runs: int, seed: int, clock: Clock = time.perf_counter
) -> Times:
    """Run two models in pairs of turns; which goes first in a pair is drawn.

    Args:
        candidate: Runs it once; given how many runs there were before.
        reference: The same of the float model.
        runs: Least runs of each.
        seed: Draws the order.
        clock: Gives seconds.
    """
    mine, theirs = _Turns(candidate, clock), _Turns(reference, clock)
    slowest = max(_warm_up(mine), _warm_up(theirs))
    turn = min(_TURN_RUNS_MAX, max(1, math.ceil(_TURN_SECONDS / max(slowest, 1e-9))))
    pairs = max(PAIRS_MIN, math.ceil(runs / turn))
    first = np.random.default_rng(seed)
    started = clock()
    while True:
        order = (mine, theirs) if first.random() < 0.5 else (theirs, mine)  # noqa: PLR2004 - a coin
        for model in order:
            model.take(turn)
        done, passed = len(mine.times), clock() - started
        if done >= PAIRS_MIN and (
            passed >= SECONDS_MAX or (done >= pairs and passed >= SECONDS_MIN)
        ):
            return Times(np.array(mine.times), np.array(theirs.times))


def summary(times: Times, *, threads: int, rows: int, seed: int, cpu: str) -> Latency:
    """Put what was measured into numbers.

    A turn counts as the median of its runs, a model's time as the median of its turns. The ratio
    is the median of the pairs' own: a busy spell falls on both turns of a pair, and the medians
    of the two models may lie in different spells.

    Args:
        times: Of both models.
        threads: Of one run.
        rows: Of one run.
        seed: Draws the resamples of the interval.
        cpu: Where it was measured.
    """
    mine, theirs = (np.median(each, axis=1) for each in (times.candidate, times.reference))
    low, high = ratio_interval(mine, theirs, seed=seed)
    p50, reference_p50 = float(np.median(mine)), float(np.median(theirs))
    return Latency(
        p50_s=p50,
        p90_s=float(np.quantile(times.candidate, 0.9)),
        reference_p50_s=reference_p50,
        reference_p90_s=float(np.quantile(times.reference, 0.9)),
        ratio=float(np.median(mine / theirs)),
        ratio_low=low,
        ratio_high=high,
        runs=times.candidate.size,
        threads=threads,
        rows=rows,
        cpu=cpu,
    )


def _warm_up(model: _Turns) -> float:
    """Run until caches and memory are as they stay; give the median time of a run."""
    started = model.clock()
    while model.done < _WARM_UP_RUNS or model.clock() - started < _WARM_UP_SECONDS:
        model.take(1)
    typical = float(np.median(model.times[1:]))
    model.times, model.done = [], 0
    return typical
