"""What the sender spends of the month's byte budget, and what that says of measurements."""

import logging
from collections.abc import Callable
from typing import Final

from agent.errors import StateError
from agent.records.budget import Budget
from agent.transport.sender import UNLIMITED
from agent.troubles import Troubles

_log = logging.getLogger(__name__)

ASK_S: Final = 10.0
"""A budget is asked again after so long: the month, or the class of the link, may be another."""

NOT_COUNTED: Final = "bytes of telemetry are not counted"
NOT_READ: Final = "it is not known how many bytes of telemetry may go"


class BudgetMeter:
    """A ``Meter`` over the byte budget; for one thread.

    A disk that does not take the count stops no message: then bytes are missing from the count.

    Args:
        budget: Counts bytes.
        now_s: Seconds that only rise.
        wall_s: Seconds since 1970.

    Attributes:
        held: Why measurements wait; empty: they do not.
    """

    def __init__(
        self, budget: Budget, now_s: Callable[[], float], wall_s: Callable[[], float]
    ) -> None:
        self._budget = budget
        self._now_s = now_s
        self._room_bytes = UNLIMITED
        self._asked_s = float("-inf")
        self._troubles = Troubles(wall_s)
        self.held = ""

    def spent(self, size_bytes: int) -> None:
        """Count what goes over the link."""
        was_open = self._room_bytes > 0
        self._room_bytes -= size_bytes
        if was_open and self._room_bytes <= 0:
            self._asked_s = float("-inf")  # is it over indeed?
        try:
            self._budget.spend("telemetry", size_bytes)
        except StateError as error:
            self._troubles.note(NOT_COUNTED, error.message, level=logging.WARNING)
        else:
            self._troubles.settle(NOT_COUNTED)

    def metrics_room(self) -> int:
        """Count the bytes of metrics that may go now."""
        now_s = self._now_s()
        if now_s - self._asked_s >= ASK_S:
            self._asked_s = now_s
            self._ask()
        return self._room_bytes

    def _ask(self) -> None:
        try:
            room = self._budget.room("telemetry")
            held = "" if room != 0 else self._budget.why_not("telemetry", 1)
        except StateError as error:  # the room is as it was
            self._troubles.note(NOT_READ, error.message, level=logging.WARNING)
            return
        self._troubles.settle(NOT_READ)
        self._room_bytes = UNLIMITED if room is None else room
        if bool(held) != bool(self.held):
            if held:
                _log.warning("measurements wait, and the oldest make room for new ones: %s", held)
            else:
                _log.info("measurements are sent again")
        self.held = held
