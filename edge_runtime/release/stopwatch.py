"""Times of runs on a CPU that others want, too."""

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple, TypeVar

_Result = TypeVar("_Result")


class Lap(NamedTuple):
    """The time of one run, in seconds.

    Attributes:
        wall_s: As it passed.
        cpu_s: What this process used of all CPUs.
    """

    wall_s: float
    cpu_s: float

    @property
    def own_s(self) -> float:
        """The time it would take undisturbed, or a little more.

        A run of one thread that never waits takes exactly its CPU time, however often others
        interrupted it. Several threads use more CPU time together than passes while nobody disturbs
        them, and then the clock is right. So neither is ever too low, and the lower one is nearer.
        """
        return min(self.wall_s, self.cpu_s)


def timed(work: Callable[[], _Result]) -> tuple[_Result, Lap]:
    """Do something that keeps this process as busy as it can be, and nothing beside it.

    Args:
        work: The run.
    """
    cpu_s, wall_s = process_time(), perf_counter()
    result = work()
    passed_s = perf_counter() - wall_s
    # A clock of coarse ticks says 0 for a short run; nothing takes no time.
    return result, Lap(passed_s, process_time() - cpu_s or passed_s)


def typical(laps: Sequence[Lap]) -> Lap:
    """Give the medians; 0 if there is none.

    Returns:
        ``cpu_s`` is the median of ``own_s``.
    """
    if not laps:
        return Lap(0.0, 0.0)
    return Lap(median(lap.wall_s for lap in laps), median(lap.own_s for lap in laps))
