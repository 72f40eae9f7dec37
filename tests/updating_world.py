"""The thread of updates for tests: repository, plans and machine do as they are told."""

# ruff: noqa: D102 - the ports say what each of these does

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from agent.device.plans import Outlook
from agent.settings.device import Repository as Settings
from agent.trust.repository import Refreshed, Repository
from agent.updating import Updating
from tests.daemons import eventually

if TYPE_CHECKING:
    from agent.device.plans import PlanLooking
    from agent.errors import AgentError, BudgetError, TrustError
    from agent.update.machine import UpdateMachine

WITHIN_S = 60.0


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
        count = len(self.asked)
        assert self.is_open.wait(WITHIN_S)
        if (error := self.error) is not None:  # looked at once: a test may take it away now
            raise error
        return Refreshed(changed=True, timestamp_version=count, plans_version=1, fetched_bytes=10)

    def reread(self) -> None:
        self.reread_count += 1


class Machine:
    """An update machine whose download lasts until it is interrupted.

    Attributes:
        turns: How often it worked.
        was_interrupted: How many of these turns were interrupted.
        is_busy: Whether there is something to download.
        begins_badly: Whether it cannot take up what was under way, by a fault.
        faulty: A model whose plan makes it fail.
        considered: Models whose plans it was told.
        before_turn: Called once, when it is told that a turn begins.
    """

    def __init__(self) -> None:
        self.before_turn: Callable[[], None] | None = None
        self.turns = self.was_interrupted = 0
        self.is_busy = False
        self.begins_badly = False
        self.faulty: str | None = None
        self.considered: list[str] = []
        self._interrupted = threading.Event()

    def interrupt(self) -> None:
        self._interrupted.set()

    def heed(self) -> None:
        hook, self.before_turn = self.before_turn, None
        if hook is not None:
            hook()
        self._interrupted.clear()

    def resume(self) -> None:
        if self.begins_badly:
            raise ZeroDivisionError

    def consider(self, model: str, *_: object) -> bool:
        if model == self.faulty:
            raise ZeroDivisionError
        self.considered.append(model)
        return True

    def look(self) -> None:
        pass

    def work(self) -> float | None:
        self.turns += 1
        if not self.is_busy:
            return None
        if self._interrupted.wait(WITHIN_S):
            self.was_interrupted += 1
        return 0.0


class Looking:
    """Decides about the plans of some models.

    Attributes:
        models: Which.
        error: What keeps it from that; ``None``: nothing.
        count: How often it was asked.
    """

    def __init__(self, *models: str) -> None:
        self.lock = threading.RLock()
        self.models = models
        self.error: AgentError | None = None
        self.count = 0

    def outlooks(self) -> list[Outlook]:
        self.count += 1
        if (error := self.error) is not None:  # as above
            raise error
        return [Outlook(model) for model in self.models]


class World:
    """The thread with both."""

    def __init__(self, looking: Looking | None = None, **settings: Any) -> None:  # noqa: ANN401
        self.source, self.machine = Source(), Machine()
        self.distrusted: list[TrustError] = []
        self.spent: list[BudgetError] = []
        self.updating = Updating(
            cast("Repository", self.source),
            Settings(**{"doorbell_jitter_s": 0.0, **settings}),
            cast("PlanLooking", looking or Looking()),
            cast("UpdateMachine", self.machine),
            wall_s=lambda: 1000.0,
            on_distrust=self.distrusted.append,
            on_spent=self.spent.append,
            changed=lambda: None,
        )


@contextmanager
def running(world: World) -> Iterator[Updating]:
    world.updating.start()
    try:
        until(lambda: world.updating.shown.check.turn > 0)
        yield world.updating
    finally:
        world.source.is_open.set()
        assert world.updating.stop(WITHIN_S)


def until(condition: Callable[[], bool]) -> None:
    eventually(condition, "it", WITHIN_S)
