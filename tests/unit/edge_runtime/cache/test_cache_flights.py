"""Single flight: one runs, the others get its answer, and nobody fails with somebody else."""

import logging
from collections.abc import Callable
from time import perf_counter_ns

import pytest

from edge_runtime.cache.entry import Entry, entry
from edge_runtime.cache.flights import FLIGHTS_MAX, WAITERS_MAX, Flight, Flights, Waiter

KEY = b"key"
ANSWER = entry({}, 0, 0)
NORMAL = 5


class Crowd:
    """Waiters that note what happened to them."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.ran: list[int] = []

    def waiter(
        self, number: int, urgency: int = NORMAL, then: Callable[[], None] | None = None
    ) -> Waiter:
        """Make one that does something when it runs."""

        def run() -> None:
            self.ran.append(number)
            if then is not None:
                then()

        return Waiter(urgency, lambda _: self.answered.append(number), run)


def begun(flights: Flights, urgency: int = NORMAL) -> Flight:
    flight = flights.begin(KEY, urgency)
    assert flight is not None
    return flight


def test_everybody_who_waits_gets_the_answer() -> None:
    flights, crowd = Flights(), Crowd()
    assert not flights.join(KEY, crowd.waiter(0))
    begun(flights)
    assert all(flights.join(KEY, crowd.waiter(number)) for number in range(3))
    assert not flights.join(b"other", crowd.waiter(9))
    flights.land(KEY, ANSWER)
    assert (crowd.answered, crowd.ran, len(flights)) == ([0, 1, 2], [], 0)


def test_when_the_first_one_fails_the_next_one_runs_and_the_rest_goes_on_waiting() -> None:
    flights, crowd = Flights(), Crowd()
    flight = begun(flights)
    for number in range(3):
        flights.join(KEY, crowd.waiter(number))
    flights.fail(KEY, flight)
    assert (crowd.ran, crowd.answered) == ([0], [])
    assert flights.join(KEY, crowd.waiter(3))
    flights.land(KEY, ANSWER)
    assert crowd.answered == [1, 2, 3]


def test_a_crowd_that_fails_at_once_is_taken_one_by_one_without_recursion() -> None:
    flights, crowd = Flights(), Crowd()
    flight = begun(flights)

    def fails() -> None:
        flights.fail(KEY, flight)

    for number in range(WAITERS_MAX):
        assert flights.join(KEY, crowd.waiter(number, then=fails))
    assert not flights.join(KEY, crowd.waiter(WAITERS_MAX))
    flights.fail(KEY, flight)
    assert crowd.ran == list(range(WAITERS_MAX))
    assert len(flights) == 0


def test_an_answer_that_comes_at_once_from_the_next_one_reaches_the_rest() -> None:
    flights, crowd = Flights(), Crowd()
    flight = begun(flights)
    flights.join(KEY, crowd.waiter(0, then=lambda: flights.land(KEY, ANSWER)))
    flights.join(KEY, crowd.waiter(1))
    flights.fail(KEY, flight)
    assert (crowd.ran, crowd.answered, len(flights)) == ([0], [1], 0)


def test_nobody_waits_behind_somebody_less_urgent() -> None:
    flights, crowd = Flights(), Crowd()
    begun(flights, NORMAL)
    assert not flights.join(KEY, crowd.waiter(0, NORMAL - 1))
    assert flights.join(KEY, crowd.waiter(1, NORMAL + 1))
    assert flights.begin(KEY, NORMAL - 1) is None
    flights.land(KEY, ANSWER)  # by the urgent one, which ran by itself
    assert crowd.answered == [1]


def test_the_most_urgent_one_runs_next() -> None:
    flights, crowd = Flights(), Crowd()
    flight = begun(flights, 1)
    for number, urgency in enumerate([7, 3, 3, 9]):
        flights.join(KEY, crowd.waiter(number, urgency))
    flights.fail(KEY, flight)
    assert crowd.ran == [1]
    assert not flights.join(KEY, crowd.waiter(9, 2))


def test_a_late_failure_of_a_flight_that_landed_disturbs_nobody() -> None:
    flights, crowd = Flights(), Crowd()
    first = begun(flights)
    flights.land(KEY, ANSWER)
    begun(flights)
    flights.join(KEY, crowd.waiter(0))
    flights.fail(KEY, first)
    assert (crowd.ran, len(flights)) == ([], 1)


def test_one_waiter_that_breaks_does_not_take_the_others_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    flights, crowd = Flights(), Crowd()

    def breaks(_: Entry | None = None) -> None:
        raise ZeroDivisionError

    flight = begun(flights)
    flights.join(KEY, Waiter(NORMAL, breaks, breaks))
    flights.join(KEY, crowd.waiter(1))
    flights.fail(KEY, flight)
    assert crowd.ran == [1]
    flights.join(KEY, Waiter(NORMAL, breaks, breaks))
    flights.join(KEY, crowd.waiter(2))
    flights.land(KEY, ANSWER)
    assert crowd.answered == [2]
    assert [each.levelno for each in caplog.records] == [logging.ERROR] * 2


def test_flights_are_bounded() -> None:
    flights = Flights()
    for number in range(FLIGHTS_MAX):
        assert flights.begin(str(number).encode(), NORMAL)
    assert flights.begin(KEY, NORMAL) is None
    assert len(flights) == FLIGHTS_MAX


class Timers:
    """Calls that a test makes."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, delay_s: float, call: Callable[[], None]) -> "Timer":
        """Note a call."""
        each = delay_s, call
        self.due.append(each)
        return Timer(self, each)


class Timer:
    """One of them."""

    def __init__(self, timers: Timers, each: tuple[float, Callable[[], None]]) -> None:
        self._timers, self._each = timers, each

    def cancel(self) -> None:
        """Forget it."""
        self._timers.due.remove(self._each)


def expiring(crowd: Crowd, number: int, expired: list[int], delay_s: float = 500) -> Waiter:
    deadline_ns = perf_counter_ns() + int(delay_s * 1e9)
    waits = crowd.waiter(number)
    return waits._replace(deadline_ns=deadline_ns, expired=lambda: expired.append(number))


def test_nobody_waits_longer_than_its_own_timeout_and_the_others_go_on() -> None:
    timers, crowd = Timers(), Crowd()
    expired: list[int] = []
    flights = Flights(timers.later)
    begun(flights)
    flights.join(KEY, crowd.waiter(0))
    flights.join(KEY, expiring(crowd, 1, expired))
    flights.join(KEY, expiring(crowd, 2, expired, -1))
    (later, call), (at_once, _) = timers.due
    assert 0 < later <= 500
    assert at_once == 0
    call()
    assert expired == [1]
    flights.land(KEY, ANSWER)
    assert crowd.answered == [0, 2]
    assert not timers.due, "and no timer outlives its flight"


def test_whose_turn_it_is_to_run_has_its_timeout_kept_by_whoever_runs_it() -> None:
    timers, crowd = Timers(), Crowd()
    flights = Flights(timers.later)
    flight = begun(flights)
    flights.join(KEY, expiring(crowd, 0, []))
    flights.fail(KEY, flight)
    assert crowd.ran == [0]
    assert not timers.due
