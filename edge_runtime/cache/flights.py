"""Single flight: while a question is being answered, equal ones wait for that answer.

If the first one's run fails, or its client leaves, the others do not fail with it: the next one
runs. Nobody waits behind somebody who is less urgent, nor longer than its own timeout.
"""

import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Final, NamedTuple, Protocol

from edge_runtime.cache.entry import Entry

_log = logging.getLogger(__name__)

FLIGHTS_MAX: Final = 1024
WAITERS_MAX: Final = 256
_NS: Final = 1e9


class Timer(Protocol):
    """Something that will be called."""

    def cancel(self) -> None:
        """Leave it."""
        ...


Later = Callable[[float, Callable[[], None]], Timer]


class Waiter(NamedTuple):
    """Somebody who waits for an answer.

    Attributes:
        urgency: Smaller is more urgent.
        answer: Called with the answer.
        run: Called instead when it is this one's turn to compute it.
        deadline_ns: When it waits no longer, in monotonic nanoseconds; 0: never.
        expired: Called then, and neither of the others.
    """

    urgency: int
    answer: Callable[[Entry], None]
    run: Callable[[], None]
    deadline_ns: int = 0
    expired: Callable[[], None] = lambda: None


class Flight:
    """One question that is being answered.

    Attributes:
        urgency: Of who answers it; smaller is more urgent.
        waiters: Who waits, in the order they came.
        timers: Of those who do not wait for ever.
    """

    __slots__ = ("_is_passing", "_passes_on", "timers", "urgency", "waiters")

    def __init__(self, urgency: int) -> None:
        self.urgency = urgency
        self.waiters: list[Waiter] = []
        self.timers: dict[Waiter, Timer] = {}
        self._is_passing = False
        self._passes_on = False

    def pass_on(self) -> bool:
        """Let the next one run, because the last one failed; whether anybody does.

        A run can fail at once, and the next one's too: so this is a loop and calls itself once.
        """
        self._passes_on = True
        if self._is_passing:
            return True
        self._is_passing = True
        while self._passes_on and self.waiters:
            self._passes_on = False
            waiter = min(self.waiters, key=_urgency)  # the first of the most urgent
            self.take_out(waiter)
            self.urgency = waiter.urgency
            try:
                waiter.run()
            except Exception:  # noqa: BLE001 - the others behind it must not suffer
                _log.exception("a run failed to begin in a way nobody foresaw")
                self._passes_on = True
        self._is_passing = False
        return not self._passes_on

    def take_out(self, waiter: Waiter) -> None:
        """Let somebody wait no longer."""
        self.waiters.remove(waiter)
        timer = self.timers.pop(waiter, None)
        if timer is not None:
            timer.cancel()


class Flights:
    """Every question that is being answered, by key.

    Args:
        later: Calls something after some seconds; without it nobody's time runs out.
    """

    def __init__(self, later: Later | None = None) -> None:
        self._later = later
        self._flights: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, key: bytes, waiter: Waiter) -> bool:
        """Wait for an answer that is on its way; whether there is one worth waiting for."""
        flight = self._flights.get(key)
        if flight is None or flight.urgency > waiter.urgency or len(flight.waiters) >= WAITERS_MAX:
            return False
        flight.waiters.append(waiter)
        if waiter.deadline_ns and self._later is not None:
            delay_s = max(0, waiter.deadline_ns - perf_counter_ns()) / _NS
            flight.timers[waiter] = self._later(delay_s, partial(_expire, flight, waiter))
        return True

    def begin(self, key: bytes, urgency: int) -> Flight | None:
        """Let others wait from now on; ``None``: they do already, or there are too many flights."""
        if key in self._flights or len(self._flights) >= FLIGHTS_MAX:
            return None
        flight = self._flights[key] = Flight(urgency)
        return flight

    def of(self, key: bytes) -> Flight | None:
        """Find the flight of a question."""
        return self._flights.get(key)

    def land(self, key: bytes, entry: Entry) -> None:
        """Give an answer to everybody who waits for it, whoever found it."""
        flight = self._flights.pop(key, None)
        if flight is None:
            return
        waiters = flight.waiters.copy()
        for waiter in waiters:
            flight.take_out(waiter)
        for waiter in waiters:
            try:
                waiter.answer(entry)
            except Exception:  # noqa: BLE001 - the others behind it must not suffer
                _log.exception("an answer failed in a way nobody foresaw")

    def fail(self, key: bytes, flight: Flight) -> None:
        """Let the next one run, because the one who should answer could not."""
        # Another one may have answered it meanwhile, and yet another begun anew.
        if not flight.pass_on() and self._flights.get(key) is flight:
            del self._flights[key]


def _expire(flight: Flight, waiter: Waiter) -> None:
    flight.take_out(waiter)
    waiter.expired()


def _urgency(waiter: Waiter) -> int:
    return waiter.urgency
