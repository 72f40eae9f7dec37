"""Who holds the connections of one door, and whether one more may come: a few integers.

Nobody can take the last places: what a user may hold is a multiple of what is free, as in the
dynamic thresholds of switches that share memory. So alone a user gets ``connections_per_user``, two
greedy ones less each, and some places are free for whoever comes next. Where they are not, idle
connections of whoever holds the most make way (``Door.admit``).

Source: Choudhury, Hahne, "Dynamic queue length thresholds for shared-memory packet switches"
(IEEE/ACM Transactions on Networking 6(2), 1998).
"""

from edge_runtime.fairness import User, greediest
from edge_runtime.settings import Limits


class Places:
    """The connections of one door, by user.

    Callers over TCP are one user, ``None``, who may hold all of it: nobody says who they are, and
    their address is no name, since every program may take any address in 127.0.0.0/8.
    """

    def __init__(self) -> None:
        self._held: dict[User, int] = {}
        self.taken = 0

    def held(self, user: User) -> int:
        """Say how many a user holds."""
        return self._held.get(user, 0)

    def are_free(self, user: User, limits: Limits) -> bool:
        """Tell whether a user may have one more."""
        free = limits.connections - self.taken
        if user is None:
            return free > 0
        most = _most_of_one(limits)
        return free > 0 and self.held(user) * (limits.connections - most) < most * free

    def greediest(self, newcomer: User) -> User:
        """Find who gives one to a newcomer; the newcomer, if nobody holds enough more."""
        return greediest(self._held, newcomer)

    def refusal(self, user: User, limits: Limits) -> str:
        """Say why a user may not have one more."""
        if self.taken >= limits.connections:
            return f"{limits.connections} connections are open already"
        return (
            f"this user has {self.held(user)} connections open already, and the rest is kept for "
            "others (limits.connections_per_user); close some, or ask over fewer"
        )

    def take(self, user: User) -> None:
        """Count one more."""
        self._held[user] = self.held(user) + 1
        self.taken += 1

    def leave(self, user: User) -> None:
        """Count one less."""
        self.taken -= 1
        left = self._held[user] - 1
        if left:
            self._held[user] = left
        else:
            del self._held[user]


def _most_of_one(limits: Limits) -> int:
    """Say how many connections a user may have while nobody else has any."""
    asked = limits.connections_per_user or -(-3 * limits.connections // 4)
    return min(asked, limits.connections)
