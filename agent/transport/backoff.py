"""When a broker is tried again, which one, and in which version of MQTT; pure.

Every pause is a random part of a growing one (full jitter), so that a fleet that lost its broker
together does not come back together.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Literal, NamedTuple

STABLE_S: Final = 60.0
"""A connection that lasted so long was a good one: pauses begin small again."""
EARLY_ENDS_MAX: Final = 1
"""Connections that a broker may end without a word before it is asked in the other version."""
EARLY_ENDS_KNOWN_MAX: Final = 20
"""The same for a broker that has said yes to this version."""

Protocol = Literal["auto", "5", "3.1.1"]
"""Versions of MQTT that may be spoken."""

Uniform = Callable[[float, float], float]
"""Such as ``random.uniform``."""


class Outcome(Enum):
    """How a try ended."""

    UNREACHABLE = auto()
    """Nobody answers there, or not with TLS as it must be."""
    ENDED_EARLY = auto()
    """The connection ended, or was garbage, before the broker said yes or no."""
    REFUSED_VERSION = auto()
    """The broker does not speak this version."""
    REFUSED = auto()
    """The broker does not want this device: it will not an hour later, either."""
    BUSY = auto()
    """The broker says no for now."""
    LOST = auto()
    """The broker said yes; later the connection ended."""


class Attempt(NamedTuple):
    """What to try.

    Attributes:
        broker: Index of the broker.
        is_v5: MQTT 5, or else 3.1.1.
        pause_s: How long to wait before.
        is_in_doubt: Whether another version may be the right one: brokers that speak only 3.1.1
            may fall silent at a CONNECT of MQTT 5, and are not waited for as long.
    """

    broker: int
    is_v5: bool
    pause_s: float
    is_in_doubt: bool = False


class Backoff:
    """Remembers what came of earlier tries.

    Args:
        brokers: How many there are; 1 or more.
        first_s: Pause after the first failure, before jitter.
        most_s: Longest pause.
        uniform: Gives a random number between two.
        protocol: ``auto``: MQTT 5, and 3.1.1 where a broker does not answer to that.
    """

    def __init__(
        self,
        brokers: int,
        first_s: float,
        most_s: float,
        uniform: Uniform,
        protocol: Protocol = "auto",
    ) -> None:
        self._brokers = brokers
        self._first_s, self._most_s = first_s, most_s
        self._uniform = uniform
        self._broker = 0
        self._failures = 0
        self._may_change = protocol == "auto"
        self._is_v5 = [protocol != "3.1.1"] * brokers
        self._is_in_doubt = [self._may_change] * brokers
        self._early_ends = [0] * brokers
        self._early_ends_max = [EARLY_ENDS_MAX] * brokers
        self._refusals = 0

    def first(self) -> Attempt:
        """Give the first try, at once."""
        return self._next(0.0)

    def accepted(self) -> None:
        """Note that the broker said yes: its version is remembered."""
        self._early_ends[self._broker] = 0
        self._early_ends_max[self._broker] = EARLY_ENDS_KNOWN_MAX
        self._refusals = 0

    def after(self, outcome: Outcome, lasted_s: float = 0.0, *, hold: bool = False) -> Attempt:
        """Give the next try.

        Args:
            outcome: What came of this one.
            lasted_s: How long a connection stood, in seconds.
            hold: Come back as late as can be: this device is in somebody's way.
        """
        if outcome is not Outcome.UNREACHABLE:
            self._is_in_doubt[self._broker] = False
        if self._may_change and self._is_other_version_due(outcome):
            self._early_ends[self._broker] = 0
            self._early_ends_max[self._broker] = EARLY_ENDS_MAX
            was_v5 = self._is_v5[self._broker]
            self._is_v5[self._broker] = not was_v5
            if was_v5:
                return self._next(self._pause())
        if outcome is Outcome.LOST and lasted_s >= STABLE_S:
            self._failures = 0
        if outcome is not Outcome.LOST:
            self._broker = (self._broker + 1) % self._brokers
        self._refusals = self._refusals + 1 if outcome is Outcome.REFUSED else 0
        if hold or self._refusals >= self._brokers:
            self._refusals = 0
            return self._next(self._uniform(self._most_s / 2, self._most_s))
        pause_s = self._pause()
        self._failures += 1
        return self._next(pause_s)

    def _is_other_version_due(self, outcome: Outcome) -> bool:
        if outcome is Outcome.REFUSED_VERSION:
            return True
        if outcome is not Outcome.ENDED_EARLY:
            return False
        self._early_ends[self._broker] += 1
        return self._early_ends[self._broker] >= self._early_ends_max[self._broker]

    def _pause(self) -> float:
        rounds = min(self._failures // self._brokers, 32)
        return self._uniform(0.0, min(self._most_s, self._first_s * 2**rounds))

    def _next(self, pause_s: float) -> Attempt:
        broker = self._broker
        return Attempt(broker, self._is_v5[broker], pause_s, self._is_in_doubt[broker])
