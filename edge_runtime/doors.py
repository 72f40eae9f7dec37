"""Which door is behind which socket, and how all of them are kept up to date and shut together."""

import asyncio
import logging

from edge_runtime import access
from edge_runtime.api.door import Door
from edge_runtime.api.handlers import Handlers
from edge_runtime.api.handover import HandoverDoor
from edge_runtime.api.http import Budget
from edge_runtime.api.request_log import RequestLog
from edge_runtime.api.routes import Router
from edge_runtime.api.tables import admin_routes, data_routes
from edge_runtime.api.timeouts import Timeouts
from edge_runtime.api.turns import Turns
from edge_runtime.listeners import BoundSocket, Listeners
from edge_runtime.metrics import ServerStatistics
from edge_runtime.settings import Limits

_log = logging.getLogger(__name__)


class Doors:
    """Every door of the daemon. Made and used on its event loop's thread.

    Args:
        handlers: Answer requests.
        statistics: Counters of the daemon.
        log: Notes requests that were answered.

    Attributes:
        listeners: The sockets.
    """

    def __init__(self, handlers: Handlers, statistics: ServerStatistics, log: RequestLog) -> None:
        self.listeners = Listeners()
        self._handlers = handlers
        self._statistics = statistics
        self._log = log
        self._doors: list[Door] = []
        self._handovers: list[HandoverDoor] = []

    def add(self, sockets: list[BoundSocket], limits: Limits) -> None:
        """Put a door behind each socket; nobody is let in yet.

        Args:
            sockets: Bound already; closed with the doors from now on.
            limits: What a caller may ask.
        """
        loop = asyncio.get_running_loop()
        timeouts = Timeouts(loop)
        budget = Budget()
        data = Router(data_routes(self._handlers))
        admin = Router(admin_routes(self._handlers))
        turns = Turns(loop, data.dispatch)
        for bound in sockets:
            if bound.address.name == access.HANDOVER:
                handover = HandoverDoor(self._handlers)
                self._handovers.append(handover)
                self.listeners.add_raw(bound, handover.accept)
                continue
            dispatch = admin.dispatch if bound.address.name == access.ADMIN else turns.take
            door = Door(dispatch, limits, self._statistics, timeouts, budget)
            door.log = self._log
            self._doors.append(door)
            self.listeners.add(bound, door.connection)

    def take(self, limits: Limits) -> None:
        """Ask no more than this of callers from now on."""
        for door in self._doors:
            door.limits = limits

    async def drain(self, within_s: float) -> None:
        """Shut the doors, let everybody have their answers, and cut who takes too long."""
        await self.listeners.stop_accepting()
        doors: list[Door | HandoverDoor] = [*self._doors, *self._handovers]
        for door in doors:
            door.drain()
        try:
            async with asyncio.timeout(within_s):
                for door in doors:
                    await door.empty.wait()
        except TimeoutError:
            _log.warning(
                "%d connections are cut after %g s", self._statistics.connections_open, within_s
            )
            for door in doors:
                door.abort()
        self.listeners.close()
