"""How long an answer lives: pure decisions from two clocks and the model's policy.

The wall clock is what survives a restart, and it jumps; the monotonic clock does not jump, and it
starts anew with the device and stands still while that sleeps. So an answer must be young by both:
a jump forwards ends lives early, a jump backwards cannot make an answer live on in this process,
and one that claims to come from the future is believed no more.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic, time
from typing import Final, Literal, NamedTuple

from edge_runtime.settings import Model

SLACK_S: Final = 5.0  # by which clocks are corrected in daily life

Scope = Literal["shared", "uid"]


class Clock(NamedTuple):
    """What time it is.

    Attributes:
        wall_s: Seconds since the epoch.
        monotonic_s: Seconds that never go back.
    """

    wall_s: Callable[[], float] = time
    monotonic_s: Callable[[], float] = monotonic


@dataclass(frozen=True, slots=True)
class Policy:
    """What a model's settings say of its kept answers.

    Attributes:
        ttl_s: Seconds that an answer is given again.
        max_bytes: Most that they take, once in memory and once on disk.
        scope: Whether a caller may get what another one asked.
        stale_s: Seconds beyond ``ttl_s`` for which an answer is given while the model cannot run.
    """

    ttl_s: float
    max_bytes: int = 67_108_864
    scope: Scope = "shared"
    stale_s: float = 0.0

    @classmethod
    def of(cls, model: Model) -> "Policy | None":
        """Read a model's settings; ``None`` if it did not opt in."""
        if not model.cache_ttl_s:
            return None
        return cls(model.cache_ttl_s, model.cache_max_bytes, model.cache_scope, model.cache_stale_s)

    def within(self, ttl_s: float, max_bytes: int) -> "Policy":
        """Hold it to what a bundle allows: how long its answers stay right is its publisher's word.

        Args:
            ttl_s: Most seconds that an answer is given again; 0: not stated.
            max_bytes: Most that they take; 0: not stated.
        """
        return replace(
            self,
            ttl_s=min(self.ttl_s, ttl_s or self.ttl_s),
            max_bytes=min(self.max_bytes, max_bytes or self.max_bytes),
        )

    @property
    def keep_s(self) -> float:
        """Seconds until nobody may get an answer any more."""
        return self.ttl_s + self.stale_s


def is_young(created_s: float, life_s: float, wall_s: float) -> bool:
    """Say whether an answer is within its life, by the wall clock.

    Args:
        created_s: When it was computed, in seconds since the epoch.
        life_s: Seconds that it lives.
        wall_s: Now, in seconds since the epoch.
    """
    return created_s - SLACK_S <= wall_s < created_s + life_s
