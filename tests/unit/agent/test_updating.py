"""The thread of updates: what wakes it, what it does then, and how long it waits."""

# ruff: noqa: D102 - the ports say what each of these does

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from agent.errors import AgentError, Distrust, NetworkError, TrustError
from agent.settings.device import Repository as Settings
from agent.trust.repository import Refreshed, Repository
from agent.updating import RETRY_FIRST_S, RETRY_MOST_S, Updating
from tests.daemons import eventually

if TYPE_CHECKING:
    from agent.device.plans import PlanLooking
    from agent.update.machine import UpdateMachine

WITHIN_S = 20.0


class Source:
    """A repository that answers as it is told.

    Attributes:
        asked: What was announced, of each refresh.
        error: What the next refreshes raise; ``None``: nothing.
        is_open: Whether a refresh comes to its end.
    """

    def __init__(self) -> None:
        self.asked: list[bytes | None] = []
        self.error: AgentError | None = None
        self.is_open = threading.Event()
        self.is_open.set()
        self.reread_count = 0

    def refresh(self, announced: bytes | None = None) -> Refreshed:
        self.asked.append(announced)
        assert self.is_open.wait(WITHIN_S)
        if self.error is not None:
            raise self.error
        return Refreshed(changed=True, timestamp_version=1, plans_version=1, fetched_bytes=10)

    def reread(self) -> None:
        self.reread_count += 1


class Machine:
    """An update machine whose download lasts until it is interrupted.

    Attributes:
        turns: How often it worked.
        was_interrupted: How many of these turns were interrupted.
        is_busy: Whether there is something to download.
    """

    def __init__(self) -> None:
        self.turns = self.was_interrupted = 0
        self.is_busy = False
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        self._interrupted.set()

    def heed(self) -> None:
        self._interrupted.clear()

    def resume(self) -> None:
        pass

    def look(self) -> None:
        pass

    def work(self) -> float | None:
        self.turns += 1
        if not self.is_busy:
            return None
        if self._interrupted.wait(WITHIN_S):
            self.was_interrupted += 1
        return 0.0


class World:
    """The thread with both."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - of [repository]
        self.source, self.machine = Source(), Machine()
        self.distrusted: list[TrustError] = []
        self.updating = Updating(
            cast("Repository", self.source),
            Settings(**{"doorbell_jitter_s": 0.0, **settings}),
            cast("PlanLooking | None", None),
            cast("UpdateMachine", self.machine),
            wall_s=lambda: 1000.0,
            on_distrust=self.distrusted.append,
            changed=lambda: None,
        )


@contextmanager
def running(world: World) -> Iterator[Updating]:
    world.updating.start()
    try:
        until(lambda: world.updating.shown.check.number > 0)
        yield world.updating
    finally:
        world.source.is_open.set()
        assert world.updating.stop(WITHIN_S)


def until(condition: Callable[[], bool]) -> None:
    eventually(condition, "it", WITHIN_S)


def test_an_announcement_is_followed_with_what_was_announced() -> None:
    world = World()
    with running(world) as updating:
        updating.announced(b"timestamp")
        until(lambda: b"timestamp" in world.source.asked)
        until(lambda: updating.shown.check.number == 2)
        assert updating.shown.check.changed


def test_many_announcements_at_once_are_one_look_at_the_newest() -> None:
    world = World(doorbell_jitter_s=0.5)
    with running(world) as updating:
        for number in range(50):
            updating.announced(b"%d" % number)
        until(lambda: world.source.asked[-1] == b"49")
    assert len(world.source.asked) <= 3


def test_news_interrupt_a_download_which_goes_on_afterwards() -> None:
    world = World()
    world.machine.is_busy = True
    with running(world) as updating:
        until(lambda: world.machine.turns > 0)
        turns = world.machine.turns
        updating.announced(b"newer")
        until(lambda: b"newer" in world.source.asked)
        until(lambda: world.machine.turns > turns)
        assert world.machine.was_interrupted >= 1


def test_who_asks_for_a_look_is_told_when_it_takes_too_long_and_the_thread_goes_on() -> None:
    world = World()
    with running(world) as updating:
        world.source.is_open.clear()
        with pytest.raises(NetworkError, match="still being looked at"):
            updating.check_now(0.05)
        world.source.is_open.set()
        assert updating.check_now(WITHIN_S).problem == ""


def test_a_look_elsewhere_reads_the_repository_again_afterwards() -> None:
    world, elsewhere = World(), Source()
    with running(world) as updating:
        assert updating.check_now(WITHIN_S, cast("Repository", elsewhere)).problem == ""
        assert elsewhere.asked == [None]
        until(lambda: world.source.reread_count == 1)


def test_distrust_is_told_once_of_each_reason_and_again_after_it_was_well() -> None:
    world = World()
    with running(world) as updating:
        world.source.error = TrustError(Distrust.EXPIRED, "the timestamp has expired")
        for _ in range(3):
            assert updating.check_now(WITHIN_S).reason == "expired"
        world.source.error = None
        assert updating.check_now(WITHIN_S).problem == ""
        world.source.error = TrustError(Distrust.EXPIRED, "the timestamp has expired")
        updating.check_now(WITHIN_S)
    assert len(world.distrusted) == 2


def test_pauses_after_failures_grow_to_a_limit_and_never_beyond_the_poll() -> None:
    updating = World(poll_s=86_400.0).updating
    pauses = [updating._after_failure() for _ in range(100)]
    assert pauses[0] == 2 * RETRY_FIRST_S
    assert pauses == sorted(pauses)
    assert pauses[-1] == RETRY_MOST_S
    often = World(poll_s=60.0).updating
    assert max(often._after_failure() for _ in range(100)) <= 60.0


def test_a_fault_in_a_turn_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with running(world) as updating:
        world.source.error = cast("AgentError", ZeroDivisionError())
        updating.ring()
        until(lambda: "nobody foresaw" in caplog.text)
        world.source.error = None
        assert updating.check_now(WITHIN_S).problem == ""
