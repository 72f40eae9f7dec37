"""One timer for every connection: it sleeps until the earliest deadline, or does not exist."""

import asyncio
from math import inf
from typing import Final, Protocol

NEVER: Final = inf


class Watched(Protocol):
    """Something with a deadline that may move."""

    deadline: float

    def timed_out(self) -> None:
        """Act on the passed deadline."""
        ...


class Timeouts:
    """Calls ``timed_out`` on what outlives its deadline, in the loop's seconds.

    Moving a deadline away is a plain attribute write: the timer looks again when it fires. Only
    a deadline before ``due`` needs ``watch``; it may be one that comes back from ``NEVER``. With
    nothing to watch nothing wakes the process.

    Attributes:
        due: When the timer fires, or fired just now; ``NEVER`` if there is none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: set[Watched] = set()
        self._timer: asyncio.Handle | None = None
        self.due = NEVER

    def watch(self, watched: Watched) -> None:
        """Heed a deadline that is new or came nearer."""
        self._watched.add(watched)
        if watched.deadline < self.due:
            self._arm(watched.deadline)

    def forget(self, watched: Watched) -> None:
        """Stop heeding it."""
        self._watched.discard(watched)
        if not self._watched and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.due = NEVER

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.due = due
        self._timer = self._loop.call_at(due, self._rung)

    def _rung(self) -> None:
        # uvloop's timers run before its reads, what is called soon too: after a stall of the
        # process what came in time would be late. The second call comes after the reads.
        self._timer = self._loop.call_soon(self._before_reads)

    def _before_reads(self) -> None:
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._timer = None
        self.due = NEVER
        now = self._loop.time()
        for watched in [each for each in self._watched if each.deadline <= now]:
            watched.timed_out()
        nearest = min((each.deadline for each in self._watched), default=NEVER)
        # timed_out may have armed the timer already.
        if nearest < self.due:
            self._arm(nearest)
