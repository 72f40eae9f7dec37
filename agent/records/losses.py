"""What never comes, in as few ranges as fit a message, and never counted wrong; pure.

Numbers are added in rising order for each run of the agent. Ranges that lie near each other are
joined when there are too many; the count of a range stays exact.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from agent.messages import GAPS_MAX, Loss

RANGES_MAX: Final = 4 * GAPS_MAX
"""Ranges that are kept while nobody can be told; runs of the agent beyond that lose theirs."""


class Range(NamedTuple):
    """Numbers of one run of the agent that are gone for one reason.

    Attributes:
        boot: Number of the run.
        first: The first number that is gone.
        last: The last one.
        lost: How many, at most ``last - first + 1``.
        reason: Why.
    """

    boot: int
    first: int
    last: int
    lost: int
    reason: Loss


class Losses:
    """Ranges of lost numbers.

    Args:
        ranges: As ``ranges`` gave them.

    Attributes:
        forgotten: How many numbers are no longer in any range, because there were too many.
    """

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._ranges = sorted(ranges)
        self.forgotten = 0

    def __bool__(self) -> bool:
        return bool(self._ranges)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Every range, the oldest first."""
        return tuple(self._ranges)

    def add(self, boot: int, seq: int, reason: Loss) -> None:
        """Note that a number never comes."""
        for index in range(len(self._ranges) - 1, -1, -1):
            found = self._ranges[index]
            if found.boot != boot:
                continue
            if found.reason is reason and found.last + 1 == seq:
                self._ranges[index] = found._replace(last=seq, lost=found.lost + 1)
                return
        self._ranges.append(Range(boot, seq, seq, 1, reason))
        self._ranges.sort()
        if len(self._ranges) > RANGES_MAX:
            self._join()

    def first(self, count: int) -> tuple[Range, ...]:
        """Give the oldest ranges, as many as fit a message."""
        while len(self._ranges) > count and self._join():
            pass
        return self.ranges[:count]

    def without(self, told: Iterable[Range]) -> "Losses":
        """Give the same but for what has been told."""
        gone = set(told)
        rest = Losses(each for each in self._ranges if each not in gone)
        rest.forgotten = self.forgotten
        return rest

    def _join(self) -> bool:
        """Join the two neighbours that lie nearest; where none can be joined, forget the oldest."""
        best: tuple[int, int, int] | None = None
        latest: dict[tuple[int, Loss], int] = {}
        for index, each in enumerate(self._ranges):
            before = latest.get((each.boot, each.reason))
            if before is not None:
                distance = each.first - self._ranges[before].last
                best = min(best or (distance, before, index), (distance, before, index))
            latest[each.boot, each.reason] = index
        if best is None:
            if len(self._ranges) > RANGES_MAX:
                self.forgotten += self._ranges.pop(0).lost
            return False
        _, before, index = best
        one, two = self._ranges[before], self._ranges.pop(index)
        self._ranges[before] = Range(
            one.boot,
            min(one.first, two.first),
            max(one.last, two.last),
            one.lost + two.lost,
            one.reason,
        )
        return True
