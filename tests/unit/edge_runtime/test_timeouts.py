"""One timer for all deadlines, and none without a deadline."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from edge_runtime.api.timeouts import NEVER, Timeouts


class Timer:
    """One call to come."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call."""
        self.cancelled = True


class Clock:
    """A loop whose time only moves when told to; counts how often it wakes."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wakes = 0
        self._timers: list[Timer] = []
        self._soon: list[Timer] = []

    def time(self) -> float:
        """Give the loop's time."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call later."""
        timer = Timer(when, callback)
        self._timers.append(timer)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        """Call before any time passes."""
        timer = Timer(self.now, callback)
        self._soon.append(timer)
        return timer

    @property
    def armed(self) -> list[float]:
        """Give the times of the calls to come."""
        return [timer.when for timer in self._timers if not timer.cancelled]

    def advance(self, to: float) -> None:
        """Let time pass."""
        while due := sorted(when for when in self.armed if when <= to):
            self.now = due[0]
            timer = next(t for t in self._timers if t.when == due[0] and not t.cancelled)
            timer.cancelled = True
            self.wakes += 1
            timer.callback()
            while self._soon:
                timer = self._soon.pop(0)
                if not timer.cancelled:
                    timer.callback()
        self.now = to


class Thing:
    """Something that is watched."""

    def __init__(self, clock: Clock, deadline: float) -> None:
        self.deadline = deadline
        self.timed_out_at: list[float] = []
        self._clock = clock

    def timed_out(self) -> None:
        """Remember when."""
        self.deadline = NEVER
        self.timed_out_at.append(self._clock.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timeouts(clock: Clock) -> Timeouts:
    loop: Any = clock
    return Timeouts(loop)


def test_nothing_wakes_without_a_deadline(clock: Clock, timeouts: Timeouts) -> None:
    assert clock.armed == []
    timeouts.watch(Thing(clock, NEVER))
    assert clock.armed == []


def test_each_is_called_once_at_its_deadline(clock: Clock, timeouts: Timeouts) -> None:
    things = [Thing(clock, deadline) for deadline in (3.0, 1.0, 2.0)]
    for thing in things:
        timeouts.watch(thing)
    clock.advance(10.0)
    assert [thing.timed_out_at for thing in things] == [[3.0], [1.0], [2.0]]
    assert clock.armed == []


def test_there_is_one_timer_however_many_deadlines(clock: Clock, timeouts: Timeouts) -> None:
    for number in range(100, 0, -1):
        timeouts.watch(Thing(clock, float(number)))
    assert clock.armed == [1.0]


def test_a_deadline_that_moved_away_is_kept_and_costs_one_look(
    clock: Clock, timeouts: Timeouts
) -> None:
    thing = Thing(clock, 1.0)
    timeouts.watch(thing)
    for moment in range(1, 10):
        thing.deadline = 1.0 + moment / 10  # no word to the timer
    clock.advance(5.0)
    assert thing.timed_out_at == [1.9]
    assert clock.wakes == 2


def test_a_deadline_that_came_nearer_is_heeded_when_watched_again(
    clock: Clock, timeouts: Timeouts
) -> None:
    thing = Thing(clock, 5.0)
    timeouts.watch(thing)
    thing.deadline = 2.0
    timeouts.watch(thing)
    clock.advance(3.0)
    assert thing.timed_out_at == [2.0]


def test_a_deadline_that_comes_back_from_never_is_before_due(
    clock: Clock, timeouts: Timeouts
) -> None:
    thing = Thing(clock, 1.0)
    timeouts.watch(thing)
    thing.deadline = NEVER
    clock.advance(2.0)  # the timer looked and found nothing to wait for
    assert timeouts.due == NEVER
    thing.deadline = 3.0
    assert thing.deadline < timeouts.due
    timeouts.watch(thing)
    clock.advance(4.0)
    assert thing.timed_out_at == [3.0]


def test_who_is_forgotten_is_not_called(clock: Clock, timeouts: Timeouts) -> None:
    gone, stays = Thing(clock, 1.0), Thing(clock, 2.0)
    timeouts.watch(gone)
    timeouts.watch(stays)
    timeouts.forget(gone)
    clock.advance(5.0)
    assert gone.timed_out_at == []
    assert stays.timed_out_at == [2.0]


def test_no_timer_stays_when_everyone_is_forgotten(clock: Clock, timeouts: Timeouts) -> None:
    thing = Thing(clock, 1.0)
    timeouts.watch(thing)
    timeouts.forget(thing)
    timeouts.forget(thing)
    assert clock.armed == []
    assert timeouts.due == NEVER


def test_who_sets_a_new_deadline_while_timing_out_is_called_again(
    clock: Clock, timeouts: Timeouts
) -> None:
    class Again(Thing):
        def timed_out(self) -> None:
            super().timed_out()
            if len(self.timed_out_at) < 3:
                self.deadline = self._clock.now + 1.0
                timeouts.watch(self)

    thing = Again(clock, 1.0)
    timeouts.watch(thing)
    clock.advance(10.0)
    assert thing.timed_out_at == [1.0, 2.0, 3.0]
    assert clock.armed == []


def test_it_works_on_a_real_loop() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        timeouts = Timeouts(loop)
        done = asyncio.Event()

        class Real:
            deadline = loop.time() + 0.01

            def timed_out(self) -> None:
                self.deadline = NEVER
                done.set()

        timeouts.watch(Real())
        async with asyncio.timeout(10):
            await done.wait()

    asyncio.run(main())
