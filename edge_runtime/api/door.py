"""What the connections of one listening socket have in common: who may come in, and who goes."""

import asyncio
from collections.abc import Callable
from typing import Final

from edge_runtime.api.connection import Connection
from edge_runtime.api.exchange import Exchange
from edge_runtime.api.http import Budget
from edge_runtime.api.places import Places
from edge_runtime.api.request_log import NoLog
from edge_runtime.api.timeouts import Timeouts
from edge_runtime.fairness import User
from edge_runtime.metrics import ServerStatistics
from edge_runtime.settings import Limits

LEAVING_MAX: Final = 64  # clients told that there are too many; more are cut without a word


class Door:
    """What the connections of one listening socket have in common.

    Args:
        dispatch: Answers an exchange, now or later.
        limits: What a caller may ask; ``connections`` counts on each door by itself.
        statistics: Counters of the daemon.
        timeouts: Watches deadlines.
        budget: Of the bodies of unanswered requests, on every door together.
    """

    def __init__(
        self,
        dispatch: Callable[[Exchange], None],
        limits: Limits,
        statistics: ServerStatistics,
        timeouts: Timeouts,
        budget: Budget,
    ) -> None:
        self.dispatch = dispatch
        self.limits = limits
        self.statistics = statistics
        self.timeouts = timeouts
        self.budget = budget
        #: Notes requests that were answered; may be replaced.
        self.log = NoLog()
        self.connections: set[Connection] = set()
        self.places = Places()
        self._placed: set[Connection] = set()
        self._loop = asyncio.get_running_loop()
        self._writing: list[Connection] = []
        #: Set while there is no connection.
        self.empty = asyncio.Event()
        self.empty.set()

    def connection(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self)

    # -- places --------------------------------------------------------------------------------

    def admit(self, newcomer: Connection) -> bool:
        """Give a new connection a place, an idle one's of another user if need be; or not."""
        user = newcomer.peer.uid
        if not (self.places.are_free(user, self.limits) or self._evict_for(user)):
            return False
        self._placed.add(newcomer)
        self.places.take(user)
        return True

    def give_up(self, connection: Connection) -> None:
        """Take a connection's place back, if it has one."""
        if connection in self._placed:
            self._placed.discard(connection)
            self.places.leave(connection.peer.uid)

    @property
    def may_tell(self) -> bool:
        """Whether one more without a place may stay for an answer: it holds a descriptor."""
        return len(self.connections) - self.places.taken <= LEAVING_MAX

    def _evict_for(self, user: User) -> bool:
        """Close what is idle for longest of the user who holds most; tell whether there was one."""
        greediest = self.places.greediest(user)
        if greediest == user:
            return False
        theirs = (each for each in self._placed if each.peer.uid == greediest)
        for each in sorted(theirs, key=lambda each: each.deadline):
            if each.end_if_idle():
                self.give_up(each)
                self.statistics.connections_evicted += 1
                return True
        return False

    # -- answers and the end -------------------------------------------------------------------

    def write_later(self, connection: Connection) -> None:
        """Write a connection's answers at the end of this turn of the loop.

        Answers that become ready in one turn leave together: writing each at once wakes a waiting
        client every time, which costs more than a short model's run (measured: 5x at 32 clients).
        """
        if not self._writing:
            self._loop.call_soon(self._write_all)
        self._writing.append(connection)

    def _write_all(self) -> None:
        writing = self._writing
        self._writing = []
        for connection in writing:
            connection.write_outgoing()

    def drain(self) -> None:
        """Close what is idle, and let everything else close after its last answer."""
        for connection in list(self.connections):
            connection.drain()

    def abort(self) -> None:
        """Cut every connection."""
        for connection in list(self.connections):
            connection.abort()
