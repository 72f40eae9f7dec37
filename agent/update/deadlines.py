"""How long an update may be in a state, in seconds awake, over all starts of the agent.

``CLOCK_MONOTONIC`` stands still while the device sleeps and begins anew at each boot, so what was
used up is stored from time to time: what a kill loses only moves a deadline out, by ``TICK_S`` at
most.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.errors import StateError
from agent.records.updates import Update
from agent.update.states import State

TICK_S: Final = 300.0
SLICE_S: Final = 600.0
"""A download makes way after this where something else is under way, too; it resumes."""
ALONE_S: Final = 3600.0
"""The same where nothing else is: whoever calls looks for a newer plan in between."""
START_S: Final = 10.0
"""What each start of the agent costs: an update that kills it over and over comes to its end."""
WAIT_S: Final = 7_776_000.0
"""90 days: what is on the device waits so long for a window, a charge, or the end of a hold."""


@dataclass(frozen=True, kw_only=True)
class Deadlines:
    """Most seconds awake of each state.

    Attributes:
        download_s: Of a download, with all its pauses.
        handover_s: Until the runtime has taken a bundle, or has let go of it.
        verdict_s: Until the runtime's verdict.
        wait_s: Of waiting for the plan's word.
    """

    download_s: float
    handover_s: float
    verdict_s: float
    wait_s: float = WAIT_S

    def of(self, state: str) -> float:
        """Give the deadline of a state; one that this program does not know has the shortest."""
        by_state: Mapping[str, float] = {
            State.PLANNED: self.wait_s,
            State.DOWNLOADING: self.download_s,
            State.VERIFIED: self.wait_s,
            State.HANDING_OVER: self.handover_s,
            State.FOLLOWING: self.verdict_s,
            State.CANCELING: self.handover_s,
        }
        return by_state.get(state, min(by_state.values()))


class Stopwatches:
    """Counts how long updates have been in their states.

    Args:
        awake_s: The clock that goes while the device is awake, in seconds from anywhere.
        tick: Stores what is used up: the update's id, and seconds awake.
    """

    def __init__(self, awake_s: Callable[[], float], tick: Callable[[int, float], None]) -> None:
        self._awake_s = awake_s
        self._tick = tick
        self._begun: dict[int, tuple[str, float]] = {}
        """By id: the state, and when it began if this agent had always run."""
        self._stored: dict[int, float] = {}

    def used_s(self, update: Update) -> float:
        """Say how long an update has been in its state, seconds awake.

        Args:
            update: As it is stored.
        """
        now_s = self._awake_s()
        state, begun_s = self._begun.get(update.id, ("", 0.0))
        if state != update.state:
            begun_s = now_s - update.used_s
            self._begun[update.id] = (update.state, begun_s)
            self._stored[update.id] = update.used_s
        return now_s - begun_s

    def store(self, update: Update) -> None:
        """Store what is used up, if that is worth a write.

        Raises:
            StateError: The disk refused.
        """
        used_s = self.used_s(update)
        if used_s - self._stored[update.id] >= TICK_S:
            self._tick(update.id, used_s)
            self._stored[update.id] = used_s

    def forget(self, update: Update) -> None:
        """Stop counting for an update that is over."""
        self._begun.pop(update.id, None)
        self._stored.pop(update.id, None)

    @contextlib.contextmanager
    def watching(
        self, update: Update, until_s: float, cancelled: threading.Event
    ) -> Iterator[None]:
        """Watch over a call that may last for days: store what is used up, and end it in time.

        Args:
            update: Whose.
            until_s: Seconds awake in its state at which the call is to end.
            cancelled: Set then.
        """
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                left_s = until_s - self.used_s(update)
                if left_s <= 0:
                    cancelled.set()
                    return
                if not over.wait(min(TICK_S, left_s)):
                    # What the disk does not take now it may take the next time.
                    with contextlib.suppress(StateError):
                        self.store(update)

        thread = threading.Thread(target=watch, name="update-deadline", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
