"""Who made models be loaded lately: the time that loads took, by user, fading."""

from collections.abc import Collection
from math import inf
from typing import Final

from edge_runtime.fairness import User

HALF_LIFE_S: Final = 10.0  # so that nobody pays for long: continuous loads add up to 14.4 s
_FORGOTTEN_S: Final = 0.001


class LoadShares:
    """Seconds of loads, by the users who waited for them; each half as much every 10 s.

    One small entry a user, for at most a few minutes; neither a clock nor a timer.
    """

    def __init__(self) -> None:
        self._spent: dict[User, tuple[float, float]] = {}  # seconds, and when that was right

    def charge(self, users: Collection[User], took_s: float, now_s: float) -> None:
        """Note a load that has ended, well or not.

        Args:
            users: Who waited for it.
            took_s: How long it took.
            now_s: When it ended.
        """
        self._spent = {user: (self._of(user, now_s), now_s) for user in self._spent}
        self._spent = {user: each for user, each in self._spent.items() if each[0]}
        for user in users:
            self._spent[user] = (self._of(user, now_s) + took_s, now_s)

    def least_s(self, users: Collection[User], now_s: float) -> float:
        """Say how much the one of some users caused who caused least; infinite: there is none."""
        return min((self._of(user, now_s) for user in users), default=inf)

    def _of(self, user: User, now_s: float) -> float:
        spent_s, then_s = self._spent.get(user, (0.0, now_s))
        left_s = spent_s * 0.5 ** ((now_s - then_s) / HALF_LIFE_S)
        return left_s if left_s >= _FORGOTTEN_S else 0.0
