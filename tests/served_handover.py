"""The hand-over door in front of scripted releases, on a thread of its own."""

import asyncio
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from edge_runtime.access import HANDOVER
from edge_runtime.api.handover import HandoverDoor
from edge_runtime.callers import Callers
from edge_runtime.listeners import Listeners, bind_unix
from tests.scripted_orders import ScriptedOrders, handlers_of

WAIT_S = 60.0
SHA = "0" * 64
ME = os.getuid()
OTHER = Callers(frozenset({ME + 1}), frozenset())
MINE = Callers(frozenset({ME}), frozenset())
on_each_loop = pytest.fixture(
    params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"]
)
"""Makes the fixture of a test file: ``served = on_each_loop(served_on)``."""


class Served:
    """The door in front of scripted releases, on a thread of its own.

    Attributes:
        path: Its socket.
        orders: What it asks.
        handlers: Know who may.
    """

    def __init__(self, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="er-", dir="/tmp"))
        self.path = self._folder / "handover.sock"
        self.orders = ScriptedOrders()
        self.loop = make_loop()
        self._open = threading.Event()
        self._bound = bind_unix(self.path, name=HANDOVER, kind=socket.SOCK_SEQPACKET)
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=self.loop.run_until_complete, args=(self._serve(),), daemon=True
        )
        self._thread.start()
        assert self._open.wait(WAIT_S)

    async def _serve(self) -> None:
        self.handlers = handlers_of(self.orders)  # needs the loop, like the door
        self.door = HandoverDoor(self.handlers)
        listeners = Listeners()
        listeners.add_raw(self._bound, self.door.accept)
        await listeners.start()
        self._open.set()
        await self._stop.wait()
        await listeners.stop_accepting()
        self.door.drain()
        await self.door.empty.wait()
        listeners.close()

    def hold(self) -> asyncio.Event:
        """Have orders wait."""
        self.orders.held = asyncio.Event()
        return self.orders.held

    def let_go(self) -> None:
        """Let them go on."""
        held, self.orders.held = self.orders.held, None
        assert held is not None
        self.loop.call_soon_threadsafe(held.set)

    def stop(self) -> None:
        """Tell it to stop."""
        self.loop.call_soon_threadsafe(self._stop.set)

    def close(self) -> None:
        """Stop it, and wait until nothing of it is left."""
        self.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self.loop.close()
        shutil.rmtree(self._folder)


@contextmanager
def serving(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[Served]:
    """Serve scripted releases on a loop of some kind for the length of a block."""
    found = Served(make_loop)
    try:
        yield found
    finally:
        found.close()


def served_on(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Serve on the kind of loop that is asked for."""
    with serving(request.param) as found:
        yield found
