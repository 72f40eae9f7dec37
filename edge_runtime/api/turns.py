"""Fair turns: while several users ask, none has more than a few requests handled in one turn.

The loop reads whatever arrived, connection by connection. A user with a hundred connections would
make every other one wait for a hundred requests. So while more than one user is about, the requests
of each beyond a few wait, in their order, for the next turn of the loop. They cost nothing but
their place: how many there can be is bounded by connections, pipelines and the budget of bodies.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from edge_runtime.api.exchange import Exchange

PER_TURN: Final = 2  # requests of one user in one turn of the loop, while others are about
ABOUT_S: Final = 0.1  # a user is about for so long after a request

_NOBODY_YET: Final = -1


class Turns:
    """Stands between the doors for predictions and their routes.

    Args:
        loop: The event loop.
        dispatch: Answers an exchange.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, dispatch: Callable[[Exchange], None]
    ) -> None:
        self._loop = loop
        self._dispatch = dispatch
        self._last: int | None = _NOBODY_YET  # who asked last
        self._shared_until = 0.0  # several users are about until then
        self._handled: dict[int | None, int] = {}  # in this turn
        self._waiting: dict[int | None, deque[Exchange]] = {}
        self._is_due = False

    def take(self, exchange: Exchange) -> None:
        """Handle an exchange that was just received, now or in one of the next turns."""
        user = exchange.connection.peer.uid
        if user != self._last:
            if self._last != _NOBODY_YET:
                self._shared_until = self._loop.time() + ABOUT_S
            self._last = user
        if not self._shared_until:  # one user: the common case costs two comparisons
            self._dispatch(exchange)
            return
        self._share(user, exchange)

    def _share(self, user: int | None, exchange: Exchange) -> None:
        waiting = self._waiting.get(user)
        handled = self._handled.get(user, 0)
        if waiting or handled >= PER_TURN:
            if waiting is None:
                waiting = self._waiting[user] = deque()
            waiting.append(exchange)
        else:
            self._handled[user] = handled + 1
            self._dispatch(exchange)
        self._again()

    def _again(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Begin a turn: everybody may have a few requests handled anew."""
        self._is_due = False
        self._handled.clear()
        if self._waiting:  # first: whatever happens below, there is a next turn
            self._again()
        for user, waiting in list(self._waiting.items()):
            for _ in range(min(PER_TURN, len(waiting))):
                self._dispatch(waiting.popleft())
            self._handled[user] = PER_TURN
            if not waiting:
                del self._waiting[user]
        if not self._waiting and self._loop.time() > self._shared_until:
            self._shared_until = 0.0
